//! How the jobs of schedules get in: as a submit does, past the same checks, for whoever made the schedule.
//!
//! A template is read anew with each tick, since what it may ask for and spend is what holds then. What a tick is answered is
//! one of three things: a job, a refusal that would be the same in a minute, or one that may pass.

use async_trait::async_trait;
use bytes::Bytes;
use queue_core::{
    ids::{JobId, Name},
    job::NewJob,
    journal::Accepted,
    schedule::{Overlap, Refusal, Run, Submits, Submitted, TICK_TAG, jobs_of},
    traces::Sending,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Api,
    app::{App, Shared},
    json,
    problem::{Cause, Problem},
    request_limits::Charge,
    shape::{self, Origin},
    submit,
};

/// When a refusal that may pass says nothing else.
const RETRY_AFTER_S: u32 = 5;
/// Longest detail that a schedule keeps.
const DETAIL_MAX_BYTES: usize = 1_000;

/// Submits for schedules, without a server.
pub struct Clerk(Shared);

impl Clerk {
    /// Over the same parts as a server. Its memory of limits and backlogs is its own, as that of another process.
    pub fn new(api: Api) -> Self {
        Self(App::new(api, CancellationToken::new()))
    }
}

#[async_trait]
impl Submits for Clerk {
    async fn submit(&self, run: Run<'_>) -> Submitted {
        let mut sending = Sending::begin(None);
        let submitted = submit_tick(&self.0, &run, sending.as_mut()).await;
        if let Some(sending) = sending {
            sending.end(submitted.as_ref().err().map(|problem| problem.name().to_owned()));
        }
        match submitted {
            Ok(job) => Submitted::Job(job),
            Err(problem) => refused(&problem),
        }
    }
}

fn refused(problem: &Problem) -> Submitted {
    let mut detail = problem.whole_detail();
    detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
    let refusal = Refusal { code: problem.name().to_owned(), detail };
    if passes(problem.cause()) {
        let after_s = problem.seconds_to_wait().unwrap_or(RETRY_AFTER_S);
        return Submitted::Later(refusal, i64::from(after_s) * 1_000);
    }
    Submitted::Refused(refusal)
}

/// Whether the same tick may pass in a while.
fn passes(cause: Cause) -> bool {
    use Cause::{BacklogFull, Busy, Internal, Maintenance, QueueDraining, RateLimited, Timeout, Unavailable};
    matches!(cause, BacklogFull | Busy | Internal | Maintenance | QueueDraining | RateLimited | Timeout | Unavailable)
}

async fn submit_tick(app: &Shared, run: &Run<'_>, sending: Option<&mut Sending>) -> Result<JobId, Problem> {
    let key = run.idempotency();
    // Before any check, as at a server: a tick that was accepted is not judged again.
    let answered = app.api.stores.reads.answered(&key.owner, &key.key).await?;
    if let Some((job, _)) = answered.and_then(|answered| answered.items.get(&key.item).copied()) {
        return Ok(job);
    }
    app.api.budgets.freshen().await?;
    let schedule = run.schedule;
    let origin = Origin {
        tenant: schedule.tenant.clone(),
        bound: true,
        key_id: run.key_id().clone(),
        policy: app.policy().await?,
        now: run.now,
        request_id: jobs_of(schedule.id),
        traceparent: sending.as_ref().and_then(|sending| sending.traceparent()),
        idempotency: Some(key),
    };
    let body = Bytes::from(schedule.template.clone());
    let reading = app.clone();
    let intake =
        submit::aside(move || shape::read(&origin, &reading.api, reading.surroundings(), json::utf8(&body)?, &body, 0));
    let job = dressed(intake.await??.job, run);
    if let Some(sending) = sending {
        sending.about(Some(&job.queue), Some(job.id), 1);
    }
    let room = submit::enter(app, &job.tenant, 1).await?;
    if let Some(problem) = room.refusal() {
        return Err(problem);
    }
    let asks = u32::from(job.kind.asks_providers());
    let charge = Charge::unattended(app, &schedule.tenant, run.key_id()).await?;
    charge.pay(app, (asks, asks)).await.inspect_err(|_| room.settle(&[]))?;
    let id = job.id;
    match submit::accept(app, vec![job], None, room).await?.pop() {
        Some(Accepted::New) => Ok(id),
        Some(Accepted::Replayed(first)) => Ok(first),
        Some(Accepted::Duplicate(holder)) => {
            let detail = format!("job {holder} holds the unique key and has not ended");
            Err(Problem::new(Cause::UniqueKeyHeld, detail).about(holder))
        }
        // The fingerprint follows from the key.
        Some(Accepted::KeyReused) => Err(submit::key_reused()),
        None => Err(Problem::new(Cause::Internal, "the journal gave no answer")),
    }
}

/// The job with what makes it one of its schedule. The process's clock stands in nothing of it.
fn dressed(mut job: NewJob, run: &Run<'_>) -> NewJob {
    let of_schedule = jobs_of(run.schedule.id);
    job.id = JobId::at(run.now);
    if run.schedule.settings.overlap != Overlap::Allow && job.concurrency_key.is_none() {
        job.concurrency_key = Some(Name::from(of_schedule.as_str()));
    }
    job.tags.push(format!("{TICK_TAG}{}", run.tick));
    job.batch_id = Some(of_schedule);
    job
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_told() {
        let later = refused(&Problem::new(Cause::Maintenance, "not now").retry_after(30));
        assert_eq!(later, Submitted::Later(Refusal { code: "maintenance".into(), detail: "not now".into() }, 30_000));
        let wrong = refused(&Problem::field("/payload/model", "is unknown"));
        let Submitted::Refused(Refusal { code, detail }) = wrong else { panic!("{wrong:?}") };
        assert_eq!((&*code, &*detail), ("invalid-fields", "1 field is wrong; /payload/model is unknown"));
    }
}
