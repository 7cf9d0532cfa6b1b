//! Our WebSocket frames against tokio-websockets, the strictest implementation that we measured, as client and as server.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use longwire::proto::framing::{self, Decoder, FrameError, FrameKind, Framing, Item};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_websockets::{ClientBuilder, CloseCode, Config, Error, Limits, Message, ServerBuilder};

const FRAMING: Framing = Framing::WebSocket { deflate: None };
const MAX: usize = 1 << 20;
const MASK: [u8; 4] = [0xa5, 0x00, 0xff, 0x3c];

/// Our end of a connection. It reads in small pieces of varying size, so that frames are split at many places.
struct Ours {
    stream: DuplexStream,
    decoder: Decoder,
    pending: Vec<u8>,
    reads: usize,
}

impl Ours {
    fn new(stream: DuplexStream, decoder: Decoder) -> Self {
        Ours { stream, decoder, pending: Vec::new(), reads: 0 }
    }

    /// The next item; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Result<Item, FrameError>> {
        loop {
            match self.decoder.decode(&FRAMING, MAX, &self.pending) {
                Ok((taken, item)) => {
                    self.pending.drain(..taken);
                    if let Some(item) = item {
                        return Some(Ok(item));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
            let mut piece = [0; 4096];
            self.reads += 1;
            let size = [1, 2, 3, 7, 100, 4096][self.reads % 6];
            let read = self.stream.read(&mut piece[..size]).await.unwrap();
            if read == 0 {
                assert!(!self.decoder.is_mid_frame());
                return None;
            }
            self.pending.extend_from_slice(&piece[..read]);
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }
}

/// Lengths on both sides of each form of the length field, with text that has characters of every width.
fn messages() -> Vec<(FrameKind, Bytes)> {
    let mut all = Vec::new();
    for len in [0, 1, 125, 126, 127, 4_000, 65_535, 65_536, 200_001] {
        all.push((FrameKind::Binary, (0..len).map(|n| ((n * 31) >> 3) as u8).collect()));
        let text: String = "aé€😀".chars().cycle().take(len / 2).collect();
        all.push((FrameKind::Text, text.into()));
    }
    all
}

fn message(kind: FrameKind, body: &Bytes) -> Message {
    match kind {
        FrameKind::Text => Message::text(String::from_utf8(body.to_vec()).unwrap()),
        FrameKind::Binary => Message::binary(body.clone()),
    }
}

fn check(found: &Message, (kind, body): &(FrameKind, Bytes)) {
    assert_eq!((found.is_text(), found.is_binary()), (*kind == FrameKind::Text, *kind == FrameKind::Binary));
    assert!(found.as_payload()[..] == body[..], "a message of {} bytes came back different", body.len());
}

#[tokio::test]
async fn a_reference_client_gets_back_what_it_sent_whole_and_in_fragments() {
    for frame_size in [4 << 20, 1_000] {
        let (theirs, ours) = duplex(10_000);
        let server = tokio::spawn(async move {
            let mut ours = Ours::new(ours, Decoder::new(&FRAMING));
            let mut count = 0;
            while let Some(item) = ours.next().await {
                match item.unwrap() {
                    Item::Frame(frame) if count % 2 == 0 => {
                        let head = FRAMING.whole_head(frame.kind, frame.body.len()).unwrap().unwrap();
                        ours.send(&head).await;
                        ours.send(&frame.body).await;
                        ours.send(FRAMING.tail()).await;
                        count += 1;
                    }
                    Item::Frame(frame) => {
                        // Stream the message in fragments that split characters, with a ping between them.
                        ours.send(&FRAMING.begin(None).unwrap().unwrap()).await;
                        for (n, piece) in frame.body.chunks(1_001).enumerate() {
                            ours.send(&FRAMING.piece(frame.kind, n == 0, false, piece.len())).await;
                            ours.send(piece).await;
                            ours.send(&FRAMING.ping(b"between").unwrap()).await;
                        }
                        ours.send(&FRAMING.piece(frame.kind, frame.body.is_empty(), true, 0)).await;
                        count += 1;
                    }
                    Item::Ping(payload) => ours.send(&FRAMING.pong(&payload).unwrap()).await,
                    Item::Pong(payload) => assert_eq!(payload, "between"),
                    Item::Close { code, reason } => {
                        assert_eq!((code, &reason[..]), (Some(4001), &b"enough"[..]));
                        ours.send(&FRAMING.close(code, "goodbye").unwrap()).await;
                        return count;
                    }
                }
            }
            panic!("the client went without a close frame");
        });
        let config = Config::default().frame_size(frame_size);
        let mut client = ClientBuilder::new().config(config).take_over(theirs);
        for (kind, body) in messages() {
            client.send(Message::ping("are you there")).await.unwrap();
            client.send(message(kind, &body)).await.unwrap();
            loop {
                let found = client.next().await.unwrap().unwrap();
                if !found.is_ping() && !found.is_pong() {
                    check(&found, &(kind, body));
                    break;
                }
            }
        }
        client.send(Message::close(Some(CloseCode::try_from(4001).unwrap()), "enough")).await.unwrap();
        let close = loop {
            let found = client.next().await.unwrap().unwrap();
            if found.is_close() {
                break found;
            }
        };
        assert_eq!(close.as_close().map(|(code, text)| (u16::from(code), text)), Some((4001, "goodbye")));
        assert_eq!(server.await.unwrap(), messages().len());
    }
}

#[tokio::test]
async fn our_client_side_is_understood_by_a_reference_server() {
    let (theirs, ours) = duplex(10_000);
    let server = tokio::spawn(async move {
        let mut server = ServerBuilder::new().config(Config::default().frame_size(777)).serve(theirs);
        while let Some(found) = server.next().await {
            let found = found.unwrap();
            if found.is_text() || found.is_binary() {
                server.send(found).await.unwrap();
            }
        }
    });
    let mut ours = Ours::new(ours, Decoder::new_client(&FRAMING));
    for (n, (kind, body)) in messages().into_iter().enumerate() {
        if n % 2 == 0 {
            ours.send(&FRAMING.encode_client(kind, &body, MASK).unwrap()).await;
        } else {
            let (left, right) = body.split_at(body.len() / 3);
            ours.send(&framing::client::fragment(kind, true, false, left, MASK)).await;
            ours.send(&framing::client::ping(b"between", MASK)).await;
            ours.send(&framing::client::fragment(kind, false, true, right, MASK)).await;
            assert_eq!(ours.next().await, Some(Ok(Item::Pong(Bytes::from_static(b"between")))));
        }
        assert_eq!(ours.next().await, Some(Ok(Item::Frame(framing::Frame { kind, body }))));
    }
    ours.send(&framing::client::close(Some(1000), "done", MASK)).await;
    let close = ours.next().await.unwrap().unwrap();
    assert!(matches!(close, Item::Close { code: Some(1000), .. }), "{close:?}");
    drop(ours);
    server.await.unwrap();
}

/// Gives the same bytes to our decoder and to theirs. Both must find the message, or both must refuse it.
async fn check_agreement(wire: &[u8], is_good: bool) {
    let mut decoder = Decoder::new(&FRAMING);
    let mut rest = wire;
    let ours = loop {
        match decoder.decode(&FRAMING, MAX, rest) {
            Ok((taken, Some(Item::Frame(_) | Item::Close { .. }))) => break taken > 0,
            Ok((taken, Some(_))) => rest = &rest[taken..],
            Ok((_, None)) => panic!("{wire:02x?} is not a whole message"),
            Err(_) => break false,
        }
    };
    let (mut here, there) = duplex(1 << 20);
    here.write_all(wire).await.unwrap();
    let mut server = ServerBuilder::new().limits(Limits::default().max_payload_len(Some(MAX))).serve(there);
    let theirs = loop {
        match server.next().await {
            Some(Ok(found)) if found.is_ping() || found.is_pong() => {}
            Some(Ok(_)) => break true,
            Some(Err(Error::Protocol(_) | Error::PayloadTooLong { .. })) => break false,
            other => panic!("{wire:02x?} gave {other:?}"),
        }
    };
    assert_eq!((ours, theirs), (is_good, is_good), "{wire:02x?}");
}

#[tokio::test]
async fn both_accept_and_refuse_the_same() {
    let masked = |first: u8, body: &[u8]| [&[first, 0x80 | body.len() as u8, 0, 0, 0, 0], body].concat();
    for (wire, is_good) in [
        (masked(0x81, "é".as_bytes()), true),
        (masked(0x81, b"\xc3"), false),
        (masked(0x81, b"\xed\xa0\x80"), false),
        (masked(0x82, b"\xff"), true),
        (masked(0x83, b""), false),
        (masked(0x8b, b""), false),
        (masked(0xc1, b""), false),
        (masked(0x80, b""), false),
        (masked(0x88, b""), true),
        (masked(0x88, b"\x03"), false),
        (masked(0x88, b"\x03\xe8"), true),
        (masked(0x88, b"\x03\xed"), false),
        (masked(0x88, b"\x03\xe8\xff"), false),
        (masked(0x88, b"\x13\x87ok"), true),
        (masked(0x88, b"\x13\x88"), false),
        ([masked(0x01, b"\xc3"), masked(0x89, b"!"), masked(0x80, b"\xa9")].concat(), true),
        ([masked(0x01, b"a"), masked(0x81, b"b")].concat(), false),
        ([masked(0x01, b"a"), masked(0x09, b"")].concat(), false),
        (vec![0x81, 0x01, b'a'], false),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
        (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0], false),
    ] {
        check_agreement(&wire, is_good).await;
    }
}
