//! The net has no holes: a parser that fails is found, and found again.

use std::{sync::mpsc, time::Duration};

use super::*;

const PARSER: Parser = Parser {
    name: "of the test",
    grammar: Grammar::Json,
    corpus: "{\"a\": [1, 2, {\"b\": \"text\"}]}\n%%\n{\"c\": null}\n",
    words: &["a", "b", "c"],
    share: 100,
};

fn plan(per_share: u64) -> Plan {
    Plan { per_share, seed: 7, only: String::new(), at: None, lists: false, is_alone: false, note: None }
}

#[test]
fn a_parser_that_panics_is_found_by_the_same_input_each_time() {
    let findings = || {
        let mut run = BadInput::with(plan(10));
        run.feed(&PARSER, |input| {
            assert!(!input.windows(4).any(|part| part == b"\\u00"), "it cannot bear control characters");
            true
        });
        run.findings
    };
    let found = findings();
    assert_eq!(found.len(), FINDINGS_MAX);
    assert!(found[0].contains("it cannot bear control characters") && found[0].contains("of seed 7"), "{}", found[0]);
    assert_eq!(found, findings());
}

#[test]
fn a_corpus_that_is_refused_is_a_finding() {
    let mut run = BadInput::with(plan(1));
    run.feed(&PARSER, |_| false);
    assert_eq!(run.findings.len(), 1, "{:?}", run.findings);
}

#[test]
fn inputs_are_of_every_kind() {
    let corpus: Vec<&str> = PARSER.corpus.split("\n%%\n").collect();
    let inputs: Vec<_> = (0..3_000).map(|number| mutate::generate(&PARSER, &corpus, 7, number)).collect();
    let share = |is: &dyn Fn(&[u8]) -> bool| inputs.iter().filter(|input| is(input)).count();
    assert!(share(&|input| serde_json::from_slice::<serde_json::Value>(input).is_ok()) > 1_000, "JSON that is whole");
    assert!(share(&|input| std::str::from_utf8(input).is_err()) > 50, "bytes that are no text");
    assert!(share(&|input| input.windows(5).any(|part| part == b"1e400")) > 20, "numbers that nothing holds");
    assert!(share(&|input| input.len() > 90_000) > 2, "values deeper than a stack");
    let different: std::collections::HashSet<_> = inputs.iter().collect();
    assert!(different.len() > 1_500, "{} different ones", different.len());
}

/// Lists that are repeated within lists that are repeated grew to 480 MiB, which was told of the parser.
#[test]
fn what_is_generated_stays_small_before_it_is_cut() {
    let nested = Parser { corpus: "[[[[[1]]]]]", words: &["[[[[[1]]]]]"], ..PARSER };
    let sizes = (0..20_000).map(|number| {
        let mut random = random::Random::of(7, nested.name, number);
        mutate::json(&mut random, nested.corpus, nested.words).len()
    });
    let most = sizes.max().unwrap();
    assert!(most < 8 * INPUT_MAX_BYTES, "{most} bytes");
}

#[test]
fn an_input_that_hangs_is_told() {
    let (told, hears) = mpsc::channel();
    let watch = Watch::begin(Duration::from_millis(1), move |number| told.send(number).expect("somebody listens"));
    watch.reads(42);
    assert_eq!(hears.recv(), Ok(42));
}
