//! How bytes become frames, and replies become bytes.
//!
//! Owns the framings of streams (`length` and `delimiter`, plain and with the options of device protocols, `gap`, `raw`), `websocket` with permessage-deflate, and the event stream of HTTP
//! clients, which goes one way only; says what it takes to be another one ([`custom`]). Promises that a limit is checked before
//! anything is kept, that a buffer grows with what truly arrived and never with what was announced, that a decoder between
//! frames holds no heap memory, and that any split of the same bytes gives the same frames. Leaves to the session what
//! frames mean: it answers pings, does the close handshake, decides what may be compressed, and picks text or binary for a
//! reply.
//!
//! Receiving, a [`Decoder`] is called until it wants more:
//!
//! ```text
//! decode(input) -> (taken, Some(item))   handle it, call again with input[taken..]
//!               -> (taken, None)         all of input was taken; read more
//!               -> Err                   close with error.reason(); the decoder is of no further use
//! ```
//!
//! Two more things are for framings of devices: bytes may be skipped ([`Decoder::take_skipped`]), and where silence ends a frame,
//! whoever has a clock says so ([`Decoder::silence`]).
//!
//! Sending, the body stays where it is and the framing gives what stands around it, so that one vectored write does:
//!
//! ```text
//! whole frame      whole(len)  body  tail()
//! streamed frame   begin(total)  { piece(len)  body }+  tail()      at least one piece, the last marked as such
//! ```
//!
//! where for WebSocket each piece is a fragment, and for length framing everything must be known when it begins. A WebSocket message
//! whose length is known may also be one frame: `whole(total)`, and then bare pieces of the body. An event
//! stream has lines inside its bodies, so its frames are made by [`Framing::encode`] alone. A custom framing takes whole
//! bodies only, and gives their frames itself: [`custom::SessionCodec::encode`].

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

/// An option of a framing that does not fit the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionFault {
    /// Its key in the configuration.
    pub key: &'static str,
    /// What it breaks.
    pub rule: String,
}

/// `LONGWIRE_FRAME_TYPE`, and the WebSocket opcode. Only WebSocket tells them apart on the wire: delimited frames without
/// escapes count as text (unchecked), all others as binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameKind {
    /// `text`
    Text,
    /// `binary`
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
    /// Without delimiter and start, and without header and end unless the framing keeps them; at most `max_frame` bytes.
    pub body: Bytes,
}

/// What a decoder found. All but frames come from WebSocket alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// Asks for a pong with the same payload, at most 125 bytes.
    Ping(Bytes),
    /// Answers a ping, or comes unasked.
    Pong(Bytes),
    /// The peer closes. Whatever follows on the connection means nothing and should not be decoded.
    Close {
        /// Why, if the peer said; a code that may be sent.
        code: Option<u16>,
        /// UTF-8, at most 123 bytes.
        reason: Bytes,
    },
}

/// How bytes become frames on one session. Two equal framings give equal bytes, so an encoded frame may be shared by
/// all sessions whose framing is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// A header says how long the frame is.
    Length(LengthFraming),
    /// A byte string ends the frame.
    Delimiter(Arc<DelimiterFraming>),
    /// The same with the options of device protocols.
    Packet(Arc<PacketFraming>),
    /// A delimiter with the options of device protocols.
    Flagged(Arc<FlaggedFraming>),
    /// Silence of this length ends a frame.
    Gap(Duration),
    /// Whatever arrives is a frame.
    Raw,
    /// RFC 6455, after the handshake.
    WebSocket {
        /// permessage-deflate, as [`deflate::negotiate`] settled it.
        deflate: Option<Deflate>,
    },
    /// Server-sent events: frames to a client, none from it.
    EventStream,
    /// A codec of its own. Nothing of it can be written down.
    #[serde(skip)]
    Custom(Custom),
}

impl Framing {
    /// Its word in the configuration.
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

    /// The framing of one session, from that of its listener.
    pub fn of_session(&self, id: SessionId) -> Self {
        match self {
            Framing::Custom(custom) => Framing::Custom(custom.of_session(id)),
            framing => framing.clone(),
        }
    }

    /// The codec of a session that has one. All that gives heads and tails below is for framings without.
    pub fn codec(&self) -> Option<&dyn SessionCodec> {
        match self {
            Framing::Custom(custom) => custom.session(),
            _ => None,
        }
    }

    /// Bodies stay in one piece, and something is put around them.
    pub fn wraps(&self) -> bool {
        match self {
            Framing::Flagged(framing) => framing.wraps(),
            Framing::EventStream | Framing::Custom(_) => false,
            _ => true,
        }
    }

    /// A frame may leave in fragments, which need not know how long it will be.
    pub const fn has_fragments(&self) -> bool {
        matches!(self, Framing::WebSocket { .. })
    }

    /// Text must be UTF-8 to be carried.
    pub const fn is_text_checked(&self) -> bool {
        matches!(self, Framing::WebSocket { .. } | Framing::EventStream)
    }

    /// What stands before a whole frame of `len` body bytes; [`Framing::tail`] stands after it. Only for a framing that
    /// [`wraps`](Framing::wraps).
    pub fn whole(&self, kind: FrameKind, len: usize) -> Result<Affix, BodyDoesNotFit> {
        match self {
            Framing::Length(framing) => framing.head(len as u64),
            Framing::Delimiter(_) | Framing::Raw | Framing::Gap(_) => Ok(Affix::EMPTY),
            Framing::Packet(framing) => framing.head(len as u64),
            Framing::Flagged(framing) => Ok(framing.head()),
            Framing::WebSocket { .. } => Ok(header::head(Opcode::of(kind), true, false, len, None)),
            Framing::EventStream => unreachable!("an event's lines stand inside its body"),
            Framing::Custom(_) => unreachable!("a codec encodes whole bodies: {self:?}"),
        }
    }

    /// What stands after the body of a frame, whole or streamed.
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

    /// What stands before a streamed frame with `total` body bytes in all. `None` when this framing cannot begin
    /// before it knows the total: hold the body back and send it whole.
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

    /// What stands before one piece of `len` bytes of a streamed frame. A `last` piece may be empty.
    pub fn piece(&self, kind: FrameKind, first: bool, last: bool, len: usize) -> Affix {
        self.fragment(kind, first, last, false, len)
    }

    /// Like [`Framing::whole`], for a body that [`deflate::deflate_whole`] compressed to `len` bytes. Only for
    /// framings with [`Framing::deflate`].
    pub fn whole_deflated(&self, kind: FrameKind, len: usize) -> Affix {
        self.fragment(kind, true, true, true, len)
    }

    /// Like [`Framing::piece`], for a piece that [`deflate::Deflater`] compressed to `len` bytes. Only for framings
    /// with [`Framing::deflate`].
    pub fn piece_deflated(&self, kind: FrameKind, first: bool, last: bool, len: usize) -> Affix {
        self.fragment(kind, first, last, true, len)
    }

    /// How to compress for this peer, if it understands that.
    pub fn deflate(&self) -> Option<Deflate> {
        match self {
            Framing::WebSocket { deflate } => *deflate,
            _ => None,
        }
    }

    /// A whole frame in one piece of memory, to be shared among receivers.
    pub fn encode(&self, kind: FrameKind, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        self.encode_with_id(kind, None, body)
    }

    /// The same with the id that its publisher gave it, where the framing has a place for one. The id has no control
    /// characters in it.
    pub fn encode_with_id(&self, kind: FrameKind, id: Option<&[u8]>, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        match self {
            Framing::EventStream => Ok(event_stream::frame(kind, id, body)),
            Framing::Flagged(framing) => {
                let mut frame = Vec::with_capacity(body.len() + 16);
                framing.append(body, &mut frame);
                Ok(frame.into())
            }
            _ => Ok(join(&self.whole(kind, body.len())?, body, self.tail())),
        }
    }

    /// An event of Longwire's own, which clients of an event stream tell from frames by its name. `None` on other framings.
    pub fn notice(&self, name: &str, data: &str) -> Option<Bytes> {
        matches!(self, Framing::EventStream).then(|| event_stream::event(Some(name), None, data.as_bytes()))
    }

    /// The same, compressed if the peer understands that.
    pub fn encode_deflated(&self, kind: FrameKind, body: &[u8]) -> Result<Bytes, BodyDoesNotFit> {
        let Some(deflate) = self.deflate() else { return self.encode(kind, body) };
        let body = deflate::deflate_whole(deflate, body);
        Ok(join(&self.whole_deflated(kind, body.len()), &body, &[]))
    }

    /// A frame as a client sends it: WebSocket clients mask (RFC 6455 section 5.3), with a key that nobody who chose
    /// the body can foresee. See [`client`] for the rest of that side.
    pub fn encode_client(&self, kind: FrameKind, body: &[u8], mask: [u8; 4]) -> Result<Bytes, BodyDoesNotFit> {
        client::encode(self, kind, body, mask)
    }

    /// A ping; at most 125 bytes of payload are sent. `None` where the framing knows no pings. That of an event stream is
    /// never answered.
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

    /// Whether a client has a way to say that it ends the session, other than to end its connection: a close frame, or for an event
    /// stream a request.
    pub const fn has_goodbye(&self) -> bool {
        matches!(self, Framing::WebSocket { .. } | Framing::EventStream)
    }

    /// A close frame; the text is cut to the 123 bytes that fit. A code that must not be sent (1006) is left out, and
    /// so is a text without a code. To an event stream it is an event named `close`: a browser would come back otherwise.
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

/// Makes room for `more` bytes in a buffer that will never hold more than `bound`: doubling, so that slow bytes cost
/// few copies, but never past the bound, and never ahead of what truly arrived by more than that.
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
