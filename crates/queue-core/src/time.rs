//! Time as the product sees it: milliseconds since the Unix epoch, and one place that reads the wall clock.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in milliseconds since 1970-01-01T00:00:00Z. Written and read as RFC 3339 on every outside surface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// Milliseconds of a UTC day.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

impl Timestamp {
    /// The moment `ms` milliseconds later (earlier when negative); saturates instead of wrapping.
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment `duration` later; saturates instead of wrapping.
    pub fn plus(self, duration: Duration) -> Self {
        self.plus_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds from `earlier` to `self`; 0 when `earlier` lies in the future.
    pub fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }

    /// The start of its UTC day.
    pub fn start_of_day(self) -> Self {
        Self(self.0.saturating_sub(self.0.rem_euclid(DAY_MS)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: jiff::Timestamp =
            text.parse().map_err(|_| format!("`{text}` is not an RFC 3339 time such as 2026-11-21T09:30:00Z"))?;
        Ok(Self(at.as_millisecond()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where logic gets "now" from. Stores decide with their own clock; tests hold a [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// The current moment.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that may read the wall clock
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that a test moves by hand. Clones share one time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.0)))
    }

    /// Moves the clock on by `ms` milliseconds.
    pub fn advance_ms(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Longest age that is counted back from now, in days: a hundred years. What is older than any job is a mistake in the unit, and its
/// moment may lie before the years that RFC 3339 writes.
pub const AGE_MAX_DAYS: i64 = 36_500;

/// Reads how long ago something was, in milliseconds.
///
/// # Errors
/// Says what is wrong with the text. It is no duration, or one of more than [`AGE_MAX_DAYS`].
pub fn parse_age_ms(text: &str) -> Result<i64, String> {
    let age = parse_duration(text)?;
    let ms = i64::try_from(age.as_millis()).ok().filter(|ms| *ms <= AGE_MAX_DAYS * DAY_MS);
    ms.ok_or_else(|| format!("an age is at most {AGE_MAX_DAYS}d, not `{text}`"))
}

/// Reads a duration such as `30s`, `5m`, `1h 30m` or `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration such as 30s, 5m or 7d: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight() {
        let start = |text: &str| text.parse::<Timestamp>().unwrap().start_of_day().to_string();
        assert_eq!(start("2026-11-21T09:30:00.125Z"), "2026-11-21T00:00:00.000Z");
        assert_eq!(start("2026-11-21T00:00:00Z"), "2026-11-21T00:00:00.000Z");
        assert_eq!(start("1969-12-31T23:59:59Z"), "1969-12-31T00:00:00.000Z");
    }

    #[test]
    fn an_age_is_at_most_a_hundred_years() {
        assert_eq!(parse_age_ms("36500d"), Ok(AGE_MAX_DAYS * DAY_MS));
        for text in ["36500d 1ms", "2147483648h", "18446744073709551615s"] {
            assert_eq!(parse_age_ms(text), Err(format!("an age is at most 36500d, not `{text}`")));
        }
        assert!(parse_age_ms("long ago").unwrap_err().contains("is not a duration"));
    }

    #[test]
    fn timestamps_round_trip_as_rfc3339() {
        let at: Timestamp = "2026-11-21T09:30:00.125Z".parse().unwrap();
        assert_eq!(at.to_string(), "2026-11-21T09:30:00.125Z");
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2026-11-21T09:30:00.125Z\"");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
