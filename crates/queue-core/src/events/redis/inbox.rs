//! What this process is told: over a connection of its own, made again with full jitter.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{ErrorKind, Msg, RedisResult, aio::PubSubSink};
use tokio::time::{Instant, timeout};

use super::{Hub, held, wire};
use crate::dispatcher::redis::link::pause_after;

/// Listens until the task is ended. `silence` is about the time without a message after which the connection is tried.
pub(super) async fn run(hub: Arc<Hub>, silence: Duration) {
    let mut failures = 0;
    loop {
        if let Err(error) = listen(&hub, silence, &mut failures).await {
            tracing::debug!(%error, "events of other processes cannot be heard");
        }
        hub.open.send_replace(false);
        tokio::time::sleep(pause_after(failures)).await;
        failures = failures.saturating_add(1);
    }
}

async fn listen(hub: &Hub, silence: Duration, failures: &mut u32) -> RedisResult<()> {
    let (mut sink, mut messages) = hub.link.messages().await?.split();
    sink.subscribe(hub.channels.to(hub.me)).await?;
    sink.subscribe(&hub.channels.ask).await?;
    let mut hears_ends = false;
    hear_ends(hub, &mut sink, &mut hears_ends).await?;
    *failures = 0;
    hub.open.send_replace(true);
    // What was said before is lost.
    hub.ask_for_all(Instant::now());
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => hear(hub, &message),
                None => return Ok(()),
            },
            () = hub.listen.notified() => hear_ends(hub, &mut sink, &mut hears_ends).await?,
            () = tokio::time::sleep(silence.mul_f64(0.5 + rand::random::<f64>())) => {
                // A connection that died without a word is found by its silence.
                let ping = timeout(hub.link.patience().respond, sink.ping::<redis::Value>()).await;
                ping.unwrap_or_else(|_| Err((ErrorKind::Io, "the channel does not answer").into()))?;
            }
        }
    }
}

/// Listens to ends while anybody here waits for them: there may be many.
async fn hear_ends(hub: &Hub, sink: &mut PubSubSink, hears: &mut bool) -> RedisResult<()> {
    let wanted = hub.own.ends_are_wanted();
    if wanted && !*hears {
        sink.subscribe(&hub.channels.ends).await?;
        held(&hub.asks).ends = true;
        hub.send.notify_one();
    } else if !wanted && *hears {
        sink.unsubscribe(&hub.channels.ends).await?;
    }
    *hears = wanted;
    Ok(())
}

fn hear(hub: &Hub, message: &Msg) {
    let (channel, bytes) = (message.get_channel_name(), message.get_payload_bytes());
    let now = Instant::now();
    if channel == hub.channels.ends {
        if let Some((source, jobs)) = wire::ends_of_bytes(bytes)
            && source != hub.me
        {
            jobs.for_each(|job| hub.own.tell_end(job));
        }
    } else if channel == hub.channels.ask {
        match serde_json::from_slice(bytes) {
            Ok(ask) => hub.hear_ask(ask, now),
            Err(error) => tracing::debug!(%error, "an ask for events cannot be read"),
        }
    } else {
        match serde_json::from_slice(bytes) {
            Ok(answer) => hear_answer(hub, answer, now),
            Err(error) => tracing::debug!(%error, "events of another process cannot be read"),
        }
    }
}

fn hear_answer(hub: &Hub, answer: wire::Answer, now: Instant) {
    if !answer.pieces.is_empty() {
        let mut reading = held(&hub.reading);
        let pieces = answer.pieces.into_iter();
        let missed: Vec<_> = pieces.filter_map(|piece| reading.mirrors.accept(answer.source, piece, now)).collect();
        if !missed.is_empty() {
            hub.ask(&mut reading, missed, now);
            hub.tell_own(&mut reading, now);
        }
    }
    for (job, progress) in answer.progress {
        for waiting in held(&hub.progress).remove(&job).into_iter().flatten() {
            // Who asked may have gone.
            let _ = waiting.send(progress.clone());
        }
    }
}
