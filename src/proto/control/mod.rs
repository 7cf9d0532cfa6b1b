//! The protocols of the router port as bytes; docs/router-protocol.md describes them.
//!
//! Both protocols consist of frames with the same header, and [`Frame`] decodes them. [`short`] is the protocol of Longwire's predecessor
//! fooking, [`long`] is Longwire's own. Leaves to the port which clients may use which protocol, and to the router what a command does.

pub mod long;
pub mod short;
#[cfg(test)]
mod vectors;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the two parts of a frame: type u16, slen u16, len u32, big-endian.
const HEADER_BYTES: usize = 8;

/// The protocol of a frame, according to its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Types 1 to 12.
    Short,
    /// Types 0x4C00 to 0x4CFF.
    Long,
}

impl Protocol {
    /// `None`: neither protocol has this type, so the bytes are something else.
    pub const fn of(kind: u16) -> Option<Self> {
        match kind {
            1..=12 => Some(Protocol::Short),
            0x4C00..=0x4CFF => Some(Protocol::Long),
            _ => None,
        }
    }
}

/// One frame of either protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type of the command or answer.
    pub kind: u16,
    /// The slen bytes: ids, a name, or fields.
    pub head: Bytes,
    /// The len bytes.
    pub body: Bytes,
}

/// The len part of a frame is above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The frame's type.
    pub kind: u16,
    /// The announced length.
    pub len: u32,
    /// The allowed length.
    pub max_len: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame announces {} bytes, but at most {} are allowed", self.len, self.max_len)
    }
}

impl std::error::Error for TooLong {}

impl Frame {
    /// Takes the next frame from the front of `input`; `None` if it is incomplete. The limit is checked as soon as the header has arrived.
    pub fn decode(input: &mut BytesMut, max_len: usize) -> Result<Option<Self>, TooLong> {
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let slen = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if len as usize > max_len {
            return Err(TooLong { kind, len, max_len });
        }
        let total = HEADER_BYTES + slen + len as usize;
        if input.len() < total {
            return Ok(None);
        }
        let mut frame = input.split_to(total).freeze();
        let body = frame.split_off(HEADER_BYTES + slen);
        Ok(Some(Self { kind, head: frame.slice(HEADER_BYTES..), body }))
    }

    /// The length of the frame that begins here, as its header announces it; `None` if the header is incomplete.
    pub fn announced(input: &[u8]) -> Option<usize> {
        let header = input.first_chunk::<HEADER_BYTES>()?;
        let slen = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        Some(HEADER_BYTES + slen + len)
    }

    /// Appends a frame. The caller ensures that `head` has at most 65 535 bytes, and `body` less than 4 GiB.
    pub fn encode(kind: u16, head: &[u8], body: &[u8], out: &mut BytesMut) {
        out.reserve(HEADER_BYTES + head.len() + body.len());
        out.put_u16(kind);
        out.put_u16(u16::try_from(head.len()).expect("the caller bounds the head"));
        out.put_u32(u32::try_from(body.len()).expect("the caller bounds the body"));
        out.put_slice(head);
        out.put_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
        let frame = (any::<u16>(), bytes(40), bytes(200)).prop_map(|(kind, head, body)| Frame { kind, head, body });
        proptest::collection::vec(frame, 0..5)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_their_bytes_are_split(frames in frames(), size in 1_usize..50) {
            let mut encoded = BytesMut::new();
            frames.iter().for_each(|frame| Frame::encode(frame.kind, &frame.head, &frame.body, &mut encoded));
            let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
            for piece in encoded.chunks(size) {
                input.extend_from_slice(piece);
                while let Some(frame) = Frame::decode(&mut input, 200).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn random_bytes_never_panic_and_nothing_above_the_limit_is_waited_for(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = Frame::decode(&mut input, 100) {
                prop_assert!(frame.body.len() <= 100);
                let _ = short::decode(&frame);
                let _ = long::RouterRequest::decode(&frame);
                let _ = long::Hello::decode(&frame);
                let _ = long::RouterAnswer::decode(&frame);
            }
            if let Some(header) = input.first_chunk::<HEADER_BYTES>() {
                let len = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
                let too_long = Frame::decode(&mut input, 100).is_err();
                prop_assert_eq!(too_long, len > 100);
            }
        }
    }
}
