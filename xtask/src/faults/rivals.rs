//! Rivals: clients that want one thing at about the moment at which another happens, and write down what they are told.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{
    history::{ClientEvent, Race, Wish, Work},
    load::{RACE_MS, Shared},
    scenario::Rival,
};

/// Queues that are paused and resumed, each again and again.
const PAUSED_QUEUES: u64 = 4;
/// Jobs that are submitted before a pause, and under it.
const BEFORE_A_PAUSE: u64 = 20;
const UNDER_A_PAUSE: u64 = 4;
/// How long a pause lasts at least: a claim that ignores it has time to show.
const HELD: Duration = Duration::from_millis(120);
/// Queues whose letters are archived, each again and again.
const ARCHIVED_QUEUES: u64 = 6;
/// Letters of one archive; a list has room for all of them.
const LETTERS: u64 = 80;
/// Of them, those that die twice before it.
const LETTERS_DEAD_TWICE: usize = 2;
/// Time over which the letters of an archive are redriven: about what it takes until a scheduler walks it.
const REDRIVEN_WITHIN_MS: u64 = 1_200;
/// Jobs a second of an archive: as fast as it goes.
const ARCHIVED_A_SECOND: u32 = 10_000;
/// Requests of a rival have numbers from here on, each of its queues in a range of its own.
const NUMBERS_FROM: u64 = 1 << 40;
const NUMBERS_EACH: u64 = 1 << 20;
/// Jobs of a list: all of one round.
const LISTED: u32 = 100;
/// Time between two looks at something that is waited for, and the longest wait.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(90);

/// Lets every rival of the load contend until then.
pub(super) async fn contend(shared: Arc<Shared>, until: Instant, seed: u64) -> Result<()> {
    let mut all = JoinSet::new();
    for (at, rival) in shared.load.shape.races.iter().enumerate() {
        let queues = match rival {
            Rival::Cancel(_) => 0,
            Rival::Pause => PAUSED_QUEUES,
            Rival::Archive => ARCHIVED_QUEUES,
        };
        for place in 0..queues {
            let number = (at as u64 * (PAUSED_QUEUES + ARCHIVED_QUEUES) + place) * NUMBERS_EACH + NUMBERS_FROM;
            let rng = StdRng::seed_from_u64(seed ^ number);
            let one = One { shared: shared.clone(), place, number, rng };
            match rival {
                Rival::Archive => all.spawn(one.archive(until)),
                _ => all.spawn(one.pause(until)),
            };
        }
    }
    while let Some(ended) = all.join_next().await {
        ended??;
    }
    Ok(())
}

/// A rival of one queue.
struct One {
    shared: Arc<Shared>,
    place: u64,
    /// Of its next request.
    number: u64,
    rng: StdRng,
}

impl One {
    /// Jobs are submitted and their queue is paused: what waits then does not start before it is resumed.
    async fn pause(mut self, until: Instant) -> Result<()> {
        let queue = format!("paused-{}", self.place);
        while Instant::now() < until {
            let race = Race::Pause { queue: queue.clone() };
            let mut ids = self.submit(BEFORE_A_PAUSE, Work::Probe, &race).await?;
            let after = self.rng.random_range(0..RACE_MS);
            tokio::time::sleep(Duration::from_millis(after)).await;
            self.set_pause(&queue, true).await?;
            self.note(ClientEvent::Paused { queue: queue.clone() })?;
            let late = self.submit(UNDER_A_PAUSE, Work::Probe, &race).await?;
            if let Some(id) = late.first() {
                // Out of the dispatcher and in again; where it fails, the job is what it was.
                let change = json!({"priority": 7});
                _ = self.shared.call(Method::PATCH, &format!("/v1/jobs/{id}"), Some(&change)).await;
            }
            ids.extend(late);
            // What is read may be a moment old: a job may have run between its row and its place.
            let first = self.states(&queue, &ids).await?;
            let second = self.states(&queue, &ids).await?;
            let of = |wanted: fn(&str) -> bool, states: &[(String, String)]| -> Vec<String> {
                states.iter().filter(|(_, state)| wanted(state)).map(|(id, _)| id.clone()).collect()
            };
            let waited = of(|state| state == "ready", &first);
            let mut waiting = of(|state| state == "ready", &second);
            waiting.retain(|id| waited.contains(id));
            let claimed = of(|state| matches!(state, "running" | "succeeded"), &second);
            self.note(ClientEvent::Seen { queue: queue.clone(), waiting, claimed })?;
            tokio::time::sleep(HELD).await;
            self.note(ClientEvent::Resuming { queue: queue.clone() })?;
            self.set_pause(&queue, false).await?;
        }
        Ok(())
    }

    /// Letters are archived while each of them is redriven.
    async fn archive(mut self, until: Instant) -> Result<()> {
        let queue = format!("letters-{}", self.place);
        while Instant::now() < until {
            let race = Race::Archive { queue: queue.clone() };
            let letters = self.submit(LETTERS, Work::ProbeDies, &race).await?;
            self.all_dead(&queue, &letters).await?;
            for id in letters.iter().take(LETTERS_DEAD_TWICE) {
                // Without another payload it dies again, if it is heard.
                _ = self.shared.call(Method::POST, &format!("/v1/dead-letters/{id}/redrive"), None).await;
            }
            self.all_dead(&queue, &letters).await?;
            self.abort_one().await?;
            let order = json!({
                "action": "archive", "filter": format!("queue = {queue}"), "rate_per_s": ARCHIVED_A_SECOND,
            });
            let mut redrives = JoinSet::new();
            for id in letters.clone() {
                let after = Duration::from_millis(self.rng.random_range(0..REDRIVEN_WITHIN_MS));
                redrives.spawn(redrive(self.shared.clone(), id, after));
            }
            let operation = self.begin(&order).await?;
            while let Some(told) = redrives.join_next().await {
                told??;
            }
            let done = self.end_of(&operation).await?;
            self.note(ClientEvent::Archived { operation, done, letters })?;
        }
        Ok(())
    }

    /// Begins an operation over nothing, and ends it.
    async fn abort_one(&self) -> Result<()> {
        let order = json!({"action": "delete", "filter": format!("queue = nobodys-{}", self.place)});
        let operation = self.begin(&order).await?;
        _ = self.shared.call(Method::DELETE, &format!("/v1/operations/{operation}"), None).await;
        Ok(())
    }

    /// Asks until the operation is kept, after whichever is in its way; its id.
    async fn begin(&self, order: &Value) -> Result<String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok((202, answer)) = self.shared.call(Method::POST, "/v1/operations", Some(order)).await
                && let Some(id) = answer["id"].as_str()
            {
                return Ok(id.to_owned());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("no operation begins: {order}")
    }

    /// Waits until an operation has ended; what it has done.
    async fn end_of(&self, operation: &str) -> Result<u64> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let told = self.shared.call(Method::GET, &format!("/v1/operations/{operation}"), None).await;
            if let Ok((200, answer)) = told
                && answer["state"] != "running"
            {
                return Ok(answer["done"].as_u64().unwrap_or_default());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the operation {operation} does not end")
    }

    async fn all_dead(&self, queue: &str, letters: &[String]) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.states(queue, letters).await?.iter().all(|(_, state)| state == "dead") {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("not all jobs of {queue} have died")
    }

    /// How these jobs, of the newest of a queue, stand.
    async fn states(&self, queue: &str, ids: &[String]) -> Result<Vec<(String, String)>> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let path = format!("/v1/jobs?queue={queue}&limit={LISTED}");
            if let Ok((200, answer)) = self.shared.call(Method::GET, &path, None).await {
                let of = |job: &Value| Some((job["id"].as_str()?.to_owned(), job["state"].as_str()?.to_owned()));
                let all = answer["jobs"].as_array().into_iter().flatten().filter_map(of);
                return Ok(all.filter(|(id, _)| ids.contains(id)).collect());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("the jobs of {queue} cannot be listed")
    }

    /// Asks until it is so.
    async fn set_pause(&self, queue: &str, paused: bool) -> Result<()> {
        let (path, change) = (format!("/v1/queues/{queue}"), json!({"paused": paused}));
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok((200, answer)) = self.shared.call(Method::PATCH, &path, Some(&change)).await
                && answer["paused"] == paused
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{queue} cannot be paused or resumed")
    }

    /// Submits so many jobs in one request; their ids.
    async fn submit(&mut self, count: u64, work: Work, race: &Race) -> Result<Vec<String>> {
        let request = self.number;
        self.number += 1;
        let job = |more: u64| Wish {
            mark: format!("r{request}-{more}"),
            tenant: "tenant-0".to_owned(),
            work,
            ms: 1 + (request + more) % RACE_MS,
            run_at_ms: None,
            race: Some(race.clone()),
        };
        let jobs: Vec<Wish> = (0..count).map(job).collect();
        self.note(ClientEvent::Due { request, jobs: jobs.clone() })?;
        let ids = self.shared.submit(request, 0, &jobs, &mut self.rng).await?;
        Ok(ids.unwrap_or_default())
    }

    fn note(&self, event: ClientEvent) -> Result<()> {
        self.shared.load.history.note(event)
    }
}

/// Redrives a letter, once, with a payload that lets it succeed; where nobody answers, nobody knows who was first.
async fn redrive(shared: Arc<Shared>, id: String, after: Duration) -> Result<()> {
    tokio::time::sleep(after).await;
    let payload = json!({"payload": {"sleep_ms": 5}});
    let told = shared.call(Method::POST, &format!("/v1/dead-letters/{id}/redrive"), Some(&payload)).await;
    let won = match told {
        Ok((200, _)) => true,
        Ok((404, _)) => false,
        _ => return Ok(()),
    };
    shared.load.history.note(ClientEvent::Redriven { id, won })
}
