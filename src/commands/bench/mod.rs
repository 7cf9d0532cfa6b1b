//! `longwire bench`: measures a server under many clients, from outside.
//!
//! There are four runs: `echo` (messages and their replies), `fanout` (one publisher, many subscribers), `idle` (the cost of silent
//! connections) and `accept` (the rate of new connections). Faults of a server are counted and never stop a run.
//!
//! `swarm` holds the connections of a run on one thread, because the generator shares its machine with the server. It has an epoll of
//! its own, and needs one system call for a read and one for a write. `connection` is one of these connections, `endpoint` is their
//! common part, `bench_run` has the phases of a run, and `report` prints the results. [`process`] reads from /proc the CPU and memory of
//! other processes, [`timer`] wakes the thread in time and [`times`] collects durations.

mod accept;
mod bench_run;
mod connection;
mod echo;
mod endpoint;
mod fanout;
mod http;
mod idle;
pub mod process;
mod publisher;
mod report;
mod stamp;
mod subscriber;
mod swarm;
pub mod timer;
pub mod times;
mod trouble;

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::commands::cli::BenchCommand;

/// Why a run could not start, or has no results.
#[derive(Debug)]
pub enum BenchError {
    /// The command line is not valid.
    Usage(String),
    /// No client could do its work: none could connect, for example, or none got a reply.
    Nobody(String),
    /// A system call failed that the run needs.
    System(io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Nobody(text) => f.write_str(text),
            Self::System(error) => write!(f, "a system call failed: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Measures and prints a report. The status is success if anything could be measured, even with faults of the server.
///
/// # Errors
///
/// Says in one line why there are no results.
pub fn run(command: &BenchCommand) -> Result<ExitCode, BenchError> {
    match command {
        BenchCommand::Echo(args) => echo::run(args),
        BenchCommand::Fanout(args) => fanout::run(args),
        BenchCommand::Idle(args) => idle::run(args),
        BenchCommand::Accept(args) => accept::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}
