//! What targets may take, as operators configure it.

use serde::{Deserialize, Serialize};

use crate::route::Target;

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

/// Every rule. A target that no rule speaks for is not limited and not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    rules: Vec<Rule>,
}

impl Limits {
    /// Of several rules for a target the one with the exact model counts, else the one with the longest prefix.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// What `target` may take; `None` where nobody wants to know.
    pub fn of(&self, target: &Target) -> Option<&Limit> {
        let fits = |rule: &&Rule| {
            rule.provider == target.provider.as_str()
                && match rule.model.strip_suffix('*') {
                    Some(prefix) => target.model.as_str().starts_with(prefix),
                    None => rule.model == target.model.as_str(),
                }
        };
        let weight = |rule: &&Rule| (!rule.model.ends_with('*'), rule.model.len());
        self.rules.iter().filter(fits).max_by_key(weight).map(|rule| &rule.limit)
    }

    /// Every rule.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
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
    fn a_share_is_never_nothing() {
        let limit = Limit { requests_per_minute: Some(3), tokens_per_minute: Some(1_000), ..Limit::default() };
        let share = limit.share(4);
        assert_eq!((share.requests_per_minute, share.tokens_per_minute), (Some(1), Some(250)));
    }
}
