//! How many tokens a call will be, before it is made: the prompt is counted, the answer is what the request allows it to be,
//! or what answers of its kind have been.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use queue_core::{job::Job, ledger::estimate_tokens};
use serde_json::Value;

use crate::provider::{ChatRequest, EmbedRequest, estimate};

/// Texts from this size on are counted off the async threads: it takes milliseconds.
const COUNT_INLINE_MAX_BYTES: usize = 64 * 1024;
/// The length of an answer about which nothing is known.
const ANSWER_TOKENS: f64 = 512.0;
/// Most (model, operation) pairs whose answers are remembered; others are [`ANSWER_TOKENS`] long.
const LEARNED_MAX: usize = 4_096;
/// What an estimate of an answer aims at: nineteen of twenty are no longer.
const QUANTILE: f64 = 0.95;
/// How far one answer moves the estimate, as a part of its own length.
const STEP: f64 = 0.1;

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Of its prompt.
    pub tokens_in: u64,
    /// Of its answer, as far as anyone can tell.
    pub tokens_out: u64,
    /// What its request allows the answer to be.
    pub tokens_out_max: Option<u64>,
}

impl Estimate {
    /// What is reserved.
    pub fn tokens(&self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out_max.unwrap_or(self.tokens_out))
    }
}

/// Which answers are alike: of one model, for one operation (or kind, where the job names none).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alike {
    model: String,
    operation: String,
}

impl Alike {
    pub(crate) fn of(job: &Job, model: &str) -> Self {
        let operation = job.operation.clone().unwrap_or_else(|| job.kind.as_str().to_owned());
        Self { model: model.to_owned(), operation }
    }

    #[cfg(test)]
    pub(super) fn named(model: &str, operation: &str) -> Self {
        Self { model: model.to_owned(), operation: operation.to_owned() }
    }
}

/// What answers have been. In this process only: it is learned anew within a few calls.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<HashMap<Alike, f64>>);

impl Answers {
    /// The length that most answers of this kind do not exceed.
    pub(crate) fn expected(&self, alike: &Alike) -> u64 {
        let learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learned.get(alike).copied().unwrap_or(ANSWER_TOKENS).ceil() as u64
    }

    /// Another answer of this kind: up fast and down slowly, so that one in twenty is above.
    pub(crate) fn learn(&self, alike: &Alike, tokens_out: u64) {
        let length = tokens_out as f64;
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.len() >= LEARNED_MAX && !learned.contains_key(alike) {
            return;
        }
        let expected = learned.entry(alike.clone()).or_insert(length);
        let step = STEP * expected.max(length).max(1.0);
        *expected = if length > *expected {
            (*expected + step * QUANTILE).min(length)
        } else {
            (*expected - step * (1.0 - QUANTILE)).max(length)
        };
    }
}

/// Counts what a chat request is.
pub(crate) async fn of_chat(request: &ChatRequest, expected: u64) -> Estimate {
    let of_request = |request: &ChatRequest| {
        let written = ["tools", "response_format"].iter().filter_map(|member| request.body.get(*member));
        let written: u64 = written.map(|member| estimate_tokens(&request.model, &member.to_string())).sum();
        estimate::of_prompt(&request.model, &request.body) + written
    };
    let limit = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| request.body.get(*name)?.as_u64());
    let tokens_in = match request.body.get("messages").map_or(0, size_of_texts) {
        0..=COUNT_INLINE_MAX_BYTES => of_request(request),
        _ => off_thread(request.clone(), of_request).await,
    };
    Estimate { tokens_in, tokens_out: expected, tokens_out_max: limit }
}

/// Counts what each input of an embedding request is; vectors are not written in tokens.
pub(crate) async fn of_inputs(request: EmbedRequest) -> (EmbedRequest, Vec<u64>) {
    let count = |request: &EmbedRequest| -> Vec<u64> {
        request.input.iter().map(|text| estimate_tokens(&request.model, text)).collect()
    };
    if request.input.iter().map(String::len).sum::<usize>() <= COUNT_INLINE_MAX_BYTES {
        let tokens = count(&request);
        return (request, tokens);
    }
    let tokens = off_thread(request.clone(), count).await;
    (request, tokens)
}

async fn off_thread<R, T>(request: R, count: impl FnOnce(&R) -> T + Send + 'static) -> T
where
    R: Send + 'static,
    T: Default + Send + 'static,
{
    let counted = tokio::task::spawn_blocking(move || count(&request)).await;
    counted.unwrap_or_else(|error| {
        tracing::error!(%error, "the tokens of a request could not be counted");
        T::default()
    })
}

/// Bytes of text in messages, as far as they are counted.
fn size_of_texts(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(parts) => parts.iter().map(size_of_texts).sum(),
        Value::Object(members) => members.values().map(size_of_texts).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn alike(operation: &str) -> Alike {
        Alike::named("m", operation)
    }

    fn request(more: Value) -> ChatRequest {
        let mut body = json!({"messages": [{"role": "user", "content": "twelve bytes"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ChatRequest { model: "unknown".into(), body: body.as_object().unwrap().clone() }
    }

    #[test]
    fn an_expected_answer_is_longer_than_most() {
        let answers = Answers::default();
        assert_eq!(answers.expected(&alike("a")), 512);
        // Lengths from 1 to 100, in an order without one.
        for number in 0..4_000_u64 {
            answers.learn(&alike("a"), number * 37 % 100 + 1);
        }
        let expected = answers.expected(&alike("a"));
        assert!((80..=100).contains(&expected), "{expected}");
        assert_eq!(answers.expected(&alike("b")), 512, "others have learned nothing");
        answers.learn(&alike("b"), 7);
        assert_eq!(answers.expected(&alike("b")), 7, "one answer says more than none");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let answers = Answers::default();
        for number in 0..LEARNED_MAX + 10 {
            answers.learn(&alike(&number.to_string()), 1);
        }
        assert_eq!(answers.0.lock().unwrap().len(), LEARNED_MAX);
        answers.learn(&alike("0"), 1_000);
        assert!(answers.expected(&alike("0")) > 1, "those that are known go on learning");
    }

    #[tokio::test]
    async fn a_request_says_how_long_its_answer_may_be() {
        let plain = of_chat(&request(json!({})), 40).await;
        assert_eq!(plain, Estimate { tokens_in: 12, tokens_out: 40, tokens_out_max: None });
        assert_eq!(plain.tokens(), 52);
        let bounded = of_chat(&request(json!({"max_tokens": 9})), 40).await;
        assert_eq!(bounded.tokens(), 21);
        let newer = of_chat(&request(json!({"max_completion_tokens": 7, "max_tokens": 9})), 40).await;
        assert_eq!(newer.tokens(), 19);
        let tools = of_chat(&request(json!({"tools": [{"type": "function"}]})), 0).await;
        assert!(tools.tokens_in > 12, "tools are part of the prompt");
    }

    #[tokio::test]
    async fn a_large_text_is_counted_elsewhere_and_the_same() {
        let input = vec!["word ".repeat(20_000)];
        let request = EmbedRequest { model: "unknown".into(), input, dimensions: None };
        let (same, tokens) = of_inputs(request.clone()).await;
        assert_eq!((&same, tokens.iter().sum::<u64>()), (&request, estimate::of_embed(&request).tokens_in));
    }
}
