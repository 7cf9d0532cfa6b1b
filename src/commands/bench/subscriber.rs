//! The state of a subscriber in a fan-out run, and of a message that is on its way.

use super::stamp::Sequence;

/// A client that has joined its channel, or still has to.
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

/// A message that not every subscriber has got.
pub(super) struct Underway {
    pub(super) number: u64,
    pub(super) missing: usize,
}
