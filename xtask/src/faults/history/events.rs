//! What a witness notes: the words of its file.

use serde::{Deserialize, Serialize};

/// What a job is asked to do and must come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Wish {
    /// Its name in every history; it stands in the prompt.
    pub(crate) mark: String,
    /// Whose job it is.
    pub(crate) tenant: String,
    /// How it is worked on.
    pub(crate) work: Work,
    /// Work time in milliseconds: the provider's latency, or the probe's sleep.
    pub(crate) ms: u64,
    /// Earliest start, in milliseconds since the Unix epoch.
    pub(crate) run_at_ms: Option<i64>,
    /// What it races with.
    pub(crate) race: Option<Race>,
}

/// What a job races with; one of two is first, and whoever asks is told which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "with", rename_all = "snake_case")]
pub(crate) enum Race {
    /// It is cancelled so many milliseconds after it was accepted, if it has not ended by then.
    Cancel {
        /// After its 202.
        after_ms: u64,
    },
    /// Its queue is paused at about the moment at which it is claimed, and resumed later.
    Pause {
        /// The queue.
        queue: String,
    },
    /// It dies, and is redriven while its queue's letters are archived. In its second life it succeeds.
    Archive {
        /// The queue.
        queue: String,
    },
}

impl Race {
    /// The queue that the race is about, if it is about one.
    pub(crate) fn queue(&self) -> Option<&str> {
        match self {
            Self::Cancel { .. } => None,
            Self::Pause { queue } | Self::Archive { queue } => Some(queue),
        }
    }
}

/// The kinds of work in the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// A call of the provider, which logs it.
    Llm,
    /// Likewise; the provider fails the first call with a 500.
    LlmFailsOnce,
    /// A probe that sleeps.
    Probe,
    /// A probe that fails in its first attempt.
    ProbeFailsOnce,
    /// A probe that fails for good.
    ProbeDies,
    /// A probe that panics in its first attempt.
    ProbePanicsOnce,
    /// A probe whose first attempt panics in a drop.
    ProbePanicsInDropOnce,
    /// A probe that ends its process, whenever it is run: by an abort.
    ProbeKills,
    /// Likewise, by using up its stack.
    ProbeOverflows,
    /// Likewise, by an exit with 0.
    ProbeExits,
    /// Likewise, since it takes more memory than its process may have.
    ProbeHogs,
    /// A probe that never yields, until its process has ended.
    ProbeSpins,
    /// A probe that does not yield for longer than it may run, and then does.
    ProbeBlocks,
}

impl Work {
    /// Whether the provider is called.
    pub(crate) fn calls_provider(self) -> bool {
        matches!(self, Self::Llm | Self::LlmFailsOnce)
    }

    /// Whether whatever process runs it dies.
    pub(crate) fn ends_process(self) -> bool {
        matches!(self, Self::ProbeKills | Self::ProbeOverflows | Self::ProbeExits | Self::ProbeHogs)
    }

    /// Whether it holds up the thread that runs it.
    pub(crate) fn holds_thread(self) -> bool {
        matches!(self, Self::ProbeSpins | Self::ProbeBlocks)
    }
}

/// What clients note.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum ClientEvent {
    /// The load has begun; everything before is preparation.
    LoadBegan,
    /// A request is due; it is sent until it has an answer. `request` is part of its idempotency key.
    Due {
        /// Its number.
        request: u64,
        /// The jobs in it: one, or several in bulk.
        jobs: Vec<Wish>,
    },
    /// It was sent to one of the API processes.
    Sent {
        /// Its number.
        request: u64,
        /// Which of its clients.
        copy: u64,
        /// The process.
        api: usize,
    },
    /// No answer, or one that says to come again.
    ComeAgain {
        /// Its number.
        request: u64,
        /// Which of its clients.
        copy: u64,
        /// The HTTP status or what the connection said.
        why: String,
    },
    /// Accepted: these ids, in the order of the jobs.
    Accepted {
        /// Its number.
        request: u64,
        /// Which of its clients.
        copy: u64,
        /// The jobs' ids.
        ids: Vec<String>,
    },
    /// Whoever cancelled the job of a request was told who was first.
    Cancelled {
        /// Its number.
        request: u64,
        /// Whether it was the cancel, and not the job's end.
        won: bool,
    },
    /// A queue was said to be paused.
    Paused {
        /// Which.
        queue: String,
    },
    /// While it was, these jobs of it were seen: waiting at two looks, or claimed by then.
    Seen {
        /// The queue.
        queue: String,
        /// Ids of those that wait.
        waiting: Vec<String>,
        /// Ids of those that run or have ended.
        claimed: Vec<String>,
    },
    /// It is about to be resumed.
    Resuming {
        /// Which.
        queue: String,
    },
    /// Whoever redrove a dead letter was told whether it was still there.
    Redriven {
        /// The job.
        id: String,
        /// Whether it lives again.
        won: bool,
    },
    /// An operation that archives has ended.
    Archived {
        /// The operation, and its archive.
        operation: String,
        /// The letters that it says it took.
        done: u64,
        /// All letters that it might have taken.
        letters: Vec<String>,
    },
    /// An answer that nothing in the load deserves.
    Refused {
        /// Its number.
        request: u64,
        /// Which of its clients.
        copy: u64,
        /// Status and body.
        why: String,
    },
    /// The last request of the load is due; the last faults may still come.
    LoadEnded,
}

/// What the provider notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum ProviderEvent {
    /// A call has arrived.
    Began {
        /// Its number.
        call: u64,
        /// The job's mark in the prompt.
        mark: String,
    },
    /// It is over.
    Ended {
        /// Its number.
        call: u64,
        /// How.
        how: Ending,
    },
}

/// How a call ended at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// A whole answer went out: what is billed.
    Answered,
    /// The provider failed it as asked.
    Failed,
    /// The caller left before the answer was whole.
    Dropped,
}

/// What the injector notes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum InjectorEvent {
    /// A process of ours was killed, and started again at once.
    Killed {
        /// Which.
        process: String,
        /// Whether jobs run in it.
        works: bool,
    },
    /// A kill found nothing to kill: the process was not up yet.
    Missed {
        /// Which.
        process: String,
    },
    /// A killed process says that it is ready again.
    Ready {
        /// Which.
        process: String,
        /// How long after its kill, in milliseconds.
        after_ms: u64,
    },
    /// A worker stands still.
    Frozen {
        /// Which.
        process: String,
    },
    /// It goes on.
    Thawed {
        /// Which.
        process: String,
    },
    /// Redis has forgotten everything.
    Flushed,
    /// Something else is done to the stores or to the network in front of them.
    Troubled {
        /// Its name.
        trouble: String,
        /// What the system may lose by it.
        harm: Harm,
    },
    /// It is over.
    Healed {
        /// Its name.
        trouble: String,
    },
    /// A store begins to be away.
    Down {
        /// Which.
        store: Store,
    },
    /// It is about to be started again.
    Rising {
        /// Which.
        store: Store,
    },
    /// It is back.
    Up {
        /// Which.
        store: Store,
    },
    /// A process ended by itself and was started again by the supervisor.
    Ended {
        /// Which.
        process: String,
        /// Whether jobs run in it.
        works: bool,
        /// How long it had lived, in milliseconds.
        lived_ms: u64,
        /// Its exit code; none if a signal ended it.
        #[serde(default)]
        code: Option<i32>,
    },
    /// A process was sabotaged to die at this point, and has.
    Crashed {
        /// Which.
        process: String,
        /// Whether jobs run in it.
        works: bool,
        /// Where.
        point: String,
    },
    /// The memory of a process.
    Memory {
        /// Which.
        process: String,
        /// What it has of it, in KiB.
        rss_kib: u64,
    },
    /// A scheduler has begun to copy the journal into a backup.
    CopyBegan {
        /// Which.
        process: String,
    },
    /// A kill that met a scheduler in the middle of that.
    KilledInBackup {
        /// Which.
        process: String,
    },
    /// The API says that a backup is good, and `longshore backup verify` has read all of it.
    Good {
        /// The backup.
        backup: String,
        /// Whether it is whole; else what is wrong with it.
        fault: Option<String>,
    },
    /// Connections of all processes to a store, while nothing was done to any.
    Connected {
        /// The store.
        store: Store,
        /// How many.
        count: u64,
    },
    /// What all processes that live at the end have counted.
    Counted {
        /// Its name.
        metric: String,
        /// Their sum.
        count: u64,
    },
    /// The faults are over: from here the system must come to rest.
    FaultsEnded,
    /// The journal had no live job any more, or patience ended.
    Drained {
        /// Jobs that were still live.
        live: u64,
    },
}

/// What the system may lose by a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Harm {
    /// Nothing.
    Nothing,
    /// Redis may forget who holds what.
    Forgets,
    /// Workers may be taken for dead.
    Severs,
}

/// A server that the system needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Store {
    /// The dispatcher's.
    Redis,
    /// The journal's.
    Postgres,
}
