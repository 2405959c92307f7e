//! Where each microsecond of a job goes: the processor time of every process between two marks of `longshore bench`,
//! and inside Redis and Postgres by command and by statement.

use std::{collections::BTreeMap, fs, time::Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::installation::Shared;
use crate::table::{self, figure};

/// Microseconds of the clock tick in which Linux counts processor time: `USER_HZ` is 100 on the machines of today.
const TICK_US: f64 = 10_000.0;
/// Commands and statements below this many microseconds a job are left out of the tables.
const SHOWN_MIN_US: f64 = 0.5;
/// What Postgres counted.
const STATEMENTS: &str = include_str!("statements.sql");

/// One step of a run. Every `us` is of one job.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// As `longshore bench` calls it.
    pub(crate) step: String,
    /// Jobs that it did.
    pub(crate) jobs: u64,
    /// From its begin to its end.
    pub(crate) wall_us: f64,
    /// Processor time by process.
    pub(crate) processor_us: BTreeMap<&'static str, f64>,
    /// Redis by command, the dearest first.
    pub(crate) redis: Vec<Command>,
    /// Postgres by statement, the dearest first; nothing where it does not count them.
    pub(crate) postgres: Vec<Statement>,
}

/// A command of Redis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Command {
    command: String,
    calls: f64,
    us: f64,
}

/// A statement of Postgres.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Statement {
    statement: String,
    calls: f64,
    rows: f64,
    us: f64,
    wal_bytes: f64,
}

/// Where a step began.
pub(crate) struct Begun {
    wall: Instant,
    ticks: BTreeMap<&'static str, u64>,
}

/// The processes that are looked at.
pub(crate) struct Profiler<'a> {
    /// The stores, where they are processes.
    pub(crate) shared: Option<&'a Shared>,
    /// The server's process.
    pub(crate) longshore: u32,
    /// The client's process.
    pub(crate) bench: u32,
}

impl Profiler<'_> {
    /// Notes where everyone is, and lets the stores count from nothing.
    pub(crate) fn begin(&self) -> Result<Begun> {
        if let Some(shared) = self.shared {
            shared.redis.command(&["CONFIG", "RESETSTAT"]);
            if shared.counts_statements {
                shared.postgres.run("postgres", "SELECT pg_stat_statements_reset()");
            }
        }
        Ok(Begun { ticks: self.ticks()?, wall: Instant::now() })
    }

    /// What was used since the begin, by each of so many jobs.
    pub(crate) fn end(&self, begun: &Begun, step: &str, jobs: u64) -> Result<Step> {
        let (wall, ticks) = (begun.wall.elapsed(), self.ticks()?);
        let each = jobs.max(1) as f64;
        let used = |(&name, &now): (&&'static str, &u64)| {
            let before = begun.ticks.get(name).copied().unwrap_or(now);
            (name, now.saturating_sub(before) as f64 * TICK_US / each)
        };
        let (mut redis, mut postgres) = (vec![], vec![]);
        if let Some(shared) = self.shared {
            redis = commands(&shared.redis.command(&["INFO", "commandstats"]), each);
            if shared.counts_statements {
                postgres = statements(&shared.postgres.run("postgres", STATEMENTS), each)?;
            }
        }
        Ok(Step {
            step: step.to_owned(),
            jobs,
            wall_us: wall.as_secs_f64() * 1e6 / each,
            processor_us: ticks.iter().map(used).collect(),
            redis,
            postgres,
        })
    }

    fn ticks(&self) -> Result<BTreeMap<&'static str, u64>> {
        let mut ticks = BTreeMap::new();
        if let Some(shared) = self.shared {
            let redis = shared.redis.pid().context("Redis runs")?;
            ticks.insert("redis", own_ticks(redis).context("the processor time of Redis cannot be read")?);
            let postgres = family_ticks(shared.postgres.pid());
            ticks.insert("postgres", postgres.context("the processor time of Postgres cannot be read")?);
        }
        for (name, pid) in [("longshore", self.longshore), ("bench", self.bench)] {
            ticks.insert(name, own_ticks(pid).with_context(|| format!("the processor time of {name} cannot be read"))?);
        }
        Ok(ticks)
    }
}

/// A line of `/proc/PID/stat`, as far as it matters here.
struct Stat {
    parent: u32,
    own: u64,
    /// Of its children that have ended and were waited for.
    ended_children: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields are counted behind the command's name, which may hold spaces and brackets.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own: number(11)? + number(12)?,
            ended_children: number(13)? + number(14)?,
        })
    }
}

fn own_ticks(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.own)
}

/// A process with all its children: those that run, and those that ended.
fn family_ticks(pid: u32) -> Option<u64> {
    let head = Stat::of(pid)?;
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter_map(Stat::of).filter(|stat| stat.parent == pid).map(|stat| stat.own);
    Some(head.own + head.ended_children + children.sum::<u64>())
}

/// Reads lines such as `cmdstat_fcall:calls=12,usec=345,…`. A script's own commands are counted in it and by
/// themselves.
fn commands(info: &str, jobs: f64) -> Vec<Command> {
    let read = |line: &str| {
        let (command, numbers) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        let number = |name: &str| {
            numbers.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse::<f64>().ok())
        };
        Some(Command { command: command.to_owned(), calls: number("calls")?, us: number("usec")? / jobs })
    };
    let mut commands: Vec<_> = info.lines().filter_map(read).collect();
    commands.sort_by(|one, other| other.us.total_cmp(&one.us));
    commands
}

fn statements(json: &str, jobs: f64) -> Result<Vec<Statement>> {
    #[derive(Deserialize)]
    struct Row {
        statement: String,
        calls: f64,
        rows: f64,
        exec_us: f64,
        wal_bytes: f64,
    }
    let rows: Vec<Row> = serde_json::from_str(json).context("what Postgres counted cannot be read")?;
    let statement = |Row { statement, calls, rows, exec_us, wal_bytes }| Statement {
        statement,
        calls,
        rows,
        us: exec_us / jobs,
        wal_bytes: wal_bytes / jobs,
    };
    Ok(rows.into_iter().map(statement).collect())
}

/// Prints the profile of all steps. `counts_statements`: of shared stores, whether Postgres does.
pub(crate) fn print(steps: &[Step], counts_statements: Option<bool>) {
    let processes: &[&str] = match counts_statements {
        Some(_) => &["redis", "postgres", "longshore", "bench"],
        None => &["longshore", "bench"],
    };
    let of_processes = |step: &Step| {
        let each: Vec<f64> = processes.iter().filter_map(|name| step.processor_us.get(name).copied()).collect();
        let sum: f64 = each.iter().sum();
        let mut row = vec![step.step.clone(), step.jobs.to_string(), figure(step.wall_us)];
        row.extend(each.iter().chain([&sum]).map(|&us| figure(us)));
        row.push(format!("{:.2}", sum / step.wall_us.max(f64::MIN_POSITIVE)));
        row
    };
    let mut headers = vec!["STEP".to_owned(), ">JOBS".to_owned(), ">WALL".to_owned()];
    headers.extend(processes.iter().map(|name| format!(">{}", name.to_uppercase())));
    headers.extend([">SUM".to_owned(), ">CORES".to_owned()]);
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    table::print(
        "Profile: microseconds of wall time and of processor time a job, by process",
        &headers,
        steps.iter().map(of_processes).collect(),
    );
    let Some(counts_statements) = counts_statements else { return };
    let of_redis = |step: &Step| {
        let shown = step.redis.iter().filter(|command| command.us >= SHOWN_MIN_US);
        let row =
            |one: &Command| vec![step.step.clone(), one.command.clone(), figure(one.us), format!("{}", one.calls)];
        shown.map(row).collect::<Vec<_>>()
    };
    table::print(
        "Redis by command (what a script calls is in the script's time, and again by itself)",
        &["STEP", "COMMAND", ">µs A JOB", ">CALLS"],
        steps.iter().flat_map(of_redis).collect(),
    );
    if !counts_statements {
        println!("\nPostgres by statement: left out, its contrib package with pg_stat_statements is not installed");
        return;
    }
    let of_postgres = |step: &Step| {
        let shown = step.postgres.iter().filter(|statement| statement.us >= SHOWN_MIN_US);
        let row = |one: &Statement| {
            let (calls, rows) = (format!("{}", one.calls), format!("{}", one.rows));
            vec![step.step.clone(), one.statement.clone(), figure(one.us), calls, rows, figure(one.wal_bytes)]
        };
        shown.map(row).collect::<Vec<_>>()
    };
    table::print(
        "Postgres by statement (time from its start to its end in the server, waits for locks and disk included)",
        &["STEP", "STATEMENT", ">µs A JOB", ">CALLS", ">ROWS", ">WAL BYTES A JOB"],
        steps.iter().flat_map(of_postgres).collect(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let text = "7 (a (b) c) S 3 7 7 0 -1 4194560 1 2 0 0 11 22 33 44 20 0 1 0 5 6 7";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (3, 33, 77));
        assert!(Stat::parse("7 (cut off").is_none());
    }

    #[test]
    fn a_family_is_its_head_its_children_and_those_that_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = std::process::id();
        // Its own first: they grow while this runs.
        let own = own_ticks(pid).unwrap();
        let family = family_ticks(pid);
        let parent = Stat::of(child.id()).unwrap().parent;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(parent, pid);
        assert!(family.unwrap() >= own);
        assert_eq!(family_ticks(u32::MAX), None);
    }

    #[test]
    fn commands_are_sorted_by_what_a_job_costs() {
        let info = "# Commandstats\r\ncmdstat_hget:calls=4,usec=20,usec_per_call=5.00\r\n\
                    cmdstat_client|info:calls=1,usec=7,rejected_calls=0\r\ncmdstat_fcall:calls=2,usec=300,x=1\r\n";
        let read = commands(info, 10.0);
        let names: Vec<_> = read.iter().map(|one| (one.command.as_str(), one.calls, one.us)).collect();
        assert_eq!(names, [("fcall", 2.0, 30.0), ("hget", 4.0, 2.0), ("client|info", 1.0, 0.7)]);
    }

    #[test]
    fn statements_are_counted_by_the_job() {
        let json = r#"[{"statement":"settles","calls":2,"rows":200,"exec_us":500.0,"wal_bytes":4000}]"#;
        let read = statements(json, 100.0).unwrap();
        assert_eq!((read[0].us, read[0].wal_bytes, read[0].rows), (5.0, 40.0, 200.0));
        assert!(statements("ERROR", 1.0).is_err());
    }
}
