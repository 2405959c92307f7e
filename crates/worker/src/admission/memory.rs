//! What the gate of this process remembers: blocks that it saw, and the paces that it told.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use queue_core::{
    ids::Name,
    limiter::{Ask, Penalty},
    route::Target,
};

/// Most targets that are remembered; a worker that meets more only forgets sooner.
const TARGETS_MAX: usize = 10_000;
/// A pace is told at most so often,
const PACE_EVERY: Duration = Duration::from_millis(500);
/// and at least so often: the dispatcher may have forgotten it.
const PACE_AGAIN: Duration = Duration::from_secs(10);
/// A change below this part of the pace is not told.
const PACE_CHANGE: f64 = 0.1;
/// Weight of the newest job in the mean number of calls that a job makes at once.
const BESIDE_WEIGHT: f64 = 0.05;

/// The least of it: calls are made for so many jobs at most.
const BESIDE_LEAST: f64 = 1.0 / 2_048.0;

/// A block that this process saw.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) ask: Ask,
    pub(super) penalty: Penalty,
    until: Instant,
    /// How long it still lasts.
    pub(super) left_ms: u64,
    pub(super) reason: String,
}

/// Blocks that this process saw.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<HashMap<Target, Block>>);

impl Blocks {
    /// A longer one stands.
    pub(super) fn note(&self, ask: Ask, penalty: Penalty, until: Instant, reason: String) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if blocks.len() >= TARGETS_MAX {
            blocks.retain(|_, block| block.until > now);
        }
        if blocks.get(&ask.target).is_none_or(|held| held.until < until) {
            blocks.insert(ask.target.clone(), Block { ask, penalty, until, left_ms: 0, reason });
        }
    }

    /// Those that last.
    pub(super) fn active(&self, now: Instant) -> Vec<Block> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|_, block| block.until > now);
        let left = |block: &Block| {
            let left_ms = u64::try_from(block.until.duration_since(now).as_millis()).unwrap_or(u64::MAX);
            Block { left_ms, ..block.clone() }
        };
        blocks.values().map(left).collect()
    }
}

#[derive(Debug)]
struct Pace {
    /// What the dispatcher was told, and when.
    told: Option<u32>,
    at: Option<Instant>,
    /// Calls that a job makes at once.
    beside: f64,
}

/// The paces that this process told.
#[derive(Debug, Default)]
pub(super) struct Paces(Mutex<HashMap<Name, Pace>>);

impl Paces {
    /// What the dispatcher should be told now of the target: jobs at once, or none to take a told number back. `None`:
    /// nothing.
    pub(super) fn changed(
        &self,
        target: &Name,
        calls: Option<u32>,
        beside: f64,
        most: Option<u32>,
        now: Instant,
    ) -> Option<Option<u32>> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= TARGETS_MAX && !paces.contains_key(target) {
            return None;
        }
        let first = !paces.contains_key(target);
        let known = paces.entry(target.clone()).or_insert(Pace { told: None, at: None, beside });
        known.beside += (beside.max(BESIDE_LEAST) - known.beside) * BESIDE_WEIGHT;
        let jobs = calls.map(|calls| {
            let jobs = (f64::from(calls) / known.beside.max(BESIDE_LEAST)).ceil().max(1.0) as u32;
            most.map_or(jobs, |most| jobs.min(most.max(1)))
        });
        let age = known.at.map(|at| now.duration_since(at));
        let differs = match (jobs, known.told) {
            (Some(jobs), Some(told)) => {
                let change = f64::from(jobs.abs_diff(told)) / f64::from(told.max(1));
                jobs != told && (change >= PACE_CHANGE || age.is_some_and(|age| age >= PACE_AGAIN))
            }
            (jobs, told) => jobs != told,
        };
        // What a process before this one told under a limit that is gone would hold for ever.
        let again = first || jobs.is_some() && age.is_some_and(|age| age >= PACE_AGAIN);
        if !(differs && age.is_none_or(|age| age >= PACE_EVERY) || again) {
            return None;
        }
        (known.told, known.at) = (jobs, Some(now));
        Some(jobs)
    }
}

#[cfg(test)]
mod tests {
    use queue_core::limiter::Limit;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_pace_is_told_when_it_changes_and_now_and_then() {
        let (paces, began) = (Paces::default(), Instant::now());
        let target = Name::from("p:m:c");
        let at = |ms: u64| began + Duration::from_millis(ms);
        assert_eq!(paces.changed(&target, Some(20), 1.0, Some(64), at(0)), Some(Some(20)));
        assert_eq!(paces.changed(&target, Some(30), 1.0, Some(64), at(100)), None, "not so soon");
        assert_eq!(paces.changed(&target, Some(30), 1.0, Some(64), at(500)), Some(Some(30)));
        assert_eq!(paces.changed(&target, Some(31), 1.0, Some(64), at(5_000)), None, "not for so little");
        assert_eq!(paces.changed(&target, Some(30), 1.0, Some(64), at(10_500)), Some(Some(30)), "it may be forgotten");
        assert_eq!(paces.changed(&target, Some(500), 1.0, Some(64), at(20_000)), Some(Some(64)), "what is configured");
        assert_eq!(paces.changed(&target, None, 1.0, Some(64), at(21_000)), Some(None), "taken back");
        assert_eq!(paces.changed(&target, None, 1.0, Some(64), at(60_000)), None, "and that is that");
        let other = Name::from("p:other:c");
        assert_eq!(paces.changed(&other, None, 1.0, None, at(0)), Some(None), "an earlier process may have told one");
        assert_eq!(paces.changed(&other, None, 1.0, None, at(60_000)), None);
    }

    #[test]
    fn jobs_of_many_calls_are_fewer_and_those_that_share_one_are_more() {
        let (paces, now) = (Paces::default(), Instant::now());
        assert_eq!(paces.changed(&"u".into(), Some(20), 0.1, None, now), Some(Some(200)));
        assert_eq!(paces.changed(&"t".into(), Some(20), 8.0, None, now), Some(Some(3)));
    }

    #[test]
    fn the_longer_block_is_remembered_until_it_ends() {
        let (blocks, now) = (Blocks::default(), Instant::now());
        let target = Target { provider: "p".into(), model: "m".into(), credential: "c".into() };
        let ask = Ask { target, limit: Limit::default(), call: Uuid::nil(), tokens: 0 };
        let note = |ms, reason: &str| {
            blocks.note(ask.clone(), Penalty::Rate, now + Duration::from_millis(ms), reason.to_owned());
        };
        note(30_000, "long");
        note(1_000, "short");
        let active = blocks.active(now + Duration::from_millis(10_000));
        assert_eq!((active[0].reason.as_str(), active[0].left_ms), ("long", 20_000));
        assert!(blocks.active(now + Duration::from_millis(30_000)).is_empty());
    }
}
