//! A page that sends a batch of commands to the router port and waits for all receipts, again and again; and the floor of that.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use longwire::commands::bench::process::Usage;
use longwire::commands::bench::times::Times;
use longwire::proto::command::{Action, Command, Message, Name, Target};
use longwire::proto::control::Frame;
use longwire::proto::control::long::{self, Hello, NONCE_BYTES, Operation, RouterAnswer, RouterRequest, VERSION};
use mio::{Events, Poll, Token};
use serde_json::json;

use super::{INPUT_BYTES, accept_all, listen, read_all, surprise, watch, write_whole};

const WARM_UP: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);
const LISTENER: Token = Token(usize::MAX - 1);

/// The commands that a page sends at once.
pub(super) struct Batch {
    pub(super) commands: u32,
    pub(super) bytes: usize,
}

/// Publishes to an empty channel and prints a report; `server` is the pid of the process that answers.
pub(super) fn run(address: SocketAddr, batch: &Batch, server: u32, measured: Duration) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut input, mut buffer) = (Vec::new(), vec![0; INPUT_BYTES]);
    let mut output = BytesMut::new();
    Hello { versions: Bytes::from_static(&[VERSION]), nonce: [7; NONCE_BYTES], peer: "bench".into() }
        .encode(&mut output);
    ask(&mut socket, &output, 2, &mut input, &mut buffer)?;
    output.clear();
    for number in 1..=batch.commands {
        let channel = Name::new(b"nobody").map_err(|_| surprise("a name of a channel"))?;
        let action = Action::Send(Message::new("x".repeat(batch.bytes)));
        RouterRequest { number, operation: Operation::Command(Command::new(Target::Channel(channel), action)) }
            .encode(&mut output);
    }
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        ask(&mut socket, &output, batch.commands, &mut input, &mut buffer)?;
    }
    let (begin, before, mut times) = (Instant::now(), Usage::now(&[server]), Times::new());
    while begin.elapsed() < measured {
        let asked = Instant::now();
        ask(&mut socket, &output, batch.commands, &mut input, &mut buffer)?;
        times.record(asked.elapsed().as_nanos() as u64);
    }
    let replies = times.summary().count * u64::from(batch.commands);
    let report = json!({
        "connections": 1,
        "connected": 1,
        "replies": replies,
        "replies_per_s": replies as f64 / begin.elapsed().as_secs_f64(),
        "latency": times.summary(),
        "cpu": before.until(&Usage::now(&[server]), replies),
    });
    println!("{report}");
    Ok(())
}

/// Writes once and reads this number of frames.
fn ask(socket: &mut TcpStream, output: &[u8], frames: u32, input: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<()> {
    socket.write_all(output)?;
    let mut left = frames;
    while left > 0 {
        let read = socket.read(buffer)?;
        if read == 0 {
            return Err(surprise("the router port has ended the connection"));
        }
        input.extend_from_slice(&buffer[..read]);
        left -= take_frames(input, left);
    }
    Ok(())
}

/// Takes whole frames off the front, at most `most`.
fn take_frames(input: &mut Vec<u8>, most: u32) -> u32 {
    let (mut at, mut taken) = (0, 0);
    while taken < most
        && let Some(bytes) = Frame::announced(&input[at..]).filter(|bytes| input.len() - at >= *bytes)
    {
        at += bytes;
        taken += 1;
    }
    input.drain(..at);
    taken
}

/// The floor: makes the handshake, and answers each frame with a receipt, in one write for each read.
pub(super) fn floor() -> io::Result<()> {
    let listener = listen()?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    println!("{}", listener.local_addr()?);
    let mut receipt = BytesMut::new();
    RouterAnswer::receipt(1, &longwire::proto::command::Receipt::default(), Vec::new(), false).encode(&mut receipt);
    let mut welcome = BytesMut::new();
    long::challenge(&[9; NONCE_BYTES], false, "floor", &mut welcome);
    long::welcome(None, &mut welcome);
    let mut connections = Vec::new();
    let (mut events, mut input) = (Events::with_capacity(64), vec![0; INPUT_BYTES]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                for stream in accept_all(&listener) {
                    let stream = stream?;
                    watch(&poll, &stream, Token(connections.len()))?;
                    connections.push(Some((stream, Vec::new(), false)));
                }
                continue;
            }
            let at = event.token().0;
            let Some((stream, pending, is_greeted)) = &mut connections[at] else { continue };
            let is_open = read_all(stream, &mut input, pending);
            let frames = take_frames(pending, u32::MAX) as usize;
            if frames > 0 && !std::mem::replace(is_greeted, true) {
                write_whole(stream, &welcome)?;
            } else if frames > 0 {
                write_whole(stream, &receipt.repeat(frames))?;
            }
            if !is_open {
                connections[at] = None;
            }
        }
    }
}
