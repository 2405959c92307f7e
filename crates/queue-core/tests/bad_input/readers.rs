//! What is read, and what must hold of whatever was taken.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use queue_core::{
    backup::{Identities, Recipients},
    credentials::MasterKeys,
    dispatcher::redis::RedisAddress,
    egress::{Allowed, Network},
    filter::Filter,
    ids::JobId,
    job::Kind,
    journal::Grant,
    keys::Secret,
    ledger::{Nanousd, PriceBook, Tier, Usage, litellm},
    location::Location,
    payload::{Surroundings, compile, packed, quote::Quote, validate},
    route::{Route, Routes, Target},
    schedule::When,
    time::{Timestamp, parse_duration},
    traces,
    upkeep::Window,
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// 2026-11-30T00:00:00Z.
const NOW: Timestamp = Timestamp(1_795_996_800_000);
const DAY_MS: i64 = 86_400_000;
/// Times of a schedule that are asked for.
const TICKS: usize = 5;
/// Faults of an answer that are counted, as a worker does.
const FAULTS: usize = 8;

/// The input as a text; bytes that are none never come this far.
fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

/// What a filter prints means the same.
pub(crate) fn filter(input: &[u8]) -> bool {
    let Ok(filter) = Filter::parse(&text(input), NOW) else { return false };
    assert!(!filter.conditions().is_empty(), "a filter without a condition means everything");
    let shown = filter.to_string();
    assert_eq!(Filter::parse(&shown, NOW).as_ref(), Ok(&filter), "it prints {shown:?}");
    let _ = (filter.states(), filter.narrowed());
    true
}

/// Ticks lie ahead and go forward.
pub(crate) fn cron(input: &[u8]) -> bool {
    let text = text(input);
    let (cron, time_zone) = text.split_once('|').unwrap_or((&text, "UTC"));
    let when = When::Cron { cron: cron.to_owned(), time_zone: time_zone.to_owned() };
    let Ok(ticks) = when.ticks() else { return false };
    let mut last = NOW;
    for tick in ticks.between(NOW, NOW.plus_ms(800 * DAY_MS)).take(TICKS) {
        assert!(tick > last, "{tick} after {last}");
        last = tick;
        let _ = when.local(tick);
    }
    for edge in [i64::MIN, -62_135_596_800_000, 0, 253_402_300_799_000, i64::MAX] {
        let _ = ticks.after(Timestamp(edge));
    }
    true
}

/// Usage at the edges.
fn usages() -> [Usage; 3] {
    let most = Usage {
        tokens_in: 1_000_000_000,
        tokens_out: 1_000_000_000,
        tokens_cached: u64::MAX,
        tokens_cache_write: u64::MAX,
        tokens_cache_write_long: u64::MAX,
        tokens_reasoning: u64::MAX,
        tokens_audio_in: u64::MAX,
        tokens_audio_out: u64::MAX,
    };
    [Usage::default(), Usage { tokens_in: 7, tokens_out: 1, ..Usage::default() }, most]
}

/// No cost is below zero.
fn check_prices(book: &PriceBook) {
    for model in book.models() {
        for tier in [Tier::Standard, Tier::Batch, Tier::Flex, Tier::Priority] {
            for usage in usages() {
                let cost = book.cost_in(tier, &model.name, &usage);
                assert!(cost.is_none_or(|cost| cost.0 >= 0), "{}: {cost:?}", model.name);
            }
        }
    }
}

/// What was read is written and read again.
pub(crate) fn prices(input: &[u8]) -> bool {
    let Ok(book) = PriceBook::parse(&text(input)) else { return false };
    assert!(!book.version().is_empty());
    check_prices(&book);
    let written = book.to_toml().unwrap();
    let again = PriceBook::parse(&written).unwrap();
    assert_eq!(again.models(), book.models());
    let _ = (book.age_days(NOW), PriceBook::default().with_overrides(book));
    true
}

/// An imported table can be used.
pub(crate) fn litellm(input: &[u8]) -> bool {
    let Ok(imported) = litellm::import(&text(input), "v", "2026-11-30", |_, _| true) else { return false };
    check_prices(&imported.book);
    // A window of more tokens than TOML's numbers hold is refused when the file is written.
    let Ok(written) = imported.book.to_toml() else { return false };
    PriceBook::parse(&written).unwrap();
    true
}

/// Whether an address is surely nobody's on the public internet, by other means than the guard's.
fn is_home(address: IpAddr) -> bool {
    let of_4 = |four: Ipv4Addr| {
        four.is_loopback()
            || four.is_private()
            || four.is_link_local()
            || four.is_unspecified()
            || four.is_multicast()
            || four.is_broadcast()
            || four.octets()[0] == 0
            || (four.octets()[0] == 100 && (64..128).contains(&four.octets()[1]))
    };
    match address {
        IpAddr::V4(four) => of_4(four),
        IpAddr::V6(six) => {
            six.is_loopback()
                || six.is_unspecified()
                || six.is_multicast()
                || six.is_unique_local()
                || six.is_unicast_link_local()
                || six.to_ipv4().is_some_and(of_4)
        }
    }
}

/// What is allowed is https to a public place, and is allowed again as it is sent.
pub(crate) fn url(input: &[u8]) -> bool {
    let text = text(input);
    let guard = Allowed::default();
    let _ = Allowed { http: true, networks: vec!["10.0.0.0/8".parse().unwrap(), "::/0".parse().unwrap()] }.check(&text);
    let Ok(sent) = guard.check(&text) else { return false };
    assert_eq!(guard.check(&sent).as_ref(), Ok(&sent), "what is sent is not what was checked");
    let url = reqwest::Url::parse(&sent).unwrap();
    assert_eq!((url.scheme(), url.username(), url.password()), ("https", "", None), "{sent}");
    let host = url.host_str().unwrap().trim_matches(['[', ']']).to_owned();
    assert!(!host.parse().is_ok_and(is_home), "{sent}");
    true
}

/// Whether words about an address tell its password, which is `p%40ss` in the corpus. A name of a host may have those letters too: what
/// stands behind the last `@` and before the options may be shown, as often as it stands there.
pub(crate) fn tells_password(address: &str, words: &str) -> bool {
    const PASSWORD: &str = "p%40ss";
    let open = address.split('?').next().unwrap_or_default();
    let open = open.rsplit_once('@').map_or(open, |(_, open)| open);
    words.matches(PASSWORD).count() > open.matches(PASSWORD).count()
}

/// Whether words tell a secret key of the corpus, be it alone or a part of something else.
pub(crate) fn tells_key(words: &str) -> bool {
    ["AGE-SECRET-KEY", "AAAAAAAAAAAAAAAA"].iter().any(|key| words.contains(key))
}

/// Short texts of all kinds: what has a form of its own is written as it was read, and no error repeats a secret.
pub(crate) fn word(input: &[u8]) -> bool {
    let text = text(input);
    let mut taken = false;
    if let Ok(money) = text.parse::<Nanousd>() {
        assert!(money.0 >= 0);
        taken = true;
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        assert_eq!(at.to_string().parse(), Ok(at), "{at}");
        let _ = (at.start_of_day(), at.plus_ms(i64::MAX), at.since_ms(Timestamp(i64::MIN)));
        taken = true;
    }
    if let Ok(network) = text.parse::<Network>() {
        let _ = ["10.0.0.1", "::1"].map(|address| network.contains(address.parse().unwrap()));
        assert_eq!(network.to_string().parse(), Ok(network));
        taken = true;
    }
    if let Some(target) = Target::parse(&text) {
        assert_eq!(target.name().as_str(), text);
        let _ = (target.label(), target.account(), target.lanes());
        taken = true;
    }
    if let Ok(window) = Window::parse(&text) {
        let (begin, end) = window.next(NOW);
        assert!(begin < end && end > NOW);
        taken = true;
    }
    if let Ok(secret) = Secret::parse(&text) {
        assert_eq!(secret.reveal(), text.trim());
        taken = true;
    }
    let shown = match RedisAddress::parse(&text) {
        Ok(address) => vec![address.to_string(), format!("{address:?}")],
        Err(reason) => vec![reason],
    };
    for words in shown {
        assert!(!tells_password(&text, &words), "a password is told: {words}");
    }
    let keys = [
        Identities::parse(&text).err(),
        Recipients::parse(&[text.clone(), text.clone() + "x"]).err(),
        MasterKeys::parse(&text).err(),
    ];
    for reason in keys.into_iter().flatten() {
        assert!(!tells_key(&reason), "a secret key is told: {reason}");
    }
    let _ = traces::trace_id(&text).map(|id| assert_eq!(id.len(), 32));
    let others = [
        parse_duration(&text).is_ok(),
        text.parse::<JobId>().is_ok(),
        Location::parse(&text).is_ok(),
        Grant::parse(&text).is_ok(),
    ];
    taken || others.contains(&true)
}

/// A job as far as its payload is concerned.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    kind: &'a str,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, default)]
    fallback: Option<&'a RawValue>,
}

/// Who serves what, and for how much.
struct Around {
    routes: Routes,
    prices: PriceBook,
    outbound: Allowed,
}

static AROUND: LazyLock<Around> = LazyLock::new(|| {
    let route = |name: &str, models: &[&str]| Route {
        provider: name.into(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
    };
    Around {
        routes: Routes {
            routes: vec![route("chat", &["tiny", "gpt-*"]), route("vectors", &["embed-*"])],
            default_model: Some("gpt-4o-mini".into()),
            default_embedding_model: Some("embed-small".into()),
        },
        prices: PriceBook::shipped(),
        outbound: Allowed::default(),
    }
});

/// What is refused names its places, and what is taken can be priced.
pub(crate) fn payload(input: &[u8]) -> bool {
    let text = text(input);
    let around = &*AROUND;
    let surroundings = Surroundings {
        routes: &around.routes,
        prices: &around.prices,
        probe_jobs: true,
        probe_faults: true,
        outbound: &around.outbound,
    };
    let envelope = serde_json::from_str::<Envelope<'_>>(&text).ok();
    let kind = envelope.as_ref().and_then(|envelope| Kind::parse(envelope.kind));
    let payload = envelope.as_ref().map_or(text.as_str(), |envelope| envelope.payload.get());
    let fallback = envelope.as_ref().and_then(|envelope| envelope.fallback).map(RawValue::get);
    // Whole garbage goes to each kind in turn.
    let kind = kind.unwrap_or([Kind::Llm, Kind::Analysis, Kind::Embedding, Kind::Http, Kind::Custom][text.len() % 5]);
    match validate(kind, payload, fallback, surroundings) {
        Ok(loads) => {
            assert!(!loads.target.as_str().is_empty());
            let quote = Quote::of(kind, payload, &around.routes);
            let _ = (quote.tokens(), quote.cost(&around.prices, std::iter::empty()));
            true
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without a word");
            let known = |error: &str| ["/payload", "/fallback", "/cache"].iter().any(|start| error.starts_with(start));
            let stranger = errors.iter().find(|error| !known(&error.pointer) || error.reason.is_empty());
            assert!(stranger.is_none(), "{stranger:?}");
            false
        }
    }
}

/// A schema and an answer to it.
#[derive(Deserialize)]
struct Asked {
    schema: Value,
    #[serde(default)]
    answer: Value,
}

/// What compiles checks any answer in bounded time, alone and in a packed call.
pub(crate) fn schema(input: &[u8]) -> bool {
    let Ok(Asked { schema, answer }) = serde_json::from_slice(input) else { return false };
    let Ok(validator) = compile(&schema) else { return false };
    let long = Value::from(format!("{}!", "a".repeat(200)));
    for answer in [&answer, &Value::Null, &long, &serde_json::json!({"n": [{}], "next": {"next": {}}, "a": 1})] {
        assert_eq!(validator.is_valid(answer), validator.iter_errors(answer).take(FAULTS).count() == 0);
    }
    if let Ok(packed) = compile(&packed::schema_for(Some(&schema), 3)) {
        let _ = packed.iter_errors(&serde_json::json!({"1": answer, "2": null, "3": {}})).take(FAULTS).count();
    }
    true
}
