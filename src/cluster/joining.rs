//! The link to the engine: how a node joins the others and stays joined, and what it publishes.
//!
//! ```text
//!             connect, subscribe to our own number, claim it
//!   away ────────────────────────────────────────────────────> joined: beats, envelopes, interest
//!    ^ │ another node has our number: refused, we try again         │
//!    │ └─ backoff with jitter                                       │ lost, or our own beats do not come back
//!    └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! A node receives its own heartbeats too, so they probe the link in both directions: a half-open link is noticed within a lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use super::envelope_queue::{EnvelopeQueueReader, QueuedEnvelope};
use super::net::{CLAIM_WAIT, Interests, JoinState, Net};
use super::requests::Answers;
use crate::engine::{Engine, EngineError, InboxReader, Incoming, Link, Outgoing, Reach, Subject, inbox};
use crate::proto::command::Query;
use crate::proto::envelope::{Body, Envelope, Interest, Sender, Timeless, Unread};
use crate::proto::partition::Partition;

/// Beats in a lease: two may be lost before a node counts as silent.
const BEATS_PER_LEASE: u32 = 3;
/// Envelopes in one write to the engine.
const BATCH: usize = 512;
/// Waits between attempts to reach the engine. Each is randomly up to half shorter, so that nodes do not all reconnect at the same
/// time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The reason to give up a link.
#[derive(Debug)]
pub(super) enum LinkEnd {
    Lost(EngineError),
    /// Another node has our number: its name.
    Refused(String),
}

impl From<EngineError> for LinkEnd {
    fn from(error: EngineError) -> Self {
        LinkEnd::Lost(error)
    }
}

impl Net {
    /// Joins the other nodes, and joins again each time the engine was lost. Never ends.
    pub(super) async fn live<E: Engine>(self: Arc<Self>, engine: E, queue: EnvelopeQueueReader) {
        let presence = async {
            match &self.presence {
                None => std::future::pending().await,
                Some(presence) => {
                    // A report that is lost is sent again, so the result does not matter.
                    let send = |to: Sender, body| {
                        self.enqueue(Subject::Node(to.node), body, None);
                    };
                    presence.live(send).await;
                }
            }
        };
        tokio::join!(self.stay_joined(engine, queue), presence);
    }

    async fn stay_joined<E: Engine>(self: &Arc<Self>, engine: E, mut queue: EnvelopeQueueReader) {
        let mut pause = FIRST_PAUSE;
        loop {
            let end = match self.join(&engine, &mut queue, &mut pause).await {
                Err(end) => end,
                Ok(never) => match never {},
            };
            self.metrics.engine_up.set(0);
            self.metrics.engine_failures.inc();
            let state = match end {
                LinkEnd::Lost(error) => JoinState::Away(error.to_string()),
                LinkEnd::Refused(who) => JoinState::Refused(format!(
                    "node number {} is taken by node {who:?}: set another [node] number",
                    self.me.node
                )),
            };
            let before = self.state.send_replace(state.clone());
            if before != state {
                match &state {
                    JoinState::Refused(why) => error!("cannot join the other nodes: {why}"),
                    JoinState::Away(why) => {
                        warn!("engine unreachable, only this node's own sessions are reached: {why}")
                    }
                    JoinState::Starting | JoinState::Joined => {}
                }
            }
            *self.interests() = Interests::default();
            self.presence.iter().for_each(|presence| presence.view(None));
            self.metrics.count_dropped("engine_down", queue.close());
            // A request that begins from now on finds the queue closed.
            self.requests().give_up_all();
            self.foreign().clear();
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn join<E: Engine>(
        self: &Arc<Self>,
        engine: &E,
        queue: &mut EnvelopeQueueReader,
        pause: &mut Duration,
    ) -> Result<std::convert::Infallible, LinkEnd> {
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
        queue.open();
        self.state.send_replace(JoinState::Joined);
        info!(number = self.me.node, partitions = interest.len(), "joined the other nodes");
        tokio::select! {
            end = self.send(listening, queue, interest) => end,
            end = self.receive(incoming) => end,
        }
    }

    /// Claims this node's number: a node that has it objects. The number is ours if no objection comes in time.
    async fn claim(&self, link: &mut impl Link, incoming: &mut InboxReader) -> Result<(), LinkEnd> {
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
                            return LinkEnd::Refused(name);
                        }
                        _ => {}
                    },
                    Some(Incoming::Lost(error)) => return LinkEnd::Lost(error),
                    None => return LinkEnd::Lost(EngineError::closed()),
                }
            }
        };
        match timeout(CLAIM_WAIT, objection).await {
            Ok(end) => Err(end),
            Err(_) => Ok(()),
        }
    }

    /// Publishes beats and queued envelopes, and subscribes to partitions beyond `interest` when this node gets members in them.
    async fn send<L: Link>(
        &self,
        mut listening: Listening<L>,
        queue: &mut EnvelopeQueueReader,
        interest: Interest,
    ) -> Result<std::convert::Infallible, LinkEnd> {
        let mut beats = interval(self.settings.lease / BEATS_PER_LEASE);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch: Vec<QueuedEnvelope> = Vec::new();
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
                    // During its first lease this node may not know all nodes that are here.
                    if beaten > BEATS_PER_LEASE {
                        self.look_at_presence();
                    }
                }
                () = self.router.interest().grown() => {
                    let mut wanted = self.router.interest().all();
                    let known: Vec<Partition> = self.interests().subscribed.partitions().collect();
                    known.into_iter().for_each(|partition| wanted.set(partition, false));
                    if !wanted.is_empty() {
                        listening.subscribe(self, &wanted).await?;
                        telling.push(self.tell(wanted));
                    }
                }
                Some(told) = telling.next() => {
                    // A partition that was left meanwhile stays unknown: no session relies on it.
                    let mut interests = self.interests();
                    let Interests { subscribed, known } = &mut *interests;
                    told.partitions().filter(|told| subscribed.has(*told)).for_each(|told| known.set(told, true));
                    drop(interests);
                    self.state.send_modify(|_| {});
                }
                count = queue.next_batch(&mut batch, BATCH) => {
                    self.publish(&mut listening.link, &batch).await?;
                    self.metrics.published.inc_by(count as u64);
                    batch.clear();
                }
            }
        }
    }

    async fn publish(&self, link: &mut impl Link, batch: &[QueuedEnvelope]) -> Result<(), LinkEnd> {
        let outgoing: Vec<Outgoing> = batch
            .iter()
            .map(|envelope| Outgoing { subject: envelope.subject, payload: envelope.payload.clone() })
            .collect();
        let reaches = link.publish(&outgoing).await?;
        for (envelope, reach) in batch.iter().zip(reaches) {
            if reach == Reach::TooLarge {
                self.metrics.count_dropped("too_large", 1);
                warn!(subject = %envelope.subject, bytes = envelope.payload.len(), "message not sent to other nodes: larger than the engine's limit");
            }
            if let (Some(request), Reach::Nobody | Reach::TooLarge) = (envelope.request, reach) {
                self.requests().nobody_at(request);
            }
        }
        Ok(())
    }

    /// Tells the other nodes what we listen to, and waits until each has taken note. Until then, they would not wait for our
    /// receipt. If the engine has several servers, it also means that the servers have told each other: between two servers, what
    /// we publish arrives after our earlier subscriptions.
    async fn tell(&self, listened_to: Interest) -> Interest {
        self.beat();
        let here: Vec<u16> = self.members().here().map(|member| member.sender.node).collect();
        if !here.is_empty() {
            let asking = self.ask(here, Answers::Partial(Vec::new()), None);
            let query = Body::Query { request: asking.request, query: Query::Node };
            if self.enqueue(Subject::All, query, None) {
                // Only half the time: a node that waits for our receipt, because a session of ours joins, must get it in time.
                asking.answers(tokio::time::Instant::now() + self.settings.receipt_timeout / 2).await;
            }
        }
        listened_to
    }

    fn look_at_presence(&self) {
        let Some(presence) = &self.presence else { return };
        presence.view(Some(self.members().view(self.me, self.identity.epoch)));
        presence.look();
    }
}

/// A link, and what it listens to.
struct Listening<L> {
    link: L,
    /// Partitions without members here, since when.
    unwanted: HashMap<Partition, Instant>,
    /// Partitions that we told others we have left. We keep listening until all should have heard that.
    leaving: Interest,
}

impl<L: Link> Listening<L> {
    /// Also listens to `wanted`, in addition to the partitions that it listens to already.
    async fn subscribe(&mut self, net: &Net, wanted: &Interest) -> Result<(), LinkEnd> {
        let fresh = wanted.partitions().filter(|partition| !self.leaving.has(*partition));
        let subjects: Vec<Subject> = fresh.map(Subject::Partition).collect();
        if !subjects.is_empty() {
            self.link.subscribe(&subjects).await?;
        }
        wanted.partitions().for_each(|partition| self.leaving.set(partition, false));
        let mut interests = net.interests();
        wanted.partitions().for_each(|partition| interests.subscribed.set(partition, true));
        net.metrics.partitions.set((interests.subscribed.len() + self.leaving.len()) as i64);
        Ok(())
    }

    /// Leaves partitions without members here out of the next beat, once they have had none for the linger time. A node that
    /// publishes there before it hears that beat waits for our receipt, and gets it.
    fn announce(&mut self, net: &Net) {
        let (wanted, now) = (net.router.interest().all(), Instant::now());
        self.unwanted.retain(|partition, _| !wanted.has(*partition));
        for partition in net.interests().subscribed.partitions().filter(|partition| !wanted.has(*partition)) {
            self.unwanted.entry(partition).or_insert(now);
        }
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= net.settings.linger;
        let over: Vec<Partition> =
            self.unwanted.iter().filter(|(_, since)| is_over(since)).map(|(partition, _)| *partition).collect();
        for partition in over {
            self.unwanted.remove(&partition);
            // Checked under the lock: a session that joined before did not wait, and one that joins from now on waits until the
            // others know again.
            let mut interests = net.interests();
            if !net.router.interest().has(partition) {
                interests.known.set(partition, false);
                interests.subscribed.set(partition, false);
                self.leaving.set(partition, true);
            }
        }
    }

    /// Stops listening to the partitions that were left out of the last beat.
    async fn leave(&mut self, net: &Net) -> Result<(), LinkEnd> {
        // Not a partition that has a member again: it is about to be subscribed to.
        let left: Vec<Partition> =
            self.leaving.partitions().filter(|partition| !net.router.interest().has(*partition)).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.iter().for_each(|partition| self.leaving.set(*partition, false));
        let subjects: Vec<Subject> = left.into_iter().map(Subject::Partition).collect();
        self.link.unsubscribe(&subjects).await?;
        net.metrics.partitions.set((net.interests().subscribed.len() + self.leaving.len()) as i64);
        Ok(())
    }
}

/// Randomly up to half shorter.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without random bytes all nodes reconnect at the same time, which is no reason not to reconnect.
    let _ = getrandom::fill(&mut random);
    pause.mul_f64(0.5 + f64::from(random[0]) / 512.0)
}
