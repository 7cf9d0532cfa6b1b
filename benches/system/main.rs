//! Whole-system runs: the real binary, its load generator, and the floors beside it, by turns.
//!
//! `cargo bench --bench system -- [ROWS...] [--rounds 5] [--quick]`. Each round runs every variant of a row once, in an order that
//! moves on by one each round; what is printed is the median over the rounds and its spread. Raw rounds go to
//! `target/bench/ROW.json`. Compare variants of one run only: another machine, or a busy one, gives other figures.

mod process;
mod roles;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use serde_json::{Value, json};

use process::{Node, echo_floor, null_responder, record_request};

/// Others' share of the machine above which a round is run again.
const QUIET_PERCENT: f64 = 10.0;
/// Tries for one figure; the last counts, and its row is marked.
const TRIES: usize = 3;

/// Whole-system benchmarks.
#[derive(Parser)]
struct Arguments {
    /// What to run [default: all]: echo-null.
    #[arg(value_parser = ["echo-null"])]
    rows: Vec<String>,
    /// Rounds over which medians are taken.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of a second with few connections: does it work at all?
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["role", "null-responder", socket] => roles::null_responder(Path::new(socket)),
        ["role", "echo-floor", socket, request] => {
            fs::read(request).and_then(|request| roles::echo_floor(Path::new(socket), request))
        }
        _ => echo_null(&Arguments::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

/// What is measured by turns with the others.
struct Variant {
    name: &'static str,
    connections: usize,
    url: String,
    server: u32,
    rounds: Vec<Value>,
}

/// Echo through a responder that does nothing: what the bridge itself costs.
fn echo_null(arguments: &Arguments) -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let request = record_request(dir.path())?;
    let request_file = dir.path().join("request");
    fs::write(&request_file, &request)?;
    let socket = dir.path().join("null.sock");
    let responder = null_responder(&socket)?;
    let node = Node::start(dir.path(), &socket)?;
    let (floor, floor_address) = echo_floor(&socket, &request_file)?;
    let mut variants = Vec::new();
    for connections in if arguments.quick { vec![8] } else { vec![32, 1000, 10_000] } {
        let mut variant =
            |name, url, server| variants.push(Variant { name, connections, url, server, rounds: Vec::new() });
        variant("tcp", node.url("tcp"), node.pid());
        variant("ws", node.url("ws"), node.pid());
        if cfg!(feature = "lua") {
            variant("lua", node.url("lua"), node.pid());
        }
        variant("floor", format!("tcp://{floor_address}"), floor.pid());
    }
    let rounds = if arguments.quick { 1 } else { arguments.rounds.max(1) };
    for round in 0..rounds {
        for turn in 0..variants.len() {
            let at = (round + turn) % variants.len();
            let variant = &mut variants[at];
            let figures = measure(variant, responder.pid(), arguments.quick)?;
            variant.rounds.push(figures);
        }
    }
    show("echo-null", &variants)?;
    let is_whole = |report: &Value| {
        ["lost", "repeated", "out_of_order", "wrong", "timeouts"].iter().all(|kind| report[kind] == 0)
            && report["replies"].as_u64().is_some_and(|replies| replies > 0)
    };
    match variants.iter().find(|variant| !variant.rounds.iter().all(is_whole)) {
        Some(variant) => {
            let (name, connections) = (variant.name, variant.connections);
            Err(io::Error::other(format!("{name} at {connections} connections lost messages, or had none")))
        }
        None => Ok(()),
    }
}

/// One figure, again while others keep the machine busy.
fn measure(variant: &Variant, responder: u32, is_quick: bool) -> io::Result<Value> {
    let duration = if is_quick { "1s" } else { "5s" };
    let mut report = Value::Null;
    for _ in 0..TRIES {
        let output = Command::new(env!("CARGO_BIN_EXE_longwire"))
            .args(["bench", "echo", &variant.url, "--json", "--quiet", "--warm-up", "1s", "--duration", duration])
            .args(["--bytes", &roles::BYTES.to_string(), "--connections", &variant.connections.to_string()])
            .args(["--pid", &variant.server.to_string(), "--pid", &responder.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        report = last.filter(|_| output.status.success()).ok_or_else(|| {
            io::Error::other(format!("no report for {} at {} connections", variant.name, variant.connections))
        })?;
        if report["cpu"]["others_cpu_percent"].as_f64().is_some_and(|others| others <= QUIET_PERCENT) {
            break;
        }
    }
    Ok(report)
}

/// Prints the table and writes the raw rounds.
fn show(row: &str, variants: &[Variant]) -> io::Result<()> {
    println!(
        "{:<6} {:>6} {:>10} {:>22} {:>8} {:>9} {:>9} {:>10} {:>7} {:>7}",
        row, "conns", "msgs/s", "server CPU µs/msg", "backend", "p50 µs", "p99 µs", "lost+wrong", "silent", "others"
    );
    for variant in variants {
        let every = |pointer: &str| -> Vec<f64> {
            variant.rounds.iter().filter_map(|report| report.pointer(pointer)?.as_f64()).collect()
        };
        let middle = |pointer: &str| median(every(pointer));
        let sum = |names: &[&str]| -> f64 { names.iter().flat_map(|name| every(&format!("/{name}"))).sum() };
        let cpu = every("/cpu/cpu_us_per_message/0");
        let (least, most) = cpu.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
        println!(
            "{:<6} {:>6} {:>10.0} {:>22} {:>8.2} {:>9.0} {:>9.0} {:>10} {:>7} {:>6.0}%",
            variant.name,
            variant.connections,
            middle("/replies_per_s"),
            format!("{:.2} ({least:.2}..{most:.2})", median(cpu)),
            middle("/cpu/cpu_us_per_message/1"),
            middle("/latency/p50_us"),
            middle("/latency/p99_us"),
            sum(&["lost", "repeated", "out_of_order", "wrong", "timeouts"]),
            sum(&["clients_silent_over_1s"]),
            every("/cpu/others_cpu_percent").into_iter().fold(0.0, f64::max),
        );
    }
    let raw: Vec<Value> = variants
        .iter()
        .map(|v| json!({ "variant": v.name, "connections": v.connections, "rounds": v.rounds }))
        .collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("{row}.json")), serde_json::to_vec_pretty(&raw)?)
}

/// The one in the middle; NaN where there is none, which a table shows.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}
