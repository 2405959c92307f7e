//! Reads query parameters and paths: strictly, all errors together.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{Uri, request::Parts},
};
use queue_core::{
    ids::JobId,
    payload::FieldError,
    time::{Timestamp, parse_duration},
};
use uuid::Uuid;

use crate::{
    fields::{counts_days, parse_past},
    json,
    problem::{Cause, Problem},
};

/// Rows of a page that names no limit.
const LIMIT_DEFAULT: usize = 50;
/// Most rows of a page: one more than these must still fit into a page of the journal.
pub(crate) const LIMIT_MAX: usize = 500;
/// Longest long poll: proxies and load balancers cut idle requests at about this time.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Query parameters on their way into something typed.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Params {
    /// The parameters of `uri`; those that are not in `known` or given twice are errors.
    pub(crate) fn of(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
            Problem::new(Cause::BadRequest, "the query cannot be read").at("/query", error.to_string())
        })?;
        let mut params = Self { pairs: Vec::new(), errors: Vec::new() };
        for (name, value) in given {
            if !known.contains(&name.as_str()) {
                let reason = match known {
                    [] => "no query parameter is known here".to_owned(),
                    known => format!("is not a known parameter; known are {}", known.join(", ")),
                };
                params.wrong(&name, reason);
            } else if params.pairs.iter().any(|(seen, _)| *seen == name) {
                params.wrong(&name, "is given twice");
            } else {
                params.pairs.push((name, value));
            }
        }
        Ok(params)
    }

    /// Notes that a parameter is wrong.
    pub(crate) fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        json::push(&mut self.errors, || FieldError::at(format!("/query{}", json::pointer(name)), reason));
    }

    /// The problem, if anything was wrong.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// A parameter as text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(given, _)| given == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// A parameter that `read` turns into something.
    pub(crate) fn parsed<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(name)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.wrong(name, reason);
                None
            }
        }
    }

    /// A text without control characters, at most `max` bytes long.
    pub(crate) fn label(&mut self, name: &str, max: usize) -> Option<String> {
        self.parsed(name, |text| match text {
            "" => Err("must not be empty".into()),
            text if text.len() > max => Err(format!("is {} bytes long; the limit is {max}", text.len())),
            text if text.chars().any(char::is_control) => Err("contains a control character".into()),
            text => Ok(text.to_owned()),
        })
    }

    /// A time: RFC 3339, or a duration before now.
    pub(crate) fn past(&mut self, name: &str, now: Timestamp) -> Option<Timestamp> {
        self.parsed(name, |text| parse_past(text, now))
    }

    /// A time in a report about money: as [`Params::past`], but days and weeks back are counted in whole UTC days.
    pub(crate) fn past_day(&mut self, name: &str, now: Timestamp) -> Option<Timestamp> {
        self.parsed(name, |text| {
            let at = parse_past(text, now)?;
            Ok(if counts_days(text) { at.start_of_day() } else { at })
        })
    }

    /// A switch.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.parsed(name, |text| text.parse::<bool>().map_err(|_| format!("`{text}` is neither true nor false")))
    }

    /// `limit`: rows of a page.
    pub(crate) fn limit(&mut self) -> usize {
        self.whole("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT)
    }

    /// A whole number of a range.
    pub(crate) fn whole<N: FromStr + PartialOrd + Display>(
        &mut self,
        name: &str,
        range: RangeInclusive<N>,
    ) -> Option<N> {
        self.parsed(name, |text| {
            let number = text.parse().ok().filter(|number| range.contains(number));
            number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// `cursor`: where the page before ended.
    pub(crate) fn cursor(&mut self) -> Option<JobId> {
        self.parsed("cursor", |text| {
            parse_cursor(text).ok_or_else(|| "is not a cursor; give the `next_cursor` of the page before".to_owned())
        })
    }

    /// `wait`: how long to wait for an end. Longer waits are cut to a minute: the answer tells that it is not over.
    pub(crate) fn wait(&mut self) -> Option<Duration> {
        self.parsed("wait", parse_duration).map(|wait| wait.min(WAIT_MAX))
    }
}

/// A list's position, in a form that nobody takes for anything else.
pub(crate) fn cursor(last: JobId) -> String {
    format!("c{}", last.0.simple())
}

/// A position at which no job is: the end of the millisecond in which a job was made. Its id begins with that time.
pub(crate) fn end_of_its_ms(job: JobId) -> JobId {
    let mut bytes = [0xff; 16];
    bytes[..6].copy_from_slice(&job.0.as_bytes()[..6]);
    // The version and the variant, so that it is an id like others.
    (bytes[6], bytes[8]) = (0x7f, 0xbf);
    JobId(Uuid::from_bytes(bytes))
}

fn parse_cursor(text: &str) -> Option<JobId> {
    let hex = text.strip_prefix('c').filter(|hex| hex.len() == 32)?;
    JobId::from_str(hex).ok()
}

/// The job that a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobPath(pub(crate) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = id_of(parts, state, "no job has this id", "is not a job id, which is a UUID").await?;
        Ok(Self(JobId(id)))
    }
}

/// The id in a path. Hyphenated only: one id, one address. Any other text names nothing, and is told so.
pub(crate) async fn id_of<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    detail: &'static str,
    reason: &'static str,
) -> Result<Uuid, Problem> {
    let text = Segment::from_request_parts(parts, state).await?.0;
    let id = Uuid::from_str(&text).ok().filter(|_| text.len() == 36);
    id.ok_or_else(|| Problem::new(Cause::NotFound, detail).at("/path/id", reason))
}

/// The one variable segment of a path, as text.
#[derive(Clone, Debug)]
pub(crate) struct Segment(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|error| {
            Problem::new(Cause::BadRequest, "the path cannot be read").at("/path", error.body_text())
        })?;
        Ok(Self(text))
    }
}
