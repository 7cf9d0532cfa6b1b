//! Sessions that come, are looked up, join, are sent to, and go.

use std::hint::black_box;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use longwire::config::model::{ChannelRule, ProfileLimits};
use longwire::metrics::Metrics;
use longwire::metrics::router::Door;
use longwire::outbox::{Feed, Link, Outbox, SlowReader, Terms};
use longwire::proto::command::{Action, Command, Message, Name, Target};
use longwire::proto::framing::{Framing, LengthFraming};
use longwire::proto::id::{SessionId, SessionIds};
use longwire::router::{NodeFacts, Router};
use longwire::transport::Transport;
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

use super::{bench, text};

/// Frames that the buffer of a Unix socket takes before somebody reads.
const ROUNDS: u64 = 32;

pub(super) fn benches(criterion: &mut Criterion) {
    registry(criterion);
    channels(criterion);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _guard = runtime.enter();
    publish(criterion);
    slow_reader(criterion);
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
        let one = outbox(sessions.more.next_id(), Link::Feed(Feed::polled()));
        bench(&mut group, format!("insert and remove among {name}"), Throughput::Elements(1), || {
            router.insert(one.clone());
            router.remove(one.id())
        });
    }
    group.finish();
}

fn channels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("channel");
    let sessions = Sessions::without_sockets(10_001);
    let (router, room) = (&sessions.router, channel("room"));
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
    (0..99).for_each(|number| join(*id, &channel(&format!("other {number}"))));
    join_and_leave("session in 99 others");
    group.finish();
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish 64 B");
    for count in [1, 10, 100, 1000] {
        let (sessions, mut clients) = Sessions::with_sockets(count);
        let command = sessions.in_one_channel();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("channel of {count}"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, &mut clients, || {
                    let receipt = sessions.router.run_now(Door::Api, &command);
                    assert_eq!(receipt.reached, count as u32, "all of it is written at once");
                })
            });
        });
        // What the kernel takes for it: the rest is ours.
        let (pairs, mut clients): (Vec<_>, Vec<_>) = (0..count).map(|_| pair()).unzip();
        let frame = [0; 68];
        group.bench_function(format!("{count} bare sends"), |bencher| {
            bencher.iter_custom(|iterations| {
                timed(iterations, &mut clients, || {
                    pairs.iter().for_each(|socket| assert_eq!(socket.send(&frame).expect("it has room"), frame.len()));
                })
            });
        });
    }
    group.finish();
}

/// Runs it so often; what the clients were sent is read in between, outside the time.
fn timed(iterations: u64, clients: &mut [Socket], mut run: impl FnMut()) -> Duration {
    let (mut total, mut left) = (Duration::ZERO, iterations);
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let rounds = left.min(ROUNDS);
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

/// A client that does not read, with so many frames of other keys waiting.
fn slow_reader(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slow reader");
    for waiting in [100, 1000, 4000] {
        let (sessions, _clients) = Sessions::with_sockets(1);
        let mut command = sessions.in_one_channel();
        let mut send = |key: String| {
            let message = Message { key: Some(channel(&key)), ..Message::new(text(64)) };
            command.action = Action::Send(message);
            sessions.router.run_now(Door::Api, &command)
        };
        let mut number = 0;
        while send(format!("fills the socket {number}")).queued == 0 {
            number += 1;
        }
        (0..waiting).for_each(|number| assert_eq!(send(number.to_string()).queued, 1));
        bench(&mut group, format!("latest, {waiting} wait"), Throughput::Elements(1), || {
            let receipt = send("0".to_owned());
            assert_eq!((receipt.queued, receipt.dropped.latest), (1, 1));
        });
    }
    group.finish();
}

struct Sessions {
    router: Router,
    ids: Vec<SessionId>,
    more: SessionIds,
}

impl Sessions {
    fn without_sockets(count: usize) -> Self {
        Self::with(count, || Link::Feed(Feed::polled()))
    }

    fn with_sockets(count: usize) -> (Self, Vec<Socket>) {
        let mut clients = Vec::new();
        let sessions = Self::with(count, || {
            let (near, far) = pair();
            clients.push(far);
            Link::Socket(Transport::new(near).expect("the runtime has room"))
        });
        (sessions, clients)
    }

    fn with(count: usize, mut link: impl FnMut() -> Link) -> Self {
        let facts = NodeFacts {
            name: "bench".to_owned(),
            number: 1,
            started: Instant::now(),
            draining: CancellationToken::new(),
        };
        let limits = ProfileLimits { max_channels: 100, max_attribute_bytes: 4096 };
        let latest = ChannelRule { pattern: "room".into(), is_prefix: false, rule: SlowReader::Latest };
        let router = Router::new(vec![latest], limits, Metrics::default().router, facts);
        let more = SessionIds::new(1, 1, [7; 16]);
        let ids: Vec<_> = (0..count).map(|_| more.next_id()).collect();
        ids.iter().for_each(|id| router.insert(outbox(*id, link())));
        Self { router, ids, more }
    }

    /// All join a channel; the command sends to it.
    fn in_one_channel(&self) -> Command {
        let room = channel("room");
        let joined = self.router.run_now(Door::Api, &Command::new(Target::All, Action::Join(room.clone())));
        assert_eq!(joined.reached as usize, self.ids.len());
        Command::new(Target::Channel(room), Action::Send(Message::new(black_box(text(64)))))
    }
}

fn outbox(id: SessionId, link: Link) -> Arc<Outbox> {
    let terms = Terms {
        listener: "tcp".to_owned(),
        app: "app".to_owned(),
        max_bytes: 1 << 20,
        slow_reader: SlowReader::Close,
        deflate_min_bytes: 1024,
    };
    Arc::new(Outbox::new(id, Framing::Length(LengthFraming::default()), Arc::new(terms), link))
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
