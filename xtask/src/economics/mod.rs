//! `cargo xtask economics`: what the LLM side promises, measured on real processes, stores and a provider that enforces its
//! own limits; each figure beside its bar.

mod budget;
mod coalescing;
mod cost;
mod limiter;
mod load;
mod models;
mod pay_once;
mod witness;

use anyhow::{Result, ensure};

use crate::{
    bar::{self, Judged},
    bars::{figures_of, program},
    bench::until_told,
    faults::binary,
    root, run as run_command,
};

/// What is measured, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Measure only this [default: everything].
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// How long the provider's limits are used to the full. The jobs are as many as fit, 2,000 at most.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Jobs of `pay-once`.
    #[arg(long, default_value_t = 500)]
    jobs: usize,
    /// Workers that are killed in `pay-once`.
    #[arg(long, default_value_t = 40)]
    kills: usize,
    /// When they are killed, and which.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Fail if a bar is missed.
    #[arg(long)]
    strict: bool,
    /// Worker processes that spend a budget.
    #[arg(long, default_value_t = 16)]
    workers: usize,
    /// The debug build instead of the release build: whether it works, not how fast it is.
    #[arg(long)]
    debug: bool,
    /// Print one JSON array instead of tables.
    #[arg(long)]
    json: bool,
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The fleet's limiter: use of the allowance, refusals, fairness, pauses and quotas.
    Limiter,
    /// What the limiter costs.
    LimiterCost,
    /// Embedding jobs that travel together, and the cache.
    Coalescing,
    /// Analyses whose workers are killed: what was charged, beside the ledger.
    PayOnce,
    /// Budgets: how close spend comes to them, and that it never passes them.
    Budget,
    /// Real model servers (only if asked for: they must be there).
    Models,
}

/// What CI runs of it, with the debug build: whether the books are right after a few kills.
pub(crate) fn run_short() -> Result<()> {
    run(&Arguments {
        only: Some(Part::PayOnce),
        seconds: 0,
        jobs: SHORT.jobs,
        kills: SHORT.kills,
        seed: SHORT.seed,
        workers: 0,
        strict: true,
        debug: true,
        json: false,
    })
}

const SHORT: pay_once::Plan = pay_once::Plan { jobs: 40, kills: 4, seed: 7 };

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let measures = |part| arguments.only.is_none_or(|only| only == part);
    match arguments.debug {
        true => run_command("cargo", &["build", "--locked", "--package", "cli"])?,
        false => run_command("cargo", &["build", "--release", "--locked", "--package", "cli"])?,
    }
    let longshore = binary(&root(), arguments.debug)?;
    let speed = ["bench", "--no-run", "--package", "queue-core", "--bench", "limiter_speed"];
    let speed = measures(Part::LimiterCost).then(|| program(&speed)).transpose()?;
    let judged = until_told(async {
        let mut judged = vec![];
        if measures(Part::Limiter) {
            judged.push(("The fleet's limiter", limiter::measure(&longshore, arguments.seconds).await?));
        }
        if let Some(speed) = speed {
            judged.push(("What the limiter costs", cost::measure(&longshore, &speed).await?));
        }
        if measures(Part::Coalescing) {
            judged.push(("Coalescing and the cache", coalescing::measure(&longshore).await?));
        }
        if measures(Part::PayOnce) {
            let plan = pay_once::Plan { jobs: arguments.jobs, kills: arguments.kills, seed: arguments.seed };
            judged.push(("Paid once, whoever is killed", pay_once::measure(&longshore, plan).await?));
        }
        if measures(Part::Budget) {
            judged.push(("Budgets", budget::measure(&longshore, arguments.workers).await?));
        }
        if arguments.only == Some(Part::Models) {
            judged.push(("Real model servers", models::measure(&longshore).await?));
        }
        Ok(judged)
    })?;
    print(arguments, &judged)?;
    let missed = judged.iter().flat_map(|(_, figures)| figures).filter(|figure| figure.is_missed()).count();
    ensure!(!arguments.strict || missed == 0, "{missed} bars are missed");
    Ok(())
}

fn print(arguments: &Arguments, judged: &[(&str, Vec<Judged>)]) -> Result<()> {
    if arguments.json {
        let all: Vec<_> = judged.iter().flat_map(|(_, figures)| figures).collect();
        println!("{:#}", serde_json::to_value(all)?);
        return Ok(());
    }
    judged.iter().for_each(|(title, figures)| bar::print(title, figures));
    Ok(())
}
