//! `/v1/limits`: what targets may take, who says so, how they stand, and setting it while everything runs.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use queue_core::{
    dispatcher::Setting,
    journal::{TargetSettings, Versioned},
    limiter::{self, Away, BURST_MS, Charges, Limit, Limits, RATE_MAX, SetLimit, Standing, Unavailable},
    route::{CUSTOM, Target, is_no_provider},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    audit, body,
    fields::Fields,
    json,
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
    routes::targets::{BODY_MAX_BYTES, with_known_provider},
    settings::{check_tag, tag_of},
};

/// What a target may take, and how it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub(crate) struct LimitsView {
    /// `provider:model:credential`.
    target: String,
    /// Its provider.
    provider: String,
    /// Its model.
    model: String,
    /// Its credential.
    credential: String,
    /// What was set under this very name.
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<SetLimitBody>,
    /// Grows with every change of the target's settings; 0 before the first.
    version: i64,
    /// The rest; absent for a pattern, which stands for several.
    #[serde(flatten)]
    standing: StandingView,
}

/// What is left of a target's limits; nothing is said of a pattern.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Standing)]
pub(crate) struct StandingView {
    /// What holds; absent where nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitView>,
    /// Requests, where they are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<BucketView>,
    /// Tokens, where they are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<BucketView>,
    /// What refusals have left of the rates: 1 is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    /// Until when nobody asks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    blocked_until: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_reason: Option<String>,
    /// Calls that were told to come later and have a place in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    tickets: Option<usize>,
    /// Calls that should be under way at once; absent where nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pace: Option<u32>,
}

/// One bucket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BucketView {
    /// What may go at once; below 0 it is booked ahead, or a debt.
    level: f64,
    /// What flows in per minute now: after refusals, and after what the provider told of itself.
    per_minute: f64,
    /// What may go at once when it is full: that of a few seconds.
    full: f64,
}

/// What a target may take.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
pub(crate) struct LimitView {
    /// Requests per minute; any number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u64>,
    /// Tokens per minute; any number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    /// What the provider counts: `admission` or `usage`.
    tokens_charged: &'static str,
    /// What happens while the limiter's store is away: `open`, `closed` or `local`.
    when_away: &'static str,
    /// Jobs that may run at once; any number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// Who says so.
    sources: SourcesView,
}

/// Where the numbers of a limit come from: `configured`, or `set` by an operator. Absent where nobody says anything.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LimitSources)]
pub(crate) struct SourcesView {
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_charged: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<&'static str>,
}

const CONFIGURED: &str = "configured";
const SET: &str = "set";

/// Where a number comes from.
fn source<T>(set: Option<T>, configured: Option<T>) -> Option<&'static str> {
    set.map(|_| SET).or(configured.map(|_| CONFIGURED))
}

fn word_of(away: Away) -> &'static str {
    match away {
        Away::Open => "open",
        Away::Closed => "closed",
        Away::Local => "local",
    }
}

impl LimitView {
    /// What holds for `target`; `None` where nobody says anything.
    fn of(limits: &Limits, target: &Target) -> Option<Self> {
        let limit = limits.of(target)?;
        let (set, configured) = (limits.set_for(target), limits.configured(target));
        let of_rule = |number: fn(&Limit) -> Option<u64>| configured.and_then(number);
        Some(Self {
            requests_per_minute: limit.requests_per_minute,
            tokens_per_minute: limit.tokens_per_minute,
            tokens_charged: limit.tokens_charged.as_str(),
            when_away: word_of(limit.when_away),
            concurrency: limit.concurrency,
            sources: SourcesView {
                requests_per_minute: source(set.requests_per_minute, of_rule(|rule| rule.requests_per_minute)),
                tokens_per_minute: source(set.tokens_per_minute, of_rule(|rule| rule.tokens_per_minute)),
                tokens_charged: source(set.tokens_charged, configured.map(|rule| rule.tokens_charged)),
                concurrency: source(set.concurrency, configured.and_then(|rule| rule.concurrency)),
            },
        })
    }
}

/// Every limit that anybody says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitList {
    /// Those of the configuration in its order, then those that operators have set, the closest last.
    limits: Vec<RuleView>,
}

/// A limit that holds for each of the targets that it speaks for. What is set stands over what is configured, number by
/// number.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RuleView {
    /// The provider.
    provider: String,
    /// A model, or a prefix of models followed by `*`. The closest one speaks for a target.
    model: String,
    /// The credential, or `*` for every one.
    credential: String,
    /// Requests per minute; where it is absent in a configured limit, any number, and in a set one, what is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u64>,
    /// Tokens per minute, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_per_minute: Option<u64>,
    /// What the provider counts: `admission` or `usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_charged: Option<&'static str>,
    /// What happens while the limiter's store is away: `open`, `closed` or `local`.
    #[serde(skip_serializing_if = "Option::is_none")]
    when_away: Option<&'static str>,
    /// Jobs that may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// Who says so: `configured`, or `set` by an operator.
    #[schema(example = "configured")]
    source: &'static str,
}

/// What holds now, for a process that others may have set something behind.
async fn in_force(app: &App) -> Result<Arc<Limits>, Problem> {
    app.api.limits.learn(&app.api.stores.catalog.targets().await?);
    Ok(app.api.limits.now())
}

/// Lists every limit that anybody says.
#[utoipa::path(get, path = "/v1/limits", tag = "queues", security(("key" = [])),
    responses((status = 200, body = LimitList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<LimitList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let limits = in_force(&app).await?;
    let configured = limits.rules().iter().map(|rule| RuleView {
        provider: rule.provider.clone(),
        model: rule.model.clone(),
        credential: "*".to_owned(),
        requests_per_minute: rule.limit.requests_per_minute,
        tokens_per_minute: rule.limit.tokens_per_minute,
        tokens_charged: Some(rule.limit.tokens_charged.as_str()),
        when_away: Some(word_of(rule.limit.when_away)),
        concurrency: rule.limit.concurrency,
        source: CONFIGURED,
    });
    let set = limits.set().iter().map(|(whom, limit)| RuleView {
        provider: whom.provider.to_string(),
        model: whom.model.to_string(),
        credential: whom.credential.to_string(),
        requests_per_minute: limit.requests_per_minute,
        tokens_per_minute: limit.tokens_per_minute,
        tokens_charged: limit.tokens_charged.map(Charges::as_str),
        when_away: None,
        concurrency: limit.concurrency,
        source: SET,
    });
    Ok(Json(LimitList { limits: configured.chain(set).collect() }))
}

/// Shows the limit of one target and how it stands, or what is set for a pattern.
#[utoipa::path(get, path = "/v1/limits/{target}", tag = "queues", security(("key" = [])), params(
    ("target" = String, Path, description = "the target: `provider:model:credential`, or a pattern: `provider:gpt-4*:*`"),
), responses((status = 200, body = LimitsView), (status = 404, body = Document), (status = 503, body = Document)))]
pub(crate) async fn get(State(app): State<Shared>, Segment(name): Segment, uri: Uri) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let known = |target: &Target| {
        is_no_provider(&target.provider) || app.api.routes.routes.iter().any(|route| route.provider == target.provider)
    };
    let target = Target::parse(&name).filter(known).ok_or_else(|| {
        Problem::new(Cause::NotFound, "there is no such target").at(
            "/path/target",
            "is not `provider:model:credential` with a configured provider, e.g. openai:gpt-4o:default",
        )
    })?;
    show(&app, &target).await
}

async fn show(app: &App, target: &Target) -> Result<Response, Problem> {
    let mut settings = app.api.stores.catalog.targets().await?;
    app.api.limits.learn(&settings);
    let name = target.name();
    let (version, own) = settings.remove(&name).map_or((0, SetLimit::default()), |of| (of.version, of.value.limit));
    let standing = match target.is_pattern() {
        true => StandingView::default(),
        false => standing(app, &app.api.limits.now(), target).await.map_err(unavailable)?,
    };
    let view = LimitsView {
        target: name.to_string(),
        provider: target.provider.to_string(),
        model: target.model.to_string(),
        credential: target.credential.to_string(),
        set: (!own.is_empty()).then(|| SetLimitBody::from(own)),
        version,
        standing,
    };
    Ok((StatusCode::OK, [(header::ETAG, tag_of(version))], Json(view)).into_response())
}

/// What is set of a target's limit. What is absent is as configured.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = SetLimit)]
pub(crate) struct SetLimitBody {
    /// Requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    requests_per_minute: Option<u64>,
    /// Tokens per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    tokens_per_minute: Option<u64>,
    /// What the provider counts: what a request may use (`admission`), or what it used (`usage`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "admission")]
    tokens_charged: Option<String>,
    /// Jobs that may run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    concurrency: Option<u32>,
}

impl From<SetLimit> for SetLimitBody {
    fn from(limit: SetLimit) -> Self {
        Self {
            requests_per_minute: limit.requests_per_minute,
            tokens_per_minute: limit.tokens_per_minute,
            tokens_charged: limit.tokens_charged.map(|charges| charges.as_str().to_owned()),
            concurrency: limit.concurrency,
        }
    }
}

/// Sets what a target, or each target of a pattern, may take instead of what is configured. Replaces what was set before; an
/// empty object takes it away. Every worker hears of it within seconds, and it outlives restarts.
#[utoipa::path(put, path = "/v1/limits/{target}", tag = "queues", security(("key" = [])), request_body = SetLimitBody,
    params(
    ("target" = String, Path, description = "`provider:model:credential`, or a pattern: `provider:gpt-4*:*`, `provider:*:*`"),
    ("If-Match" = Option<String>, Header, description = "`ETag` of the limit: refused if the target was changed since"),
), responses(
    (status = 200, body = LimitsView),
    (status = 412, description = "it was changed since it was read", body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put(
    State(app): State<Shared>,
    Segment(name): Segment,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let target = settable(&app, &name)?;
    let body = body::json(&app, &headers, body, BODY_MAX_BYTES).await?;
    let limit = read(json::utf8(&body)?)?;
    if target.provider == CUSTOM.into() && limit != (SetLimit { concurrency: limit.concurrency, ..SetLimit::default() })
    {
        // The handlers are programs of others, which no limiter stands before.
        let reason = "of a handler of one's own only `concurrency` can be limited";
        return Err(Problem::field("/requests_per_minute", reason));
    }
    let task = {
        let (app, target) = (app.clone(), target.clone());
        // In a task of its own: a caller that hangs up must not leave journal and dispatcher apart.
        audit::spawn(async move {
            let _one_at_a_time = app.settings_edits.lock().await;
            let name = target.name();
            let held = app.api.stores.catalog.targets().await?.remove(&name);
            let Versioned { version, value } =
                held.unwrap_or(Versioned { version: 0, value: TargetSettings::default() });
            check_tag(&headers, version, "limit")?;
            audit::before(&value.limit);
            let jobs_before = value.limit.concurrency;
            app.api.stores.catalog.set_target(&name, TargetSettings { limit, ..value }).await?;
            tell(&app, &target, limit.concurrency, jobs_before).await
        })
    };
    task.await.map_err(|error| Problem::new(Cause::Internal, error.to_string()))??;
    show(&app, &target).await
}

/// Tells everybody what was set. Workers that are told nothing read it, and the reconciler tells the dispatcher what it missed.
async fn tell(app: &App, target: &Target, jobs: Option<u32>, jobs_before: Option<u32>) -> Result<(), Problem> {
    let (api, lanes) = (&app.api, target.lanes());
    if jobs != jobs_before {
        let jobs = jobs.or_else(|| api.limits.configured_jobs(&lanes));
        if let Err(error) = api.stores.dispatcher.apply(Setting::TargetConcurrency(lanes, jobs)).await {
            tracing::warn!(%error, target = %target.name(), "the dispatcher gets the target's limit from the reconciler");
        }
    }
    let before = api.limits.now();
    let now = in_force(app).await?;
    if let Err(error) = limiter::follow(&*api.limiter, &*api.stores.dispatcher, &before, &now).await {
        tracing::warn!(%error, "jobs that wait for the old limit hear of the new one from their workers");
    }
    Ok(())
}

/// The target or the pattern of that name, as far as a limit can be set for it.
fn settable(app: &App, text: &str) -> Result<Target, Problem> {
    let target = with_known_provider(app, text)?;
    let wrong = |reason: &str| Err(Problem::field("/path/target", reason));
    let (model, credential) = (target.model.as_str(), target.credential.as_str());
    if model.trim_end_matches('*').contains('*')
        || model.ends_with("**")
        || credential.len() > 1 && credential.contains('*')
    {
        return wrong("has a `*` elsewhere than at the end of the model, or instead of the whole credential");
    }
    if model.ends_with('*') && !target.speaks_for_all_credentials() {
        return wrong(
            "names several models of one credential; a pattern of models speaks for all of them: end it in `:*`",
        );
    }
    Ok(target)
}

fn read(text: &str) -> Result<SetLimit, Problem> {
    const KNOWN: [&str; 4] = ["requests_per_minute", "tokens_per_minute", "tokens_charged", "concurrency"];
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [requests, tokens, charged, jobs] = json::take_apart(text, &KNOWN, &mut fields.errors)?;
    let limit = SetLimit {
        requests_per_minute: fields.whole(KNOWN[0], requests, 1..=RATE_MAX),
        tokens_per_minute: fields.whole(KNOWN[1], tokens, 1..=RATE_MAX),
        tokens_charged: fields.parsed(KNOWN[2], charged, |text| {
            Charges::parse(text).ok_or_else(|| format!("`{text}` is neither `admission` nor `usage`"))
        }),
        concurrency: fields.integer(KNOWN[3], jobs, 1..=CONCURRENCY_MAX),
    };
    fields.finish()?;
    Ok(limit)
}

/// Most jobs of a target at once that can be set: more slots than a fleet has.
const CONCURRENCY_MAX: u32 = 1_000_000;

/// How a target stands.
pub(crate) async fn standing(app: &App, limits: &Limits, target: &Target) -> Result<StandingView, Unavailable> {
    let standing = app.api.limiter.standing(target, &limits.of(target).unwrap_or_default()).await?;
    let Standing { requests, tokens, requests_per_minute, tokens_per_minute, factor, blocked, tickets, pace } =
        standing;
    let bucket = |level: Option<f64>, per_minute: Option<f64>| {
        let per_minute = per_minute?;
        let full = rounded(per_minute * BURST_MS / 60_000.0);
        Some(BucketView { level: rounded(level?), per_minute: rounded(per_minute), full })
    };
    let (blocked_until, blocked_reason) = match blocked {
        Some((left_ms, reason)) => {
            let left_ms = i64::try_from(left_ms).unwrap_or(i64::MAX);
            (Some(app.now().plus_ms(left_ms)), Some(reason))
        }
        None => (None, None),
    };
    Ok(StandingView {
        limit: LimitView::of(limits, target),
        requests: bucket(requests, requests_per_minute),
        tokens: bucket(tokens, tokens_per_minute),
        factor: Some(rounded(factor)),
        blocked_until,
        blocked_reason,
        tickets: Some(tickets),
        pace,
    })
}

/// To a thousandth: people read it.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

fn unavailable(error: Unavailable) -> Problem {
    Problem::new(Cause::Unavailable, error.to_string()).retry_after(1)
}
