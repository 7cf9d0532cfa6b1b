//! Runs tests that were written for one node with two nodes: one has the sessions, the other takes the commands.
//!
//! ```text
//!   clients ──> the node with the sessions <── redis-server, nats-server ──> the other node <── router port, API
//! ```
//!
//! `LONGWIRE_TEST_ENGINE=redis` (or `nats`) makes every [`Longwire`](super::longwire::Longwire) of a run such a pair.
//! `router/suite.rs` does this for the tests of the router. By hand: `LONGWIRE_TEST_ENGINE=nats cargo test --test it -- router::port::`.

use std::ops::Range;

use super::engine::{EngineServer, Kind};

/// The environment variable.
pub const VARIABLE: &str = "LONGWIRE_TEST_ENGINE";

/// The engine that joins the nodes of this run; `None` in a run with one node.
pub fn engine() -> Option<Kind> {
    let word = std::env::var(VARIABLE).ok()?;
    Some(Kind::of(&word).unwrap_or_else(|| panic!("{VARIABLE} is redis or nats, not {word:?}")))
}

/// A test's configuration, adapted for each of the two nodes. Both have all listeners, and the test helpers choose which node to contact.
pub struct Configs {
    /// For the node that takes the commands. It has the name and the number that the test gave.
    pub commands: String,
    /// For the node with the sessions.
    pub sessions: String,
    /// The number of the node with the sessions.
    pub number: u16,
}

impl Configs {
    pub fn new(config: &str, engine: &EngineServer) -> Self {
        // A long timeout, so that nothing fails because a machine is slow.
        let commands = format!("{config}\n[cluster]\nreceipt_timeout = \"20s\"\n{}", engine.config());
        let node = section(config, "node").map(|place| &config[place]).unwrap_or_default();
        let number = 1 + node
            .lines()
            .find_map(|line| line.strip_prefix("number = "))
            .map_or(0, |number| number.parse::<u16>().expect("a number"));
        let mut sessions = commands.clone();
        if let Some(place) = section(&sessions, "node") {
            sessions.replace_range(place, "");
        }
        let is_kept = |line: &&str| !["[node]", "name ", "number "].iter().any(|known| line.starts_with(known));
        let kept: String = node.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        sessions.push_str(&format!("[node]\nname = \"sessions\"\nnumber = {number}\n{kept}"));
        // A Unix socket's path can be bound only once.
        if let Some(place) = section(&sessions, "router") {
            let router: Vec<_> = sessions[place.clone()]
                .lines()
                .map(|line| if line.starts_with("bind = \"unix:") { "bind = \"127.0.0.1:0\"" } else { line })
                .collect();
            sessions.replace_range(place, &(router.join("\n") + "\n"));
        }
        Self { commands, sessions, number }
    }
}

/// The range of a section in the text, from its header to the next one.
fn section(config: &str, name: &str) -> Option<Range<usize>> {
    let head = format!("[{name}]\n");
    let begin = match config.starts_with(&head) {
        true => 0,
        false => config.find(&format!("\n{head}"))? + 1,
    };
    let end = config[begin + 1..].find("\n[").map_or(config.len(), |at| begin + 1 + at + 1);
    Some(begin..end)
}
