//! What a reply looks like that its author did not mean, told once for each entrance to an app: it may be meant after all.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::warn;

use super::EventInfo;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The script is saved with one before `<?php`, which PHP prints.
    ByteOrderMark = 1,
    /// `json_encode()` gives `false` for text that is not UTF-8, and `echo false` prints nothing.
    EmptyJson = 2,
}

impl Hint {
    /// What an editor writes before UTF-8.
    pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

    const fn text(self) -> &'static str {
        match self {
            Hint::ByteOrderMark => {
                "the reply begins with a byte order mark (EF BB BF): save the script without one before <?php, and what it includes"
            }
            Hint::EmptyJson => {
                "the answer is application/json and empty, so nothing is sent: json_encode() gives false for text that is not UTF-8 \
                 (GBK, Latin-1), json_last_error_msg() says why"
            }
        }
    }
}

/// Which were told.
#[derive(Debug, Default)]
pub(in crate::session) struct Hints(AtomicU8);

impl EventInfo {
    pub(super) fn hint(&self, hint: Hint) {
        let bit = hint as u8;
        if self.endpoint.hints.0.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            warn!(session = self.id.map(tracing::field::display), script = %self.endpoint.app.script.display(), "{}", hint.text());
        }
    }
}
