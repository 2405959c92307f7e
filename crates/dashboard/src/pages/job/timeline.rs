//! The life of a job as a row of spans: when it was not due, when it waited, when somebody worked on it.

use super::Attempt;
use crate::{pages::jobs::row::Job, words};

/// Attempts that are drawn, the newest ones: more of them are lines that nobody tells apart.
pub(crate) const DRAWN_MAX: usize = 40;
/// Width of the drawing, in its own units.
pub(crate) const WIDTH: u32 = 1_000;
/// Narrowest span: what took a moment beside hours is still seen.
const SPAN_MIN: u32 = 14;

/// Narrowest span in which a word stands.
const WORD_MIN: u32 = 90;

/// What happens in a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is not its time yet.
    NotDue,
    /// It waits for its turn.
    Waiting,
    /// It was a dead letter, and then waited for its next life.
    DeadLetter,
    /// An attempt that has ended so.
    Attempt {
        /// Its number.
        number: u32,
        /// How it ended.
        outcome: String,
    },
    /// The attempt that runs.
    Running,
}

/// A span of the life of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) what: What,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// A span as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bar {
    /// For the stylesheet.
    pub(crate) class: &'static str,
    pub(crate) x: u32,
    pub(crate) width: u32,
    /// What stands in it, where there is room: colour alone says nothing.
    pub(crate) mark: String,
    /// When it began, as RFC 3339.
    pub(crate) at: String,
    /// What it says to those who point at it, or do not see it.
    pub(crate) words: String,
}

impl Bar {
    /// Where its mark stands.
    pub(crate) fn middle(&self) -> u32 {
        self.x + self.width / 2
    }
}

/// The life of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    pub(crate) bars: Vec<Bar>,
    /// Attempts before the first that is drawn.
    pub(crate) left_out: usize,
}

impl Timeline {
    /// The life of `job` until now. Nothing is drawn where times cannot be read.
    pub(crate) fn of(job: &Job, attempts: &[Attempt], now_ms: i64) -> Self {
        let left_out = attempts.len().saturating_sub(DRAWN_MAX);
        let spans = spans(job, attempts, now_ms).unwrap_or_default();
        // An earlier attempt and the wait before it go together.
        let first = spans.iter().enumerate().filter(|(_, span)| matches!(span.what, What::Attempt { .. }));
        let first = first.map(|(at, _)| at).nth(left_out).filter(|_| left_out > 0).unwrap_or(0);
        Self { bars: drawn(&spans[first..]), left_out }
    }
}

/// The spans from the job's acceptance to its end, or to now.
fn spans(job: &Job, attempts: &[Attempt], now_ms: i64) -> Option<Vec<Span>> {
    let at = |text: &Option<String>| text.as_deref().and_then(words::ms_of);
    let accepted = words::ms_of(&job.accepted_at)?;
    let due = words::ms_of(&job.run_at)?;
    let mut life = Life { spans: Vec::new(), until: accepted, due, was_dead: false };
    for attempt in attempts {
        let ended = words::ms_of(&attempt.finished_at)?;
        let began = at(&attempt.started_at).unwrap_or(ended);
        life.wait(began, false);
        life.work(What::Attempt { number: attempt.number, outcome: attempt.outcome.clone() }, ended);
        life.was_dead = attempt.outcome == "dead";
    }
    if job.has_ended() {
        life.was_dead = false;
        life.wait(at(&job.finished_at)?, true);
    } else if let Some(began) = at(&job.started_at).filter(|_| job.is_running()) {
        life.wait(began, false);
        life.work(What::Running, now_ms);
    } else {
        life.wait(now_ms, true);
    }
    Some(life.spans)
}

/// A life as far as it is told.
struct Life {
    spans: Vec<Span>,
    until: i64,
    /// When the job is or was due last: of earlier waits nobody knows it any more.
    due: i64,
    was_dead: bool,
}

impl Life {
    /// Nobody works on it until `to`.
    fn wait(&mut self, to: i64, is_last: bool) {
        let is_split = self.due > self.until && (self.due <= to || is_last);
        if self.was_dead {
            self.push(What::DeadLetter, to);
        } else if is_split {
            self.push(What::NotDue, self.due.min(to));
        }
        self.push(What::Waiting, to);
    }

    fn push(&mut self, what: What, to_ms: i64) {
        if to_ms > self.until {
            self.spans.push(Span { what, from_ms: self.until, to_ms });
            self.until = to_ms;
        }
    }

    /// Attempts are told even if they took no time.
    fn work(&mut self, what: What, to_ms: i64) {
        let to_ms = to_ms.max(self.until);
        self.spans.push(Span { what, from_ms: self.until, to_ms });
        self.until = to_ms;
    }
}

/// The spans side by side: each as wide as it is long, but none so narrow that it cannot be seen.
fn drawn(spans: &[Span]) -> Vec<Bar> {
    let total: i64 = spans.iter().map(|span| span.to_ms - span.from_ms).sum::<i64>().max(1);
    let count = u32::try_from(spans.len()).unwrap_or(u32::MAX);
    let least = SPAN_MIN.min(WIDTH / count.max(1));
    let free = i64::from(WIDTH.saturating_sub(least.saturating_mul(count)));
    let mut bars: Vec<Bar> = Vec::with_capacity(spans.len());
    let mut passed = 0;
    for (at, span) in (0u32..).zip(spans) {
        // From the sum, not from the bar before: roundings do not add up.
        let edge = |passed: i64, at: u32| {
            let part = i128::from(passed) * i128::from(free) / i128::from(total);
            u32::try_from(part).unwrap_or(0) + least * at
        };
        let x = edge(passed, at);
        passed += span.to_ms - span.from_ms;
        bars.push(Bar {
            class: class_of(&span.what),
            x,
            width: edge(passed, at + 1) - x,
            mark: mark_of(&span.what, edge(passed, at + 1) - x),
            at: jiff::Timestamp::from_millisecond(span.from_ms).map(|at| at.to_string()).unwrap_or_default(),
            words: words_of(span),
        });
    }
    bars
}

fn class_of(what: &What) -> &'static str {
    match what {
        What::NotDue => "tl-notdue",
        What::Waiting => "tl-waiting",
        What::DeadLetter => "tl-dead",
        What::Running => "tl-running",
        What::Attempt { outcome, .. } => match outcome.as_str() {
            "succeed" => "tl-succeed",
            "release" => "tl-release",
            "cancel" => "tl-cancel",
            _ => "tl-fail",
        },
    }
}

fn mark_of(what: &What, width: u32) -> String {
    match what {
        What::Attempt { number, .. } => number.to_string(),
        What::Running => "▶".to_owned(),
        _ if width < WORD_MIN => String::new(),
        What::NotDue => "not due".to_owned(),
        What::Waiting => "waiting".to_owned(),
        What::DeadLetter => "dead".to_owned(),
    }
}

fn words_of(span: &Span) -> String {
    let took = words::duration(span.to_ms - span.from_ms);
    match &span.what {
        What::NotDue => format!("not due for {took}"),
        What::Waiting => format!("waited {took}"),
        What::DeadLetter => format!("a dead letter, then waiting: {took}"),
        What::Running => format!("runs for {took}"),
        What::Attempt { number, outcome } => format!("attempt {number}: {outcome} after {took}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::job::copies::tests::hostile;

    /// 10:00:00 and so many seconds.
    fn at(seconds: i64) -> String {
        let base: jiff::Timestamp = "2026-11-30T10:00:00Z".parse().unwrap();
        (base + jiff::SignedDuration::from_secs(seconds)).to_string()
    }

    fn ms(seconds: i64) -> i64 {
        words::ms_of(at(seconds)).unwrap()
    }

    fn attempt(number: u32, outcome: &str, from: i64, to: i64) -> Attempt {
        let json = serde_json::json!({
            "epoch": number, "number": number, "outcome": outcome, "worker": "w", "started_at": at(from), "finished_at": at(to)
        });
        serde_json::from_value(json).unwrap()
    }

    fn told(job: &Job, attempts: &[Attempt], now: i64) -> Vec<String> {
        spans(job, attempts, ms(now)).unwrap().iter().map(words_of).collect()
    }

    fn job(state: &str, due: i64, started: Option<i64>, finished: Option<i64>) -> Job {
        Job {
            state: state.into(),
            accepted_at: at(0),
            run_at: at(due),
            started_at: started.map(at),
            finished_at: finished.map(at),
            ..hostile()
        }
    }

    #[test]
    fn a_life_is_told_from_submit_to_end() {
        let d = |seconds: i64| words::duration(seconds * 1_000);
        let dead = job("dead", 100, None, Some(160));
        let attempts = [attempt(1, "retry", 10, 20), attempt(2, "dead", 130, 160)];
        assert_eq!(
            told(&dead, &attempts, 900),
            [
                format!("waited {}", d(10)),
                format!("attempt 1: retry after {}", d(10)),
                format!("not due for {}", d(80)),
                format!("waited {}", d(30)),
                format!("attempt 2: dead after {}", d(30)),
            ]
        );
        let redriven = job("running", 500, Some(510), None);
        assert_eq!(
            told(&redriven, &attempts, 900)[3..],
            [
                format!("attempt 2: dead after {}", d(30)),
                format!("a dead letter, then waiting: {}", d(350)),
                format!("runs for {}", d(390))
            ]
        );
    }

    #[test]
    fn what_has_not_begun_waits_for_its_time_and_then_its_turn() {
        let d = |seconds: i64| words::duration(seconds * 1_000);
        assert_eq!(told(&job("scheduled", 3_600, None, None), &[], 60), [format!("not due for {}", d(60))]);
        assert_eq!(
            told(&job("ready", 30, None, None), &[], 60),
            [format!("not due for {}", d(30)), format!("waited {}", d(30))]
        );
        let cancelled = job("cancelled", 3_600, None, Some(60));
        assert_eq!(told(&cancelled, &[], 900), [format!("not due for {}", d(60))]);
        // A clock that is behind: nothing is negative, and nothing is drawn.
        assert!(told(&job("ready", 0, None, None), &[], -5).is_empty());
    }

    #[test]
    fn the_drawing_fills_its_width_and_shows_every_span() {
        let attempts: Vec<_> =
            (1..=60).map(|n| attempt(n, "retry", i64::from(n) * 10, i64::from(n) * 10 + 1)).collect();
        let timeline = Timeline::of(&job("dead", 0, None, Some(100_000)), &attempts, ms(200_000));
        assert_eq!(timeline.left_out, 60 - DRAWN_MAX);
        assert_eq!(timeline.bars.first().unwrap().words, format!("attempt 21: retry after {}", words::duration(1_000)));
        let mut x = 0;
        for bar in &timeline.bars {
            assert_eq!(bar.x, x);
            assert!(bar.width >= 1, "{bar:?}");
            x += bar.width;
        }
        assert_eq!(x, WIDTH.min(x));
        assert!(x > WIDTH * 9 / 10, "{x}");
        let one = Timeline::of(&job("ready", 0, None, None), &[], ms(0));
        assert!(one.bars.is_empty());
    }
}
