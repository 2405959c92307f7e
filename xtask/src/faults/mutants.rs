//! Planted bugs: a suite that finds nothing proves nothing. Each is in one binary that no release can be, and is chosen
//! when a process starts.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    catalogue::{MUTANTS, Mutant},
    fleet::binary,
    is_root, power, publish,
    run::{self, Settings},
    scenario::Scenario,
};
use crate::{root, run as run_command, table};

/// Within this time each has to be found, servers included.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// A setting of Postgres that F7 must find, as a planted bug; and the images that are enough for it.
const POWER_LOSS: &str = power::WEAK[0];
const IMAGES: u32 = 3;
/// With this seed each of them has been found; another may be asked for.
const SEED: u64 = 1;

/// Builds the binary, lets each bug loose, and fails if one is not found in time, or if one is found where none is.
pub(super) fn run(given: Option<&Path>, seed: Option<u64>, publishes: bool) -> Result<()> {
    let binary = match given {
        Some(file) => file.to_owned(),
        None => build()?,
    };
    let seed = seed.unwrap_or(SEED);
    let mut rows = MUTANTS.iter().map(|mutant| try_one(mutant, seed, &binary)).collect::<Result<Vec<_>>>()?;
    if is_root() {
        rows.push(try_power_loss(seed, &binary)?);
    } else {
        println!("\n{POWER_LOSS}: left out, it wants root, since it mounts a disk");
    }
    let missed = rows.iter().filter(|row| row.is_missed).count();
    let told: Vec<Vec<String>> = rows.into_iter().map(|row| row.cells).collect();
    if publishes {
        publish::write_bugs(&told, seed)?;
    }
    table::print("Planted bugs", &["BUG", "FOUND AS", ">SECONDS", "WITHOUT IT", "VERDICT"], told);
    ensure!(missed == 0, "{missed} planted bugs were not found as such");
    Ok(())
}

/// A debug build with everything that a release refuses.
pub(super) fn build() -> Result<PathBuf> {
    run_command("cargo", &["build", "--locked", "--package", "cli", "--features", "sabotage"])?;
    binary(&root(), true)
}

struct Row {
    cells: Vec<String>,
    is_missed: bool,
}

fn try_one(mutant: &Mutant, seed: u64, binary: &Path) -> Result<Row> {
    let began = Instant::now();
    let found = violations(&mutant.scenario, "with", seed, binary)?;
    let took = began.elapsed();
    // The same run of the same binary without the bug: what is found is the bug and nothing else.
    let sound = Scenario { sabotage: None, ..mutant.scenario };
    let without = violations(&sound, "without", seed, binary)?;
    Ok(row(mutant.name, &found, took, &without))
}

/// Images of a disk on which answers came before writes must have lost jobs, and others none.
fn try_power_loss(seed: u64, binary: &Path) -> Result<Row> {
    let lost = |is_weak: bool| -> Result<Vec<String>> {
        let folder = root().join(format!("target/faults/power-loss-{seed}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let settings = Settings { lengths: 1, seed, binary: binary.to_owned(), folder: folder.clone() };
        let lost = power::lost(&settings, is_weak, IMAGES).with_context(|| format!("see {}", folder.display()))?;
        fs::remove_dir_all(&folder)?;
        Ok(if lost > 0 { vec![format!("Lost × {lost}")] } else { vec![] })
    };
    let began = Instant::now();
    let found = lost(true)?;
    let took = began.elapsed();
    Ok(row(POWER_LOSS, &found, took, &lost(false)?))
}

fn row(name: &str, found: &[String], took: Duration, without: &[String]) -> Row {
    let is_missed = found.is_empty() || took > FOUND_WITHIN || !without.is_empty();
    let said = |kinds: &[String]| if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
    let verdict = if is_missed { "NOT CAUGHT" } else { "caught" };
    let seconds = format!("{:.0}", took.as_secs_f64());
    Row { cells: vec![name.to_owned(), said(found), seconds, said(without), verdict.to_owned()], is_missed }
}

/// The promises that a run broke, each with how often.
fn violations(scenario: &Scenario, word: &str, seed: u64, binary: &Path) -> Result<Vec<String>> {
    let folder = root().join(format!("target/faults/{}-{word}-{seed}-{}", scenario.name, std::process::id()));
    fs::create_dir_all(&folder)?;
    let settings = Settings { lengths: 1, seed, binary: binary.to_owned(), folder: folder.clone() };
    let report = run::scenario(scenario, &settings).with_context(|| format!("see {}", folder.display()))?;
    for violation in report.violations.iter().take(3) {
        println!("  {violation}");
    }
    let mut kinds: Vec<_> = report.violations.iter().map(|violation| violation.rule).collect();
    kinds.sort_unstable();
    kinds.dedup();
    fs::remove_dir_all(&folder)?;
    Ok(kinds.into_iter().map(|rule| format!("{rule:?} × {}", report.count(rule))).collect())
}
