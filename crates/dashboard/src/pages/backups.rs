//! Backups: when one was last made, read back and restored; and maintenance, which a restored system begins with.

mod upkeep;

use askama::Template;
use axum::{
    Router,
    extract::{Path, Query},
    http::Method,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    filled::{Asked, Filled, code_of, page_with},
    part::part,
};
use crate::{
    Dashboard,
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::Visit,
    words,
};

/// The address of the page.
const HERE: &str = "/dashboard/backups";
/// Fields of an order.
const FIELDS: [&str; 2] = ["scope", "reason"];

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new()
        .route(HERE, get(show))
        .route("/dashboard/backups/create", post(create))
        .route("/dashboard/backups/{id}/verify", post(verify))
        .route("/dashboard/backups/maintenance", post(maintain))
        .route("/dashboard/backups/upkeep", get(upkeep::show))
        .route("/dashboard/backups/upkeep/run", post(upkeep::run_upkeep))
        .route("/dashboard/backups/upkeep/retention", post(upkeep::run_retention))
        .route("/dashboard/backups/upkeep/log-level", post(upkeep::log_level))
}

/// A backup, as the API shows it.
#[derive(Debug, Deserialize)]
struct Backup {
    id: String,
    backup: Option<String>,
    scope: String,
    cause: String,
    reason: Option<String>,
    asked_by: Option<String>,
    state: String,
    attempts: u32,
    ordered_at: String,
    finished_at: Option<String>,
    bytes: Option<u64>,
    error: Option<String>,
    offsite_error: Option<String>,
    check: Option<Check>,
}

/// A check of a backup.
#[derive(Debug, Deserialize)]
struct Check {
    restore: bool,
    state: String,
    ordered_at: String,
    finished_at: Option<String>,
    opened: bool,
    error: Option<String>,
    recovery_seconds: Option<f64>,
    lost_seconds: Option<f64>,
}

impl Backup {
    /// Whether it can be checked: it is good, and nothing is under way.
    fn is_checkable(&self) -> bool {
        let is_being_checked = self.check.as_ref().is_some_and(|check| is_under_way(&check.state));
        self.state == "good" && !is_being_checked
    }

    /// Whether there is a journal in it to restore.
    fn is_restorable(&self) -> bool {
        matches!(self.scope.as_str(), "database" | "full")
    }

    /// The id under which the command line knows it.
    fn known_as(&self) -> &str {
        self.backup.as_deref().unwrap_or(&self.id)
    }

    /// When it was there, or ordered.
    fn when(&self) -> &str {
        self.finished_at.as_deref().unwrap_or(&self.ordered_at)
    }

    /// How it stands, as a badge says it.
    fn word(&self) -> &str {
        word_of(&self.state)
    }

    fn verify_at(&self) -> String {
        format!("{}/verify", path(&["dashboard", "backups", &self.id]))
    }

    fn good_check(&self) -> Option<&Check> {
        self.check.as_ref().filter(|check| check.state == "good")
    }
}

impl Check {
    /// When it ended, or was ordered.
    fn when(&self) -> &str {
        self.finished_at.as_deref().unwrap_or(&self.ordered_at)
    }

    /// How it stands, as a badge says it.
    fn word(&self) -> &str {
        word_of(&self.state)
    }

    /// What it found, in words.
    fn words(&self) -> String {
        let what = match (self.restore, self.opened) {
            (true, _) => "restored and tried",
            (false, true) => "read back and opened",
            (false, false) => "read back; hashes compared",
        };
        match (self.recovery_seconds, self.lost_seconds) {
            (Some(recovery), Some(lost)) => {
                format!("{what}: back in {}, {} lost", words::seconds(recovery), words::seconds(lost))
            }
            (Some(recovery), None) => format!("{what}: back in {}", words::seconds(recovery)),
            _ => what.to_owned(),
        }
    }
}

/// A state of an order in a word that has a badge of its own.
fn word_of(state: &str) -> &str {
    match state {
        "good" => "ok",
        "ordered" => "queued",
        state => state,
    }
}

fn is_under_way(state: &str) -> bool {
    matches!(state, "ordered" | "running")
}

#[derive(Debug, Default, Deserialize)]
struct List {
    backups: Vec<Backup>,
    next_cursor: Option<String>,
    /// Whether there is a place for backups; said by newer servers.
    configured: Option<bool>,
}

/// What matters of all: found among the newest.
#[derive(Debug, Default)]
struct Summary<'a> {
    good: Option<&'a Backup>,
    verified: Option<&'a Check>,
    drill: Option<&'a Check>,
    failed: Option<&'a Backup>,
}

impl<'a> Summary<'a> {
    fn of(backups: &'a [Backup]) -> Self {
        let latest = |is_wanted: fn(&Check) -> bool| {
            let checks = backups.iter().filter_map(Backup::good_check).filter(|check| is_wanted(check));
            // Times of the API sort as text.
            checks.max_by(|a, b| a.finished_at.cmp(&b.finished_at))
        };
        Self {
            good: backups.iter().find(|backup| backup.state == "good"),
            verified: latest(|_| true),
            drill: latest(|check| check.restore),
            // One that failed before a good one is a worry no more.
            failed: backups
                .iter()
                .find(|backup| matches!(&*backup.state, "good" | "failed"))
                .filter(|one| one.state == "failed"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    cursor: String,
}

/// The forms of the page that were refused.
#[derive(Default)]
struct Forms {
    order: Option<Filled>,
    maintenance: Option<Filled>,
    refused: Option<Refused>,
}

/// Whether maintenance is on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Maintenance {
    on: bool,
    since: Option<String>,
    reason: Option<String>,
}

#[derive(Template)]
#[template(path = "backups.html")]
struct BackupsPage {
    shell: Shell,
    backups: Vec<Backup>,
    next: String,
    first: String,
    is_configured: bool,
    order: Filled,
    maintenance_form: Filled,
    refused: Option<Refused>,
    maintenance: Option<Maintenance>,
}

impl BackupsPage {
    fn summary(&self) -> Summary<'_> {
        Summary::of(&self.backups)
    }

    /// What restores the newest good backup.
    fn restore_command(&self) -> String {
        let which = self.summary().good.map_or("latest", Backup::known_as);
        format!("longshore backup restore {which} --into postgres://…/empty")
    }
}

async fn show(visit: Visit, Query(wanted): Query<Wanted>) -> Result<Response, Refused> {
    page(visit, &wanted, Forms::default()).await
}

async fn page(visit: Visit, wanted: &Wanted, forms: Forms) -> Result<Response, Refused> {
    let asked = format!("/v1/backups{}", query(&[("cursor", &wanted.cursor)]));
    let (list, maintenance) = tokio::try_join!(
        part::<List>(&visit, "GET /v1/backups", &asked),
        part::<Maintenance>(&visit, "GET /v1/maintenance", "/v1/maintenance"),
    )?;
    let list = list.unwrap_or_default();
    let next = list.next_cursor.map(|cursor| format!("{HERE}{}", query(&[("cursor", &cursor)]))).unwrap_or_default();
    let first = if wanted.cursor.is_empty() { String::new() } else { HERE.to_owned() };
    let order = forms.order.unwrap_or_else(|| Filled::new("order").with("scope", "full"));
    let maintenance_form = forms.maintenance.unwrap_or_else(|| Filled::new("maintenance"));
    let code = forms.refused.as_ref().map_or_else(|| code_of(&[&order, &maintenance_form]), Refused::code);
    Ok(page_with(code, visit.shell, |shell| BackupsPage {
        shell,
        backups: list.backups,
        next,
        first,
        is_configured: list.configured.unwrap_or(true),
        order,
        maintenance_form,
        refused: forms.refused,
        maintenance,
    }))
}

/// The page again with what was refused to one of its small forms.
async fn refused(visit: Visit, refused: Refused) -> Result<Response, Refused> {
    match refused.is_correctable() {
        true => page(visit, &Wanted::default(), Forms { refused: Some(refused), ..Forms::default() }).await,
        false => Err(refused),
    }
}

async fn create(posted: Posted) -> Result<Response, Refused> {
    let body = Asked::default().texts(&posted, &FIELDS).body();
    let answer: Result<Value, Refused> = posted.visit.client.send(Method::POST, "/v1/backups", Some(&body)).await;
    match answer {
        Ok(_) => Ok(done(HERE, Flash::good("The backup is ordered; a scheduler carries it out."))),
        Err(refused) => {
            let order = Filled::back("order", &posted, &FIELDS, refused)?;
            page(posted.visit, &Wanted::default(), Forms { order: Some(order), ..Forms::default() }).await
        }
    }
}

async fn verify(Path(id): Path<String>, posted: Posted) -> Result<Response, Refused> {
    let restore = posted.text("do") == Some("drill");
    let place = path(&["v1", "backups", &id, "verify"]);
    let body = json!({ "restore": restore });
    let answer: Result<Value, Refused> = posted.visit.client.send(Method::POST, &place, Some(&body)).await;
    match answer {
        Ok(_) if restore => {
            Ok(done(HERE, Flash::good("The drill is ordered: it is restored beside and has to drain jobs.")))
        }
        Ok(_) => Ok(done(HERE, Flash::good("The check is ordered: every part is read back."))),
        Err(wrong) => refused(posted.visit, wrong).await,
    }
}

/// Begins maintenance with a reason, or ends it.
async fn maintain(posted: Posted) -> Result<Response, Refused> {
    let on = posted.text("do") == Some("begin");
    let asked = Asked::default().with("on", on);
    let (asked, reason) = match on {
        true => (asked.texts(&posted, &["reason"]), posted.required("reason").map(|_| ())),
        false => (asked, Ok(())),
    };
    let answer: Result<Value, Refused> = match reason {
        Ok(()) => posted.visit.client.send(Method::PUT, "/v1/maintenance", Some(&asked.body())).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(_) if on => {
            Ok(done(HERE, Flash::good("Maintenance has begun: submits answer 503, nothing new is claimed.")))
        }
        Ok(_) => Ok(done(HERE, Flash::good("Maintenance is over: jobs are taken and claimed again."))),
        Err(refused) => {
            let maintenance = Some(Filled::back("maintenance", &posted, &["reason"], refused)?);
            page(posted.visit, &Wanted::default(), Forms { maintenance, ..Forms::default() }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backups() -> Vec<Backup> {
        let text = r#"[
            {"id":"4","scope":"full","cause":"asked","state":"running","attempts":1,"ordered_at":"2026-11-30T04:00:00Z"},
            {"id":"3","scope":"full","cause":"schedule","state":"failed","attempts":3,"ordered_at":"2026-11-30T03:00:00Z","error":"no room"},
            {"id":"2","backup":"b2","scope":"full","cause":"schedule","state":"good","attempts":1,"ordered_at":"2026-11-29T03:00:00Z",
             "check":{"restore":false,"state":"good","ordered_at":"2026-11-29T04:00:00Z","finished_at":"2026-11-29T04:01:00Z","opened":true}},
            {"id":"1","scope":"config","cause":"schedule","state":"good","attempts":1,"ordered_at":"2026-11-28T03:00:00Z",
             "check":{"restore":true,"state":"good","ordered_at":"2026-11-28T04:00:00Z","finished_at":"2026-11-28T04:01:00Z","opened":true,
                      "recovery_seconds":41.5,"lost_seconds":3600.0}}]"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_summary_is_of_what_counts() {
        let backups = backups();
        let summary = Summary::of(&backups);
        assert_eq!(summary.good.map(Backup::known_as), Some("b2"));
        assert_eq!(summary.verified.and_then(|check| check.finished_at.as_deref()), Some("2026-11-29T04:01:00Z"));
        assert_eq!(summary.drill.map(Check::words).as_deref(), Some("restored and tried: back in 41 s, 60 min lost"));
        assert_eq!(summary.failed.map(|backup| &*backup.id), Some("3"));
        assert!(Summary::of(&backups[2..]).failed.is_none());
    }

    #[test]
    fn only_what_is_good_is_checked() {
        let backups = backups();
        let checkable: Vec<_> = backups.iter().map(Backup::is_checkable).collect();
        assert_eq!(checkable, [false, false, true, true]);
        assert!(backups[2].is_restorable() && !backups[3].is_restorable());
    }
}
