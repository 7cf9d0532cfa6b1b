//! Runs a command on its sessions, or several commands that send to the same sessions.
//!
//! Messages that a publisher sent together reach each session in one vectored write. Nearly all of the cost of a small
//! frame is the kernel's, and it is paid per write.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use smallvec::SmallVec;

use super::encodings::Encodings;
use super::registry::{IdHasher, Registry};
use super::{Done, Router};
use crate::config::model::SlowReader;
use crate::outbox::{Close, Fate, Outbox, Push, Pushed};
use crate::proto::command::{Action, Command, Except, Message, Receipt, Target};
use crate::proto::id::SessionId;

/// The cost of a push to a session with a codec, compared with a push of a frame that is encoded already.
const CODEC_COST: usize = 16;

/// Serves the sessions of its commands, some at each step, and counts the results.
pub(super) struct Delivery<'a> {
    router: &'a Router,
    action: &'a Action,
    /// The encodings of each message that is sent, or of the last message before a close.
    encodings: Vec<Encodings<'a>>,
    rule: Option<SlowReader>,
    except: HashSet<SessionId, BuildHasherDefault<IdHasher>>,
    picked: std::vec::IntoIter<Arc<Outbox>>,
    /// Shards of the registry that are still to be served.
    shards: std::ops::Range<usize>,
    /// One for each command.
    receipts: Vec<Receipt>,
}

impl<'a> Delivery<'a> {
    /// Picks the sessions. If there are several commands, each sends a message, and all have the same sessions.
    pub(super) fn begin(router: &'a Router, commands: &'a [Command]) -> Self {
        let [command, others @ ..] = commands else { unreachable!("there is something to be delivered") };
        debug_assert!(others.iter().all(|other| command.may_share_a_write(other)));
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
            encodings: commands
                .iter()
                .filter_map(|command| Some(Encodings::new(message_of(&command.action)?, channel)))
                .collect(),
            rule: channel.and_then(|channel| router.rule_of(channel)),
            except: left_out(router, &command.except),
            picked: in_order(picked).into_iter(),
            shards,
            receipts: vec![receipt; commands.len()],
        }
    }

    /// Serves at most `count` more sessions. Returns true when all are done. A session with a codec counts as several.
    pub(super) fn step(&mut self, count: usize) -> bool {
        let mut done = 0;
        while done < count {
            let Some(outbox) = self.next() else { return true };
            self.act(&outbox);
            done += if outbox.framing().codec().is_some() { CODEC_COST } else { 1 };
        }
        false
    }

    /// The receipts, one for each command.
    pub(super) fn receipts(self) -> Vec<Receipt> {
        self.receipts
    }

    fn next(&mut self) -> Option<Arc<Outbox>> {
        loop {
            match self.picked.next() {
                Some(outbox) if self.except.contains(&outbox.id()) => {}
                Some(outbox) => return Some(outbox),
                None => self.picked = in_order(self.router.sessions.of_shard(self.shards.next()?)).into_iter(),
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
            Action::Touch => self.receipts[0].reached += 1,
            Action::Close { code, text, last } => {
                if last.is_some() {
                    // The receipt counts the closes. The last frame is counted only in the metrics.
                    let counts = std::mem::take(&mut self.receipts[0]);
                    self.push(outbox);
                    router.metrics.count_push(&self.receipts[0]);
                    self.receipts[0] = counts;
                }
                outbox.ask_close(Close::by_command(*code, text.clone()));
                self.receipts[0].reached += 1;
            }
        }
    }

    fn push(&mut self, outbox: &Outbox) {
        let Self { encodings, receipts, rule, .. } = self;
        let messages = encodings.iter_mut().zip(receipts);
        if let Some(codec) = outbox.framing().codec() {
            for (encodings, receipt) in messages {
                count(receipt, outbox.push_by(codec, encodings.body(), *rule, &encodings.topic));
            }
            return;
        }
        let mut pushes: SmallVec<[_; 1]> = SmallVec::new();
        for (encodings, receipt) in messages {
            match encodings.frame_for(outbox) {
                Some(frame) => pushes.push((Push { frame, rule: *rule, topic: &encodings.topic }, receipt)),
                None => count(receipt, None),
            }
        }
        outbox.push_all(pushes, |receipt, pushed| count(receipt, Some(pushed)));
    }

    fn done(&mut self, done: Done) {
        match done {
            Some(Ok(())) => self.receipts[0].reached += 1,
            Some(Err(_)) => self.receipts[0].refused += 1,
            None => self.receipts[0].gone += 1,
        }
    }
}

/// Counts one push. `None` means that there is no frame for the message, for example because the framing cannot carry
/// it.
fn count(receipt: &mut Receipt, pushed: Option<Pushed>) {
    let Some(pushed) = pushed else {
        receipt.refused += 1;
        return;
    };
    receipt.dropped.oldest += pushed.dropped_oldest;
    receipt.dropped.latest += pushed.dropped_latest;
    match pushed.fate {
        Fate::Written => receipt.reached += 1,
        Fate::Queued => receipt.queued += 1,
        Fate::DroppedClose => receipt.dropped.close += 1,
        Fate::DroppedNewest => receipt.dropped.newest += 1,
        Fate::Gone => receipt.gone += 1,
    }
}

fn message_of(action: &Action) -> Option<&Message> {
    match action {
        Action::Send(message) => Some(message),
        Action::Close { last, .. } => last.as_ref(),
        _ => None,
    }
}

/// Finds the sessions of `ids`, each once. Sessions that are not here are counted as gone.
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

/// Sorts the sessions by their place in memory, which is roughly the order in which they came. Their sockets and the
/// kernel's data lie in that order too. Half the cost of a small frame is waiting for that memory.
fn in_order(mut sessions: Vec<Arc<Outbox>>) -> Vec<Arc<Outbox>> {
    sessions.sort_unstable_by_key(Arc::as_ptr);
    sessions
}

fn left_out(router: &Router, except: &Except) -> HashSet<SessionId, BuildHasherDefault<IdHasher>> {
    let of_uids = except.uids.iter().flat_map(|uid| router.uids.ids(uid));
    let of_channels = except.channels.iter().flat_map(|channel| router.channels.ids(channel));
    except.sessions.iter().copied().chain(of_uids).chain(of_channels).collect()
}
