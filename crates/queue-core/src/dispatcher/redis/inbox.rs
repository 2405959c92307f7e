//! What workers are told: one channel a process, over a connection of its own.
//!
//! A message that is lost (the connection was away) costs no job: after every new connection, and at every beat of a
//! jittered poll, each session is told to look; a cancel that was missed comes with the next renewal.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{Msg, RedisResult};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use super::{
    link::{Link, pause_after},
    sessions::LocalSessions,
};
use crate::{
    dispatcher::Signal,
    ids::{JobId, SessionId},
};

/// Reads the channel until its handle is dropped.
pub(super) struct Inbox {
    /// Its name.
    pub(super) channel: String,
    /// The last echo that came back; each tells that everything before it has arrived.
    #[cfg(any(test, feature = "conformance"))]
    echoes: watch::Receiver<u64>,
    subscribed: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inbox {
    /// Begins to read; `news` is the channel that tells of new generations.
    pub(super) fn open(
        link: Arc<Link>,
        sessions: Arc<LocalSessions>,
        channel: String,
        news: String,
        poll: Duration,
    ) -> Self {
        let (echo, _) = watch::channel(0);
        let (subscribe, subscribed) = watch::channel(false);
        #[cfg(any(test, feature = "conformance"))]
        let echoes = echo.subscribe();
        let reader = Reader { link, sessions, channels: [channel.clone(), news], poll, echo, subscribe };
        Self {
            channel,
            #[cfg(any(test, feature = "conformance"))]
            echoes,
            subscribed,
            task: tokio::spawn(reader.run()),
        }
    }

    /// Waits, for a bounded time, until messages can arrive: what is published before is heard by nobody. When the
    /// time is over, the poll stands in.
    pub(super) async fn wait_until_open(&self, patience: Duration) {
        let mut subscribed = self.subscribed.clone();
        let _ = timeout(patience, subscribed.wait_for(|open| *open)).await;
    }

    /// Waits until the echo with this number has come back.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) async fn echoed(&self, number: u64) {
        let mut echoes = self.echoes.clone();
        let _ = echoes.wait_for(|echo| *echo >= number).await;
    }
}

struct Reader {
    link: Arc<Link>,
    sessions: Arc<LocalSessions>,
    channels: [String; 2],
    poll: Duration,
    echo: watch::Sender<u64>,
    subscribe: watch::Sender<bool>,
}

impl Reader {
    async fn run(self) {
        let mut failures = 0;
        loop {
            if let Err(error) = self.read(&mut failures).await {
                tracing::debug!(%error, "the channel of wake-ups is down; workers poll");
            }
            let _ = self.subscribe.send(false);
            self.sessions.tell_all();
            tokio::time::sleep(pause_after(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn read(&self, failures: &mut u32) -> RedisResult<()> {
        let (mut sink, mut messages) = self.link.messages().await?.split();
        for channel in &self.channels {
            sink.subscribe(channel).await?;
        }
        *failures = 0;
        // What was said before is lost.
        self.sessions.tell_all();
        let _ = self.subscribe.send(true);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.hear(&message),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(self.jittered()) => {
                    self.sessions.tell_all();
                    // A connection that died without a word is found by its silence.
                    let ping = timeout(self.link.patience().respond, sink.ping::<redis::Value>()).await;
                    ping.unwrap_or_else(|_| Err((redis::ErrorKind::Io, "the channel does not answer").into()))?;
                }
            }
        }
    }

    /// Between half of the poll and one and a half, so that a fleet does not ask at once.
    fn jittered(&self) -> Duration {
        self.poll.mul_f64(0.5 + rand::random::<f64>())
    }

    fn hear(&self, message: &Msg) {
        let Some((kind, rest)) = message.get_payload_bytes().split_first() else { return };
        let session = || rest.get(..16).and_then(|bytes| Uuid::from_slice(bytes).ok()).map(SessionId);
        match kind {
            b'W' => {
                if let Some(session) = session() {
                    self.sessions.tell(session, Signal::Work);
                }
            }
            b'C' => {
                let job = rest.get(16..).and_then(|bytes| Uuid::from_slice(bytes).ok()).map(JobId);
                if let (Some(session), Some(job)) = (session(), job) {
                    self.sessions.tell(session, Signal::Cancel(job));
                }
            }
            b'B' => self.sessions.tell_all(),
            b'E' => {
                let number = std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok());
                self.echo
                    .send_if_modified(|echo| number.is_some_and(|number| std::mem::replace(echo, number) != number));
            }
            _ => {}
        }
    }
}
