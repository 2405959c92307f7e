//! The items of an analysis that is given many small texts instead of one document, and how many of them share a call.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    analysis::{Analysis, CHUNK_TOKENS, CHUNKS_MAX, Input, Item, Pack, Splitter, TEXT_MAX_BYTES},
    fields::{At, Errors, Object, described_name, list_at},
    model, packed,
};

/// Longest id of an item: it stands in the result beside every answer.
const ID_MAX_BYTES: usize = 256;
/// Items that share a call, of a job that names no number.
const PACKED_DEFAULT: u64 = 20;
/// Items that a job may let share a call: models lose count in longer lists, and one bad answer costs more.
const PACKED_MAX: u64 = 100;

/// `items` at `at`, which must be texts or objects with a text.
pub(super) fn items(value: &Value, at: &At<'_>, errors: &mut Errors) -> Input {
    let mut input = Input::default();
    let mut known = HashSet::new();
    for (index, value) in list_at(value, *at, CHUNKS_MAX as usize, errors).into_iter().flatten().enumerate() {
        let place = at.item(index);
        let (id, text, text_at) = match value {
            Value::String(text) => (None, Some(text.as_str()), place),
            Value::Object(_) => {
                check_object(value, &place, &mut known, errors);
                (text_in(value, "id"), text_in(value, "text"), place.member("text"))
            }
            other => {
                errors.mismatch(place, "a string or an object {id?, text}", other);
                continue;
            }
        };
        match text {
            None => {}
            Some(text) if text.trim().is_empty() => errors.wrong(text_at, "must not be empty"),
            Some(text) if input.text.len() + text.len() <= TEXT_MAX_BYTES => {
                let start = input.text.len();
                input.text.push_str(text);
                input.items.push(Item { id: id.map(str::to_owned), start, end: input.text.len() });
            }
            Some(_) => {
                errors
                    .wrong(*at, format!("have more than {TEXT_MAX_BYTES} bytes in all. Split them over several jobs"));
                break;
            }
        }
        if errors.is_full() {
            break;
        }
    }
    input
}

/// Notes what is wrong with an item that is an object, whose id must not be among those in `known`.
fn check_object<'v>(value: &'v Value, place: &At<'_>, known: &mut HashSet<&'v str>, errors: &mut Errors) {
    let Some(item) = Object::open(value, place, &["id", "text"], "", errors) else { return };
    item.label("id", ID_MAX_BYTES, errors);
    if let Some(id) = text_in(value, "id").filter(|id| !known.insert(id)) {
        item.wrong("id", format!("is given twice: {}", described_name(id)), errors);
    }
    item.require("text", "what the item says", errors);
    item.text("text", errors);
}

fn text_in<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

/// The member `pack` of `chunk`; `size` is that of a chunk.
pub(super) fn pack(chunk: &Object<'_>, size: u64, input: Option<&Value>, errors: &mut Errors) -> Option<Pack> {
    let value = chunk.get("pack")?;
    if input.is_some_and(|input| input.get("items").is_none_or(Value::is_null)) {
        chunk.wrong("pack", "is for `input.items`: the chunks of one text are asked about one by one", errors);
        return None;
    }
    let at = chunk.at("pack");
    let pack = Object::open(value, &at, &["max_tokens", "max_items"], "", errors)?;
    let tokens = pack.whole("max_tokens", CHUNK_TOKENS, errors).unwrap_or(size);
    let items = pack.whole("max_items", 2..=PACKED_MAX, errors).unwrap_or(PACKED_DEFAULT);
    Some(Pack { tokens, items: items as usize })
}

/// Refuses items that certainly make too many calls, and a schema that cannot stand inside the one of a packed call.
pub(super) fn check(model: &str, object: &Object<'_>, analysis: &Analysis, errors: &mut Errors) {
    let Analysis { cut, items, .. } = analysis;
    let least = least_calls(model, analysis);
    if least > cut.max_chunks as u64 {
        let most = cut.max_chunks;
        let reason = format!(
            "{} items need at least {least} calls; `chunk.max_chunks` is {most}: raise it, or let more items share a call \
             (`chunk.pack`)",
            items.len()
        );
        errors.wrong(object.at("input").member("items"), reason);
    }
    if let (Some(pack), Some(schema)) = (cut.pack, &analysis.map.schema)
        && model::compile(schema).is_ok()
        && let Err(reason) = model::compile(&packed::schema_for(Some(schema), pack.items))
    {
        let reason = format!("cannot be asked for several items at once: {}", packed::short(&reason));
        errors.wrong(object.at("map").member("schema"), reason);
    }
}

/// A number of calls that the items certainly need.
fn least_calls(model: &str, analysis: &Analysis) -> u64 {
    let Analysis { cut, items, text, .. } = analysis;
    let size = cut.size as u64;
    let pack = cut.pack.unwrap_or(Pack { tokens: size, items: 1 });
    let by_number = items.len().div_ceil(pack.items) as u64;
    let call_holds = pack.tokens.max(size);
    // A token has at least one byte, and an item that is never cut may have any number of them.
    let is_small = text.len() as u64 <= call_holds.saturating_mul(cut.max_chunks as u64);
    if cut.splitter == Splitter::None || is_small {
        return by_number;
    }
    by_number.max(model::at_least(model, &[text]).div_ceil(call_holds))
}
