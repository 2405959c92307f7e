//! `longshore doctor`: looks at everything that a start or a job needs, and says what to do about what is wrong.

mod backups;
mod stores;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use queue_core::{
    credentials::MasterKeys,
    time::{Clock, SystemClock, Timestamp},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    client::{Access, Client},
    config::{Config, MasterKeySource, Provider},
    data,
    environment::Environment,
    failure::{Exit, Failure, Outcome},
    master_keys,
    output::{self, Output, cell, items},
    providers,
};

/// Durable writes that the disk is asked for.
const SYNCS: usize = 20;

/// A disk that needs longer for one durable write makes every submit wait that long.
const SYNC_SLOW: Duration = Duration::from_millis(20);

/// Files and connections below this run out under load: a slot that calls a provider holds one, and so does a client.
const OPEN_FILES_MIN: u64 = 4_096;

/// Times of one job are compared with the clocks of several machines: due times, deadlines, the ends of keys and tokens.
const SKEW_MAX_MS: i64 = 1_000;

/// Longest wait for a provider's answer to a cheap question.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: String,
    verdict: Verdict,
    detail: String,
    advice: String,
}

fn ok(what: &str, detail: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), verdict: Verdict::Ok, detail: detail.into(), advice: String::new() }
}

fn warn(what: &str, detail: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), verdict: Verdict::Warn, detail: detail.into(), advice: advice.into() }
}

fn fail(what: &str, detail: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), verdict: Verdict::Fail, detail: detail.into(), advice: advice.into() }
}

/// Looks at everything; fails when anything does.
pub(crate) async fn run(config: Result<Config, Failure>, access: &Access, env: &Environment, out: Output) -> Outcome {
    let mut findings = Vec::new();
    match &config {
        Ok(config) => {
            let file = config.file.as_deref().map_or("no file, defaults".to_owned(), |file| file.display().to_string());
            findings.push(ok("configuration", file));
            findings.extend(folder(&config.data));
            findings.extend(stores::journal(&config.journal).await);
            findings.extend(stores::dispatcher(&config.dispatcher).await);
            findings.extend(backups::backups(config.backup.as_ref()).await);
            findings.extend(master_keys_file(&config.master_keys));
            for provider in &config.providers {
                findings.push(provider_answers(provider).await);
            }
        }
        Err(failure) => findings.push(fail(
            "configuration",
            &failure.message,
            "mend it; deploy/longshore.example.toml shows every key",
        )),
    }
    findings.push(open_files(fs::read_to_string("/proc/self/limits").ok().as_deref()));
    findings.extend(server(access, env).await);
    show(&findings, out);
    let failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed { Exit::Error } else { Exit::Ok })
}

fn show(findings: &[Finding], out: Output) {
    let word = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let checks: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({"check": finding.what, "verdict": word(finding.verdict).to_lowercase(), "detail": finding.detail,
                   "advice": finding.advice})
        })
        .collect();
    out.show(&json!({ "checks": checks }), || {
        let row = |finding: &Finding| {
            vec![word(finding.verdict).to_owned(), finding.what.clone(), finding.detail.clone(), finding.advice.clone()]
        };
        output::table(&["", "CHECK", "FOUND", "WHAT TO DO"], findings.iter().map(row).collect());
    });
}

fn folder(path: &Path) -> Vec<Finding> {
    let shown = path.display().to_string();
    if !path.exists() {
        return vec![ok("data folder", format!("{shown} is not there yet; `longshore up` creates it"))];
    }
    let mut findings = vec![match data::open_to_others(path) {
        Ok(0) => ok("data folder", &shown),
        Ok(bits) => {
            warn("data folder", format!("{shown} is open to others ({bits:03o})"), format!("chmod 700 {shown}"))
        }
        Err(error) => fail("data folder", format!("{shown}: {error}"), "let the user that runs longshore read it"),
    }];
    findings.push(match sync_time(path) {
        Ok(time) if time > SYNC_SLOW => warn(
            "durable write",
            format!("{:.1} ms", time.as_secs_f64() * 1e3),
            "every accept and settle waits for one: use a local SSD",
        ),
        Ok(time) => ok("durable write", format!("{:.2} ms (median of {SYNCS})", time.as_secs_f64() * 1e3)),
        Err(error) => fail("durable write", error.to_string(), "make room, or mount the disk for writing"),
    });
    findings.push(match data::stored_key(path) {
        Ok(Some(_)) => match data::open_to_others(&path.join("admin.key")) {
            Ok(0) => ok("admin key", "in the data folder"),
            _ => warn("admin key", "others may read it", format!("chmod 600 {shown}/admin.key")),
        },
        Ok(None) => ok("admin key", "none is kept here"),
        Err(failure) => fail("admin key", failure.message, "remove the file; the next start makes a new key"),
    });
    findings
}

/// The median time of a small durable write.
fn sync_time(folder: &Path) -> io::Result<Duration> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let measured = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            let began = Instant::now();
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
            times.push(began.elapsed());
        }
        times.sort_unstable();
        Ok(times[SYNCS / 2])
    })();
    let removed = fs::remove_file(&path);
    measured.and_then(|time| removed.map(|()| time))
}

/// The file with the master keys of tenants' own provider keys, where one is named.
fn master_keys_file(source: &MasterKeySource) -> Option<Finding> {
    let what = "master keys";
    let path = match source {
        MasterKeySource::Unnamed => return None,
        MasterKeySource::Given(_) => return Some(ok(what, "in LONGSHORE_MASTER_KEY")),
        MasterKeySource::File(path) => path,
    };
    let shown = path.display();
    let keys = master_keys::read(path).and_then(|text| MasterKeys::parse(text.expose_secret()));
    Some(match (keys, data::open_to_others(path)) {
        (Err(reason), _) => fail(
            what,
            reason,
            format!("put the right one back, or make one: longshore credential master-key --file {shown}"),
        ),
        (Ok(_), Ok(bits)) if bits & 0o007 != 0 => {
            warn(what, format!("{shown} is open to others ({bits:03o})"), format!("chmod 600 {shown}"))
        }
        (Ok(keys), _) => ok(what, keys.ids().join(", ")),
    })
}

/// Keys of tenants that the server cannot read, and for want of which master key.
async fn credentials(client: &Client) -> Option<Finding> {
    let what = "credentials";
    let report = client.get(&["v1", "credentials"], &[]).await.ok()?;
    let unread = items(&report, "unreadable_credentials");
    if unread.is_empty() {
        return Some(ok(what, format!("{} keys of tenants can be read", cell(&report, "credentials"))));
    }
    let name = |one: &Value| format!("{}/{} ({})", cell(one, "tenant"), cell(one, "provider"), cell(one, "reason"));
    let named = unread.iter().map(name).collect::<Vec<_>>().join("; ");
    let (many, here) = (cell(&report, "unreadable"), cell(&report, "master_keys"));
    let here = if here.is_empty() { "none".to_owned() } else { here };
    Some(fail(
        what,
        format!("{many} cannot be read: {named}; master keys there: {here}"),
        "put the missing master keys into the server's file (it is read again by itself), or set these keys anew",
    ))
}

async fn provider_answers(provider: &Provider) -> Finding {
    let what = format!("provider {}", provider.name);
    if provider.is_simulated() {
        return warn(&what, "answers are invented", "set OPENAI_API_KEY or --provider-url for real ones");
    }
    let built = match providers::build_one(provider) {
        Ok(built) => built,
        Err(failure) => return fail(&what, failure.message, "mend its configuration"),
    };
    match tokio::time::timeout(PROVIDER_TIMEOUT, built.check()).await {
        Ok(Ok(())) => ok(&what, "answers"),
        Ok(Err(error)) => fail(&what, error.error.to_string(), "check its url and key, and whether it runs"),
        Err(_) => fail(&what, format!("no answer in {} s", PROVIDER_TIMEOUT.as_secs()), "check its url"),
    }
}

/// The limit of open files, from the system's own table.
fn open_files(limits: Option<&str>) -> Finding {
    let what = "open files";
    let line = limits.and_then(|text| text.lines().find_map(|line| line.strip_prefix("Max open files")));
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft.map(str::parse::<u64>) {
        Some(Ok(limit)) if limit < OPEN_FILES_MIN => warn(
            what,
            format!("at most {limit}"),
            format!("ulimit -n {OPEN_FILES_MIN} or more: every connection is one"),
        ),
        Some(Ok(limit)) => ok(what, format!("at most {limit}")),
        Some(Err(_)) => ok(what, "no limit"),
        None => ok(what, "this system does not tell"),
    }
}

/// Whether the server answers, says that it is healthy, and takes our key.
async fn server(access: &Access, env: &Environment) -> Vec<Finding> {
    let client = match Client::find(access, env) {
        Ok(client) => client,
        Err(failure) => return vec![fail("server", failure.message, "mend LONGSHORE_URL or --url")],
    };
    let asked = SystemClock.now();
    let health = match client.get(&["health"], &[]).await {
        Ok(health) => health,
        Err(Failure { problem: Some(report), message, .. }) => {
            let checks = cell(&report, "checks");
            let found = if checks.is_empty() { message } else { format!("unhealthy: {checks}") };
            return vec![fail("server", found, "its log says more")];
        }
        Err(failure) => {
            let first = failure.message.lines().next().unwrap_or_default().to_owned();
            return vec![fail("server", first, "start it with `longshore up`, or name it with LONGSHORE_URL")];
        }
    };
    let status = cell(&health, "status");
    let answers = format!("{} version {} is {status}", client.base(), cell(&health, "version"));
    let mut findings = vec![match status.as_str() {
        "healthy" => ok("server", answers),
        _ => warn("server", answers, format!("checks: {}", cell(&health, "checks"))),
    }];
    let told = health.get("timestamp").and_then(|at| serde_json::from_value(at.clone()).ok());
    if let Some(at) = told {
        findings.push(clock("clock of the server", asked, at));
    }
    findings.extend(versions(&client, &cell(&health, "version")).await);
    findings.push(match (client.has_key(), client.get(&["v1", "queues"], &[]).await) {
        (_, Ok(_)) => ok("key", "the server takes it"),
        (false, Err(_)) => fail("key", "none was found", "set LONGSHORE_KEY, or name the data folder with --data"),
        (true, Err(failure)) => {
            fail("key", failure.message.lines().next().unwrap_or_default(), "set LONGSHORE_KEY to a key of this server")
        }
    });
    findings.extend(credentials(&client).await);
    findings
}

/// How far another clock, read at some time since `asked`, is from ours.
fn clock(what: &str, asked: Timestamp, theirs: Timestamp) -> Finding {
    let ours = SystemClock.now();
    let (ahead, behind) = (theirs.0 - ours.0, asked.0 - theirs.0);
    match ahead.max(behind) {
        skew if skew > SKEW_MAX_MS => warn(
            what,
            format!("{skew} ms {} of this machine's", if ahead > behind { "ahead" } else { "behind" }),
            "let each machine follow one time server (chrony, systemd-timesyncd)",
        ),
        _ => ok(what, "agrees with this machine's"),
    }
}

/// Whether all processes are of one version.
async fn versions(client: &Client, server: &str) -> Option<Finding> {
    let what = "versions";
    let report = client.get(&["v1", "workers"], &[]).await.ok()?;
    let alive = items(&report, "workers").iter().filter(|worker| worker["alive"] == true);
    let mut others: Vec<_> = alive.map(|worker| cell(worker, "version")).filter(|version| version != server).collect();
    let many = others.len();
    others.sort_unstable();
    others.dedup();
    Some(match (others.as_slice(), env!("CARGO_PKG_VERSION") == server) {
        ([], true) => ok(what, format!("server, workers and this program are of {server}")),
        ([], false) => warn(
            what,
            format!("the server is of {server}, this program of {}", env!("CARGO_PKG_VERSION")),
            "use the program of the server's version",
        ),
        (others, _) => warn(
            what,
            format!("the server is of {server}, {many} workers of {}", others.join(", ")),
            "finish the rollout: two versions side by side are meant for its time only",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_of_open_files_is_a_warning() {
        let limits =
            |soft: &str| format!("Limit  Soft Limit  Hard Limit\nMax open files            {soft}  1048576  files\n");
        assert_eq!(open_files(Some(&limits("1024"))).verdict, Verdict::Warn);
        assert_eq!(open_files(Some(&limits("65536"))).verdict, Verdict::Ok);
        assert_eq!(open_files(Some(&limits("unlimited"))).verdict, Verdict::Ok);
    }

    #[test]
    fn a_clock_that_is_wrong_is_a_warning_and_a_slow_answer_is_not() {
        let now = SystemClock.now();
        let at = |ms: i64| Timestamp(now.0 + ms);
        assert_eq!(clock("clock", at(-30_000), at(-20_000)).verdict, Verdict::Ok, "read while we waited");
        assert!(clock("clock", now, at(60_000)).detail.contains("ahead"));
        assert!(clock("clock", now, at(-60_000)).detail.contains("behind"));
    }

    #[test]
    fn a_folder_that_others_can_read_is_a_warning_and_nothing_is_left_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let verdicts: Vec<Verdict> = folder(dir.path()).iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts[0], Verdict::Warn);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
