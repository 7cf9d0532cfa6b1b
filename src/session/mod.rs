//! Sessions: a client with an id, what it has sent, and what PHP is told of it.
//!
//! ```text
//!   stream accepted ----------------------.
//!                                         v
//!   HTTP upgrade --> handshake --101--> live --ending known, events drained, outbox empty--> farewell --> close event
//!                       |                 |                                                     ^
//!                       | 3xx to 5xx      `--client gone, slow reader: at once, events aborted--'
//!                       v
//!                     never a session (its close event follows if PHP may have noted it)
//! ```
//!
//! The task here owns the session's state; a reply is written by the thread that has it, through the [`Outbox`]. Events
//! run strictly in order: the next is submitted when the one before has ended (unless the app allows several at once). While
//! the queue of frames is full, the socket is not read, and TCP holds the client back.
//!
//! What was received whole before the client ended its side (FIN, close frame, bad bytes) is still handled, and
//! answered if the client listens; after a reset what runs is aborted and what waits is dropped and counted.

mod answer;
mod cgi;
mod clock;
mod cookies;
mod delivery;
mod endpoint;
mod farewell;
mod gap;
mod group;
mod handshake;
mod input;
mod limits;
mod liveness;
mod notices;
mod pace;
mod pending;
mod posts;
#[cfg(test)]
mod simulation;
mod state;
mod stderr;
pub mod wheel;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use answer::{Answer, Head, HttpReply, ReplyBody};
pub use endpoint::{Endpoint, Hub, PlainRequest};
pub use handshake::{Opening, Verdict, Way, shake_hands};
pub use limits::{Admission, ConnectGates, PassedLimits, Permit};
pub use notices::tell_apps;
pub use posts::{NotTaken, Post, PostBoxes, Posts};
pub use state::State;

use self::answer::{EventInfo, HttpAnswer, Reply};
use self::clock::Clock;
use self::endpoint::Event;
use self::gap::Gap;
use self::pace::Pace;
use self::pending::Pending;
use crate::metrics::{ListenerLabels, ReasonLabels};
#[cfg(test)]
use crate::outbox::faults::Fault;
use crate::outbox::{Close, Link, Outbox};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::{Decoder, FrameKind};
use crate::transport::{Arrival, Peer};
use crate::upstream::Class;

/// Starts a session on a stream connection, in a task that ends when its close event is delivered.
pub fn spawn_stream(endpoint: Arc<Endpoint>, arrival: Arrival, permit: Permit) {
    let Arrival { transport, peer, local, params, accepted: _ } = arrival;
    let events = endpoint.app.events;
    let id = endpoint.hub.ids.next_id();
    let framing = endpoint.framing.of_session(id);
    let state = State {
        id,
        peer: peer.into(),
        local: local.into(),
        own_params: params,
        next_seq: 0,
        decoder: Decoder::new(&framing),
        pending: Pending::default(),
        connect_due: events.connect,
        // Without a connect event PHP hears of a session by its first frame, and of its end whenever it asked to.
        close_owed: !events.connect,
    };
    let (terms, link) = (endpoint.terms.clone(), Link::to(transport));
    let outbox = Arc::new(match events.connect {
        true => Outbox::of_guest(id, framing, terms, link),
        false => Outbox::new(id, framing, terms, link),
    });
    endpoint.hub.router.insert(outbox.clone());
    Session::new(endpoint, state, outbox, permit).spawn();
}

/// A live session: what its task owns.
struct Session {
    endpoint: Arc<Endpoint>,
    outbox: Arc<Outbox>,
    permit: Permit,
    state: State,
    /// Where its frames come from, if not from a socket.
    posts: Option<Arc<Posts>>,
    /// What is left of its rates, if it has any.
    pace: Option<Box<Pace>>,
    in_flight: u32,
    /// What is in flight is its connect event, which has let it in and still greets.
    is_greeting: bool,
    /// Nothing more is read, for this reason.
    ending: Option<Box<Close>>,
    /// What was read and no frame was cut out of yet never will be.
    is_cut_off: bool,
    clock: Clock,
    /// The end of the silence that ends a frame, where silence does.
    gap: Gap,
    bytes_in: u64,
    /// Its codec, if it has one, knows of it.
    is_open: bool,
}

/// The future of a session's task. By hand rather than `async`: a session at rest keeps no room for its own end, nor
/// copies of itself in the layers of a future.
#[expect(
    clippy::large_enum_variant,
    reason = "a session is live for nearly all of its time: a box would only cost more"
)]
enum Task {
    Live(Session),
    Ending(Pin<Box<dyn Future<Output = ()> + Send>>),
    Ended,
}

// What every session holds beside its outbox and its socket; to grow it is a decision.
// (A task's allocation is a multiple of 128 bytes, of which tokio takes 104.)
const _: () = assert!(size_of::<Task>() <= 280);

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Task::Live(session) => {
                    // Where it panicked is logged there. The client and PHP hear of this end as of any other.
                    let close = match catch_unwind(AssertUnwindSafe(|| session.poll_live(cx))) {
                        Ok(poll) => ready!(poll),
                        Err(_) => Box::new(CloseReason::NodeFailed.into()),
                    };
                    let Task::Live(session) = std::mem::replace(&mut *self, Task::Ended) else {
                        unreachable!("just matched")
                    };
                    *self = Task::Ending(Box::pin(session.finish(*close)));
                }
                Task::Ending(end) => {
                    ready!(end.as_mut().poll(cx));
                    *self = Task::Ended;
                }
                Task::Ended => return Poll::Ready(()),
            }
        }
    }
}

impl Session {
    /// Of an outbox that the router knows.
    fn new(endpoint: Arc<Endpoint>, state: State, outbox: Arc<Outbox>, permit: Permit) -> Self {
        let now = endpoint.hub.wheel.now();
        let labels = ListenerLabels { listener: endpoint.listener.clone() };
        endpoint.hub.metrics.sessions_opened.get_or_create(&labels).inc();
        endpoint.hub.metrics.sessions.inc();
        let clock = Clock::new(now);
        Self {
            endpoint,
            outbox,
            permit,
            state,
            posts: None,
            pace: None,
            in_flight: 0,
            is_greeting: false,
            ending: None,
            is_cut_off: false,
            clock,
            gap: Gap::default(),
            bytes_in: 0,
            is_open: false,
        }
    }

    /// What its client says comes in requests of their own, from now on; `cut` ends the connection of a client that does
    /// not read.
    fn take_posts(&mut self, cut: CancellationToken) {
        let posts = Arc::new(Posts::new(self.outbox.clone(), &self.endpoint.app, cut));
        self.endpoint.hub.posts.insert(posts.clone());
        self.posts = Some(posts);
    }

    /// Lives in a task of its own from now on.
    fn spawn(mut self) {
        self.pace = self.new_pace();
        if self.endpoint.hub.is_draining() {
            // Accepted while the node began to stop: nobody else will tell it, and PHP need not hear of it.
            self.outbox.ask_close(CloseReason::Draining.into());
            self.state.connect_due = false;
        }
        self.arm();
        let hub = self.endpoint.hub.clone();
        hub.tasks.spawn(Task::Live(self));
    }

    /// Serves until the reason to end is known and everything before it is done.
    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Box<Close>> {
        self.outbox.register(cx.waker());
        if !std::mem::replace(&mut self.is_open, true) && !self.outbox.open_codec() {
            // It failed before PHP has heard of the session, and so it never does.
            self.state.connect_due = false;
        }
        loop {
            self.take_signals();
            self.watch_absence();
            let is_flushed = self.outbox.poll_flush(cx).is_ready();
            if let Some(close) = self.outbox.take_asked_close() {
                self.end_input(close);
            }
            if let Some(close) = self.ending.take_if(|close| close.is_abrupt()) {
                return Poll::Ready(close);
            }
            if !is_flushed {
                self.watch_stall();
            }
            self.start_events();
            if self.poll_input(cx) {
                continue;
            }
            if std::mem::take(&mut self.clock.is_due) {
                self.look_at_clock();
                self.arm();
                continue;
            }
            if is_flushed && self.outbox.unwritten_bytes() > 0 {
                // Pongs for what was read just now: all of them leave in one write.
                continue;
            }
            // A client that polled and has ended its session polls no more.
            let is_said = is_flushed || self.has_ended_its_side() && self.is_away();
            let is_done = self.in_flight == 0 && self.has_nothing_to_handle() && is_said;
            if let Some(close) = self.ending.take_if(|_| is_done) {
                return Poll::Ready(close);
            }
            if self.in_flight == 0 || !self.waits_for_ends() || self.outbox.watch_ends() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the end of an event lets something happen: another begin, or the session end.
    fn waits_for_ends(&self) -> bool {
        self.ending.is_some()
            || !self.state.pending.is_empty()
            || self.posts.is_some()
            || self.endpoint.may_run_several()
    }

    fn take_signals(&mut self) {
        let signals = self.outbox.take_signals();
        self.in_flight -= signals.ended_events;
        self.is_greeting &= self.in_flight > 0;
        if signals.ended_events > 0 && self.in_flight == 0 && self.endpoint.may_run_several() {
            self.outbox.forget_waiters();
        }
        self.state.close_owed |= signals.connect_counts;
        if signals.has_cookies {
            self.endpoint.keep_cookies(&mut self.state, &self.outbox.take_cookies());
        }
        if signals.tick {
            // The wheel also comes for older, later dates. Were one of those taken for the date that is armed, each visit
            // would arm another, and they would become more and more.
            self.clock.armed.take_if(|armed| *armed <= self.endpoint.hub.wheel.now());
            self.clock.is_due = true;
            #[cfg(test)]
            if Fault::JudgedUnread.is_on() {
                self.look_at_clock();
            }
        }
    }

    /// Submits what may run now.
    fn start_events(&mut self) {
        if self.state.connect_due {
            self.state.connect_due = false;
            self.submit(Class::Connect, self.endpoint.default_kind(), Bytes::new(), None);
            return;
        }
        while self.may_start()
            && let Some(frame) = self.state.pending.pop()
        {
            self.submit(Class::Message, frame.kind, frame.body, None);
        }
        // Their answers do not go through the outbox, so nothing that waits there stands in their way.
        #[cfg(test)]
        if Fault::PostWaitsForRoom.is_on() && !self.may_start() {
            return;
        }
        while self.has_turn()
            && !self.is_held_back()
            && let Some(post) = self.posts.as_ref().and_then(|posts| posts.pop())
        {
            self.clock.last_frame = self.endpoint.hub.wheel.now();
            self.bytes_in += post.body.len() as u64;
            self.endpoint.hub.metrics.frames_in.inc();
            self.endpoint.hub.metrics.bytes_in.inc_by(post.body.len() as u64);
            let len = post.body.len();
            self.submit(Class::Message, post.kind, post.body, Some(post.reply));
            self.charge_bytes(len);
            self.charge_frame();
        }
    }

    fn may_start(&self) -> bool {
        // A reply that the client does not take holds its php-fpm worker, so none is asked for while the last ones still
        // wait: what is below half an outbox always finds room.
        self.has_turn() && self.outbox.queued_bytes() <= self.endpoint.app.outbox_bytes / 2
    }

    fn has_turn(&self) -> bool {
        // Nothing overtakes the connect event, which is the first.
        let is_connecting = self.is_greeting || self.endpoint.app.events.connect && !self.state.close_owed;
        let allowed = if is_connecting { 1 } else { self.endpoint.app.concurrency as u32 };
        self.in_flight < allowed
    }

    /// `reply` is where the answer is waited for, if it is not simply for the outbox.
    fn submit(&mut self, class: Class, kind: FrameKind, body: Bytes, reply: Option<oneshot::Sender<HttpReply>>) {
        let profile = match self.outbox.may_have_params() {
            true => self.endpoint.hub.router.params(self.state.id),
            false => EncodedParams::default(),
        };
        let event = Event { class, seq: self.state.next_seq, kind, body, profile };
        self.state.next_seq += 1;
        self.in_flight += 1;
        let info = EventInfo::new(self.endpoint.clone(), self.state.id, &event);
        let outbox = self.outbox.clone();
        let answer = match reply {
            None => Answer::Reply(Box::new(Reply::new(info, outbox))),
            Some(reply) => Answer::Http(Box::new(HttpAnswer::new(info, Some(outbox), reply))),
        };
        self.endpoint.submit(&self.state, event, answer);
    }

    /// The session is over but for its end on the wire and its close event.
    async fn finish(mut self, close: Close) {
        let hub = self.endpoint.hub.clone();
        let profile = hub.router.remove(self.state.id);
        if let Some(posts) = &self.posts {
            posts.close();
            posts.clear();
        }
        if close.is_abrupt() {
            // Replies in flight learn that nobody wants them.
            hub.metrics.router.count_lost(self.outbox.end());
            self.posts.iter().for_each(|posts| posts.cut());
        }
        self.events_ended().await;
        self.outbox.close_codec();
        let close_event = self.endpoint.close_event(&mut self.state, profile.params(), &close);
        if !close.is_abrupt() {
            farewell::say(&self.outbox, &close, self.endpoint.websocket.as_ref()).await;
            hub.metrics.router.count_lost(self.outbox.end());
        }
        // A poll may have come for the last word.
        if self.posts.is_some() {
            hub.posts.remove(self.state.id);
        }
        self.permit.release_address();
        self.report(&close);
        // The socket goes with the outbox; a close event that waits for PHP to come back must not keep it.
        self.outbox.link().feed().into_iter().for_each(|feed| feed.break_off());
        drop((self.posts, self.outbox));
        if let Some(delivered) = close_event {
            delivered.await;
        }
    }

    async fn events_ended(&mut self) {
        poll_fn(|cx| {
            self.outbox.register(cx.waker());
            loop {
                let signals = self.outbox.take_signals();
                self.in_flight -= signals.ended_events;
                self.state.close_owed |= signals.connect_counts;
                if signals.has_cookies {
                    self.endpoint.keep_cookies(&mut self.state, &self.outbox.take_cookies());
                }
                if self.in_flight == 0 {
                    return Poll::Ready(());
                }
                if self.outbox.watch_ends() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    fn report(&self, close: &Close) {
        let hub = &self.endpoint.hub;
        let labels = ReasonLabels { listener: self.endpoint.listener.clone(), reason: close.reason.label() };
        hub.metrics.sessions_closed.get_or_create(&labels).inc();
        hub.metrics.sessions.dec();
        hub.metrics.bytes_out.inc_by(self.outbox.bytes_out());
        let skipped = self.state.decoder.skipped();
        let seconds = wheel::seconds(hub.wheel.now() - self.clock.opened);
        info!(
            session = %self.state.id, listener = %self.endpoint.listener, app = %self.endpoint.app.name,
            peer = %Peer::from(self.state.peer), reason = close.reason.label(), code = close.code(),
            detail = close.detail.as_deref(), events = self.state.next_seq, bytes_in = self.bytes_in,
            bytes_skipped = (skipped > 0).then_some(skipped), bytes_out = self.outbox.bytes_out(), seconds,
            "session closed"
        );
    }
}
