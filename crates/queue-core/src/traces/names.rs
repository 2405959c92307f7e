//! Every name that stands in a span: the contract of our traces, in one place.
//!
//! Three documents, each at a version: `messaging.*`, `error.*` and `server.*` are those of the semantic conventions
//! [1.44.0](https://github.com/open-telemetry/semantic-conventions/tree/v1.44.0/docs/messaging). `gen_ai.*` comes in two families:
//! what instrumentations have always said ([1.36.0](https://github.com/open-telemetry/semantic-conventions/tree/v1.36.0/docs/gen-ai)),
//! and, where `OTEL_SEMCONV_STABILITY_OPT_IN` names [`GEN_AI_LATEST`], beside it that of the repository into which these conventions
//! have moved ([commit 002c8a6](https://github.com/open-telemetry/semantic-conventions-genai/tree/002c8a6ea1c8a42b14a4527db83b3cabcded610a)).
//! `longshore.*` are our own. A name of a newer version is a change of this file.

/// The schema of the names that are not of a family of their own.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
/// The instrumentation scope of every span.
pub const SCOPE: &str = "longshore";
/// The word of `OTEL_SEMCONV_STABILITY_OPT_IN` that asks for the later family of `gen_ai.*`.
pub const GEN_AI_LATEST: &str = "gen_ai_latest_experimental";

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* #[doc = concat!("`", $name, "`.")] pub const $constant: &str = $name;)*

        /// Every attribute, for the test of what may stand in a span.
        pub const ALL: &[&str] = &[$($constant),*];
    };
}

names! {
    /// Always [`SYSTEM`].
    MESSAGING_SYSTEM = "messaging.system";
    /// `send`, `process` or `settle`: the first word of the span's name.
    MESSAGING_OPERATION = "messaging.operation.name";
    /// The same.
    MESSAGING_OPERATION_TYPE = "messaging.operation.type";
    /// The queue.
    MESSAGING_DESTINATION = "messaging.destination.name";
    /// The job.
    MESSAGING_MESSAGE_ID = "messaging.message.id";
    /// Jobs of a bulk submit.
    MESSAGING_BATCH_COUNT = "messaging.batch.message_count";
    /// Class of an error (`rate`, `server` …); the status of an answer that refused a submit; how an attempt ended that had none.
    ERROR_TYPE = "error.type";
    /// The host of a provider.
    SERVER_ADDRESS = "server.address";
    /// Its port.
    SERVER_PORT = "server.port";

    /// [`CHAT`] or [`EMBEDDINGS`].
    GEN_AI_OPERATION = "gen_ai.operation.name";
    /// The provider, in the earlier family.
    GEN_AI_SYSTEM = "gen_ai.system";
    /// The provider, in the later family.
    GEN_AI_PROVIDER = "gen_ai.provider.name";
    /// The model that was asked for.
    GEN_AI_REQUEST_MODEL = "gen_ai.request.model";
    /// The longest answer that was asked for, in tokens.
    GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens";
    /// As it was asked for.
    GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature";
    /// As it was asked for.
    GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p";
    /// Whether the answer comes in pieces; in the later family.
    GEN_AI_REQUEST_STREAM = "gen_ai.request.stream";
    /// `json` where an answer in JSON was asked for, else `text`.
    GEN_AI_OUTPUT_TYPE = "gen_ai.output.type";
    /// The model that answered, in the provider's words.
    GEN_AI_RESPONSE_MODEL = "gen_ai.response.model";
    /// Why the answer ended.
    GEN_AI_RESPONSE_FINISH = "gen_ai.response.finish_reasons";
    /// Seconds to the first piece of text; in the later family.
    GEN_AI_RESPONSE_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
    /// Tokens of the prompt.
    GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens";
    /// Tokens of the answer.
    GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens";
    /// Tokens of the prompt that the provider had kept; in the later family.
    GEN_AI_CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens";
    /// Tokens of the prompt that the provider keeps from now on; in the later family.
    GEN_AI_CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens";
    /// Tokens of the answer that nobody sees; in the later family.
    GEN_AI_REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens";

    /// Whose job it is.
    TENANT = "longshore.tenant";
    /// What the job is: `llm`, `embedding` …
    KIND = "longshore.kind";
    /// The number of the attempt, counted from 1.
    ATTEMPT = "longshore.attempt";
    /// How the attempt ended: `succeed`, `retry`, `dead`, `release`, `cancel` or `lost`.
    OUTCOME = "longshore.outcome";
    /// Which step of the job asks: `chat`, `map/0003` …
    STEP = "longshore.step";
    /// Jobs that share the call.
    CALL_JOBS = "longshore.call.jobs";
    /// Which earlier span a link leads to: `submit`, `attempt`, or `job` for the others of a shared call.
    LINK = "longshore.link";
}

/// The system of our messages.
pub const SYSTEM: &str = "longshore";
/// A submit.
pub const SEND: &str = "send";
/// An attempt.
pub const PROCESS: &str = "process";
/// What writes the attempt's end.
pub const SETTLE: &str = "settle";
/// A chat completion.
pub const CHAT: &str = "chat";
/// Vectors.
pub const EMBEDDINGS: &str = "embeddings";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once_and_in_a_known_family() {
        let mut names = ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        let families = ["messaging.", "gen_ai.", "longshore.", "error.", "server."];
        assert!(names.iter().all(|name| families.iter().any(|family| name.starts_with(family))), "{names:?}");
    }
}
