//! The identity provider as this process meets it: where its endpoints are, and what it answers. Its addresses are the operator's, so
//! nothing filters them, but every answer is bounded in time and size, and none is followed elsewhere.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use form_urlencoded::{Serializer, byte_serialize};
use reqwest::{StatusCode, Url, header, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;

/// Longest wait for a connection, and for a whole answer: a person looks at a blank page meanwhile.
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ANSWER_MAX: Duration = Duration::from_secs(8);
/// Largest answer, in bytes: descriptions, key sets and tokens are some kilobytes.
const ANSWER_MAX_BYTES: usize = 256 * 1024;
/// How long a description is believed.
const DESCRIPTION_FRESH: Duration = Duration::from_secs(60 * 60);
/// How long a provider that could not be asked is left alone.
const DESCRIPTION_AGAIN: Duration = Duration::from_secs(5);
/// A connection that was kept may have ended meanwhile, so a description is asked for twice.
const TRIES: u32 = 2;

/// What a provider says of itself (OpenID Connect Discovery 1.0, section 3). Its addresses are checked when they are used: some
/// providers have no place to sign in at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Description {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl Description {
    pub(super) fn authorization(&self) -> Result<Url, String> {
        endpoint("authorization_endpoint", self.authorization_endpoint.as_deref())
    }

    fn token(&self) -> Result<Url, String> {
        endpoint("token_endpoint", self.token_endpoint.as_deref())
    }

    /// Where people sign out, if there is such a place.
    pub(super) fn end_session(&self) -> Option<Url> {
        endpoint("end_session_endpoint", self.end_session_endpoint.as_deref()).ok()
    }
}

fn endpoint(name: &str, url: Option<&str>) -> Result<Url, String> {
    let url = url.ok_or_else(|| format!("the provider's description names no {name}"))?;
    checked_url(url).map_err(|reason| format!("the provider's {name} {reason}"))
}

/// A URL over which keys and secrets may travel: https, or http within this machine.
///
/// # Errors
/// What is wrong with it, to be read behind its name.
pub fn checked_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user, no password and no fragment".into());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(format!("`{url}` is not https: whoever is on its way could make anybody an admin")),
        _ => Err(format!("`{url}` is no https URL")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// How one issuer is asked.
#[derive(Clone, Debug)]
pub struct Line {
    http: reqwest::Client,
    issuer: String,
    description: Url,
}

impl Line {
    /// To the issuer of this name; nothing is asked yet.
    ///
    /// # Errors
    /// It is no URL that may be asked, or the machine has no authorities to believe its certificate by.
    pub fn to(issuer: &str) -> Result<Self, String> {
        let url = checked_url(issuer)?;
        let description = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let description = checked_url(&description)?;
        // A redirected POST would carry the code and the secret to where nobody sent them.
        let mut http =
            reqwest::Client::builder().redirect(Policy::none()).connect_timeout(CONNECT_MAX).timeout(ANSWER_MAX);
        if url.scheme() == "http" {
            http = http.tls_certs_only([]);
        }
        if is_loopback(&url) {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| format!("there is no HTTP client: {}", cause(&error)))?;
        Ok(Self { http, issuer: issuer.to_owned(), description })
    }

    /// What the issuer says of itself.
    pub(super) async fn describe(&self) -> Result<Description, String> {
        let text = self.text(&self.description).await?;
        let description: Description = serde_json::from_str(&text)
            .map_err(|_| format!("{} does not describe an OpenID provider", self.description))?;
        // Else anybody whose pages it serves could speak in its name.
        if description.issuer != self.issuer {
            return Err(format!(
                "{} is the description of `{}`, and not of `{}`: the issuer has to be written as the provider writes it",
                self.description, description.issuer, self.issuer
            ));
        }
        Ok(description)
    }

    /// Where the issuer's public keys are, as it says itself.
    ///
    /// # Errors
    /// It cannot be asked, or does not say it.
    pub async fn place_of_keys(&self) -> Result<Url, String> {
        endpoint("jwks_uri", self.describe().await?.jwks_uri.as_deref())
    }

    /// What is at `url`.
    ///
    /// # Errors
    /// It does not answer in time, with a status other than 200, or with more than 256 KiB.
    pub async fn text(&self, url: &Url) -> Result<String, String> {
        let asked = self.http.get(url.clone()).header(header::ACCEPT, "application/json");
        let (status, body) = whole(asked).await.map_err(|why| format!("{url} {why}"))?;
        match status {
            StatusCode::OK => String::from_utf8(body).map_err(|_| format!("{url} does not answer with text")),
            status => Err(format!("{url} answered {status}")),
        }
    }

    /// Trades a code for tokens (RFC 6749, section 4.1.3, with RFC 7636).
    pub(super) async fn exchange(
        &self,
        description: &Description,
        client: &ClientId<'_>,
        code: &str,
        verifier: &str,
    ) -> Result<Granted, Denied> {
        let url = description.token().map_err(Denied::Provider)?;
        let mut asked = self.http.post(url.clone()).header(header::ACCEPT, "application/json");
        let mut own = vec![];
        match client.secret {
            Some(secret) if description.takes_basic().map_err(Denied::Provider)? => {
                asked = asked.header(header::AUTHORIZATION, basic(client.id, secret)?);
            }
            secret => {
                own.push(("client_id", client.id));
                own.extend(secret.map(|secret| ("client_secret", secret.expose_secret())));
            }
        }
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", client.redirect_uri)
            .append_pair("code_verifier", verifier)
            .extend_pairs(own)
            .finish();
        asked = asked.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        let (status, body) = whole(asked).await.map_err(|why| Denied::Provider(format!("{url} {why}")))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| Denied::Provider(format!("{url} did not answer with tokens")));
        }
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        Err(match said.error.as_deref() {
            // Used, too old, or somebody else's: whoever begins again gets another.
            Some("invalid_grant") => Denied::Code(said.words()),
            Some(_) => Denied::Provider(format!("{url} refused the code: {}", said.words())),
            None => Denied::Provider(format!("{url} answered {status}")),
        })
    }
}

impl Description {
    /// Whether the client shows its secret in a header, and not in the form.
    fn takes_basic(&self) -> Result<bool, String> {
        // "If omitted, the default is client_secret_basic": Discovery 1.0, section 3.
        let Some(methods) = &self.token_endpoint_auth_methods_supported else { return Ok(true) };
        let takes = |name: &str| methods.iter().any(|method| method == name);
        match (takes("client_secret_basic"), takes("client_secret_post")) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => Err(format!("the provider takes no client secret, but {}", methods.join(", "))),
        }
    }
}

/// As whom this installation is known to the provider.
pub(super) struct ClientId<'s> {
    pub(super) id: &'s str,
    pub(super) secret: Option<&'s SecretString>,
    pub(super) redirect_uri: &'s str,
}

/// What a code was traded for.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    pub(super) id_token: Option<String>,
}

/// Why it was not.
#[derive(Debug)]
pub(super) enum Denied {
    /// The code is no good: the person begins again.
    Code(String),
    /// The provider cannot be asked, or wants something else of us: the operator's affair.
    Provider(String),
}

/// An error as OAuth words it.
#[derive(Default, Deserialize)]
struct Said {
    error: Option<String>,
    error_description: Option<String>,
}

impl Said {
    fn words(&self) -> String {
        super::words(self.error.as_deref().unwrap_or("an error"), self.error_description.as_deref())
    }
}

/// `client_id:client_secret`, each written as in a form first: RFC 6749, section 2.3.1.
fn basic(id: &str, secret: &SecretString) -> Result<header::HeaderValue, Denied> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let both = format!("{}:{}", encoded(id), encoded(secret.expose_secret()));
    let mut value = header::HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both)))
        .map_err(|_| Denied::Provider("the client's secret is too long for a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Status and body, in bounds. The error is to be read behind the address.
async fn whole(asked: reqwest::RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
    let failed = |error: reqwest::Error| {
        if error.is_timeout() {
            format!("did not answer within {} s", ANSWER_MAX.as_secs())
        } else {
            format!("cannot be asked: {}", cause(&error))
        }
    };
    let mut response = asked.send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        if body.len() + piece.len() > ANSWER_MAX_BYTES {
            return Err(format!("answers with more than {ANSWER_MAX_BYTES} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok((response.status(), body))
}

/// The innermost cause of an error: those around it repeat the address.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// A provider's description, asked for when somebody signs in and believed for an hour. A provider that is away costs nobody else
/// anything.
#[derive(Debug, Default)]
pub(super) struct Described {
    // Whoever comes while somebody asks waits for the same answer.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    found: Option<(Arc<Description>, Instant)>,
    failed: Option<(String, Instant)>,
}

impl Described {
    /// The description, fresh or, where the provider cannot be asked, as it was.
    pub(super) async fn by(&self, line: &Line) -> Result<Arc<Description>, String> {
        let mut known = self.known.lock().await;
        if let Some((found, at)) = &known.found
            && at.elapsed() < DESCRIPTION_FRESH
        {
            return Ok(found.clone());
        }
        let stale = known.found.as_ref().map(|(found, _)| found.clone());
        if let Some((why, at)) = &known.failed
            && at.elapsed() < DESCRIPTION_AGAIN
        {
            return stale.ok_or_else(|| why.clone());
        }
        let mut asked = line.describe().await;
        for _ in 1..TRIES {
            if asked.is_err() {
                asked = line.describe().await;
            }
        }
        match asked {
            Ok(description) => {
                let description = Arc::new(description);
                *known = Known { found: Some((description.clone(), Instant::now())), failed: None };
                Ok(description)
            }
            Err(why) => {
                tracing::warn!(reason = %why, "the dashboard's identity provider cannot be asked");
                known.failed = Some((why.clone(), Instant::now()));
                stale.ok_or(why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_secrets_travel_over_https_or_within_the_machine() {
        for good in [
            "https://id.example",
            "https://id.example/realms/x?y=z",
            "http://127.0.0.1:1/",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(checked_url(good).is_ok(), "{good}");
        }
        for wrong in [
            "http://id.example",
            "http://10.0.0.1",
            "ftp://id.example",
            "id.example",
            "https://u@id.example",
            "https://u:p@id.example",
            "https://id.example/#x",
            "http://localhost.example",
        ] {
            assert!(checked_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_goes_where_the_provider_takes_it() {
        let takes = |methods: Option<&[&str]>| {
            let methods = methods.map(|all| all.iter().map(|&one| one.to_owned()).collect());
            Description { token_endpoint_auth_methods_supported: methods, ..Description::default() }.takes_basic()
        };
        assert_eq!(takes(None), Ok(true));
        assert_eq!(takes(Some(&["client_secret_post", "client_secret_basic"])), Ok(true));
        assert_eq!(takes(Some(&["private_key_jwt", "client_secret_post"])), Ok(false));
        assert!(takes(Some(&["private_key_jwt"])).is_err());
        let header = basic("a b", &"s:t+u/ü".into()).unwrap();
        assert!(header.is_sensitive());
        let text = header.to_str().unwrap().strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(text).unwrap(), b"a+b:s%3At%2Bu%2F%C3%BC");
    }
}
