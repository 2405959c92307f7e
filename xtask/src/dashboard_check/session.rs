//! Signing in as a person does, and asking without a browser what the browser's session may ask.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode, redirect::Policy};
use serde::Deserialize;
use serde_json::json;

use super::Check;

/// The page with the form for keys.
const LOGIN: &str = "/dashboard/login";

/// A form as it stands on a page: where it posts to, and with what.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) action: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) words: String,
}

/// Somebody's session, outside of the browser.
pub(super) struct Session {
    http: reqwest::Client,
    url: String,
    cookies: String,
}

/// Where a browser says that a post comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A page of ours.
    SameOrigin,
    /// A page of somebody else.
    CrossSite,
    /// A page of somebody else in a browser that names only the origin.
    OtherOrigin,
    /// It says nothing.
    Nowhere,
}

impl Check {
    /// Signs in with a key, in the browser.
    pub(super) async fn sign_in(&self, key: &str) -> Result<()> {
        self.browser.forget().await?;
        self.open(LOGIN).await?;
        self.browser.click("button", json!([LOGIN, {"secret": key}, "Sign in"])).await?;
        self.browser.until("one is signed in", "location.pathname === '/dashboard'").await
    }

    /// Opens a page of the installation.
    pub(super) async fn open(&self, path: &str) -> Result<()> {
        self.browser.open(&format!("{}{path}", self.scene.url)).await
    }

    /// The session that the browser has now.
    pub(super) async fn session(&self) -> Result<Session> {
        let http = reqwest::Client::builder().redirect(Policy::none()).build()?;
        Ok(Session { http, url: self.scene.url.clone(), cookies: self.browser.cookies().await? })
    }

    /// What can be posted from the page that is open.
    pub(super) async fn forms(&self) -> Result<Vec<Form>> {
        Ok(serde_json::from_value(self.browser.evaluate("__check.forms()").await?)?)
    }

    /// What can be posted from a page that a session got: the browser reads it without opening it.
    pub(super) async fn forms_of(&self, html: &str) -> Result<Vec<Form>> {
        Ok(serde_json::from_value(self.browser.evaluate(&format!("__check.forms({})", json!(html))).await?)?)
    }

    /// Where the menu of such a page leads.
    pub(super) async fn menu_of(&self, html: &str) -> Result<BTreeSet<String>> {
        Ok(serde_json::from_value(self.browser.evaluate(&format!("__check.menu({})", json!(html))).await?)?)
    }
}

impl Session {
    /// What a page says that it may load and do.
    pub(super) async fn policy(&self, path: &str) -> Result<String> {
        let request = self.http.get(format!("{}{path}", self.url)).header("cookie", &self.cookies);
        let answer = request.send().await?;
        let policy = answer.headers().get("content-security-policy").context("a page has a policy")?;
        Ok(policy.to_str()?.to_owned())
    }

    /// A page; its status and its bytes.
    pub(super) async fn get(&self, path: &str) -> Result<(StatusCode, String)> {
        let request = self.http.get(format!("{}{path}", self.url)).header("cookie", &self.cookies);
        let answer = request.header("sec-fetch-site", "same-origin").header("accept", "text/html").send().await?;
        let status = answer.status();
        Ok((status, answer.text().await.with_context(|| path.to_owned())?))
    }

    /// What a form is answered.
    pub(super) async fn post(&self, path: &str, fields: &[(String, String)], from: Source) -> Result<StatusCode> {
        let request = self.http.request(Method::POST, format!("{}{path}", self.url)).header("cookie", &self.cookies);
        let request = match from {
            Source::SameOrigin => request.header("sec-fetch-site", "same-origin").header("origin", &self.url),
            Source::CrossSite => {
                request.header("sec-fetch-site", "cross-site").header("origin", "https://elsewhere.example")
            }
            Source::OtherOrigin => request.header("origin", "https://elsewhere.example"),
            Source::Nowhere => request,
        };
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(urlencoded(fields));
        Ok(request.send().await.with_context(|| path.to_owned())?.status())
    }

    /// The session's own token against forged posts, from a form of its own.
    pub(super) fn token(forms: &[Form]) -> Result<String> {
        let mut fields = forms.iter().flat_map(|form| &form.fields);
        let found = fields.find(|(name, _)| name == "csrf").context("no form has a token")?;
        ensure!(!found.1.is_empty(), "the token is empty");
        Ok(found.1.clone())
    }
}

/// Fields as a browser posts them.
fn urlencoded(fields: &[(String, String)]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte);
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_browsers_do() {
        let fields = [("a".to_owned(), "1 & 2".to_owned()), ("ü".to_owned(), String::new())];
        assert_eq!(urlencoded(&fields), "a=1%20%26%202&%C3%BC=");
    }
}
