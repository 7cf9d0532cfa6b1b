//! A WebSocket on which tests read and write bytes.

use longwire::proto::framing::{FrameKind, Framing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::longwire::Longwire;

/// A WebSocket after the handshake, which had these headers besides the required ones.
pub async fn upgraded(node: &Longwire, headers: &str) -> TcpStream {
    let mut socket = TcpStream::connect(node.address("web")).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("close"), "{head}");
    socket
}

/// The bytes of a client's text message, masked.
pub fn masked(text: &str) -> Vec<u8> {
    let framing = Framing::WebSocket { deflate: None };
    framing.encode_client(FrameKind::Text, text.as_bytes(), [1, 2, 3, 4]).unwrap().to_vec()
}
