//! `longshore migrate` at a terminal and away from one, on a real Postgres.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use queue_core::journal::postgres::{MIGRATIONS, PostgresConfig, connect, migrate, roll_back, schema_version};
use testkit::PostgresServer;

/// A database whose schema is one step behind.
async fn old_database() -> String {
    let url = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let mut connection = connect(&PostgresConfig::new(url.clone())).await.unwrap();
    migrate(&mut connection).await.unwrap();
    roll_back(&mut connection, MIGRATIONS.len() - 1).await.unwrap();
    url
}

async fn version(url: &str) -> usize {
    schema_version(&mut connect(&PostgresConfig::new(url.to_owned())).await.unwrap()).await.unwrap()
}

/// Runs `longshore migrate` at a terminal, which `script` makes, and types these answers. The exit code, and what the
/// terminal showed.
async fn at_a_terminal(arguments: &str, url: &str, answers: &'static str) -> (Option<i32>, String) {
    let line = format!("{} migrate {arguments} --journal {url}", env!("CARGO_BIN_EXE_longshore"));
    tokio::task::spawn_blocking(move || {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]).env_clear();
        script.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("SHELL", "/bin/sh");
        let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut typed = script.stdin.take().unwrap();
        typed.write_all(answers.as_bytes()).unwrap();
        let output = script.wait_with_output().unwrap();
        drop(typed);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_schema_in_use_changes_at_a_terminal_only_after_a_yes() {
    let (url, newest) = (old_database().await, MIGRATIONS.len());
    let (code, shown) = at_a_terminal("", &url, "no\n").await;
    assert!(shown.contains(&format!("schema version {} and goes to version {newest}", newest - 1)), "{shown}");
    assert!(shown.contains("nothing was done"), "{shown}");
    assert_eq!((code, version(&url).await), (Some(5), newest - 1));

    let (code, shown) = at_a_terminal("", &url, "yes\n").await;
    assert_eq!((code, version(&url).await), (Some(0), newest), "{shown}");
    let (code, shown) = at_a_terminal("", &url, "").await;
    assert!(code == Some(0) && !shown.contains("Go on?"), "there is nothing to ask for: {shown}");
}

#[tokio::test]
async fn nobody_is_asked_with_yes_or_without_a_terminal_or_for_a_new_journal() {
    let (url, newest) = (old_database().await, MIGRATIONS.len());
    let (code, shown) = at_a_terminal("--yes", &url, "").await;
    assert!(!shown.contains("Go on?"), "{shown}");
    assert_eq!((code, version(&url).await), (Some(0), newest));

    let url = old_database().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_longshore"));
    let output = command.args(["migrate", "--journal", &url]).env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(version(&url).await, newest);

    let url = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
    let (code, shown) = at_a_terminal("", &url, "").await;
    assert!(!shown.contains("Go on?"), "{shown}");
    assert_eq!((code, version(&url).await), (Some(0), newest));
}
