//! The spans of a job: its submit, each attempt, and what writes the attempt's end.

use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    global::BoxedSpan,
    trace::{Span, SpanBuilder, SpanContext, SpanKind, SpanRef, Status, TraceContextExt, Tracer},
};

use super::{Attempts, context_of, installed, link, names, place_of, text_of, with_ids};
use crate::{
    error::ErrorClass,
    ids::{Epoch, JobId, Name},
    job::Job,
};

/// How an attempt ends whose claim is another worker's.
const LOST: &str = "lost";
/// What a settle that came too late failed with.
const FENCED: &str = "fenced";
/// What a submit failed with whose caller had gone.
const GONE: &str = "gone";

/// What every span of messaging has: which operation it is.
fn of_messaging(operation: &'static str) -> [KeyValue; 3] {
    [
        KeyValue::new(names::MESSAGING_SYSTEM, names::SYSTEM),
        KeyValue::new(names::MESSAGING_OPERATION, operation),
        KeyValue::new(names::MESSAGING_OPERATION_TYPE, operation),
    ]
}

fn of_job(job: &Job) -> [KeyValue; 2] {
    [
        KeyValue::new(names::MESSAGING_DESTINATION, job.queue.to_string()),
        KeyValue::new(names::MESSAGING_MESSAGE_ID, job.id.to_string()),
    ]
}

/// A submit, in its caller's trace. Its context is what is stored with its jobs. One that is dropped before its end has failed.
pub struct Sending {
    span: BoxedSpan,
    is_over: bool,
}

impl Sending {
    /// Begins it, below the span that the caller's trace context names. `None`: this process makes no spans.
    pub fn begin(caller: Option<&str>) -> Option<Self> {
        let traces = installed()?;
        let parent = match caller.and_then(context_of) {
            Some(caller) => Context::new().with_remote_span_context(caller),
            None => Context::new(),
        };
        let builder = SpanBuilder::from_name(names::SEND)
            .with_kind(SpanKind::Producer)
            .with_attributes(of_messaging(names::SEND));
        Some(Self { span: traces.tracer.build_with_context(builder, &parent), is_over: false })
    }

    /// Its W3C trace context; `None` while the process ends.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.span.span_context();
        context.is_valid().then(|| text_of(context))
    }

    /// It is about so many jobs: of this queue, where they are all of one, and this one, where it is one.
    pub fn about(&mut self, queue: Option<&Name>, job: Option<JobId>, jobs: usize) {
        if !self.span.is_recording() {
            return;
        }
        if let Some(queue) = queue {
            self.span.update_name(format!("{} {queue}", names::SEND));
            self.span.set_attribute(KeyValue::new(names::MESSAGING_DESTINATION, queue.to_string()));
        }
        match job {
            Some(job) => self.span.set_attribute(KeyValue::new(names::MESSAGING_MESSAGE_ID, job.to_string())),
            None => {
                let jobs = i64::try_from(jobs).unwrap_or(i64::MAX);
                self.span.set_attribute(KeyValue::new(names::MESSAGING_BATCH_COUNT, jobs));
            }
        }
    }

    /// It is over; `error`: what it was refused with, in one of few words.
    pub fn end(mut self, error: Option<String>) {
        self.close(error);
    }

    fn close(&mut self, error: Option<String>) {
        self.is_over = true;
        if let Some(error) = error {
            self.span.set_attribute(KeyValue::new(names::ERROR_TYPE, error));
            self.span.set_status(Status::error(""));
        }
        self.span.end();
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_over {
            self.close(Some(GONE.to_owned()));
        }
    }
}

/// An attempt: what is done [within](Attempt::around) it finds its span by [`here`](super::here).
pub struct Attempt {
    cx: Context,
    submit: Option<SpanContext>,
    attempts: Attempts,
}

impl Attempt {
    /// Begins it, if it is recorded: as the stored context of the submit says, or as the sampler does.
    pub fn begin(job: &Job) -> Option<Self> {
        let traces = installed()?;
        let submit = job.traceparent.as_deref().and_then(context_of);
        if traces.carried && submit.as_ref().is_some_and(|submit| !submit.is_sampled()) {
            return None;
        }
        let place = place_of(traces.attempts, submit.as_ref(), job.id, job.epoch);
        let (parent, links) = match (traces.attempts, submit.clone()) {
            (_, None) => (Context::new(), vec![]),
            (Attempts::Children, Some(submit)) => (Context::new().with_remote_span_context(submit), vec![]),
            (Attempts::Linked, Some(submit)) => (Context::new(), vec![link(submit, "submit")]),
        };
        let mut attributes: Vec<_> = of_messaging(names::PROCESS).into_iter().chain(of_job(job)).collect();
        attributes.push(KeyValue::new(names::TENANT, job.tenant.to_string()));
        attributes.push(KeyValue::new(names::KIND, job.kind.as_str()));
        attributes.push(KeyValue::new(names::ATTEMPT, i64::from(job.attempts) + 1));
        let builder = SpanBuilder::from_name(format!("{} {}", names::PROCESS, job.queue))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(links);
        let ids = (place.trace_id(), place.span_id());
        let span = with_ids(ids, || traces.tracer.build_with_context(builder, &parent));
        if !span.span_context().is_sampled() {
            return None;
        }
        Some(Self { cx: Context::new().with_span(span), submit, attempts: traces.attempts })
    }

    /// The attempt of the same job that ran before this one.
    pub fn follows(&self, job: JobId, epoch: Epoch) {
        let before = place_of(self.attempts, self.submit.as_ref(), job, epoch);
        self.cx.span().add_link(before, vec![KeyValue::new(names::LINK, "attempt")]);
    }

    /// Does the work of the attempt, which ends where that says so ([`ended`]), at the latest with it.
    pub async fn around<F: Future>(self, work: F) -> F::Output {
        work.with_context(self.cx).await
    }
}

/// Ends the attempt that is being worked in; `error`: why it failed, if it did. Before its slot is given up: a process that ends
/// waits for slots, and then tells its last spans.
pub fn ended(outcome: &'static str, error: Option<ErrorClass>) {
    if installed().is_none() {
        return;
    }
    Context::map_current(|cx| {
        let span = cx.span();
        if span.is_recording() {
            span.set_attribute(KeyValue::new(names::OUTCOME, outcome));
            if let Some(error) = error.map(ErrorClass::as_str).or((outcome == LOST).then_some(LOST)) {
                fail(&span, error);
            }
            span.end();
        }
    });
}

fn fail(span: &SpanRef<'_>, error: &'static str) {
    span.set_attribute(KeyValue::new(names::ERROR_TYPE, error));
    // No description: a provider's words may repeat the prompt.
    span.set_status(Status::error(""));
}

/// The write of an attempt's end.
pub struct Settling(Option<BoxedSpan>);

impl Settling {
    /// Begins it within the attempt that is being worked in; nothing where that is not recorded.
    pub fn begin(job: &Job) -> Self {
        let Some(traces) = installed() else { return Self(None) };
        let begin = |cx: &Context| {
            if !cx.span().is_recording() {
                return None;
            }
            let submit = job.traceparent.as_deref().and_then(context_of);
            let builder = SpanBuilder::from_name(format!("{} {}", names::SETTLE, job.queue))
                .with_kind(SpanKind::Client)
                .with_attributes(of_messaging(names::SETTLE).into_iter().chain(of_job(job)))
                .with_links(submit.map(|submit| link(submit, "submit")).into_iter().collect());
            Some(traces.tracer.build_with_context(builder, cx))
        };
        Self(Context::map_current(begin))
    }

    /// It is written, or was fenced.
    pub fn end(self, is_fenced: bool) {
        let Some(mut span) = self.0 else { return };
        if is_fenced {
            span.set_attribute(KeyValue::new(names::ERROR_TYPE, FENCED));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}
