//! A node behind nginx and HAProxy, and behind clients of the test that write the headers of proxies.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use longwire::proto::framing::{Framing, LengthFraming};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;

use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::echo::{all_ended, exchange};
use crate::support::http::request_with;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::proxy::{Proxy, free_address};
use crate::support::tls::{Authority, table};

/// Echoes, except for one word, to which it answers with the client's address as PHP sees it.
const HANDLER: &str = r#"
$data = file_get_contents('php://input');
if ($data === 'who') {
    $names = ['REMOTE_ADDR', 'REMOTE_PORT', 'HTTPS', 'SERVER_ADDR', 'HTTP_X_FORWARDED_FOR'];
    $data = json_encode(array_intersect_key($_SERVER, array_flip($names)));
}
header('Content-Length: ' . strlen($data));
echo $data;
"#;

const WEB: &str = "\n[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/ws\" = \"app\" }\n\
                   websocket = { ping_interval = 0, origins = \"any\" }\n";
const TCP: &str = "\n[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";

fn node(fpm: &PhpFpm, listeners: &str) -> Longwire {
    Longwire::with(fpm, &fpm.script("handler.php", HANDLER), "", "queue_timeout = \"60s\"", listeners)
}

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

async fn who(client: &mut Client) -> Value {
    serde_json::from_str(&client.ask("who").await).expect("JSON")
}

/// A connection from one of the loopback network's addresses, and its port.
async fn connect_from(host: u8, to: SocketAddr) -> (TcpStream, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0)).unwrap();
    let stream = socket.connect(to).await.unwrap();
    let port = stream.local_addr().unwrap().port();
    (stream, port)
}

/// The first fenced block of a language in docs/proxies.md.
fn block(language: &str) -> String {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/proxies.md")).expect("it is there");
    let from = docs.find(&format!("```{language}\n")).expect("the block is there") + language.len() + 4;
    docs[from..from + docs[from..].find("```").expect("the block ends")].to_owned()
}

/// Replaces each of these texts, which must all occur.
fn with(text: String, replaced: &[(&str, String)]) -> String {
    replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    })
}

/// nginx in front of a listener, with the `location` block of the manual.
fn nginx(web: SocketAddr) -> (Proxy, SocketAddr) {
    Proxy::nginx(&with(block("nginx"), &[("127.0.0.1:8080", web.to_string())]))
}

/// HAProxy in front of two listeners, configured as in the manual, and its two addresses.
fn haproxy(tcp: SocketAddr, web: SocketAddr) -> (Proxy, SocketAddr, SocketAddr) {
    let (tcp_in, web_in) = (free_address(), free_address());
    let replaced = [
        ("0.0.0.0:9005", tcp_in.to_string()),
        ("127.0.0.1:9015", tcp.to_string()),
        ("0.0.0.0:80", web_in.to_string()),
        ("127.0.0.1:8080", web.to_string()),
    ];
    let config = format!("global\n    maxconn 4000\n\n{}", with(block("haproxy"), &replaced));
    (Proxy::start(&config, "/usr/sbin/haproxy", &["-db", "-q", "-f"], &[tcp_in, web_in]), tcp_in, web_in)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_nginx_every_echo_comes_back_in_order_and_php_sees_the_client() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, &format!("{WEB}trusted_proxies = [\"127.0.0.1\"]\n"));
    let (_nginx, address) = nginx(node.address("web"));
    let mut tasks = JoinSet::new();
    for session in 0..200 {
        tasks.spawn(exchange(Client::upgrade(address, "/ws", "").await, session, false));
    }
    all_ended(tasks).await;
    let (stream, _) = connect_from(9, address).await;
    let seen = who(&mut Client::upgrade_on(stream, address, "/ws").await).await;
    assert_eq!((&seen["REMOTE_ADDR"], &seen["REMOTE_PORT"]), (&json!("127.0.0.9"), &json!("")));
    // The client's own claims come first in the header; nginx appends the address that it has seen.
    let headers = "X-Forwarded-For: 10.1.2.3, 127.0.0.1\r\nForwarded: for=10.1.2.3\r\nX-Forwarded-Proto: https\r\n";
    let (stream, _) = connect_from(9, address).await;
    let seen = who(&mut Client::upgrade_with(stream, address, "/ws", headers).await).await;
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["HTTPS"]),
        (&json!("127.0.0.9"), &Value::Null),
        "headers of an unlisted address are ignored"
    );
    assert_eq!(seen["HTTP_X_FORWARDED_FOR"], "10.1.2.3, 127.0.0.1, 127.0.0.9", "PHP may read it");
    let seen = who(&mut Client::upgrade(address, "/ws", headers).await).await;
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["HTTPS"]),
        (&json!("10.1.2.3"), &Value::Null),
        "127.0.0.1 is a trusted proxy here"
    );
    let (stream, _) = connect_from(8, address).await;
    drop(Client::upgrade_on(stream, address, "/ws").await);
    node.wait_for_log("the log speaks of the client", |line| {
        line["message"] == "session closed" && line["peer"] == "127.0.0.8"
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_haproxy_every_echo_comes_back_in_order_and_php_sees_the_client() {
    let fpm = Pool::of(4).start();
    let tcp = format!("{TCP}proxy_protocol = [\"127.0.0.1\"]\n");
    let node = node(&fpm, &format!("{tcp}{WEB}trusted_proxies = [\"127.0.0.1\"]\n"));
    let (_haproxy, tcp, web) = haproxy(node.address("tcp"), node.address("web"));
    let mut tasks = JoinSet::new();
    for session in 0..150 {
        tasks.spawn(exchange(Client::connect(tcp, length()).await, session, false));
        tasks.spawn(exchange(Client::upgrade(web, "/ws", "").await, 1000 + session, false));
    }
    all_ended(tasks).await;
    for host in [1, 77] {
        let (stream, port) = connect_from(host, tcp).await;
        let seen = who(&mut Client::from_parts(stream, length(), Vec::new())).await;
        assert_eq!(seen["REMOTE_ADDR"], format!("127.0.0.{host}"));
        assert_eq!(seen["REMOTE_PORT"], port.to_string());
    }
    let (stream, _) = connect_from(78, web).await;
    let seen = who(&mut Client::upgrade_on(stream, web, "/ws").await).await;
    assert_eq!(seen["REMOTE_ADDR"], "127.0.0.78");
    let (stream, _) = connect_from(78, web).await;
    let headers = "X-Forwarded-For: 10.1.2.3, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n";
    let seen = who(&mut Client::upgrade_with(stream, web, "/ws", headers).await).await;
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["HTTPS"]),
        (&json!("127.0.0.78"), &Value::Null),
        "headers of an unlisted address are ignored"
    );
    let headers = "X-Forwarded-Proto: https\r\nForwarded: for=10.1.2.3;proto=https\r\n";
    let seen = who(&mut Client::upgrade(web, "/ws", headers).await).await;
    assert_eq!(
        (&seen["REMOTE_ADDR"], &seen["HTTPS"]),
        (&json!("127.0.0.1"), &Value::Null),
        "a client's own header is ignored"
    );

    // A client that has half-closed still gets its reply.
    let mut client = Client::connect(tcp, length()).await;
    client.text("last words").await;
    client.finish().await;
    assert_eq!(client.frame().await.body, "last words");
    assert!(client.next().await.is_none());
    // A client that resets ends only its own session.
    let mut other = Client::connect(tcp, length()).await;
    let (stream, port) = connect_from(79, tcp).await;
    let mut gone = Client::from_parts(stream, length(), Vec::new());
    assert_eq!(gone.ask("here").await, "here");
    gone.reset();
    node.wait_for_log("its session has ended", |line| {
        line["message"] == "session closed" && line["peer"] == format!("127.0.0.79:{port}")
    });
    assert_eq!(other.ask("still here").await, "still here");
}

/// The `server` line of the manual for HTTP/2.
fn http2_line() -> String {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/proxies.md")).expect("it is there");
    let line = docs.lines().find(|line| line.contains(" proto h2 ws h1")).expect("the manual has it");
    line.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_uses_everything_through_haproxy_that_speaks_http2_to_us() {
    let fpm = Pool::of(4).start();
    let public = fpm.dir().join("public");
    fs::create_dir(&public).unwrap();
    fs::write(public.join("page.html"), "<!doctype html><title>page</title>").unwrap();
    let listener = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = { \"/ws\" = \"app\" }\n";
    let files = "websocket = { origins = [\"null\", \"file://\"] }\n";
    let strict = listener.replace("web]", "strict]");
    let node = node(&fpm, &format!("{listener}static = {public:?}\n{files}{strict}"));
    let (h1, h2) = ("    server node-1 127.0.0.1:8080".to_owned(), http2_line());
    let through = |line: &str| {
        let address = free_address();
        let config = with(
            block("haproxy"),
            &[
                (h1.as_str(), format!("    {line}")),
                ("0.0.0.0:9005", free_address().to_string()),
                ("0.0.0.0:80", address.to_string()),
                ("127.0.0.1:8080", node.address("web").to_string()),
            ],
        );
        let config = format!("global\n    maxconn 4000\n\n{config}");
        (Proxy::start(&config, "/usr/sbin/haproxy", &["-db", "-q", "-f"], &[address]), address)
    };
    let (_haproxy, address) = through(&h2);
    let browser = Browser::start((800, 600), false).await;
    browser.open(&format!("http://{address}/page.html")).await;
    let page = "
        window.got = [];
        window.source = new EventSource('/ws');
        source.addEventListener('session', () => got.push('stream'));
        window.socket = new WebSocket(`ws://${location.host}/ws`);
        socket.onopen = () => socket.send('hello');
        socket.onmessage = event => got.push(event.data);
        socket.onerror = () => got.push('error');";
    browser.run(page).await;
    browser.wait_for("got.length >= 2").await;
    assert_eq!(browser.run("source.close(); return got.sort()").await, json!(["hello", "stream"]));

    // A page from a file (origin `null`) is admitted only where that is listed.
    let page = fpm.dir().join("local.html");
    fs::write(&page, "<!doctype html><title>a file</title>").unwrap();
    browser.open(&format!("file://{}", page.display())).await;
    for (listener, expected) in [("web", "open"), ("strict", "refused")] {
        let open = format!(
            "window.became = ''; const socket = new WebSocket('ws://{}/ws');
             socket.onopen = () => {{ became = 'open'; }}; socket.onerror = () => {{ became = 'refused'; }};",
            node.address(listener)
        );
        browser.run(&open).await;
        browser.wait_for("became").await;
        assert_eq!(browser.run("return became").await, expected, "{listener}");
    }

    // The end of the line matters: without `ws h1` HAProxy uses extended CONNECT.
    let (_haproxy, address) = through(h2.strip_suffix(" ws h1").expect("that is its end"));
    let refused = Client::try_upgrade(address, "/ws", "").await.err().expect("no WebSocket");
    assert!(refused.starts_with("HTTP/1.1 502 "), "{refused}");
}

/// Version 2 for TCP over IPv4 (proxy-protocol.txt section 2.2); the command is PROXY or LOCAL.
fn version_2(command: u8, from: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend_from_slice(&[0x20 | command, 0x11, 0, 12]);
    header.extend_from_slice(&from);
    header.extend_from_slice(&[192, 0, 2, 1]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&9005_u16.to_be_bytes());
    header
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_both_versions_are_believed_of_listed_proxies_however_they_come() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, &format!("{TCP}proxy_protocol = [\"127.0.0.2\", \"127.0.1.0/24\"]\n"));
    let address = node.address("tcp");
    let version_1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 9005\r\n".to_vec();
    let cases = [
        (version_1.clone(), "203.0.113.7", "4711", "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 9005\r\n".to_vec(), "2001:db8::7", "4711", "2001:db8::1"),
        (version_2(1, [203, 0, 113, 8], 4712), "203.0.113.8", "4712", "192.0.2.1"),
    ];
    let question = b"\0\0\0\x03who";
    let ask = async |stream: TcpStream| {
        let mut client = Client::from_parts(stream, length(), Vec::new());
        let frame = tokio::time::timeout(Duration::from_secs(30), client.frame()).await.expect("an answer");
        serde_json::from_slice::<Value>(&frame.body).expect("JSON")
    };
    for (header, remote, port, server) in &cases {
        // Send header and first frame in one piece, byte by byte, and in pieces of 13 bytes.
        for sizes in [1000, 1, 13] {
            let (mut stream, _) = connect_from(2, address).await;
            stream.set_nodelay(true).unwrap();
            for piece in [&header[..], question].concat().chunks(sizes) {
                stream.write_all(piece).await.unwrap();
            }
            let seen = ask(stream).await;
            let expected = (&json!(remote), &json!(port), &json!(server));
            assert_eq!((&seen["REMOTE_ADDR"], &seen["REMOTE_PORT"], &seen["SERVER_ADDR"]), expected);
        }
    }
    // Headers without a client: the proxy connects for itself, as in health checks.
    for header in [version_2(0, [203, 0, 113, 8], 4712), b"PROXY UNKNOWN\r\n".to_vec()] {
        let (mut stream, port) = connect_from(2, address).await;
        stream.write_all(&[&header[..], question].concat()).await.unwrap();
        let seen = ask(stream).await;
        assert_eq!((&seen["REMOTE_ADDR"], &seen["REMOTE_PORT"]), (&json!("127.0.0.2"), &json!(port.to_string())));
    }
    // The proxy resets a connection: the session of that client ends.
    let (mut stream, _) = connect_from(2, address).await;
    stream.write_all(&[&version_2(1, [203, 0, 113, 99], 4799)[..], question].concat()).await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let closed = node.wait_for_log("the session has ended", |line| {
        line["message"] == "session closed" && line["peer"] == "203.0.113.99:4799"
    });
    assert_eq!(closed["reason"], "client_gone", "{closed}");
    // From an unlisted address the header is not read: its bytes are the start of a frame with the length 0x50524f58.
    let (mut stream, _) = connect_from(3, address).await;
    stream.write_all(question).await.unwrap();
    assert_eq!(ask(stream).await["REMOTE_ADDR"], "127.0.0.3");
    let (mut stream, _) = connect_from(3, address).await;
    stream.write_all(&version_1).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    let closed = node.wait_for_log("it is too long a frame", |line| line["reason"] == "frame_too_large");
    assert!(closed["peer"].as_str().unwrap().starts_with("127.0.0.3:"), "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_proxy_without_a_good_header_is_refused_in_time_and_counted() {
    let fpm = Pool::of(2).start();
    let limits = "[limits]\nhandshake_timeout = \"1s\"\nmax_handshakes = 50\nmax_sessions_per_address = 2\n";
    let listener = "proxy_protocol = [\"127.0.0.1\"]\n";
    let node = node(&fpm, &format!("{limits}{TCP}{listener}{WEB}{listener}"));
    let refused = |listener: &str, reason: &str| {
        node.metric("longwire_connections_refused_total", &format!("listener={listener:?},reason={reason:?}"))
    };
    for listener in ["tcp", "web"] {
        let address = node.address(listener);
        let garbage: [&[u8]; 5] = [
            b"GET /ws HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 1.2.3.4\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 1\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            &[b'P'; 200],
        ];
        for bytes in garbage {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let end = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut Vec::new())).await;
            assert!(matches!(end.expect("it is cut"), Ok(0) | Err(_)));
        }
        let mut stalled = TcpStream::connect(address).await.unwrap();
        stalled.write_all(b"PROXY TCP4 1.2.3.4 5.6").await.unwrap();
        let _ = tokio::time::timeout(Duration::from_secs(30), stalled.read_to_end(&mut Vec::new()))
            .await
            .expect("it is cut");
        drop(TcpStream::connect(address).await.unwrap());
        eventually("all are counted", || {
            let counted =
                ["proxy_header_bad", "handshake_timeout", "client_gone"].map(|reason| refused(listener, reason));
            counted == [5.0, 1.0, 1.0]
        })
        .await;
    }
    // Limits per address apply to the client's address, not to the proxy's.
    let mut clients = Vec::new();
    for (client, is_in) in [(1, true), (1, true), (1, false), (2, true)] {
        let mut stream = TcpStream::connect(node.address("tcp")).await.unwrap();
        let header = version_2(1, [203, 0, 113, client], 4712);
        stream.write_all(&[&header[..], b"\0\0\0\x03who"].concat()).await.unwrap();
        let mut answer = [0; 4];
        assert_eq!(stream.read_exact(&mut answer).await.is_ok(), is_in, "{client}");
        clients.push(stream);
    }
    eventually("no place is kept", || node.metric("longwire_handshakes", "") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_on_a_unix_socket_is_listed_as_unix() {
    let fpm = Pool::of(2).start();
    let path = fpm.dir().join("in.sock");
    let tcp = TCP.replace("127.0.0.1:0", &format!("unix:{}", path.display()));
    let _node = node(&fpm, &format!("{tcp}proxy_protocol = [\"unix:\"]\n"));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&version_2(1, [203, 0, 113, 7], 4711)).await.unwrap();
    let seen = who(&mut Client::on(stream, length(), Vec::new())).await;
    assert_eq!((&seen["REMOTE_ADDR"], &seen["REMOTE_PORT"]), (&json!("203.0.113.7"), &json!("4711")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_headers_are_waited_for_than_there_are_places_and_all_get_their_turn() {
    let fpm = Pool::of(2).start();
    let limits = "[limits]\nhandshake_timeout = \"60s\"\nmax_handshakes = 2\n";
    let node = node(&fpm, &format!("{limits}{TCP}proxy_protocol = [\"127.0.0.1\"]\n"));
    let header = version_2(1, [203, 0, 113, 7], 4711);
    let (begun, rest) = header.split_at(10);
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(node.address("tcp")).await.unwrap();
        stream.write_all(begun).await.unwrap();
        waiting.push(stream);
    }
    eventually("the places are taken", || node.metric("longwire_handshakes", "") == 2.0).await;
    for mut stream in waiting {
        assert!(node.metric("longwire_handshakes", "") <= 2.0);
        stream.write_all(&[rest, b"\0\0\0\x03who"].concat()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut [0; 4])).await;
        answer.expect("its turn comes").expect("it is answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarding_headers_count_from_trusted_proxies_and_only_the_one_that_they_write() {
    let fpm = Pool::of(2).start();
    let page = "\n[apps.page]\nupstream = \"php\"\nscript = SCRIPT\nplain_requests = true\n";
    let script = fpm.script(
        "page.php",
        "echo json_encode([$_SERVER['REMOTE_ADDR'], $_SERVER['REMOTE_PORT'], $_SERVER['HTTPS'] ?? null]);",
    );
    let page = page.replace("SCRIPT", &format!("{:?}", script.display().to_string()));
    let listener = |name: &str, forwarded: &str| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = {{ \"/page\" = \"page\" }}\n\
             trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"fd00::/8\"]\nforwarded = \"{forwarded}\"\n"
        )
    };
    let node = node(&fpm, &format!("{page}{}{}", listener("xff", "x-forwarded-for"), listener("rfc", "forwarded")));
    let ask = async |listener: &str, headers: &str| {
        let headers = headers.split('|').filter(|header| !header.is_empty()).map(|header| format!("{header}\r\n"));
        let headers = headers.collect::<String>();
        request_with(node.address(listener), "GET", "/page", &headers, b"").await.unwrap().json()
    };
    let own = json!("127.0.0.1");
    let cases = [
        ("xff", "X-Forwarded-For: 203.0.113.7", json!("203.0.113.7"), json!(""), Value::Null),
        ("xff", "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.1.2.3", json!("203.0.113.7"), json!(""), Value::Null),
        (
            "xff",
            "X-Forwarded-For: 6.6.6.6|X-Forwarded-For: 203.0.113.7:4711|X-Forwarded-Proto: https",
            json!("203.0.113.7"),
            json!("4711"),
            json!("on"),
        ),
        ("xff", "X-Forwarded-For: [2001:db8::7]:99", json!("2001:db8::7"), json!("99"), Value::Null),
        ("xff", "Forwarded: for=203.0.113.7;proto=https", own.clone(), Value::Null, Value::Null),
        ("xff", "X-Forwarded-For: <script>, 10.1.1.1", own.clone(), Value::Null, Value::Null),
        ("xff", "X-Forwarded-For: unknown", own.clone(), Value::Null, Value::Null),
        (
            "rfc",
            "Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https, for=10.2.3.4",
            json!("2001:db8::7"),
            json!("4711"),
            json!("on"),
        ),
        ("rfc", "Forwarded: for=_hidden", own.clone(), Value::Null, Value::Null),
        ("rfc", "X-Forwarded-For: 203.0.113.7|X-Forwarded-Proto: https", own.clone(), Value::Null, Value::Null),
    ];
    for (listener, headers, address, port, https) in cases {
        let seen = ask(listener, headers).await;
        assert_eq!((&seen[0], &seen[2]), (&address, &https), "{headers}");
        if port != Value::Null {
            assert_eq!(seen[1], port, "{headers}");
        }
    }
    let without = node.metric("longwire_forwarded_without_client_total", "listener=\"xff\"");
    assert_eq!(without, 2.0, "the broken and the unknown one");
    // From an unlisted address no header counts.
    let (mut stream, port) = connect_from(4, node.address("xff")).await;
    let request = "GET /page HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with(&format!("[\"127.0.0.4\",\"{port}\",null]")), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_header_in_front_of_tls_says_who_the_client_is() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let node = node(&fpm, &format!("{TCP}proxy_protocol = [\"127.0.0.1\"]\n{}", table(&signed, "")));
    let mut tasks = JoinSet::new();
    for session in 0..50 {
        let mut stream = TcpStream::connect(node.address("tcp")).await.unwrap();
        stream.write_all(&version_2(1, [203, 0, 113, session as u8], 4000 + session as u16)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("shop.example").unwrap();
        let connector = authority.client(&[&rustls::version::TLS13], None);
        let mut client = Client::on(connector.connect(name, stream).await.unwrap(), length(), Vec::new());
        let seen = who(&mut client).await;
        let expected = (&json!(format!("203.0.113.{session}")), &json!((4000 + session).to_string()), &json!("on"));
        assert_eq!((&seen["REMOTE_ADDR"], &seen["REMOTE_PORT"], &seen["HTTPS"]), expected);
        tasks.spawn(exchange(client, session, false));
    }
    all_ended(tasks).await;
}
