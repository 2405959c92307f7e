//! Alerts and recorded sums as they stand in `alerts.yml`, and the names of metrics in an expression. The file is read by its lines,
//! whose form promtool keeps right; nothing here is a parser of YAML.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::root;

pub(super) const RULES: &str = "deploy/monitoring/alerts.yml";
pub(super) const CASES: &str = "deploy/monitoring/alerts_test.yml";
pub(super) const ALERTMANAGER: &str = "deploy/monitoring/alertmanager.yml";

/// One alert.
#[derive(Clone, Debug, Default)]
pub(super) struct Alert {
    pub(super) name: String,
    pub(super) expr: String,
    /// As written; empty where it fires at once.
    pub(super) wait: String,
    pub(super) severity: String,
    pub(super) acknowledge: String,
    pub(super) page: String,
}

/// One recorded sum.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) name: String,
    pub(super) expr: String,
}

impl Alert {
    /// For people who see it fire.
    pub(super) fn describe(&self) -> String {
        let Self { name, wait, severity, acknowledge, page, .. } = self;
        let wait = if wait.is_empty() { "at once" } else { wait };
        let within = if acknowledge.is_empty() { "never" } else { acknowledge };
        format!("{name} ({severity}, fires after: {wait}, acknowledged within: {within}): {page}")
    }
}

/// Everything in the file.
pub(super) fn read() -> Result<(Vec<Sum>, Vec<Alert>)> {
    let text = fs::read_to_string(root().join(RULES))?;
    let (mut sums, mut alerts) = (vec![], vec![]);
    for rule in text.split("\n      - ").skip(1) {
        let value = |key: &str| {
            let line = rule.lines().map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.map(unquoted).unwrap_or_default()
        };
        match (value("record"), value("alert")) {
            (name, _) if !name.is_empty() => sums.push(Sum { name, expr: value("expr") }),
            (_, name) => alerts.push(Alert {
                expr: value("expr"),
                wait: value("for"),
                severity: value("severity"),
                acknowledge: value("acknowledge"),
                page: value("runbook_url"),
                name,
            }),
        }
    }
    ensure!(alerts.iter().all(|alert| !alert.name.is_empty() && !alert.expr.is_empty()), "{RULES}: a rule has no name");
    Ok((sums, alerts))
}

fn unquoted(text: &str) -> String {
    match text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        Some(inside) => inside.replace("''", "'"),
        None => text.to_owned(),
    }
}

/// Every expression of rules and dashboards, with where it stands.
#[cfg(test)]
pub(super) fn expressions() -> Result<Vec<(String, String)>> {
    let (sums, alerts) = read()?;
    let mut all: Vec<_> = sums.into_iter().map(|sum| (sum.name, sum.expr)).collect();
    all.extend(alerts.into_iter().map(|alert| (alert.name, alert.expr)));
    for dashboard in super::dashboards::read()? {
        for panel in &dashboard.panel {
            let place = format!("{}, {}", dashboard.uid, panel.title);
            all.extend(panel.queries.iter().map(|(query, _)| (place.clone(), query.clone())));
        }
    }
    Ok(all)
}

/// The selectors of an expression: each metric with its matchers, such as `up{job="x"}`.
pub(super) fn selectors(expr: &str) -> Result<Vec<String>> {
    let mut found = vec![];
    let mut rest = expr;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"' || c == '[' || c == '$') {
        rest = &rest[at..];
        match rest.as_bytes()[0] {
            // What stands in quotes or in a range is no metric.
            b'"' => rest = rest[1..].split_once('"').context("a quote is not closed")?.1,
            b'[' => rest = rest.split_once(']').context("a range is not closed")?.1,
            b'$' => rest = rest[1..].trim_start_matches(is_word),
            _ => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                rest = behind;
                if GROUPING.contains(&word) {
                    // Its labels follow.
                    rest = match rest.trim_start().strip_prefix('(') {
                        Some(labels) => labels.split_once(')').context("a list of labels is not closed")?.1,
                        None => rest,
                    };
                } else if rest.starts_with('{') {
                    let end = closing(rest).context("matchers are not closed")?;
                    found.push(format!("{word}{}", &rest[..end]));
                    rest = &rest[end..];
                } else if !is_called(rest) && !WORDS.contains(&word) && !is_duration(word) {
                    found.push(word.to_owned());
                }
            }
        }
    }
    Ok(found)
}

/// Words of the language behind which labels stand.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Its other words that are no function.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];

/// Whether what is before this is a function, or sums up by labels.
fn is_called(rest: &str) -> bool {
    ["(", "by (", "without ("].iter().any(|begin| rest.trim_start().starts_with(begin))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// `h` of `1h`, `e6` of `1e6`: what is left of a number.
fn is_duration(word: &str) -> bool {
    ["s", "m", "h", "d", "w", "y"].contains(&word)
        || word.strip_prefix('e').is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
}

/// Where the brace that a text begins with is closed, quotes minded.
fn closing(text: &str) -> Option<usize> {
    let (mut inside, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            '}' if !inside => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The metrics of an expression.
#[cfg(test)]
pub(super) fn names(expr: &str) -> Result<std::collections::BTreeSet<String>> {
    let name = |selector: String| selector.split('{').next().unwrap_or_default().to_owned();
    Ok(selectors(expr)?.into_iter().map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_and_nothing_else() {
        let of = |expr: &str| selectors(expr).unwrap();
        assert_eq!(of("time() - max(a_b) > 26 * 3600"), ["a_b"]);
        assert_eq!(
            of(r#"sum by (le, x) (rate(a_bucket{route=~"/v1/{id}\"}"}[5m])) / on (job) c or vector(0)"#),
            [r#"a_bucket{route=~"/v1/{id}\"}"}"#, "c"]
        );
        assert_eq!(of("a unless a offset 1h and on () (b > 1e6)"), ["a", "a", "b"]);
        assert_eq!(of(r#"x:y:rate5m{q=~"$queue"} > 500e6"#), [r#"x:y:rate5m{q=~"$queue"}"#]);
        assert_eq!(of("increase(a[$__rate_interval])"), ["a"]);
    }

    #[test]
    fn rules_are_read_from_their_lines() {
        let (sums, alerts) = read().unwrap();
        assert!(sums.len() > 5 && alerts.len() > 50);
        let slow = alerts.iter().find(|alert| alert.name == "ApiSlow").unwrap();
        assert_eq!((slow.wait.as_str(), slow.severity.as_str()), ("5m", "warning"));
        assert_eq!(slow.page, "docs/runbooks/ApiSlow.md");
        assert!(sums.iter().any(|sum| sum.name == "longshore:journal_pool:use"));
    }
}
