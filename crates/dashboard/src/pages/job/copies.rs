//! Commands to copy: what they do is what the page does, and what a shell makes of them is what stands in them, whatever that is.
//! The caller's key is never in them: they read it from the environment, as the CLI does.

use serde_json::{Map, Value, json};

use crate::pages::jobs::row::{Job, Link};

/// Longest payload that stands in a command: longer ones are named as a file, which Linux would refuse as an argument (128 KiB).
const PAYLOAD_MAX_BYTES: usize = 32 * 1024;

/// A text as one word of a POSIX shell.
pub(crate) fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The request that shows a job.
pub(crate) fn curl_get(id: &str) -> String {
    format!(
        "curl --fail-with-body -H \"Authorization: Bearer $LONGSHORE_KEY\" \"$LONGSHORE_URL/v1/jobs/\"{}",
        shell(id)
    )
}

/// The command that shows it.
pub(crate) fn cli_get(id: &str) -> String {
    format!("longshore job get {}", shell(id))
}

/// The request that submits such a job again. `payload` is JSON text as it was submitted.
pub(crate) fn curl_submit(job: &Job, payload: &str) -> String {
    let head = "curl --fail-with-body -X POST \"$LONGSHORE_URL/v1/jobs\" -H \"Authorization: Bearer $LONGSHORE_KEY\" \
                -H 'Content-Type: application/json'";
    if payload.len() > PAYLOAD_MAX_BYTES {
        return format!("{head} --data-binary @job.json");
    }
    format!("{head} --data-binary {}", shell(&body_with(job, payload)))
}

/// The command that submits such a job again.
pub(crate) fn cli_submit(job: &Job, payload: &str) -> String {
    let payload = if payload.len() > PAYLOAD_MAX_BYTES { "@payload.json" } else { payload };
    let mut words = vec!["longshore job submit".to_owned(), flag("kind", &job.kind), flag("queue", &job.queue)];
    words.push(flag("payload", payload));
    words.push(flag("priority", &job.priority.to_string()));
    words.push(flag("max-attempts", &job.max_attempts.to_string()));
    let optional = [
        ("timeout", &job.timeout),
        ("unique-key", &job.unique_key),
        ("concurrency-key", &own(&job.concurrency_key)),
        ("max-cost-usd", &job.max_cost_usd),
        ("operation", &job.operation),
        ("batch-id", &own(&job.batch_id)),
    ];
    words.extend(optional.into_iter().filter_map(|(name, value)| Some(flag(name, value.as_deref()?))));
    words.extend(job.tags.iter().map(|tag| flag("tag", tag)));
    words.extend(job.fallback.iter().map(|link| match link.on.as_slice() {
        [] => flag("fallback", &link.model),
        on => flag("fallback", &format!("{}={}", link.model, on.join(","))),
    }));
    words.join(" ")
}

/// With `=`, so that a value which begins with a dash is no flag.
fn flag(name: &str, value: &str) -> String {
    format!("--{name}={}", shell(value))
}

/// A batch or concurrency key that a caller may name: those of schedules are theirs alone.
fn own(name: &Option<String>) -> Option<String> {
    name.clone().filter(|name| !name.starts_with("schedule:"))
}

/// The body of a submit of such a job: `payload` stands in it as it is, digit by digit.
pub(crate) fn body_with(job: &Job, payload: &str) -> String {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("queue", json!(job.queue));
    put("kind", json!(job.kind));
    put("priority", json!(job.priority));
    put("max_attempts", json!(job.max_attempts));
    put("tenant", json!(job.tenant));
    let optional = [
        ("timeout", &job.timeout),
        ("unique_key", &job.unique_key),
        ("concurrency_key", &own(&job.concurrency_key)),
        ("max_cost_usd", &job.max_cost_usd),
        ("operation", &job.operation),
        ("batch_id", &own(&job.batch_id)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, json!(value));
        }
    }
    if !job.tags.is_empty() {
        put("tags", json!(job.tags));
    }
    if !job.fallback.is_empty() {
        let link = |link: &Link| match link.on.as_slice() {
            [] => json!({"model": link.model}),
            on => json!({"model": link.model, "on": on}),
        };
        put("fallback", json!(job.fallback.iter().map(link).collect::<Vec<_>>()));
    }
    let around = Value::Object(fields).to_string();
    // The object is never empty: `queue` and others are in it.
    let head = around.strip_suffix('}').unwrap_or(&around);
    format!("{head},\"payload\":{payload}}}")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use super::*;

    /// A job with something in every field that a command may carry.
    pub(crate) fn hostile() -> Job {
        serde_json::from_value(json!({
            "id": "01935f0a-0000-7000-8000-000000000001", "queue": "llm", "kind": "llm", "tenant": "acme", "target": "openai:gpt:default",
            "state": "dead", "priority": 5, "attempts": 3, "max_attempts": 3, "recoveries": 0, "redrives": 0,
            "run_at": "2026-11-30T10:00:00.000Z", "accepted_at": "2026-11-30T10:00:00.000Z", "timeout": "1h 30m",
            "unique_key": "it's \"$(reboot)\" `id` \\ !! \u{e9}", "operation": "claims",
            "batch_id": "-rf ~; & | > #", "tags": ["<script>alert(1)</script>", "--help", "two words"],
            "fallback": [{"model": "gpt-4o-mini", "on": ["rate", "server"]}, {"model": "llama"}],
            "max_cost_usd": "0.05", "cost_usd": null
        }))
        .unwrap()
    }

    const PAYLOAD: &str =
        r#"{"messages":[{"role":"user","content":"it's $HOME `x` \n \"q\""}],"seed":12345678901234567890123,"t":0.10}"#;

    /// What a real shell hands to the command, word by word.
    fn words_of(command: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {command}");
        let shown = Command::new("/bin/sh").args(["-c", &script]).env_clear().output().unwrap();
        assert!(shown.status.success() && shown.stderr.is_empty(), "{command}: {shown:?}");
        let text = String::from_utf8(shown.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_hands_on_exactly_what_was_in_the_job() {
        let job = hostile();
        let words = words_of(&cli_submit(&job, PAYLOAD));
        let expected = [
            "longshore".to_owned(),
            "job".to_owned(),
            "submit".to_owned(),
            "--kind=llm".to_owned(),
            "--queue=llm".to_owned(),
            format!("--payload={PAYLOAD}"),
            "--priority=5".to_owned(),
            "--max-attempts=3".to_owned(),
            "--timeout=1h 30m".to_owned(),
            format!("--unique-key={}", job.unique_key.as_deref().unwrap()),
            "--max-cost-usd=0.05".to_owned(),
            "--operation=claims".to_owned(),
            "--batch-id=-rf ~; & | > #".to_owned(),
            "--tag=<script>alert(1)</script>".to_owned(),
            "--tag=--help".to_owned(),
            "--tag=two words".to_owned(),
            "--fallback=gpt-4o-mini=rate,server".to_owned(),
            "--fallback=llama".to_owned(),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_request_carries_the_payload_digit_by_digit() {
        let words = words_of(&curl_submit(&hostile(), PAYLOAD));
        let body = words.last().unwrap();
        assert!(body.ends_with(&format!(",\"payload\":{PAYLOAD}}}")), "{body}");
        let read: Value = serde_json::from_str(body).unwrap();
        assert_eq!(read["tags"][0], "<script>alert(1)</script>");
        assert_eq!(read["fallback"][1], json!({"model": "llama"}));
        // The key comes from the environment of whoever runs it, and is no part of the text.
        assert!(words.contains(&"Authorization: Bearer ".to_owned()));
        assert_eq!(words_of(&cli_get("a b'c")), ["longshore", "job", "get", "a b'c"]);
    }

    #[test]
    fn what_a_schedule_named_stays_its_own() {
        let job =
            Job { batch_id: Some("schedule:0192".into()), concurrency_key: Some("schedule:0192".into()), ..hostile() };
        let body = body_with(&job, "{}");
        assert!(!body.contains("schedule:"), "{body}");
        let command = cli_submit(&job, "{}");
        assert!(!command.contains("--batch-id") && !command.contains("--concurrency-key"), "{command}");
    }

    #[test]
    fn a_long_payload_is_named_as_a_file() {
        let long = format!("{{\"pad\":\"{}\"}}", "x".repeat(PAYLOAD_MAX_BYTES));
        assert!(cli_submit(&hostile(), &long).contains("--payload=@payload.json"));
        assert!(curl_submit(&hostile(), &long).ends_with("--data-binary @job.json"));
    }
}
