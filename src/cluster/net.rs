//! A node among others: the link to the engine, and everything that comes and goes over it.
//!
//! ```text
//!             connect, subscribe to our own number, claim it
//!   away ────────────────────────────────────────────────────> joined: beats, orders, interest
//!    ^ │ somebody has our number: refused, and asked again         │
//!    │ └─ backoff with jitter                                      │ lost, or our own beats do not come back
//!    └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Our heartbeats come back to us like to everybody, and so they probe the link in both directions: one that is half open is found
//! out within a lease.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use super::members::{Heard, Members};
use super::merge::found_by;
use super::orders::{Order, Orders, OrdersReader, Unqueued};
use super::presence::Presence;
use super::requests::{Answers, Requests};
use super::windows::{Arrival, Windows};
use super::workers::{Job, Queue, What, Workers};
use crate::config::model;
use crate::engine::{Engine, EngineError, InboxReader, Incoming, Link, Outgoing, Reach, Subject, inbox};
use crate::locks::lock;
use crate::metrics::cluster::ClusterMetrics;
use crate::metrics::router::Door;
use crate::proto::command::{Action, Query};
use crate::proto::envelope::{Beat, Body, Envelope, Interest, Sender, Timeless, Unread, VERSION};
use crate::proto::partition::Partition;
use crate::proto::run::{RequestId, Run};
use crate::proto::verb;
use crate::router::Router;

/// How long a node that begins waits for somebody to say that its number is taken.
const CLAIM_WAIT: Duration = Duration::from_millis(400);
/// Beats in a lease: two may be lost before a node counts as silent.
const BEATS_PER_LEASE: u32 = 3;
/// Envelopes in one write to the engine.
const BATCH: usize = 512;
/// Waits between attempts to reach the engine; each is up to half shorter, so that nodes do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Net {
    pub(super) me: Sender,
    identity: Identity,
    pub(super) settings: model::Cluster,
    pub(super) router: Arc<Router>,
    presence: Option<Arc<Presence>>,
    pub(super) metrics: Arc<ClusterMetrics>,
    members: Mutex<Members>,
    requests: Mutex<Requests>,
    orders: Orders,
    /// What the engine has confirmed that we are subscribed to.
    subscribed: Mutex<Interest>,
    /// What of it the other nodes know.
    known: Mutex<Interest>,
    /// Nodes that speak another version of the envelope, by number.
    foreign: Mutex<BTreeMap<u16, Foreign>>,
    state: watch::Sender<State>,
}

/// A node that is not understood.
#[derive(Clone, Copy, Debug)]
struct Foreign {
    run: Run,
    version: u8,
    heard: Instant,
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

/// Why a link is given up.
#[derive(Debug)]
enum End {
    Lost(EngineError),
    /// Who has our number.
    Refused(String),
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        End::Lost(error)
    }
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
            subscribed: Mutex::default(),
            known: Mutex::default(),
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

    fn subscribed(&self) -> MutexGuard<'_, Interest> {
        lock(&self.subscribed)
    }

    fn known(&self) -> MutexGuard<'_, Interest> {
        lock(&self.known)
    }

    fn foreign(&self) -> MutexGuard<'_, BTreeMap<u16, Foreign>> {
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
            Err(_) => State::Away("the engine's task has ended".to_owned()),
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

    /// Until a partition is subscribed to and others know it, or that cannot be now: whoever is told that a session has joined
    /// may rely on it. Never longer than a receipt may take to say so.
    pub(super) async fn settled(&self, partition: Partition) {
        let mut state = self.state.subscribe();
        let is_settled = |state: &State| *state != State::Joined || self.known().has(partition);
        // A node that does not answer is waited for half as long as a receipt; an engine that is slow, and will perhaps be lost, a
        // little longer. The rest is for the receipt's way back.
        let _ = timeout(self.settings.receipt_timeout * 3 / 4, state.wait_for(is_settled)).await;
    }

    /// Tells the other nodes what we listen to, and waits until each has taken it: so long as that takes, they would not wait for
    /// our receipt. It also means that the engine's servers, where there are several, have told each other: between two of them
    /// what we publish comes behind what we have subscribed to before.
    async fn tell(&self, listened_to: Interest) -> Interest {
        self.beat();
        let here: Vec<u16> = self.members().here().map(|member| member.sender.node).collect();
        if !here.is_empty() {
            let asking = self.ask(here, Answers::Found(Vec::new()), None);
            let query = Body::Query { request: asking.request, query: Query::Node };
            if self.order(Subject::All, query, None) {
                // Whoever waits for a receipt of ours, because a session of ours joins, has to get it in time.
                asking.answers(tokio::time::Instant::now() + self.settings.receipt_timeout / 2).await;
            }
        }
        listened_to
    }

    /// Where a member would not be reached by everybody yet, though it could be soon.
    pub(super) fn is_unsettled(&self, partition: Partition) -> bool {
        self.is_joined() && !self.known().has(partition)
    }

    /// After a command that gives a session a channel or a uid: until this node listens there.
    pub(super) async fn settle(&self, action: &Action) {
        if let Some(partition) = self.settles(action) {
            self.settled(partition).await;
        }
    }

    /// The partition that others are still to hear of, after such a command.
    fn settles(&self, action: &Action) -> Option<Partition> {
        let is_new = |partition: &Partition| self.router.interest().has(*partition) && self.is_unsettled(*partition);
        joined_by(action).filter(is_new)
    }

    /// Joins the others, and joins them again when the engine was lost; for ever.
    pub(super) async fn live<E: Engine>(self: Arc<Self>, engine: E, orders: OrdersReader) {
        let presence = async {
            match &self.presence {
                None => std::future::pending().await,
                Some(presence) => {
                    // What is lost is said again.
                    let send = |to: Sender, body| {
                        self.order(Subject::Node(to.node), body, None);
                    };
                    presence.live(send).await;
                }
            }
        };
        tokio::join!(self.stay_joined(engine, orders), presence);
    }

    async fn stay_joined<E: Engine>(&self, engine: E, mut orders: OrdersReader) {
        let mut pause = FIRST_PAUSE;
        loop {
            let end = match self.join(&engine, &mut orders, &mut pause).await {
                Err(end) => end,
                Ok(never) => match never {},
            };
            self.metrics.engine_up.set(0);
            self.metrics.engine_failures.inc();
            let state = match end {
                End::Lost(error) => State::Away(error.to_string()),
                End::Refused(who) => {
                    State::Refused(format!("node number {} is taken by {who:?} ([node] number)", self.me.node))
                }
            };
            let before = self.state.send_replace(state.clone());
            if before != state {
                match &state {
                    State::Refused(why) => error!("not among the other nodes: {why}"),
                    State::Away(why) => warn!("no engine, only this node's own sessions are reached: {why}"),
                    State::Starting | State::Joined => {}
                }
            }
            *self.subscribed() = Interest::default();
            self.presence.iter().for_each(|presence| presence.view(None));
            *self.known() = Interest::default();
            self.metrics.count_dropped("engine_down", orders.close());
            // A request that begins from now on finds the queue closed.
            self.requests().give_up_all();
            self.foreign().clear();
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn join<E: Engine>(
        &self,
        engine: &E,
        orders: &mut OrdersReader,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, End> {
        let (sender, mut incoming) = inbox(self.settings.queue_bytes);
        let mut link = engine.connect(sender).await?;
        self.claim(&mut link, &mut incoming).await?;
        link.subscribe(&[Subject::All]).await?;
        let interest = self.router.interest().all();
        let mut listening = Listening { link, unwanted: HashMap::new(), leaving: Interest::default() };
        listening.subscribe(self, &interest).await?;
        self.members().joined(Instant::now());
        self.metrics.engine_up.set(1);
        *pause = FIRST_PAUSE;
        orders.open();
        self.state.send_replace(State::Joined);
        info!(number = self.me.node, partitions = interest.len(), "among the other nodes");
        tokio::select! {
            end = self.send(listening, orders, interest) => end,
            end = self.receive(incoming) => end,
        }
    }

    /// Asks whoever has our number to say so. It is not ours before.
    async fn claim(&self, link: &mut impl Link, incoming: &mut InboxReader) -> Result<(), End> {
        let own = Subject::Node(self.me.node);
        link.subscribe(&[own]).await?;
        let claim = Envelope { from: self.me, number: 0, body: Body::Claim };
        link.publish(&[Outgoing { subject: own, payload: claim.encode() }]).await?;
        let objection = async {
            loop {
                match incoming.next().await {
                    Some(Incoming::Message { payload, .. }) => match Envelope::decode(payload) {
                        Ok(Envelope { body: Body::Taken { run, name }, .. })
                        | Err(Unread::Version { says: Some(Timeless::Taken { run, name }), .. })
                            if run == self.me.run =>
                        {
                            return End::Refused(name);
                        }
                        _ => {}
                    },
                    Some(Incoming::Lost(error)) => return End::Lost(error),
                    None => return End::Lost(EngineError::closed()),
                }
            }
        };
        match timeout(CLAIM_WAIT, objection).await {
            Ok(end) => Err(end),
            Err(_) => Ok(()),
        }
    }

    /// What leaves this node: beats, orders, and what it wants to listen to beside `interest`.
    async fn send<L: Link>(
        &self,
        mut listening: Listening<L>,
        orders: &mut OrdersReader,
        interest: Interest,
    ) -> Result<std::convert::Infallible, End> {
        let mut beats = interval(self.settings.lease / BEATS_PER_LEASE);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch: Vec<Order> = Vec::new();
        let mut beaten = 0;
        let mut telling = FuturesUnordered::new();
        telling.push(self.tell(interest));
        loop {
            tokio::select! {
                _ = beats.tick() => {
                    let silence = self.members().silence(Instant::now());
                    if silence > self.settings.lease {
                        return Err(EngineError::half_open(silence).into());
                    }
                    self.look_around();
                    listening.leave(self).await?;
                    listening.announce(self);
                    self.beat();
                    beaten += 1;
                    // Before a lease is over this node may not know of everybody who is here.
                    if beaten > BEATS_PER_LEASE {
                        self.look_at_presence();
                    }
                }
                () = self.router.interest().grown() => {
                    let mut wanted = self.router.interest().all();
                    let known: Vec<Partition> = self.subscribed().partitions().collect();
                    known.into_iter().for_each(|partition| wanted.set(partition, false));
                    if !wanted.is_empty() {
                        listening.subscribe(self, &wanted).await?;
                        telling.push(self.tell(wanted));
                    }
                }
                Some(told) = telling.next() => {
                    // What was left meanwhile, nobody relies on.
                    let subscribed = self.subscribed().clone();
                    let mut known = self.known();
                    told.partitions().filter(|told| subscribed.has(*told)).for_each(|told| known.set(told, true));
                    drop(known);
                    self.state.send_modify(|_| {});
                }
                count = orders.next_batch(&mut batch, BATCH) => {
                    self.publish(&mut listening.link, &batch).await?;
                    self.metrics.published.inc_by(count as u64);
                    batch.clear();
                }
            }
        }
    }

    async fn publish(&self, link: &mut impl Link, batch: &[Order]) -> Result<(), End> {
        let outgoing: Vec<Outgoing> =
            batch.iter().map(|order| Outgoing { subject: order.subject, payload: order.payload.clone() }).collect();
        let reaches = link.publish(&outgoing).await?;
        for (order, reach) in batch.iter().zip(reaches) {
            if reach == Reach::TooLarge {
                self.metrics.count_dropped("too_large", 1);
                warn!(subject = %order.subject, bytes = order.payload.len(), "larger than the engine takes: other nodes do not get it");
            }
            if let (Some(request), Reach::Nobody | Reach::TooLarge) = (order.request, reach) {
                self.requests().nobody_at(request);
            }
        }
        Ok(())
    }

    fn beat(&self) {
        let beat = Beat {
            name: self.identity.name.clone(),
            epoch: self.identity.epoch,
            started_ms: self.identity.started_ms,
            lease_ms: u32::try_from(self.settings.lease.as_millis()).unwrap_or(u32::MAX),
            sessions: self.router.len() as u64,
            keeps_account: self.presence.is_some(),
            reads: VERSION,
            interest: self.subscribed().clone(),
        };
        self.order(Subject::All, Body::Beat(beat), None);
    }

    fn look_at_presence(&self) {
        let Some(presence) = &self.presence else { return };
        presence.view(Some(self.members().view(self.me, self.identity.epoch)));
        presence.look();
    }

    fn look_around(&self) {
        let now = Instant::now();
        let silent = {
            let mut members = self.members();
            let silent = members.expire(now);
            self.metrics.nodes.set(members.here().count() as i64);
            silent
        };
        for node in silent {
            warn!(node, "node is silent");
        }
        let is_here = |of: &Foreign| now.saturating_duration_since(of.heard) < self.settings.lease;
        self.foreign().retain(|_, of| is_here(of));
    }

    /// What comes to this node.
    async fn receive(&self, mut incoming: InboxReader) -> Result<std::convert::Infallible, End> {
        let mut windows = Windows::default();
        let mut dropped = 0;
        let mut workers = Workers::new(self);
        // Workers end with the link: what they have not done is answered by nobody.
        let work = workers.work();
        let read = async {
            loop {
                let (subject, payload) = match incoming.next().await {
                    Some(Incoming::Message { subject, payload }) => (subject, payload),
                    Some(Incoming::Lost(error)) => return End::Lost(error),
                    None => return End::Lost(EngineError::closed()),
                };
                self.metrics.count_dropped("inbox_full", incoming.dropped() - dropped);
                dropped = incoming.dropped();
                let text = payload.trim_ascii_start();
                if text.starts_with(b"{") {
                    self.take_published(subject, text, &workers.queue);
                    continue;
                }
                let envelope = match Envelope::decode(payload) {
                    Ok(envelope) => envelope,
                    Err(unread) => {
                        if let Err(end) = self.take_unread(subject, unread) {
                            return end;
                        }
                        continue;
                    }
                };
                let from = envelope.from;
                if from == self.me {
                    let mut members = self.members();
                    members.heard_ourselves(Instant::now());
                    if matches!(envelope.body, Body::Beat(_)) {
                        windows.look(|sender| members.knows(sender));
                    }
                    continue;
                }
                self.metrics.received.inc();
                // A claim is made before there are numbers.
                if envelope.number > 0 {
                    match windows.take(from, subject, envelope.number) {
                        Arrival::Taken { missed } => drop(self.metrics.missed.inc_by(missed)),
                        Arrival::Stale => {
                            self.metrics.count_dropped("stale", 1);
                            continue;
                        }
                    }
                }
                if let Err(end) = self.take(subject, envelope, &workers.queue) {
                    return end;
                }
            }
        };
        tokio::select! {
            end = read => Err(end),
            () = work => Err(EngineError::closed().into()),
        }
    }

    /// A command that somebody has published by hand: it is done with this node's sessions.
    fn take_published(&self, subject: Subject, payload: &[u8], workers: &Queue) {
        match verb::published(payload) {
            Ok(command) => {
                workers.put(self, subject, Job { from: self.me, request: None, what: What::Commands(vec![command]) });
            }
            Err(wrong) => {
                self.metrics.count_dropped("malformed", 1);
                warn!(%subject, "a command that was published as JSON: {wrong}");
            }
        }
    }

    /// A payload that is no envelope which is understood here. Of another version what counts is whose number it is.
    fn take_unread(&self, subject: Subject, unread: Unread) -> Result<(), End> {
        let Unread::Version { version, from, says } = unread else {
            self.metrics.count_dropped("malformed", 1);
            warn!(%subject, "a payload {unread}");
            return Ok(());
        };
        self.metrics.count_dropped("version", 1);
        match says {
            Some(Timeless::Claim) if from.node == self.me.node => self.object(from),
            Some(Timeless::Beat { name, started_ms }) if from.node == self.me.node => {
                return self.compare(from, started_ms, name);
            }
            Some(Timeless::Taken { run, name }) if run == self.me.run => return Err(End::Refused(name)),
            Some(Timeless::Claim | Timeless::Taken { .. }) => {}
            Some(Timeless::Beat { .. }) | None => self.note_foreign(from, version),
        }
        Ok(())
    }

    fn note_foreign(&self, from: Sender, version: u8) {
        let now = Foreign { run: from.run, version, heard: Instant::now() };
        let before = self.foreign().insert(from.node, now);
        // Once for each run of it, and again if it was away.
        if before.is_none_or(|before| (before.run, before.version) != (from.run, version)) {
            error!("not among all other nodes: {}", not_understood(from.node, version));
        }
    }

    /// Tells a node that its number is ours.
    fn object(&self, to: Sender) {
        let taken = Body::Taken { run: to.run, name: self.identity.name.clone() };
        self.order(Subject::Node(to.node), taken, None);
    }

    /// Another node has our number, or an earlier run of this one has said something that comes late: the later one steps back.
    fn compare(&self, from: Sender, started_ms: u64, name: String) -> Result<(), End> {
        if (started_ms, from.run) < (self.identity.started_ms, self.me.run) {
            return Err(End::Refused(name));
        }
        self.object(from);
        Ok(())
    }

    fn take(&self, subject: Subject, envelope: Envelope, workers: &Queue) -> Result<(), End> {
        let from = envelope.from;
        match envelope.body {
            Body::Beat(beat) if from.node == self.me.node => return self.compare(from, beat.started_ms, beat.name),
            Body::Beat(beat) => {
                let name = beat.name.clone();
                let heard = self.members().heard(Instant::now(), from, beat);
                match heard {
                    Heard::Known | Heard::Outdated => {}
                    Heard::New => info!(node = name, number = from.node, "node is here"),
                    Heard::Again => info!(node = name, number = from.node, "node is here again"),
                    Heard::Restarted => info!(node = name, number = from.node, "node was restarted"),
                }
                if matches!(heard, Heard::New | Heard::Restarted) {
                    // It should not have to wait for our next one to know us.
                    self.look_around();
                    self.beat();
                }
            }
            Body::Bye => {
                // Nothing is logged while it is locked.
                let left = self.members().left(from);
                if let Some(name) = left {
                    info!(node = name, "node has stopped");
                }
                self.look_around();
            }
            Body::Claim => {
                if from.node == self.me.node {
                    self.object(from);
                }
            }
            Body::Taken { run, name } => {
                if run == self.me.run {
                    return Err(End::Refused(name));
                }
            }
            Body::Commands { request, commands } => {
                workers.put(self, subject, Job { from, request, what: What::Commands(commands) });
            }
            // Also asks whether we have taken what came before it; whoever asks must not wait for what our workers wait for.
            Body::Query { request, query: query @ Query::Node } => {
                let found = found_by(self.router.ask(&query));
                self.order(Subject::Node(from.node), Body::Found { request, found }, None);
            }
            Body::Query { request, query } => {
                workers.put(self, subject, Job { from, request: Some(request), what: What::Query(query) });
            }
            Body::Receipts { request, receipts } => {
                let joined = self.requests().joins(request).filter(|_| receipts.iter().any(|done| done.reached > 0));
                if let Some(partition) = joined {
                    // Before whoever waits for the receipt sends there.
                    self.members().listens(from, partition);
                }
                self.requests().receipts(from.node, request, &receipts);
            }
            Body::Found { request, found } => self.requests().found(from.node, request, found),
            body @ (Body::Reports(_) | Body::Accounts { .. } | Body::TakenForGone(_) | Body::KnowsGone(_)) => {
                if let Some(presence) = &self.presence {
                    presence.heard(from, body);
                }
            }
        }
        Ok(())
    }

    /// Says that this node stops.
    pub(super) async fn leave(&self) {
        if self.order(Subject::All, Body::Bye, None) {
            // Until it is out, or as long as that may take; there is nobody to ask.
            sleep(CLAIM_WAIT / 4).await;
        }
    }

    /// Does a job, and says what came of it; or leaves that to be said when what is given back has ended. Nothing else waits for
    /// that: a node that does not answer must not keep this one from doing what comes from others.
    pub(super) async fn work(&self, job: Job) -> Option<impl Future<Output = ()> + '_> {
        let (body, partition) = match job.what {
            What::Commands(commands) => {
                let receipts = self.router.run_together(Door::Engine, &commands).await;
                (Body::Receipts { request: job.request?, receipts }, self.settles(&commands[0].action))
            }
            What::Query(query) => {
                (Body::Found { request: job.request?, found: found_by(self.router.ask(&query)) }, None)
            }
        };
        let (to, request) = (Subject::Node(job.from.node), None);
        let Some(partition) = partition else {
            self.order(to, body, request);
            return None;
        };
        Some(async move {
            self.settled(partition).await;
            self.order(to, body, request);
        })
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
fn not_understood(node: u16, version: u8) -> String {
    format!(
        "node number {node} speaks version {version} between nodes, this one {VERSION}: neither reaches the other's sessions"
    )
}

/// A link, and what it listens to.
struct Listening<L> {
    link: L,
    /// Partitions without members here, since when.
    unwanted: HashMap<Partition, Instant>,
    /// What others were told that we do not listen to any more; we still do, until all should have heard that.
    leaving: Interest,
}

impl<L: Link> Listening<L> {
    /// Listens to what it is told to, beside what it listens to already.
    async fn subscribe(&mut self, net: &Net, wanted: &Interest) -> Result<(), End> {
        let fresh = wanted.partitions().filter(|partition| !self.leaving.has(*partition));
        let subjects: Vec<Subject> = fresh.map(Subject::Partition).collect();
        if !subjects.is_empty() {
            self.link.subscribe(&subjects).await?;
        }
        wanted.partitions().for_each(|partition| self.leaving.set(partition, false));
        let mut subscribed = net.subscribed();
        wanted.partitions().for_each(|partition| subscribed.set(partition, true));
        net.metrics.partitions.set((subscribed.len() + self.leaving.len()) as i64);
        Ok(())
    }

    /// Leaves partitions that nobody here has wanted for a while out of the next beat. A node that publishes there before it has heard
    /// that beat waits for our receipt, and gets it.
    fn announce(&mut self, net: &Net) {
        let (wanted, now) = (net.router.interest().all(), Instant::now());
        self.unwanted.retain(|partition, _| !wanted.has(*partition));
        for partition in net.subscribed().partitions().filter(|partition| !wanted.has(*partition)) {
            self.unwanted.entry(partition).or_insert(now);
        }
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= net.settings.linger;
        let over: Vec<Partition> =
            self.unwanted.iter().filter(|(_, since)| is_over(since)).map(|(partition, _)| *partition).collect();
        for partition in over {
            self.unwanted.remove(&partition);
            // Looked at while it is locked: who has joined before has not waited, and whoever joins from now on waits until others
            // know again.
            let mut known = net.known();
            if !net.router.interest().has(partition) {
                known.set(partition, false);
                net.subscribed().set(partition, false);
                self.leaving.set(partition, true);
            }
        }
    }

    /// Stops listening to what was announced a beat ago.
    async fn leave(&mut self, net: &Net) -> Result<(), End> {
        // A member that has come since is about to be subscribed to.
        let left: Vec<Partition> =
            self.leaving.partitions().filter(|partition| !net.router.interest().has(*partition)).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.iter().for_each(|partition| self.leaving.set(*partition, false));
        let subjects: Vec<Subject> = left.into_iter().map(Subject::Partition).collect();
        self.link.unsubscribe(&subjects).await?;
        net.metrics.partitions.set((net.subscribed().len() + self.leaving.len()) as i64);
        Ok(())
    }
}

/// Up to half shorter, by chance.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without chance all nodes would come back together, which is no reason not to come back.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.5 + f64::from(random[0]) / 512.0)
}
