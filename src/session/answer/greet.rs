//! What `connect` answers goes to a client that has just been let in.

use std::sync::Arc;

use tracing::warn;

use super::framed_body::send_whole;
use super::head::Head;
use super::{ConnectAnswer, EventInfo, Fault, Greeting, refuse_encoded};
use crate::outbox::{Close, Outbox};
use crate::proto::framing::FrameKind;

/// What a handler said to a connect event, now that the session that it admitted is there: what it asked for is done with
/// the session, and the body is its first frame. True when lines follow, as an event of the session that is in flight.
pub(in crate::session) async fn greet(outbox: &Arc<Outbox>, answer: ConnectAnswer) -> bool {
    let ConnectAnswer { mut head, greeting } = answer;
    let (event, body) = match greeting {
        Greeting::Whole { event, body } => (event, body),
        Greeting::Lines { outbox: lines, .. } => {
            // An error means that the event has ended meanwhile; the reason was logged then.
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
    // The first frame has left: what others have sent meanwhile follows it.
    outbox.admit();
    if let Some((code, text)) = head.close {
        outbox.ask_close(Close::by_handler(code, text));
    }
    if let Err(fault) = sent {
        fault.count(&event.endpoint, event.label);
        warn!(session = %outbox.id(), script = %event.endpoint.app.script.display(), cause = fault.label(), "no reply to connect: {fault}");
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
