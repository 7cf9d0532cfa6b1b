//! The cost of a message and of a delivery with a growing number of sessions, subscribers and channels.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Floor, Handler, Node, null_responder};
use crate::table::{Against, Column, OTHERS, Over, Row};

const SESSIONS: [usize; 5] = [10, 100, 1000, 10_000, 18_000];
const SUBSCRIBERS: [usize; 6] = [1, 10, 100, 1000, 5000, 18_000];
const CHANNELS: [usize; 5] = [1, 10, 100, 1000, 10_000];
const BYTES: usize = 64;

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let handler = Handler::null(&socket);
    let node = Node::start(dir, &handler)?;
    let floor = Floor::relay(dir, &handler, BYTES)?;
    let fanout = Floor::start("fanout-floor", &[Path::new("plain")])?;
    let duration = settings.seconds(3);
    let mut variants = Vec::new();
    let mut add = |name: &str, case: String, pid: u32, words: Vec<String>| {
        let pids = [pid, responder.pid()];
        let mut words = words;
        words.extend(["--duration".to_owned(), written(duration)]);
        words.extend(settings.warm_up().map(str::to_owned));
        variants.push(Variant::new(name, case, move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            bench(&words, &pids, duration)
        }));
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for sessions in settings.counts(&SESSIONS) {
        for (name, url, pid) in [
            ("echo tcp", node.url("tcp"), node.pid()),
            ("echo ws", node.url("ws"), node.pid()),
            ("echo floor", floor.url(0), floor.pid()),
        ] {
            let words = owned(&["echo", &url, "--connections", &sessions.to_string(), "--bytes", &BYTES.to_string()]);
            add(name, format!("{sessions} sessions"), pid, words);
        }
    }
    let news = format!("{}/news", node.url("router"));
    for subscribers in settings.counts(&SUBSCRIBERS) {
        for (pace, window) in [("flat out", "64"), ("one at a time", "1")] {
            let (url, count) = (node.url("tcp"), subscribers.to_string());
            let words = ["fanout", &url, "--publish", &news, "--say", "join news", "--window", window];
            let words = owned(&[&words[..], &["--connections", &count]].concat());
            add(&format!("fan-out, {pace}"), format!("{subscribers} subscribers"), node.pid(), words);
        }
        let (url, publish, count) = (fanout.url(0), fanout.url(1), subscribers.to_string());
        let words = ["fanout", &url, "--publish", &publish, "--say", "join news", "--connections", &count];
        add("fan-out floor, one at a time", format!("{subscribers} subscribers"), fanout.pid(), owned(&words));
    }
    let rooms = format!("{}/room{{channel}}", node.url("router"));
    for channels in settings.counts(&CHANNELS) {
        let (url, count) = (node.url("tcp"), channels.to_string());
        let words = ["fanout", &url, "--publish", &rooms, "--say", "join room{channel}", "--window", "1"];
        let words = owned(&[&words[..], &["--connections", &count, "--channels", &count]].concat());
        add("one session a channel, one at a time", format!("{channels} channels"), node.pid(), words);
    }
    let columns = vec![
        Column::median("a second", &["/replies_per_s", "/deliveries_per_s"], 0),
        Column::median("server CPU µs each", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        Column::median("p50 ms", &["/latency/p50_us"], 2).per(1000.0),
        Column::median("p99 ms", &["/latency/p99_us"], 2).per(1000.0),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        OTHERS,
    ];
    let of_hundred =
        |line: &Variant<'_>, other: &Variant<'_>| line.name == other.name && other.case.starts_with("100 ");
    let against = vec![Against::times("that at 100", of_hundred)];
    Row { name: "growth", columns, against, variants, notes: Vec::new() }.run(settings)
}
