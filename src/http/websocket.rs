//! The opening handshake of a WebSocket (RFC 6455 section 4.2), up to PHP's decision.

use std::sync::Arc;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD as BASE64};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use sha1::{Digest, Sha1};
use tokio::sync::oneshot;
use tracing::warn;

use super::Route;
use super::connection::Caller;
use super::handler_response::{append, pass_on};
use super::handshake::{self, NOT_PASSED_ON, admit, refuse_origin};
use super::{FullBody, Site, origin, plain};
use crate::proto::close::CloseReason;
use crate::proto::framing::{Framing, deflate};
use crate::session::{Endpoint, Head, Opening, Way, shake_hands};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// For keys. The last symbol of a key has four unused bits. RFC 6455's own example (section 4.1) sets one of them, and so do
/// clients that write 22 random symbols and `==`.
const LENIENT_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_allow_trailing_bits(true));

/// Answers a request to an app's path.
pub(super) async fn upgrade(
    site: &Arc<Site>,
    Route { endpoint, settings, .. }: &Route,
    mut request: Request<Incoming>,
    caller: &Caller<'_>,
) -> Response<FullBody> {
    let accept = match check_handshake(&request) {
        Ok(accept) => accept,
        Err(response) => {
            site.hub.refuse(&site.listener, caller.peer, CloseReason::HandshakeRefused);
            return *response;
        }
    };
    let websocket = &settings.websocket;
    if !origin::is_allowed(&websocket.origins, request.headers(), caller.is_secure()) {
        return refuse_origin(site, request.headers(), caller.peer);
    }
    let (own_params, permit) = match admit(site, endpoint, request.uri(), request.headers(), caller) {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    let negotiated = websocket
        .deflate
        .then(|| joined(request.headers(), &header::SEC_WEBSOCKET_EXTENSIONS))
        .and_then(|offers| deflate::negotiate(&offers));
    let offered_protocols = joined(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL);

    let (verdict, asked) = oneshot::channel();
    let opening = Opening {
        framing: Framing::WebSocket { deflate: negotiated.as_ref().map(|negotiated| negotiated.deflate) },
        peer: caller.peer,
        local: caller.local,
        own_params,
        permit,
        way: Way::Socket(hyper::upgrade::on(&mut request)),
        endpoint: endpoint.clone(),
    };
    site.hub.tasks.spawn(shake_hands(opening, verdict));
    let (_, head) = match handshake::verdict(site, caller.peer, asked.await) {
        Ok(accepted) => accepted,
        Err(response) => return *response,
    };
    let mut response = switching(&accept);
    if let Some(negotiated) = negotiated {
        let value = HeaderValue::from_str(&negotiated.response).expect("negotiate gives ASCII");
        response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
    }
    choose_protocol(endpoint, &head, &offered_protocols, response.headers_mut());
    pass_on(&head, &NOT_PASSED_ON, response.headers_mut());
    // It describes the greeting, which is a frame and was not sent in that encoding.
    response.headers_mut().remove(header::CONTENT_ENCODING);
    response
}

/// Returns the value of `Sec-WebSocket-Accept`, or the response that says what is wrong with the request.
fn check_handshake(request: &Request<Incoming>) -> Result<String, Box<Response<FullBody>>> {
    let headers = request.headers();
    if !is_wanted(headers) {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "this path requires a WebSocket handshake");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(response));
    }
    if request.method() != Method::GET {
        return Err(Box::new(plain(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket handshake must be a GET")));
    }
    if !request.body().is_end_stream() {
        // A body may be read as frames by one program and as a body by another, which mixes up two clients (request smuggling).
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "a WebSocket handshake must not have a body")));
    }
    if request.version() != Version::HTTP_11 || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(Box::new(plain(
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake must be HTTP/1.1 with Connection: Upgrade",
        )));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is supported");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (Some(key), None) => key.as_bytes(),
        (None, _) => return Err(Box::new(plain(StatusCode::BAD_REQUEST, "there is no Sec-WebSocket-Key"))),
        // RFC 6455 section 11.3.1.
        (Some(_), Some(_)) => {
            return Err(Box::new(plain(StatusCode::BAD_REQUEST, "there is more than one Sec-WebSocket-Key")));
        }
    };
    if LENIENT_BASE64.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")));
    }
    // From the key as it was sent (RFC 6455 section 4.2.2), unused bits included.
    Ok(BASE64.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()))
}

fn switching(accept: &str) -> Response<FullBody> {
    let mut response = Response::new(FullBody::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(accept).expect("base64 is ASCII");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// The sub-protocol must be one of those offered, or none (RFC 6455 section 4.2.2). It is the handler's choice, or else the first
/// of the app's that was offered.
fn choose_protocol(endpoint: &Endpoint, head: &Head, offered: &str, headers: &mut HeaderMap) {
    let is_offered = |protocol: &[u8]| offered.split(',').any(|offer| offer.trim().as_bytes() == protocol);
    let chosen = head.others.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
    let Some((_, chosen)) = chosen else {
        if let Some(ours) = endpoint.app.subprotocols.iter().find(|ours| is_offered(ours.as_bytes())) {
            append(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str(), ours.as_bytes());
        }
        return;
    };
    if is_offered(chosen) {
        append(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str(), chosen);
    } else {
        let chosen = String::from_utf8_lossy(chosen);
        warn!(script = %endpoint.app.script.display(), offered, %chosen, "sub-protocol of the script was not offered by the client: none is sent");
    }
}

/// True if a request asks for a WebSocket, possibly among other upgrades.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    has_token(headers, &header::UPGRADE, "websocket")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    joined(headers, name).split(',').any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}
