//! Runs `php-examples/push.php` from the command line against a real router port.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use longwire::proto::framing::{FrameKind, Framing, LengthFraming};

use crate::support::client::Client;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};

const LISTENERS: &str = r#"
[listeners.web]
bind = "127.0.0.1:0"
protocol = "http"
routes = { "/ws" = "app" }
[listeners.tcp]
bind = "127.0.0.1:0"
app = "app"
"#;

/// A node whose clients join the channels that they name.
fn node() -> (PhpFpm, Longwire) {
    let fpm = Pool::of(2).start();
    let script = fpm.script("join.php", "header('Longwire-Join: ' . file_get_contents('php://input')); echo 'in';");
    let node = Longwire::with(&fpm, &script, "", "", LISTENERS);
    (fpm, node)
}

/// Runs push.php to its end.
fn push(router: SocketAddr, arguments: &[&str], input: &[u8]) -> Output {
    run(&[&["--router", &router.to_string()], arguments].concat(), input)
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("php")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/push.php"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("php (the command line) is installed");
    // It may end without reading its input.
    let _ = child.stdin.take().expect("it is piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

/// Checks that it succeeded and printed only this line.
#[track_caller]
fn check_line(output: &Output, expected: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found, (Some(0), format!("{expected}\n"), String::new()));
}

async fn expect(client: &mut Client, kind: FrameKind, body: &[u8]) {
    let frame = client.frame().await;
    assert_eq!((frame.kind, &frame.body[..]), (kind, body));
}

#[tokio::test]
async fn a_push_reaches_tcp_and_websocket_clients_and_prints_its_receipt() {
    let (_fpm, node) = node();
    let router = node.address("router");
    check_line(&push(router, &["hello"], b""), "everybody: 0 reached, nobody is there");

    let mut web = Client::upgrade(node.address("web"), "/ws", "").await;
    let mut tcp = Client::connect(node.address("tcp"), Framing::Length(LengthFraming::default())).await;
    assert_eq!(web.ask("prices").await, "in");
    assert_eq!(tcp.ask("news").await, "in");

    check_line(&push(router, &["prices", "have", "changed: 5 €"], b""), "everybody: 2 reached");
    expect(&mut web, FrameKind::Text, "prices have changed: 5 €".as_bytes()).await;
    expect(&mut tcp, FrameKind::Binary, "prices have changed: 5 €".as_bytes()).await;

    check_line(&push(router, &["--channel", "news", "only you"], b""), "channel news: 1 reached");
    expect(&mut tcp, FrameKind::Binary, b"only you").await;
    check_line(&push(router, &["--channel=prices", "--", "--channel"], b""), "channel prices: 1 reached");
    expect(&mut web, FrameKind::Text, b"--channel").await;
    check_line(&push(router, &["--channel", "empty", "hello?"], b""), "channel empty: 0 reached, nobody is there");

    // The output of `echo`, of which only the last newline is removed, and then bytes that are not UTF-8.
    check_line(&push(router, &[], b"two\nlines\n"), "everybody: 2 reached");
    check_line(&push(router, &[], b"\xff\n\x00\r\n"), "everybody: 2 reached");
    expect(&mut web, FrameKind::Text, b"two\nlines").await;
    expect(&mut web, FrameKind::Binary, b"\xff\n\x00").await;
    expect(&mut tcp, FrameKind::Binary, b"two\nlines").await;
    expect(&mut tcp, FrameKind::Binary, b"\xff\n\x00").await;
}

#[test]
fn a_push_without_a_router_says_so_and_fails() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let output = push(nobody, &["hello"], b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, format!("push.php: no router: tcp://{nobody}: Connection refused\n"));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
}

#[test]
fn a_push_with_wrong_arguments_sends_nothing() {
    for (arguments, input, complaint) in [
        (&["--chanel", "news", "hello"][..], &b""[..], "there is no option --chanel"),
        (&["--channel"], b"hello", "--channel wants a value"),
        (&["--channel=", "hello"], b"", "--channel wants a value"),
        (&[], b"\n", "there is nothing to send"),
    ] {
        let output = run(arguments, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with(&format!("push.php: {complaint}\nusage: ")), "{arguments:?}: {said}");
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]), "{arguments:?}");
    }
}
