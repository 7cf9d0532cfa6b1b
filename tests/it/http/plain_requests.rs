//! Apps with `plain_requests`: one port serves pages and WebSockets.

use std::time::Duration;

use ::http::StatusCode;
use longwire::proto::framing::FrameKind;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::Client;
use crate::support::event_stream::Http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

const HANDLER: &str = r#"
if (($_SERVER['LONGWIRE_EVENT'] ?? '') !== 'request') { echo 'session ', $_SERVER['LONGWIRE_EVENT']; exit; }
$body = file_get_contents('php://input');
switch ($_GET['do'] ?? '') {
    case 'moved': header('Location: /app/elsewhere'); exit;
    case 'broken': http_response_code(500); echo 'an error page'; exit;
    case 'crash': posix_kill(getmypid(), 9); exit;
    case 'log': error_log('from a page'); exit('logged');
    case 'short': header('Content-Length: 1000'); echo 'too little'; exit;
    case 'tell': header('Longwire-To: all'); echo 'from a page'; exit;
    case 'stream': for ($i = 0; $i < 4; $i++) { echo "row $i\n"; ob_flush(); flush();
        while (!file_exists(__DIR__ . "/go-{$_GET['tag']}-$i")) { usleep(2000); } } exit;
    case 'endless': while (true) { echo str_repeat('x', 65536); ob_flush(); flush(); }
    case 'length': header('Content-Length: 5'); echo '12345'; exit;
}
header('Content-Type: application/json');
setcookie('theme', 'dark');
echo json_encode(['server' => $_SERVER, 'get' => $_GET, 'post' => $_POST, 'cookie' => $_COOKIE, 'body' => $body,
    'files' => array_map(fn($file) => [$file['name'], file_get_contents($file['tmp_name'])], $_FILES)]);
"#;

fn stage(app: &str) -> (PhpFpm, Longwire) {
    // Not every php-fpm package has posix_kill, but exec of kill always works.
    let code = HANDLER.replace("posix_kill(getmypid(), 9)", "exec('kill -9 ' . getmypid())");
    let fpm = Pool::of(2).start();
    let script = fpm.script("handler.php", &code);
    let listener = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/app/*\" = \"app\" }\n";
    let node = Longwire::with(&fpm, &script, &format!("plain_requests = true\n{app}"), "", listener);
    (fpm, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_sees_an_ordinary_request_over_both_versions_of_http_and_the_page_gets_its_answer() {
    let (_fpm, node) = stage("");
    let address = node.address("web");
    for (mut http, protocol) in [(Http::one(address).await, "HTTP/1.1"), (Http::two(address).await, "HTTP/2.0")] {
        let headers = [("cookie", "login=7"), ("x-csrf-token", "t"), ("proxy", "evil"), ("content-type", "text/x")];
        let answer = http.ask("PUT", "/app/item/3?a=1&b[]=2", &headers, b"the body").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["set-cookie"], "theme=dark");
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        let server = &seen["server"];
        for (name, value) in [
            ("REQUEST_METHOD", "PUT"),
            ("REQUEST_URI", "/app/item/3?a=1&b[]=2"),
            ("QUERY_STRING", "a=1&b[]=2"),
            ("CONTENT_TYPE", "text/x"),
            ("CONTENT_LENGTH", "8"),
            ("SERVER_PROTOCOL", protocol),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_X_CSRF_TOKEN", "t"),
            ("HTTP_HOST", "shop.example"),
            ("LONGWIRE_EVENT", "request"),
        ] {
            // An HTTP/2 request has its host in :authority, which becomes Host (RFC 9113 section 8.3.1).
            assert_eq!(server[name], value, "{name}");
        }
        for name in ["SESSIONID", "EVENT", "LONGWIRE_SEQ", "LONGWIRE_FRAME_TYPE", "HTTP_PROXY"] {
            assert_eq!(server[name], Value::Null, "{name}");
        }
        assert_eq!((&seen["get"], &seen["body"]), (&json!({ "a": "1", "b": ["2"] }), &json!("the body")));
        assert_eq!(seen["cookie"], json!({ "login": "7" }));

        let form = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http.ask("POST", "/app/form", &form, b"name=Ann+Lee&x=%2F").await;
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(seen["post"], json!({ "name": "Ann Lee", "x": "/" }));
        let upload = [("content-type", "multipart/form-data; boundary=b")];
        let body = b"--b\r\ncontent-disposition: form-data; name=\"pic\"; filename=\"a.txt\"\r\n\r\nhello\r\n--b--\r\n";
        let answer = http.ask("POST", "/app/form", &upload, body).await;
        let seen: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(seen["files"], json!({ "pic": ["a.txt", "hello"] }));

        let moved = http.ask("GET", "/app/x?do=moved", &[], b"").await;
        assert_eq!((moved.status.as_u16(), &moved.headers["location"]), (302, &"/app/elsewhere".parse().unwrap()));
        let broken = http.ask("GET", "/app/x?do=broken", &[], b"").await;
        assert_eq!(
            (broken.status.as_u16(), broken.text()),
            (500, "an error page".to_owned()),
            "PHP's error page is passed on, as by any web server"
        );
        let head = http.ask("HEAD", "/app/x?do=length", &[], b"").await;
        assert_eq!(
            (head.status.as_u16(), head.body.len(), &head.headers["content-length"]),
            (200, 0, &"5".parse().unwrap())
        );
        assert_eq!(http.ask("GET", "/app/x?do=short", &[], b"").await.status.as_u16(), 502);
        assert_eq!(http.ask("GET", "/app/x?do=crash", &[], b"").await.status.as_u16(), 502);
        assert_eq!(http.ask("GET", "/elsewhere", &[], b"").await.status.as_u16(), 404);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_and_the_metrics_call_it_a_request_and_name_no_session() {
    let (_fpm, node) = stage("");
    let mut http = Http::one(node.address("web")).await;
    assert_eq!(http.ask("GET", "/app/x?do=log", &[], b"").await.text(), "logged");
    assert_eq!(http.ask("GET", "/app/x?do=short", &[], b"").await.status.as_u16(), 502);
    let of_events = |line: &Value| line["target"] == "longwire::event" || line["target"] == "longwire::php";
    node.wait_for_log("the second has failed", |line| line["cause"] == "reply_short");
    let lines = node.log_lines(of_events);
    assert_eq!(lines.len(), 3, "expected PHP's log line and one line for each request: {lines:#?}");
    for line in lines {
        assert_eq!((&line["event"], &line["session"]), (&json!("request"), &Value::Null), "{line}");
    }
    let failed = |labels: &str| node.metric("longwire_events_failed_total", labels);
    assert_eq!((failed("event=\"request\""), failed("event=\"message\"")), (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_and_an_event_stream_live_on_the_same_path_as_the_page() {
    let (_fpm, node) = stage("");
    let mut socket = Client::upgrade(node.address("web"), "/app/room", "").await;
    assert_eq!(socket.ask("hello").await, "session message");
    let mut stream = Http::one(node.address("web")).await.stream("/app/room", &[]).await;
    let page = Http::one(node.address("web")).await.ask("GET", "/app/room?do=tell", &[], b"").await;
    assert_eq!(page.status, StatusCode::NO_CONTENT, "the body went to the sessions");
    let frame = socket.frame().await;
    assert_eq!((frame.kind, &frame.body[..]), (FrameKind::Text, &b"from a page"[..]));
    assert_eq!(stream.event().await.data, "from a page");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_streams_and_a_client_that_takes_none_of_it_does_not_keep_the_worker() {
    let (fpm, node) = stage("send_timeout = \"500ms\"");
    let address = node.address("web");
    for (tag, mut http) in [(1, Http::one(address).await), (2, Http::two(address).await)] {
        let mut body = http.begin("GET", &format!("/app/x?do=stream&tag={tag}"), &[], b"").await.into_body();
        for row in 0..4 {
            use http_body_util::BodyExt;
            let frame =
                tokio::time::timeout(Duration::from_secs(30), body.frame()).await.expect("each row as it is made");
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), format!("row {row}\n"));
            std::fs::write(fpm.dir().join(format!("go-{tag}-{row}")), "").unwrap();
        }
    }
    // Both workers stream to clients that do not read. If those were not cut off, no other client would ever be served.
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /app/x?do=endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        deaf.push(stream);
    }
    let answer = Http::one(address).await.ask("GET", "/app/x?do=length", &[], b"").await;
    assert_eq!(answer.text(), "12345");
    eventually("both are cut off", || node.metric("longwire_handshakes", "") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_within_bounds_is_whole_before_php_runs_and_others_are_refused() {
    let (_fpm, node) = stage("max_frame_bytes = 100_000");
    let address = node.address("web");
    let ask = async |size: usize| {
        Http::one(address).await.ask("POST", "/app/x", &[("content-type", "a/b")], &vec![b'x'; size]).await
    };
    let seen: Value = serde_json::from_slice(&ask(100_000).await.body).unwrap();
    assert_eq!(seen["body"].as_str().unwrap().len(), 100_000);
    assert_eq!(ask(100_001).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Chunked bodies, whose total length is not announced; and a body that ends early.
    let chunked = async |chunks: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = b"POST /app/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        stream.write_all(&[head, chunks].concat()).await.unwrap();
        let mut answer = Vec::new();
        // If the body was not read to its end, a reset may follow the answer.
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.expect("an end");
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(chunked(b"5\r\nhello\r\n3\r\n, w\r\n0\r\n\r\n").await, "HTTP/1.1 200 OK");
    let many = b"3e8\r\n".iter().copied().chain([b'x'; 1000]).chain(*b"\r\n").collect::<Vec<_>>().repeat(101);
    assert_eq!(chunked(&many).await, "HTTP/1.1 413 Payload Too Large");
    assert_eq!(chunked(b"zz\r\nhello").await, "HTTP/1.1 400 Bad Request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_length_is_in_doubt_hides_no_second_one() {
    let (fpm, node) = stage("");
    let hidden = "GET /app/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = hidden.len();
    let cases = [
        // RFC 9112 section 6.3: with both headers the chunks count, and different lengths are an error.
        (format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"), "200", Some("")),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"), "200", Some("")),
        (format!("Content-Length: {length}\r\n\r\n{hidden}"), "200", Some(hidden)),
        (format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"), "400", None),
        (format!("Content-Length: +{length}\r\n\r\n{hidden}"), "400", None),
        (format!("Content-Length: {length}, 0\r\n\r\n{hidden}"), "400", None),
        (format!("Content-Length: -1\r\n\r\n{hidden}"), "400", None),
        (format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"), "400", None),
        (format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"), "400", None),
    ];
    for (rest, status, body) in cases {
        let mut stream = TcpStream::connect(node.address("web")).await.unwrap();
        stream.write_all(format!("POST /app/open HTTP/1.1\r\nHost: a\r\n{rest}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.expect("an end");
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{rest:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{rest:?}: {answer}");
        if let Some(body) = body {
            let seen: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(seen["body"], body, "{rest:?}");
            assert_eq!(seen["server"]["REQUEST_URI"], "/app/open");
        }
    }
    drop(fpm);
}
