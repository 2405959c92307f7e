//! Ends attempts: state, attempt row, result, charge and spend in one transaction.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    failure::Failure,
    group::{Grouped, Size},
    money::{self, SumColumns, SumsByJob},
    rows::{self, Cells},
    sql,
    text::kept_if_any,
    transaction::{Transaction, Verb},
};
use crate::{
    error::JobError,
    ids::{Epoch, Incarnation, JobId, Name},
    journal::{Due, Outcome, Settled, Settlement, totals::TotalsChange},
    ledger::Sums,
    state::Standing,
    time::Timestamp,
};

/// Settles attempts of different jobs.
pub(super) struct Settle;

impl Grouped for Settle {
    const PATIENCE: Duration = Duration::from_millis(2);

    fn size(settlement: &Settlement) -> Size {
        let memos = settlement.calls.iter().filter_map(|call| call.memo.as_ref()).map(|memo| memo.body.len());
        let result = if let Outcome::Succeed { result } = &settlement.outcome { result.len() } else { 0 };
        Size { rows: 1 + settlement.calls.len() + settlement.savings.len(), bytes: result + memos.sum::<usize>() }
    }

    fn job(settlement: &Settlement) -> Option<JobId> {
        Some(settlement.token.id)
    }
}

#[async_trait]
impl Verb for Settle {
    type Input = Settlement;
    type Output = Settled;

    /// The attempt's row says whether it was this session that settled it.
    const REPEATABLE: bool = true;

    async fn run(
        transaction: &mut Transaction,
        settlements: &[Settlement],
        again: bool,
    ) -> Result<Vec<Settled>, Failure> {
        let calls: Vec<_> = settlements.iter().flat_map(|settlement| &settlement.calls).collect();
        let (succeeding, other): (Vec<_>, Vec<_>) =
            settlements.iter().partition(|settlement| matches!(settlement.outcome, Outcome::Succeed { .. }));
        let meets_rows_twice = !calls.is_empty() || !(succeeding.is_empty() || other.is_empty());
        if again || meets_rows_twice {
            money::hold(transaction, settlements.iter().map(|settlement| settlement.token.id)).await?;
        }
        // Money first: it is stored whether or not the claim still holds.
        let sums = money::store_spend(transaction, &calls).await?;
        let savings: Vec<_> = settlements.iter().flat_map(|settlement| &settlement.savings).collect();
        money::store_savings(transaction, &savings).await?;
        let mut done = if again { settled_before(transaction, settlements).await? } else { Answers::new() };
        for (life, part) in by_life(&succeeding, &done) {
            succeed(transaction, life, &part, &sums, &mut done).await?;
        }
        for (life, part) in by_life(&other, &done) {
            move_on(transaction, life, &part, &sums, &mut done).await?;
        }
        store_rest(transaction, settlements, &sums, &done).await?;
        let answer = |settlement: &Settlement| done.remove(&settlement.token.id).unwrap_or(Settled::Fenced);
        Ok(settlements.iter().map(answer).collect())
    }
}

/// Who was settled, by job: each has one settlement in a group.
type Answers = HashMap<JobId, Settled>;

/// The answers that a lost COMMIT would have given, where it did commit.
async fn settled_before(transaction: &mut Transaction, settlements: &[Settlement]) -> Result<Answers, Failure> {
    let found = sqlx::query(sql::SETTLED_BY_US)
        .bind(settlements.iter().map(|settlement| settlement.token.id.0).collect::<Vec<_>>())
        .bind(settlements.iter().map(|settlement| settlement.token.epoch.0).collect::<Vec<_>>())
        .bind(settlements.iter().map(|settlement| settlement.session.0).collect::<Vec<_>>())
        .fetch_all(transaction.connection())
        .await?;
    let mut due = HashMap::new();
    for row in &found {
        let mut cells = Cells::of(row, 0);
        due.insert((cells.job_id()?, Epoch(cells.next()?)), cells.time_if_any()?);
    }
    let mut answers = Answers::new();
    for settlement in settlements {
        let token = settlement.token;
        let Some(kept) = due.get(&(token.id, token.epoch)) else { continue };
        let (standing, due, _) = parts(&settlement.outcome);
        let run_at = due.and_then(moment).or(*kept).unwrap_or(settlement.finished_at);
        let epoch = if standing.is_final() { token.epoch } else { token.epoch.next() };
        answers.insert(token.id, Settled::Done { standing, epoch, run_at });
    }
    Ok(answers)
}

/// Those that are still open, by the journal's life in which they began: nearly always one.
fn by_life<'s>(settlements: &[&'s Settlement], done: &Answers) -> HashMap<Incarnation, Vec<&'s Settlement>> {
    let mut lives: HashMap<_, Vec<_>> = HashMap::new();
    for settlement in settlements.iter().filter(|settlement| !done.contains_key(&settlement.token.id)) {
        lives.entry(settlement.incarnation).or_default().push(*settlement);
    }
    // Rows are met in the order of their ids.
    lives.values_mut().for_each(|part| part.sort_unstable_by_key(|settlement| settlement.token.id));
    lives
}

/// How an outcome leaves the job, when it is due again, and why it failed.
fn parts(outcome: &Outcome) -> (Standing, Option<Due>, Option<&JobError>) {
    match outcome {
        Outcome::Succeed { .. } => (Standing::Succeeded, None, None),
        Outcome::Dead { error } => (Standing::Dead, None, Some(error)),
        Outcome::Retry { due, error } => (Standing::Live, Some(*due), Some(error)),
        Outcome::Release { due, error, .. } => (Standing::Live, Some(*due), error.as_ref()),
    }
}

/// The moment at which it is due, if the settle names one.
fn moment(due: Due) -> Option<Timestamp> {
    match due {
        Due::At(at) => Some(at),
        Due::After(_) => None,
    }
}

/// How long after the settle it is due, in milliseconds, if the settle says so.
fn wait_ms(due: Due) -> Option<i64> {
    match due {
        Due::At(_) => None,
        Due::After(wait) => Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
    }
}

/// The number that the schema checks.
pub(super) fn standing_code(standing: Standing) -> i16 {
    i16::try_from(standing.code()).unwrap_or_default()
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds what both statements begin with: ids, epochs, started_at, finished_at, sessions, served_by.
fn begin<'q>(sql: &'static str, part: &[&'q Settlement]) -> Query<'q> {
    let numbers = |number: fn(&Settlement) -> i64| part.iter().map(|settlement| number(settlement)).collect::<Vec<_>>();
    let ids = |id: fn(&Settlement) -> Uuid| part.iter().map(|settlement| id(settlement)).collect::<Vec<_>>();
    sqlx::query(sql)
        .bind(ids(|settlement| settlement.token.id.0))
        .bind(numbers(|settlement| settlement.token.epoch.0))
        .bind(numbers(|settlement| settlement.started_at.0))
        .bind(numbers(|settlement| settlement.finished_at.0))
        .bind(ids(|settlement| settlement.session.0))
        .bind(part.iter().map(|settlement| kept_if_any(settlement.served_by.as_ref())).collect::<Vec<_>>())
}

fn sum_columns(part: &[&Settlement], sums: &SumsByJob) -> SumColumns {
    let nothing = Sums::default();
    SumColumns::of(part.iter().map(|settlement| sums.get(&settlement.token.id).unwrap_or(&nothing)))
}

async fn succeed(
    transaction: &mut Transaction,
    life: Incarnation,
    part: &[&Settlement],
    sums: &SumsByJob,
    done: &mut Answers,
) -> Result<(), Failure> {
    let body = |settlement: &&'_ Settlement| match &settlement.outcome {
        Outcome::Succeed { result } => result.to_vec(),
        _ => Vec::new(),
    };
    let query = begin(sql::SETTLE_SUCCEED, part).bind(part.iter().map(body).collect::<Vec<_>>());
    let query = sum_columns(part, sums).bind(query).bind(life.0);
    let epochs: HashMap<_, _> = part.iter().map(|settlement| (settlement.token.id, settlement.token.epoch)).collect();
    for row in query.fetch_all(transaction.connection()).await? {
        let mut cells = Cells::of(&row, 0);
        let (id, queue, tenant, run_at) = (cells.job_id()?, cells.name()?, cells.name()?, cells.time()?);
        let epoch = epochs.get(&id).copied().unwrap_or_default();
        done.insert(id, Settled::Done { standing: Standing::Succeeded, epoch, run_at });
        count_end(transaction, &queue, &tenant, Standing::Succeeded);
    }
    Ok(())
}

async fn move_on(
    transaction: &mut Transaction,
    life: Incarnation,
    part: &[&Settlement],
    sums: &SumsByJob,
    done: &mut Answers,
) -> Result<(), Failure> {
    let errors: Vec<_> = part.iter().map(|settlement| parts(&settlement.outcome).2).collect();
    let error_texts =
        errors.iter().map(|error| error.map(rows::json_text).transpose()).collect::<Result<Vec<_>, _>>()?;
    let standings: HashMap<_, _> =
        part.iter().map(|settlement| (settlement.token.id, parts(&settlement.outcome).0)).collect();
    let target = |settlement: &&'_ Settlement| match &settlement.outcome {
        Outcome::Release { target, .. } => target.as_ref().map(|target| target.as_str().to_owned()),
        _ => None,
    };
    let targets: Vec<_> = part.iter().map(target).collect();
    let dues: Vec<_> = part.iter().map(|settlement| parts(&settlement.outcome).1).collect();
    let query = begin(sql::SETTLE_OTHER, part)
        .bind(part.iter().map(|settlement| standing_code(parts(&settlement.outcome).0)).collect::<Vec<_>>())
        .bind(part.iter().map(|settlement| settlement.outcome.as_str()).collect::<Vec<_>>())
        .bind(dues.iter().map(|due| due.and_then(moment).map(|at| at.0)).collect::<Vec<_>>())
        .bind(error_texts)
        .bind(errors.iter().map(|error| error.map(|error| error.class.as_str())).collect::<Vec<_>>())
        .bind(errors.iter().map(|error| kept_if_any(error.map(|error| &error.signature))).collect::<Vec<_>>());
    let waits: Vec<_> = dues.iter().map(|due| due.and_then(wait_ms)).collect();
    let query = sum_columns(part, sums).bind(query).bind(targets).bind(life.0).bind(waits);
    let mut dead = Vec::new();
    for row in query.fetch_all(transaction.connection()).await? {
        let mut cells = Cells::of(&row, 0);
        let (id, queue, tenant) = (cells.job_id()?, cells.name()?, cells.name()?);
        let (run_at, epoch) = (cells.time()?, Epoch(cells.next()?));
        let standing = standings.get(&id).copied().unwrap_or(Standing::Live);
        done.insert(id, Settled::Done { standing, epoch, run_at });
        count_end(transaction, &queue, &tenant, standing);
        if standing == Standing::Dead {
            dead.push(id.0);
        }
    }
    money::mark_wasted(transaction, &dead).await
}

/// Counts that a job ended so, if it did.
pub(super) fn count_end(transaction: &mut Transaction, queue: &Name, tenant: &Name, standing: Standing) {
    if let Some(change) = TotalsChange::of_end(standing) {
        transaction.count(queue, tenant, change);
    }
}

/// The sums of those that were fenced, and the answers that a later attempt may need: a success needs none.
async fn store_rest(
    transaction: &mut Transaction,
    settlements: &[Settlement],
    sums: &SumsByJob,
    done: &Answers,
) -> Result<(), Failure> {
    let counted: HashSet<_> = done.keys().copied().collect();
    let fenced: SumsByJob =
        sums.iter().filter(|(id, _)| !counted.contains(id)).map(|(id, sums)| (*id, *sums)).collect();
    money::add_sums(transaction, &fenced).await?;
    let succeeded = |settlement: &&Settlement| {
        matches!(settlement.outcome, Outcome::Succeed { .. }) && counted.contains(&settlement.token.id)
    };
    let kept: Vec<_> = settlements.iter().filter(|s| !succeeded(s)).flat_map(|settlement| &settlement.calls).collect();
    money::keep_memos(transaction, &kept).await
}
