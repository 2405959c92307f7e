//! The messages of a chat request.

use serde_json::Value;

use super::{
    fields::{Errors, Object, list_at},
    tools,
};

/// Most messages of one request.
pub const MESSAGES_MAX: usize = 1_000;
/// Most bytes of prompt text: what is longer fits no model's window at the prices of today, and is an `analysis`.
pub const PROMPT_MAX_BYTES: usize = 1024 * 1024;
/// Most parts of one message.
const PARTS_MAX: usize = 256;
/// Longest name of a speaker, as at OpenAI.
const NAME_MAX_BYTES: usize = 64;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const KNOWN: [&str; 6] = ["role", "content", "name", "tool_calls", "tool_call_id", "refusal"];

/// Checks the messages and returns the texts in them.
pub(super) fn check<'a>(object: &Object<'a>, errors: &mut Errors) -> Vec<&'a str> {
    let mut texts = Vec::new();
    let Some(value) = object.require("messages", "an array of {role, content}", errors) else { return texts };
    let at = object.at("messages");
    let Some(list) = list_at(value, at, MESSAGES_MAX, errors) else { return texts };
    for (index, value) in list.iter().enumerate() {
        if errors.is_full() {
            break;
        }
        collect_texts(value, &mut texts);
        let place = at.item(index);
        if let Some(message) = Object::open(value, &place, &KNOWN, "", errors) {
            check_one(&message, errors);
        }
    }
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    if bytes > PROMPT_MAX_BYTES {
        let reason = format!("hold {bytes} bytes of text; the limit is {PROMPT_MAX_BYTES}. Use an `analysis` job");
        errors.wrong(at, reason);
    }
    texts
}

fn check_one(message: &Object<'_>, errors: &mut Errors) {
    let role = match message.get("role") {
        Some(_) => message.word("role", &ROLES, errors),
        None => {
            message.wrong("role", "is required: one of system, developer, user, assistant, tool", errors);
            None
        }
    };
    message.label("name", NAME_MAX_BYTES, errors);
    message.text("refusal", errors);
    if role == Some("tool") {
        message.require("tool_call_id", "the call that this message answers", errors);
    } else if role.is_some() {
        message.refuse("tool_call_id", "belongs to messages of the role `tool`", errors);
    }
    message.label("tool_call_id", 256, errors);
    if role.is_some_and(|role| role != "assistant") {
        message.refuse("tool_calls", "belongs to messages of the role `assistant`", errors);
        message.refuse("refusal", "belongs to messages of the role `assistant`", errors);
    } else {
        tools::check_calls(message, errors);
    }
    content(message, role, errors);
}

fn content(message: &Object<'_>, role: Option<&str>, errors: &mut Errors) {
    match message.get("content") {
        Some(Value::String(_)) => {}
        Some(Value::Array(_)) => parts(message, role, errors),
        Some(other) => errors.mismatch(message.at("content"), "a string or an array of parts", other),
        None if message.get("tool_calls").is_some() || message.get("refusal").is_some() => {}
        None => message.wrong("content", "is required: a string or an array of parts", errors),
    }
}

fn parts(message: &Object<'_>, role: Option<&str>, errors: &mut Errors) {
    let Some(list) = message.list("content", PARTS_MAX, errors) else { return };
    let at = message.at("content");
    for (index, value) in list.iter().enumerate() {
        if errors.is_full() {
            return;
        }
        let place = at.item(index);
        let Some(part) = Object::open(value, &place, &["type", "text", "image_url"], "", errors) else { continue };
        if part.require("type", "`text` or `image_url`", errors).is_none() {
            continue;
        }
        match part.word("type", &["text", "image_url"], errors) {
            Some("text") => {
                part.refuse("image_url", "belongs to parts of the type `image_url`", errors);
                part.require("text", "the text of the part", errors);
                part.text("text", errors);
            }
            Some(_) => {
                part.refuse("text", "belongs to parts of the type `text`", errors);
                if role.is_some_and(|role| role != "user") {
                    part.wrong("type", "must be `text`: only messages of the role `user` hold images", errors);
                }
                image(&part, errors);
            }
            None => {}
        }
    }
}

fn image(part: &Object<'_>, errors: &mut Errors) {
    let Some(value) = part.require("image_url", "{url}", errors) else { return };
    let at = part.at("image_url");
    let Some(image) = Object::open(value, &at, &["url", "detail"], "", errors) else { return };
    image.word("detail", &["auto", "low", "high"], errors);
    image.require("url", "where the image is", errors);
    if let Some(url) = image.text("url", errors)
        && !["https://", "http://", "data:image/"].iter().any(|scheme| url.starts_with(scheme))
    {
        image.wrong("url", "must begin with https://, http:// or data:image/", errors);
    }
}

/// The texts of a message, also of one that is otherwise wrong.
fn collect_texts<'a>(message: &'a Value, texts: &mut Vec<&'a str>) {
    match message.get("content") {
        Some(Value::String(text)) => texts.push(text),
        Some(Value::Array(parts)) => texts.extend(parts.iter().filter_map(|part| part.get("text")?.as_str())),
        _ => {}
    }
}
