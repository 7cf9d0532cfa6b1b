//! Requests to other nodes: which nodes a command concerns, what is published for it, and which nodes have answered.

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::members::SessionLocation;
use super::net::{Net, joined_by};
use super::outcome::Unreached;
use super::requests::{AllAnswered, Answers};
use crate::engine::Subject;
use crate::proto::command::{Command, Query, Receipt, Target};
use crate::proto::control::long::{command_fits, query_fits};
use crate::proto::envelope::{Body, PartialAnswer};
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;
use crate::proto::run::RequestId;

pub(super) fn with_target(command: &Command, to: Target) -> Command {
    Command { to, except: command.except.clone(), action: command.action.clone() }
}

/// Most session ids in one envelope: half of what the fields of a frame have room for.
const MAX_IDS: usize = 2000;

/// Most bytes of commands in one envelope, if there are several commands. By default NATS carries envelopes of up to one megabyte.
const MAX_COMMANDS: usize = 64 << 10;

/// Which nodes are to run a command.
pub(super) struct Plan {
    /// This node's part.
    pub(super) own: Target,
    /// The other nodes' part: the subject to publish on, the target, and the nodes that must answer.
    others: Vec<(Subject, Target, Vec<u16>)>,
    /// Silent nodes that may have a part.
    pub(super) silent: Vec<u16>,
    /// Sessions whose nodes no longer exist.
    pub(super) gone: u32,
    /// There is no engine, so no other node can be asked.
    pub(super) engine_down: bool,
}

/// The part of a plan that was sent.
pub(super) struct Sent<'n> {
    /// Each request, with the index of its first command.
    pub(super) asking: Vec<(usize, Asking<'n>)>,
    /// Nodes that were not asked, because the queue was full.
    pub(super) refused: Vec<u16>,
}

/// A request that waits for its answers. Dropping it forgets the request.
pub(super) struct Asking<'n> {
    net: &'n Net,
    pub(super) request: RequestId,
    answered: AllAnswered,
}

impl Asking<'_> {
    /// Waits until all nodes have answered, or until `until`. Gives their answers, and the nodes that are missing.
    pub(super) async fn answers(mut self, until: Instant) -> (Answers, Vec<u16>) {
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
    pub(super) fn ask(&self, nodes: Vec<u16>, answers: Answers, joins: Option<Partition>) -> Asking<'_> {
        let (request, answered) = self.requests().begin(nodes, answers, joins);
        Asking { net: self, request, answered }
    }

    pub(super) fn is_own(&self, id: SessionId) -> bool {
        id.node() == self.me.node
    }

    pub(super) fn unreached(&self, mut nodes: Vec<u16>, engine_down: bool) -> Unreached {
        nodes.sort_unstable();
        nodes.dedup();
        if !nodes.is_empty() {
            self.metrics.unanswered.inc();
        }
        let members = self.members();
        Unreached { unreachable: nodes.into_iter().map(|node| members.name(node)).collect(), engine_down }
    }

    pub(super) fn plan(&self, to: &Target) -> Plan {
        let is_joined = self.is_joined();
        let mut plan = Plan { own: to.clone(), others: Vec::new(), silent: Vec::new(), gone: 0, engine_down: false };
        let members = self.members();
        let subject = match to {
            Target::Sessions(ids) => {
                let (own, mut others): (Vec<_>, Vec<_>) = ids.iter().partition(|id| self.is_own(**id));
                // An id that is named twice counts once, even if the two would go into different envelopes or the session is gone.
                if others.len() > 1 {
                    others.sort_unstable();
                    others.dedup();
                }
                plan.own = Target::Sessions(own);
                let mut by_node: Vec<(u16, Vec<SessionId>)> = Vec::new();
                for id in others {
                    match members.locate(id) {
                        SessionLocation::Gone if is_joined => plan.gone += 1,
                        SessionLocation::Silent(node) => plan.silent.push(node),
                        SessionLocation::At(node) if is_joined => {
                            match by_node.iter_mut().find(|(known, _)| *known == node) {
                                Some((_, ids)) => ids.push(id),
                                None => by_node.push((node, vec![id])),
                            }
                        }
                        // Without an engine this node cannot know.
                        SessionLocation::Gone | SessionLocation::At(_) => plan.engine_down = true,
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

    /// Publishes the other nodes' part, and expects receipts.
    pub(super) fn send_to(&self, plan: &Plan, commands: &[Command]) -> Sent<'_> {
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
                    // A node may have begun to listen whose beat has not arrived here yet.
                    self.enqueue(*subject, Body::Commands { request: None, commands }, None);
                    continue;
                }
                let answers = Answers::Receipts(vec![Receipt::default(); count]);
                let joins = commands.first().and_then(|command| joined_by(&command.action));
                let asking = self.ask(nodes.clone(), answers, joins);
                let request = Some(asking.request);
                if self.enqueue(*subject, Body::Commands { request, commands }, request) {
                    sent.asking.push((first, asking));
                } else {
                    sent.refused.extend(nodes);
                }
                first += count;
            }
        }
        sent
    }

    /// Like [`Self::send_to`], without receipts. True if some of it could not be sent.
    pub(super) fn send_without_answer(&self, plan: &Plan, commands: &[Command]) -> bool {
        let mut unsent = false;
        for (subject, to, _) in &plan.others {
            let commands: Vec<Command> = commands.iter().map(|command| with_target(command, to.clone())).collect();
            if !self.fit(&commands) {
                unsent = true;
                continue;
            }
            for commands in in_envelopes(commands) {
                unsent |= !self.enqueue(*subject, Body::Commands { request: None, commands }, None);
            }
        }
        unsent
    }

    /// True if the commands fit into an envelope. Otherwise it is counted and logged.
    fn fit(&self, commands: &[Command]) -> bool {
        let fit = commands.iter().all(command_fits);
        if !fit {
            self.metrics.count_dropped("too_large", 1);
            warn!("command not sent to other nodes: too large for a frame");
        }
        fit
    }

    pub(super) async fn query(
        &self,
        subject: Subject,
        nodes: Vec<u16>,
        query: &Query,
    ) -> (Vec<PartialAnswer>, Vec<u16>) {
        let asking = self.ask(nodes, Answers::Partial(Vec::new()), None);
        let request = asking.request;
        let is_sent =
            query_fits(query) && self.enqueue(subject, Body::Query { request, query: query.clone() }, Some(request));
        let now = Instant::now();
        match asking.answers(if is_sent { now + self.settings.receipt_timeout } else { now }).await {
            (Answers::Partial(found), missing) => (found, missing),
            (Answers::Receipts(_), missing) => (Vec::new(), missing),
        }
    }
}

/// Packs the commands, in their order, into as few envelopes as they fit in.
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
    use crate::proto::command::{Action, Except, Message, Name};
    use crate::proto::envelope::Sender;
    use crate::proto::run::Run;

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
