//! Outboxes on real sockets.

use std::future::poll_fn;
use std::io::Read;
use std::sync::Arc;

use smallvec::SmallVec;

use super::*;
use crate::proto::command::Name;
use crate::proto::framing::{Decoder, FrameKind, Item, LengthFraming};
use crate::transport::Transport;

const PUSHERS: u8 = 4;
const FRAMES: u32 = 300;
const PIECES: u32 = 40;

fn pair() -> (Transport, socket2::Socket) {
    let (near, far) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    near.set_send_buffer_size(4096).unwrap();
    (Transport::new(near).unwrap(), far)
}

fn id() -> SessionId {
    SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap()
}

fn framing() -> Framing {
    Framing::Length(LengthFraming::default())
}

fn terms(max_bytes: usize) -> Arc<Terms> {
    let terms = Terms {
        listener: "tcp".into(),
        app: "app".into(),
        max_bytes,
        slow_reader: SlowReader::Close,
        deflate_min_bytes: 0,
        sends_empty: true,
    };
    terms.into()
}

fn outbox(max_bytes: usize) -> (Arc<Outbox>, socket2::Socket) {
    let (near, far) = pair();
    (Arc::new(Outbox::new(id(), framing(), terms(max_bytes), ClientLink::to(near))), far)
}

#[tokio::test]
async fn what_is_pushed_to_a_guest_waits_within_the_bound_and_follows_what_was_written() {
    let frame = |text: &str| framing().encode(FrameKind::Text, text.as_bytes()).unwrap();
    let guest = Outbox::of_guest(id(), framing(), terms(1000), ClientLink::awaited());
    let together: SmallVec<[_; 1]> = ["one", "two"]
        .into_iter()
        .map(|text| {
            let topic = Box::leak(Box::new(Arc::new(Topic { channel: None, key: None })));
            (Push { frame: frame(text), rule: None, topic }, text)
        })
        .collect();
    guest.push_all(together, |text, pushed| assert_eq!(pushed.fate, Fate::Queued, "{text}"));
    assert_eq!(push(&guest, frame(&"x".repeat(900)), SlowReader::Newest, b"").fate, Fate::DroppedNewest);
    let (near, mut far) = pair();
    guest.arrive(near);
    guest.write_frame(&[IoSlice::new(&frame("hello"))]);
    assert_eq!(push(&guest, frame("three"), SlowReader::Newest, b"").fate, Fate::Queued, "behind the others");
    // A greeting that streams: its end does not release pushes before the guest is admitted.
    assert!(guest.begin_stream(false));
    guest.end_stream();
    guest.admit();
    guest.admit();
    poll_fn(|cx| guest.poll_flush(cx)).await;
    assert_eq!(push(&guest, frame("four"), SlowReader::Newest, b"").fate, Fate::Written);
    let expected: Vec<u8> = ["hello", "one", "two", "three", "four"].into_iter().flat_map(frame).collect();
    let mut read = vec![0; expected.len()];
    far.read_exact(&mut read).unwrap();
    assert_eq!(read, expected);

    let refused = Outbox::of_guest(id(), framing(), terms(1000), ClientLink::awaited());
    push(&refused, frame("one"), SlowReader::Newest, b"");
    assert_eq!(refused.end(), 1, "it is counted as lost");
    assert_eq!(push(&refused, frame("two"), SlowReader::Newest, b"").fate, Fate::Gone);
}

fn push(outbox: &Outbox, frame: Bytes, rule: SlowReader, key: &[u8]) -> Pushed {
    let topic = Arc::new(Topic { channel: None, key: Name::new(key).ok() });
    outbox.push(Push { frame, rule: Some(rule), topic: &topic })
}

/// Author, number, and a filling that is wrong if one byte is missing or foreign.
fn body(author: u8, number: u32, len: usize) -> Vec<u8> {
    let mut body = vec![author; len.max(5)];
    body[1..5].copy_from_slice(&number.to_be_bytes());
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_many_pushers_arrive_whole_and_in_order_around_streamed_replies() {
    let (outbox, mut far) = outbox(1 << 30);
    let flusher = tokio::spawn({
        let outbox = outbox.clone();
        poll_fn(move |cx| {
            outbox.register(cx.waker());
            let _ = outbox.poll_flush(cx);
            if outbox.take_asked_close().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
    });
    let mut threads: Vec<_> = (1..=PUSHERS)
        .map(|author| {
            let outbox = outbox.clone();
            std::thread::spawn(move || {
                for number in 0..FRAMES {
                    let body = body(author, number, (number as usize * 37) % 3000);
                    let frame = outbox.framing().encode(FrameKind::Binary, &body).unwrap();
                    let pushed = push(&outbox, frame, SlowReader::Close, b"");
                    assert!(matches!(pushed.fate, Fate::Written | Fate::Queued));
                }
            })
        })
        .collect();
    threads.push(std::thread::spawn({
        let outbox = outbox.clone();
        move || {
            for number in 0..FRAMES / 10 {
                let body = body(9, number, 5 + PIECES as usize * 100);
                assert!(outbox.begin_stream(false), "nobody else streams");
                let head = outbox.framing().begin(Some(body.len() as u64)).unwrap().unwrap();
                outbox.write_piece(&[IoSlice::new(&head)]);
                for piece in body.chunks(100) {
                    outbox.write_piece(&[IoSlice::new(piece)]);
                    std::thread::yield_now();
                }
                outbox.end_stream();
            }
        }
    }));
    let reader = std::thread::spawn(move || {
        let framing = Framing::Length(LengthFraming::default());
        let mut decoder = Decoder::new_client(&framing);
        let mut next = [0_u32; 10];
        let mut left = u32::from(PUSHERS) * FRAMES + FRAMES / 10;
        let mut buffer = [0; 700];
        while left > 0 {
            let n = far.read(&mut buffer).unwrap();
            assert_ne!(n, 0, "{left} frames are missing");
            let mut input = &buffer[..n];
            while !input.is_empty() {
                let (used, item) = decoder.decode(&framing, 1 << 20, input).unwrap();
                input = &input[used..];
                let Some(Item::Frame(frame)) = item else { continue };
                let author = frame.body[0];
                let expected = body(author, next[usize::from(author)], frame.body.len());
                assert_eq!(frame.body, expected, "frames of one author come whole and in order");
                next[usize::from(author)] += 1;
                left -= 1;
            }
        }
    });
    tokio::task::spawn_blocking(move || {
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        reader.join().unwrap();
    })
    .await
    .unwrap();
    outbox.ask_close(CloseReason::ClientClosed.into());
    flusher.await.unwrap();
    assert_eq!(outbox.queued_bytes(), 0);
}

#[tokio::test]
async fn behind_a_client_that_is_gone_nothing_is_held_for_a_reply_that_broke_off() {
    let (outbox, far) = outbox(1 << 20);
    assert!(outbox.begin_stream(false));
    outbox.write_piece(&[IoSlice::new(b"begun")]);
    poll_fn(|cx| outbox.poll_flush(cx)).await;
    assert_eq!(push(&outbox, Bytes::from_static(b"held"), SlowReader::Close, b"").fate, Fate::Queued);
    drop(far);
    outbox.write_piece(&[IoSlice::new(b"more")]);
    poll_fn(|cx| outbox.poll_flush(cx)).await;
    outbox.break_stream();
    let close = outbox.take_asked_close().map(|close| close.reason);
    assert_eq!(close, Some(CloseReason::ClientGone), "the break is no reason of its own");
    outbox.write_frame(&[IoSlice::new(&[0; 600_000])]);
    assert_eq!(outbox.queued_bytes(), 0);
    assert_eq!(push(&outbox, Bytes::from_static(b"late"), SlowReader::Close, b"").fate, Fate::Gone);
    assert_eq!(outbox.end(), 1, "what was held is counted as lost");
}

#[tokio::test]
async fn a_push_beyond_the_bound_closes_the_slow_reader_and_tiny_pieces_count_with_their_cost() {
    for len in [1, 100, 5000] {
        let (outbox, _far) = outbox(64 * 1024);
        let frame = Bytes::from(vec![0; len]);
        let mut pushed = 0;
        while push(&outbox, frame.clone(), SlowReader::Close, b"").fate != Fate::DroppedClose {
            pushed += 1;
            assert!(pushed < 1_000_000, "nothing bounds frames of {len} bytes");
        }
        let close = outbox.take_asked_close().expect("the session is asked to end");
        assert_eq!(close.reason, CloseReason::SlowReader);
        let cost = outbox.lock().backlog.cost();
        assert!(cost <= 64 * 1024 + backlog::PIECE_COST, "{cost} for frames of {len} bytes");
    }
}

/// Pushes numbered frames, `together` at a time, to a client that first reads nothing and then reads. Returns the
/// frames that arrive, and the sum of all fates.
async fn pushed_to_a_stalled_reader(rule: SlowReader, keys: u32, together: usize) -> (Vec<u32>, [u32; 5]) {
    let (outbox, mut far) = outbox(20_000);
    let mut counts = [0; 5];
    let numbers: Vec<u32> = (0..200).collect();
    let topics: Vec<_> = (0..keys)
        .map(|key| Arc::new(Topic { channel: None, key: Name::new(key.to_string().as_bytes()).ok() }))
        .collect();
    for numbers in numbers.chunks(together) {
        let pushes = numbers.iter().map(|number| {
            let frame = outbox.framing().encode(FrameKind::Binary, &body(1, *number, 1000)).unwrap();
            (Push { frame, rule: Some(rule), topic: &topics[(number % keys) as usize] }, *number)
        });
        let mut told = Vec::new();
        outbox.push_all(pushes.collect(), |number, pushed| {
            told.push(number);
            match pushed.fate {
                Fate::Written => counts[0] += 1,
                Fate::Queued => counts[1] += 1,
                Fate::DroppedNewest => counts[2] += 1,
                Fate::DroppedClose | Fate::Gone => unreachable!("{pushed:?}"),
            }
            counts[3] += pushed.dropped_oldest;
            counts[4] += pushed.dropped_latest;
        });
        assert_eq!(told, numbers);
        assert!(outbox.queued_bytes() <= 20_000);
    }
    let reader = std::thread::spawn(move || {
        let framing = Framing::Length(LengthFraming::default());
        let (mut decoder, mut arrived, mut buffer) = (Decoder::new_client(&framing), Vec::new(), [0; 4096]);
        loop {
            let n = far.read(&mut buffer).unwrap();
            if n == 0 {
                return arrived;
            }
            let mut input = &buffer[..n];
            while !input.is_empty() {
                let (used, item) = decoder.decode(&framing, 1 << 20, input).unwrap();
                input = &input[used..];
                let Some(Item::Frame(frame)) = item else { continue };
                let number = u32::from_be_bytes(frame.body[1..5].try_into().unwrap());
                assert_eq!(frame.body, body(1, number, 1000), "whole");
                arrived.push(number);
            }
        }
    });
    poll_fn(|cx| outbox.poll_flush(cx)).await;
    outbox.link().shutdown_write();
    let arrived = reader.join().unwrap();
    assert_eq!(outbox.queued_bytes(), 0);
    (arrived, counts)
}

#[tokio::test]
async fn each_rule_for_slow_readers_drops_what_it_says_and_counts_it() {
    for together in [1, 3, 100] {
        let (arrived, [written, queued, newest, oldest, latest]) =
            pushed_to_a_stalled_reader(SlowReader::Newest, 1, together).await;
        assert_eq!(arrived, (0..written + queued).collect::<Vec<_>>(), "the first ones, in order");
        assert_eq!((written + queued + newest, oldest, latest), (200, 0, 0));
        assert!(newest > 100);

        let (arrived, [written, queued, newest, oldest, latest]) =
            pushed_to_a_stalled_reader(SlowReader::Oldest, 1, together).await;
        assert_eq!((written + queued, newest, latest), (200, 0, 0));
        assert_eq!(arrived.len() as u32, 200 - oldest);
        assert!(arrived.is_sorted() && arrived.ends_with(&(190..200).collect::<Vec<_>>()), "{arrived:?}");

        let (arrived, [written, queued, newest, oldest, latest]) =
            pushed_to_a_stalled_reader(SlowReader::Latest, 5, together).await;
        assert_eq!((written + queued, newest, oldest), (200, 0, 0));
        assert_eq!(arrived.len() as u32, 200 - latest);
        assert!(arrived.is_sorted() && arrived.ends_with(&[195, 196, 197, 198, 199]), "{arrived:?}");
        assert!(latest > 150, "one frame for each of five keys waits: {latest}");
    }
}

#[tokio::test]
async fn nothing_is_pushed_behind_the_last_word_and_what_never_left_is_counted() {
    let (outbox, _far) = outbox(1 << 20);
    let frame = Bytes::from(vec![0; 10_000]);
    let queued = (0..20).filter(|_| push(&outbox, frame.clone(), SlowReader::Close, b"").fate == Fate::Queued);
    let queued = queued.count() as u32;
    assert!(queued > 10);
    outbox.last_word(Some(Bytes::from_static(b"bye")));
    assert_eq!(push(&outbox, frame.clone(), SlowReader::Close, b"").fate, Fate::Gone);
    assert_eq!(outbox.end(), queued);
    assert_eq!(push(&outbox, frame, SlowReader::Close, b"").fate, Fate::Gone);
}
