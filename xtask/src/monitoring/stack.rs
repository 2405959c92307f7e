//! Debian's Prometheus and exporters beside a cluster, and promtool's opinion of what each process shows.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command as Blocking, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testkit::Watchdog;
use tokio::process::{Child, Command};

use super::{contract, rules};
use crate::{
    cluster::{Cluster, Role},
    root,
};

/// Longest wait for a program to listen, and for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at something that no signal announces.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two scrapes, and between two evaluations of the rules.
const SCRAPE_EVERY: &str = "2s";

/// A program with a port, which ends with this value.
struct Program {
    address: String,
    // Ends it also where this process is killed; dropped first, so that it ends nobody who gets the number.
    _watchdog: Watchdog,
    _process: Child,
}

impl Program {
    /// `arguments` are told the address to listen on.
    async fn start(
        name: &str,
        arguments: impl FnOnce(&str) -> Result<Vec<String>>,
        environment: &[(&str, String)],
        log: &Path,
    ) -> Result<Self> {
        // Free when it is asked for; whoever takes it meanwhile makes this run fail, and the next one finds another.
        let address = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let mut command = Command::new(name);
        command.args(arguments(&address)?).envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log)?);
        let process = command.process_group(0).kill_on_drop(true).spawn().with_context(|| name.to_owned())?;
        let watchdog = Watchdog::over(process.id().with_context(|| format!("{name} has just been started"))?);
        let began = Instant::now();
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            ensure!(began.elapsed() < PATIENCE, "{name} does not listen:\n{}", fs::read_to_string(log)?);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Self { address, _watchdog: watchdog, _process: process })
    }
}

/// A Prometheus with our rules, which scrapes the cluster and the exporters beside it.
pub(super) struct Prometheus {
    server: Program,
    _exporters: Vec<Program>,
    http: reqwest::Client,
}

impl Prometheus {
    /// Starts all of it; its files lie in `folder`.
    pub(super) async fn start(cluster: &Cluster, folder: &Path) -> Result<Self> {
        let listens = |address: &str| Ok(vec![format!("--web.listen-address={address}")]);
        let log = |name: &str| folder.join(format!("{name}.log"));
        let node = Program::start("prometheus-node-exporter", listens, &[], &log("node")).await?;
        let redis_url = cluster.redis.url();
        let of_redis =
            |address: &str| Ok(vec![format!("-web.listen-address={address}"), format!("-redis.addr={redis_url}")]);
        let redis = Program::start("prometheus-redis-exporter", of_redis, &[], &log("redis")).await?;
        let source = [("DATA_SOURCE_NAME", format!("{}?sslmode=disable", cluster.database))];
        let postgres = Program::start("prometheus-postgres-exporter", listens, &source, &log("postgres")).await?;
        let mut jobs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for member in &cluster.members {
            let address = member.url.trim_start_matches("http://").to_owned();
            jobs.entry(format!("longshore-{}", member.role)).or_default().push(address);
        }
        for (job, program) in [("node", &node), ("redis", &redis), ("postgres", &postgres)] {
            jobs.insert(job.to_owned(), vec![program.address.clone()]);
        }
        let config = folder.join("prometheus.yml");
        let of_server = |address: &str| {
            // Itself too: it reads its configuration after it was given its address.
            jobs.insert("prometheus".to_owned(), vec![address.to_owned()]);
            fs::write(&config, configuration(&jobs))?;
            Ok(vec![
                format!("--web.listen-address={address}"),
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", folder.join("tsdb").display()),
                "--storage.tsdb.retention.time=1h".to_owned(),
                "--query.lookback-delta=1m".to_owned(),
            ])
        };
        let server = Program::start("prometheus", of_server, &[], &log("prometheus")).await?;
        Ok(Self { server, _exporters: vec![node, redis, postgres], http: reqwest::Client::new() })
    }

    /// The values of the series of an instant query.
    pub(super) async fn query(&self, query: &str) -> Result<Vec<f64>> {
        let url = format!("http://{}/api/v1/query", self.server.address);
        let asked = self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let answer: Value = asked.body(format!("query={}", encoded(query))).send().await?.json().await?;
        if answer["status"] != "success" {
            bail!("{}", answer["error"].as_str().unwrap_or("no error is named"));
        }
        let value = |of: &Value| of[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        let result = &answer["data"]["result"];
        Ok(match answer["data"]["resultType"].as_str() {
            Some("vector") => result.as_array().into_iter().flatten().map(|one| value(&one["value"])).collect(),
            _ => vec![value(result)],
        })
    }

    /// Every rule that Prometheus could not evaluate, with its error, and how many there are.
    pub(super) async fn rules(&self) -> Result<(usize, Vec<String>)> {
        let url = format!("http://{}/api/v1/rules", self.server.address);
        let answer: Value = self.http.get(url).send().await?.json().await?;
        let groups = answer["data"]["groups"].as_array().context("no groups of rules")?;
        let rules: Vec<&Value> = groups.iter().filter_map(|group| group["rules"].as_array()).flatten().collect();
        let is_wrong = |rule: &&&Value| rule["health"] != "ok";
        let told = |rule: &&Value| format!("the rule {}: {}: {}", rule["name"], rule["health"], rule["lastError"]);
        Ok((rules.len(), rules.iter().filter(is_wrong).map(told).collect()))
    }
}

fn configuration(jobs: &BTreeMap<String, Vec<String>>) -> String {
    let rules = root().join(rules::RULES);
    let mut text = format!(
        "global: {{scrape_interval: {SCRAPE_EVERY}, evaluation_interval: {SCRAPE_EVERY}}}\nrule_files: [{:?}]\nscrape_configs:\n",
        rules.display().to_string()
    );
    for (job, targets) in jobs {
        text += &format!("  - job_name: {job}\n    static_configs: [{{targets: {targets:?}}}]\n");
    }
    text
}

/// For a form: everything but letters and digits as its bytes.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What promtool and the contract have to say of what each process shows.
pub(super) async fn check_shown(cluster: &Cluster) -> Result<Vec<String>> {
    let known: BTreeMap<String, contract::Metric> =
        contract::metrics()?.into_iter().map(|metric| (metric.name.clone(), metric)).collect();
    let mut findings = vec![];
    for (number, member) in cluster.members.iter().enumerate() {
        let shown = reqwest::get(format!("{}/metrics", member.url)).await?.error_for_status()?.text().await?;
        let said = promtool(&shown)?;
        let of = |finding: String| format!("{} {number}: {finding}", member.role);
        findings.extend(said.into_iter().map(of));
        findings.extend(against(&shown, &known).into_iter().map(of));
        eprintln!("{} {number}: {} series", member.role, series(&shown).count());
    }
    ensure!(cluster.members.iter().any(|member| member.role == Role::Worker), "no worker was looked at");
    Ok(findings)
}

fn promtool(shown: &str) -> Result<Vec<String>> {
    let mut check = Blocking::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(&mut check.stdin.take().context("its input is piped")?, shown.as_bytes())?;
    let output = check.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said: Vec<_> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
    ensure!(output.status.success() || !said.is_empty(), "promtool check metrics: {}", output.status);
    Ok(said)
}

/// The samples of a text: name and labels.
fn series(shown: &str) -> impl Iterator<Item = (&str, &str)> {
    let samples = shown.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| {
        let series = line.rsplit_once(' ').map_or(line, |(series, _)| series);
        series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels.trim_end_matches('}')))
    })
}

/// Metrics and labels that the contract does not have.
fn against(shown: &str, known: &BTreeMap<String, contract::Metric>) -> Vec<String> {
    let mut findings = std::collections::BTreeSet::new();
    for (name, labels) in series(shown) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| known.get(name.strip_suffix(end)?));
        let Some(metric) = known.get(name).or(base) else {
            findings.insert(format!("`{name}` is in no contract"));
            continue;
        };
        for label in labels_of(labels).filter(|label| *label != "le" && !metric.labels.contains(*label)) {
            findings.insert(format!("`{name}` has a label `{label}` that its contract does not have"));
        }
    }
    findings.into_iter().collect()
}

/// The names of labels such as `a="b",c="d"`.
fn labels_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("=\"")
        .filter_map(|part| part.rsplit(['"', ',']).next())
        .filter(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_what_is_shown() {
        assert_eq!(
            labels_of(r#"method="GET",route="/v1/jobs/{id}",le="0.5""#).collect::<Vec<_>>(),
            ["method", "route", "le"]
        );
        let shown = "# TYPE a gauge\na{b=\"c d\"} 1\ne 2\n";
        assert_eq!(series(shown).collect::<Vec<_>>(), [("a", "b=\"c d\""), ("e", "")]);
        assert_eq!(encoded("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
