//! Spend, memos and charges. Spend and memos ask for no epoch: what was paid for is kept whoever paid.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;

use super::{
    failure::Failure,
    group::{Grouped, Size},
    rows::{self, Cells},
    sql,
    text::{kept, kept_if_any},
    transaction::{Transaction, Verb},
};
use crate::{
    ids::{JobId, Name},
    ledger::{CallRecord, Saving, Sums, Usage},
};

/// Stores calls with their answers.
pub(super) struct Record;

impl Grouped for Record {
    fn size(call: &CallRecord) -> Size {
        Size { rows: 1, bytes: call.memo.as_ref().map_or(0, |memo| memo.body.len()) }
    }

    fn job(_: &CallRecord) -> Option<JobId> {
        None
    }
}

#[async_trait]
impl Verb for Record {
    type Input = CallRecord;
    type Output = ();

    /// What is there is not stored twice.
    const REPEATABLE: bool = true;

    async fn run(transaction: &mut Transaction, calls: &[CallRecord], _again: bool) -> Result<Vec<()>, Failure> {
        let calls: Vec<_> = calls.iter().collect();
        // Before the rows: of two processes that pay for one job, one is the first.
        hold(transaction, calls.iter().map(|call| call.job_id)).await?;
        let sums = store_spend(transaction, &calls).await?;
        add_sums(transaction, &sums).await?;
        keep_memos(transaction, &calls).await?;
        Ok(vec![(); calls.len()])
    }
}

/// Holds the rows of jobs in the order of their ids, and waits for whoever has them.
pub(super) async fn hold(transaction: &mut Transaction, jobs: impl Iterator<Item = JobId>) -> Result<(), Failure> {
    let ids: Vec<_> = jobs.map(|id| id.0).collect::<BTreeSet<_>>().into_iter().collect();
    let held: i64 = sqlx::query(sql::JOBS_LOCK).bind(&ids).fetch_one(transaction.connection()).await?.try_get(0)?;
    if usize::try_from(held) != Ok(ids.len()) {
        sqlx::query(sql::SETTLED_LOCK).bind(&ids).execute(transaction.connection()).await?;
    }
    Ok(())
}

/// Sums by job, in the order in which rows are locked.
pub(super) type SumsByJob = BTreeMap<JobId, Sums>;

/// The columns of sums, as the statements take them.
pub(super) struct SumColumns {
    calls: Vec<i64>,
    tokens: [Vec<i64>; 5],
    cost: Vec<i64>,
    unknown: Vec<bool>,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl SumColumns {
    /// One row of sums after the other.
    pub(super) fn of<'s>(sums: impl Iterator<Item = &'s Sums> + Clone) -> Self {
        let tokens = |part: fn(&Usage) -> u64| sums.clone().map(|s| rows::to_bigint(part(&s.usage))).collect();
        Self {
            calls: sums.clone().map(|sums| sums.calls).collect(),
            tokens: [
                tokens(|usage| usage.tokens_in),
                tokens(|usage| usage.tokens_out),
                tokens(|usage| usage.tokens_cached),
                tokens(|usage| usage.tokens_cache_write),
                tokens(|usage| usage.tokens_reasoning),
            ],
            cost: sums.clone().map(|sums| sums.cost.0).collect(),
            unknown: sums.map(|sums| sums.unknown).collect(),
        }
    }

    /// Binds the eight columns: calls, five of tokens, cost, unknown.
    pub(super) fn bind(self, query: Query<'_>) -> Query<'_> {
        let query = query.bind(self.calls);
        let query = self.tokens.into_iter().fold(query, |query, column| query.bind(column));
        query.bind(self.cost).bind(self.unknown)
    }
}

/// Stores the spend of calls that are not stored yet, and returns what those add to the sums of their jobs.
pub(super) async fn store_spend(transaction: &mut Transaction, calls: &[&CallRecord]) -> Result<SumsByJob, Failure> {
    let mut sums = SumsByJob::new();
    if calls.is_empty() {
        return Ok(sums);
    }
    let mut ordered = calls.to_vec();
    // Stable: calls of one millisecond keep the order in which they were reported, within their job.
    ordered.sort_by_key(|call| (call.job_id, call.at, call.call_id, call.epoch));
    let mut new = insert_spend(transaction, &ordered).await?;
    for call in ordered {
        // A call that is reported twice in one group is one row.
        if new.remove(&(call.job_id.0, call.call_id.0, call.epoch.0)) {
            sums.entry(call.job_id).or_default().add(call);
        }
    }
    Ok(sums)
}

async fn insert_spend(
    transaction: &mut Transaction,
    calls: &[&CallRecord],
) -> Result<HashSet<(Uuid, Uuid, i64)>, Failure> {
    let words = |word: fn(&CallRecord) -> &str| calls.iter().map(|call| word(call)).collect::<Vec<_>>();
    let texts = |text: fn(&CallRecord) -> &str| calls.iter().map(|call| kept(text(call))).collect::<Vec<_>>();
    let numbers = |number: fn(&CallRecord) -> i64| calls.iter().map(|call| number(call)).collect::<Vec<_>>();
    let ids = |id: fn(&CallRecord) -> Uuid| calls.iter().map(|call| id(call)).collect::<Vec<_>>();
    let inserted = sqlx::query(sql::SPEND)
        .bind(ids(|call| call.job_id.0))
        .bind(ids(|call| call.call_id.0))
        .bind(words(|call| call.tenant.as_str()))
        .bind(words(|call| call.queue.as_str()))
        .bind(words(|call| call.kind.as_str()))
        .bind(calls.iter().map(|call| kept_if_any(call.operation.as_ref())).collect::<Vec<_>>())
        .bind(numbers(|call| call.epoch.0))
        .bind(texts(|call| &call.step))
        .bind(numbers(|call| call.sequence.into()))
        .bind(texts(|call| &call.provider))
        .bind(texts(|call| &call.model))
        .bind(texts(|call| &call.status))
        .bind(words(|call| call.billed.as_str()))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_in)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_out)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_cached)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_cache_write)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_reasoning)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_cache_write_long)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_audio_in)))
        .bind(numbers(|call| rows::to_bigint(call.usage.tokens_audio_out)))
        .bind(words(|call| call.tier.as_str()))
        .bind(words(|call| call.usage_source.as_str()))
        .bind(calls.iter().map(|call| call.cost.map(|cost| cost.0)).collect::<Vec<_>>())
        .bind(texts(|call| &call.price_version))
        .bind(numbers(|call| rows::to_bigint(call.duration_ms)))
        .bind(calls.iter().map(|call| kept_if_any(call.provider_request_id.as_ref())).collect::<Vec<_>>())
        .bind(numbers(|call| call.at.0))
        .bind(calls.iter().map(|call| call.key_id.as_ref().map(Name::as_str)).collect::<Vec<_>>())
        .bind(texts(|call| &call.credential))
        .fetch_all(transaction.connection())
        .await?;
    let key = |row| {
        let mut cells = Cells::of(row, 0);
        Ok((cells.next()?, cells.next()?, cells.next()?))
    };
    inserted.iter().map(key).collect()
}

/// Adds to the sums of jobs whatever their state.
pub(super) async fn add_sums(transaction: &mut Transaction, sums: &SumsByJob) -> Result<(), Failure> {
    if sums.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = sums.keys().map(|id| id.0).collect();
    let query = sqlx::query(sql::SPEND_SUMS).bind(ids);
    let row = SumColumns::of(sums.values()).bind(query).fetch_one(transaction.connection()).await?;
    let hot: HashSet<Uuid> = Cells::of(&row, 0).next::<Vec<Uuid>>()?.into_iter().collect();
    let settled: Vec<_> = sums.iter().filter(|(id, _)| !hot.contains(&id.0)).collect();
    if settled.is_empty() {
        return Ok(());
    }
    let ids: Vec<_> = settled.iter().map(|(id, _)| id.0).collect();
    let query = sqlx::query(sql::SPEND_SUMS_SETTLED).bind(ids);
    SumColumns::of(settled.iter().map(|(_, sums)| *sums)).bind(query).execute(transaction.connection()).await?;
    Ok(())
}

/// Keeps the answers of calls for the attempts that follow.
pub(super) async fn keep_memos(transaction: &mut Transaction, calls: &[&CallRecord]) -> Result<(), Failure> {
    let mut kept: Vec<_> = calls.iter().filter_map(|call| Some((*call, call.memo.as_ref()?))).collect();
    if kept.is_empty() {
        return Ok(());
    }
    // Stable, so that of two answers to one call the first stays.
    kept.sort_by_key(|(call, _)| (call.job_id, call.call_id));
    sqlx::query(sql::MEMOS_KEEP)
        .bind(kept.iter().map(|(call, _)| call.job_id.0).collect::<Vec<_>>())
        .bind(kept.iter().map(|(call, _)| call.tenant.as_str()).collect::<Vec<_>>())
        .bind(kept.iter().map(|(call, _)| call.call_id.0).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, memo)| &memo.request_hash[..]).collect::<Vec<_>>())
        .bind(kept.iter().map(|(_, memo)| &*memo.body).collect::<Vec<_>>())
        .execute(transaction.connection())
        .await?;
    Ok(())
}

/// Stores what attempts did not have to pay for.
pub(super) async fn store_savings(transaction: &mut Transaction, savings: &[&Saving]) -> Result<(), Failure> {
    if savings.is_empty() {
        return Ok(());
    }
    let mut ordered = savings.to_vec();
    ordered.sort_by_key(|saving| (saving.job_id, saving.call_id, saving.epoch, saving.reason));
    let words = |word: fn(&Saving) -> &str| ordered.iter().map(|saving| word(saving)).collect::<Vec<_>>();
    let texts = |text: fn(&Saving) -> &str| ordered.iter().map(|saving| kept(text(saving))).collect::<Vec<_>>();
    let numbers = |number: fn(&Saving) -> i64| ordered.iter().map(|saving| number(saving)).collect::<Vec<_>>();
    sqlx::query(sql::SAVINGS)
        .bind(ordered.iter().map(|saving| saving.job_id.0).collect::<Vec<_>>())
        .bind(ordered.iter().map(|saving| saving.call_id.0).collect::<Vec<_>>())
        .bind(numbers(|saving| saving.epoch.0))
        .bind(words(|saving| saving.reason.as_str()))
        .bind(words(|saving| saving.tenant.as_str()))
        .bind(words(|saving| saving.queue.as_str()))
        .bind(words(|saving| saving.kind.as_str()))
        .bind(ordered.iter().map(|saving| kept_if_any(saving.operation.as_ref())).collect::<Vec<_>>())
        .bind(texts(|saving| &saving.provider))
        .bind(texts(|saving| &saving.model))
        .bind(numbers(|saving| rows::to_bigint(saving.usage.tokens_in)))
        .bind(numbers(|saving| rows::to_bigint(saving.usage.tokens_out)))
        .bind(ordered.iter().map(|saving| saving.saved.map(|saved| saved.0)).collect::<Vec<_>>())
        .bind(numbers(|saving| saving.at.0))
        .execute(transaction.connection())
        .await?;
    Ok(())
}

/// Marks what was paid for jobs that are dead letters now.
pub(super) async fn mark_wasted(transaction: &mut Transaction, dead: &[Uuid]) -> Result<(), Failure> {
    if !dead.is_empty() {
        sqlx::query(sql::WASTE).bind(dead).execute(transaction.connection()).await?;
    }
    Ok(())
}
