//! Errors in received frames, and for replies that a framing cannot carry.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::proto::close::CloseReason;

/// Why a decoder failed. The text is for the log line; [`FrameError::reason`] is for everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameError {
    /// The announced length of the frame, or of a message's fragments so far, is above the limit.
    TooLarge {
        /// Bytes announced.
        size: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// No delimiter within the limit.
    Unended {
        /// Bytes allowed.
        max: u64,
    },
    /// A compressed message is above the limit when it is inflated.
    InflatedTooLarge {
        /// Bytes allowed.
        max: u64,
    },
    /// A length field that counts the whole frame is smaller than the header.
    LengthBelowHeader {
        /// The value of the field.
        length: u64,
        /// Bytes of the header.
        header: u64,
    },
    /// A length field is smaller than the framing's options allow.
    LengthTooSmall {
        /// The value of the field.
        length: u64,
        /// The smallest value allowed.
        least: u64,
    },
    /// The bytes do not begin with the start bytes of this framing.
    NoStart,
    /// More bytes than the limit were skipped without finding a frame.
    #[serde(rename = "nothing_but_garbage")]
    NoFrameFound {
        /// Bytes allowed.
        max: u64,
    },
    /// The end bytes of this framing are not at the place that the length field gives.
    NoEnd,
    /// The start of a frame appears inside a frame, where it must be escaped.
    StartInside,
    /// An escape that is not in the configured table.
    BadEscape {
        /// Its first byte.
        lead: u8,
        /// Its second byte.
        second: u8,
    },
    /// No silence within the limit.
    NoGap {
        /// Bytes allowed.
        max: u64,
    },
    /// A reserved bit is set, and no negotiated extension defines it (RFC 6455 section 5.2).
    ReservedBits {
        /// The first byte of the frame.
        first: u8,
    },
    /// An opcode that is reserved (RFC 6455 section 5.2).
    ReservedOpcode { opcode: u8 },
    /// A client sent an unmasked frame: it must mask (RFC 6455 section 5.1).
    Unmasked,
    /// A server sent a masked frame: it must not mask (RFC 6455 section 5.1).
    Masked,
    /// A payload length written in more bytes than it needs, or with its top bit set (RFC 6455 section 5.2).
    LengthEncoding {
        /// The value of the length field.
        length: u64,
    },
    /// A control frame above 125 bytes (RFC 6455 section 5.5).
    ControlTooLong,
    /// A control frame in fragments (RFC 6455 section 5.5).
    ControlFragmented,
    /// A continuation frame with nothing to continue (RFC 6455 section 5.4).
    NothingToContinue,
    /// A new message before the last fragment of the previous one (RFC 6455 section 5.4).
    MessageInterrupted,
    /// A close frame with only one byte of payload; a close code has two (RFC 6455 section 5.5.1).
    CloseTooShort,
    /// A close code that must not be sent (RFC 6455 section 7.4).
    CloseCode { code: u16 },
    /// Text, or the reason in a close frame, that is not UTF-8 (RFC 6455 section 8.1).
    NotUtf8,
    /// A compressed message that is not DEFLATE (RFC 7692 section 7.2.2).
    NotDeflate,
}

impl FrameError {
    /// The close reason for this error.
    pub const fn reason(&self) -> CloseReason {
        match self {
            Self::TooLarge { .. } | Self::Unended { .. } | Self::InflatedTooLarge { .. } | Self::NoGap { .. } => {
                CloseReason::FrameTooLarge
            }
            Self::NotUtf8 => CloseReason::BadText,
            Self::LengthBelowHeader { .. }
            | Self::LengthTooSmall { .. }
            | Self::NoStart
            | Self::NoFrameFound { .. }
            | Self::NoEnd
            | Self::StartInside
            | Self::BadEscape { .. }
            | Self::ReservedBits { .. }
            | Self::ReservedOpcode { .. }
            | Self::Unmasked
            | Self::Masked
            | Self::LengthEncoding { .. }
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::NothingToContinue
            | Self::MessageInterrupted
            | Self::CloseTooShort
            | Self::CloseCode { .. }
            | Self::NotDeflate => CloseReason::BadFrame,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, max } => write!(f, "a frame of {size} bytes is above the limit of {max}"),
            Self::Unended { max } => write!(f, "no delimiter within the limit of {max} bytes"),
            Self::InflatedTooLarge { max } => write!(f, "a compressed message inflates above the limit of {max} bytes"),
            Self::LengthBelowHeader { length, header } => {
                write!(
                    f,
                    "the length field counts the whole frame but says {length}, below its header of {header} bytes"
                )
            }
            Self::LengthTooSmall { length, least } => {
                write!(f, "the length field says {length}, but its minimum is {least}")
            }
            Self::NoStart => f.write_str("the bytes do not begin with the start of a frame"),
            Self::NoFrameFound { max } => write!(f, "more than {max} bytes were skipped without finding a frame"),
            Self::NoEnd => f.write_str("the end of the frame is not where its length field says"),
            Self::StartInside => f.write_str("a frame began before the last one ended"),
            Self::BadEscape { lead, second } => write!(f, "the escape {lead:02x} {second:02x} has no meaning"),
            Self::NoGap { max } => write!(f, "no silence within the limit of {max} bytes"),
            Self::ReservedBits { first } => write!(f, "reserved bits are set in the first byte {first:#04x}"),
            Self::ReservedOpcode { opcode } => write!(f, "opcode {opcode:#x} is reserved"),
            Self::Unmasked => f.write_str("a client frame is not masked"),
            Self::Masked => f.write_str("a server frame is masked"),
            Self::LengthEncoding { length } => write!(f, "payload length {length:#x} is not in its shortest form"),
            Self::ControlTooLong => f.write_str("a control frame has more than 125 bytes"),
            Self::ControlFragmented => f.write_str("a control frame is fragmented"),
            Self::NothingToContinue => f.write_str("a continuation frame has no message to continue"),
            Self::MessageInterrupted => f.write_str("a new message began inside a fragmented one"),
            Self::CloseTooShort => f.write_str("a close frame has only one byte of its code"),
            Self::CloseCode { code } => write!(f, "close code {code} must not be sent"),
            Self::NotUtf8 => f.write_str("text is not UTF-8"),
            Self::NotDeflate => f.write_str("a compressed message is not valid DEFLATE data"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<FrameError> for CloseReason {
    fn from(error: FrameError) -> Self {
        error.reason()
    }
}

/// A body that the listener's framing cannot carry. The peer did nothing wrong: the handler's reply is too long or too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyDoesNotFit {
    /// The body is too long for the length field.
    TooLong {
        /// Bytes of the body.
        len: u64,
        /// Bits of the length field.
        bits: u32,
    },
    /// The body is shorter than the part that the length field does not count.
    TooShort {
        /// Bytes of the body.
        len: u64,
        /// The smallest length allowed.
        least: u64,
    },
    /// Only the session's own codec makes frames of a custom framing.
    NeedsCodec,
}

impl fmt::Display for BodyDoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { len, bits } => {
                write!(f, "a body of {len} bytes does not fit a length field of {bits} bits")
            }
            Self::TooShort { len, least } => {
                write!(f, "a body of {len} bytes is too short, the framing needs at least {least}")
            }
            Self::NeedsCodec => f.write_str("only a session's own codec makes frames of a custom framing"),
        }
    }
}

impl std::error::Error for BodyDoesNotFit {}
