//! Decoding of bytes into frames, and encoding of frames into bytes.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use longwire::proto::framing::deflate::{self, Deflate, Deflater};
use longwire::proto::framing::{Decoder, DelimiterFraming, FrameKind, Framing, Item, LengthFraming, client};

use super::{bench, text};

const MAX_FRAME: usize = 1 << 20;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// About as many frames as fit into one read of a session.
const FRAMES: usize = 2048;
pub(super) const SIZES: [(&str, usize); 3] = [("64 B", 64), ("4 KB", 4096), ("64 KB", 64 * 1024)];

pub(super) fn benches(criterion: &mut Criterion) {
    let delimiter = |bytes: &[u8]| {
        Framing::Delimiter(Arc::new(DelimiterFraming { delimiter: bytes.to_vec(), ..Default::default() }))
    };
    for (name, framing, kind) in [
        ("length", Framing::Length(LengthFraming::default()), FrameKind::Binary),
        ("delimiter LF", delimiter(b"\n"), FrameKind::Text),
        ("delimiter CRLF", delimiter(b"\r\n"), FrameKind::Text),
        ("websocket binary", Framing::WebSocket { deflate: None }, FrameKind::Binary),
        ("websocket text", Framing::WebSocket { deflate: None }, FrameKind::Text),
    ] {
        both_ways(criterion, name, &framing, kind);
    }
    event_stream(criterion);
    deflated(criterion);
}

fn both_ways(criterion: &mut Criterion, name: &str, framing: &Framing, kind: FrameKind) {
    decoding(criterion, name, framing, |body| framing.encode_client(kind, body, MASK).expect("it fits"));
    let mut group = criterion.benchmark_group(format!("encode {name}"));
    for (size, bytes) in SIZES {
        let body = text(bytes);
        bench(&mut group, size, Throughput::Bytes(bytes as u64), || framing.encode(kind, black_box(&body)));
    }
    if framing.whole_head(kind, 4096).expect("it fits").is_some_and(|head| !head.is_empty()) {
        bench(&mut group, "head alone", Throughput::Elements(1), || framing.whole_head(kind, black_box(4096)));
    }
    group.finish();
}

/// Decodes frames of each size, many at once, and in pieces. `encode` is the client's encoder.
pub(super) fn decoding(criterion: &mut Criterion, name: &str, framing: &Framing, encode: impl Fn(&[u8]) -> Bytes) {
    let mut group = criterion.benchmark_group(format!("decode {name}"));
    for (size, bytes) in SIZES {
        let wire = encode(&text(bytes));
        let mut decoder = Decoder::new(framing);
        bench(&mut group, size, Throughput::Bytes(bytes as u64), || decode(&mut decoder, framing, &wire, 1));
    }
    let wire = encode(&text(16)).repeat(FRAMES);
    let mut decoder = Decoder::new(framing);
    bench(&mut group, format!("{FRAMES} of 16 B in one read"), Throughput::Elements(FRAMES as u64), || {
        decode(&mut decoder, framing, &wire, FRAMES)
    });
    // Two sizes, to see that four times the bytes take not much more than four times the time.
    for (size, bytes) in [("256 KB in reads of 1460 B", 256 << 10), ("1 MB in reads of 1460 B", 1 << 20)] {
        let wire = encode(&text(bytes));
        let mut decoder = Decoder::new(framing);
        bench(&mut group, size, Throughput::Bytes(bytes as u64), || {
            let frames: usize = wire.chunks(1460).map(|piece| decode_all(&mut decoder, framing, piece)).sum();
            assert_eq!(frames, 1);
        });
    }
    group.finish();
}

/// Server-sent events, which are only encoded.
fn event_stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode event stream");
    let framing = Framing::EventStream;
    for (size, bytes) in SIZES {
        let body = text(bytes);
        let lines: Vec<_> = body.iter().map(|byte| if *byte == b',' { b'\n' } else { *byte }).collect();
        let mut encode = |name: &str, kind, id: Option<&[u8]>, body: &[u8]| {
            bench(&mut group, format!("{size}, {name}"), Throughput::Bytes(bytes as u64), || {
                framing.encode_with_id(kind, id, black_box(body))
            });
        };
        encode("one line", FrameKind::Text, None, &body);
        encode("one line and an id", FrameKind::Text, Some(b"1790000000-42"), &body);
        encode("a line for each 20 B", FrameKind::Text, None, &lines);
        encode("binary", FrameKind::Binary, None, &body);
    }
    group.finish();
}

fn deflated(criterion: &mut Criterion) {
    let narrow =
        deflate::negotiate("permessage-deflate; server_max_window_bits=10").expect("it may be asked for").deflate;
    let mut group = criterion.benchmark_group("deflate");
    for (size, bytes) in SIZES {
        let (body, throughput) = (text(bytes), Throughput::Bytes(bytes as u64));
        for (window, settled) in [("15 bits", Deflate::default()), ("10 bits", narrow)] {
            bench(&mut group, format!("{size} in {window}"), throughput.clone(), || {
                deflate::deflate_whole(settled, black_box(&body))
            });
        }
        bench(&mut group, format!("{size} as a stream"), throughput.clone(), || {
            Deflater::new(Deflate::default()).piece(black_box(&body), true)
        });
        let framing = Framing::WebSocket { deflate: Some(Deflate::default()) };
        let wire = client::encode_deflated(&framing, FrameKind::Text, &body, MASK).expect("it fits");
        let mut decoder = Decoder::new(&framing);
        bench(&mut group, format!("{size} decoded"), throughput, || decode(&mut decoder, &framing, &wire, 1));
    }
    group.finish();
}

/// Decodes a read that ends with a frame.
fn decode(decoder: &mut Decoder, framing: &Framing, wire: &[u8], frames: usize) {
    assert_eq!(decode_all(decoder, framing, black_box(wire)), frames);
}

/// The number of frames that end in `input`.
fn decode_all(decoder: &mut Decoder, framing: &Framing, mut input: &[u8]) -> usize {
    let mut frames = 0;
    while !input.is_empty() {
        let (taken, item) = decoder.decode(framing, MAX_FRAME, input).expect("the bytes are right");
        input = &input[taken..];
        frames += usize::from(matches!(black_box(&item), Some(Item::Frame(_))));
    }
    frames
}
