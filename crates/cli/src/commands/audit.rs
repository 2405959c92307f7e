//! `longshore audit …`: what was done by whom, and whether somebody has changed the log since.
//!
//! `verify` believes nobody: it computes the hashes of all rows itself, from the server or from an exported file.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use queue_core::{
    audit::{AuditEntry, AuditHead, AuditRow, Chain, Tampered},
    hex,
};
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
        /// And that the last row of this earlier export is still there as it was
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
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
        Verb::Verify { file, since } => {
            let mut check = Check::new(since.as_deref().map(end_of_file).transpose()?.flatten());
            let ended = match &file {
                Some(path) => of_file(path, &mut check)?,
                None => of_server(operator, &mut check, None).await?,
            };
            Ok(told(operator, &check.chain, ended))
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

/// A log that is looked at from its beginning.
struct Check {
    chain: Chain,
    /// The end of an earlier export, until its row has come by.
    earlier: Option<AuditHead>,
    /// The row behind which the log begins.
    floor: Option<AuditHead>,
}

impl Check {
    fn new(earlier: Option<AuditHead>) -> Self {
        Self { chain: Chain::from_the_beginning(), earlier, floor: None }
    }

    /// The log begins behind this row: those up to it were taken out for their age.
    fn begin_behind(&mut self, floor: AuditHead) {
        (self.chain, self.floor) = (Chain::from_the_floor(floor), Some(floor));
        // The last row of the earlier export is gone, too; had it been another one, what follows would not fit.
        self.earlier.take_if(|head| (head.day, head.seq) == (floor.day, floor.seq) && head.hash == floor.hash);
    }

    fn follow(&mut self, row: &AuditRow) -> Result<(), Tampered> {
        self.chain.follow(row)?;
        let here = |head: &AuditHead| (head.day, head.seq) == (row.day, row.seq);
        match self.earlier.take_if(|head| here(head)) {
            Some(head) if head.hash != row.hash => Err(Tampered {
                day: row.day,
                seq: row.seq,
                reason: "it was another row at the time of the earlier export: the log was written anew".into(),
            }),
            _ => Ok(()),
        }
    }

    /// At the end, which the journal knows as `head`.
    fn end(&self, head: Option<AuditHead>) -> Result<(), Tampered> {
        self.chain.end(head)?;
        self.earlier.map_or(Ok(()), |AuditHead { day, seq, .. }| {
            let reason = match self.floor {
                Some(floor) if (day, seq) < (floor.day, floor.seq) => {
                    "that export is older than what is kept here: compare it with the objects that these days were written to"
                }
                _ => "it was the last row of the earlier export and is not there: the log was written anew",
            };
            Err(Tampered { day, seq, reason: reason.into() })
        })
    }
}

/// What takes rows as they came.
type Sink<'s> = dyn FnMut(&Value) -> Result<(), Failure> + 's;

/// Looks at the server's log, and hands on its rows as they came.
async fn of_server(
    operator: &Operator,
    check: &mut Check,
    mut to: Option<&mut Sink<'_>>,
) -> Result<Result<(), Tampered>, Failure> {
    // The end before the rows: what is added meanwhile lies behind it.
    let (head, floor) = ends_of_server(operator).await?;
    if let Some(floor) = floor {
        check.begin_behind(floor);
    }
    let (mut cursor, mut wrong) = (floor.map(|floor| format!("a{}.{}", floor.day, i64::MAX)), None);
    loop {
        let query = [("order", Some("asc".to_owned())), ("limit", Some(PAGE.to_string())), ("cursor", cursor)];
        let body = operator.client.get(&["v1", "audit"], &query).await?;
        for row in items(&body, "rows") {
            if let Some(to) = &mut to {
                to(row)?;
            }
            if wrong.is_none() {
                wrong = check.follow(&read_row(row)?).err();
            }
            let is_last = head.is_some_and(|head| row["day"] == head.day && row["seq"] == head.seq);
            if is_last || (wrong.is_some() && to.is_none()) {
                return Ok(wrong.map_or_else(|| check.end(head), Err));
            }
        }
        cursor = body["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(wrong.map_or_else(|| check.end(head), Err));
        }
    }
}

/// The end of the server's log, and the row behind which it begins, if its beginning was taken out.
async fn ends_of_server(operator: &Operator) -> Result<(Option<AuditHead>, Option<AuditHead>), Failure> {
    let body = operator.client.get(&["v1", "audit", "heads"], &[]).await?;
    let head = items(&body, "heads").first().map(read_head).transpose()?;
    Ok((head, body.get("floor").map(read_head).transpose()?))
}

/// The lines of an exported file: rows, and the end that the journal knew behind them.
fn lines_of(path: &Path) -> Result<impl Iterator<Item = Result<Value, Failure>>, Failure> {
    let shown = path.display().to_string();
    let failed = move |reason: String| Failure::usage(format!("{shown}: {reason}"));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    Ok(BufReader::new(file).lines().map(move |line| {
        let line = line.map_err(|error| failed(error.to_string()))?;
        if line.len() > LINE_MAX_BYTES {
            return Err(failed("a line is too long to be a row".to_owned()));
        }
        serde_json::from_str(&line).map_err(|error| failed(error.to_string()))
    }))
}

fn end_of_file(path: &Path) -> Result<Option<AuditHead>, Failure> {
    let mut end = None;
    for line in lines_of(path)? {
        end = line?.get("head").map(read_head).transpose()?.or(end);
    }
    Ok(end)
}

fn of_file(path: &Path, check: &mut Check) -> Result<Result<(), Tampered>, Failure> {
    let mut head = None;
    for line in lines_of(path)? {
        let line = line?;
        match (line.get("head"), line.get("floor")) {
            (Some(end), _) => head = Some(read_head(end)?),
            // Behind which rows the file begins stands in its first line.
            (None, Some(floor)) if check.chain.rows() == 0 => check.chain = Chain::behind(read_head(floor)?),
            (None, _) => {
                if let Err(tampered) = check.follow(&read_row(&line)?) {
                    return Ok(Err(tampered));
                }
            }
        }
    }
    Ok(check.end(head))
}

fn told(operator: &Operator, chain: &Chain, ended: Result<(), Tampered>) -> Exit {
    let rows = chain.rows();
    match ended {
        Ok(()) => {
            let last = chain.last().map(|head| head.exported());
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
    // What the journal knows as the end, and not what came: a log whose end was cut must not certify itself.
    let (head, floor) = ends_of_server(operator).await?;
    if let Some(floor) = floor {
        writeln!(file, "{}", json!({"floor": floor.exported()})).map_err(failed)?;
    }
    let (mut rows, mut check) = (0_u64, Check::new(None));
    let mut keep = |row: &Value| {
        rows += 1;
        writeln!(file, "{row}").map_err(failed)
    };
    let ended = of_server(operator, &mut check, Some(&mut keep)).await?;
    if let Some(end) = check.chain.last().max(head) {
        writeln!(file, "{}", json!({"head": end.exported()})).map_err(failed)?;
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    if ended.is_err() {
        return Ok(told(operator, &check.chain, ended));
    }
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

fn unhex(value: &Value, name: &str) -> Result<[u8; 32], Failure> {
    value[name].as_str().and_then(hex::read).ok_or_else(|| strange(name))
}
