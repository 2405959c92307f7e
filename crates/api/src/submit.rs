//! How a job gets in: read → answered before? → check → accept → push → answer.
//!
//! The answer says what the journal committed. A push that fails changes nothing about it: the reconciler finds the
//! job and hands it on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use queue_core::{
    bodies::{Bodies, Part},
    dispatcher::{Entry, HORIZON_MS, PUSH_MAX_ENTRIES},
    ids::{JobId, Name},
    job::{Idempotency, Kind, NewJob},
    journal::{Accepted, JournalError, PAGE_MAX_ROWS},
    state::State,
    telemetry,
    time::Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    backlog::Room,
    idempotency::{self, Entered},
    json,
    observe::Trail,
    problem::{Cause, Problem},
    replay::Earlier,
    request_limits::Charge,
    shape::{self, Intake, Origin},
    signing,
};

/// Large payloads of one request that are written side by side.
const BODIES_AT_ONCE: usize = 8;
/// Larger bodies are read on a thread of their own: counting the tokens of a long prompt takes milliseconds, and
/// other requests must not wait for that.
const INLINE_READ_MAX_BYTES: usize = 64 * 1024;

/// An accepted job.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(crate) struct AcceptedView {
    /// The job.
    #[schema(value_type = String, format = "uuid")]
    pub(crate) id: JobId,
    /// `ready`, or `scheduled` when it is due later.
    #[schema(value_type = crate::view::StateWord)]
    pub(crate) state: State,
    /// Where it waits.
    #[schema(value_type = String)]
    pub(crate) queue: Name,
    /// What it is.
    #[schema(value_type = crate::view::KindWord)]
    pub(crate) kind: Kind,
}

/// What a submit came to.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The job.
    pub(crate) accepted: AcceptedView,
    /// Whether an earlier request with the same key had made it.
    pub(crate) replayed: bool,
}

/// Who sends a request, and what it is called.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// Whose key it is.
    pub(crate) caller: Caller,
    /// Request id and trace.
    pub(crate) trail: Trail,
    /// The idempotency key, if there is one.
    pub(crate) key: Option<String>,
    /// What the request takes from its caller's limits: paid before anything is accepted.
    pub(crate) charge: Arc<Charge>,
}

impl Sender {
    /// What each job of the request has in common.
    pub(crate) async fn origin(self, app: &App, body: &Bytes) -> Result<Origin, Problem> {
        app.api.budgets.freshen().await?;
        let policy = app.policy().await?;
        Ok(Origin {
            idempotency: self.key.map(|key| Idempotency {
                owner: self.caller.owner_of_keys(),
                key,
                fingerprint: idempotency::fingerprint(body),
                item: 0,
            }),
            bound: self.caller.role.is_tenant_bound(),
            tenant: self.caller.tenant,
            key_id: self.caller.key_id,
            policy,
            now: app.now(),
            request_id: self.trail.request_id,
            traceparent: self.trail.traceparent,
        })
    }
}

/// Submits the one job that `body` describes.
pub(crate) async fn one(app: &Shared, sender: Sender, body: Bytes) -> Result<Answer, Problem> {
    let (held, charge, caller) = (hold(app, &sender)?, sender.charge.clone(), sender.caller.clone());
    let origin = sender.origin(app, &body).await?;
    // Before any check: a request that comes again gets its first answer although its times have passed since.
    let earlier = Earlier::of(app, &origin).await?;
    if let Some(answer) = earlier.answer(0, json::utf8(&body)?) {
        // It is a request, and submits nothing.
        charge.pay(app, (0, 0)).await?;
        return answer;
    }
    let intake = read(app, origin, body).await?;
    let brief = Brief::of(&intake);
    let room = enter(app, &intake.job.tenant, 1).await?;
    if let Some(problem) = room.refusal() {
        return Err(problem);
    }
    // What there is no room for costs a request, and no submit.
    let asks = u32::from(intake.job.kind.asks_providers());
    charge.pay(app, (asks, asks)).await.inspect_err(|_| room.settle(&[]))?;
    let accepted = accept(app, vec![intake.job], held, room).await?;
    let mut answers = answers(app, &caller, &[brief], accepted).await?;
    answers.pop().unwrap_or_else(|| Err(Problem::new(Cause::Internal, "the journal gave no answer")))
}

/// Keeps a second request with the same key out until this one is accepted.
pub(crate) fn hold(app: &Shared, sender: &Sender) -> Result<Option<Entered>, Problem> {
    sender.key.as_ref().map(|key| app.in_flight.enter(&sender.caller.owner_of_keys(), key)).transpose()
}

async fn read(app: &Shared, origin: Origin, body: Bytes) -> Result<Intake, Problem> {
    if body.len() <= INLINE_READ_MAX_BYTES {
        return shape::read(&origin, &app.api, app.surroundings(), json::utf8(&body)?, &body, 0);
    }
    let app = app.clone();
    aside(move || shape::read(&origin, &app.api, app.surroundings(), json::utf8(&body)?, &body, 0)).await?
}

/// Runs something that computes for long on a thread of its own.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "reading a request failed");
        Problem::new(Cause::Internal, "reading the request failed")
    })
}

/// Room for new jobs in the tenant's backlog; none at all while maintenance is on.
pub(crate) async fn enter(app: &App, tenant: &Name, jobs: usize) -> Result<Room, Problem> {
    app.standing.check(&*app.api.stores.orders).await?;
    Ok(app.backlogs.enter(&*app.api.stores.catalog, tenant, jobs).await?)
}

/// Commits jobs and makes them known. In a task of its own: a caller that hangs up between commit and push must not
/// take the push with it.
pub(crate) async fn accept(
    app: &Shared,
    jobs: Vec<NewJob>,
    held: Option<Entered>,
    room: Room,
) -> Result<Vec<Accepted>, Problem> {
    signing::ensure(app, &jobs).await?;
    let app = app.clone();
    let task = tokio::spawn(async move {
        let mut jobs = jobs;
        for job in &mut jobs {
            // The lane of whoever's key its calls would be made with now.
            job.target = app.api.credentials.lane_of(&job.tenant, &job.target);
        }
        let _held = held;
        let answers = commit_and_push(&app, jobs).await?;
        room.settle(&answers);
        Ok::<_, JournalError>(answers)
    });
    match task.await {
        Ok(answers) => Ok(answers?),
        Err(error) => {
            tracing::error!(%error, "accepting jobs failed");
            Err(Problem::new(Cause::Internal, "accepting failed; ask again with the same idempotency key"))
        }
    }
}

async fn commit_and_push(app: &App, jobs: Vec<NewJob>) -> Result<Vec<Accepted>, JournalError> {
    let entries: Vec<Entry> = jobs.iter().map(Entry::from).collect();
    let kinds: Vec<Kind> = jobs.iter().map(|job| job.kind).collect();
    let (jobs, slips) = put_out(&app.api.stores.bodies, jobs).await;
    let answers = app.api.stores.journal.accept(jobs).await?;
    for (at, slip) in slips {
        if answers.get(at) != Some(&Accepted::New) {
            app.api.stores.bodies.discard(&slip).await;
        }
    }

    let new = answers.iter().map(|answer| *answer == Accepted::New);
    let fresh = entries.into_iter().zip(kinds).zip(new).filter_map(|(job, new)| new.then_some(job));
    let mut counts = BTreeMap::<(Name, Kind), u64>::new();
    let mut due = Vec::new();
    let horizon = app.now().plus_ms(HORIZON_MS);
    for (entry, kind) in fresh {
        *counts.entry((entry.queue.clone(), kind)).or_default() += 1;
        if entry.run_at <= horizon {
            due.push(entry);
        }
    }
    for ((queue, kind), count) in counts {
        metrics::counter!(telemetry::JOBS_ACCEPTED, "queue" => telemetry::queue(queue.as_str()), "kind" => kind.as_str())
            .increment(count);
    }
    push(app, due).await;
    Ok(answers)
}

/// Jobs whose large payloads lie outside of the journal, and what the journal keeps of those. After a crash before the commit nothing
/// names them.
async fn put_out(bodies: &Bodies, mut jobs: Vec<NewJob>) -> (Vec<NewJob>, Vec<(usize, Bytes)>) {
    let large = jobs.iter().enumerate().filter(|(_, job)| bodies.is_large(&job.payload)).map(|(at, job)| {
        let (tenant, id, payload) = (job.tenant.clone(), job.id, job.payload.bytes());
        async move { (at, bodies.keep(&tenant, id, Part::Payload, payload).await) }
    });
    let large: Vec<_> = large.collect();
    // Nearly every request.
    if large.is_empty() {
        return (jobs, Vec::new());
    }
    let kept: Vec<_> = stream::iter(large).buffer_unordered(BODIES_AT_ONCE).collect().await;
    for (at, slip) in &kept {
        jobs[*at].payload = slip.clone().into();
    }
    (jobs, kept)
}

/// Makes entries known to the dispatcher. A failure is not the caller's: the reconciler repairs it within seconds.
pub(crate) async fn push(app: &App, mut entries: Vec<Entry>) {
    while !entries.is_empty() {
        let rest = entries.split_off(entries.len().min(PUSH_MAX_ENTRIES));
        if let Err(error) = app.api.stores.dispatcher.push(entries).await {
            tracing::warn!(%error, "accepted jobs wait for the reconciler");
            return;
        }
        entries = rest;
    }
}

/// Makes one entry known, if it is due within the dispatcher's horizon.
pub(crate) async fn push_if_near(app: &App, entry: Entry) {
    if entry.run_at <= app.now().plus_ms(HORIZON_MS) {
        push(app, vec![entry]).await;
    }
}

/// What an answer needs of a job that was handed to the journal.
#[derive(Clone, Debug)]
pub(crate) struct Brief {
    id: JobId,
    queue: Name,
    kind: Kind,
    named_run_at: Option<Timestamp>,
    accepted_at: Timestamp,
}

impl Brief {
    /// The brief of a job that is about to be accepted.
    pub(crate) fn of(intake: &Intake) -> Self {
        Self {
            id: intake.job.id,
            queue: intake.job.queue.clone(),
            kind: intake.job.kind,
            named_run_at: intake.named_run_at,
            accepted_at: intake.job.accepted_at,
        }
    }

    fn accepted(&self, id: JobId, accepted_at: Timestamp) -> AcceptedView {
        let later = self.named_run_at.is_some_and(|run_at| run_at > accepted_at);
        let state = if later { State::Scheduled } else { State::Ready };
        AcceptedView { id, state, queue: self.queue.clone(), kind: self.kind }
    }
}

/// The journal's answers in the words of the API, in order.
pub(crate) async fn answers(
    app: &App,
    caller: &Caller,
    briefs: &[Brief],
    accepted: Vec<Accepted>,
) -> Result<Vec<Result<Answer, Problem>>, Problem> {
    let first_accepted_at = first_accepts(app, briefs, &accepted).await?;
    let shown = holders_shown(app, caller, &accepted).await?;
    let answer = |(brief, accepted): (&Brief, Accepted)| match accepted {
        Accepted::New => Ok(Answer { accepted: brief.accepted(brief.id, brief.accepted_at), replayed: false }),
        Accepted::Replayed(id) => {
            let then = first_accepted_at.get(&id).copied().unwrap_or(brief.accepted_at);
            Ok(Answer { accepted: brief.accepted(id, then), replayed: true })
        }
        Accepted::KeyReused => Err(key_reused()),
        Accepted::Duplicate(id) => {
            let whose = if shown.contains(&id) { format!("job {id}") } else { "another job of the tenant".to_owned() };
            let detail = format!("{whose} holds the unique key and has not ended");
            let problem = Problem::new(Cause::UniqueKeyHeld, detail).at("/unique_key", "is held by a live job");
            Err(if shown.contains(&id) { problem.about(id) } else { problem })
        }
    };
    Ok(briefs.iter().zip(accepted).map(answer).collect())
}

/// Which of the jobs that hold a unique key there are for the caller: another key's job is not named to who does not see it.
async fn holders_shown(app: &App, caller: &Caller, accepted: &[Accepted]) -> Result<BTreeSet<JobId>, Problem> {
    let holding = |accepted: &Accepted| match accepted {
        Accepted::Duplicate(id) => Some(*id),
        _ => None,
    };
    let ids: Vec<JobId> = accepted.iter().filter_map(holding).collect();
    let mut shown = BTreeSet::new();
    for page in ids.chunks(PAGE_MAX_ROWS) {
        let rows = caller.reads(app).jobs(page).await?;
        shown.extend(rows.into_iter().flatten().filter(|job| caller.sees(job)).map(|job| job.id));
    }
    Ok(shown)
}

/// When replayed jobs were accepted, where the answer depends on it: whether a named due time was later than that.
async fn first_accepts(
    app: &App,
    briefs: &[Brief],
    accepted: &[Accepted],
) -> Result<BTreeMap<JobId, Timestamp>, Problem> {
    let ids: Vec<JobId> = briefs
        .iter()
        .zip(accepted)
        .filter_map(|(brief, accepted)| match accepted {
            Accepted::Replayed(id) if brief.named_run_at.is_some() => Some(*id),
            _ => None,
        })
        .collect();
    let mut found = BTreeMap::new();
    for page in ids.chunks(PAGE_MAX_ROWS) {
        let rows = app.api.stores.reads.jobs(page).await?;
        found.extend(rows.into_iter().flatten().map(|job| (job.id, job.accepted_at)));
    }
    Ok(found)
}

/// The idempotency key belongs to another request.
pub(crate) fn key_reused() -> Problem {
    let detail = "this idempotency key belongs to a request with another body; use a new key for a new request";
    Problem::new(Cause::IdempotencyKeyReused, detail).at("/header/Idempotency-Key", "was used with another body")
}
