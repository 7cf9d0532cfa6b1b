//! What was asked of other nodes and has not been answered by all of them. An answer to another run of this node finds no question here.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::proto::command::Receipt;
use crate::proto::envelope::Found;
use crate::proto::partition::Partition;
use crate::proto::run::{RequestId, RequestIds, Run};

/// What is ready when all have answered.
pub(super) type AllAnswered = oneshot::Receiver<()>;

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    ids: RequestIds,
    waiting: HashMap<RequestId, Request>,
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
    /// Of this run.
    pub(super) fn new(run: Run) -> Self {
        Self { ids: RequestIds::new(run), waiting: HashMap::new() }
    }

    /// A new request to these nodes, and what is ready when all have answered. Whoever does what it asks for listens to `joins`
    /// from then on.
    pub(super) fn begin(
        &mut self,
        nodes: Vec<u16>,
        answers: Answers,
        joins: Option<Partition>,
    ) -> (RequestId, AllAnswered) {
        let id = self.ids.next_id();
        let (done, all_answered) = oneshot::channel();
        let request = Request { missing: nodes, answered: Vec::new(), answers, joins, done: Some(done) };
        self.waiting.insert(id, request);
        (id, all_answered)
    }

    /// The partition that a node listens to when it has done this.
    pub(super) fn joins(&self, id: RequestId) -> Option<Partition> {
        self.waiting.get(&id)?.joins
    }

    /// A node has answered with receipts.
    pub(super) fn receipts(&mut self, node: u16, id: RequestId, receipts: &[Receipt]) {
        self.answered(node, id, |answers| match answers {
            Answers::Receipts(sums) if sums.len() == receipts.len() => {
                sums.iter_mut().zip(receipts).for_each(|(sum, receipt)| *sum = sum.plus(receipt));
                true
            }
            _ => false,
        });
    }

    /// A node has answered with what it knows.
    pub(super) fn found(&mut self, node: u16, id: RequestId, found: Found) {
        self.answered(node, id, |answers| match answers {
            Answers::Found(all) => {
                all.push(found);
                true
            }
            Answers::Receipts(_) => false,
        });
    }

    fn answered(&mut self, node: u16, id: RequestId, take: impl FnOnce(&mut Answers) -> bool) {
        let Some(request) = self.waiting.get_mut(&id) else { return };
        // Nothing is added up twice. A node that nobody waited for counts too: it began to listen a moment ago.
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
    pub(super) fn nobody_at(&mut self, id: RequestId) {
        if let Some(request) = self.waiting.get_mut(&id) {
            request.finish();
        }
    }

    /// Nobody answers any more.
    pub(super) fn give_up_all(&mut self) {
        self.waiting.values_mut().for_each(Request::finish);
    }

    /// Nobody wants to know any more.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    /// What has come, and who is missing.
    pub(super) fn end(&mut self, id: RequestId) -> (Answers, Vec<u16>) {
        let request = self.waiting.remove(&id).expect("each is ended once, where it was begun");
        (request.answers, request.missing)
    }
}

impl Request {
    fn finish(&mut self) {
        if let Some(done) = self.done.take() {
            // The waiting side may have given up.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(count: u32) -> Receipt {
        Receipt { reached: count, ..Receipt::default() }
    }

    fn sums(answers: Answers) -> Vec<Receipt> {
        match answers {
            Answers::Receipts(sums) => sums,
            Answers::Found(found) => panic!("receipts were asked for: {found:?}"),
        }
    }

    #[test]
    fn receipts_add_up_once_for_each_node_and_who_is_missing_is_named() {
        let mut requests = Requests::new(Run::of(1));
        let (number, mut all) = requests.begin(vec![2, 3], Answers::Receipts(vec![reached(0); 2]), None);
        requests.receipts(2, number, &[reached(1), reached(10)]);
        requests.receipts(2, number, &[reached(1), reached(10)]);
        requests.receipts(3, number, &[reached(5)]);
        requests.found(3, number, Found::Absent);
        let another = RequestId::new(Run::of(1), number.number() + 1).unwrap();
        requests.receipts(3, another, &[reached(7), reached(7)]);
        // An earlier run of this node has asked under the same number.
        let earlier = RequestId::new(Run::of(2), number.number()).unwrap();
        requests.receipts(3, earlier, &[reached(7), reached(7)]);
        assert!(all.try_recv().is_err(), "what 3 has said is no answer to this");
        // Nobody waited for it: it has begun to listen a moment ago.
        requests.receipts(4, number, &[reached(100), reached(0)]);
        let (answers, missing) = requests.end(number);
        assert_eq!((sums(answers), missing), (vec![reached(101), reached(10)], vec![3]));
    }

    #[test]
    fn it_is_ready_when_all_have_answered_or_nobody_will() {
        for end in ["answered", "nobody there", "given up"] {
            let mut requests = Requests::new(Run::of(1));
            let (number, mut all) = requests.begin(vec![2], Answers::Found(Vec::new()), None);
            match end {
                "answered" => requests.found(2, number, Found::Absent),
                "nobody there" => requests.nobody_at(number),
                _ => requests.give_up_all(),
            }
            assert!(all.try_recv().is_ok(), "{end}");
            let (_, missing) = requests.end(number);
            assert_eq!(missing.is_empty(), end == "answered", "{end}");
        }
    }
}
