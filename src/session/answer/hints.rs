//! Warnings about replies that look like a mistake. Each is logged once per endpoint, because the reply may be intended
//! after all.

use std::sync::atomic::{AtomicU8, Ordering};

use tracing::warn;

use super::EventInfo;

/// The mistakes that are recognized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The script is saved with a byte order mark before `<?php`, which PHP prints.
    ByteOrderMark = 1,
    /// `json_encode()` returns `false` for text that is not UTF-8, and `echo false` prints nothing.
    EmptyJson = 2,
}

impl Hint {
    /// The bytes that some editors write at the beginning of a UTF-8 file.
    pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

    const fn text(self) -> &'static str {
        match self {
            Hint::ByteOrderMark => {
                "the reply begins with a byte order mark (EF BB BF): save the script and the files that it includes without one"
            }
            Hint::EmptyJson => {
                "the answer is application/json and empty, so nothing is sent: json_encode() returns false for text that is not UTF-8 \
                 (GBK, Latin-1); json_last_error_msg() gives the reason"
            }
        }
    }
}

/// The hints that were logged, one bit each.
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
