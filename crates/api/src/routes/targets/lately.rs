//! How a target's calls went lately, and what they cost.

use std::collections::{BTreeMap, HashMap};

use queue_core::{
    ids::Name,
    journal::{RECENT_CALLS_MAX, RecentCall},
    ledger::{Nanousd, Tier},
    route::Target,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, problem::Problem};

/// How far back calls count.
const LATELY_MS: i64 = 60 * 60 * 1_000;
/// What a call's status is that gave an answer.
const ANSWERED: &str = "ok";
/// Pico-USD for each token are so many nano-USD for a million of them.
const NANO_A_MILLION: u64 = 1_000;
/// Pico-USD of one nano-USD.
const PICO_PER_NANO: u64 = 1_000;

/// How a target's calls went.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TargetLately)]
pub(crate) struct LatelyView {
    /// As far back as calls were looked at: an hour, or as long as the newest 5,000 calls of the installation took.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Its calls. Where several jobs shared one, that counts for each.
    calls: u64,
    /// Those that gave no answer.
    failed: u64,
    /// Time that half of the answered calls took at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<u64>,
    /// Time that 95 of 100 answered calls took at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_ms: Option<u64>,
    /// How many ended how: `ok`, or the class of the error.
    statuses: BTreeMap<String, u64>,
}

/// The newest calls, by target.
pub(super) struct Lately {
    since: Timestamp,
    calls: HashMap<Name, Vec<RecentCall>>,
}

impl Lately {
    pub(super) async fn of(app: &App) -> Result<Self, Problem> {
        let since = app.now().plus_ms(-LATELY_MS);
        Ok(Self::sorted(app.api.stores.ledger.recent(since).await?, since))
    }

    fn sorted(newest_first: Vec<RecentCall>, since: Timestamp) -> Self {
        let oldest = newest_first.last().map(|oldest| oldest.at);
        // Where there were more, nobody knows what went before the oldest one.
        let since = oldest.filter(|_| newest_first.len() >= RECENT_CALLS_MAX).unwrap_or(since);
        let mut calls: HashMap<Name, Vec<RecentCall>> = HashMap::new();
        for call in newest_first {
            let target = Name::new(format!("{}:{}:{}", call.provider, call.model, call.credential));
            calls.entry(target).or_default().push(call);
        }
        Self { since, calls }
    }

    pub(super) fn view(&self, target: &Name) -> Option<LatelyView> {
        let calls = self.calls.get(target)?;
        let mut statuses = BTreeMap::new();
        for call in calls {
            *statuses.entry(call.status.clone()).or_default() += 1;
        }
        let mut times: Vec<u64> =
            calls.iter().filter(|call| call.status == ANSWERED).map(|call| call.duration_ms).collect();
        times.sort_unstable();
        let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(LatelyView {
            since: self.since,
            calls: calls.len() as u64,
            failed: (calls.len() - times.len()) as u64,
            p50_ms: rank(50),
            p95_ms: rank(95),
            statuses,
        })
    }
}

/// What a model costs: US dollars as text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TargetPrice)]
pub(crate) struct PriceView {
    /// The model under which the price file has it; absent where it is the price of whatever has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The price file, as every call's ledger row names it.
    version: String,
    /// The day on which these prices were read, as the file says.
    as_of: String,
    /// How many days ago the oldest of its files was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_days: Option<i64>,
    /// A million tokens of prompt.
    #[schema(example = "0.15")]
    input_usd_per_million: String,
    /// A million tokens that were found in the provider's cache; as `input` where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_input_usd_per_million: Option<String>,
    /// A million tokens of answer.
    #[schema(example = "0.60")]
    output_usd_per_million: String,
    /// Each call, beside its tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_call_usd: Option<String>,
    /// Prompts of more tokens than this cost more.
    #[serde(skip_serializing_if = "Option::is_none")]
    long_above_tokens: Option<u64>,
}

impl PriceView {
    pub(super) fn of(app: &App, target: &Target) -> Option<Self> {
        let prices = &app.api.prices;
        let rates = prices.rates(Tier::Standard, target.model.as_str())?;
        let model = prices.model(target.model.as_str());
        let nano = |nano: u64| Nanousd(i64::try_from(nano).unwrap_or(i64::MAX)).to_string();
        let a_million = |pico: u64| nano(pico.saturating_mul(NANO_A_MILLION));
        Some(Self {
            model: model.filter(|model| model.rates(Tier::Standard).is_some()).map(|model| model.name.clone()),
            version: prices.version().to_owned(),
            as_of: prices.as_of().to_owned(),
            age_days: prices.age_days(app.now()),
            input_usd_per_million: a_million(rates.input),
            cached_input_usd_per_million: rates.cached_input.map(a_million),
            output_usd_per_million: a_million(rates.output),
            per_call_usd: model.and_then(|model| model.per_call).map(|pico| nano(pico.div_ceil(PICO_PER_NANO))),
            long_above_tokens: rates.long.map(|long| long.above),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn call(credential: &str, status: &str, duration_ms: u64, ago_ms: i64) -> RecentCall {
        RecentCall {
            provider: "openai".into(),
            model: "gpt-4o".into(),
            credential: credential.into(),
            status: status.into(),
            duration_ms,
            at: NOW.plus_ms(-ago_ms),
        }
    }

    #[test]
    fn answered_calls_have_times_and_all_are_counted() {
        let mut calls: Vec<_> = (1..=100).map(|ms| call("default", "ok", ms, ms.try_into().unwrap())).collect();
        calls.push(call("default", "rate", 900_000, 200));
        calls.push(call("@acme", "server", 5, 300));
        let lately = Lately::sorted(calls, NOW.plus_ms(-LATELY_MS));
        let view = lately.view(&"openai:gpt-4o:default".into()).unwrap();
        assert_eq!((view.calls, view.failed, view.p50_ms, view.p95_ms), (101, 1, Some(50), Some(95)));
        assert_eq!(view.statuses, [("ok".to_owned(), 100), ("rate".to_owned(), 1)].into());
        assert_eq!(view.since, NOW.plus_ms(-LATELY_MS));
        let own = lately.view(&"openai:gpt-4o:@acme".into()).unwrap();
        assert_eq!((own.calls, own.failed, own.p50_ms), (1, 1, None), "what failed has no time to tell");
        assert_eq!(lately.view(&"openai:gpt-4:default".into()), None);
    }

    #[test]
    fn what_was_not_looked_at_is_not_claimed() {
        let many = (0..RECENT_CALLS_MAX).map(|n| call("default", "ok", 1, n as i64)).collect();
        let lately = Lately::sorted(many, NOW.plus_ms(-LATELY_MS));
        assert_eq!(lately.since, NOW.plus_ms(1 - RECENT_CALLS_MAX as i64));
    }
}
