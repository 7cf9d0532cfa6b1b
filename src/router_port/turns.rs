//! Turns: commands of the short protocol from one address run in the order in which its connections were made.
//!
//! fooking's clients open a connection for each command and leave it to PHP to close it. fooking's router has one
//! thread, which runs commands as they come. Here each connection has a task of its own, and tasks run in any order. So
//! each connection gets a place in the line of its address when it is accepted:
//!
//! ```text
//!   accepted: the open bytes of every earlier connection are noted: those it has read, and those in its socket
//!       |
//!       |  first command of the short protocol          all noted bytes are handled,
//!       |`------------------------------------> Waiting -----------------------------> its commands run as they come
//!       |                                               or their connections stall
//!       `-- first frame of the long protocol, or the end: leaves the line
//! ```
//!
//! A connection waits only for bytes that had arrived when it was accepted. So a silent connection delays no other, and
//! a busy one delays others only until those bytes are handled. A connection stalls if it neither works nor completes
//! anything for [`PATIENCE`]: it is in the middle of a frame, or its client takes no answers. From then on no
//! connection waits for it, until it continues.
//!
//! All clients of a Unix socket share one line. A line has at most as many places as the port takes connections.

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

/// How long an incomplete command may delay others. On local links the rest of a frame arrives within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most connections that one connection waits for directly. They are the latest ones, and each of them waits for
/// those before it.
const MAX_AWAITED: usize = 64;

/// The lines of all addresses.
#[derive(Default)]
pub(super) struct Turns(Mutex<LinesByAddress>);

#[derive(Default)]
struct LinesByAddress {
    places: HashMap<Option<IpAddr>, BTreeMap<u64, Arc<PlaceInLine>>>,
    accepted: u64,
}

/// A connection's place in its line.
struct PlaceInLine {
    state: Mutex<TurnState>,
    /// Notified when `state` changes in a way that others may wait for.
    moved: Notify,
}

struct TurnState {
    /// The connection's socket. `None` when it has left the line.
    transport: Option<Arc<Transport>>,
    /// Bytes read so far.
    read: u64,
    /// Bytes of these that are handled.
    done: u64,
    /// It waits for its own turn or runs its commands. Both end by themselves.
    is_at_work: bool,
    /// When it was accepted, or last completed something.
    since: Instant,
    /// Another connection has waited for it in vain since then.
    has_stalled: bool,
}

impl Turns {
    /// Takes the last place in the line of this address. It must be called in the order in which connections are
    /// accepted.
    pub(super) fn join(self: &Arc<Self>, address: Option<IpAddr>, transport: &Arc<Transport>) -> Turn {
        let now = Instant::now();
        let mut lines = lock(&self.0);
        lines.accepted += 1;
        let number = lines.accepted;
        let line = lines.places.entry(address).or_default();
        let owing = line.values().rev().filter_map(|place| Some((place.clone(), place.owes()?)));
        let mut awaited: Vec<_> = owing.take(MAX_AWAITED).collect();
        awaited.reverse();
        let state = TurnState {
            transport: Some(transport.clone()),
            read: 0,
            done: 0,
            is_at_work: false,
            since: now,
            has_stalled: false,
        };
        let place = Arc::new(PlaceInLine { state: Mutex::new(state), moved: Notify::new() });
        line.insert(number, place.clone());
        Turn { turns: self.clone(), address, number, place, awaited, accepted: now }
    }
}

/// A connection in its line. Dropping it leaves the line.
pub(super) struct Turn {
    turns: Arc<Turns>,
    address: Option<IpAddr>,
    number: u64,
    place: Arc<PlaceInLine>,
    /// Earlier connections, each with the number of bytes that it must have handled. Empty once this connection's turn
    /// has come.
    awaited: Vec<(Arc<PlaceInLine>, u64)>,
    accepted: Instant,
}

impl Turn {
    /// Reads under the lock. So a connection that is accepted meanwhile counts the bytes either in the socket or among
    /// those read.
    pub(super) fn poll_read(&self, read: impl FnOnce() -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut state = self.place.lock();
        let result = read();
        if let Poll::Ready(Ok(bytes @ 1..)) = result {
            state.read += bytes as u64;
            state.is_at_work = true;
        }
        result
    }

    /// Everything that was read is handled, except for `unfinished` bytes: the beginning of a frame.
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

    /// The connection waits for its client from now on.
    pub(super) fn pauses(&self) {
        self.place.lock().is_at_work = false;
        self.place.moved.notify_waiters();
    }

    /// The connection continues.
    pub(super) fn goes_on(&self) {
        self.place.lock().is_at_work = true;
    }

    /// Waits until the noted bytes of earlier connections are handled. The future is safe to drop.
    pub(super) async fn comes(&mut self) {
        // Wait for the latest first: when it is done, those before it are done too. So each connection is woken only
        // once.
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

impl PlaceInLine {
    /// The number of bytes that it must handle until everything that has arrived is done. `None` if all is done, or if
    /// it has stalled.
    fn owes(&self) -> Option<u64> {
        let state = self.lock();
        let target = state.read + state.transport.as_ref()?.unread() as u64;
        (target > state.done && !state.has_stalled).then_some(target)
    }

    /// Waits until this connection has handled `target` bytes, has left the line, or has stalled.
    async fn wait_for(&self, target: u64, accepted: Instant) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Enabled before the check, so that any later change wakes this task.
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
                    // Other connections stop waiting for it too.
                    self.moved.notify_waiters();
                    return;
                }
                deadline
            };
            match deadline {
                // The next check notices a timeout.
                Some(deadline) => drop(timeout_at(deadline, moved).await),
                None => moved.await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, TurnState> {
        lock(&self.state)
    }
}
