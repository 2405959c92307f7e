//! The plainest value that fits a JSON Schema, for schemas as the tests write them.

use serde_json::{Map, Value, json};

/// Where a recursive schema is made to end.
const DEPTH_MAX: usize = 12;

/// A value for `schema`, whose references point into `root`.
pub(super) fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let make = |schema: &Value| value(schema, root, depth + 1);
    if let Some(target) = schema["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#'))) {
        return make(target);
    }
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    if let Some(first) = schema.pointer("/anyOf/0").or_else(|| schema.pointer("/oneOf/0")) {
        return make(first);
    }
    let kind = schema.pointer("/type/0").unwrap_or(&schema["type"]).as_str();
    match kind.unwrap_or(if schema.get("properties").is_some() { "object" } else { "string" }) {
        "object" => {
            let members = schema["properties"].as_object().into_iter().flatten();
            Value::Object(members.map(|(name, schema)| (name.clone(), make(schema))).collect::<Map<_, _>>())
        }
        "array" => {
            let length = schema["minItems"].as_u64().unwrap_or(1).max(1);
            let length = length.min(schema["maxItems"].as_u64().unwrap_or(length));
            (0..length).map(|_| make(&schema["items"])).collect()
        }
        "integer" => schema.get("minimum").cloned().unwrap_or(json!(7)),
        "number" => schema.get("minimum").cloned().unwrap_or(json!(0.5)),
        "boolean" => json!(true),
        "null" => Value::Null,
        _ => json!("mock"),
    }
}
