//! `cargo xtask faults`: load, faults, histories, verdict.
//!
//! `catalogue` lists every fault with what must hold; each scenario is data. For each: throw-away servers, the processes
//! of the release binary, an open-loop load, faults by a seeded plan, rest, and a checker that reads what the witnesses
//! wrote and the final tables.

mod catalogue;
mod check;
mod fleet;
mod history;
mod inject;
mod links;
mod load;
mod mutants;
mod plan;
mod publish;
mod run;
mod scenario;
mod tables;
mod verdict;
mod witness;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    catalogue::{FAULTS, Fault, Proof, SHORT, SHORT_SEED},
    check::Report,
    run::Settings,
    scenario::Scenario,
};
pub(crate) use self::{fleet::binary, publish::check as check_published};
use crate::{root, run as run_command, table};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these, of F1 to F25, everything, flush-only, crash-points and short: `--only F1,F5`. Without it, all that this
    /// command proves itself
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Decides load and faults; a run prints its own
    #[arg(long)]
    seed: Option<u64>,
    /// How often the load is as long as it would be
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_440))]
    minutes: u32,
    /// The debug build instead of the release build
    #[arg(long)]
    debug: bool,
    /// This binary instead of one that is built now
    #[arg(long, value_name = "FILE", conflicts_with = "debug")]
    binary: Option<PathBuf>,
    /// Keeps the histories of runs without a violation, too
    #[arg(long)]
    keep: bool,
    /// Lists the faults and how each is proved; starts nothing. With --publish, docs/reliability.md is written as it is known
    #[arg(long)]
    list: bool,
    /// Writes what came of it into docs/reliability.md
    #[arg(long)]
    publish: bool,
    /// Plants the bugs that the suite must find, one after the other, and fails where it does not within a minute
    #[arg(long, conflicts_with_all = ["only", "publish", "debug"])]
    mutants: bool,
    /// Judges the histories in this folder again, by the demands of `--only`; starts nothing
    #[arg(long, value_name = "FOLDER", requires = "only")]
    judge: Option<PathBuf>,
}

/// What a scenario came to.
struct Outcome {
    /// The fault that it shows.
    id: &'static str,
    scenario: &'static Scenario,
    seed: u64,
    report: Report,
    histories: PathBuf,
}

/// The short form, with the debug build that `cargo test` has just made.
pub(crate) fn run_short() -> Result<()> {
    let binary = binary(&root(), true)?;
    finish(vec![run_one("short", &SHORT, 1, SHORT_SEED, &binary)?], false)
}

/// Runs the suite and fails if a promise is broken.
pub(crate) fn run_suite(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        if arguments.publish {
            publish::write(&[])?;
        }
        return list();
    }
    if arguments.mutants {
        return mutants::run(arguments.binary.as_deref(), arguments.seed);
    }
    let chosen = choose(&arguments.only)?;
    if let Some(folder) = &arguments.judge {
        let [(id, scenario)] = chosen[..] else { bail!("the histories of which scenario? `--only` names several") };
        let (report, histories) = (run::judge(folder, scenario)?, folder.clone());
        return conclude(&[Outcome { id, scenario, seed: 0, report, histories }]);
    }
    let binary = match &arguments.binary {
        Some(file) => file.clone(),
        None => build(arguments.debug, chosen.iter().any(|(_, scenario)| scenario.sabotage.is_some()))?,
    };
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let one =
        |(id, scenario): (&'static str, &'static Scenario)| run_one(id, scenario, arguments.minutes, seed, &binary);
    let outcomes = chosen.into_iter().map(one).collect::<Result<Vec<Outcome>>>()?;
    if arguments.publish {
        publish::write(&outcomes)?;
    }
    finish(outcomes, arguments.keep)
}

/// The binary, built; one that can be sabotaged is no release.
fn build(debug: bool, sabotage: bool) -> Result<PathBuf> {
    match (debug, sabotage) {
        (true, true) => return mutants::build(),
        (false, true) => bail!("no release can be sabotaged: crash-points wants --debug"),
        (true, false) => run_command("cargo", &["build", "--locked", "--package", "cli"])?,
        (false, false) => run_command("cargo", &["build", "--release", "--locked", "--package", "cli"])?,
    }
    binary(&root(), debug)
}

fn run_one(id: &'static str, scenario: &'static Scenario, lengths: u32, seed: u64, binary: &Path) -> Result<Outcome> {
    let folder = root().join(format!("target/faults/{}-{seed}-{}", scenario.name, std::process::id()));
    fs::create_dir_all(&folder)?;
    let settings = Settings { lengths, seed, binary: binary.to_owned(), folder };
    let report = run::scenario(scenario, &settings)
        .with_context(|| format!("{}; the histories are in {}", scenario.name, settings.folder.display()))?;
    verdict::print(scenario.name, &report);
    Ok(Outcome { id, scenario, seed, report, histories: settings.folder })
}

/// Keeps the histories of broken promises, and fails with them.
fn finish(outcomes: Vec<Outcome>, keep: bool) -> Result<()> {
    for Outcome { report, histories, .. } in &outcomes {
        if report.violations.is_empty() && !keep {
            fs::remove_dir_all(histories)?;
        } else {
            println!("kept: {}", histories.display());
        }
    }
    fail_if_broken(&outcomes)
}

/// Prints the tables; an error if a promise is broken.
fn conclude(outcomes: &[Outcome]) -> Result<()> {
    outcomes.iter().for_each(|outcome| verdict::print(outcome.scenario.name, &outcome.report));
    fail_if_broken(outcomes)
}

fn fail_if_broken(outcomes: &[Outcome]) -> Result<()> {
    let violations: usize = outcomes.iter().map(|outcome| outcome.report.violations.len()).sum();
    ensure!(violations == 0, "{violations} violations");
    Ok(())
}

/// The scenarios that are wanted, each with its fault: a name is that of a fault or of one of its scenarios.
fn choose(only: &[String]) -> Result<Vec<(&'static str, &'static Scenario)>> {
    let here = |fault: &'static Fault| match fault.proof {
        Proof::Here(scenarios) => scenarios.iter().map(|scenario| (fault.id, scenario)).collect(),
        _ => vec![],
    };
    let all: Vec<_> = FAULTS.iter().flat_map(here).chain([("short", &SHORT)]).collect();
    if only.is_empty() {
        let usual = |(_, scenario): &(_, &Scenario)| scenario.name != SHORT.name && scenario.sabotage.is_none();
        return Ok(all.into_iter().filter(usual).collect());
    }
    let mut chosen = Vec::new();
    for name in only {
        let named: Vec<_> = all.iter().filter(|(id, scenario)| id == name || scenario.name == name).copied().collect();
        if named.is_empty() {
            match FAULTS.iter().find(|fault| fault.id == name).map(|fault| fault.proof) {
                Some(Proof::Elsewhere(how)) => bail!("{name} is proved elsewhere: {how}"),
                Some(Proof::Open(why)) => bail!("{name} is not proved yet: {why}"),
                _ => bail!("there is no fault `{name}`; --list shows them"),
            }
        }
        chosen.extend(named);
    }
    Ok(chosen)
}

fn list() -> Result<()> {
    let row = |fault: &Fault| {
        let proof = match fault.proof {
            Proof::Here(scenarios) => {
                let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name).collect();
                format!("here: {}", names.join(", "))
            }
            Proof::Elsewhere(how) => format!("elsewhere: {how}"),
            Proof::Open(why) => format!("open: {why}"),
        };
        vec![fault.id.to_owned(), fault.what.to_owned(), fault.target.to_owned(), proof]
    };
    table::print("Faults", &["ID", "FAULT", "MUST HOLD", "PROOF"], FAULTS.iter().map(row).collect());
    Ok(())
}
