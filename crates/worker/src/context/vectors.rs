//! Vectors of texts that somebody is asking for at this moment: who asks for the very same ones waits for them, in a process
//! behind a leader, and over a fleet that shares a cache behind a lock, where it is worth that.

use std::time::{Duration, Instant};

use queue_core::cache::{Key, Lock, Space};

use super::{
    JobContext,
    shared::{FOLLOW_MAX, FleetLock, LOOK_EVERY},
};
use crate::{
    caches::Caches,
    flights::{Leader, Part},
};

/// How long a process may be the only one of the fleet to ask for some texts: duplicates cost next to nothing, and a lock
/// whose holder has died costs everybody else this.
const LEAD_MAX: Duration = Duration::from_secs(15);
/// Tokens from which on one text is worth a lock.
const LOCK_FROM_TOKENS: u64 = 2_000;

/// How the vectors of some texts are to be had.
pub(super) enum Way {
    /// Somebody else has asked for them.
    Found(Vec<Vec<f32>>),
    /// By asking.
    Ask(Leading),
}

/// The right to ask, and who waits for what comes of it. Dropped without an answer, whoever comes next asks.
#[derive(Default)]
pub(super) struct Leading {
    leader: Option<Leader<Vec<Vec<f32>>>>,
    lock: Option<FleetLock>,
}

impl Leading {
    /// Tells those who wait. `vectors` are of the texts of `keys`.
    pub(super) async fn land(self, caches: &Caches, keys: &[Key], vectors: Vec<Vec<f32>>) {
        if self.lock.is_some() {
            // Those behind the lock read them there, so they must be there before it goes.
            caches.keep_vectors(keys.iter().copied().zip(vectors.iter().map(Vec::as_slice))).await;
        }
        if let Some(leader) = self.leader {
            leader.land(vectors);
        }
    }
}

impl JobContext {
    /// The way to the vectors of texts that are not kept. Nobody waits for longer than [`FOLLOW_MAX`].
    pub(super) async fn way_to_vectors(&self, keys: &[Key], tokens: u64, dimensions: Option<u32>) -> Way {
        let caches = &self.around.caches;
        let parts: Vec<&[u8]> = keys.iter().map(|key| &key.hash[..]).collect();
        let question = Key::of(Space::Vector, &parts);
        let patience = Instant::now() + FOLLOW_MAX;
        let leader = loop {
            let follower = match caches.vector_flights().enter(question) {
                Part::Leader(leader) => break leader,
                Part::Follower(follower) => follower,
            };
            let left = patience.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, follower.answer()).await {
                Ok(Some(vectors)) => return Way::Found((*vectors).clone()),
                // Its leader has gone without an answer: one of those who waited leads.
                Ok(None) => {}
                Err(_) => return Way::Ask(Leading::default()),
            }
        };
        if keys.len() < 2 && tokens < LOCK_FROM_TOKENS {
            return Way::Ask(Leading { leader: Some(leader), lock: None });
        }
        loop {
            let lock = match caches.lock(&question, LEAD_MAX).await {
                Lock::Held(fence) => Some(FleetLock::new(caches, question, fence)),
                Lock::Taken if Instant::now() < patience => {
                    tokio::time::sleep(LOOK_EVERY.mul_f64(0.5 + rand::random::<f64>())).await;
                    let found: Option<Vec<_>> = caches.vectors(keys, dimensions).await.into_iter().collect();
                    match found {
                        Some(vectors) => {
                            leader.land(vectors.clone());
                            return Way::Found(vectors);
                        }
                        None => continue,
                    }
                }
                Lock::Taken | Lock::Away => None,
            };
            return Way::Ask(Leading { leader: Some(leader), lock });
        }
    }
}
