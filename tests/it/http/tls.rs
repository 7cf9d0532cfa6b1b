//! TLS on listeners, with rustls and OpenSSL as clients and with the real php-fpm.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longwire::proto::framing::{FrameKind, Framing, Item, LengthFraming};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::Client;
use crate::support::echo::{ECHO, all_ended, exchange};
use crate::support::http;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool, eventually};
use crate::support::tls::{Authority, Signed, connect, table};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Prints the params of the TLS connection.
const TELL: &str = r#"
if (($_SERVER['LONGWIRE_EVENT'] ?? '') !== 'message') { exit; }
$told = array_filter($_SERVER, fn($name) => $name === 'HTTPS' || str_starts_with($name, 'SSL_'), ARRAY_FILTER_USE_KEY);
ksort($told);
echo json_encode($told);
"#;

fn length() -> Framing {
    Framing::Length(LengthFraming::default())
}

fn listeners(tls: &str) -> String {
    format!(
        "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{tls}\n[listeners.web]\nbind = \"127.0.0.1:0\"\n\
         protocol = \"http\"\nroutes = {{ \"/ws\" = \"app\" }}\nwebsocket = {{ ping_interval = 0 }}\n{tls}"
    )
}

fn node(fpm: &PhpFpm, code: &str, app: &str, listeners: &str) -> Longwire {
    Longwire::with(fpm, &fpm.script("handler.php", code), app, "queue_timeout = \"60s\"", listeners)
}

async fn told(client: &mut Client) -> Value {
    serde_json::from_str(&client.ask("tell").await).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_length_and_two_hundred_websocket_sessions_get_every_echo_in_order_over_tls() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(4).start();
    let node = node(&fpm, ECHO, "", &listeners(&table(&signed, "")));
    let mut tasks = JoinSet::new();
    for session in 0..200 {
        let connector = authority.client(&BOTH[session as usize % 2..][..1], None);
        let stream = connect(&connector, node.address("length"), "shop.example").await.unwrap();
        tasks.spawn(exchange(Client::on(stream, length(), Vec::new()), session, false));
        let web = node.address("web");
        let stream = connect(&connector, web, "shop.example").await.unwrap();
        tasks.spawn(exchange(Client::upgrade_on(stream, web, "/ws").await, 1000 + session, false));
    }
    all_ended(tasks).await;
    assert_eq!(node.metric("longwire_events_failed_total", ""), 0.0);
    eventually("no place is kept", || node.metric("longwire_handshakes", "") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_picks_the_certificate_and_php_is_told_what_was_agreed() {
    let authority = Authority::new("test authority");
    let (shop, chat) =
        (authority.sign("shop", "shop", &["shop.example"]), authority.sign("chat", "chat", &["*.chat.example"]));
    let more = format!(", more = [{{ cert = {:?}, key = {:?} }}]", chat.cert, chat.key);
    let fpm = Pool::of(2).start();
    let node = node(&fpm, TELL, "", &listeners(&table(&shop, &more)));
    for (name, version, protocol, cipher) in [
        ("shop.example", &TLS13, "TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("eu.chat.example", &TLS12, "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ] {
        // The client checks the name, so the handshake would fail with another certificate.
        let connector = authority.client(&[version], None);
        let stream = connect(&connector, node.address("length"), name).await.unwrap();
        let told = told(&mut Client::on(stream, length(), Vec::new())).await;
        let expected = json!({ "HTTPS": "on", "SSL_PROTOCOL": protocol, "SSL_CIPHER": cipher, "SSL_TLS_SNI": name,
            "SSL_CLIENT_VERIFY": "NONE" });
        assert_eq!(told, expected);
    }
    let connector = authority.client(BOTH, None);
    let error = connect(&connector, node.address("length"), "elsewhere.example").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "it was shown the first: {error}");
    // A failed handshake is counted.
    eventually("the client's alert is counted", || {
        node.metric("longwire_connections_refused_total", "listener=\"length\",reason=\"tls_failed\"") == 1.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates_where_they_must_and_php_sees_whose() {
    let (authority, strangers) = (Authority::new("test authority"), Authority::new("somebody"));
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let ann = authority.sign("ann", "Ann, Lee", &[]);
    let eve = strangers.sign("eve", "Eve", &[]);
    let fpm = Pool::of(2).start();
    for (wanted, without) in [("optional", Some("NONE")), ("required", None)] {
        let more = format!(", client_ca = {:?}, client_certs = {wanted:?}", authority.ca_file());
        let node = node(&fpm, TELL, "", &listeners(&table(&signed, &more)));
        // With TLS 1.3 the client's handshake is complete before the server has verified its certificate. It gets the error when it reads.
        let verify = async |own: Option<&Signed>| {
            let stream =
                connect(&authority.client(&[&TLS12], own), node.address("length"), "shop.example").await.ok()?;
            Some(told(&mut Client::on(stream, length(), Vec::new())).await)
        };
        let seen = verify(Some(&ann)).await.expect("she is known");
        assert_eq!(
            (&seen["SSL_CLIENT_VERIFY"], &seen["SSL_CLIENT_S_DN_CN"]),
            (&json!("SUCCESS"), &json!("Ann\\, Lee"))
        );
        assert_eq!(
            (&seen["SSL_CLIENT_S_DN"], &seen["SSL_CLIENT_I_DN"]),
            (&json!("CN=Ann\\, Lee"), &json!("CN=test authority"))
        );
        assert!(verify(Some(&eve)).await.is_none(), "her certificate is signed by another authority");
        let seen = verify(None).await.map(|told| told["SSL_CLIENT_VERIFY"].as_str().unwrap().to_owned());
        assert_eq!(seen.as_deref(), without, "{wanted}");
        let refused = if without.is_some() { 1.0 } else { 2.0 };
        eventually("they are counted", || {
            node.metric("longwire_connections_refused_total", "listener=\"length\",reason=\"tls_failed\"") == refused
        })
        .await;
    }
}

/// The output of `openssl s_client` for a handshake with these options.
fn s_client(address: std::net::SocketAddr, options: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-servername", "shop.example"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed (tests/install-deps.sh test)");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_finds_only_tls_1_2_and_1_3_with_strong_ciphers() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", &listeners(&table(&signed, "")));
    let address = node.address("length");
    let ca = authority.ca_file().display().to_string();
    let ask = |options: &[&str]| s_client(address, &[options, &["-CAfile", &ca, "-verify_return_error"]].concat());
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = ask(&[version]);
        assert!(said.contains(&format!("New, {name}, Cipher is")) && said.contains("Verify return code: 0"), "{said}");
    }
    // Debian's OpenSSL offers old versions and old ciphers only at security level 0. The server's alert proves that they were offered;
    // without an alert it may have been OpenSSL that refused.
    let is_refused = |options: &[&str]| {
        let said = ask(options);
        assert!(said.contains("SSL alert number") && said.contains("Cipher is (NONE)"), "{options:?}: {said}");
    };
    for version in ["-tls1", "-tls1_1"] {
        is_refused(&[version, "-cipher", "DEFAULT@SECLEVEL=0"]);
    }
    for cipher in ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES256-GCM-SHA384", "NULL", "aNULL"] {
        is_refused(&["-tls1_2", "-cipher", &format!("{cipher}@SECLEVEL=0")]);
    }
    let said = ask(&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"]);
    assert!(said.contains("Cipher is ECDHE-ECDSA-CHACHA20-POLY1305"), "{said}");
    let web = s_client(node.address("web"), &["-CAfile", &ca, "-alpn", "h2,http/1.1"]);
    assert!(web.contains("ALPN protocol: h2"), "{web}");
    let said = s_client(node.address("web"), &["-CAfile", &ca, "-alpn", "http/1.1"]);
    assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_files_are_used_by_new_handshakes_and_old_sessions_stay() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["old.example"]);
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", &listeners(&table(&signed, "")));
    // Use a new client each time, because a client that resumes a session does not look at certificates.
    let connect = async |name: &str| connect(&authority.client(BOTH, None), node.address("length"), name).await;
    let mut old = Client::on(connect("old.example").await.unwrap(), length(), Vec::new());
    assert_eq!(old.ask("before").await, "before");
    let reloads = |outcome: &str| {
        ["length", "web"].map(|listener| {
            let labels = format!("listener={listener:?},outcome={outcome:?}");
            node.metric("longwire_certificate_reloads_total", &labels)
        })
    };

    // Certificates are reloaded at a signal, or when the files change.
    authority.sign("shop", "shop", &["new.example"]);
    node.signal(libc::SIGHUP);
    eventually("both listeners have it", || reloads("done").iter().all(|count| *count >= 1.0)).await;
    assert!(connect("old.example").await.is_err());
    let mut new = Client::on(connect("new.example").await.unwrap(), length(), Vec::new());
    let before = reloads("done");
    authority.sign("shop", "shop", &["newer.example"]);
    eventually("it is seen", || reloads("done").iter().zip(before).all(|(now, before)| *now > before)).await;
    assert!(connect("newer.example").await.is_ok());

    // A broken file changes nothing.
    std::fs::write(&signed.cert, "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    node.signal(libc::SIGHUP);
    eventually("it is told", || reloads("failed").iter().all(|count| *count >= 1.0)).await;
    node.wait_for_log("the log says which file", |line| {
        line["level"] == "ERROR" && line["error"].as_str().is_some_and(|error| error.contains("shop.pem"))
    });
    assert!(connect("newer.example").await.is_ok());
    for (client, word) in [(&mut old, "old"), (&mut new, "new")] {
        assert_eq!(client.ask(word).await, word);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_resumes_its_session_also_after_a_renewal() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", &listeners(&table(&signed, "")));
    for version in [&TLS13, &TLS12] {
        let connector = authority.client(&[version], None);
        for (round, expected) in
            [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed].into_iter().enumerate()
        {
            let stream = connect(&connector, node.address("length"), "shop.example").await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            assert_eq!(kind, Some(expected), "{version:?} {round}");
            // With TLS 1.3 the ticket comes after the handshake and before the first answer.
            let mut client = Client::on(stream, length(), Vec::new());
            assert_eq!(client.ask("hello").await, "hello");
            if round == 1 {
                let before = node.metric("longwire_certificate_reloads_total", "listener=\"length\",outcome=\"done\"");
                node.signal(libc::SIGHUP);
                eventually("they are loaded again", || {
                    node.metric("longwire_certificate_reloads_total", "listener=\"length\",outcome=\"done\"") > before
                })
                .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_no_way_around_renewed_roots_of_clients() {
    let (authority, next) = (Authority::new("test authority"), Authority::new("next authority"));
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let ann = authority.sign("ann", "Ann", &[]);
    let fpm = Pool::of(2).start();
    let more = format!(", client_ca = {:?}, client_certs = \"required\"", authority.ca_file());
    let node = node(&fpm, TELL, "", &listeners(&table(&signed, &more)));
    let connector = authority.client(&[&TLS12], Some(&ann));
    let connect = async || connect(&connector, node.address("length"), "shop.example").await;
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let stream = connect().await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected));
        let told = told(&mut Client::on(stream, length(), Vec::new())).await;
        assert_eq!(told["SSL_CLIENT_S_DN_CN"], "Ann", "a resumed session has her certificate too");
    }
    std::fs::copy(next.ca_file(), authority.ca_file()).unwrap();
    node.signal(libc::SIGHUP);
    eventually("they are loaded", || {
        node.metric("longwire_certificate_reloads_total", "listener=\"length\",outcome=\"done\"") >= 1.0
    })
    .await;
    assert!(connect().await.is_err(), "her authority is no longer trusted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stall_break_or_are_none_cost_nobody_else_anything() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let limits = "[limits]\nhandshake_timeout = \"1s\"\n";
    let node = node(&fpm, ECHO, "", &format!("{limits}{}", listeners(&table(&signed, ""))));
    let refused = |listener: &str, reason: &str| {
        node.metric("longwire_connections_refused_total", &format!("listener={listener:?},reason={reason:?}"))
    };
    for (listener, count) in [("length", 1.0), ("web", 1.0)] {
        let address = node.address(listener);
        let mut silent = TcpStream::connect(address).await.unwrap();
        // The header of a record whose body never comes.
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(&[22, 3, 1, 1, 0, 1, 2, 3]).await.unwrap();
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /ws HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.first(), Some(&21), "an alert: {answer:?}");
        // Half a client hello, and then an alert.
        let mut interleaved = TcpStream::connect(address).await.unwrap();
        interleaved.write_all(&[22, 3, 1, 0, 5, 1, 0, 3, 232, 3, 21, 3, 1, 0, 2, 1, 0]).await.unwrap();
        let _ = interleaved.read_to_end(&mut answer).await;
        let reset = TcpStream::connect(address).await.unwrap();
        socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
        drop(reset);
        let start = Instant::now();
        for stalled in [&mut silent, &mut half] {
            let _ = tokio::time::timeout(Duration::from_secs(30), stalled.read_to_end(&mut Vec::new()))
                .await
                .expect("it is cut");
        }
        assert!(start.elapsed() >= Duration::from_millis(500), "they must not be cut before the timeout");
        eventually("each is counted", || {
            refused(listener, "handshake_timeout") == 2.0 * count
                && refused(listener, "tls_failed") == 2.0 * count
                && refused(listener, "client_gone") == count
        })
        .await;
    }
    let stream = connect(&authority.client(BOTH, None), node.address("length"), "shop.example").await.unwrap();
    let mut client = Client::on(stream, length(), Vec::new());
    assert_eq!(client.ask("still here").await, "still here");
    assert_eq!(node.metric("longwire_handshakes", ""), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_reader_over_tls_gets_what_was_promised_and_then_the_end() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let app = "outbox_bytes = \"512 KiB\"\nslow_reader = \"newest\"\nsend_timeout = \"5m\"";
    let node = node(&fpm, ECHO, app, &listeners(&table(&signed, "")));
    let stream = connect(&authority.client(BOTH, None), node.address("length"), "shop.example").await.unwrap();
    let mut client = Client::on(stream, length(), Vec::new());
    assert_eq!(client.ask("here").await, "here");
    let before = node.settled_memory().await;
    let send = async |message: String| {
        let body = json!({ "to": "all", "message": message }).to_string();
        http::request(node.address("api"), "POST", "/v1/send", body.as_bytes()).await.unwrap().json()
    };
    // The client does not read. When the kernel's buffers are full, messages wait in the outbox until it is full, and later ones are
    // dropped.
    let (mut kept, mut number) = (Vec::new(), 0);
    loop {
        let message = format!("{number:07}{}", "x".repeat(20_000));
        let receipt = send(message).await;
        match (&receipt["reached"], &receipt["queued"], &receipt["dropped"]["newest"]) {
            (Value::Number(n), _, _) | (_, Value::Number(n), _) if n.as_u64() == Some(1) => kept.push(number),
            _ if receipt["queued"] == 1 => kept.push(number),
            _ => {
                assert_eq!(receipt["dropped"]["newest"], 1, "{receipt}");
                break;
            }
        }
        number += 1;
        assert!(number < 5000, "the outbox has no bound");
    }
    assert!(node.memory().saturating_sub(before) < 8 << 20);
    for expected in kept {
        let frame = client.frame().await;
        let text = String::from_utf8_lossy(&frame.body);
        assert_eq!((text[..7].parse::<usize>().unwrap(), text.len()), (expected, 20_007), "in order, none missing");
    }
    // The connection must end with close_notify; rustls would report anything else as an error.
    node.signal(libc::SIGTERM);
    assert!(client.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_close_notify_and_a_client_that_only_leaves_is_one_that_has_left() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let code =
        "if (($_SERVER['LONGWIRE_EVENT'] ?? '') === 'message') { header('Longwire-Close: 4001 bye'); echo 'last'; }";
    let node = node(&fpm, code, "events = [\"close\"]", &listeners(&table(&signed, "")));
    let connector = authority.client(BOTH, None);
    let mut stream = connect(&connector, node.address("length"), "shop.example").await.unwrap();
    stream.write_all(b"\0\0\0\x02hi").await.unwrap();
    let mut rest = Vec::new();
    // An end without close_notify would be an error here (rustls: UnexpectedEof).
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\0\0\0\x04last");

    let web = node.address("web");
    let stream = connect(&connector, web, "shop.example").await.unwrap();
    let mut client = Client::upgrade_on(stream, web, "/ws").await;
    client.send(FrameKind::Text, b"hi").await;
    assert_eq!(client.frame().await.body, "last");
    assert!(matches!(client.next().await, Some(Item::Close { code: Some(4001), .. })));

    // FIN without close_notify, as browsers do.
    let stream = connect(&connector, node.address("length"), "shop.example").await.unwrap();
    let (mut socket, _) = stream.into_inner();
    // Do not close the socket: unread TLS 1.3 tickets in it would turn the close into a reset.
    socket.shutdown().await.unwrap();
    let reasons: Vec<_> = node.closed(3).iter().map(|line| line["reason"].as_str().unwrap().to_owned()).collect();
    assert!(reasons.contains(&"client_closed".to_owned()), "{reasons:?}");
}

/// `cargo test --release --test it -- --ignored --nocapture memory_of_a_tls_session`
#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_tls_session_at_rest() {
    const SESSIONS: usize = 3000;
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["shop.example"]);
    let fpm = Pool::of(2).start();
    let plain = "[listeners.plain]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n";
    let node = node(&fpm, ECHO, "", &format!("{plain}{}", listeners(&table(&signed, ""))));
    let mut clients = Vec::new();
    for (name, version) in [("plain TCP", None), ("TLS 1.3", Some(&TLS13)), ("TLS 1.2", Some(&TLS12))] {
        // Memory that is allocated once, or with the first session, does not count.
        let before = node.settled_memory().await;
        for _ in 0..SESSIONS {
            let mut client = match version {
                None => Client::connect(node.address("plain"), length()).await,
                Some(version) => {
                    let connector = authority.client(&[version], None);
                    let stream = connect(&connector, node.address("length"), "shop.example").await.unwrap();
                    Client::on(stream, length(), Vec::new())
                }
            };
            assert_eq!(client.ask("hello").await, "hello");
            clients.push(client);
        }
        let grown = node.settled_memory().await.saturating_sub(before);
        println!("{name}: {} bytes a session", grown / SESSIONS);
    }
}
