//! How the queues stood lately: what this process has seen of them every ten seconds, for charts.
//!
//! It is the memory of one process. After a start it begins anew, and whoever asks is told since when.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use queue_core::{ids::Name, time::Timestamp};
use serde::Serialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    routes::queues::{self, QueueMetrics},
};

/// Time between two looks: an hour of them is as many points as a chart is wide.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// How long they are remembered.
pub(crate) const KEPT: Duration = Duration::from_secs(60 * 60);
/// Queues that are remembered one by one, those with the most jobs: 8 MiB. All others count in the sum.
const QUEUES_MAX: usize = 256;

/// How a queue stood, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = QueuePoint)]
pub(crate) struct Point {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) at: Timestamp,
    /// Claimable then.
    waiting: u64,
    /// Held by workers then.
    active: u64,
    /// Due later.
    scheduled: u64,
    /// Due, but held up.
    parked: u64,
    /// Dead letters then.
    dead: u64,
    /// How long the oldest claimable job had waited.
    oldest_ready_seconds: f64,
    /// Accepted since the queue exists. This and the next three grow: what lies between two points was done between them.
    accepted: u64,
    /// Succeeded since the queue exists.
    completed: u64,
    /// Cancelled since the queue exists.
    cancelled: u64,
    /// Became dead letters since the queue exists.
    died: u64,
}

impl Point {
    fn of(at: Timestamp, metrics: &QueueMetrics) -> Self {
        let QueueMetrics { waiting, active, scheduled, parked, .. } = *metrics;
        let QueueMetrics { accepted, completed, cancelled, died, failed: dead, oldest_ready_seconds, .. } = *metrics;
        Self {
            at,
            waiting,
            active,
            scheduled,
            parked,
            dead,
            oldest_ready_seconds,
            accepted,
            completed,
            cancelled,
            died,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            at: other.at,
            waiting: self.waiting + other.waiting,
            active: self.active + other.active,
            scheduled: self.scheduled + other.scheduled,
            parked: self.parked + other.parked,
            dead: self.dead + other.dead,
            oldest_ready_seconds: self.oldest_ready_seconds.max(other.oldest_ready_seconds),
            accepted: self.accepted + other.accepted,
            completed: self.completed + other.completed,
            cancelled: self.cancelled + other.cancelled,
            died: self.died + other.died,
        }
    }
}

/// What was seen. One look is written by one task; a look that fails leaves a gap.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    since: Option<Timestamp>,
    all: VecDeque<Point>,
    queues: BTreeMap<Name, VecDeque<Point>>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Points at or after.
    pub(crate) since: Timestamp,
    /// One point in so many milliseconds: the last one.
    pub(crate) step_ms: i64,
    /// Of this queue and not of all.
    pub(crate) queue: Option<Name>,
    /// Also of each queue.
    pub(crate) each: bool,
}

/// What is told, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) watched_since: Option<Timestamp>,
    pub(crate) points: Vec<Point>,
    pub(crate) queues: BTreeMap<Name, Vec<Point>>,
}

impl History {
    /// Remembers a look.
    fn add(&self, at: Timestamp, numbers: &BTreeMap<Name, QueueMetrics>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { since, all, queues } = &mut *seen;
        since.get_or_insert(at);
        let points = numbers.iter().map(|(queue, metrics)| (queue, Point::of(at, metrics)));
        let mut points: Vec<_> = points.collect();
        all.push_back(points.iter().fold(Point { at, ..Point::default() }, |sum, (_, point)| sum.plus(*point)));
        points.sort_by_key(|(_, point)| std::cmp::Reverse(point.accepted));
        for (queue, point) in points.into_iter().take(QUEUES_MAX) {
            queues.entry(queue.clone()).or_default().push_back(point);
        }
        let kept_ms = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        for points in queues.values_mut().chain([all]) {
            while points.front().is_some_and(|first| at.since_ms(first.at) > kept_ms) {
                points.pop_front();
            }
        }
        queues.retain(|_, points| !points.is_empty());
    }

    /// Tells of it.
    pub(crate) fn tell(&self, wish: &Wish) -> Told {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told =
            |points: &VecDeque<Point>| thinned(points.iter().filter(|point| point.at >= wish.since), wish.step_ms);
        let nothing = VecDeque::new();
        let points = match &wish.queue {
            Some(queue) => seen.queues.get(queue).unwrap_or(&nothing),
            None => &seen.all,
        };
        let each = seen.queues.iter().filter(|_| wish.each).map(|(queue, points)| (queue.clone(), told(points)));
        Told { watched_since: seen.since, points: told(points), queues: each.collect() }
    }
}

/// The last point of each step; steps begin at whole multiples, so that a chart does not flicker while time goes on.
fn thinned<'p>(points: impl Iterator<Item = &'p Point>, step_ms: i64) -> Vec<Point> {
    let mut kept: Vec<Point> = Vec::new();
    let step_of = |point: &Point| point.at.0.div_euclid(step_ms.max(1));
    for point in points {
        match kept.last_mut() {
            Some(last) if step_of(last) == step_of(point) => *last = *point,
            _ => kept.push(*point),
        }
    }
    kept
}

/// Looks every [`EVERY`] until `shutdown` fires.
pub(crate) async fn watch(app: Shared, shutdown: CancellationToken) {
    let mut looks = tokio::time::interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = looks.tick() => {}
        }
        let numbers = tokio::select! {
            () = shutdown.cancelled() => return,
            numbers = queues::numbers(&app) => numbers,
        };
        match numbers {
            Ok(numbers) => app.history.add(app.now(), &numbers),
            Err(problem) => tracing::debug!(problem = problem.name(), "the history of the queues has a gap"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp(1_790_000_000_000);

    fn numbers(completed: u64) -> BTreeMap<Name, QueueMetrics> {
        let of = |waiting, completed, age| QueueMetrics {
            waiting,
            completed,
            accepted: completed + waiting,
            oldest_ready_seconds: age,
            ..QueueMetrics::default()
        };
        [("a".into(), of(1, completed, 3.0)), ("b".into(), of(10, 2 * completed, 7.0))].into()
    }

    fn wish(since_s: i64, step_s: i64) -> Wish {
        Wish { since: START.plus_ms(since_s * 1_000), step_ms: step_s * 1_000, queue: None, each: false }
    }

    #[test]
    fn an_hour_is_remembered_and_told_by_steps() {
        let history = History::default();
        assert!(history.tell(&wish(0, 10)).watched_since.is_none());
        for look in 0..400 {
            history.add(START.plus_ms(look * 10_000), &numbers(look.unsigned_abs()));
        }
        let told = history.tell(&wish(0, 10));
        assert_eq!((told.watched_since, told.points.len()), (Some(START), 361), "since when is not forgotten");
        assert!(told.queues.is_empty());
        let (first, last) = (told.points[0], told.points[360]);
        assert_eq!((first.at, last.at), (START.plus_ms(390_000), START.plus_ms(3_990_000)));
        assert_eq!(
            (last.waiting, last.completed, last.oldest_ready_seconds),
            (11, 3 * 399, 7.0),
            "a sum, and the oldest"
        );
        let coarse = history.tell(&wish(3_000, 60)).points;
        assert!((16..=18).contains(&coarse.len()), "{}", coarse.len());
        assert_eq!(coarse.last(), Some(&last), "the newest is always told");
        assert!(coarse.windows(2).all(|pair| pair[1].completed > pair[0].completed));
    }

    #[test]
    fn a_queue_is_told_alone_and_forgotten_once_it_is_gone() {
        let history = History::default();
        history.add(START, &numbers(1));
        let only = Wish { queue: Some("b".into()), ..wish(0, 10) };
        assert_eq!(history.tell(&only).points[0].completed, 2);
        assert!(history.tell(&Wish { queue: Some("c".into()), ..wish(0, 10) }).points.is_empty());
        let each = history.tell(&Wish { each: true, ..wish(0, 10) });
        assert_eq!(each.queues.keys().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
        history.add(START.plus_ms(3_700_000), &BTreeMap::new());
        assert!(history.tell(&Wish { each: true, ..wish(0, 10) }).queues.is_empty());
    }
}
