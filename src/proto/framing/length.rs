//! Length framing: a header of fixed size with a field that holds the length of the frame.
//!
//! ```text
//! |<-------- header -------->|<------ body ------>|
//! | offset | width |  other  |
//!          `- the length: of the body, or of header and body
//! ```

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::affix::Affix;
use super::error::{BodyDoesNotFit, FrameError};
use super::{Frame, FrameKind, Item, grow};

/// The equivalent of Swoole's `package_length_*` options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LengthFraming {
    /// Bytes of the length field: 1, 2, 3, 4 or 8 (`package_length_type` `C`, `n`/`v`, `N`/`V`, `J`/`P`; Swoole has no 3).
    pub width: u8,
    /// Where the field begins in the header (`package_length_offset`).
    pub offset: usize,
    /// Byte order of the field.
    pub endian: Endian,
    /// Where the body begins (`package_body_offset`): at least `offset + width`.
    pub header: usize,
    /// The bytes that the field counts.
    pub counts: LengthCounts,
    /// Whether PHP sees the header too; then replies must include their own header.
    pub keep_header: bool,
}

/// Byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endian {
    /// Network order.
    Big,
    /// Little end first.
    Little,
}

/// The bytes that a length field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthCounts {
    /// The bytes after the header.
    Body,
    /// Header and body together.
    Frame,
}

impl Default for LengthFraming {
    fn default() -> Self {
        Self::NATIVE
    }
}

impl LengthFraming {
    /// An unsigned 32-bit big-endian body length, then the body: the framing of Longwire's predecessor.
    pub const NATIVE: Self = LengthFraming {
        width: 4,
        offset: 0,
        endian: Endian::Big,
        header: 4,
        counts: LengthCounts::Body,
        keep_header: false,
    };

    /// Whether the numbers fit each other. Decoding and encoding rely on it, so the configuration refuses numbers that do not.
    pub const fn is_valid(&self) -> bool {
        matches!(self.width, 1..=4 | 8)
            && match self.offset.checked_add(self.width as usize) {
                Some(end) => self.header >= end,
                None => false,
            }
    }

    /// The header for a body of `len` bytes. Everything but the length field is zero.
    pub(super) fn head(&self, len: u64) -> Result<Affix, BodyDoesNotFit> {
        if self.keep_header {
            return Ok(Affix::EMPTY);
        }
        let too_long = BodyDoesNotFit::TooLong { len, bits: self.bits() };
        let value = match self.counts {
            LengthCounts::Body => len,
            LengthCounts::Frame => len.checked_add(self.header as u64).ok_or(too_long)?,
        };
        if value > u64::MAX >> (64 - self.bits()) {
            return Err(too_long);
        }
        let mut head = Affix::zeroed(self.header);
        self.write_field(head.as_mut(), value);
        Ok(head)
    }

    /// Bits of the length field.
    pub(super) const fn bits(&self) -> u32 {
        8 * self.width as u32
    }

    /// Writes a value that fits the length field into a header.
    pub(super) fn write_field(&self, header: &mut [u8], value: u64) {
        let width = usize::from(self.width);
        let place = &mut header[self.offset..self.offset + width];
        place.copy_from_slice(&value.to_be_bytes()[8 - width..]);
        if self.endian == Endian::Little {
            place.reverse();
        }
    }

    /// The value of the length field in a header.
    pub(super) fn read_field(&self, header: &[u8]) -> u64 {
        let field = &header[self.offset..self.offset + usize::from(self.width)];
        match self.endian {
            Endian::Big => field.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)),
            Endian::Little => field.iter().rev().fold(0, |sum, b| sum << 8 | u64::from(*b)),
        }
    }

    /// Bytes of the whole frame, header included, once `input` holds the header and the limit allows it.
    fn total(&self, max_frame: usize, input: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(header) = input.get(..self.header) else { return Ok(None) };
        let value = self.read_field(header);
        let header = self.header as u64;
        let body = match self.counts {
            LengthCounts::Body => value,
            LengthCounts::Frame => {
                value.checked_sub(header).ok_or(FrameError::LengthBelowHeader { length: value, header })?
            }
        };
        let total = body.saturating_add(header);
        // The limit applies to the bytes that PHP sees.
        let size = if self.keep_header { total } else { body };
        let too_large = FrameError::TooLarge { size, max: max_frame as u64 };
        if size > max_frame as u64 || total == u64::MAX {
            return Err(too_large);
        }
        usize::try_from(total).map(Some).map_err(|_| too_large)
    }

    fn item(&self, mut whole: Bytes) -> Item {
        if !self.keep_header {
            whole.advance(self.header);
        }
        Item::Frame(Frame { kind: FrameKind::Binary, body: whole })
    }
}

/// The bytes of a frame so far, header included; empty between frames.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    pub(super) fn decode(
        &mut self,
        framing: &LengthFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        if self.partial.is_empty()
            && let Some(total) = framing.total(max_frame, input)?
            && let Some(whole) = input.get(..total)
        {
            let seen = if framing.keep_header { whole } else { &whole[framing.header..] };
            let frame = Frame { kind: FrameKind::Binary, body: Bytes::copy_from_slice(seen) };
            return Ok((total, Some(Item::Frame(frame))));
        }
        let mut taken = 0;
        if self.partial.len() < framing.header {
            taken = self.keep(input, framing.header);
        }
        let Some(total) = framing.total(max_frame, &self.partial)? else { return Ok((taken, None)) };
        taken += self.keep(&input[taken..], total);
        if self.partial.len() < total {
            return Ok((taken, None));
        }
        let whole = Bytes::from(std::mem::take(&mut self.partial));
        Ok((taken, Some(framing.item(whole))))
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity()
    }

    /// Keeps bytes until there are `size`. Returns how many it took.
    fn keep(&mut self, input: &[u8], size: usize) -> usize {
        let taken = input.len().min(size.saturating_sub(self.partial.len()));
        grow(&mut self.partial, taken, size);
        self.partial.extend_from_slice(&input[..taken]);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMING: LengthFraming = LengthFraming {
        width: 2,
        offset: 1,
        endian: Endian::Big,
        header: 4,
        counts: LengthCounts::Body,
        keep_header: false,
    };

    fn check(framing: LengthFraming, max_frame: usize, input: &[u8], expected: Result<Option<&[u8]>, FrameError>) {
        assert!(framing.is_valid());
        let found = Decoder::default().decode(&framing, max_frame, input).map(|(taken, item)| {
            assert_eq!(taken, input.len());
            item.map(|item| match item {
                Item::Frame(Frame { kind: FrameKind::Binary, body }) => body,
                other => panic!("{other:?}"),
            })
        });
        assert_eq!(found, expected.map(|body| body.map(Bytes::copy_from_slice)), "{input:02x?}");
    }

    #[test]
    fn the_field_is_read_where_and_how_the_options_say() {
        check(FRAMING, 9, b"?\0\x02!hi", Ok(Some(b"hi")));
        check(FRAMING, 9, b"?\0\0!", Ok(Some(b"")));
        check(FRAMING, 9, b"?\0\x02!h", Ok(None));
        check(FRAMING, 9, b"?\0", Ok(None));
        check(LengthFraming { endian: Endian::Little, ..FRAMING }, 9, b"?\x02\0!hi", Ok(Some(b"hi")));
        check(LengthFraming { counts: LengthCounts::Frame, ..FRAMING }, 9, b"?\0\x06!hi", Ok(Some(b"hi")));
        check(LengthFraming { keep_header: true, ..FRAMING }, 9, b"?\0\x02!hi", Ok(Some(b"?\0\x02!hi")));
        check(LengthFraming::default(), 9, b"\0\0\0\x02hi", Ok(Some(b"hi")));
        let three = LengthFraming { width: 3, ..FRAMING };
        check(three, 9, b"?\0\0\x02hi", Ok(Some(b"hi")));
        check(LengthFraming { endian: Endian::Little, ..three }, 9, b"?\x02\0\0hi", Ok(Some(b"hi")));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let whole = LengthFraming { counts: LengthCounts::Frame, ..FRAMING };
        check(whole, 9, b"?\0\x04!", Ok(Some(b"")));
        check(whole, 9, b"?\0\x03!", Err(FrameError::LengthBelowHeader { length: 3, header: 4 }));
        check(FRAMING, 9, b"?\0\x0a!", Err(FrameError::TooLarge { size: 10, max: 9 }));
        let kept = LengthFraming { keep_header: true, ..FRAMING };
        check(kept, 9, b"?\0\x06!", Err(FrameError::TooLarge { size: 10, max: 9 }));
        let wide = LengthFraming { width: 8, header: 9, ..FRAMING };
        check(wide, usize::MAX, &[0xff; 9], Err(FrameError::TooLarge { size: u64::MAX, max: u64::MAX }));
    }

    #[test]
    fn a_reply_that_the_field_cannot_express_is_refused() {
        let head = |counts, len| LengthFraming { width: 1, offset: 0, header: 3, counts, ..FRAMING }.head(len);
        assert_eq!(&*head(LengthCounts::Body, 255).unwrap(), b"\xff\0\0");
        assert_eq!(head(LengthCounts::Body, 256), Err(BodyDoesNotFit::TooLong { len: 256, bits: 8 }));
        assert_eq!(&*head(LengthCounts::Frame, 252).unwrap(), b"\xff\0\0");
        assert_eq!(head(LengthCounts::Frame, 253), Err(BodyDoesNotFit::TooLong { len: 253, bits: 8 }));
        assert_eq!(head(LengthCounts::Frame, u64::MAX), Err(BodyDoesNotFit::TooLong { len: u64::MAX, bits: 8 }));
        assert_eq!(&*FRAMING.head(258).unwrap(), b"\0\x01\x02\0");
        let three = LengthFraming { width: 3, ..FRAMING };
        assert_eq!(&*three.head(0x01_0203).unwrap(), b"\0\x01\x02\x03");
        assert_eq!(three.head(1 << 24), Err(BodyDoesNotFit::TooLong { len: 1 << 24, bits: 24 }));
        assert!(LengthFraming { width: 8, header: 9, ..FRAMING }.head(u64::MAX).is_ok());
        let little = LengthFraming { endian: Endian::Little, header: 40, ..FRAMING };
        assert_eq!(&little.head(258).unwrap()[..], [&b"\0\x02\x01"[..], &[0; 37]].concat());
    }

    #[test]
    fn options_that_contradict_each_other_are_not_valid() {
        for framing in [
            LengthFraming { width: 5, ..FRAMING },
            LengthFraming { width: 0, ..FRAMING },
            LengthFraming { header: 2, ..FRAMING },
            LengthFraming { offset: 3, ..FRAMING },
            LengthFraming { offset: usize::MAX, ..FRAMING },
        ] {
            assert!(!framing.is_valid(), "{framing:?}");
        }
    }
}
