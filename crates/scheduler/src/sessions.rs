//! Sessions: strikes workers off the journal's register that died without signing off. After a flush everybody waits
//! for the registered ones, so a register of the dead would cost time.

use std::{collections::BTreeSet, time::Duration};

use queue_core::{dispatcher::SESSION_MS, stores::Stores};
use tokio_util::sync::CancellationToken;

use crate::RebuildError;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(15);
/// A worker registers before it joins the dispatcher; one that is younger than this may be on its way.
const YOUNG_MS: i64 = 4 * SESSION_MS;

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = once(&stores).await {
            tracing::warn!(%error, "the register of workers was not looked through");
        }
    }
}

/// One look; returns how many were struck off.
pub(crate) async fn once(stores: &Stores) -> Result<usize, RebuildError> {
    // In a new life a worker that has not come back yet looks like one that is gone.
    if !stores.catalog.filling().await?.done {
        return Ok(0);
    }
    let alive: BTreeSet<_> =
        stores.dispatcher.sessions(&[]).await?.alive.into_iter().map(|session| session.id).collect();
    let young = stores.clock.now().plus_ms(-YOUNG_MS);
    let registered = stores.catalog.sessions().await?;
    let dead = registered.into_iter().filter(|worker| worker.started_at < young && !alive.contains(&worker.id));
    let mut struck = 0;
    for worker in dead {
        stores.catalog.close_session(worker.id).await?;
        struck += 1;
    }
    Ok(struck)
}
