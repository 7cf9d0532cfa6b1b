//! One rule for locks whose holder panicked: the next holder goes on with the data as it is.
//!
//! A panic ends the task that it happened in, and that is logged and counted there. A lock that stays poisoned would hand the panic to
//! every later task, for as long as the process runs. Our locks guard maps, queues and counters, whose methods leave them consistent
//! between two calls. `clippy.toml` refuses other ways to take one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, and waits until it is free.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_under_a_lock_is_nobody_elses() {
        let counted = Mutex::new(1);
        std::thread::scope(|scope| {
            let failing = scope.spawn(|| {
                *lock(&counted) += 1;
                let _held = lock(&counted);
                panic!("in a test");
            });
            assert!(failing.join().is_err());
        });
        assert_eq!(*lock(&counted), 2);
    }
}
