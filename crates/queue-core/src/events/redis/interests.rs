//! The telling side: who wants to hear of which job, and how far each has been told.
//!
//! Nothing is queued for anybody. A watcher is a position in the job's ring, so one that is slow costs no memory here:
//! when the ring has moved on, it is told that there is a gap.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use super::wire::{Ask, Piece, Watch};
use crate::{
    events::{
        memory::MemoryEvents,
        ring::{Held, Ring},
    },
    ids::JobId,
};

/// How long an interest lasts that is not renewed: three renewals.
pub(super) const INTEREST_LASTS: Duration = Duration::from_secs(6);
/// Most interests, of all processes together: about 100 bytes each.
const INTERESTS_MAX: usize = 16_384;
/// Most unanswered asks for progress.
const PROGRESS_MAX: usize = 4_096;
/// Most events of one job in one message.
const PIECE_MAX_EVENTS: usize = 512;
/// Bytes of text of one job after which a message holds no more of it.
const PIECE_MAX_BYTES: usize = 64 * 1024;
/// Most pieces in one round: what is left is told in the next.
const ROUND_MAX: usize = 256;

/// What one process wants of one job.
struct Interest {
    asker: Uuid,
    until: Instant,
    /// Up to where it was told; `None`: nothing yet.
    after: Option<u64>,
    /// Whether it waits for an answer to an ask.
    fresh: bool,
    /// Changes when the asker moves the position, so that a message on its way does not move it on.
    asks: u32,
}

/// A piece for one process, and where it leaves that process.
pub(super) struct Told {
    pub(super) asker: Uuid,
    pub(super) piece: Piece,
    asks: u32,
}

/// Everything that others want to hear.
#[derive(Default)]
pub(super) struct Interests {
    by_job: HashMap<JobId, Vec<Interest>>,
    count: usize,
    /// Jobs with something to tell, in turn.
    turns: VecDeque<JobId>,
    /// The same, to be found.
    dirty: HashSet<JobId>,
    /// Asks for progress.
    progress: Vec<(Uuid, JobId)>,
    ends_until: Option<Instant>,
}

impl Interests {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn ends_are_wanted(&self) -> bool {
        self.ends_until.is_some()
    }

    /// Whether anybody wants to hear of `job`.
    pub(super) fn contains(&self, job: JobId) -> bool {
        self.by_job.contains_key(&job)
    }

    /// Notes that there is something to tell of `job`.
    pub(super) fn mark(&mut self, job: JobId) {
        if self.contains(job) && self.dirty.insert(job) {
            self.turns.push_back(job);
        }
    }

    /// Takes what `me` is asked.
    pub(super) fn hear(&mut self, me: Uuid, ask: Ask, now: Instant) {
        if ask.ends {
            self.ends_until = Some(now + INTEREST_LASTS);
        }
        for watch in ask.watches {
            self.watch(me, ask.asker, watch, now);
        }
        for job in ask.progress {
            if self.progress.len() < PROGRESS_MAX {
                self.progress.push((ask.asker, job));
            }
        }
    }

    fn watch(&mut self, me: Uuid, asker: Uuid, watch: Watch, now: Instant) {
        // What it has of others says nothing of what it has of this process.
        let after = watch.after.filter(|_| watch.source == Some(me));
        let until = now + INTEREST_LASTS;
        let interests = self.by_job.entry(watch.job).or_default();
        if let Some(known) = interests.iter_mut().find(|known| known.asker == asker) {
            known.until = until;
            // A message was lost, or is on its way: what comes twice is left out there.
            if watch.source.is_none_or(|source| source == me) && after < known.after {
                (known.after, known.fresh, known.asks) = (after, true, known.asks.wrapping_add(1));
                self.mark(watch.job);
            }
        } else if self.count < INTERESTS_MAX {
            self.count += 1;
            interests.push(Interest { asker, until, after, fresh: true, asks: 0 });
            self.mark(watch.job);
        } else if interests.is_empty() {
            self.by_job.remove(&watch.job);
        }
    }

    /// Forgets what was not renewed.
    pub(super) fn expire(&mut self, now: Instant) {
        self.ends_until = self.ends_until.filter(|until| *until > now);
        let Self { by_job, turns, dirty, .. } = self;
        by_job.retain(|_, interests| {
            interests.retain(|interest| interest.until > now);
            !interests.is_empty()
        });
        dirty.retain(|job| by_job.contains_key(job));
        turns.retain(|job| dirty.contains(job));
        self.count = self.by_job.values().map(Vec::len).sum();
    }

    /// The next pieces to tell; each process gets one of a job at a time.
    pub(super) fn round(&mut self, rings: &MemoryEvents) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..ROUND_MAX {
            let Some(job) = self.turns.pop_front() else { break };
            self.dirty.remove(&job);
            for interest in self.by_job.get_mut(&job).into_iter().flatten() {
                match rings.look(job, |ring| interest.piece(job, ring)) {
                    Some(Some(piece)) => told.push(Told { asker: interest.asker, piece, asks: interest.asks }),
                    Some(None) => {}
                    // Nothing was told of this job here: what comes from now on is news.
                    None => interest.fresh = false,
                }
            }
        }
        told
    }

    /// What became of a piece: one that was not sent is told again.
    pub(super) fn settle(&mut self, told: &Told, sent: bool) {
        let Piece { job, previous, fresh, more, ref events, .. } = told.piece;
        let interests = self.by_job.get_mut(&job).into_iter().flatten();
        let Some(interest) = interests.into_iter().find(|interest| interest.asker == told.asker) else { return };
        if sent && interest.asks == told.asks {
            interest.after = Some(events.last().map_or(previous, |event| event.sequence));
            // An answer of several pieces ends with the last.
            interest.fresh = fresh && more;
        }
        if more || !sent {
            self.mark(job);
        }
    }

    /// Whether there is something to tell.
    pub(super) fn has_more(&self) -> bool {
        !self.turns.is_empty() || !self.progress.is_empty()
    }

    /// The asks for progress so far.
    pub(super) fn take_progress(&mut self) -> Vec<(Uuid, JobId)> {
        std::mem::take(&mut self.progress)
    }
}

impl Interest {
    /// What there is to tell; `None` if that is nothing and nobody waits for an answer.
    fn piece(&self, job: JobId, ring: &Ring) -> Option<Piece> {
        let Held { previous, gap, begins, more, events } = ring.after(self.after, PIECE_MAX_EVENTS, PIECE_MAX_BYTES);
        if events.is_empty() && !self.fresh {
            return None;
        }
        // Behind a gap as after an ask: the event that told the progress may be gone.
        let fresh = self.fresh || gap;
        let progress = ring.progress().filter(|_| fresh && !more).cloned();
        Some(Piece { job, previous, gap, begins, fresh, more, turn: ring.turn(), progress, events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventBody, Events};

    fn ask(asker: Uuid, job: JobId) -> Ask {
        Ask { asker, watches: vec![Watch { job, source: None, after: None }], ..Ask::default() }
    }

    #[tokio::test]
    async fn interests_are_bounded_and_expire() {
        let (mut interests, me, now) = (Interests::default(), Uuid::from_u128(1), Instant::now());
        let jobs: Vec<_> = (0..INTERESTS_MAX + 10).map(|_| JobId::generate()).collect();
        jobs.iter().for_each(|job| interests.hear(me, ask(Uuid::from_u128(2), *job), now));
        assert_eq!((interests.len(), interests.by_job.len()), (INTERESTS_MAX, INTERESTS_MAX));
        interests.hear(me, ask(Uuid::from_u128(2), jobs[0]), now + INTEREST_LASTS);
        interests.expire(now + INTEREST_LASTS);
        assert!(interests.contains(jobs[0]) && interests.len() == 1 && interests.turns.len() == 1);
    }

    #[tokio::test]
    async fn what_was_not_sent_is_told_again_and_what_was_lost_on_demand() {
        let (rings, job, me, asker) = (MemoryEvents::new(), JobId::generate(), Uuid::from_u128(1), Uuid::from_u128(2));
        let mut interests = Interests::default();
        rings.publish(job, EventBody::AttemptStarted { attempt: 1 });
        interests.hear(me, ask(asker, job), Instant::now());
        for sent in [false, true] {
            let told = interests.round(&rings);
            assert_eq!((told.len(), told[0].piece.events.len(), told[0].piece.fresh), (1, 1, true));
            interests.settle(&told[0], sent);
        }
        assert!(interests.round(&rings).is_empty() && !interests.has_more());
        // A renewal that has less than was sent.
        interests.hear(me, ask(asker, job), Instant::now());
        assert_eq!(interests.round(&rings)[0].piece.events.len(), 1);
    }
}
