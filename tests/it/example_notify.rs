//! `php-examples/push.php` from the command line, and `php-examples/notify` with its form on a web server of its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::http::{Answer, request_with};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, wait_until};

fn php_examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples")
}

/// push.php, with what a shell would pipe into it.
fn push(arguments: &[&str], input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), input).expect("it is ours");
    Command::new("php")
        .arg(php_examples().join("push.php"))
        .args(arguments)
        .stdin(fs::File::open(file.path()).expect("it is there"))
        .output()
        .expect("php is installed")
}

#[track_caller]
fn assert_said(output: &Output, status: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(status), stdout),
        "{}",
        text(&output.stderr)
    );
    match stderr {
        "" => assert_eq!(text(&output.stderr), ""),
        _ => assert!(text(&output.stderr).contains(stderr), "{}", text(&output.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_reaches_everybody_or_a_channel_and_says_whom() {
    let fpm = Pool::of(2).start();
    let listeners = "[listeners]\nweb = { bind = \"127.0.0.1:0\", protocol = \"http\", routes = { \"/ws\" = \"app\" } }\n\
                     tcp = { bind = \"127.0.0.1:0\", app = \"app\" }\n";
    let script = fpm.script("handler.php", "header('Longwire-Join: ' . file_get_contents('php://input')); echo 'in';");
    let node = Longwire::with(&fpm, &script, "", "", listeners);
    let mut tcp = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
    assert_eq!((tcp.ask("stock").await, web.ask("prices").await), ("in".to_owned(), "in".to_owned()));
    let router = node.address("router").to_string();

    assert_said(&push(&["--router", &router, "prices", "have", "changed"], ""), 0, "everybody: 2 reached\n", "");
    assert_eq!(&tcp.frame().await.body[..], b"prices have changed");
    let frame = web.frame().await;
    assert_eq!((frame.kind, &frame.body[..]), (FrameKind::Text, &b"prices have changed"[..]));

    let piped = push(&[&format!("--router={router}"), "--channel", "prices"], "1.08\n");
    assert_said(&piped, 0, "channel prices: 1 reached\n", "");
    assert_eq!(&web.frame().await.body[..], b"1.08");
    let nobody = push(&["--router", &router, "--channel", "hall", "--", "--x"], "");
    assert_said(&nobody, 0, "channel hall: 0 reached, nobody is there\n", "");

    assert_said(&push(&["--router", &router, "--chanel", "x", "y"], ""), 2, "", "there is no option --chanel");
    assert_said(&push(&["--router", &router], ""), 2, "", "there is nothing to send");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    assert_said(&push(&["--router", &free.to_string(), "x"], ""), 1, "", "Connection refused");
    assert_eq!(tcp.ask("none of it came here").await, "in");
}

/// The inbox behind Longwire and the form behind PHP's own web server, with the same PHP sessions.
struct Notify {
    node: Longwire,
    form: Child,
    address: SocketAddr,
    _fpm: PhpFpm,
    _sessions: TempDir,
}

impl Notify {
    fn start() -> Self {
        let sessions = tempfile::tempdir().expect("a temporary directory");
        let save_path = format!("session.save_path={}", sessions.path().display());
        let fpm_line = format!("php_admin_value[session.save_path] = {}", sessions.path().display());
        let fpm = Pool::of(2).line(&fpm_line).start();
        let folder = php_examples().join("notify");
        let listeners = format!(
            "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = {{ \"/ws\" = \"app\" }}\nstatic = {folder:?}\n"
        );
        let node = Longwire::with(&fpm, &folder.join("handler.php"), "events = [\"connect\"]", "", &listeners);
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let form = Command::new("php")
            .args(["-d", &save_path, "-d", "error_log=", "-S", &address.to_string(), "-t"])
            .arg(&folder)
            .env("LONGWIRE_ROUTER", node.address("router").to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php is installed");
        wait_until("the form's server listens", || TcpStream::connect(address).is_ok());
        Self { node, form, address, _fpm: fpm, _sessions: sessions }
    }

    async fn inbox(&self, visitor: &Visitor) -> (Client, Value) {
        let cookie = format!("Cookie: {}\r\n", visitor.cookie);
        let mut client = Client::upgrade(self.node.address("web"), "/ws", &cookie).await;
        let hello = note(&mut client).await;
        (client, hello)
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        let _ = self.form.kill();
        let _ = self.form.wait();
    }
}

async fn note(client: &mut Client) -> Value {
    serde_json::from_slice(&client.frame().await.body).expect("it is JSON")
}

/// A browser without JavaScript: a cookie, and the token of the form that it sees.
struct Visitor {
    address: SocketAddr,
    cookie: String,
    token: String,
}

impl Visitor {
    async fn new(notify: &Notify) -> Self {
        let mut visitor = Self { address: notify.address, cookie: String::new(), token: String::new() };
        visitor.look().await;
        visitor
    }

    async fn look(&mut self) -> String {
        let headers = format!("Cookie: {}\r\n", self.cookie);
        let answer = request_with(self.address, "GET", "/form.php", &headers, b"").await.expect("it is answered");
        self.keep_cookie(&answer);
        let page = answer.text();
        let (_, behind) = page.split_once("name=\"token\" value=\"").expect("the form has a token");
        self.token = behind.split('"').next().expect("it ends").to_owned();
        page
    }

    /// The status of the answer, and the page that it leads to.
    async fn post(&mut self, fields: &str) -> (u16, String) {
        let headers = format!("Cookie: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n", self.cookie);
        let body = format!("token={}&{fields}", self.token);
        let answer = request_with(self.address, "POST", "/form.php", &headers, body.as_bytes()).await;
        let answer = answer.expect("it is answered");
        self.keep_cookie(&answer);
        match answer.status {
            303 => (303, self.look().await),
            status => (status, answer.text()),
        }
    }

    async fn signed_in(notify: &Notify, name: &str) -> Self {
        let mut visitor = Self::new(notify).await;
        let (status, page) = visitor.post(&format!("do=enter&name={name}")).await;
        assert_eq!(status, 303, "{page}");
        visitor
    }

    fn keep_cookie(&mut self, answer: &Answer) {
        let mut cookies = answer.head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: "));
        if let Some(cookie) = cookies.next_back() {
            assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
            self.cookie = cookie.split(';').next().expect("split gives one piece at least").to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_form_post_reaches_the_pages_of_a_user_and_says_so() {
    let notify = Notify::start();
    let mut ann = Visitor::signed_in(&notify, "Ann").await;
    let bob = Visitor::signed_in(&notify, "Bob").await;
    let (mut desk, hello) = notify.inbox(&bob).await;
    assert_eq!((&hello["is"], &hello["name"]), (&json!("hello"), &json!("Bob")));
    let (mut phone, _) = notify.inbox(&bob).await;
    let (mut anns, _) = notify.inbox(&ann).await;

    let (status, page) = ann.post("do=send&to=bob&text=%3Cb%3Edinner%3C%2Fb%3E").await;
    assert_eq!(status, 303);
    assert!(page.contains("bob has it, on 2 open pages."), "{page}");
    for inbox in [&mut desk, &mut phone] {
        let note = note(inbox).await;
        assert_eq!(
            (&note["is"], &note["from"], &note["text"]),
            (&json!("note"), &json!("Ann"), &json!("<b>dinner</b>"))
        );
    }

    let (_, page) = ann.post("do=send&to=Cleo&text=hi").await;
    assert!(page.contains("Cleo is not here, so nobody got it."), "{page}");
    let (status, page) = ann.post("do=send&to=%3Cscript%3E&text=hi").await;
    assert!(status == 422 && page.contains("&lt;script&gt;") && !page.contains("<script>"), "{status} {page}");
    let (_, page) = ann.post("do=send&to=ann&text=me").await;
    assert!(page.contains("ann has it, on 1 open page."), "{page}");
    assert_eq!(note(&mut anns).await["text"], "me", "and nothing before it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_have_no_inbox_and_foreign_forms_do_nothing() {
    let notify = Notify::start();
    let stranger = Visitor::new(&notify).await;
    let (mut inbox, hello) = notify.inbox(&stranger).await;
    assert_eq!(hello["name"], Value::Null);
    assert_eq!(inbox.end().await, Some(4001));

    let mut ann = Visitor::signed_in(&notify, "Ann").await;
    let (mut anns, _) = notify.inbox(&ann).await;
    let token = std::mem::replace(&mut ann.token, "0".repeat(32));
    let (status, page) = ann.post("do=send&to=ann&text=forged").await;
    assert!(status == 403 && page.contains("Nothing was done"), "{status} {page}");
    ann.token = token;
    assert_eq!(ann.post("do=send&to=ann&text=real").await.0, 303);
    assert_eq!(note(&mut anns).await["text"], "real");

    // Signing out ends the pages that are open, and the cookie is worth nothing any more.
    let old = Visitor { address: ann.address, cookie: ann.cookie.clone(), token: String::new() };
    assert_eq!(ann.post("do=leave").await.0, 303);
    assert_eq!(anns.end().await, Some(4000));
    let (_inbox, hello) = notify.inbox(&old).await;
    assert_eq!(hello["name"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_down_costs_the_form_a_sentence() {
    let mut notify = Notify::start();
    let mut ann = Visitor::signed_in(&notify, "Ann").await;
    notify.node.signal(libc::SIGKILL);
    notify.node.wait();
    let (status, page) = ann.post("do=send&to=bob&text=kept").await;
    assert!(status == 503 && page.contains("Nobody can be reached at the moment"), "{status} {page}");
    assert!(page.contains(">kept</textarea>"), "what was written is not lost: {page}");
}
