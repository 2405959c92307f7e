//! Traces: the spans of a job's life, `send` → `process` → `chat` → `settle`.
//!
//! A submit is a span in its caller's trace, and its context is stored with the job. An attempt, which may come hours later,
//! begins a trace of its own that links to it ([`Attempts`]), and to the attempt before. **Ids of attempts are not stored**:
//! they follow from job and epoch, so that a retry finds the attempt before it, and the API the trace of each, also where the worker
//! died that ran it. Off unless [`install`] was called; then each of these calls is one look at a static.
//!
//! What stands in a span is named in [`names`]. No text of a payload, an answer or an error ever does: of an error its class.

mod call;
pub mod names;
mod spans;

use std::{cell::Cell, future::Future, sync::OnceLock};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    global::BoxedTracer,
    trace::{FutureExt, Link, SpanContext, TraceContextExt, TraceState},
};
use serde::Deserialize;
use tokio::task::JoinHandle;

pub use self::{
    call::{Asked, Call},
    spans::{Attempt, Sending, Settling, ended},
};
use crate::{
    ids::{Epoch, JobId},
    job::Job,
};

/// How the spans of attempts stand to their submit's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempts {
    /// Each begins a trace of its own and links to the submit: what the conventions want where jobs wait.
    #[default]
    Linked,
    /// Each is a child of the submit: one trace to look at, for jobs that are short.
    Children,
}

/// What spans are made with.
pub struct Traces {
    /// Whoever makes them. Its ids for attempts are [`decided_span_id`] and [`decided_trace_id`], where there are any.
    pub tracer: BoxedTracer,
    /// How attempts stand to submits.
    pub attempts: Attempts,
    /// Whether the decision at the submit, which the stored context tells, holds for the attempts (`parentbased_…` samplers).
    pub carried: bool,
    /// Whether the later family of `gen_ai.*` is told beside the earlier.
    pub gen_ai_latest: bool,
}

static INSTALLED: OnceLock<Traces> = OnceLock::new();

/// Turns traces on for this process, once.
pub fn install(traces: Traces) {
    // A second call changes nothing, as with the recorder of metrics.
    let _ = INSTALLED.set(traces);
}

/// Whether this process makes spans.
pub fn is_on() -> bool {
    installed().is_some()
}

fn installed() -> Option<&'static Traces> {
    INSTALLED.get()
}

/// The trace that a stored W3C trace context names: the one trace id that people see of a job.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    context_of(traceparent)?;
    traceparent.get(3..35)
}

/// The trace of an attempt, where this process makes spans and the job's submit was sampled.
pub fn trace_id_of_attempt(job: &Job, epoch: Epoch) -> Option<String> {
    let submit = context_of(job.traceparent.as_deref()?).filter(SpanContext::is_sampled)?;
    Some(place_of(installed()?.attempts, Some(&submit), job.id, epoch).trace_id().to_string())
}

/// The context of the span that is being worked in, as `traceparent` tells it to a service that is called.
pub fn traceparent_here() -> Option<String> {
    here().map(|Spot(context)| text_of(&context))
}

/// A recorded span, to be the parent of others or linked to.
#[derive(Clone, Debug)]
pub struct Spot(SpanContext);

/// The span that is being worked in, if it is recorded.
pub fn here() -> Option<Spot> {
    installed()?;
    Context::map_current(|cx| {
        let span = cx.span();
        let context = span.span_context();
        context.is_sampled().then(|| Spot(context.clone()))
    })
}

/// Spawns work that belongs to the span that is being worked in.
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    match here() {
        Some(_) => tokio::spawn(work.with_context(Context::current())),
        None => tokio::spawn(work),
    }
}

/// The span that a W3C trace context of version 00 names (<https://www.w3.org/TR/trace-context/>). An invalid one is ignored, as the standard
/// asks.
fn context_of(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || (trace.len(), span.len(), flags.len()) != (32, 16, 2) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = remote(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags);
    // Digits that are read more than one way are valid one way.
    (context.is_valid() && text_of(&context) == traceparent).then_some(context)
}

fn text_of(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags())
}

fn remote(trace: TraceId, span: SpanId, flags: TraceFlags) -> SpanContext {
    SpanContext::new(trace, span, flags, true, TraceState::NONE)
}

/// Where the span of an attempt stands.
fn place_of(attempts: Attempts, submit: Option<&SpanContext>, job: JobId, epoch: Epoch) -> SpanContext {
    let (trace, span) = ids_of(job, epoch);
    let trace = match (attempts, submit) {
        (Attempts::Children, Some(submit)) => submit.trace_id(),
        _ => trace,
    };
    remote(trace, span, TraceFlags::SAMPLED)
}

/// The ids of an attempt: a hash of job and epoch, since at most one attempt runs at an epoch.
fn ids_of(job: JobId, epoch: Epoch) -> (TraceId, SpanId) {
    let mut hash = blake3::Hasher::new();
    hash.update(b"the trace of an attempt").update(job.0.as_bytes()).update(&epoch.0.to_le_bytes());
    let (mut trace, mut span, mut bytes) = ([0; 16], [0; 8], hash.finalize_xof());
    bytes.fill(&mut trace);
    bytes.fill(&mut span);
    (TraceId::from_bytes(trace), SpanId::from_bytes(span))
}

thread_local! {
    static DECIDED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// The id of the trace that this thread is about to begin, where it was decided beforehand.
pub fn decided_trace_id() -> Option<TraceId> {
    DECIDED.get().map(|(trace, _)| trace)
}

/// The id of the span that this thread is about to begin, likewise.
pub fn decided_span_id() -> Option<SpanId> {
    DECIDED.get().map(|(_, span)| span)
}

/// Begins a span whose ids are decided. A tracer takes ids from its generator alone, on the thread that asks it.
fn with_ids<T>(ids: (TraceId, SpanId), begin: impl FnOnce() -> T) -> T {
    struct Forget;
    impl Drop for Forget {
        fn drop(&mut self) {
            DECIDED.set(None);
        }
    }
    DECIDED.set(Some(ids));
    let _forget = Forget;
    begin()
}

fn link(to: SpanContext, what: &'static str) -> Link {
    Link::new(to, vec![KeyValue::new(names::LINK, what)], 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_valid_trace_contexts_are_kept() {
        assert_eq!(
            trace_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        for text in [
            "",
            "00-t-s-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(trace_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_stored_context_is_read_and_written_as_it_was() {
        let context = context_of(SAMPLED).unwrap();
        assert!(context.is_sampled() && context.is_remote());
        assert_eq!(text_of(&context), SAMPLED);
        assert_eq!(trace_id(SAMPLED), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert!(!context_of(&SAMPLED.replace("-01", "-00")).unwrap().is_sampled());
        for text in ["", "00-t-s-01", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &"0".repeat(55)] {
            assert!(context_of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn each_attempt_has_ids_of_its_own_and_always_the_same() {
        let (job, other) = (JobId::generate(), JobId::generate());
        let all = [(job, 0), (job, 1), (other, 0)].map(|(job, epoch)| ids_of(job, Epoch(epoch)));
        assert_eq!(ids_of(job, Epoch(1)), all[1]);
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
        let submit = context_of(SAMPLED).unwrap();
        let place = |attempts| place_of(attempts, Some(&submit), job, Epoch(1));
        assert_eq!(place(Attempts::Children).trace_id(), submit.trace_id());
        assert_eq!(place(Attempts::Linked).trace_id(), all[1].0);
        assert_eq!(place(Attempts::Children).span_id(), place(Attempts::Linked).span_id());
    }

    #[test]
    fn decided_ids_are_those_of_one_span() {
        let ids = ids_of(JobId::generate(), Epoch(3));
        let seen = with_ids(ids, || (decided_trace_id().unwrap(), decided_span_id().unwrap()));
        assert_eq!(seen, ids);
        assert!(decided_trace_id().is_none() && decided_span_id().is_none());
    }

    #[test]
    fn without_an_installation_there_are_no_spans() {
        // No test of this crate installs one: it is for the whole process.
        assert!(!is_on() && here().is_none() && traceparent_here().is_none());
        assert!(Sending::begin(Some(SAMPLED)).is_none());
    }
}
