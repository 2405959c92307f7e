//! What targets may take, as operators configure it and as they set it while everything runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    ids::Name,
    journal::{TargetSettings, Versioned},
    route::Target,
};

/// The largest limit that can be set: beyond it, sums of doubles are not exact to a token any more.
pub const RATE_MAX: u64 = 1_000_000_000_000;
/// Above so many tokens a minute, providers also limit how fast the rate grows.
const RAMP_FROM_TOKENS_PER_MINUTE: u64 = 1_000_000;
/// What a cut rate gets back, of the configured one: 0.05 in 10 s, and where the growth is limited 0.5 in 15 minutes.
const RECOVERY_PER_S: f64 = 0.005;
const RECOVERY_RAMPED_PER_S: f64 = 0.5 / 900.0;

/// What a target may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// Requests per minute; `None`: any number.
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute; `None`: any number.
    pub tokens_per_minute: Option<u64>,
    /// What the provider counts as tokens.
    pub tokens_charged: Charges,
    /// What happens while the limiter's store is away.
    pub when_away: Away,
    /// Jobs of the target that may run at once; what [`super::Answer::pace`] never exceeds.
    pub concurrency: Option<u32>,
}

/// What a provider counts as tokens of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charges {
    /// Prompt and `max_tokens`, when it lets the call in, whatever the answer comes to: OpenAI, Azure. Where a request has
    /// no `max_tokens`, what was used.
    #[default]
    Admission,
    /// What was used.
    Usage,
}

impl Charges {
    /// The word of configuration, API and journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Usage => "usage",
        }
    }

    /// What this word says.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Admission, Self::Usage].into_iter().find(|charges| charges.as_str() == word)
    }
}

/// What happens while the limiter's store is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Away {
    /// Calls go on without a limit.
    Open,
    /// Calls wait.
    Closed,
    /// Each worker goes on by itself with its share of the limit, for a minute; then calls wait.
    #[default]
    Local,
}

impl Limit {
    /// Whether there is anything to count.
    pub fn has_buckets(&self) -> bool {
        self.requests_per_minute.is_some() || self.tokens_per_minute.is_some()
    }

    /// Requests and tokens per second; 0: no bucket.
    pub(super) fn rates(&self) -> [f64; 2] {
        [self.requests_per_minute, self.tokens_per_minute].map(|rate| rate.unwrap_or(0) as f64 / 60.0)
    }

    /// What a cut rate gets back in a second, of the configured one.
    pub(super) fn recovery_per_s(&self) -> f64 {
        match self.tokens_per_minute {
            Some(tokens) if tokens > RAMP_FROM_TOKENS_PER_MINUTE => RECOVERY_RAMPED_PER_S,
            _ => RECOVERY_PER_S,
        }
    }

    /// Whether this lets calls go that `other` would not.
    pub(super) fn lets_more_than(&self, other: &Self) -> bool {
        let more = |now: Option<u64>, before: Option<u64>| match (now, before) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(now), Some(before)) => now > before,
        };
        more(self.requests_per_minute, other.requests_per_minute)
            || more(self.tokens_per_minute, other.tokens_per_minute)
    }

    /// The same limit for one of `workers`.
    pub(super) fn share(&self, workers: usize) -> Self {
        let part = |rate: u64| (rate / workers.max(1) as u64).max(1);
        Self {
            requests_per_minute: self.requests_per_minute.map(part),
            tokens_per_minute: self.tokens_per_minute.map(part),
            ..self.clone()
        }
    }
}

/// What targets of one provider may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The provider's name.
    pub provider: String,
    /// The model, or a prefix of models followed by `*`; `*` alone speaks for every model.
    pub model: String,
    /// What each target that it speaks for may take: not all of them together.
    pub limit: Limit,
}

/// What operators set of a limit while everything runs; what is `None` is as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetLimit {
    /// See [`Limit::requests_per_minute`].
    pub requests_per_minute: Option<u64>,
    /// See [`Limit::tokens_per_minute`].
    pub tokens_per_minute: Option<u64>,
    /// See [`Limit::tokens_charged`].
    pub tokens_charged: Option<Charges>,
    /// See [`Limit::concurrency`].
    pub concurrency: Option<u32>,
}

impl SetLimit {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What this says, and where it says nothing, what `other` does.
    fn or(self, other: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            tokens_charged: self.tokens_charged.or(other.tokens_charged),
            concurrency: self.concurrency.or(other.concurrency),
        }
    }

    fn over(self, configured: &Limit) -> Limit {
        Limit {
            requests_per_minute: self.requests_per_minute.or(configured.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(configured.tokens_per_minute),
            tokens_charged: self.tokens_charged.unwrap_or(configured.tokens_charged),
            when_away: configured.when_away,
            concurrency: self.concurrency.or(configured.concurrency),
        }
    }
}

/// Whether `model` is the one that `pattern` names, or begins as it does where it ends in `*`.
fn names(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => model.starts_with(prefix),
        None => pattern == model,
    }
}

/// Every rule, and what operators have set over them. A target that neither speaks for is not limited and not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    rules: Vec<Rule>,
    /// The closest last.
    set: Vec<(Target, SetLimit)>,
}

impl Limits {
    /// Of several rules for a target the one with the exact model counts, else the one with the longest prefix.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, set: Vec::new() }
    }

    /// The same rules under what operators have set. Of several settings for a target the closest counts that says
    /// something: the exact model before the longest prefix, its own credential before `*`.
    #[must_use]
    pub fn under(&self, settings: &BTreeMap<Name, Versioned<TargetSettings>>) -> Self {
        let limited = settings.iter().filter(|(_, settings)| !settings.value.limit.is_empty());
        let mut set: Vec<_> = limited
            .filter_map(|(name, settings)| Some((Target::parse(name.as_str())?, settings.value.limit)))
            .collect();
        set.sort_by_key(|(whom, _)| {
            let model = whom.model.as_str();
            (!model.ends_with('*'), model.len(), !whom.speaks_for_all_credentials())
        });
        Self { rules: self.rules.clone(), set }
    }

    /// What `target` may take; `None` where nobody wants to know.
    pub fn of(&self, target: &Target) -> Option<Limit> {
        let (configured, set) = (self.configured(target), self.set_for(target));
        match configured {
            None if set.is_empty() => None,
            configured => Some(set.over(configured.unwrap_or(&Limit::default()))),
        }
    }

    /// What the configuration says of `target`.
    pub fn configured(&self, target: &Target) -> Option<&Limit> {
        let fits =
            |rule: &&Rule| rule.provider == target.provider.as_str() && names(&rule.model, target.model.as_str());
        let weight = |rule: &&Rule| (!rule.model.ends_with('*'), rule.model.len());
        self.rules.iter().filter(fits).max_by_key(weight).map(|rule| &rule.limit)
    }

    /// What operators have set for `target`, by its own name or by a pattern.
    pub fn set_for(&self, target: &Target) -> SetLimit {
        let fits = |whom: &Target| {
            whom.provider == target.provider
                && names(whom.model.as_str(), target.model.as_str())
                && (whom.speaks_for_all_credentials() || whom.credential == target.credential)
        };
        let fitting = self.set.iter().rev().filter(|(whom, _)| fits(whom));
        fitting.fold(SetLimit::default(), |closer, (_, limit)| closer.or(*limit))
    }

    /// Whether how many jobs of `target` run at once is said for it by name, and not for those of a pattern.
    pub fn has_own_concurrency(&self, target: &Target) -> bool {
        let is_named = |rule: &Rule| rule.provider == target.provider.as_str() && rule.model == target.model.as_str();
        self.set.iter().any(|(whom, limit)| whom == target && limit.concurrency.is_some())
            || self.rules.iter().any(|rule| is_named(rule) && rule.limit.concurrency.is_some())
    }

    /// Every rule of the configuration.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What operators have set, the closest last.
    pub fn set(&self) -> &[(Target, SetLimit)] {
        &self.set
    }
}

/// The limits that hold in this process now.
#[derive(Debug, Default)]
pub struct InForce {
    /// As configured.
    configured: Limits,
    /// How many jobs of which targets may run at once as long as nobody sets anything, as the dispatcher is told at the
    /// beginning of its life.
    jobs: BTreeMap<Name, u32>,
    now: RwLock<Arc<Limits>>,
    changed: Notify,
}

impl InForce {
    /// What is configured: limits, and how many jobs of which targets may run at once.
    pub fn new(configured: Limits, jobs: BTreeMap<Name, u32>) -> Self {
        let now = RwLock::new(Arc::new(configured.clone()));
        Self { configured, jobs, now, changed: Notify::new() }
    }

    /// What holds now.
    pub fn now(&self) -> Arc<Limits> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what operators have set. Limits that change nothing stay the same `Arc`.
    pub fn learn(&self, settings: &BTreeMap<Name, Versioned<TargetSettings>>) {
        let limits = self.configured.under(settings);
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if **now != limits {
            *now = Arc::new(limits);
            self.changed.notify_one();
        }
    }

    /// Ends when something was learned since it ended last. For one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How many jobs of a target, or of those of a pattern ([`Target::lanes`]), the configuration lets run at once.
    pub fn configured_jobs(&self, lanes: &Name) -> Option<u32> {
        self.jobs.get(lanes).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_rule_speaks_for_a_target() {
        let rule = |provider: &str, model: &str, requests| Rule {
            provider: provider.into(),
            model: model.into(),
            limit: Limit { requests_per_minute: Some(requests), ..Limit::default() },
        };
        let limits =
            Limits::new(vec![rule("a", "*", 1), rule("a", "gpt-4*", 2), rule("a", "gpt-4o", 3), rule("b", "x", 4)]);
        let of = |provider: &str, model: &str| {
            let target = Target { provider: provider.into(), model: model.into(), credential: "default".into() };
            limits.of(&target).and_then(|limit| limit.requests_per_minute)
        };
        assert_eq!(of("a", "o3"), Some(1));
        assert_eq!(of("a", "gpt-4.1"), Some(2));
        assert_eq!(of("a", "gpt-4o"), Some(3));
        assert_eq!(of("b", "x"), Some(4));
        assert_eq!((of("b", "y"), of("c", "x")), (None, None));
    }

    #[test]
    fn what_is_set_stands_over_what_is_configured_number_by_number() {
        let configured = Limit {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(1_000),
            when_away: Away::Open,
            ..Limit::default()
        };
        let rule = Rule { provider: "a".into(), model: "*".into(), limit: configured.clone() };
        let set = |limit| Versioned { version: 1, value: TargetSettings { limit, ..TargetSettings::default() } };
        let requests = |rate| set(SetLimit { requests_per_minute: Some(rate), ..SetLimit::default() });
        let jobs = set(SetLimit { concurrency: Some(3), ..SetLimit::default() });
        let settings = BTreeMap::from([
            ("a:*:*".into(), requests(1)),
            ("a:gpt*:*".into(), requests(2)),
            ("a:gpt-4o:*".into(), requests(3)),
            ("a:gpt-4o:default".into(), jobs),
            ("b:free:default".into(), requests(4)),
            ("a:paused:default".into(), Versioned { version: 7, value: TargetSettings::default() }),
        ]);
        let configured = Limits::new(vec![rule]);
        let limits = configured.under(&settings);
        assert_eq!(limits.set().len(), 5, "a pause is no limit");
        let of = |provider: &str, model: &str, credential: &str| {
            limits.of(&Target { provider: provider.into(), model: model.into(), credential: credential.into() })
        };
        let closest = of("a", "gpt-4o", "default").unwrap();
        assert_eq!((closest.requests_per_minute, closest.concurrency), (Some(3), Some(3)), "each number by itself");
        assert_eq!((closest.tokens_per_minute, closest.when_away), (Some(1_000), Away::Open), "as configured");
        assert_eq!(of("a", "gpt-4o", "acme").unwrap().concurrency, None);
        assert_eq!(of("a", "gpt-5", "acme").unwrap().requests_per_minute, Some(2));
        assert_eq!(of("a", "o3", "acme").unwrap().requests_per_minute, Some(1));
        assert_eq!(of("b", "free", "default").unwrap().requests_per_minute, Some(4), "without a rule, too");
        assert_eq!(of("b", "free", "acme"), None);
    }

    #[test]
    fn what_changes_nothing_is_no_change() {
        let limits = InForce::new(Limits::default(), BTreeMap::new());
        let before = limits.now();
        limits.learn(&BTreeMap::new());
        assert!(Arc::ptr_eq(&before, &limits.now()));
        let limit = SetLimit { concurrency: Some(1), ..SetLimit::default() };
        let value = TargetSettings { limit, ..TargetSettings::default() };
        limits.learn(&BTreeMap::from([("a:b:c".into(), Versioned { version: 1, value })]));
        assert_eq!(limits.now().set().len(), 1);
    }

    #[test]
    fn a_share_is_never_nothing() {
        let limit = Limit { requests_per_minute: Some(3), tokens_per_minute: Some(1_000), ..Limit::default() };
        let share = limit.share(4);
        assert_eq!((share.requests_per_minute, share.tokens_per_minute), (Some(1), Some(250)));
    }
}
