//! What the document promises of an answer: that its status is one that the route has, its media type one of that status, and its
//! body what the schema says. Every answer that a test gets is held against it.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(api::openapi()).unwrap());

/// Checks an answer. Paths that the document does not have, and methods that a path does not have, promise nothing.
pub fn check(method: &Method, path: &str, status: StatusCode, media: &str, body: &str) {
    let Some((template, operation)) = operation(method, path) else { return };
    let place = format!("{method} {template} answered {status}");
    let responses = &operation["responses"];
    let response = responses
        .get(status.as_str())
        .unwrap_or_else(|| panic!("{place}, which the document does not have ({path}): {body}"));
    if body.is_empty() {
        return;
    }
    let media = media.split(';').next().unwrap_or_default().trim();
    let content = response["content"]
        .get(media)
        .unwrap_or_else(|| panic!("{place} with {media}; the document has {}: {body}", response["content"]));
    if media != "application/json" && media != "application/problem+json" {
        return;
    }
    let validator = validator(&place, &content["schema"]);
    let value: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{place}: {error}: {body}"));
    let wrong: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{place} otherwise than its schema says: {wrong:?}\n{body}");
}

/// The operation of a path, literal names before those that stand for any.
fn operation(method: &Method, path: &str) -> Option<(&'static str, &'static Value)> {
    // `PuT` is another method than `PUT`, and no path has it.
    if method.as_str().bytes().any(|letter| letter.is_ascii_lowercase()) {
        return None;
    }
    let method = if method == Method::HEAD { Method::GET } else { method.clone() };
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let same = |(want, part): (&&str, &&str)| want == part || (want.starts_with('{') && !part.is_empty());
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let found =
        paths.iter().filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count());
    let (template, item) = found?;
    Some((template.as_str(), item.get(method.as_str().to_lowercase())?))
}

fn validator(place: &str, schema: &Value) -> Arc<Validator> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        // Schemas name others from the root of the document.
        let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).unwrap())
    };
    known.entry(place.to_owned()).or_insert_with(make).clone()
}

#[test]
fn a_method_in_other_letters_is_another_method() {
    let method = Method::from_bytes(b"PuT").unwrap();
    check(&method, "/v1/tenants/acme/budget", StatusCode::METHOD_NOT_ALLOWED, "application/problem+json", "{}");
    assert!(operation(&method, "/v1/tenants/acme/budget").is_none());
    assert!(operation(&Method::PUT, "/v1/tenants/acme/budget").is_some());
}
