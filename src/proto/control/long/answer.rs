//! Answers on the wire.

use bytes::{Bytes, BytesMut};

use super::fields::{FieldWriter, Fields, number, tag};
use super::{ErrorWord, RouterError, kind};
use crate::proto::command::Receipt;
use crate::proto::control::Frame;

/// The most names of nodes in one receipt.
const MAX_NAMES: usize = 200;

/// A server's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterAnswer {
    /// The answer to a command.
    Receipt {
        /// The client's number of the request.
        request: u32,
        /// In the order of [`Receipt::counts`]; a newer server may send more.
        counts: Vec<u32>,
        /// The names of nodes that did not answer in time.
        unreachable: Vec<String>,
        /// There was no engine to ask other nodes through.
        engine_down: bool,
    },
    /// The answer to a query.
    Result {
        /// The client's number of the request.
        request: u32,
        /// JSON, or an attribute's value.
        body: Bytes,
    },
    /// The answer to a query for something that does not exist.
    Absent {
        /// The client's number of the request.
        request: u32,
    },
    Error {
        /// The client's number of the request; `None` if the error concerns the connection.
        request: Option<u32>,
        /// A word of the error table.
        word: String,
        /// The description of the error.
        text: String,
    },
}

impl RouterAnswer {
    /// The answer to a command.
    pub fn receipt(request: u32, receipt: &Receipt, unreachable: Vec<String>, engine_down: bool) -> Self {
        RouterAnswer::Receipt { request, counts: receipt.counts().to_vec(), unreachable, engine_down }
    }

    /// The answer to a frame with an error.
    pub fn error(wrong: &RouterError) -> Self {
        RouterAnswer::Error { request: wrong.request, word: wrong.word.label().to_owned(), text: wrong.text.clone() }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut fields = FieldWriter::default();
        match self {
            RouterAnswer::Receipt { request, counts, unreachable, engine_down } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                let counts: Vec<u8> = counts.iter().flat_map(|count| count.to_be_bytes()).collect();
                fields.put(tag::COUNTS, &counts);
                if !unreachable.is_empty() {
                    // The fields of a frame have at most 65 535 bytes, and some hundred names are enough for a reader.
                    let names = &unreachable[..unreachable.len().min(MAX_NAMES)];
                    fields.put(tag::UNREACHABLE, names.join("\n").as_bytes());
                }
                if *engine_down {
                    fields.put(tag::ENGINE_DOWN, &[]);
                }
                Frame::encode(kind::RECEIPT, &fields.0, &[], out);
            }
            RouterAnswer::Result { request, body } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                Frame::encode(kind::RESULT, &fields.0, body, out);
            }
            RouterAnswer::Absent { request } => {
                fields.put(tag::REQUEST, &request.to_be_bytes());
                Frame::encode(kind::ABSENT, &fields.0, &[], out);
            }
            RouterAnswer::Error { request, word, text } => {
                if let Some(request) = request {
                    fields.put(tag::REQUEST, &request.to_be_bytes());
                }
                fields.put(tag::ERROR, word.as_bytes());
                Frame::encode(kind::ERROR, &fields.0, text.as_bytes(), out);
            }
        }
    }

    /// Reads an answer, as a client does: unknown fields are skipped.
    pub fn decode(frame: &Frame) -> Result<Self, RouterError> {
        let (mut request, mut counts, mut word) = (None, None, None);
        let (mut unreachable, mut engine_down) = (Vec::new(), false);
        let mut fields = Fields::of(frame);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                tag::REQUEST => request = Some(number(&value)?),
                tag::COUNTS => {
                    counts =
                        Some(value.chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect());
                }
                tag::UNREACHABLE => {
                    unreachable = String::from_utf8_lossy(&value).split('\n').map(str::to_owned).collect();
                }
                tag::ENGINE_DOWN => engine_down = true,
                tag::ERROR => word = Some(String::from_utf8_lossy(&value).into_owned()),
                _ => {}
            }
        }
        let numbered = request.ok_or_else(|| RouterError::field("request is missing"));
        match frame.kind {
            kind::RECEIPT => {
                let counts = counts.ok_or_else(|| RouterError::field("counts are missing"))?;
                Ok(RouterAnswer::Receipt { request: numbered?, counts, unreachable, engine_down })
            }
            kind::RESULT => Ok(RouterAnswer::Result { request: numbered?, body: frame.body.clone() }),
            kind::ABSENT => Ok(RouterAnswer::Absent { request: numbered? }),
            kind::ERROR => {
                let text = String::from_utf8_lossy(&frame.body).into_owned();
                Ok(RouterAnswer::Error { request, word: word.unwrap_or_default(), text })
            }
            other => Err(RouterError::new(ErrorWord::UnknownType, format!("type 0x{other:04X} is not an answer"))),
        }
    }
}
