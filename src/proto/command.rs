//! Commands to the router as plain data: an action, the sessions it applies to, and its result.
//!
//! A [`Command`] comes from the router port, the HTTP API, or a header in a handler's answer, and has the same form from each. It
//! selects sessions ([`Target`] less [`Except`]) and does one thing with each of them ([`Action`]). The [`Receipt`] counts the
//! results. A [`Query`] changes nothing and has its own answer.
//!
//! Everything here is checked when it is made: a [`Name`] that exists is valid.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use super::framing::FrameKind;
use super::id::SessionId;
pub use super::name::{BadName, Name};
pub use super::target::{BadTarget, Except, Target};

/// One command to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The sessions to act on.
    pub to: Target,
    /// Sessions of `to` to leave out.
    pub except: Except,
    /// The action for each session.
    pub action: Action,
}

impl Command {
    /// Whether both send a message to the same sessions. Then one write may carry both messages to each session.
    pub fn may_share_a_write(&self, other: &Self) -> bool {
        let both_send = matches!((&self.action, &other.action), (Action::Send(_), Action::Send(_)));
        both_send && self.to == other.to && self.except == other.except
    }

    /// Bytes of the message that it sends, or of the attribute value that it sets.
    pub fn payload_bytes(&self) -> usize {
        match &self.action {
            Action::Send(message) | Action::Close { last: Some(message), .. } => message.body.len(),
            Action::Set { value, .. } => value.len(),
            _ => 0,
        }
    }

    /// An estimate of the bytes that it takes between nodes.
    pub fn about_bytes(&self) -> usize {
        // The headers of the frame and of each field in it.
        const HEADS: usize = 48;
        let name = |name: &Name| 3 + name.as_bytes().len();
        let Except { sessions, uids, channels } = &self.except;
        let to = match &self.to {
            Target::Sessions(ids) => ids.len() * SessionId::LEN,
            Target::Uid(of) | Target::Channel(of) => name(of),
            Target::All => 0,
        };
        let except = sessions.len() * SessionId::LEN + uids.iter().chain(channels).map(name).sum::<usize>();
        let names = match &self.action {
            Action::Send(message) => message.key.iter().chain(&message.id).map(name).sum(),
            _ => 0,
        };
        HEADS + to + except + names + self.payload_bytes()
    }

    /// For all sessions that `to` selects.
    pub fn new(to: Target, action: Action) -> Self {
        Self { to, except: Except::default(), action }
    }
}

/// The action of a command on each session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send(Message),
    /// It joins a channel.
    Join(Name),
    /// It leaves a channel.
    Leave(Name),
    Close {
        /// WebSocket close code (RFC 6455 section 7.4), one that may be sent.
        code: u16,
        /// The close text for the peer; at most 123 bytes of it are sent.
        text: Box<str>,
        /// A message to send before the close.
        last: Option<Message>,
    },
    /// Bind it to this uid; an earlier uid is replaced.
    Bind(Name),
    /// Unbind it from its uid.
    Unbind,
    /// Set an attribute, if its present value is as expected.
    Set {
        /// Its name.
        key: AttributeKey,
        /// The new value.
        value: Bytes,
        /// The value that it must have now; otherwise nothing changes.
        expect: Expect,
    },
    Delete(AttributeKey),
    /// Do nothing: the receipt says whether the session exists.
    Touch,
}

impl Action {
    /// The word in logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Action::Send(_) => "send",
            Action::Join(_) => "join",
            Action::Leave(_) => "leave",
            Action::Close { .. } => "close",
            Action::Bind(_) => "bind",
            Action::Unbind => "unbind",
            Action::Set { .. } => "set",
            Action::Delete(_) => "delete",
            Action::Touch => "exists",
        }
    }

    /// A close with as much of `text` as fits into a close frame. No client would get the rest, and a long text could not be sent to
    /// other nodes.
    pub fn close(code: u16, text: &str, last: Option<Message>) -> Self {
        const MAX_TEXT: usize = 123;
        let fits = (0..=text.len().min(MAX_TEXT)).rev().find(|at| text.is_char_boundary(*at)).expect("0 is one");
        Action::Close { code, text: text[..fits].into(), last }
    }

    /// Bytes of the message that it sends, if it sends one.
    pub fn sent_bytes(&self) -> Option<usize> {
        match self {
            Action::Send(message) => Some(message.body.len()),
            Action::Close { last, .. } => last.as_ref().map(|message| message.body.len()),
            _ => None,
        }
    }
}

/// The present value that an attribute must have, or else [`Action::Set`] does not change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expect {
    /// Any value, or none.
    #[default]
    Anything,
    /// The attribute must not exist.
    Absent,
    /// Exactly this value.
    Value(Bytes),
}

impl Expect {
    /// The most bytes that an attribute can have, even if `max_attribute_bytes` is larger. A longer one would not fit into a frame
    /// beside the other fields.
    pub const MAX_BYTES: usize = 48 << 10;

    /// Exactly this value. A value longer than any attribute is refused.
    ///
    /// # Errors
    ///
    /// The length of `value`, if no attribute can be so long.
    pub fn value(value: Bytes) -> Result<Self, TooLong> {
        match value.len() {
            len if len > Self::MAX_BYTES => Err(TooLong(len)),
            _ => Ok(Expect::Value(value)),
        }
    }
}

/// More bytes than an attribute can have. Shown as a clause for a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has {} bytes, but an attribute has at most {}", self.0, Expect::MAX_BYTES)
    }
}

impl std::error::Error for TooLong {}

/// The body of a frame to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The body. Each session's framing is put around it.
    pub body: Bytes,
    /// Text or binary, for framings that distinguish them. `None`: text if the body is UTF-8.
    pub kind: Option<FrameKind>,
    /// For channels that keep only the latest frame per key while a client does not read.
    pub key: Option<Name>,
    /// The event id: a client of an event stream repeats the last one that it saw when it reconnects. Other framings cannot carry it.
    pub id: Option<Name>,
}

impl Message {
    /// A message without key and id. It is text if its body is UTF-8, binary otherwise.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), kind: None, key: None, id: None }
    }

    /// Text or binary.
    pub fn kind(&self) -> FrameKind {
        match self.kind {
            Some(kind) => kind,
            None if str::from_utf8(&self.body).is_ok() => FrameKind::Text,
            None => FrameKind::Binary,
        }
    }
}

/// The name of a session's attribute: 1 to 64 of `[a-z0-9_]`. PHP sees it in capitals, after the prefix `LONGWIRE_ATTR_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AttributeKey(Box<str>);

impl AttributeKey {
    /// Longest key.
    pub const MAX_BYTES: usize = 64;

    /// Checks a key and converts it to lower case. `None` if it is empty, too long, or has other characters than letters, digits and `_`.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let is_key = (1..=Self::MAX_BYTES).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        let text = str::from_utf8(bytes).ok().filter(|_| is_key)?;
        Some(Self(text.to_ascii_lowercase().into()))
    }

    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The result of a command: the number of sessions for each outcome. All zero is a normal result.
///
/// Each session that the command selected counts in exactly one of `reached`, `queued`, `dropped.close`, `dropped.newest`, `refused`
/// and `gone`. A session id that does not exist here counts as `gone` too. `dropped.oldest` and `dropped.latest` count earlier
/// frames that were dropped to make room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// Done: the socket took the frame, or for example the session joined.
    pub reached: u32,
    /// The frame is queued until the client reads.
    pub queued: u32,
    /// Frames dropped because clients read too slowly, for each slow-reader rule.
    pub dropped: Dropped,
    /// The session exists but the action is not possible: its framing cannot carry the frame, a limit is reached, or an
    /// attribute is not as expected.
    pub refused: u32,
    /// The session does not exist, or has just ended.
    pub gone: u32,
}

/// Frames dropped because clients read too slowly, for each slow-reader rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// New frames dropped because the outbox was full; their sessions are being closed.
    pub close: u32,
    /// Older frames dropped to make room for the new one.
    pub oldest: u32,
    /// New frames dropped because the outbox was full.
    pub newest: u32,
    /// Older frames with the same key, replaced by the new one.
    pub latest: u32,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u32 {
        self.close + self.oldest + self.newest + self.latest
    }
}

impl Receipt {
    /// The counts in the order of the wire: reached, queued, dropped close, oldest, newest, latest, refused, gone.
    pub fn counts(&self) -> [u32; 8] {
        let Dropped { close, oldest, newest, latest } = self.dropped;
        [self.reached, self.queued, close, oldest, newest, latest, self.refused, self.gone]
    }

    /// The sum of both.
    pub fn plus(&self, other: &Self) -> Self {
        let (counts, more) = (self.counts(), other.counts());
        Self::from_counts(std::array::from_fn(|at| counts[at].saturating_add(more[at])))
    }

    /// The reverse of [`Receipt::counts`], for clients.
    pub fn from_counts(counts: [u32; 8]) -> Self {
        let [reached, queued, close, oldest, newest, latest, refused, gone] = counts;
        Self { reached, queued, dropped: Dropped { close, oldest, newest, latest }, refused, gone }
    }
}

/// A question to the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Everything about one session.
    Session(SessionId),
    Attribute(SessionId, AttributeKey),
    /// The number of sessions in a channel, and a page of them.
    Channel(Name, Page),
    /// The number of sessions bound to a uid, and a page of them.
    Uid(Name, Page),
    /// The existing channels.
    Channels(Page),
    /// The existing sessions.
    Sessions(Page),
    Node,
    /// Every node that answers.
    Nodes,
}

/// A part of a long list. The list is sorted by bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only entries that sort after this one.
    pub after: Option<Box<[u8]>>,
    /// The most entries to return; 0 returns only the count.
    pub limit: usize,
}

impl Page {
    /// The limit if the caller gives none.
    pub const DEFAULT_LIMIT: usize = 100;
    /// The highest limit.
    pub const MAX_LIMIT: usize = 1000;
}

impl Default for Page {
    fn default() -> Self {
        Self { after: None, limit: Self::DEFAULT_LIMIT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn targets_are_read_or_refused_with_what_is_wrong() {
        let id = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        for (text, expected) in [
            ("all", Ok(Target::All)),
            ("session:AAAAAAAAAAAAAAAA", Ok(Target::session(id))),
            ("uid:42", Ok(Target::Uid(name("42")))),
            ("channel:room:1", Ok(Target::Channel(name("room:1")))),
            ("session:short", Err("\"short\" is not a session id")),
            ("uid:", Err("uid: a name is empty")),
            ("channel:a\nb", Err("channel: a name contains a control character")),
            ("everybody", Err("\"everybody\" is not a target: use session:ID, uid:NAME, channel:NAME or all")),
            ("all:x", Err("\"all:x\" is not a target: use session:ID, uid:NAME, channel:NAME or all")),
        ] {
            assert_eq!(
                Target::parse(text.as_bytes()).map_err(|error| error.to_string()),
                expected.map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn names_and_keys_have_their_bounds() {
        assert!(Name::new(&[b'x'; 255]).is_ok());
        assert_eq!(Name::new(&[b'x'; 256]), Err(BadName::TooLong(256)));
        assert!(Name::new("räum".as_bytes()).is_ok());
        assert!(Name::new(b"\xb7\xbf\xbc\xe4").is_ok(), "GBK");
        assert_eq!(AttributeKey::new(b"Role_2").unwrap().as_str(), "role_2");
        for bad in [&b""[..], b"a-b", b"a b", "ä".as_bytes(), &[b'x'; 65]] {
            assert_eq!(AttributeKey::new(bad), None, "{bad:?}");
        }
    }
}
