//! Ticks become jobs, once: whoever dies where, however many look, whatever the run before does.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use queue_core::{
    ids::{JobId, Name, ScheduleId},
    journal::{Accepted, JobFilter, JournalError},
    schedule::{
        Added, Backfill, ChangedSchedule, Missed, MissedPolicy, ON_TIME_MS, Overlap, Progress, Refusal, Run, Schedule,
        Schedules, Settings, Submits, Submitted, When, jobs_of,
    },
    state::Standing,
    time::{Clock, Timestamp},
};
use tokio_util::sync::CancellationToken;

use super::{NOW, Scene};
use crate::cron::Cron;

/// Accepts jobs under the key of their tick, as the API's does, and answers what a test wants instead.
#[derive(Default)]
struct Door {
    scene: Option<queue_core::stores::Stores>,
    answers: Mutex<Vec<Submitted>>,
    asked: AtomicUsize,
}

#[async_trait]
impl Submits for Door {
    async fn submit(&self, run: Run<'_>) -> Submitted {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(answer) = self.answers.lock().unwrap().pop() {
            return answer;
        }
        let stores = self.scene.as_ref().unwrap();
        let mut job = super::job_at(run.now);
        job.tenant = run.schedule.tenant.clone();
        job.batch_id = Some(jobs_of(run.schedule.id));
        job.tags = vec![format!("tick:{}", run.tick)];
        job.key_id = Some(run.key_id().clone());
        job.idempotency = Some(run.idempotency());
        let id = job.id;
        match stores.journal.accept(vec![job]).await.unwrap().remove(0) {
            Accepted::New => Submitted::Job(id),
            Accepted::Replayed(first) => Submitted::Job(first),
            other => panic!("{other:?}"),
        }
    }
}

struct Stage {
    scene: Scene,
    door: Arc<Door>,
}

impl Stage {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let door = Arc::new(Door { scene: Some(scene.stores.clone()), ..Door::default() });
        Self { scene, door }
    }

    /// A schedule that is due every minute, from a minute after now.
    async fn schedule(&self, change: impl FnOnce(&mut Schedule)) -> ScheduleId {
        let now = self.scene.clock.now();
        let mut schedule = Schedule {
            id: ScheduleId::generate(),
            tenant: "acme".into(),
            name: Name::new(format!("s-{}", JobId::generate())),
            key_id: "abcd1234".into(),
            template: "{}".into(),
            settings: Settings {
                when: When::Every { every_ms: 60_000, from: now },
                overlap: Overlap::Allow,
                missed: Missed::default(),
                paused: false,
                reason: None,
                description: None,
            },
            progress: Progress::from(now),
            version: 1,
            generation: 1,
            beat: 0,
            due_at: None,
            created_at: now,
        };
        change(&mut schedule);
        schedule.due_at = schedule.due(&schedule.settings.when.ticks().unwrap());
        let id = schedule.id;
        assert_eq!(self.scene.stores.schedules.add_schedule(schedule).await.unwrap(), Added::New);
        id
    }

    fn cron(&self) -> Cron {
        self.cron_over(self.scene.stores.schedules.clone())
    }

    /// A scheduler whose store is this one.
    fn cron_over(&self, schedules: Arc<dyn Schedules>) -> Cron {
        let stores = queue_core::stores::Stores { schedules, ..self.scene.stores.clone() };
        Cron { stores, submits: self.door.clone(), shutdown: CancellationToken::new() }
    }

    /// Time passes, and a scheduler looks.
    async fn after(&self, ms: i64) -> usize {
        self.scene.clock.advance_ms(ms);
        self.cron().once().await.unwrap()
    }

    async fn row(&self, id: ScheduleId) -> Schedule {
        self.scene.stores.schedules.schedule(id).await.unwrap().unwrap()
    }

    /// The ticks of a schedule's jobs in seconds since the test began, oldest first, each with how it stands.
    async fn runs(&self, id: ScheduleId) -> Vec<(i64, Standing)> {
        let filter = JobFilter { batch_id: Some(jobs_of(id)), limit: 100, ..JobFilter::default() };
        let jobs = self.scene.stores.reads.list(&filter).await.unwrap().jobs;
        let mut runs: Vec<_> = jobs
            .iter()
            .map(|job| {
                let tick: Timestamp = job.tags[0].strip_prefix("tick:").unwrap().parse().unwrap();
                ((tick.0 - NOW.0) / 1_000, job.standing)
            })
            .collect();
        runs.sort_unstable_by_key(|(tick, _)| *tick);
        runs
    }

    async fn ticks(&self, id: ScheduleId) -> Vec<i64> {
        self.runs(id).await.into_iter().map(|(tick, _)| tick).collect()
    }
}

#[tokio::test]
async fn each_tick_becomes_one_job_and_none_comes_early() {
    let stage = Stage::new().await;
    let id = stage.schedule(|_| {}).await;
    assert_eq!(stage.after(59_999).await, 0);
    assert_eq!(stage.ticks(id).await, [0_i64; 0]);
    assert_eq!(stage.after(1).await, 1);
    assert_eq!(stage.after(0).await, 0, "it is not due any more");
    assert_eq!(stage.after(60_000).await, 1);
    assert_eq!(stage.ticks(id).await, [60, 120]);
    let row = stage.row(id).await;
    assert_eq!((row.progress.counts.submitted, row.progress.cursor), (2, NOW.plus_ms(120_000)));
    assert_eq!(row.due_at, Some(NOW.plus_ms(180_000)));
    assert_eq!(row.version, 1, "its tag is the people's");
    let once = stage.schedule(|one| one.settings.when = When::Once { at: NOW.plus_ms(125_000) }).await;
    stage.after(5_000).await;
    assert_eq!((stage.ticks(once).await, stage.row(once).await.due_at), (vec![125], None));
}

/// A store that dies at a verb, before or after it was done.
struct Dies {
    inner: Arc<dyn Schedules>,
    after: bool,
}

#[async_trait]
impl Schedules for Dies {
    async fn store_time(&self) -> Result<Timestamp, JournalError> {
        self.inner.store_time().await
    }
    async fn add_schedule(&self, schedule: Schedule) -> Result<Added, JournalError> {
        self.inner.add_schedule(schedule).await
    }
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, JournalError> {
        self.inner.schedule(id).await
    }
    async fn schedules(
        &self,
        tenant: Option<&Name>,
        name: Option<&Name>,
        behind: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError> {
        self.inner.schedules(tenant, name, behind, limit).await
    }
    async fn change_schedule(&self, schedule: Schedule) -> Result<ChangedSchedule, JournalError> {
        self.inner.change_schedule(schedule).await
    }
    async fn drop_schedule(&self, id: ScheduleId) -> Result<bool, JournalError> {
        self.inner.drop_schedule(id).await
    }
    async fn claim_schedules(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Schedule>, JournalError> {
        self.inner.claim_schedules(now, until, limit).await
    }
    async fn advance_schedule(
        &self,
        id: ScheduleId,
        beat: i64,
        progress: Progress,
        due_at: Option<Timestamp>,
    ) -> Result<bool, JournalError> {
        if self.after {
            self.inner.advance_schedule(id, beat, progress, due_at).await?;
        }
        Err(JournalError::Unavailable("it died here".into()))
    }
}

#[tokio::test]
async fn whoever_dies_between_accept_and_cursor_leaves_one_job() {
    for after in [false, true] {
        let stage = Stage::new().await;
        let id = stage.schedule(|one| one.settings.overlap = Overlap::Skip).await;
        stage.scene.clock.advance_ms(60_000);
        let dies = Dies { inner: stage.scene.stores.schedules.clone(), after };
        stage.cron_over(Arc::new(dies)).once().await.unwrap();
        assert_eq!(stage.ticks(id).await, [60], "it was accepted");
        assert_eq!(stage.row(id).await.progress.counts.submitted, u64::from(after));
        if !after {
            assert_eq!(stage.after(0).await, 0, "whoever holds it may live");
        }
        stage.after(10_000).await;
        assert_eq!(stage.ticks(id).await, [60], "and is not accepted again");
        let row = stage.row(id).await;
        assert_eq!((row.progress.counts.submitted, row.progress.cursor), (1, NOW.plus_ms(60_000)));
        assert!(row.progress.last_job.is_some(), "the job of whoever died is the run before");
        stage.after(50_000).await;
        assert_eq!(stage.ticks(id).await, [60], "it has not ended: the next tick is let go");
        assert_eq!(stage.row(id).await.progress.counts.overlapped, 1);
    }
}

#[tokio::test]
async fn two_that_meet_at_a_tick_get_the_same_job() {
    let stage = Stage::new().await;
    let id = stage.schedule(|_| {}).await;
    stage.scene.clock.advance_ms(60_000);
    // Both have seen the row before either claims: the worst that a claim can do.
    let row = stage.row(id).await;
    let now = stage.scene.clock.now();
    let [first, second] = [stage.cron(), stage.cron()];
    let both = tokio::join!(first.deal_with(row.clone(), now), second.deal_with(row, now));
    assert_eq!(
        [both.0.is_ok(), both.1.is_ok()].iter().filter(|done| **done).count(),
        0,
        "the claim ends with the tick"
    );
    assert_eq!(stage.door.asked.load(Ordering::SeqCst), 2);
    assert_eq!(stage.ticks(id).await, [60]);
    let row = stage.row(id).await;
    assert_eq!((row.progress.counts.submitted, row.beat), (1, 1));
}

#[tokio::test]
async fn a_run_that_has_not_ended_meets_the_next_tick() {
    let live = Standing::Live;
    for (overlap, runs) in [
        (Overlap::Skip, vec![(60, live)]),
        (Overlap::Queue, vec![(60, live), (120, live)]),
        (Overlap::Cancel, vec![(60, Standing::Cancelled), (120, live)]),
        (Overlap::Allow, vec![(60, live), (120, live)]),
    ] {
        let stage = Stage::new().await;
        let id = stage.schedule(|one| one.settings.overlap = overlap).await;
        stage.after(60_000).await;
        let first = stage.row(id).await.progress.last_job.unwrap();
        stage.after(60_000).await;
        assert_eq!(stage.runs(id).await, runs, "{overlap:?}");
        assert_eq!(stage.row(id).await.progress.counts.overlapped, u64::from(overlap == Overlap::Skip));
        let row = stage.scene.row(first).await;
        if overlap == Overlap::Cancel {
            assert_eq!(row.cancel_reason.as_deref(), Some("the next run of its schedule has begun"));
            continue;
        }
        // It ends, and what comes then is submitted whatever the policy.
        stage.scene.settle(first, row.epoch).await;
        stage.after(60_000).await;
        assert_eq!(stage.ticks(id).await.last(), Some(&180), "{overlap:?}");
    }
}

#[tokio::test]
async fn ticks_that_nobody_saw_are_missed_as_each_policy_says() {
    for (policy, window_s, ticks, missed) in [
        (MissedPolicy::Skip, 3_600, vec![], 10),
        (MissedPolicy::Latest, 3_600, vec![1_200], 9),
        (MissedPolicy::All, 3_600, (1..=10).map(|tick| tick * 120).collect(), 0),
        (MissedPolicy::All, 300, vec![1_080, 1_200], 8),
    ] {
        let stage = Stage::new().await;
        let every_two_minutes = When::Every { every_ms: 2 * ON_TIME_MS, from: NOW };
        let missed_so = Missed { policy, window_ms: window_s * 1_000 };
        let id = stage.schedule(|one| (one.settings.when, one.settings.missed) = (every_two_minutes, missed_so)).await;
        // Nobody has looked since, and the last tick is older than what is on time.
        stage.after(1_290_000).await;
        let row = stage.row(id).await;
        assert_eq!((stage.ticks(id).await, row.progress.counts.missed), (ticks, missed), "{policy:?} {window_s}");
        assert_eq!(row.progress.counts.submitted as usize, stage.ticks(id).await.len());
    }
}

#[tokio::test]
async fn what_is_paused_lets_its_ticks_go_and_goes_on_from_the_resume() {
    let stage = Stage::new().await;
    let id = stage.schedule(|_| {}).await;
    let pause = async |paused: bool| {
        let mut row = stage.row(id).await;
        row.settings.paused = paused;
        if !paused {
            row.progress.cursor = stage.scene.clock.now();
        }
        row.due_at = row.due(&row.settings.when.ticks().unwrap());
        assert_eq!(stage.scene.stores.schedules.change_schedule(row).await.unwrap(), ChangedSchedule::Done);
    };
    pause(true).await;
    assert_eq!(stage.after(150_000).await, 0);
    pause(false).await;
    assert_eq!(stage.after(0).await, 0);
    stage.after(30_000).await;
    assert_eq!((stage.ticks(id).await, stage.row(id).await.progress.counts.missed), (vec![180], 0));
}

#[tokio::test]
async fn a_schedule_that_is_deleted_while_it_is_due_submits_nothing() {
    let stage = Stage::new().await;
    let [gone, stays] = [stage.schedule(|_| {}).await, stage.schedule(|_| {}).await];
    stage.scene.clock.advance_ms(60_000);
    assert!(stage.scene.stores.schedules.drop_schedule(gone).await.unwrap());
    assert_eq!(stage.after(0).await, 1);
    assert_eq!((stage.ticks(gone).await, stage.ticks(stays).await), (vec![], vec![60]));
}

#[tokio::test]
async fn what_is_refused_is_seen_and_what_may_pass_is_tried_again() {
    let stage = Stage::new().await;
    let id = stage.schedule(|_| {}).await;
    let refusal = |code: &str| Refusal { code: code.into(), detail: "no".into() };
    // Popped from the end.
    *stage.door.answers.lock().unwrap() =
        vec![Submitted::Refused(refusal("too-dear")), Submitted::Later(refusal("maintenance"), 2_000)];
    stage.after(60_000).await;
    let row = stage.row(id).await;
    let error = row.progress.error.unwrap();
    assert_eq!((&*error.code, error.retries, error.tick), ("maintenance", true, NOW.plus_ms(60_000)));
    assert_eq!((row.progress.cursor, row.due_at), (NOW, Some(NOW.plus_ms(62_000))), "the tick is not dealt with");
    assert_eq!(stage.after(1_999).await, 0);
    assert_eq!(stage.after(1).await, 1);
    let row = stage.row(id).await;
    let error = row.progress.error.unwrap();
    assert_eq!((&*error.code, error.retries, row.progress.counts.refused), ("too-dear", false, 1));
    assert_eq!((row.progress.cursor, stage.ticks(id).await), (NOW.plus_ms(60_000), vec![]));
    stage.after(58_000).await;
    let row = stage.row(id).await;
    assert_eq!((row.progress.error, stage.ticks(id).await), (None, vec![120]), "it became a job again");
    // A tick that waits for too long is missed, and counted.
    let strict = stage.schedule(|one| one.settings.missed = Missed { policy: MissedPolicy::Skip, window_ms: 0 }).await;
    *stage.door.answers.lock().unwrap() = vec![Submitted::Later(refusal("backlog-full"), 90_000)];
    stage.scene.stores.schedules.drop_schedule(id).await.unwrap();
    stage.after(60_000).await;
    stage.after(119_999).await;
    let row = stage.row(strict).await;
    assert_eq!((row.progress.counts.missed, stage.ticks(strict).await), (1, vec![240]));
}

#[tokio::test]
async fn a_backfill_submits_its_ticks_once_for_whoever_ordered_it() {
    let stage = Stage::new().await;
    let id = stage.schedule(|one| one.settings.overlap = Overlap::Skip).await;
    stage.scene.clock.advance_ms(3_600_000);
    let now = stage.scene.clock.now();
    let mut row = stage.row(id).await;
    (row.settings.paused, row.progress.cursor) = (true, now);
    row.progress.backfill = Some(Backfill {
        number: 1,
        from: NOW.plus_ms(60_000),
        to: NOW.plus_ms(1_800_000),
        cursor: NOW.plus_ms(59_999),
        ticks: 30,
        submitted: 0,
        refused: 0,
        asked_by: "efgh5678".into(),
        began_at: now,
        finished_at: None,
    });
    row.due_at = row.due(&row.settings.when.ticks().unwrap());
    assert_eq!(stage.scene.stores.schedules.change_schedule(row).await.unwrap(), ChangedSchedule::Done);
    // One dies with its first tick accepted; another goes on, in as many claims as it takes.
    let dies = Dies { inner: stage.scene.stores.schedules.clone(), after: false };
    stage.cron_over(Arc::new(dies)).once().await.unwrap();
    stage.scene.clock.advance_ms(10_000);
    while stage.cron().once().await.unwrap() > 0 {}
    assert_eq!(stage.ticks(id).await, (1..=30).map(|minute| minute * 60).collect::<Vec<_>>());
    let row = stage.row(id).await;
    let backfill = row.progress.backfill.unwrap();
    assert_eq!((backfill.submitted, backfill.refused, backfill.finished_at.is_some()), (30, 0, true));
    assert_eq!((row.progress.counts.submitted, row.progress.last_job, row.due_at), (0, None, None), "beside its ticks");
    let filter = JobFilter { batch_id: Some(jobs_of(id)), limit: 100, ..JobFilter::default() };
    let jobs = stage.scene.stores.reads.list(&filter).await.unwrap().jobs;
    assert!(jobs.iter().all(|job| job.key_id.as_ref().is_some_and(|key| key.as_str() == "efgh5678")));
}
