//! What a call may still use up: instructions, and the processor time of what those set off.
//!
//! A loop around `string.rep` takes few instructions and any amount of time, so time counts as well, at a price that plain
//! code never reaches. Steps of the standard library that can take long (`library`) are charged as instructions.
//!
//! It is the thread's: a call runs on one thread from its beginning to its end, and no other call runs there meanwhile.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Processor time for which an instruction is charged. Unmasking bytes one by one takes 7 ns for each, a bare loop 2 ns,
/// measured; a slow machine takes three times as long.
const PRICE: Duration = Duration::from_nanos(20);

/// Instructions between two looks at the clock: a few microseconds.
pub(super) const LOOK_EVERY: u64 = 1_000;

/// Which part of it is used up, as the script's error says it.
const TOO_MANY: &str = "too many instructions in one call (max_instructions)";
const TOO_SLOW: &str = "too much processor time in one call (20 ns for each of max_instructions)";

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget::new(0)) };
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    max_instructions: u64,
    instructions: u64,
    /// Of these, since the clock was last looked at.
    unlooked: u64,
    /// When that was, in this call.
    looked: Option<Instant>,
    /// The thread's processor time at the first look of this call.
    began: Duration,
    problem: Option<&'static str>,
}

impl Budget {
    const fn new(max_instructions: u64) -> Self {
        Self { max_instructions, instructions: 0, unlooked: 0, looked: None, began: Duration::ZERO, problem: None }
    }

    fn charge(&mut self, instructions: u64) {
        self.instructions = self.instructions.saturating_add(instructions);
        self.unlooked = self.unlooked.saturating_add(instructions);
        if self.instructions > self.max_instructions {
            self.problem.get_or_insert(TOO_MANY);
        }
        if self.unlooked < LOOK_EVERY {
            return;
        }
        let price = PRICE.as_nanos() * u128::from(std::mem::take(&mut self.unlooked));
        let now = Instant::now();
        match self.looked.replace(now) {
            None => self.began = thread_time(),
            // Nothing slow since then: the processor's clock, which costs a system call, need not be asked.
            Some(last) if (now - last).as_nanos() < price => {}
            Some(_) => {
                let spent = thread_time().saturating_sub(self.began).as_nanos();
                if spent > PRICE.as_nanos() * u128::from(self.max_instructions) {
                    self.problem.get_or_insert(TOO_SLOW);
                }
            }
        }
    }
}

/// A call begins on this thread, which may take so many instructions.
pub(super) fn renew(max_instructions: u64) {
    BUDGET.set(Budget::new(max_instructions));
}

/// So many instructions were run, or as much was done at once.
pub(super) fn charge(instructions: u64) {
    let mut budget = BUDGET.get();
    budget.charge(instructions);
    BUDGET.set(budget);
}

/// Instructions that may still be run.
pub(super) fn left() -> u64 {
    let budget = BUDGET.get();
    budget.max_instructions.saturating_sub(budget.instructions)
}

/// That it is used up, and what of it.
pub(super) fn problem() -> Option<&'static str> {
    BUDGET.get().problem
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a struct of the right type that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    if result != 0 {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
