//! Finds and connects to the master that a Sentinel names.

use redis::{ConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, Value};

use super::{Pushes, Redis, RedisConnection};
use crate::engine::EngineError;

impl Redis {
    /// Connects to the master that this Sentinel names, if that server confirms that it is the master. A Sentinel may not have
    /// heard of the last failover yet.
    pub(super) async fn behind_sentinel(
        &self,
        sentinel: &ConnectionInfo,
        master: &str,
        pushes: Pushes,
    ) -> Result<RedisConnection, EngineError> {
        let Some((host, port)) = self.ask(sentinel, master).await.map_err(self.of(sentinel))? else {
            return Err(EngineError(format!("the Sentinel at {} knows no master {master:?}", sentinel.addr())));
        };
        let server = self.named_by(sentinel, host, port);
        let mut connection = self.dial(&server, Some(pushes)).await.map_err(self.of(&server))?;
        let role = redis::cmd("ROLE").query_async(&mut connection.requests).await;
        let role: Vec<Value> = role.map_err(self.of(&server))?;
        match role.first() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(connection),
            _ => Err(EngineError(format!(
                "Redis at {} is not a master, although the Sentinel names it as one",
                server.addr()
            ))),
        }
    }

    /// The master's address according to a Sentinel. Sentinels have no databases, and mostly no password even where servers have
    /// one. A Sentinel that asks for a password gets the one in its URL.
    async fn ask(&self, sentinel: &ConnectionInfo, master: &str) -> Result<Option<(String, u16)>, RedisError> {
        let without = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP2);
        match self.ask_with(without, sentinel, master).await {
            Err(error) if error.code() == Some("NOAUTH") && sentinel.redis_settings().password().is_some() => {
                let with = sentinel.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_db(0);
                self.ask_with(with, sentinel, master).await
            }
            answer => answer,
        }
    }

    async fn ask_with(
        &self,
        settings: RedisConnectionInfo,
        sentinel: &ConnectionInfo,
        master: &str,
    ) -> Result<Option<(String, u16)>, RedisError> {
        let mut connection = self.dial(&sentinel.clone().set_redis_settings(settings), None).await?;
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(&mut connection.requests).await
    }
}
