//! A steady run of three nodes: 300 messages a second on 50 channels, to 3 000 sessions of which every fifth comes and goes.
//!
//! A message contains its publisher, its channel, and its number from this publisher on this channel. So a session must get consecutive
//! numbers: a missing number is a lost message, and a lower number is a repeated or late one. For a session that comes and goes, the
//! test knows the first number that was not sent yet when the receipt of the join came, and the last number with a receipt before the
//! leave was sent. The session must get all numbers in between.
//! In the end the deliveries counted in receipts must be equal to the frames that the clients have read.
//!
//! The publishers use all nodes, and so do the organisers, which make sessions join and leave. Some sessions leave by a command. Others
//! disconnect, connect to the next node and join again.
//!
//! A run takes 15 s, or `LONGWIRE_STEADY_SECONDS`. Its cost is printed:
//! `LONGWIRE_STEADY_SECONDS=60 cargo test --test it -- cluster::steady --nocapture --test-threads=1`

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longwire::proto::command::{Action, Command, Message, Page, Query, Receipt, Target};
use longwire::proto::control::long::Operation;
use longwire::proto::framing::{Framing, Item, LengthFraming};
use longwire::proto::id::SessionId;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::cluster::{self, all_know};
use crate::support::cpu;
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};
use crate::support::router::{Router, name, session};

const NODES: usize = 3;
const CHANNELS: usize = 50;
/// Sessions on each node that stay.
const STAY: usize = 800;
/// Sessions on each node, at first, that come and go.
const MOVE: usize = 200;
const PUBLISHERS: usize = 6;
const MESSAGES_PER_SECOND: usize = 300;
/// Number of organisers. Each makes sessions join and leave by a connection to the router port of one node.
const ORGANISERS: usize = 12;
/// The pause between two joins, leaves or moves of one organiser.
const STEP: Duration = Duration::from_millis(100);
/// Time besides the run itself, to open three thousand connections and to read the rest.
const PATIENCE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_out_of_order_while_sessions_come_and_go_with_redis() {
    steady(Kind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_or_out_of_order_while_sessions_come_and_go_with_nats() {
    steady(Kind::Nats).await;
}

async fn steady(kind: Kind) {
    let seconds = std::env::var("LONGWIRE_STEADY_SECONDS").map_or(15, |text| text.parse().expect("whole seconds"));
    longwire::descriptors::allow(16_384).expect("limits can be read");
    let whole = run(kind, seconds);
    tokio::time::timeout(PATIENCE + Duration::from_secs(seconds as u64), whole).await.expect("it ends in time");
}

async fn run(kind: Kind, seconds: usize) {
    let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(kind));
    let nodes: Vec<Longwire> = (1..=NODES).map(|number| Longwire::serve(&config(&fpm, number, &engine))).collect();
    all_know(&nodes, NODES - 1).await;
    let addresses = Arc::new(Addresses::of(&nodes));
    let (stayers, movers) = everybody(&addresses).await;

    let (progress, counts) = (Arc::new(Progress::new()), Arc::new(Counts::default()));
    let mut readers = JoinSet::new();
    for (client, channel) in stayers {
        readers.spawn(stay(client, Track::new(channel), counts.clone()));
    }
    let (cpu_before, pushed_before) = (cpu_of_all(&nodes, &engine), nodes.iter().map(pushed).collect::<Vec<_>>());
    let begun = Instant::now();
    let (is_over, mut organisers) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for (number, movers) in movers.into_iter().enumerate() {
        let router = Router::connect(addresses.router[number % NODES], "").await;
        let organiser =
            Organiser { router, addresses: addresses.clone(), progress: progress.clone(), counts: counts.clone() };
        organisers.spawn(organiser.go(number, movers, is_over.clone()));
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let router = Router::connect(addresses.router[publisher % NODES], "").await;
        let messages = seconds * MESSAGES_PER_SECOND / PUBLISHERS;
        publishers.spawn(publish(router, publisher, messages, progress.clone()));
    }
    let mut claimed = Receipt::default();
    while let Some(sum) = publishers.join_next().await {
        claimed = claimed.plus(&sum.expect("every message had its receipt"));
    }
    let took = begun.elapsed();
    is_over.store(true, Ordering::SeqCst);
    while let Some(organiser) = organisers.join_next().await {
        organiser.expect("every join and leave had its receipt");
    }
    let (cpu_after, pushed_after) = (cpu_of_all(&nodes, &engine), nodes.iter().map(pushed).collect::<Vec<_>>());
    let mut router = Router::connect(addresses.router[0], "").await;
    router.do_to(Target::All, Action::Send(Message::new(END))).await;
    while let Some(track) = readers.join_next().await {
        let track = track.expect("it was there to the end");
        track.must_have([0; PUBLISHERS], Progress::on(&progress.done, track.channel), &counts);
        counts.frames.fetch_add(track.frames, Ordering::Relaxed);
    }

    let messages = seconds * MESSAGES_PER_SECOND / PUBLISHERS * PUBLISHERS;
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
    let (lost, late, frames) = (count(&counts.lost), count(&counts.late), count(&counts.frames));
    println!(
        "{kind:?}: {messages} messages in {:.1} s, {frames} deliveries, {lost} lost, {late} repeated or late; \
         {} joins, {} leaves, {} moves meanwhile",
        took.as_secs_f64(),
        count(&counts.joins),
        count(&counts.leaves),
        count(&counts.moves),
    );
    for (at, node) in nodes.iter().enumerate() {
        let (cpu, pushes) = (cpu_after[at] - cpu_before[at], pushed_after[at] - pushed_before[at]);
        println!(
            "{kind:?}: node {}: {:.2} s of CPU, {pushes} deliveries, {:.1} us each (joins, connections and PHP's answers among it), {} MB",
            at + 1,
            cpu.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / pushes,
            node.memory() >> 20,
        );
    }
    let cpu = cpu_after[NODES] - cpu_before[NODES];
    println!(
        "{kind:?}: its server: {:.2} s of CPU, {:.0} us a message",
        cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / messages as f64
    );

    assert_eq!((lost, late), (0, 0));
    // Sessions that disconnected at that moment count as `gone`.
    assert_eq!(Receipt { reached: 0, queued: 0, gone: 0, ..claimed }, Receipt::default(), "no session was too slow");
    assert_eq!(
        frames,
        u64::from(claimed.reached + claimed.queued),
        "the deliveries in receipts must be equal to the frames read"
    );
    assert!(count(&counts.moves) > 0 && count(&counts.leaves) > 0);
    for node in &nodes {
        for metric in [
            "longwire_envelopes_missed_total",
            "longwire_envelopes_dropped_total",
            "longwire_requests_unanswered_total",
        ] {
            assert_eq!(node.metric(metric, ""), 0.0, "{metric}");
        }
    }
}

fn config(fpm: &PhpFpm, number: usize, engine: &EngineServer) -> String {
    // A long lease, because a node on a busy machine must not look dead.
    cluster::config(fpm, number, &format!("lease = \"20s\"\nreceipt_timeout = \"20s\"\n{}", engine.config()))
}

/// The last message to all sessions.
const END: &str = "end";
/// The last message to one session before it joins again.
const MARK: &str = "mark";

struct Addresses {
    length: Vec<std::net::SocketAddr>,
    router: Vec<std::net::SocketAddr>,
}

impl Addresses {
    fn of(nodes: &[Longwire]) -> Self {
        let all = |listener: &str| nodes.iter().map(|node| node.address(listener)).collect();
        Self { length: all("length"), router: all("router") }
    }

    async fn connect(&self, node: usize) -> Client {
        Client::connect(self.length[node], Framing::Length(LengthFraming::default())).await
    }
}

/// A session that comes and goes.
struct Mover {
    client: Client,
    sid: SessionId,
    node: usize,
    membership: Option<Membership>,
    /// Whether it will leave by disconnecting or by a command, in turns.
    hangs_up: bool,
}

struct Membership {
    track: Track,
    /// The next number of each publisher when the receipt of the join came.
    from: [u64; PUBLISHERS],
}

/// Opens all sessions. Returns those that stay, with their channels, and the movers of each organiser.
async fn everybody(addresses: &Addresses) -> (Vec<(Client, usize)>, Vec<Vec<Mover>>) {
    let (mut stayers, mut movers) = (Vec::new(), Vec::new());
    movers.resize_with(ORGANISERS, Vec::new);
    for node in 0..NODES {
        let mut ids: Vec<Vec<SessionId>> = vec![Vec::new(); CHANNELS];
        let mut clients = Vec::new();
        while clients.len() < STAY + MOVE {
            // A few at a time, so that queued events do not reach their deadline.
            let mut batch = Vec::new();
            for _ in 0..100.min(STAY + MOVE - clients.len()) {
                let mut client = addresses.connect(node).await;
                client.text("?").await;
                batch.push(client);
            }
            for mut client in batch {
                let sid = sid_of(&mut client).await;
                clients.push((client, sid));
            }
        }
        for (number, (client, sid)) in clients.into_iter().enumerate() {
            if number < STAY {
                ids[number % CHANNELS].push(sid);
                stayers.push((client, number % CHANNELS));
            } else {
                movers[number % ORGANISERS].push(Mover {
                    client,
                    sid,
                    node,
                    membership: None,
                    hangs_up: number % 2 == 0,
                });
            }
        }
        let mut router = Router::connect(addresses.router[(node + 1) % NODES], "").await;
        for (channel, ids) in ids.into_iter().enumerate() {
            let joined = router.do_to(Target::Sessions(ids), Action::Join(name(&channel.to_string()))).await;
            assert_eq!(joined, Receipt { reached: (STAY / CHANNELS) as u32, ..Receipt::default() });
        }
    }
    // Wait until each node knows all members; otherwise receipts would be incomplete.
    for address in &addresses.router {
        let mut router = Router::connect(*address, "").await;
        for channel in 0..CHANNELS {
            let query = Query::Channel(name(&channel.to_string()), Page { after: None, limit: 0 });
            router.ask_until(query, |answer| answer["count"] == NODES * STAY / CHANNELS).await;
        }
    }
    (stayers, movers)
}

async fn sid_of(client: &mut Client) -> SessionId {
    session(str::from_utf8(&client.frame().await.body).expect("an id is text"))
}

/// The progress of the publishers, by publisher and channel.
struct Progress {
    /// The number that is sent next.
    begun: Vec<AtomicU64>,
    /// The first number without a receipt.
    done: Vec<AtomicU64>,
}

impl Progress {
    fn new() -> Self {
        let zeros = || (0..PUBLISHERS * CHANNELS).map(|_| AtomicU64::new(0)).collect();
        Self { begun: zeros(), done: zeros() }
    }

    fn on(numbers: &[AtomicU64], channel: usize) -> [u64; PUBLISHERS] {
        std::array::from_fn(|publisher| numbers[publisher * CHANNELS + channel].load(Ordering::SeqCst))
    }
}

/// Sends a publisher's share at a steady pace, each message after the receipt of the one before. Returns the sum of the receipts.
async fn publish(mut router: Router, publisher: usize, messages: usize, progress: Arc<Progress>) -> Receipt {
    let mut pace = tokio::time::interval(Duration::from_secs(PUBLISHERS as u64) / MESSAGES_PER_SECOND as u32);
    let mut sum = Receipt::default();
    for turn in 0..messages {
        pace.tick().await;
        let channel = (turn * 7 + publisher * 11) % CHANNELS;
        let place = publisher * CHANNELS + channel;
        let number = progress.begun[place].fetch_add(1, Ordering::SeqCst);
        let message = Action::Send(Message::new(format!("{publisher} {channel} {number}")));
        let command = Command::new(Target::Channel(name(&channel.to_string())), message);
        let request = router.start(Operation::Command(command)).await;
        let (receipt, unreachable, engine_down) = router.outcome(request).await;
        assert_eq!((unreachable, engine_down), (Vec::new(), false));
        progress.done[place].store(number + 1, Ordering::SeqCst);
        sum = sum.plus(&receipt);
    }
    sum
}

#[derive(Default)]
struct Counts {
    frames: AtomicU64,
    lost: AtomicU64,
    late: AtomicU64,
    joins: AtomicU64,
    leaves: AtomicU64,
    moves: AtomicU64,
}

/// The numbers that a session has got on its channel.
struct Track {
    channel: usize,
    /// For each publisher, the range of numbers that have come.
    of: [Option<Range<u64>>; PUBLISHERS],
    frames: u64,
}

impl Track {
    fn new(channel: usize) -> Self {
        Self { channel, of: [const { None }; PUBLISHERS], frames: 0 }
    }

    fn take(&mut self, body: &[u8], counts: &Counts) {
        let text = str::from_utf8(body).expect("messages are text");
        let mut numbers = text.split(' ').map(|number| number.parse::<usize>().expect("a message is three numbers"));
        let mut next = || numbers.next().expect("a message is three numbers");
        let (publisher, channel, number) = (next(), next(), next() as u64);
        assert_eq!(channel, self.channel, "it is in no other channel");
        self.frames += 1;
        match &mut self.of[publisher] {
            none @ None => *none = Some(number..number + 1),
            Some(got) if number < got.end => _ = counts.late.fetch_add(1, Ordering::Relaxed),
            Some(got) => {
                counts.lost.fetch_add(number - got.end, Ordering::Relaxed);
                got.end = number + 1;
            }
        }
    }

    /// Counts the missing numbers of each publisher, in the range `from..until`, as lost.
    fn must_have(&self, from: [u64; PUBLISHERS], until: [u64; PUBLISHERS], counts: &Counts) {
        for (publisher, got) in self.of.iter().enumerate() {
            let (from, until) = (from[publisher], until[publisher]);
            let missing = match got {
                _ if from >= until => 0,
                None => until - from,
                Some(got) => got.start.saturating_sub(from) + until.saturating_sub(got.end),
            };
            counts.lost.fetch_add(missing, Ordering::Relaxed);
        }
    }
}

/// Reads the messages of a session that stays in its channel.
async fn stay(mut client: Client, mut track: Track, counts: Arc<Counts>) -> Track {
    loop {
        let body = client.frame().await.body;
        if body == END {
            return track;
        }
        track.take(&body, &counts);
    }
}

/// Makes sessions join and leave.
struct Organiser {
    router: Router,
    addresses: Arc<Addresses>,
    progress: Arc<Progress>,
    counts: Arc<Counts>,
}

impl Organiser {
    /// Moves the sessions in turns until the run is over, then makes all of them leave.
    async fn go(mut self, number: usize, mut movers: Vec<Mover>, is_over: Arc<AtomicBool>) {
        let mut pace = tokio::time::interval(STEP);
        let mut turn = 0;
        while !is_over.load(Ordering::SeqCst) {
            pace.tick().await;
            let (at, round) = (turn % movers.len(), turn / movers.len());
            let mover = &mut movers[at];
            let channel = (at + number * 5 + round * 3) % CHANNELS;
            if mover.membership.is_none() {
                self.join(mover, channel).await;
            } else if mover.hangs_up {
                self.move_on(mover).await;
                self.join(mover, channel).await;
                mover.hangs_up = false;
            } else {
                self.leave(mover).await;
                mover.hangs_up = true;
            }
            turn += 1;
        }
        for mover in movers.iter_mut().filter(|mover| mover.membership.is_some()) {
            self.leave(mover).await;
        }
    }

    async fn join(&mut self, mover: &mut Mover, channel: usize) {
        let joined = self.router.do_to(Target::session(mover.sid), Action::Join(name(&channel.to_string()))).await;
        assert_eq!(joined, Receipt { reached: 1, ..Receipt::default() });
        let from = Progress::on(&self.progress.begun, channel);
        mover.membership = Some(Membership { track: Track::new(channel), from });
        self.counts.joins.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a session leave by a command. A message to the session alone then comes after all messages of its channel.
    async fn leave(&mut self, mover: &mut Mover) {
        let Membership { mut track, from } = mover.membership.take().expect("it is a member");
        let until = Progress::on(&self.progress.done, track.channel);
        let leave = Action::Leave(name(&track.channel.to_string()));
        for action in [leave, Action::Send(Message::new(MARK))] {
            let receipt = self.router.do_to(Target::session(mover.sid), action).await;
            assert_eq!(receipt.reached + receipt.queued, 1, "{receipt:?}");
        }
        loop {
            let body = mover.client.frame().await.body;
            if body == MARK {
                break;
            }
            track.take(&body, &self.counts);
        }
        self.settle(&track, from, until);
        self.counts.leaves.fetch_add(1, Ordering::Relaxed);
    }

    /// Disconnects the client and connects it to the next node.
    async fn move_on(&mut self, mover: &mut Mover) {
        let Membership { mut track, from } = mover.membership.take().expect("it is a member");
        let until = Progress::on(&self.progress.done, track.channel);
        mover.client.finish().await;
        while let Some(item) = mover.client.next().await {
            match item {
                Item::Frame(frame) => track.take(&frame.body, &self.counts),
                other => panic!("a stream has frames only: {other:?}"),
            }
        }
        self.settle(&track, from, until);
        mover.node = (mover.node + 1) % NODES;
        mover.client = self.addresses.connect(mover.node).await;
        mover.client.text("?").await;
        mover.sid = sid_of(&mut mover.client).await;
        self.counts.moves.fetch_add(1, Ordering::Relaxed);
    }

    fn settle(&self, track: &Track, from: [u64; PUBLISHERS], until: [u64; PUBLISHERS]) {
        track.must_have(from, until, &self.counts);
        self.counts.frames.fetch_add(track.frames, Ordering::Relaxed);
    }
}

/// Frames that a node has sent to its sessions.
fn pushed(node: &Longwire) -> f64 {
    ["reached", "queued"].iter().map(|fate| node.metric("longwire_pushes_total", &format!("fate=\"{fate}\""))).sum()
}

/// CPU time of each node and, last, of the engine.
fn cpu_of_all(nodes: &[Longwire], engine: &EngineServer) -> Vec<Duration> {
    nodes.iter().map(Longwire::pid).chain([engine.pid()]).map(cpu).collect()
}
