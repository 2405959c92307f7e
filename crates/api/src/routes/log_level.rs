//! `/v1/log-level`: what every process logs while somebody looks closer.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri},
};
use queue_core::{
    journal::{LOG_FILTER_MAX_BYTES, LogLevel},
    time::{Timestamp, parse_duration},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    app::Shared,
    audit,
    body::{self, SMALL_BODY_MAX_BYTES},
    fields::Fields,
    json,
    params::Params,
    problem::{Document, Problem},
};

/// Longest time for which a level may be set; longer is for whoever configures the processes.
const FOR_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What every process logs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLevel)]
pub(crate) struct LogLevelView {
    /// A level, or parts `target=level`, with commas between them; null: what each process was told at its start.
    #[schema(required)]
    filter: Option<String>,
    /// When each process goes back to its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<Option<LogLevel>> for LogLevelView {
    fn from(level: Option<LogLevel>) -> Self {
        let (filter, until) = level.map(|level| (level.filter, level.until)).unzip();
        Self { filter, until: until.flatten() }
    }
}

/// Sets what every process logs.
#[derive(Debug, Deserialize, ToSchema)]
#[allow(dead_code)] // the schema of what `put` takes apart by hand
pub(crate) struct LogLevelOrder {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or parts `target=level` with commas between them, e.g. `info,worker=debug`;
    /// null: what each process was told at its start.
    #[schema(max_length = 500, required)]
    filter: Option<String>,
    /// After so long each process goes back to its own, e.g. `30m`; at most 7 days. Without it the level holds until another is set.
    #[serde(rename = "for")]
    lasts: Option<String>,
}

/// Shows what every process logs.
#[utoipa::path(get, path = "/v1/log-level", tag = "system", security(("key" = [])),
    responses((status = 200, body = LogLevelView)))]
pub(crate) async fn get(State(app): State<Shared>, uri: Uri) -> Result<Json<LogLevelView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    Ok(Json(now(&app).await?.into()))
}

/// Sets what every process logs. Each hears of it within seconds, one that is started later at its start.
#[utoipa::path(put, path = "/v1/log-level", tag = "system", security(("key" = [])), request_body = LogLevelOrder,
    responses(
    (status = 200, body = LogLevelView),
    (status = 400, body = Document),
    (status = 415, body = Document),
    (status = 422, body = Document),
))]
pub(crate) async fn put(
    State(app): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<LogLevelView>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let body = body::json(&app, &headers, body, SMALL_BODY_MAX_BYTES).await?;
    let mut fields = Fields::default();
    let [filter, lasts] = json::take_apart_with_null(json::utf8(&body)?, &["filter", "for"], &mut fields.errors)?;
    let is_null = filter.is_some_and(|raw| raw.get() == "null");
    if filter.is_none() {
        fields
            .wrong("filter", "is missing: a level such as debug, or null for what each process was told at its start");
    }
    let filter = fields.parsed("filter", filter.filter(|_| !is_null), LogLevel::checked);
    let lasts = fields.parsed("for", lasts.filter(|raw| raw.get() != "null"), read_for);
    if is_null && lasts.is_some() {
        fields.wrong("for", "is for a filter");
    }
    fields.finish()?;
    audit::before(&now(&app).await?);
    let level = filter.map(|filter| LogLevel { filter, until: lasts.map(|lasts| app.now().plus(lasts)) });
    app.api.stores.orders.set_log_level(level.clone()).await?;
    Ok(Json(level.into()))
}

fn read_for(text: &str) -> Result<Duration, String> {
    let lasts = parse_duration(text)?;
    if lasts.is_zero() {
        return Err("is no time at all".to_owned());
    }
    if lasts > FOR_MAX { Err("is longer than 7 days".to_owned()) } else { Ok(lasts) }
}

async fn now(app: &Shared) -> Result<Option<LogLevel>, Problem> {
    let level = app.api.stores.orders.log_level().await?;
    Ok(level.filter(|level| level.holds(&*app.api.stores.clock)))
}

const _: () = assert!(LOG_FILTER_MAX_BYTES == 500, "the schema above says so");
