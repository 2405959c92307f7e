//! `GET /v1/limits` and `GET /v1/limits/{target}`: what targets may take, and how they stand.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    limiter::{Away, Charges, Limit, Standing, Unavailable},
    route::Target,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    params::{Params, Segment},
    problem::{Cause, Document, Problem},
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
    /// The rest.
    #[serde(flatten)]
    standing: StandingView,
}

/// What is left of a target's limits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standing)]
pub(crate) struct StandingView {
    /// What is configured; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitView>,
    /// Requests, where they are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<BucketView>,
    /// Tokens, where they are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<BucketView>,
    /// What refusals have left of the rates: 1 is all.
    factor: f64,
    /// Until when nobody asks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    blocked_until: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_reason: Option<String>,
    /// Calls that were told to come later and have a place in the line.
    tickets: usize,
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
}

impl From<&Limit> for LimitView {
    fn from(limit: &Limit) -> Self {
        Self {
            requests_per_minute: limit.requests_per_minute,
            tokens_per_minute: limit.tokens_per_minute,
            tokens_charged: match limit.tokens_charged {
                Charges::Admission => "admission",
                Charges::Usage => "usage",
            },
            when_away: match limit.when_away {
                Away::Open => "open",
                Away::Closed => "closed",
                Away::Local => "local",
            },
            concurrency: limit.concurrency,
        }
    }
}

/// Every configured limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitList {
    /// In the order of the configuration.
    limits: Vec<RuleView>,
}

/// A configured limit, which holds for each of the targets that it speaks for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RuleView {
    /// The provider.
    provider: String,
    /// A model, or a prefix of models followed by `*`. The closest one speaks for a target.
    model: String,
    /// What each of them may take.
    #[serde(flatten)]
    limit: LimitView,
}

/// Lists every configured limit.
#[utoipa::path(get, path = "/v1/limits", tag = "queues", security(("key" = [])),
    responses((status = 200, body = LimitList)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<LimitList>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let rules = app.api.limits.rules().iter().map(|rule| RuleView {
        provider: rule.provider.clone(),
        model: rule.model.clone(),
        limit: LimitView::from(&rule.limit),
    });
    Ok(Json(LimitList { limits: rules.collect() }))
}

/// Shows the limit of one target, and how it stands.
#[utoipa::path(get, path = "/v1/limits/{target}", tag = "queues", security(("key" = [])), params(
    ("target" = String, Path, description = "the target: `provider:model:credential`"),
), responses((status = 200, body = LimitsView), (status = 404, body = Document), (status = 503, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    Segment(name): Segment,
    uri: Uri,
) -> Result<Json<LimitsView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let known = |target: &Target| app.api.routes.routes.iter().any(|route| route.provider == target.provider);
    let target = Target::parse(&name).filter(known).ok_or_else(|| {
        Problem::new(Cause::NotFound, "there is no such target").at(
            "/path/target",
            "is not `provider:model:credential` with a configured provider, e.g. openai:gpt-4o:default",
        )
    })?;
    Ok(Json(LimitsView {
        standing: standing(&app, &target).await.map_err(unavailable)?,
        target: target.name().to_string(),
        provider: target.provider.to_string(),
        model: target.model.to_string(),
        credential: target.credential.to_string(),
    }))
}

/// How a target stands.
pub(crate) async fn standing(app: &App, target: &Target) -> Result<StandingView, Unavailable> {
    let none = Limit::default();
    let limit = app.api.limits.of(target);
    let standing = app.api.limiter.standing(target, limit.unwrap_or(&none)).await?;
    let Standing { requests, tokens, requests_per_minute, tokens_per_minute, factor, blocked, tickets, pace } =
        standing;
    let bucket = |level: Option<f64>, per_minute: Option<f64>| {
        Some(BucketView { level: rounded(level?), per_minute: rounded(per_minute?) })
    };
    let (blocked_until, blocked_reason) = match blocked {
        Some((left_ms, reason)) => {
            let left_ms = i64::try_from(left_ms).unwrap_or(i64::MAX);
            (Some(app.now().plus_ms(left_ms)), Some(reason))
        }
        None => (None, None),
    };
    Ok(StandingView {
        limit: limit.map(LimitView::from),
        requests: bucket(requests, requests_per_minute),
        tokens: bucket(tokens, tokens_per_minute),
        factor: rounded(factor),
        blocked_until,
        blocked_reason,
        tickets,
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
