//! A kernel timer, because epoll has a resolution of milliseconds and messages may be due in between.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

/// A timerfd(2) on the monotonic clock. Watch it edge-triggered; then it need not be read.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    ///
    /// Those of timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; it returns a new descriptor that has no other owner, or -1.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: see above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(timer) }))
    }

    /// Makes it readable once, after this time; zero counts as a nanosecond. Replaces an earlier setting.
    ///
    /// # Errors
    ///
    /// Those of timerfd_settime(2).
    pub fn set(&self, left: Duration) -> io::Result<()> {
        // SAFETY: an itimerspec consists of numbers only, for which zero is valid.
        let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
        spec.it_value.tv_sec = left.as_secs() as libc::time_t;
        spec.it_value.tv_nsec = libc::c_long::from(left.subsec_nanos().max(1) as i32);
        // SAFETY: the descriptor is an open timer; the kernel reads one itimerspec and writes none.
        match unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
