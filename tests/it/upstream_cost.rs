//! What a request costs in CPU time, against a responder that does nothing.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longwire::config::model::Bind;
use longwire::metrics::upstream::UpstreamHandles;
use longwire::proto::fastcgi::params::{EncodedParams, Params};
use longwire::proto::fastcgi::request::ParamBlocks;
use longwire::proto::fastcgi::responder::{RequestDecoder, push_end, push_stdout};
use longwire::proto::fastcgi::response::{End, ProtocolStatus};
use longwire::proto::id::{SessionId, SessionIds};
use longwire::upstream::{Class, Outcome, Request, Responder, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::calls::config;

const CONNECTIONS: usize = 32;
const REQUESTS: usize = 400_000;

/// A session that sends its next event when the last was answered.
struct Chain {
    upstream: Weak<Upstream<Chain>>,
    params: ParamBlocks,
    body: Bytes,
    left: Arc<AtomicUsize>,
    bytes: usize,
    session: SessionId,
    done: tokio::sync::mpsc::UnboundedSender<()>,
}

impl Chain {
    fn next(self) {
        let Some(upstream) = self.upstream.upgrade() else { return };
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
            let _ = self.done.send(());
            return;
        }
        let (params, body) = (self.params.clone(), self.body.clone());
        upstream.submit(Request { class: Class::Message, params, body, idempotent: false, responder: self });
    }
}

impl Responder for Chain {
    fn stdout(&mut self, data: &[u8]) {
        self.bytes += data.len();
    }
    fn pause(&mut self) {}
    fn stderr(&mut self, _: &[u8]) {}
    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
    fn poll_cancelled(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    fn end(self, outcome: Outcome) {
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        self.next();
    }
    fn label(&self) -> SessionId {
        self.session
    }
}

/// Answers every request with 64 bytes, on a thread of its own.
fn null_responder(path: &std::path::Path) {
    let listener = UnixListener::bind(path).expect("a new path");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("within a runtime");
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut decoder = RequestDecoder::new(1 << 20);
                    let (mut buffer, mut answer) = (vec![0; 16 * 1024], Vec::new());
                    loop {
                        let read = stream.read(&mut buffer).await.unwrap_or(0);
                        if read == 0 {
                            return;
                        }
                        let mut input = &buffer[..read];
                        while let Some(request) = decoder.decode(&mut input).expect("we encode well") {
                            answer.clear();
                            push_stdout(&mut answer, request.id, &[b'x'; 64]);
                            push_end(&mut answer, request.id, End { app_status: 0, status: ProtocolStatus::Complete });
                            stream.write_all(&answer).await.expect("the upstream reads");
                        }
                    }
                });
            }
        });
    });
}

fn thread_cpu() -> Duration {
    // SAFETY: clock_gettime writes one timespec.
    unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// The whole way of a request: queue, connection, encode, write, read, decode, end. Meant for release builds.
#[test]
#[ignore = "a measurement: cargo test --release --test it upstream_cost -- --ignored --nocapture"]
fn a_request_costs_a_few_microseconds() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("null.sock");
    null_responder(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let upstream =
            Arc::new(Upstream::start(config(&[Bind::Unix(path)], CONNECTIONS), UpstreamHandles::unregistered()));
        let (app, session, event) = (params(12), params(6), params(4));
        let left = Arc::new(AtomicUsize::new(REQUESTS));
        let (done, mut finished) = tokio::sync::mpsc::unbounded_channel();
        let (cpu, wall) = (thread_cpu(), Instant::now());
        for _ in 0..2 * CONNECTIONS {
            let chain = Chain {
                upstream: Arc::downgrade(&upstream),
                params: [app.clone(), session.clone(), EncodedParams::default(), event.clone()],
                body: Bytes::from_static(&[b'y'; 64]),
                left: left.clone(),
                bytes: 0,
                session: SessionIds::new(0, 0, [0; 16]).next_id(),
                done: done.clone(),
            };
            chain.next();
        }
        for _ in 0..2 * CONNECTIONS {
            finished.recv().await;
        }
        let (cpu, wall) = (thread_cpu() - cpu, wall.elapsed());
        let each = cpu.as_secs_f64() * 1e6 / REQUESTS as f64;
        println!("{each:.2} us CPU per request, {:.0} requests/s", REQUESTS as f64 / wall.as_secs_f64());
        assert!(cfg!(debug_assertions) || each < 8.0, "{each} us");
    });
}

fn params(count: usize) -> EncodedParams {
    let mut params = Params::new();
    for at in 0..count {
        params.push(format!("LONGWIRE_PARAM_{at}").as_bytes(), b"a value of thirty bytes length").expect("short");
    }
    params.finish()
}
