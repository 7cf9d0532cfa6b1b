//! Assigns connections to requests: the queue and the backends under one lock.
//!
//! The lock is held only while plain data is changed. No responder is called and nothing is awaited under it.
//! Requests and places are matched at three moments: when a request comes (`submit`), when a place becomes free (`dispatch`, called
//! when a [`Lease`] ends), and when a connection takes its next request itself ([`Lease::next`]), so that under load no
//! task wakes another. A housekeeping task ends requests that have waited for too long, and tries backends that were away.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::backend::{Backends, Placement, Rules};
use super::connection;
use super::habits::{Habits, Test};
use super::lease::{Handoff, Lease};
use super::limits;
use super::queue::{Bounds, Queue, QueuedAs, Ticket, Waiting};
use super::request::{Class, Failure, Outcome, Request, Responder};
use super::stalls::Stalls;
use crate::config::model;
use crate::locks::lock;
use crate::metrics::upstream::{RequestClass, RequestOutcome, UpstreamHandles};
use crate::proto::fastcgi::values::Values;

/// A request and its state in the upstream.
#[derive(Debug)]
pub(super) struct Job<R> {
    pub(super) request: Request<R>,
    pub(super) submitted: Instant,
    /// It was sent before and not answered, and may have run. So it may have run, however it ends now.
    pub(super) was_sent: bool,
    /// In that case it may be sent again, to a backend that works.
    pub(super) may_repeat: bool,
    /// How often the end of a connection proved, by php-fpm's rules, that it was not taken.
    pub(super) not_taken: u8,
}

/// A job on its way through queue and connection. It is boxed, because it is moved some twenty times for each message.
pub(super) type Work<R> = Waiting<Box<Job<R>>>;

/// Everything that the connections of an upstream share.
#[derive(Debug)]
pub(super) struct Scheduler<R> {
    pub(super) config: model::Upstream,
    pub(super) metrics: UpstreamHandles,
    pub(super) stopping: CancellationToken,
    pub(super) state: Mutex<SchedulerState<R>>,
    /// The learned habits of each backend.
    pub(super) habits: Vec<Habits>,
    /// Answers that wait for their clients.
    pub(super) stalls: Stalls,
    /// See [`Scheduler::recycles`].
    recycles: AtomicBool,
    /// See [`Scheduler::has_line`].
    has_line: AtomicBool,
    /// The housekeeper has to look at its next deadline again.
    rearm: Notify,
    tasks: TaskTracker,
    runtime: Handle,
}

/// The data that the lock guards.
#[derive(Debug)]
pub(super) struct SchedulerState<R> {
    pub(super) queue: Queue<Box<Job<R>>>,
    pub(super) backends: Backends<Arc<Handoff<R>>>,
    /// When the housekeeper wakes by itself.
    armed: Option<Instant>,
    pub(super) stopping: bool,
}

/// A free place and the job for it.
enum Assigned<R> {
    /// The idle connection already has the job.
    Reused(Arc<Handoff<R>>),
    /// A connection has to be opened to this backend; if `is_trial`, a trial has to show first that the backend is back.
    Open { backend: usize, work: Work<R>, is_trial: bool },
}

/// The current state, for `/ready` and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Requests that wait for a connection.
    pub queued: usize,
    /// Each backend, in the order of the configuration.
    pub backends: Vec<BackendSnapshot>,
}

/// The current state of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSnapshot {
    /// Its address, as the configuration writes it.
    pub address: String,
    /// Whether it takes requests.
    pub up: bool,
    /// The most connections: `max_connections`, or fewer if the backend says so.
    pub max_connections: usize,
    /// Connections that count against `max_connections`.
    pub open: usize,
    /// Connections whose worker is, or may be, busy.
    pub busy: usize,
}

impl<R: Responder> Scheduler<R> {
    pub(super) fn new(config: model::Upstream, metrics: UpstreamHandles) -> Arc<Self> {
        let bounds = Bounds {
            messages: config.queue_length.unwrap_or(usize::MAX),
            connects: config.connect_queue_length.unwrap_or(usize::MAX),
            connects_running: connect_share(&config, config.max_connections * config.backends.len()),
        };
        let rules = Rules {
            max_connections: config.max_connections,
            eject_after: config.eject_after.max(1),
            eject_time: config.eject_time,
        };
        let state = SchedulerState {
            queue: Queue::new(bounds),
            backends: Backends::new(rules, config.backends.iter().map(|backend| backend.weight)),
            armed: None,
            stopping: false,
        };
        metrics.backends_up.set(config.backends.len() as i64);
        metrics.limit.set(state.backends.limits() as i64);
        let stalls = Stalls::new(config.slow_reader_hold, state.backends.limits());
        let habits: Vec<_> = config.backends.iter().map(|_| Habits::new(Instant::now())).collect();
        if config.spawn.is_some() {
            // The spawned program is php-fpm, which keeps connections and answers questions.
            habits.iter().for_each(|habits| {
                habits.kept();
                habits.tested(true);
            });
        }
        let scheduler = Arc::new(Self {
            config,
            metrics,
            habits,
            stalls,
            stopping: CancellationToken::new(),
            state: Mutex::new(state),
            recycles: AtomicBool::new(false),
            has_line: AtomicBool::new(false),
            rearm: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        scheduler.tasks.spawn(scheduler.clone().keep_house());
        (0..scheduler.config.backends.len()).for_each(|backend| scheduler.ask_limits(backend));
        scheduler
    }

    /// Whether a backend has ever ended a kept connection after an answer, as php-fpm does with pm.max_requests. Then it is
    /// worth a system call to check for that before each request.
    pub(super) fn recycles(&self) -> bool {
        self.recycles.load(Ordering::Relaxed)
    }

    /// True while requests wait for a connection, as of the last look under the lock. Requests held back by their groups do not count.
    pub(super) fn has_line(&self) -> &AtomicBool {
        &self.has_line
    }

    /// A backend has ended a kept connection.
    pub(super) fn note_recycling(&self) {
        self.recycles.store(true, Ordering::Relaxed);
    }

    /// Asks a backend for its limits, if the configuration says so.
    pub(super) fn ask_limits(self: &Arc<Self>, backend: usize) {
        if !self.config.ask_limits {
            return;
        }
        let scheduler = self.clone();
        let asking = async move {
            tokio::select! {
                answer = limits::ask(&scheduler.config.backends[backend].address) => scheduler.told_limits(backend, answer),
                () = scheduler.stopping.cancelled() => {}
            }
        };
        self.tasks.spawn_on(asking, &self.runtime);
    }

    /// Before a connection over TCP is opened: if the test is due, learns whether the backend answers questions. Only the first
    /// request waits for that, a fifth of a second if there is no answer. (Workers on a Unix socket need not be asked after an answer,
    /// and a probe makes the test.)
    pub(super) async fn test_answers(self: &Arc<Self>, backend: usize) {
        let address = &self.config.backends[backend].address;
        if !matches!(address, model::Bind::Tcp(_)) {
            return;
        }
        match self.habits[backend].test_due(Instant::now()) {
            None => {}
            Some(Test::First) => {
                self.habits[backend].tested(limits::answers_at_once(address, self.config.connect_timeout).await);
            }
            Some(Test::Again) => self.doubt_answers(backend),
        }
    }

    /// Tests again, on a separate connection, whether a backend answers questions.
    pub(super) fn doubt_answers(self: &Arc<Self>, backend: usize) {
        let scheduler = self.clone();
        let testing = async move {
            let address = &scheduler.config.backends[backend].address;
            tokio::select! {
                answers = limits::answers_at_once(address, scheduler.config.connect_timeout) => {
                    scheduler.habits[backend].tested(answers);
                }
                () = scheduler.stopping.cancelled() => {}
            }
        };
        self.tasks.spawn_on(testing, &self.runtime);
    }

    fn told_limits(self: &Arc<Self>, at: usize, answer: io::Result<Values>) {
        let (upstream, backend) = (&self.config.name, &self.config.backends[at].address);
        let Values { max_connections, max_requests, multiplexes } = match answer {
            Ok(values) => values,
            Err(error) => {
                info!(%upstream, %backend, %error, "backend does not report its limits");
                return;
            }
        };
        let mut state = lock(&self.state);
        if let Some(connections) = max_connections {
            state.backends.told_limit(at, connections as usize);
            let all = state.backends.limits();
            state.queue.set_connects_running(connect_share(&self.config, all));
            self.metrics.limit.set(all as i64);
            self.stalls.set_connections(all);
        }
        let used = state.backends.limit(at);
        drop(state);
        info!(%upstream, %backend, max_connections, max_requests, multiplexes, used, "backend reports its limits");
        // The limit may be higher than before.
        self.dispatch();
    }

    /// Queues a request, and assigns a connection if one is free.
    pub(super) fn submit(self: &Arc<Self>, request: Request<R>) {
        let now = Instant::now();
        let ticket = Ticket { class: request.class, group: request.group };
        let deadline = match ticket.class {
            Class::Close | Class::Presence => None,
            Class::Connect | Class::Message => Some(now + self.config.queue_timeout),
        };
        let may_repeat = request.idempotent;
        let job = Box::new(Job { request, submitted: now, was_sent: false, may_repeat, not_taken: 0 });

        let mut state = lock(&self.state);
        let refused = if state.stopping {
            Some((job, Failure::Stopping))
        } else {
            match state.queue.push(ticket, job, deadline) {
                Ok(QueuedAs::InLine) => None,
                Ok(QueuedAs::Held) => {
                    self.metrics.held.inc();
                    None
                }
                Err(job) => Some((job, Failure::QueueFull)),
            }
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

    /// Assigns waiting requests to free places, while there are both.
    pub(super) fn dispatch(self: &Arc<Self>) {
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
            Some(Assigned::Open { backend, work, is_trial }) => {
                let lease = Lease::new(self.clone(), backend, work.ticket, is_trial);
                self.tasks.spawn_on(connection::run(lease, work), &self.runtime);
            }
        }
    }

    /// Called before the lock is released: sets gauges and the housekeeper's alarm. True if another request might find a place.
    pub(super) fn settle(&self, state: &mut SchedulerState<R>) -> bool {
        for (class, label) in Class::ALL.into_iter().zip(RequestClass::ALL) {
            self.metrics.set_queued(*label, state.queue.len_of(class));
        }
        let (open, busy) = state.backends.totals();
        self.metrics.set_connections(open, busy);
        let has_line = !state.queue.has_nobody_in_line();
        if self.has_line.load(Ordering::Relaxed) != has_line {
            self.has_line.store(has_line, Ordering::Relaxed);
        }
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

    /// Ends requests that have waited for too long, and tries backends that were away.
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

    fn take_expired(&self) -> (Vec<Box<Job<R>>>, Failure) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let expired = std::iter::from_fn(|| state.queue.pop_expired(now)).map(|work| work.item).collect();
        let failure = if state.backends.up() == 0 { Failure::Unavailable } else { Failure::QueueTimeout };
        (expired, failure)
    }

    /// Refuses new requests, drops waiting ones, and lets running ones finish.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopping = true;
        let waiting = state.queue.drain();
        let idle: Vec<_> = state.backends.all_idle().cloned().collect();
        self.settle(&mut state);
        drop(state);
        self.stopping.cancel();
        for handoff in idle {
            handoff.close();
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
            BackendSnapshot {
                address: backend.address.to_string(),
                up: state.backends.is_up(at),
                max_connections: state.backends.limit(at),
                open,
                busy,
            }
        });
        Snapshot { queued: state.queue.len(), backends: backends.collect() }
    }

    /// Counts the end of a request and tells its responder.
    #[expect(clippy::boxed_local, reason = "it comes in its box, and is not moved out of it as a whole")]
    pub(super) fn end(&self, job: Box<Job<R>>, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Failed(failure) if job.was_sent => Outcome::Failed(failure.of_one_that_was_sent()),
            outcome => outcome,
        };
        let label = match outcome {
            Outcome::Done(timing) => {
                self.metrics.answered(timing.queued, timing.total);
                RequestOutcome::Done
            }
            Outcome::Failed(failure) => {
                let session = job.request.responder.label().map(tracing::field::display);
                let event = job.request.class.label();
                debug!(upstream = %self.config.name, session, event, reason = failure.label(), "request failed");
                failure.metric()
            }
        };
        self.metrics.ended(job.request.class.metric(), label);
        job.request.responder.end(outcome);
    }
}

impl<R> SchedulerState<R> {
    fn assign(&mut self, now: Instant) -> Option<Assigned<R>> {
        if self.queue.has_nobody_in_line() {
            return None;
        }
        let (backend, place) = self.backends.place(now)?;
        let work = self.queue.pop().expect("the line is not empty");
        Some(match place {
            Placement::Reuse(handoff) => {
                handoff.put(work);
                Assigned::Reused(handoff)
            }
            Placement::Open => Assigned::Open { backend, work, is_trial: false },
            Placement::Trial => Assigned::Open { backend, work, is_trial: true },
        })
    }

    fn next_alarm(&self) -> Option<Instant> {
        let trial = self.backends.next_trial();
        self.queue.next_deadline().into_iter().chain(trial).min()
    }
}

/// How many of these connections the connect events may hold while other requests wait.
fn connect_share(config: &model::Upstream, connections: usize) -> usize {
    (connections * usize::from(config.connect_share_percent) / 100).max(1)
}

impl Class {
    fn metric(self) -> RequestClass {
        match self {
            Class::Connect => RequestClass::Connect,
            Class::Message => RequestClass::Message,
            Class::Close => RequestClass::Close,
            Class::Presence => RequestClass::Presence,
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
            Failure::SlowReader { .. } => RequestOutcome::SlowReader,
            Failure::Protocol { .. } => RequestOutcome::Protocol,
            Failure::Refused(_) => RequestOutcome::Refused,
            Failure::Cancelled { .. } => RequestOutcome::Cancelled,
            Failure::Stopping => RequestOutcome::Stopping,
        }
    }
}
