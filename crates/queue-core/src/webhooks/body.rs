//! What a message says.

use serde_json::{Map, Value, json};

use super::{EventKind, Told};
use crate::{
    credentials::CredentialId,
    ids::{JobId, Name},
    job::Job,
    journal::Alert,
    time::Timestamp,
};

/// A message: what happened, when, and what there is to know of it.
pub fn message(event: EventKind, at: Timestamp, data: Value) -> String {
    json!({"type": event.as_str(), "timestamp": at, "data": data}).to_string()
}

/// The message of a job's end. It does not hold the result, which may be large and is nobody's who has only this message:
/// whoever may read it asks for it. `job` is `None` where it was pruned before the message was first sent.
pub fn job_body(event: EventKind, at: Timestamp, id: JobId, tenant: &Name, job: Option<&Job>) -> String {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| _ = data.insert(name.to_owned(), value);
    put("id", json!(id));
    put("tenant", json!(tenant));
    put("state", json!(event.as_str().trim_start_matches("job.")));
    put("finished_at", json!(at));
    if let Some(job) = job {
        put("queue", json!(job.queue));
        put("kind", json!(job.kind.as_str()));
        put("accepted_at", json!(job.accepted_at));
        put("attempts", json!(job.attempts));
        put("cost_usd", json!(job.cost.map(|cost| cost.to_string())));
        put("tokens_in", json!(job.usage.tokens_in));
        put("tokens_out", json!(job.usage.tokens_out));
        for (name, text) in [
            ("operation", &job.operation),
            ("batch_id", &job.batch_id),
            ("unique_key", &job.unique_key),
            ("served_by", &job.served_by),
            ("request_id", &job.request_id),
        ] {
            if let Some(text) = text {
                put(name, json!(text));
            }
        }
        if !job.tags.is_empty() {
            put("tags", json!(job.tags));
        }
        if event == EventKind::JobCancelled
            && let Some(reason) = &job.cancel_reason
        {
            put("cancel_reason", json!(reason));
        }
        if event == EventKind::JobDead
            && let Some(error) = &job.error
        {
            let (class, code, message) = (error.class.as_str(), &error.code, &error.message);
            put("error", json!({"class": class, "code": code, "message": message, "signature": error.signature}));
        }
    }
    message(event, at, Value::Object(data))
}

/// The message of a budget's alert.
pub(crate) fn budget_body(alert: &Alert) -> String {
    let Alert { scope, measure, period, since, level, spent, budget, at } = alert;
    let since = Timestamp(*since);
    let data = json!({
        "scope": scope.to_string(), "measure": measure.as_str(), "period": period.as_str(), "since": since,
        "level_percent": level, "spent": measure.show(*spent), "budget": measure.show(*budget),
    });
    message(EventKind::BudgetAlert, *at, data)
}

/// The message of a key that is not used any more.
pub(crate) fn credential_body(id: &CredentialId, reason: &str, at: Timestamp) -> String {
    let CredentialId { tenant, provider, version } = id;
    let data = json!({"tenant": tenant, "provider": provider, "version": version, "reason": reason});
    message(EventKind::CredentialDisabled, at, data)
}

/// The message of a circuit that opened or closed.
pub fn circuit_body(event: EventKind, circuit: &Name, reason: Option<&str>, at: Timestamp) -> String {
    message(event, at, json!({"target": circuit, "reason": reason}))
}

/// The message of an alert that is raised or has passed.
pub fn alert_body(open: bool, alert: &str, reason: Value, at: Timestamp) -> String {
    message(Told::Alert.event(open), at, json!({"alert": alert, "reason": reason}))
}
