//! Tracks which sessions are in which channel over all nodes, for apps that want to be told: each join and each leave, and when a
//! channel gets its first member or loses its last.
//!
//! ```text
//!   router ──join, leave──> reporter ══reports══> keeper: lead ──notices──> the app's script
//!                               ║                 keeper: second, in case the lead dies
//!                               ^══acks══════════════╝ apps were told
//! ```
//!
//! Every partition has two keepers among the nodes that are here, found by rendezvous hashing. The *lead* tells apps, one change
//! after the other. The *second* becomes the lead when the lead dies, and no other keeper moves.
//!
//! - `reporter`: reports a node's own sessions to the keepers. `keeper`: tells apps what nodes have reported. `books`: the reporter
//!   and the keeper of one node.
//! - `pieces`: cuts long reports into pieces, and joins them again.
//! - [`Presence`]: the same with a lock and a clock.
//!
//! Promises: apps are told of a channel's changes in order. In the end their state is right, as long as a session's node or one of
//! its two keepers lives. If no node dies or is cut off, each join and each leave is told once. Otherwise the last changes may be
//! told again, in the same order, and the sessions of a node that was cut off leave and join again. A session that came and went
//! while no app could be told may be left out. A node without an engine tells nothing, because the others do.

mod books;
mod keeper;
mod pieces;
mod reporter;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, mpsc, watch};

pub(super) use self::books::Books;
use crate::locks::lock;
use crate::metrics::cluster::ClusterMetrics;
use crate::proto::command::Name;
use crate::proto::envelope::{Body, Sender};
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;
use crate::proto::presence::{Membership, Standing};
use crate::router::Memberships;

/// Most changes that apps have not been told of; beyond it the oldest are given up. A change takes a hundred bytes, and this many
/// are what a pool tells in some minutes.
const MAX_UNTOLD: usize = 200_000;

/// Most bytes of reports in one envelope. By default NATS carries envelopes of up to one megabyte.
const MAX_REPORTS: usize = 64 << 10;

/// Something to tell an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub change: ChannelChange,
    /// The session and the channel. For a channel that is occupied or vacated: the session that caused it.
    pub of: Membership,
    /// The uid that the session belongs to.
    pub uid: Option<Name>,
}

/// A change in a channel that an app is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelChange {
    /// It has its first member.
    Occupied,
    /// A session has joined.
    Join,
    /// A session has left, or is gone.
    Leave,
    /// It has lost its last member.
    Vacated,
}

/// The nodes that are here and keep account of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// This node.
    pub(super) me: Sender,
    /// All that are here, this node among them.
    pub(super) here: Vec<Sender>,
    /// For these nodes and for silent ones: the epoch in the ids of their sessions, by node number.
    pub(super) epochs: BTreeMap<u16, u32>,
}

impl View {
    /// The view of a node that runs alone.
    pub(super) fn alone(me: Sender) -> Self {
        Self { me, here: vec![me], epochs: BTreeMap::new() }
    }

    /// True for a session of this run of this node.
    fn is_ours(&self, session: SessionId) -> bool {
        session.node() == self.me.node && self.epochs.get(&self.me.node) == Some(&session.epoch())
    }

    /// The lead of a partition, and its second.
    fn keepers(&self, partition: Partition) -> [Option<Sender>; 2] {
        keepers(partition, self.here.iter())
    }
}

fn keepers<'a>(partition: Partition, here: impl Iterator<Item = &'a Sender>) -> [Option<Sender>; 2] {
    let mut ranked = [None; 2];
    for sender in here {
        let mut next = Some((weight(partition, sender.node), *sender));
        for place in &mut ranked {
            if next > *place {
                std::mem::swap(place, &mut next);
            }
        }
    }
    ranked.map(|place| place.map(|(_, sender)| sender))
}

/// The rendezvous hash: the weights of one node say nothing about another node's.
fn weight(partition: Partition, node: u16) -> u64 {
    split_mix(u64::from(partition.number()) << 16 | u64::from(node))
}

/// The number at this place of the sequence SplitMix64 (Steele, Lea and Flood 2014).
pub(super) fn split_mix(place: u64) -> u64 {
    let mut z = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Sessions in channels of apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Roll(BTreeMap<(Name, Name), BTreeMap<SessionId, Option<Name>>>);

impl Roll {
    fn of(standings: &[Standing]) -> Self {
        let mut roll = Self::default();
        for standing in standings {
            roll.apply(standing);
        }
        roll
    }

    /// True if it changed something.
    fn apply(&mut self, standing: &Standing) -> bool {
        let Standing { of: Membership { app, channel, session }, is_in, uid, .. } = standing;
        let key = (app.clone(), channel.clone());
        if *is_in {
            return self.0.entry(key).or_default().insert(*session, uid.clone()).is_none();
        }
        let Some(members) = self.0.get_mut(&key) else { return false };
        let was_in = members.remove(session).is_some();
        if members.is_empty() {
            self.0.remove(&key);
        }
        was_in
    }

    fn has(&self, of: &Membership) -> bool {
        self.members(of).is_some_and(|members| members.contains_key(&of.session))
    }

    /// The number of sessions in the same channel.
    fn count(&self, of: &Membership) -> usize {
        self.members(of).map_or(0, BTreeMap::len)
    }

    fn members(&self, of: &Membership) -> Option<&BTreeMap<SessionId, Option<Name>>> {
        self.0.get(&(of.app.clone(), of.channel.clone()))
    }

    /// Whether one session is in its channel, as a standing that is to be told again.
    fn standing(&self, of: Membership) -> Standing {
        let member = self.members(&of).and_then(|members| members.get(&of.session));
        let (is_in, uid) = (member.is_some(), member.cloned().flatten());
        Standing { of, is_in, again: true, uid }
    }

    /// The memberships that only one of the two rolls has.
    fn differs_from(&self, other: &Self) -> Vec<Membership> {
        let missing = |in_one: &Self, in_other: &Self| {
            let standings = in_one.standings().into_iter().map(|standing| standing.of);
            standings.filter(|of| !in_other.has(of)).collect::<Vec<_>>()
        };
        [missing(self, other), missing(other, self)].concat()
    }

    fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All memberships.
    fn standings(&self) -> Vec<Standing> {
        let of = |(app, channel): &(Name, Name), session: &SessionId| Membership {
            app: app.clone(),
            channel: channel.clone(),
            session: *session,
        };
        let members = self.0.iter().flat_map(|(key, members)| members.iter().map(move |member| (key, member)));
        members
            .map(|(key, (session, uid))| Standing { of: of(key, session), is_in: true, again: false, uid: uid.clone() })
            .collect()
    }
}

pub struct Presence {
    books: Mutex<Books>,
    /// The apps that want to be told, with their names as on the wire.
    apps: HashMap<String, Name>,
    changed: Notify,
    untold: watch::Sender<usize>,
    notices_tx: mpsc::UnboundedSender<PartitionNotices>,
    metrics: Arc<ClusterMetrics>,
}

/// The notices for apps. All notices of one change are told one after the other, followed by a call of [`Presence::told`]. At most
/// one change waits for each partition.
pub type Notices = mpsc::UnboundedReceiver<PartitionNotices>;

/// The notices of one change in a partition.
pub type PartitionNotices = (Partition, Vec<Notice>);

impl Presence {
    /// For these apps.
    #[expect(
        clippy::disallowed_methods,
        reason = "at most one entry for each partition: the next comes when the last was told"
    )]
    pub fn new(apps: impl IntoIterator<Item = String>, metrics: Arc<ClusterMetrics>) -> (Arc<Self>, Notices) {
        let named = |app: String| Some((Name::new(app.as_bytes()).ok()?, app));
        let apps = apps.into_iter().filter_map(named).map(|(name, app)| (app, name)).collect();
        let (notices_tx, notices) = mpsc::unbounded_channel();
        let presence = Self {
            books: Mutex::new(Books::new(Partition::all(), MAX_UNTOLD, MAX_REPORTS)),
            apps,
            changed: Notify::new(),
            untold: watch::Sender::new(0),
            notices_tx,
            metrics,
        };
        (Arc::new(presence), notices)
    }

    /// Apps have been told the notices of a partition.
    pub fn told(&self, partition: Partition) {
        self.change(|books| books.told(partition));
    }

    /// Waits until apps have been told of all changes of this node's sessions.
    pub async fn all_told(&self) {
        // Cannot fail: the sender is in `self`.
        let _ = self.untold.subscribe().wait_for(|untold| *untold == 0).await;
    }

    pub(super) fn view(&self, view: Option<View>) {
        self.change(|books| books.view(view));
    }

    pub(super) fn look(&self) {
        self.change(|books| {
            books.look();
            self.metrics.unshared.set(books.unshared() as i64);
        });
    }

    pub(super) fn heard(&self, from: Sender, body: Body) {
        self.change(|books| books.heard(from, body));
    }

    /// Sends reports and notices after each change, forever. `send` takes the bodies for other nodes, and may lose them.
    pub(super) async fn live(&self, send: impl Fn(Sender, Body)) {
        loop {
            self.changed.notified().await;
            let mut books = self.books();
            let steps = books.steps();
            self.untold.send_replace(books.untold());
            self.metrics.untold.set(books.untold() as i64);
            drop(books);
            steps.bodies.into_iter().for_each(|(node, body)| send(node, body));
            for notices in steps.notices {
                // The task that tells apps ends with the node.
                let _ = self.notices_tx.send(notices);
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Books)) {
        change(&mut self.books());
        self.changed.notify_one();
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Memberships for Presence {
    fn changed(&self, app: &str, channel: &Name, session: SessionId, is_in: bool, uid: Option<&Name>) {
        let Some(app) = self.apps.get(app) else { return };
        let of = Membership { app: app.clone(), channel: channel.clone(), session };
        let mut books = self.books();
        let given_up = books.change(Standing { of, is_in, again: false, uid: uid.cloned() });
        self.untold.send_replace(books.untold());
        drop(books);
        self.metrics.notices_given_up.inc_by(given_up);
        self.changed.notify_one();
    }
}
