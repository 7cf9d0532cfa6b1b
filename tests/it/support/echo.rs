//! A handler that echoes, listeners for it, and an exchange of many frames that checks each echo.

use longwire::proto::framing::{FrameKind, Item};
use tokio::task::JoinSet;

use super::client::{Client, Receiver, noise};

pub const ECHO: &str =
    "$data = file_get_contents('php://input'); header('Content-Length: ' . strlen($data)); echo $data;";

const FRAMES: u64 = 50;
const MAX_BODY: u64 = 70_000;

/// A listener for each framing that a client of the tests speaks.
pub const EACH_FRAMING: &str = r#"
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
    // The first frame is empty and the second has the maximum length, so both extremes are always tested.
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
        // Raw has no frame boundaries on the wire, so only the bytes are compared.
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

/// Waits for all tasks; fails as soon as one has failed.
pub async fn all_ended(mut tasks: JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}
