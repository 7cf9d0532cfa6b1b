//! Silence that ends a frame ([`Framing::Gap`]).
//!
//! It is measured with tokio's timer, to about a millisecond: the wheel of sessions is a hundred times as coarse. Only a
//! session in the middle of such a frame has a timer. What can be read is read before silence is believed: a node that comes late to its
//! sockets takes two frames for one rather than cut one in two, because a peer that waits for its answer sends no second one.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Session;
use crate::proto::framing::Framing;

/// When the silence of a session is long enough; nothing at rest.
#[derive(Debug, Default)]
pub(super) struct Gap(Option<Pin<Box<Sleep>>>);

impl Session {
    /// Bytes have come: silence begins.
    pub(super) fn begin_gap(&mut self) {
        let Framing::Gap(silence) = *self.outbox.framing() else { return };
        if !self.state.decoder.is_mid_frame() {
            return;
        }
        let end = Instant::now() + silence;
        match &mut self.gap.0 {
            Some(sleep) => sleep.as_mut().reset(end),
            none => *none = Some(Box::pin(sleep_until(end))),
        }
    }

    /// There is nothing to read: takes the frame that this ends, if it has lasted long enough. True when there was one.
    pub(super) fn poll_gap(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(sleep) = &mut self.gap.0 else { return false };
        match sleep.as_mut().poll(cx) {
            Poll::Pending => false,
            Poll::Ready(()) => {
                self.end_by_silence();
                true
            }
        }
    }

    /// Nothing has come for long enough, or nothing will.
    pub(super) fn end_by_silence(&mut self) {
        self.gap = Gap::default();
        if let Some(item) = self.state.decoder.silence() {
            self.take_item(item);
            self.note_frame();
        }
    }
}
