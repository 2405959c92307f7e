//! What every payload that names a model is checked for.

use serde_json::Value;

use super::{
    Surroundings,
    fields::{At, Errors, described_name},
};
use crate::{ids::Name, ledger::estimate_tokens};

/// Longest name of a model.
pub(super) const NAME_MAX_BYTES: usize = 128;
/// A prompt of fewer bytes than this a token of room certainly fits: it is not worth counting.
const BYTES_PER_TOKEN_MIN: u64 = 2;
/// A long text is counted by samples; only what is over the room by more than their error is refused here, the rest is
/// the provider's to say.
const SURE_PERCENT: u64 = 80;

/// The target of a model.
pub(super) fn target(model: Option<&str>, at: At<'_>, around: Surroundings<'_>, errors: &mut Errors) -> Option<Name> {
    let Some(model) = model else {
        errors.wrong(at, "is required: no default model is configured (`provider.default_model`)");
        return None;
    };
    let target = around.routes.resolve(model);
    if target.is_none() {
        let providers: Vec<_> = around.routes.routes.iter().map(|route| route.provider.as_str()).collect();
        let known = if providers.is_empty() { "none is configured".to_owned() } else { providers.join(", ") };
        errors.wrong(at, format!("{} is served by no provider ({known})", described_name(model)));
    }
    target.map(|target| target.name())
}

/// Refuses what certainly does not fit into the model's window.
pub(super) fn check_window(
    model: &str,
    asked: Option<u64>,
    prompt: &str,
    at: &At<'_>,
    around: Surroundings<'_>,
    errors: &mut Errors,
) {
    let Some(window) = around.prices.model(model).and_then(|known| known.context_window) else { return };
    let asked = asked.unwrap_or(0);
    if asked >= window {
        let reason = format!("asks for {asked} tokens, but `{model}` has room for {window} with the prompt");
        errors.wrong(at.member("max_tokens"), reason);
    } else if !surely_fits(model, prompt, window - asked) {
        let reason = format!("does not fit: `{model}` has room for {window} tokens, {asked} of them for the answer");
        errors.wrong(at.member("messages"), reason);
    }
}

fn surely_fits(model: &str, prompt: &str, room: u64) -> bool {
    prompt.len() as u64 / BYTES_PER_TOKEN_MIN <= room || estimate_tokens(model, prompt) * SURE_PERCENT / 100 <= room
}

/// Refuses what is not a JSON Schema.
pub(super) fn check_schema(schema: &Value, at: At<'_>, errors: &mut Errors) {
    if !schema.is_object() {
        errors.mismatch(at, "a JSON Schema object", schema);
    } else if let Err(error) = jsonschema::validator_for(schema) {
        errors.wrong(at, format!("is not a usable JSON Schema: {error}"));
    }
}
