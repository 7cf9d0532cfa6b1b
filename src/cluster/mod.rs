//! Runs commands and queries on every node that they concern.
//!
//! ```text
//!   router port, HTTP API, a handler's answer        other nodes, PHP through the engine
//!                  │ Command, Query                                │
//!                  v                                               v
//!               Cluster ── this node's part ──> Router <── workers ── Net
//!                  │                                               ^ │
//!                  └── the others' part: envelope_queue ───────────┘ │ envelopes
//!                  <── receipts, query results ────────────────────┘
//! ```
//!
//! - `asking`: which nodes a command concerns, and which have answered; `outcome`: the result.
//! - `net`: this node's view of the cluster. `joining`: its link to the engine. `receiving`: handles what comes over the link.
//!   `last_numbers`: drops repeated and late envelopes. `workers`: run the jobs in the envelopes.
//! - [`members`]: the other nodes, as known from their heartbeats.
//! - [`presence`]: which sessions are in which channel over all nodes, for apps that want to be told.
//! - `requests`: requests that some node has not answered yet. `envelope_queue`: envelopes that wait to be published. `merge`: makes
//!   one answer out of many.
//!
//! A session's id tells its node, so a send to a session is one envelope to one node. A channel or a uid has a partition, and the
//! nodes with members in it listen to its subject. A command for all sessions goes to all nodes.
//!
//! Promises: this node's own sessions are always served, at once and directly, even when the engine is down. An envelope is sent
//! once and never again. Each node runs a publisher's envelopes on one subject in the publisher's order. A receipt adds up what
//! nodes reported, and names the nodes that did not report in time.

mod asking;
mod envelope_queue;
mod joining;
mod last_numbers;
pub mod members;
mod merge;
mod net;
mod outcome;
pub mod presence;
mod receiving;
mod requests;
#[cfg(test)]
mod simulation;
mod workers;

use std::slice;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::warn;

use self::asking::with_target;
use self::members::SessionLocation;
use self::net::{Identity, JoinState, Net, joined_by};
pub use self::outcome::{Asked, Outcome, Unreached};
use self::presence::{Presence, View};
use self::requests::Answers;
use crate::config::model::{self, ClusterEngine};
use crate::engine::nats::Nats;
use crate::engine::redis::Redis;
use crate::engine::{Engine, EngineError, Subject};
use crate::metrics::cluster::ClusterMetrics;
use crate::metrics::router::Door;
use crate::proto::command::{Action, Command, Query, Receipt, Target};
use crate::proto::envelope::Sender;
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;
use crate::proto::run::Run;
use crate::router::{Expected, QueryAnswer, Router};

pub struct Cluster {
    router: Arc<Router>,
    /// `None` for a node alone.
    net: Option<Arc<Net>>,
    /// `None` if no app wants to be told of joins and leaves.
    presence: Option<Arc<Presence>>,
}

/// Facts about this node, which the cluster needs.
pub struct ClusterFacts {
    pub name: String,
    pub number: u16,
    /// The epoch in the ids of its sessions.
    pub epoch: u32,
}

/// The node cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// The engine's settings are invalid.
    Engine(EngineError),
    /// Another node has this node's number. The text names that node.
    Taken(String),
    /// The operating system gave no random bytes.
    NoRandomBytes(getrandom::Error),
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JoinError::Engine(error) => error.fmt(f),
            JoinError::Taken(why) => f.write_str(why),
            JoinError::NoRandomBytes(error) => write!(f, "the operating system gave no random bytes: {error}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// The task that keeps the node in the cluster. It never ends by itself.
pub type Life = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// This node is about to have members in partitions that it may not listen to yet. See [`Cluster::expect`].
pub struct Expecting {
    /// While these are kept, the node keeps listening.
    pub kept: Vec<Expected>,
    /// Completes when the other nodes reach the joining sessions, or cannot for now. `None` if they reach them already.
    pub settled: Option<Settled>,
}

/// See [`Expecting`].
pub type Settled = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cluster {
    /// A node alone.
    pub fn local(router: Arc<Router>) -> Self {
        Self { router, net: None, presence: None }
    }

    /// Makes a node from its configuration, and the task that it needs. `presence` must receive the router's joins and leaves
    /// already.
    ///
    /// # Errors
    ///
    /// The engine's addresses are invalid, or the operating system gave no random bytes.
    pub fn new(
        settings: &model::Cluster,
        facts: ClusterFacts,
        router: Arc<Router>,
        presence: Option<Arc<Presence>>,
        metrics: Arc<ClusterMetrics>,
    ) -> Result<(Self, Option<Life>), JoinError> {
        let texts = |urls: &[crate::config::Secret]| urls.iter().map(|url| url.reveal().to_owned()).collect::<Vec<_>>();
        match &settings.engine {
            ClusterEngine::Local => {
                let life = presence.clone().map(|presence| -> Life {
                    presence.view(Some(View::alone(Sender { node: facts.number, run: Run::ALONE })));
                    Box::pin(async move { presence.live(|_, _| {}).await })
                });
                Ok((Self { router, net: None, presence }, life))
            }
            ClusterEngine::Redis { urls, kind } => {
                let tls = settings.tls.clone().unwrap_or_default();
                let engine = Redis::new(&texts(urls), kind.clone(), &settings.prefix, tls);
                let engine = engine.map_err(JoinError::Engine)?;
                Self::among_others(engine, settings, facts, router, presence, metrics)
            }
            ClusterEngine::Nats { urls } => {
                let engine = Nats::new(&texts(urls), &settings.prefix, settings.tls.clone());
                let engine = engine.map_err(JoinError::Engine)?;
                Self::among_others(engine, settings, facts, router, presence, metrics)
            }
        }
    }

    fn among_others(
        engine: impl Engine,
        settings: &model::Cluster,
        facts: ClusterFacts,
        router: Arc<Router>,
        presence: Option<Arc<Presence>>,
        metrics: Arc<ClusterMetrics>,
    ) -> Result<(Self, Option<Life>), JoinError> {
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(JoinError::NoRandomBytes)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let me = Sender { node: facts.number, run: Run::of(u64::from_ne_bytes(run)) };
        let identity = Identity { name: facts.name, epoch: facts.epoch, started_ms: since_1970.as_millis() as u64 };
        let (envelope_queue, queue_reader) = envelope_queue::envelope_queue(me, settings.queue_bytes);
        let net = Net::new(me, identity, settings.clone(), router.clone(), presence.clone(), metrics, envelope_queue);
        let net = Arc::new(net);
        let life: Life = Box::pin(net.clone().live(engine, queue_reader));
        Ok((Self { router, net: Some(net), presence }, Some(life)))
    }

    /// Waits for the first attempt to join the others. A node may start without an engine, but not with a number that another node
    /// has.
    ///
    /// # Errors
    ///
    /// Another node has this node's number. The text names it.
    pub async fn begun(&self) -> Result<(), JoinError> {
        let Some(net) = &self.net else { return Ok(()) };
        match net.begun().await {
            JoinState::Refused(why) => Err(JoinError::Taken(why)),
            _ => Ok(()),
        }
    }

    /// Waits until apps have been told of every join and leave of this node's sessions.
    pub async fn all_told(&self) {
        if let Some(presence) = &self.presence {
            presence.all_told().await;
        }
    }

    /// Tells the other nodes that this node stops.
    pub async fn leave(&self) {
        if let Some(net) = &self.net {
            net.leave().await;
        }
    }

    /// Why this node does not reach all other nodes. `None` if it does, or if it runs alone.
    pub fn missing(&self) -> Option<String> {
        let net = self.net.as_ref()?;
        match net.state() {
            JoinState::Joined => net.not_understood().map(|why| format!("cluster: {why}")),
            JoinState::Starting => Some("cluster: not joined yet".to_owned()),
            JoinState::Away(why) | JoinState::Refused(why) => Some(format!("cluster: {why}")),
        }
    }

    /// Runs a command. See [`Router::run`].
    pub async fn run(&self, door: Door, command: &Command) -> Outcome {
        self.run_together(door, slice::from_ref(command)).await.pop().expect("a command has an outcome")
    }

    /// Runs one command, or several that [may share a write](Command::may_share_a_write).
    pub async fn run_together(&self, door: Door, commands: &[Command]) -> Vec<Outcome> {
        let Some(net) = &self.net else {
            return self.router.run_together(door, commands).await.into_iter().map(Outcome::from).collect();
        };
        let [first, ..] = commands else { return Vec::new() };
        let plan = net.plan(&first.to);
        let sent = net.send_to(&plan, commands);
        let own = commands.iter().map(|command| with_target(command, plan.own.clone()));
        let own: Vec<Command> = own.collect();
        let mut receipts = self.router.run_together(door, &own).await;
        let mut unreachable = plan.silent.clone();
        let mut engine_down = plan.engine_down;
        let until = Instant::now() + net.settings.receipt_timeout;
        for (first, asking) in sent.asking {
            let (answers, missing) = asking.answers(until).await;
            if let Answers::Receipts(others) = answers {
                receipts[first..].iter_mut().zip(&others).for_each(|(sum, other)| *sum = sum.plus(other));
            }
            unreachable.extend(missing);
        }
        unreachable.extend(sent.refused);
        engine_down |= !net.is_joined() && !unreachable.is_empty();
        receipts.iter_mut().for_each(|receipt| receipt.gone += plan.gone);
        net.settle(&first.action).await;
        let unreached = net.unreached(unreachable, engine_down);
        receipts.into_iter().map(|receipt| Outcome { receipt, unreached: unreached.clone() }).collect()
    }

    /// Runs a command on this node before it returns, and sends it to other nodes without waiting for them. Returns this node's
    /// receipt.
    pub fn run_now(&self, door: Door, command: &Command) -> Receipt {
        let Some(net) = &self.net else { return self.router.run_now(door, command) };
        if let Target::Sessions(ids) = &command.to
            && ids.iter().all(|id| net.is_own(*id))
        {
            return self.router.run_now(door, command);
        }
        let plan = net.plan(&command.to);
        let unsent = net.send_without_answer(&plan, slice::from_ref(command));
        if plan.engine_down || unsent {
            warn!(
                command = command.action.label(),
                "other nodes were not reached: engine unreachable, queue full or command too large"
            );
        }
        let mut receipt = self.router.run_now(door, &with_target(command, plan.own));
        receipt.gone += plan.gone;
        receipt
    }

    /// To be called before a session of this node joins channels or gets a uid. Makes this node listen to what other nodes send
    /// there. `None` for a node alone, and if `actions` join nothing.
    pub fn expect(&self, actions: &[Action]) -> Option<Expecting> {
        let net = self.net.as_ref()?;
        let joined: Vec<Partition> = actions.iter().filter_map(joined_by).collect();
        if joined.is_empty() {
            return None;
        }
        // Record the interest first, then check whether we listen: a node that stops listening checks in the other order.
        let kept = joined.iter().map(|partition| self.router.interest().expect(*partition)).collect();
        let settled = joined.iter().any(|partition| net.is_unsettled(*partition)).then(|| -> Settled {
            let net = net.clone();
            Box::pin(async move {
                join_all(joined.into_iter().map(|partition| net.settled(partition))).await;
            })
        });
        Some(Expecting { kept, settled })
    }

    /// Answers a query from all nodes that may know something about it.
    pub async fn ask(&self, query: &Query) -> Asked {
        let alone = |answer| Asked { answer, unreached: Unreached::default() };
        let Some(net) = &self.net else { return alone(self.router.ask(query)) };
        let partition = match query {
            Query::Node => return alone(self.router.ask(query)),
            Query::Session(id) | Query::Attribute(id, _) => return self.ask_one(net, *id, query).await,
            Query::Channel(name, _) => Some(Partition::of_channel(name)),
            Query::Uid(uid, _) => Some(Partition::of_uid(uid)),
            Query::Channels(_) | Query::Sessions(_) | Query::Nodes => None,
        };
        // Ask each node about itself.
        let of_each = if matches!(query, Query::Nodes) { &Query::Node } else { query };
        let engine_down = !net.is_joined();
        let (here, mut unreachable) = net.members().interested(partition);
        let subject = partition.map_or(Subject::All, Subject::Partition);
        let mut found = Vec::new();
        if !engine_down && !here.is_empty() {
            let (answers, missing) = net.query(subject, here, of_each).await;
            found = answers;
            unreachable.extend(missing);
        }
        let answer = merge::merge(query, self.router.ask(query), found);
        Asked { answer, unreached: net.unreached(unreachable, engine_down) }
    }

    async fn ask_one(&self, net: &Arc<Net>, id: SessionId, query: &Query) -> Asked {
        let alone = |answer| Asked { answer, unreached: Unreached::default() };
        if net.is_own(id) {
            return alone(self.router.ask(query));
        }
        if !net.is_joined() {
            return Asked { answer: QueryAnswer::Absent, unreached: net.unreached(Vec::new(), true) };
        }
        let place = net.members().locate(id);
        match place {
            SessionLocation::Gone => alone(QueryAnswer::Absent),
            SessionLocation::Silent(node) => {
                Asked { answer: QueryAnswer::Absent, unreached: net.unreached(vec![node], false) }
            }
            SessionLocation::At(node) => {
                let (mut answers, missing) = net.query(Subject::Node(node), vec![node], query).await;
                let answer = merge::of_one(query, answers.pop()).unwrap_or(QueryAnswer::Absent);
                Asked { answer, unreached: net.unreached(missing, !net.is_joined()) }
            }
        }
    }
}
