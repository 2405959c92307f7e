//! Stores that die, forget, fill up and dawdle.

use std::time::Duration;

use super::super::{
    history::Store,
    links::Link,
    scenario::{Demands, NOTHING_MORE, Persistence, Scenario, Shape, Trouble, USUAL, Weather},
};
use crate::cluster::Role;

const REDIS_DIES_EMPTY: Scenario = Scenario {
    name: "F4-nothing",
    purpose: "Redis is killed and comes back empty",
    troubles: &[(4, Trouble::Away(Store::Redis, Duration::from_secs(3)))],
    demands: Demands { accepts_without_redis: true, resumes_within: Some(Duration::from_secs(5)), ..NOTHING_MORE },
    ..USUAL
};

pub(super) const REDIS_DIES: &[Scenario] = &[
    REDIS_DIES_EMPTY,
    Scenario {
        name: "F4-everysec",
        purpose: "Redis is killed and comes back without its last second",
        redis: Persistence::EverySecond,
        ..REDIS_DIES_EMPTY
    },
    Scenario {
        name: "F4-always",
        purpose: "Redis is killed and comes back with all that it answered",
        redis: Persistence::Always,
        ..REDIS_DIES_EMPTY
    },
];

pub(super) const REDIS_FORGETS: Scenario = Scenario {
    name: "F5",
    purpose: "Redis forgets, reloads, and holds another life's index, over a large backlog",
    load: Shape { rate: 200, backlog: 100_000, ..USUAL.load },
    troubles: &[(2, Trouble::Flush), (1, Trouble::Reload), (1, Trouble::WrongGeneration)],
    demands: Demands { resumes_within: Some(Duration::from_secs(3)), ..NOTHING_MORE },
    drain: Duration::from_secs(600),
    ..USUAL
};

pub(super) const REDIS_HAS_NO_ROOM: Scenario = Scenario {
    name: "F6",
    purpose: "Redis throws keys away, and then refuses writes",
    troubles: &[(1, Trouble::Evict(Duration::from_secs(5))), (2, Trouble::Full(Duration::from_secs(5)))],
    demands: Demands { resumes_within: Some(Duration::from_secs(10)), ..NOTHING_MORE },
    // One full sweep of the reconciler.
    drain: Duration::from_secs(300),
    ..USUAL
};

pub(super) const POSTGRES_DIES: Scenario = Scenario {
    name: "F9",
    purpose: "Postgres is killed and comes back",
    load: Shape { time: Duration::from_secs(90), ..USUAL.load },
    troubles: &[(3, Trouble::Away(Store::Postgres, Duration::from_secs(10)))],
    demands: Demands {
        refuses_within: Some(Duration::from_secs(2)),
        resumes_within: Some(Duration::from_secs(10)),
        ..NOTHING_MORE
    },
    ..USUAL
};

/// Half a second of every second: ten short silences on each of two links, one after the other.
pub(super) const POSTGRES_IS_SLOW: Scenario = Scenario {
    name: "F10",
    purpose: "Postgres answers now and then; somebody locks the table of live jobs",
    load: Shape { time: Duration::from_secs(90), ..USUAL.load },
    troubles: &[
        (
            20,
            Trouble::Network(
                Link { role: Role::Worker, first: false, store: Store::Postgres },
                Weather::Silent,
                HALF_A_SECOND,
            ),
        ),
        (
            20,
            Trouble::Network(
                Link { role: Role::Api, first: false, store: Store::Postgres },
                Weather::Silent,
                HALF_A_SECOND,
            ),
        ),
        (1, Trouble::Lock(Duration::from_secs(20))),
    ],
    demands: Demands { resumes_within: Some(Duration::from_secs(10)), grows_mib: Some(64), ..NOTHING_MORE },
    ..USUAL
};

const HALF_A_SECOND: Duration = Duration::from_millis(500);

/// The write-ahead log alone is up to 64 MiB between two checkpoints at this load.
pub(super) const POSTGRES_HAS_NO_ROOM: Scenario = Scenario {
    name: "F11",
    purpose: "the disk of Postgres is full, and has room again",
    load: Shape { rate: 100, ..USUAL.load },
    disk_bytes: Some(512 << 20),
    troubles: &[(2, Trouble::DiskFull(Duration::from_secs(10)))],
    demands: Demands { resumes_within: Some(Duration::from_secs(10)), ..NOTHING_MORE },
    ..USUAL
};
