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
//! The task here owns the session's state; replies are written by whoever has them, through the [`Outbox`]. Events
//! run strictly in order: the next is submitted when the one before has ended (unless the app allows several at once). While
//! as many frames wait as may, the socket is not read, and TCP holds the client back.
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
mod limits;
mod liveness;
mod notices;
mod pace;
mod pending;
mod posts;
#[cfg(test)]
mod simulation;
mod stderr;
pub mod wheel;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use answer::{Answer, Head, HttpReply, ReplyBody};
pub use endpoint::{Endpoint, Hub, PlainRequest};
pub use handshake::{Opening, Verdict, Way, shake_hands};
pub use limits::{Admission, ConnectGates, PassedLimits, Permit};
pub use notices::tell_apps;
pub use posts::{NotTaken, Post, PostBoxes, Posts};

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
use crate::proto::framing::{Decoder, FrameKind, Item};
use crate::proto::id::SessionId;
use crate::transport::{Arrival, PackedPeer, Peer};
use crate::upstream::{Class, READ_BYTES};

thread_local! {
    /// What a socket had to say, for as long as it takes to cut frames out of it: no session at rest holds a buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// What a session is, apart from its socket: plain data that can be written down and taken up elsewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub id: SessionId,
    /// The other end.
    pub peer: PackedPeer,
    /// This end.
    pub local: PackedPeer,
    /// The params of its connection, and of the upgrade request if there was one. Only its cookies change while it lives.
    #[serde(with = "encoded")]
    pub own_params: EncodedParams,
    /// The number of the next event.
    pub next_seq: u64,
    /// What the framing is in the middle of.
    pub decoder: Decoder,
    /// What was read and waits.
    pub pending: Pending,
    /// PHP is still to be told of the session.
    pub connect_due: bool,
    /// PHP knows of the session and is owed a close event.
    pub close_owed: bool,
}

mod encoded {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::proto::fastcgi::params::EncodedParams;

    pub(super) fn serialize<S: Serializer>(params: &EncodedParams, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(&[u8], &[u8])> = params.pairs().collect();
        pairs.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EncodedParams, D::Error> {
        let mut params = crate::proto::fastcgi::params::Params::new();
        for (name, value) in Vec::<(Vec<u8>, Vec<u8>)>::deserialize(deserializer)? {
            params.push(&name, &value).map_err(serde::de::Error::custom)?;
        }
        Ok(params.finish())
    }
}

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

    /// From now on nothing is read. Of several reasons the first stands, unless nobody is there any more.
    fn end_input(&mut self, close: Box<Close>) {
        let has_ended_its_side = self.has_ended_its_side();
        let drops_waiting = match close.reason {
            CloseReason::ClientClosed
            | CloseReason::NoGoodbye
            | CloseReason::FrameTruncated
            | CloseReason::BadFrame
            | CloseReason::BadText
            | CloseReason::FrameTooLarge
            | CloseReason::CodecFailed
            | CloseReason::CodecTooLong
            | CloseReason::CodecOutOfMemory
            | CloseReason::CodecClosed
            | CloseReason::Draining
            | CloseReason::IdleTimeout => false,
            // Who ended its side and now does not even listen has still said what it said before.
            CloseReason::ClientGone | CloseReason::PeerTimeout => !has_ended_its_side,
            // Refused above all: PHP must hear nothing of a session that it has turned away.
            _ => true,
        };
        if let Some(posts) = &self.posts {
            posts.close();
        }
        if drops_waiting {
            self.drop_waiting(close.reason);
        }
        if !matches!(close.reason, CloseReason::Draining | CloseReason::IdleTimeout) {
            // Behind what the client has said last, and behind what is no frame, comes nothing.
            self.is_cut_off = true;
            self.state.pending.take_unread();
        }
        let stands = match &self.ending {
            None => false,
            // A client that listens and takes nothing would hold a worker and its socket for as long as it likes.
            Some(_) if has_ended_its_side => close.reason != CloseReason::SlowReader,
            Some(_) => !close.is_abrupt(),
        };
        if !stands {
            self.ending = Some(close);
        }
    }

    fn has_ended_its_side(&self) -> bool {
        let reason = self.ending.as_ref().map(|close| close.reason);
        matches!(reason, Some(CloseReason::ClientClosed | CloseReason::NoGoodbye))
    }

    fn drop_waiting(&mut self, reason: CloseReason) {
        let posts = self.posts.as_ref().map_or(0, |posts| posts.clear());
        let dropped = (self.state.pending.clear_frames() + self.count_unread() + posts) as u64;
        if dropped > 0 {
            let labels = ReasonLabels { listener: self.endpoint.listener.clone(), reason: reason.label() };
            self.endpoint.hub.metrics.frames_dropped.get_or_create(&labels).inc_by(dropped);
        }
    }

    /// How many frames were read and not cut out; they never will be.
    fn count_unread(&mut self) -> usize {
        let unread = self.state.pending.take_unread();
        #[cfg(test)]
        if Fault::UnreadForgotten.is_on() {
            return 0;
        }
        // A codec answers what it finds, and there is nobody to be answered.
        if std::mem::replace(&mut self.is_cut_off, true) || self.outbox.framing().codec().is_some() {
            return 0;
        }
        let (mut used, mut frames) = (0, 0);
        while used < unread.len() || self.state.decoder.has_rest() {
            let max_frame = self.endpoint.app.max_frame_bytes;
            match self.state.decoder.decode(self.outbox.framing(), max_frame, &unread[used..]) {
                Ok((n, Some(item))) => {
                    used += n;
                    frames += usize::from(matches!(item, Item::Frame(_)));
                }
                Ok((_, None)) | Err(_) => break,
            }
        }
        frames
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

    /// All that was read is handled or under way.
    fn has_nothing_to_handle(&self) -> bool {
        self.state.pending.frames() == 0
            && !self.has_uncut()
            && self.posts.as_ref().is_none_or(|posts| posts.is_empty())
    }

    /// Bytes were read that frames can still be cut out of.
    fn has_uncut(&self) -> bool {
        !self.is_cut_off && (self.state.pending.has_unread() || self.state.decoder.has_rest())
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

    /// Reads and cuts frames while there is room for them. True when something happened.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ending.is_some() {
            return self.has_uncut() && self.has_room() && self.cut_unread();
        }
        if self.is_held_back() || !self.has_room() {
            self.clock.is_listening = false;
            self.forgive_silence();
            return false;
        }
        if !std::mem::replace(&mut self.clock.is_listening, true) {
            self.forgive_silence();
        }
        if self.has_uncut() {
            self.cut_unread();
            return true;
        }
        SCRATCH.with_borrow_mut(|scratch| match self.outbox.link().poll_read(cx, scratch) {
            Poll::Pending => self.poll_gap(cx),
            Poll::Ready(Ok(0)) => {
                self.end_by_silence();
                let reason = match self.outbox.framing() {
                    _ if self.state.decoder.is_mid_frame() => CloseReason::FrameTruncated,
                    framing if framing.has_goodbye() => CloseReason::NoGoodbye,
                    _ => CloseReason::ClientClosed,
                };
                self.end_input(Box::new(reason.into()));
                true
            }
            Poll::Ready(Ok(n)) => {
                self.bytes_in += n as u64;
                self.endpoint.hub.metrics.bytes_in.inc_by(n as u64);
                self.heard();
                self.charge_bytes(n);
                let used = self.take_bytes(&scratch[..n]);
                self.note_frame();
                if !self.is_cut_off && used < n {
                    self.state.pending.keep_unread(Bytes::copy_from_slice(&scratch[used..n]));
                }
                true
            }
            Poll::Ready(Err(error)) => {
                self.end_input(Box::new(error.into()));
                true
            }
        })
    }

    /// Cuts frames out of what was read before. True when that took something.
    fn cut_unread(&mut self) -> bool {
        let unread = self.state.pending.take_unread();
        let frames = self.state.next_seq as usize + self.state.pending.frames();
        let used = self.take_bytes(&unread);
        self.note_frame();
        if !self.is_cut_off && used < unread.len() {
            self.state.pending.keep_unread(unread.slice(used..));
        }
        used > 0 || frames != self.state.next_seq as usize + self.state.pending.frames()
    }

    fn has_room(&self) -> bool {
        self.state.pending.frames() < self.endpoint.app.max_queued_frames
            && self.state.pending.frame_bytes() < self.endpoint.app.max_queued_bytes
            && !self.outbox.is_full()
            // What was read before the end is not held back any more.
            && (self.ending.is_some() || !self.is_held())
    }

    /// Cuts frames out of the front of `input` as long as there is room for them; says how many bytes that took.
    fn take_bytes(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while (used < input.len() || self.state.decoder.has_rest()) && !self.is_cut_off && self.has_room() {
            let max_frame = self.endpoint.app.max_frame_bytes;
            match self.state.decoder.decode(self.outbox.framing(), max_frame, &input[used..]) {
                Ok((n, item)) => {
                    used += n;
                    // What a codec answers by itself leaves before PHP can answer what it found.
                    self.outbox.settle_codec();
                    match item {
                        Some(item) => self.take_item(item),
                        None => break,
                    }
                }
                Err(error) => self.end_input(Box::new(Close::new(error.reason()).because(error.to_string()))),
            }
        }
        self.note_skipped();
        self.begin_gap();
        used
    }

    /// Bytes that were no part of a frame are counted.
    fn note_skipped(&mut self) {
        let skipped = self.state.decoder.take_skipped();
        if skipped > 0 {
            let labels = ListenerLabels { listener: self.endpoint.listener.clone() };
            self.endpoint.hub.metrics.skipped_bytes.get_or_create(&labels).inc_by(skipped);
            debug!(session = %self.state.id, listener = %self.endpoint.listener, bytes = skipped, "bytes skipped");
        }
    }

    fn take_item(&mut self, item: Item) {
        let is_charged = matches!(item, Item::Frame(_) | Item::Ping(_) | Item::Pong(_));
        if matches!(item, Item::Frame(_)) {
            self.clock.frame_begun = None;
        }
        match item {
            Item::Frame(frame) if self.is_heartbeat(&frame.body) => {}
            // The ancestor's clients keep a line open with them.
            Item::Frame(frame) if frame.body.is_empty() && self.endpoint.app.compat.is_fooking() => {
                self.clock.last_frame = self.clock.last_bytes;
                self.endpoint.hub.metrics.frames_in.inc();
            }
            Item::Frame(frame) => {
                self.clock.last_frame = self.clock.last_bytes;
                self.endpoint.hub.metrics.frames_in.inc();
                if self.state.pending.frames() == 0 && !self.state.connect_due && self.may_start() {
                    self.submit(Class::Message, frame.kind, frame.body, None);
                } else {
                    self.state.pending.push(frame);
                }
            }
            Item::Ping(payload) => {
                if let Some(pong) = self.outbox.framing().pong(&payload) {
                    self.outbox.queue_control(pong);
                }
            }
            // Whatever came shows that the peer lives; see `heard`.
            Item::Pong(_) => {}
            Item::Close { code, reason } => {
                let text = String::from_utf8_lossy(&reason).into_owned().into_boxed_str();
                // 1005 says that no code came (RFC 6455 section 7.1.5); it is for PHP and is never sent.
                let close = Close {
                    code: Some(code.unwrap_or(1005)),
                    text: Some(text),
                    ..Close::new(CloseReason::ClientClosed)
                };
                self.end_input(Box::new(close));
            }
        }
        if is_charged && self.ending.is_none() {
            self.charge_frame();
        }
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
