//! Measures the variants of a row in turns. A figure is taken again if other processes keep the machine busy.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{output_of, role};

/// If other processes use more than this share of the machine, a figure is noisy and is taken again.
const QUIET_PERCENT: f64 = 10.0;
/// Tries for one figure. The last one counts even if it is noisy; then its line in the table is marked.
const TRIES: usize = 3;
/// Time besides the measured time, for connecting and for requests that are under way at the end.
const PATIENCE: Duration = Duration::from_secs(150);

/// How a row is run.
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    /// `--quick`: few connections, one second.
    pub(crate) is_quick: bool,
    /// `--write`: write to docs/performance.md.
    pub(crate) writes: bool,
}

impl Settings {
    /// The numbers of connections: those given, or small ones with `--quick`.
    pub(crate) fn counts(&self, counts: &[usize]) -> Vec<usize> {
        if self.is_quick { vec![8] } else { counts.to_vec() }
    }

    /// How long a figure is measured.
    pub(crate) fn seconds(&self, seconds: u64) -> Duration {
        if self.is_quick { Duration::from_millis(300) } else { Duration::from_secs(seconds) }
    }

    /// The warm-up option of `longwire bench`.
    pub(crate) fn warm_up(&self) -> [&'static str; 2] {
        ["--warm-up", if self.is_quick { "100ms" } else { "1s" }]
    }
}

/// One variant of a row; the variants are measured in turns.
pub(crate) struct Variant<'a> {
    pub(crate) name: String,
    /// The case in which variants are compared: number of connections, bytes of a message.
    pub(crate) case: String,
    /// Whether a lost message is an error. (For peers it is a figure.)
    pub(crate) must_be_whole: bool,
    run: Box<dyn Fn() -> io::Result<Value> + 'a>,
    pub(crate) rounds: Vec<Round>,
}

/// One figure of a variant.
pub(crate) struct Round {
    /// The report of `longwire bench`.
    pub(crate) report: Value,
    /// Other processes used the machine at every try.
    pub(crate) is_noisy: bool,
}

impl<'a> Variant<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        case: impl Into<String>,
        run: impl Fn() -> io::Result<Value> + 'a,
    ) -> Self {
        Self { name: name.into(), case: case.into(), must_be_whole: true, run: Box::new(run), rounds: Vec::new() }
    }

    /// Marks it as another program, which may lose messages.
    pub(crate) fn peer(mut self) -> Self {
        self.must_be_whole = false;
        self
    }
}

/// Runs every variant once. Each round begins with another variant.
pub(crate) fn one_round(variants: &mut [Variant<'_>], round: usize, settings: &Settings) -> io::Result<()> {
    for turn in 0..variants.len() {
        let at = (round + turn) % variants.len();
        let variant = &mut variants[at];
        eprintln!("round {} of {}: {}, {}", round + 1, settings.rounds, variant.name, variant.case);
        let round = once(variant).map_err(|error| naming(variant, &error))?;
        if variant.must_be_whole {
            check_whole(&round.report).map_err(|what| naming(variant, &what))?;
        }
        variant.rounds.push(round);
    }
    Ok(())
}

fn naming(variant: &Variant<'_>, what: &impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}, {}: {what}", variant.name, variant.case))
}

fn once(variant: &Variant<'_>) -> io::Result<Round> {
    let mut tries = 1;
    loop {
        let report = (variant.run)()?;
        let is_noisy = report["cpu"]["others_cpu_percent"].as_f64().is_none_or(|others| others > QUIET_PERCENT);
        if !is_noisy || tries == TRIES {
            return Ok(Round { report, is_noisy });
        }
        tries += 1;
    }
}

/// Checks that all messages came back, all clients stayed connected, and at least one message was measured.
fn check_whole(report: &Value) -> Result<(), String> {
    let count = |name: &str| report[name].as_u64().unwrap_or(0);
    for kind in ["lost", "repeated", "out_of_order", "wrong", "timeouts", "closed", "failed"] {
        if count(kind) > 0 {
            return Err(format!("{} {kind}; errors: {}", count(kind), report["errors"]));
        }
    }
    if report["connected"] != report["connections"] {
        return Err(format!("{} of {} connected: {}", report["connected"], report["connections"], report["errors"]));
    }
    if report["answered"].as_u64().is_some_and(|answered| report["connections"] != answered) {
        return Err(format!("{} of {} got their answer", report["answered"], report["connections"]));
    }
    if ["replies", "deliveries", "answered", "accepted"].iter().all(|kind| count(kind) == 0) {
        return Err("nothing came back".to_owned());
    }
    Ok(())
}

/// Runs `longwire bench` with these arguments and returns its report, with the CPU time of these processes.
pub(crate) fn bench(words: &[&str], pids: &[u32], duration: Duration) -> io::Result<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.arg("bench").args(words).args(["--json", "--quiet"]);
    for pid in pids {
        command.args(["--pid", &pid.to_string()]);
    }
    report_of(&mut command, duration)
}

/// Runs a role that measures by itself and returns its report.
pub(crate) fn role_report(name: &str, arguments: &[&Path], duration: Duration) -> io::Result<Value> {
    report_of(&mut role(name, arguments)?, duration)
}

fn report_of(command: &mut Command, duration: Duration) -> io::Result<Value> {
    let text = output_of(command, duration + PATIENCE)?;
    let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    last.ok_or_else(|| io::Error::other("the process ended without a report"))
}

/// A duration for the command line: `5000ms`.
pub(crate) fn written(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
