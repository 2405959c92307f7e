//! What changes of settings have in common: pauses, and versions that a caller may insist on.

use axum::http::{HeaderMap, header};
use queue_core::time::Timestamp;
use serde_json::value::RawValue;

use crate::{
    fields::{Fields, Raw},
    problem::{Cause, Problem},
};

/// Longest reason, in bytes: it is shown by every `why`.
pub(crate) const REASON_MAX_BYTES: usize = 500;

/// A pause, as queues, targets and tenants have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    /// Whether it holds.
    pub(crate) on: bool,
    /// When it ends by itself.
    pub(crate) until: Option<Timestamp>,
    /// Why, for those who ask `why`.
    pub(crate) reason: Option<String>,
}

/// Whether a field is given and not `null`.
pub(crate) fn is_value(raw: Option<&RawValue>) -> bool {
    raw.is_some_and(|raw| raw.get() != "null")
}

impl Pause {
    /// The pause after a change: `paused`, `until`, `reason`, where `null` takes away.
    pub(crate) fn change(mut self, fields: &mut Fields, [paused, until, reason]: [Raw<'_>; 3], now: Timestamp) -> Self {
        if paused.is_some_and(|raw| raw.get() == "null") {
            fields.wrong("paused", "must be true or false, not null");
        } else if let Some(on) = fields.boolean("paused", paused) {
            // Each pause says its own until and reason; a resume has none.
            self = Self { on, ..Self::default() };
        }
        for (name, raw) in [("until", until), ("reason", reason)] {
            if is_value(raw) && !self.on {
                fields.wrong(name, "belongs to a pause: give `\"paused\": true` with it");
            }
        }
        if until.is_some() {
            self.until = fields.moment("until", until.filter(|_| is_value(until)), now, now);
        }
        if reason.is_some() {
            self.reason = fields.label("reason", reason.filter(|_| is_value(reason)), REASON_MAX_BYTES);
        }
        self
    }

    /// What is shown of it: nothing once it has ended.
    pub(crate) fn at(self, now: Timestamp) -> Self {
        if self.on && self.until.is_none_or(|until| until > now) { self } else { Self::default() }
    }
}

/// The entity tag of settings.
pub(crate) fn tag_of(version: i64) -> String {
    format!("\"{version}\"")
}

/// Refuses a change to settings that are not those which the caller saw.
pub(crate) fn check_tag(headers: &HeaderMap, version: i64, what: &str) -> Result<(), Problem> {
    let Some(wanted) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let tag = tag_of(version);
    if wanted == "*" || wanted.as_bytes() == tag.as_bytes() {
        return Ok(());
    }
    let detail = format!("the {what} was changed since it was read");
    Err(Problem::new(Cause::Stale, detail).at("/header/If-Match", format!("the {what}'s tag is {tag} now")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_has_ended_is_not_shown() {
        let pause = Pause { on: true, until: Some(Timestamp(5)), reason: Some("x".into()) };
        assert_eq!(pause.clone().at(Timestamp(4)), pause);
        assert_eq!(pause.at(Timestamp(5)), Pause::default());
    }
}
