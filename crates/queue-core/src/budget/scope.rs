//! Whose budget it is, what it allows, and the periods that it counts by.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ids::Name,
    ledger::Nanousd,
    time::{DAY_MS, Timestamp},
};

/// Largest limit in US dollars: up to here, nano-USD are whole numbers in a double, which is what Lua computes with.
pub const USD_MAX: i64 = 9_000_000;
/// What part of a limit counts as nothing: a fiftieth.
const NOTHING: i64 = 50;

/// Whether so little is left of a limit that it counts as used up: the call that fits exactly may never come.
pub fn is_used_up(limit: i64, spent: i64) -> bool {
    limit.saturating_sub(spent) <= limit / NOTHING
}

/// Whose budget it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole installation's.
    All,
    /// A tenant's.
    Tenant(Name),
    /// An API key's, by the key's public part.
    Key(Name),
}

impl Scope {
    /// The scope with this text.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None => (text == "all").then_some(Self::All),
            Some(("tenant", name)) => Some(Self::Tenant(name.into())),
            Some(("key", id)) => Some(Self::Key(id.into())),
            Some(_) => None,
        }
    }

    /// Whose in kind, as a label: it has three values.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::All => "installation",
            Self::Tenant(_) => "tenant",
            Self::Key(_) => "key",
        }
    }

    /// For people: what stands behind "the budget of".
    pub fn words(&self) -> String {
        match self {
            Self::All => "the installation".to_owned(),
            Self::Tenant(name) => format!("the tenant {name}"),
            Self::Key(id) => format!("the API key {id}"),
        }
    }
}

/// `all`, `tenant:<name>` or `key:<id>`: as it stands in the stores.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Tenant(name) => write!(f, "tenant:{name}"),
            Self::Key(id) => write!(f, "key:{id}"),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Money, in nano-USD.
    Usd,
    /// Tokens of prompts and answers.
    Tokens,
}

impl Measure {
    /// The word of the journal and of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usd => "usd",
            Self::Tokens => "tokens",
        }
    }

    /// The measure with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Usd, Self::Tokens].into_iter().find(|measure| measure.as_str() == word)
    }

    /// A number of it, for people.
    pub fn show(self, number: i64) -> String {
        match self {
            Self::Usd => format!("${}", Nanousd(number)),
            Self::Tokens => format!("{number} tokens"),
        }
    }
}

/// How long is counted, by UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From midnight on.
    Day,
    /// From the first of the month on.
    Month,
}

impl Period {
    /// The word of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Day, Self::Month].into_iter().find(|period| period.as_str() == word)
    }

    /// For people.
    pub fn adjective(self) -> &'static str {
        match self {
            Self::Day => "daily",
            Self::Month => "monthly",
        }
    }
}

/// What follows where a budget has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtLimit {
    /// Its jobs wait until the period ends or the budget is raised, unspent.
    #[default]
    Park,
    /// They become dead letters.
    Fail,
    /// Their chat calls go on with a cheaper model for as long as that fits; then they wait.
    Degrade,
}

impl AtLimit {
    /// The word of the API and of the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Park => "park",
            Self::Fail => "fail",
            Self::Degrade => "degrade",
        }
    }

    /// The action with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Park, Self::Fail, Self::Degrade].into_iter().find(|action| action.as_str() == word)
    }
}

/// What may be spent; `None`: any amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// In a UTC day.
    pub day_usd: Option<Nanousd>,
    /// In a UTC month.
    pub month_usd: Option<Nanousd>,
    /// In a UTC day.
    pub day_tokens: Option<u64>,
    /// In a UTC month.
    pub month_tokens: Option<u64>,
    /// What follows where there is no room.
    pub at_limit: AtLimit,
    /// The model that chat calls go on with; exactly where `at_limit` says so.
    pub degrade_to: Option<String>,
}

/// The limits of a budget, one by one.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Lines {
    /// In the order in which numbers are kept.
    pub const ALL: [(Measure, Period); 4] = [
        (Measure::Usd, Period::Day),
        (Measure::Usd, Period::Month),
        (Measure::Tokens, Period::Day),
        (Measure::Tokens, Period::Month),
    ];
}

impl Budget {
    /// In the order of [`Lines::ALL`].
    pub fn limits(&self) -> [Option<i64>; 4] {
        let tokens = |limit: Option<u64>| limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        [
            self.day_usd.map(|limit| limit.0),
            self.month_usd.map(|limit| limit.0),
            tokens(self.day_tokens),
            tokens(self.month_tokens),
        ]
    }

    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        self.limits().iter().all(Option::is_none)
    }

    /// Whether it limits money.
    pub fn limits_money(&self) -> bool {
        self.day_usd.is_some() || self.month_usd.is_some()
    }
}

/// The UTC day and month of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// When the day began, in milliseconds.
    pub day: i64,
    /// When the month began.
    pub month: i64,
}

impl Span {
    /// Of `at`. The same arithmetic as in `lua/budget.lua`.
    pub fn of(at: Timestamp) -> Self {
        let days = at.0.div_euclid(DAY_MS);
        let (_, _, day_of_month) = civil(days);
        Self { day: days * DAY_MS, month: (days - day_of_month + 1) * DAY_MS }
    }

    /// When its day, or month, ends.
    pub fn end(self, period: Period) -> Timestamp {
        match period {
            Period::Day => Timestamp(self.day + DAY_MS),
            // The longest month has 31 days: so many days behind its first lies in the next one.
            Period::Month => Timestamp(Self::of(Timestamp(self.month + 31 * DAY_MS)).month),
        }
    }

    /// When its day, or month, began.
    pub fn start(self, period: Period) -> i64 {
        match period {
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }
}

/// Year, month and day of a day since 1970, after Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (now, day, month, day_end, month_end) in [
            ("2026-11-29T13:14:15.678Z", "2026-11-29", "2026-11-01", "2026-11-30", "2026-12-01"),
            ("2026-12-31T23:59:59.999Z", "2026-12-31", "2026-12-01", "2027-01-01", "2027-01-01"),
            ("2028-02-29T00:00:00Z", "2028-02-29", "2028-02-01", "2028-03-01", "2028-03-01"),
            ("2027-01-01T00:00:00Z", "2027-01-01", "2027-01-01", "2027-01-02", "2027-02-01"),
            ("1970-01-01T00:00:00Z", "1970-01-01", "1970-01-01", "1970-01-02", "1970-02-01"),
        ] {
            let midnight = |day: &str| at(&format!("{day}T00:00:00Z"));
            let span = Span::of(at(now));
            assert_eq!((span.day, span.month), (midnight(day).0, midnight(month).0), "{now}");
            assert_eq!((span.end(Period::Day), span.end(Period::Month)), (midnight(day_end), midnight(month_end)));
        }
    }

    #[test]
    fn a_scope_is_read_back_from_its_text() {
        for scope in [Scope::All, Scope::Tenant("a:b".into()), Scope::Key("abcd1234".into())] {
            assert_eq!(Scope::parse(&scope.to_string()), Some(scope));
        }
        assert_eq!((Scope::parse("none"), Scope::parse("queue:x")), (None, None));
    }

    #[test]
    fn a_fiftieth_is_nothing() {
        assert!(is_used_up(1_000, 980) && is_used_up(1_000, 2_000) && is_used_up(0, 0));
        assert!(!is_used_up(1_000, 979) && !is_used_up(1, 0));
    }
}
