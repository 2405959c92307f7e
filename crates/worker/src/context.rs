//! What a handler may do: ask a provider, tell how far it is, learn that it should stop. It contains no queue calls.
//!
//! Every provider call goes through [`JobContext`]: it finds the kept answer of an earlier attempt before it pays
//! again, keeps the new answer before anyone looks at it, and writes the ledger row either way.

mod embed;
mod service;
mod shared;
mod vectors;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    budget::{Amount, Budget, Known},
    credentials::{Credentials, Heard, Unlocked},
    egress::{Allowed, Egress},
    error::{ErrorClass, JobError},
    events::EventBody,
    fallback::Chain,
    ids::CallId,
    job::{Job, Loaded},
    ledger::{Billed, CallRecord, Memo, MemoBody, Nanousd, PriceBook, SavedBy, Saving, Tier, Usage, UsageSource},
    limiter::{InForce, Limits, memory::MemoryLimiter},
    route::{Routes, Target},
    stores::Stores,
    telemetry,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Alike, Ended, Estimate, Gate, Pass, Wish, of_chat},
    breaker::{Breakers, Entered},
    caches::Caches,
    coalesce::{Coalescer, Coalescing},
    fallback::Step,
    leases::Leases,
    line::Bill,
    patience::until_available,
    provider::{Call, CallError, ChatAnswer, ChatRequest, Provider, Providers, estimate},
    purse::{self, Cap, Hold, Paid, Purse, UnknownPrice},
    traced,
};

pub(crate) use shared::Shared;

/// Runs the jobs of one kind.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Does the work and returns its result as JSON text. Dropped when the job is cancelled, lost or timed out, where it next awaits
    /// something: what computes or blocks for long belongs on `tokio::task::spawn_blocking`, or its worker has to be started again.
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError>;
}

/// When the answer of a call becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the handler sees it: for jobs of many calls.
    Now,
    /// With the job's settle: for jobs whose only call this is.
    WithSettle,
}

/// What every attempt of a worker shares.
#[derive(Clone)]
pub struct Surroundings {
    /// The stores.
    pub stores: Stores,
    /// Who answers.
    pub providers: Arc<Providers>,
    /// Who serves which model.
    pub routes: Arc<Routes>,
    /// What a call costs.
    pub prices: Arc<PriceBook>,
    /// Whether a call may be made now.
    pub gate: Arc<Gate>,
    /// Whether there is money for it.
    pub purse: Arc<Purse>,
    /// What need not be asked again.
    pub caches: Arc<Caches>,
    /// Whose questions go out together.
    pub coalescer: Arc<Coalescer>,
    /// Whose key a call is made with.
    pub credentials: Arc<Credentials>,
    /// The way to URLs that jobs name.
    pub egress: Egress,
}

impl Surroundings {
    /// What a program needs whose handlers ask no model: no provider, no price, no cache.
    pub fn without_providers(stores: Stores) -> Self {
        let limits = Arc::new(InForce::new(Limits::default(), BTreeMap::new()));
        let limiter = Arc::new(MemoryLimiter::new(stores.clock.clone()));
        let prices = Arc::new(PriceBook::shipped());
        let known = Arc::new(Known::new(stores.budgets.clone(), Budget::default()));
        Self {
            providers: Arc::default(),
            routes: Arc::default(),
            purse: Arc::new(Purse::new(stores.clone(), known, prices.clone(), UnknownPrice::Refuse)),
            prices,
            gate: Arc::new(Gate::new(&stores, limiter, limits)),
            caches: Arc::new(Caches::none()),
            coalescer: Arc::new(Coalescer::new(Coalescing::alone(), BTreeMap::new())),
            credentials: Arc::new(Credentials::of(stores.vault.clone())),
            egress: Egress::new(Allowed::default()),
            stores,
        }
    }
}

/// One attempt, as its handler sees it.
pub struct JobContext {
    around: Surroundings,
    loaded: Arc<Loaded>,
    payload: Bytes,
    stop: CancellationToken,
    ends: Instant,
    breakers: Arc<Breakers>,
    leases: Arc<Leases>,
    memos: HashMap<CallId, MemoBody>,
    unsettled: Mutex<Vec<CallRecord>>,
    /// What the calls of this attempt used and cost.
    bill: Mutex<Bill>,
    /// What the calls of `unsettled` have reserved.
    paid: Mutex<Vec<Paid>>,
    cap: Option<Arc<Cap>>,
    savings: Mutex<Vec<Saving>>,
    served_by: Mutex<Option<String>>,
    served: Mutex<BTreeMap<String, u32>>,
    in_flight: Arc<AtomicU32>,
    /// Calls that wait to be made or are under way.
    wished: AtomicU32,
    tries: AtomicU32,
    /// How often each step has told an answer.
    told: Mutex<HashMap<String, u32>>,
}

impl JobContext {
    /// An attempt that must end within `total`, with the answers that earlier attempts left.
    pub(crate) fn new(
        around: Surroundings,
        breakers: Arc<Breakers>,
        (loaded, payload): (Arc<Loaded>, Bytes),
        memos: Vec<Memo>,
        (stop, leases): (CancellationToken, Arc<Leases>),
        total: Duration,
    ) -> Self {
        let cap = loaded.job.max_cost.map(|max| Cap::new(max, loaded.job.cost.unwrap_or_default()));
        Self {
            around,
            breakers,
            loaded,
            payload,
            stop,
            leases,
            ends: Instant::now() + total,
            memos: memos.into_iter().map(|kept| (kept.call_id, kept.memo)).collect(),
            unsettled: Mutex::default(),
            bill: Mutex::new(Bill::default()),
            paid: Mutex::default(),
            cap,
            savings: Mutex::default(),
            served_by: Mutex::default(),
            served: Mutex::default(),
            in_flight: Arc::default(),
            wished: AtomicU32::new(0),
            tries: AtomicU32::new(0),
            told: Mutex::default(),
        }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.loaded.job
    }

    /// JSON text as it was submitted.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The number of this attempt, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.loaded.job.attempts + 1
    }

    /// Now, by the store's clock.
    pub fn now(&self) -> queue_core::time::Timestamp {
        self.around.stores.clock.now()
    }

    /// Fires when the attempt should stop.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.stop
    }

    /// The model of a job that names none.
    pub fn default_model(&self) -> Option<&str> {
        self.around.routes.default_model.as_deref()
    }

    /// The embedding model of a job that names none.
    pub fn default_embedding_model(&self) -> Option<&str> {
        self.around.routes.default_embedding_model.as_deref().or_else(|| self.default_model())
    }

    /// Tokens that prompt and answer of `model` may have together, where known.
    pub fn window(&self, model: &str) -> Option<u64> {
        self.around.prices.model(model).and_then(|known| known.context_window)
    }

    /// The name of the provider that serves `model`.
    pub fn provider_of(&self, model: &str) -> Option<String> {
        self.around.routes.resolve(model).map(|target| target.provider.to_string())
    }

    /// Tokens that an answer of `model` may have, where known.
    pub fn answer_max(&self, model: &str) -> Option<u64> {
        self.around.prices.model(model).and_then(|known| known.max_output.or(known.context_window))
    }

    /// Who would be asked for `model`.
    pub(crate) fn target_of(&self, model: &str) -> Option<Target> {
        let target = self.around.routes.resolve(model)?;
        let credential = self.around.credentials.credential_of(&self.job().tenant, &target.provider);
        Some(Target { credential, ..target })
    }

    /// The tenant's own key for a call of this target, if it is made with one. Where there has to be one and is none, the
    /// target's lane sleeps until there may be.
    async fn unlock(&self, target: &Target) -> Result<Option<Unlocked>, JobError> {
        self.around.credentials.catch_up().await;
        match self.around.credentials.unlock(target) {
            Ok(key) => Ok(key),
            Err(error) => {
                self.breakers.keyless.rest(target, &error).await;
                Err(error)
            }
        }
    }

    /// What every attempt shares.
    pub(crate) fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Who may be called.
    pub(crate) fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// Whether a call of `model` that failed may be made again within this attempt.
    pub fn may_retry(&self, model: &str) -> bool {
        self.target_of(model).is_none_or(|target| self.breakers.may_retry(&target.name()))
    }

    /// The job's own fallback chain behind this model.
    pub fn chain(&self, first: &str) -> Chain {
        Chain::of(first, self.loaded.fallback.clone())
    }

    /// Tells those who watch.
    pub(crate) fn publish(&self, body: EventBody) {
        self.around.stores.events.publish(self.job().id, body);
    }

    /// How many answers each `provider/model` gave, kept ones included.
    pub fn served(&self) -> BTreeMap<String, u32> {
        held(&self.served).clone()
    }

    /// The provider of the last answer.
    pub fn last_provider(&self) -> Option<String> {
        self.served_by().and_then(|served| Some(served.split_once('/')?.0.to_owned()))
    }

    /// Tells those who watch how far the work is: `done` of `total` steps, now at `step`.
    pub fn progress(&self, done: u32, total: u32, step: &str) {
        let body = EventBody::Progress { done, total, step: step.to_owned() };
        self.around.stores.events.publish(self.job().id, body);
    }

    /// The kept answer of a model to this request.
    pub(crate) fn recall_chat(&self, step: &Step<'_>, model: &str, body: &Map<String, Value>) -> Option<ChatAnswer> {
        if self.memos.is_empty() {
            return None;
        }
        let request = ChatRequest { model: model.to_owned(), body: body.clone() };
        let asked = self.ask_chat(step, model, &request).ok()?;
        self.recall(&asked, told_of_chat, |answer| of_chat_answer(&request, answer))
    }

    /// Asks one model for a chat completion. `is_last`: nobody else is asked where there is no money for it.
    pub(crate) async fn chat_once(
        &self,
        step: &Step<'_>,
        model: &str,
        body: &Map<String, Value>,
        durability: Durability,
        is_last: bool,
    ) -> Result<ChatAnswer, JobError> {
        let request = ChatRequest { model: model.to_owned(), body: body.clone() };
        let asked = self.ask_chat(step, model, &request)?;
        let estimate = |answer: Option<&ChatAnswer>| of_chat_answer(&request, answer);
        if let Some(answer) = self.recall(&asked, told_of_chat, estimate) {
            return Ok(answer);
        }
        let key = self.unlock(&asked.target).await?;
        let leave = self.breakers.enter(&asked.target).await?;
        let _wished = InFlight::enter(&self.wished);
        let alike = Alike::of(self.job(), model);
        let counts = self.around.gate.wants_tokens(&asked.target) || self.around.purse.counts(self.job());
        let expected = match counts {
            true => of_chat(&request, self.around.gate.answers().expected(&alike)).await,
            false => Estimate::default(),
        };
        let mut hold = match self.pay(&asked, expected, is_last).await {
            Ok(hold) => hold,
            Err(refused) => {
                leave.give_back().await;
                return Err(refused);
            }
        };
        let (leave, mut pass) =
            self.admit(&asked.target, (asked.call_id, asked.may_go_elsewhere), leave, expected).await?;
        let stream = self.stream_of(step.name);
        let tell = |text: &str| self.tell_text(&stream, text);
        self.leases.until_trusted(&self.stop).await;
        let began = Instant::now();
        pass.sends();
        hold.sends();
        let outcome = {
            let _guard = InFlight::enter(&self.in_flight);
            let span = traced::chat(self.job(), asked.step, &*asked.provider, &request);
            let outcome = asked.provider.chat(&request, self.call(asked.call_id, key.as_ref(), &tell)).await;
            traced::chat_ended(span, &outcome);
            outcome
        };
        if let Ok(ChatAnswer { first_token_ms: Some(ms), .. }) = &outcome {
            metrics::histogram!(telemetry::PROVIDER_FIRST_TOKEN, "provider" => telemetry::provider(asked.provider.name()))
                .record(*ms as f64 / 1_000.0);
        }
        let took = began.elapsed();
        let ended = match &outcome {
            Ok(answer) => Ended::well(answer.usage, answer.told, took),
            Err(failure) => Ended::badly(failure, took),
        };
        // The answer is kept before breaker and limiter hear of it: it may have cost something.
        let concluded = self.conclude(asked, took, outcome, (told_of_chat, estimate), (durability, hold)).await;
        let noted = note_key(&self.around, key.as_ref(), verdict(&concluded));
        tokio::join!(leave.end(verdict(&concluded)), self.around.gate.end(pass, &alike, ended), noted);
        concluded.map_err(|error| after_refusal(&self.around, key.as_ref(), error))
    }

    /// The ledger rows of the job so far, those that the settle has yet to write included.
    pub async fn calls_so_far(&self) -> Result<Vec<CallRecord>, JobError> {
        let reads = &self.around.stores.reads;
        let written = until_available("calls", || reads.calls(self.job().id), &self.stop).await;
        let stopped = || JobError::new(ErrorClass::Internal, "cancelled", "the attempt was stopped");
        let mut calls = written.ok_or_else(stopped)?;
        calls.extend(held(&self.unsettled).iter().cloned());
        Ok(calls)
    }

    /// Calls whose ledger rows the settle has yet to write.
    pub(crate) fn take_unsettled(&self) -> Vec<CallRecord> {
        std::mem::take(&mut *held(&self.unsettled))
    }

    /// What those calls have reserved: committed once the rows are written.
    pub(crate) fn take_paid(&self) -> Vec<Paid> {
        std::mem::take(&mut *held(&self.paid))
    }

    /// Answers that needed no call, which the settle has yet to write.
    pub(crate) fn take_savings(&self) -> Vec<Saving> {
        std::mem::take(&mut *held(&self.savings))
    }

    /// `provider/model` of the last answer.
    pub(crate) fn served_by(&self) -> Option<String> {
        held(&self.served_by).clone()
    }

    /// Whether a provider is being waited for: stopping then means waiting until its connection is dropped and the
    /// ledger row is written.
    pub(crate) fn is_calling(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    fn call<'a>(&self, id: CallId, key: Option<&'a Unlocked>, on_text: &'a (dyn Fn(&str) + Send + Sync)) -> Call<'a> {
        let total = self.ends.saturating_duration_since(Instant::now());
        Call { id, cancel: self.stop.clone(), total, key: key.map(|key| &key.key), on_text }
    }

    /// Takes the money for a call.
    async fn pay(&self, asked: &Asked<'_>, expected: Estimate, is_last: bool) -> Result<Hold, JobError> {
        let usage = Usage {
            tokens_in: expected.tokens_in,
            tokens_out: expected.tokens_out_max.unwrap_or(expected.tokens_out),
            ..Usage::default()
        };
        let wish = purse::Wish {
            job: self.job(),
            call: (asked.call_id, self.tries.load(Ordering::SeqCst)),
            model: asked.model,
            tier: asked.tier,
            usage,
            is_last,
            cap: self.cap.as_ref(),
            stop: &self.stop,
            left: self.ends.saturating_duration_since(Instant::now()),
        };
        self.around.purse.take(wish).await
    }

    /// Waits for the limits of a target that may be called. A call that they do not let go tells nothing of the target.
    async fn admit(
        &self,
        target: &Target,
        (call, may_go_elsewhere): (CallId, bool),
        leave: Entered,
        estimate: Estimate,
    ) -> Result<(Entered, Pass), JobError> {
        let wish = Wish {
            target,
            lane_target: &self.job().target,
            call,
            estimate,
            beside: f64::from(self.wished.load(Ordering::SeqCst)),
            left: self.ends.saturating_duration_since(Instant::now()),
            keeps_place: !may_go_elsewhere,
            stop: &self.stop,
        };
        match self.around.gate.admit(wish).await {
            Ok(pass) => Ok((leave, pass)),
            Err(refused) => {
                leave.give_back().await;
                Err(refused)
            }
        }
    }

    /// The name under which the next answer of a step is told: the step's own for the first of the attempt, then with a
    /// number. A repair, another try or another model begins anew, and its text must not be joined to what was before.
    fn stream_of(&self, step: &str) -> String {
        let mut told = held(&self.told);
        let times = told.entry(step.to_owned()).or_default();
        let stream = if *times == 0 { step.to_owned() } else { format!("{step}#{times}") };
        *times += 1;
        stream
    }

    /// Tells an answer that an earlier attempt left as part of this one: what that attempt told of it may have been cut.
    pub(crate) fn tell_kept(&self, step: &str, text: &str) {
        self.tell_text(&self.stream_of(step), text);
    }

    fn tell_text(&self, step: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let body = EventBody::Token { attempt: self.attempt(), step: step.to_owned(), text: text.to_owned() };
        self.around.stores.events.publish(self.job().id, body);
    }

    fn ask_chat<'a>(&self, step: &Step<'a>, model: &'a str, request: &ChatRequest) -> Result<Asked<'a>, JobError> {
        let tier = word_of(&request.body, "service_tier").map_or(Tier::Standard, Tier::of_service_tier);
        Ok(Asked { tier, ..self.ask(step, model, request)? })
    }

    fn ask<'a, R: Serialize>(&self, step: &Step<'a>, model: &'a str, request: &R) -> Result<Asked<'a>, JobError> {
        let Step { name, call, sequence, may_go_elsewhere } = step;
        let nobody = || JobError::new(ErrorClass::Config, "no_provider", format!("no provider serves `{model}`"));
        let target = self.target_of(model).ok_or_else(nobody)?;
        let provider = self.around.providers.get(target.provider.as_str()).ok_or_else(nobody)?.clone();
        let text = serde_json::to_vec(request)
            .map_err(|error| JobError::new(ErrorClass::Internal, "encode", error.to_string()))?;
        let request_hash = *blake3::hash(&text).as_bytes();
        let mut call_id = CallId::of(self.job().id, call, *sequence);
        if self.memos.get(&call_id).is_some_and(|memo| memo.request_hash != request_hash) {
            // The job was edited after it paid for this step: another question, so another call.
            let tag = u64::from_le_bytes(request_hash[..8].try_into().unwrap_or_default());
            call_id = CallId::of(self.job().id, &format!("{call}#{tag:016x}"), *sequence);
        }
        let tier = Tier::Standard;
        let (sequence, may_go_elsewhere) = (*sequence, *may_go_elsewhere);
        Ok(Asked { step: name, sequence, model, target, provider, call_id, request_hash, tier, may_go_elsewhere })
    }

    fn recall<A: DeserializeOwned>(
        &self,
        asked: &Asked<'_>,
        extract: impl Fn(&A) -> Told,
        estimate: impl Fn(Option<&A>) -> Usage,
    ) -> Option<A> {
        let memo = self.memos.get(&asked.call_id).filter(|memo| memo.request_hash == asked.request_hash)?;
        let answer: A = serde_json::from_slice(&memo.body)
            .inspect_err(|error| tracing::error!(job_id = %self.job().id, %error, "a memo does not read; asking again"))
            .ok()?;
        metrics::counter!(telemetry::CACHE_HITS, "cache" => "memo").increment(1);
        let told = extract(&answer);
        let usage = told.usage.unwrap_or_else(|| estimate(Some(&answer)));
        self.note_saved(asked, SavedBy::Memo, usage, told.tier.unwrap_or(asked.tier));
        self.note_served_by(asked);
        Some(answer)
    }

    /// Notes an answer that needed no call, at what it would cost now. It counts with the attempt.
    fn note_saved(&self, asked: &Asked<'_>, reason: SavedBy, usage: Usage, tier: Tier) {
        let job = self.job();
        let saved = self.around.prices.cost_in(tier, asked.model, &usage);
        held(&self.savings).push(Saving {
            call_id: asked.call_id,
            job_id: job.id,
            tenant: job.tenant.clone(),
            queue: job.queue.clone(),
            kind: job.kind,
            operation: job.operation.clone(),
            epoch: job.epoch,
            provider: asked.provider_name(),
            model: asked.model.to_owned(),
            reason,
            usage,
            saved,
            at: self.now(),
        });
    }

    fn note_served_by(&self, asked: &Asked<'_>) {
        let by = format!("{}/{}", asked.provider.name(), asked.model);
        *held(&self.served).entry(by.clone()).or_default() += 1;
        *held(&self.served_by) = Some(by);
    }

    async fn conclude<A: Serialize>(
        &self,
        asked: Asked<'_>,
        took: Duration,
        outcome: Result<A, CallError>,
        (extract, estimate): (impl Fn(&A) -> Told, impl Fn(Option<&A>) -> Usage),
        (durability, hold): (Durability, Hold),
    ) -> Result<A, JobError> {
        match outcome {
            Ok(answer) => {
                let told = extract(&answer);
                let source = if told.usage.is_some() { UsageSource::Provider } else { UsageSource::Estimated };
                let usage = told.usage.unwrap_or_else(|| estimate(Some(&answer)));
                // The provider may have served it in another tier than it was asked for.
                let tier = told.tier.unwrap_or(asked.tier);
                let mut record = self.record_of(&asked, asked.call_id, took, (usage, source, tier));
                record.provider_request_id = told.request_id;
                let body = serde_json::to_vec(&answer)
                    .map_err(|error| JobError::new(ErrorClass::Internal, "encode", error.to_string()))?;
                record.memo = Some(MemoBody { request_hash: asked.request_hash, body: body.into() });
                self.note_served_by(&asked);
                count(&record);
                self.keep(record, durability, Some(hold)).await;
                Ok(answer)
            }
            Err(failure) => {
                let try_of_call = self.tries.fetch_add(1, Ordering::SeqCst);
                let id = CallRecord::id_of_failure(asked.call_id, self.job().epoch, try_of_call);
                let (usage, source) = match (failure.billed, failure.usage) {
                    // Nothing was used, which nobody had to count.
                    (Billed::No, _) => (Usage::default(), UsageSource::Provider),
                    (_, Some(usage)) => (usage, failure.usage_source),
                    (_, None) => (estimate(None), UsageSource::Estimated),
                };
                let mut record = self.record_of(&asked, id, took, (usage, source, asked.tier));
                record.status = failure.error.class.as_str().to_owned();
                record.billed = failure.billed;
                record.provider_request_id = failure.request_id;
                if failure.billed == Billed::No {
                    record.cost = Some(Nanousd(0));
                }
                count(&record);
                // What cost nothing can wait for the settle.
                let durability = if record.billed == Billed::No { Durability::WithSettle } else { durability };
                self.keep(record, durability, Some(hold)).await;
                Err(failure.error)
            }
        }
    }

    /// What the job has cost, over all its attempts that are known here; `None` where a price is missing.
    pub(crate) fn cost_so_far(&self) -> Option<Nanousd> {
        let (before, now) = (self.job().cost?, held(&self.bill).cost?);
        Some(Nanousd(before.0.saturating_add(now.0)))
    }

    /// What the calls of this attempt have used and cost; answers that were found are no calls.
    pub(crate) fn bill(&self) -> Bill {
        *held(&self.bill)
    }

    async fn keep(&self, record: CallRecord, durability: Durability, hold: Option<Hold>) {
        held(&self.bill).add(&record);
        let (took, at) = (Amount::of(record.cost, &record.usage), record.at);
        // Whatever becomes of this future from here on, also where it is dropped while the journal is away: what was paid for
        // is written by the settle, or by the stop itself.
        held(&self.unsettled).push(record.clone());
        let kept = match durability {
            Durability::WithSettle => None,
            Durability::Now => {
                let journal = &self.around.stores.journal;
                until_available("record", || journal.record(record.clone()), &self.stop).await
            }
        };
        if kept.is_some() {
            held(&self.unsettled).retain(|call| call.call_id != record.call_id);
        }
        if let Some(hold) = hold {
            if kept.is_some() || took == Amount::default() {
                hold.commit(took, at).await;
            } else if let Some(paid) = hold.took(took, at, record.status != "ok").await {
                held(&self.paid).push(paid);
            }
        }
    }

    fn record_of(
        &self,
        asked: &Asked<'_>,
        id: CallId,
        took: Duration,
        (usage, source, tier): (Usage, UsageSource, Tier),
    ) -> CallRecord {
        let job = self.job();
        CallRecord {
            call_id: id,
            job_id: job.id,
            tenant: job.tenant.clone(),
            queue: job.queue.clone(),
            kind: job.kind,
            operation: job.operation.clone(),
            key_id: job.key_id.clone(),
            epoch: job.epoch,
            step: asked.step.to_owned(),
            sequence: asked.sequence,
            provider: asked.provider_name(),
            model: asked.model.to_owned(),
            status: "ok".to_owned(),
            billed: Billed::Yes,
            usage,
            tier,
            usage_source: source,
            cost: self.around.prices.cost_in(tier, asked.model, &usage),
            price_version: self.around.prices.version().to_owned(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            provider_request_id: None,
            at: self.now(),
            credential: asked.target.credential.to_string(),
            memo: None,
        }
    }
}

/// Notes what a call said of the tenant's own key that it was made with, if it was.
pub(crate) async fn note_key(around: &Surroundings, key: Option<&Unlocked>, outcome: Result<(), &JobError>) {
    let Some(key) = key else { return };
    let heard = match outcome {
        Ok(()) => Heard::Answer,
        Err(error) if error.class == ErrorClass::Auth => Heard::Refusal(error),
        Err(_) => Heard::Nothing,
    };
    around.credentials.note(key, heard, around.stores.clock.now()).await;
}

/// What follows for a job whose call failed so: a tenant's own key that is refused may be replaced.
pub(crate) fn after_refusal(around: &Surroundings, key: Option<&Unlocked>, error: JobError) -> JobError {
    match key {
        Some(key) if error.class == ErrorClass::Auth => around.credentials.after_refusal(key, error),
        _ => error,
    }
}

/// What a call says of its target.
fn verdict<A>(concluded: &Result<A, JobError>) -> Result<(), &JobError> {
    concluded.as_ref().map(|_| ())
}

/// A call that is about to be made or recalled.
struct Asked<'a> {
    step: &'a str,
    sequence: u32,
    model: &'a str,
    target: Target,
    provider: Arc<dyn Provider>,
    call_id: CallId,
    request_hash: [u8; 32],
    /// The service tier that the request asks for.
    tier: Tier,
    /// See [`Step::may_go_elsewhere`].
    may_go_elsewhere: bool,
}

/// What an answer says besides itself.
struct Told {
    usage: Option<Usage>,
    request_id: Option<String>,
    tier: Option<Tier>,
}

fn told_of_chat(answer: &ChatAnswer) -> Told {
    let tier = answer.service_tier.as_deref().map(Tier::of_service_tier);
    Told { usage: answer.usage, request_id: answer.request_id.clone(), tier }
}

/// Tokens of a call as far as we can count them.
fn of_chat_answer(request: &ChatRequest, answer: Option<&ChatAnswer>) -> Usage {
    match answer {
        Some(answer) => estimate::of_answer(request, answer),
        None => estimate::of_chat(request, ""),
    }
}

fn word_of<'a>(body: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    body.get(member).and_then(Value::as_str)
}

impl Asked<'_> {
    fn provider_name(&self) -> String {
        self.provider.name().to_owned()
    }
}

/// Counts a call as being in flight for as long as it lives, also when its future is dropped.
struct InFlight<'a>(&'a AtomicU32);

impl<'a> InFlight<'a> {
    fn enter(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What was being done when a holder of the lock panicked is still whole: each critical section is one statement.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the metrics of one finished call, and of what it cost.
fn count(record: &CallRecord) {
    count_call(&record.provider, &record.model, &record.status, Duration::from_millis(record.duration_ms));
    count_money(record);
}

/// Tells the metrics of one finished call, whoever pays for it.
pub(crate) fn count_call(provider: &str, model: &str, status: &str, took: Duration) {
    let labels = [("provider", telemetry::provider(provider)), ("model", telemetry::model(model))];
    let [(_, provider), (_, model)] = labels.clone();
    metrics::counter!(telemetry::PROVIDER_CALLS, "provider" => provider, "model" => model, "status" => status.to_owned())
        .increment(1);
    metrics::histogram!(telemetry::PROVIDER_CALL_DURATION, &labels).record(took.as_secs_f64());
}

/// Tells the metrics of what a job paid for a call.
fn count_money(record: &CallRecord) {
    let (provider, model) = (telemetry::provider(&record.provider), telemetry::model(&record.model));
    let labels = [("provider", provider.clone()), ("model", model.clone())];
    for (kind, tokens) in [
        ("input", record.usage.tokens_in),
        ("output", record.usage.tokens_out),
        ("cached", record.usage.tokens_cached),
        ("reasoning", record.usage.tokens_reasoning),
        ("cache_write", record.usage.tokens_cache_write),
        ("audio_input", record.usage.tokens_audio_in),
        ("audio_output", record.usage.tokens_audio_out),
    ] {
        metrics::counter!(telemetry::PROVIDER_TOKENS, "provider" => provider.clone(), "model" => model.clone(), "type" => kind)
            .increment(tokens);
    }
    match record.cost {
        Some(cost) => telemetry::count_cost(provider, model, record.kind.as_str(), cost),
        None => metrics::counter!(telemetry::COST_UNKNOWN, &labels).increment(1),
    }
    if record.billed == Billed::Maybe {
        metrics::counter!(telemetry::BILLED_MAYBE, &labels).increment(1);
    }
}
