//! How fast a client may send, and how long a frame may take.
//!
//! Two buckets for each session of an app that bounds its rates, and nothing for any other. What has come is charged, whether there
//! were tokens for it or not; while some are owed the app's rule counts: the session is not read until they are paid, which TCP
//! tells the client, or it is closed. The wheel wakes a session that waits, so it may wait a tick longer than it must.
//!
//! A frame that has begun has to go on and to end, or whoever begins frames and never ends them would hold memory for as long
//! as it likes. Time in which we do not read is ours.

use std::time::Duration;

use super::Session;
use super::limits::Bucket;
use super::wheel::{Tick, ticks};
use crate::config::model::{Limit, RateRule};
use crate::outbox::Close;
use crate::proto::close::CloseReason;

/// What is left of a session's rates.
pub(super) struct Pace {
    frames: Bucket,
    bytes: Bucket,
    /// Nothing is read until the wheel has come round.
    is_held: bool,
}

impl Session {
    /// For a session of an app that bounds rates.
    pub(super) fn new_pace(&self) -> Option<Box<Pace>> {
        let app = &self.endpoint.app;
        let now = self.endpoint.hub.passed_limits.now();
        (app.frame_rate.is_bound() || app.byte_rate.is_bound()).then(|| {
            let (frames, bytes) = (Bucket::full(app.frame_rate, now), Bucket::full(app.byte_rate, now));
            Box::new(Pace { frames, bytes, is_held: false })
        })
    }

    /// Bytes have come.
    pub(super) fn charge_bytes(&mut self, bytes: usize) {
        self.charge(Limit::MaxBytesPerSecond, bytes);
    }

    /// A frame has come, be it one that only asks whether we are there.
    pub(super) fn charge_frame(&mut self) {
        self.charge(Limit::MaxFramesPerSecond, 1);
    }

    fn charge(&mut self, limit: Limit, tokens: usize) {
        let Some(pace) = &mut self.pace else { return };
        let (app, passed) = (&self.endpoint.app, &self.endpoint.hub.passed_limits);
        let (bucket, rate) = match limit {
            Limit::MaxBytesPerSecond => (&mut pace.bytes, app.byte_rate),
            _ => (&mut pace.frames, app.frame_rate),
        };
        if bucket.charge(rate, tokens, passed.now()) || pace.is_held {
            return;
        }
        if !passed.acts_on(limit, self.state.peer.into()) {
            bucket.forgive();
            return;
        }
        match app.rate_rule {
            RateRule::Wait => {
                pace.is_held = true;
                self.arm();
            }
            RateRule::Close => {
                let detail = format!("more than {} {}", rate.per_second, limit.label());
                self.end_input(Box::new(Close::new(CloseReason::RateLimit).because(detail)));
            }
        }
    }

    /// Whether the client has to wait; looks whether it has waited long enough.
    pub(super) fn is_held_back(&mut self) -> bool {
        let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_held) else { return false };
        let (app, now) = (&self.endpoint.app, self.endpoint.hub.passed_limits.now());
        pace.is_held = pace.frames.wait(app.frame_rate, now).max(pace.bytes.wait(app.byte_rate, now)) > 0;
        pace.is_held
    }

    /// Whether the client had to wait when that was last looked at.
    pub(super) fn is_held(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.is_held)
    }

    /// When a client that has to wait may go on.
    pub(super) fn pace_due(&mut self) -> Option<Tick> {
        let pace = self.pace.as_mut().filter(|pace| pace.is_held)?;
        let (app, now) = (&self.endpoint.app, self.endpoint.hub.passed_limits.now());
        let wait = pace.frames.wait(app.frame_rate, now).max(pace.bytes.wait(app.byte_rate, now));
        Some(self.endpoint.hub.wheel.now() + ticks(Duration::from_millis(wait)))
    }

    /// What was read may have begun a frame, gone on with one, or ended it.
    pub(super) fn note_frame(&mut self) {
        if !self.state.decoder.is_mid_frame() {
            self.clock.frame_begun = None;
        } else if self.clock.frame_begun.is_none() {
            self.clock.frame_begun = Some(self.endpoint.hub.wheel.now());
            self.arm();
        }
    }

    /// When a frame that has begun has to have gone on, or ended.
    pub(super) fn frame_due(&self) -> Option<Tick> {
        let begun = self.clock.frame_begun?;
        let app = &self.endpoint.app;
        let due = |since: Tick, patience: Duration| (!patience.is_zero()).then(|| since + ticks(patience));
        let (idle, whole) = (due(self.clock.last_bytes, app.frame_idle_timeout), due(begun, app.frame_timeout));
        idle.into_iter().chain(whole).min()
    }

    /// Ends a session whose frame does not.
    pub(super) fn look_at_frame(&mut self, now: Tick) {
        if self.ending.is_some() || self.frame_due().is_none_or(|due| now < due) {
            return;
        }
        let is_silent = now - self.clock.last_bytes >= ticks(self.endpoint.app.frame_idle_timeout);
        let (limit, detail) = match is_silent && !self.endpoint.app.frame_idle_timeout.is_zero() {
            true => (Limit::FrameIdleTimeout, "it did not go on"),
            false => (Limit::FrameTimeout, "it did not end"),
        };
        // Once for each frame, also where nothing follows from it.
        self.clock.frame_begun = None;
        if self.endpoint.hub.passed_limits.acts_on(limit, self.state.peer.into()) {
            self.outbox.ask_close(Close::new(CloseReason::FrameTimeout).because(detail));
        }
    }

    /// We do not read: a frame that waits for that has its time before it.
    pub(super) fn forgive_frame(&mut self) {
        if let Some(begun) = &mut self.clock.frame_begun {
            *begun = self.endpoint.hub.wheel.now();
        }
    }
}
