//! As much of a browser as the dashboard's pages need: a session, and forms that are sent from their page.
// The binary exports nothing; a test fails by panicking.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap},
    redirect::Policy,
};

use crate::installation::Installation;

/// A browser with a session.
pub struct Browser<'a> {
    pub up: &'a Installation,
    http: reqwest::Client,
    bearer: String,
}

pub struct Page {
    pub status: StatusCode,
    /// Where it sends the browser.
    pub to: String,
    pub headers: HeaderMap,
    pub text: String,
}

impl<'a> Browser<'a> {
    /// With this bearer as its session.
    pub fn of(up: &'a Installation, bearer: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { up, http, bearer: bearer.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Page {
        self.sent(self.request(Method::GET, path)).await
    }

    /// Sends a form of the page `from`, with what that page says about its session.
    pub async fn post(&self, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let page = self.get(from).await;
        let (_, rest) = page.text.split_once("name=\"csrf\" value=\"").expect("every page has a form");
        let csrf = rest.split('"').next().unwrap();
        let request = self.request(Method::POST, path).header("sec-fetch-site", "same-origin");
        self.sent(form(request, &[fields, &[("csrf", csrf)]].concat())).await
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request_with(method, path, &format!("longshore_session={}", self.bearer))
    }

    /// The same with these cookies.
    pub fn request_with(&self, method: Method, path: &str, cookie: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.up.url)).header(header::COOKIE, cookie)
    }

    pub async fn sent(&self, request: reqwest::RequestBuilder) -> Page {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let to = headers.get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        Page { status, to: to.unwrap_or_default(), headers, text: answer.text().await.unwrap() }
    }
}

/// The fields as a form.
pub fn form(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let mut text = reqwest::Url::parse("http://form").unwrap();
    text.query_pairs_mut().extend_pairs(fields);
    let body = text.query().unwrap().to_owned();
    request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}
