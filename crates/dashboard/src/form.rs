//! Forms that pages post: who posts must be a page of ours, in this session. Answers are redirects, or the page with the problem.

use std::time::Duration;

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use crate::{
    Dashboard,
    client::Refused,
    session,
    viewer::{self, Visit},
};

/// Largest form, in bytes: a payload of 1 MiB, each byte of it as three.
const FORM_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Most fields of a form: a page of ticked rows, and some.
const FIELDS_MAX: usize = 2_000;
/// Longest time for a form to arrive.
const FORM_MAX: Duration = Duration::from_secs(60);

/// A form that a page of ours has posted in this session.
pub(crate) struct Posted {
    /// Who posted it.
    pub(crate) visit: Visit,
    fields: Vec<(String, String)>,
}

impl Posted {
    /// The field's text without blanks around it; nothing where it is empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// The field as it was sent.
    pub(crate) fn raw(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The field's text.
    ///
    /// # Errors
    ///
    /// It is empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name).ok_or_else(|| Refused::field(name, "is required"))
    }

    /// All fields of this name, such as ticked boxes.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a box is ticked.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Refuses unless the field says exactly this: what will be touched, typed by who means it.
    ///
    /// # Errors
    ///
    /// It says something else.
    pub(crate) fn confirmed(&self, name: &str, right: &str) -> Result<(), Refused> {
        match self.text(name) {
            Some(typed) if typed == right => Ok(()),
            _ => Err(Refused::field(name, format!("type `{right}` to confirm"))),
        }
    }
}

impl FromRequest<Dashboard> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, dashboard: &Dashboard) -> Result<Self, Response> {
        check_sender(request.headers()).map_err(IntoResponse::into_response)?;
        let (parts, body) = request.into_parts();
        let Some(bearer) = session::bearer_of(&parts.headers) else {
            return Err(viewer::to_login(&parts.method, &parts.uri, &parts.headers));
        };
        let fields = read(Request::from_parts(parts.clone(), body)).await.map_err(IntoResponse::into_response)?;
        let given = fields.iter().find(|(name, _)| name == "csrf").map(|(_, value)| value.as_str());
        if !given.is_some_and(|given| session::is_same(given, &session::csrf(&bearer))) {
            let detail = "the form is not of this session: load its page again, and send it from there";
            return Err(Refused::new(StatusCode::FORBIDDEN, detail).into_response());
        }
        match Visit::of(dashboard, &parts).await {
            Ok(visit) => Ok(Self { visit, fields }),
            Err(refused) if refused.status == 401 => Err(viewer::to_login(&parts.method, &parts.uri, &parts.headers)),
            Err(refused) => Err(refused.into_response()),
        }
    }
}

/// The fields of a form.
///
/// # Errors
///
/// It is too large, too slow, or no form.
pub(crate) async fn read(request: Request) -> Result<Vec<(String, String)>, Refused> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/x-www-form-urlencoded"));
    }
    let body = axum::body::to_bytes(request.into_body(), FORM_MAX_BYTES);
    let body = match tokio::time::timeout(FORM_MAX, body).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, "the form is larger than 4 MiB")),
        Err(_) => return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the form took longer than 60 s to arrive")),
    };
    let fields: Vec<_> = form_urlencoded::parse(&body).into_owned().take(FIELDS_MAX + 1).collect();
    if fields.len() > FIELDS_MAX {
        return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the form has more than {FIELDS_MAX} fields")));
    }
    Ok(fields)
}

/// Refuses what no page of ours has sent: a browser says from where (`Sec-Fetch-Site`; over plain http it says it with `Origin`
/// alone), and who says nothing is no browser.
///
/// # Errors
///
/// 403.
pub(crate) fn check_sender(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_ours = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => {
            let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
            origin.is_some_and(|(_, place)| text(header::HOST).is_some_and(|host| host.eq_ignore_ascii_case(place)))
        }
    };
    match is_ours {
        true => Ok(()),
        false => Err(Refused::new(StatusCode::FORBIDDEN, "the form was not sent by a page of this dashboard")),
    }
}

/// Whether the browser of who posts speaks https, be it to us or to a proxy before us.
pub(crate) fn is_secure(headers: &HeaderMap) -> bool {
    headers
        .get(header::ORIGIN)
        .and_then(|origin| origin.to_str().ok())
        .is_some_and(|origin| origin.starts_with("https://"))
}

/// What the next page tells its viewer, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flash {
    /// `good` or `bad`.
    pub(crate) kind: &'static str,
    /// What happened.
    pub(crate) text: String,
}

impl Flash {
    /// Something was done.
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self { kind: "good", text: text.into() }
    }

    /// Something was not, or only in part.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self { kind: "bad", text: text.into() }
    }

    /// As it travels in its cookie.
    pub(crate) fn written(&self) -> String {
        format!("{}:{}", self.kind, self.text)
    }

    /// What [`Self::written`] wrote.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("good", text) => Some(Self::good(text)),
            ("bad", text) => Some(Self::bad(text)),
            _ => None,
        }
    }
}

/// Longest text of a message, in letters: it travels in a cookie.
const FLASH_MAX_CHARS: usize = 500;

/// Sends the viewer to a page (an address of ours) that tells what was done.
pub(crate) fn done(to: &str, flash: Flash) -> Response {
    let text: String = flash.text.chars().take(FLASH_MAX_CHARS).collect();
    let mut response = Redirect::to(to).into_response();
    // The layer around all pages writes the cookie: it knows the session.
    response.extensions_mut().insert(Flash { text, ..flash });
    response
}

/// The same with a header, for what the browser shall forget or keep.
pub(crate) fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_sent_by_a_page_of_ours_or_refused() {
        let with = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
            check_sender(&HeaderMap::from_iter(pairs)).is_ok()
        };
        assert!(with(&[("sec-fetch-site", "same-origin")]));
        assert!(with(&[("origin", "http://10.0.0.5:8080"), ("host", "10.0.0.5:8080")]));
        for forged in [
            &[][..],
            &[("host", "a")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none")],
            &[("origin", "null"), ("host", "null")],
            &[("origin", "http://evil.example"), ("host", "a")],
            &[("origin", "http://a:81"), ("host", "a")],
        ] {
            assert!(!with(forged), "{forged:?}");
        }
    }

    #[test]
    fn messages_survive_their_cookie() {
        let flash = Flash::bad("a: b");
        assert_eq!(Flash::read(&flash.written()), Some(flash));
        assert_eq!(Flash::read("worse:x"), None);
    }
}
