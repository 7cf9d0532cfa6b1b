//! Echo through the null responder: the cost of Longwire itself.

use std::io;
use std::path::Path;

use super::echo::{columns, echo};
use crate::measure::Settings;
use crate::process::{Floor, Handler, Node, null_responder};
use crate::table::{Against, Row};

/// The size of a chat message, and of a page.
const BYTES: [usize; 2] = [64, 4096];

pub(super) fn run(dir: &Path, settings: &Settings) -> io::Result<()> {
    let socket = dir.join("null.sock");
    let responder = null_responder(&socket)?;
    let handler = Handler::null(&socket);
    let node = Node::start(dir, &handler)?;
    let mut floors = Vec::new();
    for bytes in BYTES {
        floors.push(Floor::relay(dir, &handler, bytes)?);
    }
    let counts = settings.counts(&[32, 1000, 10_000]);
    let cases = counts.iter().map(|count| (*count, 0)).chain([(counts[0], 1)]);
    let mut variants = Vec::new();
    for (connections, size) in cases {
        let case = (connections, BYTES[size]);
        let mut variant = |name, url, server| variants.push(echo(name, url, case, [server, responder.pid()], settings));
        variant("Longwire tcp", node.url("tcp"), node.pid());
        variant("Longwire ws", node.url("ws"), node.pid());
        if cfg!(feature = "lua") {
            variant("Longwire lua", node.url("lua"), node.pid());
        }
        variant("floor", floors[size].url(0), floors[size].pid());
    }
    let floor = Against::times("floor", |line, other| other.name == "floor" && other.case == line.case);
    Row { name: "echo-null", columns: columns("responder"), against: vec![floor], variants, notes: Vec::new() }
        .run(settings)
}
