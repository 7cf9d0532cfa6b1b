//! Which backend takes the next request. Plain data: no clock, no locks, no sockets.
//!
//! The least busy backend wins, by `(busy + 1) / weight`; among equals, one that has an idle connection. A backend gets at most
//! `max_connections`, or the number that it reports itself if that is lower: php-fpm neither accepts nor refuses a connection
//! beyond its workers.
//!
//! ```text
//!            eject_after failures in a row
//!   Up ────────────────────────────────────> Ejected ── retry time ──> Trial (one connection)
//!    ^                                          ^  it does not answer     │
//!    │                                          └─────────────────────────┤
//!    └──────────── it is reachable (one more failure ejects again) ───────┘
//! ```
//!
//! An accepted connection does not prove that the backend is there: a relay in front of a stopped php-fpm accepts too (`probe`). Only
//! a complete answer ends the backoff of its trials.
//!
//! The retry time is `eject_time` while other backends are up. When none is, each is tried much sooner, with backoff: no other backend
//! could take the requests, and a php-fpm that was restarted should be found at once.

use std::time::{Duration, Instant};

/// First pause between trials when no backend is up. It doubles with each trial, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Where the next request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Placement<H> {
    /// An idle connection.
    Reuse(H),
    /// A connection that has to be opened.
    Open,
    /// The same, but only after a trial has shown that the backend is there.
    Trial,
}

/// The rules for all backends of an upstream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) max_connections: usize,
    pub(super) eject_after: u32,
    pub(super) eject_time: Duration,
}

/// The backends; `H` is the handle of an idle connection.
#[derive(Debug)]
pub(super) struct Backends<H> {
    rules: Rules,
    list: Vec<Backend<H>>,
}

#[derive(Debug)]
struct Backend<H> {
    weight: u32,
    /// The most connections: `max_connections`, or fewer if the backend has said so.
    limit: usize,
    /// Connections that count against `limit`: being opened, running a request, idle, or closed by us while
    /// the worker behind them may still be busy.
    open: usize,
    /// Connections that are not idle, including those kept for a worker that we gave up on.
    busy: usize,
    idle: Vec<H>,
    health: Health,
    /// Trials since the last complete answer.
    trials: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up { failures: u32 },
    Ejected { since: Instant },
    Trial,
}

/// The effect of a failure on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureEffect {
    /// The backend stays up, or stays ejected.
    Unchanged,
    /// The backend gets no requests from now on.
    Ejected,
}

/// Whether a backend needs a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeNeed {
    /// No probe: an open connection tells more than a probe could, or the backend is ejected and its retry time has not come.
    Known,
    /// No connection is open, so a probe can tell something. Failures in a row; `u32::MAX` if the backend is ejected.
    Quiet { failures: u32 },
}

impl<H> Backends<H> {
    /// All up, nothing open.
    pub(super) fn new(rules: Rules, weights: impl IntoIterator<Item = u32>) -> Self {
        let list = weights
            .into_iter()
            .map(|weight| Backend {
                weight: weight.max(1),
                limit: rules.max_connections,
                open: 0,
                busy: 0,
                idle: Vec::new(),
                health: Health::Up { failures: 0 },
                trials: 0,
            })
            .collect();
        Self { rules, list }
    }

    /// Finds a place for one more request, and counts it. `None` if every backend is busy or ejected.
    pub(super) fn place(&mut self, now: Instant) -> Option<(usize, Placement<H>)> {
        let none_up = self.up() == 0;
        let at = (0..self.list.len())
            .filter(|at| self.has_room(*at, none_up, now))
            .min_by(|a, b| self.list[*a].load_against(&self.list[*b]))?;
        let backend = &mut self.list[at];
        backend.busy += 1;
        if let Some(handle) = backend.idle.pop() {
            return Some((at, Placement::Reuse(handle)));
        }
        backend.open += 1;
        if let Health::Ejected { .. } = backend.health {
            backend.health = Health::Trial;
            return Some((at, Placement::Trial));
        }
        Some((at, Placement::Open))
    }

    fn has_room(&self, at: usize, none_up: bool, now: Instant) -> bool {
        let backend = &self.list[at];
        match backend.health {
            Health::Up { .. } => !backend.idle.is_empty() || backend.open < backend.limit,
            Health::Ejected { since } => {
                backend.open < backend.limit && since + self.pause(none_up, backend.trials) <= now
            }
            Health::Trial => false,
        }
    }

    fn pause(&self, none_up: bool, trials: u32) -> Duration {
        if none_up {
            (FIRST_PAUSE * (1 << trials.min(8))).min(LAST_PAUSE).min(self.rules.eject_time)
        } else {
            self.rules.eject_time
        }
    }

    /// When an ejected backend may be tried again; `None` if there is none to try.
    pub(super) fn next_trial(&self) -> Option<Instant> {
        let up = self.up();
        if up == self.list.len() {
            return None;
        }
        let none_up = up == 0;
        let times = self.list.iter().filter_map(|backend| match backend.health {
            Health::Ejected { since } if backend.open < backend.limit => {
                Some(since + self.pause(none_up, backend.trials))
            }
            _ => None,
        });
        times.min()
    }

    /// A request ended and its connection waits for another. The connection used last is used first, so that the others
    /// can close. A connection whose worker `is_back` is used before one whose worker is not.
    pub(super) fn idle(&mut self, at: usize, handle: H, is_back: bool) {
        let backend = &mut self.list[at];
        backend.busy -= 1;
        let place = if is_back { backend.idle.len() } else { 0 };
        backend.idle.insert(place, handle);
    }

    /// An idle connection turns out to have a busy worker. False if the connection was given a request a moment ago.
    pub(super) fn busy_after_all(&mut self, at: usize, is_it: impl Fn(&H) -> bool) -> bool {
        let backend = &mut self.list[at];
        let found = backend.idle.iter().position(is_it);
        if let Some(found) = found {
            backend.idle.remove(found);
            backend.busy += 1;
        }
        found.is_some()
    }

    /// Removes one idle connection, which is to be closed. False if it was given a request a moment ago.
    pub(super) fn take_idle(&mut self, at: usize, is_it: impl Fn(&H) -> bool) -> bool {
        let backend = &mut self.list[at];
        let found = backend.idle.iter().position(is_it);
        if let Some(found) = found {
            backend.idle.remove(found);
            backend.open -= 1;
        }
        found.is_some()
    }

    /// A connection that ran a request, or was about to, is closed.
    pub(super) fn closed(&mut self, at: usize) {
        self.list[at].busy -= 1;
        self.list[at].open -= 1;
    }

    /// A trial ended without a result, because its request was given up.
    pub(super) fn trial_given_up(&mut self, at: usize, now: Instant) {
        if self.list[at].health == Health::Trial {
            self.list[at].health = Health::Ejected { since: now };
        }
    }

    /// The trial of a backend has shown that it is still away.
    pub(super) fn trial_failed(&mut self, at: usize, now: Instant) -> FailureEffect {
        self.trial_given_up(at, now);
        self.list[at].trials = self.list[at].trials.saturating_add(1);
        FailureEffect::Unchanged
    }

    /// Trials of this backend since its last complete answer.
    pub(super) fn trials(&self, at: usize) -> u32 {
        self.list[at].trials
    }

    /// The backend is reachable. An ejected one is up again, on probation. True if it was ejected.
    pub(super) fn is_there(&mut self, at: usize) -> bool {
        let health = &mut self.list[at].health;
        let was_away = !matches!(health, Health::Up { .. });
        if was_away {
            *health = Health::Up { failures: self.rules.eject_after.saturating_sub(1) };
            // A backend that is reachable and keeps failing is tried less and less often too.
            self.list[at].trials = self.list[at].trials.saturating_add(1);
        }
        was_away
    }

    /// The backend gave a complete answer.
    pub(super) fn succeeded(&mut self, at: usize) {
        if let Health::Up { failures } = &mut self.list[at].health {
            *failures = 0;
            self.list[at].trials = 0;
        }
    }

    /// The backend could not be connected to, or broke a connection. Failures of connections from before an ejection change
    /// nothing.
    pub(super) fn failed(&mut self, at: usize, now: Instant) -> FailureEffect {
        let health = &mut self.list[at].health;
        match *health {
            Health::Up { failures } if failures.saturating_add(1) < self.rules.eject_after => {
                *health = Health::Up { failures: failures + 1 };
                FailureEffect::Unchanged
            }
            Health::Up { .. } => {
                *health = Health::Ejected { since: now };
                FailureEffect::Ejected
            }
            Health::Trial | Health::Ejected { .. } => FailureEffect::Unchanged,
        }
    }

    /// The first probe did not find the backend. Nothing suggests that it works, so one failure is enough.
    pub(super) fn absent(&mut self, at: usize, now: Instant) -> FailureEffect {
        if let Health::Up { failures } = &mut self.list[at].health {
            *failures = self.rules.eject_after;
        }
        self.failed(at, now)
    }

    /// Whether a probe of this backend could tell something new.
    pub(super) fn probe_need(&self, at: usize, now: Instant) -> ProbeNeed {
        let backend = &self.list[at];
        match backend.health {
            _ if backend.open > 0 => ProbeNeed::Known,
            Health::Up { failures } => ProbeNeed::Quiet { failures },
            Health::Ejected { since } if since + self.pause(self.up() == 0, backend.trials) <= now => {
                ProbeNeed::Quiet { failures: u32::MAX }
            }
            Health::Ejected { .. } | Health::Trial => ProbeNeed::Known,
        }
    }

    /// The backend says how many connections it takes. That can lower its limit and never raises it above
    /// `max_connections`. Connections beyond the limit close when their request has ended.
    pub(super) fn told_limit(&mut self, at: usize, connections: usize) {
        self.list[at].limit = connections.clamp(1, self.rules.max_connections);
    }

    /// The most connections of one backend.
    pub(super) fn limit(&self, at: usize) -> usize {
        self.list[at].limit
    }

    /// The most connections of all.
    pub(super) fn limits(&self) -> usize {
        self.list.iter().map(|backend| backend.limit).sum()
    }

    /// Whether more connections are open than the limit allows.
    pub(super) fn is_over(&self, at: usize) -> bool {
        self.list[at].open > self.list[at].limit
    }

    /// Every idle connection, to tell it to close. Each stays counted until it closes.
    pub(super) fn all_idle(&self) -> impl Iterator<Item = &H> {
        self.list.iter().flat_map(|backend| &backend.idle)
    }

    /// Whether this one takes requests.
    pub(super) fn is_up(&self, at: usize) -> bool {
        matches!(self.list[at].health, Health::Up { .. })
    }

    /// How many backends take requests.
    pub(super) fn up(&self) -> usize {
        (0..self.list.len()).filter(|at| self.is_up(*at)).count()
    }

    /// Connections of all backends: open, and of these busy.
    pub(super) fn totals(&self) -> (usize, usize) {
        self.list.iter().fold((0, 0), |(open, busy), backend| (open + backend.open, busy + backend.busy))
    }

    /// Connections of one backend: open, and of these busy.
    pub(super) fn counts(&self, at: usize) -> (usize, usize) {
        (self.list[at].open, self.list[at].busy)
    }
}

impl<H> Backend<H> {
    fn load_against(&self, other: &Self) -> std::cmp::Ordering {
        // (busy + 1) / weight, compared crosswise to stay in whole numbers.
        let ours = (self.busy as u64 + 1) * u64::from(other.weight);
        let theirs = (other.busy as u64 + 1) * u64::from(self.weight);
        ours.cmp(&theirs).then_with(|| other.idle.len().min(1).cmp(&self.idle.len().min(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { max_connections: 4, eject_after: 3, eject_time: Duration::from_secs(10) };

    fn backends(weights: &[u32]) -> Backends<u32> {
        Backends::new(RULES, weights.iter().copied())
    }

    fn eject(backends: &mut Backends<u32>, at: usize, now: Instant) {
        let effects: Vec<_> = (0..3).map(|_| backends.failed(at, now)).collect();
        assert_eq!(effects, [FailureEffect::Unchanged, FailureEffect::Unchanged, FailureEffect::Ejected]);
    }

    #[test]
    fn requests_spread_by_weight_and_no_backend_exceeds_its_connections() {
        let mut backends = backends(&[1, 2]);
        let now = Instant::now();
        let places: Vec<_> = std::iter::from_fn(|| backends.place(now)).map(|(at, _)| at).collect();
        assert_eq!(places.len(), 8);
        assert_eq!(places[..6].iter().filter(|at| **at == 1).count(), 4, "{places:?}");
    }

    #[test]
    fn an_idle_connection_is_used_before_another_is_opened_elsewhere() {
        let mut backends = backends(&[1, 1]);
        let now = Instant::now();
        assert_eq!(backends.place(now), Some((0, Placement::Open)));
        assert_eq!(backends.place(now), Some((1, Placement::Open)));
        backends.closed(0);
        backends.idle(1, 7, true);
        assert_eq!(backends.place(now), Some((1, Placement::Reuse(7))));
        backends.idle(1, 8, true);
        assert!(!backends.take_idle(1, |handle| *handle == 7));
        assert!(backends.take_idle(1, |handle| *handle == 8));
        assert_eq!(backends.counts(1), (0, 0));
    }

    #[test]
    fn of_idle_connections_the_last_used_is_taken_unless_its_worker_is_not_back() {
        let mut backends = backends(&[1]);
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(backends.place(now), Some((0, Placement::Open)));
        }
        for (handle, is_back) in [(1, true), (2, true), (3, false)] {
            backends.idle(0, handle, is_back);
        }
        assert!(!backends.busy_after_all(0, |handle| *handle == 9));
        assert!(backends.busy_after_all(0, |handle| *handle == 1));
        assert_eq!(backends.counts(0), (3, 1));
        let order: Vec<_> = (0..3).map(|_| backends.place(now).expect("room")).collect();
        assert_eq!(order, [(0, Placement::Reuse(2)), (0, Placement::Reuse(3)), (0, Placement::Open)]);
    }

    #[test]
    fn what_a_backend_says_lowers_its_own_connections_and_never_raises_them() {
        let mut backends = backends(&[1, 1]);
        let now = Instant::now();
        backends.told_limit(0, 1);
        backends.told_limit(1, 900);
        let places: Vec<_> = std::iter::from_fn(|| backends.place(now)).map(|(at, _)| at).collect();
        assert_eq!(places.iter().filter(|at| **at == 0).count(), 1);
        assert_eq!((places.len(), backends.limits()), (5, 5));
        backends.told_limit(1, 3);
        assert!(backends.is_over(1) && !backends.is_over(0));
        backends.closed(1);
        assert!(!backends.is_over(1));
        assert_eq!(backends.place(now), None);
        backends.told_limit(1, 0);
        assert_eq!(backends.limit(1), 1, "a backend that takes none would not have answered");
    }

    #[test]
    fn an_ejected_backend_gets_one_trial_after_eject_time_while_another_is_up() {
        let mut backends = backends(&[1, 1]);
        let start = Instant::now();
        eject(&mut backends, 0, start);
        assert_eq!((backends.up(), backends.next_trial()), (1, Some(start + RULES.eject_time)));
        let before: Vec<_> = (0..4).map(|_| backends.place(start)).map(|place| place.map(|(at, _)| at)).collect();
        assert_eq!((before, backends.place(start)), (vec![Some(1); 4], None));

        let later = start + RULES.eject_time;
        assert_eq!(backends.place(later), Some((0, Placement::Trial)));
        assert_eq!(backends.place(later), None, "one trial at a time");
        assert_eq!(backends.failed(0, later), FailureEffect::Unchanged);
        assert_eq!(backends.place(later), None, "whatever ends meanwhile");
        assert!(backends.is_there(0));
        assert_eq!(backends.place(later), Some((0, Placement::Open)));
        assert_eq!(backends.failed(0, later), FailureEffect::Ejected, "on probation one failure is enough");
    }

    #[test]
    fn when_none_is_up_trials_come_soon_and_back_off() {
        let mut backends = backends(&[1]);
        let mut now = Instant::now();
        eject(&mut backends, 0, now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let at = backends.next_trial().expect("it is tried again");
            pauses.push((at - now).as_millis());
            now = at;
            assert_eq!(backends.place(now), Some((0, Placement::Trial)));
            backends.trial_failed(0, now);
            backends.closed(0);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 500, 500, 500]);
    }

    #[test]
    fn only_an_answer_ends_the_backoff_of_a_backend_that_is_there_and_fails() {
        let mut backends = backends(&[1]);
        let mut now = Instant::now();
        eject(&mut backends, 0, now);
        let mut pauses = Vec::new();
        for round in 0..6 {
            let at = backends.next_trial().expect("it is tried again");
            pauses.push((at - now).as_millis());
            now = at;
            assert_eq!(backends.place(now), Some((0, Placement::Trial)));
            assert!(backends.is_there(0));
            if round == 3 {
                backends.succeeded(0);
                assert_eq!([(); 2].map(|()| backends.failed(0, now)), [FailureEffect::Unchanged; 2]);
            }
            assert_eq!(backends.failed(0, now), FailureEffect::Ejected, "on probation one failure is enough");
            backends.closed(0);
        }
        assert_eq!(pauses, [20, 40, 80, 160, 20, 40]);
    }

    #[test]
    fn a_probe_is_for_those_that_nobody_hears_of() {
        let mut backends = backends(&[1, 1]);
        let now = Instant::now();
        assert_eq!(backends.probe_need(0, now), ProbeNeed::Quiet { failures: 0 });
        assert_eq!(backends.place(now), Some((0, Placement::Open)));
        assert_eq!(backends.probe_need(0, now), ProbeNeed::Known, "its connection tells");
        backends.failed(0, now);
        backends.closed(0);
        assert_eq!(backends.probe_need(0, now), ProbeNeed::Quiet { failures: 1 });

        assert_eq!(backends.absent(1, now), FailureEffect::Ejected, "one failure is enough at the first look");
        assert_eq!(backends.probe_need(1, now), ProbeNeed::Known, "while another is up it is left alone");
        assert_eq!(backends.probe_need(1, now + RULES.eject_time), ProbeNeed::Quiet { failures: u32::MAX });
        assert_eq!(backends.absent(0, now), FailureEffect::Ejected);
        assert_eq!(backends.probe_need(1, now + FIRST_PAUSE), ProbeNeed::Quiet { failures: u32::MAX });
        assert!(backends.is_there(1));
        assert_eq!(backends.probe_need(1, now), ProbeNeed::Quiet { failures: 2 });
    }

    #[test]
    fn a_success_forgives_what_came_before() {
        let mut backends = backends(&[1]);
        let now = Instant::now();
        for _ in 0..5 {
            assert_eq!(backends.failed(0, now), FailureEffect::Unchanged);
            assert_eq!(backends.failed(0, now), FailureEffect::Unchanged);
            backends.succeeded(0);
        }
    }

    #[test]
    fn a_trial_that_was_given_up_is_neither_success_nor_failure() {
        let mut backends = backends(&[1]);
        let now = Instant::now();
        eject(&mut backends, 0, now);
        let soon = now + FIRST_PAUSE;
        assert!(backends.place(soon).is_some());
        backends.closed(0);
        backends.trial_given_up(0, soon);
        assert_eq!(backends.next_trial(), Some(soon + FIRST_PAUSE));
    }

    proptest! {
        #[test]
        fn counts_stay_within_bounds_whatever_happens(steps in prop::collection::vec((0u8..7, 0usize..3), 0..400)) {
            let mut backends = backends(&[1, 2, 3]);
            let mut now = Instant::now();
            // The state that a scheduler would know: which connections run and which are idle, per backend.
            let (mut running, mut idle): (Vec<usize>, Vec<(usize, u32)>) = (Vec::new(), Vec::new());
            for (handle, (step, at)) in (0u32..).zip(steps) {
                match step {
                    0 | 1 => if let Some((at, place)) = backends.place(now) {
                        if let Placement::Reuse(handle) = place {
                            let found = idle.iter().position(|other| *other == (at, handle));
                            idle.remove(found.expect("only idle connections are reused"));
                        }
                        running.push(at);
                    },
                    2 => if let Some(at) = running.pop() {
                        backends.idle(at, handle, handle % 3 > 0);
                        idle.push((at, handle));
                    },
                    3 => if let Some(at) = running.pop() { backends.closed(at) },
                    4 => { backends.failed(at, now); }
                    5 => { backends.trial_failed(at, now); }
                    _ => { backends.is_there(at); now += Duration::from_millis(700); }
                }
                for at in 0..3 {
                    let busy = running.iter().filter(|other| **other == at).count();
                    let kept = idle.iter().filter(|(other, _)| *other == at).count();
                    prop_assert_eq!(backends.counts(at), (busy + kept, busy));
                    prop_assert!(busy + kept <= RULES.max_connections);
                }
            }
        }
    }
}
