//! The rows of docs/performance.md: for each, the processes to start and the variants to measure in turns.

mod accept;
mod batches;
mod beside;
mod burst;
mod echo;
mod echo_null;
mod echo_php;
mod fanout;
mod fastcgi;
mod growth;
mod idle;
mod latency;

use std::io;
use std::path::Path;

use crate::measure::Settings;

/// The names of the rows, in the order in which they are run and documented.
pub(crate) const NAMES: [&str; 11] =
    ["echo-null", "fastcgi", "echo-php", "latency", "fanout", "beside", "batches", "idle", "burst", "accept", "growth"];

/// Runs a row, with `dir` for its files.
pub(crate) fn run(name: &str, dir: &Path, settings: &Settings) -> io::Result<()> {
    match name {
        "echo-null" => echo_null::run(dir, settings),
        "fastcgi" => fastcgi::run(dir, settings),
        "echo-php" => echo_php::run(dir, settings),
        "latency" => latency::run(dir, settings),
        "fanout" => fanout::run(dir, settings),
        "beside" => beside::run(dir, settings),
        "batches" => batches::run(dir, settings),
        "idle" => idle::run(dir, settings),
        "burst" => burst::run(dir, settings),
        "accept" => accept::run(dir, settings),
        "growth" => growth::run(dir, settings),
        _ => Err(io::Error::other("no such row")),
    }
}
