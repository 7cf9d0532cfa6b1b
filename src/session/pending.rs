//! Frames and bytes that were read from a client and wait for their turn.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::proto::framing::Frame;

/// Frames that wait for the event in flight, then bytes that wait for room among the frames. It is one word in a
/// session for which nothing waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pending(Option<Box<Parts>>);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Parts {
    frames: VecDeque<Frame>,
    frame_bytes: usize,
    unread: Bytes,
}

impl Pending {
    /// How many frames.
    pub(super) fn frames(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.frames.len())
    }

    /// Bytes in these frames.
    pub(super) fn frame_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.frame_bytes)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.0.as_ref().is_some_and(|parts| !parts.unread.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, frame: Frame) {
        let parts = self.0.get_or_insert_default();
        parts.frame_bytes += frame.body.len();
        parts.frames.push_back(frame);
    }

    /// Takes the first frame.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let parts = self.0.as_mut()?;
        let frame = parts.frames.pop_front()?;
        parts.frame_bytes -= frame.body.len();
        self.shrink();
        Some(frame)
    }

    /// Drops the frames. Returns how many there were.
    pub(super) fn clear_frames(&mut self) -> usize {
        let Some(parts) = &mut self.0 else { return 0 };
        parts.frame_bytes = 0;
        let dropped = std::mem::take(&mut parts.frames).len();
        self.shrink();
        dropped
    }

    /// Takes the bytes that no frame was cut out of yet.
    pub(super) fn take_unread(&mut self) -> Bytes {
        let Some(parts) = &mut self.0 else { return Bytes::new() };
        let unread = std::mem::take(&mut parts.unread);
        self.shrink();
        unread
    }

    /// Keeps bytes for later, because there is no room for their frames now.
    pub(super) fn keep_unread(&mut self, bytes: Bytes) {
        self.0.get_or_insert_default().unread = bytes;
        self.shrink();
    }

    fn shrink(&mut self) {
        self.0.take_if(|parts| parts.frames.is_empty() && parts.unread.is_empty());
    }
}
