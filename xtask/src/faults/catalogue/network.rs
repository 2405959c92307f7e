//! The network between processes and stores.

use std::time::Duration;

use super::super::{
    history::Store,
    links::Link,
    scenario::{Demands, NOTHING_MORE, Scenario, Shape, Trouble, USUAL, Weather},
};
use crate::cluster::Role;

const WORKERS_REDIS: Link = Link { role: Role::Worker, first: false, store: Store::Redis };
const API_REDIS: Link = Link { role: Role::Api, first: false, store: Store::Redis };
const WORKERS_POSTGRES: Link = Link { role: Role::Worker, first: false, store: Store::Postgres };
const API_POSTGRES: Link = Link { role: Role::Api, first: false, store: Store::Postgres };
const SCHEDULERS_POSTGRES: Link = Link { role: Role::Scheduler, first: false, store: Store::Postgres };

const fn flaps(times: usize, link: Link, weather: Weather, seconds: u64) -> (usize, Trouble) {
    (times, Trouble::Network(link, weather, Duration::from_secs(seconds)))
}

/// 50 flaps.
pub(super) const PARTITIONS: Scenario = Scenario {
    name: "F12",
    purpose: "workers and API lose Redis in every way, for a second to five",
    load: Shape { rate: 150, time: Duration::from_secs(360), ..USUAL.load },
    troubles: &[
        flaps(6, WORKERS_REDIS, Weather::Silent, 1),
        flaps(6, WORKERS_REDIS, Weather::Silent, 5),
        flaps(6, WORKERS_REDIS, Weather::Reset, 2),
        flaps(6, WORKERS_REDIS, Weather::Reset, 5),
        flaps(6, WORKERS_REDIS, Weather::OneWay, 3),
        flaps(8, API_REDIS, Weather::Silent, 3),
        flaps(6, API_REDIS, Weather::Reset, 4),
        flaps(6, API_REDIS, Weather::OneWay, 2),
    ],
    demands: Demands { resumes_within: Some(Duration::from_secs(5)), ..NOTHING_MORE },
    ..USUAL
};

pub(super) const BAD_WEATHER: Scenario = Scenario {
    name: "F13",
    purpose: "replies come late, in pieces, torn or not at all, from both stores",
    load: Shape { rate: 100, time: Duration::from_secs(180), ..USUAL.load },
    troubles: &[
        flaps(1, WORKERS_REDIS, Weather::Late(50), 8),
        flaps(1, WORKERS_REDIS, Weather::Sliced(64), 8),
        flaps(2, WORKERS_REDIS, Weather::Torn, 8),
        flaps(1, WORKERS_REDIS, Weather::HalfClosed, 2),
        flaps(2, API_REDIS, Weather::Torn, 8),
        flaps(2, WORKERS_POSTGRES, Weather::Torn, 8),
        flaps(1, WORKERS_POSTGRES, Weather::Late(50), 8),
        flaps(1, WORKERS_POSTGRES, Weather::HalfClosed, 2),
        flaps(2, API_POSTGRES, Weather::Torn, 8),
        flaps(1, API_POSTGRES, Weather::Sliced(256), 8),
        flaps(2, SCHEDULERS_POSTGRES, Weather::Torn, 8),
    ],
    ..USUAL
};

/// Others take its jobs over while it works on, so that each of them has two attempts at once.
pub(super) const ONE_CUT_OFF: Scenario = Scenario {
    name: "F12-one",
    purpose: "one worker loses Redis for longer than its session lives, and settles in Postgres as if it had not",
    load: Shape { rate: 100, long_percent: 10, time: Duration::from_secs(90), ..USUAL.load },
    troubles: &[flaps(4, Link { role: Role::Worker, first: true, store: Store::Redis }, Weather::Reset, 12)],
    ..USUAL
};
