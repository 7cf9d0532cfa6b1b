//! Support for the simulation of sessions: a connection without sockets, other threads where there is only one, and
//! faults that the simulation must find.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static OTHERS: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// A fault that the code once had, or might have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The outbox still counts as streaming after a streamed reply has ended.
    StreamStays,
    /// The lock is released between the decision about what may leave and the write.
    LockDropped,
    /// Frames held until a reply has ended take the room of that reply.
    HeldTakesRoom,
    /// Held frames count as not taken by the client.
    HeldIsUnwritten,
    /// A session is not told of the end of its event.
    EndNotTold,
    /// A client is judged before its bytes are read.
    JudgedUnread,
    /// Bytes that were read but not cut into frames are forgotten at the end.
    UnreadForgotten,
    /// A post waits for room in the outbox, although its answer does not go there.
    PostWaitsForRoom,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::StreamStays,
        Self::LockDropped,
        Self::HeldTakesRoom,
        Self::HeldIsUnwritten,
        Self::EndNotTold,
        Self::JudgedUnread,
        Self::UnreadForgotten,
        Self::PostWaitsForRoom,
    ];

    /// Turns one fault on for this thread, or all of them off.
    pub(crate) fn set(fault: Option<Self>) {
        FAULT.set(fault);
    }

    /// Whether this fault is on for this thread.
    pub(crate) fn is_on(self) -> bool {
        FAULT.get() == Some(self)
    }
}

/// Sets the function that stands for other threads. It runs whenever an outbox is about to be locked. `None` removes
/// it.
pub(crate) fn set_others(others: Option<Box<dyn FnMut()>>) {
    OTHERS.set(others);
}

/// Called when an outbox is about to be locked. The function is not interrupted in turn.
pub(super) fn let_others_run() {
    let Some(mut others) = OTHERS.take() else { return };
    others();
    OTHERS.set(Some(others));
}

/// A connection without a socket. The client takes as many bytes as it opens its window for.
#[derive(Debug, Default)]
pub struct Pipe(Mutex<Ends>);

#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Bytes that the client has sent and that are not read yet.
    pub(crate) unread: VecDeque<u8>,
    /// Bytes that were read.
    pub(crate) read: usize,
    /// Bytes that were written and that the client has not checked yet.
    pub(crate) written: Vec<u8>,
    /// How many more bytes the client takes.
    pub(crate) window: usize,
    /// The client sends nothing more.
    pub(crate) has_finished: bool,
    /// The client takes nothing more: writing fails.
    pub(crate) is_gone: bool,
    /// Reading fails too.
    pub(crate) is_reset: bool,
    /// The node has ended its side.
    pub(crate) is_shut: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(crate) fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().expect("nothing panics while a pipe is locked")
    }

    /// Changes the client's end, and wakes the node's side.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Ends)) {
        let mut ends = self.ends();
        change(&mut ends);
        let wakers = [ends.reader.take(), ends.writer.take()];
        drop(ends);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut ends = self.ends();
        if ends.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = ends.unread.len().min(buffer.len());
        if len > 0 {
            ends.unread.drain(..len).zip(buffer).for_each(|(byte, into)| *into = byte);
            ends.read += len;
            return Poll::Ready(Ok(len));
        }
        if ends.has_finished {
            return Poll::Ready(Ok(0));
        }
        ends.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.ends();
        if ends.window > 0 || ends.is_gone {
            return Poll::Ready(Ok(()));
        }
        ends.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut ends = self.ends();
        if ends.is_gone || ends.is_shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if ends.window == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = 0;
        for slice in slices {
            let len = slice.len().min(ends.window);
            ends.written.extend_from_slice(&slice[..len]);
            ends.window -= len;
            taken += len;
        }
        Ok(taken)
    }

    pub(super) fn shut(&self) {
        self.ends().is_shut = true;
    }
}
