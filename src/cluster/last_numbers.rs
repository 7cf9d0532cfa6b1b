//! Drops repeated and out-of-order envelopes from other nodes. Plain data.
//!
//! It keeps one number for each subject that each run has published on, grouped by run. A run that is gone is dropped as a whole,
//! without a look at the other runs' numbers. A hundred nodes that publish on all 1026 subjects take about 4 MB.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::engine::Subject;
use crate::proto::envelope::Sender;

/// For how many looks an unknown run is remembered: some of its envelopes may still be on their way.
const LOOKS: u8 = 3;

#[derive(Debug, Default)]
pub(super) struct LastNumbers {
    by_sender: HashMap<Sender, RunNumbers>,
}

/// Envelopes received from one run.
#[derive(Debug, Default)]
struct RunNumbers {
    /// The number of the last envelope on each subject.
    last: HashMap<Subject, u64>,
    /// Looks at which the run was unknown, since its last envelope.
    unknown: u8,
}

/// Whether an envelope is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is handled.
    Taken {
        /// Envelopes before it that were lost, or will come too late.
        missed: u64,
    },
    /// It is dropped: it, or a later one, has come before.
    Stale,
}

impl LastNumbers {
    /// Checks an envelope by its number. Envelopes published before the first one that comes do not count as missed.
    pub(super) fn take(&mut self, from: Sender, subject: Subject, number: u64) -> Arrival {
        let heard = self.by_sender.entry(from).or_default();
        // More of this run's envelopes may be on their way.
        heard.unknown = 0;
        let last = heard.last.entry(subject).or_default();
        let missed = match (*last, number.cmp(last)) {
            (_, Ordering::Less | Ordering::Equal) => return Arrival::Stale,
            (0, Ordering::Greater) => 0,
            (before, Ordering::Greater) => number - before - 1,
        };
        *last = number;
        Arrival::Taken { missed }
    }

    /// To be called with every beat of this node. Forgets runs for which `is_known` was false, and from which nothing has come, for
    /// a lease.
    pub(super) fn look(&mut self, is_known: impl Fn(&Sender) -> bool) {
        self.by_sender.retain(|sender, heard| {
            heard.unknown = if is_known(sender) { 0 } else { heard.unknown + 1 };
            heard.unknown <= LOOKS
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::run::Run;

    fn sender(node: u16, run: u64) -> Sender {
        Sender { node, run: Run::of(run) }
    }

    #[test]
    fn nothing_is_taken_twice_and_what_is_missing_is_counted() {
        let mut last_numbers = LastNumbers::default();
        let taken = |missed| Arrival::Taken { missed };
        for (number, expected) in
            [(41, taken(0)), (42, taken(0)), (42, Arrival::Stale), (45, taken(2)), (44, Arrival::Stale), (46, taken(0))]
        {
            assert_eq!(last_numbers.take(sender(1, 1), Subject::All, number), expected, "{number}");
        }
        // Other subjects and other runs have their own numbers.
        assert_eq!(last_numbers.take(sender(1, 1), Subject::Node(3), 1), taken(0));
        assert_eq!(last_numbers.take(sender(1, 2), Subject::All, 1), taken(0));
        assert_eq!(last_numbers.take(sender(1, 1), Subject::All, 46), Arrival::Stale);
    }

    #[test]
    fn runs_that_nobody_knows_are_forgotten_when_nothing_of_them_can_be_under_way() {
        let mut last_numbers = LastNumbers::default();
        for run in 0..1000 {
            last_numbers.take(sender(1, run), Subject::All, 1);
        }
        for look in 0..2 * LOOKS {
            last_numbers.look(|known| *known == sender(1, 0));
            if look < LOOKS {
                assert_eq!(
                    last_numbers.take(sender(1, 999), Subject::All, 1),
                    Arrival::Stale,
                    "it comes late, and again"
                );
            }
        }
        assert_eq!(last_numbers.by_sender.len(), 2, "it was heard of within a lease");
        last_numbers.look(|known| *known == sender(1, 0));
        assert_eq!(last_numbers.by_sender.len(), 1);
        assert_eq!(last_numbers.take(sender(1, 0), Subject::All, 1), Arrival::Stale);
    }
}
