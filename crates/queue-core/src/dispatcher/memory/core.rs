//! The data behind the lock, and what each verb does to it.
//!
//! A job is in one of three places: `waiting` (ready in its lane, or due later), `leases` (claimed), or nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::mpsc;

use super::{
    blame::Likeliest,
    keys::Keys,
    lease_file::{Record, Started},
    rotation::Rotation,
    sessions::Sessions,
    waiting::Waiting,
};
use crate::{
    dispatcher::{
        Ack, CLAIM_MAX_JOBS, Claim, DispatchError, Entry, HORIZON_MS, Held, LEASE_MS, Lease, Place, Setting, Signal,
        Step, StepReply, Suspicion, tracks::Tracks,
    },
    ids::{Epoch, Generation, JobId, Nonce, SessionId},
    journal::{Blame, Recovery, Token},
    time::Timestamp,
};

/// Entries that come due in one step at most: bounds the step when many wait for the same moment.
const DUE_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Claimed {
    epoch: Epoch,
    nonce: Nonce,
    session: SessionId,
    until: Timestamp,
    started_at: Option<Timestamp>,
    suspicion: Suspicion,
    /// Expired, and whether it is to blame. Decided once, for all leases that expire together: the reaper may take them
    /// in pieces, and the last piece must not be judged without the first.
    lost: Option<Blame>,
    /// `None`: the lease of a process before this one, which the lease file told.
    lane: Option<u32>,
    /// Its concurrency key.
    key: Option<u32>,
}

impl Claimed {
    fn is_isolated(&self) -> bool {
        self.suspicion == Suspicion::Isolated
    }

    fn lease(&self, id: JobId) -> Lease {
        Lease { id, epoch: self.epoch, nonce: self.nonce }
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) generation: Option<Generation>,
    pub(super) rotation: Rotation,
    pub(super) keys: Keys,
    pub(super) waiting: BTreeMap<JobId, Waiting>,
    /// Entries that are due later.
    due: BTreeSet<(Timestamp, JobId)>,
    leases: HashMap<JobId, Claimed>,
    /// Those of them that expired.
    lost: BTreeSet<JobId>,
    pub(super) sessions: Sessions,
    nonce: u64,
    /// No lease expires by itself before this moment, so the reaper need not look at any.
    none_expires_before: Timestamp,
    /// What the lease file has yet to be told; `None`: there is no file.
    records: Option<Vec<Record>>,
}

impl Core {
    /// `orphans` are leases of a process before this one: they are lost already, and stand in the way of a push at
    /// their epoch until the reaper has asked the journal.
    pub(super) fn new(recorded: bool, orphans: Vec<Started>) -> Self {
        let likeliest = Likeliest::among(orphans.iter().map(|one| (one.session, one.suspicion)));
        let held = orphans.into_iter().map(|Started { lease, session, at, suspicion }| {
            let (lost, lane, key) = (Some(likeliest.blame(session, suspicion)), None, None);
            let (epoch, nonce, started_at) = (lease.epoch, lease.nonce, Some(at));
            (lease.id, Claimed { epoch, nonce, session, until: at, started_at, suspicion, lost, lane, key })
        });
        let leases: HashMap<_, _> = held.collect();
        Self {
            generation: None,
            rotation: Rotation::default(),
            keys: Keys::default(),
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            lost: leases.keys().copied().collect(),
            leases,
            sessions: Sessions::default(),
            // Anywhere: a claim of this life must not look like one of another.
            nonce: rand::random(),
            none_expires_before: Timestamp(i64::MAX),
            records: recorded.then(Vec::new),
        }
    }

    pub(super) fn begin(&mut self, generation: Generation) -> Result<(), DispatchError> {
        match self.generation {
            Some(current) if current > generation => return Err(DispatchError::WrongGeneration),
            // Asked again after an answer was lost.
            Some(current) if current == generation => return Ok(()),
            _ => {}
        }
        self.generation = Some(generation);
        self.rotation = Rotation::default();
        self.keys = Keys::default();
        self.waiting.clear();
        self.due.clear();
        let Self { leases, lost, records, .. } = self;
        leases.retain(|id, held| {
            if held.lane.is_some() {
                lost.remove(id);
                note_end(records, *id, held);
            }
            held.lane.is_none()
        });
        self.sessions.begin();
        Ok(())
    }

    /// Lets time do what it does by itself: entries come due (a bounded number at once), pauses and parkings end.
    pub(super) fn pass_time(&mut self, now: Timestamp) {
        for queue in self.rotation.pass_time(now) {
            self.review(queue, now);
        }
        for _ in 0..DUE_MAX {
            let Some(&(run_at, id)) = self.due.first().filter(|(run_at, _)| *run_at <= now) else { return };
            self.due.remove(&(run_at, id));
            if let Some(waiting) = self.waiting.get_mut(&id) {
                waiting.come_due();
                let waiting = *waiting;
                let queue = self.rotation.queue_of(waiting.lane);
                self.rotation.queues[queue].scheduled -= 1;
                self.make_ready(id, waiting);
            }
        }
    }

    /// When something becomes claimable by itself.
    fn next_at(&self) -> Option<Timestamp> {
        let due = self.due.first().map(|(run_at, _)| *run_at);
        let timer = self.rotation.timers.first().map(|(until, _)| *until);
        due.into_iter().chain(timer).min()
    }

    /// Ends a critical section: tells who has to hear of what became claimable in it. `but` has just looked itself.
    pub(super) fn wake(&mut self, but: Option<SessionId>) {
        let stirred = self.rotation.take_stirred();
        if self.sessions.nobody_listens() {
            return;
        }
        let next_at = self.next_at();
        let rotation = &self.rotation;
        self.sessions.tell(|id, session| {
            let serves = |queue: &u32| {
                rotation.is_open(*queue, session.tracks()) && session.serves_queue(&rotation.queues[*queue].name)
            };
            but != Some(id) && (stirred.iter().any(serves) || Sessions::expects_later(session, next_at))
        });
    }

    pub(super) fn push(&mut self, entry: Entry, now: Timestamp) {
        if self.leases.get(&entry.id).is_some_and(|held| held.epoch >= entry.epoch)
            || self.waiting.get(&entry.id).is_some_and(|waiting| waiting.epoch >= entry.epoch)
        {
            return;
        }
        self.end_lease(entry.id);
        self.drop_waiting(entry.id);
        // The journal keeps what is due behind the horizon; the scheduler brings it when it comes near.
        if entry.run_at <= now.plus_ms(HORIZON_MS) {
            self.insert(&entry, now);
        }
    }

    /// The entry's job must be nowhere.
    fn insert(&mut self, entry: &Entry, now: Timestamp) {
        let lane = self.rotation.lane(&entry.queue, &entry.tenant, &entry.target);
        self.rotation.add_ref(lane);
        let waiting = Waiting::new(entry, lane, now);
        self.waiting.insert(entry.id, waiting);
        if let Some(name) = &entry.key {
            self.note_key(entry.id, lane, name);
        }
        if waiting.later() {
            self.due.insert((entry.run_at, entry.id));
            let queue = self.rotation.queue_of(lane);
            self.rotation.queues[queue].scheduled += 1;
        } else {
            self.make_ready(entry.id, waiting);
        }
    }

    fn drop_waiting(&mut self, id: JobId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        if waiting.later() {
            self.due.remove(&(waiting.run_at, id));
            let queue = self.rotation.queue_of(waiting.lane);
            self.rotation.queues[queue].scheduled -= 1;
        } else {
            self.make_unready(id, waiting);
        }
        if waiting.keyed() {
            self.forget_key(id);
        }
        self.rotation.drop_ref(waiting.lane);
        Some(waiting)
    }

    fn end_lease(&mut self, id: JobId) -> Option<Claimed> {
        let held = self.leases.remove(&id)?;
        if held.lost.is_some() {
            self.lost.remove(&id);
        }
        note_end(&mut self.records, id, &held);
        if let Some(lane) = held.lane {
            if let Some(session) = self.sessions.get_mut(held.session) {
                session.leases -= 1;
                session.isolated -= u64::from(held.is_isolated());
                // Isolated jobs that waited for this one may be claimed by its session now.
                if held.is_isolated() && self.rotation.any_open(&session.queues, session.tracks()) {
                    self.sessions.tell(|other, _| other == held.session);
                }
            }
            self.rotation.release(lane);
            if let Some(key) = held.key {
                self.release_key(key);
            }
            self.rotation.drop_ref(lane);
        }
        Some(held)
    }

    fn ack(&mut self, ack: &Ack, now: Timestamp) {
        let current = self.leases.get(&ack.lease.id).is_some_and(|held| held.lease(ack.lease.id) == ack.lease);
        if !current {
            return;
        }
        let lane = self.leases.get(&ack.lease.id).and_then(|held| held.lane);
        if let (Some(lane), None) = (lane, &ack.next) {
            self.rotation.note_end(lane);
        }
        self.end_lease(ack.lease.id);
        if let Some(next) = &ack.next {
            self.push(next.clone(), now);
        }
    }

    pub(super) fn step(&mut self, step: &Step, now: Timestamp) -> StepReply {
        self.pass_time(now);
        let claims_some = step.slots > 0;
        self.sessions.hear(step.session, now, claims_some);
        if !claims_some {
            // Its own acks may make something claimable for it.
            self.sessions.listen(step.session);
        }
        for ack in &step.acks {
            self.ack(ack, now);
        }
        let claims = self.claim(step, now);
        let next_at = self.next_at();
        self.sessions.answered(step.session, claims_some && claims.len() == step.slots, next_at);
        if !claims_some || claims.len() < step.slots {
            self.tell_of_rest(step.session);
        }
        self.wake(claims_some.then_some(step.session));
        StepReply { claims, next_at }
    }

    /// A step that asked for more than [`CLAIM_MAX_JOBS`] has to come again, and so has one that only acked: its worker
    /// may have heard of the work before it had a free slot.
    fn tell_of_rest(&mut self, id: SessionId) {
        let rest = |session: &super::sessions::Session| self.rotation.any_open(&session.queues, session.tracks());
        if self.sessions.get(id).is_some_and(rest) {
            self.sessions.tell(|other, _| other == id);
        }
    }

    fn claim(&mut self, step: &Step, now: Timestamp) -> Vec<Claim> {
        let mut claims = Vec::new();
        if self.generation.is_none() || step.slots == 0 {
            return claims;
        }
        let Some(session) = self.sessions.get_mut(step.session) else { return claims };
        session.queues.clone_from(&step.queues);
        session.kinds = Tracks::serving(&step.kinds);
        let named: Vec<_> = step.queues.iter().filter_map(|name| self.rotation.queue_keys.get(name).copied()).collect();
        let named = (!step.queues.is_empty()).then_some(named.as_slice());
        let until = now.plus_ms(LEASE_MS);
        self.none_expires_before = self.none_expires_before.min(until);
        while claims.len() < step.slots.min(CLAIM_MAX_JOBS) {
            let Some(session) = self.sessions.get_mut(step.session) else { break };
            let Some(taken) = self.rotation.take(named, session.tracks()) else { break };
            let Some(waiting) = self.waiting.remove(&taken.id) else { continue };
            session.leases += 1;
            session.isolated += u64::from(waiting.track.is_isolated());
            self.nonce = self.nonce.wrapping_add(1);
            let key = if waiting.keyed() { self.hold_key(taken.id, waiting) } else { None };
            let held = Claimed {
                epoch: waiting.epoch,
                nonce: Nonce(self.nonce),
                session: step.session,
                until,
                started_at: None,
                suspicion: waiting.suspicion(),
                lost: None,
                lane: Some(taken.lane),
                key,
            };
            let queue = self.rotation.queues[self.rotation.queue_of(taken.lane)].name.clone();
            claims.push(Claim { lease: held.lease(taken.id), queue, ready_at: taken.run_at });
            self.leases.insert(taken.id, held);
        }
        claims
    }

    pub(super) fn start(&mut self, session: SessionId, leases: &[Lease], now: Timestamp) {
        for lease in leases {
            let Some(held) = self.held_by(session, lease).filter(|held| held.lost.is_none()) else { continue };
            if held.started_at.is_none() {
                held.started_at = Some(now);
                let suspicion = held.suspicion;
                if let Some(records) = &mut self.records {
                    records.push(Record::Start(Started { lease: *lease, session, at: now, suspicion }));
                }
            }
        }
    }

    fn held_by(&mut self, session: SessionId, lease: &Lease) -> Option<&mut Claimed> {
        self.leases.get_mut(&lease.id).filter(|held| held.session == session && held.lease(lease.id) == *lease)
    }

    /// A lease past its time can still be renewed as long as the reaper has not seen it: then nobody has acted on it.
    /// Once reported it is lost, although its holder may still settle (the journal's fence decides) and ack.
    pub(super) fn renew(&mut self, session: SessionId, leases: &[Lease], now: Timestamp) -> Vec<Lease> {
        self.sessions.hear(session, now, true);
        let mut gone = Vec::new();
        for lease in leases {
            match self.held_by(session, lease).filter(|held| held.lost.is_none()) {
                Some(held) => held.until = now.plus_ms(LEASE_MS),
                None => gone.push(*lease),
            }
        }
        gone
    }

    /// What a session held before a flush, as far as nobody else has it now.
    pub(super) fn take_over(&mut self, session: SessionId, held: Vec<Held>, now: Timestamp) {
        if self.generation.is_none() {
            return;
        }
        self.pass_time(now);
        let until = now.plus_ms(LEASE_MS);
        for Held { lease, entry, started_at } in held {
            let waits_on = self.waiting.get(&lease.id).is_some_and(|waiting| waiting.epoch > lease.epoch);
            if waits_on || self.leases.contains_key(&lease.id) {
                continue;
            }
            self.drop_waiting(lease.id);
            let lane = self.rotation.lane(&entry.queue, &entry.tenant, &entry.target);
            self.rotation.add_ref(lane);
            self.rotation.hold(lane);
            self.none_expires_before = self.none_expires_before.min(until);
            let Lease { id, epoch, nonce } = lease;
            let key = entry.key.as_ref().map(|name| self.hold_known(lane, name));
            let (suspicion, lost, lane) = (entry.suspicion, None, Some(lane));
            self.leases.insert(id, Claimed { epoch, nonce, session, until, started_at, suspicion, lost, lane, key });
            if let (Some(at), Some(records)) = (started_at, &mut self.records) {
                records.push(Record::Start(Started { lease, session, at, suspicion }));
            }
        }
    }

    pub(super) fn join(&mut self, id: SessionId, now: Timestamp) -> mpsc::Receiver<Signal> {
        // Counted, not remembered: it may have left and come back while the reaper has yet to take what it held.
        let mut held = (0, 0);
        for lease in self.leases.values().filter(|held| held.session == id && held.lane.is_some()) {
            held.0 += 1;
            held.1 += u64::from(lease.is_isolated());
        }
        let signals = self.sessions.join(id, held, now);
        // It may be there to take over from one that left: what is here, or comes by itself, was told to nobody else.
        if self.rotation.any_open(&[], Tracks::ALL) || self.next_at().is_some() {
            self.sessions.tell(|other, _| other == id);
        }
        signals
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        self.sessions.leave(id);
        self.expire(|held| held.session == id);
    }

    /// What [`super::MemoryDispatcher`]'s reap does. Looks at all leases (never at waiting entries) only when a
    /// session died or one can have expired.
    pub(super) fn reap(&mut self, limit: usize, now: Timestamp) -> Vec<Recovery> {
        let dead = self.sessions.find_dead(now);
        if !dead.is_empty() || now >= self.none_expires_before {
            self.expire(|held| held.until <= now || dead.contains(&held.session));
            let live = self.leases.values().filter(|held| held.lost.is_none()).map(|held| held.until);
            self.none_expires_before = live.min().unwrap_or(Timestamp(i64::MAX));
        }
        let lost = self.lost.iter().filter_map(|id| self.leases.get(id).map(|held| (*id, held)));
        let recoveries = lost.map(|(id, held)| Recovery {
            token: Token { id, epoch: held.epoch },
            nonce: held.nonce,
            blame: held.lost.unwrap_or(Blame::Nobody),
            session: held.session,
            started_at: held.started_at,
        });
        recoveries.take(limit).collect()
    }

    /// Makes leases lost and judges them. What had not started is not to blame, and of the rest only the likeliest are:
    /// among all that the session holds, also what it keeps or lost before.
    fn expire(&mut self, is_over: impl Fn(&Claimed) -> bool) {
        let begun = self.leases.values().filter(|held| held.started_at.is_some());
        let likeliest = Likeliest::among(begun.map(|held| (held.session, held.suspicion)));
        for (id, held) in &mut self.leases {
            if held.lost.is_none() && is_over(held) {
                let blame = held.started_at.map(|_| likeliest.blame(held.session, held.suspicion));
                held.lost = Some(blame.unwrap_or(Blame::Nobody));
                self.lost.insert(*id);
            }
        }
    }

    pub(super) fn withdraw(&mut self, id: JobId) -> Place {
        match self.drop_waiting(id) {
            Some(waiting) => Place::Waiting { epoch: waiting.epoch },
            None => self.locate(id),
        }
    }

    pub(super) fn nudge(&mut self, id: JobId) {
        if let Some(held) = self.leases.get(&id) {
            self.sessions.cancel(held.session, id);
        }
    }

    pub(super) fn locate(&self, id: JobId) -> Place {
        if let Some(held) = self.leases.get(&id) {
            return Place::Leased { epoch: held.epoch, session: held.session, started_at: held.started_at };
        }
        self.waiting.get(&id).map_or(Place::Unknown, |waiting| Place::Waiting { epoch: waiting.epoch })
    }

    pub(super) fn apply(&mut self, setting: Setting, now: Timestamp) {
        self.pass_time(now);
        if let Some(queue) = self.rotation.apply(setting, now) {
            self.begin_review(queue, now);
        }
    }

    /// What the lease file has to be told, in order.
    pub(super) fn take_records(&mut self) -> Vec<Record> {
        self.records.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn has_records(&self) -> bool {
        self.records.as_ref().is_some_and(|records| !records.is_empty())
    }
}

fn note_end(records: &mut Option<Vec<Record>>, id: JobId, held: &Claimed) {
    if let Some(records) = records.as_mut().filter(|_| held.started_at.is_some()) {
        records.push(Record::End(held.lease(id)));
    }
}
