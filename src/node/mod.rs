//! A node: everything that runs in one process, from its configuration to its last close event.
//!
//! ```text
//!   start ----> Running --first signal: drain--> Draining --all sessions ended, or drain_timeout--> stopped
//!     |                                              |
//!     | address in use, no php-fpm                   | second signal
//!     v                                              v
//!   nothing was started                            stopped at once
//! ```

mod before;
mod certificates;
mod hub;
mod start_error;

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::before::{Before, TASKS_GRACE};
use self::certificates::{Acceptors, load_certificates, told, watch_certificates};
use self::hub::{hub, router_address, share_descriptors};
pub use self::start_error::StartError;
use crate::api::serve_api;
use crate::certificates::Acceptor;
use crate::config::model::{self, Bind, Config, Http, Protocol, StreamFraming};
use crate::http::{Page, Route, Site, serve_admin};
use crate::listener::{Entrance, Preparation, Service};
use crate::locks::lock;
use crate::lua;
use crate::outbox::Close;
use crate::proto::close::CloseReason;
use crate::proto::framing::Framing;
use crate::router_port::{Memory, serve_router};
use crate::session::{Answer, ClientProtocol, Endpoint, HttpSettings, Hub, tell_apps};
use crate::transport::listening::{BindError, Listening};
use crate::upstream::Upstream;
use crate::upstream::supervisor::Supervisor;

/// How long a drain waits for requests that still run when the sessions have ended.
const UPSTREAM_GRACE: Duration = Duration::from_secs(2);
/// Settings of a node beside its configuration.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Fixed pages on every HTTP listener.
    pub pages: Vec<Page>,
}

/// A running node. Dropping it stops everything at once; [`Running::drain`] stops it gracefully.
pub struct Running {
    hub: Arc<Hub>,
    upstreams: HashMap<String, Arc<Upstream<Answer>>>,
    supervisors: Vec<Supervisor>,
    accepting: JoinSet<()>,
    housekeeping: JoinSet<()>,
    listeners: Vec<(String, Bind)>,
    admin: Option<Bind>,
    router: Option<Bind>,
    api: Option<Bind>,
    acceptors: Acceptors,
    drain_timeout: Duration,
    faults: Faults,
    before: Before,
    /// For commands of the router port and the API.
    memory: Arc<Memory>,
}

/// The parts of a node that have panicked. The node cannot do their work any more, so it is not ready.
type Faults = Arc<Mutex<BTreeSet<String>>>;

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Sessions and close events that were given up at `drain_timeout`.
    pub given_up: usize,
}

impl Running {
    /// Starts everything that `config` names, or nothing. The admin listener is served on `control`, a runtime that never runs code of a
    /// session.
    pub async fn start(config: &Config, extras: &Extras, control: &Handle) -> Result<Self, StartError> {
        let before = Before::now();
        // Steps that can fail come first, and php-fpm starts before anything accepts: so the first client finds a handler.
        let bound = bind_all(config, control)?;
        let shares = share_descriptors(config);
        let (hub, cluster_life, presence) =
            hub(config, shares.sessions, router_address(&config.router, bound.router.as_ref()))?;
        let hub = Arc::new(hub);
        let (supervisors, with_backends) = spawn_pools(&config.upstreams).await?;
        let upstreams: HashMap<_, _> = with_backends
            .into_iter()
            .map(|upstream| {
                let handles = hub.metrics.upstream.of(&upstream.name);
                (upstream.name.clone(), Arc::new(Upstream::start(upstream, handles)))
            })
            .collect();
        let mut running = Self {
            hub: hub.clone(),
            upstreams,
            supervisors,
            accepting: JoinSet::new(),
            housekeeping: JoinSet::new(),
            listeners: Vec::new(),
            admin: None,
            router: None,
            api: None,
            acceptors: load_certificates(config)?,
            drain_timeout: config.limits.drain_timeout,
            faults: Faults::default(),
            before,
            memory: Arc::new(Memory::new(config.router.max_buffered_bytes)),
        };
        if let Some((presence, notices)) = presence {
            let apps = running.told_apps(config)?;
            running.keep("the events of channels", tell_apps(presence, notices, apps));
        }
        if let Some(life) = cluster_life {
            running.keep("the cluster", life);
            hub.cluster.begun().await.map_err(StartError::Cluster)?;
        }
        let visited = hub.clone();
        running.keep("the clock of sessions", hub.wheel.clone().turn(move |id| visited.router.tick(id)));
        let mut services = Vec::new();
        for (listener, listening) in config.listeners.iter().zip(bound.listeners) {
            let service = running.service(config, listener, extras)?;
            services.push((listener, listening, service));
        }
        if let Some(listening) = bound.admin {
            running.admin = Some(log_listening("admin", &listening));
            let serving = serve_admin(listening, hub.metrics.clone(), running.readiness());
            running.housekeeping.spawn_on(running.watched("the admin listener", serving), control);
        }
        let memory = running.memory.clone();
        if let Some(listening) = bound.router {
            running.router = Some(log_listening("router", &listening));
            let router = model::Router { max_connections: shares.router, ..config.router.clone() };
            running.keep("the router port", serve_router(listening, router, memory.clone(), hub.clone()));
        }
        if let Some(listening) = bound.api {
            running.api = Some(log_listening("api", &listening));
            let serving = serve_api(listening, config.api.clone(), shares.api, memory, hub.clone());
            running.keep("the HTTP API", serving);
        }
        for (listener, listening, service) in services {
            running.accept(listener, listening, service, &config.limits);
        }
        running.keep_probing();
        running.keep("the watch on certificates", watch_certificates(running.acceptors.clone(), hub.clone()));
        Ok(running)
    }

    /// The line that says that everything listens. The caller logs it as soon as it handles signals for this node: a program that waits
    /// for the line may send one at once.
    pub fn log_start(&self) {
        info!(node = %self.hub.node_name, "started");
    }

    /// Serves the clients of a listener.
    fn accept(&mut self, of: &model::Listener, listening: Listening, service: Service, limits: &model::Limits) {
        self.listeners.push((of.name.clone(), log_listening(&of.name, &listening)));
        let entrance = Entrance {
            hub: self.hub.clone(),
            name: of.name.clone(),
            tcp: of.tcp,
            preparation: Preparation::new(of.proxy_protocol.clone(), self.acceptor(&of.name), limits),
            service,
        };
        let part = format!("listener {}", of.name);
        self.accepting.spawn(self.watched(&part, entrance.accept_loop(listening)));
    }

    /// Runs `work` for as long as the node runs.
    fn keep(&mut self, part: &str, work: impl Future<Output = ()> + Send + 'static) {
        let watched = self.watched(part, work);
        self.housekeeping.spawn(watched);
    }

    /// The same work, but if it panics, the node is no longer ready.
    fn watched<W>(&self, part: &str, work: W) -> impl Future<Output = ()> + Send + use<W>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (part, faults) = (part.to_owned(), self.faults.clone());
        async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                error!(part, "a part of the node has failed: restart the node to bring it back");
                lock(&faults).insert(part);
            }
        }
    }

    /// The address of a listener, with the port that the kernel chose for port 0.
    pub fn address(&self, listener: &str) -> Option<&Bind> {
        self.listeners.iter().find(|(name, _)| name == listener).map(|(_, bind)| bind)
    }

    fn acceptor(&self, listener: &str) -> Option<Arc<Acceptor>> {
        self.acceptors.iter().find(|(name, _)| name == listener).map(|(_, acceptor)| acceptor.clone())
    }

    /// Loads every certificate again. New handshakes get the new ones, sessions are not affected. False if no listener has TLS.
    pub fn reload_certificates(&self) -> bool {
        for (listener, acceptor) in &self.acceptors {
            told(&self.hub, listener, acceptor.reload_now());
        }
        !self.acceptors.is_empty()
    }

    /// The address of the admin listener.
    pub fn admin_address(&self) -> Option<&Bind> {
        self.admin.as_ref()
    }

    /// The address where the router takes commands.
    pub fn router_address(&self) -> Option<&Bind> {
        self.router.as_ref()
    }

    /// The address of the HTTP API.
    pub fn api_address(&self) -> Option<&Bind> {
        self.api.as_ref()
    }

    /// The state that the sessions of this node share.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The state of an upstream.
    pub fn upstream(&self, name: &str) -> Option<crate::upstream::Snapshot> {
        self.upstreams.get(name).map(|upstream| upstream.snapshot())
    }

    /// Stops accepting, lets every session finish its running event, says goodbye to its client and delivers its close
    /// event. Gives up at `drain_timeout`, or as soon as `hurry` is ready.
    pub async fn drain(mut self, hurry: impl Future<Output = ()>) -> Drained {
        info!(sessions = self.hub.router.len(), "draining");
        self.hub.draining.cancel();
        let all_ended = async {
            while self.accepting.join_next().await.is_some() {}
            self.hub.router.for_each(|outbox| outbox.ask_close(Close::new(CloseReason::Draining)));
            self.hub.connections.close();
            self.hub.tasks.close();
            // A connection in its handshake may still become a session.
            self.hub.connections.wait().await;
            self.hub.tasks.wait().await;
            self.hub.cluster.all_told().await;
        };
        tokio::select! {
            () = all_ended => {}
            () = tokio::time::sleep(self.drain_timeout) => warn!("drain_timeout is over"),
            () = hurry => warn!("drain was cut short"),
        }
        self.hub.cluster.leave().await;
        let given_up = self.hub.tasks.len();
        if given_up > 0 {
            error!(sessions = given_up, "sessions were given up: their close events are lost");
        }
        let connections = self.hub.connections.len();
        if connections > 0 {
            warn!(connections, "connections were cut off");
        }
        for upstream in self.upstreams.values() {
            let _ = tokio::time::timeout(UPSTREAM_GRACE, upstream.shutdown()).await;
        }
        for supervisor in self.supervisors {
            supervisor.stop().await;
        }
        // Everything that is still held: after a drain that gave nothing up, all of it is 0.
        let (sessions, outboxes) = (self.hub.admission.sessions(), self.hub.router.len());
        let upstreams: Vec<_> = self.upstreams.values().map(|upstream| upstream.snapshot()).collect();
        let queued: usize = upstreams.iter().map(|upstream| upstream.queued).sum();
        let leases: usize = upstreams.iter().flat_map(|upstream| &upstream.backends).map(|backend| backend.open).sum();
        let Self { hub, upstreams, mut housekeeping, acceptors, faults, before, memory, .. } = self;
        // Socket files of router port and API go with these tasks. A script of a framing may hold the threads that they run on.
        let _ = tokio::time::timeout(TASKS_GRACE, housekeeping.shutdown()).await;
        drop((hub, upstreams, acceptors, faults));
        let has_all_ended = given_up == 0 && connections == 0;
        let (tasks, descriptors) = if has_all_ended { before.left().await } else { before.added() };
        let bytes = memory.held_bytes();
        info!(given_up, sessions, outboxes, queued, leases, bytes, tasks, descriptors, "stopped");
        Drained { given_up }
    }

    /// The apps that want events of channels, with their endpoints.
    fn told_apps(&self, config: &Config) -> Result<HashMap<String, Arc<Endpoint>>, StartError> {
        let apps = config.apps.iter().filter(|app| app.events.of_channels());
        apps.map(|app| {
            let upstream = self.upstreams[&app.upstream].clone();
            // These events come through no listener.
            let clients = ClientProtocol::Streams { heartbeat: None };
            let endpoint = Endpoint::new(self.hub.clone(), "", app.clone(), upstream, Framing::Raw, clients);
            let endpoint = endpoint.map_err(|error| StartError::Params { app: app.name.clone(), error })?;
            Ok((app.name.clone(), Arc::new(endpoint)))
        })
        .collect()
    }

    fn service(&self, config: &Config, listener: &model::Listener, extras: &Extras) -> Result<Service, StartError> {
        let endpoint = |app: &Arc<model::App>, framing: Framing, clients: ClientProtocol| {
            let upstream = self.upstreams[&app.upstream].clone();
            Endpoint::new(self.hub.clone(), &listener.name, app.clone(), upstream, framing, clients)
                .map_err(|error| StartError::Params { app: app.name.clone(), error })
        };
        match &listener.protocol {
            Protocol::Stream { framing, heartbeat, app } => {
                let framing = match framing {
                    StreamFraming::Lua(framing) => {
                        let manner = lua::Manner {
                            forgives: app.compat.is_fooking(),
                            failures: self.hub.metrics.script_failures.clone(),
                        };
                        lua::framing(&listener.name, framing, config.node.threads, manner)
                            .map_err(|error| StartError::Script { listener: listener.name.clone(), error })?
                    }
                    framing => framing.framing().expect("all other framings are made of options"),
                };
                let clients = ClientProtocol::Streams { heartbeat: heartbeat.clone() };
                Ok(Service::Stream(Arc::new(endpoint(app, framing, clients)?)))
            }
            Protocol::Http(http @ Http { routes, websocket, sse, .. }) => {
                let settings = Arc::new(HttpSettings { websocket: websocket.clone(), sse: sse.clone() });
                let routes = routes
                    .iter()
                    .map(|route| {
                        // The negotiated deflate replaces this with each session's own framing.
                        let framing = Framing::WebSocket { deflate: None };
                        let endpoint = Arc::new(endpoint(&route.app, framing, ClientProtocol::Http(settings.clone()))?);
                        Ok(Route { path: route.path.clone(), endpoint, settings: settings.clone() })
                    })
                    .collect::<Result<_, StartError>>()?;
                let site =
                    Site::new(self.hub.clone(), &listener.name, routes, extras.pages.clone(), http, &config.limits)
                        .map_err(StartError::NoRandomBytes)?;
                Ok(Service::Http(Arc::new(site)))
            }
        }
    }

    /// The reasons why the node is not ready: a drain, a part that failed, the cluster, an upstream without a backend that answers.
    fn readiness(&self) -> crate::http::Readiness {
        let hub = self.hub.clone();
        let (upstreams, faults) = (self.upstreams.clone(), self.faults.clone());
        Arc::new(move || {
            let mut missing: Vec<String> =
                lock(&faults).iter().map(|part| format!("{part}: failed, see the log")).collect();
            if hub.is_draining() {
                missing.push("the node is draining".to_owned());
            }
            missing.extend(hub.cluster.missing());
            for (name, upstream) in &upstreams {
                if upstream.snapshot().backends.iter().all(|backend| !backend.up) {
                    missing.push(format!("upstream {name}: no backend answers"));
                }
            }
            missing.sort();
            missing
        })
    }

    /// Starts the probes without waiting for the first result, because php-fpm may start later.
    fn keep_probing(&mut self) {
        for (name, upstream) in &self.upstreams {
            let upstream = upstream.clone();
            let part = format!("the probes of upstream {name}");
            let watched = self.watched(&part, async move { upstream.keep_probing().await });
            self.housekeeping.spawn(watched);
        }
    }
}

struct Bound {
    listeners: Vec<Listening>,
    admin: Option<Listening>,
    router: Option<Listening>,
    api: Option<Listening>,
}

/// Logs that a listener listens. Gives its address, with the port that the system chose if the configured one is 0.
fn log_listening(listener: &str, listening: &Listening) -> Bind {
    let bind = listening.local().clone();
    info!(listener, %bind, "listening");
    bind
}

/// Starts the php-fpm of each upstream that has one of its own. Gives the upstreams with the addresses of their backends.
async fn spawn_pools(upstreams: &[model::Upstream]) -> Result<(Vec<Supervisor>, Vec<model::Upstream>), StartError> {
    let (mut supervisors, mut upstreams) = (Vec::new(), upstreams.to_vec());
    for upstream in &mut upstreams {
        if let Some(spawn) = &upstream.spawn {
            let (supervisor, address) = Supervisor::start(spawn, &upstream.name)
                .await
                .map_err(|error| StartError::Spawn { upstream: upstream.name.clone(), error })?;
            supervisors.push(supervisor);
            upstream.backends = vec![model::Backend { address, weight: 1 }];
        }
    }
    Ok((supervisors, upstreams))
}

fn bind_all(config: &Config, control: &Handle) -> Result<Bound, BindError> {
    let listeners = config
        .listeners
        .iter()
        .map(|listener| Listening::bind(&listener.bind, &listener.socket, listener.backlog))
        .collect::<Result<_, _>>()?;
    let own =
        |bind: &Option<Bind>, file, backlog| bind.as_ref().map(|bind| Listening::bind(bind, file, backlog)).transpose();
    let admin = {
        let _served_there = control.enter();
        own(&config.admin, &config.admin_socket, 16)?
    };
    Ok(Bound {
        listeners,
        admin,
        router: own(&config.router.bind, &config.router.socket, 4096)?,
        api: own(&config.api.bind, &config.api.socket, 128)?,
    })
}
