//! The other nodes, as far as their heartbeats tell: plain data, with the time as an argument.
//!
//! ```text
//!   beat ──> here ──lease is over──> silent ──for FORGOTTEN_AFTER──> unknown
//!              │ bye                   │ beat: here again
//!              v                       v
//!           unknown
//! ```
//!
//! A silent node may have died, and may as well be alive behind a cut cable with its sessions: nobody here can say that they are
//! gone, so what is sent to it counts as unreachable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::presence::View;
use crate::proto::envelope::{Beat, Interest, Sender};
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;

/// How long a node that went silent is remembered.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub struct Members {
    by_number: BTreeMap<u16, Member>,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which run of which node.
    pub sender: Sender,
    /// Its name.
    pub name: String,
    /// The epoch in the ids of its sessions.
    pub epoch: u32,
    /// Sessions at its last beat.
    pub sessions: u64,
    keeps_account: bool,
    interest: Interest,
    /// What it also listens to, as a receipt of it says and no beat of it does yet; until when that is believed.
    joined: Vec<(Partition, Instant)>,
    started_ms: u64,
    until: Instant,
    silent_since: Option<Instant>,
}

/// What a beat has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that anybody has to be told.
    Known,
    /// The node is new here.
    New,
    /// It had been silent.
    Again,
    /// It is a new run of a node that was known.
    Restarted,
    /// A run that has been replaced by a later one: not taken.
    Outdated,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this node, which is there.
    At(u16),
    /// On this node, which does not answer.
    Silent(u16),
    /// Nowhere: its node has another epoch now, or nobody knows such a node.
    Gone,
}

impl Members {
    /// A heartbeat came.
    pub fn heard(&mut self, now: Instant, sender: Sender, beat: Beat) -> Heard {
        let until = now + Duration::from_millis(u64::from(beat.lease_ms));
        let old = self.by_number.get(&sender.node);
        let heard = match old {
            None => Heard::New,
            Some(old) if old.sender == sender && old.silent_since.is_some() => Heard::Again,
            Some(old) if old.sender == sender => Heard::Known,
            Some(old) if (old.started_ms, old.sender.run) > (beat.started_ms, sender.run) => return Heard::Outdated,
            Some(_) => Heard::Restarted,
        };
        let Beat { name, epoch, started_ms, sessions, keeps_account, interest, .. } = beat;
        let mut joined = match heard {
            Heard::New | Heard::Restarted => Vec::new(),
            _ => old.map(|old| old.joined.clone()).unwrap_or_default(),
        };
        joined.retain(|(partition, until)| !interest.has(*partition) && now < *until);
        let member = Member {
            sender,
            name,
            epoch,
            sessions,
            keeps_account,
            interest,
            joined,
            started_ms,
            until,
            silent_since: None,
        };
        self.by_number.insert(sender.node, member);
        heard
    }

    /// A node has done what makes it listen to a partition. Its beats say so too, on another subject: they may come later, and
    /// one that was on its way before must not undo it.
    pub fn listens(&mut self, sender: Sender, partition: Partition) {
        if let Some(member) = self.by_number.get_mut(&sender.node).filter(|member| member.sender == sender)
            && !member.listens_to(partition)
        {
            member.joined.push((partition, member.until));
        }
    }

    /// A node said that it stops. Its name, if it was known.
    pub fn left(&mut self, sender: Sender) -> Option<String> {
        self.by_number.get(&sender.node).filter(|member| member.sender == sender)?;
        self.by_number.remove(&sender.node).map(|member| member.name)
    }

    /// Time has passed: the names of nodes that are silent from now on.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        let mut silent = Vec::new();
        for member in self.by_number.values_mut() {
            if member.silent_since.is_none() && now >= member.until {
                member.silent_since = Some(now);
                silent.push(member.name.clone());
            }
        }
        let is_remembered = |since: Instant| now.saturating_duration_since(since) < FORGOTTEN_AFTER;
        self.by_number.retain(|_, member| member.silent_since.is_none_or(is_remembered));
        silent
    }

    /// This node could hear nobody for a while: everybody who is here has a whole lease again to be heard.
    pub fn grace(&mut self, now: Instant, lease: Duration) {
        for member in self.by_number.values_mut().filter(|member| member.silent_since.is_none()) {
            member.until = member.until.max(now + lease);
        }
    }

    /// Where a session of another node is.
    pub fn locate(&self, id: SessionId) -> Place {
        match self.by_number.get(&id.node()) {
            Some(member) if member.epoch == id.epoch() => match member.silent_since {
                None => Place::At(id.node()),
                Some(_) => Place::Silent(id.node()),
            },
            _ => Place::Gone,
        }
    }

    /// Nodes that listen to a partition (or all, for `None`): those that are here, and those that are silent.
    pub fn interested(&self, partition: Option<Partition>) -> (Vec<u16>, Vec<u16>) {
        let wants = |member: &&Member| partition.is_none_or(|partition| member.listens_to(partition));
        let (here, silent): (Vec<&Member>, Vec<&Member>) =
            self.by_number.values().filter(wants).partition(|member| member.silent_since.is_none());
        let numbers = |members: Vec<&Member>| members.iter().map(|member| member.sender.node).collect();
        (numbers(here), numbers(silent))
    }

    /// Those that keep account of channels, with this node.
    pub(super) fn view(&self, me: Sender) -> View {
        let keeping = self.by_number.values().filter(|member| member.keeps_account);
        let (mut here, mut known) = (vec![me], vec![me]);
        for member in keeping {
            known.push(member.sender);
            if member.silent_since.is_none() {
                here.push(member.sender);
            }
        }
        View { me, here, known }
    }

    /// Nodes that are here.
    pub fn here(&self) -> impl Iterator<Item = &Member> {
        self.by_number.values().filter(|member| member.silent_since.is_none())
    }

    /// The name of a node, or its number where it is not known.
    pub fn name(&self, node: u16) -> String {
        self.by_number.get(&node).map_or_else(|| format!("#{node}"), |member| member.name.clone())
    }
}

impl Member {
    fn listens_to(&self, partition: Partition) -> bool {
        self.interest.has(partition) || self.joined.iter().any(|(joined, _)| *joined == partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_receipt_says_of_interest_counts_until_a_beat_says_it_too() {
        let (mut members, now) = (Members::default(), Instant::now());
        let (sender, partition) = (Sender { node: 7, run: 1 }, Partition::new(204).unwrap());
        let beat = |listens: bool| {
            let mut interest = Interest::default();
            interest.set(partition, listens);
            Beat {
                name: "n7".to_owned(),
                epoch: 1,
                started_ms: 1,
                lease_ms: 6000,
                sessions: 0,
                keeps_account: false,
                interest,
            }
        };
        let is_waited_for = |members: &Members| members.interested(Some(partition)).0 == [7];
        members.heard(now, sender, beat(false));
        members.listens(Sender { run: 2, ..sender }, partition);
        assert!(!is_waited_for(&members), "another run of it said so");
        members.listens(sender, partition);
        assert!(is_waited_for(&members));
        members.heard(now, sender, beat(false));
        assert!(is_waited_for(&members), "this beat was on its way before");
        members.heard(now, sender, beat(true));
        assert!(is_waited_for(&members));
        members.heard(now, sender, beat(false));
        assert!(!is_waited_for(&members), "it listens no more");
        members.listens(sender, partition);
        members.heard(now + Duration::from_secs(7), sender, beat(false));
        assert!(!is_waited_for(&members), "a beat should have said so by now");
    }
}
