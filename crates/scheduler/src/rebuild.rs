//! Rebuild: fills an empty dispatcher from the journal. In the embedded mode every start is one; it is the very path
//! that saves production after a flush.
//!
//! First what must be true before the first claim (the generation, settings, the jobs that died with the last
//! process), then the live rows, in the order of their due time, while claims already go on. How far that is, is noted
//! in the journal, so that another scheduler goes on when this one dies: see [`crate::generation`].
//!
//! After a flush the journal cannot tell which live rows run: there is no write at a claim. So the rows wait until every
//! worker that was there has come back with what it holds, or is taken for dead: see [`crate::absent`]. Jobs that are
//! accepted meanwhile do not: whoever accepts them pushes them.
//!
//! Nobody knows that a worker is dead, and what. So where one did not come back, rows that nobody holds get a new epoch:
//! if it lives after all, what it still does is fenced, as behind the reaper.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use queue_core::{
    dispatcher::{DispatchError, Entry, HORIZON_MS, PUSH_MAX_ENTRIES, Setting},
    ids::{Generation, SessionId},
    journal::{Filling, JournalError, LiveScan},
    stores::Stores,
    telemetry,
    time::Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, absent::Absent, reap, reconcile};

/// Why a dispatcher could not begin its life.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The journal did not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The dispatcher did not answer.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
}

/// Time between two looks at who has come back.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time between two notes of how far it is: a third of the silence after which another scheduler goes on.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// A dispatcher that may be claimed from, and may still have to be filled.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Rows due by then are pushed by the rebuild; later ones are promoted as they come near.
    due_by: Timestamp,
    /// `None`: another scheduler fills it.
    fill: Option<Fill>,
}

/// What is to be filled.
#[derive(Clone, Debug)]
struct Fill {
    /// Rows accepted by then are pushed by the rebuild; later ones were pushed when they were accepted.
    accepted_by: Timestamp,
    /// Workers that may still run something.
    absent: Absent,
    /// How far it is.
    filling: Filling,
}

impl Prepared {
    /// The due time up to which the rebuild fills the dispatcher.
    pub fn filled_to(&self) -> Timestamp {
        self.due_by
    }

    fn to_fill(stores: &Stores, accepted_by: Timestamp, absent: Absent, filling: Filling) -> Self {
        let due_by = stores.clock.now().plus_ms(HORIZON_MS);
        Self { due_by, fill: Some(Fill { accepted_by, absent, filling }) }
    }
}

/// Joins the life that a shared dispatcher has, or begins one.
pub async fn prepare(stores: &Stores, config: &Config) -> Result<Prepared, RebuildError> {
    match stores.dispatcher.sessions(&[]).await {
        // The journal was restored from a backup, which raises its number: what this dispatcher knows is of another journal.
        Ok(present) if present.generation < stores.catalog.filling().await?.generation => {
            let awaited = registered(stores).await?;
            tracing::warn!("the journal was restored since the dispatcher's life began; it is filled again");
            match begin(stores, config, awaited).await {
                // Another scheduler has begun a later life meanwhile.
                Err(RebuildError::Dispatch(DispatchError::WrongGeneration)) => {
                    apply_settings(stores, config).await?;
                    Ok(Prepared { due_by: stores.clock.now(), fill: None })
                }
                prepared => prepared,
            }
        }
        Ok(_) => {
            apply_settings(stores, config).await?;
            Ok(Prepared { due_by: stores.clock.now(), fill: None })
        }
        Err(DispatchError::WrongGeneration) => {
            let awaited = if config.alone { BTreeSet::new() } else { registered(stores).await? };
            begin(stores, config, awaited).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Workers that registered and did not sign off: each may run something.
pub(crate) async fn registered(stores: &Stores) -> Result<BTreeSet<SessionId>, RebuildError> {
    Ok(stores.catalog.sessions().await?.into_iter().map(|session| session.id).collect())
}

/// Begins a new generation and loads what decides about claims. A crash here leaves a life that is not filled: the next
/// scheduler goes on. `awaited` are workers that may still run something.
pub(crate) async fn begin(
    stores: &Stores,
    config: &Config,
    awaited: BTreeSet<SessionId>,
) -> Result<Prepared, RebuildError> {
    let generation = stores.journal.new_generation().await?;
    stores.dispatcher.begin(generation).await?;
    make_ready(stores, config).await?;
    let now = stores.clock.now();
    let filling = Filling { generation, began_at: now, beat: 0, after: None, done: false };
    let mut absent = Absent::default();
    absent.wait_for(awaited, Instant::now());
    Ok(Prepared::to_fill(stores, now, absent, filling))
}

/// Who is known to be absent, and whoever registered since.
pub(crate) async fn absent(stores: &Stores, known: Absent, now: Instant) -> Result<Absent, RebuildError> {
    let mut absent = known;
    absent.wait_for(registered(stores).await?, now);
    Ok(absent)
}

/// Goes on with a life whose filler is silent; `None` if another scheduler does. `known` is who is known to be absent.
pub(crate) async fn relieve(
    stores: &Stores,
    config: &Config,
    filling: Filling,
    known: Absent,
    now: Instant,
) -> Result<Option<Prepared>, RebuildError> {
    if !stores.catalog.note_filling(filling).await? {
        return Ok(None);
    }
    let Filling { generation: Generation(life), after, .. } = filling;
    tracing::warn!(life, begun = after.is_some(), "whoever filled the dispatcher is silent; this scheduler goes on");
    // It may have died before it had told the dispatcher anything.
    make_ready(stores, config).await?;
    let absent = if after.is_none() { absent(stores, known, now).await? } else { Absent::default() };
    // Rows of this life were pushed by whoever accepted them, or are the reconciler's, which moves their epoch: pushed a
    // second time as they are, one could be held by two workers.
    let filling = Filling { beat: filling.beat + 1, ..filling };
    Ok(Some(Prepared::to_fill(stores, filling.began_at, absent, filling)))
}

async fn make_ready(stores: &Stores, config: &Config) -> Result<(), RebuildError> {
    apply_settings(stores, config).await?;
    // The dead first: a job that died with the last process must not be pushed as if nothing had happened.
    while reap::once(stores).await? > 0 {}
    Ok(())
}

async fn apply_settings(stores: &Stores, config: &Config) -> Result<(), RebuildError> {
    for (queue, settings) in stores.catalog.queues().await? {
        stores.dispatcher.apply(Setting::Queue(queue, settings)).await?;
    }
    for (tenant, settings) in stores.catalog.tenants().await? {
        stores.dispatcher.apply(Setting::Tenant(tenant, settings)).await?;
    }
    for (target, limit) in &config.target_concurrency {
        stores.dispatcher.apply(Setting::TargetConcurrency(target.clone(), Some(*limit))).await?;
    }
    // After what is configured: what operators have set stands over it.
    for (name, settings) in stores.catalog.targets().await? {
        reconcile::tell_target(stores, name, settings).await?;
    }
    Ok(())
}

/// Pushes every live row that is due within the horizon, as far as this scheduler is the one who does.
pub(crate) async fn run(stores: Stores, prepared: Prepared, shutdown: CancellationToken) {
    let Some(mut filler) = Filler::new(stores, prepared) else { return };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = filler.run() => {}
    }
}

/// What a step of a filler came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// A page is in; there may be more.
    Page,
    /// All is in, and noted.
    All,
    /// Another scheduler fills this life, or another life has begun.
    Relieved,
}

/// Fills one life. Dropping it anywhere does no harm.
pub(crate) struct Filler {
    stores: Stores,
    due_by: Timestamp,
    fill: Fill,
    /// It goes on in the middle of a life, and does not know who came back before.
    in_the_middle: bool,
    /// The page behind the last one, read while that was pushed.
    ahead: Option<Vec<Entry>>,
    noted: Instant,
    pushed: usize,
}

impl Filler {
    /// `None` where another scheduler fills.
    pub(crate) fn new(stores: Stores, prepared: Prepared) -> Option<Self> {
        let Prepared { due_by, fill } = prepared;
        let fill = fill?;
        let in_the_middle = fill.filling.after.is_some();
        Some(Self { stores, due_by, fill, in_the_middle, ahead: None, noted: Instant::now(), pushed: 0 })
    }

    /// Whether some worker may still run what nobody holds.
    fn is_unsure(&self) -> bool {
        self.in_the_middle || self.fill.absent.dead() > 0
    }

    #[cfg(test)]
    pub(crate) fn awaited(&self) -> Vec<SessionId> {
        self.fill.absent.ids()
    }

    pub(crate) async fn run(&mut self) {
        let began = Instant::now();
        if self.wait_for_workers().await == Filled::Relieved {
            return;
        }
        loop {
            match self.step().await {
                Ok(Filled::Page) => {}
                Ok(Filled::All) => break,
                Ok(Filled::Relieved) => return,
                // Flushed again: whoever begins the next generation fills it.
                Err(RebuildError::Dispatch(DispatchError::WrongGeneration)) => return,
                Err(error) => {
                    tracing::warn!(%error, "the rebuild paused");
                    tokio::time::sleep(reap::EVERY).await;
                }
            }
        }
        let (jobs, seconds) = (self.pushed, began.elapsed().as_secs_f64());
        metrics::histogram!(telemetry::REBUILD).record(seconds);
        if jobs > 0 {
            tracing::info!(jobs, seconds, "live jobs are back in the dispatcher");
        }
    }

    /// Waits until every awaited worker has joined this life, or is taken for dead by everybody.
    async fn wait_for_workers(&mut self) -> Filled {
        while !self.fill.absent.nobody() {
            if self.look(Instant::now()).await == Filled::Relieved || !self.note_now_and_then().await {
                return Filled::Relieved;
            }
            if !self.fill.absent.nobody() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        let dead = self.fill.absent.dead();
        if dead > 0 {
            tracing::warn!(workers = dead, "workers did not come back; what nobody holds gets a new epoch");
        }
        Filled::Page
    }

    /// Looks who has come back.
    pub(crate) async fn look(&mut self, now: Instant) -> Filled {
        match self.stores.dispatcher.sessions(&self.fill.absent.ids()).await {
            Ok(present) => self.fill.absent.look(Some(&present), now),
            Err(DispatchError::WrongGeneration) => return Filled::Relieved,
            Err(error) => {
                tracing::warn!(%error, "the rebuild does not know which workers live");
                self.fill.absent.look(None, now);
            }
        }
        Filled::Page
    }

    /// Pushes a page, and reads the next one meanwhile.
    pub(crate) async fn step(&mut self) -> Result<Filled, RebuildError> {
        let page = match self.ahead.take() {
            Some(page) => page,
            None => self.stores.journal.live(self.behind(self.fill.filling.after)).await?,
        };
        let Some(last) = page.last().map(|entry| (entry.run_at, entry.id)) else {
            self.fill.filling.done = true;
            return Ok(if self.note().await? { Filled::All } else { Filled::Relieved });
        };
        // Another task of this process may have taken the news of the next life.
        if self.stores.catalog.filling().await?.generation != self.fill.filling.generation {
            return Ok(Filled::Relieved);
        }
        let count = page.len();
        let next = self.stores.journal.live(self.behind(Some(last)));
        let (pushed, next) = tokio::join!(self.push(page), next);
        pushed?;
        self.pushed += count;
        self.fill.filling.after = Some(last);
        // A read that failed is asked again by the next step.
        self.ahead = next.ok();
        Ok(if self.note_now_and_then().await { Filled::Page } else { Filled::Relieved })
    }

    async fn push(&self, page: Vec<Entry>) -> Result<(), RebuildError> {
        if self.is_unsure() {
            reconcile::push_unknown(&self.stores, self.fill.filling.generation, &page).await?;
        } else {
            self.stores.dispatcher.push(page).await?;
        }
        Ok(())
    }

    fn behind(&self, after: Option<(Timestamp, queue_core::ids::JobId)>) -> LiveScan {
        let accepted_by = self.fill.accepted_by;
        LiveScan { after, due_by: self.due_by, accepted_by, limit: PUSH_MAX_ENTRIES }
    }

    /// Notes how far it is, if that is due; false where another scheduler goes on. A note that fails is no reason to
    /// stop: at worst another one goes on, too, until either notices.
    async fn note_now_and_then(&mut self) -> bool {
        if self.noted.elapsed() < NOTE_EVERY {
            return true;
        }
        self.note().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the rebuild could not note how far it is");
            true
        })
    }

    /// Notes how far it is; false where another scheduler goes on.
    pub(crate) async fn note(&mut self) -> Result<bool, RebuildError> {
        self.noted = Instant::now();
        let still_ours = self.stores.catalog.note_filling(self.fill.filling).await?;
        self.fill.filling.beat += 1;
        Ok(still_ours)
    }
}
