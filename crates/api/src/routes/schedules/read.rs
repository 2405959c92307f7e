//! Reads what people set of a schedule: when it is due, what else, and the job that it submits.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use bytes::Bytes;
use queue_core::{
    ids::Name,
    schedule::{
        EVERY_MAX_MS, EVERY_MIN_MS, Missed, MissedPolicy, ON_TIME_MS, Overlap, Settings, TEMPLATE_MAX_BYTES,
        WINDOW_MAX_MS, When, WhenError, YEAR_MAX, ZONE_DEFAULT,
    },
    time::{Timestamp, parse_duration},
};
use serde_json::value::RawValue;

use crate::{
    app::Shared,
    fields::{AHEAD_MAX_MS, Fields, Raw},
    json,
    observe::Trail,
    problem::{Cause, Problem},
    settings::{REASON_MAX_BYTES, is_value},
    shape::{self, Origin},
    submit,
};

/// Longest description, in bytes.
const DESCRIPTION_MAX_BYTES: usize = 500;
/// Members that a template has not, and why.
const NOT_IN_TEMPLATES: [(&str, &str); 5] = [
    ("run_at", "is the tick's own: leave it out"),
    ("start_by", "is a moment, and a template is for many: leave it out"),
    ("deadline", "is a moment, and a template is for many: `timeout` bounds an attempt"),
    ("batch_id", "is the schedule's own: its jobs are the batch `schedule:` and its id"),
    ("tenant", "is the schedule's: give it beside the template"),
];

/// What says when a schedule is due, as it was sent.
#[derive(Default)]
pub(super) struct Spec<'a> {
    pub(super) cron: Option<Cow<'a, str>>,
    pub(super) time_zone: Option<Cow<'a, str>>,
    pub(super) every: Option<Cow<'a, str>>,
    pub(super) starting_at: Option<Cow<'a, str>>,
    pub(super) at: Option<Cow<'a, str>>,
    /// One of them is no text, which has been told.
    pub(super) is_broken: bool,
}

/// Their names.
pub(super) const SPEC: [&str; 5] = ["cron", "time_zone", "every", "starting_at", "at"];

impl<'a> Spec<'a> {
    /// From the fields of a body.
    pub(super) fn of(fields: &mut Fields, raws: [Raw<'a>; 5]) -> Self {
        let given = raws.iter().flatten().count();
        let [cron, time_zone, every, starting_at, at] = raws;
        let cron = fields.text("cron", cron);
        let time_zone = fields.text("time_zone", time_zone);
        let every = fields.text("every", every);
        let starting_at = fields.text("starting_at", starting_at);
        let at = fields.text("at", at);
        let read = [&cron, &time_zone, &every, &starting_at, &at].into_iter().flatten().count();
        Self { cron, time_zone, every, starting_at, at, is_broken: read < given }
    }

    /// What it says over what there was; `None` where it says nothing, or something wrong, which `wrong` is then told with the
    /// name of the field. A new one must say something.
    pub(super) fn read(
        self,
        before: Option<&When>,
        now: Timestamp,
        wrong: &mut dyn FnMut(&str, String),
    ) -> Option<When> {
        let Self { cron, time_zone, every, starting_at, at, is_broken } = self;
        if is_broken {
            return None;
        }
        match [cron.is_some(), every.is_some(), at.is_some()].iter().filter(|given| **given).count() {
            1 => {}
            0 if before.is_some() => {}
            0 => {
                wrong("cron", "is required, or `every`, or `at`: when is it due?".into());
                return None;
            }
            _ => {
                wrong(
                    if every.is_some() { "every" } else { "at" },
                    "stands beside another one of `cron`, `every`, `at`: give one".into(),
                );
                return None;
            }
        }
        match (cron, every, at, before) {
            (Some(cron), ..) => {
                refuse(starting_at, "starting_at", "belongs to `every`", wrong);
                let before = match before {
                    Some(When::Cron { time_zone, .. }) => time_zone,
                    _ => ZONE_DEFAULT,
                };
                let time_zone = time_zone.map_or_else(|| before.to_owned(), Cow::into_owned);
                read_cron(cron.into_owned(), time_zone, now, wrong)
            }
            (_, Some(every), ..) => {
                refuse(time_zone, "time_zone", "belongs to `cron`", wrong);
                read_every(&every, starting_at.as_deref(), now, wrong)
            }
            (_, _, Some(at), _) => {
                refuse(time_zone, "time_zone", "belongs to `cron`", wrong);
                refuse(starting_at, "starting_at", "belongs to `every`", wrong);
                let at = read_moment("at", &at, now, now, wrong)?;
                Some(When::Once { at })
            }
            (_, _, _, Some(When::Cron { cron, .. })) => {
                refuse(starting_at, "starting_at", "belongs to `every`", wrong);
                read_cron(cron.clone(), time_zone?.into_owned(), now, wrong)
            }
            (_, _, _, Some(When::Every { every_ms, .. })) => {
                refuse(time_zone, "time_zone", "belongs to `cron`", wrong);
                let from = read_moment("starting_at", &starting_at?, now, now.plus_ms(-AHEAD_MAX_MS), wrong)?;
                Some(When::Every { every_ms: *every_ms, from })
            }
            _ => {
                refuse(time_zone, "time_zone", "belongs to `cron`", wrong);
                refuse(starting_at, "starting_at", "belongs to `every`", wrong);
                None
            }
        }
    }
}

fn refuse(given: Option<Cow<'_, str>>, name: &str, reason: &str, wrong: &mut dyn FnMut(&str, String)) {
    if given.is_some() {
        wrong(name, format!("{reason}: leave it out"));
    }
}

fn read_cron(cron: String, time_zone: String, now: Timestamp, wrong: &mut dyn FnMut(&str, String)) -> Option<When> {
    let when = When::Cron { cron, time_zone };
    match when.ticks() {
        Ok(ticks) if ticks.after(now).is_some() => Some(when),
        Ok(_) => {
            wrong("cron", format!("does not come any more: schedules end with the year {YEAR_MAX}"));
            None
        }
        Err(WhenError::Cron(reason)) => {
            wrong("cron", reason);
            None
        }
        Err(WhenError::TimeZone(reason)) => {
            wrong("time_zone", reason);
            None
        }
    }
}

fn read_every(
    every: &str,
    starting_at: Option<&str>,
    now: Timestamp,
    wrong: &mut dyn FnMut(&str, String),
) -> Option<When> {
    let from = match starting_at {
        // Whole seconds: people look at them.
        None => Some(Timestamp(now.0 - now.0.rem_euclid(1_000))),
        Some(text) => read_moment("starting_at", text, now, now.plus_ms(-AHEAD_MAX_MS), wrong),
    };
    let every_ms = match parse_duration(every) {
        Ok(every) => i64::try_from(every.as_millis()).unwrap_or(i64::MAX),
        Err(reason) => {
            wrong("every", reason);
            return None;
        }
    };
    if !(EVERY_MIN_MS..=EVERY_MAX_MS).contains(&every_ms) {
        wrong("every", format!("`{every}` is out of range: 1s to 366d are allowed"));
        return None;
    }
    Some(When::Every { every_ms, from: from? })
}

fn read_moment(
    name: &str,
    text: &str,
    now: Timestamp,
    earliest: Timestamp,
    wrong: &mut dyn FnMut(&str, String),
) -> Option<Timestamp> {
    let read = text.parse::<Timestamp>().and_then(|at| match at {
        at if at > now.plus_ms(AHEAD_MAX_MS) => Err(format!("`{text}` is more than 366 days ahead")),
        at if at < earliest => Err(format!("`{text}` is too far in the past")),
        at => Ok(at),
    });
    read.map_err(|reason| wrong(name, reason)).ok()
}

/// What is set beside that, as it was sent; a member that is `null` takes away.
pub(super) struct Rest<'a> {
    pub(super) overlap: Raw<'a>,
    pub(super) missed: Raw<'a>,
    pub(super) missed_window: Raw<'a>,
    pub(super) paused: Raw<'a>,
    pub(super) reason: Raw<'a>,
    pub(super) description: Raw<'a>,
}

/// Their names.
pub(super) const REST: [&str; 6] = ["overlap", "missed", "missed_window", "paused", "reason", "description"];

impl<'a> Rest<'a> {
    /// From the fields of a body, in the order of [`REST`].
    pub(super) fn of(raws: [Raw<'a>; 6]) -> Self {
        let [overlap, missed, missed_window, paused, reason, description] = raws;
        Self { overlap, missed, missed_window, paused, reason, description }
    }

    /// The settings after it.
    pub(super) fn over(&self, fields: &mut Fields, mut before: Settings) -> Settings {
        for (name, raw) in REST.into_iter().zip([self.overlap, self.missed, self.missed_window, self.paused]) {
            if raw.is_some() && !is_value(raw) {
                fields.wrong(name, "must not be null");
            }
        }
        let given = |raw: Raw<'a>| raw.filter(|_| is_value(raw));
        let overlap = fields.parsed("overlap", given(self.overlap), |text| {
            Overlap::parse(text).ok_or_else(|| format!("`{text}` is no policy; skip, queue, cancel and allow are"))
        });
        let policy = fields.parsed("missed", given(self.missed), |text| {
            MissedPolicy::parse(text).ok_or_else(|| format!("`{text}` is no policy; skip, latest and all are"))
        });
        let window_ms = fields.parsed("missed_window", given(self.missed_window), |text| {
            let window_ms = i64::try_from(parse_duration(text)?.as_millis()).unwrap_or(i64::MAX);
            let is_in_range = (ON_TIME_MS..=WINDOW_MAX_MS).contains(&window_ms);
            is_in_range.then_some(window_ms).ok_or_else(|| format!("`{text}` is out of range: 1m to 7d are allowed"))
        });
        let paused = fields.boolean("paused", given(self.paused));
        let reason = fields.label("reason", given(self.reason), REASON_MAX_BYTES);
        let description = fields.label("description", given(self.description), DESCRIPTION_MAX_BYTES);
        before.overlap = overlap.unwrap_or(before.overlap);
        let Missed { policy: policy_before, window_ms: window_before } = before.missed;
        before.missed =
            Missed { policy: policy.unwrap_or(policy_before), window_ms: window_ms.unwrap_or(window_before) };
        if window_ms.is_some() && before.missed.policy != MissedPolicy::All {
            fields.wrong("missed_window", "belongs to `\"missed\": \"all\"`: leave it out");
        }
        if let Some(paused) = paused {
            // Each pause says its own reason.
            (before.paused, before.reason) = (paused, None);
        }
        if reason.is_some() && !before.paused {
            fields.wrong("reason", "belongs to a schedule that is paused: give `\"paused\": true` with it");
        }
        if self.reason.is_some() {
            before.reason = reason;
        }
        if self.description.is_some() {
            before.description = description;
        }
        before
    }
}

/// Who wants a template, and for whom.
pub(super) struct Wish {
    pub(super) tenant: Name,
    pub(super) key_id: Name,
    pub(super) trail: Trail,
    pub(super) now: Timestamp,
}

/// Checks a template as a submit of this moment would be, and returns its text. What is wrong is told at `/template/…`.
pub(super) async fn template(app: &Shared, raw: &RawValue, wish: Wish) -> Result<String, Problem> {
    let text = raw.get();
    if text.len() > TEMPLATE_MAX_BYTES {
        let reason = format!("is {} bytes long; the limit is {TEMPLATE_MAX_BYTES}", text.len());
        return Err(Problem::new(Cause::TooLarge, "the template is too large").at("/template", reason));
    }
    let mut fields = Fields::default();
    if let Ok(members) = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(text) {
        for (name, reason) in NOT_IN_TEMPLATES {
            if members.get(name).is_some_and(|value| value.get() != "null") {
                fields.wrong(name, reason);
            }
        }
    }
    fields.finish().map_err(|problem| problem.within("/template"))?;
    app.api.budgets.freshen().await?;
    let origin = Origin {
        tenant: wish.tenant,
        bound: true,
        key_id: wish.key_id,
        policy: app.policy().await?,
        now: wish.now,
        request_id: wish.trail.request_id,
        traceparent: None,
        idempotency: None,
    };
    let (reading, body) = (app.clone(), Bytes::from(text.to_owned()));
    let read = submit::aside(move || {
        shape::read(&origin, &reading.api, reading.surroundings(), json::utf8(&body)?, &body, 0).map(|_| ())
    });
    read.await?.map_err(|problem| problem.within("/template"))?;
    Ok(text.to_owned())
}

/// A duration as people write it.
pub(super) fn shown(ms: i64) -> String {
    humantime::format_duration(Duration::from_millis(ms.unsigned_abs())).to_string()
}
