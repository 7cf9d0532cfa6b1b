//! Scripts that die after their first output, and scripts that php-fpm cannot run: what clients get, and how it is counted.

use std::time::Duration;

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::echo::EACH_FRAMING;
use crate::support::http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::raw_websocket::{masked, upgraded};

/// A message is PHP code. `connect` and plain requests run the code of their query string.
const HANDLER: &str = r#"
function out(string $text): void { echo $text; ob_get_level() && ob_flush(); flush(); }
function wait(): void {
    for ($i = 0; !file_exists(__DIR__ . '/go') && $i < 10000; $i++) { usleep(1000); clearstatcache(); }
    @unlink(__DIR__ . '/go');
}
$event = $_SERVER['LONGWIRE_EVENT'];
if ($event === 'close' || isset($_SERVER['LONGWIRE_CHANNEL'])) {
    $what = $event . ' ' . ($_SERVER['LONGWIRE_CLOSE_REASON'] ?? $_SERVER['LONGWIRE_CHANNEL']);
    file_put_contents(__DIR__ . '/said', "$what\n", FILE_APPEND | LOCK_EX);
} else {
    eval($event === 'message' ? file_get_contents('php://input') : ($_GET['code'] ?? ''));
}
"#;

/// Prints 20 000 bytes, which leave the script before the test lets it go on.
const BEGUN: &str = "out(str_repeat('x', 20000)); wait();";

struct Stage {
    fpm: PhpFpm,
    node: Longwire,
}

impl Stage {
    fn new(app: &str, pool: &[&str]) -> Self {
        let fpm = pool.iter().fold(Pool::of(4), |pool, line| pool.line(line)).start();
        let script = fpm.script("handler.php", HANDLER);
        std::fs::write(fpm.dir().join("bad.php"), "<?php $x = ;").expect("the directory is ours");
        let node = Longwire::with(&fpm, &script, app, "", EACH_FRAMING);
        Self { fpm, node }
    }

    async fn client(&self, listener: &str) -> Client {
        match listener {
            "web" => Client::upgrade(self.node.address("web"), "/ws", "").await,
            _ => Client::connect(self.node.address(listener), Framing::Length(LengthFraming::default())).await,
        }
    }

    /// Lets the script behind [`BEGUN`] go on.
    fn go(&self) {
        std::fs::write(self.fpm.dir().join("go"), "").expect("the directory is ours");
    }

    /// All bytes that the client gets after this message, whose reply breaks off in the middle.
    async fn rest_of_broken(&self, mut socket: TcpStream, message: &[u8]) -> Vec<u8> {
        socket.write_all(message).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 20000 {
            assert_ne!(socket.read_buf(&mut got).await.unwrap(), 0, "it goes on");
        }
        self.go();
        socket.read_to_end(&mut got).await.unwrap();
        got
    }

    fn failed(&self, cause: &str) -> f64 {
        self.node.metric("longwire_events_failed_total", &format!("cause=\"{cause}\""))
    }

    fn said(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.fpm.dir().join("said")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Renames the script while `meanwhile` runs, as a deploy would.
    async fn without_script(&self, meanwhile: impl Future<Output = ()>) {
        let (here, aside) = (self.fpm.dir().join("handler.php"), self.fpm.dir().join("aside"));
        std::fs::rename(&here, &aside).expect("the directory is ours");
        meanwhile.await;
        std::fs::rename(&aside, &here).expect("the directory is ours");
    }
}

fn encode(code: &str) -> String {
    code.bytes().map(|b| format!("%{b:02x}")).collect()
}

const LOGGED: [&str; 2] = ["php_admin_flag[log_errors] = on", "php_admin_flag[display_errors] = off"];
const SHOWN: [&str; 2] = ["php_admin_flag[log_errors] = on", "php_admin_flag[display_errors] = on"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_dies_behind_its_first_output_has_broken_its_reply() {
    let deaths = [
        "undefined_fn();",
        "throw new RuntimeException(\"first\\nsecond; and a third\");",
        "throw new RuntimeException(str_repeat('long', 2000));",
        "ini_set('memory_limit', '16M'); $y = str_repeat('y', 64 << 20);",
        "set_time_limit(1); while (true);",
        "trigger_error('mine', E_USER_ERROR);",
        "include __DIR__ . '/bad.php';",
        "for ($i = 0; $i < 40; $i++) error_log(str_repeat('x', 1000)); undefined_fn();",
        "error_log('before'); register_shutdown_function(fn() => error_log('behind')); undefined_fn();",
    ];
    for pool in [LOGGED, SHOWN] {
        let stage = Stage::new("on_error = { send = \"sorry\" }", &pool);
        for (at, death) in deaths.iter().enumerate() {
            let message = masked(&format!("{BEGUN} {death}"));
            let got = stage.rest_of_broken(upgraded(&stage.node, "").await, &message).await;
            assert_eq!(got[..4], [0x01, 126, 0x4e, 0x20], "a fragment of 20 000 bytes");
            assert_eq!(got[4 + 20_000..][..4], [0x88, 29, 0x03, 0xf3], "and the close frame: {death}");
            assert_eq!(stage.node.closed(at + 1)[at]["reason"], "reply_broken", "{death}");
            assert_eq!(stage.failed("fatal_error"), (at + 1) as f64, "{death}");
        }
        for listener in ["raw", "length"] {
            let code = format!("header('Content-Length: 30000'); {BEGUN} undefined_fn();");
            let framing = if listener == "raw" { Framing::Raw } else { Framing::Length(LengthFraming::default()) };
            let message = framing.encode(FrameKind::Text, code.as_bytes()).unwrap();
            let socket = TcpStream::connect(stage.node.address(listener)).await.unwrap();
            let got = stage.rest_of_broken(socket, &message).await;
            assert_eq!(got.len(), if listener == "raw" { 20_000 } else { 4 + 20_000 });
        }
        eventually("all are broken", || {
            stage.node.closed(deaths.len() + 2).iter().all(|line| line["reason"] == "reply_broken")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_dead_scripts_reply_is_sent_where_none_of_it_had_to_leave() {
    for pool in [LOGGED, SHOWN] {
        let stage = Stage::new("on_error = { send = \"sorry\" }\nevents = [\"connect\", \"close\"]", &pool);
        // Where the length must be known first, the reply is held back.
        let mut client = stage.client("length").await;
        stage.go();
        assert_eq!(client.ask(&format!("{BEGUN} undefined_fn();")).await, "sorry");
        // With display_errors PHP answers 200, and the error is the body.
        let mut client = stage.client("web").await;
        assert_eq!(client.ask("header('Longwire-Join: room'); undefined_fn();").await, "sorry");
        assert_eq!(stage.node.metric("longwire_channels", ""), 0.0);
        // Lines that were sent before the failure remain.
        client.text("header('Longwire-Stream: lines'); out(\"one\\ntw\"); wait(); undefined_fn();").await;
        assert_eq!(&client.frame().await.body[..], b"one");
        stage.go();
        assert_eq!(&client.frame().await.body[..], b"sorry");
        // A reply with its full announced length counts as whole, and the failure is counted.
        let before = stage.failed("fatal_error");
        client.text("header('Content-Length: 5'); out('whole'); undefined_fn();").await;
        assert_eq!(&client.frame().await.body[..], b"whole");
        eventually("it is counted", || stage.failed("fatal_error") == before + 1.0).await;
        assert_eq!(client.ask("out('next');").await, "next", "and nothing is said instead");
        // So does a reply whose worker is killed after it. It is large enough to be partly sent by then.
        for death in ["posix_kill(getmypid(), SIGKILL);", "undefined_fn();"] {
            let code = format!("header('Content-Length: 20000'); {BEGUN} {death}");
            client.text(&code).await;
            stage.go();
            assert_eq!(client.frame().await.body.len(), 20_000, "{death}");
            assert_eq!(client.ask("out('next');").await, "next", "{death}");
        }
        let code = encode("header('Content-Length: 5'); out('hello'); undefined_fn();");
        let mut let_in = Client::upgrade(stage.node.address("web"), &format!("/ws?code={code}"), "").await;
        assert_eq!(let_in.ask("out('next');").await, "hello");
        assert_eq!(&let_in.frame().await.body[..], b"next");
        let path = format!("/ws?code={}", encode("out('hello'); undefined_fn();"));
        let refused = Client::try_upgrade(stage.node.address("web"), &path, "").await.err().expect("it is not let in");
        assert!(refused.starts_with("HTTP/1.1 503 ") && !refused.contains("hello"), "{refused}");
        eventually("PHP may have noted it", || stage.said().contains(&"close connect_failed".to_owned())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_fails_behind_its_first_lines_ends_alike_at_every_door() {
    let code = encode("header('Longwire-Stream: lines'); out(\"one\\ntwo\\n\"); undefined_fn();");
    let app = format!("on_error = {{ send = \"sorry\" }}\nevents = [\"connect\", \"close\"]\nuri = \"/?code={code}\"");
    let stage = Stage::new(&app, &LOGGED);
    let web = Client::upgrade(stage.node.address("web"), &format!("/ws?code={code}"), "").await;
    for mut client in [web, stage.client("length").await] {
        for expected in ["one", "two", "sorry"] {
            assert_eq!(client.frame().await.body, expected);
        }
        assert_eq!(client.ask("out('next');").await, "next", "PHP has let it in");
    }
    assert_eq!(stage.failed("fatal_error"), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_whose_script_dies_breaks_off_or_is_an_error() {
    let stage = Stage::new("plain_requests = true", &SHOWN);
    let address = stage.node.address("web");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let code = encode(&format!("{BEGUN} undefined_fn();"));
    stream.write_all(format!("GET /ws?code={code} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"xxx\r\n") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "it goes on");
    }
    stage.go();
    stream.read_to_end(&mut got).await.ok();
    assert!(!got.ends_with(b"0\r\n\r\n"), "a broken reply must not look complete");
    let page = http::request(address, "GET", &format!("/ws?code={}", encode("undefined_fn();")), b"").await.unwrap();
    assert_eq!((page.status, page.text()), (500, String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warning_is_no_death_and_what_a_script_writes_does_not_pass_for_one() {
    let stage = Stage::new("", &LOGGED);
    let mut client = stage.client("web").await;
    let bearable = [
        "$u = $nope; trigger_error('PHP Fatal error:  Uncaught in a warning', E_USER_WARNING);",
        "error_log('the shop said PHP Fatal error:  once');",
        "error_log('PHP Fatal error: of the one-space kind');",
        "set_error_handler(fn() => true); $u = $nope; trigger_error('handled', E_USER_ERROR);",
        "try { undefined_fn(); } catch (Error $e) { error_log($e); }",
        // These failures leave no trace in php-fpm's answer, so Longwire cannot detect them.
        "exit(255);",
        "error_reporting(0); undefined_fn();",
    ];
    for code in bearable {
        stage.go();
        let reply = client.ask(&format!("{BEGUN} {code}")).await;
        assert_eq!(reply.len(), 20000, "{code}");
    }
    assert_eq!(stage.node.metric("longwire_events_failed_total", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusals_of_php_fpm_itself_are_no_answers() {
    let stage = Stage::new("events = [\"connect\", \"close\"]\non_error = { send = \"sorry\" }", &[]);
    let (mut web, mut length) = (stage.client("web").await, stage.client("length").await);
    assert_eq!((web.ask("echo 1;").await, length.ask("echo 1;").await), ("1".into(), "1".into()));
    stage
        .without_script(async {
            assert_eq!((web.ask("echo 2;").await, length.ask("echo 2;").await), ("sorry".into(), "sorry".into()));
            assert_eq!(stage.failed("script_not_run"), 2.0);
            let refused = Client::try_upgrade(stage.node.address("web"), "/ws", "").await.err().expect("not let in");
            assert!(refused.starts_with("HTTP/1.1 503 ") && !refused.contains("File not found"), "{refused}");
            assert_eq!(stage.client("length").await.end().await, None);
            assert_eq!(stage.node.closed(1)[0]["reason"], "connect_failed");
            web.close(1000).await;
            length.finish().await;
            stage.node.wait_for_log("the close events wait for the script", |line| {
                line["event"] == "close" && line["cause"] == "script_not_run"
            });
        })
        .await;
    eventually("both are told of", || stage.said().len() >= 2).await;
    let mut newcomer = stage.client("web").await;
    assert_eq!(newcomer.ask("echo 3;").await, "3");
    assert_eq!(
        stage.said(),
        ["close client_closed", "close client_closed"],
        "one close event for each admitted session, none for a refused one"
    );
    // A handler that prints the same words itself does not count as failed.
    let own = "http_response_code(404); error_log('Primary script unknown'); echo \"File not found.\\n\";";
    assert_eq!(newcomer.ask(own).await, "File not found.\n");
    let own = "http_response_code(403); error_log('Access to the script'); echo \"Access denied.\\n\";";
    assert_eq!(newcomer.ask(own).await, "Access denied.\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_channels_wait_for_a_script_that_was_moved_away() {
    let stage = Stage::new("events = [\"join\", \"leave\"]", &[]);
    let mut client = stage.client("length").await;
    let id = client.ask("echo $_SERVER['SESSIONID'];").await;
    let command = async |verb: &str| {
        let body = json!({ "to": format!("session:{id}"), "channel": "room" }).to_string();
        let answer = http::request(stage.node.address("api"), "POST", &format!("/v1/{verb}"), body.as_bytes()).await;
        assert_eq!(answer.unwrap().status, 200);
    };
    stage
        .without_script(async {
            command("join").await;
            command("leave").await;
            stage.node.wait_for_log("the first waits", |line| line["cause"] == "script_not_run");
        })
        .await;
    eventually("both are told", || stage.said() == ["join room", "leave room"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_php_fpm_has_its_cause_and_a_drain_does_not_wait_for_ever() {
    let fpm = Pool::of(2).start();
    let text = fpm.dir().join("handler.txt");
    std::fs::write(&text, "<?php echo 1;").unwrap();
    std::fs::create_dir(fpm.dir().join("folder.php")).unwrap();
    for script in [text, fpm.dir().join("folder.php"), fpm.dir().join("nowhere/handler.php")] {
        let app = "check_script = false\nevents = [\"close\"]\nplain_requests = true";
        let mut node =
            Longwire::with(&fpm, &script, app, "", &format!("{EACH_FRAMING}\n[limits]\ndrain_timeout = \"1s\"\n"));
        let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
        client.text("hello").await;
        let page = http::request(node.address("web"), "GET", "/ws", b"").await.unwrap();
        assert_eq!((page.status, page.text()), (503, String::new()), "{}", script.display());
        client.finish().await;
        assert_eq!(client.end().await, None, "nothing is sent");
        let is_ours = |line: &Value| line["event"] == "close" && line["cause"] == "script_not_run";
        let line = node.wait_for_log("the close event waits", is_ours);
        assert!(line["message"].as_str().is_some_and(|m| m.contains("did not run the script")), "{line}");
        for event in ["message", "request"] {
            let labels = format!("event={event:?},cause=\"script_not_run\"");
            assert_eq!(node.metric("longwire_events_failed_total", &labels), 1.0, "{event}");
        }
        let begun = std::time::Instant::now();
        node.terminate();
        assert_eq!(node.wait().code(), Some(1), "a close event was given up");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}
