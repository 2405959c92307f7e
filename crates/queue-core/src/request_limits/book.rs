//! The meters of one process. What passes is decided by `governor`, over a store of our own: so that a request may take from
//! several meters or from none, and so that a meter may be told how it stands elsewhere.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use governor::{RateLimiter, clock, middleware::StateInformationMiddleware, nanos::Nanos, state::StateStore};

use super::{Answer, Draw, Level, Measure, Meter, Quota};

/// Meters from which on those that are whole again are looked for and dropped.
const SWEEP_FROM: usize = 1_024;
/// Quotas that are held: as many as there are different rates. Beyond it they are made anew.
const QUOTAS_MAX: usize = 1_024;

/// Moments are nanoseconds since the beginning of the clock.
const NANOS_PER_US: u64 = 1_000;

/// The hand of the clock that `governor` reads: set before each question, so that all of one request are asked at one moment.
#[derive(Clone, Debug, Default)]
struct Hand(Arc<AtomicU64>);

impl clock::Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

#[derive(Debug, Default)]
struct Held {
    /// When each meter is whole.
    whole: HashMap<Meter, Nanos>,
    /// Whether what passes is taken.
    takes: bool,
    /// The latest moment that a meter of the quota which is asked can name. A clock that was set back, or a quota that was made
    /// smaller, must not close a meter for longer than its whole burst is worth.
    latest: Nanos,
}

/// What `governor` reads and writes.
#[derive(Clone, Debug, Default)]
struct Moments(Arc<Mutex<Held>>);

impl Moments {
    fn held(&self) -> MutexGuard<'_, Held> {
        // What was being done when a holder of the lock panicked is whole: each change is one insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Moments {
    type Key = Meter;

    fn measure_and_replace<T, F, E>(&self, meter: &Meter, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut held = self.held();
        let latest = held.latest;
        let known = held.whole.get_mut(meter).map(|whole| {
            *whole = (*whole).min(latest);
            *whole
        });
        let (outcome, whole) = decide(known)?;
        if held.takes {
            held.whole.insert(meter.clone(), whole);
        }
        Ok(outcome)
    }
}

type Gate = RateLimiter<Meter, Moments, Hand, StateInformationMiddleware>;

/// What `governor` says of a number of cells.
enum Said {
    /// They pass, and this is left.
    Pass(u32),
    /// They would pass after this time, in microseconds.
    Wait(u64),
    /// They are more than ever pass at once.
    Never,
}

/// Meters that stand where they were left, and whole ones that nobody has asked for.
pub(super) struct Book {
    moments: Moments,
    hand: Hand,
    gates: HashMap<Quota, Gate>,
    sweep_at: usize,
}

impl Default for Book {
    fn default() -> Self {
        Self { moments: Moments::default(), hand: Hand::default(), gates: HashMap::new(), sweep_at: SWEEP_FROM }
    }
}

impl Book {
    /// Takes what a request wants at `now_us`, of every meter or of none.
    pub(super) fn take(&mut self, draws: &[Draw], now_us: u64) -> Answer {
        self.answer(draws, now_us, true)
    }

    /// What [`Book::take`] would say, and takes nothing.
    pub(super) fn look(&mut self, draws: &[Draw], now_us: u64) -> Answer {
        self.answer(draws, now_us, false)
    }

    /// A meter is whole no earlier than so long after `now_us`, as was told elsewhere to a question of that moment.
    pub(super) fn hear(&mut self, draw: &Draw, now_us: u64, whole_us: u64) {
        let after = |us: u64| Nanos::new(now_us.saturating_add(us).saturating_mul(NANOS_PER_US));
        let (whole, latest) = (after(whole_us), after(draw.quota.whole_us()));
        let mut held = self.moments.held();
        let known = held.whole.entry(draw.meter.clone()).or_insert(whole);
        // Answers may overtake each other; a meter is only ever whole later than one of them says. But for one whose quota was
        // made smaller: what it owed beyond that was let go.
        *known = (*known).min(latest).max(whole);
    }

    /// Whether what is held of a meter is from a larger quota than this.
    pub(super) fn is_outdated(&self, draw: &Draw, now_us: u64) -> bool {
        let latest = now_us.saturating_add(draw.quota.whole_us()).saturating_mul(NANOS_PER_US);
        self.moments.held().whole.get(&draw.meter).is_some_and(|whole| whole.as_u64() > latest)
    }

    fn answer(&mut self, draws: &[Draw], now_us: u64, takes: bool) -> Answer {
        let now = now_us.saturating_mul(NANOS_PER_US);
        self.sweep(now);
        let there: Vec<u32> = draws.iter().map(|draw| self.there(draw, now)).collect();
        let granted = |measure: Measure| {
            let of_it = draws.iter().zip(&there).filter(|(draw, _)| draw.meter.measure == measure);
            of_it.map(|(draw, there)| draw.most.min(*there)).min()
        };
        let (requests, jobs) = (granted(Measure::Requests), granted(Measure::LlmSubmits));
        let of = |measure| match measure {
            Measure::Requests => requests.unwrap_or(0),
            Measure::LlmSubmits => jobs.unwrap_or(0),
        };
        let admitted = draws.iter().all(|draw| of(draw.meter.measure) >= draw.least);
        let level = |(draw, there): (&Draw, u32)| {
            let taken = if admitted && takes { of(draw.meter.measure) } else { 0 };
            if taken > 0 {
                self.say(draw, taken, true, now);
            }
            Some(self.level(draw, there - taken, now))
        };
        let levels = draws.iter().zip(there).map(level).collect();
        Answer { admitted, jobs, levels }
    }

    /// How a meter stands of which so much is left.
    fn level(&mut self, draw: &Draw, left: u32, now: u64) -> Level {
        let mut until = |cells: u32| match self.say(draw, cells, false, now) {
            Said::Wait(us) => us,
            Said::Pass(_) | Said::Never => 0,
        };
        let (next_us, wait_us) = (until(left.saturating_add(1)), until(draw.least));
        let whole = self.moments.held().whole.get(&draw.meter).map_or(0, |whole| whole.as_u64());
        let whole_us = (whole.saturating_sub(now) / NANOS_PER_US).min(draw.quota.whole_us());
        Level { left, next_us, wait_us, whole_us }
    }

    /// What may come at once.
    fn there(&mut self, draw: &Draw, now: u64) -> u32 {
        match self.say(draw, 1, false, now) {
            Said::Pass(left) => left + 1,
            Said::Wait(_) | Said::Never => 0,
        }
    }

    fn say(&mut self, draw: &Draw, cells: u32, takes: bool, now: u64) -> Said {
        let Some(cells) = NonZeroU32::new(cells) else { return Said::Pass(0) };
        {
            let mut held = self.moments.held();
            held.takes = takes;
            held.latest = Nanos::new(now.saturating_add(draw.quota.whole_us().saturating_mul(NANOS_PER_US)));
        }
        if self.gates.len() >= QUOTAS_MAX && !self.gates.contains_key(&draw.quota) {
            self.gates.clear();
        }
        let (moments, hand) = (&self.moments, &self.hand);
        let gate = self.gates.entry(draw.quota).or_insert_with(|| {
            // A gate counts its moments from the one at which it was made: all of them from the beginning.
            hand.0.store(0, Ordering::Relaxed);
            gate(draw.quota, moments.clone(), hand.clone())
        });
        self.hand.0.store(now, Ordering::Relaxed);
        match gate.check_key_n(&draw.meter, cells) {
            Ok(Ok(passed)) => Said::Pass(passed.remaining_burst_capacity()),
            Ok(Err(refused)) => {
                let wait = refused.wait_time_from(Nanos::new(now)).as_nanos();
                Said::Wait(u64::try_from(wait.div_ceil(u128::from(NANOS_PER_US))).unwrap_or(u64::MAX))
            }
            Err(_) => Said::Never,
        }
    }

    /// Drops meters that are whole again, once there are twice as many as were left the last time.
    fn sweep(&mut self, now: u64) {
        let mut held = self.moments.held();
        if held.whole.len() >= self.sweep_at {
            held.whole.retain(|_, whole| whole.as_u64() > now);
            self.sweep_at = (held.whole.len() * 2).max(SWEEP_FROM);
        }
    }
}

fn gate(quota: Quota, moments: Moments, hand: Hand) -> Gate {
    let interval = std::time::Duration::from_micros(quota.interval_us.max(1));
    let burst = NonZeroU32::new(quota.burst).unwrap_or(NonZeroU32::MIN);
    // An interval of no time is no quota; it is at least a microsecond.
    let quota = governor::Quota::with_period(interval).unwrap_or_else(|| governor::Quota::per_minute(burst));
    RateLimiter::new(quota.allow_burst(burst), moments, hand)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::{ids::Name, limiter::Away};

    fn draw(key: &str) -> Draw {
        let meter = Meter { tenant: "acme".into(), key: Some(Name::from(key)), measure: Measure::Requests };
        Draw { meter, quota: Quota::new(60, 60_000), least: 1, most: 1, when_away: Away::Local }
    }

    #[test]
    fn meters_that_are_whole_are_not_kept() {
        let mut book = Book::default();
        for n in 0..3 * SWEEP_FROM {
            // A second after each, so that it is whole again when the next one comes.
            book.take(&[draw(&n.to_string())], n as u64 * 1_000_000);
        }
        assert!(book.moments.held().whole.len() <= SWEEP_FROM);
    }

    #[test]
    fn what_is_heard_late_changes_nothing() {
        let mut book = Book::default();
        let asked = draw("k");
        // Whole in 60 s: nothing is left.
        book.hear(&asked, 0, 60_000_000);
        book.hear(&asked, 0, 30_000_000);
        assert!(!book.look(slice::from_ref(&asked), 0).admitted);
        assert!(book.look(slice::from_ref(&asked), 1_000_000).admitted);
        assert!(book.look(slice::from_ref(&asked), 1_000_000).admitted, "looking takes nothing");
        // A smaller quota owes less.
        let smaller = Draw { quota: Quota::new(60, 2_000), ..asked.clone() };
        assert!(book.is_outdated(&smaller, 0) && !book.is_outdated(&asked, 0));
        book.hear(&smaller, 0, 2_000_000);
        assert!(!book.is_outdated(&smaller, 0) && !book.look(&[smaller], 999_999).admitted);
    }
}
