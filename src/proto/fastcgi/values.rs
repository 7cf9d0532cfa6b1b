//! Asks a responder for its limits: FCGI_GET_VALUES and the answer to it (specification section 4.1).
//!
//! ```text
//! Longwire:   GET_VALUES, id 0, the three names with empty values
//! responder:  GET_VALUES_RESULT, id 0, the names that it knows, with values
//!             or UNKNOWN_TYPE, id 0 (section 4.2), if it does not support the question
//! ```

use std::fmt;

use super::params::{Pairs, Params};
use super::record::{HEADER_LEN, Header, RecordKind};

const MAX_CONNS: &[u8] = b"FCGI_MAX_CONNS";
const MAX_REQS: &[u8] = b"FCGI_MAX_REQS";
const MPXS_CONNS: &[u8] = b"FCGI_MPXS_CONNS";

/// The longest answer accepted. Three names with their numbers need only 60 bytes.
const MAX_ANSWER: usize = 1024;

/// The values of a responder; `None` if it did not send one, or sent one that is not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// Connections that it accepts at once.
    pub max_connections: Option<u32>,
    /// Requests that it accepts at once, over all connections.
    pub max_requests: Option<u32>,
    /// Whether it accepts several requests at once on one connection.
    pub multiplexes: Option<bool>,
}

/// Why bytes are not an answer to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValuesError {
    /// A record has a version other than 1.
    Version(u8),
    /// A record other than the two that are allowed.
    UnexpectedRecord {
        /// Its type.
        kind: u8,
        /// The request that it belongs to.
        id: u16,
    },
    /// The answer has this many bytes, more than the 1024 that are accepted.
    TooLong(u16),
    /// A pair is incomplete.
    BrokenPair,
}

impl fmt::Display for ValuesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ValuesError::Version(version) => write!(f, "record of FastCGI version {version} instead of 1"),
            ValuesError::UnexpectedRecord { kind, id } => write!(f, "unexpected record of type {kind}, request {id}"),
            ValuesError::TooLong(bytes) => write!(f, "GET_VALUES_RESULT of {bytes} bytes, above {MAX_ANSWER}"),
            ValuesError::BrokenPair => f.write_str("GET_VALUES_RESULT with an incomplete pair"),
        }
    }
}

impl std::error::Error for ValuesError {}

/// The whole question.
pub fn question() -> Vec<u8> {
    let mut names = Params::new();
    for name in [MAX_CONNS, MAX_REQS, MPXS_CONNS] {
        names.push(name, b"").expect("names of 15 bytes fit a record");
    }
    let names = names.finish();
    let mut bytes = Header::encode(RecordKind::GetValues, 0, names.len() as u16).to_vec();
    bytes.extend_from_slice(&names);
    bytes
}

/// An empty record of the same type. The specification does not need it, but libfcgi 2.4 treats the question as a stream and waits for
/// its end.
pub const fn question_end() -> [u8; HEADER_LEN] {
    Header::encode(RecordKind::GetValues, 0, 0)
}

/// A whole answer, for responders in tests.
pub fn answer(values: &Values) -> Vec<u8> {
    let mut pairs = Params::new();
    let numbers = [
        (MAX_CONNS, values.max_connections),
        (MAX_REQS, values.max_requests),
        (MPXS_CONNS, values.multiplexes.map(u32::from)),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            pairs.push(name, number.to_string().as_bytes()).expect("a name and a number fit a record");
        }
    }
    let pairs = pairs.finish();
    let mut bytes = Header::encode(RecordKind::GetValuesResult, 0, pairs.len() as u16).to_vec();
    bytes.extend_from_slice(&pairs);
    bytes
}

/// Decodes the answer to one question. Call [`decode`](Self::decode) with each read until it returns values or an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValuesDecoder {
    /// The header and the content so far; at most a header and [`MAX_ANSWER`] bytes.
    bytes: Vec<u8>,
}

impl ValuesDecoder {
    /// The values, or `None` if more bytes are needed. If the responder does not support the question, all values are `None`. Bytes after
    /// the answer are ignored.
    pub fn decode(&mut self, mut input: &[u8]) -> Result<Option<Values>, ValuesError> {
        self.keep(&mut input, HEADER_LEN);
        let Some(header) = self.bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let Header { kind, id, content, .. } =
            Header::decode(*header).map_err(|version| ValuesError::Version(version.0))?;
        match RecordKind::from_number(kind) {
            Some(RecordKind::UnknownType) if id == 0 => return Ok(Some(Values::default())),
            Some(RecordKind::GetValuesResult) if id == 0 => {}
            _ => return Err(ValuesError::UnexpectedRecord { kind, id }),
        }
        if usize::from(content) > MAX_ANSWER {
            return Err(ValuesError::TooLong(content));
        }
        let whole = HEADER_LEN + usize::from(content);
        self.keep(&mut input, whole);
        if self.bytes.len() < whole {
            return Ok(None);
        }
        read_pairs(&self.bytes[HEADER_LEN..]).map(Some)
    }

    fn keep(&mut self, input: &mut &[u8], until: usize) {
        let taken = input.len().min(until.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&input[..taken]);
        *input = &input[taken..];
    }
}

fn read_pairs(content: &[u8]) -> Result<Values, ValuesError> {
    let mut values = Values::default();
    let mut pairs = Pairs::new(content);
    for (name, value) in pairs.by_ref() {
        let number: Option<u32> = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match name {
            MAX_CONNS => values.max_connections = number,
            MAX_REQS => values.max_requests = number,
            MPXS_CONNS => values.multiplexes = number.map(|number| number != 0),
            // A responder may send values that were not asked for.
            _ => {}
        }
    }
    if pairs.rest().is_empty() { Ok(values) } else { Err(ValuesError::BrokenPair) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Values> {
        (any::<Option<u32>>(), any::<Option<u32>>(), any::<Option<bool>>()).prop_map(
            |(max_connections, max_requests, multiplexes)| Values { max_connections, max_requests, multiplexes },
        )
    }

    type Decoded = Result<Option<Values>, ValuesError>;

    /// Decodes `pieces`, each as one read.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
        let mut decoder = ValuesDecoder::default();
        for piece in pieces {
            let found = decoder.decode(piece)?;
            assert!(decoder.bytes.len() <= HEADER_LEN + MAX_ANSWER);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn an_answer_survives_the_wire_and_any_split(values in values(), size in 1usize..80) {
            let bytes = answer(&values);
            prop_assert_eq!(decode(bytes.chunks(size)), Ok(Some(values)));
            prop_assert_eq!(decode(bytes[..bytes.len() - 1].chunks(size)), Ok(None));
        }

        #[test]
        fn random_bytes_never_panic_and_are_not_kept_past_the_limit(bytes: Vec<u8>, content: u16) {
            let _ = decode([&bytes[..]]);
            let likely = [&Header::encode(RecordKind::GetValuesResult, 0, content)[..], &bytes].concat();
            let _ = decode([&likely[..]]);
        }
    }

    #[test]
    fn the_question_names_the_three_values_of_the_specification() {
        let question = question();
        let (header, names) = question.split_first_chunk::<HEADER_LEN>().expect("it has a header");
        let expected = Header { kind: 9, id: 0, content: names.len() as u16, padding: 0 };
        assert_eq!(Header::decode(*header), Ok(expected));
        let names: Vec<_> = Pairs::new(names).collect();
        assert_eq!(names, [(MAX_CONNS, &b""[..]), (MAX_REQS, b""), (MPXS_CONNS, b"")]);
    }

    #[test]
    fn answers_of_real_responders_and_broken_ones_are_told_apart() {
        let no_values = Values::default();
        let cases: [(&[u8], Decoded); 9] = [
            // php-fpm 8.2, without its padding.
            (
                b"\x01\x0a\0\0\0\x12\x06\0\x0f\x01FCGI_MPXS_CONNS0",
                Ok(Some(Values { multiplexes: Some(false), ..no_values })),
            ),
            // libfcgi 2.4.2, without its padding.
            (
                b"\x01\x0a\0\0\0\x33\x05\0\x0e\x01FCGI_MAX_CONNS1\x0d\x01FCGI_MAX_REQS1\x0f\x01FCGI_MPXS_CONNS0",
                Ok(Some(Values { max_connections: Some(1), max_requests: Some(1), multiplexes: Some(false) })),
            ),
            (b"\x01\x0b\0\0\0\x08\0\0\x09\0\0\0\0\0\0\0", Ok(Some(no_values))),
            (b"\x01\x0a\0\0\0\0\0\0", Ok(Some(no_values))),
            (b"\x01\x0a\0\0\0\x12\0\0\x0e\x02FCGI_MAX_CONNSno", Ok(Some(no_values))),
            (b"\x02\x0a\0\0\0\0\0\0", Err(ValuesError::Version(2))),
            (b"\x01\x06\0\x01\0\0\0\0", Err(ValuesError::UnexpectedRecord { kind: 6, id: 1 })),
            (b"\x01\x0a\0\0\xff\xff\0\0", Err(ValuesError::TooLong(65_535))),
            (b"\x01\x0a\0\0\0\x03\0\0\x04\x01N", Err(ValuesError::BrokenPair)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode([bytes]), expected, "{bytes:?}");
        }
    }
}
