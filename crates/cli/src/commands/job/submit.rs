//! `longshore job submit`: one job from flags, a file or stdin, and on request its end.

use std::{io::Read, time::Duration};

use queue_core::time::parse_duration;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    commands::{
        Operator,
        job::{exit_of, show, watch},
        parse_later,
    },
    failure::{Exit, Failure, Outcome},
    output::{self, cell},
};

/// One long poll; the server holds the request open at most this long.
const POLL: Duration = Duration::from_secs(30);

/// How long `--wait` waits when it is given without a duration.
const WAIT_DEFAULT: &str = "1h";

/// A job in flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// llm, embedding, analysis or probe; --prompt and --input imply the first two
    #[arg(long)]
    kind: Option<String>,
    /// Where it waits
    #[arg(long)]
    queue: Option<String>,
    /// The payload: JSON text, @file, or - for stdin
    #[arg(long, conflicts_with_all = ["prompt", "input"])]
    payload: Option<String>,
    /// A chat of this one message from the user
    #[arg(long, conflicts_with = "input")]
    prompt: Option<String>,
    /// What comes before the prompt, from the system
    #[arg(long, requires = "prompt")]
    system: Option<String>,
    /// A text to embed; may be repeated
    #[arg(long)]
    input: Vec<String>,
    /// The model, where the payload comes from --prompt or --input
    #[arg(long, conflicts_with = "payload")]
    model: Option<String>,
    /// Longest answer in tokens, with --prompt
    #[arg(long, requires = "prompt")]
    max_tokens: Option<u32>,
    /// 0 to 9; 9 is the most urgent
    #[arg(long)]
    priority: Option<u8>,
    /// When it is due: a time, or a duration from now such as 10m
    #[arg(long)]
    run_at: Option<String>,
    /// Its end over all attempts: a time, or a duration from now
    #[arg(long)]
    deadline: Option<String>,
    /// Longest time of one attempt, e.g. 5m
    #[arg(long)]
    timeout: Option<String>,
    /// Attempts that it may spend
    #[arg(long)]
    max_attempts: Option<u32>,
    /// At most one live job may hold this key
    #[arg(long)]
    unique_key: Option<String>,
    /// Of the jobs of its queue with this key, only so many run at once (one, unless the queue says more)
    #[arg(long)]
    concurrency_key: Option<String>,
    /// A model that chat calls may go to when the first does not answer, and after which failures; may be repeated
    #[arg(long, value_name = "MODEL[=CLASS,...]")]
    fallback: Vec<String>,
    /// What all its calls may cost at most, in US dollars, e.g. 0.05
    #[arg(long, value_name = "USD")]
    max_cost_usd: Option<String>,
    /// Label for cost reports
    #[arg(long)]
    operation: Option<String>,
    /// Group of jobs that is counted together
    #[arg(long)]
    batch_id: Option<String>,
    /// Label for people; may be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// Makes a repeated submit the same submit
    #[arg(long)]
    idempotency_key: Option<String>,
    /// Wait for the end and show the result, at most this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = WAIT_DEFAULT)]
    wait: Option<String>,
    /// Show progress and tokens as they come, then the result
    #[arg(long, conflicts_with = "wait")]
    follow: bool,
}

/// Submits it.
pub(crate) async fn run(operator: &Operator, args: Args) -> Outcome {
    let wait = args.wait.as_deref().map(parse_duration).transpose().map_err(Failure::usage)?;
    let body = body_of(&args)?;
    let mut request = operator.client.request(Method::POST, &["v1", "jobs"], &[]).json(&body);
    if let Some(key) = &args.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    let accepted = operator.client.send(request).await?.body;
    let id = cell(&accepted, "id");
    if args.follow {
        output::note(&format!("submitted {id}"));
        return watch::run(operator, &id).await;
    }
    let Some(limit) = wait else {
        operator.out.show(&accepted, || {
            output::line(&id);
            output::note(&format!("{} in queue {}", cell(&accepted, "state"), cell(&accepted, "queue")));
        });
        return Ok(Exit::Ok);
    };
    if !operator.out.json {
        output::note(&format!("submitted {id}, waiting for its end"));
    }
    let job = wait_for_end(operator, &id, limit).await?;
    operator.out.show(&job, || show::finished(&job));
    exit_of(&cell(&job, "state"))
}

/// Polls until the job has ended, at most `limit` long.
pub(crate) async fn wait_for_end(operator: &Operator, id: &str, limit: Duration) -> Result<Value, Failure> {
    let ends = tokio::time::Instant::now() + limit;
    loop {
        let left = ends.saturating_duration_since(tokio::time::Instant::now()).min(POLL);
        let wait = format!("{}ms", left.as_millis());
        let job = operator.client.get(&["v1", "jobs", id], &[("wait", Some(wait))]).await?;
        if show::is_final(&cell(&job, "state")) {
            return Ok(job);
        }
        if left.is_zero() {
            let state = cell(&job, "state");
            return Err(Failure::error(format!("{id} is still {state}; `longshore job watch {id}` waits on")));
        }
    }
}

fn body_of(args: &Args) -> Result<Value, Failure> {
    let (implied, payload) = payload_of(args)?;
    let kind = match (args.kind.as_deref(), implied) {
        (Some(kind), Some(implied)) if kind != implied => {
            return Err(Failure::usage(format!("--kind {kind} does not go with the flags of a job of kind {implied}")));
        }
        (Some(kind), _) => kind,
        (None, Some(implied)) => implied,
        (None, None) => return Err(Failure::usage("--payload needs a --kind: llm, embedding, analysis or probe")),
    };
    let mut body = Map::from_iter([("kind".to_owned(), json!(kind)), ("payload".to_owned(), payload)]);
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("queue", args.queue.as_ref().map(|queue| json!(queue)));
    put("priority", args.priority.map(|priority| json!(priority)));
    put("run_at", later(args.run_at.as_deref())?);
    put("deadline", later(args.deadline.as_deref())?);
    put("timeout", args.timeout.as_ref().map(|timeout| json!(timeout)));
    put("max_attempts", args.max_attempts.map(|attempts| json!(attempts)));
    put("unique_key", args.unique_key.as_ref().map(|key| json!(key)));
    put("concurrency_key", args.concurrency_key.as_ref().map(|key| json!(key)));
    put("fallback", (!args.fallback.is_empty()).then(|| args.fallback.iter().map(|link| link_of(link)).collect()));
    put("max_cost_usd", args.max_cost_usd.as_ref().map(|usd| json!(usd)));
    put("operation", args.operation.as_ref().map(|operation| json!(operation)));
    put("batch_id", args.batch_id.as_ref().map(|batch| json!(batch)));
    put("tags", (!args.tag.is_empty()).then(|| json!(args.tag)));
    Ok(Value::Object(body))
}

/// A link of a fallback chain: `gpt-4o` or `gpt-4o=rate,server`.
fn link_of(text: &str) -> Value {
    match text.rsplit_once('=') {
        Some((model, classes)) => json!({"model": model, "on": classes.split(',').collect::<Vec<_>>()}),
        None => json!({"model": text}),
    }
}

fn later(text: Option<&str>) -> Result<Option<Value>, Failure> {
    text.map(|text| parse_later(text).map(|at| json!(at))).transpose().map_err(Failure::usage)
}

/// The payload, and the kind that its flags imply.
fn payload_of(args: &Args) -> Result<(Option<&'static str>, Value), Failure> {
    if let Some(prompt) = &args.prompt {
        let system = args.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain([json!({"role": "user", "content": prompt})]).collect();
        let mut payload = json!({ "messages": messages });
        if let Some(model) = &args.model {
            payload["model"] = json!(model);
        }
        if let Some(max_tokens) = args.max_tokens {
            payload["max_tokens"] = json!(max_tokens);
        }
        return Ok((Some("llm"), payload));
    }
    if !args.input.is_empty() {
        let mut payload = json!({"input": args.input});
        if let Some(model) = &args.model {
            payload["model"] = json!(model);
        }
        return Ok((Some("embedding"), payload));
    }
    let Some(source) = &args.payload else {
        return Err(Failure::usage("a job needs --payload, --prompt or --input"));
    };
    let text = read_source(source)?;
    let payload =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("the payload is not JSON: {error}")))?;
    Ok((None, payload))
}

/// The text of an argument: itself, @file, or - for stdin.
pub(crate) fn read_source(source: &str) -> Result<String, Failure> {
    let failed = |what: &str, error: std::io::Error| Failure::usage(format!("cannot read {what}: {error}"));
    match source.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|error| failed(path, error)),
        None if source == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| failed("stdin", error))?;
            Ok(text)
        }
        None => Ok(source.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn body(line: &[&str]) -> Result<Value, String> {
        let line = Line::try_parse_from([&["submit"], line].concat()).map_err(|error| error.to_string())?;
        body_of(&line.args).map_err(|failure| failure.message)
    }

    #[test]
    fn a_chain_is_read_link_by_link() {
        let chained = body(&["--prompt", "Hi", "--fallback", "gpt-4o=rate,server", "--fallback", "llama3:8b"]).unwrap();
        assert_eq!(chained["fallback"], json!([{"model": "gpt-4o", "on": ["rate", "server"]}, {"model": "llama3:8b"}]));
    }

    #[test]
    fn a_prompt_is_an_llm_job() {
        assert_eq!(
            body(&["--prompt", "Hi", "--system", "Be brief", "--model", "m", "--tag", "a", "--priority", "9"]).unwrap(),
            json!({"kind": "llm", "priority": 9, "tags": ["a"], "payload": {"model": "m", "messages": [
                {"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]}})
        );
    }

    #[test]
    fn inputs_are_an_embedding_job() {
        assert_eq!(
            body(&["--input", "a", "--input", "b"]).unwrap(),
            json!({"kind": "embedding", "payload": {"input": ["a", "b"]}})
        );
    }

    #[test]
    fn a_payload_comes_from_text_or_a_file() {
        let expected = json!({"kind": "probe", "payload": {"sleep_ms": 5}, "run_at": "2030-01-01T00:00:00.000Z"});
        let text = ["--kind", "probe", "--run-at", "2030-01-01T00:00:00Z", "--payload", r#"{"sleep_ms":5}"#];
        assert_eq!(body(&text).unwrap(), expected);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.json");
        std::fs::write(&file, r#"{"sleep_ms":5}"#).unwrap();
        let at_file = format!("@{}", file.display());
        assert_eq!(
            body(&["--kind", "probe", "--run-at", "2030-01-01T00:00:00Z", "--payload", &at_file]).unwrap(),
            expected
        );
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_sent() {
        for (line, expected) in [
            (&["--payload", "{}"][..], "needs a --kind"),
            (&[], "needs --payload, --prompt or --input"),
            (&["--kind", "probe", "--prompt", "x"], "does not go with"),
            (&["--kind", "probe", "--payload", "{"], "not JSON"),
            (&["--prompt", "x", "--run-at", "soon"], "neither a time"),
            (&["--prompt", "x", "--input", "y"], "cannot be used with"),
        ] {
            let error = body(line).unwrap_err();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
    }
}
