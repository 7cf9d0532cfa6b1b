//! The response to an exceeded limit: it is counted, logged at most every ten seconds, and enforced. Limits in
//! `dry_run` are counted and logged only, so that an operator can see which clients they would affect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::warn;

use crate::metrics::Metrics;
use crate::metrics::limits::Limit;
use crate::transport::Peer;

/// The shortest time between two log lines about one limit. A flood of clients must not flood the log.
const TELL_EVERY_MS: u64 = 10_000;

pub struct PassedLimits {
    metrics: Arc<Metrics>,
    started: Instant,
    limits: [LimitState; Limit::WORDS.len()],
    full: Telling,
}

#[derive(Debug, Default)]
struct LimitState {
    is_dry_run: bool,
    telling: Telling,
}

/// Limits how often a frequent event is logged.
#[derive(Debug, Default)]
struct Telling {
    /// How often it happened since the last line.
    untold: AtomicU64,
    /// When the next line may come.
    tell_at: AtomicU64,
}

impl Telling {
    /// Counts one more time. Returns the number of times since the last line if a new line is due.
    fn due(&self, now: u64) -> Option<u64> {
        let times = self.untold.fetch_add(1, Ordering::Relaxed) + 1;
        let tell_at = self.tell_at.load(Ordering::Relaxed);
        let next = now + TELL_EVERY_MS;
        // If several threads come at once, the one that sets `tell_at` logs.
        let tells = now >= tell_at
            && self.tell_at.compare_exchange(tell_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        tells.then(|| {
            self.untold.fetch_sub(times, Ordering::Relaxed);
            times
        })
    }
}

impl PassedLimits {
    /// Enforces every limit that is not in `dry_run`.
    pub fn new(dry_run: &[Limit], metrics: Arc<Metrics>) -> Self {
        let state =
            |(_, limit): &(&str, Limit)| LimitState { is_dry_run: dry_run.contains(limit), ..LimitState::default() };
        let limits = std::array::from_fn(|at| state(&Limit::WORDS[at]));
        Self { metrics, started: Instant::now(), limits, full: Telling::default() }
    }

    /// Whether a limit is counted and logged but not enforced.
    pub fn is_dry_run(&self, limit: Limit) -> bool {
        self.limits[limit as usize].is_dry_run
    }

    /// Counts that `peer` has exceeded `limit`. Returns true if the limit is to be enforced.
    pub fn acts_on(&self, limit: Limit, peer: Peer) -> bool {
        let state = &self.limits[limit as usize];
        let acts = !state.is_dry_run;
        self.metrics.limits.count(limit, acts);
        if let Some(times) = state.telling.due(self.now()) {
            warn!(limit = limit.label(), %peer, times, acted = acts, "limit exceeded");
        }
        acts
    }

    /// Logs that a connection was refused because the node is full. The metric of refused connections counts it.
    pub fn refused_for_want_of_room(&self, max_sessions: usize, peer: Peer) {
        if let Some(times) = self.full.due(self.now()) {
            warn!(max_sessions, %peer, times, "limit exceeded: connection refused, because the node already has max_sessions sessions");
        }
    }

    /// Milliseconds since this was made.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dry_run_has_no_consequence_and_is_counted_all_the_same() {
        let metrics = Arc::new(Metrics::default());
        let passed = PassedLimits::new(&[Limit::FrameTimeout], metrics.clone());
        assert!(passed.acts_on(Limit::AcceptRate, Peer::Unix));
        assert!(!passed.acts_on(Limit::FrameTimeout, Peer::Unix));
        assert!(!passed.acts_on(Limit::FrameTimeout, Peer::Unix));
        let text = metrics.encode();
        for line in [
            "longwire_limits_exceeded_total{limit=\"accept_rate\",acted=\"true\"} 1\n",
            "longwire_limits_exceeded_total{limit=\"frame_timeout\",acted=\"false\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }

    #[test]
    fn each_limit_has_a_state_of_its_own() {
        for (at, (word, limit)) in Limit::WORDS.iter().enumerate() {
            assert_eq!((*limit as usize, limit.label()), (at, *word));
        }
    }
}
