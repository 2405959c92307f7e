//! The retry table: what each class of error means, one row a class. Every part that has to know asks here.
//!
//! Which class a provider's answer is of stands beside the wire that it comes over (`openai/errors.rs` in the worker).

use std::time::Duration;

use crate::{error::ErrorClass, ledger::Billed};

/// How long an exhausted account is left alone when the provider does not say.
pub const QUOTA_WAIT: Duration = Duration::from_secs(15 * 60);
/// Attempts at most for a request that a content network refused with 403: what it blocks, it may block for ever.
pub const BLOCKED_TRIES_MAX: u8 = 3;

/// What follows an attempt that failed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Another attempt; this one is spent.
    Retry,
    /// Another attempt; this one does not count, since it found nobody who could have answered.
    Release,
    /// Nothing: it would fail again.
    Final,
}

/// How long to wait where the provider does not ask for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Anywhere from nothing to a bound that doubles with each failure.
    Backoff,
    /// Next to nothing once, since a lost connection is often alone; then as [`Wait::Backoff`].
    FastThenBackoff,
    /// As long as this.
    Fixed(Duration),
}

/// What a call that ended so says of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does not work: what opens a breaker.
    Failure,
    /// It works: it looked at the request and refused it, or took its time. Counts neither for nor against it.
    Answered,
    /// Nothing.
    Unknown,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What follows.
    pub then: Then,
    /// After how long.
    pub wait: Wait,
    /// Whether money changed hands, where the signal itself does not say more.
    pub billed: Billed,
    /// What it says of the target.
    pub health: Health,
    /// Whether a chain may go on with another model.
    pub may_fall_back: bool,
}

/// The row of a class.
#[rustfmt::skip]
pub fn rule(class: ErrorClass) -> Rule {
    use {Billed::{Maybe, No, Yes}, ErrorClass as C, Health::{Answered, Failure, Unknown}, Then::{Final, Release, Retry}};
    const FAST: Wait = Wait::FastThenBackoff;
    const SLOW: Wait = Wait::Backoff;
    const QUOTA: Wait = Wait::Fixed(QUOTA_WAIT);
    let row = |then, wait, billed, health, may_fall_back| Rule { then, wait, billed, health, may_fall_back };
    match class {
        //                             then     after  billed health    may fall back
        C::TransportPre   => row(Retry,   SLOW,  No,    Failure,  true),
        C::TransportMid   => row(Retry,   FAST,  Maybe, Failure,  true),
        C::Server         => row(Retry,   SLOW,  No,    Failure,  true),
        C::StreamBroken   => row(Retry,   SLOW,  Maybe, Failure,  true),
        // Ours, not the provider's: a job with a timeout of a second must not close a target for all others.
        C::Timeout        => row(Retry,   SLOW,  Maybe, Unknown,  true),
        C::Rate           => row(Release, SLOW,  No,    Answered, true),
        C::Breaker        => row(Release, SLOW,  No,    Unknown,  true),
        C::Budget         => row(Release, SLOW,  No,    Unknown,  true),
        C::Credential     => row(Release, SLOW,  No,    Unknown,  true),
        C::Quota          => row(Release, QUOTA, No,    Answered, true),
        C::TooBigForLimit => row(Final,   SLOW,  No,    Answered, true),
        C::Auth           => row(Final,   SLOW,  No,    Answered, true),
        C::Config         => row(Final,   SLOW,  No,    Answered, true),
        C::Overflow       => row(Final,   SLOW,  No,    Answered, true),
        C::BatchSplit     => row(Final,   SLOW,  No,    Answered, false),
        C::BadRequest     => row(Final,   SLOW,  No,    Answered, false),
        C::Filtered       => row(Final,   SLOW,  Yes,   Answered, true),
        C::Truncated      => row(Retry,   SLOW,  Yes,   Answered, true),
        C::InvalidOutput  => row(Retry,   SLOW,  Yes,   Answered, true),
        C::Panic          => row(Retry,   SLOW,  Maybe, Unknown,  false),
        C::Transient      => row(Retry,   SLOW,  No,    Unknown,  false),
        C::Lost           => row(Retry,   SLOW,  Maybe, Unknown,  false),
        C::Internal       => row(Retry,   SLOW,  Maybe, Unknown,  false),
        C::Deadline       => row(Final,   SLOW,  No,    Unknown,  false),
        C::Permanent      => row(Final,   SLOW,  No,    Unknown,  false),
        C::Poison         => row(Final,   SLOW,  Maybe, Unknown,  false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_and_lines_that_fail_open_a_breaker() {
        let opening: Vec<_> =
            ErrorClass::ALL.into_iter().filter(|class| rule(*class).health == Health::Failure).collect();
        use ErrorClass as C;
        assert_eq!(opening, [C::TransportPre, C::TransportMid, C::Server, C::StreamBroken]);
    }

    #[test]
    fn what_finds_nobody_spends_no_attempt() {
        let free: Vec<_> = ErrorClass::ALL.into_iter().filter(|class| rule(*class).then == Then::Release).collect();
        use ErrorClass as C;
        let classes = [C::Rate, C::Quota, C::Breaker, C::Credential, C::Budget];
        assert_eq!(free, classes);
        assert_eq!(rule(ErrorClass::Quota).wait, Wait::Fixed(Duration::from_secs(900)));
    }
}
