//! The accept loop of a listener: prepare, admit, count, hand over.
//!
//! One task for each listener, until the node begins to stop. What accept(2) brings is admitted against the bounds of the
//! node, and served in a task of its own.

use std::sync::Arc;

use tracing::debug;

use crate::config::model::TcpOptions;
use crate::http;
use crate::listening::Listening;
use crate::session::{self, Endpoint, Hub};
use crate::transport::{Arrival, Peer};

/// Who takes what a listener accepts.
pub enum Service {
    /// Frames on the stream.
    Stream(Arc<Endpoint>),
    /// HTTP.
    Http(Arc<http::Site>),
}

/// What stands behind a listening socket.
pub struct Entrance {
    /// The node's.
    pub hub: Arc<Hub>,
    /// `LONGWIRE_LISTENER`.
    pub name: String,
    /// How a vanished peer is noticed.
    pub tcp: TcpOptions,
    /// Who takes what comes in.
    pub service: Service,
}

impl Entrance {
    /// Accepts until the node begins to stop.
    pub async fn accept_loop(self, listening: Listening) {
        loop {
            let (transport, peer) = tokio::select! {
                biased;
                () = self.hub.draining.cancelled() => return,
                accepted = listening.next() => accepted,
            };
            if let Peer::Ip(_) = peer
                && let Err(error) = transport.watch_tcp_peer(self.tcp.keepalive, self.tcp.user_timeout)
            {
                debug!(%peer, %error, "connection ended before it was served");
                continue;
            }
            let arrival = Arrival::new(transport, peer);
            match &self.service {
                Service::Stream(endpoint) => self.start_stream(endpoint, arrival),
                Service::Http(site) => {
                    // The kernel's backlog holds further clients meanwhile; `handshake_timeout` bounds the wait.
                    let place = tokio::select! {
                        () = self.hub.draining.cancelled() => return,
                        place = site.place() => place,
                    };
                    self.hub.tasks.spawn(http::serve_connection(site.clone(), arrival, place));
                }
            }
        }
    }

    fn start_stream(&self, endpoint: &Arc<Endpoint>, arrival: Arrival) {
        match self.hub.admission.admit(arrival.peer) {
            Ok(permit) => session::spawn_stream(endpoint.clone(), arrival, permit),
            Err(reason) => {
                self.hub.refuse(&self.name, arrival.peer, reason);
                arrival.transport.reset_on_close();
            }
        }
    }
}
