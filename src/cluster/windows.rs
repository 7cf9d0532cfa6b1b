//! What was received of other nodes: nothing is taken twice, nothing out of order. Plain data.
//!
//! One number for each subject on which each run has spoken, sorted by runs: what a run leaves behind is thrown away as a whole, and the
//! others' numbers are not looked at for that. A hundred nodes that speak on all 1026 subjects take about 4 MB.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::engine::Subject;
use crate::proto::envelope::Sender;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Of each run, the number of the last envelope on each subject.
    by_sender: HashMap<Sender, HashMap<Subject, u64>>,
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
    ///
    /// For the first envelope of a run the runs are forgotten of which `is_known` is false: there are as many as there are members, and
    /// perhaps one more.
    pub(super) fn take(
        &mut self,
        from: Sender,
        subject: Subject,
        number: u64,
        is_known: impl Fn(&Sender) -> bool,
    ) -> Arrival {
        if !self.by_sender.contains_key(&from) {
            self.by_sender.retain(|sender, _| is_known(sender));
        }
        let last = self.by_sender.entry(from).or_default().entry(subject).or_default();
        let missed = match (*last, number.cmp(last)) {
            (_, Ordering::Less | Ordering::Equal) => return Arrival::Stale,
            (0, Ordering::Greater) => 0,
            (before, Ordering::Greater) => number - before - 1,
        };
        *last = number;
        Arrival::Taken { missed }
    }

    /// This run says nothing any more.
    pub(super) fn forget(&mut self, sender: Sender) {
        self.by_sender.remove(&sender);
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
            assert_eq!(windows.take(sender(1, 1), Subject::All, number, |_| true), expected, "{number}");
        }
        // Other subjects and other runs have their own numbers.
        assert_eq!(windows.take(sender(1, 1), Subject::Node(3), 1, |_| true), taken(0));
        assert_eq!(windows.take(sender(1, 2), Subject::All, 1, |_| true), taken(0));
        assert_eq!(windows.take(sender(1, 1), Subject::All, 46, |_| true), Arrival::Stale);
    }

    #[test]
    fn runs_that_nobody_knows_are_forgotten_when_another_one_comes() {
        let mut windows = Windows::default();
        for run in 0..1000 {
            windows.take(sender(1, run), Subject::All, 1, |known| *known == sender(1, 0));
        }
        assert_eq!(windows.by_sender.len(), 2, "the one that is known, and the last one");
        assert_eq!(windows.take(sender(1, 0), Subject::All, 1, |_| true), Arrival::Stale);
        windows.forget(sender(1, 0));
        assert_eq!(windows.by_sender.len(), 1);
    }
}
