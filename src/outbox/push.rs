//! A frame that is pushed to a session, and what becomes of it.

use std::sync::Arc;

use bytes::Bytes;

use super::Topic;
use crate::config::model::SlowReader;

/// One encoded frame on its way to a session; the frame may be shared with other sessions.
#[derive(Clone, Debug)]
pub struct Push<'a> {
    /// Head, body and tail.
    pub frame: Bytes,
    /// The rule of its channel, if that has one of its own.
    pub rule: Option<SlowReader>,
    /// What it may be replaced by.
    pub topic: &'a Arc<Topic>,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the frame itself.
    pub fate: Fate,
    /// Older frames that made room for it.
    pub dropped_oldest: u32,
    /// Older frames of the same topic that it replaces.
    pub dropped_latest: u32,
}

impl From<Fate> for Pushed {
    fn from(fate: Fate) -> Self {
        Self { fate, dropped_oldest: 0, dropped_latest: 0 }
    }
}

/// What became of a pushed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The socket has it.
    Written,
    /// It waits for the client to read.
    Queued,
    /// The outbox was full, and the session is being closed for it.
    DroppedClose,
    /// The outbox was full, and this frame was the one to go.
    DroppedNewest,
    /// The session has ended.
    Gone,
}
