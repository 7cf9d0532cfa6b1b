//! Unusual orders of events: a client that leaves while its replies stream and wait, pushes in the middle of a reply, a node that was
//! stopped for a while, a drain in the middle of a burst. `session/simulation.rs` searches for such orders at random. The tests here
//! repeat those that have occurred, with the real php-fpm.

use std::time::{Duration, Instant};

use bytes::Bytes;
use longwire::proto::command::{Action, Message, Target};
use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::echo::{EACH_FRAMING, ECHO};
use crate::support::event_stream::Http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::{Router, session};

/// Depending on the message: streams, sends a large reply, waits for a file, notes its begin and end, or echoes.
const HANDLER: &str = r#"
$note = fn (string $line) => file_put_contents(__DIR__ . '/seen', "$line\n", FILE_APPEND | LOCK_EX);
$flush = function (string $text) { echo $text; ob_flush(); flush(); };
$go = function () { while (!file_exists(__DIR__ . '/go')) { usleep(2000); clearstatcache(); } };
$event = $_SERVER['LONGWIRE_EVENT'];
if ($event === 'connect') {
    ignore_user_abort(true);
    $note('connect begins');
    if (isset($_GET['slow']) || file_exists(__DIR__ . '/slow')) { usleep(500000); }
    $note('connect ends');
    exit;
}
if ($event === 'close') { $note("close $_SERVER[SESSIONID]"); exit; }
$body = file_get_contents('php://input');
switch ($body) {
    case 'id': exit($_SERVER['SESSIONID']);
    case 'stream': for ($i = 0; $i < 100; $i++) { $flush(str_repeat('s', 100)); usleep(20000); } exit;
    case 'much': header('Content-Length: 600000'); exit(str_repeat('m', 600000));
    case 'held': $flush('begun '); $go(); for ($i = 0; $i < 10; $i++) { $flush("$i "); usleep(5000); } exit('ended');
    case 'silent': $flush(str_repeat('x', 20 << 20)); $go(); exit('ended');
    case 'bye': header('Longwire-Close: 4001 enough'); exit('closing');
    default: exit($body);
}
"#;

fn stage(workers: usize, app: &str, listeners: &str) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(workers).start();
    let script = fpm.script("handler.php", HANDLER);
    let node = Longwire::with(&fpm, &script, app, "", listeners);
    (fpm, node)
}

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

fn go(fpm: &PhpFpm) {
    std::fs::write(fpm.dir().join("go"), "").unwrap();
}

fn seen(fpm: &PhpFpm) -> String {
    std::fs::read_to_string(fpm.dir().join("seen")).unwrap_or_default()
}

async fn router(node: &Longwire) -> Router {
    Router::connect(node.address("router"), "").await
}

async fn push(node: &Longwire, id: &str, body: impl Into<Bytes>) {
    let receipt = router(node).await.do_to(Target::session(session(id)), Action::Send(Message::new(body))).await;
    assert_eq!(receipt.reached + receipt.queued, 1, "{receipt:?}");
}

/// A client of the raw framing, and its session's id.
async fn raw(node: &Longwire) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(node.address("raw")).await.unwrap();
    socket.write_all(b"id").await.unwrap();
    let mut id = [0; 16];
    socket.read_exact(&mut id).await.unwrap();
    (socket, String::from_utf8(id.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_a_reply_streams_and_frames_wait_leaves_nothing_behind() {
    const CLIENTS: usize = 8;
    let (_fpm, mut node) = stage(8, "events = [\"close\"]", EACH_FRAMING);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let address = node.address("web");
        clients.spawn(async move {
            let mut client = Client::upgrade(address, "/ws", "").await;
            for text in ["stream", "much", "x"] {
                client.text(text).await;
            }
            // It reads everything before it leaves. With unread bytes its close would be a reset.
            let whole = tokio::time::timeout(Duration::from_millis(300), client.next()).await;
            assert!(whole.is_err(), "the reply streams for two seconds");
        });
    }
    clients.join_all().await;
    eventually("all sessions have ended", || node.metric("longwire_sessions", "") == 0.0).await;
    eventually("PHP is told of every end", || {
        node.metric("longwire_upstream_requests_total", "event=\"close\"") == CLIENTS as f64
    })
    .await;
    node.terminate();
    assert!(node.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_as_large_as_an_outbox_does_not_stop_the_reply_that_it_waits_behind() {
    let (fpm, node) = stage(1, "", EACH_FRAMING);
    let (mut socket, id) = raw(&node).await;
    socket.write_all(b"held").await.unwrap();
    let mut begun = [0; 6];
    socket.read_exact(&mut begun).await.unwrap();
    push(&node, &id, vec![b'p'; 1_100_000]).await;
    go(&fpm);
    let began = Instant::now();
    let mut all = vec![0; 25 + 1_100_000];
    socket.read_exact(&mut all).await.expect("the reply goes on");
    assert_eq!(&all[..25], b"0 1 2 3 4 5 6 7 8 9 ended");
    assert!(all[25..].iter().all(|byte| *byte == b'p'));
    println!("{:?} from the push to its end", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_read_everything_is_not_slow_while_a_push_waits_behind_a_silent_script() {
    let (fpm, node) = stage(1, "send_timeout = \"500ms\"", EACH_FRAMING);
    let (mut socket, id) = raw(&node).await;
    socket.write_all(b"silent").await.unwrap();
    let mut large = vec![0; 20 << 20];
    socket.read_exact(&mut large).await.unwrap();
    push(&node, &id, "eleven byte").await;
    // Wait three times the send timeout. Nothing is sent meanwhile.
    let early = tokio::time::timeout(Duration::from_millis(1500), socket.read(&mut large)).await;
    assert!(early.is_err(), "{early:?}");
    go(&fpm);
    let mut rest = [0; 16];
    socket.read_exact(&mut rest).await.expect("it is served to the end");
    assert_eq!(&rest, b"endedeleven byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_not_blamed_for_the_time_in_which_the_node_was_stopped() {
    let heartbeat = "[listeners.delimiter.heartbeat]\nsend = \"ping<end of frame>\"\n\
                     answer = { offset = 0, bytes = \"pong\" }\nafter = \"200ms\"\nevery = \"1s\"\nmax_unanswered = 1\n";
    let listeners = EACH_FRAMING.replace("[listeners.raw]", &format!("{heartbeat}[listeners.raw]"));
    let (_fpm, node) = stage(2, "idle_timeout = \"1s\"", &listeners);
    let mut tasks = tokio::task::JoinSet::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for at in 0..20 {
        let (address, stop) = (node.address(if at % 2 == 0 { "delimiter" } else { "length" }), stop.clone());
        tasks.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            let mut buffer = [0; 4096];
            let line: &[u8] = if at % 2 == 0 { b"hi<end of frame>" } else { b"\0\0\0\x02hi" };
            while !stop.is_cancelled() {
                socket.write_all(line).await?;
                let until = tokio::time::sleep(Duration::from_millis(300));
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        read = socket.read(&mut buffer) => match read? {
                            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                            n if buffer[..n].windows(4).any(|bytes| bytes == b"ping") => {
                                socket.write_all(b"pong<end of frame>").await?;
                            }
                            _ => {}
                        },
                        () = &mut until => break,
                    }
                }
            }
            std::io::Result::Ok(())
        });
    }
    eventually("all are heard", || node.metric("longwire_frames_in_total", "") >= 40.0).await;
    for _ in 0..4 {
        node.signal(libc::SIGSTOP);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        node.signal(libc::SIGCONT);
        // Longer than every timeout for silent clients.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let closed = node.log_lines(|line| line["message"] == "session closed");
    println!("{} of 20 closed", closed.len());
    assert_eq!(closed, Vec::<serde_json::Value>::new());
    stop.cancel();
    for ended in tasks.join_all().await {
        ended.expect("no client may be refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_held_back_is_not_closed_for_the_silence() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let app = "idle_timeout = \"700ms\"\nframe_idle_timeout = \"700ms\"\nmax_frame_bytes = \"4 KiB\"\n\
               max_bytes_per_second = 1000\nburst_bytes = 4096\nrate_rule = \"wait\"";
    let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
    let mut client = Client::connect(node.address("length"), length()).await;
    // After the first two frames, the rate holds the client back for about two seconds. The third frame comes in two pieces, so that the
    // timeout inside a frame applies too.
    let frame = length().encode(FrameKind::Binary, &[b'f'; 3000]).unwrap();
    client.bytes(&[&frame[..], &frame[..], &frame[..100]].concat()).await;
    client.bytes(&frame[100..]).await;
    for number in 0..3 {
        let frame = client.receiver.next().await;
        assert!(frame.is_some(), "closed before frame {number}: {:?}", node.closed(1));
    }
}

const POLLED: &str = r#"
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/live" = "app" }
sse = { poll_gap = "5s" }
"#;

async fn polled(node: &Longwire) -> (Http, String, String) {
    let mut http = Http::one(node.address("web")).await;
    let opened = http.ask("GET", "/live?longwire=poll", &[], b"").await;
    let address = opened.headers["longwire-session"].to_str().unwrap().to_owned();
    let id = address.split_once("longwire=").unwrap().1[..16].to_owned();
    (http, address, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_answered_whatever_waits_for_the_next_poll() {
    let (_fpm, node) = stage(2, "outbox_bytes = \"8 KiB\"", POLLED);
    let (mut http, address, id) = polled(&node).await;
    push(&node, &id, vec![b'p'; 6000]).await;
    let began = Instant::now();
    let answer = http.ask("POST", &address, &[], b"hello").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello"), "after {:?}", began.elapsed());
    let polled = http.ask("GET", &address, &[], b"").await;
    assert_eq!(polled.events()[0].data.len(), 6000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_poll_after_a_handlers_close_gets_the_close_event() {
    let (_fpm, node) = stage(2, "events = [\"close\"]", POLLED);
    let (mut http, address, _) = polled(&node).await;
    assert_eq!(http.ask("POST", &address, &[], b"bye").await.text(), "closing");
    node.wait_for_log("the handler's answer is taken", |line| line["event"] == "message");
    // The client waits for a moment before it polls again.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let polled = http.ask("GET", &address, &[], b"").await;
    assert_eq!(polled.status.as_u16(), 200, "{}", polled.text());
    let events: Vec<_> = polled.events().into_iter().map(|event| (event.name, event.data)).collect();
    assert_eq!(events, [("close".into(), "4001 enough".into())]);
    assert_eq!(http.ask("GET", &address, &[], b"").await.status.as_u16(), 410);
    assert_eq!(node.closed(1)[0]["reason"], "handler_closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_connections_that_carry_nothing() {
    let (_fpm, mut node) = stage(1, "", EACH_FRAMING);
    let address = node.address("web");
    // One client sends nothing, one stops in the middle of its preface, and one speaks HTTP/2 but answers no PING.
    let silent = TcpStream::connect(address).await.unwrap();
    let mut begun = TcpStream::connect(address).await.unwrap();
    begun.write_all(b"PR").await.unwrap();
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    deaf.read_exact(&mut settings).await.unwrap();
    eventually("all three are there", || node.metric("longwire_handshakes", "") == 3.0).await;
    let began = Instant::now();
    node.terminate();
    assert!(node.wait().success());
    println!("drained after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(6), "drained after {:?}", began.elapsed());
    let given_up = node.log_lines(|line| line["message"].as_str().is_some_and(|text| text.contains("given up")));
    assert_eq!(given_up, Vec::<serde_json::Value>::new());
    drop((silent, begun, deaf));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_answers_every_frame_that_was_read_however_many_may_wait() {
    const FRAMES: usize = 100;
    let (_fpm, mut node) = stage(1, "", EACH_FRAMING);
    let mut client = Client::connect(node.address("length"), length()).await;
    let frame = length().encode(FrameKind::Binary, b"x").unwrap();
    client.bytes(&frame.repeat(FRAMES)).await;
    eventually("it is being read", || {
        node.metric("longwire_received_bytes_total", "") == (frame.len() * FRAMES) as f64
    })
    .await;
    node.terminate();
    let mut answered = 0;
    while client.receiver.next().await.is_some() {
        answered += 1;
    }
    assert_eq!(answered, FRAMES);
    assert!(node.wait().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_while_connect_runs_has_its_close_event_after_that() {
    let (fpm, node) = stage(2, "events = [\"connect\", \"close\"]", EACH_FRAMING);
    std::fs::write(fpm.dir().join("slow"), "").unwrap();
    for round in 1..=2 {
        let begins = || seen(&fpm).matches("connect begins").count();
        if round == 1 {
            let client = Client::connect(node.address("length"), length()).await;
            eventually("connect runs", || begins() == round).await;
            client.reset();
        } else {
            let mut socket = TcpStream::connect(node.address("web")).await.unwrap();
            let request = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            socket.write_all(request.as_bytes()).await.unwrap();
            eventually("connect runs", || begins() == round).await;
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        }
        eventually("the close event is told", || seen(&fpm).matches("close ").count() == round).await;
        let lines = seen(&fpm);
        let words: Vec<_> = lines.lines().skip(3 * (round - 1)).map(|line| &line[..line.len().min(12)]).collect();
        assert_eq!(words[..2], ["connect begi", "connect ends"], "{lines}");
    }
}
