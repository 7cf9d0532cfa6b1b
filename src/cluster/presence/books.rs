//! The reporter and the keeper of one node, and their messages to those of other nodes. Plain data: no clock, no engine.

use std::collections::BTreeMap;

use super::keeper::{Inherited, Keeper};
use super::pieces::{Pieces, envelopes};
use super::reporter::Reporter;
use super::{PartitionNotices, View};
use crate::proto::envelope::{Body, Sender};
use crate::proto::partition::Partition;
use crate::proto::presence::{Gone, Report, ReportAck, Standing};

#[derive(Debug)]
pub(in crate::cluster) struct Books {
    reporter: Reporter,
    keeper: Keeper,
    pieces: Pieces,
    max_bytes: usize,
    /// `None` while this node does not know which nodes are here.
    view: Option<View>,
    /// Acknowledgements to send with the next steps.
    acks: BTreeMap<(Sender, Partition), ReportAck>,
    looks: bool,
    /// Nodes that said that they took this node for gone, in which partitions. Each is to be answered.
    knows_gone: Vec<(Sender, Gone)>,
}

/// Messages and notices to send next.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Steps {
    /// For other nodes, in this order.
    pub(in crate::cluster) bodies: Vec<(Sender, Body)>,
    /// For apps. The notices of one partition are told in order, followed by a call of [`Books::told`].
    pub(in crate::cluster) notices: Vec<PartitionNotices>,
}

impl Books {
    /// Keeps these partitions. Bounds: the changes that apps have not been told of, and the bytes of reports in an envelope.
    pub(in crate::cluster) fn new(
        partitions: impl Iterator<Item = Partition>,
        max_untold: usize,
        max_bytes: usize,
    ) -> Self {
        Self {
            reporter: Reporter::new(partitions, max_untold),
            keeper: Keeper::default(),
            pieces: Pieces::default(),
            max_bytes,
            view: None,
            acks: BTreeMap::new(),
            looks: false,
            knows_gone: Vec::new(),
        }
    }

    /// A session of this node has joined or left. Returns how many older changes were given up because too many wait.
    pub(in crate::cluster) fn change(&mut self, standing: Standing) -> u64 {
        self.reporter.change(standing)
    }

    /// Changes that apps have not been told of.
    pub(in crate::cluster) fn untold(&self) -> usize {
        self.reporter.untold()
    }

    /// Counts keepers that do not know this node's sessions in a partition, over all partitions.
    pub(in crate::cluster) fn unshared(&self) -> usize {
        self.reporter.unshared()
    }

    /// Sets the nodes that are here. `None` if this node cannot know, and then nothing is told.
    pub(in crate::cluster) fn view(&mut self, view: Option<View>) {
        if let Some(view) = view.as_ref().filter(|view| self.view.as_ref() != Some(view)) {
            if self.view.is_none() {
                self.keeper.doubt(view.me);
                // Acknowledgements for other nodes are outdated: other keepers may have told apps differently since.
                self.acks.retain(|(sender, _), _| *sender == view.me);
            }
            self.reporter.view(view);
            self.pieces.keep(|sender| view.here.contains(sender));
            for Inherited { partition, believed, misses_ours } in self.keeper.view(view) {
                self.reporter.inherit(partition, believed);
                if misses_ours {
                    self.reporter.say_again(partition);
                }
            }
        }
        self.view = view;
    }

    /// To be called after a time in which other nodes could have answered.
    pub(in crate::cluster) fn look(&mut self) {
        self.looks = true;
    }

    /// Takes a message from another node.
    pub(in crate::cluster) fn heard(&mut self, from: Sender, body: Body) {
        let Some(me) = self.view.as_ref().map(|view| view.me) else { return };
        match body {
            Body::Reports(reports) => {
                for piece in reports {
                    let Some(report) = self.pieces.take(from, piece) else { continue };
                    let ack = self.keeper.report(from, report);
                    self.note(from, ack);
                }
            }
            Body::ReportAcks { run, acks } if run == me.run => {
                acks.iter().for_each(|ack| self.reporter.ack(from, ack));
            }
            Body::TakenForGone(gone) if gone.run == me.run => {
                gone.partitions.iter().for_each(|partition| self.reporter.say_again(*partition));
                self.knows_gone.push((from, Gone { run: from.run, ..gone }));
            }
            Body::KnowsGone(gone) if gone.run == me.run => self.keeper.knows_gone(from, &gone),
            _ => {}
        }
    }

    /// True while a failure would count as the second at the same time: a keeper has not heard from this node yet, or this node
    /// took another node for gone that does not know it yet.
    #[cfg(test)]
    pub(in crate::cluster) fn is_unsettled(&self) -> bool {
        self.keeper.owes() || self.unshared() > 0
    }

    /// Apps have been told the notices of a partition.
    pub(in crate::cluster) fn told(&mut self, partition: Partition) {
        if let Some((sender, ack)) = self.keeper.told(partition) {
            self.note(sender, Some(ack));
        }
    }

    /// Collects what is to be sent now.
    pub(in crate::cluster) fn steps(&mut self) -> Steps {
        let Some(me) = self.view.as_ref().map(|view| view.me) else { return Steps::default() };
        let mut steps = Steps::default();
        let mut reports: BTreeMap<Sender, Vec<Report>> = BTreeMap::new();
        if self.looks {
            // Sent only after apps have been told that these sessions left: their joins must not be told before.
            let owed = self.keeper.owed(|partition| self.reporter.has_told_inherited(partition));
            steps.bodies.extend(owed.into_iter().map(|(sender, gone)| (sender, Body::TakenForGone(gone))));
            for (sender, question) in self.keeper.questions() {
                self.note(sender, Some(question));
            }
        }
        loop {
            let said = if std::mem::take(&mut self.looks) { self.reporter.look(me) } else { self.reporter.reports(me) };
            let is_quiet = said.is_empty();
            for (keeper, report) in said {
                if keeper == me {
                    let ack = self.keeper.report(me, report);
                    self.note(me, ack);
                } else {
                    reports.entry(keeper).or_default().push(report);
                }
            }
            let (notices, acks) = self.keeper.next();
            steps.notices.extend(notices);
            acks.into_iter().for_each(|(sender, ack)| self.note(sender, Some(ack)));
            let (ours, others) = std::mem::take(&mut self.acks).into_iter().partition(|((sender, _), _)| *sender == me);
            self.acks = others;
            let ours: BTreeMap<(Sender, Partition), ReportAck> = ours;
            ours.values().for_each(|ack| self.reporter.ack(me, ack));
            if is_quiet && ours.is_empty() {
                break;
            }
        }
        let known = std::mem::take(&mut self.knows_gone).into_iter();
        steps.bodies.extend(known.map(|(sender, gone)| (sender, Body::KnowsGone(gone))));
        let mut acks: BTreeMap<Sender, Vec<ReportAck>> = BTreeMap::new();
        for ((sender, _), ack) in std::mem::take(&mut self.acks) {
            acks.entry(sender).or_default().push(ack);
        }
        for (keeper, reports) in reports {
            let envelopes = envelopes(reports, self.max_bytes).into_iter();
            steps.bodies.extend(envelopes.map(|reports| (keeper, Body::Reports(reports))));
        }
        steps
            .bodies
            .extend(acks.into_iter().map(|(sender, acks)| (sender, Body::ReportAcks { run: sender.run, acks })));
        steps
    }

    /// The last acknowledgement of a partition replaces earlier ones.
    fn note(&mut self, sender: Sender, ack: Option<ReportAck>) {
        if let Some(ack) = ack {
            self.acks.insert((sender, ack.partition), ack);
        }
    }
}
