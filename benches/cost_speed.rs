//! How fast a cost report is over a large ledger: `cargo bench -p queue-core --bench cost_speed -- [rows] [postgres:// URL]
//! [--bars]`. The database must hold nothing else; without one, a throw-away server is started. Writes that many calls of
//! 30 days as the journal's statement would, folds their sums, and asks for reports. With `--bars` each figure is a line
//! of JSON.

#![allow(clippy::print_stdout)] // its output is what it is for

use std::{error::Error, sync::Arc, time::Instant};

use queue_core::{
    journal::{
        CostColumn, CostQuery, Ledger,
        postgres::{self, PostgresConfig, PostgresJournal},
    },
    time::{Clock, SystemClock, Timestamp},
};
use sqlx::{PgConnection, Row};
use testkit::PostgresServer;

type Failure = Box<dyn Error + Send + Sync>;

/// What cargo adds to the arguments of every bench.
const CARGO_SAYS: &str = "--bench";
/// Asks for JSON.
const BARS: &str = "--bars";
/// Calls of one statement: what a busy worker process commits together.
const GROUP_ROWS: i64 = 250;
/// Calls that are written in such groups, to see what the sums cost a writer.
const GROUPED_ROWS: i64 = 25_000;
/// Calls of one statement of the bulk: the rest of the ledger only has to be there.
const BULK_ROWS: i64 = 50_000;
/// Days that the ledger spans.
const DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
/// Tenants; each has two operations and three models.
const TENANTS: i64 = 100;
/// Times that each report is asked for: the middle one is told.
const TRIES: usize = 7;

/// Calls $1 to $2 of a ledger that ends at $3.
const CALLS: &str = "
    INSERT INTO spend (job_id, call_id, tenant, queue, kind, operation, epoch, step, sequence, provider, model, status,
                       billed, tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source,
                       cost_nanousd, price_version, duration_ms, at, opens_job)
    SELECT md5('job ' || n)::uuid, md5('call ' || n)::uuid, 'tenant-' || n % $5, 'queue-' || n % 2, 'llm',
           'operation-' || n % $5 % 5 * 2 + n / $5 % 2, 0, 'chat', 0, 'openai', 'model-' || n % 3,
           CASE WHEN n % 50 = 0 THEN 'server' ELSE 'ok' END, 'yes', 900, 100, 300, 0, 0, 'provider', 1000 + n % 7000, 'v', 900,
           $3 - (n * 7919 % ($4 * 86400)) * 1000, TRUE
    FROM generate_series($1::bigint, $2::bigint - 1) AS n";

fn main() -> Result<(), Failure> {
    let (flags, mut args): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).filter(|argument| argument != CARGO_SAYS).partition(|argument| argument == BARS);
    let url = (args.len() > 1).then(|| args.remove(1));
    let rows: i64 = args.first().map_or(Ok(1_000_000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let url = url.unwrap_or_else(|| PostgresServer::shared().database());
    runtime.block_on(measure(rows, url, Told { bars: !flags.is_empty() }))
}

/// Where figures go.
#[derive(Clone, Copy)]
struct Told {
    bars: bool,
}

impl Told {
    fn figure(self, name: &str, value: f64, unit: &str) {
        if self.bars {
            println!("{{\"figure\":\"{name}\",\"value\":{value}}}");
        } else {
            println!("{:<52} {value:>14.2} {unit}", name.replace('_', " "));
        }
    }
}

async fn measure(rows: i64, url: String, told: Told) -> Result<(), Failure> {
    let config = PostgresConfig::new(url);
    let mut connection = postgres::connect(&config).await?;
    postgres::migrate(&mut connection).await?;
    let journal = PostgresJournal::open(&config, Arc::new(SystemClock)).await?;
    let now = SystemClock.now();
    let with = write(&mut connection, 0, GROUPED_ROWS, GROUP_ROWS, now).await?;
    run(&mut connection, "ALTER TABLE spend DISABLE TRIGGER USER").await?;
    let without = write(&mut connection, GROUPED_ROWS, 2 * GROUPED_ROWS, GROUP_ROWS, now).await?;
    run(&mut connection, "TRUNCATE spend, cost_tail; ALTER TABLE spend ENABLE TRIGGER USER").await?;
    told.figure("write_us_a_call_with_sums", with, "µs");
    told.figure("write_us_a_call_without", without, "µs");
    let bulk = write(&mut connection, 0, rows, BULK_ROWS, now).await?;
    told.figure("calls", rows as f64, "rows");
    told.figure("bulk_us_a_call", bulk, "µs");
    run(&mut connection, "ANALYZE spend; ANALYZE cost_tail").await?;
    told.figure("unfolded_lines", count(&mut connection, "cost_tail").await?, "lines");
    reports(&journal, "unfolded", now, told).await?;
    let began = Instant::now();
    let mut folded = 0;
    loop {
        match journal.fold_costs().await? {
            0 => break,
            moved => folded += moved,
        }
    }
    told.figure("fold_us_a_line", began.elapsed().as_secs_f64() * 1e6 / folded.max(1) as f64, "µs");
    run(&mut connection, "VACUUM ANALYZE cost_days").await?;
    told.figure("sums", count(&mut connection, "cost_days").await?, "lines");
    reports(&journal, "folded", now, told).await?;
    let began = Instant::now();
    let all = "SELECT sum(cost_nanousd)::bigint FROM spend";
    let spent: i64 = sqlx::query_scalar(all).fetch_one(&mut connection).await?;
    told.figure("reading_every_row_ms", began.elapsed().as_secs_f64() * 1e3, "ms");
    let ever = CostQuery::new(&[CostColumn::Kind], Timestamp(0), Timestamp(i64::MAX));
    let summed = journal.costs(&ever).await?.iter().map(|line| line.spend.0).sum::<i64>();
    if spent != summed {
        return Err(format!("the ledger says {spent} nano-USD and its sums {summed}").into());
    }
    Ok(())
}

/// Reports of the last 30 days: whole days, and from this time of the day on, which reads a part of a day row by row.
async fn reports(journal: &PostgresJournal, state: &str, now: Timestamp, told: Told) -> Result<(), Failure> {
    let midnight = now.0 - now.0 % DAY_MS;
    let (tomorrow, first) = (Timestamp(midnight + DAY_MS), Timestamp(midnight - DAYS * DAY_MS));
    let moment = Timestamp(first.0 + DAY_MS + DAY_MS / 2);
    let by = |words: &[CostColumn], since| CostQuery::new(words, since, tomorrow);
    for (name, query) in [
        ("by_operation", by(&[CostColumn::Operation], first)),
        ("by_tenant_model_and_day", by(&[CostColumn::Tenant, CostColumn::Model, CostColumn::Day], first)),
        ("by_model_from_noon", by(&[CostColumn::Model], moment)),
    ] {
        let mut took = vec![];
        for _ in 0..TRIES {
            let began = Instant::now();
            journal.costs(&query).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        told.figure(&format!("{state}_report_ms_{name}"), took[TRIES / 2], "ms");
    }
    Ok(())
}

/// Writes calls in groups and returns microseconds a call.
async fn write(connection: &mut PgConnection, from: i64, to: i64, group: i64, now: Timestamp) -> Result<f64, Failure> {
    let began = Instant::now();
    let mut next = from;
    while next < to {
        let end = (next + group).min(to);
        sqlx::query(CALLS).bind(next).bind(end).bind(now.0).bind(DAYS).bind(TENANTS).execute(&mut *connection).await?;
        next = end;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / (to - from) as f64)
}

async fn run(connection: &mut PgConnection, sql: &'static str) -> Result<(), Failure> {
    for statement in sql.split(';') {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn count(connection: &mut PgConnection, table: &str) -> Result<f64, Failure> {
    let count = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    Ok(sqlx::query(count).fetch_one(connection).await?.get::<i64, _>(0) as f64)
}
