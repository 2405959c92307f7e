//! Absent: who is waited for after the dispatcher has forgotten everything, and when a worker is taken for dead.
//!
//! A worker comes back by joining the new life. One whose process is not connected any more, and was not for as long as
//! a living one needs to connect again, is dead, and so is everybody who did not come back while a session lives: the
//! same times after which the reaper takes a worker's jobs. A flush cuts no connection; a restart of Redis cuts all of
//! them, so a look that failed says nothing about anybody.
//!
//! Every scheduler keeps this of a life that is being filled, not only the one that fills it: whoever goes on behind a
//! dead one knows then who is gone, and does not begin to wait.

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

/// The workers that may run something which this life has not heard of. Time is measured here: it passes while the
/// dispatcher is away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Absent(BTreeMap<SessionId, Fate>);

#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Waited for since then, and since when its process is not connected.
    Awaited(Instant, Option<Instant>),
    /// It joined: whatever it runs is known.
    Back,
    /// It was taken for dead. If it lives after all, what it runs is fenced.
    Dead,
}

impl Absent {
    /// Waits for these too, from now on, unless it did before.
    pub(crate) fn wait_for(&mut self, workers: BTreeSet<SessionId>, now: Instant) {
        for id in workers {
            self.0.entry(id).or_insert(Fate::Awaited(now, None));
        }
    }

    /// Nobody is waited for any more.
    pub(crate) fn nobody(&self) -> bool {
        self.ids().is_empty()
    }

    /// Who is waited for.
    pub(crate) fn ids(&self) -> Vec<SessionId> {
        self.0.iter().filter(|(_, fate)| matches!(fate, Fate::Awaited(..))).map(|(id, _)| *id).collect()
    }

    /// How many did not come back.
    pub(crate) fn dead(&self) -> usize {
        self.0.values().filter(|fate| matches!(fate, Fate::Dead)).count()
    }

    /// What a look at the life has shown; `None`: the dispatcher did not answer.
    pub(crate) fn look(&mut self, present: Option<&Present>, now: Instant) {
        let here: BTreeSet<_> = present.into_iter().flat_map(|present| &present.alive).map(|view| view.id).collect();
        let gone: BTreeSet<_> = present.into_iter().flat_map(|present| &present.gone).copied().collect();
        for (id, fate) in &mut self.0 {
            let Fate::Awaited(began, closed) = *fate else { continue };
            let closed = gone.contains(id).then(|| closed.unwrap_or(now));
            let is_over = |since, longest| now.duration_since(since) >= longest;
            *fate = if here.contains(id) {
                Fate::Back
            } else if is_over(began, SESSION) || closed.is_some_and(|since| is_over(since, CLOSED)) {
                Fate::Dead
            } else {
                Fate::Awaited(began, closed)
            };
        }
    }
}
