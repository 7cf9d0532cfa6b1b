//! This node's state in the cluster: what it knows about the others and about itself, and the queue for what it sends. `joining`
//! has the link to the engine, and `receiving` handles what comes over it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::envelope_queue::{EnvelopeQueue, Unqueued};
use super::members::Members;
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

/// How long a starting node waits for another node to say that its number is taken.
pub(super) const CLAIM_WAIT: Duration = Duration::from_millis(400);

/// This node among the others.
pub(super) struct Net {
    pub(super) me: Sender,
    pub(super) identity: Identity,
    pub(super) settings: model::Cluster,
    pub(super) router: Arc<Router>,
    pub(super) presence: Option<Arc<Presence>>,
    pub(super) metrics: Arc<ClusterMetrics>,
    members: Mutex<Members>,
    requests: Mutex<Requests>,
    envelope_queue: EnvelopeQueue,
    interests: Mutex<Interests>,
    /// Nodes that speak another version of the envelope, by number.
    foreign: Mutex<BTreeMap<u16, Foreign>>,
    pub(super) state: watch::Sender<JoinState>,
}

/// The partitions that this node listens to.
#[derive(Default)]
pub(super) struct Interests {
    /// Subscriptions that the engine has confirmed.
    pub(super) subscribed: Interest,
    /// The part of them that the other nodes know of.
    pub(super) known: Interest,
}

/// A node that speaks another version of the envelope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    pub(super) run: Run,
    pub(super) version: u8,
    pub(super) heard: Instant,
}

/// The facts about this node in its beats.
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) epoch: u32,
    pub(super) started_ms: u64,
}

/// Whether this node is joined to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JoinState {
    Starting,
    Joined,
    /// The engine is unreachable; the text says why.
    Away(String),
    /// Another node has its number; the text names that node.
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
        envelope_queue: EnvelopeQueue,
    ) -> Self {
        Self {
            me,
            identity,
            router,
            presence,
            metrics,
            members: Mutex::new(Members::new(Instant::now(), settings.lease)),
            requests: Mutex::new(Requests::new(me.run)),
            envelope_queue,
            interests: Mutex::default(),
            foreign: Mutex::default(),
            state: watch::Sender::new(JoinState::Starting),
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

    /// An error text if a node that is here speaks another version, so that neither understands the other.
    pub(super) fn not_understood(&self) -> Option<String> {
        let foreign = self.foreign();
        foreign.iter().next().map(|(node, of)| not_understood(*node, of.version))
    }

    pub(super) fn state(&self) -> JoinState {
        self.state.borrow().clone()
    }

    pub(super) fn is_joined(&self) -> bool {
        *self.state.borrow() == JoinState::Joined
    }

    /// How the first attempt to join ended.
    pub(super) async fn begun(&self) -> JoinState {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| *state != JoinState::Starting).await {
            Ok(state) => state.clone(),
            Err(_) => JoinState::Away("the task that connects to the engine has ended".to_owned()),
        }
    }

    /// Queues an envelope. False if there is no link, or the queue is full.
    pub(super) fn enqueue(&self, subject: Subject, body: Body, request: Option<RequestId>) -> bool {
        let queued = self.envelope_queue.put(subject, body, request);
        if queued == Err(Unqueued::Full) {
            self.metrics.count_dropped("queue_full", 1);
        }
        queued.is_ok()
    }

    /// Waits until this node is subscribed to a partition and the others know it, or until that is impossible for now. A publisher
    /// that is told that a session has joined may rely on it. Never waits longer than a receipt may take.
    pub(super) async fn settled(&self, partition: Partition) {
        let mut state = self.state.subscribe();
        let is_settled = |state: &JoinState| *state != JoinState::Joined || self.interests().known.has(partition);
        // `tell` waits half a receipt's timeout for a node that does not answer. This waits a little longer, for an engine that is
        // slow and may get lost. The rest is for the receipt's way back.
        let _ = timeout(self.settings.receipt_timeout * 3 / 4, state.wait_for(is_settled)).await;
    }

    /// True if some node would not reach a member of this partition yet, though it could soon.
    pub(super) fn is_unsettled(&self, partition: Partition) -> bool {
        self.is_joined() && !self.interests().known.has(partition)
    }

    /// To be called after a command that gives a session a channel or a uid. Waits until this node listens there.
    pub(super) async fn settle(&self, action: &Action) {
        if let Some(partition) = self.settles(action) {
            self.settled(partition).await;
        }
    }

    /// The partition that others still have to learn of after such a command.
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
        self.enqueue(Subject::All, Body::Beat(beat), None);
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
            warn!(node, "node is silent: no heartbeat within its lease, so it counts as unreachable");
        }
        let is_here = |of: &Foreign| now.saturating_duration_since(of.heard) < self.settings.lease;
        self.foreign().retain(|_, of| is_here(of));
    }

    /// Tells the others that this node stops.
    pub(super) async fn leave(&self) {
        if self.enqueue(Subject::All, Body::Bye, None) {
            // Wait long enough for it to be sent; nothing confirms that.
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

/// The text about a node whose envelopes are of another version.
pub(super) fn not_understood(node: u16, version: u8) -> String {
    format!(
        "node number {node} speaks version {version} of the node protocol, and this one {VERSION}: neither reaches the other's sessions"
    )
}
