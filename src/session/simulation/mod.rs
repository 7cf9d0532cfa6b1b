//! Runs a session, its outbox and the answers to its events in random orders: reads, writes, streams, pushes, posts,
//! closes, resets, drains, stalls and the clock, without sockets, threads or time. The code under test is the code of a
//! node: [`Session::poll_live`], [`Session::finish`], [`Outbox`], [`Answer`]. Around it are a client, a router that
//! pushes, scripts, and a wheel that turns when it is told to.
//!
//! A run is a list of numbers. Each number is one step and does not depend on the steps before it. So a seed replays a
//! run, and a failing run is reduced to the steps that it needs to fail. `SEED=17 cargo test --lib session::simulation`
//! runs one seed and prints the steps. `SEEDS=1000000` runs that many seeds.
//!
//! Other threads are simulated too: whenever an outbox is about to be locked, another "thread" may act first.
//!
//! Properties that must hold:
//!
//! * a session whose client is gone ends within a bound, and PHP gets its close event;
//! * an event has one outcome, and a post gets an answer or the end of its session;
//! * the client gets whole frames that were sent to it, each once, and nothing after the last frame of the session;
//! * a frame that was read is handled or counted as dropped;
//! * if the client takes everything and the scripts continue, everything ends: there is no deadlock in which a task
//!   waits for room that only it can make;
//! * no client is blamed wrongly: a slow reader has taken nothing for `send_timeout`, an idle client has sent nothing.

mod client;
mod php;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::client::Client;
pub(super) use self::php::Desk;
use self::php::Job;
use super::wheel::{TICK, Wheel, ticks};
use super::{
    Admission, Answer, ClientProtocol, ConnectGates, Endpoint, HttpSettings, Hub, PassedLimits, PostBoxes, Posts,
    Session, SessionState,
};
use crate::cluster::{Cluster, ClusterFacts};
use crate::config::model::Config;
use crate::config::model::{App, Protocol, SlowReader};
use crate::metrics::{Metrics, ReasonLabels};
use crate::outbox::faults::{Fault, Pipe, set_others};
use crate::outbox::{ClientLink, Close, Fate, Feed, Outbox, PollTurn, Push, Terms, Topic};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::framing::{Decoder, DelimiterFraming, FrameKind, Framing};
use crate::proto::id::SessionIds;
use crate::router::{NodeFacts, Router};
use crate::session::pending::Pending;
use crate::transport::Peer;
use crate::upstream::Upstream;

const STEPS: usize = 60;
/// Ticks within which a session must end when its client is gone: its longest timeout, and some more.
const BOUND: u32 = 60;

const CONFIG: &str = r#"
[apps.app]
upstream = "php"
script = "/nowhere/x.php"
send_timeout = "1s"
max_frame_bytes = "4 KiB"
max_queued_frames = 4
[upstreams.php]
backends = ["127.0.0.1:9"]
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/" = "app" }
websocket = { ping_interval = "1s", pong_timeout = "1s", close_timeout = "1s" }
sse = { poll_gap = "2s" }
"#;

/// A random generator. Each number taken advances its place in the sequence.
struct Chance(Cell<u64>);

impl Chance {
    fn of(seed: u64) -> Self {
        Self(Cell::new(split_mix(seed)))
    }

    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(1));
        split_mix(self.0.get())
    }

    fn below(&self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The number at this place of the sequence SplitMix64 (Steele, Lea and Flood 2014).
fn split_mix(place: u64) -> u64 {
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The waker of a task that is polled only after it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The parts of a node that all runs of a thread share.
struct Node {
    hub: Arc<Hub>,
    app: App,
    http: Arc<HttpSettings>,
    upstream: Arc<Upstream<Answer>>,
}

impl Node {
    fn new() -> Self {
        let (config, _) = Config::parse(CONFIG, std::path::Path::new("/nowhere/longwire.toml")).expect("it is right");
        let metrics = Arc::new(Metrics::default());
        let draining = CancellationToken::new();
        let facts = NodeFacts { name: "sim".into(), number: 1, started: Instant::now(), draining: draining.clone() };
        let router = Arc::new(Router::new(Vec::new(), config.router.profile, metrics.router.clone(), facts));
        let facts = ClusterFacts { name: "sim".into(), number: 1, epoch: 1 };
        let (cluster, _) = Cluster::new(&config.cluster, facts, router.clone(), None, metrics.cluster.clone())
            .expect("there is no engine");
        let passed_limits = Arc::new(PassedLimits::new(&[], metrics.clone()));
        let upstream = config.upstreams[0].clone();
        let upstream = Arc::new(Upstream::start(upstream, metrics.upstream.of("php")));
        let Protocol::Http(http) = &config.listeners[0].protocol else { unreachable!("it is written so") };
        let hub = Hub {
            node_name: "sim".into(),
            ids: SessionIds::new(1, 1, [7; 16]),
            router,
            cluster,
            router_address: String::new(),
            wheel: Arc::new(Wheel::default()),
            admission: Arc::new(Admission::new(1 << 20, &config.limits, passed_limits.clone())),
            connects: ConnectGates::new(&config.apps, passed_limits.clone()),
            metrics,
            tasks: TaskTracker::new(),
            connections: TaskTracker::new(),
            passed_limits,
            posts: PostBoxes::default(),
            draining,
        };
        let app = (*config.apps[0]).clone();
        let http = Arc::new(HttpSettings { websocket: http.websocket.clone(), sse: http.sse.clone() });
        Self { hub: Arc::new(hub), app, http, upstream }
    }

    /// Frames that were dropped and counted so far.
    fn dropped(&self) -> u64 {
        let labels = |reason: &CloseReason| ReasonLabels { listener: "sim".into(), reason: reason.label() };
        CloseReason::ALL.iter().map(|reason| self.hub.metrics.frames_dropped.get_or_create(&labels(reason)).get()).sum()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientKind {
    WebSocket,
    Lines,
    Polled,
}

enum Life {
    Live(Box<Session>),
    Ending(Pin<Box<dyn Future<Output = ()> + Send>>),
    Over,
}

struct World {
    node: Rc<Node>,
    kind: ClientKind,
    connects: bool,
    max_bytes: usize,
    trace: bool,
    /// The random numbers of the current step.
    chance: RefCell<Chance>,
    content: u64,
    life: RefCell<Life>,
    woken: Arc<Woken>,
    outbox: Arc<Outbox>,
    pipe: Arc<Pipe>,
    feed: Option<Arc<Feed>>,
    posts: Option<Arc<Posts>>,
    turn: RefCell<Option<PollTurn>>,
    desk: Desk,
    jobs: RefCell<Vec<Option<Job>>>,
    client: RefCell<Client>,
    waiting_posts: RefCell<Vec<oneshot::Receiver<super::HttpReply>>>,
    /// Numbers of messages and pushes.
    messages: Cell<u64>,
    pushes: Cell<u64>,
    /// Messages that PHP was asked to handle.
    handled: Cell<u64>,
    posted: Cell<u64>,
    dropped_pushes: Cell<u32>,
    dropped_before: u64,
    /// Bytes that the session had read when it ended.
    read: Cell<usize>,
    is_ending: Cell<bool>,
    /// Since when the client takes nothing.
    closed_window: Cell<Option<u32>>,
    close: RefCell<Option<Close>>,
    told_close: Cell<u32>,
    close_began: Cell<bool>,
    problem: RefCell<Option<String>>,
}

type CheckResult = Result<(), String>;

impl World {
    #[expect(clippy::too_many_lines, reason = "one choice after the other, in an order that seeds rely on")]
    fn new(node: Rc<Node>, seed: u64, trace: bool) -> Rc<Self> {
        let chance = Chance::of(seed ^ 0x5e55_1005);
        let kind = [
            ClientKind::WebSocket,
            ClientKind::WebSocket,
            ClientKind::WebSocket,
            ClientKind::Lines,
            ClientKind::Polled,
        ][chance.below(5)];
        let mut app = node.app.clone();
        app.concurrency = [1, 1, 2, 4][chance.below(4)];
        app.outbox_bytes = [1024, 3000, 1 << 20][chance.below(3)];
        app.max_queued_frames = [1, 2, 32][chance.below(3)];
        app.events.close = true;
        app.events.connect = kind != ClientKind::Polled && chance.percent(30);
        app.idle_timeout = Duration::from_millis([0, 1500][chance.below(2)]);
        app.slow_reader =
            [SlowReader::Close, SlowReader::Oldest, SlowReader::Newest, SlowReader::Latest][chance.below(4)];
        let framing = match kind {
            ClientKind::WebSocket => Framing::WebSocket { deflate: None },
            ClientKind::Lines => {
                Framing::Delimiter(Arc::new(DelimiterFraming { delimiter: b"\n".to_vec(), strip_cr: false }))
            }
            ClientKind::Polled => Framing::EventStream,
        };
        let clients = match kind {
            ClientKind::Lines => ClientProtocol::Streams { heartbeat: None },
            ClientKind::WebSocket | ClientKind::Polled => ClientProtocol::Http(node.http.clone()),
        };
        let (connects, max_bytes) = (app.events.connect, app.outbox_bytes);
        let desk = Desk::default();
        let mut endpoint =
            Endpoint::new(node.hub.clone(), "sim", Arc::new(app), node.upstream.clone(), framing.clone(), clients)
                .expect("params are short");
        endpoint.desk = Some(desk.clone());
        let endpoint = Arc::new(endpoint);
        let (pipe, feed) = (Arc::new(Pipe::default()), (kind == ClientKind::Polled).then(Feed::polled));
        let link = match &feed {
            Some(feed) => ClientLink::Feed(feed.clone()),
            None => ClientLink::Pipe(pipe.clone()),
        };
        let id = node.hub.ids.next_id();
        let terms: Arc<Terms> = endpoint.terms.clone();
        let outbox = Arc::new(match connects {
            true => Outbox::of_guest(id, framing.clone(), terms, link),
            false => Outbox::new(id, framing.clone(), terms, link),
        });
        let state = SessionState {
            id,
            peer: Peer::Unix.into(),
            local: Peer::Unix.into(),
            own_params: EncodedParams::default(),
            next_seq: 0,
            decoder: Decoder::new(&framing),
            pending: Pending::default(),
            connect_due: connects,
            close_owed: !connects,
        };
        node.hub.router.insert(outbox.clone());
        let permit = node.hub.admission.admit(Peer::Unix).expect("there is room");
        let mut session = Session::new(endpoint, state, outbox.clone(), permit);
        if feed.is_some() {
            session.take_posts(CancellationToken::new());
        }
        session.arm();
        let posts = session.posts.clone();
        let client = Client {
            decoder: Decoder::new_client(&framing),
            framing,
            ends: Vec::new(),
            sent: 0,
            rest: Vec::new(),
            has_finished: false,
            said_goodbye: false,
            expected: BTreeMap::new(),
            possible: Vec::new(),
            got_last_word: false,
            pings: 0,
        };
        Rc::new(Self {
            dropped_before: node.dropped(),
            closed_window: Cell::new(Some(node.hub.wheel.now())),
            node,
            kind,
            connects,
            max_bytes,
            trace,
            chance: RefCell::new(chance),
            content: seed,
            life: RefCell::new(Life::Live(Box::new(session))),
            woken: Woken::new(),
            outbox,
            pipe,
            feed,
            posts,
            turn: RefCell::default(),
            desk,
            jobs: RefCell::default(),
            client: RefCell::new(client),
            waiting_posts: RefCell::default(),
            messages: Cell::new(0),
            pushes: Cell::new(0),
            handled: Cell::new(0),
            posted: Cell::new(0),
            dropped_pushes: Cell::new(0),
            read: Cell::new(0),
            is_ending: Cell::new(false),
            close: RefCell::default(),
            told_close: Cell::new(0),
            close_began: Cell::new(false),
            problem: RefCell::default(),
        })
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>6} {}", self.node.hub.wheel.now(), what());
        }
    }

    fn fail(&self, what: String) {
        self.say(|| format!("WRONG: {what}"));
        self.problem.borrow_mut().get_or_insert(what);
    }

    fn below(&self, bound: usize) -> usize {
        self.chance.borrow().below(bound)
    }

    fn percent(&self, percent: usize) -> bool {
        self.chance.borrow().percent(percent)
    }

    fn is_over(&self) -> bool {
        // While the session is being polled, it is not over.
        self.life.try_borrow().is_ok_and(|life| matches!(*life, Life::Over))
    }

    fn poll_session(&self) {
        if !self.woken.take() {
            return;
        }
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut life = self.life.borrow_mut();
        let ended = match &mut *life {
            Life::Live(session) => match session.poll_live(&mut cx) {
                Poll::Ready(close) => Some(close),
                Poll::Pending => {
                    if let Some(close) = &session.ending {
                        self.begin_to_end(close);
                    }
                    None
                }
            },
            Life::Ending(_) | Life::Over => None,
        };
        if let Some(close) = ended {
            self.begin_to_end(&close);
            self.read.set(self.pipe.ends().read);
            self.say(|| format!("the session ends: {} {:?}", close.reason.label(), close.detail));
            *self.close.borrow_mut() = Some((*close).clone());
            let Life::Live(session) = std::mem::replace(&mut *life, Life::Over) else { unreachable!("just matched") };
            *life = Life::Ending(Box::pin(session.finish(*close)));
        }
        if let Life::Ending(end) = &mut *life
            && end.as_mut().poll(&mut cx).is_ready()
        {
            self.say(|| "the session is over".into());
            *life = Life::Over;
        }
        drop(life);
        self.take_requests();
    }

    /// Checks that the client is not closed for something that is not its fault.
    fn begin_to_end(&self, close: &Close) {
        if self.is_ending.replace(true) && !close.is_abrupt() {
            return;
        }
        let detail = close.detail.as_deref().unwrap_or_default();
        let now = self.node.hub.wheel.now();
        if close.reason == CloseReason::SlowReader
            && detail.starts_with("client took nothing")
            && self.kind != ClientKind::Polled
        {
            let patience = ticks(self.node.app.send_timeout);
            if self.closed_window.get().is_none_or(|since| now - since + 1 < patience) {
                self.fail(format!("closed as a slow reader, and took everything: {detail}"));
            }
        }
        let unread = self.pipe.ends().unread.len();
        if matches!(close.reason, CloseReason::IdleTimeout | CloseReason::PeerTimeout) && unread > 0 {
            self.fail(format!("closed for {} with {unread} bytes unread", close.reason.label()));
        }
    }

    fn turn_wheel(&self) {
        self.note_window();
        let router = self.node.hub.router.clone();
        self.node.hub.wheel.advance(|id| router.tick(id));
    }

    fn push(&self) {
        let number = self.pushes.get();
        self.pushes.set(number + 1);
        let len = match self.below(8) {
            0 => self.max_bytes.min(5000) + 100,
            1 => 900,
            _ => self.below(40),
        };
        let body: Vec<u8> = format!("<p{number}:{}>", "p".repeat(len)).into_bytes();
        let frame = self.outbox.framing().encode(FrameKind::Text, &body).expect("it fits");
        let rule = [None, Some(SlowReader::Oldest), Some(SlowReader::Newest), Some(SlowReader::Latest)][self.below(4)];
        let topic = Arc::new(Topic { channel: None, key: None });
        // The frame may arrive before `push` returns.
        *self.client.borrow_mut().expected.entry(body.clone()).or_default() += 1;
        let pushed = self.outbox.push(Push { frame, rule, topic: &topic });
        self.say(|| format!("push {number} of {len} bytes, {rule:?}: {pushed:?}"));
        self.dropped_pushes.set(self.dropped_pushes.get() + pushed.dropped_oldest + pushed.dropped_latest);
        match pushed.fate {
            Fate::Written | Fate::Queued => {}
            Fate::Gone | Fate::DroppedNewest | Fate::DroppedClose => {
                let mut client = self.client.borrow_mut();
                let was_expected = client.expected.remove(&body).is_some();
                if !was_expected && pushed.fate != Fate::Gone {
                    drop(client);
                    self.fail(format!("push {number} came and is said to be {:?}", pushed.fate));
                }
            }
        }
    }

    fn step(&self, number: u64) {
        *self.chance.borrow_mut() = Chance::of(number);
        match self.below(40) {
            0..=5 if self.kind == ClientKind::Polled => self.post(),
            0..=4 => self.send_frame(true),
            5 => self.send_frame(false),
            6 => self.ping(),
            7..=9 => self.open_window([10, 500, 4000][self.below(3)]),
            10 | 11 => self.open_window(1 << 30),
            12 => {
                // First write what the client would have taken with its old window.
                self.poll_session();
                self.pipe.ends().window = 0;
            }
            13..=15 => {
                self.look();
                self.answer_pings();
                self.poll_goes_on(false);
            }
            16..=19 => self.push(),
            20..=27 => (0..1 + self.below(4)).for_each(|_| self.step_any_job()),
            28..=30 => self.turn_wheel(),
            31 => (0..self.below(25)).for_each(|_| self.turn_wheel()),
            32 | 33 => self.poll_begins(),
            34 => self.poll_goes_on(self.percent(30)),
            35 if self.percent(40) => match self.below(8) {
                0 | 1 => self.finish(),
                2 => self.say_goodbye(),
                3 => self.vanish(true),
                4 => self.vanish(false),
                5 => self.outbox.ask_close(Close::new(CloseReason::Draining)),
                6 => self.outbox.ask_close(Close::by_command(4002, "go".into())),
                _ if self.posts.is_some() => self.outbox.ask_close(CloseReason::ClientClosed.into()),
                _ => {}
            },
            _ => {}
        }
        if self.percent(60) {
            self.poll_session();
        }
    }

    /// Lets another "thread" act between two instructions.
    fn interleave(&self) {
        // The interrupted code may be using it.
        let Ok(chance) = self.chance.try_borrow() else { return };
        let what = chance.below(60);
        drop(chance);
        match what {
            0 => self.push(),
            1 | 2 => self.step_any_job(),
            _ => {}
        }
    }

    /// Runs everything that can happen without the clock. The client takes everything.
    fn settle(&self) -> CheckResult {
        for _ in 0..10_000 {
            if self.pipe.ends().window < 1 << 20 {
                self.open_window(1 << 30);
            }
            let mut moved = self.woken.is_set();
            self.poll_session();
            for at in self.running() {
                moved |= self.step_job(at);
            }
            self.look();
            self.answer_pings();
            if !moved && !self.woken.is_set() {
                return Ok(());
            }
        }
        Err("it never comes to rest".into())
    }

    async fn tick(&self) {
        tokio::time::advance(TICK).await;
        self.turn_wheel();
    }

    /// From now on the client and the scripts behave well. Then the client leaves.
    async fn end_well(&self) -> CheckResult {
        *self.chance.borrow_mut() = Chance::of(7);
        self.say(|| "from now on all is well".into());
        if self.can_send() {
            self.send_rest();
        }
        self.settle()?;
        self.check_rest()?;
        // Posts must be answered even if the client does not poll.
        for answered in self.waiting_posts.borrow_mut().iter_mut() {
            if matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return Err("a post is not answered".into());
            }
        }
        if self.close.borrow().is_none() && self.can_send() && !self.client.borrow().has_finished {
            for _ in 0..2 {
                self.send_frame(true);
                self.settle()?;
                self.check_rest()?;
            }
        }
        self.say(|| "the client leaves".into());
        *self.turn.borrow_mut() = None;
        self.finish();
        let mut left = BOUND;
        loop {
            self.settle()?;
            if self.is_over() {
                break;
            }
            if left == 0 {
                return Err(format!("the session has not ended in {BOUND} ticks: {:?}", self.close.borrow()));
            }
            left -= 1;
            self.tick().await;
        }
        self.check_end()
    }

    /// Checks that nothing waits when the client takes everything and the scripts continue.
    fn check_rest(&self) -> CheckResult {
        let running = self.running();
        if !running.is_empty() {
            return Err(format!("jobs {running:?} wait for room for ever, {} bytes wait", self.outbox.queued_bytes()));
        }
        if self.close.borrow().is_some() || self.kind == ClientKind::Polled || self.pipe.ends().is_gone {
            return Ok(());
        }
        let waiting = self.outbox.queued_bytes();
        if waiting > 0 {
            return Err(format!("{waiting} bytes wait, and the client would take them"));
        }
        let dropped = self.dropped_pushes.get() as usize;
        let client = self.client.borrow();
        let missing: Vec<_> = client.expected.keys().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
        match missing.len() == dropped {
            true => Ok(()),
            false => Err(format!("{} frames did not come, {dropped} were dropped: {missing:.80?}", missing.len())),
        }
    }

    fn check_end(&self) -> CheckResult {
        let is_owed = match self.close.borrow().as_ref().map(|close| close.reason) {
            None => return Err("it is over for no reason".into()),
            // PHP may have refused the session.
            Some(_) => !self.connects,
        };
        if is_owed && self.told_close.get() != 1 {
            return Err(format!("PHP was told of the end {} times", self.told_close.get()));
        }
        for answered in self.waiting_posts.borrow_mut().iter_mut() {
            if matches!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return Err("a post has no outcome".into());
            }
        }
        if self.kind == ClientKind::Polled {
            return Ok(());
        }
        let read = self.read.get();
        let frames = self.client.borrow().ends.iter().filter(|end| **end <= read).count() as u64;
        let (handled, dropped) = (self.handled.get(), self.node.dropped() - self.dropped_before);
        match handled + dropped == frames {
            true => Ok(()),
            false => Err(format!("{frames} frames were read, {handled} handled and {dropped} counted as dropped")),
        }
    }
}

/// Makes one run. The error describes the failure.
async fn run(node: &Rc<Node>, seed: u64, steps: &[u64], trace: bool) -> CheckResult {
    let world = World::new(node.clone(), seed, trace);
    world.say(|| {
        let app = if world.connects { "with connect" } else { "without connect" };
        format!("seed {seed}: {:?} {app}, {} bytes of outbox", world.kind, world.max_bytes)
    });
    let others = world.clone();
    set_others(Some(Box::new(move || others.interleave())));
    let result = async {
        for step in steps {
            world.step(*step);
            if let Some(problem) = world.problem.borrow_mut().take() {
                return Err(problem);
            }
        }
        let result = world.end_well().await;
        match world.problem.borrow_mut().take() {
            Some(problem) => Err(problem),
            None => result,
        }
    }
    .await;
    set_others(None);
    node.hub.router.remove(world.outbox.id());
    node.hub.posts.remove(world.outbox.id());
    result
}

fn steps_of(seed: u64) -> Vec<u64> {
    (0..STEPS as u64).map(|at| split_mix(seed.wrapping_mul(0x1_0001) ^ at << 48)).collect()
}

/// The runtime of a thread. Its time is paused.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// Reduces a failing run to the steps that it needs to fail. Returns them with the failure.
async fn shrink(node: &Rc<Node>, seed: u64, mut steps: Vec<u64>, mut problem: String) -> (Vec<u64>, String) {
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match run(node, seed, &fewer, false).await {
                Err(found) => (steps, problem) = (fewer, found),
                Ok(()) => at += size,
            }
        }
        size /= 2;
    }
    (steps, problem)
}

/// The first of these seeds that fails.
fn first_failure(seeds: impl Iterator<Item = u64>) -> Option<(u64, String)> {
    let runtime = runtime();
    let _guard = runtime.enter();
    let node = Rc::new(Node::new());
    runtime.block_on(async {
        for seed in seeds {
            if let Err(problem) = run(&node, seed, &steps_of(seed), false).await {
                return Some((seed, problem));
            }
        }
        None
    })
}

/// Replays a seed. If it fails, it panics with the fewest steps that fail.
fn replay(seed: u64, fault: Option<Fault>) {
    let runtime = runtime();
    let _guard = runtime.enter();
    let node = Rc::new(Node::new());
    Fault::set(fault);
    let result = runtime.block_on(async {
        let steps = steps_of(seed);
        let problem = run(&node, seed, &steps, true).await.err()?;
        let (steps, problem) = shrink(&node, seed, steps, problem).await;
        println!("\nthe same in {} of {STEPS} steps:", steps.len());
        let _ = run(&node, seed, &steps, true).await;
        Some(problem)
    });
    Fault::set(None);
    if let Some(problem) = result {
        panic!("seed {seed} fails: {problem}");
    }
}

#[test]
fn sessions_in_random_orders_keep_what_they_promise() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        let fault = std::env::var("FAULT")
            .ok()
            .and_then(|name| Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == name));
        return replay(seed, fault);
    }
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100_000);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    let began = Instant::now();
    let found: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || first_failure((0..seeds).filter(|seed| seed % threads == thread))))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("a run does not panic")).collect()
    });
    println!("{seeds} seeds in {:?}", began.elapsed());
    if let Some((seed, problem)) = found.into_iter().min() {
        panic!("seed {seed} fails, SEED={seed} replays it: {problem}");
    }
}

/// The simulation must find every fault that the code once had, or it is of no use.
#[test]
fn each_fault_that_was_there_once_is_found() {
    for fault in Fault::ALL {
        Fault::set(Some(fault));
        let found = first_failure(0..20_000);
        Fault::set(None);
        match found {
            Some((seed, problem)) => println!("{fault:?}: seed {seed}: {problem}"),
            None => panic!("{fault:?} is not found in 20 000 seeds"),
        }
    }
}
