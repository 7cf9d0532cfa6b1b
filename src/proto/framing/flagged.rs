//! Delimiter framing with the options of device protocols: start bytes before each frame, and escapes, so that neither start nor
//! delimiter appears inside a frame.
//!
//! ```text
//!              start                    delimiter: a frame
//!   Seeking ----------> Inside -----------------------------> Seeking, or Inside when start and delimiter are the same
//!      ^                  |
//!      `------------------' invalid bytes, if `resync` skips them
//! ```
//!
//! If start and delimiter are the same, they are a flag. The bytes between two flags are a frame. Two flags with nothing between them
//! are not an empty frame, so a peer may put one flag or two between frames (JT/T 808, HDLC).

use bytes::Bytes;
use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};

use super::affix::Affix;
use super::delimiter::{self, DelimiterFraming};
use super::error::FrameError;
use super::marked::{Skipped, find_start, may_start};
use super::{Frame, FrameKind, Item, OptionFault, grow};

/// A byte that must not appear in a frame, and the two bytes that replace it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Escape {
    pub byte: u8,
    /// The two bytes that are sent instead.
    pub code: [u8; 2],
}

/// The bytes that begin and end frames, and the bytes that are escaped inside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FlaggedFraming {
    /// The bytes that end a frame.
    pub delimiter: DelimiterFraming,
    /// The bytes at the beginning of every frame; may be empty.
    pub start: Vec<u8>,
    /// The bytes to escape. If there are any, frames are binary.
    pub escapes: Vec<Escape>,
    /// Ignore empty frames.
    pub skip_empty: bool,
    /// Skip bytes that cannot be a frame, up to the next start.
    pub resync: bool,
}

impl FlaggedFraming {
    /// Checks that the options fit each other. Decoding and encoding rely on it, so the configuration refuses options that do not.
    pub fn check(&self) -> Result<(), OptionFault> {
        let fault = |key, rule: &str| Err(OptionFault { key, rule: rule.to_owned() });
        let delimiter = &self.delimiter.delimiter;
        if self.resync && self.start.is_empty() {
            return fault("resync", "needs a start, because it skips to the next start");
        }
        if self.escapes.is_empty() {
            return Ok(());
        }
        if delimiter.len() != 1 || self.start.len() > 1 {
            return fault("escape", "needs a delimiter of one byte, and a start of one byte or none");
        }
        if self.delimiter.strip_cr {
            return fault("strip_cr", "not beside escape: frames with escapes are binary");
        }
        let is_escaped = |byte: u8| self.escapes.iter().any(|escape| escape.byte == byte);
        for (at, Escape { byte, code }) in self.escapes.iter().enumerate() {
            if !is_escaped(code[0]) {
                let rule = format!("{:#04x} begins a code, so it needs a code of its own", code[0]);
                return fault("escape", &rule);
            }
            if code.iter().any(|byte| delimiter.contains(byte) || self.start.contains(byte)) {
                return fault("escape", &format!("the code of {byte:#04x} has the delimiter or the start in it"));
            }
            if self.escapes[..at].iter().any(|other| other.byte == *byte || other.code == *code) {
                return fault("escape", &format!("{byte:#04x} or its code is there twice"));
            }
        }
        match delimiter.iter().chain(&self.start).find(|byte| !is_escaped(**byte)) {
            Some(byte) => fault("escape", &format!("{byte:#04x} begins or ends a frame, so it needs a code")),
            None => Ok(()),
        }
    }

    /// Whether start and delimiter are the same.
    fn is_flag(&self) -> bool {
        self.start == self.delimiter.delimiter
    }

    fn first_stage(&self) -> FrameStage {
        if self.start.is_empty() { FrameStage::Inside } else { FrameStage::Seeking }
    }

    /// Called for `bytes` bytes that cannot be part of a frame. Returns how many to skip; without `resync` it is an error.
    fn skip(&self, bytes: usize) -> Result<usize, FrameError> {
        if self.resync { Ok(bytes) } else { Err(FrameError::NoStart) }
    }

    fn begins_code(&self, byte: u8) -> bool {
        self.escapes.iter().any(|escape| escape.code[0] == byte)
    }

    /// Text without escapes, binary with escapes.
    pub fn kind(&self) -> FrameKind {
        if self.escapes.is_empty() { FrameKind::Text } else { FrameKind::Binary }
    }

    /// Whether the body stays in one piece.
    pub(super) const fn wraps(&self) -> bool {
        self.escapes.is_empty()
    }

    /// The bytes before a body.
    pub(super) fn head(&self) -> Affix {
        let mut head = Affix::zeroed(self.start.len());
        head.as_mut().copy_from_slice(&self.start);
        head
    }

    /// Appends a whole frame to `out`.
    pub(super) fn append(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.start);
        if self.wraps() {
            out.extend_from_slice(body);
        } else {
            for byte in body {
                match self.escapes.iter().find(|escape| escape.byte == *byte) {
                    Some(escape) => out.extend_from_slice(&escape.code),
                    None => out.push(*byte),
                }
            }
        }
        out.extend_from_slice(&self.delimiter.delimiter);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FrameStage {
    /// Between frames.
    Seeking,
    /// Inside a frame.
    Inside,
}

/// The bytes of a frame, or of a start, so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Decoder {
    stage: FrameStage,
    /// The first byte of a code whose second byte has not arrived.
    lead: Option<u8>,
    /// Bytes of this frame on the wire so far.
    wire: usize,
    /// Part of a start, or of a body if the framing has escapes.
    partial: Vec<u8>,
    /// Decodes bodies if the framing has no escapes.
    plain: delimiter::Decoder,
    pub(super) skipped: Skipped,
}

/// A byte that is not allowed at its place.
struct BadByte {
    at: usize,
    error: FrameError,
}

impl Decoder {
    pub(super) fn new(framing: &FlaggedFraming) -> Self {
        Self {
            stage: framing.first_stage(),
            lead: None,
            wire: 0,
            partial: Vec::new(),
            plain: delimiter::Decoder::default(),
            skipped: Skipped::default(),
        }
    }

    pub(super) fn decode(
        &mut self,
        framing: &FlaggedFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Item>), FrameError> {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            let (n, body) = match self.stage {
                FrameStage::Seeking => (self.seek(framing, max_frame, rest)?, None),
                FrameStage::Inside if framing.wraps() => self.take_plain(framing, max_frame, rest)?,
                FrameStage::Inside => self.take_escaped(framing, max_frame, rest)?,
            };
            taken += n;
            let Some(body) = body else { continue };
            self.wire = 0;
            self.stage = if framing.is_flag() { FrameStage::Inside } else { framing.first_stage() };
            if !(body.is_empty() && (framing.skip_empty || framing.is_flag())) {
                self.skipped.end();
                return Ok((taken, Some(Item::Frame(Frame { kind: framing.kind(), body }))));
            }
        }
        Ok((taken, None))
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
            || self.plain.is_mid_frame()
            || self.lead.is_some()
            || self.stage == FrameStage::Inside && self.wire > 0
    }

    pub(super) fn buffered(&self) -> usize {
        self.partial.capacity() + self.plain.buffered()
    }

    /// Takes bytes up to the end of the next start, or all bytes if there is none.
    fn seek(&mut self, framing: &FlaggedFraming, max_frame: usize, input: &[u8]) -> Result<usize, FrameError> {
        let start = &framing.start;
        if self.partial.is_empty() {
            let skipped = if may_start(start, input) { 0 } else { framing.skip(find_start(start, input))? };
            self.skipped.add(skipped, max_frame)?;
            let rest = &input[skipped..];
            let begun = rest.len().min(start.len());
            if begun == start.len() {
                self.enter(framing);
            } else {
                self.partial.extend_from_slice(rest);
            }
            return Ok(skipped + begun);
        }
        // A start is only a few bytes long, so one that arrives in pieces is checked byte by byte.
        self.partial.push(input[0]);
        while !may_start(start, &self.partial) {
            self.partial.drain(..framing.skip(1)?);
            self.skipped.add(1, max_frame)?;
        }
        match self.partial.len() {
            0 => self.partial = Vec::new(),
            len if len == start.len() => self.enter(framing),
            _ => {}
        }
        Ok(1)
    }

    /// Called when a start is complete.
    fn enter(&mut self, framing: &FlaggedFraming) {
        self.partial = Vec::new();
        self.stage = FrameStage::Inside;
        // A flag may also have ended the skipped bytes: a frame has begun only when another byte follows.
        self.wire = if framing.is_flag() { 0 } else { framing.start.len() };
    }

    fn take_plain(
        &mut self,
        framing: &FlaggedFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Bytes>), FrameError> {
        let (taken, item) = self.plain.decode(&framing.delimiter, max_frame, input)?;
        Ok(match item {
            Some(Item::Frame(frame)) => (taken, Some(frame.body)),
            _ => (taken, None),
        })
    }

    /// Takes bytes up to the end of the frame, or up to a byte that is not allowed, or all.
    fn take_escaped(
        &mut self,
        framing: &FlaggedFraming,
        max_frame: usize,
        input: &[u8],
    ) -> Result<(usize, Option<Bytes>), FrameError> {
        let delimiter = framing.delimiter.delimiter[0];
        let at = match framing.start.first() {
            Some(start) if *start != delimiter => memchr2(*start, delimiter, input),
            _ => memchr(delimiter, input),
        };
        let chunk = &input[..at.unwrap_or(input.len())];
        let mut wrong = self.unescape(framing, max_frame, chunk)?.err();
        if let (None, Some(at)) = (&wrong, at) {
            let second = input[at];
            wrong = match self.lead {
                Some(lead) => Some(BadByte { at, error: FrameError::BadEscape { lead, second } }),
                None if second != delimiter => Some(BadByte { at, error: FrameError::StartInside }),
                None => None,
            };
        }
        match (wrong, at) {
            (Some(BadByte { at, error }), _) => {
                if !framing.resync {
                    return Err(error);
                }
                self.skipped.add(self.wire + at, max_frame)?;
                *self = Self { stage: FrameStage::Seeking, skipped: self.skipped, ..Self::new(framing) };
                Ok((at, None))
            }
            (None, Some(at)) => Ok((at + 1, Some(std::mem::take(&mut self.partial).into()))),
            (None, None) => {
                self.wire += input.len();
                Ok((input.len(), None))
            }
        }
    }

    /// Keeps the bytes of `chunk` with escapes undone. The outer error means that the frame is too large, the inner one an unknown escape.
    fn unescape(
        &mut self,
        framing: &FlaggedFraming,
        max_frame: usize,
        chunk: &[u8],
    ) -> Result<Result<(), BadByte>, FrameError> {
        for (at, byte) in chunk.iter().copied().enumerate() {
            let byte = match self.lead {
                Some(lead) => match framing.escapes.iter().find(|escape| escape.code == [lead, byte]) {
                    Some(escape) => escape.byte,
                    None => {
                        return Ok(Err(BadByte { at, error: FrameError::BadEscape { lead, second: byte } }));
                    }
                },
                None if framing.begins_code(byte) => {
                    self.lead = Some(byte);
                    continue;
                }
                None => byte,
            };
            self.lead = None;
            if self.partial.len() == max_frame {
                return Err(FrameError::Unended { max: max_frame as u64 });
            }
            let left = (chunk.len() - at).min(max_frame - self.partial.len());
            grow(&mut self.partial, left, max_frame);
            self.partial.push(byte);
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_in_pieces;
    use super::*;
    use crate::proto::framing::Framing;

    const MAX: usize = 20;

    fn framing(start: &str, delimiter: &str) -> FlaggedFraming {
        let delimiter = DelimiterFraming { delimiter: delimiter.into(), strip_cr: false };
        FlaggedFraming { delimiter, start: start.into(), ..FlaggedFraming::default() }
    }

    /// JT/T 808-2019 section 4.4.1.
    fn jtt808() -> FlaggedFraming {
        let escapes = vec![Escape { byte: 0x7e, code: [0x7d, 2] }, Escape { byte: 0x7d, code: [0x7d, 1] }];
        FlaggedFraming { escapes, ..framing("\x7e", "\x7e") }
    }

    /// JT/T 809-2019 section 4.3.3: `[` and `]` around each frame, and two bytes that begin codes.
    fn jtt809() -> FlaggedFraming {
        let escape = |byte, lead, second| Escape { byte, code: [lead, second] };
        let escapes = vec![escape(0x5b, 0x5a, 1), escape(0x5a, 0x5a, 2), escape(0x5d, 0x5e, 1), escape(0x5e, 0x5e, 2)];
        FlaggedFraming { escapes, ..framing("[", "]") }
    }

    fn check(framing: &FlaggedFraming, input: &[u8], expected: Result<&[&[u8]], FrameError>, skipped: u64) {
        framing.check().unwrap();
        check_in_pieces(&Framing::Flagged(framing.clone().into()), MAX, input, expected, skipped);
    }

    #[test]
    fn a_frame_stands_between_start_and_delimiter() {
        check(&framing("(", ")"), b"(a)()(b)", Ok(&[b"a", b"", b"b"]), 0);
        check(&framing("*HQ", "#"), b"*HQ,1#*HQ,2#", Ok(&[b",1", b",2"]), 0);
        check(&framing("(", ")"), b"(a)x(b)", Err(FrameError::NoStart), 0);
        check(&framing("", "\n"), b"a\n\nb\n", Ok(&[b"a", b"", b"b"]), 0);
        let skip_empty = |framing| FlaggedFraming { skip_empty: true, ..framing };
        check(&skip_empty(framing("", "\n")), b"\n\na\n\nb\n", Ok(&[b"a", b"b"]), 0);
        check(&skip_empty(framing("(", ")")), b"(a)()(b)", Ok(&[b"a", b"b"]), 0);
        let mut lines = skip_empty(framing("$", "\n"));
        lines.delimiter.strip_cr = true;
        check(&lines, b"$a\r\n$\r\n$b\n", Ok(&[b"a", b"b"]), 0);
    }

    #[test]
    fn one_flag_or_two_stand_between_frames() {
        check(&jtt808(), b"\x7ea\x7e\x7eb\x7ec\x7e\x7e\x7e", Ok(&[b"a", b"b", b"c"]), 0);
        check(&framing("--", "--"), b"--a----b--c--", Ok(&[b"a", b"b", b"c"]), 0);
        check(&jtt808(), b"a\x7eb\x7e", Err(FrameError::NoStart), 0);
    }

    #[test]
    fn escapes_are_undone_and_done() {
        // The example of JT/T 808 section 4.4.1.
        let (body, wire) = (b"\x30\x7e\x08\x7d\x55", b"\x7e\x30\x7d\x02\x08\x7d\x01\x55\x7e");
        check(&jtt808(), wire, Ok(&[body]), 0);
        let mut frame = Vec::new();
        jtt808().append(body, &mut frame);
        assert_eq!(frame, wire);
        check(&jtt809(), b"[\x5a\x01\x5a\x02\x5e\x01\x5e\x02]", Ok(&[b"[Z]^"]), 0);
        let mut frame = Vec::new();
        jtt809().append(b"[Z]^", &mut frame);
        assert_eq!(frame, b"[\x5a\x01\x5a\x02\x5e\x01\x5e\x02]");
        check(&jtt808(), b"\x7e\x7d\x03\x7e", Err(FrameError::BadEscape { lead: 0x7d, second: 3 }), 0);
        check(&jtt808(), b"\x7ea\x7d\x7e", Err(FrameError::BadEscape { lead: 0x7d, second: 0x7e }), 0);
        check(&jtt809(), b"[a[b]", Err(FrameError::StartInside), 0);
    }

    #[test]
    fn the_limit_counts_what_php_sees() {
        let escaped = [&b"\x7e"[..], &b"\x7d\x01".repeat(MAX), b"\x7e"].concat();
        check(&jtt808(), &escaped, Ok(&[&[0x7d; MAX]]), 0);
        let unended = Err(FrameError::Unended { max: MAX as u64 });
        check(&jtt808(), &[&b"\x7e"[..], &b"\x7d\x01".repeat(MAX + 1)].concat(), unended, 0);
        check(&framing("(", ")"), &[&b"("[..], &[b'a'; MAX + 1]].concat(), unended, 0);
    }

    #[test]
    fn what_is_no_frame_is_skipped_when_asked() {
        let resync = |framing| FlaggedFraming { resync: true, ..framing };
        check(&resync(framing("(", ")")), b"x(a)yz(b)", Ok(&[b"a", b"b"]), 3);
        check(&resync(framing("**", "#")), b"*x***a#*", Ok(&[b"*a"]), 2);
        check(&resync(framing("aab", "#")), b"aaaab1#", Ok(&[b"1"]), 2);
        check(&resync(jtt808()), b"abc\x7ea\x7e", Ok(&[b"a"]), 3);
        // The frame with the bad escape is lost, and no other.
        check(&resync(jtt808()), b"\x7ea\x7d\x03b\x7e\x7ec\x7e", Ok(&[b"c"]), 4);
        check(&resync(jtt808()), b"\x7ea\x7e\x7eb\x7d\x7e\x7ec\x7e", Ok(&[b"a", b"c"]), 2);
        // A frame that is cut short by the next one.
        check(&resync(jtt809()), b"[ab[c]", Ok(&[b"c"]), 3);
        check(&resync(jtt809()), b"[a\x5a]b[c]", Ok(&[b"c"]), 5);
        check(&resync(jtt808()), &[b'x'; MAX + 1], Err(FrameError::NoFrameFound { max: MAX as u64 }), 0);
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let escape = |byte, code| Escape { byte, code };
        let with = |escapes: &[Escape]| FlaggedFraming { escapes: escapes.to_vec(), ..framing("\x7e", "\x7e") };
        let good = jtt808().escapes;
        let cr = DelimiterFraming { strip_cr: true, delimiter: b"\x7e".to_vec() };
        for (framing, key, rule) in [
            (FlaggedFraming { resync: true, ..framing("", "#") }, "resync", "needs a start"),
            (FlaggedFraming { escapes: good.clone(), ..framing("", "ab") }, "escape", "one byte"),
            (FlaggedFraming { escapes: good.clone(), ..framing("ab", "\x7e") }, "escape", "one byte"),
            (FlaggedFraming { escapes: good.clone(), ..framing("a", "\x7e") }, "escape", "0x61 begins or ends"),
            (FlaggedFraming { escapes: good, delimiter: cr, ..jtt808() }, "strip_cr", "not beside escape"),
            (with(&[escape(0x7e, [0x7d, 2])]), "escape", "0x7d begins a code"),
            (with(&[escape(0x7e, [0x7d, 2]), escape(0x7d, [0x7d, 2])]), "escape", "0x7d or its code is there twice"),
            (with(&[escape(0x7e, [0x7d, 0x7e]), escape(0x7d, [0x7d, 1])]), "escape", "the code of 0x7e has the"),
        ] {
            let fault = framing.check().unwrap_err();
            assert_eq!(fault.key, key, "{framing:?}");
            assert!(fault.rule.contains(rule), "{}", fault.rule);
        }
    }
}
