//! `cargo xtask deploy-check`: what is in `deploy/`, read by the programs that will read it, or by the nearest thing to them that the
//! package registries have. What fails is said in the program's own words.
//!
//! A check that cannot fail is none: each of them is also shown a copy with a mistake in it, and has to see it.

mod planted;
mod rehearsal;
mod tools;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::root;
use planted::Mistake;
use tools::Tools;

/// Versions of Kubernetes whose schemas everything has to keep: the oldest that is still kept somewhere, and the newest.
const KUBERNETES: &str = "1.33,1.37";
/// What looks at rendered manifests, and at the compose files.
const MANIFESTS: &str = "xtask/manifests.py";
const COMPOSE: &str = "xtask/compose.py";
/// The folders of nginx's and the secrets' files in its container.
const NGINX: &str = "/etc/nginx/longshore";
const SECRETS: &str = "/run/secrets";

/// Runs every check, and fails with the names of those that found something.
pub(crate) fn run() -> Result<()> {
    let tools = Tools::install()?;
    let work = tempfile::tempdir().context("no folder for what is rendered")?;
    let looks: [(&str, Look); 8] = [
        ("kustomize renders every overlay, and its manifests are right", manifests),
        ("the compose files", compose),
        ("the Dockerfile", dockerfile),
        ("the workflows", workflows),
        ("nginx's configuration, by nginx", nginx),
        ("scripts", scripts),
        ("Prometheus, Alertmanager and their rules", monitoring),
        ("a release, a switch and both ways back, with a cluster that only writes down", rehearsal::rehearse),
    ];
    let mut failed = vec![];
    for (name, look) in looks {
        let began = Instant::now();
        match look(&tools, work.path()) {
            Ok(seen) => println!("ok      {name} ({seen}; {:.1} s)", began.elapsed().as_secs_f64()),
            Err(error) => {
                println!("FAILED  {name}\n{error:#}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "{} of {} checks failed: {}", failed.len(), looks.len(), failed.join("; "));
    Ok(())
}

/// Looks at something; what it saw, in a few words.
type Look = fn(&Tools, &Path) -> Result<String>;

/// Runs a program; what it said, or a failure with that.
fn said(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.current_dir(root()).output().with_context(|| format!("{name} did not start"))?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    match output.status.success() {
        true => Ok(said),
        false => bail!("{}", said.trim_end()),
    }
}

/// The folders of overlays, by name, and that of the Job that smokes.
fn overlays() -> Result<Vec<(String, PathBuf)>> {
    let folder = root().join("deploy/kubernetes/overlays");
    let mut found = vec![("smoke".to_owned(), root().join("deploy/kubernetes/smoke"))];
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.join("kustomization.yaml").exists() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn manifests(tools: &Tools, work: &Path) -> Result<String> {
    let mut rendered = vec![];
    for (name, folder) in overlays()? {
        let file = work.join(&name).with_extension("yaml");
        fs::write(&file, said(tools.kubectl().arg("kustomize").arg(folder))?)?;
        rendered.push(file);
    }
    if root().join("deploy/monitoring/alerts.yml").exists() {
        let file = work.join("monitoring.yaml");
        fs::write(&file, said(&mut Command::new(root().join("deploy/kubernetes/monitoring.sh")))?)?;
        rendered.push(file);
    }
    said(tools.python(MANIFESTS).arg(KUBERNETES).args(&rendered))?;
    let production = fs::read_to_string(work.join("production.yaml"))?;
    let newest = KUBERNETES.rsplit(',').next().unwrap_or(KUBERNETES);
    let seen = planted::see(&planted::MANIFESTS, &production, work, |file| {
        said(tools.python(MANIFESTS).arg(newest).arg(file))
    })?;
    Ok(format!("{} rendered, Kubernetes {KUBERNETES}, {seen}", rendered.len()))
}

fn compose(tools: &Tools, work: &Path) -> Result<String> {
    let files = ["deploy/compose.yaml", "deploy/compose.tls.yaml"];
    let schema =
        |file: &Path| said(tools.program("check-jsonschema").arg("--builtin-schema=vendor.compose-spec").arg(file));
    for file in files {
        schema(Path::new(file))?;
    }
    said(tools.python(COMPOSE).arg("deploy").args(files))?;
    let whole = fs::read_to_string(root().join(files[0]))?;
    let seen = planted::see(&planted::COMPOSE, &whole, work, |file| {
        schema(file)?;
        said(tools.python(COMPOSE).arg("deploy").arg(file))
    })?;
    Ok(format!("{}, {seen}", files.join(", ")))
}

fn dockerfile(tools: &Tools, work: &Path) -> Result<String> {
    let file = root().join("deploy/Dockerfile");
    let lint = |file: &Path| said(tools.program("hadolint").arg(file));
    lint(&file)?;
    planted::see(&planted::DOCKERFILE, &fs::read_to_string(file)?, work, lint)
}

fn workflows(tools: &Tools, work: &Path) -> Result<String> {
    let schema =
        |file: &Path| said(tools.program("check-jsonschema").arg("--builtin-schema=vendor.github-workflows").arg(file));
    for entry in fs::read_dir(root().join(".github/workflows"))? {
        schema(&entry?.path())?;
    }
    let release = fs::read_to_string(root().join(".github/workflows/release.yml"))?;
    planted::see(&planted::WORKFLOW, &release, work, schema)
}

fn nginx(tools: &Tools, work: &Path) -> Result<String> {
    let folder = work.join("nginx");
    fs::create_dir_all(folder.join("servers"))?;
    // Everything that its container has, in a folder of ours.
    let here = |name: &str| -> Result<String> {
        let text = fs::read_to_string(root().join("deploy/compose").join(name))?;
        Ok(text.replace(NGINX, &folder.to_string_lossy()).replace(SECRETS, &folder.to_string_lossy()))
    };
    let certificate = testkit::Certificate::of("localhost");
    fs::write(folder.join("tls_certificate"), &certificate.chain)?;
    fs::write(folder.join("tls_key"), &certificate.key)?;
    fs::write(folder.join("locations.conf"), here("nginx-locations.conf")?)?;
    fs::write(folder.join("servers/tls.conf"), here("nginx-tls.conf")?)?;
    let read = |file: &Path| said(tools.debian("nginx").args(["-t", "-q", "-c"]).arg(file));
    let whole = here("nginx.conf")?;
    let file = folder.join("nginx.conf");
    fs::write(&file, &whole)?;
    read(&file)?;
    let inside = fs::read_to_string(folder.join("locations.conf"))?;
    let mistake = Mistake { of: "proxy_buffering off;", instead: "proxy_buffering of;", said: "invalid value" };
    fs::write(folder.join("locations.conf"), mistake.planted(&inside)?)?;
    mistake.seen(read(&file))?;
    Ok("with its TLS server; a planted mistake was seen".to_owned())
}

fn scripts(tools: &Tools, work: &Path) -> Result<String> {
    let tracked = crate::tidy::tracked()?;
    let scripts: Vec<_> = tracked.iter().filter(|file| file.ends_with(".sh") || *file == ".ci/run").collect();
    let lint = |files: &[&Path]| said(tools.debian("shellcheck").args(files));
    lint(&scripts.iter().map(Path::new).collect::<Vec<_>>())?;
    let release = fs::read_to_string(root().join("deploy/kubernetes/release.sh"))?;
    let seen = planted::see(&planted::SCRIPT, &release, work, |file| lint(&[file]))?;
    Ok(format!("{} of them, {seen}", scripts.len()))
}

/// What KEDA asks Prometheus, each as the rule that it could be, and what it has to come to.
fn scaling(tools: &Tools, work: &Path) -> Result<String> {
    let folder = root().join("deploy/kubernetes/components/autoscale-keda");
    let object = fs::read_to_string(folder.join("scaled-object.yaml"))?;
    let (mut rules, mut name) = (String::new(), "");
    for line in object.lines().map(str::trim_start) {
        if let Some(of_trigger) = line.strip_prefix("name: ") {
            name = of_trigger;
        } else if let Some(query) = line.strip_prefix("query: ") {
            rules.push_str(&format!("  - record: keda:{name}\n    expr: {query:?}\n"));
        }
    }
    fs::write(work.join("keda.yml"), format!("groups:\n- name: keda\n  rules:\n{rules}"))?;
    let test = work.join("queries_test.yml");
    fs::copy(folder.join("queries_test.yml"), &test)?;
    said(tools.debian("promtool").args(["test", "rules"]).arg(&test))?;
    Ok("KEDA's queries".to_owned())
}

fn monitoring(tools: &Tools, work: &Path) -> Result<String> {
    let folder = root().join("deploy/monitoring");
    // The rules where its container has them.
    let here = |name: &str| -> Result<PathBuf> {
        let text = fs::read_to_string(root().join("deploy/compose").join(name))?;
        let file = work.join(name);
        fs::write(&file, text.replace("/etc/prometheus/longshore", &folder.to_string_lossy()))?;
        Ok(file)
    };
    // Without the rules that it names, only its own words can be looked at.
    let how: &[&str] = if folder.join("alerts.yml").exists() { &[] } else { &["--syntax-only"] };
    let read = |file: &Path| said(tools.debian("promtool").args(["check", "config"]).args(how).arg(file));
    let config = here("prometheus.yml")?;
    read(&config)?;
    let mut seen = vec![planted::see(&planted::PROMETHEUS, &fs::read_to_string(&config)?, work, read)?];
    let files = |ends: &str| -> Result<Vec<PathBuf>> {
        let all = crate::tidy::tracked()?.into_iter().filter(|file| file.starts_with("deploy/monitoring/"));
        Ok(all.filter(|file| file.ends_with(ends)).map(|file| root().join(file)).collect())
    };
    for (ends, words) in [("alerts.yml", ["check", "rules"]), ("_test.yml", ["test", "rules"])] {
        let files = files(ends)?;
        if !files.is_empty() {
            said(tools.debian("promtool").args(words).args(&files))?;
        }
        seen.push(format!("{} of promtool {}", files.len(), words.join(" ")));
    }
    seen.push(scaling(tools, work)?);
    let alertmanager = files("alertmanager.yml")?;
    for file in &alertmanager {
        said(tools.debian("amtool").arg("check-config").arg(file))?;
    }
    seen.push(format!("{} of amtool check-config", alertmanager.len()));
    Ok(seen.join(", "))
}
