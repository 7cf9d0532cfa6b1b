//! The other nodes, as known from their heartbeats. Plain data, with the time as an argument.
//!
//! ```text
//!   beat ──> here ──lease is over──> silent ──for FORGOTTEN_AFTER──> unknown
//!              │ bye                   │ beat: here again
//!              v                       v
//!           unknown
//! ```
//!
//! A silent node may have died, or may be alive with its sessions behind a cut cable. This node cannot tell, so commands to a
//! silent node count as unreachable and not as gone. A node that does not hear its own beats may be cut off itself. It then marks
//! no other node as silent. When it hears itself again, every node that is here gets a whole lease to be heard.
//!
//! If two runs with one number are both here, the one that started later counts; anything from the earlier run is treated as late.
//! A silent run is replaced by any other run, because clocks may have been set back. Until then, sessions of neither run count as
//! gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::presence::View;
use crate::proto::envelope::{Beat, Interest, Sender};
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;

/// How long a node that went silent is remembered.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub struct Members {
    by_number: BTreeMap<u16, Member>,
    /// This node's lease.
    lease: Duration,
    /// When a beat of this node last came back to it, or when it joined the others.
    heard_ourselves: Instant,
}

/// Another node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which run of which node.
    pub sender: Sender,
    pub name: String,
    /// The epoch in the ids of its sessions.
    pub epoch: u32,
    keeps_account: bool,
    interest: Interest,
    /// Partitions that it listens to according to a receipt, but not yet according to a beat; and until when that is believed.
    joined: Vec<(Partition, Instant)>,
    started_ms: u64,
    until: Instant,
    silent_since: Option<Instant>,
    /// Another run with the same number that, by its own clock, started earlier. It is either the newer run, on a machine whose
    /// clock was set back, or an older one that is still alive. Its epoch, and until when it is believed to be there.
    rival: Option<(u32, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatEffect {
    /// Nothing of interest to others.
    Known,
    /// The node is new here.
    New,
    /// It had been silent.
    Again,
    /// It is a new run of a node that was known.
    Restarted,
    /// A run that started before the one that is here. It is ignored while that one is here.
    Outdated,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLocation {
    /// On this node, which is there.
    At(u16),
    /// On this node, which does not answer.
    Silent(u16),
    /// Nowhere: its node has another epoch now, or no such node is known.
    Gone,
}

impl Members {
    /// No other nodes yet, for a node with this lease.
    pub fn new(now: Instant, lease: Duration) -> Self {
        Self { by_number: BTreeMap::new(), lease, heard_ourselves: now }
    }

    /// This node has joined the others.
    pub fn joined(&mut self, now: Instant) {
        self.heard_ourselves = now;
        self.give_time(now);
    }

    /// Something that this node has published came back to it.
    pub fn heard_ourselves(&mut self, now: Instant) {
        if self.is_deaf(now) {
            self.give_time(now);
        }
        self.heard_ourselves = now;
    }

    /// For how long this node has not heard itself.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_ourselves)
    }

    /// True if a beat of this node should have come back by now.
    fn is_deaf(&self, now: Instant) -> bool {
        self.silence(now) >= self.lease / 2
    }

    /// Every node that is here gets a whole lease again to be heard.
    fn give_time(&mut self, now: Instant) {
        for member in self.by_number.values_mut().filter(|member| member.silent_since.is_none()) {
            member.until = member.until.max(now + self.lease);
        }
    }

    /// A heartbeat came.
    pub fn heard(&mut self, now: Instant, sender: Sender, beat: Beat) -> BeatEffect {
        let until = now + Duration::from_millis(u64::from(beat.lease_ms));
        let old = self.by_number.get_mut(&sender.node);
        let heard = match old {
            None => BeatEffect::New,
            Some(old) if old.sender == sender && old.silent_since.is_some() => BeatEffect::Again,
            Some(old) if old.sender == sender => BeatEffect::Known,
            Some(old) if old.silent_since.is_none() && old.began_after(sender, &beat) => {
                old.rival = Some((beat.epoch, until));
                return BeatEffect::Outdated;
            }
            Some(_) => BeatEffect::Restarted,
        };
        let old = self.by_number.get(&sender.node);
        let Beat { name, epoch, started_ms, keeps_account, interest, .. } = beat;
        let mut joined = match heard {
            BeatEffect::New | BeatEffect::Restarted => Vec::new(),
            _ => old.map(|old| old.joined.clone()).unwrap_or_default(),
        };
        joined.retain(|(partition, until)| !interest.has(*partition) && now < *until);
        let member = Member {
            sender,
            name,
            epoch,
            keeps_account,
            interest,
            joined,
            started_ms,
            until,
            silent_since: None,
            rival: old.filter(|_| heard == BeatEffect::Known).and_then(|old| old.rival),
        };
        self.by_number.insert(sender.node, member);
        heard
    }

    /// A node ran a command that makes it listen to a partition. Its beats say so too, but on another subject: they may come later,
    /// and a beat that was sent earlier must not undo this.
    pub fn listens(&mut self, sender: Sender, partition: Partition) {
        if let Some(member) = self.by_number.get_mut(&sender.node).filter(|member| member.sender == sender)
            && !member.listens_to(partition)
        {
            member.joined.push((partition, member.until));
        }
    }

    /// A node said that it stops. Returns its name, if it was known.
    pub fn left(&mut self, sender: Sender) -> Option<String> {
        self.by_number.get(&sender.node).filter(|member| member.sender == sender)?;
        self.by_number.remove(&sender.node).map(|member| member.name)
    }

    /// Whether this run of this node is known, and not forgotten.
    pub fn knows(&self, sender: &Sender) -> bool {
        self.by_number.get(&sender.node).is_some_and(|member| member.sender == *sender)
    }

    /// Updates the nodes for the time that has passed. Returns the names of nodes that are newly silent.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        let (mut silent, is_deaf) = (Vec::new(), self.is_deaf(now));
        for member in self.by_number.values_mut() {
            member.rival = member.rival.filter(|(_, until)| now < *until);
            if !is_deaf && member.silent_since.is_none() && now >= member.until {
                member.silent_since = Some(now);
                silent.push(member.name.clone());
            }
        }
        let is_remembered = |since: Instant| now.saturating_duration_since(since) < FORGOTTEN_AFTER;
        self.by_number.retain(|_, member| member.silent_since.is_none_or(is_remembered));
        silent
    }

    /// Where a session of another node is.
    pub fn locate(&self, id: SessionId) -> SessionLocation {
        match self.by_number.get(&id.node()) {
            Some(member) if member.epoch == id.epoch() => match member.silent_since {
                None => SessionLocation::At(id.node()),
                Some(_) => SessionLocation::Silent(id.node()),
            },
            Some(member) if member.rival.is_some_and(|(epoch, _)| epoch == id.epoch()) => {
                SessionLocation::Silent(id.node())
            }
            _ => SessionLocation::Gone,
        }
    }

    /// The nodes that listen to a partition, or all nodes for `None`: first the ones that are here, then the silent ones.
    pub fn interested(&self, partition: Option<Partition>) -> (Vec<u16>, Vec<u16>) {
        let wants = |member: &&Member| partition.is_none_or(|partition| member.listens_to(partition));
        let (here, silent): (Vec<&Member>, Vec<&Member>) =
            self.by_number.values().filter(wants).partition(|member| member.silent_since.is_none());
        let numbers = |members: Vec<&Member>| members.iter().map(|member| member.sender.node).collect();
        (numbers(here), numbers(silent))
    }

    /// The nodes that keep account of channels, together with this node and its epoch.
    pub(super) fn view(&self, me: Sender, epoch: u32) -> View {
        let keeping = || self.by_number.values().filter(|member| member.keeps_account);
        let others = keeping().filter(|member| member.silent_since.is_none()).map(|member| member.sender);
        let epochs = keeping().map(|member| (member.sender.node, member.epoch));
        View { me, here: [me].into_iter().chain(others).collect(), epochs: epochs.chain([(me.node, epoch)]).collect() }
    }

    /// Nodes that are here.
    pub fn here(&self) -> impl Iterator<Item = &Member> {
        self.by_number.values().filter(|member| member.silent_since.is_none())
    }

    /// The name of a node, or its number if the node is unknown.
    pub fn name(&self, node: u16) -> String {
        self.by_number.get(&node).map_or_else(|| format!("#{node}"), |member| member.name.clone())
    }
}

impl Member {
    /// True if this run started after the other run with the same number. If both started in the same millisecond, the random run
    /// ids decide.
    fn began_after(&self, other: Sender, beat: &Beat) -> bool {
        (self.started_ms, self.sender.run) > (beat.started_ms, other.run)
    }

    fn listens_to(&self, partition: Partition) -> bool {
        self.interest.has(partition) || self.joined.iter().any(|(joined, _)| *joined == partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envelope::VERSION;
    use crate::proto::id::SessionIds;
    use crate::proto::run::Run;

    const LEASE: Duration = Duration::from_secs(6);

    fn beat(listens_to: Option<Partition>) -> Beat {
        let mut interest = Interest::default();
        listens_to.iter().for_each(|partition| interest.set(*partition, true));
        Beat {
            name: "n7".to_owned(),
            epoch: 1,
            started_ms: 1,
            lease_ms: LEASE.as_millis() as u32,
            sessions: 0,
            keeps_account: false,
            reads: VERSION,
            interest,
        }
    }

    #[test]
    fn who_does_not_hear_itself_takes_nobody_for_silent_and_gives_all_a_lease_when_it_does_again() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut members = Members::new(begin, LEASE);
        members.joined(at(0));
        members.heard(at(0), Sender { node: 7, run: Run::of(1) }, beat(None));
        members.heard_ourselves(at(2));
        // From here on its cable is cut, until just before it should hear itself.
        for second in 4..12 {
            assert_eq!(members.expire(at(second)), [""; 0], "after {second} s");
        }
        assert_eq!(members.silence(at(12)), Duration::from_secs(10));
        for second in [12, 14, 16] {
            members.heard_ourselves(at(second));
            assert_eq!(members.expire(at(second)), [""; 0], "after {second} s");
        }
        members.heard_ourselves(at(18));
        assert_eq!(members.expire(at(18)), ["n7"]);
    }

    #[test]
    fn what_a_receipt_says_of_interest_counts_until_a_beat_says_it_too() {
        let (now, sender, partition) =
            (Instant::now(), Sender { node: 7, run: Run::of(1) }, Partition::new(204).unwrap());
        let mut members = Members::new(now, LEASE);
        let beat = |listens: bool| beat(listens.then_some(partition));
        let is_waited_for = |members: &Members| members.interested(Some(partition)).0 == [7];
        members.heard(now, sender, beat(false));
        members.listens(Sender { run: Run::of(2), ..sender }, partition);
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

    #[test]
    fn a_run_replaces_one_that_is_silent_whatever_its_clock_says() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let (old, new) = (Sender { node: 7, run: Run::of(1) }, Sender { node: 7, run: Run::of(2) });
        let session_of = |epoch: u32| SessionIds::new(7, epoch, [7; 16]).next_id();
        let mut members = Members::new(begin, LEASE);
        members.heard(at(0), old, Beat { started_ms: 1000, ..beat(None) });
        for second in [2, 4, 6] {
            members.heard_ourselves(at(second));
        }
        // It is killed, and started again after the clock was set back.
        let again = || Beat { started_ms: 500, epoch: 2, ..beat(None) };
        assert_eq!(members.heard(at(4), new, again()), BeatEffect::Outdated);
        assert_eq!(members.locate(session_of(1)), SessionLocation::At(7));
        assert_eq!(members.locate(session_of(2)), SessionLocation::Silent(7), "it may still be there");
        assert_eq!(members.locate(session_of(3)), SessionLocation::Gone);
        assert_eq!(members.expire(at(6)), ["n7"]);
        assert_eq!(members.heard(at(6), new, again()), BeatEffect::Restarted);
        assert_eq!(members.locate(session_of(2)), SessionLocation::At(7));
        assert_eq!(members.locate(session_of(1)), SessionLocation::Gone);
        // A late beat of the old run does not count while the new one is here.
        let late = Beat { started_ms: 400, ..beat(None) };
        assert_eq!(members.heard(at(7), old, late), BeatEffect::Outdated);
        assert_eq!(members.locate(session_of(2)), SessionLocation::At(7));
        assert_eq!(members.locate(session_of(1)), SessionLocation::Silent(7));
        for second in [8, 10, 13] {
            members.heard_ourselves(at(second));
        }
        members.heard(at(13), new, again());
        members.expire(at(13));
        assert_eq!(members.locate(session_of(1)), SessionLocation::Gone, "nothing was heard of it for a lease");
    }
}
