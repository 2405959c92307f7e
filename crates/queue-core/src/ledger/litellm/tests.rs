use super::*;
use crate::ledger::{Nanousd, Usage};

/// In the form of LiteLLM's table; invented except for the forms of its members.
const TABLE: &str = r#"{
  "sample_spec": {"input_cost_per_token": 0.0, "mode": "one of: chat, embedding", "max_tokens": "LEGACY"},
  "acme-1": {"litellm_provider": "acme", "mode": "chat", "max_input_tokens": 400000, "max_output_tokens": 128000,
    "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6E-7, "cache_read_input_token_cost": 0.000000075,
    "cache_creation_input_token_cost": 1.875e-07, "cache_creation_input_token_cost_above_1hr": 3e-7,
    "input_cost_per_token_above_272k_tokens": 3e-07, "output_cost_per_token_above_272k_tokens": 9e-07,
    "cache_read_input_token_cost_above_272k_tokens": 1.5e-07,
    "cache_creation_input_token_cost_above_1hr_above_272k_tokens": 6e-07,
    "input_cost_per_token_batches": 7.5e-08, "output_cost_per_token_batches": 3.0e-07,
    "input_cost_per_token_priority": 2.5e-07, "output_cost_per_token_priority": 1e-06,
    "input_cost_per_token_above_272k_tokens_priority": 5e-07,
    "output_cost_per_token_above_272k_tokens_priority": 1.5e-06,
    "input_cost_per_token_flex": null, "output_cost_per_reasoning_token": 6e-07,
    "search_context_cost_per_query": {"search_context_size_low": 0.03}, "supports_vision": true},
  "acme-audio": {"litellm_provider": "acme", "mode": "chat", "max_tokens": "16384", "input_cost_per_token": 2.5e-06,
    "output_cost_per_token": 1e-05, "input_cost_per_audio_token": 4e-05, "output_cost_per_audio_token": 8e-05,
    "input_cost_per_request": 0.005, "input_cost_per_image": 0.0, "output_cost_per_image": 0.04},
  "acme-embed": {"litellm_provider": "acme", "mode": "embedding", "max_input_tokens": 8191,
    "input_cost_per_token": 1.3e-10, "output_cost_per_token": 0.0, "output_vector_size": 3072},
  "other/embed": {"litellm_provider": "other", "mode": "embedding", "input_cost_per_token": 2e-08},
  "bad-noise": {"mode": "chat", "input_cost_per_token": 1.4999999999999999e-07, "output_cost_per_token": 6e-07},
  "bad-free": {"mode": "chat", "input_cost_per_token": 0, "output_cost_per_token": 0.0},
  "bad-half": {"mode": "chat", "input_cost_per_token": 1e-06},
  "bad-image": {"mode": "image_generation", "input_cost_per_image": 0.04},
  "bad-long": {"mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "input_cost_per_token_above_128k_tokens": 2e-06},
  "bad-steps": {"mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "input_cost_per_token_above_128k_tokens": 2e-06, "output_cost_per_token_above_128k_tokens": 2e-06,
    "input_cost_per_token_above_256k_tokens": 4e-06, "output_cost_per_token_above_256k_tokens": 4e-06},
  "bad-text": {"mode": "chat", "input_cost_per_token": "cheap", "output_cost_per_token": 1e-06},
  "bad-thinking": {"mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "output_cost_per_reasoning_token": 3e-06},
  "bad-tier": {"mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06,
    "cache_read_input_token_cost_priority": 1e-07},
  "bad-unit": {"mode": "chat", "input_cost_per_token": 3, "output_cost_per_token": 15}
}"#;

fn imported() -> Imported {
    import(TABLE, "litellm-copy", "2026-11-29", |_, provider| provider != "other").unwrap()
}

#[test]
fn what_can_be_said_exactly_is_taken() {
    let book = imported().book;
    let names: Vec<_> = book.models().iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["acme-1", "acme-audio", "acme-embed"]);
    let first = book.model("acme-1").unwrap();
    assert_eq!((first.context_window, first.max_output), (Some(400_000), Some(128_000)));
    let long = Long {
        above: 272_000,
        input: 300_000,
        cached_input: Some(150_000),
        cache_write: None,
        cache_write_long: Some(600_000),
        audio_in: None,
        output: 900_000,
        audio_out: None,
    };
    let usual = first.rates(Tier::Standard).unwrap();
    assert_eq!((usual.input, usual.output, usual.cached_input), (150_000, 600_000, Some(75_000)));
    assert_eq!((usual.cache_write, usual.cache_write_long, usual.long), (Some(187_500), Some(300_000), Some(long)));
    assert_eq!(first.rates(Tier::Batch).map(|batch| (batch.input, batch.output)), Some((75_000, 300_000)));
    assert_eq!(first.rates(Tier::Priority).and_then(|priority| priority.long).map(|long| long.input), Some(500_000));
    assert_eq!(first.rates(Tier::Flex), None);
    let audio = book.model("acme-audio").unwrap();
    assert_eq!(
        (audio.audio_in, audio.audio_out, audio.context_window),
        (Some(40_000_000), Some(80_000_000), Some(16_384))
    );
    assert_eq!(audio.per_call, Some(5_000_000_000));
    let embed = book.model("acme-embed").unwrap();
    assert_eq!((embed.input, embed.output), (Some(130), Some(0)), "130 pico-USD is the smallest price of the table");
}

#[test]
fn what_cannot_is_left_out_with_its_reason() {
    let imported = imported();
    let reasons: BTreeMap<_, _> = imported.left_out.iter().cloned().collect();
    for (model, reason) in [
        ("bad-noise", "1.4999999999999999e-07, which is not a whole number"),
        ("bad-free", "if it is free, say so"),
        ("bad-half", "no price of prompt and answer"),
        ("bad-image", "image_generation"),
        ("bad-long", "above 128000 tokens"),
        ("bad-steps", "2 prompt lengths"),
        ("bad-text", "is no price"),
        ("bad-thinking", "thinking"),
        ("bad-tier", "(tier `priority`)"),
        ("bad-unit", "wrong unit"),
    ] {
        assert!(reasons.get(model).is_some_and(|told| told.contains(reason)), "{model}: {:?}", reasons.get(model));
    }
    assert_eq!(reasons.len(), 10, "and nothing else: who was not wanted is not told of");
    let ignored = [("acme-1", "search_context_cost_per_query"), ("acme-audio", "output_cost_per_image")];
    assert_eq!(imported.ignored, ignored.map(|(model, member)| (model.to_owned(), member.to_owned())));
}

#[test]
fn the_written_file_reads_back_and_prices_alike() {
    let book = imported().book;
    let again = PriceBook::parse(&book.to_toml().unwrap()).unwrap();
    assert_eq!((again.version(), again.as_of()), ("litellm-copy", "2026-11-29"));
    assert_eq!(again.models(), book.models());
    let usage = Usage { tokens_in: 300_000, tokens_out: 7, tokens_cached: 100_000, ..Usage::default() };
    // 200,000 × 500,000 p + 100,000 × 500,000 p (no price of cached tokens there) + 7 × 1,500,000 p.
    assert_eq!(again.cost_in(Tier::Priority, "acme-1", &usage), Some(Nanousd(150_010_500)));
}

#[test]
fn decimal_text_becomes_whole_pico_or_nothing() {
    for (text, pico) in [
        ("1.5e-07", Some(150_000)),
        ("0.00000015", Some(150_000)),
        ("1E-12", Some(1)),
        ("1.0e-12", Some(1)),
        ("0.10e-11", Some(1)),
        ("0", Some(0)),
        ("0.0e-99", Some(0)),
        ("2", Some(2_000_000_000_000)),
        ("1e-13", None),
        ("1.00000000000000000001e-07", None),
        ("-1e-07", None),
        ("1e9999", None),
        ("6e-2147483648", None),
        ("6e2147483647", None),
        ("1e40", None),
        ("", None),
        (".", None),
        ("e-7", None),
        ("NaN", None),
        ("true", None),
        ("0.1.2", None),
        ("١e-7", None),
        ("{}", None),
    ] {
        assert_eq!(pico_of(text, "price").ok(), pico, "{text}");
    }
}

#[test]
fn another_document_is_refused() {
    for text in ["", "[]", "7", "{\"a\": 1"] {
        assert!(import(text, "v", "", |_, _| true).is_err(), "{text}");
    }
    let odd = import(r#"{"a": 1, "b": null}"#, "v", "", |_, _| true).unwrap();
    assert_eq!(odd.left_out.len(), 2);
    assert!(odd.book.models().is_empty());
}
