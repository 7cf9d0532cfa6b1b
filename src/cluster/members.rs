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
        let silent_since = None;
        let member = Member { sender, name, epoch, sessions, keeps_account, interest, started_ms, until, silent_since };
        self.by_number.insert(sender.node, member);
        heard
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
        let wants = |member: &&Member| partition.is_none_or(|partition| member.interest.has(partition));
        let (here, silent): (Vec<&Member>, Vec<&Member>) =
            self.by_number.values().filter(wants).partition(|member| member.silent_since.is_none());
        let numbers = |members: Vec<&Member>| members.iter().map(|member| member.sender.node).collect();
        (numbers(here), numbers(silent))
    }

    /// Those that keep account of channels, with this node.
    pub(super) fn view(&self, me: Sender) -> View {
        let keep = |member: &&Member| member.keeps_account;
        let others =
            |members: &mut dyn Iterator<Item = &Member>| members.map(|member| member.sender).collect::<Vec<_>>();
        let mut view = View {
            me,
            here: others(&mut self.here().filter(keep)),
            known: others(&mut self.by_number.values().filter(keep)),
        };
        view.here.push(me);
        view.known.push(me);
        view
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
