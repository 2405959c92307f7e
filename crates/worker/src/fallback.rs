//! A chat call that may go to other models: whoever of the chain answers, answers.
//!
//! An answer that was kept is found again whichever model gave it. A model is asked only while no answer is accepted: what
//! an answer says, bad or good, is looked at by whoever asked.

use queue_core::{
    credentials,
    error::{ErrorClass, JobError},
    events::EventBody,
    fallback::{Chain, Link},
    retry::{Then, rule},
    route::{self, Target},
    telemetry,
};
use serde_json::{Map, Value};

use crate::{
    context::{Durability, JobContext},
    provider::{ChatAnswer, estimate},
};

impl JobContext {
    /// Asks for a chat completion, or finds the answer that an earlier attempt paid for. `step` and `sequence` name the
    /// call within the job, `chain` says who may answer; `body` is the request without `model`.
    pub async fn chat(
        &self,
        step: &str,
        sequence: u32,
        chain: &Chain,
        body: Map<String, Value>,
        durability: Durability,
    ) -> Result<ChatAnswer, JobError> {
        let own = chain;
        let chain = &self.with_cheaper(own);
        let models: Vec<&str> = chain.models().collect();
        let step_of = |at: usize| Step {
            name: step,
            call: chain.step(step, at),
            sequence,
            may_go_elsewhere: chain.after(at, ErrorClass::Rate).is_some(),
        };
        for (at, model) in models.iter().enumerate() {
            let kept = self.recall_chat(&step_of(at), model, &body).filter(|kept| passed_on(chain, at, kept).is_none());
            if let Some(answer) = kept {
                self.tell_kept(step, &answer.text);
                return Ok(answer);
            }
        }
        let (mut at, mut failures) = (0, Vec::new());
        loop {
            let is_last = chain.after(at, ErrorClass::Budget).is_none();
            let asked = match self.check_window(own, models[at], &body) {
                Ok(()) => self.chat_once(&step_of(at), models[at], &body, durability, is_last).await,
                Err(error) => Err(error),
            };
            let failure = match asked {
                Ok(answer) => match passed_on(chain, at, &answer) {
                    None => return Ok(answer),
                    Some(failure) => failure,
                },
                Err(failure) => failure,
            };
            let next = chain.after(at, failure.class).filter(|_| !self.cancelled().is_cancelled());
            if let Some(next) = next {
                self.tell_switch(step, models[at], models[next], failure.class);
            }
            failures.push(failure);
            let Some(next) = next else { break };
            at = next;
        }
        let mut failure = most_hopeful(failures);
        self.rest_lane(own, &mut failure).await;
        Err(failure)
    }

    /// The chain with the cheaper models behind it that the job's budgets name for when they have no room.
    fn with_cheaper(&self, chain: &Chain) -> Chain {
        let mut chain = chain.clone();
        for model in self.around().purse.applies(self.job()).degrade_to() {
            if chain.models().all(|known| known != model) {
                chain.links.push(Link { model: model.to_owned(), on: vec![ErrorClass::Budget] });
            }
        }
        chain
    }

    /// Nothing goes to a model of a chain that has no room for it, where that is known.
    fn check_window(&self, chain: &Chain, model: &str, body: &Map<String, Value>) -> Result<(), JobError> {
        if chain.links.is_empty() {
            return Ok(());
        }
        let Some(window) = self.window(model) else { return Ok(()) };
        let answer = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| body.get(*name)?.as_u64());
        let (prompt, answer) = (estimate::of_prompt(model, body), answer.unwrap_or(0));
        if prompt + answer <= window {
            return Ok(());
        }
        let message = format!("{prompt} tokens and an answer of {answer} do not fit into the {window} of {model}");
        Err(JobError::new(ErrorClass::Overflow, "window", message))
    }

    fn tell_switch(&self, step: &str, from: &str, to: &str, class: ErrorClass) {
        metrics::counter!(telemetry::FALLBACKS, "class" => class.as_str()).increment(1);
        tracing::info!(job_id = %self.job().id, step, from, to, %class, "a call goes on with another model");
        let (step, from, to) = (step.to_owned(), from.to_owned(), to.to_owned());
        self.publish(EventBody::ModelSwitched { attempt: self.attempt(), step, from, to, class });
    }

    /// A chain of which nobody could be asked: its lane sleeps until the first of them may be. Lanes of one target are put
    /// to sleep by its breaker.
    async fn rest_lane(&self, chain: &Chain, failure: &mut JobError) {
        let targets: Option<Vec<Target>> = chain.models().map(|model| self.target_of(model)).collect();
        let Some(targets) = targets else { return };
        self.note_sleep(&targets, failure);
        if let (true, [_, _, ..], Some(wait_ms)) = (failure.lane_sleeps, targets.as_slice(), failure.retry_after_ms) {
            let until = self.now().plus_ms(i64::try_from(wait_ms).unwrap_or(i64::MAX));
            self.breakers().rest_lane(&self.job().target, until, &failure.to_string()).await;
            if failure.class == ErrorClass::Credential {
                self.breakers().keyless.remember(&self.job().target, &self.job().tenant);
            }
        }
    }

    /// Notes on a failure to ask anybody of these whether the job's own lane waits for them.
    pub(crate) fn note_sleep(&self, targets: &[Target], failure: &mut JobError) {
        let is_keyless = failure.class == ErrorClass::Credential && failure.code != credentials::UNKNOWN;
        let is_unasked =
            is_keyless || matches!(failure.class, ErrorClass::Breaker | ErrorClass::Quota) || failure.is_of_our_limit();
        failure.lane_sleeps = is_unasked && route::lane_of(targets) == self.job().target;
    }
}

/// Which call of which step.
pub(crate) struct Step<'a> {
    /// As people read it.
    pub(crate) name: &'a str,
    /// What the call's id is made of.
    pub(crate) call: String,
    /// Which of the step's calls.
    pub(crate) sequence: u32,
    /// Whether another model is asked where this one's limit has no room.
    pub(crate) may_go_elsewhere: bool,
}

/// Why an answer of the model at `at` is left to the next one: it was withheld or cut, and the chain says what then.
fn passed_on(chain: &Chain, at: usize, answer: &ChatAnswer) -> Option<JobError> {
    let withheld = match (answer.finish.as_str(), answer.refusal.as_deref()) {
        ("content_filter", _) => (ErrorClass::Filtered, "content_filter", "the provider's filter withheld the answer"),
        (_, Some(words)) if !words.is_empty() => (ErrorClass::Filtered, "refusal", "the model declined to answer"),
        ("length", _) => (ErrorClass::Truncated, "length", "the answer was cut at its token limit"),
        _ => return None,
    };
    let (class, code, message) = withheld;
    chain.after(at, class).map(|_| JobError::new(class, code, message))
}

/// Of several failures the one that leaves most hope: who waits for nothing first, then who may be tried again; of several
/// such the one that passes first, else the first.
pub(crate) fn most_hopeful(failures: Vec<JobError>) -> JobError {
    let hope = |failure: &JobError| {
        let then = rule(failure.class).then;
        (!failure.retryable, then != Then::Release, failure.retry_after_ms.unwrap_or(u64::MAX))
    };
    failures
        .into_iter()
        .min_by_key(hope)
        .unwrap_or_else(|| JobError::new(ErrorClass::Internal, "chain", "the chain names no model"))
}

#[cfg(test)]
mod tests {
    use ErrorClass as C;

    use super::*;

    #[test]
    fn the_failure_that_leaves_most_hope_is_told() {
        let failure = |class, wait| JobError::new(class, "x", "x").with_retry_after(wait);
        let classes = |failures: Vec<JobError>| most_hopeful(failures).class;
        assert_eq!(classes(vec![failure(C::Rate, Some(9)), failure(C::Auth, None)]), C::Rate);
        assert_eq!(classes(vec![failure(C::Auth, None), failure(C::Server, None)]), C::Server);
        assert_eq!(classes(vec![failure(C::Server, None), failure(C::Breaker, Some(9))]), C::Breaker);
        assert_eq!(classes(vec![failure(C::Quota, Some(900)), failure(C::Breaker, Some(10))]), C::Breaker);
        assert_eq!(classes(vec![failure(C::Auth, None), failure(C::Overflow, None)]), C::Auth);
        assert_eq!(classes(vec![]), C::Internal);
    }
}
