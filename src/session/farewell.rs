//! The end of a session on the wire, for a client that is still connected.

use std::future::poll_fn;
use std::time::Duration;

use super::input::SCRATCH;
use crate::config::model::WebSocket;
use crate::outbox::{Close, Outbox};
use crate::proto::close::CloseReason;

/// How long a stream client may take to end its side after the node has ended its own. WebSocket has `close_timeout`.
const STREAM_FAREWELL: Duration = Duration::from_secs(2);

/// Sends the queued bytes, the close frame and FIN. Then it reads and discards the client's bytes until the client ends
/// its side too.
///
/// When a socket with unread bytes is closed, the kernel resets the connection. A reset destroys data that the client
/// has not read yet, such as the last reply or the close frame with the reason. So the node waits for the client, for
/// at most `close_timeout`, or [`STREAM_FAREWELL`] on streams.
pub(super) async fn say(outbox: &Outbox, close: &Close, websocket: Option<&WebSocket>) {
    let patience = websocket.map_or(STREAM_FAREWELL, |websocket| websocket.close_timeout);
    let client_began = matches!(close.reason, CloseReason::ClientClosed | CloseReason::NoGoodbye);
    outbox.last_word(outbox.framing().close(Some(close.code()), if client_began { "" } else { close.text() }));
    if client_began && outbox.link().feed().is_some() {
        // The client takes no further response.
        return outbox.link().shutdown_write();
    }
    let wire = async {
        poll_fn(|cx| outbox.poll_flush(cx)).await;
        outbox.link().shutdown_write();
        if !(client_began && websocket.is_none()) {
            poll_fn(|cx| poll_discard(outbox, cx)).await;
        }
    };
    // After the timeout the socket is simply closed.
    let _ = tokio::time::timeout(patience, wire).await;
}

fn poll_discard(outbox: &Outbox, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
    SCRATCH.with_borrow_mut(|scratch| {
        loop {
            match std::task::ready!(outbox.link().poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return std::task::Poll::Ready(()),
                Ok(_) => {}
            }
        }
    })
}
