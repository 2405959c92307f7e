//! The audit log: who did what, how it stood before, and the ends of its chains.

use askama::Template;
use axum::{Router, extract::Query, response::Response, routing::get};
use jiff::{Span, civil::date};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::filled::{or_empty, page_with};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    page::Shell,
    viewer::Visit,
    words,
};

/// The address of the page.
const HERE: &str = "/dashboard/audit";
/// Days whose chain heads are shown.
const HEADS_SHOWN: usize = 14;

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route(HERE, get(show))
}

/// What rows are narrowed by, as the address says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    since: String,
    until: String,
    actor: String,
    tenant: String,
    action: String,
    status: String,
    order: String,
    cursor: String,
}

impl Wanted {
    fn pairs(&self) -> [(&'static str, &str); 7] {
        [
            ("since", &self.since),
            ("until", &self.until),
            ("actor", &self.actor),
            ("tenant", &self.tenant),
            ("action", &self.action),
            ("status", &self.status),
            ("order", &self.order),
        ]
    }

    /// Its address, at this place of the list.
    fn at(&self, base: &str, cursor: &str) -> String {
        let pairs: Vec<_> = self.pairs().into_iter().chain([("cursor", cursor)]).collect();
        format!("{base}{}", query(&pairs))
    }

    fn is_narrowed(&self) -> bool {
        self.pairs().iter().any(|(name, value)| *name != "order" && !value.is_empty())
    }
}

/// A row of the log.
#[derive(Debug, Deserialize)]
struct Row {
    day: i32,
    seq: i64,
    at: String,
    actor: Option<String>,
    role: Option<String>,
    tenant: Option<String>,
    address: Option<String>,
    action: String,
    subject: String,
    status: u16,
    detail: Box<RawValue>,
    request_id: String,
    prev: String,
    hash: String,
}

impl Row {
    fn detail(&self) -> String {
        words::pretty_json(self.detail.get())
    }

    /// Whether it was refused: the row is then about an attempt.
    fn is_refused(&self) -> bool {
        self.status >= 400
    }

    /// Its key; what has none is told by its role, as a scheduler is.
    fn who(&self) -> &str {
        self.actor.as_deref().or(self.role.as_deref()).unwrap_or("nobody known")
    }

    /// The role, where it stands beside a key.
    fn role_beside(&self) -> Option<&str> {
        self.role.as_deref().filter(|_| self.actor.is_some())
    }

    fn actor_href(&self) -> Option<String> {
        // Bearers of an issuer's tokens have no key, and whoever claimed a key may have made it up.
        let known = self.actor.as_ref().filter(|actor| self.role.is_some() && !actor.contains(':'));
        known.map(|actor| path(&["dashboard", "keys", actor]))
    }
}

/// The end of a day's chain.
#[derive(Debug, Deserialize)]
struct Head {
    day: i32,
    seq: i64,
    hash: String,
}

/// Up to where the log was taken out.
#[derive(Debug, Deserialize)]
struct Floor {
    day: i32,
    seq: i64,
    rows: u64,
    path: String,
    sha256: String,
    at: String,
}

#[derive(Debug, Default, Deserialize)]
struct Rows {
    rows: Vec<Row>,
    next_cursor: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Heads {
    heads: Vec<Head>,
    floor: Option<Floor>,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    wanted: Wanted,
    refused: Option<Refused>,
    rows: Vec<Row>,
    next: String,
    first: String,
    heads: Option<Heads>,
}

async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    let Visit { viewer, client, shell, .. } = visit;
    let (page, refused) = or_empty::<Rows>(client.get(&wanted.at("/v1/audit", &wanted.cursor)).await)?;
    let mut heads = match viewer.may("GET /v1/audit/heads") {
        true => Some(client.get::<Heads>("/v1/audit/heads").await?),
        false => None,
    };
    if let Some(heads) = &mut heads {
        heads.heads.truncate(HEADS_SHOWN);
    }
    let next = page.next_cursor.map(|cursor| wanted.at(HERE, &cursor)).unwrap_or_default();
    let first = if wanted.cursor.is_empty() { String::new() } else { wanted.at(HERE, "") };
    let code = refused.as_ref().map(Refused::code).unwrap_or_default();
    Ok(page_with(code, shell, |shell| AuditPage { shell, wanted, refused, rows: page.rows, next, first, heads }))
}

/// The date of a day that is counted from 1970.
pub(crate) fn date_of(day: i32) -> String {
    let span = Span::new().try_days(day);
    let date = span.and_then(|span| date(1970, 1, 1).checked_add(span));
    date.map_or_else(|_| day.to_string(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!((date_of(0), date_of(20_787)), ("1970-01-01".into(), "2026-11-30".into()));
        assert_eq!(date_of(i32::MAX), i32::MAX.to_string());
    }

    #[test]
    fn a_page_keeps_its_filter() {
        let wanted = Wanted { action: "PATCH /v1/keys".into(), status: "403".into(), ..Wanted::default() };
        assert_eq!(wanted.at(HERE, "a1.2"), "/dashboard/audit?action=PATCH+%2Fv1%2Fkeys&status=403&cursor=a1.2");
        assert!(wanted.is_narrowed() && !Wanted { order: "asc".into(), ..Wanted::default() }.is_narrowed());
    }
}
