//! The HTTP client of the operator commands: where the server is, which key it gets, and what its answers mean.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Method, RequestBuilder, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    config::read_bounded,
    data::{self, DATA_DEFAULT},
    environment::Environment,
    failure::Failure,
    profile,
};

/// Where a server is when nobody says otherwise.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Longest wait for an answer: a bulk submit of 10,000 jobs on a slow disk, or a long poll and a reserve.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How the operator commands find the server.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Access {
    /// The server [env: LONGSHORE_URL] [default: a profile, the one that runs on the data folder, else http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL", help_heading = "Server")]
    pub(crate) url: Option<String>,
    /// The data folder of `longshore up`, which holds the admin key [env: LONGSHORE_DATA] [default: ./longshore-data]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Server")]
    pub(crate) data: Option<String>,
    /// An installation of ~/.config/longshore/config.toml [env: LONGSHORE_PROFILE] [default: its `default`]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Server")]
    pub(crate) profile: Option<String>,
    /// Print JSON instead of tables
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
}

impl Access {
    /// The data folder that these flags and variables mean.
    pub(crate) fn data_folder<'a>(&'a self, env: &'a Environment) -> &'a Path {
        Path::new(self.data.as_deref().or_else(|| env.get("LONGSHORE_DATA")).unwrap_or(DATA_DEFAULT))
    }
}

/// A server and the key that it gets.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SecretString>,
}

/// An answer that is not an error.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// 200..=299.
    pub(crate) status: u16,
    /// The JSON body; null where there is none.
    pub(crate) body: Value,
}

/// A query parameter that is left out when it has no value.
pub(crate) type Query<'a> = &'a [(&'a str, Option<String>)];

impl Client {
    /// Finds server and key: flags, then the environment, then a profile, then what `up` left in the data folder. Whoever names
    /// an address or a data folder means no default profile.
    pub(crate) fn find(access: &Access, env: &Environment) -> Result<Self, Failure> {
        let folder = access.data_folder(env);
        let usual_ca = || env.get("LONGSHORE_CA_FILE").map(PathBuf::from);
        let named = access.url.as_deref().or_else(|| env.get("LONGSHORE_URL")).map(str::to_owned);
        // An address as a flag is nearer than a profile in the environment.
        let usual = || env.get("LONGSHORE_PROFILE").filter(|_| access.url.is_none());
        let profile = access.profile.as_deref().or_else(usual);
        let elsewhere = named.is_some() || access.data.is_some() || env.get("LONGSHORE_DATA").is_some();
        if profile.is_some() || !elsewhere {
            if let (Some(name), Some(url)) = (&access.profile, &access.url) {
                return Err(Failure::usage(format!(
                    "--profile {name} has an address of its own; leave --url {url} out"
                )));
            }
            if let Some(profile) = profile::find(profile, env)? {
                // The key of another installation stays here.
                let key = match profile.key {
                    Some(key) => Some(key),
                    None => given_key(env)?,
                };
                return Self::new(&profile.url, key, profile.ca_file.or_else(usual_ca).as_deref());
            }
        }
        let url = named.or_else(|| data::running_url(folder)).unwrap_or_else(|| URL_DEFAULT.to_owned());
        let key = match given_key(env)? {
            Some(key) => Some(key),
            None => data::stored_key(folder)?.map(SecretString::from),
        };
        Self::new(&url, key, usual_ca().as_deref())
    }

    /// A client of the server at `url`, whose certificate is signed by one in `ca_file` or else by an authority that this machine
    /// believes.
    pub(crate) fn new(url: &str, key: Option<SecretString>, ca_file: Option<&Path>) -> Result<Self, Failure> {
        let base: Url = url.parse().map_err(|error| Failure::usage(format!("`{url}` is not a URL: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(Failure::usage(format!("`{url}` is not a URL such as {URL_DEFAULT}")));
        }
        let builder = builder_for(&base, ca_file)?
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT);
        let http = builder.build().map_err(|error| Failure::error(format!("no HTTP client: {}", chain(&error))))?;
        Ok(Self { http, base, key })
    }

    /// The server's address, without a slash at the end.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether there is a key to send.
    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// A request whose path is made of `segments` (each encoded), with the key.
    pub(crate) fn request(&self, method: Method, segments: &[&str], query: Query<'_>) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        if query.iter().any(|(_, value)| value.is_some()) {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in query {
                if let Some(value) = value {
                    pairs.append_pair(name, value);
                }
            }
        }
        let request = self.http.request(method, url).timeout(ANSWER_TIMEOUT);
        match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, format!("Bearer {}", key.expose_secret())),
            None => request,
        }
    }

    /// Asks for something.
    pub(crate) async fn get(&self, segments: &[&str], query: Query<'_>) -> Result<Value, Failure> {
        Ok(self.send(self.request(Method::GET, segments, query)).await?.body)
    }

    /// Sends `body` to somewhere.
    pub(crate) async fn send_json(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let request = self.request(method, segments, &[]);
        self.send(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Sends a request and reads its whole answer; anything but 2xx is a [`Failure`].
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() => Value::Null,
            Err(_) => Value::String(String::from_utf8_lossy(&bytes).into_owned()),
        };
        if status.is_success() {
            return Ok(Answer { status: status.as_u16(), body });
        }
        Err(Failure::from_problem(status.as_u16(), body))
    }

    /// A failure to talk to the server at all.
    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let hint =
            if error.is_connect() { "\n  is `longshore up` running? LONGSHORE_URL names another server" } else { "" };
        Failure::error(format!("cannot reach {}: {}{hint}", self.base(), chain(error)))
    }
}

/// What every client of this program keeps to that asks the server at `url`.
pub(crate) fn builder_for(url: &Url, ca_file: Option<&Path>) -> Result<reqwest::ClientBuilder, Failure> {
    // A key that follows a redirect may end at a stranger.
    let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "http" {
        // Plain HTTP needs no certificates, and a machine without any must still reach its own server.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = ca_file {
        builder = builder.tls_certs_only(authorities(path)?);
    }
    Ok(if is_loopback(url) { builder.no_proxy() } else { builder })
}

/// The key that the environment gives.
fn given_key(env: &Environment) -> Result<Option<SecretString>, Failure> {
    Ok(env.secret("LONGSHORE_KEY").map_err(Failure::usage)?.map(SecretString::from))
}

/// The certificates in a file.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let failed = |reason: String| Failure::usage(format!("the file of authorities {}: {reason}", path.display()));
    let text = read_bounded(path).map_err(|error| failed(error.to_string()))?;
    let found = Certificate::from_pem_bundle(text.as_bytes()).map_err(|error| failed(chain(&error)))?;
    if found.is_empty() { Err(failed("it has no certificate".to_owned())) } else { Ok(found) }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An error with its causes, without the URL that the caller has named already.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Client {
        Client::new(url, None, None).unwrap()
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        let request = client("http://127.0.0.1:1/base/")
            .request(Method::GET, &["v1", "jobs", "a/b?c"], &[("q", Some("x&y".into())), ("none", None)])
            .build()
            .unwrap();
        assert_eq!(request.url().as_str(), "http://127.0.0.1:1/base/v1/jobs/a%2Fb%3Fc?q=x%26y");
    }

    #[test]
    fn a_url_that_is_none_is_a_usage_error() {
        for url in ["nonsense", "ftp://host", "unix:/x"] {
            assert_eq!(Client::new(url, None, None).unwrap_err().exit, crate::failure::Exit::Usage, "{url}");
        }
    }

    #[test]
    fn a_profile_is_named_or_the_default_where_nothing_else_is() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("longshore")).unwrap();
        let text = "default = \"a\"\n[profiles.a]\nurl = \"http://a\"\n[profiles.b]\nurl = \"http://b\"";
        std::fs::write(home.path().join("longshore/config.toml"), text).unwrap();
        let home = home.path().to_str().unwrap();
        let access = |url: Option<&str>, profile: Option<&str>, data: Option<&str>| Access {
            url: url.map(str::to_owned),
            profile: profile.map(str::to_owned),
            data: data.map(str::to_owned),
            json: false,
        };
        let found = |access: Access, more: &[(&str, &str)]| {
            let env = Environment::of(&[&[("XDG_CONFIG_HOME", home)], more].concat());
            Client::find(&access, &env).map(|client| client.base().to_owned())
        };
        for (access, env, base) in [
            (access(None, None, None), &[][..], "http://a"),
            (access(None, Some("b"), None), &[("LONGSHORE_URL", "http://env")][..], "http://b"),
            (access(None, None, None), &[("LONGSHORE_PROFILE", "b")], "http://b"),
            (access(None, None, None), &[("LONGSHORE_URL", "http://env")], "http://env"),
            (access(Some("http://flag"), None, None), &[("LONGSHORE_PROFILE", "b")], "http://flag"),
            (access(None, None, Some("/nowhere")), &[], URL_DEFAULT),
        ] {
            assert_eq!(found(access, env).unwrap(), base, "{env:?}");
        }
        assert!(found(access(Some("http://flag"), Some("b"), None), &[]).is_err(), "two addresses");
        assert!(found(access(None, Some("c"), None), &[]).is_err(), "no such profile");
    }

    #[test]
    fn flags_come_before_the_environment() {
        let env = Environment::of(&[("LONGSHORE_URL", "http://env:1"), ("LONGSHORE_KEY", "k")]);
        let access = Access { url: Some("http://flag:2".into()), ..Access::default() };
        assert_eq!(Client::find(&access, &env).unwrap().base(), "http://flag:2");
        let found = Client::find(&Access::default(), &env).unwrap();
        assert_eq!(found.base(), "http://env:1");
        assert!(found.has_key());
    }
}
