//! `longshore dlq archives` and `restore`: what was taken out of the journal, and the way back.

use std::io::{IsTerminal, Write};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, job::show},
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Lists them.
pub(super) async fn list(operator: &Operator, limit: u32, cursor: Option<String>) -> Outcome {
    let query = [("limit", Some(limit.to_string())), ("cursor", cursor)];
    let page = operator.client.get(&["v1", "archives"], &query).await?;
    operator.out.show(&page, || {
        let names = ["id", "began_at", "letters", "objects", "bytes", "cost_usd", "filter"];
        let headers = ["ID", "ASKED FOR AT", ">LETTERS", ">OBJECTS", ">BYTES", ">USD SPENT", "FILTER"];
        let row = |archive: &Value| names.map(|name| cell(archive, name)).into();
        output::table(&headers, items(&page, "archives").iter().map(row).collect());
        show::next_page(&page);
    });
    Ok(Exit::Ok)
}

/// Sums over the calls that put an archive back: each does a part.
#[derive(Default)]
struct Sums {
    letters: u64,
    restored: u64,
    there: u64,
    damaged: Vec<Value>,
}

/// Puts an archive back. Whoever interrupts it begins again: what is back is left alone.
pub(super) async fn restore(operator: &Operator, id: &str, dry_run: bool) -> Outcome {
    let (mut sums, mut cursor) = (Sums::default(), None::<String>);
    let watches = std::io::stderr().is_terminal() && !operator.out.json;
    loop {
        let mut order = json!({"dry_run": dry_run});
        if let Some(cursor) = cursor {
            order["cursor"] = json!(cursor);
        }
        let path = ["v1", "archives", id, "restore"];
        let part = operator.client.send_json(Method::POST, &path, Some(&order)).await?.body;
        for (sum, name) in
            [(&mut sums.letters, "letters"), (&mut sums.restored, "restored"), (&mut sums.there, "there")]
        {
            *sum += part.get(name).and_then(Value::as_u64).unwrap_or(0);
        }
        sums.damaged.extend(items(&part, "damaged").iter().cloned());
        cursor = part.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if watches {
            let mut err = std::io::stderr().lock();
            let end = if cursor.is_some() { "" } else { "\r\u{1b}[K" };
            let _ = write!(err, "\r\u{1b}[K{}{end}", summary(&sums, dry_run)).and_then(|()| err.flush());
        }
        if cursor.is_none() {
            return end(operator, id, &sums, dry_run);
        }
    }
}

fn summary(sums: &Sums, dry_run: bool) -> String {
    let done = if dry_run { "would put back" } else { "put back" };
    let Sums { letters, restored, there, .. } = sums;
    format!("{done} {restored} of {letters} letters; {there} are there already")
}

fn end(operator: &Operator, id: &str, sums: &Sums, dry_run: bool) -> Outcome {
    let Sums { letters, restored, there, damaged } = sums;
    let body = json!({
        "archive": id, "dry_run": dry_run, "letters": letters, "restored": restored, "there": there, "damaged": damaged,
    });
    operator.out.show(&body, || {
        output::line(&summary(sums, dry_run));
        for one in damaged {
            output::note(&format!("{} cannot be used: {}", cell(one, "object"), cell(one, "reason")));
        }
    });
    match (damaged.is_empty(), letters) {
        (true, _) => Ok(Exit::Ok),
        (false, 0) => Err(Failure::error("none of its objects can be used")),
        (false, _) => Ok(Exit::Partial),
    }
}
