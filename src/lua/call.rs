//! What one call of a script is about: the session, its buffers, and what the script does with them.

use crate::proto::id::SessionId;

/// Handed to a VM with each call and taken back after it.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The number of this call in its VM: a buffer's handle is good for one call.
    pub(super) serial: u64,
    /// The number of the session: a connection's handle is the same in each of its calls.
    pub(super) session: u64,
    /// Its name.
    pub(super) id: Option<SessionId>,
    /// What `input` is: bytes received, or a body to be sent.
    pub(super) input: Buffer,
    /// What `fc.buffer` gives where that is not `input`: bytes received.
    pub(super) received: Option<Buffer>,
    /// What `output` is.
    pub(super) output: Vec<u8>,
    /// What the script sent by itself.
    pub(super) sent: Vec<u8>,
    /// The script closed the connection.
    pub(super) closes: bool,
    /// Bytes that `output` and `sent` may have together.
    pub(super) max_bytes: usize,
}

/// Something that a script has a handle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handle {
    Connection,
    Input,
    Output,
    /// The bytes received, in a call whose input is another.
    Received,
}

impl Call {
    /// A light userdata as a script holds it. It points nowhere: a number and two bits that tell what it is.
    pub(super) fn address(&self, handle: Handle) -> usize {
        match handle {
            Handle::Connection => self.session as usize * 4 + 1,
            Handle::Input => self.serial as usize * 4 + 2,
            Handle::Output => self.serial as usize * 4 + 3,
            Handle::Received => self.serial as usize * 4 + 4,
        }
    }

    /// What a handle is in this call; `None` for one of another call or another session.
    pub(super) fn find(&self, address: usize) -> Option<Handle> {
        [Handle::Connection, Handle::Input, Handle::Output, Handle::Received]
            .into_iter()
            .find(|handle| self.address(*handle) == address && self.id.is_some())
    }

    /// The bytes behind a handle.
    pub(super) fn bytes(&self, handle: Handle) -> Option<&[u8]> {
        match handle {
            Handle::Input => Some(self.input.as_slice()),
            Handle::Output => Some(&self.output),
            Handle::Received => self.received.as_ref().map(Buffer::as_slice),
            Handle::Connection => None,
        }
    }

    /// Whether so many bytes more may wait to be sent.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let held = self.output.len() + self.sent.len() + self.received.as_ref().map_or(0, |_| self.input.len());
        held.saturating_add(more) <= self.max_bytes
    }
}

/// Bytes that are taken from the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, start: 0 }
    }
}

impl Buffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Bytes of memory that it takes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds to the end. Memory doubles when it grows, but not past `bound`.
    pub(super) fn append(&mut self, more: &[u8], bound: usize) {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            let doubled = self.bytes.capacity().saturating_mul(2).min(bound);
            self.bytes.reserve_exact(doubled.max(needed) - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Takes bytes from the front, all if there are not so many.
    pub(super) fn seek(&mut self, count: usize) {
        self.start += count.min(self.len());
    }

    /// Keeps so many bytes and holds no more memory than for them.
    pub(super) fn keep_first(&mut self, count: usize) {
        if count == 0 {
            *self = Self::default();
            return;
        }
        self.bytes.truncate(self.start + count);
        self.bytes.drain(..self.start);
        self.start = 0;
    }
}
