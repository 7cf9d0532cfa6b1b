//! The rate at which connections can be opened and closed.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Floor, Handler, Node, null_responder};
use crate::table::{Column, OTHERS, Over, Row};

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let _responder = null_responder(&socket)?;
    let node = Node::start(dir, &Handler::null(&socket))?;
    let floor = Floor::start("accept-floor", &[])?;
    let (duration, warm_up) = (settings.seconds(5), settings.warm_up());
    let mut variants = Vec::new();
    for parallel in settings.counts(&[32]) {
        let mut variant = |name: &str, url: String, pid| {
            variants.push(Variant::new(name, format!("{parallel} at a time"), move || {
                let (parallel, text) = (parallel.to_string(), written(duration));
                let words = ["accept", &url, "--parallel", &parallel, "--duration", &text];
                bench(&[&words[..], &warm_up].concat(), &[pid], duration)
            }));
        };
        variant("Longwire tcp", node.url("tcp"), node.pid());
        variant("Longwire ws", node.url("ws"), node.pid());
        variant("floor", floor.url(0), floor.pid());
    }
    let columns = vec![
        Column::median("connections/s", &["/accepted_per_s"], 0),
        Column::median("server CPU µs/connection", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        Column::median("p50 ms", &["/latency/p50_us"], 2).per(1000.0),
        Column::median("p99 ms", &["/latency/p99_us"], 2).per(1000.0),
        Column::median("failed", &["/failed"], 0).over(Over::Sum),
        OTHERS,
    ];
    Row { name: "accept", columns, against: Vec::new(), variants, notes: Vec::new() }.run(settings)
}
