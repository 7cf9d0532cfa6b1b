//! The router port, byte by byte: the frames of both protocols, and invalid bytes. `auth.rs` has the handshake, `load.rs` the load tests.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use longwire::proto::command::{Action, AttributeKey, Command, Except, Expect, Message, Page, Query, Target};
use longwire::proto::control::Frame;
use longwire::proto::control::long::{Operation, RouterAnswer, RouterRequest};
use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::http::request_with;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::{Router, name, session};

/// A handler that answers with the session's id.
const HANDLER: &str = "echo $_SERVER['SESSIONID'];";

/// The session ids in tests/vectors/router.json.
const IDS: [&str; 3] = ["AAAN5xSVtmv6fR3q", "AAAN5zXuM1vl2aFa", "BBBBBBBBBBBBBBBB"];

fn node(fpm: &PhpFpm, more: &str) -> Longwire {
    Longwire::with(fpm, &fpm.script("handler.php", HANDLER), "", "", &format!("{LISTENERS}{more}"))
}

async fn tcp(node: &Longwire) -> (Client, String) {
    let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    let sid = client.ask("?").await;
    (client, sid)
}

async fn websocket(node: &Longwire) -> (Client, String) {
    let mut client = Client::upgrade(node.address("web"), "/ws", "").await;
    let sid = client.ask("?").await;
    (client, sid)
}

/// A section of the examples.
fn examples(section: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/router.json");
    let text = std::fs::read_to_string(file).expect("it is there");
    let vectors: Value = serde_json::from_str(&text).expect("it is JSON");
    vectors[section].as_array().expect("a section is a list").clone()
}

fn example(section: &str, name: &str) -> Vec<u8> {
    let examples = examples(section);
    unhex(
        examples.iter().find(|example| example["name"] == name).expect("there is this example")["hex"]
            .as_str()
            .unwrap(),
    )
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).expect("hex")).collect()
}

/// An example of the short protocol in which these session ids replace the first ids.
fn order(name: &str, sids: &[&str]) -> Vec<u8> {
    let mut bytes = example("short", name);
    for (theirs, ours) in IDS.iter().zip(sids) {
        while let Some(at) = bytes.windows(16).position(|window| window == theirs.as_bytes()) {
            bytes[at..at + 16].copy_from_slice(ours.as_bytes());
        }
    }
    bytes
}

/// The bytes of a frame of the short protocol.
fn short(kind: u16, head: &[u8], body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    Frame::encode(kind, head, body, &mut out);
    out
}

/// The answer to `info` for a node of this number. In a run with two nodes, the sessions are on the other one.
fn info(node: &Longwire, number: u16, sessions: usize, channels: usize) -> BytesMut {
    let lines = match node.number_with_sessions() {
        None => format!("gateway: {number}\t0\t{sessions}\t{channels}\r\n"),
        Some(other) => format!("gateway: {number}\t0\t0\t0\r\ngateway: {other}\t0\t{sessions}\t{channels}\r\n"),
    };
    short(12, b"", format!("clients: {sessions}\r\nchannels: {channels}\r\n{lines}").as_bytes())
}

/// How orders are sent to the port. The result must be the same for all.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// One connection, one write for each order.
    Together,
    /// One connection, a write for every byte.
    Bytes,
    /// A connection for each order, closed right after it, as fooking's clients do.
    Apart,
}

/// Sends orders in one of these ways.
async fn leave(node: &Longwire, way: Way, orders: &[Vec<u8>]) {
    let mut together = Router::bare(node.address("router")).await;
    for order in orders {
        match way {
            Way::Together => together.bytes(order).await,
            Way::Bytes => {
                for byte in order.chunks(1) {
                    together.bytes(byte).await;
                }
            }
            Way::Apart => Router::bare(node.address("router")).await.bytes(order).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_the_short_protocol_however_its_bytes_arrive() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    for way in [Way::Together, Way::Bytes, Way::Apart] {
        let (mut one, first) = tcp(&node).await;
        let (mut two, second) = websocket(&node).await;
        let sids = [first.as_str(), second.as_str()];
        let orders = [
            order("send to one", &sids),
            order("send to two", &sids),
            order("send binary", &[&second]),
            order("channel add", &sids),
            order("publish to the longest name", &sids),
            order("channel add, two", &sids),
            short(9, b"room", b"in room").to_vec(),
            short(9, b"room:1", b"in room:1").to_vec(),
            order("channel del", &sids),
            order("publish", &sids),
            order("channel add, a name in GBK", &[&second]),
            short(9, b"\xb7\xbf\xbc\xe4", b"gbk").to_vec(),
            order("send to all", &sids),
            order("kick three", &sids),
        ];
        leave(&node, way, &orders).await;
        for expected in ["hi", "grüß", "in room", "in room:1", "hi all"] {
            assert_eq!(&one.frame().await.body[..], expected.as_bytes(), "{way:?}");
        }
        assert_eq!(one.end().await, None, "TCP has no code");
        for (kind, expected) in [
            (FrameKind::Text, "grüß".as_bytes()),
            (FrameKind::Binary, b"\x00\xff\xfe"),
            (FrameKind::Text, b"in room:1"),
            (FrameKind::Text, b"gbk"),
            (FrameKind::Text, b"hi all"),
        ] {
            let frame = two.frame().await;
            assert_eq!((frame.kind, &frame.body[..]), (kind, expected), "{way:?}");
        }
        assert_eq!(two.end().await, Some(1000));
    }
    assert_eq!(node.metric("longwire_commands_refused_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn info_is_answered_to_the_byte_and_between_other_orders() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "[node]\nnumber = 3\n");
    let (_one, first) = tcp(&node).await;
    let (_two, _) = websocket(&node).await;
    let mut router = Router::bare(node.address("router")).await;
    let orders = [order("channel add", &[&first]), example("short", "info"), order("channel del", &[&first])].concat();
    router.bytes(&orders).await;
    router.bytes(&example("short", "info with what has no meaning")).await;
    let expected = [info(&node, 3, 2, 1), info(&node, 3, 2, 0)].concat();
    assert_eq!(router.read(expected.len()).await, expected);
    router.finish().await;
    assert_eq!(router.frame().await, None, "nothing else is answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_orders_on_one_connection_and_a_thousand_connections_with_one() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let reader = tokio::spawn(async move {
        for number in 0..10_000_u32 {
            assert_eq!(client.frame().await.body[..], number.to_be_bytes());
        }
        let mut seen = HashMap::new();
        for _ in 0..1000 {
            *seen.entry(client.frame().await.body).or_insert(0) += 1;
        }
        (client, seen)
    });
    let mut router = Router::bare(node.address("router")).await;
    for number in 0..10_000_u32 {
        router.bytes(&short(5, sid.as_bytes(), &number.to_be_bytes())).await;
    }
    // All orders of the first connection are done before the other connections begin.
    router.bytes(&example("short", "info")).await;
    assert_eq!(router.frame().await.expect("it is answered").kind, 12);
    // Some connections end without reading their answers, as PHP does at the end of a script.
    for number in 0..1000_u32 {
        let mut router = Router::bare(node.address("router")).await;
        router.bytes(&short(5, sid.as_bytes(), &number.to_be_bytes())).await;
        if number % 2 == 0 {
            router.finish().await;
            assert_eq!(router.frame().await, None);
        }
    }
    let (_client, seen) = reader.await.expect("all come");
    assert_eq!(seen.len(), 1000, "each came once");
    eventually("no connection remains but the first", || node.metric("longwire_router_connections", "") == 1.0).await;
}

/// A client like fooking's: a connection for each command, which PHP closes when the next one replaces it. Every tenth command is longer
/// than one read, and every fifth joins a channel to which the next one publishes.
const A_CONNECTION_EACH: &str = r#"
[, $address, $sid] = $argv;
function order($address, $type, $head, $body) {
    static $socket;
    $socket = stream_socket_client($address);
    fwrite($socket, pack('nnN', $type, strlen($head), strlen($body)) . $head . $body);
}
for ($number = 0; $number < 600; $number++) {
    $body = $number . ($number % 10 === 0 ? str_repeat('.', 40000) : '');
    if ($number % 5 === 0) {
        order($address, 7, $sid, "room $number");
        order($address, 9, "room $number", $body);
    } else {
        order($address, 5, $sid, $body);
    }
}
"#;

async fn expect_in_order(client: &mut Client) {
    for number in 0..600 {
        let frame = client.frame().await.body;
        let text = String::from_utf8_lossy(&frame);
        assert_eq!(text.trim_end_matches('.'), number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_with_a_connection_each_are_done_in_the_order_of_the_connections() {
    let fpm = Pool::of(2).start();
    let path = fpm.dir().join("router.sock");
    fpm.script("orders.php", A_CONNECTION_EACH);
    let more = "outbox_bytes = \"16 MiB\"";
    let handler = fpm.script("handler.php", HANDLER);
    for (bind, address) in [("127.0.0.1:0".to_owned(), None), (format!("unix:{}", path.display()), Some(&path))] {
        let router =
            format!("{LISTENERS}[node]\nthreads = 4\n[router]\nbind = \"{bind}\"\nmax_channels_per_session = 1000\n");
        let node = Longwire::with(&fpm, &handler, more, "", &router);
        let (mut client, sid) = tcp(&node).await;
        let address = match address {
            None => format!("tcp://{}", node.address("router")),
            Some(path) => format!("unix://{}", path.display()),
        };
        // Silent connections, and one that is kept open between two commands, must not delay others.
        let _silent = match bind.starts_with("unix:") {
            true => [Router::unix(&path).await, Router::unix(&path).await],
            false => [Router::bare(node.address("router")).await, Router::bare(node.address("router")).await],
        };
        let orders = tokio::process::Command::new("php")
            .args([&fpm.dir().join("orders.php").display().to_string(), &address, &sid])
            .kill_on_drop(true)
            .spawn()
            .expect("php is installed");
        expect_in_order(&mut client).await;
        assert!(orders.wait_with_output().await.expect("it ends").status.success());
    }
}

/// Whether TCP keep-alive is on for a node's connection (`timer_active` in proc_net_tcp(5)).
fn is_kept_alive(local: u16, remote: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let ends = format!("0100007F:{local:04X} 0100007F:{remote:04X} 01 ");
    let line = table.lines().find(|line| line.contains(&ends)).expect("it is connected");
    line.split_whitespace().nth(5).is_some_and(|timer| timer.starts_with("02:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_looks_after_connections_that_are_silent_for_long() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let router = node.address("router");
    let mut kept = TcpStream::connect(router).await.expect("it listens");
    kept.write_all(&short(5, sid.as_bytes(), b"first")).await.unwrap();
    assert_eq!(&client.frame().await.body[..], b"first");
    assert!(is_kept_alive(router.port(), kept.local_addr().unwrap().port()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_command_holds_up_later_connections_once_and_not_for_long() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let order = |body: &[u8]| short(5, sid.as_bytes(), body);
    let mut half = Router::bare(node.address("router")).await;
    let first = order(b"first");
    half.bytes(&first[..20]).await;
    let begun = Instant::now();
    let mut done = Vec::new();
    for number in 0..5 {
        Router::bare(node.address("router")).await.bytes(&order(number.to_string().as_bytes())).await;
        assert_eq!(&client.frame().await.body[..], number.to_string().as_bytes());
        done.push(begun.elapsed());
    }
    // The first command waited for the incomplete one. After the timeout the others did not wait.
    assert!(done[0] >= Duration::from_millis(900), "{done:?}");
    assert!(done[4] - done[0] < Duration::from_millis(900), "{done:?}");
    // The incomplete frame can still be completed.
    half.bytes(&first[20..]).await;
    assert_eq!(&client.frame().await.body[..], b"first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_short_protocol_refuses_ends_its_connection_and_nothing_else() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let mut counts: HashMap<String, f64> = HashMap::new();
    for refused in examples("short_refused") {
        let word = refused["error"].as_str().expect("a word").to_owned();
        let mut router = Router::bare(node.address("router")).await;
        let bytes = unhex(refused["hex"].as_str().expect("hex"));
        // Orders before the invalid one are done, those after it are not.
        let orders =
            [&short(5, sid.as_bytes(), b"before")[..], &bytes, &short(5, sid.as_bytes(), b"behind")[..]].concat();
        router.bytes(&orders).await;
        assert_eq!(router.frame().await, None, "{refused}");
        assert_eq!(&client.frame().await.body[..], b"before", "{refused}");
        *counts.entry(word).or_default() += 1.0;
    }
    for (word, count) in counts {
        let labels = format!("door=\"short\",cause=\"{word}\"");
        eventually("it is counted", || node.metric("longwire_commands_refused_total", &labels) == count).await;
        let lines = || node.log_lines(|line| line["cause"] == word.as_str() && line["level"] == "WARN");
        eventually("it is logged", || lines().len() as f64 == count).await;
    }
    assert_eq!(client.ask("?").await, sid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_long_protocol_refuses_is_answered_with_its_number_and_only_bad_frames_end_it() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    for refused in examples("refused") {
        let mut router = Router::connect(node.address("router"), "").await;
        router.bytes(&unhex(refused["hex"].as_str().expect("hex"))).await;
        let request = refused["request"].as_u64().map(|number| number as u32);
        let word = refused["error"].as_str().expect("a word");
        assert_eq!(router.error().await, (word.to_owned(), request), "{refused}");
        if word == "bad_frame" {
            assert_eq!(router.frame().await, None, "{refused}");
        } else {
            assert_eq!(router.json(Query::Node).await["sessions"], 0, "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_lengths_that_nobody_sends_get_an_error_and_the_end() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let too_long = |kind: u16| [&kind.to_be_bytes()[..], &[0, 0, 0xFF, 0xFF, 0xFF, 0xFF]].concat();
    for bytes in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), vec![0xFF; 4096], vec![0; 64], too_long(0x4C01)] {
        let mut router = Router::bare(node.address("router")).await;
        router.bytes(&bytes).await;
        assert_eq!(router.error().await, ("bad_frame".to_owned(), None), "{bytes:?}");
        assert_eq!(router.frame().await, None);
    }
    // A client of the short protocol gets no errors, because it would take one for the answer to `info`.
    let mut old = Router::bare(node.address("router")).await;
    old.bytes(&too_long(6)).await;
    assert_eq!(old.frame().await, None);
    // An invalid frame after valid ones.
    let mut router = Router::connect(node.address("router"), "").await;
    router.bytes(&too_long(0x4C10)).await;
    assert_eq!(router.error().await, ("bad_frame".to_owned(), None));
    assert_eq!(router.frame().await, None);
    assert_eq!(client.ask("?").await, sid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_and_query_of_the_long_protocol() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "[node]\nname = \"edge-1\"\n");
    let (mut one, first) = tcp(&node).await;
    let (mut two, second) = websocket(&node).await;
    let both = || Target::Sessions(vec![session(&first), session(&second)]);
    let mut router = Router::connect(node.address("router"), "").await;
    let done = |receipt: longwire::proto::command::Receipt| (receipt.reached, receipt.refused, receipt.gone);

    assert_eq!(done(router.do_to(both(), Action::Bind(name("42"))).await), (2, 0, 0));
    assert_eq!(done(router.do_to(both(), Action::Join(name("room"))).await), (2, 0, 0));
    assert_eq!(done(router.do_to(Target::session(session(&first)), Action::Join(name("hall"))).await), (1, 0, 0));
    let key = AttributeKey::new(b"role").expect("a key");
    let set = |value: &'static str, expect| Action::Set { key: key.clone(), value: value.into(), expect };
    let one_alone = || Target::session(session(&first));
    assert_eq!(done(router.do_to(one_alone(), set("guest", Expect::Absent)).await), (1, 0, 0));
    assert_eq!(done(router.do_to(one_alone(), set("admin", Expect::Absent)).await), (0, 1, 0));
    assert_eq!(done(router.do_to(one_alone(), set("admin", Expect::Value("guest".into()))).await), (1, 0, 0));
    let attribute = || Query::Attribute(session(&first), key.clone());
    assert!(matches!(router.ask(attribute()).await, RouterAnswer::Result { body, .. } if &body[..] == b"admin"));

    let known = router.json(Query::Session(session(&first))).await;
    assert_eq!(known["uid"], "42");
    assert_eq!(known["attributes"]["role"], "admin");
    assert_eq!(known["framing"], "length");
    let in_room = router.json(Query::Channel(name("room"), Page::default())).await;
    assert_eq!((&in_room["count"], in_room["sessions"].as_array().map(Vec::len)), (&2.into(), Some(2)));
    let of_uid = router.json(Query::Uid(name("42"), Page { after: None, limit: 0 })).await;
    assert_eq!((&of_uid["count"], of_uid["sessions"].as_array().map(Vec::len)), (&2.into(), Some(0)));
    let first_page = router.json(Query::Channels(Page { after: None, limit: 1 })).await;
    let next = first_page["next"].as_str().expect("the list goes on");
    let page = Page { after: Some(next.as_bytes().into()), limit: 1 };
    let second_page = router.json(Query::Channels(page)).await;
    let channels = [&first_page, &second_page].map(|page| page["channels"][0]["channel"].as_str().unwrap().to_owned());
    assert_eq!((channels, &second_page["next"]), (["hall".to_owned(), "room".to_owned()], &Value::Null));
    assert_eq!(router.json(Query::Sessions(Page::default())).await["count"], 2);
    assert_eq!(router.json(Query::Node).await["node"], "edge-1");

    // Exclude the members of `hall`, which is the first session.
    let except = Except { channels: vec![name("hall")], ..Except::default() };
    let send = Action::Send(Message::new("to the rest"));
    let receipt = router.run(Command { to: Target::Uid(name("42")), except, action: send }).await;
    assert_eq!(done(receipt), (1, 0, 0));
    assert_eq!(&two.frame().await.body[..], b"to the rest");

    assert_eq!(done(router.do_to(one_alone(), Action::Delete(key.clone())).await), (1, 0, 0));
    assert!(matches!(router.ask(attribute()).await, RouterAnswer::Absent { .. }));
    assert_eq!(done(router.do_to(both(), Action::Leave(name("room"))).await), (2, 0, 0));
    assert_eq!(router.publish("room", "nobody is there").await, Default::default());
    assert_eq!(done(router.do_to(both(), Action::Unbind).await), (2, 0, 0));
    let last = Some(Message::new("bye"));
    assert_eq!(done(router.do_to(both(), Action::Close { code: 4001, text: "late".into(), last }).await), (2, 0, 0));
    assert_eq!(&one.frame().await.body[..], b"bye");
    assert_eq!(&two.frame().await.body[..], b"bye");
    assert_eq!((one.end().await, two.end().await), (None, Some(4001)));
    node.closed(2);
    assert_eq!(done(router.do_to(both(), Action::Touch).await), (0, 0, 2));
    assert!(matches!(router.ask(Query::Session(session(&first))).await, RouterAnswer::Absent { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_answered_in_its_order_and_whoever_reads_no_answers_is_not_read() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (_client, sid) = tcp(&node).await;
    let mut router = Router::connect(node.address("router"), "").await;
    let exists = || Operation::Command(Command::new(Target::session(session(&sid)), Action::Touch));
    let mut numbers = Vec::new();
    for _ in 0..5000 {
        numbers.push(router.start(exists()).await);
    }
    for number in numbers {
        assert_eq!(router.receipt(number).await.reached, 1);
    }

    // Answers of 1 KB and more that the client does not read. The port must stop reading when its buffers and the kernel's are full.
    let mut greedy = Router::connect(node.address("router"), "").await;
    let before = node.memory();
    let writer = async {
        loop {
            greedy.start(Operation::Query(Query::Node)).await;
        }
    };
    let stuck = async {
        let mut last = 0.0;
        loop {
            // The writer goes on meanwhile.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = node.metric("longwire_commands_total", "command=\"query\"");
            if std::mem::replace(&mut last, now) == now && now > 0.0 {
                return;
            }
        }
    };
    tokio::select! {
        () = writer => unreachable!("it never ends"),
        stopped = tokio::time::timeout(Duration::from_secs(60), stuck) => stopped.expect("the port stops reading"),
    }
    assert!(node.memory() < before + (16 << 20), "from {before} to {}", node.memory());
    assert_eq!(router.do_to(Target::session(session(&sid)), Action::Touch).await.reached, 1, "others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_sent_in_one_go_keep_their_order_among_other_commands_and_each_has_its_receipt() {
    const EACH: usize = 150;
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut early, early_sid) = tcp(&node).await;
    let (mut late, late_sid) = websocket(&node).await;
    let mut router = Router::connect(node.address("router"), "").await;
    let to = |sid: &str| Target::session(session(sid));
    let join = |sid: &str| Command::new(to(sid), Action::Join(name("news")));
    let news = |number: usize| {
        Command::new(Target::Channel(name("news")), Action::Send(Message::new(format!("news {number}"))))
    };
    let mut commands = vec![join(&early_sid)];
    commands.extend((0..EACH).map(news));
    commands.push(join(&late_sid));
    commands.extend((EACH..2 * EACH).map(news));
    // Messages to other sessions in between keep their place, and one to an unknown session reaches none.
    commands.push(Command::new(to(&early_sid), Action::Send(Message::new("for you"))));
    commands.push(Command::new(to(IDS[0]), Action::Send(Message::new("nobody"))));
    commands.extend((2 * EACH..3 * EACH).map(news));
    let numbers = router.start_all(commands).await;
    let mut counts = Vec::new();
    for number in numbers {
        let receipt = router.receipt(number).await;
        counts.push((receipt.reached + receipt.queued, receipt.gone));
    }
    let mut expected = vec![(1, 0); 2 + EACH];
    expected.extend([(2, 0)].repeat(EACH));
    expected.extend([(1, 0), (0, 1)]);
    expected.extend([(2, 0)].repeat(EACH));
    assert_eq!(counts, expected);
    for number in 0..3 * EACH {
        if number == 2 * EACH {
            assert_eq!(&early.frame().await.body[..], b"for you");
        }
        assert_eq!(early.frame().await.body, format!("news {number}"));
    }
    for number in EACH..3 * EACH {
        assert_eq!(late.frame().await.body, format!("news {number}"));
    }

    // Commands before an invalid one are done and answered before the connection is closed.
    let mut wrong = Router::connect(node.address("router"), "").await;
    let numbers = wrong.start_all((0..3).map(news)).await;
    wrong.bytes(b"\0\0 no frame at all \0\0\0\0\0\0\0\0").await;
    for number in numbers {
        assert_eq!(wrong.receipt(number).await.reached, 2);
    }
    assert_eq!(wrong.error().await, ("bad_frame".to_owned(), None));
    for number in 0..3 {
        assert_eq!(early.frame().await.body, format!("news {number}"));
    }
}

/// Number of data segments that a socket has received (`tcpi_data_segs_in` of `TCP_INFO`, which libc's struct does not have yet).
fn data_segments(socket: &TcpStream) -> u32 {
    const AT: usize = 152;
    let (mut info, mut len) = ([0_u8; 256], 256);
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to the pointer.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    assert!(result == 0 && len as usize >= AT + 4, "{len} bytes");
    u32::from_ne_bytes(info[AT..AT + 4].try_into().expect("four bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_one_go_is_answered_in_one_go() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "");
    let mut socket = TcpStream::connect(node.address("router")).await.expect("it listens");
    let mut hello = BytesMut::new();
    Frame::encode(0x4C01, &[&[1, 0, 1, 1, 2, 0, 32][..], &[9; 32]].concat(), b"", &mut hello);
    socket.write_all(&hello).await.expect("it reads");
    let mut answers = BytesMut::new();
    let mut read = async |socket: &mut TcpStream, count: usize| {
        for _ in 0..count {
            while Frame::decode(&mut answers, 1 << 20).expect("the port is right").is_none() {
                assert!(socket.read_buf(&mut answers).await.expect("it answers") > 0, "it ended");
            }
        }
    };
    read(&mut socket, 2).await;
    for (count, bytes) in [(1, 10), (20, 10), (2, 400), (100, 400)] {
        let mut batch = BytesMut::new();
        for number in 0..count {
            let news = Command::new(Target::Channel(name("news")), Action::Send(Message::new("x".repeat(bytes))));
            RouterRequest { number, operation: Operation::Command(news) }.encode(&mut batch);
        }
        let before = data_segments(&socket);
        socket.write_all(&batch).await.expect("it reads");
        read(&mut socket, count as usize).await;
        assert_eq!(data_segments(&socket) - before, 1, "{count} messages of {bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_on_their_way_share_one_bound_and_small_ones_do_not_wait_for_them() {
    const LARGE: usize = 15 << 20;
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "");
    let before = node.memory();
    // An almost complete frame on each of forty connections. Bytes that the node does not read wait in the kernel and in the clients.
    let order = short(6, b"", &vec![b'x'; LARGE]);
    let almost = order.freeze().slice(..LARGE - 1000);
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let (address, almost) = (node.address("router"), almost.clone());
            tokio::spawn(async move {
                let mut socket = TcpStream::connect(address).await.expect("it listens");
                socket.write_all(&almost).await.expect("it reads");
                std::future::pending::<()>().await;
            })
        })
        .collect();
    let mut last = 0;
    eventually("as much is read as there is room for", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = node.memory();
        std::mem::replace(&mut last, now) == now && now > before + 2 * LARGE
    })
    .await;
    let grown = node.memory() - before;
    println!("40 messages of 15 MiB: memory grew by {grown}");
    assert!(grown < 100 << 20, "memory grew by {grown}");
    // Other clients go on: a small command at once, and a large one when a connection has been closed.
    let mut small = Router::connect(node.address("router"), "").await;
    assert_eq!(small.do_to(Target::All, Action::Touch).await.reached, 0);
    let api = node.address("api");
    let posted = tokio::spawn(async move {
        let kind = "Content-Type: text/plain\r\nHost: localhost\r\n";
        request_with(api, "POST", "/v1/send?to=all", kind, &vec![b'x'; LARGE]).await.expect("it is answered").status
    });
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(posted.await.expect("no panic"), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_speaks_both_protocols() {
    let fpm = Pool::of(2).start();
    let path = fpm.dir().join("router.sock");
    let node = node(&fpm, &format!("[router]\nbind = \"unix:{}\"\n", path.display()));
    let (mut client, sid) = tcp(&node).await;
    Router::unix(&path).await.bytes(&short(5, sid.as_bytes(), b"old")).await;
    assert_eq!(&client.frame().await.body[..], b"old");
    let mut router = Router::unix(&path).await;
    router.greet("").await.expect("no secret is asked for");
    let receipt = router.do_to(Target::session(session(&sid)), Action::Send(Message::new("new"))).await;
    assert_eq!((receipt.reached, &client.frame().await.body[..]), (1, &b"new"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_command_is_not_done_and_somebody_knows() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = tcp(&node).await;
    let mut old = Router::bare(node.address("router")).await;
    let whole = short(5, sid.as_bytes(), b"whole");
    old.bytes(&[&whole[..], &whole[..whole.len() - 1]].concat()).await;
    old.finish().await;
    assert_eq!(old.frame().await, None);
    let labels = "door=\"short\",cause=\"truncated\"";
    eventually("it is counted", || node.metric("longwire_commands_refused_total", labels) == 1.0).await;

    let mut router = Router::connect(node.address("router"), "").await;
    router.bytes(&example("requests", "node")[..9]).await;
    router.finish().await;
    assert_eq!(router.error().await, ("bad_frame".to_owned(), None));
    assert_eq!(&client.frame().await.body[..], b"whole");
    assert_eq!(client.ask("?").await, sid, "no other frame comes before it");
}

/// The lines of an example: whether the client sends it, and the bytes.
fn exchange(section: &str, number: usize) -> Vec<(bool, Vec<u8>)> {
    let page = include_str!("../../../docs/router-protocol.md");
    let (_, below) = page.split_once(&format!("\n## {section}\n")).expect("the page has the section");
    let block = below.split("```text\n").nth(number).expect("the section has the example");
    let lines = block.split("```").next().expect("split gives one piece at least").lines();
    lines
        .map(|line| {
            let (who, hex) = line.split_once(": ").expect("a line begins with its sender");
            (who == "client", unhex(hex))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_of_the_protocols_page_are_what_is_said() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "[node]\nname = \"edge-1\"\n");
    // The server's nonce in the example on the page.
    let nonce: Vec<u8> = (0x40..0x60).collect();
    for number in [1, 2] {
        let mut router = Router::bare(node.address("router")).await;
        for (by_client, mut bytes) in exchange("Examples", number) {
            if by_client {
                router.bytes(&bytes).await;
                continue;
            }
            if bytes.starts_with(&[0, 12]) && node.number_with_sessions().is_some() {
                // The node in the example is alone.
                bytes = info(&node, 0, 0, 0).to_vec();
            }
            let answered = router.read(bytes.len()).await;
            if let Some(at) = bytes.windows(32).position(|window| window == nonce) {
                bytes[at..at + 32].copy_from_slice(&answered[at..at + 32]);
            }
            assert_eq!(answered, bytes, "example {number}");
        }
    }
}
