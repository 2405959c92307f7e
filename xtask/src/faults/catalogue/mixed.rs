//! Many faults in one run, and defects that the suite must find.

use std::time::Duration;

use super::super::{
    history::Store,
    links::Link,
    scenario::{Demands, Kills, Met, NOTHING_MORE, Processes, Rival, Scenario, Shape, Trouble, USUAL, Weather},
};
use crate::cluster::Role;

/// How long Redis stays away when it is restarted.
const REDIS_AWAY: Duration = Duration::from_secs(1);

pub(crate) const EVERYTHING: Scenario = Scenario {
    name: "everything",
    purpose: "every process may die, Redis forgets, both stores go away",
    kills: Some(Kills { of: None, every: Duration::from_secs(2) }),
    troubles: &[
        (2, Trouble::Flush),
        (1, Trouble::Away(Store::Redis, REDIS_AWAY)),
        (1, Trouble::Away(Store::Postgres, Duration::from_secs(10))),
    ],
    demands: Demands { restart_within: Some(Duration::from_secs(15)), ..NOTHING_MORE },
    ..USUAL
};

pub(super) const FLUSH_ONLY: Scenario = Scenario {
    name: "flush-only",
    purpose: "a flush fences no attempt whose worker lives",
    load: Shape { time: Duration::from_secs(30), ..USUAL.load },
    troubles: &[(4, Trouble::Flush), (1, Trouble::Away(Store::Redis, REDIS_AWAY))],
    demands: Demands { no_attempt_fenced: true, ..NOTHING_MORE },
    ..USUAL
};

const fn link(role: Role, store: Store) -> Link {
    Link { role, first: false, store }
}

const fn network(times: usize, role: Role, store: Store, weather: Weather, seconds: u64) -> (usize, Trouble) {
    (times, Trouble::Network(link(role, store), weather, Duration::from_secs(seconds)))
}

/// Half a second in which the journal does not answer.
const fn hiccup(role: Role) -> (usize, Trouble) {
    (2, Trouble::Network(link(role, Store::Postgres), Weather::Silent, Duration::from_millis(500)))
}

/// With `--minutes 6` half an hour. Everything that can be done twice in one run; what ends a process from within (F17,
/// F18) has runs of its own, since here the first process of each role has to live through all of it.
pub(super) const SOAK: Scenario = Scenario {
    name: "F25",
    purpose: "every fault at random, for as long as one likes",
    load: Shape { time: Duration::from_secs(300), ..USUAL.load },
    demands: Demands { leaks_nothing: true, ..NOTHING_MORE },
    kills: Some(Kills { of: None, every: Duration::from_secs(5) }),
    spares_first: true,
    troubles: &[
        (2, Trouble::Flush),
        (1, Trouble::Reload),
        (1, Trouble::WrongGeneration),
        (1, Trouble::Evict(Duration::from_secs(4))),
        (1, Trouble::Full(Duration::from_secs(4))),
        (1, Trouble::Away(Store::Redis, Duration::from_secs(3))),
        (1, Trouble::Away(Store::Postgres, Duration::from_secs(5))),
        (1, Trouble::Lock(Duration::from_secs(10))),
        (1, Trouble::Zombies(1, Duration::from_secs(30))),
        (1, Trouble::CutAndFlush(link(Role::Worker, Store::Redis), Duration::from_secs(3))),
        network(1, Role::Worker, Store::Redis, Weather::Silent, 3),
        network(1, Role::Worker, Store::Redis, Weather::Reset, 3),
        network(1, Role::Worker, Store::Redis, Weather::OneWay, 3),
        network(1, Role::Worker, Store::Redis, Weather::Torn, 5),
        network(1, Role::Worker, Store::Redis, Weather::Late(50), 5),
        network(1, Role::Worker, Store::Redis, Weather::Sliced(64), 5),
        network(1, Role::Worker, Store::Redis, Weather::HalfClosed, 2),
        network(1, Role::Api, Store::Redis, Weather::Silent, 3),
        network(1, Role::Api, Store::Redis, Weather::Reset, 3),
        network(1, Role::Api, Store::Redis, Weather::OneWay, 3),
        network(1, Role::Api, Store::Redis, Weather::Torn, 5),
        network(1, Role::Scheduler, Store::Redis, Weather::Silent, 3),
        network(1, Role::Scheduler, Store::Redis, Weather::Reset, 3),
        network(1, Role::Worker, Store::Postgres, Weather::Reset, 3),
        network(1, Role::Worker, Store::Postgres, Weather::Torn, 5),
        network(1, Role::Worker, Store::Postgres, Weather::Late(50), 5),
        network(1, Role::Worker, Store::Postgres, Weather::HalfClosed, 2),
        hiccup(Role::Worker),
        network(1, Role::Api, Store::Postgres, Weather::Reset, 3),
        network(1, Role::Api, Store::Postgres, Weather::Torn, 5),
        network(1, Role::Api, Store::Postgres, Weather::Sliced(256), 5),
        hiccup(Role::Api),
        network(1, Role::Scheduler, Store::Postgres, Weather::Reset, 3),
        network(1, Role::Scheduler, Store::Postgres, Weather::Torn, 5),
    ],
    ..USUAL
};

/// The form for CI: every fault of the gate once, small load, nothing timed, so that it holds on two slow cores. A run in
/// which one of them was not met fails.
pub(crate) const SHORT: Scenario = Scenario {
    name: "short",
    purpose: "every fault once under a small load",
    load: Shape { rate: 30, long_percent: 15, time: Duration::from_secs(80), copies: 2, killers: 1, ..USUAL.load },
    processes: Processes { apis: 2, workers: 2, schedulers: 2 },
    kills: Some(Kills { of: None, every: Duration::from_secs(6) }),
    troubles: &[
        (1, Trouble::Flush),
        (1, Trouble::Away(Store::Redis, REDIS_AWAY)),
        (1, Trouble::Away(Store::Postgres, Duration::from_secs(2))),
        // Longer than a session lives (15 s) and its claims are looked for.
        (1, Trouble::Zombies(1, Duration::from_secs(20))),
        network(1, Role::Worker, Store::Redis, Weather::Reset, 2),
        network(1, Role::Worker, Store::Redis, Weather::Silent, 2),
        network(1, Role::Api, Store::Redis, Weather::Reset, 2),
        network(1, Role::Api, Store::Redis, Weather::Silent, 2),
    ],
    demands: Demands { taken_over: 1, meets: &GATE, ..NOTHING_MORE },
    ..USUAL
};

/// What the run for CI has to meet at least once.
const GATE: [Met; 5] = [Met::KilledApi, Met::KilledWorker, Met::KilledScheduler, Met::EndedByJob, Met::SentByTwo];

/// CI runs one schedule: with this seed each role is killed, and the worker that stands still is not.
pub(crate) const SHORT_SEED: u64 = 0;

/// Each of the points of `crates/queue-core/src/sabotage/points.txt` kills the first process that comes by often enough.
pub(super) const CRASH_POINTS: Scenario = Scenario {
    name: "crash-points",
    purpose: "a crash before and after each write of journal, dispatcher and operations, each once",
    load: Shape {
        rate: 60,
        long_percent: 5,
        time: Duration::from_secs(90),
        races: &[Rival::Cancel(10), Rival::Pause, Rival::Archive],
        ..USUAL.load
    },
    // Something has to be reaped and reconciled, or nobody comes by.
    kills: Some(Kills { of: Some(Role::Worker), every: Duration::from_secs(20) }),
    // And a worker that learns late that it has lost its jobs writes down what they cost.
    troubles: &[(1, Trouble::Flush), (2, Trouble::Network(FIRST_WORKER, Weather::Reset, CUT_OFF))],
    sabotage: Some("crash"),
    demands: Demands {
        crash_points: include_str!("../../../../crates/queue-core/src/sabotage/points.txt"),
        ..NOTHING_MORE
    },
    ..USUAL
};

/// A planted bug, and the load and fault under which the suite must find it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutant {
    /// Its name for the binary.
    pub(crate) name: &'static str,
    /// Where it is found.
    pub(crate) scenario: Scenario,
}

/// Small, since it has to be over within a minute; with many calls that are under way when something happens.
const FOR_MUTANTS: Scenario = Scenario {
    load: Shape { rate: 40, long_percent: 30, time: Duration::from_secs(16), ..USUAL.load },
    processes: Processes { apis: 1, workers: 2, schedulers: 1 },
    drain: Duration::from_secs(20),
    ..USUAL
};

/// A worker that Redis does not hear of while it works on: long enough for others to take its jobs over, and short
/// enough that the load outlasts it.
const CUT_OFF: Duration = Duration::from_secs(10);
const FIRST_WORKER: Link = Link { role: Role::Worker, first: true, store: Store::Redis };
const API_LOSES_REDIS: Trouble = Trouble::Network(
    Link { role: Role::Api, first: false, store: Store::Redis },
    Weather::Reset,
    Duration::from_secs(2),
);

pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "answer-before-commit",
        scenario: Scenario {
            name: "answer-before-commit",
            purpose: "a 202 before the commit",
            troubles: &[(1, Trouble::Away(Store::Postgres, Duration::from_secs(3)))],
            sabotage: Some("answer-before-commit"),
            ..FOR_MUTANTS
        },
    },
    Mutant {
        name: "no-reconciler",
        scenario: Scenario {
            name: "no-reconciler",
            purpose: "nobody looks for what the dispatcher does not know",
            troubles: &[(2, API_LOSES_REDIS)],
            sabotage: Some("no-reconciler"),
            ..FOR_MUTANTS
        },
    },
    Mutant {
        name: "settle-at-any-epoch",
        scenario: Scenario {
            name: "settle-at-any-epoch",
            purpose: "a settle asks for no epoch and no state",
            troubles: &[(1, Trouble::Network(FIRST_WORKER, Weather::Reset, CUT_OFF))],
            sabotage: Some("settle-at-any-epoch"),
            ..FOR_MUTANTS
        },
    },
    Mutant {
        name: "reconcile-without-bump",
        scenario: Scenario {
            name: "reconcile-without-bump",
            purpose: "what is handed on keeps its epoch",
            troubles: &[(1, Trouble::CutAndFlush(FIRST_WORKER, CUT_OFF))],
            sabotage: Some("reconcile-without-bump"),
            ..FOR_MUTANTS
        },
    },
    Mutant {
        name: "ack-before-settle",
        scenario: Scenario {
            name: "ack-before-settle",
            purpose: "the dispatcher forgets a claim before its job is settled; there is no fault at all",
            sabotage: Some("ack-before-settle"),
            ..FOR_MUTANTS
        },
    },
];
