//! Webhooks: sends what is to be delivered, and tells of circuits.
//!
//! Deliveries are rows (see `queue_core::webhooks`). A round takes some that are due, for a minute; whoever takes one sends it
//! and notes what became of it. A scheduler that dies in between leaves a row that becomes due again after that minute: then
//! its message is sent a second time, with the same `webhook-id`. Two schedulers never have the same row at once.
//!
//! A lane (an endpoint, or a host of jobs' own URLs) has at most a few messages under way. One that fails again and again
//! rests, longer each time, and its messages wait without being tried: a receiver that is down costs one attempt in a while,
//! and nobody else anything. What has waited in it for more than a day is given up with such an attempt, so that what waits
//! is bounded. What a process knows of lanes is lost with it, which costs a few attempts.
//!
//! Circuits of breakers are looked at, not listened to: whoever notes first that one has opened or closed writes the
//! deliveries with its note. One that opens and closes between two looks is not told; a circuit stays open for 10 s.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use queue_core::{
    breaker::State,
    credentials,
    egress::{Answer, HeaderMap, Method, Outgoing, SendError},
    ids::{Name, SessionId},
    journal::JournalError,
    stores::Stores,
    telemetry,
    time::Timestamp,
    webhooks::{
        ALERT_PREFIX, ANSWER_KEPT_BYTES, CircuitTold, ClaimDeliveries, Delivery, DeliveryAttempt, DeliveryState,
        EventKind, Owner, Told, circuit_body, job_body, open_all, request_headers,
    },
};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::Outbound;

/// Time between two looks at what is due: a job's end is told within about a second.
const EVERY: Duration = Duration::from_millis(500);
/// Time between two looks at circuits.
const CIRCUITS_EVERY: Duration = Duration::from_secs(2);
/// Messages under way at once in this process: each is a task and a connection.
const UNDER_WAY_MAX: usize = 64;
/// Of them, those of one lane: so one slow receiver leaves room for the others.
const LANE_MAX: usize = 8;
/// Messages of a lane that one round takes.
const PER_ROUND_MAX: usize = LANE_MAX / 2;
/// Longest time of one attempt.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// When others may take a delivery that was claimed: longer than an attempt and its note take.
const CLAIM_MS: i64 = 60_000;
/// Failures in a row after which a lane rests.
const LANE_FAILURES_MAX: u32 = 5;
/// How long it rests the first time; doubled by each further failure.
const REST: Duration = Duration::from_secs(30);
/// How long it rests at most.
const REST_MAX: Duration = Duration::from_secs(600);
/// Lanes that are remembered; those that work and are idle are forgotten anyway.
const LANES_KNOWN_MAX: usize = 10_000;
/// Waits between the attempts of a delivery, in milliseconds: about a day in all.
const WAITS_MS: [i64; 11] =
    [5_000, 30_000, 120_000, 300_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 28_800_000, 28_800_000];
/// How long a message may be due in the lane of a receiver that fails: a little more than all waits together.
const OVERDUE_MS: i64 = 25 * 60 * 60 * 1_000;
/// Longest wait that a receiver may ask for.
const RETRY_AFTER_MAX_MS: i64 = 24 * 60 * 60 * 1_000;
/// When a message is looked at again whose secret cannot be read here.
const UNREADABLE_WAIT_MS: i64 = 60_000;
/// How long messages that are under way at a shutdown may go on.
const LAST_WORDS: Duration = Duration::from_secs(3);

pub(crate) async fn run(stores: Stores, outbound: Option<Outbound>, shutdown: CancellationToken) {
    let Some(outbound) = outbound else { return };
    tokio::join!(send(stores.clone(), outbound, shutdown.clone()), tell_circuits(stores, shutdown));
}

async fn send(stores: Stores, outbound: Outbound, shutdown: CancellationToken) {
    let mut sender = Sender::new(stores, outbound);
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(ended) = sender.under_way.join_next_with_id() => {
                sender.ended(ended);
                // Where there was more than there was room for, a place that is free is taken at once.
                if !sender.more { continue }
            }
            _ = tick.tick() => sender.wake_up(),
        }
        if let Err(error) = sender.round().await {
            tracing::warn!(%error, "webhooks could not be looked at");
            sender.more = false;
        }
    }
    // What is cut off here is sent again by another, with the same id.
    let _ = tokio::time::timeout(LAST_WORDS, sender.finish()).await;
}

/// What a process knows of a lane.
#[derive(Debug, Default)]
struct Lane {
    under_way: usize,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Lane {
    fn takes_none(&self, now: Instant) -> bool {
        // A round may take as many of it again.
        self.under_way + PER_ROUND_MAX > LANE_MAX || self.rests_until.is_some_and(|until| until > now)
    }
}

/// What an ended message says of its receiver; `None`: nothing.
type Works = Option<bool>;

pub(crate) struct Sender {
    stores: Stores,
    outbound: Outbound,
    session: SessionId,
    under_way: JoinSet<Works>,
    /// In whose turn each of them is.
    turns: HashMap<Id, String>,
    lanes: HashMap<String, Lane>,
    /// The last lane that was looked at.
    behind: String,
    /// The last round took all that it could.
    more: bool,
}

impl Sender {
    pub(crate) fn new(stores: Stores, outbound: Outbound) -> Self {
        Self {
            stores,
            outbound,
            session: SessionId::generate(),
            under_way: JoinSet::new(),
            turns: HashMap::new(),
            lanes: HashMap::new(),
            behind: String::new(),
            more: false,
        }
    }

    /// Forgets lanes that work.
    fn wake_up(&mut self) {
        if self.lanes.len() >= LANES_KNOWN_MAX {
            self.lanes.clear();
        }
        self.lanes.retain(|_, lane| lane.under_way > 0 || lane.failures > 0);
    }

    /// Takes what is due and there is room for, and begins to send it.
    pub(crate) async fn round(&mut self) -> Result<usize, JournalError> {
        let room = UNDER_WAY_MAX.saturating_sub(self.under_way.len());
        self.more = false;
        // What a backup brought back was sent long ago, perhaps: nothing goes before somebody has said that this system is to live.
        if self.stores.orders.awaits_confirmation().await? {
            return Ok(0);
        }
        if room == 0 {
            self.more = true;
            return Ok(0);
        }
        let (now, clock) = (self.stores.clock.now(), Instant::now());
        let except = self.lanes.iter().filter(|(_, lane)| lane.takes_none(clock)).map(|(name, _)| name.clone());
        let claim = ClaimDeliveries {
            behind: std::mem::take(&mut self.behind),
            except: except.collect(),
            per_lane: PER_ROUND_MAX,
            limit: room,
            now,
            until: now.plus_ms(CLAIM_MS),
            owner: self.session,
        };
        let behind = claim.behind.clone();
        let taken = self.stores.webhooks.claim_deliveries(claim).await?;
        let count = taken.len();
        // A round that took all that it could goes on behind the last lane; any other begins anew.
        if count == room {
            self.behind = taken.iter().map(|delivery| delivery.lane.clone()).max().unwrap_or_default();
        }
        self.more = count > 0 || !behind.is_empty();
        for delivery in taken {
            let lane = self.lanes.entry(delivery.lane.clone()).or_default();
            lane.under_way += 1;
            let message = Message {
                stores: self.stores.clone(),
                outbound: self.outbound.clone(),
                session: self.session,
                is_down: lane.failures >= LANE_FAILURES_MAX,
                delivery,
            };
            let lane = message.delivery.lane.clone();
            let task = self.under_way.spawn(message.deliver());
            self.turns.insert(task.id(), lane);
        }
        Ok(count)
    }

    /// Ends the rest of every lane.
    #[cfg(test)]
    pub(crate) fn look_again(&mut self) {
        self.lanes.values_mut().for_each(|lane| lane.rests_until = None);
    }

    /// Waits for what is under way.
    pub(crate) async fn finish(&mut self) {
        while let Some(ended) = self.under_way.join_next_with_id().await {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Works), JoinError>) {
        let (id, works) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "sending a webhook failed; it is tried again in a minute");
                (error.id(), None)
            }
        };
        let Some(lane) = self.turns.remove(&id).and_then(|lane| self.lanes.get_mut(&lane)) else { return };
        lane.under_way = lane.under_way.saturating_sub(1);
        match works {
            None => {}
            Some(true) => (lane.failures, lane.rests_until) = (0, None),
            Some(false) => {
                lane.failures += 1;
                if let Some(further) = lane.failures.checked_sub(LANE_FAILURES_MAX) {
                    let rest = REST.saturating_mul(1 << (further / LANE_FAILURES_MAX).min(8)).min(REST_MAX);
                    lane.rests_until = Some(Instant::now() + rest);
                }
            }
        }
    }
}

/// One delivery on its way.
struct Message {
    stores: Stores,
    outbound: Outbound,
    session: SessionId,
    /// Its receiver has failed again and again, up to now.
    is_down: bool,
    delivery: Delivery,
}

/// What an attempt came to.
struct Verdict {
    outcome: &'static str,
    state: DeliveryState,
    wait_ms: i64,
    tried: bool,
    works: Option<bool>,
    status: Option<u16>,
    answer: Option<String>,
    error: Option<String>,
    disable: Option<String>,
}

impl Verdict {
    fn new(outcome: &'static str, state: DeliveryState) -> Self {
        Self {
            outcome,
            state,
            wait_ms: 0,
            tried: false,
            works: None,
            status: None,
            answer: None,
            error: None,
            disable: None,
        }
    }
}

impl Message {
    async fn deliver(self) -> Works {
        let (began, at) = (Instant::now(), self.stores.clock.now());
        let (verdict, body) = self.attempt(at).await;
        let took = began.elapsed();
        metrics::counter!(telemetry::WEBHOOK_DELIVERIES, "outcome" => verdict.outcome).increment(1);
        if verdict.tried {
            metrics::histogram!(telemetry::WEBHOOK_DURATION, "outcome" => verdict.outcome).record(took.as_secs_f64());
        }
        let now = self.stores.clock.now();
        if verdict.state == DeliveryState::Delivered {
            let lag_s = now.since_ms(self.delivery.at) as f64 / 1_000.0;
            metrics::histogram!(telemetry::WEBHOOK_LAG).record(lag_s);
        }
        self.tell(&verdict);
        let attempt = DeliveryAttempt {
            seq: self.delivery.seq,
            owner: self.session,
            at,
            duration_ms: i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
            status: verdict.status,
            answer: verdict.answer,
            error: verdict.error,
            body,
            tried: verdict.tried,
            state: verdict.state,
            due_at: now.plus_ms(verdict.wait_ms),
            disable: verdict.disable,
            overdue_before: (self.is_down && verdict.works == Some(false)).then(|| at.plus_ms(-OVERDUE_MS)),
        };
        match self.stores.webhooks.note_delivery(attempt).await {
            Ok(Some(0)) => {}
            Ok(Some(given_up)) => {
                metrics::counter!(telemetry::WEBHOOK_DELIVERIES, "outcome" => "failed").increment(given_up);
                tracing::warn!(given_up, "webhooks are given up: they waited for a day behind a receiver that fails");
            }
            Ok(None) => tracing::info!(webhook_id = %self.delivery.message_id(), "a delivery was taken by another"),
            // It becomes due by itself, and is sent again.
            Err(error) => tracing::warn!(%error, webhook_id = %self.delivery.message_id(), "a delivery was not noted"),
        }
        verdict.works
    }

    /// Never with the URL, which may hold a token, and never with the message.
    fn tell(&self, verdict: &Verdict) {
        let (webhook_id, event) = (self.delivery.message_id(), self.delivery.event.as_str());
        match verdict.state {
            DeliveryState::Delivered | DeliveryState::Dropped => {
                tracing::debug!(webhook_id, event, outcome = verdict.outcome, "a webhook");
            }
            DeliveryState::Pending => {
                let (status, error) = (verdict.status, verdict.error.as_deref());
                tracing::info!(webhook_id, event, status, error, "a webhook is tried again later");
            }
            DeliveryState::Failed => {
                tracing::warn!(
                    webhook_id,
                    event,
                    "a webhook is given up: its receiver did not take it for about a day"
                );
            }
        }
        if let Some(why) = &verdict.disable {
            tracing::warn!(endpoint = ?self.delivery.endpoint, why, "a webhook endpoint is switched off");
        }
    }

    async fn attempt(&self, at: Timestamp) -> (Verdict, Option<String>) {
        let Delivery { enabled, url, .. } = &self.delivery;
        let Some(url) = url.clone().filter(|_| *enabled) else {
            return (Verdict::new("dropped", DeliveryState::Dropped), None);
        };
        let later = |error: String| Verdict {
            wait_ms: UNREADABLE_WAIT_MS,
            error: Some(error),
            // Nothing of this lane can be sent here, so it rests.
            works: Some(false),
            ..Verdict::new("unsigned", DeliveryState::Pending)
        };
        let body = match self.body().await {
            Ok(body) => body,
            Err(error) => return (later(error.to_string()), None),
        };
        let headers = match self.headers(at, &body).await {
            Ok(headers) => headers,
            Err(error) => return (later(error), Some(body)),
        };
        let request = Outgoing {
            url,
            method: Method::POST,
            headers,
            body: body.clone().into(),
            timeout: ATTEMPT_MAX,
            answer_max_bytes: ANSWER_KEPT_BYTES,
        };
        let sent = self.outbound.egress.send(request).await;
        (self.judge(sent), Some(body))
    }

    /// The message: the one that was sent before, or what there is to say of the job.
    async fn body(&self) -> Result<String, JournalError> {
        let Delivery { body, event, at, job, tenant, .. } = &self.delivery;
        if let Some(body) = body {
            return Ok(body.clone());
        }
        let Some(id) = *job else { return Ok(queue_core::webhooks::message(*event, *at, serde_json::Value::Null)) };
        let row = self.stores.reads.jobs(&[id]).await?.pop().flatten();
        let nobody = Name::from("");
        Ok(job_body(*event, *at, id, tenant.as_ref().unwrap_or(&nobody), row.as_ref()))
    }

    /// The error says why the message cannot be signed here.
    async fn headers(&self, at: Timestamp, body: &str) -> Result<HeaderMap, String> {
        let owner = match (&self.delivery.endpoint, &self.delivery.tenant) {
            (Some(id), _) => Owner::Endpoint(*id),
            (None, Some(tenant)) => Owner::Tenant(tenant.clone()),
            (None, None) => return Err("it has neither an endpoint nor a tenant".into()),
        };
        let sealed = self.stores.webhooks.secrets(&owner, at).await.map_err(|error| error.to_string())?;
        let keys = self.outbound.credentials.master_keys();
        let secrets =
            open_all(&keys, &owner, &sealed).map_err(|error| format!("its secret cannot be read: {error}"))?;
        if secrets.is_empty() {
            return Err(format!("{owner} has no signing secret"));
        }
        request_headers(&secrets, &self.delivery.message_id(), at, body.as_bytes())
            .ok_or_else(|| "it cannot be signed".to_owned())
    }

    fn judge(&self, sent: Result<Answer, SendError>) -> Verdict {
        let (status, answer, error, retry_after_ms) = match sent {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                let after = answer.retry_after_ms(self.stores.clock.now());
                (Some(answer.status), (!text.is_empty()).then_some(text), None, after)
            }
            Err(error) => (None, None, Some(error.to_string()), None),
        };
        let base = |outcome, state, works| Verdict {
            tried: true,
            works: Some(works),
            status,
            answer: answer.clone(),
            error: error.clone(),
            ..Verdict::new(outcome, state)
        };
        match status {
            Some(200..=299) => return base("delivered", DeliveryState::Delivered, true),
            Some(410) if self.delivery.endpoint.is_some() => {
                let disable = Some("its receiver answered 410 Gone".to_owned());
                return Verdict { disable, ..base("dropped", DeliveryState::Dropped, true) };
            }
            Some(410) => return base("dropped", DeliveryState::Dropped, true),
            _ => {}
        }
        let tries = usize::try_from(self.delivery.tries).unwrap_or(usize::MAX);
        match WAITS_MS.get(tries) {
            None => base("failed", DeliveryState::Failed, false),
            Some(wait_ms) => {
                let asked = retry_after_ms.unwrap_or_default().min(RETRY_AFTER_MAX_MS);
                Verdict { wait_ms: spread(*wait_ms).max(asked), ..base("retry", DeliveryState::Pending, false) }
            }
        }
    }
}

/// A wait, a tenth shorter or longer: messages that failed together need not come back together.
fn spread(wait_ms: i64) -> i64 {
    let tenth = wait_ms / 10;
    wait_ms - tenth + i64::from(uuid::Uuid::now_v7().as_bytes()[15]) * 2 * tenth / 255
}

async fn tell_circuits(stores: Stores, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(CIRCUITS_EVERY) => {}
        }
        if let Err(error) = look_at_circuits(&stores).await {
            tracing::warn!(%error, "circuits could not be looked at for webhooks");
        }
    }
}

/// One look; returns how many changes were told.
pub(crate) async fn look_at_circuits(stores: &Stores) -> Result<usize, queue_core::budget::ChoreError> {
    let wanted = [EventKind::BreakerOpened, EventKind::BreakerClosed];
    let wants = |events: &[EventKind]| events.iter().any(|event| wanted.contains(event));
    let is_heard = stores.webhooks.endpoints().await?.iter().any(|one| one.enabled && wants(&one.events));
    let mut told = stores.webhooks.open_circuits().await?;
    // Alerts have a role of their own.
    told.retain(|name, _| !name.as_str().starts_with(ALERT_PREFIX));
    // What was told of as open is told of as closed also when the last listener is gone: else a later one would hear of it.
    if !is_heard && told.is_empty() {
        return Ok(0);
    }
    let circuits = stores.breakers.list().await?;
    let open: BTreeMap<Name, Option<String>> = circuits
        .into_iter()
        .filter(|view| view.state != State::Closed)
        .map(|view| (view.circuit, view.reason))
        .collect();
    let now = stores.clock.now();
    let mut changes = 0;
    let opened = open.iter().filter(|(circuit, _)| is_heard && !told.contains_key(*circuit));
    let opened = opened.map(|(circuit, reason)| (circuit, true, reason.as_deref()));
    let closed = told.keys().filter(|circuit| !open.contains_key(*circuit)).map(|circuit| (circuit, false, None));
    for (circuit, is_open, reason) in opened.chain(closed) {
        let event = if is_open { EventKind::BreakerOpened } else { EventKind::BreakerClosed };
        let tenant = circuit.as_str().rsplit(':').next().and_then(|credential| credentials::owner(&credential.into()));
        let body = circuit_body(event, circuit, reason, now);
        let told = CircuitTold {
            circuit: circuit.clone(),
            open: is_open,
            tenant,
            body,
            at: now,
            last_open_at: Timestamp(i64::MAX),
            what: Told::Breaker,
        };
        changes += usize::from(stores.webhooks.tell_circuit(told).await?);
    }
    Ok(changes)
}
