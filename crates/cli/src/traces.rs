//! Sends spans to an OTLP receiver. Where none is named nothing of this runs: no thread, no client, no span.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::{
    Context, InstrumentationScope, Key, KeyValue, SpanId, TraceId,
    global::BoxedTracer,
    trace::{Link, SpanKind, TraceContextExt, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SamplingResult, SdkTracerProvider, ShouldSample,
    },
};
use queue_core::traces::{self, Traces, names};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::{
    client::builder_for,
    config::{Sampling, Traces as Config},
    failure::Failure,
};

/// Longest wait at the end of a process for its last spans: part of the seconds between the drain and a supervisor's patience.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// How much of a receiver's answer is read: it says which spans it refused.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// What a receiver may ask us to wait.
const RETRY_AFTER: &str = "retry-after";

/// What sends the spans of this process.
pub(crate) struct Export(SdkTracerProvider);

impl Export {
    /// Turns traces on and begins to send them. Within a runtime, which does the sending.
    pub(crate) fn start(config: &Config) -> Result<Self, Failure> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Carrier::new(config)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.endpoint.as_str())
            .with_timeout(config.timeout)
            .build()
            .map_err(|error| Failure::usage(format!("traces cannot be sent: {error}")))?;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .with_sampler(sampler(config.sampling))
            .with_id_generator(Ids::default())
            .with_resource(resource())
            .build();
        let scope = InstrumentationScope::builder(names::SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(names::SCHEMA_URL)
            .build();
        traces::install(Traces {
            tracer: BoxedTracer::new(Box::new(provider.tracer_with_scope(scope))),
            attempts: config.attempts,
            carried: config.sampling.is_parent_based,
            gen_ai_latest: config.gen_ai_latest,
        });
        Ok(Self(provider))
    }

    /// Sends what is left. A receiver that is away holds nobody up for longer than [`FLUSH_MAX`].
    pub(crate) async fn finish(self) {
        let sent = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH_MAX)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the last spans of this process could not be sent");
        }
    }
}

/// Who the process is, where the environment does not say.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let said = |name: &'static str| told.get(&Key::from_static_str(name)).map(|value| value.to_string());
    let mut own = vec![];
    // The SDK's word for a process that has no name.
    if said("service.name").is_none_or(|name| name.starts_with("unknown_service")) {
        own.push(KeyValue::new("service.name", names::SYSTEM));
    }
    if said("service.version").is_none() {
        own.push(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    if said("service.instance.id").is_none() {
        own.push(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()));
    }
    Resource::builder().with_attributes(own).build()
}

fn sampler(sampling: Sampling) -> Box<dyn ShouldSample> {
    let roots = if sampling.share >= 1.0 { Sampler::AlwaysOn } else { Sampler::TraceIdRatioBased(sampling.share) };
    match sampling.is_parent_based {
        true => Box::new(Carried(Sampler::ParentBased(Box::new(roots)))),
        false => Box::new(roots),
    }
}

/// The parent-based sampler over links: an attempt is the root of its own trace, and follows what was decided at its submit.
#[derive(Clone, Debug)]
struct Carried(Sampler);

impl ShouldSample for Carried {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = parent.is_none_or(|cx| !cx.span().span_context().is_valid());
        let decided = match links.first() {
            Some(submit) if is_root && submit.span_context.is_sampled() => &Sampler::AlwaysOn,
            Some(_) if is_root => &Sampler::AlwaysOff,
            _ => &self.0,
        };
        decided.should_sample(parent, trace, name, kind, attributes, links)
    }
}

/// Ids that follow from a job where there are such, else random ones.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        traces::decided_trace_id().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        traces::decided_span_id().unwrap_or_else(|| self.0.new_span_id())
    }
}

/// The HTTP client of the rest of this program. The exporter has a thread of its own, without the runtime that the client needs.
#[derive(Debug)]
struct Carrier {
    http: reqwest::Client,
    runtime: Handle,
}

impl Carrier {
    fn new(config: &Config) -> Result<Self, Failure> {
        let builder = builder_for(&config.endpoint, config.ca_file.as_deref())?.timeout(config.timeout);
        let http = builder.build().map_err(|error| Failure::error(format!("no HTTP client for traces: {error}")))?;
        Ok(Self { http, runtime: Handle::current() })
    }
}

#[async_trait]
impl HttpClient for Carrier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        self.runtime.spawn(send(http, request)).await?
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut response = http.execute(reqwest::Request::try_from(request)?).await?;
    let mut answer = Response::builder().status(response.status());
    if let Some(wait) = response.headers().get(RETRY_AFTER) {
        answer = answer.header(RETRY_AFTER, wait);
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > ANSWER_MAX_BYTES {
            return Err(format!("an answer of more than {ANSWER_MAX_BYTES} bytes").into());
        }
        body.extend_from_slice(&piece);
    }
    Ok(answer.body(Bytes::from(body))?)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    fn place(sampled: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(sampled);
        SpanContext::new(TraceId::from(7), SpanId::from(7), flags, true, TraceState::NONE)
    }

    fn samples(sampling: Sampling, parent: &Context, links: &[Link]) -> bool {
        // Small enough for any share above zero.
        let trace = TraceId::from(1);
        let result = sampler(sampling).should_sample(Some(parent), trace, "x", &SpanKind::Consumer, &[], links);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn attempts_follow_their_submit_where_decisions_are_carried() {
        let (root, to) = (Context::new(), |sampled| [Link::with_context(place(sampled))]);
        let none = Sampling { share: 0.0, is_parent_based: true };
        let all = Sampling { share: 1.0, is_parent_based: true };
        assert!(samples(none, &root, &to(true)), "sampled by the caller, whatever the share");
        assert!(!samples(all, &root, &to(false)));
        assert!(samples(all, &root, &[]) && !samples(none, &root, &[]), "a root of its own");
        let below = |sampled| Context::new().with_remote_span_context(place(sampled));
        assert!(samples(none, &below(true), &to(false)) && !samples(all, &below(false), &to(true)));
        let alone = Sampling { share: 1.0, is_parent_based: false };
        assert!(samples(alone, &root, &to(false)) && samples(alone, &below(false), &[]));
    }
}
