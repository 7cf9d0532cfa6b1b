//! The answer of a responder, taken apart as it arrives.
//!
//! The decoder keeps at most the 16 bytes of an END_REQUEST record, so whatever was read is consumed whole and the
//! read buffer can be anybody's. The content of STDOUT and STDERR is given in place, in pieces as they arrive: a
//! record of 64 KB need not be waited for.

use std::fmt;

use super::record::{HEADER_LEN, Header, Kind};

const END_BODY_LEN: usize = 8;

/// What the responder said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A piece of the answer; never empty.
    Stdout(&'a [u8]),
    /// A piece of what the script and the responder complain about; never empty.
    Stderr(&'a [u8]),
    /// The request is over. Nothing may follow on this connection until the next request.
    End(End),
}

/// The body of END_REQUEST (section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The exit status of the script; php-fpm always says 0.
    pub app_status: u32,
    /// What became of the request.
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
    /// A number that the specification does not have.
    Unknown(u8),
}

/// What no responder may send. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A record began with another version than 1.
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
    /// An END_REQUEST record with a body of other than 8 bytes.
    EndLength(u16),
    /// Bytes after END_REQUEST.
    AfterEnd,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ResponseError::Version(version) => write!(f, "record of FastCGI version {version}"),
            ResponseError::RequestId { expected, got } => write!(f, "record for request {got} instead of {expected}"),
            ResponseError::RecordType(kind) => write!(f, "record of type {kind} from a responder"),
            ResponseError::EndLength(length) => write!(f, "END_REQUEST of {length} bytes instead of {END_BODY_LEN}"),
            ResponseError::AfterEnd => f.write_str("bytes after END_REQUEST"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// Takes one answer apart.
///
/// Call [`start`](Self::start) with the id of the request, then [`decode`](Self::decode) for each read until it gives
/// `None`, until it has given [`Event::End`] or an error. After an error only `start` makes it usable again, on
/// another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseDecoder {
    id: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `have` bytes of a header are here.
    Header { bytes: [u8; HEADER_LEN], have: usize },
    /// In the content of a stream record.
    Stream { stdout: bool, content: u16, padding: u8 },
    /// `have` bytes of the body of END_REQUEST are here.
    EndBody { bytes: [u8; END_BODY_LEN], have: usize, padding: u8 },
    /// In the padding after END_REQUEST, whose body said this.
    EndPadding { end: End, padding: u8 },
    /// In padding.
    Padding(u8),
    /// END_REQUEST was given.
    Ended,
}

const BEFORE_HEADER: State = State::Header { bytes: [0; HEADER_LEN], have: 0 };

impl ResponseDecoder {
    /// A decoder for the answer to request `id`.
    pub const fn new(id: u16) -> Self {
        Self { id, state: BEFORE_HEADER }
    }

    /// Forgets the last answer and expects the one to request `id`.
    pub fn start(&mut self, id: u16) {
        *self = Self::new(id);
    }

    /// Whether END_REQUEST was given.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The next event in `input`, which is cut by what it took. `None`: all of `input` was taken and more is needed.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ResponseError> {
        loop {
            // Padding of the last record may have length 0, so this state is left without input.
            if let State::EndPadding { end, padding: 0 } = self.state {
                self.state = State::Ended;
                return Ok(Some(Event::End(end)));
            }
            if input.is_empty() {
                return Ok(None);
            }
            match &mut self.state {
                State::Header { bytes, have } => {
                    *have += fill(&mut bytes[*have..], input);
                    if *have == HEADER_LEN {
                        let bytes = *bytes;
                        self.state = self.after_header(bytes)?;
                    }
                }
                State::Stream { stdout, content, padding } => {
                    let piece = take(input, usize::from(*content));
                    let stdout = *stdout;
                    *content -= piece.len() as u16;
                    if *content == 0 {
                        self.state = after_content(*padding);
                    }
                    return Ok(Some(if stdout { Event::Stdout(piece) } else { Event::Stderr(piece) }));
                }
                State::EndBody { bytes, have, padding } => {
                    *have += fill(&mut bytes[*have..], input);
                    if *have == END_BODY_LEN {
                        self.state = State::EndPadding { end: End::decode(*bytes), padding: *padding };
                    }
                }
                State::EndPadding { padding, .. } => {
                    *padding -= take(input, usize::from(*padding)).len() as u8;
                }
                State::Padding(padding) => {
                    let left = *padding - take(input, usize::from(*padding)).len() as u8;
                    self.state = after_content(left);
                }
                State::Ended => return Err(ResponseError::AfterEnd),
            }
        }
    }

    fn after_header(&self, bytes: [u8; HEADER_LEN]) -> Result<State, ResponseError> {
        let Header { kind, id, content, padding } =
            Header::decode(bytes).map_err(|version| ResponseError::Version(version.0))?;
        let known = match Kind::from_number(kind) {
            Some(known @ (Kind::Stdout | Kind::Stderr | Kind::End)) => known,
            _ => return Err(ResponseError::RecordType(kind)),
        };
        if id != self.id {
            return Err(ResponseError::RequestId { expected: self.id, got: id });
        }
        Ok(match known {
            Kind::End if usize::from(content) != END_BODY_LEN => return Err(ResponseError::EndLength(content)),
            Kind::End => State::EndBody { bytes: [0; END_BODY_LEN], have: 0, padding },
            // An empty record ends its stream (section 3.3); END_REQUEST says the same, so nothing is made of it.
            _ if content == 0 => after_content(padding),
            _ => State::Stream { stdout: known == Kind::Stdout, content, padding },
        })
    }
}

impl End {
    /// Reads the body of END_REQUEST; its reserved bytes carry stale memory of php-fpm and are ignored.
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

const fn after_content(padding: u8) -> State {
    if padding == 0 { BEFORE_HEADER } else { State::Padding(padding) }
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

    /// What one answer said, joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Answer {
        stdout: Vec<u8>,
        stderr: Vec<u8>,
        end: Option<End>,
    }

    /// Decodes `pieces` as so many reads.
    fn decode<'a>(id: u16, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Answer, ResponseError> {
        let mut decoder = ResponseDecoder::new(id);
        let mut answer = Answer::default();
        for mut piece in pieces {
            while let Some(event) = decoder.decode(&mut piece)? {
                match event {
                    Event::Stdout(data) => answer.stdout.extend_from_slice(data),
                    Event::Stderr(data) => answer.stderr.extend_from_slice(data),
                    Event::End(end) => answer.end = Some(end),
                }
            }
            assert!(piece.is_empty(), "not yet, although bytes are left");
        }
        Ok(answer)
    }

    /// An answer with padding after every record.
    fn encode(id: u16, answer: &Answer, padding: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_stderr(&mut bytes, id, &answer.stderr);
        push_stdout(&mut bytes, id, &answer.stdout);
        if let Some(end) = answer.end {
            push_end(&mut bytes, id, end);
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

    fn answer() -> impl Strategy<Value = Answer> {
        let status = prop_oneof![
            Just(ProtocolStatus::Complete),
            Just(ProtocolStatus::Overloaded),
            Just(ProtocolStatus::Unknown(9))
        ];
        let end = prop::option::of((any::<u32>(), status).prop_map(|(app_status, status)| End { app_status, status }));
        (any::<Vec<u8>>(), any::<Vec<u8>>(), end).prop_map(|(stdout, stderr, end)| Answer { stdout, stderr, end })
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
            // Headers that are nearly right lead further in.
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
            (&[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], ResponseError::AfterEnd),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(1, [bytes]), Err(error));
        }
    }
}
