//! The common part of all rows with echoes.

use crate::measure::{Settings, Variant, bench, written};
use crate::table::{Column, OTHERS, Over};

/// An echo variant with this number of clients, each with one message in flight.
pub(super) fn echo(
    name: &str,
    url: String,
    (connections, bytes): (usize, usize),
    pids: [u32; 2],
    settings: &Settings,
) -> Variant<'static> {
    let (duration, warm_up) = (settings.seconds(5), settings.warm_up());
    Variant::new(name, format!("{connections} × {bytes} B"), move || {
        let (connections, bytes, duration_text) = (connections.to_string(), bytes.to_string(), written(duration));
        let words = ["echo", &url, "--connections", &connections, "--bytes", &bytes, "--duration", &duration_text];
        bench(&[&words[..], &warm_up].concat(), &pids, duration)
    })
}

pub(super) fn columns(backend: &'static str) -> Vec<Column> {
    vec![
        Column::median("messages/s", &["/replies_per_s"], 0),
        Column::median("server CPU µs/message", &["/cpu/cpu_us_per_message/0"], 2).over(Over::Spread),
        Column::median(backend, &["/cpu/cpu_us_per_message/1"], 2),
        Column::median("p50 ms", &["/latency/p50_us"], 2).per(1000.0),
        Column::median("p99 ms", &["/latency/p99_us"], 2).per(1000.0),
        Column::median("wrong or lost", &["/lost", "/repeated", "/out_of_order", "/wrong"], 0).over(Over::Sum),
        Column::median("clients without an answer for 1 s", &["/clients_silent_over_1s"], 0).over(Over::Most),
        OTHERS,
    ]
}
