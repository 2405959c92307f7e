//! What a run measured, in figures of this run only.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{Args, latency::Latency, load::Run};
use crate::{
    commands::Operator,
    failure::Failure,
    output::{self, cell, items},
    process::vitals::line_bytes,
};

/// One line.
struct Row {
    phase: &'static str,
    jobs: usize,
    seconds: Option<f64>,
    times: Option<Histogram<u64>>,
    failed: usize,
    what: String,
}

/// The report of a run.
pub(super) struct Report {
    server: Value,
    set_up: Value,
    rows: Vec<Row>,
    memory: Option<(u64, u64)>,
}

impl Report {
    /// Notes what is measured: server, version, workers, load.
    pub(super) async fn begin(operator: &Operator, args: &Args, pid: Option<u32>) -> Result<Self, Failure> {
        let health = operator.client.get(&["health"], &[]).await?;
        let workers = operator.client.get(&["v1", "workers"], &[]).await?;
        let alive = |worker: &&Value| worker.get("alive").and_then(Value::as_bool).unwrap_or(false);
        let workers: Vec<&Value> = items(&workers, "workers").iter().filter(alive).collect();
        let slots: u64 = workers.iter().filter_map(|worker| worker.get("slots").and_then(Value::as_u64)).sum();
        Ok(Self {
            server: json!({
                "url": operator.client.base(), "version": cell(&health, "version"),
                "workers": workers.len(), "slots": slots, "pid": pid,
            }),
            set_up: json!({
                "kind": "probe", "provider": "none: probe jobs call no provider", "concurrency": args.concurrency,
                "tenants": args.tenants, "payload_bytes": args.payload_bytes, "queue": args.queue,
                "client_cores": std::thread::available_parallelism().map_or(1, usize::from),
            }),
            rows: Vec::new(),
            memory: None,
        })
    }

    /// Adds the bulk submits of a load.
    pub(super) fn submit(&mut self, run: &Run) {
        self.rows.push(Row {
            phase: "submit",
            jobs: run.jobs,
            seconds: Some(run.submit.as_secs_f64()),
            times: Some(run.requests.clone()),
            failed: 0,
            what: "bulk requests of up to 1,000 jobs into a paused queue, each answered after its commit; times are \
                   of requests"
                .to_owned(),
        });
    }

    /// Adds submits of one job a request.
    pub(super) fn single(&mut self, run: &Run, in_flight: usize) {
        self.rows.push(Row {
            phase: "single",
            jobs: run.jobs,
            seconds: Some(run.submit.as_secs_f64()),
            times: Some(run.requests.clone()),
            failed: run.failed,
            what: format!("one job a request, {in_flight} in flight, paused queue, each answered after its commit"),
        });
    }

    /// Adds the drain of a load.
    pub(super) fn drain(&mut self, run: &Run) {
        self.rows.push(Row {
            phase: "drain",
            jobs: run.jobs,
            seconds: Some(seconds_between(run)),
            times: None,
            failed: run.failed,
            what: "first handler start to last handler end, every job settled durably; by the jobs' own times (±1 ms)"
                .to_owned(),
        });
    }

    /// Adds jobs that slept.
    pub(super) fn sleep(&mut self, run: &Run, sleep_ms: u64) {
        let slots = self.server["slots"].as_u64().unwrap_or(0);
        let waves = match slots < run.jobs as u64 {
            true => format!("; only {slots} at once, as many as there are slots (`up --slots`)"),
            false => String::new(),
        };
        self.rows.push(Row {
            phase: "sleep",
            jobs: run.jobs,
            seconds: Some(seconds_between(run)),
            times: None,
            failed: run.failed,
            what: format!("jobs that sleep {sleep_ms} ms each: first handler start to last handler end (±1 ms){waves}"),
        });
    }

    /// Adds single submits.
    pub(super) fn latency(&mut self, latency: &Latency) {
        let precision = if latency.exact { "to the microsecond" } else { "±1 ms: the start is known in milliseconds" };
        let row = |phase, times: &Histogram<u64>, what: String| Row {
            phase,
            jobs: latency.jobs,
            seconds: None,
            times: Some(times.clone()),
            failed: 0,
            what,
        };
        self.rows.push(row("pick-up", &latency.pick_up, format!("single submit, call to handler start, {precision}")));
        self.rows.push(row("answer", &latency.answer, "the same submits, call to the 202 after the commit".to_owned()));
    }

    /// Notes the server's memory at the end.
    pub(super) fn finish(&mut self, pid: Option<u32>) {
        self.memory = pid.and_then(memory_of);
    }

    /// Whether every job succeeded.
    pub(super) fn is_complete(&self) -> bool {
        self.rows.iter().all(|row| row.failed == 0)
    }

    /// The report for programs.
    pub(super) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let quantile = |q: f64| row.times.as_ref().map(|times| ms(times.value_at_quantile(q)));
            json!({
                "phase": row.phase, "jobs": row.jobs, "failed": row.failed, "seconds": row.seconds,
                "jobs_per_second": rate(row), "p50_ms": quantile(0.5), "p90_ms": quantile(0.9),
                "p99_ms": quantile(0.99), "max_ms": row.times.as_ref().map(|times| ms(times.max())), "what": row.what,
            })
        };
        json!({
            "server": self.server, "set_up": self.set_up,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "memory": self.memory.map(|(now, peak)| json!({"rss_bytes": now, "peak_rss_bytes": peak})),
        })
    }

    /// The report for people.
    pub(super) fn print(&self) {
        let cells = |row: &Row| {
            let quantile =
                |q: f64| row.times.as_ref().map_or(String::new(), |times| figure(ms(times.value_at_quantile(q))));
            vec![
                row.phase.to_owned(),
                row.jobs.to_string(),
                row.failed.to_string(),
                row.seconds.map_or(String::new(), |seconds| format!("{seconds:.3}")),
                rate(row).map_or(String::new(), |rate| format!("{rate:.0}")),
                quantile(0.5),
                quantile(0.9),
                quantile(0.99),
                row.times.as_ref().map_or(String::new(), |times| figure(ms(times.max()))),
            ]
        };
        let headers = ["PHASE", ">JOBS", ">FAILED", ">SECONDS", ">JOBS/S", ">P50 ms", ">P90 ms", ">P99 ms", ">MAX ms"];
        output::table(&headers, self.rows.iter().map(cells).collect());
        for row in &self.rows {
            output::line(&format!("{:8} {}", row.phase, row.what));
        }
        let get = |holder: &Value, name: &str| cell(holder, name);
        output::line(&format!(
            "server   {} version {}, {} worker(s) with {} slots; jobs of kind probe, no provider is called",
            get(&self.server, "url"),
            get(&self.server, "version"),
            get(&self.server, "workers"),
            get(&self.server, "slots"),
        ));
        output::line(&format!(
            "load     payloads of {} bytes, {} tenants, {} requests in flight, client on a machine of {} cores",
            get(&self.set_up, "payload_bytes"),
            get(&self.set_up, "tenants"),
            get(&self.set_up, "concurrency"),
            get(&self.set_up, "client_cores"),
        ));
        if let Some((now, peak)) = self.memory {
            let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
            output::line(&format!(
                "memory   server {:.1} MiB now, {:.1} MiB at most since its start",
                mib(now),
                mib(peak)
            ));
        }
    }
}

fn seconds_between(run: &Run) -> f64 {
    // Below the resolution of the jobs' times the best that can be said is one step of it.
    Duration::from_millis(u64::try_from(run.last_end.since_ms(run.first_start)).unwrap_or(0).max(1)).as_secs_f64()
}

fn rate(row: &Row) -> Option<f64> {
    row.seconds.map(|seconds| row.jobs as f64 / seconds)
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

fn figure(ms: f64) -> String {
    format!("{ms:.2}")
}

/// Resident bytes of a process of this machine, now and at most, where the system tells.
fn memory_of(pid: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((line_bytes(&status, "VmRSS:")?, line_bytes(&status, "VmHWM:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_system() {
        let status = "Name:\tlongshore\nVmHWM:\t   61440 kB\nVmRSS:\t   51200 kB\n";
        assert_eq!(line_bytes(status, "VmRSS:"), Some(51_200 * 1_024));
        assert_eq!(line_bytes(status, "VmHWM:"), Some(61_440 * 1_024));
        assert_eq!(line_bytes(status, "VmNone:"), None);
    }
}
