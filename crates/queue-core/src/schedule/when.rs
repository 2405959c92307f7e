//! When a schedule is due: a cron expression in a time zone, an interval, or one moment.
//!
//! Clocks that are put forward or back are treated as cron daemons do (vixie cron, cronie). An expression without `*` and step in
//! hour, minute and second (`30 2 * * *`, `0 2,14 * * *`) names times of a day: on a day that has no 2:30 it runs at the first moment
//! behind the gap, and on a day that has two it runs at the first. Any other expression means a rhythm: it has no ticks
//! in a gap, and goes on through both halves of an hour that comes twice. Intervals know no clocks: they count from their
//! beginning.

mod words;

use croner::{
    Cron, CronComponent,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Shortest interval, and the finest grain of a cron expression.
pub const EVERY_MIN_MS: i64 = 1_000;
/// Longest interval: what lies beyond is a mistake in the unit.
pub const EVERY_MAX_MS: i64 = 366 * 24 * 60 * 60 * 1_000;
/// Longest cron expression, in bytes: a list of all minutes has 160.
pub const CRON_MAX_BYTES: usize = 512;
/// Most times of a day that are looked for one by one; more of them are a rhythm.
const TIMES_MAX: usize = 64;
/// The last year with ticks. An expression that means no day, or only hours that its zone leaves out, would else be searched for through
/// three thousand years; the rarest day that comes, a 29 February on a given weekday, is away for 40 years at the most.
pub const YEAR_MAX: u16 = 2_199;
/// 2000-01-01: an expression that means anything has a tick between here and [`YEAR_MAX`].
const FIRST: Timestamp = Timestamp(946_684_800_000);
/// The zone of an expression that names none.
pub const ZONE_DEFAULT: &str = "UTC";

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// As a clock on the wall says.
    Cron {
        /// Five fields, or six with seconds before them.
        cron: String,
        /// A name of the time zone database, e.g. `Europe/Berlin`.
        time_zone: String,
    },
    /// Again and again.
    Every {
        /// How long between two ticks.
        every_ms: i64,
        /// The first tick.
        from: Timestamp,
    },
    /// Once.
    Once {
        /// Then.
        at: Timestamp,
    },
}

/// Why an expression and a zone are no [`When`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhenError {
    /// The expression is wrong.
    Cron(String),
    /// There is no such zone.
    TimeZone(String),
}

impl std::fmt::Display for WhenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cron(reason) => write!(f, "the cron expression {reason}"),
            Self::TimeZone(reason) => write!(f, "the time zone {reason}"),
        }
    }
}

impl When {
    /// What ticks at these moments. The zones are those of the system, else those that this program brings along.
    ///
    /// # Errors
    /// Says why the expression or the zone cannot be read. An expression that never comes (`0 0 30 2 *`) is none.
    pub fn ticks(&self) -> Result<Ticks, WhenError> {
        Ok(Ticks(match self {
            Self::Cron { cron, time_zone } => {
                let parsed = parse(cron).map_err(WhenError::Cron)?;
                let zone = zone(time_zone).map_err(WhenError::TimeZone)?;
                let whole = until_year_max(parsed).map_err(WhenError::Cron)?;
                let times = times_of_day(cron, whole).map_err(WhenError::Cron)?;
                // Of each: a list of times as a whole skips what a change of the clocks skips, and each of them comes after it.
                if times.iter().all(|time| cron_after(time, &zone, FIRST).is_none()) {
                    return Err(WhenError::Cron(format!(
                        "never comes: until the end of {YEAR_MAX} no moment is meant by all of its fields"
                    )));
                }
                Inner::Cron { times, zone }
            }
            Self::Every { every_ms, from } => Inner::Every { every_ms: (*every_ms).max(EVERY_MIN_MS), from: *from },
            Self::Once { at } => Inner::Once(*at),
        }))
    }

    /// The zone in which people read its moments.
    pub fn time_zone(&self) -> &str {
        match self {
            Self::Cron { time_zone, .. } => time_zone,
            Self::Every { .. } | Self::Once { .. } => ZONE_DEFAULT,
        }
    }
}

fn parse(text: &str) -> Result<Cron, String> {
    if text.len() > CRON_MAX_BYTES {
        return Err(format!("is {} bytes long; the limit is {CRON_MAX_BYTES}", text.len()));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| {
        let what = match error {
            CronError::InvalidPattern(what) | CronError::IllegalCharacters(what) | CronError::ComponentError(what) => {
                what
            }
            other => other.to_string(),
        };
        format!("cannot be read: {what} Five fields, or six with seconds first, such as `30 2 * * MON-FRI`")
    })
}

/// The same expression, whose search ends behind [`YEAR_MAX`].
fn until_year_max(mut cron: Cron) -> Result<Cron, String> {
    let mut years = CronComponent::new(1, YEAR_MAX, 0, 0);
    years.parse("*").map_err(|error| format!("cannot be searched for: {error}"))?;
    cron.pattern.years = years;
    Ok(cron)
}

/// An expression for each time of the day, where it names several: croner knows single ones and rhythms.
fn times_of_day(text: &str, whole: Cron) -> Result<Vec<Cron>, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let (minutes_at, fields) = match fields.len() {
        5 => (0, fields),
        6 => (1, fields),
        // A nickname such as `@daily`.
        _ => return Ok(vec![whole]),
    };
    let is_rhythm = fields[..minutes_at + 2].iter().any(|field| field.contains(['*', '/', '?']));
    let [seconds, minutes, hours] =
        [&whole.pattern.seconds, &whole.pattern.minutes, &whole.pattern.hours].map(|component| component.values());
    let times = seconds.len() * minutes.len() * hours.len();
    if is_rhythm || times == 1 || times > TIMES_MAX {
        return Ok(vec![whole]);
    }
    let days = fields[minutes_at + 2..].join(" ");
    let mut found = Vec::with_capacity(times);
    for hour in hours {
        for minute in &minutes {
            for second in &seconds {
                found.push(until_year_max(parse(&format!("{second} {minute} {hour} {days}"))?)?);
            }
        }
    }
    Ok(found)
}

fn zone(name: &str) -> Result<TimeZone, String> {
    let found = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown());
    found.ok_or_else(|| format!("`{name}` is not known; names are those of the time zone database, e.g. Europe/Berlin"))
}

/// The moments of a [`When`], ready to be asked for.
#[derive(Clone, Debug)]
pub struct Ticks(Inner);

#[derive(Clone, Debug)]
enum Inner {
    /// Each of these.
    Cron {
        times: Vec<Cron>,
        zone: TimeZone,
    },
    Every {
        every_ms: i64,
        from: Timestamp,
    },
    Once(Timestamp),
}

impl Ticks {
    /// The first tick behind a moment; `None` where there is none any more.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Inner::Cron { times, zone } => times.iter().filter_map(|cron| cron_after(cron, zone, moment)).min(),
            Inner::Every { every_ms, from } => {
                if moment < *from {
                    return Some(*from);
                }
                let passed = (moment.0.saturating_sub(from.0)) / every_ms;
                from.0.checked_add((passed + 1).checked_mul(*every_ms)?).map(Timestamp)
            }
            Inner::Once(at) => (*at > moment).then_some(*at),
        }
    }

    /// The ticks behind `after` up to and with `upto`, in their order.
    pub fn between(&self, after: Timestamp, upto: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.after(after), |last| self.after(*last)).take_while(move |tick| *tick <= upto)
    }
}

impl When {
    /// A tick as a clock on the wall of its zone shows it, e.g. `2026-03-29T03:00:00+02:00`.
    pub fn local(&self, tick: Timestamp) -> String {
        let zone = TimeZone::get(self.time_zone()).unwrap_or(TimeZone::UTC);
        match jiff::Timestamp::from_millisecond(tick.0) {
            Ok(at) => at.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
            Err(_) => tick.to_string(),
        }
    }
}

fn cron_after(cron: &Cron, zone: &TimeZone, moment: Timestamp) -> Option<Timestamp> {
    // Ticks are whole seconds: none lies between this one and its own fraction.
    let second = moment.0.div_euclid(1_000);
    let from = jiff::Timestamp::from_second(second).ok()?.to_zoned(zone.clone());
    let found = cron.find_next_occurrence(&from, false).ok()?;
    let tick = Timestamp(found.timestamp().as_second().checked_mul(1_000)?);
    // Whoever asks walks on by what is answered here: a step back would be an endless walk.
    (tick > moment).then_some(tick)
}

#[cfg(test)]
mod tests;
