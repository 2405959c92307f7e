//! When a failed attempt is followed by another one, and after how long. Pure: the pipeline asks, the stores obey.

use std::time::Duration;

use crate::{
    error::{ErrorClass, JobError},
    time::Timestamp,
};

/// First step of the exponential backoff.
pub const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest backoff between two attempts.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// A provider may ask for a longer pause than the backoff, but not for more than this.
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(3_600);
/// How often a job may be put back for want of capacity (it spends no attempt) before it counts as a failure.
pub const RELEASES_MAX: u32 = 200;

/// What follows a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt at this moment; this one is spent.
    Retry(Timestamp),
    /// Another attempt at this moment; this one does not count (the provider had no capacity).
    Release(Timestamp),
    /// No other attempt.
    Dead,
}

/// What [`decide`] needs to know of the job.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The attempt that failed, counted from 1.
    pub attempt: u32,
    /// Attempts that the job may spend.
    pub max_attempts: u32,
    /// How often the job was put back without spending one.
    pub releases: u32,
    /// The job's end over all attempts.
    pub deadline: Option<Timestamp>,
}

/// Whether an error of this class can pass by itself.
pub fn is_retryable(class: ErrorClass) -> bool {
    use ErrorClass as C;
    match class {
        C::TransportPre
        | C::TransportMid
        | C::Server
        | C::Rate
        | C::StreamBroken
        | C::Timeout
        | C::Panic
        | C::Transient
        | C::Lost
        | C::Truncated
        | C::InvalidOutput
        | C::Quota
        | C::Internal => true,
        C::TooBigForLimit
        | C::Auth
        | C::Config
        | C::Overflow
        | C::BatchSplit
        | C::BadRequest
        | C::Filtered
        | C::Deadline
        | C::Permanent
        | C::Poison => false,
    }
}

/// Whether a failure of this class spends the attempt.
fn spends_attempt(class: ErrorClass) -> bool {
    !matches!(class, ErrorClass::Rate | ErrorClass::Quota)
}

/// How long an exhausted account is left alone when the provider does not say.
const QUOTA_WAIT: Duration = Duration::from_secs(15 * 60);

/// What follows a failed attempt at `now`. `jitter` is a number in 0..1 (full jitter: the wait is anywhere between
/// nothing and the backoff), drawn by the caller so that this stays a function.
pub fn decide(error: &JobError, budget: Budget, now: Timestamp, jitter: f64) -> Decision {
    if !error.retryable {
        return Decision::Dead;
    }
    let free = !spends_attempt(error.class);
    if free && budget.releases >= RELEASES_MAX || !free && budget.attempt >= budget.max_attempts {
        return Decision::Dead;
    }
    let at = now.plus(wait_for(error, budget, jitter));
    if budget.deadline.is_some_and(|deadline| at >= deadline) {
        return Decision::Dead;
    }
    if free { Decision::Release(at) } else { Decision::Retry(at) }
}

fn wait_for(error: &JobError, budget: Budget, jitter: f64) -> Duration {
    let backoff = backoff(budget.attempt.saturating_sub(1).max(budget.releases));
    match error.retry_after_ms.map(Duration::from_millis) {
        // Obeyed in full, with a tenth on top so that a fleet does not return in one instant.
        Some(asked) => asked.min(RETRY_AFTER_CAP).mul_f64(1.0 + 0.1 * jitter),
        None if error.class == ErrorClass::Quota => QUOTA_WAIT.mul_f64(1.0 + 0.1 * jitter),
        None => backoff.mul_f64(jitter),
    }
}

/// The upper end of the wait after `failures` earlier failures: doubling from [`BACKOFF_BASE`] to [`BACKOFF_CAP`].
pub fn backoff(failures: u32) -> Duration {
    BACKOFF_BASE.saturating_mul(1 << failures.min(16)).min(BACKOFF_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn budget(attempt: u32) -> Budget {
        Budget { attempt, max_attempts: 3, releases: 0, deadline: None }
    }

    fn error(class: ErrorClass) -> JobError {
        JobError::new(class, "x", "it failed")
    }

    #[test]
    fn a_passing_failure_retries_until_attempts_are_spent() {
        let server = error(ErrorClass::Server);
        assert_eq!(decide(&server, budget(1), NOW, 0.5), Decision::Retry(NOW.plus_ms(250)));
        assert_eq!(decide(&server, budget(2), NOW, 1.0), Decision::Retry(NOW.plus_ms(1_000)));
        assert_eq!(decide(&server, budget(3), NOW, 1.0), Decision::Dead);
    }

    #[test]
    fn a_final_failure_is_not_repeated() {
        for class in [ErrorClass::Auth, ErrorClass::BadRequest, ErrorClass::Overflow, ErrorClass::Permanent] {
            assert_eq!(decide(&error(class), budget(1), NOW, 0.5), Decision::Dead);
        }
    }

    #[test]
    fn a_full_provider_costs_no_attempt_and_its_wish_is_obeyed() {
        let rate = error(ErrorClass::Rate).with_retry_after(Some(30_000));
        assert_eq!(decide(&rate, budget(3), NOW, 0.0), Decision::Release(NOW.plus_ms(30_000)));
        let tired = Budget { releases: RELEASES_MAX, ..budget(1) };
        assert_eq!(decide(&rate, tired, NOW, 0.0), Decision::Dead);
    }

    #[test]
    fn nothing_is_retried_past_the_deadline() {
        let late = Budget { deadline: Some(NOW.plus_ms(100)), ..budget(1) };
        assert_eq!(decide(&error(ErrorClass::Server), late, NOW, 1.0), Decision::Dead);
    }

    #[test]
    fn the_backoff_doubles_to_its_cap() {
        assert_eq!(backoff(0), BACKOFF_BASE);
        assert_eq!(backoff(3), BACKOFF_BASE * 8);
        assert_eq!(backoff(60), BACKOFF_CAP);
    }
}
