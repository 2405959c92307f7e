//! The workers, and how they are told that there is work.
//!
//! Why no wake-up is lost. A session *listens* when its last step left it without a full reply (or when it has just
//! joined). Whatever makes an entry claimable notes its queue in the same critical section, and before the lock is
//! given back every listening session that serves the queue gets a `Work` and stops listening. A step listens again
//! and looks for entries under one lock. So an entry either was there when the step looked, and is in its reply, or
//! came later, and found the session listening. A step that only acks answers nothing: whatever can be claimed behind
//! it is told again. So a session that does not listen has either a `Work` that it has not answered by a step, or a
//! full reply, after which it steps again by itself. Time is no exception: a step
//! says when the next entry comes by itself (`next_at`), and whatever makes that moment earlier tells the session too.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    dispatcher::{
        ASKED_MAX_SESSIONS, SESSION_MS, SessionView, Signal,
        tracks::{Track, Tracks},
    },
    ids::{JobId, Name, SessionId},
    time::Timestamp,
};

/// Signals that a session's channel holds: a burst of cancels of everything that it holds fits mostly, and what does
/// not is kept until it asks again.
const SIGNALS_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Session {
    until: Timestamp,
    seen_at: Timestamp,
    /// Found dead by the reaper: its leases are lost; a renewal or a claim brings it back without them.
    dead: bool,
    pub(super) leases: u64,
    /// Isolated jobs among them.
    pub(super) isolated: u64,
    /// What it serves, as of its last claim; empty: all.
    pub(super) queues: Vec<Name>,
    /// The tracks of the kinds that it serves, as of its last claim.
    pub(super) kinds: Tracks,
    /// The moment it was told of; `None`: that nothing comes by itself.
    told_next: Option<Timestamp>,
    signals: mpsc::Sender<Signal>,
    /// Cancels that found its channel full. Bounded by what it holds.
    unsent: BTreeSet<JobId>,
}

impl Session {
    pub(super) fn may_claim_isolated(&self) -> bool {
        self.isolated == 0
    }

    /// What it may claim now.
    pub(super) fn tracks(&self) -> Tracks {
        if self.may_claim_isolated() { self.kinds } else { self.kinds.plain() }
    }

    pub(super) fn serves_queue(&self, queue: &Name) -> bool {
        self.queues.is_empty() || self.queues.contains(queue)
    }

    pub(super) fn serves(&self, queue: &Name, track: Track) -> bool {
        self.kinds.contains(track) && self.serves_queue(queue)
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        !self.dead && self.until > now
    }

    fn send_cancels(&mut self) {
        while let Some(&id) = self.unsent.first() {
            if let Err(TrySendError::Full(_)) = self.signals.try_send(Signal::Cancel(id)) {
                return;
            }
            self.unsent.remove(&id);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    listening: BTreeSet<SessionId>,
}

impl Sessions {
    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id)
    }

    /// A session gets a new channel and keeps what it holds: `leases`, and `isolated` among them.
    pub(super) fn join(
        &mut self,
        id: SessionId,
        (leases, isolated): (u64, u64),
        now: Timestamp,
    ) -> mpsc::Receiver<Signal> {
        let (signals, receiver) = mpsc::channel(SIGNALS_MAX);
        let until = now.plus_ms(SESSION_MS);
        let known = self.by_id.remove(&id).map(|known| (known.queues, known.kinds, known.unsent));
        let (queues, kinds, unsent) = known.unwrap_or_else(|| (vec![], Tracks::ALL, BTreeSet::new()));
        let (seen_at, dead, told_next) = (now, false, None);
        let mut session = Session { until, seen_at, dead, leases, isolated, queues, kinds, told_next, signals, unsent };
        session.send_cancels();
        self.by_id.insert(id, session);
        self.listening.insert(id);
        receiver
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        self.by_id.remove(&id);
        self.listening.remove(&id);
    }

    /// A word of the session. One that was found dead comes back only when it means to (`revive`): an ack in its name
    /// may come from the reaper.
    pub(super) fn hear(&mut self, id: SessionId, now: Timestamp, revive: bool) {
        let Some(session) = self.by_id.get_mut(&id).filter(|session| revive || session.is_alive(now)) else { return };
        session.dead = false;
        session.until = now.plus_ms(SESSION_MS);
        session.seen_at = now;
        session.send_cancels();
    }

    /// After a step: what the session was told, and whether it has to be told more.
    pub(super) fn answered(&mut self, id: SessionId, full: bool, next_at: Option<Timestamp>) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        session.told_next = next_at;
        if full {
            self.listening.remove(&id);
        } else {
            self.listening.insert(id);
        }
    }

    pub(super) fn listen(&mut self, id: SessionId) {
        if self.by_id.contains_key(&id) {
            self.listening.insert(id);
        }
    }

    pub(super) fn nobody_listens(&self) -> bool {
        self.listening.is_empty()
    }

    /// Tells every listening session that `concerns` picks. Cost depends on the sessions that listen.
    pub(super) fn tell(&mut self, concerns: impl Fn(SessionId, &Session) -> bool) {
        let Self { by_id, listening } = self;
        listening.retain(|id| match by_id.get(id) {
            None => false,
            Some(session) if !concerns(*id, session) => true,
            // A full channel: it has enough to wake up for, and goes on listening. A closed one hears nothing more.
            Some(session) => matches!(session.signals.try_send(Signal::Work), Err(TrySendError::Full(_))),
        });
    }

    /// Whether the session has to hear of `next_at`, because it was told of a later moment or of none.
    pub(super) fn expects_later(session: &Session, next_at: Option<Timestamp>) -> bool {
        next_at.is_some_and(|next| session.told_next.is_none_or(|told| next < told))
    }

    /// A cancel is never dropped: what does not fit into the channel goes with the session's next word.
    pub(super) fn cancel(&mut self, id: SessionId, job: JobId) {
        if let Some(session) = self.by_id.get_mut(&id) {
            session.unsent.insert(job);
            session.send_cancels();
        }
    }

    /// Sessions that went silent since the last call. One whose worker still holds the receiver is remembered (a
    /// laptop that slept goes on), the others are forgotten.
    pub(super) fn find_dead(&mut self, now: Timestamp) -> Vec<SessionId> {
        let silent = self.by_id.iter_mut().filter(|(_, session)| !session.dead && session.until <= now);
        let dead: Vec<_> = silent
            .map(|(id, session)| {
                session.dead = true;
                *id
            })
            .collect();
        self.by_id.retain(|_, session| !(session.dead && session.signals.is_closed()));
        dead
    }

    /// The dispatcher begins a new life: nobody holds anything, everybody has to look.
    pub(super) fn begin(&mut self) {
        for (id, session) in &mut self.by_id {
            (session.leases, session.isolated, session.told_next) = (0, 0, None);
            session.unsent.clear();
            self.listening.insert(*id);
        }
    }

    pub(super) fn alive(&self, now: Timestamp) -> impl Iterator<Item = &Session> {
        self.by_id.values().filter(move |session| session.is_alive(now))
    }

    pub(super) fn views(&self, now: Timestamp) -> Vec<SessionView> {
        let alive = self.by_id.iter().filter(|(_, session)| session.is_alive(now));
        alive.map(|(id, session)| SessionView { id: *id, leases: session.leases, seen_at: session.seen_at }).collect()
    }

    /// Those of `asked` that are not alive and whose process hears no signals.
    pub(super) fn gone(&self, asked: &[SessionId], now: Timestamp) -> Vec<SessionId> {
        let is_gone = |id: &&SessionId| {
            self.by_id.get(id).is_none_or(|session| !session.is_alive(now) && session.signals.is_closed())
        };
        asked.iter().take(ASKED_MAX_SESSIONS).filter(is_gone).copied().collect()
    }
}
