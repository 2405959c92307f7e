//! What the sources say of metrics: names, kinds and meanings from the telemetry contract, labels from where they are set.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{root, tidy};

const CONTRACT: &str = "crates/queue-core/src/telemetry.rs";
/// Where a macro is given labels that were put together before it.
const PUT_TOGETHER: (&str, [&str; 2]) = ("&labels", ["provider", "model"]);

/// One metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    /// With its prefix.
    pub(super) name: String,
    /// `counter`, `gauge` or `histogram`.
    pub(super) kind: String,
    /// For people.
    pub(super) unit: &'static str,
    /// In the order of their names.
    pub(super) labels: BTreeSet<String>,
    /// What it is.
    pub(super) help: String,
}

/// Every metric of the contract, in its order.
pub(super) fn metrics() -> Result<Vec<Metric>> {
    let text = fs::read_to_string(root().join(CONTRACT))?;
    let labels = labels()?;
    let mut found = vec![];
    let is_row = |line: &&str| line.contains(" = \"") && line.contains(", describe_");
    for line in text.lines().map(str::trim).filter(is_row) {
        let (constant, rest) = line.split_once(" = ").context("a constant has a name")?;
        let parts: Vec<&str> = rest.splitn(4, ", ").collect();
        let [name, describe, unit, help] = parts[..] else { bail!("{CONTRACT}: `{line}` is not of the usual form") };
        let name = format!("longshore_{}", name.trim_matches('"'));
        let kind = describe.trim_start_matches("describe_").to_owned();
        let help = help.trim_end_matches(';').trim_matches('"').to_owned();
        let used = labels.get(constant).with_context(|| format!("nobody sets {constant}"))?;
        ensure!(used.iter().all(|(of, _)| *of == kind), "{constant} is a {kind}, and {used:?} is set");
        let labels = used.iter().flat_map(|(_, labels)| labels.clone()).collect();
        found.push(Metric { unit: unit_of(&name, unit), name, kind, labels, help });
    }
    ensure!(found.len() > 50, "{CONTRACT}: only {} metrics were found", found.len());
    Ok(found)
}

fn unit_of(name: &str, unit: &str) -> &'static str {
    let ends = |end: &str| name.trim_end_matches("_total").ends_with(end);
    match unit {
        "Unit::Seconds" if ends("_timestamp_seconds") => "Unix time in seconds",
        "Unit::Seconds" => "seconds",
        "Unit::Bytes" => "bytes",
        _ if ends("_usd") => "US dollars",
        _ if ends("_ratio") => "ratio",
        _ if ends("_state") => "state",
        _ => "number",
    }
}

/// A kind and its labels, each time that a macro sets one.
type Uses = BTreeSet<(String, BTreeSet<String>)>;

/// What the macros of the recorder are given, by constant.
fn labels() -> Result<BTreeMap<String, Uses>> {
    let mut found: BTreeMap<String, Uses> = BTreeMap::new();
    let ours = |file: &String| file.starts_with("crates/") && file.contains("/src/") && file.ends_with(".rs");
    for file in tidy::tracked()?.iter().filter(|file| ours(file)) {
        let text = fs::read_to_string(root().join(file))?;
        for kind in ["counter", "gauge", "histogram"] {
            for (at, opening) in text.match_indices(&format!("{kind}!(")) {
                let arguments = until_closed(&text[at + opening.len()..]);
                let (constant, rest) = arguments.split_once(',').unwrap_or((arguments, ""));
                let constant = constant.trim().trim_start_matches("telemetry::");
                let is_constant = |c: char| c.is_ascii_uppercase() || c == '_';
                if !constant.is_empty() && constant.chars().all(is_constant) {
                    found.entry(constant.to_owned()).or_default().insert((kind.to_owned(), labels_of(rest)));
                }
            }
        }
    }
    Ok(found)
}

/// What stands before the parenthesis that closes the one before this text.
fn until_closed(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn labels_of(arguments: &str) -> BTreeSet<String> {
    if arguments.contains(PUT_TOGETHER.0) {
        return PUT_TOGETHER.1.map(str::to_owned).into();
    }
    let names = arguments.match_indices("\" =>").filter_map(|(at, _)| Some(arguments[..at].rsplit_once('"')?.1));
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_the_macros() {
        let said = r#"X, "provider" => a.f(), "model" => b, "status" => s.to_owned()) more"#;
        let arguments = until_closed(said);
        assert!(arguments.ends_with("s.to_owned()"));
        assert_eq!(labels_of(arguments), ["model", "provider", "status"].map(str::to_owned).into());
        assert_eq!(labels_of("X, &labels"), ["model", "provider"].map(str::to_owned).into());
    }

    #[test]
    fn the_contract_is_read_whole() {
        let metrics = metrics().unwrap();
        let of = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().clone();
        let calls = of("longshore_provider_calls_total");
        assert_eq!((calls.kind.as_str(), calls.unit), ("counter", "number"));
        assert_eq!(calls.labels, ["model", "provider", "status"].map(str::to_owned).into());
        assert_eq!(of("longshore_job_cost_usd").unit, "US dollars");
        assert_eq!(of("longshore_certificate_ends_timestamp_seconds").unit, "Unix time in seconds");
    }
}
