//! Frames there and back through the real php-fpm: whole, in order, for each framing.

use std::sync::Arc;

use longwire::proto::framing::{DelimiterFraming, FrameKind, Framing, Item, LengthFraming};
use tokio::task::JoinSet;

use crate::support::client::{Client, Receiver, noise};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};

pub const ECHO: &str =
    "$data = file_get_contents('php://input'); header('Content-Length: ' . strlen($data)); echo $data;";

const SESSIONS: usize = 1000;
const FRAMES: u64 = 50;
const MAX_BODY: u64 = 70_000;

pub const LISTENERS: &str = r#"
[listeners.length]
bind = "127.0.0.1:0"
app = "app"
[listeners.delimiter]
bind = "127.0.0.1:0"
app = "app"
framing = { type = "delimiter", delimiter = "<end of frame>" }
[listeners.raw]
bind = "127.0.0.1:0"
app = "app"
framing = { type = "raw" }
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/ws" = "app" }
# The client of these tests answers no pings.
websocket = { ping_interval = 0 }
"#;

fn body(session: u64, frame: u64) -> bytes::Bytes {
    let seed = session * FRAMES + frame + 1;
    // The first is empty, the second the longest: both ends are always there.
    let len = match frame {
        0 => 0,
        1 => MAX_BODY,
        _ => u64::from_le_bytes(noise(seed, 8)[..].try_into().unwrap()) % (MAX_BODY + 1),
    };
    noise(seed, len as usize)
}

/// Sends frames of 0 to 70 000 random bytes and gets each back, whole and in order.
pub async fn exchange(mut client: Client, session: u64, is_raw: bool) {
    let sender = async {
        for frame in 0..FRAMES {
            client.sender.send(FrameKind::Binary, &body(session, frame)).await;
        }
    };
    let receiver = async {
        // Raw has no frames on the wire: what must be the same is the bytes, however they are cut.
        let mut expected: Vec<u8> = Vec::new();
        for frame in 0..FRAMES {
            let sent = body(session, frame);
            if is_raw {
                expected.extend_from_slice(&sent);
                if frame + 1 == FRAMES {
                    expect_bytes(&mut client.receiver, &expected, session).await;
                }
            } else {
                let got = client.receiver.frame().await;
                assert_eq!(got.body.len(), sent.len(), "session {session} frame {frame} has another length");
                assert!(got.body == sent, "session {session} frame {frame} differs");
            }
        }
    };
    tokio::join!(sender, receiver);
    client.sender.finish().await;
    let rest = client.receiver.next().await;
    assert!(matches!(rest, None | Some(Item::Close { .. })), "session {session} got more than it sent: {rest:?}");
}

async fn expect_bytes(receiver: &mut Receiver, mut expected: &[u8], session: u64) {
    while !expected.is_empty() {
        let got = receiver.frame().await.body;
        assert!(expected.starts_with(&got), "session {session} differs {} bytes before the end", expected.len());
        expected = &expected[got.len()..];
    }
}

/// Runs `sessions` of a framing at once, and fails at the first that fails.
async fn run(node: &Longwire, listener: &str, framing: Option<Framing>, first: u64, tasks: &mut JoinSet<()>) {
    let address = node.address(listener);
    for session in first..first + SESSIONS as u64 {
        let client = match &framing {
            Some(framing) => Client::connect(address, framing.clone()).await,
            None => Client::upgrade(address, "/ws", "").await,
        };
        tasks.spawn(exchange(client, session, framing == Some(Framing::Raw)));
    }
}

/// Fails at the first that has failed.
pub async fn all_ended(mut tasks: JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

fn echo_node(fpm: &PhpFpm) -> Longwire {
    let script = fpm.script("echo.php", ECHO);
    Longwire::with(fpm, &script, "", "queue_timeout = \"60s\"", LISTENERS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_length_and_a_thousand_websocket_sessions_get_every_echo_in_order() {
    let fpm = Pool::of(4).start();
    let node = echo_node(&fpm);
    let mut tasks = JoinSet::new();
    run(&node, "length", Some(Framing::Length(LengthFraming::default())), 0, &mut tasks).await;
    run(&node, "web", None, 100_000, &mut tasks).await;
    all_ended(tasks).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_delimited_and_a_thousand_raw_sessions_get_every_echo_in_order() {
    let fpm = Pool::of(4).start();
    let node = echo_node(&fpm);
    let delimiter = DelimiterFraming { delimiter: b"<end of frame>".to_vec(), strip_cr: false };
    let mut tasks = JoinSet::new();
    run(&node, "delimiter", Some(Framing::Delimiter(Arc::new(delimiter))), 200_000, &mut tasks).await;
    run(&node, "raw", Some(Framing::Raw), 300_000, &mut tasks).await;
    all_ended(tasks).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
}
