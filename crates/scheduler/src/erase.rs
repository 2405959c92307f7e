//! Erase: cancels the live jobs of tenants that are to be erased, and walks the tables that hold the rest.
//!
//! Nothing here is remembered: what is to be done stands in the erase log, how far the walk is beside it, and a step that is
//! done twice finds nothing the second time. Where another scheduler walks, this one looks on.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use queue_core::{
    dispatcher::Setting,
    erasure::{Erasure, REPLAY_AFTER_MS},
    ids::Name,
    journal::{JobFilter, JournalError, PAGE_MAX_ROWS, TenantSettings, Versioned},
    state::Standing,
    stores::Stores,
};
use tokio_util::sync::CancellationToken;

use crate::cancel::cancel;

/// Time between two looks at the log: a job that runs for a tenant ends about so long after the order.
const EVERY: Duration = Duration::from_secs(1);
/// Pause between two steps: the walk has a part of the journal's time and leaves the rest to jobs.
const PACE: Duration = Duration::from_millis(20);
/// A walk whose beat stands still for so long has nobody who walks.
const SILENCE: Duration = Duration::from_secs(3);
/// Jobs that are cancelled side by side.
const CANCELS_MAX: usize = 16;
/// The version of an erased tenant's settings in the dispatcher: nothing is set for it after this.
const LAST_VERSION: i64 = 1 << 52;
/// What those who ask for a cancelled job are told.
const REASON: &str = "its tenant is erased";

pub(crate) async fn run(stores: Stores, shutdown: CancellationToken) {
    let mut eraser = Eraser::new(stores, shutdown);
    loop {
        tokio::select! {
            () = eraser.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if let Err(error) = eraser.once().await {
            tracing::warn!(%error, "nothing was erased this time");
        }
    }
}

pub(crate) struct Eraser {
    stores: Stores,
    shutdown: CancellationToken,
    has_replayed: bool,
    /// It was logged why this process erases nothing.
    has_told_why: bool,
    /// A beat that somebody else has made, and since when it stands.
    stands: Option<(i64, Instant)>,
}

impl Eraser {
    pub(crate) fn new(stores: Stores, shutdown: CancellationToken) -> Self {
        Self { stores, shutdown, has_replayed: false, has_told_why: false, stands: None }
    }

    /// Looks once at the log, and does what it says.
    pub(crate) async fn once(&mut self) -> Result<(), JournalError> {
        let erasures = self.stores.erasures.clone();
        if !self.has_replayed {
            let now = self.stores.clock.now();
            let due = erasures.replay(now.plus_ms(-REPLAY_AFTER_MS), now).await?;
            if due > 0 {
                tracing::info!(tenants = due, "rows of erased tenants are looked for again");
            }
            self.has_replayed = true;
        }
        let log = erasures.erasures().await?;
        let now = self.stores.clock.now();
        let open: Vec<_> = log.iter().filter(|one| one.finished_at.is_none() || one.is_due(now)).collect();
        if !open.is_empty() && !self.reaches_archives().await? {
            return Ok(());
        }
        for erasure in open {
            self.forget_settings(&erasure.tenant).await;
            match self.cancel_jobs(&erasure.tenant).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Its live jobs keep it unfinished; the others need not wait for it.
                Err(error) => {
                    tracing::warn!(%error, pseudonym = erasure.pseudonym, "jobs of an erased tenant live still")
                }
            }
            if !self.erase_objects(&erasure.tenant).await {
                return Ok(());
            }
        }
        self.walk(&log).await
    }

    /// Whether this process can delete what archives keep. Where it cannot, it leaves the whole walk to one that can: the rows are what
    /// says that there is something to delete.
    async fn reaches_archives(&mut self) -> Result<bool, JournalError> {
        if self.stores.objects.is_some() || self.stores.archives.archives(None, 1).await?.is_empty() {
            return Ok(true);
        }
        if !std::mem::replace(&mut self.has_told_why, true) {
            tracing::warn!(
                "tenants are to be erased, and archived letters are out of reach: give this scheduler [objects] url"
            );
        }
        Ok(false)
    }

    /// Takes what operators had set for a tenant out of the dispatcher. Without it that is gone with the dispatcher's next life.
    async fn forget_settings(&self, tenant: &Name) {
        let nothing = Versioned { version: LAST_VERSION, value: TenantSettings::default() };
        if let Err(error) = self.stores.dispatcher.apply(Setting::Tenant(tenant.clone(), nothing)).await {
            tracing::debug!(%error, "the dispatcher keeps an erased tenant's settings for now");
        }
    }

    /// Deletes what archives keep of a tenant, while its jobs' rows are still there to say that it is not done; `false` where that
    /// has to be tried again.
    async fn erase_objects(&self, tenant: &Name) -> bool {
        let Some(objects) = &self.stores.objects else { return true };
        match objects.erase(tenant).await {
            Ok(0) => true,
            Ok(files) => {
                tracing::info!(files, "archived letters of an erased tenant are deleted");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "archived letters of an erased tenant cannot be deleted yet");
                false
            }
        }
    }

    /// Cancels what may still run; `false` where this process stops before all is done.
    async fn cancel_jobs(&self, tenant: &Name) -> Result<bool, JournalError> {
        let mut filter = JobFilter {
            tenant: Some(tenant.clone()),
            standing: Some(Standing::Live),
            limit: PAGE_MAX_ROWS,
            ..JobFilter::default()
        };
        loop {
            if self.shutdown.is_cancelled() {
                return Ok(false);
            }
            let listed = self.stores.reads.list(&filter).await?;
            let last = listed.jobs.last().map(|job| job.id);
            let page_is_full = listed.jobs.len() >= PAGE_MAX_ROWS;
            let cancels =
                listed.jobs.into_iter().map(|job| cancel(&self.stores, job.id, REASON, self.stores.clock.now()));
            let mut ended = stream::iter(cancels).buffer_unordered(CANCELS_MAX);
            while let Some(cancelled) = ended.next().await {
                cancelled?;
            }
            filter.before = match (listed.go_on_behind, page_is_full) {
                (Some(behind), _) => Some(behind),
                (None, true) => last,
                (None, false) => return Ok(true),
            };
        }
    }

    /// Walks for as long as there is somebody to walk for and nobody else does.
    async fn walk(&mut self, log: &[Erasure]) -> Result<(), JournalError> {
        let (mut sweep, now) = (self.stores.erasures.sweep().await?, self.stores.clock.now());
        if sweep.began_at.is_none() && !log.iter().any(|erasure| erasure.is_due(now)) {
            return Ok(());
        }
        if sweep.began_at.is_some() && self.is_walked_by_another(sweep.beat) {
            return Ok(());
        }
        loop {
            let Some(next) = self.stores.erasures.sweep_on(sweep.beat, self.stores.clock.now()).await? else {
                // Whose step it was shows with the next look.
                return Ok(());
            };
            sweep = next;
            self.stands = None;
            if sweep.began_at.is_none() {
                tracing::info!("a walk for erased tenants is over");
                return Ok(());
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(PACE) => {}
            }
        }
    }

    /// Whether a walk that stands at this beat has somebody who goes on with it.
    fn is_walked_by_another(&mut self, beat: i64) -> bool {
        match self.stands {
            Some((seen, since)) if seen == beat => since.elapsed() < SILENCE,
            _ => {
                self.stands = Some((beat, Instant::now()));
                true
            }
        }
    }
}
