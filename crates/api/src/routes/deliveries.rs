//! Deliveries of webhooks: what was sent to whom, what they answered, and sending it again.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
};
use queue_core::{
    ids::{JobId, Name},
    time::Timestamp,
    webhooks::{AttemptView, DELIVERIES_PAGE_MAX, Delivery, DeliveryState, EventKind, Listing},
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::webhooks::{EventWord, IdPath};
use crate::{
    app::{App, Shared},
    params::Params,
    problem::{Cause, Document, Problem},
};

/// Pages of the journal that one page of a narrowed list looks through: what lies behind has a cursor.
const PAGES_MAX: usize = 20;

/// One event for one receiver.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryView {
    /// Its id; its message's `webhook-id` is `msg_` and the same without hyphens.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// The endpoint; the URL is the job's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    webhook: Option<Uuid>,
    /// Where it goes; absent where the endpoint is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Whose event; the installation's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<Name>,
    /// What happened.
    #[schema(value_type = EventWord)]
    event: EventKind,
    /// The job that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    job: Option<JobId>,
    /// When it happened.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `pending`, `delivered`, `failed` (given up after about a day) or `dropped` (the receiver is off or gone).
    #[schema(value_type = DeliveryStateWord)]
    state: DeliveryState,
    /// Attempts so far.
    attempts: u32,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// What the last attempt came to: a status, or what was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

/// How a delivery stands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DeliveryState)]
#[allow(dead_code)] // schema of `queue_core::webhooks::DeliveryState`
pub(crate) enum DeliveryStateWord {
    Pending,
    Delivered,
    Failed,
    Dropped,
}

impl DeliveryView {
    fn of(delivery: Delivery) -> Self {
        let is_pending = delivery.state == DeliveryState::Pending;
        let Delivery { id, endpoint, url, tenant, event, job, at, state, attempts, due_at, last, .. } = delivery;
        let next_attempt_at = is_pending.then_some(due_at);
        Self { id, webhook: endpoint, url, tenant, event, job, at, state, attempts, next_attempt_at, last }
    }
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryPage {
    /// Newest first.
    deliveries: Vec<DeliveryView>,
    /// Where the next page begins; absent on the last one. A page of a narrowed list may be short, and still have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Lists deliveries of the last 7 days, newest first.
#[utoipa::path(get, path = "/v1/webhook-deliveries", tag = "webhooks", security(("key" = [])), params(
    ("webhook" = Option<String>, Query, description = "to this endpoint"),
    ("job" = Option<String>, Query, description = "about this job"),
    ("tenant" = Option<String>, Query, description = "of this tenant"),
    ("state" = Option<DeliveryStateWord>, Query, description = "that stand so"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = DeliveryPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<DeliveryPage>, Problem> {
    let mut params = Params::of(&uri, &["webhook", "job", "tenant", "state", "cursor", "limit"])?;
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| "is not an id, which is a UUID".to_owned());
    let (webhook, job) = (params.parsed("webhook", id), params.parsed("job", id));
    let tenant = params.parsed("tenant", Name::checked);
    let state = params.parsed("state", |word| {
        DeliveryState::parse(word).ok_or_else(|| "is pending, delivered, failed or dropped".to_owned())
    });
    let before = params.parsed("cursor", |text| {
        let place = text.strip_prefix('d').and_then(|digits| digits.parse().ok()).filter(|place| *place > 0);
        place.ok_or_else(|| "is not a cursor; give the `next_cursor` of the page before".to_owned())
    });
    let limit = params.limit();
    if webhook.is_some() && job.is_some() {
        params.wrong("job", "cannot stand beside `webhook`");
    }
    params.finish()?;
    let of = match (webhook, job) {
        (Some(id), _) => Listing::Endpoint(id),
        (None, Some(id)) => Listing::Job(JobId(id)),
        (None, None) => Listing::All,
    };
    let wanted = |one: &Delivery| {
        state.is_none_or(|state| one.state == state)
            && tenant.as_ref().is_none_or(|tenant| one.tenant.as_ref() == Some(tenant))
    };
    let (deliveries, next) = page(&app, of, before.unwrap_or(i64::MAX), limit, wanted).await?;
    Ok(Json(DeliveryPage {
        deliveries: deliveries.into_iter().map(DeliveryView::of).collect(),
        next_cursor: next.map(|place| format!("d{place}")),
    }))
}

/// Up to `limit` deliveries that are wanted, and where to go on.
async fn page(
    app: &App,
    of: Listing,
    mut before: i64,
    limit: usize,
    wanted: impl Fn(&Delivery) -> bool,
) -> Result<(Vec<Delivery>, Option<i64>), Problem> {
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let rows = app.api.stores.webhooks.deliveries(of, before, DELIVERIES_PAGE_MAX).await?;
        let is_last = rows.len() < DELIVERIES_PAGE_MAX;
        for row in rows {
            if found.len() == limit {
                return Ok((found, Some(before)));
            }
            before = row.seq;
            if wanted(&row) {
                found.push(row);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, Some(before)))
}

/// An attempt of a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryAttempt {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// How long it took, in milliseconds.
    duration_ms: i64,
    /// The answer's status; absent where there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The first 1,024 bytes of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A delivery with its message and its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryDetail {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// The message, once it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The last 100 attempts, oldest first.
    history: Vec<DeliveryAttempt>,
}

async fn find(app: &App, id: Uuid) -> Result<Delivery, Problem> {
    let found = app.api.stores.webhooks.deliveries(Listing::One(id), i64::MAX, 1).await?.pop();
    found.ok_or_else(|| Problem::new(Cause::NotFound, format!("no delivery has the id {}", id.hyphenated())))
}

/// Shows a delivery: its message, and what each attempt came to.
#[utoipa::path(get, path = "/v1/webhook-deliveries/{id}", tag = "webhooks", security(("key" = [])), params(
    ("id" = String, Path, description = "the delivery"),
), responses((status = 200, body = DeliveryDetail), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn get(
    State(app): State<Shared>,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<Json<DeliveryDetail>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let mut delivery = find(&app, id).await?;
    let attempts = app.api.stores.webhooks.delivery_attempts(delivery.seq).await?;
    let shown = |AttemptView { at, duration_ms, status, answer, error }| DeliveryAttempt {
        at,
        duration_ms,
        status,
        answer,
        error,
    };
    let body = delivery.body.take();
    let history = attempts.into_iter().map(shown).collect();
    Ok(Json(DeliveryDetail { delivery: DeliveryView::of(delivery), body, history }))
}

/// Sends a delivery again: the same message with the same `webhook-id`, at once, and if need be for another day.
#[utoipa::path(post, path = "/v1/webhook-deliveries/{id}/replay", tag = "webhooks", security(("key" = [])), params(
    ("id" = String, Path, description = "the delivery"),
), responses((status = 202, body = DeliveryView), (status = 404, body = Document), (status = 422, body = Document)))]
pub(crate) async fn replay(
    State(app): State<Shared>,
    IdPath(id): IdPath,
    uri: Uri,
) -> Result<(StatusCode, Json<DeliveryView>), Problem> {
    Params::of(&uri, &[])?.finish()?;
    if !app.api.stores.webhooks.replay_delivery(id, app.now()).await? {
        return Err(Problem::new(Cause::NotFound, format!("no delivery has the id {}", id.hyphenated())));
    }
    Ok((StatusCode::ACCEPTED, Json(DeliveryView::of(find(&app, id).await?))))
}
