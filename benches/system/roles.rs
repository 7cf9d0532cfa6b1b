//! Programs that the runner starts beside Longwire, each a process of its own so that its CPU time can be told apart: this binary
//! again, with a role as its first argument.
//!
//! All are one thread around epoll. mio is edge-triggered, so a read that does not fill its buffer has taken all there is, and one
//! system call for each read and write is enough. They trust each other's sizes and end at the first surprise: the runner then says so.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use longwire::proto::fastcgi::responder::{push_end, push_stdout};
use longwire::proto::fastcgi::response::{End, ProtocolStatus};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Size of the messages that the echo floor relays: its requests are built beforehand.
pub(crate) const BYTES: usize = 64;
/// Connections to the responder, as to a pool of eight workers.
pub(crate) const BACKEND_CONNECTIONS: usize = 8;

const HEADER: usize = 8;
const STDIN: u8 = 5;
const LISTENER: Token = Token(usize::MAX - 1);

fn watch(poll: &Poll, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
    poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)
}

fn surprise(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A FastCGI responder that echoes stdin and looks at nothing else.
pub(crate) fn null_responder(path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    let mut connections: Vec<Option<(UnixStream, Vec<u8>)>> = Vec::new();
    let (mut events, mut input, mut answer) = (Events::with_capacity(1024), vec![0; 64 * 1024], Vec::new());
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
            let is_open = loop {
                match stream.read(&mut input) {
                    Ok(0) => break false,
                    Ok(read) => {
                        pending.extend_from_slice(&input[..read]);
                        answer.clear();
                        while let Some(used) = echo(pending, &mut answer) {
                            pending.drain(..used);
                        }
                        if !answer.is_empty() && stream.write_all(&answer).is_err() {
                            break false;
                        }
                        if read < input.len() {
                            break true;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                    Err(_) => break false,
                }
            };
            if !is_open {
                *slot = None;
            }
        }
    }
}

/// Answers the first request in `pending` if it is whole; how long that was.
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
                let head = format!("Content-Length: {}\r\n\r\n", body.len());
                push_stdout(answer, id, &[head.as_bytes(), &body].concat());
                push_end(answer, id, End { app_status: 0, status: ProtocolStatus::Complete });
                return Some(at);
            }
            body.extend_from_slice(content);
        }
    }
}

/// The floor of an echo: what Longwire reads and writes, at the same sizes, and no logic between. `request` is one of
/// Longwire's own.
pub(crate) fn echo_floor(responder: &Path, mut request: Vec<u8>) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    let mut backends = Vec::new();
    for at in 0..BACKEND_CONNECTIONS {
        let stream = UnixStream::connect(responder)?;
        stream.set_nonblocking(true)?;
        watch(&poll, &stream, Token(at))?;
        backends.push((stream, usize::MAX));
    }
    let mut idle: Vec<usize> = (0..BACKEND_CONNECTIONS).collect();
    let mut clients = Vec::new();
    let mut waiting: VecDeque<(usize, [u8; BYTES])> = VecDeque::new();
    let body_at = request.len() - HEADER - BYTES;
    let mut frame = [0; 4 + BYTES];
    let head = HEADER + format!("Content-Length: {BYTES}\r\n\r\n").len();
    let (mut events, mut answer) = (Events::with_capacity(1024), [0; 4096]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(token) = event.token();
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    watch(&poll, &stream, Token(BACKEND_CONNECTIONS + clients.len()))?;
                    clients.push(Some(stream));
                }
            } else if let Some(at) = token.checked_sub(BACKEND_CONNECTIONS) {
                let Some(client) = &mut clients[at] else { continue };
                match client.read(&mut answer) {
                    Ok(read) if read == frame.len() => {
                        waiting.push_back((at, answer[4..read].try_into().expect("just measured")));
                    }
                    Ok(1..) => return Err(surprise("a client sent another size than the floor relays")),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => clients[at] = None,
                }
            } else {
                let (stream, client) = &mut backends[token];
                match stream.read(&mut answer) {
                    Ok(read) if read > head + BYTES && *client != usize::MAX => {
                        frame[..4].copy_from_slice(&(BYTES as u32).to_be_bytes());
                        frame[4..].copy_from_slice(&answer[head..head + BYTES]);
                        if let Some(client) = &mut clients[*client] {
                            // One that has left is noticed at its next read.
                            let _has_left = client.write(&frame);
                        }
                        *client = usize::MAX;
                        idle.push(token);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => return Err(surprise("the responder did not answer as it does")),
                }
            }
            while !waiting.is_empty()
                && let Some(at) = idle.pop()
            {
                let (client, body) = waiting.pop_front().expect("just seen");
                request[body_at..body_at + BYTES].copy_from_slice(&body);
                backends[at].1 = client;
                backends[at].0.write_all(&request)?;
            }
        }
    }
}
