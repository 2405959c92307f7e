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
    since: Instant,
    until: Instant,
    /// How long it has been known.
    pub(super) age_ms: u64,
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
            blocks.insert(ask.target.clone(), Block { ask, penalty, since: now, until, age_ms: 0, left_ms: 0, reason });
        }
    }

    /// Forgets a block that an operator has lifted; one that this process has seen since stays.
    pub(super) fn forget(&self, lifted: &Block) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.get(&lifted.ask.target).is_some_and(|held| held.since == lifted.since) {
            blocks.remove(&lifted.ask.target);
        }
    }

    /// Those that last.
    pub(super) fn active(&self, now: Instant) -> Vec<Block> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|_, block| block.until > now);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let left = |block: &Block| {
            let (left_ms, age_ms) = (ms(block.until.duration_since(now)), ms(now.duration_since(block.since)));
            Block { left_ms, age_ms, ..block.clone() }
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

/// Jobs of a target that may run at once, whatever its pace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Most {
    pub(super) jobs: Option<u32>,
    /// That is said of this target by name: nobody else tells the dispatcher.
    pub(super) is_its_own: bool,
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
        most: Most,
        now: Instant,
    ) -> Option<Option<u32>> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= TARGETS_MAX && !paces.contains_key(target) {
            return None;
        }
        let first = !paces.contains_key(target);
        let known = paces.entry(target.clone()).or_insert(Pace { told: None, at: None, beside });
        known.beside += (beside.max(BESIDE_LEAST) - known.beside) * BESIDE_WEIGHT;
        let jobs = known.jobs(calls, most);
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

    /// The same when limits have changed, for a target that this process knows: what was told counts for nothing.
    pub(super) fn anew(&self, target: &Name, calls: Option<u32>, most: Most, now: Instant) -> Option<Option<u32>> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = paces.get_mut(target)?;
        let jobs = known.jobs(calls, most);
        (known.told, known.at) = (jobs, Some(now));
        Some(jobs)
    }
}

impl Pace {
    /// How many jobs are enough for so many calls, and no more than there may be.
    fn jobs(&self, calls: Option<u32>, most: Most) -> Option<u32> {
        let enough = |calls: u32| (f64::from(calls) / self.beside.max(BESIDE_LEAST)).ceil().max(1.0) as u32;
        match calls.map(enough) {
            Some(jobs) => Some(most.jobs.map_or(jobs, |most| jobs.min(most.max(1)))),
            None => most.jobs.filter(|_| most.is_its_own),
        }
    }
}

#[cfg(test)]
mod tests {
    use queue_core::limiter::Limit;
    use uuid::Uuid;

    use super::*;

    const MOST: Most = Most { jobs: Some(64), is_its_own: false };

    #[test]
    fn a_pace_is_told_when_it_changes_and_now_and_then() {
        let (paces, began) = (Paces::default(), Instant::now());
        let target = Name::from("p:m:c");
        let at = |ms: u64| began + Duration::from_millis(ms);
        assert_eq!(paces.changed(&target, Some(20), 1.0, MOST, at(0)), Some(Some(20)));
        assert_eq!(paces.changed(&target, Some(30), 1.0, MOST, at(100)), None, "not so soon");
        assert_eq!(paces.changed(&target, Some(30), 1.0, MOST, at(500)), Some(Some(30)));
        assert_eq!(paces.changed(&target, Some(31), 1.0, MOST, at(5_000)), None, "not for so little");
        assert_eq!(paces.changed(&target, Some(30), 1.0, MOST, at(10_500)), Some(Some(30)), "it may be forgotten");
        assert_eq!(paces.changed(&target, Some(500), 1.0, MOST, at(20_000)), Some(Some(64)), "what is configured");
        assert_eq!(paces.changed(&target, None, 1.0, MOST, at(21_000)), Some(None), "taken back");
        assert_eq!(paces.changed(&target, None, 1.0, MOST, at(60_000)), None, "and that is that");
        let own = Most { is_its_own: true, ..MOST };
        let embeds = Name::from("p:embeds:c");
        assert_eq!(paces.changed(&embeds, None, 1.0, own, at(0)), Some(Some(64)), "of its own, without a pace");
        assert_eq!(paces.anew(&embeds, Some(7), own, at(1)), Some(Some(7)), "limits have changed");
        assert_eq!(paces.anew(&Name::from("p:stranger:c"), Some(7), own, at(1)), None, "somebody else's");
        let other = Name::from("p:other:c");
        assert_eq!(
            paces.changed(&other, None, 1.0, Most::default(), at(0)),
            Some(None),
            "an earlier process may have told one"
        );
        assert_eq!(paces.changed(&other, None, 1.0, Most::default(), at(60_000)), None);
    }

    #[test]
    fn jobs_of_many_calls_are_fewer_and_those_that_share_one_are_more() {
        let (paces, now) = (Paces::default(), Instant::now());
        assert_eq!(paces.changed(&"u".into(), Some(20), 0.1, Most::default(), now), Some(Some(200)));
        assert_eq!(paces.changed(&"t".into(), Some(20), 8.0, Most::default(), now), Some(Some(3)));
    }

    #[test]
    fn the_longer_block_is_remembered_until_it_ends() {
        let (blocks, now) = (Blocks::default(), Instant::now());
        let target = Target { provider: "p".into(), model: "m".into(), credential: "c".into() };
        let ask = Ask::new(target, Limit::default(), Uuid::nil(), 0);
        let note = |ms, reason: &str| {
            blocks.note(ask.clone(), Penalty::Rate, now + Duration::from_millis(ms), reason.to_owned());
        };
        note(30_000, "long");
        note(1_000, "short");
        let active = blocks.active(now + Duration::from_millis(10_000));
        assert_eq!((active[0].reason.as_str(), active[0].left_ms), ("long", 20_000));
        assert!((9_000..=10_000).contains(&active[0].age_ms), "{}", active[0].age_ms);
        note(31_000, "another one");
        blocks.forget(&active[0]);
        assert_eq!(blocks.active(now + Duration::from_millis(10_000)).len(), 1, "what came after it stays");
        blocks.forget(&blocks.active(now)[0]);
        assert!(blocks.active(now).is_empty());
        note(20_000, "again");
        assert!(blocks.active(now + Duration::from_millis(30_000)).is_empty());
    }
}
