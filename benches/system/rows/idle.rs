//! Sessions that have said one thing and say nothing more: what they take, and what they cost meanwhile.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Handler, Node, null_responder};
use crate::table::{Column, OTHERS, Over, Row};

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let _responder = null_responder(&socket)?;
    let handler = Handler::null(&socket);
    // Longer than the 25 s after which a session that says nothing is asked whether it is there.
    let hold = settings.seconds(30);
    let count = if settings.is_quick { 50 } else { 18_000 };
    let mut variants = Vec::new();
    for listener in ["tcp", "ws"] {
        for (what, say) in [("", "hello"), (" in a channel", "join news")] {
            let handler = &handler;
            variants.push(Variant::new(format!("Longwire {listener}{what}"), format!("{count}"), move || {
                // A node of its own each time: memory that was in use before hides what is in use now.
                let node = Node::start(dir, handler)?;
                let (count, text, url) = (count.to_string(), written(hold), node.url(listener));
                let words = ["idle", &url, "--connections", &count, "--say", say, "--hold", &text];
                bench(&words, &[node.pid()], hold)
            }));
        }
    }
    let columns = vec![
        Column::median("PSS KiB/session", &["/processes/0/pss_bytes_per_connection"], 2).per(1024.0).over(Over::Spread),
        Column::median("base PSS MiB", &["/processes/0/base_pss_bytes"], 1).per(1024.0 * 1024.0),
        Column::median("CPU µs/session and s", &["/processes/0/cpu_us_per_connection_and_s"], 3),
        Column::median("pings", &["/pings"], 0),
        Column::median("set up/s", &["/set_up_per_s"], 0),
        Column::median("closed", &["/closed"], 0).over(Over::Sum),
        OTHERS,
    ];
    Row { name: "idle", columns, variants, notes: Vec::new() }.run(settings)
}
