//! The rows: what is started for each, and what of it is measured by turns.

mod accept;
mod echo;
mod echo_null;
mod echo_php;
mod fanout;
mod idle;

use std::io;
use std::path::Path;

use crate::measure::Settings;

/// In the order in which they are run and documented.
pub(crate) const NAMES: [&str; 5] = ["echo-null", "echo-php", "fanout", "idle", "accept"];

/// Runs a row in a folder of its own.
pub(crate) fn run(name: &str, dir: &Path, settings: &Settings) -> io::Result<()> {
    match name {
        "echo-null" => echo_null::run(dir, settings),
        "echo-php" => echo_php::run(dir, settings),
        "fanout" => fanout::run(dir, settings),
        "idle" => idle::run(dir, settings),
        "accept" => accept::run(dir, settings),
        _ => Err(io::Error::other("no such row")),
    }
}
