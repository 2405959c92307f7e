//! The conformance suite over a real file, and what only this store does.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
};

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesOrdered};
use tempfile::TempDir;

use super::{MIGRATIONS, SqliteJournal, list, schema_version, sql::read, writer::Batch};
use crate::{
    audit::{AuditEntry, AuditPlace, Chain},
    ids::Epoch,
    job::NewJob,
    journal::{
        Accepted, Catalog, CostColumn, CostQuery, CostRow, JobFilter, Journal, JournalError, Ledger, Reads, Within,
        conformance::{Fixture, NOW, Opened, call, death, job, settlement, success, token},
    },
    ledger::CallRecord,
    time::{ManualClock, Timestamp},
};

struct File {
    folder: TempDir,
    clock: ManualClock,
}

impl File {
    fn fresh() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: ManualClock::at(NOW) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    fn journal(&self) -> SqliteJournal {
        SqliteJournal::open(&self.path(), Arc::new(self.clock.clone())).unwrap()
    }
}

#[async_trait]
impl Fixture for File {
    async fn open(&self) -> Opened {
        Opened::over(self.journal())
    }

    fn clock(&self) -> ManualClock {
        self.clock.clone()
    }

    async fn tables_with(&self, text: &str) -> Vec<(String, bool, u64)> {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        let names = |query: &str, of: &[&str]| -> Vec<String> {
            let mut statement = connection.prepare(query).unwrap();
            let names = statement.query_map(rusqlite::params_from_iter(of), |row| row.get(0)).unwrap();
            names.collect::<Result<_, _>>().unwrap()
        };
        let tables = names("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'", &[]);
        let count = |table: String| {
            let columns = names("SELECT name FROM pragma_table_info(?1)", &[&table]);
            let any = columns.iter().map(|column| format!("instr(CAST(\"{column}\" AS TEXT), ?1) > 0"));
            let query = format!("SELECT count(*) FROM \"{table}\" WHERE {}", any.collect::<Vec<_>>().join(" OR "));
            let rows: i64 = connection.query_row(&query, [text], |row| row.get(0)).unwrap();
            (table, columns.iter().any(|column| column == "tenant"), rows.unsigned_abs())
        };
        tables.into_iter().map(count).collect()
    }
}

crate::journal_conformance!(File::fresh());

/// A verb that holds the writer until the test lets it go, so that what is asked meanwhile is one group.
struct Gate {
    held: mpsc::Sender<()>,
    go: Mutex<mpsc::Receiver<()>>,
}

fn hold(_: &mut Batch<'_>, gate: &Gate) -> rusqlite::Result<()> {
    gate.held.send(()).unwrap();
    gate.go.lock().unwrap().recv().unwrap();
    Ok(())
}

/// Asks for every job's accept while the writer is held; what each was answered.
async fn accept_as_one_group(journal: &SqliteJournal, jobs: Vec<NewJob>) -> Vec<Result<Accepted, JournalError>> {
    let ((held, is_held), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    let gate = Gate { held, go: Mutex::new(may_go) };
    let holder = tokio::spawn({
        let journal = journal.clone();
        async move { journal.writer.submit(1, gate, hold).await }
    });
    tokio::task::spawn_blocking(move || is_held.recv()).await.unwrap().unwrap();
    let mut answers: FuturesOrdered<_> = jobs.into_iter().map(|job| journal.accept(vec![job])).collect();
    // One poll of each puts it into the writer's queue.
    assert!(futures::poll!(answers.next()).is_pending());
    go.send(()).unwrap();
    holder.await.unwrap().unwrap();
    answers.map(|answer| answer.map(|mut one| one.remove(0))).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_fails_alone_in_its_group() {
    let file = File::fresh();
    let journal = file.journal();
    let bad = NewJob { max_attempts: 0, ..job() };
    let jobs = vec![job(), bad, job(), job()];
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let answers = accept_as_one_group(&journal, jobs).await;
    assert!(matches!(answers[1], Err(JournalError::Corrupt(_))), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(Accepted::New))).count(), 3);
    let found = journal.jobs(&ids).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(journal.totals().await.unwrap()["default"].accepted, 3, "totals of undone groups are undone too");
}

fn limit_pages(batch: &mut Batch<'_>, pages: &i64) -> rusqlite::Result<()> {
    batch.connection().pragma_update(None, "max_page_count", pages)
}

fn count_pages(batch: &mut Batch<'_>, (): &()) -> rusqlite::Result<i64> {
    batch.connection().pragma_query_value(None, "page_count", |row| row.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_and_passes() {
    let file = File::fresh();
    let journal = file.journal();
    let pages = journal.writer.submit(1, (), count_pages).await.unwrap();
    journal.writer.submit(1, pages, limit_pages).await.unwrap();
    let jobs: Vec<_> = (0..8).map(|_| NewJob { payload: vec![b'x'; 50_000].into(), ..job() }).collect();
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    for answer in accept_as_one_group(&journal, jobs.clone()).await {
        let Err(JournalError::Unavailable(reason)) = answer else { panic!("acknowledged: {answer:?}") };
        assert!(reason.contains("the disk is full"), "{reason}");
    }
    assert!(journal.jobs(&ids).await.unwrap().iter().all(Option::is_none));
    assert!(journal.totals().await.unwrap().is_empty());
    journal.writer.submit(1, 1_000_000, limit_pages).await.unwrap();
    assert_eq!(journal.accept(jobs).await.unwrap(), vec![Accepted::New; 8], "the same ids, once there is room");
}

fn fail_as_the_disk_does(_: &mut Batch<'_>, (): &()) -> rusqlite::Result<()> {
    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC), None))
}

#[tokio::test]
async fn a_connection_whose_file_failed_is_replaced() {
    let file = File::fresh();
    let journal = file.journal();
    for _ in 0..3 {
        let failed = journal.writer.submit(1, (), fail_as_the_disk_does).await;
        assert!(matches!(failed, Err(JournalError::Unavailable(_))), "{failed:?}");
        assert_eq!(journal.accept(vec![job()]).await.unwrap(), [Accepted::New]);
        journal.check().await.unwrap();
    }
    assert_eq!(journal.live_counts().await.unwrap()["default"], 3);
}

/// Makes the file what a version with so many steps would have written: its tables with what they share with today's.
fn take_back(file: &File, steps: usize) {
    let old = file.folder.path().join("old.db");
    let connection = rusqlite::Connection::open(&old).unwrap();
    for step in &MIGRATIONS[..steps] {
        connection.execute_batch(step).unwrap();
    }
    connection.pragma_update(None, "user_version", steps as i64).unwrap();
    connection.pragma_update(None, "application_id", 0x4c53_484f).unwrap();
    connection.execute("ATTACH ?1 AS today", [file.path().to_str().unwrap()]).unwrap();
    let words = |sql: &str, table: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let found = statement.query_map([table], |row| row.get(0)).unwrap();
        found.map(Result::unwrap).collect()
    };
    for table in words("SELECT name FROM main.sqlite_schema WHERE type = ?1 AND name NOT LIKE 'sqlite_%'", "table") {
        let of =
            "SELECT name FROM pragma_table_info(?1, 'main') INTERSECT SELECT name FROM pragma_table_info(?1, 'today')";
        let columns = words(of, &table).join(", ");
        let copy = format!("INSERT OR REPLACE INTO main.{table} ({columns}) SELECT {columns} FROM today.{table}");
        connection.execute_batch(&copy).unwrap();
    }
    drop(connection);
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(file.folder.path().join(format!("journal.db{ending}")));
    }
    std::fs::rename(old, file.path()).unwrap();
}

#[tokio::test]
async fn a_journal_of_before_concurrency_keys_keeps_its_jobs() {
    let file = File::fresh();
    let job = job();
    let connection = rusqlite::Connection::open(file.path()).unwrap();
    for step in &MIGRATIONS[..4] {
        connection.execute_batch(step).unwrap();
    }
    connection.pragma_update(None, "user_version", 4).unwrap();
    connection.pragma_update(None, "application_id", 0x4c53_484f).unwrap();
    let row = "INSERT INTO jobs (seq, id, tenant, queue, kind, target, priority, max_attempts, run_at, accepted_at)
               VALUES (1, ?1, 'acme', 'default', 'llm', ?2, 5, 3, 0, 0)";
    connection.execute(row, rusqlite::params![job.id.as_bytes(), job.target.as_str()]).unwrap();
    let rest = "INSERT INTO payloads (seq, body) VALUES (1, x'7b7d');
                INSERT INTO queues (name, version, concurrency) VALUES ('default', 1, 3);";
    connection.execute_batch(rest).unwrap();
    drop(connection);

    let journal = file.journal();
    assert_eq!(schema_version(&file.path()).unwrap(), Some(MIGRATIONS.len()));
    let kept = journal.jobs(&[job.id]).await.unwrap().remove(0).unwrap();
    assert_eq!((kept.id, &kept.target, kept.concurrency_key), (job.id, &job.target, None));
    let queues = journal.queues().await.unwrap();
    assert_eq!((queues["default"].value.concurrency, queues["default"].value.key_concurrency), (Some(3), None));
}

/// Money of before the sums is in them after the step, and the views for people say the same.
#[tokio::test]
async fn what_was_spent_before_there_were_sums_is_in_them() {
    let file = File::fresh();
    let query = CostQuery::new(&[CostColumn::Operation], Timestamp(0), Timestamp(i64::MAX));
    let by_model = CostQuery { by: vec![CostColumn::Model, CostColumn::Day], ..query.clone() };
    let (paid, dead) = (NewJob { operation: Some("tag".into()), ..job() }, job());
    let reports =
        async |journal: &SqliteJournal| (journal.costs(&query).await.unwrap(), journal.costs(&by_model).await.unwrap());
    let before = {
        let journal = file.journal();
        let store = Opened::over(file.journal());
        journal.accept(vec![paid.clone(), dead.clone()]).await.unwrap();
        let first = call(&paid, "chat", Some(1_500_000_000));
        journal.record(first.clone()).await.unwrap();
        journal.record(CallRecord { epoch: Epoch(1), cost: None, ..first }).await.unwrap();
        journal.settle(settlement(&store, token(paid.id, 0), success())).await.unwrap();
        let mut end = settlement(&store, token(dead.id, 0), death());
        end.calls = vec![call(&dead, "chat", Some(7))];
        journal.settle(end).await.unwrap();
        reports(&journal).await
    };
    take_back(&file, 5);
    let journal = file.journal();
    assert_eq!(reports(&journal).await, before);
    let causes = journal.dead_groups(None, &Within::default()).await.unwrap();
    assert_eq!(causes.iter().map(|cause| (cause.count, cause.cost_nanousd)).collect::<Vec<_>>(), [(1, 7)]);

    let connection = rusqlite::Connection::open(file.path()).unwrap();
    let seen = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let lines = statement.query_map([], |row| row.get(0)).unwrap();
        lines.map(Result::unwrap).collect()
    };
    let day = &NOW.to_string()[..10];
    let line = |row: &CostRow, usd: &str| {
        let numbers = [row.calls, row.calls_unpriced, row.jobs].map(|number| number.to_string()).join(" ");
        let charge = row.charge.unwrap().0;
        format!("{} {numbers} {} {} {charge} {usd}", row.group[0], row.spend.0, row.wasted.0)
    };
    let [tag, rest] = &before.0[..] else { panic!("{:?}", before.0) };
    let sums = format!(
        "SELECT operation || ' ' || sum(calls) || ' ' || sum(calls_unpriced) || ' ' || sum(jobs) || ' ' ||
                sum(spend_nanousd) || ' ' || sum(wasted_nanousd) || ' ' || sum(charge_nanousd) || ' ' || max(spend_usd)
         FROM longshore_costs WHERE day = '{day}' GROUP BY operation ORDER BY sum(spend_nanousd) DESC"
    );
    assert_eq!(seen(&sums), [line(tag, "1.500000000"), line(rest, "0.000000007")]);
    let calls = "SELECT step || ' ' || coalesce(cost_usd, '?') || ' ' || coalesce(waste, '-') || ' ' || tier
                 FROM longshore_calls ORDER BY cost_nanousd DESC, waste";
    let expected = ["chat 1.500000000 - standard", "chat 0.000000007 died standard", "chat ? superseded standard"];
    assert_eq!(seen(calls), expected);
    let jobs = "SELECT id || ' ' || state || ' ' || cost_usd || ' ' || cost_unknown FROM longshore_jobs ORDER BY cost_usd DESC";
    let id = |job: &NewJob| job.id.0.simple().to_string();
    let expected = [format!("{} succeeded 1.500000000 1", id(&paid)), format!("{} dead 0.000000007 0", id(&dead))];
    assert_eq!(seen(jobs), expected);
}

#[test]
fn a_file_that_is_no_journal_of_this_version_is_refused() {
    let refusal = |path: &Path| match SqliteJournal::open(path, Arc::new(ManualClock::at(NOW))) {
        Err(JournalError::Corrupt(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    let newer = File::fresh();
    drop(newer.journal());
    rusqlite::Connection::open(newer.path()).unwrap().pragma_update(None, "user_version", 999).unwrap();
    assert!(refusal(&newer.path()).contains("version 999"), "{}", refusal(&newer.path()));
    let foreign = File::fresh();
    rusqlite::Connection::open(foreign.path()).unwrap().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
    assert!(refusal(&foreign.path()).contains("not a journal"));
    let text = File::fresh();
    std::fs::write(text.path(), "this is a text file and not a database ".repeat(100)).unwrap();
    assert!(refusal(&text.path()).contains("not a database"), "{}", refusal(&text.path()));
    let missing = File::fresh();
    let nowhere = SqliteJournal::open(&missing.path().join("deeper/journal.db"), Arc::new(ManualClock::at(NOW)));
    assert!(matches!(nowhere.err(), Some(JournalError::Unavailable(_))));
}

/// Listings stay bounded only as long as SQLite chooses these indexes.
#[test]
fn every_question_uses_its_index() {
    let file = File::fresh();
    drop(file.journal());
    let connection = rusqlite::Connection::open(file.path()).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = vec![rusqlite::types::Null; statement.parameter_count()];
        let lines = statement.query_map(rusqlite::params_from_iter(unbound), |row| row.get::<_, String>(3)).unwrap();
        lines.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    for (sql, index) in [
        (read::LOAD, "sqlite_autoindex_jobs_1 (id=?)"),
        (read::JOB, "sqlite_autoindex_jobs_1 (id=?)"),
        (read::LIVE, "jobs_live ("),
        (read::LIVE_FEW, "COVERING INDEX jobs_live"),
        (read::LIST_NEWEST, "sqlite_autoindex_jobs_1 (id>? AND id<?)"),
        (read::LIST_LIVE, "jobs_live (run_at>? AND run_at<?)"),
        (read::LIST_DEAD, "jobs_dead (id>? AND id<?)"),
        (read::LIST_DEAD_QUEUE, "jobs_dead_of_queue (queue=? AND id>? AND id<?)"),
        (read::WALK_QUEUE, "jobs_dead_of_queue (queue=? AND id<?)"),
        (read::LIST_BATCH, "jobs_batch (batch_id=? AND id>? AND id<?)"),
        (read::WALK_NEWEST, "COVERING INDEX sqlite_autoindex_jobs_1 (id<?)"),
        (read::WALK_DEAD, "COVERING INDEX jobs_dead (id<?)"),
        (read::WALK_BATCH, "COVERING INDEX jobs_batch (batch_id=? AND id<?)"),
        (read::DEAD_GROUPS, "COVERING INDEX jobs_dead_cause"),
        (read::BATCH, "COVERING INDEX jobs_batch"),
        (read::ATTEMPTS_OF, "PRIMARY KEY (seq=?)"),
        (read::CALLS_OF, "sqlite_autoindex_spend_1 (job_id=?)"),
        (read::MEMOS, "sqlite_autoindex_memos_1 (job_id=?)"),
        (read::COSTS, "spend_at (at>? AND at<?)"),
        (read::COSTS, "charges_at (at>? AND at<?)"),
        (read::COSTS, "savings_at (at>? AND at<?)"),
        (read::COSTS, "PRIMARY KEY (day>? AND day<?)"),
    ] {
        let plan = plan(sql);
        assert!(plan.contains(index), "{index} not in: {plan}");
    }
    let walks = [read::WALK_NEWEST, read::WALK_DEAD, read::WALK_BATCH];
    for sorted in [read::LIVE, read::LIST_NEWEST, read::LIST_DEAD, read::LIST_BATCH].into_iter().chain(walks) {
        assert!(!plan(sorted).contains("ORDER BY"), "sorts all that it finds: {}", plan(sorted));
    }
}

/// A filter that few rows match is answered step by step: each page costs no more than its steps, and together they
/// hold every match once.
#[tokio::test]
async fn a_walk_stops_at_its_bound_and_goes_on_behind_it() {
    let file = File::fresh();
    let journal = file.journal();
    let jobs: Vec<_> = (0..40)
        .map(|n| NewJob {
            queue: if n % 13 == 0 { "rare" } else { "default" }.into(),
            batch_id: Some("b".into()),
            ..job()
        })
        .collect();
    journal.accept(jobs.clone()).await.unwrap();
    let filters = [
        JobFilter { queue: Some("rare".into()), limit: 2, ..JobFilter::default() },
        JobFilter { queue: Some("rare".into()), batch_id: Some("b".into()), limit: 2, ..JobFilter::default() },
    ];
    for filter in filters {
        let mut page = filter.clone();
        let (mut found, mut ends) = (Vec::new(), Vec::new());
        loop {
            let asked = page.clone();
            let listed = journal.readers.read(move |connection| list::list(connection, &asked, &[3, 6])).await.unwrap();
            assert!(listed.jobs.len() <= 2);
            found.extend(listed.jobs.iter().map(|job| job.id));
            let Some(end) = listed.go_on_behind.or(listed.jobs.last().map(|job| job.id)) else { break };
            ends.push(jobs.iter().position(|job| job.id == end).unwrap());
            page.before = Some(end);
        }
        assert_eq!(found, [39, 26, 13, 0].map(|n: usize| jobs[n].id), "{filter:?}");
        // Pages that end with a match begin a walk of their own behind it.
        assert!(ends.windows(2).all(|pair| pair[0] - pair[1] <= 9), "{ends:?}");
    }
}

#[tokio::test]
async fn the_audit_log_is_only_added_to_and_a_change_behind_its_back_is_named() {
    let file = File::fresh();
    let store = file.open().await;
    for n in 0..5 {
        let entry = AuditEntry { subject: format!("/v1/queues/{n}"), status: 200, ..AuditEntry::default() };
        store.audit.append_audit(entry).await.unwrap();
    }
    let behind = rusqlite::Connection::open(file.path()).unwrap();
    for refused in [
        "UPDATE audit_log SET status = 403",
        "DELETE FROM audit_log",
        "DELETE FROM audit_heads",
        "UPDATE audit_heads SET seq = seq - 1",
    ] {
        let error = behind.execute(refused, []).unwrap_err();
        assert!(
            error.to_string().contains("audit log only") || error.to_string().contains("only ever added to"),
            "{refused}: {error}"
        );
    }
    let change = "DROP TRIGGER audit_log_changed; UPDATE audit_log SET subject = '/v1/queues/x' WHERE seq = 3";
    behind.execute_batch(change).unwrap();
    let rows = store.audit.audit_rows(AuditPlace { behind: (0, 0), ascending: true }, 100).await.unwrap();
    let mut chain = Chain::default();
    let tampered = rows.iter().find_map(|row| chain.follow(row).err()).unwrap();
    assert_eq!((tampered.seq, chain.rows()), (3, 2), "{tampered:?}");
}
