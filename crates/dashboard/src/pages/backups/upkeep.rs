//! The journal's tables and indexes, what goes for its age, and what processes write into their logs. It is looked at when it is
//! asked for, and not every two seconds: the journal counts for it.

use askama::Template;
use axum::{http::Method, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    client::Refused,
    form::{Flash, Posted, done},
    page::Shell,
    pages::{
        filled::{Asked, Filled, page_with},
        part::part,
    },
    viewer::Visit,
    words,
};

/// The address of the page.
const HERE: &str = "/dashboard/backups/upkeep";
/// How its address ends where the journal is looked at, too.
const SHOW_JOURNAL: &str = "?show=journal";

/// How the journal is.
#[derive(Debug, Deserialize)]
struct Report {
    window: String,
    window_begins_at: String,
    window_ends_at: String,
    busy: bool,
    missing_right: Option<String>,
    bytes: u64,
    free_bytes: Option<u64>,
    tables: Vec<Table>,
    indexes: Vec<Index>,
    due: Vec<Chore>,
    done: Vec<Done>,
}

/// A table.
#[derive(Debug, Deserialize)]
struct Table {
    name: String,
    bytes: u64,
    rows: u64,
    dead: u64,
    vacuumed_at: Option<String>,
    analyzed_at: Option<String>,
}

/// An index.
#[derive(Debug, Deserialize)]
struct Index {
    name: String,
    table: String,
    bytes: u64,
    bloat_bytes: u64,
}

/// What is due.
#[derive(Debug, Deserialize)]
struct Chore {
    chore: String,
    on: Option<String>,
    reason: String,
    bytes: u64,
}

/// What was done.
#[derive(Debug, Deserialize)]
struct Done {
    at: String,
    chore: String,
    on: Option<String>,
    before_bytes: u64,
    after_bytes: u64,
    took_ms: i64,
    error: Option<String>,
}

/// What goes for its age.
#[derive(Debug, Deserialize)]
struct Retention {
    hold: Option<String>,
    began_at: Option<String>,
    ended_at: Option<String>,
    due_at: String,
    remains: Option<String>,
    orders: i64,
    served: i64,
    classes: Vec<Class>,
}

/// Things that are kept for a while.
#[derive(Debug, Deserialize)]
struct Class {
    class: String,
    age: Option<String>,
    action: String,
    partitions: Option<u64>,
    rows: Option<u64>,
    #[serde(default)]
    at_least: bool,
    bytes: Option<u64>,
    next_at: Option<String>,
    #[serde(default)]
    held: Vec<Held>,
    removed: u64,
    removed_last: Option<u64>,
    removed_at: Option<String>,
}

/// Something that is held.
#[derive(Debug, Deserialize)]
struct Held {
    what: String,
    rows: u64,
    reason: String,
}

/// What the processes write into their logs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LogLevel {
    filter: Option<String>,
    until: Option<String>,
}

impl Report {
    /// Bytes that would be free if every index were made anew.
    fn bloat_bytes(&self) -> u64 {
        self.indexes.iter().map(|index| index.bloat_bytes).sum()
    }
}

impl Chore {
    /// What is done to what.
    fn what(&self) -> String {
        what(&self.chore, self.on.as_deref())
    }
}

impl Done {
    /// What was done to what.
    fn what(&self) -> String {
        what(&self.chore, self.on.as_deref())
    }
}

fn what(chore: &str, on: Option<&str>) -> String {
    let chore = chore.replace('_', " ");
    on.map_or_else(|| chore.clone(), |on| format!("{chore} {on}"))
}

impl Class {
    /// Its name as people say it.
    fn name(&self) -> String {
        self.class.replace('_', " ")
    }

    /// What would go now.
    fn goes(&self) -> String {
        let rows = self.rows.filter(|rows| *rows > 0).map(|rows| {
            let least = if self.at_least { "at least " } else { "" };
            format!("{least}{}", words::plural(rows, "row"))
        });
        let days = self.partitions.filter(|days| *days > 0).map(|days| words::plural(days, "day"));
        let bytes = self.bytes.filter(|bytes| *bytes > 0).map(words::bytes);
        let told: Vec<_> = [days, rows, bytes].into_iter().flatten().collect();
        told.join(", ")
    }

    /// What is done with what is old.
    fn then(&self) -> String {
        self.action.replace('_', " ")
    }
}

impl Held {
    /// What stays, and why.
    fn words(&self) -> String {
        let Self { what, rows, reason } = self;
        match rows {
            0 => format!("{what}: {reason}"),
            rows => format!("{what}, {}: {reason}", words::plural(*rows, "row")),
        }
    }
}

impl Retention {
    /// What would go now of all classes.
    fn goes(&self) -> String {
        let goes = self.classes.iter().map(|class| (class.name(), class.goes())).filter(|(_, goes)| !goes.is_empty());
        let told: Vec<_> = goes.map(|(name, goes)| format!("{name} {goes}")).collect();
        if told.is_empty() { "nothing at this moment".to_owned() } else { told.join("; ") }
    }

    /// Whether somebody has ordered a run that has not ended.
    fn is_ordered(&self) -> bool {
        self.orders > self.served
    }
}

#[derive(Template)]
#[template(path = "upkeep.html")]
struct UpkeepPage {
    shell: Shell,
    report: Option<Report>,
    retention: Option<Retention>,
    log_level: Option<LogLevel>,
    log_form: Filled,
    refused: Option<Refused>,
    /// What a run would do, once somebody has asked.
    due: Option<Vec<Chore>>,
}

/// What was refused, and what was counted.
#[derive(Default)]
struct Forms {
    log: Option<Filled>,
    refused: Option<Refused>,
    due: Option<Vec<Chore>>,
}

pub(super) async fn show(visit: Visit) -> Result<Response, Refused> {
    page(visit, Forms::default()).await
}

/// The journal's part of the page, which the journal has to count for: for who asks for it, or has had chores counted.
async fn journal(visit: &Visit, forms: &Forms) -> Result<Option<Report>, Refused> {
    if forms.due.is_none() && !visit.shell.here.ends_with(SHOW_JOURNAL) {
        return Ok(None);
    }
    part(visit, "GET /v1/maintenance/report", "/v1/maintenance/report").await
}

async fn page(visit: Visit, forms: Forms) -> Result<Response, Refused> {
    let (report, retention, log_level) = tokio::try_join!(
        journal(&visit, &forms),
        part::<Retention>(&visit, "GET /v1/retention", "/v1/retention"),
        part::<LogLevel>(&visit, "GET /v1/log-level", "/v1/log-level"),
    )?;
    let log_form = forms.log.unwrap_or_else(|| Filled::new("log").with("filter", "").with("for", "30m"));
    let code = forms.refused.as_ref().map_or_else(|| log_form.code(), Refused::code);
    let Forms { refused, due, .. } = forms;
    let shell = visit.shell.not_live();
    Ok(page_with(code, shell, |shell| UpkeepPage { shell, report, retention, log_level, log_form, refused, due }))
}

/// The page again with what was refused to one of its small forms.
async fn refused_page(visit: Visit, refused: Refused) -> Result<Response, Refused> {
    match refused.is_correctable() {
        true => page(visit, Forms { refused: Some(refused), ..Forms::default() }).await,
        false => Err(refused),
    }
}

/// Says what is due, or does it.
pub(super) async fn run_upkeep(posted: Posted) -> Result<Response, Refused> {
    #[derive(Deserialize)]
    struct Run {
        chores: Vec<Chore>,
    }
    let dry_run = posted.text("do") != Some("run");
    let body = json!({ "dry_run": dry_run });
    let answer: Result<Run, Refused> = posted.visit.client.send(Method::POST, "/v1/maintenance/run", Some(&body)).await;
    match answer {
        Ok(run) if dry_run => page(posted.visit, Forms { due: Some(run.chores), ..Forms::default() }).await,
        Ok(run) => {
            let told = format!("{} being done, one after the other.", words::plural(run.chores.len() as u64, "chore"));
            Ok(done(HERE, Flash::good(told)))
        }
        Err(wrong) => refused_page(posted.visit, wrong).await,
    }
}

/// Has what is old taken away now.
pub(super) async fn run_retention(posted: Posted) -> Result<Response, Refused> {
    let answer: Result<Value, Refused> = posted.visit.client.send(Method::POST, "/v1/retention/run", None).await;
    match answer {
        Ok(_) => Ok(done(HERE, Flash::good("The run is ordered: a scheduler follows it within seconds."))),
        Err(wrong) => refused_page(posted.visit, wrong).await,
    }
}

/// Has every process write more or less into its log; an empty filter leaves it to what each was told at its start.
pub(super) async fn log_level(posted: Posted) -> Result<Response, Refused> {
    let filter = posted.text("filter").map_or(Value::Null, Value::from);
    let asked = Asked::default().with("filter", filter);
    let asked = if posted.text("filter").is_some() { asked.texts(&posted, &["for"]) } else { asked };
    let answer: Result<Value, Refused> =
        posted.visit.client.send(Method::PUT, "/v1/log-level", Some(&asked.body())).await;
    match answer {
        Ok(_) => Ok(done(HERE, Flash::good("The log level is set for every process."))),
        Err(wrong) => {
            let log = Some(Filled::back("log", &posted, &["filter", "for"], wrong)?);
            page(posted.visit, Forms { log, ..Forms::default() }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_told_in_words() {
        let class = |text: &str| serde_json::from_str::<Class>(text).unwrap().goes();
        let jobs = r#"{"class":"jobs","age":"90d","action":"drop_partition","partitions":2,"rows":12000,"at_least":true,"bytes":2048,"removed":0}"#;
        assert_eq!(class(jobs), "2 days, at least 12,000 rows, 2 KiB");
        assert_eq!(class(r#"{"class":"events","action":"expire","removed":0}"#), "");
    }
}
