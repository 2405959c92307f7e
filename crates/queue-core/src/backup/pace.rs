//! A backup has time, and those who submit jobs have not: whoever reads, compresses and encrypts works a little and rests longer.
//!
//! Programs and servers at the other end of a pipe rest with it, once the pipe is full.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

/// Work between two rests: a request that comes meanwhile waits for a processor no longer.
const WORK: Duration = Duration::from_millis(2);
/// How much longer a rest is than the work before it: a backup has a fifth of a processor.
const REST: u32 = 4;
/// A longer wait for the other end is no work.
const REST_MAX: Duration = Duration::from_millis(100);

/// Since when one works.
pub(super) struct Pace(Instant);

impl Pace {
    /// Begins to work.
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// The rest that is due, if one is.
    fn due(&self) -> Option<Duration> {
        let worked = self.0.elapsed();
        (worked >= WORK).then(|| (worked * REST).min(REST_MAX))
    }

    /// Rests on this thread, if it is time.
    pub(super) fn rest(&mut self) {
        if let Some(rest) = self.due() {
            thread::sleep(rest);
            self.0 = Instant::now();
        }
    }

    /// Rests in this task, if it is time.
    pub(super) async fn rest_async(&mut self) {
        if let Some(rest) = self.due() {
            tokio::time::sleep(rest).await;
            self.0 = Instant::now();
        }
    }
}

/// Writes at this pace.
pub(super) struct Paced<W> {
    pub(super) inner: W,
    pub(super) pace: Pace,
}

impl<W: Write> Write for Paced<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pace.rest();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
