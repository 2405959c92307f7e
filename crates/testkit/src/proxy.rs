//! A TCP proxy that makes the network bad on command: late, slow, cut in the middle, one-way, or silent.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Bytes that are read at once; the most that a cut in the middle lets through.
const BUFFER_BYTES: usize = 16 * 1024;
/// Pause between two pieces of a sliced stream.
const SLICE_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of a reply that go through before it is cut.
const TORN_BYTES: usize = 3;
/// Of so many replies one is cut.
const TORN_EVERY: u64 = 40;

/// What a network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes at once.
    Clear,
    /// Each piece comes so many milliseconds late, in each direction.
    Late(u64),
    /// Pieces of so many bytes, one a millisecond.
    Sliced(usize),
    /// Nothing passes and nobody is told, as when packets are dropped: what was sent comes when it heals.
    Silent,
    /// Requests pass and replies do not: those come when it heals.
    OneWay,
    /// Every connection is reset, new ones too.
    Reset,
    /// Some replies are cut after three bytes, by a reset.
    Torn,
    /// The server's side of every connection is closed, the client's stays open: half a conversation.
    HalfClosed,
}

/// A proxy on a free port of 127.0.0.1. Its connections end with it.
#[derive(Debug)]
pub struct TcpProxy {
    port: u16,
    behind: u16,
    weather: watch::Sender<Weather>,
    // Ends with the proxy, and every connection with it.
    _tasks: JoinSet<()>,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Request,
    Reply,
}

impl TcpProxy {
    /// Starts one in front of a port of 127.0.0.1, in clear weather.
    pub async fn start(behind: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (weather, watched) = watch::channel(Weather::Clear);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, behind, watched));
        Ok(Self { port, behind, weather, _tasks: tasks })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that it stands in front of.
    pub fn behind(&self) -> u16 {
        self.behind
    }

    /// From now on the network is so, also for connections that are open.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn serve(listener: TcpListener, behind: u16, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                connections.spawn(carry(client, behind, weather.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How one way of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its sender has said farewell, and its receiver has been told.
    Told,
    /// In the middle.
    Torn,
}

/// One connection, until both sides have ended it or the weather has.
async fn carry(mut client: TcpStream, behind: u16, mut weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Reset {
        return reset(&client);
    }
    // A server that is away refuses, and so does this.
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", behind)).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = pump(from_client, to_server, Way::Request, weather.clone());
        let replies = pump(from_server, to_client, Way::Reply, weather.clone());
        tokio::select! {
            _ = weather.wait_for(|weather| *weather == Weather::Reset) => End::Torn,
            end = both(requests, replies) => end,
        }
    };
    if end == End::Torn {
        reset(&client);
        reset(&server);
    }
}

/// Until both have ended, or one of them in the middle.
async fn both(requests: impl Future<Output = End>, replies: impl Future<Output = End>) -> End {
    tokio::pin!(requests, replies);
    let (first, second) = tokio::select! {
        end = &mut requests => (end, None),
        end = &mut replies => (end, Some(())),
    };
    match (first, second) {
        (End::Torn, _) => End::Torn,
        (End::Told, None) => replies.await,
        (End::Told, Some(())) => requests.await,
    }
}

/// Carries one way until it ends.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, mut weather: watch::Receiver<Weather>) -> End {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = half_closed(way, &mut weather) => Ok(0),
        };
        let Ok(length @ 1..) = read else {
            let _ = to.shutdown().await;
            return End::Told;
        };
        if !pass(&mut to, &buffer[..length], way, &mut weather).await {
            return End::Torn;
        }
    }
}

/// Until the server's side is closed by the weather, which the client's never is.
async fn half_closed(way: Way, weather: &mut watch::Receiver<Weather>) {
    let closes = |weather: &Weather| way == Way::Reply && *weather == Weather::HalfClosed;
    if weather.wait_for(closes).await.is_err() {
        std::future::pending().await
    }
}

/// Lets a piece through as the weather is; `false`: the connection is over.
async fn pass(to: &mut WriteHalf<'_>, piece: &[u8], way: Way, weather: &mut watch::Receiver<Weather>) -> bool {
    let holds = |weather: &Weather| match weather {
        Weather::Silent => true,
        Weather::OneWay => way == Way::Reply,
        _ => false,
    };
    let now = match weather.wait_for(|weather| !holds(weather)).await {
        Ok(now) => *now,
        Err(_) => return false,
    };
    match now {
        Weather::Late(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            to.write_all(piece).await.is_ok()
        }
        Weather::Sliced(bytes) => {
            for slice in piece.chunks(bytes.max(1)) {
                if to.write_all(slice).await.is_err() {
                    return false;
                }
                tokio::time::sleep(SLICE_PAUSE).await;
            }
            true
        }
        Weather::Torn if way == Way::Reply && is_torn() => {
            let _ = to.write_all(&piece[..piece.len().min(TORN_BYTES)]).await;
            false
        }
        _ => to.write_all(piece).await.is_ok(),
    }
}

/// Every fortieth reply of all proxies of the process.
fn is_torn() -> bool {
    static REPLIES: AtomicU64 = AtomicU64::new(0);
    REPLIES.fetch_add(1, Ordering::Relaxed) % TORN_EVERY == TORN_EVERY - 1
}

/// Its end is told by a reset instead of a farewell.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo behind a proxy, and a connection through it.
    async fn through(weather: Weather) -> (TcpProxy, TcpStream, JoinSet<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let proxy = TcpProxy::start(port).await.unwrap();
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        proxy.set(weather);
        (proxy, stream, echo)
    }

    async fn say(stream: &mut TcpStream, words: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(words).await?;
        let mut heard = vec![0; words.len()];
        stream.read_exact(&mut heard).await?;
        Ok(heard)
    }

    #[tokio::test]
    async fn what_passes_is_whole_however_late_and_sliced() {
        for weather in [Weather::Clear, Weather::Late(20), Weather::Sliced(2)] {
            let (_proxy, mut stream, _echo) = through(weather).await;
            assert_eq!(say(&mut stream, b"hello, world").await.unwrap(), b"hello, world", "{weather:?}");
        }
    }

    #[tokio::test]
    async fn what_is_silent_or_one_way_comes_when_it_heals() {
        for weather in [Weather::Silent, Weather::OneWay] {
            let (proxy, mut stream, _echo) = through(weather).await;
            stream.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            let early = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut heard)).await;
            assert!(early.is_err(), "{weather:?}");
            proxy.set(Weather::Clear);
            stream.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
        }
    }

    #[tokio::test]
    async fn a_reset_cuts_what_is_open_and_refuses_what_comes() {
        let (proxy, mut stream, _echo) = through(Weather::Clear).await;
        say(&mut stream, b"hello").await.unwrap();
        proxy.set(Weather::Reset);
        assert!(say(&mut stream, b"hello").await.is_err());
        let mut another = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        assert!(say(&mut another, b"hello").await.is_err());
        proxy.set(Weather::Clear);
        let mut third = TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        say(&mut third, b"hello").await.unwrap();
    }

    #[tokio::test]
    async fn one_reply_in_forty_is_torn_and_its_connection_is_over() {
        let (_proxy, mut stream, _echo) = through(Weather::Torn).await;
        let mut whole = 0;
        while say(&mut stream, b"hello").await.is_ok() {
            whole += 1;
            assert!(whole < TORN_EVERY, "none was torn");
        }
    }
}
