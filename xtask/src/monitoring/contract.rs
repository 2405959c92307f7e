//! What the telemetry contract says of each metric, read from its source: the chores of the project share no code with the product.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, bail, ensure};

use crate::root;

const CONTRACT: &str = "crates/queue-core/src/telemetry.rs";

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
    let (_, rows) = text.split_once("\ncontract! {\n").with_context(|| format!("{CONTRACT} has no contract"))?;
    let (rows, _) = rows.split_once("\n}\n").context("the contract has no end")?;
    let rows = rows.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let found = rows.map(row).collect::<Result<Vec<_>>>()?;
    ensure!(found.len() > 50, "{CONTRACT}: only {} metrics were found", found.len());
    Ok(found)
}

/// `CONSTANT = "name", Kind(BUCKETS), Unit, ["label"], "help";`
fn row(line: &str) -> Result<Metric> {
    let read = || {
        let (_, rest) = line.split_once(" = \"")?;
        let (name, rest) = rest.split_once("\", ")?;
        let (kind, rest) = rest.split_once(", ")?;
        let (unit, rest) = rest.split_once(", [")?;
        let (labels, help) = rest.split_once("], \"")?;
        let labels = labels.split(", ").map(|label| label.trim_matches('"')).filter(|label| !label.is_empty());
        let kind = kind.split('(').next()?.to_lowercase();
        let name = format!("longshore_{name}");
        let labels = labels.map(str::to_owned).collect();
        Some(Metric { unit: unit_of(&name, unit), name, kind, labels, help: help.strip_suffix("\";")?.to_owned() })
    };
    let Some(metric) = read() else { bail!("{CONTRACT}: `{line}` is not of the usual form") };
    Ok(metric)
}

fn unit_of(name: &str, unit: &str) -> &'static str {
    let ends = |end: &str| name.trim_end_matches("_total").ends_with(end);
    match unit {
        "Seconds" if ends("_timestamp_seconds") => "Unix time in seconds",
        "Seconds" => "seconds",
        "Bytes" => "bytes",
        _ if ends("_usd") => "US dollars",
        _ if ends("_ratio") => "ratio",
        _ if ends("_state") => "state",
        _ => "number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_whole() {
        let metric = row(r#"A = "a_seconds", Histogram(JOBS), Seconds, ["kind", "by"], "From, to.";"#).unwrap();
        assert_eq!((metric.name.as_str(), metric.kind.as_str()), ("longshore_a_seconds", "histogram"));
        assert_eq!((metric.unit, metric.help.as_str()), ("seconds", "From, to."));
        assert_eq!(metric.labels, ["by", "kind"].map(str::to_owned).into());
        assert!(row("something else").is_err());
    }

    #[test]
    fn the_contract_is_read_whole() {
        let metrics = metrics().unwrap();
        let of = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().clone();
        assert_eq!(of("longshore_job_cost_usd").unit, "US dollars");
        assert_eq!(of("longshore_certificate_ends_timestamp_seconds").unit, "Unix time in seconds");
        assert!(of("longshore_reconciled_total").labels.is_empty());
    }
}
