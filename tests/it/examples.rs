//! Each example of `php-examples/` on a real php-fpm: what its README promises is what a user sees.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longwire::node::{Extras, Running};
use tempfile::TempDir;
use tokio_websockets::Message;

use crate::support::http;
use crate::support::node::{self, Tcp, WebSocket};
use crate::support::php_fpm::{PhpFpm, Pool};

/// An example that runs: WebSocket below `/ws`, length framing, raw bytes.
struct Example {
    node: Running,
    _fpm: PhpFpm,
    /// Where PHP keeps its sessions and temporary files.
    files: TempDir,
}

impl Example {
    async fn start(script: &str, events: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let fpm = Pool::of(4)
            .line(&format!("env[TMPDIR] = {}", files.path().display()))
            .line(&format!("php_admin_value[session.save_path] = {}", files.path().display()))
            .start();
        let config = format!(
            r#"
            admin.bind = "off"
            listeners.web = {{ bind = "127.0.0.1:0", protocol = "http", routes = {{ "/ws/*" = "example" }} }}
            listeners.tcp = {{ bind = "127.0.0.1:0", app = "example" }}
            listeners.raw = {{ bind = "127.0.0.1:0", framing = {{ type = "raw" }}, app = "example" }}
            apps.example = {{ upstream = "php", script = "{}", events = [{events}], uri = "/ws/sum" }}
            upstreams.php = {{ backends = ["{}"] }}
            "#,
            php_examples().join(script).display(),
            fpm.address(),
        );
        let node = node::start(&config, &Extras::default()).await;
        Self { node, _fpm: fpm, files }
    }

    async fn websocket(&self) -> WebSocket {
        WebSocket::connect(node::address(&self.node, "web"), "/ws").await
    }

    async fn tcp(&self) -> Tcp {
        Tcp::connect(node::address(&self.node, "tcp")).await
    }

    async fn raw(&self) -> Tcp {
        Tcp::connect(node::address(&self.node, "raw")).await
    }
}

fn php_examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples")
}

#[tokio::test]
async fn echo_gives_back_text_binary_and_nothing() {
    let example = Example::start("echo/handler.php", "").await;
    let mut socket = example.websocket().await;
    for message in [
        Message::text("héllo"),
        Message::binary(vec![0, 255, 10, 13]),
        Message::text(""),
        Message::binary(vec![]),
        Message::text("x".repeat(100_000)),
    ] {
        socket.send(message.clone()).await;
        let reply = socket.next().await;
        assert_eq!(reply.is_text(), message.is_text());
        assert_eq!(&reply.as_payload()[..], &message.as_payload()[..]);
    }
    let mut tcp = example.tcp().await;
    for frame in [&b"hello"[..], b"", &[0, 255]] {
        tcp.send_frame(frame).await;
        assert_eq!(tcp.frame().await, frame);
    }
}

#[tokio::test]
async fn greeter_knows_a_visitor_by_the_cookie_of_the_handshake() {
    let example = Example::start("greeter/handler.php", r#""connect", "close""#).await;
    let mut first = example.websocket().await;
    assert_eq!(first.text().await, "Hello, stranger. Who are you?");
    assert_eq!(first.ask("Ada").await, "Nice to meet you, Ada.");
    assert_eq!(first.ask("how are you?").await, "Ada, that was your message number 1.");

    let cookie = first.headers["set-cookie"].to_str().expect("a cookie is ASCII").to_owned();
    let cookie = cookie.split(';').next().expect("a cookie begins with its value");
    assert!(cookie.starts_with("PHPSESSID="), "{cookie}");
    first.close().await;

    let web = node::address(&example.node, "web");
    let mut again = WebSocket::connect_with(web, "/ws", &[("cookie", cookie)]).await;
    assert_eq!(again.text().await, "Welcome back, Ada. This is visit 2.");
    assert!(!again.headers.contains_key("set-cookie"), "the visitor has the cookie: {:?}", again.headers);
    assert_eq!(again.ask("still me?").await, "Ada, that was your message number 2.");
    assert_eq!(again.ask("forget me").await, "Who was that?");

    let mut other = example.websocket().await;
    assert_eq!(other.text().await, "Hello, stranger. Who are you?");
    let mut tcp = example.tcp().await;
    assert_eq!(tcp.frame().await, b"Hello, stranger. Who are you?");
    tcp.send_frame(b"Bob").await;
    assert_eq!(tcp.frame().await, b"Nice to meet you, Bob.");

    // The sessions stay, the notes of the connections go with them.
    drop((again, other, tcp));
    let notes = example.files.path().join("longwire-greeter");
    crate::support::php_fpm::eventually("every note is gone", || {
        std::fs::read_dir(&notes).expect("the greeter made it").next().is_none()
    })
    .await;
}

#[tokio::test]
async fn events_tell_who_is_here_and_who_has_gone() {
    let example = Example::start("events/handler.php", r#""connect", "close""#).await;
    let mut first = example.websocket().await;
    assert_eq!(first.text().await, "Hello. 1 client is here.");
    let mut second = example.websocket().await;
    assert_eq!(second.text().await, "Hello. 2 clients are here.");
    let mut third = example.tcp().await;
    assert_eq!(third.frame().await, b"Hello. 3 clients are here.");
    assert_eq!(second.ask("and now?").await, "Your message 1. 3 clients are here, 0 gone.");

    first.close().await;
    // A client that just vanishes counts as well.
    drop(third);
    let mut asked = 1;
    loop {
        asked += 1;
        let answer = second.ask("and now?").await;
        if answer == format!("Your message {asked}. 1 client is here, 2 gone.") {
            break;
        }
        assert!(asked < 2000, "{answer}");
    }
}

#[tokio::test]
async fn events_of_a_crowd_are_counted_one_by_one() {
    let example = Example::start("events/handler.php", r#""connect", "close""#).await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(example.tcp().await);
    }
    let mut greetings = Vec::new();
    for client in &mut crowd {
        greetings.push(String::from_utf8(client.frame().await).expect("text"));
    }
    greetings.sort();
    let mut expected: Vec<_> = (2..=20).map(|n| format!("Hello. {n} clients are here.")).collect();
    expected.push("Hello. 1 client is here.".to_owned());
    expected.sort();
    assert_eq!(greetings, expected);
}

#[tokio::test]
async fn stream_sends_each_line_as_a_frame_of_its_own() {
    let example = Example::start("stream/handler.php", "").await;
    let words = ["You", "said", "2", "words:", "be", "to"];
    let mut socket = example.websocket().await;
    socket.send(Message::text("lines to be")).await;
    for word in words {
        assert_eq!(socket.text().await, word);
    }
    assert_eq!(socket.ask("to be").await, "You said 2 words: be to");

    let mut tcp = example.tcp().await;
    tcp.send_frame(b"lines to be").await;
    for word in words {
        assert_eq!(tcp.frame().await, word.as_bytes());
    }
}

#[tokio::test]
async fn stream_sends_a_frame_in_pieces_while_php_works() {
    let example = Example::start("stream/handler.php", "").await;
    let expected = b"You said 2 words: be to";
    let framed = [&(expected.len() as u32).to_be_bytes()[..], expected].concat();

    let mut tcp = example.tcp().await;
    tcp.send_frame(b"to be").await;
    check_pieces(&mut tcp, &framed).await;

    let mut raw = example.raw().await;
    raw.send(b"to be").await;
    check_pieces(&mut raw, expected).await;
}

/// The answer comes whole, and not at once.
async fn check_pieces(client: &mut Tcp, expected: &[u8]) {
    let mut answer = client.piece().await;
    assert!(answer.len() < expected.len(), "it came in one piece");
    while answer.len() < expected.len() {
        let piece = client.piece().await;
        assert!(!piece.is_empty(), "it ended after {:?}", String::from_utf8_lossy(&answer));
        answer.extend(piece);
    }
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn front_controller_answers_a_socket_as_it_answers_a_web_server() {
    let example = Example::start("front-controller/index.php", "").await;
    let web = node::address(&example.node, "web");
    let server = WebServer::start().await;
    let cases = [
        ("/ws/reverse", "Grüße", 200, r#"{"reversed":"eßürG"}"#),
        ("/ws/reverse?x=1", "ab", 200, r#"{"reversed":"ba"}"#),
        ("/ws/sum", "[1, 2, 3]", 200, r#"{"sum":6}"#),
        ("/ws/sum", "one, two", 422, r#"{"error":"a list of numbers is wanted, such as [1, 2, 3]"}"#),
        ("/ws/nowhere", "", 404, r#"{"error":"nothing here"}"#),
        ("/ws", "", 200, r#"{"try":["/ws/time","/ws/reverse","/ws/sum"]}"#),
    ];
    for (path, body, status, expected) in cases {
        let mut socket = WebSocket::connect(web, path).await;
        assert_eq!(socket.ask(body).await, expected, "{path} by WebSocket");
        let answer = http::request(server.address, "POST", path, body.as_bytes()).await.expect("the server answers");
        assert_eq!((answer.status, answer.text().as_str()), (status, expected), "{path} by web server");
    }
    let mut tcp = example.tcp().await;
    tcp.send_frame(b"[20, 22]").await;
    assert_eq!(tcp.frame().await, br#"{"sum":42}"#);
}

/// PHP's own web server with the front controller.
struct WebServer {
    address: SocketAddr,
    child: Child,
}

impl WebServer {
    async fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let child = Command::new("php")
            .args(["-S", &address.to_string()])
            .arg(php_examples().join("front-controller/index.php"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php (the command line) is installed");
        let connect = || std::net::TcpStream::connect(address).is_ok();
        crate::support::php_fpm::eventually("PHP's web server listens", connect).await;
        Self { address, child }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_configuration_of_the_front_controller_is_sound() {
    let path = php_examples().join("front-controller/longwire.toml");
    let (config, warnings) = longwire::config::model::Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.apps.len(), 2);
}
