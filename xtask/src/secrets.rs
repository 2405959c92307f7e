//! `cargo xtask secrets`: no secret in the repository, in its history, or in what a whole installation writes.
//!
//! The repository is searched for what keys look like: a known beginning, and behind it something that nobody typed. What people type
//! into tests repeats itself, counts, or says that it is a canary. An installation's outputs are searched by tests, which plant canaries
//! in it and know where each may stand (`crates/cli/tests/it/canaries.rs`, `credentials.rs`); this runs them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{root, run as run_command, tidy};

/// What is searched.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the repository and its history, without an installation.
    #[arg(long)]
    repository_only: bool,
}

/// How a secret begins, and how many characters follow at least.
const KINDS: [(&str, usize); 22] = [
    ("lsk_", 32),
    ("ltk_", 32),
    ("lmk_", 32),
    ("sk-", 20),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("AIza", 30),
    ("hf_", 30),
    ("npm_", 30),
    ("pypi-", 40),
    ("AGE-SECRET-KEY-1", 40),
    ("whsec_", 24),
    ("eyJ", 40),
];
/// Words of what is planted on purpose. (The rest of what tests have counts up or repeats itself.)
const PLANTED: [&str; 7] = ["canary", "0123456789", "example", "nobody", "abcdefgh", "testtest", "secret"];
/// What looks like a secret and is published: the text, and why.
const KNOWN: [(&str, &str); 1] =
    [("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "the example of the specification of Standard Webhooks")];
/// Bits of a character's information below which somebody typed it.
const RANDOM_BITS: f64 = 3.2;
/// Shortest password in a URL that is looked at: shorter ones are tests'.
const PASSWORD_MIN: usize = 12;
/// Largest file that is read: what is larger is no source.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Searches, and fails with what was found, of which it shows the beginning.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(!found_in(&control()).is_empty(), "a secret that was planted is not found, so none would be");
    let mut found = BTreeMap::new();
    let (mut files, mut lines) = (0, 0);
    for file in tidy::tracked()? {
        let path = root().join(&file);
        if fs::metadata(&path)?.len() > FILE_MAX_BYTES {
            continue;
        }
        // What is no text holds no key that somebody pasted.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        files += 1;
        for (number, line) in text.lines().enumerate() {
            lines += 1;
            found.extend(found_in(line).into_iter().map(|secret| (secret, format!("{file}:{}", number + 1))));
        }
    }
    let commits = history(&mut found)?;
    println!(
        "secrets: {files} files with {lines} lines and {commits} commits: {} found; one that was planted is found",
        found.len()
    );
    for (secret, place) in &found {
        eprintln!("secrets: {place}: {}…", secret.chars().take(12).collect::<String>());
    }
    ensure!(found.is_empty(), "{} secrets", found.len());
    if !arguments.repository_only {
        let tests = ["test", "--locked", "--package", "cli", "--test", "it", "--", "canaries::", "credentials::"];
        run_command("cargo", &tests)?;
    }
    Ok(())
}

/// What was ever added, in any commit that is reached from here; the number of commits.
fn history(found: &mut BTreeMap<String, String>) -> Result<usize> {
    let arguments = ["log", "--patch", "--unified=0", "--no-color", "--no-ext-diff", "--format=commit %h"];
    let output = Command::new("git").args(arguments).current_dir(root()).output().context("git did not start")?;
    ensure!(output.status.success(), "git log failed");
    let (mut commit, mut file, mut commits) = (String::new(), String::new(), 0);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(hash) = line.strip_prefix("commit ") {
            hash.clone_into(&mut commit);
            commits += 1;
        } else if let Some(path) = line.strip_prefix("+++ b/") {
            path.clone_into(&mut file);
        } else if let Some(added) = line.strip_prefix('+') {
            for secret in found_in(added) {
                found.entry(secret).or_insert_with(|| format!("{commit}, {file}"));
            }
        }
    }
    Ok(commits)
}

/// A line with a secret that is made here, so that no file holds it.
fn control() -> String {
    format!("key = \"{}{}\"", "sk-", random(40))
}

/// Something that nobody typed, of this length; the same each time.
fn random(length: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";
    let mut state = 7_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(letters[(state >> 33) as usize % letters.len()])
    };
    (0..length).map(next).collect()
}

/// The secrets of a line.
fn found_in(line: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (prefix, least) in KINDS {
        for (at, _) in line.match_indices(prefix) {
            let is_inside = line[..at].chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            let body: String = line[at + prefix.len()..].chars().take_while(|&c| is_of_a_key(c)).collect();
            if !is_inside && body.len() >= least && is_random(&body) {
                found.insert(format!("{prefix}{body}"));
            }
        }
    }
    // A private key in PEM: its first line of base64 follows in the same line only in one that was pasted into a string.
    if let Some((_, behind)) = line.split_once("PRIVATE KEY-----") {
        let body: String =
            behind.trim_start_matches(['\\', 'n', ' ']).chars().take_while(|&c| is_of_a_key(c)).collect();
        if body.len() >= 40 && is_random(&body) {
            found.insert(format!("PRIVATE KEY {body}"));
        }
    }
    // And one in a file of its own: lines of 64 characters that begin as PKCS#8 does.
    if ["MIIE", "MIIJ", "MC4CAQ", "MIGHAg"].iter().any(|start| line.starts_with(start)) && line.len() >= 60 {
        found.insert(format!("PRIVATE KEY {line}"));
    }
    found.extend(line.split("://").skip(1).filter_map(password));
    found
}

/// The password of a URL, of which this is what follows its scheme.
fn password(behind: &str) -> Option<String> {
    let authority: String = behind.chars().take_while(|c| !c.is_whitespace() && !"/\"'`<>".contains(*c)).collect();
    let (login, _) = authority.rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    (password.len() >= PASSWORD_MIN && password.chars().all(is_of_a_key) && is_random(password))
        .then(|| format!("password {password}"))
}

fn is_of_a_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.+/=".contains(c)
}

/// Whether nobody typed this.
fn is_random(body: &str) -> bool {
    let lower = body.to_lowercase();
    if PLANTED.iter().any(|word| lower.contains(word)) || KNOWN.iter().any(|(known, _)| body.contains(known)) {
        return false;
    }
    let has = |is: fn(&char) -> bool| body.chars().any(|c| is(&c));
    let classes = [has(char::is_ascii_digit), has(char::is_ascii_lowercase), has(char::is_ascii_uppercase)];
    classes.iter().filter(|has| **has).count() >= 2 && bits(body) >= RANDOM_BITS
}

/// What a character of the text tells, in bits.
fn bits(text: &str) -> f64 {
    let mut counts = BTreeMap::<char, f64>::new();
    for c in text.chars() {
        *counts.entry(c).or_default() += 1.0;
    }
    let all = text.chars().count() as f64;
    counts.values().map(|count| -(count / all) * (count / all).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_kind_are_found_and_what_people_type_is_not() {
        for (prefix, least) in KINDS {
            let line = format!("let key = \"{prefix}{}\";", random(least.max(36)));
            assert_eq!(found_in(&line).len(), 1, "{line}");
        }
        for line in [
            format!("postgres://longshore:{}@db/longshore", random(24)),
            format!("https://example.com/ and redis://:{}@cache", random(24)),
            format!("\"-----BEGIN PRIVATE KEY-----\\n{}\"", random(64)),
            format!("MC4CAQAwBQYDK2VwBCIEI{}", random(44)),
        ] {
            assert_eq!(found_in(&line).len(), 1, "{line}");
        }
        for line in [
            "lsk_testtest_0123456789abcdefghijABCDEFGHIJ0123456789abc",
            "sk-canary-of-the-operator-0123456789",
            "task-force-of-people-who-write-long-names",
            "postgres://user:password@host:port/database",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1",
        ] {
            assert_eq!(found_in(line), BTreeSet::new(), "{line}");
        }
    }
}
