//! Other nodes, from what was written to what runs.

use std::path::Path;

use super::model::{self, ClusterEngine, RedisKind};
use super::problem::Report;
use super::router::resolve_secret_text;
use super::schema::is_name;
use super::written::{self, EngineWord, RedisWord};

/// `None` only beside errors in `report`.
pub(super) fn resolve(written: &written::Cluster, base: &Path, report: &mut Report<'_>) -> Option<model::Cluster> {
    let engine = written.engine.value;
    if let Some(place) = written.prefix.place.as_ref().filter(|_| !is_name(&written.prefix.value)) {
        report.error(place, "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    match (engine, &written.urls.place) {
        (EngineWord::Local, Some(place)) => report.warn(place, "says nothing while engine is \"local\""),
        (EngineWord::Redis | EngineWord::Nats, _) if written.urls.value.0.is_empty() => {
            if let Some(place) = written.urls.place.as_ref().or(written.engine.place.as_ref()) {
                report.error(place, "urls: at least one server is needed");
            }
            return None;
        }
        _ => {}
    }
    if let Some(place) = written.redis.place.as_ref().filter(|_| engine != EngineWord::Redis) {
        report.warn(place, "says nothing unless engine is \"redis\"");
    }
    if let Some(place) = written.sentinel_master.place.as_ref().filter(|_| written.redis.value != RedisWord::Sentinel) {
        report.warn(place, "says nothing unless redis is \"sentinel\"");
    }
    let mut urls = Vec::new();
    if engine != EngineWord::Local {
        for url in &written.urls.value.0 {
            urls.push(resolve_secret_text(url, written.urls.place.as_ref(), base, report)?);
        }
    }
    let engine = match engine {
        EngineWord::Local => ClusterEngine::Local,
        EngineWord::Redis => {
            let kind = match written.redis.value {
                RedisWord::Alone => RedisKind::Alone,
                RedisWord::Sentinel => RedisKind::Sentinel { master: written.sentinel_master.value.clone() },
                RedisWord::Cluster => RedisKind::Cluster,
            };
            ClusterEngine::Redis { urls, kind }
        }
        EngineWord::Nats => ClusterEngine::Nats { urls },
    };
    Some(model::Cluster {
        engine,
        prefix: written.prefix.value.clone(),
        lease: written.lease.value.0,
        receipt_timeout: written.receipt_timeout.value.0,
        linger: written.linger.value.0,
        queue_bytes: written.queue_bytes.value.0 as usize,
    })
}
