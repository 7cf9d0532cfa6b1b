//! The input of a session: reading bytes, cutting frames out of them, and the end of the input.

use std::cell::RefCell;
use std::task::{Context, Poll};

use bytes::Bytes;
use tracing::debug;

use super::Session;
use crate::metrics::{ListenerLabels, ReasonLabels};
use crate::outbox::Close;
#[cfg(test)]
use crate::outbox::faults::Fault;
use crate::proto::close::CloseReason;
use crate::proto::framing::Item;
use crate::upstream::{Class, READ_BYTES};

thread_local! {
    /// The buffer that sockets are read into. All sessions of a thread share it, because it is used only while frames
    /// are cut out of it. So a session at rest holds no buffer.
    pub(super) static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

impl Session {
    /// Reads and cuts frames while there is room for them. Returns true if something happened.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ending.is_some() {
            return self.has_uncut() && self.has_room() && self.cut_unread();
        }
        if self.is_held_back() || !self.has_room() {
            self.clock.is_listening = false;
            self.forgive_silence();
            return false;
        }
        if !std::mem::replace(&mut self.clock.is_listening, true) {
            self.forgive_silence();
        }
        if self.has_uncut() {
            self.cut_unread();
            return true;
        }
        SCRATCH.with_borrow_mut(|scratch| match self.outbox.link().poll_read(cx, scratch) {
            Poll::Pending => self.poll_gap(cx),
            Poll::Ready(Ok(0)) => {
                self.end_by_silence();
                let reason = match self.outbox.framing() {
                    _ if self.state.decoder.is_mid_frame() => CloseReason::FrameTruncated,
                    framing if framing.has_goodbye() => CloseReason::NoGoodbye,
                    _ => CloseReason::ClientClosed,
                };
                self.end_input(Box::new(reason.into()));
                true
            }
            Poll::Ready(Ok(n)) => {
                self.bytes_in += n as u64;
                self.endpoint.hub.metrics.bytes_in.inc_by(n as u64);
                self.heard();
                self.charge_bytes(n);
                let used = self.take_bytes(&scratch[..n]);
                self.note_frame();
                if !self.is_cut_off && used < n {
                    self.state.pending.keep_unread(Bytes::copy_from_slice(&scratch[used..n]));
                }
                true
            }
            Poll::Ready(Err(error)) => {
                self.end_input(Box::new(error.into()));
                true
            }
        })
    }

    /// Cuts frames out of bytes that were read before. Returns true if it made progress.
    fn cut_unread(&mut self) -> bool {
        let unread = self.state.pending.take_unread();
        let frames = self.state.next_seq as usize + self.state.pending.frames();
        let used = self.take_bytes(&unread);
        self.note_frame();
        if !self.is_cut_off && used < unread.len() {
            self.state.pending.keep_unread(unread.slice(used..));
        }
        used > 0 || frames != self.state.next_seq as usize + self.state.pending.frames()
    }

    pub(super) fn has_room(&self) -> bool {
        self.state.pending.frames() < self.endpoint.app.max_queued_frames
            && self.state.pending.frame_bytes() < self.endpoint.app.max_queued_bytes
            && !self.outbox.is_full()
            // Once the input has ended, a rate limit no longer delays the rest of it.
            && (self.ending.is_some() || !self.is_held())
    }

    /// Cuts frames out of the front of `input` while there is room for them. Returns how many bytes were used.
    fn take_bytes(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while (used < input.len() || self.state.decoder.has_rest()) && !self.is_cut_off && self.has_room() {
            let max_frame = self.endpoint.app.max_frame_bytes;
            match self.state.decoder.decode(self.outbox.framing(), max_frame, &input[used..]) {
                Ok((n, item)) => {
                    used += n;
                    // The codec's own answers leave before PHP can answer the frame that it found.
                    self.outbox.settle_codec();
                    match item {
                        Some(item) => self.take_item(item),
                        None => break,
                    }
                }
                Err(error) => self.end_input(Box::new(Close::new(error.reason()).because(error.to_string()))),
            }
        }
        self.note_skipped();
        self.begin_gap();
        used
    }

    /// Counts the bytes that were not part of a frame.
    fn note_skipped(&mut self) {
        let skipped = self.state.decoder.take_skipped();
        if skipped > 0 {
            let labels = ListenerLabels { listener: self.endpoint.listener.clone() };
            self.endpoint.hub.metrics.skipped_bytes.get_or_create(&labels).inc_by(skipped);
            debug!(session = %self.state.id, listener = %self.endpoint.listener, bytes = skipped, "bytes skipped");
        }
    }

    pub(super) fn take_item(&mut self, item: Item) {
        let is_charged = matches!(item, Item::Frame(_) | Item::Ping(_) | Item::Pong(_));
        if matches!(item, Item::Frame(_)) {
            self.clock.frame_begun = None;
        }
        match item {
            Item::Frame(frame) if self.is_heartbeat(&frame.body) => {}
            // fooking's clients send empty frames to keep the connection open.
            Item::Frame(frame) if frame.body.is_empty() && self.endpoint.app.compat.is_fooking() => {
                self.clock.last_frame = self.clock.last_bytes;
                self.endpoint.hub.metrics.frames_in.inc();
            }
            Item::Frame(frame) => {
                self.clock.last_frame = self.clock.last_bytes;
                self.endpoint.hub.metrics.frames_in.inc();
                if self.state.pending.frames() == 0 && !self.state.connect_due && self.may_start() {
                    self.submit(Class::Message, frame.kind, frame.body, None);
                } else {
                    self.state.pending.push(frame);
                }
            }
            Item::Ping(payload) => {
                if let Some(pong) = self.outbox.framing().pong(&payload) {
                    self.outbox.queue_control(pong);
                }
            }
            // Any bytes show that the client is alive; see `heard`.
            Item::Pong(_) => {}
            Item::Close { code, reason } => {
                let text = String::from_utf8_lossy(&reason).into_owned().into_boxed_str();
                // 1005 means that the close frame had no code (RFC 6455 section 7.1.5). PHP gets it, but it is never
                // sent.
                let close = Close {
                    code: Some(code.unwrap_or(1005)),
                    text: Some(text),
                    ..Close::new(CloseReason::ClientClosed)
                };
                self.end_input(Box::new(close));
            }
        }
        if is_charged && self.ending.is_none() {
            self.charge_frame();
        }
    }

    /// Every frame that was read is handled or in flight.
    pub(super) fn has_nothing_to_handle(&self) -> bool {
        self.state.pending.frames() == 0
            && !self.has_uncut()
            && self.posts.as_ref().is_none_or(|posts| posts.is_empty())
    }

    /// Frames can still be cut out of bytes that were read.
    fn has_uncut(&self) -> bool {
        !self.is_cut_off && (self.state.pending.has_unread() || self.state.decoder.has_rest())
    }

    /// From now on nothing is read. The first reason stands, unless a later one says that the client is gone.
    pub(super) fn end_input(&mut self, close: Box<Close>) {
        let has_ended_its_side = self.has_ended_its_side();
        let drops_waiting = match close.reason {
            CloseReason::ClientClosed
            | CloseReason::NoGoodbye
            | CloseReason::FrameTruncated
            | CloseReason::BadFrame
            | CloseReason::BadText
            | CloseReason::FrameTooLarge
            | CloseReason::CodecFailed
            | CloseReason::CodecTooLong
            | CloseReason::CodecOutOfMemory
            | CloseReason::CodecClosed
            | CloseReason::Draining
            | CloseReason::IdleTimeout => false,
            // If the client had ended its side before it vanished, the frames that it sent before are still handled.
            CloseReason::ClientGone | CloseReason::PeerTimeout => !has_ended_its_side,
            // `Refused` above all: PHP must get no frames of a session that it has refused.
            _ => true,
        };
        if let Some(posts) = &self.posts {
            posts.close();
        }
        if drops_waiting {
            self.drop_waiting(close.reason);
        }
        if !matches!(close.reason, CloseReason::Draining | CloseReason::IdleTimeout) {
            // No frame can follow the client's last frame, or bytes that are not a frame.
            self.is_cut_off = true;
            self.state.pending.take_unread();
        }
        let stands = match &self.ending {
            None => false,
            // A client that ended its side but takes nothing would hold a worker and its socket indefinitely.
            Some(_) if has_ended_its_side => close.reason != CloseReason::SlowReader,
            Some(_) => !close.is_abrupt(),
        };
        if !stands {
            self.ending = Some(close);
        }
    }

    pub(super) fn has_ended_its_side(&self) -> bool {
        let reason = self.ending.as_ref().map(|close| close.reason);
        matches!(reason, Some(CloseReason::ClientClosed | CloseReason::NoGoodbye))
    }

    fn drop_waiting(&mut self, reason: CloseReason) {
        let posts = self.posts.as_ref().map_or(0, |posts| posts.clear());
        let dropped = (self.state.pending.clear_frames() + self.count_unread() + posts) as u64;
        if dropped > 0 {
            let labels = ReasonLabels { listener: self.endpoint.listener.clone(), reason: reason.label() };
            self.endpoint.hub.metrics.frames_dropped.get_or_create(&labels).inc_by(dropped);
        }
    }

    /// Counts the frames in the bytes that were not decoded yet. They are dropped.
    fn count_unread(&mut self) -> usize {
        let unread = self.state.pending.take_unread();
        #[cfg(test)]
        if Fault::UnreadForgotten.is_on() {
            return 0;
        }
        // A codec may answer the frames that it finds, but the client is not to be answered any more.
        if std::mem::replace(&mut self.is_cut_off, true) || self.outbox.framing().codec().is_some() {
            return 0;
        }
        let (mut used, mut frames) = (0, 0);
        while used < unread.len() || self.state.decoder.has_rest() {
            let max_frame = self.endpoint.app.max_frame_bytes;
            match self.state.decoder.decode(self.outbox.framing(), max_frame, &unread[used..]) {
                Ok((n, Some(item))) => {
                    used += n;
                    frames += usize::from(matches!(item, Item::Frame(_)));
                }
                Ok((_, None)) | Err(_) => break,
            }
        }
        frames
    }
}
