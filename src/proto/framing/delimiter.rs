//! Delimiter framing: a byte string ends each frame.
//!
//! A delimiter inside a body cannot be escaped: a body that contains one becomes two frames.

use bytes::Bytes;
use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::{Frame, FrameKind, Item, grow};

/// The equivalent of Swoole's `package_eof` options.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DelimiterFraming {
    /// The bytes that end each frame, in both directions; never empty.
    pub delimiter: Vec<u8>,
    /// Remove one CR from the end of a received frame.
    pub strip_cr: bool,
}

impl Default for DelimiterFraming {
    /// Lines that end with LF.
    fn default() -> Self {
        DelimiterFraming { delimiter: b"\n".to_vec(), strip_cr: false }
    }
}

impl DelimiterFraming {
    /// The position of the first delimiter.
    fn find(&self, input: &[u8]) -> Option<usize> {
        match *self.delimiter.as_slice() {
            [one] => memchr(one, input),
            ref many => memmem::find(input, many),
        }
    }

    /// If a delimiter begins at the end of `kept` and ends at the start of `input`: how many of its bytes are in `kept`.
    fn find_straddling(&self, kept: &[u8], input: &[u8]) -> Option<usize> {
        // The longest part in `kept` comes first, because that delimiter begins first.
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

    /// The most bytes of an unfinished frame that may be kept: the body, its CR, and a delimiter without its last byte.
    fn most_kept(&self, max_frame: usize) -> usize {
        max_frame.saturating_add(usize::from(self.strip_cr)).saturating_add(self.delimiter.len() - 1)
    }
}

/// The bytes of a frame so far. They never contain a whole delimiter, so only the last ones must be searched again.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4;

    /// Checks the frames in `input`, given in pieces of each size, and whether bytes are left over or an error occurs.
    fn check(delimiter: &str, strip_cr: bool, input: &str, bodies: &[&str], end: Result<bool, FrameError>) {
        let framing = DelimiterFraming { delimiter: delimiter.into(), strip_cr };
        for size in 1..=input.len() {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            let mut result = Ok(false);
            'pieces: for mut piece in input.as_bytes().chunks(size) {
                loop {
                    match decoder.decode(&framing, MAX, piece) {
                        Ok((taken, Some(Item::Frame(Frame { kind: FrameKind::Text, body })))) => {
                            piece = &piece[taken..];
                            found.push(String::from_utf8(body.into()).unwrap());
                        }
                        Ok((taken, None)) => {
                            assert_eq!(taken, piece.len());
                            result = Ok(decoder.is_mid_frame());
                            break;
                        }
                        Ok(other) => panic!("{other:?}"),
                        Err(error) => {
                            result = Err(error);
                            break 'pieces;
                        }
                    }
                }
            }
            assert_eq!(found, bodies, "{input:?} by {size}");
            assert_eq!(result, end, "{input:?} by {size}");
        }
    }

    #[test]
    fn frames_end_at_the_first_delimiter() {
        check("\n", false, "a\n\nbc\nd", &["a", "", "bc"], Ok(true));
        check("\n", false, "a\r\n", &["a\r"], Ok(false));
        check("\r\n", false, "a\n\r\r\nb\r\n", &["a\n\r", "b"], Ok(false));
        check("aab", false, "aaab", &["a"], Ok(false));
        check("abab", false, "ababababab", &["", ""], Ok(true));
        check("aa", false, "aaaaa", &["", ""], Ok(true));
        // In pieces of three, the second piece could end two different delimiters.
        check("aaa", false, "baaaaa", &["b"], Ok(true));
    }

    #[test]
    fn one_cr_is_taken_off_when_asked() {
        check("\n", true, "a\r\nb\n\r\n\r\r\n", &["a", "b", "", "\r"], Ok(false));
        check("\r", true, "a\r\r", &["a", ""], Ok(false));
    }

    #[test]
    fn the_limit_counts_the_body_alone() {
        let unended = Err(FrameError::Unended { max: MAX as u64 });
        check("\n", false, "abcd\n", &["abcd"], Ok(false));
        check("\n", false, "abcde\n", &[], unended);
        check("\n", false, "abcde", &[], unended);
        check("\n", true, "abcd\r\n", &["abcd"], Ok(false));
        check("\n", true, "abcd\r\r\n", &[], unended);
        check("\n", true, "abcde\n", &[], unended);
        check("--end", false, "abcd--end", &["abcd"], Ok(false));
        check("--end", false, "abcd--enabcd", &[], unended);
        check("--end", false, "a--end\u{20}bcde--end", &["a"], unended);
    }
}
