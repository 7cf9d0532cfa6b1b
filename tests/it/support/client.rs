//! A client of any framing, on the library's own codec in its client role.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use bytes::Bytes;
use longwire::proto::framing::{Decoder, Frame, FrameKind, Framing, Item, client};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    pub sender: Sender,
    pub receiver: Receiver,
    /// The descriptor of the halves' socket, if they own it.
    fd: Option<RawFd>,
}

pub struct Sender {
    framing: Framing,
    socket: Box<dyn AsyncWrite + Send + Unpin>,
}

pub struct Receiver {
    framing: Framing,
    decoder: Decoder,
    socket: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
    from: usize,
}

impl Client {
    /// A stream client.
    pub async fn connect(address: SocketAddr, framing: Framing) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        Self::from_parts(socket, framing, Vec::new())
    }

    /// A WebSocket client; panics unless the answer is 101.
    pub async fn upgrade(address: SocketAddr, path: &str, headers: &str) -> Self {
        match Self::try_upgrade(address, path, headers).await {
            Ok((client, _)) => client,
            Err(response) => panic!("the upgrade to WebSocket was refused: {response}"),
        }
    }

    /// A WebSocket client and the head of the 101; or the whole answer if it is not a 101.
    pub async fn try_upgrade(address: SocketAddr, path: &str, headers: &str) -> Result<(Self, String), String> {
        let socket = TcpStream::connect(address).await.expect("it listens");
        let (socket, framing, early, head) = shake_hands(socket, address, path, headers).await?;
        Ok((Self::from_parts(socket, framing, early), head))
    }

    /// A WebSocket client on any connection.
    pub async fn upgrade_on<S>(socket: S, address: SocketAddr, path: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::upgrade_with(socket, address, path, "").await
    }

    /// The same, with further headers.
    pub async fn upgrade_with<S>(socket: S, address: SocketAddr, path: &str, headers: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (socket, framing, early, _) = shake_hands(socket, address, path, headers).await.expect("a WebSocket");
        Self::on(socket, framing, early)
    }

    /// A client on an open connection, with the bytes that were already read from it.
    pub fn from_parts(socket: TcpStream, framing: Framing, early: Vec<u8>) -> Self {
        socket.set_nodelay(true).expect("a TCP socket");
        let fd = socket.as_raw_fd();
        let (read, write) = socket.into_split();
        Self { fd: Some(fd), ..Self::of_halves(Box::new(read), Box::new(write), framing, early) }
    }

    /// The same for any connection.
    pub fn on<S>(socket: S, framing: Framing, early: Vec<u8>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (read, write) = tokio::io::split(socket);
        Self::of_halves(Box::new(read), Box::new(write), framing, early)
    }

    fn of_halves(
        read: Box<dyn AsyncRead + Send + Unpin>,
        write: Box<dyn AsyncWrite + Send + Unpin>,
        framing: Framing,
        early: Vec<u8>,
    ) -> Self {
        Self {
            fd: None,
            sender: Sender { framing: framing.clone(), socket: write },
            receiver: Receiver {
                decoder: Decoder::new_client(&framing),
                framing,
                socket: read,
                buffer: early,
                from: 0,
            },
        }
    }

    pub async fn send(&mut self, kind: FrameKind, body: &[u8]) {
        self.sender.send(kind, body).await;
    }

    pub async fn text(&mut self, body: &str) {
        self.sender.send(FrameKind::Text, body.as_bytes()).await;
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.sender.socket.write_all(bytes).await.expect("it reads");
    }

    pub async fn next(&mut self) -> Option<Item> {
        self.receiver.next().await
    }

    pub async fn frame(&mut self) -> Frame {
        self.receiver.frame().await
    }

    /// Sends a text and returns the body of the answer.
    pub async fn ask(&mut self, body: &str) -> String {
        self.text(body).await;
        String::from_utf8_lossy(&self.frame().await.body).into_owned()
    }

    /// Reads to the end and returns the code of the close frame, if one came. Panics if a frame comes.
    pub async fn end(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(item) = self.next().await {
            match item {
                Item::Close { code: sent, .. } => code = sent,
                Item::Frame(frame) => panic!("no frame was expected: {frame:?}"),
                Item::Ping(_) | Item::Pong(_) => {}
            }
        }
        code
    }

    /// Sends a close frame.
    pub async fn close(&mut self, code: u16) {
        self.bytes(&client::close(Some(code), "", [7; 4])).await;
    }

    /// Sends FIN; the other direction stays open.
    pub async fn finish(&mut self) {
        self.sender.socket.shutdown().await.expect("it is connected");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let fd = self.fd.expect("a socket of its own");
        // SAFETY: the halves keep it open until the end of this call.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).expect("a TCP socket");
    }
}

/// Makes the opening handshake. Returns the connection, the bytes that were read after the handshake, and the head of the 101; or the whole
/// answer if it is not a 101.
async fn shake_hands<S>(
    mut socket: S,
    address: SocketAddr,
    path: &str,
    headers: &str,
) -> Result<(S, Framing, Vec<u8>, String), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut answer).await.expect("it answers") == 0 {
            return Err(String::from_utf8_lossy(&answer).into_owned());
        }
    };
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    if !head.starts_with("HTTP/1.1 101 ") {
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        while answer.len() < end + length && socket.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
        return Err(String::from_utf8_lossy(&answer).into_owned());
    }
    // The key and its answer are those of RFC 6455 section 1.3.
    assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    Ok((socket, Framing::WebSocket { deflate: None }, answer.split_off(end), head))
}

impl Sender {
    pub async fn send(&mut self, kind: FrameKind, body: &[u8]) {
        self.try_send(kind, body).await.expect("it reads");
    }

    /// Like `send`, for a server that may have closed.
    pub async fn try_send(&mut self, kind: FrameKind, body: &[u8]) -> std::io::Result<()> {
        let frame = self.framing.encode_client(kind, body, [1, 2, 3, 4]).expect("bodies of tests fit");
        self.socket.write_all(&frame).await
    }

    /// The same for bytes that are not a frame.
    pub async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes).await
    }

    pub async fn finish(&mut self) {
        self.socket.shutdown().await.expect("it is connected");
    }
}

impl Receiver {
    /// The next item, or `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            let input = &self.buffer[self.from..];
            if !input.is_empty() {
                let (used, item) =
                    self.decoder.decode(&self.framing, usize::MAX / 4, input).expect("the server is right");
                self.from += used;
                if let Some(item) = item {
                    return Some(item);
                }
            }
            self.buffer.clear();
            self.from = 0;
            self.buffer.reserve(64 * 1024);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame; panics if the connection ends instead.
    pub async fn frame(&mut self) -> Frame {
        loop {
            match self.next().await.expect("a frame comes before the end") {
                Item::Frame(frame) => return frame,
                Item::Close { code, reason } => panic!("closed with {code:?} {reason:?} instead of a frame"),
                Item::Ping(_) | Item::Pong(_) => {}
            }
        }
    }
}

/// Bytes that look random and are the same for the same seed (xorshift64*).
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}
