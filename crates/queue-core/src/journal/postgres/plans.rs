//! Listings and claims stay bounded only as long as every statement walks along an index.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use testkit::PostgresServer;

use super::{PostgresConfig, connect, migrate, rows::Cells, sql};

/// Tables that grow with the number of jobs.
const LARGE: [&str; 14] = [
    "jobs",
    "settled_jobs_default",
    "payloads_default",
    "attempts_default",
    "memos_default",
    "spend",
    "charges",
    "savings",
    "idempotency_bodies",
    "idempotency_keys",
    "unique_keys",
    "webhook_deliveries",
    "webhook_attempts",
    "audit_log",
];

/// The plan for any arguments, as a connection that serves for long has it.
async fn plan(connection: &mut PgConnection, text: &str) -> String {
    connection.execute(AssertSqlSafe(format!("PREPARE asked AS {text}"))).await.unwrap();
    let count = "SELECT cardinality(parameter_types)::bigint FROM pg_prepared_statements WHERE name = 'asked'";
    let row = connection.fetch_one(count).await.unwrap();
    let arguments = vec!["NULL"; Cells::of(&row, 0).count::<usize>().unwrap()].join(", ");
    let arguments = if arguments.is_empty() { arguments } else { format!("({arguments})") };
    let lines = connection.fetch_all(AssertSqlSafe(format!("EXPLAIN EXECUTE asked{arguments}"))).await.unwrap();
    connection.execute("DEALLOCATE asked").await.unwrap();
    lines.iter().map(|line| line.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_statement_walks_along_an_index() {
    let config = PostgresConfig::new(PostgresServer::shared().database());
    let mut connection = connect(&config).await.unwrap();
    migrate(&mut connection).await.unwrap();
    sqlx::query(sql::SESSION).bind("30000").bind("10000").execute(&mut connection).await.unwrap();
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    for (name, text) in sql::ALL {
        let plan = plan(&mut connection, text).await;
        // A caller's own tenant is read once, and no other statement of the journal knows of it.
        assert!(!plan.contains("app.tenant") || *name == "TENANT", "{name} is read behind the wall:\n{plan}");
        for table in LARGE {
            let whole = plan.lines().find(|line| {
                line.split_once("Seq Scan on ").is_some_and(|(_, of)| of.split_whitespace().next() == Some(table))
            });
            assert!(whole.is_none(), "{name} reads all of {table}:\n{plan}");
        }
        let walks = plan.lines().zip(plan.lines().skip(1)).filter(|(line, _)| line.contains("Index"));
        let whole = walks.filter(|(line, next)| line.contains(" Scan using ") && !next.contains("Index Cond"));
        let whole: Vec<_> = whole.filter(|(line, _)| LARGE.iter().any(|table| line.contains(table))).collect();
        assert!(whole.is_empty(), "{name} walks a whole index:\n{plan}");
        // A group of jobs joined row by row with a group of arguments costs its square.
        let squares = plan.lines().any(|line| line.contains("Materialize") || line.contains("Join Filter"));
        // The deliveries of one endpoint, each with that endpoint.
        assert!(
            !squares || *name == "DELIVERIES_ENDPOINT",
            "{name} compares each row of a group with each argument:\n{plan}"
        );
        let reads_live_jobs = ["LIVE", "LIVE_FEW", "LIST_LIVE"].contains(name);
        assert!(reads_live_jobs || !plan.contains("jobs_live"), "{name} walks all live jobs:\n{plan}");
    }
    for (name, index) in [
        ("LOAD", "jobs_pkey"),
        ("LIVE", "jobs_live"),
        ("LIVE_FEW", "Index Only Scan using jobs_live"),
        ("LIST_LIVE", "jobs_live"),
        ("LIST_DEAD", "jobs_dead"),
        ("LIST_DEAD_QUEUE", "jobs_dead_of_queue"),
        ("WALK_QUEUE", "jobs_dead_of_queue"),
        ("LIST_BATCH", "jobs_batch"),
        ("LIST_CAUSE", "jobs_dead_of_cause"),
        ("WALK_CAUSE", "jobs_dead_of_cause"),
        ("DEAD_GROUPS", "Index Only Scan using jobs_dead_cause"),
        ("DEAD_GROUPS", "dead_tail_pkey"),
        ("DEAD_GROUPS_OF_TENANT", "Index Only Scan using jobs_dead_tenant"),
        ("BATCH", "Index Only Scan using jobs_batch"),
        ("COSTS", "spend_at"),
        ("COSTS", "charges_at"),
        ("COSTS", "savings_at"),
        ("COSTS", "cost_days_pkey"),
    ] {
        let text = sql::ALL.iter().find(|(known, _)| *known == name).unwrap().1;
        let plan = plan(&mut connection, text).await;
        assert!(plan.contains(index), "{name} without {index}:\n{plan}");
    }
    for (name, text) in sql::ALL.iter().filter(|(name, _)| ["LIVE", "LIST_NEWEST", "LIST_DEAD"].contains(name)) {
        let plan = plan(&mut connection, text).await;
        assert!(!plan.contains("Sort  (cost"), "{name} sorts all that it finds:\n{plan}");
    }
}

/// Row-level security is forced, so it also holds for the journal's own user where that is no superuser. Its policy is constant:
/// no statement of the hot path gets another plan by it.
#[tokio::test]
async fn the_wall_between_tenants_costs_the_journal_nothing() {
    let server = PostgresServer::shared();
    let config = PostgresConfig::new(server.database());
    let name = config.url.rsplit('/').next().unwrap().to_owned();
    let mut connection = connect(&config).await.unwrap();
    migrate(&mut connection).await.unwrap();
    server.run(
        &name,
        "CREATE ROLE plain LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO plain; GRANT longshore_switch TO plain",
    );
    server.run(&name, "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO plain; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO plain");
    sqlx::query(sql::SESSION).bind("30000").bind("10000").execute(&mut connection).await.unwrap();
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    let mut plans = Vec::new();
    for (_, text) in sql::ALL {
        plans.push(plan(&mut connection, text).await);
    }
    connection.execute("SET ROLE plain").await.unwrap();
    let forced: bool = connection.fetch_one("SELECT row_security_active('jobs')").await.unwrap().get(0);
    assert!(forced, "else this compares a superuser with itself");
    for ((name, text), free) in sql::ALL.iter().zip(plans) {
        assert_eq!(plan(&mut connection, text).await, free, "{name} has another plan with row-level security");
    }
}
