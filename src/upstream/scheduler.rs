//! Who gets a connection next: the queue and the backends under one lock, and the leases that connections hold.
//!
//! The lock is held for the moves of plain data only; nothing of a responder is called and nothing is awaited under it.
//! A connection that ended a request takes the next one itself, so under load no task wakes another.
//!
//! ```text
//!             submit / dispatch                     next: queue empty
//!   (none) ───────────────────────> Lease: running ───────────────────> Lease: idle
//!     ^                               │      ^                            │     │
//!     │ dropped: closed, dispatch     │      │     job in its Handoff      │     │
//!     ├───────────────────────────────┘      └────────────────────────────┘     │
//!     └─────────────────────────────────────────────────────────────────────────┘ linger, EOF, stop: leave_idle
//! ```

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use atomic_waker::AtomicWaker;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::backend::{Backends, Place, Rules, Verdict};
use super::connection;
use super::queue::{Bounds, Queue, Waiting};
use super::request::{Class, Failure, Outcome, Request, Responder};
use crate::config::model;
use crate::metrics::upstream::{RequestClass, RequestOutcome, RetryReason, UpstreamHandles};

/// A request with what the upstream knows of it.
#[derive(Debug)]
pub(super) struct Job<R> {
    pub(super) request: Request<R>,
    pub(super) submitted: Instant,
    /// It was sent before, and its app allows that once.
    pub(super) resent: bool,
}

/// A job on its way through queue and connection.
pub(super) type Work<R> = Waiting<Job<R>>;

/// Where an idle connection finds its next request. Filled under the scheduler's lock, so that a connection that is no
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

    fn put(&self, work: Work<R>) {
        *lock(&self.work) = Some(work);
    }

    pub(super) fn take(&self) -> Option<Work<R>> {
        lock(&self.work).take()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// Everything that the connections of an upstream share.
#[derive(Debug)]
pub(super) struct Scheduler<R> {
    pub(super) config: model::Upstream,
    pub(super) metrics: UpstreamHandles,
    pub(super) stopping: CancellationToken,
    state: Mutex<State<R>>,
    /// The housekeeper has to look at its next deadline again.
    rearm: Notify,
    tasks: TaskTracker,
    runtime: Handle,
}

#[derive(Debug)]
struct State<R> {
    queue: Queue<Job<R>>,
    backends: Backends<Arc<Handoff<R>>>,
    /// When the housekeeper wakes by itself.
    armed: Option<Instant>,
    stopping: bool,
}

/// A free place and the job for it.
enum Assigned<R> {
    /// The idle connection already has the job.
    Reused(Arc<Handoff<R>>),
    /// A connection is to be opened to this backend.
    Open(usize, Work<R>),
}

/// What a connection does after a request.
pub(super) enum Next<R> {
    /// Run this.
    Run(Work<R>),
    /// Wait for a job in here.
    Idle(Arc<Handoff<R>>),
    /// Close.
    Close,
}

/// How things stand, for `/ready` and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that wait for a connection.
    pub queued: usize,
    /// Each backend, in the order of the configuration.
    pub backends: Vec<BackendSnapshot>,
}

/// How one backend stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSnapshot {
    /// Its address, as the configuration writes it.
    pub address: String,
    /// Whether it takes requests.
    pub up: bool,
    /// Connections that count against `max_connections`.
    pub open: usize,
    /// Connections whose worker is, or may be, busy.
    pub busy: usize,
}

impl<R: Responder> Scheduler<R> {
    pub(super) fn new(config: model::Upstream, metrics: UpstreamHandles) -> Arc<Self> {
        let connections = config.max_connections * config.backends.len();
        let bounds = Bounds {
            messages: config.queue_length,
            connects: config.connect_queue_length,
            connects_running: (connections * usize::from(config.connect_share_percent) / 100).max(1),
        };
        let rules = Rules {
            max_connections: config.max_connections,
            eject_after: config.eject_after.max(1),
            eject_time: config.eject_time,
        };
        let state = State {
            queue: Queue::new(bounds),
            backends: Backends::new(rules, config.backends.iter().map(|backend| backend.weight)),
            armed: None,
            stopping: false,
        };
        metrics.backends_up.set(config.backends.len() as i64);
        let scheduler = Arc::new(Self {
            config,
            metrics,
            stopping: CancellationToken::new(),
            state: Mutex::new(state),
            rearm: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        scheduler.tasks.spawn(scheduler.clone().keep_house());
        scheduler
    }

    /// Queues a request and gives it a connection when one is free.
    pub(super) fn submit(self: &Arc<Self>, request: Request<R>) {
        let now = Instant::now();
        let class = request.class;
        let deadline = match class {
            Class::Close => None,
            Class::Connect | Class::Message => Some(now + self.config.queue_timeout),
        };
        let job = Job { request, submitted: now, resent: false };

        let mut state = lock(&self.state);
        let refused = if state.stopping {
            Some((job, Failure::Stopping))
        } else {
            state.queue.push(class, job, deadline).err().map(|job| (job, Failure::QueueFull))
        };
        let assigned = state.assign(now);
        let more = self.settle(&mut state);
        drop(state);

        if let Some((job, failure)) = refused {
            self.end(job, Outcome::Failed(failure));
        }
        self.act(assigned);
        if more {
            self.dispatch();
        }
    }

    /// Gives waiting requests to free places, while there are both.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let mut state = lock(&self.state);
            let assigned = state.assign(Instant::now());
            let more = self.settle(&mut state);
            drop(state);
            let none = assigned.is_none();
            self.act(assigned);
            if none || !more {
                return;
            }
        }
    }

    fn act(self: &Arc<Self>, assigned: Option<Assigned<R>>) {
        match assigned {
            None => {}
            Some(Assigned::Reused(handoff)) => handoff.waker.wake(),
            Some(Assigned::Open(backend, work)) => {
                let lease = Lease { scheduler: self.clone(), backend, hold: Hold::Running(work.class) };
                self.tasks.spawn_on(connection::run(lease, work), &self.runtime);
            }
        }
    }

    /// Before the lock is let go: gauges, and the housekeeper's alarm. Says whether a further request may have a place.
    fn settle(&self, state: &mut State<R>) -> bool {
        for (class, label) in Class::ALL.into_iter().zip(RequestClass::ALL) {
            self.metrics.set_queued(*label, state.queue.len_of(class));
        }
        let (open, busy) = state.backends.totals();
        self.metrics.open.set(open as i64);
        self.metrics.busy.set(busy as i64);
        if state.queue.is_empty() {
            return false;
        }
        let needed = state.next_alarm();
        if needed.is_some_and(|needed| state.armed.is_none_or(|armed| needed < armed)) {
            state.armed = needed;
            self.rearm.notify_one();
        }
        true
    }

    /// Ends what has waited for too long, and tries backends that were away.
    async fn keep_house(self: Arc<Self>) {
        loop {
            let (expired, failure) = self.take_expired();
            for job in expired {
                self.end(job, Outcome::Failed(failure));
            }
            self.dispatch();

            let wake_at = {
                let mut state = lock(&self.state);
                state.armed = if state.queue.is_empty() { None } else { state.next_alarm() };
                state.armed
            };
            let alarm = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = alarm => {}
                () = self.rearm.notified() => {}
                () = self.stopping.cancelled() => return,
            }
        }
    }

    fn take_expired(&self) -> (Vec<Job<R>>, Failure) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let expired = std::iter::from_fn(|| state.queue.pop_expired(now)).map(|work| work.item).collect();
        let failure = if state.backends.up() == 0 { Failure::Unavailable } else { Failure::QueueTimeout };
        (expired, failure)
    }

    /// Refuses what comes, drops what waits, lets what runs run.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopping = true;
        let waiting = state.queue.drain();
        let idle: Vec<_> = state.backends.all_idle().cloned().collect();
        self.settle(&mut state);
        drop(state);
        self.stopping.cancel();
        for handoff in idle {
            handoff.closing.store(true, Ordering::Release);
            handoff.waker.wake();
        }
        for work in waiting {
            self.end(work.item, Outcome::Failed(Failure::Stopping));
        }
    }

    pub(super) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let state = lock(&self.state);
        let backends = self.config.backends.iter().enumerate().map(|(at, backend)| {
            let (open, busy) = state.backends.counts(at);
            BackendSnapshot { address: backend.address.to_string(), up: state.backends.is_up(at), open, busy }
        });
        Snapshot { queued: state.queue.len(), backends: backends.collect() }
    }

    /// Counts and tells how a request ended.
    pub(super) fn end(&self, job: Job<R>, outcome: Outcome) {
        let label = match outcome {
            Outcome::Done(timing) => {
                self.metrics.answered(timing.queued, timing.total);
                RequestOutcome::Done
            }
            Outcome::Failed(failure) => {
                let session = job.request.responder.label();
                let event = job.request.class.label();
                debug!(upstream = %self.config.name, %session, event, reason = failure.label(), "request failed");
                failure.metric()
            }
        };
        self.metrics.ended(job.request.class.metric(), label);
        job.request.responder.end(outcome);
    }
}

impl<R> State<R> {
    fn assign(&mut self, now: Instant) -> Option<Assigned<R>> {
        if self.queue.is_empty() {
            return None;
        }
        let (backend, place) = self.backends.place(now)?;
        let work = self.queue.pop().expect("a queue that is not empty always has somebody whose turn it is");
        Some(match place {
            Place::Reuse(handoff) => {
                handoff.put(work);
                Assigned::Reused(handoff)
            }
            Place::Open => Assigned::Open(backend, work),
        })
    }

    fn next_alarm(&self) -> Option<Instant> {
        let trial = self.backends.next_trial();
        self.queue.next_deadline().into_iter().chain(trial).min()
    }
}

#[derive(Debug)]
enum Hold<R> {
    Running(Class),
    Idle(Arc<Handoff<R>>),
    Nothing,
}

/// The right to one connection to one backend. Dropped, it gives the place to whoever waits.
#[derive(Debug)]
pub(super) struct Lease<R: Responder> {
    pub(super) scheduler: Arc<Scheduler<R>>,
    backend: usize,
    hold: Hold<R>,
}

impl<R: Responder> Lease<R> {
    pub(super) fn address(&self) -> &model::Bind {
        &self.scheduler.config.backends[self.backend].address
    }

    /// The connection stands.
    pub(super) fn connected(&self) {
        self.scheduler.metrics.connects.inc();
        let mut state = lock(&self.scheduler.state);
        let is_back = state.backends.connected(self.backend);
        let up = state.backends.up();
        drop(state);
        if is_back {
            self.scheduler.metrics.backends_up.set(up as i64);
            info!(upstream = %self.scheduler.config.name, backend = %self.address(), "backend is back");
            // While it was away requests queued up; one connection was allowed, now all are.
            self.scheduler.dispatch();
        }
    }

    /// The connection could not be made, or ended as no healthy php-fpm ends it.
    pub(super) fn failed(&self, error: &dyn std::fmt::Display) {
        let mut state = lock(&self.scheduler.state);
        let verdict = state.backends.failed(self.backend, Instant::now());
        let up = state.backends.up();
        drop(state);
        let (upstream, backend) = (&self.scheduler.config.name, self.address());
        if verdict == Verdict::Ejected {
            self.scheduler.metrics.ejections.inc();
            self.scheduler.metrics.backends_up.set(up as i64);
            warn!(%upstream, %backend, %error, "backend is away: left alone until it can be connected to");
        } else {
            debug!(%upstream, %backend, %error, "backend failed");
        }
    }

    /// A connection attempt failed: nothing was sent, so the request takes its old place in the queue.
    pub(super) fn connect_failed(self, work: Work<R>, error: &io::Error) {
        self.scheduler.metrics.connect_failures.inc();
        self.failed(error);
        self.restore(work);
    }

    /// Puts a request back that certainly or, for idempotent ones, admittedly may be sent again, and gives up the place.
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

    /// The request has ended, the connection can be used: what now?
    pub(super) fn next(&mut self, answered: bool) -> Next<R> {
        let Hold::Running(class) = self.hold else { unreachable!("only a running lease asks what comes next") };
        let mut state = lock(&self.scheduler.state);
        if answered {
            state.backends.succeeded(self.backend);
        }
        if !state.backends.is_up(self.backend) {
            return Next::Close;
        }
        if state.queue.is_empty() && (state.stopping || self.scheduler.config.linger.is_zero()) {
            return Next::Close;
        }
        state.queue.ended(class);
        let next = match state.queue.pop() {
            Some(work) => {
                self.hold = Hold::Running(work.class);
                Next::Run(work)
            }
            None => {
                let handoff = Arc::new(Handoff::new());
                state.backends.idle(self.backend, handoff.clone());
                self.hold = Hold::Idle(handoff.clone());
                Next::Idle(handoff)
            }
        };
        self.scheduler.settle(&mut state);
        next
    }

    /// The request was given up before a connection was opened for it; the next one that waits, if any.
    pub(super) fn next_before_connect(&mut self) -> Option<Work<R>> {
        let Hold::Running(class) = self.hold else { unreachable!("a lease runs from its start") };
        let mut state = lock(&self.scheduler.state);
        if state.queue.is_empty() {
            return None;
        }
        state.queue.ended(class);
        let work = state.queue.pop()?;
        self.hold = Hold::Running(work.class);
        Some(work)
    }

    /// The job from the handoff is taken up.
    pub(super) fn resumed(&mut self, work: &Work<R>) {
        self.hold = Hold::Running(work.class);
    }

    /// An idle connection wants to close. The job, when one came at the last moment.
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
        let work = handoff.take().expect("who is not among the idle was given a job under the same lock");
        self.hold = Hold::Running(work.class);
        Some(work)
    }
}

impl<R: Responder> Drop for Lease<R> {
    fn drop(&mut self) {
        // Only a task that was torn down (the responder panicked) is still idle here; its job was never sent.
        let work = self.leave_idle();
        if let Hold::Running(class) = self.hold {
            let mut state = lock(&self.scheduler.state);
            state.backends.closed(self.backend, Instant::now());
            state.queue.ended(class);
            if let Some(work) = work {
                state.queue.restore(work);
            }
            drop(state);
        }
        self.scheduler.dispatch();
    }
}

impl Class {
    fn metric(self) -> RequestClass {
        match self {
            Class::Connect => RequestClass::Connect,
            Class::Message => RequestClass::Message,
            Class::Close => RequestClass::Close,
        }
    }
}

impl Failure {
    fn metric(self) -> RequestOutcome {
        match self {
            Failure::QueueFull => RequestOutcome::QueueFull,
            Failure::QueueTimeout => RequestOutcome::QueueTimeout,
            Failure::Unavailable => RequestOutcome::Unavailable,
            Failure::BackendClosed { .. } => RequestOutcome::BackendClosed,
            Failure::ResponseTimeout { .. } => RequestOutcome::ResponseTimeout,
            Failure::RequestTimeout { .. } => RequestOutcome::RequestTimeout,
            Failure::Protocol { .. } => RequestOutcome::Protocol,
            Failure::Refused(_) => RequestOutcome::Refused,
            Failure::Cancelled { .. } => RequestOutcome::Cancelled,
            Failure::Stopping => RequestOutcome::Stopping,
        }
    }
}

/// A panic under one of these locks can only come from a broken invariant of plain data; others go on with what is there.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
