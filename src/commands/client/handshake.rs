//! The client's side of the WebSocket handshake (RFC 6455 section 4.1), as values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{HeaderName, HeaderValue};
use sha1::{Digest as _, Sha1};

/// RFC 6455 section 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Key`: a nonce in base64, new for each connection.
pub(crate) fn key(nonce: [u8; 16]) -> String {
    BASE64.encode(nonce)
}

/// The `Sec-WebSocket-Accept` that a server must answer to this key (RFC 6455 section 4.2.2).
pub(crate) fn accept_value(key: &str) -> String {
    BASE64.encode(Sha1::new().chain_update(key).chain_update(WEBSOCKET_GUID).finalize())
}

/// Reads `Name: value`.
///
/// # Errors
///
/// Names the part that is not valid.
pub(crate) fn parse_header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("a header must be 'Name: value', not {line:?}"))?;
    let name = name.trim().parse().map_err(|_| format!("{:?} is not a valid header name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| format!("{:?} is not a valid header value", value.trim()))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        // RFC 6455 section 1.3.
        assert_eq!(accept_value("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn headers_are_read_or_refused() {
        let (name, value) = parse_header("Cookie: a=b; c=d").unwrap();
        assert_eq!((name, value.as_bytes()), (http::header::COOKIE, &b"a=b; c=d"[..]));
        for bad in ["no colon", "bad name: x", "X: a\nb", ": x"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }
}
