//! Costs: what was spent, on what and for whom, what of it was for nothing, what was saved, and budgets with how they stand.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    extract::Query,
    response::Response,
    routing::{get, post},
};
use jiff::{ToSpan, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    budgets::{self, Alert, Budget},
    filled::{Filled, or_empty, page_with},
    job::copies::shell,
    part::part,
};
use crate::{
    Dashboard,
    chart::{self, Bar, Series},
    client::{Refused, path, query},
    form::{Flash, Posted, done},
    page::Shell,
    viewer::Visit,
    words::{self, Safe},
};

/// Columns that money is told by.
const COLUMNS: [&str; 7] = ["operation", "model", "tenant", "queue", "kind", "provider", "day"];
/// Times that are looked back on: of whole days, which are sums already.
const SPANS: [(&str, &str); 4] = [("1d", "since yesterday"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")];
/// Rows that are drawn as bars; the table below has all.
const BARS_MAX: usize = 8;
/// Days that are columns of their own though nothing was spent: those of a year.
const DAYS_MAX: usize = 366;
/// The address of the page.
const HERE: &str = "/dashboard/costs";

pub(crate) fn routes() -> Router<Dashboard> {
    Router::new().route(HERE, get(show)).route("/dashboard/costs/budget", post(set_budget))
}

/// What is looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct Wanted {
    by: String,
    since: String,
    until: String,
    tenant: String,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { by: "operation".into(), since: "7d".into(), until: String::new(), tenant: String::new() }
    }
}

impl Wanted {
    /// The same by another column, or since another time: where a link leads.
    fn with(&self, name: &str, value: &str) -> String {
        let of = |known: &str, now: &str| if known == name { value.to_owned() } else { now.to_owned() };
        let (by, since, tenant) = (of("by", &self.by), of("since", &self.since), of("tenant", &self.tenant));
        let until = if name == "since" { "" } else { &self.until };
        format!("{HERE}{}", query(&[("by", &by), ("since", &since), ("until", until), ("tenant", &tenant)]))
    }

    /// The head of the column that says what rows are about.
    fn title(&self) -> String {
        let mut letters = self.by.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }

    fn is(&self, name: &str, value: &str) -> bool {
        value == if name == "by" { &self.by } else { &self.since }
    }

    fn question(&self, by: &str) -> String {
        let asked = [("group_by", by), ("since", &self.since), ("until", &self.until), ("tenant", &self.tenant)];
        format!("/v1/costs{}", query(&asked))
    }

    /// What says the same on the command line.
    fn command(&self) -> String {
        let mut line = format!("longshore cost report --by {} --since {}", shell(&self.by), shell(&self.since));
        for (name, value) in [("until", &self.until), ("tenant", &self.tenant)] {
            if !value.is_empty() {
                line.push_str(&format!(" --{name} '{}'", value.replace('\'', "'\\''")));
            }
        }
        line
    }
}

/// A cost report.
#[derive(Debug, Default, Deserialize)]
struct Report {
    since: String,
    until: String,
    rows: Vec<Row>,
}

/// One line of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    calls: u64,
    calls_maybe: u64,
    calls_unpriced: u64,
    jobs: u64,
    tokens_in: u64,
    tokens_out: u64,
    tokens_cached: u64,
    spend_usd: String,
    wasted_usd: String,
    charge_usd: Option<String>,
    saved_usd: String,
    saved_memo_usd: String,
    saved_cache_usd: String,
    saved_coalesced_usd: String,
    saved_singleflight_usd: String,
    saved_answers: u64,
    #[serde(flatten)]
    group: Map<String, Value>,
}

impl Row {
    /// What it is about.
    fn name(&self, columns: &str) -> String {
        let name = |column: &str| match self.group.get(column.trim()).and_then(Value::as_str) {
            None | Some("") => "(none)",
            Some(name) => name,
        };
        columns.split(',').map(name).collect::<Vec<_>>().join(" · ")
    }

    /// Where its jobs are.
    fn href(&self, column: &str) -> String {
        let name = self.group.get(column).and_then(Value::as_str).unwrap_or_default();
        match (column, name) {
            (_, "") => String::new(),
            ("tenant", name) => path(&["dashboard", "tenants", name]),
            ("queue", name) => path(&["dashboard", "queues", name]),
            ("operation" | "kind", name) => {
                let filter = format!("{column} = {}", Value::from(name));
                format!("/dashboard/jobs{}", query(&[("filter", &filter)]))
            }
            _ => String::new(),
        }
    }

    /// The part of its spend that was for nothing.
    fn wasted_share(&self) -> String {
        match nano(&self.spend_usd) {
            0 => words::percent(0.0),
            spend => words::percent(nano(&self.wasted_usd) as f64 / spend as f64),
        }
    }
}

/// All rows of a report together.
#[derive(Debug, Default)]
struct Totals {
    spend: i128,
    wasted: i128,
    charge: i128,
    saved: i128,
    by_reason: [i128; 4],
    calls: u64,
    maybe: u64,
    unpriced: u64,
    jobs: u64,
    tokens_in: u64,
    tokens_out: u64,
    tokens_cached: u64,
    saved_answers: u64,
}

impl Totals {
    fn of(rows: &[Row]) -> Self {
        rows.iter().fold(Self::default(), |mut sum, row| {
            sum.spend += nano(&row.spend_usd);
            sum.wasted += nano(&row.wasted_usd);
            sum.charge += row.charge_usd.as_deref().map_or(0, nano);
            sum.saved += nano(&row.saved_usd);
            let reasons =
                [&row.saved_memo_usd, &row.saved_cache_usd, &row.saved_coalesced_usd, &row.saved_singleflight_usd];
            for (sum, saved) in sum.by_reason.iter_mut().zip(reasons) {
                *sum += nano(saved);
            }
            sum.calls += row.calls;
            sum.maybe += row.calls_maybe;
            sum.unpriced += row.calls_unpriced;
            sum.jobs += row.jobs;
            sum.tokens_in += row.tokens_in;
            sum.tokens_out += row.tokens_out;
            sum.tokens_cached += row.tokens_cached;
            sum.saved_answers += row.saved_answers;
            sum
        })
    }

    fn spend(&self) -> String {
        usd(self.spend)
    }

    fn wasted(&self) -> String {
        usd(self.wasted)
    }

    fn saved(&self) -> String {
        usd(self.saved)
    }

    fn charge(&self) -> String {
        usd(self.charge)
    }

    fn tokens(&self) -> String {
        words::compact((self.tokens_in + self.tokens_out) as f64)
    }

    fn wasted_share(&self) -> String {
        match self.spend {
            0 => words::percent(0.0),
            spend => words::percent(self.wasted as f64 / spend as f64),
        }
    }

    /// What was saved, by what saved it; those that saved nothing are left out.
    fn saved_by(&self) -> Vec<(&'static str, String)> {
        let reasons = ["answers kept by the job itself", "cache", "calls put together", "questions under way"];
        let told = reasons.into_iter().zip(self.by_reason).filter(|(_, saved)| *saved > 0);
        told.map(|(reason, saved)| (reason, usd(saved))).collect()
    }
}

fn nano(text: &str) -> i128 {
    words::nanousd(text).unwrap_or(0)
}

/// An amount as people read it.
fn usd(nanousd: i128) -> String {
    words::usd(words::decimal(nanousd))
}

/// Budgets that the viewer may see.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Budgets {
    budgets: Vec<Budget>,
    alerts: Vec<Alert>,
}

impl Budgets {
    /// Of each limit and period the highest alert: the others came before it.
    fn highest_alerts(&self) -> Vec<&Alert> {
        let mut told: Vec<&Alert> = Vec::new();
        for alert in &self.alerts {
            let line =
                |alert: &Alert| (alert.scope.clone(), alert.measure.clone(), alert.period.clone(), alert.since.clone());
            match told.iter_mut().find(|known| line(known) == line(alert)) {
                Some(known) if known.level < alert.level => *known = alert,
                Some(_) => {}
                None => told.push(alert),
            }
        }
        told
    }

    fn limits_nothing(&self) -> bool {
        self.budgets.iter().all(|budget| budget.limits.is_empty())
    }
}

#[derive(Template)]
#[template(path = "costs.html")]
struct CostsPage {
    shell: Shell,
    wanted: Wanted,
    report: Report,
    totals: Totals,
    by_day: Safe,
    by_column: Safe,
    refused: Option<Refused>,
    budgets: Option<Budgets>,
    /// The budget of the installation, as whoever may change it sees it.
    form: Option<Filled>,
}

impl CostsPage {
    fn columns(&self) -> [&'static str; 7] {
        COLUMNS
    }

    fn spans(&self) -> [(&'static str, &'static str); 4] {
        SPANS
    }
}

async fn show(visit: Visit, Query(mut wanted): Query<Wanted>) -> Result<Response, Refused> {
    // A form sends what it was not told, too.
    let usual = Wanted::default();
    if wanted.by.is_empty() {
        wanted.by = usual.by;
    }
    if wanted.since.is_empty() {
        wanted.since = usual.since;
    }
    page(visit, wanted, None).await
}

async fn page(visit: Visit, wanted: Wanted, form: Option<Filled>) -> Result<Response, Refused> {
    let by_day = wanted.question("day");
    let (days, rows, budgets, installation) = tokio::join!(
        visit.client.get::<Report>(&by_day),
        rows_of(&visit, &wanted),
        budgets_of(&visit),
        part_of_installation(&visit, form.is_none()),
    );
    let (days, refused) = or_empty(days)?;
    let (mut report, also_refused) = or_empty(rows)?;
    if wanted.by == "day" {
        report.rows.clone_from(&days.rows);
        report.rows.sort_by_key(|row| std::cmp::Reverse(row.name("day")));
    }
    let (refused, budgets, form) = (refused.or(also_refused), budgets?, form.or(installation?));
    let code = refused.as_ref().map(Refused::code).or(form.as_ref().map(Filled::code)).unwrap_or_default();
    let (by_day, by_column) = (day_chart(&days), bars(&wanted.by, &report.rows));
    let totals = Totals::of(&days.rows);
    (report.since, report.until) = (days.since, days.until);
    Ok(page_with(code, visit.shell, |shell| CostsPage {
        shell,
        wanted,
        report,
        totals,
        by_day,
        by_column,
        refused,
        budgets,
        form,
    }))
}

/// The rows of the table; those of days are asked for anyway.
async fn rows_of(visit: &Visit, wanted: &Wanted) -> Result<Report, Refused> {
    if wanted.by == "day" { Ok(Report::default()) } else { visit.client.get(&wanted.question(&wanted.by)).await }
}

/// All budgets, or the viewer's own tenant's.
async fn budgets_of(visit: &Visit) -> Result<Option<Budgets>, Refused> {
    if let Some(all) = part(visit, "GET /v1/budgets", "/v1/budgets").await? {
        return Ok(Some(all));
    }
    let own = path(&["v1", "tenants", &visit.viewer.tenant, "budget"]);
    let own: Option<Budget> = part(visit, "GET /v1/tenants/{tenant}/budget", &own).await?;
    Ok(own.map(|own| Budgets { budgets: vec![own], alerts: vec![] }))
}

/// The form of the installation's budget, for who may set it.
async fn part_of_installation(visit: &Visit, is_wanted: bool) -> Result<Option<Filled>, Refused> {
    if !is_wanted {
        return Ok(None);
    }
    let budget: Option<Budget> = part(visit, "PUT /v1/budget", "/v1/budget").await?;
    Ok(budget.map(|budget| budget.form("budget")))
}

/// Money by day: what was of use and what was not, on top of each other.
fn day_chart(days: &Report) -> Safe {
    let mut by_day: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for day in days_between(&days.since, &days.until) {
        by_day.insert(day, (0, 0));
    }
    for row in &days.rows {
        by_day.insert(row.name("day"), (nano(&row.spend_usd), nano(&row.wasted_usd)));
    }
    let dollars = |nanousd: i128| nanousd as f64 / words::NANOUSD as f64;
    let labels: Vec<_> = by_day.keys().cloned().collect();
    let useful = by_day.values().map(|(spend, wasted)| dollars(spend - wasted)).collect();
    let wasted = by_day.values().map(|(_, wasted)| dollars(*wasted)).collect();
    let series = [Series::new("spent well", useful), Series::new("wasted", wasted)];
    chart::columns("US dollars by day", "$", &labels, &series)
}

/// The days from one time up to another: those on which nothing was spent are columns, too.
fn days_between(since: &str, until: &str) -> Vec<String> {
    let date = |text: &str| Some(words::timestamp(text)?.to_zoned(TimeZone::UTC).date());
    let (Some(first), Some(last)) = (date(since), date(until)) else { return vec![] };
    first.series(1.day()).take_while(|day| *day <= last).take(DAYS_MAX).map(|day| day.to_string()).collect()
}

/// The dearest, at a glance.
fn bars(by: &str, rows: &[Row]) -> Safe {
    let bar = |row: &Row| Bar {
        label: row.name(by),
        href: row.href(by),
        value: nano(&row.spend_usd) as f64,
        text: words::usd(&row.spend_usd),
    };
    let bars: Vec<_> = rows.iter().take(BARS_MAX).map(bar).collect();
    chart::bars(&format!("Dearest by {by}"), &bars)
}

async fn set_budget(posted: Posted) -> Result<Response, Refused> {
    match budgets::set(&posted.visit.client, "/v1/budget", "budget", &posted).await? {
        None => Ok(done(HERE, Flash::good("The budget of the installation is set."))),
        Some(form) => page(posted.visit, Wanted::default(), Some(form)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn sums_are_exact_and_told_in_dollars() {
        let rows = [
            row(
                r#"{"day":"2026-11-29","calls":2,"jobs":1,"spend_usd":"0.1","wasted_usd":"0.05","saved_usd":"0.2","saved_cache_usd":"0.2"}"#,
            ),
            row(r#"{"day":"2026-11-30","calls":1,"jobs":1,"spend_usd":"0.2","wasted_usd":"0","charge_usd":"0.3"}"#),
        ];
        let totals = Totals::of(&rows);
        assert_eq!((usd(totals.spend), usd(totals.charge), totals.calls), ("$0.30".into(), "$0.30".into(), 3));
        assert_eq!(totals.wasted_share(), words::percent(0.05 / 0.3));
        assert_eq!(totals.saved_by(), [("cache", "$0.20".to_owned())]);
        assert_eq!(rows[0].wasted_share(), "50 %");
    }

    #[test]
    fn rows_lead_to_what_they_are_about() {
        let row = row(r#"{"operation":"a \"b\"","tenant":"acme","model":"m","queue":""}"#);
        assert_eq!(row.href("operation"), "/dashboard/jobs?filter=operation+%3D+%22a+%5C%22b%5C%22%22");
        assert_eq!((row.href("tenant"), row.href("model")), ("/dashboard/tenants/acme".into(), String::new()));
        assert_eq!((row.name("queue"), row.href("queue")), ("(none)".to_owned(), String::new()));
    }

    #[test]
    fn one_alert_is_told_of_a_limit_in_a_period() {
        let alert = |since: &str, level| Alert { since: since.into(), level, scope: "all".into(), ..Alert::default() };
        let alerts = vec![alert("b", 80), alert("b", 100), alert("b", 50), alert("a", 50)];
        let budgets = Budgets { alerts, ..Budgets::default() };
        let told: Vec<_> = budgets.highest_alerts().into_iter().map(|alert| (&*alert.since, alert.level)).collect();
        assert_eq!(told, [("b", 100), ("a", 50)]);
    }

    #[test]
    fn a_day_without_spend_is_a_day() {
        let days = days_between("2026-11-28T00:00:00Z", "2026-11-30T17:00:00.001Z");
        assert_eq!(days, ["2026-11-28", "2026-11-29", "2026-11-30"]);
        assert_eq!(days_between("1970-01-01T00:00:00Z", "2026-11-30T00:00:00Z").len(), DAYS_MAX);
        assert!(days_between("", "2026-11-30T00:00:00Z").is_empty());
    }

    #[test]
    fn links_change_one_thing_and_commands_are_quoted() {
        let wanted = Wanted { tenant: "o'neil".into(), until: "2026-11-01".into(), ..Wanted::default() };
        assert_eq!(wanted.with("by", "model"), "/dashboard/costs?by=model&since=7d&until=2026-11-01&tenant=o%27neil");
        assert_eq!(wanted.with("since", "30d"), "/dashboard/costs?by=operation&since=30d&tenant=o%27neil");
        assert_eq!(
            wanted.command(),
            "longshore cost report --by operation --since 7d --until '2026-11-01' --tenant 'o'\\''neil'"
        );
        let hostile = Wanted { since: "7d;reboot".into(), ..Wanted::default() };
        assert_eq!(hostile.command(), "longshore cost report --by operation --since '7d;reboot'");
    }
}
