//! An operator changes what a target may take while everything runs, and it stays so.

use crate::installation::Installation;
use serde_json::{Value, json};
use testkit::MockProvider;

const TARGET: &str = "mock:gpt-4o-mini:default";

fn job() -> Value {
    json!({"kind": "llm", "payload": {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How many?"}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_raised_while_jobs_wait_for_it_and_outlives_a_kill() {
    let (folder, provider) = (tempfile::tempdir().unwrap(), MockProvider::start().await);
    let file = folder.path().join("longshore.toml");
    let configured = format!("[[providers]]\nname = \"mock\"\nurl = \"{}\"\nrequests_per_minute = 1\n", provider.url());
    std::fs::write(&file, configured).unwrap();
    let data = folder.path().join("data");
    let mut up = Installation::start_in(&data, &["--config", file.to_str().unwrap()], &[]).await;
    let mut jobs = vec![];
    for _ in 0..4 {
        jobs.push(up.submit(&job()).await);
    }
    up.ended(&jobs[0]).await;
    // One a minute: the next ones are turned away, and their target is parked.
    up.until("a job waits for the limit", async |up| {
        let why = up.get(&format!("/v1/jobs/{}/why", jobs[3])).await.to_string();
        why.contains("target_parked")
    })
    .await;
    assert_eq!(provider.calls().len(), 1);
    let said = up.command(&["limit", "set", TARGET, "--requests-per-minute", "6000"]);
    assert!(
        said.contains("requests_per_minute 6000 (set)") && said.contains("tokens_charged admission (configured)"),
        "{said}"
    );
    for id in &jobs {
        assert_eq!(up.ended(id).await["state"], "succeeded");
    }
    let metrics = up.page("/metrics").await;
    let cheap = "longshore_job_cost_usd_bucket{kind=\"llm\",outcome=\"succeed\",le=\"0.0001\"} 4\n";
    assert!(metrics.contains(cheap), "{metrics}");

    up.kill();
    up.start_again().await;
    let shown = up.get(&format!("/v1/limits/{TARGET}")).await;
    assert_eq!(shown["limit"]["requests_per_minute"], 6_000, "{shown}");
    up.ended(&up.submit(&job()).await).await;
    up.ended(&up.submit(&job()).await).await;
    let said = up.command(&["limit", "set", TARGET, "--concurrency", "3"]);
    assert!(said.contains("requests_per_minute 6000 (set)") && said.contains("concurrency 3 (set)"), "{said}");
    let said = up.command(&["limit", "clear", TARGET]);
    assert!(
        said.contains("requests_per_minute 1 (configured)") && said.contains("concurrency 64 (configured)"),
        "{said}"
    );
}
