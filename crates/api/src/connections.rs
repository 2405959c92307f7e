//! Takes connections: as many as there is room for, each with a bound on how long it may keep us waiting for a request.
//!
//! `axum::serve` has neither bound, so the loop over hyper's connections is ours.

use std::{io, sync::Arc, time::Duration};

use axum::{Router, http::header, middleware, response::IntoResponse};
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Bounds,
    audit::Peer,
    observe,
    problem::{Cause, Problem},
};

/// How long open requests may go on after the server was asked to stop. Streams and long polls end at once.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Connections beyond the bound that are told so at the same time; others are closed without a word.
const REFUSALS_MAX: usize = 64;
/// How long one of these may take to send a request that can be refused.
const REFUSAL_MAX: Duration = Duration::from_secs(5);
/// Pause after a connection could not be taken: without free file descriptors the next try would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A door: who may be inside at once, what they get there, and how long each may take to send a request's head.
struct Door {
    room: Arc<Semaphore>,
    router: Router,
    head_max: Duration,
}

impl Door {
    fn new(most: usize, router: Router, head_max: Duration) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), router, head_max }
    }

    fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Serves one connection in a task of its own until it ends.
    fn serve(&self, stream: TcpStream, peer: Peer, place: OwnedSemaphorePermit, graceful: &GracefulShutdown) {
        // Answers are small and waited for: without this, each could wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let router = TowerToHyperService::new(self.router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_max)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
}

/// Serves `router` on `listener` until `shutdown` fires and the open requests have ended, at most [`STOP_MAX`] later.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, shutdown: CancellationToken) {
    let open = Door::new(bounds.connections_max, router, bounds.head_max);
    let full = Door::new(REFUSALS_MAX, refusing(), REFUSAL_MAX.min(bounds.head_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let doors = [&open, &full];
                if let Some((door, place)) = doors.iter().find_map(|door| Some((door, door.try_enter()?))) {
                    door.serve(stream, Peer(address), place, &graceful);
                }
            }
            Err(error) if is_the_client_s(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be taken; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // From here on the port is closed.
    drop(listener);
    if tokio::time::timeout(STOP_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that did not end within {} seconds are dropped", STOP_MAX.as_secs());
    }
}

fn is_the_client_s(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// What a connection gets for which there is no room: one answer, then its end.
fn refusing() -> Router {
    let refuse = || async {
        let problem = Problem::new(Cause::Busy, "as many connections are open as this server allows").retry_after(1);
        ([(header::CONNECTION, "close")], problem.into_response())
    };
    Router::new().fallback(refuse).layer(middleware::from_fn(observe::observe))
}
