//! What others notice of a fan-out: the echo of sessions that are not in the channel.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Handler, Load, Node, null_responder};
use crate::table::{Against, Column, OTHERS, Over, Row};

const ALONE: &str = "echo alone";

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let node = Node::start(dir, &Handler::null(&socket))?;
    let (duration, warm_up) = (settings.seconds(5), settings.warm_up());
    let subscribers = if settings.is_quick { "20" } else { "5000" };
    let mut variants = Vec::new();
    for (name, pace) in [
        (ALONE, None),
        ("beside 10 a second", Some(["--rate", "10"])),
        ("beside one at a time", Some(["--window", "1"])),
        ("beside flat out", Some(["--window", "64"])),
    ] {
        let (node, responder) = (&node, &responder);
        variants.push(Variant::new(name, format!("{subscribers} subscribers"), move || {
            let (url, router) = (node.url("tcp"), format!("{}/news", node.url("router")));
            let load = pace.map(|pace| {
                let words = ["fanout", &url, "--publish", &router, "--say", "join news", "--connections", subscribers];
                Load::start(&[&words[..], &["--duration", "10m", "--timeout", "60s"], &warm_up, &pace].concat())
            });
            let load = load.transpose()?;
            let mut pids = vec![node.pid(), responder.pid()];
            pids.extend(load.as_ref().map(Load::pid));
            let text = written(duration);
            let words = ["echo", &url, "--connections", "32", "--rate", "1000", "--duration", &text];
            bench(&[&words[..], &warm_up].concat(), &pids, duration)
        }));
    }
    let columns = vec![
        Column::median("echoes/s", &["/replies_per_s"], 0),
        Column::median("p50 ms", &["/latency/p50_us"], 2).per(1000.0).over(Over::Spread),
        Column::median("p99 ms", &["/latency/p99_us"], 2).per(1000.0).over(Over::Spread),
        Column::median("node's cores", &["/cpu/pid_cpu_us/0"], 2).per(duration.as_micros() as f64),
        Column::median("fan-out client's cores", &["/cpu/pid_cpu_us/2"], 2).per(duration.as_micros() as f64),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    let against = vec![Against::more("p99 added", "p99 ms", |_, other| other.name == ALONE)];
    Row { name: "beside", columns, against, variants, notes: Vec::new() }.run(settings)
}
