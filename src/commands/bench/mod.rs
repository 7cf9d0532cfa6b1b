//! `longwire bench`: what a server does with many clients, measured from outside.
//!
//! Four runs: `echo` (messages and their replies), `fanout` (one publisher, many subscribers), `idle` (what connections cost
//! that say nothing), `accept` (how fast they come in). `swarm` holds the connections of a run on one thread, because the generator
//! shares its machine with what it measures: an epoll of its own, one system call for a read and one for a write. `connection` is one of
//! them, `endpoint` what they have in common, `stage` the phases, `report` what comes out; [`process`] reads from /proc what
//! others use, [`timer`] wakes in time and [`times`] counts how long. Faults of a server are counted and never stop a run.

mod accept;
mod connection;
mod echo;
mod endpoint;
mod fanout;
mod http;
mod idle;
pub mod process;
mod publisher;
mod report;
mod stage;
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

/// Why a run could not be, or has nothing to report.
#[derive(Debug)]
pub enum BenchError {
    /// What was asked for makes no sense.
    Usage(String),
    /// Not one client could do what it was there for.
    Nobody(String),
    /// This machine does not give what the run needs.
    System(io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Nobody(text) => f.write_str(text),
            Self::System(error) => write!(f, "cannot go on: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}

/// Measures, and prints a report. The status is success when there was something to measure, whatever came out.
///
/// # Errors
///
/// Why there is no report, in one line.
pub fn run(command: &BenchCommand) -> Result<ExitCode, BenchError> {
    match command {
        BenchCommand::Echo(args) => echo::run(args),
        BenchCommand::Fanout(args) => fanout::run(args),
        BenchCommand::Idle(args) => idle::run(args),
        BenchCommand::Accept(args) => accept::run(args),
    }?;
    Ok(ExitCode::SUCCESS)
}
