//! One decoder type for all framings.

use serde::{Deserialize, Serialize};

use super::header::Role;
use super::{FrameError, Framing, Item, custom, delimiter, flagged, gap, length, packet, raw, websocket};

/// Cuts frames out of the bytes of one peer; there is one for each session. Holds no heap memory between frames. It is plain data, so a
/// half-received frame can be serialized and completed in another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoder(State);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Length(length::Decoder),
    Delimiter(delimiter::Decoder),
    // Boxed, because few sessions have one and these decoders must keep state between frames too.
    Packet(Box<packet::Decoder>),
    Flagged(Box<flagged::Decoder>),
    Gap(gap::Decoder),
    Raw,
    WebSocket(websocket::Decoder),
    /// A client of an event stream sends no frames.
    EventStream,
    Custom {
        /// Bytes that the codec keeps.
        buffered: usize,
    },
    Broken(FrameError),
}

// Every session has a decoder, and most of them are between frames.
const _: () = assert!(size_of::<Decoder>() <= 32);

impl Decoder {
    /// A decoder for bytes from a client.
    pub fn new(framing: &Framing) -> Self {
        Self::with_role(framing, Role::Server)
    }

    /// A decoder for bytes from a server.
    pub fn new_client(framing: &Framing) -> Self {
        Self::with_role(framing, Role::Client)
    }

    fn with_role(framing: &Framing, role: Role) -> Self {
        Decoder(match framing {
            Framing::Length(options) => {
                debug_assert!(options.is_valid(), "config refuses such numbers: {options:?}");
                State::Length(length::Decoder::default())
            }
            Framing::Delimiter(options) => {
                debug_assert!(!options.delimiter.is_empty(), "config refuses an empty delimiter");
                State::Delimiter(delimiter::Decoder::default())
            }
            Framing::Packet(options) => {
                debug_assert_eq!(options.check(), Ok(()), "config refuses such options");
                State::Packet(Box::default())
            }
            Framing::Flagged(options) => {
                debug_assert_eq!(options.check(), Ok(()), "config refuses such options");
                State::Flagged(Box::new(flagged::Decoder::new(options)))
            }
            Framing::Gap(_) => State::Gap(gap::Decoder::default()),
            Framing::Raw => State::Raw,
            Framing::WebSocket { .. } => State::WebSocket(websocket::Decoder::new(role)),
            Framing::EventStream => State::EventStream,
            Framing::Custom(_) => State::Custom { buffered: 0 },
        })
    }

    /// Takes bytes from the front of `input`. Returns how many it took, and the item it found. `None` means that all of `input` was
    /// taken and more is needed; bytes that belong to a frame are kept inside.
    ///
    /// `framing` must be the one that the decoder was made for. `max_frame` limits the body of a frame as PHP sees it: inflated, and all
    /// fragments together. A compressed message may be an eighth longer on the wire, because incompressible data grows. While a message
    /// is inflated, both forms are in memory. After an error each call returns the same error.
    pub fn decode(
        &mut self,
        framing: &Framing,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        let found = match (&mut self.0, framing) {
            (State::Length(decoder), Framing::Length(options)) => decoder.decode(options, max_frame, input),
            (State::Delimiter(decoder), Framing::Delimiter(options)) => decoder.decode(options, max_frame, input),
            (State::Packet(decoder), Framing::Packet(options)) => decoder.decode(options, max_frame, input),
            (State::Flagged(decoder), Framing::Flagged(options)) => decoder.decode(options, max_frame, input),
            (State::Gap(decoder), Framing::Gap(_)) => decoder.decode(max_frame, input),
            (State::Raw, Framing::Raw) => Ok(raw::decode(max_frame, input)),
            (State::WebSocket(decoder), Framing::WebSocket { deflate }) => {
                decoder.decode(deflate.is_some(), max_frame, input)
            }
            (State::EventStream, Framing::EventStream) => Ok((input.len(), None)),
            (State::Custom { buffered }, Framing::Custom(codec)) => custom::decode(codec, buffered, max_frame, input),
            (State::Broken(error), _) => Err(*error),
            (state, framing) => unreachable!("a session keeps its framing: {state:?} met {framing:?}"),
        };
        if let Err(error) = found {
            // This also frees the bytes that were kept: nothing needs them now.
            self.0 = State::Broken(error);
        }
        found
    }

    /// Tells the decoder that the peer was silent for the time that the framing sets, or that input has ended. Returns the frame that
    /// ends now, if silence ends frames in this framing.
    pub fn silence(&mut self) -> Option<Item> {
        match &mut self.0 {
            State::Gap(decoder) => decoder.silence(),
            _ => None,
        }
    }

    /// Whether the kept bytes may contain another frame. Then call [`Decoder::decode`] again, even with empty input.
    pub fn has_rest(&self) -> bool {
        matches!(&self.0, State::Packet(decoder) if decoder.has_rest())
    }

    /// Bytes that were skipped since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        match &mut self.0 {
            State::Packet(decoder) => decoder.skipped.take(),
            State::Flagged(decoder) => decoder.skipped.take(),
            _ => 0,
        }
    }

    /// Bytes that were skipped in all.
    pub fn skipped(&self) -> u64 {
        match &self.0 {
            State::Packet(decoder) => decoder.skipped.total,
            State::Flagged(decoder) => decoder.skipped.total,
            _ => 0,
        }
    }

    /// Whether the decoder is inside a frame, or between the fragments of a message: if input ends now, it is truncated. At the end of
    /// input nothing else needs to be fetched, unless [`Decoder::has_rest`] is true.
    pub fn is_mid_frame(&self) -> bool {
        match &self.0 {
            State::Length(decoder) => decoder.is_mid_frame(),
            State::Delimiter(decoder) => decoder.is_mid_frame(),
            State::Packet(decoder) => decoder.is_mid_frame(),
            State::Flagged(decoder) => decoder.is_mid_frame(),
            State::Gap(decoder) => decoder.is_mid_frame(),
            State::WebSocket(decoder) => decoder.is_mid_frame(),
            State::Custom { buffered } => *buffered > 0,
            State::Raw | State::EventStream | State::Broken(_) => false,
        }
    }

    /// Bytes of heap memory held for frames now. They are never more than `max_frame`, the header and a small constant. For a compressed
    /// message, and while bytes are skipped, `max_frame` may be exceeded by an eighth.
    pub fn buffered(&self) -> usize {
        match &self.0 {
            State::Length(decoder) => decoder.buffered(),
            State::Delimiter(decoder) => decoder.buffered(),
            State::Packet(decoder) => decoder.buffered(),
            State::Flagged(decoder) => decoder.buffered(),
            State::Gap(decoder) => decoder.buffered(),
            State::WebSocket(decoder) => decoder.buffered(),
            State::Custom { buffered } => *buffered,
            State::Raw | State::EventStream | State::Broken(_) => 0,
        }
    }
}
