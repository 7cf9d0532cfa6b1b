//! The memory that a burst leaves behind: at rest, at the peak, and at rest again.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use longwire::commands::bench::process::memory;
use serde_json::json;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Handler, Load, Node, null_responder};
use crate::table::{Column, OTHERS, Over, Row};

/// Time for the allocator to give memory back in the background.
const AFTERWARDS: Duration = Duration::from_secs(5);
const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let (handler, duration, warm_up) = (Handler::null(&socket), settings.seconds(5), settings.warm_up());
    let (at_rest, clients) = if settings.is_quick { ("50", "8") } else { ("10000", "1000") };
    let mut variants = Vec::new();
    for (name, listener, bytes) in [
        ("echo tcp", "tcp", "65536"),
        ("echo ws", "ws", "65536"),
        ("fan-out tcp", "tcp", "4096"),
        ("fan-out ws", "ws", "4096"),
    ] {
        let (handler, responder) = (&handler, responder.pid());
        variants.push(Variant::new(name, format!("{clients} × {bytes} B beside {at_rest} at rest"), move || {
            let node = Node::start(dir, handler)?;
            let (url, router) = (node.url(listener), format!("{}/news", node.url("router")));
            let idle = ["idle", &url, "--connections", at_rest, "--say", "hello", "--hold", "10m", "--timeout", "60s"];
            let load = Load::start(&idle)?;
            let before = pss(node.pid())?;
            let (text, pids) = (written(duration), [node.pid(), load.pid(), responder]);
            let mut words = if name.starts_with("echo") {
                vec!["echo", &url]
            } else {
                vec!["fanout", &url, "--publish", &router, "--say", "join news", "--window", "64"]
            };
            words.extend(["--connections", clients, "--bytes", bytes, "--duration", &text].iter().chain(&warm_up));
            let mut report = bench(&words, &pids, duration)?;
            sleep(AFTERWARDS);
            report["before_bytes"] = json!(before);
            report["most_bytes"] = json!(most(node.pid())?);
            report["after_bytes"] = json!(pss(node.pid())?);
            Ok(report)
        }));
    }
    let columns = vec![
        Column::median("at rest MiB", &["/before_bytes"], 1).per(MIB),
        Column::median("most MiB", &["/most_bytes"], 1).per(MIB),
        Column::median("5 s after MiB", &["/after_bytes"], 1).per(MIB).over(Over::Spread),
        Column::median("messages or deliveries/s", &["/replies_per_s", "/deliveries_per_s"], 0),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    Row { name: "burst", columns, against: Vec::new(), variants, notes: Vec::new() }.run(settings)
}

fn pss(pid: u32) -> io::Result<u64> {
    memory(pid).map(|memory| memory.pss).ok_or_else(|| io::Error::other("the node has ended"))
}

/// The peak of resident memory since the process began (proc_pid_status(5), VmHWM).
fn most(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/PID/status of the node has no VmHWM"))
}
