//! The model: which steps are possible where, and what must hold in every state.

use stateright::{Model, Property};

use crate::{
    rules::{Mutation, Rules},
    state::{Attempt, EPOCH_BOUND, Faults, Outcome, Place, Standing, State, Step, WORKERS, bit},
    steps::Action,
};

pub(crate) const NEVER_LOST: &str = "an accepted job is never lost";
pub(crate) const ENDS: &str = "every accepted job ends";
pub(crate) const SETTLED_ONCE: &str = "a job is settled at most once";
pub(crate) const NO_STALE_SETTLE: &str = "no settle is taken from an older epoch";
pub(crate) const ONE_LEASE: &str = "at most one living lease holds a token";
pub(crate) const ONE_HOLDER: &str = "no two workers act on one token";
pub(crate) const NO_LATE_START: &str = "no run starts after settlement";
pub(crate) const PAY_ONCE: &str = "a finished call is never made again";
pub(crate) const EVERY_CENT: &str = "every finished call is in the ledger exactly once";
pub(crate) const LIVING_UNFENCED: &str = "no attempt of a living worker is fenced";

pub(crate) const SEEN_ZOMBIE: &str = "a zombie and its successor work at once";
pub(crate) const SEEN_PAID_TWICE: &str = "two calls of one job are in the ledger";
pub(crate) const SEEN_REASSERTED: &str = "a lease lives on over a flush";
pub(crate) const SEEN_ADOPTED: &str = "an answer is adopted by a later attempt";

/// One configuration: how many jobs, how much may go wrong, and which mistake the protocol has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) jobs: usize,
    pub(crate) faults: Faults,
    pub(crate) rules: Rules,
}

impl Protocol {
    pub(crate) fn has_ended(&self, s: &State) -> bool {
        s.jobs[..self.jobs].iter().all(|job| job.has_ended())
    }

    fn api_actions(&self, s: &State, out: &mut Vec<Action>) {
        for (j, job) in (0u8..).zip(&s.jobs[..self.jobs]) {
            match job.standing {
                Standing::Unsent => out.push(Action::Submit(j)),
                Standing::Held => out.extend([Action::CommitHeld(j), Action::CrashApi(j)]),
                Standing::Live if s.left.cancels > 0 => out.push(Action::Cancel(j)),
                _ => {}
            }
        }
    }

    fn network_actions(&self, s: &State, out: &mut Vec<Action>) {
        for (j, job) in (0u8..).zip(&s.jobs[..self.jobs]) {
            for epoch in (0..EPOCH_BOUND).filter(|&epoch| s.up && job.pushes & bit(epoch) != 0) {
                out.push(Action::Deliver { job: j, epoch, again: false });
                if s.left.repeats > 0 {
                    out.push(Action::Deliver { job: j, epoch, again: true });
                }
                if s.left.losses > 0 {
                    out.push(Action::LosePush { job: j, epoch });
                }
            }
            if s.up && job.handback.is_some() {
                out.push(Action::DeliverHandback { job: j, again: false });
                if s.left.repeats > 0 {
                    out.push(Action::DeliverHandback { job: j, again: true });
                }
            }
            if s.up && s.left.losses > 0 && matches!(job.place, Place::Ready(_)) {
                out.push(Action::ClaimUnheard(j));
            }
            if job.orphan.is_some() {
                out.push(Action::CommitOrphan(j));
            }
        }
    }

    fn worker_actions(&self, s: &State, w: u8, out: &mut Vec<Action>) {
        let Some(a) = s.workers[w as usize].attempt else {
            for (job, row) in (0u8..).zip(&s.jobs[..self.jobs]) {
                if s.up && matches!(row.place, Place::Ready(_)) {
                    out.push(Action::Claim { worker: w, job });
                }
            }
            return;
        };
        let row = &s.jobs[a.job as usize];
        let may_assert = !a.lapsed && !a.is_settled() || self.rules.has(Mutation::ReassertExpired);
        if a.adrift && s.up && may_assert && !self.rules.has(Mutation::FlushFencesEveryone) {
            out.push(Action::Reassert(w));
        }
        let knows_lease = !a.lapsed || self.rules.has(Mutation::StartWithoutLeaseClock);
        let is_leased = row.place == Place::Leased { epoch: a.epoch, nonce: a.nonce };
        let is_lost = if a.adrift { a.lapsed } else { !is_leased };
        if s.up && (a.may_be_dropped() && is_lost || !a.adrift && a.lapsed && is_leased) {
            out.push(Action::Renew(w));
        }
        match a.step {
            Step::Claimed if knows_lease => out.push(Action::Load(w)),
            Step::Loaded if self.rules.has(Mutation::PushWithoutDeadlineButStartAsks) && !is_leased => {}
            Step::Loaded if knows_lease => out.push(Action::Start(w)),
            Step::Claimed | Step::Loaded => {}
            Step::Started => out.push(Action::Answer(w)),
            Step::Answered if self.rules.has(Mutation::AckBeforeSettle) => {
                out.push(Action::Ack { worker: w, lost: false });
            }
            Step::Answered | Step::Acked => self.settle_actions(s, w, out),
            Step::Settled { .. } => out.push(Action::Ack { worker: w, lost: false }),
        }
        if matches!(a.step, Step::Claimed | Step::Loaded) && s.left.handbacks > 0 && row.handback.is_none() && !a.adrift
        {
            out.push(Action::HandBack(w));
        }
        if a.is_settled() && s.left.losses > 0 {
            out.push(Action::Ack { worker: w, lost: true });
        }
    }

    fn outcomes(s: &State) -> impl Iterator<Item = Outcome> {
        [Outcome::Succeed, Outcome::Retry].into_iter().take(if s.left.retries > 0 { 2 } else { 1 })
    }

    fn settle_actions(&self, s: &State, w: u8, out: &mut Vec<Action>) {
        if s.workers[w as usize].attempt.is_some_and(|a| a.owes) {
            out.push(Action::Record(w));
        }
        for outcome in Self::outcomes(s) {
            out.push(Action::Settle { worker: w, outcome });
            if s.left.losses > 0 {
                out.push(Action::SettleUnheard { worker: w, outcome });
            }
        }
    }

    fn scheduler_actions(&self, s: &State, out: &mut Vec<Action>) {
        if !s.up {
            out.push(Action::NewGeneration);
            return;
        }
        let open = s.grace_is_over()
            || self.rules.has(Mutation::FlushFencesEveryone)
            || self.rules.has(Mutation::FillWaitsForNobody);
        for (j, job) in (0u8..).zip(&s.jobs[..self.jobs]) {
            if let Place::Leased { nonce, .. } = job.place
                && !s.is_renewed(j as usize, nonce)
            {
                out.push(Action::Expire(j));
            }
            if job.reaping.is_some() {
                out.push(Action::Reap(j));
            } else if matches!(job.place, Place::Expired { .. }) {
                out.push(Action::Expire(j));
            }
            if job.look.is_some() {
                out.push(Action::Reconcile(j));
            }
            // Known at any epoch is known: what holds an older one is left to its worker or to the reaper.
            let is_other = job.place.epoch() != Some(job.epoch) && self.rules.has(Mutation::ReconcileOtherEpochs);
            let is_unknown = job.is_live() && (job.place == Place::Absent || is_other);
            // While a life is filled with everybody back, the reconciler waits; otherwise its look and bump are the fill's.
            let is_old = job.stamp < s.generation;
            let may_bump = !is_old || self.rules.misses_somebody(s);
            let is_due = !self.rules.waits_for_push(s, j as usize)
                || (!self.rules.has_push_deadline(job.epoch) && s.left.losses > 0);
            if open && may_bump && is_unknown && is_due && job.look.is_none() && !self.rules.has(Mutation::NoReconciler)
            {
                out.push(Action::Look(j));
            }
            let may_read = job.look.is_none() && (is_unknown || s.left.repeats > 0);
            let sure = !self.rules.misses_somebody(s) || self.rules.has(Mutation::FillAsIfAllWereBack);
            if open
                && sure
                && s.generation > 0
                && job.is_live()
                && is_old
                && may_read
                && job.pushes & bit(job.epoch) == 0
            {
                out.push(Action::Stream(j));
            }
        }
    }

    fn fault_actions(&self, s: &State, out: &mut Vec<Action>) {
        for w in 0..WORKERS as u8 {
            let worker = &s.workers[w as usize];
            if worker.stalled {
                out.push(Action::Resume(w));
            }
            let Some(a) = worker.attempt else { continue };
            if !worker.stalled && s.left.stalls > 0 {
                out.push(Action::Stall(w));
            }
            if s.left.crashes == 0 {
                continue;
            }
            out.push(Action::Crash(w));
            if a.step == Step::Answered && s.jobs[a.job as usize].orphan.is_none() {
                out.extend(Self::outcomes(s).map(|outcome| Action::CrashSent { worker: w, outcome: Some(outcome) }));
                if a.owes {
                    out.push(Action::CrashSent { worker: w, outcome: None });
                }
            }
        }
        if s.up && s.left.flushes > 0 {
            out.push(Action::Flush);
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.faults)]
    }

    fn actions(&self, s: &State, out: &mut Vec<Action>) {
        self.api_actions(s, out);
        self.network_actions(s, out);
        for w in (0..WORKERS as u8).filter(|&w| !s.workers[w as usize].stalled) {
            self.worker_actions(s, w, out);
        }
        self.scheduler_actions(s, out);
        self.fault_actions(s, out);
    }

    fn next_state(&self, s: &State, action: Action) -> Option<State> {
        let mut next = *s;
        self.rules.apply(&mut next, action);
        Some(next.canonical(self.jobs))
    }

    fn within_boundary(&self, s: &State) -> bool {
        self.rules.0.is_none() || s.jobs.iter().all(|job| job.epoch + 1 < EPOCH_BOUND)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NEVER_LOST, |_, s: &State| s.jobs.iter().all(|job| job.standing != Standing::Lost)),
            // Looked at where nothing can happen any more. Ended stays ended, so this finds all of them.
            Property::eventually(ENDS, |m: &Self, s: &State| m.has_ended(s)),
            Property::always(SETTLED_ONCE, |_, s: &State| !s.broken.settled_twice),
            Property::always(NO_STALE_SETTLE, |_, s: &State| !s.broken.stale_settle),
            Property::always(ONE_LEASE, has_one_lease),
            Property::always(ONE_HOLDER, has_one_holder),
            Property::always(NO_LATE_START, |_, s: &State| !s.broken.late_start),
            Property::always(PAY_ONCE, |_, s: &State| !s.broken.call_repeated),
            Property::always(EVERY_CENT, has_every_cent),
            Property::always(LIVING_UNFENCED, |_, s: &State| !s.broken.living_fenced),
            Property::sometimes(SEEN_ZOMBIE, |_, s: &State| {
                both(s, |a, b| a.job == b.job && a.epoch != b.epoch && a.step == Step::Started && b.step == a.step)
            }),
            Property::sometimes(SEEN_PAID_TWICE, |_, s: &State| s.jobs.iter().any(|job| job.spend.count_ones() > 1)),
            Property::sometimes(SEEN_REASSERTED, |_, s: &State| {
                s.attempts().any(|a| {
                    let row = &s.jobs[a.job as usize];
                    a.step == (Step::Settled { next: false })
                        && row.standing == Standing::Succeeded
                        && row.stamp < s.generation
                        && row.place == Place::Leased { epoch: a.epoch, nonce: a.nonce }
                })
            }),
            Property::sometimes(SEEN_ADOPTED, |_, s: &State| {
                s.jobs
                    .iter()
                    .any(|job| job.standing == Standing::Succeeded && job.memo && job.spend & bit(job.epoch) == 0)
            }),
        ]
    }
}

fn both(s: &State, holds: fn(&Attempt, &Attempt) -> bool) -> bool {
    let [first, second] = &s.workers;
    matches!((&first.attempt, &second.attempt), (Some(a), Some(b)) if holds(a, b))
}

/// A lease of a row that has moved on is a claim that the load will drop.
fn has_one_lease(_: &Protocol, s: &State) -> bool {
    let [first, second] = &s.workers;
    let (Some(a), Some(b)) = (&first.attempt, &second.attempt) else { return true };
    let row = &s.jobs[a.job as usize];
    let is_living = |a: &Attempt| !a.lapsed && !a.is_settled() && row.is_live() && row.epoch == a.epoch;
    a.job != b.job || a.epoch != b.epoch || !is_living(a) || !is_living(b)
}

fn has_one_holder(_: &Protocol, s: &State) -> bool {
    !both(s, |a, b| a.job == b.job && a.epoch == b.epoch && a.holds_token() && b.holds_token())
}

/// The provider's books equal ours, but for calls still on their way and those that a crash made unknowable.
fn has_every_cent(_: &Protocol, s: &State) -> bool {
    (0u8..).zip(&s.jobs).all(|(j, job)| {
        let in_hand = s.attempts().filter(|a| a.job == j && a.owes).fold(0, |mask, a| mask | bit(a.epoch));
        let in_flight = job.orphan.filter(|sent| sent.owes).map_or(0, |sent| bit(sent.epoch));
        job.charged == job.spend | job.maybe | in_hand | in_flight
    })
}
