//! The conformance suite over memory, and what only the embedded mode does: remembering who ran when the process died.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;

use super::{
    MemoryDispatcher,
    lease_file::{LeaseFile, Record, Started},
};
use crate::{
    dispatcher::{Ack, Dispatcher, Entry, Lease, Place, Step, Suspicion, conformance::Fixture},
    ids::{Epoch, Generation, JobId, Nonce, SessionId},
    job::Kind,
    journal::Blame,
    time::{Clock, ManualClock, Timestamp},
};

struct Memory {
    dispatcher: Arc<MemoryDispatcher>,
    clock: ManualClock,
}

impl Memory {
    fn fresh() -> Self {
        let clock = ManualClock::at(Timestamp(1_790_000_000_000));
        Self { dispatcher: Arc::new(MemoryDispatcher::open(Arc::new(clock.clone()), None).unwrap()), clock }
    }
}

#[async_trait]
impl Fixture for Memory {
    fn dispatcher(&self) -> Arc<dyn Dispatcher> {
        self.dispatcher.clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    async fn advance_ms(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }
}

crate::dispatcher_conformance!(Memory::fresh());

fn entry(n: u8) -> Entry {
    Entry {
        id: JobId(uuid::Uuid::from_bytes([n; 16])),
        epoch: Epoch(0),
        queue: "default".into(),
        tenant: "acme".into(),
        target: "t".into(),
        kind: Kind::Llm,
        priority: 5,
        run_at: Timestamp(0),
        suspicion: Suspicion::None,
        key: None,
    }
}

async fn open(file: &Path) -> MemoryDispatcher {
    let clock = ManualClock::at(Timestamp(1_000));
    let dispatcher = MemoryDispatcher::open(Arc::new(clock), Some(file.to_owned())).unwrap();
    dispatcher.begin(Generation(1)).await.unwrap();
    dispatcher
}

/// Claims three jobs, starts the first two, and ends the first.
async fn die_with_one_running(file: &Path) -> Lease {
    let dispatcher = open(file).await;
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    dispatcher.push(vec![entry(1), entry(2), entry(3)]).await.unwrap();
    let step = Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: 9 };
    let claims = dispatcher.step(step.clone()).await.unwrap().claims;
    dispatcher.start(session, &[claims[0].lease, claims[1].lease]).await.unwrap();
    let acks = vec![Ack { lease: claims[0].lease, next: None }];
    dispatcher.step(Step { acks, slots: 0, ..step }).await.unwrap();
    claims[1].lease
}

#[tokio::test]
async fn what_ran_when_the_process_died_is_reaped_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    let running = die_with_one_running(&file).await;

    let dispatcher = open(&file).await;
    let lost = dispatcher.reap(9).await.unwrap();
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].token.id, lost[0].nonce, lost[0].blame), (running.id, running.nonce, Blame::Alone));
    // The rebuild pushes the same epoch: the dead attempt stands before it until the journal has spoken.
    let same = Entry { id: running.id, ..entry(0) };
    dispatcher.push(vec![same.clone()]).await.unwrap();
    assert!(matches!(dispatcher.locate(&[running.id]).await.unwrap()[0], Place::Leased { .. }));
    dispatcher.push(vec![Entry { epoch: Epoch(1), ..same }]).await.unwrap();
    assert!(matches!(dispatcher.locate(&[running.id]).await.unwrap()[0], Place::Waiting { epoch: Epoch(1) }));
    assert!(dispatcher.reap(9).await.unwrap().is_empty());
    drop(dispatcher);
    assert!(open(&file).await.reap(9).await.unwrap().is_empty(), "told once, not at every start");
}

#[tokio::test]
async fn a_torn_lease_file_is_read_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    let running = die_with_one_running(&file).await;
    let mut text = std::fs::read(&file).unwrap();
    text.extend_from_slice(&[9; 70]);
    std::fs::write(&file, text).unwrap();
    let lost = open(&file).await.reap(9).await.unwrap();
    assert_eq!(lost.iter().map(|one| one.token.id).collect::<Vec<_>>(), vec![running.id]);
}

/// Starts all of these in one session and dies.
async fn die_running(file: &Path, entries: Vec<Entry>) -> SessionId {
    let dispatcher = open(file).await;
    let session = SessionId::generate();
    let _signals = dispatcher.join(session, vec![]).await.unwrap();
    dispatcher.push(entries).await.unwrap();
    let claims =
        dispatcher.step(Step { session, acks: vec![], queues: vec![], kinds: vec![], slots: 9 }).await.unwrap().claims;
    let leases: Vec<_> = claims.iter().map(|claim| claim.lease).collect();
    dispatcher.start(session, &leases).await.unwrap();
    session
}

#[tokio::test]
async fn jobs_of_a_dead_process_are_suspected_as_it_knew_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    let of = |n, suspicion| Entry { suspicion, ..entry(n) };
    let suspect = |n| of(n, Suspicion::Suspect);
    // Processes die one after the other before anyone has reaped the first: each is judged by its own.
    let deaths = [
        (vec![suspect(1), entry(2)], vec![Blame::Alone, Blame::Nobody]),
        (vec![entry(3), entry(4)], vec![Blame::Shared; 2]),
        (vec![suspect(5), suspect(6), entry(7)], vec![Blame::Shared, Blame::Shared, Blame::Nobody]),
        (vec![of(8, Suspicion::Isolated), suspect(9)], vec![Blame::Alone, Blame::Nobody]),
    ];
    let mut expected = vec![];
    for (entries, blames) in deaths {
        let session = die_running(&file, entries).await;
        expected.extend(blames.into_iter().map(|blame| (session, blame)));
    }
    let mut lost = open(&file).await.reap(9).await.unwrap();
    lost.sort_by_key(|one| one.token.id);
    assert_eq!(lost.iter().map(|one| (one.session, one.blame)).collect::<Vec<_>>(), expected);
    assert!(lost.iter().all(|one| one.started_at == Some(Timestamp(1_000))));
}

#[tokio::test]
async fn a_job_that_moved_on_is_dropped_by_an_ack_and_by_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    let running = die_with_one_running(&file).await;
    let dispatcher = open(&file).await;
    assert!(matches!(dispatcher.withdraw(running.id).await.unwrap(), Place::Leased { .. }));
    dispatcher.begin(Generation(2)).await.unwrap();
    let lost = dispatcher.reap(9).await.unwrap();
    assert_eq!(lost.len(), 1, "a new life forgets everything but what the file told");
    let acks = vec![Ack { lease: running, next: None }];
    dispatcher.step(Step { session: lost[0].session, acks, queues: vec![], kinds: vec![], slots: 0 }).await.unwrap();
    assert_eq!(dispatcher.locate(&[running.id]).await.unwrap(), vec![Place::Unknown]);
    drop(dispatcher);
    assert!(open(&file).await.reap(9).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_broken_record_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    die_running(&file, vec![entry(1), entry(2), entry(3)]).await;
    let mut text = std::fs::read(&file).unwrap();
    // The second of the three: the first record is the header.
    text[64 * 2 + 20] ^= 0xff;
    std::fs::write(&file, text).unwrap();
    assert_eq!(open(&file).await.reap(9).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_file_that_is_something_else_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases");
    for text in ["", "x", &"not a lease file ".repeat(99)] {
        std::fs::write(&file, text).unwrap();
        assert!(open(&file).await.reap(9).await.unwrap().is_empty());
    }
    die_with_one_running(&file).await;
    assert_eq!(open(&file).await.reap(9).await.unwrap().len(), 1);
    let nowhere = MemoryDispatcher::open(Arc::new(ManualClock::default()), Some(folder.path().join("no/leases")));
    assert!(nowhere.is_err(), "a file that cannot be written is told at the start");
}

fn started(n: u64) -> Started {
    let id = JobId(uuid::Uuid::from_u128(u128::from(n)));
    let lease = Lease { id, epoch: Epoch(0), nonce: Nonce(n) };
    Started { lease, session: SessionId(uuid::Uuid::nil()), at: Timestamp(1), suspicion: Suspicion::None }
}

/// Starts and ends so many that the file has to begin anew at least once.
fn run_through(file: &mut LeaseFile) {
    for n in 1_000..80_000 {
        file.write(&[Record::Start(started(n)), Record::End(started(n).lease)]);
    }
}

#[test]
fn the_file_stays_small_and_keeps_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leases");
    let (mut file, _) = LeaseFile::open(&path).unwrap();
    file.write(&[Record::Start(started(1)), Record::Start(started(2))]);
    run_through(&mut file);
    assert!(std::fs::metadata(&path).unwrap().len() <= 4 << 20);
    let mut running: Vec<_> = LeaseFile::open(&path).unwrap().1.iter().map(|one| one.lease.nonce.0).collect();
    running.sort_unstable();
    assert_eq!(running, vec![1, 2]);
}

#[test]
fn a_file_that_could_not_be_written_is_made_whole_later() {
    let folder = tempfile::tempdir().unwrap();
    let (home, away) = (folder.path().join("data"), folder.path().join("away"));
    std::fs::create_dir(&home).unwrap();
    let path = home.join("leases");
    let (mut file, _) = LeaseFile::open(&path).unwrap();
    std::fs::rename(&home, &away).unwrap();
    // Beginning anew fails while its folder is away; what was started meanwhile is not in any file.
    run_through(&mut file);
    file.write(&[Record::Start(started(7))]);
    std::fs::rename(&away, &home).unwrap();
    file.write(&[Record::Start(started(8))]);
    let mut running: Vec<_> = LeaseFile::open(&path).unwrap().1.iter().map(|one| one.lease.nonce.0).collect();
    running.sort_unstable();
    assert_eq!(running, vec![7, 8]);
}
