//! Turns WebSocket frames into messages (RFC 6455 section 5): joins fragments, accepts control frames between them, checks text.
//!
//! ```text
//! at rest --some bytes--> head --all of it--> payload --last byte of a message--> at rest
//!                          ^                     |      (or of a control frame outside one)
//!                          `--last byte of a fragment, or of a control frame inside a message
//! ```
//!
//! In the usual case a message is one frame that is completely in the input. Then no state is kept: it goes from rest to rest.
//!
//! Text is checked as it arrives, so that an invalid UTF-8 byte ends the session at once and not a megabyte later. Compressed messages
//! stay compressed until their last fragment, because an inflater in the middle of a message could not be serialized.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::header::{self, Header, Opcode, Role, apply_mask};
use super::utf8::check_utf8;
use super::{Frame, FrameKind, Item, deflate, grow};

/// `partial` is boxed because it exists only between the first and the last byte of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    role: Role,
    partial: Option<Box<Partial>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Partial {
    /// An incomplete head.
    head: Vec<u8>,
    /// The frame whose payload is arriving, and the payload bytes received so far.
    frame: Option<(Header, u64)>,
    /// The message that fragments are joined to.
    message: Option<Message>,
    /// Payload of a control frame; it may come in the middle of a message.
    control: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    kind: FrameKind,
    compressed: bool,
    payload: Vec<u8>,
    /// How much of the payload is known to be UTF-8: all of it, except an incomplete character at the end.
    checked: usize,
}

impl Decoder {
    pub(super) fn new(role: Role) -> Self {
        Decoder { role, partial: None }
    }

    pub(super) fn decode(
        &mut self,
        deflate: bool,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        if self.partial.is_none() {
            // Without input, allocate nothing.
            if input.is_empty() {
                return Ok((0, None));
            }
            if let Some((taken, item)) = self.whole(deflate, max_frame, input)? {
                return Ok((taken, Some(item)));
            }
        }
        let partial = self.partial.get_or_insert_default();
        let mut taken = 0;
        loop {
            if partial.frame.is_none() {
                taken += partial.take_head(self.role, deflate, max_frame, &input[taken..])?;
            }
            let Some((header, got)) = partial.frame else { return Ok((taken, None)) };
            let payload = up_to(header.len.saturating_sub(got), &input[taken..]);
            partial.take_payload(header, got, max_frame, payload)?;
            taken += payload.len();
            let got = got + payload.len() as u64;
            if got < header.len {
                partial.frame = Some((header, got));
                return Ok((taken, None));
            }
            partial.frame = None;
            if let Some(item) = partial.end_frame(header, max_frame)? {
                if partial.message.is_none() {
                    self.partial = None;
                }
                return Ok((taken, Some(item)));
            }
        }
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        self.partial.is_some()
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |m| m.payload.capacity());
            size_of::<Partial>() + partial.head.capacity() + partial.control.capacity() + message
        })
    }

    /// The usual case: one frame that is a whole message and is completely in the input.
    fn whole(&self, deflate: bool, max_frame: usize, input: &[u8]) -> Result<Option<(usize, Item)>, FrameError> {
        let Some((header, start)) = Header::read(input, self.role, deflate)? else { return Ok(None) };
        let kind = match header.opcode {
            Opcode::Text => Some(FrameKind::Text),
            Opcode::Binary => Some(FrameKind::Binary),
            Opcode::Close | Opcode::Ping | Opcode::Pong => None,
            Opcode::Continuation => return Ok(None),
        };
        if kind.is_some() {
            check_size(0, header.len, most_payload(header.compressed, max_frame))?;
        }
        let payload = up_to(header.len, &input[start..]);
        if !header.fin || (payload.len() as u64) < header.len {
            return Ok(None);
        }
        let taken = start + payload.len();
        let mut payload = payload.to_vec();
        apply_mask(&mut payload, header.mask, 0);
        let item = match kind {
            Some(kind) => Message { kind, compressed: header.compressed, payload, checked: 0 }.into_item(max_frame)?,
            None => control_item(header.opcode, payload)?,
        };
        Ok(Some((taken, item)))
    }
}

impl Partial {
    /// Takes a head, or the part of it that has arrived.
    fn take_head(&mut self, role: Role, deflate: bool, max: usize, input: &[u8]) -> Result<usize, FrameError> {
        let had = self.head.len();
        let more = input.len().min(Header::MAX.saturating_sub(had));
        self.head.extend_from_slice(&input[..more]);
        let Some((header, size)) = Header::read(&self.head, role, deflate)? else { return Ok(more) };
        // Bytes kept beyond the head are payload, and they are still in the input.
        self.head.clear();
        match header.opcode {
            Opcode::Text => self.start_message(FrameKind::Text, header.compressed)?,
            Opcode::Binary => self.start_message(FrameKind::Binary, header.compressed)?,
            Opcode::Continuation if self.message.is_none() => return Err(FrameError::NothingToContinue),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        if let (false, Some(message)) = (header.opcode.is_control(), &self.message) {
            check_size(message.payload.len(), header.len, most_payload(message.compressed, max))?;
        }
        self.frame = Some((header, 0));
        Ok(size - had)
    }

    fn start_message(&mut self, kind: FrameKind, compressed: bool) -> Result<(), FrameError> {
        if self.message.is_some() {
            return Err(FrameError::MessageInterrupted);
        }
        self.message = Some(Message { kind, compressed, payload: Vec::new(), checked: 0 });
        Ok(())
    }

    /// Takes payload of a frame that already has `got` bytes.
    fn take_payload(&mut self, header: Header, got: u64, max: usize, payload: &[u8]) -> Result<(), FrameError> {
        match &mut self.message {
            Some(message) if !header.opcode.is_control() => {
                // With the last fragment the size of the message is known. Before it, the message may grow up to the limit.
                let missing = usize::try_from(header.len.saturating_sub(got)).unwrap_or(usize::MAX);
                let whole = message.payload.len().saturating_add(missing);
                let bound = if header.fin { whole } else { most_payload(message.compressed, max) };
                message.take(header.mask, got, bound, payload)
            }
            _ => {
                let start = self.control.len();
                self.control.extend_from_slice(payload);
                apply_mask(&mut self.control[start..], header.mask, got);
                Ok(())
            }
        }
    }

    /// Called after the last byte of a frame. Returns the item that it completes, if any.
    fn end_frame(&mut self, header: Header, max_frame: usize) -> Result<Option<Item>, FrameError> {
        if header.opcode.is_control() {
            return control_item(header.opcode, std::mem::take(&mut self.control)).map(Some);
        }
        if !header.fin {
            return Ok(None);
        }
        self.message.take().map(|message| message.into_item(max_frame)).transpose()
    }
}

impl Message {
    fn take(&mut self, mask: [u8; 4], at: u64, bound: usize, payload: &[u8]) -> Result<(), FrameError> {
        let start = self.payload.len();
        grow(&mut self.payload, payload.len(), bound);
        self.payload.extend_from_slice(payload);
        apply_mask(&mut self.payload[start..], mask, at);
        if self.kind == FrameKind::Text && !self.compressed {
            check_utf8(&self.payload, &mut self.checked)?;
        }
        Ok(())
    }

    fn into_item(mut self, max_frame: usize) -> Result<Item, FrameError> {
        if self.compressed {
            self.payload = deflate::inflate(&self.payload, max_frame, self.kind == FrameKind::Text)?;
        } else if self.kind == FrameKind::Text && str::from_utf8(&self.payload[self.checked..]).is_err() {
            return Err(FrameError::NotUtf8);
        }
        Ok(Item::Frame(Frame { kind: self.kind, body: self.payload.into() }))
    }
}

/// The front of `input`, at most `len` bytes.
fn up_to(len: u64, input: &[u8]) -> &[u8] {
    &input[..usize::try_from(len).map_or(input.len(), |len| len.min(input.len()))]
}

/// The most bytes of payload that a message of at most `max_frame` bytes may have on the wire. Incompressible data grows: by 5 bytes
/// for each stored block, or by an eighth if the sender uses only fixed Huffman codes (9 bits a byte, RFC 1951 section 3.2.6).
fn most_payload(compressed: bool, max_frame: usize) -> usize {
    if compressed { max_frame.saturating_add(max_frame / 8).saturating_add(64) } else { max_frame }
}

fn check_size(had: usize, more: u64, max: usize) -> Result<(), FrameError> {
    let (size, max) = (more.saturating_add(had as u64), max as u64);
    if size > max { Err(FrameError::TooLarge { size, max }) } else { Ok(()) }
}

fn control_item(opcode: Opcode, payload: Vec<u8>) -> Result<Item, FrameError> {
    let payload = Bytes::from(payload);
    Ok(match opcode {
        Opcode::Ping => Item::Ping(payload),
        Opcode::Pong => Item::Pong(payload),
        _ => {
            let (code, reason) = header::read_close(&payload)?;
            Item::Close { code, reason: payload.slice_ref(reason) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 70_000;

    fn text(body: &str) -> Item {
        Item::Frame(Frame { kind: FrameKind::Text, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    fn binary(body: &[u8]) -> Item {
        Item::Frame(Frame { kind: FrameKind::Binary, body: Bytes::copy_from_slice(body) })
    }

    /// Decodes frames (unmasked, or masked if the second byte says so) at once and byte by byte.
    fn check(wire: &[u8], expected: &[Item], end: Result<bool, FrameError>) {
        let role = if wire[1] & 0x80 != 0 { Role::Server } else { Role::Client };
        for size in [wire.len(), 1] {
            let mut decoder = Decoder::new(role);
            let (found, _, result) = decode(&mut decoder, wire, size);
            let shown = &wire[..wire.len().min(40)];
            assert_eq!(found, expected, "by {size}: {shown:02x?}");
            assert_eq!(result.map(|()| decoder.is_mid_frame()), end, "by {size}: {shown:02x?}");
            if end == Ok(false) {
                assert_eq!(decoder.buffered(), 0, "at rest nothing is held: {shown:02x?}");
            }
        }
    }

    /// The items found, the number of bytes read until then, and the result at the end.
    fn decode(decoder: &mut Decoder, wire: &[u8], size: usize) -> (Vec<Item>, usize, Result<(), FrameError>) {
        let mut items = Vec::new();
        let mut read = 0;
        for mut piece in wire.chunks(size) {
            read += piece.len();
            loop {
                match decoder.decode(true, MAX, piece) {
                    Ok((taken, Some(item))) => {
                        items.push(item);
                        piece = &piece[taken..];
                    }
                    Ok((_, None)) => break,
                    Err(error) => return (items, read, Err(error)),
                }
            }
        }
        (items, read, Ok(()))
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_are_read() {
        let hello = Bytes::from_static(b"Hello");
        check(b"\x81\x05Hello", &[text("Hello")], Ok(false));
        check(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[text("Hello")], Ok(false));
        check(b"\x01\x03Hel\x80\x02lo", &[text("Hello")], Ok(false));
        check(b"\x89\x05Hello", &[Item::Ping(hello.clone())], Ok(false));
        check(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", &[Item::Pong(hello)], Ok(false));
        let body = [7; 0x1_0000];
        check(&[b"\x82\x7e\x01\x00", &body[..256]].concat(), &[binary(&body[..256])], Ok(false));
        check(&[b"\x82\x7f\0\0\0\0\0\x01\0\0", &body[..]].concat(), &[binary(&body)], Ok(false));
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3_are_inflated() {
        let hello = [text("Hello")];
        check(b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", &hello, Ok(false));
        check(b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", &hello, Ok(false));
        check(b"\xc1\x0b\x00\x05\x00\xfa\xffHello\x00", &hello, Ok(false));
        check(b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00", &hello, Ok(false));
        check(b"\xc1\x0d\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", &hello, Ok(false));
        check(b"\xc1\x01\x00", &[text("")], Ok(false));
        // A ping between the fragments of a compressed message is not compressed; an uncompressed message may follow.
        let wire = b"\x41\x03\xf2\x48\xcd\x89\x01!\x80\x04\xc9\xc9\x07\x00\x81\x02ok";
        check(wire, &[Item::Ping(Bytes::from_static(b"!")), text("Hello"), text("ok")], Ok(false));
    }

    #[test]
    fn control_frames_come_between_fragments_and_end_nothing() {
        let wire = b"\x01\x02ab\x89\x01p\x00\x00\x8a\x00\x00\x01c\x80\x01d\x82\x00\x88\x05\x03\xe8bye";
        let bye = Item::Close { code: Some(1000), reason: Bytes::from_static(b"bye") };
        let expected = [Item::Ping(Bytes::from_static(b"p")), Item::Pong(Bytes::new()), text("abcd"), binary(b""), bye];
        check(wire, &expected, Ok(false));
        check(&wire[..wire.len() - 1], &expected[..4], Ok(true));
        check(b"\x01\x01a", &[], Ok(true));
        check(b"\x88\x00", &[Item::Close { code: None, reason: Bytes::new() }], Ok(false));
    }

    #[test]
    fn what_breaks_the_rules_between_frames_is_said_by_name() {
        for (wire, before, error) in [
            (&b"\x80\x00"[..], &[][..], FrameError::NothingToContinue),
            (b"\x81\x01a\x00\x00", &[text("a")], FrameError::NothingToContinue),
            (b"\x01\x01a\x81\x01b", &[], FrameError::MessageInterrupted),
            (b"\x01\x01a\x02\x01b", &[], FrameError::MessageInterrupted),
            (b"\x41\x03\xf2\x48\xcd\xc0\x04", &[], FrameError::ReservedBits { first: 0xc0 }),
            (b"\x01\x01a\x09\x00", &[], FrameError::ControlFragmented),
            (b"\x88\x01\x03", &[], FrameError::CloseTooShort),
            (b"\x88\x02\x03\xee", &[], FrameError::CloseCode { code: 1006 }),
            (b"\x88\x03\x03\xe8\xff", &[], FrameError::NotUtf8),
            (b"\xc2\x03\xff\xff\xff", &[], FrameError::NotDeflate),
        ] {
            check(wire, before, Err(error));
        }
    }

    #[test]
    fn the_limit_counts_all_fragments_together() {
        let head = |first: u8, len: u16| [&[first, 126][..], &len.to_be_bytes()].concat();
        let body = vec![1; 35_000];
        let half = |first| [head(first, 35_000), body.clone()].concat();
        check(&[half(0x02), half(0x80)].concat(), &[binary(&[&body[..], &body[..]].concat())], Ok(false));
        // Refused because of its head alone, before any byte of the second half has arrived.
        let error = FrameError::TooLarge { size: 70_001, max: 70_000 };
        check(&[half(0x02), head(0x80, 35_001)].concat(), &[], Err(error));
    }

    #[test]
    fn many_small_fragments_are_not_copied_again_and_again() {
        let mut decoder = Decoder::new(Role::Client);
        let mut sizes = std::collections::BTreeSet::new();
        for first in std::iter::once(0x02).chain(std::iter::repeat_n(0x00, 60_000)) {
            decoder.decode(false, MAX, &[first, 1, b'x']).unwrap();
            sizes.insert(decoder.buffered());
        }
        assert!(sizes.len() < 16, "{sizes:?}");
    }

    /// `bad` is the number of bytes after which the text can no longer be UTF-8.
    fn check_utf8_fails_at(body: &[u8], bad: usize) {
        let masked = |first, body: &[u8]| {
            let mut wire = vec![first, 0x80 | body.len() as u8, 1, 2, 3, 4];
            wire.extend(body.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
            wire
        };
        // In one frame that has arrived only in part, and in fragments of one byte.
        let whole = masked(0x81, &[body, b"and so on"].concat());
        let fragments: Vec<u8> =
            body.iter().enumerate().flat_map(|(n, byte)| masked(u8::from(n == 0), &[*byte])).collect();
        for (wire, expected) in [(whole, 6 + bad), (fragments, 7 * bad)] {
            let mut decoder = Decoder::new(Role::Server);
            let (found, read, result) = decode(&mut decoder, &wire, 1);
            assert_eq!((found.len(), read, result), (0, expected, Err(FrameError::NotUtf8)), "{body:02x?}");
        }
    }

    #[test]
    fn text_that_cannot_be_utf8_any_more_is_refused_at_that_byte() {
        check_utf8_fails_at(b"\xff", 1);
        check_utf8_fails_at(b"a\xc0", 2);
        check_utf8_fails_at(b"a\xf5", 2);
        // Autobahn 6.4.1: good text, a code point above U+10FFFF, good text.
        check_utf8_fails_at(b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80edited", 7);
        // A surrogate, an overlong form, a lone continuation byte, a character that was not finished.
        check_utf8_fails_at(b"\xed\xa0\x80", 2);
        check_utf8_fails_at(b"\xe0\x80\xaf", 2);
        check_utf8_fails_at(b"ok\x80", 3);
        check_utf8_fails_at(b"\xe2\x82a", 3);
    }

    #[test]
    fn text_may_be_cut_inside_a_character_but_not_end_there() {
        check(b"\x01\x02a\xf0\x00\x01\x9f\x00\x00\x80\x02\x98\x80", &[text("a\u{1f600}")], Ok(false));
        check(b"\x81\x02a\xf0", &[], Err(FrameError::NotUtf8));
        check(b"\x01\x02a\xf0\x80\x00", &[], Err(FrameError::NotUtf8));
        check(b"\x82\x02a\xf0", &[binary(b"a\xf0")], Ok(false));
    }
}
