//! Learns how a backend's workers behave after their answers. Plain data, shared by the backend's connections.
//!
//! Two habits matter. First, some responders close after each answer although they are asked to keep the connection
//! (FCGI_KEEP_CONN): a request written between END_REQUEST and that close is lost. Second, a PHP worker may answer early
//! (`fastcgi_finish_request()`) and continue: a request written to it waits for that long.
//!
//! ```text
//!   Unknown ── second answer on a connection, or a worker that was seen to come back ──> Proven
//!    │   └──── open for KEEP_PATIENCE after an answer ──> Assumed
//!    v                                                      │
//!   Not <──── closed after its first answer ────────────────┘     Proven: three such ends in a row
//!    └─ open for KEEP_PATIENCE after an answer ──> Assumed
//! ```
//!
//! A Unix socket tells whether a worker has come back (`Stream::poll_all_read`). Over TCP the worker has to be asked, with
//! FCGI_GET_VALUES, which php-fpm reads only when it looks for its next request. That costs the worker some 15 us, so it is
//! done where that is little: [`ASKS_PER_SECOND`] times a second, after scripts that took [`SLOW`], and always for a while
//! after a worker was late or closed without warning.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an unknown backend is given to close after an answer, before it is assumed to keep its connections. Backends that
/// close do so together with the answer; the rest of the time is for a busy machine.
pub(super) const KEEP_PATIENCE: Duration = Duration::from_millis(100);
/// So many early ends in a row refute what was proven: pm.max_requests and reloads end young connections too.
const REFUTED_AFTER: u32 = 3;
/// Number of answers after which workers are always asked whether they are back, once one was late.
const WARY_ANSWERS: u32 = 1000;
/// The same, once a connection was closed without warning: php-cgi does so after PHP_FCGI_MAX_REQUESTS answers.
const WARY_OF_CLOSE: u32 = 100_000;
/// A hundred questions take 0.2 % of a core.
const ASKS_PER_SECOND: u64 = 100;
/// A question takes less than 1 % of the time of such a script.
const SLOW: Duration = Duration::from_millis(2);
/// Time between tests whether a backend answers questions, while it does not.
const TEST_AGAIN: Duration = Duration::from_secs(60);

const UNKNOWN: u8 = 0;
const ASSUMED: u8 = 1;
const PROVEN: u8 = 2;
const NOT: u8 = 3;

/// The known habits of one backend.
#[derive(Debug)]
pub(super) struct Habits {
    keeps: AtomicU8,
    /// Connections in a row that were closed after their first answer.
    early_ends: AtomicU32,
    /// It answers questions.
    answers: AtomicBool,
    /// When to test that next, in milliseconds after `since`.
    next_test: AtomicU64,
    /// For so many more answers the worker is always asked.
    wary: AtomicU32,
    /// The current second after `since`, shifted by 32, plus the number of questions asked in it.
    asked: AtomicU64,
    since: Instant,
}

/// Whether the test that a backend answers questions is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// It was not tested yet.
    First,
    /// The last test failed.
    Again,
}

impl Habits {
    /// Nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            keeps: AtomicU8::new(UNKNOWN),
            early_ends: AtomicU32::new(0),
            answers: AtomicBool::new(false),
            next_test: AtomicU64::new(0),
            wary: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            since: now,
        }
    }

    /// Whether a connection may be used again at once.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.keeps.load(Ordering::Relaxed), ASSUMED | PROVEN)
    }

    /// Whether it is known to close after each answer.
    pub(super) fn closes(&self) -> bool {
        self.keeps.load(Ordering::Relaxed) == NOT
    }

    /// A connection had a second answer, or its worker was seen to wait for the next request.
    pub(super) fn kept(&self) {
        if self.keeps.load(Ordering::Relaxed) != PROVEN || self.early_ends.load(Ordering::Relaxed) != 0 {
            self.early_ends.store(0, Ordering::Relaxed);
            self.keeps.store(PROVEN, Ordering::Relaxed);
        }
    }

    /// A connection stayed open for [`KEEP_PATIENCE`] after its answer.
    pub(super) fn stayed_open(&self) {
        if !self.keeps() {
            self.early_ends.store(0, Ordering::Relaxed);
            self.keeps.store(ASSUMED, Ordering::Relaxed);
        }
    }

    /// The backend closed a connection `silence` after its only answer. True if this shows for the first time that it closes
    /// after each answer.
    pub(super) fn closed_after_one(&self, silence: Duration) -> bool {
        if silence > KEEP_PATIENCE {
            return false;
        }
        let ends = self.early_ends.fetch_add(1, Ordering::Relaxed) + 1;
        let refuted = match self.keeps.load(Ordering::Relaxed) {
            NOT => false,
            PROVEN => ends >= REFUTED_AFTER,
            _ => true,
        };
        if refuted {
            self.keeps.store(NOT, Ordering::Relaxed);
        }
        refuted
    }

    /// Whether a test that the backend answers questions is due. Only one caller is told so each time.
    pub(super) fn test_due(&self, now: Instant) -> Option<Test> {
        if self.answers.load(Ordering::Relaxed) {
            return None;
        }
        let elapsed = (now - self.since).as_millis() as u64;
        let due = self.next_test.load(Ordering::Relaxed);
        if elapsed < due {
            return None;
        }
        let next = elapsed + TEST_AGAIN.as_millis() as u64;
        let taken = self.next_test.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        taken.then_some(if due == 0 { Test::First } else { Test::Again })
    }

    /// Whether the backend is known to answer questions.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// Stores the result of a test.
    pub(super) fn tested(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    /// Whether to ask a worker if it is back, after an answer that took so long.
    pub(super) fn should_ask(&self, took: Duration, now: Instant) -> bool {
        if !self.answers.load(Ordering::Relaxed) {
            return false;
        }
        let wary = self.wary.load(Ordering::Relaxed);
        if wary > 0 {
            // Two connections that race here may count two answers as one, which does no harm.
            self.wary.store(wary - 1, Ordering::Relaxed);
            return true;
        }
        took >= SLOW || self.may_ask(now)
    }

    fn may_ask(&self, now: Instant) -> bool {
        let second = (now - self.since).as_secs() << 32;
        let asked = self.asked.load(Ordering::Relaxed);
        let so_far = if asked & !u64::from(u32::MAX) == second { asked - second } else { 0 };
        if so_far >= ASKS_PER_SECOND {
            return false;
        }
        self.asked.store(second + so_far + 1, Ordering::Relaxed);
        true
    }

    /// A worker was still busy a while after its answer.
    pub(super) fn was_late(&self) {
        self.wary.fetch_max(WARY_ANSWERS, Ordering::Relaxed);
    }

    /// The backend reset a connection after an answer that was not its first.
    pub(super) fn slammed(&self) {
        self.wary.store(WARY_OF_CLOSE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn a_backend_that_closes_behind_its_first_answer_is_known_at_once() {
        let habits = Habits::new(Instant::now());
        assert!(!habits.keeps() && !habits.closes());
        assert!(habits.closed_after_one(SOON));
        assert!(habits.closes() && !habits.keeps());
        assert!(!habits.closed_after_one(SOON), "told once");
        habits.stayed_open();
        assert!(habits.keeps(), "another one listens there now");
        assert!(habits.closed_after_one(SOON), "an assumption is soon refuted");
    }

    #[test]
    fn what_was_proven_takes_three_early_ends_in_a_row_to_refute() {
        let habits = Habits::new(Instant::now());
        habits.kept();
        for _ in 0..10 {
            assert!(!habits.closed_after_one(SOON));
            assert!(!habits.closed_after_one(SOON));
            habits.kept();
        }
        // An idle connection may end at any time.
        assert!((0..10).all(|_| !habits.closed_after_one(KEEP_PATIENCE * 2)));
        assert_eq!([(); 3].map(|()| habits.closed_after_one(SOON)), [false, false, true]);
    }

    #[test]
    fn questions_are_few_unless_there_is_a_reason() {
        let start = Instant::now();
        let habits = Habits::new(start);
        assert!(!habits.should_ask(SLOW, start), "it was not tested");
        habits.tested(true);
        let asked = |at: u64, took| {
            let at = start + Duration::from_secs(at);
            (0..5000).filter(|_| habits.should_ask(took, at)).count()
        };
        assert_eq!((asked(0, SOON), asked(0, SOON), asked(1, SOON), asked(9, SOON)), (100, 0, 100, 100));
        assert_eq!(asked(9, SLOW), 5000);
        habits.was_late();
        assert_eq!(asked(9, SOON), 1000);
        habits.slammed();
        habits.was_late();
        assert_eq!(asked(9, SOON), 5000);
    }

    #[test]
    fn a_backend_is_tested_once_and_again_while_it_does_not_answer() {
        let start = Instant::now();
        let habits = Habits::new(start);
        let due = |seconds| habits.test_due(start + Duration::from_secs(seconds));
        assert_eq!((due(0), due(1), due(59)), (Some(Test::First), None, None));
        assert_eq!((due(60), due(61)), (Some(Test::Again), None));
        habits.tested(true);
        assert_eq!(due(600), None);
    }
}
