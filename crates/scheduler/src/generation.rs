//! Generation: notices that the dispatcher has forgotten everything (a flush, a restart without its data), begins a new
//! life and has it filled again.
//!
//! Several schedulers may notice at once. Each asks the journal for a number of its own; the highest stands, and what
//! the others began ends at their next note. Who fills a life notes in the journal how far it is; when that note stands
//! still, another scheduler goes on behind it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::DispatchError,
    journal::{Filling, JournalError},
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, RebuildError, rebuild};

/// Time between two looks. A job that was accepted before a flush waits this much longer.
pub(crate) const EVERY: Duration = Duration::from_millis(500);
/// After as long without a note the filler of a life is taken for dead. It notes every second; two at once do no harm.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

pub(crate) async fn run(stores: Stores, config: Config, shutdown: CancellationToken) {
    let mut known = BTreeSet::new();
    let mut watch = Watch::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let looked = async {
            match look(&stores, &config, &mut known).await? {
                Some(prepared) => Ok(Some(prepared)),
                None => watch.relieve(&stores, &config, Instant::now()).await,
            }
        };
        match looked.await {
            Ok(Some(prepared)) => rebuild::run(stores.clone(), prepared, shutdown.clone()).await,
            Ok(None) => {}
            Err::<_, RebuildError>(error) => tracing::warn!(%error, "the dispatcher's life could not be looked at"),
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
        match stores.dispatcher.sessions(&[]).await {
            Ok(present) => {
                *known = present.alive.into_iter().map(|session| session.id).collect();
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

/// Watches the notes of whoever fills the present life. Time is measured here, not read from the note: the clocks of two
/// processes need not agree.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The last note, and since when it stands.
    seen: Option<(Filling, Instant)>,
}

impl Watch {
    /// Takes a filling over that has stood still for too long, and says what is left of it.
    pub(crate) async fn relieve(
        &mut self,
        stores: &Stores,
        config: &Config,
        now: Instant,
    ) -> Result<Option<rebuild::Prepared>, RebuildError> {
        match self.silent(stores, now).await? {
            Some(filling) => rebuild::relieve(stores, config, filling).await,
            None => Ok(None),
        }
    }

    async fn silent(&mut self, stores: &Stores, now: Instant) -> Result<Option<Filling>, JournalError> {
        let filling = stores.catalog.filling().await?;
        let since = match self.seen {
            Some((seen, since)) if seen == filling => since,
            _ => now,
        };
        self.seen = (!filling.done).then_some((filling, since));
        Ok((!filling.done && now.duration_since(since) >= SILENCE).then_some(filling))
    }
}
