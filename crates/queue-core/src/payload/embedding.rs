//! The payload of an `embedding` job.

use serde_json::Value;

use super::{
    FieldError, Surroundings,
    fields::{At, Errors, Object, list_at},
    model, tree,
};
use crate::ids::Name;

/// Most inputs of one job: what one provider call takes.
pub const INPUTS_MAX: usize = 2_048;
/// Most bytes of all inputs together: one call takes 300,000 tokens, and text that is worth a vector has rarely more
/// than 14 bytes a token.
pub const INPUT_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest vector that may be asked for: twice what any model gives.
pub const DIMENSIONS_MAX: u64 = 8_192;

const KNOWN: [&str; 4] = ["model", "input", "dimensions", "encoding_format"];

/// Vectors to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// The model, if one is named.
    pub model: Option<String>,
    /// 1 to [`INPUTS_MAX`] texts, none empty.
    pub input: Vec<String>,
    /// Length of the vectors, if one is asked for.
    pub dimensions: Option<u32>,
}

impl Embedding {
    /// Reads a payload's JSON text.
    pub fn read(text: &str) -> Result<Self, Vec<FieldError>> {
        let tree = tree::read(text).map_err(|error| vec![error])?;
        let mut errors = Errors::default();
        let at = At::Payload;
        let embedding = Object::open(&tree, &at, &KNOWN, "", &mut errors).map(|object| scan(&object, &mut errors));
        errors.settle(embedding)
    }
}

fn scan(object: &Object<'_>, errors: &mut Errors) -> Embedding {
    let reason = "is Longshore's: it asks for the compact form, and results are arrays of numbers";
    object.refuse("encoding_format", reason, errors);
    Embedding {
        model: object.get("model").and_then(Value::as_str).map(str::to_owned),
        input: input(object, errors),
        dimensions: object.whole("dimensions", 1..=DIMENSIONS_MAX, errors).map(|dimensions| dimensions as u32),
    }
}

fn input(object: &Object<'_>, errors: &mut Errors) -> Vec<String> {
    let Some(value) = object.require("input", "a string or an array of strings", errors) else { return vec![] };
    let at = object.at("input");
    let one = std::slice::from_ref(value);
    let list = if value.is_string() { Some(one) } else { list_at(value, at, INPUTS_MAX, errors) };
    let mut texts = Vec::with_capacity(list.map_or(0, <[Value]>::len));
    for (index, item) in list.into_iter().flatten().enumerate() {
        let place = if value.is_string() { at } else { at.item(index) };
        match item {
            Value::String(text) if text.is_empty() => errors.wrong(place, "must not be empty: providers refuse it"),
            Value::String(text) => texts.push(text.clone()),
            other => errors.mismatch(place, "a string", other),
        }
        if errors.is_full() {
            break;
        }
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    if bytes > INPUT_MAX_BYTES {
        errors
            .wrong(at, format!("has {bytes} bytes in all; the limit is {INPUT_MAX_BYTES}. Split it over several jobs"));
    }
    texts
}

/// Checks an `embedding` payload and says what it loads.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    let tree = tree::read(text).map_err(|error| vec![error])?;
    let mut errors = Errors::default();
    let at = At::Payload;
    let Some(object) = Object::open(&tree, &at, &KNOWN, "", &mut errors) else { return errors.settle(None) };
    scan(&object, &mut errors);
    let routes = around.routes;
    let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
    let served = model::served(&object, "model", default, around, &mut errors);
    errors.settle(served.map(|(_, target)| target.name()))
}
