//! What the tests share.

pub mod browser;
pub mod calls;
pub mod client;
pub mod cluster;
pub mod dev;
pub mod engine;
pub mod engine_clusters;
pub mod event_stream;
pub mod http;
pub mod longwire;
pub mod network;
pub mod php_fpm;
pub mod proxy;
pub mod router;
pub mod tls;
pub mod two_nodes;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo builds, and `venv.sh` installs.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo makes it in its target folder").to_owned()
}

/// A test run that is killed must not leave it behind: it gets this signal then.
pub fn end_with_the_run(command: &mut Command, signal: i32) {
    // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal);
            Ok(())
        });
    }
}
