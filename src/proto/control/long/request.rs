//! Commands and queries on the wire.

use bytes::{Bytes, BytesMut};

use super::fields::{FieldWriter, Fields, ids, name, number, tag, unknown};
use super::{ErrorWord, RouterError, kind};
use crate::proto::command::{Action, AttributeKey, Command, Except, Expect, Message, Name, Page, Query, Target};
use crate::proto::control::Frame;
use crate::proto::framing::{FrameKind, is_valid_close_code};
use crate::proto::id::SessionId;

/// A request of a client after the greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRequest {
    /// The client's number for it.
    pub number: u32,
    /// The command or query.
    pub operation: Operation,
}

/// A command or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Answered with a receipt.
    Command(Command),
    /// Answered with a result.
    Query(Query),
}

impl RouterRequest {
    /// Reads a command or a query. An error names the request, except for [`ErrorWord::BadFrame`]: then a field is incomplete, or there is
    /// not exactly one request number, so the answer cannot name a request.
    pub fn decode(frame: &Frame) -> Result<Self, RouterError> {
        let number = request_number(frame)?;
        let operation = match is_request(frame.kind) {
            true => Parts::of(frame).and_then(|parts| parts.into_operation(frame)),
            false => Err(RouterError::new(ErrorWord::UnknownType, format!("unknown type 0x{:04X}", frame.kind))),
        };
        operation
            .map(|operation| Self { number, operation })
            .map_err(|wrong| RouterError { request: Some(number), ..wrong })
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut fields = FieldWriter::default();
        fields.put(tag::REQUEST, &self.number.to_be_bytes());
        let mut body = Bytes::new();
        let kind = match &self.operation {
            Operation::Command(command) => {
                fields.put_target(&command.to);
                fields.put_except(&command.except);
                fields.put_action(&command.action, &mut body)
            }
            Operation::Query(query) => fields.put_query(query),
        };
        Frame::encode(kind, &fields.0, &body, out);
    }
}

/// Whether the fields of a command fit into a frame. A command from a frame always fits, but the HTTP API accepts longer lists.
pub fn command_fits(Command { to, except, action }: &Command) -> bool {
    let field = |len: usize| 3 + len;
    let name = |name: &Name| field(name.as_bytes().len());
    let ids = |ids: &[SessionId]| field(ids.len() * SessionId::LEN);
    let message = |of: &Message| of.kind.map_or(0, |_| field(1)) + of.key.iter().chain(&of.id).map(name).sum::<usize>();
    let to = match to {
        Target::Sessions(sessions) => ids(sessions),
        Target::Uid(uid) => name(uid),
        Target::Channel(channel) => name(channel),
        Target::All => field(0),
    };
    let sessions = if except.sessions.is_empty() { 0 } else { ids(&except.sessions) };
    let except = sessions + except.uids.iter().chain(&except.channels).map(name).sum::<usize>();
    let action = match action {
        Action::Send(of) => message(of),
        Action::Join(of) | Action::Leave(of) | Action::Bind(of) => name(of),
        Action::Close { text, last, .. } => field(2) + field(text.len()) + last.as_ref().map_or(0, message),
        Action::Set { key, expect: Expect::Value(value), .. } => field(key.as_str().len()) + field(value.len()),
        Action::Set { key, expect: Expect::Absent, .. } => field(key.as_str().len()) + field(0),
        Action::Set { key, .. } | Action::Delete(key) => field(key.as_str().len()),
        Action::Unbind | Action::Touch => 0,
    };
    field(4) + to + except + action <= usize::from(u16::MAX)
}

/// The same for a query.
pub fn query_fits(query: &Query) -> bool {
    match query {
        Query::Channel(_, page) | Query::Uid(_, page) | Query::Channels(page) | Query::Sessions(page) => {
            // The frame also has a name, a request number and a limit.
            page.after.as_ref().is_none_or(|after| after.len() <= usize::from(u16::MAX) - 2 * Name::MAX_BYTES)
        }
        Query::Session(_) | Query::Attribute(..) | Query::Node | Query::Nodes => true,
    }
}

/// Reads the request number. It goes through all fields, which also checks their lengths.
fn request_number(frame: &Frame) -> Result<u32, RouterError> {
    let mut found = None;
    let mut fields = Fields::of(frame);
    while let Some((tag, value)) = fields.next()? {
        if tag == tag::REQUEST && found.replace(value).is_some() {
            return Err(RouterError::new(ErrorWord::BadFrame, "request appears twice"));
        }
    }
    let value = found.ok_or_else(|| RouterError::new(ErrorWord::BadFrame, "request is missing"))?;
    number(&value)
}

fn is_request(frame_kind: u16) -> bool {
    matches!(frame_kind, kind::SEND..=kind::EXISTS | kind::ATTRIBUTE..=kind::NODES)
}

/// The fields of a request, decoded one by one but not combined yet.
#[derive(Default)]
struct Parts {
    to: Option<Target>,
    except: Except,
    name: Option<Bytes>,
    kind: Option<FrameKind>,
    key: Option<Name>,
    id: Option<Name>,
    code: Option<u16>,
    reason: Option<Box<str>>,
    expect: Option<Expect>,
    after: Option<Box<[u8]>>,
    limit: Option<u16>,
    /// The tags that were seen, as bits.
    seen: u64,
}

impl Parts {
    fn of(frame: &Frame) -> Result<Self, RouterError> {
        let mut parts = Self::default();
        let mut fields = Fields::of(frame);
        while let Some((tag, value)) = fields.next_once()? {
            parts.take(tag, value)?;
        }
        parts.seen = fields.seen;
        Ok(parts)
    }

    fn take(&mut self, tag: u8, value: Bytes) -> Result<(), RouterError> {
        match tag {
            tag::REQUEST => {}
            tag::SESSION => self.set_target(Target::Sessions(ids(&value)?))?,
            tag::UID => self.set_target(Target::Uid(name("uid", &value)?))?,
            tag::CHANNEL => self.set_target(Target::Channel(name("channel", &value)?))?,
            tag::ALL if value.is_empty() => self.set_target(Target::All)?,
            tag::ALL => return Err(RouterError::field("all must have no value")),
            tag::EXCEPT_SESSION => self.except.sessions.extend(ids(&value)?),
            tag::EXCEPT_UID => self.except.uids.push(name("except uid", &value)?),
            tag::EXCEPT_CHANNEL => self.except.channels.push(name("except channel", &value)?),
            tag::NAME => self.name = Some(value),
            tag::KIND => {
                self.kind = Some(match value[..] {
                    [1] => FrameKind::Text,
                    [2] => FrameKind::Binary,
                    _ => return Err(RouterError::field("kind must be one byte, 1 or 2")),
                });
            }
            tag::KEY => self.key = Some(name("key", &value)?),
            tag::ID => self.id = Some(name("id", &value)?),
            tag::CODE => {
                let code = value[..]
                    .try_into()
                    .map(u16::from_be_bytes)
                    .map_err(|_| RouterError::field("code must have two bytes"))?;
                if !is_valid_close_code(code) {
                    return Err(RouterError::field(format!("{code} is not a close code that may be sent")));
                }
                self.code = Some(code);
            }
            tag::REASON => {
                let text = str::from_utf8(&value).map_err(|_| RouterError::field("reason is not UTF-8"))?;
                self.reason = Some(text.into());
            }
            tag::EXPECT if self.expect.is_none() => {
                let expect = Expect::value(value).map_err(|wrong| RouterError::field(format!("expect {wrong}")))?;
                self.expect = Some(expect);
            }
            tag::EXPECT_ABSENT if !value.is_empty() => {
                return Err(RouterError::field("expect absent must have no value"));
            }
            tag::EXPECT_ABSENT if self.expect.is_none() => self.expect = Some(Expect::Absent),
            tag::EXPECT | tag::EXPECT_ABSENT => {
                return Err(RouterError::field("expect and expect absent are both given: use one of them"));
            }
            tag::AFTER => self.after = Some(value[..].into()),
            tag::LIMIT => {
                let limit = value[..].try_into().map(u16::from_be_bytes);
                let limit = limit.ok().filter(|limit| usize::from(*limit) <= Page::MAX_LIMIT);
                self.limit = Some(limit.ok_or_else(|| RouterError::field("limit must be a u16 of at most 1000"))?);
            }
            _ => return Err(unknown(tag)),
        }
        Ok(())
    }

    fn set_target(&mut self, target: Target) -> Result<(), RouterError> {
        match self.to.replace(target) {
            None => Ok(()),
            Some(_) => Err(RouterError::field("there is more than one target")),
        }
    }

    /// Combines the fields that the type needs, and refuses fields that it does not allow.
    fn into_operation(mut self, frame: &Frame) -> Result<Operation, RouterError> {
        let allowed: &[u8] = match frame.kind {
            kind::SEND => &[tag::KIND, tag::KEY, tag::ID],
            kind::JOIN | kind::LEAVE | kind::BIND | kind::DELETE => &[tag::NAME],
            kind::CLOSE => &[tag::CODE, tag::REASON, tag::KIND],
            kind::SET => &[tag::NAME, tag::EXPECT, tag::EXPECT_ABSENT],
            kind::UNBIND | kind::EXISTS => &[],
            kind::ATTRIBUTE => &[tag::SESSION, tag::NAME],
            kind::SESSION => &[tag::SESSION],
            kind::CHANNEL => &[tag::CHANNEL, tag::AFTER, tag::LIMIT],
            kind::UID => &[tag::UID, tag::AFTER, tag::LIMIT],
            kind::CHANNELS | kind::SESSIONS => &[tag::AFTER, tag::LIMIT],
            _ => &[],
        };
        let is_command = frame.kind <= kind::EXISTS;
        let always: &[u8] = match is_command {
            true => &[
                tag::REQUEST,
                tag::SESSION,
                tag::UID,
                tag::CHANNEL,
                tag::ALL,
                tag::EXCEPT_SESSION,
                tag::EXCEPT_UID,
                tag::EXCEPT_CHANNEL,
            ],
            false => &[tag::REQUEST],
        };
        let useful = allowed.iter().chain(always).fold(0_u64, |bits, tag| bits | 1 << tag);
        if self.seen & !useful != 0 {
            let tag = (self.seen & !useful).trailing_zeros();
            return Err(RouterError::field(format!("type 0x{:04X} does not allow field 0x{tag:02X}", frame.kind)));
        }
        let has_body = matches!(frame.kind, kind::SEND | kind::CLOSE | kind::SET);
        if !has_body && !frame.body.is_empty() {
            return Err(RouterError::field(format!("type 0x{:04X} must have no body", frame.kind)));
        }
        if is_command {
            self.command(frame).map(Operation::Command)
        } else {
            self.query(frame.kind).map(Operation::Query)
        }
    }

    fn command(&mut self, frame: &Frame) -> Result<Command, RouterError> {
        let to = self.to.take().ok_or_else(|| RouterError::field("a target is missing"))?;
        let action = match frame.kind {
            kind::SEND => Action::Send(self.message(frame)?),
            kind::JOIN => Action::Join(self.name()?),
            kind::LEAVE => Action::Leave(self.name()?),
            kind::CLOSE => {
                let last = if frame.body.is_empty() { None } else { Some(self.message(frame)?) };
                Action::close(self.code.unwrap_or(1000), &self.reason.take().unwrap_or_default(), last)
            }
            kind::BIND => Action::Bind(self.name()?),
            kind::UNBIND => Action::Unbind,
            kind::SET => Action::Set {
                key: self.attribute_key()?,
                value: frame.body.clone(),
                expect: self.expect.take().unwrap_or_default(),
            },
            kind::DELETE => Action::Delete(self.attribute_key()?),
            _ => Action::Touch,
        };
        Ok(Command { to, except: std::mem::take(&mut self.except), action })
    }

    fn query(&mut self, frame_kind: u16) -> Result<Query, RouterError> {
        Ok(match frame_kind {
            kind::ATTRIBUTE => Query::Attribute(self.one_session()?, self.attribute_key()?),
            kind::SESSION => Query::Session(self.one_session()?),
            kind::CHANNEL => match self.to.take() {
                Some(Target::Channel(channel)) => Query::Channel(channel, self.page()),
                _ => return Err(RouterError::field("channel is missing")),
            },
            kind::UID => match self.to.take() {
                Some(Target::Uid(uid)) => Query::Uid(uid, self.page()),
                _ => return Err(RouterError::field("uid is missing")),
            },
            kind::CHANNELS => Query::Channels(self.page()),
            kind::SESSIONS => Query::Sessions(self.page()),
            kind::NODE => Query::Node,
            _ => Query::Nodes,
        })
    }

    fn message(&mut self, frame: &Frame) -> Result<Message, RouterError> {
        if self.kind == Some(FrameKind::Text) && str::from_utf8(&frame.body).is_err() {
            return Err(RouterError::new(ErrorWord::NotText, "the message is of kind text and not UTF-8"));
        }
        Ok(Message { body: frame.body.clone(), kind: self.kind, key: self.key.take(), id: self.id.take() })
    }

    fn name(&mut self) -> Result<Name, RouterError> {
        name("name", self.name.as_ref().ok_or_else(|| RouterError::field("name is missing"))?)
    }

    fn attribute_key(&mut self) -> Result<AttributeKey, RouterError> {
        let bytes = self.name.as_ref().ok_or_else(|| RouterError::field("name is missing"))?;
        AttributeKey::new(bytes).ok_or_else(|| {
            RouterError::field("name is not an attribute key: expected 1 to 64 characters of A-Z a-z 0-9 _")
        })
    }

    fn one_session(&mut self) -> Result<SessionId, RouterError> {
        match self.to.take() {
            Some(Target::Sessions(ids)) if ids.len() == 1 => Ok(ids[0]),
            _ => Err(RouterError::field("session must be exactly one id")),
        }
    }

    fn page(&mut self) -> Page {
        Page { after: self.after.take(), limit: self.limit.map_or(Page::DEFAULT_LIMIT, usize::from) }
    }
}

impl FieldWriter {
    fn put_ids(&mut self, tag: u8, ids: &[SessionId]) {
        let ids: Vec<u8> = ids.iter().flat_map(|id| id.as_str().bytes()).collect();
        self.put(tag, &ids);
    }

    fn put_target(&mut self, target: &Target) {
        match target {
            Target::Sessions(ids) => self.put_ids(tag::SESSION, ids),
            Target::Uid(uid) => self.put(tag::UID, uid.as_bytes()),
            Target::Channel(channel) => self.put(tag::CHANNEL, channel.as_bytes()),
            Target::All => self.put(tag::ALL, &[]),
        }
    }

    fn put_except(&mut self, except: &Except) {
        if !except.sessions.is_empty() {
            self.put_ids(tag::EXCEPT_SESSION, &except.sessions);
        }
        except.uids.iter().for_each(|uid| self.put(tag::EXCEPT_UID, uid.as_bytes()));
        except.channels.iter().for_each(|channel| self.put(tag::EXCEPT_CHANNEL, channel.as_bytes()));
    }

    fn put_message(&mut self, message: &Message, body: &mut Bytes) {
        body.clone_from(&message.body);
        if let Some(kind) = message.kind {
            self.put(tag::KIND, &[if kind == FrameKind::Text { 1 } else { 2 }]);
        }
        if let Some(key) = &message.key {
            self.put(tag::KEY, key.as_bytes());
        }
        if let Some(id) = &message.id {
            self.put(tag::ID, id.as_bytes());
        }
    }

    fn put_action(&mut self, action: &Action, body: &mut Bytes) -> u16 {
        match action {
            Action::Send(message) => {
                self.put_message(message, body);
                kind::SEND
            }
            Action::Join(channel) => {
                self.put(tag::NAME, channel.as_bytes());
                kind::JOIN
            }
            Action::Leave(channel) => {
                self.put(tag::NAME, channel.as_bytes());
                kind::LEAVE
            }
            Action::Close { code, text, last } => {
                self.put(tag::CODE, &code.to_be_bytes());
                self.put(tag::REASON, text.as_bytes());
                if let Some(message) = last {
                    self.put_message(message, body);
                }
                kind::CLOSE
            }
            Action::Bind(uid) => {
                self.put(tag::NAME, uid.as_bytes());
                kind::BIND
            }
            Action::Unbind => kind::UNBIND,
            Action::Set { key, value, expect } => {
                self.put(tag::NAME, key.as_str().as_bytes());
                match expect {
                    Expect::Anything => {}
                    Expect::Absent => self.put(tag::EXPECT_ABSENT, &[]),
                    Expect::Value(value) => self.put(tag::EXPECT, value),
                }
                body.clone_from(value);
                kind::SET
            }
            Action::Delete(key) => {
                self.put(tag::NAME, key.as_str().as_bytes());
                kind::DELETE
            }
            Action::Touch => kind::EXISTS,
        }
    }

    fn put_query(&mut self, query: &Query) -> u16 {
        match query {
            Query::Session(id) => {
                self.put_ids(tag::SESSION, &[*id]);
                kind::SESSION
            }
            Query::Attribute(id, key) => {
                self.put_ids(tag::SESSION, &[*id]);
                self.put(tag::NAME, key.as_str().as_bytes());
                kind::ATTRIBUTE
            }
            Query::Channel(channel, page) => {
                self.put(tag::CHANNEL, channel.as_bytes());
                self.put_page(page);
                kind::CHANNEL
            }
            Query::Uid(uid, page) => {
                self.put(tag::UID, uid.as_bytes());
                self.put_page(page);
                kind::UID
            }
            Query::Channels(page) => {
                self.put_page(page);
                kind::CHANNELS
            }
            Query::Sessions(page) => {
                self.put_page(page);
                kind::SESSIONS
            }
            Query::Node => kind::NODE,
            Query::Nodes => kind::NODES,
        }
    }

    fn put_page(&mut self, page: &Page) {
        if let Some(after) = &page.after {
            self.put(tag::AFTER, after);
        }
        self.put(tag::LIMIT, &(page.limit.min(Page::MAX_LIMIT) as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_a_frame_is_known_before_it_is_written() {
        let id = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let name = |byte: u8, len: usize| Name::new(&vec![byte; len]).unwrap();
        let some = |ids: usize| Target::Sessions(vec![id; ids]);
        let keyed = Message { key: Some(name(b'k', 255)), id: Some(name(b'i', 255)), ..Message::new("x") };
        let set = |len: usize| Action::Set {
            key: AttributeKey::new(b"role").unwrap(),
            value: "x".into(),
            expect: Expect::Value(vec![b'x'; len].into()),
        };
        let close = |len: usize| Action::Close { code: 1000, text: "x".repeat(len).into(), last: Some(keyed.clone()) };
        let all_but = |uids: usize| Command {
            to: Target::All,
            except: Except { uids: vec![name(b'u', 255); uids], ..Except::default() },
            action: Action::Touch,
        };
        for (command, fits) in [
            (Command::new(some(4094), Action::Touch), true),
            (Command::new(some(4096), Action::Touch), false),
            (Command::new(some(4050), Action::Send(keyed.clone())), true),
            (Command::new(some(4090), Action::Send(keyed.clone())), false),
            (Command::new(Target::All, set(65_000)), true),
            (Command::new(Target::All, set(65_536)), false),
            (Command::new(Target::All, close(64_000)), true),
            (Command::new(Target::All, close(65_536)), false),
            (all_but(250), true),
            (all_but(260), false),
        ] {
            assert_eq!(command_fits(&command), fits, "{:?}", command.action);
            if fits {
                RouterRequest { number: 1, operation: Operation::Command(command) }.encode(&mut BytesMut::new());
            }
        }
    }
}
