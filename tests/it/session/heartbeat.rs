//! The heartbeat on every stream framing, and its bounds against clients that abuse it. `cmpp.rs` tests it in a whole protocol.

use std::sync::Arc;
use std::time::Duration;

use longwire::proto::framing::{DelimiterFraming, FrameKind, Framing, Item, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::client::Client;
use crate::support::echo::ECHO;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};

const PATIENCE: Duration = Duration::from_secs(60);

/// Probes come early, and the timeout for answers is long enough for a slow machine.
const SOON: &str = "after = \"200ms\"\nevery = \"2s\"\nmax_unanswered = 2\n";

fn node(fpm: &PhpFpm, app: &str, framing: &str, heartbeat: &str) -> Longwire {
    let script = fpm.script("echo.php", ECHO);
    let listener = format!(
        "[listeners.beating]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = {{ {framing} }}\n\
         [listeners.beating.heartbeat]\n{heartbeat}"
    );
    Longwire::with(fpm, &script, app, "", &listener)
}

/// Checks two clients. One is probed and answers, gets answers to its own probes, and its frames are echoed as usual. The other sends
/// nothing and is closed. `ping` and `pong` are bodies of the framing.
async fn check(node: &Longwire, framing: Framing, ping: &[u8], pong: &[u8]) {
    let address = node.address("beating");
    let mut client = Client::connect(address, framing.clone()).await;
    let mut silent = Client::connect(address, framing).await;
    for _ in 0..3 {
        assert_eq!(client.frame().await.body, ping);
        client.send(FrameKind::Binary, pong).await;
    }
    for _ in 0..3 {
        client.send(FrameKind::Binary, ping).await;
        loop {
            let frame = client.frame().await.body;
            if frame == pong {
                break;
            }
            assert_eq!(frame, ping);
            client.send(FrameKind::Binary, pong).await;
        }
    }
    client.text("and PHP?").await;
    loop {
        let frame = client.frame().await.body;
        if frame == b"and PHP?"[..] {
            break;
        }
        assert_eq!(frame, ping);
        client.send(FrameKind::Binary, pong).await;
    }
    for _ in 0..2 {
        assert_eq!(silent.frame().await.body, ping);
    }
    assert_eq!(silent.end().await, None);
    assert_eq!(node.closed(1)[0]["reason"], "peer_timeout");
    assert_eq!(node.metric("longwire_frames_in_total", ""), 1.0, "PHP has seen one frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_ping_and_pong() {
    let fpm = Pool::of(1).start();
    let pattern = |word: &str| format!("{{ offset = 0, bytes = \"{word}\" }}");
    let heartbeat = format!(
        "{SOON}send = \"PING\\r\\n\"\nanswer = {pong}\nprobe = {ping}\nreply = \"PONG\\r\\n\"\n",
        pong = pattern("PONG"),
        ping = pattern("PING")
    );
    let node = node(&fpm, "", "type = \"delimiter\", delimiter = \"\\r\\n\"", &heartbeat);
    let framing = DelimiterFraming { delimiter: b"\r\n".to_vec(), strip_cr: false };
    check(&node, Framing::Delimiter(Arc::new(framing)), b"PING", b"PONG").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_whose_header_php_does_not_see_are_looked_at_without_it() {
    let fpm = Pool::of(1).start();
    let heartbeat = format!(
        "{SOON}send = [0, 0, 0, 1, 1]\nanswer = {{ offset = 0, bytes = [2] }}\nprobe = {{ offset = 0, bytes = [1] }}\n\
         reply = [0, 0, 0, 1, 2]\n"
    );
    let node = node(&fpm, "", "", &heartbeat);
    check(&node, Framing::Length(LengthFraming::default()), &[1], &[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_raw_whatever_comes_answers() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "", "type = \"raw\"", &format!("{SOON}send = \"are you there?\"\n"));
    let mut silent = Client::connect(node.address("beating"), Framing::Raw).await;
    let mut client = Client::connect(node.address("beating"), Framing::Raw).await;
    let (mut heard, mut asked, mut echoed) = (Vec::new(), 0, 0);
    // Go on until the silent client has been closed. Raw bytes may be cut and joined at any place.
    while node.log_lines(|line| line["reason"] == "peer_timeout").is_empty() || echoed < asked {
        heard.extend_from_slice(&client.frame().await.body);
        loop {
            if heard.starts_with(b"are you there?") {
                heard.drain(..14);
                asked += 1;
                client.text("yes").await;
            } else if heard.starts_with(b"yes") {
                heard.drain(..3);
                echoed += 1;
            } else {
                break;
            }
        }
    }
    assert!(asked > 2, "it was asked {asked} times");
    let mut heard = Vec::new();
    while let Some(Item::Frame(frame)) = silent.next().await {
        heard.extend_from_slice(&frame.body);
    }
    assert_eq!(heard, b"are you there?are you there?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_never_reads_fills_its_outbox_and_no_more() {
    let fpm = Pool::of(1).start();
    let app = "outbox_bytes = \"64 KiB\"\nsend_timeout = \"1s\"";
    let heartbeat = "probe = { offset = 0, bytes = \"?\" }\nreply = [0, 0, 0, 1, 33]\n";
    let node = node(&fpm, app, "", heartbeat);
    let before = node.settled_memory().await;
    let mut client = TcpStream::connect(node.address("beating")).await.expect("it listens");
    // Each probe causes a reply of the same size, so bytes that were read but not written wait in the outbox.
    let probes = b"\0\0\0\x01?".repeat(10_000);
    let mut sent = 0;
    while let Ok(Ok(())) = timeout(PATIENCE, client.write_all(&probes)).await {
        sent += probes.len();
        assert!(sent < 1 << 30, "it is read without end");
    }
    assert_eq!(node.closed(1)[0]["reason"], "slow_reader");
    let grown = node.settled_memory().await.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for a client that may cost 64 KiB");
    // Another client is served as usual.
    let mut other = TcpStream::connect(node.address("beating")).await.expect("it listens");
    other.write_all(b"\0\0\0\x01?\0\0\0\x02hi").await.expect("it reads");
    let mut answers = [0; 11];
    timeout(PATIENCE, other.read_exact(&mut answers)).await.expect("in time").expect("it answers");
    assert_eq!(&answers, b"\0\0\0\x01!\0\0\0\x02hi");
}
