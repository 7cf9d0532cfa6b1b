//! Waiting of a connection between two requests: for its worker, and for the next request.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::connection::{BUSY_CHECK, BackendConnection};
use super::habits::KEEP_PATIENCE;
use super::lease::{Handoff, Lease};
use super::request::Responder;
use super::scheduler::Work;

/// How long after an answer a worker may take to come back before it counts as busy. A worker without background work needs some
/// 20 us, or some milliseconds on a busy machine, where it waits for a core. The rest is too short to be noticed.
const GRACE: Duration = Duration::from_millis(10);

impl BackendConnection {
    /// Called before a request is written to a kept connection. Resets `started` if it had to wait. False if the worker is
    /// still busy. An error means that the connection has ended or cannot be used any more.
    pub(super) async fn until_usable<R: Responder>(
        &mut self,
        lease: &Lease<R>,
        started: &mut Instant,
    ) -> io::Result<bool> {
        let metrics = &lease.scheduler.metrics;
        if !self.exchange.is_back() || !lease.habits().keeps() {
            let late_at = self.ended + GRACE;
            let back = poll_fn(|cx| match self.exchange.poll_back(cx, metrics)? {
                Poll::Ready(()) => Poll::Ready(io::Result::Ok(true)),
                Poll::Pending => self.exchange.alarm.poll_at(cx, late_at).map(|()| Ok(false)),
            });
            if !back.await? && !self.exchange.is_back() {
                return Ok(false);
            }
            self.until_known_to_keep(lease).await?;
            *started = Instant::now();
        }
        self.exchange.check_quiet(lease.scheduler.recycles(), metrics)?;
        Ok(true)
    }

    /// Waits for a worker that continues after its answer, so that its place counts as busy, or for a responder to close. A Unix socket
    /// tells when the worker is back, so the wait is as long as the work. A worker that was asked over TCP may never answer (another
    /// program may listen there now), so it has `request_timeout` for its work. `None`: the upstream is stopping.
    pub(super) async fn until_back<R: Responder>(&mut self, lease: &Lease<R>) -> Option<io::Result<()>> {
        let (metrics, stopping) = (&lease.scheduler.metrics, &lease.scheduler.stopping);
        metrics.background.inc();
        let is_told = self.exchange.stream.tells_what_is_read();
        let give_up_at = (!is_told).then(|| self.ended + lease.scheduler.config.request_timeout);
        let back = async {
            let mut look_at = self.ended + BUSY_CHECK;
            let is_awaited = !self.exchange.is_back();
            while !self.exchange.is_back() {
                if give_up_at.is_some_and(|give_up_at| Instant::now() >= give_up_at) {
                    lease.scheduler.doubt_answers(lease.backend());
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the worker did not come back within request_timeout",
                    ));
                }
                poll_fn(|cx| match self.exchange.poll_back(cx, metrics) {
                    Poll::Ready(result) => Poll::Ready(result),
                    Poll::Pending => self.exchange.alarm.poll_at(cx, look_at).map(Ok),
                })
                .await?;
                look_at = Instant::now() + BUSY_CHECK;
            }
            if is_awaited && self.ended.elapsed() > GRACE {
                lease.habits().was_late();
            }
            self.until_known_to_keep(lease).await
        };
        let result = tokio::select! {
            result = back => Some(result),
            () = stopping.cancelled() => None,
        };
        metrics.background.dec();
        result
    }

    /// If it is not known that a backend keeps connections, gives it the time to close this one.
    async fn until_known_to_keep<R: Responder>(&mut self, lease: &Lease<R>) -> io::Result<()> {
        let habits = lease.habits();
        if self.exchange.has_returned {
            habits.kept();
        }
        if habits.keeps() {
            return Ok(());
        }
        let (metrics, until) = (&lease.scheduler.metrics, self.ended + KEEP_PATIENCE);
        poll_fn(|cx| {
            while self.exchange.stream.poll_read_ready(cx)?.is_ready() {
                self.exchange.take_late(metrics)?;
            }
            self.exchange.alarm.poll_at(cx, until).map(io::Result::Ok)
        })
        .await?;
        habits.stayed_open();
        Ok(())
    }

    /// Waits for a request. `Ok(None)`: none came while the connection lingered. An error: the connection cannot be used any more.
    pub(super) async fn idle<R: Responder>(
        &mut self,
        handoff: &Handoff<R>,
        lease: &Lease<R>,
    ) -> io::Result<Option<Work<R>>> {
        let (metrics, until) = (&lease.scheduler.metrics, self.ended + lease.scheduler.config.linger);
        poll_fn(|cx| {
            handoff.waker.register(cx.waker());
            if let Some(work) = handoff.take() {
                return Poll::Ready(Ok(Some(work)));
            }
            if handoff.is_closing() {
                return Poll::Ready(Ok(None));
            }
            while self.exchange.stream.poll_read_ready(cx)?.is_ready() {
                self.exchange.take_late(metrics)?;
            }
            self.exchange.alarm.poll_at(cx, until).map(|()| Ok(None))
        })
        .await
    }
}
