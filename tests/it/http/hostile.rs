//! Malicious or broken clients, one at a time: broken frames and handshakes, noise, slow handshakes, clients that never read. Each must
//! get its close code or status, be counted, and leave no memory behind.
//!
//! A test belongs here if the client breaks the protocol, or keeps to it only to exhaust the node. Floods of connections, and the latency
//! of others meanwhile, are in `http/floods.rs`. Configured rates and frame timeouts are in `session/limits.rs`. Bounds of memory and
//! fairness for well-behaved clients are in `session/bounds.rs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use longwire::proto::framing::{FrameKind, Framing, LengthFraming, client};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, noise};
use crate::support::echo::{EACH_FRAMING, ECHO};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn stage(limits: &str) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(2).start();
    let script = fpm.script("echo.php", ECHO);
    let app = "events = [\"close\"]";
    let node = Longwire::with(&fpm, &script, app, "", &format!("{EACH_FRAMING}\n[limits]\n{limits}"));
    (fpm, node)
}

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

/// Sends `bytes`, and FIN if `then_fin`; returns all bytes that come until the server ends the connection.
async fn say(address: SocketAddr, bytes: &[u8], then_fin: bool) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.expect("it listens");
    // The server may have closed already.
    let _ = socket.write_all(bytes).await;
    if then_fin {
        let _ = socket.shutdown().await;
    }
    read_to_end(&mut socket).await
}

async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let end = async { while socket.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("the server ends the connection");
    answer
}

fn expect_no_panic(node: &Longwire) {
    let panics = node.log_lines(|line| line.to_string().contains("panicked"));
    assert_eq!(panics, Vec::<Value>::new());
}

/// Bytes to send on an open session, and the expected end of the session.
struct Case {
    listener: &'static str,
    bytes: Vec<u8>,
    then_fin: bool,
    reason: &'static str,
    code: Option<u16>,
}

fn case(listener: &'static str, bytes: &[u8], reason: &'static str, code: Option<u16>) -> Case {
    Case { listener, bytes: bytes.to_vec(), then_fin: code.is_none(), reason, code }
}

#[tokio::test]
async fn bytes_that_break_the_framing_end_their_session_with_the_reason_and_no_other() {
    let (_fpm, node) = stage("");
    let mut bystander = Client::connect(node.address("length"), length()).await;
    let long = vec![b'a'; (1 << 20) + 100];
    let mask = [1, 2, 3, 4];
    let mut unmasked =
        client::encode(&Framing::WebSocket { deflate: None }, FrameKind::Text, b"hi", mask).unwrap().to_vec();
    unmasked[1] &= 0x7f;
    let cases = [
        case("length", &[0, 0], "frame_truncated", None),
        case("length", &[0, 0, 0, 9, b'x'], "frame_truncated", None),
        case("length", &[0xff, 0xff, 0xff, 0xff], "frame_too_large", None),
        case("length", &[0, 0x10, 0, 1], "frame_too_large", None),
        case("delimiter", b"no end", "frame_truncated", None),
        case("delimiter", &long, "frame_too_large", None),
        case("web", &unmasked, "bad_frame", Some(1002)),
        // RSV1 without an extension, RSV3, opcodes 3 and 11, a continuation of nothing.
        case("web", &[0xc1, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x91, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x83, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x8b, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x80, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        // A ping in fragments, a ping of 126 bytes, a message in the middle of another.
        case("web", &[0x09, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x89, 0xfe, 0, 126, 0, 0, 0, 0], "bad_frame", Some(1002)),
        case("web", &[0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], "bad_frame", Some(1002)),
        // A close frame of one byte, and one with a code that must not be sent.
        case("web", &[0x88, 0x81, 0, 0, 0, 0, 3], "bad_frame", Some(1002)),
        case("web", &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed], "bad_frame", Some(1002)),
        case("web", &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "frame_too_large", Some(1009)),
        case("web", &[0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28], "bad_text", Some(1007)),
        case("web", &[0x82, 0x85, 0, 0, 0, 0, b'x'], "frame_truncated", None),
    ];
    let memory = node.memory();
    for (number, case) in cases.iter().enumerate() {
        let before = node.metric("longwire_sessions_closed_total", &format!("reason=\"{}\"", case.reason));
        let mut client = match case.listener {
            "web" => Client::upgrade(node.address("web"), "/ws", "").await,
            listener => Client::connect(node.address(listener), Framing::Raw).await,
        };
        client.bytes(&case.bytes).await;
        if case.then_fin {
            client.finish().await;
        }
        let code = client.end().await;
        drop(client);
        assert_eq!(code, case.code, "case {number}, {:?}", case.bytes.get(..14));
        let line = node.closed(number + 1).pop().expect("one line each");
        assert_eq!((&line["reason"], &line["listener"]), (&case.reason.into(), &case.listener.into()), "case {number}");
        assert!(!line["detail"].is_null() || case.reason == "frame_truncated", "the log says what was wrong: {line}");
        let after = node.metric("longwire_sessions_closed_total", &format!("reason=\"{}\"", case.reason));
        assert_eq!(after, before + 1.0, "case {number}");
    }
    let grown = node.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "memory grew by {grown}");
    assert_eq!(bystander.ask("hello").await, "hello");
    expect_no_panic(&node);
}

#[tokio::test]
async fn noise_on_every_listener_leaves_nothing_behind() {
    let (_fpm, node) = stage("handshake_timeout = \"500ms\"");
    let count = 400;
    let mut memory = 0;
    for round in 0..count {
        if round == count / 4 {
            memory = node.memory();
        }
        let listener = ["length", "delimiter", "raw", "web"][round % 4];
        let address = node.address(listener);
        let bytes = noise(round as u64 + 1, 1 + round * 7 % 3000);
        if round % 8 == 7 {
            // Noise after a valid handshake.
            let bytes = [UPGRADE.as_bytes(), b"\r\n", &bytes].concat();
            say(address, &bytes, true).await;
        } else {
            say(address, &bytes, true).await;
        }
    }
    eventually("all sessions have ended", || node.metric("longwire_sessions", "") == 0.0).await;
    eventually("all connections have ended", || node.metric("longwire_handshakes", "") == 0.0).await;
    let grown = node.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "memory grew by {grown}");
    let refused = node.metric("longwire_connections_refused_total", "reason=\"handshake_refused\"");
    assert_eq!(refused, (count / 8) as f64, "each garbage handshake is counted");
    expect_no_panic(&node);
}

#[tokio::test]
async fn handshakes_that_are_none_get_their_status_and_are_counted() {
    let (_fpm, node) = stage("handshake_timeout = \"1s\"\nmax_header_bytes = 8192");
    let address = node.address("web");
    let good = UPGRADE;
    let headers: String = (0..101).map(|number| format!("X-{number}: y\r\n")).collect();
    let cases: Vec<(&str, String, &str)> = vec![
        ("garbage", "\u{1}\u{2}\u{3}\r\n\r\n".into(), "400"),
        ("a TLS hello", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".into(), "400"),
        ("no upgrade", "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n".into(), "426"),
        ("HTTP/1.0", format!("{}\r\n", good.replace("HTTP/1.1", "HTTP/1.0")), "400"),
        ("a POST", format!("{}Content-Length: 3\r\n\r\nabc", good.replace("GET", "POST")), "405"),
        ("a POST without upgrade", "POST /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".into(), "426"),
        ("a GET with a body", format!("{good}Content-Length: 3\r\n\r\nabc"), "400"),
        ("a GET with a chunked body", format!("{good}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), "400"),
        ("version 8", format!("{}\r\n", good.replace(": 13", ": 8")), "426"),
        ("a short key", format!("{}\r\n", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl")), "400"),
        ("no key", format!("{}\r\n", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")), "400"),
        (
            "17 bytes as key",
            format!("{}\r\n", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "AQIDBAUGBwgJCgsMDQ4PEBE=")),
            "400",
        ),
        ("a key without padding", format!("{}\r\n", good.replace("ZQ==", "ZQ")), "400"),
        ("a key with another alphabet", format!("{}\r\n", good.replace("dGhl", "dG-_")), "400"),
        ("two keys", format!("{good}Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"), "400"),
        ("no Connection", format!("{}\r\n", good.replace("Connection: Upgrade\r\n", "")), "400"),
        ("a foreign page", format!("{good}Origin: https://evil.example\r\n\r\n"), "403"),
        ("no Host", format!("{}\r\n", good.replace("Host: a\r\n", "")), "400"),
        ("two Hosts", format!("{good}Host: b\r\n\r\n"), "400"),
        ("a folded header", format!("{good}X-A: a\r\n folded\r\n\r\n"), "400"),
        ("a space before the colon", format!("{good}X-A : a\r\n\r\n"), "400"),
        ("a header without a name", format!("{good}: a\r\n\r\n"), "400"),
        ("a header without a colon", format!("{good}X-A\r\n\r\n"), "400"),
        ("a name that is not ASCII", format!("{good}X-Ä: a\r\n\r\n"), "400"),
        ("a carriage return in a header", format!("{good}X-A: a\rX-B: b\r\n\r\n"), "400"),
        ("a control character in a header", format!("{good}X-A: a\u{1}b\r\n\r\n"), "400"),
        ("NUL in a name", format!("{good}X\0A: ab\r\n\r\n"), "400"),
        ("a space in the target", format!("{good}\r\n").replace("/ws", "/ws ?a"), "400"),
        (
            "a target above the bound",
            format!("{good}\r\n").replace("/ws", &format!("/ws?{}", "a".repeat(10_000))),
            "431",
        ),
        ("NUL in a header", format!("{good}X-A: a\0b\r\n\r\n"), "400"),
        ("a head above the bound", format!("{good}X-A: {}\r\n\r\n", "a".repeat(10_000)), "431"),
        ("too many headers", format!("{good}{headers}\r\n"), "431"),
        ("a head that ends early", good.into(), ""),
    ];
    let count = cases.len();
    for (name, request, status) in cases {
        // Send FIN only if nothing else would end the connection.
        println!("{name}");
        let answer = say(address, request.as_bytes(), status.is_empty()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer.split(' ').nth(1).unwrap_or(""), status, "{name}: {answer}");
    }
    eventually("all are counted", || {
        node.metric("longwire_connections_refused_total", "reason=\"handshake_refused\"") == count as f64
    })
    .await;
    assert_eq!(node.metric("longwire_sessions_opened_total", ""), 0.0);
    eventually("all connections have ended", || node.metric("longwire_handshakes", "") == 0.0).await;
    expect_no_panic(&node);
}

#[tokio::test]
async fn a_key_is_good_whatever_stands_in_its_unused_bits() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use sha1::{Digest, Sha1};
    let (_fpm, node) = stage("");
    // The example of RFC 6455 section 4.1, and keys with every possible 22nd symbol.
    let symbols = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let random = symbols.chars().map(|last| format!("k3J+/yVq0ZxTt7LwB9dNe{last}=="));
    for key in ["AQIDBAUGBwgJCgsMDQ4PEC==".to_owned()].into_iter().chain(random) {
        let mut socket = TcpStream::connect(node.address("web")).await.unwrap();
        let request = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", &key);
        socket.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "{key}: {}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8(answer).unwrap();
        let accept = BASE64.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{key}: {answer}");
        assert!(answer.contains(&format!("sec-websocket-accept: {accept}\r\n")), "{key}: {answer}");
    }
}

#[tokio::test]
async fn slow_and_silent_handshakes_end_at_their_time_however_they_drip() {
    let (_fpm, node) = stage("handshake_timeout = \"700ms\"");
    let address = node.address("web");
    let drip = |first: &'static str, byte: &'static [u8]| async move {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(first.as_bytes()).await.unwrap();
        let (mut read, mut write) = socket.split();
        let dripping = async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            loop {
                pause.tick().await;
                if write.write_all(byte).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let mut answer = Vec::new();
        let ending = async { while read.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {} };
        let ended = async {
            tokio::select! { () = dripping => {}, () = ending => {} }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the server ends a handshake that drips");
        answer
    };
    let drips = tokio::join!(drip("GET /ws HTTP/1.1\r\nX: ", b"a"), drip(UPGRADE, b"A: b\r\n"), drip("", b"\r\n"));
    assert!(!String::from_utf8_lossy(&drips.0).contains(" 101 "));
    assert_eq!(say(address, b"", false).await, b"", "a client that sends nothing gets no answer");
    // A keep-alive connection that sends nothing more after its answer.
    let kept = say(address, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", false).await;
    assert!(kept.starts_with(b"HTTP/1.1 404 "));
    eventually("all connections have ended", || node.metric("longwire_handshakes", "") == 0.0).await;
    let timed_out = node.metric("longwire_connections_refused_total", "reason=\"handshake_timeout\"");
    assert!(timed_out >= 3.0, "{timed_out} were counted");
}

#[tokio::test]
async fn an_http2_client_that_asks_for_nothing_has_the_time_of_a_handshake_and_no_more() {
    const TIME: Duration = Duration::from_secs(3);
    let (_fpm, node) = stage("handshake_timeout = \"3s\"");
    let started = Instant::now();
    // The preface and empty settings (RFC 9113 section 3.4), and then nothing.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = say(node.address("web"), preface, false).await;
    assert!(answer.get(3) == Some(&4), "settings are answered with settings: {answer:?}");
    assert!(started.elapsed() < 2 * TIME, "it kept its place for {:?}", started.elapsed());
    eventually("its place is free", || node.metric("longwire_handshakes", "") == 0.0).await;
    assert_eq!(node.metric("longwire_connections_refused_total", "reason=\"handshake_timeout\""), 1.0);
}

#[tokio::test]
async fn frames_right_behind_the_handshake_are_heard() {
    let (_fpm, node) = stage("");
    let frame = |body: &[u8]| {
        client::encode(&Framing::WebSocket { deflate: None }, FrameKind::Binary, body, [9, 8, 7, 6]).unwrap()
    };
    let big = noise(3, 30_000);
    let early = [UPGRADE.as_bytes(), b"\r\n", &frame(b"early"), &frame(b""), &frame(&big)].concat();
    let mut socket = TcpStream::connect(node.address("web")).await.unwrap();
    socket.write_all(&early).await.unwrap();
    let mut got = Vec::new();
    while !got.windows(4).any(|window| window == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
    }
    let body = got.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut client = Client::from_parts(socket, Framing::WebSocket { deflate: None }, got.split_off(body));
    for expected in [&b"early"[..], b"", &big] {
        let echo = client.frame().await;
        assert!(echo.body == expected, "{} bytes came instead of {}", echo.body.len(), expected.len());
    }
}

#[tokio::test]
async fn a_client_that_pings_without_reading_costs_no_more_than_its_outbox() {
    let (_fpm, node) = stage("");
    let mut web = Vec::new();
    for _ in 0..4 {
        let address = node.address("web");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut socket = TcpStream::from_std(socket.into()).unwrap();
        socket.write_all(format!("{UPGRADE}\r\n").as_bytes()).await.unwrap();
        web.push(socket);
    }
    eventually("all clients have a session", || node.metric("longwire_sessions", "") == 4.0).await;
    let before = node.memory();
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(20_000);
    let mut sent = 0;
    for socket in &mut web {
        let mut from = 0;
        // Write until TCP takes nothing for half a second.
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(500), socket.write(&pings[from..])).await {
            from = (from + n) % pings.len();
            sent += n;
            assert!(sent < 1 << 30, "nothing holds this client back");
        }
    }
    let grown = node.memory().saturating_sub(before);
    println!("{sent} bytes of pings taken from four clients that read nothing, memory grew by {grown}");
    assert!(grown < 4 * (3 << 20), "memory grew by {grown}");
}

#[tokio::test]
async fn a_client_that_ended_its_side_and_reads_nothing_is_closed_as_a_slow_reader_too() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("big.php", "echo str_repeat('x', 20 << 20);");
    let app = "send_timeout = \"500ms\"\nmax_reply_bytes = \"32 MiB\"\nevents = [\"close\"]";
    let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
    let mut slow = Client::connect(node.address("raw"), Framing::Raw).await;
    slow.text("go").await;
    slow.finish().await;
    let line = node.closed(1).remove(0);
    assert_eq!(line["reason"], "slow_reader");
    let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
    web.text("go").await;
    web.close(1000).await;
    let line = node.closed(2).remove(1);
    assert_eq!(line["reason"], "slow_reader");
    drop((slow, web));
}

#[tokio::test]
async fn a_reply_larger_than_the_outbox_is_not_taken_from_php_before_the_client_reads() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("big.php", "for ($i = 0; $i < 64; $i++) echo str_repeat('x', 1 << 20);");
    let node = Longwire::with(&fpm, &script, "send_timeout = \"60s\"", "", EACH_FRAMING);
    let before = node.memory();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(node.address("raw"), Framing::Raw).await;
        client.text("go").await;
        clients.push(client);
    }
    eventually("all four run", || node.metric("longwire_upstream_busy_connections", "") == 4.0).await;
    // Once memory use stands still, all data that can move has moved.
    let last = node.settled_memory().await;
    let grown = last.saturating_sub(before);
    println!("four replies of 64 MiB that nobody reads: memory grew by {grown}");
    assert!(grown < 4 * (3 << 20), "memory grew by {grown}");
    let mut total = 0;
    while total < 64 << 20 {
        total += clients[0].frame().await.body.len();
    }
    assert_eq!(total, 64 << 20);
}

#[tokio::test]
async fn idle_sessions_cost_less_than_six_kilobytes_each() {
    const SESSIONS: usize = 2000;
    let (_fpm, node) = stage("");
    for listener in ["length", "web"] {
        let mut before = 0;
        let mut clients = Vec::new();
        for number in 0..SESSIONS + 200 {
            let mut client = match listener {
                "web" => Client::upgrade(node.address("web"), "/ws", "").await,
                _ => Client::connect(node.address("length"), length()).await,
            };
            client.send(FrameKind::Binary, b"hello").await;
            assert_eq!(&client.frame().await.body[..], b"hello");
            clients.push(client);
            if number == 199 {
                // Start to measure after the first sessions, which also pay for allocations that are made once.
                before = node.memory();
            }
        }
        let each = node.memory().saturating_sub(before) / SESSIONS;
        println!("{listener}: {each} bytes for each session at rest");
        assert!(each < 6000, "{listener}: {each} bytes for each session at rest");
        let open = node.metric("longwire_sessions", "");
        assert_eq!(open, (SESSIONS + 200) as f64);
        drop(clients);
        eventually("all have ended", || node.metric("longwire_sessions", "") == 0.0).await;
    }
}

#[tokio::test]
async fn close_is_told_once_for_each_connect_wherever_the_client_breaks_off() {
    let fpm = Pool::of(4).start();
    let script = fpm.script(
        "events.php",
        "$event = $_SERVER['LONGWIRE_EVENT']; usleep(random_int(0, 3000));\n\
         file_put_contents(__DIR__ . '/events', \"$event {$_SERVER['SESSIONID']}\\n\", FILE_APPEND | LOCK_EX);\n\
         if ($event === 'message') { echo 'a'; ob_flush(); flush(); usleep(2000); echo 'b'; }",
    );
    let app = "events = [\"connect\", \"close\"]";
    let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
    let whole = [UPGRADE.as_bytes(), b"\r\n\x81\x82\0\0\0\0hi\x81\x82\0\0\0\0ho"].concat();
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..240_usize {
        let address = node.address(if round % 2 == 0 { "length" } else { "web" });
        let stream = b"\0\0\0\x02hi\0\0\0\x02ho\0\0".to_vec();
        let bytes = if round % 2 == 0 { stream } else { whole.clone() };
        tasks.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let cut = bytes.len().saturating_sub(round % 20);
            socket.write_all(&bytes[..cut]).await.unwrap();
            if round % 3 > 0 {
                // Break off in the middle of the answers, or in the silence before them.
                let mut byte = [0; 1];
                let patience = Duration::from_millis((round % 7) as u64);
                let _ = tokio::time::timeout(patience, socket.read(&mut byte)).await;
            }
            if round % 4 < 2 {
                socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
    eventually("all sessions have ended", || node.metric("longwire_sessions", "") == 0.0).await;
    let count = || {
        let text = std::fs::read_to_string(fpm.dir().join("events")).unwrap_or_default();
        let mut counts = std::collections::HashMap::<String, [usize; 2]>::new();
        for (event, session) in text.lines().filter_map(|line| line.split_once(' ')) {
            let count = counts.entry(session.to_owned()).or_default();
            match event {
                "connect" => count[0] += 1,
                "close" => count[1] += 1,
                _ => {}
            }
        }
        counts
    };
    // A cancelled connect event may still run to its end, even after its close event.
    eventually("each has one connect and one close", || {
        let counts = count();
        counts.len() >= 120 && counts.values().all(|count| *count == [1, 1])
    })
    .await;
    expect_no_panic(&node);
}
