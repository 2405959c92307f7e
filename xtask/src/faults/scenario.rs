//! What a scenario is: a load, what is done to the system meanwhile, and what must hold. Everything in it is data.

use std::{fmt, time::Duration};

use super::{
    history::{Harm, Store, Work},
    links::Link,
};
use crate::cluster::Role;
pub(crate) use testkit::Weather;

/// What a run consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name for `--only`, and that of its histories.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    /// What clients ask for.
    pub(crate) load: Shape,
    /// API, worker and scheduler processes.
    pub(crate) processes: Processes,
    /// What Redis writes to its disk.
    pub(crate) redis: Persistence,
    /// Postgres is alone on a disk of so many bytes. Wants root.
    pub(crate) disk_bytes: Option<u64>,
    /// The most memory that each worker may have, in MiB. Wants root.
    pub(crate) worker_memory_mib: Option<u64>,
    /// A process is killed again and again.
    pub(crate) kills: Option<Kills>,
    /// The first process of each role is never killed, so that it shows what a long life does.
    pub(crate) spares_first: bool,
    /// What else is done, and how often in one length of the load.
    pub(crate) troubles: &'static [(usize, Trouble)],
    /// The first process of a role has a clock that is so many seconds ahead. Wants Debian's `faketime`.
    pub(crate) clock: Option<(Role, i64)>,
    /// What is done to the binary itself; only one that was built to be sabotaged obeys.
    pub(crate) sabotage: Option<&'static str>,
    /// What the checker demands beyond what it always demands.
    pub(crate) demands: Demands,
    /// Longest time from the end of load and faults until no job is live.
    pub(crate) drain: Duration,
}

/// What clients ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Jobs submitted a second.
    pub(crate) rate: u64,
    /// Jobs in a hundred that take seconds, so that every fault finds attempts at work.
    pub(crate) long_percent: u32,
    /// How long the load lasts; `--minutes` multiplies it.
    pub(crate) time: Duration,
    /// Clients that send each request, all at once and with one key.
    pub(crate) copies: u64,
    /// Jobs that wait before the load begins.
    pub(crate) backlog: u64,
    /// When all of the backlog is due, from the beginning of the run; `None`: at once.
    pub(crate) backlog_due: Option<Duration>,
    /// Jobs whose handlers end or block their process, spread over the load; as many others panic once.
    pub(crate) killers: u64,
    /// What they are, in turn.
    pub(crate) poison: &'static [Work],
    /// What jobs race with.
    pub(crate) races: &'static [Rival],
    /// Clients that all come in one moment in the middle of the load, each with a job.
    pub(crate) herd: u64,
}

/// Who is to be first, or not, beside the usual load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// So many jobs in a hundred are short probes that are cancelled at about the moment at which they end.
    Cancel(u32),
    /// Queues are paused at about the moment at which their jobs are claimed, and jobs that wait there are changed.
    Pause,
    /// Dead letters are redriven while they are archived. Wants a place for objects, which the run then has.
    Archive,
}

/// How many processes of each role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processes {
    /// API.
    pub(crate) apis: usize,
    /// Workers.
    pub(crate) workers: usize,
    /// Schedulers.
    pub(crate) schedulers: usize,
}

impl Processes {
    /// The numbers of a role's processes; of all without one.
    pub(crate) fn numbers(self, role: Option<Role>) -> std::ops::Range<usize> {
        let (workers, schedulers) = (self.apis, self.apis + self.workers);
        match role {
            None => 0..schedulers + self.schedulers,
            Some(Role::Api) => 0..workers,
            Some(Role::Worker) => workers..schedulers,
            Some(Role::Scheduler) => schedulers..schedulers + self.schedulers,
        }
    }
}

/// What Redis writes to its disk, and so what it knows when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing: it comes back empty.
    Nothing,
    /// Its log, synced each second.
    EverySecond,
    /// Its log, synced with each command.
    Always,
}

/// A process of a role, or of any, is killed with `kill -9` and started again at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kills {
    /// Whose; `None`: anybody's.
    pub(crate) of: Option<Role>,
    /// Time between two kills.
    pub(crate) every: Duration,
}

/// Something that is done once, and ends after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// `FLUSHALL`.
    Flush,
    /// `DEBUG RELOAD`: Redis writes everything down and reads it again, and answers nobody meanwhile.
    Reload,
    /// Somebody overwrites the generation: Redis holds the index of another life.
    WrongGeneration,
    /// Redis throws keys away for so long, since it has too little memory and was told that it may.
    Evict(Duration),
    /// Redis refuses writes for so long, since it has too little memory.
    Full(Duration),
    /// A store is killed, and started again after so long.
    Away(Store, Duration),
    /// A session holds the table of live jobs for so long.
    Lock(Duration),
    /// The disk of Postgres is full for so long; where that ends the server, it is started again afterwards.
    DiskFull(Duration),
    /// So many workers are stopped for so long (`SIGSTOP`), and go on as if nothing had happened.
    Zombies(usize, Duration),
    /// The network between the processes of a role and a store is so for so long.
    Network(Link, Weather, Duration),
    /// Its connections are reset for so long, and Redis forgets everything meanwhile.
    CutAndFlush(Link, Duration),
    /// The scheduler that makes a backup is killed in the middle of it. One backup is made after the other in such a run.
    KillMaker,
}

impl Scenario {
    /// Whether backups are made all the time.
    pub(crate) fn backs_up(&self) -> bool {
        self.troubles.iter().any(|(_, trouble)| *trouble == Trouble::KillMaker)
    }
}

impl Trouble {
    /// How long it lasts.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::Flush | Self::Reload | Self::WrongGeneration | Self::KillMaker => Duration::ZERO,
            Self::Evict(time) | Self::Full(time) | Self::Lock(time) | Self::DiskFull(time) => time,
            Self::Away(_, time) | Self::Network(_, _, time) => time,
            Self::Zombies(_, time) | Self::CutAndFlush(_, time) => time,
        }
    }

    /// What the system may lose by it: who held what, or workers' claims.
    pub(crate) fn harm(self) -> Harm {
        match self {
            Self::Flush | Self::WrongGeneration | Self::Evict(_) | Self::Away(Store::Redis, _) => Harm::Forgets,
            Self::Network(Link { role: Role::Worker, store: Store::Redis, .. }, ..) | Self::CutAndFlush(..) => {
                Harm::Severs
            }
            _ => Harm::Nothing,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flush => f.write_str("FLUSHALL"),
            Self::Reload => f.write_str("DEBUG RELOAD"),
            Self::WrongGeneration => f.write_str("another generation in Redis"),
            Self::Evict(_) => f.write_str("Redis evicts keys"),
            Self::Full(_) => f.write_str("Redis has no memory"),
            Self::Away(store, _) => write!(f, "{store:?} is away"),
            Self::Lock(_) => f.write_str("the table of live jobs is locked"),
            Self::DiskFull(_) => f.write_str("the disk of Postgres is full"),
            Self::Zombies(count, _) => write!(f, "{count} workers stand still"),
            Self::KillMaker => f.write_str("kill -9 of the scheduler that makes a backup"),
            Self::CutAndFlush(link, _) => write!(f, "{link}: Reset, and Redis forgets"),
            Self::Network(link, weather, _) => write!(f, "{link}: {weather:?}"),
        }
    }
}

/// What differs from scenario to scenario in what must hold. Times do not count what the stores were away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Demands {
    /// No attempt may be lost and no call repeated: nothing that is done harms a living worker.
    pub(crate) no_attempt_fenced: bool,
    /// Longest time until a call that died with its worker is made again.
    pub(crate) restart_within: Option<Duration>,
    /// Longest time from a kill until the process says that it is ready.
    pub(crate) ready_within: Option<Duration>,
    /// Longest time from a flush, or from the end of a trouble, to the next call of the provider.
    pub(crate) resumes_within: Option<Duration>,
    /// Longest wait for a refusal while the journal is away.
    pub(crate) refuses_within: Option<Duration>,
    /// Longest time from a job's moment to its start.
    pub(crate) starts_within: Option<Duration>,
    /// Submits are accepted while Redis is away.
    pub(crate) accepts_without_redis: bool,
    /// Fewest jobs that were taken over from workers that stood still: with none, the run shows nothing.
    pub(crate) taken_over: usize,
    /// Most that a process may grow, in MiB.
    pub(crate) grows_mib: Option<u64>,
    /// What the run has to meet at least once.
    pub(crate) meets: &'static [Met],
    /// Neither memory nor keys nor connections become more and more.
    pub(crate) leaks_nothing: bool,
    /// Longest time to the 202 of a client of the herd, 99th percentile; who is told to come again is not counted.
    pub(crate) herd_within: Option<Duration>,
    /// Times that a process with a wrong clock wrote down are not compared with others.
    pub(crate) clocks_differ: bool,
    /// Longest time until somebody else begins the backup anew whose maker was killed.
    pub(crate) taken_over_within: Option<Duration>,
    /// Fewest races, of which each side must win a hundredth.
    pub(crate) races: usize,
    /// Points at each of which a process must have crashed: a line each, the name before the first space.
    pub(crate) crash_points: &'static str,
}

/// Something without which a run shows too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// An API process was killed.
    KilledApi,
    /// A worker was killed.
    KilledWorker,
    /// A scheduler was killed.
    KilledScheduler,
    /// A job ended its worker.
    EndedByJob,
    /// A worker ended itself to be started again, since a handler did not yield.
    Recycled,
    /// One request was sent by two clients at once, with one key, and both were answered.
    SentByTwo,
}

/// What scenarios have in common unless they say otherwise.
pub(crate) const USUAL: Scenario = Scenario {
    name: "",
    purpose: "",
    load: Shape {
        rate: 300,
        long_percent: 2,
        time: Duration::from_secs(60),
        copies: 1,
        backlog: 0,
        backlog_due: None,
        killers: 0,
        poison: &[Work::ProbeKills],
        races: &[],
        herd: 0,
    },
    processes: Processes { apis: 2, workers: 3, schedulers: 2 },
    redis: Persistence::Nothing,
    disk_bytes: None,
    worker_memory_mib: None,
    kills: None,
    spares_first: false,
    troubles: &[],
    clock: None,
    sabotage: None,
    demands: NOTHING_MORE,
    drain: Duration::from_secs(120),
};

/// Only what always holds.
pub(crate) const NOTHING_MORE: Demands = Demands {
    no_attempt_fenced: false,
    restart_within: None,
    ready_within: None,
    resumes_within: None,
    refuses_within: None,
    starts_within: None,
    accepts_without_redis: false,
    taken_over: 0,
    grows_mib: None,
    meets: &[],
    leaks_nothing: false,
    herd_within: None,
    clocks_differ: false,
    taken_over_within: None,
    races: 0,
    crash_points: "",
};
