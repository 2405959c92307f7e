//! Whether a claim loop goes round, as probes of liveness see it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::rig::Rig;
use queue_core::time::{Clock, SystemClock, Timestamp};
use worker::provider::Providers;

/// Twice as long as the longest pause of a loop that goes round.
const TOO_LONG: Duration = Duration::from_secs(2);
/// A test that needs longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that, while it sticks, keeps whoever looks at it: the defect of a loop that never comes back.
struct Sticky(AtomicBool);

impl Clock for Sticky {
    fn now(&self) -> Timestamp {
        while self.0.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_loop_that_is_stuck_is_silent_until_it_goes_on() {
    let clock = Arc::new(Sticky(AtomicBool::new(false)));
    let mut rig = Rig::at(clock.clone(), Providers::new()).await;
    rig.work(4, Duration::from_secs(10));
    let pulse = rig.pulse.clone().unwrap();
    assert!(pulse.check().is_ok());
    let id = rig.probe("{}").await;
    rig.ended(id).await;
    clock.0.store(true, Ordering::SeqCst);
    let began = Instant::now();
    // Nothing of the runtime is sure to go on meanwhile.
    while pulse.silence().unwrap() <= TOO_LONG {
        assert!(began.elapsed() < PATIENCE, "the loop goes round without a clock");
        std::thread::sleep(Duration::from_millis(20));
    }
    clock.0.store(false, Ordering::SeqCst);
    rig.until("the loop goes round", async || pulse.silence().unwrap() < TOO_LONG).await;
    let id = rig.probe("{}").await;
    rig.ended(id).await;
    rig.stop().await;
    assert_eq!(pulse.silence(), None, "it has ended");
}
