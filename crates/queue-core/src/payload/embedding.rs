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
/// Most bytes of all inputs together: beyond it they cannot be 300,000 tokens or less.
pub const INPUT_MAX_BYTES: usize = 4 * 1024 * 1024;

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
        let embedding = scan(&tree, &mut errors);
        errors.or(embedding)
    }
}

fn scan(tree: &Value, errors: &mut Errors) -> Embedding {
    let nothing = Embedding { model: None, input: vec![], dimensions: None };
    let known = ["model", "input", "dimensions", "encoding_format", "user"];
    let Some(object) = Object::open(tree, &At::Payload, &known, "", errors) else { return nothing };
    object.refuse("encoding_format", "is Longshore's: results are always arrays of numbers", errors);
    Embedding {
        model: object.label("model", model::NAME_MAX_BYTES, errors).map(str::to_owned),
        input: input(&object, errors),
        dimensions: object.whole("dimensions", 1..=8_192, errors).map(|dimensions| dimensions as u32),
    }
}

fn input(object: &Object<'_>, errors: &mut Errors) -> Vec<String> {
    let Some(value) = object.require("input", "a text or an array of texts", errors) else { return vec![] };
    let at = object.at("input");
    if let Value::String(text) = value {
        if text.is_empty() {
            errors.wrong(at, "must not be empty: providers refuse it");
        }
        return vec![text.clone()];
    }
    let Some(list) = list_at(value, at, INPUTS_MAX, errors) else { return vec![] };
    let mut texts = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        match item {
            Value::String(text) if text.is_empty() => {
                errors.wrong(at.item(index), "must not be empty: providers refuse it")
            }
            Value::String(text) => texts.push(text.clone()),
            other => errors.mismatch(at.item(index), "a string", other),
        }
        if errors.is_full() {
            break;
        }
    }
    if texts.iter().map(String::len).sum::<usize>() > INPUT_MAX_BYTES {
        errors.wrong(at, format!("is larger than {INPUT_MAX_BYTES} bytes in all; split it over several jobs"));
    }
    texts
}

/// Checks an `embedding` payload and says what it loads.
pub(super) fn validate(text: &str, around: Surroundings<'_>) -> Result<Name, Vec<FieldError>> {
    let embedding = Embedding::read(text)?;
    let mut errors = Errors::default();
    let routes = around.routes;
    let default = routes.default_embedding_model.as_deref().or(routes.default_model.as_deref());
    let model = embedding.model.as_deref().or(default);
    let target = model::target(model, At::Payload.member("model"), around, &mut errors);
    errors.or(target.unwrap_or_else(|| Name::from("none")))
}
