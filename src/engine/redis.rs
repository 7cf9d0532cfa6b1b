//! Redis and Valkey: pub/sub over one RESP3 connection, which both publishes and receives.
//!
//! - *Alone*, or the master that Sentinel names: `SUBSCRIBE` and `PUBLISH`. The master is asked for again with each link.
//! - *Cluster*: `SSUBSCRIBE` and `SPUBLISH` (Redis 7), which go to the shard that has the subject's slot. Classic pub/sub would
//!   send everything to every server of the cluster. Names carry no hash tag, so that partitions spread over all shards.
//!
//! Any connection that ends and any subscription that a moving slot takes away ends the link: what was published meanwhile is
//! lost either way, and a new link says so.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo, PushKind};
use redis::{RedisConnectionInfo, Value};
use tokio::time::timeout;

use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Engine, EngineError, Inbox, Link, Outgoing, Reach, Subject};
use crate::config::model::RedisKind;

const SEPARATOR: char = ':';
/// Channels in one SUBSCRIBE: its answers come one by one, and all of them within the time for one answer.
const SUBSCRIBE_BATCH: usize = 256;

/// See the module.
#[derive(Clone, Debug)]
pub struct Redis {
    servers: Vec<ConnectionInfo>,
    kind: RedisKind,
    prefix: String,
}

impl Redis {
    /// `urls` as redis-rs reads them: `redis://`, `rediss://`, `redis+unix://`. Subjects begin with `prefix`. A user, a password
    /// and a database behind Sentinel are those of the first URL.
    ///
    /// # Errors
    ///
    /// Which URL is wrong, without its password.
    pub fn new(urls: &[String], kind: RedisKind, prefix: impl Into<String>) -> Result<Self, EngineError> {
        let servers: Vec<ConnectionInfo> = urls
            .iter()
            .enumerate()
            .map(|(at, url)| {
                let info = url.as_str().into_connection_info();
                let info = info.map_err(|error| EngineError(format!("address {} of Redis: {error}", at + 1)))?;
                let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                Ok(info.set_redis_settings(settings))
            })
            .collect::<Result<_, EngineError>>()?;
        if servers.is_empty() {
            return Err(EngineError("Redis needs an address".to_owned()));
        }
        Ok(Self { servers, kind, prefix: prefix.into() })
    }

    async fn alone(&self, pushes: Pushes) -> Result<Connection, EngineError> {
        let mut last = None;
        for server in &self.servers {
            match self.dial(server.clone(), pushes.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is an address"))
    }

    async fn behind_sentinel(&self, master: &str, pushes: Pushes) -> Result<Connection, EngineError> {
        let settings = self.servers[0].redis_settings().clone();
        // Sentinels have passwords of their own, and no databases.
        let sentinels = self.servers.iter().map(|server| {
            server.clone().set_redis_settings(RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2))
        });
        let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(settings);
        let mut client = SentinelClient::build(sentinels.collect(), master, Some(node), SentinelServerType::Master)?;
        let found = client.async_get_client().await?;
        self.dial(found.get_connection_info().clone(), pushes).await
    }

    async fn dial(&self, server: ConnectionInfo, pushes: Pushes) -> Result<Connection, EngineError> {
        let address = server.addr().to_string();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(move |push| pushes.take(push));
        let connected = async { Client::open(server)?.get_multiplexed_async_connection_with_config(&config).await };
        match connected.await {
            Ok(connection) => Ok(Connection::One(connection)),
            Err(error) => Err(EngineError(format!("Redis at {address}: {error}"))),
        }
    }

    async fn cluster(&self, pushes: Pushes) -> Result<Connection, EngineError> {
        let client = ClusterClientBuilder::new(self.servers.iter().cloned())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(ANSWER_TIMEOUT)
            // A server that is away ends the link; what was sent to it must not be sent again.
            .retries(0)
            .push_sender(move |push| pushes.take(push))
            .build()?;
        Ok(Connection::Cluster(client.get_async_connection().await?))
    }
}

impl Engine for Redis {
    type Link = RedisLink;

    async fn connect(&self, inbox: Inbox) -> Result<RedisLink, EngineError> {
        let left = Arc::<Mutex<HashSet<String>>>::default();
        let pushes = Pushes { inbox, prefix: self.prefix.clone().into(), left: left.clone() };
        let connecting = async {
            match &self.kind {
                RedisKind::Alone => self.alone(pushes).await,
                RedisKind::Sentinel { master } => self.behind_sentinel(master, pushes).await,
                RedisKind::Cluster => self.cluster(pushes).await,
            }
        };
        let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connection) => connection?,
            Err(_) => return Err(EngineError("Redis: no connection in time".to_owned())),
        };
        Ok(RedisLink { connection, prefix: self.prefix.clone(), left })
    }
}

impl From<redis::RedisError> for EngineError {
    fn from(error: redis::RedisError) -> Self {
        EngineError(format!("Redis: {error}"))
    }
}

/// One connection, or those to all masters of a cluster.
pub struct RedisLink {
    connection: Connection,
    prefix: String,
    /// Subjects whose interest was dropped: only others that a server takes away are a loss.
    left: Arc<Mutex<HashSet<String>>>,
}

enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisLink {
    fn names(&self, subjects: &[Subject]) -> Vec<String> {
        subjects.iter().map(|subject| subject.name(&self.prefix, SEPARATOR)).collect()
    }
}

impl Link for RedisLink {
    async fn subscribe(&mut self, subjects: &[Subject]) -> Result<(), EngineError> {
        let names = self.names(subjects);
        self.left.lock().expect("nothing panics while it is locked").retain(|left| !names.contains(left));
        match &mut self.connection {
            Connection::One(connection) => {
                for names in names.chunks(SUBSCRIBE_BATCH) {
                    connection.subscribe(names).await?;
                }
            }
            // Names of one command would have to share a slot; all commands are under way together.
            Connection::Cluster(connection) => {
                let one = |name: String| {
                    let mut connection = connection.clone();
                    async move { connection.ssubscribe(name).await }
                };
                try_join_all(names.into_iter().map(one)).await?;
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, subjects: &[Subject]) -> Result<(), EngineError> {
        let names = self.names(subjects);
        self.left.lock().expect("nothing panics while it is locked").extend(names.iter().cloned());
        match &mut self.connection {
            Connection::One(connection) => {
                for names in names.chunks(SUBSCRIBE_BATCH) {
                    connection.unsubscribe(names).await?;
                }
            }
            Connection::Cluster(connection) => {
                let one = |name: String| {
                    let mut connection = connection.clone();
                    async move { connection.sunsubscribe(name).await }
                };
                try_join_all(names.into_iter().map(one)).await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self, messages: &[Outgoing]) -> Result<Vec<Reach>, EngineError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let receivers: Vec<i64> = match &mut self.connection {
            Connection::One(connection) => {
                let mut pipe = redis::pipe();
                for message in messages {
                    pipe.cmd("PUBLISH").arg(message.subject.name(&self.prefix, SEPARATOR)).arg(&message.payload[..]);
                }
                pipe.query_async(connection).await?
            }
            Connection::Cluster(connection) => spread(connection, &self.prefix, messages).await?,
        };
        Ok(receivers.into_iter().map(|count| if count == 0 { Reach::Nobody } else { Reach::Unknown }).collect())
    }
}

/// To the shards: subjects side by side, the messages of one subject one after the other, because two commands of a cluster's
/// client may overtake each other.
async fn spread(
    connection: &ClusterConnection,
    prefix: &str,
    messages: &[Outgoing],
) -> Result<Vec<i64>, redis::RedisError> {
    let mut by_subject: Vec<(Subject, Vec<usize>)> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        match by_subject.iter_mut().find(|(subject, _)| *subject == message.subject) {
            Some((_, places)) => places.push(at),
            None => by_subject.push((message.subject, vec![at])),
        }
    }
    let of_subject = |(subject, places): (Subject, Vec<usize>)| {
        let mut connection = connection.clone();
        async move {
            let name = subject.name(prefix, SEPARATOR);
            let mut counts = Vec::with_capacity(places.len());
            for at in places {
                let mut command = redis::cmd("SPUBLISH");
                command.arg(&name).arg(&messages[at].payload[..]);
                counts.push((at, command.query_async::<i64>(&mut connection).await?));
            }
            Ok::<_, redis::RedisError>(counts)
        }
    };
    let mut receivers = vec![0; messages.len()];
    for counts in join_all(by_subject.into_iter().map(of_subject)).await {
        for (at, count) in counts? {
            receivers[at] = count;
        }
    }
    Ok(receivers)
}

/// What a connection does with what nobody has asked for.
#[derive(Clone)]
struct Pushes {
    inbox: Inbox,
    prefix: Arc<str>,
    left: Arc<Mutex<HashSet<String>>>,
}

impl Pushes {
    fn take(&self, push: PushInfo) -> Result<(), redis::aio::SendError> {
        match push.kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = push.data.into_iter();
                if let (Some(Value::BulkString(name)), Some(Value::BulkString(payload))) = (data.next(), data.next())
                    && let Some(subject) = Subject::parse(&name, &self.prefix, SEPARATOR)
                {
                    self.inbox.put(subject, Bytes::from(payload));
                }
            }
            PushKind::Disconnection => self.inbox.lose(EngineError("Redis closed the connection".to_owned())),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                let name = match push.data.first() {
                    Some(Value::BulkString(name)) => String::from_utf8_lossy(name).into_owned(),
                    _ => return Ok(()),
                };
                if !self.left.lock().expect("nothing panics while it is locked").contains(&name) {
                    self.inbox.lose(EngineError(format!("Redis took the subscription to {name} away")));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
