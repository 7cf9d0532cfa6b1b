//! What is due when, and what is looked at when the wheel calls.
//!
//! Nobody is judged before what had come by then is read: [`Session::poll_live`] looks at the clock when there is nothing to read any more. And
//! no time counts in which we did not read, or in which nothing ran at all; see [`super::wheel`].

use super::Session;
use super::liveness::Probes;
use super::wheel::{Tick, ticks};
use crate::outbox::Close;
#[cfg(test)]
use crate::outbox::faults::Fault;
use crate::proto::close::CloseReason;

/// When what happened, in ticks of the wheel.
pub(super) struct Clock {
    pub(super) opened: Tick,
    pub(super) last_frame: Tick,
    pub(super) last_bytes: Tick,
    /// The frame that the client is in the middle of.
    pub(super) frame_begun: Option<Tick>,
    /// Pings, or probes of a heartbeat.
    pub(super) probes: Probes,
    /// How far its outbox was when it was last seen not to move, and since when.
    pub(super) stalled: Option<(u32, Tick)>,
    /// The next time the wheel will call.
    pub(super) armed: Option<Tick>,
    /// The wheel has called, and what had come by then is still to be read: nobody is judged before.
    pub(super) is_due: bool,
    /// We read from the client. While we do not, silence is ours.
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
    /// What is due by now.
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
            // Between two polls nobody could take anything; how long that may last has a limit of its own.
            if queued == 0 || self.is_away() {
                self.clock.stalled = None;
            } else if self.outbox.progress() != progress {
                self.clock.stalled = Some((self.outbox.progress(), now));
            } else if now - since >= ticks(app.send_timeout) {
                let detail = format!("took nothing for {:?}, {queued} bytes wait", app.send_timeout);
                self.outbox.ask_close(Close::new(CloseReason::SlowReader).because(detail));
            }
        }
        self.look_at_frame(now);
        self.look_at_silence(now);
    }

    /// The outbox does not empty: from now on the clock watches whether it moves.
    pub(super) fn watch_stall(&mut self) {
        if self.clock.stalled.is_none() {
            self.clock.stalled = Some((self.outbox.progress(), self.endpoint.hub.wheel.now()));
            self.arm();
        }
    }

    /// Asks the wheel to call when the next thing is due, unless it calls before that anyway.
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

    /// We do not read, or did not: the silence was not the client's, and a frame that waits for us has its time before it.
    pub(super) fn forgive_silence(&mut self) {
        self.not_listening();
        self.forgive_frame();
        self.clock.last_frame = self.endpoint.hub.wheel.now();
    }
}
