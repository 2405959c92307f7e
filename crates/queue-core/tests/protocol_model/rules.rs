//! The rules of the protocol, and the ways in which they can be got wrong.

use crate::state::{Attempt, Job, Place, State, bit};

/// A protocol that somebody could write by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// 202, then the commit.
    AnswerBeforeCommit,
    NoReconciler,
    /// Load, settle and bumps ask only whether the row is live.
    NoEpochInWhere,
    /// The settle asks only for the row's id.
    NoFenceNoStateGuard,
    /// A push is valid however long it was on its way.
    PushWithoutDeadline,
    /// Only the first push of a job has a deadline, those of reaper and reconciler have none.
    DeadlineOnFirstPushOnly,
    PushWithoutDeadlineAndNoPreflight,
    /// The dispatcher is asked whether the lease still stands, right before the start.
    PushWithoutDeadlineButStartAsks,
    NoPreflight,
    AckBeforeSettle,
    ReconcileWithoutBump,
    /// No lease is re-asserted after a flush, and the rebuild does not wait for it.
    FlushFencesEveryone,
    /// Leases are re-asserted, and the rebuild waits for nobody: it takes who has not come back yet for dead.
    FillWaitsForNobody,
    /// The rebuild pushes rows as they are although a worker did not come back.
    FillAsIfAllWereBack,
    /// Scripts do not compare the generation of a message with theirs.
    NoGenerationCheck,
    /// A worker that joins again goes on to load what it had claimed, and re-asserts it unread.
    LoadOverFlush,
    /// After a stall a claim is loaded and started without a look at the clock or a renewal.
    StartWithoutLeaseClock,
    /// A renewal that comes too late brings the lease back.
    RenewRevivesExpired,
    /// After a flush a worker re-asserts even what had run out before.
    ReassertExpired,
    /// The reaper leaves an expired entry alone when its row has moved on.
    ReapLeavesMovedEntry,
    /// The reaper does not ask, before it writes, whether the life that it looked at has ended.
    ReapOfAnotherLife,
    /// The reconciler takes a job for unknown when the dispatcher holds another epoch of it.
    ReconcileOtherEpochs,
    /// A handback makes an expired lease claimable again.
    HandBackExpired,
    /// Acks and handbacks match the epoch only.
    NoNonce,
    /// A re-run does not look for the kept answer.
    NoMemoLookup,
    /// A fenced settle or record drops the call that it carries.
    MoneyIsFenced,
    /// Spend rows have the call's id for their key, without the epoch that paid.
    SpendKeyedByCall,
}

use Mutation::{
    DeadlineOnFirstPushOnly, NoEpochInWhere, NoNonce, NoPreflight, PushWithoutDeadline,
    PushWithoutDeadlineAndNoPreflight, PushWithoutDeadlineButStartAsks,
};

/// The protocol, right or with one mistake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules(pub(crate) Option<Mutation>);

impl Rules {
    pub(crate) fn has(self, mutation: Mutation) -> bool {
        self.0 == Some(mutation)
    }

    pub(crate) fn has_preflight(self) -> bool {
        !self.has(NoPreflight) && !self.has(PushWithoutDeadlineAndNoPreflight)
    }

    pub(crate) fn has_push_deadline(self, epoch: u8) -> bool {
        match self.0 {
            Some(PushWithoutDeadline | PushWithoutDeadlineAndNoPreflight | PushWithoutDeadlineButStartAsks) => false,
            Some(DeadlineOnFirstPushOnly) => epoch == 0,
            _ => true,
        }
    }

    /// The WHERE of every conditional write and of the load.
    pub(crate) fn matches(self, row: &Job, epoch: u8) -> bool {
        row.is_live() && (row.epoch == epoch || self.has(NoEpochInWhere))
    }

    /// Whether a message about this claim may touch this entry.
    pub(crate) fn is_of(self, place: Place, a: &Attempt) -> bool {
        let matches = |(epoch, nonce)| epoch == a.epoch && (nonce == a.nonce || self.has(NoNonce));
        !a.adrift && place.claim().is_some_and(matches)
    }

    /// Whether somebody did not come back after the flush: what nobody holds may be at work all the same.
    pub(crate) fn misses_somebody(self, s: &State) -> bool {
        let is_dead = |a: &Attempt| a.lapsed || self.has(Mutation::FillWaitsForNobody);
        s.unsure || s.attempts().any(|a| a.adrift && is_dead(a) && !a.is_settled())
    }

    /// The reconciler leaves a row alone until the push that its last write caused has arrived or is past its deadline
    /// (which is one way to lose it). Pushes of the rebuild are over when the life is filled.
    pub(crate) fn waits_for_push(self, s: &State, j: usize) -> bool {
        let row = &s.jobs[j];
        row.pushes & bit(row.epoch) != 0
    }
}
