//! Whether a loop still goes round. Probes of liveness look at this and at nothing else: a store that is away must not get a process
//! killed, and one whose loop stands still must not live on because it still answers.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

/// How often a pulse of an event loop beats.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Longest silence of an event loop: a process that was stopped for a moment (a snapshot, a busy machine) is not dead.
const EVENT_LOOP_MAX: Duration = Duration::from_secs(15);
/// The value of a loop that does not run.
const RESTING: u64 = 0;

/// The pulse of one loop, which says at every round that it is there. Costs a read of the clock and a store.
#[derive(Debug)]
pub struct Pulse {
    name: &'static str,
    longest: Duration,
    born: Instant,
    /// Milliseconds from `born` to the last beat, and one.
    last: AtomicU64,
}

impl Pulse {
    /// Of a loop that does not run yet, and is silent for at most `longest` when it does.
    pub fn new(name: &'static str, longest: Duration) -> Self {
        Self { name, longest, born: Instant::now(), last: AtomicU64::new(RESTING) }
    }

    /// Of the event loop that this is called on: beats by itself for as long as somebody holds it.
    pub fn of_event_loop() -> Arc<Self> {
        let pulse = Arc::new(Self::new("event loop", EVENT_LOOP_MAX));
        pulse.beat();
        let held = Arc::downgrade(&pulse);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(BEAT_EVERY);
            while let Some(pulse) = held.upgrade() {
                pulse.beat();
                drop(pulse);
                ticks.tick().await;
            }
        });
        pulse
    }

    /// The loop goes round.
    pub fn beat(&self) {
        self.last.store(self.age_ms() + 1, Ordering::Relaxed);
    }

    /// The loop has ended, and nobody waits for its next beat.
    pub fn rest(&self) {
        self.last.store(RESTING, Ordering::Relaxed);
    }

    /// Which beat was the last: another number after the next one.
    pub fn last_beat(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// How long ago it beat last; `None` for a loop that does not run.
    pub fn silence(&self) -> Option<Duration> {
        let last = self.last_beat();
        (last != RESTING).then(|| Duration::from_millis((self.age_ms() + 1).saturating_sub(last)))
    }

    /// `Err` says which loop stands still, and for how long.
    pub fn check(&self) -> Result<(), String> {
        match self.silence().filter(|silence| *silence > self.longest) {
            Some(silence) => Err(format!("the {} has stood still for {} s", self.name, silence.as_secs())),
            None => Ok(()),
        }
    }

    fn age_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// Lets the other tasks of this thread go first. Unlike [`tokio::task::yield_now`], whose tasks wait until their own thread is
/// done with all others: one that never comes back, since a handler holds it up, would keep them for ever. This one waits where
/// any thread may take it.
pub async fn step_aside() {
    let mut is_aside = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_aside, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loop_that_runs_can_stand_still() {
        let pulse = Pulse::new("loop", Duration::ZERO);
        assert_eq!(pulse.check(), Ok(()), "it has not begun");
        pulse.beat();
        while pulse.check().is_ok() {
            std::hint::spin_loop();
        }
        assert!(pulse.check().unwrap_err().contains("the loop has stood still"));
        pulse.rest();
        assert_eq!(pulse.check(), Ok(()), "it has ended");
        let patient = Pulse::new("loop", Duration::from_secs(3_600));
        patient.beat();
        assert_eq!(patient.check(), Ok(()));
    }

    /// The probe is asked elsewhere, as by a thread of a runtime that still has one.
    #[test]
    fn an_event_loop_that_is_held_up_is_seen() {
        let (told, pulse) = std::sync::mpsc::channel();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let looping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let pulse = Arc::new(Pulse::new("event loop", Duration::ZERO));
                let beating = pulse.clone();
                tokio::spawn(async move {
                    loop {
                        beating.beat();
                        tokio::task::yield_now().await;
                    }
                });
                tokio::task::yield_now().await;
                told.send(pulse).unwrap();
                // What no task may do: the loop stands still until this returns.
                held.recv().unwrap();
            });
        });
        let pulse = pulse.recv().unwrap();
        while pulse.check().is_ok() {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
        looping.join().unwrap();
    }

    /// With tokio's own `yield_now` it waits for its thread, which waits for it.
    #[test]
    fn who_steps_aside_goes_on_although_its_thread_is_held_up() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let stepping = runtime.spawn(async move {
            // What a task wakes runs next on its thread.
            let holding = tokio::spawn(async move { heard.recv_timeout(Duration::from_secs(20)) });
            step_aside().await;
            let _ = told.send(());
            holding.await.unwrap()
        });
        assert_eq!(runtime.block_on(stepping).unwrap(), Ok(()));
    }
}
