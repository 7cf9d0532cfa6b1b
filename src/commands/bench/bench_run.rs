//! The common part of every run: its connections, its phases and its progress lines.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::BenchError;
use super::process::Usage;
use super::swarm::{Load, Measured, Nanos, Swarm};
use crate::commands::cli::{BenchArgs, TimeArgs};
use crate::descriptors;
use crate::logging;

/// File descriptors needed besides those of connections: standard streams, epoll, timer, /proc, and a few spare ones.
const OTHER_DESCRIPTORS: usize = 16;
const SECOND: Nanos = 1_000_000_000;

pub(super) struct BenchRun<'a> {
    pub(super) swarm: Swarm,
    pub(super) args: &'a BenchArgs,
    progress: ProgressLine,
}

impl<'a> BenchRun<'a> {
    /// Prepares a run with this many connections: raises the limit of open files if needed.
    pub(super) fn new(connections: usize, args: &'a BenchArgs) -> Result<Self, BenchError> {
        raise_descriptors(connections)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second Ctrl-C ends the program at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .map_err(BenchError::System)?;
            signal_hook::flag::register(signal, interrupted.clone()).map_err(BenchError::System)?;
        }
        for pid in &args.pid {
            if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
                return Err(BenchError::Usage(format!("--pid {pid}: no such process")));
            }
        }
        let swarm = Swarm::new(args.timeout, interrupted).map_err(BenchError::System)?;
        Ok(Self { swarm, args, progress: ProgressLine::new(args) })
    }

    /// Runs until a given time, until the load is done, or until Ctrl-C.
    pub(super) fn go<L: Load>(
        &mut self,
        load: &mut L,
        until: Nanos,
        done: impl Fn(&L, &Swarm) -> bool,
    ) -> Result<(), BenchError> {
        loop {
            let now = self.swarm.now();
            if now >= until || self.swarm.is_interrupted() || done(load, &self.swarm) {
                return Ok(());
            }
            let wake = load.tick(&mut self.swarm, now);
            self.progress.tick(now, || load.line(now));
            self.swarm.turn(load, wake.min(until)).map_err(BenchError::System)?;
        }
    }

    /// Warms up and measures. Returns the CPU usage at the begin and at the end of the measurement.
    pub(super) fn measure<L: Measured>(&mut self, load: &mut L, times: &TimeArgs) -> Result<[Usage; 2], BenchError> {
        if !times.warm_up.is_zero() {
            load.start(&mut self.swarm);
            let warm = self.after(times.warm_up);
            self.go(load, warm, |load, _| load.is_deserted())?;
        }
        let before = self.usage();
        load.begin(self.swarm.now());
        self.event("begin");
        if times.warm_up.is_zero() {
            // Without warm-up the load starts after `begin`, so that the first messages count.
            load.start(&mut self.swarm);
        }
        let end = self.after(times.duration);
        self.go(load, end, |load, _| load.is_deserted())?;
        load.stop(self.swarm.now());
        let after = self.usage();
        self.event("end");
        Ok([before, after])
    }

    /// With `--json`, prints an event line for the calling program.
    pub(super) fn event(&mut self, what: &str) {
        if self.args.json {
            // The caller may have closed the pipe, which is not an error.
            let _closed = writeln!(io::stdout(), "{{\"event\":\"{what}\"}}").and_then(|()| io::stdout().flush());
        }
    }

    /// CPU time so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::now(&self.args.pid)
    }

    /// The time after this duration from now.
    pub(super) fn after(&self, time: Duration) -> Nanos {
        self.swarm.now().saturating_add(time.as_nanos() as Nanos)
    }

    /// Closes all connections and ends the progress lines.
    pub(super) fn finish(&mut self) {
        self.progress.end();
        self.swarm.reset_all();
    }
}

/// Prints a progress line every second. On a terminal each line overwrites the one before.
struct ProgressLine {
    next: Nanos,
    is_terminal: bool,
    is_quiet: bool,
    is_shown: bool,
}

impl ProgressLine {
    fn new(args: &BenchArgs) -> Self {
        Self {
            next: SECOND,
            is_terminal: io::stderr().is_terminal() && !args.json,
            is_quiet: args.quiet,
            is_shown: false,
        }
    }

    fn tick(&mut self, now: Nanos, line: impl FnOnce() -> String) {
        if self.is_quiet || now < self.next {
            return;
        }
        self.next = (now / SECOND + 1) * SECOND;
        if self.is_terminal {
            logging::tell(format_args!("\r\x1b[K{}", line()));
            self.is_shown = true;
        } else {
            logging::tell(format_args!("{}\n", line()));
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            logging::tell("\r\x1b[K");
        }
    }
}

fn raise_descriptors(connections: usize) -> Result<(), BenchError> {
    let needed = connections + OTHER_DESCRIPTORS;
    let allowed = descriptors::allow(needed).map_err(BenchError::System)?;
    if allowed < needed {
        return Err(BenchError::Usage(format!(
            "{connections} connections need {needed} open files, but the limit is {allowed}: raise it (ulimit -Hn)"
        )));
    }
    Ok(())
}
