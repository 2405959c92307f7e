//! What the API shows of targets, in the words of the pages.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::here;
use crate::{
    chart,
    words::{self, Safe},
};

/// A target, as the API shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) target: String,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) credential: String,
    pub(super) paused: bool,
    pub(super) until: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) breaker: Breaker,
    #[serde(flatten)]
    pub(super) standing: Standing,
    pub(super) lately: Option<Lately>,
    pub(super) price: Option<Price>,
}

/// How its breaker stands.
#[derive(Debug, Deserialize)]
pub(super) struct Breaker {
    pub(super) mode: String,
    pub(super) state: Option<String>,
    pub(super) until: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) failed_probes: u32,
    pub(super) probing: bool,
    pub(super) calls: u32,
    pub(super) failures: u32,
}

/// What is left of its limits.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    pub(super) limit: Option<Limit>,
    pub(super) requests: Option<Bucket>,
    pub(super) tokens: Option<Bucket>,
    pub(super) factor: Option<f64>,
    pub(super) blocked_until: Option<String>,
    pub(super) blocked_reason: Option<String>,
    pub(super) tickets: Option<u64>,
    pub(super) pace: Option<u64>,
}

/// One bucket.
#[derive(Debug, Deserialize)]
pub(super) struct Bucket {
    pub(super) level: f64,
    pub(super) per_minute: f64,
    pub(super) full: f64,
}

/// What it may take.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limit {
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) tokens_charged: String,
    pub(super) when_away: String,
    pub(super) concurrency: Option<u64>,
    pub(super) sources: Sources,
}

/// Who says so.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sources {
    pub(super) requests_per_minute: Option<String>,
    pub(super) tokens_per_minute: Option<String>,
    pub(super) tokens_charged: Option<String>,
    pub(super) concurrency: Option<String>,
}

/// Its calls of the last hour.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Lately {
    pub(super) since: String,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) p50_ms: Option<i64>,
    pub(super) p95_ms: Option<i64>,
    pub(super) statuses: BTreeMap<String, u64>,
}

/// What it costs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Price {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) as_of: String,
    pub(super) age_days: Option<i64>,
    pub(super) input_usd_per_million: String,
    pub(super) cached_input_usd_per_million: Option<String>,
    pub(super) output_usd_per_million: String,
    pub(super) per_call_usd: Option<String>,
    pub(super) long_above_tokens: Option<u64>,
}

/// An exhausted account.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub(super) account: String,
    pub(super) state: String,
    pub(super) until: Option<String>,
    pub(super) reason: Option<String>,
}

/// A limit that somebody says.
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) credential: String,
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
    pub(super) tokens_charged: Option<String>,
    pub(super) concurrency: Option<u64>,
    pub(super) source: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    pub(super) targets: Vec<Target>,
    pub(super) accounts: Vec<Account>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Rules {
    pub(super) limits: Vec<Rule>,
}

impl Limit {
    /// Who says a number of it.
    pub(super) fn said(&self, source: &Option<String>) -> &'static str {
        match source.as_deref() {
            Some("set") => "set by an operator",
            Some(_) => "configured",
            None => "",
        }
    }
}

impl Target {
    pub(super) fn href(&self) -> String {
        here(&self.target)
    }

    /// How it is, in a word that is a badge.
    pub(super) fn state(&self) -> &str {
        match self.breaker.state.as_deref() {
            _ if self.paused => "paused",
            Some(state @ ("open" | "half_open")) => state,
            None => "unknown",
            _ if self.standing.blocked_until.is_some() => "parked",
            _ if self.is_penalised() => "penalty",
            _ => "ok",
        }
    }

    /// Whether refusals have taken part of its rates.
    pub(super) fn is_penalised(&self) -> bool {
        self.standing.factor.is_some_and(|factor| factor < 1.0)
    }

    /// What refusals have left of its rates.
    pub(super) fn factor(&self) -> String {
        words::percent(self.standing.factor.unwrap_or(1.0))
    }
}

impl Bucket {
    /// How much of what may go at once is taken, and in words what is left.
    pub(super) fn meter(&self) -> Safe {
        chart::gauge(1.0 - self.level / self.full.max(f64::MIN_POSITIVE), &self.words())
    }

    /// `25 of 35 may go now`; below 0 it is booked ahead.
    fn words(&self) -> String {
        let amount = words::count(self.level.abs().floor() as u64);
        match self.level {
            level if level < 0.0 => format!("{amount} booked ahead"),
            _ => format!("{amount} of {} may go now", words::count(self.full.max(0.0).floor() as u64)),
        }
    }

    /// What flows in.
    pub(super) fn flow(&self) -> String {
        format!("{} a minute flow in", words::count(self.per_minute.max(0.0).floor() as u64))
    }
}

impl Breaker {
    /// That an operator decides.
    pub(super) fn held(&self) -> String {
        format!("held {} by an operator", if self.mode == "open" { "open" } else { "closed" })
    }

    /// Who decides and what it counted.
    pub(super) fn words(&self) -> String {
        let counted = match self.calls {
            0 => "no call in the last 30 s".to_owned(),
            calls => {
                format!("{} of {} failed in the last 30 s", self.failures, words::plural(u64::from(calls), "call"))
            }
        };
        match (self.mode.as_str(), self.state.as_deref()) {
            ("open" | "close", _) => format!("{}; {counted}", self.held()),
            (_, None) => "nobody can be asked at this moment".to_owned(),
            (_, Some("half_open")) if self.probing => "one call tries it now".to_owned(),
            (_, Some("half_open")) => "the next call tries it".to_owned(),
            (_, Some("open")) if self.failed_probes > 0 => {
                format!("{} since it opened; {counted}", words::plural(u64::from(self.failed_probes), "failed try"))
            }
            _ => counted,
        }
    }
}

impl Lately {
    /// What its calls came to: `120 ok, 3 rate`.
    pub(super) fn statuses(&self) -> String {
        let mut told: Vec<_> = self.statuses.iter().collect();
        told.sort_by(|a, b| b.1.cmp(a.1));
        let told: Vec<_> =
            told.into_iter().map(|(status, count)| format!("{} {status}", words::count(count))).collect();
        told.join(", ")
    }

    pub(super) fn failed_share(&self) -> String {
        words::percent(if self.calls == 0 { 0.0 } else { self.failed as f64 / self.calls as f64 })
    }
}

impl Rule {
    pub(super) fn name(&self) -> String {
        format!("{}:{}:{}", self.provider, self.model, self.credential)
    }

    /// Where it can be changed: a target's own page; patterns are set on the list.
    pub(super) fn href(&self) -> Option<String> {
        let is_pattern = self.model.ends_with('*') || self.credential == "*";
        (!is_pattern).then(|| here(&self.name()))
    }

    /// What it allows.
    pub(super) fn words(&self) -> String {
        let told = [
            self.requests_per_minute.map(|limit| format!("{} requests a minute", words::count(limit))),
            self.tokens_per_minute.map(|limit| format!("{} tokens a minute", words::count(limit))),
            self.concurrency.map(|limit| format!("{} at once", words::plural(limit, "job"))),
        ];
        let told: Vec<_> = told.into_iter().flatten().collect();
        if told.is_empty() { "any number".to_owned() } else { told.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn target(rest: Value) -> Target {
        let mut whole = json!({
            "target": "openai:gpt-4o:shared", "provider": "openai", "model": "gpt-4o", "credential": "shared", "paused": false,
            "breaker": { "mode": "auto", "state": "closed", "failed_probes": 0, "probing": false, "calls": 12, "failures": 1 },
        });
        whole.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_target_is_what_keeps_it() {
        let breaker = |state: Value, mode: &str| json!({ "breaker": { "mode": mode, "state": state, "failed_probes": 0, "probing": false, "calls": 0, "failures": 0 } });
        assert_eq!(target(json!({})).state(), "ok");
        assert_eq!(target(json!({ "factor": 0.5 })).state(), "penalty");
        assert_eq!(target(json!({ "factor": 0.5, "blocked_until": "2026-11-30T12:00:00Z" })).state(), "parked");
        assert_eq!(target(breaker(json!("open"), "auto")).state(), "open");
        assert_eq!(target(breaker(Value::Null, "auto")).state(), "unknown");
        assert_eq!(target(json!({ "paused": true })).state(), "paused");
        assert_eq!(target(json!({})).breaker.words(), "1 of 12 calls failed in the last 30 s");
        assert!(target(breaker(json!("open"), "open")).breaker.words().starts_with("held open by an operator"));
    }

    #[test]
    fn buckets_say_what_may_go_or_what_is_owed() {
        let bucket = Bucket { level: 25.9, per_minute: 480.0, full: 40.0 };
        assert_eq!((bucket.words(), bucket.flow()), ("25 of 40 may go now".into(), "480 a minute flow in".into()));
        let owed = Bucket { level: -2_000.5, per_minute: 60.0, full: 5.0 };
        assert_eq!(owed.words(), "2,000 booked ahead");
        let meter = |bucket: &Bucket| bucket.meter().to_string();
        assert!(meter(&bucket).contains("width=\"35.2\""), "{}", meter(&bucket));
        assert!(meter(&owed).contains("width=\"100.0\""), "{}", meter(&owed));
        assert!(meter(&Bucket { level: 0.0, per_minute: 0.0, full: 0.0 }).contains("0 of 0 may go now"));
    }

    #[test]
    fn patterns_have_no_page_of_their_own() {
        let rule = |model: &str, credential: &str| Rule {
            provider: "openai".into(),
            model: model.into(),
            credential: credential.into(),
            requests_per_minute: Some(500),
            tokens_per_minute: None,
            tokens_charged: None,
            concurrency: Some(1),
            source: "set".into(),
        };
        assert_eq!(rule("gpt-4*", "*").href(), None);
        assert_eq!(rule("gpt-4o", "*").href(), None);
        assert_eq!(rule("a/b", "shared").href().as_deref(), Some("/dashboard/targets/openai:a%2Fb:shared"));
        assert_eq!(rule("gpt-4o", "*").words(), "500 requests a minute, 1 job at once");
    }

    #[test]
    fn outcomes_are_told_the_most_frequent_first() {
        let lately = Lately {
            calls: 123,
            failed: 3,
            statuses: BTreeMap::from([("rate".into(), 3), ("ok".into(), 120)]),
            ..Lately::default()
        };
        assert_eq!((lately.statuses(), lately.failed_share()), ("120 ok, 3 rate".into(), "2.4 %".into()));
    }
}
