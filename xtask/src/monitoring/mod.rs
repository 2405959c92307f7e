//! Alerts, dashboards and their pages: what follows from the sources, and whether a real Prometheus finds what they ask for.

mod contract;
mod dashboards;
mod derived;
mod load;
mod questions;
mod rules;
mod stack;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{load::Load, questions::Answers, stack::Prometheus};
use crate::{
    bars::Keys,
    bench::until_told,
    cluster::{Cluster, Role},
    faults::binary,
    root, run as run_command,
};

pub(crate) use derived::write;

/// Processes of the installation that is looked at.
const MEMBERS: [Role; 5] = [Role::Scheduler, Role::Api, Role::Api, Role::Worker, Role::Worker];
/// Least time under load: a schedule, a backup with its drill, and two looks of the scheduler's watch (30 s) have to pass.
const SECONDS_LEAST: u64 = 75;

/// How it is looked at.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long the load runs before anything is asked.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// The release build instead of the debug build.
    #[arg(long)]
    release: bool,
}

/// Checks the files, then runs an installation under load beside a Prometheus with our rules, and asks it whatever alerts and
/// dashboards ask.
pub(crate) fn check(arguments: &Arguments) -> Result<()> {
    let seconds = arguments.seconds.max(SECONDS_LEAST);
    testkit::install_monitoring();
    run_command("promtool", &["check", "rules", rules::RULES])?;
    run_command("promtool", &["test", "rules", rules::CASES])?;
    run_command("amtool", &["check-config", rules::ALERTMANAGER])?;
    match arguments.release {
        true => run_command("cargo", &["build", "--release", "--locked", "--package", "cli"])?,
        false => run_command("cargo", &["build", "--locked", "--package", "cli"])?,
    }
    let longshore = binary(&root(), !arguments.release)?;
    until_told(async {
        let keys = Keys::make().await?;
        let folder = tempfile::tempdir()?;
        let place = |name: &str| format!("file:{}", folder.path().join(name).display());
        let mut environment = keys.variables().to_vec();
        environment.push(("LONGSHORE_BACKUP_URL", place("backups")));
        environment.push(("LONGSHORE_BACKUP_OFFSITE", place("offsite")));
        environment.push(("LONGSHORE_CREDENTIALS_MASTER_KEY_FILE", master_key(&longshore, folder.path())?));
        // The receiver of webhooks is on this machine.
        environment.push(("LONGSHORE_WEBHOOKS_ALLOW_HTTP", "true".to_owned()));
        environment.push(("LONGSHORE_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.0/8".to_owned()));
        // Where schedulers find pg_dump.
        environment.push(("PATH", std::env::var("PATH")?));
        let borrowed: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut cluster = Cluster::start(&longshore, &borrowed).await?;
        for role in MEMBERS {
            let member = cluster.spawn(role).await?;
            cluster.ready(member).await?;
        }
        let prometheus = Prometheus::start(&cluster, folder.path()).await?;
        eprintln!("{seconds} s of load …");
        let began = Instant::now();
        let load = Load::start(&cluster.apis()).await;
        load.orders(&cluster).await.context("what is ordered once")?;
        tokio::time::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed())).await;
        let contract = stack::check_shown(&cluster).await?;
        let answers = Answers::ask(&prometheus).await?;
        load.stop().await?;
        cluster.stop().await?;
        answers.print();
        let findings = [contract, answers.findings].concat();
        findings.iter().for_each(|finding| eprintln!("monitoring: {finding}"));
        ensure!(findings.is_empty(), "{} findings", findings.len());
        Ok(())
    })
}

/// Makes a master key, as an operator does; its file.
fn master_key(longshore: &Path, folder: &Path) -> Result<String> {
    let file = folder.join("master.key").display().to_string();
    let made = Command::new(longshore).args(["credential", "master-key", "--file", &file]).output()?;
    ensure!(made.status.success(), "`longshore credential master-key`: {}", String::from_utf8_lossy(&made.stderr));
    Ok(file)
}
