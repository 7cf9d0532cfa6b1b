//! The null responder: a FastCGI responder that echoes stdin and ignores everything else, except that it answers `join CHANNEL`.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use longwire::proto::fastcgi::responder::{push_end, push_stdout};
use longwire::proto::fastcgi::response::{EndRequest, ProtocolStatus};
use mio::{Events, Poll, Token};

use super::{HEADER, INPUT_BYTES, read_all, watch};

const STDIN: u8 = 5;
const LISTENER: Token = Token(usize::MAX - 1);

pub(super) fn run(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    let mut connections: Vec<Option<(UnixStream, Vec<u8>)>> = Vec::new();
    let (mut events, mut input, mut answer) = (Events::with_capacity(1024), vec![0; INPUT_BYTES], Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    watch(&poll, &stream, Token(connections.len()))?;
                    connections.push(Some((stream, Vec::new())));
                }
                continue;
            }
            let slot = &mut connections[event.token().0];
            let Some((stream, pending)) = slot else { continue };
            let mut is_open = read_all(stream, &mut input, pending);
            answer.clear();
            while let Some(used) = echo(pending, &mut answer) {
                pending.drain(..used);
            }
            if !answer.is_empty() {
                is_open &= io::Write::write_all(stream, &answer).is_ok();
            }
            if !is_open {
                *slot = None;
            }
        }
    }
}

/// Answers the first request in `pending` if it is whole, and returns its length.
fn echo(pending: &[u8], answer: &mut Vec<u8>) -> Option<usize> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let header = pending.get(at..at + HEADER)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let content = pending.get(at + HEADER..at + HEADER + length)?;
        at += HEADER + length + usize::from(header[6]);
        if header[0] == 1 && header[1] == STDIN {
            if length == 0 {
                let id = u16::from_be_bytes([header[2], header[3]]);
                push_answer(answer, id, &body);
                return Some(at);
            }
            body.extend_from_slice(content);
        }
    }
}

/// Appends the answer to a body, as records.
pub(super) fn push_answer(answer: &mut Vec<u8>, id: u16, body: &[u8]) {
    push_stdout(answer, id, &answer_to(body));
    push_end(answer, id, EndRequest { app_status: 0, status: ProtocolStatus::Complete });
}

/// The answer to a body.
pub(super) fn answer_to(body: &[u8]) -> Vec<u8> {
    let mut head = format!("Content-Length: {}\r\n", body.len());
    if let Some(channel) = body.strip_prefix(b"join ") {
        head.push_str(&format!("Longwire-Join: {}\r\n", String::from_utf8_lossy(channel)));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
