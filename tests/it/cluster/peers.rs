//! One node on a real redis-server, with peers that the test plays byte by byte: a peer of an earlier run, peers of another version, and
//! a hundred peers at once.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use longwire::proto::command::{Action, AttributeKey, Command, Expect, Message, Receipt, Target};
use longwire::proto::control::long::{Operation, RouterRequest};
use longwire::proto::envelope::VERSION;
use longwire::proto::id::SessionIds;
use longwire::proto::partition::Partition;
use tokio::time::timeout;

use crate::support::cluster::{all_know, brisk_config, client, config, router};
use crate::support::cpu;
use crate::support::engine::{EngineServer, Kind};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{Pool, eventually};
use crate::support::router::{name, session};

const PATIENCE: Duration = Duration::from_secs(20);
const ALL: &str = "longwire:all";
const BEAT: u8 = 1;
const CLAIM: u8 = 3;
const TAKEN: u8 = 4;
const COMMANDS: u8 = 5;
const RECEIPTS: u8 = 6;
const HEADER_BYTES: usize = 22;

/// A node that is played by the test.
struct Peer {
    node: u16,
    run: u64,
    version: u8,
    numbers: std::collections::HashMap<String, u64>,
    publishing: redis::aio::MultiplexedConnection,
}

impl Peer {
    async fn new(engine: &EngineServer, node: u16, run: u64) -> Self {
        let publishing = engine.redis().get_multiplexed_async_connection().await.expect("it accepts");
        Self { node, run, version: VERSION, numbers: Default::default(), publishing }
    }

    /// The next envelope on this subject. The header before the body is the same in every version.
    fn envelope(&mut self, subject: &str, kind: u8, body: &[u8]) -> Bytes {
        let number = self.numbers.entry(subject.to_owned()).or_default();
        *number += 1;
        let mut out = BytesMut::from(&b"LW"[..]);
        out.put_u8(self.version);
        out.put_u8(kind);
        out.put_u16(self.node);
        out.put_u64(self.run);
        out.put_u64(if kind == CLAIM { 0 } else { *number });
        out.put_slice(body);
        out.freeze()
    }

    async fn say(&mut self, subject: &str, kind: u8, body: &[u8]) {
        let payload = self.envelope(subject, kind, body);
        let mut publish = redis::cmd("PUBLISH");
        let receivers: i64 =
            publish.arg(subject).arg(&payload[..]).query_async(&mut self.publishing).await.expect("it publishes");
        assert!(receivers > 0, "nothing is subscribed to {subject}");
    }

    /// Sends a heartbeat with a lease of a minute and this epoch of sessions.
    async fn beat(&mut self, epoch: u32) {
        let mut out = BytesMut::new();
        out.put_u8(2);
        out.put_slice(b"px");
        out.put_u32(epoch);
        out.put_u64(1 << 41);
        out.put_u32(60_000);
        out.put_u64(1);
        out.put_u8(0);
        out.put_u8(VERSION);
        out.put_bytes(0, 128);
        self.say(ALL, BEAT, &out).await;
    }
}

/// Subscribes to a subject.
async fn listen(engine: &EngineServer, subject: &str) -> impl futures_util::Stream<Item = Bytes> + Unpin + use<> {
    let mut listening = engine.redis().get_async_pubsub().await.expect("it accepts");
    listening.subscribe(subject).await.expect("it subscribes");
    Box::pin(listening.into_on_message().map(|message| Bytes::from(message.get_payload_bytes().to_vec())))
}

/// The next envelope of this kind.
async fn next_of(kind: u8, heard: &mut (impl futures_util::Stream<Item = Bytes> + Unpin)) -> Bytes {
    let of_kind = async {
        loop {
            let payload = heard.next().await.expect("the engine is there");
            if payload[3] == kind {
                return payload;
            }
        }
    };
    timeout(PATIENCE, of_kind).await.expect("it comes")
}

#[tokio::test]
async fn an_answer_to_an_earlier_run_is_not_taken_for_one_to_this() {
    let (fpm, engine) = (Pool::of(1).start(), EngineServer::start(Kind::Redis));
    let node = Longwire::serve(&brisk_config(&fpm, 1, &engine.config()));
    let mut heard = listen(&engine, "longwire:node:9").await;
    let mut peer = Peer::new(&engine, 9, 77).await;
    peer.beat(5).await;
    all_know(std::slice::from_ref(&node), 1).await;
    let theirs = SessionIds::new(9, 5, [7; 16]).next_id();
    let mut router = router(&node).await;
    let set = Action::Set {
        key: AttributeKey::new(b"k").unwrap(),
        value: "v".into(),
        expect: Expect::Value("never so".into()),
    };
    let number = router.start(Operation::Command(Command::new(Target::session(theirs), set))).await;
    let asked = next_of(COMMANDS, &mut heard).await;
    let run = u64::from_be_bytes(asked[6..14].try_into().unwrap());
    let request = &asked[HEADER_BYTES..HEADER_BYTES + 8];
    let answer = |run: u64, receipt: Receipt| {
        let mut out = BytesMut::new();
        out.put_u64(run);
        out.put_slice(request);
        receipt.counts().into_iter().for_each(|count| out.put_u32(count));
        out
    };
    // A late answer: an earlier run of the node sent a request with the same number and was killed before this answer came.
    peer.say("longwire:node:1", RECEIPTS, &answer(run ^ 1, Receipt { reached: 1, ..Receipt::default() })).await;
    let refused = Receipt { refused: 1, ..Receipt::default() };
    peer.say("longwire:node:1", RECEIPTS, &answer(run, refused)).await;
    assert_eq!(router.outcome(number).await, (refused, Vec::new(), false));
}

#[tokio::test]
async fn a_node_of_another_version_is_named_once_and_counted_and_makes_this_one_not_ready_while_it_is_there() {
    let (fpm, engine) = (Pool::of(1).start(), EngineServer::start(Kind::Redis));
    let node = Longwire::serve(&brisk_config(&fpm, 1, &engine.config()));
    eventually("it is ready", || node.admin("/ready").0 == 200).await;
    let mut peer = Peer::new(&engine, 9, 77).await;
    peer.version = 200;
    for _ in 0..5 {
        peer.beat(5).await;
    }
    eventually("all are counted", || node.metric("longwire_envelopes_dropped_total", "cause=\"version\"") == 5.0).await;
    let said = "node number 9 speaks version 200";
    let (status, text) = node.admin("/ready");
    assert!(status == 503 && text.contains(said), "{status} {text}");
    let lines = node.log_lines(|line| line["message"].as_str().is_some_and(|text| text.contains(said)));
    assert_eq!(lines.len(), 1, "expected one line for each peer: {lines:?}");
    assert_eq!(lines[0]["level"], "ERROR");
    // The peer is silent from now on, so its lease expires.
    eventually("the node is ready again", || node.admin("/ready").0 == 200).await;
    peer.version = VERSION;
    peer.run = 78;
    peer.beat(6).await;
    all_know(std::slice::from_ref(&node), 1).await;
}

#[tokio::test]
async fn a_number_is_claimed_and_defended_across_versions() {
    let (fpm, engine) = (Pool::of(1).start(), EngineServer::start(Kind::Redis));
    let node = Longwire::serve(&brisk_config(&fpm, 1, &engine.config()));
    let mut heard = listen(&engine, "longwire:node:1").await;
    let mut later = Peer::new(&engine, 1, 77).await;
    later.version = 200;
    later.say("longwire:node:1", CLAIM, b"").await;
    let taken = next_of(TAKEN, &mut heard).await;
    assert_eq!(
        taken[HEADER_BYTES..],
        [&77_u64.to_be_bytes()[..], b"\x02n1"].concat(),
        "the answer must go to that run and name the node"
    );
    drop(node);
    // The other way round: a peer of another version is running, and this node starts.
    let answer = async {
        let claim = next_of(CLAIM, &mut heard).await;
        let taken = [&claim[6..14], b"\x05other"].concat();
        later.say("longwire:node:1", TAKEN, &taken).await;
    };
    let config = brisk_config(&fpm, 1, &engine.config());
    let refusing = tokio::task::spawn_blocking(move || Longwire::refuses(&config));
    answer.await;
    let lines = refusing.await.expect("it is refused");
    let said = "node number 1 is taken by node \"other\": set another [node] number";
    assert!(lines.iter().any(|line| line.contains(said)), "{lines:?}");
}

/// Each peer sends envelopes on every subject.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_peers_cost_no_more_an_envelope_than_forty_eight() {
    const FEW: u16 = 48;
    const MANY: u16 = 100;
    /// Peers whose envelopes are measured.
    const AGAIN: usize = 20;
    /// Channels of one session.
    const CHANNELS: usize = 100;
    let (fpm, engine) = (Pool::of(1).start(), EngineServer::start(Kind::Redis));
    let node = Longwire::serve(&config(&fpm, 1, &engine.config()));
    let mut router = router(&node).await;
    let mut names: Vec<Option<String>> = vec![None; usize::from(Partition::COUNT)];
    for number in 0.. {
        let channel = format!("c{number}");
        names[usize::from(Partition::of_channel(&name(&channel)).number())].get_or_insert(channel);
        if names.iter().all(Option::is_some) {
            break;
        }
    }
    let names: Vec<String> = names.into_iter().flatten().collect();
    let mut clients = Vec::new();
    for names in names.chunks(CHANNELS) {
        let (client, sid) = client(&node).await;
        for channel in names {
            let joined = router.do_to(Target::session(session(&sid)), Action::Join(name(channel))).await;
            assert_eq!(joined.reached, 1);
        }
        clients.push(client);
    }
    assert_eq!(node.metric("longwire_cluster_partitions", ""), f64::from(Partition::COUNT));
    let mut body = BytesMut::new();
    body.put_u64(0);
    let send = Command::new(Target::Channel(name("nobody is in here")), Action::Send(Message::new("hi")));
    RouterRequest { number: 0, operation: Operation::Command(send) }.encode(&mut body);
    let subjects: Vec<String> = (0..Partition::COUNT).map(|number| format!("longwire:part:{number}")).collect();

    let mut peers: Vec<Peer> = Vec::new();
    let mut received = 0.0;
    let mut spent = Vec::new();
    for node_count in [FEW, MANY] {
        for number in peers.len() as u16 + 2..node_count + 2 {
            let mut peer = Peer::new(&engine, number, u64::from(number)).await;
            peer.beat(1).await;
            publish_all(&mut peer, &subjects, &body).await;
            received += 1.0 + f64::from(Partition::COUNT);
            let all = format!("all of peer {} have come", peers.len() + 1);
            eventually(&all, || node.metric("longwire_envelopes_received_total", "") == received).await;
            peers.push(peer);
        }
        let before = cpu(node.pid());
        for peer in &mut peers[..AGAIN] {
            publish_all(peer, &subjects, &body).await;
        }
        received += AGAIN as f64 * f64::from(Partition::COUNT);
        eventually("all have come", || node.metric("longwire_envelopes_received_total", "") == received).await;
        spent.push(cpu(node.pid()) - before);
    }
    println!("{} envelopes: {spent:?} of CPU with {FEW} and with {MANY} peers", AGAIN * usize::from(Partition::COUNT));
    assert_eq!(node.metric("longwire_cluster_nodes", ""), f64::from(MANY));
    assert_eq!(node.metric("longwire_envelopes_missed_total", ""), 0.0);
    assert!(spent[1] <= spent[0] * 3 + Duration::from_millis(100), "{spent:?}");
}

/// Publishes the same body on each of these subjects, in one go.
async fn publish_all(peer: &mut Peer, subjects: &[String], body: &[u8]) {
    let mut pipe = redis::pipe();
    for subject in subjects {
        let payload = peer.envelope(subject, COMMANDS, body);
        pipe.cmd("PUBLISH").arg(subject).arg(&payload[..]).ignore();
    }
    pipe.query_async::<()>(&mut peer.publishing).await.expect("it publishes");
}
