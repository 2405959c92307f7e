//! Every command of the documents is one that this program takes: its verbs, flags and values, as clap reads them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::CommandFactory;

use crate::Cli;

/// What the placeholders of commands stand for, where any word will not do.
const SAMPLES: [(&str, &str); 5] = [
    ("$TARGET", "simulated:simulated-chat:default"),
    ("$JOB", "0190d6f8-0000-7000-8000-000000000001"),
    ("$LETTER", "0190d6f8-0000-7000-8000-000000000002"),
    ("$KEY", "abcdefgh"),
    ("$", ""),
];
/// Programs that a runbook may begin with besides this one.
const OTHERS: [&str; 1] = ["curl"];
/// What the API answers outside of `/v1`.
const OUTSIDE: [&str; 6] = ["/health", "/livez", "/metrics", "/openapi.json", "/readyz", "/startupz"];
/// Every route below `/v1`.
const ROUTES: &str = include_str!("../../api/src/access.rs");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// The pages below a folder, by path.
fn pages(folder: &str) -> Vec<(PathBuf, String)> {
    let (mut found, mut folders) = (vec![], vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Lines of shell blocks, and what stands in a line between backticks.
fn commands(page: &str) -> Vec<String> {
    let (mut found, mut block) = (vec![], None);
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language == "sh"),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => found.push(line.split("   #").next().unwrap_or_default().trim_end().to_owned()),
            (None, Some(false)) => {}
            (None, None) => found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    found
}

/// The words of a line, as a shell would tell them apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether the words name verbs and nothing else: a line that speaks of a command, and is none.
fn is_mention(words: &[String]) -> bool {
    let mut at = Cli::command();
    words.iter().skip(1).all(|word| match at.find_subcommand(word).cloned() {
        Some(below) => {
            at = below;
            true
        }
        None => false,
    })
}

#[test]
fn every_command_of_the_documents_is_taken() {
    let (mut wrong, mut read) = (vec![], 0);
    for (path, page) in ["docs", "deploy"].iter().flat_map(|folder| pages(folder)) {
        for command in commands(&page).iter().filter(|command| command.starts_with("longshore ")) {
            let words: Vec<_> = words(command).iter().map(|word| sample(word)).collect();
            read += 1;
            if let Err(error) = Cli::command().try_get_matches_from(&words)
                && !is_mention(&words)
            {
                let error = error.to_string();
                wrong.push(format!("{}: {command}\n  {}", path.display(), error.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(read > 150, "the documents have lost their commands: {read}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sample(word: &str) -> String {
    SAMPLES.iter().fold(word.to_owned(), |word, (name, stands_for)| word.replace(name, stands_for))
}

#[test]
fn every_runbook_begins_with_a_command() {
    let pages = pages("docs/runbooks");
    assert!(pages.len() > 50, "{}", pages.len());
    for (path, page) in pages {
        let first = page.lines().next().unwrap_or_default().trim_matches('`').to_owned();
        let program = words(&first).first().cloned().unwrap_or_default();
        assert!(program == "longshore" || OTHERS.contains(&program.as_str()), "{}: {first}", path.display());
    }
}

#[test]
fn every_address_of_the_runbooks_is_answered() {
    for (path, page) in pages("docs") {
        for rest in page.split("$LONGSHORE_URL/").skip(1) {
            let asked = rest.split(|c: char| c.is_whitespace() || "\"'`?)".contains(c)).next().unwrap_or_default();
            let asked = format!("/{asked}");
            let is_known = OUTSIDE.contains(&asked.as_str()) || ROUTES.contains(&format!("\"{asked}\""));
            assert!(is_known, "{}: nobody answers {asked}", path.display());
        }
    }
}

#[test]
fn a_line_is_split_as_a_shell_does() {
    assert_eq!(words("a --b 'c d' \"e 'f\" g\"h\""), ["a", "--b", "c d", "e 'f", "gh"]);
    assert!(is_mention(&["longshore", "schedule", "update"].map(str::to_owned)));
    assert!(!is_mention(&["longshore", "schedule", "vanish"].map(str::to_owned)));
}
