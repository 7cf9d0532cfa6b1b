//! What was asked of other nodes and has not been answered by all of them.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::proto::command::Receipt;
use crate::proto::envelope::Found;
use crate::proto::partition::Partition;

/// What is ready when all have answered.
pub(super) type AllAnswered = oneshot::Receiver<()>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    waiting: HashMap<u64, Request>,
}

/// One question to several nodes.
#[derive(Debug)]
struct Request {
    /// Who has not answered.
    missing: Vec<u16>,
    /// Who has.
    answered: Vec<u16>,
    answers: Answers,
    joins: Option<Partition>,
    done: Option<oneshot::Sender<()>>,
}

/// What has come together.
#[derive(Debug)]
pub(super) enum Answers {
    /// Receipts, added up, one for each command.
    Receipts(Vec<Receipt>),
    /// What each node knows.
    Found(Vec<Found>),
}

impl Requests {
    /// A new request to these nodes, and what is ready when all have answered. Whoever does what it asks for listens to `joins`
    /// from then on.
    pub(super) fn begin(&mut self, nodes: Vec<u16>, answers: Answers, joins: Option<Partition>) -> (u64, AllAnswered) {
        self.last += 1;
        let (done, all_answered) = oneshot::channel();
        let request = Request { missing: nodes, answered: Vec::new(), answers, joins, done: Some(done) };
        self.waiting.insert(self.last, request);
        (self.last, all_answered)
    }

    /// The partition that a node listens to when it has done this.
    pub(super) fn joins(&self, number: u64) -> Option<Partition> {
        self.waiting.get(&number)?.joins
    }

    /// A node has answered with receipts.
    pub(super) fn receipts(&mut self, node: u16, number: u64, receipts: &[Receipt]) {
        self.answered(node, number, |answers| match answers {
            Answers::Receipts(sums) if sums.len() == receipts.len() => {
                sums.iter_mut().zip(receipts).for_each(|(sum, receipt)| *sum = sum.plus(receipt));
                true
            }
            _ => false,
        });
    }

    /// A node has answered with what it knows.
    pub(super) fn found(&mut self, node: u16, number: u64, found: Found) {
        self.answered(node, number, |answers| match answers {
            Answers::Found(all) => {
                all.push(found);
                true
            }
            Answers::Receipts(_) => false,
        });
    }

    fn answered(&mut self, node: u16, number: u64, take: impl FnOnce(&mut Answers) -> bool) {
        let Some(request) = self.waiting.get_mut(&number) else { return };
        // Nothing is added up twice. Whoever was not waited for counts too: it has begun to listen a moment ago.
        if request.answered.contains(&node) || !take(&mut request.answers) {
            return;
        }
        request.answered.push(node);
        request.missing.retain(|missing| *missing != node);
        if request.missing.is_empty() {
            request.finish();
        }
    }

    /// Nobody got it, so nobody answers any more.
    pub(super) fn nobody_at(&mut self, number: u64) {
        if let Some(request) = self.waiting.get_mut(&number) {
            request.finish();
        }
    }

    /// Nobody answers any more.
    pub(super) fn give_up_all(&mut self) {
        self.waiting.values_mut().for_each(Request::finish);
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// What has come, and who is missing.
    pub(super) fn end(&mut self, number: u64) -> (Answers, Vec<u16>) {
        let request = self.waiting.remove(&number).expect("each is ended once, by whoever began it");
        (request.answers, request.missing)
    }
}

impl Request {
    fn finish(&mut self) {
        if let Some(done) = self.done.take() {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}
