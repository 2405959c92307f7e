//! What telemetry costs: the same drain on Redis and Postgres with traces that are sent and metrics that are scraped, and without,
//! in turn. Metrics are counted in both: a process cannot be told not to.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::Receiver;

use super::{informs, judged};
use crate::{
    bar::{Bar, Judged},
    bench::installation::{Installation, Stores},
};

/// Drains of each.
const ROUNDS: usize = 4;
/// Jobs of one drain.
const JOBS: &str = "100000";
/// Jobs of one submit: a trace is decided about for all of them at once, so that few would make a coarse hundredth.
const JOBS_A_SUBMIT: &str = "20";
/// Slots of the worker.
const SLOTS: &str = "10000";
/// The share of submits that is traced.
const SHARE: &str = "0.01";
/// The span of an attempt of the queue that `longshore bench` loads.
const ATTEMPT: &[u8] = b"process bench";
/// How often metrics are scraped: much more often than by any Prometheus.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);
/// What must be left of the rate.
const LEAST_PERCENT: f64 = 95.0;

/// The rate that is left with telemetry, and the rates.
pub(super) async fn measure(longshore: &Path) -> Result<Vec<Judged>> {
    let receiver = Receiver::start().await;
    let (mut with, mut without) = (vec![], vec![]);
    for round in 0..ROUNDS {
        // The other order each time: what the machine does meanwhile meets both alike.
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        for told in order {
            let rate = drain(longshore, told.then_some(&receiver)).await?;
            eprintln!("round {} {}: {rate:.0} jobs/s", round + 1, if told { "with" } else { "without" });
            if told { &mut with } else { &mut without }.push(rate);
        }
    }
    let bodies = receiver.taken();
    let traced: usize = bodies.iter().map(|export| count(&export.body)).sum();
    let submitted = ROUNDS as f64 * JOBS.parse::<f64>()?;
    let (with, without) = (median(with), median(without));
    Ok(vec![
        judged(
            format!("drain with metrics scraped and 1 % of traces sent, against without (medians of {ROUNDS})"),
            100.0 * with / without,
            "%",
            Bar::AtLeast(LEAST_PERCENT),
        ),
        informs("drain with".to_owned(), with, "jobs/s"),
        informs("drain without".to_owned(), without, "jobs/s"),
        informs("attempts that the receiver was told of".to_owned(), 100.0 * traced as f64 / submitted, "%"),
        informs("exports".to_owned(), bodies.len() as f64, "requests"),
    ])
}

/// Jobs a second of one drain on new stores.
async fn drain(longshore: &Path, receiver: Option<&Receiver>) -> Result<f64> {
    let url = receiver.map(Receiver::url);
    let environment: Vec<(&str, &str)> = match &url {
        Some(url) => vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", SHARE),
        ],
        None => vec![],
    };
    let installation = Installation::start_with(longshore, Stores::Shared, SLOTS, &environment).await?;
    let scraping = url.is_some().then(|| tokio::spawn(scrape(format!("{}/metrics", installation.url))));
    let mut bench = installation.operator(longshore);
    bench.args(["bench", "--jobs", JOBS, "--bulk-jobs", JOBS_A_SUBMIT, "drain"]).stderr(Stdio::inherit());
    let output = bench.output().await.context("`longshore bench` did not start")?;
    if let Some(scraping) = scraping {
        scraping.abort();
    }
    ensure!(output.status.success(), "`longshore bench`: {}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let rows = report["rows"].as_array().context("a report has rows")?;
    let rate = rows.iter().find(|row| row["phase"] == "drain").and_then(|row| row["jobs_per_second"].as_f64());
    // In order, so that its last spans are told.
    installation.stop().await?;
    rate.context("the report tells no rate")
}

async fn scrape(url: String) {
    let (http, mut ticks) = (reqwest::Client::new(), tokio::time::interval(SCRAPE_EVERY));
    loop {
        ticks.tick().await;
        if let Ok(answer) = http.get(&url).send().await {
            let _ = answer.bytes().await;
        }
    }
}

/// How many attempts a message tells of.
fn count(body: &[u8]) -> usize {
    body.windows(ATTEMPT.len()).filter(|window| *window == ATTEMPT).count()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    let (lower, upper) = (rates[(rates.len() - 1) / 2], rates[rates.len() / 2]);
    (lower + upper) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_in_the_middle_and_attempts_are_counted() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert_eq!(count(b"..process bench..process benches..process"), 2);
    }
}
