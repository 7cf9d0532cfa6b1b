//! The head of a WebSocket frame (RFC 6455 section 5.2), the mask, and the payload of a close frame.
//!
//! Makes the checks that need only this one head. The decoder makes those that depend on earlier frames.

use serde::{Deserialize, Serialize};

use super::FrameKind;
use super::affix::Affix;
use super::error::FrameError;

/// The largest payload of a control frame (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const LEN: u8 = 0x7f;
/// Values in place of a length: the length is in the next two, or eight, bytes.
const LEN_16: u8 = 126;
const LEN_64: u8 = 127;

/// The end of the connection that decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Receives masked frames.
    Server,
    /// Receives unmasked frames.
    Client,
}

/// The opcodes that are not reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    pub(super) const fn of(kind: FrameKind) -> Self {
        match kind {
            FrameKind::Text => Opcode::Text,
            FrameKind::Binary => Opcode::Binary,
        }
    }

    const fn read(opcode: u8) -> Option<Self> {
        Some(match opcode {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return None,
        })
    }

    /// Close, ping, pong.
    pub(super) const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// One frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The last fragment of its message.
    pub(super) fin: bool,
    /// RSV1: the message is compressed (RFC 7692 section 6).
    pub(super) compressed: bool,
    pub(super) opcode: Opcode,
    /// All zero for an unmasked frame; applying it changes nothing.
    pub(super) mask: [u8; 4],
    pub(super) len: u64,
}

impl Header {
    /// Bytes of the longest head.
    pub(super) const MAX: usize = 14;

    /// Reads the head at the front of `input`. Returns it with its length in bytes. `None` if bytes are missing; errors in the first
    /// two bytes are returned even then.
    pub(super) fn read(input: &[u8], role: Role, deflate: bool) -> Result<Option<(Header, usize)>, FrameError> {
        let &[first, second, ref rest @ ..] = input else { return Ok(None) };
        let opcode = first & OPCODE;
        let opcode = Opcode::read(opcode).ok_or(FrameError::ReservedOpcode { opcode })?;
        // RFC 7692 section 6: only the first fragment of a data message may have RSV1.
        let compressed = first & RSV1 != 0;
        let may_be_compressed = deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & RSV & !RSV1 != 0 || compressed && !may_be_compressed {
            return Err(FrameError::ReservedBits { first });
        }
        match (role, second & MASK != 0) {
            (Role::Server, false) => return Err(FrameError::Unmasked),
            (Role::Client, true) => return Err(FrameError::Masked),
            (Role::Server, true) | (Role::Client, false) => {}
        }
        let fin = first & FIN != 0;
        let short = second & LEN;
        if opcode.is_control() {
            if usize::from(short) > MAX_CONTROL {
                return Err(FrameError::ControlTooLong);
            }
            if !fin {
                return Err(FrameError::ControlFragmented);
            }
        }
        let (len, shortest, rest) = match short {
            LEN_16 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*len)), u64::from(LEN_16), rest)
            }
            LEN_64 => {
                let Some((len, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*len), 1 << 16, rest)
            }
            short => (u64::from(short), 0, rest),
        };
        if len < shortest || len >> 63 != 0 {
            return Err(FrameError::LengthEncoding { length: len });
        }
        let (mask, rest) = match role {
            Role::Client => ([0; 4], rest),
            Role::Server => match rest.split_first_chunk() {
                Some((mask, rest)) => (*mask, rest),
                None => return Ok(None),
            },
        };
        Ok(Some((Header { fin, compressed, opcode, mask, len }, input.len() - rest.len())))
    }
}

/// Writes a head.
pub(super) fn head(opcode: Opcode, fin: bool, compressed: bool, len: usize, mask: Option<[u8; 4]>) -> Affix {
    let first = opcode as u8 | if fin { FIN } else { 0 } | if compressed { RSV1 } else { 0 };
    let masked = if mask.is_some() { MASK } else { 0 };
    let len_bytes = (len as u64).to_be_bytes();
    let (short, extended) = match len {
        0..=MAX_CONTROL => (len as u8, &[][..]),
        126..=0xffff => (LEN_16, &len_bytes[6..]),
        _ => (LEN_64, &len_bytes[..]),
    };
    let mask = mask.as_ref().map_or(&[][..], |mask| mask);
    let mut head = Affix::zeroed(2 + extended.len() + mask.len());
    let bytes = head.as_mut();
    bytes[0] = first;
    bytes[1] = masked | short;
    let (place, rest) = bytes[2..].split_at_mut(extended.len());
    place.copy_from_slice(extended);
    rest.copy_from_slice(mask);
    head
}

/// Masks or unmasks bytes (the same operation, RFC 6455 section 5.3) that begin `at` bytes into their payload.
pub(super) fn apply_mask(bytes: &mut [u8], mut mask: [u8; 4], at: u64) {
    if mask == [0; 4] {
        return;
    }
    mask.rotate_left((at % 4) as usize);
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Word by word, because the compiler turns that into vector instructions.
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// Whether a close frame may carry this code (RFC 6455 section 7.4 and its IANA registry). 1004 is reserved, and a close frame must not
/// carry 1005, 1006 or 1015. The other codes below 3000 are not assigned yet.
pub const fn is_valid_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The payload of a close frame and its length.
pub(super) fn close_payload(code: Option<u16>, text: &str) -> ([u8; MAX_CONTROL], usize) {
    let mut payload = [0; MAX_CONTROL];
    let Some(code) = code.filter(|code| is_valid_close_code(*code)) else { return (payload, 0) };
    let mut end = text.len().min(MAX_CONTROL - 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    let len = 2 + text.len();
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..len].copy_from_slice(text.as_bytes());
    (payload, len)
}

/// Code and reason of a received close frame (RFC 6455 section 5.5.1).
pub(super) fn read_close(payload: &[u8]) -> Result<(Option<u16>, &[u8]), FrameError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok((None, &[])) } else { Err(FrameError::CloseTooShort) };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid_close_code(code) {
        return Err(FrameError::CloseCode { code });
    }
    if str::from_utf8(reason).is_err() {
        return Err(FrameError::NotUtf8);
    }
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_written_in_their_shortest_form_and_read_back() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10), (1 << 40, 10)] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let written = head(Opcode::Binary, true, false, len, mask);
                let size = size + mask.map_or(0, |mask| mask.len());
                let role = if mask.is_some() { Role::Server } else { Role::Client };
                let mask = mask.unwrap_or_default();
                let header = Header { fin: true, compressed: false, opcode: Opcode::Binary, mask, len: len as u64 };
                assert_eq!(Header::read(&written, role, false), Ok(Some((header, size))));
                for short in 0..size {
                    assert_eq!(Header::read(&written[..short], role, false), Ok(None), "{short} of {size} bytes");
                }
            }
        }
    }

    #[test]
    fn what_one_head_can_do_wrong_is_said_by_name() {
        for (bytes, role, deflate, expected) in [
            (&[0x82, 0x00][..], Role::Server, false, FrameError::Unmasked),
            (&[0x82, 0x80], Role::Client, false, FrameError::Masked),
            (&[0xc2, 0x80], Role::Server, false, FrameError::ReservedBits { first: 0xc2 }),
            (&[0xa2, 0x80], Role::Server, true, FrameError::ReservedBits { first: 0xa2 }),
            (&[0x92, 0x80], Role::Server, true, FrameError::ReservedBits { first: 0x92 }),
            (&[0xc0, 0x80], Role::Server, true, FrameError::ReservedBits { first: 0xc0 }),
            (&[0xc9, 0x80], Role::Server, true, FrameError::ReservedBits { first: 0xc9 }),
            (&[0x83, 0x80], Role::Server, true, FrameError::ReservedOpcode { opcode: 0x3 }),
            (&[0x87, 0x80], Role::Server, true, FrameError::ReservedOpcode { opcode: 0x7 }),
            (&[0x8b, 0x80], Role::Server, true, FrameError::ReservedOpcode { opcode: 0xb }),
            (&[0x8f, 0x80], Role::Server, true, FrameError::ReservedOpcode { opcode: 0xf }),
            (&[0x89, 0xfe], Role::Server, false, FrameError::ControlTooLong),
            (&[0x88, 0xff], Role::Server, false, FrameError::ControlTooLong),
            (&[0x09, 0x80], Role::Server, false, FrameError::ControlFragmented),
            (&[0x82, 0xfe, 0, 125], Role::Server, false, FrameError::LengthEncoding { length: 125 }),
            (
                &[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                Role::Client,
                false,
                FrameError::LengthEncoding { length: 0xffff },
            ),
            (
                &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
                Role::Server,
                false,
                FrameError::LengthEncoding { length: 1 << 63 },
            ),
        ] {
            assert_eq!(Header::read(bytes, role, deflate), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn masking_in_words_is_masking_byte_by_byte() {
        let mask = [0x11, 0x82, 0xf3, 0x04];
        for len in 0..40 {
            for at in 0..9_u64 {
                let plain: Vec<u8> = (0..len).collect();
                let expected: Vec<u8> =
                    plain.iter().zip(at..).map(|(byte, at)| byte ^ mask[(at % 4) as usize]).collect();
                let mut masked = plain.clone();
                apply_mask(&mut masked, mask, at);
                assert_eq!(masked, expected, "{len} bytes from {at}");
                apply_mask(&mut masked, mask, at);
                assert_eq!(masked, plain);
            }
        }
    }

    #[test]
    fn close_codes_are_those_that_may_be_sent() {
        let valid: Vec<u16> = (0..=u16::MAX).filter(|code| is_valid_close_code(*code)).collect();
        let expected: Vec<u16> = [1000, 1001, 1002, 1003].into_iter().chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(valid, expected);
    }

    #[test]
    fn a_close_text_is_cut_between_characters_and_an_unsendable_code_is_left_out() {
        for (code, text, expected) in [
            (Some(1000), "bye", &b"\x03\xe8bye"[..]),
            (Some(1006), "gone", b""),
            (None, "no code", b""),
            (Some(4000), &"é".repeat(100), &[&b"\x0f\xa0"[..], "é".repeat(61).as_bytes()].concat()),
        ] {
            let (payload, len) = close_payload(code, text);
            assert_eq!(&payload[..len], expected);
        }
    }

    #[test]
    fn close_payloads_are_read_or_refused() {
        assert_eq!(read_close(b""), Ok((None, &b""[..])));
        assert_eq!(read_close(b"\x03\xe8"), Ok((Some(1000), &b""[..])));
        assert_eq!(read_close(b"\x0f\xa0\xc3\xa9"), Ok((Some(4000), "é".as_bytes())));
        assert_eq!(read_close(b"\x03"), Err(FrameError::CloseTooShort));
        assert_eq!(read_close(b"\x03\xed?"), Err(FrameError::CloseCode { code: 1005 }));
        assert_eq!(read_close(b"\x0f\xa0\xc3"), Err(FrameError::NotUtf8));
    }
}
