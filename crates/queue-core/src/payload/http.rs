//! The payload of an `http` job: a request to a service's URL.

use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::{
    FieldError, Surroundings,
    fields::{At, Errors, Object, described},
    tree,
};
use crate::{
    egress::{Method, URL_MAX_BYTES},
    ids::Name,
    route::{HTTP, Target},
    time::parse_duration,
};

crate::unshown!(Http);

/// Methods that a job may use.
pub const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "GET"];
/// Most headers of a request.
pub const HEADERS_MAX: usize = 32;
/// Longest header, name and value, in bytes: what servers usually take.
const HEADER_MAX_BYTES: usize = 4_096;
/// Longest time that a request may ask for; the attempt's own timeout holds beside it.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Headers that say what the body is, where it ends and who signed it: those are ours, and so is who is asked.
const OURS: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-authorization",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

const KNOWN: [&str; 5] = ["url", "method", "headers", "body", "timeout"];

/// An `http` job's payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Http {
    /// Where to.
    pub url: String,
    /// How.
    pub method: Method,
    /// With which headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// With which body: a text as it is, anything else as JSON.
    pub body: Option<Value>,
    /// Longest time until the answer has been read.
    pub timeout: Option<Duration>,
}

impl Http {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let http = Self::scan(&tree, &mut errors);
        errors.settle(http)
    }

    /// Its body as it is sent, and what it is, unless a header says otherwise.
    pub fn body(&self) -> (Vec<u8>, Option<&'static str>) {
        match &self.body {
            None => (Vec::new(), None),
            Some(Value::String(text)) => (text.clone().into_bytes(), Some("text/plain; charset=utf-8")),
            Some(value) => (value.to_string().into_bytes(), Some("application/json")),
        }
    }

    fn scan(tree: &Value, errors: &mut Errors) -> Option<Self> {
        let object = Object::open(tree, &At::Payload, &KNOWN, "", errors)?;
        object.require("url", "where the request goes", errors);
        let url = object.label("url", URL_MAX_BYTES, errors).map(str::to_owned);
        let word = object.word("method", &METHODS, errors).unwrap_or(METHODS[0]);
        let method = Method::from_bytes(word.as_bytes()).unwrap_or(Method::POST);
        let headers = read_headers(&object, errors);
        let body = object.get("body").cloned();
        if method == Method::GET && body.is_some() {
            object.wrong("body", "has no place in a GET", errors);
        }
        let timeout = object.text("timeout", errors).and_then(|text| match parse_duration(text) {
            Ok(timeout) if timeout >= Duration::from_secs(1) && timeout <= TIMEOUT_MAX => Some(timeout),
            Ok(_) => {
                object.wrong("timeout", "is out of range: 1s to 1h are allowed", errors);
                None
            }
            Err(reason) => {
                object.wrong("timeout", reason, errors);
                None
            }
        });
        Some(Self { url: url?, method, headers, body, timeout })
    }
}

fn read_headers(object: &Object<'_>, errors: &mut Errors) -> Vec<(HeaderName, HeaderValue)> {
    let Some(given) = object.get("headers") else { return Vec::new() };
    let at = object.at("headers");
    let Some(given) = Object::open_any(given, &at, errors) else { return Vec::new() };
    if given.map.len() > HEADERS_MAX {
        errors.wrong(at, format!("has {} headers; at most {HEADERS_MAX} are allowed", given.map.len()));
        return Vec::new();
    }
    let mut headers = Vec::new();
    for (name, value) in given.map {
        match header(name, value) {
            Ok(header) => headers.push(header),
            Err(reason) => errors.wrong(at.member(name), reason),
        }
    }
    headers
}

fn header(name: &str, value: &Value) -> Result<(HeaderName, HeaderValue), String> {
    let Value::String(text) = value else { return Err(format!("must be a string, not {}", described(value))) };
    if name.len() + text.len() > HEADER_MAX_BYTES {
        return Err(format!("is longer than {HEADER_MAX_BYTES} bytes"));
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header".to_owned())?;
    if OURS.contains(&name.as_str()) {
        return Err("is a header that Longshore sets itself".to_owned());
    }
    let value = HeaderValue::from_str(text).map_err(|_| "has a character that no header may have".to_owned())?;
    Ok((name, value))
}

/// The target of a service: limits, pauses and breakers are by its host.
pub fn target_of(url: &str) -> Target {
    let authority = url.split('/').nth(2).unwrap_or_default();
    // A colon separates in the names of targets: a port stands behind an underscore, as does each part of an IPv6 address.
    let host = authority.replace([':', '>'], "_");
    Target { provider: HTTP.into(), model: Name::new(host), credential: crate::route::OPERATORS.into() }
}

/// Checks an `http` job; its target is the service's host.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    let http = Http::read(text)?;
    match around.outbound.check(&http.url) {
        Ok(url) => Ok(target_of(&url).name()),
        Err(reason) => Err(vec![FieldError::at("/payload/url", reason)]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::egress::Allowed;

    #[test]
    fn a_request_is_read_whole() {
        let payload = json!({"url": "https://a.example/x", "method": "PUT", "headers": {"X-Token": "t"},
                             "body": {"b": 1}, "timeout": "5s"});
        let http = Http::read(&payload.to_string()).unwrap();
        assert_eq!((http.method.as_str(), http.timeout), ("PUT", Some(Duration::from_secs(5))));
        assert_eq!(http.headers[0].0.as_str(), "x-token");
        assert_eq!(http.body(), (br#"{"b":1}"#.to_vec(), Some("application/json")));
        let bare = Http::read(r#"{"url":"https://a.example/"}"#).unwrap();
        assert_eq!((bare.method.as_str(), bare.body()), ("POST", (vec![], None)));
        let text = Http::read(r#"{"url":"https://a.example/","body":"hello"}"#).unwrap();
        assert_eq!(text.body().0, b"hello");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (payload, pointer) in [
            (json!({}), "/payload/url"),
            (json!({"url": ""}), "/payload/url"),
            (json!({"url": "https://a/", "method": "TRACE"}), "/payload/method"),
            (json!({"url": "https://a/", "headers": {"host": "b"}}), "/payload/headers/host"),
            (json!({"url": "https://a/", "headers": {"Webhook-Signature": "b"}}), "/payload/headers/Webhook-Signature"),
            (json!({"url": "https://a/", "headers": {"a b": "c"}}), "/payload/headers/a b"),
            (json!({"url": "https://a/", "headers": {"a": "c\r\nd: e"}}), "/payload/headers/a"),
            (json!({"url": "https://a/", "headers": {"a": 1}}), "/payload/headers/a"),
            (json!({"url": "https://a/", "headers": []}), "/payload/headers"),
            (json!({"url": "https://a/", "method": "GET", "body": 1}), "/payload/body"),
            (json!({"url": "https://a/", "timeout": "2h"}), "/payload/timeout"),
            (json!({"url": "https://a/", "timeout": 5}), "/payload/timeout"),
            (json!({"url": "https://a/", "retries": 5}), "/payload/retries"),
        ] {
            let errors = Http::read(&payload.to_string()).unwrap_err();
            assert_eq!(errors[0].pointer, pointer, "{payload}: {errors:?}");
        }
    }

    /// A target of this name would be that of every service, or a pattern.
    #[test]
    fn no_service_is_named_after_all_of_them() {
        let allowed = Allowed { http: true, networks: vec![] };
        for url in ["https://*/", "https://a*/", "https://a.*:8443/x", "http://a>b/", "https://a'b/", "https://a,b/"] {
            assert!(allowed.check(url).is_err(), "{url}");
        }
        for url in
            ["https://a-1.example_2/", "https://xn--bcher-kva.example/", "https://[2a00::1]:8/", "https://8.8.8.8/"]
        {
            let target = target_of(&allowed.check(url).unwrap());
            assert!(!target.is_pattern() && target.name() != target.account(), "{url}");
        }
    }

    #[test]
    fn a_service_is_a_target() {
        assert_eq!(target_of("https://a.example/x").name().as_str(), "http:a.example:default");
        let ported = target_of("https://a.example:8443/x").name();
        assert_eq!(ported.as_str(), "http:a.example_8443:default");
        assert!(Target::parse(ported.as_str()).is_some());
        assert!(Target::parse(target_of("https://[2a00::1]:8/x").name().as_str()).is_some());
    }
}
