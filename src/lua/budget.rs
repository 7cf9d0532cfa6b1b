//! What a call may still use up: instructions, and the processor time of what those set off.
//!
//! A loop around `string.rep` takes few instructions and any amount of time, so time counts as well, at a price that plain
//! code never reaches.

use std::time::{Duration, Instant};

/// Processor time for which an instruction is charged. Unmasking bytes one by one takes 7 ns for each, a bare loop 2 ns,
/// measured; a slow machine takes three times as long.
const PRICE: Duration = Duration::from_nanos(20);

/// Which part of it is used up, as the script's error says it.
const TOO_MANY: &str = "too many instructions in one call (max_instructions)";
const TOO_SLOW: &str = "too much processor time in one call (20 ns for each of max_instructions)";

/// See the module. Looked at every so many instructions, by the hook.
#[derive(Debug)]
pub(super) struct Budget {
    max_instructions: u64,
    instructions: u64,
    /// When it was last looked at, in this call.
    looked: Option<Instant>,
    /// The thread's processor time at the first look of this call.
    began: Duration,
    problem: Option<&'static str>,
}

impl Budget {
    pub(super) fn new(max_instructions: u64) -> Self {
        Self { max_instructions, instructions: 0, looked: None, began: Duration::ZERO, problem: None }
    }

    /// A call begins.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.max_instructions);
    }

    /// So many instructions were run.
    pub(super) fn charge(&mut self, instructions: u32) {
        self.instructions += u64::from(instructions);
        let last = self.looked.replace(Instant::now());
        match last {
            None => self.began = thread_time(),
            // Nothing slow since then: the processor's clock, which costs a system call, need not be asked.
            Some(last) if last.elapsed() < PRICE * instructions => {}
            Some(_) => {
                let spent = thread_time().saturating_sub(self.began).as_nanos();
                if spent > PRICE.as_nanos() * u128::from(self.max_instructions) {
                    self.problem.get_or_insert(TOO_SLOW);
                }
            }
        }
        if self.instructions > self.max_instructions {
            self.problem.get_or_insert(TOO_MANY);
        }
    }

    /// That it is used up, and what of it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        self.problem
    }
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
