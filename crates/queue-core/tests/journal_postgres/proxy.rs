//! A way to Postgres that fails on command, at the moment that matters: the COMMIT.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

use testkit::PostgresServer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What happens to the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None = 0,
    /// Postgres commits, its session is terminated, and nobody hears the answer.
    AnswerLost = 1,
    /// It never arrives; Postgres rolls back.
    CommitLost = 2,
    /// The connection ends first, and the COMMIT arrives only once somebody waits for its locks.
    CommitLate = 3,
}

const FAULTS: [Fault; 4] = [Fault::None, Fault::AnswerLost, Fault::CommitLost, Fault::CommitLate];

/// The end of a simple query, as the driver sends it.
const COMMIT: &[u8] = b"COMMIT\0";

/// A listener whose connections all lead to the shared server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    next: AtomicU8,
    happened: AtomicUsize,
    database: String,
}

impl Proxy {
    pub(crate) async fn to(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (next, happened) = (AtomicU8::new(0), AtomicUsize::new(0));
        let state = Arc::new(State { next, happened, database: database.into() });
        tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, state.clone()));
                }
            }
        });
        Self { port, state }
    }

    /// Arms a fault for the next COMMIT.
    pub(crate) fn arm(&self, fault: Fault) {
        self.state.next.store(fault as u8, Ordering::SeqCst);
    }

    /// How many faults happened.
    pub(crate) fn happened(&self) -> usize {
        self.state.happened.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, state: Arc<State>) {
    let server = TcpStream::connect(("127.0.0.1", PostgresServer::shared().port())).await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut asked, mut said) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = from_client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                let bytes = &asked[..read];
                let fault = if bytes.ends_with(COMMIT) { state.next.swap(0, Ordering::SeqCst) } else { 0 };
                match FAULTS[usize::from(fault)] {
                    Fault::None => to_server.write_all(bytes).await.unwrap(),
                    fault => {
                        state.happened.fetch_add(1, Ordering::SeqCst);
                        if fault == Fault::AnswerLost {
                            to_server.write_all(bytes).await.unwrap();
                            assert!(from_server.read(&mut said).await.unwrap() > 0);
                            state.run(format!(
                                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                                 WHERE datname = '{}' AND pid <> pg_backend_pid()", state.database
                            )).await;
                        }
                        drop((from_client, to_client));
                        if fault == Fault::CommitLate {
                            state.somebody_waits().await;
                            to_server.write_all(bytes).await.unwrap();
                            let _ = from_server.read(&mut said).await;
                        }
                        return;
                    }
                }
            }
            read = from_server.read(&mut said) => {
                let Ok(read @ 1..) = read else { return };
                if to_client.write_all(&said[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl State {
    async fn run(&self, sql: String) -> String {
        tokio::task::spawn_blocking(move || PostgresServer::shared().run("postgres", &sql)).await.unwrap()
    }

    async fn somebody_waits(&self) {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND wait_event_type = 'Lock'",
            self.database
        );
        while self.run(sql.clone()).await == "0" {}
    }
}
