//! What happens to jobs besides attempts: recoveries, reconciles, cancels, edits and redrives.
//!
//! A commit of these whose answer was lost is not read again: the caller is told that nobody knows, and what it then
//! does (recover, reconcile, look) ends in the right state either way.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::{
    failure::Failure,
    money,
    rows::{self, Cells, ENTRY_COLUMNS, RECOVERIES_COLUMN},
    settle::count_end,
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    dispatcher::Entry,
    ids::{Epoch, Generation, JobId, Name},
    journal::{Cancelled, Changed, Edit, Interrupted, Recovered, Recovery, Token, lost, totals::TotalsChange},
    state::Standing,
    time::Timestamp,
};

/// Most rows of one statement: a scheduler may have found a whole fleet's jobs.
const STATEMENT_MAX_ROWS: usize = 1_024;

/// Hands on jobs whose worker was lost.
pub(super) struct Recover;

#[async_trait]
impl Verb for Recover {
    type Input = Vec<Recovery>;
    type Output = Vec<Recovered>;
    const REPEATABLE: bool = false;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Vec<Recovery>],
        _again: bool,
    ) -> Result<Vec<Vec<Recovered>>, Failure> {
        let mut answers = Vec::new();
        for recoveries in inputs {
            answers.push(recover(transaction, recoveries).await?);
        }
        Ok(answers)
    }
}

/// Hands on these jobs, within a transaction.
pub(super) async fn recover(transaction: &mut Transaction, recoveries: &[Recovery]) -> Result<Vec<Recovered>, Failure> {
    let mut recovered = vec![Recovered::Moved; recoveries.len()];
    for places in rounds(recoveries, |recovery| recovery.token.id) {
        recover_round(transaction, recoveries, &places, &mut recovered).await?;
    }
    Ok(recovered)
}

/// The places of the items, in parts that one statement can do: each job once, in the order of the ids.
fn rounds<T>(items: &[T], id: impl Fn(&T) -> JobId) -> Vec<Vec<usize>> {
    let mut rounds: Vec<(HashSet<JobId>, Vec<usize>)> = Vec::new();
    let mut seen: HashMap<JobId, usize> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        // The n-th mention of a job is in a round after all those before it.
        let from = seen.get(&id(item)).map_or(0, |last| last + 1);
        let free = (from..rounds.len()).find(|round| rounds[*round].1.len() < STATEMENT_MAX_ROWS);
        let round = free.unwrap_or_else(|| {
            rounds.push((HashSet::new(), Vec::new()));
            rounds.len() - 1
        });
        rounds[round].0.insert(id(item));
        rounds[round].1.push(place);
        seen.insert(id(item), round);
    }
    let mut rounds: Vec<_> = rounds.into_iter().map(|(_, places)| places).collect();
    rounds.iter_mut().for_each(|places| places.sort_unstable_by_key(|place| id(&items[*place])));
    rounds
}

async fn recover_round(
    transaction: &mut Transaction,
    recoveries: &[Recovery],
    places: &[usize],
    answers: &mut [Recovered],
) -> Result<(), Failure> {
    let lost: Vec<_> = places.iter().map(|place| &recoveries[*place]).collect();
    let now = transaction.now;
    let found = sqlx::query(sql::RECOVER)
        .bind(lost.iter().map(|recovery| recovery.token.id.0).collect::<Vec<_>>())
        .bind(lost.iter().map(|recovery| recovery.token.epoch.0).collect::<Vec<_>>())
        .bind(lost.iter().map(|recovery| recovery.blame.count().cast_signed()).collect::<Vec<_>>())
        .bind(lost.iter().map(|recovery| recovery.session.0).collect::<Vec<_>>())
        .bind(lost.iter().map(|recovery| recovery.started_at.map(|at| at.0)).collect::<Vec<_>>())
        .bind(now.0)
        .bind(rows::json_text(&lost::attempt_error())?)
        .fetch_all(transaction.connection())
        .await?;
    let place_of: HashMap<_, _> = places.iter().map(|place| (recoveries[*place].token.id, *place)).collect();
    let (mut calls, mut convicted) = (Vec::new(), Vec::new());
    for row in &found {
        let (entry, recovered_times, operation) = read_lost(row)?;
        let Some(place) = place_of.get(&entry.id).copied() else { continue };
        let recovery = &recoveries[place];
        if recovery.started_at.is_some() {
            calls.extend(lost::call_of(&entry, recovery.token.epoch, operation, now));
        }
        if lost::convicts(recovery, recovered_times) {
            answers[place] = Recovered::Poisoned;
            convicted.push(entry);
        } else {
            answers[place] = Recovered::Again(entry);
        }
    }
    let sums = money::store_spend(transaction, &calls.iter().collect::<Vec<_>>()).await?;
    money::add_sums(transaction, &sums).await?;
    convict(transaction, convicted).await
}

fn read_lost(row: &PgRow) -> Result<(Entry, u32, Option<String>), sqlx::Error> {
    let recoveries = Cells::of(row, RECOVERIES_COLUMN).small_count()?;
    Ok((rows::entry(row)?, recoveries, Cells::of(row, ENTRY_COLUMNS).text_if_any()?))
}

async fn convict(transaction: &mut Transaction, mut entries: Vec<Entry>) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(());
    }
    entries.sort_unstable_by_key(|entry| entry.id);
    let error = lost::poison_error();
    sqlx::query(sql::CONVICT)
        .bind(entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>())
        .bind(transaction.now.0)
        .bind(rows::json_text(&error)?)
        .bind(error.class.as_str())
        .bind(kept(&error.signature))
        .execute(transaction.connection())
        .await?;
    money::mark_wasted(transaction, &entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>()).await?;
    for entry in &entries {
        count_end(transaction, &entry.queue, &entry.tenant, Standing::Dead);
    }
    Ok(())
}

/// Hands on live jobs that the dispatcher does not know.
pub(super) struct Reconcile;

#[async_trait]
impl Verb for Reconcile {
    type Input = Vec<Token>;
    type Output = Vec<Entry>;
    const REPEATABLE: bool = false;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Vec<Token>],
        _again: bool,
    ) -> Result<Vec<Vec<Entry>>, Failure> {
        let mut answers = Vec::new();
        for unknown in inputs {
            let mut entries: Vec<Option<Entry>> = vec![None; unknown.len()];
            for places in rounds(unknown, |token| token.id) {
                let place_of: HashMap<_, _> = places.iter().map(|place| (unknown[*place].id, *place)).collect();
                let found = sqlx::query(sql::RECONCILE)
                    .bind(places.iter().map(|place| unknown[*place].id.0).collect::<Vec<_>>())
                    .bind(places.iter().map(|place| unknown[*place].epoch.0).collect::<Vec<_>>())
                    .fetch_all(transaction.connection())
                    .await?;
                for row in &found {
                    let entry = rows::entry(row)?;
                    if let Some(place) = place_of.get(&entry.id) {
                        entries[*place] = Some(entry);
                    }
                }
            }
            answers.push(entries.into_iter().flatten().collect());
        }
        Ok(answers)
    }
}

/// Ends live jobs because someone asked for it.
pub(super) struct Cancel;

#[async_trait]
impl Verb for Cancel {
    type Input = (JobId, Option<String>, Option<Interrupted>, Timestamp);
    type Output = Cancelled;
    const REPEATABLE: bool = false;

    async fn run(
        transaction: &mut Transaction,
        inputs: &[Self::Input],
        _again: bool,
    ) -> Result<Vec<Cancelled>, Failure> {
        let mut answers = Vec::new();
        for (id, reason, attempt, now) in inputs {
            answers.push(cancel(transaction, *id, reason.as_ref(), *attempt, *now).await?);
        }
        Ok(answers)
    }
}

/// Ends this job, within a transaction.
pub(super) async fn cancel(
    transaction: &mut Transaction,
    id: JobId,
    reason: Option<&String>,
    attempt: Option<Interrupted>,
    now: Timestamp,
) -> Result<Cancelled, Failure> {
    let cancelled = sqlx::query(sql::CANCEL)
        .bind(id.0)
        .bind(now.0)
        .bind(kept_if_any(reason))
        .bind(attempt.map(|attempt| attempt.epoch.0))
        .bind(attempt.map(|attempt| attempt.session.0))
        .bind(attempt.map(|attempt| attempt.started_at.0))
        .fetch_optional(transaction.connection())
        .await?;
    let Some(row) = cancelled else {
        let found = standing(transaction, id).await?;
        return Ok(found.map_or(Cancelled::Missing, |(standing, _)| Cancelled::Final(standing)));
    };
    let mut cells = Cells::of(&row, 0);
    let (epoch, queue, tenant) = (cells.next::<i64>()?, cells.name()?, cells.name()?);
    count_end(transaction, &queue, &tenant, Standing::Cancelled);
    Ok(Cancelled::Done(Epoch(epoch - 1)))
}

/// Changes live jobs.
pub(super) struct Change;

#[async_trait]
impl Verb for Change {
    type Input = (JobId, Option<Epoch>, Edit);
    type Output = Changed;
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Changed>, Failure> {
        let mut answers = Vec::new();
        for (id, seen, edit) in inputs {
            answers.push(change(transaction, *id, *seen, edit).await?);
        }
        Ok(answers)
    }
}

async fn change(
    transaction: &mut Transaction,
    id: JobId,
    seen: Option<Epoch>,
    edit: &Edit,
) -> Result<Changed, Failure> {
    let edited = sqlx::query(sql::EDIT)
        .bind(id.0)
        .bind(seen.map(|epoch| epoch.0))
        .bind(edit.priority.map(i16::from))
        .bind(edit.run_at.map(|at| at.0))
        .bind(edit.payload.as_ref().map(|(_, target)| target.as_str()))
        .fetch_optional(transaction.connection())
        .await?;
    let Some(row) = edited else {
        return Ok(match standing(transaction, id).await? {
            None => Changed::Missing,
            Some((Standing::Live, epoch)) => Changed::Stale(epoch),
            Some((standing, _)) => Changed::Refused(standing),
        });
    };
    if let Some((body, _)) = &edit.payload {
        sqlx::query(sql::EDIT_PAYLOAD).bind(id.0).bind(&**body).execute(transaction.connection()).await?;
    }
    Ok(Changed::Done(rows::entry(&row)?))
}

/// Gives dead letters another life.
pub(super) struct Redrive;

#[async_trait]
impl Verb for Redrive {
    type Input = (JobId, Option<(Bytes, Name)>, Timestamp);
    type Output = Changed;
    const REPEATABLE: bool = false;

    async fn run(transaction: &mut Transaction, inputs: &[Self::Input], _again: bool) -> Result<Vec<Changed>, Failure> {
        let mut answers = Vec::new();
        for (id, payload, now) in inputs {
            let target = payload.as_ref().map(|(_, target)| target.as_str());
            let asked = sqlx::query(sql::REDRIVE).bind(id.0).bind(now.0).bind(target);
            let risen = asked.fetch_optional(transaction.connection()).await?;
            answers.push(match &risen {
                Some(row) => {
                    let entry = rows::entry(row)?;
                    if let Some((body, _)) = payload {
                        let edited = sqlx::query(sql::EDIT_PAYLOAD).bind(id.0).bind(&**body);
                        edited.execute(transaction.connection()).await?;
                    }
                    sqlx::query(sql::WASTE_NOT).bind(id.0).execute(transaction.connection()).await?;
                    transaction.count(&entry.queue, &entry.tenant, TotalsChange::REDRIVEN);
                    Changed::Done(entry)
                }
                None => standing(transaction, *id)
                    .await?
                    .map_or(Changed::Missing, |(standing, _)| Changed::Refused(standing)),
            });
        }
        Ok(answers)
    }
}

async fn standing(transaction: &mut Transaction, id: JobId) -> Result<Option<(Standing, Epoch)>, Failure> {
    let row = sqlx::query(sql::STANDING).bind(id.0).fetch_optional(transaction.connection()).await?;
    let read = |row: &PgRow| {
        let mut cells = Cells::of(row, 0);
        Ok((cells.standing()?, Epoch(cells.next()?)))
    };
    row.as_ref().map(read).transpose()
}

/// Begins a new life of the dispatcher.
pub(super) struct NewGeneration;

#[async_trait]
impl Verb for NewGeneration {
    type Input = ();
    type Output = Generation;
    /// A number that nobody got to know is no loss.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[()], _again: bool) -> Result<Vec<Generation>, Failure> {
        let mut answers = Vec::new();
        let now = transaction.now.0;
        for () in inputs {
            let number = sqlx::query_scalar(sql::GENERATION).bind(now).fetch_one(transaction.connection()).await?;
            answers.push(Generation(number));
        }
        Ok(answers)
    }
}

/// Writes and commits, or fails as any write would.
pub(super) struct Check;

#[async_trait]
impl Verb for Check {
    type Input = ();
    type Output = ();
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, inputs: &[()], _again: bool) -> Result<Vec<()>, Failure> {
        let now = transaction.now.0;
        sqlx::query(sql::CHECK).bind(now).execute(transaction.connection()).await?;
        Ok(inputs.to_vec())
    }
}
