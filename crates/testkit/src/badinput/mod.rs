//! Bad input by the hundred thousand: made out of kept good inputs, repeatable, and watched while it is read.
//!
//! Tests feed each parser some thousands. `cargo xtask badinput` runs the same tests over a million, one process after the other,
//! and tells them so by the environment: `BADINPUT_PER_SHARE` (inputs for each share of a parser), `BADINPUT_SEED`,
//! `BADINPUT_ONLY` (a part of the parser's name), `BADINPUT_AT` (the number of one input), `BADINPUT_LIST` (name the parsers, read nothing),
//! `BADINPUT_NOTE` (a file that names the input that is being read: what overflows a stack cannot be caught).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "xtask reads the lines that begin with `badinput `")]

mod mutate;
mod random;
mod vitals;

use std::{
    any::Any,
    cell::RefCell,
    env,
    fs::{self, File},
    os::unix::fs::FileExt,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::Once,
    time::Instant,
};

use serde_json::json;

use self::vitals::Watch;

/// Longest input: some are 50,000 levels deep, which is what it takes to overflow a stack.
const INPUT_MAX_BYTES: usize = 160 * 1024;
/// What memory may grow by at most over all inputs of one parser, where it is measured.
const GROWTH_MAX_BYTES: u64 = 128 * 1024 * 1024;
/// Inputs for each share in a usual test run: the light parsers (share 100) get 500.
const SHORT_PER_SHARE: u64 = 5;
/// The seed of a usual test run, so that it fails for everybody or for nobody.
const SHORT_SEED: u64 = 20_261_130;
/// Findings of one parser that are told: the first ones lead to the others.
const FINDINGS_MAX: usize = 5;

/// What inputs are made of, as far as the mutations know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// One JSON value.
    Json,
    /// Lines whose order means something: events, TOML, PEM.
    Lines,
    /// Anything else.
    Text,
}

/// Something that reads what others write.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its name in the table.
    pub name: &'static str,
    /// What its inputs are made of.
    pub grammar: Grammar,
    /// Good inputs and old findings, with a line `%%` between two.
    pub corpus: &'static str,
    /// Words that mean something in its grammar.
    pub words: &'static [&'static str],
    /// How many inputs it gets beside the others: 100 where one takes microseconds, less where it takes longer.
    pub share: u64,
}

/// What to run, as the environment says.
#[derive(Clone, Debug)]
struct Plan {
    per_share: u64,
    seed: u64,
    only: String,
    at: Option<u64>,
    lists: bool,
    /// Whether this process does nothing else, so that its memory can be measured.
    is_alone: bool,
    note: Option<PathBuf>,
}

/// One test's parsers, fed one after the other.
#[derive(Debug)]
pub struct BadInput {
    plan: Plan,
    findings: Vec<String>,
}

thread_local! {
    /// What the panic of this thread said, while it is expected.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

impl BadInput {
    /// As the environment says, else a short run.
    pub fn begin() -> Self {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
        let per_share = number("BADINPUT_PER_SHARE");
        Self::with(Plan {
            per_share: per_share.unwrap_or(SHORT_PER_SHARE),
            seed: number("BADINPUT_SEED").unwrap_or(SHORT_SEED),
            only: env::var("BADINPUT_ONLY").unwrap_or_default(),
            at: number("BADINPUT_AT"),
            lists: env::var_os("BADINPUT_LIST").is_some(),
            is_alone: per_share.is_some(),
            note: env::var_os("BADINPUT_NOTE").map(PathBuf::from),
        })
    }

    fn with(plan: Plan) -> Self {
        listen();
        Self { plan, findings: Vec::new() }
    }

    /// Feeds a parser. `read` says whether it took the input; what must hold of what was taken is asserted in it: a panic
    /// is a finding, wherever it comes from.
    pub fn feed(&mut self, parser: &Parser, mut read: impl FnMut(&[u8]) -> bool) {
        if !parser.name.contains(&self.plan.only) {
            return;
        }
        if self.plan.lists {
            println!("badinput {}", json!({"parser": parser.name, "share": parser.share}));
            return;
        }
        let corpus: Vec<&str> = parser.corpus.split("\n%%\n").map(|text| text.trim_matches('\n')).collect();
        if let Some(at) = self.plan.at {
            return self.show(parser, &corpus, at, read);
        }
        let (name, seed) = (parser.name, self.plan.seed);
        let watch = Watch::begin(vitals::LOOK_EVERY, move |number| {
            eprintln!("badinput: {name}: input {number} of seed {seed} hangs");
            std::process::abort();
        });
        let mut tally = Tally::default();
        // What the first inputs load (tables of tokens, time zones) is not what bad ones cost.
        let good = corpus
            .iter()
            .filter(|text| self.one(name, "of the corpus", text.as_bytes(), &mut read, &mut tally))
            .count();
        if good == 0 {
            self.findings
                .push(format!("{name}: nothing of its corpus is taken: the inputs are refused for another reason"));
        }
        vitals::forget_peak();
        let before = vitals::peak_bytes();
        let note = self.plan.note.as_ref().map(|path| File::create(path).expect("the note can be written"));
        let began = Instant::now();
        let mut tally = Tally::default();
        for number in 0..parser.share * self.plan.per_share {
            watch.reads(number);
            if let Some(note) = &note {
                note.write_all_at(format!("{number:<20} {name}").as_bytes(), 0).expect("the note can be written");
            }
            let input = mutate::generate(parser, &corpus, seed, number);
            let which = format!("{number} of seed {seed}");
            tally.taken += u64::from(self.one(name, &which, &input, &mut read, &mut tally));
            tally.inputs += 1;
        }
        drop(watch);
        let grown = vitals::peak_bytes().saturating_sub(before);
        if self.plan.is_alone && grown > GROWTH_MAX_BYTES {
            self.findings.push(format!("{name}: the peak of memory grew by {grown} bytes"));
        }
        println!(
            "badinput {}",
            json!({
                "parser": name, "inputs": tally.inputs, "taken": tally.taken, "panics": tally.panics, "grown_bytes": grown,
                "slowest_us": tally.slowest_us, "total_ms": began.elapsed().as_millis() as u64,
            })
        );
    }

    /// Ends the test: fails with all findings.
    pub fn end(self) {
        assert!(self.findings.is_empty(), "{}", self.findings.join("\n"));
    }

    fn one(
        &mut self,
        name: &str,
        which: &str,
        input: &[u8],
        read: &mut impl FnMut(&[u8]) -> bool,
        tally: &mut Tally,
    ) -> bool {
        let began = Instant::now();
        SAID.set(Some(String::new()));
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| read(input)));
        let said = SAID.take().unwrap_or_default();
        tally.slowest_us = tally.slowest_us.max(began.elapsed().as_micros() as u64);
        outcome.unwrap_or_else(|panic| {
            tally.panics += 1;
            if tally.panics <= FINDINGS_MAX as u64 {
                let shown: String = String::from_utf8_lossy(input).chars().take(300).collect();
                let said = if said.is_empty() { words_of(&*panic) } else { said };
                self.findings.push(format!("{name}: input {which} ({} bytes): {said}\n    {shown:?}", input.len()));
            }
            false
        })
    }

    /// Writes one input where it can be looked at, and reads it without a net.
    fn show(&self, parser: &Parser, corpus: &[&str], at: u64, mut read: impl FnMut(&[u8]) -> bool) {
        let input = mutate::generate(parser, corpus, self.plan.seed, at);
        let path = env::temp_dir().join(format!("badinput-{}-{}-{at}", parser.name.replace(' ', "-"), self.plan.seed));
        fs::write(&path, &input).expect("a temporary file");
        println!("{}: {} bytes, {}", parser.name, input.len(), path.display());
        println!("{}", if read(&input) { "taken" } else { "refused" });
    }
}

#[derive(Debug, Default)]
struct Tally {
    inputs: u64,
    taken: u64,
    panics: u64,
    slowest_us: u64,
}

/// Keeps the words of expected panics, and lets the others be told as ever.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let expected = SAID.with_borrow_mut(|said| {
                said.as_mut().map(|said| *said = format!("{info}").replace('\n', " ")).is_some()
            });
            if !expected {
                usual(info);
            }
        }));
    });
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests;
