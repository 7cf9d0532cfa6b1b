//! Commands by headers in a handler's answer, the third way to the router besides the router port and the HTTP API.

use longwire::proto::framing::{FrameKind, Item};
use serde_json::Value;

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// A message is PHP code. `connect` and `close` events run the code of their query string. `say` writes a line to a file.
const HANDLER: &str = r#"
function say(...$what): void {
    file_put_contents(__DIR__ . '/said', implode(' ', $what) . "\n", FILE_APPEND | LOCK_EX);
}
function h(string ...$lines): void { foreach ($lines as $line) { header("Longwire-$line", false); } }
function me(): string {
    $attributes = array_filter($_SERVER, fn($name) => str_starts_with($name, 'LONGWIRE_ATTR_'), ARRAY_FILTER_USE_KEY);
    ksort($attributes);
    return ($_SERVER['LONGWIRE_UID'] ?? '-') . ' ' . http_build_query($attributes, '', ' ');
}
$event = $_SERVER['LONGWIRE_EVENT'];
if ($event === 'message') { eval(file_get_contents('php://input')); } else { eval($_GET[$event] ?? ''); }
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new() -> Self {
        let fpm = Pool::of(4).start();
        let script = fpm.script("handler.php", HANDLER);
        let node = Longwire::with(&fpm, &script, "events = [\"connect\", \"close\"]", "", EACH_FRAMING);
        Self { fpm, node }
    }

    /// A WebSocket client whose connect and close events run this code.
    async fn client(&self, connect: &str, close: &str) -> Client {
        let encode = |text: &str| text.bytes().map(|b| format!("%{b:02x}")).collect::<String>();
        let path = format!("/ws?connect={}&close={}", encode(connect), encode(close));
        Client::upgrade(self.node.address("web"), &path, "").await
    }

    async fn said(&self, expected: &str) {
        let file = self.fpm.dir().join("said");
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        eventually(&format!("PHP says {expected:?}"), || read().lines().any(|line| line == expected)).await;
    }

    fn complaints(&self) -> Vec<String> {
        let lines = self.node.log_lines(|line| line["level"] == "WARN");
        lines.iter().map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// The next frame as text.
async fn text(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.frame().await.body).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_binds_is_in_every_later_event_up_to_the_close() {
    let stage = Stage::new();
    let mut client = stage
        .client(
            "h('Uid: 42', 'Set: Name=Jörg Ö.', 'Join: hall, kitchen'); echo 'welcome ', me();",
            "say('close', me());",
        )
        .await;
    assert_eq!(text(&mut client).await, "welcome - ", "what is bound now is there at the next event");
    let whole = "LONGWIRE_ATTR_NAME=J%C3%B6rg+%C3%96.";
    assert_eq!(client.ask("echo me();").await, format!("42 {whole}"));
    assert_eq!(client.ask("h('Set: rank=3', 'Set: name', 'Uid:'); echo me();").await, format!("42 {whole}"));
    assert_eq!(client.ask("echo me();").await, "- LONGWIRE_ATTR_RANK=3");
    assert_eq!(client.ask("h('Uid: 7'); echo 1;").await, "1");
    client.close(1000).await;
    stage.said("close 7 LONGWIRE_ATTR_RANK=3").await;
    eventually("no channel and no uid is left", || {
        stage.node.metric("longwire_channels", "") + stage.node.metric("longwire_uids", "") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_goes_where_the_answer_says() {
    let stage = Stage::new();
    let mut ann = stage.client("h('Uid: ann', 'Join: room');", "").await;
    let mut bob =
        stage.client("h('Uid: bob', 'Join: room'); echo 'hi bob';", "h('To: channel:room'); echo 'bob left';").await;
    let mut eve = stage.client("h('Uid: eve');", "").await;
    assert_eq!(text(&mut bob).await, "hi bob");

    ann.text("h('To: channel:room; except=self'); echo 'from ann';").await;
    assert_eq!(text(&mut bob).await, "from ann");
    ann.text("h('To: uid:bob'); echo 'psst';").await;
    assert_eq!(text(&mut bob).await, "psst");
    let eve_id = eve.ask("echo $_SERVER['SESSIONID'];").await;
    ann.text(&format!("h('To: session:{eve_id}', 'To: self'); echo 'to two';")).await;
    assert_eq!((text(&mut eve).await, text(&mut ann).await), ("to two".into(), "to two".into()));
    ann.text("h('To: all; except=uid:bob; except=channel:nowhere'); header('Content-Offset: 2'); header('Content-Length: 4'); echo \"\\n\\nslice\\n\";").await;
    assert_eq!((text(&mut eve).await, text(&mut ann).await), ("slic".into(), "slic".into()));
    ann.text("h('Type: binary', 'To: all; except=channel:room'); echo \"\\xff\";").await;
    let frame = eve.frame().await;
    assert_eq!((frame.kind, &frame.body[..]), (FrameKind::Binary, &b"\xff"[..]));
    ann.text("h('Stream: lines', 'To: channel:room'); echo \"one\\ntwo\\n\";").await;
    assert_eq!((text(&mut ann).await, text(&mut ann).await), ("one".into(), "two".into()));
    assert_eq!((text(&mut bob).await, text(&mut bob).await), ("one".into(), "two".into()), "and nothing before it");
    bob.close(1000).await;
    assert_eq!(text(&mut ann).await, "bob left");
    assert_eq!(eve.ask("h('Leave: room'); echo 'nothing else came';").await, "nothing else came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_framing_gets_its_own_frame_of_one_body() {
    let stage = Stage::new();
    let mut web = stage.client("h('Join: all');", "").await;
    let mut length =
        Client::connect(stage.node.address("length"), longwire::proto::framing::Framing::Length(Default::default()))
            .await;
    assert_eq!(length.ask("h('Join: all'); echo 1;").await, "1");
    web.text("h('To: channel:all'); echo 'räum';").await;
    let (to_web, to_length) = (web.frame().await, length.frame().await);
    assert_eq!((to_web.kind, &to_web.body[..]), (FrameKind::Text, "räum".as_bytes()));
    assert_eq!(to_length.body, to_web.body);
    length.text("h('To: channel:all; except=self'); echo \"\\xff\\xfe\";").await;
    let frame = web.frame().await;
    assert_eq!((frame.kind, &frame.body[..]), (FrameKind::Binary, &b"\xff\xfe"[..]), "what is not UTF-8 is binary");
    length.text("h('To: channel:all; except=self'); echo 'text';").await;
    assert_eq!(web.frame().await.kind, FrameKind::Text, "what came from a stream is told by its bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_answer_changes_nothing_and_a_bad_header_is_said() {
    let stage = Stage::new();
    let mut client = stage.client("", "h('Join: late', 'To: all'); echo '';").await;
    client.text("h('Uid: 13', 'Join: no', 'To: all'); http_response_code(500); echo 'secret';").await;
    assert_eq!(client.ask("echo me();").await, "- ");
    assert_eq!(stage.node.metric("longwire_channels", ""), 0.0);
    client.text("h('To: everybody'); echo 'for whom?';").await;
    assert_eq!(client.ask("h('Join: a,,b', 'Set: a-b=c'); echo me();").await, "- ");
    let too_many = "for ($i = 0; $i < 101; $i++) h(\"Join: c$i\"); echo 1;";
    assert_eq!(client.ask(too_many).await, "1");
    assert_eq!(stage.node.metric("longwire_channels", ""), 100.0, "a and b are among them");
    client.close(1000).await;
    stage.node.closed(1);
    let expected = [
        "event failed: handler answered 500",
        "event failed: bad head in the answer: Longwire-To: \"everybody\" is not a target: use session:ID, uid:NAME, channel:NAME or all",
        "bad header in the answer: Longwire-Join: a name is empty",
        "bad header in the answer: Longwire-Set: \"a-b\" is not a key: 1 to 64 of A-Z a-z 0-9 _",
        "refused: the session has reached its limit of channels or attribute bytes",
        "bad header in the answer: Longwire-Join, -Leave, -Uid and -Set have no session to act on here",
    ];
    eventually("all of it is said", || expected.iter().all(|e| stage.complaints().iter().any(|c| c == e))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn longwire_close_comes_after_what_is_sent_to_others() {
    let stage = Stage::new();
    let mut ann = stage.client("h('Join: room');", "").await;
    let mut bob = stage.client("h('Join: room');", "say(me(), $_SERVER['LONGWIRE_CLOSE_REASON']);").await;
    bob.text("h('Set: left=yes', 'To: channel:room', 'Close: 4001 bye'); echo 'I go';").await;
    assert_eq!((text(&mut ann).await, text(&mut bob).await), ("I go".into(), "I go".into()));
    assert!(matches!(bob.next().await, Some(Item::Close { code: Some(4001), .. })));
    stage.said("- LONGWIRE_ATTR_LEFT=yes handler_closed").await;
    drop(bob);
    let closed = stage.node.wait_for_log("it is closed", |line: &Value| line["message"] == "session closed");
    assert_eq!(closed["reason"], "handler_closed");
}
