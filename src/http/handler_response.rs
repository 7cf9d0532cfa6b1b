//! Turns a handler's answer into an HTTP response.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use tokio_util::sync::CancellationToken;

use super::body::{AnyBody, FeedBody, fed, whole};
use super::plain;
use crate::session::{Head, HttpReply, ReplyBody};

/// Headers of a handler's answer that are not for the client: they describe the answer's own transfer (RFC 9110 section 7.6.1).
const NOT_PASSED_ON: [&str; 6] = ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// The response to a request that a handler has answered. A client that does not take it within `patience` is cut off.
///
/// If it `is_bodyless` there is no body, but `Content-Length` is the one that the body would have.
pub(super) fn response(
    reply: HttpReply,
    is_bodyless: bool,
    patience: Duration,
    cut: &CancellationToken,
) -> Response<AnyBody> {
    let (head, body) = match reply {
        HttpReply::Answer { head, body } => (head, body),
        HttpReply::Failed { status, text } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            let mut response = plain(status, "");
            *response.body_mut() = Full::new(Bytes::from(text));
            return response.map(whole);
        }
    };
    let body = match body {
        _ if is_bodyless => whole(Full::default()),
        ReplyBody::Whole(body) => whole(Full::new(Bytes::from(body))),
        ReplyBody::Feed { reader, feed, len } => {
            let cut = cut.clone();
            fed(FeedBody::of_answer(reader, feed, len, patience, move || cut.cancel()))
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status_of(&head);
    pass_on(&head, &NOT_PASSED_ON, response.headers_mut());
    if let (true, Some(len)) = (is_bodyless, head.content_length) {
        response.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    }
    response
}

/// The status of an answer. A status that HTTP does not have, or that is informational, is the handler's error and becomes a 502.
pub(super) fn status_of(head: &Head) -> StatusCode {
    StatusCode::from_u16(head.status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::BAD_GATEWAY)
}

/// Copies the handler's headers, except the ones in `not`.
pub(super) fn pass_on(head: &Head, not: &[&str], headers: &mut HeaderMap) {
    for (name, value) in &head.others {
        if !not.iter().any(|not| name.eq_ignore_ascii_case(not)) {
            append(headers, name, value);
        }
    }
}

/// Adds a header if its name and value are valid.
pub(super) fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}
