//! `longshore limit …`: what targets may take, and how they stand.

use reqwest::Method;
use serde_json::{Map, Value};

use crate::{
    commands::Operator,
    failure::{Exit, Failure, Outcome},
    output::{self, cell, items},
};

/// What can be done with limits.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show every target that was asked lately: its limit, what is left of it, and why it is left alone
    List,
    /// Show one target, and where each number comes from
    Show {
        /// provider:model:credential
        target: String,
    },
    /// Set what a target may take instead of what is configured, for the whole fleet, within seconds and for good. What is not
    /// named stays as it is
    Set(Set),
    /// Take back what was set: the configuration holds
    Clear {
        /// The target or pattern
        target: String,
    },
}

/// What can be set.
#[derive(Debug, clap::Args)]
#[group(id = "numbers", required = true, multiple = true, args = ["requests_per_minute", "tokens_per_minute", "tokens_charged", "concurrency"])]
pub(crate) struct Set {
    /// provider:model:credential, or for several targets provider:gpt-4*:* or provider:*:*
    target: String,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Tokens per minute
    #[arg(long, value_name = "N")]
    tokens_per_minute: Option<u64>,
    /// What the provider counts: what a request may use, or what it used
    #[arg(long, value_enum)]
    tokens_charged: Option<Charged>,
    /// Jobs that may run at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
}

/// What a provider counts as tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Charged {
    /// Prompt and `max_tokens`, when it lets a request in
    Admission,
    /// What was used
    Usage,
}

impl Set {
    /// What was set before, and what is set now.
    fn over(&self, before: Option<&Value>) -> Value {
        let mut set = before.and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        let charged = self.tokens_charged.map(|charged| match charged {
            Charged::Admission => "admission",
            Charged::Usage => "usage",
        });
        let given: [(&str, Option<Value>); 4] = [
            ("requests_per_minute", self.requests_per_minute.map(Value::from)),
            ("tokens_per_minute", self.tokens_per_minute.map(Value::from)),
            ("tokens_charged", charged.map(Value::from)),
            ("concurrency", self.concurrency.map(Value::from)),
        ];
        set.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        Value::Object(set)
    }
}

/// Runs one of them.
pub(crate) async fn run(operator: &Operator, verb: Verb) -> Outcome {
    match verb {
        Verb::List => {
            let body = operator.client.get(&["v1", "targets"], &[]).await?;
            operator.out.show(&body, || {
                let headers =
                    ["TARGET", ">REQUESTS", ">PER MINUTE", ">TOKENS", ">PER MINUTE", ">FACTOR", "BLOCKED UNTIL", "WHY"];
                output::table(&headers, items(&body, "targets").iter().map(row).collect());
            });
        }
        Verb::Show { target } => {
            let body = operator.client.get(&["v1", "limits", &target], &[]).await?;
            operator.out.show(&body, || output::line(&format!("{body:#}")));
        }
        Verb::Set(set) => {
            let before = operator.client.get(&["v1", "limits", &set.target], &[]).await?;
            // What is not named stays as it was read, or nothing is changed.
            let version = before.get("version").and_then(Value::as_i64);
            change(operator, &set.target, &set.over(before.get("set")), version, "is limited now by").await?;
        }
        Verb::Clear { target } => {
            change(operator, &target, &Value::Object(Map::new()), None, "is limited again by").await?;
        }
    }
    Ok(Exit::Ok)
}

async fn change(
    operator: &Operator,
    target: &str,
    body: &Value,
    version: Option<i64>,
    done: &str,
) -> Result<(), Failure> {
    let mut request = operator.client.request(Method::PUT, &["v1", "limits", target], &[]).json(body);
    if let Some(version) = version {
        request = request.header("if-match", format!("\"{version}\""));
    }
    let answer = operator.client.send(request).await?;
    operator.out.show(&answer.body, || {
        let limit = answer.body.get("limit").or(answer.body.get("set"));
        let limit = limit.map_or_else(|| "what is configured".to_owned(), in_words);
        output::line(&format!("{target} {done} {limit}"));
    });
    Ok(())
}

/// Each number, and where it comes from if that is told.
fn in_words(limit: &Value) -> String {
    let source = |name: &str| match cell(limit.get("sources").unwrap_or(&Value::Null), name) {
        told if told.is_empty() => String::new(),
        told => format!(" ({told})"),
    };
    let names = ["requests_per_minute", "tokens_per_minute", "tokens_charged", "concurrency"];
    let known = names.into_iter().filter(|name| limit.get(*name).is_some());
    known.map(|name| format!("{name} {}{}", cell(limit, name), source(name))).collect::<Vec<_>>().join(", ")
}

fn row(target: &Value) -> Vec<String> {
    let of = |bucket: &str, name: &str| target.get(bucket).map_or_else(String::new, |bucket| cell(bucket, name));
    vec![
        cell(target, "target"),
        of("requests", "level"),
        of("requests", "per_minute"),
        of("tokens", "level"),
        of("tokens", "per_minute"),
        cell(target, "factor"),
        cell(target, "blocked_until"),
        cell(target, "blocked_reason"),
    ]
}
