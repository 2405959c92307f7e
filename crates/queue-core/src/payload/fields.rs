//! Reads the members of a payload: each into its type and range, all errors together, each with its JSON pointer.

use std::{fmt, ops::RangeInclusive};

use serde_json::{Map, Value};

use super::FieldError;

/// Most errors of one payload: enough to repair it in one go, and a hostile one cannot make us collect a million.
pub(super) const ERRORS_MAX: usize = 20;
/// Most characters of a wrong word or name that an answer repeats.
const ECHO_MAX_CHARS: usize = 40;
/// Longest unknown name for which a known one is suggested: comparing costs the product of both lengths.
const SUGGEST_MAX_BYTES: usize = 64;

/// A place in the payload. Costs nothing until something is wrong there.
#[derive(Clone, Copy, Debug)]
pub(super) enum At<'a> {
    /// The job.
    Job,
    /// The payload itself.
    Payload,
    /// A member of an object.
    Member(&'a At<'a>, &'a str),
    /// An element of an array.
    Item(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    /// The member `name` of this place.
    pub(super) fn member(&'a self, name: &'a str) -> Self {
        Self::Member(self, name)
    }

    /// The element `index` of this place.
    pub(super) fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }
}

/// RFC 6901, from the job on.
impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => Ok(()),
            Self::Payload => f.write_str("/payload"),
            Self::Member(parent, name) if name.contains(['~', '/']) => {
                write!(f, "{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            Self::Member(parent, name) => write!(f, "{parent}/{name}"),
            Self::Item(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<FieldError>);

impl Errors {
    /// Notes that what stands at `at` is wrong.
    pub(super) fn wrong(&mut self, at: At<'_>, reason: impl Into<String>) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(FieldError::at(at.to_string(), reason));
        }
    }

    /// Notes that `value` is not `wanted`.
    pub(super) fn mismatch(&mut self, at: At<'_>, wanted: impl fmt::Display, value: &Value) {
        self.wrong(at, format!("must be {wanted}, not {}", described(value)));
    }

    /// Whether more errors would be dropped: long lists need not be read on.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= ERRORS_MAX
    }

    /// `value`, unless something was wrong. A reader that returns nothing has always said why.
    pub(super) fn settle<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// An object whose members are read one by one. A member that is `null` counts as not given.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) at: &'a At<'a>,
}

impl<'a> Object<'a> {
    /// `value` as an object that has no other members than `known`. `hint` follows the reason of an unknown one.
    pub(super) fn open(
        value: &'a Value,
        at: &'a At<'a>,
        known: &[&str],
        hint: &str,
        errors: &mut Errors,
    ) -> Option<Self> {
        let object = Self::open_any(value, at, errors)?;
        for name in object.map.keys().filter(|name| !known.contains(&name.as_str())) {
            errors.wrong(at.member(name), unknown(name, known, hint));
        }
        Some(object)
    }

    /// `value` as an object with any members.
    pub(super) fn open_any(value: &'a Value, at: &'a At<'a>, errors: &mut Errors) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, at }),
            other => {
                errors.mismatch(*at, "an object", other);
                None
            }
        }
    }

    /// The member `name`, if it is given.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Where the member `name` stands.
    pub(super) fn at(&self, name: &'a str) -> At<'a> {
        self.at.member(name)
    }

    /// Notes that the member `name` is wrong.
    pub(super) fn wrong(&self, name: &'a str, reason: impl Into<String>, errors: &mut Errors) {
        errors.wrong(self.at(name), reason);
    }

    /// Refuses a member that is given.
    pub(super) fn refuse(&self, name: &'a str, reason: &str, errors: &mut Errors) {
        if self.get(name).is_some() {
            self.wrong(name, reason, errors);
        }
    }

    /// Notes the absence of a member that must be there.
    pub(super) fn require(&self, name: &'a str, what: &str, errors: &mut Errors) -> Option<&'a Value> {
        let value = self.get(name);
        if value.is_none() {
            self.wrong(name, format!("is required: {what}"), errors);
        }
        value
    }

    /// A string.
    pub(super) fn text(&self, name: &'a str, errors: &mut Errors) -> Option<&'a str> {
        match self.get(name)? {
            Value::String(text) => Some(text),
            other => {
                errors.mismatch(self.at(name), "a string", other);
                None
            }
        }
    }

    /// A string of 1 to `max` bytes.
    pub(super) fn label(&self, name: &'a str, max: usize, errors: &mut Errors) -> Option<&'a str> {
        let text = self.text(name, errors)?;
        if text.is_empty() || text.len() > max {
            let reason = format!("must have 1 to {max} bytes, not {}", text.len());
            self.wrong(name, reason, errors);
            return None;
        }
        Some(text)
    }

    /// One of `words`.
    pub(super) fn word(&self, name: &'a str, words: &[&'static str], errors: &mut Errors) -> Option<&'static str> {
        let text = self.text(name, errors)?;
        let word = words.iter().find(|word| **word == text);
        if word.is_none() {
            let reason = format!("must be one of {}, not {}", listed(words), described_name(text));
            self.wrong(name, reason, errors);
        }
        word.copied()
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &'a str, errors: &mut Errors) -> Option<bool> {
        match self.get(name)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                errors.mismatch(self.at(name), "true or false", other);
                None
            }
        }
    }

    /// A whole number.
    pub(super) fn whole(&self, name: &'a str, range: RangeInclusive<u64>, errors: &mut Errors) -> Option<u64> {
        let value = self.get(name)?;
        let whole = value.as_u64().filter(|whole| range.contains(whole));
        if whole.is_none() {
            let wanted = match (*range.start(), *range.end()) {
                (low, u64::MAX) => format!("a whole number of at least {low}"),
                (low, high) => format!("a whole number from {low} to {high}"),
            };
            errors.mismatch(self.at(name), wanted, value);
        }
        whole
    }

    /// A number.
    pub(super) fn number(&self, name: &'a str, range: RangeInclusive<f64>, errors: &mut Errors) -> Option<f64> {
        let value = self.get(name)?;
        let number = value.as_f64().filter(|number| range.contains(number));
        if number.is_none() {
            let wanted = format!("a number from {} to {}", range.start(), range.end());
            errors.mismatch(self.at(name), wanted, value);
        }
        number
    }

    /// An array of 1 to `max` elements.
    pub(super) fn list(&self, name: &'a str, max: usize, errors: &mut Errors) -> Option<&'a [Value]> {
        list_at(self.get(name)?, self.at(name), max, errors)
    }
}

/// `value` as an array of 1 to `max` elements.
pub(super) fn list_at<'a>(value: &'a Value, at: At<'_>, max: usize, errors: &mut Errors) -> Option<&'a [Value]> {
    match value {
        Value::Array(list) if (1..=max).contains(&list.len()) => Some(list),
        Value::Array(list) => {
            errors.wrong(at, format!("must have 1 to {max} elements, not {}", list.len()));
            None
        }
        other => {
            errors.mismatch(at, format_args!("an array of 1 to {max} elements"), other);
            None
        }
    }
}

/// A value in a few words: numbers as they are, strings never.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A name or word that the caller made up, cut where it is long.
pub(super) fn described_name(name: &str) -> String {
    match name.char_indices().nth(ECHO_MAX_CHARS) {
        Some((cut, _)) => format!("`{}…`", &name[..cut]),
        None => format!("`{name}`"),
    }
}

/// Words as a list for people.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Why a member is not known here, and which one may have been meant.
pub(super) fn unknown(name: &str, known: &[&str], hint: &str) -> String {
    let meant = nearest(name, known).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
    format!("is not a known field{meant}{hint}")
}

/// The known name that `name` may stand for.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.is_empty() || name.len() > SUGGEST_MAX_BYTES {
        return None;
    }
    let folded = name.to_lowercase().replace('-', "_");
    let near = known.iter().map(|known| (distance(&folded, known), *known)).min()?;
    // A third of the letters wrong is still the same word; more is another one.
    if near.0 * 3 <= folded.chars().count().max(3) {
        return Some(near.1);
    }
    let long_enough = folded.len() >= 3;
    known.iter().find(|known| long_enough && (known.starts_with(&folded) || folded.starts_with(**known))).copied()
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_far_ones_are_not() {
        let known = ["messages", "max_tokens", "temperature", "dimensions", "n"];
        for (name, meant) in [
            ("message", Some("messages")),
            ("maxTokens", Some("max_tokens")),
            ("temprature", Some("temperature")),
            ("dim", Some("dimensions")),
            ("top_k", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
        assert_eq!(nearest(&"m".repeat(1_000), &known), None);
    }

    #[test]
    fn a_pointer_escapes_and_a_long_name_is_cut() {
        let object = At::Payload.member("a/b~c");
        assert_eq!(object.item(3).to_string(), "/payload/a~1b~0c/3");
        assert_eq!(described_name(&"é".repeat(100)), format!("`{}…`", "é".repeat(ECHO_MAX_CHARS)));
    }
}
