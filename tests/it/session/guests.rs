//! Guests, which are sessions whose connect event still runs, for every kind of client. Commands find them, and messages to them wait
//! until PHP admits them. A refused guest leaves nothing behind.

use std::path::Path;

use longwire::proto::framing::{Framing, Item, LengthFraming};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::cluster::all_know;
use crate::support::engine::{EngineServer, Kind};
use crate::support::event_stream::{Http, Stream};
use crate::support::http;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// `connect` runs RouterClient's commands on its own session, over the router in the file `router`, and writes the results to `asked`.
/// It waits for the file `go` if there is a file `wait`, and refuses if there is a file `refuse`. Other events are noted in `said`.
const HANDLER: &str = r#"
$sid = $_SERVER['SESSIONID'];
$event = $_SERVER['LONGWIRE_EVENT'];
$is = fn(string $name) => file_exists(__DIR__ . "/$name");
$say = fn(string $text) => file_put_contents(__DIR__ . '/said', "$text\n", FILE_APPEND | LOCK_EX);
$me = ($_SERVER['LONGWIRE_UID'] ?? '-') . ' ' . ($_SERVER['LONGWIRE_ATTR_ROOM'] ?? '-');
if ($event === 'message') {
    $body = file_get_contents('php://input');
    if (str_starts_with($body, 'to ')) { header('Longwire-To: session:' . substr($body, 3)); exit('by a header'); }
    exit($me);
}
if ($event !== 'connect') { $say("$event $sid " . ($_SERVER['LONGWIRE_CHANNEL'] ?? $me)); exit; }
if ($is('quiet')) { exit($sid); }
include 'api.php';
[$host, $port] = explode(':', $is('router') ? file_get_contents(__DIR__ . '/router') : $_SERVER['LONGWIRE_ROUTER']);
$router = new RouterClient($host, (int) $port);
$did = [];
foreach ([
    'join' => fn() => $router->addChannel('lobby', $sid),
    'bind' => fn() => $router->bindUid($sid, '42'),
    'set' => fn() => $router->setAttr($sid, 'room', 'kitchen'),
    'send' => fn() => $router->sendMsg($sid, 'sent to a guest'),
    'publish' => fn() => $router->publish('lobby', 'published to guests'),
] as $what => $do) {
    $receipt = $do();
    $did[$what] = is_array($receipt) ? array_filter(array_intersect_key($receipt, ['reached' => 1, 'queued' => 1, 'gone' => 1]))
        : $router->lastError();
}
file_put_contents(__DIR__ . '/asked.new', json_encode(['sid' => $sid, 'did' => $did]));
rename(__DIR__ . '/asked.new', __DIR__ . '/asked');
if ($is('refuse')) { http_response_code(403); exit('not today'); }
header('Content-Offset: -8');
// Print a space now and then; otherwise PHP would not notice that the request was aborted.
while ($is('wait') && !$is('go')) { usleep(2000); echo ' '; ob_flush(); flush(); }
exit('greeting');
"#;

const EVENTS: &str = "events = [\"connect\", \"close\", \"join\", \"leave\"]";

fn api_beside(fpm: &PhpFpm) {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-client/api.php");
    std::fs::copy(api, fpm.dir().join("api.php")).expect("it is there");
}

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

/// A client of any kind.
enum Guest {
    Framed(Box<Client>),
    Stream(Box<Stream>),
    Polled(Http, String, Vec<String>),
}

const DOORS: [&str; 4] = ["websocket", "stream", "poll", "tcp"];

impl Stage {
    fn new() -> Self {
        let fpm = Pool::of(4).start();
        api_beside(&fpm);
        let script = fpm.script("handler.php", HANDLER);
        let node = Longwire::with(&fpm, &script, EVENTS, "", LISTENERS);
        Self { fpm, node }
    }

    fn set(&self, name: &str, text: &str) {
        std::fs::write(self.fpm.dir().join(name), text).unwrap();
    }

    fn unset(&self, names: &[&str]) {
        names.iter().for_each(|name| drop(std::fs::remove_file(self.fpm.dir().join(name))));
    }

    /// Waits for the handler of `connect` and returns what it has done.
    async fn asked(&self) -> Value {
        let file = self.fpm.dir().join("asked");
        eventually("PHP is asked", || file.exists()).await;
        let asked = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        std::fs::remove_file(&file).unwrap();
        asked
    }

    async fn said(&self, expected: &str) {
        let read = || std::fs::read_to_string(self.fpm.dir().join("said")).unwrap_or_default();
        eventually(&format!("PHP says {expected:?}"), || read().lines().any(|line| line == expected)).await;
    }

    async fn command(&self, verb: &str, body: Value) -> Value {
        let path = format!("/v1/{verb}");
        let answer = http::request(self.node.address("api"), "POST", &path, body.to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn session(&self, sid: &str) -> http::Answer {
        http::request(self.node.address("api"), "GET", &format!("/v1/sessions/{sid}"), b"").await.unwrap()
    }

    /// Starts a client of this kind, which enters as soon as PHP admits it.
    fn enter(&self, door: &'static str) -> JoinHandle<Guest> {
        let (web, length) = (self.node.address("web"), self.node.address("length"));
        tokio::spawn(async move {
            match door {
                "websocket" => Guest::Framed(Box::new(Client::upgrade(web, "/ws", "").await)),
                "tcp" => {
                    Guest::Framed(Box::new(Client::connect(length, Framing::Length(LengthFraming::default())).await))
                }
                "stream" => Guest::Stream(Box::new(Http::one(web).await.stream("/ws", &[]).await)),
                _ => {
                    let mut http = Http::one(web).await;
                    let opened = http.ask("GET", "/ws?longwire=poll", &[], b"").await;
                    let mut events = opened.events();
                    let address = events.remove(0).data;
                    Guest::Polled(http, address, events.into_iter().map(|event| event.data).collect())
                }
            }
        })
    }

    /// Waits until nothing is left of a session that was refused or has left.
    async fn nothing_is_left(&self, sid: &str) {
        eventually("no channel, uid or session is left", || {
            ["longwire_channels", "longwire_uids", "longwire_sessions"]
                .iter()
                .all(|name| self.node.metric(name, "") == 0.0)
        })
        .await;
        assert_eq!(self.session(sid).await.status, 404);
        let list = http::request(self.node.address("api"), "GET", "/v1/sessions", b"").await.unwrap().json();
        assert_eq!(list["count"], 0, "{list}");
        self.said(&format!("join {sid} lobby")).await;
        self.said(&format!("leave {sid} lobby")).await;
    }
}

impl Guest {
    async fn next(&mut self) -> String {
        match self {
            Guest::Framed(client) => String::from_utf8_lossy(&client.frame().await.body).into_owned(),
            Guest::Stream(stream) => stream.event().await.data,
            Guest::Polled(http, address, waiting) => {
                while waiting.is_empty() {
                    let answer = http.ask("GET", &address.clone(), &[], b"").await;
                    waiting.extend(answer.events().into_iter().map(|event| event.data));
                }
                waiting.remove(0)
            }
        }
    }

    /// Sends a message and returns the handler's answer.
    async fn ask(&mut self, body: &str) -> String {
        match self {
            Guest::Framed(client) => client.ask(body).await,
            Guest::Stream(stream) => {
                stream.http.ask("POST", &stream.address.clone(), &[], body.as_bytes()).await.text()
            }
            Guest::Polled(http, address, _) => http.ask("POST", &address.clone(), &[], body.as_bytes()).await.text(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_joins_binds_and_sends_to_the_session_that_it_is_asked_about_through_every_door() {
    let stage = Stage::new();
    for door in DOORS {
        let entering = stage.enter(door);
        let asked = stage.asked().await;
        let one = json!({ "reached": 1 });
        let held = json!({ "queued": 1 });
        let did = json!({ "join": one, "bind": one, "set": one, "send": held, "publish": held });
        assert_eq!(asked["did"], did, "{door}");
        let mut guest = entering.await.unwrap();
        for expected in ["greeting", "sent to a guest", "published to guests"] {
            assert_eq!(guest.next().await, expected, "{door}");
        }
        let sid = asked["sid"].as_str().unwrap();
        // Over HTTP/1.1 the stream occupies the connection, so the client cannot POST on it.
        if door != "stream" {
            assert_eq!(guest.ask("who am I").await, "42 kitchen", "{door}");
        }
        stage.command("close", json!({ "to": format!("session:{sid}") })).await;
        drop(guest);
        stage.said(&format!("close {sid} 42 kitchen")).await;
        stage.nothing_is_left(sid).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_send_to_a_guest_waits_for_it_and_a_close_meets_it_behind_the_101() {
    let stage = Stage::new();
    stage.set("quiet", "");
    let mut other = stage.enter("tcp").await.unwrap();
    other.next().await;
    stage.unset(&["quiet"]);
    stage.set("wait", "");
    for door in DOORS {
        let entering = stage.enter(door);
        let asked = stage.asked().await;
        let sid = asked["sid"].as_str().unwrap();
        let found = stage.session(sid).await.json();
        assert_eq!((&found["uid"], &found["channels"]), (&json!("42"), &json!(["lobby"])), "{door}");
        let to = format!("session:{sid}");
        let sent = stage.command("send", json!({ "to": to, "message": "by the API" })).await;
        assert_eq!((&sent["queued"], &sent["gone"]), (&json!(1), &json!(0)), "{door}");
        let Guest::Framed(sender) = &mut other else { unreachable!() };
        sender.text(&format!("to {sid}")).await;
        stage.node.wait_for_log("the header has sent it", |line| {
            line["event"] == "message" && line["seq"] == 1 + DOORS.iter().position(|known| *known == door).unwrap()
        });
        let closed =
            stage.command("close", json!({ "to": to, "code": 4007, "reason": "enough", "message": "bye" })).await;
        assert_eq!(closed["reached"], 1, "{door}");
        assert!(!entering.is_finished() || door == "tcp", "PHP has not let it in yet");
        stage.set("go", "");
        let mut guest = entering.await.unwrap();
        for expected in ["greeting", "sent to a guest", "published to guests", "by the API", "by a header"] {
            assert_eq!(guest.next().await, expected, "{door}");
        }
        if let Guest::Framed(client) = &mut guest {
            let end = loop {
                match client.next().await {
                    Some(Item::Frame(_)) => {}
                    end => break end,
                }
            };
            match end {
                Some(Item::Close { code, .. }) => assert_eq!((door, code), ("websocket", Some(4007))),
                end => assert_eq!((door, end), ("tcp", None)),
            }
        }
        stage.said(&format!("close {sid} 42 kitchen")).await;
        stage.unset(&["go"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_is_refused_hears_nothing_and_leaves_nothing_behind() {
    let stage = Stage::new();
    stage.set("refuse", "");
    let web = stage.node.address("web");
    let refusal = Client::try_upgrade(web, "/ws", "").await.err().expect("it is refused");
    assert!(refusal.contains("403") && refusal.ends_with("not today"), "{refusal}");
    stage.nothing_is_left(stage.asked().await["sid"].as_str().unwrap()).await;

    let answer = Http::one(web).await.ask("GET", "/ws", &[("accept", "text/event-stream")], b"").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (403, "not today".to_owned()));
    stage.nothing_is_left(stage.asked().await["sid"].as_str().unwrap()).await;

    let Guest::Framed(mut client) = stage.enter("tcp").await.unwrap() else { unreachable!() };
    let mut heard = Vec::new();
    while let Some(item) = client.next().await {
        heard.push(item);
    }
    assert!(!format!("{heard:?}").contains("guest"), "a refused guest must not get pushes: {heard:?}");
    stage.nothing_is_left(stage.asked().await["sid"].as_str().unwrap()).await;
    let said = std::fs::read_to_string(stage.fpm.dir().join("said")).unwrap();
    assert!(!said.contains("close"), "PHP turned all of them away: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_goes_while_php_is_asked_leaves_nothing_behind_but_its_close_event() {
    let stage = Stage::new();
    stage.set("wait", "");
    for door in ["websocket", "stream", "tcp"] {
        let socket =
            tokio::net::TcpStream::connect(stage.node.address(if door == "tcp" { "length" } else { "web" })).await;
        let mut socket = socket.unwrap();
        let head = match door {
            "websocket" => concat!(
                "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
            "stream" => "GET /ws HTTP/1.1\r\nHost: shop.example\r\nAccept: text/event-stream\r\n\r\n",
            _ => "",
        };
        tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.unwrap();
        let sid = stage.asked().await["sid"].as_str().unwrap().to_owned();
        assert_eq!(stage.session(&sid).await.status, 200, "{door}");
        socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(socket);
        // The close event runs after the connect event has ended.
        stage.set("go", "");
        stage.said(&format!("close {sid} 42 kitchen")).await;
        stage.nothing_is_left(&sid).await;
        stage.unset(&["go"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_finds_a_guest_too() {
    let (fpm, engine) = (Pool::of(4).start(), EngineServer::start(Kind::Redis));
    api_beside(&fpm);
    let script = fpm.script("handler.php", HANDLER);
    let node = |number: u16| {
        Longwire::serve(&format!(
            "[node]\nname = \"n{number}\"\nnumber = {number}\n[cluster]\n{}[apps.app]\nupstream = \"php\"\nscript = {script:?}\n\
             {EVENTS}\n[upstreams.php]\nbackends = [\"{}\"]\n{LISTENERS}",
            engine.config(),
            fpm.address(),
        ))
    };
    let nodes = [node(1), node(2)];
    all_know(&nodes, 1).await;
    std::fs::write(fpm.dir().join("router"), nodes[1].address("router").to_string()).unwrap();
    let mut client = Client::upgrade(nodes[0].address("web"), "/ws", "").await;
    let asked: Value = serde_json::from_slice(&std::fs::read(fpm.dir().join("asked")).unwrap()).unwrap();
    let (one, held) = (json!({ "reached": 1 }), json!({ "queued": 1 }));
    assert_eq!(asked["did"], json!({ "join": one, "bind": one, "set": one, "send": held, "publish": held }));
    for expected in ["greeting", "sent to a guest", "published to guests"] {
        assert_eq!(&client.frame().await.body[..], expected.as_bytes());
    }
    assert_eq!(client.ask("who am I").await, "42 kitchen");
}
