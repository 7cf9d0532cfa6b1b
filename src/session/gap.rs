//! Silence that ends a frame ([`Framing::Gap`]).
//!
//! It is measured with tokio's timer, to about a millisecond: the wheel of sessions is a hundred times coarser. Only a
//! session in the middle of such a frame has a timer. Everything readable is read before the silence counts. So a node
//! that comes late to its sockets may take two frames for one, but it does not cut one frame in two. Two frames at once
//! are rare, because a peer that waits for its answer sends no second one.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Session;
use crate::proto::framing::Framing;

/// The timer that fires when the silence is long enough. `None` at rest.
#[derive(Debug, Default)]
pub(super) struct Gap(Option<Pin<Box<Sleep>>>);

impl Session {
    /// Restarts the silence after bytes have come.
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

    /// Called when there is nothing to read. If the silence has lasted long enough, it ends the frame. Returns true in
    /// that case.
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

    /// Ends the frame, because nothing has come for long enough or nothing more will come.
    pub(super) fn end_by_silence(&mut self) {
        self.gap = Gap::default();
        if let Some(item) = self.state.decoder.silence() {
            self.take_item(item);
            self.note_frame();
        }
    }
}
