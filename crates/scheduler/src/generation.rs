//! Generation: notices that the dispatcher has forgotten everything (a flush, a restart without its data), begins a new
//! life and has it filled again.
//!
//! Several schedulers may notice at once. Each asks the journal for a number of its own; the highest stands, and what
//! the others began ends at their next push. A crash in here leaves a life that nobody fills: the reconciler finds its
//! rows, slower.

use std::{collections::BTreeSet, time::Duration};

use queue_core::{dispatcher::DispatchError, stores::Stores};
use tokio_util::sync::CancellationToken;

use crate::{Config, RebuildError, rebuild};

/// Time between two looks. A job that was accepted before a flush waits this much longer.
pub(crate) const EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(stores: Stores, config: Config, shutdown: CancellationToken) {
    let mut known = BTreeSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match look(&stores, &config, &mut known).await {
            Ok(Some(prepared)) => rebuild::run(stores.clone(), prepared, shutdown.clone()).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the dispatcher's life could not be looked at"),
        }
    }
}

/// Remembers who works, or begins a new life and says what is to be filled.
pub(crate) async fn look(
    stores: &Stores,
    config: &Config,
    known: &mut BTreeSet<queue_core::ids::SessionId>,
) -> Result<Option<rebuild::Prepared>, RebuildError> {
    // Twice: a process that missed the beginning of a life is told so once.
    for _ in 0..2 {
        match stores.dispatcher.sessions().await {
            Ok(sessions) => {
                *known = sessions.into_iter().map(|session| session.id).collect();
                return Ok(None);
            }
            Err(DispatchError::WrongGeneration) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Whoever registered and did not sign off may run something; this process may be too young to have seen it.
    let mut awaited = std::mem::take(known);
    awaited.extend(rebuild::registered(stores).await?);
    tracing::warn!(workers = awaited.len(), "the dispatcher has forgotten everything; it is filled again");
    match rebuild::begin(stores, config, awaited).await {
        Ok(prepared) => Ok(Some(prepared)),
        Err(RebuildError::Dispatch(DispatchError::WrongGeneration)) => Ok(None),
        Err(error) => Err(error),
    }
}
