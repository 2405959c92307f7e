//! What operators order of the whole installation and of single workers.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

use super::JournalError;
use crate::{
    ids::SessionId,
    time::{Clock, Timestamp},
};

/// How often each process looks for new orders.
pub const ORDERS_EVERY: Duration = Duration::from_secs(1);
/// After so long every process that reaches the journal has heard of an order: whoever gives one waits for it before he says
/// that it holds.
pub const ORDERS_HEARD: Duration = Duration::from_secs(2);

/// The installation takes no jobs and starts none; what runs ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maintenance {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: Option<String>,
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "since {}", self.since)?;
        self.reason.as_ref().map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// What every process logs instead of what it was told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogLevel {
    /// See [`LogLevel::checked`].
    pub filter: String,
    /// When each process goes back to its own; `None`: when it is told to.
    pub until: Option<Timestamp>,
}

/// Longest filter of a log, in bytes.
pub const LOG_FILTER_MAX_BYTES: usize = 500;
/// The levels, and what logs nothing.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogLevel {
    /// A filter as it is kept: a level, or several parts `target=level` and at most one level, with commas between them, e.g.
    /// `info,worker=debug`. The other forms of `RUST_LOG` look into fields, which are for whoever starts a process.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn checked(text: &str) -> Result<String, String> {
        if text.len() > LOG_FILTER_MAX_BYTES {
            return Err(format!("is longer than {LOG_FILTER_MAX_BYTES} bytes"));
        }
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let is_target = |target: &str| {
            !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
        };
        for part in &parts {
            let (target, level) = part.split_once('=').map_or((None, *part), |(target, level)| (Some(target), level));
            if !LEVELS.contains(&level) || !target.is_none_or(is_target) {
                return Err(format!(
                    "`{part}` is neither a level ({}) nor target=level such as worker=debug",
                    LEVELS.join(", ")
                ));
            }
        }
        if parts.iter().filter(|part| !part.contains('=')).count() > 1 {
            return Err("has more than one level that is for everything".into());
        }
        Ok(parts.join(","))
    }

    /// Whether it holds now.
    pub fn holds(&self, clock: &dyn Clock) -> bool {
        self.until.is_none_or(|until| clock.now() < until)
    }
}

/// What holds for one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerOrders {
    /// Nobody claims.
    pub maintenance: Option<Maintenance>,
    /// It claims no more and finishes what it runs; `None` where it is not registered: the last order stands.
    pub drain: Option<bool>,
}

/// What operators order. It outlives every process; whoever is concerned looks every [`ORDERS_EVERY`].
#[async_trait]
pub trait Orders: Send + Sync {
    /// The maintenance that is on.
    async fn maintenance(&self) -> Result<Option<Maintenance>, JournalError>;

    /// Whether the journal was restored from a backup and nobody has confirmed it yet, which the end of maintenance does.
    async fn awaits_confirmation(&self) -> Result<bool, JournalError>;

    /// Begins or ends it. One that has begun keeps its first moment; its end also confirms a restored journal.
    async fn set_maintenance(&self, maintenance: Option<Maintenance>) -> Result<(), JournalError>;

    /// Orders a worker to drain, or to claim again; `false`: no such worker is registered.
    async fn order_drain(&self, worker: SessionId, drain: bool) -> Result<bool, JournalError>;

    /// What every process logs; also one whose time is over.
    async fn log_level(&self) -> Result<Option<LogLevel>, JournalError>;

    /// Sets it; `None`: each logs what it was told at its start.
    async fn set_log_level(&self, level: Option<LogLevel>) -> Result<(), JournalError>;

    /// What holds for a worker.
    async fn orders(&self, worker: SessionId) -> Result<WorkerOrders, JournalError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    #[test]
    fn a_filter_names_levels_and_targets_and_nothing_else() {
        for (text, kept) in [
            ("debug", "debug"),
            ("info, worker=debug", "info,worker=debug"),
            ("api::observe=trace,warn", "api::observe=trace,warn"),
            ("off", "off"),
        ] {
            assert_eq!(LogLevel::checked(text).as_deref(), Ok(kept));
        }
        for text in
            ["", "loud", "worker", "worker=", "=debug", "info,debug", "[attempt{job_id=1}]=debug", "a b=info", "info,"]
        {
            assert!(LogLevel::checked(text).is_err(), "{text}");
        }
        assert!(LogLevel::checked(&format!("{}=info", "x".repeat(LOG_FILTER_MAX_BYTES))).is_err());
    }

    #[test]
    fn a_level_holds_until_its_time_is_over() {
        let clock = ManualClock::at(Timestamp(1_000));
        let level = |until| LogLevel { filter: "debug".into(), until };
        assert!(level(None).holds(&clock) && level(Some(Timestamp(1_001))).holds(&clock));
        assert!(!level(Some(Timestamp(1_000))).holds(&clock));
    }
}
