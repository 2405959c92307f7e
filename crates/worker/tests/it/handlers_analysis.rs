//! `analysis` as whole jobs on real stores: how a document is cut, asked about and joined, and what ends it.

use crate::analysing::{HARBOUR, dies, mapped, prompt, succeeds, sums, with};
use crate::script::{Script, ends, fails, inside, says};
use queue_core::error::ErrorClass;
use serde_json::{Value, json};
use worker::provider::ChatRequest;

fn names(schema: &Value) -> Value {
    json!({"map": {"schema": schema}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_answers_names_the_bytes_of_each_chunk() {
    for overlap in [0, 60] {
        let script = Script::new(|request, _| says(inside(prompt(request), "document")[0]));
        let result = succeeds(&script, &json!({"chunk": {"splitter": "text", "overlap": overlap}})).await;
        let parts = result["map"].as_array().unwrap();
        assert!(parts.len() > 8, "{} chunks", parts.len());
        assert_eq!((&result["chunks"], &result["calls"]), (&json!(parts.len()), &json!(parts.len())));
        assert_eq!((&result["model"], &result["provider"]), (&json!("small"), &json!("script")));
        let (mut covered, mut shared) = (0, 0);
        for (at, part) in parts.iter().enumerate() {
            let [start, end] = ["start", "end"].map(|name| part[name].as_u64().unwrap() as usize);
            assert_eq!((&part["index"], &part["output"]), (&json!(at), &json!(&HARBOUR[start..end])));
            assert_eq!(result["output"][at], part["output"]);
            assert!(start >= covered || HARBOUR[start..covered].len() < 60 * 3 + 3, "{start} after {covered}");
            shared += covered.saturating_sub(start);
            assert!(start <= covered || HARBOUR[covered..start].trim().is_empty(), "text was left out");
            covered = end;
        }
        assert!(HARBOUR[covered..].trim().is_empty());
        assert_eq!(shared > 0, overlap > 0);
        assert!(prompt(&script.asked()[0]).starts_with(&format!("MAP 1/{}\n", parts.len())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concat_joins_the_texts_in_order() {
    let script = Script::new(|request, _| says(format!("part {}", mapped(request).unwrap())));
    let result = succeeds(&script, &json!({"reduce": {"strategy": "concat"}})).await;
    let wanted: Vec<String> = (1..=result["chunks"].as_u64().unwrap()).map(|number| format!("part {number}")).collect();
    assert_eq!(result["output"], wanted.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merged_items_point_at_the_text_they_come_from() {
    let script = Script::new(|request, _| {
        let text = inside(prompt(request), "document")[0];
        let word = text.split_whitespace().max_by_key(|word| word.len()).unwrap();
        says(json!({"facts": [{"name": word}, {"name": "everywhere"}]}).to_string())
    });
    let schema = json!({"type": "object", "properties": {"facts": {"type": "array"}}, "required": ["facts"]});
    let reduce = json!({"reduce": {"strategy": "merge_arrays", "dedupe_by": ["/name"]}});
    let result = succeeds(&script, &with(names(&schema), &reduce)).await;
    let facts = result["output"]["facts"].as_array().unwrap();
    assert_eq!(facts.iter().filter(|fact| fact["name"] == "everywhere").count(), 1);
    assert_eq!(facts.len() as u64, result["chunks"].as_u64().unwrap() + 1);
    for fact in facts.iter().filter(|fact| fact["name"] != "everywhere") {
        let [start, end] = ["start", "end"].map(|name| fact["_source"][name].as_u64().unwrap() as usize);
        assert!(HARBOUR[start..end].contains(fact["name"].as_str().unwrap()), "{fact}");
    }
    assert_eq!(script.asked().len() as u64, result["chunks"].as_u64().unwrap(), "joining calls nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_goes_into_a_joining_call_once() {
    for (reduce, joins) in [
        (json!({"strategy": "tree", "fan_in": 3, "prompt": "SUM\n{{items}}"}), None),
        (json!({"strategy": "tree", "fan_in": 100, "prompt": "SUM\n{{items}}"}), Some(1)),
        (json!({"strategy": "llm", "prompt": "SUM\n{{items}}"}), Some(1)),
        (json!({"strategy": "refine", "prompt": "REFINE {{previous}} WITH\n{{chunk}}"}), Some(0)),
    ] {
        let script = Script::new(sums);
        let result = succeeds(&script, &json!({"reduce": reduce})).await;
        let chunks = result["chunks"].as_u64().unwrap();
        assert_eq!(result["output"], chunks.to_string(), "{reduce}");
        let calls = script.asked().len() as u64;
        assert_eq!(result["calls"], calls);
        match joins {
            Some(joins) => assert_eq!(calls, chunks + joins, "{reduce}"),
            None => assert!(calls > chunks + 2, "a tree of several levels: {calls} calls for {chunks} chunks"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refining_takes_the_chunks_in_turn() {
    let script = Script::new(sums);
    let reduce = json!({"strategy": "refine", "prompt": "REFINE {{previous}} WITH {{index}}/{{total}}\n{{chunk}}"});
    let result = succeeds(&script, &json!({"reduce": reduce})).await;
    let parts = result["map"].as_array().unwrap();
    assert_eq!(parts.len(), 1, "only the first chunk is mapped");
    let mut covered = parts[0]["end"].as_u64().unwrap() as usize;
    for (at, request) in script.asked().iter().enumerate().skip(1) {
        let text = inside(prompt(request), "document")[0];
        covered += HARBOUR[covered..].find(text).expect("the next chunk") + text.len();
        assert!(prompt(request).contains(&format!("WITH {}/{}\n", at + 1, result["chunks"])));
    }
    assert!(HARBOUR[covered..].trim().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_chunk_needs_no_tree() {
    let script = Script::new(sums);
    let reduce = json!({"strategy": "tree", "prompt": "SUM\n{{items}}"});
    let result = succeeds(&script, &json!({"chunk": {"splitter": "none"}, "reduce": reduce})).await;
    assert_eq!((&result["output"], &result["calls"]), (&json!("1"), &json!(1)));
    let part = &result["map"][0];
    assert_eq!((&part["start"], &part["end"]), (&json!(0), &json!(HARBOUR.len())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_both_steps_are_checked_and_repaired() {
    let script = Script::new(|request, _| match request.body["messages"].as_array().unwrap().len() {
        2 => says("no number"),
        _ => says(json!({"n": 1}).to_string()),
    });
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let reduce = json!({"strategy": "llm", "prompt": "SUM\n{{items}}", "schema": schema});
    let more = with(names(&schema), &json!({"reduce": reduce, "map": {"strict": false}}));
    let result = succeeds(&script, &more).await;
    assert_eq!((&result["output"], &result["map"][0]["output"]), (&json!({"n": 1}), &json!({"n": 1})));
    let asked = script.asked();
    assert_eq!(asked.len() as u64, 2 * (result["chunks"].as_u64().unwrap() + 1), "one repair a step");
    assert!(asked.iter().all(|request| request.body["response_format"]["json_schema"]["strict"] == false));

    let script = Script::new(|_, _| says("no number"));
    let (class, _) = dies(&script, &with(more, &json!({"map": {"repair": 2}}))).await;
    assert_eq!((class, script.asked().len()), (ErrorClass::InvalidOutput, 3), "repairs end; no other chunk is paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_grows_ends() {
    let script = Script::new(|request, _| says(if mapped(request).is_some() { "short" } else { LONG }));
    let reduce = json!({"strategy": "tree", "fan_in": 2, "max_depth": 20, "prompt": "JOIN\n{{items}}"});
    let (class, code) = dies(&script, &json!({"reduce": reduce})).await;
    assert_eq!((class, code.as_str()), (ErrorClass::Overflow, "does_not_shrink"));
    let joins = script.asked().iter().filter(|request| mapped(request).is_none()).count();
    let chunks = script.asked().len() - joins;
    assert_eq!(joins, chunks / 2, "it ended after the first level");
}

/// 2,000 tokens for a model whose tokens are estimated, since nobody knows its vocabulary.
const LONG: &str = {
    const BYTES: [u8; 6_000] = [b'x'; 6_000];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_has_no_room_is_halved() {
    // Its window is 8,192 tokens: four such answers have room in one call, the five or more of a group have not.
    let script = Script::new(|request, _| says(if mapped(request).is_some() { LONG } else { "short" }));
    let reduce = json!({"strategy": "tree", "fan_in": 100, "prompt": "JOIN\n{{items}}"});
    let more = json!({"reduce": reduce, "defaults": {"model": "simulated-embedding"}, "chunk": {"size": 150}});
    let result = succeeds(&script, &more).await;
    assert_eq!(result["output"], "short");
    let joins = script.asked().iter().filter(|request| mapped(request).is_none()).count();
    assert!(joins > 2, "{joins} joining calls");

    // All in one call has no such way out, and pays nothing for a call that has no room.
    let script = Script::new(|request, _| says(if mapped(request).is_some() { LONG } else { "short" }));
    let reduce = json!({"reduce": {"strategy": "llm", "prompt": "JOIN\n{{items}}"}});
    let (class, code) = dies(&script, &with(json!({"defaults": {"model": "simulated-embedding"}}), &reduce)).await;
    assert_eq!((class, code.as_str()), (ErrorClass::Overflow, "window"));
    assert!(script.asked().iter().all(|request| mapped(request).is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_met_before_anything_is_paid() {
    let tree = |more: &Value| with(json!({"reduce": {"strategy": "tree", "prompt": "{{items}}"}}), more);
    for (more, code) in [
        (json!({"limits": {"max_calls": 5}}), "max_calls"),
        (json!({"chunk": {"max_chunks": 5}}), "max_chunks"),
        (tree(&json!({"reduce": {"fan_in": 2, "max_depth": 2}})), "max_depth"),
    ] {
        let script = Script::new(sums);
        assert_eq!(dies(&script, &more).await, (ErrorClass::Permanent, code.to_owned()));
        assert!(script.asked().is_empty(), "{code}");
    }
    // Repairs are calls, too.
    let script = Script::new(|_, _| says("[]"));
    let more = json!({"chunk": {"splitter": "none"}, "limits": {"max_calls": 2}, "map": {"repair": 3}});
    let (_, code) = dies(&script, &with(names(&json!({"type": "object"})), &more)).await;
    assert_eq!((code.as_str(), script.asked().len()), ("max_calls", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_may_be_lost_as_far_as_the_job_says() {
    let withheld = |request: &ChatRequest, _: u32| match mapped(request) {
        Some(2) => ends("", "content_filter"),
        Some(3) => says("no object"),
        _ => says("{}"),
    };
    let skip = json!({"map": {"on_error": "skip", "repair": 1, "schema": {"type": "object"}}});
    let script = Script::new(withheld);
    let result = succeeds(&script, &skip).await;
    let chunks = result["chunks"].as_u64().unwrap();
    assert_eq!(result["output"].as_array().unwrap().len() as u64, chunks - 2);
    let classes: Vec<_> =
        result["map"].as_array().unwrap().iter().map(|part| part["error"]["class"].as_str()).collect();
    assert_eq!(classes[..4], [None, Some("filtered"), Some("invalid_output"), None]);
    assert!(result["map"][1].get("output").is_none());

    let few = with(skip.clone(), &json!({"map": {"max_failed_ratio": 0.1}}));
    let (class, _) = dies(&Script::new(withheld), &few).await;
    assert!(matches!(class, ErrorClass::Filtered | ErrorClass::InvalidOutput), "{class:?}");
    let (class, _) = dies(&Script::new(|_, _| ends("", "content_filter")), &skip).await;
    assert_eq!(class, ErrorClass::Filtered, "an analysis of nothing is none");
    // What would fail every chunk is no loss of one.
    let script =
        Script::new(|request, _| if mapped(request) == Some(2) { fails(ErrorClass::Auth) } else { says("{}") });
    assert_eq!(dies(&script, &skip).await.0, ErrorClass::Auth);
}
