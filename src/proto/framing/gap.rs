//! Gap framing: silence ends a frame, as on a serial line (Modbus RTU).
//!
//! There is no clock here. The caller has one, and calls [`super::Decoder::silence`] when nothing has arrived for the time that the
//! framing sets, or when input has ended.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::{Frame, FrameKind, Item, grow};

/// The bytes since the last silence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    pub(super) fn decode(&mut self, max_frame: usize, input: &[u8]) -> Result<(usize, Option<Item>), FrameError> {
        if input.len() > max_frame.saturating_sub(self.partial.len()) {
            return Err(FrameError::NoGap { max: max_frame as u64 });
        }
        grow(&mut self.partial, input.len(), max_frame);
        self.partial.extend_from_slice(input);
        Ok((input.len(), None))
    }

    /// Ends the frame and returns it, if one has begun.
    pub(super) fn silence(&mut self) -> Option<Item> {
        let body = Bytes::from(std::mem::take(&mut self.partial));
        (!body.is_empty()).then_some(Item::Frame(Frame { kind: FrameKind::Binary, body }))
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_comes_between_two_silences_however_it_is_split() {
        for size in 1..5 {
            let mut decoder = Decoder::default();
            assert_eq!(decoder.silence(), None, "silence before the first byte ends nothing");
            for frame in [&b"abcd"[..], b"e", b"fg"] {
                for piece in frame.chunks(size) {
                    assert_eq!(decoder.decode(4, piece), Ok((piece.len(), None)));
                    assert!(decoder.is_mid_frame() && decoder.buffered() <= 4);
                }
                let expected = Item::Frame(Frame { kind: FrameKind::Binary, body: frame.into() });
                assert_eq!(decoder.silence(), Some(expected));
                assert_eq!((decoder.silence(), decoder.buffered()), (None, 0));
            }
            decoder.decode(4, b"abcd").unwrap();
            assert_eq!(decoder.decode(4, b"e"), Err(FrameError::NoGap { max: 4 }));
        }
    }
}
