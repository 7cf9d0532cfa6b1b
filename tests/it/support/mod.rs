//! Helpers of the tests: clients, nodes, php-fpm, engines, proxies and networks.

pub mod browser;
pub mod calls;
pub mod client;
pub mod cluster;
pub mod dev;
pub mod echo;
pub mod engine;
pub mod engine_clusters;
pub mod event_stream;
pub mod http;
pub mod longwire;
pub mod network;
pub mod php_fpm;
pub mod proxy;
pub mod raw_websocket;
pub mod router;
pub mod tls;
pub mod two_nodes;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The target folder, where cargo builds and `venv.sh` installs.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo makes it in its target folder").to_owned()
}

/// Makes the kernel send this signal to the child when the test run ends or is killed, so that no process is left behind.
pub fn end_with_the_run(command: &mut Command, signal: i32) {
    // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal);
            Ok(())
        });
    }
}

/// User and system time of a process (proc_pid_stat(5), fields 14 and 15).
pub fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, behind_name) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks = |field: usize| -> f64 {
        behind_name.split(' ').nth(field - 3).and_then(|ticks| ticks.parse().ok()).expect("a number of ticks")
    };
    // SAFETY: sysconf only reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64((ticks(14) + ticks(15)) / per_second as f64)
}
