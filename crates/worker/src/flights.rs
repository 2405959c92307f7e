//! Questions that are being asked in this process: who asks the same meanwhile waits for the answer.
//!
//! The first is the *leader*. If it is cancelled or fails, its followers look again, and one of them leads: a leader holds
//! nothing but its own future.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use queue_core::cache::Key;
use tokio::sync::watch;

type Landing<A> = Option<Arc<A>>;

/// The questions under way, whose answers are `A`.
pub(crate) struct Flights<A>(Arc<Mutex<HashMap<Key, watch::Receiver<Landing<A>>>>>);

impl<A> Clone for Flights<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A> Default for Flights<A> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Somebody's part in a question.
pub(crate) enum Part<A> {
    /// It asks.
    Leader(Leader<A>),
    /// It waits.
    Follower(Follower<A>),
}

impl<A> Flights<A> {
    /// Leads, if nobody asks `key` at this moment.
    pub(crate) fn enter(&self, key: Key) -> Part<A> {
        let mut flights = self.flights();
        if let Some(landing) = flights.get(&key) {
            return Part::Follower(Follower(landing.clone()));
        }
        let (lands, landing) = watch::channel(None);
        flights.insert(key, landing);
        Part::Leader(Leader { flights: self.clone(), key, lands })
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Landing<A>>>> {
        // One insert or remove at a time: what a panic left is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks. When it is dropped, whoever comes next leads.
pub(crate) struct Leader<A> {
    flights: Flights<A>,
    key: Key,
    lands: watch::Sender<Landing<A>>,
}

impl<A> Leader<A> {
    /// Tells the followers.
    pub(crate) fn land(self, answer: A) {
        self.lands.send_replace(Some(Arc::new(answer)));
    }
}

impl<A> Drop for Leader<A> {
    fn drop(&mut self) {
        // Before the sender goes, so that a follower who sees it go can lead.
        self.flights.flights().remove(&self.key);
    }
}

/// Waits for the answer.
pub(crate) struct Follower<A>(watch::Receiver<Landing<A>>);

impl<A> Follower<A> {
    /// The leader's answer; `None` if it has gone without one.
    pub(crate) async fn answer(mut self) -> Landing<A> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|landing| landing.clone())
    }
}

#[cfg(test)]
mod tests {
    use queue_core::cache::Space;

    use super::*;

    fn leader(part: Part<String>) -> Leader<String> {
        match part {
            Part::Leader(leader) => leader,
            Part::Follower(_) => panic!("somebody else leads"),
        }
    }

    fn follower(part: Part<String>) -> Follower<String> {
        match part {
            Part::Leader(_) => panic!("nobody leads"),
            Part::Follower(follower) => follower,
        }
    }

    #[tokio::test]
    async fn followers_get_the_answer_or_learn_that_there_is_none() {
        let (flights, key) = (Flights::default(), Key::of(Space::Answer, &[b"q"]));
        let first = leader(flights.enter(key));
        leader(flights.enter(Key::of(Space::Answer, &[b"another"])));
        let waits = [follower(flights.enter(key)), follower(flights.enter(key))];
        drop(first);
        let next = leader(flights.enter(key));
        for waits in waits {
            assert!(waits.answer().await.is_none(), "its leader has gone");
        }
        let waits = follower(flights.enter(key));
        next.land("Seven.".to_owned());
        assert_eq!(*waits.answer().await.unwrap(), "Seven.");
        leader(flights.enter(key));
    }
}
