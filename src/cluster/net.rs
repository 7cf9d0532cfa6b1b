//! A node among others: what it knows of them and of itself, and the way out for what it has to say (`joining` has the link to the
//! engine, `receiving` what comes over it).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::members::Members;
use super::orders::{Orders, Unqueued};
use super::presence::Presence;
use super::requests::Requests;
use crate::config::model;
use crate::engine::Subject;
use crate::locks::lock;
use crate::metrics::cluster::ClusterMetrics;
use crate::proto::command::Action;
use crate::proto::envelope::{Beat, Body, Interest, Sender, VERSION};
use crate::proto::partition::Partition;
use crate::proto::run::{RequestId, Run};
use crate::router::Router;

/// How long a node that begins waits for somebody to say that its number is taken.
pub(super) const CLAIM_WAIT: Duration = Duration::from_millis(400);
/// See the module.
pub(super) struct Net {
    pub(super) me: Sender,
    pub(super) identity: Identity,
    pub(super) settings: model::Cluster,
    pub(super) router: Arc<Router>,
    pub(super) presence: Option<Arc<Presence>>,
    pub(super) metrics: Arc<ClusterMetrics>,
    members: Mutex<Members>,
    requests: Mutex<Requests>,
    orders: Orders,
    interests: Mutex<Interests>,
    /// Nodes that speak another version of the envelope, by number.
    foreign: Mutex<BTreeMap<u16, Foreign>>,
    pub(super) state: watch::Sender<State>,
}

/// What this node listens to.
#[derive(Default)]
pub(super) struct Interests {
    /// What the engine has confirmed that we are subscribed to.
    pub(super) subscribed: Interest,
    /// What of it the other nodes know.
    pub(super) known: Interest,
}

/// A node that is not understood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    pub(super) run: Run,
    pub(super) version: u8,
    pub(super) heard: Instant,
}

/// What a node says of itself in its beats.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) epoch: u32,
    pub(super) started_ms: u64,
}

/// How a node stands to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It begins.
    Starting,
    /// Among them.
    Joined,
    /// The engine is not there.
    Away(String),
    /// Another node has its number.
    Refused(String),
}

impl Net {
    pub(super) fn new(
        me: Sender,
        identity: Identity,
        settings: model::Cluster,
        router: Arc<Router>,
        presence: Option<Arc<Presence>>,
        metrics: Arc<ClusterMetrics>,
        orders: Orders,
    ) -> Self {
        Self {
            me,
            identity,
            router,
            presence,
            metrics,
            members: Mutex::new(Members::new(Instant::now(), settings.lease)),
            requests: Mutex::new(Requests::new(me.run)),
            orders,
            interests: Mutex::default(),
            foreign: Mutex::default(),
            state: watch::Sender::new(State::Starting),
            settings,
        }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, Requests> {
        lock(&self.requests)
    }

    pub(super) fn interests(&self) -> MutexGuard<'_, Interests> {
        lock(&self.interests)
    }

    pub(super) fn foreign(&self) -> MutexGuard<'_, BTreeMap<u16, Foreign>> {
        lock(&self.foreign)
    }

    /// Which node that is here is not understood, and does not understand this one.
    pub(super) fn not_understood(&self) -> Option<String> {
        let foreign = self.foreign();
        foreign.iter().next().map(|(node, of)| not_understood(*node, of.version))
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn is_joined(&self) -> bool {
        *self.state.borrow() == State::Joined
    }

    /// How the first attempt to join ended.
    pub(super) async fn begun(&self) -> State {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| *state != State::Starting).await {
            Ok(state) => state.clone(),
            Err(_) => State::Away("the task that connects to the engine has ended".to_owned()),
        }
    }

    /// Queues an envelope; false where that makes no sense now, or there is no room.
    pub(super) fn order(&self, subject: Subject, body: Body, request: Option<RequestId>) -> bool {
        let queued = self.orders.put(subject, body, request);
        if queued == Err(Unqueued::Full) {
            self.metrics.count_dropped("queue_full", 1);
        }
        queued.is_ok()
    }

    /// Until a partition is subscribed to and others know it, or that cannot be now: a publisher that is told that a session has joined
    /// may rely on it. Never longer than a receipt may take to say so.
    pub(super) async fn settled(&self, partition: Partition) {
        let mut state = self.state.subscribe();
        let is_settled = |state: &State| *state != State::Joined || self.interests().known.has(partition);
        // A node that does not answer is waited for half as long as a receipt; an engine that is slow, and will perhaps be lost, a
        // little longer. The rest is for the receipt's way back.
        let _ = timeout(self.settings.receipt_timeout * 3 / 4, state.wait_for(is_settled)).await;
    }

    /// Where a member would not be reached by everybody yet, though it could be soon.
    pub(super) fn is_unsettled(&self, partition: Partition) -> bool {
        self.is_joined() && !self.interests().known.has(partition)
    }

    /// After a command that gives a session a channel or a uid: until this node listens there.
    pub(super) async fn settle(&self, action: &Action) {
        if let Some(partition) = self.settles(action) {
            self.settled(partition).await;
        }
    }

    /// The partition that others are still to hear of, after such a command.
    pub(super) fn settles(&self, action: &Action) -> Option<Partition> {
        let is_new = |partition: &Partition| self.router.interest().has(*partition) && self.is_unsettled(*partition);
        joined_by(action).filter(is_new)
    }

    pub(super) fn beat(&self) {
        let beat = Beat {
            name: self.identity.name.clone(),
            epoch: self.identity.epoch,
            started_ms: self.identity.started_ms,
            lease_ms: u32::try_from(self.settings.lease.as_millis()).unwrap_or(u32::MAX),
            sessions: self.router.len() as u64,
            keeps_account: self.presence.is_some(),
            reads: VERSION,
            interest: self.interests().subscribed.clone(),
        };
        self.order(Subject::All, Body::Beat(beat), None);
    }

    pub(super) fn look_around(&self) {
        let now = Instant::now();
        let silent = {
            let mut members = self.members();
            let silent = members.expire(now);
            self.metrics.nodes.set(members.here().count() as i64);
            silent
        };
        for node in silent {
            warn!(node, "no heartbeat from a node for a whole lease, it counts as unreachable");
        }
        let is_here = |of: &Foreign| now.saturating_duration_since(of.heard) < self.settings.lease;
        self.foreign().retain(|_, of| is_here(of));
    }

    /// Says that this node stops.
    pub(super) async fn leave(&self) {
        if self.order(Subject::All, Body::Bye, None) {
            // Until it is out, or as long as that may take; there is nobody to ask.
            sleep(CLAIM_WAIT / 4).await;
        }
    }
}

/// The partition of the channel or the uid that a command gives to sessions.
pub(super) fn joined_by(action: &Action) -> Option<Partition> {
    match action {
        Action::Join(name) => Some(Partition::of_channel(name)),
        Action::Bind(uid) => Some(Partition::of_uid(uid)),
        _ => None,
    }
}

/// The message about a node whose envelopes are of another version.
pub(super) fn not_understood(node: u16, version: u8) -> String {
    format!(
        "node number {node} speaks version {version} of the node protocol, and this one {VERSION}: neither reaches the other's sessions"
    )
}
