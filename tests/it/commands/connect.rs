//! `longwire connect`, as a user or a script runs it, against servers of the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use futures_util::{SinkExt, StreamExt};
use tokio_websockets::{CloseCode, Message, ServerBuilder};

use crate::support::echo::ECHO;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::Pool;
use crate::support::tls::{Authority, table};

fn connect(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.arg("connect").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary was built for this test")
}

/// Runs the command to its end with `input` on standard input. Returns the status, the frames (standard output) and the notes about the
/// connection (standard error).
fn talk(args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = connect(args);
    let mut stdin = child.stdin.take().unwrap();
    // The child may end without reading its input.
    let _unread = stdin.write_all(input.as_bytes());
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

/// A server that echoes. When the client has closed, the channel gets all received bytes.
fn tcp_echo() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (got_tx, got) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut all, mut piece) = (Vec::new(), [0; 1024]);
        loop {
            match stream.read(&mut piece).unwrap() {
                0 => break,
                len => {
                    stream.write_all(&piece[..len]).unwrap();
                    all.extend_from_slice(&piece[..len]);
                }
            }
        }
        got_tx.send(all).unwrap();
    });
    (address, got)
}

/// A server that sends `bytes` and closes. It reads to the end first, so that the close is not a reset.
fn tcp_say(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _until_closed = stream.read_to_end(&mut Vec::new());
    });
    address
}

/// A server that reads a request, answers with `bytes` and closes.
fn http_say(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        stream.get_mut().write_all(bytes).unwrap();
    });
    address
}

/// A WebSocket server that sends a ping first and then echoes. It closes with 4001 on "bye", drops the connection on "vanish", and answers
/// "header" with the X-Test header of the handshake.
fn websocket_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let (request, mut socket) = ServerBuilder::new().accept(stream).await.unwrap();
            let header = request.headers().get("x-test").map_or("", |value| value.to_str().unwrap()).to_owned();
            socket.send(Message::ping("are you there")).await.unwrap();
            let (mut answered, mut vanishes) = (false, false);
            while let Some(Ok(message)) = socket.next().await {
                answered |= message.is_pong() && message.as_payload()[..] == b"are you there"[..];
                match message.as_text() {
                    Some("bye") => {
                        let code = CloseCode::try_from(4001).unwrap();
                        socket.send(Message::close(Some(code), "so long")).await.unwrap();
                    }
                    Some("vanish") => vanishes = true,
                    Some("header") => socket.send(Message::text(header.clone())).await.unwrap(),
                    Some("pong?") => socket.send(Message::text(answered.to_string())).await.unwrap(),
                    _ if message.is_text() || message.is_binary() => socket.send(message).await.unwrap(),
                    _ => {}
                }
                // Read the pong first; with unread bytes the close would be a reset.
                if vanishes && answered {
                    return;
                }
            }
        });
    });
    address
}

fn script(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// The output without the times, which differ in each run.
fn without_times(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.split("  (").next().unwrap())).collect()
}

#[test]
fn each_framing_puts_its_bytes_on_the_wire_and_finds_the_reply() {
    for (options, wire) in [
        (&[][..], &b"\0\0\0\x02hi"[..]),
        (&["--length-bytes", "2", "--length-endian", "little", "--length-counts", "frame"], b"\x04\0hi"),
        (&["--length-bytes", "1", "--length-offset", "1", "--header-bytes", "4"], b"\0\x02\0\0hi"),
        (&["--framing", "delimiter"], b"hi\n"),
        (&["--framing", "delimiter", "--delimiter", "\\r\\n\\x00"], b"hi\r\n\0"),
        (&["--framing", "raw"], b"hi"),
    ] {
        let (address, got) = tcp_echo();
        let url = format!("tcp://{address}");
        let args = [&[url.as_str(), "--send", "hi"], options].concat();
        let (status, frames, notes) = talk(&args, "");
        assert_eq!((status, without_times(&frames).as_str()), (0, "> hi\n< hi\n"), "{options:?}: {notes}");
        assert!(notes.starts_with(&format!("connected to {url} in ")), "{notes}");
        assert!(notes.ends_with("the server closed\n"), "{notes}");
        assert_eq!(got.recv().unwrap(), wire, "{options:?}");
    }
}

#[test]
fn lines_of_standard_input_are_frames_and_all_their_replies_are_awaited() {
    let (address, _got) = tcp_echo();
    let (status, frames, notes) = talk(&[&format!("tcp://{address}"), "--quiet"], "one\n\ntwo\nthree");
    assert_eq!((status, frames.as_str(), notes.as_str()), (0, "one\n\ntwo\nthree\n", ""));
}

#[test]
fn escapes_are_read_when_asked_for_and_binary_is_shown_as_hex() {
    let (address, got) = tcp_echo();
    let (status, frames, notes) =
        talk(&[&format!("tcp://{address}"), "--escape", "--send", "a\\x00\\n", "--send-hex", "ff 1b"], "");
    assert_eq!(status, 0, "{notes}");
    assert_eq!(got.recv().unwrap(), b"\0\0\0\x03a\0\n\0\0\0\x02\xff\x1b");
    assert!(frames.contains("< 3 bytes") && frames.contains("  000000  61 00 0a  "), "{frames}");
    assert!(frames.contains("< 2 bytes") && frames.contains("  000000  ff 1b  "), "{frames}");
}

#[test]
fn a_unix_socket_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"\0\0\0\x07welcome").unwrap();
    });
    let (status, frames, notes) = talk(&[&format!("unix:{}", path.display()), "--send", "hi", "--quiet"], "");
    assert_eq!((status, frames.as_str()), (0, "welcome\n"), "{notes}");
}

#[test]
fn a_server_that_goes_too_early_is_a_failure_with_its_reason() {
    for (says, part) in [
        (&b""[..], "the server closed before all replies had come"),
        (b"\0\0\0\x09half", "the server closed in the middle of a frame"),
        (b"\xff\xff\xff\xff", "the server broke the framing"),
    ] {
        let (status, frames, notes) = talk(&[&format!("tcp://{}", tcp_say(says)), "--send", "hi"], "");
        assert_eq!((status, frames.as_str()), (1, "> hi\n"), "{notes}");
        assert!(notes.contains(part), "{part} is not in {notes}");
    }
}

#[test]
fn a_reply_that_does_not_come_is_waited_for_only_so_long() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let (status, _, notes) = talk(&[&url, "--send", "hi", "--timeout", "50ms"], "");
    assert_eq!(status, 1);
    assert!(notes.ends_with("longwire: no frame within 50ms\n"), "{notes}");
}

#[test]
fn nobody_there_and_a_wrong_url_are_said_in_one_line() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("tcp://127.0.0.1:{port}");
    let (status, _, notes) = talk(&[&url, "--send", "hi"], "");
    assert_eq!((status, notes), (1, format!("longwire: cannot connect to {url}: Connection refused (os error 111)\n")));
    let (status, _, notes) = talk(&["http://127.0.0.1/", "--send", "hi"], "");
    assert_eq!(status, 1);
    assert!(
        notes.contains(
            "is not tcp://host:port, tls://host:port, unix:/path, ws://host:port/path or wss://host:port/path"
        ),
        "{notes}"
    );
}

#[test]
fn websocket_frames_go_both_ways_with_headers_pings_and_both_kinds() {
    let url = format!("ws://{}/ws?room=1", websocket_server());
    let args = ["--header", "X-Test: 7", "--send", "header", "--send", "grün", "--send", "pong?", "--send-hex", "00ff"];
    let (status, frames, notes) = talk(&[&[url.as_str()], &args[..]].concat(), "");
    assert_eq!(status, 0, "{notes}");
    let replies: Vec<_> = frames.lines().filter_map(|line| line.strip_prefix("< ")).map(without_times).collect();
    assert_eq!(replies, ["7\n", "grün\n", "true\n", "2 bytes\n"]);
    assert!(notes.contains("the server closed with 1000"), "{notes}");
}

#[test]
fn a_frame_larger_than_any_buffer_comes_back() {
    let url = format!("ws://{}/", websocket_server());
    let line = "x".repeat(3_000_000);
    let (status, frames, notes) = talk(&[&url, "--quiet"], &format!("{line}\n"));
    assert_eq!(status, 0, "{notes}");
    assert_eq!(frames.trim_end(), line);
}

#[test]
fn a_script_that_holds_ends_well() {
    let url = format!("ws://{}/", websocket_server());
    let file = script(
        "# a talk\nsend hello\nsend again\nwait 20ms\nexpect hello\nexpect again\nhex 00 ff\nexpect-hex 00ff\nsend bye\nexpect-close 4001\n",
    );
    let (status, frames, notes) = talk(&[&url, "--exec", file.path().to_str().unwrap()], "");
    assert_eq!(status, 0, "{frames}{notes}");
    assert!(notes.contains("the server closed with 4001 \"so long\""), "{notes}");
}

#[test]
fn a_script_from_standard_input_fails_at_its_line() {
    for (orders, part) in [
        ("send a\nexpect b\n", "-:2: expected \"b\", got \"a\""),
        ("send bye\nexpect b\n", "-:2: expected \"b\", but the server closed with 4001 \"so long\""),
        ("send a\nexpect-close\n", "-:2: expected a close, got \"a\""),
        (
            "send bye\nexpect-close 4002\n",
            "-:2: expected another close code, but the server closed with 4001 \"so long\"",
        ),
        ("send vanish\nexpect-close 1000\n", "-:2: expected another close code, but the server closed\n"),
        ("expect a\n", "-:1: expected \"a\": no frame within 200ms"),
        ("sned a\n", "-:1: \"sned a\" is not send"),
    ] {
        let url = format!("ws://{}/", websocket_server());
        let (status, frames, notes) = talk(&[&url, "--timeout", "200ms", "--exec", "-"], orders);
        assert_eq!(status, 1, "{orders}: {frames}{notes}");
        assert!(notes.contains(part), "{orders}: {notes}");
    }
}

#[test]
fn a_refused_handshake_shows_status_and_body() {
    for (answer, part) in [
        (&b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nno \x1bentry"[..], "refused the handshake with 403 Forbidden: no  entry"),
        (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n", "does not match our key"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "handshake failed"),
        (b"", "handshake failed"),
    ] {
        let (status, _, notes) = talk(&[&format!("ws://{}/", http_say(answer)), "--send", "hi"], "");
        assert_eq!(status, 1);
        assert!(notes.contains(part), "{part} is not in {notes}");
    }
}

#[test]
fn a_server_that_closes_ends_an_idle_talk() {
    let url = format!("tcp://{}", tcp_say(b"\0\0\0\x02hi"));
    let mut child = connect(&[&url]);
    // Standard input stays open, but nothing is typed.
    let open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(open);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"< hi\n"[..]));
}

#[test]
fn tls_is_spoken_with_whom_the_authority_has_signed_and_with_anybody_if_that_is_wished() {
    let authority = Authority::new("Test Authority");
    let tls = table(&authority.sign("server", "localhost", &["localhost"]), "");
    let fpm = Pool::of(1).start();
    let script = fpm.script("echo.php", ECHO);
    let listeners = format!(
        "[listeners.tcp]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{tls}[listeners.web]\nbind = \"127.0.0.1:0\"\n\
         protocol = \"http\"\nroutes = {{ \"/ws\" = \"app\" }}\n{tls}"
    );
    let node = Longwire::with(&fpm, &script, "", "", &listeners);
    let ca_file = authority.ca_file().display().to_string();
    let urls = |host: &str| {
        let (tcp, web) = (node.address("tcp").port(), node.address("web").port());
        [format!("tls://{host}:{tcp}"), format!("wss://{host}:{web}/ws")]
    };
    for url in urls("localhost") {
        let (status, frames, notes) = talk(&[&url, "--quiet", "--ca", &ca_file, "--send", "hello"], "");
        assert_eq!((status, frames.as_str()), (0, "hello\n"), "{url}: {notes}");
        let (status, _, notes) = talk(&[&url, "--send", "hello"], "");
        assert_eq!(status, 1);
        let is_unknown = notes.contains(&format!("cannot connect to {url}: invalid peer certificate: "));
        assert!(is_unknown || notes.contains("this system trusts no authority"), "{notes}");
    }
    for url in urls("127.0.0.1") {
        let (status, _, notes) = talk(&[&url, "--ca", &ca_file, "--send", "hello"], "");
        assert_eq!(status, 1);
        assert!(notes.contains("not valid for name"), "{notes}");
        let (status, frames, notes) = talk(&[&url, "--quiet", "--insecure", "--send", "hello"], "");
        assert_eq!((status, frames.as_str()), (0, "hello\n"), "{url}: {notes}");
    }
    let (status, _, notes) = talk(&["tls://localhost:1", "--ca", "/nowhere.pem", "--send", "hello"], "");
    assert_eq!(status, 1);
    assert!(notes.contains("--ca /nowhere.pem: "), "{notes}");
}
