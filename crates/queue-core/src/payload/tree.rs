//! Reads a payload's JSON text into a tree, with bounds that `serde_json` alone does not keep.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{FieldError, fields::described_name};

/// Deepest nesting of a payload: handlers and providers read it again with recursive readers, and a chat request
/// needs about ten levels.
pub(super) const DEPTH_MAX: usize = 64;

/// The tree of `text`. Refused: what is not JSON, a member that is given twice (readers disagree on which one counts),
/// and nesting beyond [`DEPTH_MAX`].
pub(super) fn read(text: &str) -> Result<Value, FieldError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Tree { depth: 0 }.deserialize(&mut reader).and_then(|tree| reader.end().map(|()| tree));
    read.map_err(|error| {
        let words = error.to_string();
        let what = words.split(" at line ").next().unwrap_or_default();
        let reason = match error.classify() {
            serde_json::error::Category::Data => {
                format!("{what} (line {}, column {})", error.line(), error.column())
            }
            _ => format!("is not JSON: line {}, column {}: {what}", error.line(), error.column()),
        };
        FieldError::at("/payload", reason)
    })
}

struct Tree {
    depth: usize,
}

impl Tree {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format_args!("is nested more than {DEPTH_MAX} levels deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("contains a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.deeper()?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self.deeper()?)?;
            if map.contains_key(&name) {
                return Err(de::Error::custom(format_args!("gives {} twice in one object", described_name(&name))));
            }
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_what_serde_json_reads() {
        let text = r#"{"a":[1,-2,3.5,1e3,"x\u0000",null,true,{"b":{}}],"":[]}"#;
        assert_eq!(read(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(&nested(DEPTH_MAX)).is_ok());
        for levels in [DEPTH_MAX + 1, 127, 100_000] {
            let error = read(&nested(levels)).unwrap_err();
            assert!(error.reason.contains("nested more than 64 levels"), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_json_is_placed() {
        for (text, reason) in [
            ("", "line 1"),
            ("{\"a\":1,}", "column 8"),
            ("{} x", "trailing characters"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (r#"{"a":1e999}"#, "out of range"),
            (r#"{"a":1,"a":2}"#, "`a` twice"),
            (r#"[{"x":{"b":1,"b":1}}]"#, "`b` twice"),
            ("NaN", "expected"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.pointer, "/payload");
            assert!(error.reason.contains(reason), "{text}: {}", error.reason);
        }
    }
}
