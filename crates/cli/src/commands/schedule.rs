//! `longshore schedule …`: jobs that are submitted by the clock.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    commands::{Operator, job::submit::read_source},
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// What can be done with schedules. A schedule is named by its id, or by its name where only one is called so.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show schedules, newest first
    List {
        /// Only those of a tenant
        #[arg(long)]
        tenant: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show one: its next runs, what became of its ticks, its template
    Show {
        /// Its id or name
        schedule: String,
    },
    /// Make one
    Create(Box<Create>),
    /// Change one; what is not named stays. With another time it begins anew, now
    Update(Box<Update>),
    /// Let its ticks go until it is resumed
    Pause {
        /// Its id or name
        schedule: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
    /// Go on, with the ticks from now on
    Resume {
        /// Its id or name
        schedule: String,
    },
    /// Show when a schedule would be due, without making it
    Preview {
        #[command(flatten)]
        when: When,
        /// Behind this moment: a time, or a duration back from now; now unless named
        #[arg(long)]
        after: Option<String>,
        /// So many
        #[arg(long, default_value_t = 5)]
        count: u32,
    },
    /// Submit the ticks of a time that has passed, whatever became of them then
    Backfill {
        /// Its id or name
        schedule: String,
        /// From this moment on: a time, or a duration back from now such as 7d
        #[arg(long, required_unless_present = "end")]
        from: Option<String>,
        /// Up to and with this one; now unless named
        #[arg(long)]
        to: Option<String>,
        /// Only count the ticks
        #[arg(long)]
        dry_run: bool,
        /// End the one that runs
        #[arg(long, conflicts_with_all = ["from", "to", "dry_run"])]
        end: bool,
    },
    /// Delete one; its jobs stay
    Delete {
        /// Its id or name
        schedule: String,
    },
}

/// A new schedule.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// What it is called
    name: String,
    /// Whose it is; the key's tenant unless named
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Begin paused
    #[arg(long)]
    paused: bool,
}

/// A change of one.
#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// Its id or name
    schedule: String,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// When a schedule is due.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct When {
    /// Five fields, or six with seconds before them: '30 2 * * MON-FRI'
    #[arg(long, conflicts_with_all = ["every", "at"])]
    cron: Option<String>,
    /// The zone of --cron, e.g. Europe/Berlin; UTC unless named
    #[arg(long = "time-zone", visible_alias = "tz")]
    time_zone: Option<String>,
    /// Again and again, after this time, e.g. 15m
    #[arg(long, conflicts_with = "at")]
    every: Option<String>,
    /// The first tick of --every; now unless named
    #[arg(long)]
    starting_at: Option<String>,
    /// Once
    #[arg(long)]
    at: Option<String>,
}

impl When {
    fn pairs(self) -> [(&'static str, Option<String>); 5] {
        let Self { cron, time_zone, every, starting_at, at } = self;
        [("cron", cron), ("time_zone", time_zone), ("every", every), ("starting_at", starting_at), ("at", at)]
    }
}

/// What is set of a schedule.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Settings {
    #[command(flatten)]
    when: When,
    /// The job, as `POST /v1/jobs` takes it: JSON text, @file, or - for stdin
    #[arg(long)]
    template: Option<String>,
    /// What happens to a tick while the run before has not ended: skip (unless named), queue, cancel or allow
    #[arg(long)]
    overlap: Option<String>,
    /// What becomes of ticks that were missed: skip, latest (unless named) or all
    #[arg(long)]
    missed: Option<String>,
    /// How old those may be, with --missed all
    #[arg(long)]
    missed_window: Option<String>,
    /// For people
    #[arg(long)]
    description: Option<String>,
}

impl Settings {
    fn body(self) -> Result<Map<String, Value>, Failure> {
        let Self { when, template, overlap, missed, missed_window, description } = self;
        let rest =
            [("overlap", overlap), ("missed", missed), ("missed_window", missed_window), ("description", description)];
        let mut body = Map::new();
        for (name, value) in when.pairs().into_iter().chain(rest) {
            if let Some(value) = value {
                body.insert(name.to_owned(), json!(value));
            }
        }
        if let Some(template) = template {
            let text = read_source(&template)?;
            let value: Value = serde_json::from_str(&text)
                .map_err(|error| Failure::usage(format!("--template is not JSON: {error}")))?;
            body.insert("template".to_owned(), value);
        }
        Ok(body)
    }
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List { tenant, limit } => list(operator, tenant, limit).await,
        Verb::Show { schedule } => {
            let id = find(operator, &schedule).await?;
            let body = operator.client.get(&["v1", "schedules", &id], &[]).await?;
            operator.out.show(&body, || show(&body));
            Ok(Exit::Ok)
        }
        Verb::Create(create) => {
            let Create { name, tenant, settings, paused } = *create;
            let mut body = settings.body()?;
            body.insert("name".to_owned(), json!(name));
            if let Some(tenant) = tenant {
                body.insert("tenant".to_owned(), json!(tenant));
            }
            if paused {
                body.insert("paused".to_owned(), json!(true));
            }
            let made =
                operator.client.send_json(Method::POST, &["v1", "schedules"], Some(&Value::Object(body))).await?;
            operator.out.show(&made.body, || show(&made.body));
            Ok(Exit::Ok)
        }
        Verb::Update(update) => {
            let Update { schedule, name, settings } = *update;
            let mut body = settings.body()?;
            if let Some(name) = name {
                body.insert("name".to_owned(), json!(name));
            }
            change(operator, &schedule, Value::Object(body)).await
        }
        Verb::Pause { schedule, reason } => {
            let mut body = json!({"paused": true});
            if let Some(reason) = reason {
                body["reason"] = json!(reason);
            }
            change(operator, &schedule, body).await
        }
        Verb::Resume { schedule } => change(operator, &schedule, json!({"paused": false})).await,
        Verb::Preview { when, after, count } => {
            let mut query = when.pairs().to_vec();
            query.extend([("after", after), ("count", Some(count.to_string()))]);
            let body = operator.client.get(&["v1", "schedules", "preview"], &query).await?;
            operator.out.show(&body, || {
                let row = |run: &Value| vec![cell(run, "local"), cell(run, "at")];
                output::table(&["LOCAL", "UTC"], items(&body, "runs").iter().map(row).collect());
            });
            Ok(Exit::Ok)
        }
        Verb::Backfill { schedule, end: true, .. } => end_backfill(operator, &schedule).await,
        Verb::Backfill { schedule, from, to, dry_run, .. } => {
            let body = json!({"from": from, "to": to, "dry_run": dry_run});
            backfill(operator, &schedule, body, dry_run).await
        }
        Verb::Delete { schedule } => {
            let id = find(operator, &schedule).await?;
            let answer = operator.client.send_json(Method::DELETE, &["v1", "schedules", &id], None).await?;
            operator.out.show(&answer.body, || output::line(&format!("{schedule} is deleted; its jobs stay")));
            Ok(Exit::Ok)
        }
    }
}

/// The id of a schedule that is named by its id or its name.
async fn find(operator: &Operator, named: &str) -> Result<String, Failure> {
    if named.parse::<uuid::Uuid>().is_ok() {
        return Ok(named.to_owned());
    }
    let query = [("name", Some(named.to_owned()))];
    let found = operator.client.get(&["v1", "schedules"], &query).await?;
    match items(&found, "schedules") {
        [one] => Ok(cell(one, "id")),
        [] => Err(Failure::not_found(format!("no schedule is called {named}"))),
        _ => Err(Failure::usage(format!("several tenants have a schedule called {named}: name it by its id"))),
    }
}

async fn list(operator: &Operator, tenant: Option<String>, limit: u32) -> Outcome {
    let query = [("tenant", tenant), ("limit", Some(limit.to_string()))];
    let body = operator.client.get(&["v1", "schedules"], &query).await?;
    operator.out.show(&body, || {
        let row = |one: &Value| {
            let next = items(one, "next_runs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
            let ticks = one.get("ticks").unwrap_or(&Value::Null);
            let error = one.get("last_error").map(|error| cell(error, "code")).unwrap_or_default();
            let [id, tenant, name, state] = ["id", "tenant", "name", "state"].map(|name| cell(one, name));
            vec![id, tenant, name, due(one), state, next, cell(ticks, "submitted"), cell(ticks, "missed"), error]
        };
        let headers = ["ID", "TENANT", "NAME", "DUE", "STATE", "NEXT", ">SUBMITTED", ">MISSED", "ERROR"];
        output::table(&headers, items(&body, "schedules").iter().map(row).collect());
        if body["next_cursor"].is_string() {
            output::note("there are more: --limit shows up to 500");
        }
    });
    Ok(Exit::Ok)
}

/// When a schedule is due, in a few words.
fn due(one: &Value) -> String {
    match (one["cron"].as_str(), one["every"].as_str()) {
        (Some(cron), _) => format!("{cron} {}", cell(one, "time_zone")),
        (_, Some(every)) => format!("every {every}"),
        _ => format!("at {}", cell(one, "at")),
    }
}

fn show(body: &Value) {
    let names =
        ["id", "name", "tenant", "state", "reason", "overlap", "missed", "description", "last_tick_at", "last_job"];
    let mut pairs: Vec<(&str, String)> = names.map(|name| (name, cell(body, name))).to_vec();
    pairs.insert(3, ("due", due(body)));
    pairs.insert(4, ("in words", cell(body, "words")));
    pairs.push(("next_runs", cell(body, "next_runs")));
    let ticks = body.get("ticks").unwrap_or(&Value::Null);
    let counts = ["submitted", "overlapped", "missed", "refused"];
    pairs.push(("ticks", counts.map(|name| format!("{} {name}", cell(ticks, name))).join(", ")));
    if let Some(error) = body.get("last_error").filter(|error| error.is_object()) {
        let [tick, code, detail] = ["tick", "code", "detail"].map(|name| cell(error, name));
        let after = if error["retries"] == true { " (is tried again)" } else { "" };
        pairs.push(("last_error", format!("{tick}: {code}: {detail}{after}")));
    }
    if let Some(backfill) = body.get("backfill").filter(|backfill| backfill.is_object()) {
        let [state, submitted, ticks, refused] =
            ["state", "submitted", "ticks", "refused"].map(|name| cell(backfill, name));
        pairs.push(("backfill", format!("{state}: {submitted} of {ticks} submitted, {refused} refused")));
    }
    pairs.push(("template", cell(body, "template")));
    output::fields(&pairs);
}

async fn change(operator: &Operator, named: &str, body: Value) -> Outcome {
    let id = find(operator, named).await?;
    let answer = operator.client.send_json(Method::PATCH, &["v1", "schedules", &id], Some(&body)).await?.body;
    operator.out.show(&answer, || show(&answer));
    Ok(Exit::Ok)
}

async fn backfill(operator: &Operator, named: &str, body: Value, dry_run: bool) -> Outcome {
    let id = find(operator, named).await?;
    let path = ["v1", "schedules", &id, "backfill"];
    let answer = operator.client.send_json(Method::POST, &path, Some(&body)).await?.body;
    operator.out.show(&answer, || {
        if !dry_run {
            return show(&answer);
        }
        let [ticks, first, last] = ["ticks", "first", "last"].map(|name| cell(&answer, name));
        output::line(&format!("{ticks} ticks from {first} to {last}; nothing was ordered"));
    });
    Ok(Exit::Ok)
}

async fn end_backfill(operator: &Operator, named: &str) -> Outcome {
    let id = find(operator, named).await?;
    let answer = operator.client.send_json(Method::DELETE, &["v1", "schedules", &id, "backfill"], None).await?.body;
    operator.out.show(&answer, || show(&answer));
    Ok(Exit::Ok)
}
