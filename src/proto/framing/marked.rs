//! Starts of frames in a stream of bytes, and what is skipped between frames.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::error::FrameError;

/// Where the next frame may start: the first place, from the front, where `start` stands or where the bytes end in the middle
/// of one; the number of bytes when there is none.
pub(super) fn find_start(start: &[u8], bytes: &[u8]) -> usize {
    memmem::find(bytes, start).unwrap_or_else(|| {
        let straddles = |n: &usize| start.starts_with(&bytes[bytes.len() - n..]);
        let longest = (1..start.len().min(bytes.len() + 1)).rev().find(straddles);
        bytes.len() - longest.unwrap_or(0)
    })
}

/// Whether `bytes` begin with `start`, as far as they go.
pub(super) fn may_start(start: &[u8], bytes: &[u8]) -> bool {
    let n = start.len().min(bytes.len());
    bytes[..n] == start[..n]
}

/// Bytes that were no part of any frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Skipped {
    /// Since the last frame.
    in_a_row: usize,
    /// In all.
    pub(super) total: u64,
    /// Those that nobody has asked for yet.
    untold: u64,
}

impl Skipped {
    /// More of them. A peer that sends as many as a frame may have bytes, and no frame, does not speak the protocol.
    pub(super) fn add(&mut self, bytes: usize, max_frame: usize) -> Result<(), FrameError> {
        self.in_a_row = self.in_a_row.saturating_add(bytes);
        self.total += bytes as u64;
        self.untold += bytes as u64;
        match self.in_a_row > max_frame {
            true => Err(FrameError::NothingButGarbage { max: max_frame as u64 }),
            false => Ok(()),
        }
    }

    /// A frame was found.
    pub(super) fn end(&mut self) {
        self.in_a_row = 0;
    }

    /// Those since the last time.
    pub(super) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_found_whole_or_begun() {
        for (start, bytes, expected) in [
            ("xx", "", 0),
            ("xx", "abc", 3),
            ("xx", "abcx", 3),
            ("xx", "axbxx", 3),
            ("xx", "xxx", 0),
            ("xyxz", "axyxyx", 3),
            ("x", "ab", 2),
            ("x", "abx", 2),
            ("abc", "ab", 0),
        ] {
            assert_eq!(find_start(start.as_bytes(), bytes.as_bytes()), expected, "{start} in {bytes}");
        }
    }
}
