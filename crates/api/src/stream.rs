//! Server-sent events of a job: snapshot, what happened, what happens, and the end.
//!
//! The format is <https://html.spec.whatwg.org/multipage/server-sent-events.html>. The id of an event is its number,
//! which grows over the processes that run the job, so that a reader may come back to any server.

use std::{fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use queue_core::{
    events::{EventBody, JobEvent, Subscription},
    ids::JobId,
    job::Job,
    keys::KEY_BELIEVED,
    state::{Standing, State},
    telemetry,
};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast},
    time::Instant,
};

use crate::{
    app::Shared,
    audit,
    auth::{self, Caller},
    problem::Problem,
    view,
    waiters::Waiter,
};

/// How soon a reader should come back when the stream breaks, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// How long the stream of a job that has ended waits for its last events, which may come from another process.
const LAST_WORDS_MAX: Duration = Duration::from_millis(100);
/// How often it is asked whether the reader would still be let in: as long as a key is believed anyway.
const READER_CHECKED_EVERY: Duration = KEY_BELIEVED;
/// How long a stream goes on whose reader cannot be checked, because the journal is away: it shows what was allowed a moment ago,
/// and no longer than this.
const UNCHECKED_MAX: Duration = Duration::from_secs(60);
/// Pause before a subscription that was closed is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(20);

/// One reader of one job.
pub(crate) struct Reader {
    app: Shared,
    caller: Caller,
    job: JobId,
    /// Where the reader is: the last event that it was sent.
    position: Option<u64>,
    waiter: Waiter,
    /// When to look at the job, which is said to have ended, unless its last event says so first.
    look_at: Option<Instant>,
    subscription: Option<Subscription>,
    /// When it was last known that the reader may read, and when to ask again.
    let_in_at: Instant,
    check_at: Instant,
    step: Step,
    _open: Open,
}

enum Step {
    /// Nothing was sent yet.
    Begin(Box<Job>),
    /// Held and live events.
    Follow,
    /// The last piece was sent.
    Over,
}

/// Counts the stream while it is open.
struct Open {
    _room: OwnedSemaphorePermit,
}

impl Open {
    fn new(room: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(telemetry::SSE_CONNECTIONS).increment(1.0);
        Self { _room: room }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::SSE_CONNECTIONS).decrement(1.0);
    }
}

/// The pieces of a stream for a reader that has seen everything up to `position`.
pub(crate) async fn open(
    app: Shared,
    caller: Caller,
    job: JobId,
    position: Option<u64>,
    room: OwnedSemaphorePermit,
) -> Result<impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static, Problem> {
    view::row(&app, &caller, job).await?;
    // Before the look at the job that counts, so that its end between look and stream is not missed.
    let waiter = app.waiters.watch(job);
    let mut row = view::row(&app, &caller, job).await?;
    let mut subscription = None;
    // Of a job that has ended nobody has to be asked.
    if !row.standing.is_final() {
        subscription = Some(app.api.stores.events.subscribe(job, position).await);
        row = view::row(&app, &caller, job).await?;
    }
    audit::reads_of(job, &row.tenant);
    let reader = Reader {
        app,
        caller,
        job,
        position,
        waiter,
        look_at: None,
        subscription,
        let_in_at: Instant::now(),
        check_at: Instant::now() + READER_CHECKED_EVERY,
        step: Step::Begin(Box::new(row)),
        _open: Open::new(room),
    };
    Ok(stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((Ok(Bytes::from(piece)), reader))
    }))
}

/// The position that `Last-Event-ID` names, if it is one.
pub(crate) fn position_of(text: &str) -> Option<u64> {
    text.parse().ok()
}

impl Reader {
    /// The next piece of the stream; `None` when it is over.
    async fn next(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.step, Step::Follow) {
            Step::Begin(job) => Some(self.begin(*job).await),
            Step::Follow => self.follow().await,
            Step::Over => {
                self.step = Step::Over;
                None
            }
        }
    }

    /// Snapshot, then what is held; for a job that has ended, all there is.
    async fn begin(&mut self, job: Job) -> String {
        let mut out = format!("retry: {RETRY_MS}\n\n");
        let (standing, reason) = (job.standing, job.cancel_reason.clone());
        self.snapshot(&mut out, job).await;
        if standing.is_final() {
            self.end(&mut out, standing, reason).await;
            return out;
        }
        let (replay, gap) = match &mut self.subscription {
            Some(subscription) => (std::mem::take(&mut subscription.replay), subscription.gap),
            None => (Vec::new(), false),
        };
        self.replay(&mut out, &replay, gap).await;
        out
    }

    async fn follow(&mut self) -> Option<String> {
        let quiet_until = Instant::now() + self.app.api.settings.bounds.heartbeat;
        let mut out = String::new();
        loop {
            // Before anything is told, however much there is to tell.
            if Instant::now() >= self.check_at && !self.is_still_let_in().await {
                self.step = Step::Over;
                return None;
            }
            let look_at = self.look_at.unwrap_or(quiet_until).min(quiet_until);
            let live = &mut self.subscription.as_mut()?.live;
            tokio::select! {
                // Events first: the end of the job must not overtake its last tokens.
                biased;
                event = live.recv() => match event {
                    Ok(event) => self.tell(&mut out, &event).await,
                    Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up(&mut out).await,
                    Err(broadcast::error::RecvError::Closed) => {
                        // What closed it may have been the end of the job.
                        self.look(&mut out).await;
                        if !matches!(self.step, Step::Over) {
                            // Where readers are more than there is room for, they must not push each other out in a loop.
                            tokio::time::sleep(REOPEN_AFTER).await;
                            self.catch_up(&mut out).await;
                        }
                    }
                },
                () = self.app.shutdown.cancelled() => {
                    self.step = Step::Over;
                    return None;
                }
                () = tokio::time::sleep_until(self.check_at) => {}
                () = self.waiter.woken() => {
                    self.look_at.get_or_insert_with(|| Instant::now() + LAST_WORDS_MAX);
                }
                () = tokio::time::sleep_until(look_at) => {
                    // Events may be lost; the row is not.
                    self.look_at = None;
                    self.look(&mut out).await;
                    if out.is_empty() && Instant::now() >= quiet_until {
                        out.push_str(": heartbeat\n\n");
                    }
                }
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
    }

    /// Whether the reader's key or token still opens what it did when the stream began. A reader that comes back is told why not.
    async fn is_still_let_in(&mut self) -> bool {
        let now = Instant::now();
        self.check_at = now + READER_CHECKED_EVERY;
        match auth::is_still_let_in(&self.app, &self.caller).await {
            Ok(true) => {
                self.let_in_at = now;
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(%error, "the reader of a stream cannot be checked now");
                now.duration_since(self.let_in_at) < UNCHECKED_MAX
            }
        }
    }

    async fn snapshot(&self, out: &mut String, job: Job) {
        match view::one(&self.app, &self.caller, job).await.map(|view| serde_json::to_string(&view)) {
            Ok(Ok(json)) => write_event(out, "snapshot", None, &json),
            Ok(Err(error)) => tracing::error!(%error, "a job cannot be shown"),
            Err(problem) => tracing::warn!(detail = problem.detail(), "a snapshot is left out"),
        }
    }

    async fn replay(&mut self, out: &mut String, events: &[Arc<JobEvent>], gap: bool) {
        if gap {
            // What is held may have other numbers than what is gone.
            self.position = None;
            write_event(out, "gap", None, "{\"reason\":\"events between your position and the next one are gone\"}");
        }
        for event in events {
            self.tell(out, event).await;
            if matches!(self.step, Step::Over) {
                return;
            }
        }
    }

    /// Asks again for what a slow reader missed.
    async fn catch_up(&mut self, out: &mut String) {
        let mut subscription = self.app.api.stores.events.subscribe(self.job, self.position).await;
        let (replay, gap) = (std::mem::take(&mut subscription.replay), subscription.gap);
        self.subscription = Some(subscription);
        self.replay(out, &replay, gap).await;
    }

    async fn tell(&mut self, out: &mut String, event: &JobEvent) {
        if self.position.is_some_and(|position| event.sequence <= position) {
            return;
        }
        self.position = Some(event.sequence);
        if let EventBody::State { state } = event.body
            && state.standing().is_final()
        {
            // A held event of an earlier life may say so of a job that was redriven: the row decides.
            return self.look(out).await;
        }
        let name = match event.body {
            EventBody::AttemptStarted { .. } => "attempt_started",
            EventBody::Token { .. } => "token",
            EventBody::ModelSwitched { .. } => "model_switched",
            EventBody::Progress { .. } => "progress",
            EventBody::State { .. } => "state",
        };
        match serde_json::to_string(event) {
            Ok(json) => write_event(out, name, Some(&event.sequence.to_string()), &json),
            Err(error) => tracing::error!(%error, "an event cannot be written"),
        }
    }

    /// Looks at the row, and ends the stream if the job has ended.
    async fn look(&mut self, out: &mut String) {
        if let Ok(job) = view::row(&self.app, &self.caller, self.job).await
            && job.standing.is_final()
        {
            self.end(out, job.standing, job.cancel_reason).await;
        }
    }

    /// The result, if there is one, and the last word.
    async fn end(&mut self, out: &mut String, standing: Standing, reason: Option<String>) {
        self.step = Step::Over;
        let state = match standing {
            // Not an end; the caller has looked.
            Standing::Live => return,
            Standing::Succeeded => State::Succeeded,
            Standing::Dead => State::Dead,
            Standing::Cancelled => State::Cancelled,
        };
        if state == State::Succeeded {
            let kept = self.caller.reads(&self.app).result(self.job).await.map_err(Problem::from);
            let result = match kept {
                Ok(Some(kept)) => view::whole(&self.app, kept).await.map(Some),
                other => other,
            };
            match result {
                Ok(Some(result)) => write_event(out, "result", None, &String::from_utf8_lossy(&result)),
                Ok(None) => {}
                Err(problem) => tracing::warn!(?problem, "a stream ends without the result"),
            }
        }
        let id = self.position.map(|position| position.to_string());
        let mut last = serde_json::json!({"type": "state", "state": state});
        if let Some(reason) = reason {
            last["reason"] = reason.into();
        }
        write_event(out, "state", id.as_deref(), &last.to_string());
    }
}

fn write_event(out: &mut String, name: &str, id: Option<&str>, data: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    // Line breaks inside JSON stand only between its tokens, where each may become another one.
    for line in data.split(['\n', '\r']) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_several_lines_stays_one_event() {
        let mut out = String::new();
        write_event(&mut out, "result", Some("7"), "{\r\n \"a\": 1\n}");
        assert_eq!(out, "event: result\nid: 7\ndata: {\ndata: \ndata:  \"a\": 1\ndata: }\n\n");
    }

    #[test]
    fn what_is_no_position_is_none() {
        assert_eq!(position_of("17"), Some(17));
        for text in ["0000002b-17", "", "-1", "x", "99999999999999999999"] {
            assert_eq!(position_of(text), None, "{text}");
        }
    }
}
