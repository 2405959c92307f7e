//! What an operation is asked for, from the form to the API: first as a dry run, whose own page says what it would touch and is
//! where it is confirmed. So what is confirmed is kept by the API, with the moments that its ages meant, and not by a page.

use std::borrow::Borrow;

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    client::{Client, Refused, path},
    form::Posted,
    pages::jobs::{asked::quoted, row::brief},
    words,
};

/// Most jobs that a filter names by their ids: as many as a list of the grammar holds.
pub(crate) const IDS_MAX: usize = 200;

/// Letters of a filter that a list shows: some name two hundred ids.
const FILTER_BRIEF_CHARS: usize = 160;

/// An operation as the API shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) action: String,
    pub(crate) to: Option<String>,
    pub(crate) filter: String,
    pub(crate) queue: Option<String>,
    pub(crate) dry_run: bool,
    pub(crate) rate_per_s: u64,
    pub(crate) max_jobs: Option<u64>,
    pub(crate) max_cost_usd: Option<String>,
    pub(crate) force: bool,
    pub(crate) reason: Option<String>,
    pub(crate) state: String,
    pub(crate) matched: u64,
    pub(crate) done: u64,
    pub(crate) skipped: u64,
    pub(crate) failed: u64,
    pub(crate) estimated_cost_usd: String,
    pub(crate) unestimated: u64,
    pub(crate) error: Option<String>,
    pub(crate) asked_by: String,
    pub(crate) accepted_at: String,
    pub(crate) finished_at: Option<String>,
}

impl Operation {
    /// Its page.
    pub(crate) fn href(&self) -> String {
        page_of(&self.id)
    }

    /// The beginning of its filter, for lists.
    pub(crate) fn brief_filter(&self) -> String {
        brief(&self.filter, FILTER_BRIEF_CHARS)
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Jobs that a dry run would touch.
    pub(crate) fn would_touch(&self) -> u64 {
        self.matched.saturating_sub(self.skipped)
    }

    /// What is done to each job in the end: a drain is what it drains to.
    pub(crate) fn effect(&self) -> &str {
        self.to.as_deref().unwrap_or(&self.action)
    }

    /// Whether its jobs run, and cost, again.
    pub(crate) fn runs_again(&self) -> bool {
        matches!(self.effect(), "redrive" | "reclaim")
    }

    /// What is done, in words: "delete", "drain to archive".
    pub(crate) fn deed(&self) -> String {
        match &self.to {
            Some(to) => format!("{} to {to}", self.action),
            None => self.action.clone(),
        }
    }

    /// The same at the beginning of a line.
    pub(crate) fn title(&self) -> String {
        let deed = self.deed();
        let mut letters = deed.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    }

    /// What becomes of each job, for the people who confirm it.
    pub(crate) fn consequence(&self) -> &'static str {
        match self.effect() {
            "redrive" => {
                "Each gets another life with new attempts. Answers that were paid for are kept; other calls cost again."
            }
            "archive" => "Each leaves the journal for a compressed object. An archive can be restored.",
            "cancel" => {
                "Each ends as cancelled. The provider calls of running ones are dropped. This cannot be undone."
            }
            "delete" => {
                "Each is forgotten with payload, result and attempts. What it cost stays in the ledger. This cannot be undone."
            }
            "reclaim" => {
                "Each is taken from its worker and given to another; what it does may be done, and cost, twice."
            }
            _ => "",
        }
    }

    /// Its filter without what came after it was counted: whoever confirms a number means those jobs, and none that were
    /// submitted, or died, since.
    pub(crate) fn bounded(&self) -> String {
        let field = match self.action.as_str() {
            "cancel" | "reclaim" => "accepted_at",
            _ => "finished_at",
        };
        format!("{} and {field} <= \"{}\"", self.filter, self.accepted_at)
    }

    /// The states of jobs to which this can be done, as a condition.
    pub(crate) fn of_states(&self) -> &'static str {
        states_of(&self.action)
    }

    /// How far it is, in percent of `of` jobs.
    pub(crate) fn percent(&self, of: impl Borrow<u64>) -> u64 {
        let of = of.borrow().max(&self.matched).max(&1);
        self.matched.saturating_mul(100) / of
    }

    /// How long it took, or takes so far, in milliseconds.
    pub(crate) fn took_ms(&self, now_ms: i64) -> Option<i64> {
        let ended = match &self.finished_at {
            Some(at) => words::ms_of(at)?,
            None => now_ms,
        };
        Some((ended - words::ms_of(&self.accepted_at)?).max(0))
    }
}

/// The condition on states that an action needs anyway: it stands where nothing else narrows what is meant.
pub(crate) fn states_of(action: &str) -> &'static str {
    match action {
        "redrive" | "archive" | "drain" => "state = dead",
        "cancel" => "state in (scheduled, ready, running)",
        "delete" => "state in (succeeded, dead, cancelled)",
        "reclaim" => "state = running",
        _ => "",
    }
}

/// The jobs with these ids, as a filter.
///
/// # Errors
/// There is none of them, or there are too many.
pub(crate) fn by_ids(ids: &[&str]) -> Result<String, Refused> {
    match ids.len() {
        0 => Err(Refused::field("job", "tick at least one job, or choose all that match")),
        1..=IDS_MAX => Ok(format!("id in ({})", ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(", "))),
        more => {
            Err(Refused::field("job", format!("{more} jobs are ticked; at most {IDS_MAX} can be named one by one")))
        }
    }
}

/// What is asked for, as it was typed: what is wrong with it, the API says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    pub(crate) action: String,
    pub(crate) to: String,
    pub(crate) filter: String,
    pub(crate) rate_per_s: String,
    pub(crate) max_jobs: String,
    pub(crate) max_cost_usd: String,
    pub(crate) force: bool,
    pub(crate) reason: String,
}

impl Order {
    /// What a form asks for.
    pub(crate) fn of(posted: &Posted) -> Self {
        let text = |name: &str| posted.text(name).unwrap_or_default().to_owned();
        Self {
            action: text("action"),
            to: text("to"),
            filter: text("filter"),
            rate_per_s: text("rate_per_s"),
            max_jobs: text("max_jobs"),
            max_cost_usd: text("max_cost_usd"),
            force: posted.is_on("force"),
            reason: text("reason"),
        }
    }

    /// What a form that confirms `seen` asks for: its action and its jobs, in the manner that was typed.
    pub(crate) fn confirming(seen: &Operation, posted: &Posted) -> Self {
        Self { filter: seen.bounded(), ..Self::like(seen).typed(posted) }
    }

    /// The same in the manner that was typed.
    fn typed(self, posted: &Posted) -> Self {
        let typed = Self::of(posted);
        Self {
            rate_per_s: typed.rate_per_s,
            max_jobs: typed.max_jobs,
            max_cost_usd: typed.max_cost_usd,
            reason: typed.reason,
            ..self
        }
    }

    /// The manner of an operation, to be typed again.
    pub(crate) fn like(seen: &Operation) -> Self {
        Self {
            action: seen.action.clone(),
            to: seen.to.clone().unwrap_or_default(),
            filter: seen.filter.clone(),
            rate_per_s: seen.rate_per_s.to_string(),
            max_jobs: seen.max_jobs.map(|most| most.to_string()).unwrap_or_default(),
            max_cost_usd: seen.max_cost_usd.clone().unwrap_or_default(),
            force: seen.force,
            reason: seen.reason.clone().unwrap_or_default(),
        }
    }

    /// The body of the request.
    fn body(&self, dry_run: bool) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
        put("action", json!(self.action));
        put("filter", json!(self.filter));
        put("dry_run", json!(dry_run));
        for (name, text) in [("rate_per_s", &self.rate_per_s), ("max_jobs", &self.max_jobs)] {
            if !text.is_empty() {
                // What is no number goes as text: the API says what is wrong with it.
                put(name, text.replace(',', "").parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)));
            }
        }
        for (name, text) in [("to", &self.to), ("max_cost_usd", &self.max_cost_usd), ("reason", &self.reason)] {
            if !text.is_empty() {
                put(name, json!(text));
            }
        }
        if self.force {
            put("force", json!(true));
        }
        Value::Object(body)
    }

    /// Counts what it would touch. The answer may still be counting.
    pub(crate) async fn count(&self, client: &Client) -> Result<Operation, Refused> {
        client.send(Method::POST, "/v1/operations", Some(&self.body(true))).await
    }

    /// Begins it.
    pub(crate) async fn begin(&self, client: &Client) -> Result<Operation, Refused> {
        client.send(Method::POST, "/v1/operations", Some(&self.body(false))).await
    }
}

/// The page of an operation.
pub(crate) fn page_of(id: &str) -> String {
    path(&["dashboard", "operations", id])
}

/// Whether this was typed for that number, with or without separators.
pub(crate) fn is_count(typed: &str, count: u64) -> bool {
    let digits: String = typed.chars().filter(|c| !matches!(c, ',' | ' ' | '.' | '_')).collect();
    digits == count.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_what_was_typed_and_nothing_else() {
        let order = Order { action: "redrive".into(), filter: "state = dead".into(), ..Order::default() };
        assert_eq!(order.body(true), json!({"action": "redrive", "filter": "state = dead", "dry_run": true}));
        let order = Order {
            action: "reclaim".into(),
            rate_per_s: "1,000".into(),
            max_jobs: "many".into(),
            max_cost_usd: "2.50".into(),
            force: true,
            reason: "<b>".into(),
            ..order
        };
        assert_eq!(
            order.body(false),
            json!({"action": "reclaim", "filter": "state = dead", "dry_run": false, "rate_per_s": 1000,
                "max_jobs": "many", "max_cost_usd": "2.50", "force": true, "reason": "<b>"})
        );
    }

    #[test]
    fn a_count_is_confirmed_by_itself_alone() {
        assert!(is_count("1,234", 1_234) && is_count("1234", 1_234) && is_count(" 1 234 ", 1_234));
        assert!(!is_count("", 0) && !is_count("123", 1_234) && !is_count("01234", 1_234) && !is_count("all", 3));
    }

    #[test]
    fn jobs_are_named_one_by_one_up_to_a_bound() {
        assert_eq!(by_ids(&["a", "b"]).unwrap(), "id in (\"a\", \"b\")");
        assert_eq!(by_ids(&["x\") or (\""]).unwrap(), "id in (\"x\\\") or (\\\"\")");
        assert_eq!(by_ids(&[]).unwrap_err().at("/job").len(), 1);
        assert!(by_ids(&vec!["a"; IDS_MAX + 1]).unwrap_err().at("/job")[0].contains("at most 200"));
    }

    #[test]
    fn an_operation_is_told_by_its_effect() {
        let drain = Operation { action: "drain".into(), to: Some("delete".into()), ..Operation::default() };
        assert_eq!((drain.deed().as_str(), drain.runs_again()), ("drain to delete", false));
        assert_eq!((drain.title().as_str(), Operation::default().title().as_str()), ("Drain to delete", ""));
        assert!(drain.consequence().contains("forgotten"));
        let counted = Operation { matched: 40, skipped: 4, ..Operation::default() };
        assert_eq!((counted.would_touch(), counted.percent(0), counted.percent(80)), (36, 100, 50));
        let of = |action: &str| Operation {
            action: action.into(),
            filter: "queue = llm".into(),
            accepted_at: "2026-11-30T10:00:00.000Z".into(),
            ..Operation::default()
        };
        assert_eq!(of("cancel").bounded(), "queue = llm and accepted_at <= \"2026-11-30T10:00:00.000Z\"");
        assert_eq!(of("drain").bounded(), "queue = llm and finished_at <= \"2026-11-30T10:00:00.000Z\"");
        for action in ["redrive", "archive", "cancel", "delete", "reclaim"] {
            let one = Operation { action: action.into(), ..Operation::default() };
            assert!(!one.consequence().is_empty() && !one.of_states().is_empty(), "{action}");
        }
    }
}
