//! Backup: makes and checks what was ordered, orders the day's backup and the week's drill by itself, and deletes what is too old.
//!
//! An order is a row of the journal (see [`queue_core::backup::Backups`]). Whoever takes it raises its beat every few seconds; one
//! whose beat stands still has nobody, and is begun anew, under an id of its own at the place: what a slow maker still writes there
//! is at most one more good backup. What is good is decided there, by the manifest; a crash at any moment leaves none that is not.
//! Orders of the clock have ids that follow from their moment, so any number of schedulers orders each of them once.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use queue_core::{
    audit::AuditEntry,
    backup::{
        ATTEMPTS_MAX, BackupError, BackupId, BackupRow, Cause, Keep, NewBackup, Place, Progress, Prune, Record, Scope,
        Setup, Work, copy, create, examine, found, verify,
    },
    journal::JournalError,
    stores::Stores,
    telemetry,
    time::{DAY_MS, Timestamp},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Time between two looks at what was ordered.
const EVERY: Duration = Duration::from_secs(1);
/// Time between two beats of whoever works.
const BEAT_EVERY: Duration = Duration::from_secs(2);
/// Work whose beat stands still for so long has nobody: three beats, and somebody else goes on within 10 s. One that was only
/// slow stops where it finds its work taken.
pub(crate) const SILENCE: Duration = Duration::from_secs(7);
/// Longest time of one backup, check or drill: what takes longer hangs, or does not fit into a day.
const DONE_WITHIN: Duration = Duration::from_secs(12 * 3_600);
/// Pause after something failed, before it is tried again, in milliseconds; four times as long after the next failure.
const REST_MS: i64 = 60_000;
const REST_GROWS: i64 = 4;
/// What the clock orders is ordered again so long after it failed, in milliseconds: by then somebody may have mended the cause.
const AGAIN_MS: i64 = 60 * 60 * 1_000;
/// Orders of one day: one an hour until the next is due.
const DAILY_MAX: u32 = 24;
/// Time between two looks whether it has failed.
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Time between two looks at the place, for the figures.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Time between two looks for what is left of drills that were broken off.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// Rows are kept for so long: longer than any backup as shipped.
const KEPT_MS: i64 = 400 * DAY_MS;
/// How long before the first backup that nobody ordered: a scheduler's start has better things to do.
const FIRST_AFTER: Duration = Duration::from_secs(5);
/// Rows that are looked at for the week's drill: more than a week has.
const ROWS_MAX: usize = 500;
/// The drill comes on Sundays, so long after the day's backup is due.
const DRILL_AFTER_MS: i64 = 60 * 60 * 1_000;
/// 1970-01-01 was a Thursday: so many days before a Sunday.
const SUNDAY: i64 = 3;
/// Ids of what the clock orders are names below this one.
const CLOCK: Uuid = Uuid::from_u128(0x4c53_484f_6261_636b_7570_2062_7920_636c);

/// What a drill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// From its begin until the restored system had drained its jobs, in milliseconds.
    pub recovery_ms: i64,
    /// How old what it brought back was, in milliseconds.
    pub lost_ms: i64,
}

/// Restores a backup into a database that is made for it and dropped again, compares it, and lets it drain jobs.
#[async_trait]
pub trait Rehearsal: Send + Sync {
    /// Does it. A crash leaves a database that the next one drops, and nothing else.
    async fn rehearse(&self, id: BackupId) -> Result<Rehearsed, BackupError>;

    /// Drops what drills that were broken off have left, an hour to a day later. Doing it again does nothing more.
    async fn sweep(&self) -> Result<(), BackupError>;
}

/// What backups are made with, and when.
#[derive(Clone)]
pub struct Backups {
    /// Where from, where to, and for whom.
    pub setup: Setup,
    /// How many are kept.
    pub keep: Keep,
    /// When one is made each day, in minutes of the UTC day; `None`: only when somebody asks.
    pub daily_at: Option<u32>,
    /// What a drill does; `None`: there are none.
    pub rehearsal: Option<Arc<dyn Rehearsal>>,
    /// Whether there is one each week.
    pub weekly_drill: bool,
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups").field("daily_at", &self.daily_at).field("keep", &self.keep).finish_non_exhaustive()
    }
}

pub(crate) async fn run(stores: Stores, backups: Option<Backups>, shutdown: CancellationToken) {
    let Some(backups) = backups else { return };
    let (rehearsal, mut swept) = (backups.rehearsal.clone(), None::<Instant>);
    let mut keeper = Keeper::new(stores, backups);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Some(rehearsal) = &rehearsal
            && swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY)
        {
            swept = Some(Instant::now());
            if let Err(error) = rehearsal.sweep().await {
                tracing::warn!(%error, "what is left of drills was not dropped");
            }
        }
        // A backup holds every seam, and some buffers.
        if let Err(error) = Box::pin(keeper.once(&shutdown)).await {
            tracing::warn!(%error, "backups were not looked after this time");
        }
    }
}

/// What a process knows of backups; all of it may be forgotten.
pub(crate) struct Keeper {
    stores: Stores,
    pub(crate) backups: Backups,
    pub(crate) began: Instant,
    /// Work that somebody else does, at which beat, and since when that stands.
    pub(crate) stands: Option<(BackupId, i64, Instant)>,
    /// The moments of the clock that were seen to.
    daily_seen: Option<Timestamp>,
    drill_seen: Option<Timestamp>,
    /// When it was looked whether what is due has failed.
    daily_looked: Option<Instant>,
    drill_looked: Option<Instant>,
    looked: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(stores: Stores, backups: Backups) -> Self {
        Self {
            stores,
            backups,
            began: Instant::now(),
            stands: None,
            daily_seen: None,
            drill_seen: None,
            daily_looked: None,
            drill_looked: None,
            looked: None,
        }
    }

    /// Orders what is due, and does the next thing that was ordered.
    pub(crate) async fn once(&mut self, shutdown: &CancellationToken) -> Result<(), JournalError> {
        // A restored system that nobody has confirmed adds nothing to the backups that it came from, and deletes none of them.
        if self.stores.orders.awaits_confirmation().await? {
            return Ok(());
        }
        if self.began.elapsed() >= FIRST_AFTER {
            self.order_by_clock().await?;
        }
        let now = self.stores.clock.now();
        let work = self.stores.backups.backup_work().await?;
        // What has failed lets others pass until it is tried again.
        match work.into_iter().find(|row| row.record.not_before.is_none_or(|at| at <= now)) {
            None => self.stands = None,
            Some(row) if self.is_done_by_another(&row) => {}
            Some(row) => self.take(row, shutdown).await?,
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look().await;
        }
        Ok(())
    }

    /// Orders the day's backup, and the week's drill.
    async fn order_by_clock(&mut self) -> Result<(), JournalError> {
        let Some(minutes) = self.backups.daily_at else { return Ok(()) };
        let (now, after) = (self.stores.clock.now(), i64::from(minutes) * 60_000);
        let due = last_due(now, after, DAY_MS);
        let is_new = self.daily_seen != Some(due);
        if is_new || self.daily_looked.is_none_or(|looked| looked.elapsed() >= CLOCK_EVERY) {
            self.daily_looked = Some(Instant::now());
            self.order_daily(due, now).await?;
        }
        if is_new {
            self.stores.backups.forget_backups(now.plus_ms(-KEPT_MS)).await?;
            self.daily_seen = Some(due);
        }
        if self.backups.weekly_drill && self.backups.rehearsal.is_some() {
            self.order_drill(now, after).await?;
        }
        Ok(())
    }

    /// Orders the backup of this moment, once; and once more an hour after each that failed.
    async fn order_daily(&self, due: Timestamp, now: Timestamp) -> Result<(), JournalError> {
        for again in 0..DAILY_MAX {
            let name = if again == 0 { format!("daily {due}") } else { format!("daily {due}, {again}") };
            let id = BackupId(Uuid::new_v5(&CLOCK, name.as_bytes()));
            let Some(before) = self.stores.backups.backup(id).await? else {
                let record = Record::order(Scope::Full, Cause::Schedule, None, None);
                if self.stores.backups.order_backup(BackupRow::order(id, record, now)).await? {
                    tracing::info!(backup = %id, again, "the day's backup is due");
                }
                return Ok(());
            };
            let has_failed = before.work == Work::Nothing && before.record.state == Progress::Failed;
            if !has_failed || !is_long_ago(before.record.finished_at, now) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn order_drill(&mut self, now: Timestamp, after: i64) -> Result<(), JournalError> {
        let due = last_due(now, SUNDAY * DAY_MS + after + DRILL_AFTER_MS, 7 * DAY_MS);
        if self.drill_seen == Some(due) || self.drill_looked.is_some_and(|looked| looked.elapsed() < CLOCK_EVERY) {
            return Ok(());
        }
        self.drill_looked = Some(Instant::now());
        let rows = self.stores.backups.backups(None, ROWS_MAX).await?;
        let drills = || {
            let checks = rows.iter().filter_map(|row| row.record.check.as_ref());
            checks.filter(move |check| check.restores && check.ordered_at >= due)
        };
        // Only one that has passed is this week's.
        if drills().any(|check| check.state == Progress::Good) {
            self.drill_seen = Some(due);
            return Ok(());
        }
        if drills().any(|check| check.state != Progress::Failed || !is_long_ago(check.finished_at, now)) {
            return Ok(());
        }
        let is_good = |row: &BackupRow| {
            let record = &row.record;
            record.state == Progress::Good && record.deleted_at.is_none() && record.scope.has_database()
        };
        // Before the first backup there is nothing to try; the next look finds it.
        let Some(row) = rows.into_iter().find(|row| is_good(row) && row.work == Work::Nothing) else {
            return Ok(());
        };
        // Where somebody else has ordered something meanwhile, the next look sees it.
        self.stores.backups.change_backup(row.check_ordered(true, now)).await.map(drop)
    }

    /// Whether work that is under way has somebody who goes on with it.
    fn is_done_by_another(&mut self, row: &BackupRow) -> bool {
        if !is_running(row) {
            return false;
        }
        match self.stands {
            Some((id, beat, since)) if (id, beat) == (row.id, row.beat) => since.elapsed() < SILENCE,
            _ => {
                self.stands = Some((row.id, row.beat, Instant::now()));
                true
            }
        }
    }

    /// Takes a row and does what it wants.
    async fn take(&mut self, mut row: BackupRow, shutdown: &CancellationToken) -> Result<(), JournalError> {
        self.stands = None;
        let work = row.work;
        match begin(&mut row, self.stores.clock.now()) {
            Begun::Yes => {}
            Begun::TooOften => {
                let what = what(&row);
                return self.end(row, what, false).await;
            }
            Begun::Nothing => {
                row.work = Work::Nothing;
                return self.stores.backups.change_backup(row).await.map(drop);
            }
        }
        if !self.stores.backups.change_backup(row.clone()).await? {
            return Ok(());
        }
        row.beat += 1;
        let doing = {
            let (backups, record, clock) = (self.backups.clone(), row.record.clone(), self.stores.clock.now());
            async move {
                let kept = record.clone();
                let doing = async {
                    match work {
                        Work::Make => make(&backups, record, clock).await,
                        _ => check(&backups, record).await,
                    }
                };
                match tokio::time::timeout(DONE_WITHIN, doing).await {
                    Ok(done) => done,
                    Err(_) => (overdue(kept, work, backups.setup.clock.now()), true),
                }
            }
        };
        let Some((record, may_help)) = self.beating(&mut row, shutdown, Box::pin(doing)).await else {
            if shutdown.is_cancelled() {
                give_back(&mut row);
                self.stores.backups.change_backup(row).await?;
            }
            return Ok(());
        };
        row.record = record;
        let what = what(&row);
        let is_good = match (work, row.record.check.as_ref()) {
            (Work::Check, Some(check)) => check.state == Progress::Good,
            _ => row.record.state == Progress::Good,
        };
        if !is_good && may_help && put_off(&mut row, self.stores.clock.now()) {
            tracing::warn!(backup = %row.id, what, error = error_of(&row.record, what), "it failed; it is tried again");
            return self.stores.backups.change_backup(row).await.map(drop);
        }
        let made = work == Work::Make && is_good;
        self.end(row, what, is_good).await?;
        if made {
            self.sweep().await;
        }
        self.look().await;
        Ok(())
    }

    /// Works, and says so; `None` where somebody else has taken it, or this process stops.
    async fn beating<T>(
        &self,
        row: &mut BackupRow,
        shutdown: &CancellationToken,
        mut work: impl Future<Output = T> + Unpin,
    ) -> Option<T> {
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
            match self.stores.backups.change_backup(row.clone()).await {
                Ok(true) => row.beat += 1,
                Ok(false) => return None,
                Err(error) => tracing::warn!(%error, "whoever makes a backup could not say that it is at work"),
            }
        }
    }

    /// Notes the end of some work, and who did it.
    async fn end(&self, mut row: BackupRow, what: &'static str, is_good: bool) -> Result<(), JournalError> {
        row.work = Work::Nothing;
        let (id, record) = (row.id, row.record.clone());
        if !self.stores.backups.change_backup(row).await? {
            return Ok(());
        }
        count(what, is_good);
        let check = record.check.as_ref();
        let error = error_of(&record, what);
        match is_good {
            true => tracing::info!(backup = %id, what, "a backup is good"),
            false => tracing::error!(backup = %id, what, error, "a backup is not good"),
        }
        let entry = AuditEntry {
            at: self.stores.clock.now(),
            role: Some("scheduler".to_owned()),
            action: format!("backup {what}"),
            subject: format!("/v1/backups/{id}"),
            status: if is_good { 200 } else { 500 },
            detail: json!({
                "scope": record.scope, "cause": record.cause, "backup": record.place_id, "error": error,
                "recovery_ms": check.and_then(|check| check.recovery_ms), "lost_ms": check.and_then(|check| check.lost_ms),
            })
            .to_string(),
            ..AuditEntry::default()
        };
        self.stores.audit.append_audit(entry).await
    }

    /// Deletes what nothing keeps.
    async fn sweep(&self) {
        let Setup { place, offsite, .. } = &self.backups.setup;
        for (at, place) in std::iter::once(place).chain(offsite).enumerate() {
            match self.prune(place, at == 0).await {
                Ok(prune) if prune.delete.is_empty() && prune.unfinished.is_empty() => {}
                Ok(prune) => {
                    count("prune", true);
                    tracing::info!(deleted = prune.delete.len(), kept = prune.keep.len(), "old backups are deleted");
                }
                Err(error) => {
                    count("prune", false);
                    tracing::warn!(%error, "old backups are not deleted");
                }
            }
        }
    }

    /// In the journal first, which knows them by the first place.
    async fn prune(&self, place: &Place, is_first: bool) -> Result<Prune, BackupError> {
        let Backups { setup, keep, .. } = &self.backups;
        let prune = Prune::plan(place, *keep, &*setup.clock).await?;
        if is_first {
            let said = prune.say(&*self.stores.backups, setup.clock.now()).await;
            said.map_err(|error| BackupError::Failed(error.to_string()))?;
        }
        prune.carry_out(place).await?;
        Ok(prune)
    }

    /// Tells the figures of what lies at the places: what any process has made, and what is left of it.
    async fn look(&mut self) {
        self.looked = Some(Instant::now());
        if let Err(error) = look(&self.backups.setup).await {
            tracing::warn!(%error, "the place of backups does not answer");
        }
    }
}

/// Whether what failed then is ordered again.
fn is_long_ago(failed_at: Option<Timestamp>, now: Timestamp) -> bool {
    failed_at.is_none_or(|at| now.since_ms(at) >= AGAIN_MS)
}

/// The last moment `after` the begin of a period that is not in the future.
fn last_due(now: Timestamp, after: i64, every: i64) -> Timestamp {
    Timestamp((now.0 - after).div_euclid(every) * every + after)
}

fn is_running(row: &BackupRow) -> bool {
    match (row.work, &row.record.check) {
        (Work::Make, _) => row.record.state == Progress::Running,
        (Work::Check, Some(check)) => check.state == Progress::Running,
        _ => false,
    }
}

/// What is done with a row.
fn what(row: &BackupRow) -> &'static str {
    match (row.work, row.record.check.as_ref()) {
        (Work::Make, _) => "create",
        (_, Some(check)) if check.restores => "drill",
        _ => "verify",
    }
}

fn error_of<'r>(record: &'r Record, what: &str) -> Option<&'r str> {
    let check = record.check.as_ref().filter(|_| what != "create");
    check.map_or(record.error.as_deref(), |check| check.error.as_deref())
}

/// What became of a row that was to be begun.
enum Begun {
    /// It is to be done.
    Yes,
    /// It was begun as often as may be, and has failed.
    TooOften,
    /// There is nothing to do.
    Nothing,
}

fn begin(row: &mut BackupRow, now: Timestamp) -> Begun {
    let Record { attempts, not_before, place_id, state, error, finished_at, check, deleted_at, .. } = &mut row.record;
    let (attempts, state, error, finished_at) = match (row.work, check.as_mut()) {
        (Work::Make, _) => (attempts, state, error, finished_at),
        (Work::Check, Some(check)) => {
            if deleted_at.is_some() {
                check.error = Some("nothing keeps this backup any more, and it is deleted".to_owned());
                check.attempts = ATTEMPTS_MAX;
            }
            (&mut check.attempts, &mut check.state, &mut check.error, &mut check.finished_at)
        }
        (Work::Check | Work::Nothing, _) => return Begun::Nothing,
    };
    *not_before = None;
    if *attempts >= ATTEMPTS_MAX {
        let why = error.take().unwrap_or_else(|| "whoever worked on it fell silent".to_owned());
        *error = Some(format!("given up after {ATTEMPTS_MAX} attempts: {why}"));
        (*state, *finished_at) = (Progress::Failed, Some(now));
        return Begun::TooOften;
    }
    *attempts += 1;
    *state = Progress::Running;
    if row.work == Work::Make {
        *place_id = Some(BackupId::generate());
    }
    Begun::Yes
}

/// Has what failed tried again after a while; `false`: it was begun as often as may be.
fn put_off(row: &mut BackupRow, now: Timestamp) -> bool {
    let (attempts, state) = match (row.work, row.record.check.as_mut()) {
        (Work::Check, Some(check)) => (check.attempts, &mut check.state),
        _ => (row.record.attempts, &mut row.record.state),
    };
    if attempts >= ATTEMPTS_MAX {
        return false;
    }
    *state = Progress::Ordered;
    row.record.not_before = Some(now.plus_ms(REST_MS * REST_GROWS.pow(attempts.saturating_sub(1))));
    true
}

/// A row as it was before it was taken: a process that stops has not failed.
fn give_back(row: &mut BackupRow) {
    match (row.work, row.record.check.as_mut()) {
        (Work::Check, Some(check)) => {
            check.state = Progress::Ordered;
            check.attempts = check.attempts.saturating_sub(1);
        }
        _ => {
            row.record.state = Progress::Ordered;
            row.record.attempts = row.record.attempts.saturating_sub(1);
        }
    }
}

fn count(work: &'static str, is_good: bool) {
    let outcome = if is_good { "good" } else { "failed" };
    metrics::counter!(telemetry::BACKUPS, "work" => work, "outcome" => outcome).increment(1);
}

/// Notes that it took too long; what was begun for it has ended with it.
fn overdue(mut record: Record, work: Work, now: Timestamp) -> Record {
    let error = Some(format!("it was not done within {DONE_WITHIN:?}"));
    match (work, record.check.as_mut()) {
        (Work::Check, Some(check)) => {
            (check.state, check.error, check.finished_at) = (Progress::Failed, error, Some(now));
        }
        _ => (record.state, record.error, record.finished_at) = (Progress::Failed, error, Some(now)),
    }
    record
}

/// Whether trying again may mend an error.
fn may_help(error: &BackupError) -> bool {
    matches!(error, BackupError::Failed(_))
}

/// Makes a backup; what became of it, and whether trying again may help where it failed.
async fn make(backups: &Backups, mut record: Record, now: Timestamp) -> (Record, bool) {
    let mut tries_again = false;
    let setup = &backups.setup;
    let id = record.place_id.unwrap_or_else(BackupId::generate);
    let new = NewBackup { id, scope: record.scope, cause: record.cause, reason: record.reason.clone() };
    match create(setup, new).await {
        Ok(manifest) => {
            record.state = Progress::Good;
            record.error = None;
            record.bytes = Some(manifest.bytes());
            if let Some(offsite) = &setup.offsite {
                record.offsite_error =
                    copy(&setup.place, offsite, &manifest).await.err().map(|error| error.to_string());
                if let Some(error) = &record.offsite_error {
                    tracing::error!(error, backup = %id, "the second place has no copy of a backup");
                }
            }
            record.finished_at = Some(setup.clock.now());
        }
        Err(error) => {
            tries_again = may_help(&error);
            record.state = Progress::Failed;
            record.error = Some(error.to_string());
            record.finished_at = Some(now.max(setup.clock.now()));
        }
    }
    (record, tries_again)
}

/// Checks a backup, or tries it; what became of that, and whether trying again may help where it failed.
async fn check(backups: &Backups, mut record: Record) -> (Record, bool) {
    let setup = &backups.setup;
    let (Some(mut check), Some(id)) = (record.check.take(), record.place_id) else { return (record, false) };
    let mut tries_again = false;
    // A drill that fails must not leave a fresh mark.
    let verdict = match check.restores {
        true => examine(&setup.place, id, setup.identities.as_ref(), &*setup.clock).await,
        false => verify(&setup.place, id, setup.identities.as_ref(), &*setup.clock).await,
    };
    let outcome = match (verdict, check.restores, &backups.rehearsal) {
        (Err(error), _, _) => {
            tries_again = may_help(&error);
            Err(error.to_string())
        }
        (Ok(verdict), _, _) if !verdict.damaged.is_empty() => {
            let damaged = verdict.damaged.iter().map(|(part, reason)| format!("{part}: {reason}"));
            Err(damaged.collect::<Vec<_>>().join("; "))
        }
        (Ok(verdict), false, _) => {
            check.opened = verdict.opened;
            Ok(None)
        }
        (Ok(_), true, None) => Err("a drill needs `[backup] identity_file` where schedulers run".to_owned()),
        (Ok(_), true, Some(rehearsal)) => {
            check.opened = true;
            let rehearsed = rehearsal.rehearse(id).await;
            tries_again = rehearsed.as_ref().is_err_and(may_help);
            rehearsed.map(Some).map_err(|error| error.to_string())
        }
    };
    match outcome {
        Ok(rehearsed) => {
            check.state = Progress::Good;
            check.error = None;
            check.recovery_ms = rehearsed.map(|drill| drill.recovery_ms);
            check.lost_ms = rehearsed.map(|drill| drill.lost_ms);
        }
        Err(error) => (check.state, check.error) = (Progress::Failed, Some(error)),
    }
    check.finished_at = Some(setup.clock.now());
    record.check = Some(check);
    (record, tries_again)
}

/// Tells the figures.
async fn look(setup: &Setup) -> Result<(), BackupError> {
    let seconds = |at: Timestamp| at.0 as f64 / 1e3;
    let good = found(&setup.place).await?.good;
    for scope in Scope::ALL {
        if let Some(newest) = good.iter().map(|known| &known.manifest).find(|manifest| manifest.scope == scope) {
            metrics::gauge!(telemetry::BACKUP_LAST_SUCCESS, "kind" => scope.as_str()).set(seconds(newest.finished_at));
            metrics::gauge!(telemetry::BACKUP_BYTES, "kind" => scope.as_str()).set(newest.bytes() as f64);
        }
    }
    let verified = || good.iter().filter_map(|known| known.verified);
    if let Some(last) = verified().map(|verified| verified.at).max() {
        metrics::gauge!(telemetry::BACKUP_LAST_VERIFIED).set(seconds(last));
    }
    let drill =
        verified().filter(|verified| verified.restored_at.is_some()).max_by_key(|verified| verified.restored_at);
    if let Some((recovery, lost)) = drill.and_then(|drill| drill.recovery_ms.zip(drill.lost_ms)) {
        metrics::gauge!(telemetry::DRILL_RECOVERY).set(recovery as f64 / 1e3);
        metrics::gauge!(telemetry::DRILL_LOST).set(lost as f64 / 1e3);
    }
    if let Some(at) = drill.and_then(|drill| drill.restored_at) {
        metrics::gauge!(telemetry::DRILL_LAST_SUCCESS).set(seconds(at));
    }
    if let Some(offsite) = &setup.offsite
        && let Some(newest) = found(offsite).await?.good.first()
    {
        let at = seconds(newest.manifest.finished_at);
        metrics::gauge!(telemetry::BACKUP_LAST_SUCCESS, "kind" => "offsite").set(at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_due_moment_is_today_or_before() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let daily = |now: &str| last_due(at(now), 3 * 3_600_000 + 30 * 60_000, DAY_MS).to_string();
        assert_eq!(daily("2026-11-30T03:30:00Z"), "2026-11-30T03:30:00.000Z");
        assert_eq!(daily("2026-11-30T03:29:59Z"), "2026-11-29T03:30:00.000Z");
        let weekly = |now: &str| last_due(at(now), SUNDAY * DAY_MS + 4 * 3_600_000, 7 * DAY_MS).to_string();
        // The 29th is a Sunday.
        assert_eq!(weekly("2026-11-30T09:00:00Z"), "2026-11-29T04:00:00.000Z");
        assert_eq!(weekly("2026-11-29T03:00:00Z"), "2026-11-22T04:00:00.000Z");
    }
}
