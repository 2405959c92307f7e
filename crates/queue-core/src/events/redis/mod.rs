//! Events across processes, over the messages of Redis.
//!
//! Events stay in the memory of the process that tells them, as with [`MemoryEvents`]. A process that wants those of a
//! job asks all others; whoever holds some answers with them and goes on telling until the interest expires. So a
//! stream of tokens that nobody watches never leaves its worker. Ends of jobs are told in batches, while anybody waits
//! for ends at all.
//!
//! Messages of Redis may be lost, and Redis may be away. Events then come late, or as a gap; nobody who publishes
//! notices, and who waits for the end of a job has to look at the journal from time to time. Every process is both
//! sides: `interests` is the telling one, `mirrors` the asking one, and one task each sends and receives.

mod inbox;
mod interests;
mod mirrors;
mod outbox;
mod wire;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, broadcast, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use uuid::Uuid;

use self::{
    interests::Interests,
    mirrors::Mirrors,
    wire::{Ask, Channels, Watch},
};
use super::{EventBody, Events, Progress, Subscription, memory::MemoryEvents};
use crate::{
    dispatcher::redis::{RedisConfig, link::Link},
    ids::JobId,
    time::Clock,
};

/// Longest wait of a new reader for what other processes hold; what comes later comes live.
const ANSWER_MAX: Duration = Duration::from_millis(100);
/// Longest wait for the progress of a job that another process runs: people wait for the answer.
const PROGRESS_MAX: Duration = Duration::from_millis(50);
/// Most ends that wait to be sent; more than a drain makes in two seconds. What does not fit is found in the journal.
const ENDS_WAITING_MAX: usize = 65_536;
/// Most asks that wait to be sent.
const ASKS_WAITING_MAX: usize = 8_192;

/// The events of many processes that share a Redis.
pub struct RedisEvents {
    hub: Arc<Hub>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for RedisEvents {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What was sent, to see what telling costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages of any kind.
    pub messages: usize,
    /// Messages with ends.
    pub ends: usize,
    /// Messages with events.
    pub answers: usize,
    /// Interests of other processes that are held now.
    pub interests: usize,
}

/// What the tasks share.
struct Hub {
    me: Uuid,
    channels: Channels,
    link: Link,
    /// What this process tells.
    own: MemoryEvents,
    interests: Mutex<Interests>,
    /// How many interests there are, so that a process whom nobody asks takes no lock.
    interested: AtomicUsize,
    /// Whether any other process waits for ends.
    ends_wanted: watch::Sender<bool>,
    ends: Mutex<Vec<JobId>>,
    reading: Mutex<Reading>,
    mirrored: AtomicUsize,
    asks: Mutex<Asks>,
    progress: Mutex<HashMap<JobId, Vec<oneshot::Sender<Option<Progress>>>>>,
    /// Wakes the sending task.
    send: Notify,
    /// Wakes the receiving task: whether ends are to be heard may have changed.
    listen: Notify,
    /// Whether messages can arrive.
    open: watch::Sender<bool>,
    failing: AtomicBool,
    messages: AtomicUsize,
    end_messages: AtomicUsize,
    answers: AtomicUsize,
}

/// What is watched here, and what of it this process itself tells.
#[derive(Default)]
struct Reading {
    mirrors: Mirrors,
    own: Interests,
}

/// What is to be asked.
#[derive(Default)]
struct Asks {
    watches: Vec<Watch>,
    progress: Vec<JobId>,
    ends: bool,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisEvents {
    /// Begins to send and to listen. Does not wait for Redis. `clock` numbers the events that this process tells.
    ///
    /// # Errors
    /// The address cannot be used; one line.
    pub fn open(config: &RedisConfig, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let link = Link::of(config).map_err(|error| format!("{}: {error}", config.address))?;
        let hub = Arc::new(Hub {
            me: Uuid::from_u128(rand::random()),
            channels: Channels::new(&config.prefix),
            link,
            own: MemoryEvents::with_clock(clock),
            interests: Mutex::default(),
            interested: AtomicUsize::new(0),
            ends_wanted: watch::channel(false).0,
            ends: Mutex::default(),
            reading: Mutex::default(),
            mirrored: AtomicUsize::new(0),
            asks: Mutex::default(),
            progress: Mutex::default(),
            send: Notify::new(),
            listen: Notify::new(),
            open: watch::channel(false).0,
            failing: AtomicBool::new(false),
            messages: AtomicUsize::new(0),
            end_messages: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
        });
        let inbox = tokio::spawn(inbox::run(hub.clone(), config.poll_every));
        let outbox = tokio::spawn(outbox::run(hub.clone()));
        Ok(Self { hub, tasks: [inbox, outbox] })
    }

    /// Waits, for a bounded time, until messages can arrive: what is told before is heard late.
    pub async fn wait_until_open(&self, patience: Duration) {
        let mut open = self.hub.open.subscribe();
        let _ = timeout(patience, open.wait_for(|open| *open)).await;
    }

    /// Waits until some other process has said that it waits for ends.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn ends_are_wanted(&self) {
        let mut wanted = self.hub.ends_wanted.subscribe();
        let _ = wanted.wait_for(|wanted| *wanted).await;
    }

    /// Waits until no other process waits for ends.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn ends_are_unwanted(&self) {
        let mut wanted = self.hub.ends_wanted.subscribe();
        let _ = wanted.wait_for(|wanted| !*wanted).await;
    }

    /// What was sent so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            messages: self.hub.messages.load(Ordering::Relaxed),
            ends: self.hub.end_messages.load(Ordering::Relaxed),
            answers: self.hub.answers.load(Ordering::Relaxed),
            interests: self.hub.interested.load(Ordering::Relaxed),
        }
    }
}

impl Hub {
    /// Gives the readers here what this process itself tells of a job.
    fn tell_own(&self, reading: &mut Reading, now: Instant) {
        while reading.own.has_more() {
            for told in reading.own.round(&self.own) {
                reading.own.settle(&told, true);
                if let Some(watch) = reading.mirrors.accept(self.me, told.piece, now) {
                    self.ask(reading, vec![watch], now);
                }
            }
        }
    }

    /// Asks everybody, this process included, for events.
    fn ask(&self, reading: &mut Reading, watches: Vec<Watch>, now: Instant) {
        {
            let mut asks = held(&self.asks);
            let room = ASKS_WAITING_MAX.saturating_sub(asks.watches.len());
            asks.watches.extend(watches.iter().copied().take(room));
        }
        self.send.notify_one();
        reading.own.hear(self.me, Ask { asker: self.me, watches, ..Ask::default() }, now);
    }

    /// Asks again for everything that is watched: what was said meanwhile may be lost.
    fn ask_for_all(&self, now: Instant) {
        let mut reading = held(&self.reading);
        let watches = reading.mirrors.watches();
        self.ask(&mut reading, watches, now);
        self.tell_own(&mut reading, now);
    }

    /// Renews what is still read, and forgets what is not.
    fn renew(&self, now: Instant) {
        {
            let mut reading = held(&self.reading);
            reading.mirrors.sweep();
            self.mirrored.store(reading.mirrors.len(), Ordering::Release);
            reading.own.expire(now);
        }
        self.ask_for_all(now);
        // Requests that were given up while they waited.
        held(&self.progress).retain(|_, waiting| {
            waiting.retain(|answer| !answer.is_closed());
            !waiting.is_empty()
        });
        if self.own.ends_are_wanted() {
            held(&self.asks).ends = true;
        }
        // Also when nobody waits any more.
        self.listen.notify_one();
    }

    fn hear_ask(&self, ask: Ask, now: Instant) {
        if ask.asker == self.me {
            return;
        }
        let mut interests = held(&self.interests);
        interests.hear(self.me, ask, now);
        self.count(&interests);
        if interests.has_more() {
            self.send.notify_one();
        }
    }

    fn expire(&self, now: Instant) {
        let mut interests = held(&self.interests);
        interests.expire(now);
        self.count(&interests);
    }

    fn count(&self, interests: &Interests) {
        self.interested.store(interests.len(), Ordering::Release);
        let wanted = interests.ends_are_wanted();
        self.ends_wanted.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
    }

    fn is_mirrored(&self, job: JobId) -> bool {
        self.mirrored.load(Ordering::Acquire) > 0 && held(&self.reading).mirrors.contains(job)
    }

    fn is_wanted(&self, job: JobId) -> bool {
        self.interested.load(Ordering::Acquire) > 0 && held(&self.interests).contains(job)
    }

    fn tell_end(&self, job: JobId) {
        if !*self.ends_wanted.borrow() {
            return;
        }
        let mut ends = held(&self.ends);
        if ends.len() < ENDS_WAITING_MAX {
            ends.push(job);
        }
        if ends.len() == 1 {
            self.send.notify_one();
        }
    }
}

#[async_trait]
impl Events for RedisEvents {
    fn publish(&self, job: JobId, body: EventBody) {
        let hub = &*self.hub;
        let (wanted, mirrored, ends) = (hub.is_wanted(job), hub.is_mirrored(job), body.is_end());
        hub.own.hold(job, body, wanted || mirrored);
        if mirrored {
            let mut reading = held(&hub.reading);
            reading.own.mark(job);
            hub.tell_own(&mut reading, Instant::now());
        }
        if wanted {
            held(&hub.interests).mark(job);
            hub.send.notify_one();
        }
        if ends {
            hub.tell_end(job);
        }
    }

    async fn subscribe(&self, job: JobId, after: Option<u64>) -> Subscription {
        let hub = &*self.hub;
        let watched = {
            let now = Instant::now();
            let mut reading = held(&hub.reading);
            let watched = reading.mirrors.watch(job);
            if let Some((true, _)) = watched {
                hub.mirrored.store(reading.mirrors.len(), Ordering::Release);
                hub.ask(&mut reading, vec![Watch { job, source: None, after: None }], now);
                hub.tell_own(&mut reading, now);
            }
            watched
        };
        if let Some((_, mut answered)) = watched {
            let _ = timeout(ANSWER_MAX, answered.wait_for(|answered| *answered)).await;
        }
        held(&hub.reading).mirrors.subscribe(job, after)
    }

    async fn progress(&self, job: JobId) -> Option<Progress> {
        let hub = &*self.hub;
        if let Some(known) = held(&hub.reading).mirrors.progress(job) {
            return known;
        }
        if let Some(Some(known)) = hub.own.look(job, |ring| (!ring.is_over()).then(|| ring.progress().cloned())) {
            return known;
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut asks = held(&hub.asks);
            if asks.progress.len() >= ASKS_WAITING_MAX {
                return None;
            }
            held(&hub.progress).entry(job).or_default().push(answer);
            asks.progress.push(job);
        }
        hub.send.notify_one();
        let answer = timeout(PROGRESS_MAX, answered).await;
        if answer.is_err() {
            hub.forget_closed(job);
        }
        answer.ok()?.ok()?
    }

    fn finished(&self) -> broadcast::Receiver<JobId> {
        let finished = self.hub.own.finished();
        self.hub.listen.notify_one();
        finished
    }
}

impl Hub {
    fn forget_closed(&self, job: JobId) {
        let mut waiting = held(&self.progress);
        if let Some(waiting_for) = waiting.get_mut(&job) {
            waiting_for.retain(|answer| !answer.is_closed());
            if waiting_for.is_empty() {
                waiting.remove(&job);
            }
        }
    }
}
