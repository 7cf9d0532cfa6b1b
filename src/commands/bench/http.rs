//! The part of HTTP that the load generator reads: the answer to an upgrade, and replies to POST on a keep-alive connection.

use bytes::Bytes;

use super::trouble::Trouble;
use crate::commands::client::handshake;

/// A response head above this is an error.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;

/// The fields of a response head that the load generator uses.
struct Head {
    /// The length of the head itself, in bytes.
    len: usize,
    status: u16,
    body: BodyLength,
    closes: bool,
    accept: Option<String>,
    has_extension: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum BodyLength {
    Length(usize),
    Chunked,
    UntilEnd,
}

fn head(input: &[u8]) -> Result<Option<Head>, Trouble> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(Trouble::Broken("the head of an HTTP response is longer than 64 KiB".into()));
        }
        Err(error) => return Err(Trouble::Broken(format!("the server's answer is not HTTP: {error}"))),
    };
    let status = response.code.expect("a whole head has a status");
    let is_bodiless = matches!(status, 204 | 304);
    let mut head = Head {
        len,
        status,
        body: if is_bodiless { BodyLength::Length(0) } else { BodyLength::UntilEnd },
        closes: response.version == Some(0),
        accept: None,
        has_extension: false,
    };
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") && head.body != BodyLength::Chunked && !is_bodiless {
            let text = str::from_utf8(header.value).unwrap_or_default();
            let len = text
                .trim()
                .parse()
                .map_err(|_| Trouble::Broken(format!("Content-Length is not a number: {text:?}")))?;
            head.body = BodyLength::Length(len);
        } else if is("transfer-encoding") && header.value.eq_ignore_ascii_case(b"chunked") && !is_bodiless {
            head.body = BodyLength::Chunked;
        } else if is("connection") {
            head.closes = header.value.eq_ignore_ascii_case(b"close")
                || head.closes && !header.value.eq_ignore_ascii_case(b"keep-alive");
        } else if is("sec-websocket-accept") {
            head.accept = Some(String::from_utf8_lossy(header.value).into_owned());
        } else if is("sec-websocket-extensions") {
            head.has_extension = true;
        }
    }
    Ok(Some(head))
}

/// Checks the answer to an upgrade. Returns its length in bytes, or `None` while it is incomplete.
pub(super) fn upgraded(input: &[u8], key: &str) -> Result<Option<usize>, Trouble> {
    let Some(head) = head(input)? else { return Ok(None) };
    if head.status != 101 {
        let body: String =
            String::from_utf8_lossy(&input[head.len..]).chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(Trouble::Refused { status: head.status, body: body.trim().to_owned() });
    }
    if head.accept.as_deref() != Some(&handshake::accept_value(key)) {
        return Err(Trouble::Broken("the server's Sec-WebSocket-Accept does not match our key".into()));
    }
    if head.has_extension {
        return Err(Trouble::Broken("the server chose a WebSocket extension that was not offered".into()));
    }
    Ok(Some(head.len))
}

pub(super) struct PostReply {
    pub(super) status: u16,
    pub(super) body: Bytes,
    /// The server will close after this reply.
    pub(super) closes: bool,
}

/// The next reply at the front of `input`, with its length in bytes; `None` while it is incomplete. `ended` says that no more bytes
/// will come.
pub(super) fn reply(input: &[u8], max_body: usize, ended: bool) -> Result<Option<(usize, PostReply)>, Trouble> {
    let Some(head) = head(input)? else { return Ok(None) };
    let rest = &input[head.len..];
    let too_long = || Trouble::Broken(format!("a reply is longer than {max_body} bytes"));
    let made = |body| PostReply { status: head.status, body, closes: head.closes };
    match head.body {
        BodyLength::Length(len) if len > max_body => Err(too_long()),
        BodyLength::Length(len) if rest.len() < len => Ok(None),
        BodyLength::Length(len) => Ok(Some((head.len + len, made(Bytes::copy_from_slice(&rest[..len]))))),
        BodyLength::UntilEnd if rest.len() > max_body => Err(too_long()),
        BodyLength::UntilEnd if ended => {
            Ok(Some((input.len(), PostReply { status: head.status, body: Bytes::copy_from_slice(rest), closes: true })))
        }
        BodyLength::UntilEnd => Ok(None),
        BodyLength::Chunked => Ok(chunks(rest, max_body)?.map(|(taken, body)| (head.len + taken, made(body.into())))),
    }
}

fn chunks(input: &[u8], max_body: usize) -> Result<Option<(usize, Vec<u8>)>, Trouble> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let (len, size) = match httparse::parse_chunk_size(&input[at..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Trouble::Broken("a chunk of a reply has no valid size".into())),
        };
        at += len;
        if size == 0 {
            // We ask for no trailers, but a server may send some.
            let mut trailers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            return match httparse::parse_headers(&input[at..], &mut trailers) {
                Ok(httparse::Status::Complete((len, _))) => Ok(Some((at + len, body))),
                Ok(httparse::Status::Partial) => Ok(None),
                Err(error) => Err(Trouble::Broken(format!("a reply has invalid trailers: {error}"))),
            };
        }
        let size = usize::try_from(size).ok().filter(|size| body.len() + size <= max_body);
        let size = size.ok_or_else(|| Trouble::Broken(format!("a reply is longer than {max_body} bytes")))?;
        let Some(chunk) = input.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err(Trouble::Broken("a chunk of a reply is longer than its declared size".into()));
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
}
