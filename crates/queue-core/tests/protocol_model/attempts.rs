//! What a worker does with a claim, and what happens to workers.

use crate::{
    rules::{Mutation, Rules},
    state::{Attempt, Job, Orphan, Outcome, Place, Standing, State, Step, bit},
};

impl Rules {
    pub(crate) fn claim(self, s: &mut State, w: usize, job: u8) {
        let nonce = s.fresh_nonce(job as usize);
        let place = &mut s.jobs[job as usize].place;
        let Place::Ready(epoch) = *place else { return };
        *place = Place::Leased { epoch, nonce };
        s.workers[w].attempt =
            Some(Attempt { job, nonce, epoch, step: Step::Claimed, adrift: false, lapsed: false, owes: false });
    }

    pub(crate) fn claim_unheard(self, s: &mut State, j: usize) {
        s.left.losses -= 1;
        let nonce = s.fresh_nonce(j);
        if let Place::Ready(epoch) = s.jobs[j].place {
            s.jobs[j].place = Place::Leased { epoch, nonce };
        }
    }

    /// The preflight. Without it nothing is read.
    pub(crate) fn load(self, s: &mut State, w: usize) {
        let Some(mut a) = s.workers[w].attempt else { return };
        let j = a.job as usize;
        if self.has_preflight() && !self.matches(&s.jobs[j], a.epoch) {
            self.forget(s, &a);
            s.workers[w].attempt = None;
            return;
        }
        a.epoch = if self.has_preflight() { s.jobs[j].epoch } else { a.epoch };
        s.broken.late_start |= s.jobs[j].has_ended();
        a.step = Step::Loaded;
        s.workers[w].attempt = Some(a);
    }

    /// Looks for the kept answer and calls the provider if there is none. A cancel may come between load and start;
    /// a settle may not.
    pub(crate) fn start(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.as_mut() else { return };
        let row = &s.jobs[a.job as usize];
        s.broken.late_start |= row.standing == Standing::Succeeded;
        if row.memo && !self.has(Mutation::NoMemoLookup) {
            a.step = Step::Answered;
        } else {
            s.broken.call_repeated |= row.memo;
            a.step = Step::Started;
        }
    }

    pub(crate) fn answer(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.as_mut() else { return };
        s.jobs[a.job as usize].charged |= bit(a.epoch);
        a.step = Step::Answered;
        a.owes = true;
    }

    pub(crate) fn record(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.as_mut() else { return };
        a.owes = false;
        self.store_call(&mut s.jobs[a.job as usize], a.epoch);
    }

    fn store_call(self, row: &mut Job, epoch: u8) {
        let fenced = self.has(Mutation::MoneyIsFenced) && !self.matches(row, epoch);
        let taken = self.has(Mutation::SpendKeyedByCall) && row.spend != 0;
        if !fenced {
            row.memo = true;
            row.spend |= if taken { 0 } else { bit(epoch) };
        }
    }

    /// One transaction: the call, whatever becomes of the rest; then the row, if it still is the attempt's.
    pub(crate) fn settle(self, s: &mut State, j: usize, sent: Orphan) -> bool {
        let Some(outcome) = sent.outcome else {
            self.store_call(&mut s.jobs[j], sent.epoch);
            return false;
        };
        if sent.owes {
            self.store_call(&mut s.jobs[j], sent.epoch);
        }
        let row = &mut s.jobs[j];
        if !self.matches(row, sent.epoch) && !self.has(Mutation::NoFenceNoStateGuard) {
            return false;
        }
        s.broken.settled_twice |= row.has_ended();
        s.broken.stale_settle |= row.epoch != sent.epoch;
        match outcome {
            Outcome::Succeed => row.standing = Standing::Succeeded,
            Outcome::Retry => {
                row.standing = Standing::Live;
                row.epoch += 1;
                row.stamp = s.generation;
            }
        }
        true
    }

    pub(crate) fn settle_from(self, s: &mut State, w: usize, outcome: Outcome) {
        let Some(mut a) = s.workers[w].attempt else { return };
        s.left.retries -= u8::from(outcome == Outcome::Retry);
        let sent = Orphan { epoch: a.epoch, outcome: Some(outcome), owes: a.owes };
        let taken = self.settle(s, a.job as usize, sent);
        a.owes = false;
        let was_acked = a.step == Step::Acked;
        a.step = Step::Settled { next: taken && outcome == Outcome::Retry };
        s.workers[w].attempt = if was_acked { None } else { Some(a) };
    }

    /// It commits and the worker never hears of it: it will send the call and a settle once more.
    pub(crate) fn settle_unheard(self, s: &mut State, w: usize, outcome: Outcome) {
        let Some(a) = s.workers[w].attempt else { return };
        s.left.losses -= 1;
        s.left.retries -= u8::from(outcome == Outcome::Retry);
        let sent = Orphan { epoch: a.epoch, outcome: Some(outcome), owes: a.owes };
        self.settle(s, a.job as usize, sent);
    }

    fn forget(self, s: &mut State, a: &Attempt) {
        let row = &mut s.jobs[a.job as usize];
        if self.is_of(row.place, a) {
            row.place = Place::Absent;
        }
    }

    /// The next life enters with the ack that removes this one, or not at all: the reconciler never sees a gap.
    pub(crate) fn ack(self, s: &mut State, w: usize, lost: bool) {
        let Some(a) = s.workers[w].attempt else { return };
        s.left.losses -= u8::from(lost);
        let row = &mut s.jobs[a.job as usize];
        if !lost && self.is_of(row.place, &a) {
            row.place =
                if a.step == (Step::Settled { next: true }) { Place::Ready(a.epoch + 1) } else { Place::Absent };
        }
        s.workers[w].attempt = if self.has(Mutation::AckBeforeSettle) && !a.is_settled() {
            Some(Attempt { step: Step::Acked, ..a })
        } else {
            None
        };
    }

    /// The first renewal after a stall: either the lease is still there, or what can be given up is given up. An
    /// answer that was paid for is not.
    pub(crate) fn renew(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.as_mut() else { return };
        let place = &mut s.jobs[a.job as usize].place;
        if self.has(Mutation::RenewRevivesExpired) && self.is_of(*place, a) {
            *place = Place::Leased { epoch: a.epoch, nonce: a.nonce };
        }
        if !a.adrift && *place == (Place::Leased { epoch: a.epoch, nonce: a.nonce }) {
            a.lapsed = false;
        } else {
            s.workers[w].attempt = None;
        }
    }

    /// Refused when somebody else was given the job in the meantime: then it is as after a lost lease. What is not loaded
    /// yet is dropped: nothing has run, and the job is pushed again.
    pub(crate) fn reassert(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.as_mut() else { return };
        if a.step == Step::Claimed && !self.has(Mutation::LoadOverFlush) {
            s.workers[w].attempt = None;
            return;
        }
        a.adrift = false;
        a.lapsed = false;
        let place = &mut s.jobs[a.job as usize].place;
        if *place == Place::Absent || *place == Place::Ready(a.epoch) {
            *place = Place::Leased { epoch: a.epoch, nonce: a.nonce };
        } else if a.may_be_dropped() {
            s.workers[w].attempt = None;
        } else {
            a.lapsed = true;
        }
    }

    pub(crate) fn hand_back(self, s: &mut State, w: usize) {
        let Some(a) = s.workers[w].attempt.take() else { return };
        s.left.handbacks -= 1;
        s.jobs[a.job as usize].handback = Some((a.epoch, a.nonce));
    }

    /// What was paid for and not sent is lost to our books: `billed = maybe`.
    pub(crate) fn crash(self, s: &mut State, w: usize) {
        s.left.crashes -= 1;
        s.unsure = true;
        s.workers[w].stalled = false;
        let Some(a) = s.workers[w].attempt.take() else { return };
        let row = &mut s.jobs[a.job as usize];
        if a.owes && row.spend & bit(a.epoch) == 0 {
            row.maybe |= bit(a.epoch);
        }
    }

    /// The message outlives the worker and arrives at any later time.
    pub(crate) fn crash_sent(self, s: &mut State, w: usize, outcome: Option<Outcome>) {
        let Some(a) = s.workers[w].attempt.take() else { return };
        s.left.crashes -= 1;
        s.unsure = true;
        s.left.retries -= u8::from(outcome == Some(Outcome::Retry));
        s.workers[w].stalled = false;
        s.jobs[a.job as usize].orphan = Some(Orphan { epoch: a.epoch, outcome, owes: a.owes });
    }

    pub(crate) fn stall(self, s: &mut State, w: usize) {
        s.left.stalls -= 1;
        s.workers[w].stalled = true;
        if let Some(a) = s.workers[w].attempt.as_mut() {
            a.lapsed = true;
        }
    }
}
