//! Heartbeats of a stream protocol, as an operator describes them: the bytes of a probe or a reply, and the bytes that mark one in a frame.
//!
//! Bytes only. The session decides when to probe and how to react to silence. Patterns are matched against the frame as PHP would see
//! it (with its header if the framing keeps it). Probes and replies are sent unchanged, so they must include their own framing.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

/// The heartbeat of a listener: it keeps a link alive without PHP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The probes that Longwire sends to a silent peer; `None` sends none.
    pub ask: Option<Ask>,
    /// The reply to a probe of the peer; `None` passes its probes to PHP.
    pub reply: Option<ProbeReply>,
}

/// The probes that Longwire sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Silence after which the first probe is sent.
    pub after: Duration,
    /// How long to wait for an answer before the next probe, or before the close.
    pub every: Duration,
    /// How many probes may go unanswered.
    pub max_unanswered: u8,
    /// The bytes of a probe.
    pub send: Vec<u8>,
    /// The place of the sequence number in these bytes: 1 to 8 bytes, big-endian.
    pub sequence: Option<Range<usize>>,
    /// A frame that answers a probe; `None`: any received bytes count as an answer.
    pub answer: Option<Pattern>,
}

/// Bytes to look for at a fixed place in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Where in the frame they begin.
    pub offset: usize,
    pub bytes: Vec<u8>,
}

/// Answers to the peer's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReply {
    /// A frame that matches is a probe.
    pub probe: Pattern,
    /// The bytes of a reply.
    pub send: Vec<u8>,
    /// Bytes of the probe that are copied into its reply.
    pub copy: Option<Copied>,
}

/// Bytes that are copied from a probe into its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Their place in the probe.
    pub from: usize,
    /// Their place in the reply.
    pub to: usize,
    /// How many.
    pub len: usize,
}

impl Ask {
    /// The `n`-th probe of a session, from 0. Its sequence number is the one in [`Ask::send`] plus `n`, and wraps around.
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
    /// Whether this frame has the bytes at that place. A frame that is too short does not match.
    pub fn matches(&self, frame: &[u8]) -> bool {
        frame.get(self.offset..).is_some_and(|rest| rest.starts_with(&self.bytes))
    }

    /// The length of the shortest frame that can match.
    pub fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }
}

impl ProbeReply {
    /// The reply to this frame, if it is a probe. A frame too short for the bytes to copy is not a probe.
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
        let reply = ProbeReply {
            probe: Pattern { offset: 0, bytes: b"?".to_vec() },
            send: b"!....".to_vec(),
            copy: Some(Copied { from: 2, to: 1, len: 3 }),
        };
        assert_eq!(reply.to(b"?-abcd").as_deref(), Some(&b"!abc."[..]));
        assert_eq!(reply.to(b"?-ab"), None, "too short to be one");
        assert_eq!(reply.to(b"x-abc"), None);
        let plain = ProbeReply { copy: None, ..reply };
        assert_eq!(plain.to(b"?").as_deref(), Some(&b"!...."[..]));
    }

    proptest! {
        #[test]
        fn random_frames_never_panic(frame: Vec<u8>, offset in 0usize..40, from in 0usize..40, len in 0usize..5) {
            let probe = Pattern { offset, bytes: frame.get(offset..).unwrap_or(b"x").to_vec() };
            let reply = ProbeReply { probe, send: vec![0; 5], copy: Some(Copied { from, to: 5 - len, len }) };
            let answer = reply.to(&frame);
            prop_assert_eq!(answer.is_some(), offset <= frame.len() && from + len <= frame.len());
        }
    }
}
