//! The short protocol: fooking's commands, byte for byte. It has no greeting, and only `info` has an answer.

use std::fmt;

use bytes::BytesMut;

use super::Frame;
use crate::proto::command::{Action, BadName, Command, Message, Name, Target};
use crate::proto::id::SessionId;

/// The type that fooking calls `INFO`; the answer has the same type.
const INFO: u16 = 12;

/// One request of the short protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShortRequest {
    /// A command, which has no answer.
    Command(Command),
    /// Asks for the number of clients and channels on each node: [`info`] encodes the answer.
    Info,
}

/// Why a frame is refused. The connection is then closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A type that fooking uses between its own parts.
    ForGateways(u16),
    /// No such type.
    UnknownType(u16),
    /// The length of the slen part is not a multiple of the length of an id.
    BadIds(usize),
    /// The name of a channel is not valid.
    BadName(BadName),
}

impl Refused {
    /// The word in metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Refused::ForGateways(_) => "for_gateways",
            Refused::UnknownType(_) => "unknown_type",
            Refused::BadIds(_) => "bad_ids",
            Refused::BadName(_) => "bad_name",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::ForGateways(kind) => {
                write!(f, "type {kind} is not supported: fooking used it only between its own parts")
            }
            Refused::UnknownType(kind) => write!(f, "unknown type {kind}"),
            Refused::BadIds(len) => write!(f, "slen is {len}, which is not a multiple of {}", SessionId::LEN),
            Refused::BadName(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

/// Reads the command or query in a frame.
pub fn decode(frame: &Frame) -> Result<ShortRequest, Refused> {
    let name = |bytes: &[u8]| Name::new(bytes).map_err(Refused::BadName);
    let message = || Action::Send(Message::new(frame.body.clone()));
    let command = match frame.kind {
        4 => {
            let action = Action::Close { code: 1000, text: "".into(), last: None };
            Command::new(sessions(&frame.head)?, action)
        }
        5 => Command::new(sessions(&frame.head)?, message()),
        6 => Command::new(Target::All, message()),
        7 => Command::new(sessions(&frame.head)?, Action::Join(name(&frame.body)?)),
        8 => Command::new(sessions(&frame.head)?, Action::Leave(name(&frame.body)?)),
        9 => Command::new(Target::Channel(name(&frame.head)?), message()),
        INFO => return Ok(ShortRequest::Info),
        1..=3 | 10 | 11 => return Err(Refused::ForGateways(frame.kind)),
        other => return Err(Refused::UnknownType(other)),
    };
    Ok(ShortRequest::Command(command))
}

/// Invalid ids are skipped: no session can have them.
fn sessions(head: &[u8]) -> Result<Target, Refused> {
    if !head.len().is_multiple_of(SessionId::LEN) {
        return Err(Refused::BadIds(head.len()));
    }
    Ok(Target::Sessions(head.chunks_exact(SessionId::LEN).filter_map(SessionId::from_bytes).collect()))
}

/// The numbers of one node in the answer to `info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its number.
    pub node: u16,
    pub sessions: usize,
    pub channels: usize,
}

/// Appends the answer to `info`: the sums of all nodes, then a line for each node. Each line has a worker number, which is always 0 (a
/// node counts as one worker).
pub fn info(gateways: &[Gateway], out: &mut BytesMut) {
    let sum = |count: fn(&Gateway) -> usize| gateways.iter().map(count).sum::<usize>();
    let mut text = format!("clients: {}\r\nchannels: {}\r\n", sum(|of| of.sessions), sum(|of| of.channels));
    for Gateway { node, sessions, channels } in gateways {
        text += &format!("gateway: {node}\t0\t{sessions}\t{channels}\r\n");
    }
    Frame::encode(INFO, &[], text.as_bytes(), out);
}
