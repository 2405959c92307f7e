//! Signing in with the operator's identity provider (OpenID Connect Core 1.0, authorization code flow with PKCE). Second factors, and
//! who is still with us, are the provider's affair.
//!
//! What comes out of it is a token that the provider has signed and that becomes the session, as if somebody had pasted it. Whether
//! it is believed, whose it is and what it may do is decided by the API (`[[auth.issuers]]`), for this token as for any other: nothing
//! here makes anybody anything. Nothing is kept in the process: a sign-in that one replica begins, another ends.

mod callback;
mod flow;
mod provider;
mod start;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, HeaderValue},
    routing::get,
};
use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::Semaphore;

use self::provider::{ClientId, Described, Description};
pub use self::provider::{Line, checked_url};
use crate::{Dashboard, client::query, session};

/// Where a sign-in begins.
const START: &str = "/dashboard/oidc/start";
/// Where the provider sends the browser back to.
const CALLBACK: &str = "/dashboard/oidc/callback";
/// Codes that are traded at the same moment: each is a request to the provider, and anybody can make one up.
const EXCHANGES_MAX: usize = 16;
/// Longest wait for the provider of somebody who leaves.
const LEAVING_MAX: Duration = Duration::from_secs(2);
/// Longest words of a provider that are shown, in letters.
const WORDS_MAX: usize = 300;
/// The cookie that remembers that somebody came this way, so that the provider is asked again when the session ends. Providers'
/// tokens often live for minutes, and it answers without a question as long as its own session goes on.
const WAY: &str = "longshore_way";
/// What it says.
const WAY_OIDC: &str = "oidc";
/// How long it is remembered, in seconds: a month.
const WAY_MAX_S: u32 = 30 * 24 * 60 * 60;

/// The identity provider that people sign in with.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// Its `iss`, to the letter: one of those whose tokens the API believes.
    pub issuer: String,
    /// As whom it knows this installation.
    pub client_id: String,
    /// What proves that; a client without one is a public client.
    pub client_secret: Option<SecretString>,
    /// What is asked for; `openid` among it.
    pub scopes: Vec<String>,
    /// What the button calls it.
    pub name: String,
    /// Where browsers find this installation, `https://longshore.example.com`: what a request says of its host is not believed.
    pub public_url: Url,
}

/// The provider, and what is known of it.
#[derive(Debug)]
pub struct Oidc {
    settings: OidcSettings,
    line: Line,
    described: Described,
    exchanges: Semaphore,
}

impl Oidc {
    /// Asks nobody yet.
    ///
    /// # Errors
    ///
    /// There can be no HTTP client for it.
    pub fn new(settings: OidcSettings) -> Result<Self, String> {
        let line = Line::to(&settings.issuer)?;
        Ok(Self { settings, line, described: Described::default(), exchanges: Semaphore::new(EXCHANGES_MAX) })
    }

    /// What the button calls the provider.
    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    async fn description(&self) -> Result<Arc<Description>, String> {
        self.described.by(&self.line).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.settings.public_url.as_str().trim_end_matches('/'))
    }

    fn is_https(&self) -> bool {
        self.settings.public_url.scheme() == "https"
    }

    /// Where somebody who signs out here with this bearer signs out at the provider, too (OpenID Connect RP-Initiated Logout 1.0);
    /// `None` where the bearer came another way, or the provider has no such place. The token itself stands in no address.
    pub(crate) async fn sign_out_address(&self, bearer: &str) -> Option<String> {
        if !flow::names_issuer(bearer, &self.settings.issuer) {
            return None;
        }
        // A provider that cannot be asked keeps nobody from leaving.
        let description = tokio::time::timeout(LEAVING_MAX, self.description()).await.ok()?.ok()?;
        let mut place = description.end_session()?;
        place
            .query_pairs_mut()
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("post_logout_redirect_uri", &self.at("/dashboard/login"));
        Some(place.into())
    }
}

/// The routes of a sign-in.
pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route(START, get(start::start)).route(CALLBACK, get(callback::callback))
}

/// Where the button leads.
pub(crate) fn start_address(next: &str) -> String {
    format!("{START}{}", query(&[("next", next)]))
}

/// Where somebody goes whose session has ended and who came by the provider, if that is so.
pub(crate) fn way_in(headers: &HeaderMap, next: &str) -> Option<String> {
    (session::cookie(headers, WAY)? == WAY_OIDC).then(|| start_address(next))
}

/// The cookie that remembers the way, or forgets it.
fn remember_way(is_https: bool) -> HeaderValue {
    let (secure, life_s) = (if is_https { "; Secure" } else { "" }, WAY_MAX_S);
    let text = format!("{WAY}={WAY_OIDC}; Path=/dashboard; HttpOnly; SameSite=Lax; Max-Age={life_s}{secure}");
    // Our own words are fit for a header.
    HeaderValue::try_from(text).unwrap_or_else(|_| forget_way())
}

/// Whoever signs out, or is refused, chooses anew.
pub(crate) fn forget_way() -> HeaderValue {
    HeaderValue::from_static("longshore_way=; Path=/dashboard; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// What a provider says of an error, cut to what a page can show. Templates write it as text.
fn words(error: &str, description: Option<&str>) -> String {
    let plain = |text: &str| {
        let shown = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
        shown.take(WORDS_MAX).collect::<String>()
    };
    match description.filter(|text| !text.trim().is_empty()) {
        Some(description) => format!("{} ({})", plain(description), plain(error)),
        None => plain(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_says_is_cut_and_has_no_lines() {
        assert_eq!(words("access_denied", Some("no\nentry")), "no entry (access_denied)");
        assert_eq!(words("access_denied", Some(" ")), "access_denied");
        assert_eq!(words(&"x".repeat(1_000), None).len(), WORDS_MAX);
    }

    #[test]
    fn who_came_by_the_provider_goes_there_again() {
        let headers = |text| HeaderMap::from_iter([(axum::http::header::COOKIE, HeaderValue::from_static(text))]);
        let way = way_in(&headers("a=b; longshore_way=oidc"), "/dashboard/jobs?state=dead");
        assert_eq!(way.as_deref(), Some("/dashboard/oidc/start?next=%2Fdashboard%2Fjobs%3Fstate%3Ddead"));
        assert_eq!(way_in(&headers("longshore_way=//evil"), "/dashboard"), None);
        assert!(remember_way(true).to_str().unwrap().ends_with("; Secure"));
    }
}
