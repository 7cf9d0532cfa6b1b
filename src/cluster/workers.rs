//! Workers for jobs from other nodes.
//!
//! The jobs of one partition, of the common subject, and those that one node sends to this node alone are done by one worker, in the
//! order in which they came. A receipt that must wait until other nodes have
//! learned something waits on the side: a node that does not answer must not hold up other nodes' jobs. The queue is bounded by the
//! bytes of jobs and receipts that are not done. When it is full, new jobs are dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::net::Net;
use crate::engine::Subject;
use crate::proto::command::{Command, Query};
use crate::proto::envelope::Sender;
use crate::proto::run::RequestId;

/// A job for another node.
pub(super) struct Job {
    pub(super) from: Sender,
    pub(super) request: Option<RequestId>,
    pub(super) content: JobContent,
}

pub(super) enum JobContent {
    Commands(Vec<Command>),
    Query(Query),
}

impl Job {
    /// Roughly the memory that it takes.
    fn bytes(&self) -> usize {
        const SMALL: usize = 256;
        match &self.content {
            JobContent::Commands(commands) => commands.iter().map(|command| SMALL + command.payload_bytes()).sum(),
            JobContent::Query(_) => SMALL,
        }
    }
}

/// The workers. Each is a task, so several jobs may be done at the same time. A receipt that has to wait is sent later, and holds up no
/// other job. The tasks end when this is dropped.
pub(super) struct Workers {
    queue: JobQueue,
    tasks: JoinSet<()>,
}

#[derive(Clone)]
pub(super) struct JobQueue {
    jobs_tx: Vec<mpsc::UnboundedSender<Job>>,
    bytes: Arc<AtomicUsize>,
}

impl Workers {
    const COUNT: usize = 8;

    #[expect(
        clippy::disallowed_methods,
        reason = "`bytes` counts what is queued, and `JobQueue::put` refuses above a bound"
    )]
    pub(super) fn start(net: &Arc<Net>) -> Self {
        let bytes = Arc::<AtomicUsize>::default();
        let mut tasks = JoinSet::new();
        let start = |_| {
            let (jobs_tx, jobs_rx) = mpsc::unbounded_channel();
            tasks.spawn(work(net.clone(), jobs_rx, bytes.clone()));
            jobs_tx
        };
        let jobs_tx = (0..Self::COUNT).map(start).collect();
        Self { queue: JobQueue { jobs_tx, bytes }, tasks }
    }

    /// Where jobs are put.
    pub(super) fn queue(&self) -> JobQueue {
        self.queue.clone()
    }

    /// Waits for a worker to panic, and hands its panic on. Workers do not end otherwise.
    pub(super) async fn panicked(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

async fn work(net: Arc<Net>, mut jobs_rx: mpsc::UnboundedReceiver<Job>, bytes: Arc<AtomicUsize>) {
    let net = &*net;
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

impl JobQueue {
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
        // The receiving end lives as long as the link.
        let _ = self.jobs_tx[worker % self.jobs_tx.len()].send(job);
    }
}
