//! Waiting for a journal that is away: with growing, jittered pauses, and never longer than the caller lives.

use std::{future::Future, time::Duration};

use queue_core::journal::JournalError;
use tokio_util::sync::CancellationToken;

/// First pause after the journal refused.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause: a returned journal is noticed within this.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Asks again until the journal answers; `None` when `stop` fired first.
pub(crate) async fn until_available<T, F>(what: &str, ask: impl Fn() -> F, stop: &CancellationToken) -> Option<T>
where
    F: Future<Output = Result<T, JournalError>>,
{
    let mut pause = PAUSE_FIRST;
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) => tracing::warn!(%error, what, pause_ms = pause.as_millis() as u64, "the journal refused"),
        }
        let jittered = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(jittered) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}
