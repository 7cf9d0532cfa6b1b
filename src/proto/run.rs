//! Runs of nodes, and numbers that are valid within one run only.
//!
//! Each start of a node is a new run, and it counts from 1 again. So a number means nothing without its run. The types here always keep
//! both together: numbers of different runs are never equal.

use std::fmt;
use std::num::NonZeroU64;

/// One start of a node, identified by 64 random bits. Runs can be equal or different, but have no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Run(u64);

impl Run {
    /// The run of a node that has no other nodes.
    pub const ALONE: Self = Self(0);

    /// The run with these bits.
    pub const fn of(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits, for the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// Hexadecimal, so that it does not look like a count.
impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Identifies a request: the run that sent it, and its number there. An answer carries both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    run: Run,
    number: NonZeroU64,
}

impl RequestId {
    /// The request with this number; `None` for 0, which means "no request".
    pub fn new(run: Run, number: u64) -> Option<Self> {
        Some(Self { run, number: NonZeroU64::new(number)? })
    }

    /// The run that sent the request.
    pub fn run(self) -> Run {
        self.run
    }

    /// The number for the wire.
    pub fn number(self) -> u64 {
        self.number.get()
    }
}

/// Numbers the requests of one run, from 1.
#[derive(Debug)]
pub struct RequestIds {
    run: Run,
    last: u64,
}

impl RequestIds {
    /// Starts the numbers of this run.
    pub fn new(run: Run) -> Self {
        Self { run, last: 0 }
    }

    pub fn next_id(&mut self) -> RequestId {
        self.last += 1;
        RequestId::new(self.run, self.last).expect("it counts from 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_of_two_runs_is_two_requests() {
        let (mut one, mut other) = (RequestIds::new(Run::of(1)), RequestIds::new(Run::of(2)));
        let (first, second) = (one.next_id(), other.next_id());
        assert_eq!((first.number(), second.number()), (1, 1));
        assert_ne!(first, second);
        assert_ne!(first, one.next_id());
        assert_eq!(RequestId::new(Run::of(1), 0), None);
    }
}
