//! Migrations: up, down, up again; read before they run; refused where they are unknown.

use queue_core::journal::postgres::{
    MIGRATIONS, OpenError, PostgresConfig, PostgresJournal, SCHEMA_OLDEST, connect, migrate, pending_sql, roll_back,
    schema_version,
};
use queue_core::{
    ids::Epoch,
    job::NewJob,
    journal::{
        Catalog, CostColumn, CostQuery, Journal, Ledger, QueueSettings, Reads,
        conformance::{NOW, Opened, call, death, job, settlement, success, token},
    },
    ledger::CallRecord,
    time::{ManualClock, Timestamp},
};
use std::sync::Arc;
use testkit::PostgresServer;

/// Everything that a migration makes: columns, constraints, indexes, functions.
const SHAPE: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default)
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT relname || coalesce(array_to_string(reloptions, ','), '') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace
    ) AS lines (line)";

fn shape(url: &str) -> String {
    PostgresServer::shared().run(url.rsplit('/').next().unwrap(), SHAPE)
}

async fn opened(config: &PostgresConfig) -> Result<PostgresJournal, OpenError> {
    PostgresJournal::open(config, Arc::new(ManualClock::at(NOW))).await
}

#[tokio::test]
async fn every_migration_goes_up_down_and_up() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    let names: Vec<_> = MIGRATIONS.iter().map(|step| step.name).collect();
    assert_eq!(migrate(&mut connection).await.unwrap(), names);
    let first = shape(&config.url);
    for version in (0..names.len()).rev() {
        if MIGRATIONS[version].down.is_none() {
            assert!(matches!(roll_back(&mut connection, version).await, Err(OpenError::Irreversible { .. })));
            continue;
        }
        assert_eq!(roll_back(&mut connection, version).await.unwrap(), [names[version]]);
        assert_eq!(schema_version(&mut connection).await.unwrap(), version);
        assert_eq!(migrate(&mut connection).await.unwrap(), names[version..], "one step up again");
        assert_eq!(shape(&config.url), first, "after {} again", names[version]);
        roll_back(&mut connection, version).await.unwrap();
    }
    let rest = PostgresServer::shared().run(
        config.url.rsplit('/').next().unwrap(),
        "SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'",
    );
    assert_eq!(rest, "schema_migrations", "what a step made is gone with it");
    assert_eq!(migrate(&mut connection).await.unwrap(), names);
    assert_eq!(shape(&config.url), first);
    opened(&config).await.unwrap().accept(vec![job()]).await.unwrap();
}

/// Live, settled and queue settings of before concurrency keys are there after the step, without keys.
#[tokio::test]
async fn what_was_there_before_concurrency_keys_stays() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    migrate(&mut connection).await.unwrap();
    let (live, ended) = (job(), job());
    let settings = QueueSettings { concurrency: Some(3), ..QueueSettings::default() };
    {
        let journal = opened(&config).await.unwrap();
        journal.accept(vec![live.clone(), ended.clone()]).await.unwrap();
        journal.cancel(ended.id, None, None, NOW).await.unwrap();
        journal.set_queue(&"default".into(), settings.clone()).await.unwrap();
    }
    roll_back(&mut connection, 3).await.unwrap();
    assert_eq!(opened(&config).await.err(), Some(OpenError::SchemaOld { found: 3, oldest: SCHEMA_OLDEST }));
    let later: Vec<_> = MIGRATIONS[3..].iter().map(|step| step.name).collect();
    assert_eq!(migrate(&mut connection).await.unwrap(), later);
    let journal = opened(&config).await.unwrap();
    for kept in journal.jobs(&[live.id, ended.id]).await.unwrap() {
        let kept = kept.unwrap();
        assert_eq!((&kept.target, kept.concurrency_key), (&live.target, None));
    }
    assert_eq!(journal.queues().await.unwrap()["default"].value, settings);
    let keyed = NewJob { concurrency_key: Some("k".into()), ..job() };
    journal.accept(vec![keyed.clone()]).await.unwrap();
    journal.cancel(keyed.id, None, None, NOW).await.unwrap();
    let kept = journal.jobs(&[keyed.id]).await.unwrap().remove(0).unwrap();
    assert_eq!(kept.concurrency_key, keyed.concurrency_key);
}

/// Money of before the sums is in them after the step, with what the step has to find out about it.
#[tokio::test]
async fn what_was_spent_before_there_were_sums_is_in_them() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    migrate(&mut connection).await.unwrap();
    let (paid, dead) = (job(), job());
    let query = CostQuery::new(&[CostColumn::Model, CostColumn::Day], Timestamp(0), Timestamp(i64::MAX));
    let totals = CostQuery { by: vec![CostColumn::Tenant], ..query.clone() };
    let before = {
        let journal = opened(&config).await.unwrap();
        let store = Opened::over(journal.clone());
        journal.accept(vec![paid.clone(), dead.clone()]).await.unwrap();
        let first = call(&paid, "chat", Some(500));
        journal.record(first.clone()).await.unwrap();
        journal.record(CallRecord { epoch: Epoch(1), ..first }).await.unwrap();
        journal.settle(settlement(&store, token(paid.id, 0), success())).await.unwrap();
        let mut end = settlement(&store, token(dead.id, 0), death());
        end.calls = vec![call(&dead, "map/1", Some(7)), call(&dead, "map/2", None)];
        journal.settle(end).await.unwrap();
        (journal.costs(&query).await.unwrap(), journal.costs(&totals).await.unwrap())
    };
    assert_eq!((before.1[0].spend.0, before.1[0].wasted.0, before.1[0].jobs), (1_007, 507, 2));
    roll_back(&mut connection, 4).await.unwrap();
    migrate(&mut connection).await.unwrap();
    let journal = opened(&config).await.unwrap();
    assert_eq!((journal.costs(&query).await.unwrap(), journal.costs(&totals).await.unwrap()), before);
}

#[tokio::test]
async fn processes_that_migrate_at_once_do_it_once() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let (mut a, mut b) = (connect(&config).await.unwrap(), connect(&config).await.unwrap());
    let (x, y) = tokio::join!(migrate(&mut a), migrate(&mut b));
    assert_eq!(x.unwrap().len() + y.unwrap().len(), MIGRATIONS.len());
}

#[tokio::test]
async fn what_would_run_can_be_read_before() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    let sql = pending_sql(&mut connection).await.unwrap();
    for step in MIGRATIONS {
        assert!(sql.contains(step.name) && sql.contains(step.up.trim_end()), "{}", step.name);
    }
    assert_eq!(schema_version(&mut connection).await.unwrap(), 0, "reading ran nothing");
    migrate(&mut connection).await.unwrap();
    assert_eq!(pending_sql(&mut connection).await.unwrap(), "");
}

#[tokio::test]
async fn a_schema_that_this_program_does_not_know_is_refused() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    let old = opened(&config).await.err().unwrap();
    assert_eq!(old, OpenError::SchemaOld { found: 0, oldest: SCHEMA_OLDEST });
    assert!(old.to_string().contains("run `longshore migrate`"), "{old}");
    migrate(&mut connection).await.unwrap();
    sqlx::query("INSERT INTO schema_migrations (version, name) VALUES (999, 'later')")
        .execute(&mut connection)
        .await
        .unwrap();
    let newer = OpenError::SchemaNew { found: 999, newest: MIGRATIONS.len() };
    assert_eq!(opened(&config).await.err(), Some(newer.clone()));
    assert_eq!(migrate(&mut connection).await, Err(newer.clone()));
    assert_eq!(roll_back(&mut connection, 0).await, Err(newer));
}
