//! A message, encoded once per framing and shared by all its sessions. Sessions with a codec encode it themselves.

use std::sync::Arc;

use bytes::Bytes;

use crate::outbox::{Outbox, Topic};
use crate::proto::command::{Message, Name};
use crate::proto::framing::{FrameKind, Framing};

/// The encoded forms of one message so far. A channel has few framings, so a list is searched fastest.
pub(super) struct Encodings<'m> {
    message: &'m Message,
    kind: FrameKind,
    frames: Vec<(Framing, bool, Option<Bytes>)>,
    /// Identifies the later messages that may replace this one in an outbox.
    pub(super) topic: Arc<Topic>,
}

impl<'m> Encodings<'m> {
    /// Starts without encoded forms. `channel` is the channel of the message, if it goes to one.
    pub(super) fn new(message: &'m Message, channel: Option<&Name>) -> Self {
        let topic = Arc::new(Topic { channel: channel.cloned(), key: message.key.clone() });
        Self { message, kind: message.kind(), frames: Vec::new(), topic }
    }

    /// The body of the message, for sessions that have a codec.
    pub(super) fn body(&self) -> &'m [u8] {
        &self.message.body
    }

    /// The frame for one session. `None` means that there is none: the framing cannot carry the message, or the app
    /// sends no empty frames.
    pub(super) fn frame_for(&mut self, outbox: &Outbox) -> Option<Bytes> {
        let framing = outbox.framing();
        let body = &self.message.body;
        if body.is_empty() && !outbox.terms().sends_empty {
            return None;
        }
        let deflates = framing.deflate().is_some() && body.len() >= outbox.terms().deflate_min_bytes;
        let known = self.frames.iter().find(|(known, deflated, _)| *deflated == deflates && known == framing);
        if let Some((_, _, frame)) = known {
            return frame.clone();
        }
        let encoded = match deflates {
            true => framing.encode_deflated(self.kind, body),
            false => framing.encode_with_id(self.kind, self.message.id.as_ref().map(Name::as_bytes), body),
        };
        let frame = encoded.ok();
        self.frames.push((framing.clone(), deflates, frame.clone()));
        frame
    }
}
