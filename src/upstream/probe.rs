//! Finds a backend that died, or came back, while nobody asks it anything.
//!
//! A probe connects and closes at once. php-fpm gives such a connection to a worker for the time of an accept and a read, 29 us over a
//! Unix socket and 44 us over TCP, and runs nothing: it counts neither for pm.max_requests nor for the access log. A backend that has a connection open is not probed: the end of that connection tells as much. So a
//! busy node probes nobody, and an idle one once per `probe_interval` and backend.
//!
//! ```text
//!                          connected                    every probe_interval
//!   start ──> look ───────────────────────> trusted ──────────────────────────> connect, close
//!               │  ^                           │
//!        failed │  │ every AGAIN               │ a probe or a request failed
//!               v  │                           v
//!             away, or failures in a row <─────┘
//! ```
//!
//! A *look* keeps the connection for [`LOOK`] to see whether it is closed without a byte, as php-fpm does with addresses that
//! `listen.allowed_clients` does not name, and a relay whose php-fpm is gone. It takes one worker for that time, so only a backend in
//! doubt is looked at: at the start, and when something has failed.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::backend::{Standing, Verdict};
use super::request::Responder;
use super::scheduler::{Scheduler, lock};
use super::stream::Stream;

/// How long a look lasts. php-fpm refuses within a millisecond of its accept.
const LOOK: Duration = Duration::from_millis(100);
/// Between probes of a backend that has failed: `eject_after` of them are over within a second.
const AGAIN: Duration = Duration::from_millis(250);

/// What a refusal looks like, and what to do.
const CLOSED_AT_ONCE: &str = "it accepts connections and closes them at once: if it is php-fpm over TCP, its \
     listen.allowed_clients does not name this machine; a proxy in between does so when php-fpm is away";

/// Probes one backend for as long as the upstream is there. An interval of zero probes at the start only.
pub(super) async fn keep_probing<R: Responder>(scheduler: Arc<Scheduler<R>>, at: usize) {
    let interval = scheduler.config.probe_interval;
    // The failures in a row that the last good look knew of; `None` before the first.
    let mut trusted: Option<u32> = None;
    loop {
        let standing = lock(&scheduler.state).backends.standing(at, Instant::now());
        let mut pause = interval;
        if let Standing::Quiet { failures } = standing {
            let is_look = trusted.is_none() || failures > 0 && trusted != Some(failures);
            match probe(&scheduler, at, is_look).await {
                Ok(()) => {
                    scheduler.probed_well(at);
                    trusted = Some(failures);
                }
                // Somebody is there, with more connections than it has workers for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    scheduler.probed_badly(at, &error, trusted.is_none());
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

async fn probe<R: Responder>(scheduler: &Scheduler<R>, at: usize, is_look: bool) -> io::Result<()> {
    let address = &scheduler.config.backends[at].address;
    let stream = Stream::connect(address, scheduler.config.connect_timeout).await?;
    if is_look && is_closed_within(&stream, LOOK).await {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, CLOSED_AT_ONCE));
    }
    Ok(())
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

impl<R: Responder> Scheduler<R> {
    /// A backend accepted a connection.
    fn probed_well(self: &Arc<Self>, at: usize) {
        self.metrics.probes.inc();
        self.reached(at);
    }

    fn probed_badly(self: &Arc<Self>, at: usize, error: &io::Error, is_first: bool) {
        self.metrics.probes.inc();
        self.metrics.connect_failures.inc();
        self.missed(at, error, is_first);
        // Requests that wait need a new alarm: the backend's next trial is the next thing that can help them.
        self.dispatch();
    }

    /// A backend can be connected to: one that was away is back.
    pub(super) fn reached(self: &Arc<Self>, at: usize) {
        let mut state = lock(&self.state);
        let is_back = state.backends.connected(at);
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

    /// A backend could not be connected to, or ended a connection as no healthy php-fpm does. At the very first look there is nothing
    /// that speaks for it, so it is away at once.
    pub(super) fn missed(&self, at: usize, error: &dyn std::fmt::Display, is_first: bool) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let verdict = if is_first { state.backends.absent(at, now) } else { state.backends.failed(at, now) };
        let up = state.backends.up();
        drop(state);
        let (upstream, backend) = (&self.config.name, &self.config.backends[at].address);
        if verdict == Verdict::Ejected {
            self.metrics.ejections.inc();
            self.metrics.backends_up.set(up as i64);
            warn!(%upstream, %backend, %error, "backend is away: left alone until it can be connected to");
        } else {
            debug!(%upstream, %backend, %error, "backend failed");
        }
    }
}
