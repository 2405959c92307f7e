//! `POST /v1/jobs/bulk`: up to 10,000 jobs in one request, each with its own answer.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use queue_core::{
    ids::Name,
    job::NewJob,
    journal::{ACCEPT_MAX_JOBS, Accepted},
    traces,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::Caller,
    backlog::Room,
    body::{self, Media},
    idempotency, json,
    observe::Trail,
    params::Params,
    problem::{Cause, Document, Problem},
    replay::Earlier,
    request_limits::{Charge, Granted},
    routes::jobs::mark_replayed,
    shape::{self, Intake, JobRequest, Origin},
    submit::{self, AcceptedView, Answer, Brief, Sender},
    traced::Sent,
};

/// Longest wait for the bulk requests before this one: a client that waits longer would rather be told.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);

/// The answers of a bulk submit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkAnswer {
    /// One for each job, in the order of the request.
    jobs: Vec<BulkItem>,
}

/// The answer to one job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BulkItem {
    /// It was accepted.
    Accepted(AcceptedView),
    /// It was refused, and no other job with it.
    Refused {
        /// Why.
        error: Document,
    },
}

/// Submits many jobs: a JSON array, or one job a line. Each is accepted or refused by itself.
#[utoipa::path(post, path = "/v1/jobs/bulk", tag = "jobs", security(("key" = [])),
    request_body(description = "a JSON array of jobs, or one job a line", content(
        (Vec<JobRequest> = "application/json"), (JobRequest = "application/x-ndjson"))),
    params(("Idempotency-Key" = Option<String>, Header, description = "covers the whole request; jobs that it accepted are \
     answered as they were, jobs that it refused are tried again")),
    responses(
    (status = 200, description = "each job's own answer, in order; jobs for which the tenant's backlog has no room are \
     refused with `backlog-full`, jobs that ask model providers and are more than the caller may submit in a minute with \
     `rate-limited`; the first ones come in", body = BulkAnswer, headers(
        ("Retry-After" = Option<u32>, description = "seconds after which refused jobs may be sent again"),
        ("traceresponse" = Option<String>, description = "the trace of this submit, where traces are made"))),
    (status = 400, description = "not a JSON array", body = Document),
    (status = 409, description = "the idempotency key is in flight", body = Document),
    (status = 413, description = "more than 10,000 jobs or 32 MiB", body = Document),
    (status = 415, body = Document),
    (status = 422, description = "no jobs, or the idempotency key was used with another body", body = Document),
    (status = 503, description = "the journal takes no writes; no job was accepted", body = Document),
))]
pub(crate) async fn submit(
    State(app): State<Shared>,
    caller: Caller,
    Extension(trail): Extension<Trail>,
    Extension(charge): Extension<Arc<Charge>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Params::of(&uri, &[])?.finish()?;
    let key = idempotency::key_of(&headers)?;
    let Ok(Ok(_room)) = tokio::time::timeout(ROOM_WAIT_MAX, app.bulk.acquire()).await else {
        return Err(
            Problem::new(Cause::Busy, "as many bulk requests are being read as this server allows").retry_after(1)
        );
    };
    let allowed = [Media::Json, Media::Ndjson];
    let (media, body) = body::take(&app, &headers, body, &allowed, app.api.settings.max_body_bytes).await?;
    let tenant = caller.tenant.clone();
    let sender = Sender { caller: caller.clone(), trail, key, charge: charge.clone() };
    let held = submit::hold(&app, &sender)?;

    let origin = sender.origin(&app, &body).await?;
    let earlier = Earlier::of(&app, &origin).await?;
    let items = {
        let app = app.clone();
        submit::aside(move || read_all(&app, &origin, &earlier, media, &body)).await??
    };
    let new = items.iter().filter(|item| matches!(item, Item::New(_))).count();
    if new == 0 {
        charge.pay(&app, (0, 0)).await?;
        return answer(&app, &caller, items.into_iter().map(|item| item.part().0).collect(), Vec::new()).await;
    }
    let room = submit::enter(&app, &tenant, new).await?;
    let items = within(&room, items);
    let asking = items.iter().filter(|item| item.asks_providers()).count();
    // Each is refused by itself: some may come in, and the others later.
    let paid = charge.pay(&app, (0, u32::try_from(asking).unwrap_or(u32::MAX))).await;
    let items = granted_of(items, paid.inspect_err(|_| room.settle(&[]))?);
    let (slots, jobs): (Vec<_>, Vec<_>) = items.into_iter().map(Item::part).unzip();
    let jobs: Vec<_> = jobs.into_iter().flatten().collect();
    let accepted = match jobs.is_empty() {
        true => {
            room.settle(&[]);
            Vec::new()
        }
        false => submit::accept(&app, jobs, held, room).await?,
    };
    answer(&app, &caller, slots, accepted).await
}

/// One job of the request.
enum Item {
    /// It has its answer: from an earlier request with the same key, or it is refused.
    Answered(Result<Answer, Problem>),
    /// It goes to the journal.
    New(Box<Intake>),
}

impl Item {
    /// Whether it is a new job that asks model providers.
    fn asks_providers(&self) -> bool {
        matches!(self, Self::New(intake) if intake.job.kind.asks_providers())
    }

    fn part(self) -> (Slot, Option<NewJob>) {
        match self {
            Self::Answered(answer) => (Slot::Answered(answer), None),
            Self::New(intake) => (Slot::Asked(Brief::of(&intake)), Some(intake.job)),
        }
    }
}

/// Refuses the new jobs that ask model providers and are more than the caller may submit now, the last ones.
fn granted_of(items: Vec<Item>, granted: Granted) -> Vec<Item> {
    let Granted { jobs: mut left, refusal: Some(problem) } = granted else { return items };
    let admit = |item: Item| {
        if !item.asks_providers() {
            return item;
        }
        if left == 0 {
            return Item::Answered(Err(problem.clone()));
        }
        left -= 1;
        item
    };
    items.into_iter().map(admit).collect()
}

/// Refuses the new jobs for which there is no room, the last ones.
fn within(room: &Room, items: Vec<Item>) -> Vec<Item> {
    let Some(problem) = room.refusal() else { return items };
    let mut left = room.jobs();
    let admit = |item| match item {
        Item::New(_) if left == 0 => Item::Answered(Err(problem.clone())),
        Item::New(intake) => {
            left -= 1;
            Item::New(intake)
        }
        answered => answered,
    };
    items.into_iter().map(admit).collect()
}

/// A place in the answer.
enum Slot {
    Answered(Result<Answer, Problem>),
    /// The journal's next answer belongs here.
    Asked(Brief),
}

/// Reads every job. Only what concerns the whole request is an error here.
fn read_all(app: &App, origin: &Origin, earlier: &Earlier, media: Media, body: &Bytes) -> Result<Vec<Item>, Problem> {
    let read = |at: usize, text: &str| {
        let at = at as u32;
        if let Some(answer) = earlier.answer(at, text) {
            return Item::Answered(answer);
        }
        match shape::read(origin, &app.api, app.surroundings(), text, body, at) {
            Ok(intake) => Item::New(Box::new(intake)),
            Err(problem) => Item::Answered(Err(problem)),
        }
    };
    let items = match media {
        Media::Json => {
            let raws: Vec<&RawValue> = serde_json::from_str(json::utf8(body)?).map_err(|error| not_an_array(&error))?;
            check_count(raws.len())?;
            raws.into_iter().enumerate().map(|(at, raw)| read(at, raw.get())).collect()
        }
        Media::Ndjson => {
            let filled = |line: &&[u8]| !line.iter().all(u8::is_ascii_whitespace);
            let lines: Vec<_> = body.split(|byte| *byte == b'\n').filter(filled).take(ACCEPT_MAX_JOBS + 1).collect();
            check_count(lines.len())?;
            lines
                .into_iter()
                .enumerate()
                .map(|(at, line)| match json::utf8(line) {
                    Ok(text) => read(at, text),
                    Err(problem) => Item::Answered(Err(problem)),
                })
                .collect()
        }
    };
    Ok(items)
}

fn not_an_array(error: &serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => Problem::field("", "must be a JSON array of jobs"),
        _ => json::syntax(error),
    }
}

fn check_count(jobs: usize) -> Result<(), Problem> {
    match jobs {
        0 => Err(Problem::field("", "holds no jobs; 1 to 10000 are needed")),
        1..=ACCEPT_MAX_JOBS => Ok(()),
        _ => {
            let reason = format!("holds more than {ACCEPT_MAX_JOBS} jobs; send them in several requests");
            Err(Problem::new(Cause::TooLarge, "too many jobs").at("", reason))
        }
    }
}

async fn answer(app: &App, caller: &Caller, slots: Vec<Slot>, accepted: Vec<Accepted>) -> Result<Response, Problem> {
    // One body, one key: if the key belongs to another body, nothing was accepted, and that is said once and for all.
    if accepted.contains(&Accepted::KeyReused) {
        return Err(submit::key_reused());
    }
    let asked = |slot: &Slot| match slot {
        Slot::Asked(brief) => Some(brief.clone()),
        Slot::Answered(_) => None,
    };
    let briefs: Vec<Brief> = slots.iter().filter_map(asked).collect();
    let mut answers = submit::answers(app, caller, &briefs, accepted).await?.into_iter();
    let (mut new, mut replayed, mut retry_after_s) = (0_usize, 0_usize, None);
    let mut jobs = Vec::with_capacity(slots.len());
    for slot in slots {
        let lost = || Err(Problem::new(Cause::Internal, "the journal gave no answer"));
        let answer = match slot {
            Slot::Answered(answer) => answer,
            Slot::Asked(_) => answers.next().unwrap_or_else(lost),
        };
        jobs.push(match answer {
            Ok(answer) => {
                *(if answer.replayed { &mut replayed } else { &mut new }) += 1;
                BulkItem::Accepted(answer.accepted)
            }
            Err(problem) => {
                retry_after_s = retry_after_s.max(problem.seconds_to_wait());
                BulkItem::Refused { error: problem.document(None) }
            }
        });
    }
    let sent = traces::is_on().then(|| Sent { queue: queue_of(&jobs), job: None, jobs: new + replayed });
    let body =
        serde_json::to_vec(&BulkAnswer { jobs }).map_err(|error| Problem::new(Cause::Internal, error.to_string()))?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    // Some of its jobs may come in later.
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if new == 0 && replayed > 0 {
        mark_replayed(&mut response);
    }
    if let Some(sent) = sent {
        response.extensions_mut().insert(sent);
    }
    Ok(response)
}

/// The queue of those that were accepted, if it is one.
fn queue_of(jobs: &[BulkItem]) -> Option<Name> {
    let mut queues = jobs.iter().filter_map(|item| match item {
        BulkItem::Accepted(accepted) => Some(&accepted.queue),
        BulkItem::Refused { .. } => None,
    });
    queues.next().filter(|first| queues.all(|other| other == *first)).cloned()
}
