//! `longshore smoke URL`: whether an installation works, as whoever has just rolled it out wants to know: it is ready, takes a job, runs
//! it, gives its result back, and counts what it did.

use std::{future::Future, time::Duration};

use queue_core::time::parse_duration;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    client::Client,
    commands::{Operator, job::show},
    failure::{Exit, Failure, Outcome},
    output,
};

/// One long poll.
const POLL: Duration = Duration::from_secs(10);
/// The model of the simulated provider.
const SIMULATED: &str = "simulated-chat";
/// What is said where nothing may be run that costs nothing.
const NOTHING_FREE: &str = "probe jobs are off here and no provider is simulated: allow them (LONGSHORE_PROBE_JOBS=true), or \
                            let --prompt ask the default model, which may cost money";
/// The counters that a page must have, and those that move.
const VERSION: &str = "longshore_build_info{";
const SLOTS: &str = "longshore_worker_slots{";
const SETTLED: &str = "longshore_jobs_settled_total{";

/// What is tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The installation [default: as for the other verbs]
    #[arg(value_name = "URL")]
    pub(crate) target: Option<String>,
    /// Longest time of everything together
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    timeout: String,
    /// The queue of the job; a worker must serve it
    #[arg(long, default_value = "smoke")]
    queue: String,
    /// Ask the default model this instead of running a probe job; may cost money
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Where a worker shows its metrics (http://host:9090); may be repeated: together they must have counted the job
    #[arg(long, value_name = "URL")]
    metrics: Vec<String>,
}

/// What was tried so far.
struct Trial<'a> {
    operator: &'a Operator,
    ends: Instant,
    patience: Duration,
    steps: Vec<Value>,
    failed: bool,
}

/// Tries everything.
pub(crate) async fn run(operator: &Operator, args: &Args) -> Outcome {
    let patience = parse_duration(&args.timeout).map_err(Failure::usage)?;
    let pages = args.metrics.iter().map(|url| Client::new(url, None, None)).collect::<Result<Vec<_>, _>>()?;
    let client = &operator.client;
    let mut trial = Trial { operator, ends: Instant::now() + patience, patience, steps: Vec::new(), failed: false };
    let pages = if pages.is_empty() { vec![client.clone()] } else { pages };
    let mut job = None;
    'steps: {
        if trial.step("ready", ready(client)).await.is_none() {
            break 'steps;
        }
        let Some(before) = trial.step("metrics", metrics(&pages)).await else { break 'steps };
        let Some(id) = trial.step("submit", submit(client, args)).await else { break 'steps };
        job = Some(id.clone());
        if trial.step("result", result(client, &id)).await.is_none() {
            break 'steps;
        }
        trial.step("counted", counted(&pages, &before, !args.metrics.is_empty())).await;
    }
    trial.tell(job)
}

impl Trial<'_> {
    /// Tries one thing within the time that is left, and says at once how it went.
    async fn step<T>(&mut self, name: &str, trying: impl Future<Output = Result<(T, String), Failure>>) -> Option<T> {
        let began = Instant::now();
        let tried = tokio::time::timeout_at(self.ends, trying).await;
        let late = || Failure::error(format!("not within {:?}", self.patience));
        let (value, detail) = match tried.unwrap_or_else(|_| Err(late())) {
            Ok((value, detail)) => (Some(value), detail),
            Err(failure) => (None, failure.message),
        };
        let (is_ok, ms) = (value.is_some(), began.elapsed().as_secs_f64() * 1_000.0);
        self.failed |= !is_ok;
        if !self.operator.out.json {
            let word = if is_ok { "ok" } else { "FAILED" };
            output::line(&output::plain(&format!("{word:<7} {name:<8} {ms:>7.0} ms  {detail}")));
        }
        self.steps.push(json!({"step": name, "ok": is_ok, "ms": (ms * 10.0).round() / 10.0, "detail": detail}));
        value
    }

    fn tell(self, job: Option<String>) -> Outcome {
        let url = self.operator.client.base();
        if self.operator.out.json {
            let report = json!({"ok": !self.failed, "url": url, "job": job, "steps": self.steps});
            self.operator.out.value(&report);
        } else {
            output::line(&if self.failed { format!("{url} does not work") } else { format!("{url} works") });
        }
        Ok(if self.failed { Exit::Error } else { Exit::Ok })
    }
}

async fn ready(client: &Client) -> Result<((), String), Failure> {
    client.get(&["readyz"], &[]).await?;
    Ok(((), "/readyz says so".to_owned()))
}

/// The job's id.
async fn submit(client: &Client, args: &Args) -> Result<(String, String), Failure> {
    let of = |kind: &str, payload: Value| json!({"kind": kind, "queue": args.queue, "operation": "smoke", "payload": payload});
    let chat = |model: Option<&str>, text: &str| {
        let mut payload = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 16});
        if let Some(model) = model {
            payload["model"] = json!(model);
        }
        of("llm", payload)
    };
    let send = async |job: Value| client.send_json(Method::POST, &["v1", "jobs"], Some(&job)).await;
    let (sent, what) = match &args.prompt {
        Some(text) => (send(chat(None, text)).await?, "a chat with the default model"),
        None => match send(of("probe", json!({"sleep_ms": 0}))).await {
            Ok(sent) => (sent, "a probe job"),
            Err(refused) if is_about_the_kind(&refused) => {
                if !is_simulated(client).await {
                    return Err(Failure { message: NOTHING_FREE.to_owned(), ..refused });
                }
                (send(chat(Some(SIMULATED), "Say hello")).await?, "a simulated chat, since probe jobs are off")
            }
            Err(other) => return Err(other),
        },
    };
    let id = sent.body["id"].as_str().ok_or_else(|| Failure::error("the answer has no id"))?;
    Ok((id.to_owned(), format!("{what}: {id}")))
}

/// Whether probe jobs are what was refused.
fn is_about_the_kind(refused: &Failure) -> bool {
    let errors = refused.problem.as_ref().and_then(|problem| problem["errors"].as_array());
    errors.is_some_and(|errors| errors.iter().any(|error| error["pointer"] == "/kind"))
}

async fn is_simulated(client: &Client) -> bool {
    let health = client.get(&["health"], &[]).await;
    health.is_ok_and(|health| !health["checks"]["provider:simulated"].is_null())
}

/// Waits for the job's end and reads its result.
async fn result(client: &Client, id: &str) -> Result<((), String), Failure> {
    let wait = format!("{}s", POLL.as_secs());
    let job = loop {
        let job = client.get(&["v1", "jobs", id], &[("wait", Some(wait.clone()))]).await?;
        if show::is_final(&output::cell(&job, "state")) {
            break job;
        }
    };
    if job["state"] != "succeeded" {
        let (state, class) = (output::cell(&job, "state"), output::cell(&job["error"], "class"));
        return Err(Failure::error(format!("the job is {state} {class}: {}", output::cell(&job["error"], "message"))));
    }
    client.get(&["v1", "jobs", id, "result"], &[]).await?;
    Ok(((), format!("succeeded after {} attempts", job["attempts"])))
}

/// The text of every page.
async fn metrics(pages: &[Client]) -> Result<(Vec<String>, String), Failure> {
    let mut texts = Vec::new();
    for page in pages {
        let body = page.get(&["metrics"], &[]).await?;
        let text = body.as_str().filter(|text| text.contains(VERSION));
        texts.push(
            text.ok_or_else(|| Failure::error(format!("{} shows no longshore_build_info", page.base())))?.to_owned(),
        );
    }
    let version = texts.iter().find_map(|text| version_of(text)).unwrap_or_default().to_owned();
    Ok((texts, format!("version {version}")))
}

/// Whether the job was counted, where the pages are of processes that run jobs.
async fn counted(pages: &[Client], before: &[String], must: bool) -> Result<((), String), Failure> {
    let (after, _) = metrics(pages).await?;
    let run_jobs = after.iter().any(|text| text.contains(SLOTS));
    if !run_jobs && !must {
        return Ok(((), "this process runs no jobs; --metrics names a worker that counts them".to_owned()));
    }
    let settled = |texts: &[String]| texts.iter().map(|text| sum_of(text, SETTLED)).sum::<f64>();
    let more = settled(&after) - settled(before);
    if more < 1.0 {
        return Err(Failure::error("longshore_jobs_settled_total has not moved"));
    }
    Ok(((), format!("longshore_jobs_settled_total is {more} more than before")))
}

fn version_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix(VERSION)?.split('"').nth(1))
}

fn sum_of(text: &str, series: &str) -> f64 {
    let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let text = "# TYPE longshore_build_info gauge\nlongshore_build_info{version=\"0.1.0\"} 1\n\
                    longshore_jobs_settled_total{queue=\"a b\",kind=\"llm\",outcome=\"succeed\"} 3\n\
                    longshore_jobs_settled_total{queue=\"c\",kind=\"llm\",outcome=\"dead\"} 4\n";
        assert_eq!((version_of(text), sum_of(text, SETTLED)), (Some("0.1.0"), 7.0));
        assert_eq!((version_of(""), sum_of("", SETTLED)), (None, 0.0));
    }
}
