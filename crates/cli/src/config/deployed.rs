//! What `deploy/` tells the program is what the program understands.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::*;
use crate::environment::KNOWN;

/// Variables that compose itself reads, and no process of ours.
const OF_COMPOSE: [&str; 5] =
    ["LONGSHORE_ADDRESS", "LONGSHORE_IMAGE", "LONGSHORE_PORT", "LONGSHORE_TLS_ADDRESS", "LONGSHORE_TLS_PORT"];

/// What a process does at most between the end of its drain and its own.
const BEHIND_DRAIN: Duration = Duration::from_secs(10);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // `secrets` and `.env` are those of whoever runs it here.
    let ours = entries.filter(|path| !path.ends_with("secrets") && !path.ends_with(".env"));
    ours.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Words that look like our variables.
fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
    words.filter(|word| word.starts_with("LONGSHORE_") && word.len() > "LONGSHORE_".len()).collect()
}

#[test]
fn every_variable_in_deploy_is_one_of_ours() {
    let mut seen = BTreeSet::new();
    for path in files(&deploy()) {
        let text = fs::read_to_string(&path).unwrap();
        for name in variables(&text) {
            let is_known = KNOWN.contains(&name) || OF_COMPOSE.contains(&name);
            assert!(is_known, "{}: {name} means nothing to longshore", path.display());
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.contains("LONGSHORE_JOURNAL_FILE") && seen.contains("LONGSHORE_KEY_FILE"), "{seen:?}");
}

#[test]
fn configurations_that_are_deployed_parse_and_drain_within_the_grace() {
    let grace = |file: &str, word: &str| {
        let text = fs::read_to_string(deploy().join(file)).unwrap();
        let seconds = text.split(word).nth(1).unwrap().split(|letter: char| !letter.is_ascii_digit()).next().unwrap();
        Duration::from_secs(seconds.parse().unwrap())
    };
    let compose = fs::read_to_string(deploy().join("compose.yaml")).unwrap();
    let worker = compose.split("\n  worker:\n").nth(1).unwrap();
    assert!(worker.split("\n  scheduler:\n").next().unwrap().contains("stop_grace_period: 120s"));
    let in_cluster = grace("kubernetes/base/worker.yaml", "terminationGracePeriodSeconds: ");
    assert_eq!(in_cluster, Duration::from_secs(120));
    let mut read = 0;
    for path in files(&deploy()).iter().filter(|path| path.ends_with("longshore.toml")) {
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        let config = Config::load(&flags, None, &Environment::of(&[])).unwrap();
        assert_eq!(config.worker.drain + BEHIND_DRAIN, in_cluster, "{}", path.display());
        assert_eq!(config.probe_jobs, Some(true), "{}: what `smoke` submits", path.display());
        assert!(!config.probe_faults, "{}: whoever may submit could end every worker", path.display());
        read += 1;
    }
    assert_eq!(read, 3);
}
