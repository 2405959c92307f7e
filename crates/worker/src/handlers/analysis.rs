//! `analysis`: a document in many calls, or many items in few. Cut or pack it into chunks, ask about each, join the
//! answers; every call is a step whose answer is kept, so that a re-run goes on where the last attempt stopped.

mod chunks;
mod fence;
mod items;
mod pack;
mod reduce;
mod run;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use queue_core::{
    error::{ErrorClass, JobError},
    fallback::Chain,
    payload::analysis::{Analysis as Payload, Strategy, fill},
};
use serde::Serialize;
use serde_json::Value;

use self::{chunks::Chunk, fence::Fence, run::Run};
use super::{embedding::Vectors, structured::MAX_CALLS};
use crate::context::{Handler, JobContext};

pub(super) struct Analysis;

#[derive(Serialize)]
struct Findings<'a> {
    output: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    map: Option<&'a [Part]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<items::Outcome<'a>>>,
    chunks: usize,
    calls: u32,
    model: &'a str,
    provider: Option<String>,
    /// Where other models might have answered: how many answers each gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    served_by: Option<BTreeMap<String, u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embeddings: Option<Vectors<'a>>,
}

#[async_trait]
impl Handler for Analysis {
    async fn run(&self, cx: &JobContext) -> Result<Bytes, JobError> {
        let payload = Arc::new(Payload::read(super::text_of(cx.payload())?).map_err(super::unreadable)?);
        let model = payload.model.as_deref().or_else(|| cx.default_model()).unwrap_or_default().to_owned();
        let plan = chunks::cut(&payload, &model, cx.answer_max(&model)).await?;
        let chain = match cx.chain(&model) {
            own if own.links.is_empty() => Chain::of(model.as_str(), payload.fallback.clone()),
            own => own,
        };
        let run = Run::new(cx, &payload, &plan, &chain)?;
        let parts = map(&run).await?;
        let output = reduce::join(&run, &parts).await?;
        let vectors = run.embed().await?;
        let is_document = payload.items.is_empty();
        let calls = if is_document { vec![] } else { cx.calls_so_far().await? };
        let items = (!is_document).then(|| items::outcomes(&run, &payload, &parts, &calls));
        super::encoded(&Findings {
            output,
            map: is_document.then_some(parts.as_slice()),
            items,
            chunks: plan.chunks.len(),
            calls: run.calls.made(),
            model: &model,
            provider: cx.provider_of(&model),
            served_by: Some(cx.served()).filter(|_| !chain.links.is_empty()),
            embeddings: vectors.as_ref().map(|(name, vectors)| Vectors {
                model: name,
                provider: cx.provider_of(name),
                dimensions: vectors.first().map_or(0, Vec::len),
                vectors,
            }),
        })
    }
}

/// The answer to one chunk, or why there is none, with the chunk's place in the document.
#[derive(Serialize)]
struct Part {
    index: usize,
    start: usize,
    end: usize,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Output(Value),
    Error(JobError),
}

impl Part {
    fn of(chunk: &Chunk, answer: Answer) -> Self {
        Self { index: chunk.index, start: chunk.start, end: chunk.end, answer }
    }

    fn output(&self) -> Option<&Value> {
        match &self.answer {
            Answer::Output(output) => Some(output),
            Answer::Error(_) => None,
        }
    }
}

/// Asks about each chunk: about the first alone, so that the others find its prefix in the provider's cache, then about
/// the rest side by side. Items that share a call count as one. A refining job asks about the first chunk only, the
/// others come in with the refining.
async fn map(run: &Run<'_>) -> Result<Vec<Part>, JobError> {
    let wanted = if run.payload.reduce.strategy == Strategy::Refine { 1 } else { run.packs.len() };
    let packs = &run.packs[..wanted.min(run.packs.len())];
    let fence = Fence::around("document", [run.payload.text.as_str()].into_iter());
    let failed = Losses::default();
    let Some((first, rest)) = packs.split_first() else { return Ok(vec![]) };
    let mapping = Mapping { run, fence: &fence, losses: &failed, of: packs.iter().map(Vec::len).sum() };
    let mut parts = pack::answers(&mapping, first.clone()).await?;
    // Gathered first: inside a stream the compiler cannot see that these futures are `Send`.
    let calls: Vec<BoxFuture<'_, _>> = rest.iter().map(|pack| pack::answers(&mapping, pack.clone())).collect();
    parts.extend(run.side_by_side(calls).await?.into_iter().flatten());
    parts.sort_by_key(|part| (part.index, part.start));
    Ok(parts)
}

/// What every call about a chunk needs.
struct Mapping<'a> {
    run: &'a Run<'a>,
    fence: &'a Fence,
    losses: &'a Losses,
    of: usize,
}

fn step_of(chunk: &Chunk) -> String {
    format!("map/{:04}", chunk.index)
}

/// How often a chunk that does not fit is halved: an estimate that is wrong by more than 16 times is another mistake.
const SPLITS_MAX: u32 = 4;

/// The answer about a chunk; several where it does not fit into the model's window and is halved.
fn part<'a>(
    mapping: &'a Mapping<'a>,
    chunk: Chunk,
    step: String,
    splits: u32,
) -> BoxFuture<'a, Result<Vec<Part>, JobError>> {
    async move {
        let halves =
            Some(splits).filter(|splits| *splits < SPLITS_MAX).and_then(|_| chunk.halves(&mapping.run.payload.text));
        match (part_whole(mapping, chunk, &step, halves.is_some()).await, halves) {
            (Err(error), Some([left, right])) if error.class == ErrorClass::Overflow => {
                let mut parts = part(mapping, left, format!("{step}/0"), splits + 1).await?;
                parts.extend(part(mapping, right, format!("{step}/1"), splits + 1).await?);
                Ok(parts)
            }
            (part, _) => Ok(vec![part?]),
        }
    }
    .boxed()
}

async fn part_whole(mapping: &Mapping<'_>, chunk: Chunk, step: &str, can_halve: bool) -> Result<Part, JobError> {
    let Mapping { run, fence, losses, of } = *mapping;
    let task = &run.payload.map;
    let (index, total) = ((chunk.index + 1).to_string(), run.chunks.len().to_string());
    let text = fence.wrap(chunk.text(&run.payload.text));
    let prompt = fill(&task.prompt, &[("chunk", &text), ("index", &index), ("total", &total)]);
    let asked = run::Asked {
        step,
        prompt,
        note: fence.note(),
        schema: task.schema.as_ref(),
        may_be_lost: task.skip_failed,
        is_about_a_chunk: true,
    };
    let answer = match run.ask(asked).await {
        Ok(output) => Answer::Output(output),
        Err(error) if error.class == ErrorClass::Overflow && can_halve => return Err(error),
        Err(error) if task.skip_failed && is_lost(run, &error) => {
            losses.count(&error, of, task.max_failed_ratio)?;
            run.step_done(step);
            Answer::Error(error)
        }
        Err(error) => return Err(error),
    };
    Ok(Part::of(&chunk, answer))
}

/// Whether a failure costs this chunk and no more: it is final, or there is no later attempt in which it could pass.
/// What would fail every other chunk too ends the job instead.
fn is_lost(run: &Run<'_>, error: &JobError) -> bool {
    use ErrorClass as C;
    if run.cx.cancelled().is_cancelled() || error.code == MAX_CALLS {
        return false;
    }
    match error.class {
        C::Auth | C::Credential | C::Config | C::Quota | C::Rate | C::Breaker | C::Budget => false,
        C::Deadline | C::Internal => false,
        C::InvalidOutput => true,
        _ => !error.retryable || run.cx.attempt() >= run.cx.job().max_attempts,
    }
}

/// Counts chunks that are left out.
#[derive(Default)]
struct Losses(std::sync::atomic::AtomicUsize);

impl Losses {
    /// One more; an error once there are more than the job allows, so that nobody pays for the rest.
    fn count(&self, error: &JobError, of: usize, ratio: f64) -> Result<(), JobError> {
        let lost = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        if lost < of && lost as f64 <= ratio * of as f64 {
            return Ok(());
        }
        let message = format!("{lost} of {of} chunks failed, the last with: {}", error.message);
        Err(JobError { retryable: false, ..JobError::new(error.class, error.code.clone(), message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_chunks_may_be_lost_and_never_all() {
        let error = JobError::new(ErrorClass::Filtered, "content_filter", "withheld");
        let losses = Losses::default();
        assert!(losses.count(&error, 10, 0.2).is_ok() && losses.count(&error, 10, 0.2).is_ok());
        let over = losses.count(&error, 10, 0.2).unwrap_err();
        assert_eq!((over.class, over.code.as_str()), (ErrorClass::Filtered, "content_filter"));
        assert!(over.message.contains("3 of 10"));
        assert!(Losses::default().count(&error, 1, 1.0).is_err());
        assert!(Losses::default().count(&error, 10, 0.0).is_err());
    }

    #[test]
    fn a_part_shows_its_place_and_its_output_or_error() {
        let part = |answer| serde_json::to_value(Part { index: 2, start: 10, end: 20, answer }).unwrap();
        let output = part(Answer::Output(serde_json::json!(["x"])));
        assert_eq!(output, serde_json::json!({"index": 2, "start": 10, "end": 20, "output": ["x"]}));
        let error = part(Answer::Error(JobError::new(ErrorClass::Filtered, "refusal", "declined")));
        assert_eq!(error["error"]["class"], "filtered");
    }
}
