//! The contract with PHP: the bytes on the wire for each kind of answer and each framing, and the params that a handler gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use longwire::proto::framing::{DelimiterFraming, Frame, FrameKind, Framing, Item, LengthFraming};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::raw_websocket::{masked, upgraded};

/// A handler that runs the message as PHP code.
const EVAL: &str = "eval(file_get_contents('php://input'));";

/// `step(n)` waits until the test calls `say_step(n)`. This fixes the order of events without a clock.
const STEP: &str = r#"
function step(int $n): void {
    ob_get_level() && ob_flush();
    flush();
    for ($i = 0; !file_exists(__DIR__ . "/step$n") && $i < 10000; $i++) { usleep(1000); clearstatcache(); }
}
"#;

const ALL: [&str; 4] = ["length", "delimiter", "raw", "web"];

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(app: &str) -> Self {
        Self::with_listeners(app, EACH_FRAMING)
    }

    fn with_listeners(app: &str, listeners: &str) -> Self {
        let fpm = Pool::of(4).start();
        let script = fpm.script("eval.php", &format!("{STEP}{EVAL}"));
        let node = Longwire::with(&fpm, &script, app, "", listeners);
        Self { fpm, node }
    }

    async fn client(&self, listener: &str) -> Client {
        let framing = match listener {
            "length" => Framing::Length(LengthFraming::default()),
            "delimiter" => Framing::Delimiter(Arc::new(DelimiterFraming {
                delimiter: b"<end of frame>".to_vec(),
                strip_cr: false,
            })),
            "raw" => Framing::Raw,
            _ => return Client::upgrade(self.node.address(listener), "/ws", "").await,
        };
        Client::connect(self.node.address(listener), framing).await
    }

    fn say_step(&self, number: usize) {
        std::fs::write(self.fpm.dir().join(format!("step{number}")), "").expect("the directory is ours");
    }

    fn causes(&self) -> Vec<String> {
        let lines = self.node.log_lines(|line| line["message"].as_str().is_some_and(|m| m.starts_with("event failed")));
        lines.iter().map(|line| line["cause"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// Sends a message and returns the frames of its reply as text. Waits until the event has ended before it sends the next, because raw
/// framing would join the two replies.
async fn run(stage: &Stage, client: &mut Client, code: &str) -> Vec<String> {
    let ended = || stage.node.metric("longwire_upstream_requests_total", "");
    let before = ended();
    client.text(code).await;
    eventually("the event ends", || ended() > before).await;
    until_next(client).await
}

/// The frames before the answer to the next message, as text.
async fn until_next(client: &mut Client) -> Vec<String> {
    client.text("echo 'NEXT';").await;
    let mut frames = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&client.frame().await.body).into_owned();
        // Raw has no frame boundaries, so bytes that came together are one frame.
        match text.strip_suffix("NEXT") {
            Some("") => return frames,
            Some(rest) => {
                frames.push(rest.to_owned());
                return frames;
            }
            None => frames.push(text),
        }
    }
}

#[tokio::test]
async fn the_slice_that_the_headers_pick_is_the_reply_in_every_framing() {
    let stage = Stage::new("max_reply_bytes = \"64 KiB\"");
    let long = "echo str_repeat('x', 65537);";
    // Code, frames that come, cause of failure.
    let cases: [(&str, &[&str], Option<&str>); 15] = [
        ("echo 'hello';", &["hello"], None),
        (";", &[], None),
        ("header('Content-Length: 0');", &[""], None),
        ("header('Content-Length: 0'); echo 'warning';", &[""], None),
        ("header('Content-Length: 3'); echo 'abcdef';", &["abc"], None),
        ("header('Content-Offset: 2'); echo 'abcdef';", &["cdef"], None),
        ("header('Content-Length: 3'); header('Content-Offset: 2'); echo 'abcdef';", &["cde"], None),
        ("header('Content-Offset: -2'); echo 'abcdef';", &["ef"], None),
        ("header('Content-Length: 2'); header('Content-Offset: -4'); echo 'abcdef';", &["cd"], None),
        ("header('Content-Offset: -20'); echo 'abcdef';", &["abcdef"], None),
        ("header('Content-Offset: 20'); echo 'abcdef';", &[], None),
        ("header('Content-Length: 7'); echo 'abcdef';", &[], Some("reply_short")),
        ("header('Content-Length: 3'); header('Content-Offset: 4'); echo 'abcdef';", &[], Some("reply_short")),
        ("http_response_code(404); echo 'not here';", &["not here"], None),
        ("http_response_code(500); echo 'stack trace';", &[], Some("status")),
    ];
    for listener in ALL {
        let mut client = stage.client(listener).await;
        for (code, frames, cause) in cases {
            let failures = stage.causes().len();
            let mut got = run(&stage, &mut client, code).await;
            if listener == "raw" {
                // An empty frame is invisible in raw framing.
                got.retain(|frame| !frame.is_empty());
                assert_eq!(got.concat(), frames.concat(), "{listener}: {code}");
            } else {
                assert_eq!(got, frames, "{listener}: {code}");
            }
            if let Some(cause) = cause {
                eventually("it is logged", || stage.causes().len() == failures + 1).await;
                assert_eq!(stage.causes().last().map(String::as_str), Some(cause), "{listener}: {code}");
            }
        }
        // A reply has a bound only where it must be held back to be framed.
        let got = run(&stage, &mut client, long).await;
        assert_eq!(got.concat().len(), if listener == "length" { 0 } else { 65537 }, "{listener}");
        let announced = format!("header('Content-Length: 65537'); {long}");
        assert_eq!(run(&stage, &mut client, &announced).await.concat().len(), 65537, "{listener}");
        let from_end = format!("header('Content-Offset: -3'); {long}");
        assert_eq!(run(&stage, &mut client, &from_end).await, Vec::<String>::new(), "{listener}");
    }
    let too_large = || stage.causes().iter().filter(|cause| *cause == "reply_too_large").count();
    eventually("all are logged", || too_large() >= 5).await;
    assert_eq!(too_large(), 5);
}

#[tokio::test]
async fn pieces_reach_the_client_while_php_still_runs() {
    let code = "header('Content-Length: 9'); echo 'one'; step(1); echo 'two'; step(2); echo 'six';";
    for listener in ALL {
        let stage = Stage::new("");
        let mut client = stage.client(listener).await;
        // Read raw bytes, to check what has arrived while PHP still waits.
        let framing = Framing::Raw;
        let mut raw = match listener {
            "web" => None,
            _ => Some(Client::connect(stage.node.address(listener), framing).await),
        };
        if let Some(raw) = &mut raw {
            let frame = match listener {
                "length" => Framing::Length(LengthFraming::default()).encode(FrameKind::Text, code.as_bytes()).unwrap(),
                "delimiter" => format!("{code}<end of frame>").into(),
                _ => code.into(),
            };
            raw.bytes(&frame).await;
            for (step, so_far) in ["one", "onetwo", "onetwosix"].iter().enumerate() {
                let mut got = Vec::new();
                let piece = &so_far.as_bytes()[step * 3..];
                while !got.windows(3).any(|window| window == piece) {
                    got.extend_from_slice(&raw.frame().await.body);
                }
                stage.say_step(step + 1);
            }
        } else {
            let mut socket = upgraded(&stage.node, "").await;
            socket.write_all(&masked(code)).await.unwrap();
            // The length is known: one frame, in three pieces.
            for (step, piece) in [&b"\x81\x09one"[..], b"two", b"six"].into_iter().enumerate() {
                let mut got = vec![0; piece.len()];
                socket.read_exact(&mut got).await.unwrap();
                assert_eq!(got, piece);
                stage.say_step(step + 1);
            }
            // The length is not known: fragments, which are text, continuation and the last one.
            let code = "echo 'one'; step(13); echo 'two'; step(14); echo 'six';";
            socket.write_all(&masked(code)).await.unwrap();
            for (at, piece) in [&b"\x01\x03one"[..], b"\x00\x03two", b"\x80\x03six"].into_iter().enumerate() {
                let mut got = [0; 5];
                socket.read_exact(&mut got).await.unwrap();
                assert_eq!(got, piece);
                stage.say_step(at + 13);
            }
        }
        assert_eq!(client.ask("echo 'others are served';").await, "others are served");
    }
}

#[tokio::test]
async fn each_line_is_a_frame_as_soon_as_it_is_flushed_and_only_a_line_has_a_bound() {
    for listener in ["length", "delimiter", "web"] {
        let stage = Stage::new("max_reply_bytes = \"4 KiB\"");
        let mut client = stage.client(listener).await;
        client.text("header('Longwire-Stream: lines'); echo \"one\\ntw\"; step(1); echo \"o\\n\\nlast\";").await;
        assert_eq!(&client.frame().await.body[..], b"one");
        stage.say_step(1);
        for line in ["two", "", "last"] {
            assert_eq!(client.frame().await.body, line, "{listener}");
        }
        client.text("header('Longwire-Stream: lines'); for ($i = 0; $i < 30000; $i++) echo \"line $i\\n\";").await;
        for number in 0..30000 {
            assert_eq!(client.frame().await.body, format!("line {number}"), "{listener}");
        }
        client.text("header('Longwire-Stream: lines'); echo str_repeat('x', 5000), \"\\n\";").await;
        assert_eq!(until_next(&mut client).await, Vec::<String>::new());
        eventually("it is logged", || !stage.causes().is_empty()).await;
        assert_eq!(stage.causes(), ["reply_too_large"]);
    }
}

#[tokio::test]
async fn type_and_close_are_the_handlers_and_what_it_got_wrong_is_in_the_log() {
    let stage = Stage::new("");
    let mut client = stage.client("web").await;
    let mut kind_of = async |code: &str| {
        client.text(code).await;
        client.frame().await.kind
    };
    assert_eq!(kind_of("echo 'a';").await, FrameKind::Text);
    assert_eq!(kind_of("header('Longwire-Type: binary'); echo \"\\xff\\xfe\";").await, FrameKind::Binary);
    client.send(FrameKind::Binary, b"header('Longwire-Type: text'); echo 'a';").await;
    assert_eq!(client.frame().await.kind, FrameKind::Text);
    // A text reply that is not UTF-8 is not sent, neither whole nor in pieces.
    client.text("echo \"\\xff\\xfe\";").await;
    assert_eq!(until_next(&mut client).await, Vec::<String>::new());
    eventually("it is logged", || !stage.causes().is_empty()).await;
    assert_eq!(stage.causes(), ["reply_not_utf8"]);
    client.text("header('Longwire-Tpye: text'); echo 'sent all the same';").await;
    assert_eq!(&client.frame().await.body[..], b"sent all the same");
    stage.node.wait_for_log("the unknown header is told", |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|m| m.contains("Longwire-Tpye is not a header"))
    });
    client.text("header('X-Long: ' . str_repeat('x', 20000)); echo 'behind 20 KB of headers';").await;
    assert_eq!(&client.frame().await.body[..], b"behind 20 KB of headers");
    client.text("header('Longwire-Close: 4321 so long'); echo 'bye';").await;
    assert_eq!(&client.frame().await.body[..], b"bye");
    let close = client.next().await;
    assert_eq!(close, Some(Item::Close { code: Some(4321), reason: "so long".into() }));
    let mut socket = upgraded(&stage.node, "").await;
    socket.write_all(&masked("echo 'abc'; step(9); echo \"\\xff\\xfe\";")).await.unwrap();
    let mut begun = [0; 5];
    socket.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"\x01\x03abc");
    stage.say_step(9);
    let mut close = [0; 4];
    socket.read_exact(&mut close).await.unwrap();
    assert_eq!(
        (close[0], &close[2..]),
        (0x88, &1011_u16.to_be_bytes()[..]),
        "pieces that were already sent cannot be taken back"
    );
    drop(socket);
    stage.node.wait_for_log("the reason is told", |line| line["reason"] == "reply_broken");
}

#[tokio::test]
async fn on_error_says_what_a_failure_does() {
    let sending = Stage::new("on_error = { send = \"sorry\" }");
    let closing = Stage::new("on_error = \"close\"");
    for listener in ALL {
        let mut client = sending.client(listener).await;
        assert_eq!(client.ask("no_such_function();").await, "sorry", "{listener}");
        assert_eq!(client.ask("header('Content-Length: 9'); echo 'short';").await, "sorry", "{listener}");
        let mut client = closing.client(listener).await;
        client.text("no_such_function();").await;
        assert_eq!(client.end().await, (listener == "web").then_some(1011), "{listener}");
    }
    assert!(closing.node.closed(4).iter().all(|line| line["reason"] == "handler_failed"));
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_followed_by_the_end_and_by_no_byte_that_php_did_not_print() {
    for app in ["on_error = { send = \"sorry\" }", "on_error = \"close\"", ""] {
        let stage = Stage::new(app);
        let mut client = Client::connect(stage.node.address("length"), Framing::Raw).await;
        let code = "header('Content-Length: 100'); echo 'begun'; step(1);";
        client
            .bytes(&Framing::Length(LengthFraming::default()).encode(FrameKind::Text, code.as_bytes()).unwrap())
            .await;
        let mut got = Vec::new();
        while got.len() < 9 {
            got.extend_from_slice(&client.frame().await.body);
        }
        stage.say_step(1);
        while let Some(Item::Frame(Frame { body, .. })) = client.next().await {
            got.extend_from_slice(&body);
        }
        assert_eq!(got, b"\0\0\0\x64begun", "{app}");
        assert_eq!(stage.node.closed(1)[0]["reason"], "reply_broken", "{app}");
    }
}

#[tokio::test]
async fn events_that_run_at_once_keep_their_frames_apart() {
    for listener in ["length", "delimiter", "web"] {
        let stage = Stage::new("concurrency = 4");
        let mut client = stage.client(listener).await;
        // Four events at once: two streams that pause in the middle, and two whole replies.
        client.text("header('Content-Length: 6'); echo 'aaa'; step(1); echo 'AAA';").await;
        client.text("header('Content-Length: 6'); echo 'bbb'; step(2); echo 'BBB';").await;
        eventually("both run", || stage.node.metric("longwire_upstream_busy_connections", "") == 2.0).await;
        client.text("echo 'whole 1';").await;
        client.text("header('Content-Length: 7'); echo 'whole 2'; step(3);").await;
        eventually("whole 1 has ended", || {
            stage.node.metric("longwire_upstream_requests_total", "outcome=\"done\"") == 1.0
        })
        .await;
        stage.say_step(2);
        stage.say_step(3);
        eventually("only the first still runs", || {
            stage.node.metric("longwire_upstream_requests_total", "outcome=\"done\"") == 3.0
        })
        .await;
        stage.say_step(1);
        let mut frames = Vec::new();
        while frames.len() < 4 {
            frames.push(String::from_utf8_lossy(&client.frame().await.body).into_owned());
        }
        frames.sort();
        assert_eq!(frames, ["aaaAAA", "bbbBBB", "whole 1", "whole 2"], "{listener}");
    }
}

#[tokio::test]
async fn a_streamed_reply_is_compressed_for_who_asked_for_that() {
    let listeners =
        EACH_FRAMING.replace("ping_interval = 0", "ping_interval = 0, deflate = true, deflate_min_bytes = 0");
    let stage = Stage::with_listeners("", &listeners);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (_, head) = Client::try_upgrade(stage.node.address("web"), "/ws", offer).await.unwrap();
    assert!(head.to_ascii_lowercase().contains("permessage-deflate"), "{head}");
    let mut socket = upgraded(&stage.node, offer).await;
    socket.write_all(&masked("echo 'one '; step(1); echo 'two';")).await.unwrap();
    let mut inflate = flate2::Decompress::new(false);
    let mut text = Vec::with_capacity(1000);
    let mut heads = Vec::new();
    loop {
        let mut head = [0; 2];
        socket.read_exact(&mut head).await.unwrap();
        let mut body = vec![0; head[1] as usize];
        socket.read_exact(&mut body).await.unwrap();
        let is_last = head[0] & 0x80 != 0;
        if is_last {
            body.extend_from_slice(&[0, 0, 0xff, 0xff]);
        }
        inflate.decompress_vec(&body, &mut text, flate2::FlushDecompress::Sync).unwrap();
        heads.push(head[0]);
        if is_last {
            break;
        }
        assert_eq!(text, b"one ");
        stage.say_step(1);
    }
    // RSV1 on the first fragment alone (RFC 7692 section 6).
    assert_eq!(heads, [0x41, 0x80]);
    assert_eq!(text, b"one two");
}

#[tokio::test]
async fn a_websocket_reply_of_known_length_is_one_frame_and_nothing_stands_inside_it() {
    let deflate =
        EACH_FRAMING.replace("ping_interval = 0", "ping_interval = 0, deflate = true, deflate_min_bytes = 60000");
    let stage = Stage::with_listeners("", &deflate);
    let code = "header('Content-Length: 60000'); echo str_repeat('x', 30000); step(1); echo str_repeat('y', 30000);";
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let mut socket = upgraded(&stage.node, "").await;
    socket.write_all(&masked(code)).await.unwrap();
    let mut got = vec![0; 4 + 30_000];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(got[..4], [0x81, 126, 0xea, 0x60], "one frame of 60 000 bytes");
    // The client's ping during the frame is answered after the frame.
    socket.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    socket.write_all(&masked("")).await.unwrap();
    eventually("both are read", || stage.node.metric("longwire_frames_in_total", "") == 2.0).await;
    stage.say_step(1);
    let mut rest = vec![0; 30_000 + 2];
    socket.read_exact(&mut rest).await.unwrap();
    assert!(rest[..30_000].iter().all(|byte| *byte == b'y'));
    assert_eq!(rest[30_000..], [0x8a, 0], "the pong");
    // With permessage-deflate a large message is sent in fragments, because its compressed length is known only at the end.
    for (length, first) in [(60_000, 0x41), (59_999, 0x81)] {
        let mut socket = upgraded(&stage.node, offer).await;
        let code = format!(
            "header('Content-Length: {length}'); echo str_repeat('x', 30000); step(2); echo str_repeat('y', 30000);"
        );
        socket.write_all(&masked(&code)).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), first, "{length}");
        if length == 59_999 {
            let mut client = Client::from_parts(socket, Framing::WebSocket { deflate: None }, vec![first]);
            stage.say_step(2);
            assert_eq!(client.frame().await.body.len(), length);
        }
    }
    // If the reply is shorter than announced, the connection ends inside the frame. A close frame there would be read as text.
    let mut socket = upgraded(&stage.node, "").await;
    socket.write_all(&masked("header('Content-Length: 9'); echo 'one'; step(5);")).await.unwrap();
    let mut got = [0; 5];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"\x81\x09one");
    stage.say_step(5);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    stage.node.wait_for_log("the reason is told", |line| line["reason"] == "reply_broken");
}

#[tokio::test]
async fn a_handler_is_told_of_its_slips_in_one_line_each() {
    let stage = Stage::new("");
    let mut client = stage.client("length").await;
    let told = |what: &'static str| {
        stage.node.log_lines(move |line| line["message"].as_str().is_some_and(|m| m.contains(what))).len()
    };
    for _ in 0..3 {
        client.text("header('Content-Type: application/json'); echo json_encode(\"\\xc4\\xe3\\xba\\xc3\");").await;
        assert_eq!(client.ask("echo \"\\xef\\xbb\\xbfhello\";").await, "\u{feff}hello");
    }
    assert_eq!(client.ask("header('Longwire-Jion: room'); echo 1;").await, "1");
    client.text("header('Longwire-Close'); echo 'you are not known';").await;
    assert_eq!(&client.frame().await.body[..], b"you are not known");
    assert_eq!(client.end().await, None);
    assert_eq!(stage.node.closed(1)[0]["reason"], "handler_closed", "Longwire-Close without a colon closes too");
    for what in
        ["json_last_error_msg", "byte order mark", "did you mean Longwire-Join?", "\"Longwire-Close\" has no colon"]
    {
        assert_eq!(told(what), 1, "{what}");
    }
}

/// The contents of `$_SERVER`.
async fn server_of(client: &mut Client) -> Value {
    // argv is not ours to check. Invalid UTF-8 must not make json_encode fail.
    let code = "unset($_SERVER['argv']); echo json_encode($_SERVER, JSON_INVALID_UTF8_SUBSTITUTE);";
    serde_json::from_str(&client.ask(code).await).expect("it is JSON")
}

fn expect(server: &Value, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(server[name].as_str(), Some(*value), "{name} in {server:#}");
    }
}

#[tokio::test]
async fn php_finds_every_param_of_the_contract() {
    let listeners = format!("{EACH_FRAMING}\n[node]\nname = \"edge-1\"\n[apps.app.params]\nAPP_MODE = \"test\"\n");
    let stage = Stage::with_listeners("uri = \"/chat?room=1\"", &listeners);
    let script = stage.fpm.dir().join("eval.php");
    let (script, root) = (script.to_str().unwrap(), stage.fpm.dir().to_str().unwrap());
    let common = [
        ("SCRIPT_FILENAME", script),
        ("SCRIPT_NAME", "/eval.php"),
        ("DOCUMENT_ROOT", root),
        ("REQUEST_METHOD", "POST"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("LONGWIRE_EVENT", "message"),
        ("LONGWIRE_NODE", "edge-1"),
        ("LONGWIRE_SEQ", "0"),
        ("CONTENT_LENGTH", "82"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "127.0.0.1"),
        ("APP_MODE", "test"),
    ];
    for listener in ["length", "web"] {
        let mut client = stage.client(listener).await;
        let server = server_of(&mut client).await;
        expect(&server, &common);
        expect(
            &server,
            &[("LONGWIRE_LISTENER", listener), ("SERVER_PORT", &stage.node.address(listener).port().to_string())],
        );
        let id = server["SESSIONID"].as_str().expect("there is one");
        assert!(id.len() == 16 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
        assert!(server["EVENT"].is_null(), "a message has no EVENT");
        assert!(server["SERVER_SOFTWARE"].as_str().is_some_and(|software| software.starts_with("longwire/")));
        assert!(server["REMOTE_PORT"].as_str().is_some_and(|port| port.parse::<u16>().is_ok()));
        match listener {
            "web" => expect(
                &server,
                &[
                    ("REQUEST_URI", "/ws"),
                    ("QUERY_STRING", ""),
                    ("LONGWIRE_FRAME_TYPE", "text"),
                    ("HTTP_UPGRADE", "websocket"),
                ],
            ),
            _ => {
                expect(
                    &server,
                    &[("REQUEST_URI", "/chat?room=1"), ("QUERY_STRING", "room=1"), ("LONGWIRE_FRAME_TYPE", "binary")],
                );
                let http: Vec<_> =
                    server.as_object().unwrap().keys().filter(|name| name.starts_with("HTTP_")).collect();
                assert_eq!(http, Vec::<&String>::new());
            }
        }
        assert_eq!(server_of(&mut client).await["LONGWIRE_SEQ"], "1");
    }
}

const HOSTILE: &str = "Proxy: http://evil.example\r\nX_Forwarded_For: 10.0.0.1\r\nScript.Filename: /etc/passwd\r\n\
     Sessionid: forged\r\nEvent: 2\r\nX-Secret: forged\r\nCookie: a=1\r\nCookie: b=2\r\nAccept-Language: de\r\n\
     Accept-Language: en\r\nContent-Type: x/y\r\nAuthorization: Basic eDp5\r\n";

/// Headers, and the name in `$_SERVER` that each adds, if any.
const ODD: &[(&str, &str)] = &[
    ("X-Empty:\r\n", "HTTP_X_EMPTY"),
    ("X-Tab: a\tb\r\n", "HTTP_X_TAB"),
    ("X-Umlaut: ä\r\n", "HTTP_X_UMLAUT"),
    ("Https: on\r\n", "HTTP_HTTPS"),
    ("Content-Length: 0\r\n", "HTTP_CONTENT_LENGTH"),
    ("Content-Type: x/y\r\n", "HTTP_CONTENT_TYPE"),
    ("Remote-Addr: 10.0.0.1\r\n", "HTTP_REMOTE_ADDR"),
    ("X-Forwarded-For: 10.0.0.1\r\n", "HTTP_X_FORWARDED_FOR"),
    ("X-Forwarded-Proto: https\r\n", "HTTP_X_FORWARDED_PROTO"),
    ("Forwarded: for=10.0.0.1;proto=https\r\n", "HTTP_FORWARDED"),
    ("X-Many: 1\r\nX-Many: 2\r\nx-many: 3\r\n", "HTTP_X_MANY"),
    ("PROXY: http://evil.example\r\n", ""),
    ("pRoXy: http://evil.example\r\n", ""),
    ("Remote_Addr: 10.0.0.1\r\n", ""),
    ("X.Dot: a\r\n", ""),
    ("X~Tilde: a\r\n", ""),
    ("X*Star: a\r\n", ""),
    ("PHP_VALUE: auto_prepend_file=/etc/passwd\r\n", ""),
    ("HTTP_HOST: evil.example\r\n", ""),
];

fn names_of(server: &Value) -> BTreeSet<String> {
    server.as_object().expect("names and values").keys().cloned().collect()
}

/// The params that are the same for all sessions, independent of what clients send.
fn given(server: &Value) -> Vec<(&String, &Value)> {
    let is_own = |name: &str| {
        name.starts_with("HTTP_") || name.starts_with("REQUEST_TIME") || name == "SESSIONID" || name == "REMOTE_PORT"
    };
    server.as_object().expect("names and values").iter().filter(|(name, _)| !is_own(name)).collect()
}

#[tokio::test]
async fn no_header_of_a_client_passes_for_a_word_of_ours() {
    let listeners = format!(
        "{EACH_FRAMING}\n[limits]\nmax_header_bytes = \"128 KiB\"\n[apps.app.params]\nHTTP_X_SECRET = \"ours\"\n"
    );
    for prefix in ["", "HTTP_"] {
        let stage = Stage::with_listeners(&format!("param_prefix = \"{prefix}\""), &listeners);
        let (mut client, _) =
            Client::try_upgrade(stage.node.address("web"), "/ws?SESSIONID=x", HOSTILE).await.expect("it is admitted");
        let server = server_of(&mut client).await;
        expect(
            &server,
            &[
                ("HTTP_COOKIE", "a=1; b=2"),
                ("HTTP_ACCEPT_LANGUAGE", "de, en"),
                ("HTTP_AUTHORIZATION", "Basic eDp5"),
                ("HTTP_X_SECRET", "ours"),
                ("CONTENT_TYPE", "text/plain; charset=utf-8"),
                ("REQUEST_URI", "/ws?SESSIONID=x"),
            ],
        );
        let id = server[format!("{prefix}SESSIONID")].as_str().expect("there is one");
        assert_eq!(id.len(), 16, "{id}");
        for absent in ["HTTP_PROXY", "HTTP_X_FORWARDED_FOR", "X_FORWARDED_FOR", "HTTP_SCRIPT_FILENAME", "EVENT"] {
            assert!(server[absent].is_null(), "{absent} in {server:#}");
        }
        if prefix == "HTTP_" {
            assert!(
                server["HTTP_EVENT"].is_null(),
                "a client's header made a message look like a close event: {server:#}"
            );
        }
    }
    let stage = Stage::with_listeners("", &listeners);
    let honest = server_of(&mut Client::upgrade(stage.node.address("web"), "/ws", "").await).await;
    for (header, name) in ODD {
        let mut client = Client::upgrade(stage.node.address("web"), "/ws", header).await;
        let server = server_of(&mut client).await;
        let mut names = names_of(&server);
        assert!(name.is_empty() || names.remove(*name), "{name} of {header:?} in {names:?}");
        assert_eq!(names, names_of(&honest), "{header:?}");
        assert_eq!(given(&server), given(&honest), "{header:?}");
    }
    // A request target in absolute form, and odd characters, which are passed on unchanged.
    let targets = [
        ("http://other.example/ws?a=1", "/ws?a=1", "other.example"),
        ("/ws?%00=%ff&a=%2e%2e", "/ws?%00=%ff&a=%2e%2e", honest["HTTP_HOST"].as_str().expect("one is sent")),
    ];
    for (target, uri, host) in targets {
        let mut client = Client::upgrade(stage.node.address("web"), target, "").await;
        let server = server_of(&mut client).await;
        assert_eq!(names_of(&server), names_of(&honest), "{target}");
        expect(&server, &[("REQUEST_URI", uri), ("HTTP_HOST", host)]);
    }
    let long = |len: usize| format!("X-Long: {}\r\n", "x".repeat(len));
    let (mut client, _) =
        Client::try_upgrade(stage.node.address("web"), "/ws", &long(60_000)).await.expect("it is admitted");
    client.text("echo strlen($_SERVER['HTTP_X_LONG']);").await;
    assert_eq!(&client.frame().await.body[..], b"60000");
    let refused = Client::try_upgrade(stage.node.address("web"), "/ws", &long(100_000)).await.err().expect("too long");
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
}

#[tokio::test]
async fn unix_and_ipv6_listeners_serve_too() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("eval.php", EVAL);
    let path = fpm.dir().join("front.sock");
    let listeners = format!(
        "[listeners.unix]\nbind = \"unix:{}\"\napp = \"app\"\n[listeners.six]\nbind = \"[::1]:0\"\napp = \"app\"\n\
         tcp_keepalive = 0\ntcp_user_timeout = 0\n",
        path.display()
    );
    let mut node = Longwire::with(&fpm, &script, "", "", &listeners);
    let mut six = Client::connect(node.address("six"), Framing::Length(LengthFraming::default())).await;
    expect(&server_of(&mut six).await, &[("REMOTE_ADDR", "::1"), ("SERVER_ADDR", "::1"), ("LONGWIRE_LISTENER", "six")]);
    let mut unix = UnixStream::connect(&path).await.unwrap();
    let ask = b"echo $_SERVER['REMOTE_ADDR'], ' ', isset($_SERVER['REMOTE_PORT']) ? 'port' : 'no port';";
    unix.write_all(&[&(ask.len() as u32).to_be_bytes()[..], ask].concat()).await.unwrap();
    let mut answer = vec![0; 4 + "unix: no port".len()];
    unix.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer[4..], b"unix: no port");
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
    assert!(!path.exists(), "the node removes its socket file");
}
