//! Does what the plan says, and looks after the processes as a supervisor does.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::{PostgresServer, RedisServer, Weather};
use tokio::{task::JoinSet, time::Instant};

use super::{
    disk::Disk,
    fleet::{Fleet, Kill, Surroundings},
    history::{InjectorEvent, Store, Writer},
    links::Links,
    plan::{Act, Step},
    scenario::Trouble,
};

/// Time between two looks at the processes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Looks at the processes between two looks at their memory.
const LOOKS_A_MEMORY: u32 = 50;
/// Time between two looks at a process that comes back, and the longest that is looked.
const READY_LOOK_EVERY: Duration = Duration::from_millis(20);
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for somebody to make a backup, after whom a kill may have come.
const MAKER_MAX: Duration = Duration::from_secs(15);
/// Time between two looks for who makes one: its copy of the journal takes a fraction of a second.
const MAKER_LOOK_EVERY: Duration = Duration::from_millis(5);
/// So much of what it holds Redis throws away at once when it is to evict, and then whatever is too much.
const EVICTED_BYTES: u64 = 256 * 1024;
/// Memory with which Redis has no room for anything more.
const NO_ROOM: &str = "1mb";
/// What it takes to overwrite the generation, whatever its key is called here.
const OTHER_GENERATION: &str = "for _, key in ipairs(redis.call('KEYS', '*gen')) do \
    if redis.call('TYPE', key).ok == 'string' then redis.call('SET', key, '0') end end return 1";

/// Connections of all processes, by the name that they give themselves.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'longshore'";

/// What faults are done to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Victims {
    pub(crate) fleet: Arc<Mutex<Fleet>>,
    pub(crate) redis: Arc<Mutex<RedisServer>>,
    pub(crate) postgres: Arc<PostgresServer>,
    pub(crate) database: String,
    pub(crate) links: Arc<Links>,
    pub(crate) disk: Option<Arc<Disk>>,
    /// Whether backups are made meanwhile.
    pub(crate) backs_up: bool,
    pub(crate) history: Arc<Writer>,
    /// Troubles that have begun and not ended. Who holds it sees to it that none begins.
    pub(crate) open: Arc<Mutex<usize>>,
}

/// Does each step at its time, counted from `began`. A slow step does not delay the others: each has a thread.
pub(crate) async fn inject(victims: Victims, steps: Vec<Step>, began: Instant) -> Result<()> {
    let mut acts = JoinSet::new();
    for step in steps {
        tokio::time::sleep_until(began + step.at).await;
        let victims = victims.clone();
        acts.spawn(async move {
            let blocking = victims.clone();
            tokio::task::spawn_blocking(move || blocking.suffer(step.act)).await??;
            match step.act {
                Act::Kill(number) => victims.see_ready(number).await,
                _ => Ok(()),
            }
        });
    }
    while let Some(done) = acts.join_next().await {
        done??;
    }
    Ok(())
}

/// Starts again what ends, until it is dropped.
pub(crate) async fn supervise(victims: Victims) -> Result<()> {
    let (mut looks, makers) = (0, Arc::new(Mutex::new(Vec::new())));
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let victims = victims.clone();
        looks = (looks + 1) % LOOKS_A_MEMORY;
        let makers = victims.backs_up.then(|| makers.clone());
        tokio::task::spawn_blocking(move || {
            victims.look(looks == 0)?;
            makers.map_or(Ok(()), |before| victims.look_for_makers(&before))
        })
        .await??;
    }
}

impl Victims {
    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn redis(&self) -> MutexGuard<'_, RedisServer> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many keys there are in Redis.
    pub(crate) fn redis_keys(&self) -> Result<u64> {
        let told = self.redis().command(&["DBSIZE"]);
        told.trim_start_matches(':').parse().with_context(|| format!("Redis counts `{told}` keys"))
    }

    fn suffer(&self, act: Act) -> Result<()> {
        if matches!(act, Act::Begin(_) | Act::Freeze(_)) {
            *self.open() += 1;
        }
        let suffered = self.act(act);
        let ends = match act {
            Act::End(_) | Act::Thaw(_) => true,
            // Its end is its beginning.
            Act::Begin(trouble) => trouble.lasts() == Duration::ZERO,
            _ => false,
        };
        if ends {
            let mut open = self.open();
            *open = open.saturating_sub(1);
        }
        suffered
    }

    fn open(&self) -> MutexGuard<'_, usize> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the connections to both stores, unless something is being done to any.
    fn count_connections(&self) -> Result<()> {
        let open = self.open();
        if *open > 0 {
            return Ok(());
        }
        let told = self.redis().command(&["INFO", "clients"]);
        let clients = told.lines().find_map(|line| line.strip_prefix("connected_clients:")?.trim().parse::<u64>().ok());
        // Without the one that asks.
        let of_redis = clients.with_context(|| format!("Redis counts its clients as `{told}`"))?.saturating_sub(1);
        let of_postgres = self.postgres.run(&self.database, CONNECTIONS).parse()?;
        drop(open);
        self.history.note(InjectorEvent::Connected { store: Store::Redis, count: of_redis })?;
        self.history.note(InjectorEvent::Connected { store: Store::Postgres, count: of_postgres })
    }

    fn act(&self, act: Act) -> Result<()> {
        match act {
            Act::Kill(number) => {
                let Kill { process, works, hit } = self.fleet().kill(number)?;
                self.history.note(match hit {
                    true => InjectorEvent::Killed { process, works },
                    false => InjectorEvent::Missed { process },
                })
            }
            Act::Freeze(number) => {
                let process = self.fleet().signal(number, "-STOP")?;
                self.history.note(InjectorEvent::Frozen { process })
            }
            Act::Thaw(number) => {
                let process = self.fleet().signal(number, "-CONT")?;
                self.history.note(InjectorEvent::Thawed { process })
            }
            Act::Begin(Trouble::KillMaker) => self.kill_maker(),
            Act::Begin(Trouble::Flush) => {
                self.redis().flush();
                self.history.note(InjectorEvent::Flushed)
            }
            Act::Begin(Trouble::WrongGeneration) => {
                self.redis().command(&["EVAL", OTHER_GENERATION, "0"]);
                self.history.note(InjectorEvent::Flushed)
            }
            // Away from a moment before until a moment after: what happens at the edges belongs to it.
            Act::Begin(Trouble::Away(store, _)) => {
                self.history.note(InjectorEvent::Down { store })?;
                match store {
                    Store::Redis => self.redis().stop(),
                    Store::Postgres => self.postgres.crash(),
                }
                Ok(())
            }
            Act::End(Trouble::Away(store, _)) => {
                self.history.note(InjectorEvent::Rising { store })?;
                match store {
                    Store::Redis => self.redis().restart_empty(),
                    Store::Postgres => self.postgres.resume(),
                }
                self.history.note(InjectorEvent::Up { store })
            }
            Act::Begin(trouble) => {
                let (name, harm) = (trouble.to_string(), trouble.harm());
                self.history.note(InjectorEvent::Troubled { trouble: name.clone(), harm })?;
                self.begin(trouble)?;
                match trouble.lasts() {
                    // It is over when it has been done.
                    Duration::ZERO => self.history.note(InjectorEvent::Healed { trouble: name }),
                    _ => Ok(()),
                }
            }
            Act::End(trouble) => {
                self.end(trouble)?;
                self.history.note(InjectorEvent::Healed { trouble: trouble.to_string() })
            }
        }
    }

    fn begin(&self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Reload => {
                self.redis().command(&["DEBUG", "RELOAD"]);
            }
            Trouble::Evict(_) => {
                let redis = self.redis();
                let told = redis.command(&["INFO", "memory"]);
                let used = told.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
                let room = used.unwrap_or_default().saturating_sub(EVICTED_BYTES).to_string();
                redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru", "maxmemory", &room]);
            }
            Trouble::Full(_) => {
                self.redis().command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", NO_ROOM]);
            }
            Trouble::Lock(time) => {
                // The session ends by itself, and its lock with it.
                let hold = format!(
                    "BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({}); COMMIT",
                    time.as_secs_f64()
                );
                self.postgres.run(&self.database, &hold);
            }
            Trouble::Network(link, weather, _) => self.links.set(link, weather),
            Trouble::CutAndFlush(link, _) => self.links.set(link, Weather::Reset),
            // Done by `act`, or as steps of their own.
            Trouble::Flush
            | Trouble::WrongGeneration
            | Trouble::Away(..)
            | Trouble::Zombies(..)
            | Trouble::KillMaker => {}
            Trouble::DiskFull(_) => self.disk()?.fill()?,
        }
        Ok(())
    }

    fn disk(&self) -> Result<&Disk> {
        self.disk.as_deref().context("the scenario gives Postgres no disk of its own")
    }

    fn end(&self, trouble: Trouble) -> Result<()> {
        match trouble {
            Trouble::Evict(_) | Trouble::Full(_) => {
                self.redis().command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "0"]);
            }
            Trouble::Network(link, ..) | Trouble::CutAndFlush(link, _) => self.links.set(link, Weather::Clear),
            Trouble::DiskFull(_) => {
                self.disk()?.clear()?;
                self.postgres.revive();
            }
            _ => {}
        }
        Ok(())
    }

    /// What the processes are started with.
    pub(crate) fn around(&self) -> Surroundings {
        self.fleet().around()
    }

    /// Waits for a scheduler that copies the journal, and kills it.
    fn kill_maker(&self) -> Result<()> {
        let began = std::time::Instant::now();
        while began.elapsed() < MAKER_MAX {
            let mut fleet = self.fleet();
            if let Some(number) = fleet.makers().first() {
                // Noted before anybody can see who makes the next one.
                let Kill { process, works, .. } = fleet.kill(*number)?;
                self.history.note(InjectorEvent::Killed { process: process.clone(), works })?;
                return self.history.note(InjectorEvent::KilledInBackup { process });
            }
            drop(fleet);
            std::thread::sleep(MAKER_LOOK_EVERY);
        }
        self.history.note(InjectorEvent::Missed { process: "whoever makes a backup".to_owned() })
    }

    /// Notes who makes a backup now and did not at the last look.
    fn look_for_makers(&self, before: &Mutex<Vec<(usize, std::time::Instant)>>) -> Result<()> {
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = self.fleet();
        let now: Vec<_> =
            fleet.makers().into_iter().map(|number| Ok((number, fleet.life(number)?.1))).collect::<Result<_>>()?;
        let names = fleet.names();
        for (number, _) in now.iter().filter(|maker| !before.contains(maker)) {
            self.history.note(InjectorEvent::CopyBegan { process: names[*number].clone() })?;
        }
        *before = now;
        Ok(())
    }

    /// Until a killed process says that it is ready, or is killed again.
    async fn see_ready(&self, number: usize) -> Result<()> {
        let (url, life) = self.fleet().life(number)?;
        let http = reqwest::Client::builder().timeout(LOOK_EVERY).build()?;
        let began = Instant::now();
        while began.elapsed() < READY_MAX {
            let answered = http.get(format!("{url}/readyz")).send().await;
            if self.fleet().life(number)?.1 != life {
                return Ok(());
            }
            if answered.is_ok_and(|answer| answer.status().is_success()) {
                let after_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let process = self.fleet().names()[number].clone();
                return self.history.note(InjectorEvent::Ready { process, after_ms });
            }
            tokio::time::sleep(READY_LOOK_EVERY).await;
        }
        Ok(())
    }

    fn look(&self, weighs: bool) -> Result<()> {
        let mut fleet = self.fleet();
        let deaths = fleet.look()?;
        let memory = if weighs { fleet.memory() } else { vec![] };
        drop(fleet);
        for death in deaths {
            let lived_ms = u64::try_from(death.lived.as_millis()).unwrap_or(u64::MAX);
            let (process, works, code) = (death.process, death.works, death.code);
            self.history.note(match death.point {
                Some(point) => InjectorEvent::Crashed { process, works, point },
                None => InjectorEvent::Ended { process, works, lived_ms, code },
            })?;
        }
        for (process, rss_kib) in memory {
            self.history.note(InjectorEvent::Memory { process, rss_kib })?;
        }
        if weighs { self.count_connections() } else { Ok(()) }
    }
}
