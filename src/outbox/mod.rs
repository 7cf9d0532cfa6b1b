//! The bounded queue into one session, and what others may ask of it.
//!
//! A session's state belongs to its task. Everybody else holds its `Outbox`: replies and pushes leave bytes in it, anybody
//! may ask for a close, the wheel and ended events leave signals. Bytes go to the socket at once, from the thread where
//! they are born; only what the socket does not take is queued, and then the session's task is woken to write the rest.
//!
//! ```text
//!            write, push                        session's task: poll_flush
//!   Open ----------------------> socket full -----------------------------> socket
//!    |                              |  queue, at most max_bytes plus one reply
//!    | end(): the task saw the last of the client
//!    v
//!   Ended    further bytes are dropped, waiting replies are told
//! ```
//!
//! The queue's bound: `max_bytes`, in which each piece counts with what it costs to keep, or a client that takes nothing and
//! asks for tiny frames (pongs) would cost many times its bound. A push that would pass it asks for a close with
//! [`CloseReason::SlowReader`]. A reply waits instead ([`Outbox::poll_room`]), which stops reading from php-fpm; the piece
//! that is in hand is still taken.

mod close;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes};

use crate::proto::close::CloseReason;
use crate::proto::framing::Framing;
use crate::proto::id::SessionId;
use crate::transport::{MAX_SLICES, Transport};

pub use self::close::Close;

/// What became of a pushed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The socket has it.
    Written,
    /// It waits for the client to read.
    Queued,
    /// The outbox was full; the session is being closed.
    Dropped,
    /// The session has ended.
    Gone,
}

/// What happened since the task last looked, beside bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Events of this session that have ended.
    pub ended_events: u32,
    /// The connect event was answered, or may have been run.
    pub connect_counts: bool,
    /// The wheel came round.
    pub tick: bool,
}

/// What a piece in the queue costs beside its bytes: its place in the queue, its allocation.
const PIECE_COST: usize = 64;

const ENDED_EVENTS: u32 = 0xffff;
const CONNECT_COUNTS: u32 = 1 << 16;
const TICK: u32 = 1 << 17;

/// See the module.
pub struct Outbox {
    id: SessionId,
    framing: Framing,
    max_bytes: usize,
    transport: Transport,
    task: AtomicWaker,
    signals: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Encoded bytes that the socket did not take yet, in order.
    queue: VecDeque<Bytes>,
    queue_bytes: usize,
    /// Pushes that came in the middle of a streamed reply: a frame must not stand inside another.
    held: Vec<Bytes>,
    held_bytes: usize,
    is_streaming: bool,
    is_ended: bool,
    /// A write found the client gone.
    is_deaf: bool,
    asked_close: Option<Box<Close>>,
    /// Replies that wait for room or for the end of the session.
    waiters: Vec<Waker>,
    bytes_out: u64,
}

impl Outbox {
    /// The outbox of a new session.
    pub fn new(id: SessionId, framing: Framing, max_bytes: usize, transport: Transport) -> Self {
        Self {
            id,
            framing,
            max_bytes,
            transport,
            task: AtomicWaker::new(),
            signals: AtomicU32::new(0),
            inner: Mutex::default(),
        }
    }

    /// Whose outbox this is.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// How bodies become frames here.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// The socket, for the session's task to read from.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Sends one encoded frame, which may be shared with other sessions.
    pub fn push(&self, frame: Bytes) -> Pushed {
        let mut inner = self.lock();
        if inner.is_ended {
            return Pushed::Gone;
        }
        if inner.cost() + frame.len() > self.max_bytes && inner.waits() {
            let close = Close::new(CloseReason::SlowReader)
                .because(format!("{} bytes wait for the client", inner.queue_bytes + inner.held_bytes));
            inner.ask_close(close);
            drop(inner);
            self.task.wake();
            return Pushed::Dropped;
        }
        if inner.is_streaming {
            inner.hold(frame);
            return Pushed::Queued;
        }
        let queued_before = inner.queue_bytes;
        inner.write(&self.transport, &[IoSlice::new(&frame)], |rest| frame.slice(frame.len() - rest..));
        let queued = inner.queue_bytes > 0;
        self.wake_writer(inner, queued_before);
        if queued { Pushed::Queued } else { Pushed::Written }
    }

    /// Sends a whole frame of a reply: always taken, whatever the bound (see the module).
    pub fn write_frame(&self, slices: &[IoSlice<'_>]) {
        let mut inner = self.lock();
        if inner.is_streaming && !inner.is_ended {
            let frame = copy_tail(slices, slices.iter().map(|slice| slice.len()).sum());
            inner.hold(frame);
            return;
        }
        drop(inner);
        self.write(slices);
    }

    /// Sends bytes of the reply that streams: always taken, whatever the bound (see the module).
    pub fn write(&self, slices: &[IoSlice<'_>]) {
        let mut inner = self.lock();
        if inner.is_ended {
            return;
        }
        let queued_before = inner.queue_bytes;
        inner.write(&self.transport, slices, |rest| copy_tail(slices, rest));
        self.wake_writer(inner, queued_before);
    }

    /// Queues a control frame without writing; [`Self::poll_flush`] follows when everything read has been looked at, so
    /// that all of it leaves in one write.
    pub fn queue_control(&self, frame: Bytes) {
        let mut inner = self.lock();
        if !inner.is_ended {
            inner.enqueue(frame);
        }
    }

    /// A reply begins to stream: whole frames are held until [`Self::end_stream`]. False while another one streams, which
    /// events that run at once make possible.
    pub fn begin_stream(&self) -> bool {
        !std::mem::replace(&mut self.lock().is_streaming, true)
    }

    /// The streamed reply is whole: what was held follows.
    pub fn end_stream(&self) {
        let mut inner = self.lock();
        inner.is_streaming = false;
        if inner.held.is_empty() || inner.is_ended {
            return;
        }
        let queued_before = inner.queue_bytes;
        inner.held_bytes = 0;
        for frame in std::mem::take(&mut inner.held) {
            inner.enqueue(frame);
        }
        inner.flush(&self.transport);
        self.wake_writer(inner, queued_before);
    }

    /// Writes until nothing waits. An error means that the client is gone.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            {
                let mut inner = self.lock();
                if inner.queue.is_empty() || inner.is_ended {
                    return Poll::Ready(());
                }
                inner.flush(&self.transport);
                if inner.queue.is_empty() {
                    return Poll::Ready(());
                }
            }
            if let Err(error) = ready!(self.transport.poll_write_ready(cx)) {
                self.lock().ask_close(error.into());
                return Poll::Ready(());
            }
        }
    }

    /// Ready when a reply may bring more, or when nobody will take it.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.is_ended || inner.cost() < self.max_bytes {
            return Poll::Ready(());
        }
        inner.wait(cx.waker());
        Poll::Pending
    }

    /// Ready when nobody wants the answer to an event any more: the session has ended, or the answer `has_begun` to leave
    /// and the client cannot be written to. An answer that is still being made may matter for more than the client.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>, has_begun: bool) -> Poll<()> {
        let mut inner = self.lock();
        if inner.is_ended || inner.is_deaf && has_begun {
            return Poll::Ready(());
        }
        inner.wait(cx.waker());
        Poll::Pending
    }

    /// Bytes that wait for the client to read.
    pub fn queued_bytes(&self) -> usize {
        let inner = self.lock();
        inner.queue_bytes + inner.held_bytes
    }

    /// Bytes wait that could be written now; those held behind a streamed reply could not.
    pub fn has_unwritten(&self) -> bool {
        self.lock().queue_bytes > 0
    }

    /// As many bytes wait as may: the task stops reading from the client too.
    pub fn is_full(&self) -> bool {
        self.lock().cost() >= self.max_bytes
    }

    /// Bytes that the socket has taken.
    pub fn bytes_out(&self) -> u64 {
        self.lock().bytes_out
    }

    /// Asks the session to end. The first to ask gives the reason.
    pub fn ask_close(&self, close: Close) {
        self.lock().ask_close(close);
        self.task.wake();
    }

    /// What was asked for, for the session's task: once.
    pub fn take_asked_close(&self) -> Option<Box<Close>> {
        self.lock().asked_close.take()
    }

    /// The session's task takes nothing more: queued bytes are given up, waiting replies are told.
    pub fn end(&self) {
        let waiters = {
            let mut inner = self.lock();
            inner.is_ended = true;
            inner.queue = VecDeque::new();
            inner.queue_bytes = 0;
            inner.held = Vec::new();
            inner.held_bytes = 0;
            std::mem::take(&mut inner.waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// No event of this session runs: what still waits here is a waker that nobody needs, and it would keep the memory of
    /// a task that may have ended.
    pub fn forget_waiters(&self) {
        self.lock().waiters = Vec::new();
    }

    /// An event of this session has ended.
    pub fn event_ended(&self) {
        self.signals.fetch_add(1, Ordering::AcqRel);
        self.task.wake();
    }

    /// From now on a close event is owed.
    pub fn connect_counts(&self) {
        self.signals.fetch_or(CONNECT_COUNTS, Ordering::AcqRel);
    }

    /// The wheel came round.
    pub fn tick(&self) {
        self.signals.fetch_or(TICK, Ordering::AcqRel);
        self.task.wake();
    }

    /// The session's task waits here: register before looking at anything.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// What happened since the last call.
    pub fn take_signals(&self) -> Signals {
        let bits = self.signals.swap(0, Ordering::AcqRel);
        Signals {
            ended_events: bits & ENDED_EVENTS,
            connect_counts: bits & CONNECT_COUNTS != 0,
            tick: bits & TICK != 0,
        }
    }

    /// Wakes the task when it has to write what the socket did not take, or to look at an error.
    fn wake_writer(&self, inner: MutexGuard<'_, Inner>, queued_before: usize) {
        let wake = queued_before == 0 && inner.queue_bytes > 0 || inner.asked_close.is_some();
        drop(inner);
        if wake {
            self.task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while an outbox is locked")
    }
}

impl Inner {
    fn waits(&self) -> bool {
        self.queue_bytes + self.held_bytes > 0
    }

    fn cost(&self) -> usize {
        self.queue_bytes + self.held_bytes + (self.queue.len() + self.held.len()) * PIECE_COST
    }

    fn ask_close(&mut self, close: Close) {
        if self.asked_close.is_none() && !self.is_ended {
            self.asked_close = Some(Box::new(close));
        }
    }

    fn hold(&mut self, frame: Bytes) {
        self.held_bytes += frame.len();
        self.held.push(frame);
    }

    fn enqueue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue_bytes += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Straight to the socket when nothing waits; `rest` gives the last so many bytes to keep.
    fn write(&mut self, transport: &Transport, slices: &[IoSlice<'_>], rest: impl FnOnce(usize) -> Bytes) {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        if self.queue.is_empty() && len > 0 && !self.is_deaf {
            written = self.try_write(transport, slices);
        }
        if written < len && !self.is_deaf {
            self.enqueue(rest(len - written));
        }
    }

    /// Writes what the socket takes of the queue.
    fn flush(&mut self, transport: &Transport) {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let written = Self::try_write_counted(&mut self.bytes_out, transport, &slices[..count]);
            let written = match written {
                Ok(written) => written,
                Err(error) => {
                    self.fail(error);
                    return;
                }
            };
            self.queue_bytes -= written;
            let mut left = written;
            while let Some(front) = self.queue.front_mut() {
                if left < front.len() {
                    front.advance(left);
                    break;
                }
                left -= front.len();
                self.queue.pop_front();
            }
            if written > 0 {
                self.waiters.drain(..).for_each(Waker::wake);
            }
            if written < offered {
                return;
            }
        }
        // A queue that once was long must not stay with a session at rest.
        self.queue = VecDeque::new();
    }

    fn try_write(&mut self, transport: &Transport, slices: &[IoSlice<'_>]) -> usize {
        match Self::try_write_counted(&mut self.bytes_out, transport, slices) {
            Ok(written) => written,
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    fn try_write_counted(count: &mut u64, transport: &Transport, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match transport.try_write(slices) {
            Ok(written) => {
                *count += written as u64;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.ask_close(error.into());
        self.is_deaf = true;
        self.queue = VecDeque::new();
        self.queue_bytes = 0;
        self.waiters.drain(..).for_each(Waker::wake);
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiters.iter().any(|known| known.will_wake(waker)) {
            self.waiters.push(waker.clone());
        }
    }
}

/// The last `rest` bytes of `slices`, in one piece.
fn copy_tail(slices: &[IoSlice<'_>], rest: usize) -> Bytes {
    let mut skip = slices.iter().map(|slice| slice.len()).sum::<usize>() - rest;
    let mut tail = Vec::with_capacity(rest);
    for slice in slices {
        let from = skip.min(slice.len());
        tail.extend_from_slice(&slice[from..]);
        skip -= from;
    }
    tail.into()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::sync::Arc;

    use super::*;
    use crate::proto::framing::{Decoder, FrameKind, Item, LengthFraming};

    const PUSHERS: u8 = 4;
    const FRAMES: u32 = 300;
    const PIECES: u32 = 40;

    fn outbox(max_bytes: usize) -> (Arc<Outbox>, socket2::Socket) {
        let (near, far) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        near.set_send_buffer_size(4096).unwrap();
        let id = SessionId::from_bytes(b"AAAAAAAAAAAAAAAA").unwrap();
        let framing = Framing::Length(LengthFraming::default());
        (Arc::new(Outbox::new(id, framing, max_bytes, Transport::new(near).unwrap())), far)
    }

    /// Author, number, and a filling that is wrong as soon as one byte is missing or foreign.
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
                        assert!(matches!(outbox.push(frame), Pushed::Written | Pushed::Queued));
                    }
                })
            })
            .collect();
        threads.push(std::thread::spawn({
            let outbox = outbox.clone();
            move || {
                for number in 0..FRAMES / 10 {
                    let body = body(9, number, 5 + PIECES as usize * 100);
                    assert!(outbox.begin_stream(), "nobody else streams");
                    let head = outbox.framing().begin(Some(body.len() as u64)).unwrap().unwrap();
                    outbox.write(&[IoSlice::new(&head)]);
                    for piece in body.chunks(100) {
                        outbox.write(&[IoSlice::new(piece)]);
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
    async fn a_push_beyond_the_bound_closes_the_slow_reader_and_tiny_pieces_count_with_their_cost() {
        for len in [1, 100, 5000] {
            let (outbox, _far) = outbox(64 * 1024);
            let frame = Bytes::from(vec![0; len]);
            let mut pushed = 0;
            while outbox.push(frame.clone()) != Pushed::Dropped {
                pushed += 1;
                assert!(pushed < 1_000_000, "nothing bounds frames of {len} bytes");
            }
            let close = outbox.take_asked_close().expect("the session is asked to end");
            assert_eq!(close.reason, CloseReason::SlowReader);
            let pieces = outbox.lock().queue.len();
            assert!((pieces - 1) * (len + PIECE_COST) <= 64 * 1024, "{pieces} pieces of {len} bytes wait");
        }
    }
}
