//! `longwire bench`, as a user runs it: it must find every fault of a script and count it exactly.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;

use crate::support::echo::EACH_FRAMING;
use crate::support::longwire::Longwire;
use crate::support::php_fpm::{PhpFpm, Pool};
use crate::support::proxy::{Proxy, free_address};
use crate::support::tls::{Authority, table};

const ECHO: &str = "echo file_get_contents('php://input');";

/// Echoes, with a fault for some clients: no reply, a repeated reply, two swapped replies, or a broken one.
const FAULTY: &str = r#"
$data = file_get_contents('php://input');
$number = (int) substr($data, 7, 10);
$other = fn(int $n) => substr_replace($data, sprintf('%010d', $n), 7, 10);
header('Longwire-Stream: lines');
$replies = [$data];
switch ((int) substr($data, 0, 6)) {
    case 0: if (in_array($number, [5, 9])) $replies = []; break;
    case 1: if (in_array($number, [10, 20, 30])) $replies = [$data, $data]; break;
    case 2:
        if (in_array($number, [4, 14, 24, 34])) $replies = [];
        if (in_array($number, [5, 15, 25, 35])) $replies = [$data, $other($number - 1)];
        break;
    case 3: if ($number >= 40 && $number < 45) $replies = [strtr($data, 'g', 'G')]; break;
}
foreach ($replies as $reply) echo $reply, "\n";
"#;

/// Joins the session if it asks for that. Publishes every other message, but drops the fifth and changes the seventh.
const CHANNEL: &str = r#"
$data = file_get_contents('php://input');
if ($data === 'join') {
    header('Longwire-Join: news');
    exit('joined');
}
header('Longwire-To: channel:news');
$number = isset($_SERVER['FAULTY']) ? (int) substr($data, 7, 10) : -1;
if ($number !== 5) echo $number === 7 ? 'something else' : $data;
"#;

/// Joins the session to the channel that the message names, or always to room0.
const ROOMS: &str = r#"
[$word, $room] = explode(' ', file_get_contents('php://input')) + [1 => ''];
header('Longwire-Join: ' . (isset($_SERVER['FAULTY']) ? 'room0' : $room));
echo $word;
"#;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.arg("bench").args(args).stdin(Stdio::null());
    command
}

fn bench(args: &[&str]) -> Output {
    command(args).output().expect("the binary was built for this test")
}

/// Runs `bench` and returns its report.
#[track_caller]
fn report(args: &[&str]) -> Value {
    let Output { status, stdout, stderr } = bench(&[args, &["--json", "--quiet"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{args:?}: {stdout}{stderr}");
    assert_eq!(stderr, "", "{args:?}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((events, lines.len()), (vec!["connected", "begin", "end"], 4), "{args:?}: {stdout}");
    lines[3].clone()
}

#[track_caller]
fn check(report: &Value, expected: &[(&str, u64)]) {
    for (field, expected) in expected {
        assert_eq!(report[field].as_u64(), Some(*expected), "{field} of {report:#}");
    }
}

#[track_caller]
fn number(report: &Value, field: &str) -> u64 {
    report[field].as_u64().unwrap_or_else(|| panic!("{field} is not a number in {report:#}"))
}

fn node(fpm: &PhpFpm, code: &str, app: &str, listeners: &str) -> Longwire {
    Longwire::with(fpm, &fpm.script("handler.php", code), app, "", listeners)
}

const FAULTLESS: [(&str, u64); 6] =
    [("lost", 0), ("repeated", 0), ("out_of_order", 0), ("wrong", 0), ("timeouts", 0), ("in_flight_at_end", 0)];

#[test]
fn every_way_to_the_same_script_is_measured() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let (_nginx, nginx) = Proxy::nginx_before(&fpm);
    let urls = [
        format!("tcp://{}", node.address("length")),
        format!("ws://{}/ws", node.address("web")),
        format!("http://{nginx}/handler.php"),
    ];
    for url in &urls {
        let pid = node.pid().to_string();
        let found = report(&["echo", url, "--connections=4", "--warm-up=0s", "--duration=300ms", "--pid", &pid]);
        check(&found, &FAULTLESS[..5]);
        check(&found, &[("connections", 4), ("connected", 4), ("in_flight", 1), ("message_bytes", 64), ("unsent", 0)]);
        let (sent, replies) = (number(&found, "sent"), number(&found, "replies"));
        assert!(sent >= 4 && replies > 0, "{found:#}");
        // All messages were sent in the measured time. So were the replies, except those on their way at its end.
        assert_eq!(replies + number(&found, "in_flight_at_end"), sent, "{found:#}");
        assert_eq!(found["errors"], Value::Array(vec![]), "{found:#}");
        assert_eq!(found["latency"]["count"].as_u64(), Some(sent), "{found:#}");
    }
}

#[test]
fn what_a_script_loses_repeats_swaps_and_corrupts_is_counted_exactly() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, FAULTY, "", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let found = report(&[
        "echo",
        &url,
        "--connections=5",
        "--in-flight=4",
        "--rate=400",
        "--warm-up=0s",
        "--duration=1s",
        "--timeout=1s",
    ]);
    check(&found, &[("lost", 2), ("timeouts", 2), ("repeated", 3), ("out_of_order", 4), ("wrong", 5)]);
    assert_eq!(found["errors"][0]["kind"], "timeout", "{found:#}");
    assert_eq!((found["errors"].as_array().unwrap().len(), number(&found["errors"][0], "count")), (1, 2));
}

#[test]
fn a_stall_shows_in_every_message_that_it_delayed() {
    let fpm = Pool::of(2).start();
    let stall = "$data = file_get_contents('php://input');\n\
                 if (strncmp($data, '000000 0000000020', 17) === 0) usleep(1200000);\necho $data;";
    let node = node(&fpm, stall, "", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let found = report(&["echo", &url, "--connections=2", "--rate=200", "--warm-up=0s", "--duration=2s"]);
    check(&found, &FAULTLESS[..5]);
    // Client 0 has one message that took 1.2 s, and 119 messages that were due meanwhile. So of 400 messages more than a tenth were late
    // by 0.6 s.
    assert_eq!(found["latency_from"], "intended");
    check(&found, &[("clients_silent_over_1s", 1)]);
    assert!(found["latency"]["p90_us"].as_f64().unwrap() > 600_000.0, "{found:#}");
    let due = number(&found, "sent") + number(&found, "unsent");
    assert_eq!(found["latency"]["count"].as_u64(), Some(due), "{found:#}");
}

#[test]
fn each_door_publishes_to_every_subscriber_once() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, CHANNEL, "", EACH_FRAMING);
    let (tcp, web) = (node.address("length"), node.address("web"));
    let subscribers = [format!("tcp://{tcp}"), format!("ws://{web}/ws")];
    let doors = [
        format!("router://{}/news", node.address("router")),
        format!("http://{}/v1/send?to=channel:news", node.address("api")),
        format!("tcp://{tcp}"),
        format!("ws://{web}/ws"),
    ];
    for (at, door) in doors.iter().enumerate() {
        let url = &subscribers[at % 2];
        let how = if at < 2 { "--window=3" } else { "--rate=50" };
        let found = report(&[
            "fanout",
            url,
            "--publish",
            door,
            "--say=join",
            "--connections=20",
            how,
            "--warm-up=0s",
            "--duration=300ms",
        ]);
        check(&found, &FAULTLESS[..4]);
        let published = number(&found, "published");
        assert!(published > 0, "{found:#}");
        check(&found, &[("connected", 20), ("messages", published), ("delivered", 20 * published)]);
        assert_eq!(found["latency"]["count"].as_u64(), Some(20 * published), "{found:#}");
        assert_eq!(found["latency_of_last"]["count"].as_u64(), Some(published), "{found:#}");
        assert_eq!(found["errors"], Value::Array(vec![]), "{found:#}");
    }
}

#[test]
fn a_delivery_that_is_not_made_or_not_the_message_is_counted_for_each_subscriber() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, CHANNEL, "params = { FAULTY = \"1\" }", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let found = report(&[
        "fanout",
        &url,
        "--publish",
        &url,
        "--say=join",
        "--connections=20",
        "--rate=50",
        "--warm-up=0s",
        "--duration=400ms",
        "--timeout=1s",
    ]);
    let published = number(&found, "published");
    assert!(published > 8, "{found:#}");
    check(&found, &[("wrong", 20), ("lost", 40), ("repeated", 0), ("delivered", 20 * (published - 2))]);
}

#[test]
fn channels_take_turns_and_each_message_reaches_the_subscribers_of_its_own() {
    let fpm = Pool::of(2).start();
    for (app, is_faulty) in [("", false), ("params = { FAULTY = \"1\" }", true)] {
        let node = node(&fpm, ROOMS, app, EACH_FRAMING);
        let (url, door) = (
            format!("tcp://{}", node.address("length")),
            format!("router://{}/room{{channel}}", node.address("router")),
        );
        let found = report(&[
            "fanout",
            &url,
            "--publish",
            &door,
            "--say=join room{channel}",
            "--connections=6",
            "--channels=3",
            "--rate=100",
            "--warm-up=0s",
            "--duration=300ms",
            "--timeout=1s",
        ]);
        let published = number(&found, "published");
        assert!(published >= 3, "{found:#}");
        let in_room_0 = published.div_ceil(3);
        let expected = if is_faulty {
            // Every subscriber gets the messages for room 0, and no other messages.
            [("delivered", 2 * in_room_0), ("wrong", 4 * in_room_0), ("lost", 2 * (published - in_room_0))]
        } else {
            [("delivered", 2 * published), ("wrong", 0), ("lost", 0)]
        };
        check(&found, &expected);
        check(&found, &[("connected", 6), ("channels", 3), ("repeated", 0), ("out_of_order", 0)]);
    }
}

#[test]
fn every_framing_and_socket_is_spoken_with_several_messages_in_flight() {
    let authority = Authority::new("test authority");
    let signed = authority.sign("shop", "shop", &["localhost", "127.0.0.1"]);
    let fpm = Pool::of(4).start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("sessions.sock");
    let tls = table(&signed, "");
    let more = format!(
        "{EACH_FRAMING}\n[listeners.unix]\nbind = \"unix:{}\"\napp = \"app\"\n\
         [listeners.tls]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{tls}\n\
         [listeners.wss]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = {{ \"/ws\" = \"app\" }}\n{tls}\n",
        path.display()
    );
    let node = node(&fpm, ECHO, "", &more);
    let ca = authority.ca_file().display().to_string();
    let at = |scheme: &str, listener: &str| format!("{scheme}://{}", node.address(listener));
    let cases: [(String, &[&str]); 7] = [
        (at("tcp", "length"), &["--in-flight=8"]),
        (at("tcp", "delimiter"), &["--in-flight=8", "--framing=delimiter", "--delimiter=<end of frame>"]),
        (at("tcp", "raw"), &["--in-flight=8", "--framing=raw"]),
        (format!("unix:{}", path.display()), &["--in-flight=8"]),
        (at("tls", "tls"), &["--in-flight=8", "--ca", &ca]),
        (format!("{}/ws", at("wss", "wss")), &["--in-flight=8", "--ca", &ca]),
        (at("tls", "tls"), &["--in-flight=8", "--insecure"]),
    ];
    for (url, words) in &cases {
        let found = report(&[&["echo", url, "--connections=3", "--warm-up=0s", "--duration=200ms"], *words].concat());
        check(&found, &FAULTLESS[..5]);
        check(&found, &[("connected", 3)]);
        assert!(number(&found, "replies") > 0, "{found:#}");
        assert_eq!(found["errors"], Value::Array(vec![]), "{found:#}");
    }
    let stranger = bench(&["echo", &at("tls", "tls"), "--connections=3", "--quiet"]);
    let stderr = String::from_utf8_lossy(&stranger.stderr);
    assert!(stranger.status.code() == Some(1) && stderr.contains("certificate"), "{stderr}");
}

#[test]
fn who_publishes_proves_the_secret_or_is_told_that_there_is_one() {
    let fpm = Pool::of(2).start();
    let listeners = "[listeners.length]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n\
                     [router]\nbind = \"127.0.0.1:0\"\nsecret = \"a secret of a shop\"\n";
    let node = node(&fpm, CHANNEL, "", listeners);
    let (url, door) =
        (format!("tcp://{}", node.address("length")), format!("router://{}/news", node.address("router")));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (right, wrong) = (folder.path().join("right"), folder.path().join("wrong"));
    std::fs::write(&right, "a secret of a shop\n").expect("room on the disk");
    std::fs::write(&wrong, "a secret of a shoq\n").expect("room on the disk");
    let (right, wrong) = (right.display().to_string(), wrong.display().to_string());
    let words = ["fanout", &url, "--publish", &door, "--say=join", "--connections=3", "--warm-up=0s"];
    let found = report(&[&words[..], &["--duration=200ms", "--secret-file", &right]].concat());
    let published = number(&found, "published");
    assert!(published > 0, "{found:#}");
    check(&found, &[("delivered", 3 * published), ("lost", 0)]);
    // A router port that asks for no secret may be an impostor, so the run is refused.
    let open = self::node(&fpm, CHANNEL, "", EACH_FRAMING);
    let (open_url, open_door) =
        (format!("tcp://{}", open.address("length")), format!("router://{}/news", open.address("router")));
    let words_to_open = ["fanout", &open_url, "--publish", &open_door, "--say=join", "--connections=3", "--warm-up=0s"];
    let output = bench(&[&words_to_open[..], &["--quiet", "--secret-file", &right]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("does not ask for the secret"), "{stderr}");
    for (more, reason) in [(&["--secret-file", &wrong][..], "the router port"), (&[], "--secret-file")] {
        let output = bench(&[&words[..], &["--quiet"], more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && stderr.contains(reason), "{more:?}: {stderr}");
    }
}

/// A server that answers one request per connection. The FIN comes in the same segment as the answer.
fn ends_with_each_answer(head: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket takes it");
            let mut reader = BufReader::new(&socket);
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().expect("a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_ok() && length > 0 {
                let answer = [head.replace("LENGTH", &length.to_string()).as_bytes(), &body].concat();
                // MSG_MORE holds the answer back until the FIN, which then carries it.
                let _gone = SockRef::from(&socket).send_with_flags(&answer, libc::MSG_MORE);
            }
        }
    });
    address
}

#[test]
fn an_end_that_comes_with_the_answer_is_noticed() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\n\r\n"] {
        let url = format!("http://{}/", ends_with_each_answer(head));
        let found = report(&["echo", &url, "--connections=2", "--warm-up=0s", "--duration=1s", "--timeout=500ms"]);
        check(&found, &FAULTLESS[..5]);
        assert_eq!(found["errors"], Value::Array(vec![]), "{found:#}");
        let (sent, replies) = (number(&found, "sent"), number(&found, "replies"));
        assert!(replies > 20 && replies + number(&found, "in_flight_at_end") == sent, "{found:#}");
    }
}

#[test]
fn ctrl_c_ends_a_run_with_the_report_of_what_there_was() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let words = ["echo", &url, "--connections=2", "--warm-up=0s", "--duration=10m", "--json"];
    let mut command = command(&words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built for this test");
    // One progress line per second, with the number of replies so far.
    let mut progress =
        BufReader::new(child.stderr.take().expect("it is piped")).lines().map(|line| line.expect("text"));
    assert!(progress.any(|line| line.contains(" replies") && !line.contains(" 0 replies")));
    // SAFETY: a signal to a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map(|line| line.expect("text"));
    let found: Value = serde_json::from_str(&lines.last().expect("a report")).expect("JSON");
    assert_eq!(found["interrupted"], true, "{found:#}");
    assert!(found["window_s"].as_f64().unwrap() < 590.0, "{found:#}");
    check(&found, &[("lost", 0), ("wrong", 0), ("connected", 2)]);
    let status = child.wait().expect("it was started");
    assert!(status.success(), "{status}");
}

#[test]
fn idle_connections_are_held_and_their_end_is_noticed() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let url = format!("ws://{}/ws", node.address("web"));
    let pid = node.pid().to_string();
    let found = report(&["idle", &url, "--connections=50", "--say=hello", "--hold=200ms", "--pid", &pid]);
    check(&found, &[("connected", 50), ("answered", 50), ("still_open", 50), ("closed", 0), ("frames", 0)]);
    assert_eq!(found["processes"][0]["pid"].as_u64(), Some(node.pid().into()));
    assert!(number(&found["processes"][0], "pss_bytes") > 0, "{found:#}");
}

#[test]
fn connections_that_come_and_go_are_counted_as_the_server_counts_them() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let url = format!("ws://{}/ws", node.address("web"));
    let found = report(&["accept", &url, "--parallel=4", "--say=hello", "--warm-up=0s", "--duration=300ms"]);
    let accepted = number(&found, "accepted");
    assert!(accepted > 0, "{found:#}");
    check(&found, &[("failed", 0)]);
    assert_eq!(found["latency"]["count"].as_u64(), Some(accepted));
    // A few more connections came before the measured time began, or were open when it ended.
    let closed = node.closed(accepted as usize).len() as u64;
    assert!((accepted..=accepted + 40).contains(&closed), "{closed} sessions of {found:#}");
}

#[test]
fn who_connects_over_tcp_and_hears_nothing_waits_for_the_end_so_that_the_server_has_accepted() {
    let fpm = Pool::of(4).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let found = report(&["accept", &url, "--parallel=4", "--warm-up=0s", "--duration=300ms"]);
    let accepted = number(&found, "accepted");
    assert!(accepted > 0, "{found:#}");
    check(&found, &[("failed", 0)]);
    let closed = node.closed(accepted as usize);
    let by_client = closed.iter().filter(|line| line["reason"] == "client_closed").count() as u64;
    assert!(by_client >= accepted, "{by_client} of {} sessions, {accepted} connections", closed.len());
    // The kernel completes connections for a process that never accepts, so they are never closed.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("tcp://{}", listener.local_addr().expect("it is bound"));
    let output = bench(&["accept", &url, "--parallel=2", "--quiet", "--timeout=200ms"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("no close from the server in time"), "{stderr}");
}

#[test]
fn a_run_of_which_nothing_comes_ends_with_status_1_and_the_reason() {
    let fpm = Pool::of(1).start();
    let node =
        node(&fpm, "http_response_code(403); echo 'not you';", "events = [\"connect\", \"message\"]", EACH_FRAMING);
    let (closed, web) = (format!("tcp://{}", free_address()), format!("ws://{}/ws", node.address("web")));
    let quick = ["--connections=3", "--quiet"];
    let cases: [(&[&str], &str); 5] = [
        (&["echo", &closed], "Connection refused"),
        (&["idle", &closed], "Connection refused"),
        (&["fanout", &closed, "--publish", &closed], "Connection refused"),
        (&["echo", &web], "the handshake was refused with 403: not you"),
        (&["idle", &web], "the handshake was refused with 403: not you"),
    ];
    for (args, reason) in cases {
        let output = bench(&[args, &quick].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains(reason) && stderr.contains("of 3"), "{args:?}: {stderr}");
    }
    let output = bench(&["accept", &closed, "--parallel=3", "--quiet", "--warm-up=0s", "--duration=200ms", "--json"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("Connection refused"), "{stderr}");
    assert!(!stdout.contains("\"connected\""), "no client was connected: {stdout}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let tcp = "tcp://127.0.0.1:1";
    let router = "router://127.0.0.1:1/room";
    let cases: [(&[&str], &str); 11] = [
        (&["fanout", tcp, "--publish", router, "--channels=2"], "--channels 2: {channel} is not in"),
        (&["fanout", tcp, "--publish", tcp, "--channels=2"], "--channels is for --publish router://"),
        (&["fanout", tcp, "--publish", router, "--channels=4", "--connections=3"], "4 channels for 3 subscribers"),
        (
            &["echo", tcp, "--bytes=17"],
            "--bytes 17 is too small for the stamp at the start of each message: at least 18",
        ),
        (&["fanout", tcp, "--publish", tcp, "--bytes=31"], "at least 32"),
        (&["echo", "http://127.0.0.1:1/", "--in-flight=2"], "--in-flight"),
        (&["echo", tcp, "--connections=0"], "must be a whole number, at least 1"),
        (&["echo", tcp, "--rate=0"], "from 0.001 to 1000000000"),
        (&["fanout", tcp, "--publish", tcp, "--rate=1", "--window=2"], "--window"),
        (&["echo", "gopher://127.0.0.1:1"], "gopher"),
        (&["idle", tcp, "--pid=4194305"], "--pid 4194305: no such process"),
    ];
    for (args, reason) in cases {
        let output = bench(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
    }
}

#[test]
fn people_get_a_table_in_the_order_of_the_report() {
    let fpm = Pool::of(2).start();
    let node = node(&fpm, ECHO, "", EACH_FRAMING);
    let url = format!("tcp://{}", node.address("length"));
    let output = bench(&["echo", &url, "--connections=2", "--warm-up=0s", "--duration=100ms", "--quiet"]);
    let table = String::from_utf8(output.stdout).expect("it is text");
    let places = ["mode ", "url ", "connections ", "replies/s ", "latency ", "lost "].map(|name| {
        table.lines().position(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{table}"))
    });
    assert!(places.is_sorted(), "{table}");
}
