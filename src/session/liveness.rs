//! Checks whether a silent client is still there: WebSocket pings, the heartbeat of a stream listener, and clients over
//! HTTP.
//!
//! ```text
//!           silence for `after`          `every` without an answer, fewer than max_unanswered
//!   quiet ----------------------> asked ------------------------------------------------------> asked
//!     ^                             |  \
//!     '-----------------------------'   '-- max_unanswered of them unanswered: PeerTimeout
//!        an answer, or the session did not listen
//! ```
//!
//! Any bytes end a silence. The heartbeat's settings say whether they also answer a probe. Two kinds of silence are not
//! the client's, and restart the timer: while its queue of frames is full, the session does not read; while bytes wait
//! for the client or a reply streams, the client would not see a stream's probe.
//!
//! Frames that belong to a heartbeat are handled here only. PHP does not see them, they are not counted, and they do
//! not reset `idle_timeout`.
//!
//! A client over HTTP is not probed. Its stream gets a comment now and then, for proxies that drop silent connections.
//! A polling client must send its next poll within `poll_gap`.

use std::time::Duration;

use super::Session;
use super::endpoint::HttpSettings;
use super::wheel::{Tick, ticks};
use crate::metrics::ListenerLabels;
use crate::outbox::Close;
use crate::proto::close::CloseReason;
use crate::proto::heartbeat::Ask;

/// The probes that were sent. It takes twelve bytes in every session, even if it is never probed.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// How many in a row are unanswered.
    unanswered: u8,
    /// When the last of these was sent.
    asked: Tick,
    /// How many heartbeat probes were sent in all, which is the number of the next one.
    sent: u32,
}

impl Probes {
    /// When the last probe was sent, if it is unanswered.
    fn pending(&self) -> Option<Tick> {
        (self.unanswered > 0).then_some(self.asked)
    }

    /// From now on the client owes an answer, or a poll.
    fn begin(&mut self, now: Tick) {
        (self.unanswered, self.asked) = (1, now);
    }

    /// Clears the unanswered probes. Returns whether there were any.
    fn settle(&mut self) -> bool {
        std::mem::take(&mut self.unanswered) > 0
    }
}

/// When to probe, and how often.
struct Patience {
    after: Duration,
    every: Duration,
    max_unanswered: u8,
}

impl Session {
    /// Notes that bytes came.
    pub(super) fn heard(&mut self) {
        self.clock.last_bytes = self.endpoint.hub.wheel.now();
        if self.ask().is_none_or(|ask| ask.answer.is_none()) {
            self.answered();
        }
    }

    /// Restarts the silence, because the session does not read or the client would not see a probe.
    pub(super) fn not_listening(&mut self) {
        if self.posts.is_some() {
            // A client over HTTP owes a request, and requests are received even while the session does not read.
            return;
        }
        self.clock.last_bytes = self.endpoint.hub.wheel.now();
        self.clock.probes.settle();
    }

    /// Handles a frame if it belongs to the heartbeat, and answers it if it is a probe. Returns whether it was one.
    pub(super) fn is_heartbeat(&mut self, frame: &[u8]) -> bool {
        let Some(heartbeat) = self.endpoint.heartbeat() else { return false };
        let metrics = &self.endpoint.hub.metrics;
        if let Some(answer) = heartbeat.reply.as_ref().and_then(|reply| reply.to(frame)) {
            self.outbox.queue_frame(answer);
            metrics.heartbeat_replies.get_or_create(&self.labels()).inc();
            return true;
        }
        let answer = heartbeat.ask.as_ref().and_then(|ask| ask.answer.as_ref());
        if !answer.is_some_and(|answer| answer.matches(frame)) {
            return false;
        }
        // An answer that was not asked for, or that comes twice, is handled here too.
        self.answered();
        true
    }

    fn answered(&mut self) {
        if !self.clock.probes.settle() {
            return;
        }
        // The next silence may be due before the deadline of this answer.
        self.arm();
        if self.ask().is_some() {
            self.endpoint.hub.metrics.heartbeat_answers.get_or_create(&self.labels()).inc();
        }
    }

    /// When to act if the silence goes on.
    pub(super) fn probe_due(&self) -> Option<Tick> {
        if self.posts.is_some() {
            return self.http_client_due();
        }
        let patience = self.patience()?;
        Some(match self.clock.probes.pending() {
            Some(asked) => asked + ticks(patience.every),
            None => self.clock.last_bytes + ticks(patience.after),
        })
    }

    /// Sends a probe if one is due, or gives the client up.
    pub(super) fn look_at_silence(&mut self, now: Tick) {
        if self.posts.is_some() {
            return self.look_at_http_client(now);
        }
        let Some(patience) = self.patience() else { return };
        if self.ending.is_some() || !self.has_room() || !self.would_be_seen() {
            self.not_listening();
            return;
        }
        match self.clock.probes.pending() {
            Some(asked) if now - asked >= ticks(patience.every) => {
                if self.clock.probes.unanswered >= patience.max_unanswered {
                    let detail = match self.ask() {
                        None => "client did not answer a ping".to_owned(),
                        Some(ask) => format!("client did not answer {} heartbeat probes in a row", ask.max_unanswered),
                    };
                    self.outbox.ask_close(Close::new(CloseReason::PeerTimeout).because(detail));
                } else {
                    self.send_probe(now);
                }
            }
            None if now - self.clock.last_bytes >= ticks(patience.after) => self.send_probe(now),
            _ => {}
        }
    }

    fn send_probe(&mut self, now: Tick) {
        let probes = &mut self.clock.probes;
        probes.asked = now;
        probes.unanswered += 1;
        match self.endpoint.heartbeat().and_then(|heartbeat| heartbeat.ask.as_ref()) {
            Some(ask) => {
                self.outbox.queue_frame(ask.probe(probes.sent));
                probes.sent = probes.sent.wrapping_add(1);
                self.endpoint.hub.metrics.heartbeat_probes.get_or_create(&self.labels()).inc();
            }
            None => {
                if let Some(ping) = self.outbox.framing().ping(b"") {
                    self.outbox.queue_control(ping);
                }
            }
        }
    }

    fn patience(&self) -> Option<Patience> {
        if let Some(ask) = self.ask() {
            return Some(Patience { after: ask.after, every: ask.every, max_unanswered: ask.max_unanswered });
        }
        let websocket =
            Some(&self.endpoint.http_settings()?.websocket).filter(|websocket| !websocket.ping_interval.is_zero())?;
        Some(Patience { after: websocket.ping_interval, every: websocket.pong_timeout, max_unanswered: 1 })
    }

    /// Whether a client that reads would see a probe now. A ping may come between the fragments of a message. Nothing
    /// may come inside a frame.
    fn would_be_seen(&self) -> bool {
        match self.ask() {
            Some(_) => self.outbox.is_clear(),
            None => !self.outbox.is_inside_frame(),
        }
    }

    fn ask(&self) -> Option<&Ask> {
        self.endpoint.heartbeat()?.ask.as_ref()
    }

    /// Notices when the client stops polling and when it polls again.
    pub(super) fn watch_absence(&mut self) {
        if self.posts.is_none() {
            return;
        }
        match (self.is_away(), self.clock.probes.pending()) {
            (true, None) => {
                self.clock.probes.begin(self.endpoint.hub.wheel.now());
                self.arm();
            }
            (false, Some(_)) => {
                self.clock.probes.settle();
            }
            _ => {}
        }
    }

    /// The client is between two polls.
    pub(super) fn is_away(&self) -> bool {
        self.outbox.link().feed().is_some_and(|feed| feed.is_away())
    }

    fn is_stream(&self) -> bool {
        self.outbox.link().feed().is_some_and(|feed| !feed.is_polled())
    }

    fn http_client_due(&self) -> Option<Tick> {
        let sse = &self.endpoint.http_settings()?.sse;
        match self.clock.probes.pending() {
            Some(since) => Some(since + ticks(sse.poll_gap)),
            None if self.is_stream() && !sse.heartbeat.is_zero() => Some(self.clock.last_bytes + ticks(sse.heartbeat)),
            None => None,
        }
    }

    fn look_at_http_client(&mut self, now: Tick) {
        let Some(HttpSettings { sse, .. }) = self.endpoint.http_settings() else { return };
        match self.clock.probes.pending() {
            Some(since) if now - since >= ticks(sse.poll_gap) => {
                let detail = format!("client did not poll for {:?}", sse.poll_gap);
                self.outbox.ask_close(Close::new(CloseReason::ClientGone).because(detail));
            }
            Some(_) => {}
            None => {
                let is_due = !sse.heartbeat.is_zero() && now - self.clock.last_bytes >= ticks(sse.heartbeat);
                if is_due
                    && self.is_stream()
                    && self.ending.is_none()
                    && let Some(heartbeat) = self.outbox.framing().ping(b"")
                {
                    self.clock.last_bytes = now;
                    self.outbox.queue_control(heartbeat);
                }
            }
        }
    }

    fn labels(&self) -> ListenerLabels {
        ListenerLabels { listener: self.endpoint.listener.clone() }
    }
}
