//! Signals to a session's task, apart from bytes and a close. They are one word that needs no lock.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Outbox;

/// Everything that has happened since the task last looked, apart from bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Events of this session that have ended.
    pub ended_events: u32,
    /// The connect event was answered or may have run, so a close event must follow.
    pub connect_counts: bool,
    /// The wheel has called the session.
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
    /// Drops all waiters, because no event of this session runs. A waker that is left here is not needed, and would
    /// keep the memory of a task that may have ended.
    pub fn forget_waiters(&self) {
        self.lock().waiters = SmallVec::new();
    }

    /// Notes that an event of this session has ended. The task is woken only if it [`watches`](Self::watch_ends): a
    /// session whose only event was answered has nothing to do until its client sends something. The waiters are
    /// dropped here, unless other events may run. In that case the task drops them.
    pub fn event_ended(&self, others_may_run: bool) {
        if !others_may_run {
            self.forget_waiters();
        }
        if self.signals.fetch_add(1, Ordering::AcqRel) & WATCHES_ENDS != 0 {
            self.task.wake();
        }
    }

    /// From now on the end of an event wakes the task, until the task takes its signals. Returns false if an event has
    /// ended since it last took them.
    pub fn watch_ends(&self) -> bool {
        self.signals.fetch_or(WATCHES_ENDS, Ordering::AcqRel) & ENDED_EVENTS == 0
    }

    /// Notes that a close event must follow the connect event.
    pub fn connect_counts(&self) {
        self.signals.fetch_or(CONNECT_COUNTS, Ordering::AcqRel);
    }

    /// Keeps the `Set-Cookie` values of an answer for the session's later events. It must run before
    /// [`Self::event_ended`].
    pub fn leave_cookies(&self, cookies: Vec<Box<[u8]>>) {
        if !cookies.is_empty() {
            self.lock().cookies.get_or_insert_default().0.extend(cookies);
            self.signals.fetch_or(HAS_COOKIES, Ordering::AcqRel);
        }
    }

    /// Takes the cookies, for the session's task.
    pub fn take_cookies(&self) -> Vec<Box<[u8]>> {
        self.lock().cookies.take().map(|cookies| cookies.0).unwrap_or_default()
    }

    /// The wheel has called the session.
    pub fn tick(&self) {
        self.signals.fetch_or(TICK, Ordering::AcqRel);
        self.task.wake();
    }

    /// Takes everything that has happened since the last call.
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
