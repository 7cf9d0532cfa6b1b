//! An upstream with responders that behave as php-fpm never or hardly ever does.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use longwire::config::model::Bind;
use longwire::metrics::upstream::RetryReason;
use longwire::proto::fastcgi::responder::{Incoming, RequestDecoder, push_end, push_stdout};
use longwire::proto::fastcgi::response::{EndRequest, ProtocolStatus, ResponseError};
use longwire::upstream::{Failure, Outcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use crate::support::calls::{call, config, start};
use crate::support::php_fpm::eventually;

/// A peer's reaction to the n-th request of a connection.
enum Act {
    /// Writes these bytes and takes the next request.
    Answer(Vec<u8>),
    /// Writes these bytes one at a time.
    Trickle(Vec<u8>),
    /// Writes these bytes and closes.
    Last(Vec<u8>),
    /// Stops sending and reads on until the other side closes, as php-fpm does at pm.max_requests.
    Drain,
    /// Stops sending, and closes when more bytes come. A relay does this after its backend has reset the connection.
    DrainUntilMore,
}

type Script = dyn Fn(usize, &Incoming) -> Act + Send + Sync;

/// A responder that follows a script of reactions and counts the requests that it has read whole.
#[derive(Clone)]
struct Peer {
    act: Arc<Script>,
    seen: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    fn new(act: impl Fn(usize, &Incoming) -> Act + Send + Sync + 'static) -> Self {
        Self { act: Arc::new(act), seen: Arc::default(), connections: Arc::default() }
    }

    fn listen_unix(&self, path: &Path) -> Bind {
        let listener = UnixListener::bind(path).expect("a new path");
        let peer = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(peer.clone().serve(stream));
            }
        });
        Bind::Unix(path.to_owned())
    }

    async fn listen_tcp(&self) -> Bind {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let peer = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(peer.clone().serve(stream));
            }
        });
        Bind::Tcp(address)
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut decoder = RequestDecoder::new(1 << 24);
        let mut buffer = vec![0; 65_536];
        let mut count = 0;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if buffer[1] == GET_VALUES {
                self.connections.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let mut input = &buffer[..read];
            while let Some(request) = decoder.decode(&mut input).expect("we encode well") {
                self.seen.fetch_add(1, Ordering::SeqCst);
                let act = (self.act)(count, &request);
                count += 1;
                match act {
                    Act::Answer(bytes) => drop(stream.write_all(&bytes).await),
                    Act::Trickle(bytes) => {
                        for byte in bytes {
                            let _ = stream.write_all(&[byte]).await;
                            tokio::task::yield_now().await;
                        }
                    }
                    Act::Last(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        return;
                    }
                    Act::Drain => {
                        let _ = stream.shutdown().await;
                        while let Ok(1..) = stream.read(&mut buffer).await {}
                        return;
                    }
                    Act::DrainUntilMore => {
                        let _ = stream.shutdown().await;
                        let _ = stream.read(&mut buffer).await;
                        return;
                    }
                }
            }
        }
    }
}

/// FCGI_GET_VALUES. Over TCP each backend is asked once, on a separate connection, whether it supports this record.
const GET_VALUES: u8 = 9;

const COMPLETE: EndRequest = EndRequest { app_status: 0, status: ProtocolStatus::Complete };

fn answer(id: u16, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_stdout(&mut bytes, id, format!("\r\n\r\n{text}").as_bytes());
    push_end(&mut bytes, id, COMPLETE);
    bytes
}

/// Runs `test` with one peer behind a Unix socket and with another behind TCP.
async fn on_both<F: Future<Output = ()>>(peer: impl Fn() -> Peer, test: impl Fn(Peer, Bind) -> F) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let unix = peer();
    let address = unix.listen_unix(&directory.path().join("peer.sock"));
    test(unix, address).await;
    let tcp = peer();
    let address = tcp.listen_tcp().await;
    test(tcp, address).await;
}

/// Checks that the first of two requests has this outcome, and that the second is answered on another connection.
async fn check(first: impl Fn(u16) -> Act + Send + Sync + Clone + 'static, expected: Result<&'static str, Failure>) {
    let peer = || {
        let (first, begun) = (first.clone(), AtomicUsize::new(0));
        Peer::new(move |_, request| match begun.fetch_add(1, Ordering::SeqCst) {
            0 => first(request.id),
            _ => Act::Answer(answer(request.id, "fine")),
        })
    };
    on_both(peer, |peer, address| async move {
        let (upstream, _) = start(config(&[address], 1));
        let script = Path::new("/x.php");
        let first = call(script).run(&upstream).await;
        match (expected, first.outcome) {
            (Ok(text), Outcome::Done(_)) => assert_eq!(first.text(), text),
            (Err(expected), Outcome::Failed(failure)) => assert_eq!(failure, expected),
            (expected, got) => panic!("{got:?} instead of {expected:?}"),
        }
        // An abandoned connection keeps its place for a while on TCP, so the second request may wait for it.
        if matches!(expected, Err(Failure::Protocol { .. })) {
            return;
        }
        assert_eq!(call(script).run(&upstream).await.text(), "fine");
        assert_eq!(peer.connections.load(Ordering::SeqCst), 2);
    })
    .await;
}

#[tokio::test]
async fn an_answer_to_another_request_is_never_given_to_this_one() {
    let wrong = |id: u16| Act::Answer(answer(id + 1, "somebody else's"));
    let error = ResponseError::RequestId { expected: 1, got: 2 };
    check(wrong, Err(Failure::Protocol { error, answered: false })).await;
}

#[tokio::test]
async fn bytes_after_the_end_cost_the_connection_and_nothing_else() {
    check(|id| Act::Answer([answer(id, "first"), vec![1, 6, 0]].concat()), Ok("first")).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_complete() {
    let cut = |id| Act::Last(answer(id, "truncated")[..20].to_vec());
    check(cut, Err(Failure::BackendClosed { answered: true })).await;
    check(|_| Act::Last(Vec::new()), Err(Failure::BackendClosed { answered: false })).await;
}

#[tokio::test]
async fn an_answer_may_come_byte_by_byte_and_a_refusal_is_told() {
    let peer = || {
        Peer::new(|count, request| {
            let mut refusal = Vec::new();
            push_end(&mut refusal, request.id, EndRequest { status: ProtocolStatus::UnknownRole, ..COMPLETE });
            if count == 0 { Act::Trickle(answer(request.id, "slowly")) } else { Act::Answer(refusal) }
        })
    };
    on_both(peer, |peer, address| async move {
        let (upstream, _) = start(config(&[address], 1));
        assert_eq!(call(Path::new("/x.php")).run(&upstream).await.text(), "slowly");
        let refused = call(Path::new("/x.php")).run(&upstream).await;
        assert_eq!(refused.failure(), Failure::Refused(ProtocolStatus::UnknownRole));
        assert_eq!(peer.connections.load(Ordering::SeqCst), 1);
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_is_overloaded_has_not_run_the_request_and_is_asked_again() {
    let peer = || {
        let refused = AtomicUsize::new(0);
        Peer::new(move |_, request| {
            let mut refusal = Vec::new();
            push_end(&mut refusal, request.id, EndRequest { status: ProtocolStatus::Overloaded, ..COMPLETE });
            match refused.fetch_add(1, Ordering::SeqCst) {
                0..5 => Act::Answer(refusal),
                _ => Act::Answer(answer(request.id, "at last")),
            }
        })
    };
    on_both(peer, |peer, address| async move {
        let (upstream, metrics) = start(config(&[address], 1));
        assert_eq!(call(Path::new("/x.php")).run(&upstream).await.text(), "at last");
        assert_eq!(peer.seen.load(Ordering::SeqCst), 6);
        // Three failures in a row, and one each time that the backend was on probation.
        assert_eq!(
            (metrics.retries(RetryReason::NotTaken), metrics.ejections.get()),
            (5, 3),
            "it was left alone meanwhile"
        );
    })
    .await;
}

/// The second request of a connection is read but not answered. Checks whether it is sent again.
async fn second_request(act: fn() -> Act, is_resent: bool) {
    let peer =
        || Peer::new(move |count, request| if count == 1 { act() } else { Act::Answer(answer(request.id, "fine")) });
    on_both(peer, |peer, address| async move {
        let (upstream, metrics) = start(config(std::slice::from_ref(&address), 1));
        call(Path::new("/x.php")).run(&upstream).await.body();
        let second = call(Path::new("/x.php")).run(&upstream).await;
        if is_resent {
            assert_eq!(second.text(), "fine");
        } else {
            assert_eq!(second.failure(), Failure::BackendClosed { answered: false }, "{address}");
        }
        assert_eq!(peer.seen.load(Ordering::SeqCst), 2 + usize::from(is_resent), "{address}");
        assert_eq!(metrics.retries(RetryReason::NotTaken), u64::from(is_resent), "{address}");
    })
    .await;
}

#[tokio::test]
async fn a_request_that_a_half_closed_peer_drains_was_not_taken_and_is_sent_again() {
    second_request(|| Act::Drain, true).await;
}

#[tokio::test]
async fn a_request_that_every_peer_half_closes_on_is_sent_three_times_at_most() {
    let peer = || {
        Peer::new(|_, request| match &request.body[..] {
            b"poison" => Act::Drain,
            _ => Act::Answer(answer(request.id, "fine")),
        })
    };
    on_both(peer, async |peer, address| {
        let (upstream, metrics) = start(config(&[address], 4));
        // Open four connections and let each answer.
        for _ in 0..20 {
            let calls: Vec<_> = (0..4).map(|_| call(Path::new("/x")).submit(&upstream)).collect();
            for pending in calls {
                assert_eq!(pending.answer().await.text(), "fine");
            }
        }
        let before = peer.seen.load(Ordering::SeqCst);
        let poison = call(Path::new("/x")).body("poison").submit(&upstream);
        let failure = poison.answer().await.failure();
        assert!(matches!(failure, Failure::BackendClosed { answered: false }), "{failure:?}");
        let runs = peer.seen.load(Ordering::SeqCst) - before;
        assert!((2..=3).contains(&runs), "it ran {runs} times");
        assert_eq!(metrics.retries(RetryReason::NotTaken), runs as u64 - 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_peer_closed_may_have_run_and_is_not_sent_again() {
    second_request(|| Act::Last(Vec::new()), false).await;
}

#[tokio::test]
async fn a_relay_that_hides_a_reset_does_not_make_us_send_again() {
    second_request(|| Act::DrainUntilMore, false).await;
}

#[tokio::test]
async fn an_idle_connection_that_the_peer_closes_is_dropped_in_silence() {
    let peer = || Peer::new(|_, request| Act::Last(answer(request.id, "last")));
    on_both(peer, |peer, address| async move {
        let mut config = config(&[address], 1);
        config.linger = Duration::from_secs(60);
        let (upstream, metrics) = start(config);
        for _ in 0..3 {
            assert_eq!(call(Path::new("/x.php")).run(&upstream).await.text(), "last");
            eventually("the end is noticed", || upstream.snapshot().backends[0].open == 0).await;
        }
        assert_eq!((peer.seen.load(Ordering::SeqCst), metrics.ejections.get()), (3, 0));
    })
    .await;
}

#[tokio::test]
async fn a_full_backlog_is_waited_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("peer.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&socket2::SockAddr::unix(&path).expect("a short path")).expect("a new path");
    socket.listen(1).expect("it is bound");
    socket.set_nonblocking(true).expect("a socket");
    let (upstream, metrics) = start(config(&[Bind::Unix(path)], 8));
    let calls: Vec<_> = (0..8).map(|_| call(Path::new("/x.php")).submit(&upstream)).collect();
    eventually("the backlog is full", || metrics.connects.get() == 2).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((metrics.connects.get(), metrics.connect_failures.get()), (2, 0));

    let peer = Peer::new(|_, request| Act::Answer(answer(request.id, "fine")));
    let listener = UnixListener::from_std(socket.into()).expect("within a runtime");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(peer.clone().serve(stream));
        }
    });
    for pending in calls {
        assert_eq!(pending.answer().await.text(), "fine");
    }
}
