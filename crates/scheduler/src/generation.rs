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

use queue_core::{dispatcher::DispatchError, ids::Generation, journal::Filling, stores::Stores};
use tokio_util::sync::CancellationToken;

use crate::{Config, RebuildError, absent::Absent, rebuild};

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

/// Watches the notes of whoever fills the present life, and who comes back to it. Time is measured here, not read from the
/// note: the clocks of two processes need not agree.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The last note, and since when it stands.
    seen: Option<(Filling, Instant)>,
    /// Who has yet to join this life, as long as nothing is filled in it.
    absent: Option<(Generation, Absent)>,
}

impl Watch {
    /// Takes a filling over that has stood still for too long, and says what is left of it.
    pub(crate) async fn relieve(
        &mut self,
        stores: &Stores,
        config: &Config,
        now: Instant,
    ) -> Result<Option<rebuild::Prepared>, RebuildError> {
        let filling = stores.catalog.filling().await?;
        let is_silent = self.is_silent(filling, now);
        // Who goes on in the middle waits for nobody.
        if filling.done || filling.after.is_some() {
            self.absent = None;
        } else {
            self.look(stores, filling.generation, now).await?;
        }
        if !is_silent {
            return Ok(None);
        }
        let absent = self.absent.as_ref().map(|(_, absent)| absent.clone()).unwrap_or_default();
        rebuild::relieve(stores, config, filling, absent, now).await
    }

    fn is_silent(&mut self, filling: Filling, now: Instant) -> bool {
        let since = match self.seen {
            Some((seen, since)) if seen == filling => since,
            _ => now,
        };
        self.seen = (!filling.done).then_some((filling, since));
        !filling.done && now.duration_since(since) >= SILENCE
    }

    /// Looks who has come back to this life, from the first look on.
    async fn look(&mut self, stores: &Stores, life: Generation, now: Instant) -> Result<(), RebuildError> {
        let (_, mut absent) = match self.absent.take() {
            Some(of_life) if of_life.0 == life => of_life,
            _ => (life, rebuild::absent(stores, Absent::default(), now).await?),
        };
        match stores.dispatcher.sessions(&absent.ids()).await {
            Ok(present) if present.generation == life => absent.look(Some(&present), now),
            // The journal has heard of a life that the dispatcher has not begun: nobody can have come back to it.
            Ok(_) => return Ok(()),
            Err(_) => absent.look(None, now),
        }
        self.absent = Some((life, absent));
        Ok(())
    }
}
