//! The router: knows the sessions of this node, their channels and uids, and runs commands on them.
//!
//! ```text
//!   router port, HTTP API, a handler's answer
//!                  │ Command                    Query
//!                  v                              v
//!              Delivery ── picks ──> sessions   QueryAnswer
//!                  │                    │
//!                  │ Receipt            └─ push, ask_close ──> Outbox
//! ```
//!
//! - `registry`: which sessions this node holds, each with its profile: uid, attributes, channels.
//! - `groups`: the members of channels and uids. `interest`: the partitions that have members here.
//! - `delivery`: runs a command on its sessions, some at a time.
//! - `encodings`: a message, encoded once per framing, or by the codec of each session that has one.
//! - `query_answer`: the answers to queries.
//!
//! Promises: when [`Router::remove`] has returned, the session is in no channel and has no uid. A publisher's frames
//! reach each session in the order of its commands. Locks are taken in one order, a session's before a group's. No code
//! of a session is called while a lock is held.

mod delivery;
mod encodings;
mod groups;
mod interest;
mod profile;
mod query_answer;
mod registry;

use std::slice;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use self::interest::{Expected, LocalInterest};
pub use self::profile::Profile;
pub use self::query_answer::{ChannelCount, NodeAnswer, QueryAnswer, SessionAnswer};

use self::delivery::Delivery;
use self::groups::Groups;
use self::profile::Refusal;
use self::registry::{Entry, Registry};
use crate::config::model::{ChannelRule, ProfileLimits, SlowReader};
use crate::metrics::router::{Door, RouterMetrics};
use crate::outbox::Outbox;
use crate::proto::command::{Action, Command, Name, Query, Receipt};
use crate::proto::fastcgi::params::EncodedParams;
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;

/// The number of sessions that one step of a delivery serves before other tasks get their turn. That is about a third
/// of a millisecond of writes. So a frame that is answered meanwhile waits at most so long at each of its three
/// stations.
const BATCH: usize = 32;

pub struct Router {
    sessions: Registry,
    channels: Groups,
    uids: Groups,
    interest: LocalInterest,
    slow_readers: Vec<ChannelRule>,
    limits: ProfileLimits,
    metrics: Arc<RouterMetrics>,
    node: NodeFacts,
    memberships: Option<Arc<dyn Memberships>>,
}

/// A receiver of the joins and leaves of channels.
pub trait Memberships: Send + Sync {
    /// A session of an app has joined a channel or left it. It is called while the session is locked, so it must be
    /// quick and must not block.
    fn changed(&self, app: &str, channel: &Name, session: SessionId, is_in: bool, uid: Option<&Name>);
}

/// The facts about the node that queries show.
pub struct NodeFacts {
    pub name: String,
    pub number: u16,
    /// When it began.
    pub started: Instant,
    /// Cancelled when it begins to stop.
    pub draining: CancellationToken,
}

impl Router {
    /// Makes a router without sessions. The first of `slow_readers` that matches a channel applies.
    pub fn new(
        slow_readers: Vec<ChannelRule>,
        limits: ProfileLimits,
        metrics: Arc<RouterMetrics>,
        node: NodeFacts,
    ) -> Self {
        let interest = LocalInterest::default();
        Self {
            sessions: Registry::default(),
            channels: Groups::new(metrics.channels.clone(), interest.clone(), Partition::of_channel),
            uids: Groups::new(metrics.uids.clone(), interest.clone(), Partition::of_uid),
            interest,
            slow_readers,
            limits,
            metrics,
            node,
            memberships: None,
        }
    }

    /// The same, with a receiver of joins and leaves.
    pub fn telling(self, memberships: Arc<dyn Memberships>) -> Self {
        Self { memberships: Some(memberships), ..self }
    }

    /// From now on the session can be found.
    pub fn insert(&self, outbox: Arc<Outbox>) {
        self.sessions.insert(outbox);
    }

    /// Removes the session, also from its channels and its uid. Returns its last profile.
    pub fn remove(&self, id: SessionId) -> Profile {
        let Some(Entry { outbox, profile: Some(profile) }) = self.sessions.remove(id) else {
            return Profile::default();
        };
        for channel in profile.channels() {
            self.channels.remove(channel, id);
            self.tell(&outbox, channel, false, profile.uid());
        }
        if let Some(uid) = profile.uid() {
            self.uids.remove(uid, id);
        }
        *profile
    }

    fn tell(&self, outbox: &Outbox, channel: &Name, is_in: bool, uid: Option<&Name>) {
        if let Some(memberships) = &self.memberships {
            memberships.changed(&outbox.terms().app, channel, outbox.id(), is_in, uid);
        }
    }

    /// The profile that a removed session would have after `actions`, apart from its channels.
    pub fn profile_after(&self, mut profile: Profile, actions: &[Action]) -> Profile {
        for action in actions {
            match action {
                Action::Bind(uid) => profile.bind(Some(uid.clone())),
                Action::Unbind => profile.bind(None),
                Action::Delete(key) => profile.delete(key),
                Action::Set { key, value, expect } => {
                    // A refusal is logged only for live sessions, and this session never became live.
                    let _ = profile.set(key, value, expect, self.limits.max_attribute_bytes);
                }
                _ => {}
            }
        }
        profile
    }

    /// The session's uid and attributes, as params for its events.
    pub fn params(&self, id: SessionId) -> EncodedParams {
        self.sessions
            .with(id, |entry| entry.profile.as_ref().map(|profile| profile.params()))
            .flatten()
            .unwrap_or_default()
    }

    /// The wheel calls this session.
    pub fn tick(&self, id: SessionId) {
        if let Some(outbox) = self.sessions.find(id) {
            outbox.tick();
        }
    }

    /// Sessions held now.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// No session is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The partitions in which this node has members of channels and uids.
    pub fn interest(&self) -> &LocalInterest {
        &self.interest
    }

    /// Calls `visit` with every session, without a lock held.
    pub fn for_each(&self, mut visit: impl FnMut(&Outbox)) {
        for shard in 0..Registry::SHARDS {
            self.sessions.of_shard(shard).iter().for_each(|outbox| visit(outbox));
        }
    }

    /// Runs a command. Other tasks get their turns in between, so that a command to a hundred thousand sessions does
    /// not block the rest of the node.
    pub async fn run(&self, door: Door, command: &Command) -> Receipt {
        self.run_together(door, slice::from_ref(command)).await.pop().expect("a command has a receipt")
    }

    /// Runs one command, or several that [may share a write](Command::may_share_a_write). Returns a receipt for each.
    pub async fn run_together(&self, door: Door, commands: &[Command]) -> Vec<Receipt> {
        let mut delivery = Delivery::begin(self, commands);
        while !delivery.step(BATCH) {
            tokio::task::yield_now().await;
        }
        self.count(door, commands, delivery)
    }

    /// Runs a command before it returns. If it has many sessions, another thread takes over the tasks of this one
    /// meanwhile.
    pub fn run_now(&self, door: Door, command: &Command) -> Receipt {
        let mut delivery = Delivery::begin(self, slice::from_ref(command));
        if !delivery.step(BATCH) {
            aside(|| while !delivery.step(usize::MAX) {});
        }
        self.count(door, slice::from_ref(command), delivery).pop().expect("a command has a receipt")
    }

    pub fn ask(&self, query: &Query) -> QueryAnswer {
        query_answer::answer(self, query)
    }

    fn count(&self, door: Door, commands: &[Command], delivery: Delivery<'_>) -> Vec<Receipt> {
        let receipts = delivery.receipts();
        for (command, receipt) in commands.iter().zip(&receipts) {
            self.metrics.count(door, &command.action, receipt);
            debug!(
                target: "longwire::command",
                door = door.label(), command = command.action.label(), to = %command.to, bytes = command.action.sent_bytes(),
                reached = receipt.reached, queued = receipt.queued, dropped = receipt.dropped.total(),
                refused = receipt.refused, gone = receipt.gone,
            );
        }
        receipts
    }

    fn rule_of(&self, channel: &Name) -> Option<SlowReader> {
        self.slow_readers.iter().find(|rule| rule.matches(channel.as_bytes())).map(|rule| rule.rule)
    }

    fn join(&self, id: SessionId, channel: &Name) -> Done {
        self.sessions.with(id, |entry| {
            let profile = entry.profile.get_or_insert_default();
            if profile.is_in(channel) {
                return Ok(());
            }
            if profile.channels().len() >= self.limits.max_channels {
                return Err(Refusal);
            }
            profile.enter(self.channels.insert(channel, entry.outbox.clone()));
            self.tell(&entry.outbox, channel, true, profile.uid());
            Ok(())
        })
    }

    fn leave(&self, id: SessionId, channel: &Name) -> Done {
        self.change(id, |profile, outbox| {
            if profile.exit(channel) {
                self.channels.remove(channel, id);
                self.tell(outbox, channel, false, profile.uid());
            }
            Ok(())
        })
    }

    fn bind(&self, id: SessionId, uid: Option<&Name>) -> Done {
        self.change(id, |profile, outbox| {
            if profile.uid() == uid {
                return Ok(());
            }
            if let Some(old) = profile.uid() {
                self.uids.remove(old, id);
            }
            profile.bind(uid.map(|uid| self.uids.insert(uid, outbox.clone())));
            Ok(())
        })
    }

    /// Changes a profile. An empty profile is not kept.
    fn change(&self, id: SessionId, change: impl FnOnce(&mut Profile, &Arc<Outbox>) -> Result<(), Refusal>) -> Done {
        self.sessions.with(id, |entry| {
            let mut profile = entry.profile.take().unwrap_or_default();
            let result = change(&mut profile, &entry.outbox);
            if profile.has_params() {
                entry.outbox.note_params();
            }
            entry.profile = Some(profile).filter(|profile| !profile.is_empty());
            result
        })
    }
}

/// Runs long work while another thread takes over the tasks of this one.
fn aside(work: impl FnOnce()) {
    // A runtime with one thread, as in tests, has no other thread to take over.
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// The result of a change. `None` means that there is no such session.
type Done = Option<Result<(), Refusal>>;
