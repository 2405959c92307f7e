//! Bad surroundings: each is one line that says what to do, and shows no password.

use std::{net::TcpListener, sync::Arc, time::Duration};

use queue_core::{
    journal::{
        Journal,
        conformance::{NOW, job},
        postgres::{OpenError, PostgresConfig, PostgresJournal},
    },
    retention::Retention,
    time::ManualClock,
};
use testkit::PostgresServer;

use crate::Base;

const PASSWORD: &str = "s3cret-and-never-shown";

async fn opened(url: &str) -> Result<PostgresJournal, OpenError> {
    let config = PostgresConfig { acquire_timeout: Duration::from_secs(20), ..PostgresConfig::new(url) };
    PostgresJournal::open(&config, Arc::new(ManualClock::at(NOW))).await
}

async fn refusal(url: &str) -> OpenError {
    let error = opened(url).await.err().unwrap();
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.contains(PASSWORD) && line.contains(';'), "{line}");
    error
}

/// A URL of a role that has a password and no rights yet.
fn as_role(role: &str, password: &str, database: &str) -> String {
    format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", PostgresServer::shared().port())
}

fn make_role(name: &str) {
    let sql = format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'");
    PostgresServer::shared().run("postgres", &sql);
}

#[tokio::test]
async fn a_wrong_password_or_role_is_refused() {
    let (_, name) = Base::named();
    make_role("somebody");
    let wrong = refusal(&as_role("somebody", "wrong", &name)).await;
    assert!(matches!(wrong, OpenError::Login { .. }), "{wrong:?}");
    let nobody = refusal(&as_role("nobody_at_all", PASSWORD, &name)).await;
    assert!(matches!(nobody, OpenError::Login { .. }), "{nobody:?}");
}

#[tokio::test]
async fn a_wrong_database_is_refused() {
    let refused = refusal(&PostgresServer::shared().url("no_such_database")).await;
    assert!(matches!(refused, OpenError::Database { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_wanted() {
    let (base, _) = Base::named();
    let refused = refusal(&format!("{}?sslmode=require", base.config.url)).await;
    assert!(matches!(refused, OpenError::Tls { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_missing_server_or_a_broken_url_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = refusal(&format!("postgres://somebody:{PASSWORD}@127.0.0.1:{port}/x")).await;
    let OpenError::Unreachable { address, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*address, format!("127.0.0.1:{port}"));
    let broken = refusal(&format!("postgres://somebody:{PASSWORD}@127.0.0.1:notaport/x")).await;
    assert!(matches!(broken, OpenError::Url { .. }), "{broken:?}");
}

#[tokio::test]
async fn a_server_that_only_reads_is_refused() {
    let (base, name) = Base::named();
    PostgresServer::shared().run("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    let refused = refusal(&base.config.url).await;
    assert!(matches!(refused, OpenError::ReadOnly { .. }), "{refused:?}");
    let standby = tokio::task::spawn_blocking(PostgresServer::start_standby).await.unwrap();
    let refused = refusal(&standby.url("postgres")).await;
    let OpenError::ReadOnly { reason } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("recovery"), "{reason}");
    tokio::task::spawn_blocking(move || drop(standby)).await.unwrap();
}

#[tokio::test]
async fn a_role_needs_rights_on_rows_and_no_more() {
    let (_, name) = Base::named();
    make_role("service");
    let url = as_role("service", PASSWORD, &name);
    assert!(matches!(refusal(&url).await, OpenError::Rights { .. }));
    let server = PostgresServer::shared();
    server.run(&name, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO service");
    let OpenError::Rights { reason } = refusal(&url).await else { panic!("it may only read") };
    assert!(reason.contains("settled_jobs") && reason.contains("create_partitions"), "{reason}");
    server.run(&name, "GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO service");
    server.run(&name, "GRANT EXECUTE ON FUNCTION create_partitions(bigint, integer) TO service");
    let erasing = "erase_step(bigint, bigint, bigint, bigint[]), erase_tables(), erase_count(text, text)";
    server.run(&name, &format!("GRANT EXECUTE ON FUNCTION {erasing} TO service"));
    let OpenError::Rights { reason } = refusal(&url).await else { panic!("it may not drop days") };
    assert!(reason.contains("retention_drop") && reason.contains("audit_forget"), "{reason}");
    let forgetting = "retention_days(bigint), retention_drop(text, bigint, bigint), retention_reclaim(), audit_forget(bigint), \
                      audit_raise_floor(integer, bigint, bytea, bigint, text, bytea, bigint)";
    server.run(&name, &format!("GRANT EXECUTE ON FUNCTION {forgetting} TO service"));
    let OpenError::Rights { reason } = refusal(&url).await else { panic!("it may not read as a tenant's caller") };
    assert!(reason.contains("GRANT longshore_switch TO service"), "{reason}");
    // Whoever inherits from the role that row-level security binds is bound itself, and would see no job at all.
    server.run(&name, "GRANT longshore_tenant TO service");
    let OpenError::Rights { reason } = refusal(&url).await else { panic!("it would see nothing") };
    assert!(reason.contains("REVOKE longshore_tenant FROM service"), "{reason}");
    server.run(&name, "REVOKE longshore_tenant FROM service; GRANT longshore_switch TO service");
    let journal = opened(&url).await.unwrap();
    journal.accept(vec![job()]).await.unwrap();
    assert!(journal.days(NOW).await.unwrap().is_some(), "it drops days without owning them");
}
