//! The floor of an echo: what Longwire reads and writes, at the same sizes, and no logic between.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use mio::{Events, Poll, Token};

use super::{
    BACKEND_CONNECTIONS, INPUT_BYTES, LENGTH, accept_all, frame_len, listen, null, read_all, surprise, watch,
    write_whole,
};

const LISTENER: Token = Token(usize::MAX - 1);
/// Of an empty record, behind the body.
const END_OF_STDIN: usize = 8;

/// A connection to the responder.
struct Backend {
    stream: UnixStream,
    /// Whose message it has.
    client: Option<usize>,
    pending: Vec<u8>,
}

/// Relays messages of `bytes` bytes. `request` is one of Longwire's own for such a message.
pub(super) fn run(responder: &Path, mut request: Vec<u8>, bytes: usize) -> io::Result<()> {
    let listener = listen()?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    let mut backends = Vec::new();
    for at in 0..BACKEND_CONNECTIONS {
        let stream = UnixStream::connect(responder)?;
        stream.set_nonblocking(true)?;
        watch(&poll, &stream, Token(at))?;
        backends.push(Backend { stream, client: None, pending: Vec::new() });
    }
    println!("{}", listener.local_addr()?);
    let mut idle: Vec<usize> = (0..BACKEND_CONNECTIONS).collect();
    let mut clients = Vec::new();
    let mut waiting: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    let body_at =
        request.len().checked_sub(END_OF_STDIN + bytes).ok_or_else(|| surprise("the request is too short"))?;
    let mut frame = vec![0; LENGTH + bytes];
    frame[..LENGTH].copy_from_slice(&(bytes as u32).to_be_bytes());
    let mut answer = Vec::new();
    null::push_answer(&mut answer, 1, &vec![b'x'; bytes]);
    let answer_len = answer.len();
    let answer_at = answer.iter().position(|byte| *byte == b'x').expect("no head has an x");
    let (mut events, mut input) = (Events::with_capacity(1024), vec![0; INPUT_BYTES]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(token) = event.token();
            if event.token() == LISTENER {
                for stream in accept_all(&listener) {
                    let stream = stream?;
                    watch(&poll, &stream, Token(BACKEND_CONNECTIONS + clients.len()))?;
                    clients.push(Some((stream, Vec::new())));
                }
            } else if let Some(at) = token.checked_sub(BACKEND_CONNECTIONS) {
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
                if !is_open || backend.pending.len() > answer_len {
                    return Err(surprise("the responder did not answer as it does"));
                }
                if backend.pending.len() == answer_len {
                    let client = backend.client.take().ok_or_else(|| surprise("an answer to nobody"))?;
                    frame[LENGTH..].copy_from_slice(&backend.pending[answer_at..answer_at + bytes]);
                    backend.pending.clear();
                    idle.push(token);
                    if let Some((stream, _)) = &mut clients[client] {
                        write_whole(stream, &frame)?;
                    }
                }
            }
            while !waiting.is_empty()
                && let Some(at) = idle.pop()
            {
                let (client, body) = waiting.pop_front().expect("just seen");
                request[body_at..body_at + bytes].copy_from_slice(&body);
                backends[at].client = Some(client);
                backends[at].stream.write_all(&request)?;
            }
        }
    }
}
