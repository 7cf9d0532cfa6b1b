//! The masters of a Redis Cluster: a connection to each, and which of them has a subject.
//!
//! redis-rs has a client for clusters, but it reconnects and resubscribes by itself, and repeats a message that it sent to the
//! wrong server. A [link](crate::engine::Link) must not do that: its caller could not tell which messages were lost meanwhile. So
//! this uses plain connections, and any failure of one ends them all. Failures are: it closes, it does not answer, a server says
//! that a slot belongs to another one (`MOVED`), or a server ends a subscription because its slot has moved.
//!
//! All masters are needed. While one is away and no replica has taken its place, there is no link. The alternative would be a link
//! that reaches some channels and not others.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use redis::{ConnectionInfo, Pipeline, Value, from_redis_value_ref};
use tokio::time::interval;
use tokio_util::task::AbortOnDropHandle;

use super::{Pushes, Redis, RedisConnection};
use crate::engine::EngineError;

const SLOTS: usize = 16_384;
/// How often each master is probed: a master may see no publish for a long time.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Shards {
    masters: Vec<RedisConnection>,
    /// For each slot, the index of its master in `masters`.
    by_slot: Box<[u16]>,
    _probing: AbortOnDropHandle<()>,
}

impl Shards {
    /// Connects to all masters that this server names.
    pub(super) async fn connect(redis: &Redis, server: &ConnectionInfo, pushes: Pushes) -> Result<Self, EngineError> {
        let mut asked = redis.dial(server, None).await.map_err(redis.of(server))?;
        let answer = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut asked.requests).await;
        let answer: Value = answer.map_err(redis.of(server))?;
        let host = server.addr().to_string();
        let host = host.rsplit_once(':').map_or("", |(host, _)| host);
        let map = SlotMap::read(&answer, host).map_err(|wrong| {
            EngineError(format!("unusable slot map of the Redis Cluster from {}: {wrong}", server.addr()))
        })?;
        let dialing = map.masters.iter().map(|(host, port)| {
            let (master, pushes) = (redis.named_by(server, host.clone(), *port), pushes.clone());
            async move { redis.dial(&master, Some(pushes)).await.map_err(redis.of(&master)) }
        });
        let masters = try_join_all(dialing).await?;
        let probing = tokio::spawn(probe(masters.clone(), pushes));
        Ok(Self { masters, by_slot: map.by_slot, _probing: AbortOnDropHandle::new(probing) })
    }

    /// Sends one command for each name, because the names in one command would have to share a slot. All are sent in a few round
    /// trips.
    pub(super) async fn say_of_each(&self, command: &str, names: Vec<String>) -> Result<(), EngineError> {
        let mut pipes = self.pipes();
        for name in names {
            pipes[self.master_of(&name)].cmd(command).arg(name);
        }
        let saying = self.masters.iter().zip(pipes).filter(|(_, pipe)| !pipe.is_empty()).map(|(master, pipe)| {
            let mut master = master.clone();
            async move { pipe.query_async::<Vec<Value>>(&mut master.requests).await }
        });
        try_join_all(saying).await?;
        Ok(())
    }

    /// Publishes messages, in this order on each master. Returns the number of receivers that each message's server counted.
    pub(super) async fn publish<'m>(
        &self,
        messages: impl Iterator<Item = (String, &'m Bytes)>,
    ) -> Result<Vec<i64>, EngineError> {
        let (mut pipes, mut places) = (self.pipes(), vec![Vec::new(); self.masters.len()]);
        let mut count = 0;
        for (name, payload) in messages {
            let master = self.master_of(&name);
            pipes[master].cmd("SPUBLISH").arg(name).arg(&payload[..]);
            places[master].push(count);
            count += 1;
        }
        let parts = self.masters.iter().zip(pipes.into_iter().zip(places)).filter(|(_, (pipe, _))| !pipe.is_empty());
        let publishing = parts.map(|(master, (pipe, places))| {
            let mut master = master.clone();
            async move {
                let counts: Vec<i64> = pipe.query_async(&mut master.requests).await?;
                Ok::<_, EngineError>(places.into_iter().zip(counts))
            }
        });
        let mut receivers = vec![0; count];
        for (place, count) in try_join_all(publishing).await?.into_iter().flatten() {
            receivers[place] = count;
        }
        Ok(receivers)
    }

    fn pipes(&self) -> Vec<Pipeline> {
        self.masters.iter().map(|_| redis::pipe()).collect()
    }

    fn master_of(&self, name: &str) -> usize {
        usize::from(self.by_slot[slot_of(name)])
    }
}

/// Notices a master that does not answer. A connection that answers still has its subscriptions, because a server says so when it
/// ends one.
async fn probe(masters: Vec<RedisConnection>, pushes: Pushes) {
    let mut rounds = interval(PROBE_INTERVAL);
    loop {
        rounds.tick().await;
        let asking = masters.iter().map(|master| {
            let mut master = master.clone();
            async move { redis::cmd("PING").query_async::<Value>(&mut master.requests).await }
        });
        if let Err(error) = try_join_all(asking).await {
            pushes.inbox.lose(error.into());
            return;
        }
    }
}

/// Which master has which slot.
#[derive(Debug, PartialEq, Eq)]
struct SlotMap {
    masters: Vec<(String, u16)>,
    by_slot: Box<[u16]>,
}

impl SlotMap {
    /// Reads an answer to `CLUSTER SLOTS`. Its entries are first slot, last slot, master, replicas; a server is host, port and
    /// more. An empty host means the host of the server that was asked.
    fn read(answer: &Value, asked: &str) -> Result<Self, String> {
        const NOBODY: u16 = u16::MAX;
        let unknown = || "unknown format".to_owned();
        let entries: Vec<Vec<Value>> = from_redis_value_ref(answer).map_err(|_| unknown())?;
        let (mut masters, mut by_slot) = (Vec::new(), vec![NOBODY; SLOTS].into_boxed_slice());
        for entry in entries {
            let [first, last, master, ..] = &entry[..] else { return Err(unknown()) };
            let (first, last) = (slot(first).ok_or_else(unknown)?, slot(last).ok_or_else(unknown)?);
            let master: Vec<Value> = from_redis_value_ref(master).map_err(|_| unknown())?;
            let [host, port, ..] = &master[..] else { return Err(unknown()) };
            let host: Option<String> = from_redis_value_ref(host).map_err(|_| unknown())?;
            let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.to_owned());
            let server = (host, from_redis_value_ref(port).map_err(|_| unknown())?);
            let place = masters.iter().position(|known| *known == server).unwrap_or_else(|| {
                masters.push(server);
                masters.len() - 1
            });
            by_slot.get_mut(first..=last).ok_or_else(unknown)?.fill(place as u16);
        }
        match by_slot.iter().filter(|master| **master == NOBODY).count() {
            0 => Ok(Self { masters, by_slot }),
            count => Err(format!("{count} of {SLOTS} slots have no master")),
        }
    }
}

fn slot(value: &Value) -> Option<usize> {
    from_redis_value_ref(value).ok().filter(|slot| *slot < SLOTS)
}

/// CRC-16 of the name (XMODEM: polynomial 0x1021, start value 0), modulo the number of slots. Our names contain no `{`, so the
/// whole name counts.
fn slot_of(name: &str) -> usize {
    let crc = name.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| (crc << 1) ^ (0x1021 * (crc >> 15)))
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // redis-cli CLUSTER KEYSLOT NAME; the first has the check value of this CRC.
        let names = [("123456789", 0x31c3), ("foo", 12_182), ("longwire:all", 11_148), ("longwire:part:204", 2038)];
        for (name, slot) in names {
            assert_eq!(slot_of(name), slot, "{name}");
        }
    }

    fn server(host: Option<&str>, port: i64) -> Value {
        let host = host.map_or(Value::Nil, |host| Value::BulkString(host.as_bytes().to_vec()));
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"an id".to_vec())])
    }

    fn entry(first: i64, last: i64, master: Value) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), master, server(Some("a replica"), 9)])
    }

    #[test]
    fn a_map_covers_all_slots_or_says_how_many_it_does_not() {
        let rest = |last| {
            let entries = [
                entry(0, 99, server(Some("a"), 1)),
                entry(100, 199, server(None, 2)),
                entry(200, last, server(Some("a"), 1)),
            ];
            SlotMap::read(&Value::Array(entries.into()), "asked")
        };
        let map = rest(16_383).unwrap();
        assert_eq!(map.masters, [("a".to_owned(), 1), ("asked".to_owned(), 2)]);
        assert_eq!([0, 99, 100, 199, 200, 16_383].map(|slot| map.by_slot[slot]), [0, 0, 1, 1, 0, 0]);
        assert_eq!(rest(16_381), Err("2 of 16384 slots have no master".to_owned()));
        for wrong in [16_384, 100, -1] {
            assert_eq!(rest(wrong), Err("unknown format".to_owned()), "up to {wrong}");
        }
        assert_eq!(SlotMap::read(&Value::Okay, "asked"), Err("unknown format".to_owned()));
    }
}
