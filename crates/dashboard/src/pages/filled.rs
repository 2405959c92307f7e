//! What a form shows: its values, as they are or as somebody has typed them, and beside each what is wrong with it.

use std::collections::BTreeMap;

use askama::Template;
use axum::{http::StatusCode, response::Response};
use jiff::{SignedDuration, Timestamp, Unit, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value};

use crate::{
    client::{FieldError, Refused},
    form::Posted,
    page::{Shell, html},
};

/// A form as it is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filled {
    /// Which form of its page: the ids of its fields begin with it.
    pub(crate) id: &'static str,
    values: BTreeMap<&'static str, String>,
    refused: Option<Refused>,
}

impl Filled {
    /// An empty form.
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, ..Self::default() }
    }

    /// The form with a value.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.values.insert(name, value.into());
        self
    }

    /// The form with a value, where there is one.
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value.to_string()),
            None => self.with(name, ""),
        }
    }

    /// The form as it was posted, and what is wrong with it. A refusal that no other text would mend is an error.
    pub(crate) fn back(
        id: &'static str,
        posted: &Posted,
        names: &[&'static str],
        refused: Refused,
    ) -> Result<Self, Refused> {
        if !refused.is_correctable() {
            return Err(refused);
        }
        Ok(Self { refused: Some(refused), ..Self::posted(id, posted, names) })
    }

    /// The form with what is wrong with it.
    pub(crate) fn with_problem(self, refused: Option<Refused>) -> Self {
        Self { refused, ..self }
    }

    /// The form as it was posted.
    pub(crate) fn posted(id: &'static str, posted: &Posted, names: &[&'static str]) -> Self {
        // Ticked boxes of one name are its words.
        let value = |name: &&'static str| (*name, posted.all(name).join(" "));
        Self { id, values: names.iter().map(value).collect(), refused: None }
    }

    /// A field's value.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Whether a field has this value.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// Whether a ticked box says this word: boxes of one name are kept separated by blanks.
    pub(crate) fn has(&self, name: &str, word: &str) -> bool {
        self.text(name).split_whitespace().any(|known| known == word)
    }

    /// What is wrong with a field.
    pub(crate) fn wrong(&self, name: &str) -> Option<String> {
        let refused = self.refused.as_ref()?;
        let reasons: Vec<_> =
            refused.errors.iter().filter(|error| field_of(&error.pointer) == name).map(in_words).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// What is wrong with the form, in one sentence.
    pub(crate) fn problem(&self) -> Option<&str> {
        let refused = self.refused.as_ref()?;
        Some(if refused.detail.is_empty() { &refused.title } else { &refused.detail })
    }

    /// What is wrong and stands beside no field of the form.
    pub(crate) fn rest(&self) -> Vec<String> {
        let errors = self.refused.iter().flat_map(|refused| &refused.errors);
        let is_elsewhere = |pointer: &str| !self.values.contains_key(field_of(pointer));
        errors.filter(|error| is_elsewhere(&error.pointer)).map(|error| error.detail.clone()).collect()
    }

    /// The status of the page that shows it.
    pub(crate) fn code(&self) -> StatusCode {
        self.refused.as_ref().map_or(StatusCode::OK, Refused::code)
    }
}

/// The status of a page with these forms.
pub(crate) fn code_of(forms: &[&Filled]) -> StatusCode {
    forms.iter().map(|form| form.code()).find(|code| *code != StatusCode::OK).unwrap_or(StatusCode::OK)
}

/// A page with its status. One with a form that was refused is not live: its address is the form's.
pub(crate) fn page_with<T: Template>(code: StatusCode, shell: Shell, page: impl FnOnce(Shell) -> T) -> Response {
    if code == StatusCode::OK {
        return html(page(shell));
    }
    let mut response = html(page(shell.not_live()));
    if response.status() == StatusCode::OK {
        *response.status_mut() = code;
    }
    response
}

/// The field of a form that a pointer is about: `/template/payload/model` is about `template`, `/query/since` about `since`.
fn field_of(pointer: &str) -> &str {
    let mut parts = pointer.split('/').skip(1).skip_while(|part| matches!(*part, "query" | "path" | "header"));
    parts.next().unwrap_or_default()
}

/// The reason, behind the place within its field if it is not about all of it.
fn in_words(error: &FieldError) -> String {
    let inner = error.pointer.trim_start_matches('/').split_once('/');
    match inner {
        Some((field, inner)) if !matches!(field, "query" | "path" | "header") => format!("/{inner} {}", error.detail),
        _ => error.detail.clone(),
    }
}

/// What the API answered about a list, or an empty one with what is wrong with the question.
pub(crate) fn or_empty<T: Default>(answer: Result<T, Refused>) -> Result<(T, Option<Refused>), Refused> {
    match answer {
        Ok(found) => Ok((found, None)),
        Err(refused) if refused.status == 422 => Ok((T::default(), Some(refused))),
        Err(refused) => Err(refused),
    }
}

/// A body of the fields that were filled in. What is wrong with them is for the API to say.
#[derive(Debug, Default)]
pub(crate) struct Asked(Map<String, Value>);

impl Asked {
    /// With something that no field says.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// With these fields as text, each where it was filled in.
    pub(crate) fn texts(self, posted: &Posted, names: &[&str]) -> Self {
        names.iter().fold(self, |asked, name| match posted.text(name) {
            Some(text) => asked.with(name, text),
            None => asked,
        })
    }

    /// With these fields as whole numbers, each where it was filled in.
    pub(crate) fn numbers(self, posted: &Posted, names: &[&str]) -> Self {
        names.iter().fold(self, |asked, name| match posted.text(name) {
            Some(text) => asked.with(name, number(text)),
            None => asked,
        })
    }

    /// With these fields as whole numbers; one that is empty is taken away.
    pub(crate) fn numbers_or_null(self, posted: &Posted, names: &[&str]) -> Self {
        names.iter().fold(self, |asked, name| asked.with(name, posted.text(name).map_or(Value::Null, number)))
    }

    /// With a field as a list of its words, where it was filled in.
    pub(crate) fn words(self, posted: &Posted, name: &str) -> Self {
        match words(posted.text(name).unwrap_or_default()) {
            words if words.is_empty() => self,
            words => self.with(name, words),
        }
    }

    /// With the ticked boxes of a name, where any is.
    pub(crate) fn ticked(self, posted: &Posted, name: &str) -> Self {
        match posted.all(name) {
            ticked if ticked.is_empty() => self,
            ticked => self.with(name, ticked),
        }
    }

    /// With a field as a moment, where it was filled in: see [`moment`].
    pub(crate) fn moment(self, posted: &Posted, name: &str) -> Self {
        match posted.text(name) {
            Some(text) => self.with(name, moment(text, posted.visit.shell.now)),
            None => self,
        }
    }

    /// The body.
    pub(crate) fn body(self) -> Value {
        Value::Object(self.0)
    }
}

/// A number as it was typed, with or without marks of thousands. What is none is sent as it is: the API says what is wrong with it.
fn number(text: &str) -> Value {
    let bare = text.replace([',', '_', ' '], "");
    bare.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
}

/// A moment as people type it: a span from now (`30m`, `2h`, `3d`), a date and a time of UTC as a date field sends them, or
/// RFC 3339. What is none of these is sent as it is: the API says what is wrong with it.
fn moment(text: &str, now: Timestamp) -> String {
    let letters = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len();
    let unit_s = match text.get(letters..) {
        Some("s") => 1,
        Some("m" | "min") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => 0,
    };
    let spans_s = text[..letters].trim().parse::<i64>().ok().filter(|_| unit_s > 0).and_then(|n| n.checked_mul(unit_s));
    let at = spans_s.and_then(|s| now.checked_add(SignedDuration::from_secs(s)).ok());
    if let Some(at) = at.and_then(|at| at.round(Unit::Second).ok()) {
        return at.to_string();
    }
    match text.parse::<DateTime>().ok().and_then(|local| local.to_zoned(TimeZone::UTC).ok()) {
        Some(at) if text.parse::<Timestamp>().is_err() => at.timestamp().to_string(),
        _ => text.to_owned(),
    }
}

/// Words between commas, blanks and line ends.
pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split(|letter: char| letter == ',' || letter.is_whitespace()).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errors: &[(&str, &str)]) -> Option<Refused> {
        let error =
            |(pointer, detail): &(&str, &str)| FieldError { pointer: (*pointer).into(), detail: (*detail).into() };
        Some(Refused { errors: errors.iter().map(error).collect(), ..Refused::field("x", "y") })
    }

    #[test]
    fn reasons_stand_beside_their_fields_or_above_the_form() {
        let form = Filled {
            refused: refused(&[
                ("/cron", "no"),
                ("/template/payload/model", "is unknown"),
                ("/path/id", "is not there"),
            ]),
            ..Filled::new("f").with("cron", "* *").with("template", "{}")
        };
        assert_eq!(form.wrong("cron").as_deref(), Some("no"));
        assert_eq!(form.wrong("template").as_deref(), Some("/payload/model is unknown"));
        assert_eq!(form.wrong("every"), None);
        assert_eq!(form.rest(), ["is not there"]);
        assert_eq!(Filled::new("f").problem(), None);
    }

    #[test]
    fn reasons_of_a_query_are_those_of_its_fields() {
        let form =
            Filled { refused: refused(&[("/query/since", "is no time")]), ..Filled::new("f").with("since", "x") };
        assert_eq!(form.wrong("since").as_deref(), Some("is no time"));
        assert!(form.rest().is_empty());
    }

    #[test]
    fn numbers_are_read_as_people_write_them_and_the_rest_is_left_to_the_api() {
        assert_eq!(number("1,000"), Value::from(1_000));
        assert_eq!(number("12 500"), Value::from(12_500));
        assert_eq!(number("-1"), Value::from("-1"));
        assert_eq!(number("many"), Value::from("many"));
    }

    #[test]
    fn moments_are_read_as_people_type_them() {
        let now: Timestamp = "2026-11-30T16:42:03.250Z".parse().unwrap();
        for (text, read) in [
            ("30m", "2026-11-30T17:12:03Z"),
            ("2 h", "2026-11-30T18:42:03Z"),
            ("3d", "2026-12-03T16:42:03Z"),
            ("2026-12-01T08:30", "2026-12-01T08:30:00Z"),
            ("2026-12-01T08:30:00+01:00", "2026-12-01T08:30:00+01:00"),
            ("tomorrow", "tomorrow"),
            ("99999999999999999999h", "99999999999999999999h"),
            ("9223372036854775807d", "9223372036854775807d"),
            ("h", "h"),
        ] {
            assert_eq!(moment(text, now), read, "{text}");
        }
    }

    #[test]
    fn words_are_separated_by_what_people_type() {
        assert_eq!(words("a, b\n c,,d"), ["a", "b", "c", "d"]);
        assert!(words(" ,\n").is_empty());
    }
}
