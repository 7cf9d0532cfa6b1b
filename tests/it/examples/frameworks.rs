//! Symfony 5.4 and Laravel 8.83 on a real php-fpm. `tests/frameworks` has a small shop for each, with pages, a login and a handler.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longwire::proto::framing::{FrameKind, Framing, Item, LengthFraming};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::event_stream::{Answer, Http};
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::proxy::Proxy;

/// Timeout for requests that must not wait for other requests' work, which lasts twice as long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Laravel's key for encrypting cookies.
const KEY: &str = "base64:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// The number of PHP workers.
const WORKERS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framework {
    Symfony,
    Laravel,
}

use Framework::{Laravel, Symfony};

impl Framework {
    fn folder(self) -> &'static str {
        match self {
            Symfony => "symfony",
            Laravel => "laravel",
        }
    }

    /// The folder in which the handler looks for files and writes some.
    fn notes(self) -> &'static str {
        match self {
            Symfony => "var",
            Laravel => "storage",
        }
    }

    /// The folder of PHP sessions.
    fn sessions(self) -> &'static str {
        match self {
            Symfony => "var/sessions",
            Laravel => "storage/framework/sessions",
        }
    }

    /// A path on which events of one user run one at a time, as with PHP's own sessions.
    fn one_at_a_time(self) -> &'static str {
        match self {
            Symfony => "/ws",
            Laravel => "/exact",
        }
    }
}

/// A shop in a folder of its own, with its php-fpm.
struct Shop {
    framework: Framework,
    node: Longwire,
    fpm: PhpFpm,
    files: TempDir,
}

impl Shop {
    fn open(framework: Framework) -> Self {
        Self::open_with(framework, |pool| pool)
    }

    /// The same; `prepare` may change the pool.
    fn open_with(framework: Framework, prepare: impl FnOnce(Pool) -> Pool) -> Self {
        let files = deploy(framework);
        let fpm = prepare(pool(WORKERS)).start();
        let node = serve(&fpm, files.path());
        Self { framework, node, fpm, files }
    }

    fn visitor(&self) -> Visitor {
        Visitor { framework: self.framework, address: self.node.address("web"), cookies: BTreeMap::new() }
    }

    /// A visitor who is logged in.
    async fn user(&self) -> Visitor {
        let mut visitor = self.visitor();
        visitor.log_in().await;
        visitor
    }

    /// A file that the handler looks for or writes.
    fn note(&self, name: &str) -> PathBuf {
        self.files.path().join(self.framework.notes()).join(name)
    }

    /// The users noted by `close` events.
    fn closed(&self) -> String {
        fs::read_to_string(self.note("closed")).unwrap_or_default()
    }

    fn session_files(&self) -> usize {
        let folder = self.files.path().join(self.framework.sessions());
        fs::read_dir(folder).expect("it was made").count()
    }
}

/// Copies a shop and creates the folders that Composer or Git would have created.
fn deploy(framework: Framework) -> TempDir {
    let files = tempfile::tempdir().expect("a temporary directory");
    let shops = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks");
    copy(&shops.join(framework.folder()), files.path());
    for folder in ["bootstrap/cache", "storage/framework/views", "storage/framework/cache"] {
        if framework == Laravel {
            fs::create_dir_all(files.path().join(folder)).expect("the directory is ours");
        }
    }
    fs::create_dir_all(files.path().join(framework.sessions())).expect("the directory is ours");
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the directory is ours");
    for entry in fs::read_dir(from).expect("it is in the repository").flatten() {
        match entry.file_type().expect("Linux says so").is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => {
                fs::copy(entry.path(), to.join(entry.file_name())).expect("the directory is ours");
            }
        }
    }
}

/// A pool with the environment that a shop's pool gives to its application.
fn pool(workers: usize) -> Pool {
    Pool::of(workers)
        .line("env[APP_ENV] = prod")
        .line("env[APP_SECRET] = of-these-tests")
        .line(&format!("env[APP_KEY] = \"{KEY}\""))
}

/// Starts a node with pages and WebSockets on one port, and devices on another.
fn serve(fpm: &PhpFpm, shop: &Path) -> Longwire {
    let script = shop.join("public/index.php");
    let app = "events = [\"connect\", \"close\"]\nplain_requests = true\non_error = { send = \"sorry\" }";
    let upstream = format!("max_connections = {WORKERS}");
    let listeners = format!(
        "[listeners]\nweb = {{ bind = \"127.0.0.1:0\", protocol = \"http\", routes = {{ \"/*\" = \"app\" }} }}
         devices = {{ bind = \"127.0.0.1:0\", app = \"devices\" }}
         [apps.devices]\nupstream = \"php\"\nscript = {script:?}\nuri = \"/open?from=device\"
         events = [\"connect\", \"join\"]\nparams = {{ HTTP_HOST = \"shop.example\" }}"
    );
    Longwire::with(fpm, &script, app, &upstream, &listeners)
}

/// A minimal browser: cookies, pages and forms.
#[derive(Clone)]
struct Visitor {
    framework: Framework,
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
}

impl Visitor {
    async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[]).await
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.request("POST", path, form).await
    }

    async fn request(&mut self, method: &str, path: &str, form: &[(&str, &str)]) -> Answer {
        let body = form.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&");
        let cookies = self.cookie();
        let headers = [("cookie", &cookies[..]), ("content-type", "application/x-www-form-urlencoded")];
        let headers = if method == "GET" { &headers[..1] } else { &headers[..] };
        let answer = soon(Http::one(self.address)).await.ask(method, path, headers, body.as_bytes()).await;
        for line in answer.headers.get_all("set-cookie") {
            self.keep(line.to_str().expect("cookies are text"));
        }
        answer
    }

    /// A line of `Set-Cookie`.
    fn keep(&mut self, line: &str) {
        let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a name and a value");
        self.cookies.insert(name.to_owned(), value.to_owned());
    }

    fn cookie(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// The CSRF token of the login page, which is valid for every form of this visitor.
    async fn token(&mut self) -> String {
        let page = self.get("/login").await.text();
        let token = page.split("_token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        token.unwrap_or_else(|| panic!("a form with a token: {page}")).to_owned()
    }

    async fn log_in(&mut self) {
        let token = self.token().await;
        let form = match self.framework {
            Symfony => [("_username", "ada"), ("_password", "secret"), ("_csrf_token", &token[..])],
            Laravel => [("name", "ada"), ("password", "secret"), ("_token", &token[..])],
        };
        let answer = self.post("/login", &form).await;
        assert_eq!(answer.status, 302, "{}", answer.text());
        let to = answer.headers["location"].to_str().expect("text").to_owned();
        assert!(!to.ends_with("/login"), "the login went wrong");
    }

    async fn log_out(&mut self) {
        let token = self.token().await;
        assert_eq!(self.post("/logout", &[("_token", &token)]).await.status, 302);
    }

    /// A WebSocket and the head of the 101; or the whole answer if it is not a 101.
    async fn socket(&self, path: &str) -> Result<(Client, String), String> {
        let cookies = self.cookie();
        let headers = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
        soon(Client::try_upgrade(self.address, path, &headers)).await
    }

    /// A WebSocket that is admitted and has read its greeting.
    async fn talk(&self, path: &str, name: &str) -> Client {
        let (mut client, _) = self.socket(path).await.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"));
        assert_eq!(text(&mut client).await, format!("hello {name}"));
        client
    }
}

fn escape(value: &str) -> String {
    value
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { (byte as char).into() } else { format!("%{byte:02X}") })
        .collect()
}

/// Checks that a request did not have to wait.
#[track_caller]
fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("it waits: {caller}")) }
}

/// The next frame.
async fn text(client: &mut Client) -> String {
    String::from_utf8(soon(client.frame()).await.body.to_vec()).expect("text is UTF-8")
}

async fn ask(client: &mut Client, question: &str) -> String {
    soon(client.text(question)).await;
    text(client).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_on_the_page_counts_on_the_socket_and_guests_are_refused() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut guest = shop.visitor();
        let page = guest.get("/").await;
        assert_eq!(page.status, 302, "{framework:?} sends guests to the login page");
        // The route for browsers, and for Laravel also the one for programs.
        let paths: &[(&str, &[&str])] = match framework {
            Symfony => &[("/ws", &["302"])],
            Laravel => &[("/members", &["302"]), ("/ws", &["401"])],
        };
        for (path, statuses) in paths {
            for visitor in [&shop.visitor(), &guest] {
                let answer = visitor.socket(path).await.err().expect("a visitor without a login must be refused");
                let status = answer.split(' ').nth(1).unwrap_or_default();
                assert!(statuses.contains(&status), "{framework:?} {path}: {answer}");
            }
            let stream = [("accept", "text/event-stream")];
            let answer = soon(Http::one(shop.node.address("web")).await.ask("GET", path, &stream, b"")).await;
            assert!(!answer.status.is_success(), "{framework:?} {path}: {answer:?}");
        }
        eventually("nobody is left", || shop.node.metric("longwire_sessions", "") == 0.0).await;
        assert_eq!(shop.closed(), "", "a refused visitor must have no close event");

        let mut ada = shop.user().await;
        assert_eq!(ada.get("/").await.text(), "ada n=0");
        for (path, _) in paths {
            let mut socket = ada.talk(path, "ada").await;
            assert_eq!(ask(&mut socket, "hello").await, "olleh");
            let address = shop.node.address("web");
            let seen: Value = serde_json::from_str(&ask(&mut socket, "who").await).unwrap();
            let expected = json!({ "user": "ada", "uid": "ada", "attributes": ["socket", "en"], "path": path, "base": "",
                "home": format!("http://{address}{}", if framework == Symfony { "/" } else { "" }) });
            assert_eq!(seen, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_in_the_session_goes_on_over_frames_and_pages() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut ada = shop.user().await;
        let mut socket = ada.talk("/ws", "ada").await;
        for n in 1..=5 {
            assert_eq!(ask(&mut socket, "count").await, format!("n={n}"), "{framework:?}");
        }
        assert_eq!(ada.get("/").await.text(), "ada n=5");
        let token = ada.token().await;
        let token = if framework == Symfony { "" } else { &token };
        assert_eq!(ada.post("/", &[("_token", token)]).await.text(), "ada n=6");
        assert_eq!(ask(&mut socket, "count").await, "n=7", "{framework:?}");

        // Two sockets of the same user at once.
        let path = framework.one_at_a_time();
        let (mut one, mut two) = (ada.talk(path, "ada").await, ada.talk(path, "ada").await);
        let count = async |client: &mut Client| {
            for _ in 0..10 {
                ask(client, "count").await;
            }
        };
        tokio::join!(count(&mut one), count(&mut two));
        assert_eq!(ada.get("/").await.text(), "ada n=27", "{framework:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_php_begins_at_connect_is_the_sockets() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut visitor = shop.visitor();
        let (mut socket, head) = visitor.socket("/open").await.expect("everybody may come in");
        assert_eq!(text(&mut socket).await, "hello visitor");
        for n in 1..=3 {
            assert_eq!(ask(&mut socket, "count").await, format!("n={n}"), "{framework:?}");
        }
        // The browser has the cookie too.
        for line in
            head.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).map(|line| &line[11..])
        {
            visitor.keep(line.trim());
        }
        let mut again = visitor.talk("/open", "visitor").await;
        assert_eq!(ask(&mut again, "count").await, "n=4", "{framework:?}");
        assert_eq!(shop.session_files(), 1, "{framework:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_after_the_response_holds_up_nobody_while_a_worker_is_free() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut ada = shop.user().await;
        let (mut busy, mut other) = (ada.talk("/ws", "ada").await, ada.talk("/ws", "ada").await);
        let mut stranger = shop.visitor().talk("/open", "visitor").await;
        // Keep two of the three workers busy.
        for name in ["mail", "report"] {
            assert_eq!(ask(&mut busy, &format!("later {name}")).await, "at once", "{framework:?}");
            eventually("the work has begun", || shop.note(&format!("{name}-begun")).exists()).await;
            // No request has to wait: neither of this session, nor of the same user's other one, of another user, a new user, or a page.
            for round in 0..3 {
                for client in [&mut busy, &mut other, &mut stranger] {
                    assert_eq!(ask(client, &format!("{name} {round}")).await, format!("{round} {}", backwards(name)));
                }
            }
            assert_eq!(
                ask(&mut busy, "count").await,
                if name == "mail" { "n=1" } else { "n=2" },
                "the session is free"
            );
            drop(shop.visitor().talk("/open", "visitor").await);
            assert_eq!(soon(ada.get("/login")).await.status, 200);
            assert!(!shop.note(&format!("{name}-done")).exists(), "{framework:?}: it was still at work");
        }
        for name in ["mail", "report"] {
            fs::write(shop.note(&format!("{name}-go")), "").unwrap();
            eventually("the work is done", || shop.note(&format!("{name}-done")).exists()).await;
        }
        // Output that the script printed at its end must reach no client.
        for round in 0..10 {
            for client in [&mut busy, &mut other, &mut stranger] {
                assert_eq!(ask(client, &round.to_string()).await, round.to_string(), "{framework:?}");
            }
        }
        let failed =
            shop.node.log_lines(|line| line["message"].as_str().unwrap_or_default().starts_with("event failed"));
        assert_eq!(failed, Vec::<Value>::new(), "{framework:?}");
    }
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_an_exception_reaches_nobody_and_the_session_goes_on() {
    for (framework, debug) in [(Symfony, "0"), (Symfony, "1"), (Laravel, "0"), (Laravel, "1")] {
        let shop = Shop::open_with(framework, |pool| pool.line(&format!("env[APP_DEBUG] = {debug}")));
        let mut socket = shop.visitor().talk("/open", "visitor").await;
        assert_eq!(ask(&mut socket, "throw").await, "sorry", "{framework:?} with debug {debug}");
        assert_eq!(ask(&mut socket, "on it goes").await, "seog ti no");
        let is_failure = |line: &Value| line["message"].as_str().unwrap_or_default().starts_with("event failed");
        let failed = &shop.node.wait_for_log("it has failed", is_failure);
        assert_eq!(shop.node.log_lines(is_failure).len(), 1, "{framework:?} with debug {debug}");
        assert_eq!((&failed["cause"], &failed["status"]), (&json!("status"), &json!(500)), "{failed}");
        // The developer finds the exception in the log, together with the session's id.
        shop.node.wait_for_log("the exception", |line| {
            line["target"] == "longwire::php"
                && line["session"] == failed["session"]
                && line["message"].as_str().unwrap_or_default().contains("a trace that no client may read")
        });
        assert_eq!(ask(&mut socket, "dump").await, "sorry", "{framework:?}: dd() is for developers");
        let lost = ask(&mut socket, "lost").await;
        assert!(lost.contains("Not Found"), "a status below 500 is a normal answer: {lost}");
        if framework == Laravel {
            assert_eq!(ask(&mut socket, "order 3").await, "ordered 3");
            let invalid: Value =
                serde_json::from_str(&ask(&mut socket, "order x").await).expect("JSON and no redirect");
            assert!(invalid["errors"]["pieces"].is_array(), "{invalid}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_has_run_out_ends_the_session_at_its_next_message_and_close_is_told() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut ada = shop.user().await;
        let (mut talking, silent) = (ada.talk("/ws", "ada").await, ada.talk("/ws", "ada").await);
        ada.log_out().await;
        assert_eq!(ada.get("/").await.status, 302, "{framework:?}: it is over");
        soon(talking.text("hello")).await;
        let code = loop {
            match soon(talking.next()).await {
                Some(Item::Close { code, .. }) => break code,
                Some(Item::Frame(frame)) => assert!(!frame.body.starts_with(b"<"), "no page: {frame:?}"),
                Some(_) => {}
                None => panic!("{framework:?}: it ended without a word"),
            }
        };
        assert_eq!(code, Some(4401), "{framework:?}");
        drop((talking, silent));
        eventually("both are told of", || shop.closed() == "ada\nada\n").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_longwire_can_post_an_event() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let root = shop.files.path().join("public");
        let (_nginx, beside) = Proxy::nginx(&nginx(&root, &shop));
        let mut ada = shop.user().await;
        for address in [shop.node.address("web"), beside] {
            for path in ["/ws", "/open"] {
                // Any page in a browser could do this, with the user's cookies.
                let cookies = ada.cookie();
                let headers = [("cookie", &cookies[..]), ("longwire-event", "message"), ("content-type", "text/plain")];
                let answer = soon(Http::one(address).await.ask("POST", path, &headers, b"count")).await;
                assert_eq!(answer.status, 404, "{framework:?} {path}: {}", answer.text());
            }
            let headers = [("longwire-event", "message")];
            let direct = soon(Http::one(address).await.ask("POST", "/index.php/open", &headers, b"x")).await;
            assert_eq!(direct.status, 404);
        }
        assert_eq!(ada.get("/").await.text(), "ada n=0");
        if framework == Laravel {
            // A frame is a POST without a token. A route that is not exempt from CSRF checks refuses sockets, as it refuses forms.
            let answer = ada.socket("/guarded").await.err().expect("no token, no session");
            assert!(answer.starts_with("HTTP/1.1 419 "), "{answer}");
            assert_eq!(ada.post("/", &[]).await.status, 419);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_by_nginx_and_sockets_by_longwire_share_the_login() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let root = shop.files.path().join("public");
        let (_nginx, address) = Proxy::nginx(&nginx(&root, &shop));
        let mut ada = Visitor { address, ..shop.visitor() };
        ada.log_in().await;
        let mut socket = ada.talk("/ws", "ada").await;
        for n in 1..=3 {
            assert_eq!(ask(&mut socket, "count").await, format!("n={n}"), "{framework:?}");
        }
        assert_eq!(ada.get("/").await.text(), "ada n=3");
        let guest = Visitor { address, ..shop.visitor() };
        assert!(guest.socket("/ws").await.is_err(), "{framework:?}");
    }
}

/// nginx's `server` block of docs/frameworks.md, for a shop whose pages nginx serves.
fn nginx(root: &Path, shop: &Shop) -> String {
    format!(
        "root {root};
         location / {{ try_files $uri /index.php$is_args$args; }}
         location ~ ^/index\\.php(/|$) {{
             include /etc/nginx/fastcgi_params;
             fastcgi_param SCRIPT_FILENAME $document_root/index.php;
             fastcgi_param SCRIPT_NAME /index.php;
             fastcgi_pass {backend};
         }}
         location ~ ^/(ws|open)$ {{
             proxy_pass http://{node};
             proxy_http_version 1.1;
             proxy_set_header Upgrade $http_upgrade;
             proxy_set_header Connection \"upgrade\";
             proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
             proxy_set_header X-Forwarded-Proto $scheme;
         }}",
        root = root.display(),
        backend = shop.fpm.address(),
        node = shop.node.address("web"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_a_streamed_response_leave_one_by_one() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut socket = shop.visitor().talk("/open", "visitor").await;
        socket.text("stream").await;
        for line in ["one", "two", "three"] {
            assert_eq!(text(&mut socket).await, line, "{framework:?}");
            fs::write(shop.note(&format!("after-{line}")), "").unwrap();
        }
        assert_eq!(ask(&mut socket, "on").await, "no", "{framework:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_and_events_of_channels_take_the_route_of_the_apps_uri() {
    for framework in [Symfony, Laravel] {
        let shop = Shop::open(framework);
        let mut device = Client::connect(shop.node.address("devices"), Framing::Length(LengthFraming::default())).await;
        assert_eq!(text(&mut device).await, "hello visitor");
        let seen: Value = serde_json::from_str(&ask(&mut device, "who").await).unwrap();
        assert_eq!((&seen["user"], &seen["uid"], &seen["path"]), (&json!(null), &json!("visitor"), &json!("/open")));
        // A device sends no Host header, so the app's params have the shop's host name.
        assert_eq!(seen["home"].as_str().unwrap().trim_end_matches('/'), "http://shop.example", "{framework:?}");
        soon(device.send(FrameKind::Binary, b"enter kitchen")).await;
        assert_eq!(text(&mut device).await, "welcome to kitchen", "{framework:?}");
    }
}

#[test]
fn the_code_of_the_page_is_that_of_the_shops() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/frameworks.md")).expect("it is in the repository");
    let blocks: Vec<_> = page.split("```php\n// ").skip(1).collect();
    assert!(blocks.len() >= 8, "{blocks:?}");
    for block in blocks {
        let (code, _) = block.split_once("```").expect("a block ends");
        let (file, code) = code.split_once('\n').expect("the first line names the file");
        let shops =
            [Symfony, Laravel].map(|framework| root.join("tests/frameworks").join(framework.folder()).join(file));
        let texts: Vec<_> = shops.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
        assert!(texts.iter().any(|text| text.contains(code)), "no shop has this in its {file}:\n{code}");
    }
}

/// Measures PHP's CPU time for one frame: `cargo test --test it -- --ignored --nocapture figures_of_a_frame`.
///
/// One worker, one session with a login, its route and its PHP session. It takes the worker's CPU time from proc_pid_schedstat(5), so
/// other work on the machine does not count.
#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_a_frame() {
    const ROUNDS: usize = 7;
    const FRAMES: usize = 200;
    let files = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(files.path().join("public")).unwrap();
    fs::write(files.path().join("public/index.php"), "<?php echo strrev(file_get_contents('php://input'));").unwrap();
    let fpm = pool(1).start();
    let node = serve(&fpm, files.path());
    let mut socket = Client::upgrade(node.address("web"), "/ws", "").await;
    report("plain script", &measure(&fpm, &mut socket, ROUNDS, FRAMES).await);
    drop((node, fpm));

    for framework in [Symfony, Laravel] {
        let mut variants = vec![("as deployed", false, &[][..])];
        if framework == Laravel {
            variants.push(("config and routes cached", true, &[]));
        }
        variants.push(("the same, files not looked at", true, &["opcache.validate_timestamps=0"]));
        variants.push(("the same, preloaded", true, &["opcache.validate_timestamps=0", "opcache.preload_user=root"]));
        for (label, caches, ini) in variants {
            let files = deploy(framework);
            let shop = files.path();
            if caches && framework == Laravel {
                php(shop, &["artisan", "config:cache"]);
                php(shop, &["artisan", "route:cache"]);
            }
            let mut pool = ini.iter().fold(pool(1), |pool, setting| pool.ini(setting));
            if ini.len() > 1 {
                let preload = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frameworks/preload.php");
                fs::copy(preload, shop.join("preload.php")).unwrap();
                // The first run creates the caches that the second uses.
                php(shop, &["preload.php", "list"]);
                php(shop, &["preload.php", "list"]);
                pool = pool.ini(&format!("opcache.preload={}", shop.join("preload.php").display()));
            }
            let fpm = pool.start();
            let node = serve(&fpm, shop);
            let mut ada = Visitor { framework, address: node.address("web"), cookies: BTreeMap::new() };
            ada.log_in().await;
            let mut socket = ada.talk("/ws", "ada").await;
            report(&format!("{framework:?}, {label}"), &measure(&fpm, &mut socket, ROUNDS, FRAMES).await);
        }
    }
}

/// The worker's microseconds per frame, for each round, sorted.
async fn measure(fpm: &PhpFpm, socket: &mut Client, rounds: usize, frames: usize) -> Vec<f64> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", fpm.master())).expect("Linux says so");
    let worker: u32 = children.trim().parse().expect("one worker");
    let spent = || -> f64 {
        let line = fs::read_to_string(format!("/proc/{worker}/schedstat")).expect("it runs");
        line.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).expect("a number") / 1000.0
    };
    for _ in 0..frames {
        assert_eq!(ask(socket, "stressed").await, "desserts");
    }
    let mut all = Vec::new();
    for _ in 0..rounds {
        let before = spent();
        for _ in 0..frames {
            assert_eq!(ask(socket, "stressed").await, "desserts");
        }
        all.push((spent() - before) / frames as f64);
    }
    all.sort_by(f64::total_cmp);
    all
}

fn report(label: &str, all: &[f64]) {
    println!("{label}: {:.0} us, from {:.0} to {:.0}", all[all.len() / 2], all[0], all[all.len() - 1]);
}

/// Runs PHP in a shop.
fn php(shop: &Path, arguments: &[&str]) {
    let mut command = std::process::Command::new("php");
    command.args(arguments).current_dir(shop);
    command.env("APP_ENV", "prod").env("APP_SECRET", "of-these-tests").env("APP_KEY", KEY);
    let output = command.output().expect("php (the command line) is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}
