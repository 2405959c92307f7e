//! The JSON Schema of an answer about several items: an object with one member for each, named by its number.

use serde_json::{Map, Value, json};

/// Members whose values are schemas by name.
const BY_NAME: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Members whose values are data, whatever they look like.
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// Members that hold definitions, which references reach from the top.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Characters of a compiler's reason that an answer repeats.
const REASON_MAX_CHARS: usize = 300;

/// The name of the answer to the item of this number, counted from 1. All names of a call are equally long: objects are
/// ordered by name in many places, and a model that is held to a schema writes its answers in the schema's order.
pub fn name_of(number: usize, items: usize) -> String {
    let width = items.to_string().len();
    format!("{number:0width$}")
}

/// The schema of an object with a member for each of so many `items`, each an answer by `schema`, or a text where there
/// is none.
///
/// The schema moves to `$defs`, so that it is sent once; its own definitions move to the top, where its references look
/// for them, and references to its other parts follow it.
pub fn schema_for(schema: Option<&Value>, items: usize) -> Value {
    let numbers = || (1..=items).map(|number| name_of(number, items));
    let object = |properties: Map<String, Value>| {
        json!({
            "type": "object", "properties": properties, "required": numbers().collect::<Vec<_>>(),
            "additionalProperties": false
        })
    };
    let Some(schema) = schema else {
        return object(numbers().map(|number| (number, json!({"type": "string"}))).collect());
    };
    let name = free_name(schema);
    let place = format!("#/$defs/{name}");
    let mut answer = schema.clone();
    follow(&mut answer, &place);
    let mut moved = Map::new();
    if let Value::Object(rules) = &mut answer {
        // Two documents in one would each have their own `#`.
        rules.remove("$id");
        rules.remove("$schema");
        for key in DEFINITIONS {
            moved.extend(rules.remove(key).map(|definitions| (key.to_owned(), definitions)));
        }
    }
    let mut whole = object(numbers().map(|number| (number, json!({"$ref": place}))).collect());
    if let Value::Object(whole) = &mut whole {
        whole.extend(moved);
        let definitions = whole.entry("$defs").or_insert_with(|| json!({}));
        if let Value::Object(definitions) = definitions {
            definitions.insert(name, answer);
        }
    }
    whole
}

/// A name that the schema's own definitions leave free.
fn free_name(schema: &Value) -> String {
    let taken = |name: &str| schema.pointer("/$defs").is_some_and(|definitions| definitions.get(name).is_some());
    let mut name = "answer".to_owned();
    while taken(&name) {
        name.push('_');
    }
    name
}

/// Lets references to the top of `schema` point at `place`, where it stands now.
fn follow(schema: &mut Value, place: &str) {
    match schema {
        Value::Array(several) => several.iter_mut().for_each(|schema| follow(schema, place)),
        Value::Object(rules) => {
            for (key, value) in rules.iter_mut() {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(rest) = target.strip_prefix('#')
                            && (rest.is_empty() || rest.starts_with('/'))
                            && !DEFINITIONS.iter().any(|key| rest.starts_with(&format!("/{key}/")))
                        {
                            *target = format!("{place}{rest}");
                        }
                    }
                    Value::Object(named) if BY_NAME.contains(&key.as_str()) => {
                        named.values_mut().for_each(|schema| follow(schema, place));
                    }
                    _ if DATA.contains(&key.as_str()) => {}
                    value => follow(value, place),
                }
            }
        }
        _ => {}
    }
}

/// A compiler's reason, cut where it is long.
pub(super) fn short(reason: &str) -> String {
    reason.chars().take(REASON_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::compile, *};

    #[test]
    fn each_number_has_an_answer_by_the_schema() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let packed = compile(&schema_for(Some(&schema), 2)).unwrap();
        assert!(packed.is_valid(&json!({"1": {"n": 1}, "2": {"n": 2}})));
        for bad in [
            json!({"1": {"n": 1}}),
            json!({"1": {"n": 1}, "2": {"n": "x"}}),
            json!({"1": {"n": 1}, "2": {"n": 1}, "3": {"n": 1}}),
            json!([{"n": 1}, {"n": 2}]),
        ] {
            assert!(!packed.is_valid(&bad), "{bad}");
        }
        let ten = schema_for(Some(&schema), 10);
        assert_eq!((ten["required"][0].as_str(), ten["required"][9].as_str()), (Some("01"), Some("10")));
        assert!(
            ten["properties"].as_object().unwrap().keys().map(String::as_str).eq(ten["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap()))
        );
        let texts = compile(&schema_for(None, 1)).unwrap();
        assert!(texts.is_valid(&json!({"1": "a"})) && !texts.is_valid(&json!({"1": 7})));
    }

    #[test]
    fn references_are_followed_to_where_things_stand_now() {
        let schema = json!({
            "$id": "https://example.com/node", "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"answer": {"type": "integer"}, "deep": {"$ref": "#/$defs/answer"}},
            "definitions": {"old": {"type": "boolean"}},
            "type": "object", "required": ["n", "next"], "additionalProperties": false,
            "properties": {
                "n": {"$ref": "#/$defs/deep"}, "old": {"$ref": "#/definitions/old"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
                "same": {"$ref": "#/properties/n"}, "$ref": {"const": {"$ref": "#"}}, "const": {"$ref": "#/properties/old"}
            }
        });
        let packed = schema_for(Some(&schema), 2);
        assert_eq!(packed["$defs"]["answer"], json!({"type": "integer"}), "theirs is left alone");
        let packed = compile(&packed).unwrap();
        let leaf = json!({"n": 1, "next": null});
        let whole = json!({"n": 1, "old": true, "next": leaf, "same": 2, "$ref": {"$ref": "#"}, "const": false});
        assert!(packed.is_valid(&json!({"1": leaf, "2": whole})));
        for (name, bad) in [
            ("n", json!("1")),
            ("old", json!(1)),
            ("next", json!({"n": 1})),
            ("same", json!("2")),
            ("$ref", json!({"$ref": "#/$defs/answer_"})),
            ("const", json!(1)),
        ] {
            let mut other = whole.clone();
            other[name] = bad;
            assert!(!packed.is_valid(&json!({"1": leaf, "2": other})), "{name}");
        }
    }
}
