//! What is done to the system and when: decided by the seed before anything starts, and printed.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::history::Store;

/// What a run consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name for `--only`.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// Jobs submitted a second.
    pub(crate) rate: u64,
    /// Jobs in a hundred that take seconds, so that every fault finds attempts at work.
    pub(crate) long_percent: u32,
    /// How long the load lasts; `--minutes` multiplies it.
    pub(crate) load: Duration,
    /// API, worker and scheduler processes.
    pub(crate) processes: Processes,
    /// A process is killed this often.
    pub(crate) kill_every: Option<Duration>,
    /// Flushes in one length of the load.
    pub(crate) flushes: usize,
    /// How often Redis is killed and comes back empty.
    pub(crate) redis_restarts: usize,
    /// How often Postgres is away.
    pub(crate) postgres_stops: usize,
    /// For how long.
    pub(crate) postgres_away: Duration,
    /// What the checker demands beyond what it always demands.
    pub(crate) demands: Demands,
    /// Longest time from the end of load and faults until no job is live.
    pub(crate) drain: Duration,
}

/// How many processes of each role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processes {
    /// API.
    pub(crate) apis: usize,
    /// Workers.
    pub(crate) workers: usize,
    /// Schedulers.
    pub(crate) schedulers: usize,
}

/// What differs from scenario to scenario in what must hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// No attempt may be lost and no call repeated: nothing that is done harms a living worker.
    pub(crate) no_attempt_fenced: bool,
    /// Longest time until a call that died with its worker is made again, outages of the stores not counted.
    pub(crate) restart_within: Option<Duration>,
}

/// Every scenario.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "everything",
        purpose: "every process may die, Redis forgets, both stores go away",
        rate: 300,
        long_percent: 2,
        load: Duration::from_secs(60),
        processes: Processes { apis: 2, workers: 3, schedulers: 2 },
        kill_every: Some(Duration::from_secs(2)),
        flushes: 2,
        redis_restarts: 1,
        postgres_stops: 1,
        postgres_away: Duration::from_secs(10),
        demands: Demands { no_attempt_fenced: false, restart_within: Some(Duration::from_secs(15)) },
        drain: Duration::from_secs(120),
    },
    Scenario {
        name: "flush-only",
        purpose: "a flush fences no attempt whose worker lives",
        rate: 300,
        long_percent: 2,
        load: Duration::from_secs(30),
        processes: Processes { apis: 2, workers: 3, schedulers: 2 },
        kill_every: None,
        flushes: 4,
        redis_restarts: 1,
        postgres_stops: 0,
        postgres_away: Duration::ZERO,
        demands: Demands { no_attempt_fenced: true, restart_within: None },
        drain: Duration::from_secs(120),
    },
    SHORT,
];

/// The form for CI: every fault once, small load, nothing timed, so that it holds on two slow cores.
pub(crate) const SHORT: Scenario = Scenario {
    name: "short",
    purpose: "every fault once under a small load",
    rate: 40,
    long_percent: 15,
    load: Duration::from_secs(12),
    processes: Processes { apis: 1, workers: 2, schedulers: 1 },
    kill_every: Some(Duration::from_secs(3)),
    flushes: 1,
    redis_restarts: 1,
    postgres_stops: 1,
    postgres_away: Duration::from_secs(2),
    demands: Demands { no_attempt_fenced: false, restart_within: None },
    drain: Duration::from_secs(120),
};

/// CI runs one schedule: with this seed, a worker is among the killed.
pub(crate) const SHORT_SEED: u64 = 1;

/// How long Redis stays away when it is restarted.
const REDIS_AWAY: Duration = Duration::from_secs(1);

/// One thing that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `kill -9` of the process with this number; it is started again at once.
    Kill(usize),
    /// `FLUSHALL`.
    Flush,
    /// The store goes away.
    Stop(Store),
    /// It comes back; Redis comes back empty.
    Start(Store),
}

/// When something is done, from the beginning of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// When.
    pub(crate) at: Duration,
    /// What.
    pub(crate) act: Act,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.2} s  ", self.at.as_secs_f64())?;
        match self.act {
            Act::Kill(process) => write!(f, "kill -9 process {process}"),
            Act::Flush => f.write_str("FLUSHALL"),
            Act::Stop(store) => write!(f, "stop {store:?}"),
            Act::Start(store) => write!(f, "start {store:?}"),
        }
    }
}

/// The steps of `lengths` lengths of the load, in order.
pub(crate) fn schedule(scenario: &Scenario, lengths: u32, seed: u64) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    for length in 0..lengths {
        let from = scenario.load * length;
        disturb_stores(scenario, from, &mut rng, &mut steps);
    }
    let processes = scenario.processes.apis + scenario.processes.workers + scenario.processes.schedulers;
    if let Some(every) = scenario.kill_every {
        let mut at = every;
        while at < scenario.load * lengths {
            steps.push(Step { at, act: Act::Kill(rng.random_range(0..processes)) });
            at += every;
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// Faults of the stores, each in a window of its own so that none hides another.
fn disturb_stores(scenario: &Scenario, from: Duration, rng: &mut StdRng, steps: &mut Vec<Step>) {
    let mut faults = vec![Act::Flush; scenario.flushes];
    faults.extend(vec![Act::Stop(Store::Redis); scenario.redis_restarts]);
    faults.extend(vec![Act::Stop(Store::Postgres); scenario.postgres_stops]);
    faults.shuffle(rng);
    let away = |act: &Act| match act {
        Act::Stop(Store::Postgres) => scenario.postgres_away,
        Act::Stop(Store::Redis) => REDIS_AWAY,
        _ => Duration::ZERO,
    };
    let busy: Duration = faults.iter().map(away).sum();
    let window = scenario.load.saturating_sub(busy) / (faults.len() as u32).max(1);
    let mut begin = from;
    for act in faults {
        // Not at the edges: what came before has a moment to heal, and what is hurt has load to show it.
        let at = begin + window.mul_f64(rng.random_range(0.3..0.8));
        steps.push(Step { at, act });
        if let Act::Stop(store) = act {
            steps.push(Step { at: at + away(&act), act: Act::Start(store) });
        }
        begin += window + away(&act);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_with_every_fault_and_no_overlap_of_outages() {
        for seed in 0..200 {
            let steps = schedule(&SCENARIOS[0], 2, seed);
            assert_eq!(steps, schedule(&SCENARIOS[0], 2, seed));
            let count = |act| steps.iter().filter(|step| step.act == act).count();
            assert_eq!(
                (count(Act::Flush), count(Act::Stop(Store::Redis)), count(Act::Stop(Store::Postgres))),
                (4, 2, 2)
            );
            assert_eq!(steps.iter().filter(|step| matches!(step.act, Act::Kill(0..7))).count(), 59);
            assert!(steps.iter().all(|step| step.at < Duration::from_secs(120)));
            let mut away = None;
            for step in steps.iter().filter(|step| !matches!(step.act, Act::Kill(_))) {
                match (step.act, away) {
                    (Act::Stop(store), None) => away = Some(store),
                    (Act::Start(store), Some(stopped)) if store == stopped => away = None,
                    (Act::Flush, None) => {}
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
        let kills_a_worker = |step: &Step| matches!(step.act, Act::Kill(1..3));
        assert!(schedule(&SHORT, 1, SHORT_SEED).iter().any(kills_a_worker));
        assert_ne!(schedule(&SCENARIOS[0], 1, 1), schedule(&SCENARIOS[0], 1, 2));
    }
}
