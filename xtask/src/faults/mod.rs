//! `cargo xtask faults`: load, faults, histories, verdict.
//!
//! `catalogue` lists every fault with what must hold; each scenario is data. For each: throw-away servers, the processes
//! of the release binary, an open-loop load, faults by a seeded plan, rest, and a checker that reads what the witnesses
//! wrote and the final tables.

mod backups;
mod catalogue;
mod check;
mod disk;
mod elsewhere;
mod fleet;
mod history;
mod inject;
mod links;
mod load;
mod memory;
mod mutants;
mod plan;
mod power;
mod publish;
mod rivals;
mod run;
mod scenario;
mod tables;
mod verdict;
mod witness;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use self::{
    catalogue::{FAULTS, Fault, Proof, SHORT, SHORT_SEED},
    check::Report,
    elsewhere::Ran,
    power::Found,
    run::Settings,
    scenario::Scenario,
};
pub(crate) use self::{fleet::binary, publish::check as check_published};
use crate::{bars, root, run as run_command, table};

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
    #[arg(long, conflicts_with_all = ["only", "debug"])]
    mutants: bool,
    /// Judges the histories in this folder again, by the demands of `--only`; starts nothing
    #[arg(long, value_name = "FOLDER", requires = "only")]
    judge: Option<PathBuf>,
}

/// Something that is run for a fault.
#[derive(Clone, Copy)]
struct Trial {
    fault: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Scenario(&'static Scenario),
    PowerLoss,
    Command(&'static [&'static str]),
}

impl Trial {
    fn name(self) -> &'static str {
        match self.what {
            What::Scenario(scenario) => scenario.name,
            What::PowerLoss | What::Command(_) => self.fault,
        }
    }

    fn is_sabotage(self) -> bool {
        matches!(self.what, What::Scenario(Scenario { sabotage: Some(_), .. }))
    }

    /// What it wants and this machine has not.
    fn lacks(self) -> Option<&'static str> {
        let (disk, clock) = match self.what {
            What::Scenario(scenario) => (scenario.disk_bytes.is_some(), scenario.clock.is_some()),
            What::PowerLoss => (true, false),
            What::Command(_) => (false, false),
        };
        let is_bounded = matches!(self.what, What::Scenario(Scenario { worker_memory_mib: Some(_), .. }));
        match (disk && !is_root(), clock && bars::shifted(0).is_err(), is_bounded && !memory::can_be_bounded()) {
            (true, ..) => Some("root, since it mounts a disk"),
            (_, true, _) => Some("Debian's package `faketime`"),
            (.., true) => Some("root and a control group for memory"),
            _ => None,
        }
    }

    fn run(self, lengths: u32, seed: u64, binary: &Path) -> Result<Outcome> {
        if let What::Command(command) = self.what {
            return Ok(Outcome::of_command(self, elsewhere::run(command)?));
        }
        let folder = root().join(format!("target/faults/{}-{seed}-{}", self.name(), std::process::id()));
        fs::create_dir_all(&folder)?;
        let settings = Settings { lengths, seed, binary: binary.to_owned(), folder };
        let outcome = match self.what {
            What::Scenario(scenario) => run::scenario(scenario, &settings)
                .map(|report| Outcome::of_scenario(self, scenario, &settings, &report)),
            What::PowerLoss => power::measure(&settings).map(|found| Outcome::of_images(self, &settings, &found)),
            What::Command(_) => bail!("a command has no histories"),
        };
        outcome.with_context(|| format!("{}; the histories are in {}", self.name(), settings.folder.display()))
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// What it came to.
struct Outcome {
    trial: Trial,
    /// Of what has one.
    seed: Option<u64>,
    /// Jobs that were accepted.
    jobs: usize,
    /// Faults that were done.
    faults: usize,
    violations: usize,
    /// Its figures, in one line.
    figure: String,
    /// Of what writes any.
    histories: Option<PathBuf>,
}

impl Outcome {
    /// Prints it, too.
    fn of_scenario(trial: Trial, scenario: &Scenario, settings: &Settings, report: &Report) -> Self {
        verdict::print(scenario.name, report);
        let (seed, histories) = (Some(settings.seed), Some(settings.folder.clone()));
        let (jobs, faults, violations) = (report.accepted, report.faults(), report.violations.len());
        let figure = verdict::in_short(scenario.demands, report);
        Self { trial, seed, jobs, faults, violations, figure, histories }
    }

    /// Likewise.
    fn of_images(trial: Trial, settings: &Settings, found: &Found) -> Self {
        let (seed, histories, figure) = (Some(settings.seed), Some(settings.folder.clone()), found.in_short());
        println!("\n{}: {figure}", trial.name());
        let violations = found.violations();
        violations.iter().for_each(|violation| println!("  {violation}"));
        let (jobs, faults, violations) = (found.accepted, Found::IMAGES, violations.len());
        Self { trial, seed, jobs, faults, violations, figure, histories }
    }
}

impl Outcome {
    /// Likewise.
    fn of_command(trial: Trial, ran: Ran) -> Self {
        let violations = usize::from(!ran.is_sound);
        Self { trial, seed: None, jobs: 0, faults: 0, violations, figure: ran.figure, histories: None }
    }
}

/// The short form, with the debug build that `cargo test` has just made.
pub(crate) fn run_short() -> Result<()> {
    let binary = binary(&root(), true)?;
    finish(&[SHORT_TRIAL.run(1, SHORT_SEED, &binary)?], false)?;
    bars::run_short_rolling(&binary)
}

const SHORT_TRIAL: Trial = Trial { fault: "short", what: What::Scenario(&SHORT) };

/// Runs the suite and fails if a promise is broken.
pub(crate) fn run_suite(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        if arguments.publish {
            publish::write(&[])?;
        }
        return list();
    }
    if arguments.mutants {
        return mutants::run(arguments.binary.as_deref(), arguments.seed, arguments.publish);
    }
    let chosen = choose(&arguments.only)?;
    if let Some(folder) = &arguments.judge {
        return judge(&chosen, folder);
    }
    let binary = match &arguments.binary {
        Some(file) => file.canonicalize().with_context(|| format!("{}", file.display()))?,
        None => build(arguments.debug, chosen.iter().any(|trial| trial.is_sabotage()))?,
    };
    let seed = arguments.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let mut outcomes = Vec::new();
    for trial in chosen {
        match trial.lacks() {
            // What is asked for by its name is not left out silently.
            Some(what) if arguments.only.is_empty() => {
                println!("\n{}: left out, it wants {what}", trial.name());
                continue;
            }
            Some(what) => bail!("{} wants {what}", trial.name()),
            None => {}
        }
        outcomes.push(trial.run(arguments.minutes, seed, &binary)?);
    }
    if arguments.publish {
        publish::write(&outcomes)?;
    }
    finish(&outcomes, arguments.keep)
}

/// What the histories of an earlier run say by what is demanded now.
fn judge(chosen: &[Trial], folder: &Path) -> Result<()> {
    let [Trial { what: What::Scenario(scenario), .. }] = chosen else {
        bail!("the histories of which scenario? `--only` does not name one")
    };
    let report = run::judge(folder, scenario)?;
    verdict::print(scenario.name, &report);
    ensure!(report.violations.is_empty(), "{} violations", report.violations.len());
    Ok(())
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

/// Keeps the histories of broken promises, and fails with them.
fn finish(outcomes: &[Outcome], keep: bool) -> Result<()> {
    for Outcome { violations, histories, .. } in outcomes {
        let Some(histories) = histories else { continue };
        if *violations == 0 && !keep {
            fs::remove_dir_all(histories)?;
        } else {
            println!("kept: {}", histories.display());
        }
    }
    let violations: usize = outcomes.iter().map(|outcome| outcome.violations).sum();
    ensure!(violations == 0, "{violations} violations");
    Ok(())
}

/// What is wanted: a name is that of a fault or of one of its scenarios.
fn choose(only: &[String]) -> Result<Vec<Trial>> {
    let here = |fault: &'static Fault| match fault.proof {
        Proof::Here(scenarios) => {
            let of = |scenario| Trial { fault: fault.id, what: What::Scenario(scenario) };
            scenarios.iter().map(of).collect()
        }
        Proof::PowerLoss => vec![Trial { fault: fault.id, what: What::PowerLoss }],
        Proof::Elsewhere(command) => vec![Trial { fault: fault.id, what: What::Command(command) }],
    };
    let all: Vec<Trial> = FAULTS.iter().flat_map(here).collect();
    if only.is_empty() {
        let is_own = |trial: &Trial| !trial.is_sabotage() && !matches!(trial.what, What::Command(_));
        return Ok(all.into_iter().filter(is_own).collect());
    }
    let mut chosen = Vec::new();
    for name in only {
        let before = chosen.len();
        let is_named = |trial: &&Trial| trial.fault == name || trial.name() == name;
        chosen.extend(all.iter().chain([&SHORT_TRIAL]).filter(is_named).copied());
        if chosen.len() == before {
            bail!("there is no fault `{name}`; --list shows them");
        }
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
            Proof::PowerLoss => "here: images of its disk".to_owned(),
            Proof::Elsewhere(command) => format!("elsewhere: {}", elsewhere::spelled(command)),
        };
        vec![fault.id.to_owned(), fault.what.to_owned(), fault.target.to_owned(), proof]
    };
    table::print("Faults", &["ID", "FAULT", "MUST HOLD", "PROOF"], FAULTS.iter().map(row).collect());
    Ok(())
}
