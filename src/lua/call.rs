//! The data of one call of a script: the session, its buffers, and the script's output.

use crate::proto::id::SessionId;

/// Passed to a VM with each call and returned after it.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The number of this call in its VM: the handle of a buffer is valid for one call.
    pub(super) serial: u64,
    /// The number of the session: the handle of a connection is the same in all calls of its session.
    pub(super) session: u64,
    /// The session id; `None` outside of a call.
    pub(super) id: Option<SessionId>,
    /// The script's `input`: bytes received, or a body to send.
    pub(super) input: Buffer,
    /// The bytes received, for `fc.buffer`, if `input` is a body.
    pub(super) received: Option<Buffer>,
    /// The script's `output`.
    pub(super) output: Vec<u8>,
    /// Bytes that the script sent with `fc.send`.
    pub(super) sent: Vec<u8>,
    /// The script closed the connection.
    pub(super) closes: bool,
    /// The most bytes that the script may keep here to send; see [`Call::has_room`].
    pub(super) max_bytes: usize,
}

/// An object for which a script has a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handle {
    Connection,
    Input,
    Output,
    /// The bytes received, in a call whose input is a body.
    Received,
}

impl Call {
    /// The value of a light userdata that the script gets. It is not a pointer: it is a number, and two bits for the type.
    pub(super) fn address(&self, handle: Handle) -> usize {
        match handle {
            Handle::Connection => self.session as usize * 4 + 1,
            Handle::Input => self.serial as usize * 4 + 2,
            Handle::Output => self.serial as usize * 4 + 3,
            Handle::Received => self.serial as usize * 4 + 4,
        }
    }

    /// The object of a handle in this call; `None` if the handle belongs to another call or another session.
    pub(super) fn find(&self, address: usize) -> Option<Handle> {
        [Handle::Connection, Handle::Input, Handle::Output, Handle::Received]
            .into_iter()
            .find(|handle| self.address(*handle) == address && self.id.is_some())
    }

    /// The bytes that a handle refers to.
    pub(super) fn bytes(&self, handle: Handle) -> Option<&[u8]> {
        match handle {
            Handle::Input => Some(self.input.as_slice()),
            Handle::Output => Some(&self.output),
            Handle::Received => self.received.as_ref().map(Buffer::as_slice),
            Handle::Connection => None,
        }
    }

    /// Whether this many more bytes may be kept to send.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let held = self.output.len() + self.sent.len() + self.received.as_ref().map_or(0, |_| self.input.len());
        held.saturating_add(more) <= self.max_bytes
    }
}

/// A buffer from whose front bytes are taken.
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

    /// Its memory in bytes.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes. The capacity doubles when it grows, but not past `bound`.
    pub(super) fn append(&mut self, more: &[u8], bound: usize) {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            let doubled = self.bytes.capacity().saturating_mul(2).min(bound);
            self.bytes.reserve_exact(doubled.max(needed) - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
    }

    /// Drops `count` bytes from the front, or all if there are fewer.
    pub(super) fn seek(&mut self, count: usize) {
        self.start += count.min(self.len());
    }

    /// Keeps the first `count` bytes and drops the others; keeping none frees the memory.
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
