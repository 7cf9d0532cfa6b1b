//! The accept loop of a listener: prepare, admit, count, hand over.
//!
//! ```text
//!   accepted --nothing to prepare---------------------------> served
//!      |                                                        ^
//!      `--a place among the handshakes--> PROXY header ---------'
//!                                              |
//!                                              `--broken, late--> refused, counted
//! ```
//!
//! One task for each listener, until the node begins to stop. What accept(2) brings is admitted against the bounds of the
//! node, and served in a task of its own. What has to be read before anything else is read in such a task too, with a place among
//! the handshakes and a deadline, so that nobody waits for somebody else's bytes.

mod proxy;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use self::proxy::NoHeader;
use crate::config::model::{Limits, Networks, TcpOptions};
use crate::http;
use crate::listening::Listening;
use crate::proto::close::CloseReason;
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
    /// What comes before the first byte that is served.
    pub preparation: Preparation,
    /// Who takes what comes in.
    pub service: Service,
}

/// What has to be read from a connection before it can be served.
pub struct Preparation {
    /// Whose connections begin with a PROXY header.
    proxies: Networks,
    /// From accept to the end of it.
    timeout: Duration,
    /// Bounds the streams that are being prepared; HTTP has places of its own.
    places: Arc<Semaphore>,
}

impl Preparation {
    /// For a listener whose `proxies` begin with a PROXY header.
    pub fn new(proxies: Networks, limits: &Limits) -> Self {
        let places = limits.max_handshakes.min(Semaphore::MAX_PERMITS);
        Self { proxies, timeout: limits.handshake_timeout, places: Arc::new(Semaphore::new(places)) }
    }

    fn is_needed(&self, peer: Peer) -> bool {
        self.proxies.contains(peer.address())
    }
}

impl Entrance {
    /// Accepts until the node begins to stop.
    pub async fn accept_loop(self, listening: Listening) {
        let entrance = Arc::new(self);
        let draining = &entrance.hub.draining;
        loop {
            let (transport, peer) = tokio::select! {
                biased;
                () = draining.cancelled() => return,
                accepted = listening.next() => accepted,
            };
            if let Peer::Ip(_) = peer
                && let Err(error) = transport.watch_tcp_peer(entrance.tcp.keepalive, entrance.tcp.user_timeout)
            {
                debug!(%peer, %error, "connection ended before it was served");
                continue;
            }
            let arrival = Arrival::new(transport, peer);
            let is_prepared = !entrance.preparation.is_needed(peer);
            if let (true, Service::Stream(endpoint)) = (is_prepared, &entrance.service) {
                entrance.start_stream(endpoint, arrival);
                continue;
            }
            // The kernel's backlog holds further clients meanwhile; `handshake_timeout` bounds the wait.
            let place = tokio::select! {
                () = draining.cancelled() => return,
                place = entrance.place() => place,
            };
            match &entrance.service {
                Service::Http(site) if is_prepared => {
                    entrance.hub.tasks.spawn(http::serve_connection(site.clone(), arrival, place));
                }
                _ => {
                    entrance.hub.tasks.spawn(entrance.clone().prepare(arrival, place));
                }
            }
        }
    }

    /// A place among the connections that are not sessions yet.
    async fn place(&self) -> OwnedSemaphorePermit {
        match &self.service {
            Service::Stream(_) => {
                let places = self.preparation.places.clone();
                places.acquire_owned().await.expect("the semaphore is never closed")
            }
            Service::Http(site) => site.place().await,
        }
    }

    /// Reads what comes first, then serves.
    async fn prepare(self: Arc<Self>, mut arrival: Arrival, place: OwnedSemaphorePermit) {
        let left = self.preparation.timeout.saturating_sub(arrival.accepted.elapsed());
        let gauge = &self.hub.metrics.handshakes;
        gauge.inc();
        let refusal = tokio::select! {
            read = proxy::take_header(&mut arrival) => read.err().map(|missing| self.missing(&arrival, &missing)),
            () = tokio::time::sleep(left) => Some(CloseReason::HandshakeTimeout),
            () = self.hub.draining.cancelled() => Some(CloseReason::Draining),
        };
        gauge.dec();
        match (refusal, &self.service) {
            (Some(reason), _) => {
                self.hub.refuse(&self.name, arrival.peer, reason);
                arrival.transport.reset_on_close();
            }
            (None, Service::Stream(endpoint)) => self.start_stream(endpoint, arrival),
            (None, Service::Http(site)) => http::serve_connection(site.clone(), arrival, place).await,
        }
    }

    /// A listed proxy that sends something else is set up wrongly, and nobody can connect: the operator should hear of it.
    fn missing(&self, arrival: &Arrival, missing: &NoHeader) -> CloseReason {
        if let NoHeader::Broken(error) = missing {
            warn!(peer = %arrival.peer, listener = %self.name, %error, "PROXY header refused");
        }
        missing.reason()
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
