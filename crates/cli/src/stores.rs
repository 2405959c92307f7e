//! Opens the stores that the configuration names.

use std::{path::PathBuf, sync::Arc};

use queue_core::{
    archive::Objects,
    breaker::{Breakers, memory::MemoryBreakers, redis::RedisBreakers},
    budget::{Counters, memory::MemoryCounters, redis::RedisCounters},
    cache::{Cache, memory::MemoryCache, redis::RedisCache},
    dispatcher::{
        Dispatcher,
        memory::MemoryDispatcher,
        redis::{RedisAddress, RedisConfig, RedisDispatcher},
    },
    events::{Events, memory::MemoryEvents, redis::RedisEvents},
    journal::{
        postgres::{OpenError, PostgresConfig, PostgresJournal, connect, migrate},
        sqlite::SqliteJournal,
    },
    limiter::{Limiter, away::Steadfast, memory::MemoryLimiter, redis::RedisLimiter},
    location::Location,
    request_limits::{
        RequestLimits, fleet::FleetRequestLimits, memory::MemoryRequestLimits, redis::RedisRequestLimits,
    },
    stores::{Beside, Stores, Truth},
    time::{Clock, SystemClock},
};
use secrecy::ExposeSecret;
use worker::caches::Caches;

use crate::{
    config::{self, Config, Journal},
    failure::Failure,
};

/// Who opens.
#[derive(Clone, Debug)]
pub(crate) enum Opening {
    /// `up`: brings the schema up to date. The memory dispatcher remembers in this file who ran.
    Up {
        /// The file.
        leases: PathBuf,
    },
    /// `serve`: a schema that this program does not know is refused, since other processes may run on it.
    Serve {
        /// Whether the place of objects must be there as others have it.
        is_worker: bool,
    },
}

/// Opens the journal, the dispatcher and the events.
pub(crate) async fn open(config: &Config, opening: Opening) -> Result<Stores, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match &config.journal {
        Journal::Sqlite(path) => {
            let journal = SqliteJournal::open(path, clock.clone()).map_err(cannot_start("the journal"))?;
            with(Arc::new(journal), config, opening, clock).await
        }
        Journal::Postgres(postgres) => {
            let journal = open_postgres(postgres, &opening, clock.clone()).await;
            let journal = journal.map_err(|why| Failure::usage(why.to_string()))?;
            with(Arc::new(journal), config, opening, clock).await
        }
    }
}

/// The journal's own words for what the configuration says.
pub(crate) fn postgres(server: &config::Postgres) -> PostgresConfig {
    PostgresConfig {
        pool_size: server.pool_size,
        acquire_timeout: server.pool_acquire_timeout,
        recycle: server.pool_recycle,
        statement_timeout: server.statement_timeout,
        ..PostgresConfig::new(server.url.expose_secret())
    }
}

async fn open_postgres(
    server: &config::Postgres,
    opening: &Opening,
    clock: Arc<dyn Clock>,
) -> Result<PostgresJournal, OpenError> {
    let config = postgres(server);
    if let Opening::Up { .. } = opening {
        // Only one of several processes that start at once does it: there is a lock.
        migrate(&mut connect(&config).await?).await?;
    }
    PostgresJournal::open(&config, clock).await
}

async fn with(
    journal: Arc<impl Truth>,
    config: &Config,
    opening: Opening,
    clock: Arc<dyn Clock>,
) -> Result<Stores, Failure> {
    let objects = open_objects(config, &opening)?;
    let is_worker = matches!(opening, Opening::Serve { is_worker: true });
    let stores = Stores::over(
        journal,
        Beside {
            objects: None,
            dispatcher: open_dispatcher(&config.dispatcher, opening, &clock).await?,
            breakers: open_breakers(&config.dispatcher, &clock)?,
            counters: open_counters(&config.dispatcher, &clock)?,
            events: open_events(&config.dispatcher, &clock)?,
            clock,
        },
    );
    let stores = match objects {
        Some(objects) if is_worker => stores.with_objects(objects.of_others(), config.large_bytes),
        Some(objects) => {
            // Not waited for: what needs no objects goes on where their place is away.
            let marking = objects.clone();
            tokio::spawn(async move {
                if let Err(error) = marking.mark().await {
                    tracing::warn!(%error, "the place of objects does not work");
                }
            });
            stores.with_objects(objects, config.large_bytes)
        }
        None => stores,
    };
    #[cfg(feature = "sabotage")]
    let stores = crate::sabotage::spoil(stores)?;
    Ok(stores)
}

/// Processes that share stores share objects only where somebody says where; `up` is alone.
fn open_objects(config: &Config, opening: &Opening) -> Result<Option<Objects>, Failure> {
    let location = match (&config.objects, opening) {
        (Some(named), _) => named.clone(),
        (None, Opening::Up { .. }) => Location::Folder(config.data.join("objects")),
        (None, Opening::Serve { .. }) => return Ok(None),
    };
    Objects::open(&location, &config.buckets).map(Some).map_err(cannot_start("the place of objects"))
}

async fn open_dispatcher(
    dispatcher: &config::Dispatcher,
    opening: Opening,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Dispatcher>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        let leases = match opening {
            Opening::Up { leases } => Some(leases),
            Opening::Serve { .. } => None,
        };
        let memory = MemoryDispatcher::open(clock.clone(), leases).map_err(cannot_start("the leases"))?;
        return Ok(Arc::new(memory));
    };
    let opened = RedisDispatcher::open(redis).await;
    Ok(Arc::new(opened.map_err(|refused| Failure::usage(refused.to_string()))?))
}

/// Processes that share a dispatcher share what they know of targets that do not work.
fn open_breakers(dispatcher: &config::Dispatcher, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Breakers>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        return Ok(Arc::new(MemoryBreakers::new(clock.clone())));
    };
    Ok(Arc::new(RedisBreakers::open(&redis).map_err(Failure::usage)?))
}

/// Processes that share a dispatcher share what they have reserved of budgets.
fn open_counters(dispatcher: &config::Dispatcher, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Counters>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        return Ok(Arc::new(MemoryCounters::new(clock.clone())));
    };
    Ok(Arc::new(RedisCounters::open(&redis).map_err(Failure::usage)?))
}

/// Processes that share a dispatcher hear each other's events; one that shares nothing needs nobody for its own.
fn open_events(dispatcher: &config::Dispatcher, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Events>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        return Ok(Arc::new(MemoryEvents::with_clock(clock.clone())));
    };
    Ok(Arc::new(RedisEvents::open(&redis, clock.clone()).map_err(Failure::usage)?))
}

/// Opens the limiter that all workers share: beside the dispatcher, since a worker needs both or neither.
pub(crate) fn open_limiter(
    dispatcher: &config::Dispatcher,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Limiter>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        return Ok(Arc::new(MemoryLimiter::new(clock.clone())));
    };
    let fleet = RedisLimiter::open(&redis).map_err(Failure::usage)?;
    Ok(Arc::new(Steadfast::new(Arc::new(fleet), clock.clone())))
}

/// How often keys and tenants may ask: over all processes that share a dispatcher.
pub(crate) fn open_request_limits(
    dispatcher: &config::Dispatcher,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn RequestLimits>, Failure> {
    let Some(redis) = redis(dispatcher)? else {
        return Ok(Arc::new(MemoryRequestLimits::new(clock.clone())));
    };
    let store = RedisRequestLimits::open(&redis).map_err(Failure::usage)?;
    Ok(Arc::new(FleetRequestLimits::new(store, clock.clone())))
}

/// Opens the cache: in the Redis that is named for it, else in this process. Never in the dispatcher's: a full cache there
/// would refuse jobs.
pub(crate) fn open_caches(cache: &config::Cache, clock: &Arc<dyn Clock>) -> Result<Caches, Failure> {
    let store: Arc<dyn Cache> = match &cache.url {
        None => Arc::new(MemoryCache::new(clock.clone(), cache.memory_max_bytes)),
        Some(url) => {
            let address = RedisAddress::parse(url.expose_secret()).map_err(Failure::usage)?;
            Arc::new(RedisCache::open(&RedisConfig::new(address)).map_err(Failure::usage)?)
        }
    };
    Ok(Caches::new(store, cache.scope, cache.vectors_ttl))
}

/// The Redis that a dispatcher is in, if it is in one.
pub(crate) fn redis(dispatcher: &config::Dispatcher) -> Result<Option<RedisConfig>, Failure> {
    match dispatcher {
        config::Dispatcher::Memory => Ok(None),
        config::Dispatcher::Redis(redis) => {
            let address = RedisAddress::parse(redis.url.expose_secret()).map_err(Failure::usage)?;
            Ok(Some(RedisConfig { allow_eviction: redis.allow_eviction, ..RedisConfig::new(address) }))
        }
    }
}

/// The failure of a part without which nothing starts.
pub(crate) fn cannot_start<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::error(format!("{what}: {error}"))
}
