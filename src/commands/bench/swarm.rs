//! All connections of a run on one thread, with epoll and a call to the load for each event.
//!
//! A [`Load`] is called for each event and decides what to send. [`Swarm::turn`] waits once and handles all ready connections. All
//! messages that the load queues during an event of a connection leave in one write at the end of that event.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::connection::{BenchConnection, ConnectionEvent, Scratch};
use super::endpoint::Endpoint;
use super::timer::Timer;
use super::trouble::Trouble;

/// Connections that are being opened at the same time: fewer than the backlog of a listener holds.
const MAX_OPENING: usize = 128;
/// A refused client connects again after this pause. Without it both sides would be busy with nothing but refusals.
const PAUSE: Nanos = 100_000_000;
/// Longest wait in one turn, so that Ctrl-C is noticed.
const MAX_WAIT: Duration = Duration::from_millis(100);
const TIMER: Token = Token(usize::MAX);

/// Nanoseconds since a run's start.
pub(super) type Nanos = u64;

/// The work of a run.
pub(super) trait Load {
    fn opened(&mut self, handle: &mut ConnectionHandle<'_>);
    /// A frame came, or a reply.
    fn heard(&mut self, handle: &mut ConnectionHandle<'_>, body: &Bytes);
    /// A reply with an error status came.
    fn failed(&mut self, handle: &mut ConnectionHandle<'_>, trouble: Trouble);
    /// The server sent a ping.
    fn pinged(&mut self) {}
    /// A connection has ended or could not be opened.
    fn ended(&mut self, who: usize, now: Nanos, trouble: Trouble) -> After;
    /// Called once per turn: does all work that is due, and returns when the next is due.
    fn tick(&mut self, swarm: &mut Swarm, now: Nanos) -> Nanos;
    /// The progress in one line.
    fn line(&self, now: Nanos) -> String;
}

/// A load that is measured for a part of its time.
pub(super) trait Measured: Load {
    /// Starts the work that is measured later.
    fn start(&mut self, swarm: &mut Swarm);
    /// Begins to count.
    fn begin(&mut self, now: Nanos);
    /// Stops working and counting.
    fn stop(&mut self, now: Nanos);
    /// Whether no client is left.
    fn is_deserted(&self) -> bool;
}

/// What to do with a client's place after its connection has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays empty.
    Gone,
    /// Another one is opened.
    Again,
    /// Another one is opened after a pause.
    Later,
}

/// One connection, as passed to the load in an event.
pub(super) struct ConnectionHandle<'s> {
    /// Its number.
    pub(super) who: usize,
    /// The time of the event.
    pub(super) now: Nanos,
    connection: &'s mut BenchConnection,
    endpoint: &'s Endpoint,
    scratch: &'s mut Scratch,
    verdict: Result<(), Trouble>,
    leaves: Option<After>,
    /// When the connection was begun.
    pub(super) begun: Nanos,
}

impl ConnectionHandle<'_> {
    /// Queues a message; it is sent with the others of this event.
    pub(super) fn say(&mut self, body: &[u8]) {
        let said = self.connection.say(self.endpoint, body, self.scratch);
        if self.verdict.is_ok() {
            self.verdict = said;
        }
    }

    /// Queues bytes that are not a client's message.
    pub(super) fn say_raw(&mut self, bytes: &[u8]) {
        self.connection.say_raw(bytes);
    }

    /// Closes our direction of the connection.
    pub(super) fn finish(&mut self) {
        if let Err(trouble) = self.connection.finish() {
            self.refuse(trouble);
        }
    }

    /// Closes the connection with a reset, without a call to [`Load::ended`].
    pub(super) fn leave(&mut self, after: After) {
        self.leaves = Some(after);
    }

    /// Closes the connection because of a fault in the received bytes.
    pub(super) fn refuse(&mut self, trouble: Trouble) {
        self.verdict = Err(trouble);
    }

    /// Whether the server has said that it closes after its last reply.
    pub(super) fn closes(&self) -> bool {
        self.connection.closes()
    }
}

struct ConnectionSlot {
    endpoint: Rc<Endpoint>,
    connection: Option<BenchConnection>,
    /// Number of connection attempts at this place.
    times: u32,
    begun: Nanos,
    wants_write: bool,
}

/// The connections.
pub(super) struct Swarm {
    poll: Poll,
    events: Events,
    timer: Timer,
    timer_at: Nanos,
    slots: Vec<ConnectionSlot>,
    to_open: VecDeque<usize>,
    /// Places that wait to connect again, and until when.
    pausing: VecDeque<(Nanos, usize)>,
    /// Places whose connection is being opened: the deadline, the place and the number of the attempt.
    opening: VecDeque<(Nanos, usize, u32)>,
    pending: usize,
    scratch: Scratch,
    heard: Vec<ConnectionEvent>,
    start: Instant,
    timeout: Duration,
    interrupted: Arc<AtomicBool>,
    pub(super) max_opening: usize,
}

impl Swarm {
    pub(super) fn new(timeout: Duration, interrupted: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = Timer::new()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            timer,
            timer_at: 0,
            slots: Vec::new(),
            to_open: VecDeque::new(),
            pausing: VecDeque::new(),
            opening: VecDeque::new(),
            pending: 0,
            scratch: Scratch::new(),
            heard: Vec::new(),
            start: Instant::now(),
            timeout,
            interrupted,
            max_opening: MAX_OPENING,
        })
    }

    pub(super) fn now(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }

    /// Whether Ctrl-C was pressed.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Adds a slot; its connection is opened in one of the next turns.
    pub(super) fn add(&mut self, endpoint: &Rc<Endpoint>) -> usize {
        let who = self.slots.len();
        self.slots.push(ConnectionSlot {
            endpoint: endpoint.clone(),
            connection: None,
            times: 0,
            begun: 0,
            wants_write: false,
        });
        self.to_open.push_back(who);
        who
    }

    /// Connections that are being opened or wait for their turn.
    pub(super) fn pending(&self) -> usize {
        self.pending + self.to_open.len() + self.pausing.len()
    }

    /// Lets the load act on a connection outside of an event. Does nothing if the place has no connection.
    pub(super) fn with<L: Load>(
        &mut self,
        who: usize,
        load: &mut L,
        act: impl FnOnce(&mut L, &mut ConnectionHandle<'_>),
    ) {
        let now = self.now();
        self.drive(who, now, load, |_, _, _, _| Ok(()), Some(act));
    }

    /// Closes a connection from our side, without a call to the load.
    pub(super) fn drop_connection(&mut self, who: usize) {
        if let Some(connection) = self.slots[who].connection.take() {
            if !connection.is_open() {
                self.pending -= 1;
            }
            connection.reset();
        }
    }

    /// Opens a new connection at a place without one.
    pub(super) fn reopen(&mut self, who: usize) {
        self.to_open.push_back(who);
    }

    /// Closes every connection with a reset.
    pub(super) fn reset_all(&mut self) {
        self.to_open.clear();
        self.pausing.clear();
        for who in 0..self.slots.len() {
            self.drop_connection(who);
        }
    }

    /// Waits for events, at most until `until`, and handles them.
    pub(super) fn turn<L: Load>(&mut self, load: &mut L, until: Nanos) -> io::Result<()> {
        while self.pausing.front().is_some_and(|(over, _)| *over <= self.now()) {
            self.to_open.extend(self.pausing.pop_front().map(|(_, who)| who));
        }
        self.open_some(load);
        self.give_up_late(load);
        let now = self.now();
        let until = self.pausing.front().map_or(until, |(over, _)| until.min(*over));
        let wait = if until <= now { Duration::ZERO } else { self.wait(until, now)? };
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, Some(wait));
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.events = events;
                return Err(error);
            }
            _ => {}
        }
        for event in &events {
            let Token(who) = event.token();
            if event.token() == TIMER {
                // The timer has fired. It fires again only after it has been set again.
                self.timer_at = 0;
                continue;
            }
            let (readable, writable) =
                (event.is_readable() || event.is_read_closed() || event.is_error(), event.is_writable());
            let has_ended = event.is_read_closed() || event.is_error();
            let now = self.now();
            self.drive(
                who,
                now,
                load,
                |connection, endpoint, scratch, heard| {
                    if writable && (!connection.is_open() || connection.is_blocked()) {
                        connection.writable(endpoint, scratch, heard)?;
                    }
                    if readable {
                        connection.readable(endpoint, scratch, heard, has_ended)?;
                    }
                    Ok(())
                },
                None::<fn(&mut L, &mut ConnectionHandle<'_>)>,
            );
        }
        self.events = events;
        Ok(())
    }

    fn come_back(&mut self, who: usize, now: Nanos, after: After) {
        match after {
            After::Gone => {}
            After::Again => self.to_open.push_back(who),
            After::Later => self.pausing.push_back((now + PAUSE, who)),
        }
    }

    /// Sets the timer to `until` if that is near. Returns the longest time that epoll may wait.
    fn wait(&mut self, until: Nanos, now: Nanos) -> io::Result<Duration> {
        let left = Duration::from_nanos(until - now);
        if left >= MAX_WAIT {
            return Ok(MAX_WAIT);
        }
        if self.timer_at != until {
            self.timer.set(left)?;
            self.timer_at = until;
        }
        Ok(MAX_WAIT)
    }

    fn open_some(&mut self, load: &mut impl Load) {
        while self.pending < self.max_opening {
            let Some(who) = self.to_open.pop_front() else { return };
            let now = self.now();
            let slot = &mut self.slots[who];
            slot.times += 1;
            slot.begun = now;
            let begun = BenchConnection::begin(&slot.endpoint, who + slot.times as usize).and_then(|connection| {
                // epoll reports TCP as writable only after its buffer was full, but a Unix socket after every read of the peer.
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registered = self.poll.registry().register(&mut SourceFd(&connection.fd()), Token(who), interest);
                registered.map_err(Trouble::Connect).map(|()| connection)
            });
            match begun {
                Ok(connection) => {
                    slot.wants_write = true;
                    slot.connection = Some(connection);
                    self.pending += 1;
                    self.opening.push_back((now + self.timeout.as_nanos() as Nanos, who, slot.times));
                }
                Err(trouble) => {
                    // Do not retry in this turn: the same error would come again, in an endless loop.
                    match load.ended(who, now, trouble) {
                        After::Gone => {}
                        After::Again | After::Later => self.pausing.push_back((now + PAUSE, who)),
                    }
                }
            }
        }
    }

    fn give_up_late(&mut self, load: &mut impl Load) {
        if self.opening.is_empty() {
            return;
        }
        let now = self.now();
        while let Some((late, who, times)) = self.opening.front().copied() {
            let slot = &self.slots[who];
            let is_settled = slot.times != times || slot.connection.as_ref().is_none_or(BenchConnection::is_open);
            if !is_settled && late > now {
                return;
            }
            self.opening.pop_front();
            if !is_settled {
                self.drop_connection(who);
                let after = load.ended(who, now, Trouble::Timeout("no connection"));
                self.come_back(who, now, after);
            }
        }
    }

    /// Handles one connection that is ready: reads, calls the load, and writes what the load has queued.
    fn drive<L: Load>(
        &mut self,
        who: usize,
        now: Nanos,
        load: &mut L,
        step: impl FnOnce(&mut BenchConnection, &Endpoint, &mut Scratch, &mut Vec<ConnectionEvent>) -> Result<(), Trouble>,
        act: Option<impl FnOnce(&mut L, &mut ConnectionHandle<'_>)>,
    ) {
        let slot = &mut self.slots[who];
        let endpoint = &*slot.endpoint;
        let Some(connection) = slot.connection.as_mut() else { return };
        let was_open = connection.is_open();
        let mut heard = std::mem::take(&mut self.heard);
        let result = step(connection, endpoint, &mut self.scratch, &mut heard);
        if !was_open && connection.is_open() {
            self.pending -= 1;
        }
        let mut handle = ConnectionHandle {
            who,
            now,
            connection,
            endpoint,
            scratch: &mut self.scratch,
            verdict: Ok(()),
            leaves: None,
            begun: slot.begun,
        };
        for what in heard.drain(..) {
            match what {
                ConnectionEvent::Opened => load.opened(&mut handle),
                ConnectionEvent::Frame(body) => load.heard(&mut handle, &body),
                ConnectionEvent::Ping => load.pinged(),
                ConnectionEvent::Failure(trouble) => load.failed(&mut handle, trouble),
            }
            if handle.leaves.is_some() {
                break;
            }
        }
        heard.clear();
        self.heard = heard;
        if let Some(act) = act {
            act(load, &mut handle);
        }
        let ConnectionHandle { verdict, leaves, .. } = handle;
        let connection = slot.connection.as_mut().expect("the connection was there above");
        // A fault that the load found in the last bytes tells more than the end of the connection.
        let result = if leaves.is_some() { Ok(()) } else { verdict.and(result).and_then(|()| connection.flush()) };
        let is_open = connection.is_open();
        if leaves.is_some() || result.is_err() {
            if !is_open {
                self.pending -= 1;
            }
            slot.connection.take().expect("the connection was there above").reset();
            let after = match (leaves, result) {
                (None, Err(trouble)) => load.ended(who, now, trouble),
                (leaves, _) => leaves.unwrap_or(After::Gone),
            };
            self.come_back(who, now, after);
            return;
        }
        let wants_write = !endpoint.is_unix() || !is_open || connection.is_blocked();
        if slot.wants_write != wants_write {
            let interest = if wants_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            // If this fails, `wants_write` keeps its value and the next event tries again.
            if self.poll.registry().reregister(&mut SourceFd(&connection.fd()), Token(who), interest).is_ok() {
                slot.wants_write = wants_write;
            }
        }
    }
}
