//! Does what the plan says, and looks after the processes as a supervisor does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use testkit::{PostgresServer, RedisServer};
use tokio::time::Instant;

use super::{
    fleet::Fleet,
    history::{InjectorEvent, Store, Writer},
    plan::{Act, Step},
};

/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What faults are done to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Victims {
    pub(crate) fleet: Arc<Mutex<Fleet>>,
    pub(crate) redis: Arc<Mutex<RedisServer>>,
    pub(crate) postgres: Arc<PostgresServer>,
    pub(crate) history: Arc<Writer>,
}

/// Does each step at its time, counted from `began`. A slow step does not delay the others: each has a thread.
pub(crate) async fn inject(victims: Victims, steps: Vec<Step>, began: Instant) -> Result<()> {
    let mut acts = tokio::task::JoinSet::new();
    for step in steps {
        tokio::time::sleep_until(began + step.at).await;
        let victims = victims.clone();
        acts.spawn_blocking(move || victims.suffer(step.act));
    }
    while let Some(done) = acts.join_next().await {
        done??;
    }
    Ok(())
}

/// Starts again what ends, until it is dropped.
pub(crate) async fn supervise(victims: Victims) -> Result<()> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let victims = victims.clone();
        tokio::task::spawn_blocking(move || victims.look()).await??;
    }
}

impl Victims {
    fn suffer(&self, act: Act) -> Result<()> {
        match act {
            Act::Kill(number) => {
                let kill = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).kill(number)?;
                self.history.note(match kill.hit {
                    true => InjectorEvent::Killed { process: kill.process, works: kill.works },
                    false => InjectorEvent::Missed { process: kill.process },
                })
            }
            Act::Flush => {
                self.redis.lock().unwrap_or_else(PoisonError::into_inner).flush();
                self.history.note(InjectorEvent::Flushed)
            }
            // Away from a moment before until a moment after: what happens at the edges belongs to it.
            Act::Stop(store) => {
                self.history.note(InjectorEvent::Down { store })?;
                match store {
                    Store::Redis => self.redis.lock().unwrap_or_else(PoisonError::into_inner).stop(),
                    Store::Postgres => self.postgres.crash(),
                }
                Ok(())
            }
            Act::Start(store) => {
                match store {
                    Store::Redis => self.redis.lock().unwrap_or_else(PoisonError::into_inner).restart_empty(),
                    Store::Postgres => self.postgres.resume(),
                }
                self.history.note(InjectorEvent::Up { store })
            }
        }
    }

    fn look(&self) -> Result<()> {
        let deaths = self.fleet.lock().unwrap_or_else(PoisonError::into_inner).look()?;
        for death in deaths {
            let lived_ms = u64::try_from(death.lived.as_millis()).unwrap_or(u64::MAX);
            self.history.note(InjectorEvent::Ended { process: death.process, lived_ms })?;
        }
        Ok(())
    }
}
