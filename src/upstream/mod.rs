//! Requests in, answers out: [`Upstream`] hides choice, reuse, retry and health of php-fpm connections.
//!
//! php-fpm serves one request at a time per connection and a kept connection pins a worker, also while idle, so the
//! scheduler opens at most `max_connections` to a backend, only with a request in hand, and closes them after a short
//! `linger`. Requests wait here rather than in php-fpm's backlog, where nobody can see or reorder them.
//!
//! * `request`: what goes in and what comes out.
//! * `queue`: who is next. `backend`: where to. Both plain data.
//! * `scheduler`: both under one lock. `lease`: the right to one connection, which passes from request to request.
//! * `connection`: the task of one connection; `exchange`: one request on it; `stream`: its socket.
//! * `habits`: what is learned of a backend: whether it keeps connections, whether workers come back late.
//! * `stalls`: how many connections clients that do not read may hold.
//! * `limits`: what a backend says of itself, where it is asked.
//! * `probe`: whether a backend is there while nobody asks it anything.
//! * [`supervisor`]: a php-fpm of our own; `home`: the private directory that it lives in.
//!
//! What may be sent twice: a request of which no byte left us; a request that php-fpm provably did not take (it had
//! ended the connection behind the last answer, see `exchange`, or said that it is overloaded); an event that is owed to PHP and got
//! no byte of an answer, while no backend is there (`probe`); and once, after an end without a byte of answer, a
//! request whose app is `idempotent`. Everything else fails with a [`Failure`] that says whether it may have run, in any of
//! its attempts.

mod alarm;
mod backend;
mod connection;
mod exchange;
mod habits;
mod home;
mod lease;
mod limits;
mod probe;
mod queue;
mod request;
mod scheduler;
mod stalls;
mod stream;
pub mod supervisor;
mod waiting;

use std::io;
use std::sync::Arc;

use tokio::task::JoinSet;

pub use request::{Class, Failure, Group, Outcome, Request, Responder, Timing};
pub use scheduler::{BackendSnapshot, Snapshot};

use crate::config::model;
use crate::metrics::upstream::UpstreamHandles;
use scheduler::Scheduler;

/// Most bytes that one read of a connection gives to its responder.
pub const READ_BYTES: usize = 64 * 1024;

/// A set of FastCGI backends that serve requests.
///
/// Dropping it, like [`shutdown`](Self::shutdown), refuses what waits and lets what runs run to its end.
#[derive(Debug)]
pub struct Upstream<R: Responder> {
    scheduler: Arc<Scheduler<R>>,
}

impl<R: Responder> Upstream<R> {
    /// Takes requests from now on; connects when the first comes. `config.backends` must not be empty: for a spawned
    /// php-fpm put the address there that the supervisor gives.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: model::Upstream, metrics: UpstreamHandles) -> Self {
        Self { scheduler: Scheduler::new(config, metrics) }
    }

    /// Hands over a request. Never blocks and never fails: whatever happens comes through [`Responder::end`], which may
    /// be called before this returns (queue full, stopping).
    pub fn submit(&self, request: Request<R>) {
        self.scheduler.submit(request);
    }

    /// Looks for backends that died, or came back, while nobody asks them anything, every `probe_interval` until the future is dropped;
    /// only once when that is zero. Without it the state of a backend is known from requests alone.
    pub async fn keep_probing(&self) {
        let mut probing = JoinSet::new();
        for backend in 0..self.scheduler.config.backends.len() {
            probing.spawn(probe::keep_probing(self.scheduler.clone(), backend));
        }
        probing.join_all().await;
    }

    /// How things stand.
    pub fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot()
    }

    /// Refuses what comes and what waits ([`Failure::Stopping`]), close events included, and returns when the requests
    /// that run have ended. Bounded only by `request_timeout`: put a timeout around it.
    pub async fn shutdown(&self) {
        self.scheduler.stop();
        self.scheduler.stopped().await;
    }
}

/// Why connecting to a backend failed, with what an operator should look at.
pub fn explain(address: &model::Bind, error: io::Error) -> io::Error {
    stream::explain(address, error)
}

impl<R: Responder> Drop for Upstream<R> {
    fn drop(&mut self) {
        self.scheduler.stop();
    }
}
