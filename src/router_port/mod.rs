//! The router port: takes commands from programs that are not clients (docs/router-protocol.md).
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
//! Each connection has one task, which runs its commands one after the other, so that they keep their order. Commands
//! that arrived whole are run even if the client has closed its side by then. Successive messages for the same sessions
//! that arrive together reach each session in one write.
//!
//! Answers leave in batches. While a client does not take its answers, it is not read. So a connection holds at most
//! one frame, the bytes read after it, one batch of messages and one batch of answers. `memory` bounds the memory of
//! all connections together. `turns` makes connections of the short protocol run their commands in the order in which
//! the connections were made.

mod connection;
mod end_reason;
mod memory;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::{debug, warn};

use self::connection::{Port, RouterConnection};
pub use self::memory::{Memory, SetAside};
use self::turns::Turns;
use crate::config::model;
use crate::metrics::router::Door;
use crate::session::Hub;
use crate::transport::listening::{AcceptedTasks, Listening};

/// Timeouts that detect a vanished client on another machine. They are the defaults of listeners.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the future is dropped.
pub async fn serve_router(listening: Listening, config: model::Router, memory: Arc<Memory>, hub: Arc<Hub>) {
    let places = Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS)));
    let turns = config.short_protocol.then(|| Arc::new(Turns::default()));
    let port = Arc::new(Port { config, memory, hub });
    let accepted = AcceptedTasks::default();
    loop {
        let (transport, peer) = listening.next().await;
        let Ok(place) = places.clone().try_acquire_owned() else {
            port.metrics().count_refused(Door::Long, "max_connections");
            warn!(%peer, "router port: connection refused because max_connections is reached");
            continue;
        };
        if peer.address().is_some()
            && let Err(error) = transport.watch_tcp_peer(TCP_KEEPALIVE, TCP_USER_TIMEOUT)
        {
            // The client is gone already.
            debug!(%peer, %error, "router connection ended");
            continue;
        }
        let transport = Arc::new(transport);
        // Turns are taken here, because here connections come one after the other.
        let turn = turns.as_ref().map(|turns| turns.join(peer.address(), &transport));
        let port = port.clone();
        accepted.spawn(async move {
            port.metrics().connections.inc();
            RouterConnection::new(&port, transport, peer, turn).serve().await;
            // The place is freed before the gauge: a program that sees a free place in the gauge can use it.
            drop(place);
            port.metrics().connections.dec();
        });
    }
}
