//! Framings in Lua: scripts that cut and write frames, with the real php-fpm, and scripts that fail.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use longwire::proto::command::{Action, Message as Push, Target};
use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_websockets::{ClientBuilder, Config, MaybeTlsStream, Message, WebSocketStream};

use crate::support::client::{Client, noise};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::router::{Router, name};

const SESSIONS: u64 = 200;
const FRAMES: u64 = 20;
const PUSHES: u64 = 25;
const MAX_BODY: u64 = 3_000;
/// Joins the channel with the first frame, and echoes.
const ECHO: &str = "header('Longwire-Join: news'); echo file_get_contents('php://input');";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua").join(name)
}

/// A node with one listener, `lua`, and one of length framing beside it.
fn node(fpm: &PhpFpm, script: &Path, options: &str, more: &str) -> Longwire {
    let handler = fpm.script("echo.php", ECHO);
    let listeners = format!(
        "[listeners.lua]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = {{ type = \"lua\", script = {script:?}{options} }}\n\
         [listeners.plain]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{more}"
    );
    Longwire::with(fpm, &handler, "outbox_bytes = \"16 MiB\"", "queue_timeout = \"60s\"", &listeners)
}

fn plain() -> Framing {
    Framing::Length(LengthFraming::default())
}

/// A frame of a session. It contains the numbers of the session and the frame, and is never empty.
fn body(session: u64, frame: u64) -> Vec<u8> {
    let seed = session * FRAMES + frame + 1;
    let len = if frame == 1 { MAX_BODY } else { u64::from(noise(seed, 1)[0]) * MAX_BODY / 255 };
    let mut body = format!("echo {session} {frame} ").into_bytes();
    body.extend_from_slice(&noise(seed, len as usize));
    body
}

/// Counts what one session has received. All echoes, and all pushes of each publisher, must come in order.
#[derive(Default)]
struct Inbox {
    echoes: u64,
    pushes: [u64; 2],
}

impl Inbox {
    fn take(&mut self, session: u64, got: &[u8]) {
        let push = std::str::from_utf8(got).ok().and_then(|text| text.strip_prefix("push "));
        if let Some((publisher, number)) = push.and_then(|text| text.split_once(' ')) {
            let seen = &mut self.pushes[publisher.parse::<usize>().unwrap()];
            assert_eq!(number.parse(), Ok(*seen), "session {session}, publisher {publisher}");
            *seen += 1;
            return;
        }
        let expected = body(session, self.echoes);
        assert!(got == expected, "session {session}: echo {} differs, it has {} bytes", self.echoes, got.len());
        self.echoes += 1;
    }

    fn is_complete(&self) -> bool {
        self.echoes == FRAMES && self.pushes == [PUSHES, PUSHES]
    }
}

/// Pushes numbered messages while sessions talk: one publisher to the channel, the other to all.
async fn publish(node: &Longwire, publisher: usize) {
    let mut router = Router::connect(node.address("router"), "").await;
    for number in 0..PUSHES {
        let to = match publisher {
            0 => Target::Channel(name("news")),
            _ => Target::All,
        };
        let push = Push::new(format!("push {publisher} {number}"));
        let receipt = router.do_to(to, Action::Send(push)).await;
        assert_eq!(u64::from(receipt.reached + receipt.queued), SESSIONS, "{receipt:?}");
    }
}

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn web_socket(address: SocketAddr) -> WebSocket {
    let uri = format!("ws://{address}/").parse().unwrap();
    let config = Config::default().frame_size(1_000);
    ClientBuilder::from_uri(uri).config(config).connect().await.expect("the script shakes hands").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_is_a_websocket_server_serves_200_sessions_of_a_real_client() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, &script("websocket.lua"), "", "");
    let address = node.address("lua");
    let mut clients = Vec::new();
    for session in 0..SESSIONS {
        let mut client = web_socket(address).await;
        // The first one joins.
        client.send(Message::binary(body(session, 0))).await.unwrap();
        let mut inbox = Inbox::default();
        inbox.take(session, client.next().await.unwrap().unwrap().as_payload());
        clients.push((client, inbox));
    }
    let mut tasks = JoinSet::new();
    for (session, (client, mut inbox)) in (0..).zip(clients) {
        tasks.spawn(async move {
            let (mut sender, mut receiver) = client.split();
            let sending = async {
                for frame in 1..FRAMES {
                    sender.send(Message::binary(body(session, frame))).await.unwrap();
                    if frame == FRAMES / 2 {
                        sender.send(Message::ping("are you there?")).await.unwrap();
                    }
                }
            };
            let receiving = async {
                let mut pongs = 0;
                while !inbox.is_complete() || pongs == 0 {
                    let message = receiver.next().await.expect("it goes on").unwrap();
                    match message.is_pong() {
                        true => pongs += 1,
                        false => inbox.take(session, message.as_payload()),
                    }
                }
            };
            tokio::join!(sending, receiving);
            sender.close().await.unwrap();
            while let Some(Ok(message)) = receiver.next().await {
                assert!(message.is_close(), "{message:?}");
            }
        });
    }
    tokio::join!(publish(&node, 0), publish(&node, 1));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(node.closed(SESSIONS as usize).iter().all(|line| line["reason"] == "codec_closed"));
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
}

/// A client of `checksum.lua`.
struct Summed {
    socket: TcpStream,
    /// Frames received: the script numbers them.
    received: u64,
}

fn summed(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    [&(body.len() as u16).to_be_bytes()[..], body, &sum.to_be_bytes()].concat()
}

impl Summed {
    async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).unwrap();
        Self { socket, received: 0 }
    }

    async fn next(&mut self) -> Vec<u8> {
        let len = self.socket.read_u16().await.expect("a frame comes");
        let mut frame = vec![0; usize::from(len) + 2];
        self.socket.read_exact(&mut frame).await.expect("it is whole");
        let (body, sum) = frame.split_at(usize::from(len));
        assert!(summed(body).ends_with(sum), "the checksum is right");
        assert_eq!(u64::from(body[0]), self.received & 0xff, "frames leave in the order in which the script made them");
        self.received += 1;
        body[1..].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_with_a_checksum_serves_200_sessions_and_frames_leave_in_the_order_it_made_them() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, &script("checksum.lua"), "", "");
    let mut clients = Vec::new();
    for session in 0..SESSIONS {
        let mut client = Summed::connect(node.address("lua")).await;
        // In two pieces, cut anywhere.
        let first = summed(&body(session, 0));
        let (head, tail) = first.split_at((session as usize + 1).min(first.len()));
        client.socket.write_all(head).await.unwrap();
        client.socket.write_all(tail).await.unwrap();
        let mut inbox = Inbox::default();
        inbox.take(session, &client.next().await);
        clients.push((client, inbox));
    }
    let mut tasks = JoinSet::new();
    for (session, (mut client, mut inbox)) in (0..).zip(clients) {
        tasks.spawn(async move {
            // Send all at once, so that one read has many frames.
            let all: Vec<u8> = (1..FRAMES).flat_map(|frame| summed(&body(session, frame))).collect();
            client.socket.write_all(&all).await.unwrap();
            while !inbox.is_complete() {
                inbox.take(session, &client.next().await);
            }
            client.socket.shutdown().await.unwrap();
            assert_eq!(client.socket.read(&mut [0]).await.unwrap(), 0, "no further bytes may come");
        });
    }
    tokio::join!(publish(&node, 0), publish(&node, 1));
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert!(node.closed(SESSIONS as usize).iter().all(|line| line["reason"] == "client_closed"));

    let mut liar = Summed::connect(node.address("lua")).await;
    liar.socket.write_all(b"\0\x02hi\0\0").await.unwrap();
    let mut last = String::new();
    liar.socket.read_to_string(&mut last).await.unwrap();
    assert_eq!(last, "bad checksum");
    drop(liar);
    let count = || node.metric("longwire_sessions_closed_total", "reason=\"codec_closed\"");
    eventually("it is counted", || count() == 1.0).await;
}

/// A node with a single VM, which all sessions share.
fn one_vm(fpm: &PhpFpm, options: &str) -> Longwire {
    node(fpm, &script("faults.lua"), options, "[node]\nthreads = 1\n")
}

async fn connect(node: &Longwire) -> Client {
    Client::connect(node.address("lua"), plain()).await
}

/// Lets a separate session cause a fault: it must be closed with the reason, and the log must name the line of the script.
async fn check_fault(node: &Longwire, bystander: &mut Client, fault: &str, reason: &str, text: &str) {
    let count = |reason: &str| node.metric("longwire_sessions_closed_total", &format!("reason=\"{reason}\""));
    let before = count(reason);
    let mut offender = connect(node).await;
    assert_eq!(offender.ask("hello").await, "hello");
    offender.text(fault).await;
    assert_eq!(offender.end().await, None);
    drop(offender);
    eventually("the session is counted", || count(reason) == before + 1.0).await;
    let closed = node.wait_for_log(fault, |line| {
        line["message"] == "session closed" && line["detail"].as_str().is_some_and(|detail| detail.contains(text))
    });
    assert_eq!(closed["reason"], reason, "{closed}");
    assert_eq!(bystander.ask(fault.len().to_string().as_str()).await, fault.len().to_string(), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_goes_wrong_ends_its_session_and_no_other() {
    let fpm = Pool::of(1).start();
    let node = one_vm(&fpm, ", max_instructions = 20_000_000, max_memory_bytes = \"16 MiB\"");
    let mut bystander = connect(&node).await;
    assert_eq!(bystander.ask("hello").await, "hello");
    let at_rest = node.settled_memory().await;
    for (fault, reason, text) in [
        ("loop", "codec_too_long", "faults.lua:9: too many instructions"),
        ("pattern", "codec_too_long", "faults.lua:14: too many instructions"),
        ("guarded_loop", "codec_too_long", "too many instructions"),
        ("coroutine_loop", "codec_too_long", "too many instructions"),
        ("error", "codec_failed", "faults.lua:31: attempt to index a nil value (local 'nothing')"),
        ("eat", "codec_out_of_memory", "onRead: not enough memory: max_memory_bytes is 16 MiB"),
        ("rep", "codec_failed", "resulting string too large"),
        ("send_much", "codec_out_of_memory", "not enough memory for the bytes to send"),
        ("nothing_taken", "codec_failed", "took nothing"),
        ("exit", "codec_failed", "faults.lua:65: os.exit"),
        ("stale", "codec_failed", "faults.lua:69: size: this handle is of another call"),
        ("foreign", "codec_failed", "faults.lua:73: send: this handle is of another call"),
    ] {
        check_fault(&node, &mut bystander, fault, reason, text).await;
    }
    for _ in 0..20 {
        check_fault(&node, &mut bystander, "eat", "codec_out_of_memory", "not enough memory").await;
    }
    let grown = node.settled_memory().await.saturating_sub(at_rest);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    let warned = node
        .wait_for_log("a failure is a warning", |line| line["reason"] == "codec_too_long" && line["level"] == "WARN");
    assert_eq!((&warned["script"], &warned["listener"]), (&"faults.lua".into(), &"lua".into()), "{warned}");
    bystander.finish().await;
    assert_eq!(bystander.end().await, None);
}

/// Each of these frames would occupy a worker for minutes, and there are only two workers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pattern_that_matches_in_too_many_ways_holds_nobody_up() {
    let fpm = Pool::of(1).start();
    let mut node = node(&fpm, &script("faults.lua"), "", "[node]\nthreads = 2\n");
    let mut others = Client::connect(node.address("plain"), plain()).await;
    let mut offenders = Vec::new();
    for _ in 0..6 {
        let mut offender = connect(&node).await;
        assert_eq!(offender.ask("hello").await, "hello");
        offenders.push(offender);
    }
    for offender in &mut offenders {
        offender.text("pattern").await;
    }
    assert_eq!(node.admin("/live").0, 200);
    assert_eq!(others.ask("still here").await, "still here");
    for offender in &mut offenders {
        assert_eq!(offender.end().await, None);
    }
    let closed = node.closed(6);
    assert!(closed.iter().all(|line| line["reason"] == "codec_too_long"), "{closed:?}");
    node.terminate();
    assert!(node.wait().success());
}

/// A script that may run for an hour occupies all workers. The operator must still get health answers and be able to end the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_signals_need_no_thread_that_a_script_can_hold() {
    let fpm = Pool::of(1).start();
    let more = "[node]\nthreads = 2\n[limits]\ndrain_timeout = \"1s\"\n";
    let mut node = node(&fpm, &script("faults.lua"), ", max_instructions = 1_000_000_000_000", more);
    let mut offenders = Vec::new();
    for _ in 0..6 {
        let mut offender = connect(&node).await;
        assert_eq!(offender.ask("hello").await, "hello");
        offenders.push(offender);
    }
    let mut others = Client::connect(node.address("plain"), plain()).await;
    assert_eq!(others.ask("hello").await, "hello");
    for offender in &mut offenders {
        offender.text("loop").await;
    }
    // Wait until both workers are inside the script, so that no client is answered any more.
    loop {
        others.text("anybody?").await;
        if tokio::time::timeout(Duration::from_secs(1), others.frame()).await.is_err() {
            break;
        }
    }
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(node.admin(path).0, 200, "{path}");
    }
    node.terminate();
    // Sessions were given up, so the exit status is 1.
    assert_eq!(node.wait().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_hoards_memory_gets_a_fresh_vm_and_its_other_sessions_stay() {
    let fpm = Pool::of(1).start();
    let node = one_vm(&fpm, ", max_memory_bytes = \"8 MiB\"");
    let mut bystander = connect(&node).await;
    assert_eq!(bystander.ask("hello").await, "hello");
    check_fault(&node, &mut bystander, "hoard", "codec_out_of_memory", "not enough memory").await;
    node.wait_for_log("the VM is set aside", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("fresh one"))
    });
    // The new session is in the fresh VM.
    let mut newcomer = connect(&node).await;
    assert_eq!(newcomer.ask("hello").await, "hello");
    check_fault(&node, &mut newcomer, "hoard", "codec_out_of_memory", "not enough memory").await;
    // Two VMs are set aside now, but at most as many as are in use are kept. So the first one has been ended.
    bystander.text("hello").await;
    assert_eq!(bystander.end().await, None);
    let closed = node.wait_for_log("its sessions end", |line| {
        line["detail"].as_str().is_some_and(|detail| detail.contains("the script's VM has ended"))
    });
    assert_eq!(closed["reason"], "codec_out_of_memory");
    assert_eq!(newcomer.ask("still here").await, "still here");
    let at_rest = node.settled_memory().await;
    for _ in 0..10 {
        let mut offender = connect(&node).await;
        offender.text("hoard").await;
        assert_eq!(offender.end().await, None);
    }
    let grown = node.settled_memory().await.saturating_sub(at_rest);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_the_script_cannot_write_costs_that_push_and_its_sessions_stay() {
    let fpm = Pool::of(1).start();
    let node = one_vm(&fpm, ", max_instructions = 1_000_000");
    let mut router = Router::connect(node.address("router"), "").await;
    let mut others = Client::connect(node.address("plain"), plain()).await;
    assert_eq!(others.ask("hello").await, "hello");
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = connect(&node).await;
        assert_eq!(client.ask("hello").await, "hello");
        clients.push(client);
    }
    for (fault, reason) in [("write error", "codec_failed"), ("write loop", "codec_too_long")] {
        let receipt = router.do_to(Target::All, Action::Send(Push::new(fault))).await;
        assert_eq!((receipt.reached, receipt.refused), (1, 5), "{receipt:?}");
        assert_eq!(others.frame().await.body, fault);
        for client in &mut clients {
            assert_eq!(client.ask("still here").await, "still here", "and nothing before that");
        }
        let labels = format!("reason=\"{reason}\"");
        assert_eq!(node.metric("longwire_script_failures_total", &labels), 5.0);
        node.wait_for_log("it is logged", |line| line["reason"] == reason && line["level"] == "WARN");
        // For a reply that cannot be written, the event fails and on_error decides.
        let failed = || node.metric("longwire_events_failed_total", "cause=\"reply_unframeable\"");
        let before = failed();
        clients[0].text(fault).await;
        eventually("its event has failed", || failed() == before + 1.0).await;
        assert_eq!(clients[0].ask("still here").await, "still here");
    }
    let refused = node.metric("longwire_pushes_total", "fate=\"refused\"");
    assert_eq!((refused, node.metric("longwire_sessions_closed_total", "")), (10.0, 0.0));
}

/// A node whose script is this text.
fn node_of(fpm: &PhpFpm, text: &str, app: &str) -> Longwire {
    let path = fpm.dir().join("codec.lua");
    std::fs::write(&path, text).unwrap();
    let handler = fpm.script("echo.php", ECHO);
    let listeners = format!(
        "[listeners.lua]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = {{ type = \"lua\", script = {path:?} }}\n"
    );
    Longwire::with(fpm, &handler, app, "", &listeners)
}

/// The lines that the script printed about a session, in order.
fn printed(node: &Longwire, session: &str) -> Vec<String> {
    node.log_lines(|line| line["target"] == "longwire::lua" && line["session"] == session)
        .iter()
        .map(|line| line["message"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_function_is_called_as_often_as_it_should_with_the_requestid_that_it_should() {
    let fpm = Pool::of(1).start();
    // The script handles `skip` without a frame, waits at `more`, and leaves all else to the native framing. It sends a text before its
    // frame.
    let text = r#"
        local fb, fc = require("fooking.buffer"), require("fooking.connection")
        function onConnect(conn) print("connect", fc.id(conn)) fc.send(conn, "hi!") end
        function onClose(conn) print("close", fb.size(fc.buffer(conn))) fc.send(conn, "bye") end
        function onRead(conn, requestid, input, output)
            print("read", requestid, fb.size(input), fb.size(output), fc.buffer(conn) == input)
            if fb.data(input):sub(1, 4) == "skip" then fb.seek(input, 4) return 1 end
            if fb.data(input):sub(1, 4) == "more" and fb.size(input) < 6 then return -1 end
            if fb.data(input):sub(1, 4) == "more" then fb.append(output, 12) fb.seek(input, 99) return 0.5 end
        end
        function onWrite(conn, requestid, input, output)
            print("write", requestid, fb.data(input), fb.size(output))
            fc.send(conn, "<")
            fb.append(input, ">")
        end
    "#;
    let node = node_of(&fpm, text, "events = [\"connect\", \"close\"]");
    let address = node.address("lua");
    let mut socket = TcpStream::connect(address).await.unwrap();
    let mut expect = [0; 3];
    socket.read_exact(&mut expect).await.unwrap();
    assert_eq!(&expect, b"hi!", "before anything was said");
    for (say, answer, reads) in [
        (&b"skip\0\0\0\x01a"[..], &b"<\0\0\0\x02a>"[..], 2),
        (b"more", b"", 3),
        (b"!?", b"<\0\0\0\x0312>", 4),
        (b"skipskip\0\0\0", b"", 7),
        (b"\x02bc", b"<\0\0\0\x03bc>", 8),
    ] {
        socket.write_all(say).await.unwrap();
        let mut got = vec![0; answer.len()];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(got, answer, "to {say:?}");
        let id =
            node.wait_for_log("it connects", |line| line["message"].as_str().is_some_and(|m| m.starts_with("connect")));
        let id = id["session"].as_str().unwrap().to_owned();
        let count = |what: &str| printed(&node, &id).iter().filter(|line| line.starts_with(what)).count();
        // The log may come a little later than the answer.
        eventually("the script has read all bytes so far", || count("read") == reads).await;
        assert_eq!((count("connect"), count("close")), (1, 0));
    }
    socket.shutdown().await.unwrap();
    let mut last = Vec::new();
    socket.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, b"bye");
    let closed = node.closed(1);
    let id = closed[0]["session"].as_str().unwrap();
    let lines = printed(&node, id);
    let reads: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("read\t")).collect();
    assert_eq!(
        reads,
        [
            "0\t9\t0\ttrue",
            "1\t5\t0\ttrue",
            "2\t4\t0\ttrue",
            "2\t6\t0\ttrue",
            "3\t11\t0\ttrue",
            "4\t7\t0\ttrue",
            "5\t3\t0\ttrue",
            "5\t6\t0\ttrue"
        ]
    );
    let writes: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("write\t")).collect();
    assert_eq!(writes, ["2\ta\t0", "3\t12\t0", "6\tbc\t0"]);
    assert_eq!(lines.first().map(String::as_str), Some(&*format!("connect\t{id}")));
    assert_eq!(lines.iter().filter(|line| line.starts_with("close")).collect::<Vec<_>>(), ["close\t0"]);

    // `close` is also called, once, for a client that resets in the middle of a frame.
    let socket = TcpStream::connect(address).await.unwrap();
    socket.writable().await.unwrap();
    socket.try_write(b"more").unwrap();
    let of_others = |line: &serde_json::Value| line["target"] == "longwire::lua" && line["session"] != *id;
    eventually("it has read", || node.log_lines(of_others).len() == 2).await;
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    let closed = node.closed(2);
    assert_eq!(closed[1]["reason"], "client_gone");
    let lines = printed(&node, closed[1]["session"].as_str().unwrap());
    assert_eq!(&lines[1..], ["read\t0\t4\t0\ttrue", "close\t4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_never_hears_of_a_client_that_the_script_turns_away_at_once() {
    let fpm = Pool::of(1).start();
    let text = r#"
        local fc = require("fooking.connection")
        function onConnect(conn) fc.send(conn, "full") fc.close(conn) end
    "#;
    let node = node_of(&fpm, text, "events = [\"connect\", \"close\"]");
    let mut socket = TcpStream::connect(node.address("lua")).await.unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "full");
    drop(socket);
    let closed = node.closed(1);
    assert_eq!((&closed[0]["reason"], &closed[0]["events"]), (&"codec_closed".into(), &0.into()), "{}", closed[0]);
    assert_eq!(node.metric("longwire_upstream_requests_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_without_functions_is_the_native_framing() {
    let fpm = Pool::of(1).start();
    let node = node_of(&fpm, "-- nothing", "max_frame_bytes = 1000");
    let mut client = connect(&node).await;
    assert_eq!(client.ask("hello").await, "hello");
    let whole = noise(7, 1000);
    client.send(FrameKind::Binary, &whole).await;
    assert_eq!(client.frame().await.body, whole);
    client.send(FrameKind::Binary, &noise(7, 1001)).await;
    assert_eq!(client.end().await, None);
    assert_eq!(node.closed(1)[0]["reason"], "frame_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_ends_its_frame_is_closed_at_the_limit() {
    let fpm = Pool::of(1).start();
    let node = node_of(&fpm, "function onRead() return -1 end", "max_frame_bytes = 1000");
    let mut socket = TcpStream::connect(node.address("lua")).await.unwrap();
    // More bytes than the limit and the allowance for a header.
    let _ = socket.write_all(&vec![0; 64 * 1024]).await;
    let _ = socket.read_to_end(&mut Vec::new()).await;
    let closed = node.closed(1);
    assert_eq!(closed[0]["reason"], "frame_too_large", "{}", closed[0]);
    let detail = "a frame of 17385 bytes is above the limit of 17384";
    assert_eq!(closed[0]["detail"], detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_manual_works_as_pasted() {
    let manual = include_str!("../../../docs/lua.md");
    let code =
        manual.split("```lua\n-- codec.lua").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let fpm = Pool::of(1).start();
    let node = node_of(&fpm, code, "");
    let mut socket = TcpStream::connect(node.address("lua")).await.unwrap();
    for (say, answer) in
        [("SEND 5\nhello", "OK 5\nhello"), ("PING\nSEND 2\nhi", "PONG\nOK 2\nhi"), ("SEND x\n", "ERROR\n")]
    {
        socket.write_all(say.as_bytes()).await.unwrap();
        let mut got = vec![0; answer.len()];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&got), answer);
    }
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert_eq!(node.closed(1)[0]["reason"], "codec_closed");
}
