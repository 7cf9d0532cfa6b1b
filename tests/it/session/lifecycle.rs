//! Connect and close events: which events PHP gets, and that PHP gets exactly one close event for every admitted session.

use std::collections::HashMap;

use longwire::proto::framing::{FrameKind, Framing, Item, LengthFraming};

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// Notes each event, answers messages, and refuses a client whose query has `refuse`.
const SCRIPT: &str = r#"
$data = file_get_contents('php://input');
$event = $_SERVER['LONGWIRE_EVENT'];
$note = [$event, $_SERVER['EVENT'] ?? '-', $_SERVER['SESSIONID'], $_SERVER['LONGWIRE_SEQ'],
    $_SERVER['LONGWIRE_CLOSE_REASON'] ?? '-', $_SERVER['LONGWIRE_CLOSE_CODE'] ?? '-', $data];
usleep((int) ($_GET['sleep'] ?? 0) * 1000);
file_put_contents(__DIR__ . '/events', implode("\t", $note) . "\n", FILE_APPEND | LOCK_EX);
if ($event === 'connect' && isset($_GET['refuse'])) {
    http_response_code((int) $_GET['refuse']);
    header('Content-Type: text/plain');
    exit('not you');
}
if ($event === 'connect' && isset($_GET['protocol'])) {
    header('Sec-WebSocket-Protocol: ' . $_GET['protocol']);
    header('Set-Cookie: seen=1');
    exit('welcome');
}
if ($data === 'bye') {
    header('Longwire-Close: 4001 as you wish');
}
if ($event === 'message') {
    usleep(20000);
    echo 'did ', $data;
}
"#;

const APP: &str = "events = [\"connect\", \"close\"]";

#[derive(Debug)]
struct Noted {
    event: String,
    number: String,
    session: String,
    seq: u64,
    reason: String,
    code: String,
    data: String,
}

fn noted(fpm: &PhpFpm) -> Vec<Noted> {
    let text = std::fs::read_to_string(fpm.dir().join("events")).unwrap_or_default();
    text.lines()
        .map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().expect("seven fields");
            Noted {
                event: next(),
                number: next(),
                session: next(),
                seq: next().parse().expect("a number"),
                reason: next(),
                code: next(),
                data: next(),
            }
        })
        .collect()
}

fn stage(workers: usize) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(workers).start();
    let script = fpm.script("events.php", SCRIPT);
    let node = Longwire::with(&fpm, &script, APP, "", EACH_FRAMING);
    (fpm, node)
}

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

#[tokio::test]
async fn a_session_is_told_in_order_from_connect_to_close() {
    let (fpm, node) = stage(2);
    let mut client = Client::connect(node.address("length"), length()).await;
    assert_eq!(client.ask("one").await, "did one");
    assert_eq!(client.ask("bye").await, "did bye");
    assert_eq!(client.end().await, None);
    eventually("the close event is noted", || noted(&fpm).len() == 4).await;
    let events = noted(&fpm);
    let told: Vec<_> = events.iter().map(|e| (e.event.as_str(), e.number.as_str(), e.seq, e.data.as_str())).collect();
    let expected =
        [("connect", "1", 0, ""), ("message", "-", 1, "one"), ("message", "-", 2, "bye"), ("close", "2", 3, "")];
    assert_eq!(told, expected);
    assert!(events.iter().all(|e| e.session == events[0].session && e.session.len() == 16));
    assert_eq!((events[3].reason.as_str(), events[3].code.as_str()), ("handler_closed", "4001"));
}

#[tokio::test]
async fn a_websocket_gets_the_handlers_protocol_cookies_greeting_and_close_code() {
    let (fpm, node) = stage(2);
    let offer = "Sec-WebSocket-Protocol: soap, chat\r\n";
    let (mut client, head) =
        Client::try_upgrade(node.address("web"), "/ws?protocol=chat", offer).await.expect("it is admitted");
    let head = head.to_ascii_lowercase();
    assert!(head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
    assert!(head.contains("set-cookie: seen=1\r\n"), "{head}");
    assert_eq!(&client.frame().await.body[..], b"welcome");
    client.text("bye").await;
    assert_eq!(&client.frame().await.body[..], b"did bye");
    let close = client.next().await;
    let Some(Item::Close { code: Some(4001), reason }) = close else { panic!("{close:?}") };
    assert_eq!(&reason[..], b"as you wish");
    client.close(4001).await;
    assert_eq!(client.end().await, None);
    eventually("the close event is noted", || noted(&fpm).iter().any(|e| e.event == "close")).await;

    // A sub-protocol that the client did not offer is not sent.
    let (_, head) =
        Client::try_upgrade(node.address("web"), "/ws?protocol=other", offer).await.expect("it is admitted");
    assert!(!head.to_ascii_lowercase().contains("sec-websocket-protocol"), "{head}");
}

#[tokio::test]
async fn a_refused_session_gets_the_handlers_answer_and_no_close_event() {
    let (fpm, node) = stage(2);
    let answer = Client::try_upgrade(node.address("web"), "/ws?refuse=403", "").await.err().expect("refused");
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nnot you"), "{answer}");
    let answer = Client::try_upgrade(node.address("web"), "/ws?refuse=500", "").await.err().expect("refused");
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("not you"), "{answer}");
    let mut client = Client::upgrade(node.address("web"), "/ws", "").await;
    client.close(1000).await;
    client.end().await;
    eventually("the admitted one's close event is noted", || noted(&fpm).iter().any(|e| e.event == "close")).await;
    let events = noted(&fpm);
    assert_eq!(events.iter().filter(|e| e.event == "connect").count(), 3);
    assert_eq!(events.iter().filter(|e| e.event == "close").count(), 1);
    assert_eq!(node.metric("longwire_connections_refused_total", "reason=\"refused\""), 1.0);
    assert_eq!(node.metric("longwire_connections_refused_total", "reason=\"connect_failed\""), 1.0);
}

#[tokio::test]
async fn frames_of_a_refused_session_never_reach_php() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("events.php", SCRIPT);
    let app = format!("{APP}\nuri = \"/?refuse=403&sleep=100\"");
    let node = Longwire::with(&fpm, &script, &app, "", EACH_FRAMING);
    for says_goodbye in [false, true] {
        let mut client = Client::connect(node.address("length"), length()).await;
        for _ in 0..3 {
            client.text("let me in").await;
        }
        if says_goodbye {
            client.finish().await;
        }
        // The body of a refusal is its last frame.
        assert_eq!(&client.frame().await.body[..], b"not you");
        assert_eq!(client.end().await, None);
    }
    node.closed(2);
    assert_eq!(node.metric("longwire_frames_dropped_total", "reason=\"refused\""), 6.0);
    let told: Vec<_> = noted(&fpm).into_iter().map(|e| e.event).collect();
    assert_eq!(told, ["connect", "connect"]);
}

#[tokio::test]
async fn everybody_who_was_admitted_is_seen_off_however_they_leave() {
    let (fpm, node) = stage(4);
    let mut admitted = 0;
    for round in 0..30 {
        let mut stream = Client::connect(node.address("length"), length()).await;
        let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
        admitted += 2;
        match round % 3 {
            0 => {
                // In the middle of an event.
                stream.text("running").await;
                web.text("running").await;
                drop((stream, web));
            }
            1 => {
                assert_eq!(stream.ask("x").await, "did x");
                stream.reset();
                web.reset();
            }
            _ => {
                stream.finish().await;
                web.close(1000).await;
                stream.end().await;
                web.end().await;
            }
        }
    }
    // A client that disconnects while its connect event runs.
    drop(
        tokio::time::timeout(
            std::time::Duration::from_millis(50),
            Client::try_upgrade(node.address("web"), "/ws?sleep=300", ""),
        )
        .await,
    );
    eventually("every session has its close event", || {
        noted(&fpm).iter().filter(|e| e.event == "close").count() > admitted
    })
    .await;
    expect_each_connect_has_one_close(&fpm);
}

fn expect_each_connect_has_one_close(fpm: &PhpFpm) {
    let mut counts: HashMap<String, (usize, usize)> = HashMap::new();
    for event in noted(fpm) {
        let count = counts.entry(event.session).or_default();
        match event.event.as_str() {
            "connect" => count.0 += 1,
            "close" => count.1 += 1,
            _ => {}
        }
    }
    for (session, count) in counts {
        assert_eq!(count, (1, 1), "connects and closes of {session}");
    }
}

/// The sessions of all events of that name, sorted.
fn sessions(fpm: &PhpFpm, event: &str) -> Vec<String> {
    let mut ids: Vec<_> =
        noted(fpm).into_iter().filter(|noted| noted.event == event).map(|noted| noted.session).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn a_connect_event_that_ran_and_cannot_be_repeated_has_its_close_event() {
    let mut fpm = Pool::of(2).start();
    let script = fpm.script("events.php", &format!("{SCRIPT}\nif ($event === 'connect') sleep(30);"));
    let app = format!("{APP}\nidempotent = true");
    let node = Longwire::with(&fpm, &script, &app, "queue_timeout = \"1s\"", EACH_FRAMING);
    let _stream = Client::connect(node.address("length"), length()).await;
    let web = node.address("web");
    let handshake = tokio::spawn(async move { Client::try_upgrade(web, "/ws", "").await.err() });
    eventually("both connect events run", || sessions(&fpm, "connect").len() == 2).await;
    let connected = sessions(&fpm, "connect");
    fpm.stop();
    let failed = || node.metric("longwire_events_failed_total", "event=\"connect\"");
    eventually("both are given up", || failed() == 2.0).await;
    assert!(handshake.await.unwrap().is_some_and(|answer| answer.starts_with("HTTP/1.1 503 ")));
    fpm.start_again();
    eventually("PHP is told that both have ended", || sessions(&fpm, "close") == connected).await;
    assert_eq!(sessions(&fpm, "connect"), connected, "no connect event ran twice");
}

#[tokio::test]
async fn a_client_that_only_sends_and_leaves_is_heard() {
    let (fpm, node) = stage(2);
    let mut client = Client::connect(node.address("length"), length()).await;
    for number in 0..10 {
        client.text(&format!("reading {number}")).await;
    }
    client.finish().await;
    for number in 0..10 {
        assert_eq!(client.frame().await.body, format!("did reading {number}"));
    }
    assert_eq!(client.end().await, None);
    eventually("the close event is noted", || noted(&fpm).iter().any(|e| e.event == "close")).await;
    assert_eq!(noted(&fpm).iter().filter(|e| e.data.starts_with("reading")).count(), 10);
}

#[tokio::test]
async fn sigterm_under_load_answers_what_is_in_flight_and_sees_everybody_off() {
    let (fpm, mut node) = stage(4);
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = match number % 2 {
            0 => Client::connect(node.address("length"), length()).await,
            _ => Client::upgrade(node.address("web"), "/ws", "").await,
        };
        assert_eq!(client.ask("hello").await, "did hello");
        clients.push(client);
    }
    for client in &mut clients {
        client.sender.send(FrameKind::Text, b"last").await;
    }
    eventually("the last messages are read", || node.metric("longwire_frames_in_total", "") == 200.0).await;
    node.terminate();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(&client.frame().await.body[..], b"did last", "client {number}");
        let expected = if number % 2 == 0 { None } else { Some(1001) };
        assert_eq!(client.end().await, expected, "client {number}");
    }
    assert_eq!(node.wait().code(), Some(0));
    expect_each_connect_has_one_close(&fpm);
    let reasons: Vec<_> = noted(&fpm).into_iter().filter(|e| e.event == "close").map(|e| (e.reason, e.code)).collect();
    assert_eq!(reasons, vec![("draining".to_owned(), "1001".to_owned()); 100]);
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_the_status_says_so() {
    let (_fpm, mut node) = stage(1);
    let mut client = Client::upgrade(node.address("web"), "/ws?sleep=0", "").await;
    assert_eq!(client.ask("hello").await, "did hello");
    // Each keeps a worker busy for a while, so the drain has to wait.
    for _ in 0..200 {
        client.text("more").await;
    }
    eventually("they are read", || node.metric("longwire_frames_in_total", "") > 20.0).await;
    node.terminate();
    node.wait_for_log("it drains", |line| line["message"] == "draining");
    node.terminate();
    assert_eq!(node.wait().code(), Some(1));
}

#[tokio::test]
async fn signals_that_end_nothing_are_logged_and_the_node_goes_on() {
    let (_fpm, mut node) = stage(1);
    let mut client = Client::connect(node.address("length"), length()).await;
    for (signal, name, said) in [
        (libc::SIGHUP, "SIGHUP", "nothing to reload"),
        (libc::SIGUSR1, "SIGUSR1", "no effect"),
        (libc::SIGUSR2, "SIGUSR2", "no effect"),
    ] {
        node.signal(signal);
        let line = node.wait_for_log("the signal is logged", |line| line["signal"] == name);
        assert!(line["message"].as_str().is_some_and(|text| text.contains(said)), "{line}");
    }
    // SIGPIPE, which Rust programs ignore from their start.
    node.signal(libc::SIGPIPE);
    assert_eq!(client.ask("still here?").await, "did still here?");
    node.signal(libc::SIGQUIT);
    assert_eq!(client.end().await, None);
    assert_eq!(node.wait().code(), Some(0), "SIGQUIT drains");
}

#[tokio::test]
async fn log_fields_are_rounded_and_without_rusts_syntax() {
    let (_fpm, node) = stage(1);
    let mut client = Client::connect(node.address("length"), length()).await;
    assert_eq!(client.ask("one").await, "did one");
    tokio::time::sleep(std::time::Duration::from_millis(350)).await;
    drop(client);
    let seconds = node.closed(1)[0]["seconds"].to_string();
    assert!(seconds.split_once('.').is_some_and(|(_, decimals)| decimals.len() == 1), "{seconds}");
    let refused = Client::try_upgrade(node.address("web"), "/ws", "Origin: https://evil.example\r\n").await;
    assert!(refused.is_err());
    let line = node.wait_for_log("the origin is refused", |line| line["message"] == "origin refused");
    assert_eq!(line["origin"], "https://evil.example");
}

#[tokio::test]
async fn a_node_that_is_full_says_so() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("events.php", SCRIPT);
    let node = Longwire::with(&fpm, &script, "", "", &format!("[limits]\nmax_sessions = 1\n{EACH_FRAMING}"));
    let mut client = Client::connect(node.address("length"), length()).await;
    assert_eq!(client.ask("one").await, "did one");
    let mut second = Client::connect(node.address("length"), length()).await;
    second.end().await;
    let line = node.wait_for_log("the node is full", |line| line["max_sessions"] == 1);
    assert_eq!((&line["level"], &line["times"]), (&"WARN".into(), &1.into()));
}

#[tokio::test]
async fn a_path_that_nobody_serves_is_refused_and_counted() {
    let (_fpm, node) = stage(1);
    let answer = Client::try_upgrade(node.address("web"), "/nowhere", "").await.err().expect("refused");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert_eq!(node.metric("longwire_connections_refused_total", "reason=\"handshake_refused\""), 1.0);
}
