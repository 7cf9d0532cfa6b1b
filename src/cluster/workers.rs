//! Workers for jobs from other nodes.
//!
//! What comes on one subject is done by one worker, in the order in which it came. A receipt that has to wait until other nodes have heard
//! something waits aside: what one node does not answer must not keep this one from doing what others want. Bounded by the bytes of what
//! is still to be done or said; what finds no room is dropped and counted.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::net::Net;
use crate::engine::Subject;
use crate::proto::command::{Command, Query};
use crate::proto::envelope::Sender;
use crate::proto::run::RequestId;

/// Something to be done for another node.
pub(super) struct Job {
    pub(super) from: Sender,
    pub(super) request: Option<RequestId>,
    pub(super) what: What,
}

pub(super) enum What {
    Commands(Vec<Command>),
    Query(Query),
}

impl Job {
    /// About what it holds in memory.
    fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match &self.what {
            What::Commands(commands) => commands.iter().map(|command| SMALL + command.payload_bytes()).sum(),
            What::Query(_) => SMALL,
        }
    }
}

/// Workers for jobs from other nodes; one per subject, in order. A receipt that has to wait is sent later, and holds up nothing behind it.
pub(super) struct Workers<'n> {
    net: &'n Net,
    pub(super) queue: Queue,
    jobs_rx: Vec<mpsc::UnboundedReceiver<Job>>,
}

pub(super) struct Queue {
    jobs_tx: Vec<mpsc::UnboundedSender<Job>>,
    bytes: Arc<AtomicUsize>,
}

impl<'n> Workers<'n> {
    const COUNT: usize = 8;

    pub(super) fn new(net: &'n Net) -> Self {
        let (jobs_tx, jobs_rx) = (0..Self::COUNT).map(|_| mpsc::unbounded_channel()).unzip();
        Self { net, queue: Queue { jobs_tx, bytes: Arc::default() }, jobs_rx }
    }

    /// Does what is queued, for ever.
    pub(super) fn work(&mut self) -> impl Future<Output = ()> + use<'n> {
        let (net, bytes) = (self.net, self.queue.bytes.clone());
        let workers: Vec<_> = self
            .jobs_rx
            .drain(..)
            .map(|mut jobs_rx| {
                let bytes = bytes.clone();
                async move {
                    // As many as the queue has room for: what a job takes is given back when its receipt is out.
                    let mut waiting = FuturesUnordered::new();
                    loop {
                        tokio::select! {
                            job = jobs_rx.recv() => {
                                let Some(job) = job else { return };
                                let took = job.bytes();
                                match net.work(job).await {
                                    None => drop(bytes.fetch_sub(took, Ordering::Relaxed)),
                                    Some(receipt) => waiting.push(async move {
                                        receipt.await;
                                        took
                                    }),
                                }
                            }
                            Some(took) = waiting.next() => drop(bytes.fetch_sub(took, Ordering::Relaxed)),
                        }
                    }
                }
            })
            .collect();
        async move {
            futures_util::future::join_all(workers).await;
        }
    }
}

impl Queue {
    pub(super) fn put(&self, net: &Net, subject: Subject, job: Job) {
        let bytes = job.bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > net.settings.queue_bytes {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            net.metrics.count_dropped("workers_full", 1);
            return;
        }
        let worker = match subject {
            Subject::All => 0,
            Subject::Node(_) => usize::from(job.from.node),
            Subject::Partition(partition) => usize::from(partition.number()),
        };
        // Its other end lives as long as the link.
        let _ = self.jobs_tx[worker % self.jobs_tx.len()].send(job);
    }
}
