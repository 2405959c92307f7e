//! What a figure has to reach, and whether it does. The bars are those that the project set itself; a figure that misses
//! one is printed like any other.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use crate::table;

/// The limit of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bar {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// From the first to the second.
    Between(f64, f64),
}

impl Bar {
    /// Whether a figure is good enough.
    pub(crate) fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
            Self::Between(least, most) => (least..=most).contains(&figure),
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AtLeast(least) => write!(f, "≥ {}", table::figure(least)),
            Self::AtMost(most) => write!(f, "≤ {}", table::figure(most)),
            Self::Between(least, most) => write!(f, "{} to {}", table::figure(least), table::figure(most)),
        }
    }
}

/// A figure beside its bar; without one it only informs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judged {
    /// What was measured.
    pub(crate) what: String,
    /// In `unit`.
    pub(crate) figure: f64,
    /// Spelled for people: `jobs/s`, `ms`.
    pub(crate) unit: String,
    /// What it has to reach.
    pub(crate) bar: Option<Bar>,
}

impl Judged {
    /// Whether there is a bar, and it is not met.
    pub(crate) fn is_missed(&self) -> bool {
        self.bar.is_some_and(|bar| !bar.is_met(self.figure))
    }

    /// `met`, `not met`, or nothing where there is no bar.
    fn verdict(&self) -> &'static str {
        match self.bar.map(|bar| bar.is_met(self.figure)) {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        }
    }
}

impl Serialize for Judged {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bar = self.bar.map(|bar| json!({"bar": bar.to_string(), "met": bar.is_met(self.figure)}));
        let value: Value = json!({"what": self.what, "figure": self.figure, "unit": self.unit, "bar": bar});
        value.serialize(serializer)
    }
}

/// Prints figures beside their bars.
pub(crate) fn print(title: &str, figures: &[Judged]) {
    let row = |one: &Judged| {
        let bar = one.bar.map_or(String::new(), |bar| bar.to_string());
        vec![one.what.clone(), table::figure(one.figure), one.unit.clone(), bar, one.verdict().to_owned()]
    };
    table::print(title, &["FIGURE", ">MEASURED", "UNIT", ">BAR", "VERDICT"], figures.iter().map(row).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_holds_its_own_limit_and_nothing_beyond() {
        assert!(Bar::AtLeast(25_000.0).is_met(25_000.0) && !Bar::AtLeast(25_000.0).is_met(24_999.9));
        assert!(Bar::AtMost(2.0).is_met(2.0) && !Bar::AtMost(2.0).is_met(2.01));
        assert!(Bar::Between(2.85, 3.15).is_met(3.0) && !Bar::Between(2.85, 3.15).is_met(3.2));
        assert!(!Bar::AtMost(2.0).is_met(f64::NAN), "what was not measured meets nothing");
    }

    #[test]
    fn programs_read_the_same_verdict() {
        let unit = "jobs/s".to_owned();
        let judged = Judged { what: "drain".into(), figure: 20_000.0, unit, bar: Some(Bar::AtLeast(25_000.0)) };
        let value = serde_json::to_value(&judged).unwrap();
        assert_eq!(value["bar"], json!({"bar": "≥ 25,000", "met": false}));
        assert_eq!(judged.verdict(), "NOT MET");
    }
}
