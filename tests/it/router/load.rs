//! The router under load: order and receipts with thousands of sessions, readers that stall, and memory after sessions have left.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use longwire::proto::command::{Action, Message, Page, Query, Receipt, Target};
use longwire::proto::framing::{Framing, Item, LengthFraming};
use tokio::task::JoinSet;

use crate::support::client::{Client, Receiver};
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{Pool, eventually};
use crate::support::router::{Router, name};
use crate::support::two_nodes;

/// Joins the channel that the message names.
const JOIN: &str = "header('Longwire-Join: ' . file_get_contents('php://input')); echo 'joined';";

/// The number of members of a channel. With two nodes it is a tenth, since there only the path of a command differs, not its members.
fn members(alone: usize) -> usize {
    if two_nodes::engine().is_some() { alone / 10 } else { alone }
}

async fn client(node: &Longwire, number: usize) -> Client {
    match number % 2 {
        0 => Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await,
        _ => Client::upgrade(node.address("web"), "/ws", "").await,
    }
}

/// `count` clients in a channel, TCP and WebSocket by turns, with their ends to send kept in `open`.
async fn joined(node: &Longwire, count: usize, channel: &'static str) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        // A few at a time, so that queued connect and join events do not reach their deadline.
        let mut batch = Vec::new();
        for number in clients.len()..count.min(clients.len() + 100) {
            let mut client = client(node, number).await;
            client.text(channel).await;
            batch.push(client);
        }
        for mut client in batch {
            assert_eq!(&client.frame().await.body[..], b"joined");
            clients.push(client);
        }
    }
    until_members(node, channel, count).await;
    clients
}

/// Waits until commands find this number of members in a channel.
async fn until_members(node: &Longwire, channel: &str, count: usize) {
    let mut router = Router::connect(node.address("router"), "").await;
    let query = Query::Channel(name(channel), Page { after: None, limit: 0 });
    router.ask_until(query, |answer| answer["count"] == count).await;
}

fn sum(receipts: &[Receipt]) -> Receipt {
    receipts.iter().fold(Receipt::default(), |sum, receipt| sum.plus(receipt))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_members_get_each_message_once_and_in_order_and_the_receipts_add_up() {
    const MESSAGES: u32 = 200;
    let members = members(5000);
    let fpm = Pool::of(4).start();
    // These clients answer no pings, and on a busy machine the test takes longer than a ping may wait.
    let listeners = format!("{LISTENERS}websocket.ping_interval = 0\n");
    let node = Longwire::with(&fpm, &fpm.script("join.php", JOIN), "", "", &listeners);
    let clients = joined(&node, members, "news").await;
    let mut readers = JoinSet::new();
    for client in clients {
        readers.spawn(async move {
            let mut receiver = client.receiver;
            let _sender = client.sender;
            for expected in 0..MESSAGES {
                let body = receiver.frame().await.body;
                assert_eq!(str::from_utf8(&body).unwrap(), format!("message {expected}"));
            }
            receiver
        });
    }
    let mut router = Router::connect(node.address("router"), "").await;
    let mut receipts = Vec::new();
    for number in 0..MESSAGES {
        receipts.push(router.publish("news", format!("message {number}")).await);
    }
    let mut counted = 0;
    while let Some(receiver) = readers.join_next().await {
        drop(receiver.expect("each message came once and in order"));
        counted += MESSAGES;
    }
    let sum = sum(&receipts);
    assert_eq!(sum.reached + sum.queued, counted);
    assert_eq!(counted as usize, members * MESSAGES as usize);
    assert_eq!(Receipt { reached: 0, queued: 0, ..sum }, Receipt::default());
    let pushed = |fate: &str| node.metric("longwire_pushes_total", &format!("fate=\"{fate}\""));
    assert_eq!((pushed("reached"), pushed("queued")), (f64::from(sum.reached), f64::from(sum.queued)));
}

/// The result of a steady publish to a thousand members, one of which reads nothing until the end.
struct Stalled {
    receipts: Receipt,
    /// The numbers that the stalled member gets when it reads again.
    late: Vec<u32>,
    /// Whether its session was closed.
    closed: bool,
    node: Longwire,
}

const KEYS: u32 = 4;
const ROUNDS: u32 = 1500;
const BODY: usize = 4096;
const OUTBOX: usize = 256 * 1024;

async fn publish_to_a_stalled_reader(rule: &str) -> Stalled {
    let fpm = Pool::of(4).start();
    let app = format!("outbox_bytes = {OUTBOX}\nslow_reader = \"close\"\nsend_timeout = \"5m\"");
    // Long timeouts: these clients answer no pings, and one reads nothing. On a busy machine that could exceed the defaults.
    let router = format!(
        "{LISTENERS}websocket.ping_interval = 0\ntcp_user_timeout = 0\n[router]\nbind = \"127.0.0.1:0\"\nslow_readers = {{ \"ne*\" = \"{rule}\" }}"
    );
    let node = Longwire::with(&fpm, &fpm.script("join.php", JOIN), &app, "", &router);
    let mut clients = joined(&node, members(1000), "news").await;
    let mut late = clients.pop().expect("there are a hundred at least");
    let before = node.settled_memory().await;
    let received: Vec<_> = clients.iter().map(|_| Arc::new(AtomicU32::new(0))).collect();
    let mut readers = JoinSet::new();
    for (client, received) in clients.into_iter().zip(received.iter().cloned()) {
        readers.spawn(async move {
            let mut client = client;
            for expected in 0..ROUNDS {
                assert_eq!(number_in(&client.receiver.frame().await.body), expected, "whole and in order");
                received.fetch_add(1, Ordering::Relaxed);
            }
            client
        });
    }
    let mut router = Router::connect(node.address("router"), "").await;
    let mut receipts = Vec::new();
    let mut grown = 0;
    for number in 0..ROUNDS {
        let mut body = vec![b'.'; BODY];
        body[..4].copy_from_slice(&number.to_be_bytes());
        let key = Some(name(&(number % KEYS).to_string()));
        let message = Message { key, ..Message::new(body) };
        receipts.push(router.do_to(Target::Channel(name("news")), Action::Send(message)).await);
        // Wait for the slowest of the other members, because a reader that is only late must not count as stalled.
        while received.iter().any(|received| received.load(Ordering::Relaxed) + 20 < number) {
            if let Some(Err(error)) = readers.try_join_next() {
                panic!("a reader that reads was left behind: {error}");
            }
            tokio::task::yield_now().await;
        }
        if number % 100 == 0 {
            grown = grown.max(node.memory().saturating_sub(before));
        }
    }
    let mut others = Vec::new();
    while let Some(client) = readers.join_next().await {
        others.push(client.expect("the others got all of it"));
    }
    // The messages that all members may have in flight at once, one full outbox, and unused pages of the allocator.
    assert!(grown < 24 << 20, "memory grew by {grown} bytes");
    let receipts = sum(&receipts);
    let (late, closed) = drain(&mut late.receiver, &mut router, &receipts).await;
    Stalled { receipts, late, closed, node }
}

fn number_in(body: &[u8]) -> u32 {
    assert_eq!(body.len(), BODY);
    assert!(body[4..].iter().all(|b| *b == b'.'));
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

/// Reads all messages that were not dropped and one more after them; or up to the end of the connection.
async fn drain(receiver: &mut Receiver, router: &mut Router, receipts: &Receipt) -> (Vec<u32>, bool) {
    let dropped = receipts.dropped;
    // A closed session has lost its waiting messages, so the client reads to the end of the connection.
    let is_closed = dropped.close > 0;
    let left = ROUNDS - dropped.newest - dropped.oldest - dropped.latest;
    let mut numbers = Vec::new();
    while is_closed || (numbers.len() as u32) < left {
        match receiver.next().await {
            Some(Item::Frame(frame)) => numbers.push(number_in(&frame.body)),
            Some(_) => {}
            None => return (numbers, true),
        }
    }
    // Sent only now: before, the outbox might have been full, and a message to all has the app's rule, which is to close.
    let end = router.do_to(Target::All, Action::Send(Message::new("that is all"))).await;
    assert_eq!(end.refused, 0);
    assert_eq!(&receiver.frame().await.body[..], b"that is all");
    (numbers, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_rule_close_a_stalled_reader_is_closed() {
    let Stalled { receipts, late, closed, node } = publish_to_a_stalled_reader("close").await;
    assert!(closed);
    assert_eq!(receipts.dropped.close, 1);
    assert_eq!(
        late,
        (0..late.len() as u32).collect::<Vec<_>>(),
        "the bytes from the kernel's buffers must be in order"
    );
    let lines = node.closed(1);
    assert!(lines.iter().any(|line| line["reason"] == "slow_reader"), "{lines:?}");
    let pushed = |fate: &str| node.metric("longwire_pushes_total", &format!("fate=\"{fate}\""));
    assert_eq!(pushed("dropped_close"), 1.0);
    assert!(pushed("lost") > 0.0, "messages that were queued for it count as lost too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_rule_newest_a_stalled_reader_gets_the_first_messages() {
    let Stalled { receipts, late, closed, node } = publish_to_a_stalled_reader("newest").await;
    assert!(!closed);
    assert_eq!(late, (0..late.len() as u32).collect::<Vec<_>>());
    assert_eq!(late.len() as u32 + receipts.dropped.newest, ROUNDS);
    assert!(receipts.dropped.newest > 0);
    assert_eq!(node.metric("longwire_pushes_total", "fate=\"dropped_newest\""), f64::from(receipts.dropped.newest));
    assert_eq!((receipts.dropped.close, receipts.dropped.oldest, receipts.dropped.latest), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_rule_oldest_a_stalled_reader_gets_the_last_messages() {
    let Stalled { receipts, late, closed, node } = publish_to_a_stalled_reader("oldest").await;
    assert!(!closed);
    assert!(late.is_sorted() && late.ends_with(&(ROUNDS - 40..ROUNDS).collect::<Vec<_>>()), "{late:?}");
    assert_eq!(late.len() as u32 + receipts.dropped.oldest, ROUNDS);
    assert!(receipts.dropped.oldest > 0);
    assert_eq!(node.metric("longwire_pushes_total", "fate=\"dropped_oldest\""), f64::from(receipts.dropped.oldest));
    assert_eq!((receipts.dropped.close, receipts.dropped.newest, receipts.dropped.latest), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_rule_latest_a_stalled_reader_gets_the_last_message_of_each_key() {
    let Stalled { receipts, late, closed, node } = publish_to_a_stalled_reader("latest").await;
    assert!(!closed);
    let mut last: HashMap<u32, u32> = HashMap::new();
    late.iter().for_each(|number| _ = last.insert(number % KEYS, *number));
    assert!(late.is_sorted());
    assert_eq!(last.len(), KEYS as usize);
    assert!(last.values().all(|number| *number >= ROUNDS - KEYS), "{late:?}");
    assert_eq!(late.len() as u32 + receipts.dropped.latest, ROUNDS);
    assert_eq!(node.metric("longwire_pushes_total", "fate=\"dropped_latest\""), f64::from(receipts.dropped.latest));
    assert_eq!((receipts.dropped.close, receipts.dropped.newest, receipts.dropped.oldest), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_thousand_sessions_nothing_remains() {
    const ALIVE: usize = 500;
    const TURNS: usize = 200;
    // Each session is bound to a uid of its own and joins a channel of its own and a shared one.
    const GREET: &str = "$id = $_SERVER['SESSIONID']; header(\"Longwire-Uid: u$id\"); header(\"Longwire-Join: c$id, all\"); header('Longwire-Set: a=b'); echo 1;";
    let fpm = Pool::of(4).start();
    let node = Longwire::with(&fpm, &fpm.script("greet.php", GREET), "", "", LISTENERS);
    let mut resting = 0;
    for turn in 0..TURNS {
        let mut clients = JoinSet::new();
        for number in 0..ALIVE {
            let (tcp, web) = (node.address("length"), node.address("web"));
            clients.spawn(async move {
                let mut client = match number % 10 {
                    0 => Client::upgrade(web, "/ws", "").await,
                    _ => Client::connect(tcp, Framing::Length(LengthFraming::default())).await,
                };
                client.text("hello").await;
                client.frame().await;
                client
            });
        }
        let clients = clients.join_all().await;
        if turn == 0 {
            assert_eq!(node.metric("longwire_channels", ""), 501.0);
            assert_eq!(node.metric("longwire_uids", ""), 500.0);
        }
        // All disconnect with a reset at once, as clients do on a train that leaves the station.
        clients.into_iter().for_each(Client::reset);
        // Tables keep their largest size. Wait until these sessions are gone before the next ones come, so that no turn has more at once.
        eventually("all are gone", || node.metric("longwire_sessions", "") == 0.0).await;
        if turn == TURNS / 2 {
            resting = node.settled_memory().await;
        }
    }
    assert_eq!(node.metric("longwire_sessions_opened_total", ""), (ALIVE * TURNS) as f64);
    assert_eq!(node.metric("longwire_channels", "") + node.metric("longwire_uids", ""), 0.0);
    let after = node.settled_memory().await;
    assert!(after < resting + resting / 10, "{resting} bytes became {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_leaves_is_out_of_its_channel_before_its_close_event_runs() {
    const HANDLER: &str = r#"
        if ($_SERVER['LONGWIRE_EVENT'] === 'close') { sleep(1); exit; }
        header('Longwire-Join: room'); header('Longwire-Uid: 42'); echo 1;"#;
    let fpm = Pool::of(2).start();
    let node = Longwire::with(&fpm, &fpm.script("handler.php", HANDLER), "events = [\"close\"]", "", LISTENERS);
    let mut client = client(&node, 0).await;
    client.text("").await;
    client.frame().await;
    until_members(&node, "room", 1).await;
    let mut router = Router::connect(node.address("router"), "").await;
    assert_eq!(router.publish("room", "x").await.reached, 1);
    client.reset();
    eventually("it is out of the channel", || node.metric("longwire_channels", "") == 0.0).await;
    assert_eq!(node.metric("longwire_upstream_requests_total", "event=\"close\""), 0.0, "its close event still runs");
    assert_eq!(router.publish("room", "x").await, Receipt::default());
    assert_eq!(router.do_to(Target::Uid(name("42")), Action::Touch).await, Receipt::default());
}
