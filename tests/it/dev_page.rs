//! The dev page in a real browser, in front of a real php-fpm.
//!
//! `LONGWIRE_SCREENSHOTS=DIR` keeps pictures of it, for a look after a change.

use bytes::Bytes;
use longwire::http::Page;
use longwire::node::{Extras, Running};

use crate::support::browser::Browser;
use crate::support::node;
use crate::support::php_fpm::{PhpFpm, Pool};

const ENTER: &str = "\u{E007}";
const ARROW_UP: &str = "\u{E013}";

/// A node with the page at `/`, as `longwire dev` has it.
async fn start(code: &str, events: &str) -> (Running, PhpFpm, String) {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", code);
    let config = format!(
        r#"
        admin.bind = "off"
        listeners.web = {{ bind = "127.0.0.1:0", protocol = "http", routes = {{ "/ws" = "app" }} }}
        apps.app = {{ upstream = "php", script = "{}", events = [{events}] }}
        upstreams.php = {{ backends = ["{}"] }}
        "#,
        script.display(),
        fpm.address(),
    );
    let body = Bytes::from_static(include_bytes!("../../src/dev/page.html"));
    let page = Page { path: "/", content_type: "text/html; charset=utf-8", body };
    let node = node::start(&config, &Extras { pages: vec![page] }).await;
    let url = format!("http://{}/", node::address(&node, "web"));
    (node, fpm, url)
}

const ECHO: &str =
    "$frame = file_get_contents('php://input'); header('Content-Length: ' . strlen($frame)); echo $frame;";

async fn keep_picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("LONGWIRE_SCREENSHOTS") {
        let path = std::path::Path::new(&folder).join(name);
        std::fs::write(&path, browser.screenshot().await).expect("the folder can be written to");
    }
}

/// The texts of the frames that went one way.
async fn frames(browser: &Browser, way: &str) -> Vec<String> {
    let script =
        format!("return [...document.querySelectorAll('#frames li.{way} .body')].map((body) => body.innerText)");
    serde_json::from_value(browser.run(&script).await).expect("a list of texts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_connects_sends_text_and_bytes_and_sees_the_replies() {
    let (_node, _fpm, url) = start(ECHO, "").await;
    let browser = Browser::start((1100, 760), false).await;
    browser.open(&url).await;
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
    let code =
        "if ($_SERVER['LONGWIRE_EVENT'] === 'connect') { header('Sec-WebSocket-Protocol: json'); echo 'welcome'; }
         else { header('Longwire-Close: 4001 that will do'); echo 'bye'; }";
    let (_node, _fpm, url) = start(code, r#""connect""#).await;
    let browser = Browser::start((1100, 760), true).await;
    browser.pretend_screen(390, 780).await;
    browser.open(&url).await;
    browser.type_text("#protocols", "chat, json").await;
    browser.click("#connect").await;
    browser.wait_for("document.querySelectorAll('#frames li.in').length == 1").await;
    assert!(browser.text("#detail").await.ends_with("sub-protocol json"));

    browser.click("#again").await;
    browser.type_text("#text", &format!("enough{ENTER}")).await;
    // It comes back by itself, and is welcomed again.
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

#[test]
fn the_page_is_small_and_loads_nothing_from_elsewhere() {
    let page = include_str!("../../src/dev/page.html");
    assert!(page.len() < 25_000, "{} bytes", page.len());
    for reference in ["src=", "@import", "url(", "<link rel=\"stylesheet\"", "fetch("] {
        assert!(!page.contains(reference), "{reference} loads something");
    }
}
