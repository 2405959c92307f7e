//! The sessions of this process: where their signals go, and what Redis has to be told again when it forgot them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};

use crate::{
    dispatcher::{Signal, tracks::Tracks},
    ids::{JobId, Name, SessionId},
};

/// Signals that a session's channel holds: a burst of cancels of everything that it holds fits mostly, and what does
/// not is kept until it asks again.
const SIGNALS_MAX: usize = 1_024;

/// What a session serves, as of its last claim.
#[derive(Clone)]
pub(super) struct Serves {
    /// Empty: all.
    pub(super) queues: Vec<Name>,
    /// The tracks of its kinds.
    pub(super) tracks: Tracks,
}

impl Default for Serves {
    fn default() -> Self {
        Self { queues: vec![], tracks: Tracks::ALL }
    }
}

struct Local {
    signals: mpsc::Sender<Signal>,
    /// Cancels that found its channel full. Bounded by what it holds.
    unsent: BTreeSet<JobId>,
    serves: Serves,
}

impl Local {
    fn send_cancels(&mut self) {
        while let Some(&id) = self.unsent.first() {
            if let Err(TrySendError::Full(_)) = self.signals.try_send(Signal::Cancel(id)) {
                return;
            }
            self.unsent.remove(&id);
        }
    }
}

#[derive(Default)]
pub(super) struct LocalSessions {
    by_id: Mutex<HashMap<SessionId, Local>>,
    /// A session came or went.
    pub(super) changed: Notify,
}

impl LocalSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Local>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session gets a new channel, and keeps what it was not told yet. Returns what it served, and whether it is new
    /// here.
    pub(super) fn join(&self, id: SessionId) -> (mpsc::Receiver<Signal>, Serves, bool) {
        let (signals, receiver) = mpsc::channel(SIGNALS_MAX);
        let mut by_id = self.lock();
        let known = by_id.remove(&id);
        let first = known.is_none();
        let (unsent, serves) = known.map_or_else(Default::default, |known| (known.unsent, known.serves));
        let mut local = Local { signals, unsent, serves: serves.clone() };
        local.send_cancels();
        by_id.insert(id, local);
        self.changed.notify_one();
        (receiver, serves, first)
    }

    pub(super) fn leave(&self, id: SessionId) {
        self.lock().remove(&id);
        self.changed.notify_one();
    }

    pub(super) fn ids(&self) -> BTreeSet<SessionId> {
        self.lock().keys().copied().collect()
    }

    /// A word of the session: cancels that found no room go now. `serves`, if it names it anew.
    pub(super) fn hear(&self, id: SessionId, serves: Option<(&[Name], Tracks)>) {
        if let Some(local) = self.lock().get_mut(&id) {
            local.send_cancels();
            if let Some((queues, tracks)) = serves {
                queues.clone_into(&mut local.serves.queues);
                local.serves.tracks = tracks;
            }
        }
    }

    /// Whether the session is one of this process.
    pub(super) fn has(&self, id: SessionId) -> bool {
        self.lock().contains_key(&id)
    }

    /// A full channel loses `Work` only: it holds enough to wake up for.
    pub(super) fn tell(&self, id: SessionId, signal: Signal) {
        let mut by_id = self.lock();
        let Some(local) = by_id.get_mut(&id) else { return };
        match signal {
            Signal::Cancel(job) => {
                local.unsent.insert(job);
                local.send_cancels();
            }
            other => {
                let _ = local.signals.try_send(other);
            }
        }
    }

    pub(super) fn tell_all(&self) {
        for local in self.lock().values() {
            let _ = local.signals.try_send(Signal::Work);
        }
    }
}
