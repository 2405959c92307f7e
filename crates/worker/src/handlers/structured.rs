//! A chat call whose answer must have a form: asked, checked, and repaired a bounded number of times.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use queue_core::{
    error::{ErrorClass, JobError},
    fallback::Chain,
    payload, retry, telemetry,
};
use serde_json::{Map, Value, json};

use crate::{
    context::{Durability, JobContext},
    provider::ChatAnswer,
};

/// Faults of a bad answer that the model is told of: the rest often goes with the first.
const FAULTS_MAX: usize = 8;
/// Longest description of one fault, in characters: it repeats a part of the answer.
const FAULT_MAX_CHARS: usize = 300;
/// Longest part of a bad answer that is sent back: what must be repaired should not double the prompt.
const ECHO_MAX_BYTES: usize = 16 * 1024;
/// Longest pause inside an attempt: for a longer one the job is given back, so that its slot serves another.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How an answer ends that was cut at its token limit.
pub(super) const CUT: &str = "length";

/// What an answer must be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'a> {
    /// Any text.
    Text,
    /// A JSON object.
    Object,
    /// JSON that keeps this schema.
    Schema(&'a Value),
}

/// One question: a step of a job.
pub(super) struct Question<'a> {
    pub(super) step: &'a str,
    /// Who may answer.
    pub(super) chain: &'a Chain,
    /// The request, without `model`.
    pub(super) body: Map<String, Value>,
    pub(super) form: Form<'a>,
    /// Repairs before a round ends.
    pub(super) repair: u32,
    /// Rounds from the start: one for each attempt, since an attempt that ended with a bad answer left that answer
    /// behind, and finding it again would fail again.
    pub(super) rounds: u32,
    /// Tries of one call within the attempt, where the failure is short.
    pub(super) tries: u32,
    pub(super) durability: Durability,
}

/// An answer of the right form.
pub(super) struct Answered {
    pub(super) answer: ChatAnswer,
    /// The answer's JSON, where the form asks for it.
    pub(super) json: Option<Value>,
}

impl Answered {
    /// Whether it ended at its token limit.
    pub(super) fn is_cut(&self) -> bool {
        self.answer.finish == CUT
    }
}

/// Counts the calls of a job against its limit.
pub(super) struct Calls {
    made: AtomicU32,
    most: u32,
}

impl Calls {
    /// Up to `most` calls.
    pub(super) fn up_to(most: u32) -> Self {
        Self { made: AtomicU32::new(0), most }
    }

    /// One more call; recalled answers count too, so that a re-run comes to the same number.
    pub(super) fn take(&self) -> Result<(), JobError> {
        if self.made.fetch_add(1, Ordering::SeqCst) < self.most {
            return Ok(());
        }
        self.made.fetch_sub(1, Ordering::SeqCst);
        let message = format!("the job needs more than the {} calls of `limits.max_calls`", self.most);
        Err(JobError::new(ErrorClass::Permanent, MAX_CALLS, message))
    }

    /// Calls so far.
    pub(super) fn made(&self) -> u32 {
        self.made.load(Ordering::SeqCst)
    }
}

/// The code of the error of [`Calls::take`].
pub(super) const MAX_CALLS: &str = "max_calls";

/// Asks until the answer has its form. Each repair and each round is a call of its own sequence; the bad answers
/// before it stay in the journal, since they were paid for. A chain that says so goes on where a model does not find the
/// form.
pub(super) async fn ask(cx: &JobContext, question: &Question<'_>, calls: &Calls) -> Result<Answered, JobError> {
    let mut rest = question.chain.clone();
    loop {
        let formless = match ask_rounds(cx, question, &rest, calls).await {
            Err(error) if error.class == ErrorClass::InvalidOutput => error,
            other => return other,
        };
        match rest.after(0, formless.class).and_then(|next| rest.rest(next)) {
            Some(next) => rest = next,
            None => return Err(formless),
        }
    }
}

async fn ask_rounds(
    cx: &JobContext,
    question: &Question<'_>,
    chain: &Chain,
    calls: &Calls,
) -> Result<Answered, JobError> {
    let checker = Checker::new(question.form)?;
    let mut sequence = 0;
    let mut bad = None;
    for _ in 0..question.rounds.max(1) {
        let mut body = question.body.clone();
        for _ in 0..=question.repair {
            let answer = call(cx, question, chain, sequence, &body, calls).await?;
            sequence += 1;
            refused(cx, &answer)?;
            if !answer.tool_calls.is_empty() {
                count(cx, if bad.is_some() { "repaired" } else { "good" });
                return Ok(Answered { answer, json: None });
            }
            let checked = checker.check(&answer.text);
            count(cx, found(&checked, &answer, bad.is_some()));
            match checked {
                Ok(json) => return Ok(Answered { answer, json }),
                Err(_) if answer.finish == CUT => return Err(truncated()),
                Err(faults) => {
                    append_repair(&mut body, &answer.text, &faults);
                    bad = Some(faults);
                }
            }
        }
    }
    let faults = bad.map(|faults| faults.discreet).unwrap_or_default();
    let message = format!("after {} repairs the answer still {faults}", question.repair);
    Err(JobError::new(ErrorClass::InvalidOutput, "invalid_output", message))
}

/// Asks once and takes the answer as it is, unless it was withheld. Whoever asks checks it, and says what it found ([`count`]).
pub(super) async fn ask_once(cx: &JobContext, question: &Question<'_>, calls: &Calls) -> Result<ChatAnswer, JobError> {
    let answer = call(cx, question, question.chain, 0, &question.body, calls).await?;
    refused(cx, &answer)?;
    Ok(answer)
}

/// What the metrics are told of an answer that was checked.
fn found(checked: &Result<Option<Value>, Faults>, answer: &ChatAnswer, after_bad_ones: bool) -> &'static str {
    match checked {
        _ if answer.finish == CUT => "truncated",
        Err(_) => "invalid",
        Ok(_) if after_bad_ones => "repaired",
        Ok(_) => "good",
    }
}

/// Kept answers that a later attempt finds count again: its checks are what is counted.
pub(super) fn count(cx: &JobContext, outcome: &'static str) {
    metrics::counter!(telemetry::ANSWERS, "kind" => cx.job().kind.as_str(), "outcome" => outcome).increment(1);
}

fn refused(cx: &JobContext, answer: &ChatAnswer) -> Result<(), JobError> {
    withheld(answer).inspect_err(|_| count(cx, "withheld"))
}

/// An answer that has passed its checks before, with its JSON.
pub(super) fn read_again(form: Form<'_>, answer: ChatAnswer) -> Result<Answered, JobError> {
    if !answer.tool_calls.is_empty() {
        return Ok(Answered { answer, json: None });
    }
    match Checker::new(form)?.check(&answer.text) {
        Ok(json) => Ok(Answered { answer, json }),
        Err(faults) => {
            let message = format!("an answer that was kept {}", faults.discreet);
            Err(JobError::new(ErrorClass::InvalidOutput, "invalid_output", message))
        }
    }
}

/// The error of an answer that was cut. Not tried again: the same request would be cut again, and paid for again.
pub(super) fn truncated() -> JobError {
    let message = "the answer was cut at its token limit; a larger `max_tokens` gives it room";
    JobError { retryable: false, ..JobError::new(ErrorClass::Truncated, "length", message) }
}

/// An answer that the provider or the model withheld is an error, and a paid one.
pub(super) fn withheld(answer: &ChatAnswer) -> Result<(), JobError> {
    if answer.finish == "content_filter" {
        return Err(JobError::new(ErrorClass::Filtered, "content_filter", "the provider's filter withheld the answer"));
    }
    match answer.refusal.as_deref() {
        None | Some("") => Ok(()),
        Some(_) => Err(JobError::new(ErrorClass::Filtered, "refusal", "the model declined to answer")),
    }
}

/// One call, tried again after a short pause where the failure is one that passes by itself.
async fn call(
    cx: &JobContext,
    question: &Question<'_>,
    chain: &Chain,
    sequence: u32,
    body: &Map<String, Value>,
    calls: &Calls,
) -> Result<ChatAnswer, JobError> {
    calls.take()?;
    let ask = || cx.chat(question.step, sequence, chain, body.clone(), question.durability);
    again(cx, &chain.first, question.tries, ask).await
}

/// Asks up to `tries` times, as far as `model` has retries to spend. Each try has its own ledger row; a pause longer than
/// [`PAUSE_MAX`] is left to the queue.
pub(super) async fn again<T, F>(cx: &JobContext, model: &str, tries: u32, ask: impl Fn() -> F) -> Result<T, JobError>
where
    F: Future<Output = Result<T, JobError>>,
{
    let mut failures = 0;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        failures += 1;
        let pause = match error.retry_after_ms {
            Some(wait_ms) => Duration::from_millis(wait_ms),
            None => retry::backoff(failures - 1).mul_f64(rand::random()),
        };
        if failures >= tries || !passes_soon(error.class) || pause > PAUSE_MAX || !cx.may_retry(model) {
            return Err(error);
        }
        tokio::select! {
            () = cx.cancelled().cancelled() => return Err(error),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn passes_soon(class: ErrorClass) -> bool {
    use ErrorClass as C;
    matches!(class, C::TransportPre | C::TransportMid | C::Server | C::StreamBroken | C::Rate)
}

/// What is wrong with an answer.
struct Faults {
    /// For the model; repeats parts of the answer.
    told: String,
    /// For logs and people: places and rules, no values.
    discreet: String,
}

enum Checker {
    Text,
    Object,
    Schema(Box<jsonschema::Validator>),
}

impl Checker {
    fn new(form: Form<'_>) -> Result<Self, JobError> {
        Ok(match form {
            Form::Text => Self::Text,
            Form::Object => Self::Object,
            Form::Schema(schema) => Self::Schema(Box::new(payload::compile(schema).map_err(|reason| {
                JobError::new(ErrorClass::BadRequest, "schema", format!("the JSON Schema is not usable: {reason}"))
            })?)),
        })
    }

    /// The answer's JSON, where there must be some.
    fn check(&self, text: &str) -> Result<Option<Value>, Faults> {
        if matches!(self, Self::Text) {
            return Ok(None);
        }
        let json: Value = serde_json::from_str(unfenced(text)).map_err(|error| {
            let reason = format!("is not JSON: {error}");
            Faults { told: format!("it {reason}"), discreet: reason }
        })?;
        let faults = match self {
            Self::Schema(validator) => faults(validator, &json),
            _ if json.is_object() => None,
            _ => {
                let reason = "is JSON, but not an object".to_owned();
                Some(Faults { told: format!("it {reason}"), discreet: reason })
            }
        };
        faults.map_or(Ok(Some(json)), Err)
    }
}

fn faults(validator: &jsonschema::Validator, json: &Value) -> Option<Faults> {
    let (mut told, mut places) = (Vec::new(), Vec::new());
    for error in validator.iter_errors(json).take(FAULTS_MAX) {
        let place = error.instance_path().to_string();
        let words: String = error.to_string().chars().take(FAULT_MAX_CHARS).collect();
        told.push(format!("at `{place}`: {words}"));
        places.push(format!("`{place}` against `{}`", error.kind().keyword()));
    }
    let discreet = || format!("does not keep its schema: {}", places.join(", "));
    (!places.is_empty()).then(|| Faults { told: told.join("\n"), discreet: discreet() })
}

/// Models like to wrap JSON in a fence of backticks.
pub(super) fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) else { return text };
    let inner = inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    inner.trim()
}

fn append_repair(body: &mut Map<String, Value>, bad: &str, faults: &Faults) {
    let Some(Value::Array(messages)) = body.get_mut("messages") else { return };
    let echo = &bad[..bad.floor_char_boundary(ECHO_MAX_BYTES)];
    messages.push(json!({"role": "assistant", "content": echo}));
    let ask = format!("Your answer cannot be used:\n{}\nAnswer again with only valid JSON.", faults.told);
    messages.push(json!({"role": "user", "content": ask}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_as_it_was_found() {
        let of = |finish: &str, text: &str, after_bad_ones| {
            let answer = ChatAnswer { finish: finish.to_owned(), text: text.to_owned(), ..ChatAnswer::default() };
            found(&Checker::Object.check(text), &answer, after_bad_ones)
        };
        assert_eq!(of("stop", "{}", false), "good");
        assert_eq!(of("stop", "{}", true), "repaired");
        assert_eq!(of("stop", "[]", true), "invalid");
        assert_eq!(of(CUT, "{\"a\":", false), "truncated");
    }

    #[test]
    fn a_fence_is_taken_off() {
        for text in ["{\"a\":1}", " ```json\n{\"a\":1}\n``` ", "```\n{\"a\":1}```", "```JSON5 {\"a\":1} ```"] {
            assert_eq!(unfenced(text), "{\"a\":1}");
        }
        assert_eq!(unfenced("```json\n{"), "```json\n{");
    }

    #[test]
    fn the_model_is_told_the_value_and_the_log_is_not() {
        let schema = json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let checker = Checker::new(Form::Schema(&schema)).unwrap();
        let faults = checker.check(r#"{"n": "secret"}"#).unwrap_err();
        assert!(faults.told.contains("secret") && faults.told.contains("/n"), "{}", faults.told);
        assert_eq!(faults.discreet, "does not keep its schema: `/n` against `type`");
        assert_eq!(checker.check(r#"{"n": 3}"#).ok().flatten(), Some(json!({"n": 3})));
        for text in ["", "{", "secret", "[1] [2]"] {
            assert!(checker.check(text).unwrap_err().discreet.starts_with("is not JSON"), "{text}");
        }
    }

    #[test]
    fn an_object_is_wanted_where_an_object_is_wanted() {
        let checker = Checker::new(Form::Object).unwrap();
        assert!(checker.check("[1]").unwrap_err().discreet.contains("not an object"));
        assert!(checker.check("{}").is_ok());
        assert!(Checker::new(Form::Text).unwrap().check("[1").is_ok());
    }

    #[test]
    fn calls_end_at_their_limit() {
        let calls = Calls::up_to(2);
        assert!(calls.take().is_ok() && calls.take().is_ok());
        assert_eq!(calls.take().unwrap_err().code, MAX_CALLS);
        assert_eq!(calls.made(), 2);
    }
}
