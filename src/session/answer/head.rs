//! The head of a CGI answer (RFC 3875 section 6.2), with the headers that are meant for Longwire.

use std::fmt;

use bytes::Bytes;
use memchr::{memchr, memchr_iter};

use crate::proto::command::{Action, AttributeKey, BadName, Except, Expect, Name, Target};
use crate::proto::framing::FrameKind;

/// The limit for an answer's head in bytes. php-fpm sends heads of 20 KB without complaint. Frameworks stay far below
/// that.
pub(super) const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The headers that are meant for Longwire, as they are written.
const CONTROLS: [&str; 9] = [
    "Longwire-Type",
    "Longwire-Id",
    "Longwire-Stream",
    "Longwire-Close",
    "Longwire-Join",
    "Longwire-Leave",
    "Longwire-Uid",
    "Longwire-Set",
    "Longwire-To",
];

/// The parsed head of a handler's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `Status:`, or 200.
    pub status: u16,
    /// `Content-Length:`: how many bytes of the body are the reply.
    pub content_length: Option<u64>,
    /// `Content-Offset:`: where the reply begins in the body. A negative offset counts from the end.
    pub content_offset: i64,
    /// `Longwire-Type:`
    pub kind: Option<FrameKind>,
    /// `Longwire-Id:`: the id of the reply, for clients of event streams.
    pub id: Option<Name>,
    /// `Longwire-Close:` code and reason.
    pub close: Option<(u16, Box<str>)>,
    /// `Longwire-Stream: lines`
    pub lines: bool,
    /// `Content-Type: application/json`
    pub is_json: bool,
    /// `Longwire-Join`, `-Leave`, `-Uid` and `-Set`, in the order written: actions that run on the session before the
    /// body is sent.
    pub actions: Vec<Action>,
    /// `Longwire-To`: the destinations of the body. If there are none, it goes to the client that sent the event.
    pub destinations: Vec<Destination>,
    /// `Set-Cookie`, for the session's later events.
    pub cookies: Vec<Box<[u8]>>,
    /// `Content-Encoding`, unless it is `identity`. An encoded body cannot be sent as a frame.
    pub encoding: Option<Box<str>>,
    /// Every other header, `Set-Cookie` and `Content-Encoding` among them, for an HTTP response.
    pub others: Vec<(Box<str>, Box<[u8]>)>,
    /// Warnings for the log about wrong headers. The reply is sent in spite of them.
    pub complaints: Vec<String>,
}

/// A destination of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Back to the client that sent the event.
    Client,
    /// To sessions, as a command would send it.
    Sessions {
        /// The sessions that get it.
        to: Target,
        /// The sessions that do not get it.
        except: Except,
        /// Whether the session that sent the event does not get it either.
        except_self: bool,
        /// For channels that keep only the latest frame per key.
        key: Option<Name>,
    },
}

impl Default for Head {
    fn default() -> Self {
        Self {
            status: 200,
            content_length: None,
            content_offset: 0,
            kind: None,
            id: None,
            close: None,
            lines: false,
            is_json: false,
            actions: Vec::new(),
            destinations: Vec::new(),
            cookies: Vec::new(),
            encoding: None,
            others: Vec::new(),
            complaints: Vec::new(),
        }
    }
}

/// The error of a head that cannot be used at all. The reply is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// No empty line within [`MAX_HEAD_BYTES`].
    TooLarge,
    /// A value that should be a number is not one.
    BadNumber {
        /// The name of the header.
        name: &'static str,
        value: String,
    },
    /// A `Longwire-To` that is not a valid destination.
    BadDestination(String),
    /// A status that is not from 100 to 999, or a second status that contradicts the first.
    BadStatus(String),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadError::TooLarge => write!(f, "the headers do not end within {MAX_HEAD_BYTES} bytes"),
            HeadError::BadDestination(what) => write!(f, "Longwire-To: {what}"),
            HeadError::BadStatus(line) => {
                write!(f, "{line:?} is not a status from 100 to 999, or contradicts an earlier status line")
            }
            HeadError::BadNumber { name, value } => write!(f, "{name}: {value:?} is not a number"),
        }
    }
}

impl std::error::Error for HeadError {}

/// Collects a head that may come in any pieces. It buffers nothing if the head comes in one piece.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    part: Vec<u8>,
}

impl HeadReader {
    /// Takes the next bytes of stdout. Returns `Some` when the head is complete: the head, and how many of *these*
    /// bytes belonged to it.
    ///
    /// `keep_others` also keeps the headers that are not Longwire's.
    pub(super) fn push(&mut self, data: &[u8], keep_others: bool) -> Result<Option<(Head, usize)>, HeadError> {
        if self.part.is_empty()
            && let Some(end) = end_of_head(data)
        {
            return Head::parse(&data[..end], keep_others).map(|head| Some((head, end)));
        }
        let before = self.part.len();
        let room = MAX_HEAD_BYTES.saturating_sub(before);
        self.part.extend_from_slice(&data[..data.len().min(room)]);
        match end_of_head(&self.part) {
            Some(end) => {
                let head = Head::parse(&self.part[..end], keep_others)?;
                self.part = Vec::new();
                Ok(Some((head, end - before)))
            }
            None if self.part.len() >= MAX_HEAD_BYTES => Err(HeadError::TooLarge),
            None => Ok(None),
        }
    }
}

/// The value of a line that states the status. That is `Status: 403 Forbidden`, also with blanks around the name. As
/// the first line it may also be `HTTP/1.1 403 Forbidden`, which some responders send instead.
///
/// A status that is not understood must not pass for 200, because on `connect` it would admit every client.
fn status_line(line: &[u8], is_first: bool) -> Option<&[u8]> {
    if is_first && line.starts_with(b"HTTP/") {
        return line.iter().position(|b| *b == b' ').map(|blank| &line[blank..]);
    }
    // The first byte rules most lines out.
    if !matches!(line.first()?, b'S' | b's' | b' ' | b'\t') {
        return None;
    }
    let colon = memchr(b':', line)?;
    line[..colon].trim_ascii().eq_ignore_ascii_case(b"Status").then(|| &line[colon + 1..])
}

/// Parses three digits with an optional reason after them.
fn status_code(said: &[u8]) -> Option<u16> {
    let digits = said.trim_ascii().split(|b| b.is_ascii_whitespace()).next()?;
    let code = str::from_utf8(digits).ok().filter(|digits| digits.len() == 3)?.parse().ok()?;
    (100..=999).contains(&code).then_some(code)
}

/// Where the body begins: after the first empty line. php-fpm ends lines with CR LF, other responders may omit CR.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    lines(bytes).find(|(line, _)| line.is_empty()).map(|(_, end)| end)
}

/// Each complete line without its line end, and where the next one begins.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut line_start = 0;
    memchr_iter(b'\n', bytes).map(move |newline| {
        let line = &bytes[line_start..newline];
        line_start = newline + 1;
        (line.strip_suffix(b"\r").unwrap_or(line), line_start)
    })
}

impl Head {
    /// Whether its status allows a body (RFC 9110 sections 15.2, 15.3.5, 15.3.6 and 15.4.5). If not, there is no reply,
    /// even if something was printed or announced. Frameworks answer 204 for that, with `Content-Length: 0`.
    pub(in crate::session) fn has_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 205 | 304)
    }

    /// Whether it refuses the client, as an answer to `connect`. A redirect refuses too, because frameworks redirect
    /// visitors to their login.
    pub(in crate::session) fn refuses(&self) -> bool {
        self.status >= 300
    }

    fn parse(bytes: &[u8], keep_others: bool) -> Result<Self, HeadError> {
        let mut head = Head::default();
        let (mut status, mut is_redirect) = (None, false);
        for (at, (line, _)) in lines(bytes).enumerate() {
            if let Some(said) = status_line(line, at == 0) {
                let bad = || HeadError::BadStatus(String::from_utf8_lossy(line).into_owned());
                let said = status_code(said).ok_or_else(bad)?;
                if *status.get_or_insert(said) != said {
                    return Err(bad());
                }
                continue;
            }
            let Some(colon) = memchr(b':', line) else {
                if !line.is_empty() {
                    head.take_without_colon(&String::from_utf8_lossy(line));
                }
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            is_redirect |= name.eq_ignore_ascii_case(b"Location") && !value.is_empty();
            head.take(name, value, keep_others)?;
        }
        // RFC 3875 section 6.2: a `Location` alone is a redirect. php-fpm always sends the status too.
        head.status = status.unwrap_or(if is_redirect { 302 } else { 200 });
        Ok(head)
    }

    fn take(&mut self, name: &[u8], value: &[u8], keep_others: bool) -> Result<(), HeadError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Content-Length") {
            self.content_length = Some(number("Content-Length", value)?);
        } else if is("Content-Offset") {
            self.content_offset = number("Content-Offset", value)?;
        } else if is("Longwire-To") {
            // This is an error, not a complaint: a body must not go to a session that it was not meant for.
            self.destinations.push(destination(value).map_err(HeadError::BadDestination)?);
        } else if name.len() > 9 && name[..9].eq_ignore_ascii_case(b"Longwire-") {
            self.take_control(&name[9..], value);
        } else {
            if name.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'l')) {
                self.suspect(&String::from_utf8_lossy(name));
            }
            if is("Set-Cookie") {
                self.cookies.push(value.into());
            } else if is("Content-Encoding") && !value.is_empty() && !value.eq_ignore_ascii_case(b"identity") {
                self.encoding = Some(String::from_utf8_lossy(value).into());
            } else if is("Content-Type") {
                self.is_json |= value.starts_with(b"application/json");
            }
            if keep_others && let Ok(name) = str::from_utf8(name) {
                self.others.push((name.into(), value.into()));
            }
        }
        Ok(())
    }

    /// Handles a line without a colon, which PHP passes on as `header()` got it. If a handler closes a session and
    /// forgets the colon, the session is closed all the same.
    fn take_without_colon(&mut self, line: &str) {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match meant(name) {
            Some(known) if known.eq_ignore_ascii_case("Longwire-Close") && known.eq_ignore_ascii_case(name) => {
                self.complain(format_args!("{line:?} has no colon, is taken for \"{known}: {value}\""));
                self.close = Some(self.close_of(value.trim()));
            }
            Some(known) => self.complain(format_args!("{line:?} is not a header, did you mean \"{known}: ...\"?")),
            None => self.complain(format_args!("{line:?} is not a header: it has no colon")),
        }
    }

    /// Complains if a foreign header looks like one of ours with a typing error in its prefix.
    fn suspect(&mut self, name: &str) {
        if let Some(known) = meant(name) {
            self.complain(format_args!("{name} is not a header that this version knows, did you mean {known}?"));
        }
    }

    fn take_control(&mut self, name: &[u8], raw: &[u8]) {
        let value = &*String::from_utf8_lossy(raw);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Type") {
            match value {
                "text" => self.kind = Some(FrameKind::Text),
                "binary" => self.kind = Some(FrameKind::Binary),
                _ => self.complain(format_args!("Longwire-Type: {value:?} is neither text nor binary")),
            }
        } else if is("Id") {
            match Name::new(raw) {
                Ok(id) => self.id = Some(id),
                Err(error) => self.complain(format_args!("Longwire-Id: {error}")),
            }
        } else if is("Stream") {
            match value {
                "lines" => self.lines = true,
                _ => self.complain(format_args!("Longwire-Stream: {value:?} is unknown, the only value is lines")),
            }
        } else if is("Close") {
            self.close = Some(self.close_of(value));
        } else if is("Join") {
            self.take_channels("Longwire-Join", raw, Action::Join);
        } else if is("Leave") {
            self.take_channels("Longwire-Leave", raw, Action::Leave);
        } else if is("Uid") {
            match Name::new(raw) {
                Ok(uid) => self.actions.push(Action::Bind(uid)),
                Err(BadName::Empty) => self.actions.push(Action::Unbind),
                Err(error) => self.complain(format_args!("Longwire-Uid: {error}")),
            }
        } else if is("Set") {
            self.take_attribute(raw);
        } else {
            let name = format!("Longwire-{}", String::from_utf8_lossy(name));
            let hint = meant(&name).map_or_else(String::new, |known| format!(", did you mean {known}?"));
            self.complain(format_args!("{name} is not a header that this version knows{hint}"));
        }
    }

    /// `4001 reason`, `4001`, `reason` or nothing.
    fn close_of(&mut self, value: &str) -> (u16, Box<str>) {
        let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
        let (code, text) = match first.parse::<u16>() {
            Ok(code) => (code, rest.trim_start()),
            Err(_) => (1000, value),
        };
        // RFC 6455 section 7.4: the codes that an endpoint may send.
        let code = if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            code
        } else {
            self.complain(format_args!("Longwire-Close: {code} is not a code that may be sent, 1000 is sent instead"));
            1000
        };
        let mut text = text;
        while text.len() > 123 {
            // Section 5.5: 125 bytes with the code. The text is cut between characters.
            text = &text[..text.len() - text.chars().next_back().map_or(0, char::len_utf8)];
        }
        (code, text.into())
    }

    /// Reads names that are separated by commas. A name with a comma in it cannot be written here.
    fn take_channels(&mut self, header: &str, value: &[u8], action: fn(Name) -> Action) {
        for name in value.split(|b| *b == b',') {
            match Name::new(name.trim_ascii()) {
                Ok(channel) => self.actions.push(action(channel)),
                Err(error) => self.complain(format_args!("{header}: {error}")),
            }
        }
    }

    /// `key=value`, or `key` to delete it.
    fn take_attribute(&mut self, value: &[u8]) {
        let equals = value.iter().position(|b| *b == b'=');
        let key = &value[..equals.unwrap_or(value.len())];
        let Some(key) = AttributeKey::new(key.trim_ascii()) else {
            let key = String::from_utf8_lossy(key);
            return self.complain(format_args!(
                "Longwire-Set: {key:?} is not a key: 1 to {} of A-Z a-z 0-9 _",
                AttributeKey::MAX_BYTES
            ));
        };
        self.actions.push(match equals {
            Some(equals) => {
                let value = Bytes::copy_from_slice(value[equals + 1..].trim_ascii());
                Action::Set { key, value, expect: Expect::Anything }
            }
            None => Action::Delete(key),
        });
    }

    fn complain(&mut self, complaint: fmt::Arguments<'_>) {
        self.complaints.push(complaint.to_string());
    }
}

/// The header of ours that a handler probably meant. At most two letters may be wrong, or one if the name after
/// `Longwire-` is as short as `To`.
fn meant(name: &str) -> Option<&'static str> {
    let written = name.to_ascii_lowercase();
    let edits = |known: &&str| strsim::damerau_levenshtein(&written, &known.to_ascii_lowercase());
    let most = |known: &str| if known.len() < "Longwire-Join".len() { 1 } else { 2 };
    CONTROLS
        .into_iter()
        .map(|known| (edits(&known), known))
        .filter(|(edits, known)| *edits <= most(known))
        .min()
        .map(|(_, known)| known)
}

/// `self`, `session:SID`, `uid:U`, `channel:C` or `all`, then `; except=...` and `; key=...`.
fn destination(value: &[u8]) -> Result<Destination, String> {
    let mut parts = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let to = parts.next().unwrap_or_default();
    let is_self = to == b"self";
    let (mut except, mut except_self, mut key) = (Except::default(), false, None);
    for part in parts {
        if is_self {
            return Err("self takes no options".to_owned());
        }
        if let Some(whom) = part.strip_prefix(b"except=") {
            match whom {
                b"self" => except_self = true,
                whom => Target::parse(whom).and_then(|whom| except.add(whom)).map_err(|error| error.to_string())?,
            }
        } else if let Some(name) = part.strip_prefix(b"key=") {
            key = Some(Name::new(name).map_err(|error| format!("key: {error}"))?);
        } else {
            return Err(format!("{:?} is neither except=... nor key=...", String::from_utf8_lossy(part)));
        }
    }
    if is_self {
        return Ok(Destination::Client);
    }
    let to = Target::parse(to).map_err(|error| error.to_string())?;
    Ok(Destination::Sessions { to, except, except_self, key })
}

fn number<N: std::str::FromStr>(name: &'static str, value: &[u8]) -> Result<N, HeadError> {
    str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| HeadError::BadNumber { name, value: String::from_utf8_lossy(value).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
        HeadReader::default().push(bytes, true)
    }

    #[test]
    fn a_head_is_read_however_it_is_split() {
        let head = b"Status: 404 Not Found\r\nX-Powered-By: PHP/8.2\r\nContent-Length: 5\r\nLongwire-Type: binary\r\n\r\nhello";
        let (whole, end) = read(head).unwrap().unwrap();
        assert_eq!((whole.status, whole.content_length, whole.kind), (404, Some(5), Some(FrameKind::Binary)));
        assert_eq!(&head[end..], b"hello");
        assert_eq!(whole.others, [("X-Powered-By".into(), b"PHP/8.2"[..].into())]);
        for split in 0..end {
            let mut reader = HeadReader::default();
            assert_eq!(reader.push(&head[..split], true).unwrap(), None);
            let (pieces, used) = reader.push(&head[split..], true).unwrap().unwrap();
            assert_eq!((&pieces, used), (&whole, end - split));
        }
    }

    #[test]
    fn cookies_and_codings_are_noted_and_passed_on() {
        let head = b"set-cookie: a=1; path=/\r\nContent-Encoding: gzip\r\nSet-Cookie: b=2\r\n\r\n";
        let (read_head, _) = read(head).unwrap().unwrap();
        assert_eq!(read_head.cookies, [b"a=1; path=/"[..].into(), b"b=2"[..].into()] as [Box<[u8]>; 2]);
        assert_eq!(read_head.encoding.as_deref(), Some("gzip"));
        assert_eq!(read_head.others.len(), 3);
        for plain in ["", "identity", "Identity"] {
            let (head, _) = read(format!("Content-Encoding: {plain}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.encoding, None, "{plain:?}");
        }
    }

    #[test]
    fn heads_that_are_almost_nothing() {
        for (bytes, end) in [(&b"\r\nbody"[..], 2), (b"\nbody", 1), (b"A: b\n\nbody", 6)] {
            assert_eq!(read(bytes).unwrap().map(|(head, end)| (head.status, end)), Some((200, end)));
        }
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b"Content-Type: text/html\r\n"), Ok(None));
    }

    #[test]
    fn closes_are_read_and_mended() {
        let cases = [
            ("4001 too slow", (4001, "too slow"), 0),
            ("4001", (4001, ""), 0),
            ("see you", (1000, "see you"), 0),
            ("", (1000, ""), 0),
            ("1006 no", (1000, "no"), 1),
            ("99999 no", (1000, "99999 no"), 0),
        ];
        for (value, (code, text), complaints) in cases {
            let (head, _) = read(format!("Longwire-Close: {value}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.close, Some((code, text.into())), "{value:?}");
            assert_eq!(head.complaints.len(), complaints, "{value:?}");
        }
        let (head, _) = read(format!("Longwire-Close: 4000 {}\r\n\r\n", "ä".repeat(100)).as_bytes()).unwrap().unwrap();
        assert_eq!(head.close.unwrap().1.len(), 122);
    }

    #[test]
    fn actions_and_destinations_are_read_in_their_order() {
        let head = b"Longwire-Join: a, room 2\r\nlongwire-set: Name = J\xc3\xb6rg=1 \r\nLongwire-Uid: 42\r\nLongwire-Leave: a\r\n\
            Longwire-Set: old\r\nLongwire-Uid:\r\nLongwire-To: channel:a; except=self;except=uid:7; key=k\r\nLongwire-To: self\r\n\r\n";
        let (head, _) = read(head).unwrap().unwrap();
        assert_eq!(head.complaints, [""; 0]);
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let key = |text: &str| AttributeKey::new(text.as_bytes()).unwrap();
        let value = Bytes::from_static("Jörg=1".as_bytes());
        let expected = [
            Action::Join(name("a")),
            Action::Join(name("room 2")),
            Action::Set { key: key("name"), value, expect: Expect::Anything },
            Action::Bind(name("42")),
            Action::Leave(name("a")),
            Action::Delete(key("old")),
            Action::Unbind,
        ];
        assert_eq!(head.actions, expected);
        let except = Except { uids: vec![name("7")], ..Except::default() };
        let channel =
            Destination::Sessions { to: Target::Channel(name("a")), except, except_self: true, key: Some(name("k")) };
        assert_eq!(head.destinations, [channel, Destination::Client]);
    }

    #[test]
    fn a_body_for_nobody_known_goes_to_nobody() {
        for to in ["everyone", "channel:", "self; except=self", "all; except=all", "all; but=self", "session:x"] {
            let result = read(format!("Longwire-To: {to}\r\n\r\n").as_bytes());
            assert!(matches!(result, Err(HeadError::BadDestination(_))), "{to}");
        }
    }

    #[test]
    fn what_a_handler_got_wrong_is_said() {
        let bad = [
            "Longwire-Typ: text",
            "Longwire-Type: html",
            "Longwire-Stream: words",
            "no colon here",
            "Longwire-Join: a,,b",
            "Longwire-Set: a b=c",
        ];
        for line in bad {
            let (head, _) = read(format!("{line}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.complaints.len(), 1, "{line}");
        }
        for line in ["Content-Length: many", "Content-Length: -1", "Content-Offset: 1.5"] {
            assert!(matches!(read(format!("{line}\r\n\r\n").as_bytes()), Err(HeadError::BadNumber { .. })), "{line}");
        }
    }

    #[test]
    fn no_way_of_saying_a_status_passes_for_200() {
        let cases = [
            ("Status: 403 Forbidden", Some(403)),
            ("status:403", Some(403)),
            (" Status : 403", Some(403)),
            ("\tStatus: 403", Some(403)),
            ("HTTP/1.1 403 Forbidden", Some(403)),
            ("Status: 403\r\nStatus: 403 Forbidden", Some(403)),
            ("Location: /login", Some(302)),
            ("Location: https://shop.example/login\r\nStatus: 303", Some(303)),
            ("Status: 200\r\nLocation: /made", Some(200)),
            ("Location:", Some(200)),
            ("X: Status: 403", Some(200)),
            ("Status: OK", None),
            ("Status: 4 03", None),
            ("Status: 99", None),
            ("Status: +403", None),
            ("Status:", None),
            ("Status: 403\r\nStatus: 200", None),
            ("HTTP/1.1 Forbidden", None),
        ];
        for (lines, expected) in cases {
            let read = read(format!("{lines}\r\n\r\n").as_bytes());
            match expected {
                Some(status) => assert_eq!(read.unwrap().unwrap().0.status, status, "{lines}"),
                None => assert!(matches!(read, Err(HeadError::BadStatus(_))), "{lines}"),
            }
        }
    }

    #[test]
    fn a_slip_in_a_name_is_told_with_the_name_that_was_meant() {
        let cases = [
            ("Longwire-Jion: a", "Longwire-Jion is not a header that this version knows, did you mean Longwire-Join?"),
            (
                "Longwire-Tpye: text",
                "Longwire-Tpye is not a header that this version knows, did you mean Longwire-Type?",
            ),
            (
                "LongwireClose: 4001",
                "LongwireClose is not a header that this version knows, did you mean Longwire-Close?",
            ),
            ("longwrie-set: a=1", "longwrie-set is not a header that this version knows, did you mean Longwire-Set?"),
            ("Longwire-Elsewhere: a", "Longwire-Elsewhere is not a header that this version knows"),
            ("Longwire-Join room", "\"Longwire-Join room\" is not a header, did you mean \"Longwire-Join: ...\"?"),
            ("Longwire-Close", "\"Longwire-Close\" has no colon, is taken for \"Longwire-Close: \""),
            ("no colon here", "\"no colon here\" is not a header: it has no colon"),
        ];
        for (line, complaint) in cases {
            let (head, _) = read(format!("{line}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.complaints, [complaint], "{line}");
            assert_eq!(head.close.is_some(), line == "Longwire-Close", "{line}");
        }
        for line in ["Location: /login", "Link: </a>; rel=preload", "Last-Modified: today", "Lang: de", "Longwire: 1"] {
            let (head, _) = read(format!("{line}\r\n\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(head.complaints, [""; 0], "{line}");
        }
        let (head, _) = read(b"Longwire-Close 4001 too late\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.close, Some((4001, "too late".into())));
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_bound() {
        let mut reader = HeadReader::default();
        let line = [b'a'; 1000];
        let mut pushed = 0;
        let error = loop {
            match reader.push(&line, false) {
                Ok(None) => pushed += line.len(),
                other => break other,
            }
        };
        assert_eq!(error, Err(HeadError::TooLarge));
        assert!(pushed < MAX_HEAD_BYTES);
        assert!(reader.part.len() <= MAX_HEAD_BYTES);
    }
}
