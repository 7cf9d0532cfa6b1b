//! Where the bytes of a custom framing go: from a session's codec into its outbox.
//!
//! A codec keeps what it gives in order by handing it over while it holds itself locked, so the order of locks is: codec,
//! then outbox. Nothing here is called with an outbox locked, and an outbox calls nothing back.

use std::io::IoSlice;
use std::sync::Arc;

use super::{Close, Fate, Outbox, Push, Pushed, SlowReader, Topic};
use crate::proto::framing::custom::{Outgoing, SessionCodec};

impl Outbox {
    /// The session begins, for its codec; see [`SessionCodec::open`]. True when there is none.
    pub fn open_codec(&self) -> bool {
        let Some(codec) = self.framing.codec() else { return true };
        let is_open = codec.open();
        self.settle(codec);
        is_open
    }

    /// What a codec has left to be sent or asked for is sent and asked for.
    pub fn settle_codec(&self) {
        if let Some(codec) = self.framing.codec() {
            self.settle(codec);
        }
    }

    /// The session ends, for its codec; what it says last is sent.
    pub fn close_codec(&self) {
        if let Some(codec) = self.framing.codec() {
            codec.close();
            self.settle(codec);
        }
    }

    /// Sends the frame of a reply: always taken, whatever the bound. The error says why there is none.
    pub fn write_by(&self, codec: &dyn SessionCodec, body: &[u8]) -> Result<(), Box<str>> {
        codec.encode(body, &mut |outgoing| self.take(outgoing))
    }

    /// Sends the frame of a command's message. `None`: there is none for it, because the codec wants or could make none, or has ended the
    /// session.
    pub fn push_by(
        &self,
        codec: &dyn SessionCodec,
        body: &[u8],
        rule: Option<SlowReader>,
        topic: &Arc<Topic>,
    ) -> Option<Pushed> {
        if self.is_over() {
            return Some(Fate::Gone.into());
        }
        let mut pushed = None;
        let encoded = codec.encode(body, &mut |outgoing| match outgoing {
            Outgoing::Frame(frame) => pushed = Some(self.push(Push { frame, rule, topic })),
            other => self.take(other),
        });
        // The codec has logged and counted why there is none.
        encoded.ok().and(pushed)
    }

    fn settle(&self, codec: &dyn SessionCodec) {
        codec.settle(&mut |outgoing| self.take(outgoing));
    }

    fn take(&self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Bytes(bytes) | Outgoing::Frame(bytes) => self.write_frame(&[IoSlice::new(&bytes)]),
            Outgoing::End(reason, detail) => {
                let close = Close::new(reason);
                self.ask_close(if detail.is_empty() { close } else { close.because(detail) });
            }
        }
    }

    fn is_over(&self) -> bool {
        !self.lock().stage.takes_pushes()
    }
}
