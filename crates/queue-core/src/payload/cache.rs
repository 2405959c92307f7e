//! `cache`: that the answer to a job may be one that was paid for before. It stands beside the payload and is kept inside it,
//! as what a handler reads.

use std::time::Duration;

use serde_json::Value;

use super::{
    FieldError,
    fields::{At, Errors, Object},
    tree,
};
use crate::{cache::Scope, time::parse_duration};

/// The member's name.
pub(super) const NAME: &str = "cache";
/// How long an answer may be kept, in seconds: below a second nobody finds it, and after a month it answers another world.
const TTL_S: (u64, u64) = (1, 30 * 24 * 3_600);

/// Under which conditions an old answer will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How long the answer is kept, if it is a new one.
    pub ttl: Duration,
    /// With whom it is shared; where it is not said, as the installation's vectors are.
    pub scope: Option<Scope>,
}

/// The wish in `object`, if there is one.
pub(super) fn read(object: &Object<'_>, errors: &mut Errors) -> Option<Wish> {
    let value = object.get(NAME)?;
    let at = object.at(NAME);
    let wish = Object::open(value, &at, &["ttl", "scope"], "", errors)?;
    wish.require("ttl", "how long an answer is kept, such as 1h", errors);
    let scope = match wish.word("scope", &["tenant", "global"], errors) {
        Some("global") => Some(Scope::Global),
        Some(_) => Some(Scope::Tenant),
        None => None,
    };
    let text = wish.text("ttl", errors)?;
    let (least, most) = TTL_S;
    match parse_duration(text) {
        Ok(ttl) if (least..=most).contains(&ttl.as_secs()) => Some(Wish { ttl, scope }),
        Ok(_) => {
            wish.wrong("ttl", "must be from 1s to 30d", errors);
            None
        }
        Err(reason) => {
            wish.wrong("ttl", reason, errors);
            None
        }
    }
}

/// The payload (the JSON text of an object) with a wish that stood beside it. The errors' pointers begin with `/cache`.
pub fn put_into(payload: &str, wish: &str) -> Result<String, Vec<FieldError>> {
    let beside = |errors: Vec<FieldError>| -> Vec<FieldError> {
        let bare = |error: FieldError| FieldError::at(error.pointer.replacen("/payload", "", 1), error.reason);
        errors.into_iter().map(bare).collect()
    };
    let alone = format!("{{\"{NAME}\":{wish}}}");
    let tree = tree::read(&alone).map_err(|error| beside(vec![error]))?;
    let (at, mut errors) = (At::Payload, Errors::default());
    let read = Object::open_any(&tree, &at, &mut errors).and_then(|object| read(&object, &mut errors));
    errors.settle(read).map_err(beside)?;

    let members: Option<Value> = serde_json::from_str(payload).ok();
    let Some(Value::Object(members)) = members else {
        return Err(vec![FieldError::at(format!("/{NAME}"), "belongs to a payload that is an object")]);
    };
    if members.contains_key(NAME) {
        let reason = "is given twice: beside the payload and in it";
        return Err(vec![FieldError::at(format!("/{NAME}"), reason)]);
    }
    let rest = payload.trim_start().strip_prefix('{').unwrap_or_default();
    let comma = if members.is_empty() { "" } else { "," };
    Ok(format!("{{\"{NAME}\":{wish}{comma}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(wish: &str) -> Vec<(String, String)> {
        let errors = put_into(r#"{"a":1}"#, wish).unwrap_err();
        errors.into_iter().map(|error| (error.pointer, error.reason)).collect()
    }

    #[test]
    fn a_wish_goes_into_the_payload_and_nothing_else_changes() {
        assert_eq!(put_into(r#" {"a": [1] }"#, r#"{"ttl":"1h"}"#).unwrap(), r#"{"cache":{"ttl":"1h"},"a": [1] }"#);
        assert_eq!(put_into("{ }", r#"{"ttl":"1h"}"#).unwrap(), r#"{"cache":{"ttl":"1h"} }"#);
    }

    #[test]
    fn what_is_wrong_with_a_wish_is_said_where_it_stood() {
        for (wish, pointer, reason) in [
            ("{}", "/cache/ttl", "required"),
            ("7", "/cache", "must be an object"),
            (r#"{"ttl":7}"#, "/cache/ttl", "must be a string"),
            (r#"{"ttl":"soon"}"#, "/cache/ttl", "not a duration"),
            (r#"{"ttl":"10ms"}"#, "/cache/ttl", "from 1s to 30d"),
            (r#"{"ttl":"31d"}"#, "/cache/ttl", "from 1s to 30d"),
            (r#"{"ttl":"1h","scope":"all"}"#, "/cache/scope", "must be one of"),
            (r#"{"ttl":"1h","scop":"global"}"#, "/cache/scop", "did you mean `scope`"),
        ] {
            let errors = errors(wish);
            assert!(errors.iter().any(|(at, why)| at == pointer && why.contains(reason)), "{wish}: {errors:?}");
        }
        let twice = put_into(r#"{"cache":{"ttl":"1h"}}"#, r#"{"ttl":"1h"}"#).unwrap_err();
        assert!(twice[0].reason.contains("twice"), "{twice:?}");
    }
}
