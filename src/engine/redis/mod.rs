//! Redis and Valkey: pub/sub over RESP3 connections, each of which both publishes and receives.
//!
//! - *Alone*, or the master that Sentinel names: `SUBSCRIBE` and `PUBLISH` on one connection. Sentinel is asked again for each
//!   link.
//! - *Cluster* (`shards`): `SSUBSCRIBE` and `SPUBLISH` (Redis 7) on one connection to each master, for the subjects in that
//!   master's slots. Classic pub/sub would send everything to every server of the cluster.
//!
//! The link ends when any connection ends, or when a server ends a subscription because its slot has moved. What was published
//! meanwhile is lost either way, and a new link makes the loss known.

mod sentinel;
mod shards;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo};
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::shards::Shards;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Engine, EngineError, Inbox, Link, Outgoing, Reach, Subject};
use super::{first_that, tls};
use crate::config::engine_url::redis_server;
use crate::config::model::{ClientTls, RedisKind};
use crate::locks::lock;

const SEPARATOR: char = ':';
/// Channels in one SUBSCRIBE. Its answers come one by one, and all of them must come within the timeout of one answer.
const SUBSCRIBE_BATCH: usize = 256;

#[derive(Clone, Debug)]
pub struct Redis {
    servers: Vec<ConnectionInfo>,
    kind: RedisKind,
    prefix: String,
    /// For servers whose URL asks for TLS.
    tls: ClientTls,
}

impl Redis {
    /// `urls` are in the format of redis-rs: `redis://`, `rediss://`, `redis+unix://`. They are tried in this order. Subjects begin
    /// with `prefix`. The user and the password of the first URL are used for all servers that a Sentinel or a server of a cluster
    /// names. `tls` is for `rediss://`, and for the servers that a server reached in this way names.
    ///
    /// # Errors
    ///
    /// Names the invalid URL, without its password.
    pub fn new(
        urls: &[String],
        kind: RedisKind,
        prefix: impl Into<String>,
        tls: ClientTls,
    ) -> Result<Self, EngineError> {
        let servers: Vec<ConnectionInfo> = urls
            .iter()
            .enumerate()
            .map(|(at, url)| {
                redis_server(url).map_err(|error| EngineError(format!("address {} of Redis: {error}", at + 1)))
            })
            .collect::<Result<_, EngineError>>()?;
        if servers.is_empty() {
            return Err(EngineError("Redis needs an address".to_owned()));
        }
        Ok(Self { servers, kind, prefix: prefix.into(), tls })
    }

    /// The server that another server has named: reached in the same way, with the settings of the first URL.
    fn named_by(&self, server: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
        let address = match server.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        server.clone().set_addr(address).set_redis_settings(self.servers[0].redis_settings().clone())
    }
}

/// A connection. Clones share it, and it ends when the last clone is dropped.
#[derive(Clone)]
struct RedisConnection {
    requests: MultiplexedConnection,
    /// The task that redis-rs would hold itself if it had made the stream.
    _driver: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Redis {
    /// Connects. Messages that answer no request go to `pushes`.
    ///
    /// TLS is not left to redis-rs. It reads the system's authorities for each connection, even if other authorities are set, and
    /// fails if one of their files cannot be read.
    async fn dial(&self, server: &ConnectionInfo, pushes: Option<Pushes>) -> Result<RedisConnection, RedisError> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        if let Some(pushes) = pushes {
            config = config.set_push_sender(move |push| pushes.take(push));
        }
        let ConnectionAddr::TcpTls { host, port, .. } = server.addr() else {
            let requests = Client::open(server.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
            return Ok(RedisConnection { requests, _driver: None });
        };
        let dialing = async {
            let stream = tls::connect(&self.tls, host, *port).await?;
            MultiplexedConnection::new_with_config(server.redis_settings(), stream, config).await
        };
        let dialed = timeout(CONNECT_TIMEOUT, dialing).await;
        let (requests, driver) = dialed.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Ok(RedisConnection { requests, _driver: Some(Arc::new(driver)) })
    }

    /// Turns an error into one that names the server.
    fn of(&self, server: &ConnectionInfo) -> impl Fn(RedisError) -> EngineError + use<'_> {
        let address = server.addr().to_string();
        move |error| {
            let why = tls::explain(&error, &self.tls).unwrap_or_else(|| error.to_string());
            EngineError(format!("Redis at {address}: {why}"))
        }
    }
}

impl Engine for Redis {
    type Link = RedisLink;

    async fn connect(&self, inbox: Inbox) -> Result<RedisLink, EngineError> {
        let left = Arc::<Mutex<HashSet<String>>>::default();
        let pushes = Pushes { inbox, prefix: self.prefix.clone().into(), left: left.clone() };
        let connect_by = |server: ConnectionInfo| {
            let pushes = pushes.clone();
            async move {
                match &self.kind {
                    RedisKind::Alone => {
                        self.dial(&server, Some(pushes)).await.map(Masters::One).map_err(self.of(&server))
                    }
                    RedisKind::Sentinel { master } => {
                        self.behind_sentinel(&server, master, pushes).await.map(Masters::One)
                    }
                    RedisKind::Cluster => Shards::connect(self, &server, pushes).await.map(Masters::Shards),
                }
            }
        };
        let masters = first_that(&self.servers, "Redis", connect_by).await?;
        Ok(RedisLink { masters, prefix: self.prefix.clone(), left })
    }
}

impl From<RedisError> for EngineError {
    fn from(error: RedisError) -> Self {
        EngineError(format!("Redis: {error}"))
    }
}

/// One connection, or the connections to all masters of a cluster.
pub struct RedisLink {
    masters: Masters,
    prefix: String,
    /// Subjects that we unsubscribed from. If a server ends any other subscription, the link is lost.
    left: Arc<Mutex<HashSet<String>>>,
}

enum Masters {
    One(RedisConnection),
    Shards(Shards),
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
        lock(&self.left).retain(|left| !names.contains(left));
        match &mut self.masters {
            Masters::One(connection) => {
                for names in names.chunks(SUBSCRIBE_BATCH) {
                    connection.requests.subscribe(names).await?;
                }
                Ok(())
            }
            Masters::Shards(shards) => shards.say_of_each("SSUBSCRIBE", names).await,
        }
    }

    async fn unsubscribe(&mut self, subjects: &[Subject]) -> Result<(), EngineError> {
        let names = self.names(subjects);
        lock(&self.left).extend(names.iter().cloned());
        match &mut self.masters {
            Masters::One(connection) => {
                for names in names.chunks(SUBSCRIBE_BATCH) {
                    connection.requests.unsubscribe(names).await?;
                }
                Ok(())
            }
            Masters::Shards(shards) => shards.say_of_each("SUNSUBSCRIBE", names).await,
        }
    }

    async fn publish(&mut self, messages: &[Outgoing]) -> Result<Vec<Reach>, EngineError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let names = messages.iter().map(|message| message.subject.name(&self.prefix, SEPARATOR));
        let named = names.zip(messages.iter().map(|message| &message.payload));
        let receivers: Vec<i64> = match &mut self.masters {
            Masters::One(connection) => {
                let mut pipe = redis::pipe();
                for (name, payload) in named {
                    pipe.cmd("PUBLISH").arg(name).arg(&payload[..]);
                }
                pipe.query_async(&mut connection.requests).await?
            }
            Masters::Shards(shards) => shards.publish(named).await?,
        };
        Ok(receivers.into_iter().map(|count| if count == 0 { Reach::Nobody } else { Reach::Unknown }).collect())
    }
}

/// Handles messages that answer no request of a connection.
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
                if !lock(&self.left).contains(&name) {
                    self.inbox.lose(EngineError(format!("Redis ended the subscription to {name}")));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
