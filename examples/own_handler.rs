//! A worker with a handler of its own, beside `longshore serve api` and `longshore serve scheduler`.
//!
//! ```sh
//! export LONGSHORE_JOURNAL=postgres://… LONGSHORE_DISPATCHER=redis://…
//! longshore serve api & longshore serve scheduler &
//! cargo run --release --example own_handler
//! curl -s "$LONGSHORE_URL/v1/jobs" -H "Authorization: Bearer $LONGSHORE_KEY" -H 'Content-Type: application/json' -d \
//!   '{"kind": "custom", "payload": {"handler": "word-count", "input": {"text": "how many words are these"}}}'
//! ```
//!
//! Its jobs have the leases, retries, priorities, results and webhooks of any other job, and a limit of how many run at once
//! (`longshore limit set custom:word-count:default --concurrency 4`). The program must be built from the version of Longshore that
//! the other processes run. Two programs with different handlers want a queue each (`queues` below).
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit)]

use std::{collections::BTreeMap, env, time::Duration};

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    dispatcher::redis::{RedisAddress, RedisConfig},
    error::{ErrorClass, JobError},
    journal::postgres::PostgresConfig,
    stores::Stores,
};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use worker::{
    Config, End, Worker,
    context::{Handler, JobContext, Surroundings},
    handlers::{Handlers, input},
};

/// What a job tells the handler, as `input` of its payload.
#[derive(Deserialize)]
struct Text {
    text: String,
}

/// Counts words.
struct WordCount;

#[async_trait]
impl Handler for WordCount {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let Text { text } = input(cx)?;
        if text.is_empty() {
            // A final error; `Transient` would be tried again.
            return Err(JobError::new(ErrorClass::Permanent, "empty", "there is no text"));
        }
        let lines: Vec<&str> = text.lines().collect();
        let mut words = 0;
        for (done, line) in lines.iter().enumerate() {
            words += line.split_whitespace().count();
            // Long work says how far it is; a cancel drops this future at its next await.
            cx.progress(done as u32 + 1, lines.len() as u32, "count");
            tokio::task::yield_now().await;
        }
        Ok(json!({"words": words, "lines": lines.len()}).to_string().into())
    }
}

/// Runs jobs for the handler until `shutdown` fires and those that run have ended.
pub(crate) async fn work(journal: String, dispatcher: &str, shutdown: CancellationToken) -> Result<()> {
    let redis = RedisAddress::parse(dispatcher).map_err(|error| anyhow!("{error}"))?;
    let stores = Stores::shared(&PostgresConfig::new(journal), RedisConfig::new(redis)).await;
    let stores = stores.map_err(|error| anyhow!(error))?;
    let handlers = Handlers::new().with("word-count", WordCount).map_err(|error| anyhow!(error))?;
    let config = Config {
        slots: 16,
        queues: vec![],
        // Only our own: chats and embeddings are for workers with providers.
        kinds: vec![queue_core::job::Kind::Custom],
        timeouts: BTreeMap::new(),
        drain: Duration::from_secs(25),
        host: "own_handler".to_owned(),
    };
    let worker = Worker::new(config, Surroundings::without_providers(stores)).with_handlers(handlers);
    println!("own_handler runs; Ctrl-C ends it");
    match worker.run(shutdown).await? {
        End::Told => Ok(()),
        // A handler holds a thread of this process up for ever, so nothing here would end it: whoever supervises it starts it again.
        End::Recycle(stuck) => {
            eprintln!("the handler of job {} does not end", stuck.job);
            std::process::exit(75)
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let named = |name: &str| env::var(name).with_context(|| format!("set {name}"));
    let (journal, dispatcher) = (named("LONGSHORE_JOURNAL")?, named("LONGSHORE_DISPATCHER")?);
    let shutdown = CancellationToken::new();
    let working = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { work(journal, &dispatcher, shutdown).await }
    });
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    working.await?
}
