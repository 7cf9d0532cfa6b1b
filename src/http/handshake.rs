//! The checks that every request for a session must pass: the limits of the node, and PHP's decision.

use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::sync::oneshot::error::RecvError;
use tracing::warn;

use super::connection::Caller;
use super::handler_response::{append, pass_on};
use super::{FullBody, Site, plain};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::id::SessionId;
use crate::session::{Endpoint, Head, Permit, Verdict};
use crate::transport::Peer;

/// Headers of a handler's answer that are not for the client: they describe the answer's own transfer, or belong to us.
pub(super) const NOT_PASSED_ON: [&str; 9] = [
    "connection",
    "content-type",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "transfer-encoding",
    "upgrade",
    "trailer",
];

/// Returns the request's params and a place among the sessions.
///
/// # Errors
///
/// The response that says why not. The refusal is counted.
pub(super) fn admit(
    site: &Site,
    endpoint: &Endpoint,
    uri: &Uri,
    headers: &HeaderMap,
    caller: &Caller<'_>,
) -> Result<(EncodedParams, Permit), Box<Response<FullBody>>> {
    let peer = caller.peer;
    let refused = |reason, response| {
        site.hub.refuse(&site.listener, peer, reason);
        Err(Box::new(response))
    };
    let Ok(own_params) = endpoint.session_params(&caller.params, uri, headers) else {
        let response = plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long");
        return refused(CloseReason::HandshakeRefused, response);
    };
    if site.hub.is_draining() {
        return refused(CloseReason::Draining, plain(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down"));
    }
    let is_forwarded = site.is_trusted_proxy(caller.connection.peer);
    let counted = if is_forwarded { site.hub.admission.accept_from(peer) } else { Ok(()) };
    let passed = counted.and_then(|()| site.hub.connects.pass(&endpoint.app, peer));
    match passed.and_then(|()| site.hub.admission.admit(peer)) {
        Ok(permit) => Ok((own_params, permit)),
        Err(reason) => {
            let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, reason.text());
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            refused(reason, response)
        }
    }
}

/// Returns the id of the session that PHP accepted, and the head of PHP's answer.
///
/// # Errors
///
/// The response that says why not. The refusal is counted.
pub(super) fn verdict(
    site: &Site,
    peer: Peer,
    verdict: Result<Verdict, RecvError>,
) -> Result<(SessionId, Box<Head>), Box<Response<FullBody>>> {
    let (reason, response) = match verdict {
        Ok(Verdict::Accepted(id, head)) => return Ok((id, head)),
        Ok(Verdict::Refused(head, body)) => {
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::FORBIDDEN);
            pass_on(&head, &NOT_PASSED_ON, response.headers_mut());
            for (name, value) in head.others.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                append(response.headers_mut(), name, value);
            }
            (CloseReason::Refused, response)
        }
        Ok(Verdict::Failed) | Err(_) => {
            (CloseReason::ConnectFailed, plain(StatusCode::SERVICE_UNAVAILABLE, "the handler did not answer"))
        }
    };
    site.hub.refuse(&site.listener, peer, reason);
    Err(Box::new(response))
}

/// Refuses a page whose origin is not allowed.
pub(super) fn refuse_origin(site: &Site, headers: &HeaderMap, peer: Peer) -> Response<FullBody> {
    // An absent field means an absent header.
    let origin = headers.get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    warn!(%peer, listener = %site.listener, origin = origin.as_deref(), "origin refused");
    site.hub.refuse(&site.listener, peer, CloseReason::HandshakeRefused);
    plain(StatusCode::FORBIDDEN, "this origin may not connect")
}
