//! The test command of the README, and the suites that are too heavy for it.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{dashboard_check, economics, faults, run, run_with, table, tidy};

/// Everything CI checks. How long each part took is printed at its end.
pub(crate) fn test(tests_only: bool, suites_only: bool) -> Result<()> {
    let mut parts = Parts::default();
    if !tests_only && !suites_only {
        parts.time("format", || run("cargo", &["fmt", "--all", "--check"]))?;
        parts.time("tidy", tidy::check)?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"];
        parts.time("clippy", || run("cargo", &clippy))?;
        let strict = [("RUSTDOCFLAGS", "--deny warnings")];
        let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
        parts.time("documentation", || run_with("cargo", &doc, &strict))?;
    }
    if !suites_only {
        parts.time("build of the tests", || run("cargo", &["test", "--workspace", "--locked", "--no-run"]))?;
        parts.time("tests", || run("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"]))?;
    }
    parts.time("faults", faults::run_short)?;
    parts.time("economics", economics::run_short)?;
    parts.time("dashboard", dashboard_check::run_short)?;
    parts.print();
    Ok(())
}

/// The parts of it so far.
#[derive(Default)]
struct Parts(Vec<(&'static str, Duration)>);

impl Parts {
    /// Does one. Where it fails, what was done before it is told as well.
    fn time(&mut self, name: &'static str, part: impl FnOnce() -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let done = part();
        self.0.push((name, began.elapsed()));
        if done.is_err() {
            self.print();
        }
        done
    }

    fn print(&self) {
        let row = |(name, took): &(&str, Duration)| vec![(*name).to_owned(), format!("{:.0}", took.as_secs_f64())];
        table::print("How long each part took", &["PART", ">SECONDS"], self.0.iter().map(row).collect());
    }
}
