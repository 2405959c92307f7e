//! The architecture rules that a machine can check. Each finding names a file and says what to do.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{docs, faults, root};

/// Lines from which a source file is two files.
const FILE_MAX_LINES: usize = 800;

/// What each crate may depend on inside the workspace. What is not listed is absent, and stays so.
const ARROWS: &[(&str, &[&str])] = &[
    ("queue-core", &[]),
    ("worker", &["queue-core"]),
    ("api", &["queue-core"]),
    ("dashboard", &[]),
    ("scheduler", &["queue-core"]),
    ("testkit", &[]),
    ("cli", &["api", "dashboard", "queue-core", "scheduler", "worker"]),
    ("xtask", &["testkit"]),
];

/// Runs every rule and fails with all findings at once.
pub(crate) fn check() -> Result<()> {
    let mut findings = Vec::new();
    arrows(&mut findings)?;
    let files = tracked()?;
    lengths(&files, &mut findings)?;
    script_headers(&files, &mut findings)?;
    only_the_cli_reads_the_environment(&files, &mut findings)?;
    nobody_ships_sabotage(&files, &mut findings)?;
    docs::check(&files, &mut findings)?;
    faults::check_published(&mut findings)?;
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    ensure!(findings.is_empty(), "{} findings", findings.len());
    println!("tidy: {} files keep the rules", files.len());
    Ok(())
}

/// Every file that git tracks or would track.
pub(crate) fn tracked() -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git did not start")?;
    let text = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    Ok(text.lines().filter(|file| root().join(file).is_file()).map(str::to_owned).collect())
}

fn arrows(findings: &mut Vec<String>) -> Result<()> {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (name, may) in &allowed {
        let folder = if *name == "xtask" { "xtask".to_owned() } else { format!("crates/{name}") };
        let path = root().join(&folder).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(&path)?.parse()?;
        let Some(dependencies) = manifest.get("dependencies").and_then(toml::Value::as_table) else { continue };
        for dependency in dependencies.keys().filter(|key| allowed.contains_key(key.as_str())) {
            if !may.contains(&dependency.as_str()) {
                findings.push(format!("{folder}/Cargo.toml: `{name}` must not depend on `{dependency}`"));
            }
        }
    }
    for entry in fs::read_dir(root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !allowed.contains_key(name.as_str()) {
            findings.push(format!("crates/{name}: not in the list of crates in xtask/src/tidy.rs"));
        }
    }
    Ok(())
}

fn lengths(files: &[String], findings: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let lines = fs::read_to_string(root().join(file))?.lines().count();
        if lines > FILE_MAX_LINES {
            findings.push(format!("{file}: {lines} lines; split it (at most {FILE_MAX_LINES})"));
        }
    }
    Ok(())
}

/// SQL and Lua begin with a comment that says what they are for.
fn script_headers(files: &[String], findings: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with(".sql") || file.ends_with(".lua")) {
        let text = fs::read_to_string(root().join(file))?;
        if !text.trim_start().starts_with("--") {
            findings.push(format!("{file}: begins without a header comment (purpose, arguments, returns, invariant)"));
        }
    }
    Ok(())
}

/// The feature of planted bugs is asked for by the fault suite and by nobody else: no default has it, and nothing that is
/// delivered is built with it, by its name or with all features.
fn nobody_ships_sabotage(files: &[String], findings: &mut Vec<String>) -> Result<()> {
    for file in files.iter().filter(|file| file.ends_with("Cargo.toml")) {
        let manifest: toml::Table = fs::read_to_string(root().join(file))?.parse()?;
        let features = manifest.get("features").and_then(toml::Value::as_table);
        let asks = |(name, enabled): &(&String, &toml::Value)| {
            name.as_str() != "sabotage" && enabled.to_string().contains("sabotage")
        };
        let depends = manifest.iter().any(|(part, value)| part != "features" && value.to_string().contains("sabotage"));
        if depends || features.is_some_and(|features| features.iter().any(|feature| asks(&feature))) {
            findings.push(format!("{file}: only the feature `sabotage` itself may ask for sabotage"));
        }
    }
    let delivers =
        |file: &&String| file.starts_with("deploy/") || file.starts_with(".github/") || file.starts_with(".ci/");
    for file in files.iter().filter(delivers) {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        if text.contains("sabotage") || text.contains("--all-features") {
            findings.push(format!("{file}: what is delivered is not built with planted bugs or with all features"));
        }
    }
    Ok(())
}

/// Only `cli` and tests read the environment: a library's behaviour is an argument.
fn only_the_cli_reads_the_environment(files: &[String], findings: &mut Vec<String>) -> Result<()> {
    let library = |file: &&String| {
        Path::new(file).extension().is_some_and(|end| end == "rs")
            && ["queue-core", "worker", "api", "dashboard", "scheduler"]
                .iter()
                .any(|name| file.starts_with(&format!("crates/{name}/src/")))
    };
    for file in files.iter().filter(library) {
        let text = fs::read_to_string(root().join(file))?;
        if text.contains("std::env::var") || text.contains("env::var(") {
            findings.push(format!("{file}: reads the environment; only the cli does"));
        }
    }
    Ok(())
}
