//! A receiver of whatever is posted to it, telemetry over OTLP/HTTP or webhooks: it takes everything, keeps it as it came, and
//! understands nothing of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::http::{Client, Request};

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// The path, e.g. `/v1/traces`.
    pub path: String,
    /// Every header, with its name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The message.
    pub body: Vec<u8>,
}

/// A throw-away receiver on a port of its own; it ends with this value.
pub struct Receiver {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// Begins to listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Taken>>>::default());
        let keeping = taken.clone();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, keeping.clone()));
            }
        });
        Self { address, taken, serving }
    }

    /// Where it listens: what `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived so far.
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Takes requests from one connection until it closes.
async fn serve(socket: TcpStream, taken: Arc<Mutex<Vec<Taken>>>) {
    let mut client = Client::new(socket);
    while let Some(Request { path, headers, body }) = client.request().await {
        // Kept before it is answered: whoever was answered finds it here.
        taken.lock().unwrap().push(Taken { path, headers, body });
        if client.respond(200, &[], "application/x-protobuf", b"").await.is_err() {
            return;
        }
    }
}
