//! Answers that several jobs may have: found in the cache, waited for beside whoever is asking the same, or asked for and kept.

use std::time::{Duration, Instant};

use queue_core::{
    cache::{Fence, Key, Lock},
    error::JobError,
    ledger::{SavedBy, Usage},
    payload::cache::Wish,
    telemetry,
};
use serde_json::{Map, Value};

use super::{JobContext, Tier, estimate};
use crate::{
    caches::Caches,
    fallback::Step,
    flights::{Leader, Part},
    provider::{ChatAnswer, ChatRequest},
};

/// Longest wait for somebody else's answer: then one asks for oneself.
pub(super) const FOLLOW_MAX: Duration = Duration::from_secs(30);
/// How long a process may be the only one of the fleet to ask: if it dies, the others wait no longer than this.
const LEAD_MAX: Duration = Duration::from_secs(60);
/// Time between two looks whether another process has the answer.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How an answer is to be had.
enum Way {
    /// Somebody has paid for it.
    Found(Box<ChatAnswer>, SavedBy),
    /// By asking.
    Ask(Option<Leader<ChatAnswer>>, Option<FleetLock>),
}

/// A question whose answer others may have.
pub(crate) struct Shared<'a> {
    pub(crate) wish: Wish,
    /// The step of the job that asks it.
    pub(crate) step: &'a str,
    pub(crate) model: &'a str,
    /// The request, without `model`.
    pub(crate) body: &'a Map<String, Value>,
    /// Whether it goes to further models, whose answers are not what the next job asks for, and the job asks several such
    /// questions at once, so that nobody can tell who answered this one.
    pub(crate) may_be_anothers: bool,
}

impl JobContext {
    /// The answer to a question, from whoever paid for it first, else what `ask` brings. `ask` is the whole way to an answer of
    /// the right form, repairs included: what is kept has passed its checks. A question that an earlier attempt of this job has
    /// paid for is not looked for anywhere else: what the job went on with then it must go on with now.
    pub(crate) async fn shared_chat(
        &self,
        shared: Shared<'_>,
        ask: impl Future<Output = Result<ChatAnswer, JobError>>,
    ) -> Result<ChatAnswer, JobError> {
        let Shared { wish, step, model, body, may_be_anothers } = shared;
        let request = ChatRequest { model: model.to_owned(), body: body.clone() };
        let step = Step { name: step, call: step.to_owned(), sequence: 0, may_go_elsewhere: false };
        let asked = self.ask(&step, model, &request)?;
        if self.memos.contains_key(&asked.call_id) {
            return ask.await;
        }
        let caches = &self.around.caches;
        let key = caches.answer_key(wish.scope, &self.job().tenant, &asked.target, &request.body);
        let (leader, lock) = match self.way_to(caches, &key).await {
            Way::Ask(leader, lock) => (leader, lock),
            Way::Found(answer, reason) => {
                let cache = if reason == SavedBy::Cache { "response" } else { "singleflight" };
                metrics::counter!(telemetry::CACHE_HITS, "cache" => cache).increment(1);
                let usage = answer.usage.unwrap_or_else(|| estimate::of_answer(&request, &answer));
                let tier = answer.service_tier.as_deref().map_or(Tier::Standard, Tier::of_service_tier);
                self.note_saved(&asked, reason, usage, tier);
                self.note_served_by(&asked);
                return Ok(ChatAnswer { usage: Some(Usage::default()), cached: true, ..*answer });
            }
        };
        let answer = ask.await?;
        // What a fallback said is not what the next job asks for.
        let own = format!("{}/{model}", asked.provider_name());
        if may_be_kept(&answer) && !may_be_anothers && self.served_by().as_ref() == Some(&own) {
            caches.keep_answer(&key, lock.and_then(FleetLock::into_fence), &answer, wish.ttl).await;
            if let Some(leader) = leader {
                leader.land(answer.clone());
            }
        }
        Ok(answer)
    }

    async fn way_to(&self, caches: &Caches, key: &Key) -> Way {
        let patience = Instant::now() + FOLLOW_MAX;
        let leader = loop {
            if let Some(answer) = caches.answer(key).await {
                return Way::Found(Box::new(answer), SavedBy::Cache);
            }
            match caches.flights().enter(*key) {
                Part::Leader(leader) => break leader,
                Part::Follower(follower) => {
                    let left = patience.saturating_duration_since(Instant::now());
                    match tokio::time::timeout(left, follower.answer()).await {
                        Ok(Some(answer)) => return Way::Found(Box::new((*answer).clone()), SavedBy::Singleflight),
                        // Its leader has gone without one: look again, and lead if nobody does.
                        Ok(None) => {}
                        Err(_) => return Way::Ask(None, None),
                    }
                }
            }
        };
        loop {
            match caches.lock(key, LEAD_MAX).await {
                Lock::Held(fence) => return Way::Ask(Some(leader), Some(FleetLock::new(caches, *key, fence))),
                Lock::Away => return Way::Ask(Some(leader), None),
                Lock::Taken if Instant::now() >= patience => return Way::Ask(Some(leader), None),
                Lock::Taken => tokio::time::sleep(LOOK_EVERY.mul_f64(0.5 + rand::random::<f64>())).await,
            }
            if let Some(answer) = caches.answer(key).await {
                leader.land(answer.clone());
                return Way::Found(Box::new(answer), SavedBy::Singleflight);
            }
        }
    }
}

/// Whether an answer is one that the same question may get again: whole, and not withheld.
fn may_be_kept(answer: &ChatAnswer) -> bool {
    matches!(answer.finish.as_str(), "stop" | "tool_calls") && answer.refusal.is_none() && !answer.cached
}

/// The right to be the only one of the fleet to ask; dropped, it is given back.
pub(super) struct FleetLock(Option<(Caches, Key, Fence)>);

impl FleetLock {
    pub(super) fn new(caches: &Caches, key: Key, fence: Fence) -> Self {
        Self(Some((caches.clone(), key, fence)))
    }

    fn into_fence(mut self) -> Option<Fence> {
        self.0.take().map(|(_, _, fence)| fence)
    }
}

impl Drop for FleetLock {
    fn drop(&mut self) {
        // Without a runtime the process ends, and the lock with its time.
        if let (Some((caches, key, fence)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { caches.unlock(&key, fence).await });
        }
    }
}
