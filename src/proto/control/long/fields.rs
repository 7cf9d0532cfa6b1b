//! Fields: tags, and how values are read and written.

use bytes::{BufMut, Bytes, BytesMut};

use super::{ErrorWord, NONCE_BYTES, RouterError};
use crate::proto::command::Name;
use crate::proto::control::Frame;
use crate::proto::id::SessionId;

/// The tags of fields; docs/router-protocol.md has a table of them.
pub(super) mod tag {
    pub(in crate::proto::control::long) const VERSIONS: u8 = 0x01;
    pub(in crate::proto::control::long) const NONCE: u8 = 0x02;
    pub(in crate::proto::control::long) const PEER: u8 = 0x03;
    pub(in crate::proto::control::long) const AUTH: u8 = 0x04;
    pub(in crate::proto::control::long) const PROOF: u8 = 0x05;
    pub(in crate::proto::control::long) const REQUEST: u8 = 0x06;
    pub(in crate::proto::control::long) const COUNTS: u8 = 0x07;
    pub(in crate::proto::control::long) const ERROR: u8 = 0x08;
    pub(in crate::proto::control::long) const UNREACHABLE: u8 = 0x09;
    pub(in crate::proto::control::long) const ENGINE_DOWN: u8 = 0x0A;
    pub(in crate::proto::control::long) const SESSION: u8 = 0x10;
    pub(in crate::proto::control::long) const UID: u8 = 0x11;
    pub(in crate::proto::control::long) const CHANNEL: u8 = 0x12;
    pub(in crate::proto::control::long) const ALL: u8 = 0x13;
    pub(in crate::proto::control::long) const EXCEPT_SESSION: u8 = 0x18;
    pub(in crate::proto::control::long) const EXCEPT_UID: u8 = 0x19;
    pub(in crate::proto::control::long) const EXCEPT_CHANNEL: u8 = 0x1A;
    pub(in crate::proto::control::long) const NAME: u8 = 0x20;
    pub(in crate::proto::control::long) const KIND: u8 = 0x21;
    pub(in crate::proto::control::long) const KEY: u8 = 0x22;
    pub(in crate::proto::control::long) const CODE: u8 = 0x23;
    pub(in crate::proto::control::long) const REASON: u8 = 0x24;
    pub(in crate::proto::control::long) const EXPECT: u8 = 0x25;
    pub(in crate::proto::control::long) const EXPECT_ABSENT: u8 = 0x26;
    pub(in crate::proto::control::long) const AFTER: u8 = 0x27;
    pub(in crate::proto::control::long) const LIMIT: u8 = 0x28;
    pub(in crate::proto::control::long) const ID: u8 = 0x29;
}

/// Iterates over the fields of a frame.
pub(super) struct Fields {
    rest: Bytes,
    /// The tags that [`Fields::next_once`] has returned, as bits.
    pub(super) seen: u64,
}

impl Fields {
    pub(super) fn of(frame: &Frame) -> Self {
        Self { rest: frame.head.clone(), seen: 0 }
    }

    /// The next field; any tag is accepted.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Bytes)>, RouterError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let whole = self.rest.first_chunk::<3>().map(|head| 3 + usize::from(u16::from_be_bytes([head[1], head[2]])));
        match whole.filter(|whole| *whole <= self.rest.len()) {
            Some(whole) => {
                let field = self.rest.split_to(whole);
                Ok(Some((field[0], field.slice(3..))))
            }
            None => Err(RouterError::new(ErrorWord::BadFrame, "the fields do not fit into slen")),
        }
    }

    /// The next field, as a server reads it: unknown fields are refused, and so are repeated ones, except those that may be repeated.
    pub(super) fn next_once(&mut self) -> Result<Option<(u8, Bytes)>, RouterError> {
        let Some((tag, value)) = self.next()? else { return Ok(None) };
        if tag > tag::ID {
            return Err(unknown(tag));
        }
        let may_repeat = (tag::EXCEPT_SESSION..=tag::EXCEPT_CHANNEL).contains(&tag);
        if self.seen & 1 << tag != 0 && !may_repeat {
            return Err(RouterError::field(format!("field 0x{tag:02X} appears twice")));
        }
        self.seen |= 1 << tag;
        Ok(Some((tag, value)))
    }
}

#[derive(Default)]
pub(super) struct FieldWriter(pub(super) BytesMut);

impl FieldWriter {
    pub(super) fn put(&mut self, tag: u8, value: &[u8]) {
        self.0.put_u8(tag);
        self.0.put_u16(u16::try_from(value.len()).expect("the caller bounds its values"));
        self.0.put_slice(value);
    }
}

pub(super) fn unknown(tag: u8) -> RouterError {
    RouterError::field(format!("field 0x{tag:02X} is not allowed in this frame"))
}

pub(super) fn nonce(value: &[u8]) -> Result<[u8; NONCE_BYTES], RouterError> {
    value.try_into().map_err(|_| RouterError::field(format!("nonce must have {NONCE_BYTES} bytes")))
}

pub(super) fn number(value: &[u8]) -> Result<u32, RouterError> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| RouterError::new(ErrorWord::BadFrame, "request must have four bytes"))
}

pub(super) fn name(field: &str, value: &[u8]) -> Result<Name, RouterError> {
    Name::new(value).map_err(|error| RouterError::field(format!("{field}: {error}")))
}

/// Reads session ids that follow each other without separators.
pub(super) fn ids(value: &[u8]) -> Result<Vec<SessionId>, RouterError> {
    if !value.len().is_multiple_of(SessionId::LEN) {
        return Err(RouterError::field(format!("session ids must have {} bytes each", SessionId::LEN)));
    }
    let id = |bytes| {
        SessionId::from_bytes(bytes)
            .ok_or_else(|| RouterError::field(format!("{:?} is not a session id", String::from_utf8_lossy(bytes))))
    };
    value.chunks_exact(SessionId::LEN).map(id).collect()
}
