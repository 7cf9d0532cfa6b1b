//! Notices clients that do not take their answer.
//!
//! A short answer fits into the socket's buffer and is gone. A file does not fit, and hyper would wait for its reader forever,
//! while the connection holds a place among the handshakes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

use super::LAST_WORDS;

/// Time between two looks at an answer. An answer that has not moved from one look to the next is given up, as nginx does after a
/// `send_timeout` of the same length.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How much of its answers the client of one connection has taken.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Pieces that hyper has taken, because the socket had room.
    pieces: AtomicU64,
    /// Answers that are complete on our side but not yet sent.
    leaving: AtomicUsize,
}

impl Progress {
    /// Ends when an answer has not moved from one look to the next.
    pub(super) async fn stalled(&self) {
        let mut last = 0;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.pieces.load(Ordering::Relaxed);
            if self.is_leaving() && now == last {
                return;
            }
            last = now;
        }
    }

    /// Ends when the node has begun to stop and the answer has used its remaining time. A handshake that waits for PHP is left
    /// alone.
    pub(super) async fn over(&self, draining: &CancellationToken) {
        draining.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
        if !self.is_leaving() {
            std::future::pending::<()>().await;
        }
    }

    /// True if an answer is complete on our side but not yet sent.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) > 0
    }
}

/// The body of an answer, and a guard that is dropped with it.
pub(super) struct Watched<B, G> {
    body: B,
    /// Where its pieces are counted.
    progress: Option<Arc<Progress>>,
    /// No other answer follows on the connection.
    is_last: bool,
    _guard: G,
}

impl<B, G> Watched<B, G> {
    /// Without `progress` the client may take any time: a session's stream, an answer that has a watch of its own, the 101.
    ///
    /// hyper drops a body when all of it is in hyper's own buffer. If the connection goes on, the timeout of its next head watches
    /// it from then on. If this answer `is_last`, it is watched to the end.
    pub(super) fn new(body: B, progress: Option<Arc<Progress>>, is_last: bool, guard: G) -> Self {
        if let Some(progress) = &progress {
            progress.leaving.fetch_add(1, Ordering::Relaxed);
        }
        Self { body, progress, is_last, _guard: guard }
    }
}

impl<B, G> Drop for Watched<B, G> {
    fn drop(&mut self) {
        if let Some(progress) = self.progress.as_ref().filter(|_| !self.is_last) {
            progress.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<B: Body + Unpin, G: Unpin> Body for Watched<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        if let Some(progress) = &self.progress {
            progress.pieces.fetch_add(1, Ordering::Relaxed);
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tokio::time::{Instant, timeout};

    use super::*;

    fn started() -> Arc<Progress> {
        Arc::new(Progress { pieces: AtomicU64::new(1), leaving: AtomicUsize::new(1) })
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stands_still_is_given_up() {
        let progress = started();
        let start = Instant::now();
        progress.stalled().await;
        assert!(start.elapsed() <= 2 * LOOK_INTERVAL, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_moves_and_one_that_has_not_begun_are_not() {
        let moving = started();
        let reader = async {
            for _ in 0..10 {
                tokio::time::sleep(LOOK_INTERVAL / 2).await;
                let body = Watched::new(Full::new(Bytes::from_static(b"piece")), Some(moving.clone()), true, ());
                body.collect().await.expect("nothing can fail");
            }
        };
        tokio::select! {
            () = moving.stalled() => panic!("it moved"),
            () = reader => {}
        }
        let waiting = Arc::<Progress>::default();
        assert!(timeout(10 * LOOK_INTERVAL, waiting.stalled()).await.is_err());
        drop(Watched::new(Full::<Bytes>::default(), Some(waiting.clone()), false, ()));
        assert!(timeout(10 * LOOK_INTERVAL, waiting.stalled()).await.is_err(), "it is through, and another may follow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_node_ends_answers_and_leaves_handshakes_alone() {
        let draining = CancellationToken::new();
        assert!(timeout(10 * LAST_WORDS, started().over(&draining)).await.is_err());
        draining.cancel();
        assert!(timeout(2 * LAST_WORDS, started().over(&draining)).await.is_ok());
        assert!(timeout(10 * LAST_WORDS, Progress::default().over(&draining)).await.is_err());
    }
}
