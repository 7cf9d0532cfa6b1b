//! The members of channels, or of uids: sessions under names.
//!
//! A group exists as long as it has a member. Groups are sharded by name, as the registry is by id. A lock guards only
//! its shard's map.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};

use prometheus_client::metrics::gauge::Gauge;

use super::interest::LocalInterest;
use super::registry::IdHasher;
use crate::locks::lock;
use crate::outbox::Outbox;
use crate::proto::command::Name;
use crate::proto::id::SessionId;
use crate::proto::partition::Partition;

const SHARDS: usize = 16;

pub(super) struct Groups {
    hasher: RandomState,
    shards: [Mutex<HashMap<Name, Group>>; SHARDS],
    count: Gauge,
    interest: LocalInterest,
    partition_of: fn(&Name) -> Partition,
}

type Group = HashSet<Member, BuildHasherDefault<IdHasher>>;

/// A session, compared by its id.
struct Member(Arc<Outbox>);

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Member {}

impl std::borrow::Borrow<SessionId> for Member {
    fn borrow(&self) -> &SessionId {
        self.0.id_ref()
    }
}

impl Groups {
    /// Makes it without groups. `count` is kept at the number of groups, and `interest` at their partitions.
    pub(super) fn new(count: Gauge, interest: LocalInterest, partition_of: fn(&Name) -> Partition) -> Self {
        Self { hasher: RandomState::new(), shards: Default::default(), count, interest, partition_of }
    }

    /// Makes the session a member. Returns the group's own copy of the name, so that all members share it.
    pub(super) fn insert(&self, name: &Name, outbox: Arc<Outbox>) -> Name {
        let mut shard = self.shard(name);
        if let Some((name, _)) = shard.get_key_value(name) {
            let name = name.clone();
            shard.get_mut(&name).expect("just found").insert(Member(outbox));
            return name;
        }
        self.count.inc();
        self.interest.add((self.partition_of)(name));
        shard.insert(name.clone(), Group::from_iter([Member(outbox)]));
        name.clone()
    }

    /// Removes the session. A group without members is removed too.
    pub(super) fn remove(&self, name: &Name, id: SessionId) {
        let mut shard = self.shard(name);
        let Some(group) = shard.get_mut(name) else { return };
        group.remove(&id);
        if group.is_empty() {
            shard.remove(name);
            self.count.dec();
            self.interest.remove((self.partition_of)(name));
            if shard.capacity() > 1024 && shard.len() * 4 < shard.capacity() {
                shard.shrink_to_fit();
            }
        } else if group.capacity() > 64 && group.len() * 4 < group.capacity() {
            group.shrink_to_fit();
        }
    }

    pub(super) fn members(&self, name: &Name) -> Vec<Arc<Outbox>> {
        self.shard(name)
            .get(name)
            .map(|group| group.iter().map(|member| member.0.clone()).collect())
            .unwrap_or_default()
    }

    /// The ids of the members now.
    pub(super) fn ids(&self, name: &Name) -> Vec<SessionId> {
        self.shard(name).get(name).map(|group| group.iter().map(|member| member.0.id()).collect()).unwrap_or_default()
    }

    /// How many members a group has.
    pub(super) fn count(&self, name: &Name) -> usize {
        self.shard(name).get(name).map_or(0, HashSet::len)
    }

    /// The number of groups.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// All groups with the number of their members.
    pub(super) fn all(&self) -> Vec<(Name, usize)> {
        let of_shard = |shard: &Mutex<HashMap<Name, Group>>| {
            lock(shard).iter().map(|(name, group)| (name.clone(), group.len())).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    fn shard(&self, name: &Name) -> MutexGuard<'_, HashMap<Name, Group>> {
        lock(&self.shards[self.hasher.hash_one(name) as usize % SHARDS])
    }
}
