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
//! A session that PHP is being asked about is a guest: it can be found, joined, bound and pushed to as any other, but pushes wait
//! here, within the same bound, until PHP has let it in. Nothing of them is sent to one that is turned away.
//!
//! What may leave at which point of a reply and of a session's life is one stage (`stage.rs`), asked and acted upon under one lock.
//! While a reply streams, whole frames of others are held here. They count within the bound, but take no room of that reply,
//! which would wait for itself, and nobody takes them for bytes that the client does not read.
//!
//! The queue's bound: `max_bytes`, in which each piece counts with what it costs to keep, or a client that takes nothing and
//! asks for tiny frames (pongs) would cost many times its bound. What a push does that would pass it is the slow-reader rule
//! of its channel or of the app ([`SlowReader`]): the session is asked to end with [`CloseReason::SlowReader`], older pushes
//! make room, or the push is dropped. A reply waits instead ([`Outbox::poll_room`]), which stops reading from php-fpm; the
//! piece that is in hand is still taken. Control frames always find room: there are no more of them than what was read from
//! the client asked for, and a full outbox stops that too.

mod backlog;
mod close;
mod codec;
#[cfg(test)]
pub(crate) mod faults;
mod feed;
mod inner;
mod link;
mod push;
mod signals;
mod stage;

use std::io::IoSlice;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;
use bytes::Bytes;

use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::proto::framing::Framing;
use crate::proto::id::SessionId;
use crate::transport::Transport;

use self::backlog::Kind;
pub use self::backlog::Topic;
pub use self::close::Close;
pub use self::feed::{Batch, BrokenOff, Feed, FeedReader, MAX_BYTES as MAX_FEED_BYTES, Turn};
use self::inner::{Inner, copy_tail};
pub use self::link::Link;
pub use self::push::{Fate, Push, Pushed};
pub use self::signals::Signals;
use self::stage::{Place, Stage, Unit, What};
pub use crate::config::model::SlowReader;

/// What all sessions that come in through one door to one app have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Through which listener they came.
    pub listener: String,
    /// Whose they are.
    pub app: String,
    /// Bytes that may wait for one client.
    pub max_bytes: usize,
    /// What happens to a push that finds no room.
    pub slow_reader: SlowReader,
    /// Frames below this size are sent uncompressed.
    pub deflate_min_bytes: usize,
    /// Whether a push without a body is a frame.
    pub sends_empty: bool,
}

/// See the module.
pub struct Outbox {
    id: SessionId,
    framing: Framing,
    terms: Arc<Terms>,
    link: Link,
    task: AtomicWaker,
    signals: AtomicU32,
    /// Nothing is in `inner` that the task would have to look at: no bytes, no close, no end. Kept by [`Guard`]; what is read
    /// without the lock is at worst what it was a moment ago, and every change wakes the task afterwards.
    is_quiet: AtomicBool,
    /// See [`Outbox::may_have_params`].
    may_have_params: AtomicBool,
    /// Seconds since 1970.
    opened: u32,
    inner: Mutex<Inner>,
}

impl Outbox {
    /// The outbox of a new session.
    pub fn new(id: SessionId, framing: Framing, terms: Arc<Terms>, link: Link) -> Self {
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

    /// The outbox of a session that PHP is asked about: what is pushed is held until it is [admitted](Self::admit). Not where a codec
    /// frames: its bytes must leave in the order in which it gave them, and what it says by itself cannot wait for PHP.
    pub fn of_guest(id: SessionId, framing: Framing, terms: Arc<Terms>, link: Link) -> Self {
        let mut outbox = Self::new(id, framing, terms, link);
        if outbox.framing.codec().is_none() {
            outbox.inner.get_mut().expect("nobody has locked it").stage = Stage::GUEST;
        }
        outbox
    }

    /// The socket is here that [`Link::awaited`] waits for.
    pub fn arrive(&self, transport: Transport) {
        self.link.arrive(transport);
        // What TLS keeps makes an outbox less quiet than it seemed.
        drop(self.lock());
    }

    /// PHP has let the session in, and the client knows: what was held follows what has been written.
    pub fn admit(&self) {
        let mut inner = self.lock();
        if inner.stage.admit() {
            self.release(inner);
        }
    }

    /// Whose outbox this is.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The same, for as long as the outbox is.
    pub fn id_ref(&self) -> &SessionId {
        &self.id
    }

    /// How bodies become frames here.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// What leads to the client, for the session's task to read from.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What this session has in common with others.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How long the session has been there, in whole seconds of the wall clock.
    pub fn age(&self) -> Duration {
        Duration::from_secs(u64::from(seconds_since_1970().saturating_sub(self.opened)))
    }

    /// Whether commands may have made something of the session that PHP is told: most sessions have no uid and no attribute, and
    /// need not be looked up for each event.
    pub fn may_have_params(&self) -> bool {
        self.may_have_params.load(Ordering::Acquire)
    }

    /// From now on that is so.
    pub fn note_params(&self) {
        self.may_have_params.store(true, Ordering::Release);
    }

    /// Sends a whole frame of a reply: always taken, whatever the bound (see the module).
    pub fn write_frame(&self, slices: &[IoSlice<'_>]) {
        self.write(What::Frame, slices);
    }

    /// Sends bytes of the reply that streams: always taken, whatever the bound (see the module).
    pub fn write_piece(&self, slices: &[IoSlice<'_>]) {
        self.write(What::Piece, slices);
    }

    fn write(&self, what: What, slices: &[IoSlice<'_>]) {
        let mut inner = self.lock();
        let place = inner.stage.place_of(what);
        #[cfg(test)]
        if faults::Fault::LockDropped.is_on() {
            drop(inner);
            inner = self.lock();
        }
        match place {
            Place::Now => {}
            Place::Later => {
                inner.backlog.hold(copy_tail(slices, slices.iter().map(|slice| slice.len()).sum()), Kind::Reply);
                return;
            }
            Place::Nowhere => return,
        }
        let queued_before = self.writable(&inner);
        inner.write(&self.link, slices, Kind::Reply, |rest| copy_tail(slices, rest));
        self.wake_writer(inner, queued_before);
    }

    /// Queues a control frame without writing; [`Self::poll_flush`] follows when everything read has been looked at, so
    /// that all of it leaves in one write. It may stand among the fragments of a message; inside a frame it waits.
    pub fn queue_control(&self, frame: Bytes) {
        self.queue(What::Control, frame);
    }

    /// The same for a frame that is no control frame: it must not stand inside another, so it waits for the end of a reply
    /// that streams.
    pub fn queue_frame(&self, frame: Bytes) {
        self.queue(What::Frame, frame);
    }

    fn queue(&self, what: What, frame: Bytes) {
        let mut inner = self.lock();
        match inner.stage.place_of(what) {
            Place::Now => inner.backlog.enqueue(frame, Kind::Reply),
            Place::Later => inner.backlog.hold(frame, Kind::Reply),
            Place::Nowhere => {}
        }
    }

    /// A reply streams as one frame: even a control frame would have to wait for its end.
    pub fn is_inside_frame(&self) -> bool {
        self.lock().stage.is_inside_frame()
    }

    /// Nothing waits and no reply streams: what is sent now is what the client sees next.
    pub fn is_clear(&self) -> bool {
        let inner = self.lock();
        inner.stage.place_of(What::Frame) == Place::Now && !inner.waits()
    }

    /// A reply begins to stream: whole frames are held until [`Self::end_stream`], and control frames too if it is one frame.
    /// False while another one streams, which events that run at once make possible.
    pub fn begin_stream(&self, is_one_frame: bool) -> bool {
        self.lock().stage.begin(if is_one_frame { Unit::Frame } else { Unit::Pieces })
    }

    /// The streamed reply is whole: what was held follows.
    pub fn end_stream(&self) {
        let mut inner = self.lock();
        #[cfg(test)]
        if faults::Fault::StreamStays.is_on() {
            return;
        }
        inner.stage.end();
        self.release(inner);
    }

    /// The reply that streams will never be whole. Whatever followed would pass for the rest of it, so nothing does but a close frame,
    /// and the session is asked to end, unless nobody is there to be told anything: then what the client has said before is
    /// still handled.
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

    /// While that is so the task does not read, and nothing but the room that others make wakes it.
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

    /// Ready when a reply may bring more, or when nobody will take it. What is held until the reply that `streams` has ended, or until
    /// connect has, takes no room of that reply: it would wait for itself.
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

    /// Ready when nobody wants the answer to an event any more: the session has ended, or the answer `has_begun` to leave
    /// and no more can. An answer that is still being made may matter for more than the client.
    pub fn poll_unwanted(&self, cx: &mut Context<'_>, has_begun: bool) -> Poll<()> {
        let mut inner = self.lock();
        if inner.stage.is_ended() || has_begun && !inner.stage.takes_replies() {
            return Poll::Ready(());
        }
        inner.wait(cx.waker());
        Poll::Pending
    }

    /// Bytes that wait: for the client to read, or held back by us.
    pub fn queued_bytes(&self) -> usize {
        if self.is_quiet() {
            return 0;
        }
        self.lock().backlog.bytes() + self.link.unsent()
    }

    /// Bytes that wait for nobody but the client: those held behind a streamed reply wait for us.
    pub fn unwritten_bytes(&self) -> usize {
        if self.is_quiet() {
            return 0;
        }
        let inner = self.lock();
        if inner.stage.is_deaf() { 0 } else { self.writable(&inner) }
    }

    /// As many bytes wait as may: the task stops reading from the client too.
    pub fn is_full(&self) -> bool {
        !self.is_quiet() && self.has_no_room(&self.lock())
    }

    /// Grows, and begins anew after 4 GB, whenever the socket takes something, be it of what counts as written already.
    pub fn progress(&self) -> u32 {
        self.lock().bytes_out.wrapping_sub(self.link.unsent() as u64) as u32
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
        if self.is_quiet() {
            return None;
        }
        self.lock().asked_close.take()
    }

    /// The last frame of this session, if its framing has one for that: nothing follows it. Inside a frame that broke off it would
    /// pass for a part of that.
    pub fn last_word(&self, frame: Option<Bytes>) {
        let mut inner = self.lock();
        if let Some(frame) = frame.filter(|_| inner.stage.place_of(What::Goodbye) == Place::Now) {
            inner.backlog.enqueue(frame, Kind::Reply);
        }
        inner.stage.say();
    }

    /// The session's task takes nothing more: queued bytes are given up, waiting replies are told. Says how many pushes
    /// never left, in this call and since the client was found gone.
    pub fn end(&self) -> u32 {
        let mut inner = self.lock();
        inner.stage.finish();
        let lost = inner.backlog.clear() + std::mem::take(&mut inner.lost);
        let waiters = std::mem::take(&mut inner.waiters);
        drop(inner);
        waiters.into_iter().for_each(Waker::wake);
        lost
    }

    /// There is something for the session's task to look at that is not here.
    pub fn nudge(&self) {
        self.task.wake();
    }

    /// The session's task waits here: register before looking at anything.
    pub fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Wakes the task when it has to write what the socket did not take, or to look at an error.
    fn wake_writer(&self, inner: Guard<'_>, queued_before: usize) {
        let wake = queued_before == 0 && self.writable(&inner) > 0 || inner.asked_close.is_some();
        drop(inner);
        if wake {
            self.task.wake();
        }
    }

    /// Bytes that the task has to write: in the queue, and behind it those that only count as written.
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

/// The locked part; leaves word of whether it is quiet.
struct Guard<'a> {
    inner: MutexGuard<'a, Inner>,
    outbox: &'a Outbox,
}

impl Deref for Guard<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // What TLS has not sent yet changes without this lock.
        let is_quiet = self.inner.is_quiet() && !self.outbox.link.keeps_bytes();
        self.outbox.is_quiet.store(is_quiet, Ordering::Release);
    }
}

/// Four bytes in each session, until 2106.
fn seconds_since_1970() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}

#[cfg(test)]
mod tests;
