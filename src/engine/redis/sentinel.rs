//! The master that a Sentinel names.

use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, Value};

use super::{Pushes, Redis, dial, of};
use crate::engine::EngineError;

impl Redis {
    /// A connection to the master that this Sentinel knows, if that says itself that it is one: a Sentinel may not have heard yet
    /// of the last failover.
    pub(super) async fn behind_sentinel(
        &self,
        sentinel: &ConnectionInfo,
        master: &str,
        pushes: Pushes,
    ) -> Result<MultiplexedConnection, EngineError> {
        let Some((host, port)) = ask(sentinel, master).await.map_err(of(sentinel))? else {
            return Err(EngineError(format!("the Sentinel at {} knows no master {master:?}", sentinel.addr())));
        };
        let server = self.named_by(sentinel, host, port);
        let mut connection = dial(server.clone(), Some(pushes)).await.map_err(of(&server))?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await.map_err(of(&server))?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            _ => Err(EngineError(format!("Redis at {} is no master, as the Sentinel says", server.addr()))),
        }
    }
}

/// Where a Sentinel says that the master is. Sentinels know no databases, and mostly have no password where servers have one; one
/// that wants one gets that of its URL.
async fn ask(sentinel: &ConnectionInfo, master: &str) -> Result<Option<(String, u16)>, RedisError> {
    let without = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
    match ask_with(without, sentinel, master).await {
        Err(error) if error.code() == Some("NOAUTH") && sentinel.redis_settings().password().is_some() => {
            let with = sentinel.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_db(0);
            ask_with(with, sentinel, master).await
        }
        answer => answer,
    }
}

async fn ask_with(
    settings: RedisConnectionInfo,
    sentinel: &ConnectionInfo,
    master: &str,
) -> Result<Option<(String, u16)>, RedisError> {
    let mut connection = dial(sentinel.clone().set_redis_settings(settings), None).await?;
    redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(&mut connection).await
}
