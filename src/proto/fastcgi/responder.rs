//! The responder's side: decodes requests and encodes answers.
//!
//! It serves null responders in tests and benchmarks, and tests the codec as its counterpart. It accepts only whole requests, and checks
//! limits before it buffers anything.

use super::params::Pairs;
use super::record::{HEADER_LEN, Header, KEEP_CONN, MAX_CONTENT, RecordKind};
use super::response::EndRequest;
use std::fmt;

/// A request that arrived whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// Its id, which the answer must repeat.
    pub id: u16,
    /// Whether the connection stays open after the answer.
    pub keep_conn: bool,
    /// Encoded pairs; see [`Incoming::param`].
    pub params: Vec<u8>,
    /// Stdin.
    pub body: Vec<u8>,
}

impl Incoming {
    /// The value of a param; the last one if the name appears several times.
    pub fn param(&self, name: &[u8]) -> Option<&[u8]> {
        Pairs::new(&self.params).filter(|(n, _)| *n == name).map(|(_, value)| value).last()
    }
}

/// Why bytes are not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// A record has a version other than 1.
    Version(u8),
    /// A record of a type that is not expected at this point.
    UnexpectedRecord(u8),
    /// A record of a request other than the one that began.
    RequestId(u16),
    /// A pair spans two records or is incomplete.
    SplitPair,
    /// The content of BEGIN_REQUEST is not 8 bytes long.
    BeginLength(u16),
    /// Content and padding of a PARAMS record exceed the limit of php-fpm.
    RecordTooLong,
    /// More params or more stdin than the limit.
    TooLarge,
    /// FCGI_ABORT_REQUEST.
    Aborted,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RequestError::Version(version) => write!(f, "record of FastCGI version {version} instead of 1"),
            RequestError::UnexpectedRecord(kind) => write!(f, "unexpected record of type {kind}"),
            RequestError::RequestId(id) => write!(f, "record of request {id} inside another request"),
            RequestError::SplitPair => f.write_str("a param spans two records or is incomplete"),
            RequestError::BeginLength(length) => write!(f, "BEGIN_REQUEST of {length} bytes instead of 8"),
            RequestError::RecordTooLong => write!(f, "content and padding above {MAX_CONTENT} bytes"),
            RequestError::TooLarge => f.write_str("request above the limit"),
            RequestError::Aborted => f.write_str("request was aborted"),
        }
    }
}

impl std::error::Error for RequestError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestStage {
    Begin,
    Params,
    Stdin,
}

/// Decodes requests as strictly as php-fpm does: each pair must be whole within a record, and no record above 65 535 bytes.
#[derive(Clone, Debug)]
pub struct RequestDecoder {
    max_bytes: usize,
    stage: RequestStage,
    header: [u8; HEADER_LEN],
    header_have: usize,
    /// The record whose content is being read.
    record: Option<Header>,
    content: Vec<u8>,
    padding: usize,
    request: Incoming,
}

impl RequestDecoder {
    /// `max_bytes` limits the params of one request, and separately its stdin.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            stage: RequestStage::Begin,
            header: [0; HEADER_LEN],
            header_have: 0,
            record: None,
            content: Vec::new(),
            padding: 0,
            request: Incoming::default(),
        }
    }

    /// The next whole request in `input`; its bytes are removed from the front. `None`: all bytes were taken and more are needed.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, RequestError> {
        loop {
            if self.padding > 0 {
                self.padding -= take(input, self.padding).len();
                if self.padding > 0 {
                    return Ok(None);
                }
            }
            let Some(record) = self.record else {
                let piece = take(input, HEADER_LEN - self.header_have);
                self.header[self.header_have..self.header_have + piece.len()].copy_from_slice(piece);
                self.header_have += piece.len();
                if self.header_have < HEADER_LEN {
                    return Ok(None);
                }
                self.header_have = 0;
                self.record = Some(self.check(self.header)?);
                continue;
            };
            let missing = usize::from(record.content) - self.content.len();
            self.content.extend_from_slice(take(input, missing));
            if self.content.len() < usize::from(record.content) {
                return Ok(None);
            }
            self.record = None;
            self.padding = usize::from(record.padding);
            let done = self.whole_record(record)?;
            self.content.clear();
            if done {
                self.stage = RequestStage::Begin;
                return Ok(Some(std::mem::take(&mut self.request)));
            }
        }
    }

    /// Makes all checks that are possible before the content is buffered.
    fn check(&self, header: [u8; HEADER_LEN]) -> Result<Header, RequestError> {
        let record = Header::decode(header).map_err(|version| RequestError::Version(version.0))?;
        // php-fpm checks this for params only; fastcgi-client pads stdin records of 65 535 bytes by one byte.
        if self.stage == RequestStage::Params && usize::from(record.content) + usize::from(record.padding) > MAX_CONTENT
        {
            return Err(RequestError::RecordTooLong);
        }
        let (expected, held) = match self.stage {
            RequestStage::Begin => (RecordKind::Begin, 0),
            RequestStage::Params => (RecordKind::Params, self.request.params.len()),
            RequestStage::Stdin => (RecordKind::Stdin, self.request.body.len()),
        };
        match RecordKind::from_number(record.kind) {
            Some(kind) if kind == expected => {}
            // fastcgi-client ends an empty stdin twice. php-fpm skips the second end, and so does this decoder.
            Some(RecordKind::Stdin) if self.stage == RequestStage::Begin && record.content == 0 => return Ok(record),
            Some(RecordKind::Abort) => return Err(RequestError::Aborted),
            _ => return Err(RequestError::UnexpectedRecord(record.kind)),
        }
        if expected == RecordKind::Begin {
            return if record.content == 8 { Ok(record) } else { Err(RequestError::BeginLength(record.content)) };
        }
        if record.id != self.request.id {
            return Err(RequestError::RequestId(record.id));
        }
        if held + usize::from(record.content) > self.max_bytes {
            return Err(RequestError::TooLarge);
        }
        Ok(record)
    }

    fn whole_record(&mut self, record: Header) -> Result<bool, RequestError> {
        match self.stage {
            RequestStage::Begin if record.content == 0 => {}
            RequestStage::Begin => {
                self.request.id = record.id;
                self.request.keep_conn = self.content[2] & KEEP_CONN != 0;
                self.stage = RequestStage::Params;
            }
            RequestStage::Params if record.content == 0 => self.stage = RequestStage::Stdin,
            RequestStage::Params => {
                let mut pairs = Pairs::new(&self.content);
                pairs.by_ref().for_each(drop);
                if !pairs.rest().is_empty() {
                    return Err(RequestError::SplitPair);
                }
                self.request.params.extend_from_slice(&self.content);
            }
            RequestStage::Stdin if record.content == 0 => return Ok(true),
            RequestStage::Stdin => self.request.body.extend_from_slice(&self.content),
        }
        Ok(false)
    }
}

/// Adds STDOUT records with `data` to `into`; nothing for empty data.
pub fn push_stdout(into: &mut Vec<u8>, id: u16, data: &[u8]) {
    push_stream(into, RecordKind::Stdout, id, data);
}

/// Adds STDERR records with `data` to `into`; nothing for empty data.
pub fn push_stderr(into: &mut Vec<u8>, id: u16, data: &[u8]) {
    push_stream(into, RecordKind::Stderr, id, data);
}

/// Adds END_REQUEST to `into`.
pub fn push_end(into: &mut Vec<u8>, id: u16, end: EndRequest) {
    into.extend_from_slice(&Header::encode(RecordKind::End, id, 8));
    into.extend_from_slice(&end.app_status.to_be_bytes());
    into.extend_from_slice(&[end.status.number(), 0, 0, 0]);
}

fn push_stream(into: &mut Vec<u8>, kind: RecordKind, id: u16, data: &[u8]) {
    for piece in data.chunks(MAX_CONTENT) {
        into.extend_from_slice(&Header::encode(kind, id, piece.len() as u16));
        into.extend_from_slice(piece);
    }
}

fn take<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use fastcgi_client::{Client, Params, Request};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::response::ProtocolStatus;
    use super::*;

    /// Answers every request on `stream`: its body on stdout, and the param `NAME` in capitals on stderr.
    async fn mirror(mut stream: tokio::io::DuplexStream) {
        let mut decoder = RequestDecoder::new(1 << 24);
        let mut buffer = vec![0; 8192];
        loop {
            let read = stream.read(&mut buffer).await.expect("a pipe");
            if read == 0 {
                return;
            }
            let mut input = &buffer[..read];
            while let Some(request) = decoder.decode(&mut input).expect("fastcgi-client is a good peer") {
                let mut answer = Vec::new();
                let name = request.param(b"NAME").expect("it was sent").to_ascii_uppercase();
                push_stderr(&mut answer, request.id, &name);
                push_stdout(&mut answer, request.id, &request.body);
                push_end(&mut answer, request.id, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
                stream.write_all(&answer).await.expect("a pipe");
            }
        }
    }

    #[tokio::test]
    async fn fastcgi_client_understands_us_and_we_understand_it() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let mirror = tokio::spawn(mirror(ours));
        let mut client = Client::new_keep_alive_tokio(theirs);
        for size in [0, 1, 7, 8, 100, 65_535, 65_536, 300_000] {
            let body: Vec<u8> = (0..size).map(|i: usize| (i * 31) as u8).collect();
            let params = Params::default().custom("NAME", "some name").custom("LONG", "v".repeat(300));
            let answer = client.execute(Request::new(params, futures_util::io::Cursor::new(&body[..]))).await;
            let answer = answer.expect("our answer is FastCGI");
            assert!(answer.stdout.unwrap_or_default() == body, "{size} bytes");
            assert_eq!(answer.stderr.as_deref(), Some(&b"SOME NAME"[..]));
        }
        drop(client);
        mirror.await.expect("it ends with its stream");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_never_exceed_the_limit(bytes: Vec<u8>, tail: Vec<u8>) {
            let mut decoder = RequestDecoder::new(64);
            let begin = [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
            for start in [&[][..], &begin] {
                let whole = [start, &bytes, &tail].concat();
                let mut input = &whole[..];
                let _ = decoder.decode(&mut input);
                prop_assert!(decoder.request.params.len() <= 64 && decoder.request.body.len() <= 64);
                decoder = RequestDecoder::new(64);
            }
        }
    }

    #[test]
    fn what_php_fpm_refuses_is_refused() {
        let begin: &[u8] = &[1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
        let cases: [(&[u8], RequestError); 7] = [
            (&[1, 4, 0, 1, 0, 3, 0, 0, 4, 1, b'N'], RequestError::SplitPair),
            (&[1, 4, 0, 2, 0, 0, 0, 0], RequestError::RequestId(2)),
            (&[1, 4, 0, 1, 0xff, 0xff, 1, 0], RequestError::RecordTooLong),
            (&[1, 4, 0, 1, 0xff, 0xff, 0, 0], RequestError::TooLarge),
            (&[1, 5, 0, 1, 0, 0, 0, 0], RequestError::UnexpectedRecord(5)),
            (&[1, 2, 0, 1, 0, 0, 0, 0], RequestError::Aborted),
            (&[3, 4, 0, 1, 0, 0, 0, 0], RequestError::Version(3)),
        ];
        for (bytes, error) in cases {
            let wire = [begin, bytes].concat();
            assert_eq!(RequestDecoder::new(1000).decode(&mut &wire[..]), Err(error));
        }
    }
}
