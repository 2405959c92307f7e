//! `longshore audit …`: what was done by whom, and whether somebody has changed the log since.
//!
//! `verify` believes nobody: it computes the hashes of all rows itself, from the server or from an exported file.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use queue_core::audit::{AuditEntry, AuditHead, AuditRow, Chain, Tampered};
use serde_json::{Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// Rows of one question.
const PAGE: usize = 500;
/// Longest line of an exported file that is read, in bytes: a row is far below it.
const LINE_MAX_BYTES: usize = 1024 * 1024;

/// What can be done with the audit log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show what was done, newest first
    List {
        /// At or after: a time, or a duration back such as 7d
        #[arg(long)]
        since: Option<String>,
        /// Before
        #[arg(long)]
        until: Option<String>,
        /// By this key, by its public part
        #[arg(long)]
        actor: Option<String>,
        /// By keys of this tenant
        #[arg(long)]
        tenant: Option<String>,
        /// Whose method and route contain this
        #[arg(long)]
        action: Option<String>,
        /// That were answered so, such as 403
        #[arg(long)]
        status: Option<u16>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Compute the hashes of all rows and say which row does not fit, if one does not
    Verify {
        /// Of an exported file instead of the server's log
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Write all rows, oldest first, one JSON object a line: `audit verify --file` checks them
    Export {
        /// Where to
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { since, until, actor, tenant, action, status, limit } => {
            let query = [
                ("since", since),
                ("until", until),
                ("actor", actor),
                ("tenant", tenant),
                ("action", action),
                ("status", status.map(|status| status.to_string())),
            ];
            list(operator, &query, limit).await
        }
        Verb::Verify { file } => {
            let (chain, ended) = match &file {
                Some(path) => of_file(path)?,
                None => of_server(operator).await?,
            };
            Ok(told(operator, &chain, ended))
        }
        Verb::Export { to } => export(operator, &to).await,
    }
}

async fn list(operator: &Operator, query: &[(&str, Option<String>)], limit: usize) -> Outcome {
    let (mut rows, mut cursor) = (Vec::new(), None);
    while rows.len() < limit {
        let mut asked = query.to_vec();
        asked.push(("limit", Some((limit - rows.len()).min(PAGE).to_string())));
        asked.push(("cursor", cursor));
        let body = operator.client.get(&["v1", "audit"], &asked).await?;
        rows.extend(items(&body, "rows").iter().cloned());
        cursor = body["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    operator.out.show(&json!({"rows": rows}), || {
        let names = ["at", "actor", "role", "tenant", "address", "action", "subject", "status"];
        let row = |one: &Value| {
            let mut cells: Vec<String> = names.map(|name| cell(one, name)).into();
            cells.push(cell(&one["detail"], "reason"));
            cells
        };
        let headers = ["AT", "KEY", "ROLE", "TENANT", "FROM", "ACTION", "PATH", ">STATUS", "REASON"];
        output::table(&headers, rows.iter().map(row).collect());
    });
    Ok(Exit::Ok)
}

/// What a chain came to, and what was wrong with it.
type Checked = (Chain, Result<(), Tampered>);

async fn of_server(operator: &Operator) -> Result<Checked, Failure> {
    let (mut chain, mut cursor) = (Chain::default(), None);
    // The end before the rows: what is added meanwhile lies behind it.
    let head = head_of_server(operator).await?;
    loop {
        let query = [("order", Some("asc".to_owned())), ("limit", Some(PAGE.to_string())), ("cursor", cursor)];
        let body = operator.client.get(&["v1", "audit"], &query).await?;
        for row in items(&body, "rows") {
            if let Err(tampered) = chain.follow(&read_row(row)?) {
                return Ok((chain, Err(tampered)));
            }
            if head.is_some() && chain.last() == head {
                let ended = chain.end(head);
                return Ok((chain, ended));
            }
        }
        cursor = body["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            let ended = chain.end(head);
            return Ok((chain, ended));
        }
    }
}

async fn head_of_server(operator: &Operator) -> Result<Option<AuditHead>, Failure> {
    let body = operator.client.get(&["v1", "audit", "heads"], &[]).await?;
    items(&body, "heads").first().map(read_head).transpose()
}

fn of_file(path: &Path) -> Result<Checked, Failure> {
    let failed = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut chain = Chain::default();
    let mut head = None;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| failed(error.to_string()))?;
        if line.len() > LINE_MAX_BYTES {
            return Err(failed("a line is too long to be a row".to_owned()));
        }
        let value: Value = serde_json::from_str(&line).map_err(|error| failed(error.to_string()))?;
        if let Some(end) = value.get("head") {
            head = Some(read_head(end)?);
            continue;
        }
        if let Err(tampered) = chain.follow(&read_row(&value)?) {
            return Ok((chain, Err(tampered)));
        }
    }
    let ended = chain.end(head);
    Ok((chain, ended))
}

fn told(operator: &Operator, chain: &Chain, ended: Result<(), Tampered>) -> Exit {
    let rows = chain.rows();
    match ended {
        Ok(()) => {
            let last = chain.last().map(|head| json!({"day": head.day, "seq": head.seq, "hash": hex(&head.hash)}));
            operator.out.show(&json!({"ok": true, "rows": rows, "head": last}), || {
                output::line(&format!("{rows} rows, each as it was written"));
            });
            Exit::Ok
        }
        Err(tampered) => {
            operator.out.show(&json!({"ok": false, "rows": rows, "tampered": tampered}), || {
                let Tampered { day, seq, reason } = &tampered;
                output::line(&format!("row {seq} of day {day}: {reason}"));
                output::line(&format!("the {rows} rows before it are as they were written"));
            });
            Exit::Error
        }
    }
}

async fn export(operator: &Operator, to: &Path) -> Outcome {
    let failed = |error: std::io::Error| Failure::error(format!("{}: {error}", to.display()));
    let mut file = BufWriter::new(File::create_new(to).map_err(failed)?);
    let (mut rows, mut cursor, mut last) = (0_u64, None, None);
    loop {
        let query = [("order", Some("asc".to_owned())), ("limit", Some(PAGE.to_string())), ("cursor", cursor)];
        let body = operator.client.get(&["v1", "audit"], &query).await?;
        for row in items(&body, "rows") {
            writeln!(file, "{row}").map_err(failed)?;
            rows += 1;
            last = Some(json!({"day": row["day"], "seq": row["seq"], "hash": row["hash"]}));
        }
        cursor = body["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    if let Some(last) = last {
        writeln!(file, "{}", json!({"head": last})).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    operator.out.show(&json!({"file": to.display().to_string(), "rows": rows}), || {
        output::line(&format!("{}: {rows} rows", to.display()));
    });
    Ok(Exit::Ok)
}

fn strange(what: &str) -> Failure {
    Failure::error(format!("a row of the audit log has no {what} that can be read"))
}

fn read_head(value: &Value) -> Result<AuditHead, Failure> {
    let number = |name: &str| value[name].as_i64().ok_or_else(|| strange(name));
    Ok(AuditHead {
        day: i32::try_from(number("day")?).map_err(|_| strange("day"))?,
        seq: number("seq")?,
        hash: unhex(value, "hash")?,
    })
}

fn read_row(value: &Value) -> Result<AuditRow, Failure> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let needed = |name: &str| text(name).ok_or_else(|| strange(name));
    let number = |name: &str| value[name].as_i64().ok_or_else(|| strange(name));
    Ok(AuditRow {
        day: i32::try_from(number("day")?).map_err(|_| strange("day"))?,
        seq: number("seq")?,
        entry: AuditEntry {
            at: needed("at")?.parse().map_err(|_| strange("time"))?,
            actor: text("actor"),
            role: text("role"),
            tenant: text("tenant"),
            address: text("address"),
            action: needed("action")?,
            subject: needed("subject")?,
            status: u16::try_from(number("status")?).map_err(|_| strange("status"))?,
            detail: needed("detail_text")?,
            request_id: needed("request_id")?,
        },
        prev: unhex(value, "prev")?,
        hash: unhex(value, "hash")?,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value, name: &str) -> Result<[u8; 32], Failure> {
    let text = value[name].as_str().filter(|text| text.len() == 64 && text.is_ascii()).ok_or_else(|| strange(name))?;
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).map_err(|_| strange(name))?;
    }
    Ok(bytes)
}
