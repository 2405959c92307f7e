//! Backups of both stores: there and back, what is damaged, what was broken off, and who stays erased.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use age::secrecy::ExposeSecret;
use tempfile::TempDir;
use testkit::PostgresServer;

use super::{
    manifest::{MANIFEST, VERIFIED},
    *,
};
use crate::{
    archive::Objects,
    erasure::Erasure,
    ids::{Incarnation, Name},
    journal::{
        Maintenance,
        conformance::{Opened, accept_new, accepted, job, settle, success, token},
        postgres::{PostgresConfig, PostgresJournal, connect, migrate},
        sqlite::SqliteJournal,
    },
    stores::Truth,
    time::{DAY_MS, ManualClock, Timestamp},
};

const NOW: Timestamp = Timestamp(1_795_000_000_000);

/// An installation with a place for backups.
struct Scene {
    folder: TempDir,
    clock: ManualClock,
    setup: Setup,
    /// Keys of the two recipients, and one of nobody.
    keys: [String; 3],
}

fn new_key() -> (String, String) {
    let key = age::x25519::Identity::generate();
    (key.to_public().to_string(), key.to_string().expose_secret().to_owned())
}

impl Scene {
    fn of(source: Source, folder: TempDir) -> Self {
        let clock = ManualClock::at(NOW);
        let ((first, one), (second, two), (_, stranger)) = (new_key(), new_key(), new_key());
        let place = |name: &str| {
            Place::open(&format!("file:{}", folder.path().join(name).display()), &Default::default()).unwrap()
        };
        let setup = Setup {
            place: place("backups"),
            offsite: Some(place("offsite")),
            recipients: Arc::new(Recipients::parse(&[first, second]).unwrap()),
            identities: Some(Arc::new(Identities::parse(&one).unwrap())),
            source,
            objects: None,
            config: serde_json::json!({"listen": "127.0.0.1:1"}),
            scratch: folder.path().to_owned(),
            clock: Arc::new(clock.clone()),
        };
        Self { folder, clock, setup, keys: [one, two, stranger] }
    }

    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::Sqlite(folder.path().join("journal.db"));
        let scene = Self::of(source, folder);
        drop(scene.journal_of_file(&scene.folder.path().join("journal.db")));
        scene
    }

    async fn postgres() -> Self {
        let config =
            PostgresConfig::new(tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap());
        migrate(&mut connect(&config).await.unwrap()).await.unwrap();
        Self::of(Source::Postgres(Box::new(config)), tempfile::tempdir().unwrap())
    }

    fn journal_of_file(&self, path: &Path) -> SqliteJournal {
        SqliteJournal::open(path, Arc::new(self.clock.clone())).unwrap()
    }

    /// The seams over a journal.
    async fn open(&self, source: &Source) -> Opened {
        match source {
            Source::Sqlite(path) => opened(self.journal_of_file(path)),
            Source::Postgres(config) => {
                opened(PostgresJournal::open(config, Arc::new(self.clock.clone())).await.unwrap())
            }
        }
    }

    /// An empty database of the same store.
    async fn empty(&self) -> Source {
        match &self.setup.source {
            Source::Sqlite(_) => Source::Sqlite(self.folder.path().join(format!("restored-{}.db", Uuid::now_v7()))),
            Source::Postgres(_) => {
                let url = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.unwrap();
                Source::Postgres(Box::new(PostgresConfig::new(url)))
            }
        }
    }

    async fn create(&self, scope: Scope) -> Manifest {
        create(&self.setup, NewBackup::of(scope, Cause::Asked, None)).await.unwrap()
    }

    async fn restore(&self, id: BackupId, into: &Source) -> Result<Restored, BackupError> {
        let identities = self.setup.identities.clone().unwrap();
        let asked =
            Restoring { id, into: into.clone(), objects_into: None, erasures: vec![], without_newer_logs: false };
        restore(&self.setup.place, &identities, asked, &self.clock).await
    }

    fn file(&self, id: BackupId, name: &str) -> PathBuf {
        self.folder.path().join("backups/backups").join(id.to_string()).join(name)
    }
}

fn opened(journal: impl Truth) -> Opened {
    Opened::over(journal)
}

fn order(tenant: &str) -> Erasure {
    Erasure::order(tenant.into(), Erasure::new_pseudonym(), NOW)
}

/// There and back, with jobs in several states; what comes back waits for somebody.
async fn there_and_back(scene: Scene) {
    let store = scene.open(&scene.setup.source).await;
    let (done, waiting) = (accepted(&store).await, accepted(&store).await);
    settle(&store, token(done.id, 0), success()).await;
    let leaver = crate::job::NewJob { tenant: "leaver".into(), ..job() };
    accept_new(&store, &leaver).await;
    let generation = store.journal.new_generation().await.unwrap();

    let manifest = scene.create(Scope::Full).await;
    let facts = manifest.database.clone().unwrap();
    assert_eq!((facts.live_jobs, facts.generation, facts.incarnation), (2, generation.0, 1));
    assert!(facts.tables.len() > 20 && facts.tables["meta"].rows == 1, "{:?}", facts.tables.keys());
    assert!(manifest.opened && manifest.recipients.len() == 2);
    // What happens later is none of it.
    accepted(&store).await;
    scene.clock.advance_ms(60_000);
    store.erasures.erase(order("leaver"), scene.clock.now()).await.unwrap();
    let later = scene.create(Scope::Database).await;
    assert_eq!(later.database.as_ref().unwrap().erasures.tenants, 1);

    let into = scene.empty().await;
    let restored = scene.restore(manifest.id, &into).await.unwrap();
    assert_eq!((restored.log_of, restored.erased, restored.erasures_left), (later.id, 1, 0));
    let back = scene.open(&into).await;
    let jobs = back.reads.jobs(&[done.id, waiting.id]).await.unwrap();
    let originals = store.reads.jobs(&[done.id, waiting.id]).await.unwrap();
    assert!(jobs.iter().all(Option::is_some) && format!("{jobs:?}") == format!("{originals:?}"));
    // Paused, unconfirmed, in another life, and with the erase log of the later backup.
    let reason = |maintenance: Option<Maintenance>| maintenance.unwrap().reason.unwrap();
    assert_eq!(reason(back.orders.maintenance().await.unwrap()), restored.reason);
    assert!(back.orders.awaits_confirmation().await.unwrap());
    let lives = (back.journal.incarnation(), back.catalog.filling().await.unwrap().generation.0);
    assert_eq!(lives, (Incarnation(scene.clock.now().0), scene.clock.now().0));
    assert!(lives.1 > generation.0 && lives.1 < 1 << 53);
    let log = back.erasures.erasures().await.unwrap();
    assert_eq!(log.iter().map(|erasure| erasure.tenant.as_str()).collect::<Vec<_>>(), ["leaver"]);
    assert!(log[0].is_due(scene.clock.now().plus_ms(1)));
    // An attempt of the life before writes nothing here.
    let other = crate::journal::Settlement { incarnation: Incarnation(1), ..settlement_of(&back, &waiting) };
    let settled = back.journal.settle(other).await.unwrap();
    assert!(!matches!(settled, crate::journal::Settled::Done { .. }), "{settled:?}");
    // Maintenance that is told again stays unconfirmed; its end confirms.
    let again = Maintenance { since: scene.clock.now(), reason: Some("still looking".into()) };
    back.orders.set_maintenance(Some(again)).await.unwrap();
    assert!(back.orders.awaits_confirmation().await.unwrap());
    back.orders.set_maintenance(None).await.unwrap();
    assert!(!back.orders.awaits_confirmation().await.unwrap());
    drop(back);
    // A second restore of the same backup has other lives: what knows the first one's is not believed by it.
    scene.clock.advance_ms(1);
    let second = scene.empty().await;
    scene.restore(manifest.id, &second).await.unwrap();
    let second = scene.open(&second).await;
    let other = (second.journal.incarnation(), second.catalog.filling().await.unwrap().generation.0);
    assert!(other.0 > lives.0 && other.1 > lives.1, "{other:?}");
    drop(second);
    // Who was erased since stands in a log that cannot be read.
    let log = scene.file(later.id, "erasures.ndjson.zst.age");
    let whole = std::fs::read(&log).unwrap();
    flip(&log, |bytes| bytes / 2);
    let third = scene.empty().await;
    let refused = scene.restore(manifest.id, &third).await.unwrap_err();
    assert!(matches!(&refused, BackupError::Refused(why) if why.contains(&later.id.to_string())), "{refused}");
    std::fs::write(&log, whole).unwrap();

    let refused = scene.restore(manifest.id, &into).await.unwrap_err();
    assert!(
        matches!(&refused, BackupError::Refused(why) if why.contains("is there") || why.contains("not empty")),
        "{refused}"
    );
    // The second place, and a look that finds all of it good.
    let offsite = scene.setup.offsite.clone().unwrap();
    copy(&scene.setup.place, &offsite, &manifest).await.unwrap();
    for place in [&scene.setup.place, &offsite] {
        let verdict = verify(place, manifest.id, scene.setup.identities.as_ref(), &scene.clock).await.unwrap();
        assert!(verdict.opened && verdict.damaged.is_empty(), "{verdict:?}");
        assert_eq!(found(place).await.unwrap().good.iter().filter(|known| known.verified.is_some()).count(), 1);
    }
}

fn settlement_of(store: &Opened, job: &crate::job::NewJob) -> crate::journal::Settlement {
    crate::journal::conformance::settlement(store, token(job.id, 0), success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_there_and_back() {
    there_and_back(Scene::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_there_and_back() {
    there_and_back(Scene::postgres().await).await;
}

/// A role that is bound by row-level security but for the journal's own policies: neither superuser nor exempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_role_backs_everything_up_and_restores_it() {
    let server = PostgresServer::shared();
    // Makes the roles, as an administrator does.
    Scene::postgres().await;
    let (scene, url) = tokio::task::spawn_blocking(move || {
        server.run("postgres", "CREATE ROLE keeper LOGIN PASSWORD 'it%s'");
        server.run("postgres", "GRANT longshore_switch TO keeper");
        let url = server.database();
        let name = url.rsplit('/').next().unwrap().to_owned();
        server.run("postgres", &format!("ALTER DATABASE {name} OWNER TO keeper"));
        (tempfile::tempdir().unwrap(), url.replace("postgres@", "keeper:it%25s@"))
    })
    .await
    .unwrap();
    let config = PostgresConfig::new(url.clone());
    migrate(&mut connect(&config).await.unwrap()).await.unwrap();
    let scene = Scene::of(Source::Postgres(Box::new(config)), scene);
    let store = scene.open(&scene.setup.source).await;
    accepted(&store).await;
    let manifest = scene.create(Scope::Database).await;
    assert_eq!(manifest.database.as_ref().unwrap().tables["jobs"].rows, 1);
    let into = tokio::task::spawn_blocking(move || {
        let url = server.database();
        let name = url.rsplit('/').next().unwrap().to_owned();
        server.run("postgres", &format!("ALTER DATABASE {name} OWNER TO keeper"));
        url.replace("postgres@", "keeper:it%25s@")
    })
    .await
    .unwrap();
    let into = Source::Postgres(Box::new(PostgresConfig::new(into)));
    scene.restore(manifest.id, &into).await.unwrap();
    // The second wall stands again, and a tenant's caller sees its own.
    let back = scene.open(&into).await;
    let bound = back.reads.bound_to(&Name::from("acme"));
    let all = crate::journal::JobFilter { limit: 10, ..Default::default() };
    assert_eq!(bound.list(&all).await.unwrap().jobs.len(), 1);
    let stranger = back.reads.bound_to(&Name::from("globex"));
    assert_eq!(stranger.list(&all).await.unwrap().jobs.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_named_and_never_restored() {
    let scene = Scene::sqlite();
    let objects = Objects::folder(&scene.folder.path().join("objects")).unwrap();
    objects.put_back("archives/acme/one.ndjson.zst", "letters".into()).await.unwrap();
    let mut setup = scene.setup.clone();
    setup.objects = Some(objects);
    let manifest = create(&setup, NewBackup::of(Scope::Full, Cause::Asked, None)).await.unwrap();
    assert_eq!(manifest.objects.unwrap().objects, 1);
    let names: Vec<&str> = manifest.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(
        names,
        ["database.sqlite.zst.age", "erasures.ndjson.zst.age", "objects.tar.zst.age", "config.json.zst.age"]
    );
    let identities = |key: usize| Some(Arc::new(Identities::parse(&scene.keys[key]).unwrap()));
    let look = async |key: Option<usize>| {
        let key = key.and_then(identities);
        verify(&scene.setup.place, manifest.id, key.as_ref(), &scene.clock).await
    };
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 4] = [
        ("SHA-256", |file| flip(file, |bytes| bytes / 2)),
        ("SHA-256", |file| flip(file, |bytes| bytes - 1)),
        ("bytes", |file| cut(file)),
        ("not there", |file| std::fs::remove_file(file).unwrap()),
    ];
    for part in &names {
        let file = scene.file(manifest.id, part);
        let whole = std::fs::read(&file).unwrap();
        for (word, harm) in harms {
            harm(&file);
            // Hashes alone tell it; with a key it is told no otherwise.
            for key in [None, Some(0)].into_iter().take(if *part == names[0] { 2 } else { 1 }) {
                let damaged = look(key).await.unwrap().damaged;
                assert!(
                    damaged.len() == 1 && damaged[0].0 == **part && damaged[0].1.contains(word),
                    "{part}: {damaged:?}"
                );
            }
            // No list of good ones has it, until it is found good again.
            let found = found(&scene.setup.place).await.unwrap();
            assert_eq!((found.good.len(), found.harmed.len(), found.damaged.len()), (0, 1, 1), "{part}: {word}");
            assert!(found.damaged[0].1.starts_with(part), "{:?}", found.damaged);
            if *part == "database.sqlite.zst.age" {
                let into = scene.empty().await;
                let error = scene.restore(manifest.id, &into).await.unwrap_err();
                assert!(matches!(&error, BackupError::Damaged { part: named, .. } if named == part), "{error}");
                let Source::Sqlite(path) = &into else { panic!("{into:?}") };
                assert!(!path.exists(), "nothing is left of it");
            }
            std::fs::write(&file, &whole).unwrap();
        }
    }
    // Either recipient opens it, and nobody else.
    assert_eq!(look(Some(1)).await.unwrap().damaged, []);
    let strange = look(Some(2)).await.unwrap().damaged;
    assert!(strange.len() == 4 && strange.iter().all(|(_, why)| why.contains("no identity")), "{strange:?}");
    assert_eq!(found(&scene.setup.place).await.unwrap().good[0].verified.unwrap().at, NOW);
    let file = scene.file(manifest.id, MANIFEST);
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.replace("\"asked\"", "\"schedule\"")).unwrap();
    let error = look(None).await.unwrap_err();
    assert!(matches!(&error, BackupError::Damaged { part, .. } if part == MANIFEST), "{error}");
    assert_eq!(found(&scene.setup.place).await.unwrap().damaged.len(), 1);
}

fn flip(file: &Path, at: fn(usize) -> usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

fn cut(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_off_is_no_backup_and_goes_after_a_day() {
    let scene = Scene::sqlite();
    let (broken, whole) = (scene.create(Scope::Config).await.id, scene.create(Scope::Config).await.id);
    // The manifest is the last file that is written: without it, whatever else is there, it is none.
    std::fs::remove_file(scene.file(broken, MANIFEST)).unwrap();
    // Of a write that was killed: no list shows it.
    std::fs::write(scene.file(broken, "database.sqlite.zst.age#1"), "half").unwrap();
    let found = found(&scene.setup.place).await.unwrap();
    assert_eq!(found.good.iter().map(|known| known.manifest.id).collect::<Vec<_>>(), [whole]);
    assert_eq!(found.unfinished.len(), 1);
    let missing = verify(&scene.setup.place, broken, None, &scene.clock).await.unwrap_err();
    assert_eq!(missing, BackupError::NotFound(broken));
    let written = found.unfinished[0].1.unwrap();
    let sweep = async |later: i64, is_dry: bool| {
        let clock = ManualClock::at(written.plus_ms(later));
        let prune = Prune::plan(&scene.setup.place, Keep::default(), &clock).await.unwrap();
        if !is_dry {
            prune.carry_out(&scene.setup.place).await.unwrap();
        }
        prune.unfinished
    };
    assert_eq!(sweep(DAY_MS - 1, false).await, [], "somebody may be at work");
    assert_eq!(sweep(DAY_MS + 1, true).await, [broken]);
    assert!(scene.file(broken, "config.json.zst.age").exists(), "a dry run deletes nothing");
    assert_eq!(sweep(DAY_MS + 1, false).await, [broken]);
    assert!(!scene.file(broken, "").exists(), "nor is its folder left");
    // A source that breaks in the middle leaves no manifest either.
    let mut setup = scene.setup.clone();
    setup.source = Source::Sqlite(scene.folder.path().join("nowhere.db"));
    create(&setup, NewBackup::of(Scope::Full, Cause::Asked, None)).await.unwrap_err();
    assert_eq!(super::found(&scene.setup.place).await.unwrap().good.len(), 1);
    let left: Vec<_> = std::fs::read_dir(scene.folder.path()).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".backup")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_never_deletes_the_last_that_was_checked() {
    let scene = Scene::sqlite();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(scene.create(Scope::Config).await.id);
        scene.clock.advance_ms(DAY_MS);
    }
    verify(&scene.setup.place, ids[1], None, &scene.clock).await.unwrap();
    let keep = Keep { daily: 2, weekly: 0, monthly: 0 };
    let prune = Prune::plan(&scene.setup.place, keep, &scene.clock).await.unwrap();
    prune.carry_out(&scene.setup.place).await.unwrap();
    assert_eq!(prune.delete.iter().map(|known| known.manifest.id).collect::<Vec<_>>(), [ids[2], ids[0]]);
    let left: Vec<_> = found(&scene.setup.place).await.unwrap().good.iter().map(|known| known.manifest.id).collect();
    assert_eq!(left, [ids[4], ids[3], ids[1]]);
    assert!(!scene.file(ids[1], VERIFIED).to_string_lossy().is_empty() && scene.file(ids[1], VERIFIED).exists());
}

#[test]
fn a_place_whose_disk_is_not_mounted_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &str| Place::open(&format!("file:{}", folder.path().join(path).display()), &Default::default());
    let error = open("mnt/place").unwrap_err();
    assert!(error.contains("mount") && !folder.path().join("mnt").exists(), "{error}");
    std::fs::create_dir(folder.path().join("mnt")).unwrap();
    open("mnt/place").unwrap();
    open("mnt/place").unwrap();
}

#[test]
fn fewer_than_two_recipients_are_refused() {
    let (one, secret) = new_key();
    for (few, word) in [
        (vec![], "0 is named"),
        (vec![one.clone()], "1 is named"),
        (vec![one.clone(), format!(" {one} ")], "1 is named"),
        (vec![one.clone(), "age1nonsense".to_owned()], "age1nonsense"),
    ] {
        let error = Recipients::parse(&few).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
    for wrong in [secret.clone(), format!("{one}{secret}"), format!("{one}\n{secret}")] {
        let error = Recipients::parse(&[one.clone(), wrong]).unwrap_err();
        assert!(!error.contains(&secret), "a secret key in the place of a public one is not told: {error}");
    }
    assert!(Identities::parse("nonsense").is_err() && Identities::parse("").is_err());
}

/// Debian's `age`, which nobody here wrote, opens a part with either key.
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_debian_opens_what_is_written() {
    tokio::task::spawn_blocking(testkit::install_age).await.unwrap();
    let scene = Scene::sqlite();
    let manifest = scene.create(Scope::Database).await;
    for (at, key) in scene.keys.iter().enumerate() {
        let file = scene.folder.path().join(format!("key-{at}"));
        std::fs::write(&file, key).unwrap();
        let part = scene.file(manifest.id, &manifest.parts[0].name);
        let output = Command::new("age").args(["--decrypt", "--identity"]).arg(&file).arg(&part).output().unwrap();
        assert_eq!(output.status.success(), at < 2, "{}", String::from_utf8_lossy(&output.stderr));
        if at < 2 {
            let mut plain = Vec::new();
            zstd::Decoder::new(&*output.stdout).unwrap().read_to_end(&mut plain).unwrap();
            assert!(plain.starts_with(b"SQLite format 3\0") && plain.len() as u64 == manifest.parts[0].plain_bytes);
        }
    }
}
