//! Which sessions this node holds.
//!
//! Sharded by id, so that sessions that come and go on different threads seldom meet. A shard's lock guards its map and
//! nothing else: whoever visits sessions does so on a copy of the handles.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::outbox::Outbox;
use crate::proto::id::SessionId;

/// Enough that two cores seldom wait for each other, few enough to walk.
const SHARDS: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Registry {
    hasher: RandomState,
    shards: [Mutex<HashMap<SessionId, Arc<Outbox>>>; SHARDS],
}

impl Registry {
    /// From now on the session can be found.
    pub fn insert(&self, outbox: Arc<Outbox>) {
        self.shard(outbox.id()).insert(outbox.id(), outbox);
    }

    /// From now on the session is gone.
    pub fn remove(&self, id: SessionId) {
        let mut shard = self.shard(id);
        shard.remove(&id);
        // A map never shrinks by itself, and a burst of sessions must not stay in memory.
        if shard.capacity() > 1024 && shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
    }

    /// The outbox of a session that is here.
    pub fn find(&self, id: SessionId) -> Option<Arc<Outbox>> {
        self.shard(id).get(&id).cloned()
    }

    /// Calls `visit` with every session, a shard at a time, without a lock held.
    pub fn for_each(&self, mut visit: impl FnMut(&Outbox)) {
        for shard in &self.shards {
            let outboxes: Vec<_> = lock(shard).values().cloned().collect();
            outboxes.iter().for_each(|outbox| visit(outbox));
        }
    }

    /// Sessions held now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// No session is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, id: SessionId) -> MutexGuard<'_, HashMap<SessionId, Arc<Outbox>>> {
        lock(&self.shards[self.hasher.hash_one(id) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<HashMap<SessionId, Arc<Outbox>>>) -> MutexGuard<'_, HashMap<SessionId, Arc<Outbox>>> {
    shard.lock().expect("nothing panics while a shard is locked")
}
