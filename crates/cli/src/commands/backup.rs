//! `longshore backup …`: makes, lists, checks, restores and prunes backups. These verbs work with the configuration of the
//! installation and without its server, so that they work when nothing else does.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use queue_core::{
    archive::Objects,
    backup::{
        Cause, Identities, Known, Manifest, NewBackup, Place, Prune, Restored, Restoring, Scope, Source, Verdict,
        erasures_of, found, restore, verify,
    },
    journal::postgres::PostgresConfig,
    location::Location,
    time::SystemClock,
};
use serde_json::{Value, json};

use crate::{
    backups,
    commands::{Operator, redis_snapshot, remote_backup},
    config::{self, Config, Flags, read_bounded},
    failure::{Exit, Failure, Outcome},
    output::{self, Output},
    rehearsal::Drill,
};

/// The configuration of the installation.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Installation {
    /// The configuration file [env: LONGSHORE_CONFIG] [default: ./longshore.toml where it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The journal [env: LONGSHORE_JOURNAL] [default: sqlite:DATA/journal.db]
    #[arg(long, value_name = "URL")]
    journal: Option<String>,
}

impl Installation {
    /// As flags of a role.
    pub(crate) fn flags(&self) -> Flags {
        Flags { config: self.config.clone(), journal: self.journal.clone(), ..Flags::default() }
    }
}

/// Which backup, and what opens it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// The backup, or `latest`
    id: String,
    /// Where it is: file:PATH or s3://BUCKET/PREFIX [default: `[backup] url`]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// The age identity that opens it [default: `[backup] identity_file`]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

/// What can be done with backups.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a backup; it is good once it was read back
    Create {
        /// database, objects, config, or full: all of these
        #[arg(long, default_value = "full", value_parser = scope)]
        scope: Scope,
        /// Why, for the record
        #[arg(long)]
        reason: Option<String>,
        /// Order it from the server, whose schedulers make it, and wait for it
        #[arg(long, conflicts_with_all = ["config", "journal"])]
        remote: bool,
        #[command(flatten)]
        of: Installation,
    },
    /// List the backups of a place, newest first
    List {
        /// List what was ordered from the server, and what became of it
        #[arg(long, conflicts_with_all = ["config", "journal", "from"])]
        remote: bool,
        /// Where: file:PATH or s3://BUCKET/PREFIX [default: `[backup] url`]
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        #[command(flatten)]
        of: Installation,
    },
    /// Read every part of a backup again, compare it, and open it where there is an identity
    Verify {
        #[command(flatten)]
        which: Which,
        /// Order it from the server, whose schedulers read it, and wait for it
        #[arg(long, conflicts_with_all = ["config", "journal", "from", "identity"])]
        remote: bool,
        /// Restore it into a scratch database, too, compare every table, and let it drain jobs: a drill
        #[arg(long)]
        restore: bool,
        #[command(flatten)]
        of: Installation,
    },
    /// Restore a backup into an empty database; what comes back is paused until `maintenance off` confirms it
    Restore {
        #[command(flatten)]
        which: Which,
        /// sqlite:PATH, where no file is, or postgres://… of an empty database (its password may be in PGPASSWORD)
        #[arg(long, value_name = "URL")]
        into: String,
        /// Put archived dead letters back into this folder, too
        #[arg(long, value_name = "file:PATH")]
        objects_into: Option<String>,
        /// An erase log that was kept beside the backups (`tenant erase --log`), beyond that of the newest backup
        #[arg(long, value_name = "FILE")]
        erasures: Option<PathBuf>,
        /// Restore although the erase log of a newer backup cannot be read: whoever stands in that alone comes back
        #[arg(long)]
        without_newer_logs: bool,
        #[command(flatten)]
        of: Installation,
    },
    /// Delete what the days, weeks and months do not keep; only says what that is unless --yes is given
    Prune {
        /// Do it
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        of: Installation,
    },
    /// Keep what Redis holds in a file, to look at it later: no restore needs it
    RedisSnapshot {
        /// A new file
        file: PathBuf,
        #[command(flatten)]
        of: Installation,
    },
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::parse(word).ok_or_else(|| format!("`{word}` is no scope; there are database, objects, config and full"))
}

impl Verb {
    /// Whose configuration it works with.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Create { of, .. }
            | Self::List { of, .. }
            | Self::Verify { of, .. }
            | Self::Restore { of, .. }
            | Self::Prune { of, .. }
            | Self::RedisSnapshot { of, .. } => of.flags(),
        }
    }
}

/// Runs one of them.
pub(crate) async fn run(
    verb: Verb,
    out: Output,
    load: impl Fn(&Flags) -> Result<Config, Failure>,
    operator: impl Fn() -> Result<Operator, Failure>,
) -> Outcome {
    match &verb {
        Verb::Create { scope, reason, remote: true, .. } => {
            return remote_backup::create(&operator()?, *scope, reason.clone()).await;
        }
        Verb::List { remote: true, .. } => return remote_backup::list(&operator()?).await,
        Verb::Verify { which, remote: true, restore, .. } => {
            return remote_backup::verify(&operator()?, &which.id, *restore).await;
        }
        _ => {}
    }
    let config = &load(&verb.flags())?;
    match verb {
        Verb::Create { scope, reason, .. } => make(config, scope, reason, out).await,
        Verb::List { from, .. } => list(&place(config, from)?, out).await,
        Verb::Verify { which, restore: true, .. } => drill(config, &which, out).await,
        Verb::Verify { which, .. } => check(&which, config, out).await,
        Verb::Restore { which, into, objects_into, erasures, without_newer_logs, .. } => {
            let identities = wanted_identities(&which, config)?;
            let place = place(config, which.from.clone())?;
            let restoring = Restoring {
                id: backups::named(&place, &which.id).await?.manifest.id,
                into: target(&into)?,
                objects_into: objects_into.as_deref().map(|url| objects(url, &config.buckets)).transpose()?,
                erasures: erasures.as_deref().map(log).transpose()?.unwrap_or_default(),
                without_newer_logs,
            };
            let journal = restoring.into.clone();
            let restored = restore(&place, &identities, restoring, &SystemClock).await?;
            let subject = format!("/v1/backups/{}", restored.manifest.id);
            let detail =
                json!({"of": restored.manifest.snapshot_at, "erased": restored.erased, "place": place.shown()});
            backups::note(&journal, "restore", &subject, detail).await;
            show_restored(&restored, &into, out);
            Ok(Exit::Ok)
        }
        Verb::Prune { yes, .. } => sweep(config, yes, out).await,
        Verb::RedisSnapshot { file, .. } => redis_snapshot::keep(&config.dispatcher, &file, out),
    }
}

/// The place that is named, or the configured one.
fn place(config: &Config, from: Option<String>) -> Result<Place, Failure> {
    match from {
        Some(url) => {
            // A folder that is not there has no backups: it is not made for that.
            let location = Location::parse(&url).map_err(|reason| Failure::usage(format!("--from: {reason}")))?;
            if location.folder().is_some_and(|folder| !folder.is_dir()) {
                return Err(Failure::usage(format!("--from {url}: there is no such folder")));
            }
            Place::open(&url, &config.buckets).map_err(Failure::usage)
        }
        None => backups::configured(config)?.place().map_err(Failure::error),
    }
}

fn identities(which: &Which, config: &Config) -> Result<Option<Arc<Identities>>, Failure> {
    match (&which.identity, &config.backup) {
        (Some(file), _) => config::backup::identities(file).map(Some).map_err(Failure::usage),
        (None, Some(backup)) => backup.identities().map_err(Failure::usage),
        (None, None) => Ok(None),
    }
}

fn wanted_identities(which: &Which, config: &Config) -> Result<Arc<Identities>, Failure> {
    identities(which, config)?.ok_or_else(|| {
        Failure::usage(
            "backups are encrypted: name the file of an age identity with --identity, or as `[backup] identity_file`",
        )
    })
}

/// The database that `--into` names.
fn target(url: &str) -> Result<Source, Failure> {
    match url.split_once(':') {
        Some(("sqlite", path)) if !path.trim_start_matches("//").is_empty() => {
            Ok(Source::Sqlite(path.strip_prefix("//").unwrap_or(path).into()))
        }
        Some(("postgres" | "postgresql", _)) => Ok(Source::Postgres(Box::new(PostgresConfig::new(url)))),
        _ => Err(Failure::usage("--into is `sqlite:PATH` or `postgres://…`")),
    }
}

fn objects(url: &str, buckets: &BTreeMap<String, String>) -> Result<Objects, Failure> {
    let location = Location::parse(url).map_err(|reason| Failure::usage(format!("--objects-into: {reason}")))?;
    Objects::open(&location, buckets).map_err(Failure::error)
}

fn log(path: &std::path::Path) -> Result<Vec<queue_core::erasure::Erasure>, Failure> {
    let text = read_bounded(path).map_err(|error| error.to_string());
    text.and_then(|text| erasures_of(&text)).map_err(|reason| Failure::usage(format!("{}: {reason}", path.display())))
}

async fn make(config: &Config, scope: Scope, reason: Option<String>, out: Output) -> Outcome {
    let setup = backups::setup(config)?;
    if scope.has_objects() && setup.objects.is_none() && scope != Scope::Full {
        return Err(Failure::usage("there is no place for objects to back up: `[objects] url` names one"));
    }
    let (manifest, offsite) = backups::make(&setup, NewBackup::of(scope, Cause::Asked, reason)).await?;
    let failed = offsite.map(|error| error.to_string());
    let detail =
        json!({"scope": manifest.scope, "cause": manifest.cause, "backup": manifest.id, "offsite_error": failed});
    backups::note(&setup.source, "create", &format!("/v1/backups/{}", manifest.id), detail).await;
    let mut value = json!(manifest);
    value["place"] = json!(setup.place.shown());
    value["offsite"] = json!(setup.offsite.as_ref().map(Place::shown));
    value["offsite_error"] = json!(failed);
    out.show(&value, || {
        output::line(&format!("backup {} is good: {}", manifest.id, described(&manifest)));
        if !manifest.opened {
            output::line("its hashes were compared; name an identity (`[backup] identity_file`) and it is opened, too");
        }
    });
    match failed {
        None => Ok(Exit::Ok),
        Some(error) => {
            output::note(&format!("the second place has no copy: {error}"));
            Ok(Exit::Partial)
        }
    }
}

/// What is in a backup, in a few words.
fn described(manifest: &Manifest) -> String {
    let mut words = vec![manifest.scope.as_str().to_owned(), format!("{} parts", manifest.parts.len())];
    words.push(format!("{} bytes", manifest.bytes()));
    if let Some(database) = &manifest.database {
        let rows: u64 = database.tables.values().map(|table| table.rows).sum();
        words.push(format!("{rows} rows of schema {}", database.schema));
    }
    if let Some(objects) = &manifest.objects {
        words.push(format!("{} objects", objects.objects));
    }
    words.join(", ")
}

/// A good backup as programs read it.
fn value_of(known: &Known) -> Value {
    let mut value = json!(known.manifest);
    value["bytes"] = json!(known.manifest.bytes());
    value["verified"] = json!(known.verified);
    value
}

async fn list(place: &Place, out: Output) -> Outcome {
    let found = found(place).await?;
    let value = json!({
        "place": place.shown(),
        "backups": found.good.iter().map(value_of).collect::<Vec<_>>(),
        "unfinished": found.unfinished.iter().map(|(id, last)| json!({"id": id, "last_written_at": last})).collect::<Vec<_>>(),
        "damaged": found.damaged.iter().map(|(id, reason)| json!({"id": id, "reason": reason})).collect::<Vec<_>>(),
    });
    out.show(&value, || {
        let rows = found.good.iter().map(|known| {
            let manifest = &known.manifest;
            let checked = known.verified.map_or_else(String::new, |verified| {
                let how = if verified.restored_at == Some(verified.at) {
                    "restored"
                } else if verified.opened {
                    "opened"
                } else {
                    "compared"
                };
                format!("{} {how}", verified.at)
            });
            vec![
                manifest.id.to_string(),
                manifest.scope.as_str().to_owned(),
                manifest.snapshot_at.to_string(),
                manifest.bytes().to_string(),
                manifest.cause.as_str().to_owned(),
                checked,
            ]
        });
        output::table(&["ID", "SCOPE", "OF", ">BYTES", "WHY", "CHECKED"], rows.collect());
        for (id, _) in &found.unfinished {
            output::line(&format!("{id} has no manifest: it is being made, or was broken off, and is no backup"));
        }
        for (id, reason) in &found.damaged {
            output::line(&format!("{id} is not good: {reason}"));
        }
    });
    Ok(if found.damaged.is_empty() { Exit::Ok } else { Exit::Partial })
}

async fn check(which: &Which, config: &Config, out: Output) -> Outcome {
    let (place, identities) = (place(config, which.from.clone())?, identities(which, config)?);
    let id = backups::named(&place, &which.id).await?.manifest.id;
    let Verdict { known, at, opened, damaged } = verify(&place, id, identities.as_ref(), &SystemClock).await?;
    let value = json!({
        "id": id, "at": at, "opened": opened, "good": damaged.is_empty(),
        "damaged": damaged.iter().map(|(part, reason)| json!({"part": part, "reason": reason})).collect::<Vec<_>>(),
    });
    out.show(&value, || match damaged.as_slice() {
        [] => {
            let how = if opened { "opened" } else { "compared, not opened: no identity was given" };
            output::line(&format!("backup {id} is good: {} parts were {how}", known.manifest.parts.len()));
        }
        damaged => damaged.iter().for_each(|(part, reason)| output::line(&format!("{part}: {reason}"))),
    });
    Ok(if damaged.is_empty() { Exit::Ok } else { Exit::Error })
}

/// Restores a backup into a scratch database and tries it.
async fn drill(config: &Config, which: &Which, out: Output) -> Outcome {
    let mut setup = backups::setup(config)?;
    setup.place = place(config, which.from.clone())?;
    setup.identities = Some(wanted_identities(which, config)?);
    let id = backups::named(&setup.place, &which.id).await?.manifest.id;
    let scratch = backups::configured(config)?.scratch.clone();
    let scheduler::Rehearsed { recovery_ms, lost_ms } = Drill { setup, scratch }.run(id).await?;
    let seconds = |ms: i64| ms as f64 / 1e3;
    let value = json!({
        "id": id, "good": true, "recovery_seconds": seconds(recovery_ms), "lost_seconds": seconds(lost_ms),
    });
    out.show(&value, || {
        output::line(&format!("backup {id} was restored, compared, and has drained jobs"));
        output::line(&format!("recovery time: {:.1} s", seconds(recovery_ms)));
        output::line(&format!("recovery point: what is newer than {:.0} s would have been lost", seconds(lost_ms)));
    });
    Ok(Exit::Ok)
}

/// What can be done with drills.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DrillVerb {
    /// Restore a backup into a scratch database, compare every table, and let the restored system drain jobs
    Run {
        /// The backup
        #[arg(default_value = "latest")]
        id: String,
        /// Where it is: file:PATH or s3://BUCKET/PREFIX [default: `[backup] url`]
        #[arg(long, value_name = "URL")]
        from: Option<String>,
        /// The age identity that opens it [default: `[backup] identity_file`]
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        #[command(flatten)]
        of: Installation,
    },
}

/// Runs one of them.
pub(crate) async fn run_drill(
    verb: DrillVerb,
    out: Output,
    load: impl Fn(&Flags) -> Result<Config, Failure>,
) -> Outcome {
    let DrillVerb::Run { id, from, identity, of } = verb;
    drill(&load(&of.flags())?, &Which { id, from, identity }, out).await
}

fn show_restored(restored: &Restored, into: &str, out: Output) {
    let Restored { manifest, reason, erased, log_of, erasures_left, objects, took_ms } = restored;
    let database = manifest.database.as_ref();
    let live = database.map_or(0, |database| database.live_jobs);
    let value = json!({
        "id": manifest.id, "of": manifest.snapshot_at, "reason": reason, "live_jobs": live, "erased": erased,
        "erase_log_of": log_of, "erasures_left": erasures_left, "objects": objects, "took_ms": took_ms,
    });
    out.show(&value, || {
        let store = crate::environment::without_secrets(into);
        output::line(&format!("backup {} is restored into {store}, as of {}", manifest.id, manifest.snapshot_at));
        output::line(
            "it is paused: no job is taken or begun and no webhook is sent before you confirm it with `longshore maintenance off`",
        );
        output::line(&format!(
            "{live} jobs may run again then; what they did after {} is forgotten, and may be paid a second time",
            manifest.snapshot_at
        ));
        output::line(&format!(
            "the erase logs up to that of backup {log_of} were replayed ({erased} tenants): if anybody was erased later, replay a log that you \
             kept (`longshore tenant erase --replay FILE --yes`) before you confirm"
        ));
        if *erasures_left > 0 {
            output::line(&format!(
                "{erasures_left} tenants are still to be erased: `longshore migrate`, then `longshore tenant erase --replay`"
            ));
        }
    });
}

async fn sweep(config: &Config, yes: bool, out: Output) -> Outcome {
    let (setup, keep) = (backups::setup(config)?, backups::configured(config)?.keep);
    let mut places = vec![setup.place.clone()];
    places.extend(setup.offsite.clone());
    let mut values = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        let prune = Prune::plan(&place, keep, &*setup.clock).await?;
        if yes {
            // The journal knows them by the first place.
            if at == 0 {
                backups::say(&setup.source, &prune).await;
            }
            prune.carry_out(&place).await?;
        }
        let deleted: Vec<String> = prune.delete.iter().map(|known| known.manifest.id.to_string()).collect();
        if !out.json {
            let done = if yes { "deleted" } else { "would be deleted" };
            for known in &prune.delete {
                output::line(&format!("{} of {} {done}", known.manifest.id, known.manifest.snapshot_at));
            }
            output::line(&format!(
                "{}: {} backups stay, {} {done}, {} unfinished ones {done}",
                place.shown(),
                prune.keep.len(),
                deleted.len(),
                prune.unfinished.len()
            ));
        }
        values.push(json!({
            "place": place.shown(), "kept": prune.keep.len(), "deleted": deleted, "unfinished": prune.unfinished,
        }));
    }
    if yes {
        backups::note(&setup.source, "prune", "/v1/backups", json!({"places": values})).await;
    }
    if out.json {
        out.value(&json!({"dry_run": !yes, "places": values, "at": setup.clock.now()}));
    } else if !yes {
        output::line("nothing was deleted: give --yes to do it");
    }
    Ok(Exit::Ok)
}
