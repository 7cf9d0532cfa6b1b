//! The outbox: the bounded queue into one session, and the requests that other tasks may make to it.
//!
//! A session's state belongs to its task. All other tasks hold its `Outbox`. They write replies and pushes to it, may
//! ask it for a close, and leave signals (the wheel, ended events). Bytes go to the socket at once, on the thread that
//! produced them. Only bytes that the socket does not take are queued, and then the session's task is woken to write
//! them.
//!
//! ```text
//!            write, push                        session's task: poll_flush
//!   Open ----------------------> socket full -----------------------------> socket
//!    |                              |  queue, at most max_bytes plus one reply
//!    | end(): the task has ended the session
//!    v
//!   Ended    further bytes are dropped, waiting replies are woken
//! ```
//!
//! A session is a guest while PHP runs its connect event. A guest can be found, joined to channels, bound and pushed to
//! as any other session. But its pushes wait here, within the same bound, until PHP has admitted it. A refused session
//! gets none of them.
//!
//! `stage.rs` decides what may leave at each point of a reply and of a session's life. The decision and the write
//! happen under one lock. While a reply streams, whole frames of others are held here. They count within the bound, but
//! they do not take the room of that reply, which would then wait for itself. They also do not count as bytes that the
//! client fails to read.
//!
//! The queue's bound is `max_bytes`. Each piece counts with the memory that it costs. Otherwise a client that takes
//! nothing and asks for tiny frames (pongs) would cost many times its bound.
//!
//! - A push that would exceed the bound follows the slow-reader rule of its channel or of the app ([`SlowReader`]): the
//!   session is closed with [`CloseReason::SlowReader`], older pushes make room, or the push is dropped.
//! - A reply waits instead ([`Outbox::poll_room`]), which stops reading from php-fpm. The piece in hand is still taken.
//! - Control frames always find room. Only frames that were read from the client cause them, and a full outbox stops
//!   that reading too.

mod backlog;
mod close;
mod codec;
#[cfg(test)]
pub(crate) mod faults;
mod feed;
mod guard;
mod inner;
mod link;
mod push;
mod signals;
mod stage;

use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;
use bytes::Bytes;

use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::proto::framing::Framing;
use crate::proto::id::SessionId;
use crate::transport::Transport;

use self::backlog::PieceKind;
pub use self::backlog::Topic;
pub use self::close::Close;
pub use self::feed::{Batch, BrokenOff, Feed, FeedReader, MAX_BYTES as MAX_FEED_BYTES, PollTurn};
use self::guard::Guard;
use self::inner::{Inner, copy_tail};
pub use self::link::ClientLink;
pub use self::push::{Fate, Push, Pushed};
pub use self::signals::Signals;
use self::stage::{Departure, OutboxStage, OutputKind, Unit};
pub use crate::config::model::SlowReader;

/// The settings shared by all sessions of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The listener of the sessions.
    pub listener: String,
    /// The app of the sessions.
    pub app: String,
    /// Bytes that may wait for one client.
    pub max_bytes: usize,
    /// The app's rule for a push that finds no room.
    pub slow_reader: SlowReader,
    /// Frames below this size are sent uncompressed.
    pub deflate_min_bytes: usize,
    /// Whether a push without a body is a frame.
    pub sends_empty: bool,
}

/// The queue into one session, shared by its task and by all who send to it. Its methods, by caller:
///
/// - *The reply* (`session/answer`): `write_frame`, `write_piece`, `begin_stream`, `end_stream`, `break_stream`; it waits in `poll_room` and
///   `poll_unwanted`.
/// - *Others* (router, API, other nodes): `push`, `push_all`, `ask_close`; the wheel `tick`; a handler's task `event_ended`, `leave_cookies`.
/// - *A codec* that frames messages itself: everything in `codec.rs`.
/// - *The session's task*: `queue_control`, `queue_frame`, `poll_flush`, `take_asked_close`, `take_signals`, and for the session's life `arrive`, `admit`,
///   `last_word`, `end`.
/// - *Anybody who wants to know*: `is_clear`, `is_full`, `queued_bytes`, `unwritten_bytes`, `bytes_out`, `progress`, `age`.
pub struct Outbox {
    id: SessionId,
    framing: Framing,
    terms: Arc<Terms>,
    link: ClientLink,
    task: AtomicWaker,
    signals: AtomicU32,
    /// `inner` has nothing that the task must handle: no bytes, no close, no end. [`Guard`] keeps it up to date. A read
    /// without the lock may be a moment old, but every change wakes the task afterwards.
    is_quiet: AtomicBool,
    /// See [`Outbox::may_have_params`].
    may_have_params: AtomicBool,
    /// Seconds since 1970.
    opened: u32,
    inner: Mutex<Inner>,
}

impl Outbox {
    /// The outbox of a new session.
    pub fn new(id: SessionId, framing: Framing, terms: Arc<Terms>, link: ClientLink) -> Self {
        Self {
            id,
            framing,
            terms,
            link,
            task: AtomicWaker::new(),
            signals: AtomicU32::new(0),
            is_quiet: AtomicBool::new(false),
            may_have_params: AtomicBool::new(false),
            opened: seconds_since_1970(),
            inner: Mutex::default(),
        }
    }

    /// The outbox of a guest: pushes are held until the session is [admitted](Self::admit). If a codec frames the
    /// messages, nothing is held: its bytes must leave in the order in which it made them, and its own messages cannot wait for PHP.
    pub fn of_guest(id: SessionId, framing: Framing, terms: Arc<Terms>, link: ClientLink) -> Self {
        let mut outbox = Self::new(id, framing, terms, link);
        if outbox.framing.codec().is_none() {
            outbox.inner.get_mut().expect("a new mutex is not poisoned").stage = OutboxStage::GUEST;
        }
        outbox
    }

    /// Sets the socket that [`ClientLink::awaited`] waits for.
    pub fn arrive(&self, transport: Transport) {
        self.link.arrive(transport);
        // TLS may keep bytes, so `is_quiet` has to be computed again, which dropping the guard does.
        drop(self.lock());
    }

    /// PHP has admitted the session and the client was told. The held pushes follow the bytes written so far.
    pub fn admit(&self) {
        let mut inner = self.lock();
        if inner.stage.admit() {
            self.release(inner);
        }
    }

    /// The session of this outbox.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The same, as a reference that lives as long as the outbox.
    pub fn id_ref(&self) -> &SessionId {
        &self.id
    }

    /// The framing of the session.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// The link to the client, from which the session's task reads.
    pub fn link(&self) -> &ClientLink {
        &self.link
    }

    /// The settings that this session shares with others.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The age of the session, in whole seconds of the wall clock.
    pub fn age(&self) -> Duration {
        Duration::from_secs(u64::from(seconds_since_1970().saturating_sub(self.opened)))
    }

    /// Whether the session may have a uid or attributes, which PHP gets with each event. Most sessions have none, and
    /// then need not be looked up for each event.
    pub fn may_have_params(&self) -> bool {
        self.may_have_params.load(Ordering::Acquire)
    }

    /// From now on [`Self::may_have_params`] is true.
    pub fn note_params(&self) {
        self.may_have_params.store(true, Ordering::Release);
    }

    /// Sends a whole frame of a reply. It is always taken, even above the bound (see the module).
    pub fn write_frame(&self, slices: &[IoSlice<'_>]) {
        self.write(OutputKind::Frame, slices);
    }

    /// Sends bytes of the reply that streams. They are always taken, even above the bound (see the module).
    pub fn write_piece(&self, slices: &[IoSlice<'_>]) {
        self.write(OutputKind::Piece, slices);
    }

    fn write(&self, kind: OutputKind, slices: &[IoSlice<'_>]) {
        let mut inner = self.lock();
        let departure = inner.stage.departure_of(kind);
        #[cfg(test)]
        if faults::Fault::LockDropped.is_on() {
            drop(inner);
            inner = self.lock();
        }
        match departure {
            Departure::Now => {}
            Departure::Later => {
                inner.backlog.hold(copy_tail(slices, slices.iter().map(|slice| slice.len()).sum()), PieceKind::Reply);
                return;
            }
            Departure::Never => return,
        }
        let queued_before = self.writable(&inner);
        inner.write(&self.link, slices, PieceKind::Reply, |rest| copy_tail(slices, rest));
        self.wake_writer(inner, queued_before);
    }

    /// Queues a control frame without writing it. [`Self::poll_flush`] follows when everything that was read is
    /// handled, so that all control frames leave in one write. A control frame may come between the fragments of a
    /// message. Inside a frame it waits.
    pub fn queue_control(&self, frame: Bytes) {
        self.queue(OutputKind::Control, frame);
    }

    /// The same for a frame that is not a control frame. It must not come inside another message, so it waits for the
    /// end of a reply that streams.
    pub fn queue_frame(&self, frame: Bytes) {
        self.queue(OutputKind::Frame, frame);
    }

    fn queue(&self, kind: OutputKind, frame: Bytes) {
        let mut inner = self.lock();
        match inner.stage.departure_of(kind) {
            Departure::Now => inner.backlog.enqueue(frame, PieceKind::Reply),
            Departure::Later => inner.backlog.hold(frame, PieceKind::Reply),
            Departure::Never => {}
        }
    }

    /// Whether a reply streams as one frame. Then even a control frame has to wait for its end.
    pub fn is_inside_frame(&self) -> bool {
        self.lock().stage.is_inside_frame()
    }

    /// Whether nothing waits and no reply streams. Then a frame sent now is the next one that the client sees.
    pub fn is_clear(&self) -> bool {
        let inner = self.lock();
        inner.stage.departure_of(OutputKind::Frame) == Departure::Now && !inner.waits()
    }

    /// A reply begins to stream. Whole frames are held until [`Self::end_stream`]. If the reply is one frame, control
    /// frames are held too. Returns false while another reply streams, which is possible when events run at once.
    pub fn begin_stream(&self, is_one_frame: bool) -> bool {
        self.lock().stage.begin(if is_one_frame { Unit::Frame } else { Unit::Pieces })
    }

    /// The streamed reply is complete. The held frames follow.
    pub fn end_stream(&self) {
        let mut inner = self.lock();
        #[cfg(test)]
        if faults::Fault::StreamStays.is_on() {
            return;
        }
        inner.stage.end();
        self.release(inner);
    }

    /// The reply that streams is broken off. Any further bytes would pass for the rest of it, so only a close frame may
    /// follow, and the session is asked to end. If the client is gone already, the session is not asked: then the
    /// frames that the client has sent before are still handled.
    pub fn break_stream(&self) {
        let mut inner = self.lock();
        inner.stage.break_off();
        let lost = inner.backlog.clear_held();
        inner.lost += lost;
        if !inner.stage.is_deaf() {
            inner.ask_close(CloseReason::ReplyBroken.into());
        }
        inner.wake_waiters();
        drop(inner);
        self.task.wake();
    }

    fn release(&self, mut inner: Guard<'_>) {
        let queued_before = self.writable(&inner);
        if !inner.stage.lets_held_go() || !inner.backlog.release() {
            return;
        }
        let was_full = self.has_no_room(&inner);
        inner.flush(&self.link);
        self.wake_writer(inner, queued_before);
        if was_full {
            self.task.wake();
        }
    }

    /// Whether the outbox is full. Then the task does not read, and it is woken only when others make room.
    fn has_no_room(&self, inner: &Inner) -> bool {
        inner.backlog.cost() >= self.terms.max_bytes
    }

    /// Writes until nothing waits. An error means that the client is gone.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_quiet() {
            return Poll::Ready(());
        }
        loop {
            {
                let mut inner = self.lock();
                if inner.stage.is_deaf() || inner.stage.is_ended() {
                    return Poll::Ready(());
                }
                inner.flush(&self.link);
                if self.writable(&inner) == 0 || inner.stage.is_deaf() {
                    return Poll::Ready(());
                }
            }
            if let Err(error) = ready!(self.link.poll_write_ready(cx)) {
                self.lock().fail(error);
                return Poll::Ready(());
            }
        }
    }

    /// Ready when a reply may bring more bytes, or when they will be dropped anyway. Frames that are held until the
    /// reply that `streams` has ended, or until connect has, do not take the room of that reply. Otherwise it would wait for itself.
    pub fn poll_room(&self, cx: &mut Context<'_>, streams: bool) -> Poll<()> {
        if self.is_quiet() {
            return Poll::Ready(());
        }
        let mut inner = self.lock();
        let waits_for_it = streams || inner.stage.is_guest();
        #[cfg(test)]
        let waits_for_it = waits_for_it && !faults::Fault::HeldTakesRoom.is_on();
        let cost = if waits_for_it { inner.backlog.ready_cost() } else { inner.backlog.cost() };
        if !inner.stage.takes_replies() || cost < self.terms.max_bytes {
            return Poll::Ready(());
        }
        inner.wait(cx.waker());
        Poll::Pending
    }

    /// Ready when the answer to an event is not wanted any more: the session has ended, or the answer `has_begun` to
    /// leave and no more of it can. An answer that has not begun to leave may matter for more than the client.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>, has_begun: bool) -> Poll<()> {
        let mut inner = self.lock();
        if inner.stage.is_ended() || has_begun && !inner.stage.takes_replies() {
            return Poll::Ready(());
        }
        inner.wait(cx.waker());
        Poll::Pending
    }

    /// Bytes that wait for the client to read, or that are held back here.
    pub fn queued_bytes(&self) -> usize {
        if self.is_quiet() {
            return 0;
        }
        self.lock().backlog.bytes() + self.link.unsent()
    }

    /// Bytes that wait only for the client. Frames held behind a streamed reply wait for this node, so they do not count.
    pub fn unwritten_bytes(&self) -> usize {
        if self.is_quiet() {
            return 0;
        }
        let inner = self.lock();
        if inner.stage.is_deaf() { 0 } else { self.writable(&inner) }
    }

    /// The outbox is full. The task then stops reading from the client too.
    pub fn is_full(&self) -> bool {
        !self.is_quiet() && self.has_no_room(&self.lock())
    }

    /// A counter that grows whenever the socket takes bytes, including bytes that count as written already. It wraps after 4 GB.
    pub fn progress(&self) -> u32 {
        self.lock().bytes_out.wrapping_sub(self.link.unsent() as u64) as u32
    }

    /// Bytes that the socket has taken.
    pub fn bytes_out(&self) -> u64 {
        self.lock().bytes_out
    }

    /// Asks the session to end. The first request sets the reason.
    pub fn ask_close(&self, close: Close) {
        self.lock().ask_close(close);
        self.task.wake();
    }

    /// Takes the requested close, for the session's task.
    pub fn take_asked_close(&self) -> Option<Box<Close>> {
        if self.is_quiet() {
            return None;
        }
        self.lock().asked_close.take()
    }

    /// Queues the last frame of this session, if its framing has one. Nothing follows it. After a broken-off frame it
    /// is not sent, because it would pass for a part of that frame.
    pub fn last_word(&self, frame: Option<Bytes>) {
        let mut inner = self.lock();
        if let Some(frame) = frame.filter(|_| inner.stage.departure_of(OutputKind::Goodbye) == Departure::Now) {
            inner.backlog.enqueue(frame, PieceKind::Reply);
        }
        inner.stage.say();
    }

    /// Ends the outbox: queued bytes are dropped and waiting replies are woken. Returns how many pushes were never
    /// sent, counted in this call and since the client was found gone.
    pub fn end(&self) -> u32 {
        let mut inner = self.lock();
        inner.stage.finish();
        let lost = inner.backlog.clear() + std::mem::take(&mut inner.lost);
        let waiters = std::mem::take(&mut inner.waiters);
        drop(inner);
        waiters.into_iter().for_each(Waker::wake);
        lost
    }

    /// Wakes the session's task to handle something outside the outbox.
    pub fn nudge(&self) {
        self.task.wake();
    }

    /// Registers the waker of the session's task. It must run before the task checks anything.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Wakes the task if it has to write bytes that the socket did not take, or to handle an error.
    fn wake_writer(&self, inner: Guard<'_>, queued_before: usize) {
        let wake = queued_before == 0 && self.writable(&inner) > 0 || inner.asked_close.is_some();
        drop(inner);
        if wake {
            self.task.wake();
        }
    }

    /// Bytes that the task has to write: those in the queue, and those that count as written but are not sent.
    fn writable(&self, inner: &Inner) -> usize {
        inner.backlog.ready_bytes() + self.link.unsent()
    }

    fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Acquire)
    }

    fn lock(&self) -> Guard<'_> {
        #[cfg(test)]
        faults::let_others_run();
        Guard { inner: lock(&self.inner), outbox: self }
    }
}

/// It takes four bytes in each session, and they last until 2106.
fn seconds_since_1970() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}

#[cfg(test)]
mod tests;
