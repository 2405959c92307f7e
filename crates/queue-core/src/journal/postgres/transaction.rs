//! One transaction: what a verb does in it, and what its end means.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::histogram;
use rand::RngExt;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::Instant;

use super::{door::Door, failure::Failure, sql};
use crate::{
    ids::Name,
    journal::totals::TotalsChange,
    telemetry,
    time::{Clock, Timestamp},
};

/// Times that a group begins anew because another transaction was in its way. Rows are locked in one order, so one
/// more try nearly always passes.
const CONFLICTS_MAX: u32 = 8;

/// Longest time that the answer to a lost COMMIT is looked for: longer than a restart of Postgres takes.
const REREAD_MAX: Duration = Duration::from_secs(30);

/// Longest pause between two tries. Each pause is a random part of it, so that processes do not try in step.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Something that is done to a group of inputs, all of it or nothing.
#[async_trait]
pub(super) trait Verb: Send + Sync + 'static {
    /// What a caller asks with.
    type Input: Send + Sync + 'static;
    /// What a caller is answered.
    type Output: Send + 'static;

    /// Whether running it again tells what the first time did, also where nobody knows whether that was committed.
    const REPEATABLE: bool;

    /// Whether one statement, which commits by itself, can do all of it: one round trip instead of five.
    fn is_one_statement(_inputs: &[Self::Input]) -> bool {
        false
    }

    /// Does it in that statement. One that is refused has done nothing, and [`Self::run`] finds out why.
    async fn run_at_once(
        _connection: &mut PgConnection,
        _inputs: &[Self::Input],
    ) -> Result<Vec<Self::Output>, Failure> {
        Err(Failure::Refused("not one statement".into()))
    }

    /// Does it, with one answer for each input. `again` says that the same inputs may have been committed before.
    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        again: bool,
    ) -> Result<Vec<Self::Output>, Failure>;
}

/// An open transaction as the verbs see it.
pub(super) struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    /// The journal's clock at its start.
    pub(super) now: Timestamp,
    totals: BTreeMap<Name, TotalsChange>,
    /// What it does to the live jobs of tenants.
    backlogs: BTreeMap<Name, i64>,
}

impl Transaction {
    /// The connection that it holds.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.inner
    }

    /// Counts; written once for each queue and tenant before the commit.
    pub(super) fn count(&mut self, queue: &Name, tenant: &Name, change: TotalsChange) {
        match self.totals.get_mut(queue) {
            Some(totals) => *totals += change,
            None => _ = self.totals.insert(queue.clone(), change),
        }
        match self.backlogs.get_mut(tenant) {
            Some(live) => *live += change.live,
            None => _ = self.backlogs.insert(tenant.clone(), change.live),
        }
    }

    async fn write_totals(&mut self) -> Result<(), Failure> {
        let totals = std::mem::take(&mut self.totals);
        if totals.is_empty() {
            return Ok(());
        }
        let new: Vec<_> = totals.iter().filter(|(_, change)| change.accepted > 0).map(|(queue, _)| queue).collect();
        if !new.is_empty() {
            let names: Vec<_> = new.into_iter().map(Name::as_str).collect();
            sqlx::query(sql::QUEUES_OPEN).bind(names).execute(self.connection()).await?;
        }
        let backlogs = std::mem::take(&mut self.backlogs);
        let moved: Vec<_> = backlogs.iter().filter(|(_, live)| **live != 0).collect();
        let column = |number: fn(&TotalsChange) -> i64| totals.values().map(number).collect::<Vec<_>>();
        sqlx::query(sql::TOTALS_ADD)
            .bind(totals.keys().map(Name::as_str).collect::<Vec<_>>())
            .bind(column(|change| change.accepted))
            .bind(column(|change| change.succeeded))
            .bind(column(|change| change.cancelled))
            .bind(column(|change| change.dead))
            .bind(column(|change| change.live))
            .bind(column(|change| change.died))
            .bind(moved.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>())
            .bind(moved.iter().map(|(_, live)| **live).collect::<Vec<_>>())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    async fn commit(mut self) -> Result<(), Failure> {
        self.write_totals().await?;
        self.inner.commit().await.map_err(Failure::of_commit)
    }
}

/// Where transactions come from.
#[derive(Clone)]
pub(super) struct Database {
    /// The connections of this process.
    pub(super) pool: PgPool,
    /// Says when there can be none.
    pub(super) door: Arc<Door>,
    /// Says when it is.
    pub(super) clock: Arc<dyn Clock>,
}

impl Database {
    /// A connection of the pool, or that there can be none now.
    pub(super) async fn connection(&self) -> Result<PoolConnection<Postgres>, Failure> {
        self.door.through(async { Ok(self.pool.acquire().await?) }).await
    }

    /// Commits the inputs as one group and returns their answers, trying again what may pass. An error says that
    /// nothing is committed, except for one that a commit's lost answer leaves.
    pub(super) async fn commit<V: Verb>(&self, inputs: &[V::Input]) -> Result<Vec<V::Output>, Failure> {
        let (mut conflicts, mut losses) = (0, 0);
        let mut unanswered: Option<(Instant, String)> = None;
        loop {
            let failure = match self.try_commit::<V>(inputs, unanswered.is_some()).await {
                Ok(answers) => return Ok(answers),
                Err(failure) => failure,
            };
            match failure {
                Failure::Conflict(_) if conflicts < CONFLICTS_MAX => conflicts += 1,
                // A restart of Postgres leaves every idle connection of the pool broken; each is met once.
                Failure::Lost(_) if losses <= self.pool.options().get_max_connections() => {
                    losses += 1;
                    continue;
                }
                Failure::Ambiguous(reason) if V::REPEATABLE && unanswered.is_none() => {
                    tracing::warn!(%reason, "a commit was not answered; it is read again");
                    unanswered = Some((Instant::now() + REREAD_MAX, reason));
                }
                Failure::Refused(reason) => return Err(Failure::Refused(reason)),
                other => match &unanswered {
                    Some((until, _)) if Instant::now() < *until => losses = 0,
                    Some((_, reason)) => return Err(Failure::Ambiguous(reason.clone())),
                    None => return Err(other),
                },
            }
            let pause = PAUSE_MAX.mul_f64(rand::rng().random());
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_commit<V: Verb>(&self, inputs: &[V::Input], again: bool) -> Result<Vec<V::Output>, Failure> {
        let began = Instant::now();
        let at_once = if again { None } else { self.try_at_once::<V>(inputs).await? };
        let answers = match at_once {
            Some(answers) => answers,
            None => self.try_transaction::<V>(inputs, again).await?,
        };
        histogram!(telemetry::JOURNAL_COMMIT).record(began.elapsed().as_secs_f64());
        histogram!(telemetry::JOURNAL_BATCH).record(inputs.len() as f64);
        Ok(answers)
    }

    /// `None`: it needs a transaction.
    async fn try_at_once<V: Verb>(&self, inputs: &[V::Input]) -> Result<Option<Vec<V::Output>>, Failure> {
        if !V::is_one_statement(inputs) {
            return Ok(None);
        }
        let mut connection = self.connection().await?;
        match V::run_at_once(&mut connection, inputs).await {
            Ok(answers) => Ok(Some(answers)),
            Err(Failure::Refused(_)) => Ok(None),
            // The statement was also the commit.
            Err(Failure::Lost(reason)) => Err(Failure::Ambiguous(reason)),
            Err(other) => Err(other),
        }
    }

    async fn try_transaction<V: Verb>(&self, inputs: &[V::Input], again: bool) -> Result<Vec<V::Output>, Failure> {
        let inner = self.door.through(async { Ok(self.pool.begin().await?) }).await?;
        let mut transaction =
            Transaction { inner, now: self.clock.now(), totals: BTreeMap::new(), backlogs: BTreeMap::new() };
        let answers = V::run(&mut transaction, inputs, again).await?;
        transaction.commit().await?;
        Ok(answers)
    }

    /// Commits one input.
    pub(super) async fn commit_one<V: Verb>(&self, input: V::Input) -> Result<V::Output, Failure> {
        let mut answers = self.commit::<V>(std::slice::from_ref(&input)).await?;
        answers.pop().ok_or_else(|| Failure::Refused("a write was not answered".into()))
    }
}
