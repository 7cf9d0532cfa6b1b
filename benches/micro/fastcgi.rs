//! Encoding of requests to php-fpm, and decoding of its answers.

use std::hint::black_box;
use std::io::IoSlice;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use longwire::proto::fastcgi::params::{EncodedParams, Params};
use longwire::proto::fastcgi::request::RequestEncoder;
use longwire::proto::fastcgi::responder::{push_end, push_stdout};
use longwire::proto::fastcgi::response::{EndRequest, Event, ProtocolStatus, ResponseDecoder};

use super::{bench, text};

const ID: u16 = 7;
/// The record size of php-fpm's output.
const RECORD: usize = 8184;

pub(super) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fastcgi encode");
    // The number of params of an event, of a handshake, and of a request that needs several records.
    for (name, pairs, value) in [("12", 12, 14), ("30", 30, 60), ("1000", 1000, 100)] {
        let throughput = Throughput::Elements(pairs as u64);
        bench(&mut group, format!("{name} params"), throughput, || params(black_box(pairs), value));
    }
    for (name, own, bytes) in [
        ("request, 64 B", 30, 64),
        ("request, 64 KB", 30, 64 << 10),
        ("request, 1 MB", 30, 1 << 20),
        ("request, 64 B and 2000 params", 2000, 64),
    ] {
        let blocks = [params(16, 20), params(own, 60), EncodedParams::default(), params(12, 14)];
        let body = Bytes::from(text(bytes));
        let mut encoder = RequestEncoder::new();
        bench(&mut group, name, Throughput::Elements(1), || {
            encoder.start(ID, black_box(&blocks), black_box(&body));
            let mut written = 0;
            while !encoder.is_done() {
                let mut slices = [IoSlice::new(&[]); 16];
                let count = encoder.slices(&mut slices);
                let offered = black_box(&slices[..count]).iter().map(|slice| slice.len()).sum();
                encoder.advance(offered);
                written += offered;
            }
            written
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("fastcgi decode");
    for (name, bytes) in [("64 B", 64), ("64 KB", 64 << 10)] {
        let wire = answer(bytes);
        let mut decoder = ResponseDecoder::new(ID);
        // Count records, not bytes: the decoder returns positions and does not touch the contents.
        let records = bytes.div_ceil(RECORD) as u64 + 1;
        bench(&mut group, name, Throughput::Elements(records), || {
            decoder.start(ID);
            let (mut input, mut got) = (black_box(&wire[..]), 0);
            while let Some(event) = decoder.decode(&mut input).expect("the bytes are right") {
                if let Event::Stdout(piece) = black_box(event) {
                    got += piece.len();
                }
            }
            assert!(decoder.is_ended() && got == bytes);
        });
    }
    group.finish();
}

fn params(pairs: usize, value: usize) -> EncodedParams {
    let value = &[b'v'; 128][..value];
    let mut params = Params::new();
    for _ in 0..pairs {
        params.push(black_box(b"LONGWIRE_EXAMPLE"), value).expect("it is short");
    }
    params.finish()
}

fn answer(bytes: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    text(bytes).chunks(RECORD).for_each(|piece| push_stdout(&mut wire, ID, piece));
    push_end(&mut wire, ID, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
    wire
}
