//! Whether a silent client is still there: WebSocket pings, the heartbeat of a stream listener, and clients over HTTP.
//!
//! ```text
//!           silence for `after`          `every` without an answer, fewer than max_unanswered
//!   quiet ----------------------> asked ------------------------------------------------------> asked
//!     ^                             |  \
//!     '-----------------------------'   '-- as many as max_unanswered: PeerTimeout
//!        an answer, or we did not listen
//! ```
//!
//! Any bytes end a silence. Whether they also answer a probe is for the heartbeat to say. While its queue of frames is full
//! we do not read, and while bytes wait for the client or a reply streams it would not see a stream's probe: then the
//! silence is ours, and begins anew.
//!
//! Frames that belong to a heartbeat are taken here. They are no frames to anybody else: PHP does not see them, they are
//! not counted, and they do not end an idleness.
//!
//! A client over HTTP is asked nothing. Its stream is given a comment now and then, for proxies that drop silent connections; one
//! that polls owes its next poll within `poll_gap`.

use std::time::Duration;

use super::Session;
use super::wheel::{Tick, ticks};
use crate::metrics::ListenerLabels;
use crate::outbox::Close;
use crate::proto::close::CloseReason;
use crate::proto::heartbeat::Ask;

/// What was sent to find out. Twelve bytes in every session, whether it is ever asked or not.
#[derive(Debug, Default)]
pub(super) struct Probes {
    /// How many in a row nothing has answered.
    unanswered: u8,
    /// When the last of these left.
    asked: Tick,
    /// How many of a heartbeat in all: the number of the next.
    sent: u32,
}

impl Probes {
    /// When the last one left, if it is still to be answered.
    fn pending(&self) -> Option<Tick> {
        (self.unanswered > 0).then_some(self.asked)
    }

    /// From now on something is owed.
    fn begin(&mut self, now: Tick) {
        (self.unanswered, self.asked) = (1, now);
    }

    /// Nothing is to be answered any more; says whether something was.
    fn settle(&mut self) -> bool {
        std::mem::take(&mut self.unanswered) > 0
    }
}

/// When to ask, and how often.
struct Patience {
    after: Duration,
    every: Duration,
    max_unanswered: u8,
}

impl Session {
    /// Bytes came.
    pub(super) fn heard(&mut self) {
        self.clock.last_bytes = self.endpoint.hub.wheel.now();
        if self.ask().is_none_or(|ask| ask.answer.is_none()) {
            self.answered();
        }
    }

    /// Nothing is read now, or nothing would be seen: the silence is not the client's.
    pub(super) fn not_listening(&mut self) {
        if self.posts.is_some() {
            // What a client over HTTP owes is a request, and those are heard whatever waits.
            return;
        }
        self.clock.last_bytes = self.endpoint.hub.wheel.now();
        self.clock.probes.settle();
    }

    /// Takes a frame that is nobody's but the heartbeat's, and answers it if it asks.
    pub(super) fn is_heartbeat(&mut self, frame: &[u8]) -> bool {
        let Some(heartbeat) = &self.endpoint.heartbeat else { return false };
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
        // One that comes unasked, or again, is taken all the same.
        self.answered();
        true
    }

    fn answered(&mut self) {
        if !self.clock.probes.settle() {
            return;
        }
        // The next silence may be over before this answer would have been due.
        self.arm();
        if self.ask().is_some() {
            self.endpoint.hub.metrics.heartbeat_answers.get_or_create(&self.labels()).inc();
        }
    }

    /// When there will be something to do about a silence that goes on.
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

    /// Asks, or gives up.
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
                        None => "no answer to a ping".to_owned(),
                        Some(ask) => format!("no answer to {} of the heartbeat's probes", ask.max_unanswered),
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
        match self.endpoint.heartbeat.as_ref().and_then(|heartbeat| heartbeat.ask.as_ref()) {
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
        let websocket = self.endpoint.websocket.as_ref().filter(|websocket| !websocket.ping_interval.is_zero())?;
        Some(Patience { after: websocket.ping_interval, every: websocket.pong_timeout, max_unanswered: 1 })
    }

    /// Whether a probe would reach a client that reads. A ping may stand among the fragments of a message, and nothing inside a
    /// frame.
    fn would_be_seen(&self) -> bool {
        match self.ask() {
            Some(_) => self.outbox.is_clear(),
            None => !self.outbox.is_inside_frame(),
        }
    }

    fn ask(&self) -> Option<&Ask> {
        self.endpoint.heartbeat.as_ref()?.ask.as_ref()
    }

    /// Notices when polls stop, and when they come again.
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

    /// Between two polls nobody is there.
    pub(super) fn is_away(&self) -> bool {
        self.outbox.link().feed().is_some_and(|feed| feed.is_away())
    }

    fn is_stream(&self) -> bool {
        self.outbox.link().feed().is_some_and(|feed| !feed.is_polled())
    }

    fn http_client_due(&self) -> Option<Tick> {
        let sse = self.endpoint.sse.as_ref()?;
        match self.clock.probes.pending() {
            Some(since) => Some(since + ticks(sse.poll_gap)),
            None if self.is_stream() && !sse.heartbeat.is_zero() => Some(self.clock.last_bytes + ticks(sse.heartbeat)),
            None => None,
        }
    }

    fn look_at_http_client(&mut self, now: Tick) {
        let Some(sse) = &self.endpoint.sse else { return };
        match self.clock.probes.pending() {
            Some(since) if now - since >= ticks(sse.poll_gap) => {
                let detail = format!("no poll for {:?}", sse.poll_gap);
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
