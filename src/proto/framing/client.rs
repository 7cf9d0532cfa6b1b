//! The client side: frames as a client sends them, for `longwire connect` and for tests.
//!
//! A client receives with [`super::Decoder::new_client`].

use bytes::Bytes;

use super::header::{self, Opcode};
use super::{BodyDoesNotFit, FrameKind, Framing, deflate, join};

/// A whole frame, masked if it is a WebSocket frame. If the framing keeps its header, the body must include the header.
pub fn encode(framing: &Framing, kind: FrameKind, body: &[u8], mask: [u8; 4]) -> Result<Bytes, BodyDoesNotFit> {
    match framing {
        Framing::WebSocket { .. } => Ok(masked(Opcode::of(kind), true, false, body, mask)),
        // Clients of event streams send no frames: for them this encodes the frame that they would receive.
        _ => framing.encode(kind, body),
    }
}

/// Like [`encode`], but appends to `out`: a sender of many frames need not allocate for each of them.
pub fn append(
    framing: &Framing,
    kind: FrameKind,
    body: &[u8],
    mask: [u8; 4],
    out: &mut Vec<u8>,
) -> Result<(), BodyDoesNotFit> {
    match framing {
        Framing::WebSocket { .. } => {
            out.extend_from_slice(&header::head(Opcode::of(kind), true, false, body.len(), Some(mask)));
            let at = out.len();
            out.extend_from_slice(body);
            header::apply_mask(&mut out[at..], mask, 0);
        }
        Framing::Flagged(framing) => framing.append(body, out),
        _ => match framing.whole_head(kind, body.len())? {
            Some(head) => {
                out.extend_from_slice(&head);
                out.extend_from_slice(body);
                out.extend_from_slice(framing.tail());
            }
            None => out.extend_from_slice(&framing.encode(kind, body)?),
        },
    }
    Ok(())
}

/// Like [`encode`], but compressed if compression was negotiated.
pub fn encode_deflated(
    framing: &Framing,
    kind: FrameKind,
    body: &[u8],
    mask: [u8; 4],
) -> Result<Bytes, BodyDoesNotFit> {
    match framing.deflate() {
        Some(settled) => {
            let body = deflate::deflate_whole(settled, body);
            Ok(masked(Opcode::of(kind), true, true, &body, mask))
        }
        None => encode(framing, kind, body, mask),
    }
}

/// One fragment of a WebSocket message.
pub fn fragment(kind: FrameKind, first: bool, last: bool, body: &[u8], mask: [u8; 4]) -> Bytes {
    let opcode = if first { Opcode::of(kind) } else { Opcode::Continuation };
    masked(opcode, last, false, body, mask)
}

/// A WebSocket ping; at most 125 bytes of payload are sent.
pub fn ping(payload: &[u8], mask: [u8; 4]) -> Bytes {
    control(Opcode::Ping, payload, mask)
}

/// A WebSocket pong; at most 125 bytes of payload are sent.
pub fn pong(payload: &[u8], mask: [u8; 4]) -> Bytes {
    control(Opcode::Pong, payload, mask)
}

/// A WebSocket close frame, under the same rules as [`Framing::close`].
pub fn close(code: Option<u16>, text: &str, mask: [u8; 4]) -> Bytes {
    let (payload, len) = header::close_payload(code, text);
    control(Opcode::Close, &payload[..len], mask)
}

fn control(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Bytes {
    masked(opcode, true, false, &payload[..payload.len().min(header::MAX_CONTROL)], mask)
}

fn masked(opcode: Opcode, fin: bool, compressed: bool, body: &[u8], mask: [u8; 4]) -> Bytes {
    let head = header::head(opcode, fin, compressed, body.len(), Some(mask));
    let mut frame = Vec::from(join(&head, body, &[]));
    header::apply_mask(&mut frame[head.len()..], mask, 0);
    frame.into()
}
