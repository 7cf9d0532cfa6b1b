//! From a checked configuration to the exit status: the runtimes, the signals, the drain.
//!
//! There are two runtimes. The workers run everything of sessions, including framing scripts. The thread that called [`run`]
//! takes the signals, times the drain and serves the admin listener. So no script can keep the node from ending, or from answering
//! its health checks.

use std::io;
use std::process::ExitCode;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::config::model::Config;
use crate::memory;
use crate::node::{Extras, Running, StartError};
use crate::service_manager;

/// The effect of SIGHUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// Certificates are loaded again and the node goes on, as services do on a reload.
    Reload,
    /// The terminal was closed: the node drains, like a command that was started in that terminal.
    End,
}

/// Runs a node until SIGTERM, SIGINT or SIGQUIT, then drains it. A second such signal ends it at once. SIGUSR1 and SIGUSR2, which
/// other servers use, are logged and have no effect. `started` is called when everything listens.
///
/// The status is a success only after a drain that gave nothing up. A signal that comes while the node starts ends the start.
///
/// # Errors
///
/// The node did not start.
pub fn run(
    config: &Config,
    extras: &Extras,
    hangup: Hangup,
    started: impl FnOnce(&Running),
) -> Result<ExitCode, StartError> {
    memory::return_freed();
    let workers = workers(config.node.threads).map_err(StartError::Runtime)?;
    let control = Builder::new_current_thread().enable_all().build().map_err(StartError::Runtime)?;
    let status = control.block_on(async {
        // Before anything starts: otherwise a signal during the start would leave a php-fpm behind.
        let mut signals = Signals::new(hangup).map_err(StartError::Runtime)?;
        // It ends with this runtime, after the drain.
        tokio::spawn(service_manager::keep_alive(workers.handle().clone()));
        let (config, extras, control) = (config.clone(), extras.clone(), Handle::current());
        let mut starting = workers.spawn(async move { Running::start(&config, &extras, &control).await });
        let (start, is_over) = tokio::select! {
            start = &mut starting => (start, false),
            () = signals.end(None) => {
                // This aborts the start at its next await. If the node already accepts, there is no await left: the start then returns
                // the node, and its clients are drained.
                starting.abort();
                (starting.await, true)
            }
        };
        let node = match start {
            Ok(node) => node?,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_aborted) => {
                // Everything that had started has ended with the task.
                info!("stopped before the node had started");
                return Ok(ExitCode::FAILURE);
            }
        };
        node.log_start();
        if !is_over {
            started(&node);
            memory::unmap_used_code();
            service_manager::ready();
            signals.end(Some(&node)).await;
        }
        service_manager::stopping();
        let drained = node.drain(signals.end(None)).await;
        Ok(if drained.given_up == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    });
    // Work that was given up must not hold the process: blocking threads and tasks end with it.
    workers.shutdown_background();
    status
}

fn workers(threads: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name("longwire").enable_all().build()
}

struct Signals {
    hangup_means: Hangup,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    fn new(hangup_means: Hangup) -> io::Result<Self> {
        Ok(Self {
            hangup_means,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a signal that ends the node. `running` is the node while it serves; while it starts or drains, it loads no certificates.
    async fn end(&mut self, running: Option<&Running>) {
        loop {
            let (name, ends) = tokio::select! {
                _ = self.terminate.recv() => ("SIGTERM", true),
                _ = self.interrupt.recv() => ("SIGINT", true),
                _ = self.quit.recv() => ("SIGQUIT", true),
                _ = self.hangup.recv() => ("SIGHUP", self.hangup_means == Hangup::End),
                _ = self.user_1.recv() => ("SIGUSR1", false),
                _ = self.user_2.recv() => ("SIGUSR2", false),
            };
            if ends {
                info!(signal = name, "signal received");
                return;
            }
            match running.filter(|_| name == "SIGHUP") {
                Some(node) => reload(node, name),
                None => info!(signal = name, "signal received, it has no effect"),
            }
        }
    }
}

fn reload(node: &Running, signal: &'static str) {
    service_manager::reloading();
    if node.reload_certificates() {
        // Each listener has logged the result.
        info!(signal, "signal received, certificate reload finished");
    } else {
        info!(signal, "signal received, nothing to reload: no listener has TLS");
    }
    service_manager::ready();
}
