//! The steps of the world, and those of them that are not a worker's: api, network, scheduler, flush.

use crate::{
    rules::{Mutation, Rules},
    state::{Outcome, Place, Standing, State, bit},
};

/// One step of the world. Numbers are jobs or workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Submit(u8),
    CommitHeld(u8),
    CrashApi(u8),
    Deliver {
        job: u8,
        epoch: u8,
        again: bool,
    },
    LosePush {
        job: u8,
        epoch: u8,
    },
    Claim {
        worker: u8,
        job: u8,
    },
    /// The reply is lost: a lease that nobody knows of.
    ClaimUnheard(u8),
    Load(u8),
    Start(u8),
    Answer(u8),
    Record(u8),
    Settle {
        worker: u8,
        outcome: Outcome,
    },
    SettleUnheard {
        worker: u8,
        outcome: Outcome,
    },
    Ack {
        worker: u8,
        lost: bool,
    },
    Renew(u8),
    HandBack(u8),
    DeliverHandback {
        job: u8,
        again: bool,
    },
    Cancel(u8),
    Crash(u8),
    CrashSent {
        worker: u8,
        outcome: Option<Outcome>,
    },
    CommitOrphan(u8),
    Stall(u8),
    Resume(u8),
    Expire(u8),
    Reap(u8),
    Look(u8),
    Reconcile(u8),
    Flush,
    NewGeneration,
    Reassert(u8),
    Stream(u8),
}

impl Rules {
    pub(crate) fn apply(self, s: &mut State, action: Action) {
        match action {
            Action::Submit(j) => self.submit(s, j as usize),
            Action::CommitHeld(j) => self.commit(s, j as usize),
            Action::CrashApi(j) => s.jobs[j as usize].standing = Standing::Lost,
            Action::Deliver { job, epoch, again } => self.deliver(s, job as usize, epoch, again),
            Action::LosePush { job, epoch } => {
                s.left.losses -= 1;
                s.jobs[job as usize].pushes &= !bit(epoch);
            }
            Action::Claim { worker, job } => self.claim(s, worker as usize, job),
            Action::ClaimUnheard(j) => self.claim_unheard(s, j as usize),
            Action::Load(w) => self.load(s, w as usize),
            Action::Start(w) => self.start(s, w as usize),
            Action::Answer(w) => self.answer(s, w as usize),
            Action::Record(w) => self.record(s, w as usize),
            Action::Settle { worker, outcome } => self.settle_from(s, worker as usize, outcome),
            Action::SettleUnheard { worker, outcome } => self.settle_unheard(s, worker as usize, outcome),
            Action::Ack { worker, lost } => self.ack(s, worker as usize, lost),
            Action::Renew(w) => self.renew(s, w as usize),
            Action::HandBack(w) => self.hand_back(s, w as usize),
            Action::DeliverHandback { job, again } => self.deliver_handback(s, job as usize, again),
            Action::Cancel(j) => self.cancel(s, j as usize),
            Action::Crash(w) => self.crash(s, w as usize),
            Action::CrashSent { worker, outcome } => self.crash_sent(s, worker as usize, outcome),
            Action::CommitOrphan(j) => self.commit_orphan(s, j as usize),
            Action::Stall(w) => self.stall(s, w as usize),
            Action::Resume(w) => s.workers[w as usize].stalled = false,
            Action::Expire(j) => self.expire(s, j as usize),
            Action::Reap(j) => self.reap(s, j as usize),
            Action::Look(j) => self.look(s, j as usize),
            Action::Reconcile(j) => self.reconcile(s, j as usize),
            Action::Flush => self.flush(s),
            Action::NewGeneration => {
                s.generation += 1;
                s.up = true;
            }
            Action::Reassert(w) => self.reassert(s, w as usize),
            Action::Stream(j) => self.stream(s, j as usize),
        }
    }

    fn submit(self, s: &mut State, j: usize) {
        if self.has(Mutation::AnswerBeforeCommit) {
            s.jobs[j].standing = Standing::Held;
        } else {
            self.commit(s, j);
        }
    }

    fn commit(self, s: &mut State, j: usize) {
        s.jobs[j].standing = Standing::Live;
        s.jobs[j].stamp = s.generation;
        self.push(s, j, 0);
    }

    /// While the generation key is missing every script refuses, so the message may as well not be sent.
    fn push(self, s: &mut State, j: usize, epoch: u8) {
        if s.up || self.has(Mutation::NoGenerationCheck) {
            s.jobs[j].pushes |= bit(epoch);
        }
    }

    fn deliver(self, s: &mut State, j: usize, epoch: u8, again: bool) {
        if again {
            s.left.repeats -= 1;
        } else {
            s.jobs[j].pushes &= !bit(epoch);
        }
        if s.jobs[j].place.epoch().is_none_or(|held| held < epoch) {
            s.jobs[j].place = Place::Ready(epoch);
        }
    }

    /// An expired lease cannot be handed back: the reaper may have it in hand already.
    fn deliver_handback(self, s: &mut State, j: usize, again: bool) {
        let row = &mut s.jobs[j];
        let Some((epoch, nonce)) = row.handback else { return };
        let is_open = matches!(row.place, Place::Leased { .. }) || self.has(Mutation::HandBackExpired);
        let is_same = |(e, n)| e == epoch && (n == nonce || self.has(Mutation::NoNonce));
        if is_open && row.place.claim().is_some_and(is_same) {
            row.place = Place::Ready(epoch);
        }
        if again {
            s.left.repeats -= 1;
        } else {
            row.handback = None;
        }
    }

    /// The worst case: nothing was withdrawn, and the worker has not heard of it.
    fn cancel(self, s: &mut State, j: usize) {
        s.left.cancels -= 1;
        let row = &mut s.jobs[j];
        row.standing = Standing::Cancelled;
        row.epoch += 1;
        row.stamp = s.generation;
    }

    fn commit_orphan(self, s: &mut State, j: usize) {
        if let Some(sent) = s.jobs[j].orphan.take() {
            self.settle(s, j, sent);
        }
    }

    /// Every bump of a live row: none may hit an attempt whose worker was never out of touch.
    pub(crate) fn bump(self, s: &mut State, j: usize) {
        let row = s.jobs[j];
        let hits = s.attempts().any(|a| a.job as usize == j && a.epoch == row.epoch && a.holds_token() && !a.lapsed);
        s.broken.living_fenced |= hits;
        s.jobs[j].epoch += 1;
        s.jobs[j].stamp = s.generation;
    }

    fn expire(self, s: &mut State, j: usize) {
        if let Some((epoch, nonce)) = s.jobs[j].place.claim() {
            s.jobs[j].place = Place::Expired { epoch, nonce };
            s.jobs[j].reaping = Some(epoch);
        }
    }

    /// The expired entry stays until the push replaces it. One whose row has moved on is removed: the row may be live
    /// at an epoch that the dispatcher never heard of (lost push), and only the reconciler can tell.
    fn reap(self, s: &mut State, j: usize) {
        let Some(epoch) = s.jobs[j].reaping.take() else { return };
        if self.matches(&s.jobs[j], epoch) {
            self.bump(s, j);
            self.push(s, j, s.jobs[j].epoch);
        } else if matches!(s.jobs[j].place, Place::Expired { epoch: e, .. } if e == epoch)
            && !self.has(Mutation::ReapLeavesMovedEntry)
        {
            s.jobs[j].place = Place::Absent;
        }
    }

    /// Only without the deadline does a push survive the reconciler's look at the row: one of the slow ones.
    fn look(self, s: &mut State, j: usize) {
        s.left.losses -= u8::from(self.waits_for_push(s, j));
        s.jobs[j].look = Some(s.jobs[j].epoch);
    }

    fn reconcile(self, s: &mut State, j: usize) {
        let Some(seen) = s.jobs[j].look.take() else { return };
        if !self.matches(&s.jobs[j], seen) {
            return;
        }
        if !self.has(Mutation::ReconcileWithoutBump) {
            self.bump(s, j);
        }
        self.push(s, j, s.jobs[j].epoch);
    }

    /// Messages of the old generation will be refused, so they end here too; reconciler and reaper look at the generation
    /// again before they write.
    fn flush(self, s: &mut State) {
        s.left.flushes -= 1;
        s.up = false;
        for row in &mut s.jobs {
            row.place = Place::Absent;
            row.look = None;
            row.reaping = if self.has(Mutation::ReapOfAnotherLife) { row.reaping } else { None };
            if !self.has(Mutation::NoGenerationCheck) {
                row.pushes = 0;
                row.handback = None;
            }
        }
        for attempt in s.workers.iter_mut().filter_map(|worker| worker.attempt.as_mut()) {
            attempt.adrift = true;
        }
    }

    /// The rebuild reads a row and pushes it as it is.
    fn stream(self, s: &mut State, j: usize) {
        s.left.repeats -= u8::from(s.jobs[j].place != Place::Absent);
        self.push(s, j, s.jobs[j].epoch);
    }
}
