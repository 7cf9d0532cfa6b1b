//! The HTTP API: the router's commands and queries, for programs that use HTTP rather than the protocol of the router
//! port.
//!
//! ```text
//!   request ─> guard (token, or: this machine and no browser) ─> path ─> Arguments ─> Command | Query
//!                 │ 401, 403                                      │ 404, 405   │ 400        │
//!                 v                                               v            v            v
//!             problem details (RFC 9457)                                               receipt, JSON
//! ```
//!
//! `openapi.json` describes the API for programs (OpenAPI 3.1) and is served at `/openapi.json`.

mod problem;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use self::problem::Problem;
use crate::config::model;
use crate::http::{host_only, one_host};
use crate::metrics::router::Door;
use crate::proto::arguments::Arguments;
use crate::proto::command::{AttributeKey, Name, Query};
use crate::proto::id::SessionId;
use crate::proto::verb::Verb;
use crate::router::QueryAnswer;
use crate::router_port::{Memory, SetAside};
use crate::session::Hub;
use crate::transport::Peer;
use crate::transport::listening::{AcceptedTasks, Listening};

/// The timeout for a request's head, and for the next request on a keep-alive connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most connections at once. The API's clients are an operator's own programs, not visitors.
pub const MAX_CONNECTIONS: usize = 1024;
/// The description for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// Serves at most `connections` at once, until the future is dropped.
pub async fn serve_api(
    listening: Listening,
    config: model::Api,
    connections: usize,
    memory: Arc<Memory>,
    hub: Arc<Hub>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let api = Arc::new(Api { config, memory, hub });
    let accepted = AcceptedTasks::default();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (transport, peer) = listening.next().await;
        let api = api.clone();
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request, peer).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(transport), service);
        accepted.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%peer, %error, "API connection ended");
            }
            drop(place);
        });
    }
}

struct Api {
    config: model::Api,
    memory: Arc<Memory>,
    hub: Arc<Hub>,
}

/// A path of the API.
enum Path {
    OpenApi,
    Command(Verb),
    Query(Query),
    /// A list, which has pages.
    List(List),
}

enum List {
    Sessions,
    Channels,
    Channel(Name),
    Uid(Name),
}

impl Api {
    async fn serve(&self, request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
        match self.answer(request).await {
            Ok(response) => response,
            Err(problem) => {
                self.hub.metrics.router.count_refused(Door::Api, problem.word);
                if matches!(problem.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    warn!(%peer, cause = problem.word, "API request refused: {}", problem.detail);
                } else {
                    debug!(%peer, cause = problem.word, "API request refused: {}", problem.detail);
                }
                problem.into_response()
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
        one_host(request.version(), request.headers())
            .map_err(|what| Problem::new(StatusCode::BAD_REQUEST, "host", what))?;
        self.guard(&request)?;
        let path = Path::parse(request.uri().path())?;
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            Path::Command(_) if request.method() != Method::POST => return Err(Problem::method("POST")),
            Path::OpenApi | Path::Query(_) | Path::List(_) if !is_read => return Err(Problem::method("GET, HEAD")),
            _ => {}
        }
        match path {
            Path::OpenApi => Ok(json_response(OPENAPI)),
            Path::Command(verb) => {
                // The memory is held until the command is done.
                let (arguments, _memory) = self.arguments(request, verb).await?;
                let command = verb.command(arguments)?;
                let outcome = self.hub.cluster.run(Door::Api, &command).await;
                Ok(json_response(serde_json::to_vec(&outcome).expect("numbers can be written")))
            }
            Path::Query(query) => {
                query_arguments(&request)?.finish()?;
                self.ask(&query).await
            }
            Path::List(list) => {
                let mut arguments = query_arguments(&request)?;
                let page = arguments.page()?;
                arguments.finish()?;
                self.ask(&match list {
                    List::Sessions => Query::Sessions(page),
                    List::Channels => Query::Channels(page),
                    List::Channel(channel) => Query::Channel(channel, page),
                    List::Uid(uid) => Query::Uid(uid, page),
                })
                .await
            }
        }
    }

    async fn ask(&self, query: &Query) -> Result<Response<Full<Bytes>>, Problem> {
        self.hub.metrics.router.count_query(Door::Api);
        let asked = self.hub.cluster.ask(query).await;
        match &asked.answer {
            QueryAnswer::Absent if !asked.unreached.is_empty() => {
                Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unreachable", asked.unreached.to_string()))
            }
            QueryAnswer::Absent => Err(match query {
                Query::Attribute(..) => Problem::absent("there is no such session, or it has no such attribute"),
                _ => Problem::absent("there is no such session"),
            }),
            QueryAnswer::Value(value) => Ok(response("application/octet-stream", value.clone())),
            _ => Ok(json_response(asked.json())),
        }
    }

    /// Checks whether the request is allowed. Without a token, any program on this machine may ask. A web page in a
    /// browser on this machine may not. It is recognized by its `Origin`, or by a `Host` that is not a name of this
    /// machine (an attacker's name that resolves to this machine).
    fn guard(&self, request: &Request<Incoming>) -> Result<(), Problem> {
        let headers = request.headers();
        let Some(token) = &self.config.token else {
            if headers.contains_key(header::ORIGIN) {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "origin",
                    "web pages may not ask here: send no Origin header, or set [api] token and send the token",
                ));
            }
            let host = request.uri().host().or_else(|| host_of(headers)).unwrap_or_default();
            return match is_this_machine(host) {
                true => Ok(()),
                false => Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "host",
                    format!(
                        "{host:?} is not a name of this machine: without [api] token, only requests to localhost are answered"
                    ),
                )),
            };
        };
        match bearer(headers) {
            None => Err(Problem::unauthenticated("the header Authorization: Bearer TOKEN is missing")),
            // Digests are compared, so that the time of the comparison reveals nothing about the token.
            Some(given) if Sha256::digest(given) == Sha256::digest(token.reveal()) => Ok(()),
            Some(_) => Err(Problem::unauthenticated("the token is wrong")),
        }
    }

    /// Reads the arguments from a JSON body, or from the query string with a raw body as the message or the value.
    async fn arguments(
        &self,
        request: Request<Incoming>,
        verb: Verb,
    ) -> Result<(Arguments, Option<SetAside>), Problem> {
        let kind = content_type(request.headers())?;
        let query = request.uri().query().unwrap_or_default().to_owned();
        let (body, memory) = self.body(request).await?;
        if kind == ContentType::Json {
            if !query.is_empty() {
                return Err(Problem::argument("a JSON body holds all arguments: the query string must be empty"));
            }
            return Ok((Arguments::of_json(&body)?, memory));
        }
        let mut arguments = Arguments::of_query(&query)?;
        match verb.raw_body() {
            Some(name) => arguments.put(name, body)?,
            None if !body.is_empty() => {
                return Err(Problem::argument(
                    "this command takes no raw body: send its arguments as application/json or in the query string",
                ));
            }
            _ => {}
        }
        Ok((arguments, memory))
    }

    /// The body, and the memory that was set aside for it.
    async fn body(&self, request: Request<Incoming>) -> Result<(Bytes, Option<SetAside>), Problem> {
        let max = self.config.max_body_bytes;
        let too_long = || {
            let detail = format!("the body has more than {max} bytes ([api] max_body_bytes)");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_long", detail)
        };
        let body = request.into_body();
        if body.size_hint().lower() > max as u64 {
            return Err(too_long());
        }
        // A body without a declared length may reach the limit. Its bytes are in memory twice while its pieces are
        // joined.
        let bytes = 2 * body.size_hint().upper().map_or(max, |upper| upper.min(max as u64) as usize);
        let memory = tokio::time::timeout(BODY_TIMEOUT, self.memory.set_aside(bytes)).await.map_err(|_| {
            let detail =
                "too many large messages are being received: retry later, or raise [router] max_buffered_bytes";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
        })?;
        match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await {
            Ok(Ok(body)) => Ok((body.to_bytes(), memory)),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
            Ok(Err(error)) => Err(Problem::argument(format!("the body could not be read: {error}"))),
            Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time")),
        }
    }
}

impl Path {
    fn parse(path: &str) -> Result<Self, Problem> {
        let mut segments = path.split('/').skip(1);
        let nothing =
            || Problem::new(StatusCode::NOT_FOUND, "no_path", "nothing here; GET /openapi.json lists the paths");
        let segments: [Option<&str>; 6] = std::array::from_fn(|_| segments.next());
        Ok(match segments {
            [Some("openapi.json"), None, ..] => Path::OpenApi,
            [Some("v1"), Some("node"), None, ..] => Path::Query(Query::Node),
            [Some("v1"), Some("sessions"), None, ..] => Path::List(List::Sessions),
            [Some("v1"), Some("channels"), None, ..] => Path::List(List::Channels),
            [Some("v1"), Some("channels"), Some(name), None, ..] => Path::List(List::Channel(path_name(name)?)),
            [Some("v1"), Some("uids"), Some(name), None, ..] => Path::List(List::Uid(path_name(name)?)),
            [Some("v1"), Some("sessions"), Some(id), None, ..] => Path::Query(Query::Session(path_id(id)?)),
            [Some("v1"), Some("sessions"), Some(id), Some("attributes"), Some(key), None] => {
                let key: Vec<u8> = percent_decode_str(key).collect();
                let key = AttributeKey::new(&key).ok_or_else(|| Problem::absent("no attribute has such a name"))?;
                Path::Query(Query::Attribute(path_id(id)?, key))
            }
            [Some("v1"), Some(verb), None, ..] => Path::Command(Verb::parse(verb).ok_or_else(nothing)?),
            _ => return Err(nothing()),
        })
    }
}

fn path_name(segment: &str) -> Result<Name, Problem> {
    let bytes: Vec<u8> = percent_decode_str(segment).collect();
    Name::new(&bytes).map_err(|error| Problem::argument(error.to_string()))
}

fn path_id(segment: &str) -> Result<SessionId, Problem> {
    SessionId::from_bytes(segment.as_bytes()).ok_or_else(|| Problem::absent("no session has such an id"))
}

fn query_arguments(request: &Request<Incoming>) -> Result<Arguments, Problem> {
    Ok(Arguments::of_query(request.uri().query().unwrap_or_default())?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ContentType {
    Json,
    Raw,
}

/// Refuses forms. `curl -d` always claims to send a form. Without this check, a JSON body sent that way would be
/// delivered as the message.
fn content_type(headers: &HeaderMap) -> Result<ContentType, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(ContentType::Raw) };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(ContentType::Json),
        "application/x-www-form-urlencoded" | "multipart/form-data" => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            format!(
                "{essence} is not supported: send all arguments as application/json, or the message itself as any other type"
            ),
        )),
        _ => Ok(ContentType::Raw),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

fn host_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok().map(host_only)
}

/// Names that mean this machine, regardless of name servers. On a Unix socket, clients send `localhost` too.
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn json_response(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response("application/json", body)
}

fn response(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
