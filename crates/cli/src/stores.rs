//! Opens the stores that the configuration names.

use std::{path::PathBuf, sync::Arc};

use queue_core::{
    dispatcher::{
        Dispatcher,
        memory::MemoryDispatcher,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    events::memory::MemoryEvents,
    journal::sqlite::SqliteJournal,
    stores::Stores,
    time::{Clock, SystemClock},
};
use secrecy::ExposeSecret;

use crate::{
    config::{self, Config, Journal},
    failure::Failure,
    serve,
};

/// Opens the journal (its schema is brought up to date), the dispatcher and the events. `leases` is where the memory
/// dispatcher remembers who ran.
pub(crate) async fn open(config: &Config, leases: PathBuf) -> Result<Stores, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Journal::Sqlite(path) = &config.journal else { return Err(Failure::usage(serve::NOT_BUILT)) };
    let journal = Arc::new(SqliteJournal::open(path, clock.clone()).map_err(cannot_start("the journal"))?);
    Ok(Stores {
        journal: journal.clone(),
        reads: journal.clone(),
        ledger: journal.clone(),
        catalog: journal,
        dispatcher: open_dispatcher(&config.dispatcher, leases, &clock).await?,
        events: Arc::new(MemoryEvents::new()),
        clock,
    })
}

async fn open_dispatcher(
    dispatcher: &config::Dispatcher,
    leases: PathBuf,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Dispatcher>, Failure> {
    match dispatcher {
        config::Dispatcher::Memory => {
            let memory = MemoryDispatcher::open(clock.clone(), Some(leases)).map_err(cannot_start("the leases"))?;
            Ok(Arc::new(memory))
        }
        config::Dispatcher::Redis(redis) => {
            let address = RedisAddress::parse(redis.url.expose_secret()).map_err(Failure::usage)?;
            let config = RedisConfig { allow_eviction: redis.allow_eviction, ..RedisConfig::new(address) };
            let opened = RedisDispatcher::open(config).await;
            Ok(Arc::new(opened.map_err(|refused| Failure::usage(refused.to_string()))?))
        }
    }
}

/// The failure of a part without which nothing starts.
pub(crate) fn cannot_start<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::error(format!("{what}: {error}"))
}
