//! Several nodes, joined by an engine of several servers: a Redis Cluster, Redis with Sentinels, a cluster of NATS servers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use longwire::proto::command::{Action, Name, Receipt, Target};
use longwire::proto::control::long::Operation;
use longwire::proto::partition::Partition;
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::cluster::{self, brisk_config, client, next, reached, router, send};
use crate::support::engine_clusters::{EngineCluster, Kind, Server, slot_of};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};
use crate::support::router::{Router, name, session};

const KINDS: [Kind; 3] = [Kind::RedisCluster, Kind::Sentinel, Kind::NatsCluster];
/// Longest wait. Elections of Redis, and the nodes' pauses between attempts, take seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes that know each other. Each tries another server of the engine first.
async fn three(fpm: &PhpFpm, engine: &EngineCluster) -> Vec<Longwire> {
    cluster::three(|number| brisk_config(fpm, number, &engine.config(number - 1))).await
}

async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out waiting until: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The name of a channel's subject in Redis.
fn subject_of(channel: &Name) -> String {
    format!("longwire:part:{}", Partition::of_channel(channel).number())
}

/// Which of the three masters of a new Redis Cluster owns a name.
fn master_of(engine: &EngineCluster, name: &str) -> usize {
    usize::from(slot_of(&engine.servers[0], name)) * 3 / 16_384
}

/// Twelve channels in twelve partitions. For a Redis Cluster there are four on each master.
fn twelve_channels(engine: &EngineCluster, kind: Kind) -> Vec<Name> {
    let is_redis_cluster = matches!(kind, Kind::RedisCluster | Kind::RedisClusterWithReplicas);
    let (mut channels, mut partitions, mut on_master) = (Vec::new(), BTreeSet::new(), [0; 3]);
    for number in 0.. {
        let channel = name(&format!("room:{number}"));
        let master = if is_redis_cluster { master_of(engine, &subject_of(&channel)) } else { number % 3 };
        if on_master[master] < 4 && partitions.insert(Partition::of_channel(&channel).number()) {
            on_master[master] += 1;
            channels.push(channel);
        }
        if channels.len() == 12 {
            break;
        }
    }
    channels
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_reaches_sessions_on_every_node() {
    for kind in KINDS {
        let (fpm, engine) = (Pool::of(4).start(), EngineCluster::start(kind));
        let nodes = three(&fpm, &engine).await;
        let mut clients = Vec::new();
        for node in &nodes {
            clients.push(client(node).await);
        }
        let sids: Vec<_> = clients.iter().map(|(_, sid)| session(sid)).collect();
        let channels = twelve_channels(&engine, kind);
        // On each node, join a session of another node to the channel, and bind it to a uid.
        for (at, node) in nodes.iter().enumerate() {
            let (mut router, of_other) = (router(node).await, || Target::session(sids[(at + 1) % 3]));
            for channel in &channels {
                assert_eq!(router.do_to(of_other(), Action::Join(channel.clone())).await, reached(1), "{kind:?}");
            }
            assert_eq!(router.do_to(of_other(), Action::Bind(name("ann"))).await, reached(1), "{kind:?}");
        }
        for (at, node) in nodes.iter().enumerate() {
            let mut router = router(node).await;
            let of_channels = channels.iter().cloned().map(Target::Channel);
            let others = [Target::Uid(name("ann")), Target::All, Target::Sessions(sids.clone())];
            for to in of_channels.chain(others) {
                let body = format!("{at} to {to:?}");
                assert_eq!(router.run(send(to, &body)).await, reached(3), "{kind:?}: {body}");
                for (client, _) in &mut clients {
                    assert_eq!(next(client).await, body);
                }
            }
            for (client, sid) in &mut clients {
                assert_eq!(router.run(send(Target::session(session(sid)), "you alone")).await, reached(1));
                assert_eq!(next(client).await, "you alone");
            }
        }
        if kind == Kind::RedisCluster {
            for server in &engine.servers {
                let subjects: Vec<String> = server.ask(&["PUBSUB", "SHARDCHANNELS"]);
                assert!(subjects.len() >= 4, "each master must have four of the subjects: {subjects:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_a_publisher_come_in_order_and_once_on_each_of_several_channels() {
    const ROUNDS: usize = 300;
    for kind in KINDS {
        let (fpm, engine) = (Pool::of(4).start(), EngineCluster::start(kind));
        let nodes = three(&fpm, &engine).await;
        let channels = twelve_channels(&engine, kind);
        let mut readers = Vec::new();
        for node in &nodes {
            let (mut client, sid) = client(node).await;
            for channel in &channels {
                router(node).await.do_to(Target::session(session(&sid)), Action::Join(channel.clone())).await;
            }
            readers.push(tokio::spawn(async move {
                let mut numbers = BTreeMap::<String, usize>::new();
                for _ in 0..ROUNDS * 12 {
                    let frame = next(&mut client).await;
                    let (channel, number) = frame.split_once(' ').expect("a channel and a number");
                    let next = numbers.entry(channel.to_owned()).or_default();
                    assert_eq!(number, next.to_string(), "of {channel}");
                    *next += 1;
                }
            }));
        }
        let mut publisher = router(&nodes[0]).await;
        let commands = (0..ROUNDS).flat_map(|round| {
            let of_round =
                move |channel: &Name| send(Target::Channel(channel.clone()), &format!("{} {round}", text(channel)));
            channels.iter().map(of_round).collect::<Vec<_>>()
        });
        for number in publisher.start_all(commands).await {
            let (receipt, unreachable, engine_down) = publisher.outcome(number).await;
            assert_eq!(receipt.reached + receipt.queued, 3, "{kind:?}: {receipt:?}");
            assert_eq!((unreachable, engine_down), (Vec::new(), false), "{kind:?}");
        }
        for reader in readers {
            reader.await.expect("all came in order");
        }
        assert!(nodes.iter().all(|node| node.metric("longwire_envelopes_missed_total", "") == 0.0));
    }
}

fn text(name: &Name) -> &str {
    std::str::from_utf8(name.as_bytes()).expect("names of tests are text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_receipt_of_a_join_is_reached_from_every_node() {
    const CHANNELS: usize = 150;
    for kind in KINDS {
        let (fpm, engine) = (Pool::of(4).start(), EngineCluster::start(kind));
        let nodes = three(&fpm, &engine).await;
        let (mut member, sid) = client(&nodes[0]).await;
        let mut routers = Vec::new();
        for node in &nodes {
            routers.push(router(node).await);
        }
        for number in 0..CHANNELS {
            let channel = format!("fresh:{number}");
            let (router, to) = (&mut routers[number % 3], || Target::session(session(&sid)));
            assert_eq!(router.do_to(to(), Action::Join(name(&channel))).await, reached(1), "{kind:?}");
            for (at, router) in routers.iter_mut().enumerate().rev() {
                let body = format!("{channel} from {at}");
                assert_eq!(router.publish(&channel, body.clone()).await, reached(1), "{kind:?}: {body}");
                assert_eq!(next(&mut member).await, body, "{kind:?}");
            }
            // Leave again, because a session may not be in that many channels at once.
            routers[0].do_to(Target::session(session(&sid)), Action::Leave(name(&channel))).await;
        }
    }
}

/// Publishes on all channels, round after round, and keeps each frame's receipt.
struct Publisher {
    sent: Arc<Mutex<Vec<Sent>>>,
    is_over: Arc<AtomicBool>,
    task: JoinHandle<Router>,
}

/// A frame, and its receipt.
struct Sent {
    channel: usize,
    round: usize,
    delivered: usize,
    /// The receipt says that it is incomplete.
    is_partial: bool,
    told_at: Instant,
}

impl Publisher {
    fn start(mut router: Router, channels: Vec<Name>) -> Self {
        let (sent, is_over) = (Arc::<Mutex<Vec<Sent>>>::default(), Arc::<AtomicBool>::default());
        let (log, stop) = (sent.clone(), is_over.clone());
        let task = tokio::spawn(async move {
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let frame =
                    |(at, channel): (usize, &Name)| send(Target::Channel(channel.clone()), &format!("{at} {round}"));
                let numbers = router.start_all(channels.iter().enumerate().map(frame)).await;
                for (channel, number) in numbers.into_iter().enumerate() {
                    let (receipt, unreachable, engine_down) = router.outcome(number).await;
                    let delivered = (receipt.reached + receipt.queued) as usize;
                    let is_partial = engine_down || !unreachable.is_empty();
                    let told_at = Instant::now();
                    log.lock().unwrap().push(Sent { channel, round, delivered, is_partial, told_at });
                }
                // A steady load below the maximum, because elections need CPU too.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            router
        });
        Self { sent, is_over, task }
    }

    fn count(&self) -> usize {
        self.sent.lock().unwrap().len()
    }

    /// When a whole round after the first `first` frames reached `members` members on every channel.
    fn whole_after(&self, first: usize, channels: usize, members: usize) -> Option<Instant> {
        let sent = self.sent.lock().unwrap();
        let mut rounds = sent.chunks_exact(channels).skip(first.div_ceil(channels));
        let whole = rounds.find(|round| round.iter().all(|sent| sent.delivered == members))?;
        Some(whole[0].told_at)
    }

    async fn stop(self) -> (Router, Vec<Sent>) {
        self.is_over.store(true, Ordering::Relaxed);
        let router = self.task.await.expect("the node answers to the end");
        (router, std::mem::take(&mut self.sent.lock().unwrap()))
    }
}

/// Reads the frames of a [`Publisher`] up to the last one on each channel. Returns the rounds, by channel.
fn read_all(mut client: Client, channels: usize) -> JoinHandle<Vec<Vec<usize>>> {
    tokio::spawn(async move {
        let (mut rounds, mut over) = (vec![Vec::new(); channels], BTreeSet::new());
        while over.len() < channels {
            let frame = next(&mut client).await;
            let (channel, round) = frame.split_once(' ').expect("a channel and a round");
            let channel: usize = channel.parse().expect("a number");
            match round.parse() {
                Ok(round) => rounds[channel].push(round),
                Err(_) => drop(over.insert(channel)),
            }
        }
        rounds
    })
}

/// How the engine recovers from a killed server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    StartItAgain,
    Nothing,
}

async fn a_server_is_killed_under_load(kind: Kind, mend: Mend) {
    let (fpm, mut engine) = (Pool::of(4).start(), EngineCluster::start(kind));
    let nodes = three(&fpm, &engine).await;
    let channels = twelve_channels(&engine, kind);
    let mut readers = Vec::new();
    for node in &nodes {
        let (client, sid) = client(node).await;
        let mut router = router(node).await;
        for channel in &channels {
            assert_eq!(router.do_to(Target::session(session(&sid)), Action::Join(channel.clone())).await, reached(1));
        }
        readers.push(read_all(client, channels.len()));
    }
    let victim = match kind {
        Kind::RedisCluster => master_of(&engine, "longwire:all"),
        Kind::RedisClusterWithReplicas => (master_of(&engine, "longwire:all") + 1) % 3,
        Kind::Sentinel | Kind::NatsCluster => 0,
    };
    let publisher = Publisher::start(router(&nodes[0]).await, channels.clone());
    eventually("it is under load", || publisher.count() > 2000).await;
    // All nodes are connected to each master of Redis. Only the first node is connected to the first server of NATS.
    let losers = if kind == Kind::NatsCluster { &nodes[..1] } else { &nodes[..] };
    let failures = |node: &Longwire| node.metric("longwire_engine_failures_total", "");
    let so_far: Vec<f64> = losers.iter().map(failures).collect();
    engine.servers[victim].kill();
    let killed = Instant::now();
    let notice = || losers.iter().zip(&so_far).all(|(node, so_far)| failures(node) > *so_far);
    eventually("they notice", notice).await;
    let (noticed, before) = (killed.elapsed(), publisher.count());
    if mend == Mend::StartItAgain {
        eventually("its own are reached", || {
            publisher.sent.lock().unwrap()[before..].iter().any(|sent| sent.delivered == 1 && sent.is_partial)
        })
        .await;
        engine.servers[victim].start_again();
    }
    let mended = Instant::now();
    eventually("all are reached again", || publisher.whole_after(before, channels.len(), 3).is_some()).await;
    eventually("all are ready", || nodes.iter().all(|node| node.admin("/ready").0 == 200)).await;
    let whole_at = publisher.whole_after(before, channels.len(), 3).expect("it was a moment ago");
    let (mut router, sent) = publisher.stop().await;
    for (at, channel) in channels.iter().enumerate() {
        let deadline = Instant::now() + PATIENCE;
        while router.publish(text(channel), format!("{at} last")).await != reached(3) {
            assert!(Instant::now() < deadline, "{kind:?}: {} is reached for good", text(channel));
        }
    }
    if matches!(kind, Kind::RedisClusterWithReplicas | Kind::Sentinel) {
        assert!(engine.replicas[victim].is_master(), "it has taken the place");
    }
    let mut got = Vec::new();
    for reader in readers {
        got.push(reader.await.expect("every member gets the last frame"));
    }
    let rounds = sent.len() / channels.len();
    for (at, of_channel) in got[0].iter().enumerate() {
        assert!(of_channel.iter().copied().eq(0..rounds), "{kind:?}: own members of {at}: {of_channel:?}");
    }
    for of_channel in got[1..].iter().flatten() {
        assert!(of_channel.is_sorted_by(|one, next| one < next), "{kind:?}: far members: {of_channel:?}");
    }
    for Sent { channel, round, delivered, is_partial, .. } in &sent {
        let arrived = got.iter().filter(|of_member| of_member[*channel].binary_search(round).is_ok()).count();
        assert!(*delivered <= arrived, "{kind:?}: {channel} {round}: told {delivered}, arrived at {arrived}");
        assert!(
            *delivered == 3 || *is_partial,
            "{kind:?}: {channel} {round}: {delivered} reached, but not marked as partial"
        );
    }
    let (whole, after_mending) = (whole_at - killed, whole_at.saturating_duration_since(mended));
    eprintln!("{kind:?}, {mend:?}: noticed in {noticed:.3?}, whole in {whole:.2?}, {after_mending:.2?} after mending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_of_a_redis_cluster_is_told_and_all_is_well_when_it_is_back() {
    a_server_is_killed_under_load(Kind::RedisCluster, Mend::StartItAgain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_of_a_redis_cluster_is_told_and_all_is_well_when_its_replica_has_its_place() {
    a_server_is_killed_under_load(Kind::RedisClusterWithReplicas, Mend::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_behind_sentinels_is_told_and_all_is_well_when_its_replica_has_its_place() {
    a_server_is_killed_under_load(Kind::Sentinel, Mend::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_of_nats_is_told_and_all_is_well_with_the_others() {
    a_server_is_killed_under_load(Kind::NatsCluster, Mend::Nothing).await;
}

/// Three nodes, each with one member of these channels.
async fn three_with_members(
    fpm: &PhpFpm,
    engine: &EngineCluster,
    channels: &[Name],
) -> (Vec<Longwire>, Vec<Client>, Router) {
    let nodes = three(fpm, engine).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(client(node).await.0);
    }
    let mut router = router(&nodes[0]).await;
    for channel in channels {
        assert_eq!(router.do_to(Target::All, Action::Join(channel.clone())).await, reached(3));
    }
    (nodes, clients, router)
}

async fn reaches_three(router: &mut Router, channels: &[Name]) {
    for channel in channels {
        let deadline = Instant::now() + PATIENCE;
        while router.publish(text(channel), "to three").await != reached(3) {
            assert!(Instant::now() < deadline, "{} is not whole", text(channel));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_does_not_answer_is_noticed_though_nobody_publishes_there() {
    let kind = Kind::RedisClusterWithReplicas;
    let (fpm, engine) = (Pool::of(4).start(), EngineCluster::start(kind));
    let victim = (master_of(&engine, "longwire:all") + 1) % 3;
    let of_victim = |channel: &Name| master_of(&engine, &subject_of(channel)) == victim;
    let channels: Vec<Name> = twelve_channels(&engine, kind).into_iter().filter(of_victim).collect();
    let (nodes, _clients, mut router) = three_with_members(&fpm, &engine, &channels).await;
    engine.servers[victim].signal(libc::SIGSTOP);
    let stopped = Instant::now();
    eventually("all notice", || nodes.iter().all(|node| node.metric("longwire_engine_failures_total", "") > 0.0)).await;
    let noticed = stopped.elapsed();
    eventually("the replica has its place", || engine.replicas[victim].is_master()).await;
    reaches_three(&mut router, &channels).await;
    eprintln!("stopped master: noticed in {noticed:.2?}, whole in {:.2?}", stopped.elapsed());
    engine.servers[victim].signal(libc::SIGCONT);
    eventually("it knows", || !engine.servers[victim].is_master()).await;
    reaches_three(&mut router, &channels).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_to_another_master_takes_its_subscriptions_along() {
    let kind = Kind::RedisCluster;
    let (fpm, engine) = (Pool::of(4).start(), EngineCluster::start(kind));
    let channels = vec![name("news")];
    let (nodes, _clients, mut router) = three_with_members(&fpm, &engine, &channels).await;
    let slot = slot_of(&engine.servers[0], &subject_of(&channels[0])).to_string();
    let from = master_of(&engine, &subject_of(&channels[0]));
    let to = (from + 1) % 3;
    let id = |server: &Server| server.ask::<String>(&["CLUSTER", "MYID"]);
    let (old, new) = (id(&engine.servers[from]), id(&engine.servers[to]));
    engine.servers[to].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old]);
    engine.servers[from].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new]);
    for server in [to, from, (from + 2) % 3] {
        engine.servers[server].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &new]);
    }
    eventually("all notice", || nodes.iter().all(|node| node.metric("longwire_engine_failures_total", "") > 0.0)).await;
    reaches_three(&mut router, &channels).await;
    let subjects: Vec<String> = engine.servers[to].ask(&["PUBSUB", "SHARDCHANNELS"]);
    assert!(subjects.contains(&subject_of(&channels[0])), "{subjects:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_answer_leaves_the_others_their_turn() {
    for kind in [Kind::RedisClusterWithReplicas, Kind::Sentinel, Kind::NatsCluster] {
        let (fpm, engine) = (Pool::of(2).start(), EngineCluster::start(kind));
        let (stopped, urls) = match kind {
            Kind::Sentinel => (&engine.sentinels[0], engine.config(0)),
            Kind::NatsCluster => (&engine.servers[0], engine.config(0)),
            _ => {
                let first = format!("urls = [\"redis://127.0.0.1:{}\", ", engine.replicas[0].port);
                (&engine.replicas[0], engine.config(0).replace("urls = [", &first))
            }
        };
        stopped.signal(libc::SIGSTOP);
        let node = Longwire::serve(&brisk_config(&fpm, 1, &urls));
        eventually("it is ready", || node.admin("/ready").0 == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_with_a_password_get_that_of_their_url() {
    let (fpm, engine) = (Pool::of(2).start(), EngineCluster::start(Kind::Sentinel));
    for sentinel in &engine.sentinels {
        sentinel.ask::<()>(&["ACL", "SETUSER", "default", "resetpass", ">a secret"]);
    }
    let node = Longwire::serve(&brisk_config(&fpm, 1, &engine.config(0)));
    eventually("it is ready", || node.admin("/ready").0 == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_nats_is_told_and_nobody_is_cut_off() {
    let (fpm, engine) = (Pool::of(2).start(), EngineCluster::start(Kind::NatsCluster));
    let nodes = three(&fpm, &engine).await;
    let (mut far, sid) = client(&nodes[1]).await;
    let mut router = router(&nodes[0]).await;
    let large = send(Target::session(session(&sid)), &"x".repeat(2 << 20));
    let number = router.start(Operation::Command(large)).await;
    let told = router.outcome(number).await;
    assert_eq!(told, (Receipt::default(), vec!["n2".to_owned()], false));
    assert_eq!(router.run(send(Target::session(session(&sid)), "small")).await, reached(1));
    assert_eq!(next(&mut far).await, "small");
    assert_eq!(nodes[0].metric("longwire_engine_failures_total", ""), 0.0);
    assert_eq!(nodes[0].metric("longwire_envelopes_dropped_total", "too_large"), 1.0);
}
