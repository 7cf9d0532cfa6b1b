//! The feed of HTTP responses, for sessions that have no socket of their own.
//!
//! ```text
//!             try_write                          poll_chunk
//!   outbox ---------------> chunks, bounded ---------------> the body of one long response (stream)
//!                                |      take_turn, poll_batch
//!                                '------------------------> one short response after another (polls)
//! ```
//!
//! A write is taken whole or not at all, so a short response begins and ends with a whole frame. The bound is
//! [`MAX_BYTES`] and one write. Further bytes wait in the outbox, under its rules. Between two polls nothing is taken,
//! because the client is away.
//!
//! The writer is the session's task, or the answer of one request. The writer and the reader have one waker each here.
//! Dropping the reader of a stream abandons the feed, which is how the end of a client is noticed.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::locks::lock;

/// The number of bytes that may wait for the HTTP connection, like a socket's buffer.
pub const MAX_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Feed(Mutex<FeedState>);

#[derive(Debug)]
struct FeedState {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that a reader has taken so far.
    taken: u64,
    readers: Readers,
    /// Nothing more will be written.
    is_finished: bool,
    /// The writer ended before the body was complete.
    is_broken: bool,
    /// Nothing more will be read.
    is_abandoned: bool,
    writer: Option<Waker>,
    reader: Option<Waker>,
}

#[derive(Debug)]
enum Readers {
    /// One reader, from beginning to end.
    One,
    /// One poll after another, with the turn of the present one.
    Polls { turn: u64, is_here: bool },
}

/// The result of a poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Batch {
    /// Whole frames, at least one.
    Frames(Bytes),
    /// Another poll has taken the turn.
    Superseded,
    /// The feed has ended.
    Ended,
}

impl Feed {
    /// A feed that is read by one long response, through [`FeedReader`].
    pub fn stream() -> (Arc<Self>, FeedReader) {
        let feed = Arc::new(Self::new(Readers::One));
        (feed.clone(), FeedReader(feed))
    }

    /// Read by polls.
    pub fn polled() -> Arc<Self> {
        Arc::new(Self::new(Readers::Polls { turn: 0, is_here: false }))
    }

    fn new(readers: Readers) -> Self {
        Self(Mutex::new(FeedState {
            chunks: VecDeque::new(),
            bytes: 0,
            taken: 0,
            readers,
            is_finished: false,
            is_broken: false,
            is_abandoned: false,
            writer: None,
            reader: None,
        }))
    }

    /// Takes all of `slices` or, with `WouldBlock`, nothing. Any other error means that it will never be read.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.lock();
        if state.is_abandoned || state.is_finished {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !state.has_room() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = slices.iter().map(|slice| slice.len()).sum();
        let mut chunk = Vec::with_capacity(len);
        slices.iter().for_each(|slice| chunk.extend_from_slice(slice));
        state.push(chunk.into());
        Ok(len)
    }

    /// Appends a chunk without checking the bound. The caller uses [`Self::poll_room`] first.
    pub fn push(&self, chunk: Bytes) {
        let mut state = self.lock();
        if !state.is_abandoned && !state.is_finished {
            state.push(chunk);
        }
    }

    /// Ready when a write may be taken, or will never be.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.has_room() || state.is_abandoned || state.is_finished {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when the feed is not read any more.
    pub fn poll_abandoned(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_abandoned {
            return Poll::Ready(());
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the feed. The bytes in it can still be read.
    pub fn finish(&self) {
        self.lock().finish();
    }

    /// The same, for a writer that ends before the body is complete. The reader gets [`BrokenOff`].
    pub fn break_off(&self) {
        let mut state = self.lock();
        state.is_broken |= !state.is_finished;
        state.finish();
    }

    /// Notes that the feed will not be read any more, and drops its bytes.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        state.chunks = VecDeque::new();
        state.bytes = 0;
        // Wakes both sides: a poll in its turn, and a writer that waits for room.
        wake(&mut state.reader);
        wake(&mut state.writer);
    }

    /// Whether the client is between two polls.
    pub fn is_away(&self) -> bool {
        matches!(self.lock().readers, Readers::Polls { is_here: false, .. })
    }

    /// Read by polls.
    pub fn is_polled(&self) -> bool {
        matches!(self.lock().readers, Readers::Polls { .. })
    }

    /// The number of bytes read so far, and whether more bytes wait.
    pub fn progress(&self) -> (u64, bool) {
        let state = self.lock();
        (state.taken, state.bytes > 0)
    }

    /// Begins the turn of the next poll. A poll that still waits is superseded. The feed must be a polled one.
    pub fn take_turn(self: &Arc<Self>) -> PollTurn {
        let mut state = self.lock();
        let Readers::Polls { turn, is_here } = &mut state.readers else {
            unreachable!("a stream has one reader, made with it")
        };
        *turn += 1;
        *is_here = true;
        let turn = *turn;
        wake(&mut state.reader);
        wake(&mut state.writer);
        PollTurn { feed: self.clone(), turn }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        lock(&self.0)
    }
}

impl FeedState {
    fn has_room(&self) -> bool {
        self.bytes < MAX_BYTES && !matches!(self.readers, Readers::Polls { is_here: false, .. })
    }

    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
            wake(&mut self.reader);
        }
    }

    fn finish(&mut self) {
        self.is_finished = true;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    fn took(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.taken += bytes as u64;
        if self.has_room() {
            wake(&mut self.writer);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The one reader of a stream. Dropping it abandons the feed.
#[derive(Debug)]
pub struct FeedReader(Arc<Feed>);

/// The error of a body whose writer ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenOff;

impl std::fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer broke off")
    }
}

impl std::error::Error for BrokenOff {}

impl FeedReader {
    /// The next chunk, or the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let mut state = self.0.lock();
        if let Some(chunk) = state.chunks.pop_front() {
            state.took(chunk.len());
            return Poll::Ready(Some(Ok(chunk)));
        }
        if state.is_broken || state.is_abandoned {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        if state.is_finished {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The turn of one poll to read. Dropping it ends the turn, and the next poll gets the bytes that were not taken.
#[derive(Debug)]
pub struct PollTurn {
    feed: Arc<Feed>,
    turn: u64,
}

impl PollTurn {
    /// Takes all bytes as soon as there are any.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Batch> {
        let mut state = self.feed.lock();
        if !self.is_mine(&state) {
            return Poll::Ready(Batch::Superseded);
        }
        if state.bytes > 0 {
            let mut batch = Vec::with_capacity(state.bytes);
            std::mem::take(&mut state.chunks).iter().for_each(|chunk| batch.extend_from_slice(chunk));
            // The turn ends with its frames. Otherwise later writes would wait for a poll that is gone.
            state.end_turn();
            state.took(batch.len());
            return Poll::Ready(Batch::Frames(batch.into()));
        }
        if state.is_finished || state.is_abandoned {
            return Poll::Ready(Batch::Ended);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn is_mine(&self, state: &FeedState) -> bool {
        matches!(state.readers, Readers::Polls { turn, is_here: true } if turn == self.turn)
    }
}

impl FeedState {
    fn end_turn(&mut self) {
        if let Readers::Polls { is_here, .. } = &mut self.readers {
            *is_here = false;
        }
        // The session counts the time until the next poll from now.
        wake(&mut self.writer);
    }
}

impl Drop for PollTurn {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        if self.is_mine(&state) {
            state.end_turn();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn write(feed: &Feed, bytes: &[u8]) -> Option<usize> {
        match feed.try_write(&[IoSlice::new(bytes)]) {
            Ok(len) => Some(len),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                None
            }
        }
    }

    #[tokio::test]
    async fn a_stream_takes_writes_whole_up_to_its_bound_and_ends() {
        let (feed, mut reader) = Feed::stream();
        let piece = vec![7; MAX_BYTES / 2 + 1];
        assert_eq!(write(&feed, &piece), Some(piece.len()));
        assert_eq!(write(&feed, &piece), Some(piece.len()));
        assert_eq!(write(&feed, b"more"), None);
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, Some(Ok(piece.clone().into())));
        assert_eq!(write(&feed, b"more"), Some(4));
        feed.finish();
        assert!(feed.try_write(&[IoSlice::new(b"late")]).is_err());
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, Some(Ok(piece.into())));
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, Some(Ok(Bytes::from_static(b"more"))));
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, None);
        drop(reader);
        poll_fn(|cx| feed.poll_abandoned(cx)).await;
    }

    #[tokio::test]
    async fn a_writer_that_breaks_off_does_not_pass_for_one_that_has_ended() {
        let (feed, mut reader) = Feed::stream();
        assert_eq!(write(&feed, b"half"), Some(4));
        feed.break_off();
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, Some(Ok(Bytes::from_static(b"half"))));
        assert_eq!(poll_fn(|cx| reader.poll_chunk(cx)).await, Some(Err(BrokenOff)));
    }

    #[tokio::test]
    async fn polls_get_what_was_written_in_their_turn_and_nothing_is_taken_between_them() {
        let feed = Feed::polled();
        assert_eq!(write(&feed, b"early"), None);
        let mut first = feed.take_turn();
        assert_eq!(write(&feed, b"one,"), Some(4));
        assert_eq!(write(&feed, b"two"), Some(3));
        assert_eq!(poll_fn(|cx| first.poll_batch(cx)).await, Batch::Frames(Bytes::from_static(b"one,two")));
        assert!(feed.is_away());
        assert_eq!(write(&feed, b"between"), None);
        assert_eq!(poll_fn(|cx| first.poll_batch(cx)).await, Batch::Superseded);

        let mut second = feed.take_turn();
        let mut third = feed.take_turn();
        assert_eq!(poll_fn(|cx| second.poll_batch(cx)).await, Batch::Superseded);
        drop(second);
        assert!(!feed.is_away(), "the third is there");
        assert_eq!(write(&feed, b"three"), Some(5));
        // The client left before it was answered, so the next poll gets its frames.
        drop(third);
        third = feed.take_turn();
        assert_eq!(poll_fn(|cx| third.poll_batch(cx)).await, Batch::Frames(Bytes::from_static(b"three")));
        let mut last = feed.take_turn();
        feed.finish();
        assert_eq!(poll_fn(|cx| last.poll_batch(cx)).await, Batch::Ended);
    }
}
