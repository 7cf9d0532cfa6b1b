//! Finds starts of frames in a stream of bytes, and counts the bytes skipped between frames.

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::error::FrameError;

/// The place where the next frame may start: the first occurrence of `start`, or else a beginning of `start` at the very end of the bytes.
/// If there is neither, the number of bytes.
pub(super) fn find_start(start: &[u8], bytes: &[u8]) -> usize {
    memmem::find(bytes, start).unwrap_or_else(|| {
        let straddles = |n: &usize| start.starts_with(&bytes[bytes.len() - n..]);
        let longest = (1..start.len().min(bytes.len() + 1)).rev().find(straddles);
        bytes.len() - longest.unwrap_or(0)
    })
}

/// Whether `bytes` begin with `start`, or are a beginning of it.
pub(super) fn may_start(start: &[u8], bytes: &[u8]) -> bool {
    let n = start.len().min(bytes.len());
    bytes[..n] == start[..n]
}

/// Counts bytes that were not part of any frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Skipped {
    /// Since the last frame.
    in_a_row: usize,
    /// In all.
    pub(super) total: u64,
    /// Bytes that [`Skipped::take`] has not reported yet.
    untold: u64,
}

impl Skipped {
    /// Counts more skipped bytes. A peer that sends more than `max_frame` such bytes in a row does not speak the protocol.
    pub(super) fn add(&mut self, bytes: usize, max_frame: usize) -> Result<(), FrameError> {
        self.in_a_row = self.in_a_row.saturating_add(bytes);
        self.total += bytes as u64;
        self.untold += bytes as u64;
        match self.in_a_row > max_frame {
            true => Err(FrameError::NoFrameFound { max: max_frame as u64 }),
            false => Ok(()),
        }
    }

    /// A frame was found.
    pub(super) fn end(&mut self) {
        self.in_a_row = 0;
    }

    /// Bytes skipped since the last call.
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
