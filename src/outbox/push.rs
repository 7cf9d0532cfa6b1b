//! Pushes frames to a session, and reports their fate.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Outbox;
use super::backlog::{PieceKind, Topic};
use super::close::Close;
use super::inner::Inner;
use super::stage::{Departure, OutputKind};
use crate::config::model::SlowReader;
use crate::proto::close::CloseReason;
use crate::transport::MAX_SLICES;

/// One encoded frame on its way to a session. Other sessions may share the frame.
#[derive(Clone, Debug)]
pub struct Push<'a> {
    /// Head, body and tail.
    pub frame: Bytes,
    /// The rule of its channel, if that has one of its own.
    pub rule: Option<SlowReader>,
    /// Identifies the later pushes that may replace it.
    pub topic: &'a Arc<Topic>,
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The fate of the frame itself.
    pub fate: Fate,
    /// Older frames that were dropped to make room for it.
    pub dropped_oldest: u32,
    /// Older frames of the same topic that it replaced.
    pub dropped_latest: u32,
}

impl From<Fate> for Pushed {
    fn from(fate: Fate) -> Self {
        Self { fate, dropped_oldest: 0, dropped_latest: 0 }
    }
}

/// The fate of a pushed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The socket has taken it.
    Written,
    /// It waits for the client to read.
    Queued,
    /// The outbox was full, and the session is closed for that.
    DroppedClose,
    /// The outbox was full, and this frame was dropped.
    DroppedNewest,
    /// The session has ended.
    Gone,
}

/// The result of a write of several frames.
#[derive(Default)]
struct Together {
    /// The number of frames that were written whole.
    written: usize,
    /// The next frame was written in part, and its rest waits.
    has_rest: bool,
}

impl Outbox {
    /// Sends encoded frames of commands, in one write if the socket takes them. `tell` gets the fate of each.
    pub fn push_all<'a, T>(&self, pushes: SmallVec<[(Push<'a>, T); 1]>, mut tell: impl FnMut(T, Pushed)) {
        let together = if pushes.len() > 1 { self.push_together(&pushes) } else { Together::default() };
        for (at, (push, of)) in pushes.into_iter().enumerate() {
            let pushed = match at {
                _ if at < together.written => Fate::Written.into(),
                _ if at == together.written && together.has_rest => Fate::Queued.into(),
                // The later frames wait, or find no room.
                _ => self.push(push),
            };
            tell(of, pushed);
        }
    }

    /// Writes as many frames as the socket takes, if nothing waits for it.
    fn push_together<T>(&self, pushes: &[(Push<'_>, T)]) -> Together {
        let mut together = Together::default();
        let mut inner = self.lock();
        if inner.stage.departure_of(OutputKind::Push) != Departure::Now || self.writable(&inner) > 0 {
            return together;
        }
        for chunk in pushes.chunks(MAX_SLICES) {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            for (slice, (push, _)) in slices.iter_mut().zip(chunk) {
                *slice = IoSlice::new(&push.frame);
            }
            let mut left = inner.try_write(&self.link, &slices[..chunk.len()]);
            for (push, _) in chunk {
                if left < push.frame.len() {
                    together.has_rest = left > 0;
                    if left > 0 {
                        inner.backlog.enqueue_rest(push.frame.slice(left..), self.kind_of(push));
                    }
                    self.wake_writer(inner, 0);
                    return together;
                }
                left -= push.frame.len();
                together.written += 1;
            }
            if self.writable(&inner) > 0 {
                // TLS has taken everything, but the socket has not taken everything from TLS.
                (together.written, together.has_rest) = (together.written - 1, true);
                break;
            }
        }
        self.wake_writer(inner, 0);
        together
    }

    fn kind_of(&self, push: &Push<'_>) -> PieceKind {
        match push.rule.unwrap_or(self.terms.slow_reader) {
            SlowReader::Oldest | SlowReader::Latest => PieceKind::Droppable(push.topic.clone()),
            SlowReader::Close | SlowReader::Newest => PieceKind::Push,
        }
    }

    /// Sends one encoded frame of a command.
    pub fn push(&self, push: Push<'_>) -> Pushed {
        let rule = push.rule.unwrap_or(self.terms.slow_reader);
        let mut inner = self.lock();
        let departure = inner.stage.departure_of(OutputKind::Push);
        if departure == Departure::Never {
            return Fate::Gone.into();
        }
        let was_full = self.has_no_room(&inner);
        let mut pushed = Pushed::from(Fate::Queued);
        if rule == SlowReader::Latest && inner.waits() {
            pushed.dropped_latest = inner.backlog.drop_topic(push.topic);
        }
        let max_bytes = self.terms.max_bytes;
        let is_over = |inner: &Inner| inner.backlog.cost() + push.frame.len() > max_bytes && inner.waits();
        if is_over(&inner) && matches!(rule, SlowReader::Oldest | SlowReader::Latest) {
            pushed.dropped_oldest = inner.backlog.drop_oldest(max_bytes.saturating_sub(push.frame.len()));
        }
        if pushed.dropped_latest + pushed.dropped_oldest > 0 {
            // If this frame leaves at once, nothing else wakes the replies that wait for room.
            inner.wake_waiters();
            if was_full {
                self.task.wake();
            }
        }
        if is_over(&inner) {
            if rule != SlowReader::Close {
                return Pushed { fate: Fate::DroppedNewest, ..pushed };
            }
            let close = Close::new(CloseReason::SlowReader).because(self.why_full(&inner));
            inner.ask_close(close);
            drop(inner);
            self.task.wake();
            return Pushed { fate: Fate::DroppedClose, ..pushed };
        }
        let kind = self.kind_of(&push);
        if departure == Departure::Later {
            inner.backlog.hold(push.frame, kind);
            return pushed;
        }
        let queued_before = self.writable(&inner);
        let frame = push.frame;
        inner.write(&self.link, &[IoSlice::new(&frame)], kind, |rest| frame.slice(frame.len() - rest..));
        if inner.stage.is_deaf() {
            pushed.fate = Fate::Gone;
        } else if self.writable(&inner) == 0 {
            pushed.fate = Fate::Written;
        }
        self.wake_writer(inner, queued_before);
        pushed
    }

    /// For the log: says which bytes fill the outbox.
    fn why_full(&self, inner: &Inner) -> String {
        let (held, waiting) = (inner.backlog.held_bytes(), inner.backlog.bytes());
        match held {
            0 => format!("outbox is full: {waiting} bytes wait for the client"),
            _ if inner.stage.is_guest() => {
                format!("outbox is full: {held} of {waiting} bytes wait for the connect event to end")
            }
            _ => format!("outbox is full: {held} of {waiting} bytes wait for a streaming reply to end"),
        }
    }
}
