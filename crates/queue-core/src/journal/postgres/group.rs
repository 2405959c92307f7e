//! Committers: tasks that take whatever waits, commit it as one group, and only then answer each caller.
//!
//! What arrives while a commit is on its way to the disk is the next group, so an idle journal answers after one fsync
//! and a busy one shares it among hundreds.

use std::{
    collections::{HashSet, VecDeque},
    ops::Range,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    sync::{
        Mutex, Notify,
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
    time::{Instant, sleep_until, timeout},
};

use super::{
    failure::Failure,
    transaction::{Database, Verb},
};
use crate::{ids::JobId, journal::JournalError, progress::step_aside};

/// Requests that wait for a committer; further callers wait for room. Bounds memory, not the group.
const WAITING_MAX: usize = 4_096;
/// Most requests of one transaction: bounds how long the first of them waits for the last.
const GROUP_MAX_REQUESTS: usize = 1_024;
/// Rows from which a transaction takes no further request: a bulk accept fills one by itself.
const GROUP_MAX_ROWS: usize = 4_096;
/// Bytes from which a transaction takes no further request: a message to Postgres is held in memory whole, on both sides.
const GROUP_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long a group waits to become as large as the one before it. An idle journal never waits.
const LINGER: Duration = Duration::from_micros(200);

/// A commit that takes longer goes on beside the next group: its answer is looked for while those behind it are told
/// that Postgres is away.
const COMMIT_LONG: Duration = Duration::from_secs(5);

/// How much of a group an input fills.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    /// Rows that it writes.
    pub(super) rows: usize,
    /// Bytes of its bodies.
    pub(super) bytes: usize,
}

/// A verb whose inputs are committed in groups.
pub(super) trait Grouped: Verb {
    /// How much of a group it fills.
    fn size(input: &Self::Input) -> Size;

    /// How long a group may wait for company when another one is being committed: large groups are cheaper.
    const PATIENCE: Duration = Duration::ZERO;

    /// The job whose turn it is: two inputs for one job are never in one group, so that the second sees the first.
    fn job(input: &Self::Input) -> Option<JobId>;
}

struct Asked<V: Verb> {
    input: V::Input,
    caller: oneshot::Sender<Result<V::Output, JournalError>>,
}

/// What waits, for whichever committer is free.
struct Waiting<V: Verb> {
    requests: mpsc::Receiver<Asked<V>>,
    /// Taken from the channel, but for a job that the group already had.
    deferred: VecDeque<Asked<V>>,
    /// Requests of the last group.
    last_group: usize,
    commits: Arc<Commits>,
}

/// The groups that are being committed.
#[derive(Default)]
struct Commits {
    count: AtomicUsize,
    /// One has ended.
    ended: Notify,
}

impl Commits {
    fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }
}

/// The way to the committers of one verb. They end with the last clone.
pub(super) struct Committers<V: Verb> {
    requests: mpsc::Sender<Asked<V>>,
}

impl<V: Verb> Clone for Committers<V> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

impl<V: Grouped> Committers<V> {
    /// Starts `tasks` committers.
    pub(super) fn start(database: &Database, tasks: usize) -> Self {
        let (requests, queue) = mpsc::channel(WAITING_MAX);
        let commits = Arc::default();
        let waiting = Waiting { requests: queue, deferred: VecDeque::new(), last_group: 0, commits };
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..tasks.max(1) {
            tokio::spawn(serve::<V>(database.clone(), waiting.clone()));
        }
        Self { requests }
    }

    /// Has `input` committed with whatever waits too, and returns its answer after the commit.
    pub(super) async fn submit(&self, input: V::Input) -> Result<V::Output, JournalError> {
        let ended = || JournalError::Unavailable("the journal's committers have ended".into());
        let (caller, answer) = oneshot::channel();
        self.requests.send(Asked { input, caller }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

async fn serve<V: Grouped>(database: Database, waiting: Arc<Mutex<Waiting<V>>>) {
    let commits = waiting.lock().await.commits.clone();
    loop {
        let group = waiting.lock().await.gather().await;
        if group.is_empty() {
            return;
        }
        let mut commit = Box::pin({
            let (database, commits) = (database.clone(), commits.clone());
            async move {
                commits.count.fetch_add(1, Ordering::Relaxed);
                // A defect costs one group, whose callers ask again, and not the committer.
                if AssertUnwindSafe(commit_group(&database, group)).catch_unwind().await.is_err() {
                    tracing::error!("a commit panicked: a defect");
                }
                commits.count.fetch_sub(1, Ordering::Relaxed);
                commits.ended.notify_one();
            }
        });
        // In this task, whose callers then are answered without a detour over another thread, unless it takes long.
        tokio::select! {
            biased;
            () = &mut commit => {}
            // Where Postgres is away, those behind it are told so now and not after it.
            _ = timeout(COMMIT_LONG, database.door.shut()) => {
                tokio::spawn(commit);
            }
        }
    }
}

impl<V: Grouped> Waiting<V> {
    /// Waits for the next group; empty when there will be none.
    async fn gather(&mut self) -> Vec<Asked<V>> {
        let mut group = Group::new();
        for asked in std::mem::take(&mut self.deferred) {
            self.deferred.extend(group.take(asked));
        }
        if group.asked.is_empty() {
            let Some(first) = self.requests.recv().await else { return Vec::new() };
            self.deferred.extend(group.take(first));
        }
        let waits_until = Instant::now() + LINGER;
        let patient_until = Instant::now() + V::PATIENCE;
        while group.has_room() && self.deferred.len() < GROUP_MAX_REQUESTS {
            match self.requests.try_recv() {
                Ok(asked) => self.deferred.extend(group.take(asked)),
                // Those who were answered just now are about to ask again: without them, every second group is small.
                Err(TryRecvError::Empty) if group.asked.len() < self.last_group && Instant::now() < waits_until => {
                    step_aside().await;
                }
                Err(TryRecvError::Empty) if Instant::now() < patient_until && self.commits.any() => {
                    tokio::select! {
                        asked = self.requests.recv() => match asked {
                            Some(asked) => self.deferred.extend(group.take(asked)),
                            None => break,
                        },
                        () = self.commits.ended.notified() => {}
                        () = sleep_until(patient_until) => break,
                    }
                }
                Err(_) => break,
            }
        }
        self.last_group = group.asked.len();
        group.asked
    }
}

struct Group<V: Verb> {
    asked: Vec<Asked<V>>,
    jobs: HashSet<JobId>,
    size: Size,
}

impl<V: Grouped> Group<V> {
    fn new() -> Self {
        Self { asked: Vec::new(), jobs: HashSet::new(), size: Size::default() }
    }

    fn has_room(&self) -> bool {
        self.asked.len() < GROUP_MAX_REQUESTS && self.size.rows < GROUP_MAX_ROWS && self.size.bytes < GROUP_MAX_BYTES
    }

    /// Adds a request, or gives it back when its job has its turn in this group, or there is no room.
    fn take(&mut self, asked: Asked<V>) -> Option<Asked<V>> {
        if !self.has_room() || V::job(&asked.input).is_some_and(|job| !self.jobs.insert(job)) {
            return Some(asked);
        }
        let size = V::size(&asked.input);
        self.size = Size { rows: self.size.rows + size.rows, bytes: self.size.bytes.saturating_add(size.bytes) };
        self.asked.push(asked);
        None
    }
}

/// Commits the group and answers it. One bad request must hurt only itself, so a group that was refused is halved
/// until the bad one is alone.
async fn commit_group<V: Verb>(database: &Database, group: Vec<Asked<V>>) {
    let (inputs, callers): (Vec<_>, Vec<_>) = group.into_iter().map(|asked| (asked.input, asked.caller)).unzip();
    let mut callers: Vec<_> = callers.into_iter().map(Some).collect();
    let mut parts: Vec<Range<usize>> = Vec::from([Range { start: 0, end: inputs.len() }]);
    while let Some(part) = parts.pop() {
        match database.commit::<V>(&inputs[part.clone()]).await {
            Ok(answers) => {
                for (caller, answer) in callers[part].iter_mut().zip(answers) {
                    send(caller, Ok(answer));
                }
            }
            Err(Failure::Refused(_)) if part.len() > 1 => {
                let middle = part.start + part.len() / 2;
                parts.extend([middle..part.end, part.start..middle]);
            }
            Err(failure) => {
                let error = failure.into_error();
                tracing::warn!(%error, requests = part.len(), "the journal did not commit");
                callers[part].iter_mut().for_each(|caller| send(caller, Err(error.clone())));
            }
        }
    }
}

fn send<T>(caller: &mut Option<oneshot::Sender<T>>, answer: T) {
    if let Some(caller) = caller.take() {
        // A caller that went away has no use for its answer; the write stands.
        let _ = caller.send(answer);
    }
}
