//! When a failed attempt is followed by another one, and after how long. Pure: the pipeline asks, the stores obey.
//! What each class of error means is one table, [`rule`].

mod rules;

use std::time::Duration;

pub use rules::{BLOCKED_TRIES_MAX, Health, QUOTA_WAIT, Rule, Then, Wait, rule};

use crate::{
    error::{ErrorClass, JobError},
    time::Timestamp,
};

/// First step of the exponential backoff.
pub const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest wait after the first loss of a connection.
pub const FAST_MAX: Duration = Duration::from_millis(100);
/// Longest backoff between two attempts.
pub const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// A provider may ask for a longer pause than the backoff, but not for more than this.
pub const RETRY_AFTER_CAP: Duration = Duration::from_secs(3_600);
/// How long a job stays out of a lane that sleeps: should the lane not sleep after all, it comes again no sooner.
pub const LANE_WAIT: Duration = Duration::from_secs(30);
/// How far apart those return who wait for one budget.
pub const BUDGET_SPREAD: Duration = Duration::from_secs(5);
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
    rule(class).then != Then::Final
}

/// What follows a failed attempt at `now`. `jitter` is a number in 0..1 (full jitter: the wait is anywhere between
/// nothing and the backoff), drawn by the caller so that this stays a function.
pub fn decide(error: &JobError, budget: Budget, now: Timestamp, jitter: f64) -> Decision {
    if !error.retryable {
        return Decision::Dead;
    }
    let rule = rule(error.class);
    let free = rule.then == Then::Release;
    let tries = error.tries_max.map_or(budget.max_attempts, |max| budget.max_attempts.min(u32::from(max)));
    // Where nobody is asked, waiting costs the provider nothing, however long it takes.
    let asks_nobody = matches!(error.class, ErrorClass::Breaker | ErrorClass::Credential | ErrorClass::Budget)
        || error.is_of_our_limit();
    let is_tired = free && budget.releases >= RELEASES_MAX && !asks_nobody;
    if is_tired || !free && budget.attempt >= tries {
        return Decision::Dead;
    }
    let at = now.plus(wait_for(error, rule.wait, budget, jitter));
    // What would come after the job's end is not waited for: it fails now, while someone may still do something else.
    if budget.deadline.is_some_and(|deadline| at >= deadline) {
        return Decision::Dead;
    }
    match free {
        // In its lane it keeps its place, and `why` says what the lane waits for.
        true if error.lane_sleeps => Decision::Release(at.min(now.plus(LANE_WAIT))),
        true => Decision::Release(at),
        false => Decision::Retry(at),
    }
}

fn wait_for(error: &JobError, wait: Wait, budget: Budget, jitter: f64) -> Duration {
    let failures = budget.attempt.saturating_sub(1).max(budget.releases);
    match (error.retry_after_ms.map(Duration::from_millis), wait) {
        // The end of a month is what it is; a few seconds on top so that not all return in one instant.
        (Some(asked), _) if error.class == ErrorClass::Budget => {
            asked + asked.mul_f64(0.1).min(BUDGET_SPREAD).mul_f64(jitter)
        }
        // Obeyed in full, with a tenth on top so that a fleet does not return in one instant.
        (Some(asked), _) => asked.min(RETRY_AFTER_CAP).mul_f64(1.0 + 0.1 * jitter),
        (None, Wait::Fixed(wait)) => wait.mul_f64(1.0 + 0.1 * jitter),
        (None, Wait::FastThenBackoff) if failures == 0 => FAST_MAX.mul_f64(jitter),
        (None, Wait::FastThenBackoff) => backoff(failures - 1).mul_f64(jitter),
        (None, Wait::Backoff) => backoff(failures).mul_f64(jitter),
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
    fn whoever_waits_for_our_own_limit_is_never_tired_of_it() {
        let tired = Budget { releases: RELEASES_MAX * 10, ..budget(1) };
        for code in [crate::limiter::PARKED, crate::limiter::LIMITED] {
            let own = JobError::new(ErrorClass::Rate, code, "it waits").with_retry_after(Some(1_000));
            assert_eq!(decide(&own, tired, NOW, 0.0), Decision::Release(NOW.plus_ms(1_000)));
        }
    }

    #[test]
    fn nothing_is_retried_past_the_deadline() {
        let late = Budget { deadline: Some(NOW.plus_ms(100)), ..budget(1) };
        assert_eq!(decide(&error(ErrorClass::Server), late, NOW, 1.0), Decision::Dead);
    }

    #[test]
    fn a_breaker_or_a_key_is_waited_for_as_long_as_it_takes() {
        let patient = Budget { releases: RELEASES_MAX * 10, ..budget(3) };
        for class in [ErrorClass::Breaker, ErrorClass::Credential] {
            let waits = error(class).with_retry_after(Some(10_000));
            assert_eq!(decide(&waits, patient, NOW, 0.0), Decision::Release(NOW.plus_ms(10_000)));
        }
    }

    #[test]
    fn the_end_of_a_period_is_waited_for_however_far_it_is() {
        let month = 20 * 24 * 3_600_000_u64;
        let budget_error = error(ErrorClass::Budget).with_retry_after(Some(month));
        let patient = Budget { releases: RELEASES_MAX * 10, ..budget(3) };
        assert_eq!(decide(&budget_error, patient, NOW, 0.0), Decision::Release(NOW.plus_ms(month as i64)));
        let latest = NOW.plus_ms(month as i64).plus(BUDGET_SPREAD);
        assert_eq!(decide(&budget_error, patient, NOW, 1.0), Decision::Release(latest));
        let fails = JobError { retryable: false, ..budget_error };
        assert_eq!(decide(&fails, patient, NOW, 0.0), Decision::Dead);
    }

    #[test]
    fn a_job_whose_lane_sleeps_waits_in_it() {
        let breaker = JobError { lane_sleeps: true, ..error(ErrorClass::Breaker).with_retry_after(Some(300_000)) };
        assert_eq!(decide(&breaker, budget(1), NOW, 0.0), Decision::Release(NOW.plus(LANE_WAIT)));
        let near = Budget { deadline: Some(NOW.plus_ms(200_000)), ..budget(1) };
        assert_eq!(decide(&breaker, near, NOW, 0.0), Decision::Dead, "its lane sleeps longer than it may live");
    }

    #[test]
    fn a_lost_connection_is_tried_again_at_once_and_then_with_patience() {
        let lost = error(ErrorClass::TransportMid);
        assert_eq!(decide(&lost, budget(1), NOW, 1.0), Decision::Retry(NOW.plus(FAST_MAX)));
        assert_eq!(decide(&lost, budget(2), NOW, 1.0), Decision::Retry(NOW.plus(BACKOFF_BASE)));
    }

    #[test]
    fn an_exhausted_account_is_left_alone_for_a_quarter_of_an_hour() {
        assert_eq!(decide(&error(ErrorClass::Quota), budget(3), NOW, 0.0), Decision::Release(NOW.plus(QUOTA_WAIT)));
    }

    #[test]
    fn what_a_content_network_blocks_is_tried_three_times_at_most() {
        let blocked = JobError { tries_max: Some(BLOCKED_TRIES_MAX), ..error(ErrorClass::Server) };
        let many = |attempt| Budget { max_attempts: 50, ..budget(attempt) };
        assert!(matches!(decide(&blocked, many(2), NOW, 0.0), Decision::Retry(_)));
        assert_eq!(decide(&blocked, many(3), NOW, 0.0), Decision::Dead);
        assert!(matches!(decide(&error(ErrorClass::Server), many(3), NOW, 0.0), Decision::Retry(_)));
    }

    #[test]
    fn a_wish_that_outlasts_the_deadline_fails_now() {
        let rate = error(ErrorClass::Rate).with_retry_after(Some(60_000));
        let near = Budget { deadline: Some(NOW.plus_ms(30_000)), ..budget(1) };
        assert_eq!(decide(&rate, near, NOW, 0.0), Decision::Dead);
    }

    #[test]
    fn the_backoff_doubles_to_its_cap() {
        assert_eq!(backoff(0), BACKOFF_BASE);
        assert_eq!(backoff(3), BACKOFF_BASE * 8);
        assert_eq!(backoff(60), BACKOFF_CAP);
    }
}
