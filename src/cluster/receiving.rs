//! Handles what comes from other nodes.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info, warn};

use super::joining::LinkEnd;
use super::last_numbers::{Arrival, LastNumbers};
use super::members::BeatEffect;
use super::merge::found_by;
use super::net::{Foreign, Net, not_understood};
use super::workers::{Job, JobContent, JobQueue, Workers};
use crate::engine::{EngineError, InboxReader, Incoming, Subject};
use crate::metrics::router::Door;
use crate::proto::command::Query;
use crate::proto::envelope::{Body, Envelope, Sender, Timeless, Unread};
use crate::proto::verb;

impl Net {
    /// Reads from the link until it ends.
    pub(super) async fn receive(
        self: &Arc<Self>,
        mut incoming: InboxReader,
    ) -> Result<std::convert::Infallible, LinkEnd> {
        let mut last_numbers = LastNumbers::default();
        let mut dropped = 0;
        // Workers end with the link: jobs that they have not done get no answer.
        let mut workers = Workers::start(self);
        let queue = workers.queue();
        let read = async {
            loop {
                let (subject, payload) = match incoming.next().await {
                    Some(Incoming::Message { subject, payload }) => (subject, payload),
                    Some(Incoming::Lost(error)) => return LinkEnd::Lost(error),
                    None => return LinkEnd::Lost(EngineError::closed()),
                };
                self.metrics.count_dropped("inbox_full", incoming.dropped() - dropped);
                dropped = incoming.dropped();
                let text = payload.trim_ascii_start();
                if text.starts_with(b"{") {
                    self.take_published(subject, text, &queue);
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
                        last_numbers.look(|sender| members.knows(sender));
                    }
                    continue;
                }
                self.metrics.received.inc();
                // A claim has no number, because it is sent before the queue numbers envelopes.
                if envelope.number > 0 {
                    match last_numbers.take(from, subject, envelope.number) {
                        Arrival::Taken { missed } => drop(self.metrics.missed.inc_by(missed)),
                        Arrival::Stale => {
                            self.metrics.count_dropped("stale", 1);
                            continue;
                        }
                    }
                }
                if let Err(end) = self.take(subject, envelope, &queue) {
                    return end;
                }
            }
        };
        tokio::select! {
            end = read => Err(end),
            () = workers.panicked() => Err(EngineError::closed().into()),
        }
    }

    /// Runs a command that was published as JSON, with this node's sessions.
    fn take_published(&self, subject: Subject, payload: &[u8], workers: &JobQueue) {
        match verb::published(payload) {
            Ok(command) => {
                workers.put(
                    self,
                    subject,
                    Job { from: self.me, request: None, content: JobContent::Commands(vec![command]) },
                );
            }
            Err(wrong) => {
                self.metrics.count_dropped("malformed", 1);
                warn!(%subject, "JSON command ignored: {wrong}");
            }
        }
    }

    /// Handles a payload that is not an envelope of this version. From an envelope of another version only claims, beats and
    /// objections are understood.
    fn take_unread(&self, subject: Subject, unread: Unread) -> Result<(), LinkEnd> {
        let Unread::Version { version, from, says } = unread else {
            self.metrics.count_dropped("malformed", 1);
            warn!(%subject, "payload ignored: it {unread}");
            return Ok(());
        };
        self.metrics.count_dropped("version", 1);
        match says {
            Some(Timeless::Claim) if from.node == self.me.node => self.object(from),
            Some(Timeless::Beat { name, started_ms }) if from.node == self.me.node => {
                return self.compare(from, started_ms, name);
            }
            Some(Timeless::Taken { run, name }) if run == self.me.run => return Err(LinkEnd::Refused(name)),
            Some(Timeless::Claim | Timeless::Taken { .. }) => {}
            Some(Timeless::Beat { .. }) | None => self.note_foreign(from, version),
        }
        Ok(())
    }

    fn note_foreign(&self, from: Sender, version: u8) {
        let now = Foreign { run: from.run, version, heard: Instant::now() };
        let before = self.foreign().insert(from.node, now);
        // Logged once for each run of the node, and again after it was away.
        if before.is_none_or(|before| (before.run, before.version) != (from.run, version)) {
            error!("cannot work with another node: {}", not_understood(from.node, version));
        }
    }

    /// Tells a node that this node has its number.
    fn object(&self, to: Sender) {
        let taken = Body::Taken { run: to.run, name: self.identity.name.clone() };
        self.enqueue(Subject::Node(to.node), taken, None);
    }

    /// Another node has our number, or a late message of an earlier run of this node has come. The run that started later steps
    /// back.
    fn compare(&self, from: Sender, started_ms: u64, name: String) -> Result<(), LinkEnd> {
        if (started_ms, from.run) < (self.identity.started_ms, self.me.run) {
            return Err(LinkEnd::Refused(name));
        }
        self.object(from);
        Ok(())
    }

    fn take(&self, subject: Subject, envelope: Envelope, workers: &JobQueue) -> Result<(), LinkEnd> {
        let from = envelope.from;
        match envelope.body {
            Body::Beat(beat) if from.node == self.me.node => return self.compare(from, beat.started_ms, beat.name),
            Body::Beat(beat) => {
                let name = beat.name.clone();
                let heard = self.members().heard(Instant::now(), from, beat);
                match heard {
                    BeatEffect::Known | BeatEffect::Outdated => {}
                    BeatEffect::New => info!(node = name, number = from.node, "node has joined"),
                    BeatEffect::Again => info!(node = name, number = from.node, "node was silent and is back"),
                    BeatEffect::Restarted => info!(node = name, number = from.node, "node was restarted"),
                }
                if matches!(heard, BeatEffect::New | BeatEffect::Restarted) {
                    // Send a beat now, so that it need not wait for our next one to know us.
                    self.look_around();
                    self.beat();
                }
            }
            Body::Bye => {
                // Nothing is logged while the lock is held.
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
                    return Err(LinkEnd::Refused(name));
                }
            }
            Body::Commands { request, commands } => {
                workers.put(self, subject, Job { from, request, content: JobContent::Commands(commands) });
            }
            // The query also asks whether we have handled the envelopes before it. The answer must not wait for the jobs of our
            // workers.
            Body::Query { request, query: query @ Query::Node } => {
                let found = found_by(self.router.ask(&query));
                self.enqueue(Subject::Node(from.node), Body::PartialAnswer { request, found }, None);
            }
            Body::Query { request, query } => {
                workers.put(self, subject, Job { from, request: Some(request), content: JobContent::Query(query) });
            }
            Body::Receipts { request, receipts } => {
                let joined = self.requests().joins(request).filter(|_| receipts.iter().any(|done| done.reached > 0));
                if let Some(partition) = joined {
                    // Before the publisher gets the receipt and publishes there.
                    self.members().listens(from, partition);
                }
                self.requests().receipts(from.node, request, &receipts);
            }
            Body::PartialAnswer { request, found } => self.requests().found(from.node, request, found),
            body @ (Body::Reports(_) | Body::ReportAcks { .. } | Body::TakenForGone(_) | Body::KnowsGone(_)) => {
                if let Some(presence) = &self.presence {
                    presence.heard(from, body);
                }
            }
        }
        Ok(())
    }

    /// Does a job and sends its answer. If the answer has to wait, returns a future that waits and then sends it. Nothing else
    /// waits for that future: a node that does not answer must not keep this one from doing other nodes' jobs.
    pub(super) async fn work(&self, job: Job) -> Option<impl Future<Output = ()> + '_> {
        let (body, partition) = match job.content {
            JobContent::Commands(commands) => {
                let receipts = self.router.run_together(Door::Engine, &commands).await;
                (Body::Receipts { request: job.request?, receipts }, self.settles(&commands[0].action))
            }
            JobContent::Query(query) => {
                (Body::PartialAnswer { request: job.request?, found: found_by(self.router.ask(&query)) }, None)
            }
        };
        let (to, request) = (Subject::Node(job.from.node), None);
        let Some(partition) = partition else {
            self.enqueue(to, body, request);
            return None;
        };
        Some(async move {
            self.settled(partition).await;
            self.enqueue(to, body, request);
        })
    }
}
