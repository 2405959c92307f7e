//! Operations of one process on one target, sent together: what comes while one call is on its way is the next one. An
//! operation that comes alone goes at once, and a call of the library costs as much as several of its operations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::Value;
use tokio::sync::oneshot;

use super::{
    codec::{Operation, strange},
    unavailable,
};
use crate::{
    dispatcher::redis::link::Link,
    limiter::{Limit, Unavailable},
    route::Target,
    time::Clock,
};

/// Most operations of one call: bounds the time for which Redis does nothing else.
const BATCH_MAX: usize = 256;
/// Most operations that wait: each belongs to a call of a slot, or to a settle of one that has ended.
const WAITING_MAX: usize = 200_000;

/// The keys of a target.
pub(super) struct Place {
    keys: [String; 3],
    clock: Option<Arc<dyn Clock>>,
}

impl Place {
    pub(super) fn of(prefix: &str, target: &Target, clock: Option<Arc<dyn Clock>>) -> Self {
        let tag = format!("{prefix}:{{{}:{}}}", target.provider, target.credential);
        let model = &target.model;
        Self { keys: [format!("{tag}:b:{model}"), format!("{tag}:doubt"), format!("{tag}:t:{model}")], clock }
    }
}

type Reply = Result<Value, Unavailable>;

struct Waiting {
    limit: Limit,
    operation: Operation,
    caller: oneshot::Sender<Reply>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Somebody is sending, and will send what is waiting then.
    busy: bool,
}

/// The way to one target's book.
pub(super) struct Lane {
    link: Arc<Link>,
    place: Place,
    queue: Mutex<Queue>,
}

impl Lane {
    pub(super) fn new(link: Arc<Link>, place: Place) -> Self {
        Self { link, place, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Each critical section is a few moves: what a panic left is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn call(self: &Arc<Self>, limit: &Limit, operation: Operation) -> Reply {
        let (caller, reply) = oneshot::channel();
        let sends = {
            let mut queue = self.queue();
            if queue.waiting.len() >= WAITING_MAX {
                return Err(Unavailable("too many operations wait for the limiter".into()));
            }
            queue.waiting.push(Waiting { limit: limit.clone(), operation, caller });
            !std::mem::replace(&mut queue.busy, true)
        };
        if sends {
            // A task of its own: a caller that goes away must not take the others' operations with it.
            let lane = self.clone();
            tokio::spawn(async move { lane.send_all().await });
        }
        reply.await.unwrap_or_else(|_| Err(Unavailable("the task that asks the limiter has ended".into())))
    }

    async fn send_all(&self) {
        loop {
            let batch = {
                let mut queue = self.queue();
                // Operations under different limits are different calls; limits change once in a blue moon.
                let limit = queue.waiting.first().map(|first| first.limit.clone());
                let Some(limit) = limit else {
                    queue.busy = false;
                    return;
                };
                let same = queue.waiting.iter().take(BATCH_MAX).take_while(|waiting| waiting.limit == limit).count();
                queue.waiting.drain(..same).collect::<Vec<_>>()
            };
            self.send(batch).await;
        }
    }

    async fn send(&self, batch: Vec<Waiting>) {
        let Some(limit) = batch.first().map(|first| &first.limit) else { return };
        let now = self.place.clock.as_ref().map_or_else(String::new, |clock| clock.now().0.to_string());
        let [requests, tokens] = limit.rates();
        let head = [now, requests.to_string(), tokens.to_string(), limit.recovery_per_s().to_string()];
        let mut args: Vec<Vec<u8>> = head.map(String::into_bytes).into();
        let (callers, operations): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.caller, waiting.operation.0)).unzip();
        args.extend(operations);
        let keys = self.place.keys.each_ref().map(String::as_str);
        let replies = match self.link.call(&keys, &args).await {
            Ok(Value::Array(replies)) if replies.len() == callers.len() => Ok(replies),
            Ok(_) => Err(strange()),
            Err(error) => Err(unavailable(error)),
        };
        match replies {
            // A caller that went away has no use for its reply.
            Ok(replies) => callers.into_iter().zip(replies).for_each(|(caller, reply)| drop(caller.send(Ok(reply)))),
            Err(error) => callers.into_iter().for_each(|caller| drop(caller.send(Err(error.clone())))),
        }
    }
}
