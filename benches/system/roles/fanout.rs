//! The floor of a fan-out: one `write` of the same bytes to every subscriber for each message, and nothing else.

use std::io;

use mio::{Events, Poll, Token};

use super::{INPUT_BYTES, accept_all, frame_len, listen, read_all, surprise, watch, write_whole};

const SUBSCRIBERS: Token = Token(usize::MAX - 1);
const PUBLISHERS: Token = Token(usize::MAX - 2);

/// Clients of the first port are subscribers; each gets its first frame back as soon as it is subscribed. Messages on the second port are
/// published. With `is_coalescing` the messages of one read go out in one write.
pub(super) fn run(is_coalescing: bool) -> io::Result<()> {
    let (subscribers, publishers) = (listen()?, listen()?);
    let mut poll = Poll::new()?;
    watch(&poll, &subscribers, SUBSCRIBERS)?;
    watch(&poll, &publishers, PUBLISHERS)?;
    println!("{} {}", subscribers.local_addr()?, publishers.local_addr()?);
    let mut connections = Vec::new();
    let (mut events, mut input) = (Events::with_capacity(1024), vec![0; INPUT_BYTES]);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let is_publisher = event.token() == PUBLISHERS;
            if is_publisher || event.token() == SUBSCRIBERS {
                for stream in accept_all(if is_publisher { &publishers } else { &subscribers }) {
                    let stream = stream?;
                    watch(&poll, &stream, Token(connections.len()))?;
                    connections.push(Some((stream, Vec::new(), is_publisher)));
                }
                continue;
            }
            let at = event.token().0;
            let Some((stream, pending, is_publisher)) = &mut connections[at] else { continue };
            let is_publisher = *is_publisher;
            let is_open = read_all(stream, &mut input, pending);
            let whole = whole_frames(pending);
            let frames: Vec<u8> = pending.drain(..whole).collect();
            if !is_publisher && !frames.is_empty() {
                write_whole(stream, &frames)?;
            }
            if !is_open {
                connections[at] = None;
            }
            if is_publisher {
                let mut rest = &frames[..];
                while !rest.is_empty() {
                    let next = if is_coalescing { Some(rest.len()) } else { frame_len(rest) };
                    let next = next.ok_or_else(|| surprise("a frame that was whole is not"))?;
                    for (stream, _, is_publisher) in connections.iter_mut().flatten() {
                        if !*is_publisher {
                            write_whole(stream, &rest[..next])?;
                        }
                    }
                    rest = &rest[next..];
                }
            }
        }
    }
}

/// The length in bytes of all whole frames at the front.
fn whole_frames(pending: &[u8]) -> usize {
    let mut at = 0;
    while let Some(whole) = frame_len(&pending[at..]) {
        at += whole;
    }
    at
}
