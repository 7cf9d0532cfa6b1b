//! Sessions over HTTP requests: event streams, polls, and frames that the client posts.
//!
//! ```text
//!   GET /live        Accept: text/event-stream    opens a session; the response is its stream
//!   GET /live?longwire=poll                       opens a session that is polled; answers at once
//!   GET /live?longwire=SESSION.KEY                the next frames of a polled session, or 204
//!   POST /live?longwire=SESSION.KEY               a frame from the client; the handler's answer is the response
//!   DELETE /live?longwire=SESSION.KEY             ends the session
//! ```
//!
//! The first event of a session is named `session` and contains its address, which the header `Longwire-Session` contains too. The
//! key in it is not the session's id: every program that sends to a session knows its id, and must not be able to post as the
//! session's client.

use std::future::poll_fn;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use sha2::Sha256;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Route;
use super::body::{AnyBody, FeedBody, fed, never_cached, read, whole};
use super::connection::{Caller, KeepOpen};
use super::handler_response::{pass_on, response};
use super::{Site, handshake, origin, plain};
use crate::config::model::Sse;
use crate::outbox::{Batch, Feed};
use crate::proto::close::CloseReason;
use crate::proto::framing::{FrameKind, Framing};
use crate::proto::id::SessionId;
use crate::proto::path;
use crate::session::{Endpoint, NotTaken, Opening, Post, Posts, Way, shake_hands};

/// The part of a query string that is for Longwire.
const PARAMETER: &str = "longwire=";
/// Bytes of a session's key: 128 bits cannot be guessed.
const KEY_BYTES: usize = 16;
/// Headers of a handler's answer to a connect event that are not passed on, because they do not describe our stream.
const NOT_OF_A_STREAM: [&str; 9] = [
    "cache-control",
    "connection",
    "content-encoding",
    "content-type",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The purpose of a request to an app's path, if it concerns sessions.
pub(super) enum SessionRequest {
    /// Open a session whose frames come as one long response.
    Stream,
    /// Open a session whose frames are polled.
    Polled,
    /// A request for an existing session, if the key is right.
    Session(String),
}

impl SessionRequest {
    /// `None` if the request has nothing to do with sessions. An app without `event_streams` writes its own streams.
    pub(super) fn of(request: &Request<Incoming>, event_streams: bool) -> Option<Self> {
        let parameter =
            request.uri().query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix(PARAMETER)));
        match parameter {
            Some("poll") => Some(SessionRequest::Polled),
            Some(session) => Some(SessionRequest::Session(session.to_owned())),
            None if event_streams && request.method() == Method::GET && accepts_events(request.headers()) => {
                Some(SessionRequest::Stream)
            }
            None => None,
        }
    }
}

fn accepts_events(headers: &HeaderMap) -> bool {
    let accepts = |value: &HeaderValue| {
        let types = value.to_str().unwrap_or("").split(',');
        types
            .into_iter()
            .any(|kind| kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("text/event-stream"))
    };
    headers.get_all(header::ACCEPT).iter().any(accepts)
}

/// Makes and checks the addresses of sessions.
pub(super) struct Addresses(Hmac<Sha256>);

impl Addresses {
    /// Makes them with a random key.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length")))
    }

    fn of(&self, path: &str, id: SessionId) -> String {
        let code = self.0.clone().chain_update(id.as_str()).finalize().into_bytes();
        format!("{path}?{PARAMETER}{id}.{}", BASE64.encode(&code[..KEY_BYTES]))
    }

    /// The session of an address, if the address's key is right.
    fn session(&self, written: &str) -> Option<SessionId> {
        let (id, key) = written.split_once('.')?;
        let id = SessionId::from_bytes(id.as_bytes())?;
        let key = BASE64.decode(key).ok().filter(|key| key.len() == KEY_BYTES)?;
        // Compares in constant time.
        self.0.clone().chain_update(id.as_str()).verify_truncated_left(&key).ok().map(|()| id)
    }
}

/// Answers a request that concerns sessions.
pub(super) async fn answer(
    site: &Arc<Site>,
    Route { endpoint, settings, .. }: &Route,
    session_request: SessionRequest,
    request: Request<Incoming>,
    caller: &Caller<'_>,
) -> Response<AnyBody> {
    if !origin::is_allowed(&settings.websocket.origins, request.headers(), caller.is_secure()) {
        return handshake::refuse_origin(site, request.headers(), caller.peer).map(whole);
    }
    let headers = request.headers().clone();
    let mut response = match session_request {
        _ if request.method() == Method::OPTIONS => preflight(),
        SessionRequest::Stream | SessionRequest::Polled if request.method() != Method::GET => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a session is opened with GET").map(whole);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            response
        }
        SessionRequest::Stream => open(site, endpoint, &request, caller, false).await,
        SessionRequest::Polled => open(site, endpoint, &request, caller, true).await,
        SessionRequest::Session(address) => match find(site, endpoint, &address) {
            Some(posts) => of_session(site, endpoint, &settings.sse, posts, request, caller).await,
            None => plain(StatusCode::GONE, "there is no such session").map(whole),
        },
    };
    never_cached(&mut response);
    origin::allow(&settings.websocket.origins, &headers, response.headers_mut());
    response
}

/// Answers a browser's preflight, which it sends before it lets a page of another host make a request.
fn preflight() -> Response<AnyBody> {
    let mut response = Response::new(whole(Full::default()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type, last-event-id"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

fn find(site: &Site, endpoint: &Arc<Endpoint>, address: &str) -> Option<Arc<Posts>> {
    let posts = site.hub.posts.find(site.addresses.session(address)?)?;
    // A session belongs to one endpoint. At another it would meet another app's limits.
    std::ptr::eq(posts.outbox().terms(), &*endpoint.terms).then_some(posts)
}

/// Opens a session. Returns its stream, or the answer to its first poll.
async fn open(
    site: &Arc<Site>,
    endpoint: &Arc<Endpoint>,
    request: &Request<Incoming>,
    caller: &Caller<'_>,
    is_polled: bool,
) -> Response<AnyBody> {
    let (own_params, permit) = match handshake::admit(site, endpoint, request.uri(), request.headers(), caller) {
        Ok(admitted) => admitted,
        Err(response) => return response.map(whole),
    };
    let (feed, reader) = match is_polled {
        true => (Feed::polled(), None),
        false => {
            let (feed, reader) = Feed::stream();
            (feed, Some(reader))
        }
    };
    // Taken before the session starts, or the first event would find no poll.
    let turn = is_polled.then(|| feed.take_turn());
    // Canonical, because a browser would take a path with two slashes in front as the address of another host.
    let path = path::canonical(request.uri().path()).expect("a route has taken it").into_owned();
    let address = {
        let (site, path) = (site.clone(), path.clone());
        Box::new(move |id| site.addresses.of(&path, id))
    };
    // A stream's connection ends with its session at the latest. A polled session has no connection of its own.
    let cut = if is_polled { CancellationToken::new() } else { caller.connection.cut.clone() };
    let way = Way::Responses { feed, cut, address };
    let opening = Opening {
        endpoint: endpoint.clone(),
        framing: Framing::EventStream,
        peer: caller.peer,
        local: caller.local,
        own_params,
        permit,
        way,
    };
    let (verdict, asked) = oneshot::channel();
    site.hub.tasks.spawn(shake_hands(opening, verdict));
    let (id, head) = match handshake::verdict(site, caller.peer, asked.await) {
        Ok(accepted) => accepted,
        Err(response) => return response.map(whole),
    };
    let mut response = match (reader, turn) {
        (Some(reader), _) => {
            // From now on the connection belongs to the session, which has its own place.
            caller.connection.place.leave();
            Response::new(fed(FeedBody::of_session(reader)))
        }
        (None, Some(mut turn)) => {
            let batch = poll_fn(|cx| turn.poll_batch(cx)).await;
            let mut response = batch_response(batch);
            response.extensions_mut().insert(KeepOpen);
            response
        }
        (None, None) => unreachable!("a polled session has its first turn"),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Otherwise nginx would wait until its buffers are full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let address = site.addresses.of(&path, id);
    headers.insert("longwire-session", HeaderValue::from_str(&address).expect("paths of requests are ASCII"));
    pass_on(&head, &NOT_OF_A_STREAM, headers);
    response
}

async fn of_session(
    site: &Arc<Site>,
    endpoint: &Arc<Endpoint>,
    sse: &Sse,
    posts: Arc<Posts>,
    request: Request<Incoming>,
    caller: &Caller<'_>,
) -> Response<AnyBody> {
    let mut response = match *request.method() {
        Method::GET => match posts.outbox().link().feed().filter(|feed| feed.is_polled()) {
            Some(feed) => poll(site, sse, feed, caller).await,
            None => plain(StatusCode::CONFLICT, "this session has a stream and is not polled").map(whole),
        },
        Method::POST => post(site, endpoint, &posts, request, caller).await,
        Method::DELETE => {
            posts.outbox().ask_close(CloseReason::ClientClosed.into());
            let mut response = Response::new(whole(Full::default()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "a session takes GET, POST and DELETE").map(whole);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
            response
        }
    };
    // Between a session's requests, its connection waits in a place like any other connection.
    if caller.connection.place.enter(site) {
        response.extensions_mut().insert(KeepOpen);
    }
    response
}

/// Returns the frames that wait, or that come within `poll_timeout`.
async fn poll(site: &Site, sse: &Sse, feed: &Arc<Feed>, caller: &Caller<'_>) -> Response<AnyBody> {
    let mut turn = feed.take_turn();
    // A session has one poll at a time, so the limit of sessions bounds these connections too.
    caller.connection.place.leave();
    let batch = tokio::select! {
        batch = poll_fn(|cx| turn.poll_batch(cx)) => batch,
        () = tokio::time::sleep(sse.poll_timeout) => Batch::Superseded,
        () = site.hub.draining.cancelled() => {
            // The last frames of the session come at once.
            tokio::time::timeout(sse.poll_timeout.min(super::LAST_WORDS), poll_fn(|cx| turn.poll_batch(cx)))
                .await
                .unwrap_or(Batch::Superseded)
        }
    };
    batch_response(batch)
}

fn batch_response(batch: Batch) -> Response<AnyBody> {
    match batch {
        Batch::Frames(frames) => {
            let mut response = Response::new(whole(Full::new(frames)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
        Batch::Superseded => {
            let mut response = Response::new(whole(Full::default()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Batch::Ended => plain(StatusCode::GONE, "the session has ended").map(whole),
    }
}

/// Handles a frame from the client. The response is the handler's answer.
async fn post(
    site: &Arc<Site>,
    endpoint: &Endpoint,
    posts: &Posts,
    request: Request<Incoming>,
    caller: &Caller<'_>,
) -> Response<AnyBody> {
    let (parts, body) = request.into_parts();
    let body = match read(body, endpoint.app.max_frame_bytes, site.handshake_timeout).await {
        Ok(body) => body,
        Err(response) => return response.map(whole),
    };
    let (reply, answered) = oneshot::channel();
    let kind = kind_of(&parts.headers, &body);
    match posts.push(Post { kind, body, reply }) {
        Ok(()) => {}
        Err(NotTaken::Full) => {
            let mut response = plain(StatusCode::TOO_MANY_REQUESTS, "too many frames are queued").map(whole);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        Err(NotTaken::Ending) => return plain(StatusCode::GONE, "the session has ended").map(whole),
    }
    match answered.await {
        Ok(reply) => response(reply, false, endpoint.app.send_timeout, &caller.connection.cut),
        Err(_) => {
            warn!(session = %posts.outbox().id(), "a post was dropped with its session");
            plain(StatusCode::GONE, "the session has ended").map(whole)
        }
    }
}

/// Text if the body is UTF-8 and its content type is textual or absent.
fn kind_of(headers: &HeaderMap, body: &Bytes) -> FrameKind {
    let announced = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("text/plain");
    let media_type = announced.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_textual = media_type.starts_with("text/")
        || media_type.ends_with("json")
        || media_type.ends_with("xml")
        || media_type == "application/x-www-form-urlencoded";
    if is_textual && str::from_utf8(body).is_ok() { FrameKind::Text } else { FrameKind::Binary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_its_session_and_no_other_key_does() {
        let (addresses, others) = (Addresses::new().unwrap(), Addresses::new().unwrap());
        let id = |text: &[u8; 16]| SessionId::from_bytes(text).unwrap();
        let (mine, theirs) = (id(b"AAAN5xSVtmv6fR3q"), id(b"AAAN5zXuM1vl2aFa"));
        let address = addresses.of("/live", mine);
        let written = address.strip_prefix("/live?longwire=").unwrap();
        assert_eq!(addresses.session(written), Some(mine));
        assert_eq!(others.session(written), None, "another run has another key");
        let key = written.split_once('.').unwrap().1;
        let cases = [
            mine.to_string(),
            format!("{mine}."),
            format!("{theirs}.{key}"),
            format!("{mine}.{}", &key[..20]),
            format!("{mine}.{key}A"),
            format!("{mine}.{}", key.replace(|_| true, "A")),
            "poll".to_owned(),
            String::new(),
        ];
        for written in cases {
            assert_eq!(addresses.session(&written), None, "{written}");
        }
    }

    #[test]
    fn the_kind_of_a_post_is_what_it_says_if_it_can_be() {
        let cases: &[(Option<&str>, &[u8], FrameKind)] = &[
            (None, b"hello", FrameKind::Text),
            (None, &[0xff], FrameKind::Binary),
            (Some("text/plain;charset=UTF-8"), "h\u{e9}".as_bytes(), FrameKind::Text),
            (Some("application/json"), b"{}", FrameKind::Text),
            (Some("application/vnd.api+json; x=1"), b"{}", FrameKind::Text),
            (Some("application/octet-stream"), b"hello", FrameKind::Binary),
            (Some("text/plain"), &[0xc3], FrameKind::Binary),
        ];
        for (announced, body, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(announced) = announced {
                headers.insert(header::CONTENT_TYPE, announced.parse().unwrap());
            }
            assert_eq!(kind_of(&headers, &Bytes::from_static(body)), *expected, "{announced:?} {body:?}");
        }
    }
}
