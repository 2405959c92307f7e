//! How a connection gets on: whether something is asked on it, and since when we wait for its client.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::Bounds;

/// What is known of one connection. Bodies are watched where they are read: a pause there can be answered.
#[derive(Debug)]
pub(crate) struct Pace {
    opened: Instant,
    /// Requests whose answer has not ended.
    open: AtomicUsize,
    /// Since when nothing is asked.
    idle: Mark,
    /// Since when the head of a request arrives.
    head: Mark,
    /// Since when an answer cannot be sent because nobody reads it.
    unread: Mark,
    idle_max: Duration,
    slow_max: Duration,
}

/// What to think of a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing is wrong; look again then.
    Fine(Instant),
    /// Nothing was asked for too long.
    Idle,
    /// Its client keeps us waiting for too long.
    Slow,
}

/// A moment, or none.
#[derive(Debug, Default)]
struct Mark(AtomicU64);

impl Pace {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let pace = Self {
            opened: Instant::now(),
            open: AtomicUsize::new(0),
            idle: Mark::default(),
            head: Mark::default(),
            unread: Mark::default(),
            idle_max: bounds.head_max,
            slow_max: bounds.slow_max,
        };
        pace.idle.set(pace.opened.elapsed());
        pace
    }

    /// Whether a request is open.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    /// How it stands. Nothing that begins after this look is due before the next one.
    pub(crate) fn look(&self) -> Look {
        let now = self.opened.elapsed();
        let busy = self.is_busy();
        let waits = [
            (self.unread.get(), self.idle_max, Look::Slow),
            (self.head.get().filter(|_| !busy), self.slow_max, Look::Slow),
            (self.idle.get().filter(|_| !busy), self.idle_max, Look::Idle),
        ];
        let mut next = now + self.idle_max.min(self.slow_max);
        for (since, most, verdict) in waits {
            let Some(since) = since else { continue };
            if now >= since + most {
                return verdict;
            }
            next = next.min(since + most);
        }
        Look::Fine(self.opened + next)
    }

    fn heard(&self) {
        if !self.is_busy() && self.head.get().is_none() {
            self.head.set(self.opened.elapsed());
        }
    }

    fn sent(&self, is_stuck: bool) {
        match (is_stuck, self.unread.get()) {
            (true, None) => self.unread.set(self.opened.elapsed()),
            (false, Some(_)) => self.unread.clear(),
            _ => {}
        }
    }
}

impl Mark {
    /// Milliseconds and one, so that nought is none.
    fn set(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_millis()).unwrap_or(u64::MAX - 1) + 1, Ordering::SeqCst);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    fn get(&self) -> Option<Duration> {
        self.0.load(Ordering::SeqCst).checked_sub(1).map(Duration::from_millis)
    }
}

/// A request that is open for as long as this is there.
#[derive(Debug)]
pub(crate) struct Open(Arc<Pace>);

impl Open {
    /// The head of a request has arrived whole.
    pub(crate) fn new(pace: Arc<Pace>) -> Self {
        pace.open.fetch_add(1, Ordering::SeqCst);
        pace.head.clear();
        Self(pace)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.idle.set(self.0.opened.elapsed());
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of an answer, with which its request ends.
#[derive(Debug)]
pub(crate) struct Ending<B> {
    pub(crate) body: B,
    pub(crate) _open: Open,
}

impl<B: Body + Unpin> Body for Ending<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose pace is kept.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    pub(crate) stream: S,
    pub(crate) pace: Arc<Pace>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pace.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.pace.sent(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.pace.sent(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        // TLS takes in what it cannot send yet: there, it is the flush that waits.
        self.pace.sent(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Arc<Pace> {
        let bounds =
            Bounds { head_max: Duration::from_secs(75), slow_max: Duration::from_secs(10), ..Bounds::default() };
        Arc::new(Pace::new(&bounds))
    }

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_has_less_time_than_a_connection_that_is_kept() {
        let pace = pace();
        assert_eq!(pace.look(), Look::Fine(Instant::now() + Duration::from_secs(10)));
        after(60).await;
        pace.heard();
        after(9).await;
        pace.heard();
        assert_eq!(pace.look(), Look::Fine(Instant::now() + Duration::from_secs(1)));
        after(1).await;
        assert_eq!(pace.look(), Look::Slow);
        let open = Open::new(pace.clone());
        pace.heard();
        after(1_000).await;
        assert!(matches!(pace.look(), Look::Fine(_)), "whoever is answered may take long");
        drop(open);
        after(74).await;
        assert!(matches!(pace.look(), Look::Fine(_)));
        after(1).await;
        assert_eq!(pace.look(), Look::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_has_an_end() {
        let pace = pace();
        let _open = Open::new(pace.clone());
        pace.sent(true);
        after(50).await;
        pace.sent(true);
        after(24).await;
        assert!(matches!(pace.look(), Look::Fine(_)));
        after(1).await;
        assert_eq!(pace.look(), Look::Slow);
        pace.sent(false);
        assert!(matches!(pace.look(), Look::Fine(_)), "somebody reads again");
    }
}
