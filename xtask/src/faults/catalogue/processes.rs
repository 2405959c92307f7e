//! Processes that die, stand still, and are asked the same thing by many.

use std::time::Duration;

use super::super::{
    history::Work,
    scenario::{Demands, Kills, Met, NOTHING_MORE, Processes, Rival, Scenario, Shape, Trouble, USUAL},
};
use crate::cluster::Role;

/// 20 kills in a minute.
const KILL_EVERY: Duration = Duration::from_millis(2_900);

pub(super) const WORKERS_DIE: Scenario = Scenario {
    name: "F1",
    purpose: "a worker dies, again and again",
    kills: Some(Kills { of: Some(Role::Worker), every: KILL_EVERY }),
    demands: Demands { restart_within: Some(Duration::from_secs(15)), ..NOTHING_MORE },
    ..USUAL
};

pub(super) const APIS_DIE: Scenario = Scenario {
    name: "F2",
    purpose: "an API process dies in the middle of requests, again and again",
    kills: Some(Kills { of: Some(Role::Api), every: KILL_EVERY }),
    demands: Demands { ready_within: Some(Duration::from_secs(2)), no_attempt_fenced: true, ..NOTHING_MORE },
    ..USUAL
};

pub(super) const SCHEDULERS_DIE: Scenario = Scenario {
    name: "F3",
    purpose: "a scheduler dies, again and again: no work waits for one of them",
    kills: Some(Kills { of: Some(Role::Scheduler), every: KILL_EVERY }),
    demands: Demands { starts_within: Some(Duration::from_secs(10)), no_attempt_fenced: true, ..NOTHING_MORE },
    ..USUAL
};

/// Each kill has time for what follows: somebody sees that nobody is at work any more, and begins anew.
pub(super) const MAKERS_DIE: Scenario = Scenario {
    name: "F3-backup",
    purpose: "the scheduler that makes a backup dies in the middle of it, again and again",
    load: Shape { rate: 50, time: Duration::from_secs(160), ..USUAL.load },
    troubles: &[(6, Trouble::KillMaker)],
    demands: Demands {
        taken_over_within: Some(Duration::from_secs(10)),
        starts_within: Some(Duration::from_secs(10)),
        no_attempt_fenced: true,
        ..NOTHING_MORE
    },
    ..USUAL
};

/// Five times ten of fourteen workers.
pub(super) const ZOMBIES: Scenario = Scenario {
    name: "F15",
    purpose: "workers stand still for longer than their leases, and go on as if nothing had happened",
    load: Shape { rate: 100, long_percent: 10, time: Duration::from_secs(300), ..USUAL.load },
    processes: Processes { apis: 1, workers: 14, schedulers: 2 },
    troubles: &[(5, Trouble::Zombies(10, Duration::from_secs(45)))],
    demands: Demands { taken_over: 50, ..NOTHING_MORE },
    ..USUAL
};

/// 1,000 keys in a minute.
pub(super) const DUPLICATES: Scenario = Scenario {
    name: "F21",
    purpose: "fifty clients send each request at once and with one key, while API processes die",
    load: Shape { rate: 17, copies: 50, ..USUAL.load },
    kills: Some(Kills { of: Some(Role::Api), every: Duration::from_secs(5) }),
    ..USUAL
};

const AHEAD: Scenario = Scenario {
    name: "F14-worker-ahead",
    purpose: "a worker's clock is three hours ahead",
    load: Shape { time: Duration::from_secs(30), ..USUAL.load },
    clock: Some((Role::Worker, THREE_HOURS_S)),
    demands: Demands { no_attempt_fenced: true, clocks_differ: true, ..NOTHING_MORE },
    ..USUAL
};

const THREE_HOURS_S: i64 = 3 * 3_600;

pub(super) const WRONG_CLOCKS: &[Scenario] = &[
    AHEAD,
    Scenario {
        name: "F14-worker-behind",
        purpose: "a worker's clock is three hours behind",
        clock: Some((Role::Worker, -THREE_HOURS_S)),
        ..AHEAD
    },
    Scenario {
        name: "F14-scheduler-ahead",
        purpose: "a scheduler's clock is three hours ahead",
        clock: Some((Role::Scheduler, THREE_HOURS_S)),
        ..AHEAD
    },
    Scenario {
        name: "F14-scheduler-behind",
        purpose: "a scheduler's clock is three hours behind",
        clock: Some((Role::Scheduler, -THREE_HOURS_S)),
        ..AHEAD
    },
];

/// One of each kind, forty seconds apart.
pub(super) const POISON: Scenario = Scenario {
    name: "F18",
    purpose: "some jobs end whatever process runs them, others never yield or panic",
    // One after the other: several at once shadow each other. One that spins takes one of the machine's cores for half a minute.
    load: Shape {
        rate: 100,
        time: Duration::from_secs(200),
        killers: 5,
        poison: &[Work::ProbeKills, Work::ProbeOverflows, Work::ProbeSpins, Work::ProbeExits, Work::ProbeBlocks],
        ..USUAL.load
    },
    demands: Demands {
        starts_within: Some(Duration::from_secs(30)),
        meets: &[Met::EndedByJob, Met::Recycled],
        ..NOTHING_MORE
    },
    ..USUAL
};

pub(super) const HOGS: Scenario = Scenario {
    name: "F17",
    purpose: "workers may have 256 MiB each, and some jobs take 400",
    // Forty seconds apart: each is found out before the next one comes.
    load: Shape { rate: 100, time: Duration::from_secs(120), killers: 3, poison: &[Work::ProbeHogs], ..USUAL.load },
    worker_memory_mib: Some(256),
    demands: Demands { meets: &[Met::EndedByJob], ..NOTHING_MORE },
    ..USUAL
};

pub(super) const HERD: Scenario = Scenario {
    name: "F20",
    purpose: "two thousand clients in one moment, and a hundred thousand jobs that become due in one",
    load: Shape { rate: 100, backlog: 100_000, backlog_due: Some(Duration::from_secs(60)), herd: 2_000, ..USUAL.load },
    demands: Demands { herd_within: Some(Duration::from_secs(1)), ..NOTHING_MORE },
    drain: Duration::from_secs(600),
    ..USUAL
};

const CANCELS: Scenario = Scenario {
    name: "F24-cancel",
    purpose: "jobs are cancelled at about the moment at which they end",
    load: Shape { long_percent: 0, races: &[Rival::Cancel(100)], ..USUAL.load },
    demands: Demands { no_attempt_fenced: true, races: 10_000, ..NOTHING_MORE },
    ..USUAL
};

pub(super) const RACES: &[Scenario] = &[
    CANCELS,
    Scenario {
        name: "F24-pause",
        purpose: "queues are paused at about the moment at which their jobs are claimed",
        load: Shape { rate: 20, races: &[Rival::Pause], ..CANCELS.load },
        demands: Demands { races: 5_000, ..CANCELS.demands },
        ..CANCELS
    },
    Scenario {
        name: "F24-archive",
        purpose: "dead letters are redriven while they are archived",
        load: Shape { rate: 20, races: &[Rival::Archive], ..CANCELS.load },
        demands: Demands { races: 2_000, ..CANCELS.demands },
        ..CANCELS
    },
];
