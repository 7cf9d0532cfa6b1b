//! Reports a node's own sessions: which changes apps have not been told of, and which keepers know them. Plain data.
//!
//! ```text
//!   change ──> log, numbered ──a keeper: apps were told──> settled
//!                │ changes                                    │ the whole, to a keeper that knows nothing
//!                v                                            v
//!              lead and second keeper of the partition
//! ```
//!
//! A change stays in the log until a keeper says that apps were told, so it survives the keepers. Reports may be lost: each
//! [`look`](Reporter::look) asks keepers what they have, and repeats what they have lacked since the last look. When other nodes
//! took this node for gone and say so, its sessions join again. Partitions without members are reported too, because a keeper has
//! to know that it has heard from all nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Roll, View};
use crate::proto::envelope::Sender;
use crate::proto::partition::Partition;
use crate::proto::presence::{Piece, Report, ReportAck, Standing};

#[derive(Debug)]
pub(super) struct Reporter {
    parts: BTreeMap<Partition, Part>,
    /// Partitions that may have something to report.
    dirty: BTreeSet<Partition>,
    /// Changes in all logs.
    untold: usize,
    max_untold: usize,
    /// The same changes, by partition and number, in the order in which they came. Some of them are settled already.
    arrivals: VecDeque<(Partition, u64)>,
}

/// One partition.
#[derive(Debug, Default)]
struct Part {
    /// The sessions in each channel, as far as apps have been told.
    roll: Roll,
    /// The number of the last change in `roll`.
    settled: u64,
    /// The changes after `settled`.
    log: VecDeque<Standing>,
    /// When this change is settled, apps have been told everything that was inherited.
    inherited: u64,
    /// The lead, and the second.
    keepers: [Option<Known>; 2],
}

/// A keeper, and the changes that it is known to have.
#[derive(Clone, Copy, Debug)]
struct Known {
    keeper: Sender,
    /// It has been told that it is the lead.
    is_lead: bool,
    /// It has not answered since it became a keeper.
    is_new: bool,
    /// The last change sent to it. `None` if it must get the whole state.
    sent: Option<u64>,
    /// The last change that it confirmed to have.
    received: Option<u64>,
    /// The last change of which it said that apps were told.
    told: u64,
    /// The value of `received` at the last look.
    looked_at: Option<Option<u64>>,
}

impl Reporter {
    /// Reports these partitions. `max_untold` bounds the changes that apps have not been told of. Beyond it, the oldest of all
    /// partitions are given up.
    pub(super) fn new(partitions: impl Iterator<Item = Partition>, max_untold: usize) -> Self {
        let parts = partitions.map(|partition| (partition, Part::default())).collect();
        Self { parts, dirty: BTreeSet::new(), untold: 0, max_untold, arrivals: VecDeque::new() }
    }

    /// Records a change. Returns how many older changes were given up for it.
    pub(super) fn change(&mut self, standing: Standing) -> u64 {
        let partition = Partition::of_channel(&standing.of.channel);
        self.dirty.insert(partition);
        let part = self.parts.entry(partition).or_default();
        part.log.push_back(standing);
        let number = part.last();
        self.untold += 1;
        self.came(partition, number, number);
        let mut given_up = 0;
        while self.untold > self.max_untold
            && let Some((partition, number)) = self.arrivals.pop_front()
        {
            // The oldest of all goes, so that a quiet channel does not lose a recent change because another channel is busy.
            if let Some(part) = self.parts.get_mut(&partition).filter(|part| part.settled < number) {
                part.settle_one();
                self.dirty.insert(partition);
                self.untold -= 1;
                given_up += 1;
            }
        }
        given_up
    }

    /// Records that changes from this number to that have come.
    fn came(&mut self, partition: Partition, first: u64, last: u64) {
        self.arrivals.extend((first..=last).map(|number| (partition, number)));
        // Drops settled entries, rarely enough that the cost for each change stays small.
        const FEW: usize = 1024;
        if self.arrivals.len() > FEW + 2 * self.untold {
            let parts = &self.parts;
            self.arrivals.retain(|(partition, number)| parts.get(partition).is_some_and(|part| part.settled < *number));
        }
    }

    /// A keeper took this node for gone and told apps that its sessions left. All sessions that are here join again. Apps may also
    /// still have sessions that are here no more: those leave.
    pub(super) fn say_again(&mut self, partition: Partition) {
        let Some(part) = self.parts.get_mut(&partition) else { return };
        let before = part.log.len();
        let mut stale = part.roll.standings();
        stale.extend(part.log.iter().filter(|standing| standing.is_in).cloned());
        while part.settle_one() {}
        part.skip_number();
        let current = std::mem::take(&mut part.roll);
        stale.retain(|standing| !current.has(&standing.of));
        part.roll = Roll::of(&stale);
        let leave =
            part.roll.standings().into_iter().map(|standing| Standing { is_in: false, again: true, ..standing });
        let join = current.standings().into_iter().map(|standing| Standing { again: true, ..standing });
        part.log = leave.chain(join).collect();
        part.inherited = part.settled + part.roll.len() as u64;
        let (first, last) = (part.settled + 1, part.last());
        self.untold = self.untold - before + part.log.len();
        self.came(partition, first, last);
        self.dirty.insert(partition);
    }

    /// Takes over sessions of a node that is gone. Apps may still have them in channels, so they leave.
    pub(super) fn inherit(&mut self, partition: Partition, believed: Vec<Standing>) {
        let part = self.parts.entry(partition).or_default();
        part.skip_number();
        for standing in &believed {
            part.roll.apply(standing);
        }
        self.untold += believed.len();
        let first = part.last() + 1;
        part.log.extend(believed.into_iter().map(|standing| Standing { is_in: false, again: true, ..standing }));
        part.inherited = part.last();
        let last = part.inherited;
        self.came(partition, first, last);
        self.dirty.insert(partition);
    }

    /// True if apps have been told of everything inherited.
    pub(super) fn has_told_inherited(&self, partition: Partition) -> bool {
        self.parts.get(&partition).is_none_or(|part| part.settled >= part.inherited)
    }

    /// Counts keepers that do not know the sessions in a partition, over all partitions.
    pub(super) fn unshared(&self) -> usize {
        self.parts
            .values()
            .flat_map(|part| part.keepers.iter().flatten())
            .filter(|known| known.received.is_none())
            .count()
    }

    /// Changes that apps have not been told of.
    pub(super) fn untold(&self) -> usize {
        self.untold
    }

    /// The nodes that are here have changed, so partitions may have other keepers.
    pub(super) fn view(&mut self, view: &View) {
        for (partition, part) in &mut self.parts {
            part.keep_by(view.keepers(*partition));
            self.dirty.insert(*partition);
        }
    }

    /// Returns the reports to send now, with their receivers.
    pub(super) fn reports(&mut self, me: Sender) -> Vec<(Sender, Report)> {
        let mut reports = Vec::new();
        for partition in std::mem::take(&mut self.dirty) {
            if let Some(part) = self.parts.get_mut(&partition) {
                part.report(me, partition, false, &mut reports);
            }
        }
        reports
    }

    /// Returns reports of all partitions, and asks keepers that may lack something. To be called from time to time, at intervals in
    /// which an answer can come.
    pub(super) fn look(&mut self, me: Sender) -> Vec<(Sender, Report)> {
        let mut reports = Vec::new();
        for (partition, part) in &mut self.parts {
            part.report(me, *partition, true, &mut reports);
        }
        reports
    }

    /// Takes a keeper's acknowledgement of what it has.
    pub(super) fn ack(&mut self, from: Sender, ack: &ReportAck) {
        let Some(part) = self.parts.get_mut(&ack.partition) else { return };
        // No keeper has more changes than exist. Such an acknowledgement is about an earlier run of this node.
        if ack.settled.max(ack.received.unwrap_or(0)) > part.last() {
            return;
        }
        while part.settled < ack.settled {
            part.settle_one();
            self.untold -= 1;
        }
        let Some(known) = part.keepers.iter_mut().flatten().find(|known| known.keeper == from) else { return };
        known.is_new &= ack.received.is_none() || known.sent.is_none();
        (known.received, known.told) = (ack.received, ack.settled);
        known.sent = ack.received.and_then(|received| known.sent.map(|sent| sent.max(received)));
        // The keeper may want the whole state, or this node may have waited for this acknowledgement.
        self.dirty.insert(ack.partition);
    }
}

impl Part {
    fn last(&self) -> u64 {
        self.settled + self.log.len() as u64
    }

    /// Marks the oldest change as told. False if there is none.
    fn settle_one(&mut self) -> bool {
        let Some(standing) = self.log.pop_front() else { return false };
        self.roll.apply(&standing);
        self.settled += 1;
        true
    }

    /// Skips a number, so that no keeper has the numbers from now on and all must be sent the whole state.
    fn skip_number(&mut self) {
        self.settled = self.last() + 1;
        self.keepers.iter_mut().flatten().for_each(|known| known.sent = None);
    }

    fn keep_by(&mut self, keepers: [Option<Sender>; 2]) {
        let before = self.keepers;
        let known = |keeper: Sender| {
            let new =
                Known { keeper, is_lead: false, is_new: true, sent: None, received: None, told: 0, looked_at: None };
            before.into_iter().flatten().find(|known| known.keeper == keeper).unwrap_or(new)
        };
        self.keepers = keepers.map(|keeper| keeper.map(known));
    }

    fn report(&mut self, me: Sender, partition: Partition, looks: bool, reports: &mut Vec<(Sender, Report)>) {
        let (settled, last) = (self.settled, self.last());
        let is_empty = self.roll.is_empty() && self.log.is_empty();
        // If this node is the lead and dies right after it told apps of its own sessions, no node would know of them. So the second
        // must know first.
        let safe = match self.keepers {
            [Some(lead), Some(second)] if lead.keeper == me => second.received.unwrap_or(0).clamp(settled, last),
            _ => last,
        };
        for (at, known) in self.keepers.iter_mut().enumerate() {
            let Some(known) = known else { continue };
            let is_lead = at == 0;
            let last = if is_lead { safe } else { last };
            if looks {
                if known.received < known.sent && known.looked_at == Some(known.received) {
                    known.sent = known.received;
                }
                known.looked_at = Some(known.received);
            }
            let knows_all = known.received == Some(last) && known.told == settled;
            let asks = looks && !(is_empty && knows_all);
            if known.sent.is_some_and(|sent| sent >= last) && known.is_lead == is_lead && !asks {
                continue;
            }
            // Settled changes are no longer in the log.
            let from = known.sent.filter(|sent| *sent >= settled);
            let whole = from.is_none().then(|| self.roll.standings());
            let from = from.unwrap_or(settled);
            let changes = self.log.iter().take((last - settled) as usize).skip((from - settled) as usize);
            let changes = changes.cloned().collect();
            (known.sent, known.is_lead) = (Some(last), is_lead);
            let is_new = known.is_new;
            let report = Report { partition, piece: Piece::WHOLE, is_lead, is_new, settled, whole, from, changes };
            reports.push((known.keeper, report));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::Name;
    use crate::proto::id::SessionIds;
    use crate::proto::presence::Membership;
    use crate::proto::run::Run;

    #[test]
    fn the_oldest_changes_of_all_are_given_up_and_not_the_newest_of_a_quiet_channel() {
        const MAX: usize = 3;
        let ids = SessionIds::new(1, 1, [7; 16]);
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let joins = |channel: &str| {
            let of = Membership { app: name("app"), channel: name(channel), session: ids.next_id() };
            Standing { of, is_in: true, again: false, uid: None }
        };
        let me = Sender { node: 1, run: Run::of(1) };
        let mut reporter = Reporter::new(Partition::all(), MAX);
        reporter.view(&View::alone(me));
        let said: Vec<Standing> = ["busy", "busy", "busy", "quiet", "busy", "quiet"].map(joins).to_vec();
        let given_up: Vec<u64> = said.iter().map(|standing| reporter.change(standing.clone())).collect();
        assert_eq!(given_up, [0, 0, 0, 1, 1, 1]);
        assert_eq!(reporter.untold(), MAX);
        let reports = reporter.reports(me);
        let changes_in = |channel: &str| {
            let partition = Partition::of_channel(&name(channel));
            let mut of_it = reports.iter().filter(|(_, report)| report.partition == partition);
            of_it.next().unwrap().1.changes.clone()
        };
        assert_eq!(changes_in("quiet"), [said[3].clone(), said[5].clone()]);
        assert_eq!(changes_in("busy"), [said[4].clone()]);
        // Settled changes are not remembered forever.
        for _ in 0..10_000 {
            reporter.change(joins("busy"));
        }
        assert!(reporter.arrivals.len() < 2000, "{}", reporter.arrivals.len());
    }
}
