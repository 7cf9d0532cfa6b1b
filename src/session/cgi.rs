//! Encodes an event as params, which PHP finds in `$_SERVER`.
//!
//! The params come in four blocks, ordered by how long they stay the same. The endpoint's block has script, server and
//! the app's own params. The session's has its connection and, for HTTP, the upgrade request: URI and headers. The
//! profile's has uid and attributes, which the router keeps encoded. The last one is the event's. If a name comes
//! twice, php-fpm keeps the last value, and the blocks come in this order. A name that a client chooses always begins
//! with `HTTP_`, so it cannot replace a param of Longwire.

use std::cell::RefCell;
use std::io::Write;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Uri, Version, header};

use super::endpoint::{Hub, PlainRequest};
use crate::cluster::presence::{ChannelChange, Notice};
use crate::config::model::App;
use crate::outbox::Close;
use crate::proto::fastcgi::params::{EncodedParams, PairTooLong, Params};
use crate::proto::framing::FrameKind;
use crate::proto::id::SessionId;
use crate::transport::Peer;
use crate::upstream::Class;

/// `LONGWIRE_EVENT` of a plain request.
pub(super) const REQUEST: &str = "request";

/// The value of `SERVER_SOFTWARE`.
const SOFTWARE: &str = concat!("longwire/", env!("CARGO_PKG_VERSION"));

/// The kind of requests that an endpoint's params are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ParamsPurpose {
    /// Events of sessions on streams.
    Streams,
    /// Events of sessions that came over HTTP.
    Http,
    /// Plain requests, which belong to no session: method and protocol are the client's.
    PlainRequests,
}

/// The params shared by all events that come through one listener to one app. `listener` is empty for channel events,
/// which come through none.
pub(super) fn endpoint_params(
    hub: &Hub,
    listener: &str,
    app: &App,
    purpose: ParamsPurpose,
) -> Result<EncodedParams, PairTooLong> {
    let mut params = Params::new();
    let mut put = |name: &str, value: &[u8]| params.push(name.as_bytes(), value);
    use std::os::unix::ffi::OsStrExt;
    put("SCRIPT_FILENAME", app.script.as_os_str().as_bytes())?;
    put("DOCUMENT_ROOT", app.document_root.as_os_str().as_bytes())?;
    put("SCRIPT_NAME", app.script_name.as_bytes())?;
    put("GATEWAY_INTERFACE", b"CGI/1.1")?;
    if purpose != ParamsPurpose::PlainRequests {
        put("REQUEST_METHOD", b"POST")?;
        put("SERVER_PROTOCOL", b"HTTP/1.1")?;
    }
    put("SERVER_SOFTWARE", SOFTWARE.as_bytes())?;
    // php-cgi refuses requests that no web server has redirected (cgi.force_redirect); php-fpm does not mind.
    put("REDIRECT_STATUS", b"200")?;
    put("LONGWIRE_NODE", hub.node_name.as_bytes())?;
    if !listener.is_empty() {
        put("LONGWIRE_LISTENER", listener.as_bytes())?;
    }
    if !hub.router_address.is_empty() {
        put("LONGWIRE_ROUTER", hub.router_address.as_bytes())?;
    }
    if purpose == ParamsPurpose::Streams {
        put("REQUEST_URI", app.uri.as_bytes())?;
        put("QUERY_STRING", app.uri.split_once('?').map_or("", |(_, query)| query).as_bytes())?;
    }
    for (name, value) in &app.params {
        put(name, value.reveal().as_bytes())?;
    }
    Ok(params.finish())
}

/// Headers of a handshake that events do not repeat. They ask for the response to that one request in another form:
/// compressed, in part, or only if it has changed. PHP and its frameworks would apply them to each reply:
/// `zlib.output_compression` compresses it, a framework answers 206 or 304. A frame has no header that could tell the
/// client.
const ONLY_FOR_ITS_RESPONSE: [&str; 9] = [
    "a-im",
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "te",
];

/// The params of a connection and of an upgrade request on it: its URI, and its headers as `HTTP_*`, except those that
/// apply only to its own response.
///
/// Some headers are dropped: names outside `[A-Za-z0-9-]` (`X_Forwarded_For` would pass for `X-Forwarded-For`),
/// `Proxy`, which libraries take for a setting (CVE-2016-5385), and names that would replace a param that `is_ours`.
/// Repeated headers are joined as HTTP defines it.
pub(super) fn own_params(
    purpose: ParamsPurpose,
    is_ours: impl Fn(&[u8]) -> bool,
    connection: &EncodedParams,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<EncodedParams, PairTooLong> {
    let mut params = Params::new();
    for (name, value) in connection.pairs() {
        params.push(name, value)?;
    }
    let request_uri = uri.path_and_query().map_or("/", |path| path.as_str());
    params.push(b"REQUEST_URI", request_uri.as_bytes())?;
    params.push(b"QUERY_STRING", uri.query().unwrap_or("").as_bytes())?;
    let mut name = Vec::new();
    for key in headers.keys() {
        if !is_plain(key) || key == "proxy" {
            continue;
        }
        if purpose != ParamsPurpose::PlainRequests && ONLY_FOR_ITS_RESPONSE.iter().any(|only| key == only) {
            continue;
        }
        name.clear();
        name.extend_from_slice(b"HTTP_");
        name.extend(key.as_str().bytes().map(|b| if b == b'-' { b'_' } else { b.to_ascii_uppercase() }));
        if is_ours(&name) {
            continue;
        }
        let mut values = headers.get_all(key).iter();
        let first = values.next().map(|value| value.as_bytes()).unwrap_or_default();
        let mut joined = std::borrow::Cow::Borrowed(first);
        for value in values {
            // RFC 9110 section 5.3, and RFC 6265 section 5.4 for cookies.
            let joint: &[u8] = if key == header::COOKIE { b"; " } else { b", " };
            joined.to_mut().extend_from_slice(joint);
            joined.to_mut().extend_from_slice(value.as_bytes());
        }
        params.push(&name, &joined)?;
    }
    Ok(params.finish())
}

/// Whether a name that begins with `HTTP_` is one of the app's own params, or one of the session's if `param_prefix`
/// begins with `HTTP_`.
///
/// A message has no `EVENT`. So with the prefix `HTTP_`, a client's header `Event: 2` would make a message pass for a
/// close event.
pub(super) fn is_ours(app: &App, name: &[u8]) -> bool {
    name.strip_prefix(app.param_prefix.as_bytes()).is_some_and(|rest| rest == b"SESSIONID" || rest == b"EVENT")
        || app.params.iter().any(|(ours, _)| ours.as_bytes() == name)
}

fn is_plain(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The values for the params of one event.
pub(super) struct EventParams<'a> {
    /// The session of the event.
    pub id: SessionId,
    /// The class of the event.
    pub class: Class,
    /// Its number in the session.
    pub seq: u64,
    /// Text or binary, for a message.
    pub kind: FrameKind,
    /// The length of the body in bytes. It must be exact, or php-fpm gets out of step on the connection.
    pub content_length: usize,
    /// The other end.
    pub peer: Peer,
    /// This end.
    pub local: Peer,
    /// The reason why the session ended, for a close event.
    pub close: Option<&'a Close>,
}

impl EventParams<'_> {
    /// Encodes the event's own block. `app` gives the prefix, and says whether it sets `CONTENT_TYPE` itself.
    pub(super) fn encode(&self, app: &App) -> EncodedParams {
        BLOCK.with_borrow_mut(|block| self.encode_into(block, app))
    }

    fn encode_into(&self, block: &mut Block, app: &App) -> EncodedParams {
        block.put_prefixed(app, "SESSIONID", self.id.as_str());
        match self.class {
            // fooking's convention: a message has no EVENT.
            Class::Connect => block.put_prefixed(app, "EVENT", "1"),
            Class::Close => block.put_prefixed(app, "EVENT", "2"),
            Class::Message | Class::Presence => {}
        }
        block.put("LONGWIRE_EVENT", self.class.label());
        block.put_number("LONGWIRE_SEQ", self.seq);
        if self.class == Class::Message {
            block.put("LONGWIRE_FRAME_TYPE", self.kind.label());
        }
        if let Some(close) = self.close {
            block.put_number("LONGWIRE_CLOSE_CODE", u64::from(close.code()));
            block.put("LONGWIRE_CLOSE_REASON", close.reason.label());
        }
        block.put_number("CONTENT_LENGTH", self.content_length as u64);
        if !app.params.iter().any(|(name, _)| name == "CONTENT_TYPE") {
            block.put(
                "CONTENT_TYPE",
                match self.kind {
                    FrameKind::Text => "text/plain; charset=utf-8",
                    FrameKind::Binary => "application/octet-stream",
                },
            );
        }
        block.put_address("REMOTE_ADDR", "REMOTE_PORT", self.peer);
        block.put_address("SERVER_ADDR", "SERVER_PORT", self.local);
        // Not from the Host header: the client chooses that, and PHP has it as HTTP_HOST.
        block.put_text("SERVER_NAME");
        block.params.finish_copy()
    }
}

/// `LONGWIRE_EVENT` of a channel event.
pub(super) fn event_of(change: ChannelChange) -> &'static str {
    match change {
        ChannelChange::Join => "join",
        ChannelChange::Leave => "leave",
        ChannelChange::Occupied => "occupied",
        ChannelChange::Vacated => "vacated",
    }
}

/// The own block of a channel event.
pub(super) fn notice_params(notice: &Notice, app: &App) -> EncodedParams {
    let mut block = Block::default();
    let number = match notice.change {
        ChannelChange::Join => "3",
        ChannelChange::Leave => "4",
        ChannelChange::Occupied => "5",
        ChannelChange::Vacated => "6",
    };
    // Without EVENT, a script would take it for a message.
    block.put_prefixed(app, "EVENT", number);
    block.put("LONGWIRE_EVENT", event_of(notice.change));
    block.put_bytes("LONGWIRE_CHANNEL", notice.of.channel.as_bytes());
    if matches!(notice.change, ChannelChange::Join | ChannelChange::Leave) {
        block.put_prefixed(app, "SESSIONID", notice.of.session.as_str());
        if let Some(uid) = &notice.uid {
            block.put_bytes("LONGWIRE_UID", uid.as_bytes());
        }
    }
    block.put_number("CONTENT_LENGTH", 0);
    block.params.finish()
}

/// The own block of a plain request.
pub(super) fn plain_params(request: &PlainRequest<'_>) -> Result<EncodedParams, PairTooLong> {
    let mut block = Block::default();
    block.params.push(b"REQUEST_METHOD", request.method.as_bytes())?;
    if let Some(content_type) = request.content_type {
        block.params.push(b"CONTENT_TYPE", content_type)?;
    }
    block.put("LONGWIRE_EVENT", REQUEST);
    block.put(
        "SERVER_PROTOCOL",
        match request.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
    );
    block.put_number("CONTENT_LENGTH", request.body.len() as u64);
    block.put_address("REMOTE_ADDR", "REMOTE_PORT", request.peer);
    block.put_address("SERVER_ADDR", "SERVER_PORT", request.local);
    block.put_text("SERVER_NAME");
    Ok(block.params.finish())
}

#[derive(Default)]
struct Block {
    params: Params,
    text: Vec<u8>,
}

thread_local! {
    /// The buffer in which the blocks of events are built, one after the other.
    static BLOCK: RefCell<Block> = RefCell::default();
}

impl Block {
    fn put(&mut self, name: &str, value: &str) {
        self.put_bytes(name, value.as_bytes());
    }

    fn put_bytes(&mut self, name: &str, value: &[u8]) {
        self.params.push(name.as_bytes(), value).expect("names and values of ours are far below a record");
    }

    fn put_prefixed(&mut self, app: &App, name: &str, value: &str) {
        if app.param_prefix.is_empty() {
            self.put(name, value);
        } else {
            self.put(&format!("{}{name}", app.param_prefix), value);
        }
    }

    fn put_number(&mut self, name: &str, value: u64) {
        self.put(name, itoa::Buffer::new().format(value));
    }

    fn write_ip(&mut self, address: IpAddr) {
        self.text.clear();
        match address {
            // std supports padding and alignment, and its formatting took 1.7 % of the CPU time of an echo.
            IpAddr::V4(address) => {
                let mut digits = [b'.'; "255.255.255.255".len()];
                let mut end = 0;
                for octet in address.octets() {
                    if octet >= 100 {
                        digits[end] = b'0' + octet / 100;
                        end += 1;
                    }
                    if octet >= 10 {
                        digits[end] = b'0' + octet / 10 % 10;
                        end += 1;
                    }
                    digits[end] = b'0' + octet % 10;
                    // Skips the dot, which is already there.
                    end += 2;
                }
                self.text.extend_from_slice(&digits[..end - 1]);
            }
            IpAddr::V6(address) => write!(self.text, "{address}").expect("memory takes everything"),
        }
    }

    fn put_text(&mut self, name: &str) {
        self.params.push(name.as_bytes(), &self.text).expect("names and values of ours are far below a record");
    }

    /// Puts address and port. Afterwards `text` holds the address, for [`Self::put_text`].
    fn put_address(&mut self, address_name: &str, port_name: &str, peer: Peer) {
        match peer {
            Peer::Ip(address) => {
                self.write_ip(address.ip().to_canonical());
                self.put_text(address_name);
                match address.port() {
                    // nginx also sends an empty value for an unknown port.
                    0 => self.put(port_name, ""),
                    port => self.put_number(port_name, u64::from(port)),
                }
            }
            Peer::Unix => {
                self.text.clear();
                write!(self.text, "{peer}").expect("memory takes everything");
                self.put_text(address_name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_written_as_std_writes_them() {
        let mut block = Block::default();
        for number in [0, 9, 10, 65_535, 1 << 40, u64::MAX] {
            block.put_number("N", number);
            assert_eq!(pairs(&block.params.finish_copy()), [("N".to_owned(), number.to_string())]);
        }
        let octets = (0..=u8::MAX).map(|octet| format!("{octet}.{octet}.0.{octet}"));
        for address in octets.chain(["255.100.9.10", "::1", "2001:db8::ff00:42:8329"].map(str::to_owned)) {
            block.write_ip(address.parse().unwrap());
            block.put_text("A");
            assert_eq!(pairs(&block.params.finish_copy()), [("A".to_owned(), address)]);
        }
    }

    fn pairs(params: &EncodedParams) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        params.pairs().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn headers_of_a_client_stay_below_http_and_hostile_ones_are_dropped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("Host", "shop.example"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
            ("Accept-Language", "de"),
            ("Accept-Language", "en"),
            ("Proxy", "http://evil.example"),
            ("X_Forwarded_For", "10.0.0.1"),
            ("Script.Filename", "/etc/passwd"),
            ("SESSIONID", "forged"),
            ("Content-Length", "7"),
            ("Taken", "forged"),
            ("Accept-Encoding", "gzip, br"),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "*"),
            ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let uri: Uri = "/ws/room?id=7&x=%20".parse().unwrap();
        let mut connection = Params::new();
        connection.push(b"HTTPS", b"on").unwrap();
        let connection = connection.finish();
        let found_for = |purpose| {
            let is_ours = |name: &[u8]| name == b"HTTP_TAKEN";
            pairs(&own_params(purpose, is_ours, &connection, &uri, &headers).unwrap())
        };
        let found = found_for(ParamsPurpose::Http);
        let expected = [
            ("HTTPS", "on"),
            ("REQUEST_URI", "/ws/room?id=7&x=%20"),
            ("QUERY_STRING", "id=7&x=%20"),
            ("HTTP_HOST", "shop.example"),
            ("HTTP_COOKIE", "a=1; b=2"),
            ("HTTP_ACCEPT_LANGUAGE", "de, en"),
            ("HTTP_SESSIONID", "forged"),
            ("HTTP_CONTENT_LENGTH", "7"),
        ];
        for (name, value) in expected {
            assert!(found.contains(&(name.into(), value.into())), "{name}={value} is not in {found:?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:?}");
        let of_request = found_for(ParamsPurpose::PlainRequests);
        for name in ["HTTP_ACCEPT_ENCODING", "HTTP_RANGE", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"] {
            assert!(of_request.iter().any(|(found, _)| found == name), "{name} is not in {of_request:?}");
        }
        assert_eq!(of_request.len(), expected.len() + 4, "{of_request:?}");
    }
}
