//! One HTTP connection, 1.1 or 2, until it ends or becomes a session.
//!
//! From accept to its end, a connection has a place among the connections that are not sessions yet, which `max_handshakes` bounds.
//! It leaves the place when it carries a session, because a session has a place of another kind.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::body::{AnyBody, is_fed};
use super::progress::{Progress, Watched};
use super::{LAST_WORDS, Site, answer, plain, whole};
use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::transport::{Arrival, Peer, Transport};

/// While the node stops: how long to wait for a request that may be on its way.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// Most headers of one request; browsers send about fifteen.
const MAX_HEADERS: usize = 100;
/// Most requests at once on an HTTP/2 connection; browsers share one among all pages of a site.
const MAX_STREAMS: u32 = 128;
/// The first bytes of an HTTP/2 client (RFC 9113 section 3.4). No HTTP/1 method begins with these three letters.
const PREFACE: &[u8] = b"PRI";

/// The client of a request, and the connection that it came on, which may be a proxy's.
pub(super) struct Caller<'c> {
    pub(super) peer: Peer,
    pub(super) local: Peer,
    /// Params of the connection itself.
    pub(super) params: EncodedParams,
    pub(super) connection: &'c HttpConnection,
}

impl Caller<'_> {
    /// True if the client came over TLS, to us or to a trusted proxy.
    pub(super) fn is_secure(&self) -> bool {
        self.params.pairs().any(|(name, _)| name == b"HTTPS")
    }
}

/// The facts that all requests on one connection share.
pub(super) struct HttpConnection {
    pub(super) peer: Peer,
    pub(super) local: Peer,
    /// Params of the connection itself.
    pub(super) params: EncodedParams,
    /// Its place among the connections that are not sessions.
    pub(super) place: ConnectionPlace,
    /// Cancelled to end the connection at once, because its client takes nothing.
    pub(super) cut: CancellationToken,
    /// How much of the answers the client has taken.
    progress: Arc<Progress>,
    /// Requests that are not completely answered yet.
    busy: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
}

/// Marks a response after which the client may send more requests on the same connection.
#[derive(Clone, Copy)]
pub(super) struct KeepOpen;

/// A place among the connections that are not sessions.
pub(super) struct ConnectionPlace {
    permit: Mutex<Option<OwnedSemaphorePermit>>,
    gauge: Gauge,
}

impl ConnectionPlace {
    fn new(permit: OwnedSemaphorePermit, gauge: Gauge) -> Self {
        gauge.inc();
        Self { permit: Mutex::new(Some(permit)), gauge }
    }

    /// Leaves the place to another connection.
    pub(super) fn leave(&self) {
        if lock(&self.permit).take().is_some() {
            self.gauge.dec();
        }
    }

    /// Takes a place again if it has none. False if there is none.
    pub(super) fn enter(&self, site: &Site) -> bool {
        let mut permit = lock(&self.permit);
        if permit.is_none() {
            *permit = site.places.clone().try_acquire_owned().ok();
            self.gauge.inc_by(i64::from(permit.is_some()));
        }
        permit.is_some()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Serves one HTTP connection until it ends or becomes a session.
pub async fn serve_connection(site: Arc<Site>, arrival: Arrival, permit: OwnedSemaphorePermit) {
    let Arrival { transport, peer, local, params, accepted } = arrival;
    let connection = Arc::new(HttpConnection {
        peer,
        local,
        params,
        place: ConnectionPlace::new(permit, site.hub.metrics.handshakes.clone()),
        cut: CancellationToken::new(),
        progress: Arc::default(),
        busy: AtomicUsize::new(0),
        requests: AtomicU64::new(0),
    });
    let is_heard = Arc::new(AtomicBool::new(false));
    let first_deadline = accepted + site.handshake_timeout;
    let served = serve(&site, transport, &connection, &is_heard, first_deadline);
    let result = tokio::select! {
        result = served => Some(result),
        () = connection.progress.stalled() => None,
        () = connection.progress.over(&site.hub.draining) => None,
        () = connection.cut.cancelled() => None,
    };
    match result {
        None => debug!(%peer, listener = %site.listener, "an answer was cut short"),
        Some(Ok(())) => {}
        Some(Err(ended)) => {
            // If a request came, its outcome was counted where it was answered.
            if !is_heard.load(Ordering::Relaxed) {
                site.hub.refuse(&site.listener, peer, ended.reason);
            }
            debug!(%peer, error = ended.error, "HTTP connection ended");
        }
    }
}

/// A connection that ended with an error.
struct Ended {
    /// The reason to count if no request came on it.
    reason: CloseReason,
    error: String,
}

impl From<hyper::Error> for Ended {
    fn from(error: hyper::Error) -> Self {
        let reason = if error.is_timeout() { CloseReason::HandshakeTimeout } else { CloseReason::HandshakeRefused };
        Self { reason, error: error.to_string() }
    }
}

async fn serve(
    site: &Arc<Site>,
    transport: Transport,
    connection: &Arc<HttpConnection>,
    is_heard: &Arc<AtomicBool>,
    first_deadline: Instant,
) -> Result<(), Ended> {
    let service = {
        let (site, connection, is_heard) = (site.clone(), connection.clone(), is_heard.clone());
        service_fn(move |request| {
            is_heard.store(true, Ordering::Relaxed);
            let (site, connection) = (site.clone(), connection.clone());
            async move { Ok::<_, Infallible>(one_request(&site, request, connection).await) }
        })
    };
    let speaks_http2 = match transport.is_tls() {
        true => transport.has_negotiated(b"h2"),
        false => site.http2 && begins_http2(site, &transport, first_deadline).await?,
    };
    if speaks_http2 {
        let served = http2::Builder::new(Executor(site.hub.connections.clone()))
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(site.max_header_bytes as u32)
            .serve_connection(TokioIo::new(transport), service);
        let mut served = std::pin::pin!(served);
        tokio::select! {
            result = served.as_mut() => return Ok(result?),
            () = site.hub.draining.cancelled() => {
                served.as_mut().graceful_shutdown();
                return connection.last_of(served).await;
            }
            () = connection.idle(first_deadline, site.handshake_timeout) => {
                if connection.requests.load(Ordering::Relaxed) == 0 {
                    // It has had the time of a handshake, like every connection.
                    return Err(Ended { reason: CloseReason::HandshakeTimeout, error: "no request came".to_owned() });
                }
                served.as_mut().graceful_shutdown();
                // A client that ignores even that loses nothing here.
                return Ok(tokio::time::timeout(site.handshake_timeout, served).await.unwrap_or(Ok(()))?);
            }
        }
    }
    let served = http1::Builder::new()
        .timer(HeadTimer { first: Mutex::new(Some(first_deadline)) })
        .header_read_timeout(site.handshake_timeout)
        // hyper requires room for 8 KB at least. A larger head is answered with 431.
        .max_buf_size(site.max_header_bytes.max(8192))
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    tokio::select! {
        result = served.as_mut() => return Ok(result?),
        () = site.hub.draining.cancelled() => served.as_mut().graceful_shutdown(),
    }
    connection.last_of(served).await
}

async fn one_request(
    site: &Arc<Site>,
    mut request: Request<Incoming>,
    connection: Arc<HttpConnection>,
) -> Response<Watched<AnyBody, Busy>> {
    let busy = Busy::new(connection.clone());
    let version = request.version();
    let mut response = match name_host(&mut request) {
        Ok(()) => answer(site, request, &connection).await,
        Err(problem) => {
            site.hub.refuse(&site.listener, connection.peer, CloseReason::HandshakeRefused);
            plain(StatusCode::BAD_REQUEST, problem).map(whole)
        }
    };
    let keeps_open = response.extensions_mut().remove::<KeepOpen>().is_some();
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let is_last = version < Version::HTTP_2 && !keeps_open;
    if is_last && !switches {
        // All other connections get one request each. A handshake needs no second one, and a client that asks again and again would
        // keep a place among the handshakes for as long as it likes. (hyper's own switch marks the 101 too.)
        response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let is_watched = !switches && !is_fed(response.body());
    let progress = is_watched.then(|| connection.progress.clone());
    response.map(|body| Watched::new(body, progress, is_last, busy))
}

/// Checks that a request names one host, as it must. With two, a proxy in front may use one and the server the other.
///
/// # Errors
///
/// The problem in words (RFC 9112 section 3.2).
pub(crate) fn one_host(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    match headers.get_all(header::HOST).iter().count() {
        0 if version == Version::HTTP_11 => Err("there is no Host header"),
        0 | 1 => Ok(()),
        _ => Err("there is more than one Host header"),
    }
}

/// If the target names the host, that replaces the header `Host` (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
///
/// # Errors
///
/// See [`one_host`].
fn name_host(request: &mut Request<Incoming>) -> Result<(), &'static str> {
    one_host(request.version(), request.headers())?;
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    Ok(())
}

/// True if the client speaks HTTP/2. At most a few bytes are peeked at, and none is consumed.
async fn begins_http2(site: &Site, transport: &Transport, deadline: Instant) -> Result<bool, Ended> {
    let mut begin = [0; PREFACE.len()];
    let look = async {
        let mut known = 0;
        loop {
            match poll_fn(|cx| transport.poll_peek(cx, &mut begin, known)).await {
                Ok(n) if n == begin.len() || n == 0 || !PREFACE.starts_with(&begin[..n]) => {
                    return &begin[..n] == PREFACE;
                }
                Ok(n) => known = n,
                // The next read will return the same error.
                Err(_) => return false,
            }
        }
    };
    let leaving = async {
        site.hub.draining.cancelled().await;
        tokio::time::sleep(LAST_REQUEST).await;
    };
    tokio::select! {
        biased;
        is_http2 = look => Ok(is_http2),
        () = tokio::time::sleep_until(deadline.into()) => {
            Err(Ended { reason: CloseReason::HandshakeTimeout, error: "nothing came".to_owned() })
        }
        () = leaving => Err(Ended { reason: CloseReason::Draining, error: "nothing came".to_owned() }),
    }
}

impl HttpConnection {
    /// While the node stops: finishes answers, and serves requests that are on their way. It does not wait for an idle client,
    /// which may not even notice that it is to leave (an HTTP/2 client that answers no PING, an HTTP/1.1 client that sends
    /// nothing).
    async fn last_of(&self, served: impl Future<Output = hyper::Result<()>>) -> Result<(), Ended> {
        tokio::select! {
            result = served => Ok(result?),
            () = self.rest() => match self.requests.load(Ordering::Relaxed) {
                0 => Err(Ended { reason: CloseReason::Draining, error: "no request came".to_owned() }),
                _ => Ok(()),
            },
        }
    }

    /// Ends when there was no request and no answer for a while.
    async fn rest(&self) {
        let mut last = None;
        loop {
            let requests = self.requests.load(Ordering::Relaxed);
            let is_idle = self.busy.load(Ordering::Relaxed) == 0 && !self.progress.is_leaving();
            if is_idle && last == Some(requests) {
                return;
            }
            last = is_idle.then_some(requests);
            // hyper may still hold the end of an answer.
            tokio::time::sleep(if requests == 0 { LAST_REQUEST } else { LAST_WORDS }).await;
        }
    }

    /// Ends at `first` if no request came until then. Otherwise it ends after one to two times `patience` without a request.
    async fn idle(&self, first: Instant, patience: Duration) {
        tokio::time::sleep_until(first.into()).await;
        if self.requests.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut last = None;
        loop {
            tokio::time::sleep(patience).await;
            let requests = self.requests.load(Ordering::Relaxed);
            let is_idle = self.busy.load(Ordering::Relaxed) == 0;
            if is_idle && last == Some(requests) {
                return;
            }
            last = is_idle.then_some(requests);
        }
    }
}

/// A request that is not completely answered yet.
pub(super) struct Busy(Arc<HttpConnection>);

impl Busy {
    fn new(connection: Arc<HttpConnection>) -> Self {
        connection.busy.fetch_add(1, Ordering::Relaxed);
        connection.requests.fetch_add(1, Ordering::Relaxed);
        Self(connection)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The timeout of request heads. The first head has what is left of the handshake's timeout, and each later one has all of it.
///
/// hyper has one `header_read_timeout` for a connection. It starts before each head, so it is also how long a kept connection may
/// be idle. It must not be shorter because TLS took long.
struct HeadTimer {
    /// The deadline of the first head; taken once.
    first: Mutex<Option<Instant>>,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let first = lock(&self.first).take();
        TokioTimer::new().sleep_until(first.unwrap_or(deadline))
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }
}

/// Runs hyper's streams as tasks that a draining node waits for.
#[derive(Clone)]
struct Executor(TaskTracker);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
