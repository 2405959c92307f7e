//! Whether Postgres takes connections at all. The pool tries until its patience ends, also where nobody listens: whoever
//! asks would hear of an outage as late as of a crowd. Here somebody knocks meanwhile, and who waits is told.
//!
//! Only a plain refusal shuts the door: nobody listens, or the server says that it starts or stops. A slow answer, a full
//! server and a full pool do not; they are waited for as long as the pool is told to.

use std::{
    future::Future,
    io::ErrorKind,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::failure::Failure;

/// Who has waited so long makes somebody knock, and hears what is known.
const KNOCK_AFTER: Duration = Duration::from_millis(250);
/// Time between two knocks while nobody opens: a server that is back is noticed within this.
const KNOCK_EVERY: Duration = Duration::from_millis(100);
/// Longest wait for an answer to a knock.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// For so long nobody knocks again after somebody opened: what is slow is not made slower.
const OPENED_FOR: Duration = Duration::from_millis(500);
/// An outage that is shorter is waited out; nobody hears of it.
const BLINK: Duration = Duration::from_millis(750);

/// How it looks where nobody listens: at a port, at a socket's path, or on the way there.
const NOBODY: [ErrorKind; 4] =
    [ErrorKind::ConnectionRefused, ErrorKind::NotFound, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
/// What Postgres says to whoever comes while it starts or stops.
const NOT_NOW: [&str; 3] = ["57P01", "57P02", "57P03"];

/// Knocks, and tells those who wait.
pub(super) struct Door {
    options: PgConnectOptions,
    /// Why nobody is let in, while that is so.
    shut: watch::Sender<Option<String>>,
    knocking: AtomicBool,
}

impl Door {
    /// To the server of these options. Nobody knocks before somebody waits.
    pub(super) fn new(options: PgConnectOptions) -> Arc<Self> {
        Arc::new(Self { options, shut: watch::Sender::new(None), knocking: AtomicBool::new(false) })
    }

    /// What `asking` comes to, or that nobody opens.
    ///
    /// # Errors
    /// Those of `asking`; [`Failure::Unavailable`] where the server has refused connections for [`BLINK`].
    pub(super) async fn through<T>(
        self: &Arc<Self>,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut asking = std::pin::pin!(asking);
        // Everybody tries for a moment: who comes when the server is back need not wait until somebody has noticed.
        if let Ok(answer) = timeout(KNOCK_AFTER, &mut asking).await {
            return answer;
        }
        let mut told = std::pin::pin!(self.shut());
        loop {
            self.knock();
            tokio::select! {
                biased;
                answer = &mut asking => return answer,
                reason = &mut told => return Err(Failure::Unavailable(reason)),
                () = sleep(KNOCK_AFTER) => {}
            }
        }
    }

    /// Ends when the door is shut, with the reason.
    pub(super) async fn shut(&self) -> String {
        let mut heard = self.shut.subscribe();
        // It cannot end before this does: it is ours.
        heard.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Begins to knock, if nobody does.
    fn knock(self: &Arc<Self>) {
        if self.knocking.swap(true, Ordering::AcqRel) {
            return;
        }
        let door = Arc::downgrade(self);
        let knocking = Knocking(door.clone());
        tokio::spawn(async move {
            let _knocking = knocking;
            let mut refused_since = None;
            // Ends with the journal, whose door it is.
            while let Some(door) = door.upgrade() {
                let Err(reason) = door.try_once().await else {
                    if door.shut.send_replace(None).is_some() {
                        tracing::info!("Postgres takes connections again");
                    }
                    sleep(OPENED_FOR).await;
                    return;
                };
                let since = *refused_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= BLINK && door.shut.borrow().is_none() {
                    tracing::warn!(%reason, "Postgres takes no connections: whoever asks is told at once");
                    door.shut.send_replace(Some(format!("Postgres takes no connections: {reason}")));
                }
                drop(door);
                sleep(KNOCK_EVERY).await;
            }
        });
    }

    /// Whether somebody opens; an error is a plain refusal.
    async fn try_once(&self) -> Result<(), String> {
        match timeout(ANSWER_MAX, PgConnection::connect_with(&self.options)).await {
            Ok(Ok(connection)) => {
                // One that does not say goodbye is only slower to end.
                let _ = timeout(ANSWER_MAX, connection.close()).await;
                Ok(())
            }
            Ok(Err(sqlx::Error::Io(error))) if NOBODY.contains(&error.kind()) => Err(error.to_string()),
            Ok(Err(sqlx::Error::Database(said))) if is_not_now(&*said) => Err(said.message().to_owned()),
            // It answers something else, or is slow: no reason to send everybody away.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

/// Somebody knocks, until this is dropped.
struct Knocking(Weak<Door>);

impl Drop for Knocking {
    fn drop(&mut self) {
        if let Some(door) = self.0.upgrade() {
            door.knocking.store(false, Ordering::Release);
        }
    }
}

fn is_not_now(said: &dyn sqlx::error::DatabaseError) -> bool {
    said.try_downcast_ref::<PgDatabaseError>().is_some_and(|said| NOT_NOW.contains(&said.code()))
}
