//! Framings that are made elsewhere: a codec for each listener, and of it one for each session.
//!
//! Here stands what a session needs of them; who implements it, with a scripting language and locks, is not for `proto` to
//! know. Other framings are values that cut and join bytes. A codec has a will of its own: it may send bytes that nobody
//! gave it, end the session, or fail. What it wants to leave for the peer waits inside it, in the order in which it came to be,
//! until somebody calls [`SessionCodec::settle`] or sends a frame.

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

/// How bytes become frames in one session, and bodies bytes.
///
/// Call [`SessionCodec::open`] first, [`SessionCodec::close`] last; in between any of the others, from any thread.
pub trait SessionCodec: fmt::Debug + Send + Sync {
    /// The session begins. Calls after the first do nothing. False when the codec wants none of it; why is among what
    /// [`SessionCodec::settle`] delivers.
    fn open(&self) -> bool;

    /// As [`super::Decoder::decode`]. After a failure of its own it takes all bytes and finds nothing.
    fn decode(&self, max_frame: usize, input: &[u8]) -> Result<Decoded, FrameError>;

    /// Hands over what waits, oldest first. What `deliver` does with it, it does before anybody else can come in between.
    fn settle(&self, deliver: &mut dyn FnMut(Outgoing));

    /// The same, and then the frame for `body` if there is to be one. The error says why none could be made: nothing of it was sent, and the
    /// session stays.
    fn encode(&self, body: &[u8], deliver: &mut dyn FnMut(Outgoing)) -> Result<(), Box<str>>;

    /// The session ends. Calls after the first do nothing.
    fn close(&self);
}

/// What was found in received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes from the front of the input that are done with or kept inside.
    pub taken: usize,
    /// A frame; without one all of the input was taken.
    pub frame: Option<Frame>,
    /// Bytes kept inside now.
    pub buffered: usize,
}

/// What a codec wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Bytes for the peer that are no answer to a body.
    Bytes(Bytes),
    /// All that there is to send for a body; may be empty.
    Frame(Bytes),
    /// The end of the session.
    End(CloseReason, Box<str>),
}

/// The framing of a listener, or of one of its sessions, that a codec makes.
#[derive(Clone, Debug)]
pub enum Custom {
    /// Of a listener: sessions have to be made of it.
    Listener(Arc<dyn Codec>),
    /// Of a session.
    Session(Arc<dyn SessionCodec>),
}

impl Custom {
    /// For one session.
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

/// Each is equal to itself alone: no two sessions share encoded bytes.
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

/// What a decoder knows while the codec keeps the bytes.
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
