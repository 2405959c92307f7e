//! `longshore job watch`: what a job does, as it does it, through connections that break.

use std::time::Duration;

use futures::StreamExt;
use reqwest::{Method, header};
use serde_json::Value;

use crate::{
    commands::{
        Operator,
        job::{exit_of, show},
    },
    failure::{Failure, Outcome},
    output::{self, Output, cell},
    sse,
};

/// Reconnects in a row that brought no event: about a minute with the pauses below.
const RECONNECTS_MAX: u32 = 20;

/// First and longest pause before a reconnect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A connection without even a heartbeat for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Longest life of one connection; the stream has its own end, this only replaces the client's shorter default.
const STREAM_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Watches a job to its end, then shows its result and cost.
pub(crate) async fn run(operator: &Operator, id: &str) -> Outcome {
    let mut screen = Screen::new(operator.out);
    let mut last_id = None;
    let mut quiet = 0;
    let job = loop {
        let seen = screen.events;
        let cut = connect(operator, id, &mut last_id, &mut screen).await;
        // The journal knows whether it ended; a stream may end for any reason.
        match (operator.client.get(&["v1", "jobs", id], &[]).await, cut) {
            (Ok(job), _) if show::is_final(&cell(&job, "state")) => break job,
            (_, Err(Cut::Refused(failure))) => return Err(failure),
            (Err(failure), _) if failure.problem.is_some() && quiet >= RECONNECTS_MAX => return Err(failure),
            _ => {}
        }
        quiet = if screen.events > seen { 0 } else { quiet + 1 };
        if quiet > RECONNECTS_MAX {
            return Err(Failure::error(format!("lost the event stream of {id} and could not get it back")));
        }
        tokio::time::sleep((PAUSES.0 * 2u32.pow(quiet.min(10))).min(PAUSES.1)).await;
    };
    screen.finish(&job);
    exit_of(&cell(&job, "state"))
}

/// Why a stream ended before the job did.
enum Cut {
    /// The connection broke: try again.
    Broken,
    /// The server does not want to.
    Refused(Failure),
}

/// Reads one connection to its end.
async fn connect(operator: &Operator, id: &str, last_id: &mut Option<String>, screen: &mut Screen) -> Result<(), Cut> {
    let mut request = operator
        .client
        .request(Method::GET, &["v1", "jobs", id, "events"], &[])
        .header(header::ACCEPT, "text/event-stream")
        .timeout(STREAM_MAX);
    if let Some(last) = last_id.as_deref() {
        request = request.header("Last-Event-ID", last);
    }
    let response = match request.send().await {
        Ok(response) => response,
        // A server that was never there is an error; one that went away may come back.
        Err(error) if screen.events == 0 => return Err(Cut::Refused(operator.client.unreachable(&error))),
        Err(_) => return Err(Cut::Broken),
    };
    let status = response.status();
    if status.is_client_error() {
        let body = response.json().await.unwrap_or(Value::Null);
        return Err(Cut::Refused(Failure::from_problem(status.as_u16(), body)));
    }
    if !status.is_success() {
        return Err(Cut::Broken);
    }
    let mut reader = sse::Reader::default();
    let mut body = response.bytes_stream();
    while let Ok(Some(piece)) = tokio::time::timeout(SILENCE_MAX, body.next()).await {
        let Ok(piece) = piece else { return Err(Cut::Broken) };
        let events = reader.feed(&piece).map_err(|reason| Cut::Refused(Failure::error(reason)))?;
        for event in events {
            if event.id.is_some() {
                last_id.clone_from(&event.id);
            }
            if screen.show(&event) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Turns events into text: tokens to stdout, everything else to stderr, so that a pipe gets the answer only.
struct Screen {
    out: Output,
    events: u64,
    state: String,
    attempt: u64,
    /// Text of the current attempt that stands on stdout.
    told: String,
}

impl Screen {
    fn new(out: Output) -> Self {
        Self { out, events: 0, state: String::new(), attempt: 0, told: String::new() }
    }

    /// Shows an event; `true` when it says that the job has ended.
    fn show(&mut self, event: &sse::Event) -> bool {
        self.events += 1;
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else { return false };
        let kind = data.get("type").and_then(Value::as_str).unwrap_or(&event.name).to_owned();
        if self.out.json {
            self.out.value_line(&serde_json::json!({"event": kind, "data": data}));
        }
        match kind.as_str() {
            "attempt_started" => self.attempt_started(data.get("attempt").and_then(Value::as_u64).unwrap_or(0)),
            "token" => self.token(&data),
            "model_switched" => self.model_switched(&data),
            "progress" if !self.out.json => {
                let number = |name: &str| data.get(name).and_then(Value::as_u64).unwrap_or(0);
                output::note(&format!(
                    "[{}/{}] {}",
                    number("done"),
                    number("total"),
                    output::plain(&cell(&data, "step"))
                ));
            }
            _ => {
                let state = cell(&data, "state");
                if !state.is_empty() {
                    return self.state(state);
                }
            }
        }
        false
    }

    fn state(&mut self, state: String) -> bool {
        let ended = show::is_final(&state);
        if state != self.state && !ended && !self.out.json {
            output::note(&state);
        }
        self.state = state;
        ended
    }

    fn attempt_started(&mut self, attempt: u64) {
        if self.attempt != 0 && attempt != self.attempt && !self.told.is_empty() && !self.out.json {
            output::line("");
            output::note(&format!("attempt {attempt}: what stands above is void"));
        }
        if attempt != self.attempt {
            self.told.clear();
        }
        self.attempt = attempt;
    }

    fn model_switched(&mut self, data: &Value) {
        if self.out.json {
            return;
        }
        let told = ["from", "to", "class"].map(|name| output::plain(&cell(data, name)));
        // Steps of an analysis are not shown, so that nothing of theirs is void.
        let void = if self.told.is_empty() || cell(data, "step").contains('/') {
            ""
        } else {
            output::line("");
            self.told.clear();
            "; what stands above is void"
        };
        output::note(&format!("{} did not answer ({}), {} is asked{void}", told[0], told[2], told[1]));
    }

    fn token(&mut self, data: &Value) {
        // Steps of an analysis run side by side: their texts would be mixed into one another.
        let (step, text) = (cell(data, "step"), cell(data, "text"));
        if self.out.json || step.contains('/') {
            return;
        }
        output::text_out(&output::plain(&text));
        self.told.push_str(&text);
    }

    fn finish(self, job: &Value) {
        if self.out.json {
            self.out.value_line(&serde_json::json!({"event": "end", "data": job}));
            return;
        }
        if !self.told.is_empty() {
            output::line("");
        }
        if !self.told.is_empty() && self.told == show::answer_text(job) {
            show::summary(job);
        } else {
            show::finished(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: &str) -> sse::Event {
        sse::Event { name: String::new(), data: data.to_owned(), id: None }
    }

    #[test]
    fn an_end_is_recognised_and_a_new_attempt_voids_the_text() {
        let mut screen = Screen::new(Output { json: true });
        assert!(!screen.show(&event(r#"{"type":"attempt_started","attempt":1}"#)));
        screen.told.push_str("half an ans");
        assert!(!screen.show(&event(r#"{"type":"attempt_started","attempt":2}"#)));
        assert_eq!(screen.told, "");
        assert!(!screen.show(&event(r#"{"type":"state","state":"running"}"#)));
        assert!(screen.show(&event(r#"{"type":"state","state":"dead"}"#)));
        assert!(!screen.show(&event("not json")));
    }
}
