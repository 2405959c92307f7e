//! Jobs as people read them.

use serde_json::Value;

use crate::output::{self, cell, items};

/// Longest text in a table's cell, in characters.
const CELL_MAX_CHARS: usize = 60;

/// Whether a job in this state has ended.
pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "dead" | "cancelled")
}

/// A list of jobs.
pub(crate) fn jobs(jobs: &[Value]) {
    let row = |job: &Value| {
        let error = job.get("error").map(|error| cell(error, "message")).unwrap_or_default();
        vec![
            cell(job, "id"),
            cell(job, "state"),
            cell(job, "kind"),
            cell(job, "queue"),
            cell(job, "attempts"),
            cell(job, "accepted_at"),
            cell(job, "finished_at"),
            cell(job, "cost_usd"),
            short(&error),
        ]
    };
    let headers = ["ID", "STATE", "KIND", "QUEUE", ">ATTEMPTS", "ACCEPTED", "FINISHED", ">USD", "ERROR"];
    output::table(&headers, jobs.iter().map(row).collect());
}

/// How to see the next page, where there is one.
pub(crate) fn next_page(page: &Value) {
    let cursor = cell(page, "next_cursor");
    if !cursor.is_empty() {
        output::note(&format!("there are more: --cursor {cursor}"));
    }
}

/// Everything about one job; its result where it has one.
pub(crate) fn job(job: &Value) {
    let names = [
        "id",
        "state",
        "kind",
        "queue",
        "tenant",
        "priority",
        "operation",
        "batch_id",
        "unique_key",
        "concurrency_key",
        "tags",
        "attempts",
        "max_attempts",
        "accepted_at",
        "run_at",
        "deadline",
        "timeout",
        "finished_at",
        "served_by",
        "trace_id",
    ];
    let mut pairs: Vec<(&str, String)> = names.map(|name| (name, cell(job, name))).into();
    pairs.push(("progress", progress(job)));
    pairs.push(("usage", usage(job)));
    pairs.push(("cost", cost(job)));
    pairs.push(("error", error(job)));
    pairs.push(("cancel_reason", cell(job, "cancel_reason")));
    output::fields(&pairs);
    if let Some(value) = job.get("result").filter(|result| !result.is_null()) {
        output::line("");
        result(value);
    }
}

/// A dead letter: the job, its payload and what was tried.
pub(crate) fn letter(letter: &Value) {
    job(letter);
    if let Some(payload) = letter.get("payload") {
        output::line(&format!("\npayload\n{payload:#}"));
    }
    output::line("");
    attempts(items(letter, "history"));
}

/// A job that has ended: its result, or why it has none, and what it took.
pub(crate) fn finished(job: &Value) {
    if let Some(value) = job.get("result").filter(|result| !result.is_null()) {
        result(value);
    }
    summary(job);
}

/// One line on stderr about how a job ended and what it took.
pub(crate) fn summary(job: &Value) {
    let attempts = cell(job, "attempts");
    let mut parts = vec![cell(job, "state"), cell(job, "served_by")];
    parts.push(if attempts == "1" { "1 attempt".into() } else { format!("{attempts} attempts") });
    parts.extend([usage(job), cost(job)]);
    parts.retain(|part| !part.is_empty());
    output::note(&format!("-- {}", parts.join(" · ")));
    let reason = cell(job, "cancel_reason");
    if !reason.is_empty() {
        output::note(&output::plain(&format!("cancelled because: {reason}")));
    }
    let error = error(job);
    if !error.is_empty() && cell(job, "state") != "succeeded" {
        output::note(&output::plain(&error));
    }
}

/// The text of a chat's answer; empty where the result is something else.
pub(crate) fn answer_text(job: &Value) -> String {
    job.get("result").map(|result| cell(result, "text")).unwrap_or_default()
}

/// A result: the text of an answer, the outline of vectors, else JSON.
pub(crate) fn result(result: &Value) {
    if let Some(text) = result.get("text").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        return output::line(&output::plain(text));
    }
    match vectors_outline(result) {
        Some(outline) => output::line(&outline),
        None => output::line(&format!("{result:#}")),
    }
}

/// Vectors are for programs: a person gets their number and length.
fn vectors_outline(result: &Value) -> Option<String> {
    let vectors = ["vectors", "embeddings", "data"].iter().find_map(|name| result.get(*name)?.as_array())?;
    let first = vectors.first()?;
    let numbers = first.as_array().or_else(|| first.get("embedding")?.as_array())?;
    Some(format!("{} vectors of {} numbers; --json prints them", vectors.len(), numbers.len()))
}

/// What a job waits for.
pub(crate) fn why(why: &Value) {
    output::line(&format!("{}  {}: {}", cell(why, "id"), cell(why, "state"), output::plain(&cell(why, "summary"))));
    for wait in items(why, "waits") {
        output::line(&format!("  {}", output::plain(&sentence(wait))));
    }
}

/// One thing that a job waits for, with the words of whoever set it so.
fn sentence(wait: &Value) -> String {
    match cell(wait, "reason") {
        reason if reason.is_empty() => cell(wait, "message"),
        reason => format!("{} ({reason})", cell(wait, "message")),
    }
}

/// The attempts of a job.
pub(crate) fn attempts(attempts: &[Value]) {
    let row = |attempt: &Value| {
        vec![
            cell(attempt, "number"),
            cell(attempt, "outcome"),
            cell(attempt, "started_at"),
            cell(attempt, "finished_at"),
            cell(attempt, "worker"),
            error(attempt),
        ]
    };
    output::table(
        &[">NUMBER", "OUTCOME", "STARTED", "FINISHED", "WORKER", "ERROR"],
        attempts.iter().map(row).collect(),
    );
}

fn progress(job: &Value) -> String {
    match job.get("progress") {
        Some(at) => format!("{} of {}, {}", cell(at, "done"), cell(at, "total"), cell(at, "step")),
        None => String::new(),
    }
}

fn usage(job: &Value) -> String {
    let count = |name: &str| job.get("usage").and_then(|usage| usage.get(name)).and_then(Value::as_u64).unwrap_or(0);
    match (count("tokens_in"), count("tokens_out")) {
        (0, 0) => String::new(),
        (sent, got) => format!("{sent} tokens in, {got} out"),
    }
}

fn cost(job: &Value) -> String {
    match job.get("cost_usd") {
        Some(Value::String(usd)) => format!("${usd}"),
        _ if is_final(&cell(job, "state")) && !usage(job).is_empty() => {
            "cost unknown: no price for the model".to_owned()
        }
        _ => String::new(),
    }
}

fn error(holder: &Value) -> String {
    match holder.get("error").filter(|error| error.is_object()) {
        Some(error) => format!("{} ({}): {}", cell(error, "class"), cell(error, "code"), cell(error, "message")),
        None => String::new(),
    }
}

/// `text` on one line and short enough for a table.
pub(crate) fn short(text: &str) -> String {
    let line = text.replace(['\n', '\t'], " ");
    match line.char_indices().nth(CELL_MAX_CHARS) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_to_wait_names_who_wants_it_so() {
        let wait = json!({"waits_for": "queue_paused", "message": "its queue is paused", "reason": "deploy"});
        assert_eq!(sentence(&wait), "its queue is paused (deploy)");
        assert_eq!(sentence(&json!({"message": "no worker is running"})), "no worker is running");
    }

    #[test]
    fn progress_is_one_line_and_absent_without_one() {
        let job = json!({"progress": {"done": 3, "total": 12, "step": "map/0002"}});
        assert_eq!(progress(&job), "3 of 12, map/0002");
        assert_eq!(progress(&json!({})), "");
    }

    #[test]
    fn vectors_are_outlined() {
        let result = json!({"vectors": [[0.1, 0.2], [0.3, 0.4]]});
        assert_eq!(vectors_outline(&result).unwrap(), "2 vectors of 2 numbers; --json prints them");
        assert_eq!(vectors_outline(&json!({"slept_ms": 5})), None);
    }

    #[test]
    fn an_unknown_price_is_said_and_not_shown_as_nothing() {
        let job = json!({"state": "succeeded", "cost_usd": null, "usage": {"tokens_in": 3, "tokens_out": 1}});
        assert_eq!(cost(&job), "cost unknown: no price for the model");
        assert_eq!(cost(&json!({"cost_usd": "0.000123"})), "$0.000123");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        assert_eq!(short(&"ü\n".repeat(100)).chars().count(), CELL_MAX_CHARS + 1);
    }
}
