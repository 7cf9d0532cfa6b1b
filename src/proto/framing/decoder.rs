//! One decoder type for all framings.

use serde::{Deserialize, Serialize};

use super::header::Role;
use super::{FrameError, Framing, Item, custom, delimiter, flagged, gap, length, packet, raw, websocket};

/// Cuts frames out of the bytes of one peer; there is one for each session. Holds no heap memory between frames. It is plain data, so a
/// half-received frame can be serialized and completed in another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoder(DecoderState);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DecoderState {
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
                DecoderState::Length(length::Decoder::default())
            }
            Framing::Delimiter(options) => {
                debug_assert!(!options.delimiter.is_empty(), "config refuses an empty delimiter");
                DecoderState::Delimiter(delimiter::Decoder::default())
            }
            Framing::Packet(options) => {
                debug_assert_eq!(options.check(), Ok(()), "config refuses such options");
                DecoderState::Packet(Box::default())
            }
            Framing::Flagged(options) => {
                debug_assert_eq!(options.check(), Ok(()), "config refuses such options");
                DecoderState::Flagged(Box::new(flagged::Decoder::new(options)))
            }
            Framing::Gap(_) => DecoderState::Gap(gap::Decoder::default()),
            Framing::Raw => DecoderState::Raw,
            Framing::WebSocket { .. } => DecoderState::WebSocket(websocket::Decoder::new(role)),
            Framing::EventStream => DecoderState::EventStream,
            Framing::Custom(_) => DecoderState::Custom { buffered: 0 },
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
            (DecoderState::Length(decoder), Framing::Length(options)) => decoder.decode(options, max_frame, input),
            (DecoderState::Delimiter(decoder), Framing::Delimiter(options)) => {
                decoder.decode(options, max_frame, input)
            }
            (DecoderState::Packet(decoder), Framing::Packet(options)) => decoder.decode(options, max_frame, input),
            (DecoderState::Flagged(decoder), Framing::Flagged(options)) => decoder.decode(options, max_frame, input),
            (DecoderState::Gap(decoder), Framing::Gap(_)) => decoder.decode(max_frame, input),
            (DecoderState::Raw, Framing::Raw) => Ok(raw::decode(max_frame, input)),
            (DecoderState::WebSocket(decoder), Framing::WebSocket { deflate }) => {
                decoder.decode(deflate.is_some(), max_frame, input)
            }
            (DecoderState::EventStream, Framing::EventStream) => Ok((input.len(), None)),
            (DecoderState::Custom { buffered }, Framing::Custom(codec)) => {
                custom::decode(codec, buffered, max_frame, input)
            }
            (DecoderState::Broken(error), _) => Err(*error),
            (state, framing) => unreachable!("a session keeps its framing: {state:?} met {framing:?}"),
        };
        if let Err(error) = found {
            // This also frees the bytes that were kept: nothing needs them now.
            self.0 = DecoderState::Broken(error);
        }
        found
    }

    /// Tells the decoder that the peer was silent for the time that the framing sets, or that input has ended. Returns the frame that
    /// ends now, if silence ends frames in this framing.
    pub fn silence(&mut self) -> Option<Item> {
        match &mut self.0 {
            DecoderState::Gap(decoder) => decoder.silence(),
            _ => None,
        }
    }

    /// Whether the kept bytes may contain another frame. Then call [`Decoder::decode`] again, even with empty input.
    pub fn has_rest(&self) -> bool {
        matches!(&self.0, DecoderState::Packet(decoder) if decoder.has_rest())
    }

    /// Bytes that were skipped since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        match &mut self.0 {
            DecoderState::Packet(decoder) => decoder.skipped.take(),
            DecoderState::Flagged(decoder) => decoder.skipped.take(),
            _ => 0,
        }
    }

    /// Bytes that were skipped in all.
    pub fn skipped(&self) -> u64 {
        match &self.0 {
            DecoderState::Packet(decoder) => decoder.skipped.total,
            DecoderState::Flagged(decoder) => decoder.skipped.total,
            _ => 0,
        }
    }

    /// Whether the decoder is inside a frame, or between the fragments of a message: if input ends now, it is truncated. At the end of
    /// input nothing else needs to be fetched, unless [`Decoder::has_rest`] is true.
    pub fn is_mid_frame(&self) -> bool {
        match &self.0 {
            DecoderState::Length(decoder) => decoder.is_mid_frame(),
            DecoderState::Delimiter(decoder) => decoder.is_mid_frame(),
            DecoderState::Packet(decoder) => decoder.is_mid_frame(),
            DecoderState::Flagged(decoder) => decoder.is_mid_frame(),
            DecoderState::Gap(decoder) => decoder.is_mid_frame(),
            DecoderState::WebSocket(decoder) => decoder.is_mid_frame(),
            DecoderState::Custom { buffered } => *buffered > 0,
            DecoderState::Raw | DecoderState::EventStream | DecoderState::Broken(_) => false,
        }
    }

    /// Bytes of heap memory held for frames now. They are never more than `max_frame`, the header and a small constant. For a compressed
    /// message, and while bytes are skipped, `max_frame` may be exceeded by an eighth.
    pub fn buffered(&self) -> usize {
        match &self.0 {
            DecoderState::Length(decoder) => decoder.buffered(),
            DecoderState::Delimiter(decoder) => decoder.buffered(),
            DecoderState::Packet(decoder) => decoder.buffered(),
            DecoderState::Flagged(decoder) => decoder.buffered(),
            DecoderState::Gap(decoder) => decoder.buffered(),
            DecoderState::WebSocket(decoder) => decoder.buffered(),
            DecoderState::Custom { buffered } => *buffered,
            DecoderState::Raw | DecoderState::EventStream | DecoderState::Broken(_) => 0,
        }
    }
}
