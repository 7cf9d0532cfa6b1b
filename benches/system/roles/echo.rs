//! The floor of an echo: the same reads and writes as Longwire, with the same sizes, and no logic between.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use mio::{Events, Poll, Token};

use super::{INPUT_BYTES, LENGTH, accept_all, frame_len, listen, read_all, surprise, watch, whole_answer, write_whole};

const LISTENER: Token = Token(usize::MAX - 1);
/// Length of the empty record after the body.
const END_OF_STDIN: usize = 8;

/// A connection to the responder.
struct Backend {
    stream: UnixStream,
    /// The client whose message it carries.
    client: Option<usize>,
    pending: Vec<u8>,
}

/// Relays messages of `bytes` bytes over this number of connections to the responder. `request` is a request of Longwire for such a
/// message. The end of the first record of an answer goes back to the client.
pub(super) fn run(responder: &Path, mut request: Vec<u8>, bytes: usize, connections: usize) -> io::Result<()> {
    let listener = listen()?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    println!("{}", listener.local_addr()?);
    // Use the connections in turn, because php-fpm closes a connection without a request in its first five seconds.
    let (mut backends, mut idle) = (Vec::new(), VecDeque::new());
    let mut clients = Vec::new();
    let mut waiting: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    let body_at =
        request.len().checked_sub(END_OF_STDIN + bytes).ok_or_else(|| surprise("the request is too short"))?;
    let mut frame = vec![0; LENGTH + bytes];
    frame[..LENGTH].copy_from_slice(&(bytes as u32).to_be_bytes());
    let (mut events, mut input) = (Events::with_capacity(1024), vec![0; INPUT_BYTES]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(token) = event.token();
            if event.token() == LISTENER {
                for at in backends.len()..connections {
                    let stream = UnixStream::connect(responder)?;
                    stream.set_nonblocking(true)?;
                    watch(&poll, &stream, Token(at))?;
                    backends.push(Backend { stream, client: None, pending: Vec::new() });
                    idle.push_back(at);
                }
                for stream in accept_all(&listener) {
                    let stream = stream?;
                    watch(&poll, &stream, Token(connections + clients.len()))?;
                    clients.push(Some((stream, Vec::new())));
                }
            } else if let Some(at) = token.checked_sub(connections) {
                let Some((stream, pending)) = &mut clients[at] else { continue };
                let is_open = read_all(stream, &mut input, pending);
                while let Some(whole) = frame_len(pending) {
                    if whole != frame.len() {
                        return Err(surprise("a client sent another size than the floor relays"));
                    }
                    waiting.push_back((at, pending[LENGTH..whole].to_vec()));
                    pending.drain(..whole);
                }
                if !is_open {
                    clients[at] = None;
                }
            } else {
                let backend = &mut backends[token];
                let is_open = read_all(&mut backend.stream, &mut input, &mut backend.pending);
                if !is_open {
                    return Err(surprise("the responder has closed"));
                }
                if let Some(content) = whole_answer(&backend.pending) {
                    let client = backend.client.take().ok_or_else(|| surprise("an answer to nobody"))?;
                    let body = content.len().checked_sub(bytes).map(|at| &content[at..]);
                    frame[LENGTH..].copy_from_slice(body.ok_or_else(|| surprise("an answer is too short"))?);
                    backend.pending.clear();
                    idle.push_back(token);
                    if let Some((stream, _)) = &mut clients[client] {
                        write_whole(stream, &frame)?;
                    }
                }
            }
            while !waiting.is_empty()
                && let Some(at) = idle.pop_front()
            {
                let (client, body) = waiting.pop_front().expect("just seen");
                request[body_at..body_at + bytes].copy_from_slice(&body);
                backends[at].client = Some(client);
                backends[at].stream.write_all(&request)?;
            }
        }
    }
}
