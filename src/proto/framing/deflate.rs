//! permessage-deflate (RFC 7692), always without context takeover in both directions.
//!
//! Each message is compressed by itself, so that nothing is kept between messages (a window would cost more than the
//! rest of a session), one compressed frame can be shared among receivers, and a session can move to another process.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::extension::{self, Extension};
use super::grow;
use super::websocket::check_utf8;

const NAME: &str = "permessage-deflate";
/// What a sync flush ends with, and a message leaves out (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Room for the flush marker and more, so that zlib need not write it twice (zlib.h on Z_SYNC_FLUSH: above six).
const FLUSH_ROOM: usize = 64;

/// How to compress for one peer: it said how far back we may refer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deflate {
    /// From 9 to 15.
    window_bits: u8,
}

impl Default for Deflate {
    /// As far as DEFLATE can: 32 KB.
    fn default() -> Self {
        Deflate { window_bits: Self::MAX_WINDOW_BITS }
    }
}

impl Deflate {
    /// zlib has no raw stream with a window of 256 bytes, so an offer that asks for 8 is declined.
    const MIN_WINDOW_BITS: u8 = 9;
    const MAX_WINDOW_BITS: u8 = 15;

    fn compressor(self) -> Compress {
        Compress::new_with_window_bits(Compression::default(), false, self.window_bits)
    }
}

/// What a handshake settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// For [`super::Framing::WebSocket`].
    pub deflate: Deflate,
    /// Value of `Sec-WebSocket-Extensions` in the answer.
    pub response: String,
}

/// Takes the first offer in a client's `Sec-WebSocket-Extensions` that we can honour (RFC 7692 section 7.1). Several
/// headers of that name are to be joined with commas. `None`: no extension, which every client must accept.
pub fn negotiate(offers: &str) -> Option<Negotiated> {
    extension::parse(offers)?.iter().find_map(honour)
}

fn honour(offer: &Extension<'_>) -> Option<Negotiated> {
    let params = Params::read(offer, Sender::Client)?;
    // `client_no_context_takeover` may be answered without having been offered (section 7.1.1.2); a window for the
    // client is its own affair, we inflate any.
    let mut response = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
    let mut deflate = Deflate::default();
    if let Some(bits) = params.server_window_bits {
        if bits < Deflate::MIN_WINDOW_BITS {
            return None;
        }
        deflate.window_bits = bits;
        response.push_str(&format!("; server_max_window_bits={bits}"));
    }
    Some(Negotiated { deflate, response })
}

/// What our own client offers. A server that accepts must then not keep its context, which is the only kind of message
/// that [`super::Decoder`] can inflate.
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// What a server's answer to [`OFFER`] means for us: `None` when it accepted something that was not offered, and the
/// connection must fail (RFC 7692 section 5.1).
pub fn accepted(response: &str) -> Option<Deflate> {
    let extensions = extension::parse(response)?;
    let [extension] = extensions.as_slice() else { return None };
    let params = Params::read(extension, Sender::Server)?;
    (params.server_no_context_takeover && params.client_window_bits.is_none()).then(Deflate::default)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// The parameters of RFC 7692 section 7.1, each at most once and with a value where it has one.
#[derive(Default)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<u8>,
    /// A client may name the parameter without a value: it would obey whatever the answer says.
    client_window_bits: Option<Option<u8>>,
}

impl Params {
    fn read(extension: &Extension<'_>, sender: Sender) -> Option<Self> {
        if !extension.name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut params = Params::default();
        for (name, value) in &extension.params {
            let repeated = match (*name, *value) {
                ("server_no_context_takeover", None) => std::mem::replace(&mut params.server_no_context_takeover, true),
                ("client_no_context_takeover", None) => std::mem::replace(&mut params.client_no_context_takeover, true),
                ("server_max_window_bits", Some(bits)) => {
                    params.server_window_bits.replace(window_bits(bits)?).is_some()
                }
                ("client_max_window_bits", Some(bits)) => {
                    params.client_window_bits.replace(Some(window_bits(bits)?)).is_some()
                }
                ("client_max_window_bits", None) if sender == Sender::Client => {
                    params.client_window_bits.replace(None).is_some()
                }
                _ => return None,
            };
            if repeated {
                return None;
            }
        }
        Some(params)
    }
}

/// RFC 7692 section 7.1.2.1: from 8 to 15, no leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

thread_local! {
    // One of each for a thread, because to make one costs more than to compress a small message with it. A cache: each
    // user resets it, nothing of a message is ever read by the next one.
    static COMPRESS: RefCell<Compress> = RefCell::new(Deflate::default().compressor());
    static DECOMPRESS: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Compresses a whole message.
pub fn deflate_whole(deflate: Deflate, body: &[u8]) -> Vec<u8> {
    if deflate == Deflate::default() {
        COMPRESS.with_borrow_mut(|compress| {
            compress.reset();
            deflate_piece(compress, body, true)
        })
    } else {
        deflate_piece(&mut deflate.compressor(), body, true)
    }
}

/// Compresses a message that is sent as it comes into being. Costs some hundred kilobytes for as long as it lives,
/// which is one reply; it is not part of the state that can be written down.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Deflater {
    /// For one message.
    pub fn new(deflate: Deflate) -> Self {
        Deflater(deflate.compressor())
    }

    /// The next fragment, holding all of `data`: nothing waits inside for a later piece. `last` ends the message, and
    /// `data` may then be empty. A fragment is never empty unless `data` is.
    pub fn piece(&mut self, data: &[u8], last: bool) -> Vec<u8> {
        deflate_piece(&mut self.0, data, last)
    }
}

fn deflate_piece(compress: &mut Compress, mut data: &[u8], last: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if !data.is_empty() {
        out.reserve(data.len() / 2 + FLUSH_ROOM);
        loop {
            let before = compress.total_in();
            compress
                .compress_vec(data, &mut out, FlushCompress::Sync)
                .expect("zlib fails only on a stream that was finished or misused");
            data = &data[(compress.total_in() - before) as usize..];
            if data.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(out.capacity().max(FLUSH_ROOM));
        }
    }
    if last {
        if out.ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        } else {
            // Nothing was written, for there was nothing to write. The receiver adds TAIL again, which needs the
            // first byte of an empty stored block before it (RFC 7692 section 7.2.3.6).
            out.push(0);
        }
    }
    out
}

/// Inflates a whole message. Memory grows with what comes out and stops one byte past `max_frame`; text is checked on
/// the way.
pub(super) fn inflate(message: &[u8], max_frame: usize, is_text: bool) -> Result<Vec<u8>, FrameError> {
    DECOMPRESS.with_borrow_mut(|decompress| {
        decompress.reset(false);
        let bound = max_frame.saturating_add(1);
        let mut out = Vec::new();
        grow(&mut out, message.len().saturating_mul(2).min(bound), bound);
        let mut checked = 0;
        for mut input in [message, &TAIL] {
            loop {
                let (had, before) = (out.len(), decompress.total_in());
                let status = decompress
                    .decompress_vec(input, &mut out, FlushDecompress::Sync)
                    .map_err(|_| FrameError::NotDeflate)?;
                let taken = (decompress.total_in() - before) as usize;
                input = &input[taken..];
                if is_text {
                    check_utf8(&out, &mut checked)?;
                }
                if out.len() > max_frame {
                    return Err(FrameError::InflatedTooLarge { max: max_frame as u64 });
                }
                if status == Status::StreamEnd {
                    // Section 7.2.3.4: a block may be marked as the final one, and more may follow it.
                    decompress.reset(false);
                } else if input.is_empty() && out.len() < out.capacity() {
                    break;
                } else if taken == 0 && out.len() == had && had < out.capacity() {
                    return Err(FrameError::NotDeflate);
                }
                if out.len() == out.capacity() {
                    let more = out.len().max(1).min(bound - out.len());
                    grow(&mut out, more, bound);
                }
            }
        }
        if checked < out.len() && is_text {
            return Err(FrameError::NotUtf8);
        }
        Ok(out)
    })
}
