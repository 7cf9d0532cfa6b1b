//! One coarse timer for all sessions.
//!
//! A session that wants to look at the clock later stands, by its id, in the slot of that tick; when the wheel comes round it
//! is told and decides for itself what is due. A deadline beyond the horizon is reached in several rounds. Of a session that
//! has ended nothing but the id remains here, and that until the wheel has come round.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::locks::lock;
use crate::proto::id::SessionId;

/// Length of a tick: deadlines are met this much late at most.
pub const TICK: Duration = Duration::from_millis(100);
/// Slots, and so the horizon: 25.6 s, about one ping interval.
const SLOTS: usize = 256;

/// A tick that is so late was not missed by a busy machine: the process was stopped (SIGSTOP, a paused virtual machine), or as good as
/// that. The wheel stood still with it, for no client could be heard in that time, and none is blamed for it.
const STOPPED: Duration = Duration::from_millis(300);

/// Ticks since the wheel was made, without those in which the process was stopped; 13 years fit.
pub type Tick = u32;

/// A duration in ticks, rounded up; at least one.
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
    u32::try_from(ticks).unwrap_or(u32::MAX / 2).max(1)
}

/// Ticks in seconds, as people read them: 846 ticks are 84.6. Divided rather than multiplied, because a tenth is no number of base two.
pub fn seconds(ticks: Tick) -> f64 {
    f64::from(ticks) / f64::from(1000 / TICK.as_millis() as u32)
}

/// See the module.
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

    /// Ticks the session when `due` has come, or at the horizon when that is nearer. Returns the tick it will be.
    pub fn arm(&self, id: SessionId, due: Tick) -> Tick {
        loop {
            let now = self.now();
            let due = due.clamp(now + 1, now + SLOTS as u32 - 1);
            let mut slot = self.slot(due);
            // The wheel turns before it locks a slot, so under the lock it is certain whether this one is still to come;
            // one that was just emptied would be looked at a whole turn later.
            if self.now() < due {
                slot.push(id);
                return due;
            }
        }
    }

    /// Turns for ever, and calls `visit` with each session whose tick has come; the owner aborts the task.
    pub async fn turn(self: Arc<Self>, visit: impl Fn(SessionId)) {
        let mut interval = tokio::time::interval(TICK);
        // What a busy machine has missed is made up for at once, each slot in its turn.
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
                    // Visited in its turn, it would have been told before the slot after the next is.
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
