//! One coarse timer for all sessions.
//!
//! A session that has a deadline puts its id into the slot of that tick. When the wheel reaches the slot, the session
//! is called and decides for itself which deadlines have passed. A deadline beyond the horizon takes several rounds.
//! After a session has ended, only its id stays in its slot, until the wheel reaches that slot.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::locks::lock;
use crate::proto::id::SessionId;

/// The length of a tick. A deadline is noticed at most this much late.
pub const TICK: Duration = Duration::from_millis(100);
/// The number of slots. It sets the horizon: 25.6 s, about one ping interval.
const SLOTS: usize = 256;

/// A tick later than this is not explained by a busy machine: the process was stopped (SIGSTOP, a paused virtual
/// machine) or nearly so. The wheel stands still for that time. The node could not read from any client, so no client
/// is blamed.
const STOPPED: Duration = Duration::from_millis(300);

/// Ticks since the wheel was made, without those in which the process was stopped. 13 years fit.
pub type Tick = u32;

/// A duration in ticks, rounded up; at least one.
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
    u32::try_from(ticks).unwrap_or(u32::MAX / 2).max(1)
}

/// Ticks in seconds, for people: 846 ticks are 84.6. It divides rather than multiplies, because 0.1 has no exact binary
/// value.
pub fn seconds(ticks: Tick) -> f64 {
    f64::from(ticks) / f64::from(1000 / TICK.as_millis() as u32)
}

pub struct Wheel {
    now: AtomicU32,
    slots: Box<[Mutex<Vec<SessionId>>]>,
}

impl Default for Wheel {
    fn default() -> Self {
        Self { now: AtomicU32::new(0), slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }
}

impl Wheel {
    /// The current tick.
    pub fn now(&self) -> Tick {
        self.now.load(Ordering::Relaxed)
    }

    /// Calls the session at the tick `due`, or at the horizon if that is nearer. Returns the tick of the call.
    pub fn arm(&self, id: SessionId, due: Tick) -> Tick {
        loop {
            let now = self.now();
            let due = due.clamp(now + 1, now + SLOTS as u32 - 1);
            let mut slot = self.slot(due);
            // The wheel turns before it locks a slot. So under the lock it is certain whether this slot is still to
            // come. An id in a slot that was just emptied would wait for a whole turn.
            if self.now() < due {
                slot.push(id);
                return due;
            }
        }
    }

    /// Turns for ever and calls `visit` with each session whose tick has come. The owner aborts the task.
    pub async fn turn(self: Arc<Self>, visit: impl Fn(SessionId)) {
        let mut interval = tokio::time::interval(TICK);
        // Ticks that a busy machine missed are made up for at once, slot by slot.
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        interval.tick().await;
        loop {
            let due = interval.tick().await;
            if due.elapsed() > STOPPED {
                interval.reset();
            }
            self.advance(&visit);
        }
    }

    pub(super) fn advance(&self, visit: impl Fn(SessionId)) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let due = std::mem::take(&mut *self.slot(now));
        due.into_iter().for_each(visit);
    }

    fn slot(&self, tick: Tick) -> MutexGuard<'_, Vec<SessionId>> {
        lock(&self.slots[tick as usize % SLOTS])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn seconds_have_one_decimal() {
        for tick in 0..100_000 {
            let text = seconds(tick).to_string();
            assert!(text.split_once('.').is_none_or(|(_, decimals)| decimals.len() == 1), "{tick} ticks are {text}");
        }
        assert_eq!(seconds(846), 84.6);
    }

    #[test]
    fn who_asks_for_the_next_tick_while_the_wheel_turns_does_not_wait_a_whole_turn() {
        let id = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let wheel = Wheel::default();
        let (is_over, ticks) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    wheel.advance(|visited| {
                        assert_eq!(visited, id);
                        ticks.fetch_add(1, Ordering::AcqRel);
                    });
                }
            });
            let mut late = 0;
            for asked in 1..=100_000 {
                let due = wheel.arm(id, 0);
                while ticks.load(Ordering::Acquire) < asked {
                    // A session that was armed in time would have been called long before.
                    if wheel.now() >= due + SLOTS as u32 / 2 {
                        late += u32::from(ticks.load(Ordering::Acquire) < asked);
                        ticks.fetch_max(asked, Ordering::AcqRel);
                        break;
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(late, 0, "times that the tick was missed");
        });
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_missed_is_made_up_for_and_time_in_which_nothing_ran_is_not() {
        let wheel = Arc::new(Wheel::default());
        let turning = tokio::spawn(wheel.clone().turn(|_| {}));
        tokio::task::yield_now().await;
        let mut expected = 0;
        for (pause, ticks) in [(100, 1), (250, 2), (3000, 1), (100, 1), (60_000, 1), (300, 3)] {
            tokio::time::advance(Duration::from_millis(pause)).await;
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            expected += ticks;
            assert_eq!(wheel.now(), expected, "after {pause} ms");
        }
        turning.abort();
    }

    #[test]
    fn durations_round_up_to_ticks() {
        let cases = [(0, 1), (1, 1), (100, 1), (101, 2), (25_000, 250)];
        for (millis, expected) in cases {
            assert_eq!(ticks(Duration::from_millis(millis)), expected);
        }
        assert!(ticks(Duration::MAX) > 1_000_000_000);
    }
}
