//! The router: adding sessions, lookups, joins, sends and removals.

use std::future::poll_fn;
use std::hint::black_box;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use longwire::config::model::{ChannelRule, ProfileLimits};
use longwire::metrics::Metrics;
use longwire::metrics::router::Door;
use longwire::outbox::{ClientLink, Feed, Outbox, SlowReader, Terms};
use longwire::proto::command::{Action, Command, Message, Name, Target};
use longwire::proto::framing::{Framing, LengthFraming};
use longwire::proto::id::{SessionId, SessionIds};
use longwire::router::{NodeFacts, Router};
use longwire::transport::Transport;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{bench, text};

/// Number of frames of 64 B, each in its own write, that the buffer of a Unix socket takes before the client reads. The kernel's default
/// buffer takes twice as many.
const FRAMES: usize = 128;
/// As long as the names of the other channels, because only their number is to be compared.
const ROOM: &str = "room 00";

pub(super) fn benches(criterion: &mut Criterion) {
    registry(criterion);
    channels(criterion);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    publish(criterion, &runtime);
    publish_together(criterion, &runtime);
    slow_reader(criterion, &runtime);
}

fn registry(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("registry");
    for (name, count) in [("1 000", 1000), ("100 000", 100_000)] {
        let sessions = Sessions::without_sockets(count);
        let router = &sessions.router;
        let mut ids = sessions.ids.iter().cycle();
        bench(&mut group, format!("look up among {name}"), Throughput::Elements(1), || {
            router.params(*ids.next().expect("it cycles"))
        });
        // Add one session and remove the oldest, so that neither is in the CPU caches if there are many.
        let router = router_without_sessions();
        let all = outboxes(2 * count, || ClientLink::Feed(Feed::polled()));
        let (first, _) = all.split_at(count);
        first.iter().for_each(|outbox| router.insert(outbox.clone()));
        let (mut going, mut coming) = (all.iter().cycle(), all.iter().cycle().skip(count));
        bench(&mut group, format!("one comes and one goes, {name}"), Throughput::Elements(1), || {
            router.insert(coming.next().expect("it cycles").clone());
            router.remove(going.next().expect("it cycles").id())
        });
        assert_eq!(router.len(), count);
    }
    group.finish();
}

fn channels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel");
    let sessions = Sessions::without_sockets(10_001);
    let (router, room) = (&sessions.router, channel(ROOM));
    let (id, others) = sessions.ids.split_first().expect("there are some");
    let join = |id: SessionId, name: &Name| {
        let receipt = router.run_now(Door::Answer, &Command::new(Target::session(id), Action::Join(name.clone())));
        assert_eq!(receipt.reached, 1);
    };
    let leave = Command::new(Target::session(*id), Action::Leave(room.clone()));
    let mut join_and_leave = |name: &str| {
        bench(&mut group, format!("join and leave, {name}"), Throughput::Elements(1), || {
            join(*id, &room);
            router.run_now(Door::Answer, &leave)
        });
    };
    join_and_leave("nobody else in it");
    others.iter().for_each(|other| join(*other, &room));
    join_and_leave("10 000 in it");
    (1..=99).for_each(|number| join(*id, &channel(&format!("room {number:02}"))));
    join_and_leave("session in 99 others");
    group.finish();
}

fn publish(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("publish 64 B");
    for count in [1, 10, 100, 1000] {
        let (sessions, mut clients) = Sessions::with_sockets(runtime, count);
        let command = sessions.in_one_channel();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("channel of {count}"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, 1, &mut clients, || {
                    let receipt = sessions.router.run_now(Door::Api, &command);
                    assert_eq!(receipt.reached, count as u32, "all of it is written at once");
                })
            });
        });
        // The kernel's part of the time; the rest is Longwire's.
        let (pairs, mut clients): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
        let frame = [0; 68];
        group.bench_function(format!("{count} bare sends"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, 1, &mut clients, || {
                    pairs.iter().for_each(|socket| assert_eq!(socket.send(&frame).expect("it has room"), frame.len()));
                })
            });
        });
    }
    group.finish();
}

/// Several messages of a publisher at once, which reach each session in one write.
fn publish_together(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("publish several of 64 B to 100");
    let (sessions, mut clients) = Sessions::with_sockets(runtime, 100);
    let command = sessions.in_one_channel();
    for messages in [4, 16, 64] {
        let commands = vec![command.clone(); messages];
        group.throughput(Throughput::Elements(100 * messages as u64));
        group.bench_function(format!("{messages} together"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, messages, &mut clients, || {
                    let receipts = runtime.block_on(sessions.router.run_together(Door::Long, black_box(&commands)));
                    assert!(receipts.len() == messages && receipts.iter().all(|receipt| receipt.reached == 100));
                })
            });
        });
        group.bench_function(format!("{messages} one by one"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, messages, &mut clients, || {
                    for command in black_box(&commands) {
                        let receipt = runtime.block_on(sessions.router.run(Door::Long, command));
                        assert_eq!(receipt.reached, 100);
                    }
                })
            });
        });
    }
    group.finish();
}

/// Runs `run` this many times. The frames that clients got are read in between, outside the measured time.
fn timed(iterations: u64, frames: usize, clients: &mut [Socket], mut run: impl FnMut()) -> Duration {
    let (mut total, mut left) = (Duration::ZERO, iterations);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let rounds = left.min((FRAMES / frames) as u64);
        let begin = Instant::now();
        (0..rounds).for_each(|_| run());
        total += begin.elapsed();
        left -= rounds;
        for client in &mut *clients {
            while client.read(&mut buffer).is_ok() {}
        }
    }
    total
}

/// A client that does not read, with many frames of other keys waiting.
fn slow_reader(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("slow reader");
    for waiting in [100, 1000, 4000] {
        let (sessions, _clients) = Sessions::with_sockets(runtime, 1);
        let in_room = sessions.in_one_channel();
        let of_key = |key: &str| {
            let message = Message { key: Some(channel(key)), ..Message::new(text(64)) };
            Command { action: Action::Send(message), ..in_room.clone() }
        };
        let send = |command: &Command| sessions.router.run_now(Door::Api, command);
        let mut number = 0;
        while send(&of_key(&format!("fills the socket {number}"))).queued == 0 {
            number += 1;
        }
        let commands: Vec<_> = (0..waiting).map(|number| of_key(&format!("key {number:04}"))).collect();
        commands.iter().for_each(|command| assert_eq!(send(command).queued, 1));
        let replace = |command: &Command| {
            let receipt = send(command);
            assert_eq!((receipt.queued, receipt.dropped.latest), (1, 1));
        };
        // A replacing frame goes to the end of the queue. So cycling through the keys replaces the oldest frame each time, and repeating
        // one key replaces the newest.
        let (mut oldest, newest) = (commands.iter().cycle(), of_key(&format!("key {:04}", waiting - 1)));
        bench(&mut group, format!("{waiting} wait, the newest is replaced"), Throughput::Elements(1), || {
            replace(&newest);
        });
        bench(&mut group, format!("{waiting} wait, the oldest is replaced"), Throughput::Elements(1), || {
            replace(oldest.next().expect("it cycles"));
        });
    }
    group.finish();
}

struct Sessions {
    router: Router,
    ids: Vec<SessionId>,
}

impl Sessions {
    fn without_sockets(count: usize) -> Self {
        Self::with(outboxes(count, || ClientLink::Feed(Feed::polled())))
    }

    fn with_sockets(runtime: &Runtime, count: usize) -> (Self, Vec<Socket>) {
        let mut clients = Vec::new();
        let outboxes = outboxes(count, || {
            let (near, far) = pair();
            clients.push(far);
            ClientLink::to(Transport::new(near).expect("the runtime has room"))
        });
        // Writes fail until a task has waited for the socket to be writable, and there is no session's task here that would.
        for outbox in &outboxes {
            runtime.block_on(poll_fn(|cx| outbox.link().poll_write_ready(cx))).expect("both ends are open");
        }
        (Self::with(outboxes), clients)
    }

    fn with(outboxes: Vec<Arc<Outbox>>) -> Self {
        let router = router_without_sessions();
        let ids = outboxes.iter().map(|outbox| outbox.id()).collect();
        outboxes.into_iter().for_each(|outbox| router.insert(outbox));
        Self { router, ids }
    }

    /// Joins all sessions to a channel and returns a command that sends to it.
    fn in_one_channel(&self) -> Command {
        let room = channel(ROOM);
        let joined = self.router.run_now(Door::Api, &Command::new(Target::All, Action::Join(room.clone())));
        assert_eq!(joined.reached as usize, self.ids.len());
        Command::new(Target::Channel(room), Action::Send(Message::new(black_box(text(64)))))
    }
}

fn router_without_sessions() -> Router {
    let facts =
        NodeFacts { name: "bench".to_owned(), number: 1, started: Instant::now(), draining: CancellationToken::new() };
    let limits = ProfileLimits { max_channels: 100, max_attribute_bytes: 4096 };
    let latest = ChannelRule { pattern: ROOM.into(), is_prefix: false, rule: SlowReader::Latest };
    Router::new(vec![latest], limits, Metrics::default().router, facts)
}

/// Outboxes in an order that is unrelated to their place in memory.
fn outboxes(count: usize, mut link: impl FnMut() -> ClientLink) -> Vec<Arc<Outbox>> {
    let terms = Arc::new(Terms {
        listener: "tcp".to_owned(),
        app: "app".to_owned(),
        max_bytes: 1 << 20,
        slow_reader: SlowReader::Close,
        deflate_min_bytes: 1024,
        sends_empty: true,
    });
    let framing = Framing::Length(LengthFraming::default());
    let ids = SessionIds::new(1, 1, [7; 16]);
    let mut outboxes: Vec<_> =
        (0..count).map(|_| Arc::new(Outbox::new(ids.next_id(), framing.clone(), terms.clone(), link()))).collect();
    // Session ids are a keyed permutation, so sorting by them shuffles.
    outboxes.sort_by_key(|outbox| outbox.id());
    outboxes
}

fn channel(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("it is a name")
}

fn pair() -> (Socket, Socket) {
    let (near, far) = Socket::pair(Domain::UNIX, Type::STREAM, None).expect("descriptors are left");
    near.set_nonblocking(true).expect("a socket can");
    far.set_nonblocking(true).expect("a socket can");
    (near, far)
}
