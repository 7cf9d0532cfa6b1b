//! A request that is neither for a WebSocket nor for a session, for an app that takes such requests. PHP gets it as from any web
//! server, and answers it.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::body::{AnyBody, read, whole};
use super::connection::{Caller, KeepOpen};
use super::handler_response::response;
use super::{Site, plain};
use crate::proto::close::CloseReason;
use crate::session::{Endpoint, PlainRequest};

/// Passes the request to PHP, and the answer back.
pub(super) async fn answer(
    site: &Arc<Site>,
    endpoint: &Arc<Endpoint>,
    request: Request<Incoming>,
    caller: &Caller<'_>,
) -> Response<AnyBody> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "CONNECT and TRACE are not supported").map(whole);
    }
    let Ok(own_params) = endpoint.request_params(&caller.params, request.uri(), request.headers()) else {
        site.hub.refuse(&site.listener, caller.peer, CloseReason::HandshakeRefused);
        return plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long").map(whole);
    };
    if site.hub.is_draining() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down").map(whole);
    }
    let (parts, body) = request.into_parts();
    let body = match read(body, endpoint.app.max_frame_bytes, site.handshake_timeout).await {
        Ok(body) => body,
        Err(response) => return response.map(whole),
    };
    let content_type = parts.headers.get(http::header::CONTENT_TYPE).map(|value| value.as_bytes());
    let (reply, answered) = oneshot::channel();
    let asked = PlainRequest {
        method: parts.method.as_str(),
        version: parts.version,
        content_type,
        body,
        peer: caller.peer,
        local: caller.local,
        own_params,
    };
    if endpoint.submit_plain(&asked, reply).is_err() {
        return plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long").map(whole);
    }
    let mut response = match answered.await {
        Ok(reply) => response(reply, parts.method == Method::HEAD, endpoint.app.send_timeout, &caller.connection.cut),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the handler did not answer").map(whole),
    };
    response.extensions_mut().insert(KeepOpen);
    response
}
