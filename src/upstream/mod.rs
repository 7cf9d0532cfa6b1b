//! Requests in, answers out: [`Upstream`] hides choice, reuse, retry and health of php-fpm connections.
//!
//! php-fpm serves one request at a time per connection, and a kept connection holds a worker even while idle. So the
//! scheduler opens at most `max_connections` to a backend, only with a request in hand, and closes them after a short
//! `linger`. Requests wait here rather than in php-fpm's backlog, where they can be neither seen nor reordered.
//!
//! * `request`: the request, its responder and its outcome.
//! * `queue`: the order of requests. `backend`: the choice of a backend. Both are plain data.
//! * `scheduler`: both under one lock. `lease`: the right to one connection, which passes from request to request.
//! * `connection`: the task of one connection; `exchange`: one request on it; `stream`: its socket.
//! * `habits`: learns about a backend whether it keeps connections, and whether its workers come back late.
//! * `stalls`: how many connections may be held by clients that do not read.
//! * `limits`: the limits that a backend reports about itself, where it is asked.
//! * `probe`: checks backends while no requests go to them.
//! * [`supervisor`]: a php-fpm that we start; `home`: its private directory.
//!
//! These requests may be sent twice:
//!
//! * a request of which no byte was sent
//! * a request that php-fpm provably did not take: it had ended the connection after the last answer (see `exchange`), or
//!   said that it is overloaded
//! * a close or presence event that got no byte of an answer, while no backend is there (`probe`)
//! * once, after an end without a byte of answer, a request whose app is `idempotent`
//!
//! Every other request fails with a [`Failure`], which says whether it may have run in any of its attempts.

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
/// Dropping it, like [`shutdown`](Self::shutdown), refuses waiting requests and lets running ones finish.
#[derive(Debug)]
pub struct Upstream<R: Responder> {
    scheduler: Arc<Scheduler<R>>,
}

impl<R: Responder> Upstream<R> {
    /// Takes requests from now on, and connects when the first one comes. `config.backends` must not be empty: for a spawned
    /// php-fpm, put in the address that the supervisor returns.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: model::Upstream, metrics: UpstreamHandles) -> Self {
        Self { scheduler: Scheduler::new(config, metrics) }
    }

    /// Hands over a request. Never blocks and never fails: every result comes through [`Responder::end`], which may
    /// be called before this returns (queue full, stopping).
    pub fn submit(&self, request: Request<R>) {
        self.scheduler.submit(request);
    }

    /// Probes backends that get no requests, to find those that died or came back. Does so every `probe_interval` until the future is
    /// dropped, or only once if that is zero. Without it the state of a backend is known from requests alone.
    pub async fn keep_probing(&self) {
        let mut probing = JoinSet::new();
        for backend in 0..self.scheduler.config.backends.len() {
            probing.spawn(probe::keep_probing(self.scheduler.clone(), backend));
        }
        probing.join_all().await;
    }

    /// The current state.
    pub fn snapshot(&self) -> Snapshot {
        self.scheduler.snapshot()
    }

    /// Refuses new and waiting requests ([`Failure::Stopping`]), close events included, and returns when the running
    /// requests have ended. Bounded only by `request_timeout`: put a timeout around it.
    pub async fn shutdown(&self) {
        self.scheduler.stop();
        self.scheduler.stopped().await;
    }
}

/// Adds a hint for the operator to the error of a failed connection attempt.
pub fn explain(address: &model::Bind, error: io::Error) -> io::Error {
    stream::explain(address, error)
}

impl<R: Responder> Drop for Upstream<R> {
    fn drop(&mut self) {
        self.scheduler.stop();
    }
}
