//! Commands and queries, done on all nodes that they concern.
//!
//! ```text
//!   router port, HTTP API, a handler's answer        other nodes, PHP through the engine
//!                  │ Command, Query                                │
//!                  v                                               v
//!               Cluster ── this node's part ──> Router <── workers ── Net
//!                  │                                               ^ │
//!                  └── the others' part: orders ───────────────────┘ │ envelopes
//!                  <── receipts, what they found ────────────────────┘
//! ```
//!
//! - `net`: the link to the engine, and what comes and goes over it; `windows`: what has come; `workers`: what is done of it.
//! - [`members`]: the other nodes, as far as their heartbeats tell.
//! - [`presence`]: who is in which channel over all nodes, for apps that want to be told.
//! - `requests`: what has not been answered by everybody; `orders`: what is on its way out; `merge`: one answer out of many.
//!
//! A session's id tells its node, so a send to a session is one envelope to one node. A channel or a uid has a partition; the nodes with
//! members in it listen to its subject. What is for all goes to all.
//!
//! Promises: this node's own sessions are always served, at once and directly, whatever the engine does. An envelope is sent
//! once, and nothing is sent again. A publisher's envelopes on one subject are done in its order by each node. A receipt
//! adds up what nodes have said that they did; who did not say it in time is named.

pub mod members;
mod merge;
mod net;
mod orders;
pub mod presence;
mod requests;
#[cfg(test)]
mod simulation;
mod windows;
mod workers;

use std::slice;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use self::members::Place;
use self::net::{Identity, Net, State, joined_by};
use self::presence::{Presence, View};
use self::requests::{AllAnswered, Answers};
use crate::config::model::{self, ClusterEngine};
use crate::engine::nats::Nats;
use crate::engine::redis::Redis;
use crate::engine::{Engine, EngineError, Subject};
use crate::metrics::cluster::ClusterMetrics;
use crate::metrics::router::Door;
use crate::proto::command::{Action, Command, Query, Receipt, Target};
use crate::proto::control::long::{command_fits, query_fits};
use crate::proto::envelope::{Body, Found, Sender};
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;
use crate::proto::run::{RequestId, Run};
use crate::router::{Answer, Expected, Router};

/// See the module.
pub struct Cluster {
    router: Arc<Router>,
    /// `None` for a node alone.
    net: Option<Arc<Net>>,
    /// `None` where no app wants to be told.
    presence: Option<Arc<Presence>>,
}

/// What became of a command on all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Of the sessions of those nodes that have answered.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// Who may have sessions that the command concerns, and did not answer in time.
    #[serde(flatten)]
    pub beyond: Beyond,
}

/// What could not be reached, or is not known to have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Beyond {
    /// The names of nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
    /// There is no engine now: no other node was asked.
    #[serde(skip_serializing_if = "is_false")]
    pub engine_down: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Beyond {
    /// Everybody was reached.
    pub fn is_empty(&self) -> bool {
        self.unreachable.is_empty() && !self.engine_down
    }
}

impl std::fmt::Display for Beyond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.engine_down {
            true => f.write_str("there is no engine, so no other node can be asked"),
            false => write!(f, "not reached in time: {}", self.unreachable.join(", ")),
        }
    }
}

impl From<Receipt> for Outcome {
    fn from(receipt: Receipt) -> Self {
        Self { receipt, beyond: Beyond::default() }
    }
}

/// The answer to a query, from all nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// From those that have answered.
    #[serde(flatten)]
    pub answer: Answer,
    /// And who has not.
    #[serde(flatten)]
    pub beyond: Beyond,
}

impl Asked {
    /// As JSON; nothing for an answer that is none, or that is not JSON.
    pub fn json(&self) -> Vec<u8> {
        match &self.answer {
            Answer::Absent | Answer::Value(_) | Answer::Json(_) => self.answer.json(),
            _ if self.beyond.is_empty() => self.answer.json(),
            _ => serde_json::to_vec(self).expect("names are text and nothing else can fail"),
        }
    }
}

/// What a cluster is told of its node.
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// The epoch in the ids of its sessions.
    pub epoch: u32,
}

/// Why a node may not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// What was written about the engine makes no sense to it.
    Engine(EngineError),
    /// Another node has its number; who.
    Taken(String),
    /// The operating system gave no random bytes.
    Random(getrandom::Error),
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JoinError::Engine(error) => error.fmt(f),
            JoinError::Taken(why) => f.write_str(why),
            JoinError::Random(error) => write!(f, "no random number for this run: {error}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// What has to run for a node to be one among others; it ends only with its task.
pub type Life = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Members are about to come where this node did not listen, perhaps. See [`Cluster::expect`].
pub struct Expecting {
    /// For as long as these are kept it goes on listening.
    pub kept: Vec<Expected>,
    /// Until the other nodes reach whoever joins, or cannot now. `None`: they do already.
    pub settled: Option<Settled>,
}

/// See [`Expecting`].
pub type Settled = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cluster {
    /// A node alone.
    pub fn local(router: Arc<Router>) -> Self {
        Self { router, net: None, presence: None }
    }

    /// A node as its configuration wants it, and what has to be run for it. `presence` is told of the router's sessions already.
    ///
    /// # Errors
    ///
    /// What is wrong with the engine's addresses.
    pub fn new(
        settings: &model::Cluster,
        facts: Facts,
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
        facts: Facts,
        router: Arc<Router>,
        presence: Option<Arc<Presence>>,
        metrics: Arc<ClusterMetrics>,
    ) -> Result<(Self, Option<Life>), JoinError> {
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(JoinError::Random)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let me = Sender { node: facts.number, run: Run::of(u64::from_ne_bytes(run)) };
        let identity = Identity { name: facts.name, epoch: facts.epoch, started_ms: since_1970.as_millis() as u64 };
        let (orders, orders_reader) = orders::orders(me, settings.queue_bytes);
        let net = Net::new(me, identity, settings.clone(), router.clone(), presence.clone(), metrics, orders);
        let net = Arc::new(net);
        let life: Life = Box::pin(net.clone().live(engine, orders_reader));
        Ok((Self { router, net: Some(net), presence }, Some(life)))
    }

    /// Waits for the first attempt to join the others. A node may begin without an engine, but not in another's place.
    ///
    /// # Errors
    ///
    /// Who has its number.
    pub async fn begun(&self) -> Result<(), JoinError> {
        let Some(net) = &self.net else { return Ok(()) };
        match net.begun().await {
            State::Refused(why) => Err(JoinError::Taken(why)),
            _ => Ok(()),
        }
    }

    /// Until apps have been told what this node's sessions have done to channels.
    pub async fn all_told(&self) {
        if let Some(presence) = &self.presence {
            presence.all_told().await;
        }
    }

    /// Says to the others that this node stops.
    pub async fn leave(&self) {
        if let Some(net) = &self.net {
            net.leave().await;
        }
    }

    /// Why this node is not among the others, though it should be.
    pub fn missing(&self) -> Option<String> {
        let net = self.net.as_ref()?;
        match net.state() {
            State::Joined => net.not_understood().map(|why| format!("cluster: {why}")),
            State::Starting => Some("cluster: not joined yet".to_owned()),
            State::Away(why) | State::Refused(why) => Some(format!("cluster: {why}")),
        }
    }

    /// Does a command. See [`Router::run`].
    pub async fn run(&self, door: Door, command: &Command) -> Outcome {
        self.run_together(door, slice::from_ref(command)).await.pop().expect("a command has an outcome")
    }

    /// Does one command, or several that [may share a write](Command::may_share_a_write).
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
        let beyond = net.beyond(unreachable, engine_down);
        receipts.into_iter().map(|receipt| Outcome { receipt, beyond: beyond.clone() }).collect()
    }

    /// Does a command here before it returns, and has other nodes do it without waiting for them; what became of it here.
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
            warn!(command = command.action.label(), "only this node's own sessions were reached: there is no engine");
        }
        let mut receipt = self.router.run_now(door, &with_target(command, plan.own));
        receipt.gone += plan.gone;
        receipt
    }

    /// Before a session of this node joins channels or gets a uid: has this node listen to what other nodes send there. `None` for a
    /// node alone, and where nothing is joined.
    pub fn expect(&self, actions: &[Action]) -> Option<Expecting> {
        let net = self.net.as_ref()?;
        let joined: Vec<Partition> = actions.iter().filter_map(joined_by).collect();
        if joined.is_empty() {
            return None;
        }
        // Before it is looked whether we listen: who stops listening looks for members in the other order.
        let kept = joined.iter().map(|partition| self.router.interest().expect(*partition)).collect();
        let settled = joined.iter().any(|partition| net.is_unsettled(*partition)).then(|| -> Settled {
            let net = net.clone();
            Box::pin(async move {
                join_all(joined.into_iter().map(|partition| net.settled(partition))).await;
            })
        });
        Some(Expecting { kept, settled })
    }

    /// Answers a query, from all nodes that know something of it.
    pub async fn ask(&self, query: &Query) -> Asked {
        let alone = |answer| Asked { answer, beyond: Beyond::default() };
        let Some(net) = &self.net else { return alone(self.router.ask(query)) };
        let partition = match query {
            Query::Node => return alone(self.router.ask(query)),
            Query::Session(id) | Query::Attribute(id, _) => return self.ask_one(net, *id, query).await,
            Query::Channel(name, _) => Some(Partition::of_channel(name)),
            Query::Uid(uid, _) => Some(Partition::of_uid(uid)),
            Query::Channels(_) | Query::Sessions(_) | Query::Nodes => None,
        };
        // Each node speaks for itself.
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
        Asked { answer, beyond: net.beyond(unreachable, engine_down) }
    }

    async fn ask_one(&self, net: &Arc<Net>, id: SessionId, query: &Query) -> Asked {
        let alone = |answer| Asked { answer, beyond: Beyond::default() };
        if net.is_own(id) {
            return alone(self.router.ask(query));
        }
        if !net.is_joined() {
            return Asked { answer: Answer::Absent, beyond: net.beyond(Vec::new(), true) };
        }
        let place = net.members().locate(id);
        match place {
            Place::Gone => alone(Answer::Absent),
            Place::Silent(node) => Asked { answer: Answer::Absent, beyond: net.beyond(vec![node], false) },
            Place::At(node) => {
                let (mut answers, missing) = net.query(Subject::Node(node), vec![node], query).await;
                let answer = merge::of_one(query, answers.pop()).unwrap_or(Answer::Absent);
                Asked { answer, beyond: net.beyond(missing, !net.is_joined()) }
            }
        }
    }
}

fn with_target(command: &Command, to: Target) -> Command {
    Command { to, except: command.except.clone(), action: command.action.clone() }
}

/// Ids of one node in one envelope: half of what the fields of a frame have room for.
const MAX_IDS: usize = 2000;

/// What commands take of one envelope, in bytes, where there are several. NATS carries envelopes of up to a megabyte, unless it is told
/// otherwise.
const MAX_COMMANDS: usize = 64 << 10;

/// Who is to do a command.
struct Plan {
    /// This node's part.
    own: Target,
    /// Where the others' part is published, and who is waited for there.
    others: Vec<(Subject, Target, Vec<u16>)>,
    /// Nodes that may have a part and are known not to answer.
    silent: Vec<u16>,
    /// Sessions of nodes that are there no more.
    gone: u32,
    /// There is no engine: nobody else can be asked.
    engine_down: bool,
}

/// What was sent of a plan.
struct Sent<'n> {
    /// Each with the number of commands before those that it asks for.
    asking: Vec<(usize, Asking<'n>)>,
    /// Who was not asked, because there was no room.
    refused: Vec<u16>,
}

/// A request that waits for its answers; whoever gives up waiting leaves nothing behind.
struct Asking<'n> {
    net: &'n Net,
    request: RequestId,
    answered: AllAnswered,
}

impl Asking<'_> {
    /// What has come when all have answered, or at `until`; and who is missing.
    async fn answers(mut self, until: Instant) -> (Answers, Vec<u16>) {
        let _ = timeout_at(until, &mut self.answered).await;
        self.net.requests().end(self.request)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.net.requests().forget(self.request);
    }
}

impl Net {
    fn ask(&self, nodes: Vec<u16>, answers: Answers, joins: Option<Partition>) -> Asking<'_> {
        let (request, answered) = self.requests().begin(nodes, answers, joins);
        Asking { net: self, request, answered }
    }

    fn is_own(&self, id: SessionId) -> bool {
        id.node() == self.me.node
    }

    fn beyond(&self, mut nodes: Vec<u16>, engine_down: bool) -> Beyond {
        nodes.sort_unstable();
        nodes.dedup();
        if !nodes.is_empty() {
            self.metrics.unanswered.inc();
        }
        let members = self.members();
        Beyond { unreachable: nodes.into_iter().map(|node| members.name(node)).collect(), engine_down }
    }

    fn plan(&self, to: &Target) -> Plan {
        let is_joined = self.is_joined();
        let mut plan = Plan { own: to.clone(), others: Vec::new(), silent: Vec::new(), gone: 0, engine_down: false };
        let members = self.members();
        let subject = match to {
            Target::Sessions(ids) => {
                let (own, mut others): (Vec<_>, Vec<_>) = ids.iter().partition(|id| self.is_own(**id));
                // One that is named twice counts once, also where it would come into two envelopes, or is gone.
                if others.len() > 1 {
                    others.sort_unstable();
                    others.dedup();
                }
                plan.own = Target::Sessions(own);
                let mut by_node: Vec<(u16, Vec<SessionId>)> = Vec::new();
                for id in others {
                    match members.locate(id) {
                        Place::Gone if is_joined => plan.gone += 1,
                        Place::Silent(node) => plan.silent.push(node),
                        Place::At(node) if is_joined => match by_node.iter_mut().find(|(known, _)| *known == node) {
                            Some((_, ids)) => ids.push(id),
                            None => by_node.push((node, vec![id])),
                        },
                        // Without an engine nobody knows.
                        Place::Gone | Place::At(_) => plan.engine_down = true,
                    }
                }
                for (node, ids) in by_node {
                    let some = ids.chunks(MAX_IDS).map(|ids| Target::Sessions(ids.to_vec()));
                    plan.others.extend(some.map(|to| (Subject::Node(node), to, vec![node])));
                }
                return plan;
            }
            Target::Channel(name) => Subject::Partition(Partition::of_channel(name)),
            Target::Uid(uid) => Subject::Partition(Partition::of_uid(uid)),
            Target::All => Subject::All,
        };
        let partition = match subject {
            Subject::Partition(partition) => Some(partition),
            _ => None,
        };
        let (here, silent) = members.interested(partition);
        plan.silent = silent;
        if is_joined {
            plan.others.push((subject, to.clone(), here));
        } else {
            plan.engine_down = true;
        }
        plan
    }

    /// Publishes the others' part, for receipts.
    fn send_to(&self, plan: &Plan, commands: &[Command]) -> Sent<'_> {
        let mut sent = Sent { asking: Vec::new(), refused: Vec::new() };
        for (subject, to, nodes) in &plan.others {
            let commands: Vec<Command> = commands.iter().map(|command| with_target(command, to.clone())).collect();
            if !self.fit(&commands) {
                sent.refused.extend(nodes);
                continue;
            }
            let mut first = 0;
            for commands in in_envelopes(commands) {
                let count = commands.len();
                if nodes.is_empty() {
                    // Somebody may have begun to listen whose beat is not here yet.
                    self.order(*subject, Body::Commands { request: None, commands }, None);
                    continue;
                }
                let answers = Answers::Receipts(vec![Receipt::default(); count]);
                let joins = commands.first().and_then(|command| joined_by(&command.action));
                let asking = self.ask(nodes.clone(), answers, joins);
                let request = Some(asking.request);
                if self.order(*subject, Body::Commands { request, commands }, request) {
                    sent.asking.push((first, asking));
                } else {
                    sent.refused.extend(nodes);
                }
                first += count;
            }
        }
        sent
    }

    /// The same, for nobody who waits; true if some of it could not be sent.
    fn send_without_answer(&self, plan: &Plan, commands: &[Command]) -> bool {
        let mut unsent = false;
        for (subject, to, _) in &plan.others {
            let commands: Vec<Command> = commands.iter().map(|command| with_target(command, to.clone())).collect();
            if !self.fit(&commands) {
                unsent = true;
                continue;
            }
            for commands in in_envelopes(commands) {
                unsent |= !self.order(*subject, Body::Commands { request: None, commands }, None);
            }
        }
        unsent
    }

    /// Whether commands fit into an envelope; it is counted where they do not.
    fn fit(&self, commands: &[Command]) -> bool {
        let fit = commands.iter().all(command_fits);
        if !fit {
            self.metrics.count_dropped("too_large", 1);
            warn!("a command names more than fits into a frame: other nodes do not do it");
        }
        fit
    }

    async fn query(&self, subject: Subject, nodes: Vec<u16>, query: &Query) -> (Vec<Found>, Vec<u16>) {
        let asking = self.ask(nodes, Answers::Found(Vec::new()), None);
        let request = asking.request;
        let is_sent =
            query_fits(query) && self.order(subject, Body::Query { request, query: query.clone() }, Some(request));
        let now = Instant::now();
        match asking.answers(if is_sent { now + self.settings.receipt_timeout } else { now }).await {
            (Answers::Found(found), missing) => (found, missing),
            (Answers::Receipts(_), missing) => (Vec::new(), missing),
        }
    }
}

/// As many commands in each as it has room for, in their order.
fn in_envelopes(commands: Vec<Command>) -> Vec<Vec<Command>> {
    if commands.len() == 1 {
        return vec![commands];
    }
    let mut envelopes: Vec<Vec<Command>> = Vec::new();
    let mut room = 0;
    for command in commands {
        let bytes = command.about_bytes();
        match envelopes.last_mut() {
            Some(envelope) if bytes <= room => envelope.push(command),
            _ => {
                envelopes.push(vec![command]);
                room = MAX_COMMANDS;
            }
        }
        room = room.saturating_sub(bytes);
    }
    envelopes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::command::{Except, Message, Name};

    #[test]
    fn commands_go_together_as_far_as_an_envelope_has_room_and_in_their_order() {
        let name = |byte: u8| Name::new(&[byte; 200]).unwrap();
        let send = |len: usize, uids: u8| Command {
            to: Target::Channel(name(b'c')),
            except: Except { uids: (0..uids).map(|number| name(b'A' + number)).collect(), ..Except::default() },
            action: Action::Send(Message { key: Some(name(b'k')), ..Message::new(vec![b'x'; len]) }),
        };
        let commands: Vec<Command> =
            [10, 60_000, 20_000, 70_000, 5, 5, 30_000, 40_000].into_iter().map(|len| send(len, 20)).collect();
        let request = RequestId::new(Run::of(1), 1);
        let envelopes = in_envelopes(commands.clone());
        assert_eq!(envelopes.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1, 3, 1]);
        assert_eq!(envelopes.concat(), commands);
        for commands in envelopes {
            let about: usize = commands.iter().map(Command::about_bytes).sum();
            let from = Sender { node: 1, run: Run::of(1) };
            let body = Body::Commands { request, commands };
            let bytes = crate::proto::envelope::Envelope { from, number: 1, body }.encode().len();
            assert!((about - 200..about + 100).contains(&bytes), "{bytes} are thought to be {about}");
        }
    }
}
