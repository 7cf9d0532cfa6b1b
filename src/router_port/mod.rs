//! The router port: where programs that are no clients leave commands (docs/router-protocol.md).
//!
//! ```text
//!               first frame of the short protocol
//!   accepted ------------------------------------------> Short: commands, no answers
//!       |
//!       | hello                    proof, if one is asked for
//!       `--------> Greeting -----------------------------> Long: commands, an answer to each
//!                     | wrong proof, a command too early
//!                     v
//!                   closed
//! ```
//!
//! One task for each connection does its commands one after the other, so that their order holds. What came whole is done, also
//! when the client has closed its side by then. Messages for the same sessions that stand one behind the other in what was read
//! reach each session in one write. Answers leave in batches; while a client does not take them nothing of it
//! is read, so a connection holds at most one frame, what it read beside it, one batch of messages and one of answers.
//! `memory` bounds what all of them hold together. `turns` has connections of the short protocol take their turns in the order in which they were made.

mod connection;
mod memory;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use self::connection::{Connection, Port};
pub use self::memory::{Memory, SetAside};
use self::turns::Turns;
use crate::config::model;
use crate::metrics::router::Door;
use crate::session::Hub;
use crate::transport::listening::{Accepted, Listening};

/// How a client on another machine that vanished is noticed: as on listeners, whose defaults these are.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the future is dropped.
pub async fn serve_router(listening: Listening, config: model::Router, memory: Arc<Memory>, hub: Arc<Hub>) {
    let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let turns = config.short_protocol.then(|| Arc::new(Turns::default()));
    let port = Arc::new(Port { config, memory, hub });
    let accepted = Accepted::default();
    loop {
        let (transport, peer) = listening.next().await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            port.metrics().count_refused(Door::Long, "max_connections");
            warn!(%peer, "router port: max_connections is reached");
            continue;
        };
        if peer.address().is_some()
            && let Err(error) = transport.watch_tcp_peer(TCP_KEEPALIVE, TCP_USER_TIMEOUT)
        {
            // It is gone already.
            debug!(%peer, %error, "router connection ended");
            continue;
        }
        let transport = Arc::new(transport);
        // Here, where connections come one after the other.
        let turn = turns.as_ref().map(|turns| turns.join(peer.address(), &transport));
        let port = port.clone();
        accepted.spawn(async move {
            port.metrics().connections.inc();
            Connection::new(&port, transport, peer, turn).serve().await;
            // Only now: a program that sees in the gauge that a place is free can have it.
            drop(place);
            port.metrics().connections.dec();
        });
    }
}
