//! Analyses of many items, and how many of them share a call.

use super::*;

fn packed(items: Vec<&str>, pack: Value) -> Value {
    json!({"input": {"items": items}, "chunk": {"pack": pack}})
}

#[test]
fn refused_items() {
    assert_refused(
        Kind::Analysis,
        vec![
            (input(json!({"text": "a", "items": ["b"]})), "/payload/input", "not both"),
            (input(json!({"items": []})), "/payload/input/items", "1 to 10000 elements, not 0"),
            (input(json!({"items": "a"})), "/payload/input/items", "must be an array of 1 to 10000"),
            (input(json!({"items": vec!["a"; 10_001]})), "/payload/input/items", "not 10001"),
            (input(json!({"items": ["a", 7]})), "/payload/input/items/1", "{id?, text}, not 7"),
            (input(json!({"items": ["a", " \n"]})), "/payload/input/items/1", "must not be empty"),
            (input(json!({"items": [{"text": ""}]})), "/payload/input/items/0/text", "must not be empty"),
            (input(json!({"items": [{"id": "a"}]})), "/payload/input/items/0/text", "is required"),
            (input(json!({"items": [{"id": 7, "text": "a"}]})), "/payload/input/items/0/id", "must be a string, not 7"),
            (input(json!({"items": [{"id": "", "text": "a"}]})), "/payload/input/items/0/id", "1 to 256 bytes, not 0"),
            (
                input(json!({"items": [{"txt": "b", "text": "a"}]})),
                "/payload/input/items/0/txt",
                "did you mean `text`?",
            ),
            (
                input(json!({"items": [{"id": "x", "text": "a"}, "b", {"id": "x", "text": "c"}]})),
                "/payload/input/items/2/id",
                "is given twice: `x`",
            ),
            (input(json!({"items": vec!["a"; 501]})), "/payload/input/items", "501 items need at least 501 calls"),
            (packed(vec!["a"; 1_500], json!({"max_items": 2})), "/payload/input/items", "need at least 750 calls"),
            (packed(vec!["a"], json!(true)), "/payload/chunk/pack", "must be an object"),
            (packed(vec!["a"], json!({"max_items": 1})), "/payload/chunk/pack/max_items", "from 2 to 100, not 1"),
            (packed(vec!["a"], json!({"max_items": 101})), "/payload/chunk/pack/max_items", "from 2 to 100, not 101"),
            (
                packed(vec!["a"], json!({"max_tokens": 15})),
                "/payload/chunk/pack/max_tokens",
                "from 16 to 100000, not 15",
            ),
            (packed(vec!["a"], json!({"max_item": 3})), "/payload/chunk/pack/max_item", "did you mean `max_items`?"),
            (chunk(json!({"pack": {}})), "/payload/chunk/pack", "is for `input.items`"),
            (
                json!({"input": {"items": ["a"]}, "chunk": {"pack": {}}, "cache": {"ttl": "1h"}}),
                "/payload/cache",
                "leave out `chunk.pack`",
            ),
            (
                json!({"input": {"items": ["a"]}, "reduce": {"strategy": "refine", "prompt": "{{previous}} {{chunk}}"}}),
                "/payload/reduce/strategy",
                "goes through one document",
            ),
        ],
    );
}

#[test]
fn accepted_items() {
    let mini = "chat:gpt-4o-mini:default";
    assert_accepted(
        Kind::Analysis,
        vec![
            (input(json!({"items": ["a", {"text": "b"}, {"id": "c", "text": "c"}, {"id": null, "text": "c"}]})), mini),
            (packed(vec!["a"; 10_000], json!({})), mini),
            (packed(vec!["a"], json!({"max_tokens": 6_000, "max_items": 100})), mini),
        ],
    );
}

#[test]
fn a_schema_that_cannot_be_packed_is_refused_where_it_is_packed() {
    // Its definition has an address of its own, which the packed schema takes away.
    let schema = json!({"$id": "https://example.com/a", "$ref": "https://example.com/a#/$defs/x", "$defs": {"x": {}}});
    let with_schema = |mut more: Value| {
        more["map"] = json!({"prompt": "{{chunk}}", "schema": schema});
        more
    };
    assert_refused(
        Kind::Analysis,
        vec![(with_schema(packed(vec!["a"], json!({}))), "/payload/map/schema", "several items at once")],
    );
    assert_accepted(Kind::Analysis, vec![(with_schema(json!({})), "chat:gpt-4o-mini:default")]);
}

#[test]
fn items_are_places_in_one_text() {
    let items = json!({"items": ["größe", {"id": "b", "text": "B"}, "c"], "format": "markdown"});
    let payload = with(Kind::Analysis, json!({"input": items, "chunk": {"size": 100, "pack": {}}}));
    let analysis = analysis::Analysis::read(&payload).unwrap();
    assert_eq!(analysis.text, "größeBc");
    let item = |id: Option<&str>, start, end| analysis::Item { id: id.map(str::to_owned), start, end };
    assert_eq!(analysis.items, [item(None, 0, 7), item(Some("b"), 7, 8), item(None, 8, 9)]);
    assert_eq!(analysis.cut.pack, Some(analysis::Pack { tokens: 100, items: 20 }));
    for (byte, index) in [(0, 0), (6, 0), (7, 1), (8, 2)] {
        assert_eq!(analysis.item_at(byte).map(|(index, _)| index), Some(index), "{byte}");
    }
    let document = analysis::Analysis::read(&with(Kind::Analysis, json!({}))).unwrap();
    assert_eq!((document.text.as_str(), document.item_at(0)), ("A document.", None));
}
