//! A command on its way through its sessions.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::encodings::Encodings;
use super::registry::{IdHasher, Registry};
use super::{Done, Router};
use crate::config::model::SlowReader;
use crate::outbox::{Close, Fate, Outbox, Push};
use crate::proto::command::{Action, Command, Except, Message, Receipt, Target};
use crate::proto::id::SessionId;

/// What a push to a session with a codec costs, in pushes of a frame that is encoded already.
const CODEC_COST: usize = 16;

/// Goes through the sessions of one command, some at each step, and counts.
pub(super) struct Delivery<'a> {
    router: &'a Router,
    action: &'a Action,
    /// For the message that is sent, or the last one before a close.
    encodings: Option<Encodings<'a>>,
    rule: Option<SlowReader>,
    except: HashSet<SessionId, BuildHasherDefault<IdHasher>>,
    picked: std::vec::IntoIter<Arc<Outbox>>,
    /// Shards of the registry that are still to be picked from.
    shards: std::ops::Range<usize>,
    receipt: Receipt,
}

impl<'a> Delivery<'a> {
    /// Picks the sessions.
    pub(super) fn begin(router: &'a Router, command: &'a Command) -> Self {
        let mut receipt = Receipt::default();
        let mut shards = 0..0;
        let picked = match &command.to {
            Target::Sessions(ids) => find_all(router, ids, &mut receipt),
            Target::Uid(uid) => router.uids.members(uid),
            Target::Channel(channel) => router.channels.members(channel),
            Target::All => {
                shards = 0..Registry::SHARDS;
                Vec::new()
            }
        };
        let channel = match &command.to {
            Target::Channel(channel) => Some(channel),
            _ => None,
        };
        Self {
            router,
            action: &command.action,
            encodings: message_of(&command.action).map(|message| Encodings::new(message, channel)),
            rule: channel.and_then(|channel| router.rule_of(channel)),
            except: left_out(router, &command.except),
            picked: picked.into_iter(),
            shards,
            receipt,
        }
    }

    /// Does it with at most `count` more sessions; true when all are done. A session that has a codec counts for several.
    pub(super) fn step(&mut self, count: usize) -> bool {
        let mut done = 0;
        while done < count {
            let Some(outbox) = self.next() else { return true };
            self.act(&outbox);
            done += if outbox.framing().codec().is_some() { CODEC_COST } else { 1 };
        }
        false
    }

    /// What became of it so far.
    pub(super) fn receipt(&self) -> Receipt {
        self.receipt
    }

    fn next(&mut self) -> Option<Arc<Outbox>> {
        loop {
            match self.picked.next() {
                Some(outbox) if self.except.contains(&outbox.id()) => {}
                Some(outbox) => return Some(outbox),
                None => self.picked = self.router.sessions.of_shard(self.shards.next()?).into_iter(),
            }
        }
    }

    fn act(&mut self, outbox: &Arc<Outbox>) {
        let (router, id) = (self.router, outbox.id());
        let max_attribute_bytes = router.limits.max_attribute_bytes;
        match self.action {
            Action::Send(_) => self.push(outbox),
            Action::Join(channel) => self.done(router.join(id, channel)),
            Action::Leave(channel) => self.done(router.leave(id, channel)),
            Action::Bind(uid) => self.done(router.bind(id, Some(uid))),
            Action::Unbind => self.done(router.bind(id, None)),
            Action::Set { key, value, expect } => {
                self.done(router.change(id, |profile, _| profile.set(key, value, expect, max_attribute_bytes)));
            }
            Action::Delete(key) => self.done(router.change(id, |profile, _| {
                profile.delete(key);
                Ok(())
            })),
            Action::Touch => self.receipt.reached += 1,
            Action::Close { code, text, last } => {
                if last.is_some() {
                    // What became of the last frame is not what the command is about; the metrics have it.
                    let counts = std::mem::take(&mut self.receipt);
                    self.push(outbox);
                    router.metrics.count_push(&self.receipt);
                    self.receipt = counts;
                }
                outbox.ask_close(Close::by_command(*code, text.clone()));
                self.receipt.reached += 1;
            }
        }
    }

    fn push(&mut self, outbox: &Outbox) {
        let encodings = self.encodings.as_mut().expect("an action that pushes has a message");
        let pushed = match outbox.framing().codec() {
            Some(codec) => outbox.push_by(codec, encodings.body(), self.rule, &encodings.topic),
            None => {
                let frame = encodings.frame_for(outbox);
                frame.map(|frame| outbox.push(Push { frame, rule: self.rule, topic: &encodings.topic }))
            }
        };
        let Some(pushed) = pushed else {
            self.receipt.refused += 1;
            return;
        };
        self.receipt.dropped.oldest += pushed.dropped_oldest;
        self.receipt.dropped.latest += pushed.dropped_latest;
        match pushed.fate {
            Fate::Written => self.receipt.reached += 1,
            Fate::Queued => self.receipt.queued += 1,
            Fate::DroppedClose => self.receipt.dropped.close += 1,
            Fate::DroppedNewest => self.receipt.dropped.newest += 1,
            Fate::Gone => self.receipt.gone += 1,
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Some(Ok(())) => self.receipt.reached += 1,
            Some(Err(_)) => self.receipt.refused += 1,
            None => self.receipt.gone += 1,
        }
    }
}

fn message_of(action: &Action) -> Option<&Message> {
    match action {
        Action::Send(message) => Some(message),
        Action::Close { last, .. } => last.as_ref(),
        _ => None,
    }
}

/// Each id once; those that are not here are counted.
fn find_all(router: &Router, ids: &[SessionId], receipt: &mut Receipt) -> Vec<Arc<Outbox>> {
    let mut seen: HashSet<SessionId, BuildHasherDefault<IdHasher>> = HashSet::default();
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        if ids.len() > 1 && !seen.insert(*id) {
            continue;
        }
        match router.sessions.find(*id) {
            Some(outbox) => found.push(outbox),
            None => receipt.gone += 1,
        }
    }
    found
}

fn left_out(router: &Router, except: &Except) -> HashSet<SessionId, BuildHasherDefault<IdHasher>> {
    let of_uids = except.uids.iter().flat_map(|uid| router.uids.ids(uid));
    let of_channels = except.channels.iter().flat_map(|channel| router.channels.ids(channel));
    except.sessions.iter().copied().chain(of_uids).chain(of_channels).collect()
}
