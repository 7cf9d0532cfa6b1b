//! The HTTP API: the router's commands as JSON and as raw bodies, access to it, and the errors for bad requests.

use std::path::Path;

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::client::Client;
use crate::support::http::{Answer, request, request_with};
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

const TOKEN: &str = "0123456789-a-token-of-a-shop";

fn node(fpm: &PhpFpm, api: &str) -> Longwire {
    let more = format!("{LISTENERS}[api]\nbind = \"127.0.0.1:0\"\n{api}\n");
    Longwire::with(fpm, &fpm.script("handler.php", "echo $_SERVER['SESSIONID'];"), "", "", &more)
}

async fn tcp(node: &Longwire) -> (Client, String) {
    let mut client = Client::connect(node.address("length"), Framing::Length(LengthFraming::default())).await;
    let sid = client.ask("?").await;
    (client, sid)
}

async fn websocket(node: &Longwire) -> (Client, String) {
    let mut client = Client::upgrade(node.address("web"), "/ws", "").await;
    let sid = client.ask("?").await;
    (client, sid)
}

async fn get(node: &Longwire, path: &str) -> Answer {
    request(node.address("api"), "GET", path, b"").await.expect("it is answered")
}

/// Sends a command in JSON and returns three counts of its receipt: reached, refused, gone.
async fn post(node: &Longwire, verb: &str, body: Value) -> (u64, u64, u64) {
    let path = format!("/v1/{verb}");
    let answer =
        request(node.address("api"), "POST", &path, body.to_string().as_bytes()).await.expect("it is answered");
    assert_eq!(answer.status, 200, "{verb} {body}: {}", answer.text());
    let receipt = answer.json();
    let count = |name: &str| receipt[name].as_u64().expect("a count");
    (count("reached"), count("refused"), count("gone"))
}

/// Checks that an answer is an error with this status and word.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, word: &str, detail: &str) {
    let problem = answer.json();
    assert_eq!((answer.status, problem["error"].as_str()), (status, Some(word)), "{problem}");
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().expect("a text").contains(detail), "{problem}");
    let head = answer.head.to_lowercase();
    assert!(head.contains("content-type: application/problem+json"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_and_every_query() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut one, first) = tcp(&node).await;
    let (mut two, second) = websocket(&node).await;
    let both = json!([first, second]);
    let of_first = format!("session:{first}");

    assert_eq!(post(&node, "bind", json!({"to": both, "uid": "42"})).await, (2, 0, 0));
    assert_eq!(post(&node, "join", json!({"to": both, "channel": "räume/1"})).await, (2, 0, 0));
    assert_eq!(post(&node, "join", json!({"to": of_first, "channel": "hall"})).await, (1, 0, 0));
    let set = |value: &str, expect: Value| json!({"to": of_first, "key": "role", "value": value, "expect": expect});
    assert_eq!(post(&node, "set", set("guest", Value::Null)).await, (1, 0, 0));
    assert_eq!(post(&node, "set", set("admin", Value::Null)).await, (0, 1, 0));
    assert_eq!(post(&node, "set", set("admin", json!("guest"))).await, (1, 0, 0));

    let session = get(&node, &format!("/v1/sessions/{first}")).await.json();
    assert_eq!((&session["uid"], &session["attributes"]["role"]), (&json!("42"), &json!("admin")));
    assert_eq!(session["channels"], json!(["räume/1", "hall"]));
    let attribute = get(&node, &format!("/v1/sessions/{first}/attributes/role")).await;
    assert_eq!((attribute.status, attribute.text().as_str()), (200, "admin"));
    let channel = get(&node, "/v1/channels/r%C3%A4ume%2F1").await.json();
    assert_eq!((&channel["channel"], &channel["count"]), (&json!("räume/1"), &json!(2)));
    assert_eq!(get(&node, "/v1/uids/42?limit=0").await.json(), json!({"uid": "42", "count": 2, "sessions": []}));
    let page = get(&node, "/v1/channels?limit=1").await.json();
    assert_eq!(page, json!({"count": 2, "channels": [{"channel": "hall", "count": 1}], "next": "hall"}));
    let page = get(&node, "/v1/channels?limit=1&after=hall").await.json();
    assert_eq!(page, json!({"count": 2, "channels": [{"channel": "räume/1", "count": 2}]}));
    assert_eq!(get(&node, "/v1/sessions").await.json()["count"], 2);
    assert_eq!(get(&node, "/v1/node").await.json()["version"], env!("CARGO_PKG_VERSION"));

    let to_rest = json!({"to": "uid:42", "except": ["channel:hall"], "message": "to the rest"});
    assert_eq!(post(&node, "send", to_rest).await, (1, 0, 0));
    assert_eq!(&two.frame().await.body[..], b"to the rest");
    let binary = json!({"to": "all", "message_base64": "AP8=", "kind": "binary"});
    assert_eq!(post(&node, "send", binary).await, (2, 0, 0));
    assert_eq!(&one.frame().await.body[..], b"\x00\xff");
    assert_eq!(two.frame().await.kind, FrameKind::Binary);

    assert_eq!(post(&node, "delete", json!({"to": "all", "key": "role"})).await, (2, 0, 0));
    assert_eq!(post(&node, "leave", json!({"to": both, "channel": "hall"})).await, (2, 0, 0));
    assert_eq!(post(&node, "unbind", json!({"to": "uid:42"})).await, (2, 0, 0));
    assert_eq!(
        post(&node, "send", json!({"to": "uid:42", "message": "x"})).await,
        (0, 0, 0),
        "a uid without sessions is not an error"
    );
    let close = json!({"to": both, "code": 4001, "reason": "late", "message": "bye"});
    assert_eq!(post(&node, "close", close).await, (2, 0, 0));
    assert_eq!((&one.frame().await.body[..], &two.frame().await.body[..]), (&b"bye"[..], &b"bye"[..]));
    assert_eq!((one.end().await, two.end().await), (None, Some(4001)));
    node.closed(2);
    assert_eq!(post(&node, "exists", json!({"to": both})).await, (0, 0, 2));
    assert_problem(&get(&node, &format!("/v1/sessions/{first}")).await, 404, "absent", "no such session");
    assert_eq!(node.metric("longwire_commands_total", "door=\"api\",command=\"send\""), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_bodies_are_the_message_and_the_query_string_says_the_rest() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "");
    let (mut client, sid) = websocket(&node).await;
    let raw = async |path: &str, kind: &str, body: &[u8]| {
        let headers = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        request_with(node.address("api"), "POST", path, &headers, body).await.expect("it is answered")
    };
    for (kind, body, expected) in [
        ("application/octet-stream", &b"\xff\x00"[..], FrameKind::Binary),
        ("text/plain; charset=utf-8", b"{\"not\": \"read\"}", FrameKind::Text),
        ("", b"", FrameKind::Text),
    ] {
        let answer = raw(&format!("/v1/send?to=session:{sid}"), kind, body).await;
        assert_eq!((answer.status, &answer.json()["reached"]), (200, &json!(1)));
        let frame = client.frame().await;
        assert_eq!((frame.kind, &frame.body[..]), (expected, body));
    }
    assert_eq!(raw("/v1/send?to=all&kind=binary", "text/plain", b"text").await.status, 200);
    assert_eq!(client.frame().await.kind, FrameKind::Binary);
    assert_eq!(raw(&format!("/v1/send?to={sid}&to={sid}"), "text/plain", b"once").await.json()["reached"], 1);
    assert_eq!(client.ask("?").await, "once");
    assert_eq!(&client.frame().await.body[..], sid.as_bytes());

    let set = raw("/v1/set?to=all&key=blob", "application/octet-stream", b"\x00\xfe").await;
    assert_eq!(set.json()["reached"], 1);
    assert_eq!(get(&node, &format!("/v1/sessions/{sid}/attributes/blob")).await.body, b"\x00\xfe");
    assert_eq!(raw("/v1/join?to=all&channel=%B7%BF+1", "", b"").await.json()["reached"], 1);
    assert_eq!(get(&node, "/v1/channels/%B7%BF%201").await.json()["count"], 1, "a name in GBK");

    let form = "application/x-www-form-urlencoded";
    assert_problem(&raw("/v1/send?to=all", form, b"{}").await, 415, "content_type", "form-urlencoded is not supported");
    assert_problem(
        &raw("/v1/join?to=all&channel=x", "text/plain", b"x").await,
        400,
        "bad_argument",
        "takes no raw body",
    );
    assert_problem(
        &raw("/v1/send?to=all&message=x", "", b"y").await,
        400,
        "bad_argument",
        "message: is the request body",
    );
    assert_problem(
        &raw("/v1/send?to=all", "application/json", b"{}").await,
        400,
        "bad_argument",
        "query string must be empty",
    );
    assert_problem(&raw("/v1/send?to=all&kind=text", "", b"\xff").await, 400, "bad_argument", "not UTF-8");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_named_and_nothing_is_done() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, "max_body_bytes = \"1 KiB\"");
    let (_client, sid) = tcp(&node).await;
    for (verb, body, detail) in [
        ("send", json!({"to": "all"}), "message: is missing"),
        ("send", json!({"message": "x"}), "to: is missing"),
        ("send", json!({"to": "everybody", "message": "x"}), "\"everybody\" is not a target"),
        (
            "send",
            json!({"to": "all", "message": "x", "message_base64": "eA=="}),
            "message and message_base64 are both given",
        ),
        ("send", json!({"to": "all", "message_base64": "eA==", "kind": "text"}), "is for binary messages"),
        ("send", json!({"to": "all", "message": "x", "chanel": "y"}), "\"chanel\": unknown argument"),
        ("send", json!({"to": "all", "message": "x", "kind": "blob"}), "kind: expected \"text\" or \"binary\""),
        ("join", json!({"to": "all", "channel": ""}), "channel: a name is empty"),
        ("join", json!({"to": "all", "channel": "a\nb"}), "control character"),
        ("bind", json!({"to": "all"}), "uid: is missing"),
        ("set", json!({"to": "all", "key": "a-b", "value": "x"}), "key: expected 1 to 64"),
        ("close", json!({"to": "all", "code": 1006}), "1006 is not a close code"),
        ("close", json!({"to": "all", "code": 70000}), "code: expected a whole number"),
        ("close", json!(["all"]), "expected an object"),
    ] {
        let path = format!("/v1/{verb}");
        let answer = request(node.address("api"), "POST", &path, body.to_string().as_bytes()).await.unwrap();
        assert_problem(&answer, 400, "bad_argument", detail);
    }
    let api = node.address("api");
    assert_problem(
        &request(api, "POST", "/v1/send", b"{\"to\":").await.unwrap(),
        400,
        "bad_argument",
        "not a valid JSON object",
    );
    assert_problem(&request(api, "POST", "/v1/send", &[b'x'; 2000]).await.unwrap(), 413, "too_long", "1024 bytes");
    assert_problem(&get(&node, "/v1/nothing").await, 404, "no_path", "openapi.json");
    assert_problem(&get(&node, "/v1/channels/x/y").await, 404, "no_path", "nothing here");
    assert_problem(&get(&node, "/v1/sessions/short").await, 404, "absent", "no session");
    assert_problem(
        &get(&node, &format!("/v1/sessions/{sid}/attributes/none")).await,
        404,
        "absent",
        "no such attribute",
    );
    assert_problem(&get(&node, "/v1/sessions?limit=1001").await, 400, "bad_argument", "from 0 to 1000");
    assert_problem(&get(&node, "/v1/node?x=1").await, 400, "bad_argument", "\"x\"");
    let wrong_method = get(&node, "/v1/send").await;
    assert_problem(&wrong_method, 405, "method", "takes only POST");
    assert!(wrong_method.head.to_lowercase().contains("allow: post"));
    assert_problem(&request(api, "DELETE", "/v1/node", b"").await.unwrap(), 405, "method", "GET");
    let refused = node.metric("longwire_commands_refused_total", "door=\"api\",cause=\"bad_argument\"");
    assert_eq!(refused, 17.0);
    assert_eq!(node.metric("longwire_commands_total", "door=\"api\",command=\"query\""), 1.0, "the attribute's");
    assert_eq!(get(&node, &format!("/v1/sessions/{sid}")).await.json()["channels"], json!([]), "nothing was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_programs_of_this_machine_are_answered_and_pages_of_others_are_not() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, "");
    let api = node.address("api");
    let with = async |headers: &str| request_with(api, "GET", "/v1/node", headers, b"").await.expect("it is answered");
    for host in ["localhost", "LOCALHOST:9012", "127.0.0.1:9012", "127.8.8.8", "[::1]:9012"] {
        assert_eq!(with(&format!("Host: {host}\r\n")).await.status, 200, "{host}");
    }
    for host in ["shop.example", "localhost.shop.example", "10.0.0.1", "127.0.0.1.nip.example:9012", ""] {
        assert_problem(&with(&format!("Host: {host}\r\n")).await, 403, "host", "not a name of this machine");
    }
    for headers in ["Host: localhost\r\nHost: shop.example\r\n", "Host: shop.example\r\nHost: localhost\r\n"] {
        assert_problem(&with(headers).await, 400, "host", "more than one Host header");
    }
    for origin in ["https://shop.example", "null", "http://localhost"] {
        let answer = with(&format!("Host: localhost\r\nOrigin: {origin}\r\n")).await;
        assert_problem(&answer, 403, "origin", "web pages may not ask here");
        assert!(!answer.head.to_lowercase().contains("access-control"), "a page may not read the answer either");
    }
    assert_eq!(node.metric("longwire_commands_refused_total", "door=\"api\",cause=\"host\""), 7.0);
    assert_eq!(node.metric("longwire_commands_refused_total", "door=\"api\",cause=\"origin\""), 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_whoever_has_it_is_answered_and_nobody_else() {
    let fpm = Pool::of(1).start();
    let node = node(&fpm, &format!("token = \"{TOKEN}\""));
    let api = node.address("api");
    for path in ["/v1/node", "/openapi.json", "/v1/nothing"] {
        for headers in [
            String::new(),
            format!("Authorization: {TOKEN}\r\n"),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: Bearer {TOKEN}x\r\n"),
            format!("Authorization: Basic {TOKEN}\r\n"),
        ] {
            let answer = request_with(api, "GET", path, &headers, b"").await.expect("it is answered");
            assert_problem(&answer, 401, "unauthenticated", "");
            assert!(answer.head.to_lowercase().contains("www-authenticate: bearer"), "{}", answer.head);
        }
    }
    let headers = format!("Host: shop.example\r\nauthorization: bearer {TOKEN}\r\n");
    let answer = request_with(api, "GET", "/v1/node", &headers, b"").await.expect("it is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(node.metric("longwire_commands_refused_total", "door=\"api\",cause=\"unauthenticated\""), 15.0);
    assert_eq!(node.log_lines(|line| line.to_string().contains(TOKEN)).len(), 0, "the token must not be in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_and_a_unix_socket_is_as_good() {
    let fpm = Pool::of(1).start();
    let path = fpm.dir().join("api.sock");
    let node = {
        let more = format!("{LISTENERS}[api]\nbind = \"unix:{}\"\n", path.display());
        Longwire::with(&fpm, &fpm.script("handler.php", "echo 'x';"), "", "", &more)
    };
    node.wait_for_log("the API listens", |line| line["message"] == "listening" && line["listener"] == "api");
    let mut socket = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    for _ in 0..3 {
        socket.write_all(b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
        let expected = br#"{"count":0,"sessions":[]}"#;
        let mut answer = Vec::new();
        while !answer.ends_with(expected) {
            assert!(socket.read_buf(&mut answer).await.expect("it answers") > 0, "it ended");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
    drop(socket);
    eventually("three queries are counted", || node.metric("longwire_commands_total", "door=\"api\"") == 3.0).await;
}

#[test]
fn the_description_is_of_this_version_and_names_every_path() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/openapi.json");
    let description: Value = serde_json::from_slice(&std::fs::read(file).expect("it is there")).expect("it is JSON");
    assert_eq!(description["openapi"], "3.1.0");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(description["paths"].as_object().expect("paths").len(), 9 + 7);
}
