//! Reads the parts of an envelope's payload, from front to back.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use super::control::Frame;
use super::control::long::{Operation, RouterError, RouterRequest};
use super::name::BadName;
use super::partition::Partition;
use super::run::{RequestId, Run};

/// The fault in an envelope. Shown as a clause that follows "the envelope".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Bytes are missing at its end.
    Short,
    /// So many bytes follow its end.
    Long(usize),
    /// It ends in the middle of a frame of the long protocol.
    CutFrame,
    /// A frame of the long protocol that is wrong.
    Frame(RouterError),
    /// A request has the number 0, which means that its sender wants no answer.
    NoNumber,
    /// There is no partition of this number.
    Partition(u16),
    /// A node's name is not UTF-8.
    NotUtf8,
    /// A channel, uid or app has a name that is not allowed.
    Name(BadName),
    /// A session id that is not one.
    SessionId,
    QueryAmongCommands,
    /// No command where one must be.
    NoCommand,
    /// Commands that cannot share a write.
    MixedCommands,
    /// No query where one must be.
    NoQuery,
    /// A report lists sessions that its flags do not announce.
    Unannounced,
    /// A body of a kind that this version does not have.
    Kind(u8),
    /// An answer to a query of a kind that this version does not have.
    AnswerKind(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Short => f.write_str("ends too early"),
            Malformed::Long(bytes) => write!(f, "has {bytes} bytes too many"),
            Malformed::CutFrame => f.write_str("ends in the middle of a frame"),
            Malformed::Frame(wrong) => write!(f, "has a wrong frame: {wrong}"),
            Malformed::NoNumber => f.write_str("has a request without a number"),
            Malformed::Partition(number) => write!(f, "has partition {number}, which is out of range"),
            Malformed::NotUtf8 => f.write_str("has a name that is not UTF-8"),
            Malformed::Name(error) => write!(f, "has a wrong name: {error}"),
            Malformed::SessionId => f.write_str("has an invalid session id"),
            Malformed::QueryAmongCommands => f.write_str("has a query among its commands"),
            Malformed::NoCommand => f.write_str("has no command"),
            Malformed::MixedCommands => f.write_str("has commands that cannot share a write"),
            Malformed::NoQuery => f.write_str("has no query"),
            Malformed::Unannounced => f.write_str("has a list of all sessions that its flags do not announce"),
            Malformed::Kind(kind) => write!(f, "is of unknown kind {kind}"),
            Malformed::AnswerKind(kind) => write!(f, "has an answer of unknown kind {kind}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Reads the parts of a payload in order.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads items until nothing is left.
    pub(super) fn all<T>(&mut self, next: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(next(self)?);
        }
        Ok(all)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, Malformed> {
        if self.0.len() < len {
            return Err(Malformed::Short);
        }
        Ok(self.0.split_to(len))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|mut bytes| bytes.get_u8())
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|mut bytes| bytes.get_u16())
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take(4).map(|mut bytes| bytes.get_u32())
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.take(8).map(|mut bytes| bytes.get_u64())
    }

    pub(super) fn run(&mut self) -> Result<Run, Malformed> {
        self.u64().map(Run::of)
    }

    pub(super) fn answered(&mut self) -> Result<RequestId, Malformed> {
        let (run, number) = (self.run()?, self.u64()?);
        RequestId::new(run, number).ok_or(Malformed::NoNumber)
    }

    pub(super) fn partition(&mut self) -> Result<Partition, Malformed> {
        let number = self.u16()?;
        Partition::new(number).ok_or(Malformed::Partition(number))
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let len = self.u8()?;
        let bytes = self.take(usize::from(len))?;
        String::from_utf8(bytes.into()).map_err(|_| Malformed::NotUtf8)
    }

    /// The next frame of the long protocol; `None` at the end.
    pub(super) fn frame(&mut self) -> Result<Option<Operation>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut input = BytesMut::from(std::mem::take(&mut self.0));
        // The payload is already complete, so no limit is needed: a frame that announces more bytes is an error.
        match Frame::decode(&mut input, usize::MAX) {
            Ok(Some(frame)) => {
                self.0 = input.freeze();
                RouterRequest::decode(&frame).map(|request| Some(request.operation)).map_err(Malformed::Frame)
            }
            _ => Err(Malformed::CutFrame),
        }
    }

    /// All bytes that are left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed::Long(self.0.len())) }
    }
}
