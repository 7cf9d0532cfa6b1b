//! The link to a client: a socket of its own, or the HTTP responses that it asks for.

use std::io::{self, IoSlice};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

#[cfg(test)]
use super::faults::Pipe;
use super::feed::Feed;
use crate::transport::Transport;

pub enum ClientLink {
    /// A socket of the session alone. It is not set yet while PHP runs the connect event.
    Socket(OnceLock<Transport>),
    /// Responses of an HTTP connection, which may serve other requests too.
    Feed(Arc<Feed>),
    /// No socket at all.
    #[cfg(test)]
    Pipe(Arc<Pipe>),
}

impl ClientLink {
    /// A link to a socket.
    pub fn to(transport: Transport) -> Self {
        ClientLink::Socket(OnceLock::from(transport))
    }

    /// A link to a socket that is still to `arrive`. Until then nothing is read or written.
    pub fn awaited() -> Self {
        ClientLink::Socket(OnceLock::new())
    }

    /// Sets the awaited socket.
    pub(super) fn arrive(&self, transport: Transport) {
        let ClientLink::Socket(socket) = self else { unreachable!("only sockets are waited for") };
        assert!(socket.set(transport).is_ok(), "a session has one socket");
    }

    /// Reads bytes from the client, or `Ok(0)` if it has ended its side. Over HTTP, bytes come as requests, so only the
    /// end is reported here.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            ClientLink::Socket(socket) => socket.get().map_or(Poll::Pending, |socket| socket.poll_read(cx, buffer)),
            ClientLink::Feed(feed) => feed.poll_abandoned(cx).map(|()| Ok(0)),
            #[cfg(test)]
            ClientLink::Pipe(pipe) => pipe.poll_read(cx, buffer),
        }
    }

    /// Ready when a write may take bytes.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            ClientLink::Socket(socket) => socket.get().map_or(Poll::Pending, |socket| socket.poll_write_ready(cx)),
            ClientLink::Feed(feed) => feed.poll_room(cx).map(Ok),
            #[cfg(test)]
            ClientLink::Pipe(pipe) => pipe.poll_write_ready(cx),
        }
    }

    /// Writes as many bytes as are taken now. `WouldBlock` means none.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            ClientLink::Socket(socket) => match socket.get() {
                Some(socket) => socket.try_write(slices),
                None => Err(io::ErrorKind::WouldBlock.into()),
            },
            ClientLink::Feed(feed) => feed.try_write(slices),
            #[cfg(test)]
            ClientLink::Pipe(pipe) => pipe.try_write(slices),
        }
    }

    /// Bytes that count as written but are not sent yet.
    pub fn unsent(&self) -> usize {
        match self {
            ClientLink::Socket(socket) => socket.get().map_or(0, Transport::unsent),
            ClientLink::Feed(_) => 0,
            #[cfg(test)]
            ClientLink::Pipe(_) => 0,
        }
    }

    /// Whether the link can have such bytes.
    pub fn keeps_bytes(&self) -> bool {
        matches!(self, ClientLink::Socket(socket) if socket.get().is_some_and(Transport::is_tls))
    }

    /// Sends those bytes. Returns false if some are left. Then [`Self::poll_write_ready`] waits for them.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            ClientLink::Socket(socket) => socket.get().map_or(Ok(true), Transport::try_flush),
            ClientLink::Feed(_) => Ok(true),
            #[cfg(test)]
            ClientLink::Pipe(_) => Ok(true),
        }
    }

    /// Ends the write side.
    pub fn shutdown_write(&self) {
        match self {
            ClientLink::Socket(socket) => {
                if let Some(socket) = socket.get() {
                    socket.shutdown_write();
                }
            }
            ClientLink::Feed(feed) => feed.finish(),
            #[cfg(test)]
            ClientLink::Pipe(pipe) => pipe.shut(),
        }
    }

    /// The feed of the responses, if the client uses HTTP.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        match self {
            ClientLink::Socket(_) => None,
            ClientLink::Feed(feed) => Some(feed),
            #[cfg(test)]
            ClientLink::Pipe(_) => None,
        }
    }
}
