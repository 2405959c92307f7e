//! What every payload that names a model is checked for: somebody serves it, and what is asked for has room.

use serde_json::Value;

use super::{
    Surroundings,
    fields::{At, Errors, Object, described_name},
};
use crate::{error::ErrorClass, fallback::Link, ledger::estimate_tokens, route::Target};

/// Longest name of a model.
pub(super) const NAME_MAX_BYTES: usize = 128;
/// Largest JSON Schema: it goes with every call of its step, and providers stop at about this size.
const SCHEMA_MAX_BYTES: usize = 128 * 1024;
/// Steps of backtracking that a `pattern` may take on one value. A pattern is the caller's, the value is a model's.
const PATTERN_STEPS_MAX: usize = 100_000;

/// The model that the member `name` asks for, or `default`, and its target. Notes why there is none.
pub(super) fn served<'m>(
    object: &Object<'m>,
    name: &'m str,
    default: Option<&'m str>,
    around: Surroundings<'_>,
    errors: &mut Errors,
) -> Option<(&'m str, Target)> {
    let model = match object.get(name) {
        Some(_) => object.label(name, NAME_MAX_BYTES, errors)?,
        None => match default {
            Some(default) => default,
            None => {
                object.wrong(name, "is required: this installation has no default model", errors);
                return None;
            }
        },
    };
    if let Some(target) = around.routes.resolve(model) {
        return Some((model, target));
    }
    object.wrong(name, served_by_nobody(model, around), errors);
    None
}

/// Why nobody can be asked for `model`.
pub(super) fn served_by_nobody(model: &str, around: Surroundings<'_>) -> String {
    let providers: Vec<_> = around.routes.routes.iter().map(|route| format!("`{}`", route.provider)).collect();
    let known = match providers.as_slice() {
        [] => "none is configured".to_owned(),
        names => format!("the providers here are {}", names.join(", ")),
    };
    format!("{} is served by no provider; {known}", described_name(model))
}

/// What a request asks a model for.
pub(super) struct Wish<'a> {
    /// Where the limit on the answer stands, and how many tokens it is.
    pub(super) answer: Option<(At<'a>, u64)>,
    /// Where the prompt stands.
    pub(super) prompt_at: At<'a>,
    /// The texts of the prompt.
    pub(super) prompt: Vec<&'a str>,
}

/// Refuses what cannot have room in the window of any model that would be asked, on any reading of the prompt. What may
/// have room is left to the provider, which counts exactly.
pub(super) fn check_room(first: &str, links: &[Link], wish: &Wish<'_>, around: Surroundings<'_>, errors: &mut Errors) {
    let asked = wish.answer.map_or(0, |(_, tokens)| tokens);
    for model in [first].into_iter().chain(links.iter().map(|link| link.model.as_str())) {
        let known = around.prices.model(model);
        let longest = known.and_then(|known| known.max_output.or(known.context_window));
        if let Some((at, tokens)) = wish.answer
            && let Some(limit) = longest.filter(|&limit| tokens > limit)
        {
            let name = described_name(model);
            errors.wrong(at, format!("must be at most {limit}, the longest answer of {name}, not {tokens}"));
            return;
        }
    }
    let bytes: u64 = wish.prompt.iter().map(|text| text.len() as u64).sum();
    // Of the links only those are asked after an overflow that say so.
    let tried = links.iter().filter(|link| link.follows(ErrorClass::Overflow));
    let mut small = Vec::new();
    for model in [first].into_iter().chain(tried.map(|link| link.model.as_str())) {
        let window = around.prices.model(model).and_then(|known| known.context_window);
        // A token has at least one byte: most prompts need no counting.
        let Some(window) = window.filter(|window| bytes + asked > *window) else { return };
        let least = at_least(model, &wish.prompt);
        if least + asked <= window {
            return;
        }
        small.push((least, format!("{window} ({})", described_name(model))));
    }
    let least = small.iter().map(|(least, _)| *least).min().unwrap_or_default();
    let windows: Vec<_> = small.into_iter().map(|(_, window)| window).collect();
    let answer = if asked > 0 { format!(" and {asked} for the answer") } else { String::new() };
    let reason = format!("has no room: at least {least} tokens{answer} in a window of {}", windows.join(" or "));
    errors.wrong(wish.prompt_at, reason);
}

/// A number of tokens that `texts` certainly reach: the estimate, or four bytes a token where that is less (estimates
/// for models with an unknown vocabulary are high on purpose), and a tenth off for what either may be wrong by.
pub(super) fn at_least(model: &str, texts: &[&str]) -> u64 {
    let of_text = |text: &&str| estimate_tokens(model, text).min(text.len() as u64 / 4);
    texts.iter().map(of_text).sum::<u64>() / 10 * 9
}

/// A JSON Schema, compiled. References outside the schema are never fetched.
pub fn compile(schema: &Value) -> Result<jsonschema::Validator, String> {
    let patterns = jsonschema::PatternOptions::fancy_regex().backtrack_limit(PATTERN_STEPS_MAX);
    let options = jsonschema::options().offline().with_pattern_options(patterns);
    options.build(schema).map_err(|error| error.to_string())
}

/// Refuses what is not a JSON Schema.
pub(super) fn check_schema(schema: &Value, at: At<'_>, errors: &mut Errors) {
    if !schema.is_object() {
        errors.mismatch(at, "a JSON Schema object", schema);
        return;
    }
    let bytes = schema.to_string().len();
    if bytes > SCHEMA_MAX_BYTES {
        errors.wrong(at, format!("is {bytes} bytes of JSON Schema; the limit is {SCHEMA_MAX_BYTES}"));
        return;
    }
    if let Err(reason) = compile(schema) {
        errors.wrong(at, format!("is not a usable JSON Schema: {}", reason.chars().take(300).collect::<String>()));
    }
}
