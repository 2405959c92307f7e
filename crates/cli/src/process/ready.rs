//! What a role without the API needs to be ready: the journal takes writes, and the dispatcher has the worker's session
//! or, for a scheduler, has begun its life.

use std::sync::Arc;

use async_trait::async_trait;
use queue_core::{
    dispatcher::Dispatcher,
    ids::SessionId,
    journal::Journal,
    stores::{Check, Stores},
};

/// One check a store. `session` is that of the worker in this process, if there is one.
pub(super) fn needs(stores: &Stores, session: Option<SessionId>) -> Vec<Arc<dyn Check>> {
    vec![
        Arc::new(JournalTakesWrites(stores.journal.clone())),
        Arc::new(DispatcherKnows { dispatcher: stores.dispatcher.clone(), session }),
    ]
}

struct JournalTakesWrites(Arc<dyn Journal>);

#[async_trait]
impl Check for JournalTakesWrites {
    fn name(&self) -> &str {
        "journal"
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check().await.map_err(|error| error.to_string())
    }
}

struct DispatcherKnows {
    dispatcher: Arc<dyn Dispatcher>,
    session: Option<SessionId>,
}

#[async_trait]
impl Check for DispatcherKnows {
    fn name(&self) -> &str {
        "dispatcher"
    }

    async fn check(&self) -> Result<(), String> {
        let sessions = self.dispatcher.sessions(&[]).await.map_err(|error| error.to_string())?;
        match self.session {
            Some(own) if !sessions.alive.iter().any(|session| session.id == own) => {
                Err("the worker has not joined it".into())
            }
            _ => Ok(()),
        }
    }
}
