//! Clients without WebSocket: event streams, polls, posts, over HTTP/1.1 and HTTP/2.

use ::http::StatusCode;
use serde_json::json;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::event_stream::{Event, Http, Stream, message};
use crate::support::http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// Writes a line of JSON to a file for each event.
const HANDLER: &str = r#"
$event = $_SERVER['LONGWIRE_EVENT'];
$body = file_get_contents('php://input');
$seen = ['event' => $event, 'seq' => (int) $_SERVER['LONGWIRE_SEQ'], 'sid' => $_SERVER['SESSIONID'], 'body' => $body,
    'last' => $_SERVER['HTTP_LAST_EVENT_ID'] ?? null, 'cookie' => $_SERVER['HTTP_COOKIE'] ?? null,
    'reason' => $_SERVER['LONGWIRE_CLOSE_REASON'] ?? null, 'type' => $_SERVER['LONGWIRE_FRAME_TYPE'] ?? null,
    'method' => $_SERVER['REQUEST_METHOD'], 'uri' => $_SERVER['REQUEST_URI']];
file_put_contents(__DIR__ . '/seen', json_encode($seen, JSON_INVALID_UTF8_SUBSTITUTE) . "\n", FILE_APPEND | LOCK_EX);
if ($event === 'connect') {
    if (isset($_GET['refuse'])) { http_response_code(403); header('X-Why: full moon'); exit('not today'); }
    header('Longwire-Join: room');
    header('Set-Cookie: seen=1');
    header('Longwire-Id: first');
    exit("hello\nthere");
}
if ($event === 'close') { exit; }
[$verb, $rest] = explode(' ', $body, 2) + [1 => ''];
switch ($verb) {
    case 'room': header('Longwire-To: channel:room'); header('Longwire-Id: 7'); exit($rest);
    case 'fail': http_response_code(500); exit('a stack trace');
    case 'teapot': http_response_code(418); header('X-Pot: small'); exit('short and stout');
    case 'close': header('Longwire-Close: 4001 enough'); exit('closing');
    case 'slow':
        for ($i = 0; $i < 3; $i++) { echo "part $i;"; ob_flush(); flush(); usleep(50000); }
        exit;
    case 'wait': while (!file_exists(__DIR__ . '/go')) { usleep(5000); } exit('waited');
    case 'large': header('Content-Length: ' . $rest); exit(str_repeat('x', (int) $rest));
    default: header('Content-Length: ' . strlen($body)); echo $body;
}
"#;

const LISTENER: &str = r#"
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/live" = "app" }
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(app: &str, listener: &str) -> Self {
        let fpm = Pool::of(4).start();
        let script = fpm.script("handler.php", HANDLER);
        let app = format!("events = [\"connect\", \"close\"]\n{app}");
        let node = Longwire::with(&fpm, &script, &app, "", &format!("{LISTENER}{listener}"));
        Self { fpm, node }
    }

    async fn http(&self) -> Http {
        Http::one(self.node.address("web")).await
    }

    /// A session that has read its greeting.
    async fn stream(&self) -> Stream {
        let mut stream = self.http().await.stream("/live", &[]).await;
        assert_eq!(stream.event().await, Event { id: "first".into(), ..message("hello\nthere") });
        stream
    }

    /// A polled session, and its address.
    async fn polled(&self) -> (Http, String) {
        let mut http = self.http().await;
        let opened = http.ask("GET", "/live?longwire=poll", &[], b"").await;
        assert_eq!(opened.status, StatusCode::OK);
        let address = opened.headers["longwire-session"].to_str().unwrap().to_owned();
        let mut events = opened.events();
        assert_eq!((events[0].name.as_str(), &events[0].data), ("session", &address));
        if events.len() == 1 {
            events.extend(http.ask("GET", &address, &[], b"").await.events());
        }
        assert_eq!(events[1].data, "hello\nthere");
        (http, address)
    }

    /// The events that PHP got, in order.
    fn seen(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.fpm.dir().join("seen")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits for the close events of this number of sessions.
    async fn closed(&self, count: usize) -> Vec<serde_json::Value> {
        let closed = || self.seen().into_iter().filter(|seen| seen["event"] == "close").collect::<Vec<_>>();
        eventually(&format!("{count} close events"), || closed().len() >= count).await;
        closed()
    }

    async fn command(&self, verb: &str, body: serde_json::Value) -> serde_json::Value {
        let address = self.node.address("api");
        let answer = http::request(address, "POST", &format!("/v1/{verb}"), body.to_string().as_bytes()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn sid(address: &str) -> &str {
    address.split_once("longwire=").unwrap().1.split_once('.').unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_brings_replies_pushes_and_ids_and_posts_are_answered_over_both_versions_of_http() {
    let stage = Stage::new("", "");
    let address = stage.node.address("web");
    for http in [Http::one(address).await, Http::two(address).await] {
        let is_two = matches!(http, Http::Two(_));
        let mut stream = http.stream("/live?a=1", &[("cookie", "login=7"), ("last-event-id", "41")]).await;
        assert_eq!(stream.headers["set-cookie"], "seen=1");
        assert_eq!(stream.event().await, Event { id: "first".into(), ..message("hello\nthere") });
        // On HTTP/2 requests share the connection with the stream; on HTTP/1.1 they have one of their own.
        let mut posts = match &stream.http {
            Http::Two(sender) => Http::Two(sender.clone()),
            Http::One(_) => Http::one(address).await,
        };
        let path = stream.address.clone();
        for n in 0..20 {
            let body = format!("number {n}");
            let answer = posts.ask("POST", &path, &[], body.as_bytes()).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, body));
        }
        let binary: Vec<u8> = (0..=255).collect();
        assert_eq!(posts.ask("POST", &path, &[("content-type", "image/png")], &binary).await.body, binary);
        let told = posts.ask("POST", &path, &[], b"room a word to all").await;
        assert_eq!((told.status, told.text()), (StatusCode::NO_CONTENT, String::new()));
        assert_eq!(stream.event().await, Event { id: "7".into(), ..message("a word to all") });
        let receipt = stage
            .command("send", json!({ "to": format!("session:{}", sid(&path)), "message_base64": "AP8=", "id": "x" }));
        assert_eq!(receipt.await["reached"], 1);
        let binary = Event { name: "binary".into(), id: "x".into(), data: "AP8=".into() };
        assert_eq!(stream.event().await, binary);

        let teapot = posts.ask("POST", &path, &[], b"teapot").await;
        assert_eq!((teapot.status.as_u16(), teapot.text()), (418, "short and stout".to_owned()));
        assert_eq!(teapot.headers["x-pot"], "small");
        let failed = posts.ask("POST", &path, &[], b"fail").await;
        assert_eq!((failed.status.as_u16(), failed.text()), (500, String::new()), "a stack trace is not shown");
        assert_eq!(posts.ask("POST", &path, &[], b"slow").await.text(), "part 0;part 1;part 2;");
        let large = posts.ask("POST", &path, &[], b"large 3000000").await;
        assert_eq!(large.body.len(), 3_000_000);

        let closing = posts.ask("POST", &path, &[], b"close").await;
        assert_eq!(closing.text(), "closing");
        assert_eq!(stream.event().await, Event { name: "close".into(), ..message("4001 enough") });
        assert_eq!(stream.next().await, None);
        assert_eq!(posts.ask("POST", &path, &[], b"late").await.status, StatusCode::GONE);
        let closed = stage.closed(1 + usize::from(is_two)).await;
        assert_eq!(closed.last().unwrap()["reason"], "handler_closed");
    }
    let seen = stage.seen();
    let sessions: Vec<_> = seen.iter().filter(|seen| seen["event"] == "connect").collect();
    assert_eq!(sessions.len(), 2);
    for connect in sessions {
        assert_eq!(
            (&connect["last"], &connect["cookie"], &connect["seq"]),
            (&json!("41"), &json!("login=7"), &json!(0))
        );
        let events: Vec<_> = seen.iter().filter(|seen| seen["sid"] == connect["sid"]).collect();
        for (seq, event) in events.iter().enumerate() {
            assert_eq!(event["seq"], seq, "in order, none missing");
            let cookies = if seq == 0 { "login=7" } else { "seen=1; login=7" };
            assert_eq!(event["cookie"], cookies, "the cookies of the opening request and of the answer to connect");
            assert_eq!((&event["method"], &event["uri"]), (&json!("POST"), &json!("/live?a=1")));
        }
        let types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(types.iter().filter(|kind| **kind == "binary").count(), 1, "{types:?}");
    }
    eventually("no place is kept", || stage.node.metric("longwire_handshakes", "") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_reordered_between_polls() {
    const COUNT: u32 = 400;
    let stage = Stage::new("outbox_bytes = \"1 MiB\"", "sse = { poll_timeout = \"200ms\" }\n");
    let (mut http, address) = stage.polled().await;
    let publisher = async {
        for n in 0..COUNT {
            let receipt = stage
                .command("send", json!({ "to": "channel:room", "message": n.to_string(), "id": n.to_string() }))
                .await;
            assert_eq!(receipt["reached"].as_u64().unwrap() + receipt["queued"].as_u64().unwrap(), 1, "{receipt}");
        }
    };
    let mut got = Vec::new();
    let (mut batches, mut empty) = (0, 0);
    let reader = async {
        while got.len() < COUNT as usize {
            let answer = http.ask("GET", &address, &[], b"").await;
            match answer.status {
                StatusCode::NO_CONTENT => empty += 1,
                StatusCode::OK => {
                    batches += 1;
                    got.extend(answer.events());
                }
                status => panic!("{status}"),
            }
        }
    };
    tokio::join!(publisher, reader);
    let expected: Vec<_> = (0..COUNT).map(|n| Event { id: n.to_string(), ..message(&n.to_string()) }).collect();
    assert_eq!(got, expected);
    assert!(batches > 1, "{batches} polls had something, {empty} had nothing");
    // No poll is open, so messages wait for the next one.
    for n in 0..50 {
        let receipt = stage.command("send", json!({ "to": "all", "message": format!("later {n}") })).await;
        assert_eq!((&receipt["reached"], &receipt["queued"]), (&json!(0), &json!(1)));
    }
    let mut later = Vec::new();
    while later.len() < 50 {
        later.extend(http.ask("GET", &address, &[], b"").await.events());
    }
    assert_eq!(later, (0..50).map(|n| message(&format!("later {n}"))).collect::<Vec<_>>());
    assert_eq!(http.ask("GET", &address, &[], b"").await.status, StatusCode::NO_CONTENT, "no event may come twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_with_curl_polls_and_posts_and_gets_everything_in_order() {
    const COUNT: usize = 60;
    let stage = Stage::new("", "sse = { poll_timeout = \"300ms\" }\n");
    let base = format!("http://{}", stage.node.address("web"));
    let opened = curl(&[&format!("{base}/live?longwire=poll")]).await;
    let path = opened.lines().find_map(|line| line.strip_prefix("data: ")).expect("the session event");
    let address = &format!("{base}{path}");
    assert_eq!(curl(&[address, "-d", "hello"]).await, "hello");
    let publisher = async {
        for n in 0..COUNT {
            stage.command("send", json!({ "to": "channel:room", "message": format!("push {n}") })).await;
        }
    };
    let reader = async {
        let (mut polls, mut got) = (opened, Vec::new());
        while got.len() < COUNT {
            polls += &curl(&[address]).await;
            got = polls.lines().filter_map(|line| line.strip_prefix("data: push ")).map(str::to_owned).collect();
        }
        got
    };
    let ((), got) = tokio::join!(publisher, reader);
    assert_eq!(got, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(curl(&[&[address.as_str()][..], &status[..]].concat()).await, "204");
    assert_eq!(curl(&[&[address.as_str(), "-X", "DELETE"][..], &status[..]].concat()).await, "204");
    assert_eq!(curl(&[&[address.as_str()][..], &status[..]].concat()).await, "410");
    assert_eq!(stage.closed(1).await[0]["reason"], "client_closed");
}

/// Runs curl and returns its output.
async fn curl(arguments: &[&str]) -> String {
    let mut curl = tokio::process::Command::new("curl");
    let output = curl.args(["-sS", "--max-time", "30"]).args(arguments).output().await.expect("curl runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_session_ends_when_nobody_polls_and_at_its_outbox_bound() {
    let stage = Stage::new("outbox_bytes = \"16 KiB\"", "sse = { poll_timeout = \"100ms\", poll_gap = \"1s\" }\n");
    let (mut http, address) = stage.polled().await;
    let (_, full) = stage.polled().await;
    // Poll again and again, for longer than one gap in total.
    for _ in 0..15 {
        assert_eq!(http.ask("GET", &address, &[], b"").await.status, StatusCode::NO_CONTENT);
    }
    let closed = stage.closed(1).await;
    assert_eq!(
        (&closed[0]["sid"], &closed[0]["reason"]),
        (&json!(sid(&full)), &json!("client_gone")),
        "it did not poll"
    );
    let receipt = async |length: usize| {
        stage
            .command("send", json!({ "to": format!("session:{}", sid(&address)), "message": "x".repeat(length) }))
            .await
    };
    assert_eq!(receipt(8000).await["queued"], 1);
    assert_eq!(receipt(9000).await["dropped"]["close"], 1, "it exceeds the bytes that may wait");
    let closed = stage.closed(2).await;
    assert_eq!((&closed[1]["sid"], &closed[1]["reason"]), (&json!(sid(&address)), &json!("slow_reader")));
    assert_eq!(http.ask("GET", &address, &[], b"").await.status, StatusCode::GONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_a_session_id_cannot_speak_for_the_session_and_wrong_requests_are_told_so() {
    let stage = Stage::new("max_frame_bytes = 1000\nmax_queued_frames = 1", "");
    let mut stream = stage.stream().await;
    let address = stream.address.clone();
    let key = address.split_once('.').unwrap().1;
    let mut http = stage.http().await;
    let forged = [
        format!("/live?longwire={}", sid(&address)),
        format!("/live?longwire={}.", sid(&address)),
        format!("/live?longwire={}.{}", sid(&address), "A".repeat(22)),
        format!("/live?longwire=AAAAAAAAAAAAAAAA.{key}"),
        format!("/live?longwire={}", "x".repeat(5000)),
    ];
    for forged in forged {
        for method in ["POST", "GET", "DELETE"] {
            let answer = stage.http().await.ask(method, &forged, &[], b"forged").await;
            assert_eq!(answer.status, StatusCode::GONE, "{method} {forged}");
        }
    }
    let status = async |method: &str, headers: &[(&str, &str)], body: &[u8]| {
        stage.http().await.ask(method, &address, headers, body).await.status.as_u16()
    };
    assert_eq!(status("GET", &[], b"").await, 409, "a stream is not polled");
    assert_eq!(status("PUT", &[], b"x").await, 405);
    assert_eq!(status("POST", &[], &[b'x'; 1001]).await, 413);
    assert_eq!(status("POST", &[("origin", "https://evil.example")], b"x").await, 403);
    assert_eq!(status("POST", &[("sec-fetch-site", "cross-site")], b"x").await, 403);
    assert_eq!(status("POST", &[("origin", "http://shop.example")], b"x").await, 200);
    let refused = http.ask("GET", "/live?refuse", &[("accept", "text/event-stream")], b"").await;
    assert_eq!((refused.status.as_u16(), refused.text()), (403, "not today".to_owned()));
    assert_eq!(refused.headers["x-why"], "full moon");
    assert_eq!(stage.http().await.ask("GET", "/live", &[], b"").await.status.as_u16(), 426);

    // One POST runs in PHP and one waits. A third is refused.
    let post = |body: &'static [u8]| {
        let (node, path) = (stage.node.address("web"), address.clone());
        async move { Http::one(node).await.ask("POST", &path, &[], body).await }
    };
    let first = tokio::spawn(post(b"wait"));
    eventually("PHP has the first", || stage.seen().iter().any(|seen| seen["body"] == "wait")).await;
    let mut others = tokio::task::JoinSet::new();
    for _ in 0..3 {
        others.spawn(post(b"other"));
    }
    for _ in 0..2 {
        let refused = others.join_next().await.unwrap().unwrap();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers["retry-after"], "1");
    }
    std::fs::write(stage.fpm.dir().join("go"), "").unwrap();
    assert_eq!(others.join_next().await.unwrap().unwrap().text(), "other");
    assert_eq!(first.await.unwrap().text(), "waited");
    stage.command("send", json!({ "to": "all", "message": "still there" })).await;
    assert_eq!(stream.event().await.data, "still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_stream_is_one_close_event_and_the_right_word_to_the_client() {
    let stage = Stage::new("idle_timeout = \"2s\"", "sse = { heartbeat = \"300ms\" }\n");
    let address = stage.node.address("web");
    let end = async |stream: &mut Stream| {
        let event = stream.event().await;
        assert_eq!((event.name.as_str(), stream.next().await), ("close", None));
        event.data
    };
    let mut ends = Vec::new();
    let mut session = |stream: &Stream, reason: &'static str| ends.push((sid(&stream.address).to_owned(), reason));

    // The client goes: a whole connection, and one stream of a connection that lives on.
    let stream = stage.stream().await;
    session(&stream, "no_goodbye");
    drop(stream);
    let two = Http::two(address).await;
    let Http::Two(sender) = &two else { unreachable!() };
    let mut other = Http::Two(sender.clone());
    let stream = two.stream("/live", &[]).await;
    session(&stream, "no_goodbye");
    drop(stream);
    stage.closed(2).await;

    let mut deleted = other.stream("/live", &[]).await;
    deleted.event().await;
    session(&deleted, "client_closed");
    let answer = deleted.http.ask("DELETE", &deleted.address.clone(), &[], b"").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(deleted.next().await, None, "a client that ended the session itself gets no close event");

    let mut closed = stage.stream().await;
    session(&closed, "router_closed");
    let to = format!("session:{}", sid(&closed.address));
    stage.command("close", json!({ "to": to, "code": 4002, "reason": "moved", "message": "last" })).await;
    assert_eq!(closed.event().await, message("last"));
    assert_eq!(end(&mut closed).await, "4002 moved");

    let mut idle = stage.stream().await;
    session(&idle, "idle_timeout");
    idle.comment().await;
    idle.comment().await;
    assert_eq!(end(&mut idle).await, "3008 idle for too long");

    other = Http::two(address).await;
    let mut drained = other.stream("/live", &[]).await;
    drained.event().await;
    session(&drained, "draining");
    stage.node.terminate();
    assert_eq!(end(&mut drained).await, "1001 going away");
    let closed = stage.closed(ends.len()).await;
    let mut told: Vec<_> =
        closed.iter().map(|seen| (seen["sid"].as_str().unwrap(), seen["reason"].as_str().unwrap())).collect();
    let mut expected: Vec<_> = ends.iter().map(|(sid, reason)| (sid.as_str(), *reason)).collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_is_cut_and_holds_no_more_than_its_bounds() {
    let stage = Stage::new("outbox_bytes = \"256 KiB\"\nsend_timeout = \"1s\"\nslow_reader = \"newest\"", "");
    let mut reader = stage.stream().await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        stalled.push(stage.stream().await);
    }
    // The client side of hyper stops reading from the socket while the body is not read.
    let before = stage.node.settled_memory().await;
    let word = "x".repeat(30_000);
    let mut sent = 0;
    while stage.seen().iter().filter(|seen| seen["event"] == "close").count() < 20 {
        stage.command("send", json!({ "to": "all", "message": word })).await;
        assert_eq!(reader.event().await.data.len(), word.len(), "a client that reads gets every event");
        sent += 1;
        assert!(sent < 20_000, "the clients that do not read must be closed");
    }
    let closed = stage.closed(20).await;
    assert!(closed.iter().all(|seen| seen["reason"] == "slow_reader"), "{closed:?}");
    let grown = stage.node.memory().saturating_sub(before);
    assert!(grown < 20 * (256 + 64 + 64) * 1024 + (8 << 20), "{grown} bytes");
    eventually("the connections go", || stage.node.metric("longwire_sessions", "") == 1.0).await;
    assert_eq!(stage.http().await.ask("POST", &reader.address, &[], b"here").await.text(), "here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_comes_back_with_the_last_id_and_talks_by_posts() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("handler.php", HANDLER);
    let page = fpm.dir().join("public");
    std::fs::create_dir(&page).unwrap();
    let code = r#"<!doctype html><title>stream</title><link rel="icon" href="data:,"><script>
        const got = [];
        let address;
        const source = new EventSource('/live');
        source.addEventListener('session', e => { address = e.data; got.push('session'); });
        source.addEventListener('close', e => { got.push('close ' + e.data); });
        source.onmessage = e => got.push(e.lastEventId + ': ' + e.data);
        const say = text => fetch(address, { method: 'POST', body: text }).then(r => r.text()).then(t => got.push('answer ' + t));
    </script>"#;
    std::fs::write(page.join("index.html"), code).unwrap();
    let listener = format!("{LISTENER}static = {page:?}\n");
    let node = Longwire::with(&fpm, &script, "events = [\"connect\", \"close\"]", "", &listener);
    let stage = Stage { fpm, node };
    let browser = Browser::start((600, 400), false).await;
    browser.open(&format!("http://{}/", stage.node.address("web"))).await;
    browser.wait_for("got.length === 2").await;
    browser.run("say('from the browser')").await;
    browser.wait_for("got.includes('answer from the browser')").await;
    browser.run("say('room to everybody')").await;
    browser.wait_for("got.includes('7: to everybody')").await;
    stage.command("send", json!({ "to": "all", "message": "two\nlines", "id": "news 8" })).await;
    browser.wait_for("got.includes('news 8: two\\nlines')").await;
    // The stream ends; the page does not close its source, so the browser comes back by itself.
    stage.command("close", json!({ "to": "all", "code": 4003, "reason": "again" })).await;
    browser.wait_for("got.includes('close 4003 again')").await;
    browser.wait_for("got.filter(word => word === 'session').length === 2").await;
    let connects: Vec<_> = stage.seen().into_iter().filter(|seen| seen["event"] == "connect").collect();
    assert_eq!((&connects[0]["last"], &connects[1]["last"]), (&json!(null), &json!("news 8")));
    assert!(connects[1]["cookie"].as_str().unwrap().contains("seen=1"), "the handler's cookie came back");
    browser.run("say('after coming back')").await;
    browser.wait_for("got.includes('answer after coming back')").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.run("source.close()").await;
    let closed = stage.closed(2).await;
    assert_eq!((&closed[0]["reason"], &closed[1]["reason"]), (&json!("router_closed"), &json!("no_goodbye")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_listed_origins_may_use_a_session_and_others_may_not() {
    let stage = Stage::new("", "websocket = { origins = [\"https://app.example\"] }\n");
    let origin = [("origin", "https://app.example")];
    let stream = stage.http().await.stream("/live", &origin).await;
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "longwire-session"),
        ("vary", "Origin"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    let asked = stage.http().await.ask("OPTIONS", &stream.address, &origin, b"").await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.headers["access-control-allow-methods"], "GET, POST, DELETE");
    let evil = [("origin", "https://evil.example"), ("accept", "text/event-stream")];
    let refused = stage.http().await.ask("GET", "/live", &evil, b"").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    assert_eq!(stage.seen().len(), 1, "PHP got only one connect event");
    let labels = "listener=\"web\",reason=\"handshake_refused\"";
    eventually("it is counted", || stage.node.metric("longwire_connections_refused_total", labels) == 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_that_are_listed_by_domain_or_have_no_host_are_let_in_and_no_others() {
    let origins = "websocket = { origins = [\"https://*.shop.example\", \"null\", \"file://\"] }\n";
    let stage = Stage::new("", origins);
    for (origin, status, with_cookies) in [
        ("https://a.shop.example", 200, true),
        ("https://a.b.shop.example", 200, true),
        ("file://", 200, true),
        ("null", 200, false),
        ("https://evilshop.example", 403, false),
        ("https://a.shop.example:8443", 403, false),
        ("http://a.shop.example", 403, false),
        ("https://a.shop.example.evil.example", 403, false),
    ] {
        let headers = [("origin", origin)];
        let opened = stage.http().await.ask("GET", "/live?longwire=poll", &headers, b"").await;
        assert_eq!(opened.status.as_u16(), status, "{origin}");
        assert_eq!(opened.headers.contains_key("access-control-allow-credentials"), with_cookies, "{origin}");
        let socket = Client::try_upgrade(stage.node.address("web"), "/live", &format!("Origin: {origin}\r\n")).await;
        assert_eq!(socket.is_ok(), status == 200, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_do_not_take_the_places_of_handshakes_and_idle_connections_end() {
    let fpm = Pool::of(4).start();
    let script = fpm.script("handler.php", HANDLER);
    let limits = "[limits]\nmax_handshakes = 2\nhandshake_timeout = \"500ms\"\n";
    let node = Longwire::with(&fpm, &script, "events = [\"connect\"]", "", &format!("{limits}{LISTENER}"));
    let stage = Stage { fpm, node };
    let address = stage.node.address("web");
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(stage.stream().await);
        let mut two = Http::two(address).await.stream("/live", &[]).await;
        two.event().await;
        streams.push(two);
    }
    for stream in &streams {
        assert_eq!(stage.http().await.ask("POST", &stream.address, &[], b"x").await.text(), "x");
    }
    // An HTTP/2 connection is closed some time after its session has ended, and also if it never makes a request.
    let quiet = Http::two(address).await;
    let Some(Stream { http: Http::Two(used), .. }) = streams.pop() else { unreachable!("the last one was of HTTP/2") };
    let Http::Two(quiet) = quiet else { unreachable!() };
    eventually("both are closed", || used.is_closed() && quiet.is_closed()).await;
    eventually("their places are free", || stage.node.metric("longwire_handshakes", "") == 0.0).await;
    for stream in &mut streams {
        stage.command("send", json!({ "to": format!("session:{}", sid(&stream.address)), "message": "you" })).await;
        assert_eq!(stream.event().await.data, "you");
    }
}
