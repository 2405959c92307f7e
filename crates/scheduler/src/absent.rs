//! Absent: who is waited for after the dispatcher has forgotten everything, and when a worker is taken for dead.
//!
//! A worker comes back by joining the new life. One whose process is not connected any more, and was not for as long as
//! a living one needs to connect again, is dead, and so is everybody who did not come back while a session lives: the
//! same times after which the reaper takes a worker's jobs. A flush cuts no connection; a restart of Redis cuts all of
//! them, so a look that failed says nothing about anybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{CLOSED_MS, Present, SESSION_MS},
    ids::SessionId,
};

const CLOSED: Duration = Duration::from_millis(CLOSED_MS as u64);
const SESSION: Duration = Duration::from_millis(SESSION_MS as u64);

/// Time is measured here: it passes while the dispatcher is away.
#[derive(Debug)]
pub(crate) struct Absent {
    began: Instant,
    /// Who is waited for, and since when its process is not connected.
    awaited: BTreeMap<SessionId, Option<Instant>>,
    dead: usize,
}

impl Absent {
    /// Waits for all of these.
    pub(crate) fn new(awaited: BTreeSet<SessionId>, now: Instant) -> Self {
        Self { began: now, awaited: awaited.into_iter().map(|id| (id, None)).collect(), dead: 0 }
    }

    /// Nobody is waited for any more.
    pub(crate) fn nobody(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Who is waited for.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.awaited.keys().copied().collect()
    }

    /// How many did not come back.
    pub(crate) fn dead(&self) -> usize {
        self.dead
    }

    /// What a look at the dispatcher has shown; `None`: it did not answer.
    pub(crate) fn look(&mut self, present: Option<&Present>, now: Instant) {
        let here: BTreeSet<_> = present.into_iter().flat_map(|present| &present.alive).map(|view| view.id).collect();
        let gone: BTreeSet<_> = present.into_iter().flat_map(|present| &present.gone).copied().collect();
        let over = now.duration_since(self.began) >= SESSION;
        let mut dead = 0;
        self.awaited.retain(|id, since| {
            if here.contains(id) {
                return false;
            }
            *since = gone.contains(id).then(|| since.unwrap_or(now));
            let is_dead = over || since.is_some_and(|since| now.duration_since(since) >= CLOSED);
            dead += usize::from(is_dead);
            !is_dead
        });
        self.dead += dead;
    }
}
