//! What leads to a client: a socket of its own, or the HTTP responses that it asks for.

use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

#[cfg(test)]
use super::faults::Pipe;
use super::feed::Feed;
use crate::transport::Transport;

/// See the module.
pub enum Link {
    /// A socket that is the session's alone; not there yet while PHP is asked whether the client may come in.
    Socket(OnceLock<Transport>),
    /// Responses of an HTTP connection that may serve others too.
    Feed(Arc<Feed>),
    /// No socket at all.
    #[cfg(test)]
    Pipe(Arc<Pipe>),
}

impl Link {
    /// A socket that is there.
    pub fn to(transport: Transport) -> Self {
        Link::Socket(OnceLock::from(transport))
    }

    /// A socket that is still to `arrive`. Until then nothing is read, and nothing is taken.
    pub fn awaited() -> Self {
        Link::Socket(OnceLock::new())
    }

    /// It is there.
    pub(super) fn arrive(&self, transport: Transport) {
        let Link::Socket(socket) = self else { unreachable!("only sockets are waited for") };
        assert!(socket.set(transport).is_ok(), "a session has one socket");
    }

    /// Bytes from the client; `Ok(0)` when it has ended its side. Over HTTP bytes come otherwise, and only the end is told.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Link::Socket(socket) => socket.get().map_or(Poll::Pending, |socket| socket.poll_read(cx, buffer)),
            Link::Feed(feed) => feed.poll_abandoned(cx).map(|()| Ok(0)),
            #[cfg(test)]
            Link::Pipe(pipe) => pipe.poll_read(cx, buffer),
        }
    }

    /// Ready when a write may take something.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Link::Socket(socket) => socket.get().map_or(Poll::Pending, |socket| socket.poll_write_ready(cx)),
            Link::Feed(feed) => feed.poll_room(cx).map(Ok),
            #[cfg(test)]
            Link::Pipe(pipe) => pipe.poll_write_ready(cx),
        }
    }

    /// Writes what is taken now; `WouldBlock` when that is nothing.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Link::Socket(socket) => match socket.get() {
                Some(socket) => socket.try_write(slices),
                None => Err(io::ErrorKind::WouldBlock.into()),
            },
            Link::Feed(feed) => feed.try_write(slices),
            #[cfg(test)]
            Link::Pipe(pipe) => pipe.try_write(slices),
        }
    }

    /// Bytes that count as written and have not left yet.
    pub fn unsent(&self) -> usize {
        match self {
            Link::Socket(socket) => socket.get().map_or(0, Transport::unsent),
            Link::Feed(_) => 0,
            #[cfg(test)]
            Link::Pipe(_) => 0,
        }
    }

    /// Whether there ever are such bytes.
    pub fn keeps_bytes(&self) -> bool {
        matches!(self, Link::Socket(socket) if socket.get().is_some_and(Transport::is_tls))
    }

    /// Sends those bytes; false when not all of them leave, and then [`Self::poll_write_ready`] waits.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Link::Socket(socket) => socket.get().map_or(Ok(true), Transport::try_flush),
            Link::Feed(_) => Ok(true),
            #[cfg(test)]
            Link::Pipe(_) => Ok(true),
        }
    }

    /// Nothing more will be written.
    pub fn shutdown_write(&self) {
        match self {
            Link::Socket(socket) => {
                if let Some(socket) = socket.get() {
                    socket.shutdown_write();
                }
            }
            Link::Feed(feed) => feed.finish(),
            #[cfg(test)]
            Link::Pipe(pipe) => pipe.shut(),
        }
    }

    /// What responses are fed from.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        match self {
            Link::Socket(_) => None,
            Link::Feed(feed) => Some(feed),
            #[cfg(test)]
            Link::Pipe(_) => None,
        }
    }
}
