//! `longshore smoke`: one job through a whole installation, from its submit to its result, and the metrics that say so. For the end
//! of a deployment: its exit code decides whether clients are sent there.

use std::time::{Duration, Instant};

use queue_core::time::parse_duration;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    commands::{Operator, job::submit::wait_for_end},
    failure::{Exit, Failure, Outcome},
    output::{self, cell},
};

/// What the probe has to bring back.
const RESULT_BYTES: usize = 1_024;
/// A metric that every process shows, whatever it has done.
const METRIC: &str = "longshore_build_info";
/// How long the numbers of queues may lag behind a job that has ended, and how often they are looked at meanwhile.
const COUNTED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest answer of a model that is asked, in tokens: what it says does not matter.
const TOKENS: u32 = 16;

/// What is tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The installation; found as for every other verb unless it is named
    #[arg(value_name = "URL")]
    pub(crate) installation: Option<String>,
    /// How long the job may take
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    within: String,
    /// The queue that it waits in: one that the workers serve
    #[arg(long, default_value = "smoke")]
    queue: String,
    /// Ask a model for a few words instead of running a probe: tries the provider, too, and costs what that costs
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Where /metrics is, if a proxy keeps it from those who come in at the front
    #[arg(long, value_name = "URL")]
    metrics_url: Option<String>,
}

/// Tries it, step by step. What fails ends it.
pub(crate) async fn run(operator: &Operator, args: &Args) -> Outcome {
    let within = parse_duration(&args.within).map_err(Failure::usage)?;
    let began = Instant::now();
    let step = |name: &str, found: &str| {
        if !operator.out.json {
            output::line(&format!("ok  {name:8}  {:6.2} s  {found}", began.elapsed().as_secs_f64()));
        }
    };
    let health = operator.client.get(&["health"], &[]).await?;
    step("health", &format!("{}, version {}", cell(&health, "status"), cell(&health, "version")));

    let accepted = operator.client.send_json(Method::POST, &["v1", "jobs"], Some(&job(args))).await.map_err(hinted)?;
    let id = cell(&accepted.body, "id");
    step("submit", &id);

    let ended = wait_for_end(operator, &id, within).await?;
    let result = operator.client.get(&["v1", "jobs", &id, "result"], &[]).await;
    let served_by = check_result(args, &ended, result)?;
    step("result", &served_by);

    let counted = completed(operator, &args.queue).await?;
    step("counted", &format!("{counted} jobs of the queue `{}` so far", args.queue));
    let metrics = metrics(operator, args.metrics_url.as_deref()).await?;
    step("metrics", metrics.told());
    if operator.out.json {
        operator.out.value(&json!({
            "url": operator.client.base(), "good": true, "status": health["status"], "version": health["version"], "job": id,
            "metrics": metrics == Shown::Yes, "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }));
    }
    Ok(Exit::Ok)
}

fn job(args: &Args) -> Value {
    let (kind, payload) = match &args.model {
        None => ("probe", json!({"result_bytes": RESULT_BYTES})),
        Some(model) => {
            let messages = json!([{"role": "user", "content": "Answer with the word ready."}]);
            ("llm", json!({"model": model, "messages": messages, "max_tokens": TOKENS}))
        }
    };
    json!({"kind": kind, "queue": args.queue, "operation": "smoke", "priority": 9, "payload": payload})
}

/// What a refusal of a probe means, and what to do.
fn hinted(mut refused: Failure) -> Failure {
    if refused.exit == Exit::Usage && refused.message.contains("probe") {
        refused.message.push_str("\n  allow them (LONGSHORE_PROBE_JOBS=true), or try a model: --model NAME");
    }
    refused
}

/// Who ran it, if the job has come to what it was to come to.
fn check_result(args: &Args, ended: &Value, result: Result<Value, Failure>) -> Result<String, Failure> {
    let state = cell(ended, "state");
    if state != "succeeded" {
        return Err(Failure::error(format!("the job ended as {state}: {}", ended["error"])));
    }
    let result = result?;
    match &args.model {
        None => match result["data"].as_str().map(str::len) {
            Some(RESULT_BYTES) => Ok("a worker ran it".to_owned()),
            _ => Err(Failure::error("the result is not what the job was asked for")),
        },
        Some(_) => Ok(format!("{} answered, for ${}", ended["served_by"], cell(ended, "cost_usd"))),
    }
}

/// Jobs of the queue that have succeeded, this one among them.
async fn completed(operator: &Operator, queue: &str) -> Result<u64, Failure> {
    let ends = Instant::now() + COUNTED_WITHIN;
    loop {
        let queues = operator.client.get(&["v1", "queues", "metrics"], &[]).await?;
        match queues["queues"][queue]["completed"].as_u64() {
            Some(jobs) if jobs > 0 => return Ok(jobs),
            _ if Instant::now() < ends => tokio::time::sleep(LOOK_EVERY).await,
            _ => return Err(Failure::error(format!("the numbers of the queue `{queue}` do not know of the job"))),
        }
    }
}

/// Whether `/metrics` can be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Yes,
    /// A proxy keeps it, as it should from the outside.
    Kept,
}

impl Shown {
    fn told(self) -> &'static str {
        match self {
            Self::Yes => "Prometheus can read them",
            Self::Kept => "kept from here by a proxy; --metrics-url names the place where Prometheus reads them",
        }
    }
}

async fn metrics(operator: &Operator, elsewhere: Option<&str>) -> Result<Shown, Failure> {
    let (client, path): (_, &[&str]) = match elsewhere {
        None => (operator.client.clone(), &["metrics"]),
        // Without the key: whoever shows metrics asks for none.
        Some(url) => (crate::client::Client::new(url, None, None)?, &[]),
    };
    match client.get(path, &[]).await {
        Ok(Value::String(text)) if text.contains(METRIC) => Ok(Shown::Yes),
        Ok(_) => Err(Failure::error(format!("what {} shows as metrics has no {METRIC}", client.base()))),
        Err(refused) if elsewhere.is_none() && matches!(refused.exit, Exit::NotFound | Exit::Refused) => Ok(Shown::Kept),
        Err(failure) => Err(failure),
    }
}
