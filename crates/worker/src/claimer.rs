//! Claims as many jobs as there are free slots, loads them in one read, and hands them on.
//!
//! One task owns the slots. Every round trip to the dispatcher carries the acks that have gathered and a claim for
//! the slots that are free; a busy worker therefore batches by itself, an idle one reacts at once.

use std::{sync::Arc, time::Duration};

use queue_core::{
    dispatcher::{Ack, CLAIM_MAX_JOBS, Claim, DispatchError, Entry, Signal, Step, StepReply},
    ids::{Name, SessionId},
    job::Kind,
    journal::Token,
    progress::{Pulse, step_aside},
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    abandoned::Abandoned,
    backend::Claimed,
    leases::{Leases, Stop},
    orders::Orders,
    patience::until_available,
    renewer,
};

/// Most acks in one step: bounds the dispatcher's work in one go.
const ACKS_MAX: usize = 1_024;
/// Longest time between two steps of an idle worker: what a lost wake-up can cost at most.
const POLL_MAX: Duration = Duration::from_secs(1);
/// Pause after the dispatcher refused, doubled up to [`POLL_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest silence of the loop: many times what a dispatcher that is away may hold up one step.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Claimer {
    pub(crate) stores: Stores,
    pub(crate) session: SessionId,
    pub(crate) queues: Vec<Name>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) slots_total: usize,
    pub(crate) leases: Arc<Leases>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) abandoned: Arc<Abandoned>,
    pub(crate) out: mpsc::Sender<Claimed>,
    /// Loads that run beside the next step; each holds the slots of its jobs, so their number is bounded.
    pub(crate) loads: TaskTracker,
    /// What tells probes that the loop goes round, whatever becomes of its steps.
    pub(crate) pulse: Arc<Pulse>,
}

impl Claimer {
    /// Claims until `stop` fires, then goes on carrying acks until `end` has fired and every claim is given up.
    pub(crate) async fn run(self, signals: mpsc::Receiver<Signal>, stop: CancellationToken, end: CancellationToken) {
        self.go_round(signals, stop, end).await;
        self.pulse.rest();
    }

    async fn go_round(&self, mut signals: mpsc::Receiver<Signal>, stop: CancellationToken, end: CancellationToken) {
        let mut claiming = true;
        let mut work_expected = true;
        let mut next_at = None;
        let mut pause = PAUSE_FIRST;
        loop {
            self.pulse.beat();
            claiming = claiming && !stop.is_cancelled();
            // Asked before the acks are taken: whoever gives a claim up leaves its ack first.
            let all_given_up = end.is_cancelled() && self.leases.count() == 0;
            // The slots before the acks: the ack of whatever made a slot free is there before it, and goes in this step.
            let may_claim = claiming && work_expected && !self.orders.hold() && !self.abandoned.hold();
            let slots = if may_claim { self.free_slots() } else { None };
            let (acks, left) = self.leases.take_acks(ACKS_MAX);
            let slot = slots.and_then(|slots| without(slots, left));
            if acks.is_empty() && slot.is_none() {
                if all_given_up {
                    return;
                }
                // What is due is none of the business of one that may not claim.
                let due = next_at.filter(|_| may_claim);
                match self.idle(&mut signals, due, claiming, &stop).await {
                    Woken::Work => work_expected = true,
                    Woken::Drain => claiming = false,
                }
                self.note_progress();
                continue;
            }
            let asks = slot.is_some();
            match self.step(acks, slot).await {
                Ok(reply) => {
                    (next_at, pause) = (reply.next_at, PAUSE_FIRST);
                    // Who did not ask has learnt nothing.
                    work_expected = if asks { reply.full } else { work_expected };
                }
                Err(error) => {
                    if let DispatchError::WrongGeneration = error
                        && let Some(joined) = self.join_again().await
                    {
                        (signals, work_expected, pause) = (joined, true, PAUSE_FIRST);
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(POLL_MAX);
                    if end.is_cancelled() {
                        return;
                    }
                }
            }
            while let Ok(signal) = signals.try_recv() {
                work_expected |= self.heed(signal);
            }
        }
    }

    fn free_slots(&self) -> Option<OwnedSemaphorePermit> {
        let free = self.slots.available_permits().min(CLAIM_MAX_JOBS);
        if free == 0 {
            return None;
        }
        self.slots.clone().try_acquire_many_owned(free as u32).ok()
    }

    /// Waits for something to do: an ack or a freed slot, a signal, the next due time, or the fallback poll.
    async fn idle(
        &self,
        signals: &mut mpsc::Receiver<Signal>,
        next_at: Option<Timestamp>,
        claiming: bool,
        stop: &CancellationToken,
    ) -> Woken {
        let now = self.stores.clock.now();
        let due = next_at.map(|at| Duration::from_millis(at.since_ms(now).max(1) as u64));
        let timer = due.unwrap_or(POLL_MAX).min(POLL_MAX);
        tokio::select! {
            () = self.leases.changed.notified() => Woken::Work,
            () = tokio::time::sleep(timer) => Woken::Work,
            () = stop.cancelled(), if claiming => Woken::Drain,
            signal = signals.recv() => match signal {
                Some(signal) => {
                    self.heed(signal);
                    Woken::Work
                }
                // The dispatcher dropped us; the renewer joins again, the poll goes on meanwhile.
                None => {
                    tokio::time::sleep(timer).await;
                    Woken::Work
                }
            },
        }
    }

    /// Whether the signal says that there is work.
    fn heed(&self, signal: Signal) -> bool {
        match signal {
            Signal::Work => return true,
            Signal::Cancel(id) => self.leases.stop(id, Stop::Cancelled),
        }
        false
    }

    /// The loop goes round, whether there is anything to claim or not.
    fn note_progress(&self) {
        metrics::gauge!(telemetry::CLAIM_PROGRESS).set(self.stores.clock.now().0 as f64 / 1_000.0);
    }

    async fn step(&self, acks: Vec<Ack>, slot: Option<OwnedSemaphorePermit>) -> Result<Stepped, DispatchError> {
        let slots = slot.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let step = Step {
            session: self.session,
            acks: acks.clone(),
            queues: self.queues.clone(),
            kinds: self.kinds.clone(),
            slots,
        };
        let reply = match self.stores.dispatcher.step(step).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(%error, "a step of the claim loop failed; its acks are kept");
                self.leases.put_back(acks);
                return Err(error);
            }
        };
        self.note_progress();
        let StepReply { claims, next_at } = reply;
        let full = slots > 0 && claims.len() == slots;
        if let (Some(slot), false) = (slot, claims.is_empty()) {
            self.hand_on(claims, slot);
            // The load goes out before what is left to do here.
            step_aside().await;
        }
        // Claims, not permits: a step that claims holds permits for jobs that may not be there.
        let busy = self.leases.count().min(self.slots_total);
        metrics::gauge!(telemetry::WORKER_SLOTS, "state" => "busy").set(busy as f64);
        metrics::gauge!(telemetry::WORKER_SLOTS, "state" => "free").set((self.slots_total - busy) as f64);
        Ok(Stepped { full, next_at })
    }

    /// The dispatcher was flushed or restarted empty: tells it what runs here, so that nobody else runs it too.
    async fn join_again(&self) -> Option<mpsc::Receiver<Signal>> {
        self.leases.stop_unloaded();
        // Silent for too long: others may have been told that this worker is dead, and its jobs are theirs.
        let held = if self.leases.fuse_is_out() { vec![] } else { self.leases.to_assert() };
        let claims = held.len();
        match self.stores.dispatcher.join(self.session, held).await {
            Ok(signals) => {
                tracing::info!(claims, "joined a dispatcher that had forgotten this worker");
                Some(signals)
            }
            Err(error) => {
                tracing::warn!(%error, "the dispatcher does not let the worker in yet");
                None
            }
        }
    }

    /// Loads the claimed rows beside the next step and sends those that may run.
    fn hand_on(&self, claims: Vec<Claim>, mut slots: OwnedSemaphorePermit) {
        let held: Vec<_> = claims.iter().map(|claim| self.leases.hold(claim.lease)).collect();
        let Some(slots) = slots.split(claims.len()) else { return };
        let load = Load {
            stores: self.stores.clone(),
            session: self.session,
            leases: self.leases.clone(),
            out: self.out.clone(),
        };
        self.loads.spawn(load.run(claims, held, slots));
    }
}

/// These slots but for those whose acks this step has no room for: the dispatcher still counts them as claimed.
fn without(mut slots: OwnedSemaphorePermit, acks_left: usize) -> Option<OwnedSemaphorePermit> {
    drop(slots.split(acks_left.min(slots.num_permits())));
    (slots.num_permits() > 0).then_some(slots)
}

enum Woken {
    Work,
    Drain,
}

struct Stepped {
    /// Every slot got a job: there may be more.
    full: bool,
    next_at: Option<Timestamp>,
}

/// The preflight: nothing runs that the journal does not hold live at the claimed epoch.
struct Load {
    stores: Stores,
    session: SessionId,
    leases: Arc<Leases>,
    out: mpsc::Sender<Claimed>,
}

impl Load {
    async fn run(self, claims: Vec<Claim>, held: Vec<Arc<crate::leases::Held>>, mut slots: OwnedSemaphorePermit) {
        let tokens: Vec<_> =
            claims.iter().map(|claim| Token { id: claim.lease.id, epoch: claim.lease.epoch }).collect();
        let never = CancellationToken::new();
        let now = self.stores.clock.now();
        let ask = || self.stores.journal.load(&tokens, now);
        let Some(rows) = until_available("load", ask, &never).await else { return };
        // A process that was stopped for long (a laptop asleep, SIGSTOP) must not start what others took over.
        while self.leases.fuse_is_out() {
            renewer::once(&self.stores, self.session, &self.leases).await;
            if self.leases.fuse_is_out() {
                tokio::time::sleep(POLL_MAX).await;
            }
        }
        let mut started = Vec::with_capacity(rows.len());
        let mut runnable = Vec::with_capacity(rows.len());
        for ((claim, held), row) in claims.into_iter().zip(held).zip(rows) {
            let Some(slot) = slots.split(1) else { return };
            match row.filter(|_| held.stopped().is_none()) {
                Some(loaded) => {
                    held.begin(Entry::from(&loaded.job), now);
                    started.push(claim.lease);
                    runnable.push(Claimed { loaded: Arc::new(loaded), held, ready_at: claim.ready_at, slot });
                }
                // Settled, edited or recovered since it was pushed, or lost since it was claimed: history.
                None => self.leases.give_up(claim.lease, None, slot),
            }
        }
        if let Err(error) = self.stores.dispatcher.start(self.session, &started).await {
            // It only weakens the conviction of a poison job.
            tracing::warn!(%error, "starts were not noted");
        }
        for claimed in runnable {
            if let Err(closed) = self.out.send(claimed).await {
                let Claimed { loaded, held, slot, .. } = closed.0;
                self.leases.give_up(held.lease, Some(Entry::from(&loaded.job)), slot);
            }
        }
    }
}
