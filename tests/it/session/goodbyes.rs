//! How a client's end is reported: PHP, the log and the metric must distinguish a logout from a lost connection.

use longwire::proto::framing::{Framing, LengthFraming, client as frames};

use crate::support::client::Client;
use crate::support::event_stream::Http;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{Pool, eventually};

const HANDLER: &str = r#"
if ($_SERVER['LONGWIRE_EVENT'] === 'close') {
    $line = "$_SERVER[SESSIONID] $_SERVER[LONGWIRE_CLOSE_REASON] $_SERVER[LONGWIRE_CLOSE_CODE]\n";
    file_put_contents(__DIR__ . '/ends', $line, FILE_APPEND | LOCK_EX);
    exit;
}
echo $_SERVER['SESSIONID'];
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_the_log_and_the_metric_tell_a_goodbye_from_a_line_that_was_lost() {
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", HANDLER);
    let node = Longwire::with(&fpm, &script, "events = [\"close\"]", "", LISTENERS);
    let (web, length) = (node.address("web"), node.address("length"));
    let ends = async |sid: &str, reason: &str, code: u16| {
        let line = format!("{sid} {reason} {code}");
        let read = || std::fs::read_to_string(fpm.dir().join("ends")).unwrap_or_default();
        eventually(&format!("PHP is told {line:?}"), || read().lines().any(|found| found == line)).await;
        let logged = node
            .wait_for_log("the session closes", |line| line["message"] == "session closed" && line["session"] == sid);
        assert_eq!((logged["reason"].as_str(), logged["code"].as_u64()), (Some(reason), Some(code.into())));
    };
    let websocket = async || {
        let mut client = Client::upgrade(web, "/ws", "").await;
        let sid = client.ask("?").await;
        (client, sid)
    };

    let (mut client, sid) = websocket().await;
    client.close(1001).await;
    drop(client);
    ends(&sid, "client_closed", 1001).await;
    let (mut client, sid) = websocket().await;
    client.bytes(&frames::close(None, "", [7; 4])).await;
    drop(client);
    ends(&sid, "client_closed", 1005).await;
    let (mut client, sid) = websocket().await;
    client.finish().await;
    assert_eq!(client.end().await, None, "1006 is never on the wire");
    drop(client);
    ends(&sid, "no_goodbye", 1006).await;
    // Whole frames that came before the end are still answered.
    let (mut client, sid) = websocket().await;
    client.text("last words").await;
    client.finish().await;
    assert_eq!(&client.frame().await.body[..], sid.as_bytes());
    drop(client);
    ends(&sid, "no_goodbye", 1006).await;
    let (mut client, sid) = websocket().await;
    client.bytes(&[0x81]).await;
    client.finish().await;
    drop(client);
    ends(&sid, "frame_truncated", 1006).await;

    let stream = Http::one(web).await.stream("/ws", &[]).await;
    let sid = sid_of(&stream.address);
    drop(stream);
    ends(&sid, "no_goodbye", 1006).await;
    let stream = Http::one(web).await.stream("/ws", &[]).await;
    let mut other = Http::one(web).await;
    let sid = sid_of(&stream.address);
    assert_eq!(other.ask("DELETE", &stream.address, &[], b"").await.status.as_u16(), 204);
    drop(stream);
    ends(&sid, "client_closed", 1000).await;

    let mut client = Client::connect(length, Framing::Length(LengthFraming::default())).await;
    let sid = client.ask("?").await;
    client.finish().await;
    ends(&sid, "client_closed", 1000).await;
    let count = |reason: &str| node.metric("longwire_sessions_closed_total", &format!("reason=\"{reason}\""));
    assert_eq!((count("client_closed"), count("no_goodbye")), (4.0, 3.0));
}

fn sid_of(address: &str) -> String {
    address.split_once("longwire=").unwrap().1[..16].to_owned()
}
