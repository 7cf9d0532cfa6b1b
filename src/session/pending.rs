//! What was read from a client and waits for its turn.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::proto::framing::Frame;

/// Frames that wait for the event in flight, and behind them bytes that wait for room among the frames. One word in a session
/// for which nothing waits.
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

    /// Bytes in these.
    pub(super) fn frame_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |parts| parts.frame_bytes)
    }

    pub(super) fn has_unread(&self) -> bool {
        self.0.as_ref().is_some_and(|parts| !parts.unread.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Behind the others.
    pub(super) fn push(&mut self, frame: Frame) {
        let parts = self.0.get_or_insert_default();
        parts.frame_bytes += frame.body.len();
        parts.frames.push_back(frame);
    }

    /// The first.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let parts = self.0.as_mut()?;
        let frame = parts.frames.pop_front()?;
        parts.frame_bytes -= frame.body.len();
        self.shrink();
        Some(frame)
    }

    /// Gives up the frames; says how many.
    pub(super) fn clear_frames(&mut self) -> usize {
        let Some(parts) = &mut self.0 else { return 0 };
        parts.frame_bytes = 0;
        let dropped = std::mem::take(&mut parts.frames).len();
        self.shrink();
        dropped
    }

    /// What no frame was cut out of yet; it is here no more.
    pub(super) fn take_unread(&mut self) -> Bytes {
        let Some(parts) = &mut self.0 else { return Bytes::new() };
        let unread = std::mem::take(&mut parts.unread);
        self.shrink();
        unread
    }

    /// There is no room for what is in these bytes.
    pub(super) fn keep_unread(&mut self, bytes: Bytes) {
        self.0.get_or_insert_default().unread = bytes;
        self.shrink();
    }

    fn shrink(&mut self) {
        self.0.take_if(|parts| parts.frames.is_empty() && parts.unread.is_empty());
    }
}
