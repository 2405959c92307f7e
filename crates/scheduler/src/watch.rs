//! Watch: looks for what nobody else would notice in time, and says so once when it begins and once when it has passed.
//!
//! An alert is a metric, a line in the log, and a webhook event. Whoever notes its change in the journal first writes the deliveries with the
//! note, so of several schedulers one tells it; one that dies before the note leaves it to the others. Not all of them see the same (a
//! clock, a file): each that sees something wrong notes it again and again, and it has passed when nobody has for ten minutes. Budgets
//! have alerts of their own (`budgets.rs`), circuits too (`webhooks.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use queue_core::{
    dispatcher::Place,
    ids::{JobId, Name, SessionId},
    journal::{JournalError, LiveScan},
    stores::Stores,
    telemetry,
    time::Timestamp,
    upkeep::Window,
    webhooks::{ALERT_PREFIX, CircuitTold, Told, alert_body},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// How often one that lasts is noted.
const NOTED_MS: i64 = 2 * 60 * 1_000;
/// An alert has passed when nobody has noted it for so long.
const PASSED_MS: i64 = 10 * 60 * 1_000;
/// Time between two looks at backlogs: a question for each tenant that has a limit.
const QUOTAS_MS: i64 = NOTED_MS;
/// A job that was due for so long and is nowhere was missed by push, reconciler and rebuild: they take seconds, and a full sweep 5 minutes.
const STUCK_MS: i64 = 15 * 60 * 1_000;
/// A job that is held for so long outlives every limit of an attempt (24 h) and its lease.
const HELD_MS: i64 = 25 * 60 * 60 * 1_000;
/// Jobs of one look, those that are due longest: where these move, the others will.
const LOOKED_MAX: usize = 2_000;
/// The part of a backlog at which its tenant is told of, and below which that has passed, in percent.
const QUOTA_PERCENT: u64 = 80;
const QUOTA_PASSED_PERCENT: u64 = 70;
/// How early the end of a certificate is told.
const CERTIFICATE_MS: i64 = 14 * 24 * 60 * 60 * 1_000;
/// Clocks that are further apart than this are told of: leases last 30 s, and a moment of a worker's clock decides when a target wakes.
const SKEW_MS: i64 = 2_000;

/// What the role is told.
#[derive(Clone, Default)]
pub struct Watched {
    /// The window, if an operator has named one: it is announced.
    pub window: Option<Window>,
    /// When the certificate that the API shows ends, as far as this process can read it.
    pub certificate: Option<Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>>,
    /// Clocks of servers beside the journal's.
    pub clocks: Vec<Arc<dyn ServerClock>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clocks: Vec<&str> = self.clocks.iter().map(|clock| clock.name()).collect();
        f.debug_struct("Watched").field("window", &self.window).field("clocks", &clocks).finish_non_exhaustive()
    }
}

/// A server that has a clock.
#[async_trait]
pub trait ServerClock: Send + Sync {
    /// Its name, e.g. `redis`.
    fn name(&self) -> &str;

    /// What it shows; the error says why it does not.
    async fn now(&self) -> Result<Timestamp, String>;
}

pub(crate) async fn run(stores: Stores, watched: Watched, shutdown: CancellationToken) {
    let mut watch = Watch::new(stores, watched);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            looked = watch.round() => if let Err(error) = looked {
                tracing::warn!(%error, "alerts were not looked after");
            }
        }
    }
}

/// What a look has found.
#[derive(Default)]
struct Found {
    /// What is wrong, by the alert's name: whose it is, and why.
    wrong: BTreeMap<String, (Option<Name>, String)>,
    /// Kinds of alerts, or alerts, of which this process can say nothing: they stay as they are.
    unknown: BTreeSet<String>,
}

impl Found {
    fn wrong(&mut self, name: impl Into<String>, tenant: Option<Name>, reason: impl Into<String>) {
        self.wrong.insert(name.into(), (tenant, reason.into()));
    }

    fn is_unknown(&self, name: &str) -> bool {
        self.unknown.contains(name) || self.unknown.contains(kind_of(name))
    }
}

/// The kind of an alert.
fn kind_of(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

pub(crate) struct Watch {
    stores: Stores,
    watched: Watched,
    /// Jobs that were nowhere at the last look: one look may meet a job that is on its way. `None` before the first.
    suspects: Option<BTreeSet<JobId>>,
    quotas_at: Option<Timestamp>,
}

impl Watch {
    pub(crate) fn new(stores: Stores, watched: Watched) -> Self {
        Self { stores, watched, suspects: None, quotas_at: None }
    }

    /// One look at everything; how many changes this process has told.
    pub(crate) async fn round(&mut self) -> Result<usize, JournalError> {
        let now = self.stores.clock.now();
        let told = self.stores.webhooks.open_circuits().await?;
        let named =
            told.iter().filter_map(|(name, at)| Some((name.as_str().strip_prefix(ALERT_PREFIX)?.to_owned(), *at)));
        let told: BTreeMap<String, Timestamp> = named.collect();
        let mut found = Found::default();
        self.stuck(&mut found).await?;
        self.quotas(&mut found, &told).await?;
        self.windows(&mut found);
        self.certificate(&mut found);
        self.clocks(&mut found).await;
        let mut changes = 0;
        for (name, (tenant, reason)) in &found.wrong {
            if told.get(name).is_none_or(|noted| now.since_ms(*noted) >= NOTED_MS) {
                changes += usize::from(self.tell(name, true, tenant.clone(), reason).await?);
            }
        }
        for (name, noted) in &told {
            let has_passed = !found.wrong.contains_key(name) && !found.is_unknown(name);
            if has_passed && now.since_ms(*noted) >= PASSED_MS {
                let tenant = name.strip_prefix("quota:").map(Name::from);
                changes += usize::from(self.tell(name, false, tenant, "it has passed").await?);
            }
        }
        for kind in ["stuck-jobs", "quota", "maintenance", "certificate", "clock"] {
            let open = told.keys().chain(found.wrong.keys()).filter(|name| kind_of(name) == kind);
            metrics::gauge!(telemetry::ALERTS, "alert" => kind).set(open.collect::<BTreeSet<_>>().len() as f64);
        }
        Ok(changes)
    }

    async fn tell(&self, name: &str, open: bool, tenant: Option<Name>, reason: &str) -> Result<bool, JournalError> {
        let at = self.stores.clock.now();
        let body = alert_body(open, name, json!(reason), at);
        let circuit = Name::new(format!("{ALERT_PREFIX}{name}"));
        let last_open_at = at.plus_ms(-PASSED_MS);
        let told = CircuitTold { circuit, open, tenant, body, at, last_open_at, what: Told::Alert };
        let is_first = self.stores.webhooks.tell_circuit(told).await?;
        if is_first && open {
            tracing::warn!(alert = name, reason, "an alert");
        } else if is_first {
            tracing::info!(alert = name, "an alert has passed");
        }
        Ok(is_first)
    }

    /// Jobs that should run and do not, by the journal and the dispatcher alone: neither reaper nor reconciler is believed.
    async fn stuck(&mut self, found: &mut Found) -> Result<(), JournalError> {
        let stores = &self.stores;
        let (now, filling) = (stores.clock.now(), stores.catalog.filling().await?);
        let long_ago = now.plus_ms(-STUCK_MS);
        let scan = LiveScan { after: None, due_by: long_ago, accepted_by: long_ago, limit: LOOKED_MAX };
        let rows = stores.journal.live(scan).await?;
        let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
        found.unknown.insert("stuck-jobs".to_owned());
        // A life that is being filled knows few jobs yet, and a dispatcher may be away.
        if !filling.done {
            return Ok(());
        }
        let (Ok(places), Ok(present)) = (stores.dispatcher.locate(&ids).await, stores.dispatcher.sessions(&[]).await)
        else {
            return Ok(());
        };
        let alive: BTreeSet<SessionId> = present.alive.iter().map(|session| session.id).collect();
        let is_stuck = |place: &Place| match place {
            Place::Unknown => true,
            Place::Leased { session, started_at, .. } => {
                !alive.contains(session) || started_at.is_some_and(|at| now.since_ms(at) > HELD_MS)
            }
            _ => false,
        };
        let nowhere = ids.iter().zip(&places).filter(|(_, place)| is_stuck(place)).map(|(id, _)| *id).collect();
        let Some(before) = self.suspects.replace(nowhere) else { return Ok(()) };
        found.unknown.remove("stuck-jobs");
        let stuck: Vec<JobId> = self.suspects.iter().flatten().filter(|id| before.contains(id)).copied().collect();
        if let Some(first) = stuck.first() {
            let count = stuck.len();
            let reason = format!(
                "{count} jobs were due {} minutes ago and nobody has them, one is {first}: `longshore job why`, `longshore queue clear-stuck`",
                STUCK_MS / 60_000
            );
            found.wrong("stuck-jobs", None, reason);
        }
        Ok(())
    }

    /// Tenants whose backlog is nearly full.
    async fn quotas(&mut self, found: &mut Found, told: &BTreeMap<String, Timestamp>) -> Result<(), JournalError> {
        let now = self.stores.clock.now();
        if self.quotas_at.is_some_and(|at| now.since_ms(at) < QUOTAS_MS) {
            found.unknown.insert("quota".to_owned());
            return Ok(());
        }
        self.quotas_at = Some(now);
        for (tenant, settings) in self.stores.catalog.tenants().await? {
            let Some(max) = settings.value.backlog_max.filter(|max| *max > 0) else { continue };
            let (name, live) = (format!("quota:{tenant}"), self.stores.catalog.backlog(&tenant).await?.live);
            let percent = if told.contains_key(&name) { QUOTA_PASSED_PERCENT } else { QUOTA_PERCENT };
            if live * 100 >= max * percent {
                found.wrong(name, Some(tenant), format!("{live} live jobs of the {max} that it may have"));
            }
        }
        Ok(())
    }

    /// The window that is open, and those of the day ahead: each is told by itself.
    fn windows(&self, found: &mut Found) {
        let Some(window) = &self.watched.window else {
            found.unknown.insert("maintenance".to_owned());
            return;
        };
        for (begin, end) in window.announced(self.stores.clock.now()) {
            found.wrong(format!("maintenance:{begin}"), None, format!("the window {window}: from {begin} to {end}"));
        }
    }

    fn certificate(&self, found: &mut Found) {
        let Some(ends) = self.watched.certificate.as_ref().and_then(|read| read()) else {
            found.unknown.insert("certificate".to_owned());
            return;
        };
        if ends.since_ms(self.stores.clock.now()) < CERTIFICATE_MS {
            found.wrong("certificate", None, format!("the certificate of the API ends at {ends}"));
        }
    }

    /// Half of the time that a question takes is given to either side.
    async fn clocks(&self, found: &mut Found) {
        let mut shown = Vec::new();
        let began = self.stores.clock.now();
        match self.stores.upkeep.server_now().await {
            Ok(Some(now)) => shown.push(("postgres".to_owned(), began, now)),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a clock was not read");
                found.unknown.insert("clock:postgres".to_owned());
            }
        }
        for clock in &self.watched.clocks {
            let began = self.stores.clock.now();
            match clock.now().await {
                Ok(now) => shown.push((clock.name().to_owned(), began, now)),
                Err(error) => {
                    tracing::debug!(error, clock = clock.name(), "a clock was not read");
                    found.unknown.insert(format!("clock:{}", clock.name()));
                }
            }
        }
        for (name, began, theirs) in shown {
            let ended = self.stores.clock.now();
            let ahead = (theirs.0 - ended.0).max(0) - (began.0 - theirs.0).max(0);
            metrics::gauge!(telemetry::CLOCK_SKEW, "server" => name.clone()).set(ahead as f64 / 1_000.0);
            if ahead.abs() > SKEW_MS {
                let reason = format!(
                    "it is {} ms {} this scheduler's",
                    ahead.abs(),
                    if ahead > 0 { "ahead of" } else { "behind" }
                );
                found.wrong(format!("clock:{name}"), None, reason);
            }
        }
    }
}
