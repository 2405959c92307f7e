//! What a job costs at the least, before it is accepted: its prompts as far as they certainly are, and the answer that its request
//! asks to be let have. A job that does not fit into its budgets by this will never be let pass.

use serde_json::Value;

use super::model::at_least;
use crate::{
    job::Kind,
    ledger::{Nanousd, PriceBook, Usage},
    route::Routes,
};

/// The least that a job's calls use, by model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// Its chat calls: the first model, and the tokens that it needs at the least. Of an analysis these are several calls.
    pub chat: Option<(String, Usage)>,
    /// Its embedding calls.
    pub vectors: Option<(String, Usage)>,
}

/// Why there is no sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpriced(pub String);

impl Quote {
    /// Of a payload that has passed its checks.
    pub fn of(kind: Kind, payload: &str, routes: &Routes) -> Self {
        let Ok(tree) = serde_json::from_str::<Value>(payload) else { return Self::default() };
        let chat = |object: &Value| named(object).or_else(|| routes.default_model.clone());
        let vectors = |object: &Value| {
            let default = routes.default_embedding_model.as_ref().or(routes.default_model.as_ref());
            named(object).or_else(|| default.cloned())
        };
        match kind {
            Kind::Probe | Kind::Http | Kind::Custom => Self::default(),
            Kind::Llm => {
                let texts = tree.get("messages").map(texts_of).unwrap_or_default();
                let of_model = |model: String| {
                    let usage = usage(&model, &texts, answer_limit(&tree));
                    (model, usage)
                };
                Self { chat: chat(&tree).map(of_model), vectors: None }
            }
            Kind::Embedding => {
                let texts = tree.get("input").map(texts_of).unwrap_or_default();
                Self { chat: None, vectors: vectors(&tree).map(|model| with_usage(model, &texts)) }
            }
            Kind::Analysis => {
                let texts = tree.get("input").map(texts_of).unwrap_or_default();
                let nothing = Value::Null;
                let defaults = tree.get("defaults").unwrap_or(&nothing);
                let mapped = tree.get("map").and_then(|_| chat(defaults));
                let embedded = tree.get("embed").and_then(vectors);
                Self {
                    // Every text is sent once; how long the answers are nobody knows.
                    chat: mapped.map(|model| with_usage(model, &texts)),
                    vectors: embedded.map(|model| with_usage(model, &texts)),
                }
            }
        }
    }

    /// Tokens in all.
    pub fn tokens(&self) -> u64 {
        let of = |part: &Option<(String, Usage)>| {
            part.as_ref().map_or(0, |(_, usage)| usage.tokens_in.saturating_add(usage.tokens_out))
        };
        of(&self.chat).saturating_add(of(&self.vectors))
    }

    /// What it costs at the least, where chat calls may also go to one of `others` for want of money.
    pub fn cost<'o>(
        &self,
        prices: &PriceBook,
        others: impl Iterator<Item = &'o str> + Clone,
    ) -> Result<Nanousd, Unpriced> {
        let of = |model: &str, usage: &Usage| prices.cost(model, usage).ok_or_else(|| Unpriced(model.to_owned()));
        let chat = match &self.chat {
            None => Nanousd(0),
            Some((model, usage)) => {
                // What another model counts as tokens is much the same.
                let cheaper = others.filter_map(|other| prices.cost(other, usage)).min();
                match (of(model, usage), cheaper) {
                    (Ok(cost), Some(other)) => cost.min(other),
                    (Err(_), Some(other)) => other,
                    (cost, None) => cost?,
                }
            }
        };
        let vectors = self.vectors.as_ref().map_or(Ok(Nanousd(0)), |(model, usage)| of(model, usage))?;
        Ok(chat.plus(vectors))
    }
}

fn named(object: &Value) -> Option<String> {
    object.get("model").and_then(Value::as_str).map(str::to_owned)
}

fn answer_limit(object: &Value) -> u64 {
    ["max_completion_tokens", "max_tokens"].iter().find_map(|name| object.get(*name)?.as_u64()).unwrap_or(0)
}

fn usage(model: &str, texts: &[&str], tokens_out: u64) -> Usage {
    Usage { tokens_in: at_least(model, texts), tokens_out, ..Usage::default() }
}

fn with_usage(model: String, texts: &[&str]) -> (String, Usage) {
    let usage = usage(&model, texts, 0);
    (model, usage)
}

/// The texts of messages, inputs or items: members that carry anything else are left out.
fn texts_of(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(parts) => parts.iter().flat_map(texts_of).collect(),
        Value::Object(members) => {
            ["content", "text", "items"].into_iter().filter_map(|name| members.get(name)).flat_map(texts_of).collect()
        }
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let (chat, vectors) = (Some("gpt-4o".to_owned()), Some("text-embedding-3-small".to_owned()));
        Routes { routes: vec![], default_model: chat, default_embedding_model: vectors }
    }

    fn words(count: usize) -> String {
        "word ".repeat(count)
    }

    #[test]
    fn a_job_is_quoted_by_what_it_certainly_needs() {
        let messages = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}],"max_tokens":500}}"#, words(1_000));
        let quote = Quote::of(Kind::Llm, &messages, &routes());
        let (model, usage) = quote.chat.clone().unwrap();
        assert_eq!((model.as_str(), usage.tokens_out), ("gpt-4o", 500));
        assert!((850..=1_001).contains(&usage.tokens_in), "{}", usage.tokens_in);
        let prices = PriceBook::shipped();
        let dear = quote.cost(&prices, std::iter::empty()).unwrap();
        let cheaper = quote.cost(&prices, ["gpt-4o-mini"].into_iter()).unwrap();
        assert!(cheaper < dear && cheaper > Nanousd(0), "{cheaper} {dear}");
        let unknown = Quote { chat: Some(("mystery".into(), usage)), vectors: None };
        assert_eq!(unknown.cost(&prices, std::iter::empty()), Err(Unpriced("mystery".into())));
        assert!(unknown.cost(&prices, ["gpt-4o-mini"].into_iter()).is_ok());
    }

    #[test]
    fn an_analysis_sends_every_text_once_at_the_least() {
        let payload =
            format!(r#"{{"input":{{"items":["{0}",{{"id":"x","text":"{0}"}}]}},"map":{{}},"embed":{{}}}}"#, words(100));
        let quote = Quote::of(Kind::Analysis, &payload, &routes());
        let tokens = |part: Option<(String, Usage)>| part.unwrap().1.tokens_in;
        assert!(
            (150..=202).contains(&tokens(quote.chat.clone())) && (150..=202).contains(&tokens(quote.vectors.clone()))
        );
        assert_eq!(Quote::of(Kind::Probe, "{}", &routes()), Quote::default());
    }
}
