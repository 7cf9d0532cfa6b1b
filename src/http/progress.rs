//! Whether a client takes its answer.
//!
//! A short answer fits into the socket's buffer and is gone. A file does not, and hyper would wait for its reader for
//! ever, with a place among the handshakes in hand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// Between two looks at an answer. One that has not moved from one look to the next is given up, as nginx does after a
/// `send_timeout` of the same length.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// What is left of an answer's time when the node begins to stop: a page is through by then, and a large file can be had
/// again.
const LAST_SECONDS: Duration = Duration::from_secs(5);

/// How far the answer of one connection is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Pieces that hyper has taken because the socket had room.
    pieces: AtomicU64,
}

impl Progress {
    /// Counts the pieces of a body. Of a 101 nothing is taken, so a session is never given up here.
    pub(super) fn watch<B>(self: Arc<Self>, body: B) -> Watched<B> {
        Watched { body, progress: self }
    }

    /// Ends when an answer has stood still from one look to the next.
    pub(super) async fn stalled(&self) {
        let mut last = 0;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.pieces.load(Ordering::Relaxed);
            if now > 0 && now == last {
                return;
            }
            last = now;
        }
    }

    /// Ends when the node has begun to stop and the answer has had its time. A handshake that waits for PHP is not touched.
    pub(super) async fn over(&self, draining: &CancellationToken) {
        draining.cancelled().await;
        tokio::time::sleep(LAST_SECONDS).await;
        if self.pieces.load(Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
    }
}

/// A body whose pieces are counted.
pub(super) struct Watched<B> {
    body: B,
    progress: Arc<Progress>,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.progress.pieces.fetch_add(1, Ordering::Relaxed);
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
        Arc::new(Progress { pieces: AtomicU64::new(1) })
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
                let body = moving.clone().watch(Full::new(Bytes::from_static(b"piece")));
                body.collect().await.expect("nothing can fail");
            }
        };
        tokio::select! {
            () = moving.stalled() => panic!("it moved"),
            () = reader => {}
        }
        let waiting = Progress::default();
        assert!(timeout(10 * LOOK_INTERVAL, waiting.stalled()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_node_ends_answers_and_leaves_handshakes_alone() {
        let draining = CancellationToken::new();
        assert!(timeout(10 * LAST_SECONDS, started().over(&draining)).await.is_err());
        draining.cancel();
        assert!(timeout(2 * LAST_SECONDS, started().over(&draining)).await.is_ok());
        assert!(timeout(10 * LAST_SECONDS, Progress::default().over(&draining)).await.is_err());
    }
}
