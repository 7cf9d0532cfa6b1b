//! A handler, a script and clients written for fooking, run with the one line of configuration that docs/fooking.md asks for.

use std::fs;
use std::path::Path;

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// The line of docs/fooking.md.
const COMPAT: &str = "compat = \"fooking\"";

/// Prints debug output, relying on that no client sees it, and fails at every connect event. It opens a connection for each command
/// and leaves closing to PHP.
const HANDLER: &str = r#"
function order($type, $head, $body) {
    static $socket;
    $socket = stream_socket_client('tcp://' . $_SERVER['LONGWIRE_ROUTER']);
    fwrite($socket, pack('nnN', $type, strlen($head), strlen($body)) . $head . $body);
}
$sid = $_SERVER['SESSIONID'];
$event = isset($_SERVER['EVENT']) ? $_SERVER['EVENT'] : '';
$data = file_get_contents('php://input');
file_put_contents(__DIR__ . '/events.txt', "$event:" . substr($data, 0, 20) . "\n", FILE_APPEND | LOCK_EX);
if ($event == 1) {
    header('Content-Length: 7');
    echo 'welcome';
    if ($_SERVER['QUERY_STRING'] !== 'ok') {
        throw new Exception('the database is away');
    }
    exit;
}
if ($event == 2) {
    order(6, '', "leave $sid");
    header('Content-Length: 3');
    echo 'bye';
    exit;
}
list($what, $text) = explode(' ', $data, 2) + array('', '');
echo "debug: $what\n";
switch ($what) {
    case 'reply':
        // Content-Length counts from the end of the output, so the debug output before the text is left out.
        header('Content-Length: ' . strlen($text));
        header('Content-Offset: -' . strlen($text));
        echo $text;
        break;
    case 'empty':
        header('Content-Length: 0');
        break;
    case 'join':
        order(7, $sid, $text);
        break;
    case 'all':
        order(6, '', $text);
        break;
    case 'many':
        for ($i = 0; $i < 50; $i++) {
            order(5, $sid, "$text $i");
        }
        break;
    case 'channel':
        order(9, $text, '');
        order(9, $text, "to $text");
        break;
    case 'fail':
        throw new Exception('the database is away');
}
"#;

fn node(fpm: &PhpFpm) -> Longwire {
    let handler = fpm.script("handler.php", HANDLER);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lua/ancestor.lua");
    let listeners = format!(
        "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n\
         [listeners.lua]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = {{ type = \"lua\", script = {script:?} }}\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = {{ \"/ws\" = \"app\" }}\n"
    );
    Longwire::with(fpm, &handler, &format!("events = [\"connect\", \"close\"]\n{COMPAT}"), "", &listeners)
}

/// A WebSocket client that sends its bytes one by one. No browser does that, but a network may deliver them so.
struct WebSocket(TcpStream);

impl WebSocket {
    async fn connect(node: &Longwire) -> Self {
        let mut socket = TcpStream::connect(node.address("lua")).await.expect("it listens");
        socket.set_nodelay(true).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("the script shakes hands"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(socket)
    }

    fn frame(opcode: u8, text: &str) -> Vec<u8> {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![0x80 | opcode];
        match text.len() {
            len @ ..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&MASK);
        frame.extend(text.bytes().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    async fn say(&mut self, text: &str) {
        let frame = Self::frame(1, text);
        let (first, rest) = frame.split_at(frame.len().min(4));
        for byte in first {
            self.0.write_u8(*byte).await.unwrap();
            // Yield, so that each byte is read by itself.
            tokio::task::yield_now().await;
        }
        self.0.write_all(rest).await.unwrap();
    }

    async fn hear(&mut self) -> String {
        assert_eq!(self.0.read_u8().await.expect("a frame comes"), 0x81);
        let len = match self.0.read_u8().await.unwrap() {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            len => usize::from(len),
        };
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_and_nothing_is_sent_and_nobody_is_closed_that_the_ancestor_would_not_have() {
    let fpm = Pool::of(3).start();
    let node = node(&fpm);
    let events = || fs::read_to_string(fpm.dir().join("events.txt")).unwrap_or_default();

    let mut plain = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    // A failed connect event neither refuses nor greets the client.
    eventually("PHP is told", || events() == "1:\n").await;
    let mut script = WebSocket::connect(&node).await;
    eventually("PHP is told", || events() == "1:\n1:\n").await;

    // Each line: the message and the reply. An empty frame does not close the connection.
    for (say, expected) in [
        ("", None),
        ("debug", None),
        ("empty", None),
        ("fail", None),
        ("reply one", Some("one")),
        ("", None),
        ("reply two", Some("two")),
    ] {
        plain.send(FrameKind::Binary, say.as_bytes()).await;
        script.say(say).await;
        if let Some(expected) = expected {
            assert_eq!(&plain.frame().await.body[..], expected.as_bytes(), "no other frame comes before it");
            assert_eq!(script.hear().await, expected);
        }
    }
    let long = "x".repeat(50_000);
    script.say(&format!("reply {long}")).await;
    assert!(script.hear().await == long);

    // An empty push reaches no session and has no other effect.
    for say in ["join room", "all ", "channel room", "all hi"] {
        plain.text(say).await;
    }
    for expected in ["to room", "hi"] {
        assert_eq!(&plain.frame().await.body[..], expected.as_bytes());
    }
    assert_eq!(script.hear().await, "hi");
    script.say("join room").await;
    script.say("channel room").await;
    assert_eq!(script.hear().await, "to room");
    assert_eq!(&plain.frame().await.body[..], b"to room");
    // Each command has a connection of its own; they arrive in order.
    script.say("many number").await;
    for number in 0..50 {
        assert_eq!(script.hear().await, format!("number {number}"));
    }

    // The script ignores a close frame, so the client may go on.
    script.0.write_all(&WebSocket::frame(8, "")).await.unwrap();
    script.say("reply still here").await;
    assert_eq!(script.hear().await, "still here");
    assert_eq!(plain.ask("reply still here").await, "still here");
    assert_eq!(node.metric("longwire_sessions_closed_total", ""), 0.0);
    // Frames without a body did not run PHP.
    assert_eq!(events().lines().filter(|line| *line == ":").count(), 0, "{}", events());
    assert_eq!(events().lines().count(), 22, "{}", events());
    // Each empty push is logged in one line, and counted.
    let failed = node.metric("longwire_script_failures_total", "reason=\"codec_failed\"");
    assert!(failed >= 2.0, "{failed}");

    // A leave event runs as usual, and its message reaches the remaining sessions.
    drop(script);
    let left = plain.frame().await.body;
    assert!(left.starts_with(b"leave "), "{left:?}");
    assert_eq!(node.closed(1)[0]["reason"], "client_closed");
    assert_eq!(plain.ask("reply last").await, "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_websocket_of_longwires_own_the_line_means_the_same_but_an_http_status_is_one() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm);
    let refused = Client::try_upgrade(node.address("web"), "/ws", "").await.err().expect("the handler fails");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    let mut web = Client::upgrade(node.address("web"), "/ws?ok", "").await;
    for say in ["", "debug", "empty", "", "fail"] {
        web.text(say).await;
    }
    assert_eq!(web.ask("reply one").await, "one", "no other frame comes before it");
    for say in ["all ", "all hi"] {
        web.text(say).await;
    }
    assert_eq!(&web.frame().await.body[..], b"hi");
}
