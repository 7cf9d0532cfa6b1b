//! A node in this process, and clients that talk to it as a user would.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use longwire::config::model::{Bind, Config};
use longwire::node::{Extras, Running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// Longer than anything a healthy node takes, so that a hang is a failure with a name.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts what a configuration says; the ports in it should be 0.
pub async fn start(config: &str, extras: &Extras) -> Running {
    let (config, _) =
        Config::parse(config, Path::new("/nowhere/test.toml")).unwrap_or_else(|errors| panic!("{errors}"));
    Running::start(&config, extras).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Where a listener on an IP address is.
pub fn address(node: &Running, listener: &str) -> SocketAddr {
    match node.address(listener) {
        Some(Bind::Tcp(address)) => *address,
        other => panic!("listener {listener} is at {other:?}"),
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A WebSocket client.
pub struct WebSocket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// What the 101 brought.
    pub headers: http::HeaderMap,
}

impl WebSocket {
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        Self::connect_with(address, path, &[]).await
    }

    /// With further headers in the handshake.
    pub async fn connect_with(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let uri = format!("ws://{address}{path}").parse().expect("an address and a path");
        let mut builder = ClientBuilder::from_uri(uri);
        for (name, value) in headers {
            let value = value.parse().expect("a header value");
            builder =
                builder.add_header(http::HeaderName::from_static(name), value).expect("not one of the handshake's");
        }
        let (stream, response) = soon("the handshake", builder.connect()).await.expect("the handshake succeeds");
        Self { stream, headers: response.headers().clone() }
    }

    pub async fn send(&mut self, message: Message) {
        soon("room to send", self.stream.send(message)).await.expect("the connection stands");
    }

    pub async fn next(&mut self) -> Message {
        soon("a message", self.stream.next()).await.expect("the connection stands").expect("a sound message")
    }

    /// The next message, which must be text.
    pub async fn text(&mut self) -> String {
        let message = self.next().await;
        message.as_text().unwrap_or_else(|| panic!("{message:?} is no text")).to_owned()
    }

    /// Sends a text and gives the text that comes back.
    pub async fn ask(&mut self, text: &str) -> String {
        self.send(Message::text(text.to_owned())).await;
        self.text().await
    }

    /// Closes, and waits until the other side has closed too.
    pub async fn close(mut self) {
        soon("room to close", self.stream.close()).await.expect("the connection stands");
        while let Some(Ok(_)) = soon("the end", self.stream.next()).await {}
    }
}

/// A TCP client of the length framing (four bytes, big-endian) or of a raw listener.
pub struct Tcp(pub TcpStream);

impl Tcp {
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("the node listens"))
    }

    pub async fn send_frame(&mut self, frame: &[u8]) {
        let mut bytes = u32::try_from(frame.len()).expect("a short frame").to_be_bytes().to_vec();
        bytes.extend_from_slice(frame);
        self.send(&bytes).await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon("room to send", self.0.write_all(bytes)).await.expect("the connection stands");
    }

    pub async fn frame(&mut self) -> Vec<u8> {
        let length = soon("a length", self.0.read_u32()).await.expect("the connection stands");
        let mut frame = vec![0; length as usize];
        soon("a frame", self.0.read_exact(&mut frame)).await.expect("the connection stands");
        frame
    }

    /// What comes next, in the piece that it comes in.
    pub async fn piece(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 65_536];
        let length = soon("bytes", self.0.read(&mut piece)).await.expect("the connection stands");
        piece.truncate(length);
        piece
    }
}
