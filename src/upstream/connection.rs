//! The task of one FastCGI connection, from connect to close.
//!
//! ```text
//! connecting ──> running ──> idle ──> closed        linger over, php-fpm closed it, shutdown
//!     │          ^  │  ^ │    │ │
//!     │          └──┘  ├─│────┘ │                   the next request, from the queue or the handoff
//!     │             │  │ v      v
//!     │             │  waiting ──> closed           the worker continues after its answer, or closes
//!     v             └──> abandoned ──> closed       timeout or abort: the script may still run
//!   the request goes back to the queue
//! ```
//!
//! A connection is opened only with a request in hand: php-fpm closes a connection that sends nothing, and holds a worker for it
//! until then.
//!
//! END_REQUEST does not mean that the worker is free. After `fastcgi_finish_request()`, which Symfony and Laravel call for each
//! request, the script continues. A request written to its connection would wait for it while other workers have nothing to do. So
//! the next request is written only when the worker is known to be back (`exchange`). Where that cannot be known, `habits` learns
//! how the backend's workers behave. Nearly always the worker is back before we look. When it is not, a request for this connection
//! waits for `GRACE` (`waiting`) and then goes to another connection. Requests in the queue do not wait for it.

use std::io;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::alarm::Alarm;
use super::exchange::{Ended, Exchange, Limits};
use super::habits::KEEP_PATIENCE;
use super::lease::{Lease, Next, WorkerAfterAnswer};
use super::request::{Failure, Outcome, Request, Responder, Timing};
use super::scheduler::{Job, Work};
use super::stream::Stream;
use crate::metrics::upstream::RetryReason;
use crate::proto::fastcgi::response::ProtocolStatus;

/// How often the socket of a busy or abandoned worker is checked. (Nearly always the socket itself reports when it is read.)
pub(super) const BUSY_CHECK: Duration = Duration::from_millis(50);
/// How often the end of a connection may prove that one request was not taken. The proof holds for php-fpm, which hardly ever gives it
/// twice for one request; another responder may half-close after it has run a request.
const MAX_NOT_TAKEN: u8 = 2;
/// How long a place is kept for an abandoned worker if the socket tells when the worker is free (Unix).
const ABANDONED_KNOWN: Duration = Duration::from_secs(300);
/// The same where the time is a guess (TCP). Most timed-out scripts have ended by then, and if a place is given up too early,
/// one request waits in php-fpm's backlog.
const ABANDONED_GUESS: Duration = Duration::from_secs(10);
/// The same for a script that was blocked in `echo` because we did not read: its write fails at once, and so the script ends.
const ABANDONED_WRITING: Duration = Duration::from_millis(100);

/// Opens a connection for `work` and then serves every request that the lease gives it.
pub(super) async fn run<R: Responder>(mut lease: Lease<R>, work: Work<R>) {
    let Some(work) = next_wanted(&mut lease, work) else { return };
    if let Err(error) = lease.try_out().await {
        return lease.connect_failed(work, &error);
    }
    lease.scheduler.test_answers(lease.backend()).await;
    let config = &lease.scheduler.config;
    let stream = match Stream::connect(lease.address(), config.connect_timeout).await {
        Ok(stream) => stream,
        Err(error) => return lease.connect_failed(work, &error),
    };
    lease.scheduler.metrics.connects.inc();
    let alarm = Alarm::new(Instant::now() + config.response_timeout);
    let began = Instant::now();
    let mut connection =
        BackendConnection { exchange: Exchange::new(stream, alarm), is_reused: false, answers: 0, ended: began };
    let mut leased = LeasedWork { lease, work, began };
    while let Some(next) = connection.serve(leased).await {
        leased = next;
        connection.is_reused = true;
    }
}

/// Skips requests that are cancelled, before a connection is opened for them.
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
struct LeasedWork<R: Responder> {
    lease: Lease<R>,
    work: Work<R>,
    /// When the connection became free for it.
    began: Instant,
}

pub(super) struct BackendConnection {
    pub(super) exchange: Exchange,
    /// It has served a request, or was about to.
    is_reused: bool,
    /// Requests that were answered on it.
    answers: u32,
    /// When the last request ended.
    pub(super) ended: Instant,
}

impl BackendConnection {
    /// Serves one request and waits for the next. `None` if the connection is over; the lease is then given up.
    #[expect(clippy::too_many_lines, reason = "one arm for each way in which an exchange ends")]
    async fn serve<R: Responder>(&mut self, leased: LeasedWork<R>) -> Option<LeasedWork<R>> {
        let LeasedWork { mut lease, mut work, began: mut started } = leased;
        let scheduler = lease.scheduler.clone();
        let config = &scheduler.config;
        if self.is_reused {
            match self.until_usable(&lease, &mut started).await {
                Ok(true) => {}
                Ok(false) => {
                    lease.hand_back(work);
                    return self.go_on(lease, Next::Wait).await;
                }
                Err(error) => {
                    self.note_end_of_kept(&lease, &error);
                    lease.retried(RetryReason::NotSent);
                    lease.restore(work);
                    return None;
                }
            }
        }
        let limits = Limits {
            response: config.response_timeout,
            request: config.request_timeout,
            stalls: &scheduler.stalls,
            has_line: scheduler.has_line(),
        };
        let ended = self.exchange.run(&mut work.item.request, started, limits, &scheduler.metrics).await;
        let (failure, script_may_run) = match ended {
            Ended::Complete { end, given: false, .. } if end.status == ProtocolStatus::Overloaded => {
                lease.failed(&"it says that it is overloaded");
                lease.retried(RetryReason::NotTaken);
                lease.restore(work);
                return None;
            }
            Ended::Complete { end, clean, first_byte, at, .. } => {
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
                if self.is_reused {
                    self.note_end_of_kept(&lease, &error);
                } else {
                    lease.failed(&error);
                }
                lease.retried(RetryReason::NotSent);
                lease.restore(work);
                return None;
            }
            Ended::Closed { answered, eof, error } => {
                let Job { request: Request { class, idempotent, .. }, may_repeat, .. } = *work.item;
                let is_owed = class.is_owed() && idempotent;
                let may_prove = eof && self.is_reused && work.item.not_taken < MAX_NOT_TAKEN;
                if let Some(reason) = self.may_resend(&lease, answered, may_prove, is_owed, may_repeat).await {
                    work.item.was_sent |= reason != RetryReason::NotTaken;
                    work.item.not_taken += u8::from(reason == RetryReason::NotTaken);
                    work.item.may_repeat &= reason != RetryReason::Idempotent;
                    if reason == RetryReason::Owed {
                        lease.failed(&error);
                    }
                    scheduler.note_recycling();
                    lease.retried(reason);
                    lease.restore(work);
                    return None;
                }
                if !self.is_reused && !answered {
                    lease.failed(&error);
                }
                if self.is_reused && !answered {
                    self.learn_from_end(&lease, &error);
                }
                (Failure::BackendClosed { answered }, false)
            }
            Ended::Broken { error, answered } => {
                warn!(upstream = %config.name, backend = %lease.address(), %error, "backend broke the protocol");
                (Failure::Protocol { error, answered }, true)
            }
            Ended::ResponseTimeout { answered } => (Failure::ResponseTimeout { answered }, true),
            Ended::RequestTimeout { answered } => (Failure::RequestTimeout { answered }, true),
            Ended::SlowReader { answered } => (Failure::SlowReader { answered }, true),
            Ended::Cancelled { whole, .. } => {
                scheduler.end(work.item, Outcome::Failed(Failure::Cancelled { sent: true }));
                scheduler.metrics.aborts.inc();
                self.abandon(lease, started, whole, ABANDONED_GUESS).await;
                return None;
            }
        };
        scheduler.end(work.item, Outcome::Failed(failure));
        if script_may_run {
            let is_writing = matches!(failure, Failure::SlowReader { .. });
            let guess = if is_writing { ABANDONED_WRITING } else { ABANDONED_GUESS };
            self.abandon(lease, started, false, guess).await;
        }
        None
    }

    /// Ends a request whose answer left the connection usable (`clean`), or at least the worker free.
    async fn complete<R: Responder>(
        &mut self,
        mut lease: Lease<R>,
        work: Work<R>,
        outcome: Outcome,
        clean: bool,
        at: Instant,
    ) -> Option<LeasedWork<R>> {
        if !clean {
            let (upstream, backend) = (&lease.scheduler.config.name, lease.address());
            let session = work.item.request.responder.label().map(tracing::field::display);
            warn!(%upstream, %backend, session, "answer ended before the whole request was sent, or stray bytes followed it");
            lease.scheduler.end(work.item, outcome);
            return None;
        }
        self.ended = at;
        if let Outcome::Done(timing) = outcome {
            self.answers = self.answers.saturating_add(1);
            let habits = lease.habits();
            if self.answers > 1 {
                habits.kept();
            }
            if !self.exchange.stream.tells_what_is_read() && habits.should_ask(timing.total, at) {
                self.exchange.ask();
            }
        }
        let is_done = matches!(outcome, Outcome::Done(_));
        let next = if lease.scheduler.has_line().load(Ordering::Relaxed) {
            // The worker comes back while the answer is passed on.
            lease.scheduler.end(work.item, outcome);
            let mut worker = self.worker(&lease);
            if worker == WorkerAfterAnswer::Expected {
                // Other tasks get a turn. That is nearly always enough time, and costs less than waiting for the socket.
                tokio::task::yield_now().await;
                worker = self.worker(&lease);
            }
            lease.next(is_done, worker)
        } else {
            // The place is free before the responder hears of the end. A request that it then submits finds this connection idle,
            // instead of opening a second one.
            let worker = self.worker(&lease);
            let next = lease.next(is_done, worker);
            lease.scheduler.end(work.item, outcome);
            next
        };
        self.go_on(lease, next).await
    }

    /// State of the worker behind the last answer, as far as it is known.
    fn worker<R: Responder>(&mut self, lease: &Lease<R>) -> WorkerAfterAnswer {
        if lease.habits().closes() {
            WorkerAfterAnswer::Leaving
        } else if self.exchange.is_back() && lease.habits().keeps() {
            WorkerAfterAnswer::Back
        } else {
            WorkerAfterAnswer::Expected
        }
    }

    /// Waits for the next request to serve here. `None` if the connection is over; the lease is then given up.
    async fn go_on<R: Responder>(&mut self, mut lease: Lease<R>, mut next: Next<R>) -> Option<LeasedWork<R>> {
        loop {
            match next {
                // The next request begins when the last one ended, so the clock is not read again.
                Next::Run(work) => return Some(LeasedWork { lease, work, began: self.ended }),
                Next::Close => return None,
                Next::Wait => {
                    match self.until_back(&lease).await {
                        Some(Ok(())) => {}
                        Some(Err(error)) => {
                            self.note_end_of_kept(&lease, &error);
                            return None;
                        }
                        None => return None,
                    }
                    self.ended = Instant::now();
                    next = lease.next(false, WorkerAfterAnswer::Back);
                }
                Next::Idle(handoff) => match self.idle(&handoff, &lease).await {
                    Ok(Some(work)) => {
                        lease.resumed(&work);
                        return Some(LeasedWork { lease, work, began: Instant::now() });
                    }
                    Ok(None) if self.exchange.is_back() || lease.scheduler.stopping.is_cancelled() => {
                        if self.ended.elapsed() > KEEP_PATIENCE {
                            lease.habits().stayed_open();
                        }
                        return lease.leave_idle().map(|work| LeasedWork { lease, work, began: Instant::now() });
                    }
                    Ok(None) => {
                        if let Some(work) = lease.wait_instead() {
                            return Some(LeasedWork { lease, work, began: Instant::now() });
                        }
                        next = Next::Wait;
                    }
                    Err(error) => {
                        self.note_end_of_kept(&lease, &error);
                        if let Some(work) = lease.leave_idle() {
                            lease.retried(RetryReason::NotSent);
                            lease.restore(work);
                        }
                        return None;
                    }
                },
            }
        }
    }

    /// Whether and why a request whose connection ended may be sent again. `may_prove`: that end may prove that it was not taken.
    async fn may_resend<R: Responder>(
        &self,
        lease: &Lease<R>,
        answered: bool,
        may_prove: bool,
        is_owed: bool,
        may_repeat: bool,
    ) -> Option<RetryReason> {
        if answered {
            None
        } else if may_prove && self.exchange.is_not_taken().await {
            Some(RetryReason::NotTaken)
        } else if is_owed && !lease.is_there().await {
            // Whichever side closed the connection (perhaps a relay), no php-fpm was there that could have completed the request.
            Some(RetryReason::Owed)
        } else if may_repeat {
            Some(RetryReason::Idempotent)
        } else {
            None
        }
    }

    /// Gives up a connection whose script may still run. Its place is kept until the worker is free, as far as that can be
    /// known: one connection too many would hang in php-fpm's backlog, without an error.
    ///
    /// On a Unix socket it can be known. php-fpm reads the empty STDIN record that ends a request only when it looks
    /// for the next one, so there are unread bytes for as long as the script runs, and the kernel counts them for us
    /// (SIOCOUTQ). Meanwhile `shutdown(SHUT_RD)` makes the script's next flush fail, as a close would. On TCP we close,
    /// and keep the place for a guessed time.
    async fn abandon<R: Responder>(&mut self, lease: Lease<R>, started: Instant, with_abort: bool, guess: Duration) {
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
                    tokio::time::sleep(BUSY_CHECK).await;
                }
            } else {
                let left = (started + scheduler.config.request_timeout).saturating_duration_since(Instant::now());
                self.exchange.stream.close();
                tokio::time::sleep(left.min(guess)).await;
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
        self.learn_from_end(lease, error);
        let (upstream, backend) = (&lease.scheduler.config.name, lease.address());
        if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut) {
            warn!(%upstream, %backend, %error, last_request = self.exchange.id(), "connection cannot be used again");
        } else {
            debug!(%upstream, %backend, %error, "php-fpm closed a kept connection");
        }
    }

    /// The backend closed this connection after its last answer.
    fn learn_from_end<R: Responder>(&self, lease: &Lease<R>, error: &io::Error) {
        let silence = self.ended.elapsed();
        if error.kind() == io::ErrorKind::InvalidData {
            return;
        }
        if self.answers == 1 {
            if lease.habits().closed_after_one(silence) {
                let (upstream, backend) = (&lease.scheduler.config.name, lease.address());
                info!(%upstream, %backend, "backend closes after each answer: every request gets a new connection");
            }
        } else if silence < KEEP_PATIENCE && error.kind() == io::ErrorKind::ConnectionReset {
            lease.habits().slammed();
        }
    }
}
