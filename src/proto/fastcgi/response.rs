//! The answer of a responder, decoded as it arrives.
//!
//! The decoder keeps at most the 16 bytes of an END_REQUEST record. It consumes each read completely, so connections can share a read
//! buffer. The content of STDOUT and STDERR is passed on without a copy, in pieces as they arrive: the caller need not wait for a whole
//! record of 64 KB.

use std::fmt;

use super::record::{HEADER_LEN, Header, RecordKind};

const END_BODY_LEN: usize = 8;

/// A part of the responder's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of the answer; never empty.
    Stdout(&'a [u8]),
    /// A piece of the error output of the script and the responder; never empty.
    Stderr(&'a [u8]),
    /// The request is over. Until the next one, only the late events and [`Event::Heard`] may follow.
    End(EndRequest),
    /// A piece of output after the end of its request; never empty, and part of no answer. php-fpm ends a request early for
    /// `fastcgi_finish_request()`, and sends later output of the script under the old id.
    LateStdout(&'a [u8]),
    /// The same for stderr.
    LateStderr(&'a [u8]),
    /// The answer to FCGI_GET_VALUES has arrived; see [`ResponseDecoder::expect_values`].
    Heard,
}

/// The body of END_REQUEST (section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// The exit status of the script; php-fpm always says 0.
    pub app_status: u32,
    /// The result of the request.
    pub status: ProtocolStatus,
}

/// `protocolStatus` of END_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolStatus {
    /// FCGI_REQUEST_COMPLETE: it ran.
    Complete,
    /// FCGI_CANT_MPX_CONN: another request runs on this connection.
    CannotMultiplex,
    /// FCGI_OVERLOADED: refused, not run.
    Overloaded,
    /// FCGI_UNKNOWN_ROLE: refused, not run.
    UnknownRole,
    /// A number that the specification does not define.
    Unknown(u8),
}

/// The responder broke the protocol. The connection can no longer be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A record has a version other than 1.
    Version(u8),
    /// A record belongs to another request.
    RequestId {
        /// The running request.
        expected: u16,
        /// The one in the record.
        got: u16,
    },
    /// A record of a type that a responder does not send.
    RecordType(u8),
    /// The body of an END_REQUEST record is not 8 bytes long.
    EndLength(u16),
    /// A record after END_REQUEST that is neither late output of its request nor an expected answer.
    AfterEnd,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ResponseError::Version(version) => write!(f, "record of FastCGI version {version} instead of 1"),
            ResponseError::RequestId { expected, got } => write!(f, "record for request {got} instead of {expected}"),
            ResponseError::RecordType(kind) => write!(f, "unexpected record of type {kind} from a responder"),
            ResponseError::EndLength(length) => write!(f, "END_REQUEST of {length} bytes instead of {END_BODY_LEN}"),
            ResponseError::AfterEnd => f.write_str("unexpected record after END_REQUEST"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Decodes one answer.
///
/// Call [`start`](Self::start) with the id of the request. For each read, call [`decode`](Self::decode) until it returns `None` or an
/// error. After [`Event::End`] continue with all bytes that arrive before the next `start`. After an error the decoder is of no further
/// use: make a new one for another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseDecoder {
    id: u16,
    /// [`Event::End`] was returned.
    is_ended: bool,
    /// The previous request, if it has ended. Its late records may still arrive.
    last: Option<u16>,
    /// FCGI_GET_VALUES was sent and not answered yet.
    asked: bool,
    state: RecordPart,
}

/// The meaning of a record's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Stdout,
    Stderr,
    LateStdout,
    LateStderr,
    Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordPart {
    /// `have` bytes of a header have arrived.
    Header {
        bytes: [u8; HEADER_LEN],
        have: usize,
    },
    /// In the content of a stream record, or of the answer to a question.
    Content {
        of: Content,
        left: u16,
        padding: u8,
    },
    /// `have` bytes of the body of END_REQUEST have arrived.
    EndBody {
        bytes: [u8; END_BODY_LEN],
        have: usize,
        padding: u8,
    },
    /// In the padding after END_REQUEST, whose body was `end`.
    EndPadding {
        end: EndRequest,
        padding: u8,
    },
    Padding(u8),
}

const BEFORE_HEADER: RecordPart = RecordPart::Header { bytes: [0; HEADER_LEN], have: 0 };

impl ResponseDecoder {
    /// A decoder for the answer to request `id`, the first on its connection.
    pub const fn new(id: u16) -> Self {
        Self { id, is_ended: false, last: None, asked: false, state: BEFORE_HEADER }
    }

    /// Expects the answer to request `id`, the next on the same connection. A previous request that has not ended must have been given up
    /// before any byte of it was sent.
    pub fn start(&mut self, id: u16) {
        let last = if self.is_ended { Some(self.id) } else { self.last };
        *self = Self { last, ..Self::new(id) };
    }

    /// Call this when FCGI_GET_VALUES was sent after the end: then its answer is accepted.
    pub fn expect_values(&mut self) {
        self.asked = true;
    }

    /// Whether [`Event::End`] was returned.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether no record is incomplete.
    pub fn is_between_records(&self) -> bool {
        self.state == BEFORE_HEADER
    }

    /// The next event in `input`; its bytes are removed from the front. `None`: all of `input` was taken and more is needed.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ResponseError> {
        loop {
            // These states end without further input when no content or padding is left.
            match self.state {
                RecordPart::EndPadding { end, padding: 0 } => {
                    (self.state, self.is_ended) = (BEFORE_HEADER, true);
                    return Ok(Some(Event::End(end)));
                }
                RecordPart::Content { of: Content::Values, left: 0, padding } => {
                    (self.state, self.asked) = (after_content(padding), false);
                    return Ok(Some(Event::Heard));
                }
                _ => {}
            }
            if input.is_empty() {
                return Ok(None);
            }
            match &mut self.state {
                RecordPart::Header { bytes, have } => {
                    *have += fill(&mut bytes[*have..], input);
                    if *have == HEADER_LEN {
                        let bytes = *bytes;
                        self.state = self.after_header(bytes)?;
                    }
                }
                RecordPart::Content { of, left, padding } => {
                    let (of, padding) = (*of, *padding);
                    let piece = take(input, usize::from(*left));
                    *left -= piece.len() as u16;
                    if *left == 0 && of != Content::Values {
                        self.state = after_content(padding);
                    }
                    return Ok(Some(match of {
                        Content::Stdout => Event::Stdout(piece),
                        Content::Stderr => Event::Stderr(piece),
                        Content::LateStdout => Event::LateStdout(piece),
                        Content::LateStderr => Event::LateStderr(piece),
                        Content::Values => continue,
                    }));
                }
                RecordPart::EndBody { bytes, have, padding } => {
                    *have += fill(&mut bytes[*have..], input);
                    if *have == END_BODY_LEN {
                        self.state = RecordPart::EndPadding { end: EndRequest::decode(*bytes), padding: *padding };
                    }
                }
                RecordPart::EndPadding { padding, .. } => {
                    *padding -= take(input, usize::from(*padding)).len() as u8;
                }
                RecordPart::Padding(padding) => {
                    let left = *padding - take(input, usize::from(*padding)).len() as u8;
                    self.state = after_content(left);
                }
            }
        }
    }

    fn after_header(&self, bytes: [u8; HEADER_LEN]) -> Result<RecordPart, ResponseError> {
        let Header { kind, id, content, padding } =
            Header::decode(bytes).map_err(|version| ResponseError::Version(version.0))?;
        let is_late = if id == self.id { self.is_ended } else { self.last == Some(id) };
        let of = match (RecordKind::from_number(kind), is_late) {
            (Some(RecordKind::Stdout), true) => Content::LateStdout,
            (Some(RecordKind::Stderr), true) => Content::LateStderr,
            (Some(RecordKind::GetValuesResult), _) if self.asked && id == 0 => {
                return Ok(RecordPart::Content { of: Content::Values, left: content, padding });
            }
            _ if self.is_ended => return Err(ResponseError::AfterEnd),
            (Some(RecordKind::Stdout), _) => Content::Stdout,
            (Some(RecordKind::Stderr), _) => Content::Stderr,
            (Some(RecordKind::End), _) if id == self.id && usize::from(content) != END_BODY_LEN => {
                return Err(ResponseError::EndLength(content));
            }
            (Some(RecordKind::End), _) if id == self.id => {
                return Ok(RecordPart::EndBody { bytes: [0; END_BODY_LEN], have: 0, padding });
            }
            (Some(RecordKind::End), _) => return Err(ResponseError::RequestId { expected: self.id, got: id }),
            _ => return Err(ResponseError::RecordType(kind)),
        };
        if id != self.id && !is_late {
            return Err(ResponseError::RequestId { expected: self.id, got: id });
        }
        // An empty record ends its stream (section 3.3). END_REQUEST says the same, so the record is ignored.
        Ok(if content == 0 { after_content(padding) } else { RecordPart::Content { of, left: content, padding } })
    }
}

impl EndRequest {
    /// Reads the body of END_REQUEST. Its reserved bytes are ignored, because they are stale memory of php-fpm.
    const fn decode(bytes: [u8; END_BODY_LEN]) -> Self {
        let [a3, a2, a1, a0, status, ..] = bytes;
        let status = match status {
            0 => ProtocolStatus::Complete,
            1 => ProtocolStatus::CannotMultiplex,
            2 => ProtocolStatus::Overloaded,
            3 => ProtocolStatus::UnknownRole,
            other => ProtocolStatus::Unknown(other),
        };
        Self { app_status: u32::from_be_bytes([a3, a2, a1, a0]), status }
    }
}

impl ProtocolStatus {
    /// The number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            ProtocolStatus::Complete => 0,
            ProtocolStatus::CannotMultiplex => 1,
            ProtocolStatus::Overloaded => 2,
            ProtocolStatus::UnknownRole => 3,
            ProtocolStatus::Unknown(number) => number,
        }
    }
}

const fn after_content(padding: u8) -> RecordPart {
    if padding == 0 { BEFORE_HEADER } else { RecordPart::Padding(padding) }
}

fn take<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    taken
}

fn fill(into: &mut [u8], input: &mut &[u8]) -> usize {
    let taken = take(input, into.len());
    into[..taken.len()].copy_from_slice(taken);
    taken.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::responder::{push_end, push_stderr, push_stdout};
    use super::*;

    /// The parts of one answer, joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct JoinedAnswer {
        stdout: Vec<u8>,
        stderr: Vec<u8>,
        end: Option<EndRequest>,
        /// Output of either stream after the end.
        late: Vec<u8>,
    }

    /// Decodes `pieces`, each as one read.
    fn decode<'a>(id: u16, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<JoinedAnswer, ResponseError> {
        let mut decoder = ResponseDecoder::new(id);
        let mut answer = JoinedAnswer::default();
        for mut piece in pieces {
            while let Some(event) = decoder.decode(&mut piece)? {
                match event {
                    Event::Stdout(data) => answer.stdout.extend_from_slice(data),
                    Event::Stderr(data) => answer.stderr.extend_from_slice(data),
                    Event::End(end) => answer.end = Some(end),
                    Event::LateStdout(data) | Event::LateStderr(data) => answer.late.extend_from_slice(data),
                    Event::Heard => panic!("nothing was asked"),
                }
            }
            assert!(piece.is_empty(), "not yet, although bytes are left");
        }
        Ok(answer)
    }

    /// An answer with padding after every record.
    fn encode(id: u16, answer: &JoinedAnswer, padding: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_stderr(&mut bytes, id, &answer.stderr);
        push_stdout(&mut bytes, id, &answer.stdout);
        if let Some(end) = answer.end {
            push_end(&mut bytes, id, end);
            push_stdout(&mut bytes, id, &answer.late);
        }
        let (mut padded, mut rest) = (Vec::new(), &bytes[..]);
        while let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let content = usize::from(u16::from_be_bytes([header[4], header[5]]));
            padded.extend_from_slice(&rest[..6]);
            padded.extend_from_slice(&[padding, 0xee]);
            padded.extend_from_slice(&after[..content]);
            padded.extend(std::iter::repeat_n(0xee, usize::from(padding)));
            rest = &after[content..];
        }
        padded
    }

    fn answer() -> impl Strategy<Value = JoinedAnswer> {
        let status = prop_oneof![
            Just(ProtocolStatus::Complete),
            Just(ProtocolStatus::Overloaded),
            Just(ProtocolStatus::Unknown(9))
        ];
        let end =
            prop::option::of((any::<u32>(), status).prop_map(|(app_status, status)| EndRequest { app_status, status }));
        (any::<Vec<u8>>(), any::<Vec<u8>>(), end, any::<Vec<u8>>()).prop_map(|(stdout, stderr, end, late)| {
            let late = if end.is_some() { late } else { Vec::new() };
            JoinedAnswer { stdout, stderr, end, late }
        })
    }

    proptest! {
        #[test]
        fn an_answer_survives_the_wire(answer in answer(), id: u16, padding: u8) {
            let bytes = encode(id, &answer, padding);
            prop_assert_eq!(decode(id, [&bytes[..]]), Ok(answer));
        }

        #[test]
        fn any_split_gives_the_same(
            answer in answer(),
            padding in 0u8..9,
            sizes in prop::collection::vec(1usize..40, 1..40),
        ) {
            let bytes = encode(7, &answer, padding);
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(decode(7, pieces), Ok(answer));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, id in 0u16..3) {
            let _ = decode(id, [&bytes[..]]);
            // Nearly valid headers test more of the decoder.
            let mut likely = vec![1, 6 + (id % 2) as u8, 0, id as u8];
            likely.extend_from_slice(&bytes);
            let _ = decode(id, [&likely[..]]);
        }
    }

    #[test]
    fn pieces_are_given_as_they_arrive_and_nothing_is_kept() {
        let mut decoder = ResponseDecoder::new(1);
        let mut first: &[u8] = &[1, 6, 0, 1, 0xff, 0xff, 0, 0, b'a', b'b'];
        assert_eq!(decoder.decode(&mut first), Ok(Some(Event::Stdout(b"ab"))));
        assert_eq!(decoder.decode(&mut first), Ok(None));
        let mut second: &[u8] = b"cd";
        assert_eq!(decoder.decode(&mut second), Ok(Some(Event::Stdout(b"cd"))));
        // The whole state of a decoder in the middle of a record of 65 535 bytes.
        assert!(size_of::<ResponseDecoder>() <= 40);
    }

    #[test]
    fn what_no_responder_may_send_is_refused_by_name() {
        let cases: [(&[u8], ResponseError); 7] = [
            (&[2, 6, 0, 1, 0, 0, 0, 0], ResponseError::Version(2)),
            (&[1, 6, 0, 2, 0, 1, 0, 0], ResponseError::RequestId { expected: 1, got: 2 }),
            (&[1, 10, 0, 0, 0, 0, 0, 0], ResponseError::RecordType(10)),
            (&[1, 5, 0, 1, 0, 0, 0, 0], ResponseError::RecordType(5)),
            (&[1, 3, 0, 1, 0, 7, 0, 0], ResponseError::EndLength(7)),
            (&[1, 3, 0, 1, 0, 0, 0, 0], ResponseError::EndLength(0)),
            (&[1, 3, 0, 2, 0, 8, 0, 0], ResponseError::RequestId { expected: 1, got: 2 }),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(1, [bytes]), Err(error));
        }
        let mut end = Vec::new();
        push_end(&mut end, 1, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
        for after in [&[1, 6, 0, 2, 0, 1, 0, 0], &[1, 3, 0, 1, 0, 8, 0, 0], &[1, 10, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(decode(1, [&end[..], after]), Err(ResponseError::AfterEnd), "{after:?}");
        }
    }

    #[test]
    fn what_a_script_prints_after_its_end_is_never_part_of_the_next_answer() {
        let mut decoder = ResponseDecoder::new(1);
        let mut bytes = Vec::new();
        push_end(&mut bytes, 1, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
        push_stderr(&mut bytes, 1, b"late");
        // The next request cannot begin in the middle of a record.
        bytes.extend_from_slice(&[1, 6]);
        let mut input = &bytes[..];
        assert!(matches!(decoder.decode(&mut input), Ok(Some(Event::End(_)))));
        assert_eq!(decoder.decode(&mut input), Ok(Some(Event::LateStderr(b"late"))));
        assert_eq!(decoder.decode(&mut input), Ok(None));
        assert!(!decoder.is_between_records());
        let mut rest: &[u8] = &[0, 1, 0, 0, 0, 0];
        assert_eq!(decoder.decode(&mut rest), Ok(None));
        assert!(decoder.is_between_records());

        // The request in between (7) is given up before a byte of it is sent.
        decoder.start(7);
        decoder.start(2);
        let mut bytes = Vec::new();
        push_stdout(&mut bytes, 1, b"later");
        push_stdout(&mut bytes, 2, b"answer");
        let mut input = &bytes[..];
        assert_eq!(decoder.decode(&mut input), Ok(Some(Event::LateStdout(b"later"))));
        assert_eq!(decoder.decode(&mut input), Ok(Some(Event::Stdout(b"answer"))));
        // Late output is accepted of the last request only, not of earlier or unknown ones.
        let mut input: &[u8] = &[1, 6, 0, 3, 0, 1, 0, 0];
        assert_eq!(decoder.decode(&mut input), Err(ResponseError::RequestId { expected: 2, got: 3 }));
    }

    #[test]
    fn an_answer_that_was_asked_for_is_heard_once() {
        let mut decoder = ResponseDecoder::new(1);
        let mut bytes = Vec::new();
        push_end(&mut bytes, 1, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
        let mut input = &bytes[..];
        assert!(matches!(decoder.decode(&mut input), Ok(Some(Event::End(_)))));
        for values in [&[1, 10, 0, 0, 0, 2, 1, 0, b'a', b'b', 0][..], &[1, 10, 0, 0, 0, 0, 0, 0]] {
            decoder.expect_values();
            let mut heard = 0;
            for byte in values {
                heard += usize::from(decoder.decode(&mut &[*byte][..]) == Ok(Some(Event::Heard)));
            }
            assert_eq!(heard, 1);
            assert_eq!(decoder.decode(&mut &[][..]), Ok(None));
            assert!(decoder.is_between_records());
        }
        let mut input: &[u8] = &[1, 10, 0, 0, 0, 0, 0, 0];
        assert_eq!(decoder.decode(&mut input), Err(ResponseError::AfterEnd));
    }
}
