//! How bytes become frames, and replies become bytes.
//!
//! Owns these framings:
//!
//! * for streams: `length` and `delimiter` (plain, or with the options of device protocols), `gap` and `raw`;
//! * `websocket` with permessage-deflate;
//! * the event stream of HTTP clients, which carries frames to clients only;
//! * the interface for framings that are implemented elsewhere ([`custom`]).
//!
//! Promises that a limit is checked before anything is kept, and that a buffer grows with the bytes that arrived, never with an
//! announced length. A decoder between frames holds no heap memory. Any split of the same bytes gives the same frames.
//!
//! Leaves the meaning of frames to the session: it answers pings, does the close handshake, decides which messages may be compressed,
//! and picks text or binary for a reply.
//!
//! To receive, call a [`Decoder`] until it needs more input:
//!
//! ```text
//! decode(input) -> (taken, Some(item))   handle it, call again with input[taken..]
//!               -> (taken, None)         all of input was taken; read more
//!               -> Err                   close with error.reason(); the decoder is of no further use
//! ```
//!
//! Framings of devices need two more things. Bytes may be skipped ([`Decoder::take_skipped`]). Where silence ends a frame, the caller
//! has the clock and reports the silence ([`Decoder::silence`]).
//!
//! To send, the body is not copied: the framing gives the bytes before and after it, so that one vectored write is enough:
//!
//! ```text
//! whole frame      whole(len)  body  tail()
//! streamed frame   begin(total)  { piece(len)  body }+  tail()      at least one piece, the last marked as such
//! ```
//!
//! For WebSocket each piece is a fragment. For length framing the total length must be known at the beginning. A WebSocket message
//! whose length is known may also be sent as one frame: `whole(total)`, and then the bare pieces of the body. The framing of an event
//! stream changes the body itself, so only [`Framing::encode`] makes its frames. A custom framing takes only whole bodies, and makes
//! their frames itself: [`custom::SessionCodec::encode`].

mod affix;
pub mod client;
pub mod custom;
mod decoder;
pub mod deflate;
mod delimiter;
mod error;
mod event_stream;
mod extension;
mod flagged;
mod gap;
mod header;
mod length;
mod marked;
mod packet;
mod raw;
#[cfg(test)]
mod tests;
mod utf8;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use affix::Affix;
pub use decoder::Decoder;
pub use deflate::Deflate;
pub use delimiter::DelimiterFraming;
pub use error::{BodyDoesNotFit, FrameError};
pub use extension::is_token;
pub use flagged::{Escape, FlaggedFraming};
pub use header::is_valid_close_code;
pub use length::{Endian, LengthCounts, LengthFraming};
pub use packet::PacketFraming;

use custom::{Custom, SessionCodec};
use header::Opcode;

use crate::proto::id::SessionId;

/// An option of a framing that contradicts the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionFault {
    /// Its key in the configuration.
    pub key: &'static str,
    /// The rule that it breaks.
    pub rule: String,
}

/// The kind of a frame: `LONGWIRE_FRAME_TYPE`, and the WebSocket opcode. Only WebSocket marks the kind of a received frame. In the
/// other framings, delimited frames without escapes count as text (unchecked), and all others as binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameKind {
    Text,
    Binary,
}

impl FrameKind {
    /// The word that PHP sees.
    pub const fn label(self) -> &'static str {
        match self {
            FrameKind::Text => "text",
            FrameKind::Binary => "binary",
        }
    }
}

/// One complete unit from a peer. The body is what PHP reads from `php://input`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Text or binary.
    pub kind: FrameKind,
    /// The body without delimiter and start. Header and end are included only if the framing keeps them. At most `max_frame` bytes.
    pub body: Bytes,
}

/// A decoded item. Every item except `Frame` comes from WebSocket only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    Frame(Frame),
    /// Asks for a pong with the same payload, at most 125 bytes.
    Ping(Bytes),
    /// Answers a ping, or comes unsolicited.
    Pong(Bytes),
    /// The peer closes. Bytes that follow on the connection have no meaning and should not be decoded.
    Close {
        /// The close code, if the peer sent one; always a code that may be sent.
        code: Option<u16>,
        /// UTF-8, at most 123 bytes.
        reason: Bytes,
    },
}

/// How bytes become frames in one session. Equal framings give equal bytes, so all sessions with an equal framing may share an
/// encoded frame.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A header has the length of the frame.
    Length(LengthFraming),
    /// A byte string ends the frame.
    Delimiter(Arc<DelimiterFraming>),
    /// A length header with the options of device protocols.
    Packet(Arc<PacketFraming>),
    /// A delimiter with the options of device protocols.
    Flagged(Arc<FlaggedFraming>),
    /// Silence of this length ends a frame.
    Gap(Duration),
    /// The bytes of one read are a frame.
    Raw,
    /// RFC 6455, after the handshake.
    WebSocket {
        /// permessage-deflate, as [`deflate::negotiate`] agreed on it.
        deflate: Option<Deflate>,
    },
    /// Server-sent events: frames to a client, none from it.
    EventStream,
    /// A codec that is implemented elsewhere. Its state cannot be serialized.
    #[serde(skip)]
    Custom(Custom),
}

impl Framing {
    /// The word for it in the configuration.
    pub const fn label(&self) -> &'static str {
        match self {
            Framing::Length(_) | Framing::Packet(_) => "length",
            Framing::Delimiter(_) | Framing::Flagged(_) => "delimiter",
            Framing::Gap(_) => "gap",
            Framing::Raw => "raw",
            Framing::WebSocket { .. } => "websocket",
            Framing::EventStream => "event-stream",
            Framing::Custom(_) => "lua",
        }
    }

    /// The framing of one session, made from the framing of its listener.
    pub fn of_session(&self, id: SessionId) -> Self {
        match self {
            Framing::Custom(custom) => Framing::Custom(custom.of_session(id)),
            framing => framing.clone(),
        }
    }

    /// The session's codec, if the framing is custom. The methods below that give heads and tails are only for framings without a codec.
    pub fn codec(&self) -> Option<&dyn SessionCodec> {
        match self {
            Framing::Custom(custom) => custom.session(),
            _ => None,
        }
    }

    /// Whether a frame may be sent in fragments, without knowing its total length.
    pub const fn has_fragments(&self) -> bool {
        matches!(self, Framing::WebSocket { .. })
    }

    /// Whether text must be UTF-8.
    pub const fn is_text_checked(&self) -> bool {
        matches!(self, Framing::WebSocket { .. } | Framing::EventStream)
    }

    /// The bytes before a body of `len` bytes that is sent as a whole frame; [`Framing::tail`] follows the body. `None` if the body
    /// itself changes on its way into the frame: then [`Framing::encode`] makes the frame.
    pub fn whole_head(&self, kind: FrameKind, len: usize) -> Result<Option<Affix>, BodyDoesNotFit> {
        match self {
            Framing::Length(framing) => framing.head(len as u64).map(Some),
            Framing::Delimiter(_) | Framing::Raw | Framing::Gap(_) => Ok(Some(Affix::EMPTY)),
            Framing::Packet(framing) => framing.head(len as u64).map(Some),
            Framing::Flagged(framing) => Ok(framing.wraps().then(|| framing.head())),
            Framing::WebSocket { .. } => Ok(Some(header::head(Opcode::of(kind), true, false, len, None))),
            Framing::EventStream | Framing::Custom(_) => Ok(None),
        }
    }

    /// The bytes after the body of a frame, whole or streamed.
    pub fn tail(&self) -> &[u8] {
        match self {
            Framing::Delimiter(framing) => &framing.delimiter,
            Framing::Packet(framing) => framing.tail(),
            Framing::Flagged(framing) => &framing.delimiter.delimiter,
            Framing::Length(_)
            | Framing::Gap(_)
            | Framing::Raw
            | Framing::WebSocket { .. }
            | Framing::EventStream
            | Framing::Custom(_) => &[],
        }
    }

    /// The bytes before a streamed frame whose body has `total` bytes. `None` if this framing cannot begin before it knows the total,
    /// or cannot stream: then collect the body and send it whole.
    pub fn begin(&self, total: Option<u64>) -> Result<Option<Affix>, BodyDoesNotFit> {
        match (self, total) {
            (Framing::Length(framing), Some(total)) => framing.head(total).map(Some),
            (Framing::Length(framing), None) => Ok(framing.keep_header.then_some(Affix::EMPTY)),
            (Framing::Packet(framing), Some(total)) => framing.head(total).map(Some),
            (Framing::Packet(framing), None) => Ok(framing.length.keep_header.then_some(Affix::EMPTY)),
            (Framing::Flagged(framing), _) => Ok(framing.wraps().then(|| framing.head())),
            (Framing::Delimiter(_) | Framing::Raw | Framing::Gap(_) | Framing::WebSocket { .. }, _) => {
                Ok(Some(Affix::EMPTY))
            }
            (Framing::EventStream | Framing::Custom(_), _) => Ok(None),
        }
    }

    /// The bytes before one piece of `len` bytes of a streamed frame. A `last` piece may be empty.
    pub fn piece(&self, kind: FrameKind, first: bool, last: bool, len: usize) -> Affix {
        self.fragment(kind, first, last, false, len)
    }

    /// Like [`Framing::whole_head`], for a body that [`deflate::deflate_whole`] compressed to `len` bytes. Only for
    /// framings with [`Framing::deflate`].
    pub fn whole_deflated(&self, kind: FrameKind, len: usize) -> Affix {
        self.fragment(kind, true, true, true, len)
    }

    /// Like [`Framing::piece`], for a piece that [`deflate::Deflater`] compressed to `len` bytes. Only for framings
    /// with [`Framing::deflate`].
    pub fn piece_deflated(&self, kind: FrameKind, first: bool, last: bool, len: usize) -> Affix {
        self.fragment(kind, first, last, true, len)
    }

    /// How to compress for this peer, if it accepts compressed messages.
    pub fn deflate(&self) -> Option<Deflate> {
        match self {
            Framing::WebSocket { deflate } => *deflate,
            _ => None,
        }
    }

    /// A whole frame in one piece of memory, which receivers can share.
    pub fn encode(&self, kind: FrameKind, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        self.encode_with_id(kind, None, body)
    }

    /// The same with the id that its publisher gave it, if the framing can carry one. The id has no control characters.
    pub fn encode_with_id(&self, kind: FrameKind, id: Option<&[u8]>, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        if let Some(head) = self.whole_head(kind, body.len())? {
            return Ok(join(&head, body, self.tail()));
        }
        match self {
            Framing::EventStream => Ok(event_stream::frame(kind, id, body)),
            Framing::Flagged(framing) => {
                let mut frame = Vec::with_capacity(body.len() + 16);
                framing.append(body, &mut frame);
                Ok(frame.into())
            }
            _ => Err(BodyDoesNotFit::NeedsCodec),
        }
    }

    /// An event from Longwire itself. Clients of an event stream distinguish it from frames by its name. `None` for other framings.
    pub fn notice(&self, name: &str, data: &str) -> Option<Bytes> {
        matches!(self, Framing::EventStream).then(|| event_stream::event(Some(name), None, data.as_bytes()))
    }

    /// A whole frame, compressed if the peer accepts that.
    pub fn encode_deflated(&self, kind: FrameKind, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        let Some(deflate) = self.deflate() else { return self.encode(kind, body) };
        let body = deflate::deflate_whole(deflate, body);
        Ok(join(&self.whole_deflated(kind, body.len()), &body, &[]))
    }

    /// A frame as a client sends it. WebSocket clients mask it (RFC 6455 section 5.3) with a key that the author of the body must not be
    /// able to predict. See [`client`] for the rest of that side.
    pub fn encode_client(&self, kind: FrameKind, body: &[u8], mask: [u8; 4]) -> Result<Bytes, BodyDoesNotFit> {
        client::encode(self, kind, body, mask)
    }

    /// A ping; at most 125 bytes of payload are sent. `None` if the framing has no pings. Clients never answer the ping of an event
    /// stream.
    pub fn ping(&self, payload: &[u8]) -> Option<Bytes> {
        match self {
            Framing::EventStream => Some(Bytes::from_static(event_stream::HEARTBEAT)),
            _ => self.control(Opcode::Ping, payload),
        }
    }

    /// A pong; at most 125 bytes of payload are sent.
    pub fn pong(&self, payload: &[u8]) -> Option<Bytes> {
        self.control(Opcode::Pong, payload)
    }

    /// Whether a client can announce the end of its session before it closes the connection: with a close frame, or for an event stream
    /// with a request.
    pub const fn has_goodbye(&self) -> bool {
        matches!(self, Framing::WebSocket { .. } | Framing::EventStream)
    }

    /// A close frame; the text is cut to the 123 bytes that fit. A code that must not be sent (1006) is left out, and so is a text
    /// without a code. For an event stream it is an event named `close`; without it a browser would reconnect.
    pub fn close(&self, code: Option<u16>, text: &str) -> Option<Bytes> {
        if let Framing::EventStream = self {
            return self.notice("close", format!("{} {text}", code.unwrap_or(1005)).trim_end());
        }
        let (payload, len) = header::close_payload(code, text);
        self.control(Opcode::Close, &payload[..len])
    }

    fn control(&self, opcode: Opcode, payload: &[u8]) -> Option<Bytes> {
        let Framing::WebSocket { .. } = self else { return None };
        let payload = &payload[..payload.len().min(header::MAX_CONTROL)];
        Some(join(&header::head(opcode, true, false, payload.len(), None), payload, &[]))
    }

    fn fragment(&self, kind: FrameKind, first: bool, last: bool, deflated: bool, len: usize) -> Affix {
        debug_assert!(!deflated || self.deflate().is_some(), "the peer cannot inflate: {self:?}");
        let Framing::WebSocket { .. } = self else { return Affix::EMPTY };
        let opcode = if first { Opcode::of(kind) } else { Opcode::Continuation };
        header::head(opcode, last, deflated && first, len, None)
    }
}

/// The smallest buffer worth an allocation.
const MIN_BUFFER: usize = 64;

/// Makes room for `more` bytes in a buffer that never holds more than `bound`. The capacity doubles, so that bytes which arrive slowly
/// cost few copies. It never exceeds the bound, and is at most twice the bytes that arrived (or [`MIN_BUFFER`]).
fn grow(buffer: &mut Vec<u8>, more: usize, bound: usize) {
    let needed = buffer.len() + more;
    if needed > buffer.capacity() {
        let doubled = buffer.capacity().saturating_mul(2).max(MIN_BUFFER).min(bound);
        buffer.reserve_exact(doubled.max(needed) - buffer.len());
    }
}

fn join(head: &[u8], body: &[u8], tail: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(head.len() + body.len() + tail.len());
    frame.extend_from_slice(head);
    frame.extend_from_slice(body);
    frame.extend_from_slice(tail);
    frame.into()
}
