//! F7: what is left when the power goes.
//!
//! The journal's files lie on a file system of their own, in a file. While jobs are accepted, Postgres is stopped for a
//! moment and that file is copied: it holds what was written back to the "disk" by then, and nothing of what was only in
//! memory. A second server starts on each copy, and must know every job whose client had its 202 before the copy. So it must
//! where the server is set to answer before it writes: each of our sessions asks for the opposite. The control is a server
//! that never waits for its disk: that must lose jobs, or the test shows nothing.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::{MockProvider, PostgresServer, RedisServer};
use tokio::{
    task::{JoinSet, block_in_place},
    time::Instant,
};

use super::{
    disk::Disk,
    fleet::{Fleet, Surroundings},
    history::{self, ClientEvent, Clock, Harm, InjectorEvent, Writer},
    links::Links,
    load::Load,
    run::{self, Settings},
    scenario::{Processes, Scenario, Shape, USUAL},
    witness::Witness,
};
use crate::{bench::until_told, cluster::Role};

/// Copies that are made of one run.
const IMAGES: u32 = 10;
/// Time between two of them.
const EVERY: Duration = Duration::from_secs(4);
/// The file system: the write-ahead log alone may be 1 GiB before Postgres cuts it.
const DISK_BYTES: u64 = 2 << 30;
/// A server that would answer before it writes, which is at the latest three of these delays later.
const LAZY: [&str; 2] = ["synchronous_commit = off", "wal_writer_delay = '5s'"];
/// A server that does not wait for its disk, whatever it is asked for.
pub(super) const WEAK: [&str; 1] = ["fsync = off"];

const LOAD: Scenario = Scenario {
    name: "F7",
    purpose: "the power goes while jobs are accepted",
    load: Shape { rate: 100, long_percent: 0, ..USUAL.load },
    processes: Processes { apis: 1, workers: 1, schedulers: 1 },
    ..USUAL
};

/// What was found on the images.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Jobs that were accepted at all.
    pub(crate) accepted: usize,
    /// Of those that were accepted before an image, the ones that are not in it, over all images.
    pub(crate) lost: usize,
    /// The same where Postgres is set to answer before it writes.
    pub(crate) lost_when_lazy: usize,
    /// The same where it does not wait for its disk.
    pub(crate) lost_by_control: usize,
}

impl Found {
    /// Images that were looked at, those of the control among them.
    pub(crate) const IMAGES: usize = 3 * IMAGES as usize;

    /// What is wrong with it.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        for (lost, server) in [(self.lost, "as it is shipped"), (self.lost_when_lazy, "with `synchronous_commit=off`")]
        {
            if lost > 0 {
                violations.push(format!("{lost} accepted jobs are not in the later images of a server {server}"));
            }
        }
        if self.lost_by_control == 0 {
            violations.push("the control lost nothing: the images show nothing".to_owned());
        }
        violations
    }

    /// In one line.
    pub(crate) fn in_short(&self) -> String {
        format!(
            "{} lost on {IMAGES} images, {} on {IMAGES} with `synchronous_commit=off`; with `fsync=off` {} on {IMAGES} others",
            self.lost, self.lost_when_lazy, self.lost_by_control
        )
    }
}

/// Makes the images, looks at them, and does it again with the weaker settings.
pub(crate) fn measure(settings: &Settings) -> Result<Found> {
    until_told(async {
        let strong = one(settings, "strong", &[], IMAGES).await?;
        let lazy = one(settings, "lazy", &LAZY, IMAGES).await?;
        let weak = one(settings, "weak", &WEAK, IMAGES).await?;
        Ok(Found {
            accepted: strong.0 + lazy.0 + weak.0,
            lost: strong.1,
            lost_when_lazy: lazy.1,
            lost_by_control: weak.1,
        })
    })
}

/// Accepted jobs that so many images have lost, with the weaker setting or without.
pub(crate) fn lost(settings: &Settings, is_weak: bool, images: u32) -> Result<usize> {
    let (word, weak): (_, &[&str]) = if is_weak { ("weak", &WEAK) } else { ("strong", &[]) };
    Ok(until_told(one(settings, word, weak, images))?.1)
}

/// Jobs that were accepted, and those that images had lost.
async fn one(
    settings: &Settings,
    word: &str,
    postgres_settings: &[&str],
    images_wanted: u32,
) -> Result<(usize, usize)> {
    let folder = settings.folder.join(word);
    fs::create_dir_all(&folder)?;
    println!("\n{} ({word}): {}, seed {}", LOAD.name, LOAD.purpose, settings.seed);
    let disk = block_in_place(|| Disk::make(&folder, DISK_BYTES))?;
    let postgres = block_in_place(|| {
        let postgres = PostgresServer::start_in(disk.at());
        if !postgres_settings.is_empty() {
            postgres.restart_with(postgres_settings);
        }
        postgres
    });
    let (redis, journal) = block_in_place(|| (RedisServer::start(), postgres.database()));
    let database = journal.rsplit('/').next().unwrap_or_default().to_owned();
    let clock = Clock::start();
    let witness = Witness::new(Writer::open(&folder, history::PROVIDER, clock)?);
    let provider = MockProvider::start_directed(witness).await;
    let around = Surroundings {
        binary: settings.binary.clone(),
        folder: folder.clone(),
        journal,
        dispatcher: redis.url(),
        provider: provider.url(),
        links: Arc::new(Links::start(&LOAD, redis.port(), postgres.port()).await?),
        sabotage: None,
        places: vec![],
        clock: None,
        memory: None,
    };
    let fleet = block_in_place(|| Fleet::start(around, LOAD.processes))?;
    let urls = fleet.urls(Role::Api);
    run::until_ready(&urls).await?;
    // The schema, and the server's own files, which nobody syncs; what jobs write is written later.
    block_in_place(|| postgres.run(&database, "CHECKPOINT"));
    block_in_place(|| disk.sync())?;
    let clients = Arc::new(Writer::open(&folder, history::CLIENTS, clock)?);
    let injector = Writer::open(&folder, history::INJECTOR, clock)?;
    let time = EVERY * (images_wanted + 1);
    let load = Load { urls, shape: LOAD.load, time, seed: settings.seed, history: clients };
    let (mut tasks, began) = (JoinSet::new(), Instant::now());
    tasks.spawn(load.run());
    let mut images = Vec::new();
    for number in 1..=images_wanted {
        tokio::time::sleep_until(began + EVERY * number).await;
        // Whoever has its 202 before this line has it before the power goes.
        injector.note(InjectorEvent::Troubled { trouble: number.to_string(), harm: Harm::Nothing })?;
        images.push(block_in_place(|| image(&disk, &postgres, number))?);
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    drop(fleet);
    let inside = postgres.folder().strip_prefix(disk.at()).context("the server's folder is on the disk")?.to_owned();
    block_in_place(|| look(&folder, &images, &inside, &database))
}

/// What the images do not know of what clients were told before each.
fn look(folder: &Path, images: &[PathBuf], inside: &Path, database: &str) -> Result<(usize, usize)> {
    let clients = history::read::<ClientEvent>(folder, history::CLIENTS)?;
    let injector = history::read::<InjectorEvent>(folder, history::INJECTOR)?;
    let told = |until_us: u64| -> HashSet<&str> {
        let before = clients.iter().filter(|line| line.mono_us < until_us);
        let ids = before.filter_map(|line| match &line.event {
            ClientEvent::Accepted { ids, .. } => Some(ids),
            _ => None,
        });
        ids.flatten().map(String::as_str).collect()
    };
    let mut lost = 0;
    for (image, cut) in images.iter().zip(&injector) {
        let disk = Disk::mount(image)?;
        let server = PostgresServer::start_on(disk.at().join(inside));
        let known = server.run(database, "SELECT id FROM jobs UNION ALL SELECT id FROM settled_jobs");
        let known: HashSet<&str> = known.lines().collect();
        let told = told(cut.mono_us);
        let missing = told.difference(&known).count();
        println!("  {}: {} accepted, {missing} missing", image.display(), told.len());
        lost += missing;
        drop((server, disk));
        fs::remove_file(image)?;
    }
    Ok((told(u64::MAX).len(), lost))
}

/// A copy of what the disk holds at this moment.
fn image(disk: &Disk, postgres: &PostgresServer, number: u32) -> Result<PathBuf> {
    postgres.freeze();
    let image = disk.copy(&format!("image-{number}"));
    postgres.thaw();
    image
}
