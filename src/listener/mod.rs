//! The accept loop of a listener: prepare, admit, count, hand over.
//!
//! ```text
//!   accepted --nothing to prepare---------------------------> served
//!      |                                                        ^
//!      `--a place among the handshakes--> PROXY header --> TLS -'
//!                                              |            |
//!                                              `------------'--broken, late--> refused, counted
//! ```
//!
//! One task for each listener runs until the node begins to stop. Accepted connections are checked against the node's limits, and
//! each is served in a task of its own. If something has to be read first, that task reads it, with a place among the handshakes
//! and a deadline. So no client waits for another client's bytes.

mod proxy;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use self::proxy::NoHeader;
use crate::certificates::Acceptor;
use crate::config::model::{Limits, Networks, TcpOptions};
use crate::http;
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::Params;
use crate::session::{self, Endpoint, Hub};
use crate::transport::listening::Listening;
use crate::transport::{Arrival, Peer};

/// Serves the connections that a listener accepts.
pub enum Service {
    /// Frames on the stream.
    Stream(Arc<Endpoint>),
    Http(Arc<http::Site>),
}

/// Everything that is needed to serve a listening socket.
pub struct Entrance {
    /// The node's.
    pub hub: Arc<Hub>,
    /// `LONGWIRE_LISTENER`.
    pub name: String,
    /// Settings to notice a vanished peer.
    pub tcp: TcpOptions,
    /// Steps before the first byte that is served.
    pub preparation: Preparation,
    /// Serves the connections.
    pub service: Service,
}

/// The steps before a connection can be served: PROXY header and TLS.
pub struct Preparation {
    /// The proxies, whose connections begin with a PROXY header.
    proxies: Networks,
    /// Accepts TLS handshakes. `None` without TLS.
    tls: Option<Arc<Acceptor>>,
    /// Time from accept to the end of these steps.
    timeout: Duration,
    /// Bounds the streams that are being prepared. HTTP has its own places.
    places: Arc<Semaphore>,
}

impl Preparation {
    /// For a listener whose `proxies` begin with a PROXY header. With an acceptor, all connections use TLS, after that header if
    /// there is one.
    pub fn new(proxies: Networks, tls: Option<Arc<Acceptor>>, limits: &Limits) -> Self {
        let places = limits.max_handshakes.min(Semaphore::MAX_PERMITS);
        Self { proxies, tls, timeout: limits.handshake_timeout, places: Arc::new(Semaphore::new(places)) }
    }

    fn is_needed(&self, peer: Peer) -> bool {
        self.tls.is_some() || self.proxies.contains(peer.address())
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
            if let Err(reason) = entrance.count_in(peer) {
                entrance.hub.refuse(&entrance.name, peer, reason);
                transport.reset_on_close();
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
                    entrance.hub.connections.spawn(http::serve_connection(site.clone(), arrival, place));
                }
                _ => {
                    entrance.hub.connections.spawn(entrance.clone().prepare(arrival, place));
                }
            }
        }
    }

    /// Whether one more connection may come now, before anything is spent on it. A proxy's address is not counted: the client that
    /// it speaks for is counted when it is known.
    fn count_in(&self, peer: Peer) -> Result<(), CloseReason> {
        let is_proxy = self.preparation.proxies.contains(peer.address())
            || matches!(&self.service, Service::Http(site) if site.is_trusted_proxy(peer));
        if !is_proxy {
            self.hub.admission.accept_from(peer)?;
        }
        self.hub.admission.accept(peer)
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

    /// Reads the PROXY header and does the TLS handshake, then serves the connection.
    async fn prepare(self: Arc<Self>, arrival: Arrival, place: OwnedSemaphorePermit) {
        let left = self.preparation.timeout.saturating_sub(arrival.accepted.elapsed());
        let gauge = &self.hub.metrics.handshakes;
        gauge.inc();
        let peer = arrival.peer;
        let prepared = tokio::select! {
            prepared = self.read_what_comes_first(arrival) => prepared,
            () = tokio::time::sleep(left) => Err(CloseReason::HandshakeTimeout),
            () = self.hub.draining.cancelled() => Err(CloseReason::Draining),
        };
        gauge.dec();
        match (prepared, &self.service) {
            (Err(reason), _) => self.hub.refuse(&self.name, peer, reason),
            (Ok(arrival), Service::Stream(endpoint)) => self.start_stream(endpoint, arrival),
            (Ok(arrival), Service::Http(site)) => http::serve_connection(site.clone(), arrival, place).await,
        }
    }

    /// Reads the PROXY header, then does the TLS handshake.
    async fn read_what_comes_first(&self, mut arrival: Arrival) -> Result<Arrival, CloseReason> {
        let proxy = arrival.peer;
        if self.preparation.proxies.contains(arrival.peer.address())
            && let Err(missing) = proxy::take_header(&mut arrival).await
        {
            arrival.transport.reset_on_close();
            return Err(self.missing(&arrival, &missing));
        }
        if arrival.peer != proxy
            && let Err(reason) = self.hub.admission.accept_from(arrival.peer)
        {
            arrival.transport.reset_on_close();
            return Err(reason);
        }
        match &self.preparation.tls {
            None => Ok(arrival),
            Some(acceptor) => secure(arrival, acceptor).await.map_err(|error| {
                debug!(listener = %self.name, %error, "TLS handshake failed");
                match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => CloseReason::TlsFailed,
                    _ => CloseReason::ClientGone,
                }
            }),
        }
    }

    /// Logs a listed proxy that sends something else. It is misconfigured, and none of its clients can connect, so the operator
    /// should know.
    fn missing(&self, arrival: &Arrival, missing: &NoHeader) -> CloseReason {
        if let NoHeader::Broken(error) = missing {
            warn!(peer = %arrival.peer, listener = %self.name, %error, "PROXY header refused");
        }
        missing.reason()
    }

    fn start_stream(&self, endpoint: &Arc<Endpoint>, arrival: Arrival) {
        let gate = self.hub.connects.pass(&endpoint.app, arrival.peer);
        match gate.and_then(|()| self.hub.admission.admit(arrival.peer)) {
            Ok(permit) => session::spawn_stream(endpoint.clone(), arrival, permit),
            Err(reason) => {
                self.hub.refuse(&self.name, arrival.peer, reason);
                arrival.transport.reset_on_close();
            }
        }
    }
}

/// Does the TLS handshake. Returns the connection with the params that tell PHP about TLS.
async fn secure(arrival: Arrival, acceptor: &Acceptor) -> io::Result<Arrival> {
    let Arrival { transport, peer, local, params, accepted } = arrival;
    let transport = transport
        .with_tls(acceptor.server_config())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    transport.handshake().await?;
    // TLS params from our own handshake replace the ones from a proxy.
    let mut merged = Params::new();
    let own = transport.tls_params();
    let is_own = |name: &[u8]| own.pairs().any(|(known, _)| known == name);
    for (name, value) in params.pairs().filter(|(name, _)| !is_own(name)).chain(own.pairs()) {
        merged.push(name, value).expect("it was a param before");
    }
    Ok(Arrival { transport, peer, local, params: merged.finish(), accepted })
}
