//! What probes find, remembered for as long as it is worth: a probe must cost nothing, however often it is asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use queue_core::stores::Check;
use tokio::{sync::Mutex, time::Instant};

use crate::{Api, lately::Lately};

/// How long the journal's last answer stands: several probes a second are one write.
const JOURNAL_TTL: Duration = Duration::from_secs(1);
/// How long a check of something outside stands: it may be a paid call.
const CHECK_TTL: Duration = Duration::from_secs(60);
/// Longest time of one check.
const CHECK_MAX: Duration = Duration::from_secs(3);

/// The word for a check that found nothing wrong.
pub(crate) const OK: &str = "ok";

/// The last findings.
#[derive(Default)]
pub(crate) struct Health {
    journal: Lately<Result<(), String>>,
    outside: Arc<Mutex<Outside>>,
}

#[derive(Default)]
struct Outside {
    found: BTreeMap<String, String>,
    at: Option<Instant>,
    refreshing: bool,
}

impl Health {
    /// Whether the journal takes writes. One check at a time; the others wait for its answer.
    pub(crate) async fn journal(&self, api: &Api) -> Result<(), String> {
        let ask = || async {
            match tokio::time::timeout(CHECK_MAX, api.stores.journal.check()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("the journal did not answer within {} seconds", CHECK_MAX.as_secs())),
            }
        };
        self.journal.get(JOURNAL_TTL, ask).await
    }

    /// Whether the dispatcher has begun its life and answers.
    pub(crate) async fn dispatcher(&self, api: &Api) -> Result<(), String> {
        match tokio::time::timeout(CHECK_MAX, api.stores.dispatcher.depths()).await {
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("the dispatcher did not answer within {} seconds", CHECK_MAX.as_secs())),
        }
    }

    /// Whether any worker is there.
    pub(crate) async fn workers(&self, api: &Api) -> Result<(), String> {
        match tokio::time::timeout(CHECK_MAX, api.stores.dispatcher.sessions(&[])).await {
            Ok(Ok(present)) if present.alive.is_empty() => Err("no worker is running".into()),
            Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("unknown: the dispatcher did not answer".into()),
        }
    }

    /// The last findings about things outside, by name. Asks again in the background when they are old; only the
    /// very first call waits.
    pub(crate) async fn outside(&self, api: &Api) -> BTreeMap<String, String> {
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
pub(crate) async fn ask(check: &Arc<dyn Check>) -> (String, String) {
    let asked = check.clone();
    let answer = tokio::spawn(async move { tokio::time::timeout(CHECK_MAX, asked.check()).await }).await;
    let found = match answer {
        Ok(Ok(Ok(()))) => OK.to_owned(),
        Ok(Ok(Err(reason))) => reason,
        Ok(Err(_)) => format!("no answer within {} seconds", CHECK_MAX.as_secs()),
        Err(error) => {
            tracing::error!(%error, check = check.name(), "a health check failed to run");
            "the check failed to run".to_owned()
        }
    };
    (check.name().to_owned(), found)
}
