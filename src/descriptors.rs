//! How many file descriptors this process may have, and how they are shared out.

use std::io;

/// Raises the limit on open files (getrlimit(2), RLIMIT_NOFILE) to `wanted`, or as far as the hard limit allows. Returns the limit
/// that then holds. It is never lowered.
///
/// # Errors
///
/// The kernel's. Without root the hard limit cannot be exceeded, which is no error here.
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

/// How many descriptors are open; 0 where there is no `/proc` (proc_pid_fd(5)).
pub fn open() -> usize {
    // Reading the folder takes one descriptor itself.
    std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count().saturating_sub(1))
}

/// The most connections of each kind. Descriptors for php-fpm and everything else are not counted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub sessions: usize,
    /// Connections to the router port.
    pub router: usize,
    /// Connections to the API.
    pub api: usize,
}

/// Where descriptors are scarce, the router port and the API get a sixteenth each, and at least this many.
const LEAST: usize = 8;

impl Shares {
    /// The wanted shares, if `descriptors` are enough for them and for `others`. Otherwise they are cut down to fit.
    pub fn within(self, descriptors: usize, others: usize) -> Self {
        if self.total() + others <= descriptors {
            return self;
        }
        let left = descriptors.saturating_sub(others);
        let door = (left / 16).max(LEAST);
        let (router, api) = (self.router.min(door), self.api.min(door));
        Self { sessions: self.sessions.min(left.saturating_sub(router + api)).max(1), router, api }
    }

    /// The sum of all shares.
    pub fn total(self) -> usize {
        self.sessions + self.router + self.api
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_is_left_to_them_however_few_there_are() {
        let wanted = Shares { sessions: 100_000, router: 4096, api: 1024 };
        assert_eq!(wanted.within(200_000, 300), wanted);
        assert_eq!(wanted.within(20_300, 300), Shares { sessions: 17_726, router: 1250, api: 1024 });
        assert_eq!(wanted.within(0, 300), Shares { sessions: 1, router: 8, api: 8 });
        for descriptors in (400..110_000).step_by(97) {
            assert!(wanted.within(descriptors, 300).total() + 300 <= descriptors);
        }
    }
}
