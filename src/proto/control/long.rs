//! The long protocol: a greeting, commands with numbers, and an answer to each.
//!
//! Both sides are here, so that tests and tools can be clients: what one encodes, the other decodes.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Frame;
use crate::proto::command::{
    Action, AttributeKey, Command, Except, Expect, Message, Name, Page, Query, Receipt, Target,
};
use crate::proto::framing::{FrameKind, is_valid_close_code};
use crate::proto::id::SessionId;

/// The first type of this protocol.
pub const FIRST_TYPE: u16 = 0x4C00;
/// The version that is spoken here.
pub const VERSION: u8 = 1;
/// Bytes of a nonce and of a proof.
pub const NONCE_BYTES: usize = 32;
/// RFC 6455 section 5.5: a close frame has room for so much beside its code.
const MAX_REASON_BYTES: usize = 123;

mod kind {
    pub(super) const HELLO: u16 = 0x4C01;
    pub(super) const CHALLENGE: u16 = 0x4C02;
    pub(super) const PROOF: u16 = 0x4C03;
    pub(super) const WELCOME: u16 = 0x4C04;
    pub(super) const SEND: u16 = 0x4C10;
    pub(super) const JOIN: u16 = 0x4C11;
    pub(super) const LEAVE: u16 = 0x4C12;
    pub(super) const CLOSE: u16 = 0x4C13;
    pub(super) const BIND: u16 = 0x4C14;
    pub(super) const UNBIND: u16 = 0x4C15;
    pub(super) const SET: u16 = 0x4C16;
    pub(super) const DELETE: u16 = 0x4C17;
    pub(super) const EXISTS: u16 = 0x4C18;
    pub(super) const ATTRIBUTE: u16 = 0x4C20;
    pub(super) const SESSION: u16 = 0x4C21;
    pub(super) const CHANNEL: u16 = 0x4C22;
    pub(super) const UID: u16 = 0x4C23;
    pub(super) const CHANNELS: u16 = 0x4C24;
    pub(super) const SESSIONS: u16 = 0x4C25;
    pub(super) const NODE: u16 = 0x4C26;
    pub(super) const RECEIPT: u16 = 0x4C80;
    pub(super) const RESULT: u16 = 0x4C81;
    pub(super) const ABSENT: u16 = 0x4C82;
    pub(super) const ERROR: u16 = 0x4C83;
}

mod tag {
    pub(super) const VERSIONS: u8 = 0x01;
    pub(super) const NONCE: u8 = 0x02;
    pub(super) const PEER: u8 = 0x03;
    pub(super) const AUTH: u8 = 0x04;
    pub(super) const PROOF: u8 = 0x05;
    pub(super) const REQUEST: u8 = 0x06;
    pub(super) const COUNTS: u8 = 0x07;
    pub(super) const ERROR: u8 = 0x08;
    pub(super) const SESSION: u8 = 0x10;
    pub(super) const UID: u8 = 0x11;
    pub(super) const CHANNEL: u8 = 0x12;
    pub(super) const ALL: u8 = 0x13;
    pub(super) const EXCEPT_SESSION: u8 = 0x18;
    pub(super) const EXCEPT_UID: u8 = 0x19;
    pub(super) const EXCEPT_CHANNEL: u8 = 0x1A;
    pub(super) const NAME: u8 = 0x20;
    pub(super) const KIND: u8 = 0x21;
    pub(super) const KEY: u8 = 0x22;
    pub(super) const CODE: u8 = 0x23;
    pub(super) const REASON: u8 = 0x24;
    pub(super) const EXPECT: u8 = 0x25;
    pub(super) const EXPECT_ABSENT: u8 = 0x26;
    pub(super) const AFTER: u8 = 0x27;
    pub(super) const LIMIT: u8 = 0x28;
}

/// The words of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorWord {
    /// The bytes are no frame of this protocol.
    BadFrame,
    /// None of the client's versions is spoken here.
    Version,
    /// A command before the proof.
    Unauthenticated,
    /// The proof is wrong.
    BadProof,
    /// The greeting was not finished in time.
    Timeout,
    /// No command has this type.
    UnknownType,
    /// A field is missing, unknown, too much, or wrong.
    BadField,
    /// A message of kind text is not UTF-8.
    NotText,
}

impl ErrorWord {
    /// The word on the wire and in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            ErrorWord::BadFrame => "bad_frame",
            ErrorWord::Version => "version",
            ErrorWord::Unauthenticated => "unauthenticated",
            ErrorWord::BadProof => "bad_proof",
            ErrorWord::Timeout => "timeout",
            ErrorWord::UnknownType => "unknown_type",
            ErrorWord::BadField => "bad_field",
            ErrorWord::NotText => "not_text",
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Of which kind it is.
    pub word: ErrorWord,
    /// Says it to a person.
    pub text: String,
    /// Of which request.
    pub request: Option<u32>,
}

impl Wrong {
    /// Something that is not about one request.
    pub fn new(word: ErrorWord, text: impl Into<String>) -> Self {
        Self { word, text: text.into(), request: None }
    }

    fn field(text: impl Into<String>) -> Self {
        Self::new(ErrorWord::BadField, text)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word.label(), self.text)
    }
}

impl std::error::Error for Wrong {}

/// What a client begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What it speaks.
    pub versions: Bytes,
    /// Its part of what is proved.
    pub nonce: [u8; NONCE_BYTES],
    /// Who it says it is.
    pub peer: String,
}

impl Hello {
    /// Reads a hello; anything else is an error.
    pub fn decode(frame: &Frame) -> Result<Self, Wrong> {
        if frame.kind != kind::HELLO {
            return Err(Wrong::new(ErrorWord::Unauthenticated, "a connection begins with a hello"));
        }
        let mut hello = Self { versions: Bytes::new(), nonce: [0; NONCE_BYTES], peer: String::new() };
        let mut has_nonce = false;
        let mut fields = Fields::of(frame)?;
        while let Some((tag, value)) = fields.next()? {
            match tag {
                tag::VERSIONS => hello.versions = value,
                tag::NONCE => {
                    hello.nonce = nonce(&value)?;
                    has_nonce = true;
                }
                tag::PEER if value.len() <= 64 => hello.peer = String::from_utf8_lossy(&value).into_owned(),
                tag::PEER => return Err(Wrong::field("peer has more than 64 bytes")),
                _ => return Err(unknown(tag)),
            }
        }
        if !has_nonce {
            return Err(Wrong::field("nonce is missing"));
        }
        if !hello.versions.contains(&VERSION) {
            return Err(Wrong::new(ErrorWord::Version, format!("version {VERSION} is spoken here")));
        }
        Ok(hello)
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut fields = FieldWriter::default();
        fields.put(tag::VERSIONS, &self.versions);
        fields.put(tag::NONCE, &self.nonce);
        if !self.peer.is_empty() {
            fields.put(tag::PEER, self.peer.as_bytes());
        }
        Frame::encode(kind::HELLO, &fields.0, &[], out);
    }
}

/// Appends the server's answer to a hello.
pub fn challenge(nonce: &[u8; NONCE_BYTES], wants_proof: bool, node: &str, out: &mut BytesMut) {
    let mut fields = FieldWriter::default();
    fields.put(tag::VERSIONS, &[VERSION]);
    fields.put(tag::NONCE, nonce);
    fields.put(tag::AUTH, &[u8::from(wants_proof)]);
    fields.put(tag::PEER, node.as_bytes());
    Frame::encode(kind::CHALLENGE, &fields.0, &[], out);
}

/// Reads a client's proof; anything else is an error.
pub fn decode_proof(frame: &Frame) -> Result<Bytes, Wrong> {
    if frame.kind != kind::PROOF {
        return Err(Wrong::new(ErrorWord::Unauthenticated, "a proof is asked for before anything else"));
    }
    let mut proof = None;
    let mut fields = Fields::of(frame)?;
    while let Some((tag, value)) = fields.next()? {
        match tag {
            tag::PROOF => proof = Some(value),
            _ => return Err(unknown(tag)),
        }
    }
    proof.ok_or_else(|| Wrong::field("proof is missing"))
}

/// Appends a client's proof.
pub fn encode_proof(proof: &[u8], out: &mut BytesMut) {
    let mut fields = FieldWriter::default();
    fields.put(tag::PROOF, proof);
    Frame::encode(kind::PROOF, &fields.0, &[], out);
}

/// Appends the end of the greeting.
pub fn welcome(proof: Option<&[u8]>, out: &mut BytesMut) {
    let mut fields = FieldWriter::default();
    if let Some(proof) = proof {
        fields.put(tag::PROOF, proof);
    }
    Frame::encode(kind::WELCOME, &fields.0, &[], out);
}

/// Both proofs of one connection, under a secret.
pub struct Proofs<'a> {
    /// What both sides know.
    pub secret: &'a [u8],
    /// The client's nonce.
    pub client_nonce: [u8; NONCE_BYTES],
    /// The server's nonce.
    pub server_nonce: [u8; NONCE_BYTES],
}

impl Proofs<'_> {
    /// What the client proves itself with.
    pub fn of_client(&self) -> [u8; NONCE_BYTES] {
        self.client_mac().finalize().into_bytes().into()
    }

    /// What the server proves itself with.
    pub fn of_server(&self) -> [u8; NONCE_BYTES] {
        let mac = self.mac(b"longwire router 1 server", &self.server_nonce, &self.client_nonce);
        mac.finalize().into_bytes().into()
    }

    /// Whether this is the client's proof, in a time that does not tell how much of it is right.
    pub fn is_client(&self, proof: &[u8]) -> bool {
        self.client_mac().verify_slice(proof).is_ok()
    }

    fn client_mac(&self) -> Hmac<Sha256> {
        self.mac(b"longwire router 1 client", &self.client_nonce, &self.server_nonce)
    }

    fn mac(&self, label: &[u8], first: &[u8], second: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret).expect("HMAC takes a key of any length");
        mac.update(label);
        mac.update(first);
        mac.update(second);
        mac
    }
}

/// What a client asks for after the greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's number for it.
    pub number: u32,
    /// What.
    pub what: What,
}

/// A command or a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Answered with a receipt.
    Command(Command),
    /// Answered with a result.
    Query(Query),
}

impl Request {
    /// Reads a command or a query.
    pub fn decode(frame: &Frame) -> Result<Self, Wrong> {
        let mut parts = Parts::default();
        let taken = parts.take(frame);
        let number = parts.request;
        let of_request = |wrong: Wrong| Wrong { request: number, ..wrong };
        if !is_request(frame.kind) {
            return Err(of_request(Wrong::new(
                ErrorWord::UnknownType,
                format!("there is no type 0x{:04X}", frame.kind),
            )));
        }
        taken.map_err(of_request)?;
        let what = parts.into_what(frame).map_err(of_request)?;
        let number = number.ok_or_else(|| Wrong::field("request is missing"))?;
        Ok(Self { number, what })
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut fields = FieldWriter::default();
        fields.put(tag::REQUEST, &self.number.to_be_bytes());
        let mut body = Bytes::new();
        let kind = match &self.what {
            What::Command(command) => {
                fields.put_target(&command.to);
                fields.put_except(&command.except);
                fields.put_action(&command.action, &mut body)
            }
            What::Query(query) => fields.put_query(query),
        };
        Frame::encode(kind, &fields.0, &body, out);
    }
}

fn is_request(frame_kind: u16) -> bool {
    matches!(frame_kind, kind::SEND..=kind::EXISTS | kind::ATTRIBUTE..=kind::NODE)
}

/// What a server answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a command.
    Receipt {
        /// The client's number.
        request: u32,
        /// In the order of [`Receipt::counts`]; a newer server may send more.
        counts: Vec<u32>,
    },
    /// To a query.
    Result {
        /// The client's number.
        request: u32,
        /// JSON, or an attribute's value.
        body: Bytes,
    },
    /// To a query for what is not there.
    Absent {
        /// The client's number.
        request: u32,
    },
    /// Something was wrong.
    Error {
        /// The client's number, unless the connection is meant.
        request: Option<u32>,
        /// A word of the table.
        word: String,
        /// What is wrong.
        text: String,
    },
}

impl Answer {
    /// To a command.
    pub fn receipt(request: u32, receipt: &Receipt) -> Self {
        Answer::Receipt { request, counts: receipt.counts().to_vec() }
    }

    /// To something wrong.
    pub fn error(wrong: &Wrong) -> Self {
        Answer::Error { request: wrong.request, word: wrong.word.label().to_owned(), text: wrong.text.clone() }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut fields = FieldWriter::default();
        match self {
            Answer::Receipt { request, counts } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
                fields.put(tag::COUNTS, &counts);
                Frame::encode(kind::RECEIPT, &fields.0, &[], out);
            }
            Answer::Result { request, body } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                Frame::encode(kind::RESULT, &fields.0, body, out);
            }
            Answer::Absent { request } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                Frame::encode(kind::ABSENT, &fields.0, &[], out);
            }
            Answer::Error { request, word, text } => {
                if let Some(request) = request {
                    fields.put(tag::REQUEST, &request.to_be_bytes());
                }
                fields.put(tag::ERROR, word.as_bytes());
                Frame::encode(kind::ERROR, &fields.0, text.as_bytes(), out);
            }
        }
    }

    /// Reads an answer, as a client does: fields that it does not know are skipped.
    pub fn decode(frame: &Frame) -> Result<Self, Wrong> {
        let (mut request, mut counts, mut word) = (None, None, None);
        let mut fields = Fields::of(frame)?;
        while let Some((tag, value)) = fields.next()? {
            match tag {
                tag::REQUEST => request = Some(number(&value)?),
                tag::COUNTS => {
                    counts =
                        Some(value.chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect());
                }
                tag::ERROR => word = Some(String::from_utf8_lossy(&value).into_owned()),
                _ => {}
            }
        }
        let numbered = request.ok_or_else(|| Wrong::field("request is missing"));
        match frame.kind {
            kind::RECEIPT => {
                let counts = counts.ok_or_else(|| Wrong::field("counts are missing"))?;
                Ok(Answer::Receipt { request: numbered?, counts })
            }
            kind::RESULT => Ok(Answer::Result { request: numbered?, body: frame.body.clone() }),
            kind::ABSENT => Ok(Answer::Absent { request: numbered? }),
            kind::ERROR => {
                let text = String::from_utf8_lossy(&frame.body).into_owned();
                Ok(Answer::Error { request, word: word.unwrap_or_default(), text })
            }
            other => Err(Wrong::new(ErrorWord::UnknownType, format!("0x{other:04X} is no answer"))),
        }
    }
}

/// What a server says to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Its part of what is proved.
    pub nonce: [u8; NONCE_BYTES],
    /// Whether it asks for a proof.
    pub wants_proof: bool,
}

impl Challenge {
    /// Reads a challenge; anything else is an error.
    pub fn decode(frame: &Frame) -> Result<Self, Wrong> {
        if frame.kind != kind::CHALLENGE {
            return Err(Wrong::new(ErrorWord::UnknownType, format!("0x{:04X} is no challenge", frame.kind)));
        }
        let mut challenge = Self { nonce: [0; NONCE_BYTES], wants_proof: false };
        let mut fields = Fields::of(frame)?;
        while let Some((tag, value)) = fields.next()? {
            match tag {
                tag::NONCE => challenge.nonce = nonce(&value)?,
                tag::AUTH => challenge.wants_proof = value[..] == [1],
                _ => {}
            }
        }
        Ok(challenge)
    }
}

/// Reads a welcome: the server's proof, if it gave one.
pub fn decode_welcome(frame: &Frame) -> Result<Option<Bytes>, Wrong> {
    if frame.kind != kind::WELCOME {
        return Err(Wrong::new(ErrorWord::UnknownType, format!("0x{:04X} is no welcome", frame.kind)));
    }
    let mut proof = None;
    let mut fields = Fields::of(frame)?;
    while let Some((tag, value)) = fields.next()? {
        if tag == tag::PROOF {
            proof = Some(value);
        }
    }
    Ok(proof)
}

/// The fields of a request, each read and none put together yet.
#[derive(Default)]
struct Parts {
    request: Option<u32>,
    to: Option<Target>,
    except: Except,
    name: Option<Bytes>,
    kind: Option<FrameKind>,
    key: Option<Name>,
    code: Option<u16>,
    reason: Option<Box<str>>,
    expect: Option<Expect>,
    after: Option<Box<[u8]>>,
    limit: Option<u16>,
    /// Tags that were seen, by their bits.
    seen: u64,
}

impl Parts {
    fn take(&mut self, frame: &Frame) -> Result<(), Wrong> {
        let mut fields = Fields::of(frame)?;
        while let Some((tag, value)) = fields.next()? {
            if tag > tag::LIMIT {
                return Err(unknown(tag));
            }
            let may_repeat = (tag::EXCEPT_SESSION..=tag::EXCEPT_CHANNEL).contains(&tag);
            if self.seen & 1 << tag != 0 && !may_repeat {
                return Err(Wrong::field(format!("field 0x{tag:02X} stands twice")));
            }
            self.seen |= 1 << tag;
            self.take_field(tag, value)?;
        }
        Ok(())
    }

    fn take_field(&mut self, tag: u8, value: Bytes) -> Result<(), Wrong> {
        match tag {
            tag::REQUEST => self.request = Some(number(&value)?),
            tag::SESSION => self.set_target(Target::Sessions(ids(&value)?))?,
            tag::UID => self.set_target(Target::Uid(name("uid", &value)?))?,
            tag::CHANNEL => self.set_target(Target::Channel(name("channel", &value)?))?,
            tag::ALL if value.is_empty() => self.set_target(Target::All)?,
            tag::ALL => return Err(Wrong::field("all has no value")),
            tag::EXCEPT_SESSION => self.except.sessions.extend(ids(&value)?),
            tag::EXCEPT_UID => self.except.uids.push(name("except uid", &value)?),
            tag::EXCEPT_CHANNEL => self.except.channels.push(name("except channel", &value)?),
            tag::NAME => self.name = Some(value),
            tag::KIND => {
                self.kind = Some(match value[..] {
                    [1] => FrameKind::Text,
                    [2] => FrameKind::Binary,
                    _ => return Err(Wrong::field("kind is one byte, 1 or 2")),
                });
            }
            tag::KEY => self.key = Some(name("key", &value)?),
            tag::CODE => {
                let code =
                    value[..].try_into().map(u16::from_be_bytes).map_err(|_| Wrong::field("code has two bytes"))?;
                if !is_valid_close_code(code) {
                    return Err(Wrong::field(format!("{code} is no close code that may be sent")));
                }
                self.code = Some(code);
            }
            tag::REASON => {
                let text = str::from_utf8(&value).map_err(|_| Wrong::field("reason is not UTF-8"))?;
                self.reason = Some(text[..text.floor_char_boundary(MAX_REASON_BYTES)].into());
            }
            tag::EXPECT if self.expect.is_none() => self.expect = Some(Expect::Value(value)),
            tag::EXPECT_ABSENT if self.expect.is_none() => self.expect = Some(Expect::Absent),
            tag::EXPECT | tag::EXPECT_ABSENT => {
                return Err(Wrong::field("expect and expect absent stand together"));
            }
            tag::AFTER => self.after = Some(value[..].into()),
            tag::LIMIT => {
                let limit = value[..].try_into().map(u16::from_be_bytes);
                let limit = limit.ok().filter(|limit| usize::from(*limit) <= Page::MAX_LIMIT);
                self.limit = Some(limit.ok_or_else(|| Wrong::field("limit is a u16 of at most 1000"))?);
            }
            _ => return Err(unknown(tag)),
        }
        Ok(())
    }

    fn set_target(&mut self, target: Target) -> Result<(), Wrong> {
        match self.to.replace(target) {
            None => Ok(()),
            Some(_) => Err(Wrong::field("there are two targets")),
        }
    }

    /// Puts together what the type asks for, and refuses what it has no use for.
    fn into_what(mut self, frame: &Frame) -> Result<What, Wrong> {
        let allowed: &[u8] = match frame.kind {
            kind::SEND => &[tag::KIND, tag::KEY],
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
            return Err(Wrong::field(format!("type 0x{:04X} has no use for field 0x{tag:02X}", frame.kind)));
        }
        let has_body = matches!(frame.kind, kind::SEND | kind::CLOSE | kind::SET);
        if !has_body && !frame.body.is_empty() {
            return Err(Wrong::field(format!("type 0x{:04X} has no body", frame.kind)));
        }
        if is_command { self.command(frame).map(What::Command) } else { self.query(frame.kind).map(What::Query) }
    }

    fn command(&mut self, frame: &Frame) -> Result<Command, Wrong> {
        let to = self.to.take().ok_or_else(|| Wrong::field("a target is missing"))?;
        let action = match frame.kind {
            kind::SEND => Action::Send(self.message(frame)?),
            kind::JOIN => Action::Join(self.name()?),
            kind::LEAVE => Action::Leave(self.name()?),
            kind::CLOSE => Action::Close {
                code: self.code.unwrap_or(1000),
                text: self.reason.take().unwrap_or_default(),
                last: if frame.body.is_empty() { None } else { Some(self.message(frame)?) },
            },
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

    fn query(&mut self, frame_kind: u16) -> Result<Query, Wrong> {
        Ok(match frame_kind {
            kind::ATTRIBUTE => Query::Attribute(self.one_session()?, self.attribute_key()?),
            kind::SESSION => Query::Session(self.one_session()?),
            kind::CHANNEL => match self.to.take() {
                Some(Target::Channel(channel)) => Query::Channel(channel, self.page()),
                _ => return Err(Wrong::field("channel is missing")),
            },
            kind::UID => match self.to.take() {
                Some(Target::Uid(uid)) => Query::Uid(uid, self.page()),
                _ => return Err(Wrong::field("uid is missing")),
            },
            kind::CHANNELS => Query::Channels(self.page()),
            kind::SESSIONS => Query::Sessions(self.page()),
            _ => Query::Node,
        })
    }

    fn message(&mut self, frame: &Frame) -> Result<Message, Wrong> {
        if self.kind == Some(FrameKind::Text) && str::from_utf8(&frame.body).is_err() {
            return Err(Wrong::new(ErrorWord::NotText, "the message is of kind text and not UTF-8"));
        }
        Ok(Message { body: frame.body.clone(), kind: self.kind, key: self.key.take() })
    }

    fn name(&mut self) -> Result<Name, Wrong> {
        name("name", self.name.as_ref().ok_or_else(|| Wrong::field("name is missing"))?)
    }

    fn attribute_key(&mut self) -> Result<AttributeKey, Wrong> {
        let bytes = self.name.as_ref().ok_or_else(|| Wrong::field("name is missing"))?;
        AttributeKey::new(bytes).ok_or_else(|| Wrong::field("name is no key of an attribute: 1 to 64 of A-Z a-z 0-9 _"))
    }

    fn one_session(&mut self) -> Result<SessionId, Wrong> {
        match self.to.take() {
            Some(Target::Sessions(ids)) if ids.len() == 1 => Ok(ids[0]),
            _ => Err(Wrong::field("session is one id")),
        }
    }

    fn page(&mut self) -> Page {
        Page { after: self.after.take(), limit: self.limit.map_or(Page::DEFAULT_LIMIT, usize::from) }
    }
}

/// Goes through the fields of a frame.
struct Fields(Bytes);

impl Fields {
    fn of(frame: &Frame) -> Result<Self, Wrong> {
        Ok(Self(frame.head.clone()))
    }

    fn next(&mut self) -> Result<Option<(u8, Bytes)>, Wrong> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let whole = self.0.first_chunk::<3>().map(|head| 3 + usize::from(u16::from_be_bytes([head[1], head[2]])));
        match whole.filter(|whole| *whole <= self.0.len()) {
            Some(whole) => {
                let field = self.0.split_to(whole);
                Ok(Some((field[0], field.slice(3..))))
            }
            None => Err(Wrong::new(ErrorWord::BadFrame, "the fields do not fit into slen")),
        }
    }
}

#[derive(Default)]
struct FieldWriter(BytesMut);

impl FieldWriter {
    fn put(&mut self, tag: u8, value: &[u8]) {
        self.0.put_u8(tag);
        self.0.put_u16(u16::try_from(value.len()).expect("the caller bounds its values"));
        self.0.put_slice(value);
    }

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
        }
    }

    fn put_page(&mut self, page: &Page) {
        if let Some(after) = &page.after {
            self.put(tag::AFTER, after);
        }
        self.put(tag::LIMIT, &(page.limit.min(Page::MAX_LIMIT) as u16).to_be_bytes());
    }
}

fn unknown(tag: u8) -> Wrong {
    Wrong::field(format!("there is no field 0x{tag:02X} here"))
}

fn nonce(value: &[u8]) -> Result<[u8; NONCE_BYTES], Wrong> {
    value.try_into().map_err(|_| Wrong::field(format!("nonce has {NONCE_BYTES} bytes")))
}

fn number(value: &[u8]) -> Result<u32, Wrong> {
    value.try_into().map(u32::from_be_bytes).map_err(|_| Wrong::field("request has four bytes"))
}

fn name(field: &str, value: &[u8]) -> Result<Name, Wrong> {
    Name::new(value).map_err(|error| Wrong::field(format!("{field}: {error}")))
}

/// Ids one after another.
fn ids(value: &[u8]) -> Result<Vec<SessionId>, Wrong> {
    if !value.len().is_multiple_of(SessionId::LEN) {
        return Err(Wrong::field(format!("session ids have {} bytes each", SessionId::LEN)));
    }
    let id = |bytes| {
        SessionId::from_bytes(bytes)
            .ok_or_else(|| Wrong::field(format!("{:?} is not a session id", String::from_utf8_lossy(bytes))))
    };
    value.chunks_exact(SessionId::LEN).map(id).collect()
}
