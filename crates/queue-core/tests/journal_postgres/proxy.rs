//! A way to Postgres that fails on command, at the moment that matters: the COMMIT, or the statement that is one.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
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
    None,
    /// Postgres commits, its session is terminated, and nobody hears the answer.
    AnswerLost,
    /// It never arrives; Postgres rolls back.
    CommitLost,
    /// The connection ends first, and the COMMIT arrives only once somebody waits for its locks.
    CommitLate,
}

/// The end of a simple query, as the driver sends it.
const COMMIT: &[u8] = b"COMMIT\0";

/// A listener whose connections all lead to the shared server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

struct State {
    /// What happens to the next message that has these bytes.
    next: Mutex<Option<(Fault, Vec<u8>)>>,
    happened: AtomicUsize,
    database: String,
}

impl Proxy {
    pub(crate) async fn to(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (next, happened) = (Mutex::new(None), AtomicUsize::new(0));
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
        self.arm_for(fault, COMMIT);
    }

    /// Arms a fault for the next statement with these bytes.
    pub(crate) fn arm_for(&self, fault: Fault, bytes: &[u8]) {
        *self.state.next.lock().unwrap() = Some((fault, bytes.to_vec()));
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
                match state.fault(bytes) {
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
    fn fault(&self, bytes: &[u8]) -> Fault {
        let has = |(_, part): &mut (Fault, Vec<u8>)| bytes.windows(part.len()).any(|window| window == part);
        self.next.lock().unwrap().take_if(has).map_or(Fault::None, |(fault, _)| fault)
    }

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
