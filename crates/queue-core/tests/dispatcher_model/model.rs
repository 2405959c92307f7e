//! The naive reference: every question is a scan over a list.

use std::collections::{HashMap, HashSet};

use queue_core::{
    dispatcher::{Claim, Entry, HORIZON_MS, LEASE_MS, Lease, Place, SESSION_MS, Suspicion},
    ids::{JobId, Name, Nonce, SessionId},
    job::{AGEING_MS_PER_POINT, Kind},
    journal::Blame,
    time::Timestamp,
};

pub(crate) struct Held {
    pub(crate) nonce: Nonce,
    pub(crate) session: SessionId,
    pub(crate) until: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    /// Expired, and whether it is to blame.
    pub(crate) lost: Option<Blame>,
}

pub(crate) struct Job {
    pub(crate) entry: Entry,
    pub(crate) held: Option<Held>,
}

impl Job {
    fn rank(&self) -> (i64, JobId) {
        (self.entry.run_at.0 - i64::from(self.entry.priority) * AGEING_MS_PER_POINT, self.entry.id)
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        let held = self.held.as_ref()?;
        Some(Lease { id: self.entry.id, epoch: self.entry.epoch, nonce: held.nonce })
    }
}

#[derive(Default)]
pub(crate) struct Pause {
    pub(crate) paused: bool,
    pub(crate) until: Option<Timestamp>,
    pub(crate) limit: Option<u32>,
    pub(crate) key_limit: Option<u32>,
    pub(crate) version: i64,
}

impl Pause {
    fn is_on(&self, now: Timestamp) -> bool {
        self.paused && self.until.is_none_or(|until| until > now)
    }
}

pub(crate) struct Worker {
    pub(crate) until: Timestamp,
    pub(crate) dead: bool,
    pub(crate) queues: Vec<Name>,
    pub(crate) kinds: Vec<Kind>,
    /// Its last step got all it asked for, so it comes again by itself.
    pub(crate) full: bool,
    /// It heard of work since its last step.
    pub(crate) heard: bool,
    /// The moment that its last step was told.
    pub(crate) told: Option<Timestamp>,
}

impl Worker {
    pub(crate) fn serves(&self, queue: &Name, kind: Kind) -> bool {
        (self.queues.is_empty() || self.queues.contains(queue)) && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}

/// Queue, tenant, target.
pub(crate) type Lane = (Name, Name, Name);

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) jobs: Vec<Job>,
    pub(crate) parked: HashMap<Name, Timestamp>,
    pub(crate) limits: HashMap<Name, u32>,
    pub(crate) queues: HashMap<Name, Pause>,
    pub(crate) tenants: HashMap<Name, Pause>,
    /// Tenants that a budget keeps asleep.
    pub(crate) moneyless: HashMap<Name, Timestamp>,
    pub(crate) held: HashMap<Name, Pause>,
    pub(crate) weights: HashMap<Name, u32>,
    pub(crate) workers: HashMap<SessionId, Worker>,
    pub(crate) nonces: HashSet<Nonce>,
    /// Turns that the first lane had while the second one could have been served.
    pub(crate) overtaken: HashMap<(Lane, Lane), u32>,
}

impl Model {
    pub(crate) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.iter().find(|job| job.entry.id == id)
    }

    pub(crate) fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.entry.id == id)
    }

    pub(crate) fn forget(&mut self, id: JobId) {
        self.jobs.retain(|job| job.entry.id != id);
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if self.job(entry.id).is_some_and(|job| job.entry.epoch >= entry.epoch) {
            return;
        }
        if let Some(old) = self.job(entry.id).map(|job| lane_of(&job.entry)) {
            self.forget(entry.id);
            // A lane whose only entry is replaced was empty in between: it joins anew.
            let due = |job: &Job| job.held.is_none() && job.entry.run_at <= self.now && !is_isolated(&job.entry);
            if !self.jobs.iter().any(|job| due(job) && lane_of(&job.entry) == old) {
                self.overtaken.retain(|(_, other), _| *other != old);
            }
        }
        if entry.run_at <= self.now.plus_ms(HORIZON_MS) {
            self.jobs.push(Job { entry, held: None });
        }
    }

    pub(crate) fn is_paused(&self, queue: &Name) -> bool {
        self.queues.get(queue).is_some_and(|pause| pause.is_on(self.now))
    }

    /// The longer of two parkings stands; a moment that has passed ends it.
    pub(crate) fn park(&mut self, target: &Name, until: Timestamp) {
        let held = self.parked.get(target).copied().filter(|_| until > self.now);
        self.parked.insert(target.clone(), held.map_or(until, |held| held.max(until)));
    }

    pub(crate) fn is_parked(&self, target: &Name) -> bool {
        self.parked.get(target).is_some_and(|until| *until > self.now)
    }

    pub(crate) fn is_held(&self, target: &Name) -> bool {
        self.held.get(target).is_some_and(|pause| pause.is_on(self.now))
    }

    pub(crate) fn is_asleep(&self, tenant: &Name) -> bool {
        self.is_tenant_paused(tenant) || self.is_moneyless(tenant)
    }

    pub(crate) fn is_tenant_paused(&self, tenant: &Name) -> bool {
        self.tenants.get(tenant).is_some_and(|pause| pause.is_on(self.now))
    }

    pub(crate) fn is_moneyless(&self, tenant: &Name) -> bool {
        self.moneyless.get(tenant).is_some_and(|until| *until > self.now)
    }

    fn active(&self, which: impl Fn(&Entry) -> bool) -> u32 {
        self.jobs.iter().filter(|job| job.held.is_some() && which(&job.entry)).count() as u32
    }

    pub(crate) fn holds_isolated(&self, session: SessionId) -> bool {
        let held = |job: &&Job| job.held.as_ref().is_some_and(|held| held.session == session);
        self.jobs.iter().filter(held).any(|job| is_isolated(&job.entry))
    }

    /// Waiting jobs of its key that come before it.
    pub(crate) fn ahead_in_key(&self, job: &Job) -> u64 {
        self.of_key(job).filter(|other| self.is_due(other) && other.rank() < job.rank()).count() as u64
    }

    /// Of the jobs of a key that are held, and then of those that are due, the first ones have a place.
    pub(crate) fn has_place(&self, job: &Job) -> bool {
        let limit = self.queues.get(&job.entry.queue).and_then(|queue| queue.key_limit).unwrap_or(1).max(1);
        let held = self.of_key(job).filter(|other| other.held.is_some()).count() as u64;
        job.entry.key.is_none() || held + self.ahead_in_key(job) < u64::from(limit)
    }

    fn of_key(&self, job: &Job) -> impl Iterator<Item = &Job> {
        let key = |entry: &Entry| (entry.queue.clone(), entry.tenant.clone(), entry.key.clone());
        let of_job = key(&job.entry);
        self.jobs.iter().filter(move |other| key(&other.entry) == of_job)
    }

    fn is_due(&self, job: &Job) -> bool {
        job.held.is_none() && job.entry.run_at <= self.now
    }

    fn is_claimable(&self, job: &Job, session: SessionId) -> bool {
        let Entry { queue, tenant, target, kind, run_at, .. } = &job.entry;
        let Some(worker) = self.workers.get(&session) else { return false };
        let queue_limit = self.queues.get(queue).and_then(|pause| pause.limit);
        job.held.is_none()
            && *run_at <= self.now
            && !self.is_paused(queue)
            && !self.is_parked(target)
            && !self.is_held(target)
            && !self.is_asleep(tenant)
            && worker.serves(queue, *kind)
            && queue_limit.is_none_or(|limit| self.active(|other| other.queue == *queue) < limit)
            && self.limits.get(target).is_none_or(|limit| self.active(|other| other.target == *target) < *limit)
            && (!is_isolated(&job.entry) || !self.holds_isolated(session))
            && self.has_place(job)
    }

    pub(crate) fn claimable(&self, session: SessionId) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(move |job| self.is_claimable(job, session))
    }

    /// Judges a claim and makes it.
    pub(crate) fn claim(&mut self, session: SessionId, claim: &Claim) {
        let Some(job) = self.job(claim.lease.id) else { panic!("{claim:?} is of a job that is not here") };
        assert!(self.is_claimable(job, session), "{claim:?} cannot be claimed: {:?}", job.entry);
        assert_eq!((job.entry.epoch, &job.entry.queue), (claim.lease.epoch, &claim.queue));
        assert_eq!(job.entry.run_at, claim.ready_at);
        let lane = lane_of(&job.entry);
        assert!(self.nonces.insert(claim.lease.nonce), "a nonce is used twice");
        let mates = self.claimable(session).filter(|other| lane_of(&other.entry) == lane);
        assert_eq!(mates.min_by_key(|job| job.rank()).map(|job| job.entry.id), Some(claim.lease.id), "out of order");
        self.judge_turn(session, &lane);
        let until = self.now.plus_ms(LEASE_MS);
        let held = Held { nonce: claim.lease.nonce, session, until, started_at: None, lost: None };
        if let Some(job) = self.job_mut(claim.lease.id) {
            job.held = Some(held);
        }
    }

    /// A lane that can be served is overtaken by another lane of its queue no more often than in one round.
    fn judge_turn(&mut self, session: SessionId, served: &Lane) {
        let waiting: HashSet<_> = self.claimable(session).map(|job| lane_of(&job.entry)).collect();
        self.overtaken.retain(|(_, other), _| other != served);
        let weight = self.weights.get(&served.1).copied().unwrap_or(1);
        // A third of a turn is rounded down, so three of them leave room for one more.
        let most = if weight == 1 { 1 } else { weight + 1 };
        for other in waiting.into_iter().filter(|other| other != served && other.0 == served.0) {
            let turns = self.overtaken.entry((served.clone(), other)).or_default();
            *turns += 1;
            assert!(*turns <= most, "{served:?} had {turns} turns while another lane waited");
        }
    }

    /// To be called after every operation: who could not be served has not been overtaken.
    pub(crate) fn forget_overtaken(&mut self) {
        let plain = |job: &&Job| !is_isolated(&job.entry);
        let mut open = HashSet::new();
        for session in self.workers.keys() {
            let worker = &self.workers[session];
            if worker.queues.is_empty() && worker.kinds.is_empty() {
                open.extend(self.claimable(*session).filter(plain).map(|job| lane_of(&job.entry)));
            }
        }
        self.overtaken.retain(|(_, other), _| open.contains(other));
    }

    pub(crate) fn forget_all_overtaken(&mut self) {
        self.overtaken.clear();
    }

    /// When something can become claimable by itself.
    pub(crate) fn next_at(&self) -> Option<Timestamp> {
        let due = self.jobs.iter().filter(|job| job.held.is_none()).map(|job| job.entry.run_at);
        let parked = self.parked.values().chain(self.moneyless.values()).copied();
        let pauses = self.queues.values().chain(self.tenants.values()).chain(self.held.values());
        let paused = pauses.filter(|pause| pause.paused).filter_map(|pause| pause.until);
        due.chain(parked).chain(paused).filter(|at| *at > self.now).min()
    }

    pub(crate) fn hear(&mut self, session: SessionId, revive: bool) {
        let now = self.now;
        if let Some(worker) = self.workers.get_mut(&session)
            && (revive || !worker.dead && worker.until > now)
        {
            (worker.dead, worker.until) = (false, now.plus_ms(SESSION_MS));
        }
    }

    pub(crate) fn reap(&mut self) {
        let now = self.now;
        let silent = self.workers.iter_mut().filter(|(_, worker)| !worker.dead && worker.until <= now);
        let dead: HashSet<_> = silent
            .map(|(session, worker)| {
                worker.dead = true;
                *session
            })
            .collect();
        self.lose(|held| held.until <= now || dead.contains(&held.session));
    }

    pub(crate) fn lose(&mut self, is_over: impl Fn(&Held) -> bool) {
        let begun = |job: &Job| {
            let held = job.held.as_ref().filter(|held| held.started_at.is_some())?;
            Some((held.session, job.entry.suspicion))
        };
        let begun: Vec<_> = self.jobs.iter().filter_map(begun).collect();
        for Job { entry, held } in &mut self.jobs {
            if let Some(held) = held.as_mut().filter(|held| held.lost.is_none() && is_over(held)) {
                let beside = begun.iter().filter(|(session, _)| *session == held.session);
                let likelier = beside.clone().filter(|(_, suspicion)| *suspicion > entry.suspicion).count();
                let as_likely = beside.filter(|(_, suspicion)| *suspicion == entry.suspicion).count();
                held.lost = Some(match (held.started_at, likelier, as_likely) {
                    (Some(_), 0, 1) => Blame::Alone,
                    (Some(_), 0, _) => Blame::Shared,
                    _ => Blame::Nobody,
                });
            }
        }
    }

    pub(crate) fn place(&self, id: JobId) -> Place {
        match self.job(id) {
            None => Place::Unknown,
            Some(Job { entry, held: None }) => Place::Waiting { epoch: entry.epoch },
            Some(Job { entry, held: Some(held) }) => {
                Place::Leased { epoch: entry.epoch, session: held.session, started_at: held.started_at }
            }
        }
    }
}

fn is_isolated(entry: &Entry) -> bool {
    entry.suspicion == Suspicion::Isolated
}

pub(crate) fn lane_of(entry: &Entry) -> Lane {
    (entry.queue.clone(), entry.tenant.clone(), entry.target.clone())
}
