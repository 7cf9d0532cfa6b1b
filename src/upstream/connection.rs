//! The task of one FastCGI connection, from connect to close.
//!
//! ```text
//! connecting ──> running ──> idle ──> closed        linger over, php-fpm closed it, shutdown
//!     │          ^  │  ^      │
//!     │          └──┘  └──────┘                     the next request, from the queue or handed over
//!     │             │
//!     v             └──> abandoned ──> closed       timeout or abort: the script may still run
//!   the request goes back to the queue
//! ```
//!
//! A connection is opened with a request in hand only: php-fpm closes one that says nothing, and holds a worker for it
//! meanwhile.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::alarm::Alarm;
use super::exchange::{Ended, Exchange, Limits};
use super::lease::{Handoff, Lease, Next};
use super::request::{Failure, Outcome, Responder, Timing};
use super::scheduler::Work;
use super::stream::Stream;
use crate::metrics::upstream::RetryReason;
use crate::proto::fastcgi::response::ProtocolStatus;

/// How often the socket of an abandoned worker is looked at.
const ABANDONED_CHECK: Duration = Duration::from_millis(50);
/// How long a place is kept for an abandoned worker where the socket tells when it is free (Unix).
const ABANDONED_KNOWN: Duration = Duration::from_secs(300);
/// The same where it is a guess (TCP): the workers of most timed-out scripts are free by then, and a place that is
/// given up too early costs one request a wait in php-fpm's backlog.
const ABANDONED_GUESS: Duration = Duration::from_secs(10);

/// Opens a connection for `work` and serves from then on whatever the lease gives it.
pub(super) async fn run<R: Responder>(mut lease: Lease<R>, work: Work<R>) {
    let Some(work) = next_wanted(&mut lease, work) else { return };
    let config = &lease.scheduler.config;
    let stream = match Stream::connect(lease.address(), config.connect_timeout).await {
        Ok(stream) => stream,
        Err(error) => return lease.connect_failed(work, &error),
    };
    lease.connected();
    let alarm = Alarm::new(Instant::now() + config.response_timeout);
    let mut connection = Connection { exchange: Exchange::new(stream, alarm), is_reused: false };
    let mut turn = Turn { lease, work, began: Instant::now() };
    while let Some(next) = connection.serve(turn).await {
        turn = next;
        connection.is_reused = true;
    }
}

/// Skips requests that nobody wants any more, before a connection is opened for them.
fn next_wanted<R: Responder>(lease: &mut Lease<R>, mut work: Work<R>) -> Option<Work<R>> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while work.item.request.responder.poll_cancelled(&mut cx).is_ready() {
        let next = lease.next_before_connect();
        lease.scheduler.end(work.item, Outcome::Failed(Failure::Cancelled { sent: false }));
        work = next?;
    }
    Some(work)
}

/// A request that is to run now on a connection.
struct Turn<R: Responder> {
    lease: Lease<R>,
    work: Work<R>,
    /// When the connection was free for it.
    began: Instant,
}

struct Connection {
    exchange: Exchange,
    is_reused: bool,
}

impl Connection {
    /// Serves one request and waits for the next. `None`: the connection is over, and the lease given up.
    async fn serve<R: Responder>(&mut self, turn: Turn<R>) -> Option<Turn<R>> {
        let Turn { lease, mut work, began: started } = turn;
        let scheduler = lease.scheduler.clone();
        let config = &scheduler.config;
        if self.is_reused
            && let Err(error) = self.exchange.check_quiet(scheduler.recycles())
        {
            self.note_end_of_kept(&lease, &error);
            lease.retried(RetryReason::NotSent);
            lease.restore(work);
            return None;
        }
        let limits = Limits { response: config.response_timeout, request: config.request_timeout };
        let ended = self.exchange.run(&mut work.item.request, started, limits, &scheduler.metrics).await;
        let (failure, script_may_run) = match ended {
            Ended::Complete { end, clean, first_byte, at } => {
                let outcome = match end.status {
                    ProtocolStatus::Complete => Outcome::Done(Timing {
                        queued: started - work.item.submitted,
                        first_byte: first_byte - started,
                        total: at - started,
                    }),
                    refused => Outcome::Failed(Failure::Refused(refused)),
                };
                return self.complete(lease, work, outcome, clean, at).await;
            }
            Ended::Cancelled { written: 0, .. } => {
                let outcome = Outcome::Failed(Failure::Cancelled { sent: false });
                return self.complete(lease, work, outcome, true, Instant::now()).await;
            }
            Ended::NotSent(error) => {
                if !self.is_reused {
                    lease.failed(&error);
                }
                lease.retried(RetryReason::NotSent);
                lease.restore(work);
                return None;
            }
            Ended::Closed { answered, eof, error } => {
                let may_repeat = work.item.request.idempotent && !work.item.resent;
                if let Some(reason) = self.may_resend(answered, eof, may_repeat).await {
                    work.item.resent |= reason == RetryReason::Idempotent;
                    scheduler.note_recycling();
                    lease.retried(reason);
                    lease.restore(work);
                    return None;
                }
                if !self.is_reused && !answered {
                    lease.failed(&error);
                }
                (Failure::BackendClosed { answered }, false)
            }
            Ended::Broken { error, answered } => {
                warn!(upstream = %config.name, backend = %lease.address(), %error, "backend broke the protocol");
                (Failure::Protocol { error, answered }, true)
            }
            Ended::ResponseTimeout { answered } => (Failure::ResponseTimeout { answered }, true),
            Ended::RequestTimeout { answered } => (Failure::RequestTimeout { answered }, true),
            Ended::Cancelled { whole, .. } => {
                scheduler.end(work.item, Outcome::Failed(Failure::Cancelled { sent: true }));
                scheduler.metrics.aborts.inc();
                self.abandon(lease, started, whole).await;
                return None;
            }
        };
        scheduler.end(work.item, Outcome::Failed(failure));
        if script_may_run {
            self.abandon(lease, started, false).await;
        }
        None
    }

    /// Ends a request whose answer left the connection usable (`clean`) or at least the worker free.
    async fn complete<R: Responder>(
        &mut self,
        mut lease: Lease<R>,
        work: Work<R>,
        outcome: Outcome,
        clean: bool,
        at: Instant,
    ) -> Option<Turn<R>> {
        if !clean {
            let (upstream, backend) = (&lease.scheduler.config.name, lease.address());
            let session = work.item.request.responder.label().map(tracing::field::display);
            warn!(%upstream, %backend, session, "answer ended before its request or was followed by stray bytes");
            lease.scheduler.end(work.item, outcome);
            return None;
        }
        // The place is free before the responder hears of the end: what it submits then finds this connection idle,
        // instead of opening a second one.
        let next = lease.next(matches!(outcome, Outcome::Done(_)));
        lease.scheduler.end(work.item, outcome);
        match next {
            // The next request begins when this one ended: the clock need not be asked again.
            Next::Run(work) => Some(Turn { lease, work, began: at }),
            Next::Close => None,
            Next::Idle(handoff) => match self.idle(&handoff, at + lease.scheduler.config.linger).await {
                Ok(Some(work)) => {
                    lease.resumed(&work);
                    Some(Turn { lease, work, began: Instant::now() })
                }
                Ok(None) => lease.leave_idle().map(|work| Turn { lease, work, began: Instant::now() }),
                Err(error) => {
                    self.note_end_of_kept(&lease, &error);
                    if let Some(work) = lease.leave_idle() {
                        lease.retried(RetryReason::NotSent);
                        lease.restore(work);
                    }
                    None
                }
            },
        }
    }

    /// Waits for a request. `Ok(None)`: until then in vain. An error: the connection is of no use any more.
    async fn idle<R: Responder>(&mut self, handoff: &Handoff<R>, until: Instant) -> io::Result<Option<Work<R>>> {
        poll_fn(|cx| {
            handoff.waker.register(cx.waker());
            if let Some(work) = handoff.take() {
                return Poll::Ready(Ok(Some(work)));
            }
            if handoff.is_closing() {
                return Poll::Ready(Ok(None));
            }
            while self.exchange.stream.poll_read_ready(cx)?.is_ready() {
                self.exchange.check_quiet(true)?;
            }
            self.exchange.alarm.poll_at(cx, until).map(|()| Ok(None))
        })
        .await
    }

    /// Whether a request whose connection ended may be sent again, and why.
    async fn may_resend(&self, answered: bool, eof: bool, may_repeat: bool) -> Option<RetryReason> {
        if answered {
            None
        } else if eof && self.is_reused && self.exchange.is_not_taken().await {
            Some(RetryReason::NotTaken)
        } else if may_repeat {
            Some(RetryReason::Idempotent)
        } else {
            None
        }
    }

    /// Gives up a connection whose script may still run, and keeps its place until the worker is free, as far as that
    /// can be known: one connection too many would wait in php-fpm's backlog without a word.
    ///
    /// On a Unix socket it can be known. php-fpm reads the empty STDIN record that ends a request only when it looks
    /// for the next one, so as long as the script runs there are unread bytes, which the kernel counts for us
    /// (SIOCOUTQ); meanwhile `shutdown(SHUT_RD)` makes the script's next flush fail as a close would. On TCP we close,
    /// and keep the place for a bounded time.
    async fn abandon<R: Responder>(&mut self, lease: Lease<R>, started: Instant, with_abort: bool) {
        let scheduler = lease.scheduler.clone();
        let abandoned = scheduler.metrics.abandoned.clone();
        abandoned.inc();
        let until_free = async {
            if with_abort && timeout(scheduler.config.abort_grace, self.exchange.abort()).await.is_ok() {
                return;
            }
            if self.exchange.stream.refuse_more() {
                let give_up = Instant::now() + ABANDONED_KNOWN;
                while self.exchange.stream.unread_by_peer() > 0 && Instant::now() < give_up {
                    tokio::time::sleep(ABANDONED_CHECK).await;
                }
            } else {
                let left = (started + scheduler.config.request_timeout).saturating_duration_since(Instant::now());
                self.exchange.stream.close();
                tokio::time::sleep(left.min(ABANDONED_GUESS)).await;
            }
        };
        tokio::select! {
            () = until_free => {}
            () = scheduler.stopping.cancelled() => {}
        }
        abandoned.dec();
        drop(lease);
    }

    fn note_end_of_kept<R: Responder>(&self, lease: &Lease<R>, error: &io::Error) {
        lease.scheduler.note_recycling();
        let (upstream, backend) = (&lease.scheduler.config.name, lease.address());
        if error.kind() == io::ErrorKind::InvalidData {
            warn!(%upstream, %backend, %error, last_request = self.exchange.id(), "connection cannot be used again");
        } else {
            debug!(%upstream, %backend, %error, "php-fpm closed a kept connection");
        }
    }
}
