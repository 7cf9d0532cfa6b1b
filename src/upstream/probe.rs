//! Finds a backend that died, or came back, while nobody asks it anything, and says of one in doubt whether it is there.
//!
//! That a connection stands proves nothing: a relay (docker-proxy, a balancer) accepts also while the php-fpm behind it is away, and
//! closes then. So a backend in doubt is *looked at*, on a connection of its own. One that is known to answer FCGI_GET_VALUES at once,
//! as php-fpm is, is asked that, and only its answer counts. Any other is there if it leaves the connection open for [`LOOK`].
//! php-fpm also closes at once with addresses that `listen.allowed_clients` does not name.
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
//! A probe of a trusted backend takes a worker of php-fpm for an accept, a read and a write, some 50 us, and runs nothing: it counts
//! neither for pm.max_requests nor for the access log. One that does not answer questions is connected to and left at once. A backend
//! that has a connection open is not probed: the end of that connection tells as much. So a busy node probes nobody, and an
//! idle one once per `probe_interval` and backend. Silence is no verdict on a backend that was there: its workers may all be busy.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::backend::{Standing, Verdict};
use super::limits;
use super::request::Responder;
use super::scheduler::Scheduler;
use super::stream::Stream;
use crate::config::model::Bind;
use crate::locks::lock;

/// How long a look at a backend lasts that answers no questions. php-fpm refuses within a millisecond of its accept.
const LOOK: Duration = Duration::from_millis(100);
/// Between probes of a backend that has failed: `eject_after` of them are over within a second.
const AGAIN: Duration = Duration::from_millis(250);
/// Trials in a row, a minute or more, in which a backend that used to answer questions was there and silent: by then it is taken
/// for another one that does not.
const SILENT_TRIALS: u32 = 64;

/// What a refusal looks like, and what to do.
const CLOSED_AT_ONCE: &str = "it accepts connections and closes them at once: if it is php-fpm over TCP, its \
     listen.allowed_clients does not name this machine; a proxy in between does so when php-fpm is away";
const SILENT: &str = "it accepts connections and answers nothing: all of its workers are busy, or a proxy in between waits for a \
     php-fpm that is away";

/// What a look at a backend has shown.
#[derive(Debug)]
pub(super) enum Seen {
    There,
    /// It accepts, and says nothing although it is known to answer.
    Silent,
    Away(io::Error),
}

/// By whom a failure of a backend is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// By the very first look: nothing speaks for the backend, so it is away at once.
    First,
    /// By the one trial of a backend that was away.
    Trial,
    /// By a later probe, or a request.
    Request,
}

impl Seen {
    /// Only what is there is taken.
    pub(super) fn there(self) -> io::Result<()> {
        match self {
            Seen::There => Ok(()),
            Seen::Silent => Err(io::Error::new(io::ErrorKind::TimedOut, SILENT)),
            Seen::Away(error) => Err(error),
        }
    }
}

/// Probes one backend for as long as the upstream is there. An interval of zero probes at the start only.
pub(super) async fn keep_probing<R: Responder>(scheduler: Arc<Scheduler<R>>, at: usize) {
    let interval = scheduler.config.probe_interval;
    let habits = &scheduler.habits[at];
    // The failures in a row that the last good look knew of; `None` before the first.
    let mut trusted: Option<u32> = None;
    loop {
        let standing = lock(&scheduler.state).backends.standing(at, Instant::now());
        let mut pause = interval;
        if let Standing::Quiet { failures } = standing {
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
                // Somebody is there, with more connections than it has workers for.
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

/// Whether the peer ends a connection on which nobody has said anything.
async fn is_closed_within(stream: &Stream, time: Duration) -> bool {
    let closed = async {
        loop {
            if poll_fn(|cx| stream.poll_read_ready(cx)).await.is_err() {
                return true;
            }
            match stream.try_read(&mut [0; 16]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Unasked bytes are odd, but somebody is there.
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

    /// Whether a backend is there, as far as a connection of its own can tell. Takes a worker for the time of an answer, or for
    /// [`LOOK`] where it answers no questions.
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

    /// The trial of a backend that was away. It ends also when we leave.
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

    /// A backend is there.
    fn probed_well(self: &Arc<Self>, at: usize) {
        self.metrics.probes.inc();
        self.reached(at);
    }

    fn probed_badly(self: &Arc<Self>, at: usize, error: &io::Error, witness: Witness) {
        self.metrics.probes.inc();
        self.metrics.connect_failures.inc();
        self.missed(at, error, witness);
        // Requests that wait need a new alarm: the backend's next trial is the next thing that can help them.
        self.dispatch();
    }

    /// A backend is there: one that was away is back.
    fn reached(self: &Arc<Self>, at: usize) {
        let mut state = lock(&self.state);
        let is_back = state.backends.is_there(at);
        let up = state.backends.up();
        drop(state);
        if is_back {
            self.metrics.backends_up.set(up as i64);
            info!(upstream = %self.config.name, backend = %self.config.backends[at].address, "backend is back");
            self.ask_limits(at);
            // While it was away requests queued up; one connection was allowed, now all are.
            self.dispatch();
        }
    }

    /// A backend could not be connected to, or ended a connection as no healthy php-fpm does.
    pub(super) fn missed(&self, at: usize, error: &dyn std::fmt::Display, witness: Witness) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let verdict = match witness {
            Witness::First => state.backends.absent(at, now),
            Witness::Trial => state.backends.trial_failed(at, now),
            Witness::Request => state.backends.failed(at, now),
        };
        let up = state.backends.up();
        drop(state);
        let (upstream, backend) = (&self.config.name, &self.config.backends[at].address);
        if verdict == Verdict::Ejected {
            self.metrics.ejections.inc();
            self.metrics.backends_up.set(up as i64);
            warn!(%upstream, %backend, %error, "backend is away: left alone until it answers");
        } else {
            debug!(%upstream, %backend, %error, "backend failed");
        }
    }
}

/// How a connection ends that once stood.
fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
