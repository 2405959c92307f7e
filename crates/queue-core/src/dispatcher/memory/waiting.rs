//! What is kept of an entry that nobody holds.

use super::lane::Ready;
use crate::{
    dispatcher::{Entry, Suspicion, tracks::Track},
    ids::{Epoch, JobId},
    job::PRIORITY_MAX,
    time::Timestamp,
};

/// An entry without its names, which its lane knows: 24 bytes, as there may be a million.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) epoch: Epoch,
    pub(super) run_at: Timestamp,
    pub(super) lane: u32,
    priority: u8,
    pub(super) track: Track,
    marks: u8,
}

const _: () = assert!(size_of::<Waiting>() == 24);

/// Due later: in no lane yet.
const LATER: u8 = 1;
/// It has a concurrency key, which the keys know.
const KEYED: u8 = 2;
/// A suspect; the track tells an isolated one.
const SUSPECT: u8 = 4;

impl Waiting {
    pub(super) fn new(entry: &Entry, lane: u32, now: Timestamp) -> Self {
        let mark = |mark, is_set| if is_set { mark } else { 0 };
        let marks = mark(LATER, entry.run_at > now)
            | mark(KEYED, entry.key.is_some())
            | mark(SUSPECT, entry.suspicion == Suspicion::Suspect);
        let (epoch, run_at, priority) = (entry.epoch, entry.run_at, entry.priority.min(PRIORITY_MAX));
        Self { epoch, run_at, lane, priority, track: Track::of(entry), marks }
    }

    pub(super) fn later(&self) -> bool {
        self.marks & LATER != 0
    }

    pub(super) fn come_due(&mut self) {
        self.marks &= !LATER;
    }

    pub(super) fn keyed(&self) -> bool {
        self.marks & KEYED != 0
    }

    pub(super) fn suspicion(&self) -> Suspicion {
        match (self.track.is_isolated(), self.marks & SUSPECT != 0) {
            (true, _) => Suspicion::Isolated,
            (false, true) => Suspicion::Suspect,
            (false, false) => Suspicion::None,
        }
    }

    pub(super) fn ready(&self, id: JobId) -> Ready {
        Ready { priority: self.priority, run_at: self.run_at, id }
    }
}
