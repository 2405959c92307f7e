//! Ends the process when nothing in it moves any more: when handlers that do not yield hold up every thread of the event loop, nobody is
//! left to renew leases, to answer probes or to obey a signal.
//!
//! A thread of the system looks whether a task still counts. It counts its own looks and no time: a process that was stopped
//! (`SIGSTOP`, a laptop asleep) did not look either.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::output;

/// Time between two looks, and between two steps of the count.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without a step after which the event loop counts as frozen: twice a session's life, so that its jobs are others' by then.
const LOOKS_MAX: u32 = 30;
/// How long the last line may take: whoever should read it may have frozen everything by not reading.
const LAST_LINE_MAX: Duration = Duration::from_secs(1);

/// Watches the event loop that this is called on until it is gone.
pub(super) fn start() -> io::Result<()> {
    let count = Arc::new(AtomicU64::new(0));
    let watched = Arc::downgrade(&count);
    tokio::spawn(async move {
        loop {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut looks = Looks::default();
        loop {
            thread::sleep(LOOK_EVERY);
            // A runtime that ends drops its tasks; one that is frozen does not.
            let Some(count) = watched.upgrade() else { return };
            if looks.finds_frozen(count.load(Ordering::Relaxed)) {
                bark();
            }
        }
    })?;
    Ok(())
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Looks {
    last: u64,
    unmoved: u32,
}

impl Looks {
    /// Whether the count has not moved for too many looks, this one among them.
    fn finds_frozen(&mut self, count: u64) -> bool {
        self.unmoved = if count == self.last { self.unmoved + 1 } else { 0 };
        self.last = count;
        self.unmoved >= LOOKS_MAX
    }
}

/// Says why, and ends the process as an abort does: what frozen threads are doing is in the core file.
fn bark() -> ! {
    let said = thread::Builder::new().spawn(|| {
        output::note(&format!(
            "error: the event loop has stood still over {LOOKS_MAX} looks of the watchdog: every thread is held up. The process \
             aborts; its jobs come back when their leases end"
        ));
    });
    if said.is_ok() {
        thread::sleep(LAST_LINE_MAX);
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_that_does_not_move_over_many_looks_is_frozen() {
        let mut looks = Looks::default();
        for count in 1..100 {
            assert!(!looks.finds_frozen(count));
        }
        assert!((1..LOOKS_MAX).all(|_| !looks.finds_frozen(99)));
        assert!(!looks.finds_frozen(100), "it went on in the last moment");
        assert!((1..LOOKS_MAX).all(|_| !looks.finds_frozen(100)));
        assert!(looks.finds_frozen(100));
    }
}
