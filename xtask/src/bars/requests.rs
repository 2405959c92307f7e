//! One limit over three API processes: a thousand requests at once by one key, and what passes of them.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{informs, judged};
use crate::{
    bar::{Bar, Judged},
    cluster::{Cluster, KEY, Role},
};

/// Requests at once, by one key.
const REQUESTS: usize = 1_000;
/// What the key may send in a minute, and at once.
const LIMIT: u32 = 100;
/// Microseconds in which one more is earned.
const INTERVAL_US: u128 = 600_000;
/// API processes.
const PROCESSES: usize = 3;

/// What passes, and how much it may be.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    eprintln!("{REQUESTS} requests at once over {PROCESSES} API processes …");
    let mut cluster = Cluster::start(longshore, &[]).await?;
    for _ in 0..PROCESSES {
        let number = cluster.spawn(Role::Api).await?;
        cluster.ready(number).await?;
    }
    let (apis, http) = (cluster.apis(), reqwest::Client::new());
    let new = json!({"name": "bar", "tenant": "acme", "requests_per_minute": LIMIT});
    let made = http.post(format!("{}/v1/keys", apis[0])).bearer_auth(KEY).json(&new).send().await?;
    ensure!(made.status().is_success(), "{}", made.text().await?);
    let made: Value = made.json().await?;
    let key = made["key"].as_str().context("a key is shown when it is made")?;

    let began = Instant::now();
    let mut asked = JoinSet::new();
    for n in 0..REQUESTS {
        let request = http.request(Method::GET, format!("{}/v1/jobs?limit=1", apis[n % PROCESSES])).bearer_auth(key);
        asked.spawn(async move { anyhow::Ok(request.send().await?.status()) });
    }
    let statuses = asked.join_all().await.into_iter().collect::<Result<Vec<StatusCode>>>()?;
    let took = began.elapsed();
    let passed = statuses.iter().filter(|status| status.is_success()).count();
    let refused = statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    ensure!(passed + refused == REQUESTS, "something else was answered: {statuses:?}");
    cluster.stop().await?;

    let earned = (took.as_micros() / INTERVAL_US + 1) as f64;
    let what = format!("{REQUESTS} requests at once of a key with {LIMIT} a minute, {PROCESSES} API processes: passed");
    Ok(vec![
        judged(what, passed as f64, "requests", Bar::Between(f64::from(LIMIT), f64::from(LIMIT) + earned)),
        informs("the same: earned meanwhile, one each 0.6 s".to_owned(), earned, "requests"),
        informs("the same: time".to_owned(), took.as_secs_f64(), "s"),
    ])
}
