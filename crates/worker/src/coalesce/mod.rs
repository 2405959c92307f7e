//! Embedding jobs that travel together: what many jobs ask of one model goes out as few calls.
//!
//! A *lane* is a target and a length of vectors. Jobs join it; it sends a call when that is full, or when the first of them
//! has waited for [`Coalescing::wait`], or as soon as one of its [`Coalescing::calls_max`] calls has ended: under load, calls
//! are full without anybody waiting on purpose.
//!
//! **Each job has its own ledger row and its own kept answer**, under the id of its own call: nothing that makes a job pay once
//! depends on who travelled with it. The rows of one call share its `provider_request_id`, and their tokens and costs sum up to
//! the call's, to the last unit (`share.rs`). A job that ends before the call is sent drops out of it. One that ends later has
//! its share written down all the same; the connection is dropped when nobody is left.
//!
//! A call that is refused for what is in it is halved until the one to blame is alone. One that fails in any other way fails
//! for all: each job spends the one attempt that it would have spent alone.

mod batch;
mod share;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use queue_core::{
    credentials::Unlocked,
    error::{ErrorClass, JobError},
    ids::CallId,
    ledger::Billed,
    limiter::{LIMITED, PARKED},
    route::Target,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::batch::{Batch, Finished, id_of};
pub(crate) use self::batch::{Contents, Delivery, Member, is_of_one_length};
use crate::{
    admission::{Ended, Estimate, Pass, Wish},
    breaker::{Breakers, Entered},
    context::{Surroundings, after_refusal, count_call, note_key},
    provider::{Call, CallError, EmbedAnswer, EmbedRequest, Provider},
    traced,
};

/// Most lanes that are remembered; beyond it, those that nobody uses are dropped.
const LANES_MAX: usize = 1_024;
/// How long calls may take to be written down when the process ends: they were stopped before.
const FINISH_MAX: Duration = Duration::from_secs(3);

/// How the embedding jobs of one provider travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// Most inputs of one call. A job with more makes several.
    pub inputs_max: usize,
    /// Most tokens of one call, as far as they can be estimated.
    pub tokens_max: u64,
    /// Longest wait for company.
    pub wait: Duration,
    /// Calls of a lane that this process has under way at once. While there are as many, inputs gather.
    pub calls_max: usize,
    /// Whether jobs travel together at all.
    pub together: bool,
}

impl Default for Coalescing {
    fn default() -> Self {
        Self { inputs_max: 256, tokens_max: 250_000, wait: Duration::from_millis(20), calls_max: 64, together: true }
    }
}

impl Coalescing {
    /// Each job by itself, and at once.
    pub fn alone() -> Self {
        Self { inputs_max: 2_048, wait: Duration::ZERO, calls_max: usize::MAX >> 4, together: false, ..Self::default() }
    }

    /// Inputs of these tokens in runs that one call takes; an input that is too large by itself is its provider's to refuse.
    pub(crate) fn runs(&self, tokens: &[u64]) -> Vec<Range<usize>> {
        let (mut runs, mut from, mut sum) = (Vec::new(), 0, 0_u64);
        for (at, more) in tokens.iter().enumerate() {
            if at > from && (at - from >= self.inputs_max || sum.saturating_add(*more) > self.tokens_max) {
                runs.push(from..at);
                (from, sum) = (at, 0);
            }
            sum = sum.saturating_add(*more);
        }
        runs.push(from..tokens.len());
        runs
    }
}

/// What the jobs of a lane want: vectors of one target and one length.
type Wanted = (Target, Option<u32>);

/// Every lane of this process.
pub struct Coalescer {
    usual: Coalescing,
    of_providers: BTreeMap<String, Coalescing>,
    lanes: Mutex<HashMap<Wanted, Arc<Lane>>>,
    pub(super) tasks: TaskTracker,
}

impl Coalescer {
    /// `usual` holds for providers that are not in `of_providers`.
    pub fn new(usual: Coalescing, of_providers: BTreeMap<String, Coalescing>) -> Self {
        Self { usual, of_providers, lanes: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// How jobs of a provider travel.
    pub(crate) fn of(&self, provider: &str) -> Coalescing {
        self.of_providers.get(provider).copied().unwrap_or(self.usual)
    }

    /// Adds a job's inputs to a coming call. Its outcome comes over the member's `reply`.
    pub(crate) fn join(
        &self,
        around: &Surroundings,
        breakers: &Arc<Breakers>,
        provider: &Arc<dyn Provider>,
        target: &Target,
        dimensions: Option<u32>,
        member: Member,
    ) {
        let lane = {
            // Lanes are inserted and dropped whole: what a panic left is a map of lanes.
            let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.len() >= LANES_MAX {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            let settings = self.of(target.provider.as_str());
            let new = || Lane {
                settings,
                around: around.clone(),
                breakers: breakers.clone(),
                provider: provider.clone(),
                target: target.clone(),
                dimensions,
                waiting: Mutex::default(),
                full: Notify::new(),
                calls: Arc::new(Semaphore::new(settings.calls_max.clamp(1, Semaphore::MAX_PERMITS))),
            };
            lanes.entry((target.clone(), dimensions)).or_insert_with(|| Arc::new(new())).clone()
        };
        if lane.push(member) {
            let tasks = self.tasks.clone();
            self.tasks.spawn(lane.drive(tasks));
        }
    }

    /// Waits for calls to be written down that nobody waits for any more.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        if tokio::time::timeout(FINISH_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(calls = self.tasks.len(), "embedding calls were under way when the worker ended");
        }
    }
}

/// The jobs that want vectors of one length from one target.
struct Lane {
    settings: Coalescing,
    around: Surroundings,
    breakers: Arc<Breakers>,
    provider: Arc<dyn Provider>,
    target: Target,
    dimensions: Option<u32>,
    waiting: Mutex<Waiting>,
    /// Told when there is enough for a whole call.
    full: Notify,
    calls: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    members: VecDeque<(Instant, Member)>,
    inputs: usize,
    tokens: u64,
    /// A task looks after the lane.
    driven: bool,
}

impl Waiting {
    fn pop(&mut self) -> Option<Member> {
        let (_, member) = self.members.pop_front()?;
        self.inputs -= member.input.len();
        self.tokens -= member.tokens();
        Some(member)
    }
}

impl Lane {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Counts and members change together, by code that cannot panic between.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self, waiting: &Waiting) -> bool {
        let Coalescing { inputs_max, tokens_max, together, .. } = self.settings;
        !together || waiting.inputs >= inputs_max || waiting.tokens >= tokens_max
    }

    /// Returns whether the caller must start a task that looks after the lane.
    fn push(&self, member: Member) -> bool {
        let mut waiting = self.waiting();
        waiting.inputs += member.input.len();
        waiting.tokens += member.tokens();
        waiting.members.push_back((Instant::now(), member));
        if self.is_full(&waiting) {
            self.full.notify_one();
        }
        !std::mem::replace(&mut waiting.driven, true)
    }

    /// Sends calls until nobody waits.
    async fn drive(self: Arc<Self>, tasks: TaskTracker) {
        while self.gathers().await {
            // The semaphore is never closed. While all calls are under way, inputs gather.
            let Ok(permit) = self.calls.clone().acquire_owned().await else { return };
            let members = self.take();
            if !members.is_empty() {
                tasks.spawn(self.clone().send(members, permit));
            }
        }
    }

    /// Waits until a call is full, or the first member has waited long enough. `false`: nobody waits, and whoever comes next
    /// starts another task.
    async fn gathers(&self) -> bool {
        loop {
            let due = {
                let mut waiting = self.waiting();
                let Some((since, _)) = waiting.members.front() else {
                    waiting.driven = false;
                    return false;
                };
                let due = *since + self.settings.wait;
                if self.is_full(&waiting) || due <= Instant::now() {
                    return true;
                }
                due
            };
            tokio::select! {
                () = self.full.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// The members of one call: those that came first, as many as fit.
    fn take(&self) -> Vec<Member> {
        let Coalescing { inputs_max, tokens_max, together, .. } = self.settings;
        let (mut members, mut inputs, mut tokens) = (Vec::new(), 0, 0_u64);
        let mut waiting = self.waiting();
        while let Some((_, next)) = waiting.members.front() {
            let (more_inputs, more_tokens) = (next.input.len(), next.tokens());
            let fits =
                together && inputs + more_inputs <= inputs_max && tokens.saturating_add(more_tokens) <= tokens_max;
            if !(fits || members.is_empty()) {
                break;
            }
            let Some(member) = waiting.pop() else { break };
            if member.is_wanted() {
                inputs += more_inputs;
                tokens += more_tokens;
                members.push(member);
            }
        }
        members
    }

    /// Makes the call, and the smaller ones that it falls apart into.
    async fn send(self: Arc<Self>, members: Vec<Member>, _permit: OwnedSemaphorePermit) {
        let mut parts = vec![members];
        while let Some(part) = parts.pop() {
            let part: Vec<Member> = part.into_iter().filter(Member::is_wanted).collect();
            if let Some([first, second]) = self.call(part).await {
                parts.extend([second, first]);
            }
        }
    }

    /// Makes one call, and delivers what came of it; or returns its halves, where each is to be asked for by itself.
    async fn call(&self, members: Vec<Member>) -> Option<[Vec<Member>; 2]> {
        let stop = CancellationToken::new();
        self.around.credentials.catch_up().await;
        let key = match self.around.credentials.unlock(&self.target) {
            Ok(key) => key,
            Err(keyless) => {
                self.breakers.keyless.rest(&self.target, &keyless).await;
                self.refuse(members, &keyless);
                return None;
            }
        };
        let admitted = tokio::select! {
            admitted = self.admit(&members, &stop) => admitted,
            () = nobody_is_left(&members) => return None,
        };
        let leave = match admitted {
            Ok(leave) => leave,
            Err(refused) => {
                self.refuse(members, &refused);
                return None;
            }
        };
        // The last moment at which one may drop out. If nobody is left, what was reserved goes back.
        let members: Vec<Member> = members.into_iter().filter(Member::is_wanted).collect();
        if members.is_empty() {
            leave.entered.give_back().await;
            return None;
        }
        self.make(members, leave, key, &stop).await
    }

    /// Asks breaker and limiter, once for all of them.
    async fn admit(&self, members: &[Member], stop: &CancellationToken) -> Result<Leave, JobError> {
        let name = self.target.name();
        let jobs = members.len().max(1) as f64;
        let entered = self.breakers.enter(&self.target).await?;
        let wish = Wish {
            target: &self.target,
            lane_target: &name,
            // Of the first: if it is told to come later, it is again the first when it comes.
            call: members.first().map(|first| first.row.call_id).unwrap_or_else(|| id_of(members)),
            estimate: Estimate { tokens_in: members.iter().map(Member::tokens).sum(), ..Estimate::default() },
            beside: members.iter().map(|member| f64::from(member.beside)).fold(1.0, f64::max) / jobs,
            left: self.left(members),
            keeps_place: true,
            stop,
        };
        match self.around.gate.admit(wish).await {
            Ok(pass) => Ok(Leave { entered, pass }),
            Err(refused) => {
                entered.give_back().await;
                Err(refused)
            }
        }
    }

    /// As long as any of them may still go on: one that may not is stopped by itself, and leaves.
    fn left(&self, members: &[Member]) -> Duration {
        let now = std::time::Instant::now();
        members.iter().map(|member| member.ends.saturating_duration_since(now)).max().unwrap_or_default()
    }

    fn refuse(&self, members: Vec<Member>, refused: &JobError) {
        let name = self.target.name();
        for member in members {
            let mut error = refused.clone();
            if error.code == PARKED && member.lane_target != name {
                LIMITED.clone_into(&mut error.code);
            }
            member.deliver(&self.around, Err(error), None, 0);
        }
    }

    async fn make(
        &self,
        mut members: Vec<Member>,
        leave: Leave,
        key: Option<Unlocked>,
        stop: &CancellationToken,
    ) -> Option<[Vec<Member>; 2]> {
        let Leave { entered, mut pass } = leave;
        let batch = Batch::of(&members);
        let (model, input) = (self.target.model.to_string(), batch.input.clone());
        let request = EmbedRequest { model, input, dimensions: self.dimensions };
        let id = id_of(&members);
        let began = Instant::now();
        pass.sends();
        members.iter_mut().for_each(Member::sends);
        let span = traced::embed(&members, &*self.provider, &request.model);
        let outcome = self.ask(&request, id, &members, key.as_ref(), stop).await;
        traced::embed_ended(span, &outcome);
        let took = began.elapsed();
        let ended = match &outcome {
            Ok(answer) => Ended::well(answer.usage, answer.told, took),
            Err(failure) => Ended::badly(failure, took),
        };
        let failed = outcome.as_ref().err().map(|failure| failure.error.clone());
        let status = failed.as_ref().map_or("ok", |error| error.class.as_str());
        count_call(self.provider.name(), &request.model, status, took);
        let alike = members.first().map(|first| first.alike.clone());
        let finished = Finished { around: &self.around, id, model: &request.model, took };
        let (mut made, mut halves) = (vec![], None);
        if failed.is_some() {
            // Before the jobs hear of it: whether they wait for another key depends on it.
            note_key(&self.around, key.as_ref(), failed.as_ref().map_or(Ok(()), Err)).await;
        }
        // What was paid for is handed over before breaker and limiter hear of it.
        match outcome {
            Ok(answer) => made = finished.succeed(members, &batch, answer),
            Err(failure) if members.len() > 1 && is_for_its_contents(&failure) => {
                let second = members.split_off(members.len().div_ceil(2));
                halves = Some([members, second]);
            }
            Err(failure) => {
                let told = after_refusal(&self.around, key.as_ref(), failure.error.clone());
                finished.fail(members, &batch, &failure, &told);
            }
        }
        let settle = async {
            if let Some(alike) = alike {
                self.around.gate.end(pass, &alike, ended).await;
            }
        };
        tokio::join!(entered.end(failed.as_ref().map_or(Ok(()), Err)), settle);
        if failed.is_none() {
            note_key(&self.around, key.as_ref(), Ok(())).await;
        }
        self.around.caches.keep_vectors(made.iter().map(|(key, vector)| (*key, &vector[..]))).await;
        halves
    }

    /// Asks the provider; the connection is dropped when nobody is left.
    async fn ask(
        &self,
        request: &EmbedRequest,
        id: CallId,
        members: &[Member],
        key: Option<&Unlocked>,
        stop: &CancellationToken,
    ) -> Result<EmbedAnswer, CallError> {
        let key = key.map(|key| &key.key);
        let call = Call { id, cancel: stop.clone(), total: self.left(members), key, on_text: &|_| {} };
        let mut asking = std::pin::pin!(self.provider.embed(request, call));
        let outcome = tokio::select! {
            outcome = &mut asking => outcome,
            () = nobody_is_left(members) => {
                stop.cancel();
                asking.await
            }
        };
        outcome.and_then(|answer| whole(answer, request.input.len()))
    }
}

/// Leave to make a call.
struct Leave {
    entered: Entered,
    pass: Pass,
}

async fn nobody_is_left(members: &[Member]) {
    for member in members {
        member.stop.cancelled().await;
    }
}

/// An answer with as many vectors as inputs; what else came was paid for, and is of no use to anybody.
fn whole(answer: EmbedAnswer, inputs: usize) -> Result<EmbedAnswer, CallError> {
    if answer.vectors.len() == inputs {
        return Ok(answer);
    }
    let message = format!("{} vectors for {inputs} inputs", answer.vectors.len());
    let mut failure = CallError::costly(ErrorClass::InvalidOutput, "vectors", message, Billed::Yes, None);
    if let Some(usage) = answer.usage {
        failure = failure.told(usage);
    }
    Err(CallError { request_id: answer.request_id, ..failure })
}

/// Whether the call was refused for one of its inputs, or for being too large: then others of it may do.
fn is_for_its_contents(failure: &CallError) -> bool {
    use ErrorClass as C;
    let class = failure.error.class;
    failure.billed == Billed::No
        && matches!(class, C::BadRequest | C::BatchSplit | C::Overflow | C::TooBigForLimit | C::Filtered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_many_inputs_makes_calls_that_fit() {
        let settings = Coalescing { inputs_max: 3, tokens_max: 100, ..Coalescing::default() };
        let one = |end| std::iter::once(0..end).collect::<Vec<_>>();
        assert_eq!(settings.runs(&[10; 3]), one(3));
        assert_eq!(settings.runs(&[10; 7]), [0..3, 3..6, 6..7]);
        assert_eq!(settings.runs(&[60, 60, 40, 90]), [0..1, 1..3, 3..4]);
        assert_eq!(settings.runs(&[500, 1, 500]), [0..1, 1..2, 2..3], "too large alone is still asked for");
        assert_eq!(settings.runs(&[]), one(0));
    }
}
