//! What the loss of a worker means for its jobs: the same in every store.

use super::{Blame, Recovery};
use crate::{
    dispatcher::{Entry, Suspicion},
    error::{ErrorClass, JobError},
    ids::{CallId, Epoch},
    ledger::{Billed, CallRecord, Tier, Usage, UsageSource},
    route::OPERATORS,
    time::Timestamp,
};

/// Recoveries without a settle from which on a job that is blamed alone is a dead letter of class `poison`.
pub const POISON_RECOVERIES: u32 = 3;

impl Suspicion {
    /// Of a live job that was recovered so often. Suspicion begins with the recovery before the last: sooner would be safer
    /// from several killers at once, and a killed worker with a thousand long jobs would then give them back as suspects.
    pub fn of(recoveries: u32) -> Self {
        match recoveries {
            0..SUSPECT_RECOVERIES => Self::None,
            SUSPECT_RECOVERIES => Self::Suspect,
            _ => Self::Isolated,
        }
    }
}

const SUSPECT_RECOVERIES: u32 = POISON_RECOVERIES - 1;

/// Whether this recovery, after which the job has so many, convicts it.
pub(super) fn convicts(recovery: &Recovery, recoveries: u32) -> bool {
    recovery.blame == Blame::Alone && recoveries >= POISON_RECOVERIES
}

/// The error of an attempt that ended with its worker.
pub(super) fn attempt_error() -> JobError {
    JobError::new(ErrorClass::Lost, "worker_lost", "the worker was lost during this attempt")
}

/// The error of a job that workers keep dying with.
pub(super) fn poison_error() -> JobError {
    let message = format!("{POISON_RECOVERIES} or more workers were lost while running this job");
    JobError::new(ErrorClass::Poison, "worker_lost", message)
}

/// The ledger row of a lost attempt, which may have paid for a call that nobody heard the answer of. `entry` is the job
/// after its recovery, `claimed` the epoch that was lost. Kinds that call no provider have none.
pub(super) fn call_of(entry: &Entry, claimed: Epoch, operation: Option<String>, at: Timestamp) -> Option<CallRecord> {
    if !entry.kind.asks_providers() {
        return None;
    }
    let (provider, model) = provider_and_model(entry.target.as_str());
    let credential = credential_of(entry.target.as_str());
    let sequence = u32::try_from(claimed.0).unwrap_or(u32::MAX);
    Some(CallRecord {
        call_id: CallId::of(entry.id, "lost", sequence),
        job_id: entry.id,
        tenant: entry.tenant.clone(),
        queue: entry.queue.clone(),
        kind: entry.kind,
        operation,
        // What nobody knows the cost of is not counted against a budget either.
        key_id: None,
        epoch: claimed,
        step: "lost".into(),
        sequence,
        provider: provider.into(),
        model: model.into(),
        status: "lost".into(),
        billed: Billed::Maybe,
        usage: Usage::default(),
        tier: Tier::Standard,
        usage_source: UsageSource::Estimated,
        cost: None,
        price_version: String::new(),
        duration_ms: 0,
        provider_request_id: None,
        at,
        credential: credential.into(),
        memo: None,
    })
}

/// The first two parts of `provider:model:credential`; a model's own name may contain colons.
fn provider_and_model(target: &str) -> (&str, &str) {
    let (provider, rest) = target.split_once(':').unwrap_or((target, ""));
    (provider, rest.rsplit_once(':').map_or(rest, |(model, _credential)| model))
}

/// The credential of the first target of a lane.
fn credential_of(lane: &str) -> &str {
    let first = lane.split('>').next().unwrap_or(lane);
    first.rsplit_once(':').map_or(OPERATORS, |(_, credential)| credential)
}

#[cfg(test)]
mod tests {
    use super::{credential_of, provider_and_model};

    #[test]
    fn a_model_may_contain_colons() {
        assert_eq!(provider_and_model("openai:gpt-4o-mini:default"), ("openai", "gpt-4o-mini"));
        assert_eq!(provider_and_model("local:llama3:8b:default"), ("local", "llama3:8b"));
        assert_eq!(provider_and_model("probe"), ("probe", ""));
        assert_eq!(credential_of("local:llama3:8b:@acme>openai:gpt-4o:default"), "@acme");
        assert_eq!(credential_of("llm"), "default");
    }
}
