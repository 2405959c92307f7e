//! Reads the fields of a request: each into its type and range, all errors together.

use std::{borrow::Cow, ops::RangeInclusive, time::Duration};

use queue_core::{
    ids::Name,
    payload::FieldError,
    request_limits::{RATE_MAX, Rates},
    time::{Timestamp, parse_age_ms, parse_duration},
};
use serde_json::value::RawValue;

use crate::{json, problem::Problem, view};

/// Longest attempt that a job or queue may ask for.
pub(crate) const TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Furthest moment that a job may name: what lies beyond is a mistake (a wrong unit, year 9999), not a plan.
pub(crate) const AHEAD_MAX_MS: i64 = 366 * 24 * 60 * 60 * 1_000;

/// Longest time that a job or queue may ask to be kept for: ten years, and a wrong unit beyond it.
const KEPT_LONGEST: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// The fields that say how often somebody may ask.
pub(crate) const RATES: [&str; 2] = ["requests_per_minute", "llm_submits_per_minute"];

/// A field's raw JSON, if it was given.
pub(crate) type Raw<'a> = Option<&'a RawValue>;

/// Collects what is wrong while fields are read.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// What is wrong so far.
    pub(crate) errors: Vec<FieldError>,
}

impl Fields {
    /// Notes that the field `name` is wrong.
    pub(crate) fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        json::push(&mut self.errors, || FieldError::at(json::pointer(name), reason));
    }

    /// The problem, if anything was wrong.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::fields(self.errors)) }
    }

    /// A string.
    pub(crate) fn text<'a>(&mut self, name: &str, raw: Raw<'a>) -> Option<Cow<'a, str>> {
        let raw = raw?;
        let text = json::string(raw);
        if text.is_none() {
            self.wrong(name, format!("must be a string, not {}", described(raw)));
        }
        text
    }

    /// A string that `read` turns into something.
    pub(crate) fn parsed<T>(
        &mut self,
        name: &str,
        raw: Raw<'_>,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(name, raw)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.wrong(name, reason);
                None
            }
        }
    }

    /// A queue or tenant name.
    pub(crate) fn name(&mut self, name: &str, raw: Raw<'_>) -> Option<Name> {
        self.parsed(name, raw, Name::checked)
    }

    /// A label of 1 to `max` bytes without control characters.
    pub(crate) fn label(&mut self, name: &str, raw: Raw<'_>, max: usize) -> Option<String> {
        self.parsed(name, raw, |text| check_label(text, max))
    }

    /// A whole number.
    pub(crate) fn integer(&mut self, name: &str, raw: Raw<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.whole(name, raw, range).and_then(|value| u32::try_from(value).ok())
    }

    /// A whole number of any size.
    pub(crate) fn whole(&mut self, name: &str, raw: Raw<'_>, range: RangeInclusive<u64>) -> Option<u64> {
        let raw = raw?;
        let value = raw.get().parse::<u64>().ok().filter(|value| range.contains(value));
        if value.is_none() {
            let (low, high) = (range.start(), range.end());
            self.wrong(name, format!("must be a whole number from {low} to {high}, not {}", described(raw)));
        }
        value
    }

    /// The fields of [`RATES`] over what there was: one that is `null` is taken away.
    pub(crate) fn rates(&mut self, raws: [Raw<'_>; 2], before: Rates) -> Rates {
        let mut read = |name, raw: Raw<'_>, before| match raw {
            None => before,
            Some(null) if null.get() == "null" => None,
            raw => self.integer(name, raw, 1..=RATE_MAX),
        };
        let [requests, submits] = raws;
        Rates {
            requests_per_minute: read(RATES[0], requests, before.requests_per_minute),
            llm_submits_per_minute: read(RATES[1], submits, before.llm_submits_per_minute),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str, raw: Raw<'_>) -> Option<bool> {
        let raw = raw?;
        let value = raw.get().parse().ok();
        if value.is_none() {
            self.wrong(name, format!("must be true or false, not {}", described(raw)));
        }
        value
    }

    /// A time, at most [`AHEAD_MAX_MS`] after `now` and not before `earliest`.
    pub(crate) fn moment(
        &mut self,
        name: &str,
        raw: Raw<'_>,
        now: Timestamp,
        earliest: Timestamp,
    ) -> Option<Timestamp> {
        self.parsed(name, raw, |text| {
            let at = parse_moment(text)?;
            // The bounds move with the clock and are not named as moments: a repeated request gets the same answer.
            if at > now.plus_ms(AHEAD_MAX_MS) {
                return Err(format!("`{text}` is more than 366 days ahead"));
            }
            if at < earliest {
                let hours = now.since_ms(earliest) / 3_600_000;
                let by = if hours > 0 { format!("more than {hours} hours ") } else { String::new() };
                return Err(format!("`{text}` is {by}in the past"));
            }
            Ok(at)
        })
    }

    /// The time limit of an attempt, in milliseconds.
    pub(crate) fn timeout_ms(&mut self, name: &str, raw: Raw<'_>) -> Option<u64> {
        self.parsed(name, raw, |text| {
            let duration = parse_duration(text)?;
            if !TIMEOUT_RANGE.contains(&duration) {
                return Err(format!("`{text}` is out of range: 1s to 24h are allowed"));
            }
            Ok(duration.as_millis() as u64)
        })
    }

    /// How long something is kept, in milliseconds: at least `least`, at most [`KEPT_LONGEST`].
    pub(crate) fn kept_ms(&mut self, name: &str, raw: Raw<'_>, least: Duration) -> Option<u64> {
        self.parsed(name, raw, |text| {
            let duration = parse_duration(text)?;
            if !(least..=KEPT_LONGEST).contains(&duration) {
                let least = view::kept_text(least.as_millis() as u64);
                return Err(format!("`{text}` is out of range: {least} to 3650d are allowed"));
            }
            Ok(duration.as_millis() as u64)
        })
    }

    /// A list of labels.
    pub(crate) fn labels(&mut self, name: &str, raw: Raw<'_>, most: usize, max: usize) -> Vec<String> {
        let Some(raw) = raw else { return Vec::new() };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
            self.wrong(name, format!("must be an array of strings, not {}", described(raw)));
            return Vec::new();
        };
        if items.len() > most {
            self.wrong(name, format!("has {} items; the limit is {most}", items.len()));
            return Vec::new();
        }
        let mut labels = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let label = json::string(item)
                .ok_or_else(|| format!("must be a string, not {}", described(item)))
                .and_then(|text| check_label(&text, max));
            match label {
                Ok(label) => labels.push(label),
                Err(reason) => json::push(&mut self.errors, || FieldError::at(format!("/{name}/{at}"), reason)),
            }
        }
        labels
    }

    /// Refuses a field whose feature does not exist yet: to ignore it would be to promise it.
    pub(crate) fn unsupported(&mut self, name: &str, raw: Raw<'_>) {
        if raw.is_some() {
            self.wrong(name, format!("`{name}` is not supported yet; leave it out"));
        }
    }
}

/// A label of 1 to `max` bytes without control characters.
pub(crate) fn check_label(text: &str, max: usize) -> Result<String, String> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.len() > max {
        return Err(format!("is {} bytes long; the limit is {max}", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("contains the control character {}", c.escape_unicode())),
        None => Ok(text.to_owned()),
    }
}

/// Reads RFC 3339. The last day of year 9999, which many use for "never", lies beyond what the clock library counts:
/// it is read as its last moment, so that it is called too far rather than no time.
fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let parsed = text.parse();
    let never = text.strip_prefix("9999-").map(|rest| format!("9998-{rest}"));
    match never {
        Some(year_before) if parsed.is_err() && year_before.parse::<Timestamp>().is_ok() => Ok(Timestamp(i64::MAX)),
        _ => parsed,
    }
}

/// A value in a few words: numbers as they are, everything else by its kind.
fn described(raw: &RawValue) -> &str {
    match json::kind_of(raw) {
        // 24 characters hold every number that anybody means.
        "a number" if raw.get().len() <= 24 => raw.get(),
        kind => kind,
    }
}

/// The body of a rotation: how long the former secret goes on beside the new one; `None` where it does not say. `too_long` says
/// what is wrong with a time that is longer than `longest`.
pub(crate) fn read_overlap(
    text: &str,
    longest: Duration,
    too_long: impl FnOnce(&str) -> String,
) -> Result<Option<Duration>, Problem> {
    json::check_depth(text)?;
    let mut fields = Fields::default();
    let [overlap] = json::take_apart(text, &["overlap"], &mut fields.errors)?;
    let overlap = fields.parsed("overlap", overlap, |text| match parse_duration(text)? {
        overlap if overlap <= longest => Ok(overlap),
        _ => Err(too_long(text)),
    });
    fields.finish()?;
    Ok(overlap)
}

/// Whether a time is told in days or weeks back.
pub(crate) fn counts_days(text: &str) -> bool {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ');
    matches!(unit, "d" | "day" | "days" | "w" | "week" | "weeks")
}

/// Reads a moment that is given as RFC 3339 or as a duration before now, e.g. `7d`.
pub(crate) fn parse_past(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    text.parse().or_else(|_| {
        parse_duration(text).map_err(|_| {
            format!("`{text}` is neither a time such as 2026-11-21T09:30:00Z nor a duration such as 7d")
        })?;
        Ok(now.plus_ms(-parse_age_ms(text)?))
    })
}
