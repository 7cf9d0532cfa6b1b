//! Device protocols, with the framing lines of README.md. The packets are published ones, or are built from the published layout with
//! checksums computed here.

use std::path::Path;
use std::time::{Duration, Instant};

use longwire::config::model::{Config, Protocol};
use longwire::proto::framing::{Decoder, FrameKind, Framing, Item};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::longwire::Longwire;
use crate::support::php_fpm::{Pool, wait_until};

const README: &str = include_str!("../../../README.md");

const PATIENCE: Duration = Duration::from_secs(60);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("two hex digits");
    digits.chunks(2).map(byte).collect()
}

/// The line that README.md has for a protocol.
fn line(protocol: &str) -> &'static str {
    let (_, section) = README.split_once("\n### Devices\n").expect("there is such a section");
    let row = section.lines().find(|line| line.starts_with(&format!("| {protocol}"))).expect("it has the protocol");
    row.split('`').nth(1).expect("the line stands between backticks")
}

/// The framing that README.md's line configures.
fn framing(protocol: &str) -> Framing {
    let text = format!(
        "[listeners.devices]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{}\n[apps.app]\nupstream = \"php\"\nscript = \"a.php\"\n\
         check_script = false\n[upstreams.php]\nbackends = [\"127.0.0.1:9000\"]\n",
        line(protocol)
    );
    let parsed = Config::parse(&text, Path::new("longwire.toml"));
    let (config, warnings) = parsed.unwrap_or_else(|errors| panic!("{protocol}: {errors}"));
    assert!(warnings.is_empty(), "{protocol}: {warnings:?}");
    let Protocol::Stream { framing, .. } = &config.listeners[0].protocol else { panic!("the listener is a stream's") };
    framing.framing().expect("no script is needed")
}

/// Checks packets in pairs: as PHP sees them, and as they are on the wire. The wire bytes are cut into pieces of every size.
fn check(protocol: &str, packets: &[(Vec<u8>, Vec<u8>)]) {
    let framing = framing(protocol);
    let wire: Vec<u8> = packets.iter().flat_map(|(_, wire)| wire.clone()).collect();
    for size in 1..=wire.len() {
        let mut decoder = Decoder::new(&framing);
        let mut found = Vec::new();
        for mut piece in wire.chunks(size) {
            while !piece.is_empty() {
                let (taken, item) = decoder.decode(&framing, 4096, piece).unwrap_or_else(|e| panic!("{protocol}: {e}"));
                piece = &piece[taken..];
                match item {
                    Some(Item::Frame(frame)) => found.push(frame.body.to_vec()),
                    other => assert_eq!(other, None),
                }
            }
        }
        assert!(!decoder.is_mid_frame(), "{protocol} by {size}");
        assert!(found.iter().eq(packets.iter().map(|(seen, _)| seen)), "{protocol} by {size}: {found:02x?}");
    }
    for (seen, wire) in packets {
        // PHP prints packets in the same form in which it sees them.
        assert_eq!(framing.encode(FrameKind::Binary, seen).unwrap(), wire, "{protocol}");
    }
}

fn xor(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// A CRC of 16 bits whose polynomial is given with its lowest bit first.
fn crc(bytes: &[u8], polynomial: u16) -> u16 {
    let bit = |crc: u16| if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
    bytes.iter().fold(0xffff, |crc, byte| (0..8).fold(crc ^ u16::from(*byte), |crc, _| bit(crc)))
}

/// JT/T 808-2013 section 4.4: header, body, checksum, then flags and escapes.
fn jtt808(id: u16, serial: u16, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let phone = hex("013800138000");
    let header = [&id.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), &phone, &serial.to_be_bytes()].concat();
    let mut seen = [&header[..], body].concat();
    seen.push(xor(&seen));
    (seen.clone(), escaped(&seen))
}

fn escaped(packet: &[u8]) -> Vec<u8> {
    let mut wire = vec![0x7e];
    for byte in packet {
        match byte {
            0x7e => wire.extend([0x7d, 2]),
            0x7d => wire.extend([0x7d, 1]),
            byte => wire.push(*byte),
        }
    }
    wire.push(0x7e);
    wire
}

#[test]
fn jtt808_packets_lose_their_flags_and_escapes() {
    // A heartbeat and a registration of real trackers.
    let published = [
        "7e0002000004304832546500b7ca7e",
        "7e0100002d0141305678720024002c012f373031313142534a2d41362d424400000000000000000000003035363738373201d4c1423838383838\
         6d7e",
    ];
    let mut packets: Vec<_> = published
        .iter()
        .map(|packet| {
            let wire = hex(packet);
            (wire[1..wire.len() - 1].to_vec(), wire)
        })
        .collect();
    // A serial number and a body in which both bytes have to be escaped.
    packets.push(jtt808(0x0002, 0x7e7d, b""));
    packets.push(jtt808(0x0900, 1, &hex("417e7d7d017d027e42")));
    for (seen, _) in &packets {
        assert_eq!(xor(seen), 0, "{seen:02x?}");
    }
    check("JT/T 808", &packets);
    // One flag between two packets.
    let (first, second) = (jtt808(2, 1, b""), jtt808(2, 2, b""));
    let framing = framing("JT/T 808");
    let mut decoder = Decoder::new(&framing);
    let wire = [&first.1[..], &second.1[1..]].concat();
    let (taken, _) = decoder.decode(&framing, 4096, &wire).unwrap();
    let (_, item) = decoder.decode(&framing, 4096, &wire[taken..]).unwrap();
    assert!(matches!(item, Some(Item::Frame(frame)) if frame.body == second.0));
}

#[test]
fn jtt809_packets_have_two_bytes_that_begin_codes() {
    // Section 4.3: a start and an end byte, and CRC-CCITT before the end byte. Only the bytes between matter here.
    let seen = hex("000000485b5a5d5e020000000100");
    let wire = hex("5b 00000048 5a01 5a02 5e01 5e02 020000000100 5d");
    check("JT/T 809", &[(seen, wire)]);
}

#[test]
fn gbt32960_packets_end_after_the_checksum_that_their_length_leaves_out() {
    // GB/T 32960.3-2016 tables 2 and 6: a login, and a heartbeat without data.
    let packet = |command: u8, data: &[u8]| {
        let mut packet =
            [&b"##"[..], &[command, 0xfe], b"LSVAU2180N2183294", &[1], &(data.len() as u16).to_be_bytes(), data]
                .concat();
        packet.push(xor(&packet[2..]));
        (packet.clone(), packet)
    };
    let login = [&[26, 11, 30, 12, 0, 0, 0, 1][..], b"89860123456789012345", &[1, 0]].concat();
    check("GB/T 32960", &[packet(1, &login), packet(7, b"")]);
}

#[test]
fn modbus_tcp_packets_are_as_long_as_their_header_says() {
    // A request for three registers, and its answer.
    let packets = ["0001 0000 0006 11 03 006b 0003", "0001 0000 0009 11 03 06 ae41 5652 4340"].map(hex);
    check("Modbus TCP", &packets.map(|packet| (packet.clone(), packet)));
}

#[test]
fn gt06_packets_have_a_start_a_length_of_one_byte_and_an_end() {
    // A login and its answer, from the protocol's description, and a login of a real tracker.
    let packets =
        ["78780d01012345678901234500018cdd0d0a", "787805010001d9dc0d0a", "78780d01086471700328358100093f040d0a"];
    let packets = packets.map(hex);
    for packet in &packets {
        let (counted, sum) = packet[2..packet.len() - 2].split_at(packet.len() - 6);
        assert_eq!(sum, (!crc(counted, 0x8408)).to_be_bytes(), "{packet:02x?}");
    }
    check("GT06", &packets.map(|packet| (packet.clone(), packet)));
}

#[test]
fn smpp_packets_count_themselves() {
    // SMPP 3.4 section 4.1.1: bind_transmitter; section 4.11.1: enquire_link.
    let body = b"SMPP3TEST\0secret08\0SUBMIT1\0\x34\x01\x01\0";
    let header = |len: u32, command: u32, sequence: u32| [len, command, 0, sequence].map(u32::to_be_bytes).concat();
    let bind = [&header(16 + body.len() as u32, 2, 1)[..], body].concat();
    check("SMPP", &[(bind.clone(), bind), (header(16, 0x15, 2), header(16, 0x15, 2))]);
}

#[test]
fn slip_packets_lose_their_ends_and_escapes() {
    // RFC 1055.
    check("SLIP", &[(hex("45c000db28"), hex("c045dbdc00dbdd28c0"))]);
}

#[test]
fn modbus_rtu_packets_end_with_silence() {
    let framing = framing("Modbus RTU");
    let mut decoder = Decoder::new(&framing);
    // A request and its answer; the CRC comes with its low byte first.
    for packet in ["11 03 006b 0003 7687", "11 03 06 ae41 5652 4340 49ad"].map(hex) {
        assert_eq!(crc(&packet, 0xa001), 0, "{packet:02x?}");
        for byte in &packet {
            assert_eq!(decoder.decode(&framing, 256, &[*byte]), Ok((1, None)));
        }
        assert!(matches!(decoder.silence(), Some(Item::Frame(frame)) if frame.body == packet));
        assert_eq!(framing.encode(FrameKind::Binary, &packet).unwrap(), packet);
    }
}

/// A device that knows nothing of Longwire.
struct Device(TcpStream);

impl Device {
    async fn connect(node: &Longwire, listener: &str) -> Self {
        let socket = TcpStream::connect(node.address(listener)).await.expect("the node listens");
        socket.set_nodelay(true).expect("it is a TCP socket");
        Self(socket)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the node reads");
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        let read = timeout(PATIENCE, self.0.read_exact(&mut received)).await;
        read.expect("it comes in time").expect("the node goes on");
        assert!(received == bytes, "{received:02x?} instead of {bytes:02x?}");
    }

    /// All that still comes.
    async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it ends in time").expect("it ends well");
        rest
    }
}

#[tokio::test]
async fn a_tracker_registers_and_is_answered_in_flags_and_escapes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("php-examples/jtt808");
    let text = std::fs::read_to_string(folder.join("longwire.toml")).expect("the example has one");
    assert!(text.contains(line("JT/T 808")), "README.md and the example have the same line");
    let script = format!("script = {:?}", folder.join("handler.php"));
    let text = text.replace("127.0.0.1:8808", "127.0.0.1:0").replace("script = \"handler.php\"", &script);
    let node = Longwire::serve(&text);
    let mut tracker = Device::connect(&node, "trackers").await;
    // The serial number contains the flag byte, so the answer must send it escaped, between flags.
    let (_, register) = jtt808(0x0100, 0x7e01, b"\0\x2c\x01\x2f70111BSJ-A6\0\0\0\0\0\0\0\0\0\0\0\x000567872\x01");
    tracker.send(&register).await;
    let (_, answer) = jtt808(0x8100, 0, b"\x7e\x01\x00013800138000");
    assert_eq!(answer.iter().filter(|byte| **byte == 0x7e).count(), 2, "nothing but the flags");
    tracker.expect(&answer).await;
    // Two heartbeats in one go, cut in the middle of an escape.
    let heartbeats = [jtt808(2, 0x7d00, b"").1, jtt808(2, 3, b"").1].concat();
    let cut = heartbeats.iter().position(|byte| *byte == 0x7d).expect("one byte is escaped") + 1;
    tracker.send(&heartbeats[..cut]).await;
    tracker.send(&heartbeats[cut..]).await;
    tracker.expect(&jtt808(0x8001, 1, &hex("7d00 0002 00")).1).await;
    tracker.expect(&jtt808(0x8001, 2, &hex("0003 0002 00")).1).await;
    assert_eq!(node.metric("longwire_frames_in_total", ""), 3.0, "PHP has run once for each packet");
    // An invalid escape ends the session, because `resync` is not set.
    tracker.send(&hex("7e 41 7d 03 7e")).await;
    assert_eq!(tracker.rest().await, b"");
    let closed = node.closed(1).remove(0);
    assert_eq!(
        (&closed["reason"], &closed["detail"]),
        (&"bad_frame".into(), &"the escape 7d 03 has no meaning".into())
    );
}

#[tokio::test]
async fn silence_ends_a_frame_and_so_does_the_end_of_input() {
    const GAP: Duration = Duration::from_millis(700);
    let fpm = Pool::of(1).start();
    // A meter's answer to a request for registers, if its CRC is right.
    let meter = r#"
        $request = file_get_contents('php://input');
        $crc = 0xffff;
        foreach (unpack('C*', $request) as $byte) {
            for ($crc ^= $byte, $bit = 0; $bit < 8; $bit++) { $crc = $crc & 1 ? $crc >> 1 ^ 0xa001 : $crc >> 1; }
        }
        echo $crc === 0 ? hex2bin('110306ae415652434049ad') : 'bad CRC: ' . bin2hex($request);
    "#;
    let script = fpm.script("meter.php", meter);
    let listener =
        "[listeners.meters]\nbind = \"127.0.0.1:0\"\napp = \"app\"\nframing = { type = \"gap\", gap = \"700ms\" }\n";
    let node = Longwire::with(&fpm, &script, "", "", listener);
    let mut device = Device::connect(&node, "meters").await;
    let (request, answer) = (hex("1103006b00037687"), hex("110306ae415652434049ad"));
    for pieces in [&[3, 5][..], &[8], &[1, 1, 6]] {
        let mut rest = &request[..];
        let mut last_sent = Instant::now();
        for len in pieces {
            let (piece, later) = rest.split_at(*len);
            last_sent = Instant::now();
            device.send(piece).await;
            rest = later;
        }
        device.expect(&answer).await;
        assert!(last_sent.elapsed() >= GAP, "answered before the silence was over");
    }
    // The bytes before the end of input are a whole frame.
    device.send(&request).await;
    device.0.shutdown().await.expect("it is open");
    assert_eq!(device.rest().await, answer);
    assert_eq!(node.closed(1)[0]["reason"], "client_closed");
    assert_eq!(node.metric("longwire_frames_in_total", ""), 4.0);
}

#[tokio::test]
async fn bytes_that_silence_has_not_ended_are_no_frame_to_a_session_that_is_closed() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("meter.php", "touch(__DIR__ . '/ran'); echo 'x';");
    let listener = "[listeners.meters]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n\
        framing = { type = \"gap\", gap = \"1s\" }\n";
    let mut node = Longwire::with(&fpm, &script, "max_frame_bytes = 256\n", "", listener);
    let mut device = Device::connect(&node, "meters").await;
    device.send(&[1; 200]).await;
    device.send(&[2; 100]).await;
    assert_eq!(device.rest().await, b"");
    assert_eq!(node.closed(1)[0]["reason"], "frame_too_large");
    let mut device = Device::connect(&node, "meters").await;
    device.send(&[3; 5]).await;
    wait_until("they were read", || node.metric("longwire_received_bytes_total", "") >= 205.0);
    node.terminate();
    assert_eq!(device.rest().await, b"");
    assert_eq!(node.closed(2)[1]["reason"], "draining");
    assert!(node.wait().success());
    assert!(!fpm.dir().join("ran").exists(), "PHP was asked with a part of a frame");
}

#[tokio::test]
async fn what_is_no_frame_is_skipped_and_counted_or_ends_the_session() {
    let fpm = Pool::of(1).start();
    let script = fpm.script("gt06.php", "echo hex2bin('787805010001d9dc0d0a');");
    let strict = line("GT06");
    let patient = strict.replace(" }", ", resync = true }");
    assert_ne!(strict, patient);
    let listener =
        |name: &str, line: &str| format!("[listeners.{name}]\nbind = \"127.0.0.1:0\"\napp = \"app\"\n{line}\n");
    let node = Longwire::with(&fpm, &script, "", "", &(listener("patient", &patient) + &listener("strict", strict)));
    let login = hex("78780d01012345678901234500018cdd0d0a");
    // Five bytes of garbage, then a truncated packet whose length reaches into the next packet.
    let mut device = Device::connect(&node, "patient").await;
    device.send(&[b"hello", &login[..9], &login, &login].concat()).await;
    for _ in 0..2 {
        device.expect(&hex("787805010001d9dc0d0a")).await;
    }
    assert_eq!(node.metric("longwire_skipped_bytes_total", "listener=\"patient\""), 14.0);
    device.0.shutdown().await.expect("it is open");
    assert_eq!(device.rest().await, b"");
    let closed = node.closed(1).remove(0);
    assert_eq!((&closed["reason"], &closed["bytes_skipped"]), (&"client_closed".into(), &14.into()));

    let mut device = Device::connect(&node, "strict").await;
    device.send(b"hello").await;
    assert_eq!(device.rest().await, b"");
    let closed = node.closed(2).remove(1);
    assert_eq!(closed["reason"], "bad_frame");
    assert_eq!(closed["detail"], "the bytes do not begin with the start of a frame");
    assert_eq!(closed["bytes_skipped"], serde_json::Value::Null);
    assert_eq!(node.metric("longwire_frames_in_total", ""), 2.0);
}
