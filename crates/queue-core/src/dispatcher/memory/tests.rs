//! The conformance suite over memory, and what only the embedded mode does: remembering who ran when the process died.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;

use super::MemoryDispatcher;
use crate::{
    dispatcher::{Ack, Dispatcher, Entry, Lease, Place, Step, conformance::Fixture},
    ids::{Epoch, Generation, JobId, SessionId},
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
        priority: 5,
        run_at: Timestamp(0),
        suspect: false,
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
    let _signals = dispatcher.join(session).await.unwrap();
    dispatcher.push(vec![entry(1), entry(2), entry(3)]).await.unwrap();
    let step = Step { session, acks: vec![], queues: vec![], slots: 9 };
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
    assert_eq!((lost[0].token.id, lost[0].nonce, lost[0].counts), (running.id, running.nonce, true));
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
