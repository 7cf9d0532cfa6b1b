//! The locked part of an outbox, and its writes to the socket.

use std::io::{self, IoSlice};
use std::task::Waker;

use bytes::Bytes;
use smallvec::SmallVec;

use super::backlog::{Backlog, PieceKind};
use super::close::Close;
use super::link::ClientLink;
use super::stage::OutboxStage;
use crate::transport::MAX_SLICES;

#[derive(Default)]
pub(super) struct Inner {
    /// Encoded bytes that the socket did not take yet, and frames that came in the middle of a streamed reply. A frame
    /// must not come inside another one.
    pub(super) backlog: Backlog,
    /// Decides what may leave now. The decision and the write happen under one lock.
    pub(super) stage: OutboxStage,
    pub(super) asked_close: Option<Box<Close>>,
    /// The wakers of replies that wait for room or for the end of the session. There is nearly always one.
    pub(super) waiters: SmallVec<[Waker; 1]>,
    /// Pushes that waited when the client was found gone.
    pub(super) lost: u32,
    pub(super) bytes_out: u64,
    /// Cookies that answers have set, until the task takes them. There are seldom any.
    pub(super) cookies: Option<Box<Cookies>>,
}

#[derive(Default)]
pub(super) struct Cookies(pub(super) Vec<Box<[u8]>>);

impl Inner {
    pub(super) fn is_quiet(&self) -> bool {
        !self.waits() && self.asked_close.is_none() && !self.stage.is_ended() && !self.stage.is_deaf()
    }

    pub(super) fn waits(&self) -> bool {
        self.backlog.bytes() > 0
    }

    pub(super) fn ask_close(&mut self, close: Close) {
        if self.asked_close.is_none() && !self.stage.is_ended() {
            self.asked_close = Some(Box::new(close));
        }
    }

    /// Writes straight to the socket if nothing waits. `rest(n)` returns the last `n` bytes, which are queued.
    pub(super) fn write(
        &mut self,
        link: &ClientLink,
        slices: &[IoSlice<'_>],
        kind: PieceKind,
        rest: impl FnOnce(usize) -> Bytes,
    ) {
        let len: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = 0;
        if self.backlog.has_nothing_ready() && len > 0 && !self.stage.is_deaf() {
            written = self.try_write(link, slices);
        }
        if written < len && !self.stage.is_deaf() {
            if written > 0 {
                self.backlog.enqueue_rest(rest(len - written), kind);
            } else {
                self.backlog.enqueue(rest(len), kind);
            }
        }
    }

    /// Writes as much of the queue as the socket takes.
    pub(super) fn flush(&mut self, link: &ClientLink) {
        while !self.backlog.has_nothing_ready() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.backlog.slices(&mut slices);
            let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            let written = match Self::try_write_counted(&mut self.bytes_out, link, &slices[..count]) {
                Ok(written) => written,
                Err(error) => {
                    self.fail(error);
                    return;
                }
            };
            self.backlog.advance(written);
            if written > 0 {
                self.wake_waiters();
            }
            if written < offered {
                return;
            }
        }
        if let Err(error) = link.try_flush() {
            self.fail(error);
        }
    }

    pub(super) fn try_write(&mut self, link: &ClientLink, slices: &[IoSlice<'_>]) -> usize {
        match Self::try_write_counted(&mut self.bytes_out, link, slices) {
            Ok(written) => written,
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    fn try_write_counted(count: &mut u64, link: &ClientLink, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match link.try_write(slices) {
            Ok(written) => {
                *count += written as u64;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) fn fail(&mut self, error: io::Error) {
        self.ask_close(error.into());
        self.stage.deafen();
        self.lost += self.backlog.clear();
        self.wake_waiters();
    }

    pub(super) fn wake_waiters(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        if !self.waiters.iter().any(|known| known.will_wake(waker)) {
            self.waiters.push(waker.clone());
        }
    }
}

/// The last `rest` bytes of `slices`, in one piece.
pub(super) fn copy_tail(slices: &[IoSlice<'_>], rest: usize) -> Bytes {
    let mut skip = slices.iter().map(|slice| slice.len()).sum::<usize>() - rest;
    let mut tail = Vec::with_capacity(rest);
    for slice in slices {
        let from = skip.min(slice.len());
        tail.extend_from_slice(&slice[from..]);
        skip -= from;
    }
    tail.into()
}
