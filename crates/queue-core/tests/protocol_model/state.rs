//! What the model's world consists of: two jobs as journal, dispatcher and network see them, and two workers.

/// Workers, with one slot each: two are enough for a zombie and its successor.
pub(crate) const WORKERS: usize = 2;
/// Most jobs of a configuration.
pub(crate) const JOBS: usize = 2;
/// A broken protocol may bump for ever; no configuration of the right one needs an epoch this high.
pub(crate) const EPOCH_BOUND: u8 = 8;

/// An epoch as a member of a set.
pub(crate) fn bit(epoch: u8) -> u8 {
    assert!(epoch < EPOCH_BOUND, "an epoch beyond the masks");
    1 << epoch
}

/// How a job stands in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Standing {
    Unsent,
    /// Answered, not committed: only where the answer comes first.
    Held,
    /// Answered, and the process that held it died.
    Lost,
    Live,
    /// Stands for every outcome of an attempt that is final.
    Succeeded,
    Cancelled,
}

/// What the dispatcher knows of a job. The nonce says which claim of the epoch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Absent,
    Ready(u8),
    Leased {
        epoch: u8,
        nonce: u8,
    },
    /// A lease that ran out. It stays until a push, an ack or the reaper replaces it, and cannot be renewed.
    Expired {
        epoch: u8,
        nonce: u8,
    },
}

impl Place {
    pub(crate) fn epoch(self) -> Option<u8> {
        match self {
            Self::Absent => None,
            Self::Ready(epoch) | Self::Leased { epoch, .. } | Self::Expired { epoch, .. } => Some(epoch),
        }
    }

    /// The claim that it belongs to, as (epoch, nonce).
    pub(crate) fn claim(self) -> Option<(u8, u8)> {
        match self {
            Self::Leased { epoch, nonce } | Self::Expired { epoch, nonce } => Some((epoch, nonce)),
            _ => None,
        }
    }
}

/// How an attempt ends in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    Succeed,
    Retry,
}

/// What a worker sent to the journal before it died, still on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Orphan {
    pub(crate) epoch: u8,
    /// `None` is a bare record of the call.
    pub(crate) outcome: Option<Outcome>,
    /// Whether it carries a call that is not recorded yet.
    pub(crate) owes: bool,
}

/// One job. Sets of epochs are bit masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Job {
    // The journal's row.
    pub(crate) standing: Standing,
    pub(crate) epoch: u8,
    /// The generation in which the epoch was written; it changes with the epoch only.
    pub(crate) stamp: u8,
    pub(crate) memo: bool,
    /// Spend rows, by the epoch that paid.
    pub(crate) spend: u8,
    // The dispatcher's entry.
    pub(crate) place: Place,
    // In flight.
    pub(crate) pushes: u8,
    /// A claim being handed back, as (epoch, nonce).
    pub(crate) handback: Option<(u8, u8)>,
    pub(crate) orphan: Option<Orphan>,
    /// The reconciler found the row at this epoch, and nothing in the dispatcher.
    pub(crate) look: Option<u8>,
    /// The reaper found the lease of this epoch expired.
    pub(crate) reaping: Option<u8>,
    // The provider's own books, and what a crash hid from ours.
    pub(crate) charged: u8,
    pub(crate) maybe: u8,
}

impl Job {
    const UNSENT: Self = Self {
        standing: Standing::Unsent,
        epoch: 0,
        stamp: 0,
        memo: false,
        spend: 0,
        place: Place::Absent,
        pushes: 0,
        handback: None,
        orphan: None,
        look: None,
        reaping: None,
        charged: 0,
        maybe: 0,
    };

    pub(crate) fn is_live(&self) -> bool {
        self.standing == Standing::Live
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.standing, Standing::Succeeded | Standing::Cancelled)
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    Claimed,
    /// The preflight let it pass: from here on it holds the token.
    Loaded,
    /// The handler runs and the provider is being asked.
    Started,
    Answered,
    /// Acked before it settled: only where that order is broken.
    Acked,
    /// The journal has answered; `next` means that the job lives on at the next epoch.
    Settled {
        next: bool,
    },
}

/// What a worker knows of the claim that it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt {
    pub(crate) job: u8,
    pub(crate) epoch: u8,
    pub(crate) nonce: u8,
    pub(crate) step: Step,
    /// A flush took the lease and it is not re-asserted yet.
    pub(crate) adrift: bool,
    /// Its worker stalled, and has not renewed the lease since: it may have expired. The worker can tell by its own
    /// monotonic clock.
    pub(crate) lapsed: bool,
    /// It paid for a call that no message to the journal has carried yet.
    pub(crate) owes: bool,
}

impl Attempt {
    /// Between load and settle: acts in the name of (job, epoch).
    pub(crate) fn holds_token(&self) -> bool {
        matches!(self.step, Step::Loaded | Step::Started | Step::Answered | Step::Acked)
    }

    /// Nothing was paid yet that only this attempt knows of.
    pub(crate) fn may_be_dropped(&self) -> bool {
        matches!(self.step, Step::Claimed | Step::Loaded | Step::Started)
    }

    pub(crate) fn is_settled(&self) -> bool {
        matches!(self.step, Step::Settled { .. })
    }
}

/// A worker process. One that crashed is back at once, as another session with empty hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Worker {
    pub(crate) stalled: bool,
    pub(crate) attempt: Option<Attempt>,
}

/// How often each thing may go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Faults {
    pub(crate) crashes: u8,
    /// Stalls longer than session and lease; a shorter one is only a slow step.
    pub(crate) stalls: u8,
    pub(crate) flushes: u8,
    /// Pushes that never arrive, replies of a settle that nobody hears, acks that get lost.
    pub(crate) losses: u8,
    /// Messages that arrive twice, and rows that a second rebuild reads again.
    pub(crate) repeats: u8,
    pub(crate) retries: u8,
    pub(crate) cancels: u8,
    pub(crate) handbacks: u8,
}

/// What happened that must not happen, for rules about steps rather than states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Broken {
    pub(crate) settled_twice: bool,
    pub(crate) stale_settle: bool,
    pub(crate) late_start: bool,
    pub(crate) call_repeated: bool,
    pub(crate) living_fenced: bool,
}

/// The world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) jobs: [Job; JOBS],
    pub(crate) workers: [Worker; WORKERS],
    /// The generation as the journal knows it.
    pub(crate) generation: u8,
    /// A worker died. It stays registered, so a rebuild knows that somebody did not come back.
    pub(crate) unsure: bool,
    /// Whether the dispatcher holds that generation; if not, its scripts refuse everything.
    pub(crate) up: bool,
    pub(crate) left: Faults,
    pub(crate) broken: Broken,
}

impl State {
    pub(crate) fn new(left: Faults) -> Self {
        Self {
            jobs: [Job::UNSENT; JOBS],
            workers: [Worker { stalled: false, attempt: None }; WORKERS],
            generation: 0,
            unsure: false,
            up: true,
            left,
            broken: Broken::default(),
        }
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.workers.iter().filter_map(|worker| worker.attempt.as_ref())
    }

    /// Whether somebody renews this claim in time: only a claim that nobody renews can expire.
    pub(crate) fn is_renewed(&self, job: usize, nonce: u8) -> bool {
        self.attempts().any(|a| a.job as usize == job && a.nonce == nonce && !a.adrift && !a.lapsed)
    }

    /// The smallest nonce that nothing refers to: unique where it matters, and equal in states that are alike.
    pub(crate) fn fresh_nonce(&self, job: usize) -> u8 {
        let row = &self.jobs[job];
        let used = |nonce: u8| {
            row.place.claim().is_some_and(|(_, n)| n == nonce)
                || row.handback.is_some_and(|(_, n)| n == nonce)
                || self.attempts().any(|a| a.job as usize == job && a.nonce == nonce)
        };
        (0..).find(|&nonce| !used(nonce)).unwrap_or_default()
    }

    /// The grace after a new generation ends when every session has re-asserted or expired.
    pub(crate) fn grace_is_over(&self) -> bool {
        self.attempts().all(|a| !a.adrift || a.lapsed || a.is_settled())
    }

    /// One state for all that differ in the names of jobs and workers only.
    pub(crate) fn canonical(mut self, jobs: usize) -> Self {
        if jobs == JOBS && self.jobs[1] < self.jobs[0] {
            self.jobs.swap(0, 1);
            for attempt in self.workers.iter_mut().filter_map(|worker| worker.attempt.as_mut()) {
                attempt.job = 1 - attempt.job;
            }
        }
        self.workers.sort_unstable();
        self
    }
}
