//! Jobs over HTTP, and questions about them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::cluster::KEY;

/// Jobs of one bulk submit.
const BULK_JOBS: usize = 500;
/// Time between two looks at something that no signal announces.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One API.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.to_owned() }
    }

    /// Submits all of them.
    pub(crate) async fn submit_all(&self, jobs: &[Value]) -> Result<()> {
        for bulk in jobs.chunks(BULK_JOBS) {
            let asked = self.http.post(format!("{}/v1/jobs/bulk", self.url)).bearer_auth(KEY).json(bulk);
            let answer: Value = asked.send().await?.error_for_status()?.json().await?;
            let refused = answer["jobs"].as_array().context("no list")?.iter().find(|job| job["error"].is_object());
            ensure!(refused.is_none(), "a job was refused: {refused:?}");
        }
        Ok(())
    }

    /// Submits one, and returns its id.
    pub(crate) async fn submit(&self, job: &Value) -> Result<String> {
        let asked = self.http.post(format!("{}/v1/jobs", self.url)).bearer_auth(KEY).json(job);
        let answer: Value = asked.send().await?.json().await?;
        Ok(answer["id"].as_str().with_context(|| format!("a job was refused: {answer}"))?.to_owned())
    }

    /// A job, once it has ended.
    pub(crate) async fn ended(&self, id: &str, patience: Duration) -> Result<Value> {
        let wait = async {
            loop {
                let asked = self.http.get(format!("{}/v1/jobs/{id}?wait=30s", self.url)).bearer_auth(KEY);
                let job: Value = asked.send().await?.error_for_status()?.json().await?;
                if job["finished_at"].is_string() {
                    return anyhow::Ok(job);
                }
            }
        };
        tokio::time::timeout(patience, wait).await.with_context(|| format!("{id} does not end"))?
    }

    /// The text that those who watch a job are told until it ends, of its last attempt and step, and in how many pieces.
    pub(crate) async fn told(&self, id: &str, patience: Duration) -> Result<(String, usize)> {
        let asked = self.http.get(format!("{}/v1/jobs/{id}/events", self.url)).bearer_auth(KEY);
        let events = tokio::time::timeout(patience, asked.send().await?.error_for_status()?.text());
        let events = events.await.with_context(|| format!("{id} is told without an end"))??;
        let (mut stream, mut text, mut pieces) = (None, String::new(), 0);
        for event in events.split("\n\n").filter(|event| event.contains("event: token")) {
            let data = event.lines().find_map(|line| line.strip_prefix("data: ")).context("an event has data")?;
            let token: Value = serde_json::from_str(data)?;
            let from = Some((token["attempt"].clone(), token["step"].clone()));
            if stream != from {
                (stream, text, pieces) = (from, String::new(), 0);
            }
            text.push_str(token["text"].as_str().context("a token has text")?);
            pieces += 1;
        }
        Ok((text, pieces))
    }

    /// A queue's numbers.
    pub(crate) async fn queue(&self, queue: &str) -> Result<Value> {
        let asked = self.http.get(format!("{}/v1/queues/metrics", self.url)).bearer_auth(KEY);
        let all: Value = asked.send().await?.error_for_status()?.json().await?;
        Ok(all["queues"][queue].clone())
    }

    /// Changes a queue.
    pub(crate) async fn set_queue(&self, queue: &str, change: &Value) -> Result<()> {
        let asked = self.http.patch(format!("{}/v1/queues/{queue}", self.url)).bearer_auth(KEY).json(change);
        asked.send().await?.error_for_status()?;
        Ok(())
    }

    /// The dead letters of a queue: their ids, and the classes of their errors. At most 100.
    pub(crate) async fn dead_letters(&self, queue: &str) -> Result<Vec<(String, String)>> {
        let url = format!("{}/v1/dead-letters?queue={queue}&limit=100", self.url);
        let answer: Value = self.http.get(url).bearer_auth(KEY).send().await?.error_for_status()?.json().await?;
        let dead = answer["dead_letters"].as_array().with_context(|| format!("no list in {answer}"))?;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(dead.iter().map(|job| (word(&job["id"]), word(&job["error"]["class"]))).collect())
    }

    /// Gives a dead letter another chance.
    pub(crate) async fn redrive(&self, id: &str) -> Result<()> {
        let asked = self.http.post(format!("{}/v1/dead-letters/{id}/redrive", self.url)).bearer_auth(KEY);
        asked.send().await?.error_for_status()?;
        Ok(())
    }

    /// Puts something.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<()> {
        let asked = self.http.put(format!("{}{path}", self.url)).bearer_auth(KEY).json(body);
        asked.send().await?.error_for_status()?;
        Ok(())
    }

    /// Waits until a queue has so many jobs in all that have succeeded or are dead; `false` if it took too long.
    pub(crate) async fn until_ended(&self, queue: &str, jobs: u64, patience: Duration) -> Result<bool> {
        let wait = async {
            loop {
                let numbers = self.queue(queue).await?;
                let ended = ["completed", "failed"].iter().filter_map(|name| numbers[name].as_u64()).sum::<u64>();
                if ended >= jobs {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(ended) => ended.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

/// One job.
pub(crate) fn job(queue: &str, model: &str, prompt: &str, max_tokens: u64) -> Value {
    let payload = json!({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]});
    json!({"queue": queue, "kind": "llm", "payload": payload})
}

/// Jobs of mixed size, the same in every run: most are small, some are large, and a few are larger than what the limiter's
/// bucket holds of 100,000 tokens a minute. About 240 tokens on average.
pub(crate) fn mixed(queue: &str, model: &str, jobs: usize) -> Vec<Value> {
    let mut random = StdRng::seed_from_u64(11);
    let mut of_size = |_| {
        let tokens = match random.random_range(0..1_000) {
            0..700 => random.random_range(40..120),
            700..920 => random.random_range(150..400),
            920..990 => random.random_range(500..1_500),
            _ => random.random_range(3_000..9_000),
        };
        // A third of it is the prompt, at about four characters a token.
        let prompt = "word ".repeat(tokens / 3 * 4 / 5);
        job(queue, model, &prompt, (tokens * 2 / 3) as u64)
    };
    (0..jobs).map(&mut of_size).collect()
}

/// The figure that so much of the sorted times do not exceed, in milliseconds.
pub(crate) fn quantile_ms(sorted: &[Duration], part: f64) -> f64 {
    let at = ((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_is_there() {
        let times: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(
            (quantile_ms(&times, 0.5), quantile_ms(&times, 0.99), quantile_ms(&times, 1.0)),
            (50.0, 99.0, 100.0)
        );
        assert!(quantile_ms(&[], 0.5).is_nan());
    }

    #[test]
    fn jobs_are_mixed_and_the_same_in_every_run() {
        let (jobs, again) = (mixed("q", "m", 2_000), mixed("q", "m", 2_000));
        assert_eq!(jobs, again);
        let tokens = |job: &Value| job["payload"]["max_tokens"].as_u64().unwrap() * 3 / 2;
        let mean = jobs.iter().map(tokens).sum::<u64>() / 2_000;
        assert!((180..300).contains(&mean), "{mean}");
        assert!(jobs.iter().any(|job| tokens(job) > 8_334), "some are larger than the bucket");
    }
}
