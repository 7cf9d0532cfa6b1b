//! `php-examples/notify`: an ordinary form on a web server sends a message to the WebSockets of the user that it names.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use longwire::proto::framing::{FrameKind, Item};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::http::{self, Answer};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::proxy::{Proxy, free_address};

const README: &str = include_str!("../../../php-examples/notify/README.md");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/notify")
}

/// Longwire with the handler and the inbox, and a php-fpm that keeps its sessions in `sessions`.
struct Stage {
    node: Longwire,
    fpm: PhpFpm,
    sessions: TempDir,
}

impl Stage {
    /// Starts a node; `BACKEND` and `FOLDER` in the configuration are replaced.
    fn start(config: &str) -> Self {
        let sessions = tempfile::tempdir().expect("a temporary directory");
        let fpm =
            Pool::of(2).line(&format!("php_admin_value[session.save_path] = {}", sessions.path().display())).start();
        let config = config
            .replace("BACKEND", &fpm.address().to_string())
            .replace("FOLDER", folder().to_str().expect("the path is text"));
        Self { node: Longwire::serve(&config), fpm, sessions }
    }

    /// A node as `longwire dev php-examples/notify` would run it.
    fn trial() -> Self {
        Self::start(
            r#"
            [listeners]
            web = { bind = "127.0.0.1:0", protocol = "http", routes = { "/ws" = "app" }, static = "FOLDER" }
            [apps.app]
            upstream = "php"
            script = "FOLDER/handler.php"
            events = ["connect", "close"]
            [upstreams.php]
            backends = ["BACKEND"]
            "#,
        )
    }

    /// The WebSocket of a browser's inbox, and the handler's first message.
    async fn inbox(&self, browser: &Browser) -> (Client, Value) {
        inbox(self.node.address("web"), browser).await
    }
}

async fn inbox(address: SocketAddr, browser: &Browser) -> (Client, Value) {
    // A page of the same host is allowed on any port.
    let headers = format!("Origin: http://{}\r\n{}", browser.server, browser.cookie());
    let mut socket = Client::upgrade(address, "/ws", &headers).await;
    let hello = note(&mut socket).await;
    (socket, hello)
}

/// The next frame, which must be a text of JSON.
async fn note(socket: &mut Client) -> Value {
    let frame = socket.frame().await;
    assert_eq!(frame.kind, FrameKind::Text, "{frame:?}");
    serde_json::from_slice(&frame.body).expect("it is JSON")
}

/// Checks the next note, without its time.
async fn expect(socket: &mut Client, from: &str, text: &str) {
    let mut note = note(socket).await;
    let at = note.as_object_mut().and_then(|fields| fields.remove("at"));
    assert!(at.and_then(|at| at.as_u64()).is_some_and(|at| at > 1_700_000_000), "seconds since 1970");
    assert_eq!(note, json!({ "is": "note", "from": from, "text": text }));
}

/// PHP's own web server with the folder of the example, as README.md starts it.
struct WebServer {
    address: SocketAddr,
    child: Child,
}

impl WebServer {
    async fn start(stage: &Stage) -> Self {
        let address = free_address();
        let child = Command::new("php")
            .args(["-S", &address.to_string(), "-d"])
            .arg(format!("session.save_path={}", stage.sessions.path().display()))
            .arg("-t")
            .arg(folder())
            .env("LONGWIRE_ROUTER", stage.node.address("router").to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php (the command line) is installed");
        let server = Self { address, child };
        eventually("PHP's web server listens", || std::net::TcpStream::connect(address).is_ok()).await;
        server
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A minimal browser for the form: one cookie and the current page.
struct Browser {
    server: SocketAddr,
    session: Option<String>,
    page: String,
}

impl Browser {
    /// Opens the page with the form.
    async fn open(server: SocketAddr) -> Self {
        let mut browser = Self { server, session: None, page: String::new() };
        assert_eq!(browser.look().await.status, 200);
        browser
    }

    fn cookie(&self) -> String {
        self.session.as_ref().map_or(String::new(), |session| format!("Cookie: {session}\r\n"))
    }

    async fn look(&mut self) -> Answer {
        let answer = http::request_with(self.server, "GET", "/form.php", &self.cookie(), b"").await;
        self.take(answer.expect("the server answers"))
    }

    fn take(&mut self, answer: Answer) -> Answer {
        if let Some(cookie) = answer.header("set-cookie") {
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
            self.session = cookie.split(';').next().map(str::to_owned);
        }
        self.page = answer.text();
        answer
    }

    /// The CSRF token in the form of this page.
    fn token(&self) -> String {
        let (_, rest) = self.page.split_once("name=\"token\" value=\"").expect("each page has a form");
        rest.split('"').next().expect("split gives one piece at least").to_owned()
    }

    async fn post(&mut self, token: &str, fields: &[(&str, &str)]) -> Answer {
        let pairs = fields.iter().copied().chain([("token", token)]);
        let body: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let headers = format!("{}Content-Type: application/x-www-form-urlencoded\r\n", self.cookie());
        let answer = http::request_with(self.server, "POST", "/form.php", &headers, body.join("&").as_bytes()).await;
        self.take(answer.expect("the server answers"))
    }

    /// Submits the form of this page and follows a redirect.
    async fn submit(&mut self, fields: &[(&str, &str)]) -> u16 {
        let answer = self.post(&self.token(), fields).await;
        if answer.status == 303 {
            assert_eq!(answer.header("location"), Some("form.php"));
            self.look().await;
        }
        answer.status
    }

    async fn enter(server: SocketAddr, name: &str) -> Self {
        let mut browser = Self::open(server).await;
        let stranger = browser.session.clone();
        assert_eq!(browser.submit(&[("do", "enter"), ("name", name)]).await, 303);
        assert_ne!(browser.session, stranger, "signing in must change the session cookie");
        browser
    }

    async fn send(&mut self, to: &str, text: &str) -> u16 {
        self.submit(&[("do", "send"), ("to", to), ("text", text)]).await
    }

    /// The page's message about the last form: its kind and its text.
    #[track_caller]
    fn news(&self) -> (&str, &str) {
        let (_, rest) = self.page.split_once("<p class=\"news ").unwrap_or_else(|| panic!("no news: {}", self.page));
        let (kind, rest) = rest.split_once('"').expect("the attribute ends");
        let (_, text) = rest.split_once('>').expect("the tag ends");
        (kind, text.split("</p>").next().expect("split gives one piece at least"))
    }
}

/// Encodes a value as a form does.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[tokio::test]
async fn a_form_reaches_every_page_of_whom_it_names_and_says_so() {
    let stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let ada = Browser::enter(server.address, "Ada").await;
    let mut bob = Browser::enter(server.address, "Bob").await;

    let (mut first, hello) = stage.inbox(&ada).await;
    assert_eq!(hello, json!({ "is": "hello", "name": "Ada", "form": "http://127.0.0.1:8081/form.php" }));
    let (mut other, _) = stage.inbox(&bob).await;

    let text = "<script>alert(1)</script> & \"hi\" + ü\nand more";
    assert_eq!(bob.send("ada", text).await, 303);
    assert_eq!(bob.news(), ("good", "ada has it, on 1 open page."));
    expect(&mut first, "Bob", text).await;

    let (mut second, _) = stage.inbox(&ada).await;
    assert_eq!(bob.send("Ada", "again").await, 303);
    assert_eq!(bob.news(), ("good", "Ada has it, on 2 open pages."));
    expect(&mut first, "Bob", "again").await;
    expect(&mut second, "Bob", "again").await;

    // The message is shown once, and loading the page again sends nothing.
    bob.look().await;
    assert!(!bob.page.contains("class=\"news"), "{}", bob.page);
    assert_eq!(bob.send("Bob", "to myself").await, 303);
    expect(&mut other, "Bob", "to myself").await;
}

#[tokio::test]
async fn whoever_is_absent_gets_nothing_and_the_page_says_so() {
    let stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let mut ada = Browser::enter(server.address, "Ada").await;
    assert_eq!(ada.send("Carol's", "<b>there?</b>").await, 303);
    assert_eq!(ada.news(), ("absent", "Carol&#039;s is not here, so nobody got it."));
    assert!(ada.page.contains("&lt;b&gt;there?&lt;/b&gt;</textarea>"), "what was typed is kept: {}", ada.page);

    // Carol is signed in but has no page open; later she has closed her page.
    let carol = Browser::enter(server.address, "Carol's").await;
    ada.send("Carol's", "there?").await;
    assert_eq!(ada.news().0, "absent");
    let (mut socket, _) = stage.inbox(&carol).await;
    ada.send("Carol's", "there?").await;
    assert_eq!(ada.news().0, "good");
    expect(&mut socket, "Ada", "there?").await;
    socket.close(1000).await;
    assert_eq!(socket.end().await, Some(1000));
    stage.node.closed(1);
    ada.send("Carol's", "there?").await;
    assert_eq!(ada.news().0, "absent");
}

#[tokio::test]
async fn a_form_from_elsewhere_is_refused() {
    let stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let mut ada = Browser::enter(server.address, "Ada").await;
    let mut bob = Browser::enter(server.address, "Bob").await;
    let (mut socket, _) = stage.inbox(&ada).await;
    let (token, others) = (bob.token(), ada.token());
    let fields = [("do", "send"), ("to", "ada"), ("text", "not from here")];
    for wrong in ["", "0", &others] {
        assert_eq!(bob.post(wrong, &fields).await.status, 403, "{wrong:?}");
        assert_eq!(bob.news().0, "problem");
    }
    // A valid token without the cookie is refused too.
    let mut nobody = Browser::open(server.address).await;
    nobody.session = None;
    assert_eq!(nobody.post(&token, &fields).await.status, 403);
    // A visitor who is not signed in cannot send.
    let mut stranger = Browser::open(server.address).await;
    assert_eq!(stranger.submit(&fields).await, 422);
    assert_eq!(stranger.news(), ("problem", "Sign in first."));
    // Another site cannot sign her out.
    assert_eq!(ada.post(&token, &[("do", "leave")]).await.status, 403);
    assert!(ada.page.contains("You are <strong>Ada</strong>"), "{}", ada.page);

    // The first frame is the message that was sent properly.
    assert_eq!(bob.send("ada", "from here").await, 303);
    expect(&mut socket, "Bob", "from here").await;
}

#[tokio::test]
async fn what_will_not_do_is_refused_and_kept_in_the_form() {
    let stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let mut browser = Browser::open(server.address).await;
    for name in ["", "a, b", "a\r\nLongwire-Uid: root", "\"><script>", &"n".repeat(25), "\u{7f}"] {
        assert_eq!(browser.submit(&[("do", "enter"), ("name", name)]).await, 422, "{name:?}");
        assert_eq!(browser.news(), ("problem", "A name has 1 to 24 letters and digits."));
        assert!(!browser.page.contains("<script"), "{}", browser.page);
    }
    let mut ada = Browser::enter(server.address, "Ada").await;
    for (to, text) in [("", "hi"), ("a;b", "hi"), ("Ada", ""), ("Ada", " \r\n "), ("Ada", &"ü".repeat(501))] {
        assert_eq!(ada.send(to, text).await, 422, "{to:?} {text:?}");
        assert_eq!(ada.news().0, "problem");
    }
    let (mut socket, _) = stage.inbox(&ada).await;
    assert_eq!(ada.send("Ada", &"ü".repeat(500)).await, 303);
    expect(&mut socket, "Ada", &"ü".repeat(500)).await;
}

/// The end of a socket that was closed by the handler or the form.
async fn closed(socket: &mut Client) -> (Option<u16>, String) {
    match socket.next().await.expect("a close frame comes before the end") {
        Item::Close { code, reason } => (code, String::from_utf8_lossy(reason.as_ref()).into_owned()),
        other => panic!("no close frame: {other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_is_told_so_and_signing_out_reaches_the_open_pages() {
    let stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let stranger = Browser::open(server.address).await;
    let mut made_up = Browser::open(server.address).await;
    made_up.session = Some("PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned());
    let mut without = Browser::open(server.address).await;
    without.session = None;
    for browser in [&stranger, &made_up, &without] {
        let headers = browser.cookie();
        let upgraded = Client::try_upgrade(stage.node.address("web"), "/ws", &headers).await;
        let (mut socket, head) = upgraded.expect("visitors who are not signed in can connect");
        assert!(!head.to_ascii_lowercase().contains("set-cookie"), "only the form may set a cookie: {head}");
        assert_eq!(note(&mut socket).await["name"], Value::Null);
        assert_eq!(closed(&mut socket).await, (Some(4001), "sign in first".to_owned()));
    }

    let mut ada = Browser::enter(server.address, "Ada").await;
    let again = Browser::enter(server.address, "ada").await;
    let (mut here, _) = stage.inbox(&ada).await;
    let (mut there, _) = stage.inbox(&again).await;
    let before = Browser { server: ada.server, session: ada.session.clone(), page: String::new() };
    assert_eq!(ada.submit(&[("do", "leave")]).await, 303);
    assert!(ada.page.contains("<h1>Sign in</h1>"), "{}", ada.page);
    for socket in [&mut here, &mut there] {
        assert_eq!(closed(socket).await, (Some(4000), "look again".to_owned()));
    }
    assert_eq!(stage.inbox(&ada).await.1["name"], Value::Null);
    assert_eq!(stage.inbox(&before).await.1["name"], Value::Null, "the old cookie must be invalid");
    assert_eq!(stage.inbox(&again).await.1["name"], "ada", "another browser is still signed in");
}

#[tokio::test]
async fn a_router_that_is_away_is_no_broken_page() {
    let mut stage = Stage::trial();
    let server = WebServer::start(&stage).await;
    let mut ada = Browser::enter(server.address, "Ada").await;
    stage.node.terminate();
    stage.node.wait();
    assert_eq!(ada.send("Bob", "hello?").await, 503);
    assert_eq!(ada.news(), ("problem", "Nobody can be reached at the moment. Try again later."));
    assert!(ada.page.contains("hello?</textarea>"), "what was typed is kept: {}", ada.page);
    assert_eq!(ada.submit(&[("do", "leave")]).await, 303);
}

#[tokio::test]
async fn the_inbox_is_served_without_its_php() {
    let stage = Stage::trial();
    for (path, status) in [
        ("/", 200),
        ("/notify.js", 200),
        ("/notify.css", 200),
        ("/icon.svg", 200),
        ("/form.php", 404),
        ("/visitor.php", 404),
        ("/handler.php", 404),
    ] {
        let answer = http::request(stage.node.address("web"), "GET", path, b"").await.expect("it answers");
        assert_eq!(answer.status, status, "{path}");
    }
}

/// The first block of code of this language in README.md.
fn block(language: &str) -> String {
    let (_, code) = README.split_once(&format!("```{language}\n")).expect("README.md has one");
    code.split("```").next().expect("split gives one piece at least").to_owned()
}

/// Replaces texts that must all occur.
fn with(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "{from:?} is not in {text}");
        text = text.replace(from, to);
    }
    text
}

/// nginx with the `server` block of README.md.
fn nginx(stage: &Stage) -> (Proxy, SocketAddr) {
    let server = with(
        block("nginx"),
        &[
            ("/var/www/notify", folder().to_str().expect("the path is text")),
            ("include fastcgi_params", "include /etc/nginx/fastcgi_params"),
            ("unix:/run/php/php8.2-fpm.sock", &stage.fpm.address().to_string()),
            ("127.0.0.1:8080", &stage.node.address("web").to_string()),
            (
                "fastcgi_param NOTIFY_INBOX /;",
                &format!(
                    "fastcgi_param NOTIFY_INBOX /; fastcgi_param LONGWIRE_ROUTER {};",
                    stage.node.address("router")
                ),
            ),
        ],
    );
    Proxy::nginx(&server)
}

#[tokio::test]
async fn behind_one_web_server_it_works_as_its_readme_says() {
    let folder = folder();
    let stage = Stage::start(&with(
        block("toml"),
        &[
            ("/var/www/notify", folder.to_str().expect("the path is text")),
            ("unix:/run/php/longwire.sock", "BACKEND"),
            ("127.0.0.1:8080", "127.0.0.1:0"),
            ("127.0.0.1:9010", "127.0.0.1:0"),
        ],
    ));
    let (_nginx, web) = nginx(&stage);
    for (path, status) in [("/", 200), ("/notify.js", 200), ("/visitor.php", 404), ("/handler.php", 404)] {
        let answer = http::request(web, "GET", path, b"").await.expect("it answers");
        assert_eq!(answer.status, status, "{path}");
    }
    let mut ada = Browser::enter(web, "Ada").await;
    assert!(ada.page.contains("<a href=\"/\">Inbox</a>"), "{}", ada.page);
    let (mut socket, hello) = inbox(web, &ada).await;
    assert_eq!(hello, json!({ "is": "hello", "name": "Ada", "form": "/form.php" }));
    assert_eq!(ada.send("ada", "all on one port").await, 303);
    assert_eq!(ada.news(), ("good", "ada has it, on 1 open page."));
    expect(&mut socket, "Ada", "all on one port").await;
}
