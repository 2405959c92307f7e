//! The payload of a `custom` job: which handler of somebody's own program runs it, and what it is told.

use serde_json::Value;

use super::{
    FieldError,
    fields::{At, Errors, Object},
    tree,
};
use crate::{
    ids::{NAME_MAX_BYTES, Name},
    route::{CUSTOM, OPERATORS, Target},
};

crate::unshown!(Custom);

const KNOWN: [&str; 2] = ["handler", "input"];

/// A `custom` job's payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Custom {
    /// The handler's name, as its program registered it.
    pub handler: Name,
    /// What it is told.
    pub input: Value,
}

impl Custom {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let custom = Self::scan(&tree, &mut errors);
        errors.settle(custom)
    }

    fn scan(tree: &Value, errors: &mut Errors) -> Option<Self> {
        let object = Object::open(tree, &At::Payload, &KNOWN, "what the handler is told stands in `input`", errors)?;
        object.require("handler", "the name of a handler", errors);
        let handler = match check_handler(object.label("handler", NAME_MAX_BYTES, errors)?) {
            Ok(handler) => handler,
            Err(reason) => {
                object.wrong("handler", reason, errors);
                return None;
            }
        };
        Some(Self { handler, input: object.get("input").cloned().unwrap_or_default() })
    }
}

/// A handler's name: it stands in targets, where a colon separates.
pub fn check_handler(text: &str) -> Result<Name, String> {
    let name = Name::checked(text)?;
    if text.contains(':') { Err("contains a colon".to_owned()) } else { Ok(name) }
}

/// Checks a `custom` job; its target is its handler.
pub(super) fn validate(text: &str) -> Result<Name, Vec<FieldError>> {
    let Custom { handler, .. } = Custom::read(text)?;
    Ok(Target { provider: CUSTOM.into(), model: handler, credential: OPERATORS.into() }.name())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_handler_has_a_name_and_an_input() {
        let custom = Custom::read(r#"{"handler":"thumbnail","input":{"width":8}}"#).unwrap();
        assert_eq!((custom.handler.as_str(), &custom.input), ("thumbnail", &json!({"width": 8})));
        assert_eq!(validate(r#"{"handler":"thumbnail"}"#).unwrap().as_str(), "custom:thumbnail:default");
        for (payload, pointer) in [
            (json!({}), "/payload/handler"),
            (json!({"handler": "a:b"}), "/payload/handler"),
            (json!({"handler": "a b"}), "/payload/handler"),
            (json!({"handler": "a", "width": 8}), "/payload/width"),
        ] {
            assert_eq!(Custom::read(&payload.to_string()).unwrap_err()[0].pointer, pointer, "{payload}");
        }
    }
}
