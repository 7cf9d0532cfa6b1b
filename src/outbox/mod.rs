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
mod link;
mod push;
mod signals;
mod stage;

use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use smallvec::SmallVec;

use crate::locks::lock;
use crate::proto::close::CloseReason;
use crate::proto::framing::Framing;
use crate::proto::id::SessionId;
use crate::transport::{MAX_SLICES, Transport};

pub use self::backlog::Topic;
use self::backlog::{Backlog, Kind};
pub use self::close::Close;
pub use self::feed::{Batch, BrokenOff, Feed, FeedReader, MAX_BYTES as MAX_FEED_BYTES, Turn};
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

/// What became of frames that were to leave together.
#[derive(Default)]
struct Together {
    /// So many left whole.
    written: usize,
    /// The next one left in part, and its rest waits.
    has_rest: bool,
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
    /// without the lock is at worst what it was a moment ago, and whoever changes it wakes the task afterwards.
    is_quiet: AtomicBool,
    /// See [`Outbox::may_have_params`].
    may_have_params: AtomicBool,
    /// Seconds since 1970.
    opened: u32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Encoded bytes that the socket did not take yet, and frames that came in the middle of a streamed reply: a frame must
    /// not stand inside another.
    backlog: Backlog,
    /// What may leave now. Asked and acted upon under one lock.
    stage: Stage,
    asked_close: Option<Box<Close>>,
    /// Replies that wait for room or for the end of the session: nearly always one.
    waiters: SmallVec<[Waker; 1]>,
    /// Pushes that waited when the client was found gone.
    lost: u32,
    bytes_out: u64,
    /// What answers have set, until the task takes it: seldom anything.
    cookies: Option<Box<Cookies>>,
}

#[derive(Default)]
struct Cookies(Vec<Box<[u8]>>);

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

    /// Sends encoded frames of commands, in one write where the socket takes them, and tells what became of each.
    pub fn push_all<'a, T>(&self, pushes: SmallVec<[(Push<'a>, T); 1]>, mut tell: impl FnMut(T, Pushed)) {
        let together = if pushes.len() > 1 { self.push_together(&pushes) } else { Together::default() };
        for (at, (push, of)) in pushes.into_iter().enumerate() {
            let pushed = match at {
                _ if at < together.written => Fate::Written.into(),
                _ if at == together.written && together.has_rest => Fate::Queued.into(),
                // What comes behind it waits, or finds no room.
                _ => self.push(push),
            };
            tell(of, pushed);
        }
    }

    /// As many whole frames as the socket takes while nothing waits for it.
    fn push_together<T>(&self, pushes: &[(Push<'_>, T)]) -> Together {
        let mut together = Together::default();
        let mut inner = self.lock();
        if inner.stage.place_of(What::Push) != Place::Now || self.writable(&inner) > 0 {
            return together;
        }
        for chunk in pushes.chunks(MAX_SLICES) {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            for (slice, (push, _)) in slices.iter_mut().zip(chunk) {
                *slice = IoSlice::new(&push.frame);
            }
            let mut left = inner.try_write(&self.link, &slices[..chunk.len()]);
            for (push, _) in chunk {
                if left < push.frame.len() {
                    together.has_rest = left > 0;
                    if left > 0 {
                        inner.backlog.enqueue_rest(push.frame.slice(left..), self.kind_of(push));
                    }
                    self.wake_writer(inner, 0);
                    return together;
                }
                left -= push.frame.len();
                together.written += 1;
            }
            if self.writable(&inner) > 0 {
                // TLS has taken all of it, and the socket has not taken all from TLS.
                (together.written, together.has_rest) = (together.written - 1, true);
                break;
            }
        }
        self.wake_writer(inner, 0);
        together
    }

    fn kind_of(&self, push: &Push<'_>) -> Kind {
        match push.rule.unwrap_or(self.terms.slow_reader) {
            SlowReader::Oldest | SlowReader::Latest => Kind::Droppable(push.topic.clone()),
            SlowReader::Close | SlowReader::Newest => Kind::Push,
        }
    }

    /// Sends one encoded frame of a command.
    pub fn push(&self, push: Push<'_>) -> Pushed {
        let rule = push.rule.unwrap_or(self.terms.slow_reader);
        let mut inner = self.lock();
        let place = inner.stage.place_of(What::Push);
        if place == Place::Nowhere {
            return Fate::Gone.into();
        }
        let was_full = self.has_no_room(&inner);
        let mut pushed = Pushed::from(Fate::Queued);
        if rule == SlowReader::Latest && inner.waits() {
            pushed.dropped_latest = inner.backlog.drop_topic(push.topic);
        }
        let max_bytes = self.terms.max_bytes;
        let is_over = |inner: &Inner| inner.backlog.cost() + push.frame.len() > max_bytes && inner.waits();
        if is_over(&inner) && matches!(rule, SlowReader::Oldest | SlowReader::Latest) {
            pushed.dropped_oldest = inner.backlog.drop_oldest(max_bytes.saturating_sub(push.frame.len()));
        }
        if pushed.dropped_latest + pushed.dropped_oldest > 0 {
            // This frame may leave at once, and then nothing else would tell who waits for the room.
            inner.wake_waiters();
            if was_full {
                self.task.wake();
            }
        }
        if is_over(&inner) {
            if rule != SlowReader::Close {
                return Pushed { fate: Fate::DroppedNewest, ..pushed };
            }
            let close = Close::new(CloseReason::SlowReader).because(self.why_full(&inner));
            inner.ask_close(close);
            drop(inner);
            self.task.wake();
            return Pushed { fate: Fate::DroppedClose, ..pushed };
        }
        let kind = self.kind_of(&push);
        if place == Place::Later {
            inner.backlog.hold(push.frame, kind);
            return pushed;
        }
        let queued_before = self.writable(&inner);
        let frame = push.frame;
        inner.write(&self.link, &[IoSlice::new(&frame)], kind, |rest| frame.slice(frame.len() - rest..));
        if inner.stage.is_deaf() {
            pushed.fate = Fate::Gone;
        } else if self.writable(&inner) == 0 {
            pushed.fate = Fate::Written;
        }
        self.wake_writer(inner, queued_before);
        pushed
    }

    /// For the log: what an outbox without room is full of.
    fn why_full(&self, inner: &Inner) -> String {
        let (held, waiting) = (inner.backlog.held_bytes(), inner.backlog.bytes());
        match held {
            0 => format!("{waiting} bytes wait for the client"),
            _ if inner.stage.is_guest() => format!("{held} of {waiting} bytes wait for the end of connect"),
            _ => format!("{held} of {waiting} bytes wait for the end of a reply that streams"),
        }
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

impl Inner {
    fn is_quiet(&self) -> bool {
        !self.waits() && self.asked_close.is_none() && !self.stage.is_ended() && !self.stage.is_deaf()
    }

    fn waits(&self) -> bool {
        self.backlog.bytes() > 0
    }

    fn ask_close(&mut self, close: Close) {
        if self.asked_close.is_none() && !self.stage.is_ended() {
            self.asked_close = Some(Box::new(close));
        }
    }

    /// Straight to the socket when nothing waits; `rest` gives the last so many bytes to keep.
    fn write(&mut self, link: &Link, slices: &[IoSlice<'_>], kind: Kind, rest: impl FnOnce(usize) -> Bytes) {
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

    /// Writes what the socket takes of the queue.
    fn flush(&mut self, link: &Link) {
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

    fn try_write(&mut self, link: &Link, slices: &[IoSlice<'_>]) -> usize {
        match Self::try_write_counted(&mut self.bytes_out, link, slices) {
            Ok(written) => written,
            Err(error) => {
                self.fail(error);
                0
            }
        }
    }

    fn try_write_counted(count: &mut u64, link: &Link, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match link.try_write(slices) {
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
        self.stage.deafen();
        self.lost += self.backlog.clear();
        self.wake_waiters();
    }

    fn wake_waiters(&mut self) {
        self.waiters.drain(..).for_each(Waker::wake);
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiters.iter().any(|known| known.will_wake(waker)) {
            self.waiters.push(waker.clone());
        }
    }
}

/// Four bytes in each session, until 2106.
fn seconds_since_1970() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32
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
        (Arc::new(Outbox::new(id(), framing(), terms(max_bytes), Link::to(near))), far)
    }

    #[tokio::test]
    async fn what_is_pushed_to_a_guest_waits_within_the_bound_and_follows_what_was_written() {
        let frame = |text: &str| framing().encode(FrameKind::Text, text.as_bytes()).unwrap();
        let guest = Outbox::of_guest(id(), framing(), terms(1000), Link::awaited());
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
        // A greeting that streams: its end lets nothing go that the guest's leave does not.
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

        let refused = Outbox::of_guest(id(), framing(), terms(1000), Link::awaited());
        push(&refused, frame("one"), SlowReader::Newest, b"");
        assert_eq!(refused.end(), 1, "it is counted as lost");
        assert_eq!(push(&refused, frame("two"), SlowReader::Newest, b"").fate, Fate::Gone);
    }

    fn push(outbox: &Outbox, frame: Bytes, rule: SlowReader, key: &[u8]) -> Pushed {
        let topic = Arc::new(Topic { channel: None, key: Name::new(key).ok() });
        outbox.push(Push { frame, rule: Some(rule), topic: &topic })
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

    /// Pushes numbered frames, so many at a time, to a client that reads nothing, then reads: what arrives, and the sum of what became
    /// of all.
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
}
