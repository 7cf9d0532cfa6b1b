//! The sessions in channels, as a node reports them to the keepers of a partition.
//!
//! A *report* goes from the node that holds sessions to a *keeper*, and an *ack* goes back. For each partition, a run of a node numbers
//! its changes from 1. Once apps have been told of a change (it is *settled*), the node need not report it again.
//!
//! ```text
//! report   | partition u16 | flags u8 | piece u32 | settled u64 | from u64 | count u32, the whole | count u32, changes
//! ack      | partition u16 | received u64 | settled u64
//! gone     | run u64 | as of u64 | partition u16 ...
//! standing | flags u8 | session 16 | app len8 bytes | channel len8 bytes | uid len8 bytes      big-endian
//! ```
//!
//! A long report is sent as several pieces in sequence. Each repeats the same head, and has the next part of the whole and of the changes.

use bytes::{BufMut, BytesMut};

use super::command::Name;
use super::id::SessionId;
use super::partition::Partition;
use super::reader::{Malformed, Reader};
use super::run::Run;

/// A session in a channel. It includes the app, because an app gets the join and leave events of its own sessions only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Membership {
    /// The name of the session's app.
    pub app: Name,
    pub channel: Name,
    pub session: SessionId,
}

/// Whether a session is in a channel from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The session and the channel.
    pub of: Membership,
    /// The session is in the channel.
    pub is_in: bool,
    /// It is not certain what apps were told about the channel, so they are told once more whether it has members.
    pub again: bool,
    /// The uid of the session.
    pub uid: Option<Name>,
}

/// The report of a node to a keeper, about one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub partition: Partition,
    /// Which piece of the report this is.
    pub piece: Piece,
    /// This keeper tells the apps; the other keeper does not.
    pub is_lead: bool,
    /// This keeper was not a keeper for this node before, or was away. Apps may have been told things that it does not know.
    pub is_new: bool,
    /// The number of the last change that apps have been told of.
    pub settled: u64,
    /// All sessions that were in a channel after the change `settled`; `None` if the keeper should know them already.
    pub whole: Option<Vec<Standing>>,
    /// The number of the change before the first of `changes`.
    pub from: u64,
    /// Changes in order, numbered without gaps.
    pub changes: Vec<Standing>,
}

/// A piece of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The number of pieces before it.
    pub number: u32,
    /// No piece follows.
    pub is_last: bool,
}

impl Piece {
    /// The only piece of a report.
    pub const WHOLE: Self = Self { number: 0, is_last: true };
}

/// A keeper's answer to reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportAck {
    pub partition: Partition,
    /// The keeper has all changes up to this number; `None` if it needs the whole.
    pub received: Option<u64>,
    /// The number of the last change that apps have been told of.
    pub settled: u64,
}

/// Tells a node that a keeper has reported the node's sessions as gone. The node's answer has the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The run that this is for.
    pub run: Run,
    /// Counts, in the keeper's run, the occasions on which it may have taken a node for gone. So an answer refers to this occasion and not
    /// to the next one.
    pub as_of: u64,
    /// The partitions concerned: apps were told that the node's sessions have left the channels of these partitions.
    pub partitions: Vec<Partition>,
}

/// The value on the wire for "no number".
const NOTHING: u64 = u64::MAX;

mod flag {
    pub(super) const LEAD: u8 = 1;
    pub(super) const WHOLE: u8 = 2;
    /// Another piece follows.
    pub(super) const GOES_ON: u8 = 4;
    pub(super) const NEW: u8 = 8;
}

impl Report {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.partition.number());
        let flags = [
            (self.is_lead, flag::LEAD),
            (self.whole.is_some(), flag::WHOLE),
            (!self.piece.is_last, flag::GOES_ON),
            (self.is_new, flag::NEW),
        ];
        out.put_u8(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
        out.put_u32(self.piece.number);
        out.put_u64(self.settled);
        out.put_u64(self.from);
        for standings in [self.whole.as_deref().unwrap_or_default(), &self.changes] {
            out.put_u32(standings.len() as u32);
            standings.iter().for_each(|standing| standing.encode(out));
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let (partition, flags, number) = (reader.partition()?, reader.u8()?, reader.u32()?);
        let (settled, from) = (reader.u64()?, reader.u64()?);
        let (whole, changes) = (standings(reader)?, standings(reader)?);
        let whole = match (flags & flag::WHOLE != 0, whole.is_empty()) {
            (true, _) => Some(whole),
            (false, true) => None,
            (false, false) => return Err(Malformed::Unannounced),
        };
        let piece = Piece { number, is_last: flags & flag::GOES_ON == 0 };
        let (is_lead, is_new) = (flags & flag::LEAD != 0, flags & flag::NEW != 0);
        Ok(Self { partition, piece, is_lead, is_new, settled, whole, from, changes })
    }

    /// Its length in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        const HEAD: usize = 2 + 1 + 4 + 8 + 8 + 4 + 4;
        let standings = self.whole.iter().flatten().chain(&self.changes);
        HEAD + standings.map(Standing::encoded_len).sum::<usize>()
    }
}

impl ReportAck {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.partition.number());
        out.put_u64(self.received.unwrap_or(NOTHING));
        out.put_u64(self.settled);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let (partition, received, settled) = (reader.partition()?, reader.u64()?, reader.u64()?);
        Ok(Self { partition, received: Some(received).filter(|received| *received != NOTHING), settled })
    }
}

impl Gone {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.run.bits());
        out.put_u64(self.as_of);
        self.partitions.iter().for_each(|partition| out.put_u16(partition.number()));
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let (run, as_of) = (reader.run()?, reader.u64()?);
        Ok(Self { run, as_of, partitions: reader.all(Reader::partition)? })
    }
}

impl Standing {
    /// Its length in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        let names = self.names().map(|name| 1 + name.map_or(0, |name| name.as_bytes().len()));
        1 + SessionId::LEN + names.into_iter().sum::<usize>()
    }

    fn names(&self) -> [Option<&Name>; 3] {
        [Some(&self.of.app), Some(&self.of.channel), self.uid.as_ref()]
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.is_in) | u8::from(self.again) << 1);
        out.put_slice(self.of.session.as_str().as_bytes());
        for name in self.names() {
            let bytes = name.map_or(&[][..], Name::as_bytes);
            out.put_u8(bytes.len() as u8);
            out.put_slice(bytes);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        let flags = reader.u8()?;
        let (is_in, again) = (flags & 1 != 0, flags & 2 != 0);
        let session = SessionId::from_bytes(&reader.take(SessionId::LEN)?).ok_or(Malformed::SessionId)?;
        let mut name = || {
            let len = reader.u8()?;
            reader.take(usize::from(len))
        };
        let (app, channel, uid) = (name()?, name()?, name()?);
        let named = |bytes: &[u8]| Name::new(bytes).map_err(Malformed::Name);
        let uid = if uid.is_empty() { None } else { Some(named(&uid)?) };
        Ok(Self { of: Membership { app: named(&app)?, channel: named(&channel)?, session }, is_in, again, uid })
    }
}

fn standings(reader: &mut Reader) -> Result<Vec<Standing>, Malformed> {
    // The count is not trusted: memory is allocated only for entries that are really there.
    (0..reader.u32()?).map(|_| Standing::decode(reader)).collect()
}
