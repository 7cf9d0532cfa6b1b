//! WebSocket frames into messages (RFC 6455 section 5): fragments joined, control frames between them, text checked.
//!
//! ```text
//!          whole frame in the input: straight to an item
//!          ,--.
//!          v  |
//!        at rest ----part of a head----> head ---whole---> payload ---more of it---,
//!          ^  \_______whole head______________________________^  ^__________________|
//!          |                               ^                     | last byte
//!          |                               `---next fragment-----+
//!          `-----------------------message or control frame------'
//! ```
//!
//! Text is checked as it arrives, so that a byte that cannot be UTF-8 ends the session at once and not after another
//! megabyte. Compressed messages are kept compressed until their last fragment: an inflater in the middle of a message
//! could not be written down.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::header::{self, Header, Opcode, Role, apply_mask};
use super::{Frame, FrameKind, Item, deflate, grow};

/// Boxed, because it is there only between the first and the last byte of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    role: Role,
    partial: Option<Box<Partial>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Partial {
    /// A head that is not whole yet.
    head: Vec<u8>,
    /// The frame whose payload arrives, and how much of it has.
    frame: Option<(Header, u64)>,
    /// The message that fragments are joined to.
    message: Option<Message>,
    /// Payload of a control frame; it may come in the middle of a message.
    control: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    kind: FrameKind,
    compressed: bool,
    payload: Vec<u8>,
    /// How much of the payload is known to be UTF-8: all but a character that lacks its end.
    checked: usize,
}

impl Decoder {
    pub(super) fn new(role: Role) -> Self {
        Decoder { role, partial: None }
    }

    pub(super) fn decode(
        &mut self,
        deflate: bool,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        if self.partial.is_none() {
            if input.is_empty() {
                return Ok((0, None));
            }
            if let Some((taken, item)) = self.whole(deflate, max_frame, input)? {
                return Ok((taken, Some(item)));
            }
        }
        let partial = self.partial.get_or_insert_default();
        let mut taken = 0;
        loop {
            if partial.frame.is_none() {
                taken += partial.take_head(self.role, deflate, max_frame, &input[taken..])?;
            }
            let Some((header, got)) = partial.frame else { return Ok((taken, None)) };
            let payload = up_to(header.len.saturating_sub(got), &input[taken..]);
            partial.take_payload(header, got, max_frame, payload)?;
            taken += payload.len();
            let got = got + payload.len() as u64;
            if got < header.len {
                partial.frame = Some((header, got));
                return Ok((taken, None));
            }
            partial.frame = None;
            if let Some(item) = partial.end_frame(header, max_frame)? {
                if partial.message.is_none() {
                    self.partial = None;
                }
                return Ok((taken, Some(item)));
            }
        }
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        self.partial.is_some()
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |m| m.payload.capacity());
            size_of::<Partial>() + partial.head.capacity() + partial.control.capacity() + message
        })
    }

    /// The usual case: a frame that is a whole message, all of it in the input.
    fn whole(&self, deflate: bool, max_frame: usize, input: &[u8]) -> Result<Option<(usize, Item)>, FrameError> {
        let Some((header, start)) = Header::read(input, self.role, deflate)? else { return Ok(None) };
        let kind = match header.opcode {
            Opcode::Text => Some(FrameKind::Text),
            Opcode::Binary => Some(FrameKind::Binary),
            Opcode::Close | Opcode::Ping | Opcode::Pong => None,
            Opcode::Continuation => return Ok(None),
        };
        if kind.is_some() {
            check_size(0, header.len, most_payload(header.compressed, max_frame))?;
        }
        let payload = up_to(header.len, &input[start..]);
        if !header.fin || (payload.len() as u64) < header.len {
            return Ok(None);
        }
        let taken = start + payload.len();
        let mut payload = payload.to_vec();
        apply_mask(&mut payload, header.mask, 0);
        let item = match kind {
            Some(kind) => Message { kind, compressed: header.compressed, payload, checked: 0 }.into_item(max_frame)?,
            None => control_item(header.opcode, payload)?,
        };
        Ok(Some((taken, item)))
    }
}

impl Partial {
    /// Takes a head, or what there is of one.
    fn take_head(&mut self, role: Role, deflate: bool, max: usize, input: &[u8]) -> Result<usize, FrameError> {
        let had = self.head.len();
        let more = input.len().min(Header::MAX - had);
        self.head.extend_from_slice(&input[..more]);
        let Some((header, size)) = Header::read(&self.head, role, deflate)? else { return Ok(more) };
        self.head.clear();
        match header.opcode {
            Opcode::Text => self.start_message(FrameKind::Text, header.compressed)?,
            Opcode::Binary => self.start_message(FrameKind::Binary, header.compressed)?,
            Opcode::Continuation if self.message.is_none() => return Err(FrameError::NothingToContinue),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
        if let (false, Some(message)) = (header.opcode.is_control(), &self.message) {
            check_size(message.payload.len(), header.len, most_payload(message.compressed, max))?;
        }
        self.frame = Some((header, 0));
        Ok(size - had)
    }

    fn start_message(&mut self, kind: FrameKind, compressed: bool) -> Result<(), FrameError> {
        if self.message.is_some() {
            return Err(FrameError::MessageInterrupted);
        }
        self.message = Some(Message { kind, compressed, payload: Vec::new(), checked: 0 });
        Ok(())
    }

    /// Takes payload of a frame that has got `got` bytes before.
    fn take_payload(&mut self, header: Header, got: u64, max: usize, payload: &[u8]) -> Result<(), FrameError> {
        match &mut self.message {
            Some(message) if !header.opcode.is_control() => {
                // The last fragment tells the size of the whole; others may be followed by as much as the limit allows.
                let missing = usize::try_from(header.len.saturating_sub(got)).unwrap_or(usize::MAX);
                let whole = message.payload.len().saturating_add(missing);
                let bound = if header.fin { whole } else { most_payload(message.compressed, max) };
                message.take(header.mask, got, bound, payload)
            }
            _ => {
                let start = self.control.len();
                self.control.extend_from_slice(payload);
                apply_mask(&mut self.control[start..], header.mask, got);
                Ok(())
            }
        }
    }

    /// After the last byte of a frame: what it completes, if anything.
    fn end_frame(&mut self, header: Header, max_frame: usize) -> Result<Option<Item>, FrameError> {
        if header.opcode.is_control() {
            return control_item(header.opcode, std::mem::take(&mut self.control)).map(Some);
        }
        if !header.fin {
            return Ok(None);
        }
        self.message.take().map(|message| message.into_item(max_frame)).transpose()
    }
}

impl Message {
    fn take(&mut self, mask: [u8; 4], at: u64, bound: usize, payload: &[u8]) -> Result<(), FrameError> {
        let start = self.payload.len();
        grow(&mut self.payload, payload.len(), bound);
        self.payload.extend_from_slice(payload);
        apply_mask(&mut self.payload[start..], mask, at);
        if self.kind == FrameKind::Text && !self.compressed {
            check_utf8(&self.payload, &mut self.checked)?;
        }
        Ok(())
    }

    fn into_item(mut self, max_frame: usize) -> Result<Item, FrameError> {
        if self.compressed {
            self.payload = deflate::inflate(&self.payload, max_frame, self.kind == FrameKind::Text)?;
        } else if self.kind == FrameKind::Text && str::from_utf8(&self.payload[self.checked..]).is_err() {
            return Err(FrameError::NotUtf8);
        }
        Ok(Item::Frame(Frame { kind: self.kind, body: self.payload.into() }))
    }
}

/// Goes on with a check of text that is still arriving: `checked` bytes are known to be good. A character that lacks
/// its end is not an error yet.
pub(super) fn check_utf8(text: &[u8], checked: &mut usize) -> Result<(), FrameError> {
    match str::from_utf8(&text[*checked..]) {
        Ok(good) => *checked += good.len(),
        Err(error) if error.error_len().is_none() => *checked += error.valid_up_to(),
        Err(_) => return Err(FrameError::NotUtf8),
    }
    Ok(())
}

/// The front of `input`, at most `len` bytes.
fn up_to(len: u64, input: &[u8]) -> &[u8] {
    &input[..usize::try_from(len).map_or(input.len(), |len| len.min(input.len()))]
}

/// Bytes of payload that a message of at most `max_frame` bytes may have on the wire. What cannot be compressed grows:
/// by 5 bytes for each stored block, by an eighth if the sender knows only fixed Huffman codes (9 bits a byte, RFC 1951
/// section 3.2.6).
fn most_payload(compressed: bool, max_frame: usize) -> usize {
    if compressed { max_frame.saturating_add(max_frame / 8).saturating_add(64) } else { max_frame }
}

fn check_size(had: usize, more: u64, max: usize) -> Result<(), FrameError> {
    let (size, max) = (more.saturating_add(had as u64), max as u64);
    if size > max { Err(FrameError::TooLarge { size, max }) } else { Ok(()) }
}

fn control_item(opcode: Opcode, payload: Vec<u8>) -> Result<Item, FrameError> {
    let payload = Bytes::from(payload);
    Ok(match opcode {
        Opcode::Ping => Item::Ping(payload),
        Opcode::Pong => Item::Pong(payload),
        _ => {
            let (code, reason) = header::read_close(&payload)?;
            Item::Close { code, reason: payload.slice_ref(reason) }
        }
    })
}
