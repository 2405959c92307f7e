//! As much of HTTP/1.1 as servers of tests need, also those that misbehave.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The client has left, or the connection is of no more use.
#[derive(Debug)]
pub(super) struct Gone;

/// A request whose body has arrived.
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// The other end of a connection.
pub(super) struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, unread: Vec::new() }
    }

    /// The next request; `None` when the client leaves.
    pub(super) async fn request(&mut self) -> Option<Request> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.read_more().await?;
        };
        let head = String::from_utf8(self.unread.drain(..head_end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let headers: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length {
            self.read_more().await?;
        }
        Some(Request { path, headers, body: self.unread.drain(..length).collect() })
    }

    async fn read_more(&mut self) -> Option<()> {
        match self.socket.read_buf(&mut self.unread).await {
            Ok(1..) => Some(()),
            _ => None,
        }
    }

    /// Waits, but no longer than the client does.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        self.wait_for(tokio::time::sleep(time)).await
    }

    /// Waits for something else, but no longer than the client does.
    pub(super) async fn wait_for(&mut self, event: impl Future<Output = ()>) -> Result<(), Gone> {
        tokio::select! {
            gone = self.until_gone() => Err(gone),
            () = event => Ok(()),
        }
    }

    /// Waits for the client to leave.
    pub(super) async fn until_gone(&mut self) -> Gone {
        while self.read_more().await.is_some() {}
        Gone
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.socket.write_all(bytes).await.map_err(|_| Gone)
    }

    /// A response of known length.
    pub(super) async fn respond(
        &mut self,
        status: u16,
        headers: &[(String, String)],
        content_type: &str,
        body: &[u8],
    ) -> Result<(), Gone> {
        let head =
            head(status, headers, &[("content-type", content_type), ("content-length", &body.len().to_string())]);
        self.send(&[head.as_bytes(), body].concat()).await
    }

    pub(super) async fn json(&mut self, status: u16, headers: &[(String, String)], body: &str) -> Result<(), Gone> {
        self.respond(status, headers, "application/json", body.as_bytes()).await
    }

    /// The head of a response whose length nobody knows yet.
    pub(super) async fn begin_stream(&mut self, headers: &[(String, String)], content_type: &str) -> Result<(), Gone> {
        let head = head(200, headers, &[("content-type", content_type), ("transfer-encoding", "chunked")]);
        self.send(head.as_bytes()).await
    }

    /// A piece of such a response.
    pub(super) async fn chunk(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.send(&framed).await
    }

    /// Its end.
    pub(super) async fn end_stream(&mut self) -> Result<(), Gone> {
        self.send(b"0\r\n\r\n").await
    }

    /// Ends the connection in order.
    pub(super) async fn close(&mut self) {
        let _ = self.socket.shutdown().await;
    }

    /// Makes the end of the connection a reset.
    pub(super) fn reset(&mut self) {
        self.socket.set_zero_linger().unwrap();
    }
}

/// A response's head with its last, empty line.
pub(super) fn head(status: u16, headers: &[(String, String)], more: &[(&str, &str)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    let own = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in own.chain(more.iter().copied()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}
