//! How many descriptors this process may have.

use std::io;

/// Raises the limit as far as it may be, to `wanted` at most; what it is then (getrlimit(2), RLIMIT_NOFILE). It is never lowered.
///
/// # Errors
///
/// The kernel's. Without root nobody may go beyond the hard limit, which is no error here.
pub fn allow(wanted: usize) -> io::Result<usize> {
    let wanted = wanted as libc::rlim_t;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit behind the pointer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let possible = limit.rlim_max.min(wanted);
    if limit.rlim_cur < possible {
        limit.rlim_cur = possible;
        // SAFETY: the kernel reads one rlimit behind the pointer.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur as usize)
}
