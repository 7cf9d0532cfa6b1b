//! The budget of a call: instructions, and the processor time that they take.
//!
//! A loop around `string.rep` takes few instructions but any amount of time. So time counts as well, with a limit that plain code never
//! reaches. Slow steps of the standard library (`library`) are charged as instructions.
//!
//! The budget belongs to the thread: a call runs on one thread from beginning to end, and no other call runs on it meanwhile.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The processor time that each allowed instruction adds to the limit. Measured: unmasking bytes one by one takes 7 ns for each
/// instruction, and an empty loop 2 ns. A slow machine takes three times as long.
const PRICE: Duration = Duration::from_nanos(20);

/// Instructions between two checks of the clock: a few microseconds.
pub(super) const LOOK_EVERY: u64 = 1_000;

/// The script's error, which names the part of the budget that is used up.
const TOO_MANY: &str = "too many instructions in one call (max_instructions)";
const TOO_SLOW: &str = "too much processor time in one call (20 ns for each of max_instructions)";

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget::new(0)) };
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    max_instructions: u64,
    instructions: u64,
    /// Instructions since the last check of the clock.
    unlooked: u64,
    /// The time of the last check in this call.
    looked: Option<Instant>,
    /// The thread's processor time at the first check in this call.
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
            // Nothing slow happened since then, so the system call for the processor time is not needed.
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

/// Starts the budget of a call on this thread.
pub(super) fn renew(max_instructions: u64) {
    BUDGET.set(Budget::new(max_instructions));
}

/// Charges instructions that were run, or work that costs as much.
pub(super) fn charge(instructions: u64) {
    let mut budget = BUDGET.get();
    budget.charge(instructions);
    BUDGET.set(budget);
}

/// Instructions that are left.
pub(super) fn left() -> u64 {
    let budget = BUDGET.get();
    budget.max_instructions.saturating_sub(budget.instructions)
}

/// The error, if the budget is used up.
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
