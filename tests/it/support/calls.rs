//! An upstream with short limits, requests for it, and a responder that keeps the answer for the test to look at.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use longwire::config::model::{self, Backend, Bind};
use longwire::metrics::upstream::UpstreamHandles;
use longwire::proto::fastcgi::params::{EncodedParams, Params};
use longwire::proto::fastcgi::request::ParamBlocks;
use longwire::proto::id::{SessionId, SessionIds};
use longwire::upstream::{Class, Failure, Outcome, Request, Responder, Timing, Upstream};
use tokio::sync::oneshot;

/// An upstream's configuration. Limits are long where a slow machine could exceed them, and short where a test waits for them.
pub fn config(backends: &[Bind], max_connections: usize) -> model::Upstream {
    model::Upstream {
        name: "test".to_owned(),
        backends: backends.iter().map(|address| Backend { address: address.clone(), weight: 1 }).collect(),
        spawn: None,
        max_connections,
        ask_limits: false,
        linger: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(20),
        queue_length: None,
        queue_timeout: Duration::from_secs(20),
        connect_queue_length: None,
        connect_share_percent: 50,
        slow_reader_hold: Duration::from_secs(1),
        abort_grace: Duration::from_millis(100),
        eject_after: 3,
        eject_time: Duration::from_millis(200),
        probe_interval: Duration::ZERO,
    }
}

/// The result of a request.
#[derive(Debug)]
pub struct Answer {
    pub outcome: Outcome,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The number of stdout bytes received at each pause.
    pub pauses: Vec<usize>,
}

impl Answer {
    /// The body of a complete answer: what comes after the CGI head.
    #[track_caller]
    pub fn body(&self) -> &[u8] {
        assert!(matches!(self.outcome, Outcome::Done(_)), "{:?} {}", self.outcome, self.stderr_text());
        let head = self.stdout.windows(4).position(|w| w == b"\r\n\r\n").expect("a CGI head");
        &self.stdout[head + 4..]
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.body()).expect("text")
    }

    #[track_caller]
    pub fn timing(&self) -> Timing {
        match self.outcome {
            Outcome::Done(timing) => timing,
            Outcome::Failed(failure) => panic!("{failure}"),
        }
    }

    #[track_caller]
    pub fn failure(&self) -> Failure {
        match self.outcome {
            Outcome::Done(_) => panic!("answered: {}", String::from_utf8_lossy(&self.stdout)),
            Outcome::Failed(failure) => failure,
        }
    }

    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Controls a responder from outside: cancel it, block it, look at what it has received.
#[derive(Debug, Default)]
pub struct Handle {
    pub cancelled: AtomicBool,
    pub blocked: AtomicBool,
    pub ended: AtomicBool,
    pub stdout: Mutex<Vec<u8>>,
    waker: AtomicWaker,
}

impl Handle {
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
        self.waker.wake();
    }

    pub fn received(&self) -> usize {
        self.stdout.lock().expect("no panics under it").len()
    }
}

pub struct Collector {
    handle: Arc<Handle>,
    stderr: Vec<u8>,
    pauses: Vec<usize>,
    session: SessionId,
    done: Option<oneshot::Sender<Answer>>,
}

impl Responder for Collector {
    fn stdout(&mut self, data: &[u8]) {
        assert!(!data.is_empty());
        self.handle.stdout.lock().expect("no panics under it").extend_from_slice(data);
    }

    fn pause(&mut self) {
        self.pauses.push(self.handle.received());
    }

    fn stderr(&mut self, data: &[u8]) {
        assert!(!data.is_empty());
        self.stderr.extend_from_slice(data);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.waker.register(cx.waker());
        if self.handle.blocked.load(Ordering::SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }

    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.handle.waker.register(cx.waker());
        if self.handle.cancelled.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn end(mut self, outcome: Outcome) {
        self.handle.ended.store(true, Ordering::SeqCst);
        let answer = Answer {
            outcome,
            stdout: std::mem::take(&mut self.handle.stdout.lock().expect("no panics under it")),
            stderr: self.stderr,
            pauses: self.pauses,
        };
        let _ = self.done.take().expect("end comes once").send(answer);
    }

    fn label(&self) -> Option<SessionId> {
        Some(self.session)
    }
}

/// A call that was submitted.
pub struct Pending {
    pub handle: Arc<Handle>,
    done: oneshot::Receiver<Answer>,
}

impl Pending {
    pub async fn answer(self) -> Answer {
        tokio::time::timeout(Duration::from_secs(60), self.done)
            .await
            .expect("every request ends within its limits")
            .expect("every request that was submitted ends")
    }
}

/// A request that is being built.
#[derive(Clone)]
pub struct Call {
    script: PathBuf,
    class: Class,
    body: Bytes,
    query: String,
    method: &'static str,
    idempotent: bool,
    blocked: bool,
}

pub fn call(script: &Path) -> Call {
    Call {
        script: script.to_owned(),
        class: Class::Message,
        body: Bytes::new(),
        query: String::new(),
        method: "POST",
        idempotent: false,
        blocked: false,
    }
}

impl Call {
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    pub fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    pub fn blocked(mut self) -> Self {
        self.blocked = true;
        self
    }

    fn params(&self) -> ParamBlocks {
        let mut app = Params::new();
        let script = self.script.to_str().expect("test paths are text").as_bytes();
        let mut event = Params::new();
        for (name, value) in
            [(&b"SCRIPT_FILENAME"[..], script), (b"REQUEST_METHOD", self.method.as_bytes()), (b"SERVER_NAME", b"test")]
        {
            app.push(name, value).expect("short");
        }
        event.push(b"QUERY_STRING", self.query.as_bytes()).expect("short");
        event.push(b"CONTENT_LENGTH", self.body.len().to_string().as_bytes()).expect("short");
        [app.finish(), EncodedParams::default(), EncodedParams::default(), event.finish()]
    }

    pub fn submit(self, upstream: &Upstream<Collector>) -> Pending {
        let handle = Arc::new(Handle::default());
        handle.set_blocked(self.blocked);
        let (done, answer) = oneshot::channel();
        let responder = Collector {
            handle: handle.clone(),
            stderr: Vec::new(),
            pauses: Vec::new(),
            session: SessionIds::new(0, 0, [0; 16]).next_id(),
            done: Some(done),
        };
        upstream.submit(Request {
            group: None,
            class: self.class,
            params: self.params(),
            body: self.body,
            idempotent: self.idempotent,
            responder,
        });
        Pending { handle, done: answer }
    }

    pub async fn run(self, upstream: &Upstream<Collector>) -> Answer {
        self.submit(upstream).answer().await
    }
}

/// Starts an upstream; returns it with its counters.
pub fn start(config: model::Upstream) -> (Upstream<Collector>, UpstreamHandles) {
    let metrics = UpstreamHandles::unregistered();
    (Upstream::start(config, metrics.clone()), metrics)
}
