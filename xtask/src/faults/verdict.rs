//! The table at the end of a scenario.

use std::time::Duration;

use comfy_table::{LineStyle, Table, TableStyle};

use super::check::{Report, Restart};

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

fn rows(report: &Report) -> Vec<(&'static str, String)> {
    let faults = format!(
        "{} kills ({} of workers), {} flushes, Redis restarted empty {}, Postgres stopped {}",
        report.kills, report.worker_kills, report.flushes, report.redis_restarts, report.postgres_stops
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
        ("drained after", seconds(report.drain)),
        ("verdict", verdict),
    ]
}

fn gap(restart: Option<&Restart>) -> String {
    restart.map_or_else(|| "none".to_owned(), |restart| format!("{} ({})", seconds(restart.gap), restart.mark))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
