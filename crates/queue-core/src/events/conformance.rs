//! What all events must do, written against the seam only.
//!
//! A store joins with one line in its tests: `queue_core::events_conformance!(its_fixture());`, where the expression
//! makes a [`Fixture`]. Each case below becomes one test of that store.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a suite fails by panicking; its cases' names say it all

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::broadcast::error::RecvError, time::timeout};

use super::{EventBody, Events, JobEvent, Progress, Subscription};
use crate::{error::ErrorClass, ids::JobId, state::State};

/// Longest wait for an event: a case that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events under test: two processes, or one that is both.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Where a worker tells.
    fn publisher(&self) -> Arc<dyn Events>;

    /// Where people watch.
    fn reader(&self) -> Arc<dyn Events>;

    /// Lets a moment pass on the clock that numbers events.
    fn pass_a_moment(&self);

    /// Waits until the publisher knows that ends are waited for. In memory it always does.
    async fn ends_are_wanted(&self) {}
}

/// Makes one test of every case: `events_conformance!(a_fresh_fixture())`.
#[macro_export]
macro_rules! events_conformance {
    ($fixture:expr) => {
        $crate::events_conformance! { @cases $fixture;
            a_reader_sees_what_was_told_and_what_is_told, every_kind_of_event_arrives_as_it_was_told,
            a_reader_goes_on_where_it_stopped, readers_do_not_disturb_each_other, a_number_that_was_never_given_is_a_gap,
            what_is_no_longer_held_is_a_gap, a_slow_reader_can_catch_up, numbers_grow_over_attempts,
            progress_is_the_last_of_the_last_attempt, the_end_of_a_job_that_nobody_watched_is_told,
            a_watched_job_tells_its_states, ends_come_by_the_thousand;
        }
    };
    (@cases $fixture:expr; $($case:ident),+;) => {
        $(
            #[tokio::test]
            async fn $case() {
                let fixture = $fixture;
                $crate::events::conformance::$case(&fixture).await;
            }
        )+
    };
}

fn token(text: &str) -> EventBody {
    EventBody::Token { attempt: 1, step: "chat".into(), text: text.into() }
}

fn progress(done: u32) -> EventBody {
    EventBody::Progress { done, total: 3, step: "map".into() }
}

/// One who reads as the API does: what closes or runs ahead is subscribed to again.
pub struct Follower {
    events: Arc<dyn Events>,
    job: JobId,
    subscription: Subscription,
    replayed: usize,
    position: Option<u64>,
    /// Gaps that it was told of.
    pub gaps: usize,
}

impl Follower {
    pub async fn of(events: Arc<dyn Events>, job: JobId, after: Option<u64>) -> Self {
        let subscription = events.subscribe(job, after).await;
        let gaps = usize::from(subscription.gap);
        Self { events, job, subscription, replayed: 0, position: after, gaps }
    }

    /// The next event, however long it takes within reason.
    pub async fn next(&mut self) -> Arc<JobEvent> {
        let event = timeout(PATIENCE, self.find()).await.unwrap();
        self.position = Some(event.sequence);
        event
    }

    async fn find(&mut self) -> Arc<JobEvent> {
        loop {
            if let Some(event) = self.subscription.replay.get(self.replayed) {
                self.replayed += 1;
                return event.clone();
            }
            match self.subscription.live.recv().await {
                Ok(event) => return event,
                Err(RecvError::Lagged(_) | RecvError::Closed) => {
                    self.subscription = self.events.subscribe(self.job, self.position).await;
                    self.replayed = 0;
                    self.gaps += usize::from(self.subscription.gap);
                }
            }
        }
    }

    /// The next events.
    pub async fn take(&mut self, count: usize) -> Vec<Arc<JobEvent>> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    /// The texts of the next tokens.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let events = self.take(count).await.into_iter();
        events
            .map(|event| match &event.body {
                EventBody::Token { text, .. } => text.clone(),
                other => panic!("a token, not {other:?}"),
            })
            .collect()
    }
}

pub async fn a_reader_sees_what_was_told_and_what_is_told(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    publisher.publish(job, token("a"));
    publisher.publish(job, token("b"));
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    assert_eq!(reader.texts(2).await, ["a", "b"]);
    publisher.publish(job, token("c"));
    publisher.publish(JobId::generate(), token("of another job"));
    publisher.publish(job, token("d"));
    assert_eq!(reader.texts(2).await, ["c", "d"]);
    assert_eq!(reader.gaps, 0);

    let job = JobId::generate();
    let mut early = Follower::of(fixture.reader(), job, None).await;
    publisher.publish(job, token("first"));
    assert_eq!(early.texts(1).await, ["first"]);
    assert_eq!(early.gaps, 0);
}

pub async fn every_kind_of_event_arrives_as_it_was_told(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    let told = [
        EventBody::AttemptStarted { attempt: 7 },
        EventBody::Token { attempt: 7, step: "map/0003".into(), text: "\u{1f30a} \"quoted\"\n\0".into() },
        progress(2),
        EventBody::ModelSwitched {
            attempt: 7,
            step: "map/0003".into(),
            from: "a".into(),
            to: "b:c".into(),
            class: ErrorClass::Rate,
        },
        EventBody::State { state: State::Scheduled },
        EventBody::AttemptStarted { attempt: 8 },
        EventBody::State { state: State::Succeeded },
    ];
    told.iter().for_each(|body| publisher.publish(job, body.clone()));
    let seen: Vec<_> = reader.take(told.len()).await.iter().map(|event| event.body.clone()).collect();
    assert_eq!(seen, told);
}

pub async fn a_reader_goes_on_where_it_stopped(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    for text in ["a", "b", "c"] {
        publisher.publish(job, token(text));
    }
    let seen = Follower::of(fixture.reader(), job, None).await.take(3).await;
    assert!(seen.is_sorted_by(|one, next| one.sequence < next.sequence), "{seen:?}");
    let mut rest = Follower::of(fixture.reader(), job, Some(seen[1].sequence)).await;
    assert_eq!((rest.texts(1).await, rest.gaps), (vec!["c".to_owned()], 0));
    let mut end = Follower::of(fixture.reader(), job, Some(seen[2].sequence)).await;
    publisher.publish(job, token("d"));
    for reader in [&mut rest, &mut end] {
        assert_eq!((reader.texts(1).await, reader.gaps), (vec!["d".to_owned()], 0));
    }
}

pub async fn readers_do_not_disturb_each_other(fixture: &dyn Fixture) {
    let (publisher, jobs) = (fixture.publisher(), [JobId::generate(), JobId::generate()]);
    let mut readers = Vec::new();
    for job in [jobs[0], jobs[1], jobs[0]] {
        readers.push(Follower::of(fixture.reader(), job, None).await);
    }
    publisher.publish(jobs[0], token("one"));
    publisher.publish(jobs[1], token("two"));
    assert_eq!(readers.pop().unwrap().texts(1).await, ["one"]);
    assert_eq!(readers.pop().unwrap().texts(1).await, ["two"]);
    publisher.publish(jobs[0], token("three"));
    assert_eq!(readers.pop().unwrap().texts(2).await, ["one", "three"]);
}

pub async fn a_number_that_was_never_given_is_a_gap(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    publisher.publish(job, token("a"));
    let first = Follower::of(fixture.reader(), job, None).await.next().await.sequence;
    for never in [1, first + (1 << 40)] {
        let mut reader = Follower::of(fixture.reader(), job, Some(never)).await;
        assert_eq!((reader.texts(1).await, reader.gaps), (vec!["a".to_owned()], 1), "{never}");
    }
}

pub async fn what_is_no_longer_held_is_a_gap(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    for number in 0..10_000 {
        publisher.publish(job, token(&number.to_string()));
    }
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    let first: usize = reader.texts(1).await[0].parse().unwrap();
    assert!(reader.gaps == 1 && first > 0, "{first}");
    let rest: Vec<usize> = reader.texts(9_999 - first).await.iter().map(|text| text.parse().unwrap()).collect();
    assert!(rest.iter().copied().eq(first + 1..10_000) && reader.gaps == 1, "all that is held, in order");
}

pub async fn a_slow_reader_can_catch_up(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    // More than wait for a reader, fewer than are held.
    for number in 0..3_000 {
        publisher.publish(job, token(&number.to_string()));
    }
    let numbers: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    assert!(reader.texts(3_000).await == numbers && reader.gaps == 0);
}

pub async fn numbers_grow_over_attempts(fixture: &dyn Fixture) {
    let (first, second, job) = (fixture.publisher(), fixture.reader(), JobId::generate());
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    let mut seen = Vec::new();
    for attempt in 1..=4 {
        // Attempts take turns between two workers; the second is the process where people watch.
        let worker = if attempt % 2 == 1 { &first } else { &second };
        let last = if attempt == 4 { State::Dead } else { State::Ready };
        // No job is settled, handed on and begun again within a millisecond.
        fixture.pass_a_moment();
        worker.publish(job, EventBody::AttemptStarted { attempt });
        worker.publish(job, token("x"));
        worker.publish(job, EventBody::State { state: last });
        seen.extend(reader.take(3).await);
    }
    assert!(seen.is_sorted_by(|one, next| one.sequence < next.sequence), "{seen:?}");
    let attempts = seen.iter().filter(|event| matches!(event.body, EventBody::AttemptStarted { .. }));
    assert_eq!((attempts.count(), reader.gaps), (4, 0));
}

/// The progress, asked for until there is an answer: one ask waits for a bounded time, which a busy machine may need.
async fn asked(reader: &Arc<dyn Events>, job: JobId) -> Option<Progress> {
    let answered = async {
        loop {
            match reader.progress(job).await {
                None => tokio::task::yield_now().await,
                found => return found,
            }
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_default()
}

pub async fn progress_is_the_last_of_the_last_attempt(fixture: &dyn Fixture) {
    let (publisher, reader, job) = (fixture.publisher(), fixture.reader(), JobId::generate());
    assert_eq!(reader.progress(job).await, None);
    publisher.publish(job, EventBody::AttemptStarted { attempt: 1 });
    publisher.publish(job, progress(1));
    publisher.publish(job, progress(2));
    // More than are held.
    for _ in 0..5_000 {
        publisher.publish(job, token("x"));
    }
    let second = Some(Progress { done: 2, total: 3, step: "map".into() });
    assert_eq!(asked(&reader, job).await, second);
    let mut watch = Follower::of(reader.clone(), job, None).await;
    assert_eq!(asked(&reader, job).await, second, "the same while it is watched");
    publisher.publish(job, EventBody::AttemptStarted { attempt: 2 });
    while watch.next().await.body != (EventBody::AttemptStarted { attempt: 2 }) {}
    assert_eq!(reader.progress(job).await, None);
}

pub async fn the_end_of_a_job_that_nobody_watched_is_told(fixture: &dyn Fixture) {
    let (publisher, reader) = (fixture.publisher(), fixture.reader());
    let mut finished = reader.finished();
    fixture.ends_are_wanted().await;
    for state in [State::Succeeded, State::Dead, State::Cancelled] {
        let job = JobId::generate();
        publisher.publish(JobId::generate(), EventBody::State { state: State::Ready });
        publisher.publish(job, EventBody::State { state });
        assert_eq!(timeout(PATIENCE, finished.recv()).await.unwrap().unwrap(), job);
    }
}

pub async fn a_watched_job_tells_its_states(fixture: &dyn Fixture) {
    let (publisher, job) = (fixture.publisher(), JobId::generate());
    let mut reader = Follower::of(fixture.reader(), job, None).await;
    // What comes before it is no sign that the publisher knows of the reader; from here on it does.
    publisher.publish(job, token("x"));
    reader.next().await;
    publisher.publish(job, EventBody::State { state: State::Ready });
    assert_eq!(reader.next().await.body, EventBody::State { state: State::Ready });
}

pub async fn ends_come_by_the_thousand(fixture: &dyn Fixture) {
    let (publisher, reader) = (fixture.publisher(), fixture.reader());
    let mut finished = reader.finished();
    fixture.ends_are_wanted().await;
    let jobs: Vec<_> = (0..10_000).map(|_| JobId::generate()).collect();
    for job in &jobs {
        publisher.publish(*job, EventBody::State { state: State::Succeeded });
    }
    for job in &jobs {
        assert_eq!(timeout(PATIENCE, finished.recv()).await.unwrap().unwrap(), *job);
    }
}
