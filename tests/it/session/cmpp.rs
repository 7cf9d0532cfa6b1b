//! The CMPP example and the heartbeat. The client here is written from the published packet layout (CMPP 2.0) and shares no code with
//! the PHP side or with Longwire.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use md5::{Digest, Md5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::longwire::Longwire;
use crate::support::php_fpm::{Pool, eventually};

const CONNECT: u32 = 1;
const TERMINATE: u32 = 2;
const SUBMIT: u32 = 4;
const DELIVER: u32 = 5;
const ACTIVE_TEST: u32 = 8;
const RESP: u32 = 0x8000_0000;

/// The first sequence number of the heartbeat's probes, as in the example's configuration.
const FIRST_PROBE: u32 = 0x8000_0000;

/// Longest wait for a packet.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/cmpp")
}

/// The example's own configuration on a free port, with the given lines replaced.
fn configuration(changes: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(folder().join("longwire.toml")).expect("the example has one");
    let script = format!("script = {:?}", folder().join("handler.php"));
    let own = [("127.0.0.1:7890", "127.0.0.1:0"), ("script = \"handler.php\"", script.as_str())];
    own.iter().chain(changes).fold(text, |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from} must be in the example's configuration exactly once");
        text.replace(from, to)
    })
}

fn gateway(changes: &[(&str, &str)]) -> Longwire {
    Longwire::serve(&configuration(changes))
}

/// The example's gateway with probes that come early, and with a timeout for answers that is long enough for a slow machine.
fn probing_gateway(changes: &[(&str, &str)]) -> Longwire {
    let soon = [("after = \"60s\"", "after = \"200ms\""), ("every = \"60s\"", "every = \"2s\"")];
    gateway(&[&soon, changes].concat())
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    command: u32,
    sequence: u32,
    body: Vec<u8>,
}

fn packet(command: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [12 + body.len() as u32, command, sequence] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A text, padded to a field of fixed size.
fn field(text: &str, size: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    assert!(bytes.len() <= size);
    bytes.resize(size, 0);
    bytes
}

struct Login<'a> {
    account: &'a str,
    secret: &'a str,
    version: u8,
}

const LOGIN: Login<'_> = Login { account: "901234", secret: "open sesame", version: 0x20 };

impl Login<'_> {
    fn authenticator(&self, timestamp: u32) -> [u8; 16] {
        let mut hash = Md5::new();
        hash.update(self.account);
        hash.update([0; 9]);
        hash.update(self.secret);
        hash.update(format!("{timestamp:010}"));
        hash.finalize().into()
    }

    fn body(&self, timestamp: u32) -> Vec<u8> {
        let mut body = field(self.account, 6);
        body.extend_from_slice(&self.authenticator(timestamp));
        body.push(self.version);
        body.extend_from_slice(&timestamp.to_be_bytes());
        body
    }
}

struct Submit<'a> {
    to: &'a [&'a str],
    format: u8,
    content: &'a [u8],
    wants_report: bool,
}

impl Submit<'_> {
    fn body(&self) -> Vec<u8> {
        let mut body = vec![0; 8]; // Msg_Id is the gateway's
        body.extend_from_slice(&[1, 1, u8::from(self.wants_report), 0]);
        body.extend(field("WEATHER", 10));
        body.push(0);
        body.extend(field("", 21));
        body.extend_from_slice(&[0, 0, self.format]);
        body.extend(field("901234", 6));
        body.extend(field("01", 2));
        body.extend(field("000010", 6));
        body.extend(field("", 17));
        body.extend(field("", 17));
        body.extend(field("10086", 21));
        body.push(self.to.len() as u8);
        for number in self.to {
            body.extend(field(number, 21));
        }
        body.push(self.content.len() as u8);
        body.extend_from_slice(self.content);
        body.extend_from_slice(&[0; 8]);
        body
    }
}

struct Client(TcpStream);

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("a TCP socket");
        Self(socket)
    }

    async fn logged_in(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.send(CONNECT, 1, &LOGIN.body(726_120_000)).await;
        let answer = client.packet().await;
        assert_eq!((answer.command, answer.sequence, answer.body[0]), (CONNECT | RESP, 1, 0));
        client
    }

    async fn send(&mut self, command: u32, sequence: u32, body: &[u8]) {
        self.bytes(&packet(command, sequence, body)).await;
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("it reads");
    }

    /// The next packet, which must come.
    async fn packet(&mut self) -> Packet {
        self.next().await.expect("a packet comes before the end")
    }

    /// The next packet, or `None` when the gateway has closed.
    async fn next(&mut self) -> Option<Packet> {
        timeout(PATIENCE, self.read()).await.expect("a packet or the end comes in time")
    }

    async fn read(&mut self) -> Option<Packet> {
        let mut header = [0; 12];
        self.0.read_exact(&mut header).await.ok()?;
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let mut body = vec![0; (number(0) as usize).checked_sub(12).expect("a length counts its header")];
        self.0.read_exact(&mut body).await.expect("a packet is whole");
        Some(Packet { command: number(4), sequence: number(8), body })
    }

    /// The next packet that is not a probe of the gateway; probes before it are answered.
    async fn packet_answering(&mut self) -> Packet {
        loop {
            let packet = self.packet().await;
            if packet.command != ACTIVE_TEST {
                return packet;
            }
            self.send(ACTIVE_TEST | RESP, packet.sequence, &[0]).await;
        }
    }
}

/// Waits until PHP has answered this many events, and checks that there were no more.
async fn php_was_woken(node: &Longwire, times: f64) {
    let answered = || node.metric("longwire_upstream_requests_total", "outcome=\"done\"");
    eventually("PHP has answered", || answered() >= times).await;
    assert_eq!((answered(), node.metric("longwire_frames_in_total", "")), (times, times));
}

#[tokio::test]
async fn a_login_is_proved_in_both_directions_and_refused_with_the_reason() {
    let node = gateway(&[]);
    let address = node.address("cmpp");
    let timestamp = 102_030_405; // January 2nd: the ten digits begin with 0
    let mut client = Client::connect(address).await;
    client.send(CONNECT, 7, &LOGIN.body(timestamp)).await;
    let answer = client.packet().await;
    let mut proof = Md5::new();
    proof.update([0]);
    proof.update(LOGIN.authenticator(timestamp));
    proof.update(LOGIN.secret);
    let expected = [&[0][..], &proof.finalize(), &[0x20]].concat();
    assert_eq!(answer, Packet { command: CONNECT | RESP, sequence: 7, body: expected });

    let refused = [
        (LOGIN.body(timestamp)[..26].to_vec(), 1),
        (Login { account: "111111", ..LOGIN }.body(timestamp), 2),
        (Login { secret: "open barley", ..LOGIN }.body(timestamp), 3),
        (Login { version: 0x30, ..LOGIN }.body(timestamp), 4),
        (Login { version: 0x12, ..LOGIN }.body(timestamp), 5),
    ];
    for (body, status) in refused {
        let mut stranger = Client::connect(address).await;
        stranger.send(CONNECT, 9, &body).await;
        let answer = stranger.packet().await;
        assert_eq!((answer.command, answer.sequence, answer.body[0]), (CONNECT | RESP, 9, status));
        assert_eq!(answer.body[1..17], [0; 16], "status {status}: a refused client gets no authenticator");
        assert_eq!(stranger.next().await, None, "status {status} ends the session");
    }
    // A client that has not logged in may send nothing else.
    let mut stranger = Client::connect(address).await;
    stranger.send(SUBMIT, 1, &Submit { to: &["1"], format: 0, content: b"x", wants_report: false }.body()).await;
    assert_eq!(stranger.next().await, None);
    // The refused clients do not affect the one that is logged in.
    client.send(TERMINATE, 8, &[]).await;
    assert_eq!(client.packet().await, Packet { command: TERMINATE | RESP, sequence: 8, body: vec![] });
    assert_eq!(client.next().await, None);
    let closed = node.closed(7);
    assert!(closed.iter().all(|line| line["reason"] == "handler_closed"), "{closed:?}");
}

#[tokio::test]
async fn a_message_is_taken_handed_on_and_reported() {
    let node = gateway(&[]);
    let mut client = Client::logged_in(node.address("cmpp")).await;
    // "Nǐ hǎo" in the two encodings that CMPP has for it, and what an ASCII phone shows.
    let texts: [(u8, &[u8], &str); 3] =
        [(8, &[0x4f, 0x60, 0x59, 0x7d], "你好"), (15, &[0xc4, 0xe3, 0xba, 0xc3], "你好"), (0, b"hello", "hello")];
    for (sequence, (format, content, shown)) in (2..).zip(texts) {
        let submit = Submit { to: &["13800138000"], format, content, wants_report: false };
        client.send(SUBMIT, sequence, &submit.body()).await;
        let answer = client.packet().await;
        assert_eq!((answer.command, answer.sequence), (SUBMIT | RESP, sequence));
        assert_eq!((answer.body.len(), answer.body[8]), (9, 0), "{answer:?}");
        let line = format!("901234 to 13800138000: {shown}");
        node.wait_for_log(&line, |log| log["message"].as_str().is_some_and(|text| text.ends_with(&line)));
    }

    let numbers = ["13800138000", "13900139000", "15000150000"];
    let submit = Submit { to: &numbers, format: 0, content: b"to all of you", wants_report: true };
    client.send(SUBMIT, 9, &submit.body()).await;
    let answer = client.packet().await;
    assert_eq!((answer.command, answer.sequence, answer.body[8]), (SUBMIT | RESP, 9, 0));
    let id = &answer.body[..8];
    for (sequence, number) in (1..).zip(numbers) {
        let report = client.packet().await;
        assert_eq!((report.command, report.sequence), (DELIVER, sequence));
        let body = &report.body;
        assert_eq!(body[8..29], field("10086", 21), "Dest_Id is where the message came from");
        assert_eq!(body[29..39], field("WEATHER", 10));
        assert_eq!(body[39..42], [0, 0, 0]);
        assert_eq!(body[42..63], field(number, 21), "Src_terminal_Id");
        assert_eq!(body[63..65], [1, 60], "Registered_Delivery, Msg_Length");
        assert_eq!(body.len(), 65 + 60 + 8);
        let content = &body[65..125];
        assert_eq!((&content[..8], &content[8..15]), (id, &b"DELIVRD"[..]));
        assert!(content[15..35].iter().all(u8::is_ascii_digit), "two times of ten digits: {content:?}");
        assert_eq!(content[35..56], field(number, 21));
        client.send(DELIVER | RESP, sequence, &[&body[..8], &[0]].concat()).await;
    }
    // The next report has the next sequence number, which is kept in the session.
    client.send(SUBMIT, 10, &Submit { to: &["1"], format: 0, content: b"x", wants_report: true }.body()).await;
    let answer = client.packet().await;
    assert_eq!((answer.command, answer.sequence), (SUBMIT | RESP, 10));
    let report = client.packet().await;
    assert_eq!((report.command, report.sequence), (DELIVER, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_in_flight_on_many_links_are_each_answered_once_and_in_order() {
    const LINKS: usize = 20;
    const MESSAGES: u32 = 100;
    let node = gateway(&[]);
    let address = node.address("cmpp");
    let mut links = tokio::task::JoinSet::new();
    for link in 0..LINKS {
        links.spawn(async move {
            let mut client = Client::logged_in(address).await;
            let text = format!("from link {link}");
            let submit = Submit { to: &["1"], format: 0, content: text.as_bytes(), wants_report: false };
            let mut all = Vec::new();
            for sequence in 100..100 + MESSAGES {
                all.extend(packet(SUBMIT, sequence, &submit.body()));
            }
            client.bytes(&all).await;
            let mut ids = Vec::new();
            for sequence in 100..100 + MESSAGES {
                let answer = client.packet().await;
                assert_eq!((answer.command, answer.sequence, answer.body[8]), (SUBMIT | RESP, sequence, 0));
                ids.push(answer.body[..8].to_vec());
            }
            ids
        });
    }
    let mut ids: Vec<Vec<u8>> = links.join_all().await.concat();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), LINKS * MESSAGES as usize, "every message has an id of its own");
}

#[tokio::test]
async fn a_message_from_a_phone_reaches_one_link_of_its_account() {
    let node = gateway(&[]);
    let address = node.address("cmpp");
    let router = node.address("router").to_string();
    let deliver = |account: &str, text: &str| {
        let mut command = Command::new("php");
        command.arg(folder().join("deliver.php")).args(["--router", &router, account, "13800138000", "10086", text]);
        let output = command.output().expect("php (the command line) is installed");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(deliver("901234", "hello"), (Some(1), "901234 is not there\n".to_owned()));
    let mut client = Client::logged_in(address).await;
    for (text, format, content) in [("hello", 0, &b"hello"[..]), ("你好", 8, &[0x4f, 0x60, 0x59, 0x7d])] {
        assert_eq!(deliver("901234", text), (Some(0), "delivered to 901234\n".to_owned()));
        let packet = client.packet().await;
        assert_eq!(packet.command, DELIVER);
        assert_eq!(packet.sequence & 0xc000_0000, 0x4000_0000, "apart from the numbers of others");
        assert_eq!(packet.body[8..29], field("10086", 21));
        assert_eq!(packet.body[41], format);
        assert_eq!(packet.body[42..63], field("13800138000", 21));
        assert_eq!(packet.body[63..65], [0, content.len() as u8]);
        assert_eq!(packet.body[65..], [content, &[0; 8]].concat());
        client.send(DELIVER | RESP, packet.sequence, &[&packet.body[..8], &[0]].concat()).await;
    }
    let mut second = Client::logged_in(address).await;
    assert_eq!(deliver("901234", "once").0, Some(0));
    // One of the two links gets the message. The other gets nothing before the answer to its next packet.
    let mut delivered = 0;
    for client in [&mut client, &mut second] {
        client.send(TERMINATE, 99, &[]).await;
        while let Some(packet) = client.next().await {
            delivered += u32::from(packet.command == DELIVER);
        }
    }
    assert_eq!(delivered, 1);
}

#[tokio::test]
async fn active_tests_of_the_client_are_answered_and_php_is_not_woken() {
    let node = gateway(&[]);
    let mut client = Client::logged_in(node.address("cmpp")).await;
    let mut all = Vec::new();
    for sequence in [0, 1, 0x7fff_ffff, 0xffff_ffff] {
        all.extend(packet(ACTIVE_TEST, sequence, &[]));
    }
    client.bytes(&all).await;
    for sequence in [0, 1, 0x7fff_ffff, 0xffff_ffff] {
        assert_eq!(client.packet().await, Packet { command: ACTIVE_TEST | RESP, sequence, body: vec![0] });
    }
    // The heartbeat also takes an answer without a probe.
    client.send(ACTIVE_TEST | RESP, 5, &[0]).await;
    client.send(SUBMIT, 2, &Submit { to: &["1"], format: 0, content: b"x", wants_report: false }.body()).await;
    assert_eq!(client.packet().await.command, SUBMIT | RESP);
    // For the login and for the message.
    php_was_woken(&node, 2.0).await;
    assert_eq!(node.metric("longwire_heartbeat_replies_total", "listener=\"cmpp\""), 4.0);
    assert_eq!(node.metric("longwire_heartbeat_probes_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_probed_who_answers_stays_and_who_does_not_is_closed() {
    let node = probing_gateway(&[]);
    let address = node.address("cmpp");
    let mut living = Client::logged_in(address).await;
    let mut dead = Client::logged_in(address).await;
    let dying = async {
        for n in 0..3 {
            let probe = Packet { command: ACTIVE_TEST, sequence: FIRST_PROBE + n, body: vec![] };
            assert_eq!(dead.packet().await, probe);
        }
        assert_eq!(dead.next().await, None, "after the third unanswered probe");
    };
    let answering = async {
        // Answer more probes than may go unanswered, for longer than it takes to close the dead client.
        let mut sequence = FIRST_PROBE;
        while node.log_lines(|line| line["reason"] == "peer_timeout").is_empty() || sequence < FIRST_PROBE + 6 {
            let probe = living.packet().await;
            assert_eq!(probe, Packet { command: ACTIVE_TEST, sequence, body: vec![] });
            living.send(ACTIVE_TEST | RESP, sequence, &[0]).await;
            sequence += 1;
        }
        sequence - FIRST_PROBE
    };
    let ((), answered) = tokio::join!(dying, answering);
    living.send(SUBMIT, 2, &Submit { to: &["1"], format: 0, content: b"x", wants_report: false }.body()).await;
    assert_eq!(living.packet_answering().await.command, SUBMIT | RESP);
    // For two logins and a message.
    php_was_woken(&node, 3.0).await;

    let closed = node.closed(1);
    assert_eq!((closed.len(), &closed[0]["reason"]), (1, &"peer_timeout".into()));
    assert_eq!(closed[0]["detail"], "client did not answer 3 heartbeat probes in a row");
    assert!(node.metric("longwire_heartbeat_answers_total", "listener=\"cmpp\"") >= f64::from(answered));
    assert!(node.metric("longwire_heartbeat_probes_total", "listener=\"cmpp\"") >= f64::from(answered + 3));
}

#[tokio::test]
async fn other_packets_end_a_silence_and_are_no_answer_to_a_probe() {
    let node = probing_gateway(&[("max_unanswered = 3", "max_unanswered = 2")]);
    let mut client = Client::logged_in(node.address("cmpp")).await;
    assert_eq!(client.packet().await.sequence, FIRST_PROBE);
    // The client keeps sending packets, but does not answer the probes.
    let mut sequence = 2;
    let mut probes = 1;
    let submit = Submit { to: &["1"], format: 0, content: b"x", wants_report: false }.body();
    while client.0.write_all(&packet(SUBMIT, sequence, &submit)).await.is_ok() {
        match client.next().await {
            None => break,
            Some(packet) if packet.command == ACTIVE_TEST => probes += 1,
            Some(packet) => assert_eq!(packet.command, SUBMIT | RESP),
        }
        sequence += 1;
    }
    assert_eq!((probes, &node.closed(1)[0]["reason"]), (2, &"peer_timeout".into()));
    assert!(sequence > 10, "it was heard all the while: {sequence}");
}

#[tokio::test]
async fn without_an_answer_of_its_own_anything_answers_and_php_sees_it() {
    let without = [("answer = { offset = 4, bytes = [0x80, 0, 0, 8] }     # CMPP_ACTIVE_TEST_RESP\n", "")];
    let node = probing_gateway(&without);
    let mut client = Client::logged_in(node.address("cmpp")).await;
    for n in 0..5 {
        assert_eq!(client.packet().await.sequence, FIRST_PROBE + n);
        client.send(SUBMIT, n, &Submit { to: &["1"], format: 0, content: b"x", wants_report: false }.body()).await;
        let answer = client.packet().await;
        assert_eq!((answer.command, answer.sequence), (SUBMIT | RESP, n));
    }
    // The heartbeat takes no packet here. An active test response goes to PHP, which does not know it.
    client.send(ACTIVE_TEST | RESP, 0, &[0]).await;
    while client.next().await.is_some() {}
    let closed = node.closed(1);
    assert_eq!((&closed[0]["reason"], &closed[0]["code"]), (&"handler_closed".into(), &4002.into()));
}

#[tokio::test]
async fn who_only_sends_heartbeats_is_idle() {
    let node = gateway(&[("idle_timeout = \"10m\"", "idle_timeout = \"1s\"")]);
    let mut client = Client::logged_in(node.address("cmpp")).await;
    let mut sequence = 0;
    while client.0.write_all(&packet(ACTIVE_TEST, sequence, &[])).await.is_ok() {
        let Some(answer) = client.next().await else { break };
        assert_eq!((answer.command, answer.sequence), (ACTIVE_TEST | RESP, sequence));
        sequence += 1;
    }
    assert!(sequence > 0);
    assert_eq!(node.closed(1)[0]["reason"], "idle_timeout");
    php_was_woken(&node, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_heartbeat_stands_inside_a_reply_that_streams() {
    let fpm = Pool::of(2).start();
    let release = fpm.dir().join("release");
    // A packet of 64 000 bytes, half of it now and half when the test says so.
    let script = fpm.script(
        "slow.php",
        r#"
        if (strlen(file_get_contents('php://input')) > 12) {
            echo pack('N3', 64000, 0x80000099, 1), str_repeat('a', 32000 - 12);
            while (ob_get_level()) { ob_end_flush(); }
            flush();
            for ($i = 0; !file_exists(__DIR__ . '/release') && $i < 6000; $i++) { usleep(10000); clearstatcache(); }
            echo str_repeat('b', 32000);
        }"#,
    );
    let handler = format!("script = {:?}", folder().join("handler.php"));
    let text = configuration(&[("after = \"60s\"", "after = \"200ms\""), ("every = \"60s\"", "every = \"2s\"")]);
    let text = text.replace(&handler, &format!("script = {script:?}"));
    let text = text.replace("spawn = { workers = 4 }", &format!("backends = [\"{}\"]", fpm.address()));
    let node = Longwire::serve(&text);
    let address = node.address("cmpp");

    let mut client = Client::connect(address).await;
    client.send(0x99, 1, b"begin").await;
    let mut first = vec![0; 32_000];
    timeout(PATIENCE, client.0.read_exact(&mut first)).await.expect("it streams").expect("it is connected");
    for sequence in 0..3 {
        client.send(ACTIVE_TEST, sequence, &[]).await;
    }
    let answered = || node.metric("longwire_heartbeat_replies_total", "") == 3.0;
    eventually("the active tests were taken", answered).await;
    // Meanwhile a silent neighbour is probed and given up. So the silence was long enough, but this client was not probed.
    let mut silent = Client::connect(address).await;
    for n in 0..3 {
        assert_eq!(silent.packet().await.sequence, FIRST_PROBE + n);
    }
    assert_eq!(silent.next().await, None);
    std::fs::write(&release, "").expect("the directory is ours");
    let mut rest = vec![0; 32_000];
    timeout(PATIENCE, client.0.read_exact(&mut rest)).await.expect("it goes on").expect("it is connected");
    assert!(first[12..].iter().all(|byte| *byte == b'a') && rest.iter().all(|byte| *byte == b'b'));
    for sequence in 0..3 {
        assert_eq!(client.packet().await, Packet { command: ACTIVE_TEST | RESP, sequence, body: vec![0] });
    }
    assert_eq!(client.packet().await, Packet { command: ACTIVE_TEST, sequence: FIRST_PROBE, body: vec![] });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silence_is_not_the_clients_while_it_is_not_read() {
    let fpm = Pool::of(2).start();
    let script = fpm.script(
        "held.php",
        r#"
        $packet = file_get_contents('php://input');
        for ($i = 0; !file_exists(__DIR__ . '/release') && $i < 6000; $i++) { usleep(10000); clearstatcache(); }
        echo $packet;"#,
    );
    let handler = format!("script = {:?}", folder().join("handler.php"));
    let text = configuration(&[("after = \"60s\"", "after = \"200ms\""), ("every = \"60s\"", "every = \"2s\"")]);
    let text = text.replace(&handler, &format!("script = {script:?}\nmax_queued_frames = 1"));
    let text = text.replace("spawn = { workers = 4 }", &format!("backends = [\"{}\"]", fpm.address()));
    let node = Longwire::serve(&text);
    let address = node.address("cmpp");

    let mut client = Client::connect(address).await;
    // One event runs and one waits. Later bytes are not read, so an answer to a probe would not be read either.
    let all: Vec<u8> = (0..4).flat_map(|sequence| packet(0x99, sequence, b"echo")).collect();
    client.bytes(&all).await;
    let taken = || node.metric("longwire_frames_in_total", "") == 2.0;
    eventually("the queue is full", taken).await;
    let mut silent = Client::connect(address).await;
    while silent.next().await.is_some() {}
    assert_eq!(node.closed(1).len(), 1, "the one that was read and said nothing is closed");
    std::fs::write(fpm.dir().join("release"), "").expect("the directory is ours");
    for sequence in 0..4 {
        let expected = Packet { command: 0x99, sequence, body: b"echo".to_vec() };
        assert_eq!(client.packet_answering().await, expected);
    }
}

#[tokio::test]
async fn a_wrong_length_ends_its_session_and_no_other() {
    let node = gateway(&[]);
    let address = node.address("cmpp");
    let mut bystander = Client::logged_in(address).await;
    let cases: [(u32, &str); 4] =
        [(0, "bad_frame"), (11, "bad_frame"), (4097, "frame_too_large"), (u32::MAX, "frame_too_large")];
    for (count, (length, reason)) in (1..).zip(cases) {
        let mut client = Client::logged_in(address).await;
        let mut bytes = packet(SUBMIT, 2, b"");
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        client.bytes(&bytes).await;
        assert_eq!(client.next().await, None, "length {length}");
        let closed = node.closed(count);
        assert_eq!(closed[count - 1]["reason"], reason, "length {length}");
    }
    // A packet whose own fields disagree is refused, and its session stays.
    let good = Submit { to: &["1", "2"], format: 0, content: b"hello", wants_report: true }.body();
    let mut wrong = Vec::new();
    for (at, value) in [(116, 0), (116, 99), (117 + 42, 4), (117 + 42, 255)] {
        let mut body = good.clone();
        body[at] = value;
        wrong.push(body);
    }
    wrong.extend([good[..good.len() - 1].to_vec(), good[..20].to_vec(), Vec::new()]);
    for (sequence, body) in (2..).zip(wrong) {
        bystander.send(SUBMIT, sequence, &body).await;
        let answer = bystander.packet().await;
        assert_eq!(
            (answer.command, answer.sequence, answer.body),
            (SUBMIT | RESP, sequence, vec![0, 0, 0, 0, 0, 0, 0, 0, 1])
        );
    }
    bystander.send(SUBMIT, 50, &Submit { to: &["1"], format: 0, content: b"hello", wants_report: false }.body()).await;
    assert_eq!(bystander.packet().await.body[8], 0);
}

#[test]
fn the_configuration_of_the_gateway_is_sound() {
    let path = folder().join("longwire.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_longwire")).args(["check", "--config"]).arg(path).output();
    let output = output.expect("the binary was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
    let heartbeat = "a probe after 1m, up to 3 of them 1m apart; the client's probes are answered";
    assert!(shown.contains(heartbeat), "{shown}");
}
