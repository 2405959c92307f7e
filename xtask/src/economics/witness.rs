//! The provider of these measurements: it answers after a while that depends on nothing but the call, and notes how long each
//! job of the second target was on its way.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use testkit::{Behaviour, Director, SeenCall};

/// Answers after 200 to 800 ms.
const LATENCY_MS: (u64, u64) = (200, 600);

/// Counts calls and ways.
pub(crate) struct Witness {
    began: Instant,
    /// Whether answers take a while.
    slow: bool,
    answered: AtomicU64,
    /// From submit to the provider's door, of jobs whose prompt says when they were submitted.
    ways: Mutex<Vec<Duration>>,
}

impl Witness {
    /// A provider whose answers take a while, or none.
    pub(crate) fn new(slow: bool) -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), slow, answered: AtomicU64::new(0), ways: Mutex::default() })
    }

    /// What a prompt says of its submit, which is now.
    pub(crate) fn mark(&self) -> String {
        format!("sent {}", self.began.elapsed().as_micros())
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// The ways since the last look, shortest first.
    pub(crate) fn take_ways(&self) -> Vec<Duration> {
        let mut ways = std::mem::take(&mut *self.ways());
        ways.sort_unstable();
        ways
    }

    /// How many ways were noted since the last look.
    pub(crate) fn count_ways(&self) -> usize {
        self.ways().len()
    }

    fn ways(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sent_at(call: &SeenCall) -> Option<Duration> {
    let text = call.body.pointer("/messages/0/content")?.as_str()?;
    Some(Duration::from_micros(text.strip_prefix("sent ")?.split(' ').next()?.parse().ok()?))
}

impl Director for Witness {
    fn began(&self, number: u64, call: &SeenCall) -> (Duration, Behaviour) {
        if let Some(sent) = sent_at(call) {
            self.ways().push(self.began.elapsed().saturating_sub(sent));
        }
        let (least, spread) = LATENCY_MS;
        // Numbers that are spread evenly and the same in every run.
        let latency = if self.slow { least + number.wrapping_mul(7_919) % (spread + 1) } else { 0 };
        (Duration::from_millis(latency), Behaviour::Answer)
    }

    fn ended(&self, _: u64, call: &SeenCall) {
        if call.answered {
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}
