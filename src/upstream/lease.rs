//! The right to one connection, and how it passes from request to request.
//!
//! ```text
//!             submit / dispatch                     next: queue empty
//!   (none) ───────────────────────> Lease: running ───────────────────> Lease: idle
//!     ^                               │  │   ^                            │     │
//!     │ dropped: closed, dispatch     │  │   │     job in its Handoff      │     │
//!     ├───────────────────────────────┘  │   └────────────────────────────┘     │
//!     ├──────────────────────────────────│──────────────────────────────────────┘ linger, EOF, stop: leave_idle
//!     │                                  v
//!     └──────────────────────────── Lease: waiting for its worker ── next ──> running, idle
//! ```
//!
//! A lease that waits for its worker to finish after an answer counts as busy, and has no job.
//!
//! However the task of a connection ends, its lease is dropped with it, so no place is ever lost.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use atomic_waker::AtomicWaker;

use super::habits::Habits;
use super::probe::{Seen, Witness};
use super::queue::Ticket;
use super::request::{Failure, Outcome, Responder};
use super::scheduler::{Scheduler, Work};
use crate::config::model;
use crate::locks::lock;
use crate::metrics::upstream::RetryReason;

/// The right to one connection to one backend. When it is dropped, the next waiting request gets the place.
#[derive(Debug)]
pub(super) struct Lease<R: Responder> {
    pub(super) scheduler: Arc<Scheduler<R>>,
    backend: usize,
    hold: Hold<R>,
    /// This is the trial of a backend that was away, and the trial is not over.
    is_trial: bool,
}

#[derive(Debug)]
enum Hold<R> {
    Running(Ticket),
    /// The request is answered, and its worker is not known to be back.
    Waiting,
    Idle(Arc<Handoff<R>>),
    Nothing,
}

/// The next step of a connection after a request.
pub(super) enum Next<R> {
    /// Run this request.
    Run(Work<R>),
    /// Wait here for a request.
    Idle(Arc<Handoff<R>>),
    /// Wait for the worker, and ask again.
    Wait,
    Close,
}

/// State of the worker behind an answer, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerAfterAnswer {
    /// It waits for the next request.
    Back,
    /// It should be back soon.
    Expected,
    /// Backends like this close the connection after each answer.
    Leaving,
}

/// Where an idle connection finds its next request. It is filled under the scheduler's lock, so a connection that is no
/// longer among the idle ones has its job in here.
#[derive(Debug)]
pub(super) struct Handoff<R> {
    work: Mutex<Option<Work<R>>>,
    /// Close rather than linger.
    closing: AtomicBool,
    pub(super) waker: AtomicWaker,
}

impl<R> Handoff<R> {
    fn new() -> Self {
        Self { work: Mutex::new(None), closing: AtomicBool::new(false), waker: AtomicWaker::new() }
    }

    pub(super) fn put(&self, work: Work<R>) {
        *lock(&self.work) = Some(work);
    }

    pub(super) fn take(&self) -> Option<Work<R>> {
        lock(&self.work).take()
    }

    /// Tells the connection to close rather than linger.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

impl<R: Responder> Lease<R> {
    /// For a connection that the scheduler has counted, and that runs the request of this ticket.
    pub(super) fn new(scheduler: Arc<Scheduler<R>>, backend: usize, ticket: Ticket, is_trial: bool) -> Self {
        Self { scheduler, backend, hold: Hold::Running(ticket), is_trial }
    }

    pub(super) fn backend(&self) -> usize {
        self.backend
    }

    pub(super) fn habits(&self) -> &Habits {
        &self.scheduler.habits[self.backend]
    }

    pub(super) fn address(&self) -> &model::Bind {
        &self.scheduler.config.backends[self.backend].address
    }

    /// If this is a trial, checks that the backend is there. Until then it gets no other request.
    pub(super) async fn try_out(&mut self) -> io::Result<()> {
        if !self.is_trial {
            return Ok(());
        }
        self.scheduler.try_out(self.backend).await?;
        self.is_trial = false;
        Ok(())
    }

    /// Whether the backend is there, after a connection to it has ended without an answer.
    pub(super) async fn is_there(&self) -> bool {
        matches!(self.scheduler.look_at(self.backend).await, Seen::There)
    }

    /// The connection could not be made, or ended in a way that a healthy php-fpm does not use.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) {
        self.scheduler.missed(self.backend, error, if self.is_trial { Witness::Trial } else { Witness::Request });
    }

    /// A connection attempt failed. Nothing was sent, so the request returns to its old place in the queue.
    pub(super) fn connect_failed(self, work: Work<R>, error: &io::Error) {
        self.scheduler.metrics.connect_failures.inc();
        self.failed(error);
        self.restore(work);
    }

    /// Returns a request to the queue, because it may be sent again, and gives up the place.
    pub(super) fn restore(self, work: Work<R>) {
        let scheduler = self.scheduler.clone();
        let mut state = lock(&scheduler.state);
        if state.stopping {
            drop(state);
            scheduler.end(work.item, Outcome::Failed(Failure::Stopping));
            return;
        }
        state.queue.restore(work);
        drop(state);
        // Dropping the lease frees the place, and dispatches.
    }

    /// Counts a request that goes back to the queue.
    pub(super) fn retried(&self, reason: RetryReason) {
        self.scheduler.metrics.retried(reason);
    }

    /// Decides what a usable connection does after a request has ended. While the worker is not back it runs nothing. An idle connection
    /// may be given a job before that: nearly always the worker is back in time, and the request is spared a new connection.
    pub(super) fn next(&mut self, answered: bool, worker: WorkerAfterAnswer) -> Next<R> {
        let ticket = match self.hold {
            Hold::Running(ticket) => Some(ticket),
            Hold::Waiting => None,
            Hold::Idle(_) | Hold::Nothing => unreachable!("only a busy lease asks for the next step"),
        };
        let mut state = lock(&self.scheduler.state);
        if answered {
            state.backends.succeeded(self.backend);
        }
        let closes = !state.backends.is_up(self.backend)
            || state.backends.is_over(self.backend)
            || (state.queue.is_empty() && (state.stopping || self.scheduler.config.linger.is_zero()));
        if closes && (worker == WorkerAfterAnswer::Back || state.stopping) {
            return Next::Close;
        }
        let has_let_in = ticket.is_some_and(|ticket| state.queue.ended(ticket));
        let waits = match worker {
            WorkerAfterAnswer::Back => false,
            WorkerAfterAnswer::Expected => closes || !state.queue.has_nobody_in_line(),
            WorkerAfterAnswer::Leaving => true,
        };
        let next = if waits {
            self.hold = Hold::Waiting;
            Next::Wait
        } else if let Some(work) = state.queue.pop() {
            self.hold = Hold::Running(work.ticket);
            Next::Run(work)
        } else {
            let handoff = Arc::new(Handoff::new());
            state.backends.idle(self.backend, handoff.clone(), worker == WorkerAfterAnswer::Back);
            self.hold = Hold::Idle(handoff.clone());
            Next::Idle(handoff)
        };
        self.scheduler.settle(&mut state);
        drop(state);
        if waits && has_let_in {
            // That request is of the same group as the job that has ended. This place does not take it, but another one may be free.
            self.scheduler.dispatch();
        }
        next
    }

    /// The worker is not free for this request after all: another connection gets it, and this place waits.
    pub(super) fn hand_back(&mut self, work: Work<R>) {
        let mut state = lock(&self.scheduler.state);
        let Hold::Running(ticket) = std::mem::replace(&mut self.hold, Hold::Waiting) else {
            unreachable!("a lease with a request is running")
        };
        let refused = if state.stopping {
            Some(work)
        } else {
            state.queue.restore(work);
            None
        };
        state.queue.ended(ticket);
        drop(state);
        if let Some(work) = refused {
            self.scheduler.end(work.item, Outcome::Failed(Failure::Stopping));
        }
        self.scheduler.dispatch();
    }

    /// The linger time of an idle connection is over and its worker is not back, so the place waits for the worker. Returns a job if one
    /// came at the last moment.
    pub(super) fn wait_instead(&mut self) -> Option<Work<R>> {
        let Hold::Idle(handoff) = &self.hold else { return None };
        let handoff = handoff.clone();
        let mut state = lock(&self.scheduler.state);
        if state.backends.busy_after_all(self.backend, |other| Arc::ptr_eq(other, &handoff)) {
            self.scheduler.settle(&mut state);
            self.hold = Hold::Waiting;
            return None;
        }
        drop(state);
        let work = handoff.take().expect("a connection that left the idle list was given a job under the same lock");
        self.hold = Hold::Running(work.ticket);
        Some(work)
    }

    /// The request was cancelled before a connection was opened for it. Returns the next waiting one, if any.
    pub(super) fn next_before_connect(&mut self) -> Option<Work<R>> {
        let Hold::Running(ticket) = self.hold else { unreachable!("a lease runs from its start") };
        let mut state = lock(&self.scheduler.state);
        if state.queue.has_nobody_in_line() {
            return None;
        }
        state.queue.ended(ticket);
        let work = state.queue.pop().expect("the line is not empty");
        self.hold = Hold::Running(work.ticket);
        Some(work)
    }

    /// The connection takes the job from its handoff.
    pub(super) fn resumed(&mut self, work: &Work<R>) {
        self.hold = Hold::Running(work.ticket);
    }

    /// An idle connection wants to close. Returns a job if one came at the last moment.
    pub(super) fn leave_idle(&mut self) -> Option<Work<R>> {
        let Hold::Idle(handoff) = &self.hold else { return None };
        let handoff = handoff.clone();
        let mut state = lock(&self.scheduler.state);
        let left = state.backends.take_idle(self.backend, |other| Arc::ptr_eq(other, &handoff));
        drop(state);
        if left {
            self.hold = Hold::Nothing;
            return None;
        }
        let work = handoff.take().expect("a connection that left the idle list was given a job under the same lock");
        self.hold = Hold::Running(work.ticket);
        Some(work)
    }
}

impl<R: Responder> Drop for Lease<R> {
    fn drop(&mut self) {
        // Only a task that was torn down (the responder panicked) is still idle here; its job was never sent.
        let work = self.leave_idle();
        if let Hold::Running(_) | Hold::Waiting = self.hold {
            let mut state = lock(&self.scheduler.state);
            state.backends.closed(self.backend);
            if self.is_trial {
                state.backends.trial_given_up(self.backend, Instant::now());
            }
            if let Some(work) = work {
                state.queue.restore(work);
            }
            if let Hold::Running(ticket) = self.hold {
                state.queue.ended(ticket);
            }
            drop(state);
        }
        self.scheduler.dispatch();
    }
}
