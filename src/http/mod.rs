//! HTTP listeners: hyper reads requests, paths select apps, and requests for a session are passed to it.
//!
//! - `connection`: one connection, HTTP/1.1 or 2, with its limits and its end.
//! - `websocket`: WebSocket handshakes. `events`: sessions over plain HTTP requests. `handshake` and `origin`: the checks that both
//!   must pass.
//! - `plain_request`: all other requests, for apps that take them. `handler_response`: turns PHP's answer into a response.
//! - `static_files`: files for paths without a route. `admin`: the listener of metrics and health.
//! - `strays`: logs handshakes at a path without a route.
//! - `body`: bodies of requests and responses, within limits. `progress`: notices clients that do not take their answer.
//!
//! An upgrade to anything but a WebSocket is ignored, as RFC 9110 section 7.8 allows: Java's client and `curl --http2` offer `h2c`
//! with every request.

mod admin;
mod body;
mod connection;
mod events;
mod forwarded;
mod handler_response;
mod handshake;
mod origin;
mod plain_request;
mod progress;
mod static_files;
mod strays;
mod websocket;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::body::{AnyBody, whole};
use self::connection::{Caller, HttpConnection};
use self::events::Addresses;
use self::static_files::StaticFiles;
use self::strays::Strays;
use crate::config::model::{self, Forwarding, Limits};
use crate::proto::close::CloseReason;
use crate::proto::path;
use crate::session::{Endpoint, HttpSettings, Hub};
use crate::transport::Peer;

pub use admin::{Readiness, serve_admin};
pub(crate) use connection::one_host;
pub use connection::serve_connection;

/// The time that an answer still has when the node begins to stop. A page is sent by then, and a client can ask for a large file
/// again.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A body that is complete in memory.
type FullBody = Full<Bytes>;

/// Everything that an HTTP listener serves.
pub struct Site {
    hub: Arc<Hub>,
    listener: String,
    routes: Vec<(Pattern, Route)>,
    pages: Vec<Page>,
    static_files: Option<StaticFiles>,
    forwarding: Forwarding,
    handshake_timeout: Duration,
    max_header_bytes: usize,
    http2: bool,
    /// The addresses of sessions over HTTP.
    addresses: Addresses,
    places: Arc<Semaphore>,
    strays: Strays,
}

/// The way from a path to an app.
#[derive(Clone)]
pub struct Route {
    /// Canonical, with `/*` at the end if everything below it belongs to it.
    pub path: String,
    /// The app's endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The settings in that endpoint's `clients`.
    pub settings: Arc<HttpSettings>,
}

/// A response that needs no app.
#[derive(Clone, Debug)]
pub struct Page {
    /// The path, exactly.
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: PageBody,
}

/// The content of a page.
#[derive(Clone)]
pub enum PageBody {
    /// The same for every request.
    Fixed(Bytes),
    /// Made for each request from its `Last-Event-ID`. It is not cached.
    Fresh(Arc<MakeBody>),
}

/// Makes a body from `Last-Event-ID`.
pub type MakeBody = dyn Fn(Option<&str>) -> Bytes + Send + Sync;

impl fmt::Debug for PageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PageBody::Fixed(body) => write!(f, "Fixed({} bytes)", body.len()),
            PageBody::Fresh(_) => f.write_str("Fresh"),
        }
    }
}

/// The path of a route: exact, or a path with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// Canonical, without a slash at the end.
    path: String,
    is_prefix: bool,
}

impl Pattern {
    /// `written` is canonical, with or without `/*` at the end.
    fn new(written: &str) -> Self {
        let (path, is_prefix) = match written.strip_suffix("/*") {
            Some(path) => (path, true),
            None => (written, false),
        };
        Self { path: path::without_last_slash(path).to_owned(), is_prefix }
    }

    /// `path` is canonical.
    fn matches(&self, path: &str) -> bool {
        match path::without_last_slash(path).strip_prefix(&self.path) {
            Some("") => true,
            Some(rest) => self.is_prefix && rest.starts_with('/'),
            None => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.as_str(), self.is_prefix) {
            (path, true) => write!(f, "{path}/*"),
            ("", false) => f.write_str("/"),
            (path, false) => f.write_str(path),
        }
    }
}

impl Site {
    /// Routes are tried in their order, then pages, then the files below `static_dir`, which is canonical. Fails if the operating
    /// system gives no random bytes.
    pub fn new(
        hub: Arc<Hub>,
        listener: &str,
        routes: Vec<Route>,
        pages: Vec<Page>,
        http: &model::Http,
        limits: &Limits,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            hub,
            listener: listener.to_owned(),
            routes: routes.into_iter().map(|route| (Pattern::new(&route.path), route)).collect(),
            pages,
            static_files: http.static_dir.as_deref().map(StaticFiles::new),
            forwarding: http.forwarding.clone(),
            handshake_timeout: limits.handshake_timeout,
            max_header_bytes: limits.max_header_bytes,
            http2: http.http2,
            addresses: Addresses::new()?,
            places: Arc::new(Semaphore::new(limits.max_handshakes.min(Semaphore::MAX_PERMITS))),
            strays: Strays::default(),
        })
    }

    /// Waits for a place among the connections that are not sessions yet.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        self.places.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// True if a peer is a proxy that is trusted to name the client it speaks for.
    pub(crate) fn is_trusted_proxy(&self, peer: Peer) -> bool {
        self.forwarding.trusted_proxies.contains(peer.address())
    }

    /// The route of a canonical path.
    fn route(&self, path: &str) -> Option<&Route> {
        self.routes.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, route)| route)
    }
}

async fn answer(site: &Arc<Site>, request: Request<Incoming>, connection: &HttpConnection) -> Response<AnyBody> {
    let caller = &forwarded::caller(site, request.headers(), connection);
    // Routes and pages are found by the canonical path. PHP gets the path as it was sent.
    let path = path::canonical(request.uri().path());
    if let Some(route) = path.as_deref().and_then(|path| site.route(path)) {
        return of_app(site, route, request, caller).await;
    }
    let wants_websocket = websocket::is_wanted(request.headers());
    let response = match (site.pages.iter().find(|page| path.as_deref() == Some(page.path)), &site.static_files) {
        (Some(page), _) if is_read(request.method()) => page_response(page, request.headers()),
        (Some(_), _) => plain(StatusCode::METHOD_NOT_ALLOWED, "this page takes only GET and HEAD"),
        // A WebSocket client has the wrong path, and a file is no answer to it. Any other upgrade is ignored.
        (None, Some(files)) if !wants_websocket => return files.answer(request).await,
        (None, _) => {
            if wants_websocket {
                site.strays.tell(site, caller.peer, request.uri().path());
            }
            site.hub.refuse(&site.listener, caller.peer, CloseReason::HandshakeRefused);
            plain(StatusCode::NOT_FOUND, "nothing here")
        }
    };
    response.map(whole)
}

/// Answers a request to an app's path: for a WebSocket, for a session over HTTP, or for neither.
async fn of_app(site: &Arc<Site>, route: &Route, request: Request<Incoming>, caller: &Caller<'_>) -> Response<AnyBody> {
    let endpoint = &route.endpoint;
    let wants_websocket = websocket::is_wanted(request.headers());
    if !wants_websocket
        && route.settings.sse.enabled
        && let Some(session_request) = events::SessionRequest::of(&request, endpoint.app.event_streams)
    {
        return events::answer(site, route, session_request, request, caller).await;
    }
    if !wants_websocket && endpoint.app.plain_requests {
        return plain_request::answer(site, endpoint, request, caller).await;
    }
    websocket::upgrade(site, route, request, caller).await.map(whole)
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn page_response(page: &Page, headers: &HeaderMap) -> Response<FullBody> {
    let body = match &page.body {
        PageBody::Fixed(body) => body.clone(),
        PageBody::Fresh(make) => make(headers.get("last-event-id").and_then(|id| id.to_str().ok())),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    if let PageBody::Fresh(_) = page.body {
        body::never_cached(&mut response);
    }
    response
}

/// A short answer in plain text.
fn plain(status: StatusCode, text: impl Into<String>) -> Response<FullBody> {
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
            ("/ws", "/ws/", true),
            ("/ws/", "/ws", true),
            ("/ws", "/ws/a", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/live/*", "/live/", true),
            ("/ws", "/wsx", false),
            ("/live/*", "/live", true),
            ("/live/*", "/live/room/7", true),
            ("/live/*", "/lively", false),
            ("/*", "/anything", true),
            ("/*", "/", true),
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
