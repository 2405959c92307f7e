//! Values that fit a JSON Schema.

use jsonschema::validator_for;
use queue_core::error::ErrorClass;
use serde_json::{Map, Value};

use super::Dice;
use crate::provider::CallError;

/// Depth from which optional members are left out and references are followed no further than needed: a recursive
/// schema must come to an end.
const OPTIONAL_DEPTH_MAX: usize = 6;
/// Depth that no schema which is meant needs.
const DEPTH_MAX: usize = 48;
/// Most elements or bytes that a minimum can ask for.
const MINIMUM_MAX: u64 = 10_000;

/// A value that fits `schema`, or an error that says that this schema is beyond the simulation.
pub(super) fn value(schema: &Value, dice: &Dice) -> Result<Value, CallError> {
    let maker = Maker { root: schema, dice };
    let made = maker.make(schema, "$", 0).ok_or_else(|| beyond("it has no end or no alternative"))?;
    let validator = validator_for(schema).map_err(|error| {
        let message = format!("response_format is not a JSON Schema: {error}");
        CallError::unbilled(ErrorClass::BadRequest, "invalid_json_schema", message)
    })?;
    match validator.validate(&made) {
        Ok(()) => Ok(made),
        Err(error) => Err(beyond(&error.to_string())),
    }
}

fn beyond(reason: &str) -> CallError {
    let message = format!("the simulated provider can invent no value for this JSON Schema: {reason}");
    CallError::unbilled(ErrorClass::BadRequest, "simulated_schema", message)
}

struct Maker<'a> {
    root: &'a Value,
    dice: &'a Dice,
}

impl Maker<'_> {
    fn make(&self, schema: &Value, path: &str, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        let Value::Object(rules) = schema else {
            // `true` takes everything, `false` nothing.
            return (schema != &Value::Bool(false)).then(|| Value::String(self.words(path)));
        };
        if let Some(fixed) = rules.get("const") {
            return Some(fixed.clone());
        }
        if let Some(choices) = rules.get("enum").and_then(Value::as_array) {
            let at = self.dice.number(path) % choices.len().max(1) as u64;
            return choices.get(at as usize).cloned();
        }
        if let Some(pointer) = rules.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(pointer.strip_prefix('#')?)?;
            return self.make(&merged(rules, &[target], "$ref"), path, depth + 1);
        }
        if let Some(all) = rules.get("allOf").and_then(Value::as_array) {
            let parts: Vec<&Value> = all.iter().map(|part| self.resolved(part)).collect();
            return self.make(&merged(rules, &parts, "allOf"), path, depth + 1);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = rules.get(key).and_then(Value::as_array) {
                // The first that can be made: deep inside a recursion that is the one that ends it.
                let make = |choice: &Value| self.make(&merged(rules, &[self.resolved(choice)], key), path, depth + 1);
                let (nulls, others): (Vec<&Value>, Vec<&Value>) =
                    choices.iter().partition(|choice| choice.get("type").is_some_and(|kind| kind == "null"));
                let deep = depth >= OPTIONAL_DEPTH_MAX;
                let order = if deep { [nulls, others] } else { [others, nulls] };
                return order.into_iter().flatten().find_map(make);
            }
        }
        self.of_type(kind_of(rules, depth), rules, path, depth)
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|pointer| pointer.strip_prefix('#'));
        target.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    fn of_type(&self, kind: &str, rules: &Map<String, Value>, path: &str, depth: usize) -> Option<Value> {
        match kind {
            "object" => self.object(rules, path, depth),
            "array" => self.array(rules, path, depth),
            "integer" => Some(self.integer(rules, path).into()),
            "number" => Some(self.number(rules, path)),
            "boolean" => Some(self.dice.number(path).is_multiple_of(2).into()),
            "null" => Some(Value::Null),
            _ => Some(self.string(rules, path).into()),
        }
    }

    fn object(&self, rules: &Map<String, Value>, path: &str, depth: usize) -> Option<Value> {
        let required = rules.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_required = |name: &str| required.iter().any(|wanted| wanted == name);
        let mut made = Map::new();
        for (name, schema) in rules.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if depth >= OPTIONAL_DEPTH_MAX && !is_required(name) {
                continue;
            }
            match self.make(schema, &format!("{path}/{name}"), depth + 1) {
                Some(value) => drop(made.insert(name.clone(), value)),
                None if is_required(name) => return None,
                None => {}
            }
        }
        let extra = rules.get("additionalProperties").unwrap_or(&Value::Bool(true));
        let missing = required.iter().filter_map(Value::as_str).map(str::to_owned);
        let lacking = at_least(rules, "minProperties");
        let invented = (0..lacking).map(|number| format!("simulated_{number}"));
        for name in missing.chain(invented) {
            let wanted = is_required(&name) || (made.len() as u64) < lacking;
            if wanted && !made.contains_key(&name) {
                let value = self.make(extra, &format!("{path}/{name}"), depth + 1)?;
                made.insert(name, value);
            }
        }
        Some(Value::Object(made))
    }

    fn array(&self, rules: &Map<String, Value>, path: &str, depth: usize) -> Option<Value> {
        let fixed = rules.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let least = at_least(rules, "minItems").max(at_least(rules, "minContains"));
        let most = rules.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
        let usual = if depth >= OPTIONAL_DEPTH_MAX { 0 } else { 1 + self.dice.number(path) % 2 };
        let length = usual.max(least).max(fixed.len() as u64).min(most);
        let rest = rules.get("items").or_else(|| rules.get("contains")).unwrap_or(&Value::Bool(true));
        let unique = rules.get("uniqueItems").is_some_and(|unique| unique == true);
        let mut made: Vec<Value> = Vec::new();
        for at in 0..length as usize {
            let schema = fixed.get(at).unwrap_or(rest);
            // Another place is another throw; a small enumeration may need several.
            let tries = if unique { UNIQUE_TRIES } else { 1 };
            let thrown = (0..tries)
                .filter_map(|throw| self.make(schema, &format!("{path}/{at}{}", "'".repeat(throw)), depth + 1))
                .find(|value| !unique || !made.contains(value));
            match thrown {
                Some(value) => made.push(value),
                None if (at as u64) < least => return None,
                None => break,
            }
        }
        Some(Value::Array(made))
    }

    fn integer(&self, rules: &Map<String, Value>, path: &str) -> i64 {
        let whole = |key: &str| rules.get(key).and_then(Value::as_f64);
        let least = whole("minimum").map(f64::ceil).into_iter();
        let least = least.chain(whole("exclusiveMinimum").map(|bound| bound.floor() + 1.0)).fold(None, larger);
        let most = whole("maximum").map(f64::floor).into_iter();
        let most = most.chain(whole("exclusiveMaximum").map(|bound| bound.ceil() - 1.0)).fold(None, smaller);
        let step = whole("multipleOf").map_or(1, |step| (step.round() as i64).max(1));
        let (least, most) = range(least, most);
        let (first, last) = ((least as i64).div_euclid(step), (most as i64).div_euclid(step));
        let first = if first.saturating_mul(step) < least as i64 { first + 1 } else { first };
        let choices = last.saturating_sub(first).saturating_add(1).clamp(1, 1_000);
        first.saturating_add((self.dice.number(path) % choices as u64) as i64).saturating_mul(step)
    }

    fn number(&self, rules: &Map<String, Value>, path: &str) -> Value {
        let bound = |key: &str| rules.get(key).and_then(Value::as_f64);
        if bound("multipleOf").is_some_and(|step| step.fract() == 0.0) {
            return self.integer(rules, path).into();
        }
        if let Some(step) = bound("multipleOf") {
            let (least, _) = range(bound("minimum").or(bound("exclusiveMinimum")), bound("maximum"));
            return ((least / step).floor() * step + step).into();
        }
        let least = [bound("minimum"), bound("exclusiveMinimum")].into_iter().flatten().fold(None, larger);
        let most = [bound("maximum"), bound("exclusiveMaximum")].into_iter().flatten().fold(None, smaller);
        let (least, most) = range(least, most);
        // Never at an end, so that an exclusive bound holds; a single point has no inside.
        let inside = (self.dice.number(path) % 98 + 1) as f64 / 100.0;
        (least + (most - least) * inside).into()
    }

    fn string(&self, rules: &Map<String, Value>, path: &str) -> String {
        let n = self.dice.number(path);
        let text = match rules.get("format").and_then(Value::as_str) {
            Some("date-time") => format!("2000-01-{:02}T{:02}:00:00Z", n % 28 + 1, n % 24),
            Some("date") => format!("2000-01-{:02}", n % 28 + 1),
            Some("time") => format!("{:02}:00:00Z", n % 24),
            Some("duration") => format!("PT{}M", n % 60),
            Some("email" | "idn-email") => format!("simulated-{}@example.com", self.dice.word(path)),
            Some("hostname" | "idn-hostname") => "simulated.example.com".to_owned(),
            Some("uri" | "url" | "iri" | "uri-reference") => format!("https://example.com/simulated/{n:x}"),
            Some("uuid") => uuid::Uuid::from_u64_pair(n, n.rotate_left(32)).to_string(),
            Some("ipv4") => format!("192.0.2.{}", n % 256),
            Some("ipv6") => format!("2001:db8::{:x}", n % 0x1_0000),
            _ => self.words(path),
        };
        let least = at_least(rules, "minLength") as usize;
        let most = rules.get("maxLength").and_then(Value::as_u64).map_or(usize::MAX, |most| most as usize);
        let padding = std::iter::repeat_n('.', least.saturating_sub(text.chars().count()));
        text.chars().chain(padding).take(most).collect()
    }

    fn words(&self, path: &str) -> String {
        format!("simulated {} {}", self.dice.word(path), self.dice.word(&format!("{path}+")))
    }
}

/// Throws for one element that must differ from the others.
const UNIQUE_TRIES: usize = 24;

fn at_least(rules: &Map<String, Value>, key: &str) -> u64 {
    rules.get(key).and_then(Value::as_u64).unwrap_or(0).min(MINIMUM_MAX)
}

fn larger(a: Option<f64>, b: f64) -> Option<f64> {
    Some(a.map_or(b, |a| a.max(b)))
}

fn smaller(a: Option<f64>, b: f64) -> Option<f64> {
    Some(a.map_or(b, |a| a.min(b)))
}

/// A hundred wide where a bound is missing.
fn range(least: Option<f64>, most: Option<f64>) -> (f64, f64) {
    match (least, most) {
        (Some(least), Some(most)) => (least, most),
        (Some(least), None) => (least, least + 100.0),
        (None, Some(most)) => (most - 100.0, most),
        (None, None) => (0.0, 100.0),
    }
}

/// The type to make: as said, or as the other rules suggest. Deep down, `null` where it is allowed.
fn kind_of(rules: &Map<String, Value>, depth: usize) -> &str {
    match rules.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => {
            let mut named = kinds.iter().filter_map(Value::as_str);
            if depth >= OPTIONAL_DEPTH_MAX && kinds.iter().any(|kind| kind == "null") {
                return "null";
            }
            named.find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if rules.contains_key("properties") || rules.contains_key("required") => "object",
        _ if rules.contains_key("items") || rules.contains_key("prefixItems") => "array",
        _ if rules.contains_key("minimum") || rules.contains_key("maximum") => "number",
        _ => "string",
    }
}

/// `rules` without `dropped`, and what `parts` say on top; members of objects are joined.
fn merged(rules: &Map<String, Value>, parts: &[&Value], dropped: &str) -> Value {
    let mut whole = rules.clone();
    whole.remove(dropped);
    for part in parts {
        let Value::Object(part) = part else {
            if *part == &Value::Bool(false) {
                return Value::Bool(false);
            }
            continue;
        };
        for (key, rule) in part {
            match (whole.get_mut(key), rule) {
                (Some(Value::Object(mine)), Value::Object(theirs)) => mine.extend(theirs.clone()),
                (Some(Value::Array(mine)), Value::Array(theirs)) if key == "required" => mine.extend(theirs.clone()),
                _ => drop(whole.insert(key.clone(), rule.clone())),
            }
        }
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dice(seed: u64) -> Dice {
        Dice(blake3::hash(&seed.to_le_bytes()))
    }

    #[test]
    fn values_fit_their_schema_whatever_the_dice_say() {
        let schemas = [
            json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}),
            json!({"type": "object", "properties": {"kind": {"enum": ["x", "y", "z"]}, "v": {"const": 7}},
                   "required": ["kind", "v"], "additionalProperties": false}),
            json!({"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 5, "maxItems": 5}),
            json!({"type": "integer", "exclusiveMinimum": 3, "maximum": 4}),
            json!({"type": "integer", "minimum": -7, "maximum": -3, "multipleOf": 5}),
            json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.001}),
            json!({"type": "number", "multipleOf": 0.5, "minimum": 2}),
            json!({"type": "string", "maxLength": 4}),
            json!({"type": "string", "minLength": 200, "maxLength": 210}),
            json!({"type": ["null", "string"]}),
            json!({"anyOf": [{"type": "object", "properties": {"t": {"const": "a"}}, "required": ["t"]}, {"type": "null"}]}),
            json!({"oneOf": [{"type": "null"}, {"type": "array", "items": {"type": "boolean"}}]}),
            json!({"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                             {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]}),
            json!({"$defs": {"claim": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"],
                                       "additionalProperties": false}},
                   "type": "object", "properties": {"claims": {"type": "array", "items": {"$ref": "#/$defs/claim"}}},
                   "required": ["claims"], "additionalProperties": false}),
            json!({"$defs": {"node": {"type": "object", "properties": {"name": {"type": "string"},
                     "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                     "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
                     "required": ["name", "next", "children"]}}, "$ref": "#/$defs/node"}),
            json!({"type": "array", "prefixItems": [{"const": 1}, {"type": "string"}], "items": {"type": "boolean"},
                   "minItems": 4}),
            json!({"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 2, "uniqueItems": true}),
            json!({"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}}),
            json!({"type": "string", "format": "date-time"}),
            json!({"type": "string", "format": "uuid"}),
            json!({}),
            json!(true),
        ];
        for schema in &schemas {
            for seed in 0..20 {
                // `value` itself checks against the schema with the jsonschema crate.
                value(schema, &dice(seed)).unwrap_or_else(|error| panic!("{schema}: {}", error.error));
            }
        }
    }

    #[test]
    fn strings_say_that_they_are_simulated() {
        let made = value(&json!({"type": "object", "properties": {"a": {"type": "string"}}}), &dice(1)).unwrap();
        assert!(made["a"].as_str().unwrap().starts_with("simulated "), "{made}");
    }

    #[test]
    fn the_impossible_is_refused_and_comes_to_an_end() {
        let endless = json!({"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
                             "required": ["n"]}}, "$ref": "#/$defs/n"});
        let itself = json!({"$ref": "#"});
        for schema in
            [endless, itself, json!(false), json!({"type": "string", "pattern": "^[0-9]{4}$"}), json!({"enum": []})]
        {
            let refused = value(&schema, &dice(1)).unwrap_err();
            assert_eq!(refused.error.class, ErrorClass::BadRequest, "{schema}");
        }
    }
}
