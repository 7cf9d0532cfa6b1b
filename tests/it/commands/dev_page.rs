//! The page of `longwire dev` in a real browser.
//!
//! `LONGWIRE_SCREENSHOTS=DIR` saves screenshots there, to look at after a change.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use longwire::proto::framing::{Framing, LengthFraming};

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::dev::Dev;
use crate::support::longwire::http_get;
use crate::support::php_fpm::eventually;

const ENTER: &str = "\u{E007}";
const ARROW_UP: &str = "\u{E013}";

/// A handler that chooses a sub-protocol, greets, and closes at the first message.
const REFUSES_TO_STAY: &str = "<?php
if ($_SERVER['LONGWIRE_EVENT'] === 'connect') {
    header('Sec-WebSocket-Protocol: json');
    echo 'welcome';
} else {
    header('Longwire-Close: 4001 that will do');
    echo 'bye';
}
";

async fn keep_picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("LONGWIRE_SCREENSHOTS") {
        let path = Path::new(&folder).join(name);
        std::fs::write(&path, browser.screenshot().await).expect("the folder can be written to");
    }
}

/// The texts of the shown frames in one direction.
async fn frames(browser: &Browser, way: &str) -> Vec<String> {
    let script =
        format!("return [...document.querySelectorAll('#frames li.{way} .body')].map((body) => body.innerText)");
    serde_json::from_value(browser.run(&script).await).expect("a list of texts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_connects_sends_text_and_bytes_and_sees_the_replies() {
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/echo/handler.php");
    let dev = Dev::start(&echo, &[]);
    let browser = Browser::start((1100, 760), false).await;
    browser.open(&dev.page()).await;
    keep_picture(&browser, "start.png").await;
    browser.click("#connect").await;
    browser.wait_for("document.querySelector('#state').textContent == 'connected'").await;

    browser.type_text("#text", &format!("Grüße aus der Küche{ENTER}")).await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 1").await;
    browser.run("document.querySelector('#kind').value = 'hex'").await;
    browser.type_text("#text", "00 ff 0a 48 65 6c 6c 6f").await;
    browser.click("#send").await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 2").await;
    browser.click("#send").await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 3").await;

    let expected = ["Grüße aus der Küche", "0000  00 ff 0a 48 65 6c 6c 6f  ...Hello", "empty frame"];
    assert_eq!(frames(&browser, "out").await, expected);
    assert_eq!(frames(&browser, "in").await, expected);
    let timing = browser.text("#frames li.in .meta").await;
    assert!(timing.contains(" ms · text · 22 B · "), "{timing}");
    assert_eq!(browser.text("#counts").await, "3 sent, 3 received");

    browser.type_text("#text", "0g").await;
    browser.click("#send").await;
    assert!(browser.text("#problem").await.starts_with("Hex bytes are pairs"));
    browser.run("document.querySelector('#kind').value = 'text'; document.querySelector('#text').value = ''").await;
    browser.type_text("#text", &format!("{ARROW_UP}{ARROW_UP}")).await;
    assert_eq!(browser.run("return document.querySelector('#text').value").await, "Grüße aus der Küche");
    browser.type_text("#text", ENTER).await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 4").await;
    keep_picture(&browser, "frames.png").await;
    browser.click("#hex").await;
    assert!(frames(&browser, "in").await[0].contains("47 72 c3 bc c3 9f 65"), "hex of the text");

    browser.click("#disconnect").await;
    browser.wait_for("document.querySelector('#state').textContent == 'closed'").await;
    assert_eq!(browser.text("#detail").await, "code 1000");
    assert_eq!(browser.complaints().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_sub_protocol_close_code_and_reason_and_may_reconnect() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("handler.php");
    std::fs::write(&script, REFUSES_TO_STAY).expect("the folder is ours");
    let dev = Dev::start(&script, &["--events", "connect"]);
    let browser = Browser::start((1100, 760), true).await;
    browser.pretend_screen(390, 780).await;
    browser.open(&dev.page()).await;
    browser.type_text("#protocols", "chat, json").await;
    browser.click("#connect").await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 1").await;
    assert!(browser.text("#detail").await.ends_with("sub-protocol json"));

    browser.click("#again").await;
    browser.type_text("#text", &format!("enough{ENTER}")).await;
    // The page reconnects by itself and is greeted again.
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 3").await;
    assert_eq!(frames(&browser, "in").await, ["welcome", "bye", "welcome"]);
    let notes = frames(&browser, "note").await;
    assert_eq!(notes[1], "closed, code 4001: that will do");
    keep_picture(&browser, "phone.png").await;
    browser.click("#hex").await;
    keep_picture(&browser, "phone-hex.png").await;

    let overflow = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(&format!("return {overflow}")).await, false, "the page is wider than a phone");
}

/// A handler that joins a channel, or fails in one of several ways.
const FAILS: &str = "<?php
function deep() { undefined_fn(); }
switch (file_get_contents('php://input')) {
    case 'join': header('Longwire-Join: kitchen'); break;
    case 'fatal': deep();
    case 'warn': error_log('mind the gap'); break;
    case 'header': header('Longwire-Nonsense: 1'); break;
    case 'slip': header('Longwire-Jion: kitchen'); break;
    case 'mark': echo hex2bin('efbbbf'); break;
    case 'json': header('Content-Type: application/json'); echo json_encode(hex2bin('c4e3')); exit;
}
echo 'done';
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_on_the_page_and_once_on_the_terminal() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("handler.php");
    std::fs::write(&script, FAILS).expect("the folder is ours");
    let dev = Dev::start(&script, &[]);
    let browser = Browser::start((1100, 760), true).await;
    browser.open(&dev.page()).await;
    browser.click("#connect").await;
    browser.wait_for("document.querySelector('#state').textContent == 'connected'").await;
    for (number, text) in ["fatal", "warn", "header", "slip", "mark", "json"].iter().enumerate() {
        browser.type_text("#text", &format!("{text}{ENTER}")).await;
        browser.wait_for(&format!("document.querySelectorAll('#frames li.out').length == {}", number + 1)).await;
    }
    for said in [
        "undefined function undefined_fn()",
        "#1 {main}",
        "event failed: handler answered 500 (message #0)",
        "mind the gap",
        "Longwire-Nonsense",
        "did you mean Longwire-Join?",
        "byte order mark",
        "json_encode() returns false",
    ] {
        let there =
            format!("[...document.querySelectorAll('#frames li.bad')].some((li) => li.innerText.includes({said:?}))");
        browser.wait_for(&there).await;
    }
    keep_picture(&browser, "problems.png").await;
    let shown = frames(&browser, "bad").await;
    let mut once = shown.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), shown.len(), "each line must be shown once: {shown:?}");
    // The page shows the whole stack trace by now, so the terminal does too.
    let printed = dev.printed();
    for line in ["Stack trace:", "#1 {main}", "thrown in", "mind the gap"] {
        assert_eq!(printed.matches(line).count(), 1, "{line} in\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_on_the_terminal_with_what_became_of_it() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("handler.php");
    std::fs::write(&script, FAILS).expect("the folder is ours");
    let dev = Dev::start(&script, &[]);
    let mut client = Client::upgrade(dev.http(), "/ws", "").await;
    assert_eq!(client.ask("join").await, "done");
    let api = dev.greeted("API").expect("the greeting says where the API is");
    for (to, expected) in [
        ("channel:kitchen", "send     to channel:kitchen by api, 6 bytes  1 reached"),
        ("uid:nobody", "send     to uid:nobody by api, 6 bytes  0 reached"),
    ] {
        let sent = Command::new("curl")
            .args(["--silent", "--max-time", "20", "--data-binary", "dinner", "-H", "Content-Type: text/plain"])
            .arg(format!("{api}v1/send?to={to}"))
            .output()
            .expect("curl is installed");
        assert!(sent.status.success(), "{sent:?}");
        eventually("the push is on the terminal", || dev.printed().contains(expected)).await;
    }
    assert_eq!(&client.frame().await.body[..], b"dinner");
    assert!(dev.printed().contains("join     to session:"), "{}", dev.printed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_thousand_sessions_are_served_and_a_closed_terminal_ends_it() {
    const SESSIONS: usize = 1100;
    longwire::descriptors::allow(4096).expect("the limit can be raised");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("handler.php");
    std::fs::write(&script, FAILS).expect("the folder is ours");
    let mut dev = Dev::start(&script, &[]);
    let tcp = dev.greeted("TCP").expect("the greeting says where TCP clients connect");
    let address: std::net::SocketAddr =
        tcp.split(' ').next().and_then(|tcp| tcp.parse().ok()).expect("an address comes first");
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(Client::connect(address, Framing::Length(LengthFraming::default())).await);
    }
    for client in clients.iter_mut().rev().take(3) {
        assert_eq!(client.ask("hello").await, "done");
    }
    drop(clients);
    assert_eq!(dev.ends_after(libc::SIGHUP).code(), Some(0), "its terminal was closed");
}

/// A handler that prints its event and the router's address.
const TELLS: &str = "<?php echo $_SERVER['LONGWIRE_EVENT'], ' ', $_SERVER['LONGWIRE_ROUTER'];";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_its_handler_and_what_a_browser_loads() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("the folder is ours");
    put("handler.php", TELLS);
    put("style.css", "body { color: teal }");
    // Files beside a handler that must not be served to browsers.
    for kept_back in ["longwire.toml", "longwire.toml~", "LONGWIRE.TOML", "cluster.toml.bak", ".env"] {
        put(kept_back, "secret = \"hunter2\"");
    }
    let bare = Dev::start(folder.path(), &[]);
    let (status, page) = http_get(bare.http(), "/");
    assert!(status == 200 && page.contains("Longwire"), "a folder without a page must show the built-in one");
    assert_eq!(bare.greeted("try it"), None);
    drop(bare);

    put("index.html", "<!doctype html><title>my page</title>");
    let dev = Dev::start(folder.path(), &[]);
    assert_eq!(http_get(dev.http(), "/"), (200, "<!doctype html><title>my page</title>".to_owned()));
    assert_eq!(http_get(dev.http(), "/style.css"), (200, "body { color: teal }".to_owned()));
    for kept_back in ["handler.php", "longwire.toml", "longwire.toml~", "LONGWIRE.TOML", "cluster.toml.bak", ".env"] {
        assert_eq!(http_get(dev.http(), &format!("/{kept_back}")).0, 404, "{kept_back}");
    }
    let built_in = dev.greeted("try it").expect("the greeting says where the built-in page is");
    assert_eq!(built_in, format!("http://{}/_longwire", dev.http()));
    assert!(http_get(dev.http(), "/_longwire").1.contains("<title>"), "{built_in}");

    // A folder's handler gets connect, message and close events, and the router's address.
    let router = dev.greeted("router").expect("the greeting says where the router is");
    let address = router.split(' ').next().expect("an address comes first");
    std::net::TcpStream::connect(address).expect("the router listens there");
    let mut client = Client::upgrade(dev.http(), "/ws", "").await;
    assert_eq!(client.frame().await.body, format!("connect {address}"));
    assert_eq!(client.ask("hello").await, format!("message {address}"));

    let quiet = Dev::start(folder.path(), &["--events", "message", "--router", "off", "--api", "off"]);
    let mut client = Client::upgrade(quiet.http(), "/ws", "").await;
    assert_eq!(client.ask("hello").await, "message ");
    assert_eq!((quiet.greeted("router"), quiet.greeted("API")), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_may_be_told_every_event_there_is() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let script = folder.path().join("handler.php");
    let joins = "<?php if ($_SERVER['LONGWIRE_EVENT'] === 'message') { header('Longwire-Join: hall'); echo 'in'; }";
    std::fs::write(&script, joins).expect("the folder is ours");
    let all = "connect,message,close,join,leave,occupied,vacated";
    let dev = Dev::start(&script, &["--events", all]);
    assert_eq!(dev.greeted("events"), None, "no hint, because the script gets connect and close events");
    let mut client = Client::upgrade(dev.http(), "/ws", "").await;
    assert_eq!(client.ask("?").await, "in");
    client.close(1000).await;
    for event in all.split(',') {
        eventually(&format!("{event} is on the terminal"), || dev.printed().contains(&format!("  {event} "))).await;
    }
    let some = Dev::start(&script, &["--events", "join"]);
    let told = some.greeted("events").expect("a hint about connect and close events");
    assert_eq!(told, "message, join; add connect and close with --events connect,close");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_options_that_help() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/echo/handler.php");
    let run = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_longwire"))
            .args(["dev", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--api", "127.0.0.1:0"])
            .args(options)
            .output()
            .expect("the binary was built for this test");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = run(&["--router", &address, &echo.to_string_lossy()]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {address}")) && said.contains("--router"), "{said}");
    let (status, said) = run(&["--router", "127.0.0.1:0", env!("CARGO_MANIFEST_DIR")]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("has no handler.php"), "{said}");
}

#[test]
fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let page = include_str!("../../../src/commands/dev/page.html");
    assert!(page.len() < 25_000, "{} bytes", page.len());
    for reference in ["src=", "@import", "url(", "<link rel=\"stylesheet\"", "fetch("] {
        assert!(!page.contains(reference), "{reference} loads something");
    }
}
