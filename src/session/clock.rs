//! The deadlines of a session, and the checks when the wheel calls.
//!
//! No client is judged before everything that has arrived is read: [`Session::poll_live`] checks the clock only when
//! there is nothing more to read. Time in which this node did not read, or in which nothing ran at all, does not count;
//! see [`super::wheel`].

use super::Session;
use super::liveness::Probes;
use super::wheel::{Tick, ticks};
use crate::outbox::Close;
#[cfg(test)]
use crate::outbox::faults::Fault;
use crate::proto::close::CloseReason;

/// The times of the last events, in ticks of the wheel.
pub(super) struct Clock {
    pub(super) opened: Tick,
    pub(super) last_frame: Tick,
    pub(super) last_bytes: Tick,
    /// When the frame began that the client is in the middle of.
    pub(super) frame_begun: Option<Tick>,
    /// Pings, or the probes of a heartbeat.
    pub(super) probes: Probes,
    /// The progress of the outbox when it stopped moving, and since when.
    pub(super) stalled: Option<(u32, Tick)>,
    /// The next time the wheel will call.
    pub(super) armed: Option<Tick>,
    /// The wheel has called. The checks wait until everything that has arrived by then is read.
    pub(super) is_due: bool,
    /// The session reads from the client. While it does not, a silence is not the client's.
    pub(super) is_listening: bool,
}

impl Clock {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            opened: now,
            last_frame: now,
            last_bytes: now,
            frame_begun: None,
            probes: Probes::default(),
            stalled: None,
            armed: None,
            is_due: false,
            is_listening: true,
        }
    }
}

impl Session {
    /// Checks every deadline.
    pub(super) fn look_at_clock(&mut self) {
        let now = self.endpoint.hub.wheel.now();
        let app = &self.endpoint.app;
        let is_idle = self.in_flight == 0 && self.ending.is_none();
        if is_idle && !app.idle_timeout.is_zero() && now - self.clock.last_frame >= ticks(app.idle_timeout) {
            self.outbox.ask_close(CloseReason::IdleTimeout.into());
        }
        if let Some((progress, since)) = self.clock.stalled {
            let queued = self.outbox.unwritten_bytes();
            #[cfg(test)]
            let queued = if Fault::HeldIsUnwritten.is_on() { self.outbox.queued_bytes() } else { queued };
            // Between two polls the client cannot take anything. `poll_gap` limits that time.
            if queued == 0 || self.is_away() {
                self.clock.stalled = None;
            } else if self.outbox.progress() != progress {
                self.clock.stalled = Some((self.outbox.progress(), now));
            } else if now - since >= ticks(app.send_timeout) {
                let detail = format!("client took nothing for {:?} while {queued} bytes waited", app.send_timeout);
                self.outbox.ask_close(Close::new(CloseReason::SlowReader).because(detail));
            }
        }
        self.look_at_frame(now);
        self.look_at_silence(now);
    }

    /// The outbox could not be emptied: from now on the clock checks whether it makes progress.
    pub(super) fn watch_stall(&mut self) {
        if self.clock.stalled.is_none() {
            self.clock.stalled = Some((self.outbox.progress(), self.endpoint.hub.wheel.now()));
            self.arm();
        }
    }

    /// Asks the wheel to call at the next deadline, unless it calls earlier anyway.
    pub(super) fn arm(&mut self) {
        let app = &self.endpoint.app;
        let idle = (!app.idle_timeout.is_zero()).then(|| self.clock.last_frame + ticks(app.idle_timeout));
        let stall = self.clock.stalled.map(|(_, since)| since + ticks(app.send_timeout));
        let dues = [idle, stall, self.probe_due(), self.frame_due(), self.pace_due()];
        if let Some(due) = dues.into_iter().flatten().min()
            && self.clock.armed.is_none_or(|armed| due < armed)
        {
            self.clock.armed = Some(self.endpoint.hub.wheel.arm(self.state.id, due));
        }
    }

    /// Restarts the deadlines for silence, because the session does not read or has not read. The silence was not the
    /// client's. A frame that waits for the session gets its full time again.
    pub(super) fn forgive_silence(&mut self) {
        self.not_listening();
        self.forgive_frame();
        self.clock.last_frame = self.endpoint.hub.wheel.now();
    }
}
