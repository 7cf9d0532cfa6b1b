//! The sessions of this node, with their profiles.
//!
//! It is sharded by id, so that sessions that come and go on different threads seldom wait for each other. A shard's
//! lock guards only its map: visits to sessions work on a copy of the handles.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use super::profile::Profile;
use crate::locks::lock;
use crate::outbox::Outbox;
use crate::proto::id::SessionId;

#[derive(Default)]
pub(super) struct Registry {
    shards: [Mutex<Shard>; Registry::SHARDS],
}

type Shard = HashMap<SessionId, Entry, BuildHasherDefault<IdHasher>>;

/// One session.
pub(super) struct Entry {
    pub(super) outbox: Arc<Outbox>,
    /// Its profile. `None` until a command sets something.
    pub(super) profile: Option<Box<Profile>>,
}

impl Registry {
    /// The number of shards: enough that two cores seldom wait for each other, few enough to walk through.
    pub(super) const SHARDS: usize = 16;

    /// From now on the session can be found.
    pub(super) fn insert(&self, outbox: Arc<Outbox>) {
        self.shard(outbox.id()).insert(outbox.id(), Entry { outbox, profile: None });
    }

    /// Removes the session. Returns its entry.
    pub(super) fn remove(&self, id: SessionId) -> Option<Entry> {
        let mut shard = self.shard(id);
        let entry = shard.remove(&id)?;
        // A map never shrinks by itself, so a burst of sessions would keep its memory.
        if shard.capacity() > 1024 && shard.len() * 4 < shard.capacity() {
            shard.shrink_to_fit();
        }
        Some(entry)
    }

    /// The outbox of a session, if it is on this node.
    pub(super) fn find(&self, id: SessionId) -> Option<Arc<Outbox>> {
        self.with(id, |entry| entry.outbox.clone())
    }

    /// Reads or changes a session, if it is on this node, with its shard locked.
    pub(super) fn with<R>(&self, id: SessionId, look: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.shard(id).get_mut(&id).map(look)
    }

    /// The sessions of one shard.
    pub(super) fn of_shard(&self, shard: usize) -> Vec<Arc<Outbox>> {
        lock(&self.shards[shard]).values().map(|entry| entry.outbox.clone()).collect()
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.shards.iter().flat_map(|shard| lock(shard).keys().copied().collect::<Vec<_>>()).collect()
    }

    /// Sessions held now.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, id: SessionId) -> MutexGuard<'_, Shard> {
        // These are not the bits that place the id within the shard.
        lock(&self.shards[IdHasher::of(id) as usize >> 32 & (Self::SHARDS - 1)])
    }
}

/// Hashes ids. They cannot be guessed, so no client can choose ids that collide, and a multiplication spreads their
/// bits well enough.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl IdHasher {
    fn of(id: SessionId) -> u64 {
        let mut hasher = Self::default();
        std::hash::Hash::hash(&id, &mut hasher);
        hasher.finish()
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The last eleven of the 16 characters are the secret random part.
        if let Some(last) = bytes.last_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*last);
        }
    }

    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        let product = u128::from(self.0) * 0x9e37_79b9_7f4a_7c15_u128;
        (product >> 64) as u64 ^ product as u64
    }
}
