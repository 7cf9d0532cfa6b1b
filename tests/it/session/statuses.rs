//! The meaning of the status in a handler's answer, and greetings that are streamed line by line.

use ::http::StatusCode;
use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::event_stream::Http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// A message is PHP code. `connect` runs the code of its query string, or `connect.inc` if there is no query.
const HANDLER: &str = r#"
function step(int $n): void {
    ob_get_level() && ob_flush();
    flush();
    for ($i = 0; !file_exists(__DIR__ . "/step$n") && $i < 10000; $i++) { usleep(1000); clearstatcache(); }
}
switch ($_SERVER['LONGWIRE_EVENT']) {
    case 'connect': eval($_GET['code'] ?? ''); @include __DIR__ . '/connect.inc'; break;
    case 'message': eval(file_get_contents('php://input')); break;
    default: file_put_contents(__DIR__ . '/said', "close {$_SERVER['LONGWIRE_SEQ']}\n", FILE_APPEND);
}
"#;

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(app: &str) -> Self {
        let fpm = Pool::of(4).start();
        let script = fpm.script("handler.php", HANDLER);
        let node =
            Longwire::with(&fpm, &script, &format!("events = [\"connect\", \"close\"]\n{app}"), "", EACH_FRAMING);
        Self { fpm, node }
    }

    fn path(code: &str) -> String {
        let code: String = code.bytes().map(|b| format!("%{b:02x}")).collect();
        format!("/ws?code={code}")
    }

    fn say_step(&self, number: usize) {
        std::fs::write(self.fpm.dir().join(format!("step{number}")), "").expect("the directory is ours");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.fpm.dir().join("said")).unwrap_or_default()
    }

    async fn length(&self) -> Client {
        Client::connect(self.node.address("length"), Framing::Length(LengthFraming::default())).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_that_answers_connect_refuses_and_leads_http_clients_on() {
    let stage = Stage::new("");
    let address = stage.node.address("web");
    for (status, code) in [
        (302, "header('Longwire-Join: room'); header('Location: /login'); echo 'the login page';"),
        (307, "header('Location: /login', true, 307);"),
    ] {
        let path = Stage::path(code);
        let refused = Client::try_upgrade(address, &path, "").await.err().expect("a guest is not let in");
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} ")), "{refused}");
        assert!(refused.to_ascii_lowercase().contains("\r\nlocation: /login\r\n"), "{refused}");
        let poll = format!("{path}&longwire=poll");
        let requests = [(&path, &[("accept", "text/event-stream")][..]), (&poll, &[])];
        for (path, headers) in requests {
            let answer = Http::one(address).await.ask("GET", path, headers, b"").await;
            assert_eq!((answer.status.as_u16(), &answer.headers["location"]), (status, &"/login".parse().unwrap()));
        }
    }
    std::fs::write(stage.fpm.dir().join("connect.inc"), "<?php header('Location: /login'); echo 'the login page';")
        .unwrap();
    assert_eq!(stage.length().await.end().await, None, "no login page for devices");
    let closed = &stage.node.closed(1)[0];
    assert_eq!((closed["reason"].as_str(), closed["detail"].as_str()), (Some("refused"), Some("status 302")));
    std::fs::remove_file(stage.fpm.dir().join("connect.inc")).unwrap();
    assert_eq!(stage.node.metric("longwire_connections_refused_total", "reason=\"refused\""), 6.0);
    assert_eq!(stage.node.metric("longwire_channels", "") + stage.node.metric("longwire_sessions", ""), 0.0);
    // In the answer to a message, a redirect is a normal reply, as 4xx is, because no client of a session could follow it.
    let mut client = Client::upgrade(address, "/ws", "").await;
    assert_eq!(client.ask("header('Location: /login'); echo 'log in first';").await, "log in first");
    client.close(1000).await;
    eventually("it is told of", || stage.fpm.dir().join("said").exists()).await;
    assert_eq!(stage.said(), "close 2\n", "a guest never was a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_has_no_body_is_no_reply_whatever_length_is_announced() {
    let stage = Stage::new("");
    let address = stage.node.address("web");
    let bodyless = [
        "http_response_code(204); header('Content-Length: 0');",
        "http_response_code(304); header('Content-Length: 0');",
        "http_response_code(304); header('Content-Length: 500');",
        "http_response_code(205); header('Content-Length: 0');",
        "http_response_code(103); header('Content-Length: 0');",
        "http_response_code(204); echo 'a stray newline';",
        "http_response_code(204); header('Content-Offset: -3'); echo 'a stray newline';",
        "http_response_code(204); header('Longwire-Stream: lines'); echo \"a\\nb\\n\";",
        "http_response_code(204); header('Longwire-To: all'); echo 'nobody reads this';",
    ];
    for code in bodyless {
        // As an answer to connect, any 3xx is a refusal.
        let greeting = if code.contains("(304)") { "" } else { code };
        std::fs::write(stage.fpm.dir().join("connect.inc"), format!("<?php {greeting}")).unwrap();
        let (mut web, mut length) = (Client::upgrade(address, "/ws", "").await, stage.length().await);
        std::fs::remove_file(stage.fpm.dir().join("connect.inc")).unwrap();
        for client in [&mut web, &mut length] {
            client.text(code).await;
            assert_eq!(client.ask("echo 'next';").await, "next", "{code}");
        }
        let mut stream = Http::one(address).await.stream(&Stage::path(greeting), &[]).await;
        let mut http = Http::one(address).await;
        let answer = http.ask("POST", &stream.address, &[], code.as_bytes()).await;
        assert_eq!(answer.text(), "", "{code}");
        let status =
            if code.contains("103") { StatusCode::BAD_GATEWAY.as_u16() } else { code[19..22].parse().unwrap() };
        assert_eq!(answer.status.as_u16(), status, "{code}");

        http.ask(
            "POST",
            &stream.address,
            &[],
            b"header('Longwire-To: session:' . $_SERVER['SESSIONID']); echo 'first';",
        )
        .await;
        assert_eq!(stream.event().await.data, "first", "{code}");
    }
    let failures = stage.node.log_lines(|line| line["message"].as_str().is_some_and(|m| m.starts_with("event failed")));
    assert!(failures.iter().all(|line| line["cause"] == "bad_head"), "{failures:?}");
    // With a status that may have a body, an announced empty reply is a reply.
    assert_eq!(stage.length().await.ask("header('Content-Length: 0');").await, "");
    // The other headers of the answer are still applied.
    let mut client = stage.length().await;
    client.text("http_response_code(204); header('Longwire-Join: room'); header('Longwire-Close: 4000 done');").await;
    assert_eq!(client.end().await, None);
    let is_handlers = |line: &serde_json::Value| line["reason"] == "handler_closed";
    stage.node.wait_for_log("it is closed", is_handlers);
}

const TOKENS: &str = "header('Longwire-Stream: lines'); header('Set-Cookie: seen=1'); header('Longwire-Join: room');
    for ($i = 0; $i < 3; $i++) { echo \"token $i\\n\"; step($i); } echo 'the end';";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_answer_connect_reach_an_event_stream_as_they_are_flushed() {
    let stage = Stage::new("concurrency = 4");
    let mut stream = Http::one(stage.node.address("web")).await.stream(&Stage::path(TOKENS), &[]).await;
    assert_eq!(stream.headers["set-cookie"], "seen=1");
    let post = tokio::spawn({
        let (mut http, address) = (Http::one(stage.node.address("web")).await, stream.address.clone());
        async move { http.ask("POST", &address, &[], b"echo $_SERVER['LONGWIRE_SEQ'];").await.text() }
    });
    for step in 0..3 {
        assert_eq!(stream.event().await.data, format!("token {step}"));
        assert!(!post.is_finished(), "nothing overtakes the connect event");
        stage.say_step(step);
    }
    assert_eq!(stream.event().await.data, "the end");
    assert_eq!(post.await.unwrap(), "1");
    assert_eq!(stage.node.metric("longwire_channels", ""), 1.0);
    drop(stream);
    eventually("it is told of", || stage.said() == "close 2\n").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_answer_connect_follow_the_101_and_polls_get_them_too() {
    let stage = Stage::new("on_error = { send = \"sorry\" }");
    let address = stage.node.address("web");
    let (mut client, head) = Client::try_upgrade(address, &Stage::path(TOKENS), "").await.expect("it is let in");
    assert!(head.to_ascii_lowercase().contains("set-cookie: seen=1"), "{head}");
    client.text("echo 'a message';").await;
    for step in 0..3 {
        assert_eq!(client.frame().await.body, format!("token {step}"));
        stage.say_step(step);
    }
    assert_eq!((&client.frame().await.body[..], &client.frame().await.body[..]), (&b"the end"[..], &b"a message"[..]));

    let mut http = Http::one(address).await;
    let short = "header('Longwire-Stream: lines'); header('Longwire-Close: 4000 that is all'); echo \"a\\nb\";";
    let opened = http.ask("GET", &format!("{}&longwire=poll", Stage::path(short)), &[], b"").await;
    let session = opened.headers["longwire-session"].to_str().unwrap().to_owned();
    let mut data: Vec<_> = opened.events().into_iter().skip(1).map(|event| event.data).collect();
    while data.len() < 3 {
        data.extend(http.ask("GET", &session, &[], b"").await.events().into_iter().map(|event| event.data));
    }
    assert_eq!(data, ["a", "b", "4000 that is all"]);

    // After the session was admitted, a failure is handled as for a message. If the script dies before that, the session is refused.
    let dies = "header('Longwire-Stream: lines'); echo \"one\\ntwo\"; step(5); undefined_fn();";
    let mut client = Client::upgrade(address, &Stage::path(dies), "").await;
    assert_eq!(&client.frame().await.body[..], b"one");
    stage.say_step(5);
    assert_eq!(&client.frame().await.body[..], b"sorry");
    assert_eq!(client.ask("echo 'still here';").await, "still here");
    let status = "header('Longwire-Stream: lines'); http_response_code(403); echo \"no\\nno\";";
    let refused = Client::try_upgrade(address, &Stage::path(status), "").await.err().expect("it is refused");
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.ends_with("no\nno"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_it_is_greeted_by_lines_is_told_of_behind_that() {
    let stage = Stage::new("");
    let endless =
        "header('Longwire-Stream: lines'); while (true) { echo \"more\\n\"; ob_flush(); flush(); usleep(2000); }";
    let mut stream = Http::one(stage.node.address("web")).await.stream(&Stage::path(endless), &[]).await;
    assert_eq!(stream.event().await.data, "more");
    drop(stream);
    let mut client = Client::upgrade(stage.node.address("web"), &Stage::path(endless), "").await;
    assert_eq!(&client.frame().await.body[..], b"more");
    client.reset();
    eventually("both are told of", || stage.said() == "close 1\nclose 1\n").await;
    eventually("no worker is held", || stage.node.metric("longwire_upstream_busy_connections", "") == 0.0).await;
}
