//! The account that a node keeps of partitions: which sessions are in which channel, and what apps are told. Plain data.
//!
//! ```text
//!   report ──> record of the node that sent it: pending ──apps were told, here or by another keeper──> roll
//!                                                  │ turn by turn, where this keeper leads
//!                                                  v
//!                              occupied, join, leave, vacated; then an ack to that node
//!
//!   a node is gone: one of the remaining keepers inherits its roll, and reports that every session in it has left
//! ```
//!
//! A keeper that was cut off for a moment may not know that others have led meanwhile. Apps then get its notices after the other
//! keepers' notices. When a node has to report everything to it again, it tells apps the current state of each session on which the
//! two disagree.
//!
//! Within a partition the lead tells one change at a time, in the order in which changes came. It starts only when all nodes that
//! are here have reported to it as the lead, because before that it does not know whether a channel is empty. A change that makes
//! no difference to what apps know is not told.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{ChannelChange, Notice, PartitionNotices, Roll, View, keepers};
use crate::proto::command::Name;
use crate::proto::envelope::Sender;
use crate::proto::partition::Partition;
use crate::proto::presence::{Gone, Membership, Report, ReportAck, Standing};

#[derive(Debug, Default)]
pub(super) struct Keeper {
    parts: BTreeMap<Partition, Part>,
    /// Partitions that may have something to tell.
    ready: BTreeSet<Partition>,
    /// Nodes that are here, this one among them.
    here: Vec<Sender>,
    /// See [`View::epochs`].
    epochs: BTreeMap<u16, u32>,
    /// Nodes whose sessions were taken for gone, by number and epoch: in which partitions, and at which count of `times`. They may
    /// come back.
    taken_for_gone: BTreeMap<(u16, u32), BTreeMap<Partition, u64>>,
    /// Counts changes of the nodes that are here: at each, a node may have been taken for gone.
    times: u64,
}

/// The part of a gone node's record, for one partition, that is still to be set right.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) partition: Partition,
    /// Sessions that apps may still have in channels.
    pub(super) believed: Vec<Standing>,
    /// Apps may have been told that sessions of this node are gone, because the gone node took this node for gone.
    pub(super) misses_ours: bool,
}

/// One partition.
#[derive(Debug, Default)]
struct Part {
    records: BTreeMap<Sender, Record>,
    /// The queue of turns by node: at least one turn for each change that is to be told.
    turns: VecDeque<Sender>,
    /// The node whose change is being told.
    telling: Option<Sender>,
    /// Channels for which apps were told again whether they have members, because another keeper may have told them something else.
    told_again: BTreeSet<(Name, Name)>,
    /// Memberships whose current state was told again while changes were pending. Other keepers may have told those changes before.
    corrected: BTreeSet<Membership>,
}

/// The reports of one run of one node.
#[derive(Debug, Default)]
struct Record {
    /// The node wants this keeper to tell the apps.
    is_lead: bool,
    /// The node wanted that when it was last heard. So this keeper may have told what `roll` says, and others may have told
    /// something else since.
    has_led: bool,
    /// This keeper has been cut off since.
    is_doubted: bool,
    /// Memberships about which this keeper told apps one thing, and others perhaps told another.
    uncertain: BTreeSet<Membership>,
    /// The state that apps were told, including the change that is being told.
    roll: Roll,
    /// Apps were told the changes up to this number.
    settled: u64,
    /// The number of this node's change that is being told.
    telling: Option<u64>,
    /// The last change that came. `None` if the node has to report everything.
    received: Option<u64>,
    /// Changes after the ones in the roll, with their numbers.
    pending: VecDeque<(u64, Standing)>,
    /// Turns that this node has in its partition already.
    turns: usize,
}

impl Keeper {
    /// Takes a node's report. Returns the acknowledgement to send back, or nothing for a node that is not here as far as this node knows.
    pub(super) fn report(&mut self, from: Sender, report: Report) -> Option<ReportAck> {
        if !self.here.contains(&from) {
            return None;
        }
        let Report { partition, is_lead, is_new, settled, whole, from: before, changes, .. } = report;
        let part = self.parts.entry(partition).or_default();
        let record = part.records.entry(from).or_default();
        let takes_over = !std::mem::replace(&mut record.is_lead, is_lead) && is_lead;
        if let Some(whole) = whole {
            // The other keeper may have told apps more than this one knows.
            let told = std::mem::replace(&mut record.roll, Roll::of(&whole));
            if record.has_led && (is_new || record.is_doubted) {
                record.uncertain.extend(told.differs_from(&record.roll));
            }
            (record.received, record.is_doubted) = (Some(settled), false);
            record.pending.clear();
            part.told_again.clear();
        }
        if !record.is_doubted {
            record.has_led = is_lead;
        }
        for (number, standing) in (before + 1..).zip(changes) {
            if record.received == Some(number - 1) {
                record.received = Some(number);
                record.pending.push_back((number, standing));
            }
        }
        record.settled = record.settled.max(settled);
        record.take_over_what_was_told(&part.corrected);
        if takes_over {
            // The previous lead may have told these already.
            record.pending.iter_mut().for_each(|(_, standing)| standing.again = true);
            part.told_again.clear();
        }
        if is_lead {
            record.take_turns(from, &mut part.turns);
        }
        self.ready.insert(partition);
        let ack = record.ack(partition);
        if part.records.values().all(|record| record.pending.is_empty()) {
            part.corrected.clear();
        }
        Some(ack)
    }

    /// This node was cut off. Other keepers may have told apps changes that it does not know, and repeated what it told. So all
    /// other nodes have to report everything again.
    pub(super) fn doubt(&mut self, me: Sender) {
        let others = self.parts.values_mut().flat_map(|part| &mut part.records).filter(|(sender, _)| **sender != me);
        for (_, record) in others {
            (record.received, record.settled, record.is_lead, record.is_doubted) = (None, 0, false, true);
        }
    }

    /// The nodes that are here have changed. Returns what this node has to set right for the ones that are gone.
    ///
    /// The heir is the first keeper present both before and after. A keeper that has just come, perhaps in place of the gone one,
    /// knows nothing about it.
    pub(super) fn view(&mut self, view: &View) -> Vec<Inherited> {
        let before = std::mem::replace(&mut self.here, view.here.clone());
        self.epochs.clone_from(&view.epochs);
        self.times += 1;
        let mut inherited = Vec::new();
        for (partition, part) in &mut self.parts {
            self.ready.insert(*partition);
            part.told_again.clear();
            let still_here = before.iter().filter(|sender| view.here.contains(sender));
            let inherits = keepers(*partition, still_here)[0] == Some(view.me);
            let (here, gone): (BTreeMap<_, _>, BTreeMap<_, _>) =
                std::mem::take(&mut part.records).into_iter().partition(|(sender, _)| view.here.contains(sender));
            part.records = here;
            let believed = gone.into_values().filter(|_| inherits).flat_map(Record::believed);
            let (ours, believed): (Vec<_>, Vec<_>) =
                believed.partition(|standing: &Standing| view.is_ours(standing.of.session));
            // Among them may be sessions of other nodes that the gone node had taken for gone.
            for Standing { of, .. } in &believed {
                let times = self.taken_for_gone.entry((of.session.node(), of.session.epoch())).or_default();
                times.insert(*partition, self.times);
            }
            if !ours.is_empty() || !believed.is_empty() {
                inherited.push(Inherited { partition: *partition, believed, misses_ours: !ours.is_empty() });
            }
            if !view.keepers(*partition).contains(&Some(view.me)) {
                part.records.clear();
            }
        }
        // A node that was silent for long is forgotten and may come back. A restarted node no longer has these sessions.
        self.taken_for_gone.retain(|(node, epoch), _| view.epochs.get(node).is_none_or(|now| now == epoch));
        self.parts.retain(|_, part| !part.records.is_empty() || part.telling.is_some());
        inherited
    }

    /// Returns what is to be told now: at most one change for each partition, until [`told`](Keeper::told) confirms it. Also
    /// returns the acknowledgements for nodes whose changes need not be told.
    pub(super) fn next(&mut self) -> (Vec<PartitionNotices>, Vec<(Sender, ReportAck)>) {
        let (mut notices, mut acks) = (Vec::new(), Vec::new());
        for partition in std::mem::take(&mut self.ready) {
            let Some(part) = self.parts.get_mut(&partition).filter(|part| part.is_led_for(&self.here)) else {
                continue;
            };
            while part.telling.is_none()
                && let Some(sender) = part.turns.pop_front()
            {
                let told = part.take_turn(sender);
                if !told.is_empty() {
                    part.telling = Some(sender);
                    notices.push((partition, told));
                } else if let Some(record) = part.records.get(&sender).filter(|_| self.here.contains(&sender)) {
                    acks.push((sender, record.ack(partition)));
                }
            }
        }
        (notices, acks)
    }

    /// Messages for nodes that are here again and were taken for gone, about the partitions that are `ready` for it.
    pub(super) fn owed(&self, ready: impl Fn(Partition) -> bool) -> Vec<(Sender, Gone)> {
        let owed_to = |sender: &Sender| {
            let owed = self.taken_for_gone.get(&(sender.node, *self.epochs.get(&sender.node)?))?;
            let partitions: Vec<Partition> = owed.keys().copied().filter(|partition| ready(*partition)).collect();
            (!partitions.is_empty()).then_some((*sender, Gone { run: sender.run, as_of: self.times, partitions }))
        };
        self.here.iter().filter_map(owed_to).collect()
    }

    #[cfg(test)]
    pub(super) fn owes(&self) -> bool {
        !self.taken_for_gone.is_empty()
    }

    /// Nodes whose missing report holds up something that is to be told. They have to report everything.
    pub(super) fn questions(&self) -> Vec<(Sender, ReportAck)> {
        let waiting = self.parts.iter().filter(|(_, part)| !part.turns.is_empty());
        waiting
            .flat_map(|(partition, part)| {
                let silent = self.here.iter().filter(|sender| !part.has_heard_from(**sender));
                silent.map(|sender| (*sender, ReportAck { partition: *partition, received: None, settled: 0 }))
            })
            .collect()
    }

    /// A node has confirmed that it knows that it was taken for gone.
    pub(super) fn knows_gone(&mut self, sender: Sender, gone: &Gone) {
        let Some(epoch) = self.epochs.get(&sender.node).filter(|_| self.here.contains(&sender)) else { return };
        if let Entry::Occupied(mut owed) = self.taken_for_gone.entry((sender.node, *epoch)) {
            owed.get_mut().retain(|partition, time| *time > gone.as_of || !gone.partitions.contains(partition));
            if owed.get().is_empty() {
                owed.remove();
            }
        }
    }

    /// Apps have been told the change of a partition. Returns the acknowledgement for the node that it was about.
    pub(super) fn told(&mut self, partition: Partition) -> Option<(Sender, ReportAck)> {
        let part = self.parts.get_mut(&partition)?;
        let sender = part.telling.take()?;
        self.ready.insert(partition);
        let record = part.records.get_mut(&sender)?;
        if let Some(number) = record.telling.take() {
            record.settled = record.settled.max(number);
        }
        self.here.contains(&sender).then(|| (sender, record.ack(partition)))
    }
}

impl Part {
    /// True if all nodes agree that this keeper leads, and have reported what another keeper told.
    fn is_led_for(&self, here: &[Sender]) -> bool {
        here.iter().all(|sender| self.has_heard_from(*sender) && self.records[sender].is_lead)
    }

    fn has_heard_from(&self, sender: Sender) -> bool {
        self.records.get(&sender).is_some_and(|record| record.received.is_some())
    }

    /// Whether a session is in a channel. The record of its own node counts. If that node was taken for gone, another node's record
    /// may speak for it.
    fn as_it_is(&self, of: Membership) -> Standing {
        let own = self.records.iter().find(|(sender, _)| sender.node == of.session.node()).map(|(_, record)| record);
        let record = own.or_else(|| self.records.values().find(|record| record.roll.has(&of)));
        record.map_or(&Roll::default(), |record| &record.roll).standing(of)
    }

    /// Moves one change into the roll of its node. Returns the notices that apps need for it.
    fn take_turn(&mut self, sender: Sender) -> Vec<Notice> {
        let Some(record) = self.records.get_mut(&sender) else { return Vec::new() };
        record.turns = record.turns.saturating_sub(1);
        let standing = if let Some(of) = record.uncertain.pop_first() {
            self.corrected.insert(of.clone());
            self.as_it_is(of)
        } else {
            let Some((number, standing)) = record.pending.pop_front() else { return Vec::new() };
            let is_news = record.roll.apply(&standing);
            if !is_news {
                record.settled = record.settled.max(number);
                return Vec::new();
            }
            record.telling = Some(number);
            standing
        };
        let Standing { of, is_in, again, uid } = standing;
        let again = again && self.told_again.insert((of.app.clone(), of.channel.clone()));
        let members: usize = self.records.values().map(|record| record.roll.count(&of)).sum();
        let notice = |change| Notice { change, of: of.clone(), uid: uid.clone() };
        match (is_in, members) {
            // If it is unknown what apps were told of the channel, they are told that it is occupied.
            (true, _) if members == 1 || again => vec![notice(ChannelChange::Occupied), notice(ChannelChange::Join)],
            (true, _) => vec![notice(ChannelChange::Join)],
            (false, 0) => vec![notice(ChannelChange::Leave), notice(ChannelChange::Vacated)],
            (false, _) if again => vec![notice(ChannelChange::Leave), notice(ChannelChange::Occupied)],
            (false, _) => vec![notice(ChannelChange::Leave)],
        }
    }
}

impl Record {
    fn ack(&self, partition: Partition) -> ReportAck {
        ReportAck { partition, received: self.received, settled: self.settled }
    }

    fn take_turns(&mut self, sender: Sender, turns: &mut VecDeque<Sender>) {
        let wanted = self.uncertain.len() + self.pending.len();
        turns.extend((self.turns..wanted).map(|_| sender));
        self.turns = self.turns.max(wanted);
    }

    /// Memberships that apps may have been told.
    fn believed(self) -> Vec<Standing> {
        let mut roll = self.roll;
        // The lead may have told these, and may be the node that is gone.
        for (_, standing) in self.pending.iter().filter(|(_, standing)| standing.is_in && !self.is_lead) {
            roll.apply(standing);
        }
        for of in self.uncertain {
            roll.apply(&Standing { is_in: true, ..roll.standing(of) });
        }
        roll.standings()
    }

    /// Moves pending changes into the roll that apps have already been told: by another keeper, or by this one and then reported
    /// again.
    fn take_over_what_was_told(&mut self, corrected: &BTreeSet<Membership>) {
        let told = self.settled.max(self.telling.unwrap_or(0));
        while let Some((number, standing)) = self.pending.front()
            && *number <= told
        {
            self.roll.apply(standing);
            // It is unknown whether that was told before or after this keeper's correction.
            if corrected.contains(&standing.of) {
                self.uncertain.insert(standing.of.clone());
            }
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::proto::id::SessionIds;
    use crate::proto::presence::Piece;
    use crate::proto::run::Run;

    fn sender(node: u16) -> Sender {
        Sender { node, run: Run::of(1) }
    }

    fn view(here: &[u16]) -> View {
        let epochs = here.iter().map(|node| (*node, 1)).collect();
        View { me: sender(1), here: here.iter().copied().map(sender).collect(), epochs }
    }

    /// A session of node 1, 2 or 3, in its first epoch.
    fn standing(node: u16, is_in: bool) -> Standing {
        let session = SessionIds::new(node, 1, [0; 16]).next_id();
        assert_eq!((session.node(), session.epoch()), (node, 1));
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let of = Membership { app: name("app"), channel: name("news"), session };
        Standing { of, is_in, again: false, uid: None }
    }

    fn report(partition: Partition, whole: &[Standing], settled: u64, changes: &[Standing]) -> Report {
        let (whole, changes) = (Some(whole.to_vec()), changes.to_vec());
        Report { partition, piece: Piece::WHOLE, is_lead: true, is_new: false, settled, whole, from: settled, changes }
    }

    fn told(keeper: &mut Keeper) -> Vec<(ChannelChange, u16)> {
        let (told, _) = keeper.next();
        told.into_iter()
            .flat_map(|(_, notices)| notices)
            .map(|notice| (notice.change, notice.of.session.node()))
            .collect()
    }

    #[test]
    fn a_report_that_comes_again_changes_nothing_of_what_is_told_or_was() {
        let (mut keeper, partition) = (Keeper::default(), Partition::new(204).unwrap());
        keeper.view(&view(&[1, 2]));
        let leaves = report(partition, &[standing(2, true)], 3, &[standing(2, false)]);
        keeper.report(sender(1), report(partition, &[], 0, &[]));
        keeper.report(sender(2), leaves.clone());
        assert_eq!(told(&mut keeper), [(ChannelChange::Leave, 2), (ChannelChange::Vacated, 2)]);
        keeper.report(sender(2), leaves.clone());
        keeper.report(sender(1), report(partition, &[], 0, &[standing(1, true)]));
        assert_eq!(told(&mut keeper), [], "one change at a time");
        let (of, ack) = keeper.told(partition).unwrap();
        assert_eq!((of, ack.settled), (sender(2), 4));
        keeper.report(sender(2), leaves);
        assert_eq!(
            told(&mut keeper),
            [(ChannelChange::Occupied, 1), (ChannelChange::Join, 1)],
            "no other session is in there"
        );
        keeper.told(partition);
        assert_eq!(told(&mut keeper), []);
    }

    /// Found by seed 1072 of the simulation, run for 600 more ticks.
    #[test]
    fn what_a_keeper_told_while_others_led_is_told_again_as_it_is() {
        for is_doubted in [false, true] {
            let (mut keeper, partition) = (Keeper::default(), Partition::new(204).unwrap());
            keeper.view(&view(&[1, 2, 3]));
            keeper.report(sender(1), report(partition, &[], 0, &[]));
            keeper.report(sender(3), report(partition, &[standing(3, true)], 1, &[]));
            // Other keepers have told that this session joins and leaves, and this keeper does not know it.
            let comes_and_goes = standing(2, true);
            keeper.report(sender(2), report(partition, &[], 0, slice::from_ref(&comes_and_goes)));
            assert_eq!(told(&mut keeper), [(ChannelChange::Occupied, 2), (ChannelChange::Join, 2)]);
            keeper.told(partition);
            if is_doubted {
                keeper.doubt(sender(1));
                keeper.report(sender(3), report(partition, &[standing(3, true)], 1, &[]));
            }
            // It does not know this session either.
            let ids = SessionIds::new(2, 1, [1; 16]);
            let of = Membership { session: ids.next_id(), ..comes_and_goes.of.clone() };
            let comes = Standing { of, ..comes_and_goes };
            let whole = Report { is_new: !is_doubted, ..report(partition, slice::from_ref(&comes), 3, &[]) };
            keeper.report(sender(2), whole.clone());
            let mut corrected = Vec::new();
            for _ in 0..2 {
                corrected.extend(told(&mut keeper));
                keeper.told(partition);
            }
            corrected.retain(|(change, _)| *change != ChannelChange::Occupied);
            corrected.sort_by_key(|(change, _)| *change == ChannelChange::Join);
            assert_eq!(corrected, [(ChannelChange::Leave, 2), (ChannelChange::Join, 2)], "{is_doubted}");
            keeper.report(sender(2), whole);
            assert_eq!(told(&mut keeper), [], "once");
        }
    }

    #[test]
    fn whoever_was_taken_for_gone_hears_of_it_also_when_a_node_that_did_so_is_gone_itself() {
        let mut leads = Partition::all()
            .filter(|partition| keepers(*partition, [sender(1), sender(2)].iter())[0] == Some(sender(1)));
        let (mut keeper, partition) = (Keeper::default(), leads.next().unwrap());
        keeper.view(&view(&[1, 2, 3]));
        // Node 3 has inherited the others' sessions, and tells that they leave.
        let all = [1, 2, 3].map(|node| standing(node, true));
        keeper.report(sender(3), report(partition, &all, 3, &[standing(1, false), standing(2, false)]));
        let inherited = keeper.view(&view(&[1, 2]));
        let [Inherited { believed, misses_ours: true, .. }] = &inherited[..] else { panic!("{inherited:?}") };
        assert_eq!(believed[..], all[1..]);
        let owed =
            |keeper: &Keeper| keeper.owed(|_| true).into_iter().map(|(to, gone)| (to.node, gone)).collect::<Vec<_>>();
        let first = owed(&keeper);
        let [(2, gone)] = &first[..] else { panic!("{first:?}") };
        assert_eq!((gone.run, &gone.partitions[..]), (Run::of(1), &[partition][..]));
        keeper.knows_gone(sender(2), gone);
        assert_eq!(owed(&keeper), []);
        // It goes and comes back once more, and repeats its answer to the first time.
        keeper.view(&view(&[1, 2, 3]));
        keeper.report(sender(2), report(partition, &[standing(2, true)], 9, &[]));
        keeper.view(&view(&[1, 3]));
        keeper.view(&view(&[1, 2, 3]));
        keeper.knows_gone(sender(2), gone);
        assert_eq!(owed(&keeper).into_iter().map(|(to, _)| to).collect::<Vec<_>>(), [2, 3], "3 was cut off");
        let mut restarted = view(&[1, 2, 3]);
        restarted.epochs.insert(3, 2);
        keeper.view(&restarted);
        assert_eq!(owed(&keeper).into_iter().map(|(to, _)| to).collect::<Vec<_>>(), [2], "3 was started again");
    }
}
