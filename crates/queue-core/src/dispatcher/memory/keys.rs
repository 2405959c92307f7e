//! Concurrency keys: of the jobs of one (queue, tenant, key) only so many stand in their lanes or are held at once.
//!
//! The others stand in a line of their key, so that no claim ever looks at them. What stands in the lanes is always
//! the part of the key's due entries that ranks first, whatever lanes, targets or kinds they are of: an entry that
//! ranks before one that waits in a lane takes its place.
//!
//! A change of a queue's limit is carried to its keys in pieces of a bounded number, the first of them at once; while
//! some are left, the queue's timer is due.

use std::collections::{BTreeSet, HashMap};

use super::{core::Core, lane::Rank, rotation::Timer, slab::Slab, waiting::Waiting};
use crate::{
    ids::{JobId, Name},
    time::Timestamp,
};

/// Keys that a change of the limit reaches in one call.
const REVIEW_MAX: usize = 1_000;
/// Entries that such a call brings into their lanes or takes out of them. Only a change of the limit moves more of them
/// than the call itself ended or brought.
const MOVES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Key {
    queue: u32,
    tenant: Name,
    pub(super) name: Name,
    /// Claims that are held.
    held: u64,
    /// Entries in their lanes.
    admitted: BTreeSet<Rank>,
    /// Due entries that wait for a place.
    blocked: BTreeSet<Rank>,
    /// Jobs that have it: due later, waiting or held. A key that nobody has is dropped.
    refs: usize,
}

impl Key {
    /// Waiting entries of the key that come before this one, counted up to `bound`.
    pub(super) fn ahead_of(&self, rank: Rank, bound: usize) -> usize {
        let blocked = self.blocked.range(..rank).take(bound).count();
        (self.admitted.range(..rank).take(bound).count() + blocked).min(bound)
    }

    pub(super) fn is_blocked(&self, rank: Rank) -> bool {
        self.blocked.contains(&rank)
    }

    /// One step towards what the limit asks for; `None`: it is reached.
    fn next_move(&mut self, limit: u32) -> Option<Move> {
        let room = u64::from(limit).saturating_sub(self.held);
        let inside = self.admitted.len() as u64;
        if inside > room {
            return self.block_last().map(|block| Move { admit: None, block: Some(block) });
        }
        let is_better = || self.blocked.first().zip(self.admitted.last()).is_some_and(|(best, worst)| best < worst);
        if inside == room && !is_better() {
            return None;
        }
        let block = if inside == room { self.block_last() } else { None };
        let best = self.blocked.pop_first()?;
        self.admitted.insert(best);
        Some(Move { admit: Some(best.1), block })
    }

    fn block_last(&mut self) -> Option<JobId> {
        let worst = self.admitted.pop_last()?;
        self.blocked.insert(worst);
        Some(worst.1)
    }
}

/// What has to happen in the lanes. Both: the second gives its place to the first.
#[derive(Clone, Copy, Debug)]
struct Move {
    admit: Option<JobId>,
    block: Option<JobId>,
}

#[derive(Debug, Default)]
pub(super) struct Keys {
    states: Slab<Key>,
    by_name: HashMap<(u32, Name, Name), u32>,
    /// Of waiting jobs: most jobs have none, so an entry has a flag only.
    of_job: HashMap<JobId, u32>,
    /// Keys of a queue that more than one job has: a change of the limit concerns no others.
    shared: HashMap<u32, BTreeSet<u32>>,
    /// Queues whose limit has changed, and the first of their keys that has yet to hear of it.
    reviewed: HashMap<u32, u32>,
}

impl Keys {
    /// The key of these three, made if it is new. One job more has it.
    fn take(&mut self, queue: u32, tenant: &Name, name: &Name) -> u32 {
        let of = (queue, tenant.clone(), name.clone());
        let key = *self.by_name.entry(of).or_insert_with_key(|(queue, tenant, name)| {
            let (admitted, blocked) = (BTreeSet::new(), BTreeSet::new());
            let (tenant, name) = (tenant.clone(), name.clone());
            self.states.insert(Key { queue: *queue, tenant, name, held: 0, admitted, blocked, refs: 0 })
        });
        self.states[key].refs += 1;
        if self.states[key].refs == 2 {
            self.shared.entry(queue).or_default().insert(key);
        }
        key
    }

    /// One job less has it.
    fn give_back(&mut self, key: u32) {
        let Key { queue, refs, .. } = &mut self.states[key];
        *refs -= 1;
        let (queue, refs) = (*queue, *refs);
        if refs == 1
            && let Some(shared) = self.shared.get_mut(&queue)
        {
            shared.remove(&key);
            if shared.is_empty() {
                self.shared.remove(&queue);
            }
        }
        if refs == 0 {
            let Key { tenant, name, .. } = &self.states[key];
            self.by_name.remove(&(queue, tenant.clone(), name.clone()));
            self.states.remove(key);
        }
    }

    fn get(&self, key: u32) -> &Key {
        &self.states[key]
    }

    /// The key of a waiting job.
    pub(super) fn of(&self, id: JobId) -> Option<&Key> {
        self.of_job.get(&id).map(|key| self.get(*key))
    }
}

impl Core {
    /// A job comes to wait: it has this key.
    pub(super) fn note_key(&mut self, id: JobId, lane: u32, name: &Name) {
        let key = self.take_key(lane, name);
        self.keys.of_job.insert(id, key);
    }

    fn take_key(&mut self, lane: u32, name: &Name) -> u32 {
        let queue = self.rotation.queue_of(lane);
        self.keys.take(queue, &self.rotation.lanes[lane].tenant, name)
    }

    /// A waiting entry is due: it joins its lane, or the line of its key.
    pub(super) fn make_ready(&mut self, id: JobId, waiting: Waiting) {
        match self.keys.of_job.get(&id).copied().filter(|_| waiting.keyed()) {
            None => self.rotation.add(waiting.lane, waiting.track, waiting.ready(id)),
            Some(key) => {
                let state = &mut self.keys.states[key];
                state.blocked.insert(waiting.ready(id).rank());
                self.rotation.queues[state.queue].blocked += 1;
                self.fit(key);
            }
        }
    }

    /// A due entry that does not wait any more leaves its lane, or the line of its key.
    pub(super) fn make_unready(&mut self, id: JobId, waiting: Waiting) {
        let key = self.keys.of_job.get(&id).copied().filter(|_| waiting.keyed());
        let ready = waiting.ready(id);
        let Some(key) = key else { return self.rotation.cut(waiting.lane, waiting.track, ready) };
        let state = &mut self.keys.states[key];
        if state.blocked.remove(&ready.rank()) {
            self.rotation.queues[state.queue].blocked -= 1;
            return;
        }
        state.admitted.remove(&ready.rank());
        self.rotation.cut(waiting.lane, waiting.track, ready);
        self.fit(key);
    }

    /// A job that waited is forgotten.
    pub(super) fn forget_key(&mut self, id: JobId) {
        if let Some(key) = self.keys.of_job.remove(&id) {
            self.keys.give_back(key);
        }
    }

    /// A claim took this entry out of its lane: it keeps its place as a held one. Returns its key.
    pub(super) fn hold_key(&mut self, id: JobId, waiting: Waiting) -> Option<u32> {
        let key = self.keys.of_job.remove(&id)?;
        let state = &mut self.keys.states[key];
        state.admitted.remove(&waiting.ready(id).rank());
        state.held += 1;
        self.fit(key);
        Some(key)
    }

    /// A claim of another life of the dispatcher is held: it has its place whether there is room or not.
    pub(super) fn hold_known(&mut self, lane: u32, name: &Name) -> u32 {
        let key = self.take_key(lane, name);
        self.keys.states[key].held += 1;
        self.fit(key);
        key
    }

    /// A claim ended: its place is the next one's.
    pub(super) fn release_key(&mut self, key: u32) {
        self.keys.states[key].held -= 1;
        self.fit(key);
        self.keys.give_back(key);
    }

    /// Brings into the lanes what the limit admits, and takes out what it does not.
    fn fit(&mut self, key: u32) {
        let mut left = MOVES_MAX;
        self.fit_within(key, &mut left);
    }

    /// Likewise, with at most `left` moves, which it counts down. Returns whether that is all of it.
    fn fit_within(&mut self, key: u32, left: &mut usize) -> bool {
        let queue = self.keys.states[key].queue;
        let limit = self.rotation.queues[queue].key_concurrency();
        while *left > 0 {
            *left -= 1;
            let Some(Move { admit, block }) = self.keys.states[key].next_move(limit) else { return true };
            // Who comes before who goes: of the same lane, it is never empty between them and keeps its turn.
            for (id, enters) in [(admit, true), (block, false)] {
                let Some((id, waiting)) = id.and_then(|id| Some((id, *self.waiting.get(&id)?))) else { continue };
                let Waiting { lane, track, .. } = waiting;
                if enters {
                    self.rotation.queues[queue].blocked -= 1;
                    self.rotation.add(lane, track, waiting.ready(id));
                } else {
                    self.rotation.queues[queue].blocked += 1;
                    self.rotation.cut(lane, track, waiting.ready(id));
                }
            }
        }
        false
    }

    /// The limit of this queue's keys has changed.
    pub(super) fn begin_review(&mut self, queue: u32, now: Timestamp) {
        self.keys.reviewed.insert(queue, 0);
        self.review(queue, now);
    }

    /// Carries the limit to the next keys of a queue.
    pub(super) fn review(&mut self, queue: u32, now: Timestamp) {
        let Some(from) = self.keys.reviewed.remove(&queue) else { return };
        let shared = self.keys.shared.get(&queue);
        let next: Vec<_> = shared.into_iter().flat_map(|keys| keys.range(from..)).take(REVIEW_MAX).copied().collect();
        let mut left = MOVES_MAX;
        for key in &next {
            if !self.fit_within(*key, &mut left) {
                return self.review_later(queue, *key, now);
            }
        }
        if let (REVIEW_MAX, Some(last)) = (next.len(), next.last()) {
            self.review_later(queue, last + 1, now);
        }
    }

    fn review_later(&mut self, queue: u32, from: u32, now: Timestamp) {
        self.keys.reviewed.insert(queue, from);
        self.rotation.timers.insert((now, Timer::Keys(queue)));
    }
}
