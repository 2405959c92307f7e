//! How often keys and tenants may ask the API, over all of its processes.
//!
//! A *meter* counts what one key does, or all users and analysts of one tenant together: requests, or submits of jobs whose kind
//! asks model providers. Each follows the generic cell rate algorithm (GCRA): at most [`Quota::burst`] at once, and one more
//! each [`Quota::interval_us`]. So in any time *t* at most `burst + t / interval` pass, whichever processes they come to. A
//! request takes from all of its meters in one step, or from none.
//!
//! **Nothing here is the only copy of anything that must last**: a store that forgets gives each meter one burst more. A meter
//! that is whole again is not kept at all, so nothing piles up.
//!
//! The memory implementation is the executable specification of the one in Redis: both pass one suite.

mod book;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod fleet;
pub mod memory;
pub mod redis;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use crate::limiter::{Away, Unavailable};
use crate::{ids::Name, journal::Role};

/// The largest rate that can be set. An interval is a whole number of microseconds, rounded up, so that nobody ever gets more:
/// the largest rates lose at most 1.7 % by it, those below 1,000 a minute nothing that can be seen.
pub const RATE_MAX: u32 = 1_000_000;
/// What may come at once, as time in which it is earned, where nothing is said: a whole minute, so that whoever has been quiet may
/// use its number at once.
pub const BURST_DEFAULT_MS: u32 = 60_000;
/// A minute in microseconds.
const MINUTE_US: u64 = 60_000_000;

/// What a key or a tenant may do in a minute. `None`: nothing is said, or any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Rates {
    /// Requests, 1..=[`RATE_MAX`].
    pub requests_per_minute: Option<u32>,
    /// Submitted jobs of kinds that ask model providers, 1..=[`RATE_MAX`]; each job of a bulk counts.
    pub llm_submits_per_minute: Option<u32>,
}

impl Rates {
    /// These, and where they say nothing, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            requests_per_minute: self.requests_per_minute.or(others.requests_per_minute),
            llm_submits_per_minute: self.llm_submits_per_minute.or(others.llm_submits_per_minute),
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Submitted jobs of kinds that ask model providers.
    LlmSubmits,
}

/// Whose doing is counted, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Meter {
    /// The tenant.
    pub tenant: Name,
    /// The key's public part, or what stands in its place for bearers of an issuer's tokens; `None`: all of the tenant.
    pub key: Option<Name>,
    /// What is counted.
    pub measure: Measure,
}

impl Meter {
    /// What answers and metrics call it.
    pub fn name(&self) -> &'static str {
        match (&self.key, self.measure) {
            (Some(_), Measure::Requests) => "key_requests",
            (Some(_), Measure::LlmSubmits) => "key_llm_submits",
            (None, Measure::Requests) => "tenant_requests",
            (None, Measure::LlmSubmits) => "tenant_llm_submits",
        }
    }
}

/// How much passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The rate as it was set.
    pub per_minute: u32,
    /// What may come at once; at least 1.
    pub burst: u32,
    /// Time after which one more may come, in microseconds; at least 1.
    pub interval_us: u64,
}

impl Quota {
    /// So many a minute, of which what is earned in `burst_ms` may come at once.
    pub fn new(per_minute: u32, burst_ms: u32) -> Self {
        let per_minute = per_minute.clamp(1, RATE_MAX);
        let at_once = u64::from(per_minute) * u64::from(burst_ms) / 60_000;
        Self {
            per_minute,
            burst: u32::try_from(at_once).unwrap_or(RATE_MAX).max(1),
            interval_us: MINUTE_US.div_ceil(u64::from(per_minute)),
        }
    }

    /// What one of so many processes may let pass by itself. The shares together are never more than the whole, but for a burst
    /// that is smaller than the number of processes: each may let one pass.
    #[must_use]
    fn share(self, processes: u32) -> Self {
        let processes = processes.max(1);
        let (burst, interval_us) = ((self.burst / processes).max(1), self.interval_us * u64::from(processes));
        Self { burst, interval_us, ..self }
    }

    /// Time after which a meter that gave everything is whole again, in microseconds.
    fn whole_us(self) -> u64 {
        self.interval_us * u64::from(self.burst)
    }
}

/// What one request wants of one meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The meter.
    pub meter: Meter,
    /// What it lets pass.
    pub quota: Quota,
    /// Without so much the request is refused.
    pub least: u32,
    /// It takes no more than this. Meters of one measure give the same: as much as the one that has least.
    pub most: u32,
    /// What happens while the store that the processes share is away.
    pub when_away: Away,
}

/// How a meter stands after a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// What may still come at once.
    pub left: u32,
    /// Time until that is one more; 0 where it is whole.
    pub next_us: u64,
    /// Of a refused request: time until what it needs of this meter is there; 0 where it is.
    pub wait_us: u64,
    /// Time until the meter is whole.
    pub whole_us: u64,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it passes: if so, what it takes is taken of every meter, if not, of none.
    pub admitted: bool,
    /// Jobs that it may submit, of those that ask model providers; `None`: nobody counts them.
    pub jobs: Option<u32>,
    /// How each meter stands, in the order of the draws; `None` for one that nobody asked.
    pub levels: Vec<Option<Level>>,
}

/// Limits of requests. At most 15 verbs.
#[async_trait]
pub trait RequestLimits: Send + Sync {
    /// Takes what the request wants of every meter, or nothing of any. What a request took stays taken, whatever becomes of it:
    /// a process that dies gives nothing back. The error: a limit says that nothing passes while the store is away.
    async fn take(&self, draws: &[Draw]) -> Result<Answer, Unavailable>;

    /// A refusal that is known without asking anybody; `None`: it is not known. It never refuses what [`RequestLimits::take`]
    /// would let pass at this moment, but for a store that has forgotten.
    fn refuses(&self, draws: &[Draw]) -> Option<Answer>;

    /// Keeps known what has to be, such as how many processes share the limits, until it is dropped.
    async fn attend(&self);
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Its tenant.
    pub tenant: &'a Name,
    /// Its key, see [`Meter::key`].
    pub key: &'a Name,
    /// The key's role.
    pub role: Role,
    /// What was set for the key.
    pub of_key: Rates,
    /// What was set for the tenant.
    pub of_tenant: Rates,
}

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Each key of a role, unless something was set for it.
    pub by_role: BTreeMap<Role, Rates>,
    /// Each tenant, unless something was set for it.
    pub each_tenant: Rates,
    /// What may come at once, as time in which it is earned, up to a minute.
    pub burst_ms: u32,
    /// What happens to requests while the store is away.
    pub when_away: Away,
    /// What happens to submits of jobs that ask model providers.
    pub llm_when_away: Away,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            by_role: BTreeMap::new(),
            each_tenant: Rates::default(),
            burst_ms: BURST_DEFAULT_MS,
            when_away: Away::Local,
            // They spend money: a share that is guessed wrong would be paid for.
            llm_when_away: Away::Closed,
        }
    }
}

impl Rules {
    /// What a request draws that submits `least..=most` jobs which ask model providers. Nothing where nothing limits it. A
    /// tenant's meters count whoever is bound to it; operators and admins work for all tenants.
    pub fn draws(&self, asker: Asker<'_>, (least, most): (u32, u32)) -> Vec<Draw> {
        let key = asker.of_key.or(self.by_role.get(&asker.role).copied().unwrap_or_default());
        let tenant = if asker.role.is_tenant_bound() { asker.of_tenant.or(self.each_tenant) } else { Rates::default() };
        let mut draws = Vec::new();
        for (of, rates) in [(Some(asker.key), key), (None, tenant)] {
            let of_measure = [
                (Measure::Requests, rates.requests_per_minute, (1, 1), self.when_away),
                (Measure::LlmSubmits, rates.llm_submits_per_minute, (least, most), self.llm_when_away),
            ];
            for (measure, rate, (least, most), when_away) in of_measure {
                let (Some(rate), true) = (rate, most > 0) else { continue };
                let meter = Meter { tenant: asker.tenant.clone(), key: of.cloned(), measure };
                draws.push(Draw { meter, quota: Quota::new(rate, self.burst_ms), least, most, when_away });
            }
        }
        draws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(requests: Option<u32>, submits: Option<u32>) -> Rates {
        Rates { requests_per_minute: requests, llm_submits_per_minute: submits }
    }

    #[test]
    fn a_quota_never_passes_more_than_its_rate() {
        for (per_minute, burst_ms, burst, interval_us) in [
            (100, 60_000, 100, 600_000),
            (10, 60_000, 10, 6_000_000),
            (7, 60_000, 7, 8_571_429),
            (100, 6_000, 10, 600_000),
            (1, 1_000, 1, 60_000_000),
            (0, 60_000, 1, 60_000_000),
            (RATE_MAX, 60_000, RATE_MAX, 60),
        ] {
            assert_eq!(Quota::new(per_minute, burst_ms), Quota { per_minute: per_minute.max(1), burst, interval_us });
            assert!(u64::from(per_minute) * interval_us >= MINUTE_US || per_minute == 0);
        }
    }

    #[test]
    fn shares_are_together_no_more_than_the_whole() {
        let whole = Quota::new(100, 60_000);
        for processes in [1, 3, 100] {
            let share = whole.share(processes);
            assert!(share.burst * processes <= whole.burst);
            assert_eq!(share.interval_us, whole.interval_us * u64::from(processes));
        }
        assert_eq!(whole.share(0), whole);
        assert_eq!(whole.share(300).burst, 1);
    }

    #[test]
    fn what_was_set_goes_over_the_role_s_and_each_measure_by_itself() {
        let rules = Rules {
            by_role: [(Role::User, rates(Some(100), Some(10)))].into(),
            each_tenant: rates(Some(1_000), None),
            ..Rules::default()
        };
        let (tenant, key) = (Name::from("acme"), Name::from("k"));
        let draws = |role, of_key, of_tenant, jobs| {
            let asker = Asker { tenant: &tenant, key: &key, role, of_key, of_tenant };
            let drawn = rules.draws(asker, jobs).into_iter();
            drawn.map(|draw| (draw.meter.name(), draw.quota.per_minute, draw.most)).collect::<Vec<_>>()
        };
        let none = Rates::default();
        assert_eq!(
            draws(Role::User, none, none, (1, 1)),
            [("key_requests", 100, 1), ("key_llm_submits", 10, 1), ("tenant_requests", 1_000, 1)]
        );
        assert_eq!(draws(Role::User, none, none, (0, 0)), [("key_requests", 100, 1), ("tenant_requests", 1_000, 1)]);
        assert_eq!(
            draws(Role::User, rates(None, Some(20)), rates(Some(5), Some(6)), (0, 30)),
            [
                ("key_requests", 100, 1),
                ("key_llm_submits", 20, 30),
                ("tenant_requests", 5, 1),
                ("tenant_llm_submits", 6, 30)
            ]
        );
        assert_eq!(draws(Role::Analyst, none, none, (1, 1)), [("tenant_requests", 1_000, 1)]);
        assert!(draws(Role::Operator, none, rates(Some(5), Some(6)), (1, 1)).is_empty());
        assert_eq!(draws(Role::Admin, rates(Some(9), None), none, (1, 1)), [("key_requests", 9, 1)]);
    }
}
