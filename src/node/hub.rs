//! State that all sessions of a node share, made from its configuration.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::start_error::StartError;
use crate::api;
use crate::cluster::presence::{Notices, Presence};
use crate::cluster::{self, Cluster};
use crate::config::model::{self, Bind, Config};
use crate::descriptors::{self, Shares};
use crate::metrics::Metrics;
use crate::proto::id::{SessionId, SessionIds};
use crate::router::{NodeFacts, Router};
use crate::session::wheel::Wheel;
use crate::session::{Admission, ConnectGates, Hub, PassedLimits, PostBoxes};
use crate::transport::listening::{Listening, dial_address};

/// Descriptors for everything besides sessions, php-fpm, router port and API: listeners, the admin port, engines, logs, epoll.
const SPARE_DESCRIPTORS: usize = 256;
/// Connections to each backend beyond `max_connections`: probes, and connections to workers that were given up.
const SPARE_CONNECTIONS: usize = 4;

/// The address that handlers find in `LONGWIRE_ROUTER`.
pub(super) fn router_address(config: &model::Router, bound: Option<&Listening>) -> String {
    match (&config.advertise, bound.map(Listening::local)) {
        (Some(address), _) => address.clone(),
        (None, Some(Bind::Tcp(address))) => dial_address(*address).to_string(),
        (None, Some(bind @ Bind::Unix(_))) => bind.to_string(),
        (None, None) => String::new(),
    }
}

/// The epoch of a run that begins at this time since 1970. Each hundredth of a second is an epoch of its own, and no node starts twice
/// within one. Epochs repeat after 21 minutes, and nodes that are gone are remembered for ten.
fn epoch_at(since_1970: Duration) -> u32 {
    (since_1970.as_millis() / 10 % u128::from(SessionId::EPOCHS)) as u32
}

/// The members of channels, and the notices about them; `None` if no app wants those events.
pub(super) type PresenceAndNotices = Option<(Arc<Presence>, Notices)>;

pub(super) fn hub(
    config: &Config,
    max_sessions: usize,
    router_address: String,
) -> Result<(Hub, Option<cluster::Life>, PresenceAndNotices), StartError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(StartError::NoRandomBytes)?;
    let epoch = epoch_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let limits = &config.limits;
    let metrics = Arc::new(Metrics::default());
    let draining = CancellationToken::new();
    let facts = NodeFacts {
        name: config.node.name.clone(),
        number: config.node.number,
        started: Instant::now(),
        draining: draining.clone(),
    };
    let slow_readers = config.router.slow_readers.clone();
    let told: Vec<String> =
        config.apps.iter().filter(|app| app.events.of_channels()).map(|app| app.name.clone()).collect();
    let told = (!told.is_empty()).then(|| Presence::new(told, metrics.cluster.clone()));
    let presence = told.as_ref().map(|(presence, _)| presence.clone());
    let mut router = Router::new(slow_readers, config.router.profile, metrics.router.clone(), facts);
    if let Some(presence) = presence.clone() {
        router = router.telling(presence);
    }
    let router = Arc::new(router);
    let facts = cluster::ClusterFacts { name: config.node.name.clone(), number: config.node.number, epoch };
    let (cluster, life) = Cluster::new(&config.cluster, facts, router.clone(), presence, metrics.cluster.clone())
        .map_err(StartError::Cluster)?;
    let passed_limits = Arc::new(PassedLimits::new(&limits.dry_run, metrics.clone()));
    let hub = Hub {
        node_name: config.node.name.clone(),
        ids: SessionIds::new(config.node.number, epoch, key),
        router,
        cluster,
        router_address,
        wheel: Arc::new(Wheel::default()),
        metrics,
        tasks: TaskTracker::new(),
        connections: TaskTracker::new(),
        admission: Arc::new(Admission::new(max_sessions, limits, passed_limits.clone())),
        connects: ConnectGates::new(&config.apps, passed_limits.clone()),
        passed_limits,
        posts: PostBoxes::default(),
        draining,
    };
    Ok((hub, life, told))
}

/// The wanted number of connections of each kind, or fewer if the process may not have that many descriptors. Raises the limit on open
/// files as far as allowed. Connections to php-fpm always have descriptors left.
pub(super) fn share_descriptors(config: &Config) -> Shares {
    let wanted = Shares {
        sessions: config.limits.max_sessions,
        // A port that is off needs none.
        router: config.router.bind.as_ref().map_or(0, |_| config.router.max_connections),
        api: config.api.bind.as_ref().map_or(0, |_| api::MAX_CONNECTIONS),
    };
    let to_php = config.upstreams.iter().map(|upstream| {
        // A spawned php-fpm is one backend.
        upstream.backends.len().max(1) * (upstream.max_connections + SPARE_CONNECTIONS)
    });
    let others = SPARE_DESCRIPTORS + to_php.sum::<usize>();
    let Ok(descriptors) = descriptors::allow(wanted.total() + others) else { return wanted };
    let possible = wanted.within(descriptors, others);
    if possible != wanted {
        info!(
            max_sessions = wanted.sessions,
            descriptors,
            possible = possible.sessions,
            router_connections = possible.router,
            api_connections = possible.api,
            "the limit on open files (ulimit -n, LimitNOFILE) allows fewer sessions"
        );
    }
    possible
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::members::FORGOTTEN_AFTER;

    #[test]
    fn runs_within_one_second_have_epochs_of_their_own_for_longer_than_anybody_remembers_them() {
        const BEGIN: Duration = Duration::from_millis(1_790_000_000_005);
        let mut epochs = BTreeSet::new();
        let runs = FORGOTTEN_AFTER.as_millis() as u32 / 10;
        for run in 0..runs {
            assert!(epochs.insert(epoch_at(BEGIN + Duration::from_millis(10) * run)), "{run}");
        }
        assert!(epochs.iter().all(|epoch| *epoch < SessionId::EPOCHS));
    }
}
