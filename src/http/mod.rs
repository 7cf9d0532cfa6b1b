//! HTTP listeners: hyper reads requests, paths lead to apps, WebSocket handshakes lead to sessions. What no route takes may be
//! a page of the node's own or a static file.

mod admin;
mod forwarded;
mod progress;
mod static_files;
mod websocket;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use self::progress::Progress;
use self::static_files::{FileBody, StaticFiles};
use crate::config::model::{Forwarding, Limits};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::session::{Endpoint, Hub};
use crate::transport::{Arrival, Peer};

pub use admin::{Readiness, serve_admin};

/// Headers of one request; browsers send about fifteen.
const MAX_HEADERS: usize = 100;

type Body = Full<Bytes>;

/// What an HTTP listener serves.
pub struct Site {
    hub: Arc<Hub>,
    listener: String,
    routes: Vec<(Pattern, Arc<Endpoint>)>,
    pages: Vec<Page>,
    static_files: Option<StaticFiles>,
    forwarding: Forwarding,
    handshake_timeout: Duration,
    max_header_bytes: usize,
    places: Arc<Semaphore>,
}

/// A fixed answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The path, exactly.
    pub path: &'static str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is sent.
    pub body: Bytes,
}

/// A path of a route: exact, or everything below.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    path: String,
    is_prefix: bool,
}

impl Pattern {
    fn new(written: &str) -> Self {
        match written.strip_suffix("/*") {
            Some(path) => Self { path: path.to_owned(), is_prefix: true },
            None => Self { path: written.to_owned(), is_prefix: false },
        }
    }

    fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&self.path) {
            Some("") => true,
            Some(rest) => self.is_prefix && rest.starts_with('/'),
            None => false,
        }
    }
}

impl Site {
    /// Routes are tried in their order, then pages, then the files below `static_dir`, which is canonical.
    pub fn new(
        hub: Arc<Hub>,
        listener: &str,
        routes: Vec<(String, Arc<Endpoint>)>,
        pages: Vec<Page>,
        static_dir: Option<&Path>,
        forwarding: Forwarding,
        limits: &Limits,
    ) -> Self {
        Self {
            hub,
            listener: listener.to_owned(),
            routes: routes.into_iter().map(|(path, endpoint)| (Pattern::new(&path), endpoint)).collect(),
            pages,
            static_files: static_dir.map(StaticFiles::new),
            forwarding,
            handshake_timeout: limits.handshake_timeout,
            max_header_bytes: limits.max_header_bytes,
            places: Arc::new(Semaphore::new(limits.max_handshakes.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// A place among the connections that are not sessions yet.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        self.places.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn endpoint(&self, path: &str) -> Option<&Arc<Endpoint>> {
        self.routes.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, endpoint)| endpoint)
    }
}

/// What every request on one connection has in common.
#[derive(Clone)]
struct Connection {
    peer: Peer,
    local: Peer,
    params: EncodedParams,
}

/// Serves one HTTP connection until it ends or becomes a session.
pub async fn serve_connection(site: Arc<Site>, arrival: Arrival, place: OwnedSemaphorePermit) {
    let gauge = site.hub.metrics.handshakes.clone();
    gauge.inc();
    let Arrival { transport, peer, local, params, accepted } = arrival;
    let about = Arc::new(Connection { peer, local, params });
    let is_heard = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Progress::default());
    let service = {
        let (site, is_heard, progress) = (site.clone(), is_heard.clone(), progress.clone());
        service_fn(move |request| {
            is_heard.store(true, Ordering::Relaxed);
            let (site, about, progress) = (site.clone(), about.clone(), progress.clone());
            async move {
                let mut response = answer(&site, request, &about).await;
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    // One request each: a handshake needs no second one, and whoever asked again and again would keep a
                    // place among the handshakes for as long as it likes. (hyper's own switch marks the 101 too.)
                    response.headers_mut().append(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, std::convert::Infallible>(response.map(|body| progress.watch(body)))
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(site.handshake_timeout.saturating_sub(accepted.elapsed()))
        // hyper wants room for 8 KB at least; a head above this is answered with 431.
        .max_buf_size(site.max_header_bytes.max(8192))
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            result = connection.as_mut() => result,
            () = site.hub.draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let result = tokio::select! {
        result = served => Some(result),
        () = progress.stalled() => None,
        () = progress.over(&site.hub.draining) => None,
    };
    gauge.dec();
    drop(place);
    if result.is_none() {
        debug!(%peer, listener = %site.listener, "an answer was cut short");
    }
    if let Some(Err(error)) = result {
        // What became of a request that was heard is counted where it was answered.
        if !is_heard.load(Ordering::Relaxed) {
            let reason = if error.is_timeout() { CloseReason::HandshakeTimeout } else { CloseReason::HandshakeRefused };
            site.hub.refuse(&site.listener, peer, reason);
        }
        debug!(%peer, %error, "HTTP connection ended");
    }
}

async fn answer(site: &Arc<Site>, request: Request<Incoming>, connection: &Connection) -> Response<FileBody> {
    let connection = &*forwarded::client_of(site, request.headers(), connection);
    let path = request.uri().path();
    if let Some(endpoint) = site.endpoint(path) {
        return websocket::upgrade(site, endpoint.clone(), request, connection).await.map(Either::Left);
    }
    let response = match (site.pages.iter().find(|page| page.path == path), &site.static_files) {
        (Some(page), _) if is_read(request.method()) => page_response(page),
        (Some(_), _) => plain(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read"),
        // Who wants to talk has come to a wrong path; a file would answer nothing.
        (None, Some(files)) if !request.headers().contains_key(header::UPGRADE) => return files.answer(request).await,
        (None, _) => {
            site.hub.refuse(&site.listener, connection.peer, CloseReason::HandshakeRefused);
            plain(StatusCode::NOT_FOUND, "nothing here")
        }
    };
    response.map(Either::Left)
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn page_response(page: &Page) -> Response<Body> {
    let mut response = Response::new(Full::new(page.body.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}

/// A short answer in plain text.
fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text.into() + "\n")));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// The host in `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn host_only(authority: &str) -> &str {
    if authority.parse::<IpAddr>().is_ok() {
        return authority;
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        let cases = [
            ("/ws", "/ws", true),
            ("/ws", "/ws/", false),
            ("/ws", "/wsx", false),
            ("/live/*", "/live", true),
            ("/live/*", "/live/room/7", true),
            ("/live/*", "/lively", false),
            ("/*", "/anything", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_host_is_what_stands_before_the_port() {
        let cases = [
            ("shop.example", "shop.example"),
            ("shop.example:8080", "shop.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ];
        for (authority, host) in cases {
            assert_eq!(host_only(authority), host);
        }
    }
}
