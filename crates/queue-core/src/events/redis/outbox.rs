//! What this process says: one task that collects for a moment and sends in rounds, so that no event costs a message.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt;
use redis::{RedisResult, Value};
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::{
    Asks, Hub, held,
    interests::Told,
    wire::{ASK_MAX, Answer, Ask, ENDS_MAX, ends_to_bytes},
};
use crate::{dispatcher::redis::link::pause_after, ids::JobId};

/// Shortest time between two rounds: what people cannot see, and a few hundred messages a second at most.
const ROUND_EVERY: Duration = Duration::from_millis(2);
/// Time between two renewals of what is watched here.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Most pieces in one message: half a megabyte of text.
const PIECES_MAX: usize = 8;
/// Most answers about progress in one message.
const PROGRESS_MAX: usize = 512;
/// Messages on their way at once.
const SENDS_MAX: usize = 16;

/// Sends until the task is ended.
pub(super) async fn run(hub: Arc<Hub>) {
    let mut failures = 0;
    let mut renew_at = Instant::now() + RENEW_EVERY;
    loop {
        let _ = timeout(renew_at.saturating_duration_since(Instant::now()), hub.send.notified()).await;
        let began = Instant::now();
        if began >= renew_at {
            // The jitter keeps a fleet that lost its Redis from asking in step.
            renew_at = began + RENEW_EVERY.mul_f64(0.75 + rand::random::<f64>() / 4.0);
            hub.expire(began);
            hub.renew(began);
        }
        match round(&hub).await {
            Ok(()) => {
                failures = 0;
                hub.failing.store(false, Ordering::Relaxed);
                sleep_until(began + ROUND_EVERY).await;
            }
            Err(error) => {
                if !hub.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "events do not reach other processes; who waits there looks at the journal");
                }
                tokio::time::sleep(pause_after(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
        if held(&hub.interests).has_more() || !held(&hub.ends).is_empty() {
            hub.send.notify_one();
        }
    }
}

/// A message, and the pieces in it, whose fate it decides.
struct Message {
    channel: String,
    bytes: Vec<u8>,
    told: Vec<Told>,
}

/// Sends everything that there is to say now, or what fits.
async fn round(hub: &Hub) -> RedisResult<()> {
    // Taken before the events, sent behind them: the end of a job must not overtake its last words.
    let ends = ends(hub);
    let mut messages = asks(hub);
    messages.extend(answers(hub));
    messages.extend(ends);
    let sent = futures::stream::iter(messages).map(|message| async {
        let Message { channel, bytes, told } = message;
        hub.messages.fetch_add(1, Ordering::Relaxed);
        (told, publish(hub, &channel, &bytes).await)
    });
    let mut result = Ok(());
    let mut sent = sent.buffered(SENDS_MAX);
    while let Some((told, answer)) = sent.next().await {
        let mut interests = held(&hub.interests);
        told.iter().for_each(|told| interests.settle(told, answer.is_ok()));
        if let Err(error) = answer {
            result = Err(error);
        }
    }
    result
}

async fn publish(hub: &Hub, channel: &str, bytes: &[u8]) -> RedisResult<Value> {
    hub.link.send(redis::cmd("PUBLISH").arg(channel).arg(bytes)).await
}

fn asks(hub: &Hub) -> Vec<Message> {
    let Asks { watches, progress, ends } = std::mem::take(&mut *held(&hub.asks));
    let asker = hub.me;
    let watches = watches.chunks(ASK_MAX).map(|watches| Ask { asker, watches: watches.to_vec(), ..Ask::default() });
    let progress = progress.chunks(ASK_MAX).map(|jobs| Ask { asker, progress: jobs.to_vec(), ..Ask::default() });
    let ends = ends.then(|| Ask { asker, ends: true, ..Ask::default() });
    let asks = ends.into_iter().chain(watches).chain(progress);
    asks.filter_map(|ask| message(hub.channels.ask.clone(), &ask, vec![])).collect()
}

fn ends(hub: &Hub) -> Option<Message> {
    let mut ends = held(&hub.ends);
    let most = ends.len().min(ENDS_MAX);
    let jobs: Vec<JobId> = ends.drain(..most).collect();
    if jobs.is_empty() {
        return None;
    }
    hub.end_messages.fetch_add(1, Ordering::Relaxed);
    Some(Message { channel: hub.channels.ends.clone(), bytes: ends_to_bytes(hub.me, &jobs), told: vec![] })
}

fn answers(hub: &Hub) -> Vec<Message> {
    if hub.interested.load(Ordering::Acquire) == 0 && !held(&hub.interests).has_more() {
        return vec![];
    }
    let mut by_asker: HashMap<Uuid, (Vec<Told>, Vec<JobId>)> = HashMap::new();
    {
        let mut interests = held(&hub.interests);
        for told in interests.round(&hub.own) {
            by_asker.entry(told.asker).or_default().0.push(told);
        }
        for (asker, job) in interests.take_progress() {
            by_asker.entry(asker).or_default().1.push(job);
        }
    }
    let mut messages = Vec::new();
    for (asker, (mut told, jobs)) in by_asker {
        let channel = hub.channels.to(asker);
        while !told.is_empty() {
            let some: Vec<_> = told.drain(..told.len().min(PIECES_MAX)).collect();
            let pieces = some.iter().map(|told| told.piece.clone()).collect();
            let answer = Answer { source: hub.me, pieces, progress: vec![] };
            messages.extend(message(channel.clone(), &answer, some));
        }
        let known = |job| hub.own.look(job, |ring| (!ring.is_over()).then(|| ring.progress().cloned()));
        let known: Vec<_> = jobs.into_iter().filter_map(|job| Some((job, known(job)??))).collect();
        for progress in known.chunks(PROGRESS_MAX) {
            let answer = Answer { source: hub.me, pieces: vec![], progress: progress.to_vec() };
            messages.extend(message(channel.clone(), &answer, vec![]));
        }
    }
    hub.answers.fetch_add(messages.len(), Ordering::Relaxed);
    messages
}

fn message(channel: String, what: &impl Serialize, told: Vec<Told>) -> Option<Message> {
    match serde_json::to_vec(what) {
        Ok(bytes) => Some(Message { channel, bytes, told }),
        Err(error) => {
            tracing::error!(%error, "a message about events cannot be written");
            None
        }
    }
}
