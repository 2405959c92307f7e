//! `longshore doctor`: looks at everything that a start or a job needs, and says what to do about what is wrong.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use queue_core::{
    credentials::MasterKeys,
    journal::{
        postgres,
        sqlite::{MIGRATIONS, schema_version},
    },
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    client::{Access, Client},
    config::{Config, Journal, MasterKeySource, Provider},
    data,
    environment::Environment,
    failure::{Exit, Failure, Outcome},
    master_keys,
    output::{self, Output, cell, items},
    providers, stores,
};

/// Durable writes that the disk is asked for.
const SYNCS: usize = 20;

/// A disk that needs longer for one durable write makes every submit wait that long.
const SYNC_SLOW: Duration = Duration::from_millis(20);

/// Files and connections below this run out under load: a slot that calls a provider holds one, and so does a client.
const OPEN_FILES_MIN: u64 = 4_096;

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
            findings.push(journal(&config.journal).await);
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

async fn journal(journal: &Journal) -> Finding {
    let what = "journal";
    let path = match journal {
        Journal::Sqlite(path) => path,
        Journal::Postgres(server) => {
            let checked = async { postgres::check(&mut postgres::connect(&stores::postgres(server)).await?).await };
            return match checked.await {
                Ok(version) => ok(what, format!("a Postgres server with schema version {version}")),
                Err(why) => fail(what, why.to_string(), "do what it says, and ask again"),
            };
        }
    };
    let (shown, knows) = (path.display(), MIGRATIONS.len());
    match schema_version(path) {
        Ok(None) => ok(what, format!("{shown} is not there yet; `longshore up` creates it")),
        Ok(Some(version)) if version < knows => {
            ok(what, format!("{shown} has schema version {version}; the next start brings it to {knows}"))
        }
        Ok(Some(version)) if version == knows => ok(what, format!("{shown} has schema version {version}")),
        Ok(Some(version)) => {
            fail(what, format!("{shown} has schema version {version}, newer than {knows}"), "use a newer program")
        }
        Err(error) => fail(what, format!("{shown}: {error}"), "restore it from a backup, or name another file"),
    }
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
    fn a_folder_that_others_can_read_is_a_warning_and_nothing_is_left_in_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let verdicts: Vec<Verdict> = folder(dir.path()).iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts[0], Verdict::Warn);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
