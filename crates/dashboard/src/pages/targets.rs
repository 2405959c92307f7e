//! Targets: what is left of their limits, what refusals have taken, how their breakers stand and why, how fast and how dear they
//! are, and everything that can be done with one.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::Path,
    http::Method,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::filled::{Asked, Filled, code_of, page_with};
use crate::{
    Dashboard, chart,
    client::{Client, Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::Visit,
    words::{self, Safe},
};

/// Fields of the limits form.
const LIMIT_FIELDS: [&str; 6] =
    ["target", "requests_per_minute", "tokens_per_minute", "tokens_charged", "concurrency", "tag"];
/// Fields of a pause.
const PAUSE_FIELDS: [&str; 2] = ["until", "reason"];

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/dashboard/targets", get(list))
        .route("/dashboard/targets/limits", post(limit_pattern))
        .route("/dashboard/targets/{target}", get(show))
        .route("/dashboard/targets/{target}/pause", post(pause))
        .route("/dashboard/targets/{target}/resume", post(resume))
        .route("/dashboard/targets/{target}/breaker", post(breaker))
        .route("/dashboard/targets/{target}/limits", post(limit))
}

/// A target, as the API shows it.
#[derive(Debug, Deserialize)]
struct Target {
    target: String,
    provider: String,
    model: String,
    credential: String,
    paused: bool,
    until: Option<String>,
    reason: Option<String>,
    breaker: Breaker,
    #[serde(flatten)]
    standing: Standing,
    lately: Option<Lately>,
    price: Option<Price>,
}

/// How its breaker stands.
#[derive(Debug, Deserialize)]
struct Breaker {
    mode: String,
    state: Option<String>,
    until: Option<String>,
    reason: Option<String>,
    failed_probes: u32,
    probing: bool,
    calls: u32,
    failures: u32,
}

/// What is left of its limits.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Standing {
    limit: Option<Limit>,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    factor: Option<f64>,
    blocked_until: Option<String>,
    blocked_reason: Option<String>,
    tickets: Option<u64>,
    pace: Option<u64>,
}

/// One bucket.
#[derive(Debug, Deserialize)]
struct Bucket {
    level: f64,
    per_minute: f64,
}

/// What it may take.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limit {
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    tokens_charged: String,
    when_away: String,
    concurrency: Option<u64>,
    sources: Sources,
}

/// Who says so.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sources {
    requests_per_minute: Option<String>,
    tokens_per_minute: Option<String>,
    tokens_charged: Option<String>,
    concurrency: Option<String>,
}

/// Its calls of the last hour.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lately {
    since: String,
    calls: u64,
    failed: u64,
    p50_ms: Option<i64>,
    p95_ms: Option<i64>,
    statuses: BTreeMap<String, u64>,
}

/// What it costs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Price {
    model: String,
    version: String,
    as_of: String,
    age_days: Option<i64>,
    input_usd_per_million: String,
    cached_input_usd_per_million: Option<String>,
    output_usd_per_million: String,
    per_call_usd: Option<String>,
    long_above_tokens: Option<u64>,
}

/// An exhausted account.
#[derive(Debug, Deserialize)]
struct Account {
    account: String,
    state: String,
    until: Option<String>,
    reason: Option<String>,
}

/// A limit that somebody says.
#[derive(Debug, Deserialize)]
struct Rule {
    provider: String,
    model: String,
    credential: String,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    tokens_charged: Option<String>,
    concurrency: Option<u64>,
    source: String,
}

#[derive(Debug, Deserialize)]
struct List {
    targets: Vec<Target>,
    accounts: Vec<Account>,
}

#[derive(Debug, Default, Deserialize)]
struct Rules {
    limits: Vec<Rule>,
}

impl Limit {
    /// Who says a number of it.
    fn said(&self, source: &Option<String>) -> &'static str {
        match source.as_deref() {
            Some("set") => "set by an operator",
            Some(_) => "configured",
            None => "",
        }
    }
}

impl Target {
    fn href(&self) -> String {
        here(&self.target)
    }

    /// How it is, in a word that is a badge.
    fn state(&self) -> &str {
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
    fn is_penalised(&self) -> bool {
        self.standing.factor.is_some_and(|factor| factor < 1.0)
    }

    /// What refusals have left of its rates.
    fn factor(&self) -> String {
        words::percent(self.standing.factor.unwrap_or(1.0))
    }

    fn requests(&self) -> Option<Safe> {
        let limit = self.standing.limit.as_ref().and_then(|limit| limit.requests_per_minute);
        self.standing.requests.as_ref().map(|bucket| bucket.meter(limit, "request"))
    }

    fn tokens(&self) -> Option<Safe> {
        let limit = self.standing.limit.as_ref().and_then(|limit| limit.tokens_per_minute);
        self.standing.tokens.as_ref().map(|bucket| bucket.meter(limit, "token"))
    }
}

impl Bucket {
    /// How much of what may go in a minute is taken, and in words what is left.
    fn meter(&self, per_minute: Option<u64>, what: &str) -> Safe {
        let most = per_minute.map_or(self.per_minute, |limit| limit as f64).max(1.0);
        chart::gauge(1.0 - self.level / most, &self.words(what))
    }

    /// `312 requests may go now, 480 a minute flow in`; below 0 it is booked ahead.
    fn words(&self, what: &str) -> String {
        let flows = format!("{} a minute flow in", words::count(self.per_minute.max(0.0).floor() as u64));
        let amount = words::plural(self.level.abs().floor() as u64, what);
        match self.level {
            level if level < 0.0 => format!("{amount} are booked ahead, {flows}"),
            _ => format!("{amount} may go now, {flows}"),
        }
    }
}

impl Breaker {
    /// Who decides and what it counted.
    fn words(&self) -> String {
        let counted =
            format!("{} of {} failed in the last 30 s", self.failures, words::plural(u64::from(self.calls), "call"));
        match (self.mode.as_str(), self.state.as_deref()) {
            ("open", _) => format!("held open by an operator; {counted}"),
            ("close", _) => format!("held closed by an operator; {counted}"),
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
    fn statuses(&self) -> String {
        let mut told: Vec<_> = self.statuses.iter().collect();
        told.sort_by(|a, b| b.1.cmp(a.1));
        let told: Vec<_> =
            told.into_iter().map(|(status, count)| format!("{} {status}", words::count(count))).collect();
        told.join(", ")
    }

    fn failed_share(&self) -> String {
        words::percent(if self.calls == 0 { 0.0 } else { self.failed as f64 / self.calls as f64 })
    }
}

impl Rule {
    fn name(&self) -> String {
        format!("{}:{}:{}", self.provider, self.model, self.credential)
    }

    /// Where it can be changed: a target's own page; patterns are set on the list.
    fn href(&self) -> Option<String> {
        let is_pattern = self.model.ends_with('*') || self.credential == "*";
        (!is_pattern).then(|| here(&self.name()))
    }

    /// What it allows.
    fn words(&self) -> String {
        let told = [
            self.requests_per_minute.map(|limit| format!("{} requests a minute", words::count(limit))),
            self.tokens_per_minute.map(|limit| format!("{} tokens a minute", words::count(limit))),
            self.concurrency.map(|limit| format!("{} at once", words::plural(limit, "job"))),
        ];
        let told: Vec<_> = told.into_iter().flatten().collect();
        if told.is_empty() { "any number".to_owned() } else { told.join(", ") }
    }
}

fn here(target: &str) -> String {
    path(&["dashboard", "targets", target])
}

#[derive(Template)]
#[template(path = "targets.html")]
struct TargetsPage {
    shell: Shell,
    targets: Vec<Target>,
    accounts: Vec<Account>,
    rules: Vec<Rule>,
    pattern: Filled,
}

async fn list(visit: Visit) -> Result<Response, Refused> {
    let pattern = LIMIT_FIELDS.iter().fold(Filled::new("pattern"), |form, name| form.with(name, ""));
    list_with(visit, pattern).await
}

async fn list_with(visit: Visit, pattern: Filled) -> Result<Response, Refused> {
    let Visit { viewer, client, shell, .. } = visit;
    let List { targets, accounts } = client.get("/v1/targets").await?;
    let rules = match viewer.may("GET /v1/limits") {
        true => client.get::<Rules>("/v1/limits").await?.limits,
        false => vec![],
    };
    Ok(page_with(pattern.code(), shell, |shell| TargetsPage { shell, targets, accounts, rules, pattern }))
}

/// The forms of a target's page.
struct Forms {
    pause: Filled,
    limits: Option<Filled>,
}

impl Default for Forms {
    fn default() -> Self {
        Self { pause: Filled::new("pause"), limits: None }
    }
}

#[derive(Template)]
#[template(path = "target.html")]
struct TargetPage {
    shell: Shell,
    target: Target,
    pause: Filled,
    /// What is set; none while nobody can be asked, or for whom it is not.
    limits: Option<Filled>,
}

impl TargetPage {
    fn pause_at(&self) -> String {
        format!("{}/pause", self.target.href())
    }

    fn jobs_href(&self) -> String {
        let filter = format!("target = {} and state in (ready, scheduled, running)", Value::from(&*self.target.target));
        format!("/dashboard/jobs{}", query(&[("filter", &filter)]))
    }
}

async fn show(visit: Visit, Path(name): Path<String>) -> Result<Response, Refused> {
    page(visit, &name, Forms::default()).await
}

async fn page(visit: Visit, name: &str, forms: Forms) -> Result<Response, Refused> {
    let Visit { viewer, client, shell, .. } = visit;
    let target: Target = client.get(&path(&["v1", "targets", name])).await?;
    let Forms { pause, limits } = forms;
    let limits = match limits {
        None if viewer.may("PUT /v1/limits/{target}") => limits_of(&client, name).await?,
        limits => limits,
    };
    let code = code_of(&[&pause, limits.as_ref().unwrap_or(&pause)]);
    Ok(page_with(code, shell, |shell| TargetPage { shell, target, pause, limits }))
}

/// The form with what is set for exactly this target.
async fn limits_of(client: &Client, name: &str) -> Result<Option<Filled>, Refused> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Set {
        requests_per_minute: Option<u64>,
        tokens_per_minute: Option<u64>,
        tokens_charged: Option<String>,
        concurrency: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Known {
        #[serde(default)]
        set: Set,
        version: i64,
    }
    let Known { set, version } = match client.get(&path(&["v1", "limits", name])).await {
        Ok(known) => known,
        // The limiter's store is away: the page says so at the meters.
        Err(refused) if refused.status == 503 => return Ok(None),
        Err(refused) => return Err(refused),
    };
    let form = Filled::new("limits")
        .with_some("requests_per_minute", set.requests_per_minute)
        .with_some("tokens_per_minute", set.tokens_per_minute)
        .with_some("tokens_charged", set.tokens_charged)
        .with_some("concurrency", set.concurrency)
        .with("tag", format!("\"{version}\""));
    Ok(Some(form))
}

async fn change(posted: &Posted, name: &str, body: &Value) -> Result<(), Refused> {
    posted.visit.client.send(Method::PATCH, &path(&["v1", "targets", name]), Some(body)).await
}

async fn pause(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().with("paused", true).texts(&posted, &["reason"]).moment(&posted, "until").body();
    let reason = posted.required("reason").map(|_| ());
    let answer = match reason {
        Ok(()) => change(&posted, &name, &body).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => Ok(done(&here(&name), Flash::good(format!("{name} is paused: nobody calls it.")))),
        Err(refused) => {
            let pause = Filled::back("pause", &posted, &PAUSE_FIELDS, refused)?;
            page(posted.visit, &name, Forms { pause, ..Forms::default() }).await
        }
    }
}

async fn resume(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    change(&posted, &name, &json!({ "paused": false })).await?;
    Ok(done(&here(&name), Flash::good(format!("{name} may be called again, and its blocks are lifted."))))
}

async fn breaker(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let mode = posted.required("mode")?;
    change(&posted, &name, &json!({ "breaker": mode })).await?;
    let told = match mode {
        "open" => "The breaker is held open: nobody calls the target.",
        "close" => "The breaker is held closed: the target is called, whatever its calls come to.",
        _ => "The breaker is left to the calls.",
    };
    Ok(done(&here(&name), Flash::good(told)))
}

async fn set_limit(posted: &Posted, name: &str) -> Result<(), Refused> {
    let asked = Asked::default()
        .numbers(posted, &["requests_per_minute", "tokens_per_minute", "concurrency"])
        .texts(posted, &["tokens_charged"]);
    let (place, body) = (path(&["v1", "limits", name]), asked.body());
    match posted.text("tag") {
        Some(tag) => posted.visit.client.send_if(Method::PUT, &place, Some(&body), tag).await,
        None => posted.visit.client.send(Method::PUT, &place, Some(&body)).await,
    }
}

async fn limit(Path(name): Path<String>, posted: Posted) -> Result<Response, Refused> {
    match set_limit(&posted, &name).await {
        Ok(()) => Ok(done(&here(&name), Flash::good("The limits are set; every worker hears of it within seconds."))),
        Err(refused) => {
            let limits = Some(Filled::back("limits", &posted, &LIMIT_FIELDS, refused)?);
            page(posted.visit, &name, Forms { limits, ..Forms::default() }).await
        }
    }
}

async fn limit_pattern(posted: Posted) -> Result<Response, Refused> {
    let answer = match posted.required("target") {
        Ok(name) => set_limit(&posted, name).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(()) => {
            Ok(done("/dashboard/targets", Flash::good("The limit is set; every worker hears of it within seconds.")))
        }
        Err(refused) => {
            let pattern = Filled::back("pattern", &posted, &LIMIT_FIELDS, refused)?;
            list_with(posted.visit, pattern).await
        }
    }
}

#[cfg(test)]
mod tests {
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
        let bucket = Bucket { level: 312.9, per_minute: 480.0 };
        assert_eq!(bucket.words("request"), "312 requests may go now, 480 a minute flow in");
        let owed = Bucket { level: -20.5, per_minute: 60.0 };
        assert_eq!(owed.words("token"), "20 tokens are booked ahead, 60 a minute flow in");
        let meter = bucket.meter(Some(500), "request").to_string();
        assert!(meter.contains("width=\"37.4\""), "{meter}");
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
