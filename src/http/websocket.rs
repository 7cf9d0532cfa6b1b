//! The opening handshake of a WebSocket (RFC 6455 section 4.2), up to PHP's leave.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use sha1::{Digest, Sha1};
use tokio::sync::oneshot;
use tracing::warn;

use super::{Body, Connection, Site, host_only, plain};
use crate::config::model::Origins;
use crate::proto::close::CloseReason;
use crate::proto::framing::{Framing, deflate};
use crate::session::{Endpoint, Head, Upgrade, Verdict, shake_hands};

/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Headers of a handler's answer that are not for the client: they describe the answer's own transfer, or belong to us.
const NOT_PASSED_ON: [&str; 9] = [
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

/// Answers a request to an app's path.
pub(super) async fn upgrade(
    site: &Arc<Site>,
    endpoint: Arc<Endpoint>,
    mut request: Request<Incoming>,
    connection: &Connection,
) -> Response<Body> {
    let peer = connection.peer;
    let refused = |reason, response| {
        site.hub.refuse(&site.listener, peer, reason);
        response
    };
    let accept = match check_handshake(&request) {
        Ok(accept) => accept,
        Err(response) => return refused(CloseReason::HandshakeRefused, *response),
    };
    let websocket = endpoint.websocket.as_ref().expect("every endpoint of an HTTP listener has WebSocket settings");
    if !is_allowed_origin(&websocket.origins, request.headers()) {
        let origin = request.headers().get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
        warn!(%peer, listener = %site.listener, origin = ?origin, "origin refused");
        return refused(CloseReason::HandshakeRefused, plain(StatusCode::FORBIDDEN, "this origin may not connect"));
    }
    let Ok(own_params) = endpoint.own_params(&connection.params, request.uri(), request.headers()) else {
        let response = plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "a header is too long");
        return refused(CloseReason::HandshakeRefused, response);
    };
    if site.hub.is_draining() {
        return refused(CloseReason::Draining, plain(StatusCode::SERVICE_UNAVAILABLE, "going away"));
    }
    let permit = match site.hub.admission.admit(peer) {
        Ok(permit) => permit,
        Err(reason) => return refused(reason, plain(StatusCode::SERVICE_UNAVAILABLE, "too many sessions")),
    };
    let negotiated = websocket
        .deflate
        .then(|| joined(request.headers(), &header::SEC_WEBSOCKET_EXTENSIONS))
        .and_then(|offers| deflate::negotiate(&offers));
    let offered_protocols = joined(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL);

    let (verdict, asked) = oneshot::channel();
    let upgrade = Upgrade {
        framing: Framing::WebSocket { deflate: negotiated.as_ref().map(|negotiated| negotiated.deflate) },
        peer,
        local: connection.local,
        own_params,
        permit,
        on_upgrade: hyper::upgrade::on(&mut request),
        endpoint: endpoint.clone(),
    };
    site.hub.tasks.spawn(shake_hands(upgrade, verdict));
    match asked.await {
        Ok(Verdict::Accepted(head)) => {
            let mut response = switching(&accept);
            if let Some(negotiated) = negotiated {
                let value = HeaderValue::from_str(&negotiated.response).expect("negotiate gives ASCII");
                response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
            }
            choose_protocol(&endpoint, &head, &offered_protocols, response.headers_mut());
            pass_on(&head, response.headers_mut());
            response
        }
        Ok(Verdict::Refused(head, body)) => {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::FORBIDDEN);
            pass_on(&head, response.headers_mut());
            for (name, value) in head.others.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                append(response.headers_mut(), name, value);
            }
            refused(CloseReason::Refused, response)
        }
        Ok(Verdict::Failed) | Err(_) => {
            refused(CloseReason::ConnectFailed, plain(StatusCode::SERVICE_UNAVAILABLE, "the handler did not answer"))
        }
    }
}

/// The value of `Sec-WebSocket-Accept`, or what is wrong with the request.
fn check_handshake(request: &Request<Incoming>) -> Result<String, Box<Response<Body>>> {
    let headers = request.headers();
    let wants_upgrade = has_token(headers, &header::UPGRADE, "websocket");
    if !wants_upgrade {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(response));
    }
    if request.method() != Method::GET {
        return Err(Box::new(plain(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket handshake is a GET")));
    }
    if !request.body().is_end_stream() {
        // Who reads a body as frames, or frames as a body, is talked into mixing up two clients (request smuggling).
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "a WebSocket handshake has no body")));
    }
    if request.version() != Version::HTTP_11 || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(Box::new(plain(
            StatusCode::BAD_REQUEST,
            "a WebSocket handshake is HTTP/1.1 with Connection: Upgrade",
        )));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is spoken here");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if BASE64.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err(Box::new(plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")));
    }
    Ok(BASE64.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()))
}

fn switching(accept: &str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let accept = HeaderValue::from_str(accept).expect("base64 is ASCII");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// RFC 6455 section 4.2.2: one of those offered, or none.
fn choose_protocol(endpoint: &Endpoint, head: &Head, offered: &str, headers: &mut HeaderMap) {
    let chosen = head.others.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
    let Some((_, chosen)) = chosen else { return };
    if offered.split(',').any(|offer| offer.trim().as_bytes() == &**chosen) {
        append(headers, header::SEC_WEBSOCKET_PROTOCOL.as_str(), chosen);
    } else {
        let chosen = String::from_utf8_lossy(chosen);
        warn!(script = %endpoint.app.script.display(), offered, %chosen, "sub-protocol was not offered, none is sent");
    }
}

fn pass_on(head: &Head, headers: &mut HeaderMap) {
    for (name, value) in &head.others {
        if !NOT_PASSED_ON.iter().any(|not| name.eq_ignore_ascii_case(not)) {
            append(headers, name, value);
        }
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    joined(headers, name).split(',').any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(", ")
}

fn is_allowed_origin(origins: &Origins, headers: &HeaderMap) -> bool {
    // Only browsers send it, and only they have somebody else's cookies.
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let is_same_host = || {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        !host.is_empty() && host_only(authority).eq_ignore_ascii_case(host_only(host))
    };
    match origins {
        Origins::Any => true,
        Origins::SameHost => is_same_host(),
        Origins::List(list) => list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) || is_same_host(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_host_or_the_list_may_connect() {
        let list = Origins::List(vec!["https://app.example".to_owned()]);
        let cases = [
            (&Origins::SameHost, None, "shop.example", true),
            (&Origins::SameHost, Some("https://shop.example"), "shop.example", true),
            (&Origins::SameHost, Some("https://SHOP.example"), "shop.example:8080", true),
            (&Origins::SameHost, Some("http://localhost:8080"), "localhost:8080", true),
            (&Origins::SameHost, Some("https://evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("https://shop.example.evil.example"), "shop.example", false),
            (&Origins::SameHost, Some("null"), "shop.example", false),
            (&Origins::SameHost, Some("https://shop.example"), "", false),
            (&list, Some("https://app.example"), "shop.example", true),
            (&list, Some("https://shop.example"), "shop.example", true),
            (&list, Some("http://app.example"), "shop.example", false),
            (&Origins::Any, Some("null"), "shop.example", true),
        ];
        for (origins, origin, host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_allowed_origin(origins, &headers), expected, "{origins:?} {origin:?} {host}");
        }
    }
}
