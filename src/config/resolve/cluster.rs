//! The cluster: from the written values to the model.

use std::path::Path;

use super::common::resolve_secret_text;
use super::tls::judge;
use crate::certificates::{Pair, Role};
use crate::config::Secret;
use crate::config::engine_url;
use crate::config::model::{self, ClientTls, ClusterEngine, RedisKind};
use crate::config::problem::{Place, Report};
use crate::config::schema::{Entry, is_name};
use crate::config::written::{self, EngineWord, RedisWord};

/// `None` only if `report` has errors.
pub(super) fn resolve(written: &written::Cluster, base: &Path, report: &mut Report<'_>) -> Option<model::Cluster> {
    let engine = written.engine.value;
    if let Some(place) = written.prefix.place.as_ref().filter(|_| !is_name(&written.prefix.value)) {
        report.error(place, "a name is 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    match (engine, &written.urls.place) {
        (EngineWord::Local, Some(place)) => report.warn(place, "has no effect while engine is \"local\""),
        (EngineWord::Redis | EngineWord::Nats, _) if written.urls.value.0.is_empty() => {
            if let Some(place) = written.urls.place.as_ref().or(written.engine.place.as_ref()) {
                report.error(place, "urls: at least one server is needed");
            }
            return None;
        }
        _ => {}
    }
    if let Some(place) = written.redis.place.as_ref().filter(|_| engine != EngineWord::Redis) {
        report.warn(place, "has no effect unless engine is \"redis\"");
    }
    if let Some(place) = written.sentinel_master.place.as_ref().filter(|_| written.redis.value != RedisWord::Sentinel) {
        report.warn(place, "has no effect unless redis is \"sentinel\"");
    }
    let written_urls = written.urls.value.0.iter().filter(|_| engine != EngineWord::Local);
    // Each URL gets its own error.
    let urls = written_urls
        .enumerate()
        .map(|(at, url)| {
            let place = written.urls.place.as_ref()?;
            let url = resolve_secret_text(url, Some(place), base, report)?;
            let judged = match engine {
                EngineWord::Nats => engine_url::nats_server(url.reveal()).map(drop),
                EngineWord::Redis | EngineWord::Local => engine_url::redis_server(url.reveal()).map(drop),
            };
            judged.map_err(|rule| report.error(place, format!("address {}: {rule}", at + 1))).ok()?;
            Some(url)
        })
        .collect::<Vec<_>>();
    let urls: Option<Vec<Secret>> = urls.into_iter().collect();
    let tls = resolve_tls(written, urls.as_deref(), base, report);
    let urls = urls?;
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
        tls: tls?,
        prefix: written.prefix.value.clone(),
        lease: written.lease.value.0,
        receipt_timeout: written.receipt_timeout.value.0,
        linger: written.linger.value.0,
        queue_bytes: written.queue_bytes.value.0 as usize,
    })
}

/// `Some(None)` if the table is not written or has no effect. `None` only if `report` has errors.
fn resolve_tls(
    written: &written::Cluster,
    urls: Option<&[Secret]>,
    base: &Path,
    report: &mut Report<'_>,
) -> Option<Option<ClientTls>> {
    let Some(tls) = &written.tls.0 else { return Some(None) };
    let is_tls = |url: &Secret| ["rediss://", "valkeys://"].iter().any(|scheme| url.reveal().starts_with(scheme));
    let idle = match written.engine.value {
        EngineWord::Local => Some("has no effect while engine is \"local\""),
        EngineWord::Redis if urls.is_some_and(|urls| !urls.iter().any(is_tls)) => {
            Some("has no effect while no url begins with rediss://")
        }
        // The table has an effect: for NATS it switches TLS on by itself; for Redis a url has rediss://, or the urls have errors.
        EngineWord::Redis | EngineWord::Nats => None,
    };
    if let Some(why) = idle {
        report.warn(&tls.place, why);
        return Some(None);
    }
    let path = |entry: &Entry<String>| base.join(&entry.value);
    let own = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some(Pair { cert: path(cert), key: path(key) }),
        (None, None) => None,
        (Some(cert), None) => {
            report.error(cert.place.as_ref()?, "needs key, its private key");
            return None;
        }
        (None, Some(key)) => {
            report.error(key.place.as_ref()?, "needs cert, the certificate that it belongs to");
            return None;
        }
    };
    let settings = ClientTls { ca: tls.ca.as_ref().map(path), own };
    let place_of = |role| -> Option<&Place> {
        let entry = match role {
            Role::Cert(_) => &tls.cert,
            Role::Key(_) => &tls.key,
            Role::Roots => &tls.ca,
        };
        entry.as_ref()?.place.as_ref()
    };
    judge(settings.check(), place_of, report)?;
    Some(Some(settings))
}
