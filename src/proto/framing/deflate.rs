//! permessage-deflate (RFC 7692), always without context takeover in both directions.
//!
//! Each message is compressed on its own. So nothing is kept between messages (a window would cost more memory than the rest of a
//! session), receivers can share one compressed frame, and a session can move to another process.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};

use super::error::FrameError;
use super::extension::{self, Extension};
use super::grow;
use super::utf8::check_utf8;

const NAME: &str = "permessage-deflate";
/// The bytes at the end of a sync flush, which are removed from a message (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Room for the flush marker, so that zlib does not write it twice (zlib.h on Z_SYNC_FLUSH asks for more than six bytes).
const FLUSH_ROOM: usize = 64;

/// How to compress for one peer: the peer sets the window, which limits how far back references may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deflate {
    /// From 9 to 15.
    window_bits: u8,
}

impl Default for Deflate {
    /// The largest window of DEFLATE: 32 KB.
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

/// The result of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// For [`super::Framing::WebSocket`].
    pub deflate: Deflate,
    /// Value of `Sec-WebSocket-Extensions` in the answer.
    pub response: String,
}

/// Accepts the first offer in a client's `Sec-WebSocket-Extensions` that Longwire supports (RFC 7692 section 7.1). The caller joins
/// several headers of that name with commas. `None`: no extension, which every client must accept.
pub fn negotiate(offers: &str) -> Option<Negotiated> {
    extension::parse(offers)?.iter().find_map(honour)
}

fn honour(offer: &Extension<'_>) -> Option<Negotiated> {
    let params = Params::read(offer, Sender::Client)?;
    // `client_no_context_takeover` may be in the response without being in the offer (section 7.1.1.2). The client's own window does
    // not matter, because messages of any window can be inflated.
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

/// The offer of Longwire's own client. A server that accepts it must not keep its context between messages, because [`super::Decoder`]
/// can inflate only such messages.
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Reads a server's answer to [`OFFER`]. `None` if the server accepted something that was not offered: then the connection must fail
/// (RFC 7692 section 5.1).
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

/// The parameters of RFC 7692 section 7.1. Each appears at most once, and has a value only if the section defines one.
#[derive(Default)]
struct Params {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<u8>,
    /// A client may send the parameter without a value: then it accepts any value in the response.
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
    // One of each per thread, because creating one costs more than compressing a small message. Each user resets it first, so nothing
    // of one message reaches the next.
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

/// Compresses a message that is streamed. It takes some hundred kilobytes of memory while it lives, which is one reply. It is not part
/// of the state that can be serialized.
#[derive(Debug)]
pub struct Deflater(Compress);

impl Deflater {
    /// For one message.
    pub fn new(deflate: Deflate) -> Self {
        Deflater(deflate.compressor())
    }

    /// The next fragment. It contains all of `data`: nothing is held back for a later piece. `last` ends the message; then `data` may be
    /// empty. A fragment is empty only if `data` is.
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
            // `data` was empty, so no flush marker was written. The receiver appends TAIL, which needs the first byte of an empty stored
            // block before it (RFC 7692 section 7.2.3.6).
            out.push(0);
        }
    }
    out
}

/// Inflates a whole message. Memory grows with the output and stops one byte past `max_frame`. Text is checked while it is inflated.
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
                    // Section 7.2.3.4: more blocks may follow one that is marked as final.
                    decompress.reset(false);
                } else if input.is_empty() && out.len() < out.capacity() {
                    // The output has room left, so all of this input is inflated.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    /// Text that compresses. It has a small vocabulary, so that references far back save bytes.
    fn text(len: usize) -> Vec<u8> {
        let words = ["longwire ", "php ", "frame ", "session ", "echo ", "1234567890 ", "ünïcødé "];
        let mut state = 12_345_u32;
        let mut out = String::new();
        while out.len() < len {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            out.push_str(words[(state >> 16) as usize % words.len()]);
            out.push_str(&(state >> 20).to_string());
        }
        out.into_bytes()
    }

    /// Bytes without repetition, which do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn check(offers: &str, expected: Option<(u8, &str)>) {
        let base = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let expected = expected.map(|(window_bits, more)| Negotiated {
            deflate: Deflate { window_bits },
            response: format!("{base}{more}"),
        });
        assert_eq!(negotiate(offers), expected, "{offers:?}");
    }

    #[test]
    fn the_first_offer_that_can_be_honoured_is_taken() {
        check("permessage-deflate", Some((15, "")));
        check("permessage-deflate; client_max_window_bits", Some((15, "")));
        check("permessage-deflate; client_max_window_bits=8", Some((15, "")));
        check("permessage-deflate; client_no_context_takeover; server_no_context_takeover", Some((15, "")));
        check("permessage-deflate; server_max_window_bits=9", Some((9, "; server_max_window_bits=9")));
        check("permessage-deflate; server_max_window_bits=\"15\"", Some((15, "; server_max_window_bits=15")));
        check("x-webkit-deflate-frame, permessage-deflate", Some((15, "")));
        check(
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10",
            Some((10, "; server_max_window_bits=10")),
        );
        check("permessage-deflate; unknown, permessage-deflate", Some((15, "")));
    }

    #[test]
    fn offers_that_break_the_rules_are_declined() {
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; a=\"",
        ] {
            check(offer, None);
        }
    }

    #[test]
    fn our_client_takes_only_what_it_can_inflate() {
        let answer = negotiate(OFFER).unwrap().response;
        assert_eq!(accepted(&answer), Some(Deflate::default()));
        assert_eq!(accepted("permessage-deflate; server_no_context_takeover"), Some(Deflate::default()));
        for answer in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover, x",
            "x",
            "",
        ] {
            assert_eq!(accepted(answer), None, "{answer:?}");
        }
    }

    #[test]
    fn messages_are_compressed_and_come_back_for_each_window() {
        for window_bits in 9..=15 {
            let deflate = Deflate { window_bits };
            for len in [0, 1, 300, 5_000, 200_000] {
                let body = &text(len)[..len];
                let small = deflate_whole(deflate, body);
                assert_eq!(inflate(&small, MAX, false).as_deref(), Ok(body), "{len} bytes in {window_bits} bits");
                assert!(len < 5_000 || small.len() < len * 2 / 3, "{} of {len} bytes", small.len());
            }
        }
    }

    #[test]
    fn nothing_refers_further_back_than_the_peer_allowed() {
        for window_bits in 9..=15 {
            // Noise repeated once compresses only by references from the second copy to the first.
            let compressed = |distance: usize| {
                let body = noise(distance).repeat(2);
                deflate_whole(Deflate { window_bits }, &body).len() < body.len() * 3 / 4
            };
            assert!(compressed((1 << window_bits) / 4), "{window_bits} bits");
            assert!(!compressed((1 << window_bits) + 1), "{window_bits} bits");
        }
    }

    #[test]
    fn small_messages_are_as_the_rfc_shows_them() {
        assert_eq!(deflate_whole(Deflate::default(), b""), [0]);
        assert_eq!(deflate_whole(Deflate::default(), b"Hello"), b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    }

    #[test]
    fn a_streamed_message_can_be_read_as_it_comes_and_is_the_same_in_the_end() {
        let body = text(50_000);
        for (cuts, empty_end) in [(1, false), (1, true), (7, false), (7, true), (0, true)] {
            let mut deflater = Deflater::new(Deflate::default());
            let mut message = Vec::new();
            let mut sent = 0;
            let pieces: Vec<&[u8]> = body.chunks(body.len().div_ceil(cuts.max(1))).take(cuts).collect();
            for (n, piece) in pieces.iter().enumerate() {
                let last = !empty_end && n + 1 == pieces.len();
                message.extend(deflater.piece(piece, last));
                sent += piece.len();
                // The receiver can read everything sent so far without the later pieces.
                assert_eq!(inflate(&message, MAX, false).unwrap(), &body[..sent]);
            }
            if empty_end {
                message.extend(deflater.piece(b"", true));
            }
            assert_eq!(inflate(&message, MAX, true).unwrap(), &body[..sent]);
            // The tail that the receiver adds ends a block, so an empty final block can follow.
            message.extend([&TAIL[..], &[0x03, 0x00]].concat());
            let mut out = Vec::with_capacity(sent + 1);
            let status = Decompress::new(false).decompress_vec(&message, &mut out, FlushDecompress::Sync).unwrap();
            assert_eq!((status, out.len()), (Status::StreamEnd, sent));
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let bomb = deflate_whole(Deflate::default(), &vec![0; 10 << 20]);
        assert!(bomb.len() < 20_000);
        let error = FrameError::InflatedTooLarge { max: 1000 };
        assert_eq!(inflate(&bomb, 1000, false), Err(error));
        assert_eq!(inflate(&bomb, 1000, true), Err(error));
        let exact = deflate_whole(Deflate::default(), &[0; 1000]);
        let inflated = inflate(&exact, 1000, false).unwrap();
        assert!(inflated.len() == 1000 && inflated.capacity() <= 1001);
        assert_eq!(inflate(&exact, 999, false), Err(FrameError::InflatedTooLarge { max: 999 }));
        assert_eq!(inflate(&deflate_whole(Deflate::default(), b""), 0, false), Ok(Vec::new()));
    }

    #[test]
    fn an_error_leaves_nothing_behind_for_the_next_message() {
        let good = deflate_whole(Deflate::default(), b"good");
        for bad in [&b"\xff\xff"[..], &deflate_whole(Deflate::default(), &[0; 5_000]), b"\xf2\x48"] {
            let _ = inflate(bad, 4, true);
            assert_eq!(inflate(&good, 4, true).as_deref(), Ok(&b"good"[..]));
        }
    }

    #[test]
    fn inflated_text_must_be_utf8() {
        for (body, expected) in [(&b"caf\xc3\xa9"[..], true), (b"caf\xc3", false), (b"caf\xe9 au lait", false)] {
            let message = deflate_whole(Deflate::default(), body);
            assert_eq!(inflate(&message, MAX, true).is_ok(), expected);
            assert!(inflate(&message, MAX, false).is_ok());
        }
    }
}
