//! The provider's own limits: a bucket of requests and one of tokens for each key, charged when a call is let in, and what a
//! provider says when they are empty, when it wants a pause, and when nobody pays.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::behaviour::{Behaviour, error_body};

/// Tokens that are charged for the answer of a request that does not limit it.
const ANSWER_TOKENS: u64 = 16;

/// What each key may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    /// Requests per minute.
    pub requests_per_minute: f64,
    /// Tokens per minute: of the prompt, and what the request allows the answer to be.
    pub tokens_per_minute: f64,
    /// What a full bucket holds, as time. Providers that count by the minute hold a minute; less is stricter.
    pub burst: Duration,
}

/// What was let in and what was not, over all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that arrived.
    pub calls: u64,
    /// Those that were let in.
    pub admitted: u64,
    /// Tokens that they were charged.
    pub admitted_tokens: u64,
    /// Refused by a bucket or during a pause.
    pub refused: u64,
    /// Refused because nobody pays.
    pub unpaid: u64,
    /// For each call that arrived during a pause, how long after the pause was announced.
    pub during_pause: Vec<Duration>,
    /// The same for calls that arrived while nobody paid, after the first one was told.
    pub while_unpaid: Vec<Duration>,
    /// When each of the first and the last call was let in, since the door was set up.
    pub first_and_last: Option<(Duration, Duration)>,
}

/// The buckets of one key.
#[derive(Clone, Copy, Debug)]
struct Levels {
    requests: f64,
    tokens: f64,
    at: Instant,
}

/// What stands before the answers.
#[derive(Debug)]
pub(super) struct Door {
    began: Instant,
    allowance: Option<Allowance>,
    keys: HashMap<String, Levels>,
    /// The next call is told to come back after this time.
    pause_next: Option<Duration>,
    /// A pause that was announced: when, and until when.
    pause: Option<(Instant, Instant)>,
    /// Whether somebody pays, and when the first call was told that nobody does.
    unpaid: bool,
    told_unpaid: Option<Instant>,
    pub(super) tally: Tally,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            allowance: None,
            keys: HashMap::new(),
            pause_next: None,
            pause: None,
            unpaid: false,
            told_unpaid: None,
            tally: Tally::default(),
        }
    }
}

/// What becomes of a call at the door.
pub(super) enum Entry {
    /// It may go on; its answer carries these headers.
    Admitted(Vec<(String, String)>),
    /// It is told this.
    Refused(Behaviour),
}

impl Door {
    /// From now on, with full buckets and nothing counted.
    pub(super) fn set(&mut self, allowance: Option<Allowance>) {
        *self = Self { allowance, ..Self::default() };
    }

    pub(super) fn pause_next(&mut self, pause: Duration) {
        self.pause_next = Some(pause);
    }

    pub(super) fn set_unpaid(&mut self, unpaid: bool) {
        (self.unpaid, self.told_unpaid) = (unpaid, None);
    }

    pub(super) fn enter(&mut self, key: &str, body: &Value, embeds: bool, now: Instant) -> Entry {
        self.tally.calls += 1;
        if self.unpaid {
            self.tally.unpaid += 1;
            match self.told_unpaid {
                None => self.told_unpaid = Some(now),
                Some(told) => self.tally.while_unpaid.push(now.duration_since(told)),
            }
            return Entry::Refused(Behaviour::insufficient_quota());
        }
        if let Some(pause) = self.pause_next.take() {
            self.pause = Some((now, now + pause));
            self.tally.refused += 1;
            return Entry::Refused(Behaviour::rate_limit_seconds(pause));
        }
        if let Some((announced, until)) = self.pause.filter(|(_, until)| now < *until) {
            self.tally.refused += 1;
            self.tally.during_pause.push(now.duration_since(announced));
            return Entry::Refused(Behaviour::rate_limit_seconds(until - now));
        }
        let Some(allowance) = self.allowance else {
            self.let_in(0, now);
            return Entry::Admitted(vec![]);
        };
        self.enter_bucket(allowance, key, tokens_of(body, embeds), now)
    }

    fn enter_bucket(&mut self, allowance: Allowance, key: &str, tokens: u64, now: Instant) -> Entry {
        let rates = [allowance.requests_per_minute, allowance.tokens_per_minute].map(|per_minute| per_minute / 60.0);
        let caps = rates.map(|rate| rate * allowance.burst.as_secs_f64());
        let full = Levels { requests: caps[0], tokens: caps[1], at: now };
        let levels = self.keys.entry(key.to_owned()).or_insert(full);
        let passed = now.duration_since(levels.at).as_secs_f64();
        levels.requests = (levels.requests + passed * rates[0]).min(caps[0]);
        levels.tokens = (levels.tokens + passed * rates[1]).min(caps[1]);
        levels.at = now;
        let missing = [1.0 - levels.requests, tokens as f64 - levels.tokens];
        if tokens as f64 > caps[1].max(allowance.tokens_per_minute) {
            self.tally.refused += 1;
            let body = error_body("Request too large for the limit of tokens per min", "tokens", "rate_limit_exceeded");
            return Entry::Refused(Behaviour::Respond(429, vec![], body));
        }
        // What is larger than the bucket goes when that is full, as a real minute's bucket would take it.
        let fits = missing[0] <= 0.0 && (missing[1] <= 0.0 || levels.tokens >= caps[1]);
        if fits {
            levels.requests -= 1.0;
            levels.tokens -= tokens as f64;
        }
        let left = [levels.requests, levels.tokens];
        let headers = headers(allowance, left, caps, rates);
        if fits {
            self.let_in(tokens, now);
            return Entry::Admitted(headers);
        }
        self.tally.refused += 1;
        let wait = (missing[0] / rates[0]).max(missing[1].min(caps[1] - left[1]) / rates[1]).max(0.001);
        let which = if missing[0] > 0.0 { "requests" } else { "tokens" };
        let body = error_body(&format!("Rate limit reached on {which} per min"), which, "rate_limit_exceeded");
        let mut all = headers;
        all.push(("retry-after-ms".into(), ((wait * 1_000.0).ceil() as u64).to_string()));
        all.push(("retry-after".into(), (wait.ceil() as u64).to_string()));
        Entry::Refused(Behaviour::Respond(429, all, body))
    }

    fn let_in(&mut self, tokens: u64, now: Instant) {
        self.tally.admitted += 1;
        self.tally.admitted_tokens += tokens;
        let at = now.duration_since(self.began);
        self.tally.first_and_last = Some((self.tally.first_and_last.map_or(at, |(first, _)| first), at));
    }
}

/// What OpenAI's answers carry.
fn headers(allowance: Allowance, left: [f64; 2], caps: [f64; 2], rates: [f64; 2]) -> Vec<(String, String)> {
    let limits = [allowance.requests_per_minute, allowance.tokens_per_minute];
    let mut headers = vec![];
    for (at, kind) in ["requests", "tokens"].into_iter().enumerate() {
        let reset = ((caps[at] - left[at]) / rates[at]).max(0.0);
        headers.push((format!("x-ratelimit-limit-{kind}"), (limits[at] as u64).to_string()));
        headers.push((format!("x-ratelimit-remaining-{kind}"), (left[at].max(0.0) as u64).to_string()));
        headers.push((format!("x-ratelimit-reset-{kind}"), format!("{reset:.3}s")));
    }
    headers
}

/// Tokens of a request's prompt, as the provider counts them.
pub(super) fn prompt_tokens(body: &Value, embeds: bool) -> u64 {
    let text = if embeds { body.get("input") } else { body.get("messages") };
    text.map_or(0, |text| text.to_string().len() as u64) / 4 + 1
}

fn tokens_of(body: &Value, embeds: bool) -> u64 {
    let answer = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body.get(*name)?.as_u64());
    prompt_tokens(body, embeds) + if embeds { 0 } else { answer.unwrap_or(ANSWER_TOKENS) }
}

impl Behaviour {
    /// Nobody pays.
    pub fn insufficient_quota() -> Self {
        let words = "You exceeded your current quota, please check your plan and billing details.";
        Self::Respond(429, vec![], error_body(words, "insufficient_quota", "insufficient_quota"))
    }

    /// The traffic grows too fast.
    pub fn slow_down() -> Self {
        let words = "Your request rate is increasing too fast; slow down";
        Self::Respond(429, vec![("retry-after".into(), "1".into())], error_body(words, "requests", "slow_down"))
    }

    /// A rate limit that asks to come back after this time, in whole seconds as most providers do.
    pub fn rate_limit_seconds(pause: Duration) -> Self {
        let seconds = (pause.as_millis() as u64).div_ceil(1_000);
        let headers = vec![("retry-after".to_owned(), seconds.to_string())];
        Self::Respond(429, headers, error_body("Rate limit reached", "requests", "rate_limit_exceeded"))
    }
}

/// The admin endpoint's words: `{"requests_per_minute","tokens_per_minute","burst_s"}`, `{"pause_s"}`, `{"unpaid"}`.
pub(super) fn told(door: &mut Door, order: &Value) -> Result<(), String> {
    let number = |name: &str| order.get(name).and_then(Value::as_f64);
    if let Some(seconds) = number("pause_s") {
        door.pause_next(Duration::from_secs_f64(seconds));
    } else if let Some(unpaid) = order.get("unpaid").and_then(Value::as_bool) {
        door.set_unpaid(unpaid);
    } else if let (Some(requests), Some(tokens)) = (number("requests_per_minute"), number("tokens_per_minute")) {
        let burst = Duration::from_secs_f64(number("burst_s").unwrap_or(60.0));
        door.set(Some(Allowance { requests_per_minute: requests, tokens_per_minute: tokens, burst }));
    } else {
        return Err("name pause_s, unpaid, or requests_per_minute and tokens_per_minute".into());
    }
    Ok(())
}

/// The tally as the admin endpoint tells it.
pub(super) fn tell(tally: &Tally) -> Value {
    let ms = |times: &[Duration]| times.iter().map(|time| time.as_millis() as u64).collect::<Vec<_>>();
    json!({"calls": tally.calls, "admitted": tally.admitted, "admitted_tokens": tally.admitted_tokens,
           "refused": tally.refused, "unpaid": tally.unpaid, "during_pause_ms": ms(&tally.during_pause),
           "while_unpaid_ms": ms(&tally.while_unpaid)})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(tokens: u64) -> Value {
        json!({"messages": [], "max_tokens": tokens - 1})
    }

    fn door() -> (Door, Instant) {
        let mut door = Door::default();
        let burst = Duration::from_secs(6);
        door.set(Some(Allowance { requests_per_minute: 600.0, tokens_per_minute: 60_000.0, burst }));
        (door, Instant::now())
    }

    fn enters(door: &mut Door, key: &str, tokens: u64, at: Instant) -> bool {
        matches!(door.enter(key, &call(tokens), false, at), Entry::Admitted(_))
    }

    #[test]
    fn each_key_has_buckets_that_are_charged_at_the_door() {
        let (mut door, now) = door();
        assert!(enters(&mut door, "a", 6_000, now));
        assert!(!enters(&mut door, "a", 500, now), "what it asked for is charged, not what it used");
        assert!(enters(&mut door, "b", 6_000, now), "keys are apart");
        assert!(enters(&mut door, "a", 500, now + Duration::from_millis(501)));
        assert_eq!((door.tally.admitted, door.tally.admitted_tokens, door.tally.refused), (3, 12_500, 1));
        for _ in 0..60 {
            enters(&mut door, "c", 1, now);
        }
        assert!(!enters(&mut door, "c", 1, now), "requests are counted, too");
    }

    #[test]
    fn a_pause_and_an_unpaid_bill_are_counted_against_those_who_come_anyway() {
        let (mut door, now) = door();
        door.pause_next(Duration::from_secs(30));
        assert!(!enters(&mut door, "a", 1, now));
        assert!(!enters(&mut door, "a", 1, now + Duration::from_secs(29)));
        assert!(enters(&mut door, "a", 1, now + Duration::from_secs(30)));
        assert_eq!(door.tally.during_pause, [Duration::from_secs(29)]);
        door.set_unpaid(true);
        assert!(!enters(&mut door, "a", 1, now) && !enters(&mut door, "a", 1, now + Duration::from_secs(1)));
        assert_eq!((door.tally.unpaid, door.tally.while_unpaid.len()), (2, 1));
    }
}
