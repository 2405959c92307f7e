//! Keys of issuers that are fetched: a token whose key is not known yet gets whoever fetches them to look again, and waits for that,
//! so that nobody is refused because a provider has changed its keys a moment ago.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

/// Shortest time between two looks that tokens ask for: whoever invents names of keys must not make us ask a provider all day.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Longest wait of a token for such a look, which is some requests to its issuer.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Between those who meet a key that is not known, and whoever fetches keys.
#[derive(Debug)]
pub(super) struct Asking {
    state: Mutex<State>,
    wanted: Notify,
    /// Changes with the end of each look.
    looks: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Whose keys are fetched.
    issuers: Vec<String>,
    is_looking: bool,
    asked_at: Option<Instant>,
}

impl Default for Asking {
    fn default() -> Self {
        Self { state: Mutex::default(), wanted: Notify::new(), looks: watch::Sender::new(0) }
    }
}

impl Asking {
    /// Somebody fetches the keys of these issuers from now on, and looks for the first time.
    pub(super) fn begin(&self, issuers: Vec<String>) {
        *self.lock() = State { issuers, is_looking: true, asked_at: None };
    }

    /// Ends when a key is wanted that is not known.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The look is over.
    pub(super) fn looked(&self) {
        self.lock().is_looking = false;
        self.looks.send_modify(|looks| *looks += 1);
    }

    /// Whether somebody looks for keys of this issuer now, because of this call or already.
    pub(super) fn ask(&self, issuer: &str) -> bool {
        let mut state = self.lock();
        if !state.issuers.iter().any(|one| one == issuer) {
            return false;
        }
        if state.is_looking {
            return true;
        }
        if state.asked_at.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return false;
        }
        state.asked_at = Some(Instant::now());
        state.is_looking = true;
        self.wanted.notify_one();
        true
    }

    /// To be taken before the first question, so that no answer is missed.
    pub(super) fn looks(&self) -> watch::Receiver<u64> {
        self.looks.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What was being done when a holder of the lock panicked is whole: each change is a few plain fields.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tokens_ask_once_a_minute_and_only_for_issuers_whose_keys_are_fetched() {
        let asking = Asking::default();
        assert!(!asking.ask("https://id.example/"), "nobody fetches");
        asking.begin(vec!["https://id.example/".to_owned()]);
        assert!(asking.ask("https://id.example/"), "the first look goes on");
        assert!(!asking.ask("https://else.example/"));
        asking.looked();
        let mut looks = asking.looks();
        assert!(asking.ask("https://id.example/"));
        asking.wanted().await;
        assert!(asking.ask("https://id.example/"), "it is looked for already");
        asking.looked();
        looks.changed().await.unwrap();
        assert!(!asking.ask("https://id.example/"), "within the same minute");
    }
}
