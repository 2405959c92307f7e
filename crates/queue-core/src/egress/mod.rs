//! Requests to URLs that users name: webhooks and jobs of kind `http`. Nothing here reaches what only this network reaches.
//!
//! A name is resolved once for a connection, every address that it has is checked, and the connection is made to an address
//! that was checked: a name that answers differently a moment later (rebinding) changes nothing. Addresses in a URL are read
//! as browsers read them, so `2130706433`, `0x7f.1` and `127.0.0.1` are one. No redirect is followed, no proxy is asked, no
//! credentials may stand in a URL, and both time and size of an answer are bounded.

mod addresses;

use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
pub use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use reqwest::{
    Url,
    dns::{Addrs, Name as HostName, Resolve, Resolving},
    header::RETRY_AFTER,
};

pub use addresses::Network;

use crate::time::Timestamp;

/// Longest URL, in bytes: it stands in rows and logs.
pub const URL_MAX_BYTES: usize = 2_048;
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at: more are no service's.
const ADDRESSES_MAX: usize = 64;
/// Idle connections that are kept for one host: bursts of deliveries share them.
const IDLE_PER_HOST: usize = 4;
/// How long an idle connection is kept. Its address was checked when it was made.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What operators allow beyond https to the public internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `http://` as well.
    pub http: bool,
    /// Networks that are not public.
    pub networks: Vec<Network>,
}

impl Allowed {
    /// Reads a URL, and refuses what can be told to lead nowhere good without asking for its name. The answer is the URL as it
    /// is sent to; the error says why not.
    pub fn check(&self, text: &str) -> Result<String, String> {
        self.parse(text).map(String::from)
    }

    fn parse(&self, text: &str) -> Result<Url, String> {
        check_length(text)?;
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        // What is no ASCII grows where it is escaped.
        check_length(url.as_str())?;
        match url.scheme() {
            "https" => {}
            "http" if self.http => {}
            "http" => return Err("is http; only https is allowed (webhooks.allow_http)".into()),
            other => return Err(format!("has the scheme `{other}`; only https is allowed")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has credentials in it; they would end up in logs".into());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("has no host")?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            check_address(self, host, address).map_err(|refused| refused.0)?;
        } else if let Some(odd) = host.chars().find(|&c| !c.is_ascii_alphanumeric() && !"-._".contains(c)) {
            // Such a name leads nowhere, and where targets are named after hosts it would mean more than one.
            return Err(format!("has a host with `{odd}` in its name"));
        }
        Ok(url)
    }
}

fn check_length(url: &str) -> Result<(), String> {
    if url.len() > URL_MAX_BYTES {
        return Err(format!("is {} bytes long as it is sent; a URL has at most {URL_MAX_BYTES}", url.len()));
    }
    Ok(())
}

/// Where names lead. Tests put one of their own in its place.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// The addresses of a host.
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).take(ADDRESSES_MAX).collect())
    }
}

/// A place where nobody is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

/// A request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where to.
    pub url: String,
    /// How.
    pub method: Method,
    /// With which headers.
    pub headers: HeaderMap,
    /// With which body.
    pub body: Bytes,
    /// Longest time until the answer has been read.
    pub timeout: Duration,
    /// Most bytes of the answer that are read.
    pub answer_max_bytes: usize,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, or the beginning of it.
    pub body: Bytes,
    /// Whether that is all of the body.
    pub is_whole: bool,
}

impl Answer {
    /// How long its sender asks to wait, in milliseconds.
    pub fn retry_after_ms(&self, now: Timestamp) -> Option<i64> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse::<u32>() {
            return Some(i64::from(seconds) * 1_000);
        }
        let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Timestamp(at.as_millisecond()).since_ms(now))
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody is sent there: nothing has left this process.
    #[error("{0}")]
    Refused(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The line, or who is at its end, did not work.
    #[error("{reason}")]
    Transport {
        /// Nothing of the request had been sent.
        before_sent: bool,
        /// What is wrong.
        reason: String,
    },
}

/// Sends requests to URLs that users name. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    client: Result<reqwest::Client, String>,
    allowed: Arc<Allowed>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Egress").field(&self.allowed).finish()
    }
}

impl Egress {
    /// With the operating system's resolver.
    pub fn new(allowed: Allowed) -> Self {
        Self::with_lookup(allowed, Arc::new(SystemLookup))
    }

    /// With another resolver. On a machine without certificates it can send to nobody, and says so with each request: that is
    /// no reason for anything else to stop.
    pub fn with_lookup(allowed: Allowed, lookup: Arc<dyn Lookup>) -> Self {
        let allowed = Arc::new(allowed);
        let resolver = Arc::new(Checked { allowed: allowed.clone(), lookup });
        let client = reqwest::Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .https_only(!allowed.http)
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(|error| format!("this process cannot send to URLs: {}", innermost(&error)));
        Self { client, allowed }
    }

    /// What is allowed.
    pub fn allowed(&self) -> &Allowed {
        &self.allowed
    }

    /// Sends one request and reads its answer. Nothing has left where it is [`SendError::Refused`].
    pub async fn send(&self, request: Outgoing) -> Result<Answer, SendError> {
        let timeout = request.timeout;
        tokio::time::timeout(timeout, self.exchange(request)).await.unwrap_or(Err(SendError::Timeout(timeout)))
    }

    async fn exchange(&self, request: Outgoing) -> Result<Answer, SendError> {
        let url = self.allowed.parse(&request.url).map_err(SendError::Refused)?;
        let client = self
            .client
            .as_ref()
            .map_err(|reason| SendError::Transport { before_sent: true, reason: reason.clone() })?;
        let sent = client.request(request.method, url).headers(request.headers).body(request.body).send();
        let mut response = sent.await.map_err(failed)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            let room = request.answer_max_bytes - body.len();
            if chunk.len() > room {
                body.extend_from_slice(&chunk[..room]);
                return Ok(Answer { status, headers, body: body.freeze(), is_whole: false });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze(), is_whole: true })
    }
}

fn check_address(allowed: &Allowed, host: &str, address: IpAddr) -> Result<(), Refused> {
    match addresses::refusal(address, &allowed.networks) {
        None => Ok(()),
        Some(why) => Err(Refused(format!(
            "{host} leads to {address}, which is {why}; `webhooks.allow_networks` lists the networks that may be reached"
        ))),
    }
}

/// Resolves names to addresses that were checked; the connection is made to these and no others.
struct Checked {
    allowed: Arc<Allowed>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for Checked {
    fn resolve(&self, name: HostName) -> Resolving {
        let (allowed, lookup) = (self.allowed.clone(), self.lookup.clone());
        Box::pin(async move {
            let host = name.as_str();
            let found = lookup.lookup(host).await?;
            if found.is_empty() {
                return Err(format!("{host} has no address").into());
            }
            // One bad address among good ones is a trick: a client would try the next where the first does not answer.
            for address in &found {
                check_address(&allowed, host, *address)?;
            }
            // The port of the URL takes the place of this one.
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// What a failure of the client means. The URL is left out: it is the caller's, and may hold a token.
fn failed(error: reqwest::Error) -> SendError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(Refused(why)) = inner.downcast_ref() {
            return SendError::Refused(why.clone());
        }
        cause = inner.source();
    }
    let before_sent = error.is_connect();
    let what = if before_sent { "cannot connect" } else { "the connection failed" };
    SendError::Transport { before_sent, reason: format!("{what}: {}", innermost(&error)) }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
