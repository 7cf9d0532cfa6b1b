//! Fan-out: one message to many subscribers.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::peers::{Nginx, has_nchan};
use crate::process::{Floor, Handler, Node, null_responder};
use crate::table::{Against, Column, OTHERS, Over, Row};

/// The paces of publishing: the name, and the options of the command line.
const PACES: [(&str, [&str; 2]); 3] =
    [("one at a time", ["--window", "1"]), ("flat out", ["--window", "64"]), ("10 a second", ["--rate", "10"])];

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let node = Node::start(dir, &Handler::null(&socket))?;
    let floor = Floor::start("fanout-floor", &[Path::new("plain")])?;
    let coalescing = Floor::start("fanout-floor", &[Path::new("coalescing")])?;
    let nchan = has_nchan().then(|| Nginx::with_nchan(dir)).transpose()?;
    let (mut variants, mut notes) = (Vec::new(), Vec::new());
    let router = format!("{}/news", node.url("router"));
    for subscribers in settings.counts(&[5000]) {
        for (pace, words) in PACES {
            let variant = |name: &str, url: String, publish: String, say: Option<&'static str>, pid| {
                let (duration, warm_up) = (settings.seconds(5), settings.warm_up());
                Variant::new(name, format!("{subscribers}, {pace}"), move || {
                    let (subscribers, text) = (subscribers.to_string(), written(duration));
                    let mut all = vec!["fanout", &url, "--publish", &publish, "--connections", &subscribers];
                    all.extend(["--duration", &text].into_iter().chain(words).chain(warm_up));
                    all.extend(say.into_iter().flat_map(|say| ["--say", say]));
                    bench(&all, &[pid], duration)
                })
            };
            let join = Some("join news");
            variants.push(variant("Longwire tcp", node.url("tcp"), router.clone(), join, node.pid()));
            variants.push(variant("Longwire ws", node.url("ws"), router.clone(), join, node.pid()));
            if let Some(nchan) = &nchan {
                let (sub, publish) = (nchan.url("ws", "/sub"), nchan.url("http", "/pub"));
                variants.push(variant("nchan ws", sub, publish, None, nchan.pid()).peer());
            }
            variants.push(variant("floor", floor.url(0), floor.url(1), join, floor.pid()));
            if pace == "flat out" {
                let (sub, publish) = (coalescing.url(0), coalescing.url(1));
                variants.push(variant("floor, coalescing", sub, publish, join, coalescing.pid()));
            }
        }
    }
    if nchan.is_none() {
        notes.push("nginx with libnginx-mod-nchan is not installed here, so nchan is not in the table.".to_owned());
    }
    let columns = vec![
        Column::median("deliveries/s", &["/deliveries_per_s"], 0),
        Column::median("server CPU µs/delivery", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        Column::median("p50 ms", &["/latency/p50_us"], 1).per(1000.0),
        Column::median("p99 ms", &["/latency/p99_us"], 1).per(1000.0),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    let floor = Against::times("floor", |line, other| other.name == "floor" && other.case == line.case);
    let done = Row { name: "fanout", columns, against: vec![floor], variants, notes }.run(settings);
    drop(responder);
    done
}
