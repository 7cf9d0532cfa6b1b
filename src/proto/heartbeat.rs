//! Heartbeats of a stream protocol, as an operator describes them: what is sent to ask, and what is looked for in frames.
//!
//! Bytes only. When to ask, and what silence means, is the session's to decide. A frame is looked at as PHP would see it
//! (with its header where the framing keeps it); what is sent is sent as it stands, so it brings its own framing.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

/// The heartbeat of a listener: what keeps a link alive without PHP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What we send into silence; `None` never asks.
    pub ask: Option<Ask>,
    /// What we answer when the peer asks; `None` leaves its probes to PHP.
    pub reply: Option<Reply>,
}

/// Our own probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Silence after which the first is sent.
    pub after: Duration,
    /// How long each may go unanswered before the next, or the close.
    pub every: Duration,
    /// How many may go unanswered.
    pub max_unanswered: u8,
    /// The bytes of one.
    pub send: Vec<u8>,
    /// Where in them the number stands that tells one from another, 1 to 8 bytes, big-endian.
    pub sequence: Option<Range<usize>>,
    /// What answers one; `None`: anything that is received.
    pub answer: Option<Pattern>,
}

/// What is looked for in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Where.
    pub offset: usize,
    /// What.
    pub bytes: Vec<u8>,
}

/// Answers to the peer's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What makes a frame a probe.
    pub probe: Pattern,
    /// The bytes of an answer.
    pub send: Vec<u8>,
    /// What each takes over from the probe that it answers.
    pub copy: Option<Copied>,
}

/// Bytes that an answer takes over from the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Where they stand in the probe.
    pub from: usize,
    /// Where they go in the answer.
    pub to: usize,
    /// How many.
    pub len: usize,
}

impl Ask {
    /// The `n`-th probe of a session, from 0: its number is what stands in [`Ask::send`] and `n` more, round and round.
    pub fn probe(&self, n: u32) -> Bytes {
        let mut probe = self.send.clone();
        if let Some(place) = self.sequence.clone() {
            let mut carry = u64::from(n);
            for byte in probe[place].iter_mut().rev() {
                carry += u64::from(*byte);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
        probe.into()
    }
}

impl Pattern {
    /// Whether this frame has the bytes at that place; a shorter one has not.
    pub fn matches(&self, frame: &[u8]) -> bool {
        frame.get(self.offset..).is_some_and(|rest| rest.starts_with(&self.bytes))
    }

    /// The least length of a frame that can match.
    pub fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

impl Reply {
    /// The answer to this frame, if it is a probe. One too short for what is to be copied is none.
    pub fn to(&self, frame: &[u8]) -> Option<Bytes> {
        if !self.probe.matches(frame) {
            return None;
        }
        let mut answer = self.send.clone();
        if let Some(Copied { from, to, len }) = self.copy {
            answer[to..to + len].copy_from_slice(frame.get(from..from + len)?);
        }
        Some(answer.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ask(send: &[u8], sequence: Option<Range<usize>>) -> Ask {
        Ask {
            after: Duration::from_secs(60),
            every: Duration::from_secs(60),
            max_unanswered: 3,
            send: send.to_vec(),
            sequence,
            answer: None,
        }
    }

    #[test]
    fn each_probe_has_its_own_number_counted_from_what_stands_there() {
        #[track_caller]
        fn check(send: &[u8], place: Range<usize>, n: u32, expected: &[u8]) {
            assert_eq!(&ask(send, Some(place)).probe(n)[..], expected);
        }
        check(b"P\0\0\0\0!", 1..5, 0, b"P\0\0\0\0!");
        check(b"P\0\0\0\0!", 1..5, 0x0102_0304, b"P\x01\x02\x03\x04!");
        check(b"P\x80\0\0\0!", 1..5, 7, b"P\x80\0\0\x07!");
        check(b"P\0\xff!", 1..3, 1, b"P\x01\x00!");
        check(b"P\xff!", 1..2, 1, b"P\x00!");
        check(b"\0\0\0\0\xff\xff\xff\xff", 0..8, u32::MAX, b"\0\0\0\x01\xff\xff\xff\xfe");
        assert_eq!(&ask(b"ping\n", None).probe(7)[..], b"ping\n");
    }

    #[test]
    fn a_frame_matches_by_the_bytes_at_their_place_and_a_short_one_never_does() {
        let pattern = Pattern { offset: 2, bytes: b"ok".to_vec() };
        for (frame, expected) in [
            (&b"..ok"[..], true),
            (b"..ok and more", true),
            (b"ok", false),
            (b"..o", false),
            (b".", false),
            (b"", false),
        ] {
            assert_eq!(pattern.matches(frame), expected, "{frame:?}");
        }
        assert_eq!(pattern.end(), 4);
    }

    #[test]
    fn an_answer_takes_over_what_it_is_told_to_from_the_probe() {
        let reply = Reply {
            probe: Pattern { offset: 0, bytes: b"?".to_vec() },
            send: b"!....".to_vec(),
            copy: Some(Copied { from: 2, to: 1, len: 3 }),
        };
        assert_eq!(reply.to(b"?-abcd").as_deref(), Some(&b"!abc."[..]));
        assert_eq!(reply.to(b"?-ab"), None, "too short to be one");
        assert_eq!(reply.to(b"x-abc"), None);
        let plain = Reply { copy: None, ..reply };
        assert_eq!(plain.to(b"?").as_deref(), Some(&b"!...."[..]));
    }

    proptest! {
        #[test]
        fn random_frames_never_panic(frame: Vec<u8>, offset in 0usize..40, from in 0usize..40, len in 0usize..5) {
            let probe = Pattern { offset, bytes: frame.get(offset..).unwrap_or(b"x").to_vec() };
            let reply = Reply { probe, send: vec![0; 5], copy: Some(Copied { from, to: 5 - len, len }) };
            let answer = reply.to(&frame);
            prop_assert_eq!(answer.is_some(), offset <= frame.len() && from + len <= frame.len());
        }
    }
}
