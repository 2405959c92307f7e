//! `cargo xtask badinput`: everything that reads what others write, fed with a million generated inputs. The parsers and what must hold
//! of what they take are tests (`testkit::badinput` generates, `cargo test` runs some hundred inputs each); here each crate's test runs
//! alone in a process, so that its memory can be measured, with its share of the inputs.
//!
//! A seed names every input: `--only NAME --seed S --at N` writes that one into a file and reads it without a net.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    bar::{self, Bar, Judged},
    root, run as run_command, table,
};

/// The tests: crate, which of its executables, and the test in it.
const SUITES: [(&str, &[&str], &str); 4] = [
    ("queue-core", &["--test", "bad_input"], "whatever_is_read_is_taken_or_refused"),
    ("worker", &["--lib"], "bad_input::"),
    ("api", &["--test", "it"], "generated::"),
    ("cli", &["--bin", "longshore"], "config::bad_input::"),
];
/// What the lines begin with that are meant for us.
const MARK: &str = "badinput ";

/// How much is fed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Inputs in all, shared out among the parsers.
    #[arg(long, default_value_t = 1_000_000)]
    inputs: u64,
    /// Only parsers with this in their names.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the inputs begin: the same number, the same inputs. Without it one that was never used before.
    #[arg(long)]
    seed: Option<u64>,
    /// Reads one input only, and shows where it was written.
    #[arg(long, requires = "seed")]
    at: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    parser: String,
    share: u64,
}

#[derive(Debug, Deserialize)]
struct Fed {
    parser: String,
    inputs: u64,
    taken: u64,
    panics: u64,
    grown_bytes: u64,
    slowest_us: u64,
    total_ms: u64,
}

/// Feeds everything, prints the table, and fails if a parser did.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(new_seed);
    for (package, executable, _) in SUITES {
        run_command("cargo", &[&["test", "--locked", "--no-run", "--package", package], executable].concat())?;
    }
    if let Some(at) = arguments.at {
        let told = [("BADINPUT_AT", at.to_string()), ("BADINPUT_SEED", seed.to_string())];
        let mut is_good = true;
        for suite in SUITES {
            is_good &= feed(suite, &arguments.only, &told, |line| println!("{line}"))?;
        }
        ensure!(is_good, "input {at} of seed {seed} is a finding");
        return Ok(());
    }
    let mut parsers = Vec::new();
    for suite in SUITES {
        let (listed, is_good) = lines::<Listed>(suite, &arguments.only, &[("BADINPUT_LIST", "1".to_owned())])?;
        ensure!(is_good && !(listed.is_empty() && arguments.only.is_empty()), "{} names no parser", suite.0);
        parsers.push((suite, listed));
    }
    let shares: u64 = parsers.iter().flat_map(|(_, listed)| listed).map(|parser| parser.share).sum();
    ensure!(shares > 0, "no parser is called {:?}", arguments.only);
    let per_share = arguments.inputs.div_ceil(shares);
    println!("seed {seed}; {} inputs, {per_share} a share", arguments.inputs);
    let (mut fed, mut failed) = (Vec::new(), Vec::new());
    for (suite, listed) in parsers.iter().filter(|(_, listed)| !listed.is_empty()) {
        let (rows, failure) = of_suite(*suite, &arguments.only, per_share, seed)?;
        let missing = listed.iter().filter(|parser| rows.iter().all(|row| row.parser != parser.parser));
        failed.extend(
            failure.into_iter().chain(missing.map(|parser| format!("{}: was not fed to its end", parser.parser))),
        );
        fed.extend(rows);
    }
    show(&fed, seed);
    for failure in &failed {
        eprintln!("badinput: {failure}");
    }
    ensure!(
        failed.is_empty() && fed.iter().all(|row| row.panics == 0),
        "seed {seed}: {} findings",
        failed.len().max(1)
    );
    Ok(())
}

fn new_seed() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs())
}

/// What a suite's parsers came to, and what went wrong.
fn of_suite(suite: (&str, &[&str], &str), only: &str, per_share: u64, seed: u64) -> Result<(Vec<Fed>, Option<String>)> {
    let note = root().join("target").join("badinput-note");
    fs::write(&note, "")?;
    let told = [
        ("BADINPUT_PER_SHARE", per_share.to_string()),
        ("BADINPUT_SEED", seed.to_string()),
        ("BADINPUT_NOTE", note.to_string_lossy().into_owned()),
    ];
    let began = Instant::now();
    let (rows, is_good) = lines::<Fed>(suite, only, &told)?;
    eprintln!("  {}: {:.0} s", suite.0, began.elapsed().as_secs_f64());
    let last = fs::read_to_string(&note).unwrap_or_default();
    let (number, parser) = last.split_once(' ').unwrap_or_default();
    let failure = format!(
        "{}: failed; the last input was {number} of {}: cargo xtask badinput --only '{}' --seed {seed} --at {number}",
        suite.0,
        parser.trim(),
        parser.trim()
    );
    Ok((rows, (!is_good).then_some(failure)))
}

/// What a suite says in lines of ours, and whether its test passed.
fn lines<T: for<'de> Deserialize<'de>>(
    suite: (&str, &[&str], &str),
    only: &str,
    told: &[(&str, String)],
) -> Result<(Vec<T>, bool)> {
    let mut found = Vec::new();
    let is_good = feed(suite, only, told, |line| {
        // The test harness may have begun the line.
        match line.find(MARK).map(|at| serde_json::from_str(&line[at + MARK.len()..])) {
            Some(Ok(row)) => found.push(row),
            _ => eprintln!("    {line}"),
        }
    })?;
    Ok((found, is_good))
}

/// Runs a suite's test in a process of its own; whether it passed.
fn feed(
    (package, executable, test): (&str, &[&str], &str),
    only: &str,
    told: &[(&str, String)],
    mut hear: impl FnMut(&str),
) -> Result<bool> {
    let mut child = Command::new("cargo")
        .args(["test", "--locked", "--quiet", "--package", package])
        .args(executable)
        .args(["--", "--nocapture", "--test-threads=1", test])
        .env("BADINPUT_ONLY", only)
        .envs(told.iter().map(|(name, value)| (name, value)))
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo did not start")?;
    let Some(output) = child.stdout.take() else { bail!("cargo has no output") };
    for line in BufReader::new(output).lines() {
        let line = line?;
        if !line.trim().is_empty() {
            hear(&line);
        }
    }
    Ok(child.wait()?.success())
}

fn show(fed: &[Fed], seed: u64) {
    let rows = fed.iter().map(|row| {
        let each = |sum: f64| table::figure(sum / row.inputs.max(1) as f64);
        let slowest = table::figure(row.slowest_us as f64 / 1e3);
        let grown = table::figure(row.grown_bytes as f64 / 1_048_576.0);
        let taken = each(100.0 * row.taken as f64);
        vec![
            row.parser.clone(),
            count(row.inputs),
            taken,
            count(row.panics),
            slowest,
            each(1e3 * row.total_ms as f64),
            grown,
        ]
    });
    let headers = ["parser", ">inputs", ">taken %", ">panics", ">slowest ms", ">mean µs", ">memory + MiB"];
    table::print(&format!("Bad input, seed {seed}"), &headers, rows.collect());
    let sum = |of: fn(&Fed) -> u64| fed.iter().map(of).sum::<u64>() as f64;
    let most = |of: fn(&Fed) -> u64| fed.iter().map(of).max().unwrap_or_default() as f64;
    let judged =
        |what: &str, figure, unit: &str, bar| Judged { what: what.to_owned(), figure, unit: unit.to_owned(), bar };
    bar::print(
        &format!("{} parsers, {} inputs, seed {seed}", fed.len(), count(fed.iter().map(|row| row.inputs).sum())),
        &[
            judged("panics", sum(|row| row.panics), "", Some(Bar::AtMost(0.0))),
            judged("slowest input", most(|row| row.slowest_us) / 1e6, "s", Some(Bar::AtMost(20.0))),
            judged(
                "most memory that a parser took",
                most(|row| row.grown_bytes) / 1_048_576.0,
                "MiB",
                Some(Bar::AtMost(128.0)),
            ),
        ],
    );
}

/// A whole number, with commas.
fn count(number: u64) -> String {
    if number < 100 { number.to_string() } else { table::figure(number as f64) }
}
