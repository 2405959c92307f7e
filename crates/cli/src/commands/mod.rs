//! The operator commands. They speak HTTP to a running installation and hold no store of their own, but for those that work on the
//! stores themselves: `migrate`, `backup`, and parts of `doctor`.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod budget;
pub(crate) mod cost;
pub(crate) mod credential;
pub(crate) mod dlq;
pub(crate) mod doctor;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod limit;
pub(crate) mod log_level;
pub(crate) mod maintenance;
pub(crate) mod migrate;
pub(crate) mod op;
pub(crate) mod price;
pub(crate) mod queue;
pub(crate) mod rates;
pub(crate) mod redis_snapshot;
pub(crate) mod remote_backup;
pub(crate) mod retention;
pub(crate) mod schedule;
pub(crate) mod smoke;
pub(crate) mod target;
pub(crate) mod tenant;
pub(crate) mod webhook;
pub(crate) mod worker;

use queue_core::time::{Clock, SystemClock, Timestamp, parse_duration};

use serde_json::{Value, json};

use crate::{client::Client, failure::Failure, output::Output};

/// What an operator command works with.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    /// The server.
    pub(crate) client: Client,
    /// Where the answer goes.
    pub(crate) out: Output,
}

/// The change that pauses something.
pub(crate) fn pause_body(until: Option<String>, reason: Option<String>) -> Result<Value, Failure> {
    let until = until.map(|text| parse_later(&text)).transpose().map_err(Failure::usage)?;
    let mut body = json!({"paused": true});
    if let Some(until) = until {
        body["until"] = json!(until);
    }
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    Ok(body)
}

/// Reads a moment that is given as RFC 3339 or as a duration from now, e.g. `10m`.
pub(crate) fn parse_later(text: &str) -> Result<Timestamp, String> {
    text.parse().or_else(|_| {
        let ahead = parse_duration(text.trim_start_matches('+')).map_err(|_| {
            format!("`{text}` is neither a time such as 2026-11-21T09:30:00Z nor a duration such as 10m")
        })?;
        Ok(SystemClock.now().plus(ahead))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_moment_is_a_time_or_a_duration() {
        assert_eq!(parse_later("2026-11-21T09:30:00Z").unwrap().to_string(), "2026-11-21T09:30:00.000Z");
        let before = SystemClock.now();
        let later = parse_later("+10m").unwrap();
        assert!(later >= before.plus_ms(600_000) && later <= SystemClock.now().plus_ms(600_000));
        assert!(parse_later("soon").unwrap_err().contains("neither"));
    }
}
