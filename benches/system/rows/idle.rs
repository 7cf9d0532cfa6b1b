//! Idle sessions that have sent one message: their memory, and their CPU time while they are idle.

use std::io;
use std::path::Path;

use crate::measure::{Settings, Variant, bench, written};
use crate::process::{Handler, Node, null_responder};
use crate::table::{Column, OTHERS, Over, Row};

/// Arguments with Chromium's usual headers besides those of the handshake, with the cookies of a shop.
fn browser(url: &str) -> Vec<String> {
    let host = url.trim_start_matches("ws://").split('/').next().unwrap_or_default();
    let headers = [
        &format!("Origin: http://{host}"),
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        "Cookie: PHPSESSID=q2v1k3m8b0t5n7c4d6f9h1j3l5; cart=c81e728d9d4c2f636f067f89cc14862c; consent=analytics%3Dno",
    ];
    headers.into_iter().flat_map(|header| ["--header".to_owned(), header.to_owned()]).collect()
}

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let _responder = null_responder(&socket)?;
    let handler = Handler::null(&socket);
    // Longer than the 25 s after which a silent session gets a ping.
    let hold = settings.seconds(30);
    let count = if settings.is_quick { 50 } else { 18_000 };
    let mut variants = Vec::new();
    for (listener, what, say, is_browser) in [
        ("tcp", "", "hello", false),
        ("tcp", " in a channel", "join news", false),
        ("ws", "", "hello", false),
        ("ws", " in a channel", "join news", false),
        ("ws", ", a browser's headers", "hello", true),
    ] {
        let handler = &handler;
        variants.push(Variant::new(format!("Longwire {listener}{what}"), format!("{count}"), move || {
            // A new node each time, because memory of earlier sessions would be reused and hide the cost.
            let node = Node::start(dir, handler)?;
            let (count, text, url) = (count.to_string(), written(hold), node.url(listener));
            let few = ["idle", &url, "--connections", "100", "--say", say, "--hold", "100ms"];
            // One run with few sessions first, so that memory that is allocated once does not count.
            bench(&few, &[], hold)?;
            let words = ["idle", &url, "--connections", &count, "--say", say, "--hold", &text];
            let headers = if is_browser { browser(&url) } else { Vec::new() };
            let words: Vec<&str> = words.into_iter().chain(headers.iter().map(String::as_str)).collect();
            bench(&words, &[node.pid()], hold)
        }));
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
    Row { name: "idle", columns, against: Vec::new(), variants, notes: Vec::new() }.run(settings)
}
