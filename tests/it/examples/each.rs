//! Each example of `php-examples/` on a real php-fpm: it must do what its README says.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use longwire::proto::framing::{DelimiterFraming, FrameKind, Framing, LengthFraming};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// A running example, with WebSocket below `/ws`, length framing and raw framing.
struct Example {
    node: Longwire,
    _fpm: PhpFpm,
    /// The folder for PHP's sessions and temporary files.
    _files: TempDir,
}

impl Example {
    fn start(script: &str, events: &str) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let fpm = Pool::of(4)
            .line(&format!("env[TMPDIR] = {}", files.path().display()))
            .line(&format!("php_admin_value[session.save_path] = {}", files.path().display()))
            .start();
        let app = format!("events = [{events}]\nuri = \"/ws/sum\"");
        let listeners = r#"
            [listeners]
            web = { bind = "127.0.0.1:0", protocol = "http", routes = { "/ws/*" = "app" } }
            tcp = { bind = "127.0.0.1:0", app = "app" }
            raw = { bind = "127.0.0.1:0", framing = { type = "raw" }, app = "app" }
        "#;
        let node = Longwire::with(&fpm, &php_examples().join(script), &app, "", listeners);
        Self { node, _fpm: fpm, _files: files }
    }

    async fn websocket(&self, path: &str) -> Client {
        Client::upgrade(self.node.address("web"), path, "").await
    }

    async fn tcp(&self) -> Client {
        Client::connect(self.node.address("tcp"), Framing::Length(LengthFraming::default())).await
    }
}

/// The next frame, which must be text.
async fn text(client: &mut Client) -> String {
    let frame = client.frame().await;
    assert_eq!(frame.kind, FrameKind::Text, "{frame:?}");
    String::from_utf8(frame.body.to_vec()).expect("text is UTF-8")
}

/// The next frame of a client whose framing does not distinguish text and binary.
async fn bytes(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.frame().await.body).into_owned()
}

fn php_examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples")
}

#[tokio::test]
async fn echo_gives_back_text_binary_and_nothing() {
    let example = Example::start("echo/handler.php", "");
    let long = "x".repeat(100_000);
    let mut socket = example.websocket("/ws").await;
    for (kind, body) in [
        (FrameKind::Text, "héllo".as_bytes()),
        (FrameKind::Binary, &[0, 255, 10, 13]),
        (FrameKind::Text, b""),
        (FrameKind::Binary, b""),
        (FrameKind::Text, long.as_bytes()),
    ] {
        socket.send(kind, body).await;
        let reply = socket.frame().await;
        assert_eq!((reply.kind, &reply.body[..]), (kind, body));
    }
    let mut tcp = example.tcp().await;
    for body in [&b"hello"[..], b"", &[0, 255]] {
        tcp.send(FrameKind::Binary, body).await;
        assert_eq!(tcp.frame().await.body, body);
    }
}

#[tokio::test]
async fn greeter_knows_a_visitor_by_the_cookie_of_the_handshake() {
    let example = Example::start("greeter/handler.php", r#""connect""#);
    let web = example.node.address("web");
    let (mut first, head) = Client::try_upgrade(web, "/ws", "").await.expect("a WebSocket");
    assert_eq!(text(&mut first).await, "Hello, stranger. Who are you?");
    assert_eq!(first.ask("Ada").await, "Nice to meet you, Ada.");
    assert_eq!(first.ask("how are you?").await, "Ada, that was your message number 1.");
    first.close(1000).await;
    assert_eq!(first.end().await, Some(1000));

    let cookie = header(&head, "set-cookie").expect("the 101 sets a cookie");
    let cookie = cookie.split(';').next().expect("a cookie begins with its value");
    assert!(cookie.starts_with("PHPSESSID="), "{cookie}");
    let request = format!("Cookie: {cookie}\r\n");
    let (mut again, head) = Client::try_upgrade(web, "/ws", &request).await.expect("a WebSocket");
    assert_eq!(text(&mut again).await, "Welcome back, Ada. This is visit 2.");
    assert_eq!(header(&head, "set-cookie"), None, "the visitor has the cookie");
    assert_eq!(again.ask("still me?").await, "Ada, that was your message number 2.");
    assert_eq!(again.ask("forget me").await, "Who was that?");

    let mut other = example.websocket("/ws").await;
    assert_eq!(text(&mut other).await, "Hello, stranger. Who are you?");
    let mut tcp = example.tcp().await;
    assert_eq!(bytes(&mut tcp).await, "Hello, stranger. Who are you?");
    assert_eq!(tcp.ask("Bob").await, "Nice to meet you, Bob.");
    assert_eq!(tcp.ask("me again").await, "Bob, that was your message number 1.", "it has no cookies of its own");
}

#[tokio::test]
async fn greeter_takes_no_id_that_somebody_else_has_made_or_knows() {
    let example = Example::start("greeter/handler.php", r#""connect""#);
    let web = example.node.address("web");
    let connect = async |id: &str| {
        let request = format!("Cookie: PHPSESSID={id}\r\n");
        let (client, head) = Client::try_upgrade(web, "/ws", &request).await.expect("a WebSocket");
        let cookie = header(&head, "set-cookie");
        (client, cookie.and_then(|cookie| Some(cookie.split(['=', ';']).nth(1)?.to_owned())))
    };
    // Session fixation: an invented id, and an id that an attacker was given and has planted.
    let (_stranger, known) = connect("madeupmadeupmadeupmadeup00").await;
    for planted in ["madeupmadeupmadeupmadeup00", &known.expect("a cookie")] {
        let (mut victim, id) = connect(planted).await;
        assert_eq!(text(&mut victim).await, "Hello, stranger. Who are you?");
        assert_ne!(id.expect("an id of his own"), planted);
        assert_eq!(victim.ask("Ada").await, "Nice to meet you, Ada.");
        assert_eq!(victim.ask("me").await, "Ada, that was your message number 1.");
        let (mut thief, _) = connect(planted).await;
        assert_eq!(text(&mut thief).await, "Hello, stranger. Who are you?");
    }
}

#[tokio::test]
async fn no_example_follows_a_link_that_another_user_may_have_put_among_the_temporary_files() {
    for (script, names) in [
        ("events/handler.php", ["longwire-events.json", "longwire-events-UID"]),
        ("chat/handler.php", ["longwire-chat", "longwire-chat-UID"]),
    ] {
        let example = Example::start(script, r#""connect""#);
        // SAFETY: geteuid takes no arguments and cannot fail.
        let uid = unsafe { libc::geteuid() }.to_string();
        let theirs = tempfile::tempdir().expect("a temporary directory");
        let file = theirs.path().join("file");
        std::fs::write(&file, "precious").expect("the folder is ours");
        for name in names {
            let to = if name.ends_with(".json") { &*file } else { theirs.path() };
            std::os::unix::fs::symlink(to, example._files.path().join(name.replace("UID", &uid))).expect("a link");
        }
        // The script may admit the client or not.
        let _client = Client::try_upgrade(example.node.address("web"), "/ws", "").await;
        example
            .node
            .wait_for_log("the script refuses", |line| line.to_string().contains("does not belong to this user alone"));
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "precious", "{script}");
        let found = std::fs::read_dir(theirs.path()).expect("it is there").count();
        assert_eq!(found, 1, "{script} has put something into a folder that is not its own");
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

#[tokio::test]
async fn events_tell_who_is_here_and_who_has_gone() {
    let example = Example::start("events/handler.php", r#""connect", "close""#);
    let mut first = example.websocket("/ws").await;
    assert_eq!(text(&mut first).await, "Hello. 1 client is here.");
    let mut second = example.websocket("/ws").await;
    assert_eq!(text(&mut second).await, "Hello. 2 clients are here.");
    let mut third = example.tcp().await;
    assert_eq!(bytes(&mut third).await, "Hello. 3 clients are here.");
    assert_eq!(second.ask("and now?").await, "Your message 1. 3 clients are here, 0 gone.");

    first.close(1000).await;
    assert_eq!(first.end().await, Some(1000));
    // A client that disconnects with a reset counts too.
    third.reset();
    example.node.closed(2);
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
    let example = Example::start("events/handler.php", r#""connect", "close""#);
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(example.tcp().await);
    }
    let mut greetings = Vec::new();
    for client in &mut crowd {
        greetings.push(bytes(client).await);
    }
    greetings.sort();
    let mut expected: Vec<_> = (2..=20).map(|n| format!("Hello. {n} clients are here.")).collect();
    expected.push("Hello. 1 client is here.".to_owned());
    expected.sort();
    assert_eq!(greetings, expected);
}

#[tokio::test]
async fn stream_sends_each_line_as_a_frame_of_its_own() {
    let example = Example::start("stream/handler.php", "");
    let words = ["You", "said", "2", "words:", "be", "to"];
    let mut socket = example.websocket("/ws").await;
    socket.text("lines to be").await;
    for word in words {
        assert_eq!(text(&mut socket).await, word);
    }
    assert_eq!(socket.ask("to be").await, "You said 2 words: be to");

    let mut tcp = example.tcp().await;
    tcp.text("lines to be").await;
    for word in words {
        assert_eq!(bytes(&mut tcp).await, word);
    }
}

#[tokio::test]
async fn stream_sends_a_frame_in_pieces_while_php_works() {
    let example = Example::start("stream/handler.php", "");
    let answer = "You said 2 words: be to";
    check_pieces(example.node.address("raw"), b"to be", answer.as_bytes()).await;
    // Frames have a length of four bytes in front, in both directions.
    let framed = [&(answer.len() as u32).to_be_bytes()[..], answer.as_bytes()].concat();
    check_pieces(example.node.address("tcp"), b"\0\0\0\x05to be", &framed).await;
}

/// Checks that the answer is complete and comes in several pieces.
async fn check_pieces(address: SocketAddr, request: &[u8], expected: &[u8]) {
    // With raw framing this client sees each read as a frame.
    let mut client = Client::connect(address, Framing::Raw).await;
    client.bytes(request).await;
    let mut answer = client.frame().await.body.to_vec();
    assert!(answer.len() < expected.len(), "it came in one piece");
    while answer.len() < expected.len() {
        answer.extend_from_slice(&client.frame().await.body);
    }
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn front_controller_answers_a_socket_as_it_answers_a_web_server() {
    let example = Example::start("front-controller/index.php", "");
    let server = WebServer::start().await;
    let cases = [
        ("/ws/reverse", "Grüße", 200, r#"{"reversed":"eßürG"}"#),
        ("/ws/reverse?x=1", "ab", 200, r#"{"reversed":"ba"}"#),
        ("/ws/sum", "[1, 2, 3]", 200, r#"{"sum":6}"#),
        ("/ws/sum", "one, two", 422, r#"{"error":"send a list of numbers, such as [1, 2, 3]"}"#),
        ("/ws/nowhere", "", 404, r#"{"error":"nothing here"}"#),
        ("/ws", "", 200, r#"{"try":["/ws/time","/ws/reverse","/ws/sum"]}"#),
    ];
    for (path, body, status, expected) in cases {
        let mut socket = example.websocket(path).await;
        assert_eq!(socket.ask(body).await, expected, "{path} by WebSocket");
        let answer = http::request(server.address, "POST", path, body.as_bytes()).await.expect("the server answers");
        assert_eq!((answer.status, answer.text().as_str()), (status, expected), "{path} by web server");
    }
    let mut tcp = example.tcp().await;
    assert_eq!(tcp.ask("[20, 22]").await, r#"{"sum":42}"#);
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
        eventually("PHP's web server listens", connect).await;
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

/// A line of the game, which ends with CRLF as telnet expects.
async fn line(client: &mut Client) -> String {
    let line = bytes(client).await;
    line.strip_suffix('\r').expect("the CR of CR LF").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_game_is_won_by_halving_and_each_player_has_a_number() {
    let folder = php_examples().join("line-game");
    let fpm = Pool::of(2).start();
    let listener = "[listeners.telnet]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n\
                    framing = { type = \"delimiter\", strip_cr = true }\n";
    let node = Longwire::with(&fpm, &folder.join("handler.php"), "events = [\"connect\"]", "", listener);
    let framing = || Framing::Delimiter(Arc::new(DelimiterFraming { delimiter: b"\n".to_vec(), strip_cr: false }));
    let mut players = Vec::new();
    for _ in 0..8 {
        let mut player = Client::connect(node.address("telnet"), framing()).await;
        assert_eq!(line(&mut player).await, "I think of a number from 1 to 100. Which one is it?");
        players.push((player, 1, 100, 0));
    }
    let mut numbers = BTreeSet::new();
    // The players take turns. If their numbers were mixed up, it would show.
    while !players.is_empty() {
        let (mut player, low, high, tries) = players.remove(0);
        assert!(low <= high, "the number of this player must not change");
        let guess = (low + high) / 2;
        player.text(&format!("{guess}\r")).await;
        match line(&mut player).await.as_str() {
            "More." => players.push((player, guess + 1, high, tries + 1)),
            "Less." => players.push((player, low, guess - 1, tries + 1)),
            won => {
                let word = if tries == 0 { "try" } else { "tries" };
                assert_eq!(won, format!("Yes, after {} {word}. I think of another one: which?", tries + 1));
                numbers.insert(guess);
                player.text("forty").await;
                assert_eq!(line(&mut player).await, "A number, please, or quit.");
                player.text("quit").await;
                assert_eq!((line(&mut player).await.as_str(), player.end().await), ("Bye.", None));
            }
        }
    }
    assert!(numbers.len() > 1, "eight times the same number: {numbers:?}");
}

#[test]
fn the_configuration_of_the_line_game_is_sound() {
    let path = php_examples().join("line-game/longwire.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_longwire")).args(["check", "--config"]).arg(path).output();
    let output = output.expect("the binary was built for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
