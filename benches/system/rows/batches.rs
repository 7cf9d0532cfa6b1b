//! How long a page waits that sends a batch of commands to the router port.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, role_report};
use crate::process::{Floor, Handler, Node, null_responder};
use crate::table::{Against, Column, OTHERS, Over, Row};

/// Number of commands in a batch, and bytes of each message.
const BATCHES: [(u32, usize); 5] = [(1, 100), (15, 10), (20, 10), (2, 400), (100, 400)];

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let node = Node::start(dir, &Handler::null(&socket))?;
    let floor = Floor::start("batch-floor", &[])?;
    let mut variants = Vec::new();
    for (commands, bytes) in BATCHES {
        let variant = |name: &str, url: String, pid: u32| {
            let duration = settings.seconds(3);
            Variant::new(name, format!("{commands} of {bytes} bytes"), move || {
                let address = url.rsplit('/').next().unwrap_or_default();
                let words =
                    [commands.to_string(), bytes.to_string(), pid.to_string(), duration.as_millis().to_string()];
                let words: Vec<&Path> =
                    [address].into_iter().chain(words.iter().map(String::as_str)).map(Path::new).collect();
                role_report("batches", &words, duration)
            })
        };
        variants.push(variant("Longwire router port", node.url("router"), node.pid()));
        variants.push(variant("floor", floor.url(0), floor.pid()));
    }
    let columns = vec![
        Column::median("p50 µs", &["/latency/p50_us"], 0).over(Over::Spread),
        Column::median("p99 µs", &["/latency/p99_us"], 0),
        Column::median("commands/s", &["/replies_per_s"], 0),
        Column::median("server CPU µs/command", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        OTHERS,
    ];
    let floor = Against::times("floor", |line, other| other.name == "floor" && other.case == line.case);
    let done = Row { name: "batches", columns, against: vec![floor], variants, notes: Vec::new() }.run(settings);
    drop(responder);
    done
}
