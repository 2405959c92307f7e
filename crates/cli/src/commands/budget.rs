//! `longshore budget …`: what tenants, keys and the installation may spend, and how that stands.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// What can be done with budgets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every budget, what is spent of it and what is left
    List,
    /// Show one budget
    Show(Whose),
    /// Set limits of one budget; those that are not given stay as they are
    Set {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        limits: Limits,
    },
    /// Take every limit away
    Clear(Whose),
}

/// What a budget has that a change keeps.
const KEPT: [&str; 6] = ["day_usd", "month_usd", "day_tokens", "month_tokens", "at_limit", "degrade_to"];

/// Whose budget: the whole installation's unless a tenant or a key is named.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Whose {
    /// A tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// An API key's, by its public part: the 8 characters behind `lsk_`
    #[arg(long)]
    key: Option<String>,
}

/// What may be spent.
#[derive(Debug, clap::Args)]
pub(crate) struct Limits {
    /// US dollars in a UTC day, e.g. 5.00
    #[arg(long, value_name = "USD")]
    day_usd: Option<String>,
    /// US dollars in a UTC month
    #[arg(long, value_name = "USD")]
    month_usd: Option<String>,
    /// Tokens of prompts and answers in a UTC day
    #[arg(long, value_name = "TOKENS")]
    day_tokens: Option<u64>,
    /// Tokens of prompts and answers in a UTC month
    #[arg(long, value_name = "TOKENS")]
    month_tokens: Option<u64>,
    /// What follows where there is no room: jobs wait (park), die (fail), or chats go on with a cheaper model (degrade)
    #[arg(long, value_name = "park|fail|degrade")]
    at_limit: Option<String>,
    /// The cheaper model, with `--at-limit degrade`
    #[arg(long, value_name = "MODEL")]
    degrade_to: Option<String>,
}

impl Whose {
    fn path(&self) -> Vec<&str> {
        match (&self.tenant, &self.key) {
            (Some(tenant), _) => vec!["v1", "tenants", tenant, "budget"],
            (None, Some(key)) => vec!["v1", "keys", key, "budget"],
            (None, None) => vec!["v1", "budget"],
        }
    }
}

impl Limits {
    /// These over what was set before.
    fn over(&self, before: &Value) -> Result<Value, Failure> {
        let kept = KEPT.into_iter().filter_map(|name| Some((name.to_owned(), before.get(name)?.clone())));
        let texts = [
            ("day_usd", &self.day_usd),
            ("month_usd", &self.month_usd),
            ("at_limit", &self.at_limit),
            ("degrade_to", &self.degrade_to),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, json!(text.as_ref()?))));
        let numbers = [("day_tokens", self.day_tokens), ("month_tokens", self.month_tokens)];
        let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, json!(number?))));
        let given = texts.chain(numbers).map(|(name, value)| (name.to_owned(), value));
        let mut body: Map<String, Value> = kept.chain(given).collect();
        if body.get("at_limit").is_none_or(|then| then != "degrade") && self.degrade_to.is_none() {
            body.remove("degrade_to");
        }
        if !body.keys().any(|name| name.ends_with("_usd") || name.ends_with("_tokens")) {
            let hint = "give a limit, such as --month-usd 100; `budget clear` takes all of them away";
            return Err(Failure::usage(hint.to_owned()));
        }
        Ok(Value::Object(body))
    }
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => {
            let body = operator.client.get(&["v1", "budgets"], &[]).await?;
            operator.out.show(&body, || table(items(&body, "budgets")));
        }
        Verb::Show(whose) => {
            let body = operator.client.get(&whose.path(), &[]).await?;
            operator.out.show(&body, || show(&body));
        }
        Verb::Set { whose, limits } => {
            let before = operator.client.get(&whose.path(), &[]).await?;
            return change(operator, &whose, &limits.over(&before)?).await;
        }
        Verb::Clear(whose) => return change(operator, &whose, &json!({})).await,
    }
    Ok(Exit::Ok)
}

async fn change(operator: &Operator, whose: &Whose, body: &Value) -> Outcome {
    let answer = operator.client.send_json(Method::PUT, &whose.path(), Some(body)).await?;
    operator.out.show(&answer.body, || show(&answer.body));
    Ok(Exit::Ok)
}

fn show(budget: &Value) {
    match items(budget, "limits") {
        [] => output::line(&format!("{}: not limited", cell(budget, "scope"))),
        _ => table(std::slice::from_ref(budget)),
    }
}

fn table(budgets: &[Value]) {
    let headers = ["BUDGET", "LIMITS", ">LIMIT", ">SPENT", ">RESERVED", ">LEFT", "UNTIL", "AT THE LIMIT"];
    let rows = budgets.iter().flat_map(|budget| items(budget, "limits").iter().map(move |line| row(budget, line)));
    output::table(&headers, rows.collect());
}

fn row(budget: &Value, line: &Value) -> Vec<String> {
    let then = match cell(budget, "degrade_to") {
        model if model.is_empty() => cell(budget, "at_limit"),
        model => format!("{} to {model}", cell(budget, "at_limit")),
    };
    vec![
        cell(budget, "scope"),
        format!("{} a {}", cell(line, "measure"), cell(line, "period")),
        cell(line, "limit"),
        cell(line, "spent"),
        cell(line, "reserved"),
        cell(line, "left"),
        cell(line, "until"),
        then,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(day_usd: Option<&str>, at_limit: Option<&str>) -> Limits {
        Limits {
            day_usd: day_usd.map(str::to_owned),
            month_usd: None,
            day_tokens: None,
            month_tokens: None,
            at_limit: at_limit.map(str::to_owned),
            degrade_to: None,
        }
    }

    #[test]
    fn a_budget_without_a_limit_is_a_mistake() {
        let nothing = json!({"scope": "all", "at_limit": "park", "limits": []});
        let first = limits(Some("5"), Some("fail")).over(&nothing).unwrap();
        assert_eq!(first, json!({"day_usd": "5", "at_limit": "fail"}));
        assert_eq!(limits(None, Some("fail")).over(&nothing).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn a_limit_that_is_not_given_stays() {
        let before = json!({"scope": "tenant:acme", "month_usd": "100.00", "at_limit": "degrade", "degrade_to": "small",
                            "limits": [], "version": 3});
        let more = limits(Some("5"), None).over(&before).unwrap();
        assert_eq!(more, json!({"day_usd": "5", "month_usd": "100.00", "at_limit": "degrade", "degrade_to": "small"}));
        let parks = limits(None, Some("park")).over(&before).unwrap();
        assert_eq!(parks, json!({"month_usd": "100.00", "at_limit": "park"}));
    }
}
