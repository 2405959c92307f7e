//! Configuration files and event streams that are generated: they are taken or refused, and no refusal tells a password. `cargo xtask
//! badinput` runs the same over many more.

use testkit::badinput::{BadInput, Grammar, Parser};

use super::{tests::uncommented, *};
use crate::sse::{Event, Reader};

/// What every secret of the corpus begins with.
const SECRET: &str = "hush-canary-";

/// The example, a table at a time, with every key switched on that names no file; and what holds secrets.
fn corpus() -> String {
    let example = include_str!("../../../../deploy/longshore.example.toml");
    let lines = example.lines().map(uncommented).filter(|line| !line.starts_with('#') && !line.contains("_file ="));
    let mut parts = vec![String::new()];
    for line in lines.filter(|line| !line.trim().is_empty()) {
        match parts.last_mut() {
            Some(last) if !line.starts_with('[') => last.push_str(&(line + "\n")),
            _ => parts.push(line + "\n"),
        }
    }
    parts.push(include_str!("corpus/configuration.txt").to_owned());
    parts.join("\n%%\n")
}

/// As `load` does, without the disk.
fn configuration(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input).into_owned();
    let told = match toml::from_str::<file::File>(&text) {
        Err(error) => locate(&text, &error),
        Ok(file) => match Config::assemble(&Flags::default(), None, &Environment::of(&[]), file, None) {
            Ok(_) => return true,
            Err(reason) => reason,
        },
    };
    assert!(!told.is_empty());
    let told = without_logins(&told);
    assert!(!told.contains(SECRET), "{told}");
    false
}

/// The events, in pieces of this size.
fn events(input: &[u8], size: usize) -> Result<Vec<Event>, String> {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for piece in input.chunks(size) {
        events.extend(reader.feed(piece)?);
    }
    Ok(events)
}

fn stream(input: &[u8]) -> bool {
    let whole = events(input, input.len().max(1));
    assert_eq!(whole, events(input, 1 + input.len() % 13));
    whole.is_ok_and(|events| !events.is_empty())
}

#[test]
fn whatever_a_file_or_a_server_says_is_taken_or_refused() {
    let mut run = BadInput::begin();
    let configurations = Parser {
        name: "configuration files",
        grammar: Grammar::Lines,
        corpus: Box::leak(corpus().into_boxed_str()),
        words: &[
            "[",
            "]",
            "[[",
            "]]",
            " = ",
            "\"",
            "'''",
            "listen",
            "url",
            "slots",
            "name",
            "models",
            "limits",
            "tenants",
            "budget",
            "day_usd",
            "true",
            "-1",
            "0x",
            "1e400",
            "inf",
            "\"99999999999d\"",
            "{ ",
            " }",
            "providers",
            "journal",
            "dispatcher",
        ],
        share: 20,
    };
    run.feed(&configurations, configuration);
    let streams = Parser {
        name: "event streams at the CLI",
        grammar: Grammar::Lines,
        corpus: include_str!("corpus/events.txt"),
        words: &["data: ", "data", "event: ", "id: ", ":", "\n\n", "\r", "\r\n", "retry: 1"],
        share: 60,
    };
    run.feed(&streams, stream);
    run.end();
}
