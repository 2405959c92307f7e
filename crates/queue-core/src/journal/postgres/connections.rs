//! How busy the pools are: a pool tells nobody when it is full, so somebody looks.

use std::time::Duration;

use metrics::Gauge;
use sqlx::PgPool;

use crate::telemetry;

/// Time between two looks: each is a few atomics, and a scrape sees the last one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The task that looks; ends with this value.
pub(super) struct Looked {
    task: tokio::task::JoinHandle<()>,
}

impl Looked {
    /// Looks at each of these pools, by its name.
    pub(super) fn start(pools: [(&'static str, PgPool); 2]) -> Self {
        let pools = pools.map(|(name, pool)| Watched::new(name, pool));
        let task = tokio::spawn(async move {
            loop {
                pools.iter().for_each(Watched::look);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        Self { task }
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watched {
    pool: PgPool,
    busy: Gauge,
    idle: Gauge,
}

impl Watched {
    fn new(name: &'static str, pool: PgPool) -> Self {
        let gauge = |state| metrics::gauge!(telemetry::JOURNAL_CONNECTIONS, "pool" => name, "state" => state);
        metrics::gauge!(telemetry::JOURNAL_CONNECTIONS_MAX, "pool" => name)
            .set(f64::from(pool.options().get_max_connections()));
        Self { busy: gauge("busy"), idle: gauge("idle"), pool }
    }

    fn look(&self) {
        // Read one after the other: a connection may become idle in between.
        let (all, idle) = (self.pool.size() as usize, self.pool.num_idle());
        self.busy.set(all.saturating_sub(idle) as f64);
        self.idle.set(idle as f64);
    }
}
