//! The tools of a chat request, and the calls of tools in its messages.

use serde_json::Value;

use super::{
    fields::{At, Errors, Object, described_name},
    model,
};

/// Most tools of one request, as at OpenAI.
pub const TOOLS_MAX: usize = 128;
/// Longest name of a tool or schema, as at OpenAI.
pub(super) const NAME_MAX_BYTES: usize = 64;
/// Most calls of tools in one message: a model that makes more has lost its way.
const CALLS_MAX: usize = 128;

/// A name of a tool or schema: letters, digits, `_` and `-`.
pub(super) fn check_name(object: &Object<'_>, errors: &mut Errors) {
    object.require("name", "1 to 64 letters, digits, `_` or `-`", errors);
    let Some(name) = object.label("name", NAME_MAX_BYTES, errors) else { return };
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        object.wrong("name", "may have letters, digits, `_` and `-` only", errors);
    }
}

/// Checks `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn check(object: &Object<'_>, errors: &mut Errors) {
    object.flag("parallel_tool_calls", errors);
    let Some(_) = object.get("tools") else {
        object.refuse("tool_choice", "has no use without `tools`", errors);
        object.refuse("parallel_tool_calls", "has no use without `tools`", errors);
        return;
    };
    let list = object.list("tools", TOOLS_MAX, errors).unwrap_or_default();
    let at = object.at("tools");
    for (index, value) in list.iter().enumerate() {
        if errors.is_full() {
            return;
        }
        check_tool(value, at.item(index), errors);
    }
    choice(object, list, errors);
}

fn check_tool(value: &Value, at: At<'_>, errors: &mut Errors) {
    let Some(tool) = Object::open(value, &at, &["type", "function"], "", errors) else { return };
    tool.require("type", "`function`", errors);
    tool.word("type", &["function"], errors);
    let Some(value) = tool.require("function", "{name, description, parameters}", errors) else { return };
    let at = tool.at("function");
    let known = ["name", "description", "parameters", "strict"];
    let Some(function) = Object::open(value, &at, &known, "", errors) else { return };
    check_name(&function, errors);
    function.text("description", errors);
    function.flag("strict", errors);
    if let Some(parameters) = function.get("parameters") {
        model::check_schema(parameters, function.at("parameters"), errors);
    }
}

fn choice(object: &Object<'_>, tools: &[Value], errors: &mut Errors) {
    let at = object.at("tool_choice");
    match object.get("tool_choice") {
        None => {}
        Some(Value::String(_)) => {
            object.word("tool_choice", &["none", "auto", "required"], errors);
        }
        Some(value) => {
            let Some(choice) = Object::open(value, &at, &["type", "function"], "", errors) else { return };
            choice.require("type", "`function`", errors);
            choice.word("type", &["function"], errors);
            let Some(value) = choice.require("function", "{name}", errors) else { return };
            let at = choice.at("function");
            let Some(function) = Object::open(value, &at, &["name"], "", errors) else { return };
            function.require("name", "the tool to call", errors);
            if let Some(name) = function.text("name", errors)
                && !tools.iter().any(|tool| tool.pointer("/function/name").and_then(Value::as_str) == Some(name))
            {
                function.wrong("name", format!("{} is none of `tools`", described_name(name)), errors);
            }
        }
    }
}

/// Checks the `tool_calls` of a message.
pub(super) fn check_calls(message: &Object<'_>, errors: &mut Errors) {
    let list = message.list("tool_calls", CALLS_MAX, errors).unwrap_or_default();
    let at = message.at("tool_calls");
    for (index, value) in list.iter().enumerate() {
        let place = at.item(index);
        let Some(call) = Object::open(value, &place, &["id", "type", "function"], "", errors) else { continue };
        call.require("id", "the call's id", errors);
        call.label("id", 256, errors);
        call.word("type", &["function"], errors);
        let Some(value) = call.require("function", "{name, arguments}", errors) else { continue };
        let at = call.at("function");
        let Some(function) = Object::open(value, &at, &["name", "arguments"], "", errors) else { continue };
        function.require("name", "the tool's name", errors);
        function.text("name", errors);
        function.require("arguments", "the arguments as JSON text", errors);
        function.text("arguments", errors);
    }
}
