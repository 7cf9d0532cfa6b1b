//! The record header (specification section 3.3): eight bytes with the type, the request id and the length of the content.

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// Largest content of one record. php-fpm accepts content and padding of this many bytes together, and resets the connection above that.
pub const MAX_CONTENT: usize = 65_535;
/// The role of every request: it receives params and stdin, and returns stdout (section 6.2).
pub const ROLE_RESPONDER: u16 = 1;
/// BEGIN_REQUEST flag: the responder leaves the connection open after END_REQUEST (section 5.1).
pub const KEEP_CONN: u8 = 1;

const VERSION: u8 = 1;

/// The type of a record (section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// FCGI_BEGIN_REQUEST
    Begin = 1,
    /// FCGI_ABORT_REQUEST
    Abort = 2,
    /// FCGI_END_REQUEST
    End = 3,
    /// FCGI_PARAMS
    Params = 4,
    /// FCGI_STDIN
    Stdin = 5,
    /// FCGI_STDOUT
    Stdout = 6,
    /// FCGI_STDERR
    Stderr = 7,
    /// FCGI_GET_VALUES
    GetValues = 9,
    /// FCGI_GET_VALUES_RESULT
    GetValuesResult = 10,
    /// FCGI_UNKNOWN_TYPE
    UnknownType = 11,
}

impl RecordKind {
    /// The kind with this number; `None` for kinds that Longwire neither sends nor expects.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => RecordKind::Begin,
            2 => RecordKind::Abort,
            3 => RecordKind::End,
            4 => RecordKind::Params,
            5 => RecordKind::Stdin,
            6 => RecordKind::Stdout,
            7 => RecordKind::Stderr,
            9 => RecordKind::GetValues,
            10 => RecordKind::GetValuesResult,
            11 => RecordKind::UnknownType,
            _ => return None,
        })
    }
}

/// A decoded header. The kind stays a number, because the reader decides whether an unknown one is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// See [`RecordKind`].
    pub kind: u8,
    /// The request that the record belongs to; 0 for management records.
    pub id: u16,
    /// Bytes of content that follow.
    pub content: u16,
    /// Bytes after the content, to be ignored.
    pub padding: u8,
}

/// The first byte of a record was not 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadVersion(pub u8);

impl Header {
    /// The header of a record without padding.
    pub const fn encode(kind: RecordKind, id: u16, content: u16) -> [u8; HEADER_LEN] {
        let ([i1, i0], [c1, c0]) = (id.to_be_bytes(), content.to_be_bytes());
        [VERSION, kind as u8, i1, i0, c1, c0, 0, 0]
    }

    /// Reads a header. The reserved byte is ignored, because php-fpm leaves stale memory in its reserved bytes.
    pub const fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, BadVersion> {
        let [version, kind, i1, i0, c1, c0, padding, _] = bytes;
        if version != VERSION {
            return Err(BadVersion(version));
        }
        Ok(Self { kind, id: u16::from_be_bytes([i1, i0]), content: u16::from_be_bytes([c1, c0]), padding })
    }
}

/// A whole FCGI_ABORT_REQUEST record.
pub const fn abort(id: u16) -> [u8; HEADER_LEN] {
    Header::encode(RecordKind::Abort, id, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_survives_the_wire(
            kind in prop_oneof![1u8..8, 9u8..12],
            id: u16,
            content: u16,
        ) {
            let known = RecordKind::from_number(kind).expect("all but DATA, which responders do not get, are known");
            let decoded = Header::decode(Header::encode(known, id, content));
            prop_assert_eq!(decoded, Ok(Header { kind, id, content, padding: 0 }));
        }

        #[test]
        fn any_version_but_one_is_refused(bytes: [u8; 8]) {
            prop_assert_eq!(Header::decode(bytes).is_ok(), bytes[0] == 1);
        }
    }
}
