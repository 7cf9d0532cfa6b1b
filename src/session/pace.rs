//! Limits on how fast a client may send, and on how long a frame may take.
//!
//! A session of an app with rate limits has two buckets, for frames and for bytes. Other sessions have none. Everything
//! that comes is charged, even if there are not enough tokens for it. While tokens are owed, the app's rule applies:
//! either the session is closed, or it is not read until the debt is paid, and TCP slows the client down. The wheel
//! wakes a session that waits, so it may wait up to a tick longer than it must.
//!
//! A frame that has begun must continue and end in time. Otherwise a client that begins frames and never ends them
//! would hold memory for as long as it likes. Time in which the session does not read does not count.

use std::time::Duration;

use super::Session;
use super::limits::Bucket;
use super::wheel::{Tick, ticks};
use crate::config::model::{Limit, RateRule};
use crate::outbox::Close;
use crate::proto::close::CloseReason;

/// The state of a session's rate limits.
pub(super) struct Pace {
    frames: Bucket,
    bytes: Bucket,
    /// Nothing is read until the debt is paid.
    is_held: bool,
}

impl Session {
    /// Makes the buckets, if the app limits rates.
    pub(super) fn new_pace(&self) -> Option<Box<Pace>> {
        let app = &self.endpoint.app;
        let now = self.endpoint.hub.passed_limits.now();
        (app.frame_rate.is_bound() || app.byte_rate.is_bound()).then(|| {
            let (frames, bytes) = (Bucket::full(app.frame_rate, now), Bucket::full(app.byte_rate, now));
            Box::new(Pace { frames, bytes, is_held: false })
        })
    }

    /// Charges bytes that have come.
    pub(super) fn charge_bytes(&mut self, bytes: usize) {
        self.charge(Limit::MaxBytesPerSecond, bytes);
    }

    /// Charges one frame. Pings and pongs count too.
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
                let detail = format!("client exceeded {1} = {0}", rate.per_second, limit.label());
                self.end_input(Box::new(Close::new(CloseReason::RateLimit).because(detail)));
            }
        }
    }

    /// Whether the client has to wait. It checks whether the client has waited long enough.
    pub(super) fn is_held_back(&mut self) -> bool {
        let Some(pace) = self.pace.as_mut().filter(|pace| pace.is_held) else { return false };
        let (app, now) = (&self.endpoint.app, self.endpoint.hub.passed_limits.now());
        pace.is_held = pace.frames.wait(app.frame_rate, now).max(pace.bytes.wait(app.byte_rate, now)) > 0;
        pace.is_held
    }

    /// Whether the client had to wait at the last check.
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

    /// Updates the start time of the current frame after bytes were read.
    pub(super) fn note_frame(&mut self) {
        if !self.state.decoder.is_mid_frame() {
            self.clock.frame_begun = None;
        } else if self.clock.frame_begun.is_none() {
            self.clock.frame_begun = Some(self.endpoint.hub.wheel.now());
            self.arm();
        }
    }

    /// The deadline by which the current frame must have continued or ended.
    pub(super) fn frame_due(&self) -> Option<Tick> {
        let begun = self.clock.frame_begun?;
        let app = &self.endpoint.app;
        let due = |since: Tick, patience: Duration| (!patience.is_zero()).then(|| since + ticks(patience));
        let (idle, whole) = (due(self.clock.last_bytes, app.frame_idle_timeout), due(begun, app.frame_timeout));
        idle.into_iter().chain(whole).min()
    }

    /// Ends a session whose current frame has missed its deadline.
    pub(super) fn look_at_frame(&mut self, now: Tick) {
        if self.ending.is_some() || self.frame_due().is_none_or(|due| now < due) {
            return;
        }
        let is_silent = now - self.clock.last_bytes >= ticks(self.endpoint.app.frame_idle_timeout);
        let (limit, detail) = match is_silent && !self.endpoint.app.frame_idle_timeout.is_zero() {
            true => (Limit::FrameIdleTimeout, "the frame did not continue within frame_idle_timeout"),
            false => (Limit::FrameTimeout, "the frame did not end within frame_timeout"),
        };
        // Count it once for each frame, also in a dry run.
        self.clock.frame_begun = None;
        if self.endpoint.hub.passed_limits.acts_on(limit, self.state.peer.into()) {
            self.outbox.ask_close(Close::new(CloseReason::FrameTimeout).because(detail));
        }
    }

    /// Gives the current frame its full time again, because the session does not read.
    pub(super) fn forgive_frame(&mut self) {
        if let Some(begun) = &mut self.clock.frame_begun {
            *begun = self.endpoint.hub.wheel.now();
        }
    }
}
