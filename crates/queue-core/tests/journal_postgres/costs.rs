//! Sums of money on their way into their days: whatever commits late, dies or happens twice, each line is added once. And
//! the views for people who ask in SQL.

use queue_core::{
    ids::{CallId, JobId},
    job::NewJob,
    journal::{
        CostColumn, CostQuery, CostRow, Journal, Ledger,
        conformance::{NOW, Opened, call, death, job, settlement, success, token},
        postgres::{PostgresJournal, connect},
    },
    ledger::{CallRecord, Nanousd},
    time::Timestamp,
};
use sqlx::{Connection, PgConnection, Row};
use testkit::PostgresServer;

use crate::Base;

/// What the journal runs, for a process that dies in the middle of it.
const FOLD: &str = include_str!("../../sql/postgres/costs_fold.sql");

const DAY_MS: i64 = 86_400_000;

/// The day of [`NOW`].
fn today(by: &[CostColumn]) -> CostQuery {
    let day = Timestamp(NOW.0 - NOW.0 % DAY_MS);
    CostQuery::new(by, day, day.plus_ms(DAY_MS))
}

async fn spend(journal: &PostgresJournal) -> (i64, u64, u64) {
    let lines = journal.costs(&today(&[CostColumn::Tenant])).await.unwrap();
    let of = |line: &CostRow| (line.spend.0, line.calls, line.jobs);
    lines.first().map(of).unwrap_or_default()
}

async fn fold_all(journal: &PostgresJournal) -> u64 {
    let mut all = 0;
    loop {
        match journal.fold_costs().await.unwrap() {
            0 => return all,
            moved => all += moved,
        }
    }
}

async fn lines(connection: &mut PgConnection, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    sqlx::query(sqlx::AssertSqlSafe(count)).fetch_one(connection).await.unwrap().get(0)
}

/// A row as any writer makes it, in a transaction that the test ends when it likes.
async fn write_spend(connection: &mut PgConnection, cost: i64) {
    let id = JobId::generate();
    sqlx::query(
        "INSERT INTO spend (job_id, call_id, tenant, queue, kind, epoch, step, sequence, provider, model, status, billed,
                            tokens_in, tokens_out, tokens_cached, tokens_cache_write, tokens_reasoning, usage_source,
                            cost_nanousd, price_version, duration_ms, at, opens_job)
         VALUES ($1, $2, 'acme', 'default', 'llm', 0, 'chat', 0, 'simulated', 'small', 'ok', 'yes', 1, 1, 0, 0, 0,
                 'provider', $3, 'v', 1, $4, TRUE)",
    )
    .bind(id.0)
    .bind(CallId::of(id, "chat", 0).0)
    .bind(cost)
    .bind(NOW.0)
    .execute(connection)
    .await
    .unwrap();
}

/// Two writers whose transactions overlap, the earlier one commits last: a mark of what has been read would skip it.
#[tokio::test]
async fn a_transaction_that_commits_late_is_not_skipped() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let (mut early, mut late) = (connect(&base.config).await.unwrap(), connect(&base.config).await.unwrap());
    let mut first = early.begin().await.unwrap();
    write_spend(&mut first, 1).await;
    let mut second = late.begin().await.unwrap();
    write_spend(&mut second, 10).await;
    assert_eq!(fold_all(&journal).await, 0, "what is not committed is not there");
    second.commit().await.unwrap();
    assert_eq!(spend(&journal).await, (10, 1, 1), "unfolded");
    assert_eq!(fold_all(&journal).await, 1);
    assert_eq!(spend(&journal).await, (10, 1, 1), "folded");
    first.commit().await.unwrap();
    assert_eq!(spend(&journal).await, (11, 2, 2), "one folded, one not");
    assert_eq!(fold_all(&journal).await, 1);
    assert_eq!(spend(&journal).await, (11, 2, 2));
    assert_eq!(fold_all(&journal).await, 0);
}

/// The late calls of a job that has ended, written by two processes at once: one of them opens the job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_has_ended_is_opened_by_one_of_its_late_calls() {
    let base = Base::fresh();
    let journals = [base.journal().await, base.journal().await];
    for _ in 0..20 {
        let late = job();
        journals[0].accept(vec![late.clone()]).await.unwrap();
        journals[0].cancel(late.id, None, None, NOW).await.unwrap();
        let write = |n: usize| {
            let (journal, call) = (journals[n].clone(), call(&late, &format!("part{n}"), Some(1)));
            async move { journal.record(call).await.unwrap() }
        };
        tokio::join!(write(0), write(1));
    }
    assert_eq!(spend(&journals[0]).await, (40, 40, 20));
}

/// A scheduler that dies before its commit has moved nothing, and one that dies after it has moved everything.
#[tokio::test]
async fn a_fold_that_dies_is_done_again_or_was_done() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let mut connection = connect(&base.config).await.unwrap();
    write_spend(&mut connection, 5).await;
    write_spend(&mut connection, 6).await;
    for commits in [false, true] {
        let mut dying = connect(&base.config).await.unwrap();
        let mut transaction = dying.begin().await.unwrap();
        let moved: i64 = sqlx::query_scalar(FOLD).bind(100_i64).fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(moved, 2);
        assert_eq!(spend(&journal).await, (11, 2, 2), "others see it before or after, never between");
        assert_eq!(journal.fold_costs().await.unwrap(), 0, "one at a time");
        if commits {
            transaction.commit().await.unwrap();
        } else {
            drop(transaction);
            drop(dying);
        }
        assert_eq!(spend(&journal).await, (11, 2, 2));
    }
    assert_eq!((lines(&mut connection, "cost_tail").await, lines(&mut connection, "cost_days").await), (0, 1));
    assert_eq!(fold_all(&journal).await, 0);
    assert_eq!(spend(&journal).await, (11, 2, 2));
}

/// Several schedulers and several writers at once: nothing is lost, nothing twice, and nobody waits in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_fold_while_many_write() {
    const ROWS: usize = 60;
    let (base, name) = Base::named();
    let journals = [base.journal().await, base.journal().await];
    let write = |n: usize| {
        let journal = journals[n % 2].clone();
        async move {
            let job = NewJob { tenant: ["acme", "globex", "initech"][n % 3].into(), ..job() };
            journal.accept(vec![job.clone()]).await.unwrap();
            let second = CallRecord { model: format!("model-{}", n % 7), ..call(&job, "map/2", Some(1_000)) };
            let mut end = settlement(&Opened::over(journal.clone()), token(job.id, 0), success());
            end.calls = vec![call(&job, "map/1", Some(1)), second];
            journal.settle(end).await.unwrap();
        }
    };
    let fold = |n: usize| {
        let journal = journals[n % 2].clone();
        async move {
            let mut moved = 0;
            for _ in 0..ROWS {
                moved += journal.fold_costs().await.unwrap();
                tokio::task::yield_now().await;
            }
            moved
        }
    };
    let writing = futures::future::join_all((0..ROWS).map(|n| tokio::spawn(write(n))));
    let folding = futures::future::join_all((0..4).map(|n| tokio::spawn(fold(n))));
    let (written, folded) = tokio::join!(writing, folding);
    written.into_iter().for_each(|task| task.unwrap());
    folded.into_iter().for_each(|task| _ = task.unwrap());
    fold_all(&journals[0]).await;
    let rows = journals[0].costs(&today(&[CostColumn::Kind])).await.unwrap();
    let told: Vec<_> = rows.iter().map(|row| (row.spend.0, row.calls, row.jobs, row.charge)).collect();
    let all = ROWS as i64 * 1_001;
    assert_eq!(told, [(all, 2 * ROWS as u64, ROWS as u64, Some(Nanousd(all)))]);
    let deadlocks = PostgresServer::shared()
        .run(&name, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(deadlocks, "0");
}

/// Two processes that pay for one job at the same time: it is one job.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_two_processes_pay_for_is_one_job() {
    let base = Base::fresh();
    let (a, b) = (base.journal().await, base.journal().await);
    for _ in 0..20 {
        let job = job();
        a.accept(vec![job.clone()]).await.unwrap();
        let (x, y) = tokio::join!(a.record(call(&job, "map/1", Some(1))), b.record(call(&job, "map/2", Some(1))));
        x.and(y).unwrap();
    }
    assert_eq!(spend(&a).await, (40, 40, 20));
}

/// The views are for people: they say what the reports say, and hold no prompt, answer or key.
#[tokio::test]
async fn the_views_say_what_the_reports_say() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let store = Opened::over(journal.clone());
    let (paid, dead) = (NewJob { operation: Some("tag".into()), ..job() }, job());
    journal.accept(vec![paid.clone(), dead.clone()]).await.unwrap();
    let mut end = settlement(&store, token(paid.id, 0), success());
    end.calls = vec![call(&paid, "chat", Some(1_500_000_000)), call(&paid, "second", None)];
    journal.settle(end).await.unwrap();
    let mut end = settlement(&store, token(dead.id, 0), death());
    end.calls = vec![call(&dead, "chat", Some(7))];
    journal.settle(end).await.unwrap();
    let mut connection = connect(&base.config).await.unwrap();
    for folds in [false, true] {
        if folds {
            assert!(fold_all(&journal).await > 0);
        }
        let rows = journal.costs(&today(&[CostColumn::Operation])).await.unwrap();
        let sums = "SELECT operation, sum(calls)::bigint, sum(spend_nanousd)::bigint, sum(wasted_nanousd)::bigint,
                           sum(charge_nanousd)::bigint, sum(calls_unpriced)::bigint, sum(jobs)::bigint, sum(spend_usd)::text
                    FROM longshore_costs WHERE day = $1::date GROUP BY operation ORDER BY 3 DESC";
        let day = NOW.to_string()[..10].to_owned();
        let sums = sums.replace("$1::date", &format!("DATE '{day}'"));
        let seen = sqlx::query(sqlx::AssertSqlSafe(sums)).fetch_all(&mut connection).await.unwrap();
        let seen: Vec<_> = seen
            .iter()
            .map(|row| (row.get::<String, _>(0), [1, 2, 3, 4, 5, 6].map(|at| row.get::<i64, _>(at))))
            .collect();
        let told = |row: &CostRow| {
            let numbers = [row.calls as i64, row.spend.0, row.wasted.0, row.charge.unwrap().0];
            let [calls, spend, wasted, charge] = numbers;
            let rest = [row.calls_unpriced as i64, row.jobs as i64];
            (row.group[0].clone(), [calls, spend, wasted, charge, rest[0], rest[1]])
        };
        assert_eq!(seen, rows.iter().map(told).collect::<Vec<_>>());
        assert_eq!(seen[0], ("tag".to_owned(), [2, 1_500_000_000, 0, 1_500_000_000, 1, 1]));
        assert_eq!(seen[1], (String::new(), [1, 7, 7, 0, 0, 1]));
    }
    let text =
        "SELECT string_agg(concat_ws(' ', step, status, cost_usd, coalesce(waste, '-'), tier), ', ' ORDER BY cost_usd)
                FROM longshore_calls";
    let calls: String = sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap();
    assert_eq!(calls, "chat ok 0.000000007 died standard, chat ok 1.500000000 - standard, second ok - standard");
    let text = "SELECT string_agg(concat_ws(' ', state, coalesce(operation, '-'), attempts, calls, cost_usd, cost_unknown), ', '
                                  ORDER BY cost_usd) FROM longshore_jobs";
    let jobs: String = sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap();
    assert_eq!(jobs, "dead - 1 1 0.000000007 f, succeeded tag 1 2 1.500000000 t");
}

/// Whoever may only read the views reads the views, and nothing else.
#[tokio::test]
async fn a_reader_of_the_views_reads_nothing_else() {
    let (base, name) = Base::named();
    let journal = base.journal().await;
    journal.record(call(&job(), "chat", Some(7))).await.unwrap();
    let mut connection = connect(&base.config).await.unwrap();
    let setup = format!(
        "CREATE ROLE \"reader of {name}\";
         GRANT SELECT ON longshore_costs, longshore_calls, longshore_jobs TO \"reader of {name}\";
         SET ROLE \"reader of {name}\""
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(setup)).execute(&mut connection).await.unwrap();
    for view in ["longshore_costs", "longshore_calls"] {
        assert_eq!(lines(&mut connection, view).await, 1, "{view}");
    }
    assert_eq!(lines(&mut connection, "longshore_jobs").await, 0);
    for table in ["spend", "payloads", "jobs", "memos", "api_keys", "cost_days", "credentials"] {
        let asked = sqlx::AssertSqlSafe(format!("SELECT 1 FROM {table}"));
        assert!(sqlx::query(asked).execute(&mut connection).await.is_err(), "{table}");
    }
    sqlx::raw_sql("RESET ROLE").execute(&mut connection).await.unwrap();
}
