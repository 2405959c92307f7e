//! From rows to the job model and back. What the schema cannot rule out is checked here.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::text;
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

type Read<T> = Result<T, sqlx::Error>;

/// Reads the columns of a row one after the other.
pub(super) struct Cells<'r> {
    row: &'r PgRow,
    at: usize,
}

impl<'r> Cells<'r> {
    /// The columns of `row` from `at` on.
    pub(super) fn of(row: &'r PgRow, at: usize) -> Self {
        Self { row, at }
    }

    /// The next column.
    pub(super) fn next<T>(&mut self) -> Read<T>
    where
        T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let value = self.row.try_get(self.at)?;
        self.at += 1;
        Ok(value)
    }

    /// The next column as a number that is never negative.
    pub(super) fn count<T: TryFrom<i64> + Default>(&mut self) -> Read<T> {
        Ok(T::try_from(self.next::<i64>()?).unwrap_or_default())
    }

    /// The next column, of four bytes, as a number that is never negative.
    pub(super) fn small_count(&mut self) -> Read<u32> {
        Ok(u32::try_from(self.next::<i32>()?).unwrap_or_default())
    }

    /// The next column as a name.
    pub(super) fn name(&mut self) -> Read<Name> {
        self.next::<&str>().map(Name::from)
    }

    /// The next column as a text that somebody sent.
    pub(super) fn text(&mut self) -> Read<String> {
        Ok(text::sent(self.next()?).into_owned())
    }

    /// The next column as a text that somebody may have sent.
    pub(super) fn text_if_any(&mut self) -> Read<Option<String>> {
        Ok(self.next::<Option<&str>>()?.map(|kept| text::sent(kept).into_owned()))
    }

    /// The next column, of eight bytes, as a number that is never negative, where it is not null.
    pub(super) fn count_if_any<T: TryFrom<i64>>(&mut self) -> Read<Option<T>> {
        Ok(self.next::<Option<i64>>()?.and_then(|count| T::try_from(count).ok()))
    }

    /// The next column as one of some words, where it is not null.
    pub(super) fn word_if_any<T>(&mut self, parse: fn(&str) -> Option<T>) -> Read<Option<T>> {
        let at = self.at;
        let Some(word) = self.next::<Option<&str>>()? else { return Ok(None) };
        parse(word).map(Some).ok_or_else(|| not_understood(at, format!("unknown word `{word}`")))
    }

    /// Leaves columns out.
    fn behind(&mut self, columns: usize) -> &mut Self {
        self.at += columns;
        self
    }

    /// The next column as a name, where there is one.
    pub(super) fn name_if_any(&mut self) -> Read<Option<Name>> {
        Ok(self.next::<Option<&str>>()?.map(Name::from))
    }

    /// The next column as a moment.
    pub(super) fn time(&mut self) -> Read<Timestamp> {
        self.next().map(Timestamp)
    }

    /// The next column as a moment that may be missing.
    pub(super) fn time_if_any(&mut self) -> Read<Option<Timestamp>> {
        Ok(self.next::<Option<i64>>()?.map(Timestamp))
    }

    /// The next column as bytes.
    pub(super) fn bytes(&mut self) -> Read<Bytes> {
        self.next::<&[u8]>().map(Bytes::copy_from_slice)
    }

    /// The next column as a hash.
    pub(super) fn hash(&mut self) -> Read<[u8; 32]> {
        let at = self.at;
        let bytes = self.next::<&[u8]>()?;
        bytes.try_into().map_err(|_| not_understood(at, "a hash has 32 bytes".into()))
    }

    /// The next column as a job's id.
    pub(super) fn job_id(&mut self) -> Read<JobId> {
        self.next().map(JobId)
    }

    /// The next column as a word of a known set.
    pub(super) fn word<T>(&mut self, parse: fn(&str) -> Option<T>) -> Read<T> {
        let at = self.at;
        let word = self.next::<&str>()?;
        parse(word).ok_or_else(|| not_understood(at, format!("unknown word `{word}`")))
    }

    /// The next column as how a job stands.
    pub(super) fn standing(&mut self) -> Read<Standing> {
        let at = self.at;
        let code = i64::from(self.next::<i16>()?);
        Standing::from_code(code).ok_or_else(|| not_understood(at, format!("unknown standing {code}")))
    }

    /// The next column as JSON, where it is not null.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Read<Option<T>> {
        let at = self.at;
        let text = self.next::<Option<&str>>()?;
        text.map(serde_json::from_str).transpose().map_err(|error| not_understood(at, error.to_string()))
    }

    /// The next column as JSON.
    pub(super) fn json_there<T: DeserializeOwned>(&mut self) -> Read<T> {
        let at = self.at;
        self.json()?.ok_or_else(|| not_understood(at, "there is no value".into()))
    }

    /// The next five columns as the tokens of a job.
    pub(super) fn usage(&mut self) -> Read<Usage> {
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
    pub(super) fn usage_of_calls(&mut self) -> Read<Usage> {
        let usage = self.usage()?;
        Ok(Usage {
            tokens_cache_write_long: self.count()?,
            tokens_audio_in: self.count()?,
            tokens_audio_out: self.count()?,
            ..usage
        })
    }
}

pub(super) fn not_understood(column: usize, reason: String) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_string(), source: reason.into() }
}

/// A number of ours as Postgres keeps it; what does not fit is held at the end of the range.
pub(super) fn to_bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A small number of ours as Postgres keeps it; what does not fit is held at the end of the range.
pub(super) fn to_integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn rate(cells: &mut Cells<'_>) -> Read<Option<u32>> {
    Ok(cells.next::<Option<i32>>()?.and_then(|rate| u32::try_from(rate).ok()))
}

/// How often a key or tenant may ask.
pub(super) fn rates(cells: &mut Cells<'_>) -> Read<Rates> {
    Ok(Rates { requests_per_minute: rate(cells)?, llm_submits_per_minute: rate(cells)? })
}

/// Labels as they are stored: nothing for none. JSON has its own escape for NUL.
pub(super) fn tags_text(tags: &[String]) -> Read<Option<String>> {
    if tags.is_empty() { Ok(None) } else { json_text(&tags).map(Some) }
}

/// What a tenant may ask for as JSON text, or nothing where nothing is set.
pub(super) fn rules_text(rules: &TenantRules) -> Read<Option<String>> {
    if rules.is_empty() { Ok(None) } else { json_text(rules).map(Some) }
}

/// A fallback chain as JSON text, or nothing where there is none.
pub(super) fn fallback_text(links: &[Link]) -> Read<Option<String>> {
    if links.is_empty() { Ok(None) } else { json_text(&links).map(Some) }
}

/// A value as JSON text.
pub(super) fn json_text<T: serde::Serialize>(value: &T) -> Read<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The columns that statements return what to push in.
pub(super) fn entry(row: &PgRow) -> Read<Entry> {
    let mut cells = Cells::of(row, 0);
    Ok(Entry {
        id: cells.job_id()?,
        epoch: Epoch(cells.next()?),
        queue: cells.name()?,
        tenant: cells.name()?,
        target: cells.name()?,
        kind: cells.word(Kind::parse)?,
        priority: u8::try_from(cells.next::<i16>()?).unwrap_or_default(),
        run_at: cells.time()?,
        suspicion: Suspicion::of(cells.small_count()?),
        key: cells.name_if_any()?,
    })
}

/// The column of [`entry`] that says how many workers were lost with the job.
pub(super) const RECOVERIES_COLUMN: usize = 8;

/// Columns of [`entry`].
pub(super) const ENTRY_COLUMNS: usize = 10;

/// The columns of `job_rows`.
pub(super) fn job(row: &PgRow) -> Read<Job> {
    let mut cells = Cells::of(row, 0);
    Ok(Job {
        id: cells.job_id()?,
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        target: cells.name()?,
        priority: u8::try_from(cells.next::<i16>()?).unwrap_or_default(),
        standing: cells.standing()?,
        epoch: Epoch(cells.next()?),
        attempts: cells.small_count()?,
        max_attempts: cells.small_count()?,
        recoveries: cells.small_count()?,
        releases: cells.small_count()?,
        redrives: cells.small_count()?,
        run_at: cells.time()?,
        start_by: cells.time_if_any()?,
        deadline: cells.time_if_any()?,
        timeout_ms: cells.next::<Option<i64>>()?.and_then(|ms| u64::try_from(ms).ok()),
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
        unique_key: cells.text_if_any()?,
        operation: cells.text_if_any()?,
        batch_id: cells.text_if_any()?,
        tags: cells.json()?.unwrap_or_default(),
        request_id: cells.text_if_any()?,
        traceparent: cells.text_if_any()?,
        error: cells.json::<JobError>()?,
        served_by: cells.text_if_any()?,
        usage: cells.usage()?,
        cost: cost(cells.next()?, cells.next()?),
        cancel_reason: cells.text_if_any()?,
        concurrency_key: cells.behind(ERROR_COLUMNS).name_if_any()?,
        key_id: cells.name_if_any()?,
        max_cost: cells.next::<Option<i64>>()?.map(Nanousd),
    })
}

/// Columns of `job_rows` that only narrow lists: the class and the signature of the error.
const ERROR_COLUMNS: usize = 2;

/// Columns of `job_rows`; what follows them in a row belongs to the statement.
pub(super) const JOB_COLUMNS: usize = 40;

fn cost(sum: i64, unknown: bool) -> Option<Nanousd> {
    (!unknown).then_some(Nanousd(sum))
}

/// The columns of `attempts_of.sql`.
pub(super) fn attempt(row: &PgRow) -> Read<AttemptRecord> {
    let mut cells = Cells::of(row, 0);
    Ok(AttemptRecord {
        epoch: Epoch(cells.next()?),
        number: cells.small_count()?,
        outcome: cells.next()?,
        worker: cells.next::<Uuid>()?.hyphenated().to_string(),
        started_at: cells.time_if_any()?,
        finished_at: cells.time()?,
        error: cells.json()?,
    })
}

/// The columns of `savings_of.sql`.
pub(super) fn saving(row: &PgRow) -> Read<Saving> {
    let mut cells = Cells::of(row, 0);
    Ok(Saving {
        job_id: cells.job_id()?,
        call_id: CallId(cells.next()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        operation: cells.text_if_any()?,
        epoch: Epoch(cells.next()?),
        provider: cells.text()?,
        model: cells.text()?,
        reason: cells.word(SavedBy::parse)?,
        usage: Usage { tokens_in: cells.count()?, tokens_out: cells.count()?, ..Usage::default() },
        saved: cells.next::<Option<i64>>()?.map(Nanousd),
        at: cells.time()?,
    })
}

/// The columns of `newest_of.sql` from `at` on.
pub(super) fn member(row: &PgRow, at: usize) -> Read<Member> {
    let mut cells = Cells::of(row, at);
    Ok(Member {
        id: cells.job_id()?,
        standing: cells.standing()?,
        accepted_at: cells.time()?,
        finished_at: cells.time_if_any()?,
        tags: cells.json()?.unwrap_or_default(),
        cost: cost(cells.next()?, cells.next()?),
    })
}

/// The columns of `recent_calls.sql`.
pub(super) fn recent_call(row: &PgRow) -> Read<RecentCall> {
    let mut cells = Cells::of(row, 0);
    Ok(RecentCall {
        provider: cells.text()?,
        model: cells.text()?,
        credential: cells.text()?,
        status: cells.text()?,
        duration_ms: cells.count()?,
        at: cells.time()?,
    })
}

/// The columns of `budget_alerts.sql`.
pub(super) fn alert(row: &PgRow) -> Read<Alert> {
    let mut cells = Cells::of(row, 0);
    Ok(Alert {
        scope: cells.word(Scope::parse)?,
        measure: cells.word(Measure::parse)?,
        period: cells.word(Period::parse)?,
        since: cells.next()?,
        level: u8::try_from(cells.next::<i16>()?).unwrap_or_default(),
        spent: cells.next()?,
        budget: cells.next()?,
        at: cells.time()?,
    })
}

/// The columns of `calls_of.sql`.
pub(super) fn call(row: &PgRow) -> Read<CallRecord> {
    let mut cells = Cells::of(row, 0);
    Ok(CallRecord {
        job_id: cells.job_id()?,
        call_id: CallId(cells.next()?),
        tenant: cells.name()?,
        queue: cells.name()?,
        kind: cells.word(Kind::parse)?,
        operation: cells.text_if_any()?,
        epoch: Epoch(cells.next()?),
        step: cells.text()?,
        sequence: cells.count()?,
        provider: cells.text()?,
        model: cells.text()?,
        status: cells.text()?,
        billed: cells.word(Billed::parse)?,
        usage: cells.usage_of_calls()?,
        tier: cells.word(Tier::parse)?,
        usage_source: cells.word(UsageSource::parse)?,
        cost: cells.next::<Option<i64>>()?.map(Nanousd),
        price_version: cells.text()?,
        duration_ms: cells.count()?,
        provider_request_id: cells.text_if_any()?,
        at: cells.time()?,
        key_id: cells.name_if_any()?,
        credential: cells.text()?,
        memo: None,
    })
}

/// The columns of `memos.sql`.
pub(super) fn memo(row: &PgRow) -> Read<Memo> {
    let mut cells = Cells::of(row, 0);
    Ok(Memo {
        call_id: CallId(cells.next()?),
        memo: MemoBody { request_hash: cells.hash()?, body: cells.bytes()?.into() },
    })
}

/// The columns of `costs.sql`.
pub(super) fn costs(row: &PgRow, query: &CostQuery) -> Read<CostRow> {
    let mut cells = Cells::of(row, 0);
    let mut group = vec![cells.text()?, cells.text()?, cells.text()?];
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
