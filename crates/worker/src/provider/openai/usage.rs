//! What a provider says about tokens, in the dialects that there are.

use queue_core::ledger::Usage;
use serde_json::Value;

/// The usage that `said` reports. `None` where there is none, or where it says nothing but zeros: an answer without
/// any token does not exist.
pub(super) fn parse(said: &Value) -> Option<Usage> {
    let first = |names: &[&str]| names.iter().find_map(|name| count(said.pointer(name)?));
    let input = first(&["/prompt_tokens", "/input_tokens"]);
    let output = first(&["/completion_tokens", "/output_tokens"]).unwrap_or(0);
    let cached = first(&[
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/cache_read_input_tokens",
    ]);
    let write = first(&[
        "/prompt_tokens_details/cache_write_tokens",
        "/prompt_tokens_details/cache_creation_tokens",
        "/input_tokens_details/cache_write_tokens",
        "/cache_creation_input_tokens",
    ]);
    let reasoning =
        first(&["/completion_tokens_details/reasoning_tokens", "/output_tokens_details/reasoning_tokens"]).unwrap_or(0);
    let (cached, write) = (cached.unwrap_or(0), write.unwrap_or(0));
    let mut tokens_in = input.or_else(|| count(said.get("total_tokens")?).map(|total| total.saturating_sub(output)))?;
    // Anthropic's own form counts cached tokens beside the input; ours, like OpenAI's, counts them within.
    if said.get("prompt_tokens").is_none() && said.get("cache_read_input_tokens").is_some() {
        tokens_in = tokens_in.saturating_add(cached).saturating_add(write);
    }
    let tokens_cached = cached.min(tokens_in);
    let usage = Usage {
        tokens_in,
        tokens_out: output,
        tokens_cached,
        tokens_cache_write: write.min(tokens_in - tokens_cached),
        tokens_reasoning: reasoning.min(output),
    };
    (usage.tokens_in > 0 || usage.tokens_out > 0).then_some(usage)
}

/// Some gateways send whole numbers as `12.0`; below zero there is nothing.
fn count(said: &Value) -> Option<u64> {
    said.as_u64().or_else(|| said.as_f64().filter(|number| number.is_finite()).map(|number| number.max(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(counts: [u64; 5]) -> Option<Usage> {
        let [tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning] = counts;
        Some(Usage { tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning })
    }

    #[test]
    fn every_dialect_comes_to_the_same_form() {
        let cases = [
            (json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}), usage([10, 3, 0, 0, 0])),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 50,
                       "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 20, "audio_tokens": 0},
                       "completion_tokens_details": {"reasoning_tokens": 40}}),
                usage([100, 50, 64, 20, 40]),
            ),
            (
                json!({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": null}),
                usage([10, 3, 0, 0, 0]),
            ),
            // Anthropic's form: 5 fresh, 90 read, 7 written.
            (
                json!({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 90,
                       "cache_creation_input_tokens": 7}),
                usage([102, 2, 90, 7, 0]),
            ),
            // LiteLLM's: both forms at once, cached within the prompt.
            (
                json!({"prompt_tokens": 102, "completion_tokens": 2, "cache_read_input_tokens": 90,
                       "cache_creation_input_tokens": 7}),
                usage([102, 2, 90, 7, 0]),
            ),
            (
                json!({"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_hit_tokens": 64}),
                usage([100, 1, 64, 0, 0]),
            ),
            (
                json!({"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 8}}),
                usage([9, 4, 8, 0, 0]),
            ),
            (json!({"prompt_tokens": 12.0, "completion_tokens": 3.0}), usage([12, 3, 0, 0, 0])),
            (json!({"prompt_tokens": 5, "total_tokens": 5}), usage([5, 0, 0, 0, 0])),
            (json!({"total_tokens": 7}), usage([7, 0, 0, 0, 0])),
            // A part that is larger than its whole is cut to it.
            (
                json!({"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99,
                       "cache_write_tokens": 5}, "completion_tokens_details": {"reasoning_tokens": 9}}),
                usage([10, 3, 10, 0, 3]),
            ),
            (json!({"prompt_tokens": -4, "completion_tokens": 3}), usage([0, 3, 0, 0, 0])),
            (json!({"prompt_tokens": 0, "completion_tokens": 0}), None),
            (json!({"prompt_tokens": "ten"}), None),
            (json!({}), None),
            (json!(null), None),
        ];
        for (said, expected) in cases {
            assert_eq!(parse(&said), expected, "{said}");
        }
    }
}
