//! The floor of accepting: accepts, registers with epoll, and waits for the end of each connection.

use std::io;

use mio::{Events, Poll, Token};

use super::{accept_all, listen, read_all, watch};

const LISTENER: Token = Token(usize::MAX - 1);

pub(super) fn run() -> io::Result<()> {
    let listener = listen()?;
    let mut poll = Poll::new()?;
    watch(&poll, &listener, LISTENER)?;
    println!("{}", listener.local_addr()?);
    // Places are reused, because hundreds of thousands of connections come and go.
    let (mut connections, mut free) = (Vec::new(), Vec::new());
    let (mut events, mut input, mut ignored) = (Events::with_capacity(1024), [0; 1024], Vec::new());
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                for stream in accept_all(&listener) {
                    let stream = stream?;
                    let at = free.pop().unwrap_or(connections.len());
                    watch(&poll, &stream, Token(at))?;
                    if at == connections.len() {
                        connections.push(Some(stream));
                    } else {
                        connections[at] = Some(stream);
                    }
                }
                continue;
            }
            let at = event.token().0;
            let Some(stream) = &mut connections[at] else { continue };
            ignored.clear();
            if !read_all(stream, &mut input, &mut ignored) {
                connections[at] = None;
                free.push(at);
            }
        }
    }
}
