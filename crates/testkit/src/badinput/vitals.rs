//! What reading costs the process: its peak of memory, and whether it still moves.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often the watchdog looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks without another input after which one hangs: 20 s. Looks and not time: whoever stops the process stops both.
const STILL_MAX: u32 = 80;

/// The most memory that this process has held since [`forget_peak`], in bytes.
pub(super) fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a line of the peak");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
}

/// Lets the peak begin again at what is held now. Where the system does not let us, it goes on from the old one.
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Ends the process when an input is read for too long: nothing else gets a thread out of an endless loop.
pub(super) struct Watch {
    number: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Looks as often as this; `hung` is told the number of the input that hangs.
    pub(super) fn begin(look_every: Duration, hung: impl Fn(u64) + Send + 'static) -> Self {
        let (number, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (at, over) = (number.clone(), ended.clone());
        let thread = thread::spawn(move || {
            let (mut last, mut still) = (u64::MAX, 0);
            while !over.load(Ordering::Acquire) {
                thread::park_timeout(look_every);
                let now = at.load(Ordering::Acquire);
                still = if now == last { still + 1 } else { 0 };
                last = now;
                if still >= STILL_MAX && !over.load(Ordering::Acquire) {
                    hung(now);
                    return;
                }
            }
        });
        Self { number, ended, thread: Some(thread) }
    }

    /// The input with this number is read now.
    pub(super) fn reads(&self, number: u64) {
        self.number.store(number, Ordering::Release);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
