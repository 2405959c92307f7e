//! What a provider says about tokens, in the dialects that there are.

use std::cell::Cell;

use queue_core::ledger::Usage;
use serde_json::Value;

/// Largest count that is believed: a thousand times the longest window. Beyond it somebody sent -1 as an unsigned number,
/// and it is better to count ourselves.
const TOKENS_MAX: u64 = 1_000_000_000;

/// The usage that `said` reports. `None` where there is none, where it says nothing but zeros (an answer without any token
/// does not exist), and where a number cannot be true.
pub(super) fn parse(said: &Value) -> Option<Usage> {
    let counts = Counts { said, odd: Cell::new(false) };
    let input = counts.first(&["/prompt_tokens", "/input_tokens"]);
    let output = counts.first(&["/completion_tokens", "/output_tokens"]).unwrap_or(0);
    let cached = counts.first(&[
        "/prompt_tokens_details/cached_tokens",
        "/input_tokens_details/cached_tokens",
        "/prompt_cache_hit_tokens",
        "/cache_read_input_tokens",
    ]);
    let write = counts.first(&[
        "/prompt_tokens_details/cache_write_tokens",
        "/prompt_tokens_details/cache_creation_tokens",
        "/input_tokens_details/cache_write_tokens",
        "/cache_creation_input_tokens",
    ]);
    let write_short = counts.first(&["/cache_creation/ephemeral_5m_input_tokens"]).unwrap_or(0);
    let write_long = counts.first(&[
        "/prompt_tokens_details/cache_creation_token_details/ephemeral_1h_input_tokens",
        "/cache_creation/ephemeral_1h_input_tokens",
    ]);
    let write_long = write_long.unwrap_or(0);
    let reasoning =
        counts.first(&["/completion_tokens_details/reasoning_tokens", "/output_tokens_details/reasoning_tokens"]);
    let audio_in = counts.first(&["/prompt_tokens_details/audio_tokens", "/input_tokens_details/audio_tokens"]);
    let audio_cached = counts.first(&["/prompt_tokens_details/cached_tokens_details/audio_tokens"]).unwrap_or(0);
    let audio_out = counts.first(&["/completion_tokens_details/audio_tokens", "/output_tokens_details/audio_tokens"]);
    let (cached, write) = (cached.unwrap_or(0), write.unwrap_or(write_short.saturating_add(write_long)));
    let of_total = || counts.first(&["/total_tokens"]).map(|total| counts.less(total, output));
    let mut tokens_in = input.or_else(of_total)?;
    // Anthropic's own form counts cached and written tokens beside the input; ours, like OpenAI's, counts them within.
    let is_beside = |member| said.get(member).is_some();
    if !is_beside("prompt_tokens") && (is_beside("cache_read_input_tokens") || is_beside("cache_creation_input_tokens"))
    {
        tokens_in = tokens_in.saturating_add(cached).saturating_add(write);
    }
    let tokens_cached = counts.within(cached, tokens_in);
    let tokens_cache_write = counts.within(write, tokens_in - tokens_cached);
    // Audio that was found in the cache is cached, at the price of that.
    let audio_in = audio_in.unwrap_or(0).saturating_sub(audio_cached);
    let usage = Usage {
        tokens_in,
        tokens_out: output,
        tokens_cached,
        tokens_cache_write,
        tokens_reasoning: counts.within(reasoning.unwrap_or(0), output),
        tokens_cache_write_long: counts.within(write_long, tokens_cache_write),
        tokens_audio_in: counts.within(audio_in, tokens_in - tokens_cached - tokens_cache_write),
        tokens_audio_out: counts.within(audio_out.unwrap_or(0), output),
    };
    let is_credible = usage.tokens_in <= TOKENS_MAX && usage.tokens_out <= TOKENS_MAX;
    if counts.odd.get() || !is_credible {
        tracing::warn!(
            ?usage,
            is_credible,
            "a provider's token counts contradict each other or are below zero; they were cut to what is possible"
        );
    }
    (is_credible && (usage.tokens_in > 0 || usage.tokens_out > 0)).then_some(usage)
}

/// A provider's counts, and whether any of them had to be cut.
struct Counts<'a> {
    said: &'a Value,
    odd: Cell<bool>,
}

impl Counts<'_> {
    /// The first of these members that is a number.
    fn first(&self, names: &[&str]) -> Option<u64> {
        names.iter().find_map(|name| self.count(self.said.pointer(name)?))
    }

    /// Some gateways send whole numbers as `12.0`; below zero there is nothing.
    fn count(&self, said: &Value) -> Option<u64> {
        said.as_u64().or_else(|| {
            let number = said.as_f64().filter(|number| number.is_finite())?;
            self.odd.set(self.odd.get() || number < 0.0);
            Some(number.max(0.0) as u64)
        })
    }

    /// A part of a whole.
    fn within(&self, part: u64, whole: u64) -> u64 {
        self.odd.set(self.odd.get() || part > whole);
        part.min(whole)
    }

    /// What is left of a sum.
    fn less(&self, sum: u64, part: u64) -> u64 {
        self.odd.set(self.odd.get() || part > sum);
        sum.saturating_sub(part)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(counts: [u64; 5]) -> Option<Usage> {
        let [tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning] = counts;
        Some(Usage { tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, ..Usage::default() })
    }

    #[test]
    fn audio_and_long_kept_writes_are_told_apart() {
        let openai = json!({"prompt_tokens": 100, "completion_tokens": 50,
                            "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 60,
                                                      "cached_tokens_details": {"audio_tokens": 15}},
                            "completion_tokens_details": {"audio_tokens": 40}});
        let told = parse(&openai).unwrap();
        assert_eq!((told.tokens_audio_in, told.tokens_audio_out, told.tokens_cached), (45, 40, 20));
        // Anthropic's: 5 fresh, 30 + 70 written, nothing read.
        let anthropic = json!({"input_tokens": 5, "output_tokens": 2, "cache_creation_input_tokens": 100,
                               "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70}});
        let told = parse(&anthropic).unwrap();
        assert_eq!((told.tokens_in, told.tokens_cache_write, told.tokens_cache_write_long), (105, 100, 70));
    }

    #[test]
    fn a_number_that_cannot_be_true_is_no_usage() {
        for said in [
            json!({"prompt_tokens": u64::MAX, "completion_tokens": 3}),
            json!({"prompt_tokens": 3, "completion_tokens": 1_000_000_001_u64}),
            json!({"prompt_tokens": 1e300, "completion_tokens": 3}),
            json!({"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": u64::MAX}),
        ] {
            assert_eq!(parse(&said), None, "{said}");
        }
        assert!(parse(&json!({"prompt_tokens": 1_000_000_000, "completion_tokens": 0})).is_some());
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
