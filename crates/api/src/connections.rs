//! Takes connections: as many as there is room for, in plain text or TLS, each with a bound on how long it may keep us
//! waiting.
//!
//! `axum::serve` has no such bounds, so the loop over hyper's connections is ours.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, header},
    middleware,
    response::IntoResponse,
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Bounds, Tls,
    audit::Peer,
    head, observe,
    pace::{Ending, Look, Open, Pace, Paced},
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

/// How long a connection that was told to end may take until it is dropped.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// A door: who may be inside at once, what they get there, and how long each may keep us waiting.
struct Door {
    room: Arc<Semaphore>,
    router: Router,
    bounds: Bounds,
}

/// Somebody at a door.
struct Visit {
    peer: Peer,
    router: Router,
    bounds: Bounds,
    /// Fires when all connections are to end.
    ending: CancellationToken,
}

/// Said of requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

impl Door {
    fn new(most: usize, router: Router, bounds: Bounds) -> Self {
        Self { room: Arc::new(Semaphore::new(most)), router, bounds }
    }

    fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    fn visit(&self, peer: Peer, ending: &CancellationToken) -> Visit {
        Visit { peer, router: self.router.clone(), bounds: self.bounds.clone(), ending: ending.clone() }
    }
}

impl Visit {
    /// Serves one connection until it ends.
    async fn attend(self, stream: TcpStream, tls: Option<Arc<Tls>>) {
        // Answers are small and waited for: without this, each could wait for the client's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        let Some(tls) = tls else { return self.talk(stream, false).await };
        let greeted = tokio::select! {
            () = self.ending.cancelled() => return,
            greeted = tokio::time::timeout(self.bounds.slow_max, greet(stream, &tls)) => greeted,
        };
        match greeted {
            Ok(Ok(Greeted::Tls(stream))) => Box::pin(self.talk(stream, true)).await,
            Ok(Ok(Greeted::Plain(stream))) => {
                let told = Self { router: telling_of_tls(), ..self };
                Box::pin(told.talk(stream, false)).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn talk<S>(self, stream: S, is_tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { peer, router, bounds, ending } = self;
        let pace = Arc::new(Pace::new(&bounds));
        let io = TokioIo::new(Paced { stream, pace: pace.clone() });
        let router = TowerToHyperService::new(router);
        let paced = pace.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let open = Open::new(paced.clone());
            request.extensions_mut().insert(peer);
            if is_tls {
                request.extensions_mut().insert(OverTls);
            }
            let answer = router.call(request);
            async move {
                let answer: Response<Body> = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Ending { body, _open: open }))
            }
        });
        // A head that is larger than this is answered by hyper, without a body.
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(head::READ_MAX_BYTES as usize);
        keep(builder.serve_connection(io, service), &pace, &ending).await;
    }
}

/// Sees a connection to its end, which comes by itself, because all are to end, or because its client does nothing.
async fn keep<C>(connection: C, pace: &Pace, ending: &CancellationToken)
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    let mut farewell: Option<Instant> = None;
    loop {
        let Look::Fine(next) = pace.look() else { return };
        let next = farewell.filter(|_| !pace.is_busy()).map_or(next, |farewell| farewell.min(next));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = ending.cancelled(), if farewell.is_none() => {
                connection.as_mut().graceful_shutdown();
                farewell = Some(Instant::now() + FAREWELL_MAX);
            }
            () = tokio::time::sleep_until(next) => {
                if farewell.is_some_and(|farewell| farewell <= Instant::now()) && !pace.is_busy() {
                    return;
                }
            }
        }
    }
}

/// What somebody said first.
enum Greeted {
    Tls(Box<TlsStream<TcpStream>>),
    /// A request in plain text, unread.
    Plain(TcpStream),
}

async fn greet(stream: TcpStream, tls: &Tls) -> io::Result<Greeted> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // Methods are letters; a handshake begins with its type, 22.
    if first[0].is_ascii_alphabetic() {
        return Ok(Greeted::Plain(stream));
    }
    let stream = tls.acceptor().accept(stream).await?;
    Ok(Greeted::Tls(Box::new(stream)))
}

/// Serves `router` on `listener` until `shutdown` fires and the open requests have ended, at most [`STOP_MAX`] later.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) {
    let patience = REFUSAL_MAX.min(bounds.slow_max);
    let hasty = Bounds { head_max: patience.min(bounds.head_max), slow_max: patience, ..bounds.clone() };
    let open = Door::new(bounds.connections_max, router, bounds);
    let full = Door::new(REFUSALS_MAX, refusing(), hasty);
    let (inside, ending) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let doors = [&open, &full];
                if let Some((door, place)) = doors.iter().find_map(|door| Some((door, door.try_enter()?))) {
                    let (visit, tls) = (door.visit(Peer(address), &ending), tls.clone());
                    inside.spawn(async move {
                        let _place = place;
                        visit.attend(stream, tls).await;
                    });
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
    ending.cancel();
    inside.close();
    if tokio::time::timeout(STOP_MAX, inside.wait()).await.is_err() {
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

/// What a request in plain text gets where TLS is spoken.
fn telling_of_tls() -> Router {
    let tell = || async {
        let problem = Problem::new(Cause::BadRequest, "this port speaks TLS: use https://");
        ([(header::CONNECTION, "close")], problem.into_response())
    };
    Router::new().fallback(tell).layer(middleware::from_fn(observe::observe))
}
