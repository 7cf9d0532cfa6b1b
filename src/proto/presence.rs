//! Who is in which channel, as one node tells it to those that keep account of a partition.
//!
//! A *report* goes from the node that holds sessions to a *keeper*, an *account* back. Reports number the changes of one partition
//! from one run of a node, from 1; what a keeper has settled need not be told again.
//!
//! ```text
//! report   | partition u16 | flags u8 | piece u32 | settled u64 | from u64 | count u32, the whole | count u32, changes
//! account  | partition u16 | received u64 | settled u64
//! gone     | run u64 | as of u64 | partition u16 ...
//! standing | flags u8 | session 16 | app len8 bytes | channel len8 bytes | uid len8 bytes      big-endian
//! ```
//!
//! A long report goes as several pieces, one after the other: each says the same but has the next ones of the whole and of the changes.

use bytes::{BufMut, BytesMut};

use super::command::Name;
use super::id::SessionId;
use super::partition::Partition;
use super::reader::Reader;
use super::run::Run;

/// A session in a channel. The app is part of it: an app is told of its own sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Membership {
    /// The name of the session's app.
    pub app: Name,
    /// The channel.
    pub channel: Name,
    /// The session.
    pub session: SessionId,
}

/// How a session stands to a channel from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which session and which channel.
    pub of: Membership,
    /// It is in there.
    pub is_in: bool,
    /// Nobody knows for sure what apps were told of the channel, so they are told once more whether somebody is in there.
    pub again: bool,
    /// Whom the session belongs to.
    pub uid: Option<Name>,
}

/// What a node tells a keeper of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of which.
    pub partition: Partition,
    /// Which piece of the report this is.
    pub piece: Piece,
    /// This keeper is to tell the apps, and not the other one.
    pub is_lead: bool,
    /// This keeper was none for this node before, or was away: others may have told what it does not know of.
    pub is_new: bool,
    /// Apps have been told of the changes up to this one.
    pub settled: u64,
    /// Everybody who was in a channel after the change `settled`; `None` for a keeper that is thought to know.
    pub whole: Option<Vec<Standing>>,
    /// The number of the change before the first of `changes`.
    pub from: u64,
    /// Changes, in order, one number each.
    pub changes: Vec<Standing>,
}

/// A piece of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Counts those before it.
    pub number: u32,
    /// None follows.
    pub is_last: bool,
}

impl Piece {
    /// The only one.
    pub const WHOLE: Self = Self { number: 0, is_last: true };
}

/// What a keeper says to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Of which partition.
    pub partition: Partition,
    /// It has all changes up to this one; `None` for a keeper that needs the whole.
    pub received: Option<u64>,
    /// Apps have been told of those up to this one.
    pub settled: u64,
}

/// What a keeper says to a node whose sessions it has taken for gone, and what that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// To this run.
    pub run: Run,
    /// Counts, in the keeper's run, the times at which the keeper may have taken anybody for gone, so that an answer is to that and not to the next one.
    pub as_of: u64,
    /// Of which partitions' channels apps were told that its sessions have left.
    pub partitions: Vec<Partition>,
}

/// What stands for no number.
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

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, String> {
        let (partition, flags, number) = (reader.partition()?, reader.u8()?, reader.u32()?);
        let (settled, from) = (reader.u64()?, reader.u64()?);
        let (whole, changes) = (standings(reader)?, standings(reader)?);
        let whole = match (flags & flag::WHOLE != 0, whole.is_empty()) {
            (true, _) => Some(whole),
            (false, true) => None,
            (false, false) => return Err("has a list of all sessions that its flags do not announce".to_owned()),
        };
        let piece = Piece { number, is_last: flags & flag::GOES_ON == 0 };
        let (is_lead, is_new) = (flags & flag::LEAD != 0, flags & flag::NEW != 0);
        Ok(Self { partition, piece, is_lead, is_new, settled, whole, from, changes })
    }

    /// Bytes that it takes.
    pub(crate) fn encoded_len(&self) -> usize {
        const HEAD: usize = 2 + 1 + 4 + 8 + 8 + 4 + 4;
        let standings = self.whole.iter().flatten().chain(&self.changes);
        HEAD + standings.map(Standing::encoded_len).sum::<usize>()
    }
}

impl Account {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.partition.number());
        out.put_u64(self.received.unwrap_or(NOTHING));
        out.put_u64(self.settled);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, String> {
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

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, String> {
        let (run, as_of) = (reader.run()?, reader.u64()?);
        Ok(Self { run, as_of, partitions: reader.all(Reader::partition)? })
    }
}

impl Standing {
    /// Bytes that it takes.
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

    fn decode(reader: &mut Reader) -> Result<Self, String> {
        let flags = reader.u8()?;
        let (is_in, again) = (flags & 1 != 0, flags & 2 != 0);
        let session = SessionId::from_bytes(&reader.take(SessionId::LEN)?).ok_or("has an invalid session id")?;
        let mut name = || {
            let len = reader.u8()?;
            reader.take(usize::from(len))
        };
        let (app, channel, uid) = (name()?, name()?, name()?);
        let named = |bytes: &[u8]| Name::new(bytes).map_err(|error| error.to_string());
        let uid = if uid.is_empty() { None } else { Some(named(&uid)?) };
        Ok(Self { of: Membership { app: named(&app)?, channel: named(&channel)?, session }, is_in, again, uid })
    }
}

fn standings(reader: &mut Reader) -> Result<Vec<Standing>, String> {
    // No room is made for a count that somebody only says.
    (0..reader.u32()?).map(|_| Standing::decode(reader)).collect()
}
