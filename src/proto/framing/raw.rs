//! Raw framing: the bytes of each read are a frame.
//!
//! There is nothing to decode and nothing to keep. A frame ends where a read ended, or at the limit. A read above the limit is cut, not
//! refused: without boundaries no frame can be too large.

use bytes::Bytes;

use super::{Frame, FrameKind, Item};

pub(super) fn decode(max_frame: usize, input: &[u8]) -> (usize, Option<Item>) {
    // With a limit of zero the caller would loop forever, because nothing would be taken.
    let taken = input.len().min(max_frame.max(1));
    if taken == 0 {
        return (0, None);
    }
    let body = Bytes::copy_from_slice(&input[..taken]);
    (taken, Some(Item::Frame(Frame { kind: FrameKind::Binary, body })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_a_frame_cut_at_the_limit_and_nothing_is_none() {
        let frame = |body: &'static [u8]| Some(Item::Frame(Frame { kind: FrameKind::Binary, body: body.into() }));
        assert_eq!(decode(4, b"abc"), (3, frame(b"abc")));
        assert_eq!(decode(4, b"abcdef"), (4, frame(b"abcd")));
        assert_eq!(decode(0, b"ab"), (1, frame(b"a")));
        assert_eq!(decode(4, b""), (0, None));
    }
}
