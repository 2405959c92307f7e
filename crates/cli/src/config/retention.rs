//! How long what is kept.

use queue_core::{
    retention::Policy,
    time::{DAY_MS, Timestamp},
};

use super::file::{self, Kept};

/// Least times: below them a unit is wrong, or something that others rely on would be gone too early.
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// A clause of the audit log: its last year cannot be taken out.
const AUDIT_LEAST_MS: i64 = 366 * DAY_MS;
/// Reports may begin within a day for so long.
const COST_DETAILS_LEAST_MS: i64 = 90 * DAY_MS;

/// Checks `[retention]`.
pub(super) fn policy(table: &file::RetentionTable) -> Result<Policy, String> {
    let usual = Policy::default();
    let age = |name: &str, kept: Option<Kept>, usual: Option<i64>, least: i64| match kept {
        None => Ok(usual),
        Some(Kept::Forever) => Ok(None),
        Some(Kept::For(duration)) => {
            let ms = Timestamp(0).plus(duration).0;
            let least_days = least / DAY_MS;
            match ms {
                ms if ms >= least => Ok(Some(ms)),
                _ if least_days > 0 => Err(format!("retention.{name} is too short; {least_days}d is the least")),
                _ => Err(format!("retention.{name} is too short; {}h is the least", least / HOUR_MS)),
            }
        }
    };
    let policy = Policy {
        jobs_ms: age("jobs", table.jobs, usual.jobs_ms, DAY_MS)?,
        payloads_ms: age("payloads", table.payloads, usual.payloads_ms, DAY_MS)?,
        errors_ms: age("errors", table.errors, usual.errors_ms, DAY_MS)?,
        dead_letters_ms: age("dead_letters", table.dead_letters, usual.dead_letters_ms, HOUR_MS)?,
        idempotency_keys_ms: age("idempotency_keys", table.idempotency_keys, usual.idempotency_keys_ms, HOUR_MS)?,
        cost_details_ms: age("cost_details", table.cost_details, usual.cost_details_ms, COST_DETAILS_LEAST_MS)?,
        audit_ms: age("audit", table.audit, usual.audit_ms, AUDIT_LEAST_MS)?,
        webhook_deliveries_ms: age(
            "webhook_deliveries",
            table.webhook_deliveries,
            usual.webhook_deliveries_ms,
            HOUR_MS,
        )?,
        hold: table.hold.clone(),
    };
    for (name, given, of) in
        [("payloads", table.payloads, policy.payloads_ms), ("errors", table.errors, policy.errors_ms)]
    {
        if given.is_some() && policy.jobs_ms.is_some_and(|jobs| of.is_none_or(|own| own > jobs)) {
            return Err(format!("retention.{name} is longer than retention.jobs: nothing is kept longer than its job"));
        }
    }
    Ok(policy)
}
