//! The data behind the lock, and what each verb does to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::sync::mpsc;

use super::lease_file::{LeaseFile, Started};
use crate::{
    dispatcher::{
        Ack, Claim, Entry, HORIZON_MS, LEASE_MS, Lease, Place, QueueDepth, SESSION_MS, SessionView, Setting, Signal,
        Step, StepReply, Wait,
    },
    ids::{Generation, JobId, Name, Nonce, SessionId},
    job::AGEING_MS_PER_POINT,
    journal::{QueueSettings, Recovery, Token, Versioned},
    time::Timestamp,
};

/// Entries that come due in one step at most: bounds the step when many wait for the same moment.
const DUE_MAX: usize = 10_000;
/// Entries that `explain` counts at most to tell a job's place.
const PLACE_MAX: usize = 10_000;
/// Signals that a session holds at most.
pub(super) const SIGNALS_MAX: usize = 1_024;

type Score = (i64, JobId);
type LaneKey = (Name, Name);

enum At {
    Due,
    Ready { score: i64, ready_at: Timestamp },
    Leased(Held),
}

struct Held {
    session: SessionId,
    nonce: Nonce,
    until: Timestamp,
    started_at: Option<Timestamp>,
}

struct Slot {
    entry: Entry,
    at: At,
}

#[derive(Default)]
struct Lane {
    ready: BTreeSet<Score>,
    suspects: BTreeSet<Score>,
    turns: u32,
    queued: bool,
}

#[derive(Default)]
struct Queue {
    settings: Versioned0,
    active: u64,
    scheduled: u64,
    lanes: HashMap<LaneKey, Lane>,
    rotation: VecDeque<LaneKey>,
}

#[derive(Default)]
struct Versioned0 {
    version: i64,
    value: QueueSettings,
}

#[derive(Default)]
struct Target {
    limit: Option<u32>,
    active: u32,
    parked: Option<(Timestamp, String)>,
}

struct Session {
    until: Timestamp,
    seen_at: Timestamp,
    signals: mpsc::Sender<Signal>,
    told: bool,
    suspects: u32,
    leases: u64,
    gone: bool,
}

#[derive(Default)]
pub(super) struct State {
    generation: Option<Generation>,
    slots: HashMap<JobId, Slot>,
    due: BTreeSet<(Timestamp, JobId)>,
    leased: BTreeSet<JobId>,
    queues: BTreeMap<Name, Queue>,
    turn: VecDeque<Name>,
    targets: HashMap<Name, Target>,
    weights: HashMap<Name, u32>,
    sessions: HashMap<SessionId, Session>,
    orphans: HashMap<JobId, Started>,
    nonce: u64,
    pub(super) file: Option<LeaseFile>,
}

fn score_of(entry: &Entry, ready_at: Timestamp) -> i64 {
    ready_at.0 - i64::from(entry.priority) * AGEING_MS_PER_POINT
}

impl State {
    pub(super) fn new(file: Option<LeaseFile>, orphans: Vec<Started>) -> Self {
        let orphans: HashMap<_, _> = orphans.into_iter().map(|started| (started.lease.id, started)).collect();
        let nonce = orphans.values().map(|started| started.lease.nonce.0).max().unwrap_or(0);
        Self { file, orphans, nonce, ..Self::default() }
    }

    pub(super) fn begin(&mut self, generation: Generation) {
        let kept = Self {
            generation: Some(generation),
            file: self.file.take(),
            orphans: std::mem::take(&mut self.orphans),
            sessions: std::mem::take(&mut self.sessions),
            nonce: self.nonce,
            ..Self::default()
        };
        *self = kept;
    }

    pub(super) fn push(&mut self, entry: Entry, now: Timestamp) {
        if let Some(orphan) = self.orphans.get(&entry.id) {
            if orphan.lease.epoch >= entry.epoch {
                return;
            }
            let lease = orphan.lease;
            self.orphans.remove(&entry.id);
            self.note_end(lease);
        }
        if let Some(slot) = self.slots.get(&entry.id) {
            if slot.entry.epoch >= entry.epoch {
                return;
            }
            self.remove(entry.id);
        }
        self.insert(entry, now);
    }

    fn insert(&mut self, entry: Entry, now: Timestamp) {
        let id = entry.id;
        if !self.queues.contains_key(&entry.queue) {
            self.queues.insert(entry.queue.clone(), Queue::default());
            self.turn.push_back(entry.queue.clone());
        }
        if entry.run_at > now {
            self.due.insert((entry.run_at, id));
            if let Some(queue) = self.queues.get_mut(&entry.queue) {
                queue.scheduled += 1;
            }
            self.slots.insert(id, Slot { entry, at: At::Due });
        } else {
            let ready_at = now.min(entry.run_at);
            self.make_ready(entry, ready_at);
        }
    }

    fn make_ready(&mut self, entry: Entry, ready_at: Timestamp) {
        let score = score_of(&entry, ready_at);
        let Some(queue) = self.queues.get_mut(&entry.queue) else { return };
        let key = (entry.tenant.clone(), entry.target.clone());
        let lane = queue.lanes.entry(key.clone()).or_default();
        let set = if entry.suspect { &mut lane.suspects } else { &mut lane.ready };
        set.insert((score, entry.id));
        if !lane.queued {
            lane.queued = true;
            queue.rotation.push_back(key);
        }
        self.slots.insert(entry.id, Slot { entry, at: At::Ready { score, ready_at } });
    }

    /// Takes a job out, wherever it is.
    fn remove(&mut self, id: JobId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        let entry = &slot.entry;
        match &slot.at {
            At::Due => {
                self.due.remove(&(entry.run_at, id));
                if let Some(queue) = self.queues.get_mut(&entry.queue) {
                    queue.scheduled -= 1;
                }
            }
            At::Ready { score, .. } => {
                let key = (entry.tenant.clone(), entry.target.clone());
                if let Some(lane) = self.queues.get_mut(&entry.queue).and_then(|queue| queue.lanes.get_mut(&key)) {
                    let set = if entry.suspect { &mut lane.suspects } else { &mut lane.ready };
                    set.remove(&(*score, id));
                }
            }
            At::Leased(held) => {
                self.leased.remove(&id);
                if let Some(queue) = self.queues.get_mut(&entry.queue) {
                    queue.active -= 1;
                }
                if let Some(target) = self.targets.get_mut(&entry.target) {
                    target.active -= 1;
                }
                if let Some(session) = self.sessions.get_mut(&held.session) {
                    session.leases -= 1;
                    session.suspects -= u32::from(entry.suspect);
                }
                if held.started_at.is_some() {
                    let lease = Lease { id, epoch: entry.epoch, nonce: held.nonce };
                    self.note_end(lease);
                }
            }
        }
        Some(slot)
    }

    fn note_end(&mut self, lease: Lease) {
        if let Some(file) = &mut self.file {
            file.end(lease);
        }
    }

    pub(super) fn join(&mut self, id: SessionId, now: Timestamp) -> mpsc::Receiver<Signal> {
        let (signals, receiver) = mpsc::channel(SIGNALS_MAX);
        let _ = signals.try_send(Signal::Work);
        let (suspects, leases) = self.sessions.get(&id).map_or((0, 0), |old| (old.suspects, old.leases));
        let session = Session {
            until: now.plus_ms(SESSION_MS),
            seen_at: now,
            signals,
            told: true,
            suspects,
            leases,
            gone: false,
        };
        self.sessions.insert(id, session);
        receiver
    }

    pub(super) fn leave(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.gone = true;
            if session.leases == 0 {
                self.sessions.remove(&id);
            }
        }
    }

    /// Tells every session that has not been told since its last step. A step clears the mark before it looks, so an
    /// entry that comes after the look is told of again: no wake-up is lost.
    pub(super) fn wake(&mut self) {
        for session in self.sessions.values_mut().filter(|session| !session.told && !session.gone) {
            session.told = session.signals.try_send(Signal::Work).is_ok();
        }
    }

    pub(super) fn step(&mut self, step: &Step, now: Timestamp) -> StepReply {
        for ack in &step.acks {
            self.ack(ack, now);
        }
        if let Some(session) = self.sessions.get_mut(&step.session) {
            session.told = false;
            session.seen_at = now;
            session.until = now.plus_ms(SESSION_MS);
        }
        let mut claims = Vec::new();
        if self.generation.is_some() && step.slots > 0 && self.sessions.contains_key(&step.session) {
            self.come_due(now);
            while claims.len() < step.slots {
                match self.claim_one(step, now) {
                    Some(claim) => claims.push(claim),
                    None => break,
                }
            }
        }
        StepReply { claims, next_at: self.next_at(now) }
    }

    fn ack(&mut self, ack: &Ack, now: Timestamp) {
        let Lease { id, epoch, nonce } = ack.lease;
        if self.orphans.get(&id).is_some_and(|orphan| orphan.lease == ack.lease) {
            self.orphans.remove(&id);
            self.note_end(ack.lease);
            return;
        }
        let current = self.slots.get(&id).is_some_and(|slot| {
            slot.entry.epoch == epoch && matches!(&slot.at, At::Leased(held) if held.nonce == nonce)
        });
        if !current {
            return;
        }
        self.remove(id);
        if let Some(next) = ack.next.clone().filter(|next| next.run_at <= now.plus_ms(HORIZON_MS)) {
            self.insert(next, now);
        }
    }

    fn come_due(&mut self, now: Timestamp) -> usize {
        let mut moved = 0;
        while moved < DUE_MAX {
            let Some(&(run_at, id)) = self.due.first().filter(|(run_at, _)| *run_at <= now) else { break };
            if let Some(slot) = self.remove(id) {
                self.make_ready(slot.entry, run_at);
            }
            moved += 1;
        }
        moved
    }

    fn paused(queue: &Queue, now: Timestamp) -> bool {
        let settings = &queue.settings.value;
        settings.paused && settings.paused_until.is_none_or(|until| until > now)
    }

    fn target_blocked(&self, name: &Name, now: Timestamp) -> bool {
        self.targets.get(name).is_some_and(|target| {
            target.parked.as_ref().is_some_and(|(until, _)| *until > now)
                || target.limit.is_some_and(|limit| target.active >= limit)
        })
    }

    fn claim_one(&mut self, step: &Step, now: Timestamp) -> Option<Claim> {
        let may_suspect = self.sessions.get(&step.session).is_some_and(|session| session.suspects == 0);
        for _ in 0..self.turn.len() {
            let name = self.turn.front()?.clone();
            self.turn.rotate_left(1);
            if !step.queues.is_empty() && !step.queues.contains(&name) {
                continue;
            }
            let Some(queue) = self.queues.get(&name) else { continue };
            let full = queue.settings.value.concurrency.is_some_and(|limit| queue.active >= u64::from(limit));
            if full || Self::paused(queue, now) {
                continue;
            }
            if let Some((score, id)) = self.pick(&name, may_suspect, now) {
                return self.lease(step.session, id, score, now);
            }
        }
        None
    }

    /// The next entry of a queue, by turns of its lanes.
    fn pick(&mut self, name: &Name, may_suspect: bool, now: Timestamp) -> Option<Score> {
        let lanes = self.queues.get(name)?.rotation.len();
        for _ in 0..lanes {
            let key = self.queues.get(name)?.rotation.front()?.clone();
            let blocked = self.target_blocked(&key.1, now);
            let weight = self.weights.get(&key.0).copied().unwrap_or(1).max(1);
            let queue = self.queues.get_mut(name)?;
            let lane = queue.lanes.get_mut(&key)?;
            if lane.ready.is_empty() && lane.suspects.is_empty() {
                queue.lanes.remove(&key);
                queue.rotation.pop_front();
                continue;
            }
            let head = if blocked {
                None
            } else {
                let suspect = lane.suspects.first().filter(|_| may_suspect);
                lane.ready.first().into_iter().chain(suspect).min().copied()
            };
            let Some(head) = head else {
                lane.turns = 0;
                queue.rotation.rotate_left(1);
                continue;
            };
            lane.turns += 1;
            if lane.turns >= weight {
                lane.turns = 0;
                queue.rotation.rotate_left(1);
            }
            return Some(head);
        }
        None
    }

    fn lease(&mut self, session: SessionId, id: JobId, _score: i64, now: Timestamp) -> Option<Claim> {
        let Slot { entry, at } = self.remove(id)?;
        let At::Ready { ready_at, .. } = at else { return None };
        self.nonce += 1;
        let lease = Lease { id, epoch: entry.epoch, nonce: Nonce(self.nonce) };
        let claim = Claim { lease, queue: entry.queue.clone(), ready_at };
        if let Some(queue) = self.queues.get_mut(&entry.queue) {
            queue.active += 1;
        }
        self.targets.entry(entry.target.clone()).or_default().active += 1;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.leases += 1;
            session.suspects += u32::from(entry.suspect);
        }
        self.leased.insert(id);
        let held = Held { session, nonce: lease.nonce, until: now.plus_ms(LEASE_MS), started_at: None };
        self.slots.insert(id, Slot { entry, at: At::Leased(held) });
        Some(claim)
    }

    fn next_at(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.due.first().map(|(run_at, _)| *run_at);
        let unparked = self.targets.values().filter_map(|target| target.parked.as_ref().map(|(until, _)| *until));
        let resumed = self.queues.values().filter(|queue| queue.settings.value.paused);
        let resumed = resumed.filter_map(|queue| queue.settings.value.paused_until);
        due.into_iter().chain(unparked.chain(resumed).filter(|at| *at > now)).min()
    }

    fn held(&mut self, session: SessionId, lease: Lease) -> Option<(&Entry, &mut Held)> {
        let slot = self.slots.get_mut(&lease.id)?;
        match &mut slot.at {
            At::Leased(held)
                if held.nonce == lease.nonce && slot.entry.epoch == lease.epoch && held.session == session =>
            {
                Some((&slot.entry, held))
            }
            _ => None,
        }
    }

    pub(super) fn start(&mut self, session: SessionId, leases: &[Lease], now: Timestamp) {
        for &lease in leases {
            let Some((entry, held)) = self.held(session, lease) else { continue };
            held.started_at = Some(now);
            let started = Started { lease, at: now, suspect: entry.suspect };
            if let Some(file) = &mut self.file {
                file.start(&started);
            }
        }
    }

    pub(super) fn renew(&mut self, session: SessionId, leases: &[Lease], now: Timestamp) -> Vec<Lease> {
        let alive = match self.sessions.get_mut(&session) {
            Some(known) if !known.gone && known.until > now => {
                known.until = now.plus_ms(SESSION_MS);
                known.seen_at = now;
                true
            }
            _ => false,
        };
        let mut lost = Vec::new();
        for &lease in leases {
            match self.held(session, lease) {
                // An expired lease stays expired: the reaper may have begun with it.
                Some((_, held)) if alive && held.until > now => held.until = now.plus_ms(LEASE_MS),
                _ => lost.push(lease),
            }
        }
        lost
    }

    pub(super) fn withdraw(&mut self, id: JobId) -> Place {
        let place = self.locate(id);
        if matches!(place, Place::Waiting { .. }) {
            self.remove(id);
        }
        place
    }

    pub(super) fn nudge(&self, id: JobId) {
        if let Some(Slot { at: At::Leased(held), .. }) = self.slots.get(&id)
            && let Some(session) = self.sessions.get(&held.session)
        {
            let _ = session.signals.try_send(Signal::Cancel(id));
        }
    }

    pub(super) fn locate(&self, id: JobId) -> Place {
        match self.slots.get(&id) {
            None => match self.orphans.get(&id) {
                Some(orphan) => Place::Leased {
                    epoch: orphan.lease.epoch,
                    session: SessionId(uuid::Uuid::nil()),
                    started_at: Some(orphan.at),
                },
                None => Place::Unknown,
            },
            Some(Slot { entry, at: At::Leased(held) }) => {
                Place::Leased { epoch: entry.epoch, session: held.session, started_at: held.started_at }
            }
            Some(slot) => Place::Waiting { epoch: slot.entry.epoch },
        }
    }

    pub(super) fn reap(&mut self, limit: usize, now: Timestamp) -> Vec<Recovery> {
        let mut dead = BTreeMap::<SessionId, Vec<(Started, bool)>>::new();
        for orphan in self.orphans.values() {
            dead.entry(SessionId(uuid::Uuid::nil())).or_default().push((*orphan, true));
        }
        for id in &self.leased {
            let Some(Slot { entry, at: At::Leased(held) }) = self.slots.get(id) else { continue };
            let session = self.sessions.get(&held.session);
            let gone = session.is_none_or(|session| session.gone || session.until <= now);
            if gone || held.until <= now {
                let lease = Lease { id: *id, epoch: entry.epoch, nonce: held.nonce };
                let started = Started { lease, at: held.started_at.unwrap_or_default(), suspect: entry.suspect };
                dead.entry(held.session).or_default().push((started, held.started_at.is_some()));
            }
        }
        let mut expired = Vec::new();
        for (session, lost) in dead {
            let suspected = lost.iter().any(|(started, begun)| *begun && started.suspect);
            for (started, begun) in lost {
                expired.push(Recovery {
                    token: Token { id: started.lease.id, epoch: started.lease.epoch },
                    nonce: started.lease.nonce,
                    counts: begun && (started.suspect || !suspected),
                    session,
                    started_at: begun.then_some(started.at),
                });
            }
        }
        expired.truncate(limit);
        let now_empty = |session: &Session| session.leases == 0 && (session.gone || session.until <= now);
        self.sessions.retain(|_, session| !now_empty(session));
        expired
    }

    pub(super) fn apply(&mut self, setting: Setting) {
        match setting {
            Setting::Queue(name, Versioned { version, value }) => {
                if !self.queues.contains_key(&name) {
                    self.turn.push_back(name.clone());
                }
                let queue = self.queues.entry(name).or_default();
                if version >= queue.settings.version {
                    queue.settings = Versioned0 { version, value };
                }
            }
            Setting::TargetConcurrency(name, limit) => self.targets.entry(name).or_default().limit = limit,
            Setting::ParkTarget { target, until, reason } => {
                self.targets.entry(target).or_default().parked = Some((until, reason));
            }
            Setting::TenantWeight(tenant, weight) => {
                self.weights.insert(tenant, weight);
            }
        }
    }

    pub(super) fn depths(&mut self, now: Timestamp) -> Vec<QueueDepth> {
        self.come_due(now);
        let mut depths = Vec::new();
        for (name, queue) in &self.queues {
            let mut depth = QueueDepth { queue: Some(name.clone()), ..QueueDepth::default() };
            (depth.active, depth.scheduled) = (queue.active, queue.scheduled);
            let paused = Self::paused(queue, now);
            for ((_, target), lane) in &queue.lanes {
                let count = (lane.ready.len() + lane.suspects.len()) as u64;
                let parked = self.targets.get(target).and_then(|target| target.parked.as_ref());
                if paused || parked.is_some_and(|(until, _)| *until > now) {
                    depth.parked += count;
                    continue;
                }
                depth.waiting += count;
                for (_, id) in lane.ready.first().into_iter().chain(lane.suspects.first()) {
                    if let Some(Slot { at: At::Ready { ready_at, .. }, .. }) = self.slots.get(id) {
                        let oldest = depth.oldest_ready_at.map_or(*ready_at, |other| other.min(*ready_at));
                        depth.oldest_ready_at = Some(oldest);
                    }
                }
            }
            depths.push(depth);
        }
        depths
    }

    pub(super) fn explain(&self, id: JobId, now: Timestamp) -> Vec<Wait> {
        let Some(Slot { entry, at }) = self.slots.get(&id) else { return vec![] };
        let mut waits = Vec::new();
        match at {
            At::Leased(_) => return waits,
            At::Due => waits.push(Wait::Delayed { until: entry.run_at }),
            At::Ready { .. } => {}
        }
        let Some(queue) = self.queues.get(&entry.queue) else { return waits };
        let settings = &queue.settings.value;
        if Self::paused(queue, now) {
            waits.push(Wait::QueuePaused { until: settings.paused_until, reason: settings.reason.clone() });
        }
        if let Some(limit) = settings.concurrency.filter(|limit| queue.active >= u64::from(*limit)) {
            waits.push(Wait::QueueConcurrency { limit });
        }
        if let Some(target) = self.targets.get(&entry.target) {
            let name = entry.target.to_string();
            if let Some((until, reason)) = target.parked.as_ref().filter(|(until, _)| *until > now) {
                waits.push(Wait::TargetParked { target: name.clone(), until: *until, reason: reason.clone() });
            }
            if let Some(limit) = target.limit.filter(|limit| target.active >= *limit) {
                waits.push(Wait::TargetConcurrency { target: name, limit });
            }
        }
        let alive = || self.sessions.values().filter(|session| !session.gone && session.until > now);
        if alive().next().is_none() {
            waits.push(Wait::NoWorker);
        } else if entry.suspect && alive().all(|session| session.suspects > 0) {
            waits.push(Wait::OtherSuspect);
        }
        if let At::Ready { score, .. } = at {
            let lane = queue.lanes.get(&(entry.tenant.clone(), entry.target.clone()));
            let ahead = lane.map_or(0, |lane| lane.ready.range(..(*score, id)).take(PLACE_MAX).count());
            waits.push(Wait::Turn { ahead_in_lane: ahead as u64, lanes: queue.rotation.len() as u64 });
        }
        waits
    }

    pub(super) fn sessions(&self, now: Timestamp) -> Vec<SessionView> {
        let alive = self.sessions.iter().filter(|(_, session)| !session.gone && session.until > now);
        alive.map(|(id, session)| SessionView { id: *id, leases: session.leases, seen_at: session.seen_at }).collect()
    }

    pub(super) fn flush_file(&mut self) {
        let Some(mut file) = self.file.take() else { return };
        file.flush(|| {
            let running = self.leased.iter().filter_map(|id| match self.slots.get(id) {
                Some(Slot { entry, at: At::Leased(Held { nonce, started_at: Some(at), .. }) }) => {
                    let lease = Lease { id: *id, epoch: entry.epoch, nonce: *nonce };
                    Some(Started { lease, at: *at, suspect: entry.suspect })
                }
                _ => None,
            });
            running.chain(self.orphans.values().copied()).collect()
        });
        self.file = Some(file);
    }
}
