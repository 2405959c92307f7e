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
    audit::AuditEntry,
    filter::Filter,
    ids::{Epoch, JobId, OperationId},
    journal::JournalError,
    operations::{Action, Begun, Order, RATE_DEFAULT_PER_S},
    retention::{
        Class, Cutoffs, Day, Part, Policy, Rows, STEP_MAX_ROWS, droppable, is_old, letters_filter, settled_bound,
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
/// How long a run may take: what is left then is left to the next one.
const RUN_MAX: Duration = Duration::from_secs(480);
/// When others take a turn that was not given back: longer than a run takes.
const TURN_MS: i64 = 600_000;
/// Least pause between two steps. A step that took longer is followed by a pause as long, so that others have half of the journal's time.
const PACE: Duration = Duration::from_millis(100);
/// Pause between two days that are dropped: whoever waited for the one is through before the other.
const BETWEEN_DAYS: Duration = Duration::from_millis(2);
/// How often a day that is in use is tried, and how long after each try.
const DROP_TRIES: u32 = 10;
const DROP_PAUSE: Duration = Duration::from_millis(100);
/// Jobs of one step that are taken away row by row.
const FORGET_MAX: usize = 1_000;
/// Time between two walks over all settled jobs, where a queue keeps its own for a shorter time than others.
const WALK_EVERY_MS: i64 = DAY_MS;
/// Steps of results that have a time of their own in one look.
const RESULT_STEPS_MAX: usize = 20;
/// Who has ordered what nobody has.
const ASKED_BY: &str = "retention";

pub(crate) async fn run(stores: Stores, policy: Policy, shutdown: CancellationToken) {
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
    gone: BTreeMap<Class, Gone>,
    /// When the present run has to end.
    ends: Instant,
    /// The run has left something.
    is_cut: bool,
}

impl Retainer {
    pub(crate) fn new(stores: Stores, policy: Policy, shutdown: CancellationToken) -> Self {
        Self { stores, policy, shutdown, walked_at: None, gone: BTreeMap::new(), ends: Instant::now(), is_cut: false }
    }

    async fn look(&mut self) -> Result<(), JournalError> {
        if self.policy.hold.is_none() {
            self.results().await?;
        }
        let turn = self.stores.retention.turn().await?;
        let now = self.stores.clock.now();
        if !turn.is_due(now) {
            return Ok(());
        }
        let is_ordered = turn.orders > turn.taking;
        let Some(turn) = self.stores.retention.take_turn(turn.beat, now, now.plus_ms(TURN_MS)).await? else {
            return Ok(());
        };
        self.once(is_ordered).await;
        let now = self.stores.clock.now();
        let next = now.plus_ms(if self.is_cut { SOON_MS } else { NEXT_MS });
        self.stores.retention.end_turn(turn.beat, now, next).await
    }

    /// One run over every class; what went.
    pub(crate) async fn once(&mut self, is_ordered: bool) -> BTreeMap<Class, Gone> {
        self.gone.clear();
        (self.ends, self.is_cut) = (Instant::now() + RUN_MAX, false);
        if let Some(reason) = &self.policy.hold {
            tracing::info!(reason, "nothing is taken away: `retention.hold` is set");
            return BTreeMap::new();
        }
        // Dead letters first: days that they hold up go with the next run.
        let ended = [
            (Class::DeadLetters, self.letters().await),
            (Class::Jobs, self.days(Part::Jobs).await),
            (Class::Jobs, self.settled(is_ordered).await),
            (Class::Payloads, self.days(Part::Payloads).await),
            (Class::Payloads, self.days(Part::Memos).await),
            (Class::Payloads, self.rows(Class::Payloads, Rows::Payloads).await),
            (Class::Errors, self.days(Part::Errors).await),
            (Class::Errors, self.rows(Class::Errors, Rows::Errors).await),
            (Class::Results, self.results().await),
            (Class::IdempotencyKeys, self.rows(Class::IdempotencyKeys, Rows::IdempotencyKeys).await),
            (Class::CostDetails, self.rows(Class::CostDetails, Rows::CostDetails).await),
            (Class::WebhookDeliveries, self.rows(Class::WebhookDeliveries, Rows::WebhookDeliveries).await),
            (Class::Audit, self.audit_log().await),
        ];
        for (class, result) in ended {
            if let Err(error) = result {
                metrics::counter!(telemetry::RETENTION_FAILURES, "class" => class.as_str()).increment(1);
                tracing::warn!(%error, class = class.as_str(), "what is old of a class stays until the next run");
                self.is_cut = true;
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
        let entry = AuditEntry {
            at: self.stores.clock.now(),
            actor: Some(ASKED_BY.to_owned()),
            action: action.to_owned(),
            subject: "/v1/retention".to_owned(),
            status: 200,
            detail: detail.to_string(),
            ..AuditEntry::default()
        };
        let added = self.stores.audit.append_audit(entry).await;
        added.inspect_err(|error| tracing::error!(%error, action, %detail, "the audit log has no row of this")).is_ok()
    }

    /// Waits between two steps; `false` where the run has to end.
    async fn pause(&mut self, began: Instant) -> bool {
        if Instant::now() >= self.ends {
            self.is_cut = true;
            return false;
        }
        tokio::select! {
            () = self.shutdown.cancelled() => {
                self.is_cut = true;
                false
            }
            () = tokio::time::sleep(began.elapsed().max(PACE)) => true,
        }
    }

    async fn cutoffs(&self) -> Result<Cutoffs, JournalError> {
        let queues = self.stores.catalog.queues().await?;
        Ok(Cutoffs::of(&self.policy, &queues, self.stores.clock.now()))
    }

    /// Drops tables of days.
    async fn days(&mut self, part: Part) -> Result<(), JournalError> {
        let cutoff = match part {
            Part::Jobs => self.cutoffs().await?.of_all(),
            other => self.policy.cutoff(other.class(), self.stores.clock.now()),
        };
        let Some(cutoff) = cutoff else { return Ok(()) };
        let Some(days) = self.stores.retention.days(cutoff).await? else { return Ok(()) };
        for day in droppable(&days, part, Some(cutoff)).0 {
            let began = Instant::now();
            if let Some(bytes) = self.drop_day(day, cutoff).await? {
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

    async fn drop_day(&mut self, day: Day, cutoff: Timestamp) -> Result<Option<u64>, JournalError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.stores.retention.drop_day(day.part, day.day, cutoff).await {
                // Somebody reads it for long, or a vacuum is at it.
                Err(JournalError::Unavailable(reason)) if tries < DROP_TRIES => {
                    tracing::debug!(reason, day = %day.day, "a day is in use");
                    tokio::time::sleep(DROP_PAUSE).await;
                }
                dropped => return dropped,
            }
        }
    }

    /// Takes settled jobs away row by row: all of a store without tables by day, what is left of days that cannot be dropped, and the jobs of
    /// queues that keep theirs for a shorter time.
    async fn settled(&mut self, is_ordered: bool) -> Result<(), JournalError> {
        let (cutoffs, now) = (self.cutoffs().await?, self.stores.clock.now());
        let has_days = self.stores.retention.days(Timestamp(0)).await?.is_some();
        let Some(below) = settled_bound(&cutoffs, has_days) else { return Ok(()) };
        let walks_far = cutoffs.queues.values().any(|own| cutoffs.others.is_none_or(|others| *own > others));
        let is_walked = self.walked_at.is_some_and(|at| now.since_ms(at) < WALK_EVERY_MS);
        if walks_far && is_walked && !is_ordered {
            return Ok(());
        }
        let mut after = None;
        loop {
            let began = Instant::now();
            let page = self.stores.retention.settled(after, below, STEP_MAX_ROWS).await?;
            after = page.last().map(|row| row.id);
            let old: Vec<(JobId, Epoch)> =
                page.iter().filter(|row| is_old(row, &cutoffs)).map(|row| (row.id, row.epoch)).collect();
            for step in old.chunks(FORGET_MAX) {
                let began = Instant::now();
                let rows = self.stores.retention.forget_jobs(step.to_vec()).await?;
                self.went(Class::Jobs, Gone { rows, ..Gone::default() });
                if !self.pause(began).await {
                    return Ok(());
                }
            }
            if page.len() < STEP_MAX_ROWS {
                self.walked_at = Some(now);
                return Ok(());
            }
            if old.is_empty() && !self.pause(began).await {
                return Ok(());
            }
        }
    }

    async fn rows(&mut self, class: Class, rows: Rows) -> Result<(), JournalError> {
        let Some(cutoff) = self.policy.cutoff(class, self.stores.clock.now()) else { return Ok(()) };
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

    /// Looks at results whose own time may be over. Most looks find nothing, and cost a look at an index.
    async fn results(&mut self) -> Result<(), JournalError> {
        for _ in 0..RESULT_STEPS_MAX {
            let now = self.stores.clock.now();
            let looked = self.stores.retention.sweep(Rows::Results, now, STEP_MAX_ROWS).await?;
            if looked == 0 || self.shutdown.is_cancelled() {
                break;
            }
            self.went(Class::Results, Gone { rows: looked, ..Gone::default() });
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
