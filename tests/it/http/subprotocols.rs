//! Sub-protocols from the configuration, chosen without asking PHP. A browser closes a WebSocket if the answer has none of the
//! sub-protocols that it offered.

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool};

const HANDLER: &str = r#"
if ($_SERVER['LONGWIRE_EVENT'] === 'connect') {
    if (isset($_GET['choose'])) { header("Sec-WebSocket-Protocol: $_GET[choose]"); }
    exit;
}
echo 'answer';
"#;

fn stage(events: &str) -> (PhpFpm, Longwire) {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", HANDLER);
    let app = format!("subprotocols = [\"mqtt\", \"mqttv3.1\"]\nevents = [{events}]");
    let node = Longwire::with(&fpm, &script, &app, "", LISTENERS);
    (fpm, node)
}

/// The sub-protocol that the 101 has.
async fn chosen(node: &Longwire, path: &str, offered: &str) -> Option<String> {
    let headers = if offered.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {offered}\r\n") };
    let (_, head) = Client::try_upgrade(node.address("web"), path, &headers).await.unwrap();
    let line = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("sec-websocket-protocol:").map(str::to_owned));
    line.map(|value| value.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_of_the_apps_that_the_client_offers_is_answered_unless_the_handler_chooses() {
    let (_fpm, node) = stage("");
    for (offered, expected) in [
        ("mqtt", Some("mqtt")),
        ("other, mqttv3.1", Some("mqttv3.1")),
        ("mqttv3.1,mqtt", Some("mqtt")),
        ("other\r\nSec-WebSocket-Protocol: mqtt", Some("mqtt")),
        ("MQTT", None),
        ("other", None),
        ("", None),
    ] {
        assert_eq!(chosen(&node, "/ws", offered).await.as_deref(), expected, "{offered:?}");
    }
    let (_fpm, node) = stage("\"connect\"");
    for (path, expected) in [("/ws", Some("mqtt")), ("/ws?choose=other", Some("other")), ("/ws?choose=unknown", None)] {
        assert_eq!(chosen(&node, path, "other, mqtt").await.as_deref(), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_offers_one_stays() {
    let (_fpm, node) = stage("");
    let web = node.address("web");
    let browser = Browser::start((800, 600), false).await;
    browser.open(&format!("http://{web}/")).await;
    let script = format!(
        "window.got = []; window.ws = new WebSocket('ws://{web}/ws', ['other', 'mqtt']);
         ws.onmessage = (event) => got.push(event.data); ws.onclose = (event) => got.push('closed ' + event.code);
         ws.onopen = () => ws.send('hello');"
    );
    browser.run(&script).await;
    browser.wait_for("got.length > 0").await;
    assert_eq!(browser.run("return [ws.protocol, ...got]").await, json!(["mqtt", "answer"]));
}
