//! The decoder of any framing.

use serde::{Deserialize, Serialize};

use super::header::Role;
use super::{FrameError, Framing, Item, custom, delimiter, flagged, gap, length, packet, raw, websocket};

/// Cuts frames out of what one peer sends; one for each session. Holds no heap memory between frames. Plain data: a
/// frame half received can be written down and taken up in another process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoder(State);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Length(length::Decoder),
    Delimiter(delimiter::Decoder),
    // In boxes, for the few sessions that have one: what is between two frames of a device has to be remembered too.
    Packet(Box<packet::Decoder>),
    Flagged(Box<flagged::Decoder>),
    Gap(gap::Decoder),
    Raw,
    WebSocket(websocket::Decoder),
    /// Nothing comes.
    EventStream,
    Custom {
        /// Bytes that the codec keeps.
        buffered: usize,
    },
    Broken(FrameError),
}

// Every session has one, most of them at rest.
const _: () = assert!(size_of::<Decoder>() <= 32);

impl Decoder {
    /// For what a client sends.
    pub fn new(framing: &Framing) -> Self {
        Self::with_role(framing, Role::Server)
    }

    /// For what a server sends.
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

    /// Takes bytes from the front of `input`; says how many, and what was found. `None` means that all of `input` was
    /// taken, kept inside as far as it is part of a frame, and that more is needed.
    ///
    /// `framing` is the one it was made for. `max_frame` bounds the body of a frame: what PHP sees, over all fragments,
    /// inflated. (Compressed messages may be an eighth longer on the wire, as those are that cannot be compressed, and
    /// while one is inflated both forms are in memory.) After an error each call gives the same error.
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
            // What was kept is of no use to anybody.
            self.0 = State::Broken(error);
        }
        found
    }

    /// Nothing has come for as long as the framing says, or nothing will any more: the frame that this ends, where silence
    /// does.
    pub fn silence(&mut self) -> Option<Item> {
        match &mut self.0 {
            State::Gap(decoder) => decoder.silence(),
            _ => None,
        }
    }

    /// More may be found in bytes that are kept: [`Decoder::decode`] is to be called again, also when there is nothing to give it.
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

    /// In the middle of a frame, or between the fragments of a message: the end of input now truncates it. At the end
    /// of input there is nothing else to fetch, unless [`Decoder::has_rest`] says so.
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

    /// Bytes of heap memory held for frames now: never more than `max_frame` (an eighth more of a compressed message, or while
    /// bytes are skipped), the header and a small constant.
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
