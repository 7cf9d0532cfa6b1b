//! Whole-system runs: the real binary, its load generator, and floors and peers beside it, by turns.
//!
//! `cargo bench --bench system -- [ROWS...] [--rounds 5] [--quick] [--write]`. Each round runs every variant of a row once, in an
//! order that moves on by one each round; what is printed is the median over the rounds and its spread. Raw rounds go to
//! `target/bench/ROW.json`, and with `--write` tables and pictures to docs/performance.md and the folder of that name. Compare
//! variants of one run only: another machine, or a busy one, gives other figures.

// Load generators and peers block, print, and make sockets as the other side would.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

mod document;
mod measure;
mod peers;
mod picture;
mod process;
mod roles;
mod rows;
mod table;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use measure::Settings;

/// Whole-system benchmarks.
#[derive(Parser)]
struct Arguments {
    /// What to run [default: all].
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(rows::NAMES))]
    rows: Vec<String>,
    /// Rounds over which medians are taken.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// One round of a second with few connections: does it work at all?
    #[arg(long, conflicts_with_all = ["rounds", "write"])]
    quick: bool,
    /// Put the tables into docs/performance.md, and the pictures beside it.
    #[arg(long)]
    write: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match &words[..] {
        [first, role, arguments @ ..] if first == "role" => roles::play(role, arguments),
        _ => run(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    // For every process that is started here: thousands of clients have one each.
    longwire::descriptors::allow(usize::MAX)?;
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let settings = Settings { rounds, is_quick: arguments.quick, writes: arguments.write };
    let named = |name: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|row| row == name);
    for name in rows::NAMES.into_iter().filter(|name| named(name)) {
        let dir = tempfile::tempdir()?;
        rows::run(name, dir.path(), &settings).map_err(|error| io::Error::other(format!("{name}: {error}")))?;
    }
    Ok(())
}
