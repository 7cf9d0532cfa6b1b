//! What a fan-out run knows of a subscriber, and of a message that is on its way.

use super::stamp::Sequence;

/// A client that is in a channel, or is to join one.
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
