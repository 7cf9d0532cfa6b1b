//! Whose turn it is: commands of the short protocol from one address are done in the order in which its connections were made.
//!
//! The ancestor's clients open a connection for each command and leave closing it to PHP; its router has one thread, which takes
//! commands as they come. Here each connection has a task of its own, and tasks run in any order. So each connection gets a
//! place in its address's line when it is accepted:
//!
//! ```text
//!   accepted: what every earlier connection still has to do is noted: bytes it has read, and bytes in its socket
//!       |
//!       |  first command of the short protocol          all that was noted is done,
//!       |`------------------------------------> Waiting -----------------------------> its commands are done as they come
//!       |                                               or stalls
//!       `-- first frame of the long protocol, or the end: leaves the line
//! ```
//!
//! Only what had arrived by then is waited for, so a connection that says nothing holds up nobody, and a busy one holds up others for as
//! long as what it had said takes. A connection stalls when for [`PATIENCE`] it neither does anything nor gets anything done: in the
//! middle of a frame, or because its client takes no answers. From then on nobody waits for it until it goes on.
//!
//! All of a Unix socket's clients stand in one line. A line has at most as many places as the port takes connections.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::locks::lock;
use crate::transport::Transport;

/// How long half a command may hold up others. On this machine's own links the rest of a frame is there within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections that one waits for by itself, the latest ones: each of these waits for those before it.
const MAX_AWAITED: usize = 64;

/// The lines of all addresses.
#[derive(Default)]
pub(super) struct Turns(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    places: HashMap<Option<IpAddr>, BTreeMap<u64, Arc<Place>>>,
    accepted: u64,
}

/// A connection's place in its line.
struct Place {
    state: Mutex<State>,
    /// Something of `state` has changed that others may wait for.
    moved: Notify,
}

struct State {
    /// The connection's socket; none when it has left the line.
    transport: Option<Arc<Transport>>,
    /// Bytes read so far.
    read: u64,
    /// Bytes of these that are done with.
    done: u64,
    /// It waits for its own turn or does its commands: both end by themselves.
    is_at_work: bool,
    /// When it was accepted, or last got something done.
    since: Instant,
    /// Others have waited for it in vain since then.
    has_stalled: bool,
}

impl Turns {
    /// A place behind everybody who is in the line of this address. To be called in the order in which connections are accepted.
    pub(super) fn join(self: &Arc<Self>, address: Option<IpAddr>, transport: &Arc<Transport>) -> Turn {
        let now = Instant::now();
        let mut lines = lock(&self.0);
        lines.accepted += 1;
        let number = lines.accepted;
        let line = lines.places.entry(address).or_default();
        let owing = line.values().rev().filter_map(|place| Some((place.clone(), place.owes()?)));
        let mut awaited: Vec<_> = owing.take(MAX_AWAITED).collect();
        awaited.reverse();
        let state = State {
            transport: Some(transport.clone()),
            read: 0,
            done: 0,
            is_at_work: false,
            since: now,
            has_stalled: false,
        };
        let place = Arc::new(Place { state: Mutex::new(state), moved: Notify::new() });
        line.insert(number, place.clone());
        Turn { turns: self.clone(), address, number, place, awaited, accepted: now }
    }
}

/// A connection in its line; leaves it when it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    address: Option<IpAddr>,
    number: u64,
    place: Arc<Place>,
    /// Earlier connections, each with how much it must have done. Empty when it was this one's turn.
    awaited: Vec<(Arc<Place>, u64)>,
    accepted: Instant,
}

impl Turn {
    /// Reads. A connection that is accepted meanwhile finds the bytes either in the socket or among those that were read.
    pub(super) fn poll_read(&self, read: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut state = self.place.lock();
        let result = read();
        if let Poll::Ready(Ok(bytes @ 1..)) = result {
            state.read += bytes as u64;
            state.is_at_work = true;
        }
        result
    }

    /// All that was read is done with, but for so many bytes: the beginning of a frame.
    pub(super) fn rests(&self, unfinished: usize) {
        let mut state = self.place.lock();
        let done = state.read - unfinished as u64;
        if done > state.done {
            (state.done, state.since, state.has_stalled) = (done, Instant::now(), false);
        }
        state.is_at_work = false;
        drop(state);
        self.place.moved.notify_waiters();
    }

    /// From now on it waits for its client.
    pub(super) fn pauses(&self) {
        self.place.lock().is_at_work = false;
        self.place.moved.notify_waiters();
    }

    /// It goes on.
    pub(super) fn goes_on(&self) {
        self.place.lock().is_at_work = true;
    }

    /// Waits until what had come before it over earlier connections is done. Safe to drop.
    pub(super) async fn comes(&mut self) {
        // The latest first: when it is done, those before it are done too, and each connection is woken once.
        while let Some((place, target)) = self.awaited.last() {
            place.wait_for(*target, self.accepted).await;
            self.awaited.pop();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place.lock().transport = None;
        self.place.moved.notify_waiters();
        let mut lines = lock(&self.turns.0);
        if let Some(line) = lines.places.get_mut(&self.address) {
            line.remove(&self.number);
            if line.is_empty() {
                lines.places.remove(&self.address);
            }
        }
    }
}

impl Place {
    /// How far it must come until all that has arrived is done; `None` when it is.
    fn owes(&self) -> Option<u64> {
        let state = self.lock();
        let target = state.read + state.transport.as_ref()?.unread() as u64;
        (target > state.done && !state.has_stalled).then_some(target)
    }

    /// Until it has come so far, or has stalled.
    async fn wait_for(&self, target: u64, accepted: Instant) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Before the look: what changes after it wakes.
            moved.as_mut().enable();
            let deadline = {
                let mut state = self.lock();
                if state.transport.is_none() || state.done >= target || state.has_stalled {
                    return;
                }
                let deadline = (!state.is_at_work).then(|| state.since.max(accepted) + PATIENCE);
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    state.has_stalled = true;
                    drop(state);
                    // It holds up nobody else either.
                    self.moved.notify_waiters();
                    return;
                }
                deadline
            };
            match deadline {
                // A timeout is seen at the next look.
                Some(deadline) => drop(timeout_at(deadline, moved).await),
                None => moved.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
