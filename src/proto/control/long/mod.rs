//! The long protocol: a greeting, commands with numbers, and an answer to each.
//!
//! Both sides are here, so that tests and tools can be clients: each side decodes the frames that the other encodes.

mod answer;
mod fields;
mod request;

use std::fmt;

use bytes::{Bytes, BytesMut};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Frame;

pub use self::answer::RouterAnswer;
pub use self::request::{Operation, RouterRequest, command_fits, query_fits};

use self::fields::{FieldWriter, Fields, nonce, tag, unknown};

/// The version that this server supports.
pub const VERSION: u8 = 1;
/// Bytes of a nonce and of a proof.
pub const NONCE_BYTES: usize = 32;

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
    pub(super) const NODES: u16 = 0x4C27;
    pub(super) const RECEIPT: u16 = 0x4C80;
    pub(super) const RESULT: u16 = 0x4C81;
    pub(super) const ABSENT: u16 = 0x4C82;
    pub(super) const ERROR: u16 = 0x4C83;
}

/// The words of the error table in docs/router-protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorWord {
    /// The bytes are not a frame of this protocol.
    BadFrame,
    /// The server supports none of the client's versions.
    Version,
    /// A command before the proof.
    Unauthenticated,
    /// The proof is wrong.
    BadProof,
    /// The greeting was not finished in time.
    Timeout,
    /// No command has this type.
    UnknownType,
    /// A field is missing, unknown, not allowed, or wrong.
    BadField,
    /// A message of kind text is not UTF-8.
    NotText,
    /// The node that could answer does not respond, or there is no engine through which to ask it.
    Unreachable,
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
            ErrorWord::Unreachable => "unreachable",
        }
    }
}

/// An error in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterError {
    /// The kind of error.
    pub word: ErrorWord,
    /// The description for people.
    pub text: String,
    /// The number of the request, if the error is about one.
    pub request: Option<u32>,
}

impl RouterError {
    /// An error that is not about one request.
    pub fn new(word: ErrorWord, text: impl Into<String>) -> Self {
        Self { word, text: text.into(), request: None }
    }

    fn field(text: impl Into<String>) -> Self {
        Self::new(ErrorWord::BadField, text)
    }
}

impl fmt::Display for RouterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word.label(), self.text)
    }
}

impl std::error::Error for RouterError {}

/// The first frame of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions that it supports, one per byte.
    pub versions: Bytes,
    /// The client's nonce for the proofs.
    pub nonce: [u8; NONCE_BYTES],
    /// The name that the client gives itself.
    pub peer: String,
}

impl Hello {
    /// Reads a hello; anything else is an error.
    pub fn decode(frame: &Frame) -> Result<Self, RouterError> {
        if frame.kind != kind::HELLO {
            return Err(RouterError::new(
                ErrorWord::Unauthenticated,
                "the first frame of a connection must be a hello",
            ));
        }
        let mut hello = Self { versions: Bytes::new(), nonce: [0; NONCE_BYTES], peer: String::new() };
        let mut has_nonce = false;
        let mut fields = Fields::of(frame);
        while let Some((tag, value)) = fields.next_once()? {
            match tag {
                tag::VERSIONS => hello.versions = value,
                tag::NONCE => {
                    hello.nonce = nonce(&value)?;
                    has_nonce = true;
                }
                tag::PEER if value.len() <= 64 => hello.peer = String::from_utf8_lossy(&value).into_owned(),
                tag::PEER => return Err(RouterError::field("peer has more than 64 bytes")),
                _ => return Err(unknown(tag)),
            }
        }
        if !has_nonce {
            return Err(RouterError::field("nonce is missing"));
        }
        if !hello.versions.contains(&VERSION) {
            return Err(RouterError::new(ErrorWord::Version, format!("this server supports version {VERSION} only")));
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
pub fn decode_proof(frame: &Frame) -> Result<Bytes, RouterError> {
    if frame.kind != kind::PROOF {
        return Err(RouterError::new(ErrorWord::Unauthenticated, "a proof is required before any other frame"));
    }
    let mut proof = None;
    let mut fields = Fields::of(frame);
    while let Some((tag, value)) = fields.next_once()? {
        match tag {
            tag::PROOF => proof = Some(value),
            _ => return Err(unknown(tag)),
        }
    }
    proof.ok_or_else(|| RouterError::field("proof is missing"))
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

/// Both proofs of one connection, made with a secret.
pub struct Proofs<'a> {
    /// The secret that both sides know.
    pub secret: &'a [u8],
    /// The client's nonce.
    pub client_nonce: [u8; NONCE_BYTES],
    /// The server's nonce.
    pub server_nonce: [u8; NONCE_BYTES],
}

impl Proofs<'_> {
    /// The proof of the client.
    pub fn of_client(&self) -> [u8; NONCE_BYTES] {
        self.client_mac().finalize().into_bytes().into()
    }

    /// The proof of the server.
    pub fn of_server(&self) -> [u8; NONCE_BYTES] {
        let mac = self.mac(b"longwire router 1 server", &self.server_nonce, &self.client_nonce);
        mac.finalize().into_bytes().into()
    }

    /// Whether this is the client's proof. The comparison takes constant time, so it does not reveal how much of a wrong proof is right.
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

/// The server's answer to a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The server's nonce for the proofs.
    pub nonce: [u8; NONCE_BYTES],
    /// Whether it asks for a proof.
    pub wants_proof: bool,
}

impl Challenge {
    /// Reads a challenge; anything else is an error.
    pub fn decode(frame: &Frame) -> Result<Self, RouterError> {
        if frame.kind != kind::CHALLENGE {
            return Err(RouterError::new(
                ErrorWord::UnknownType,
                format!("type 0x{:04X} is not a challenge", frame.kind),
            ));
        }
        let mut challenge = Self { nonce: [0; NONCE_BYTES], wants_proof: false };
        let mut fields = Fields::of(frame);
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
pub fn decode_welcome(frame: &Frame) -> Result<Option<Bytes>, RouterError> {
    if frame.kind != kind::WELCOME {
        return Err(RouterError::new(ErrorWord::UnknownType, format!("type 0x{:04X} is not a welcome", frame.kind)));
    }
    let mut proof = None;
    let mut fields = Fields::of(frame);
    while let Some((tag, value)) = fields.next()? {
        if tag == tag::PROOF {
            proof = Some(value);
        }
    }
    Ok(proof)
}
