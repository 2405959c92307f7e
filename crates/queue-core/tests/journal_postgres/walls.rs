//! The second wall between tenants: row-level security, with every first wall taken away.

use std::sync::Arc;

use queue_core::{
    ids::JobId,
    job::NewJob,
    journal::{
        CostColumn, CostQuery, JobFilter, Journal, Ledger, Reads, Within,
        conformance::{NOW, Opened, call, death, job, retry, settlement, success, token},
        postgres::{OpenError, PostgresConfig, PostgresJournal, connect, migrate},
    },
    ledger::{SavedBy, Saving},
    time::{ManualClock, Timestamp},
};
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use testkit::PostgresServer;

use crate::Base;

/// A live job, one that has been tried, a success, a dead letter and a cancelled job of a tenant, with money.
async fn fill(journal: &PostgresJournal, tenant: &str) -> Vec<JobId> {
    let store = Opened::over(journal.clone());
    let of = || NewJob {
        tenant: tenant.into(),
        batch_id: Some("b".into()),
        unique_key: Some(JobId::generate().to_string()),
        key_id: Some("k".into()),
        ..job()
    };
    let jobs: Vec<NewJob> = (0..5).map(|_| of()).collect();
    journal.accept(jobs.clone()).await.unwrap();
    for (at, outcome) in [(1, retry()), (2, success()), (3, death())] {
        let mut end = settlement(&store, token(jobs[at].id, 0), outcome);
        end.calls = vec![call(&jobs[at], "chat", Some(1_000))];
        end.savings = vec![saving(&jobs[at])];
        journal.settle(end).await.unwrap();
    }
    journal.cancel(jobs[4].id, None, None, NOW).await.unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

/// An answer that needed no call.
fn saving(job: &NewJob) -> Saving {
    let of = call(job, "chat", None);
    Saving {
        call_id: of.call_id,
        job_id: job.id,
        tenant: of.tenant,
        queue: of.queue,
        kind: of.kind,
        operation: None,
        epoch: of.epoch,
        provider: of.provider,
        model: of.model,
        reason: SavedBy::Memo,
        usage: of.usage,
        saved: None,
        at: of.at,
    }
}

/// Everything that a caller of a tenant can read, asked for without saying whose: for acme's ids, and for all.
async fn found(reads: &dyn Reads, ledger: &dyn Ledger, ids: &[JobId]) -> usize {
    let nobody = Within::default();
    let mut found = reads.jobs(ids).await.unwrap().into_iter().flatten().count();
    for id in ids {
        found += usize::from(reads.payload(*id).await.unwrap().is_some());
        found += usize::from(reads.result(*id).await.unwrap().is_some());
        found += reads.fallback(*id).await.unwrap().len();
        found += reads.attempts(*id).await.unwrap().len();
        found += reads.calls(*id).await.unwrap().len();
        found += reads.savings(*id).await.unwrap().len();
    }
    found += reads.newest_of(&["b".to_owned()], 100).await.unwrap().into_iter().flatten().count();
    found += ledger.recent(Timestamp(0)).await.unwrap().len();
    let list = |filter: JobFilter| async move { reads.list(&filter).await.unwrap().jobs };
    let all = JobFilter { limit: 100, ..JobFilter::default() };
    for filter in [
        all.clone(),
        JobFilter { batch_id: Some("b".into()), ..all.clone() },
        JobFilter { standing: Some(queue_core::state::Standing::Dead), ..all.clone() },
        JobFilter { standing: Some(queue_core::state::Standing::Live), ..all.clone() },
        JobFilter { text: Some("upstream".into()), ..all.clone() },
        JobFilter { tenant: Some("acme".into()), ..all },
    ] {
        found += list(filter).await.len();
    }
    found += reads.batch("b", &nobody).await.unwrap().values().sum::<u64>() as usize;
    found += reads.dead_groups(None, &nobody).await.unwrap().iter().map(|group| group.count).sum::<u64>() as usize;
    for by in [CostColumn::Tenant, CostColumn::Day] {
        // A period of parts of days, so that rows are read beside sums.
        let query = CostQuery::new(&[by], Timestamp(1), NOW.plus_ms(1_000));
        found += ledger.costs(&query).await.unwrap().iter().map(|row| row.calls).sum::<u64>() as usize;
    }
    found
}

#[tokio::test]
async fn with_every_tenant_clause_removed_nothing_of_others_is_read() {
    let base = Base::fresh();
    let journal = base.journal().await;
    let acme = fill(&journal, "acme").await;
    let bound = |tenant: &str| (Reads::bound_to(&journal, &tenant.into()), Ledger::bound_to(&journal, &tenant.into()));
    let (reads, ledger) = bound("acme");
    let own = found(&*reads, &*ledger, &acme).await;
    // Rows, payloads, a result, attempts, calls, and each again in lists, counts and sums.
    assert!(own > 30, "{own}");
    let (reads, ledger) = bound("globex");
    assert_eq!(found(&*reads, &*ledger, &acme).await, 0);
    // Beside rows of its own, a stranger finds these and no other.
    let globex = fill(&journal, "globex").await;
    assert_eq!(
        found(&*reads, &*ledger, &acme).await,
        found(&*reads, &*ledger, &[]).await,
        "of acme's ids none is there"
    );
    let listed = reads.list(&JobFilter { limit: 100, ..JobFilter::default() }).await.unwrap().jobs;
    assert!(listed.iter().all(|job| globex.contains(&job.id)) && listed.len() == globex.len());
    // The journal itself sees both.
    assert_eq!(journal.list(&JobFilter { limit: 100, ..JobFilter::default() }).await.unwrap().jobs.len(), 10);
}

async fn count(connection: &mut PgConnection, from: &str) -> Result<i64, sqlx::Error> {
    let row = connection.fetch_one(AssertSqlSafe(format!("SELECT count(*) FROM {from}"))).await?;
    Ok(row.get(0))
}

#[tokio::test]
async fn raw_statements_of_the_bound_role_see_their_tenant_and_write_nothing() {
    let base = Base::fresh();
    let journal = base.journal().await;
    fill(&journal, "acme").await;
    let mut connection = connect(&base.config).await.unwrap();
    let readable = [
        "jobs",
        "settled_jobs",
        "payloads",
        "attempts",
        "spend",
        "charges",
        "savings",
        "cost_tail",
        "dead_tail",
        "longshore_tenant.job_rows",
        "longshore_tenant.cost_lines",
    ];
    for (tenant, sees) in [(Some("acme"), true), (Some("globex"), false), (Some(""), false), (None, false)] {
        connection.execute("BEGIN; SET LOCAL ROLE longshore_tenant").await.unwrap();
        if let Some(tenant) = tenant {
            let set = format!("SET LOCAL app.tenant = '{tenant}'");
            connection.execute(AssertSqlSafe(set)).await.unwrap();
        }
        for from in readable {
            let rows = count(&mut connection, from).await.unwrap();
            assert_eq!(rows > 0, sees, "{rows} rows of {from} as {tenant:?}");
        }
        connection.execute("ROLLBACK").await.unwrap();
    }
    // What it does not need, it may not touch; what it reads, it may not write.
    for statement in [
        "SELECT count(*) FROM api_keys",
        "SELECT count(*) FROM credentials",
        "SELECT count(*) FROM tenants",
        "SELECT count(*) FROM budgets",
        "SELECT count(*) FROM idempotency_keys",
        "SELECT count(*) FROM memos",
        "SELECT count(*) FROM public.job_rows",
        "SELECT count(*) FROM longshore_calls",
        "SELECT count(*) FROM payloads_default",
        "DELETE FROM jobs",
        "UPDATE jobs SET tenant = 'globex'",
        "INSERT INTO charges SELECT * FROM charges",
        "SELECT guard_tenants()",
        "CREATE TABLE longshore_tenant.mine (x int)",
    ] {
        connection.execute("BEGIN; SET LOCAL ROLE longshore_tenant; SET LOCAL app.tenant = 'acme'").await.unwrap();
        let refused = connection.execute(AssertSqlSafe(statement)).await.err();
        let code = refused.as_ref().and_then(|error| error.as_database_error()?.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused:?}");
        connection.execute("ROLLBACK").await.unwrap();
    }
}

/// A table that says whose its rows are and has no wall, or a view that others changed, is found here.
#[tokio::test]
async fn every_table_with_a_tenant_is_behind_the_wall() {
    let (_base, name) = Base::named();
    let open = "SELECT string_agg(c.relname, ' ') FROM pg_class c
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                  AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
                              AND (a.attname = 'tenant' OR c.relname IN ('tenants', 'budgets', 'budget_alerts')))
                  AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                           AND 2 = (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid))";
    let server = PostgresServer::shared();
    assert_eq!(server.run(&name, open), "", "end the migration that makes them with `SELECT guard_tenants()`");
    let behind = server.run(&name, "SELECT count(*) FROM pg_class WHERE relforcerowsecurity");
    assert!(behind.parse::<u32>().unwrap() >= 20, "{behind}");
    for view in ["job_rows", "cost_lines"] {
        let shape = |schema: &str| server.run(&name, &format!("SELECT pg_get_viewdef('{schema}.{view}'::regclass)"));
        assert_eq!(shape("public"), shape("longshore_tenant"), "{view} changed without `SELECT guard_tenants()`");
    }
}

/// What acts with the owner's rights reads nothing that its caller has made.
#[tokio::test]
async fn functions_of_the_owner_look_at_temporary_tables_last() {
    let (_base, name) = Base::named();
    let open = "SELECT string_agg(proname, ' ') FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace AND prosecdef
                  AND NOT coalesce('search_path=public, pg_temp' = ANY (proconfig), FALSE)";
    let server = PostgresServer::shared();
    assert_eq!(server.run(&name, open), "", "give them `SET search_path FROM CURRENT`");
    let such =
        server.run(&name, "SELECT count(*) FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace");
    assert!(such.parse::<u32>().unwrap() >= 5, "{such}");
}

/// A managed Postgres whose user may not make roles: told what an administrator has to do, and working after it.
#[tokio::test]
async fn a_user_that_makes_no_roles_is_told_what_to_ask_for() {
    let server = tokio::task::spawn_blocking(PostgresServer::start).await.unwrap();
    server.run("postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'");
    server.run("postgres", "CREATE DATABASE managed OWNER app");
    let url = format!("postgres://app:secret@127.0.0.1:{}/managed", server.port());
    let config = PostgresConfig::new(url);
    let mut connection = connect(&config).await.unwrap();
    let refused = migrate(&mut connection).await.unwrap_err();
    let OpenError::Rights { reason } = &refused else { panic!("{refused:?}") };
    let asked: Vec<&str> = reason.split('"').skip(1).step_by(2).collect();
    assert_eq!(asked.len(), 4, "{reason}");
    for statement in asked {
        server.run("postgres", statement);
    }
    migrate(&mut connection).await.unwrap();
    let journal = PostgresJournal::open(&config, Arc::new(ManualClock::at(NOW))).await.unwrap();
    // The owner of the tables, which is no superuser, is not bound; callers of a tenant are.
    let acme = fill(&journal, "acme").await;
    assert_eq!(journal.jobs(&acme).await.unwrap().into_iter().flatten().count(), 5);
    let bound = Reads::bound_to(&journal, &"globex".into());
    assert_eq!(bound.jobs(&acme).await.unwrap().into_iter().flatten().count(), 0);
    let bound = Reads::bound_to(&journal, &"acme".into());
    assert_eq!(bound.jobs(&acme).await.unwrap().into_iter().flatten().count(), 5);
    drop((journal, bound, connection));
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
