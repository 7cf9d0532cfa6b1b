//! Unusual requests of HTTP clients: upgrades to other protocols, paths in other spellings, requests long after the first one.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::client::Client;
use crate::support::event_stream::Http;
use crate::support::http::request_with;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};
use crate::support::tls::{Authority, table};

/// Prints details of a plain request; echoes the frames of a session.
const HANDLER: &str = r#"
header('Content-Type: application/json');
echo json_encode(['event' => $_SERVER['LONGWIRE_EVENT'], 'uri' => $_SERVER['REQUEST_URI'], 'method' => $_SERVER['REQUEST_METHOD'],
    'body' => file_get_contents('php://input')]);
"#;

/// A node with a page, an app with plain requests, and an app without.
fn stage(limits: &str) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", HANDLER);
    let public = fpm.dir().join("public");
    std::fs::create_dir(&public).expect("the directory is ours");
    std::fs::write(public.join("page.html"), "a page").expect("the directory is ours");
    std::fs::write(public.join("secret.txt"), "a file behind a route").expect("the directory is ours");
    let rest = format!(
        "[apps.front]\nupstream = \"php\"\nscript = {script:?}\nplain_requests = true\n{limits}\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nstatic = {public:?}\n\
         routes = {{ \"/ws\" = \"app\", \"/secret.txt\" = \"app\", \"/front/*\" = \"front\", \"/grüße/\" = \"front\" }}\n"
    );
    let node = Longwire::with(&fpm, &script, "", "", &rest);
    (fpm, node)
}

/// Runs curl and returns the status, the HTTP version and the body.
async fn curl(arguments: &[&str], url: &str) -> String {
    let mut command = Command::new("timeout");
    command.args(["60", "curl", "--silent", "--no-buffer", "--write-out", " %{http_code} %{http_version}"]);
    let output =
        command.args(arguments).arg(url).output().await.expect("curl is installed (tests/install-deps.sh test)");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_to_something_else_is_ignored() {
    let (_fpm, node) = stage("");
    let web = format!("http://{}", node.address("web"));
    // curl offers h2c, as Java's client does with each request.
    for (url, arguments, expected) in [
        (format!("{web}/page.html"), &[][..], "a page 200 1.1"),
        (format!("{web}/absent.html"), &[], "nothing here\n 404 1.1"),
        (
            format!("{web}/front/a?b=1"),
            &[],
            r#"{"event":"request","uri":"\/front\/a?b=1","method":"GET","body":""} 200 1.1"#,
        ),
        (
            format!("{web}/front/form"),
            &["--data", "x=1"],
            r#"{"event":"request","uri":"\/front\/form","method":"POST","body":"x=1"} 200 1.1"#,
        ),
        (format!("{web}/ws"), &[], "this path requires a WebSocket handshake\n 426 1.1"),
        (format!("http://{}/live", node.address("admin")), &[], "live\n 200 1.1"),
    ] {
        let arguments = [&["--http2"], arguments].concat();
        assert_eq!(curl(&arguments, &url).await, expected, "{url}");
    }
    let opened = curl(&["--http2", "--header", "Accept: application/json"], &format!("{web}/ws?longwire=poll")).await;
    assert!(opened.starts_with("event: session\n") && opened.ends_with(" 200 1.1"), "{opened}");
    let api = curl(&["--http2"], &format!("http://{}/v1/node", node.address("api"))).await;
    assert!(api.starts_with('{') && api.ends_with(" 200 1.1"), "{api}");

    // Several requests on one connection. The last one also offers an upgrade to WebSocket.
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n";
    let mut kept = TcpStream::connect(node.address("web")).await.unwrap();
    for number in 0..3 {
        let request = format!("GET /front/{number} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
        kept.write_all(request.as_bytes()).await.unwrap();
        let answer = until(&mut kept, "\"body\":\"\"}").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(&format!("front\\/{number}")), "{answer}");
    }
    let request = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    kept.write_all(request.as_bytes()).await.unwrap();
    assert!(until(&mut kept, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    let mut stream = TcpStream::connect(node.address("web")).await.unwrap();
    let request = format!("GET /ws HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(until(&mut stream, "event: session\n").await.starts_with("HTTP/1.1 200 "));
}

/// Reads until `end` has come.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(end) {
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_buf(&mut answer)).await;
        let came = read.expect("the answer comes").expect("the connection stands");
        assert_ne!(came, 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status and body of a GET.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = request_with(address, "GET", path, "", b"").await.expect("it answers");
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_of_a_path_lead_to_its_route_and_php_sees_the_one_that_came() {
    let (_fpm, node) = stage("");
    let web = node.address("web");
    for path in ["/ws", "/ws/", "//ws", "/w%73", "/%77%73", "///ws//", "/ws/?a=1", "/w%73?a=%2f"] {
        let said = Client::upgrade(web, path, "").await.ask("hello").await;
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said, json!({ "event": "message", "uri": path, "method": "POST", "body": "hello" }));
    }
    for path in [
        "/front",
        "/front/",
        "//front//a",
        "/f%72ont/b",
        "/front/a%2Fb",
        "/front/a%00",
        "/front/%2f",
        "/gr%c3%BC%c3%9fe",
    ] {
        let (status, body) = get(web, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["uri"], path);
    }
    // The address of a session is a path on this host, even if the request's path began with two slashes.
    let stream = Http::one(web).await.stream("//ws", &[]).await;
    assert!(stream.address.starts_with("/ws?longwire="), "{}", stream.address);
    let said = Http::one(web).await.ask("POST", &stream.address, &[], b"hi").await;
    let said: Value = serde_json::from_slice(&said.body).expect("JSON");
    assert_eq!((&said["body"], &said["uri"]), (&json!("hi"), &json!("//ws")));
}

/// Checks that a WebSocket handshake is refused.
async fn refused(address: SocketAddr, path: &str) {
    let answer = Client::try_upgrade(address, path, "").await.err().unwrap_or_else(|| panic!("{path} is a route"));
    assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_with_two_readings_leads_nowhere_and_no_spelling_passes_by_a_route() {
    let (_fpm, node) = stage("");
    let web = node.address("web");
    refused(web, "/wss").await;
    let told = node.wait_for_log("the nearest route is told", |line| line["nearest"] == "/ws");
    assert_eq!(
        (&told["level"], &told["path"], &told["listener"]),
        (&json!("INFO"), &json!("/wss"), &json!("web")),
        "{told}"
    );
    for path in [
        "/front/%2e",
        "/front/../ws",
        "/front/../page.html",
        "/front/%2e%2e/page.html",
        "/front/.%2E/secret.txt",
        "/./ws",
        "/x/..%2fws",
        "/front%2Fa",
        "/front%5ca",
        "/ws%2F",
        "/ws%00",
        "/ws%20",
        "/ws;a",
        "/ws/a",
        "/front/100%",
        "/front/%zz",
        "/%2e/page.html",
        "/page.html%00",
    ] {
        let (status, body) = get(web, path).await;
        assert_eq!((status, &*body), (404, "nothing here\n"), "{path}");
        refused(web, path).await;
    }
    // A route takes precedence over a file of the same name, in any spelling of the path.
    for path in ["/secret.txt", "/secret%2Etxt", "//secret.txt", "/secret.txt/", "/%73ecret.tx%74"] {
        assert_eq!(get(web, path).await.0, 426, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_handshake_takes_no_time_from_later_requests() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", HANDLER);
    let listener = "[limits]\nhandshake_timeout = \"5s\"\n[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\n\
                    routes = { \"/*\" = \"app\" }\n";
    let node = Longwire::with(&fpm, &script, "plain_requests = true", "", &format!("{listener}{}", table(&signed, "")));
    // Most of the handshake timeout is over when TLS begins. The rest applies to the first request alone.
    let socket = TcpStream::connect(node.address("web")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let name = rustls::pki_types::ServerName::try_from("shop.example").unwrap();
    let connector = authority.client(&[&rustls::version::TLS13], None);
    let mut kept = connector.connect(name, socket).await.expect("a handshake in time");
    for number in 0..2 {
        kept.write_all(format!("GET /{number} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("\"body\":\"\"}") {
            let read =
                tokio::time::timeout(Duration::from_secs(30), kept.read_buf(&mut answer)).await.expect("an answer");
            assert!(read.is_ok_and(|bytes| bytes > 0), "request {number}: {}", String::from_utf8_lossy(&answer));
        }
        if number == 0 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
    // A keep-alive connection ends at last.
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(30), kept.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the keep-alive connection was never closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_without_event_streams_of_sessions_writes_its_own() {
    let fpm = Pool::of(2).start();
    let code = "if ($_SERVER['LONGWIRE_EVENT'] !== 'request') { echo 'session'; exit; }\n\
                header('Content-Type: text/event-stream'); echo \"data: {$_SERVER['REQUEST_METHOD']} own\\n\\n\";";
    let script = fpm.script("stream.php", code);
    let app = "plain_requests = true\nevent_streams = false\nevents = [\"connect\"]";
    let more = format!(
        "[apps.both]\nupstream = \"php\"\nscript = {script:?}\nplain_requests = true\nevents = [\"connect\"]\n\
         [listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = {{ \"/own\" = \"app\", \"/live\" = \"both\" }}\n"
    );
    let node = Longwire::with(&fpm, &script, app, "", &more);
    let accept = [("accept", "text/event-stream")];
    let web = node.address("web");
    let own = Http::one(web).await.ask("GET", "/own", &accept, b"").await;
    assert_eq!((own.status.as_u16(), own.text().as_str()), (200, "data: GET own\n\n"));
    assert_eq!(own.headers["content-type"].to_str().unwrap().split(';').next(), Some("text/event-stream"));
    assert!(!own.headers.contains_key("longwire-session"));
    // Polls and WebSocket handshakes open sessions there too.
    let polled = Http::one(web).await.ask("GET", "/own?longwire=poll", &accept, b"").await;
    assert_eq!(polled.events()[0].name, "session");
    assert_eq!(Client::upgrade(web, "/own", "").await.frame().await.body, "session");
    let mut stream = Http::one(web).await.stream("/live", &[]).await;
    assert_eq!(stream.event().await.data, "session");
}
