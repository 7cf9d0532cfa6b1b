//! What leads to a client: a socket of its own, or the HTTP responses that it asks for.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::feed::Feed;
use crate::transport::Transport;

/// See the module.
pub enum Link {
    /// A socket that is the session's alone.
    Socket(Transport),
    /// Responses of an HTTP connection that may serve others too.
    Feed(Arc<Feed>),
}

impl Link {
    /// Bytes from the client; `Ok(0)` when it has ended its side. Over HTTP bytes come otherwise, and only the end is told.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Link::Socket(transport) => transport.poll_read(cx, buffer),
            Link::Feed(feed) => feed.poll_abandoned(cx).map(|()| Ok(0)),
        }
    }

    /// Ready when a write may take something.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Link::Socket(transport) => transport.poll_write_ready(cx),
            Link::Feed(feed) => feed.poll_room(cx).map(Ok),
        }
    }

    /// Writes what is taken now; `WouldBlock` when that is nothing.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Link::Socket(transport) => transport.try_write(slices),
            Link::Feed(feed) => feed.try_write(slices),
        }
    }

    /// Bytes that count as written and have not left yet.
    pub fn unsent(&self) -> usize {
        match self {
            Link::Socket(transport) => transport.unsent(),
            Link::Feed(_) => 0,
        }
    }

    /// Whether there ever are such bytes.
    pub fn keeps_bytes(&self) -> bool {
        matches!(self, Link::Socket(transport) if transport.is_tls())
    }

    /// Sends those bytes; false when not all of them leave, and then [`Self::poll_write_ready`] waits.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Link::Socket(transport) => transport.try_flush(),
            Link::Feed(_) => Ok(true),
        }
    }

    /// Nothing more will be written.
    pub fn shutdown_write(&self) {
        match self {
            Link::Socket(transport) => transport.shutdown_write(),
            Link::Feed(feed) => feed.finish(),
        }
    }

    /// What responses are fed from.
    pub fn feed(&self) -> Option<&Arc<Feed>> {
        match self {
            Link::Socket(_) => None,
            Link::Feed(feed) => Some(feed),
        }
    }
}
