//! Sends the answer to `connect` to a client that has just been admitted.

use std::sync::Arc;

use tracing::warn;

use super::framed_body::send_whole;
use super::head::Head;
use super::{ConnectAnswer, EventInfo, Fault, Greeting, refuse_encoded};
use crate::outbox::{Close, Outbox};
use crate::proto::framing::FrameKind;

/// Applies a handler's answer to the session that it admitted: runs its actions, and sends its body as the first frame.
/// Returns true if lines follow. Then the connect event is still in flight.
pub(in crate::session) async fn greet(outbox: &Arc<Outbox>, answer: ConnectAnswer) -> bool {
    let ConnectAnswer { mut head, greeting } = answer;
    let (event, body) = match greeting {
        Greeting::Whole { event, body } => (event, body),
        Greeting::Lines { outbox: lines, .. } => {
            // An error means that the event has ended meanwhile. The reason was logged then.
            let follow = lines.send(outbox.clone()).is_ok();
            if !follow {
                outbox.admit();
            }
            return follow;
        }
    };
    if let Some(held) = event.act_when_reached(std::mem::take(&mut head.actions)) {
        held.act(&event).await;
    }
    let sent = first_frame(outbox, &event, &head, &body);
    // The first frame has left. Pushes that arrived meanwhile follow it.
    outbox.admit();
    if let Some((code, text)) = head.close {
        outbox.ask_close(Close::by_handler(code, text));
    }
    if let Err(fault) = sent {
        fault.count(&event.endpoint, event.label);
        warn!(session = %outbox.id(), script = %event.endpoint.app.script.display(), cause = fault.label(), "greeting of connect not sent: {fault}");
    }
    false
}

fn first_frame(outbox: &Outbox, event: &EventInfo, head: &Head, body: &[u8]) -> Result<(), Fault> {
    let is_empty = body.is_empty() && head.content_length.is_none();
    if !head.has_body() || is_empty || !event.is_reply(head) {
        return Ok(());
    }
    refuse_encoded(head)?;
    match event.send_to(&head.destinations, head.kind, head.id.as_ref(), body)? {
        true => {
            let kind = head.kind.unwrap_or(FrameKind::Text);
            send_whole(outbox, &event.endpoint, kind, head.id.as_ref(), body)
        }
        false => Ok(()),
    }
}
