//! What a fan-out run knows of a subscriber, and of a message that is on its way.

use super::stamp::Sequence;

/// Somebody who is in a channel, or is to be.
#[derive(Default)]
pub(super) struct Subscriber {
    pub(super) is_open: bool,
    pub(super) has_joined: bool,
    pub(super) sequence: Sequence,
}

impl Subscriber {
    pub(super) fn is_live(&self) -> bool {
        self.is_open && self.has_joined
    }
}

/// A message that somebody has not got.
pub(super) struct Underway {
    pub(super) number: u64,
    pub(super) missing: usize,
}
