//! What workers are told: one channel a process, over a connection of its own.
//!
//! The same connection listens to a channel of each session of the process, its *ear*. Nothing is ever said there: that
//! somebody listens tells a Redis that has forgotten the session that its process is connected.
//!
//! A message that is lost (the connection was away) costs no job: after every new connection, and at every beat of a
//! jittered poll, each session is told to look; a cancel that was missed comes with the next renewal.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use redis::{Msg, RedisResult, aio::PubSubSink};
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
    /// The sessions whose ears are open; `None`: nothing is heard.
    heard: watch::Receiver<Option<BTreeSet<SessionId>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inbox {
    /// Begins to read; `partition` is what the channels of all processes begin with.
    pub(super) fn open(
        link: Arc<Link>,
        sessions: Arc<LocalSessions>,
        channel: String,
        partition: &str,
        poll: Duration,
    ) -> Self {
        let (echo, _) = watch::channel(0);
        let (hearing, heard) = watch::channel(None);
        #[cfg(any(test, feature = "conformance"))]
        let echoes = echo.subscribe();
        let (news, ear) = (format!("{partition}:all"), format!("{partition}:ear:"));
        let reader = Reader { link, sessions, channels: [channel.clone(), news], ear, poll, echo, hearing };
        Self {
            channel,
            #[cfg(any(test, feature = "conformance"))]
            echoes,
            heard,
            task: tokio::spawn(reader.run()),
        }
    }

    /// Waits, for a bounded time, until messages can arrive: what is published before is heard by nobody. When the
    /// time is over, the poll stands in.
    pub(super) async fn wait_until_open(&self, patience: Duration) {
        let mut heard = self.heard.clone();
        let _ = timeout(patience, heard.wait_for(Option::is_some)).await;
    }

    /// Waits, for a bounded time, until the ear of this session is open.
    pub(super) async fn wait_until_heard(&self, session: SessionId, patience: Duration) {
        let mut heard = self.heard.clone();
        let open = |heard: &Option<BTreeSet<_>>| heard.as_ref().is_some_and(|heard| heard.contains(&session));
        let _ = timeout(patience, heard.wait_for(open)).await;
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
    /// What the channel of a session begins with; its id follows, in 16 bytes.
    ear: String,
    poll: Duration,
    echo: watch::Sender<u64>,
    hearing: watch::Sender<Option<BTreeSet<SessionId>>>,
}

impl Reader {
    async fn run(self) {
        let mut failures = 0;
        loop {
            if let Err(error) = self.read(&mut failures).await {
                tracing::debug!(%error, "the channel of wake-ups is down; workers poll");
            }
            let _ = self.hearing.send(None);
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
        self.open_ears(&mut sink).await?;
        loop {
            tokio::select! {
                () = self.sessions.changed.notified() => {
                    let opened = timeout(self.link.patience().respond, self.open_ears(&mut sink)).await;
                    opened.unwrap_or_else(|_| Err(silent()))?;
                }
                message = messages.next() => match message {
                    Some(message) => self.hear(&message),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(self.jittered()) => {
                    self.sessions.tell_all();
                    // A connection that died without a word is found by its silence.
                    let ping = timeout(self.link.patience().respond, sink.ping::<redis::Value>()).await;
                    ping.unwrap_or_else(|_| Err(silent()))?;
                }
            }
        }
    }

    /// Opens the ears of sessions that came, and closes those of sessions that went.
    async fn open_ears(&self, sink: &mut PubSubSink) -> RedisResult<()> {
        let ear = |session: &SessionId| [self.ear.as_bytes(), session.0.as_bytes()].concat();
        let (heard, wanted) = (self.hearing.borrow().clone().unwrap_or_default(), self.sessions.ids());
        for session in wanted.difference(&heard) {
            sink.subscribe(ear(session)).await?;
        }
        for session in heard.difference(&wanted) {
            sink.unsubscribe(ear(session)).await?;
        }
        let _ = self.hearing.send(Some(wanted));
        Ok(())
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

/// A connection that died without a word.
fn silent() -> redis::RedisError {
    (redis::ErrorKind::Io, "the channel does not answer").into()
}
