//! The partitions in which this node has members. The node listens to their subjects in the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::proto::envelope::Interest;
use crate::proto::partition::Partition;

/// The number of groups in each partition. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct LocalInterest(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    groups: Box<[AtomicU32]>,
    changed: Notify,
}

impl Default for LocalInterest {
    fn default() -> Self {
        let groups = (0..Partition::COUNT).map(|_| AtomicU32::new(0)).collect();
        Self(Arc::new(Counts { groups, changed: Notify::new() }))
    }
}

impl LocalInterest {
    /// A group has its first member.
    pub(super) fn add(&self, partition: Partition) {
        if self.count(partition).fetch_add(1, Ordering::AcqRel) == 0 {
            self.0.changed.notify_one();
        }
    }

    /// A group has lost its last member.
    pub(super) fn remove(&self, partition: Partition) {
        self.count(partition).fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the partition has a member here.
    pub fn has(&self, partition: Partition) -> bool {
        self.count(partition).load(Ordering::Acquire) > 0
    }

    /// All partitions that have a member here.
    pub fn all(&self) -> Interest {
        let mut interest = Interest::default();
        for partition in Partition::all().filter(|partition| self.has(*partition)) {
            interest.set(partition, true);
        }
        interest
    }

    /// Counts a session that is about to join, as if it were a group with a member, for as long as the result is kept.
    pub fn expect(&self, partition: Partition) -> Expected {
        self.add(partition);
        Expected { interest: self.clone(), partition }
    }

    /// Waits until a partition gets its first member. Returns at once if that has happened since the last call.
    pub async fn grown(&self) {
        self.0.changed.notified().await;
    }

    fn count(&self, partition: Partition) -> &AtomicU32 {
        &self.0.groups[usize::from(partition.number())]
    }
}

/// See [`LocalInterest::expect`].
#[derive(Debug)]
pub struct Expected {
    interest: LocalInterest,
    partition: Partition,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.interest.remove(self.partition);
    }
}
