//! PHP that compresses its output for browsers: it may compress pages, but never frames.

use std::io::Write;
use std::process::{Command, Stdio};

use longwire::proto::framing::FrameKind;

use crate::support::client::Client;
use crate::support::event_stream::Http;
use crate::support::longwire::{LISTENERS, Longwire};
use crate::support::php_fpm::{PhpFpm, Pool, eventually};

/// A handler that uses `ob_gzhandler` unless php.ini compresses already. It prints a compressible text, then the request's details.
const HANDLER: &str = r#"
$body = file_get_contents('php://input');
if ($body === 'coded') { header('Content-Encoding: gzip'); exit(gzencode('coded by hand')); }
if ($body === 'to all') { header('Content-Encoding: gzip'); header('Longwire-To: all'); exit(gzencode('for all')); }
if (!ini_get('zlib.output_compression')) { ob_start('ob_gzhandler'); }
$asked = array_filter(array_keys($_SERVER), fn($name) => preg_match('/^HTTP_(ACCEPT_ENCODING|TE|RANGE|IF_.*)$/', $name));
echo str_repeat('frame ', 500), implode(' ', $asked);
"#;

/// Headers of a browser, and of a client that asks for compression in other ways.
const HEADERS: [(&str, &str); 5] = [
    ("accept-encoding", "gzip, deflate, br"),
    ("if-none-match", "\"1\""),
    ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("range", "bytes=0-3"),
    ("te", "trailers"),
];

fn stage(pool: Pool) -> (PhpFpm, Longwire) {
    let fpm = pool.start();
    let script = fpm.script("handler.php", HANDLER);
    let app = "events = [\"connect\"]\nplain_requests = true";
    let node = Longwire::with(&fpm, &script, app, "", LISTENERS);
    (fpm, node)
}

fn gunzip(bytes: &[u8]) -> String {
    let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gzip.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = gzip.wait_with_output().unwrap();
    assert!(output.status.success(), "it is not gzip: {:?}", bytes.get(..20));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn php_compresses_pages_and_never_frames() {
    let zlib = Pool::of(2).line("php_admin_flag[zlib.output_compression] = on");
    for (pool, what) in [(zlib, "zlib.output_compression"), (Pool::of(2), "ob_gzhandler")] {
        let (_fpm, node) = stage(pool);
        let web = node.address("web");
        let plain = "frame ".repeat(500);
        let headers: String = HEADERS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (mut client, head) = Client::try_upgrade(web, "/ws", &headers).await.unwrap();
        assert!(!head.to_ascii_lowercase().contains("content-encoding"), "{head}");
        assert_eq!(client.frame().await.body, plain, "{what}: the greeting");
        assert_eq!(client.ask("?").await, plain, "{what}: a text");
        client.send(FrameKind::Binary, b"?").await;
        assert_eq!(client.frame().await.body, plain, "{what}: bytes");

        let mut stream = Http::one(web).await.stream("/ws", &HEADERS).await;
        assert_eq!(stream.event().await.data, plain, "{what}: an event stream");
        let post = Http::one(web).await.ask("POST", &stream.address, &HEADERS, b"?").await;
        assert_eq!((post.headers.get("content-encoding"), post.text()), (None, plain.clone()), "{what}: a post");

        let page = Http::one(web).await.ask("GET", "/ws", &HEADERS[..4], b"").await;
        assert_eq!(page.headers["content-encoding"], "gzip", "{what}: a page");
        let asked = "HTTP_ACCEPT_ENCODING HTTP_IF_MODIFIED_SINCE HTTP_IF_NONE_MATCH HTTP_RANGE";
        let text = gunzip(&page.body);
        let mut found: Vec<_> = text.strip_prefix(&plain).expect("the page").split(' ').collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), asked, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_its_handler_has_compressed_is_not_sent_and_the_log_says_why() {
    let (_fpm, node) = stage(Pool::of(2));
    let mut client = Client::upgrade(node.address("web"), "/ws", "").await;
    client.frame().await;
    let plain = client.ask("?").await;
    for body in ["coded", "to all"] {
        client.text(body).await;
        assert_eq!(client.ask("?").await, plain, "nothing came of {body:?}");
    }
    let failed = || node.log_lines(|line| line["cause"] == "reply_encoded");
    eventually("the log says of both why", || failed().len() == 2).await;
    let failed = failed();
    let message = failed[0]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "event failed: reply has Content-Encoding: gzip, but a frame has no headers; send it uncompressed"
    );
    // An HTTP response can declare its encoding, so there it is allowed.
    let stream = Http::one(node.address("web")).await.stream("/ws", &[]).await;
    let post = Http::one(node.address("web")).await.ask("POST", &stream.address, &[], b"coded").await;
    assert_eq!(
        (&post.headers["content-encoding"], gunzip(&post.body)),
        (&"gzip".parse().unwrap(), "coded by hand".into())
    );
}
