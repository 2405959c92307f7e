//! The audit log, with what it takes to check it.

use axum::{Json, extract::State, http::Uri};
use queue_core::{
    audit::{AUDIT_PAGE_MAX, AuditEntry, AuditFloor, AuditHead, AuditPlace, AuditRow},
    hex,
    time::Timestamp,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    params::Params,
    problem::{Document, Problem},
};

/// Pages of the journal that one page of a narrowed list looks through: what lies behind has a cursor.
const PAGES_MAX: usize = 20;
/// Longest word that rows are narrowed by.
const WORD_MAX_BYTES: usize = 256;

/// A row of the audit log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditRow)]
pub(crate) struct AuditView {
    /// The UTC day, counted from 1970, under which it is numbered.
    day: i32,
    /// Its number within the day.
    seq: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The public part of the key that was used, or claimed.
    actor: Option<String>,
    /// Its role; `null` where nobody knows who it was.
    role: Option<String>,
    /// Its tenant.
    tenant: Option<String>,
    /// From where: a network of 24 or 48 bits.
    address: Option<String>,
    /// Method and route.
    #[schema(example = "PATCH /v1/queues/{queue}")]
    action: String,
    /// Path and query.
    subject: String,
    /// The answer's status.
    status: u16,
    /// What was asked, how it stood before, what the answer was: without secrets and contents.
    #[schema(value_type = Object)]
    detail: Box<RawValue>,
    /// The same, to the letter: what the hash is over.
    detail_text: String,
    /// The request.
    request_id: String,
    /// The hash of the row before it, in hexadecimal.
    prev: String,
    /// Its own.
    hash: String,
}

/// The end of a day's rows.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditHead)]
pub(crate) struct AuditHeadView {
    /// The UTC day, counted from 1970.
    day: i32,
    /// The number of its last row.
    seq: i64,
    /// That row's hash, in hexadecimal.
    hash: String,
}

/// A page of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditPage {
    /// In the order that was asked for.
    rows: Vec<AuditView>,
    /// Where the next page begins; absent on the last one. A page of a narrowed list may be short, and still have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The ends of the log's days.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditHeads {
    /// Newest first: the first is the end of the whole log.
    heads: Vec<AuditHeadView>,
    /// The row behind which the log begins, where its beginning was taken out for its age.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<AuditFloorView>,
}

/// Up to where the log was taken out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditFloor)]
pub(crate) struct AuditFloorView {
    /// The UTC day of the last row that is gone, counted from 1970.
    day: i32,
    /// Its number.
    seq: i64,
    /// Its hash, in hexadecimal.
    hash: String,
    /// How many rows are gone.
    rows: u64,
    /// The last object that they were written to.
    path: String,
    /// The SHA-256 of that object, in hexadecimal.
    sha256: String,
    /// When they were taken out.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<AuditFloor> for AuditFloorView {
    fn from(floor: AuditFloor) -> Self {
        let AuditFloor { head: AuditHead { day, seq, hash }, rows, path, sha256, at } = floor;
        Self { day, seq, hash: hex::of(&hash), rows, path, sha256: hex::of(&sha256), at }
    }
}

impl AuditView {
    fn of(row: AuditRow) -> Self {
        let AuditRow { day, seq, entry, prev, hash } = row;
        let AuditEntry { at, actor, role, tenant, address, action, subject, status, detail, request_id } = entry;
        // Somebody may have changed it to what is no JSON: the text tells.
        let parsed = RawValue::from_string(detail.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            day,
            seq,
            at,
            actor,
            role,
            tenant,
            address,
            action,
            subject,
            status,
            detail: parsed,
            detail_text: detail,
            request_id,
            prev: hex::of(&prev),
            hash: hex::of(&hash),
        }
    }
}

/// What rows are narrowed by.
struct Wanted {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    actor: Option<String>,
    tenant: Option<String>,
    action: Option<String>,
    status: Option<u16>,
}

impl Wanted {
    fn holds(&self, entry: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
            && is(&self.actor, &entry.actor)
            && is(&self.tenant, &entry.tenant)
            && self.action.as_ref().is_none_or(|word| entry.action.contains(word.as_str()))
            && self.status.is_none_or(|status| entry.status == status)
    }
}

fn parse_cursor(text: &str) -> Option<(i32, i64)> {
    let (day, seq) = text.strip_prefix('a')?.split_once('.')?;
    Some((day.parse().ok()?, seq.parse().ok()?))
}

/// Lists what was done by whom, newest first unless asked otherwise.
#[utoipa::path(get, path = "/v1/audit", tag = "audit", security(("key" = [])), params(
    ("since" = Option<String>, Query, description = "at or after: RFC 3339, or a duration back such as `7d`"),
    ("until" = Option<String>, Query, description = "before: RFC 3339, or a duration back"),
    ("actor" = Option<String>, Query, description = "by this key, by its public part"),
    ("tenant" = Option<String>, Query, description = "by keys of this tenant"),
    ("action" = Option<String>, Query, description = "whose method and route contain this"),
    ("status" = Option<u16>, Query, description = "that were answered so"),
    ("order" = Option<String>, Query, description = "`desc` (newest first, the usual one) or `asc`"),
    ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ("limit" = Option<u32>, Query, description = "1 to 500, default 50"),
), responses((status = 200, body = AuditPage), (status = 422, body = Document)))]
pub(crate) async fn list(State(app): State<Shared>, uri: Uri) -> Result<Json<AuditPage>, Problem> {
    let known = ["since", "until", "actor", "tenant", "action", "status", "order", "cursor", "limit"];
    let mut params = Params::of(&uri, &known)?;
    let now = app.now();
    let wanted = Wanted {
        since: params.past("since", now),
        until: params.past("until", now),
        actor: params.label("actor", WORD_MAX_BYTES),
        tenant: params.label("tenant", WORD_MAX_BYTES),
        action: params.label("action", WORD_MAX_BYTES),
        status: params.parsed("status", |text| {
            text.parse().ok().filter(|status| (100..600).contains(status)).ok_or("is no HTTP status".to_owned())
        }),
    };
    let ascending = params.parsed("order", |word| match word {
        "asc" => Ok(true),
        "desc" => Ok(false),
        _ => Err("is asc or desc".to_owned()),
    });
    let cursor = params.parsed("cursor", |text| {
        parse_cursor(text).ok_or_else(|| "is not a cursor; give the `next_cursor` of the page before".to_owned())
    });
    let limit = params.limit();
    params.finish()?;
    let ascending = ascending.unwrap_or(false);
    let first = if ascending { (i32::MIN, 0) } else { (i32::MAX, i64::MAX) };
    let place = AuditPlace { behind: cursor.unwrap_or(first), ascending };
    let (rows, next) = page(&app, place, limit, &wanted).await?;
    Ok(Json(AuditPage {
        rows: rows.into_iter().map(AuditView::of).collect(),
        next_cursor: next.map(|(day, seq)| format!("a{day}.{seq}")),
    }))
}

/// Up to `limit` rows that are wanted, and where to go on.
async fn page(
    app: &App,
    mut place: AuditPlace,
    limit: usize,
    wanted: &Wanted,
) -> Result<(Vec<AuditRow>, Option<(i32, i64)>), Problem> {
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let rows = app.api.stores.audit.audit_rows(place, AUDIT_PAGE_MAX).await?;
        let is_last = rows.len() < AUDIT_PAGE_MAX;
        for row in rows {
            if found.len() == limit {
                return Ok((found, Some(place.behind)));
            }
            place.behind = (row.day, row.seq);
            if wanted.holds(&row.entry) {
                found.push(row);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, Some(place.behind)))
}

/// Shows the ends of the log's days: what a copy of the log is checked against.
#[utoipa::path(get, path = "/v1/audit/heads", tag = "audit", security(("key" = [])),
    responses((status = 200, body = AuditHeads), (status = 422, body = Document)))]
pub(crate) async fn heads(State(app): State<Shared>, uri: Uri) -> Result<Json<AuditHeads>, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let heads = app.api.stores.audit.audit_heads().await?;
    let shown = |AuditHead { day, seq, hash }: AuditHead| AuditHeadView { day, seq, hash: hex::of(&hash) };
    let floor = app.api.stores.audit.audit_floor().await?.map(AuditFloorView::from);
    Ok(Json(AuditHeads { heads: heads.into_iter().map(shown).collect(), floor }))
}
