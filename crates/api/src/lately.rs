//! Something that was asked lately: how often many want to know it, it is asked once in a while.

use std::{future::Future, time::Duration};

use tokio::{sync::Mutex, time::Instant};

/// The last answer. One request asks; the others wait for what it is told.
pub(crate) struct Lately<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Lately<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Lately<T> {
    /// The last answer, if it is younger than `ttl`; else what `ask` answers now.
    pub(crate) async fn get<F: Future<Output = T>>(&self, ttl: Duration, ask: impl FnOnce() -> F) -> T {
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < ttl
        {
            return answer.clone();
        }
        let answer = ask().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Something was changed here: the next request asks anew.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}
