//! Payloads that are refused, each with the place and the reason, and payloads that are not.

use serde_json::{Value, json};

use super::*;
use crate::route::Route;

mod items;

const BOOK: &str = r#"
version = "test"
[models."tiny"]
context_window = 1_000
max_output = 400
[models."gpt-4o-mini"]
context_window = 128_000
"#;

fn routes() -> Routes {
    let route = |name: &str, models: &[&str]| Route {
        provider: name.into(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
    };
    Routes {
        routes: vec![route("chat", &["tiny", "gpt-*"]), route("vectors", &["embed-*"])],
        default_model: Some("gpt-4o-mini".into()),
        default_embedding_model: Some("embed-small".into()),
    }
}

fn check(kind: Kind, payload: &str, routes: &Routes, probe_jobs: bool) -> Result<Name, Vec<FieldError>> {
    check_probes(kind, payload, routes, (probe_jobs, probe_jobs))
}

/// With probes, and probes that harm their worker, allowed or not.
fn check_probes(
    kind: Kind,
    payload: &str,
    routes: &Routes,
    (probe_jobs, probe_faults): (bool, bool),
) -> Result<Name, Vec<FieldError>> {
    let prices = PriceBook::parse(BOOK).unwrap();
    let outbound = &Allowed::default();
    let around = Surroundings { routes, prices: &prices, probe_jobs, probe_faults, outbound };
    validate(kind, payload, None, around).map(|loads| loads.target)
}

/// The usual payload of a kind, with `more`, and this chain beside it.
fn chained(kind: Kind, more: Value, chain: Value) -> Result<Loads, Vec<FieldError>> {
    let prices = PriceBook::parse(BOOK).unwrap();
    let (routes, outbound) = (&routes(), &Allowed::default());
    let around = Surroundings { routes, prices: &prices, probe_jobs: true, probe_faults: false, outbound };
    validate(kind, &with(kind, more), Some(&chain.to_string()), around)
}

#[test]
fn chains_are_read_with_their_classes() {
    use crate::{error::ErrorClass as C, fallback::ON_DEFAULT};
    let chain = json!([{"model": "gpt-4o", "on": ["rate", "overflow"]}, {"model": "tiny"}]);
    let loads = chained(Kind::Llm, json!({}), chain).unwrap();
    assert_eq!(loads.fallback[0], Link { model: "gpt-4o".into(), on: vec![C::Rate, C::Overflow] });
    assert_eq!(loads.fallback[1].on, ON_DEFAULT);
    assert_eq!(loads.target.as_str(), "chat:gpt-4o-mini:default>chat:gpt-4o:default>chat:tiny:default");
    let defaults = json!({"defaults": {"fallback": [{"model": "tiny"}]}});
    let loads = chained(Kind::Analysis, defaults, json!(null)).unwrap();
    assert_eq!(loads.target.as_str(), "chat:gpt-4o-mini:default>chat:tiny:default");
    assert!(loads.fallback.is_empty(), "that chain is the payload's");
}

#[test]
fn chains_that_cannot_be_followed_are_refused() {
    let of = |model: &str| json!([{"model": model}]);
    let defaults = json!({"defaults": {"fallback": [{"model": "tiny"}]}});
    let cases = [
        (Kind::Llm, json!({}), json!([]), "/fallback", "1 to 4 elements, not 0"),
        (Kind::Llm, json!({}), json!("tiny"), "/fallback", "an array of 1 to 4 elements"),
        (Kind::Llm, json!({}), json!([{"on": ["rate"]}]), "/fallback/0/model", "is required"),
        (Kind::Llm, json!({}), json!([{"model": "tiny", "when": 1}]), "/fallback/0/when", "not a known field"),
        (Kind::Llm, json!({}), of("nobody"), "/fallback/0/model", "served by no provider"),
        (Kind::Llm, json!({}), of("gpt-4o-mini"), "/fallback/0/model", "asked twice"),
        (Kind::Llm, json!({}), json!([{"model": "tiny"}, {"model": "tiny"}]), "/fallback/1/model", "asked twice"),
        (Kind::Llm, json!({}), json!([{"model": "tiny", "on": []}]), "/fallback/0/on", "elements, not 0"),
        (Kind::Llm, json!({}), json!([{"model": "tiny", "on": ["bad_request"]}]), "/fallback/0/on/0", "`overflow`"),
        (Kind::Llm, json!({}), json!([{"model": "tiny", "on": [7]}]), "/fallback/0/on/0", "a string"),
        (Kind::Llm, json!({"max_tokens": 500}), of("tiny"), "/payload/max_tokens", "at most 400"),
        (Kind::Analysis, defaults, of("gpt-4o"), "/payload/defaults/fallback", "give one of them"),
        (Kind::Embedding, json!({}), of("embed-small"), "/fallback", "is for chat"),
        (Kind::Probe, json!({}), of("tiny"), "/fallback", "is for chat"),
    ];
    for (kind, more, chain, pointer, reason) in cases {
        let errors = chained(kind, more, chain.clone()).expect_err(&chain.to_string());
        assert_eq!(errors.len(), 1, "{chain}: {errors:#?}");
        assert_eq!(errors[0].pointer, pointer, "{chain}");
        assert!(errors[0].reason.contains(reason), "{chain}: {}", errors[0].reason);
    }
}

#[test]
fn one_window_of_the_chain_is_enough_if_it_is_asked_for() {
    let long = json!({"model": "tiny", "messages": [{"role": "user", "content": "word ".repeat(3_000)}]});
    let larger = |on: &str| json!([{"model": "gpt-4o-mini", "on": [on]}]);
    assert!(chained(Kind::Llm, long.clone(), larger("overflow")).is_ok());
    let errors = chained(Kind::Llm, long.clone(), larger("rate")).unwrap_err();
    assert_eq!(errors[0].pointer, "/payload/messages");
    assert!(errors[0].reason.contains("window of 1000 (`tiny`)"), "{}", errors[0].reason);
    let huge = json!({"model": "tiny", "messages": [{"role": "user", "content": "word ".repeat(200_000)}]});
    let errors = chained(Kind::Llm, huge, larger("overflow")).unwrap_err();
    assert!(errors[0].reason.contains("1000 (`tiny`) or 128000 (`gpt-4o-mini`)"), "{}", errors[0].reason);
    assert!(chained(Kind::Llm, long, json!([{"model": "gpt-unknown", "on": ["overflow"]}])).is_ok(), "nobody knows");
}

/// The usual payload of a kind with `more` in place of its members.
fn with(kind: Kind, more: Value) -> String {
    let mut payload = match kind {
        Kind::Llm => json!({"messages": [{"role": "user", "content": "Hi"}]}),
        Kind::Embedding => json!({"input": ["a", "b"]}),
        Kind::Analysis => json!({"version": 1, "input": {"text": "A document."}, "map": {"prompt": "{{chunk}}"}}),
        Kind::Probe => json!({}),
        Kind::Http => json!({"url": "https://a.example/"}),
        Kind::Custom => json!({"handler": "own"}),
    };
    let Value::Object(more) = more else { return more.to_string() };
    payload.as_object_mut().unwrap().extend(more);
    payload.to_string()
}

type Refused = (Value, &'static str, &'static str);

#[track_caller]
fn assert_refused(kind: Kind, cases: Vec<Refused>) {
    for (more, pointer, reason) in cases {
        let payload = with(kind, more);
        let shown: String = payload.chars().take(200).collect();
        let errors = check(kind, &payload, &routes(), true).expect_err(&shown);
        let is_told = errors.iter().any(|error| error.pointer == pointer && error.reason.contains(reason));
        assert!(is_told, "{shown}\n wanted {pointer}: {reason}\n got {errors:#?}");
        assert_eq!(errors.len(), 1, "{shown}: one mistake is one error: {errors:#?}");
        assert!(errors[0].reason.len() < 600, "{shown}: {}", errors[0].reason);
    }
}

#[track_caller]
fn assert_accepted(kind: Kind, cases: Vec<(Value, &str)>) {
    for (more, target) in cases {
        let payload = with(kind, more);
        match check(kind, &payload, &routes(), true) {
            Ok(name) => assert_eq!(name.as_str(), target, "{payload}"),
            Err(errors) => panic!("{payload}: {errors:#?}"),
        }
    }
}

fn user(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

fn message(message: Value) -> Value {
    json!({"messages": [{"role": "user", "content": "Hi"}, message]})
}

fn format(format: Value) -> Value {
    json!({"response_format": format})
}

fn schema(schema: Value) -> Value {
    format(json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}))
}

fn tools(choice: Value) -> Value {
    json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": choice})
}

#[test]
fn refused_messages() {
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    let long = "x".repeat(1024 * 1024 + 1);
    assert_refused(
        Kind::Llm,
        vec![
            (json!([]), "/payload", "must be an object, not an array"),
            (json!("x"), "/payload", "must be an object, not a string"),
            (json!({"messages": null}), "/payload/messages", "is required"),
            (json!({"messages": "Hi"}), "/payload/messages", "must be an array of 1 to 1000 elements, not a string"),
            (json!({"messages": []}), "/payload/messages", "1 to 1000 elements, not 0"),
            (
                json!({"messages": vec![json!({"role": "user", "content": "x"}); 1_001]}),
                "/payload/messages",
                "not 1001",
            ),
            (json!({"messages": ["Hi"]}), "/payload/messages/0", "must be an object"),
            (message(json!({"content": "x"})), "/payload/messages/1/role", "is required"),
            (
                message(json!({"role": "bot", "content": "x"})),
                "/payload/messages/1/role",
                "`assistant`, `tool`, not `bot`",
            ),
            (message(json!({"role": 1, "content": "x"})), "/payload/messages/1/role", "must be a string, not 1"),
            (message(json!({"role": "user"})), "/payload/messages/1/content", "is required"),
            (
                message(json!({"role": "user", "content": 5})),
                "/payload/messages/1/content",
                "string or an array of parts",
            ),
            (
                message(json!({"role": "user", "content": "x", "text": "y"})),
                "/payload/messages/1/text",
                "not a known field",
            ),
            (message(json!({"role": "tool", "content": "x"})), "/payload/messages/1/tool_call_id", "is required"),
            (
                message(json!({"role": "user", "content": "x", "tool_calls": []})),
                "/payload/messages/1/tool_calls",
                "role `assistant`",
            ),
            (
                message(json!({"role": "assistant", "tool_calls": [{"id": "1"}]})),
                "/payload/messages/1/tool_calls/0/function",
                "is required",
            ),
            (user(json!([])), "/payload/messages/0/content", "1 to 256 elements"),
            (user(json!([{"type": "text"}])), "/payload/messages/0/content/0/text", "is required"),
            (user(json!([{"type": "audio"}])), "/payload/messages/0/content/0/type", "`image_url`, not `audio`"),
            (user(json!([{"text": "x"}])), "/payload/messages/0/content/0/type", "is required"),
            (
                user(json!([{"type": "image_url", "image_url": "x"}])),
                "/payload/messages/0/content/0/image_url",
                "must be an object",
            ),
            (
                user(json!([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}])),
                "/payload/messages/0/content/0/image_url/url",
                "https://",
            ),
            (
                message(
                    json!({"role": "system", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}),
                ),
                "/payload/messages/1/content/0/type",
                "only messages of the role `user`",
            ),
            (user(json!(long)), "/payload/messages", "the limit is 1048576"),
            (json!({"metadata": deep}), "/payload", "nested more than 64 levels"),
        ],
    );
}

#[test]
fn refused_members_of_llm() {
    let chat = "/payload/response_format/json_schema";
    assert_refused(
        Kind::Llm,
        vec![
            (json!({"max_token": 5}), "/payload/max_token", "did you mean `max_tokens`?"),
            (json!({"top_k": 5}), "/payload/top_k", "goes into `extra`"),
            (
                json!({"model": "nobody-1"}),
                "/payload/model",
                "served by no provider; the providers here are `chat`, `vectors`",
            ),
            (json!({"model": ""}), "/payload/model", "1 to 128 bytes, not 0"),
            (json!({"model": 4}), "/payload/model", "must be a string, not 4"),
            (json!({"model": format!("gpt-{}", "x".repeat(200))}), "/payload/model", "not 204"),
            (json!({"max_tokens": 0}), "/payload/max_tokens", "whole number from 1 to 1000000, not 0"),
            (json!({"max_tokens": 1.5}), "/payload/max_tokens", "not 1.5"),
            (json!({"max_tokens": "10"}), "/payload/max_tokens", "not a string"),
            (
                json!({"max_tokens": 5, "max_completion_tokens": 5}),
                "/payload/max_completion_tokens",
                "give one of them",
            ),
            (
                json!({"model": "tiny", "max_tokens": 401}),
                "/payload/max_tokens",
                "at most 400, the longest answer of `tiny`",
            ),
            (json!({"max_completion_tokens": 128_001}), "/payload/max_completion_tokens", "at most 128000"),
            (json!({"temperature": 2.1}), "/payload/temperature", "a number from 0 to 2, not 2.1"),
            (json!({"temperature": -0.1}), "/payload/temperature", "not -0.1"),
            (json!({"top_p": "high"}), "/payload/top_p", "not a string"),
            (json!({"presence_penalty": 3}), "/payload/presence_penalty", "from -2 to 2"),
            (json!({"frequency_penalty": -3}), "/payload/frequency_penalty", "from -2 to 2"),
            (json!({"seed": 1.5}), "/payload/seed", "whole number"),
            (json!({"stop": []}), "/payload/stop", "1 to 4 elements, not 0"),
            (json!({"stop": ["a", "b", "c", "d", "e"]}), "/payload/stop", "not 5"),
            (json!({"stop": ["a", 1]}), "/payload/stop/1", "must be a string, not 1"),
            (json!({"stop": 1}), "/payload/stop", "a string or 1 to 4 strings"),
            (json!({"n": 2}), "/payload/n", "must be 1"),
            (json!({"stream": true}), "/payload/stream", "watch /v1/jobs/{id}/events"),
            (json!({"stream_options": {}}), "/payload/stream_options", "streams inside"),
            (json!({"repair": 6}), "/payload/repair", "from 0 to 5, not 6"),
            (
                json!({"on_truncated": "retry"}),
                "/payload/on_truncated",
                "`accept`, `fail`, `raise`, `continue`, not `retry`",
            ),
            (json!({"reasoning_effort": "max"}), "/payload/reasoning_effort", "`xhigh`, not `max`"),
            (json!({"service_tier": "gold"}), "/payload/service_tier", "not `gold`"),
            (json!({"logit_bias": {"50256": 101}}), "/payload/logit_bias/50256", "from -100 to 100"),
            (json!({"logit_bias": {"a/b": 1}}), "/payload/logit_bias/a~1b", "named after a token"),
            (json!({"metadata": {"k": 1}}), "/payload/metadata/k", "a string of at most 512 bytes, not 1"),
            (json!({"extra": 1}), "/payload/extra", "must be an object, not 1"),
            (json!({"extra": {"top_p": 1}}), "/payload/extra/top_p", "beside `extra`"),
            (json!({"extra": {"stream": true}}), "/payload/extra/stream", "beside `extra`"),
            (format(json!("json")), "/payload/response_format", "must be an object"),
            (format(json!({})), "/payload/response_format/type", "is required"),
            (format(json!({"type": "xml"})), "/payload/response_format/type", "not `xml`"),
            (
                format(json!({"type": "text", "json_schema": {}})),
                "/payload/response_format/json_schema",
                "belongs to the type",
            ),
            (format(json!({"type": "json_schema"})), chat, "is required"),
            (
                format(json!({"type": "json_schema", "json_schema": {"schema": {}}})),
                "/payload/response_format/json_schema/name",
                "is required",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}})),
                "/payload/response_format/json_schema/name",
                "letters, digits",
            ),
            (
                format(json!({"type": "json_schema", "json_schema": {"name": "a"}})),
                "/payload/response_format/json_schema/schema",
                "is required",
            ),
            (
                schema(json!(true)),
                "/payload/response_format/json_schema/schema",
                "must be a JSON Schema object, not true",
            ),
            (
                schema(json!({"type": "strin"})),
                "/payload/response_format/json_schema/schema",
                "not a usable JSON Schema",
            ),
            (
                schema(json!({"$ref": "https://example.com/a.json"})),
                "/payload/response_format/json_schema/schema",
                "not a usable JSON Schema",
            ),
            (
                schema(json!({"$ref": "#/nowhere"})),
                "/payload/response_format/json_schema/schema",
                "not a usable JSON Schema",
            ),
            (
                schema(json!({"pattern": "("})),
                "/payload/response_format/json_schema/schema",
                "not a usable JSON Schema",
            ),
            (
                schema(json!({"description": "x".repeat(128 * 1024)})),
                "/payload/response_format/json_schema/schema",
                "the limit is 131072",
            ),
            (json!({"tools": []}), "/payload/tools", "1 to 128 elements, not 0"),
            (json!({"tools": [{"type": "function"}]}), "/payload/tools/0/function", "is required"),
            (
                json!({"tools": [{"type": "function", "function": {"name": "a.b"}}]}),
                "/payload/tools/0/function/name",
                "letters, digits",
            ),
            (
                json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]}),
                "/payload/tools/0/function/parameters",
                "not a usable",
            ),
            (json!({"tool_choice": "auto"}), "/payload/tool_choice", "without `tools`"),
            (json!({"parallel_tool_calls": true}), "/payload/parallel_tool_calls", "without `tools`"),
            (tools(json!("always")), "/payload/tool_choice", "`required`, not `always`"),
            (
                tools(json!({"type": "function", "function": {"name": "g"}})),
                "/payload/tool_choice/function/name",
                "`g` is none of `tools`",
            ),
        ],
    );
}

#[test]
fn prompts_without_room() {
    let prompt = "several words of a prompt ".repeat(400);
    let with_answer =
        json!({"model": "tiny", "max_tokens": 400, "messages": user(json!(&prompt[..3_000]))["messages"]});
    let alone = json!({"model": "tiny", "messages": user(json!(prompt))["messages"]});
    let counted = json!({"messages": user(json!("word and more words ".repeat(42_000)))["messages"]});
    assert_refused(
        Kind::Llm,
        vec![
            (with_answer, "/payload/messages", "and 400 for the answer in a window of 1000 (`tiny`)"),
            (alone, "/payload/messages", "in a window of 1000 (`tiny`)"),
            (counted, "/payload/messages", "in a window of 128000 (`gpt-4o-mini`)"),
        ],
    );
    // What may have room is the provider's to say.
    let close = json!({"model": "tiny", "max_tokens": 400, "messages": user(json!(&prompt[..1_800]))["messages"]});
    assert_accepted(Kind::Llm, vec![(close, "chat:tiny:default")]);
}

#[test]
fn refused_embeddings() {
    assert_refused(
        Kind::Embedding,
        vec![
            (json!(7), "/payload", "must be an object, not 7"),
            (json!({"input": null}), "/payload/input", "is required"),
            (json!({"input": ""}), "/payload/input", "must not be empty"),
            (json!({"input": []}), "/payload/input", "1 to 2048 elements, not 0"),
            (json!({"input": vec!["a"; 2_049]}), "/payload/input", "not 2049"),
            (json!({"input": ["a", ""]}), "/payload/input/1", "must not be empty"),
            (json!({"input": ["a", 1]}), "/payload/input/1", "must be a string, not 1"),
            (json!({"input": {"text": "a"}}), "/payload/input", "not an object"),
            (json!({"input": vec!["x".repeat(2_049); 2_048]}), "/payload/input", "the limit is 4194304"),
            (json!({"dimensions": 0}), "/payload/dimensions", "from 1 to 8192, not 0"),
            (json!({"dimensions": 8_193}), "/payload/dimensions", "not 8193"),
            (json!({"encoding_format": "base64"}), "/payload/encoding_format", "is Longshore's"),
            (json!({"inputs": []}), "/payload/inputs", "did you mean `input`?"),
            (json!({"model": "nobody"}), "/payload/model", "served by no provider"),
        ],
    );
}

fn input(input: Value) -> Value {
    json!({"input": input})
}

fn chunk(chunk: Value) -> Value {
    json!({"chunk": chunk})
}

fn map(more: Value) -> Value {
    let mut map = json!({"prompt": "{{chunk}}"});
    map.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"map": map})
}

fn reduce(reduce: Value) -> Value {
    json!({"reduce": reduce})
}

#[test]
fn refused_analyses() {
    let items = "Join {{items}}";
    assert_refused(
        Kind::Analysis,
        vec![
            (json!(null), "/payload", "must be an object, not null"),
            (json!({"version": 2}), "/payload/version", "must be 1"),
            (json!({"input": null}), "/payload/input", "is required"),
            (input(json!("text")), "/payload/input", "must be an object, not a string"),
            (input(json!({})), "/payload/input/text", "is required"),
            (input(json!({"text": ""})), "/payload/input/text", "must not be empty"),
            (input(json!({"text": " \n\t"})), "/payload/input/text", "must not be empty"),
            (input(json!({"text": 1})), "/payload/input/text", "must be a string, not 1"),
            (input(json!({"ref": "s3://a/b"})), "/payload/input/ref", "not built in this version"),
            (input(json!({"text": "a", "ref": "b"})), "/payload/input", "not both"),
            (input(json!({"text": "a", "format": "pdf"})), "/payload/input/format", "`markdown`, not `pdf`"),
            (json!({"defaults": {"max_tokens": 0}}), "/payload/defaults/max_tokens", "from 1 to"),
            (json!({"defaults": {"model": "nobody"}}), "/payload/defaults/model", "served by no provider"),
            (json!({"defaults": {"timeout_ms": 1}}), "/payload/defaults/timeout_ms", "`timeout`"),
            (json!({"defaults": {"fallback": []}}), "/payload/defaults/fallback", "1 to 4 elements"),
            (
                json!({"defaults": {"fallback": [{"model": "nobody"}]}}),
                "/payload/defaults/fallback/0/model",
                "served by no provider",
            ),
            (json!({"defaults": {"temprature": 1}}), "/payload/defaults/temprature", "`temperature`"),
            (json!({"defaults": {"extra": {"messages": []}}}), "/payload/defaults/extra/messages", "beside `extra`"),
            (json!({"defaults": {"model": "tiny", "max_tokens": 500}}), "/payload/defaults/max_tokens", "at most 400"),
            (chunk(json!({"by": "words"})), "/payload/chunk/by", "`tokens`, not `words`"),
            (chunk(json!({"size": 15})), "/payload/chunk/size", "from 16 to 100000, not 15"),
            (
                chunk(json!({"size": 100, "overlap": 100})),
                "/payload/chunk/overlap",
                "less than the size of a chunk (100), not 100",
            ),
            (chunk(json!({"splitter": "code"})), "/payload/chunk/splitter", "not `code`"),
            (chunk(json!({"max_chunks": 0})), "/payload/chunk/max_chunks", "from 1 to 10000"),
            (json!({"map": null}), "/payload/map", "is required"),
            (json!({"map": {}}), "/payload/map/prompt", "is required"),
            (map(json!({"prompt": "no variable"})), "/payload/map/prompt", "must contain {{chunk}}"),
            (
                map(json!({"prompt": "{{chunk}} {{chapter}}"})),
                "/payload/map/prompt",
                "`chapter`; here are only {{chunk}}, {{index}}, {{total}}",
            ),
            (map(json!({"prompt": "x".repeat(65 * 1024)})), "/payload/map/prompt", "1 to 65536 bytes"),
            (map(json!({"system": ""})), "/payload/map/system", "1 to 65536 bytes, not 0"),
            (map(json!({"schema": {"type": "nothing"}})), "/payload/map/schema", "not a usable JSON Schema"),
            (map(json!({"concurrency": 65})), "/payload/map/concurrency", "from 1 to 64"),
            (map(json!({"on_error": "retry"})), "/payload/map/on_error", "`fail`, `skip`"),
            (map(json!({"max_failed_ratio": 0.5})), "/payload/map/max_failed_ratio", "without `on_error`"),
            (map(json!({"on_error": "skip", "max_failed_ratio": 1.5})), "/payload/map/max_failed_ratio", "from 0 to 1"),
            (reduce(json!({})), "/payload/reduce/strategy", "is required"),
            (reduce(json!({"strategy": "mapreduce"})), "/payload/reduce/strategy", "not `mapreduce`"),
            (reduce(json!({"strategy": "tree"})), "/payload/reduce/prompt", "is required"),
            (
                reduce(json!({"strategy": "tree", "prompt": "Join {{chunk}} {{items}}"})),
                "/payload/reduce/prompt",
                "only {{items}}",
            ),
            (
                reduce(json!({"strategy": "tree", "prompt": items, "fan_in": 1})),
                "/payload/reduce/fan_in",
                "from 2 to 100",
            ),
            (
                reduce(json!({"strategy": "tree", "prompt": items, "max_depth": 0})),
                "/payload/reduce/max_depth",
                "from 1",
            ),
            (
                reduce(json!({"strategy": "llm", "prompt": items, "fan_in": 3})),
                "/payload/reduce/fan_in",
                "no use with the strategy `llm`",
            ),
            (
                reduce(json!({"strategy": "concat", "prompt": items})),
                "/payload/reduce/prompt",
                "no use with the strategy `concat`",
            ),
            (
                reduce(json!({"strategy": "refine", "prompt": "{{previous}}"})),
                "/payload/reduce/prompt",
                "must contain {{chunk}}",
            ),
            (reduce(json!({"strategy": "none", "dedupe_by": ["/a"]})), "/payload/reduce/dedupe_by", "no use"),
            (reduce(json!({"strategy": "merge_arrays"})), "/payload/map/schema", "is required"),
            (json!({"embed": true}), "/payload/embed", "must be an object, not true"),
            (json!({"embed": {"model": "nobody"}}), "/payload/embed/model", "served by no provider"),
            (json!({"embed": {"dims": 5}}), "/payload/embed/dims", "is called `dimensions`"),
            (json!({"embed": {"sink": "pgvector"}}), "/payload/embed/sink", "`result`, not `pgvector`"),
            (
                json!({"limits": {"max_cost_usd": "much"}}),
                "/payload/limits/max_cost_usd",
                "not an amount of US dollars",
            ),
            (json!({"limits": {"deadline_ms": 5}}), "/payload/limits/deadline_ms", "`deadline`"),
            (json!({"limits": {"max_calls": 0}}), "/payload/limits/max_calls", "from 1 to 100000"),
            (json!({"memo": {"ttl": "7d"}}), "/payload/memo", "not built"),
            (json!({"cache": "tenant"}), "/payload/cache", "must be an object"),
            (json!({"cache": {"ttl": "1ms"}}), "/payload/cache/ttl", "from 1s to 30d"),
            (json!({"on_complete": {}}), "/payload/on_complete", "not built"),
            (json!({"chunks": {}}), "/payload/chunks", "did you mean `chunk`?"),
        ],
    );
    let words = "many words ".repeat(2_000);
    assert_refused(
        Kind::Analysis,
        vec![
            (
                json!({"input": {"text": words}, "chunk": {"size": 100, "max_chunks": 10}}),
                "/payload/input/text",
                "10 chunks of 100 hold 1000",
            ),
            (
                json!({"input": {"text": words}, "chunk": {"splitter": "none"}, "defaults": {"model": "tiny"}}),
                "/payload/input/text",
                "window of 1000",
            ),
            (
                json!({"map": {"prompt": format!("{words}{{{{chunk}}}}")}, "defaults": {"model": "tiny"}}),
                "/payload/map/prompt",
                "window of 1000",
            ),
            (
                map(json!({"schema": {"type": "array"}}))["map"]
                    .clone()
                    .as_object()
                    .map(|map| json!({"map": map, "reduce": {"strategy": "merge_arrays", "dedupe_by": ["name"]}}))
                    .unwrap(),
                "/payload/reduce/dedupe_by/0",
                "JSON pointer such as `/name`",
            ),
        ],
    );
}

#[test]
fn refused_probes() {
    assert_refused(
        Kind::Probe,
        vec![
            (json!([]), "/payload", "must be an object"),
            (json!({"sleep_ms": -1}), "/payload/sleep_ms", "from 0 to 86400000, not -1"),
            (json!({"sleep_ms": 86_400_001}), "/payload/sleep_ms", "not 86400001"),
            (json!({"slep_ms": 1}), "/payload/slep_ms", "did you mean `sleep_ms`?"),
            (json!({"pad": 1}), "/payload/pad", "must be a string, not 1"),
            (json!({"result_bytes": 1024 * 1024 + 1}), "/payload/result_bytes", "from 0 to 1048576"),
            (json!({"allocate_mb": 4_097}), "/payload/allocate_mb", "from 0 to 4096, not 4097"),
            (json!({"fail": "often"}), "/payload/fail", "not `often`"),
            (json!({"fail_times": 1}), "/payload/fail_times", "without `fail`"),
            (json!({"fail": "panic", "fail_times": 101}), "/payload/fail_times", "from 0 to 100"),
        ],
    );
    let errors = check(Kind::Probe, "{}", &routes(), false).unwrap_err();
    assert_eq!(errors[0].pointer, "/kind");
}

#[test]
fn a_probe_that_harms_its_worker_is_refused_where_only_harmless_ones_are_allowed() {
    let harmless = ["transient", "permanent", "panic", "panic_in_drop"].map(|word| json!({"fail": word}));
    let faults = ["abort", "overflow", "exit", "spin", "block"].map(|word| (json!({"fail": word}), "/payload/fail"));
    let memory = (json!({"allocate_mb": 1}), "/payload/allocate_mb");
    for payload in harmless.into_iter().chain([json!({"allocate_mb": 0})]) {
        check_probes(Kind::Probe, &payload.to_string(), &routes(), (true, false))
            .unwrap_or_else(|_| panic!("{payload}"));
    }
    for (payload, pointer) in faults.into_iter().chain([memory]) {
        let text = payload.to_string();
        let errors = check_probes(Kind::Probe, &text, &routes(), (true, false)).expect_err(&text);
        assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, pointer), "{text}: {errors:?}");
        assert!(errors[0].reason.contains("`probe_faults = true` allows them"), "{errors:?}");
        assert_eq!(check_probes(Kind::Probe, &text, &routes(), (true, true)).unwrap(), Name::from("probe"));
        let errors = check_probes(Kind::Probe, &text, &routes(), (false, true)).unwrap_err();
        assert_eq!(errors[0].pointer, "/kind", "{text}");
    }
}

#[test]
fn accepted_payloads() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}});
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let mini = "chat:gpt-4o-mini:default";
    assert_accepted(
        Kind::Llm,
        vec![
            (json!({}), mini),
            (json!({"model": "tiny", "max_tokens": 400}), "chat:tiny:default"),
            (json!({"model": null, "temperature": null, "stream": null}), mini),
            (user(json!("NUL \u{0} and 日本語 and \u{1F600}")), mini),
            (
                user(
                    json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}]),
                ),
                mini,
            ),
            (
                json!({"n": 1, "seed": -5, "stop": "x", "temperature": 2, "top_p": 0, "repair": 0, "on_truncated": "fail"}),
                mini,
            ),
            (
                json!({"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false}),
                mini,
            ),
            (
                json!({"messages": [
                    {"role": "developer", "content": "d"}, {"role": "user", "content": "u", "name": "ann"},
                    {"role": "assistant", "content": null, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "c1", "content": "42"}
                ]}),
                mini,
            ),
            (
                schema(
                    json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}}),
                ),
                mini,
            ),
            (
                json!({"extra": {"top_k": 40, "chat_template_kwargs": {"enable_thinking": false}}, "metadata": {"a": "b"}, "logit_bias": {"1": -100}}),
                mini,
            ),
        ],
    );
    assert_accepted(
        Kind::Embedding,
        vec![
            (json!({}), "vectors:embed-small:default"),
            (json!({"input": "one", "dimensions": 256, "model": "embed-large"}), "vectors:embed-large:default"),
            (json!({"input": vec!["a"; 2_048]}), "vectors:embed-small:default"),
        ],
    );
    assert_accepted(
        Kind::Analysis,
        vec![
            (json!({}), mini),
            (map(json!({"prompt": "{\"a\": {\"b\": {}}} {{ chunk }} {{index}}/{{total}} {{not a name}}"})), mini),
            (
                json!({
                    "input": {"text": "# A", "format": "markdown"},
                    "defaults": {"model": "tiny", "max_tokens": 100, "temperature": 0, "seed": 1, "extra": {"top_k": 1}},
                    "chunk": {"by": "tokens", "size": 200, "overlap": 20, "splitter": "markdown", "tokenizer": "auto", "max_chunks": 9},
                    "map": {"prompt": "{{chunk}}", "schema": {"type": "object"}, "strict": false, "repair": 1, "concurrency": 2, "on_error": "skip", "max_failed_ratio": 0.05},
                    "reduce": {"strategy": "tree", "prompt": "{{items}}", "fan_in": 4, "max_depth": 3, "schema": {}},
                    "embed": {"model": "embed-small", "dimensions": 8, "sink": "result"},
                    "limits": {"max_calls": 60}
                }),
                "chat:tiny:default",
            ),
            (
                json!({"map": {"prompt": "{{chunk}}", "schema": {"type": "array"}}, "reduce": {"strategy": "merge_arrays", "dedupe_by": ["/name", ""]}}),
                mini,
            ),
            (reduce(json!({"strategy": "refine", "prompt": "{{previous}} {{chunk}} {{index}}"})), mini),
        ],
    );
    assert_accepted(
        Kind::Probe,
        vec![
            (json!({}), "probe"),
            (json!({"sleep_ms": 5, "pad": "x\u{0}", "result_bytes": 1, "fail": "abort", "fail_times": 0}), "probe"),
        ],
    );
}

#[test]
fn all_mistakes_are_told_at_once_and_not_a_million() {
    let payload = json!({"messages": [{"role": "x", "content": 1}], "temperature": 9, "model": "nobody", "top_k": 1});
    let errors = check(Kind::Llm, &payload.to_string(), &routes(), true).unwrap_err();
    let mut pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
    pointers.sort_unstable();
    let all = [
        "/payload/messages/0/content",
        "/payload/messages/0/role",
        "/payload/model",
        "/payload/temperature",
        "/payload/top_k",
    ];
    assert_eq!(pointers, all);

    let hostile = json!({"input": vec![""; 2_048]}).to_string();
    assert_eq!(check(Kind::Embedding, &hostile, &routes(), true).unwrap_err().len(), fields::ERRORS_MAX);
    let many: serde_json::Map<String, Value> = (0..5_000).map(|n| (format!("k{n}"), json!(1))).collect();
    for kind in Kind::ALL {
        let errors = check(kind, &json!(many).to_string(), &routes(), true).unwrap_err();
        assert_eq!(errors.len(), fields::ERRORS_MAX, "{kind:?}");
    }
}

#[test]
fn without_a_default_a_model_must_be_named() {
    let bare = Routes { default_model: None, default_embedding_model: None, ..routes() };
    for (kind, pointer) in [
        (Kind::Llm, "/payload/model"),
        (Kind::Embedding, "/payload/model"),
        (Kind::Analysis, "/payload/defaults/model"),
    ] {
        let errors = check(kind, &with(kind, json!({})), &bare, true).unwrap_err();
        assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, pointer), "{errors:?}");
        assert!(errors[0].reason.contains("no default model"));
    }
    let nobody = Routes::default();
    let errors = check(Kind::Llm, &with(Kind::Llm, json!({"model": "gpt-4"})), &nobody, true).unwrap_err();
    assert!(errors[0].reason.contains("none is configured"), "{errors:?}");
}

#[test]
fn what_is_sent_on_is_the_request_and_nothing_of_ours() {
    let payload = with(
        Kind::Llm,
        json!({
            "model": "tiny", "repair": 1, "on_truncated": "fail", "n": 1, "temperature": 0.5, "seed": null,
            "extra": {"top_k": 40}
        }),
    );
    let llm = llm::Llm::read(&payload).unwrap();
    let mut names: Vec<_> = llm.body.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["messages", "temperature", "top_k"]);
    assert_eq!((llm.model.as_deref(), llm.repair, llm.on_truncated), (Some("tiny"), 1, llm::OnTruncated::Fail));

    let payload = with(Kind::Analysis, json!({"defaults": {"model": "tiny", "max_tokens": 9, "extra": {"top_k": 1}}}));
    let analysis = analysis::Analysis::read(&payload).unwrap();
    assert_eq!(json!(analysis.defaults), json!({"max_tokens": 9, "top_k": 1}));
    assert_eq!(analysis.answer_tokens(), Some(9));
}
