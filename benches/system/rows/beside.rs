//! The effect of a fan-out on other sessions: the echo latency of sessions that are not in the channel.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Floor, Handler, Load, Node, null_responder};
use crate::table::{Against, Column, OTHERS, Over, Row};

const BYTES: usize = 64;
const PACES: [(&str, Option<[&str; 2]>); 4] = [
    (ALONE, None),
    ("10 a second", Some(["--rate", "10"])),
    ("one at a time", Some(["--window", "1"])),
    ("flat out", Some(["--window", "64"])),
];
const ALONE: &str = "alone";

/// The server of the echo, and the server of the fan-out.
struct Pair {
    name: &'static str,
    echo: (String, u32),
    /// The URL of subscribers, the URL of the publisher, and a pid.
    fanout: (String, String, u32),
}

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let handler = Handler::null(&socket);
    let node = Node::start(dir, &handler)?;
    let relay = Floor::relay(dir, &handler, BYTES)?;
    let fanout = Floor::start("fanout-floor", &[Path::new("coalescing")])?;
    let pairs = [
        Pair {
            name: "Longwire tcp",
            echo: (node.url("tcp"), node.pid()),
            fanout: (node.url("tcp"), format!("{}/news", node.url("router")), node.pid()),
        },
        Pair {
            name: "two floors",
            echo: (relay.url(0), relay.pid()),
            fanout: (fanout.url(0), fanout.url(1), fanout.pid()),
        },
    ];
    let (duration, warm_up) = (settings.seconds(5), settings.warm_up());
    let subscribers = if settings.is_quick { "20" } else { "5000" };
    let mut variants = Vec::new();
    for (case, pace) in PACES {
        for pair in &pairs {
            let responder = responder.pid();
            variants.push(Variant::new(pair.name, case, move || {
                let Pair { echo, fanout, .. } = pair;
                let load = pace.map(|pace| {
                    let words = ["fanout", &fanout.0, "--publish", &fanout.1, "--say", "join news"];
                    let ever = ["--connections", subscribers, "--duration", "10m", "--timeout", "60s"];
                    Load::start(&[&words[..], &ever, &warm_up, &pace].concat())
                });
                let load = load.transpose()?;
                let mut pids = vec![fanout.2, responder];
                pids.extend(load.as_ref().map(Load::pid));
                pids.extend(Some(echo.1).filter(|pid| *pid != fanout.2));
                let (bytes, text) = (BYTES.to_string(), written(duration));
                let words = ["echo", &echo.0, "--connections", "32", "--rate", "1000", "--bytes", &bytes];
                bench(&[&words[..], &["--duration", &text], &warm_up].concat(), &pids, duration)
            }));
        }
    }
    let columns = vec![
        Column::median("echoes/s", &["/replies_per_s"], 0),
        Column::median("p50 ms", &["/latency/p50_us"], 2).per(1000.0).over(Over::Spread),
        Column::median("p99 ms", &["/latency/p99_us"], 2).per(1000.0).over(Over::Spread),
        Column::median("fan-out's cores", &["/cpu/pid_cpu_us/0"], 2).per(duration.as_micros() as f64),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    let alone = |line: &Variant<'_>, other: &Variant<'_>| other.name == line.name && other.case == ALONE;
    let against = vec![Against::more("p99 added", "p99 ms", alone)];
    Row { name: "beside", columns, against, variants, notes: Vec::new() }.run(settings)
}
