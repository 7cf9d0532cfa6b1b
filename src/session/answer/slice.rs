//! The slice of a body that is the reply, cut while the body comes: `Content-Length`, and a `Content-Offset` that is
//! not negative.

use super::Fault;
use super::head::Head;

/// Bytes to skip, then bytes to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    skip: u64,
    announced: Option<u64>,
    left: Option<u64>,
}

impl Slice {
    pub(super) fn of(head: &Head) -> Self {
        let announced = head.content_length;
        Self { skip: u64::try_from(head.content_offset).unwrap_or(0), announced, left: announced }
    }

    /// `Content-Length`.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Skips the next `bytes` bytes.
    pub(super) fn skip(&mut self, bytes: u64) {
        self.skip = bytes;
    }

    /// The part of these bytes of the body that belongs to the reply.
    pub(super) fn take<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let skipped = self.skip.min(data.len() as u64);
        self.skip -= skipped;
        let data = &data[skipped as usize..];
        match &mut self.left {
            None => data,
            Some(left) => {
                let taken = (*left).min(data.len() as u64);
                *left -= taken;
                &data[..taken as usize]
            }
        }
    }

    /// Whether the reply is complete. No further bytes belong to it.
    pub(super) fn is_through(&self) -> bool {
        self.left == Some(0)
    }

    /// Fails if fewer bytes came than were announced.
    pub(super) fn check_whole(&self) -> Result<(), Fault> {
        match (self.announced, self.left) {
            (Some(announced), Some(missing @ 1..)) => Err(Fault::Short { announced, missing }),
            _ => Ok(()),
        }
    }
}
