//! Delimiter framing: a byte string ends each frame.
//!
//! A delimiter inside a body cannot be escaped: whoever sends one sends two frames.

use bytes::Bytes;
use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::{Frame, FrameKind, Item, grow};

/// Swoole's `package_eof` in our words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DelimiterFraming {
    /// Ends each frame, in both directions; never empty.
    pub delimiter: Vec<u8>,
    /// Take one CR off the end of a received frame.
    pub strip_cr: bool,
}

impl Default for DelimiterFraming {
    /// Lines.
    fn default() -> Self {
        DelimiterFraming { delimiter: b"\n".to_vec(), strip_cr: false }
    }
}

impl DelimiterFraming {
    /// Where the first delimiter begins.
    fn find(&self, input: &[u8]) -> Option<usize> {
        match *self.delimiter.as_slice() {
            [one] => memchr(one, input),
            ref many => memmem::find(input, many),
        }
    }

    /// How many bytes of a delimiter at the end of `kept` go on at the start of `input`, if that makes a whole one.
    fn find_straddling(&self, kept: &[u8], input: &[u8]) -> Option<usize> {
        // The longest part in `kept` first: that delimiter begins first.
        (1..self.delimiter.len()).rev().find(|&n| {
            let (left, right) = self.delimiter.split_at(n);
            kept.ends_with(left) && input.starts_with(right)
        })
    }

    fn body<'a>(&self, max_frame: usize, before: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let body = if self.strip_cr { before.strip_suffix(b"\r").unwrap_or(before) } else { before };
        if body.len() > max_frame {
            return Err(FrameError::Unended { max: max_frame as u64 });
        }
        Ok(body)
    }

    /// Bytes that may wait for the rest of a frame: the body, its CR, and a delimiter that lacks its last byte.
    fn most_kept(&self, max_frame: usize) -> usize {
        max_frame.saturating_add(usize::from(self.strip_cr)).saturating_add(self.delimiter.len() - 1)
    }
}

/// What has arrived of a frame; no whole delimiter is ever in it, so its last bytes are all that must be looked at
/// again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    partial: Vec<u8>,
}

impl Decoder {
    pub(super) fn decode(
        &mut self,
        framing: &DelimiterFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        if let Some(left) = framing.find_straddling(&self.partial, input) {
            let mut frame = std::mem::take(&mut self.partial);
            frame.truncate(frame.len() - left);
            let body = framing.body(max_frame, &frame)?.len();
            frame.truncate(body);
            return Ok((framing.delimiter.len() - left, Some(item(frame.into()))));
        }
        if let Some(at) = framing.find(input) {
            let taken = at + framing.delimiter.len();
            if self.partial.is_empty() {
                let body = framing.body(max_frame, &input[..at])?;
                return Ok((taken, Some(item(Bytes::copy_from_slice(body)))));
            }
            self.keep(framing, max_frame, &input[..at])?;
            let mut frame = std::mem::take(&mut self.partial);
            let body = framing.body(max_frame, &frame)?.len();
            frame.truncate(body);
            return Ok((taken, Some(item(frame.into()))));
        }
        self.keep(framing, max_frame, input)?;
        Ok((input.len(), None))
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity()
    }

    fn keep(&mut self, framing: &DelimiterFraming, max_frame: usize, input: &[u8]) -> Result<(), FrameError> {
        let bound = framing.most_kept(max_frame);
        if input.len() > bound.saturating_sub(self.partial.len()) {
            return Err(FrameError::Unended { max: max_frame as u64 });
        }
        grow(&mut self.partial, input.len(), bound);
        self.partial.extend_from_slice(input);
        Ok(())
    }
}

fn item(body: Bytes) -> Item {
    Item::Frame(Frame { kind: FrameKind::Text, body })
}
