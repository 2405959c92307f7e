//! `release.sh` with a cluster that only writes down what it is asked: what comes after what, and where clients are when something fails.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Result, ensure};

use super::tools::Tools;
use crate::root;

const SCRIPT: &str = "deploy/kubernetes/release.sh";
const RECORDER: &str = "xtask/kubectl_recorder.sh";
const IMAGE: &str = "registry.example/longshore:2";

/// One run of the script.
struct Run {
    calls: Vec<String>,
    succeeded: bool,
    colour: String,
    said: String,
}

impl Run {
    /// With clients on `blue`, and these variables.
    fn of(tools: &Tools, work: &Path, words: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir_in(work)?;
        let (calls, colour) = (folder.path().join("calls"), folder.path().join("colour"));
        symlink(root().join(RECORDER), folder.path().join("kubectl"))?;
        fs::write(&calls, "")?;
        fs::write(&colour, "blue")?;
        let path = std::env::join_paths([folder.path().into(), "/usr/bin".into(), std::path::PathBuf::from("/bin")])?;
        let mut command = Command::new(root().join(SCRIPT));
        command.args(words).env("PATH", path).env("REAL", tools.programs().join("kubectl"));
        let output = command.env("CALLS", &calls).env("COLOUR", &colour).envs(variables.iter().copied()).output()?;
        Ok(Self {
            calls: fs::read_to_string(calls)?.lines().map(str::to_owned).collect(),
            succeeded: output.status.success(),
            colour: fs::read_to_string(colour)?,
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Whether calls with these words came, in this order.
    fn in_order(&self, words: &[&str]) -> Result<()> {
        let mut calls = self.calls.iter();
        for word in words {
            ensure!(calls.any(|call| call.contains(word)), "`{word}` did not come in its turn:\n{}", self.told());
        }
        Ok(())
    }

    fn never(&self, word: &str) -> Result<()> {
        ensure!(!self.calls.iter().any(|call| call.contains(word)), "`{word}` came:\n{}", self.told());
        Ok(())
    }

    fn ended(self, well: bool, colour: &str) -> Result<Self> {
        ensure!(self.succeeded == well, "it ended otherwise:\n{}", self.told());
        ensure!(self.colour == colour, "clients are on {}:\n{}", self.colour, self.told());
        Ok(self)
    }

    fn told(&self) -> String {
        format!("{}\n{}", self.calls.join("\n"), self.said)
    }
}

pub(super) fn rehearse(tools: &Tools, work: &Path) -> Result<String> {
    let run = |words: &[&str], variables: &[(&str, &str)]| Run::of(tools, work, words, variables);
    let (smoke_fails, migration) = (("SMOKE_FAILS", "1"), ["phase=before", "phase=migrate", "condition="]);

    run(&["roll", "production", IMAGE], &[])?.ended(true, "blue")?.in_order(
        &[&migration[..], &["phase!=migrate", "rollout status", "deployment/longshore-worker", "job/longshore-smoke"]]
            .concat(),
    )?;
    let unmigrated =
        run(&["roll", "production", IMAGE], &[("FAILS", "get job/longshore-migrate")])?.ended(false, "blue")?;
    unmigrated.never("phase!=migrate")?;
    run(&["roll", "production", IMAGE], &[smoke_fails])?.ended(false, "blue")?.in_order(&[
        "job/longshore-smoke",
        "rollout undo deployment/longshore-api",
        "rollout status",
    ])?;

    let prepared = run(&["prepare", "green", IMAGE], &[])?.ended(true, "blue")?;
    prepared.in_order(&[&migration[..], &["longshore-worker-green", "job/longshore-smoke"]].concat())?;
    prepared.never("patch service")?;
    run(&["prepare", "blue", IMAGE], &[])?.ended(false, "blue")?.never("apply")?;
    run(&["switch", "green"], &[])?.ended(true, "green")?.in_order(&[
        "rollout status",
        "patch service",
        "job/longshore-smoke",
    ])?;
    run(&["switch", "green"], &[smoke_fails])?.ended(false, "blue")?.in_order(&["patch", "smoke", "patch"])?;
    run(&["retire", "green"], &[])?.ended(true, "blue")?.in_order(&["delete scaledobject"])?;
    run(&["retire", "blue"], &[])?.ended(false, "blue")?.never("delete")?;
    run(&["retire", "blue"], &[("FAILS", "get service")])?.ended(false, "blue")?.never("delete")?;
    run(&["switch", "green"], &[("FAILS", "delete job/longshore-smoke")])?.ended(false, "blue")?;
    Ok("11 runs".to_owned())
}
