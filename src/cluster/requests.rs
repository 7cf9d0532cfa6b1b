//! Requests to other nodes that not all of them have answered yet. An answer to another run of this node finds no request here.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::proto::command::Receipt;
use crate::proto::envelope::PartialAnswer;
use crate::proto::partition::Partition;
use crate::proto::run::{RequestId, RequestIds, Run};

/// Ready when all nodes have answered, or will not answer any more.
pub(super) type AllAnswered = oneshot::Receiver<()>;

#[derive(Debug)]
pub(super) struct Requests {
    ids: RequestIds,
    waiting: HashMap<RequestId, PendingRequest>,
}

/// One request to several nodes.
#[derive(Debug)]
struct PendingRequest {
    /// Nodes that have not answered.
    missing: Vec<u16>,
    /// Nodes that have answered.
    answered: Vec<u16>,
    answers: Answers,
    joins: Option<Partition>,
    done: Option<oneshot::Sender<()>>,
}

/// The answers so far.
#[derive(Debug)]
pub(super) enum Answers {
    /// Receipts, added up, one for each command.
    Receipts(Vec<Receipt>),
    /// The query result of each node.
    Partial(Vec<PartialAnswer>),
}

impl Requests {
    /// Makes it for this run.
    pub(super) fn new(run: Run) -> Self {
        Self { ids: RequestIds::new(run), waiting: HashMap::new() }
    }

    /// Starts a request to these nodes. The receiver is ready when all have answered. A node that does what the request asks for
    /// listens to `joins` from then on.
    pub(super) fn begin(
        &mut self,
        nodes: Vec<u16>,
        answers: Answers,
        joins: Option<Partition>,
    ) -> (RequestId, AllAnswered) {
        let id = self.ids.next_id();
        let (done, all_answered) = oneshot::channel();
        let request = PendingRequest { missing: nodes, answered: Vec::new(), answers, joins, done: Some(done) };
        self.waiting.insert(id, request);
        (id, all_answered)
    }

    /// The partition that a node listens to after it has done this request.
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

    /// A node has answered with its query result.
    pub(super) fn found(&mut self, node: u16, id: RequestId, found: PartialAnswer) {
        self.answered(node, id, |answers| match answers {
            Answers::Partial(all) => {
                all.push(found);
                true
            }
            Answers::Receipts(_) => false,
        });
    }

    fn answered(&mut self, node: u16, id: RequestId, take: impl FnOnce(&mut Answers) -> bool) {
        let Some(request) = self.waiting.get_mut(&id) else { return };
        // An answer is never added up twice. An answer of a node that we did not wait for counts too: it began to listen a moment
        // ago.
        if request.answered.contains(&node) || !take(&mut request.answers) {
            return;
        }
        request.answered.push(node);
        request.missing.retain(|missing| *missing != node);
        if request.missing.is_empty() {
            request.finish();
        }
    }

    /// No node received the request, so no answer will come.
    pub(super) fn nobody_at(&mut self, id: RequestId) {
        if let Some(request) = self.waiting.get_mut(&id) {
            request.finish();
        }
    }

    /// The link is lost, so no answers will come any more.
    pub(super) fn give_up_all(&mut self) {
        self.waiting.values_mut().for_each(PendingRequest::finish);
    }

    /// The caller no longer waits.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    /// Ends a request. Returns the answers and the nodes that did not answer.
    pub(super) fn end(&mut self, id: RequestId) -> (Answers, Vec<u16>) {
        let request = self.waiting.remove(&id).expect("each is ended once, where it was begun");
        (request.answers, request.missing)
    }
}

impl PendingRequest {
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
            Answers::Partial(found) => panic!("receipts were asked for: {found:?}"),
        }
    }

    #[test]
    fn receipts_add_up_once_for_each_node_and_who_is_missing_is_named() {
        let mut requests = Requests::new(Run::of(1));
        let (number, mut all) = requests.begin(vec![2, 3], Answers::Receipts(vec![reached(0); 2]), None);
        requests.receipts(2, number, &[reached(1), reached(10)]);
        requests.receipts(2, number, &[reached(1), reached(10)]);
        requests.receipts(3, number, &[reached(5)]);
        requests.found(3, number, PartialAnswer::Absent);
        let another = RequestId::new(Run::of(1), number.number() + 1).unwrap();
        requests.receipts(3, another, &[reached(7), reached(7)]);
        // An earlier run of this node used the same number.
        let earlier = RequestId::new(Run::of(2), number.number()).unwrap();
        requests.receipts(3, earlier, &[reached(7), reached(7)]);
        assert!(all.try_recv().is_err(), "what 3 has said is no answer to this");
        // Not waited for: node 4 began to listen a moment ago.
        requests.receipts(4, number, &[reached(100), reached(0)]);
        let (answers, missing) = requests.end(number);
        assert_eq!((sums(answers), missing), (vec![reached(101), reached(10)], vec![3]));
    }

    #[test]
    fn it_is_ready_when_all_have_answered_or_nobody_will() {
        for end in ["answered", "nobody there", "given up"] {
            let mut requests = Requests::new(Run::of(1));
            let (number, mut all) = requests.begin(vec![2], Answers::Partial(Vec::new()), None);
            match end {
                "answered" => requests.found(2, number, PartialAnswer::Absent),
                "nobody there" => requests.nobody_at(number),
                _ => requests.give_up_all(),
            }
            assert!(all.try_recv().is_ok(), "{end}");
            let (_, missing) = requests.end(number);
            assert_eq!(missing.is_empty(), end == "answered", "{end}");
        }
    }
}
