//! Mistakes that are planted into copies, so that every check is seen to fail.

use std::{fs, path::Path};

use anyhow::{Result, ensure};

/// A mistake that somebody could make.
pub(super) struct Mistake {
    /// What is right.
    pub(super) of: &'static str,
    /// What stands there instead.
    pub(super) instead: &'static str,
    /// What has to be said of it.
    pub(super) said: &'static str,
}

const fn mistake(of: &'static str, instead: &'static str, said: &'static str) -> Mistake {
    Mistake { of, instead, said }
}

/// In what `production` renders to.
pub(super) const MANIFESTS: [Mistake; 8] = [
    mistake("terminationGracePeriodSeconds: 120", "terminationGraceSeconds: 120", "was unexpected"),
    mistake("minReplicaCount: 5", "minReplicaCount: five", "valid integer"),
    mistake("minReplicaCount: 5", "minReplicas: 5", "spec.minReplicas is no field of it"),
    mistake("podMetricsEndpoints:", "podMetricEndpoints:", "no field of it"),
    mistake("runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    mistake("minVersion: VersionTLS12", "minVersion: VersionTLS10", "VersionTLS10"),
    mistake(
        "kind: Deployment\n    name: longshore-api\n",
        "kind: Deployment\n    name: longshore-app\n",
        "which is not there",
    ),
    mistake("image: longshore:unreleased", "image: longshore", "any version"),
];
/// In compose.yaml.
pub(super) const COMPOSE: [Mistake; 4] = [
    mistake("stop_grace_period: 120s", "stop_grace: 120s", "stop_grace"),
    mistake("secrets: [redis_conf, redis_password]", "secrets: [redis_conf, redis_pass]", "redis_pass"),
    mistake(
        "    command: [serve, worker]\n",
        "    command: [serve, worker]\n    container_name: worker\n",
        "container_name",
    ),
    mistake("./compose/loki.yml", "./compose/loki.yaml", "loki.yaml"),
];
/// In the Dockerfile.
pub(super) const DOCKERFILE: [Mistake; 1] = [mistake("USER 10001:10001", "USER root", "DL3002")];
/// In release.yml.
pub(super) const WORKFLOW: [Mistake; 1] = [mistake("runs-on: ubuntu-latest", "run-on: ubuntu-latest", "run-on")];
/// In release.sh.
pub(super) const SCRIPT: [Mistake; 1] = [mistake("rm -r \"$work\"", "rm -r $work", "SC2086")];
/// In prometheus.yml.
pub(super) const PROMETHEUS: [Mistake; 1] = [mistake("dns_sd_configs:", "dns_configs:", "dns_configs")];

impl Mistake {
    /// `whole` with the mistake, at the first place where it can be made.
    pub(super) fn planted(&self, whole: &str) -> Result<String> {
        ensure!(whole.contains(self.of), "`{}` is not there any more: plant another mistake", self.of);
        Ok(whole.replacen(self.of, self.instead, 1))
    }

    /// Whether it was seen and said.
    pub(super) fn seen(&self, found: Result<String>) -> Result<()> {
        match found {
            Ok(_) => anyhow::bail!("nobody saw that `{}` became `{}`", self.of, self.instead),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(self.said), "of `{}`, `{}` was to be said:\n{said}", self.instead, self.said);
                Ok(())
            }
        }
    }
}

/// Plants each into a copy of `whole` and lets it be looked at; how many were seen, in words.
pub(super) fn see(
    mistakes: &[Mistake],
    whole: &str,
    work: &Path,
    look: impl Fn(&Path) -> Result<String>,
) -> Result<String> {
    let file = work.join("planted.yml");
    for mistake in mistakes {
        fs::write(&file, mistake.planted(whole)?)?;
        mistake.seen(look(&file))?;
    }
    Ok(format!("{} planted mistakes were seen", mistakes.len()))
}
