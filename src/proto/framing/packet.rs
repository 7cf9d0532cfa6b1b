//! Length framing with the options of device protocols: start bytes, flag bits in the length field, a length with another offset, a
//! trailer that the length does not count, end bytes.
//!
//! ```text
//! |<---------- header ----------->|<-- body -->|<- trailer ->|<- end ->|
//! | start | .. | length field | ..|            |             |         |
//! ```
//!
//! With `keep_header` PHP sees the whole frame, and its replies are sent unchanged. Without it PHP sees body and trailer, and Longwire
//! puts start, length and end around its replies. The handler checks and writes a checksum in the trailer.
//!
//! Bytes that cannot begin a frame end the session, or are skipped up to the next start ([`PacketFraming::resync`]). After a false start
//! the search continues at the very next byte, so a frame that was cut short does not cost the one after it.

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::affix::Affix;
use super::error::{BodyDoesNotFit, FrameError};
use super::length::{LengthCounts, LengthFraming};
use super::marked::{Skipped, find_start, may_start};
use super::{Frame, FrameKind, Item, OptionFault, grow};

/// Where frames begin and end, and the meaning of their length field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PacketFraming {
    /// The header, from the first byte of `start` to the body, and the length field in it.
    pub length: LengthFraming,
    /// The bits of the field that hold the length, without gaps; 0 for all bits. The length is shifted down to bit 0 when it is read.
    /// The other bits are zero in replies.
    pub mask: u64,
    /// Is added to the length to get the bytes of the body.
    pub adjust: i64,
    /// Bytes between body and end that the length does not count.
    pub trailer: usize,
    /// The bytes at the beginning of every frame; may be empty.
    pub start: Vec<u8>,
    /// The bytes at the end of every frame; may be empty. The length does not count them.
    pub end: Vec<u8>,
    /// Skip bytes that cannot be a frame, up to the next start.
    pub resync: bool,
}

impl From<LengthFraming> for PacketFraming {
    fn from(length: LengthFraming) -> Self {
        Self { length, mask: 0, adjust: 0, trailer: 0, start: Vec::new(), end: Vec::new(), resync: false }
    }
}

/// The content at the front of a buffer.
enum Cut {
    /// A frame of this many bytes.
    Frame(usize),
    /// The beginning of a frame; at least this many bytes are needed to decide.
    More(usize),
}

impl PacketFraming {
    /// Checks that the options fit each other. Decoding and encoding rely on it, so the configuration refuses options that do not.
    pub fn check(&self) -> Result<(), OptionFault> {
        let fault = |key, rule: String| Err(OptionFault { key, rule });
        let LengthFraming { offset, .. } = self.length;
        if self.start.len() > offset && !self.start.is_empty() {
            let rule =
                format!("has {} bytes and would overlap the length field: length_offset is {offset}", self.start.len());
            return fault("start", rule);
        }
        if self.mask != 0 {
            let run = self.mask >> self.mask.trailing_zeros();
            if run & run.wrapping_add(1) != 0 {
                return fault("length_mask", "must be one run of bits".into());
            }
            if self.mask > u64::MAX >> (64 - self.length.bits()) {
                return fault("length_mask", format!("has more bits than a field of {} bytes", self.length.width));
            }
        }
        if self.resync && self.start.is_empty() {
            return fault("resync", "needs a start, because it skips to the next start".into());
        }
        Ok(())
    }

    /// The largest frame, as PHP sees it, that the length field can announce.
    pub fn largest(&self) -> u64 {
        let body = i128::from(self.max_value()) + self.body_of_zero();
        let around = if self.length.keep_header { self.length.header + self.end.len() } else { 0 };
        u64::try_from(body + (self.trailer + around) as i128).unwrap_or(u64::MAX)
    }

    fn max_value(&self) -> u64 {
        let mask = if self.mask == 0 { u64::MAX >> (64 - self.length.bits()) } else { self.mask };
        mask >> mask.trailing_zeros()
    }

    /// Bytes of the body if the length field is zero; negative if the length field must be above zero.
    fn body_of_zero(&self) -> i128 {
        let counted = match self.length.counts {
            LengthCounts::Body => 0,
            LengthCounts::Frame => self.length.header as i128,
        };
        i128::from(self.adjust) - counted
    }

    /// The bytes before a body and trailer of `len` bytes together.
    pub(super) fn head(&self, len: u64) -> Result<Affix, BodyDoesNotFit> {
        if self.length.keep_header {
            return Ok(Affix::EMPTY);
        }
        let value = i128::from(len) - self.trailer as i128 - self.body_of_zero();
        let least = (self.trailer as i128 + self.body_of_zero()).max(self.trailer as i128);
        if i128::from(len) < least {
            return Err(BodyDoesNotFit::TooShort { len, least: least as u64 });
        }
        let max = self.max_value();
        let value = u64::try_from(value).ok().filter(|value| *value <= max);
        let value = value.ok_or(BodyDoesNotFit::TooLong { len, bits: max.count_ones() })?;
        let mut head = Affix::zeroed(self.length.header);
        head.as_mut()[..self.start.len()].copy_from_slice(&self.start);
        self.length.write_field(head.as_mut(), value << (self.mask.trailing_zeros() % 64));
        Ok(head)
    }

    /// The bytes after body and trailer.
    pub(super) fn tail(&self) -> &[u8] {
        if self.length.keep_header { &[] } else { &self.end }
    }

    /// The bytes of the whole frame that has this header.
    fn total(&self, max_frame: usize, header: &[u8]) -> Result<usize, FrameError> {
        let mut value = self.length.read_field(header);
        if self.mask != 0 {
            value = (value & self.mask) >> self.mask.trailing_zeros();
        }
        let body = i128::from(value) + self.body_of_zero();
        if body < 0 {
            let least = u64::try_from(-self.body_of_zero()).unwrap_or(u64::MAX);
            return Err(FrameError::LengthTooSmall { length: value, least });
        }
        let seen = body + self.trailer as i128;
        let total = seen + (self.length.header + self.end.len()) as i128;
        // The limit applies to the bytes that PHP sees.
        let size = if self.length.keep_header { total } else { seen };
        if size > max_frame as i128 || total > isize::MAX as i128 {
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            return Err(FrameError::TooLarge { size, max: max_frame as u64 });
        }
        Ok(total as usize)
    }

    fn cut(&self, max_frame: usize, bytes: &[u8]) -> Result<Cut, FrameError> {
        if !may_start(&self.start, bytes) {
            return Err(FrameError::NoStart);
        }
        let Some(header) = bytes.get(..self.length.header) else { return Ok(Cut::More(self.length.header)) };
        let total = self.total(max_frame, header)?;
        let Some(whole) = bytes.get(..total) else { return Ok(Cut::More(total)) };
        if whole.ends_with(&self.end) { Ok(Cut::Frame(total)) } else { Err(FrameError::NoEnd) }
    }

    /// How many of these bytes to skip. They cannot begin a frame, because of `error`; without `resync` that error is returned.
    fn skip(&self, bytes: &[u8], error: FrameError) -> Result<usize, FrameError> {
        if self.resync { Ok(1 + find_start(&self.start, &bytes[1..])) } else { Err(error) }
    }

    fn item(&self, mut whole: Bytes) -> Item {
        if !self.length.keep_header {
            whole.truncate(whole.len() - self.end.len());
            whole.advance(self.length.header);
        }
        Item::Frame(Frame { kind: FrameKind::Binary, body: whole })
    }
}

/// The bytes of a frame so far. While bytes are skipped, it also holds the bytes after a false start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    partial: Vec<u8>,
    /// Bytes at the front of `partial` that are no longer needed.
    done: usize,
    /// A frame was cut out of `partial`, and more bytes are left there.
    has_rest: bool,
    pub(super) skipped: Skipped,
}

impl Decoder {
    pub(super) fn decode(
        &mut self,
        framing: &PacketFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        let mut taken = 0;
        self.has_rest = false;
        loop {
            let rest = &input[taken..];
            let is_fresh = self.partial.is_empty();
            let bytes = if is_fresh { rest } else { self.kept() };
            if bytes.is_empty() {
                return Ok((taken, None));
            }
            match framing.cut(max_frame, bytes) {
                Ok(Cut::Frame(total)) => {
                    self.skipped.end();
                    if is_fresh {
                        let whole = Bytes::copy_from_slice(&rest[..total]);
                        return Ok((taken + total, Some(framing.item(whole))));
                    }
                    return Ok((taken, Some(framing.item(self.take_front(total)))));
                }
                Ok(Cut::More(_)) if rest.is_empty() => return Ok((taken, None)),
                Ok(Cut::More(needed)) => taken += self.keep(rest, needed),
                Err(error) => {
                    let skipped = framing.skip(bytes, error)?;
                    if is_fresh {
                        taken += skipped;
                    } else {
                        self.drop_front(skipped);
                    }
                    self.skipped.add(skipped, max_frame)?;
                }
            }
        }
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(super) fn has_rest(&self) -> bool {
        self.has_rest
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity()
    }

    fn kept(&self) -> &[u8] {
        &self.partial[self.done..]
    }

    /// Keeps bytes until there are `needed`. Returns how many it took.
    fn keep(&mut self, input: &[u8], needed: usize) -> usize {
        let taken = input.len().min(needed.saturating_sub(self.kept().len()));
        // The remaining bytes move to the front when an eighth of the buffer is no longer needed. That is often enough for the bound,
        // and rare enough that a peer with many false starts does not cause a move for every byte.
        if self.done * 8 >= self.partial.len() {
            self.partial.drain(..self.done);
            self.done = 0;
        }
        grow(&mut self.partial, taken, self.done + needed);
        self.partial.extend_from_slice(&input[..taken]);
        taken
    }

    fn take_front(&mut self, len: usize) -> Bytes {
        if self.done == 0 && len == self.partial.len() {
            return std::mem::take(&mut self.partial).into();
        }
        let front = Bytes::copy_from_slice(&self.kept()[..len]);
        self.drop_front(len);
        self.has_rest = !self.partial.is_empty();
        front
    }

    fn drop_front(&mut self, len: usize) {
        self.done += len;
        if self.done == self.partial.len() {
            (self.partial, self.done) = (Vec::new(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_in_pieces;
    use super::*;
    use crate::proto::framing::Framing;

    const MAX: usize = 20;

    /// `| ** | type | length | body | checksum | # |`
    fn framing() -> PacketFraming {
        let length = LengthFraming { width: 1, offset: 3, header: 4, ..LengthFraming::NATIVE };
        PacketFraming { trailer: 1, start: b"**".to_vec(), end: b"#".to_vec(), ..length.into() }
    }

    /// Checks the frames that are found in `input`, given in pieces of each size.
    fn check(framing: &PacketFraming, input: &[u8], expected: Result<&[&[u8]], FrameError>, skipped: u64) {
        framing.check().unwrap();
        check_in_pieces(&Framing::Packet(framing.clone().into()), MAX, input, expected, skipped);
    }

    #[test]
    fn php_sees_body_and_trailer_or_the_whole() {
        check(&framing(), b"**T\x02hi!#**T\x00!#", Ok(&[b"hi!", b"!"]), 0);
        let mut kept = framing();
        kept.length.keep_header = true;
        check(&kept, b"**T\x02hi!#", Ok(&[b"**T\x02hi!#"]), 0);
        assert_eq!((&*kept.head(3).unwrap(), kept.tail()), (&b""[..], &b""[..]));
        assert_eq!((&*framing().head(3).unwrap(), framing().tail()), (&b"**\0\x02"[..], &b"#"[..]));
        assert_eq!(framing().head(0), Err(BodyDoesNotFit::TooShort { len: 0, least: 1 }));
        assert!(framing().head(256).is_ok());
        assert_eq!(framing().head(257), Err(BodyDoesNotFit::TooLong { len: 257, bits: 8 }));
        assert_eq!((framing().largest(), kept.largest()), (256, 261));
    }

    #[test]
    fn what_is_no_frame_ends_the_session() {
        check(&framing(), b"x**T\x00!#", Err(FrameError::NoStart), 0);
        check(&framing(), b"*x", Err(FrameError::NoStart), 0);
        check(&framing(), b"**T\x00!x", Err(FrameError::NoEnd), 0);
        check(&framing(), b"**T\x14", Err(FrameError::TooLarge { size: 21, max: 20 }), 0);
        let whole = PacketFraming { adjust: -2, ..framing() };
        check(&whole, b"**T\x03h!#", Ok(&[b"h!"]), 0);
        check(&whole, b"**T\x01", Err(FrameError::LengthTooSmall { length: 1, least: 2 }), 0);
    }

    #[test]
    fn what_is_no_frame_is_skipped_when_asked() {
        let resync = PacketFraming { resync: true, ..framing() };
        check(&resync, b"x**T\x00!#yz**T\x01a!#", Ok(&[b"!", b"a!"]), 3);
        // Three stars: the second and the third are the start.
        check(&resync, b"***T\x00!#", Ok(&[b"!"]), 1);
        // A frame that was cut short, and a frame with a length above the limit.
        check(&resync, b"**T\x07ab**T\x00!#**T\x01b!#", Ok(&[b"!", b"b!"]), 6);
        check(&resync, b"**T\xff**T\x01a!#", Ok(&[b"a!"]), 4);
        // Two whole frames inside one announced length: both are found without further input.
        check(&resync, b"**T\x0d**T\x01a!#**T\x01b!#x", Ok(&[b"a!", b"b!"]), 5);
        check(&resync, &[b'x'; 21], Err(FrameError::NoFrameFound { max: 20 }), 21);
        check(&resync, &[b'x'; 20], Ok(&[]), 20);
    }

    #[test]
    fn flag_bits_and_other_ways_to_count_are_read_and_written() {
        let length = LengthFraming { width: 2, header: 2, ..LengthFraming::NATIVE };
        let low = PacketFraming { mask: 0x03ff, ..length.into() };
        check(&low, b"\xfc\x02hi", Ok(&[b"hi"]), 0);
        assert_eq!(&*low.head(0x3ff).unwrap(), b"\x03\xff");
        assert_eq!(low.head(0x400), Err(BodyDoesNotFit::TooLong { len: 0x400, bits: 10 }));
        let high = PacketFraming { mask: 0xfff0, ..length.into() };
        check(&high, b"\x00\x2fhi", Ok(&[b"hi"]), 0);
        assert_eq!(&*high.head(2).unwrap(), b"\x00\x20");
        let after = PacketFraming { adjust: 3, ..length.into() };
        check(&after, b"\0\0abc\0\x01abcd", Ok(&[b"abc", b"abcd"]), 0);
        assert_eq!(&*after.head(4).unwrap(), b"\0\x01");
        assert_eq!(after.head(2), Err(BodyDoesNotFit::TooShort { len: 2, least: 3 }));
        let frame = LengthFraming { counts: LengthCounts::Frame, ..length };
        check(&PacketFraming { trailer: 1, ..frame.into() }, b"\0\x03ac", Ok(&[b"ac"]), 0);
    }

    #[test]
    fn a_peer_that_has_every_byte_looked_at_again_has_little_more_kept_than_a_frame() {
        // Every two stars announce a frame. When its last byte arrives, it turns out to have no end.
        let length = LengthFraming { width: 2, offset: 1, header: 3, ..LengthFraming::NATIVE };
        let framing = PacketFraming { start: b"*".to_vec(), end: b"#".to_vec(), resync: true, ..length.into() };
        let max = 0x2a2a;
        let mut decoder = Decoder::default();
        let mut largest = 0;
        loop {
            match decoder.decode(&framing, max, b"*") {
                Ok(found) => assert_eq!(found, (1, None)),
                Err(error) => {
                    assert_eq!(error, FrameError::NoFrameFound { max: max as u64 });
                    break;
                }
            }
            largest = largest.max(decoder.buffered());
        }
        assert!((max..max * 8 / 7 + 64).contains(&largest), "{largest} bytes for frames of {max}");
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let two = LengthFraming { width: 2, header: 2, ..LengthFraming::NATIVE };
        for (framing, key) in [
            (PacketFraming { start: b"*".to_vec(), ..two.into() }, "start"),
            (PacketFraming { mask: 0x0505, ..two.into() }, "length_mask"),
            (PacketFraming { mask: 0x1_0000, ..two.into() }, "length_mask"),
            (PacketFraming { resync: true, ..two.into() }, "resync"),
        ] {
            assert_eq!(framing.check().unwrap_err().key, key, "{framing:?}");
        }
        let wide = LengthFraming { width: 8, header: 8, ..LengthFraming::NATIVE };
        assert_eq!(PacketFraming { mask: u64::MAX, ..wide.into() }.check(), Ok(()));
    }
}
