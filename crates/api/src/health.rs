//! What probes find, remembered for as long as it is worth: a probe must cost nothing, however often it is asked.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use queue_core::{progress::Pulse, stores::Check};
use serde::Serialize;
use tokio::{sync::Mutex, time::Instant};
use utoipa::ToSchema;

use crate::{Api, lately::Lately};

/// How long the journal's last answer stands: several probes a second are one write.
const JOURNAL_TTL: Duration = Duration::from_secs(1);
/// How long a check of something outside stands: it may be a paid call.
const CHECK_TTL: Duration = Duration::from_secs(60);
/// Longest time of one check.
const CHECK_MAX: Duration = Duration::from_secs(3);

/// The word for a check that found nothing wrong.
pub(crate) const OK: &str = "ok";

/// What a check found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// `Err` says in a few words what is wrong.
    pub(crate) verdict: Result<(), String>,
    took: Duration,
    at: Instant,
}

/// How a check went, for people.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detail {
    /// How long it took, in milliseconds.
    latency_ms: f64,
    /// How long ago that was, in milliseconds: what costs something is not checked for each reader.
    age_ms: u64,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Found {
    /// What this check finds now.
    pub(crate) async fn by(checking: impl Future<Output = Result<(), String>>) -> Self {
        let began = Instant::now();
        let verdict = checking.await;
        let at = Instant::now();
        Self { verdict, took: at - began, at }
    }

    /// What is known without asking anybody.
    pub(crate) fn known(verdict: Result<(), String>) -> Self {
        Self { verdict, took: Duration::ZERO, at: Instant::now() }
    }

    /// `ok`, or what is wrong.
    pub(crate) fn word(&self) -> String {
        self.verdict.clone().err().unwrap_or_else(|| OK.to_owned())
    }

    /// For people.
    pub(crate) fn detail(&self) -> Detail {
        Detail {
            // Microseconds are precise enough, and stay readable.
            latency_ms: self.took.as_micros() as f64 / 1_000.0,
            age_ms: self.at.elapsed().as_millis() as u64,
            detail: self.verdict.clone().err(),
        }
    }
}

/// Whether every loop of this process goes round. Asks nothing outside of it.
pub(crate) fn loops(pulses: &[Arc<Pulse>]) -> Result<(), String> {
    pulses.iter().try_for_each(|pulse| pulse.check())
}

async fn within<T, E: ToString>(what: &str, asking: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(CHECK_MAX, asking).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("{what} did not answer within {} seconds", CHECK_MAX.as_secs())),
    }
}

/// The last findings.
#[derive(Default)]
pub(crate) struct Health {
    journal: Lately<Found>,
    outside: Arc<Mutex<Outside>>,
}

#[derive(Default)]
struct Outside {
    found: BTreeMap<String, Found>,
    at: Option<Instant>,
    refreshing: bool,
}

impl Health {
    /// Whether the journal takes writes. One check at a time; the others wait for its answer.
    pub(crate) async fn journal(&self, api: &Api) -> Found {
        let ask = || Found::by(within("the journal", api.stores.journal.check()));
        self.journal.get(JOURNAL_TTL, ask).await
    }

    /// Whether the dispatcher has begun its life and answers.
    pub(crate) async fn dispatcher(&self, api: &Api) -> Found {
        Found::by(async { within("the dispatcher", api.stores.dispatcher.depths()).await.map(drop) }).await
    }

    /// Whether any worker is there.
    pub(crate) async fn workers(&self, api: &Api) -> Found {
        let look = async {
            let present = within("the dispatcher", api.stores.dispatcher.sessions(&[])).await?;
            if present.alive.is_empty() { Err("no worker is running".to_owned()) } else { Ok(()) }
        };
        Found::by(look).await
    }

    /// The last findings about things outside, by name. Asks again in the background when they are old; only the
    /// very first call waits.
    pub(crate) async fn outside(&self, api: &Api) -> BTreeMap<String, Found> {
        let first = {
            let mut outside = self.outside.lock().await;
            let old = outside.at.is_none_or(|at| at.elapsed() >= CHECK_TTL);
            if !old || outside.refreshing {
                return outside.found.clone();
            }
            outside.refreshing = true;
            outside.at.is_none()
        };
        let (checks, shared) = (api.checks.clone(), self.outside.clone());
        let refresh = tokio::spawn(async move {
            let found = futures::future::join_all(checks.iter().map(ask)).await.into_iter().collect();
            *shared.lock().await = Outside { found, at: Some(Instant::now()), refreshing: false };
        });
        if first {
            // Ends in any case: each check has its own task and time limit.
            let _ = refresh.await;
        }
        self.outside.lock().await.found.clone()
    }
}

/// Asks in a task of its own: a check that panics spoils nothing but its own line.
pub(crate) async fn ask(check: &Arc<dyn Check>) -> (String, Found) {
    let asked = check.clone();
    let answer = tokio::spawn(async move {
        let name = asked.name().to_owned();
        Found::by(within(&name, asked.check())).await
    });
    let found = answer.await.unwrap_or_else(|error| {
        tracing::error!(%error, check = check.name(), "a health check failed to run");
        Found::known(Err("the check failed to run".to_owned()))
    });
    (check.name().to_owned(), found)
}
