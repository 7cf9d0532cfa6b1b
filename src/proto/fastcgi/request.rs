//! A whole request as a list of slices for vectored writes (specification section 3.3, 5.1 to 5.3).
//!
//! ```text
//! BEGIN | PARAMS header | app, session, profile and event params | empty PARAMS | STDIN header | body ... | empty STDIN
//! ```
//!
//! Small pieces are copied into one head buffer, and large ones are referenced. Copying a few hundred bytes costs less than one more entry
//! in the kernel's list of slices; copying a body costs more. So a typical event is one contiguous slice. A body of 16 MB is 257 headers
//! in the head buffer and 257 slices of the caller's bytes.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;

use super::params::EncodedParams;
use super::record::{HEADER_LEN, Header, KEEP_CONN, MAX_CONTENT, ROLE_RESPONDER, RecordKind};

/// Pieces up to this many bytes are copied. At about this size a memcpy costs as much as another entry in the iovec.
const COPY_BYTES: usize = 1024;
/// Body bytes in one record. It is a multiple of eight, like the records in which php-fpm sends its output.
const BODY_RECORD: usize = MAX_CONTENT & !7;
/// Capacity that the head buffer keeps between requests.
const KEEP_HEAD_BYTES: usize = 16 * 1024;

/// The params of one request, in blocks with different lifetimes. If a name appears several times, php-fpm uses the last one.
pub type ParamBlocks = [EncodedParams; 4];

/// Encodes one request after another.
///
/// Call [`start`](Self::start). Then, until [`is_done`](Self::is_done), write the [`slices`](Self::slices) and
/// [`advance`](Self::advance) by the bytes written. [`clear`](Self::clear) releases params and body early.
#[derive(Debug, Default)]
pub struct RequestEncoder {
    /// Headers and copied pieces.
    head: Vec<u8>,
    /// Only the blocks whose pieces are referenced; the others are empty.
    params: ParamBlocks,
    body: Bytes,
    shares: bool,
    /// The pieces to write, in order; none is empty.
    pieces: Vec<(Source, Range<usize>)>,
    /// The index of the next piece. Its range begins at the first byte that is not yet written.
    next: usize,
    written: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Head,
    Params(u8),
    Body,
}

impl RequestEncoder {
    /// Nothing to write yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Encodes a request that leaves the connection open. Small pieces are copied, large ones are shared with the caller.
    pub fn start(&mut self, id: u16, params: &ParamBlocks, body: &Bytes) {
        self.clear();
        self.copy(&Header::encode(RecordKind::Begin, id, 8));
        self.copy(&[(ROLE_RESPONDER >> 8) as u8, ROLE_RESPONDER as u8, KEEP_CONN, 0, 0, 0, 0, 0]);
        self.push_params(id, params);
        self.copy(&Header::encode(RecordKind::Params, id, 0));
        for from in (0..body.len()).step_by(BODY_RECORD) {
            let to = body.len().min(from + BODY_RECORD);
            self.copy(&Header::encode(RecordKind::Stdin, id, (to - from) as u16));
            self.push(Source::Body, body, from..to);
        }
        if body.len() > COPY_BYTES {
            self.body = body.clone();
            self.shares = true;
        }
        self.copy(&Header::encode(RecordKind::Stdin, id, 0));
    }

    /// Fills `out` with the slices to write next, and returns how many there are; 0 when everything is written.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let pieces = &self.pieces[self.next..];
        for (slice, (source, range)) in out.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&self.bytes(*source)[range.clone()]);
        }
        pieces.len().min(out.len())
    }

    /// Records that this many bytes were written.
    pub fn advance(&mut self, mut bytes: usize) {
        self.written += bytes;
        while bytes > 0 {
            let (_, range) = &mut self.pieces[self.next];
            let taken = bytes.min(range.len());
            range.start += taken;
            bytes -= taken;
            if range.start == range.end {
                self.next += 1;
            }
        }
    }

    /// Whether everything is written.
    pub fn is_done(&self) -> bool {
        self.next == self.pieces.len()
    }

    /// Bytes written since `start`.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Drops the request and releases its params and body. Nothing is left to write.
    pub fn clear(&mut self) {
        self.head.clear();
        self.head.shrink_to(KEEP_HEAD_BYTES);
        self.pieces.clear();
        self.pieces.shrink_to(KEEP_HEAD_BYTES / size_of::<(Source, Range<usize>)>());
        if self.shares {
            self.params = Default::default();
            self.body = Bytes::new();
            self.shares = false;
        }
        (self.next, self.written) = (0, 0);
    }

    /// Adds PARAMS records. If all blocks together fit into one record, they share it. Otherwise each block has its own records, cut
    /// between pairs.
    fn push_params(&mut self, id: u16, params: &ParamBlocks) {
        let total: usize = params.iter().map(|block| block.len()).sum();
        if total == 0 {
            return;
        }
        if total <= MAX_CONTENT {
            self.copy(&Header::encode(RecordKind::Params, id, total as u16));
        }
        for (at, block) in params.iter().enumerate() {
            let mut from = 0;
            while from < block.len() {
                let len = if total <= MAX_CONTENT { block.len() } else { block.record_len(from) };
                assert!(len > 0, "Params::push lets no pair in that does not fit a record");
                if total > MAX_CONTENT {
                    self.copy(&Header::encode(RecordKind::Params, id, len as u16));
                }
                self.push(Source::Params(at as u8), block, from..from + len);
                from += len;
            }
            if block.len() > COPY_BYTES {
                self.params[at] = block.clone();
                self.shares = true;
            }
        }
    }

    /// Adds a piece of `whole`, the bytes that `source` refers to.
    fn push(&mut self, source: Source, whole: &[u8], range: Range<usize>) {
        if range.len() > COPY_BYTES {
            self.pieces.push((source, range));
        } else {
            self.copy(&whole[range]);
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        let start = self.head.len();
        self.head.extend_from_slice(bytes);
        let end = self.head.len();
        // The head grew: extend the last piece, or add a new one.
        match self.pieces.last_mut() {
            Some((Source::Head, range)) => range.end = end,
            _ if end > start => self.pieces.push((Source::Head, start..end)),
            _ => {}
        }
    }

    fn bytes(&self, source: Source) -> &[u8] {
        match source {
            Source::Head => &self.head,
            Source::Params(block) => &self.params[usize::from(block)],
            Source::Body => &self.body,
        }
    }
}

const _: () = assert!(HEADER_LEN + BODY_RECORD <= 65_536 && BODY_RECORD <= MAX_CONTENT);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::params::Params;
    use super::super::responder::{Incoming, RequestDecoder};
    use super::*;

    /// Writes a request as sockets do: some bytes at a time, from at most `slices` slices.
    fn encode(encoder: &mut RequestEncoder, slices: usize, mut write: impl FnMut() -> usize) -> Vec<u8> {
        let mut wire = Vec::new();
        while !encoder.is_done() {
            let mut out = vec![IoSlice::new(&[]); slices];
            let filled = encoder.slices(&mut out);
            let offered: Vec<u8> = out[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            let written = write().clamp(1, offered.len());
            wire.extend_from_slice(&offered[..written]);
            encoder.advance(written);
        }
        assert_eq!(encoder.written(), wire.len());
        wire
    }

    fn params(lengths: &[usize]) -> EncodedParams {
        let mut params = Params::new();
        for (at, length) in lengths.iter().enumerate() {
            params.push(format!("NAME_{at}").as_bytes(), &vec![b'v'; *length]).expect("short enough");
        }
        params.finish()
    }

    fn decode(wire: &[u8]) -> Incoming {
        let mut input = wire;
        let request = RequestDecoder::new(1 << 30).decode(&mut input).expect("as strict as php-fpm").expect("whole");
        assert!(input.is_empty());
        request
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_request_survives_the_wire_whatever_is_written_at_a_time(
            lengths in prop::collection::vec(prop::collection::vec(0usize..3000, 0..6), 4),
            large in prop::option::of(30_000usize..65_000),
            body in prop_oneof![0usize..3000, 65_000usize..140_000],
            writes in prop::collection::vec(1usize..70_000, 1..8),
            slices in 1usize..9,
            id: u16,
        ) {
            let mut lengths = lengths;
            lengths[1].extend(large);
            lengths[2].extend(large);
            let blocks = [params(&lengths[0]), params(&lengths[1]), params(&lengths[2]), params(&lengths[3])];
            let body: Bytes = (0..body).map(|i| i as u8).collect::<Vec<_>>().into();

            let mut encoder = RequestEncoder::new();
            encoder.start(id, &blocks, &body);
            let mut writes = writes.into_iter().cycle();
            let wire = encode(&mut encoder, slices, || writes.next().expect("it cycles"));

            let request = decode(&wire);
            prop_assert_eq!((request.id, request.keep_conn), (id, true));
            prop_assert_eq!(request.params, blocks.iter().flat_map(|b| b.iter().copied()).collect::<Vec<_>>());
            prop_assert!(request.body == body);
        }
    }

    #[test]
    fn a_small_request_is_one_slice_and_a_large_body_is_not_copied() {
        let mut encoder = RequestEncoder::new();
        let mut out = [IoSlice::new(&[]); 8];
        encoder.start(
            1,
            &[params(&[100]), params(&[200]), params(&[]), params(&[])],
            &Bytes::from_static(&[b'x'; 1000]),
        );
        assert_eq!(encoder.slices(&mut out), 1);

        let body = Bytes::from(vec![b'x'; 16 << 20]);
        encoder.start(2, &[params(&[100]), params(&[200]), params(&[]), params(&[])], &body);
        assert!(encoder.head.len() < 4096, "{} bytes of head", encoder.head.len());
        let mut out = [IoSlice::new(&[]); 8];
        encoder.slices(&mut out);
        assert_eq!(out[1].as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_cleared_encoder_holds_nothing_of_the_request() {
        let body = Bytes::from(vec![b'x'; 100_000]);
        let mut encoder = RequestEncoder::new();
        encoder.start(1, &[params(&[100]), params(&[]), params(&[]), params(&[])], &body);
        encoder.clear();
        assert!(encoder.is_done() && body.is_unique());
    }
}
