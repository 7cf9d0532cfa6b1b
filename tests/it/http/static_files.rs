//! Static files of an HTTP listener, with normal and with malicious requests.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, wait_until};

const SECRET: &str = "nobody may read this";
const ECHO: &str = "<?php echo file_get_contents('php://input');";

/// A folder with files inside and secret files outside of it, and a node that serves it.
struct Site {
    node: Longwire,
    _fpm: PhpFpm,
    dir: TempDir,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Site {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let outside = dir.path();
        let inside = dir.path().join("public");
        let put = |path: &str, text: &str| {
            let path = inside.join(path);
            fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the directory is ours");
            fs::write(path, text).expect("the directory is ours");
        };
        put("index.html", "<!doctype html><title>start</title>");
        put("style.css", "body { color: black }");
        put("app.js", "'use strict';");
        put("picture.svg", "<svg/>");
        put("unknown.xyzzy", "?");
        put("grüße dich.txt", "hello");
        put("sub/index.html", "<!doctype html><title>sub</title>");
        put("sub/page.html", "<!doctype html><title>page</title>");
        put("bare/file.txt", "no index here");
        for kept_back in [
            "handler.php",
            "UPPER.PHP",
            "old.php5",
            "template.phtml",
            "library.phar",
            "config.inc",
            "handler.php~",
            "handler.php.bak",
            "longwire.toml",
            "Cluster.TOML.old",
            ".env",
            ".git/config",
            "sub/.htpasswd",
            "a\\b.txt",
        ] {
            put(kept_back, SECRET);
        }
        fs::write(outside.join("secret.txt"), SECRET).expect("the directory is ours");
        fs::create_dir(outside.join("public-not")).expect("the directory is ours");
        fs::write(outside.join("public-not/secret.txt"), SECRET).expect("the directory is ours");
        let link = |to: &Path, name: &str| symlink(to, inside.join(name)).expect("the directory is ours");
        link(&inside.join("sub"), "link-inside");
        link(Path::new("sub/page.html"), "link-inside.html");
        link(&outside.join("secret.txt"), "link-out.txt");
        link(outside, "link-out");
        link(&outside.join("public-not"), "link-beside");
        link(&inside.join(".env"), "link-hidden.txt");
        link(&inside.join("handler.php"), "link-php.txt");
        link(Path::new("link-loop"), "link-loop");
        link(Path::new("/dev/zero"), "link-device");
        fs::write(outside.join("echo.php"), ECHO).expect("the directory is ours");
        let fpm = Pool::of(2).start();
        let listeners = format!(
            r#"
            [limits]
            drain_timeout = "20s"
            [listeners.web]
            bind = "127.0.0.1:0"
            protocol = "http"
            routes = {{ "/ws" = "app", "/style.css" = "app" }}
            static = {inside:?}
            "#
        );
        let node = Longwire::with(&fpm, &outside.join("echo.php"), "", "", &listeners);
        Self { node, _fpm: fpm, dir }
    }

    fn address(&self) -> SocketAddr {
        self.node.address("web")
    }

    fn inside(&self) -> std::path::PathBuf {
        self.dir.path().join("public")
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes it");
        stream.write_all(request.as_bytes()).expect("it is read");
        stream
    }

    /// Makes one request, without changing the path; the connection ends with the answer.
    fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let mut stream = self.send(&format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address()));
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer");
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head, body: bytes.split_off(end + 4) }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_served_beside_the_websocket() {
    let site = Site::start();
    for (path, content_type, begins) in [
        ("/", "text/html; charset=utf-8", "<!doctype html><title>start"),
        ("/index.html", "text/html; charset=utf-8", "<!doctype html><title>start"),
        ("/?from=mail", "text/html; charset=utf-8", "<!doctype html><title>start"),
        ("/app.js", "text/javascript; charset=utf-8", "'use strict'"),
        ("/app.js?v=3", "text/javascript; charset=utf-8", "'use strict'"),
        ("/picture.svg", "image/svg+xml", "<svg/>"),
        ("/unknown.xyzzy", "application/octet-stream", "?"),
        ("/gr%C3%BC%C3%9Fe%20dich.txt", "text/plain; charset=utf-8", "hello"),
        ("/sub/", "text/html; charset=utf-8", "<!doctype html><title>sub"),
        ("/link-inside/page.html", "text/html; charset=utf-8", "<!doctype html><title>page"),
        ("/link-inside.html", "text/html; charset=utf-8", "<!doctype html><title>page"),
    ] {
        let answer = site.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert!(answer.body.starts_with(begins.as_bytes()), "{path}: {:?}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
    }
    let folder = site.get("/sub?x=1");
    assert_eq!((folder.status, folder.header("location")), (307, Some("/sub/?x=1")));

    // Routes take precedence over files, so this path still expects a WebSocket.
    assert_eq!(site.get("/style.css").status, 426);
    let mut socket = Client::upgrade(site.address(), "/ws", "").await;
    assert_eq!(socket.ask("hello").await, "hello");
    let refused = site.node.metric("longwire_connections_refused_total", "handshake_refused");
    assert_eq!(site.get("/no-such-file").status, 404);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(site.ask("GET", "/chat", upgrade).status, 404);
    let since = site.node.metric("longwire_connections_refused_total", "handshake_refused") - refused;
    assert_eq!(since, 1.0, "a handshake on a wrong path counts as refused, a file that is not there does not");
}

#[test]
fn a_browser_that_has_a_file_asks_whether_it_is_still_the_same() {
    let site = Site::start();
    let first = site.get("/app.js");
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let etag = first.header("etag").expect("an entity tag");
    let modified = first.header("last-modified").expect("a time");
    for condition in [format!("If-None-Match: {etag}\r\n"), format!("If-Modified-Since: {modified}\r\n")] {
        let again = site.ask("GET", "/app.js", &condition);
        assert_eq!((again.status, again.body.len()), (304, 0), "{condition}");
    }
    fs::write(site.inside().join("app.js"), "changed();").expect("the directory is ours");
    let again = site.ask("GET", "/app.js", &format!("If-None-Match: {etag}\r\n"));
    assert_eq!((again.status, &again.body[..]), (200, &b"changed();"[..]));

    let head = site.ask("HEAD", "/app.js", "");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    let post = site.ask("POST", "/app.js", "Content-Length: 0\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn ranges_are_parts_of_the_file() {
    let site = Site::start();
    fs::write(site.inside().join("digits.txt"), "0123456789").expect("the directory is ours");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=0-99", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=20-30", 416, Some("bytes */10"), ""),
        ("bytes=0-1,4-5", 200, None, "0123456789"),
    ] {
        let answer = site.ask("GET", "/digits.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range), "{range}");
        assert_eq!(answer.body, body.as_bytes(), "{range}");
    }
    let old = site.ask("GET", "/digits.txt", "Range: bytes=2-4\r\nIf-Range: \"of an older file\"\r\n");
    assert_eq!((old.status, &old.body[..]), (200, &b"0123456789"[..]));
}

#[test]
fn what_is_kept_back_looks_like_what_is_not_there() {
    let site = Site::start();
    let nothing = site.get("/no-such-file");
    assert_eq!(nothing.status, 404);
    for path in [
        // PHP files, in any spelling.
        "/handler.php",
        "/UPPER.PHP",
        "/old.php5",
        "/template.phtml",
        "/library.phar",
        "/config.inc",
        "/handler.php~",
        "/handler.php.bak",
        "/handler.php/",
        "/handler.ph%70",
        "/handler%2Ephp",
        "/handler.php%20",
        "/handler.php/x",
        // Configurations.
        "/longwire.toml",
        "/longwire%2etoml",
        "/Cluster.TOML.old",
        // Files that begin with a dot.
        "/.env",
        "/%2eenv",
        "/%2Eenv",
        "/.git/config",
        "/.git/",
        "/sub/.htpasswd",
        "/sub/%2ehtpasswd",
        "/.",
        "/./app.js",
        // Out of the folder.
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/sub/../../secret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/....//secret.txt",
        "//secret.txt",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/%252e%252e/secret.txt",
        "/..;/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%uff0e%uff0e/secret.txt",
        "/../public-not/secret.txt",
        // Symbolic links.
        "/link-out.txt",
        "/link-out/secret.txt",
        "/link-out/",
        "/link-beside/secret.txt",
        "/link-hidden.txt",
        "/link-php.txt",
        "/link-loop",
        "/link-device",
        // Backslashes, invalid paths, and folders without a page.
        "/a\\b.txt",
        "/a%5cb.txt",
        "/app.js/",
        "/app.js/x",
        "/sub//page.html",
        "/bare/",
        "/bare/file.txt/",
        "/app.js%00",
        "/app.js%00.txt",
        "/%00",
        "/%",
        "/%zz",
        "/app%2",
        "/%ff",
        "/app.js%0d%0aX:%20y",
    ] {
        let answer = site.get(path);
        // hyper itself refuses some of these.
        assert!(answer.status == 404 || answer.status == 400, "{path}: {}", answer.head);
        assert!(!answer.body.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()), "{path}");
        if answer.status == 404 {
            assert_eq!(answer.body, nothing.body, "{path}");
        }
    }
    let long = site.get(&format!("/{}", "x".repeat(3000)));
    assert_eq!((long.status, &long.body), (404, &nothing.body));
}

#[test]
fn a_pipe_and_a_folder_that_moved_do_not_hold_anybody() {
    let site = Site::start();
    let pipe = std::ffi::CString::new(site.inside().join("pipe").to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: the path is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o644) }, 0);
    assert_eq!(site.get("/pipe").status, 404);
    assert_eq!(site.ask("HEAD", "/pipe", "").status, 404);
    fs::rename(site.inside(), site.dir.path().join("elsewhere")).expect("the directory is ours");
    assert_eq!(site.get("/app.js").status, 404);
}

#[test]
fn a_large_file_streams_while_others_are_served_and_a_reader_who_stops_does_not_stop_the_node() {
    const BYTES: usize = 64 << 20;
    let mut site = Site::start();
    let line = b"all work and no play\n";
    let content: Vec<u8> = line.iter().copied().cycle().take(BYTES).collect();
    fs::write(site.inside().join("large.bin"), &content).expect("the directory is ours");
    let before = site.node.memory();

    // These answers are not read for now.
    let request = format!("GET /large.bin HTTP/1.1\r\nHost: {}\r\n\r\n", site.address());
    let stopped: Vec<_> = (0..8).map(|_| site.send(&request)).collect();
    let answer = site.get("/large.bin");
    assert_eq!(answer.status, 200);
    assert!(answer.body == content, "{} of {BYTES} bytes, or others", answer.body.len());
    assert_eq!(site.get("/app.js").status, 200);
    let grown = site.node.memory().saturating_sub(before);
    assert!(grown < BYTES / 2, "{grown} bytes more for 9 readers of a file of {BYTES}");

    // The node still stops long before drain_timeout, and does not count a file as a lost session.
    let start = std::time::Instant::now();
    site.node.terminate();
    assert!(site.node.wait().success(), "a file that is not read must not count as a session that was given up");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(stopped);
}

#[test]
fn a_static_folder_that_is_not_there_is_refused_at_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("echo.php"), ECHO).expect("the directory is ours");
    let config = dir.path().join("longwire.toml");
    let text = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/ws\" = \"app\" }\n\
                static = \"public\"\n[apps.app]\nupstream = \"php\"\nscript = \"echo.php\"\n[upstreams.php]\nspawn = {}\n";
    fs::write(&config, text).expect("the directory is ours");
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_longwire"));
        command.args(["check", "--config"]).arg(&config).output().expect("the binary was built for this test")
    };
    let refused = check();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("static") && said.contains("public"), "{said}");
    fs::create_dir(dir.path().join("public")).expect("the directory is ours");
    wait_until("the configuration is sound", || check().status.success());
}
