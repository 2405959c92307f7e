//! The payload and the result of a job: shown when they are asked for, as they were written, up to a bound.

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};

use crate::{
    client::{Refused, path},
    viewer::Visit,
    words,
};

/// Most bytes of a body that a page shows; the rest is behind the link to all of it.
const SHOWN_MAX_BYTES: usize = 256 * 1024;

/// Which body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Payload,
    Result,
}

impl Part {
    /// What `?show=` asks for.
    pub(super) fn asked(word: &str) -> Option<Self> {
        [Self::Payload, Self::Result].into_iter().find(|part| part.word() == word)
    }

    /// The word of addresses.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Result => "result",
        }
    }

    fn address(self, id: &str) -> String {
        path(&["v1", "jobs", id, self.word()])
    }
}

/// A body as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) part: Part,
    /// As it is kept.
    pub(super) raw: String,
    /// With line breaks.
    pub(super) pretty: String,
    /// Whether that is all of it.
    pub(super) is_whole: bool,
    /// Why it cannot be shown.
    pub(super) refused: Option<String>,
}

impl Body {
    /// Reads a body of a job. What the API does not give is said in its place.
    pub(super) async fn of(visit: &Visit, id: &str, part: Part) -> Self {
        let empty = Self { part, raw: String::new(), pretty: String::new(), is_whole: false, refused: None };
        match visit.client.text(&part.address(id), SHOWN_MAX_BYTES).await {
            Ok((raw, is_whole)) => Self { pretty: words::pretty_json(&raw), raw, is_whole, ..empty },
            Err(refused) => Self { refused: Some(refused.detail), ..empty },
        }
    }

    /// Whether it is the payload.
    pub(super) fn is_payload(&self) -> bool {
        self.part == Part::Payload
    }

    /// Where all of it is.
    pub(super) fn address(&self, id: &str) -> String {
        path(&["dashboard", "jobs", id, "raw", self.part.word()])
    }
}

/// All of a body, as a file.
pub(super) async fn raw(
    visit: Visit,
    Path((id, part)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let part = Part::asked(&part).ok_or_else(|| Refused::new(StatusCode::NOT_FOUND, "there is no such page"))?;
    let mut response = visit.client.forward(&part.address(&id), &headers).await?;
    // The API has answered, so that the id is one: hexadecimal digits and dashes.
    let name = format!("attachment; filename=\"{}-{id}.json\"", part.word());
    if let Ok(name) = HeaderValue::from_str(&name) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_parts_can_be_asked_for() {
        assert_eq!(Part::asked("payload"), Some(Part::Payload));
        assert_eq!(Part::asked("result"), Some(Part::Result));
        assert_eq!(Part::asked("secret"), None);
    }
}
