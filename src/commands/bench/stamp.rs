//! The stamp at the start of each message, by which the receiver recognizes it.
//!
//! ```text
//!   echo     000017 0000000042 xxxxxxx...       client, number of its message, filler
//!   fan-out  000000 0000000042 0000001234567 x  the same with the time of publishing, in microseconds from the start
//! ```

use std::ops::Range;

const CLIENT: Range<usize> = 0..6;
const NUMBER: Range<usize> = 7..17;
const TIME: Range<usize> = 18..31;

/// Number of clients that a stamp can tell apart.
pub(super) const MAX_CLIENTS: usize = 1_000_000;

/// Makes the messages of a run, one at a time in the same buffer.
#[derive(Clone, Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
    stamp: usize,
}

/// The fields of a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) client: usize,
    pub(super) number: u64,
}

impl Message {
    /// A message of `len` bytes.
    ///
    /// # Errors
    ///
    /// If `len` is too small for a stamp; the text has the minimum.
    pub(super) fn new(len: usize, is_timed: bool) -> Result<Self, String> {
        let stamp = if is_timed { TIME.end + 1 } else { NUMBER.end + 1 };
        if len < stamp {
            return Err(format!(
                "--bytes {len} is too small for the stamp at the start of each message: at least {stamp}"
            ));
        }
        // Letters only: no line end or other byte that a framing could take for a delimiter.
        let filler = (0..len).map(|at| b'a' + (at % 26) as u8);
        let mut bytes: Vec<u8> = filler.collect();
        bytes[..stamp].fill(b' ');
        Ok(Self { bytes, stamp })
    }

    /// The message with this stamp.
    pub(super) fn stamped(&mut self, client: usize, number: u64, micros: u64) -> &[u8] {
        digits(&mut self.bytes[CLIENT], client as u64);
        digits(&mut self.bytes[NUMBER], number);
        if self.stamp > TIME.end {
            digits(&mut self.bytes[TIME], micros);
        }
        &self.bytes
    }

    /// The stamp of a received message; `None` if it is not one of this run's messages.
    pub(super) fn read(&self, got: &[u8]) -> Option<Stamp> {
        if got.len() != self.bytes.len() || got[self.stamp..] != self.bytes[self.stamp..] {
            return None;
        }
        let is_blank = |at: usize| got[at] == b' ';
        if !is_blank(CLIENT.end) || !is_blank(NUMBER.end) || !is_blank(self.stamp - 1) {
            return None;
        }
        Some(Stamp { client: number(&got[CLIENT])? as usize, number: number(&got[NUMBER])? })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn digits(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// Keeps track of which numbers of a sequence have come.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence {
    /// One above the highest number that has come.
    next: u64,
    /// The numbers below `next` that have not come yet, in order.
    holes: Vec<u64>,
}

/// How a number compares to those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is higher than all of them.
    Ahead,
    /// A higher number came before it.
    Late,
    /// It has come before.
    Again,
}

impl Sequence {
    pub(super) fn take(&mut self, number: u64) -> Fit {
        if number >= self.next {
            self.holes.extend(self.next..number);
            self.next = number + 1;
            return Fit::Ahead;
        }
        match self.holes.binary_search(&number) {
            Ok(at) => {
                self.holes.remove(at);
                Fit::Late
            }
            Err(_) => Fit::Again,
        }
    }

    /// Whether this one has come.
    pub(super) fn has(&self, number: u64) -> bool {
        number < self.next && self.holes.binary_search(&number).is_err()
    }

    /// How many of the first `sent` have not come.
    pub(super) fn missing(&self, sent: u64) -> u64 {
        self.holes.len() as u64 + sent.saturating_sub(self.next)
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_anything_else_does_not() {
        for (len, is_timed) in [(18, false), (64, false), (32, true), (128, true)] {
            let mut message = Message::new(len, is_timed).unwrap();
            let sent = message.stamped(17, 42, 1_234_567).to_vec();
            assert_eq!(sent.len(), len);
            assert_eq!(message.read(&sent), Some(Stamp { client: 17, number: 42 }));
            for at in 0..len {
                let mut wrong = sent.clone();
                wrong[at] = b'#';
                assert!(TIME.contains(&at) && is_timed || message.read(&wrong).is_none(), "{at} of {len}");
            }
            assert_eq!(message.read(&sent[1..]), None);
        }
        assert!(Message::new(17, false).unwrap_err().contains("at least 18"));
        assert!(Message::new(31, true).unwrap_err().contains("at least 32"));
    }

    #[test]
    fn a_sequence_tells_what_is_late_again_or_missing() {
        let mut sequence = Sequence::default();
        let fits: Vec<Fit> = [0, 1, 4, 2, 2, 4, 0, 5].into_iter().map(|number| sequence.take(number)).collect();
        assert_eq!(
            fits,
            [Fit::Ahead, Fit::Ahead, Fit::Ahead, Fit::Late, Fit::Again, Fit::Again, Fit::Again, Fit::Ahead]
        );
        assert_eq!((sequence.missing(6), sequence.missing(8)), (1, 3));
        assert!(sequence.has(2) && !sequence.has(3) && !sequence.has(6));
    }
}
