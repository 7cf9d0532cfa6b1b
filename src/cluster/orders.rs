//! The bounded queue of envelopes on their way to the engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::Subject;
use crate::locks::lock;
use crate::proto::envelope::{Body, Envelope, Sender};

/// What an envelope takes beside its payload.
const ORDER_BYTES: usize = 64;

/// An envelope that waits for its turn.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    /// The request in it, so that it can be given up when nobody gets it.
    pub(super) request: Option<u64>,
}

/// The end that takes envelopes.
#[derive(Debug)]
pub(super) struct Orders {
    from: Sender,
    max_bytes: usize,
    bytes: Arc<AtomicUsize>,
    /// What was published last on each subject. Locked while an envelope is queued: numbers follow the order of the queue.
    numbered: Mutex<(HashMap<Subject, u64>, mpsc::UnboundedSender<Order>)>,
}

/// The end that gives them out.
#[derive(Debug)]
pub(super) struct OrdersReader {
    orders_rx: mpsc::UnboundedReceiver<Order>,
    bytes: Arc<AtomicUsize>,
}

/// A queue for at most so many bytes; what does not fit is refused.
pub(super) fn orders(from: Sender, max_bytes: usize) -> (Orders, OrdersReader) {
    let (orders_tx, orders_rx) = mpsc::unbounded_channel();
    let bytes = Arc::<AtomicUsize>::default();
    let numbered = Mutex::new((HashMap::new(), orders_tx));
    (Orders { from, max_bytes, bytes: bytes.clone(), numbered }, OrdersReader { orders_rx, bytes })
}

impl Orders {
    /// False: there is no room for it.
    pub(super) fn put(&self, subject: Subject, body: Body, request: Option<u64>) -> bool {
        let mut numbered = lock(&self.numbered);
        let (numbers, orders_tx) = &mut *numbered;
        let number = numbers.get(&subject).map_or(1, |last| last + 1);
        let payload = Envelope { from: self.from, number, body }.encode();
        let bytes = ORDER_BYTES + payload.len();
        let before = self.bytes.load(Ordering::Relaxed);
        if before > 0 && before + bytes > self.max_bytes {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        numbers.insert(subject, number);
        orders_tx.send(Order { subject, payload, request }).is_ok()
    }
}

impl OrdersReader {
    /// Waits for an envelope, and takes up to `limit` of those that are there.
    pub(super) async fn next_batch(&mut self, batch: &mut Vec<Order>, limit: usize) -> usize {
        let count = self.orders_rx.recv_many(batch, limit).await;
        self.took(&batch[batch.len() - count..]);
        count
    }

    /// Throws away what is there; how many.
    pub(super) fn clear(&mut self) -> u64 {
        let mut count = 0;
        while let Ok(order) = self.orders_rx.try_recv() {
            self.took(&[order]);
            count += 1;
        }
        count
    }

    fn took(&self, orders: &[Order]) {
        let bytes: usize = orders.iter().map(|order| ORDER_BYTES + order.payload.len()).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_follow_the_queue_on_each_subject_and_what_is_refused_has_none() {
        let me = Sender { node: 1, run: 2 };
        let one = ORDER_BYTES + Envelope { from: me, number: 1, body: Body::Bye }.encode().len();
        let (orders, mut reader) = orders(me, 3 * one);
        let put = |subject| orders.put(subject, Body::Bye, None);
        assert!(put(Subject::All) && put(Subject::Node(2)) && put(Subject::All));
        assert!(!put(Subject::All), "a fourth is beyond the bound");
        let mut batch = Vec::new();
        assert_eq!(reader.next_batch(&mut batch, 10).await, 3);
        assert!(put(Subject::All), "there is room again");
        reader.next_batch(&mut batch, 10).await;
        let numbers = batch.iter().map(|order| {
            let envelope = Envelope::decode(order.payload.clone()).unwrap();
            (order.subject, envelope.number)
        });
        let expected = [(Subject::All, 1), (Subject::Node(2), 1), (Subject::All, 2), (Subject::All, 3)];
        assert_eq!(numbers.collect::<Vec<_>>(), expected);
        assert!(put(Subject::Node(2)));
        assert_eq!(reader.clear(), 1);
    }

    #[tokio::test]
    async fn one_that_is_larger_than_the_bound_passes_through_an_empty_queue() {
        let (orders, mut reader) = orders(Sender { node: 1, run: 2 }, 1);
        assert!(orders.put(Subject::All, Body::Bye, Some(7)));
        assert!(!orders.put(Subject::All, Body::Bye, None));
        let mut batch = Vec::new();
        reader.next_batch(&mut batch, 1).await;
        assert_eq!(batch[0].request, Some(7));
    }
}
