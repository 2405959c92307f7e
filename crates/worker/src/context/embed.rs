//! Vectors: kept ones first, then those that others have paid for, and a call for the rest.

use std::sync::atomic::Ordering;

use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    cache::Key,
    error::{ErrorClass, JobError},
    ledger::{Billed, CallRecord, SavedBy, Tier, Usage, UsageSource},
    telemetry, traces,
};
use tokio::sync::oneshot;

use super::{Asked, Durability, InFlight, JobContext, Told, count_money, vectors::Way};
use crate::{
    admission::{Alike, Estimate, of_inputs},
    coalesce::{Contents, Member, is_of_one_length},
    fallback::{Step, most_hopeful},
    provider::{EmbedAnswer, EmbedRequest, estimate},
};

impl JobContext {
    /// Asks for vectors, or finds those that an earlier attempt or another job paid for.
    pub async fn embed(
        &self,
        step: &str,
        sequence: u32,
        model: &str,
        input: Vec<String>,
        dimensions: Option<u32>,
        durability: Durability,
    ) -> Result<EmbedAnswer, JobError> {
        let request = EmbedRequest { model: model.to_owned(), input, dimensions };
        let called = Step { name: step, call: step.to_owned(), sequence, may_go_elsewhere: false };
        let asked = self.ask(&called, model, &request)?;
        let extract =
            |answer: &EmbedAnswer| Told { usage: answer.usage, request_id: answer.request_id.clone(), tier: None };
        if let Some(answer) = self.recall(&asked, extract, |_| estimate::of_embed(&request)) {
            return Ok(answer);
        }
        let (request, tokens) = of_inputs(request).await;
        let runs = self.around.coalescer.of(asked.target.provider.as_str()).runs(&tokens);
        if runs.len() < 2 {
            return self.embed_once(&asked, request, tokens, durability).await;
        }
        // Each to its end: a part that is dropped would throw away what it is paying for.
        let parts = runs.into_iter().enumerate().map(|(number, run)| {
            let input = request.input[run].to_vec();
            self.embed_part(format!("{step}/part{number:04}"), sequence, model, input, dimensions)
        });
        let (mut answers, mut failures) = (vec![], vec![]);
        for ended in futures::future::join_all(parts).await {
            match ended {
                Ok(answer) => answers.push(answer),
                Err(failure) => failures.push(failure),
            }
        }
        if !failures.is_empty() {
            return Err(most_hopeful(failures));
        }
        let mut whole = EmbedAnswer { usage: Some(Usage::default()), ..EmbedAnswer::default() };
        for answer in answers {
            whole.vectors.extend(answer.vectors);
            whole.usage = whole.usage.zip(answer.usage).map(|(sum, more)| sum.plus(more));
            (whole.model, whole.request_id) = (answer.model, answer.request_id);
        }
        Ok(whole)
    }

    /// Boxed: a part is a whole question, which it is part of.
    fn embed_part<'a>(
        &'a self,
        step: String,
        sequence: u32,
        model: &'a str,
        input: Vec<String>,
        dimensions: Option<u32>,
    ) -> BoxFuture<'a, Result<EmbedAnswer, JobError>> {
        async move { self.embed(&step, sequence, model, input, dimensions, Durability::Now).await }.boxed()
    }

    /// What one call can bring. Where kept vectors are of another length than new ones, the model behind the name has changed
    /// since: they are forgotten, and all are asked for.
    async fn embed_once(
        &self,
        asked: &Asked<'_>,
        request: EmbedRequest,
        tokens: Vec<u64>,
        durability: Durability,
    ) -> Result<EmbedAnswer, JobError> {
        let caches = &self.around.caches;
        let keys = caches.vector_keys(&self.job().tenant, &asked.target, request.dimensions, &request.input);
        let known = caches.vectors(&keys, request.dimensions).await;
        let again = known.iter().any(Option::is_some).then(|| (request.clone(), tokens.clone(), keys.clone()));
        let answer = self.embed_missing(asked, request, tokens, (keys, known), durability).await?;
        let Some((request, tokens, keys)) = again.filter(|_| !is_of_one_length(&answer.vectors)) else {
            return Ok(answer);
        };
        tracing::warn!(
            model = asked.model,
            "kept vectors are of another length than new ones, and are asked for again"
        );
        caches.forget_vectors(&keys).await;
        self.embed_missing(asked, request, tokens, (keys, vec![]), durability).await
    }

    /// The vectors that are known, and a call for the others. `keys` and what is `known` under them are in the order of the
    /// inputs.
    async fn embed_missing(
        &self,
        asked: &Asked<'_>,
        request: EmbedRequest,
        mut tokens: Vec<u64>,
        (mut keys, mut known): (Vec<Key>, Vec<Option<Vec<f32>>>),
        durability: Durability,
    ) -> Result<EmbedAnswer, JobError> {
        let EmbedRequest { mut input, dimensions, .. } = request;
        known.resize(input.len(), None);
        let found = known.iter().flatten().count();
        if found > 0 {
            metrics::counter!(telemetry::CACHE_HITS, "cache" => "embedding").increment(found as u64);
            let saved =
                known.iter().zip(&tokens).filter(|(vector, _)| vector.is_some()).map(|(_, tokens)| tokens).sum();
            self.note_saved(asked, SavedBy::Cache, Usage { tokens_in: saved, ..Usage::default() }, Tier::Standard);
            let mut missing = known.iter().map(Option::is_none);
            input.retain(|_| missing.next().unwrap_or(true));
            let mut missing = known.iter().map(Option::is_none);
            tokens.retain(|_| missing.next().unwrap_or(true));
            let mut missing = known.iter().map(Option::is_none);
            keys.retain(|_| missing.next().unwrap_or(true));
        }
        let mut leading = None;
        if !(input.is_empty() || keys.is_empty()) {
            let wanted: u64 = tokens.iter().sum();
            match self.way_to_vectors(&keys, wanted, dimensions).await {
                Way::Ask(way) => leading = Some(way),
                Way::Found(vectors) => {
                    metrics::counter!(telemetry::CACHE_HITS, "cache" => "singleflight").increment(keys.len() as u64);
                    let usage = Usage { tokens_in: wanted, ..Usage::default() };
                    self.note_saved(asked, SavedBy::Singleflight, usage, Tier::Standard);
                    let mut vectors = vectors.into_iter();
                    known.iter_mut().filter(|known| known.is_none()).for_each(|known| *known = vectors.next());
                    input.clear();
                }
            }
        }
        if input.is_empty() {
            self.note_served_by(asked);
            let vectors = known.into_iter().flatten().collect();
            let (model, usage) = (asked.model.to_owned(), Some(Usage::default()));
            return Ok(EmbedAnswer { vectors, model, usage, ..EmbedAnswer::default() });
        }
        let (asked_for, missing) = (keys.clone(), places_of_missing(&known));
        let expected = Estimate { tokens_in: tokens.iter().sum(), ..Estimate::default() };
        // Vectors of two models cannot be compared: nobody else is asked.
        let hold = self.pay(asked, expected, true).await?;
        let _wished = InFlight::enter(&self.wished);
        // Fires also when this future is dropped: then nobody waits for the call any more.
        let stop = self.stop.child_token();
        let _gone = stop.clone().drop_guard();
        let (reply, outcome) = oneshot::channel();
        let tried = self.tries.fetch_add(1, Ordering::SeqCst);
        let member = Member {
            input,
            tokens,
            keys,
            known,
            row: self.record_of(
                asked,
                asked.call_id,
                std::time::Duration::ZERO,
                (Usage::default(), UsageSource::Provider, Tier::Standard),
            ),
            failed_id: CallRecord::id_of_failure(asked.call_id, self.job().epoch, tried),
            request_hash: asked.request_hash,
            alike: Alike::of(self.job(), asked.model),
            lane_target: self.job().target.clone(),
            beside: self.wished.load(Ordering::SeqCst),
            ends: self.ends,
            stop,
            in_flight: self.in_flight.clone(),
            flight: None,
            hold: Some(hold),
            trace: traces::here(),
            reply,
        };
        self.around.coalescer.join(&self.around, &self.breakers, &asked.provider, &asked.target, dimensions, member);
        let delivered = outcome.await.ok().and_then(crate::coalesce::Delivery::take);
        let Some(contents) = delivered else {
            let message = "the call was stopped before it was made";
            return Err(JobError::new(ErrorClass::Internal, "cancelled", message));
        };
        let answer = self.settle_share(asked, contents, durability).await;
        if let (Ok(answer), Some(leading)) = (&answer, leading) {
            let made = missing.iter().filter_map(|at| answer.vectors.get(*at).cloned()).collect();
            leading.land(&self.around.caches, &asked_for, made).await;
        }
        answer
    }

    /// Writes this job's share of a call down.
    async fn settle_share(
        &self,
        asked: &Asked<'_>,
        mut contents: Contents,
        durability: Durability,
    ) -> Result<EmbedAnswer, JobError> {
        contents.keep_answer();
        let Contents { mut result, row, spared, hold, .. } = contents;
        if let Err(refused) = &mut result
            && (row.is_none() || refused.class == ErrorClass::Credential)
        {
            self.note_sleep(std::slice::from_ref(&asked.target), refused);
        }
        if spared > 0 {
            self.note_saved(asked, SavedBy::Coalesced, Usage { tokens_in: spared, ..Usage::default() }, Tier::Standard);
        }
        if let Some(row) = row {
            count_money(&row);
            // What cost nothing can wait for the settle.
            let durability = if row.billed == Billed::No { Durability::WithSettle } else { durability };
            self.keep(row, durability, hold).await;
        }
        if result.is_ok() {
            self.note_served_by(asked);
        }
        result
    }
}

fn places_of_missing(known: &[Option<Vec<f32>>]) -> Vec<usize> {
    known.iter().enumerate().filter(|(_, vector)| vector.is_none()).map(|(at, _)| at).collect()
}
