use super::*;

fn usage([tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning]: [u64; 5]) -> Usage {
    Usage { tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, ..Usage::default() }
}

fn plain(tokens_in: u64, tokens_out: u64) -> Usage {
    usage([tokens_in, tokens_out, 0, 0, 0])
}

#[test]
fn costs_are_those_that_one_works_out_by_hand() {
    let book = PriceBook::shipped();
    // Model, [in, out, cached, written, thought], nano-USD.
    let cases: &[(&str, [u64; 5], i64)] = &[
        // A million tokens cost what the price list says: $2.50 in, $10 out.
        ("gpt-4o", [1_000_000, 0, 0, 0, 0], 2_500_000_000),
        ("gpt-4o", [0, 1_000_000, 0, 0, 0], 10_000_000_000),
        // 1,000 × 2,500 n + 100 × 10,000 n.
        ("gpt-4o", [1_000, 100, 0, 0, 0], 3_500_000),
        // 360 × 2,500 + 640 × 1,250: cached tokens are not paid twice.
        ("gpt-4o", [1_000, 0, 640, 0, 0], 1_700_000),
        // One token of 150,000 p is 150 n; one of 75,000 p is 75 n.
        ("gpt-4o-mini", [1, 0, 0, 0, 0], 150),
        ("gpt-4o-mini", [1, 0, 1, 0, 0], 75),
        // 12 × 150 + 34 × 600.
        ("gpt-4o-mini", [12, 34, 0, 0, 0], 22_200),
        // Thinking is within the answer.
        ("o3", [1_000, 5_000, 0, 0, 4_500], 42_000_000),
        ("o4-mini", [0, 1_000, 0, 0, 1_000], 4_400_000),
        // 500 × 1.10 + 500 × 0.55 + 10 × 4.40 millionths of a dollar.
        ("o3-mini", [1_000, 10, 500, 0, 0], 869_000),
        // A price below a nano-USD: 3 × 5,000 p = 15 n; 1 × 5,000 p = 5 n.
        ("gpt-5-nano", [3, 0, 3, 0, 0], 15),
        ("gpt-5", [10_000, 2_000, 8_192, 0, 1_500], 1_808 * 1_250 + 8_192 * 125 + 2_000 * 10_000),
        ("gpt-5-mini", [7, 9, 0, 0, 0], 7 * 250 + 9 * 2_000),
        ("gpt-4.1-nano", [1_047_576, 0, 0, 0, 0], 104_757_600),
        // Embeddings: 8,191 × 20,000 p = 163,820,000 p.
        ("text-embedding-3-small", [8_191, 0, 0, 0, 0], 163_820),
        ("text-embedding-3-large", [1, 0, 0, 0, 0], 130),
        ("text-embedding-ada-002", [300_000, 0, 0, 0, 0], 30_000_000),
        // Anthropic: 100 fresh × 3,000 + 900 read × 300 + 1,000 written × 3,750 + 10 out × 15,000.
        ("claude-sonnet-4-5", [2_000, 10, 900, 1_000, 0], 300_000 + 270_000 + 3_750_000 + 150_000),
        // At the threshold the usual price holds, above it the whole request is dearer.
        ("gemini-2.5-pro", [200_000, 1_000, 0, 0, 0], 200_000 * 1_250 + 1_000 * 10_000),
        ("gemini-2.5-pro", [200_001, 1_000, 0, 0, 0], 200_001 * 2_500 + 1_000 * 15_000),
        (
            "gpt-6-sol",
            [272_000, 1_000, 100_000, 50_000, 0],
            122_000 * 2_000 + 100_000 * 200 + 50_000 * 2_500 + 1_000 * 10_000,
        ),
        (
            "gpt-6-sol",
            [272_001, 1_000, 100_000, 50_000, 0],
            122_001 * 4_000 + 100_000 * 400 + 50_000 * 5_000 + 1_000 * 15_000,
        ),
        // More cached than there is prompt: the prompt, cached.
        ("gpt-4o", [10, 0, 99, 99, 0], 12_500),
        ("simulated-chat", [1_000, 1_000, 0, 0, 0], 0),
        ("gpt-4o", [0, 0, 0, 0, 0], 0),
    ];
    for &(model, counts, expected) in cases {
        assert_eq!(book.cost(model, &usage(counts)), Some(Nanousd(expected)), "{model} {counts:?}");
    }
}

#[test]
fn a_part_of_a_nano_dollar_is_rounded_up_once_for_the_whole_call() {
    let text = "version = \"t\"\n[models.m]\ninput = 1\ncached_input = 1\noutput = 1";
    let book = PriceBook::parse(text).unwrap();
    for (counts, expected) in [
        ([0, 0, 0, 0, 0], 0),
        ([1, 0, 0, 0, 0], 1),
        ([1, 1, 1, 0, 0], 1),
        ([999, 1, 5, 0, 0], 1),
        ([1_000, 1, 0, 0, 0], 2),
    ] {
        assert_eq!(book.cost("m", &usage(counts)), Some(Nanousd(expected)), "{counts:?}");
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let text = format!("version = \"t\"\n[models.m]\ninput = {PRICE_MAX}\noutput = {PRICE_MAX}");
    let book = PriceBook::parse(&text).unwrap();
    assert_eq!(book.cost("m", &plain(u64::MAX, u64::MAX)), Some(Nanousd(i64::MAX)));
}

#[test]
fn names_lead_to_their_model_or_to_nothing() {
    let book = PriceBook::shipped();
    let cases = [
        ("gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
        ("gpt-4o-2024-05-13", Some("gpt-4o-2024-05-13")),
        ("gpt-4o-2024-08-06", Some("gpt-4o")),
        ("openai/gpt-4o-mini", Some("gpt-4o-mini")),
        ("azure/gpt-4o-mini-2024-07-18", Some("gpt-4o-mini")),
        ("claude-sonnet-4-5-20250929", Some("claude-sonnet-4-5")),
        ("anthropic/claude-sonnet-4-5", Some("claude-sonnet-4-5")),
        ("gpt-4-0613", Some("gpt-4")),
        ("gpt-4.1", Some("gpt-4.1")),
        // Nothing that only begins alike, and nothing that somebody else hosts or trained.
        ("gpt-4o-mini-audio-preview", None),
        ("gpt-4o-miniature", None),
        ("gpt-4", Some("gpt-4")),
        ("gpt-4-32k", None),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", None),
        ("together/deepseek-chat", None),
        ("SmolLM2-135M-Instruct", None),
        ("e5-small", None),
        ("2024-07-18", None),
        ("-20240718", None),
        ("", None),
    ];
    for (name, expected) in cases {
        assert_eq!(book.model(name).map(|model| model.name.as_str()), expected, "{name}");
        assert_eq!(book.cost(name, &plain(1, 1)).is_some(), expected.is_some(), "{name}");
    }
}

#[test]
fn tiers_have_their_own_prices_or_none() {
    let book = PriceBook::shipped();
    let cost = |tier, model| book.cost_in(tier, model, &plain(1_000, 100));
    assert_eq!(cost(Tier::Batch, "gpt-4o"), Some(Nanousd(1_750_000)));
    assert_eq!(cost(Tier::Priority, "gpt-4o"), Some(Nanousd(5_950_000)));
    assert_eq!(cost(Tier::Flex, "o3"), Some(Nanousd(1_400_000)));
    assert_eq!(cost(Tier::Flex, "gpt-4o"), None, "the usual price is not the price of another tier");
    let long = book.cost_in(Tier::Batch, "gpt-6-sol", &plain(300_000, 0));
    assert_eq!(long, Some(Nanousd(300_000 * 2_000)));
}

#[test]
fn a_file_of_ones_own_goes_over_the_shipped_one() {
    let own = PriceBook::parse(
        "version = \"mine\"\n[models.\"SmolLM2\"]\ninput = 0\noutput = 0\ncontext_window = 8192\n\
         [models.\"gpt-4o\"]\ninput = 1_000\noutput = 2_000\n[models.window-only]\ncontext_window = 4096\n\
         [models.\"my-deployment\"]\ninput = 3_000\noutput = 0\naliases = [\"gpt-4-0613\", \"o3\"]",
    )
    .unwrap();
    let book = PriceBook::shipped().with_overrides(own);
    let shipped = PriceBook::shipped().version().to_owned();
    assert_eq!(book.version(), format!("{shipped}+mine"));
    assert_eq!(book.cost("SmolLM2", &plain(5, 5)), Some(Nanousd(0)), "free, and that is known");
    assert_eq!(book.cost("gpt-4o-2024-08-06", &plain(1, 1)), Some(Nanousd(3)));
    assert_eq!(book.cost("gpt-4o-mini", &plain(1, 0)), Some(Nanousd(150)), "the others stay");
    assert_eq!(book.cost("window-only", &plain(1, 0)), None);
    assert_eq!(book.model("window-only").and_then(|model| model.context_window), Some(4_096));
    for name in ["gpt-4-0613", "o3"] {
        assert_eq!(book.model(name).map(|model| model.name.as_str()), Some("my-deployment"));
    }
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_reason() {
    let cases = [
        ("", "version"),
        ("version = \"\"", "version is empty"),
        ("version = \"t\"\ncurrency = \"EUR\"", "currency"),
        ("version = \"t\"\n[models.m]\ninput = 1\noutput = 1\ninptu = 1", "inptu"),
        ("version = \"t\"\n[models.m]\ninput = 1", "belong together"),
        ("version = \"t\"\n[models.m]\noutput = 1", "belong together"),
        ("version = \"t\"\n[models.m]\ncached_input = 1", "none for the prompt"),
        ("version = \"t\"\n[models.m]\nper_call = 1", "none for the prompt"),
        ("version = \"t\"\n[models.m]\ninput = 1\noutput = 1\nper_call = 2_000_000_000_000_000", "wrong unit"),
        ("version = \"t\"\n[models.m]\ninput = -1\noutput = 1", "-1"),
        ("version = \"t\"\n[models.m]\ninput = 0.5\noutput = 1", "0.5"),
        ("version = \"t\"\n[models.m]\ninput = 2_000_000_000_000\noutput = 1", "wrong unit"),
        ("version = \"t\"\n[models.m]\ninput = 1\noutput = 1\nbatch = { input = 1 }", "output"),
        ("version = \"t\"\n[models.a]\naliases = [\"x\"]\n[models.b]\naliases = [\"x\"]", "alias"),
        ("version = \"t\"\n[models.m", ""),
    ];
    for (text, reason) in cases {
        let error = PriceBook::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn the_shipped_file_is_whole() {
    let book = PriceBook::parse(SHIPPED).unwrap();
    assert!(book.models.len() >= 40, "{}", book.models.len());
    assert!(!book.as_of().is_empty());
    for (name, model) in &book.models {
        assert!(model.rates(Tier::Standard).is_some() && model.context_window.is_some(), "{name}");
        assert!(model.max_output <= model.context_window, "{name}");
        let rates = model.rates(Tier::Standard).unwrap();
        assert!(rates.cached_input.unwrap_or(0) <= rates.input, "{name}: cached costs more");
        assert!(rates.cache_write.unwrap_or(u64::MAX) >= rates.input, "{name}: writing costs less");
        assert!(rates.long.is_none_or(|long| long.input > rates.input), "{name}: long prompts cost less");
        assert!(model.batch.is_none_or(|batch| batch.input < rates.input), "{name}: batch costs more");
        assert!(model.priority.is_none_or(|priority| priority.input > rates.input), "{name}: priority costs less");
        assert!(!book.aliases.contains_key(name), "{name} is a model and an alias");
    }
}

#[test]
fn audio_long_kept_writes_and_fees_have_their_own_prices() {
    let text = "version = \"t\"\n[models.m]\ninput = 1_000\ncache_write = 1_250\ncache_write_long = 2_000\naudio_in = 10_000\n\
                output = 4_000\naudio_out = 20_000\nper_call = 7_000\nbatch = { input = 500, output = 2_000 }\n\
                [models.short]\ninput = 1_000\ncache_write = 1_250\noutput = 1";
    let book = PriceBook::parse(text).unwrap();
    let usage = Usage {
        tokens_in: 100,
        tokens_out: 50,
        tokens_cache_write: 30,
        tokens_cache_write_long: 10,
        tokens_audio_in: 40,
        tokens_audio_out: 20,
        ..Usage::default()
    };
    // 30 fresh + 20 × 1.25 written + 10 × 2 written for long + 40 × 10 audio + 30 × 4 + 20 × 20 audio + 7 a call.
    assert_eq!(book.cost("m", &usage), Some(Nanousd(30 + 25 + 20 + 400 + 120 + 400 + 7)));
    assert_eq!(book.cost_in(Tier::Batch, "m", &usage), None, "nobody knows what audio costs there");
    let silent = Usage { tokens_audio_in: 0, tokens_audio_out: 0, ..usage };
    assert_eq!(book.cost_in(Tier::Batch, "m", &silent), Some(Nanousd(50 + 100 + 7)), "a fee is of every tier");
    assert_eq!(book.cost_in(Tier::Other, "m", &silent), None);
    // Without a price of its own a long-kept write costs as a write: 70 × 1 + 30 × 1.25, and 50 × 0.001 of an answer.
    assert_eq!(book.cost("short", &silent), Some(Nanousd(108)));
    // Parts that are more than their whole are cut to it.
    let odd = Usage { tokens_in: 10, tokens_out: 5, tokens_audio_in: 99, tokens_audio_out: 99, ..Usage::default() };
    assert_eq!(book.cost("m", &odd), Some(Nanousd(100 + 100 + 7)));
    let unspent = Usage { tokens_cache_write: 3, tokens_cache_write_long: 9, tokens_in: 5, ..Usage::default() };
    assert_eq!(book.cost("m", &unspent), Some(Nanousd(2 + 6 + 7)));
}

#[test]
fn words_of_tiers_are_the_usual_one_a_known_one_or_another() {
    for word in ["", "auto", "default", "standard", "scale", "on_demand"] {
        assert_eq!(Tier::of_service_tier(word), Tier::Standard, "{word}");
    }
    for tier in [Tier::Batch, Tier::Flex, Tier::Priority] {
        assert_eq!(Tier::of_service_tier(tier.as_str()), tier);
    }
    assert_eq!(Tier::of_service_tier("turbo"), Tier::Other);
    for tier in Tier::ALL {
        assert_eq!(Tier::parse(tier.as_str()), Some(tier));
    }
}

#[test]
fn prices_know_how_old_they_are() {
    let of = |as_of: &str| PriceBook::parse(&format!("version = \"t\"\nas_of = \"{as_of}\"")).unwrap();
    let now = "2026-11-29T12:00:00Z".parse().unwrap();
    assert_eq!(of("2026-11-29").age_days(now), Some(0));
    assert_eq!(of("2026-11-01").age_days(now), Some(28));
    assert_eq!(of("2026-11-20").with_overrides(of("2026-10-30")).age_days(now), Some(30), "the oldest of them");
    assert_eq!(of("soon").age_days(now), None);
    assert!(PriceBook::shipped().age_days(now).is_some());
}

#[test]
fn what_is_written_reads_back() {
    let shipped = PriceBook::shipped();
    let again = PriceBook::parse(&shipped.to_toml().unwrap()).unwrap();
    assert_eq!(again.models(), shipped.models());
}
