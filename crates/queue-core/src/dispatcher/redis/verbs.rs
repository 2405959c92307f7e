//! The verbs, each as calls of the library.

use async_trait::async_trait;
use redis::Value;
use tokio::sync::mpsc;

use super::{
    RedisDispatcher,
    codec::{self, Answer, Batch, strange},
    sessions::Serves,
};
use crate::{
    dispatcher::{
        ASKED_MAX_SESSIONS, DispatchError, Dispatcher, Entry, Held, Lease, PUSH_MAX_ENTRIES, Place, Present,
        QueueDepth, SessionView, Setting, Signal, Step, StepReply, WEIGHT_MAX, Wait, tracks::Tracks,
    },
    ids::{Generation, JobId, Name, SessionId},
    journal::Recovery,
};

/// Calls of the sweep after a begin, each of which unlinks a bounded part: enough for a million lanes. What is left
/// then goes with the next generation.
const SWEEPS_MAX: usize = 10_000;

fn id(session: SessionId) -> Vec<u8> {
    session.0.as_bytes().to_vec()
}

fn joined(queues: &[Name]) -> Vec<u8> {
    queues.iter().map(|queue| queue.as_str().as_bytes()).collect::<Vec<_>>().join(&0)
}

fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn bits(tracks: Tracks) -> Vec<u8> {
    text(tracks.bits())
}

fn yes(flag: bool) -> Vec<u8> {
    if flag { b"1".to_vec() } else { Vec::new() }
}

impl RedisDispatcher {
    /// Whether the session is of this process: others' acks may be sent in their name.
    fn is_ours(&self, session: SessionId) -> bool {
        self.sessions.has(session)
    }

    async fn join_with(&self, session: SessionId, serves: &Serves, held: &[Held]) -> Result<(), DispatchError> {
        let mut batch = Batch::default();
        held.iter().for_each(|held| batch.held(held));
        let head = [id(session), self.inbox.channel.clone().into_bytes(), joined(&serves.queues), bits(serves.tracks)];
        self.partition.call("join", head.into_iter().chain(batch.into_args())).await?;
        Ok(())
    }

    async fn step_once(&self, step: &Step) -> Result<(bool, StepReply), DispatchError> {
        let mut batch = Batch::default();
        step.acks.iter().for_each(|ack| batch.ack(ack));
        let seed = rand::random::<[u8; 6]>().to_vec();
        let head = [id(step.session), joined(&step.queues), bits(Tracks::serving(&step.kinds)), text(step.slots), seed];
        let answer = self.partition.call("step", head.into_iter().chain(batch.into_args())).await?;
        let mut answer = Answer::new(answer)?;
        let known = answer.number()? == 1;
        let next_at = answer.moment()?;
        let claims = answer.bytes()?;
        let queues: Vec<_> = answer
            .rest()
            .map(|name| codec::bytes(name).and_then(|name| String::from_utf8(name).map_err(|_| strange())))
            .map(|name| name.map(Name::new))
            .collect::<Result<_, _>>()?;
        Ok((known, StepReply { claims: codec::claims(&claims, &queues)?, next_at }))
    }

    /// Removes what older generations left, a bounded part a call.
    async fn sweep(&self) {
        for _ in 0..SWEEPS_MAX {
            match self.partition.call("sweep", []).await {
                Ok(Value::Int(1)) => {}
                _ => return,
            }
        }
    }
}

#[async_trait]
impl Dispatcher for RedisDispatcher {
    async fn begin(&self, generation: Generation) -> Result<(), DispatchError> {
        self.partition.call("begin", [text(generation.0)]).await?;
        self.partition.is_at(generation);
        self.sweep().await;
        Ok(())
    }

    async fn push(&self, entries: Vec<Entry>) -> Result<(), DispatchError> {
        for entries in entries.chunks(PUSH_MAX_ENTRIES) {
            self.pushes.push(entries.to_vec()).await?;
        }
        Ok(())
    }

    async fn join(&self, session: SessionId, held: Vec<Held>) -> Result<mpsc::Receiver<Signal>, DispatchError> {
        let (signals, serves, first) = self.sessions.join(session);
        if first {
            // Who is asked for and has no ear is taken for gone. A session that is known here has claims to tell of, and
            // does not wait.
            self.inbox.wait_until_heard(session, self.link.patience().connect).await;
        }
        // A join without claims is one call; an answer of another generation has told which one there is.
        let mut learned = false;
        let mut rest = held.chunks(PUSH_MAX_ENTRIES).collect::<Vec<_>>();
        if rest.is_empty() {
            rest.push(&[]);
        }
        let mut at = 0;
        while let Some(part) = rest.get(at) {
            match self.join_with(session, &serves, part).await {
                Ok(()) => at += 1,
                // From the beginning: what was told to another life counts for nothing.
                Err(DispatchError::WrongGeneration) if !learned => (learned, at) = (true, 0),
                Err(error) => return Err(error),
            }
        }
        Ok(signals)
    }

    async fn leave(&self, session: SessionId) -> Result<(), DispatchError> {
        self.sessions.leave(session);
        match self.partition.call("leave", [id(session)]).await {
            // A Redis that forgot everything holds nothing of it.
            Ok(_) | Err(DispatchError::WrongGeneration) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn step(&self, step: Step) -> Result<StepReply, DispatchError> {
        let wants = step.slots > 0;
        self.sessions.hear(step.session, wants.then(|| (&step.queues[..], Tracks::serving(&step.kinds))));
        let (known, reply) = self.step_once(&step).await?;
        // Its acks are done; they may be sent again.
        if !known && wants && self.is_ours(step.session) {
            return Err(DispatchError::WrongGeneration);
        }
        Ok(reply)
    }

    async fn start(&self, session: SessionId, leases: &[Lease]) -> Result<(), DispatchError> {
        self.partition.call("start", [id(session), codec::leases(leases)]).await?;
        Ok(())
    }

    async fn renew(&self, session: SessionId, leases: &[Lease]) -> Result<Vec<Lease>, DispatchError> {
        self.sessions.hear(session, None);
        let answer = self.partition.call("renew", [id(session), codec::leases(leases)]).await?;
        let mut answer = Answer::new(answer)?;
        if answer.number()? != 1 && self.is_ours(session) {
            return Err(DispatchError::WrongGeneration);
        }
        let mut pick = || -> Result<Vec<Lease>, DispatchError> {
            let numbers: Vec<usize> = redis::from_redis_value(answer.value()?).map_err(|_| strange())?;
            numbers.into_iter().map(|n| leases.get(n).copied().ok_or_else(strange)).collect()
        };
        let (gone, cancelled) = (pick()?, pick()?);
        for lease in cancelled {
            self.sessions.tell(session, Signal::Cancel(lease.id));
        }
        Ok(gone)
    }

    async fn withdraw(&self, job: JobId) -> Result<Place, DispatchError> {
        let place = self.partition.call("withdraw", [job.as_bytes().to_vec()]).await?;
        codec::places(&codec::bytes(place)?)?.pop().ok_or_else(strange)
    }

    async fn nudge(&self, job: JobId) -> Result<(), DispatchError> {
        self.partition.call("nudge", [job.as_bytes().to_vec()]).await?;
        Ok(())
    }

    async fn locate(&self, ids: &[JobId]) -> Result<Vec<Place>, DispatchError> {
        let mut places = Vec::with_capacity(ids.len());
        for ids in ids.chunks(PUSH_MAX_ENTRIES) {
            let found = self.partition.call("locate", [codec::ids(ids)]).await?;
            places.extend(codec::places(&codec::bytes(found)?)?);
        }
        if places.len() == ids.len() { Ok(places) } else { Err(strange()) }
    }

    async fn reap(&self, limit: usize) -> Result<Vec<Recovery>, DispatchError> {
        let lost = self.partition.call("reap", [text(limit), yes(self.link.sees_closed_connections())]).await?;
        codec::recoveries(&codec::bytes(lost)?)
    }

    async fn apply(&self, setting: Setting) -> Result<(), DispatchError> {
        self.partition.call("apply", setting_args(setting)).await?;
        Ok(())
    }

    async fn depths(&self) -> Result<Vec<QueueDepth>, DispatchError> {
        let answer = Answer::new(self.partition.call("depths", []).await?)?;
        let mut depths = answer.rest().map(depth).collect::<Result<Vec<_>, _>>()?;
        depths.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        Ok(depths)
    }

    async fn explain(&self, job: JobId) -> Result<Vec<Wait>, DispatchError> {
        let answer = Answer::new(self.partition.call("explain", [job.as_bytes().to_vec()]).await?)?;
        answer.rest().map(wait).collect()
    }

    async fn sessions(&self, asked: &[SessionId]) -> Result<Present, DispatchError> {
        let asked = if self.link.sees_closed_connections() { asked } else { &[] };
        let asked = asked.iter().take(ASKED_MAX_SESSIONS).flat_map(|asked| id(*asked)).collect();
        let mut answer = Answer::new(self.partition.call("sessions", [asked]).await?)?;
        let generation = Generation(answer.number()?);
        let gone = codec::sessions(&answer.bytes()?)?;
        let view = |value| {
            let mut view = Answer::new(value)?;
            let (id, leases) = (view.session()?, view.number()? as u64);
            Ok(SessionView { id, leases, seen_at: view.moment()?.ok_or_else(strange)? })
        };
        Ok(Present { generation, alive: answer.rest().map(view).collect::<Result<_, _>>()?, gone })
    }
}

fn setting_args(setting: Setting) -> Vec<Vec<u8>> {
    let moment = |until: Option<crate::time::Timestamp>| until.map_or_else(Vec::new, |until| text(until.0));
    match setting {
        Setting::Queue(name, settings) => {
            let value = settings.value;
            let key_limit = value.key_limit();
            vec![
                text("queue"),
                text(name),
                text(settings.version),
                yes(value.paused),
                moment(value.paused_until),
                // A reason may be absent, which is not the same as an empty one.
                value.reason.map_or_else(Vec::new, |reason| text(format!("={reason}"))),
                value.concurrency.map_or_else(Vec::new, text),
                text(key_limit),
            ]
        }
        Setting::TargetConcurrency(name, limit) => {
            vec![text("limit"), text(name), limit.map_or_else(Vec::new, text)]
        }
        Setting::ParkTarget { target, until, reason } => {
            vec![text("park"), text(target), text(until.0), text(reason)]
        }
        Setting::TryTarget { target, from, reason } => vec![text("try"), text(target), text(from.0), text(reason)],
        Setting::Target(name, settings) => {
            let (held, until, reason) = settings.value.held();
            vec![text("target"), text(name), text(settings.version), yes(held), moment(until), text(reason)]
        }
        Setting::ParkTenant { tenant, until, reason } => {
            vec![text("park_tenant"), text(tenant), text(until.0), text(reason)]
        }
        Setting::Tenant(tenant, settings) => {
            let value = settings.value;
            vec![
                text("tenant"),
                text(tenant),
                text(settings.version),
                // The same bounds as in memory: a turn of the heaviest lane stays above one thousandth of a round.
                text(value.weight.clamp(1, WEIGHT_MAX)),
                yes(value.paused),
                moment(value.paused_until),
                // A reason may be absent, which is not the same as an empty one.
                value.reason.map_or_else(Vec::new, |reason| text(format!("={reason}"))),
            ]
        }
    }
}

fn depth(value: Value) -> Result<QueueDepth, DispatchError> {
    let mut parts = Answer::new(value)?;
    let queue = Some(parts.name()?);
    let mut count = || parts.number().map(|count| u64::try_from(count).unwrap_or(0));
    let (waiting, active, scheduled, parked) = (count()?, count()?, count()?, count()?);
    Ok(QueueDepth { queue, waiting, active, scheduled, parked, oldest_ready_at: parts.moment()? })
}

fn wait(value: Value) -> Result<Wait, DispatchError> {
    let mut parts = Answer::new(value)?;
    let kind = parts.text()?;
    let moment = |parts: &mut Answer| parts.moment()?.ok_or_else(strange);
    let count = |parts: &mut Answer| parts.number().map(|number| u64::try_from(number).unwrap_or(0));
    Ok(match kind.as_str() {
        "delayed" => Wait::Delayed { until: moment(&mut parts)? },
        "paused" => {
            let until = parts.moment()?;
            Wait::QueuePaused { until, reason: parts.text()?.strip_prefix('=').map(str::to_owned) }
        }
        "queue_limit" => Wait::QueueConcurrency { limit: count(&mut parts)? as u32 },
        "parked" => {
            let (target, until) = (parts.text()?, moment(&mut parts)?);
            Wait::TargetParked { target, until, reason: parts.text()? }
        }
        "tenant_paused" => {
            let until = parts.moment()?;
            Wait::TenantPaused { until, reason: parts.text()?.strip_prefix('=').map(str::to_owned) }
        }
        "tenant_parked" => {
            let until = moment(&mut parts)?;
            Wait::TenantParked { until, reason: parts.text()? }
        }
        "target_paused" => {
            let (target, until) = (parts.text()?, parts.moment()?);
            Wait::TargetPaused { target, until, reason: parts.text()? }
        }
        "tried" => Wait::TargetTried { target: parts.text()?, reason: parts.text()? },
        "target_limit" => Wait::TargetConcurrency { target: parts.text()?, limit: count(&mut parts)? as u32 },
        "key" => {
            let (key, limit) = (parts.text()?, count(&mut parts)? as u32);
            Wait::ConcurrencyKey { key, limit, ahead: count(&mut parts)? }
        }
        "no_worker" => Wait::NoWorker,
        "other_isolated" => Wait::OtherIsolated,
        "turn" => Wait::Turn { ahead_in_lane: count(&mut parts)?, lanes: count(&mut parts)? },
        _ => return Err(strange()),
    })
}
