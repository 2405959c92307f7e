//! What was spent today, and which budgets are near their end.

use serde::Deserialize;

use crate::{
    chart::{self, Svg},
    client::{path, query},
    page::Shell,
    words,
};

/// The share of a budget from which it is worth a look.
pub(super) const NEARLY: f64 = 0.8;

/// What was spent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Costs {
    rows: Vec<CostRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CostRow {
    calls: u64,
    calls_unpriced: u64,
    spend_usd: String,
    wasted_usd: String,
    saved_usd: String,
}

/// Where the costs of this UTC day are.
pub(super) fn today(shell: &Shell) -> String {
    let midnight = format!("{}T00:00:00Z", &words::clock_of(shell.now)[..10]);
    format!("/v1/costs{}", query(&[("group_by", "day"), ("since", &midnight)]))
}

impl Costs {
    fn sum(&self, of: fn(&CostRow) -> &String) -> String {
        let nanousd: i128 = self.rows.iter().filter_map(|row| words::nanousd(of(row))).sum();
        words::usd(words::decimal(nanousd))
    }

    /// In all.
    pub(super) fn spend(&self) -> String {
        self.sum(|row| &row.spend_usd)
    }

    /// For nothing.
    pub(super) fn wasted(&self) -> String {
        self.sum(|row| &row.wasted_usd)
    }

    /// Not spent, because an answer was known.
    pub(super) fn saved(&self) -> String {
        self.sum(|row| &row.saved_usd)
    }

    /// Calls to providers.
    pub(super) fn calls(&self) -> u64 {
        self.rows.iter().map(|row| row.calls).sum()
    }

    /// Those whose price nobody knows: they are in no sum.
    pub(super) fn unpriced(&self) -> u64 {
        self.rows.iter().map(|row| row.calls_unpriced).sum()
    }
}

/// Budgets and how they stand.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Budgets {
    budgets: Vec<Budget>,
}

/// One scope's budget.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    scope: String,
    at_limit: String,
    limits: Vec<Limit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Limit {
    measure: String,
    period: String,
    limit: String,
    spent: String,
    reserved: String,
    until: String,
}

/// A limit of a scope.
pub(super) struct Line<'a> {
    /// Whose.
    pub(super) budget: &'a Budget,
    limit: &'a Limit,
    /// Which part of it is spent or reserved.
    pub(super) share: f64,
}

impl Budgets {
    /// Every limit.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.budgets
            .iter()
            .flat_map(|budget| budget.limits.iter().map(move |limit| Line { budget, limit, share: limit.share() }))
    }

    /// Those of which most is spent.
    pub(super) fn tightest(&self, most: usize) -> Vec<Line<'_>> {
        let mut lines: Vec<_> = self.lines().collect();
        lines.sort_by(|one, other| other.share.total_cmp(&one.share));
        lines.truncate(most);
        lines
    }
}

impl Limit {
    fn share(&self) -> f64 {
        let number = |text: &str| words::nanousd(text).unwrap_or_default() as f64;
        // A budget of nothing is spent.
        match number(&self.limit) {
            none if none <= 0.0 => 1.0,
            limit => (number(&self.spent) + number(&self.reserved)) / limit,
        }
    }

    fn amount(&self, text: &str) -> String {
        match self.measure.as_str() {
            "usd" => words::usd(text),
            _ => format!("{} tokens", text.parse::<u64>().map_or_else(|_| text.to_owned(), words::count)),
        }
    }
}

impl Line<'_> {
    /// Whose, in words.
    pub(super) fn scope(&self) -> String {
        match self.budget.scope.split_once(':') {
            Some((kind, name)) => format!("{kind} {name}"),
            None => "everybody".to_owned(),
        }
    }

    /// Where it can be changed.
    pub(super) fn href(&self) -> String {
        match self.budget.scope.split_once(':') {
            Some(("tenant", name)) => path(&["dashboard", "tenants", name]),
            _ => "/dashboard/costs".to_owned(),
        }
    }

    /// How much of how much, until when it counts.
    pub(super) fn gauge(&self) -> Svg {
        let Limit { spent, limit, period, .. } = self.limit;
        let amounts = format!("{} of {} this {period}", self.limit.amount(spent), self.limit.amount(limit));
        chart::gauge(self.share, &amounts)
    }

    /// What follows when it is spent.
    pub(super) fn consequence(&self) -> &str {
        match self.budget.at_limit.as_str() {
            "fail" => "jobs fail",
            "degrade" => "jobs go on with a cheaper model",
            _ => "jobs wait",
        }
    }

    /// When a new period begins.
    pub(super) fn until(&self) -> &str {
        &self.limit.until
    }

    /// The same in a sentence.
    pub(super) fn words(&self) -> String {
        let Limit { spent, limit, period, .. } = self.limit;
        format!("{} of {} this {period}", self.limit.amount(spent), self.limit.amount(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_budget_stands_first() {
        let text = r#"{"budgets":[
            {"scope":"all","at_limit":"park","limits":[{"measure":"usd","period":"day","limit":"10","spent":"1"}]},
            {"scope":"tenant:acme","at_limit":"fail","limits":[
                {"measure":"tokens","period":"month","limit":"1000","spent":"900","reserved":"100"}]}]}"#;
        let budgets: Budgets = serde_json::from_str(text).unwrap();
        let lines = budgets.tightest(8);
        assert_eq!((lines[0].scope(), lines[0].share), ("tenant acme".to_owned(), 1.0));
        assert_eq!(lines[0].words(), "900 tokens of 1,000 tokens this month");
        assert_eq!(lines[1].words(), "$1.00 of $10.00 this day");
        assert_eq!((lines[0].consequence(), lines[1].href()), ("jobs fail", "/dashboard/costs".to_owned()));
    }

    #[test]
    fn money_adds_up_to_the_last_digit() {
        let text = r#"{"rows":[{"spend_usd":"0.1","calls":2},{"spend_usd":"0.2","calls":1}]}"#;
        let costs: Costs = serde_json::from_str(text).unwrap();
        assert_eq!((costs.spend(), costs.wasted(), costs.calls()), ("$0.30".into(), "$0.00".into(), 3));
    }
}
