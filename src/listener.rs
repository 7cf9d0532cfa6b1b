//! The accept loop of a listener: admit, count, hand over.
//!
//! One task for each listener, until the node begins to stop. What accept(2) brings is admitted against the bounds of the
//! node, and served in a task of its own.

use std::sync::Arc;

use tracing::debug;

use crate::config::model::TcpOptions;
use crate::http;
use crate::listening::Listening;
use crate::session::{self, Endpoint, Hub};
use crate::transport::Peer;

/// Who takes what a listener accepts.
pub enum Service {
    /// Frames on the stream.
    Stream(Arc<Endpoint>),
    /// HTTP.
    Http(Arc<http::Site>),
}

/// Accepts until the node begins to stop.
pub async fn accept_loop(hub: Arc<Hub>, name: String, listening: Listening, tcp: TcpOptions, service: Service) {
    loop {
        let (transport, peer) = tokio::select! {
            biased;
            () = hub.draining.cancelled() => return,
            accepted = listening.next() => accepted,
        };
        if let Peer::Ip(_) = peer
            && let Err(error) = transport.watch_tcp_peer(tcp.keepalive, tcp.user_timeout)
        {
            debug!(%peer, %error, "connection ended before it was served");
            continue;
        }
        match &service {
            Service::Stream(endpoint) => match hub.admission.admit(peer) {
                Ok(permit) => session::spawn_stream(endpoint.clone(), transport, peer, permit),
                Err(reason) => {
                    hub.refuse(&name, peer, reason);
                    transport.reset_on_close();
                }
            },
            Service::Http(site) => {
                // The kernel's backlog holds further clients meanwhile; `handshake_timeout` bounds the wait.
                let place = tokio::select! {
                    () = hub.draining.cancelled() => return,
                    place = site.place() => place,
                };
                hub.tasks.spawn(http::serve_connection(site.clone(), transport, peer, place));
            }
        }
    }
}
