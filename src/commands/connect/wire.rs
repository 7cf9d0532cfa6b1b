//! Frames over a connection, seen from the client.
//!
//! Sending only queues; [`Wire::next`] writes and reads at the same time. So a server that answers before it has read everything
//! cannot block us. [`Wire::next`] may be dropped at any await, because bytes that are read or not yet written stay here.

use std::fmt;
use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::ConnectError;
use crate::proto::framing::{Decoder, Frame, FrameKind, Framing, Item, client};

/// A socket of any kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A frame from the server, or its close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Frame(Frame),
    /// The server will send no more. Only WebSocket has a code and a reason.
    Closed {
        code: Option<u16>,
        reason: String,
    },
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "the server sent {} bytes", frame.body.len()),
            Self::Closed { code: None, .. } => f.write_str("the server closed"),
            Self::Closed { code: Some(code), reason } if reason.is_empty() => {
                write!(f, "the server closed with {code}")
            }
            Self::Closed { code: Some(code), reason } => write!(f, "the server closed with {code} {reason:?}"),
        }
    }
}

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// A connection that carries frames.
pub(super) struct Wire {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    framing: Framing,
    decoder: Decoder,
    max_frame_bytes: usize,
    /// Read but not decoded.
    received: BytesMut,
    /// Queued but not written. It has no bound of its own: it grows with the frames that the user sends.
    outgoing: BytesMut,
    /// Our close frame or our FIN is queued, or a write has failed.
    closing: bool,
    /// A FIN is to be sent after the queued bytes.
    end_wanted: bool,
}

impl Wire {
    /// `received` has the bytes that were read after the handshake.
    pub(super) fn new(stream: Box<dyn Stream>, framing: Framing, max_frame_bytes: usize, received: &Bytes) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let decoder = Decoder::new_client(&framing);
        let received = BytesMut::from(&received[..]);
        Self {
            reader,
            writer,
            framing,
            decoder,
            max_frame_bytes,
            received,
            outgoing: BytesMut::new(),
            closing: false,
            end_wanted: false,
        }
    }

    /// Appends a frame to those that wait to be written.
    pub(super) fn queue(&mut self, kind: FrameKind, body: &[u8]) -> Result<(), ConnectError> {
        let frame = self.framing.encode_client(kind, body, mask())?;
        self.outgoing.extend_from_slice(&frame);
        Ok(())
    }

    /// Closes our direction once all queued bytes are written. Call [`Wire::next`] afterwards until the server has closed.
    pub(super) fn close(&mut self) {
        match self.framing {
            Framing::WebSocket { .. } => self.outgoing.extend_from_slice(&client::close(Some(1000), "", mask())),
            _ => self.end_wanted = true,
        }
        self.closing = true;
    }

    /// The next frame or the end. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Arrival, ConnectError> {
        loop {
            if let Some(arrival) = self.decode()? {
                if let Arrival::Closed { .. } = arrival {
                    // This sends our answer to the close frame. It may fail, since the server may be gone already.
                    let _gone = self.writer.write_all_buf(&mut self.outgoing).await;
                }
                return Ok(arrival);
            }
            if self.end_wanted && self.outgoing.is_empty() {
                // This fails only if the server is gone, and the next read reports that.
                let _gone = self.writer.shutdown().await;
                self.end_wanted = false;
            }
            self.received.reserve(READ_BYTES);
            tokio::select! {
                read = self.reader.read_buf(&mut self.received) => match read {
                    Ok(0) => return self.end(),
                    Ok(_) => {}
                    // A server that closes before it has read our close resets the connection.
                    Err(error) if self.closing && error.kind() == io::ErrorKind::ConnectionReset => return self.end(),
                    Err(error) => return Err(error.into()),
                },
                written = self.writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                    // The server takes no more bytes, but those that it sent before can still be read.
                    if written.is_err() {
                        self.give_up_sending();
                    }
                }
            }
        }
    }

    fn give_up_sending(&mut self) {
        self.outgoing.clear();
        self.closing = true;
    }

    fn end(&self) -> Result<Arrival, ConnectError> {
        if self.decoder.is_mid_frame() {
            return Err(ConnectError::Truncated);
        }
        Ok(Arrival::Closed { code: None, reason: String::new() })
    }

    /// The next frame or close in `received`, if a whole one is there. Pings before it are answered.
    fn decode(&mut self) -> Result<Option<Arrival>, ConnectError> {
        while !self.received.is_empty() || self.decoder.has_rest() {
            let (taken, item) = self.decoder.decode(&self.framing, self.max_frame_bytes, &self.received)?;
            self.received.advance(taken);
            match item {
                None => break,
                Some(Item::Frame(frame)) => return Ok(Some(Arrival::Frame(frame))),
                Some(Item::Ping(payload)) => self.outgoing.extend_from_slice(&client::pong(&payload, mask())),
                Some(Item::Pong(_)) => {}
                Some(Item::Close { code, reason }) => {
                    if !self.closing {
                        self.outgoing.extend_from_slice(&client::close(code, "", mask()));
                    }
                    let reason = String::from_utf8_lossy(&reason).into_owned();
                    return Ok(Some(Arrival::Closed { code, reason }));
                }
            }
        }
        Ok(None)
    }
}

/// A new masking key, which must be unpredictable (RFC 6455 section 5.3).
fn mask() -> [u8; 4] {
    let mut mask = [0; 4];
    getrandom::fill(&mut mask).expect("the operating system has random numbers");
    mask
}
