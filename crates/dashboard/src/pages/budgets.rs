//! Budgets as pages show them: how much of each is used, in words and as a meter, and the form that sets one.

use axum::http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::filled::{Asked, Filled};
use crate::{
    chart,
    client::{Client, Refused, path},
    form::Posted,
    words::{self, Safe},
};

/// Fields of the form.
const FIELDS: [&str; 7] = ["day_usd", "month_usd", "day_tokens", "month_tokens", "at_limit", "degrade_to", "tag"];
/// Parts of a budget, in percent, from which its meter warns: the alerts of the installation are given at these.
const WARNS_AT: i128 = 80;

/// A budget, and how it stands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Budget {
    pub(crate) scope: String,
    pub(crate) day_usd: Option<String>,
    pub(crate) month_usd: Option<String>,
    pub(crate) day_tokens: Option<u64>,
    pub(crate) month_tokens: Option<u64>,
    pub(crate) at_limit: String,
    pub(crate) degrade_to: Option<String>,
    pub(crate) limits: Vec<Line>,
    pub(crate) version: i64,
}

/// One of its limits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    pub(crate) measure: String,
    pub(crate) period: String,
    pub(crate) limit: String,
    pub(crate) spent: String,
    pub(crate) reserved: String,
    pub(crate) left: String,
    pub(crate) until: String,
}

/// An alert that was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Alert {
    pub(crate) scope: String,
    pub(crate) measure: String,
    pub(crate) period: String,
    pub(crate) level: u8,
    pub(crate) spent: String,
    pub(crate) limit: String,
    pub(crate) since: String,
    pub(crate) at: String,
}

impl Line {
    /// Percent that are spent or reserved; at most 999.
    pub(crate) fn used_percent(&self) -> i128 {
        let (limit, spent, reserved) = (whole(&self.limit), whole(&self.spent), whole(&self.reserved));
        match limit {
            // Of nothing, anything is all.
            0 => 100,
            limit => ((spent + reserved) * 100 / limit).min(999),
        }
    }

    /// How it stands, in a word: a meter's colour alone says nothing.
    pub(crate) fn word(&self) -> &'static str {
        match self.used_percent() {
            100.. => "used up",
            WARNS_AT.. => "nearly used",
            _ => "in budget",
        }
    }

    /// Its meter, in words.
    pub(crate) fn gauge(&self) -> Safe {
        let percent = self.used_percent();
        chart::gauge(percent as f64 / 100.0, &format!("{percent} %, {}", self.word()))
    }

    /// An amount of it, with its unit.
    pub(crate) fn amount(&self, text: &str) -> String {
        amount(&self.measure, text)
    }

    /// How much there is: `$5.00 a day`, `1,000,000 tokens a month`.
    pub(crate) fn limit_in_words(&self) -> String {
        let unit = if self.measure == "usd" { "" } else { " tokens" };
        format!("{}{unit} a {}", self.amount(&self.limit), self.period)
    }
}

impl Alert {
    /// What it says: `80 % of $5.00 a day: $4.10`.
    pub(crate) fn words(&self) -> String {
        let (limit, spent) = (amount(&self.measure, &self.limit), amount(&self.measure, &self.spent));
        let unit = if self.measure == "usd" { "" } else { " tokens" };
        format!("{} % of {limit}{unit} a {} were reached: {spent} spent", self.level, self.period)
    }

    /// The page of whom it is about.
    pub(crate) fn href(&self) -> Option<String> {
        href_of(&self.scope)
    }

    /// Whose budget it is about, in words.
    pub(crate) fn whose(&self) -> String {
        whose(&self.scope)
    }
}

impl Budget {
    /// The page of whom it is about; none for that of the installation, which the costs page has.
    pub(crate) fn href(&self) -> Option<String> {
        href_of(&self.scope)
    }

    /// Whose it is, in words.
    pub(crate) fn whose(&self) -> String {
        whose(&self.scope)
    }

    /// What follows where there is no room.
    pub(crate) fn then(&self) -> String {
        match (self.at_limit.as_str(), &self.degrade_to) {
            ("fail", _) => "jobs fail".to_owned(),
            ("degrade", Some(model)) => format!("chat goes on with {model}, then jobs wait"),
            _ => "jobs wait".to_owned(),
        }
    }

    /// The form that sets it.
    pub(crate) fn form(&self, id: &'static str) -> Filled {
        let at_limit = if self.at_limit.is_empty() { "park" } else { &self.at_limit };
        Filled::new(id)
            .with_some("day_usd", self.day_usd.as_ref())
            .with_some("month_usd", self.month_usd.as_ref())
            .with_some("day_tokens", self.day_tokens)
            .with_some("month_tokens", self.month_tokens)
            .with("at_limit", at_limit)
            .with_some("degrade_to", self.degrade_to.as_ref())
            .with("tag", format!("\"{}\"", self.version))
    }
}

/// Whose a budget is, in words.
pub(crate) fn whose(scope: &str) -> String {
    match scope.split_once(':') {
        Some((kind, name)) => format!("{kind} {name}"),
        None => "the whole installation".to_owned(),
    }
}

fn href_of(scope: &str) -> Option<String> {
    match scope.split_once(':')? {
        ("tenant", name) => Some(path(&["dashboard", "tenants", name])),
        ("key", id) => Some(path(&["dashboard", "keys", id])),
        _ => None,
    }
}

fn amount(measure: &str, text: &str) -> String {
    match measure {
        "usd" => words::usd(text),
        _ => text.parse().map_or_else(|_| text.to_owned(), |count: u64| words::count(count)),
    }
}

/// An amount of dollars or tokens as a whole number: both sides of a ratio are read the same way.
fn whole(text: &str) -> i128 {
    words::nanousd(text).unwrap_or(0)
}

/// Sets the budget at `place` (`/v1/budget`, …) as a form says, or gives the form back with what is wrong.
pub(crate) async fn set(
    client: &Client,
    place: &str,
    id: &'static str,
    posted: &Posted,
) -> Result<Option<Filled>, Refused> {
    let asked = Asked::default()
        .texts(posted, &["day_usd", "month_usd", "at_limit", "degrade_to"])
        .numbers(posted, &["day_tokens", "month_tokens"]);
    let tag = posted.text("tag").unwrap_or("*");
    let answer: Result<Value, Refused> = client.send_if(Method::PUT, place, Some(&asked.body()), tag).await;
    match answer {
        Ok(_) => Ok(None),
        Err(refused) => Filled::back(id, posted, &FIELDS, refused).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(limit: &str, spent: &str, reserved: &str) -> Line {
        Line {
            limit: limit.into(),
            spent: spent.into(),
            reserved: reserved.into(),
            measure: "usd".into(),
            ..Line::default()
        }
    }

    #[test]
    fn what_is_reserved_is_used() {
        assert_eq!(line("5.00", "4", "0.25").used_percent(), 85);
        assert_eq!(line("5.00", "4", "0.25").word(), "nearly used");
        assert_eq!(line("1000000", "799999", "0").word(), "in budget");
        assert_eq!(line("5", "5", "0").word(), "used up");
        assert_eq!((line("0", "0", "0").word(), line("0.000000001", "9000", "0").used_percent()), ("used up", 999));
    }

    #[test]
    fn scopes_lead_to_their_pages() {
        assert_eq!(href_of("tenant:acme").as_deref(), Some("/dashboard/tenants/acme"));
        assert_eq!(href_of("key:abcd1234").as_deref(), Some("/dashboard/keys/abcd1234"));
        assert_eq!(href_of("all"), None);
        assert_eq!(whose("all"), "the whole installation");
        assert_eq!(whose("key:abcd1234"), "key abcd1234");
    }
}
