//! Framings that are implemented elsewhere: a codec for each listener, which makes one for each session.
//!
//! This is the interface that a session needs. `proto` does not know the implementation, which uses a scripting language and locks.
//! Other framings are values that cut and join bytes. A codec can do more on its own: send bytes that are no answer, end the session, or
//! fail. Its output for the peer is queued inside it, in order, until the session calls [`SessionCodec::settle`] or sends a frame.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::error::FrameError;
use super::{Frame, Item};
use crate::proto::close::CloseReason;
use crate::proto::id::SessionId;

/// Makes the codecs of a listener's sessions.
pub trait Codec: fmt::Debug + Send + Sync {
    /// The codec of a new session.
    fn of_session(&self, id: SessionId) -> Arc<dyn SessionCodec>;
}

/// Turns bytes into frames in one session, and bodies into bytes.
///
/// Call [`SessionCodec::open`] first and [`SessionCodec::close`] last. Between them, call any of the others from any thread.
pub trait SessionCodec: fmt::Debug + Send + Sync {
    /// The session begins. Calls after the first do nothing. Returns false if the codec refuses the session; [`SessionCodec::settle`] then
    /// delivers the reason.
    fn open(&self) -> bool;

    /// Like [`super::Decoder::decode`]. After a failure of its own the codec takes all bytes and finds nothing.
    fn decode(&self, max_frame: usize, input: &[u8]) -> Result<Decoded, FrameError>;

    /// Hands over the queued output, oldest first. No other thread's output can get between calls of `deliver`.
    fn settle(&self, deliver: &mut dyn FnMut(Outgoing));

    /// Does the same, and then hands over the frame for `body`, if the codec makes one. An error says why it could not make one: then no
    /// part of the frame was sent, and the session stays open.
    fn encode(&self, body: &[u8], deliver: &mut dyn FnMut(Outgoing)) -> Result<(), Box<str>>;

    /// The session ends. Calls after the first do nothing.
    fn close(&self);
}

/// The result of decoding received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes from the front of the input that were used or kept inside.
    pub taken: usize,
    /// The frame, if one was found; otherwise all of the input was taken.
    pub frame: Option<Frame>,
    /// Bytes kept inside now.
    pub buffered: usize,
}

/// Output of a codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Bytes for the peer that do not encode a body.
    Bytes(Bytes),
    /// The encoded form of a body; may be empty.
    Frame(Bytes),
    /// The end of the session.
    End(CloseReason, Box<str>),
}

/// The custom framing of a listener, or of one of its sessions.
#[derive(Clone, Debug)]
pub enum Custom {
    /// Of a listener: it makes the framings of its sessions.
    Listener(Arc<dyn Codec>),
    Session(Arc<dyn SessionCodec>),
}

impl Custom {
    pub(super) fn of_session(&self, id: SessionId) -> Self {
        match self {
            Custom::Listener(codec) => Custom::Session(codec.of_session(id)),
            Custom::Session(_) => self.clone(),
        }
    }

    pub(super) fn session(&self) -> Option<&dyn SessionCodec> {
        match self {
            Custom::Listener(_) => None,
            Custom::Session(codec) => Some(&**codec),
        }
    }

    fn address(&self) -> *const () {
        match self {
            Custom::Listener(codec) => Arc::as_ptr(codec).cast(),
            Custom::Session(codec) => Arc::as_ptr(codec).cast(),
        }
    }
}

/// Each is equal only to itself, so that no two sessions share encoded bytes.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

/// Decodes with the session's codec. The codec keeps the bytes; `buffered` is updated to their number.
pub(super) fn decode(
    custom: &Custom,
    buffered: &mut usize,
    max_frame: usize,
    input: &[u8],
) -> Result<(usize, Option<Item>), FrameError> {
    let codec = custom.session().expect("a session's framing is made by Framing::of_session");
    let decoded = codec.decode(max_frame, input)?;
    *buffered = decoded.buffered;
    Ok((decoded.taken, decoded.frame.map(Item::Frame)))
}
