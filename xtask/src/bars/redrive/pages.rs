//! Lists and groups of very many dead letters.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tokio::time::Instant;

use super::{PATIENCE, Scene};
use crate::{
    bar::{Bar, Judged},
    bars::{informs, judged},
};

/// Milliseconds that a page may take.
const PAGE_MAX_MS: f64 = 50.0;
/// Times that each is asked for; the slowest of twenty is left out.
const TIMES: usize = 40;
/// Causes of the letters.
const CAUSES: u64 = 50;
/// Lines on their way into the sums that are left when the pages are asked for: what some seconds of a bad hour make.
const LINES_LEFT: u64 = 5_000;

impl Scene {
    /// Pages of that many letters, which are written straight into the journal.
    pub(super) async fn of_pages(&self, letters: usize) -> Result<Vec<Judged>> {
        eprintln!("{letters} more dead letters, and pages of them …");
        self.cluster.sql(&format!(
            r#"INSERT INTO jobs (id, tenant, queue, kind, target, priority, standing, attempts, max_attempts, run_at,
                                 accepted_at, finished_at, error, error_class, error_signature, cost_nanousd)
               SELECT (lpad(to_hex(1790000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid, 'acme',
                      'pages' || n % 3, 'llm', 'openai:gpt:default', 5, 2, 3, 3, 1790000000000 + n, 1790000000000 + n,
                      1790000060000 + n, '{{"class":"server","code":"503","message":"cause ' || n % {CAUSES} ||
                      '","signature":"server:503: cause ' || n % {CAUSES} || '","retryable":true}}', 'server',
                      'server:503: cause ' || n % {CAUSES}, 1000
               FROM generate_series(1, {letters}) AS n"#
        ));
        self.cluster.sql("ANALYZE jobs");
        let began = Instant::now();
        let folded = loop {
            let left: u64 = self.cluster.sql("SELECT count(*) FROM dead_tail").parse()?;
            if left <= LINES_LEFT {
                break began.elapsed();
            }
            ensure!(began.elapsed() < PATIENCE, "{left} lines are not folded");
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let deep = format!("c{:012x}70008000{:012x}", 1_790_000_000_000_u64 + letters as u64 / 2, letters / 2);
        let group = "signature=server%3A503%3A%20cause%207";
        let mut figures = Vec::new();
        for (what, path) in [
            ("the first 50", "/v1/dead-letters?limit=50".to_owned()),
            ("500 from the middle", format!("/v1/dead-letters?limit=500&cursor={deep}")),
            ("50 of one cause", format!("/v1/dead-letters?limit=50&{group}")),
            ("50 of one cause, from the middle", format!("/v1/dead-letters?limit=50&{group}&cursor={deep}")),
            ("50 of one queue by filter", "/v1/dead-letters?limit=50&filter=queue%20%3D%20pages1".to_owned()),
            ("all groups", "/v1/dead-letters/groups".to_owned()),
            ("the groups of one queue", "/v1/dead-letters/groups?queue=pages1".to_owned()),
        ] {
            let what = format!("{letters} dead letters: {what}");
            figures.push(judged(what, self.slow_ms(&path).await?, "ms", Bar::AtMost(PAGE_MAX_MS)));
        }
        let all = self.ask(Method::GET, "/v1/dead-letters/groups?queue=pages1", None).await?;
        let counts =
            all["groups"].as_array().context("groups are a list")?.iter().filter_map(|one| one["count"].as_u64());
        ensure!(counts.sum::<u64>() == letters as u64 / 3 + u64::from(letters % 3 >= 1), "the groups do not add up");
        figures.push(informs("folding their sums".to_owned(), folded.as_secs_f64(), "s"));
        Ok(figures)
    }

    /// The time of an answer that nineteen of twenty do not exceed.
    async fn slow_ms(&self, path: &str) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            let began = Instant::now();
            self.ask(Method::GET, path, None).await?;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[TIMES * 19 / 20 - 1])
    }
}
