//! From rows to the job model and back. What the schema cannot rule out is checked here.

use bytes::Bytes;
use rusqlite::{
    Row,
    types::{FromSql, Type},
};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    budget::{Measure, Period, Scope},
    dispatcher::{Entry, Suspicion},
    error::JobError,
    fallback::Link,
    ids::{CallId, Epoch, JobId, Name},
    job::{AttemptRecord, Job, Kind},
    journal::{Alert, CostQuery, CostRow, Member, RecentCall, Saved, TenantRules},
    ledger::{Billed, CallRecord, Memo, MemoBody, Nanousd, SavedBy, Saving, Tier, Usage, UsageSource},
    request_limits::Rates,
    state::Standing,
    time::Timestamp,
};

/// Reads the columns of a row one after the other.
pub(super) struct Cells<'r> {
    row: &'r Row<'r>,
    at: usize,
}

impl<'r> Cells<'r> {
    /// The columns of `row` from `at` on.
    pub(super) fn of(row: &'r Row<'r>, at: usize) -> Self {
        Self { row, at }
    }

    /// The next column.
    pub(super) fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let value = self.row.get(self.at)?;
        self.at += 1;
        Ok(value)
    }

    /// The next column as a number that is never negative.
    pub(super) fn count<T: TryFrom<i64> + Default>(&mut self) -> rusqlite::Result<T> {
        Ok(T::try_from(self.next::<i64>()?).unwrap_or_default())
    }

    /// The next column as a number that is never negative, where it is not null.
    pub(super) fn count_if_any<T: TryFrom<i64>>(&mut self) -> rusqlite::Result<Option<T>> {
        Ok(self.next::<Option<i64>>()?.and_then(|count| T::try_from(count).ok()))
    }

    /// The next column as one of some words, where it is not null.
    pub(super) fn word_if_any<T>(&mut self, parse: fn(&str) -> Option<T>) -> rusqlite::Result<Option<T>> {
        match self.row.get_ref(self.at)?.as_str_or_null()? {
            Some(_) => self.word(parse).map(Some),
            None => {
                self.at += 1;
                Ok(None)
            }
        }
    }

    /// Leaves columns out.
    fn behind(&mut self, columns: usize) -> &mut Self {
        self.at += columns;
        self
    }

    /// The next column as a name, where there is one.
    pub(super) fn name_if_any(&mut self) -> rusqlite::Result<Option<Name>> {
        Ok(self.next::<Option<std::sync::Arc<str>>>()?.map(Name::new))
    }

    /// The next column as a name.
    pub(super) fn name(&mut self) -> rusqlite::Result<Name> {
        Ok(Name::new(self.next::<std::sync::Arc<str>>()?))
    }

    /// The next column as a moment.
    pub(super) fn time(&mut self) -> rusqlite::Result<Timestamp> {
        self.next().map(Timestamp)
    }

    /// The next column as a moment that may be missing.
    pub(super) fn time_if_any(&mut self) -> rusqlite::Result<Option<Timestamp>> {
        Ok(self.next::<Option<i64>>()?.map(Timestamp))
    }

    /// The next column as bytes.
    pub(super) fn bytes(&mut self) -> rusqlite::Result<Bytes> {
        self.next::<Vec<u8>>().map(Bytes::from)
    }

    /// The next column as the 16 bytes of an id.
    pub(super) fn id(&mut self) -> rusqlite::Result<Uuid> {
        self.next::<[u8; 16]>().map(Uuid::from_bytes)
    }

    /// The next column as a word of a known set.
    pub(super) fn word<T>(&mut self, parse: fn(&str) -> Option<T>) -> rusqlite::Result<T> {
        let word = self.row.get_ref(self.at)?.as_str()?;
        let value = parse(word).ok_or_else(|| not_understood(self.at, format!("unknown word `{word}`")))?;
        self.at += 1;
        Ok(value)
    }

    /// The next column as JSON, where it is not null.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> rusqlite::Result<Option<T>> {
        let text = self.row.get_ref(self.at)?.as_str_or_null()?;
        let value = text.map(serde_json::from_str).transpose();
        let value = value.map_err(|error| not_understood(self.at, error.to_string()))?;
        self.at += 1;
        Ok(value)
    }

    /// The next column as JSON.
    pub(super) fn json_there<T: DeserializeOwned>(&mut self) -> rusqlite::Result<T> {
        let at = self.at;
        self.json()?.ok_or_else(|| not_understood(at, "there is no value".into()))
    }

    fn usage(&mut self) -> rusqlite::Result<Usage> {
        Ok(Usage {
            tokens_in: self.count()?,
            tokens_out: self.count()?,
            tokens_cached: self.count()?,
            tokens_cache_write: self.count()?,
            tokens_reasoning: self.count()?,
            ..Usage::default()
        })
    }

    /// The next eight columns as the tokens of calls.
    pub(super) fn usage_of_calls(&mut self) -> rusqlite::Result<Usage> {
        let usage = self.usage()?;
        Ok(Usage {
            tokens_cache_write_long: self.count()?,
            tokens_audio_in: self.count()?,
            tokens_audio_out: self.count()?,
            ..usage
        })
    }
}

pub(super) fn not_understood(column: usize, reason: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, reason.into())
}

/// A number of ours as SQLite keeps it; what does not fit is held at the end of the range.
pub(super) fn to_integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How often a key or tenant may ask.
pub(super) fn rates(cells: &mut Cells<'_>) -> rusqlite::Result<Rates> {
    Ok(Rates { requests_per_minute: cells.next()?, llm_submits_per_minute: cells.next()? })
}

/// Labels as they are stored: nothing for none.
pub(super) fn tags_text(tags: &[String]) -> rusqlite::Result<Option<String>> {
    if tags.is_empty() { Ok(None) } else { json_text(&tags).map(Some) }
}

/// What a tenant may ask for as JSON text, or nothing where nothing is set.
pub(super) fn rules_text(rules: &TenantRules) -> rusqlite::Result<Option<String>> {
    if rules.is_empty() { Ok(None) } else { json_text(rules).map(Some) }
}

/// A fallback chain as JSON text, or nothing where there is none.
pub(super) fn fallback_text(links: &[Link]) -> rusqlite::Result<Option<String>> {
    if links.is_empty() { Ok(None) } else { json_text(&links).map(Some) }
}

/// A value as JSON text.
pub(super) fn json_text<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// The job id in this column.
pub(super) fn job_id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    Cells::of(row, column).id().map(JobId)
}

/// How a job stands, from its number.
pub(super) fn standing(code: i64) -> rusqlite::Result<Standing> {
    Standing::from_code(code).ok_or_else(|| not_understood(0, format!("unknown standing {code}")))
}

/// The ten columns of an entry: id, epoch, queue, tenant, target, kind, priority, run_at, recoveries, concurrency_key.
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let mut cells = Cells::of(row, 0);
    Ok(Entry {
        id: JobId(cells.id()?),
        epoch: Epoch(cells.next()?),
        queue: cells.name()?,
        tenant: cells.name()?,
        target: cells.name()?,
        kind: cells.word(Kind::parse)?,
        priority: cells.next()?,
        run_at: cells.time()?,
        suspicion: Suspicion::of(cells.next()?),
        key: cells.name_if_any()?,
    })
}

/// The column of [`entry`] that says how many workers were lost with the job.
pub(super) const RECOVERIES_COLUMN: usize = 8;

/// Columns of [`entry`].
pub(super) const ENTRY_COLUMNS: usize = 10;

/// The columns of `job_rows`.
pub(super) fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let mut cells = Cells::of(row, 1);
    Ok(Job {
        id: JobId(cells.id()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        target: cells.name()?,
        priority: cells.next()?,
        standing: standing(cells.next()?)?,
        epoch: Epoch(cells.next()?),
        attempts: cells.count()?,
        max_attempts: cells.count()?,
        recoveries: cells.count()?,
        releases: cells.count()?,
        redrives: cells.count()?,
        run_at: cells.time()?,
        start_by: cells.time_if_any()?,
        deadline: cells.time_if_any()?,
        timeout_ms: cells.next::<Option<i64>>()?.and_then(|ms| u64::try_from(ms).ok()),
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
        unique_key: cells.next()?,
        operation: cells.next()?,
        batch_id: cells.next()?,
        tags: cells.json()?.unwrap_or_default(),
        request_id: cells.next()?,
        traceparent: cells.next()?,
        error: cells.json::<JobError>()?,
        served_by: cells.next()?,
        usage: cells.usage()?,
        cost: cost(cells.next()?, cells.next()?),
        cancel_reason: cells.next()?,
        concurrency_key: cells.behind(ERROR_COLUMNS).name_if_any()?,
        key_id: cells.name_if_any()?,
        max_cost: cells.next::<Option<i64>>()?.map(Nanousd),
    })
}

/// Columns of `job_rows` that only narrow lists: the class and the signature of the error.
const ERROR_COLUMNS: usize = 2;

/// Columns of `job_rows`; what follows them in a row belongs to the statement.
pub(super) const JOB_COLUMNS: usize = 41;

fn cost(sum: i64, unknown: bool) -> Option<Nanousd> {
    (!unknown).then_some(Nanousd(sum))
}

/// The columns of `attempts_of.sql`.
pub(super) fn attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRecord> {
    let mut cells = Cells::of(row, 0);
    Ok(AttemptRecord {
        epoch: Epoch(cells.next()?),
        number: cells.count()?,
        outcome: cells.next()?,
        worker: cells.id()?.hyphenated().to_string(),
        started_at: cells.time_if_any()?,
        finished_at: cells.time()?,
        error: cells.json()?,
    })
}

/// The columns of `savings_of.sql`.
pub(super) fn saving(row: &Row<'_>) -> rusqlite::Result<Saving> {
    let mut cells = Cells::of(row, 0);
    Ok(Saving {
        job_id: JobId(cells.id()?),
        call_id: CallId(cells.id()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        operation: cells.next()?,
        epoch: Epoch(cells.next()?),
        provider: cells.next()?,
        model: cells.next()?,
        reason: cells.word(SavedBy::parse)?,
        usage: Usage { tokens_in: cells.count()?, tokens_out: cells.count()?, ..Usage::default() },
        saved: cells.next::<Option<i64>>()?.map(Nanousd),
        at: cells.time()?,
    })
}

/// The columns of `newest_of.sql` from `at` on.
pub(super) fn member(row: &Row<'_>, at: usize) -> rusqlite::Result<Member> {
    let mut cells = Cells::of(row, at);
    Ok(Member {
        id: JobId(cells.id()?),
        standing: standing(cells.next()?)?,
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
        tags: cells.json()?.unwrap_or_default(),
        cost: cost(cells.next()?, cells.next()?),
    })
}

/// The columns of `recent_calls.sql`.
pub(super) fn recent_call(row: &Row<'_>) -> rusqlite::Result<RecentCall> {
    let mut cells = Cells::of(row, 0);
    Ok(RecentCall {
        provider: cells.next()?,
        model: cells.next()?,
        credential: cells.next()?,
        status: cells.next()?,
        duration_ms: cells.count()?,
        at: cells.time()?,
    })
}

/// The columns of `budget_alerts.sql`.
pub(super) fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    let mut cells = Cells::of(row, 0);
    Ok(Alert {
        scope: cells.word(Scope::parse)?,
        measure: cells.word(Measure::parse)?,
        period: cells.word(Period::parse)?,
        since: cells.next()?,
        level: cells.next()?,
        spent: cells.next()?,
        budget: cells.next()?,
        at: cells.time()?,
    })
}

/// The columns of `calls_of.sql`.
pub(super) fn call(row: &Row<'_>) -> rusqlite::Result<CallRecord> {
    let mut cells = Cells::of(row, 0);
    Ok(CallRecord {
        job_id: JobId(cells.id()?),
        call_id: CallId(cells.id()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        operation: cells.next()?,
        epoch: Epoch(cells.next()?),
        step: cells.next()?,
        sequence: cells.count()?,
        provider: cells.next()?,
        model: cells.next()?,
        status: cells.next()?,
        billed: cells.word(Billed::parse)?,
        usage: cells.usage_of_calls()?,
        tier: cells.word(Tier::parse)?,
        usage_source: cells.word(UsageSource::parse)?,
        cost: cells.next::<Option<i64>>()?.map(Nanousd),
        price_version: cells.next()?,
        duration_ms: cells.count()?,
        provider_request_id: cells.next()?,
        at: cells.time()?,
        key_id: cells.name_if_any()?,
        credential: cells.next()?,
        memo: None,
    })
}

/// The columns of `memos.sql`.
pub(super) fn memo(row: &Row<'_>) -> rusqlite::Result<Memo> {
    let mut cells = Cells::of(row, 0);
    Ok(Memo {
        call_id: CallId(cells.id()?),
        memo: MemoBody { request_hash: cells.next()?, body: cells.bytes()?.into() },
    })
}

/// The columns of `costs.sql`.
pub(super) fn costs(row: &Row<'_>, query: &CostQuery) -> rusqlite::Result<CostRow> {
    let mut cells = Cells::of(row, 0);
    let mut group = vec![cells.next()?, cells.next()?, cells.next()?];
    group.truncate(query.by.len());
    Ok(CostRow {
        group,
        calls: cells.count()?,
        calls_maybe: cells.count()?,
        calls_unpriced: cells.count()?,
        jobs: cells.count()?,
        usage: cells.usage_of_calls()?,
        spend: Nanousd(cells.next()?),
        wasted: Nanousd(cells.next()?),
        charge: Some(Nanousd(cells.next()?)).filter(|_| query.tells_charges()),
        saved: Saved {
            by_reason: [cells.next()?, cells.next()?, cells.next()?, cells.next()?].map(Nanousd),
            answers: cells.count()?,
            unpriced: cells.count()?,
        },
    })
}
