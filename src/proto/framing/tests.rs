//! Tests of the rules for all decoders. The rules of one framing are tested in its own file.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MAX: usize = 300;
/// The bytes that a decoder may hold beyond a frame: a header, a delimiter, the box of a WebSocket message in progress.
const SLACK: usize = 512;

/// A framing for each option that changes how bytes are cut.
fn framings() -> Vec<Framing> {
    let mut all = vec![
        Framing::Raw,
        Framing::WebSocket { deflate: None },
        Framing::WebSocket { deflate: Some(Deflate::default()) },
    ];
    for (delimiter, strip_cr) in [("\n", false), ("\n", true), ("\r\n", false), ("\r\r", true), ("aab", false)] {
        all.push(Framing::Delimiter(Arc::new(DelimiterFraming { delimiter: delimiter.into(), strip_cr })));
    }
    for width in [1, 2, 4, 8] {
        for (endian, counts) in [(Endian::Big, LengthCounts::Body), (Endian::Little, LengthCounts::Frame)] {
            for (offset, after) in [(0, 0), (3, 30)] {
                let header = offset + usize::from(width) + after;
                all.push(Framing::Length(LengthFraming { width, offset, endian, header, counts, keep_header: false }));
            }
        }
    }
    all.push(Framing::Length(LengthFraming { width: 3, header: 3, ..LengthFraming::default() }));
    all.push(Framing::Length(LengthFraming { keep_header: true, ..LengthFraming::default() }));
    all.extend(packets().into_iter().map(|framing| Framing::Packet(framing.into())));
    all.extend(flagged().into_iter().map(|framing| Framing::Flagged(framing.into())));
    all.push(Framing::Gap(Duration::from_millis(20)));
    all
}

/// Packet framings with each option alone, and with several together.
fn packets() -> Vec<PacketFraming> {
    let (start, end) = (b"\xaa\xaa\x01".to_vec(), b"\r\n".to_vec());
    let plain: PacketFraming = LengthFraming { width: 4, offset: 3, header: 9, ..LengthFraming::NATIVE }.into();
    let narrow = PacketFraming { length: LengthFraming { width: 2, header: 5, ..plain.length }, ..plain.clone() };
    let all = PacketFraming { mask: 0x0ffc, adjust: -1, trailer: 2, start: start.clone(), end: end.clone(), ..narrow };
    let mut kept = all.clone();
    (kept.length.keep_header, kept.length.counts, kept.adjust) = (true, LengthCounts::Frame, 1);
    vec![
        PacketFraming { trailer: 1, ..plain.clone() },
        PacketFraming { adjust: 5, ..plain.clone() },
        PacketFraming { start: start.clone(), ..plain.clone() },
        PacketFraming { start, resync: true, ..plain.clone() },
        PacketFraming { end, ..plain },
        PacketFraming { resync: true, ..all.clone() },
        PacketFraming { resync: true, ..kept.clone() },
        all,
        kept,
    ]
}

/// Delimiter framings with each option alone, and with several together.
fn flagged() -> Vec<FlaggedFraming> {
    let framing = |start: &str, delimiter: &str| FlaggedFraming {
        delimiter: DelimiterFraming { delimiter: delimiter.into(), strip_cr: false },
        start: start.into(),
        ..FlaggedFraming::default()
    };
    let escape = |byte, code| Escape { byte, code };
    let flags = vec![escape(0x7e, [0x7d, 2]), escape(0x7d, [0x7d, 1])];
    let brackets =
        vec![escape(0x5b, [0x5a, 1]), escape(0x5a, [0x5a, 2]), escape(0x5d, [0x5e, 1]), escape(0x5e, [0x5e, 2])];
    let mut all = vec![framing("(", ")"), framing("--", "--"), framing("aab", "\r\n")];
    all.push(FlaggedFraming { escapes: flags.clone(), ..framing("\x7e", "\x7e") });
    all.push(FlaggedFraming { escapes: flags, ..framing("", "\x7e") });
    all.push(FlaggedFraming { escapes: brackets, ..framing("[", "]") });
    let with_resync = all.iter().filter(|framing| !framing.start.is_empty());
    all.extend(with_resync.map(|framing| FlaggedFraming { resync: true, ..framing.clone() }).collect::<Vec<_>>());
    all.push(FlaggedFraming { skip_empty: true, ..framing("", "\n") });
    all
}

/// The result of decoding an input in pieces of one size.
pub(super) struct DecodedPieces {
    pub(super) bodies: Vec<Vec<u8>>,
    pub(super) error: Option<FrameError>,
    pub(super) decoder: Decoder,
}

/// Checks the frames found in `input`, given in pieces of each size. Without an error it also checks how many bytes were skipped.
#[track_caller]
pub(super) fn check_in_pieces(
    framing: &Framing,
    max_frame: usize,
    input: &[u8],
    expected: Result<&[&[u8]], FrameError>,
    skipped: u64,
) {
    for size in 1..=input.len() {
        let DecodedPieces { bodies, error, decoder } = pieces(framing, max_frame, input, size);
        let found = error.map_or(Ok(bodies), Err);
        assert_eq!(found, expected.map(|bodies| bodies.iter().map(|b| b.to_vec()).collect()), "{input:02x?} by {size}");
        if error.is_none() {
            assert_eq!(decoder.skipped(), skipped, "{input:02x?} by {size}");
        }
    }
}

/// All frames in `input`, given in pieces of `size` bytes.
pub(super) fn pieces(framing: &Framing, max_frame: usize, input: &[u8], size: usize) -> DecodedPieces {
    let mut found = DecodedPieces { bodies: Vec::new(), error: None, decoder: Decoder::new(framing) };
    for mut piece in input.chunks(size) {
        loop {
            match found.decoder.decode(framing, max_frame, piece) {
                Ok((taken, Some(Item::Frame(frame)))) => {
                    piece = &piece[taken..];
                    found.bodies.push(frame.body.to_vec());
                    if piece.is_empty() && !found.decoder.has_rest() {
                        break;
                    }
                }
                Ok((taken, None)) => {
                    assert_eq!(taken, piece.len());
                    break;
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    found.error = Some(error);
                    return found;
                }
            }
        }
    }
    found
}

/// A body that this framing can carry, made from any body.
fn fit(framing: &Framing, kind: FrameKind, body: &[u8]) -> (FrameKind, Vec<u8>) {
    match framing {
        Framing::Raw | Framing::Gap(_) => (FrameKind::Binary, if body.is_empty() { vec![0] } else { body.to_vec() }),
        Framing::Packet(options) => {
            // The body must have room for the header that is kept, and for the bytes that some framings do not count.
            let mut body = body[..body.len().min(MAX - 20)].to_vec();
            body.resize(body.len().max(8), 0);
            if options.length.keep_header {
                let mut wrapping = PacketFraming::clone(options);
                wrapping.length.keep_header = false;
                body = [&*wrapping.head(body.len() as u64).unwrap(), &body, wrapping.tail()].concat();
            }
            (FrameKind::Binary, body)
        }
        Framing::Flagged(options) => {
            let is_mark = |b: &u8| options.start.contains(b) || options.delimiter.delimiter.contains(b);
            let mut body: Vec<u8> = body.iter().copied().filter(|b| !options.wraps() || !is_mark(b)).collect();
            if body.is_empty() {
                body.push(b'x');
            }
            (options.kind(), body)
        }
        Framing::Delimiter(_) => (FrameKind::Text, body.iter().copied().filter(|b| !b"\r\nb".contains(b)).collect()),
        Framing::Length(options) if options.keep_header => {
            let body = &body[..body.len().min(MAX - options.header)];
            let head = LengthFraming { keep_header: false, ..*options }.head(body.len() as u64).unwrap();
            (FrameKind::Binary, [&*head, body].concat())
        }
        // Some framings also count 34 header bytes, and the sum must fit into one byte.
        Framing::Length(options) if options.width == 1 => (FrameKind::Binary, body[..body.len().min(200)].to_vec()),
        Framing::Length(_) => (FrameKind::Binary, body.to_vec()),
        Framing::WebSocket { .. } if kind == FrameKind::Text => {
            (kind, String::from_utf8_lossy(body).chars().take(90).collect::<String>().into_bytes())
        }
        Framing::WebSocket { .. } => (kind, body.to_vec()),
        Framing::EventStream | Framing::Custom(_) => unreachable!("not one of framings()"),
    }
}

/// All items that a decoder finds in `input`, given in pieces of these sizes in turn. With `handover` the decoder is serialized and
/// deserialized after each piece.
fn decode(
    mut decoder: Decoder,
    framing: &Framing,
    input: &[u8],
    sizes: &[usize],
    handover: bool,
) -> (Vec<Item>, Option<FrameError>, Decoder) {
    let mut items = Vec::new();
    let mut rest = input;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(rest.len().min((*sizes.next().unwrap()).max(1)));
        rest = later;
        loop {
            let found = decoder.decode(framing, MAX, piece);
            assert!(decoder.buffered() <= MAX + SLACK, "{framing:?} holds {} bytes", decoder.buffered());
            match found {
                Ok((taken, Some(item))) => {
                    assert!(taken > 0 || decoder != Decoder::new(framing), "{framing:?} found {item:?} in nothing");
                    piece = &piece[taken..];
                    items.push(item);
                }
                Ok((taken, None)) => {
                    assert_eq!(taken, piece.len(), "{framing:?} wants more but left some");
                    break;
                }
                Err(error) => {
                    assert_eq!(decoder.buffered(), 0);
                    assert_eq!(decoder.decode(framing, MAX, b"x"), Err(error));
                    return (items, Some(error), decoder);
                }
            }
        }
        if handover {
            let written = serde_json::to_string(&decoder).unwrap();
            decoder = serde_json::from_str(&written).unwrap();
        }
    }
    items.extend(decoder.silence());
    (items, None, decoder)
}

/// All bodies joined, because raw frames have no boundaries of their own.
fn joined(items: &[Item]) -> Vec<u8> {
    let body = |item: &Item| match item {
        Item::Frame(frame) => frame.body.to_vec(),
        other => panic!("{other:?} was found in bytes without frames"),
    };
    items.iter().flat_map(body).collect()
}

fn check_same(framing: &Framing, found: &[Item], expected: &[Item]) {
    if let Framing::Raw | Framing::Gap(_) = framing {
        assert_eq!(joined(found), joined(expected));
    } else {
        assert_eq!(found, expected, "{framing:?}");
    }
}

/// The bytes that a peer sends for these bodies, and the items that should be found in them.
fn stream(framing: &Framing, from_client: bool, bodies: &[(FrameKind, Vec<u8>)]) -> (Vec<u8>, Vec<Item>) {
    let (mut bytes, mut items) = (Vec::new(), Vec::new());
    // Without silence between them, several frames would become one.
    let several = if matches!(framing, Framing::Gap(_)) { 1 } else { bodies.len() };
    let bodies = &bodies[..several];
    for (n, (kind, body)) in bodies.iter().enumerate() {
        let (kind, body) = fit(framing, *kind, body);
        let mask = [n as u8, 0x5a, 0xff, 0x33];
        let frame = match (from_client, n % 2) {
            (true, 0) => framing.encode_client(kind, &body, mask),
            (true, _) => client::encode_deflated(framing, kind, &body, mask),
            (false, 0) => framing.encode(kind, &body),
            (false, _) => framing.encode_deflated(kind, &body),
        };
        bytes.extend_from_slice(&frame.unwrap());
        items.push(Item::Frame(Frame { kind, body: body.into() }));
    }
    (bytes, items)
}

fn bodies() -> impl Strategy<Value = Vec<(FrameKind, Vec<u8>)>> {
    let kind = prop_oneof![Just(FrameKind::Text), Just(FrameKind::Binary)];
    vec((kind, vec(any::<u8>(), 0..MAX)), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_encoded_is_decoded_however_it_is_split(bodies in bodies(), sizes in vec(1_usize..80, 1..8)) {
        for framing in framings() {
            for from_client in [true, false] {
                let (bytes, items) = stream(&framing, from_client, &bodies);
                let new = if from_client { Decoder::new } else { Decoder::new_client };
                for (sizes, handover) in [(&[bytes.len()][..], false), (&[1], false), (&sizes, true)] {
                    let (found, error, decoder) = decode(new(&framing), &framing, &bytes, sizes, handover);
                    prop_assert_eq!(error, None, "{:?}", framing);
                    check_same(&framing, &found, &items);
                    prop_assert_eq!(decoder.buffered(), 0, "a decoder at rest holds nothing");
                    prop_assert!(!decoder.is_mid_frame());
                }
            }
        }
    }

    #[test]
    fn a_streamed_frame_is_the_same_frame(body in vec(any::<u8>(), 0..MAX), cut in 0..MAX) {
        for framing in framings().into_iter().filter(|framing| framing.whole_head(FrameKind::Binary, 9).unwrap().is_some()) {
            let (kind, body) = fit(&framing, FrameKind::Binary, &body);
            let mut wire = framing.begin(Some(body.len() as u64)).unwrap().unwrap().to_vec();
            let (left, right) = body.split_at(cut.min(body.len()));
            for (piece, first, last) in [(left, true, false), (right, false, true)] {
                wire.extend_from_slice(&framing.piece(kind, first, last, piece.len()));
                wire.extend_from_slice(piece);
            }
            wire.extend_from_slice(framing.tail());
            let (found, error, _) = decode(Decoder::new_client(&framing), &framing, &wire, &[wire.len()], false);
            prop_assert_eq!(error, None);
            check_same(&framing, &found, &[Item::Frame(Frame { kind, body: body.into() })]);
        }
    }
}

#[test]
fn a_compressed_stream_is_one_message() {
    let settled = deflate::negotiate("permessage-deflate; server_max_window_bits=10").unwrap().deflate;
    let framing = Framing::WebSocket { deflate: Some(settled) };
    for pieces in [&["streamed ", "streamed ", "streamed"][..], &["", "x", ""], &[""]] {
        let mut deflater = deflate::Deflater::new(framing.deflate().unwrap());
        let mut wire = framing.begin(None).unwrap().unwrap().to_vec();
        for (n, piece) in pieces.iter().enumerate() {
            let last = n + 1 == pieces.len();
            let piece = deflater.piece(piece.as_bytes(), last);
            wire.extend_from_slice(&framing.piece_deflated(FrameKind::Text, n == 0, last, piece.len()));
            wire.extend_from_slice(&piece);
            // A ping may go between any two pieces.
            wire.extend_from_slice(&framing.ping(b"!").unwrap());
        }
        let (mut found, error, decoder) = decode(Decoder::new_client(&framing), &framing, &wire, &[3], true);
        assert_eq!((error, decoder.is_mid_frame()), (None, false));
        found.retain(|item| *item != Item::Ping(Bytes::from_static(b"!")));
        assert_eq!(found, [Item::Frame(Frame { kind: FrameKind::Text, body: pieces.concat().into() })]);
    }
}

#[test]
fn only_a_length_header_and_escapes_must_know_the_whole_before_it_begins() {
    for framing in framings() {
        let writes_header = match &framing {
            Framing::Length(options) => !options.keep_header,
            Framing::Packet(options) => !options.length.keep_header,
            _ => false,
        };
        let must_know = writes_header || framing.whole_head(FrameKind::Binary, 9).unwrap().is_none();
        assert_eq!(framing.begin(None).unwrap().is_none(), must_know, "{framing:?}");
        if let Some(begin) = framing.begin(Some(9)).unwrap() {
            let has_start = matches!(&framing, Framing::Flagged(options) if !options.start.is_empty());
            assert_eq!(begin.is_empty(), !writes_header && !has_start, "{framing:?}");
        }
        assert_eq!(framing.begin(Some(256)).is_err(), framing.whole_head(FrameKind::Binary, 256).is_err());
    }
}

#[test]
fn control_frames_exist_on_a_websocket_alone_and_never_exceed_their_bound() {
    for framing in framings() {
        let frames =
            [framing.ping(&[b'x'; 200]), framing.pong(&[b'x'; 200]), framing.close(Some(1001), &"x".repeat(200))];
        for frame in frames {
            assert_eq!(frame.is_some(), matches!(framing, Framing::WebSocket { .. }));
            if let Some(frame) = frame {
                let (found, error, _) = decode(Decoder::new_client(&framing), &framing, &frame, &[200], false);
                assert_eq!((found.len(), error, frame.len()), (1, None, 127));
            }
        }
    }
}

#[test]
fn a_framing_can_be_written_down() {
    for framing in framings() {
        let written = serde_json::to_string(&framing).unwrap();
        assert_eq!(serde_json::from_str::<Framing>(&written).unwrap(), framing);
    }
    assert_eq!([FrameKind::Text.label(), FrameKind::Binary.label()], ["text", "binary"]);
}

/// xorshift64*: seeded, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % bound
    }
}

/// Purely random bytes fail in the first head of a WebSocket frame. A valid stream with a few broken bytes gets further.
fn hostile(framing: &Framing, random: &mut Random) -> Vec<u8> {
    let random_bytes = |random: &mut Random, len| (0..len).map(|_| random.below(256) as u8).collect::<Vec<_>>();
    if random.below(2) == 0 {
        let len = random.below(40);
        return random_bytes(random, len);
    }
    let mut bytes = Vec::new();
    for n in 0..1 + random.below(3) {
        let len = random.below(24);
        let body = random_bytes(random, len);
        let kind = if random.below(3) == 0 { FrameKind::Text } else { FrameKind::Binary };
        let frame = match (framing, random.below(8)) {
            (Framing::WebSocket { .. }, 0..3) => client::fragment(kind, n == 0, n > 0, &body, [n as u8; 4]),
            (Framing::WebSocket { .. }, 3) => client::ping(&body, [7; 4]),
            (Framing::WebSocket { deflate: Some(_) }, 4) => {
                client::encode_deflated(framing, kind, &body, [1; 4]).unwrap()
            }
            _ => {
                let (kind, body) = fit(framing, kind, &body);
                framing.encode_client(kind, &body, [9; 4]).unwrap()
            }
        };
        bytes.extend_from_slice(&frame);
    }
    for _ in 0..random.below(3) {
        if !bytes.is_empty() {
            let at = random.below(bytes.len());
            bytes[at] = random.below(256) as u8;
        }
    }
    bytes
}

#[test]
fn a_hundred_thousand_hostile_streams_break_no_decoder_and_read_the_same_in_pieces() {
    let mut random = Random(0x1009_17e5);
    for framing in framings() {
        let streams = match framing {
            Framing::Length(_) => 100_000 / 17,
            Framing::Delimiter(_) => 100_000 / 5,
            Framing::Packet(_) => 100_000 / 9,
            Framing::Flagged(_) => 100_000 / 12,
            Framing::Raw | Framing::Gap(_) | Framing::WebSocket { .. } => 100_000,
            Framing::EventStream | Framing::Custom(_) => unreachable!("not one of framings()"),
        };
        let mut broken = 0;
        for _ in 0..=streams {
            let bytes = hostile(&framing, &mut random);
            let (whole, whole_error, _) = decode(Decoder::new(&framing), &framing, &bytes, &[bytes.len()], false);
            let sizes = [1 + random.below(7), 1 + random.below(3)];
            let (pieces, error, _) = decode(Decoder::new(&framing), &framing, &bytes, &sizes, false);
            assert_eq!(error, whole_error, "{framing:?} {bytes:02x?}");
            check_same(&framing, &pieces, &whole);
            broken += usize::from(error.is_some());
        }
        let skips = match &framing {
            Framing::Packet(options) => options.resync,
            Framing::Flagged(options) => options.resync,
            _ => false,
        };
        assert!(
            !skips || broken < streams / 10,
            "{framing:?}: {broken} of {streams} broke, but what is no frame is skipped"
        );
        // If all streams broke, or none, this test would prove little.
        if let Framing::WebSocket { .. } = framing {
            assert!((streams / 4..streams * 9 / 10).contains(&broken), "{broken} of {streams}");
        }
    }
}

#[test]
fn what_is_announced_is_not_allocated_and_what_is_above_the_limit_is_refused_at_once() {
    let max = 1 << 30;
    for framing in framings() {
        let head = match &framing {
            // A header that a client may send but Longwire would not: the field has the largest value of its width.
            Framing::Length(options) if options.width >= 4 && !options.keep_header => {
                options.head((max - options.header) as u64).unwrap().to_vec()
            }
            Framing::Packet(options) if options.length.width == 4 && !options.resync => {
                options.head((max - 100) as u64).unwrap().to_vec()
            }
            Framing::WebSocket { .. } => header::head(Opcode::Binary, true, false, max, Some([1; 4])).to_vec(),
            _ => continue,
        };
        let start = [&head[..], &[0; 10]].concat();
        let mut decoder = Decoder::new(&framing);
        assert_eq!(decoder.decode(&framing, max, &start), Ok((start.len(), None)));
        assert!(decoder.is_mid_frame());
        assert!(decoder.buffered() <= SLACK, "{framing:?} holds {} bytes", decoder.buffered());
        let mut decoder = Decoder::new(&framing);
        let error = decoder.decode(&framing, MAX, &head).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { max: 300, .. }), "{error}");
        assert_eq!(error.reason(), crate::proto::close::CloseReason::FrameTooLarge);
    }
}

#[test]
fn a_frame_of_the_limit_passes_and_one_byte_more_does_not() {
    for framing in framings() {
        // Packet framings are tested in their own file.
        if matches!(framing, Framing::Raw | Framing::Gap(_) | Framing::Packet(_))
            || matches!(&framing, Framing::Length(options) if options.width == 1)
        {
            continue;
        }
        for size in [1, 7, 10_000] {
            let (_, body) = fit(&framing, FrameKind::Binary, &[b'x'; MAX]);
            let body = &body[body.len() - MAX.min(body.len())..];
            let kept = matches!(&framing, Framing::Length(options) if options.keep_header);
            // The header that PHP sees is part of the frame.
            let body = if kept { fit(&framing, FrameKind::Binary, &body[..MAX - 4]).1 } else { body.to_vec() };
            assert_eq!(body.len(), MAX);
            let wire = framing.encode_client(FrameKind::Binary, &body, [3; 4]).unwrap();
            let (found, error, _) = decode(Decoder::new(&framing), &framing, &wire, &[size], false);
            assert_eq!((found.len(), error), (1, None), "{framing:?}");

            let longer = if kept { fit(&framing, FrameKind::Binary, &body[4..]).1 } else { body };
            let mut longer = [&longer[..], b"y"].concat();
            if kept {
                longer[3] += 1;
            }
            let wire = framing.encode_client(FrameKind::Binary, &longer, [3; 4]).unwrap();
            let (found, error, _) = decode(Decoder::new(&framing), &framing, &wire, &[size], false);
            assert!(found.is_empty());
            assert_eq!(error.unwrap().reason(), crate::proto::close::CloseReason::FrameTooLarge, "{framing:?}");
        }
    }
}

#[test]
fn slow_bytes_cost_few_copies_and_never_room_past_the_frame() {
    let mut buffer = Vec::new();
    let mut grown = 0;
    for _ in 0..100_000 {
        let before = buffer.capacity();
        grow(&mut buffer, 1, 100_000);
        buffer.push(0);
        grown += usize::from(buffer.capacity() != before);
        assert!(buffer.capacity() <= (2 * buffer.len()).max(MIN_BUFFER));
    }
    assert_eq!(buffer.capacity(), 100_000);
    assert!(grown < 16, "{grown}");
}
