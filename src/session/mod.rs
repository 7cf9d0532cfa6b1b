//! A session: a client with an id, the frames that it sent, and the events that PHP gets for it.
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
//! The session's task owns its state. A reply is written through the [`Outbox`] by the thread that received it. Events
//! run strictly in order: the next one is submitted when the previous one has ended, unless the app allows several at
//! once. While the queue of frames is full, the socket is not read, so TCP slows the client down.
//!
//! Frames that were received whole before the client ended its side (FIN, close frame, bad bytes) are still handled,
//! and they are answered if the client still reads. After a reset, running events are aborted, and queued frames are
//! dropped and counted.

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
pub use endpoint::{ClientProtocol, Endpoint, HttpSettings, Hub, PlainRequest};
pub use handshake::{Opening, Verdict, Way, shake_hands};
pub use limits::{Admission, ConnectGates, PassedLimits, Permit};
pub use notices::tell_apps;
pub use posts::{NotTaken, Post, PostBoxes, Posts};
pub use state::SessionState;

use self::answer::{EventInfo, HttpAnswer, Reply};
use self::clock::Clock;
use self::endpoint::Event;
use self::gap::Gap;
use self::pace::Pace;
use self::pending::Pending;
use crate::metrics::{ListenerLabels, ReasonLabels};
#[cfg(test)]
use crate::outbox::faults::Fault;
use crate::outbox::{ClientLink, Close, Outbox};
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
    let state = SessionState {
        id,
        peer: peer.into(),
        local: local.into(),
        own_params: params,
        next_seq: 0,
        decoder: Decoder::new(&framing),
        pending: Pending::default(),
        connect_due: events.connect,
        // Without a connect event, PHP learns of a session by its first frame. It always gets the close event, if the
        // app asked for it.
        close_owed: !events.connect,
    };
    let (terms, link) = (endpoint.terms.clone(), ClientLink::to(transport));
    let outbox = Arc::new(match events.connect {
        true => Outbox::of_guest(id, framing, terms, link),
        false => Outbox::new(id, framing, terms, link),
    });
    endpoint.hub.router.insert(outbox.clone());
    Session::new(endpoint, state, outbox, permit).spawn();
}

/// A live session. Its task owns all of this.
struct Session {
    endpoint: Arc<Endpoint>,
    outbox: Arc<Outbox>,
    permit: Permit,
    state: SessionState,
    /// The source of its frames if the client sends them as HTTP requests. `None` if they come from a socket.
    posts: Option<Arc<Posts>>,
    /// The state of its rate limits, if the app has any.
    pace: Option<Box<Pace>>,
    in_flight: u32,
    /// The event in flight is the connect event: it has admitted the session and still sends greeting lines.
    is_greeting: bool,
    /// Set once nothing more is read: the reason to end.
    ending: Option<Box<Close>>,
    /// No more frames are cut out of the bytes that were read.
    is_cut_off: bool,
    clock: Clock,
    /// The timer for framings in which silence ends a frame.
    gap: Gap,
    bytes_in: u64,
    /// The session was announced to its codec, if it has one.
    is_open: bool,
}

/// The future of a session's task. It is written by hand rather than as an `async fn`, to save memory: an idle session
/// then has no room reserved for its end phase, and no copies of itself in nested futures.
#[expect(
    clippy::large_enum_variant,
    reason = "a session is live for nearly all of its time, so a box would only cost more"
)]
enum Task {
    Live(Session),
    Ending(Pin<Box<dyn Future<Output = ()> + Send>>),
    Ended,
}

// The memory of every session, apart from its outbox and its socket. Raise this limit only on purpose.
// (A task's allocation is a multiple of 128 bytes, of which tokio takes 104.)
const _: () = assert!(size_of::<Task>() <= 280);

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Task::Live(session) => {
                    // The panic itself is logged by the panic hook. The client and PHP are told of this end as of any
                    // other.
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
    /// Makes a session for an outbox that is already registered with the router.
    fn new(endpoint: Arc<Endpoint>, state: SessionState, outbox: Arc<Outbox>, permit: Permit) -> Self {
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

    /// From now on the client's frames come as HTTP requests of their own. `cut` ends the connection of a client that
    /// does not read.
    fn take_posts(&mut self, cut: CancellationToken) {
        let posts = Arc::new(Posts::new(self.outbox.clone(), &self.endpoint.app, cut));
        self.endpoint.hub.posts.insert(posts.clone());
        self.posts = Some(posts);
    }

    /// Moves the session into a task of its own.
    fn spawn(mut self) {
        self.pace = self.new_pace();
        if self.endpoint.hub.is_draining() {
            // The session was accepted while the node began to stop, so the drain has missed it. PHP need not be told
            // of it.
            self.outbox.ask_close(CloseReason::Draining.into());
            self.state.connect_due = false;
        }
        self.arm();
        let hub = self.endpoint.hub.clone();
        hub.tasks.spawn(Task::Live(self));
    }

    /// Serves the session until the reason to end is known and everything before it is done.
    fn poll_live(&mut self, cx: &mut Context<'_>) -> Poll<Box<Close>> {
        self.outbox.register(cx.waker());
        if !std::mem::replace(&mut self.is_open, true) && !self.outbox.open_codec() {
            // The codec failed before PHP was told of the session, so PHP is never told.
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
                // Pongs for pings that were just read: send all of them in one write.
                continue;
            }
            // A polling client that has ended its session does not poll again, so its outbox cannot be emptied.
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

    /// Whether the end of an event allows another event to begin, or the session to end.
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
            // The wheel also calls for deadlines that were armed earlier for a later tick. Only a tick that has passed
            // clears `armed`. Otherwise each call would arm another one, and the calls would multiply.
            self.clock.armed.take_if(|armed| *armed <= self.endpoint.hub.wheel.now());
            self.clock.is_due = true;
            #[cfg(test)]
            if Fault::JudgedUnread.is_on() {
                self.look_at_clock();
            }
        }
    }

    /// Submits the events that may run now.
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
        // Answers to posts do not go through the outbox, so a full outbox does not hold posts back.
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
        // A reply that the client does not take occupies its php-fpm worker. So no new event starts while more than
        // half an outbox of earlier replies is queued: a reply that fits into the other half always finds room.
        self.has_turn() && self.outbox.queued_bytes() <= self.endpoint.app.outbox_bytes / 2
    }

    fn has_turn(&self) -> bool {
        // The connect event is the first. No other event overtakes it.
        let is_connecting = self.is_greeting || self.endpoint.app.events.connect && !self.state.close_owed;
        let allowed = if is_connecting { 1 } else { self.endpoint.app.concurrency as u32 };
        self.in_flight < allowed
    }

    /// `reply` gets the answer if an HTTP request waits for it. Without it the answer goes to the outbox.
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

    /// Ends the session: waits for its events, says goodbye on the wire and delivers the close event.
    async fn finish(mut self, close: Close) {
        let hub = self.endpoint.hub.clone();
        let profile = hub.router.remove(self.state.id);
        if let Some(posts) = &self.posts {
            posts.close();
            posts.clear();
        }
        if close.is_abrupt() {
            // This cancels the replies in flight, since the client is gone.
            hub.metrics.router.count_lost(self.outbox.end());
            self.posts.iter().for_each(|posts| posts.cut());
        }
        self.events_ended().await;
        self.outbox.close_codec();
        let close_event = self.endpoint.close_event(&mut self.state, profile.params(), &close);
        if !close.is_abrupt() {
            farewell::say(&self.outbox, &close, self.endpoint.http_settings().map(|http| &http.websocket)).await;
            hub.metrics.router.count_lost(self.outbox.end());
        }
        // The session stays findable until here, because a poll may come for the close message.
        if self.posts.is_some() {
            hub.posts.remove(self.state.id);
        }
        self.permit.release_address();
        self.report(&close);
        // Dropping the outbox closes the socket. A close event that waits for PHP to come back must not keep it open.
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
