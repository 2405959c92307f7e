//! Ends the process when nothing in it moves any more: when handlers that do not yield hold up every thread of the event loop, nobody is
//! left to renew leases, to answer probes or to obey a signal.
//!
//! A thread of the system looks whether the loop's pulse still beats. It counts its own looks and no time: a process that was stopped
//! (`SIGSTOP`, a laptop asleep) did not look either.

use std::{io, sync::Arc, thread, time::Duration};

use queue_core::progress::Pulse;

use crate::output;

/// Time between two looks. A beat takes as long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks without a step after which the event loop counts as frozen: twice a session's life, so that its jobs are others' by then.
const LOOKS_MAX: u32 = 30;
/// How long the last line may take: whoever should read it may have frozen everything by not reading.
const LAST_LINE_MAX: Duration = Duration::from_secs(1);

/// Watches the loop of this pulse until nobody holds that any more.
pub(super) fn start(pulse: &Arc<Pulse>) -> io::Result<()> {
    let watched = Arc::downgrade(pulse);
    thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut looks = Looks::default();
        loop {
            thread::sleep(LOOK_EVERY);
            let Some(pulse) = watched.upgrade() else { return };
            if looks.finds_frozen(pulse.last_beat()) {
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
    /// Whether the last beat has been the same for too many looks, this one among them.
    fn finds_frozen(&mut self, beat: u64) -> bool {
        self.unmoved = if beat == self.last { self.unmoved + 1 } else { 0 };
        self.last = beat;
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
    fn only_a_pulse_that_does_not_beat_over_many_looks_is_frozen() {
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
