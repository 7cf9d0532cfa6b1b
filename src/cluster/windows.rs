//! What was received of other nodes: nothing is taken twice, nothing out of order. Plain data.
//!
//! One number for each subject on which each run has spoken, sorted by runs: what a run leaves behind is thrown away as a whole, and the
//! others' numbers are not looked at for that. A hundred nodes that speak on all 1026 subjects take about 4 MB.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::engine::Subject;
use crate::proto::envelope::Sender;

/// For how many looks a run is remembered that nobody knows any more: something of it may still be under way.
const LOOKS: u8 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Windows {
    by_sender: HashMap<Sender, Heard>,
}

/// What has come of one run.
#[derive(Debug, Default)]
struct Heard {
    /// The number of the last envelope on each subject.
    last: HashMap<Subject, u64>,
    /// Looks at which nobody knew it, since something came of it.
    unknown: u8,
}

/// What becomes of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is taken; so many before it never came.
    Taken {
        /// Envelopes that never came, or come too late now.
        missed: u64,
    },
    /// It was here already, or a later one was.
    Stale,
}

impl Windows {
    /// Judges an envelope by its number. What was published before the first that comes was not for us.
    pub(super) fn take(&mut self, from: Sender, subject: Subject, number: u64) -> Arrival {
        let heard = self.by_sender.entry(from).or_default();
        // What still comes of it shows that more may be under way.
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

    /// To be called with every beat: runs of which `is_known` has been false, and nothing has come, for a lease are forgotten.
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
        let mut windows = Windows::default();
        let taken = |missed| Arrival::Taken { missed };
        for (number, expected) in
            [(41, taken(0)), (42, taken(0)), (42, Arrival::Stale), (45, taken(2)), (44, Arrival::Stale), (46, taken(0))]
        {
            assert_eq!(windows.take(sender(1, 1), Subject::All, number), expected, "{number}");
        }
        // Other subjects and other runs have their own numbers.
        assert_eq!(windows.take(sender(1, 1), Subject::Node(3), 1), taken(0));
        assert_eq!(windows.take(sender(1, 2), Subject::All, 1), taken(0));
        assert_eq!(windows.take(sender(1, 1), Subject::All, 46), Arrival::Stale);
    }

    #[test]
    fn runs_that_nobody_knows_are_forgotten_when_nothing_of_them_can_be_under_way() {
        let mut windows = Windows::default();
        for run in 0..1000 {
            windows.take(sender(1, run), Subject::All, 1);
        }
        for look in 0..2 * LOOKS {
            windows.look(|known| *known == sender(1, 0));
            if look < LOOKS {
                assert_eq!(windows.take(sender(1, 999), Subject::All, 1), Arrival::Stale, "it comes late, and again");
            }
        }
        assert_eq!(windows.by_sender.len(), 2, "it was heard of within a lease");
        windows.look(|known| *known == sender(1, 0));
        assert_eq!(windows.by_sender.len(), 1);
        assert_eq!(windows.take(sender(1, 0), Subject::All, 1), Arrival::Stale);
    }
}
