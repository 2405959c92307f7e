//! The table at the end of a scenario.

use std::time::Duration;

use comfy_table::{LineStyle, Table, TableStyle};

use super::{
    check::{Leaks, Report, Restart, Rule},
    scenario::Demands,
};

/// A line below the header and no others.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Violations that are printed; the rest is counted.
const SHOWN_MAX: usize = 20;

/// Prints what a scenario came to.
pub(crate) fn print(name: &str, report: &Report) {
    let mut table = Table::new();
    table.load_style(STYLE).set_header([name, ""]);
    for (what, figure) in rows(report) {
        table.add_row([what, &figure]);
    }
    println!("\n{table}");
    for violation in report.violations.iter().take(SHOWN_MAX) {
        println!("  {violation}");
    }
    if let Some(more) = report.violations.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        println!("  and {more} more");
    }
}

/// The figures of a fault in one line: what its scenario demands, and what is never allowed.
pub(crate) fn in_short(demands: Demands, report: &Report) -> String {
    let never = [(Rule::Lost, "lost"), (Rule::SettledTwice, "settled twice"), (Rule::Charge, "wrongly charged")];
    let mut words: Vec<String> = never.map(|(rule, word)| format!("{} {word}", report.count(rule))).into();
    let mut say = |is_demanded: bool, text: String| words.extend(is_demanded.then_some(text));
    let restart = report.restart.as_ref().map(|restart| restart.gap);
    say(demands.restart_within.is_some(), format!("called again within {}", time(restart)));
    say(demands.ready_within.is_some(), format!("ready within {}", time(report.ready)));
    say(demands.resumes_within.is_some(), format!("calls went on within {}", time(report.resumed)));
    say(demands.refuses_within.is_some(), format!("refused within {}", time(report.refusal)));
    say(demands.starts_within.is_some(), format!("started within {}", time(report.late)));
    let (well, limping) = (time(report.accept_p99), time(report.accept_p99_without_redis));
    say(demands.accepts_without_redis, format!("202 within {limping} (p99) without Redis, {well} with it"));
    say(demands.taken_over > 0, format!("{} jobs taken over", report.taken_over));
    say(report.fenced > 0, format!("{} settles fenced", report.fenced));
    say(demands.no_attempt_fenced, format!("{} attempts lost", report.lost_attempts));
    say(demands.herd_within.is_some(), format!("202 within {} (p99) in the herd", time(report.herd_p99)));
    let (died, convicted) = (report.ended_by_jobs, report.convicted);
    say(died > 0, format!("{died} workers ended by jobs, {convicted} others convicted"));
    let (recycled, held) = (report.recycled, report.timed_out_held);
    say(recycled > 0, format!("{recycled} of them recycled, {held} handlers that did not yield timed out"));
    let (first, second) = report.races;
    let contradictions = report.count(Rule::Race);
    say(demands.races > 0, format!("{contradictions} contradictions in {} races", first + second));
    let (met, good, gap) = (report.kills_in_backups, report.good_backups, time(report.backup_gap));
    say(
        demands.taken_over_within.is_some(),
        format!("{met} makers of backups killed, begun anew within {gap}, {good} good and whole"),
    );
    let (grown, keys) = (report.growth_kib / 1024, report.redis_keys);
    say(demands.grows_mib.is_some(), format!("grown by at most {grown} MiB, {keys} keys left in Redis"));
    say(demands.leaks_nothing, leaks(report));
    say(!report.crash_points.is_empty(), format!("{} crash points met", report.crash_points.len()));
    say(true, format!("drained in {}", seconds(report.drain)));
    words.join(", ")
}

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let faults = format!(
        "{} kills ({} of workers), {} flushes, Redis restarted {}, Postgres stopped {}, {} workers stood still, {} crash \
         points, {} other troubles",
        report.kills,
        report.worker_kills,
        report.flushes,
        report.redis_restarts,
        report.postgres_stops,
        report.zombies,
        report.crash_points.len(),
        report.troubles
    );
    let verdict = match report.violations.len() {
        0 => "held".to_owned(),
        count => format!("BROKEN: {count} violations"),
    };
    vec![
        ("faults done", faults),
        ("starts refused without a store", report.refused_starts.to_string()),
        ("requests", format!("{}, sent again {} times", report.requests, report.come_agains)),
        ("jobs accepted", report.accepted.to_string()),
        ("succeeded", report.succeeded.to_string()),
        ("dead", format!("{}, of them convicted {}", report.dead, report.convicted)),
        ("provider calls", report.calls.to_string()),
        ("attempts lost", report.lost_attempts.to_string()),
        ("jobs called again", format!("{}, of them answered twice {}", report.repeated, report.paid_twice)),
        ("ledger rows `maybe`", report.maybe.to_string()),
        ("answers that nobody could record", report.unrecorded.to_string()),
        (
            "calls under way at a flush, least",
            report.under_way_at_flush.map_or_else(|| "no flush".to_owned(), |least| least.to_string()),
        ),
        ("longest gap kill to restart", gap(report.restart.as_ref())),
        ("the same, with outages", gap(report.restart_with_outages.as_ref())),
        ("longest time without a call", seconds(report.silence)),
        ("longest time from a kill to ready", time(report.ready)),
        ("longest time until calls went on", time(report.resumed)),
        ("longest wait for a refusal without the journal", time(report.refusal)),
        ("202 within (p99), all well and without Redis", {
            format!("{}, {}", time(report.accept_p99), time(report.accept_p99_without_redis))
        }),
        ("latest start of a job", time(report.late)),
        ("taken over from workers that stood still", report.taken_over.to_string()),
        ("settles fenced", report.fenced.to_string()),
        ("most that a process grew", format!("{} MiB", report.growth_kib / 1024)),
        ("workers ended by jobs", format!("{}, of them recycled {}", report.ended_by_jobs, report.recycled)),
        ("handlers that did not yield, timed out", report.timed_out_held.to_string()),
        ("202 within (p99) in a herd", time(report.herd_p99)),
        (
            "races won by cancel, pause, redrive; by end, claim, archive",
            format!("{}, {}", report.races.0, report.races.1),
        ),
        ("backups called good, makers killed", format!("{}, {}", report.good_backups, report.kills_in_backups)),
        ("latest new begin of such a backup", time(report.backup_gap)),
        ("keys in Redis at the end", report.redis_keys.to_string()),
        ("memory, keys, connections", leaks(report)),
        ("drained after", seconds(report.drain)),
        ("verdict", verdict),
    ]
}

/// What memory, keys and connections did.
fn leaks(report: &Report) -> String {
    let Leaks { slopes, keys_before, connections, .. } = &report.leaks;
    let memory = match report.leaks.steepest() {
        Some((process, slope)) => format!("{process} {slope:+.0} KiB/min at most, over {} long lives", slopes.len()),
        None => "memory not judged (no life of 15 minutes)".to_owned(),
    };
    let keys = keys_before
        .map_or_else(String::new, |before| format!(", {before} keys before and {} after", report.redis_keys));
    let connections: String = connections
        .iter()
        .map(|(store, (early, late))| format!(", {early} connections to {store:?} and then {late}"))
        .collect();
    format!("{memory}{keys}{connections}")
}

fn gap(restart: Option<&Restart>) -> String {
    restart.map_or_else(|| "none".to_owned(), |restart| format!("{} ({})", seconds(restart.gap), restart.mark))
}

fn time(time: Option<Duration>) -> String {
    match time {
        None => "not seen".to_owned(),
        Some(short) if short < Duration::from_secs(1) => format!("{} ms", short.as_millis()),
        Some(long) => seconds(long),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
