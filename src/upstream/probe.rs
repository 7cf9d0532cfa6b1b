//! Finds backends that died, or came back, while no request goes to them, and decides whether a backend in doubt is there.
//!
//! An open connection proves nothing: a relay (docker-proxy, a balancer) accepts even while the php-fpm behind it is away, and
//! then closes. So a backend in doubt is *looked at*, on a separate connection. If it is known to answer FCGI_GET_VALUES at once,
//! as php-fpm is, it is asked that, and only its answer counts. Any other backend is there if it leaves the connection open for
//! [`LOOK`]. php-fpm also closes a connection at once if its `listen.allowed_clients` does not name this machine's address.
//!
//! ```text
//!                          it is there                  every probe_interval
//!   start ──> look ───────────────────────> trusted ──────────────────────────> ask, or connect and close
//!               │  ^                           │
//!        failed │  │ every AGAIN               │ a probe or a request failed
//!               v  │                           v
//!             away, or failures in a row <─────┘
//! ```
//!
//! A probe of a trusted backend occupies a php-fpm worker for an accept, a read and a write, some 50 us. It runs no script, and counts
//! neither for pm.max_requests nor for the access log. A backend that does not answer questions is connected to and left at once. A
//! backend with an open connection is not probed, because the end of that connection tells as much. So a busy node probes no backend,
//! and an idle one probes each backend once per `probe_interval`. Silence of a backend that was there before decides nothing: its
//! workers may all be busy.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::backend::{FailureEffect, ProbeNeed};
use super::limits;
use super::request::Responder;
use super::scheduler::Scheduler;
use super::stream::Stream;
use crate::config::model::Bind;
use crate::locks::lock;

/// How long a look takes at a backend that answers no questions. php-fpm refuses within a millisecond of its accept.
const LOOK: Duration = Duration::from_millis(100);
/// Time between probes of a backend that has failed: `eject_after` of them are over within a second.
const AGAIN: Duration = Duration::from_millis(250);
/// A backend that used to answer questions may be reachable and silent in so many trials in a row, which takes a minute or more. Then it
/// is taken for another program that answers none.
const SILENT_TRIALS: u32 = 64;

/// The symptom of a refusal, and its cause.
const CLOSED_AT_ONCE: &str = "it accepts connections and closes them at once: over TCP, check that \
     php-fpm's listen.allowed_clients names this machine; behind a proxy, check that php-fpm is running";
const SILENT: &str = "it accepts connections but does not answer: all of its workers are busy, or a proxy in between waits for a \
     php-fpm that is not running";

/// The result of a look at a backend.
#[derive(Debug)]
pub(super) enum Seen {
    There,
    /// It accepts, but does not answer although it is known to.
    Silent,
    Away(io::Error),
}

/// Where a failure of a backend was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// In the very first look: nothing suggests that the backend works, so it is away at once.
    First,
    /// In the trial of a backend that was away.
    Trial,
    /// In a later probe, or in a request.
    Request,
}

impl Seen {
    /// An error unless the backend is there.
    pub(super) fn there(self) -> io::Result<()> {
        match self {
            Seen::There => Ok(()),
            Seen::Silent => Err(io::Error::new(io::ErrorKind::TimedOut, SILENT)),
            Seen::Away(error) => Err(error),
        }
    }
}

/// Probes one backend for as long as the upstream exists. With an interval of zero it probes only at the start.
pub(super) async fn keep_probing<R: Responder>(scheduler: Arc<Scheduler<R>>, at: usize) {
    let interval = scheduler.config.probe_interval;
    let habits = &scheduler.habits[at];
    // The number of failures in a row at the last good look; `None` before the first.
    let mut trusted: Option<u32> = None;
    loop {
        let probe_need = lock(&scheduler.state).backends.probe_need(at, Instant::now());
        let mut pause = interval;
        if let ProbeNeed::Quiet { failures } = probe_need {
            let is_look = trusted.is_none() || failures > 0 && trusted != Some(failures);
            let seen =
                if is_look || habits.answers() { scheduler.look_at(at).await } else { scheduler.connect_to(at).await };
            match seen {
                Seen::There => {
                    scheduler.probed_well(at);
                    if !habits.answers() && (trusted.is_none() || failures == u32::MAX) {
                        habits.tested(
                            limits::answers_at_once(scheduler.address(at), scheduler.config.connect_timeout).await,
                        );
                    }
                    trusted = Some(failures);
                }
                Seen::Silent => {}
                // The backend is there, with more connections than it has workers for.
                Seen::Away(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Seen::Away(error) => {
                    let witness = if trusted.is_none() { Witness::First } else { Witness::Request };
                    scheduler.probed_badly(at, &error, witness);
                    pause = AGAIN.min(interval);
                }
            }
        }
        if interval.is_zero() {
            return;
        }
        sleep(pause).await;
    }
}

/// Whether the peer ends a connection on which nothing was sent.
async fn is_closed_within(stream: &Stream, time: Duration) -> bool {
    let closed = async {
        loop {
            if poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
                return true;
            }
            match stream.try_read(&mut [0; 16]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Unexpected bytes are odd, but the backend is there.
                Ok(read) => return read == 0,
                Err(_) => return true,
            }
        }
    };
    timeout(time, closed).await.unwrap_or(false)
}

fn closed_at_once() -> Seen {
    Seen::Away(io::Error::new(io::ErrorKind::ConnectionAborted, CLOSED_AT_ONCE))
}

impl<R: Responder> Scheduler<R> {
    fn address(&self, at: usize) -> &Bind {
        &self.config.backends[at].address
    }

    /// Whether a backend is there, as far as a separate connection can tell. Occupies a worker until it answers, or for
    /// [`LOOK`] if the backend answers no questions.
    pub(super) async fn look_at(&self, at: usize) -> Seen {
        let within = self.config.connect_timeout;
        if self.habits[at].answers() {
            return match limits::answers_within(self.address(at), within, limits::PATIENCE).await {
                Ok(true) => Seen::There,
                Ok(false) => Seen::Silent,
                Err(error) if is_end(error.kind()) => closed_at_once(),
                Err(error) => Seen::Away(error),
            };
        }
        match Stream::connect(self.address(at), within).await {
            Ok(stream) if is_closed_within(&stream, LOOK).await => closed_at_once(),
            Ok(_) => Seen::There,
            Err(error) => Seen::Away(error),
        }
    }

    /// Whether a trusted backend can be connected to.
    async fn connect_to(&self, at: usize) -> Seen {
        Stream::connect(self.address(at), self.config.connect_timeout).await.map_or_else(Seen::Away, |_| Seen::There)
    }

    /// The trial of a backend that was away. It also ends when the upstream stops.
    pub(super) async fn try_out(self: &Arc<Self>, at: usize) -> io::Result<()> {
        let seen = tokio::select! {
            seen = self.look_at(at) => seen,
            () = self.stopping.cancelled() => Seen::Away(io::ErrorKind::Interrupted.into()),
        };
        if matches!(seen, Seen::Silent) && lock(&self.state).backends.trials(at) >= SILENT_TRIALS {
            self.habits[at].tested(false);
        } else {
            seen.there()?;
        }
        self.reached(at);
        Ok(())
    }

    /// A probe found the backend.
    fn probed_well(self: &Arc<Self>, at: usize) {
        self.metrics.probes.inc();
        self.reached(at);
    }

    fn probed_badly(self: &Arc<Self>, at: usize, error: &io::Error, witness: Witness) {
        self.metrics.probes.inc();
        self.metrics.connect_failures.inc();
        self.missed(at, error, witness);
        // Waiting requests need a new alarm: the backend's next trial is the next thing that can help them.
        self.dispatch();
    }

    /// The backend is there. If it was away, it is back.
    fn reached(self: &Arc<Self>, at: usize) {
        let mut state = lock(&self.state);
        let is_back = state.backends.is_there(at);
        let up = state.backends.up();
        drop(state);
        if is_back {
            self.metrics.backends_up.set(up as i64);
            info!(upstream = %self.config.name, backend = %self.config.backends[at].address, "backend is back");
            self.ask_limits(at);
            // Requests queued up while it was away. One connection was allowed, now all are.
            self.dispatch();
        }
    }

    /// A backend could not be connected to, or ended a connection in a way that a healthy php-fpm does not.
    pub(super) fn missed(&self, at: usize, error: &dyn std::fmt::Display, witness: Witness) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let effect = match witness {
            Witness::First => state.backends.absent(at, now),
            Witness::Trial => state.backends.trial_failed(at, now),
            Witness::Request => state.backends.failed(at, now),
        };
        let up = state.backends.up();
        drop(state);
        let (upstream, backend) = (&self.config.name, &self.config.backends[at].address);
        if effect == FailureEffect::Ejected {
            self.metrics.ejections.inc();
            self.metrics.backends_up.set(up as i64);
            warn!(%upstream, %backend, %error, "backend is away: it gets no requests until it answers");
        } else {
            debug!(%upstream, %backend, %error, "backend failed");
        }
    }
}

/// Whether this error is the end of an established connection.
fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
