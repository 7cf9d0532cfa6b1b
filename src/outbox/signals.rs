//! What others tell a session's task, beside bytes and a close: one word that needs no lock.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Outbox;

/// What happened since the task last looked, beside bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Events of this session that have ended.
    pub ended_events: u32,
    /// The connect event was answered, or may have been run.
    pub connect_counts: bool,
    /// The wheel came round.
    pub tick: bool,
    /// Answers have set cookies; see [`Outbox::take_cookies`].
    pub has_cookies: bool,
}

const ENDED_EVENTS: u32 = 0xffff;
const CONNECT_COUNTS: u32 = 1 << 16;
const TICK: u32 = 1 << 17;
const WATCHES_ENDS: u32 = 1 << 18;
const HAS_COOKIES: u32 = 1 << 19;

impl Outbox {
    /// No event of this session runs: what still waits here is a waker that nobody needs, and it would keep the memory of
    /// a task that may have ended.
    pub fn forget_waiters(&self) {
        self.lock().waiters = SmallVec::new();
    }

    /// An event of this session has ended. It wakes the task only if that [`watches`](Self::watch_ends): a session whose only
    /// event was answered has nothing to do until its client says something, and its waiters are forgotten here. Where others
    /// may run, that is left to the task.
    pub fn event_ended(&self, others_may_run: bool) {
        if !others_may_run {
            self.forget_waiters();
        }
        if self.signals.fetch_add(1, Ordering::AcqRel) & WATCHES_ENDS != 0 {
            self.task.wake();
        }
    }

    /// The end of an event will wake the task, until it takes its signals. False when one has ended since it did that last.
    pub fn watch_ends(&self) -> bool {
        self.signals.fetch_or(WATCHES_ENDS, Ordering::AcqRel) & ENDED_EVENTS == 0
    }

    /// From now on a close event is owed.
    pub fn connect_counts(&self) {
        self.signals.fetch_or(CONNECT_COUNTS, Ordering::AcqRel);
    }

    /// `Set-Cookie` of an answer, for the session's later events: before the end of its event is told.
    pub fn leave_cookies(&self, cookies: Vec<Box<[u8]>>) {
        if !cookies.is_empty() {
            self.lock().cookies.get_or_insert_default().0.extend(cookies);
            self.signals.fetch_or(HAS_COOKIES, Ordering::AcqRel);
        }
    }

    /// What was left so, for the session's task.
    pub fn take_cookies(&self) -> Vec<Box<[u8]>> {
        self.lock().cookies.take().map(|cookies| cookies.0).unwrap_or_default()
    }

    /// The wheel came round.
    pub fn tick(&self) {
        self.signals.fetch_or(TICK, Ordering::AcqRel);
        self.task.wake();
    }

    /// What happened since the last call.
    pub fn take_signals(&self) -> Signals {
        let bits = self.signals.swap(0, Ordering::AcqRel);
        Signals {
            ended_events: bits & ENDED_EVENTS,
            connect_counts: bits & CONNECT_COUNTS != 0,
            tick: bits & TICK != 0,
            has_cookies: bits & HAS_COOKIES != 0,
        }
    }
}
