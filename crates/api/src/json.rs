//! Reads request bodies: UTF-8, bounded depth, and objects taken apart field by field without building a tree.

use std::{borrow::Cow, fmt};

use queue_core::payload::FieldError;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::problem::{Cause, ERRORS_MAX, Problem};

/// Deepest nesting of a body: payloads are read again by recursive readers, here and in providers.
pub(crate) const DEPTH_MAX: usize = 64;

/// The body as text; the error names the first bad byte.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Problem> {
    if body.is_empty() {
        return Err(Problem::new(Cause::InvalidJson, "the body is empty").at("", "a JSON value is needed"));
    }
    std::str::from_utf8(body).map_err(|error| {
        let reason = format!("byte {} is not UTF-8", error.valid_up_to());
        Problem::new(Cause::InvalidJson, "the body is not UTF-8 text").at("", reason)
    })
}

/// Refuses JSON that is nested deeper than [`DEPTH_MAX`].
pub(crate) fn check_depth(text: &str) -> Result<(), Problem> {
    // `[` and `{` differ in one bit only: counting both is one pass that compilers vectorise, and most bodies hold
    // fewer brackets than the bound, so that they need no closer look.
    let brackets = text.bytes().filter(|byte| byte | 0x20 == b'{').count();
    if brackets <= DEPTH_MAX || depth_of(text) <= DEPTH_MAX {
        return Ok(());
    }
    Err(Problem::field("", format!("is nested more than {DEPTH_MAX} levels deep")))
}

fn depth_of(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A syntax error with its line and column.
pub(crate) fn syntax(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    let place = format!("line {}, column {}: {what}", error.line(), error.column());
    Problem::new(Cause::InvalidJson, format!("the body is not JSON: {place}")).at("", place)
}

/// Takes a JSON object apart: the raw text of each field in `names`, in their order. Fields that are not in `names`
/// and fields that are given twice become errors. A field that is `null` counts as not given.
pub(crate) fn take_apart<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
    errors: &mut Vec<FieldError>,
) -> Result<[Option<&'a RawValue>; N], Problem> {
    let fields = take_apart_with_null(text, names, errors)?;
    Ok(fields.map(|field| field.filter(|value| value.get() != "null")))
}

/// Like [`take_apart`], but a field that is `null` counts as given: where taking away differs from leaving alone.
pub(crate) fn take_apart_with_null<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
    errors: &mut Vec<FieldError>,
) -> Result<[Option<&'a RawValue>; N], Problem> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let seed = ObjectSeed { names, errors };
    let fields = reader.deserialize_map(seed).and_then(|fields| reader.end().map(|()| fields));
    fields.map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::field("", "must be a JSON object"),
        _ => syntax(&error),
    })
}

struct ObjectSeed<'n, 'e, const N: usize> {
    names: &'n [&'n str; N],
    errors: &'e mut Vec<FieldError>,
}

impl<'de, const N: usize> Visitor<'de> for ObjectSeed<'_, '_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = [None; N];
        let mut seen = [false; N];
        while let Some(key) = map.next_key_seed(KeySeed(self.names))? {
            let value: &'de RawValue = map.next_value()?;
            match key {
                Key::Known(at) if seen[at] => {
                    push(self.errors, || FieldError::at(pointer(self.names[at]), "is given twice"));
                }
                Key::Known(at) => {
                    seen[at] = true;
                    fields[at] = Some(value);
                }
                Key::Unknown(name) => {
                    push(self.errors, || FieldError::at(pointer(&name), "is not a known field"));
                }
            }
        }
        Ok(fields)
    }
}

/// Adds an error unless there are plenty: a hostile body must not make us collect a million.
pub(crate) fn push(errors: &mut Vec<FieldError>, error: impl FnOnce() -> FieldError) {
    if errors.len() < ERRORS_MAX {
        errors.push(error());
    }
}

/// JSON pointer to a field of the top level (RFC 6901).
pub(crate) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

enum Key {
    Known(usize),
    Unknown(String),
}

struct KeySeed<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
        Ok(match self.0.iter().position(|known| *known == name) {
            Some(at) => Key::Known(at),
            None => Key::Unknown(name.to_owned()),
        })
    }
}

/// The text of a JSON string; `None` when the value is something else or holds a broken escape.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    // A raw value was scanned as JSON already, so text without escapes is the string itself.
    if inner.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// What a JSON value is, for a reason.
pub(crate) fn kind_of(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_taken_apart_without_a_tree() {
        let mut errors = Vec::new();
        let text = r#"{"b": {"deep": [1, 2]}, "a": "x", "c": null, "d/e": 1, "b": 2}"#;
        let [a, b, c] = take_apart(text, &["a", "b", "c"], &mut errors).unwrap();
        assert_eq!(a.map(RawValue::get), Some("\"x\""));
        assert_eq!(b.map(RawValue::get), Some(r#"{"deep": [1, 2]}"#));
        assert!(c.is_none());
        let found: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(found, ["/d~1e", "/b"]);
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        assert_eq!(depth_of(r#"{"a":["[[[[\"[[",{}]}"#), 3);
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_depth(&nested(DEPTH_MAX)).is_ok());
        assert!(check_depth(&nested(DEPTH_MAX + 1)).is_err());
        assert!(check_depth(&format!("[{}]", vec!["[]"; 1_000].join(","))).is_ok());
    }

    #[test]
    fn strings_are_borrowed_where_they_can_be() {
        let read = |text: &'static str| string(serde_json::from_str::<&RawValue>(text).unwrap());
        assert!(matches!(read("\"plain\""), Some(Cow::Borrowed("plain"))));
        assert_eq!(read(r#""a\nb""#).as_deref(), Some("a\nb"));
        assert_eq!(read("12"), None);
        assert_eq!(read(r#""\ud800""#), None);
    }
}
