//! Moves the bytes of a custom framing from a session's codec into its outbox.
//!
//! A codec hands its bytes over while its own lock is held, which keeps them in order. So the order of locks is: codec,
//! then outbox. Nothing here is called with an outbox locked, and an outbox never calls a codec back.

use std::io::IoSlice;
use std::sync::Arc;

use super::{Close, Fate, Outbox, Push, Pushed, SlowReader, Topic};
use crate::proto::framing::custom::{Outgoing, SessionCodec};

impl Outbox {
    /// Tells the codec that the session begins; see [`SessionCodec::open`]. Returns true if there is no codec.
    pub fn open_codec(&self) -> bool {
        let Some(codec) = self.framing.codec() else { return true };
        let is_open = codec.open();
        self.settle(codec);
        is_open
    }

    /// Carries out what the codec has left: sends its bytes and applies its close.
    pub fn settle_codec(&self) {
        if let Some(codec) = self.framing.codec() {
            self.settle(codec);
        }
    }

    /// Tells the codec that the session ends, and sends its last bytes.
    pub fn close_codec(&self) {
        if let Some(codec) = self.framing.codec() {
            codec.close();
            self.settle(codec);
        }
    }

    /// Sends a reply as a frame. It is always taken, even above the bound. The error says why the codec made no frame.
    pub fn write_by(&self, codec: &dyn SessionCodec, body: &[u8]) -> Result<(), Box<str>> {
        codec.encode(body, &mut |outgoing| self.take(outgoing))
    }

    /// Sends the message of a command as a frame. `None` means that there is no frame for it: the codec wants none,
    /// could make none, or has ended the session.
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
        // If there is no frame, the codec has logged and counted the reason.
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
