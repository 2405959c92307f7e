//! Backups that are made all the time, while whoever makes them is killed.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{fleet::Fleet, history::InjectorEvent, inject::Victims};
use crate::cluster::KEY;

/// Time between two looks at a backup.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the last backup, whose makers may have died twice: each time somebody has to find that out.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows of the API's list.
const LISTED: u32 = 500;

/// Orders one backup after the other until then, and sees the last one through.
pub(super) async fn order(api: String, until: Instant) -> Result<()> {
    let http = Client::builder().timeout(ANSWER_MAX).build()?;
    while Instant::now() < until {
        let ordered = ask(&http, Method::POST, format!("{api}/v1/backups"), Some(json!({"scope": "database"}))).await?;
        let id = ordered["id"].as_str().context("an order of a backup has an id")?;
        let began = Instant::now();
        loop {
            let told = ask(&http, Method::GET, format!("{api}/v1/backups/{id}"), None).await?;
            if matches!(told["state"].as_str(), Some("good" | "failed")) || began.elapsed() > PATIENCE {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Looks at every backup that the API calls good, and at every other that lies at the place as if it were.
pub(super) async fn examine(victims: &Victims, api: &str) -> Result<()> {
    let names = called_good(victims, api).await?;
    let looking = victims.clone();
    let look = move || -> Result<Vec<(String, Option<String>)>> {
        let around = looking.around();
        let verify = |backup: String| {
            let fault = Fleet::ask(&around, &["backup", "verify", &backup])?.err();
            Ok((backup, fault))
        };
        names.into_iter().map(verify).collect()
    };
    let looked = tokio::task::spawn_blocking(look).await??;
    // Retention may have deleted some since they were listed: that is no fault where nobody names them any more.
    let named = called_good(victims, api).await?;
    for (backup, fault) in looked {
        let fault = fault.filter(|_| named.contains(&backup));
        victims.history.note(InjectorEvent::Good { backup, fault })?;
    }
    Ok(())
}

async fn called_good(victims: &Victims, api: &str) -> Result<BTreeSet<String>> {
    let http = Client::builder().timeout(ANSWER_MAX).build()?;
    let told = ask(&http, Method::GET, format!("{api}/v1/backups?limit={LISTED}"), None).await?;
    let of = |row: &Value| (row["state"] == "good").then(|| row["backup"].as_str().map(str::to_owned))?;
    let mut names: BTreeSet<String> = told["backups"].as_array().into_iter().flatten().filter_map(of).collect();
    let around = victims.around();
    let listed = tokio::task::spawn_blocking(move || Fleet::ask(&around, &["--json", "backup", "list"])).await??;
    let listed: Value = serde_json::from_str(&listed.map_err(anyhow::Error::msg).context("backup list")?)?;
    let of = |row: &Value| row["id"].as_str().map(str::to_owned);
    names.extend(listed["backups"].as_array().into_iter().flatten().filter_map(of));
    Ok(names)
}

/// Asks until it is answered as it should be: nobody kills this API.
async fn ask(http: &Client, method: Method, url: String, body: Option<Value>) -> Result<Value> {
    let request = http.request(method, &url).bearer_auth(KEY);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let answer = request.send().await.with_context(|| url.clone())?;
    let (status, text) = (answer.status(), answer.text().await?);
    anyhow::ensure!(matches!(status, StatusCode::OK | StatusCode::ACCEPTED), "{url}: {status} {text}");
    Ok(serde_json::from_str(&text)?)
}
