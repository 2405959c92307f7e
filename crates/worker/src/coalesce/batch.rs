//! One call for several jobs: whose inputs are in it, and what each job gets from it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use queue_core::{
    budget::Amount,
    cache::Key,
    error::JobError,
    ids::{CallId, Name},
    journal::Journal,
    ledger::{Billed, CallRecord, MemoBody, Nanousd, Usage, UsageSource},
    traces::Spot,
};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::share;
use crate::{
    admission::Alike,
    context::Surroundings,
    patience::until_available,
    provider::{CallError, EmbedAnswer},
    purse::Hold,
};

/// One job's part of a call.
pub(crate) struct Member {
    /// The texts that it needs vectors of.
    pub(crate) input: Vec<String>,
    /// Their tokens, as far as anyone can tell.
    pub(crate) tokens: Vec<u64>,
    /// Where their vectors are kept for others; nowhere if empty.
    pub(crate) keys: Vec<Key>,
    /// A place for each input of the job, with the vector where it was known already.
    pub(crate) known: Vec<Option<Vec<f32>>>,
    /// Its ledger row, but for what only the call tells.
    pub(crate) row: CallRecord,
    /// The row's id if the call fails.
    pub(crate) failed_id: CallId,
    /// What its answer is kept under.
    pub(crate) request_hash: [u8; 32],
    pub(crate) alike: Alike,
    /// What the job is claimed by.
    pub(crate) lane_target: Name,
    /// Calls of the job that want to be made or are under way.
    pub(crate) beside: u32,
    /// When the attempt must end.
    pub(crate) ends: Instant,
    /// Fires when nobody waits for it any more.
    pub(crate) stop: CancellationToken,
    /// Counts the job's calls that were sent.
    pub(crate) in_flight: Arc<AtomicU32>,
    /// Set once it was.
    pub(crate) flight: Option<Flight>,
    /// What is reserved for its share.
    pub(crate) hold: Option<Hold>,
    /// The span of its attempt, if that is recorded.
    pub(crate) trace: Option<Spot>,
    pub(crate) reply: oneshot::Sender<Delivery>,
}

impl Member {
    pub(super) fn tokens(&self) -> u64 {
        self.tokens.iter().sum()
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.stop.is_cancelled()
    }

    /// From here on its call may reach the provider.
    pub(super) fn sends(&mut self) {
        self.flight.get_or_insert_with(|| Flight::of(&self.in_flight));
        if let Some(hold) = &mut self.hold {
            hold.sends();
        }
    }

    /// Hands over how it ended. Where nobody waits any more, the row is written all the same, and the answer kept.
    pub(super) fn deliver(
        self,
        around: &Surroundings,
        result: Result<EmbedAnswer, JobError>,
        row: Option<CallRecord>,
        spared: u64,
    ) {
        // Where no call was made, what was reserved for it goes back.
        let hold = self.hold.filter(|_| row.is_some());
        let (aside_id, request_hash) = (self.failed_id, self.request_hash);
        let contents = Contents { result, row, spared, aside_id, hold, request_hash };
        let (journal, tasks) = (around.stores.journal.clone(), around.coalescer.tasks.clone());
        let delivery = Delivery { contents: Some(contents), journal, flight: self.flight, tasks };
        // What is not taken is dropped, and the drop writes it down.
        drop(self.reply.send(delivery));
    }
}

/// Counts a job's call for as long as its outcome is not taken.
pub(crate) struct Flight(Arc<AtomicU32>);

impl Flight {
    fn of(in_flight: &Arc<AtomicU32>) -> Self {
        in_flight.fetch_add(1, Ordering::SeqCst);
        Self(in_flight.clone())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How one job's part ended, and what it cost: whoever gets it writes the row down, and if nobody does, its drop does.
pub(crate) struct Delivery {
    contents: Option<Contents>,
    journal: Arc<dyn Journal>,
    flight: Option<Flight>,
    /// Of those that a worker waits for before it ends.
    tasks: TaskTracker,
}

/// What is in a delivery.
pub(crate) struct Contents {
    pub(crate) result: Result<EmbedAnswer, JobError>,
    /// `None`: no call was made.
    pub(crate) row: Option<CallRecord>,
    /// Tokens of inputs that others of the same call brought as well.
    pub(crate) spared: u64,
    /// The row's id if its answer cannot be used, and is asked for again.
    aside_id: CallId,
    /// What the share has reserved.
    pub(crate) hold: Option<Hold>,
    request_hash: [u8; 32],
}

impl Contents {
    /// The answer as it is kept, in the row that pays for it.
    pub(crate) fn keep_answer(&mut self) {
        if let (Ok(answer), Some(row)) = (&self.result, &mut self.row) {
            if !is_of_one_length(&answer.vectors) {
                row.call_id = self.aside_id;
                return;
            }
            match serde_json::to_vec(answer) {
                Ok(body) => row.memo = Some(MemoBody { request_hash: self.request_hash, body: body.into() }),
                Err(error) => tracing::error!(%error, "an answer is not kept: another attempt pays again"),
            }
        }
    }
}

impl Delivery {
    /// What is in it; from now on the caller's.
    pub(crate) fn take(mut self) -> Option<Contents> {
        self.contents.take()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let Some(mut contents) = self.contents.take() else { return };
        contents.keep_answer();
        let (Some(row), journal, flight) = (contents.row, self.journal.clone(), self.flight.take()) else { return };
        let hold = contents.hold;
        // Without a runtime the process ends, and this is a call like any that was under way then.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let write = async move {
                let _flight = flight;
                until_available("record", || journal.record(row.clone()), &CancellationToken::new()).await;
                if let Some(hold) = hold {
                    hold.commit(Amount::of(row.cost, &row.usage), row.at).await;
                }
            };
            self.tasks.spawn_on(write, &runtime);
        }
    }
}

/// Whether vectors can be compared with each other.
pub(crate) fn is_of_one_length(vectors: &[Vec<f32>]) -> bool {
    vectors.windows(2).all(|pair| pair[0].len() == pair[1].len())
}

/// The inputs of a call, each once, and whose they are.
pub(super) struct Batch {
    pub(super) input: Vec<String>,
    /// For each job the places of its inputs in `input`.
    places: Vec<Vec<usize>>,
    /// For each job the tokens of the inputs that nobody before it had.
    weights: Vec<u64>,
    /// For each job the tokens of the others.
    spared: Vec<u64>,
}

impl Batch {
    pub(super) fn of(members: &[Member]) -> Self {
        Self::of_inputs(members.iter().map(|member| (&member.input[..], &member.tokens[..])))
    }

    fn of_inputs<'a>(members: impl Iterator<Item = (&'a [String], &'a [u64])>) -> Self {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut batch = Self { input: vec![], places: vec![], weights: vec![], spared: vec![] };
        for (input, tokens) in members {
            let (mut places, mut weight, mut spared) = (Vec::with_capacity(input.len()), 0, 0);
            for (text, tokens) in input.iter().zip(tokens) {
                let known = seen.get(text.as_str()).copied();
                *(if known.is_some() { &mut spared } else { &mut weight }) += tokens;
                places.push(known.unwrap_or_else(|| {
                    seen.insert(text, batch.input.len());
                    batch.input.push(text.clone());
                    batch.input.len() - 1
                }));
            }
            batch.places.push(places);
            batch.weights.push(weight);
            batch.spared.push(spared);
        }
        batch
    }

    /// What it will use, where its provider does not say.
    pub(super) fn usage(&self) -> Usage {
        Usage { tokens_in: self.weights.iter().sum(), ..Usage::default() }
    }
}

/// The id under which a provider sees the call: that of the job's own call, or one made of all of theirs.
pub(super) fn id_of(members: &[Member]) -> CallId {
    match members {
        [only] => only.row.call_id,
        members => {
            let ids: Vec<u8> = members.iter().flat_map(|member| *member.row.call_id.0.as_bytes()).collect();
            CallId(Uuid::new_v5(&Uuid::NAMESPACE_OID, &ids))
        }
    }
}

/// What is known of a call that has ended.
pub(super) struct Finished<'a> {
    pub(super) around: &'a Surroundings,
    pub(super) id: CallId,
    pub(super) model: &'a str,
    pub(super) took: Duration,
}

impl Finished<'_> {
    /// What all rows of the call have in common: with it one finds the jobs that one request was for.
    fn fill(&self, row: &mut CallRecord, request_id: Option<&str>, jobs: usize) {
        row.duration_ms = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        row.at = self.around.stores.clock.now();
        row.provider_request_id = match request_id {
            Some(id) => Some(id.to_owned()),
            // It got no id of the provider's: the one that it was sent with.
            None => (jobs > 1).then(|| self.id.to_string()),
        };
    }

    /// Gives each job its vectors and its share. Returns what may be kept for others.
    pub(super) fn succeed(&self, members: Vec<Member>, batch: &Batch, answer: EmbedAnswer) -> Vec<(Key, Vec<f32>)> {
        let (total, source) = match answer.usage {
            Some(usage) => (usage, UsageSource::Provider),
            None => (batch.usage(), UsageSource::Estimated),
        };
        let cost = self.around.prices.cost(self.model, &total);
        let shares = share::usages(total, &batch.weights).into_iter().zip(share::costs(cost, &batch.weights));
        let jobs = members.len();
        let mut made = Vec::new();
        let parts = members.into_iter().zip(shares).zip(batch.places.iter().zip(&batch.spared));
        for ((mut member, (usage, cost)), (places, spared)) in parts {
            let vector = |place: &usize| answer.vectors.get(*place).cloned();
            made.extend(std::mem::take(&mut member.keys).into_iter().zip(places.iter().filter_map(vector)));
            let mut missing = places.iter().filter_map(vector);
            let known = std::mem::take(&mut member.known).into_iter();
            let own = EmbedAnswer {
                vectors: known.filter_map(|known| known.or_else(|| missing.next())).collect(),
                model: answer.model.clone(),
                usage: answer.usage.map(|_| usage),
                request_id: answer.request_id.clone(),
                told: answer.told,
            };
            let mut row = member.row.clone();
            (row.usage, row.usage_source, row.cost) = (usage, source, cost);
            self.fill(&mut row, answer.request_id.as_deref(), jobs);
            member.deliver(self.around, Ok(own), Some(row), *spared);
        }
        made
    }

    /// Tells each job why it has no vectors (`told`), and gives it its share of what the failure cost.
    pub(super) fn fail(&self, members: Vec<Member>, batch: &Batch, failure: &CallError, told: &JobError) {
        let (total, source) = match (failure.billed, failure.usage) {
            // Nothing was used, which nobody had to count.
            (Billed::No, _) => (Usage::default(), UsageSource::Provider),
            (_, Some(usage)) => (usage, failure.usage_source),
            (_, None) => (batch.usage(), UsageSource::Estimated),
        };
        let cost = match failure.billed {
            Billed::No => Some(Nanousd(0)),
            Billed::Yes | Billed::Maybe => self.around.prices.cost(self.model, &total),
        };
        let shares = share::usages(total, &batch.weights).into_iter().zip(share::costs(cost, &batch.weights));
        let jobs = members.len();
        for (member, (usage, cost)) in members.into_iter().zip(shares) {
            let mut row = member.row.clone();
            row.call_id = member.failed_id;
            row.status = failure.error.class.as_str().to_owned();
            row.billed = failure.billed;
            (row.usage, row.usage_source, row.cost) = (usage, source, cost);
            self.fill(&mut row, failure.request_id.as_deref(), jobs);
            member.deliver(self.around, Err(told.clone()), Some(row), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_several_bring_is_asked_for_once_and_paid_by_the_first() {
        let parts = [(vec!["a", "b", "a"], vec![3, 4, 3]), (vec!["b", "c"], vec![4, 5]), (vec!["a"], vec![3])];
        let owned: Vec<(Vec<String>, Vec<u64>)> =
            parts.into_iter().map(|(texts, tokens)| (texts.into_iter().map(str::to_owned).collect(), tokens)).collect();
        let batch = Batch::of_inputs(owned.iter().map(|(input, tokens)| (&input[..], &tokens[..])));
        assert_eq!(batch.input, ["a", "b", "c"]);
        assert_eq!(batch.places, [vec![0, 1, 0], vec![1, 2], vec![0]]);
        assert_eq!(batch.weights, [7, 5, 0]);
        assert_eq!(batch.spared, [3, 4, 3]);
        assert_eq!(batch.usage().tokens_in, 12);
    }
}
