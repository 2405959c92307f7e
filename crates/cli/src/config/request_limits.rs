//! What the configuration says of how often keys and tenants may ask.

use std::{ops::RangeInclusive, time::Duration};

use queue_core::{
    journal::Role,
    request_limits::{RATE_MAX, Rates, Rules},
};

use super::file;

/// What may come at once, as time in which it is earned: never more than the number that is told for a minute.
const BURST: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// Checks `[request_limits]`.
pub(super) fn rules(table: &file::RequestLimits) -> Result<Rules, String> {
    let usual = Rules::default();
    let burst_ms = match table.burst {
        None => usual.burst_ms,
        Some(file::Seconds(burst)) if BURST.contains(&burst) => {
            u32::try_from(burst.as_millis()).unwrap_or(usual.burst_ms)
        }
        Some(file::Seconds(burst)) => {
            return Err(format!(
                "request_limits.burst is {burst:?}; it is between {:?} and {:?}",
                BURST.start(),
                BURST.end()
            ));
        }
    };
    let roles = [
        (Role::User, &table.user),
        (Role::Analyst, &table.analyst),
        (Role::Operator, &table.operator),
        (Role::Admin, &table.admin),
    ];
    let of_role = |(role, rates): (Role, &file::Rates)| Ok((role, checked(&format!("request_limits.{role}"), rates)?));
    Ok(Rules {
        by_role: roles.into_iter().map(of_role).collect::<Result<_, String>>()?,
        each_tenant: checked("request_limits.each_tenant", &table.each_tenant)?,
        burst_ms,
        when_away: table.when_away.unwrap_or(usual.when_away),
        llm_when_away: table.llm_when_away.unwrap_or(usual.llm_when_away),
    })
}

/// What stands at `place`, if it is in range.
pub(super) fn checked(place: &str, rates: &file::Rates) -> Result<Rates, String> {
    for (name, rate) in
        [("requests_per_minute", rates.requests_per_minute), ("llm_submits_per_minute", rates.llm_submits_per_minute)]
    {
        if let Some(rate) = rate.filter(|rate| !(1..=RATE_MAX).contains(rate)) {
            return Err(format!("{place}.{name} is {rate}; it is between 1 and {RATE_MAX}"));
        }
    }
    Ok(Rates { requests_per_minute: rates.requests_per_minute, llm_submits_per_minute: rates.llm_submits_per_minute })
}
