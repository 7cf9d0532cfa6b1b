//! The bounded queue of envelopes on their way to the engine.
//!
//! The queue is open while there is a link, and refuses envelopes otherwise. A refused envelope must not go out over the next link:
//! its receipt has long said that there was no engine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::Subject;
use crate::locks::lock;
use crate::proto::envelope::{Body, Envelope, Sender};
use crate::proto::run::RequestId;

/// Memory that a queued envelope takes in addition to its payload.
const ENVELOPE_OVERHEAD_BYTES: usize = 64;

/// An envelope that waits for its turn.
#[derive(Debug)]
pub(super) struct QueuedEnvelope {
    pub(super) subject: Subject,
    pub(super) payload: Bytes,
    /// The request in it, to be given up if no node receives the envelope.
    pub(super) request: Option<RequestId>,
}

/// The end that envelopes are put into.
#[derive(Debug)]
pub(super) struct EnvelopeQueue {
    from: Sender,
    max_bytes: usize,
    bytes: Arc<AtomicUsize>,
    /// Locked while an envelope is queued: numbers follow the order of the queue.
    numbered: Arc<Mutex<Numbered>>,
}

#[derive(Debug)]
struct Numbered {
    /// The number of the last envelope on each subject.
    numbers: HashMap<Subject, u64>,
    envelopes_tx: mpsc::UnboundedSender<QueuedEnvelope>,
    is_open: bool,
}

/// The end that envelopes are taken from.
#[derive(Debug)]
pub(super) struct EnvelopeQueueReader {
    envelopes_rx: mpsc::UnboundedReceiver<QueuedEnvelope>,
    bytes: Arc<AtomicUsize>,
    numbered: Arc<Mutex<Numbered>>,
}

/// The reason why an envelope was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unqueued {
    /// There is no link.
    Closed,
    /// The queue is full.
    Full,
}

/// Makes a queue for at most `max_bytes`, closed at first. Envelopes that do not fit are refused.
#[expect(
    clippy::disallowed_methods,
    reason = "`bytes` counts what is queued; `EnvelopeQueue` refuses above `max_bytes`"
)]
pub(super) fn envelope_queue(from: Sender, max_bytes: usize) -> (EnvelopeQueue, EnvelopeQueueReader) {
    let (envelopes_tx, envelopes_rx) = mpsc::unbounded_channel();
    let bytes = Arc::<AtomicUsize>::default();
    let numbered = Arc::new(Mutex::new(Numbered { numbers: HashMap::new(), envelopes_tx, is_open: false }));
    let reader = EnvelopeQueueReader { envelopes_rx, bytes: bytes.clone(), numbered: numbered.clone() };
    (EnvelopeQueue { from, max_bytes, bytes, numbered }, reader)
}

impl EnvelopeQueue {
    /// Queues an envelope, or returns why not.
    pub(super) fn put(&self, subject: Subject, body: Body, request: Option<RequestId>) -> Result<(), Unqueued> {
        let mut numbered = lock(&self.numbered);
        let Numbered { numbers, envelopes_tx, is_open } = &mut *numbered;
        if !*is_open {
            return Err(Unqueued::Closed);
        }
        let number = numbers.get(&subject).map_or(1, |last| last + 1);
        let payload = Envelope { from: self.from, number, body }.encode();
        let bytes = ENVELOPE_OVERHEAD_BYTES + payload.len();
        let before = self.bytes.load(Ordering::Relaxed);
        if before > 0 && before + bytes > self.max_bytes {
            return Err(Unqueued::Full);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        numbers.insert(subject, number);
        envelopes_tx.send(QueuedEnvelope { subject, payload, request }).map_err(|_| Unqueued::Closed)
    }
}

impl EnvelopeQueueReader {
    /// Waits for an envelope, then takes up to `limit` of the queued ones.
    pub(super) async fn next_batch(&mut self, batch: &mut Vec<QueuedEnvelope>, limit: usize) -> usize {
        let count = self.envelopes_rx.recv_many(batch, limit).await;
        self.took(&batch[batch.len() - count..]);
        count
    }

    /// Opens the queue: there is a link.
    pub(super) fn open(&self) {
        lock(&self.numbered).is_open = true;
    }

    /// Closes the queue: the link is lost. Drops the queued envelopes and returns how many there were.
    pub(super) fn close(&mut self) -> u64 {
        lock(&self.numbered).is_open = false;
        let mut count = 0;
        while let Ok(envelope) = self.envelopes_rx.try_recv() {
            self.took(&[envelope]);
            count += 1;
        }
        count
    }

    fn took(&self, envelopes: &[QueuedEnvelope]) {
        let bytes: usize = envelopes.iter().map(|envelope| ENVELOPE_OVERHEAD_BYTES + envelope.payload.len()).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::run::Run;

    const ME: Sender = Sender { node: 1, run: Run::of(2) };

    #[tokio::test]
    async fn numbers_follow_the_queue_on_each_subject_and_what_is_refused_has_none() {
        let one = ENVELOPE_OVERHEAD_BYTES + Envelope { from: ME, number: 1, body: Body::Bye }.encode().len();
        let (queue, mut reader) = envelope_queue(ME, 3 * one);
        reader.open();
        let put = |subject| queue.put(subject, Body::Bye, None);
        for subject in [Subject::All, Subject::Node(2), Subject::All] {
            assert_eq!(put(subject), Ok(()));
        }
        assert_eq!(put(Subject::All), Err(Unqueued::Full), "a fourth is beyond the bound");
        let mut batch = Vec::new();
        assert_eq!(reader.next_batch(&mut batch, 10).await, 3);
        assert_eq!(put(Subject::All), Ok(()), "there is room again");
        reader.next_batch(&mut batch, 10).await;
        let numbers = batch.iter().map(|queued| {
            let envelope = Envelope::decode(queued.payload.clone()).unwrap();
            (queued.subject, envelope.number)
        });
        let expected = [(Subject::All, 1), (Subject::Node(2), 1), (Subject::All, 2), (Subject::All, 3)];
        assert_eq!(numbers.collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn nothing_is_queued_without_a_link_and_nothing_of_one_link_goes_out_over_the_next() {
        let (queue, mut reader) = envelope_queue(ME, 1 << 20);
        let put = || queue.put(Subject::All, Body::Bye, None);
        assert_eq!(put(), Err(Unqueued::Closed));
        reader.open();
        assert_eq!(put(), Ok(()));
        assert_eq!(reader.close(), 1);
        assert_eq!(put(), Err(Unqueued::Closed), "a caller that looked before the link was lost is late");
        reader.open();
        assert_eq!(reader.close(), 0);
    }

    #[tokio::test]
    async fn one_that_is_larger_than_the_bound_passes_through_an_empty_queue() {
        let (queue, mut reader) = envelope_queue(ME, 1);
        reader.open();
        let request = RequestId::new(ME.run, 7);
        assert_eq!(queue.put(Subject::All, Body::Bye, request), Ok(()));
        assert_eq!(queue.put(Subject::All, Body::Bye, None), Err(Unqueued::Full));
        let mut batch = Vec::new();
        reader.next_batch(&mut batch, 1).await;
        assert_eq!(batch[0].request, request);
    }
}
