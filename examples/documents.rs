//! Analyses documents and embeds all their chunks, on a running Longshore, and prints what it took.
//!
//! ```sh
//! cargo run --release -- up                      # in another terminal
//! cargo run --release --example documents -- README.md ARCHITECTURE.md
//! cargo run --release --example documents -- --pack README.md ARCHITECTURE.md
//! ```
//!
//! With `--pack` the sections of all documents become the items of one job, several of which share a call.
//!
//! `LONGSHORE_URL` (http://127.0.0.1:8080) and `LONGSHORE_KEY` (else the key file of `./longshore-data`) say where it
//! is. `DOCUMENTS_CHAT_MODEL` and `DOCUMENTS_EMBED_MODEL` name the models; without them the server's defaults are used.
#![allow(clippy::print_stdout)]

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

struct Longshore {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Longshore {
    fn from_environment() -> Result<Self> {
        let url = env::var("LONGSHORE_URL").unwrap_or_else(|_| "http://127.0.0.1:8080".to_owned());
        let data = env::var("LONGSHORE_DATA").unwrap_or_else(|_| "longshore-data".to_owned());
        let key = match env::var("LONGSHORE_KEY") {
            Ok(key) => key,
            Err(_) => {
                fs::read_to_string(Path::new(&data).join("admin.key")).context("no LONGSHORE_KEY and no key file")?
            }
        };
        Ok(Self { http: reqwest::Client::new(), url, key: key.trim().to_owned() })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.is_success(), "GET {path}: {status} {body}");
        Ok(body)
    }

    async fn submit(&self, job: &Value) -> Result<String> {
        let answer = self.http.post(format!("{}/v1/jobs", self.url)).bearer_auth(&self.key).json(job).send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        ensure!(status.as_u16() == 202, "submit: {status} {body}");
        Ok(body["id"].as_str().context("the answer has no id")?.to_owned())
    }

    /// Waits for the end of a job; every other end than success is an error.
    async fn finished(&self, id: &str) -> Result<Value> {
        loop {
            let job = self.get(&format!("/v1/jobs/{id}?wait=30s")).await?;
            match job["state"].as_str() {
                Some("succeeded") => return Ok(job),
                Some("dead" | "cancelled") => bail!("job {id} ended {}: {}", job["state"], job["error"]),
                _ => {}
            }
        }
    }

    /// How many events the job's stream replays.
    async fn events(&self, id: &str) -> Result<usize> {
        let path = format!("{}/v1/jobs/{id}/events", self.url);
        let text = self.http.get(path).bearer_auth(&self.key).send().await?.error_for_status()?.text().await?;
        Ok(text.lines().filter(|line| line.starts_with("event:")).count())
    }
}

/// What is asked of every part of a document, and of the parts' answers together. The bounds let a model that is
/// decoded against a grammar end in time.
fn facts_schema(most: u32) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["facts"],
        "properties": {"facts": {"type": "array", "maxItems": most, "items": {
            "type": "object", "additionalProperties": false, "required": ["name", "detail"],
            "properties": {"name": {"type": "string", "maxLength": 40}, "detail": {"type": "string", "maxLength": 80}}
        }}}
    })
}

fn analysis(name: &str, text: &str, model: Option<&str>) -> Value {
    let mut defaults = json!({"max_tokens": 1_000, "temperature": 0});
    if let Some(model) = model {
        defaults["model"] = json!(model);
    }
    json!({
        "queue": "documents", "kind": "analysis", "operation": "runbook-facts", "batch_id": "documents",
        "tags": [name], "timeout": "1h",
        "payload": {
            "version": 1,
            "input": {"text": text, "format": "markdown"},
            "defaults": defaults,
            "chunk": {"by": "tokens", "size": 800, "overlap": 0, "splitter": "markdown"},
            "map": {
                "system": "You list operational facts as JSON.",
                "prompt": "List at most three facts that an operator needs from part {{index}} of {{total}}:\n{{chunk}}",
                "schema": facts_schema(3), "concurrency": 2
            },
            "reduce": {
                "strategy": "tree", "fan_in": 4, "schema": facts_schema(4),
                "prompt": "Merge these lists of facts into one list of at most four:\n{{items}}"
            }
        }
    })
}

fn embedding(name: &str, chunks: Vec<&str>, model: Option<&str>) -> Value {
    let mut payload = json!({"input": chunks});
    if let Some(model) = model {
        payload["model"] = json!(model);
    }
    json!({"queue": "documents", "kind": "embedding", "operation": "runbook-vectors", "batch_id": "documents",
           "tags": [name], "timeout": "1h", "payload": payload})
}

/// The sections of a Markdown text that say something.
fn sections(text: &str) -> Vec<&str> {
    let starts = text.match_indices("\n## ").map(|(at, _)| at + 1);
    let starts: Vec<usize> = std::iter::once(0).chain(starts).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let sections = starts.iter().zip(ends).map(|(start, end)| &text[*start..end]);
    sections.filter(|section| !section.trim().is_empty()).collect()
}

/// Asks about every section of every document in one job, and prints what each document cost.
async fn packed(longshore: &Longshore, files: &[String], chat: Option<&str>) -> Result<()> {
    let mut items = vec![];
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?;
        items.extend(
            sections(&text)
                .into_iter()
                .enumerate()
                .map(|(at, text)| json!({"id": format!("{file}#{at}"), "text": text})),
        );
    }
    let mut job = analysis("packed", "", chat);
    job["operation"] = json!("runbook-sections");
    let payload = &mut job["payload"];
    payload["input"] = json!({"items": items, "format": "markdown"});
    payload["chunk"] = json!({"size": 800, "overlap": 0, "pack": {"max_tokens": 800, "max_items": 8}});
    payload["map"]["prompt"] = json!("List at most three facts that an operator needs from the text:\n{{chunk}}");
    payload["reduce"] = json!({"strategy": "merge_arrays"});
    let id = longshore.submit(&job).await?;
    let job = longshore.finished(&id).await?;
    let result = longshore.get(&format!("/v1/jobs/{id}/result")).await?;
    let outcomes = result["items"].as_array().context("the result has no items")?;
    ensure!(outcomes.len() == items.len(), "{} results for {} items", outcomes.len(), items.len());
    println!("{:<40} {:>6} {:>12}", "section", "facts", "cost USD");
    for outcome in outcomes {
        let facts = outcome["output"]["facts"].as_array().map_or(0, Vec::len);
        let (id, cost) =
            (outcome["id"].as_str().unwrap_or_default(), outcome["cost_usd"].as_str().unwrap_or("unknown"));
        println!("{id:<40} {facts:>6} {cost:>12}");
    }
    let (calls, cost) = (&result["calls"], job["cost_usd"].as_str().unwrap_or("unknown"));
    println!("{} sections in {calls} calls for {cost} USD", outcomes.len());
    Ok(())
}

struct Row {
    name: String,
    chunks: usize,
    facts: usize,
    calls: usize,
    tokens: u64,
    cost: String,
    events: usize,
    vectors: usize,
    dimensions: usize,
    served_by: String,
}

async fn process(longshore: &Longshore, file: &str, chat: Option<&str>, embed: Option<&str>) -> Result<Row> {
    let text = fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?;
    let name = Path::new(file).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();

    let id = longshore.submit(&analysis(&name, &text, chat)).await?;
    let job = longshore.finished(&id).await?;
    let result = longshore.get(&format!("/v1/jobs/{id}/result")).await?;
    let parts = result["map"].as_array().context("the result has no map")?;
    let span = |part: &Value, end: &str| part[end].as_u64().unwrap_or_default() as usize;
    let chunks: Vec<&str> = parts.iter().filter_map(|part| text.get(span(part, "start")..span(part, "end"))).collect();
    ensure!(chunks.len() == parts.len(), "offsets of {file} do not lie in the document");

    let vectors_id = longshore.submit(&embedding(&name, chunks.clone(), embed)).await?;
    let vectors_job = longshore.finished(&vectors_id).await?;
    let vectors = longshore.get(&format!("/v1/jobs/{vectors_id}/result")).await?;
    let vectors = vectors["vectors"].as_array().context("the result has no vectors")?;
    ensure!(vectors.len() == chunks.len(), "{} vectors for {} chunks", vectors.len(), chunks.len());

    let calls = longshore.get(&format!("/v1/jobs/{id}/calls")).await?;
    let tokens = |job: &Value| {
        let of = |key: &str| job["usage"][key].as_u64().unwrap_or_default();
        of("tokens_in") + of("tokens_out")
    };
    Ok(Row {
        chunks: chunks.len(),
        facts: result["output"]["facts"].as_array().map_or(0, Vec::len),
        calls: calls["calls"].as_array().map_or(0, Vec::len) + 1,
        tokens: tokens(&job) + tokens(&vectors_job),
        cost: job["cost_usd"].as_str().unwrap_or("unknown").to_owned(),
        events: longshore.events(&id).await?,
        vectors: vectors.len(),
        dimensions: vectors.first().and_then(Value::as_array).map_or(0, Vec::len),
        served_by: job["served_by"].as_str().unwrap_or_default().to_owned(),
        name,
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut files: Vec<String> = env::args().skip(1).collect();
    let is_packed = files.first().is_some_and(|first| first == "--pack");
    files.drain(..usize::from(is_packed));
    ensure!(!files.is_empty(), "name the documents to analyse");
    let longshore = Longshore::from_environment()?;
    let (chat, embed) = (env::var("DOCUMENTS_CHAT_MODEL").ok(), env::var("DOCUMENTS_EMBED_MODEL").ok());
    if is_packed {
        return packed(&longshore, &files, chat.as_deref()).await;
    }
    println!(
        "{:<22} {:>6} {:>6} {:>6} {:>8} {:>12} {:>7} {:>14}  served by",
        "document", "chunks", "facts", "calls", "tokens", "cost USD", "events", "vectors"
    );
    for file in &files {
        let row = process(&longshore, file, chat.as_deref(), embed.as_deref()).await?;
        println!(
            "{:<22} {:>6} {:>6} {:>6} {:>8} {:>12} {:>7} {:>8} x {:>3}  {}",
            row.name,
            row.chunks,
            row.facts,
            row.calls,
            row.tokens,
            row.cost,
            row.events,
            row.vectors,
            row.dimensions,
            row.served_by
        );
    }
    println!("{} documents analysed and embedded", files.len());
    Ok(())
}
