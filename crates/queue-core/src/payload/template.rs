//! Prompts with variables: `{{name}}`, no logic.

use super::fields::{Errors, Object, described_name};

/// Longest prompt or system text: it goes with every call of its step.
pub(super) const PROMPT_MAX_BYTES: usize = 64 * 1024;

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Variable(&'t str),
}

/// The pieces of `template`. Braces around anything but a name are text, so that a prompt may show JSON.
fn pieces(template: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut rest, mut from) = (Vec::new(), template, 0);
    while let Some(open) = rest[from..].find("{{").map(|at| from + at) {
        let name = rest[open + 2..].find("}}").map(|at| rest[open + 2..open + 2 + at].trim());
        let Some(name) = name.filter(|name| is_name(name)) else {
            // One brace further: `{{{name}}` holds a variable too.
            from = open + 1;
            continue;
        };
        let after = open + 2 + rest[open + 2..].find("}}").unwrap_or_default() + 2;
        pieces.extend([Piece::Text(&rest[..open]), Piece::Variable(name)]);
        (rest, from) = (&rest[after..], 0);
    }
    pieces.push(Piece::Text(rest));
    pieces
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
}

/// The template with its variables filled in, in one pass: text that is put in is not looked at again. A variable
/// without a value stays as it stands.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    for piece in pieces(template) {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Variable(name) => match values.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => filled.push_str(value),
                None => filled.extend(["{{", name, "}}"]),
            },
        }
    }
    filled
}

/// The template that the member `name` holds: all of the variables in `must`, and none but these and those in `may`.
pub(super) fn read<'a>(
    object: &Object<'a>,
    name: &'a str,
    must: &[&str],
    may: &[&str],
    errors: &mut Errors,
) -> Option<&'a str> {
    let text = object.label(name, PROMPT_MAX_BYTES, errors)?;
    let braced = |names: &[&str]| names.iter().map(|name| format!("{{{{{name}}}}}")).collect::<Vec<_>>().join(", ");
    let known = [must, may].concat();
    let used: Vec<&str> = pieces(text)
        .into_iter()
        .filter_map(|piece| match piece {
            Piece::Variable(name) => Some(name),
            Piece::Text(_) => None,
        })
        .collect();
    if let Some(stranger) = used.iter().find(|name| !known.contains(name)) {
        let reason = format!("uses the variable {}; here are only {}", described_name(stranger), braced(&known));
        object.wrong(name, reason, errors);
    }
    let missing: Vec<&str> = must.iter().copied().filter(|name| !used.contains(name)).collect();
    if !missing.is_empty() {
        object.wrong(name, format!("must contain {}", braced(&missing)), errors);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in_one_pass() {
        let filled = fill("{{chunk}} of {{ total }} {{x}} {{", &[("chunk", "{{total}}"), ("total", "9")]);
        assert_eq!(filled, "{{total}} of 9 {{x}} {{");
    }

    #[test]
    fn braces_around_anything_but_a_name_are_text() {
        for text in ["{{\"a\": 1}}", "{{}}", "{{ }}", "{\"a\":{\"b\":{}}}", "}}{{", "{{a b}}", "{{ä}}"] {
            assert_eq!(pieces(text), vec![Piece::Text(text)], "{text}");
        }
        assert_eq!(fill("{{{a}} {{\"x\": {{a}}}}", &[("a", "1")]), "{1 {{\"x\": 1}}");
    }
}
