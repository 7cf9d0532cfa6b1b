//! A timer in the kernel, because epoll counts milliseconds and a message may be due in between.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

/// A timerfd(2) on the monotonic clock, to be watched edge-triggered: it need not be read.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    ///
    /// Of timerfd_create(2).
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; what comes back is a descriptor that nobody else has, or -1.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: see above.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(timer) }))
    }

    /// Makes it readable once, after so much time; zero counts as a nanosecond. What it was set to before is forgotten.
    ///
    /// # Errors
    ///
    /// Of timerfd_settime(2).
    pub fn set(&self, left: Duration) -> io::Result<()> {
        // SAFETY: all of a timespec is numbers.
        let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
        spec.it_value.tv_sec = left.as_secs() as libc::time_t;
        spec.it_value.tv_nsec = libc::c_long::from(left.subsec_nanos().max(1) as i32);
        // SAFETY: the descriptor is a timer's and open; the kernel reads one itimerspec and writes none.
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
