//! Names of channels and uids.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The name of a channel or a uid: 1 to 255 bytes, none of them a control character. Cheap to copy.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// Longest name.
    pub const MAX_BYTES: usize = 255;

    /// Checks a name. UTF-8 is usual but not required: users of Longwire's predecessor have names in other encodings.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        match bytes {
            [] => Err(BadName::Empty),
            _ if bytes.len() > Self::MAX_BYTES => Err(BadName::TooLong(bytes.len())),
            _ if bytes.iter().any(u8::is_ascii_control) => Err(BadName::ControlCharacter),
            _ => Ok(Self(bytes.into())),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl Serialize for Name {
    /// As text; bytes that are not UTF-8 are replaced.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(&self.0))
    }
}

/// Why bytes are not a valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    Empty,
    /// It has this many bytes.
    TooLong(usize),
    /// It contains a control character.
    ControlCharacter,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadName::Empty => f.write_str("a name is empty"),
            BadName::TooLong(len) => write!(f, "a name has {len} bytes, at most {} are allowed", Name::MAX_BYTES),
            BadName::ControlCharacter => f.write_str("a name contains a control character"),
        }
    }
}

impl std::error::Error for BadName {}
