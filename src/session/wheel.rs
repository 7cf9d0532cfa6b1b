//! One coarse timer for all sessions.
//!
//! A session that wants to look at the clock later stands in the slot of that tick; when the wheel comes round it is told
//! ([`Outbox::tick`]) and decides for itself what is due. A deadline beyond the horizon is reached in several rounds,
//! which also bounds how long a slot keeps the memory of a session that has ended.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::outbox::Outbox;

/// Length of a tick: deadlines are met this much late at most.
pub const TICK: Duration = Duration::from_millis(100);
/// Slots, and so the horizon: 25.6 s, about one ping interval.
const SLOTS: usize = 256;

/// Ticks since the wheel was made; 13 years fit.
pub type Tick = u32;

/// A duration in ticks, rounded up; at least one.
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(TICK.as_nanos());
    u32::try_from(ticks).unwrap_or(u32::MAX / 2).max(1)
}

/// See the module.
pub struct Wheel {
    now: AtomicU32,
    slots: Box<[Mutex<Vec<Weak<Outbox>>>]>,
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
    pub fn arm(&self, outbox: &Arc<Outbox>, due: Tick) -> Tick {
        loop {
            let now = self.now();
            let due = due.clamp(now + 1, now + SLOTS as u32 - 1);
            let mut slot = self.slot(due);
            // The wheel turns before it locks a slot, so under the lock it is certain whether this one is still to come;
            // one that was just emptied would be looked at a whole turn later.
            if self.now() < due {
                slot.push(Arc::downgrade(outbox));
                return due;
            }
        }
    }

    /// Turns for ever; the owner aborts the task.
    pub async fn turn(self: Arc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        // After a stall the missed slots are visited at once, each in its turn.
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        interval.tick().await;
        loop {
            interval.tick().await;
            self.advance();
        }
    }

    fn advance(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        let due = std::mem::take(&mut *self.slot(now));
        for outbox in due.iter().filter_map(Weak::upgrade) {
            outbox.tick();
        }
    }

    fn slot(&self, tick: Tick) -> std::sync::MutexGuard<'_, Vec<Weak<Outbox>>> {
        self.slots[tick as usize % SLOTS].lock().expect("nothing panics while a slot is locked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_for_the_next_tick_while_the_wheel_turns_does_not_wait_a_whole_turn() {
        let (socket, _peer) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let transport = crate::transport::Transport::new(socket).unwrap();
        let id = crate::proto::id::SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let terms = crate::outbox::Terms {
            listener: String::new(),
            app: String::new(),
            max_bytes: 1024,
            slow_reader: Default::default(),
            deflate_min_bytes: 0,
        };
        let outbox = Arc::new(Outbox::new(id, crate::proto::framing::Framing::Raw, terms.into(), transport));
        let wheel = Wheel::default();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    wheel.advance();
                }
            });
            let mut late = 0;
            for _ in 0..100_000 {
                let due = wheel.arm(&outbox, 0);
                let gone = |by| wheel.now() >= due + by;
                while !outbox.take_signals().tick {
                    // Visited in its turn, it would have been told before the slot after the next is.
                    if gone(SLOTS as u32 / 2) {
                        late += u32::from(!outbox.take_signals().tick);
                        break;
                    }
                }
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(late, 0, "times that the tick was missed");
        });
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
