//! From a checked configuration to the exit status: the runtime, the signals, the drain.

use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::config::model::Config;
use crate::memory;
use crate::node::{Extras, Running, StartError};

/// Runs a node until SIGTERM or SIGINT, then drains it; a second signal ends it at once. `started` is called when
/// everything listens.
///
/// The status is a success only after a drain that gave nothing up.
///
/// # Errors
///
/// Why the node did not start.
pub fn run(config: &Config, extras: &Extras, started: impl FnOnce(&Running)) -> Result<ExitCode, StartError> {
    memory::return_freed();
    let runtime = runtime(config.node.threads).map_err(StartError::Runtime)?;
    let status = runtime.block_on(async {
        // Before anything starts: a signal in the meantime must not leave a php-fpm behind.
        let mut signals = Signals::new().map_err(StartError::Runtime)?;
        let node = tokio::select! {
            node = Running::start(config, extras) => node?,
            () = signals.next() => return Ok(ExitCode::FAILURE),
        };
        started(&node);
        memory::unmap_used_code();
        signals.end_or_reload(&node).await;
        let drained = node.drain(signals.next()).await;
        Ok(if drained.given_up == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    // What was given up must not hold the process: blocking threads and tasks end with it.
    runtime.shutdown_background();
    status
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("longwire").enable_all().build()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until the node is to stop; SIGHUP has it load its certificates again. Without any it means what it means elsewhere: the
    /// terminal is closed, and `longwire dev` must not go on without it.
    async fn end_or_reload(&mut self, node: &Running) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => "SIGHUP",
            };
            info!(signal = name, "signal received");
            if name != "SIGHUP" || !node.reload_certificates() {
                return;
            }
        }
    }

    async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "signal received");
    }
}
