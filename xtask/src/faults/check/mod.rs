//! The checker: a pure function over histories and final tables. It knows nothing of the system but what it promises.

mod backups;
mod cases;
mod figures;
mod leaks;
mod races;
mod rules;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, path::Path, time::Duration};

use anyhow::Result;

use super::{
    history::{self, ClientEvent, Harm, InjectorEvent, Line, ProviderEvent, Store},
    scenario::Demands,
    tables::{self, Tables},
};
use cases::Cases;
pub(crate) use leaks::Leaks;

/// Everything that is known of a run.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    pub(crate) clients: Vec<Line<ClientEvent>>,
    pub(crate) provider: Vec<Line<ProviderEvent>>,
    pub(crate) injector: Vec<Line<InjectorEvent>>,
    pub(crate) tables: Tables,
}

impl Evidence {
    /// Reads the histories of a run; one with a gap is refused.
    pub(crate) fn read(folder: &Path, tables: Tables) -> Result<Self> {
        Ok(Self {
            clients: history::read(folder, history::CLIENTS)?,
            provider: history::read(folder, history::PROVIDER)?,
            injector: history::read(folder, history::INJECTOR)?,
            tables,
        })
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) rule: Rule,
    /// What was seen.
    pub(crate) seen: String,
}

/// The promises. I1 to I7 are those of `faults.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// I1: a 202 whose job is not in the journal.
    Lost,
    /// Still live when patience ended.
    NotDrained,
    /// I2: a job with more than one end.
    SettledTwice,
    /// A request that never had a good answer.
    Unanswered,
    /// One id for two jobs, or a job that nobody was told of.
    Identity,
    /// Another end than the job asked for.
    WrongEnd,
    /// I3: charges of a job.
    Charge,
    /// I4: the ledger against the provider's log.
    Ledger,
    /// I5: an end at an epoch lower than one handed out later.
    Epoch,
    /// I6: a call that was repeated although no worker had died.
    Duplicate,
    /// I7: a start before its time, or too many attempts.
    Early,
    /// A provider call after the job's end.
    CallAfterEnd,
    /// An attempt that was lost although its worker lived.
    Fenced,
    /// A job of a killed worker came back too late.
    SlowRestart,
    /// Something stands otherwise than whoever asked for it was told.
    Race,
    /// A backup that is called good and is not whole, or that nobody begins anew.
    Backup,
    /// A process took more memory than it may.
    Grown,
    /// Memory, keys or connections that become more and more.
    Leak,
    /// Something took longer than it may.
    Slow,
    /// A 202 while the journal was away.
    Premature,
    /// A refusal while only Redis was away.
    Refusing,
    /// A process that ended by itself.
    Died,
    /// A witness that contradicts itself, or a call of nobody's.
    Witness,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) kills: usize,
    pub(crate) worker_kills: usize,
    pub(crate) flushes: usize,
    pub(crate) redis_restarts: usize,
    pub(crate) postgres_stops: usize,
    /// Starts that ended at once because a store was away.
    pub(crate) refused_starts: usize,
    pub(crate) requests: usize,
    pub(crate) come_agains: usize,
    pub(crate) accepted: usize,
    pub(crate) succeeded: usize,
    pub(crate) dead: usize,
    /// Of them those that were called poison.
    pub(crate) convicted: usize,
    pub(crate) calls: usize,
    /// Attempts that the journal counts as lost.
    pub(crate) lost_attempts: usize,
    /// Jobs that the provider was asked more often than they needed.
    pub(crate) repeated: usize,
    /// Likewise, with more than one whole answer: paid more than once.
    pub(crate) paid_twice: usize,
    /// Ledger rows that say `maybe`.
    pub(crate) maybe: usize,
    /// Answers without a ledger row, because their worker was killed and Redis then forgot its leases.
    pub(crate) unrecorded: usize,
    /// Fewest calls that were under way when Redis forgot everything.
    pub(crate) under_way_at_flush: Option<usize>,
    /// Longest time until a call that died with its worker was made again: without and with outages of the stores.
    pub(crate) restart: Option<Restart>,
    pub(crate) restart_with_outages: Option<Restart>,
    /// Longest time in the load without a new call.
    pub(crate) silence: Duration,
    /// From the end of load and faults until no job was live.
    pub(crate) drain: Duration,
    /// Times that something else was done to stores and network.
    pub(crate) troubles: usize,
    /// Workers that stood still, and their jobs that others took over meanwhile.
    pub(crate) zombies: usize,
    pub(crate) taken_over: usize,
    /// Settles that were refused since the job had moved on.
    pub(crate) fenced: u64,
    /// Points at which a process crashed as it was told to.
    pub(crate) crash_points: BTreeSet<String>,
    /// From a request's sending to its 202, 99th percentile: while all was well, and while Redis was away.
    pub(crate) accept_p99: Option<Duration>,
    pub(crate) accept_p99_without_redis: Option<Duration>,
    /// Requests that were refused while only Redis was away.
    pub(crate) refused_without_redis: usize,
    /// Longest wait for a refusal while the journal was away.
    pub(crate) refusal: Option<Duration>,
    /// Longest time from a kill until the process was ready.
    pub(crate) ready: Option<Duration>,
    /// Longest time from a flush, or from the end of a trouble or an outage, to the next call.
    pub(crate) resumed: Option<Duration>,
    /// Longest time from a job's moment to its first call.
    pub(crate) late: Option<Duration>,
    /// Most that a process has grown, in KiB.
    pub(crate) growth_kib: u64,
    /// Workers that jobs ended.
    pub(crate) ended_by_jobs: usize,
    /// Of them those that ended themselves, since a handler did not yield.
    pub(crate) recycled: usize,
    /// Jobs that did not yield and were timed out.
    pub(crate) timed_out_held: usize,
    /// From the sending of a request of the herd to its 202, 99th percentile.
    pub(crate) herd_p99: Option<Duration>,
    /// Backups that are called good, and kills of whoever made one.
    pub(crate) good_backups: usize,
    pub(crate) kills_in_backups: usize,
    /// Longest time from such a kill until a backup was begun anew.
    pub(crate) backup_gap: Option<Duration>,
    /// Races: won by the cancel, by the pause, by the redrive; and by the job's end, by the claim, by the archive.
    pub(crate) races: (usize, usize),
    /// Keys in Redis when nothing was live any more.
    pub(crate) redis_keys: u64,
    /// What grows.
    pub(crate) leaks: Leaks,
    pub(crate) violations: Vec<Violation>,
}

/// How long a job waited after its worker had been killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Restart {
    pub(crate) gap: Duration,
    pub(crate) mark: String,
}

impl Report {
    /// Faults that were done.
    pub(crate) fn faults(&self) -> usize {
        let stores = self.flushes + self.redis_restarts + self.postgres_stops + self.troubles;
        self.kills + self.ended_by_jobs + self.zombies + self.crash_points.len() + stores
    }

    /// Violations of one promise.
    pub(crate) fn count(&self, rule: Rule) -> usize {
        self.violations.iter().filter(|violation| violation.rule == rule).count()
    }

    fn violate(&mut self, rule: Rule, seen: impl Into<String>) {
        self.violations.push(Violation { rule, seen: seen.into() });
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.seen)
    }
}

/// Judges a run.
pub(crate) fn check(evidence: &Evidence, demands: Demands) -> Report {
    let mut report = Report::default();
    let faults = Faults::of(&evidence.injector);
    count(evidence, &mut report);
    let cases = Cases::gather(evidence, &mut report);
    rules::requests(evidence, &cases, &mut report);
    for case in &cases.all {
        rules::judge(case, &faults, demands, &mut report);
    }
    rules::flushes(evidence, &cases, demands, &mut report);
    rules::totals(evidence, &mut report);
    rules::processes(evidence, &cases, &faults, &mut report);
    races::archives(evidence, &cases, demands, &mut report);
    backups::judge(evidence, demands, &mut report);
    figures::measure(evidence, &cases, &faults, &mut report);
    figures::demand(evidence, demands, &mut report);
    report.leaks = leaks::measure(evidence);
    leaks::demand(demands, &mut report);
    if let (Some(limit), Some(restart)) = (demands.restart_within, report.restart.clone())
        && restart.gap > limit
    {
        let seen = format!(
            "{} was started again {:.1} s after its worker was killed",
            restart.mark,
            restart.gap.as_secs_f64()
        );
        report.violate(Rule::SlowRestart, seen);
    }
    report
}

/// A kill is noted when the process is gone; what its callers and callees see of it, they see up to this much earlier
/// or later on a busy machine.
const SAME_MOMENT_US: u64 = 1_000_000;
/// The leases of a killed worker are reaped within this time: a session's life, and two rounds of the reaper.
const REAPED_AFTER_US: u64 = 17_000_000;

/// A stretch of a run, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    from: u64,
    to: u64,
}

/// When what was disturbed.
#[derive(Clone, Debug, Default)]
struct Faults {
    /// Kills of processes in which jobs run, and what makes others take one for dead.
    worker_kills: Vec<u64>,
    /// The same by the wall clock, in milliseconds.
    worker_kills_ms: Vec<i64>,
    /// How many of them the injector did, and no job.
    from_outside: usize,
    /// Moments at which Redis forgot everything.
    forgettings: Vec<u64>,
    /// Stores that were away, and troubles.
    outages: Vec<Stretch>,
}

/// What begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outage {
    Store(Store),
    Trouble(String),
}

impl Faults {
    fn of(lines: &[Line<InjectorEvent>]) -> Self {
        let mut faults = Self::default();
        let mut open: Vec<(Outage, u64)> = Vec::new();
        let mut severing = BTreeSet::new();
        let close = |faults: &mut Self, open: &mut Vec<(Outage, u64)>, what: &Outage, to| {
            if let Some(at) = open.iter().position(|(away, _)| away == what) {
                faults.outages.push(Stretch { from: open.swap_remove(at).1, to });
            }
        };
        for line in lines {
            match &line.event {
                InjectorEvent::Killed { works: true, .. }
                | InjectorEvent::Crashed { works: true, .. }
                | InjectorEvent::Ended { works: true, .. }
                | InjectorEvent::Frozen { .. } => faults.worker_may_die(line),
                InjectorEvent::Flushed => faults.forgettings.push(line.mono_us),
                InjectorEvent::Troubled { trouble, harm } => {
                    open.push((Outage::Trouble(trouble.clone()), line.mono_us));
                    match harm {
                        Harm::Nothing => {}
                        Harm::Forgets => faults.forgettings.push(line.mono_us),
                        Harm::Severs => {
                            faults.worker_may_die(line);
                            severing.insert(trouble.clone());
                        }
                    }
                }
                InjectorEvent::Healed { trouble } => {
                    if severing.remove(trouble) {
                        faults.worker_may_die(line);
                    }
                    close(&mut faults, &mut open, &Outage::Trouble(trouble.clone()), line.mono_us);
                }
                InjectorEvent::Down { store } => {
                    open.push((Outage::Store(*store), line.mono_us));
                    faults.forgettings.extend((*store == Store::Redis).then_some(line.mono_us));
                }
                InjectorEvent::Up { store } => close(&mut faults, &mut open, &Outage::Store(*store), line.mono_us),
                _ => {}
            }
        }
        faults.outages.extend(open.into_iter().map(|(_, from)| Stretch { from, to: u64::MAX }));
        faults
    }

    fn worker_may_die(&mut self, line: &Line<InjectorEvent>) {
        self.from_outside += usize::from(!matches!(line.event, InjectorEvent::Ended { .. }));
        self.worker_kills.push(line.mono_us);
        self.worker_kills_ms.push(line.wall_ms);
    }

    /// Kills of workers in a stretch.
    fn kills_in(&self, stretch: Stretch) -> usize {
        self.worker_kills.iter().filter(|at| (stretch.from..=stretch.to).contains(at)).count()
    }

    /// Kills of workers until a moment of the wall clock.
    fn kills_until(&self, ms: i64) -> usize {
        self.worker_kills_ms.iter().filter(|at| **at <= ms).count()
    }

    /// Kills of workers in a stretch whose leases Redis forgot before anybody could find them expired: who ran there is
    /// known to nobody.
    fn forgotten_kills_in(&self, stretch: Stretch) -> usize {
        let forgotten = |kill: &u64| {
            let unseen = Stretch { from: kill.saturating_sub(SAME_MOMENT_US), to: kill + REAPED_AFTER_US };
            self.forgettings.iter().any(|at| (unseen.from..=unseen.to).contains(at))
        };
        let kills = self.worker_kills.iter().filter(|at| (stretch.from..=stretch.to).contains(at));
        kills.filter(|kill| forgotten(kill)).count()
    }

    /// How much of a stretch the stores were away.
    fn outage_in(&self, stretch: Stretch) -> u64 {
        let overlap = |outage: &Stretch| outage.to.min(stretch.to).saturating_sub(outage.from.max(stretch.from));
        self.outages.iter().map(overlap).sum()
    }
}

/// The figures that need no judgement.
fn count(evidence: &Evidence, report: &mut Report) {
    let injected = |wanted: fn(&InjectorEvent) -> bool| evidence.injector.iter().filter(|l| wanted(&l.event)).count();
    report.kills = injected(|event| matches!(event, InjectorEvent::Killed { .. }));
    report.worker_kills = injected(|event| matches!(event, InjectorEvent::Killed { works: true, .. }));
    report.zombies = injected(|event| matches!(event, InjectorEvent::Frozen { .. }));
    report.troubles = injected(|event| matches!(event, InjectorEvent::Troubled { .. }));
    report.flushes = injected(|event| matches!(event, InjectorEvent::Flushed));
    report.redis_restarts = injected(|event| matches!(event, InjectorEvent::Up { store: Store::Redis }));
    report.postgres_stops = injected(|event| matches!(event, InjectorEvent::Up { store: Store::Postgres }));
    report.come_agains =
        evidence.clients.iter().filter(|line| matches!(line.event, ClientEvent::ComeAgain { .. })).count();
    let standing = |wanted| evidence.tables.jobs.iter().filter(|job| job.standing == wanted).count();
    (report.succeeded, report.dead) = (standing(tables::SUCCEEDED), standing(tables::DEAD));
    report.lost_attempts = evidence.tables.attempts.iter().filter(|attempt| attempt.outcome == "lost").count();
    report.maybe = evidence.tables.spend.iter().filter(|spend| spend.billed == "maybe").count();
    report.silence = silence(evidence);
    let at =
        |wanted: fn(&InjectorEvent) -> bool| evidence.injector.iter().find(|l| wanted(&l.event)).map(|l| l.mono_us);
    let rest_began = at(|event| matches!(event, InjectorEvent::FaultsEnded));
    let drained = at(|event| matches!(event, InjectorEvent::Drained { .. }));
    if let (Some(from), Some(to)) = (rest_began, drained) {
        report.drain = Duration::from_micros(to.saturating_sub(from));
    }
}

/// The longest time between two calls while the load lasted.
fn silence(evidence: &Evidence) -> Duration {
    let edge = |wanted: &ClientEvent| evidence.clients.iter().find(|l| l.event == *wanted).map(|l| l.mono_us);
    let (Some(from), Some(to)) = (edge(&ClientEvent::LoadBegan), edge(&ClientEvent::LoadEnded)) else {
        return Duration::ZERO;
    };
    let began = evidence.provider.iter().filter(|line| matches!(line.event, ProviderEvent::Began { .. }));
    let calls = began.map(|line| line.mono_us).filter(|at| (from..=to).contains(at));
    let mut longest = 0;
    let mut before = from;
    for at in calls.chain([to]) {
        longest = longest.max(at - before);
        before = at;
    }
    Duration::from_micros(longest)
}
