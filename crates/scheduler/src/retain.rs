//! Retain: takes away what is old, class by class, in small steps.
//!
//! Each step is a commit that looks again at what it takes, so two schedulers who are at it at once find less to do, and one that dies
//! leaves the rest. The turn in the journal only keeps them from doing the same work; who finds it taken for too long takes it.

mod audit;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use queue_core::{
    audit::{AuditEntry, note},
    filter::Filter,
    ids::{Epoch, JobId, OperationId},
    journal::JournalError,
    operations::{Action, Begun, Order, RATE_DEFAULT_PER_S},
    retention::{
        Class, Cutoffs, Part, Policy, Rows, STEP_MAX_ROWS, Witness, droppable, is_old, letters_filter, settled_bound,
    },
    stores::Stores,
    telemetry,
    time::{DAY_MS, Timestamp},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Time between two looks: an order is felt within it, and results that have a time of their own go about so long after it.
const EVERY: Duration = Duration::from_secs(5);
/// Time between two runs.
const NEXT_MS: i64 = 60 * 60 * 1_000;
/// When a run that has left something is followed by another.
const SOON_MS: i64 = 60_000;
/// Time between two warnings of one thing.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// How far this process's clock may be from the journal's: more than a clock that is kept right ever is, and nothing against a day.
const CLOCK_MAX_MS: u64 = 60_000;
/// Where the journal has no clock: how long its newest row may lie back. A clock that is a year ahead would take everything.
const IDLE_MAX_MS: i64 = 400 * DAY_MS;
/// How long a run may take: what is left then is left to the next one.
const RUN_MAX: Duration = Duration::from_secs(480);
/// How long one class may take of a run: those behind it come to theirs, and the walk over settled jobs, which is last, has the rest.
const CLASS_MAX: Duration = Duration::from_secs(35);
/// When others take a turn that was not given back: longer than a run takes.
const TURN_MS: i64 = 600_000;
/// Least pause between two steps. A step that took longer is followed by a pause as long, so that others have half of the journal's time.
const PACE: Duration = Duration::from_millis(100);
/// Pause between two days that are dropped: whoever waited for the one is through before the other.
const BETWEEN_DAYS: Duration = Duration::from_millis(2);
/// Time between two looks for tables of dropped days, and between two that are given back to the disk: a hundredth of its time.
const RECLAIM_EVERY: Duration = Duration::from_secs(30);
const RECLAIM_PAUSE: Duration = Duration::from_secs(2);
/// Tries of a day that is in use, each of which everybody waits behind for 50 ms at most, and the pause between two.
const IN_USE_TRIES: u32 = 4;
const IN_USE_PAUSE: Duration = Duration::from_millis(100);
/// How long no day is tried after one was in use: everybody waits behind a try, and what reads for long still does in a minute.
const IN_USE: Duration = Duration::from_secs(600);
/// What is said of such a day.
const IS_IN_USE: &str = "a day is in use, and no day is tried again for ten minutes";
/// Jobs of one step that are taken away row by row.
const FORGET_MAX: usize = 1_000;
/// Time between two walks over all settled jobs, where a queue keeps its own for a shorter time than others.
const WALK_EVERY_MS: i64 = DAY_MS;
/// Steps of results that have a time of their own in one look.
const RESULT_STEPS_MAX: usize = 20;
/// Who has ordered what nobody has.
const ASKED_BY: &str = "retention";

pub(crate) async fn run(stores: Stores, policy: Policy, shutdown: CancellationToken) {
    tokio::join!(reclaim(stores.clone(), shutdown.clone()), look(stores, policy, shutdown));
}

/// Gives back what dropped days took, also those of whoever died before.
async fn reclaim(stores: Stores, shutdown: CancellationToken) {
    let mut pause = RECLAIM_EVERY;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let reclaimed = stores.retention.reclaim_day().await;
        pause = if matches!(reclaimed, Ok(true)) { RECLAIM_PAUSE } else { RECLAIM_EVERY };
        if let Err(error) = reclaimed {
            tracing::warn!(%error, "what dropped days took is given back another time");
        }
    }
}

async fn look(stores: Stores, policy: Policy, shutdown: CancellationToken) {
    let mut retainer = Retainer::new(stores, policy, shutdown);
    loop {
        tokio::select! {
            () = retainer.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = retainer.look().await {
            tracing::warn!(%error, "what is old was not looked at");
        }
    }
}

/// What went of a class in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Rows that went one by one.
    pub(crate) rows: u64,
    /// Tables of days.
    pub(crate) partitions: u64,
    /// Bytes of those.
    pub(crate) bytes: u64,
    /// Operations that were begun.
    pub(crate) operations: u64,
    /// Time that its tables took to be dropped, with the pauses between them.
    pub(crate) drop_ms: u64,
}

impl Gone {
    fn total(self) -> u64 {
        self.rows + self.partitions + self.operations
    }
}

pub(crate) struct Retainer {
    stores: Stores,
    policy: Policy,
    shutdown: CancellationToken,
    /// When all settled jobs were last walked over.
    walked_at: Option<Timestamp>,
    /// What went and was not told so far: also results that went between two runs.
    gone: BTreeMap<Class, Gone>,
    /// Where that walk goes on, if a run ended before it: a process that starts anew begins it anew.
    walk_after: Option<JobId>,
    /// When what is under way has to end.
    ends: Instant,
    /// When the present run has to end.
    run_ends: Instant,
    /// When a day was last found in use.
    in_use: Option<Instant>,
    /// When the clock was last doubted aloud.
    warned_at: Option<Instant>,
    /// The run has left something that the next one goes on with at once.
    is_cut: bool,
    /// What the run has left, and why.
    remains: BTreeMap<Class, String>,
    /// What is under way.
    class: Class,
}

impl Retainer {
    pub(crate) fn new(stores: Stores, policy: Policy, shutdown: CancellationToken) -> Self {
        let now = Instant::now();
        Self {
            stores,
            policy,
            shutdown,
            walked_at: None,
            gone: BTreeMap::new(),
            walk_after: None,
            ends: now,
            run_ends: now,
            in_use: None,
            warned_at: None,
            is_cut: false,
            remains: BTreeMap::new(),
            class: Class::Jobs,
        }
    }

    pub(crate) async fn look(&mut self) -> Result<(), JournalError> {
        let witness = self.stores.retention.witness().await?;
        let wrong = self.doubts(witness);
        if self.policy.hold.is_none() && wrong.is_none() {
            self.ends = Instant::now() + CLASS_MAX;
            self.results().await?;
        }
        let turn = self.stores.retention.turn().await?;
        // The turn is everybody's, so it goes by the clock that is.
        let now = match witness {
            Witness::Clock(at) => at,
            Witness::Newest(Some(at)) if wrong.is_some() => at,
            Witness::Newest(_) => self.stores.clock.now(),
        };
        if !turn.is_due(now) {
            return Ok(());
        }
        let is_ordered = turn.orders > turn.taking;
        if let Some(reason) = &wrong {
            self.warn(reason);
            if !is_ordered {
                return Ok(());
            }
        }
        let Some(turn) = self.stores.retention.take_turn(turn.beat, now, now.plus_ms(TURN_MS)).await? else {
            return Ok(());
        };
        let began = Instant::now();
        let remains = match wrong {
            Some(reason) => Some(reason),
            None => {
                self.once(is_ordered).await;
                let words = self.remains.iter().map(|(class, why)| format!("{}: {why}", class.as_str()));
                Some(words.collect::<Vec<_>>().join("; ")).filter(|words| !words.is_empty())
            }
        };
        let next_ms = match self.is_cut {
            true => SOON_MS,
            false if self.spares_days() => IN_USE.as_millis() as i64,
            false => NEXT_MS,
        };
        let now = now.plus_ms(began.elapsed().as_millis() as i64);
        self.stores.retention.end_turn(turn.beat, now, now.plus_ms(next_ms), remains).await
    }

    /// Says now and then that nothing goes.
    fn warn(&mut self, reason: &str) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            tracing::warn!(reason, "nothing is taken away: it is not certain what time it is");
            self.warned_at = Some(Instant::now());
        }
    }

    /// Why this process's clock is not to be trusted.
    fn doubts(&self, witness: Witness) -> Option<String> {
        let now = self.stores.clock.now();
        match witness {
            Witness::Clock(at) if now.0.abs_diff(at.0) > CLOCK_MAX_MS => {
                Some(format!("the clock of this process says {now}, and the journal's {at}"))
            }
            Witness::Newest(Some(at)) if now.since_ms(at) > IDLE_MAX_MS => {
                Some(format!("the clock of this process says {now}, and the newest job is of {at}"))
            }
            Witness::Clock(_) | Witness::Newest(_) => None,
        }
    }

    /// One run over every class; what went.
    pub(crate) async fn once(&mut self, is_ordered: bool) -> BTreeMap<Class, Gone> {
        (self.run_ends, self.is_cut) = (Instant::now() + RUN_MAX, false);
        self.ends = self.run_ends;
        self.remains.clear();
        if let Some(reason) = &self.policy.hold {
            tracing::info!(reason, "nothing is taken away: `retention.hold` is set");
            return BTreeMap::new();
        }
        // Dead letters first: days that they hold up go with the next run.
        let ended = [
            (Class::DeadLetters, self.letters().await),
            (Class::Jobs, self.days(Part::Jobs).await),
            (Class::Jobs, self.day_notes().await),
            (Class::Payloads, self.days(Part::Payloads).await),
            (Class::Payloads, self.days(Part::Memos).await),
            (Class::Payloads, self.rows(Class::Payloads, Rows::Payloads).await),
            (Class::Errors, self.days(Part::Errors).await),
            (Class::Errors, self.rows(Class::Errors, Rows::Errors).await),
            (Class::Results, self.own_times().await),
            (Class::IdempotencyKeys, self.rows(Class::IdempotencyKeys, Rows::IdempotencyKeys).await),
            (Class::CostDetails, self.rows(Class::CostDetails, Rows::CostDetails).await),
            (Class::WebhookDeliveries, self.rows(Class::WebhookDeliveries, Rows::WebhookDeliveries).await),
            (Class::Audit, self.audit_log().await),
            (Class::Jobs, self.settled(is_ordered).await),
        ];
        for (class, result) in ended {
            if let Err(error) = result {
                metrics::counter!(telemetry::RETENTION_FAILURES, "class" => class.as_str()).increment(1);
                tracing::warn!(%error, class = class.as_str(), "what is old of a class stays until the next run");
                self.cut(class, &error.to_string());
            }
        }
        let gone = std::mem::take(&mut self.gone);
        self.tell(&gone).await;
        gone
    }

    fn went(&mut self, class: Class, more: Gone) {
        let gone = self.gone.entry(class).or_default();
        gone.rows += more.rows;
        gone.partitions += more.partitions;
        gone.bytes += more.bytes;
        gone.operations += more.operations;
        gone.drop_ms += more.drop_ms;
        for (unit, count) in [("rows", more.rows), ("partitions", more.partitions), ("operations", more.operations)] {
            if count > 0 {
                metrics::counter!(telemetry::RETENTION_REMOVED, "class" => class.as_str(), "unit" => unit)
                    .increment(count);
            }
        }
    }

    /// Log, notes and audit log. What cannot be noted has gone all the same.
    async fn tell(&self, gone: &BTreeMap<Class, Gone>) {
        let now = self.stores.clock.now();
        metrics::gauge!(telemetry::RETENTION_LAST_RUN).set(now.0 as f64 / 1_000.0);
        let gone: Vec<_> = gone.iter().filter(|(_, gone)| gone.total() > 0).collect();
        if gone.is_empty() {
            return;
        }
        let mut detail = serde_json::Map::new();
        for (class, went) in gone {
            let Gone { rows, partitions, bytes, operations, drop_ms } = *went;
            tracing::info!(
                class = class.as_str(),
                rows,
                partitions,
                bytes,
                operations,
                drop_ms,
                "taken away for its age"
            );
            let edge = self.policy.cutoff(*class, now);
            if let Err(error) = self.stores.retention.note(*class, went.total(), now, edge).await {
                tracing::warn!(%error, class = class.as_str(), "what went was not noted");
            }
            let what = json!({
                "rows": rows, "partitions": partitions, "bytes": bytes, "operations": operations, "drop_ms": drop_ms,
            });
            detail.insert(class.as_str().to_owned(), what);
        }
        self.note_in_audit_log("RETAIN", Value::Object(detail)).await;
    }

    /// Adds a row to the audit log; whether it is there.
    async fn note_in_audit_log(&self, action: &str, detail: Value) -> bool {
        let entry = AuditEntry::by_itself(ASKED_BY, action, "/v1/retention", &detail, self.stores.clock.now());
        note(&*self.stores.audit, entry).await
    }

    /// Something is left to the next run.
    fn cut(&mut self, class: Class, why: &str) {
        self.is_cut = true;
        self.remains.insert(class, why.to_owned());
    }

    /// A class begins that is not the last one.
    fn begin_share(&mut self, class: Class) {
        self.class = class;
        self.ends = self.run_ends.min(Instant::now() + CLASS_MAX);
    }

    /// Waits between two steps; `false` where the run, or the share of the class, is over.
    async fn pause(&mut self, began: Instant) -> bool {
        if Instant::now() >= self.ends {
            self.cut(self.class, "its share of the run was over");
            return false;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => {
                self.cut(self.class, "the scheduler was stopped");
                false
            }
            () = tokio::time::sleep(began.elapsed().max(PACE)) => true,
        }
    }

    async fn cutoffs(&self) -> Result<Cutoffs, JournalError> {
        let queues = self.stores.catalog.queues().await?;
        Ok(Cutoffs::of(&self.policy, &queues, self.stores.clock.now()))
    }

    /// Whether days are left alone for a while, since one of them was in use.
    fn spares_days(&self) -> bool {
        self.in_use.is_some_and(|at| at.elapsed() < IN_USE)
    }

    /// Drops tables of days.
    async fn days(&mut self, part: Part) -> Result<(), JournalError> {
        let cutoff = match part {
            Part::Jobs => self.cutoffs().await?.of_all(),
            other => self.policy.cutoff(other.class(), self.stores.clock.now()),
        };
        let Some(cutoff) = cutoff else { return Ok(()) };
        if self.spares_days() {
            self.remains.insert(part.class(), IS_IN_USE.to_owned());
            return Ok(());
        }
        let Some(days) = self.stores.retention.days(cutoff).await? else { return Ok(()) };
        for day in droppable(&days, part, Some(cutoff)).0 {
            let began = Instant::now();
            let dropped = match self.drop_day(day.part, day.day, cutoff).await {
                // Somebody reads it for long, or a vacuum is at it.
                Err(JournalError::Unavailable(reason)) => {
                    tracing::info!(reason, day = %day.day, "a day is in use: none is dropped for a while");
                    self.in_use = Some(Instant::now());
                    self.remains.insert(part.class(), IS_IN_USE.to_owned());
                    return Ok(());
                }
                dropped => dropped?,
            };
            if let Some(bytes) = dropped {
                let drop_ms = (began.elapsed() + BETWEEN_DAYS).as_millis() as u64;
                self.went(part.class(), Gone { partitions: 1, bytes, drop_ms, ..Gone::default() });
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(BETWEEN_DAYS) => {}
            }
        }
        Ok(())
    }

    /// Drops a day. One that is in use may be so for a moment only: a commit that waits for the disk.
    async fn drop_day(&self, part: Part, day: Timestamp, cutoff: Timestamp) -> Result<Option<u64>, JournalError> {
        let mut tries = 1;
        loop {
            match self.stores.retention.drop_day(part, day, cutoff).await {
                Err(JournalError::Unavailable(_)) if tries < IN_USE_TRIES => tries += 1,
                dropped => return dropped,
            }
            tokio::time::sleep(IN_USE_PAUSE).await;
        }
    }

    /// Takes settled jobs away row by row: all of a store without tables by day, what is left of days that cannot be dropped, and the jobs of
    /// queues that keep theirs for a shorter time.
    async fn settled(&mut self, is_ordered: bool) -> Result<(), JournalError> {
        let (cutoffs, now) = (self.cutoffs().await?, self.stores.clock.now());
        let has_days = self.stores.retention.days(Timestamp(0)).await?.is_some();
        // What goes with its day in a while is not taken row by row meanwhile.
        let walks_far = cutoffs.queues.values().any(|own| cutoffs.others.is_none_or(|others| *own > others));
        if self.spares_days() && !walks_far {
            return Ok(());
        }
        let Some(below) = settled_bound(&cutoffs, has_days) else { return Ok(()) };
        let is_walked = self.walked_at.is_some_and(|at| now.since_ms(at) < WALK_EVERY_MS);
        if walks_far && is_walked && !is_ordered && self.walk_after.is_none() {
            return Ok(());
        }
        (self.class, self.ends) = (Class::Jobs, self.run_ends);
        loop {
            let began = Instant::now();
            let page = self.stores.retention.settled(self.walk_after, below, STEP_MAX_ROWS).await?;
            let old: Vec<(JobId, Epoch)> =
                page.iter().filter(|row| is_old(row, &cutoffs)).map(|row| (row.id, row.epoch)).collect();
            for step in old.chunks(FORGET_MAX) {
                let began = Instant::now();
                let rows = self.stores.retention.forget_jobs(step.to_vec()).await?;
                self.went(Class::Jobs, Gone { rows, ..Gone::default() });
                self.walk_after = step.last().map(|(id, _)| *id);
                if !self.pause(began).await {
                    return Ok(());
                }
            }
            if page.len() < STEP_MAX_ROWS {
                (self.walked_at, self.walk_after) = (Some(now), None);
                return Ok(());
            }
            self.walk_after = page.last().map(|row| row.id);
            if old.is_empty() && !self.pause(began).await {
                return Ok(());
            }
        }
    }

    /// Forgets what was noted of days whose tables are gone. Nobody kept it for its own sake, so it counts for nothing.
    async fn day_notes(&mut self) -> Result<(), JournalError> {
        let Some(cutoff) = self.cutoffs().await?.of_all() else { return Ok(()) };
        self.begin_share(Class::Jobs);
        loop {
            let began = Instant::now();
            let gone = self.stores.retention.sweep(Rows::DayNotes, cutoff, STEP_MAX_ROWS).await?;
            if gone == 0 || !self.pause(began).await {
                return Ok(());
            }
        }
    }

    async fn rows(&mut self, class: Class, rows: Rows) -> Result<(), JournalError> {
        let Some(cutoff) = self.policy.cutoff(class, self.stores.clock.now()) else { return Ok(()) };
        // What goes with its day in a while is not taken row by row meanwhile.
        if self.spares_days() && matches!(rows, Rows::Payloads | Rows::Errors) {
            return Ok(());
        }
        self.begin_share(class);
        if rows == Rows::CostDetails {
            if self.stores.retention.pile(rows, cutoff).await?.old == 0 {
                return Ok(());
            }
            // Said before the first of them goes: a report that needs single calls must not be answered from a part of them.
            self.stores.retention.note(class, 0, self.stores.clock.now(), Some(cutoff)).await?;
        }
        loop {
            let began = Instant::now();
            let gone = self.stores.retention.sweep(rows, cutoff, STEP_MAX_ROWS).await?;
            if gone == 0 {
                return Ok(());
            }
            self.went(class, Gone { rows: gone, ..Gone::default() });
            if !self.pause(began).await {
                return Ok(());
            }
        }
    }

    async fn own_times(&mut self) -> Result<(), JournalError> {
        self.begin_share(Class::Results);
        self.results().await
    }

    /// Looks at results whose own time may be over. Most looks find nothing, and cost a look at an index.
    async fn results(&mut self) -> Result<(), JournalError> {
        for _ in 0..RESULT_STEPS_MAX {
            let (began, now) = (Instant::now(), self.stores.clock.now());
            let step = self.stores.retention.expire_results(now, STEP_MAX_ROWS).await?;
            if step.gone > 0 {
                self.went(Class::Results, Gone { rows: step.gone, ..Gone::default() });
            }
            if step.looked == 0 || !self.pause(began).await {
                break;
            }
        }
        Ok(())
    }

    /// Orders that old dead letters are archived.
    async fn letters(&mut self) -> Result<(), JournalError> {
        let now = self.stores.clock.now();
        let Some(cutoff) = self.policy.cutoff(Class::DeadLetters, now) else { return Ok(()) };
        if self.stores.objects.is_none() {
            return Ok(());
        }
        let filter = letters_filter(cutoff);
        let which = Filter::parse(&filter, now).map_err(|error| JournalError::Corrupt(error.to_string()))?;
        let found = self.stores.find(&which, &which.narrowed(), 1).await?;
        if found.jobs.is_empty() && found.next.is_none() {
            return Ok(());
        }
        let order = Order {
            action: Action::Archive,
            goal: None,
            filter,
            queue: None,
            dry_run: false,
            rate_per_s: RATE_DEFAULT_PER_S,
            max_jobs: None,
            max_cost: None,
            force: false,
            reason: Some("they are as old as dead letters may be".to_owned()),
            asked_by: ASKED_BY.into(),
        };
        match self.stores.operations.begin(OperationId::generate(), order, now).await? {
            Begun::New(_) => self.went(Class::DeadLetters, Gone { operations: 1, ..Gone::default() }),
            Begun::InTheWay(other) => tracing::info!(operation = %other.id, "another archive has to end first"),
        }
        Ok(())
    }
}
