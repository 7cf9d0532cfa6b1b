//! Names in a binary that has glibc in it, as the download and the packages have.
//!
//! glibc finds hosts, users and groups with the modules that `/etc/nsswitch.conf` names (nsswitch.conf(5)). It loads them as shared
//! libraries, also in a static binary, and a module of another glibc version can crash it. `files` and `dns` are built in (glibc 2.34,
//! NEWS), so these are the ones that are asked, whatever that file says.

/// Restricts the look-up of names to what is built in. Does nothing in a binary that uses the system's glibc. Names must not have been
/// looked up before.
pub fn use_only_built_in_names() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    {
        use std::ffi::{CStr, c_char, c_int};

        unsafe extern "C" {
            // nss.h: overrides a line of nsswitch.conf.
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }

        let lines: [(&CStr, &CStr); 3] = [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")];
        for (database, services) in lines {
            // SAFETY: both are static strings. main calls this first, so no other thread runs.
            unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        }
    }
}
