//! Server-sent events (WHATWG HTML section 9.2): frames to an `EventSource` in a browser.
//!
//! The stream goes one way: such a client sends its messages in separate requests. Each line of a text becomes a `data:` line, so the
//! body is not in one piece on the wire and cannot be sent without a copy. All line ends of a text arrive as LF, because the format has
//! no others. A binary frame becomes base64 in an event named `binary`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::FrameKind;

/// A comment: clients ignore it, and to proxies it shows that the connection is alive.
pub(super) const HEARTBEAT: &[u8] = b":\n\n";

/// A whole frame. When a client reconnects, it sends the last `id` that it received. The id has no line end.
pub(super) fn frame(kind: FrameKind, id: Option<&[u8]>, body: &[u8]) -> Bytes {
    match kind {
        FrameKind::Text => event(None, id, body),
        FrameKind::Binary => event(Some("binary"), id, BASE64.encode(body).as_bytes()),
    }
}

/// An event with a name. Without one, clients name it `message`.
pub(super) fn event(name: Option<&str>, id: Option<&[u8]>, data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(data.len() + 32);
    if let Some(name) = name {
        put(&mut event, b"event: ", name.as_bytes());
    }
    if let Some(id) = id {
        put(&mut event, b"id: ", id);
    }
    lines(data).for_each(|line| put(&mut event, b"data: ", line));
    event.push(b'\n');
    event.into()
}

fn put(event: &mut Vec<u8>, field: &[u8], value: &[u8]) {
    event.extend_from_slice(field);
    event.extend_from_slice(value);
    event.push(b'\n');
}

/// The lines of a text, which end with CR LF, LF or CR. There is at least one line, which may be empty.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = memchr::memchr2(b'\r', b'\n', text) else {
            rest = None;
            return Some(text);
        };
        let width = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&text[end + width..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parses a stream as an `EventSource` does, by the rules of section 9.2.6: name, id and data of each event.
    fn parse(stream: &[u8]) -> Vec<(String, String, String)> {
        let stream = String::from_utf8(stream.to_vec()).unwrap();
        let (mut events, mut name, mut id, mut data) = (Vec::new(), String::new(), String::new(), String::new());
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").split_terminator('\n') {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    if let Some(data) = data.strip_suffix('\n') {
                        events.push((name.clone(), id.clone(), data.to_owned()));
                    }
                    (name, data) = (String::new(), String::new());
                }
                "event" => name = value.to_owned(),
                "id" => id = value.to_owned(),
                "data" => data = format!("{data}{value}\n"),
                _ => {}
            }
        }
        events
    }

    #[test]
    fn events_read_as_they_were_meant() {
        let cases: &[(&[u8], &str)] = &[
            (b"hello", "data: hello\n\n"),
            (b"", "data: \n\n"),
            (b" two\nlines", "data:  two\ndata: lines\n\n"),
            (b"a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n"),
        ];
        for (body, expected) in cases {
            assert_eq!(frame(FrameKind::Text, None, body), expected);
        }
        assert_eq!(frame(FrameKind::Binary, Some(b"7"), &[0, 255]), "event: binary\nid: 7\ndata: AP8=\n\n");
        assert_eq!(event(Some("close"), None, b"4001 bye"), "event: close\ndata: 4001 bye\n\n");
    }

    proptest! {
        #[test]
        fn a_text_arrives_with_its_line_ends_made_one(text in "[a-c:\r\n \u{e9}]{0,40}", other in ".{0,40}") {
            let unified = |text: &str| text.replace("\r\n", "\n").replace('\r', "\n");
            let mut stream = frame(FrameKind::Text, Some(b"n 1"), text.as_bytes()).to_vec();
            stream.extend_from_slice(HEARTBEAT);
            stream.extend_from_slice(&frame(FrameKind::Text, None, other.as_bytes()));
            let expected = [&text, &other].map(|text| (String::new(), "n 1".to_owned(), unified(text)));
            prop_assert_eq!(parse(&stream), expected);
        }
    }
}
