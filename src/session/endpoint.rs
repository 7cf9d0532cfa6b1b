//! The state shared by all sessions of a node ([`Hub`]), and by all sessions of one endpoint ([`Endpoint`]).

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Uri, Version};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::SessionState;
use super::answer::{Answer, EventInfo, Hints, HttpAnswer, HttpReply};
use super::cgi::{self, EventParams};
use super::delivery::{Absence, Owed};
use super::group;
use super::limits::{Admission, ConnectGates, PassedLimits};
use super::posts::PostBoxes;
use super::wheel::Wheel;
use crate::cluster::Cluster;
use crate::config::model::{App, Heartbeat, Sse, WebSocket};
use crate::metrics::{Metrics, ReasonLabels};
use crate::outbox::{Close, Terms};
use crate::proto::close::CloseReason;
use crate::proto::fastcgi::params::{EncodedParams, PairTooLong};
use crate::proto::framing::{FrameKind, Framing};
use crate::proto::id::SessionIds;
use crate::router::Router;
use crate::transport::Peer;
use crate::upstream::{Class, Request, Upstream};

/// The state shared by all sessions of a node.
pub struct Hub {
    /// `LONGWIRE_NODE`.
    pub node_name: String,
    /// The generator of session ids.
    pub ids: SessionIds,
    /// The router of this node: knows its sessions and runs commands on them.
    pub router: Arc<Router>,
    /// The same for all nodes.
    pub cluster: Cluster,
    /// `LONGWIRE_ROUTER`: the address where handlers reach the router. Empty if there is none.
    pub router_address: String,
    /// The clock of sessions.
    pub wheel: Arc<Wheel>,
    /// The metrics of the node.
    pub metrics: Arc<Metrics>,
    /// The tasks of all sessions. Each ends when its session's close event is delivered.
    pub tasks: TaskTracker,
    /// Connections that are not sessions, or that serve several: HTTP connections, and connections that have not
    /// identified themselves yet.
    pub connections: TaskTracker,
    /// The response to an exceeded limit.
    pub passed_limits: Arc<PassedLimits>,
    /// The limits on new connections and on sessions.
    pub admission: Arc<Admission>,
    /// The limits on connect events.
    pub connects: ConnectGates,
    /// The sessions whose clients send frames as HTTP requests.
    pub posts: PostBoxes,
    /// Cancelled when the node begins to stop.
    pub draining: CancellationToken,
}

impl Hub {
    /// The node has begun to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Counts a connection that never became a session.
    pub fn refuse(&self, listener: &str, peer: Peer, reason: CloseReason) {
        self.count_refused(listener, reason);
        debug!(%peer, listener, reason = reason.label(), "connection refused");
    }

    /// The same without a log line, for places where the address is not known.
    pub(super) fn count_refused(&self, listener: &str, reason: CloseReason) {
        let labels = ReasonLabels { listener: listener.to_owned(), reason: reason.label() };
        self.metrics.connections_refused.get_or_create(&labels).inc();
    }
}

/// What the clients of an endpoint speak, with the settings that only they need.
pub enum ClientProtocol {
    /// Byte streams. The heartbeat does what pings do on WebSocket.
    Streams {
        /// `None` if silent clients are not probed, and probes not answered.
        heartbeat: Option<Heartbeat>,
    },
    Http(Arc<HttpSettings>),
}

/// Settings for sessions over HTTP.
pub struct HttpSettings {
    /// Pings, deflate, origins and the close handshake. The origins are those of event streams and polls too.
    pub websocket: WebSocket,
    /// Event streams and polls.
    pub sse: Sse,
}

/// One listener's entrance to one app.
pub struct Endpoint {
    /// The node's.
    pub hub: Arc<Hub>,
    /// `LONGWIRE_LISTENER`.
    pub listener: String,
    /// The app that handles the events.
    pub app: Arc<App>,
    /// The upstream that runs the app.
    pub upstream: Arc<Upstream<Answer>>,
    /// How bytes become frames.
    pub framing: Framing,
    /// What its clients speak.
    pub clients: ClientProtocol,
    /// The constant params of events.
    pub params: EncodedParams,
    /// The constant params of plain requests, if the app takes them.
    pub plain_params: EncodedParams,
    /// The settings shared by the outboxes of its sessions.
    pub terms: Arc<Terms>,
    /// Whether PHP lacks the script; for events that must be delivered.
    pub(super) absence: Absence,
    /// The hints that were logged.
    pub(super) hints: Hints,
    /// Takes requests instead of `upstream`.
    #[cfg(test)]
    pub(super) desk: Option<super::simulation::Desk>,
}

impl Endpoint {
    /// Makes an endpoint. The error means that a param of the configuration is too long.
    pub fn new(
        hub: Arc<Hub>,
        listener: &str,
        app: Arc<App>,
        upstream: Arc<Upstream<Answer>>,
        framing: Framing,
        clients: ClientProtocol,
    ) -> Result<Self, PairTooLong> {
        let (purpose, deflate_min_bytes) = match &clients {
            ClientProtocol::Streams { .. } => (cgi::ParamsPurpose::Streams, 0),
            ClientProtocol::Http(http) => (cgi::ParamsPurpose::Http, http.websocket.deflate_min_bytes),
        };
        let params = cgi::endpoint_params(&hub, listener, &app, purpose)?;
        let plain_params = match app.plain_requests {
            true => cgi::endpoint_params(&hub, listener, &app, cgi::ParamsPurpose::PlainRequests)?,
            false => EncodedParams::default(),
        };
        let terms = Terms {
            listener: listener.to_owned(),
            app: app.name.clone(),
            max_bytes: app.outbox_bytes,
            slow_reader: app.slow_reader,
            deflate_min_bytes,
            sends_empty: !app.compat.is_fooking(),
        };
        let terms = Arc::new(terms);
        Ok(Self {
            hub,
            listener: listener.to_owned(),
            app,
            upstream,
            framing,
            clients,
            params,
            plain_params,
            terms,
            absence: Absence::default(),
            hints: Hints::default(),
            #[cfg(test)]
            desk: None,
        })
    }

    /// Settings for sessions over HTTP, if its clients are such.
    pub(super) fn http_settings(&self) -> Option<&HttpSettings> {
        match &self.clients {
            ClientProtocol::Http(http) => Some(http),
            ClientProtocol::Streams { .. } => None,
        }
    }

    /// The heartbeat of byte streams.
    pub(super) fn heartbeat(&self) -> Option<&Heartbeat> {
        match &self.clients {
            ClientProtocol::Streams { heartbeat } => heartbeat.as_ref(),
            ClientProtocol::Http(_) => None,
        }
    }

    /// The params of a session: those of its connection and of the request that opened it. `session/cgi.rs` says which
    /// headers are dropped.
    pub fn session_params(
        &self,
        connection: &EncodedParams,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<EncodedParams, PairTooLong> {
        cgi::own_params(cgi::ParamsPurpose::Http, |name| cgi::is_ours(&self.app, name), connection, uri, headers)
    }

    /// The same for a plain request, which keeps the headers that apply only to its own response.
    pub fn request_params(
        &self,
        connection: &EncodedParams,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<EncodedParams, PairTooLong> {
        cgi::own_params(
            cgi::ParamsPurpose::PlainRequests,
            |name| cgi::is_ours(&self.app, name),
            connection,
            uri,
            headers,
        )
    }

    /// Whether several events of one session may run at once.
    pub(super) fn may_run_several(&self) -> bool {
        self.app.concurrency > 1
    }

    /// The frame kind of replies to events that are not frames.
    pub(super) fn default_kind(&self) -> FrameKind {
        match &self.framing {
            Framing::WebSocket { .. } | Framing::EventStream | Framing::Delimiter(_) => FrameKind::Text,
            Framing::Flagged(framing) => framing.kind(),
            Framing::Length(_) | Framing::Packet(_) | Framing::Gap(_) | Framing::Raw | Framing::Custom(_) => {
                FrameKind::Binary
            }
        }
    }

    /// Hands an event of a session to PHP.
    pub(super) fn submit(&self, state: &SessionState, event: Event, responder: Answer) {
        let own = EventParams {
            id: state.id,
            class: event.class,
            seq: event.seq,
            kind: event.kind,
            content_length: event.body.len(),
            peer: state.peer.into(),
            local: state.local.into(),
            close: None,
        };
        self.ask(Request {
            class: event.class,
            group: group::of(&self.app, &state.own_params, &event.profile),
            params: [self.params.clone(), state.own_params.clone(), event.profile, own.encode(&self.app)],
            body: event.body,
            idempotent: self.app.idempotent,
            responder,
        });
    }

    /// Hands a request to PHP.
    pub(super) fn ask(&self, request: Request<Answer>) {
        #[cfg(test)]
        if let Some(desk) = &self.desk {
            return desk.take(request);
        }
        self.upstream.submit(request);
    }

    /// Hands a plain request to PHP. The answer goes to `reply`.
    ///
    /// # Errors
    ///
    /// The content type is too long for FastCGI.
    pub fn submit_plain(
        self: &Arc<Self>,
        request: &PlainRequest<'_>,
        reply: oneshot::Sender<HttpReply>,
    ) -> Result<(), PairTooLong> {
        let event = Event {
            class: Class::Message,
            seq: 0,
            kind: FrameKind::Text,
            body: request.body.clone(),
            profile: EncodedParams::default(),
        };
        let own = cgi::plain_params(request)?;
        let info = EventInfo::of_request(self.clone(), &event);
        let answer = HttpAnswer::new(info, None, reply).for_method(request.method);
        self.ask(Request {
            class: event.class,
            group: group::of(&self.app, &request.own_params, &event.profile),
            params: [self.plain_params.clone(), request.own_params.clone(), event.profile, own],
            body: event.body,
            idempotent: self.app.idempotent,
            responder: Answer::Http(Box::new(answer)),
        });
        Ok(())
    }

    /// Sends the close event to PHP if the app wants it and PHP knows of the session. The future ends when it is
    /// delivered.
    pub(super) fn close_event(
        self: &Arc<Self>,
        state: &mut SessionState,
        profile: EncodedParams,
        close: &Close,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        if !self.app.events.close || !std::mem::take(&mut state.close_owed) {
            return None;
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        let own = EventParams {
            id: state.id,
            class: Class::Close,
            seq,
            kind: FrameKind::Binary,
            content_length: 0,
            peer: state.peer.into(),
            local: state.local.into(),
            close: Some(close),
        };
        let params = [self.params.clone(), state.own_params.clone(), profile, own.encode(&self.app)];
        Some(self.deliver(Owed { id: state.id, class: Class::Close, label: Class::Close.label(), seq, params }))
    }
}

/// A plain request: an HTTP request that belongs to no session.
pub struct PlainRequest<'a> {
    /// `REQUEST_METHOD`.
    pub method: &'a str,
    /// For `SERVER_PROTOCOL`.
    pub version: Version,
    /// `CONTENT_TYPE`, as the client says.
    pub content_type: Option<&'a [u8]>,
    /// All of it.
    pub body: Bytes,
    /// The other end.
    pub peer: Peer,
    /// This end.
    pub local: Peer,
    /// The params of the connection, with URI and headers.
    pub own_params: EncodedParams,
}

/// One event of a session.
pub(super) struct Event {
    pub(super) class: Class,
    pub(super) seq: u64,
    pub(super) kind: FrameKind,
    pub(super) body: Bytes,
    /// The session's uid and attributes, as params.
    pub(super) profile: EncodedParams,
}
