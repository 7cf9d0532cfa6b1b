//! Connections that are held because a client does not read the answer.
//!
//! When the outbox of a session has no room for a reply, the connection to php-fpm is not read, and its worker is held. A few clients
//! that ask for much and read nothing could hold every worker. Therefore half of the connections are reserved for everyone else. If
//! more than half are held and requests wait, an answer that has waited for `slow_reader_hold` in all is broken off.
//!
//! ```text
//!             no room                       room
//!   reading ──────────> held ───────────────────────────────> reading
//!                        │ for slow_reader_hold in all,
//!                        │ too many are held, others wait
//!                        └─────────────────────────────────> broken off
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Time between checks whether an answer that has waited for long enough keeps other requests waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many of an upstream's connections are held, and how many may be.
#[derive(Debug)]
pub(super) struct Stalls {
    /// How long one connection may be held in all; zero sets no bound.
    patience: Duration,
    count: AtomicUsize,
    most: AtomicUsize,
}

impl Stalls {
    /// None is held.
    pub(super) fn new(patience: Duration, connections: usize) -> Self {
        Self { patience, count: AtomicUsize::new(0), most: AtomicUsize::new(connections / 2) }
    }

    /// Sets the number of connections from now on.
    pub(super) fn set_connections(&self, connections: usize) {
        self.most.store(connections / 2, Ordering::Relaxed);
    }

    /// Whether more connections are held than allowed while others wait.
    pub(super) fn are_too_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.most.load(Ordering::Relaxed)
    }
}

/// One answer that waits for its client, until it is dropped.
#[derive(Debug)]
pub(super) struct Stall<'a> {
    stalls: &'a Stalls,
    since: Instant,
    /// When to check whether it keeps other requests waiting.
    look_at: Option<Instant>,
}

impl<'a> Stall<'a> {
    /// Waits from `now` on, after it has already waited for `before`.
    pub(super) fn new(stalls: &'a Stalls, now: Instant, before: Duration) -> Self {
        stalls.count.fetch_add(1, Ordering::Relaxed);
        let look_at = (!stalls.patience.is_zero()).then(|| now + stalls.patience.saturating_sub(before));
        Self { stalls, since: now, look_at }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// When to check, if ever.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Whether the answer must be broken off now; `others_wait` says whether requests wait. If not, the next check is a little later.
    pub(super) fn is_over(&mut self, now: Instant, others_wait: bool) -> bool {
        let is_over = others_wait && self.stalls.are_too_many();
        if !is_over {
            self.look_at = Some(now + LOOK_AGAIN);
        }
        is_over
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.stalls.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_connections_may_be_held_and_nobody_is_broken_off_for_nobody() {
        let (stalls, start) = (Stalls::new(Duration::from_secs(1), 4), Instant::now());
        let mut waiting: Vec<_> = (0..3).map(|_| Stall::new(&stalls, start, Duration::ZERO)).collect();
        let at = waiting[0].look_at().expect("there is a bound");
        assert_eq!(at, start + Duration::from_secs(1));
        assert!(!waiting[0].is_over(at, false), "no request waits");
        assert_eq!(waiting[0].look_at(), Some(at + LOOK_AGAIN));
        assert!(waiting[0].is_over(at, true));
        waiting.remove(0);
        assert!(!waiting[0].is_over(at, true), "half of four may be held");
        stalls.set_connections(2);
        assert!(waiting[0].is_over(at, true));
    }

    #[test]
    fn what_it_has_waited_before_counts_and_zero_sets_no_bound() {
        let start = Instant::now();
        let stalls = Stalls::new(Duration::from_secs(1), 1);
        let look_at = |before| Stall::new(&stalls, start, Duration::from_millis(before)).look_at();
        assert_eq!((look_at(700), look_at(7000)), (Some(start + Duration::from_millis(300)), Some(start)));
        let unbound = Stalls::new(Duration::ZERO, 1);
        assert_eq!(Stall::new(&unbound, start, Duration::ZERO).look_at(), None);
    }
}
