//! Puts the body of a reply into frames: in pieces, by lines, or whole at the end.

use std::io::IoSlice;

use super::head::Destination;
use super::hints::Hint;
use super::slice::Slice;
use super::text::TextCheck;
use super::{EventInfo, Fault};
use crate::outbox::Outbox;
use crate::proto::command::Name;
use crate::proto::framing::deflate::{Deflater, deflate_whole};
use crate::proto::framing::{Affix, BodyDoesNotFit, FrameKind};
use crate::session::endpoint::Endpoint;

pub(super) struct FramedBody {
    pub(super) kind: FrameKind,
    /// The destinations of the body. If there are none, it goes to the client.
    pub(super) destinations: Vec<Destination>,
    /// The kind of the message for sessions other than the client's.
    pub(super) kind_for_others: Option<FrameKind>,
    pub(super) slice: Slice,
    /// The `Longwire-Id` of the reply.
    pub(super) id: Option<Name>,
    pub(super) mode: Mode,
    /// Bytes of the reply that are not sent yet.
    pub(super) pending: Vec<u8>,
    /// The UTF-8 check, for text on a framing that requires it.
    pub(super) text: Option<TextCheck>,
    pub(super) is_json: bool,
}

pub(super) enum Mode {
    /// The reply is one frame, sent in pieces.
    Stream { begun: bool, shape: Shape },
    /// Each line is a frame.
    Lines,
    /// The reply is held back to the end. `from_end` is set by a negative `Content-Offset`.
    Hold { from_end: Option<u64> },
}

/// The form of a streamed reply on the wire.
pub(super) enum Shape {
    /// Pieces as the framing makes them. On a WebSocket they are fragments, compressed if that was negotiated.
    Pieces(Option<Box<Deflater>>),
    /// The payload of one WebSocket frame, with its length in bytes.
    OneFrame(usize),
}

impl FramedBody {
    pub(super) fn has_begun(&self) -> bool {
        matches!(self.mode, Mode::Stream { begun: true, .. })
    }

    /// Sends the pending bytes as a piece of a streamed frame.
    pub(super) fn stream(&mut self, outbox: &Outbox, event: &EventInfo, is_last: bool) -> Result<u64, Fault> {
        if self.pending.is_empty() && !is_last {
            return Ok(0);
        }
        let Mode::Stream { begun, shape } = &mut self.mode else { unreachable!("only called in this mode") };
        let framing = outbox.framing();
        let is_first = !*begun;
        if is_first && !outbox.begin_stream(matches!(shape, Shape::OneFrame(_))) {
            // Another event's reply is in the middle of its frame. This one waits. It begins later or is sent whole.
            return Ok(0);
        }
        // The check comes before the first byte leaves, so a reply that is not UTF-8 at its start has not begun.
        if let Some(check) = &mut self.text
            && !(check.push(&self.pending) && (!is_last || check.is_whole()))
        {
            if is_first {
                outbox.end_stream();
            }
            return Err(Fault::NotUtf8);
        }
        let begin = match shape {
            _ if !is_first => Affix::EMPTY,
            Shape::OneFrame(len) => framing.piece(self.kind, true, true, *len),
            Shape::Pieces(deflater) => {
                *deflater = framing.deflate().map(|deflate| Box::new(Deflater::new(deflate)));
                let begin = framing.begin(self.slice.announced());
                begin.expect("begin_body has seen that this framing can carry it").unwrap_or(Affix::EMPTY)
            }
        };
        *begun = true;
        let deflated;
        let (piece, body): (Affix, &[u8]) = match shape {
            Shape::OneFrame(_) => (Affix::EMPTY, &self.pending),
            Shape::Pieces(Some(deflater)) => {
                deflated = deflater.piece(&self.pending, is_last);
                (framing.piece_deflated(self.kind, is_first, is_last, deflated.len()), &deflated)
            }
            Shape::Pieces(None) => (framing.piece(self.kind, is_first, is_last, self.pending.len()), &self.pending),
        };
        let tail = if is_last { framing.tail() } else { &[] };
        outbox.write_piece(&[IoSlice::new(&begin), IoSlice::new(&piece), IoSlice::new(body), IoSlice::new(tail)]);
        if is_last {
            outbox.end_stream();
            event.endpoint.hub.metrics.frames_out.inc();
        }
        let sent = self.pending.len() as u64;
        self.pending.clear();
        Ok(sent)
    }

    /// Sends every whole pending line, and at the end the rest.
    pub(super) fn lines(&mut self, outbox: &Outbox, event: &EventInfo, is_last: bool) -> Result<u64, Fault> {
        let mut from = 0;
        let mut sent = 0;
        let mut result = Ok(());
        while let Some(len) = memchr::memchr(b'\n', &self.pending[from..]) {
            result = match len {
                _ if len > event.endpoint.app.max_reply_bytes => Err(Fault::TooLarge),
                _ => self.send(outbox, event, &self.pending[from..from + len]),
            };
            if result.is_err() {
                break;
            }
            from += len + 1;
            sent += len as u64;
        }
        self.pending.drain(..from);
        if is_last && result.is_ok() && !self.pending.is_empty() {
            result = self.send(outbox, event, &self.pending);
            sent += self.pending.len() as u64;
        }
        result.map(|()| sent)
    }

    /// Sends one whole frame to all its destinations.
    fn send(&self, outbox: &Outbox, event: &EventInfo, frame: &[u8]) -> Result<(), Fault> {
        match event.send_to(&self.destinations, self.kind_for_others, self.id.as_ref(), frame)? {
            true => send_whole(outbox, &event.endpoint, self.kind, self.id.as_ref(), frame),
            false => Ok(()),
        }
    }

    /// Sends the rest, because the answer is complete.
    pub(super) fn finish(&mut self, outbox: &Outbox, event: &EventInfo) -> Result<u64, Fault> {
        if let Mode::Hold { from_end: Some(from_end) } = self.mode {
            self.slice.skip((self.pending.len() as u64).saturating_sub(from_end));
            let whole = std::mem::take(&mut self.pending);
            self.pending = self.slice.take(&whole).to_vec();
        }
        self.slice.check_whole()?;
        match self.mode {
            Mode::Lines => self.lines(outbox, event, true),
            Mode::Stream { begun: true, .. } => self.stream(outbox, event, true),
            Mode::Stream { .. } | Mode::Hold { .. } => {
                // An empty body is no reply, unless the handler announced `Content-Length: 0`.
                if self.pending.is_empty() && self.slice.announced().is_none() {
                    if self.is_json {
                        event.hint(Hint::EmptyJson);
                    }
                    return Ok(0);
                }
                self.send(outbox, event, &self.pending)?;
                Ok(self.pending.len() as u64)
            }
        }
    }
}

pub(super) fn send_text(outbox: &Outbox, text: &[u8]) -> Result<(), Fault> {
    match outbox.framing().codec() {
        Some(codec) => outbox.write_by(codec, text).map_err(|why| Fault::Framing(why.into()))?,
        None => {
            let frame = outbox.framing().encode(FrameKind::Text, text);
            outbox.write_frame(&[IoSlice::new(&frame.map_err(|error| Fault::Framing(error.to_string()))?)]);
        }
    }
    Ok(())
}

/// Sends one whole frame. It is compressed if that was negotiated and the body has at least `deflate_min_bytes`.
pub(super) fn send_whole(
    outbox: &Outbox,
    endpoint: &Endpoint,
    kind: FrameKind,
    id: Option<&Name>,
    body: &[u8],
) -> Result<(), Fault> {
    let framing = outbox.framing();
    if let Some(codec) = framing.codec() {
        outbox.write_by(codec, body).map_err(|why| Fault::Framing(why.into()))?;
        endpoint.hub.metrics.frames_out.inc();
        return Ok(());
    }
    if framing.is_text_checked() && kind == FrameKind::Text && str::from_utf8(body).is_err() {
        return Err(Fault::NotUtf8);
    }
    let min_bytes = endpoint.terms.deflate_min_bytes;
    match framing.deflate() {
        Some(deflate) if body.len() >= min_bytes => {
            let body = deflate_whole(deflate, body);
            let head = framing.whole_deflated(kind, body.len());
            outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(&body)]);
        }
        _ => {
            let misfit = |error: BodyDoesNotFit| Fault::Framing(error.to_string());
            match framing.whole_head(kind, body.len()).map_err(misfit)? {
                Some(head) => {
                    outbox.write_frame(&[IoSlice::new(&head), IoSlice::new(body), IoSlice::new(framing.tail())]);
                }
                None => {
                    let frame = framing.encode_with_id(kind, id.map(Name::as_bytes), body).map_err(misfit)?;
                    outbox.write_frame(&[IoSlice::new(&frame)]);
                }
            }
        }
    }
    endpoint.hub.metrics.frames_out.inc();
    Ok(())
}
