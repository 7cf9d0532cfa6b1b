//! The lock of an outbox while it is held.

use std::ops::{Deref, DerefMut};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::Outbox;
use super::inner::Inner;

/// The locked part. Dropping it updates `is_quiet`.
pub(super) struct Guard<'a> {
    pub(super) inner: MutexGuard<'a, Inner>,
    pub(super) outbox: &'a Outbox,
}

impl Deref for Guard<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // The bytes that TLS has not sent yet change without this lock.
        let is_quiet = self.inner.is_quiet() && !self.outbox.link.keeps_bytes();
        self.outbox.is_quiet.store(is_quiet, Ordering::Release);
    }
}
