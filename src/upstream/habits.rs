//! What is learned of how a backend's workers behave behind their answers: plain data, shared by its connections.
//!
//! Two habits matter. Some responders close after each answer although they are asked to keep the connection
//! (FCGI_KEEP_CONN): a request written between END_REQUEST and that close is lost. And a worker of PHP may answer early
//! (`fastcgi_finish_request()`) and work on: a request written to it waits for as long.
//!
//! ```text
//!   Unknown ── second answer on a connection, or a worker seen to come back ──> Proven
//!    │   └──── open for KEEP_PATIENCE after an answer ──> Assumed
//!    v                                                      │
//!   Not <──── closed behind its first answer ───────────────┘     Proven: three such ends in a row
//!    └─ open for KEEP_PATIENCE after an answer ──> Assumed
//! ```
//!
//! Whether a worker has come back a Unix socket tells (`Stream::poll_all_read`). Over TCP it has to be asked, with
//! FCGI_GET_VALUES, which php-fpm reads only when it looks for its next request. That costs the worker some 15 us, so it is
//! done where that is little: [`ASKS_PER_SECOND`] times a second, after scripts that took [`SLOW`], and always for a while
//! after a worker was late or closed without warning.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a backend of which nothing is known has after an answer to close, before it is taken to keep its connections. Those that
/// close do so with the answer; the rest is for a busy machine.
pub(super) const KEEP_PATIENCE: Duration = Duration::from_millis(100);
/// Ends in a row that refute what was proven: pm.max_requests and reloads end young connections too.
const REFUTED_AFTER: u32 = 3;
/// Answers after which workers are always asked whether they are back, once one was late.
const WARY_ANSWERS: u32 = 1000;
/// The same, once a connection was closed without warning: php-cgi does so after PHP_FCGI_MAX_REQUESTS answers.
const WARY_OF_CLOSE: u32 = 100_000;
/// A hundred questions take 0.2 % of a core.
const ASKS_PER_SECOND: u64 = 100;
/// A question takes less than 1 % of the time of such a script.
const SLOW: Duration = Duration::from_millis(2);
/// Between tests whether a backend answers questions, when it did not.
const TEST_AGAIN: Duration = Duration::from_secs(60);

const UNKNOWN: u8 = 0;
const ASSUMED: u8 = 1;
const PROVEN: u8 = 2;
const NOT: u8 = 3;

/// What is known of one backend.
#[derive(Debug)]
pub(super) struct Habits {
    keeps: AtomicU8,
    /// Connections in a row that were closed behind their first answer.
    early_ends: AtomicU32,
    /// It answers questions.
    answers: AtomicBool,
    /// When to test that, in milliseconds after `since`.
    next_test: AtomicU64,
    /// Answers that are still to be asked behind.
    wary: AtomicU32,
    /// The second after `since`, shifted by 32, and the questions in it.
    asked: AtomicU64,
    since: Instant,
}

/// A test whether a backend answers questions is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// None was made yet.
    First,
    /// It did not when it was tested last.
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

    /// A connection stood open for [`KEEP_PATIENCE`] after its answer.
    pub(super) fn stayed_open(&self) {
        if !self.keeps() {
            self.early_ends.store(0, Ordering::Relaxed);
            self.keeps.store(ASSUMED, Ordering::Relaxed);
        }
    }

    /// The backend closed a connection so long after an answer, which was its only one. True when this made it known
    /// that it closes after each.
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

    /// Whether to test if it answers questions; says so once for each time that is due.
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

    /// Whether it is known to answer questions.
    pub(super) fn answers(&self) -> bool {
        self.answers.load(Ordering::Relaxed)
    }

    /// What came out.
    pub(super) fn tested(&self, answers: bool) {
        self.answers.store(answers, Ordering::Relaxed);
    }

    /// Whether to ask a worker behind an answer that took so long whether it is back.
    pub(super) fn should_ask(&self, took: Duration, now: Instant) -> bool {
        if !self.answers.load(Ordering::Relaxed) {
            return false;
        }
        let wary = self.wary.load(Ordering::Relaxed);
        if wary > 0 {
            // Two connections that meet here count one answer for two, which does no harm.
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

    /// The backend reset a connection behind an answer that was not its first.
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
