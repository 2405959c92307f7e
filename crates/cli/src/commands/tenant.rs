//! `longshore tenant …`: who uses the installation, how much, stopping a tenant's jobs, and erasing it.

use std::{io::Read, path::Path, time::Duration};

use queue_core::time::parse_duration;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{
        Operator, pause_body,
        rates::{Rates, rates_of},
    },
    config::read_bounded,
    failure::{Exit, Failure, Outcome},
    output::{self, cell},
};

/// What can be done with tenants.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// List tenants: those for whom something was set, who have or had jobs, or a key
    List {
        /// Go on behind this one, `next_cursor` of the page before
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show what a tenant used and what it may still use
    Usage {
        /// Which
        tenant: String,
        /// Since: a time, or a duration back from now [default: the first of this month, UTC]
        #[arg(long)]
        since: Option<String>,
        /// Until: a time, or a duration back from now
        #[arg(long)]
        until: Option<String>,
    },
    /// Stop claims of a tenant's jobs; what runs goes on, new jobs are accepted and wait
    Pause {
        /// The tenant
        tenant: String,
        /// When the pause ends by itself: a time, or a duration from now
        #[arg(long)]
        until: Option<String>,
        /// Why, for those who ask `job why`
        #[arg(long)]
        reason: Option<String>,
    },
    /// Say how often a tenant's users and analysts may ask, all together. What is not named stays as it is
    Limit {
        /// The tenant
        tenant: String,
        #[command(flatten)]
        rates: Rates,
    },
    /// Start them again
    Resume {
        /// The tenant
        tenant: String,
    },
    /// Erase a tenant: its keys end, its secrets are destroyed, its jobs are cancelled, and all of its rows go; only counts what there is
    /// unless --yes is given
    Erase(Erase),
}

/// What is erased, or what is done with the log of it.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["tenant", "log", "replay"]))]
pub(crate) struct Erase {
    /// The tenant
    tenant: Option<String>,
    /// Do it: nothing brings back what is erased
    #[arg(long, short)]
    yes: bool,
    /// Wait until nothing is left, for as long as this
    #[arg(long, requires = "yes", value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Print the erase log, one JSON object a line: keep it beside your backups
    #[arg(long)]
    log: bool,
    /// After a restore: erase again what the log names, and what this file of `--log` names (- reads stdin)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    replay: Option<String>,
}

/// Tenants of one request of a replay.
const REPLAY_CHUNK: usize = 100;
/// Largest erase log that is read from stdin, in bytes.
const LOG_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Time between two looks at an erasure.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What is shown of the answer, in this order.
const FIELDS: [&str; 14] = [
    "tenant",
    "since",
    "until",
    "requests",
    "requests_unpriced",
    "jobs",
    "live_jobs",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "spend_usd",
    "wasted_usd",
    "charge_usd",
    "saved_usd",
];

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { cursor } => list(operator, cursor).await,
        Verb::Usage { tenant, since, until } => usage(operator, &tenant, since, until).await,
        Verb::Pause { tenant, until, reason } => change(operator, &tenant, &pause_body(until, reason)?, "paused").await,
        Verb::Limit { tenant, rates } => {
            let path = ["v1", "tenants", &tenant];
            let answer = operator.client.send_json(Method::PATCH, &path, Some(&rates.body())).await?;
            operator.out.show(&answer.body, || output::line(&format!("{tenant} may ask {}", rates_of(&answer.body))));
            Ok(Exit::Ok)
        }
        Verb::Resume { tenant } => change(operator, &tenant, &json!({"paused": false}), "resumed").await,
        Verb::Erase(Erase { log: true, .. }) => show_log(operator).await,
        Verb::Erase(Erase { replay: Some(file), yes, .. }) => replay(operator, &file, yes).await,
        Verb::Erase(Erase { tenant, yes: false, .. }) => count(operator, &tenant.unwrap_or_default()).await,
        Verb::Erase(Erase { tenant, wait, .. }) => erase(operator, &tenant.unwrap_or_default(), wait).await,
    }
}

async fn list(operator: &Operator, cursor: Option<String>) -> Outcome {
    let page =
        operator.client.get(&["v1", "tenants"], &[("limit", Some("500".to_owned())), ("cursor", cursor)]).await?;
    operator.out.show(&page, || {
        let names = ["tenant", "live", "paused", "weight", "backlog_max", "credential_policy", "reason"];
        let row = |tenant: &Value| names.map(|name| cell(tenant, name)).to_vec();
        let rows = output::items(&page, "tenants").iter().map(row).collect();
        output::table(&["TENANT", ">LIVE", "PAUSED", ">WEIGHT", ">BACKLOG MAX", "KEYS", "REASON"], rows);
        if let Some(next) = page["next_cursor"].as_str() {
            output::line(&format!("more: --cursor {next}"));
        }
    });
    Ok(Exit::Ok)
}

async fn usage(operator: &Operator, tenant: &str, since: Option<String>, until: Option<String>) -> Outcome {
    let query = [("since", since), ("until", until)];
    let body = operator.client.get(&["v1", "tenants", tenant, "usage"], &query).await?;
    operator.out.show(&body, || {
        let mut pairs: Vec<(String, String)> = FIELDS.map(|name| (name.replace('_', " "), cell(&body, name))).into();
        let left = body.get("quota_left").and_then(Value::as_object).into_iter().flatten();
        pairs.extend(left.filter(|(_, value)| !value.is_null()).map(|(name, value)| {
            (format!("{} left", name.replace('_', " ")), value.to_string().trim_matches('"').to_owned())
        }));
        let pairs: Vec<(&str, String)> = pairs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        output::fields(&pairs);
    });
    Ok(Exit::Ok)
}

async fn change(operator: &Operator, tenant: &str, body: &Value, done: &str) -> Outcome {
    let answer = operator.client.send_json(Method::PATCH, &["v1", "tenants", tenant], Some(body)).await?;
    operator.out.show(&answer.body, || output::line(&format!("{tenant} {done}")));
    Ok(Exit::Ok)
}

/// What would go.
async fn count(operator: &Operator, tenant: &str) -> Outcome {
    let path = ["v1", "tenants", tenant, "erase"];
    let answer = operator.client.send_json(Method::POST, &path, Some(&json!({"dry_run": true}))).await?;
    operator.out.show(&answer.body, || {
        let tables = output::items(&answer.body, "tables").iter().filter(|table| table["rows"] != json!(0));
        let rows: Vec<_> = tables.map(|table| vec![cell(table, "table"), cell(table, "rows")]).collect();
        if rows.is_empty() {
            return output::line(&format!("there is nothing of {tenant}"));
        }
        output::table(&["table", "rows"], rows);
        output::line("nothing was erased: give --yes to do it; sums of money (cost_days) stay, under a pseudonym");
    });
    Ok(Exit::Ok)
}

async fn erase(operator: &Operator, tenant: &str, wait: Option<Duration>) -> Outcome {
    let path = ["v1", "tenants", tenant, "erase"];
    let answer = operator.client.send_json(Method::POST, &path, Some(&json!({"confirm": tenant}))).await?;
    let mut erasure = answer.body;
    let give_up = wait.map(|wait| tokio::time::Instant::now() + wait);
    while erasure["state"] != json!("done") {
        if give_up.is_none_or(|give_up| tokio::time::Instant::now() >= give_up) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        let log = operator.client.get(&["v1", "erasures"], &[]).await?;
        let found = output::items(&log, "erasures").iter().find(|one| one["tenant"] == json!(tenant));
        erasure = found.cloned().ok_or_else(|| Failure::error("the erase log does not name it".to_owned()))?;
    }
    operator.out.show(&erasure, || {
        let (pseudonym, erased) = (cell(&erasure, "pseudonym"), cell(&erasure, "erased"));
        output::line(&match erasure["state"] == json!("done") {
            true => format!("{tenant} is erased: {erased} rows; its costs are kept as {pseudonym}"),
            false => format!(
                "{tenant} is being erased; its costs are kept as {pseudonym}; `tenant erase --log` shows how far"
            ),
        });
    });
    // Whoever waited for the end wants to know whether it came.
    let is_late = wait.is_some() && erasure["state"] != json!("done");
    Ok(if is_late { Exit::Partial } else { Exit::Ok })
}

async fn show_log(operator: &Operator) -> Outcome {
    let log = operator.client.get(&["v1", "erasures"], &[]).await?;
    for erasure in output::items(&log, "erasures") {
        // One a line with --json and without: it is a file to keep.
        output::line(&erasure.to_string());
    }
    Ok(Exit::Ok)
}

async fn replay(operator: &Operator, file: &str, yes: bool) -> Outcome {
    let text = match file {
        "" => String::new(),
        "-" => {
            let mut text = String::new();
            std::io::stdin().take(LOG_MAX_BYTES).read_to_string(&mut text)?;
            text
        }
        path => read_bounded(Path::new(path)).map_err(|error| Failure::usage(format!("{path}: {error}")))?,
    };
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read: Value = serde_json::from_str(line)
            .map_err(|error| Failure::usage(format!("line {} is not of an erase log: {error}", number + 1)))?;
        lines.push(json!({
            "tenant": read["tenant"], "pseudonym": read["pseudonym"], "accepted_at": read["accepted_at"],
        }));
    }
    if !yes && !lines.is_empty() {
        operator.out.show(&json!({"dry_run": true, "erasures": lines}), || {
            output::table(
                &["TENANT", "ERASED AT"],
                lines.iter().map(|line| vec![cell(line, "tenant"), cell(line, "accepted_at")]).collect(),
            );
            output::line("nothing was erased: give --yes to erase all of these here, too");
        });
        return Ok(Exit::Ok);
    }
    let send = async |body: Value| operator.client.send_json(Method::POST, &["v1", "erasures"], Some(&body)).await;
    let (mut imported, mut answer) = (0, send(json!({"replay": true})).await?.body);
    for chunk in lines.chunks(REPLAY_CHUNK) {
        imported += send(json!({"erasures": chunk})).await?.body["imported"].as_u64().unwrap_or_default();
    }
    answer["imported"] = json!(imported);
    operator.out.show(&answer, || {
        output::line(&format!(
            "{imported} tenants of the file are erased, {} of the log are looked for again",
            cell(&answer, "replayed")
        ));
    });
    Ok(Exit::Ok)
}
