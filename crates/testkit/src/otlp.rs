//! A receiver of telemetry over OTLP/HTTP that takes everything, keeps it as it came, and understands nothing of it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The end of a request's head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// One export as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// The path, e.g. `/v1/traces`.
    pub path: String,
    /// Every header, with its name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The message.
    pub body: Vec<u8>,
}

/// A throw-away receiver on a port of its own; it ends with this value.
pub struct OtlpReceiver {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Export>>>,
    serving: JoinHandle<()>,
}

impl OtlpReceiver {
    /// Begins to listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, taken) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Export>>>::default());
        let keeping = taken.clone();
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, keeping.clone()));
            }
        });
        Self { address, taken, serving }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived so far.
    pub fn taken(&self) -> Vec<Export> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Takes requests from one connection until it closes.
async fn serve(mut socket: TcpStream, taken: Arc<Mutex<Vec<Export>>>) {
    let mut unread = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = unread.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
                break at + HEAD_END.len();
            }
            let Ok(1..) = socket.read_buf(&mut unread).await else { return };
        };
        let head = String::from_utf8(unread.drain(..head_end).collect()).unwrap();
        let mut lines = head.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let headers: BTreeMap<_, _> =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        while unread.len() < length {
            let Ok(1..) = socket.read_buf(&mut unread).await else { return };
        }
        let body = unread.drain(..length).collect();
        // Kept before it is answered: whoever was answered finds it here.
        taken.lock().unwrap().push(Export { path, headers, body });
        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if socket.write_all(answer).await.is_err() {
            return;
        }
    }
}
