//! How a good input becomes a bad one: by what it is made of, then by its bytes.

use serde_json::{Map, Value};

use super::{Grammar, INPUT_MAX_BYTES, Parser, random::Random};

/// What JSON's own writer would not write. Each stands in for a text of its number until the value is written.
const RAW: [&str; 22] = [
    "1e400",
    "-1e400",
    "1e-400",
    "-0",
    "18446744073709551616",
    "-9223372036854775809",
    "9223372036854775807",
    "0.1e1",
    "99999999999999999999999999999999999999999999",
    "NaN",
    "tru",
    "01",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\u0000\"",
    "\"\\u202e\\ufeff\"",
    "{\"a\":1,\"a\":2}",
    "{\"\":{}}",
    "[,]",
    "'a'",
    "/**/1",
    "\"\u{1}\"",
];
/// Marks around the number of a raw value.
const MARK: char = '\u{e000}';
/// How deep is too deep for anybody.
const DEPTHS: [usize; 4] = [33, 129, 2_000, 50_000];
/// Characters that mean something to somebody.
const ODD: [&str; 24] = [
    "\0",
    "\r\n",
    "\n\n",
    "\t",
    "\u{feff}",
    "\u{202e}",
    "\u{1f6a2}",
    "e\u{301}",
    "ß",
    "İ",
    "%00",
    "%ff",
    "../",
    "\\",
    "\"",
    "'",
    "{{",
    "}}",
    "${",
    "<",
    "--",
    ";",
    "\u{e000}",
    "\u{10ffff}",
];
/// Numbers at the edges of what holds them.
const EDGES: [&str; 16] = [
    "0",
    "-1",
    "-0",
    "1e309",
    "1e-320",
    "0.0000000000001",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
];

/// The input with this number.
pub(super) fn generate(parser: &Parser, corpus: &[&str], seed: u64, number: u64) -> Vec<u8> {
    let mut random = Random::of(seed, parser.name, number);
    let mut input = match random.below(20) {
        0 => noise(&mut random),
        1 => soup(&mut random, parser.words),
        _ => {
            let text = random.pick(corpus).copied().unwrap_or_default();
            match parser.grammar {
                Grammar::Json => json(&mut random, text, parser.words),
                Grammar::Lines => lines(&mut random, text, corpus),
                Grammar::Text => text.as_bytes().to_vec(),
            }
        }
    };
    if parser.grammar == Grammar::Text || random.one_in(6) {
        for _ in 0..=random.below(4) {
            bytes(&mut random, &mut input, parser.words, corpus);
        }
    }
    input.truncate(INPUT_MAX_BYTES);
    input
}

fn noise(random: &mut Random) -> Vec<u8> {
    let length = if random.one_in(50) { random.below(INPUT_MAX_BYTES) } else { random.below(200) };
    let is_ascii = random.one_in(2);
    (0..length).map(|_| if is_ascii { 32 + (random.next() % 95) as u8 } else { random.next() as u8 }).collect()
}

/// Words of the grammar in no order.
fn soup(random: &mut Random, words: &[&str]) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..random.below(40) {
        let word = if random.one_in(5) { random.pick(&EDGES) } else { random.pick(words) };
        text.push_str(word.copied().unwrap_or_default());
        if random.one_in(2) {
            text.push_str([" ", "", "\n", ","][random.below(4)]);
        }
    }
    text.into_bytes()
}

pub(super) fn json(random: &mut Random, text: &str, words: &[&str]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.as_bytes().to_vec() };
    for _ in 0..=random.below(3) {
        change(random, &mut value, words);
    }
    let mut text = value.to_string();
    for (number, raw) in RAW.iter().enumerate() {
        let marked = format!("\"{MARK}{number}{MARK}\"");
        if text.contains(&marked) {
            text = text.replace(&marked, raw);
        }
    }
    for (number, depth) in DEPTHS.into_iter().enumerate() {
        let marked = format!("\"{MARK}deep{number}{MARK}\"");
        if text.contains(&marked) {
            let (open, close) = if random.one_in(2) { ("[", "]") } else { ("{\"a\":", "}") };
            text = text.replacen(&marked, &format!("{}1{}", open.repeat(depth), close.repeat(depth)), 1);
        }
    }
    text.into_bytes()
}

fn change(random: &mut Random, value: &mut Value, words: &[&str]) {
    match random.below(9) {
        0 | 1 => *node(random, value) = hostile(random, words),
        2 => {
            let at = node(random, value);
            drop(take_one(random, at));
        }
        3 => {
            let at = node(random, value);
            if let (Some(taken), Value::Object(members)) = (take_one(random, at), at) {
                members.insert(name(random, words), taken);
            }
        }
        4 => match node(random, value) {
            Value::Object(members) => _ = members.insert(name(random, words), hostile(random, words)),
            Value::Array(list) => list.push(hostile(random, words)),
            other => *other = hostile(random, words),
        },
        5 => {
            let copy = node(random, value).clone();
            *node(random, value) = copy;
        }
        6 => {
            if let Value::Array(list) = node(random, value)
                && let Some(one) = list.first().cloned()
            {
                // Copies of copies of something long would be the generator's memory, and count as the parser's.
                let many = (INPUT_MAX_BYTES / one.to_string().len().max(1)).min(300);
                list.extend(std::iter::repeat_n(one, random.below(many)));
            }
        }
        7 => {
            let at = node(random, value);
            for _ in 0..random.below(30) {
                let inner = at.take();
                *at = if random.one_in(2) {
                    Value::Array(vec![inner])
                } else {
                    Value::Object(Map::from_iter([(name(random, words), inner)]))
                };
            }
        }
        _ => {
            if let Value::String(text) = node(random, value) {
                let mut changed = std::mem::take(text).into_bytes();
                bytes(random, &mut changed, words, &[]);
                *text = String::from_utf8_lossy(&changed).into_owned();
            }
        }
    }
}

/// A part of the value, at any depth.
fn node<'v>(random: &mut Random, value: &'v mut Value) -> &'v mut Value {
    let length = match &*value {
        Value::Array(list) => list.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    if length == 0 || random.one_in(5) {
        return value;
    }
    let at = random.below(length);
    match value {
        Value::Array(list) => node(random, &mut list[at]),
        Value::Object(members) => node(random, members.values_mut().nth(at).expect("it has as many")),
        other => other,
    }
}

fn take_one(random: &mut Random, value: &mut Value) -> Option<Value> {
    match value {
        Value::Array(list) if !list.is_empty() => Some(list.remove(random.below(list.len()))),
        Value::Object(members) => {
            let name = members.keys().nth(random.below(members.len()))?.clone();
            members.remove(&name)
        }
        _ => None,
    }
}

fn name(random: &mut Random, words: &[&str]) -> String {
    let list: &[&str] = if random.one_in(6) { &ODD } else { words };
    random.pick(list).copied().unwrap_or_default().to_owned()
}

fn hostile(random: &mut Random, words: &[&str]) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => Value::from(random.next() as i64),
        3 => Value::from([0, 1, -1, i64::MAX, i64::MIN][random.below(5)]),
        4 => Value::from(f64::from_bits(random.next())),
        5 => Value::from(ODD[random.below(ODD.len())].repeat(1 + random.below(3))),
        6 => Value::from("x".repeat([0, 64, 65, 257, 2_049, 20_000][random.below(6)])),
        7 => Value::Array(vec![]),
        8 => Value::Object(Map::new()),
        9 if random.one_in(4) => Value::from(format!("{MARK}deep{}{MARK}", random.below(DEPTHS.len()))),
        9 | 10 => Value::from(format!("{MARK}{}{MARK}", random.below(RAW.len()))),
        _ => Value::from(name(random, words)),
    }
}

fn lines(random: &mut Random, text: &str, corpus: &[&str]) -> Vec<u8> {
    let mut all: Vec<&str> = text.split('\n').collect();
    for _ in 0..=random.below(4) {
        let at = random.below(all.len());
        match random.below(6) {
            0 if !all.is_empty() => drop(all.remove(at)),
            1 => all.extend_from_within(at..),
            2 if !all.is_empty() => {
                let other = random.below(all.len());
                all.swap(at, other);
            }
            3 => {
                let other = random.pick(corpus).copied().unwrap_or_default();
                let cut = random.below(other.matches('\n').count() + 1);
                all.truncate(at);
                all.extend(other.split('\n').skip(cut));
            }
            4 => all.insert(at, ""),
            _ if !all.is_empty() => {
                let line = all[at];
                let cut = (0..=random.below(line.len() + 1)).rev().find(|cut| line.is_char_boundary(*cut)).unwrap_or(0);
                all[at] = &line[..cut];
            }
            _ => {}
        }
    }
    // What gave its grammar away may be as large as all that was copied.
    all.truncate(4_096);
    all.join(["\n", "\r\n", "\r", "\n"][random.below(4)]).into_bytes()
}

/// One change that knows nothing of what the bytes mean, or only that there are words and numbers.
fn bytes(random: &mut Random, input: &mut Vec<u8>, words: &[&str], corpus: &[&str]) {
    let at = random.below(input.len() + 1);
    let end = at + random.below((input.len() - at + 1).min(64));
    match random.below(11) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => input.insert(at, random.next() as u8),
        3 => drop(input.drain(at..end)),
        4 => {
            let part = input[at..end].to_vec();
            let many = if random.one_in(40) { random.below(2_000) } else { 1 + random.below(3) };
            input.splice(at..at, part.repeat(many.max(1)));
        }
        5 => drop(input.splice(at..at, random.pick(words).copied().unwrap_or_default().bytes())),
        6 => drop(input.splice(at..at, ODD[random.below(ODD.len())].bytes())),
        7 => input.truncate(at),
        8 => number(random, input),
        9 => {
            let other = random.pick(corpus).copied().unwrap_or_default().as_bytes();
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => drop(input.splice(at..end, random.pick(words).copied().unwrap_or_default().bytes())),
    }
}

/// Another number where one stands.
fn number(random: &mut Random, input: &mut Vec<u8>) {
    let digits: Vec<usize> = (0..input.len()).filter(|&at| input[at].is_ascii_digit()).collect();
    let Some(&begin) = random.pick(&digits) else { return };
    let end = (begin..input.len()).find(|&at| !input[at].is_ascii_digit()).unwrap_or(input.len());
    drop(input.splice(begin..end, EDGES[random.below(EDGES.len())].bytes()));
}
