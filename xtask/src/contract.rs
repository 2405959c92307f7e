//! `cargo xtask contract`: schemathesis asks a server of the release build whatever its OpenAPI document allows and much that it
//! does not, as an admin and as a user, and holds every answer against the document. The tests of the API hold theirs against it,
//! too (`crates/api/tests/it/server/contract.rs`); this asks what nobody thought of.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    bench::{
        installation::{Installation, Stores, release_binary},
        until_told,
    },
    root, run as run_command, venv,
};

/// The version that is asked with.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
/// Who asks.
const ROLES: [&str; 2] = ["admin", "user"];
/// What is not held against an answer: that rules which no schema can say (a name that is taken, a tag that is stale) refuse what
/// the schema allows; and that what breaks the schema is looked at behind other rules, such as `If-Match` (412), or one item of
/// many at a time (200).
const EXCLUDED: &str = "positive_data_acceptance,negative_data_rejection";

/// What it does not know by itself.
const HOOKS: &str = "xtask/schemathesis.py";

/// How much is asked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Examples of each operation in the phase that guesses.
    #[arg(long, default_value_t = 30)]
    examples: u32,
    /// Where the guesses begin: the same number, the same guesses.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

/// Asks, and fails with the first role that was answered otherwise than the document says.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_command("cargo", &["build", "--release", "--locked"])?;
    let (longshore, schemathesis) =
        (release_binary()?, venv::install("schemathesis", &[SCHEMATHESIS])?.join("schemathesis"));
    until_told(async {
        let installation = Installation::start(&longshore, Stores::Embedded, "8").await?;
        let url = installation.url.clone();
        let mut failed = vec![];
        for role in ROLES {
            let key = key(&installation, role).await?;
            eprintln!("as {role} …");
            let arguments = words(&url, &key, arguments);
            let program = schemathesis.clone();
            let asked = move || {
                let mut command = Command::new(program);
                command.args(arguments).env("SCHEMATHESIS_HOOKS", HOOKS).current_dir(root()).status()
            };
            if !tokio::task::spawn_blocking(asked).await??.success() {
                failed.push(role);
            }
        }
        ensure!(failed.is_empty(), "answers differ from the document, asked as {}", failed.join(" and "));
        Ok(())
    })
}

fn words(url: &str, key: &str, arguments: &Arguments) -> Vec<String> {
    let Arguments { examples, seed } = arguments;
    [
        "run",
        &format!("{url}/openapi.json"),
        &format!("--header=Authorization: Bearer {key}"),
        "--phases=examples,coverage,fuzzing",
        &format!("--max-examples={examples}"),
        &format!("--seed={seed}"),
        "--checks=all",
        &format!("--exclude-checks={EXCLUDED}"),
        "--continue-on-failure",
        // A long poll waits for up to 30 s.
        "--request-timeout=40",
        // Two threads that read Python at once end in a SystemError of CPython 3.11.
        "--workers=1",
        "--no-color",
    ]
    .map(str::to_owned)
    .into()
}

/// A key of this role: the one that the server was started with, or a new one.
async fn key(installation: &Installation, role: &str) -> Result<String> {
    let admin = installation.key()?;
    let body = json!({"name": "cargo xtask contract", "role": role, "tenant": "default"});
    let asked = reqwest::Client::new().post(format!("{}/v1/keys", installation.url)).bearer_auth(admin).json(&body);
    let made: Value = asked.send().await?.error_for_status()?.json().await?;
    Ok(made["key"].as_str().context("a key was made without a secret")?.to_owned())
}
