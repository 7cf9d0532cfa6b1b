//! FastCGI clients alone: the request is always the same, and no client waits for the answers.
//!
//! Both repeat a recorded request of Longwire for a while, and print a report as `longwire bench` does.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fastcgi_client::conn::KeepAlive;
use fastcgi_client::io::{AsyncRead, AsyncWrite};
use fastcgi_client::{Client, Params as CrateParams, Request as CrateRequest};
use longwire::commands::bench::process::Usage;
use longwire::config::model::{self, Backend, Bind};
use longwire::metrics::upstream::UpstreamHandles;
use longwire::proto::fastcgi::params::{EncodedParams, Pairs, Params};
use longwire::proto::fastcgi::request::ParamBlocks;
use longwire::proto::fastcgi::responder::RequestDecoder;
use longwire::proto::id::{SessionId, SessionIds};
use longwire::upstream::{Class, Outcome, Request, Responder, Upstream};
use serde_json::{Value, json};
use tokio::io::BufStream;
use tokio::net::UnixStream;

use super::{BACKEND_CONNECTIONS, null, surprise};

/// Number of sessions; each has one event under way.
const SESSIONS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(1);
const MAX_REQUEST: usize = 1 << 20;

/// The FastCGI client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Longwire's own upstream.
    Longwire,
    /// The crate fastcgi-client on unbuffered sockets.
    Crate,
    /// The same on buffered sockets.
    CrateBuffered,
}

/// The request that is repeated.
struct Job {
    params: Vec<(String, String)>,
    body: Bytes,
    /// Length of an answer's stdout.
    answer: usize,
}

impl Job {
    fn read(request: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(request)?;
        let decoded = RequestDecoder::new(MAX_REQUEST).decode(&mut &bytes[..]);
        let incoming = decoded.map_err(io::Error::other)?.ok_or_else(|| surprise("the request is not whole"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let params = Pairs::new(&incoming.params).map(|(name, value)| (text(name), text(value))).collect();
        let answer = null::answer_to(&incoming.body).len();
        Ok(Self { params, body: incoming.body.into(), answer })
    }
}

/// The progress so far.
#[derive(Default)]
struct Progress {
    replies: AtomicU64,
    wrong: AtomicU64,
    is_over: AtomicBool,
}

impl Progress {
    fn count(&self, is_right: bool) {
        self.replies.fetch_add(1, Ordering::Relaxed);
        self.wrong.fetch_add(u64::from(!is_right), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Sends requests for the time `measured` and prints a report, with the CPU time of the process `responder`.
pub(super) fn run(which: Which, socket: &Path, request: &Path, responder: u32, measured: Duration) -> io::Result<()> {
    let job = Arc::new(Job::read(request)?);
    let progress = Arc::new(Progress::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = tokio::task::LocalSet::new().block_on(&runtime, async {
        // Keep the upstream until the end: it takes no more requests when it is dropped.
        let _upstream = match which {
            Which::Longwire => Some(start_upstream(socket, &job, &progress)?),
            Which::Crate | Which::CrateBuffered => {
                for _ in 0..BACKEND_CONNECTIONS {
                    let stream = UnixStream::connect(socket).await?;
                    let (job, progress) = (job.clone(), progress.clone());
                    if which == Which::Crate {
                        tokio::task::spawn_local(ask(Client::new_keep_alive_tokio(stream), job, progress));
                    } else {
                        let client = Client::new_keep_alive_tokio(BufStream::new(stream));
                        tokio::task::spawn_local(ask(client, job, progress));
                    }
                }
                None
            }
        };
        tokio::time::sleep(WARM_UP).await;
        let (first, before) = (progress.replies.load(Ordering::Relaxed), Usage::now(&[responder]));
        tokio::time::sleep(measured).await;
        let after = Usage::now(&[responder]);
        let replies = progress.replies.load(Ordering::Relaxed) - first;
        progress.is_over.store(true, Ordering::Relaxed);
        Ok::<Value, io::Error>(report(&before, &after, replies, progress.wrong.load(Ordering::Relaxed), measured))
    })?;
    println!("{report}");
    Ok(())
}

/// A report in the shape of `longwire bench echo`; this process is the first of the two.
fn report(before: &Usage, after: &Usage, replies: u64, wrong: u64, measured: Duration) -> Value {
    let mut cpu = json!(before.until(after, replies));
    cpu["cpu_us_per_message"] = json!([cpu["generator_cpu_us_per_message"], cpu["cpu_us_per_message"][0]]);
    json!({
        "connections": BACKEND_CONNECTIONS,
        "connected": BACKEND_CONNECTIONS,
        "replies": replies,
        "replies_per_s": replies as f64 / measured.as_secs_f64(),
        "wrong": wrong,
        "cpu": cpu,
    })
}

/// Sends one request after the other on one connection, which is all that the crate can do.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: Client<S, KeepAlive>,
    job: Arc<Job>,
    progress: Arc<Progress>,
) {
    while !progress.is_over() {
        let pairs = job.params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let params = pairs.fold(CrateParams::default(), |params, (name, value)| params.custom(name, value));
        let answered = client.execute(CrateRequest::new(params, &job.body[..])).await;
        progress.count(answered.is_ok_and(|answer| answer.stdout.is_some_and(|stdout| stdout.len() == job.answer)));
    }
}

/// Starts an upstream with [`SESSIONS`] sessions that send requests.
fn start_upstream(socket: &Path, job: &Arc<Job>, progress: &Arc<Progress>) -> io::Result<Arc<Upstream<Session>>> {
    let upstream = Arc::new(Upstream::start(config(socket), UpstreamHandles::unregistered()));
    let mut params = Params::new();
    for (name, value) in &job.params {
        params.push(name.as_bytes(), value.as_bytes()).map_err(|error| io::Error::other(error.to_string()))?;
    }
    let params = [params.finish(), EncodedParams::default(), EncodedParams::default(), EncodedParams::default()];
    let label = SessionIds::new(0, 0, [0; 16]).next_id();
    for _ in 0..SESSIONS {
        let (upstream, job, progress) = (Arc::downgrade(&upstream), job.clone(), progress.clone());
        Session { upstream, params: params.clone(), job, progress, received: 0, label }.ask();
    }
    Ok(upstream)
}

fn config(socket: &Path) -> model::Upstream {
    let patience = Duration::from_secs(20);
    model::Upstream {
        name: "null".to_owned(),
        backends: vec![Backend { address: Bind::Unix(socket.to_owned()), weight: 1 }],
        spawn: None,
        max_connections: BACKEND_CONNECTIONS,
        ask_limits: false,
        linger: patience,
        connect_timeout: patience,
        response_timeout: patience,
        request_timeout: patience,
        queue_length: None,
        queue_timeout: patience,
        connect_queue_length: None,
        connect_share_percent: 50,
        slow_reader_hold: Duration::from_secs(1),
        abort_grace: Duration::from_millis(100),
        eject_after: 3,
        eject_time: Duration::from_millis(200),
        probe_interval: Duration::ZERO,
    }
}

/// A session that submits its next event as soon as the last one was answered.
struct Session {
    upstream: Weak<Upstream<Session>>,
    params: ParamBlocks,
    job: Arc<Job>,
    progress: Arc<Progress>,
    received: usize,
    label: SessionId,
}

impl Session {
    fn ask(self) {
        let Some(upstream) = self.upstream.upgrade().filter(|_| !self.progress.is_over()) else { return };
        let (params, body) = (self.params.clone(), self.job.body.clone());
        upstream.submit(Request {
            class: Class::Message,
            group: None,
            params,
            body,
            idempotent: false,
            responder: self,
        });
    }
}

impl Responder for Session {
    fn stdout(&mut self, data: &[u8]) {
        self.received += data.len();
    }
    fn pause(&mut self) {}
    fn stderr(&mut self, _: &[u8]) {}
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
    fn poll_cancelled(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    fn end(mut self, outcome: Outcome) {
        self.progress.count(matches!(outcome, Outcome::Done(_)) && self.received == self.job.answer);
        self.received = 0;
        self.ask();
    }
    fn label(&self) -> Option<SessionId> {
        Some(self.label)
    }
}
